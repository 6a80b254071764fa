"""What must cross between data and model: sizes and task, what a checkpoint keeps, how weights want their images."""

import importlib
from typing import Any

from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import LightningDataModule

from datamodules import DataModule
from runs import Checkpoint

# What the data know and a model may ask for, under the same name; a flag given by hand wins.
LINKED = ("task", "num_outputs", "in_features", "input_shape", "vocab_size", "cat_cardinalities")


def prepare(config: Namespace, given: Namespace) -> None:
    """Have the data prepare their inputs as those of the model's weights were, unless they were told how.

    Args:
        config: What was parsed, with the defaults; the data's arguments are filled in here.
        given: What was parsed, without them.
    """
    module, _, name = config.model.class_path.rpartition(".")
    preprocessing = getattr(getattr(importlib.import_module(module), name), "preprocessing", None)
    if preprocessing is None or config.ckpt_path is not None:
        return
    wanted, by_hand = config.data.init_args, init_args(given, "data")
    # What follows from a size that is given by hand: the other one.
    decided = {*by_hand, "resize_size"} if "image_size" in by_hand else {*by_hand}
    for name, value in preprocessing(**config.model.init_args.as_dict()).items():
        if name in wanted and name not in decided:
            wanted[name] = value


def take_state(data: LightningDataModule, saved: Checkpoint) -> None:
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
    if getattr(data, "cat_cardinalities", None) and "cat_cardinalities" not in wanted:
        raise ArgumentError(
            None,
            f"--model {model}: it takes no cat_cardinalities, and would read the codes of categories as numbers; leave "
            "these columns out by --data.exclude.",
        )
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


def init_args(config: Namespace, key: str) -> dict[str, Any]:
    """Give the arguments of a class in a configuration."""
    arguments = (config.get(key) or Namespace()).get("init_args") or Namespace()
    return dict(vars(arguments))


def _plain(value: Any) -> Any:  # noqa: ANN401  # whatever links carry
    return list(value) if isinstance(value, tuple) else value
