"""What is said to a user: one line for what can be mended, and no noise."""

import difflib
import inspect
import logging
import re
import sys
import warnings
from collections.abc import Iterable

import torch
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

import datamodules
import lit_models
from datamodules import DataError, DataModule
from kindling.callbacks import BestCheckpoint, EarlyStopping, TextSamples
from lit_models import LitModule, ModelError

SUBCOMMANDS = ("fit", "validate", "test", "predict")
CROSS_VALIDATE = "cross_validate"  # a fit for each fold
TRAINER_FLAGS = sorted(inspect.signature(Trainer.__init__).parameters.keys() - {"self"})

USAGE = "train.py [fit|validate|test|predict|cross_validate] [flags]"
_MODELS = [name for name in lit_models.__all__ if name.startswith("Lit") and name != "LitModule"]
_BASES = ("DataModule", "ImageDataModule")
_DATA = [name for name in datamodules.__all__ if name.endswith("DataModule") and name not in _BASES]
HELP = (
    f"Subcommands: {', '.join(SUBCOMMANDS)}; fit if none is given. {CROSS_VALIDATE} fits once for each fold. "
    f"Models (--model NAME, its flags by --model.help NAME): {', '.join(_MODELS)}. "
    f"Data (--data NAME, its flags by --data.help NAME): {', '.join(_DATA)}. "
    "Any other class by its import path. "
    "Trainer flags need no 'trainer.': --max_epochs 5 means --trainer.max_epochs 5. "
    "Recipes are in configs/: --config configs/mnist_conv.yaml. --debug shows the traceback of a mistake."
)

# What a person can mend; anything else is a fault of Kindling's own, and shows its traceback.
USER_ERRORS = (
    *(ArgumentError, MisconfigurationException, DataError, ModelError),
    *(torch.OutOfMemoryError, FloatingPointError),
)


def is_mistake(error: BaseException) -> bool:
    """Whether an error is one that a user can mend."""
    return isinstance(error, USER_ERRORS) or "Error(s) in loading state_dict" in str(error)


def as_flags(error: DataError | ModelError) -> str:
    """Return the line of an error of a library, its options spelled as flags."""
    group = "data" if isinstance(error, DataError) else "model"

    def flag(name: str, value: str) -> str:
        prefix = "" if name in (*TRAINER_FLAGS, "ckpt_path") else f"{group}."
        return f"--{prefix}{name} {value}".rstrip()

    def spelled(found: re.Match[str]) -> str:
        return flag(found[1], {"True": "true", "False": "false", "None": "null"}.get(found[2] or "", found[2] or ""))

    text = re.sub(r"`([a-z_][\w.]*)(?:=([^`]*))?`", spelled, error.sentence)
    if not error.option:
        return text
    value = error.value
    shown = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return f"{flag(error.option, shown)}: {text}"


