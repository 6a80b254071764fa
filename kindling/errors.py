"""What a user reads: one line for what can be mended, and no noise."""

import difflib
import logging
import os
import re
import traceback
import warnings
from collections.abc import Iterable, Sequence
from itertools import pairwise

from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.loggers import Logger
from torch import OutOfMemoryError
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from datamodules import DataError, DataModule
from kindling.arguments import CROSS_VALIDATE, SUBCOMMANDS, TRAINER_FLAGS, imported_class, options_of
from kindling.callbacks import BestCheckpoint, EarlyStopping, TextSamples
from kindling.runs import command, is_first_process
from lit_models import LitModule, ModelError

# What a person can mend; anything else is a fault of Kindling's own, and shows its traceback.
USER_ERRORS = (ArgumentError, MisconfigurationException, DataError, ModelError, FloatingPointError, OutOfMemoryError)


def is_mistake(error: BaseException) -> bool:
    """Whether an error is one that a user can mend."""
    return isinstance(error, USER_ERRORS) or "Error(s) in loading state_dict" in str(error) or _is_refusal(error)


def _is_refusal(error: BaseException) -> bool:
    """Whether Lightning or torch refused a value that came straight from the command line, through no model or data."""
    names = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    passed = {name.partition(".")[0] for name in names}
    return (
        isinstance(error, ValueError | ImportError | ZeroDivisionError)
        and passed <= {"contextlib", "functools", "jsonargparse", "kindling", "lightning", "torch"}
        and "lightning" in passed
        and not names[-1].startswith(("kindling", "jsonargparse"))
    )


def _blamed(error: BaseException, text: str, args: Sequence[str]) -> str:
    """Return the text of an error of Lightning or torch, behind the flag that it is about, if one is found."""
    if isinstance(error, ZeroDivisionError):
        source = traceback.extract_tb(error.__traceback__)[-1].line or ""
        return "".join(f"--{name} 0: " for name in TRAINER_FLAGS if f".{name}" in source) + f"give more ({text})."
    if text.startswith("--"):
        return text
    flags = [arg.partition("=") for arg in args if "=" in arg] + [(name, "", value) for name, value in pairwise(args)]
    for flag, _, value in flags:
        name = flag.rpartition(".")[2].removeprefix("--")
        if flag.startswith("--") and value and re.search(rf"\b{name}\b", text) and value in text:
            return f"{flag.replace('--trainer.', '--')} {value}: {text}"
    return text


def as_flags(error: DataError | ModelError) -> str:
    """Return the line of an error of a library, its options spelled as flags."""
    group = "data." if isinstance(error, DataError) else "model."
    text = _spelled(error.sentence, group)
    if not error.option:
        return text
    value = error.value
    shown = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return f"{_flag(error.option, shown, group)}: {text}"


def _flag(name: str, value: str, group: str) -> str:
    is_top = name in (*TRAINER_FLAGS, "ckpt_path", "model", "data") or name.startswith(("lr_scheduler", "optimizer."))
    prefix = "" if is_top else group
    return f"--{prefix}{name} {value}".rstrip()


def _spelled(text: str, group: str = "") -> str:
    """Format the options in backticks as flags: those of a group and of the Trainer, or of the Trainer alone."""

    def spelled(found: re.Match[str]) -> str:
        value = (found[2] or "").strip("'\"")
        if not group and found[1] not in TRAINER_FLAGS:
            return found[0]
        return _flag(found[1], {"True": "true", "False": "false", "None": "null"}.get(value, value), group)

    return re.sub(r"`([a-z_][\w.]*)(?:=([^`]*))?`", spelled, text)


def _from_worker(text: str) -> DataError:
    """Return the error that a worker process of a loader found, of which only the text came through."""
    line = text.rpartition("DataError: ")[2].strip()
    match = re.fullmatch(r"(\w+)=(.+?): (.*)", line)
    return DataError(match[3], option=match[1], value=match[2].strip("'\"")) if match else DataError(line)


