"""Checks that a trained classifier can teach a student: the same task, classes, inputs and encoding of the data."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningDataModule

from lit_models.base import LitModule
from lit_models.errors import ModelError
from lit_models.tasks import Task

# Keys of a data module's state in a checkpoint that do not change how inputs are encoded.
NO_ENCODING = ("class_path", "statistics", "settings", "epoch", "batch", "trained_on", "asked", "class_names")
REMEDY = "give one that was trained on data like these"


def check_model(file: str, teacher: LitModule, task: Task, sizes: Mapping[str, Any]) -> None:
    """Raise an error if a teacher has another task, other classes or other inputs than the student.

    Args:
        file: The teacher's checkpoint.
        teacher: The teacher.
        task: The student's task.
        sizes: The sizes of the student's inputs, by option; None where unknown.

    Raises:
        ModelError: If one of them differs.
    """
    name = f"a {type(teacher).__name__}"
    if getattr(getattr(teacher, "task", None), "name", "") != task.name or hasattr(teacher, "is_embedding"):
        raise ModelError(f"{name} is no classifier of a {task.name} task, as this is", "give one", "teacher", file)
    if teacher.num_outputs != task.num_outputs:
        problem = f"{name} of {teacher.num_outputs} classes cannot teach {task.num_outputs}"
        raise ModelError(problem, "give another", "teacher", file)
    for option in ("input_shape", "in_features", "cat_cardinalities", "vocab_size"):
        own, other = sizes[option], teacher.hparams.get(option)
        if own is not None and other is not None and _plain(own) != _plain(other):
            problem = f"{name} whose {option} is {_plain(other)} cannot teach on data whose {option} is {_plain(own)}"
            raise ModelError(problem, REMEDY, "teacher", file)
    reads_tokens, has_tokens = teacher.hparams.get("vocab_size") is not None, sizes["vocab_size"] is not None
    if reads_tokens != has_tokens and any(size is not None for size in sizes.values()):
        reads, data = ("reads", "none") if reads_tokens else ("cannot read", "texts")
        raise ModelError(f"{name} {reads} tokens of text, and these data are {data}", REMEDY, "teacher", file)


def check_encoding(file: str, checkpoint: Mapping[str, Any], data: LightningDataModule | None) -> None:
    """Raise an error if an output, or a number in an input, means something else to a teacher than to these data.

    Args:
        file: The teacher's checkpoint.
        checkpoint: What is in it.
        data: The data that the student learns from, if a data module has them.

    Raises:
        ModelError: If class names or the fitted encoding differ.
    """
    states = [s for key, s in checkpoint.items() if isinstance(s, dict) and _name(s.get("class_path")) == key]
    if data is None or not states:
        return
    saved, names = states[0], getattr(data, "class_names", None)
    if saved.get("class_names") and names and list(saved["class_names"]) != list(names):
        own, other = _listed(names), _listed(saved["class_names"])
        problem = f"its classes are {other}, and those of these data are {own}, in this order"
        raise ModelError(problem, "give a teacher of the same", "teacher", file)
    now = data.state_dict()
    for key in saved.keys() - NO_ENCODING:
        if key in now and saved[key] != now[key]:
            problem = f"it was trained on data with other {key.replace('_', ' ')}, so that it would misread these"
            raise ModelError(problem, "give one that was trained on the same training split", "teacher", file)


def _plain(value: Any) -> Any:  # noqa: ANN401  # a size, or several
    return value if isinstance(value, int) else list(value)


def _name(class_path: object) -> str:
    return str(class_path).rpartition(".")[2]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
