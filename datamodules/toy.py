"""Small tables without files: scikit-learn's embedded ones, a generated one, and three points on a line."""

from typing import Any, Literal

import torch

from datamodules.base import DataModule, Stage, TaskName
from datamodules.sampler import Samples

ToyName = Literal["iris", "wine", "breast_cancer", "diabetes", "make_regression", "line"]

_TASKS: dict[ToyName, TaskName] = {
    "iris": "multiclass",
    "wine": "multiclass",
    "breast_cancer": "binary",
    "diabetes": "regression",
    "make_regression": "regression",
    "line": "regression",
}


class ToyDataModule(DataModule):
    """A small table: every batch is float32 `(B, F)` with its targets, `(B,)`.

    Args:
        name: `iris` (150 flowers, 4 features, 3 classes), `wine` (178, 13, 3), `breast_cancer` (569, 30, benign or
            malignant), `diabetes` (442, 10, a measure of the disease a year later), `make_regression` (1,000 generated,
            20, of which 10 matter, with noise), or `line` (x = 1, 2, 3 and y = 2, 4, 6; all of it is training data,
            whatever the two fractions).
        kwargs: Options of `DataModule`.
    """

    def __init__(self, name: ToyName = "iris", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name = name
        self.task = _TASKS[name]
        self._table = _load(name)
        self.class_names = self._table[1]
        self.input_shape = (self._table[0].x.shape[1],)
        self.num_outputs = len(self.class_names) if self.class_names and self.task == "multiclass" else 1
        if name == "line":
            self.val_fraction = self.test_fraction = 0.0

    def load(self) -> dict[Stage, Samples]:
        """Return the table, which was read by the constructor, as it determines the width of the model."""
        return {"train": self._table[0]}


def _load(name: ToyName) -> tuple[Samples, list[str] | None]:
    """Return the samples, and the names of the classes."""
    if name == "line":
        x = torch.tensor([[1.0], [2.0], [3.0]])
        return Samples(x, 2 * x[:, 0]), None
    from sklearn import datasets  # takes a second, which a command line's help need not wait for

    if name == "make_regression":
        x, y = datasets.make_regression(n_samples=1000, n_features=20, n_informative=10, noise=10.0, random_state=0)
        return Samples(torch.from_numpy(x).float(), torch.from_numpy(y).float()), None
    table = getattr(datasets, f"load_{name}")()
    x, y = torch.from_numpy(table.data).float(), torch.from_numpy(table.target)
    if _TASKS[name] == "regression":
        return Samples(x, y.float()), None
    return Samples(x, y.long()), [str(label) for label in table.target_names]
