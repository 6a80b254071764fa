"""A model within a model: a plain one that is named by its class, with its options."""

import difflib
import importlib
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from lit_models.base import LitModule
from lit_models.errors import ModelError
from lit_models.tasks import TaskName
from lit_models.transfer import LitTransfer

FITTING = "give LitMLP, LitConvNet, LitTextClassifier, ..., or the import path of another LitModule."


class LitWrapper(LitModule):
    """Base of models whose network is another model, the inner one, which normalizes its inputs itself.

    What the data know of their sizes goes to inner models that take it. The features of a `LitTransfer` within are
    computed in every step, and its weights do not set the image size of the data.

    Args:
        in_features: Numbers in one input.
        input_shape: Channels, height and width of an image, or the shape of another input.
        cat_cardinalities: How many codes each category has, if the last numbers of a row are codes.
        vocab_size: How many token ids there are.
        max_length: Most tokens of a text.
        kwargs: Options of `LitModule`.
    """

    net: LitModule

    def __init__(
        self,
        in_features: int | None = None,
        input_shape: Sequence[int] | None = None,
        cat_cardinalities: Sequence[int] | None = None,
        vocab_size: int | None = None,
        max_length: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sizes = {
            "in_features": in_features,
            "input_shape": input_shape,
            "cat_cardinalities": cat_cardinalities,
            "vocab_size": vocab_size,
            "max_length": max_length,
        }

    def make_inner(
        self, option: str, name: str, args: Mapping[str, Any] | None, task: TaskName, num_outputs: int
    ) -> None:
        """Make the inner model, and put it in the place of the network.

        Args:
            option: The option that names it, for messages; its options are `<option>_args`.
            name: Its class: one of `lit_models`, or any `LitModule` by its import path.
            args: Its own options.
            task: Its task.
            num_outputs: Its scores for each sample.

        Raises:
            ModelError: If there is no such class or option, or it does not fit the data.
        """
        cls = find_class(f"--model.{option}", name)
        own = dict(args or {})
        known, shared = _parameters(cls), _parameters(LitModule)
        options = known - shared - self.sizes.keys()  # which no other model need have
        for key in own:
            if key in shared or key in self.sizes:
                whose = "the data say it" if key in (*self.sizes, "task", "num_outputs") else f"give --model.{key}"
                raise ModelError(f"--model.{option}_args.{key}: it is no matter of {name} alone; {whose}.")
            if key not in known:
                close = difflib.get_close_matches(key, options, n=1)
                hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(options)) or 'none'}."
                raise ModelError(f"--model.{option}_args.{key}: {name} has no such option; {hint}")
        self._check_kind(option, name, known)
        given: dict[str, Any] = {key: value for key, value in self.sizes.items() if value is not None and key in known}
        shape = self.sizes["input_shape"] or self.sizes["in_features"]
        try:
            inner = cls(task=task, num_outputs=num_outputs, normalize=self.hparams["normalize"], **given, **own)
        except ModelError as error:
            raise ModelError(_as_inner(str(error), option, options)) from error
        except (TypeError, ValueError, KeyError, RuntimeError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ModelError(f"--model.{option}_args {own}: {name} cannot be made with these ({reason}).") from error
        try:  # what cannot take such inputs is found now, and not in the first step
            with torch.no_grad():
                scores = inner.eval()(inner.example_input_array)
        except (RuntimeError, ValueError, IndexError) as error:
            reason = " ".join(str(error).split())[:100]
            raise ModelError(
                f"--model.{option} {name}: it does not fit these data, of which an input is {shape} ({reason}); give "
                "another one."
            ) from error
        if scores.shape[-1] != num_outputs:
            raise ModelError(
                f"--model.{option} {name}: it gives {scores.shape[-1]} scores for each sample where {num_outputs} are "
                "asked for, by its num_outputs; give another one."
            )
        self.net = inner.train()
        self.example_input_array = inner.example_input_array

    def _check_kind(self, option: str, name: str, known: set[str]) -> None:
        """Refuse a model for another kind of input than that of the data, as far as these are known."""
        has_tokens = self.sizes["vocab_size"] is not None
        if has_tokens and "vocab_size" not in known:
            raise ModelError(f"--model.{option} {name}: it cannot read tokens of text; give LitTextClassifier.")
        if not has_tokens and "vocab_size" in known and any(value is not None for value in self.sizes.values()):
            raise ModelError(
                f"--model.{option} {name}: it reads texts, which these data are not; give LitMLP, or for images "
                "LitConvNet."
            )
        if self.sizes["cat_cardinalities"] and "cat_cardinalities" not in known:
            raise ModelError(
                f"--model.{option} {name}: it would read the codes of categories as numbers; give LitMLP, or leave "
                "these columns out by --data.exclude."
            )

    def normalize(self, x: Tensor) -> Tensor:
        """Give inputs as they are: the inner model normalizes them."""
        return x

    def take_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Have the inner model take over by what the data are normalized."""
        self.net.take_statistics(statistics)

    def prepare_weights(self) -> None:
        """Have the inner model get what it begins with."""
        self.net.prepare_weights()

    def setup(self, stage: str) -> None:
        """Prepare both models."""
        super().setup(stage)
        self.net.setup(stage)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Load pretrained weights, if the inner model has some; then make optimizer and scheduler."""
        inner = self.net
        if isinstance(inner, LitTransfer) and inner.weights and not inner.has_weights:
            data = self.trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it without a type
            inner.load_weights(keep_statistics=getattr(data, "normalize", None) is not None)
        return super().configure_optimizers()

    def trained(self) -> dict[str, float]:
        """What the inner model would have trained."""
        return {f"net.{start}": share for start, share in self.net.trained().items()}

    def on_train_start(self) -> None:
        """Have both models begin, or go on."""
        super().on_train_start()
        self.net.on_train_start()

    def on_train_epoch_start(self) -> None:
        """Have the inner model unfreeze what it is time for."""
        self.net.on_train_epoch_start()


def find_class(flag: str, name: str) -> type[LitModule]:
    """Find a model's class, by its name in `lit_models` or by its import path.

    Raises:
        ModelError: If there is none, or it is itself made of another.
    """
    home = importlib.import_module("lit_models")
    leaves = [leaf for leaf in home.__all__ if _is_plain(getattr(home, leaf))]
    module, _, last = name.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module) if module else home, last)
    except (ImportError, AttributeError, ValueError) as error:
        close = difflib.get_close_matches(last, leaves, n=1)
        hint = f"did you mean {close[0]}?" if close else FITTING
        raise ModelError(f"{flag} {name}: there is no such model; {hint}") from error
    if not _is_plain(cls):
        raise ModelError(f"{flag} {name}: it is no plain model; {FITTING}")
    plain: type[LitModule] = cls
    return plain


def _is_plain(cls: object) -> bool:
    return (
        isinstance(cls, type) and issubclass(cls, LitModule) and not (cls is LitModule or issubclass(cls, LitWrapper))
    )


def _parameters(cls: type) -> set[str]:
    """Name the options of a class and of those that it passes them on to."""
    found = {
        name: parameter
        for base in cls.__mro__
        if issubclass(base, LitModule)
        for name, parameter in inspect.signature(base.__init__).parameters.items()
    }
    return {name for name, of in found.items() if name != "self" and of.kind is not of.VAR_KEYWORD}


def _as_inner(message: str, option: str, known: set[str]) -> str:
    """Name the options in an inner model's message as they are given here."""
    named = re.sub(
        r"--model\.(\w+)",
        lambda found: f"--model.{option}_args.{found[1]}" if found[1] in known else found[0],
        message,
    )
    return named.replace("--model ", f"--model.{option} ")