def explain(error: BaseException, args: Sequence[str] = ()) -> str:
    """Return one line that says what is wrong and how to mend it; `args` is the command line."""
    if isinstance(error, DataError) and "Original Traceback" in error.problem:
        error = _from_worker(error.problem)
    text = as_flags(error) if isinstance(error, DataError | ModelError) else str(error)
    if isinstance(error, OutOfMemoryError):
        return "The GPU's memory is full; give a smaller --data.batch_size, or --precision bf16-mixed."
    if "No supported gpu backend found" in text:
        return "--accelerator gpu: this machine has no GPU that torch can use; leave the flag out to use the CPU."
    if "selected with `CPUAccelerator` should be an int" in text:
        return "--devices: it names a GPU, and this machine has none that torch can use; leave the flag out."
    if match := re.search(r"requested gpu: (\[.*?\])\s+But your machine only has: (\[.*?\])", text):
        return f"--devices {match[1]}: the GPUs of this machine are {match[2]}."
    if "Error(s) in loading state_dict" in text:
        return "--ckpt_path: its weights do not fit this model; leave out the --model flags that change its layers."
    if not isinstance(error, ArgumentError | DataError | ModelError):
        return " ".join(_blamed(error, _spelled(text), args).split())
    if match := re.search(r"File does not exist: '?([^'\n]+)", text):
        return f"--config {os.path.relpath(match[1])}: no such file."
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
        known = [f"{flag}.{name}" for name in options_of(imported_class(cls))]
        name = f"{flag}.{match[1]}"
        return f"{name}: {cls.rpartition('.')[2]} has no such option{_similar(name, known)}"
    if match := re.search(r"invalid choice: '(\S+)'", text):
        return f"{match[1]}: there is no such subcommand{_similar(match[1], [*SUBCOMMANDS, CROSS_VALIDATE])}"
    if match := re.search(r"the following arguments are required: (\S+)", text):
        return f"{flag}.{match[1]}: {cls.rpartition('.')[2]} needs this option."
    if len(keys) == 1 and (match := re.search(r"Expected a dot import path string: (\S+)", text)):
        return f"{flag} {match[1]}: there is no such class{_similar(match[1], _class_names())}"
    if match := re.search(r"(No module named|module \S+ has no attribute) \S+", text):
        return f"{flag} {cls}: there is no such class ({match[0]})."
    if len(keys) == 1 and (match := re.search(r"does not correspond to a subclass of (\w+)\n", text)):
        return f"{flag}: the class that was given is no {match[1]}."
    if "is abstract" in text and (match := re.search(r"NestedArg\(key='(\w+)', val='?(.*?)'?\)", text)):
        return f"{flag}.{match[1]} {match[2]}: name the class first, by {flag} CLASS."
    if keys:
        value = re.findall(r"(?:Got value|Given value): (.*)", text)
        text = text.replace("collections.abc.Sequence", "list")
        kinds = re.findall(r"Expected an? (?:<class '|typing\.)?([^\n>]+?)(?:'>|\. Got|\n|$)", text)
        kind = " or ".join(dict.fromkeys(kind for kind in kinds if not kind.startswith(("NoneType", "path but"))))
        if value and kind:
            return f"{flag} {value[0]}: expected {kind}."
    return " ".join(re.sub(r"Problem with given class_path '[\w.]*?(\w+)':", r"\1:", text).split())


def _similar(name: str, known: Iterable[str]) -> str:
    lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    return f"; did you mean {lower[close[0]]}?" if close else f"; see {command()} --help."


def _flags() -> list[str]:
    callbacks = {"early_stopping": EarlyStopping, "checkpoint": BestCheckpoint, "samples": TextSamples}
    groups: dict[str, type] = {**callbacks, "model": LitModule, "data": DataModule}
    nested = [f"{group}.{name}" for group, cls in groups.items() for name in options_of(cls)]
    single = ["config", "ckpt_path", "debug", "help", "print_config", "seed_everything", "optimizer", "lr_scheduler"]
    single += ["baselines", "doctor"]
    return [*single, *groups, *nested, *TRAINER_FLAGS, *(f"trainer.{name}" for name in TRAINER_FLAGS)]


def _class_names() -> set[str]:
    bases = (LightningModule, LightningDataModule, Callback, Logger, Optimizer, LRScheduler)
    classes: list[type] = [cls for base in bases for cls in base.__subclasses__()]
    for cls in classes:  # which grows
        classes += cls.__subclasses__()
    return {cls.__name__ for cls in classes}


class _StdoutHandler(logging.Handler):
    """Prints messages to the standard output of the moment, on the first process alone."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        if is_first_process():
            print(self.format(record))


def show_messages() -> None:
    """Print what data modules and models log; however often this is called, once."""
    for name in ("datamodules", "lit_models"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        if not any(isinstance(handler, _StdoutHandler) for handler in logger.handlers):
            logger.addHandler(_StdoutHandler())


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
        "exists and is not empty",  # the run's folder, to which a CSVLogger adds its file
        "has `__len__` defined",  # a streamed table's length is right
        "JsonargparseDeprecationWarning",
        "parameter was deprecated",  # Lightning's own use of jsonargparse
    ):
        warnings.filterwarnings("ignore", f".*{message}.*")
