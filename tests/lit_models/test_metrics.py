"""Metrics that torchmetrics does not have."""

import pytest
import torch
import torch.nn.functional as F
from torchmetrics.functional import auroc

from lit_models import metrics
from lit_models.metrics import MeanLoss, PairMetrics
from tests.helpers.tiny import labeled_embeddings


def test_a_mean_loss_weights_batches_by_their_samples() -> None:
    mean = MeanLoss()
    for loss, size in ((1.0, 30), (4.0, 10)):
        mean.update(torch.tensor(loss), size)
    assert mean.pop(torch.device("cpu")).tolist() == [70, 40]
    assert mean.pop(torch.device("cpu")).tolist() == [0, 0]
    for loss, size in ((float("nan"), 1), (2.0, 3)):
        mean.update(torch.tensor(loss), size)
    total, samples = mean.pop(torch.device("cpu"))
    assert samples == 4
    assert total.isnan()  # it must stay visible, as it stops the training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_mean_loss_of_many_batches_keeps_its_digits(dtype: torch.dtype) -> None:
    mean, loss = MeanLoss(), torch.tensor(3.1, dtype=dtype)
    for _ in range(20_000):
        mean.update(loss, torch.tensor(700))
    total, samples = mean.pop(torch.device("cpu"))
    assert (total / samples).item() == pytest.approx(loss.item(), rel=1e-7)


@pytest.mark.parametrize(("chunk", "common"), [(2**22, 0), (50, 0), (2**22, 1000)])
def test_pair_metrics_equal_the_exact_values(chunk: int, common: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "CHUNK", chunk)
    z, y = labeled_embeddings(300, 5)
    z = F.normalize(z.double() + common, dim=1)  # if that is large, all point in almost one direction
    pairs = PairMetrics()
    for start in (0, 200):
        pairs.update(z[start : start + 200], y[start : start + 200])
    found = pairs.compute()
    cosines, same = z @ z.T, (y[:, None] == y)
    first, second = torch.triu_indices(300, 300, 1)
    exact = auroc(cosines[first, second], same[first, second].long(), task="binary")
    assert exact is not None
    assert 0.6 < exact < 0.99
    assert found["auroc"].item() == pytest.approx(exact.item(), abs=1e-4)
    nearest = cosines.fill_diagonal_(-2).argmax(1)
    assert found["recall1"].item() == pytest.approx((y[nearest] == y).float().mean().item())


def test_pair_metrics_of_many_samples_are_estimated_from_some(monkeypatch: pytest.MonkeyPatch) -> None:
    z, y = labeled_embeddings(2000, 5)
    pairs = PairMetrics()
    pairs.update(F.normalize(z, dim=1), y)
    whole = pairs.compute()
    monkeypatch.setattr(metrics, "MAX_PAIRED", 700)
    monkeypatch.setattr(metrics, "MAX_QUERIES", 700)
    pairs._computed = None
    some = pairs.compute()
    for name, value in whole.items():
        assert some[name] != value
        assert some[name].item() == pytest.approx(value.item(), abs=0.05)


def test_pair_metrics_are_nan_where_nothing_can_be_compared() -> None:
    pairs = PairMetrics()
    pairs.update(torch.ones(1, 4), torch.tensor([0]))
    assert all(value.isnan() for value in pairs.compute().values())
    diverged = PairMetrics()
    diverged.update(torch.full((4, 4), torch.nan), torch.arange(4))
    assert all(value.isnan() for value in diverged.compute().values())


def test_metrics_of_two_processes_are_those_of_alllabeled_embeddings() -> None:
    z, y = labeled_embeddings(100, 4)
    whole, left, right = PairMetrics(), PairMetrics(), PairMetrics()
    whole.update(z, y)
    left.update(z[:30], y[:30])
    right.update(z[30:], y[30:])
    left.merge_state(right)
    assert left.compute() == whole.compute()
