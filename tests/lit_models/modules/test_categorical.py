"""Category codes, and the models that take them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datamodules import DataModule, Samples
from datamodules.base import Stage, TaskName
from lit_models import (
    LitLinearRegression,
    LitLogisticRegression,
    LitMLP,
    LitMLPEnsemble,
    LitModule,
    LitTabM,
    ModelError,
)
from lit_models.modules.categorical import MAX_ONE_HOT, ExpandCategories
from tests.helpers.trainers import quiet_trainer


def rows(size: int, num_numbers: int, cardinalities: list[int], seed: int = 0) -> Tensor:
    """Random numbers, and then random codes."""
    generator = torch.Generator().manual_seed(seed)
    codes = [torch.randint(0, cardinality, (size, 1), generator=generator).float() for cardinality in cardinalities]
    return torch.cat([torch.randn(size, num_numbers, generator=generator), *codes], dim=1)


@pytest.mark.parametrize("num_numbers", [0, 1, 4])
@pytest.mark.parametrize("cardinalities", [[3], [2, 5], [4, 1, 3], [MAX_ONE_HOT, 2]])
def test_codes_become_one_hot_vectors_without_the_unseen(num_numbers: int, cardinalities: list[int]) -> None:
    net = ExpandCategories(num_numbers + len(cardinalities), cardinalities)
    x = rows(50, num_numbers, cardinalities)
    codes = x[:, num_numbers:].long()
    expected = [F.one_hot(codes[:, at], size)[:, 1:].float() for at, size in enumerate(cardinalities)]
    found = net(x)
    assert found.equal(torch.cat([x[:, :num_numbers], *expected], dim=1))
    assert found.shape == (50, net.out_features)
    assert found.dtype == x.dtype
    assert not list(net.parameters())


@pytest.mark.parametrize("cardinalities", [[3, 4], [100], [3, 100, 4]])
def test_what_training_did_not_see_is_a_vector_of_zeros(cardinalities: list[int]) -> None:
    net = ExpandCategories(2 + len(cardinalities), cardinalities)
    x = torch.tensor([[1.5, -2.0, *[0.0] * len(cardinalities)]])
    found = net(x)
    assert found[0, :2].tolist() == [1.5, -2.0]
    assert found[0, 2:].eq(0).all()
    assert not net(x + 1)[0, 2:].eq(0).all()


def test_it_stays_so_where_training_meets_rare_values() -> None:
    net = nn.Sequential(ExpandCategories(1, [100]), nn.LazyLinear(1))
    x = torch.zeros(8, 1)
    net(x)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    F.mse_loss(net(x), torch.ones(8, 1)).backward()
    optimizer.step()
    assert net[0](x).eq(0).all()


@pytest.mark.parametrize(("codes", "dim"), [(33, 11), (100, 21), (1001, 50), (100_000, 50)])
def test_many_codes_get_an_embedding(codes: int, dim: int) -> None:
    net = ExpandCategories(3, [codes, 4])
    assert net.out_features == 1 + 3 + dim
    [embedding] = net.embeddings
    assert isinstance(embedding, nn.Embedding)
    assert (embedding.num_embeddings, embedding.embedding_dim) == (codes, dim)
    x = torch.tensor([[0.5, codes - 1.0, 2.0], [-0.5, 1.0, 0.0]])
    found = net(x)
    assert found[:, 0].tolist() == [0.5, -0.5]
    assert found[:, 1:4].tolist() == [[0, 1, 0], [0, 0, 0]]
    assert found[:, 4:].equal(embedding.weight[[codes - 1, 1]])


def test_the_limit_can_be_chosen() -> None:
    assert ExpandCategories(1, [50], max_one_hot=50).out_features == 49
    assert ExpandCategories(1, [50], max_one_hot=49).out_features == 14
    assert ExpandCategories(1, [5000], max_one_hot=float("inf")).out_features == 4999


@pytest.mark.parametrize("cardinalities", [[0], [3, 0], [-1], [2, 2, 2, 2]])
@pytest.mark.parametrize("cls", [LitMLP, LitLinearRegression, LitLogisticRegression, LitTabM, LitMLPEnsemble])
def test_impossible_cardinalities_are_refused(cls: Callable[..., LitModule], cardinalities: list[int]) -> None:
    with pytest.raises(ModelError, match=r"^cat_cardinalities=\["):
        cls(in_features=3, cat_cardinalities=cardinalities)


def test_a_table_of_categories_alone_can_be_learned() -> None:
    model = LitMLP(2, [4], cat_cardinalities=[3, 40], num_outputs=3)
    assert model(rows(5, 0, [3, 40])).shape == (5, 3)


# Models

MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "regression": (LitLinearRegression, {"task": "regression", "num_outputs": 1}),
    "binary": (LitLogisticRegression, {"task": "binary", "num_outputs": 1}),
    "multiclass": (LitLogisticRegression, {"task": "multiclass", "num_outputs": 3}),
    "MLP": (LitMLP, {"task": "regression", "num_outputs": 1, "hidden": [32]}),
    "ensemble": (LitMLPEnsemble, {"task": "regression", "num_outputs": 1, "k": 4, "num_bins": 8, "hidden": [64]}),
    "TabM": (LitTabM, {"task": "regression", "num_outputs": 1, "k": 4, "width": 16, "num_blocks": 1}),
}
CARDINALITIES = [4, 50]


class Codes(DataModule):
    """Rows of two numbers, which mean nothing, and of two codes, which alone tell the target.

    Args:
        task: The task.
    """

    input_shape = (4,)

    def __init__(self, task: TaskName) -> None:
        super().__init__(batch_size=32)
        self.task = task
        self.num_outputs = 3 if task == "multiclass" else 1

    def load(self) -> dict[Stage, Samples]:
        """Make the rows."""
        x = rows(400, 2, CARDINALITIES)
        first, second = x[:, 2].long(), x[:, 3].long()
        if self.task == "regression":
            return {"train": Samples(x, 100 + 10 * torch.tensor([0.0, 3, -1, 5])[first] + 7 * (second % 3).float())}
        classes = torch.tensor([0, 1, 0, 1] if self.task == "binary" else [0, 1, 2, 1])
        return {"train": Samples(x, classes[first])}

    @property
    def statistics(self) -> dict[str, Tensor]:
        """Those that leave the inputs, of which the last are no quantities, as they are."""
        found = {"mean": torch.zeros(4), "std": torch.ones(4)}
        if self.task == "regression":
            y = self.splits["train"].samples.y
            found.update(target_mean=y.mean(), target_std=y.std())
        return found


@pytest.mark.parametrize("name", MODELS)
def test_models_learn_from_codes_and_export(name: str, tmp_path: Path) -> None:
    cls, options = MODELS[name]
    data = Codes(options["task"])
    x, y = data.splits["train"].samples[torch.arange(400)]
    torch.manual_seed(0)
    model = cls(in_features=4, cat_cardinalities=CARDINALITIES, lr=0.05, **options)
    trainer = quiet_trainer(max_epochs=12)
    trainer.fit(model, data)
    model.eval()
    with torch.no_grad():
        predicted = model.predict_step(x, 0)
    if options["task"] == "regression":
        assert (predicted - y).abs().mean() < 0.3 * y.std()
    else:
        right = predicted.round() == y if options["task"] == "binary" else predicted.argmax(1) == y
        assert right.float().mean() > 0.95

    trainer.save_checkpoint(tmp_path / "model.ckpt")
    again = cls.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True).eval()
    exported = torch.export.export(again, (x[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    with torch.no_grad():
        assert again.predict_step(x, 0).equal(predicted)
        torch.testing.assert_close(exported(x[:7]), model(x[:7]))


def test_a_linear_model_has_a_weight_for_every_code() -> None:
    model = LitLinearRegression(3, cat_cardinalities=[4, 1000])
    weights = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    assert [tuple(weight.shape) for weight in weights] == [(1, 1 + 3 + 999)]
