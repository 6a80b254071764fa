"""What must cross between data and model: sizes and task, what a checkpoint keeps, how weights want their images."""

import importlib
import inspect
from typing import Any

from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import LightningDataModule

from datamodules import DataModule
from kindling.checkpoints import Checkpoint
from lit_models.errors import find_misfit
from lit_models.wrapper import find_model, parameters_of

# What the data know and a model may ask for, under the same name; a flag given by hand wins.
LINKED = (
    *("task", "num_outputs", "in_features", "input_shape", "cat_cardinalities"),
    *("vocab_size", "max_length", "context_length"),
)

# What the model's weights say of how images are prepared, under the names of the data's arguments.
PREPARED = ("image_size", "resize_size", "interpolation")


# What reads, and what has, the kind of text that goes with a size.
MODELS = {"max_length": "LitTextClassifier", "context_length": "LitGPT"}
DATA = {"max_length": "TextCSVDataModule", "context_length": "TextCorpusDataModule"}


def prepare(config: Namespace, given: Namespace) -> None:
    """Have the data prepare their inputs as those of the model's weights were, unless they were told how.

    Args:
        config: What was parsed, with the defaults; the data's arguments are filled in here.
        given: What was parsed, without them.
    """
    preprocessing = getattr(_model_class(config), "preprocessing", None)
    if preprocessing is None or config.ckpt_path is not None:
        return
    wanted, by_hand = config.data.init_args, init_args(given, "data")
    # What follows from a size that is given by hand: the other one.
    decided = {*by_hand, "resize_size"} if "image_size" in by_hand else {*by_hand}
    for name, value in preprocessing(**config.model.init_args.as_dict()).items():
        if name in wanted and name not in decided:
            wanted[name] = value


def load_data_state(data: LightningDataModule, saved: Checkpoint) -> None:
    """Give the data what a checkpoint keeps of those it was trained on, before they infer anything themselves.

    Raises:
        ArgumentError: If it was trained on data of another class, or the data need what it does not keep.
    """
    if not isinstance(data, DataModule):
        return
    name = type(data).__name__
    if saved.data_class not in (name, ""):
        raise ArgumentError(
            None,
            f"--data {name}: this model was trained on {saved.data_class}, whose classes and encoding it knows; give "
            "data of that class.",
        )
    if saved.data_state is not None:
        data.load_state_dict(saved.data_state)
    elif data.is_fitted_by_state:
        raise ArgumentError(
            None, f"--ckpt_path: this checkpoint keeps no encoding, without which {name} cannot feed the model."
        )


def link(data: LightningDataModule, config: Namespace, given: Namespace) -> None:
    """Fill in what the data know and nobody gave; what was given, or trained, must agree with the data.

    Args:
        data: The data.
        config: What was parsed, with the defaults; the model's arguments are filled in here.
        given: What was parsed, without them.

    Raises:
        ArgumentError: If model and data do not go together.
    """
    wanted, by_hand = config.model.init_args, init_args(given, "model")
    model = config.model.class_path.rpartition(".")[2]
    _check_kind(data, config, by_hand)
    for name in LINKED:
        known = getattr(data, name, None)
        if known is None or name not in wanted:
            continue
        if name not in by_hand and config.ckpt_path is None:
            wanted[name] = known
        elif _plain(known) != _plain(wanted[name]):
            if name == "num_outputs" and wanted[name] > known > 1:
                continue  # more classes than there are here may be meant: others will come
            what, remedy = f"--model.{name} {_plain(wanted[name])}", "leave it out"
            if name not in by_hand:
                what = f"--ckpt_path: this {model} was trained with {name} {_plain(wanted[name])}"
                remedy = "give data like those it was trained on, or train anew without --ckpt_path"
            raise ArgumentError(None, f"{what}, but {type(data).__name__} has {_plain(known)}; {remedy}.")


def _check_kind(data: LightningDataModule, config: Namespace, by_hand: dict[str, Any]) -> None:
    """Refuse a model that cannot read these data, or, of a model made of another, an inner one that cannot."""
    flag, name, takes = "--model", config.model.class_path.rpartition(".")[2], config.model.init_args.as_dict().keys()
    inner = getattr(_model_class(config), "inner_option", None)
    if inner is not None:
        flag, name = f"--model.{inner}", str(config.model.init_args[inner])
        takes = parameters_of(find_model(inner, name))
    offers = {size for size in ("vocab_size", *DATA) if _offers(data, size)} | by_hand.keys() | {"in_features"}
    if getattr(data, "cat_cardinalities", None):
        offers.add("cat_cardinalities")
    if misfit := find_misfit(takes, offers):
        remedies = [f"give {flag} {model}" for size, model in MODELS.items() if size in offers]
        remedies += [f"give --data {other}" for size, other in DATA.items() if size in takes]
        remedy = " or ".join(remedies or ["leave these columns out by --data.exclude"])
        raise ArgumentError(None, f"{flag} {name}: {misfit} ({type(data).__name__}); {remedy}.")


def without_inferred(config: Namespace, given: Namespace) -> Namespace:
    """Return a configuration without what was filled in, so that it goes with other data too.

    Args:
        config: What ran, as `prepare` and `link` filled it in.
        given: What was parsed, without the defaults.
    """
    saved = config.clone()
    inferred = {"model": LINKED, "data": PREPARED if config.ckpt_path is None else ()}
    for key, names in inferred.items():
        for name in set(names) - init_args(given, key).keys():
            saved[key].init_args.pop(name, None)
    return saved


def _model_class(config: Namespace) -> Any:  # noqa: ANN401  # a class with members that not all have
    module, _, name = config.model.class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)  # which the parser has imported


def _offers(data: LightningDataModule, name: str) -> bool:
    """Whether data know something, without having them look for it."""
    return inspect.getattr_static(data, name, None) is not None


def init_args(config: Namespace, key: str) -> dict[str, Any]:
    """Give the arguments of a class in a configuration."""
    arguments = (config.get(key) or Namespace()).get("init_args") or Namespace()
    return dict(vars(arguments))


def _plain(value: Any) -> Any:  # noqa: ANN401  # whatever links carry
    return list(value) if isinstance(value, tuple) else value