def explain(error: BaseException) -> str:
    """Return one line that says what is wrong and how to mend it."""
    text = as_flags(error) if isinstance(error, DataError | ModelError) else str(error)
    if isinstance(error, DataError) and "Original Traceback" in text:  # a worker process found it
        text = text.rpartition("DataError: ")[2]
    if isinstance(error, torch.OutOfMemoryError):
        return "The GPU's memory is full; give a smaller --data.batch_size, or --precision bf16-mixed."
    if "No supported gpu backend found" in text:
        return "--accelerator gpu: this machine has no GPU that torch can use; leave the flag out to use the CPU."
    if "Error(s) in loading state_dict" in text:
        return "--ckpt_path: its weights do not fit this model; leave out the --model flags that change its layers."
    keys = [key for key in re.findall(r'Parser key "([\w.]+)"', text) if key != "config"]
    flag = "--" + ".".join(keys).removeprefix("trainer.")
    cls = next(iter(re.findall(r"Problem with given class_path '([\w.]+)'", text)), "")
    if match := re.search(r"unrecognized arguments: (\S+)", text):
        name = match[1].partition("=")[0]
        return f"{name}: there is no such flag{_similar(name, [f'--{flag}' for flag in _flags()])}"
    if match := re.search(r"does not accept option '(\w+)", text):
        if match[1] in TRAINER_FLAGS:
            return f"{match[1]}: in a configuration this is a key of 'trainer:'."
        return f"{match[1]}: a configuration has no such key{_similar(match[1], _flags())}"
    if match := re.search(r"Option '([\w.]+)' is not accepted", text):
        known = [f"{flag}.{name}" for name in _arguments(cls)]
        name = f"{flag}.{match[1]}"
        return f"{name}: {cls.rpartition('.')[2]} has no such option{_similar(name, known)}"
    if match := re.search(r"invalid choice: '(\S+)'", text):
        return f"{match[1]}: there is no such subcommand{_similar(match[1], [*SUBCOMMANDS, CROSS_VALIDATE])}"
    if match := re.search(r"the following arguments are required: (\S+)", text):
        return f"{flag}.{match[1]}: {cls.rpartition('.')[2]} needs this option."
    if len(keys) == 1 and (match := re.search(r"Expected a dot import path string: (\S+)", text)):
        return f"{flag} {match[1]}: there is no such class{_similar(match[1], _class_names())}"
    if match := re.search(r"does not correspond to a subclass of (\w+)\n", text):
        return f"{flag}: the class that was given is no {match[1]}."
    if keys:
        value = re.findall(r"(?:Got value|Given value): (.*)", text)
        text = text.replace("collections.abc.Sequence", "list")
        kinds = re.findall(r"Expected an? (?:<class '|typing\.)?([^\n>]+?)(?:'>|\. Got|\n|$)", text)
        kind = " or ".join(dict.fromkeys(kind for kind in kinds if kind not in ("NoneType", "path but")))
        if value and kind:
            return f"{flag} {value[0]}: expected {kind}."
    return " ".join(text.split())


def _similar(name: str, known: Iterable[str]) -> str:
    lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    return f"; did you mean {lower[close[0]]}?" if close else "; see python train.py --help."


def _flags() -> list[str]:
    groups = {
        **{"early_stopping": EarlyStopping, "checkpoint": BestCheckpoint, "samples": TextSamples},
        **{"model": LitModule, "data": DataModule},
    }
    nested = [f"{group}.{name}" for group, cls in groups.items() for name in _parameters(cls)]
    single = ["config", "ckpt_path", "debug", "help", "print_config", "seed_everything", "optimizer", "lr_scheduler"]
    return [*single, *groups, *nested, *TRAINER_FLAGS, *(f"trainer.{name}" for name in TRAINER_FLAGS)]


def _parameters(cls: type) -> set[str]:
    return {name for base in cls.__mro__ if base is not object for name in inspect.signature(base).parameters}


def _arguments(class_path: str) -> set[str]:
    module, _, name = class_path.rpartition(".")
    return _parameters(getattr(sys.modules[module], name))


def _class_names() -> set[str]:
    names: set[str] = set()
    classes: list[type] = [LightningModule, LightningDataModule, Optimizer, LRScheduler]
    while classes:
        subclasses: list[type] = classes.pop().__subclasses__()
        names.update(cls.__name__ for cls in subclasses)
        classes += subclasses
    return names


def filter_warnings() -> None:
    """Silence what is no news to anybody: advertising tips, hardware that is not there, advice for other loaders."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("lightning.pytorch.profilers.profiler", "lightning.pytorch.callbacks.model_summary"):
        logging.getLogger(name).setLevel(logging.INFO)  # what is asked for by a flag
    for message in (
        "torch.jit.trace",
        "does not have many workers",
        "is smaller than the logging interval",
        "LeafSpec",
        "callbacks used to create the checkpoint need to be provided",
        "could not find the monitored key",
        "your dataloader is not resumable",  # ours are
        "Couldn't infer the batch indices",
        "Could not log computational graph",
        "No seed found",
        "might cause the trace to be incorrect",  # TensorBoard's graph is only looked at
        "in eval mode at the start of training",  # a frozen backbone stays so
        "has `__len__` defined",  # a streamed table's length is right
        "JsonargparseDeprecationWarning",
        "parameter was deprecated",  # Lightning's own use of jsonargparse
    ):
        warnings.filterwarnings("ignore", f".*{message}.*")
