"""Command lines and configuration files as people write them, spelled out for the parser."""

import difflib
import inspect
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError
from lightning.pytorch import Trainer, loggers

from kindling import callbacks
from kindling.checkpoints import public_address

SUBCOMMANDS = ("fit", "validate", "test", "predict")
CROSS_VALIDATE = "cross_validate"  # a fit for each fold
VALUELESS = ("--help", "-h", "--help_all", "--print_config", "--debug")  # the only flags without a value
TRAINER_FLAGS = sorted(inspect.signature(Trainer.__init__).parameters.keys() - {"self"})

_OF_TRAINER = re.compile(rf"^--(?=({'|'.join(TRAINER_FLAGS)})([.=+]|$))")
# Flags whose values name classes or files: `--flag value`, `--flag=value`, and `+=` to add one more.
_NAMING = re.compile(r"--(trainer\.callbacks|trainer\.logger|config|model|data)(\+?)(?:=(.*))?", re.DOTALL)


def expand(args: list[str]) -> list[str]:
    """Return a command line in the form that the parser reads.

    The subcommand, `fit` if none is given, comes first; a path without a flag is that of the data; Trainer flags begin
    with `trainer.`; callbacks and loggers have full class paths; configuration files are flat, whether or not they have
    a section for each subcommand.

    Raises:
        ArgumentError: If there are several paths.
    """
    args = ["--config" if arg == "-c" else arg for arg in args]
    args, plain = _without_flags(args)
    subcommand = plain.pop(0) if plain and _is_subcommand(plain[0]) else "fit"
    if "--help_all" in args:
        return ["fit", "--help"]
    if len(plain) > 1:
        what = f"{plain[0]} and {plain[1]}: there are {len(plain)} paths"
        raise ArgumentError(None, f"{what}; give one, of a file, of a folder, or in quotes a glob.")
    if plain:
        if value_of("--data.path", args) is not None:
            raise ArgumentError(None, f"{plain[0]}: there is a --data.path as well; give one of them.")
        args.append(f"--data.path={plain[0]}")
    args = [_OF_TRAINER.sub("--trainer.", arg) for arg in args]
    return [subcommand, *_spelled(args, "fit" if subcommand == CROSS_VALIDATE else subcommand)]


def _without_flags(args: list[str]) -> tuple[list[str], list[str]]:
    """Divide a command line into its flags, with their values, and the words that are neither."""
    flags: list[str] = []
    plain: list[str] = []
    for last, arg in itertools.pairwise(["", *args]):
        is_value = last.startswith("--") and "=" not in last and last not in VALUELESS
        (flags if arg.startswith("--") or is_value or arg in VALUELESS else plain).append(arg)
    return flags, plain


def _is_subcommand(word: str) -> bool:
    """Whether a word is a subcommand, or a mistake for one rather than a path."""
    known = (*SUBCOMMANDS, CROSS_VALIDATE)
    is_path = Path(word).suffix or "/" in word or Path(word).expanduser().exists()
    return word in known or not (is_path or not difflib.get_close_matches(word, known))


def peek(args: list[str]) -> dict[str, Any]:
    """Return what a command line that was spelled out gives, with its configuration files, before it is parsed.

    The classes of `model` and `data` are under `class_path`, their options under `init_args`. What cannot be read is
    left to the parser.
    """
    given: dict[str, Any] = {"model": {"init_args": {}}, "data": {"init_args": {}}}
    rest = iter(args[1:])
    for arg in rest:
        flag, is_whole, value = arg.partition("=")
        if not flag.startswith("--") or flag in VALUELESS:
            continue
        value = value if is_whole else next(rest, "")
        keys = flag.removeprefix("--").split(".")
        node: Any = _content(value) or value if keys in (["config"], ["model"], ["data"]) else value
        for key in reversed(keys if keys != ["config"] else []):
            node = {key: node}
        if isinstance(node, dict):
            groups = {group: _divided(node.pop(group, None) or {}) for group in ("model", "data")}
            given = _merged(given, {**node, **groups})
    return given


