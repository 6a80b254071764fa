"""What data and model must agree on: sizes, task, the state in a checkpoint, and preprocessing for pretrained weights.

Here and in its neighbors `config` is what was parsed with the defaults, and is filled in; `given` is what was parsed
without them.
"""

import inspect
from typing import Any

from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import LightningDataModule

import lit_models
from datamodules import DataModule
from datamodules.detection import detect
from kindling.arguments import imported_class, options_of
from kindling.checkpoints import Checkpoint
from lit_models.base import LINKED, parameters_of
from lit_models.errors import find_misfit
from lit_models.modules.backbones import why_unavailable
from lit_models.wrapper import find_model

# Options of the data that are filled in from the preprocessing of a model's pretrained weights.
PREPARED = ("image_size", "resize_size", "interpolation")

# The model of each kind of data, unless one is named; of other data it is LitMLP.
FOLLOWING = {
    "CSVDataModule": "LitMLPEnsemble",
    "FashionMNISTDataModule": "LitLeNet",
    "HuggingFaceDataModule": "LitTransfer",
    "ImageFolderDataModule": "LitTransfer",
    "MNISTDataModule": "LitLeNet",
    "TextCSVDataModule": "LitTextClassifier",
    "TextCorpusDataModule": "LitGPT",
}
# What takes the place of a pretrained network whose weights cannot be had, as in configs/folder_conv.yaml.
FROM_SCRATCH: dict[str, dict[str, Any]] = {
    "model": {
        "class_path": "lit_models.LitConvNet",
        "init_args": {
            "channels": [32, 64, 128, 256],
            "dropout": 0.2,
            "lr": 0.003,
            "scheduler": "one-cycle",
            "weight_decay": 0.05,
        },
    },
    "data": {"init_args": {"image_size": 64}},
}

NUM_FOLDS = 5  # of cross-validation, unless --data.num_folds says otherwise

# The model and the data module for the kind of text that each size tells.
MODELS = {"max_length": "LitTextClassifier", "context_length": "LitGPT"}
DATA = {"max_length": "TextCSVDataModule", "context_length": "TextCorpusDataModule"}


def choose(given: dict[str, Any], subcommand: str) -> tuple[dict[str, Any], list[str]]:
    """Choose the classes that were not named: the data by their path, the model by the data.

    Args:
        given: What a command line and its configuration files give, as from `peek`.
        subcommand: The subcommand.

    Returns:
        Defaults for a parser, of `model` and `data`, and a line each about what was chosen, and how to overrule it.

    Raises:
        DataError: If there is nothing at the path that can be read, or it may be one thing or another.
    """
    named = {group: str(given[group].get("class_path", "")) for group in ("model", "data")}
    options, chosen, what = given["data"]["init_args"], dict[str, Any](), ""
    data = named["data"].removeprefix("datamodules.")
    if not data and options.get("path"):
        found = detect(str(options["path"]), {name: value for name, value in options.items() if name != "path"})
        what, data = f"{options['path']}: {found.what}; ", found.cls.__name__
        chosen["data"] = {"class_path": f"datamodules.{data}"}
    if not data or named["model"]:
        return chosen, [f"{what}{data} (--data overrules)"] if what else []
    model = FOLLOWING.get(data, "LitMLP")
    wanted = given["model"]["init_args"].keys()
    # Options that only LitMLP has are those of an older command line, where it was the model of all data.
    if wanted - _options(model) and not wanted - _options("LitMLP"):
        model = "LitMLP"
    overrule = "--data and --model overrule" if what else "--model overrules"
    lines = []
    if model == "LitTransfer" and subcommand == "fit" and (reason := _missing_weights(given["model"]["init_args"])):
        lines = [f"no pretrained weights ({reason}): a small network learns from scratch (--model LitTransfer insists)"]
        model, chosen = "LitConvNet", {key: dict(of) for key, of in FROM_SCRATCH.items()}
        chosen["data"]["class_path"] = f"datamodules.{data}"
    chosen.setdefault("model", {"class_path": f"lit_models.{model}"})
    return chosen, [f"{what}{data} with {model} ({overrule})", *lines] if data in FOLLOWING else []


def _options(model: str) -> set[str]:
    return set(options_of(getattr(lit_models, model)))


def _missing_weights(options: dict[str, Any]) -> str:
    """Return why there are no pretrained weights; nothing if there are, or an option asks for a pretrained network."""
    return "" if options.keys() - _options("LitConvNet") else why_unavailable("resnet18")


