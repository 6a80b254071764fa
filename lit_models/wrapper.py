"""A model whose network is another model, which is named by its class and its options."""

import difflib
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from lit_models.base import LitModule, parameters_of
from lit_models.errors import ModelError, find_misfit
from lit_models.optim.factory import find_class
from lit_models.tasks import TaskName
from lit_models.transfer import LitTransfer

REMEDY = "give LitMLP, LitConvNet, LitTextClassifier, ..., or the import path of another LitModule"


class LitWrapper(LitModule):
    """Base of models whose network is another model, the inner model, which normalizes its inputs itself.

    The sizes of the data are passed on to inner models that have such arguments. The features of an inner `LitTransfer`
    are computed in every step, and its weights do not set the image size of the data.

    Args:
        in_features: Number of input features.
        input_shape: Channels, height and width of an image, or the shape of another input.
        cat_cardinalities: Number of codes of each categorical column, if the last features of a row are such codes.
        vocab_size: Number of token ids.
        max_length: Maximum number of tokens of a text.
        kwargs: Options of `LitModule`.
    """

    net: LitModule
    inner_option: str  # the argument that names the inner model's class; its own options are `<inner_option>_args`

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

    def make_inner(self, name: str, args: Mapping[str, Any] | None, task: TaskName, num_outputs: int) -> None:
        """Set `self.net` to a new inner model: a class of `lit_models`, or by its import path, and its own options.

        Raises:
            ModelError: If there is no such class or option, or it does not fit the data.
        """
        option = self.inner_option
        cls = find_model(option, name)
        own = dict(args or {})
        known, shared = parameters_of(cls), parameters_of(LitModule)
        options = known - shared - self.sizes.keys()
        for key, value in own.items():
            if key in shared or key in self.sizes:
                remedy = "the data say it" if key in (*self.sizes, "task", "num_outputs") else f"give `{key}`"
                raise ModelError(f"it is no option of {name} alone", remedy, f"{option}_args.{key}", value)
            if key not in known:
                close = difflib.get_close_matches(key, options, n=1)
                hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(options)) or 'none'}"
                raise ModelError(f"{name} has no such option", hint, f"{option}_args.{key}", value)
        if misfit := find_misfit(known, {size for size, value in self.sizes.items() if value}):
            raise ModelError(misfit, "give another model, or other data", option, name)
        given: dict[str, Any] = {key: value for key, value in self.sizes.items() if value is not None and key in known}
        try:
            inner = cls(task=task, num_outputs=num_outputs, normalize=self.hparams["normalize"], **given, **own)
        except ModelError as error:
            raise _nested(error, option, name, options) from error
        except (TypeError, ValueError, KeyError, RuntimeError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ModelError(f"{name} cannot be made with these ({reason})", "", f"{option}_args", own) from error
        try:  # a mismatch with the data is found now, and not in the first step
            with torch.no_grad():
                outputs = inner.eval()(inner.example_input_array)
        except ModelError:
            raise
        except (RuntimeError, ValueError, IndexError) as error:
            shape, reason = self.sizes["input_shape"] or self.sizes["in_features"], " ".join(str(error).split())[:100]
            problem = f"it does not fit these data, of which an input is {shape} ({reason})"
            raise ModelError(problem, "give another one", option, name) from error
        if outputs.shape[-1] != num_outputs:
            problem = f"it has {outputs.shape[-1]} outputs for each sample, and num_outputs is {num_outputs}"
            raise ModelError(problem, "give another one", option, name)
        self.net = inner.train()
        self.initialize()
        self.example_input_array = inner.example_input_array

    @classmethod
    def check_kind(cls, offers: Collection[str]) -> None:
        """Do nothing: it is the inner model that reads the data, and `make_inner` checks it."""

    def normalize(self, x: Tensor) -> Tensor:
        """Return inputs unchanged, as the inner model normalizes them."""
        return x

    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Load the statistics of the data into the inner model."""
        self.net.load_statistics(statistics)

    def prepare_weights(self) -> None:
        """Download the weights that the inner model starts from."""
        self.net.prepare_weights()

    def setup(self, stage: str) -> None:
        """Set up both models."""
        super().setup(stage)
        self.net.setup(stage)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Load the pretrained weights of an inner `LitTransfer`; then make optimizer and scheduler."""
        inner = self.net
        if isinstance(inner, LitTransfer) and inner.weights and not inner.has_weights:
            data = self.trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it without a type
            inner.load_weights(keep_statistics=getattr(data, "normalize", None) is not None)
        return super().configure_optimizers()

    def lr_factors(self) -> dict[str, float]:
        """Return the learning rate factors of the inner model, by prefix."""
        return {f"net.{prefix}": factor for prefix, factor in self.net.lr_factors().items()}

    def on_train_start(self) -> None:
        """Start or resume both models."""
        super().on_train_start()
        self.net.on_train_start()

    def on_train_epoch_start(self) -> None:
        """Unfreeze an inner backbone at its `unfreeze_epoch`."""
        self.net.on_train_epoch_start()


def find_model(option: str, name: str) -> type[LitModule]:
    """Return the class of a model; raise a ModelError if there is none, or it is a wrapper itself."""
    found = find_class(name, LitModule)
    if found is None:
        plain = [leaf for leaf, cls in vars(sys.modules[str(__package__)]).items() if _is_plain(cls)]
        module, _, last = name.rpartition(".")
        remedy = REMEDY if module in sys.modules or not module else f"import {module} first"
        if close := difflib.get_close_matches(last, plain, n=1):
            remedy = f"did you mean {close[0]}?"
        raise ModelError("there is no such model", remedy, option, name)
    if not _is_plain(found):
        raise ModelError("it is no plain model", REMEDY, option, name)
    return found


def _is_plain(cls: object) -> bool:
    return isinstance(cls, type) and LitModule in cls.__mro__[1:] and not issubclass(cls, LitWrapper)


def _nested(error: ModelError, option: str, name: str, options: set[str]) -> ModelError:
    """Return an inner model's error, with its `options` named as they are given to the outer model."""
    problem, remedy = (
        re.sub(r"`(\w+)", lambda found: f"`{option}_args.{found[1]}" if found[1] in options else found[0], text)
        for text in (error.problem, error.remedy)
    )
    if error.option in options:
        return ModelError(problem, remedy, f"{option}_args.{error.option}", error.value)
    if error.option in ("", "task"):  # a task that the model does not learn
        return ModelError(problem, remedy, option, name)
    return ModelError(problem, remedy, error.option, error.value)
