"""Every optimizer of torch.optim, in a fit by name, gives the weights of a plain loop."""

import copy
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datamodules import Samples
from lit_models import LitMLP, LitModule, LitTextClassifier
from lit_models.optim.factory import OptimizerName
from tests.helpers.trainers import quiet_trainer

STEPS = 20
LR, MOMENTUM, DECAY = 0.01, 0.8, 0.1
DECAYING = {*get_args(OptimizerName)} - {"LBFGS", "Rprop", "SparseAdam"}  # the others know no weight decay


def _plain(name: str, net: nn.Module) -> list[torch.optim.Optimizer]:
    """What a person would write: biases do not decay, and what Muon and SparseAdam cannot train is AdamW's."""
    cls = getattr(torch.optim, name)
    options: dict[str, Any] = {"lr": LR}
    if name in DECAYING:
        options["weight_decay"] = DECAY
    if name in ("SGD", "RMSprop", "Muon"):
        options["momentum"] = MOMENTUM
    matrices = [p for p in net.parameters() if p.ndim > 1]
    vectors: dict[str, Any] = {"params": [p for p in net.parameters() if p.ndim < 2], "weight_decay": 0.0}
    if name == "Muon":
        muon = cls(matrices, **options, adjust_lr_fn="match_rms_adamw")
        return [muon, torch.optim.AdamW([vectors], lr=LR)]
    if name == "SparseAdam":
        assert isinstance(net.embedding, nn.Embedding)
        rest = [p for p in matrices if p is not net.embedding.weight]
        return [
            cls([net.embedding.weight], **options),
            torch.optim.AdamW([{"params": rest}, vectors], LR, weight_decay=DECAY),
        ]
    if name not in DECAYING:
        return [cls(net.parameters(), **options, **({"line_search_fn": "strong_wolfe"} if name == "LBFGS" else {}))]
    return [cls([{"params": matrices}, vectors], **options)]


def _loop(net: nn.Module, optimizers: list[torch.optim.Optimizer], x: Tensor, y: Tensor) -> None:
    for step in range(STEPS):
        rows = torch.arange(10) + 10 * (step % 4)

        def closure(rows: Tensor = rows) -> Tensor:
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
            loss.backward()
            return loss

        if len(optimizers) == 1:
            optimizers[0].step(closure)  # type: ignore[arg-type]  # torch wants a float
        else:
            closure()
            for optimizer in optimizers:
                optimizer.step()


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_twenty_steps_of_an_optimizer_are_those_of_a_plain_loop(name: OptimizerName) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"num_outputs": 3, "optimizer": name, "lr": LR, "momentum": MOMENTUM}
    y = torch.arange(40) % 3
    x: Tensor
    model: LitModule
    if name == "SparseAdam":
        x = torch.randint(1, 30, (40, 5))
        model = LitTextClassifier(30, embedding_dim=4, dropout=0.0, sparse=True, **options, weight_decay=DECAY)
    else:
        x = torch.randn(40, 6).double()
        model = LitMLP(6, [5], activation="tanh", **options, weight_decay=DECAY)
    net = copy.deepcopy(model.net).double()
    before = copy.deepcopy(net.state_dict())
    loader = DataLoader(Samples(x, y), batch_size=None, sampler=list(torch.arange(40).split(10)))
    trainer = quiet_trainer(max_epochs=STEPS // 4, precision="64-true")
    trainer.fit(model, loader)
    assert trainer.global_step == STEPS
    _loop(net, _plain(name, net), x, y)
    torch.testing.assert_close(model.net.state_dict(), net.state_dict(), rtol=0, atol=1e-9)
    for key, parameter in net.named_parameters():  # and something was learned
        assert not torch.equal(parameter, before[key])
