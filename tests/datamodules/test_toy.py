"""Small tables."""

import pytest
import torch

from datamodules import DataModule, ToyDataModule
from datamodules.toy import ToyName

# Name, task, samples, features, outputs, classes.
TABLES = [
    ("iris", "multiclass", 150, 4, 3, ["setosa", "versicolor", "virginica"]),
    ("wine", "multiclass", 178, 13, 3, ["class_0", "class_1", "class_2"]),
    ("breast_cancer", "binary", 569, 30, 1, ["malignant", "benign"]),
    ("diabetes", "regression", 442, 10, 1, None),
    ("make_regression", "regression", 1000, 20, 1, None),
    ("line", "regression", 3, 1, 1, None),
]


@pytest.mark.parametrize(("name", "task", "size", "features", "outputs", "classes"), TABLES)
def test_a_table_knows_itself_before_setup(
    name: ToyName, task: str, size: int, features: int, outputs: int, classes: list[str] | None
) -> None:
    data = ToyDataModule(name)
    assert (data.task, data.in_features, data.num_outputs, data.class_names) == (task, features, outputs, classes)
    given = data.load()
    samples = given["train"]
    assert samples.x.shape == (size, features)
    assert samples.x.dtype == torch.float32
    assert samples.y.shape == (size,)
    assert samples.y.dtype == (torch.float32 if classes is None else torch.int64)
    assert given.keys() == {"train"}
    if classes is not None:
        assert samples.y.unique().tolist() == list(range(len(classes)))


@pytest.mark.parametrize("name", [row[0] for row in TABLES if row[0] != "line"])
def test_every_table_is_divided_into_three(name: ToyName) -> None:
    splits = ToyDataModule(name).splits
    sizes = {stage: len(split.indices) for stage, split in splits.items()}
    total = sum(sizes.values())
    assert sizes.keys() == {"train", "val", "test"}
    assert sizes["test"] == round(0.2 * total)
    assert sizes["val"] == round(0.1 * (total - sizes["test"]))


def test_the_embedded_tables_are_scikit_learns() -> None:
    x, y = ToyDataModule("iris").load()["train"][torch.tensor([0, 149])]
    torch.testing.assert_close(x, torch.tensor([[5.1, 3.5, 1.4, 0.2], [5.9, 3.0, 5.1, 1.8]]))
    assert y.tolist() == [0, 2]


def test_the_line_is_three_points_to_learn_from_whatever_is_held_out() -> None:
    data = ToyDataModule("line", val_fraction=0.5, test_fraction=0.5)
    samples, indices = data.splits["train"]
    assert data.splits.keys() == {"train"}
    x, y = samples[indices]
    assert x.tolist() == [[1.0], [2.0], [3.0]]
    assert y.tolist() == [2.0, 4.0, 6.0]
    assert data.val_dataloader() == data.test_dataloader() == []


def test_generated_numbers_are_the_same_every_time() -> None:
    first, second = (ToyDataModule("make_regression", seed=seed).load()["train"] for seed in (0, 1))
    assert first.x.equal(second.x)
    assert first.y.equal(second.y)


def test_options_of_the_base_are_taken() -> None:
    data: DataModule = ToyDataModule("wine", batch_size=5, seed=3)
    assert (data.batch_size, data.seed) == (5, 3)
    assert data.hparams["name"] == "wine"
