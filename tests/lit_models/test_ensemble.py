"""Ensembles: members that learn apart, and predict together."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules import CSVDataModule, Samples
from lit_models import LitMLPEnsemble, LitTabM, ModelError
from lit_models.ensemble import LitEnsemble
from lit_models.tasks import Regression, TaskName
from tests.helpers.samples import Table
from tests.helpers.trainers import quiet_trainer

SMALL: dict[type[LitEnsemble], dict[str, Any]] = {
    LitTabM: {"k": 4, "width": 16, "num_blocks": 1, "embedding_dim": 4, "num_frequencies": 8},
    LitMLPEnsemble: {"k": 4, "hidden": [16], "num_bins": 4, "label_smoothing": 0.0},
}
TASKS: list[tuple[TaskName, int]] = [("regression", 1), ("regression", 2), ("binary", 1), ("multiclass", 3)]
ENSEMBLES = pytest.mark.parametrize("cls", SMALL)


def model_of(
    cls: type[LitEnsemble] = LitMLPEnsemble, task: TaskName = "regression", num_outputs: int = 1, **options: Any
) -> LitEnsemble:
    """Make a small model of three numbers and the codes of two categories, whose members disagree."""
    torch.manual_seed(0)
    defaults = {"in_features": 5, "cat_cardinalities": [4, 50], **SMALL[cls]}
    model = cls(task=task, num_outputs=num_outputs, **{**defaults, **options})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.5)
    return model


def batch(task: TaskName, num_outputs: int, size: int = 6) -> tuple[Tensor, Tensor]:
    """Make rows, and targets of the task."""
    generator = torch.Generator().manual_seed(1)
    codes = [torch.randint(0, codes, (size, 1), generator=generator).float() for codes in (4, 50)]
    x = torch.cat([torch.randn(size, 3, generator=generator), *codes], dim=1)
    if task == "regression":
        y = torch.randn(size, num_outputs, generator=generator) * 5 + 100
        return x, y.squeeze(1) if num_outputs == 1 else y
    return x, torch.randint(0, max(2, num_outputs), (size,), generator=generator)


def members(model: LitEnsemble, x: Tensor) -> Tensor:
    """Compute what each member says, `(B, k, num_outputs)`: probabilities, or values in the target's unit."""
    scores = model.task.rescale(model.net(model.normalization(x)))
    kind = type(model.task).__name__
    return scores.softmax(2) if kind == "Multiclass" else scores.sigmoid() if kind == "Binary" else scores


@ENSEMBLES
@pytest.mark.parametrize(("task", "num_outputs"), TASKS)
def test_a_prediction_is_the_mean_of_the_members(cls: type[LitEnsemble], task: TaskName, num_outputs: int) -> None:
    model = model_of(cls, task, num_outputs).eval()
    if task == "regression":
        assert isinstance(model.task, Regression)
        model.task.normalization.set(torch.tensor(100.0), torch.tensor(5.0))
    x, _ = batch(task, num_outputs)
    with torch.no_grad():
        each, predicted = members(model, x), model.predict_step(x, 0)
    assert each.shape == (6, 4, num_outputs)
    assert each.std(1).min() > 1e-3  # they do not agree
    mean = each.mean(1)
    torch.testing.assert_close(predicted, mean.squeeze(1) if num_outputs == 1 else mean)


@ENSEMBLES
@pytest.mark.parametrize(("task", "num_outputs"), TASKS)
def test_the_training_loss_is_the_mean_of_the_members_own(
    cls: type[LitEnsemble], task: TaskName, num_outputs: int
) -> None:
    model = model_of(cls, task, num_outputs, dropout=0.0).train()
    x, y = batch(task, num_outputs)
    with torch.no_grad():
        scores = model.task.rescale(model.net(model.normalization(x)))
        if task == "multiclass":
            losses = [F.cross_entropy(scores[:, at], y) for at in range(4)]
        elif task == "binary":
            losses = [F.binary_cross_entropy_with_logits(scores[:, at, 0], y.float()) for at in range(4)]
        else:
            losses = [F.mse_loss(scores[:, at], y.view(6, num_outputs)) for at in range(4)]
        loss = model.training_step((x, y), 0)
    torch.testing.assert_close(loss, torch.stack(losses).mean())
    assert torch.stack(losses).std() > 1e-3
    together = model.eval().task.loss(model(x), y)
    assert (together - loss).abs() > 1e-3  # the loss of the mean prediction is another


@ENSEMBLES
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_scores_are_those_of_rows_or_of_members(cls: type[LitEnsemble], mode: str) -> None:
    model = model_of(cls, "multiclass", 3, dropout=0.0)
    x, _ = batch("multiclass", 3)
    expected = model.net(x)
    found = model.train(mode == "train")(x)
    assert found.shape == ((24, 3) if mode == "train" else (6, 3))
    if mode == "train":
        assert found[4:8].equal(expected[1])


