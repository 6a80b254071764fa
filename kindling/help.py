"""What `--help` shows: subcommands, models, data, and the flags that people use."""

import inspect
import re
from types import ModuleType

import docstring_parser

import datamodules
import lit_models
from datamodules import DataModule
from kindling.runs import command
from lit_models import LitModule

_BASES = ("LitModule", "DataModule", "ImageDataModule")
_PYTHON_ONLY = ("ArrayDataModule",)
MODELS = [name for name in lit_models.__all__ if name.startswith("Lit") and name not in _BASES]
DATA = [name for name in datamodules.__all__ if name.endswith("DataModule") and name not in (*_BASES, *_PYTHON_ONLY)]

USAGE = "{program} [fit|validate|test|predict|cross_validate] [path of the data] [flags]"
_SUBCOMMANDS = {
    "fit": "train, and test the best checkpoint (unless another subcommand is given)",
    "validate": "measure a checkpoint on the validation split",
    "test": "measure a checkpoint on the test split, or on new data",
    "predict": "write the predictions of a checkpoint to predictions.csv",
    "cross_validate": "fit once for each fold",
}
# Flags of the Trainer and the command line; what the flags of a class mean is read from its docstring.
_FLAGS = {
    "--config FILE": "a recipe, as those in configs/; flags given after it win",
    "--ckpt_path FILE": "go on from a checkpoint, or validate, test or predict with it; `last` or `best` is the newest",
    "--max_epochs N": "epochs to train at most; --max_steps and --max_time likewise",
    "--accelerator cpu|gpu|...": "where to train; by default on a GPU if there is one",
    "--devices N": "how many GPUs or processes",
    "--precision bf16-mixed": "the type of numbers to compute in",
    "--gradient_clip_val X": "largest norm of the gradient",
    "--accumulate_grad_batches N": "batches for each step of the optimizer",
    "--fast_dev_run N": "only N batches of everything, to see whether it runs",
    "--overfit_batches N": "train and validate on the same N batches, to see whether it learns",
    "--logger CSVLogger": "TensorBoardLogger by default; false for none",
    "--callbacks+=CLASS": "add a callback of Lightning, of Kindling or of one's own",
    "--early_stopping.patience N": "validations to wait for improvement; --early_stopping null waits for ever",
    "--checkpoint.monitor val_acc": "the metric that chooses the best checkpoint; val_loss by default",
    "--optimizer SGD": "an optimizer of torch.optim, its options by --optimizer.lr and so on",
    "--lr_scheduler StepLR": "a scheduler of torch.optim.lr_scheduler, likewise",
    "--baselines false": "fit no simple models after the test, to compare with",
    "--doctor false": "do not check the data for leaks, duplicates and the like",
    "--default_root_dir DIR": "where runs are kept; by default runs/",
    "--seed_everything N": "seed of the weights and of dropout",
    "--print_config": "print the whole configuration",
    "--debug": "show the traceback of a mistake",
}
_OPTIONS = {
    "model": (LitModule, ("optimizer", "lr", "weight_decay", "scheduler", "compile")),
    "data": (DataModule, ("batch_size", "val_fraction", "seed")),
}
_EXAMPLES = (
    ("", "an MLP on the embedded digits"),
    ("houses.csv --data.target price", "a table of one's own; likewise a folder of images by class, or a text"),
    ("--model LitLeNet --data MNISTDataModule --max_epochs 5", "any model on any data"),
    ("--config configs/mnist_conv.yaml --accelerator gpu", "a recipe"),
    ("test --ckpt_path runs/LitMLP-DigitsDataModule/version_0/checkpoints/best.ckpt", "a trained model"),
)
_WIDTH = 100
_SUMMARY = 72  # characters of a class's summary


def short_help() -> str:
    """Return the help that fits on two screens."""
    flags = dict(_FLAGS)
    for group, (cls, names) in _OPTIONS.items():
        params = docstring_parser.parse(inspect.getdoc(cls) or "").params
        options = {param.arg_name: param.description or "" for param in params}
        # The first clause says enough.
        flags |= {f"--{group}.{name}": re.split(r"[,;:.](?:\s|$)", options[name])[0].lower() for name in names}
    models = "models (--model NAME; its flags by --model.help NAME; any other class by its import path)"
    sections = {
        "subcommands": _SUBCOMMANDS,
        models: _summaries(lit_models, MODELS),
        "data (--data NAME; its flags by --data.help NAME)": _summaries(datamodules, DATA),
        "flags (--help_all shows all of them)": flags,
    }
    lines = [f"usage: {USAGE.format(program=command())}"]
    for title, rows in sections.items():
        width = max(map(len, rows))
        lines += ["", f"{title}:", *(_cut(f"  {name:<{width}}  {text}", _WIDTH) for name, text in rows.items())]
    lines += ["", "examples:"]
    lines += [f"  {command()} {line}".rstrip() + f"  # {what}" for line, what in _EXAMPLES]
    return "\n".join(lines)


def description() -> str:
    """Return the description above the full help of a subcommand."""
    return (
        f"Subcommands: {', '.join(_SUBCOMMANDS)}; fit if none is given. "
        f"Models (--model NAME, its flags by --model.help NAME): {', '.join(MODELS)}. "
        f"Data (--data NAME, its flags by --data.help NAME): {', '.join(DATA)}. Any other class by its import path. "
        "Trainer flags need no 'trainer.': --max_epochs 5 means --trainer.max_epochs 5."
    )


def _summaries(package: ModuleType, names: list[str]) -> dict[str, str]:
    """Return the first line of each class's docstring, without its article and full stop."""
    lines = [(inspect.getdoc(getattr(package, name)) or "").partition("\n")[0].removesuffix(".") for name in names]
    texts = [re.sub(r"^(The|An?) ", "", line) for line in lines]
    return {name: _cut(text[:1].upper() + text[1:], _SUMMARY) for name, text in zip(names, texts, strict=True)}


def _cut(line: str, width: int) -> str:
    """Shorten a line at the end of a clause, or of a word if there is none."""
    line = line.replace("`", "")
    if len(line) <= width:
        return line
    ends = [match.start() for match in re.finditer(r"[,:;] | \(", line[:width])]
    return line[: ends[-1]] if ends and ends[-1] > width // 3 else line[: width - 3].rpartition(" ")[0] + "..."
