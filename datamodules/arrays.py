"""Data of a notebook: NumPy arrays or tensors, for any model."""

import hashlib
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.base import Stage, TaskName
from datamodules.errors import DataError, listed
from datamodules.sampler import Inputs, Samples, Split
from datamodules.user_data import Source, UserDataModule

SHAPES = "tables are (N, F), images (N, C, H, W) or (N, H, W)"
VALUES = "give `task='regression'` if these are values"


class ArraySource(Source):
    """The samples of an `ArrayDataModule`."""

    data: "ArrayDataModule"

    @cached_property
    def splits(self) -> dict[Stage, Split]:
        """The training, validation and test splits; an empty one is absent."""
        splits: dict[Stage, Split] = self.data.divide(self.data.load())
        return splits

    @cached_property
    def everything(self) -> Samples:
        """All samples, with their targets."""
        return self.data.load()["train"]

    @cached_property
    def unlabeled(self) -> Inputs:
        """All inputs."""
        return Inputs(self.data.inputs["train"])


class ArrayDataModule(UserDataModule):
    """Arrays or tensors, from Python only: a table, float32 `(N, F)`, or images, `(N, C, H, W)`, uint8 or float32.

    uint8 images stay so, and models scale them to [0, 1]; floating-point images should be in [0, 1] already. The arrays
    are not kept in the checkpoint; a hash of them is. `predict` predicts all of `X`; `test` tests all of it if the
    model was not trained on it.

    Args:
        X: Inputs: numbers of shape `(N, F)`, `(N, H, W)` or `(N, C, H, W)`.
        y: Targets, `(N,)`: integers, booleans or text are classes, floating-point numbers are values, of which there
            may be several, `(N, K)`. None for inputs to predict, see `new`.
        X_val: Inputs for validation, which are held out of `X` unless given.
        y_val: Their targets.
        X_test: Inputs for the test, which are held out of `X` unless given.
        y_test: Their targets.
        task: `regression`, `binary` or `multiclass`; inferred from the targets unless given.
        kwargs: Options of `DataModule`.

    Raises:
        DataError: If the arrays cannot be learned from; the message names the array.
    """

    def __init__(
        self,
        X: Any = None,  # noqa: ANN401  # whatever NumPy can read
        y: Any = None,  # noqa: ANN401
        X_val: Any = None,  # noqa: ANN401
        y_val: Any = None,  # noqa: ANN401
        X_test: Any = None,  # noqa: ANN401
        y_test: Any = None,  # noqa: ANN401
        task: TaskName | None = None,
        **kwargs: Any,
    ) -> None:
        if X is None:
            problem = f"{type(self).__name__} takes X and y, arrays or tensors, from Python only"
            raise DataError(problem, "give another data module")
        given: dict[Stage, tuple[Any, Any]] = {"train": (X, y), "val": (X_val, y_val), "test": (X_test, y_test)}
        # Nothing is left of these arguments: Lightning saves them as hyperparameters, and an array is none.
        X = y = X_val = y_val = X_test = y_test = None
        super().__init__(**kwargs)
        self.given_task = task
        self.inputs: dict[Stage, Tensor] = {}  # float32 or uint8
        self.targets: dict[Stage, NDArray[Any]] = {}  # as given
        for stage, (inputs, targets) in given.items():
            suffix = "" if stage == "train" else f"_{stage}"
            if inputs is None and targets is None:
                continue
            if inputs is None or (targets is None and stage != "train"):
                names = [f"X{suffix}", f"y{suffix}"]
                raise DataError("inputs and targets go together", "give both", names[inputs is not None])
            self.inputs[stage] = _inputs(inputs, f"X{suffix}")
            if targets is not None:
                self.targets[stage] = _targets(targets, f"y{suffix}")
            self._check(stage, suffix)

    def _check(self, stage: Stage, suffix: str) -> None:
        """Raise an error for inputs of another number than their targets, or another shape than the training inputs."""
        x, y = self.inputs[stage], self.targets.get(stage)
        if y is not None and len(x) != len(y):
            raise DataError(f"X{suffix} has {len(x):,} samples, and y{suffix} has {len(y):,}", "", f"y{suffix}")
        expected = self.inputs["train"]
        if x.shape[1:] != expected.shape[1:] or x.dtype != expected.dtype:
            found, wanted = (f"{t.dtype} of shape {tuple(t.shape[1:])}" for t in (x, expected))
            raise DataError(f"a sample is {found}, and one of X is {wanted}", "", f"X{suffix}")

    @property
    def input_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Shape of one input: `(F,)` or `(C, H, W)`."""
        return tuple(self.inputs["train"].shape[1:])

    @property
    def _labels(self) -> NDArray[Any]:
        if "train" not in self.targets:
            raise DataError("without targets there are only predictions", "give them to train or test", "y")
        return self.targets["train"]

    @cached_property
    def task(self) -> TaskName:  # type: ignore[override]
        """The kind of target."""
        y, task = self._labels, self.given_task
        one_hot = y.ndim > 1 and y.dtype.kind != "U" and ((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all()
        if task is None and one_hot:
            raise DataError("these are one-hot classes", f"give y.argmax(1), or {VALUES}", "y")
        if task in ("regression", "next_token") or (task is None and y.dtype.kind == "f"):
            if y.dtype.kind == "U" or task == "next_token":
                raise DataError(f"it does not fit targets of {_kind(y)}", "leave it out", "task", task)
            return "regression"
        if y.ndim > 1:
            raise DataError(f"each sample has one class, (N,), and this is {y.shape}", VALUES, "y")
        labels = np.unique(y)
        if len(labels) < 2:
            raise DataError(f"there is only one class, {labels[0]}", "give samples of two or more", "y")
        if task == "binary" and len(labels) > 2:
            raise DataError(f"y has {len(labels):,} classes, not 2", "give `task='multiclass'`", "task", task)
        if task is None and len(labels) > max(2, len(y) / 2):
            raise DataError(f"there are {len(labels):,} classes in {len(y):,} samples", VALUES, "y")
        return task or ("binary" if len(labels) == 2 else "multiclass")

    @cached_property
    def class_names(self) -> list[str] | None:  # type: ignore[override]
        """The labels in their order, as text; None for a regression."""
        return None if self.task == "regression" else _names(np.unique(self._labels))

    @property
    def num_outputs(self) -> int:  # type: ignore[override]
        """Logits of each sample, one for each class if there are several; or values."""
        if self.class_names is not None:
            return len(self.class_names) if self.task == "multiclass" else 1
        return self.statistics["target_mean"].numel()

    @cached_property
    def fingerprint(self) -> str:
        """The hash of `X` and `y`."""
        digest = hashlib.sha256()
        x, y = self.inputs["train"], self.targets.get("train", np.empty(0))
        for array in (x.numpy(), y):
            digest.update(repr((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        return digest.hexdigest()

    def open_source(self) -> ArraySource:
        """Return a new source."""
        return ArraySource(self)

    def load(self) -> dict[Stage, Samples]:
        """Return the samples: `train`, to be divided, and `val` and `test` if they were given.

        Raises:
            DataError: If a target is not a finite number, or none of the training classes.
        """
        _ = self._labels
        return {stage: Samples(x, self._encoded(stage)) for stage, x in self.inputs.items()}

    def _encoded(self, stage: Stage) -> Tensor:
        """Return class indices, int64, `(N,)`, or values, float32, `(N,)` or `(N, K)`."""
        y, option = self.targets[stage], "y" if stage == "train" else f"y_{stage}"
        classes = self.class_names
        if classes is None:
            if y.dtype.kind == "U":
                raise DataError("the targets are text, and the training targets are values", option=option)
            return torch.from_numpy(_finite(_float32(y), option))
        labels, index = np.unique(y, return_inverse=True)
        codes = {name: code for code, name in enumerate(classes)}
        for name in _names(labels):
            if name not in codes:
                problem = f"{name!r} is none of the training classes ({listed(classes, 8)})"
                raise DataError(problem, "give samples of these only", option)
        return torch.tensor([codes[name] for name in _names(labels)])[torch.from_numpy(index.reshape(y.shape))]

    def encode(self, raw: Any) -> Tensor:  # noqa: ANN401  # whatever NumPy can read
        """Encode one raw input as in a batch: float32, or uint8 if the images are, of shape `input_shape`.

        Raises:
            DataError: If it is not numeric, or has another size.
        """
        x = super().encode(raw)
        return x if self.inputs["train"].is_floating_point() else x.round().clamp(0, 255).to(torch.uint8)

    def new(self, X: Any, y: Any = None) -> "ArrayDataModule":  # noqa: ANN401
        """Return the data module of other arrays, to test or use a model that was trained on these.

        Args:
            X: Inputs of the same shape.
            y: Their targets; None for predictions alone.

        Raises:
            DataError: If they are of another shape.
        """
        arrays = ("X", "y", "X_val", "y_val", "X_test", "y_test")
        other = type(self)(X, y, **{name: value for name, value in self.hparams.items() if name not in arrays})
        other.load_state_dict({**self.state_dict(), "trained_on": self.fingerprint})
        return other

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint, with task and shape."""
        return {**super().state_dict(), "task": self.task, "input_shape": list(self.input_shape)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of a checkpoint, before anything is inferred from these arrays.

        Raises:
            DataError: As the base; or if a sample has another shape than those of the training.
        """
        trained = tuple(state_dict["input_shape"])
        if trained != self.input_shape:
            raise DataError(f"a sample is {self.input_shape}, and this model was trained on {trained}", "", "X")
        self.task = state_dict["task"]
        self._source = None  # whose targets may have been encoded by other classes
        super().load_state_dict(state_dict)


def _array(given: Any, option: str) -> NDArray[Any]:  # noqa: ANN401
    try:
        if isinstance(given, Tensor):  # NumPy has no bfloat16
            given = (given.float() if given.dtype == torch.bfloat16 else given).detach().cpu()
        array = np.asarray(given)
    except (TypeError, ValueError) as error:  # lists of unequal length
        reason = " ".join(str(error).split())
        raise DataError(f"NumPy cannot read it ({reason})", "give an array of numbers", option) from error
    if array.ndim == 0:
        raise DataError(f"give an array or a tensor, not {type(given).__name__}", option=option)
    if not len(array):
        raise DataError("it is empty", option=option)
    return array


def _inputs(given: Any, option: str) -> Tensor:  # noqa: ANN401
    """Return inputs as float32 or uint8, `(N, F)` or `(N, C, H, W)`."""
    array = _array(given, option)
    if array.dtype.kind not in "fiub":
        remedy = "convert it, or give a DataFrame to CSVDataModule, which reads columns of any type"
        raise DataError(f"it holds {_kind(array)}, not real numbers", remedy, option)
    if array.ndim not in (2, 3, 4) or 0 in array.shape:
        remedy = f"{SHAPES}; a single column is {option}[:, None]" if array.ndim == 1 else SHAPES
        raise DataError(f"its shape is {array.shape}", remedy, option)
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim == 4 and array.shape[3] == 3 and min(array.shape[1:3]) > 4:
        remedy = f"channels come first, (N, C, H, W): give {option}.transpose(0, 3, 1, 2)"
        raise DataError(f"its shape is {array.shape}", remedy, option)
    if array.dtype == np.uint8 and array.ndim == 4:
        return torch.tensor(array)
    return torch.from_numpy(_finite(_float32(array), option))


def _targets(given: Any, option: str) -> NDArray[Any]:  # noqa: ANN401
    """Return targets as numbers, booleans or text, `(N,)` or `(N, K)`."""
    array = _array(given, option)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim > 2:
        raise DataError(f"its shape is {array.shape}, and targets are (N,) or (N, K)", "", option)
    if array.dtype.kind in "OT":
        missing = np.array([value is None or value != value for value in array.ravel()])
        if missing.any():
            raise DataError(f"the target of sample {int(missing.argmax())} is missing", "leave it out", option)
        plain = np.array(array.tolist())
        array = plain if plain.dtype.kind != "U" or all(isinstance(value, str) for value in array.ravel()) else array
    if array.dtype.kind not in "fiubU":
        raise DataError(f"it holds {_kind(array)}", "give numbers or text", option)
    return _finite(array, option) if array.dtype.kind == "f" else array


def _float32(array: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what overflows is infinite, and found then
        return array.astype(np.float32)


def _finite(array: NDArray[Any], option: str) -> NDArray[Any]:
    """Return an array as it is; raise an error for what is NaN or infinite in it."""
    wrong = ~np.isfinite(array)
    if wrong.any():
        at = np.unravel_index(int(wrong.argmax()), array.shape)
        what = "NaN" if np.isnan(array[at]) else "infinite, or too large for float32"
        remedy = "correct it, or leave this sample out"
        if option.startswith("X"):
            remedy = "fill it in, or give a DataFrame to CSVDataModule, which does"
        raise DataError(f"{option}[{', '.join(map(str, at))}] is {what}", remedy, option)
    return array


def _kind(array: NDArray[Any]) -> str:
    kinds = {"O": "objects of several types", "U": "text", "S": "bytes", "c": "complex numbers", "T": "text"}
    return kinds.get(array.dtype.kind, str(array.dtype))


def _names(labels: NDArray[Any]) -> list[str]:
    """Return labels as text; 1.0 is 1, as in a table."""
    whole = labels.dtype.kind == "f" and np.array_equal(labels, np.floor(labels))
    return [str(label) for label in (labels.astype(np.int64) if whole else labels).tolist()]