def _content(value: str) -> dict[str, Any]:
    """Return the mapping in a configuration file, or in a value; an empty one if it is something else."""
    try:
        if "\n" not in value and value.endswith((".yaml", ".yml", ".json")):
            value = Path(value).read_text(encoding="utf-8")
        content = yaml.safe_load(value)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _divided(group: Any) -> dict[str, Any]:  # noqa: ANN401  # a class, or its options, in any spelling
    """Return the class that a part of a configuration names, if it names one, and its options."""
    if not isinstance(group, dict):
        return {"class_path": str(group), "init_args": {}}
    options = {name: value for name, value in group.items() if name not in ("class_path", "init_args", "dict_kwargs")}
    named = {"class_path": str(group["class_path"])} if group.get("class_path") else {}
    return {**named, "init_args": {**options, **(group.get("init_args") or {})}}


def value_of(flag: str, args: list[str]) -> str | None:
    """Return the value of a flag, given as `--flag value` or `--flag=value`; the last one counts."""
    values = [value for name, value in itertools.pairwise(args) if name == flag]
    values += [arg.removeprefix(f"{flag}=") for arg in args if arg.startswith(f"{flag}=")]
    return values[-1] if values else None


def imported_class(class_path: str) -> type:
    """Return a class that the parser has imported."""
    module, _, name = class_path.rpartition(".")
    cls: type = getattr(sys.modules[module], name)
    return cls


def options_of(cls: type) -> dict[str, inspect.Parameter]:
    """Return the options of a class, with those of its bases."""
    bases = reversed(cls.__mro__[:-1])  # without `object`
    return {name: option for base in bases for name, option in inspect.signature(base).parameters.items()}


def _class_path(name: str) -> str:
    """Return the class path of a name; a bare `EarlyStopping` is ours, and a bare `CSVLogger` is Lightning's."""
    if inspect.isclass(getattr(loggers, name, None)):
        return f"lightning.pytorch.loggers.{name}"
    return f"kindling.callbacks.{name}" if name in callbacks.__all__ else public_address(name)


def _spelled(args: list[str], subcommand: str) -> Iterator[str]:
    rest = iter(args)
    for arg in rest:
        match = _NAMING.fullmatch(arg)
        value = match and (next(rest, None) if match[3] is None else match[3])
        if match is None or value is None:
            yield arg
            continue
        flag = f"--{match[1]}{match[2]}="
        if match[1] == "config" or value.endswith((".yaml", ".yml")):
            yield flag + _flat(value, subcommand)
        elif value.startswith(("[", "{")):
            yield flag + yaml.safe_dump(_resolved(yaml.safe_load(value)), default_flow_style=True, width=10**6)
        else:
            yield flag + _class_path(value)
            if _takes_save_dir(value):
                yield f"--{match[1]}.save_dir="


def _flat(file: str, subcommand: str) -> str:
    """Return a configuration for one subcommand: the file as it is if nothing is to change, or else its content."""
    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return file  # the parser says what is wrong
    if not isinstance(content, dict):
        return file
    flat = {key: value for key, value in content.items() if key not in SUBCOMMANDS}
    section = content.get(subcommand) or {}
    if not isinstance(section, dict):
        return file
    flat = _merged(flat, section)
    flat = _resolved(flat)
    return file if flat == content else yaml.safe_dump(flat)


def _merged(outer: dict[str, Any], inner: dict[str, Any]) -> dict[str, Any]:
    both = {key for key in outer.keys() & inner.keys() if isinstance(outer[key], dict) and isinstance(inner[key], dict)}
    return {**outer, **inner, **{key: _merged(outer[key], inner[key]) for key in both}}


def _resolved(node: Any, key: str = "") -> Any:  # noqa: ANN401  # whatever YAML holds
    """Return a part of a configuration with full class paths, and loggers that may write to the run's folder."""
    if isinstance(node, list):
        return [_resolved(item, key) for item in node]
    if isinstance(node, str) and key.rstrip("+") in ("callbacks", "logger"):
        node = {"class_path": node}
    if isinstance(node, str) and key in ("model", "data"):
        return public_address(node)
    if not isinstance(node, dict):
        return node
    node = {name: _resolved(value, name) for name, value in node.items()}
    if isinstance(node.get("class_path"), str):
        if _takes_save_dir(node["class_path"]):
            node["init_args"] = {"save_dir": "", **(node.get("init_args") or {})}
        node["class_path"] = _class_path(node["class_path"])
    return node


def _takes_save_dir(class_path: str) -> bool:
    """Whether a class is one of Lightning's loggers that write to a folder; an empty one means the run's."""
    logger = getattr(loggers, class_path.removeprefix("lightning.pytorch.loggers."), None)
    return inspect.isclass(logger) and "save_dir" in inspect.signature(logger).parameters
