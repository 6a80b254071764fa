"""Kindling computes what a plain PyTorch loop computes: the same losses and weights, step by step."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn

from datamodules import DataModule, MNISTDataModule, ToyDataModule
from lit_models import LitLeNet, LitLinearRegression, LitLogisticRegression, LitMLP, LitModule

Precision = Literal["32-true", "64-true"]
Steps = list[tuple[float, list[Tensor]]]  # the loss of every step, and the weights after it


class Record(Callback):
    """Writes down what every step gave."""

    def __init__(self) -> None:
        self.steps: Steps = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: object, batch_idx: int
    ) -> None:
        """Copy loss and weights."""
        assert isinstance(outputs, dict)
        self.steps.append((outputs["loss"].item(), _weights(pl_module)))


def _weights(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def _by_trainer(model: LitModule, data: DataModule, epochs: int, steps: int, precision: Precision = "32-true") -> Steps:
    record = Record()
    trainer = Trainer(
        max_epochs=epochs,
        max_steps=steps,
        precision=precision,
        callbacks=[record],
        logger=False,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data)
    return record.steps


def _by_hand(
    net: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], lr: float, momentum: float, batches: Iterator[Any]
) -> Steps:
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=momentum)
    result: Steps = []
    for x, y in batches:
        optimizer.zero_grad()
        value = loss(net(x), y)
        value.backward()
        optimizer.step()
        result.append((value.item(), _weights(net)))
    return result


def _compare(ours: Steps, plain: Steps) -> None:
    assert len(ours) == len(plain)
    for (our_loss, our_weights), (loss, weights) in zip(ours, plain, strict=True):
        assert our_loss == pytest.approx(loss, rel=1e-6, abs=1e-6)
        torch.testing.assert_close(our_weights, weights, rtol=0, atol=1e-6)


def test_linear_regression_on_the_line() -> None:
    seed_everything(0)
    model = LitLinearRegression(reduction="sum", normalize=False, optimizer="SGD", lr=0.01, momentum=0.0)
    net = copy.deepcopy(model.net)
    x, y = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[2.0], [4.0], [6.0]])
    ours = _by_trainer(model, ToyDataModule("line", batch_size=3), 100, -1)
    plain = _by_hand(net, nn.MSELoss(reduction="sum"), 0.01, 0.0, ((x, y) for _ in range(100)))
    _compare(ours, plain)
    assert ours[-1][0] < ours[0][0]


def test_logistic_regression_with_the_sum_of_binary_cross_entropies() -> None:
    seed_everything(0)
    model = LitLogisticRegression(30, reduction="sum", optimizer="SGD", lr=0.001, momentum=0.0)
    net = copy.deepcopy(model.net).double()
    data = ToyDataModule("breast_cancer", batch_size=569, val_fraction=0, test_fraction=0)
    x, y = data.splits["train"].samples[torch.arange(569)]
    x = ((x - x.double().mean(0)) / x.double().std(0, correction=0)).float().double()
    ours = _by_trainer(model, data, 50, -1, precision="64-true")
    sigmoid = nn.Sequential(net, nn.Sigmoid())
    batches = ((x, y.double().unsqueeze(1)) for _ in range(50))
    plain = _by_hand(sigmoid, nn.BCELoss(reduction="sum"), 0.001, 0.0, batches)
    for (our_loss, our_weights), (loss, weights) in zip(ours, plain, strict=True):
        assert our_loss == pytest.approx(loss, rel=1e-6)
        torch.testing.assert_close(our_weights, weights, rtol=0, atol=1e-6)


@pytest.mark.parametrize("network", ["deep_mlp", "lenet"])
def test_networks_on_mnist(network: str, mnist_dir: str) -> None:
    seed_everything(0)
    options: dict[str, Any] = {"optimizer": "SGD", "lr": 0.01, "momentum": 0.5}
    model = LitMLP(784, [512, 256, 128, 64], **options) if network == "deep_mlp" else LitLeNet(**options)
    net = copy.deepcopy(model.net).double()
    data = MNISTDataModule(mnist_dir, batch_size=64, seed=3)
    samples, indices = data.splits["train"]
    x, y = samples.x[indices].double() / 255, samples.y[indices]
    x = (x - x.mean().float()) / x.std(correction=0).float()  # the statistics have 32 bits

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
        for batch in order.split(64)[:40]:
            yield x[batch], y[batch]

    # In 64 bits: in 32, the order in which each number of threads adds up would be seen.
    ours = _by_trainer(model, data, 1, 40, precision="64-true")
    _compare(ours, _by_hand(net, nn.CrossEntropyLoss(), 0.01, 0.5, batches()))