@ENSEMBLES
@pytest.mark.parametrize(("task", "num_outputs"), TASKS)
def test_a_prediction_does_not_depend_on_the_batch(cls: type[LitEnsemble], task: TaskName, num_outputs: int) -> None:
    model = model_of(cls, task, num_outputs, dropout=0.5).eval()
    x, _ = batch(task, num_outputs, size=20)
    with torch.no_grad():
        whole = model.predict_step(x, 0)
        alone = torch.cat([model.predict_step(x[at : at + 1], 0) for at in range(20)])
        backwards = model.predict_step(x.flip(0), 0).flip(0)
    torch.testing.assert_close(alone, whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(backwards, whole, rtol=1e-5, atol=1e-6)


def test_one_scheme_of_bins_and_members_for_numbers_or_categories_alone() -> None:
    for in_features, cardinalities in ((3, []), (2, [4, 50]), (1, [2]), (1, [])):
        model = model_of(in_features=in_features, cat_cardinalities=cardinalities)
        loss = model.training_step((torch.zeros(5, in_features), torch.arange(5.0)), 0)
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        assert model.eval()(torch.zeros(5, in_features)).shape == (5, 1)


def test_in_a_regression_a_quarter_of_the_members_see_numbers_without_their_encoding() -> None:
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    kinds: list[tuple[TaskName, int]] = [("regression", 1), ("binary", 0)]
    for task, plain in kinds:
        net = LitMLPEnsemble(3, k=4, task=task, num_outputs=1).net.eval()
        before = net(x)
        net.encoding.edges.mul_(0.5)
        changed = (net(x) - before).abs().amax((0, 2)) > 1e-3
        assert changed.tolist() == [False] * plain + [True] * (4 - plain)
    assert LitMLPEnsemble(3, k=1, task="regression", num_outputs=1)(x).shape == (6, 1)


def test_members_start_and_stay_different() -> None:
    model = LitMLPEnsemble(4, k=3, task="regression", num_outputs=1)
    outputs = model.net(torch.randn(50, 4))
    assert outputs.shape == (50, 3, 1)
    assert outputs.std(1).mean() > 0.1
    assert 0.3 < outputs.std(0).mean() < 3  # signals neither vanish nor explode


def test_classes_are_smoothed_by_default_and_values_are_not() -> None:
    assert LitMLPEnsemble(task="binary", num_outputs=1).task.label_smoothing == 0.1
    assert LitMLPEnsemble(task="regression", num_outputs=1).task.label_smoothing == 0
    assert LitMLPEnsemble(task="multiclass", num_outputs=3, label_smoothing=0.3).task.label_smoothing == 0.3


def test_bins_are_the_quantiles_of_the_training_rows_in_normalized_units(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("a,b,y\n" + "".join(f"{row * row},{row % 3},{row}\n" for row in range(400)))
    data = CSVDataModule(str(file), cache_dir=str(tmp_path / "cache"))
    model = LitMLPEnsemble(2, task="regression", num_outputs=1)
    model.load_statistics(data.statistics)
    x = data.splits["train"][:][0]
    edges = model.net.encoding.edges * model.normalization.std[:, None] + model.normalization.mean[:, None]
    expected = torch.quantile(x[:, 0], torch.linspace(0, 1, 17))  # of so few rows there are fewer
    torch.testing.assert_close(edges[0].unique(), expected, rtol=1e-4, atol=1e-2)
    assert edges[1].round().unique().tolist() == [0, 1, 2]
    # A trained model keeps its bins.
    before = model.net.encoding.edges.clone()
    model.load_statistics({**data.statistics, "quantiles": torch.zeros(2, 33)})
    assert model.net.encoding.edges.equal(before)


def test_few_and_many_data_get_fewer_epochs() -> None:
    model = LitMLPEnsemble()
    assert [model.default_max_epochs(size) for size in (60, 4000, 50_000, 10**6)] == [64, 128, 20, 4]


def test_the_learning_rate_follows_the_task_and_is_known_to_checkpoints() -> None:
    assert LitMLPEnsemble(task="multiclass", num_outputs=3).hparams["lr"] == 0.02
    assert LitMLPEnsemble(task="regression", num_outputs=1).hparams["lr"] == 0.06
    assert LitMLPEnsemble(task="regression", num_outputs=1, lr=0.01).hparams["lr"] == 0.01


def test_it_bends_where_a_tree_would_split() -> None:
    x = torch.rand(600, 2, generator=torch.Generator().manual_seed(0))
    y = 1000 + 50.0 * (x[:, 0] > 0.5) - 20 * x[:, 1]
    data = Table(Samples(x, y), task="regression", batch_size=32)
    model = LitMLPEnsemble(2, task="regression", num_outputs=1)
    trainer = quiet_trainer(max_epochs=20)
    trainer.fit(model, data)
    [found] = trainer.test(model, data, verbose=False)
    assert found["test_mae"] < 0.12 * y.std()


@pytest.mark.parametrize(
    "options", [{"k": 0}, {"hidden": [0]}, {"dropout": 1.0}, {"num_bins": 0}, {"lr": -1.0}, {"weight_decay": -1.0}]
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    [(name, value)] = options.items()
    with pytest.raises(ModelError, match=rf"^{name}=") as caught:
        LitMLPEnsemble(**options)
    assert caught.value.value == value