def prepare(config: Namespace, given: Namespace) -> None:
    """Fill in the preprocessing of images for the model's pretrained weights, unless it was given."""
    preprocessing = getattr(imported_class(config.model.class_path), "preprocessing", None)
    if preprocessing is None or config.ckpt_path is not None:
        return
    wanted, by_hand = config.data.init_args, init_args(given, "data")
    # What follows from a size that is given by hand: the other one.
    decided = {*by_hand, "resize_size"} if "image_size" in by_hand else {*by_hand}
    for name, value in preprocessing(**config.model.init_args.as_dict()).items():
        if name in wanted and name not in decided:
            wanted[name] = value


def hold_out(fold: int, config: Namespace, given: Namespace) -> None:
    """Set `--data.fold`, and `--data.num_folds` where it is not given.

    Raises:
        ArgumentError: If the data have no folds, or one was given.
    """
    options = config.data.init_args
    if "fold" not in options:
        raise ArgumentError(None, f"cross_validate: {config.data.class_path} knows no folds.")
    if "fold" in init_args(given, "data"):
        raise ArgumentError(None, "--data.fold: cross_validate holds out each fold in turn; leave it out.")
    options.fold, options.num_folds = fold, options.num_folds or NUM_FOLDS


def load_data_state(data: LightningDataModule, saved: Checkpoint) -> None:
    """Load the data module's state from a checkpoint, before anything is inferred from new data.

    Raises:
        ArgumentError: If it was trained on data of another class, or the data need what it does not keep.
    """
    if not isinstance(data, DataModule):
        return
    name = type(data).__name__
    if saved.data_class not in (name, ""):
        trained = f"this model was trained on {saved.data_class}, whose classes and encoding it knows"
        raise ArgumentError(None, f"--data {name}: {trained}; give data of that class.")
    if saved.data_state is not None:
        data.load_state_dict(saved.data_state)
    elif data.is_fitted_by_state:
        what = "this checkpoint keeps no encoding"
        raise ArgumentError(None, f"--ckpt_path: {what}, without which {name} cannot feed the model.")


def link(data: LightningDataModule, config: Namespace, given: Namespace) -> None:
    """Fill in sizes and task from the data where they are not given; those given, or trained, must agree with the data.

    Raises:
        ArgumentError: If model and data do not go together.
    """
    wanted, by_hand = config.model.get("init_args") or Namespace(), init_args(given, "model")
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
    """Raise an error for a model, or an inner model of a wrapper, that cannot read these data."""
    flag, name, takes = "--model", config.model.class_path.rpartition(".")[2], set(init_args(config, "model"))
    inner = getattr(imported_class(config.model.class_path), "inner_option", None)
    if inner is not None:
        flag, name = f"--model.{inner}", str(config.model.init_args[inner])
        takes = parameters_of(find_model(inner, name))
    # The sizes of the data, without computing any.
    offers = {size for size in ("vocab_size", *DATA) if inspect.getattr_static(data, size, None) is not None}
    offers |= by_hand.keys() | {"in_features"}
    if config.ckpt_path is not None and "vocab_size" in takes:  # it was trained on such data, which need not say so
        offers.add("vocab_size")
    if getattr(data, "cat_cardinalities", None):
        offers.add("cat_cardinalities")
    if misfit := find_misfit(takes, offers):
        remedies = [f"give {flag} {model}" for size, model in MODELS.items() if size in offers]
        remedies += [f"give --data {other}" for size, other in DATA.items() if size in takes]
        remedy = " or ".join(remedies or ["leave these columns out by --data.exclude"])
        raise ArgumentError(None, f"{flag} {name}: {misfit} ({type(data).__name__}); {remedy}.")


def without_inferred(config: Namespace, given: Namespace) -> Namespace:
    """Return a configuration without what `prepare` and `link` filled in, so that it goes with other data too."""
    saved = config.clone()
    is_prepared = config.ckpt_path is None and hasattr(imported_class(config.model.class_path), "preprocessing")
    inferred = {"model": LINKED, "data": PREPARED if is_prepared else ()}
    for key, names in inferred.items():
        for name in set(names) - init_args(given, key).keys():
            (saved[key].get("init_args") or Namespace()).pop(name, None)
    return saved


def init_args(config: Namespace, key: str) -> dict[str, Any]:
    """Return the arguments of a class in a configuration."""
    arguments = (config.get(key) or Namespace()).get("init_args") or Namespace()
    return dict(vars(arguments))


def _plain(value: Any) -> Any:  # noqa: ANN401  # whatever links carry
    return list(value) if isinstance(value, tuple) else value
