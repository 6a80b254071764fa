"""Loss, activation and metrics of each kind of target, against their formulas and scikit-learn."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn import metrics as reference
from torch import Tensor

from lit_models import ModelError
from lit_models.tasks import IGNORED, Multiclass, Reduction, Regression, TaskName, make_task

REDUCTIONS: list[Reduction] = ["mean", "sum"]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _reduce(losses: Tensor, reduction: Reduction) -> Tensor:
    return losses.mean() if reduction == "mean" else losses.sum()


def _huber(e: Tensor) -> Tensor:
    return torch.where(e.abs() < 1, e * e / 2, e.abs() - 0.5)


ERRORS: dict[str, Callable[[Tensor], Tensor]] = {
    "MSELoss": torch.square,
    "L1Loss": torch.abs,
    "HuberLoss": _huber,
    "SmoothL1Loss": _huber,  # with a beta of 1 they are the same
}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("outputs", [1, 3])
def test_losses_of_a_regression(name: str, reduction: Reduction, outputs: int) -> None:
    scores, y = torch.randn(20, outputs).double() * 2, torch.randn(20, outputs).double()
    task = make_task("regression", outputs, name, reduction).double()
    expected = _reduce(ERRORS[name](scores - y), reduction)
    torch.testing.assert_close(task.loss(scores, y), expected)
    if outputs == 1:
        torch.testing.assert_close(task.loss(scores, y[:, 0]), expected)


def test_a_regression_learns_by_the_squared_error_unless_told_otherwise() -> None:
    scores, y = torch.randn(20, 1), torch.randn(20)
    torch.testing.assert_close(make_task("regression", 1).loss(scores, y), (scores[:, 0] - y).square().mean())


@pytest.mark.parametrize("name", ERRORS)
def test_the_loss_of_a_regression_does_not_depend_on_the_unit(name: str) -> None:
    scores, y = torch.randn(20, 1).double(), torch.randn(20).double()
    losses = []
    for unit in (1.0, 1000.0):
        task = Regression(1, name).double()
        task.normalization.set(torch.tensor(0.5) * unit, torch.tensor(2.0) * unit)
        losses.append(task.loss(scores * unit, y * unit))
    torch.testing.assert_close(losses[1], losses[0])
    torch.testing.assert_close(losses[0], ERRORS[name]((scores[:, 0] - y) / 2).mean())


def test_the_values_of_a_regression_are_in_the_targets_own_unit() -> None:
    task = Regression(2)
    task.normalization.set(torch.tensor([100.0, -5.0]), torch.tensor([10.0, 2.0]))
    values = task.rescale(torch.tensor([[0.0, 0.0], [1.0, -1.0]]))
    assert values.tolist() == [[100, -5], [110, -7]]
    assert task.activate(values).equal(values)
    assert Regression(1).activate(torch.tensor([[3.0], [4.0]])).tolist() == [3, 4]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("shape", [(20,), (20, 1)])
def test_loss_of_a_binary_task(reduction: Reduction, smoothing: float, shape: tuple[int, ...]) -> None:
    scores, y = torch.randn(20, 1).double() * 3, torch.randint(0, 2, shape)
    p = 1 / (1 + (-scores[:, 0]).exp())
    target = y.reshape(20) * (1 - smoothing) + smoothing / 2
    expected = _reduce(-(target * p.log() + (1 - target) * (1 - p).log()), reduction)
    task = make_task("binary", 1, reduction=reduction, label_smoothing=smoothing)
    torch.testing.assert_close(task.loss(scores, y), expected)
    torch.testing.assert_close(task.activate(scores), p)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_loss_of_a_multiclass_task(reduction: Reduction, smoothing: float) -> None:
    scores, y = torch.randn(20, 4).double() * 3, torch.randint(0, 4, (20,))
    p = scores.exp() / scores.exp().sum(1, keepdim=True)
    target = torch.eye(4)[y] * (1 - smoothing) + smoothing / 4
    expected = _reduce(-(target * p.log()).sum(1), reduction)
    task = make_task("multiclass", 4, reduction=reduction, label_smoothing=smoothing)
    torch.testing.assert_close(task.loss(scores, y), expected)
    torch.testing.assert_close(task.activate(scores), p)


WEIGHTS = [0.5, 2.0, 0.0, 3.0]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("ignored", [IGNORED, 0, 3, 255])
def test_weights_and_ignored_labels_of_a_multiclass_task(
    reduction: Reduction, smoothing: float, weights: list[float] | None, ignored: int
) -> None:
    scores, y = torch.randn(30, 4).double() * 3, torch.randint(0, 4, (30,))
    y[::4] = ignored
    total, divisor = torch.tensor(0.0).double(), torch.tensor(0.0).double()
    w = torch.tensor(weights or [1.0] * 4).double()
    for row, label in zip(scores, y.tolist(), strict=True):
        if label == ignored:
            continue
        logs = row - row.exp().sum().log()
        # Each class of a smoothed label has its own weight; the mean is divided by those of the labels themselves.
        total -= (1 - smoothing) * w[label] * logs[label] + smoothing / 4 * (w * logs).sum()
        divisor += w[label]
    expected = total / divisor if reduction == "mean" else total
    task = make_task("multiclass", 4, None, reduction, smoothing, weights, ignored).double()
    torch.testing.assert_close(task.loss(scores, y), expected)
    torch.testing.assert_close(torch.as_tensor(task.num_samples(y)).double(), divisor)
    if reduction == "sum":  # of which the mean is logged
        torch.testing.assert_close(task.loss(scores, y) / task.num_terms(scores, y), total / divisor)
    by_torch = torch.nn.CrossEntropyLoss(w, ignore_index=ignored, reduction=reduction, label_smoothing=smoothing)
    torch.testing.assert_close(task.loss(scores, y), by_torch(scores, y))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("column", [False, True])
def test_weights_of_a_binary_task(reduction: Reduction, smoothing: float, column: bool) -> None:
    scores, y = torch.randn(20, 1).double() * 3, torch.randint(0, 2, (20, 1) if column else (20,))
    p, labels = torch.sigmoid(scores[:, 0]), y.reshape(20)
    target = labels * (1 - smoothing) + smoothing / 2
    losses = -(target * p.log() + (1 - target) * (1 - p).log()) * torch.where(labels == 1, 3.0, 0.5)
    task = make_task("binary", 1, reduction=reduction, label_smoothing=smoothing, class_weights=[0.5, 3]).double()
    torch.testing.assert_close(task.loss(scores, y), _reduce(losses, reduction))
    assert task.num_samples(y) == 20


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    ("label", "options"),
    [
        (IGNORED, {}),
        (IGNORED, {"label_smoothing": 0.1}),
        (2, {"ignore_index": 2, "class_weights": [1.0, 2.0, 3.0]}),
        (1, {"class_weights": [1.0, 0.0, 3.0]}),  # and one in which all weigh nothing
    ],
)
def test_a_batch_in_which_nothing_counts_has_no_loss(reduction: Reduction, label: int, options: dict[str, Any]) -> None:
    task = make_task("multiclass", 3, reduction=reduction, **options)
    scores, y = torch.randn(4, 3, requires_grad=True), torch.full((4,), label)
    loss = task.loss(scores, y)
    loss.backward()
    assert loss == 0
    assert task.num_samples(y) == 0
    assert scores.grad is not None
    assert not scores.grad.any()
    metrics = task.metrics()
    metrics.update(task.activate(scores.detach()), torch.full((4,), options.get("ignore_index", IGNORED)))
    assert metrics["acc"].compute() == 0


def test_weights_are_no_part_of_the_state() -> None:
    weighted, plain = make_task("multiclass", 3, class_weights=[1, 2, 3]), make_task("multiclass", 3)
    assert weighted.state_dict().keys() == plain.state_dict().keys()
    assert not list(weighted.parameters())
    weighted.load_state_dict(plain.state_dict())


@pytest.mark.parametrize(("task", "outputs"), [("binary", 1), ("multiclass", 3)])
def test_large_scores_give_finite_losses(task: TaskName, outputs: int) -> None:
    scores = torch.full((4, outputs), -200.0)
    scores[:, 0] = 200
    loss = make_task(task, outputs).loss(scores, torch.tensor([0, 0, 1, 1]))
    assert loss.isfinite()
    assert loss > 50


@pytest.mark.parametrize(
    ("task", "outputs", "loss", "smoothing", "answer"),
    [
        ("regression", 1, "MSE", 0.0, "loss='MSE': torch.nn has none of this name; did you mean MSELoss?"),
        ("regression", 1, "Xyz", 0.0, "loss='Xyz': torch.nn has none of this name; give MSELoss or L1Loss or"),
        ("regression", 1, "NLLLoss", 0.0, "loss='NLLLoss': a regression task takes MSELoss or L1Loss or"),
        ("binary", 1, "BCELoss", 0.0, "and networks give logits; give BCEWithLogitsLoss."),
        ("binary", 1, "MSELoss", 0.0, "loss='MSELoss': a binary task takes BCEWithLogitsLoss."),
        ("multiclass", 3, "NLLLoss", 0.0, "and networks give logits; give CrossEntropyLoss."),
        ("multiclass", 3, "CrossEntropy", 0.0, "of this name; did you mean CrossEntropyLoss?"),
        ("binary", 2, None, 0.0, "num_outputs=2: a binary task has 1 output"),
        ("multiclass", 1, None, 0.0, "num_outputs=1: a multiclass task"),
        ("multiclass", 3, None, 1.5, "label_smoothing=1.5: give a share from 0 to 1."),
        ("binary", 1, None, -0.5, "label_smoothing=-0.5: give a share from 0 to 1."),
        ("regression", 1, None, 0.1, "label_smoothing=0.1: a regression has no labels"),
    ],
)
def test_what_does_not_fit_the_task_is_refused_in_words(
    task: TaskName, outputs: int, loss: str | None, smoothing: float, answer: str
) -> None:
    with pytest.raises(ModelError) as error:
        make_task(task, outputs, loss, "mean", smoothing)
    assert answer in str(error.value)


@pytest.mark.parametrize(
    ("task", "outputs", "options", "answer"),
    [
        ("regression", 1, {"class_weights": [1.0]}, "class_weights=[1.0]: a regression task has no classes"),
        ("next_token", 3, {"class_weights": [1, 1, 1]}, "a next_token task has no classes to weigh; leave it out."),
        ("binary", 1, {"class_weights": [2.0]}, "class_weights=[2.0]: there are 2 classes; give a weight for"),
        ("multiclass", 3, {"class_weights": [1, 2]}, "class_weights=[1.0, 2.0]: there are 3 classes; give"),
        ("multiclass", 3, {"class_weights": []}, "class_weights=[]: there are 3 classes"),
        ("multiclass", 2, {"class_weights": [1, -1]}, "class_weights=[1.0, -1.0]: give numbers of 0 or more"),
        (
            "multiclass",
            2,
            {"class_weights": [0, 0]},
            "class_weights=[0.0, 0.0]: give numbers of 0 or",
        ),
        ("binary", 1, {"class_weights": [1, float("nan")]}, "class_weights=[1.0, nan]: give numbers"),
        ("regression", 1, {"ignore_index": 0}, "ignore_index=0: in a regression task no target is ignored"),
        ("binary", 1, {"ignore_index": -1}, "ignore_index=-1: in a binary task no target is ignored"),
        ("next_token", 3, {"ignore_index": 0}, "ignore_index=0: in a next_token task next tokens are ignored"),
    ],
)
def test_so_are_weights_and_ignored_labels(task: TaskName, outputs: int, options: dict[str, Any], answer: str) -> None:
    with pytest.raises(ModelError) as error:
        make_task(task, outputs, **options)
    assert answer in str(error.value)
    assert "\n" not in str(error.value)


def _measure(task: TaskName, outputs: int, predictions: Tensor, y: Tensor, **options: Any) -> dict[str, float]:
    metrics = make_task(task, outputs, **options).metrics()
    for part in range(0, len(y), 17):  # in uneven batches
        metrics.update(predictions[part : part + 17], y[part : part + 17])
    return {name: value.item() for name, value in metrics.compute().items()}


@pytest.mark.parametrize("outputs", [1, 2])
def test_metrics_of_a_regression(outputs: int) -> None:
    predictions, y = torch.randn(2, 100, outputs).squeeze(-1) * 50
    assert _measure("regression", outputs, predictions, y) == pytest.approx(
        {
            "mae": reference.mean_absolute_error(y, predictions),
            "rmse": reference.mean_squared_error(y, predictions) ** 0.5,
        },
        rel=1e-5,
    )


def test_metrics_of_a_binary_task() -> None:
    y = torch.randint(0, 2, (200,))
    predictions = (torch.rand(200) + y * 0.3).clamp(0, 1)
    assert _measure("binary", 1, predictions, y) == pytest.approx(
        {
            "acc": reference.accuracy_score(y, predictions > 0.5),
            "auroc": reference.roc_auc_score(y, predictions),
            "f1": reference.f1_score(y, predictions > 0.5),
        },
        rel=1e-5,
    )


@pytest.mark.parametrize("classes", [3, 6])  # with 6, two of the classes never occur
def test_metrics_of_a_multiclass_task(classes: int) -> None:
    y = torch.randint(0, min(classes, 4), (200,)) * torch.randint(0, 2, (200,))
    logits = torch.randn(200, classes)
    logits[:, 4:] = -9
    predictions = (logits + 2 * torch.eye(classes)[y]).softmax(1)
    found = predictions.argmax(1)
    assert _measure("multiclass", classes, predictions, y) == pytest.approx(
        {"acc": reference.accuracy_score(y, found), "f1": reference.f1_score(y, found, average="macro")}, rel=1e-5
    )


@pytest.mark.parametrize("ignored", [IGNORED, 0, 2, 255])
def test_ignored_labels_are_in_no_metric(ignored: int) -> None:
    y = torch.randint(0, 3, (200,))
    y[::3] = ignored
    predictions = (torch.randn(200, 3) + torch.eye(3)[y.clamp(0, 2)]).softmax(1)
    counted = y != ignored
    found, true = predictions.argmax(1)[counted], y[counted]
    assert _measure("multiclass", 3, predictions, y, ignore_index=ignored) == pytest.approx(
        {"acc": reference.accuracy_score(true, found), "f1": reference.f1_score(true, found, average="macro")}, rel=1e-5
    )


def test_metrics_are_made_anew_each_time() -> None:
    task = Multiclass(3)
    metrics = task.metrics()
    metrics.update(torch.eye(3), torch.arange(3))
    assert task.metrics()["acc"].update_count == 0


def test_a_batch_in_which_nothing_is_to_be_predicted_teaches_nothing() -> None:
    task, scores = make_task("next_token", 5), torch.randn(2, 3, 5, requires_grad=True)
    nothing = torch.full((2, 3), IGNORED)
    loss = task.loss(scores, nothing)
    loss.backward()
    assert loss == 0
    assert scores.grad is not None
    assert not scores.grad.any()
    some = nothing.clone()
    some[0, 1] = 4
    assert task.loss(scores, some).item() == pytest.approx(float(-scores[0, 1].log_softmax(0)[4]))
