"""Several optimizers that are one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, AdamW, Optimizer, SparseAdam
from torch.optim.lr_scheduler import OneCycleLR

from lit_models.optim.factory import CompositeOptimizer, make_optimizer, make_scheduler

AMSGRAD = {"amsgrad": True, "fused": True}


class Net(nn.Module):
    """Sparse embeddings and something dense behind them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(20, 4, sparse=True)
        self.linear = nn.Linear(4, 3)

    def forward(self, ids: Tensor) -> Tensor:
        """Give the loss, a scalar, of ids, `(B, T)`."""
        return self.linear(self.embedding(ids).mean(1)).square().mean()  # type: ignore[no-any-return]  # torch's


def _composite(net: Net, **options: Any) -> CompositeOptimizer:
    return CompositeOptimizer(
        [
            AdamW(net.linear.parameters(), lr=0.1, weight_decay=0.1, **options),
            SparseAdam(net.embedding.parameters(), lr=0.05),
        ]
    )


def _train(net: Net, optimizers: list[Optimizer], steps: range, after: Callable[[], Any] = lambda: None) -> None:
    for step in steps:
        ids = torch.randint(20, (8, 5), generator=torch.Generator().manual_seed(step))
        for optimizer in optimizers:
            optimizer.zero_grad()
        net(ids).backward()
        for optimizer in optimizers:
            optimizer.step()
        after()


def _assert_same(one: nn.Module, other: nn.Module) -> None:
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("options", [{}, {"fused": True}, AMSGRAD], ids=str)
def test_it_is_what_its_optimizers_are_apart(options: dict[str, bool]) -> None:
    one, other = Net(), Net()
    together = _composite(one, **options)
    apart = _composite(other, **options).optimizers
    _train(one, [together], range(10))
    _train(other, apart, range(10))
    _assert_same(one, other)
    assert not torch.equal(one.embedding.weight, Net().embedding.weight)
    assert not torch.equal(one.linear.weight, Net().linear.weight)


def test_a_schedule_reaches_every_optimizer() -> None:
    one, other = Net(), Net()
    together = _composite(one)
    schedule = make_scheduler("one-cycle", together, 12)
    apart = _composite(other).optimizers
    schedules = [OneCycleLR(o, o.param_groups[0]["lr"], total_steps=12, cycle_momentum=False) for o in apart]

    def step() -> None:
        for each in schedules:
            each.step()

    _train(one, [together], range(10), schedule.step)
    _train(other, apart, range(10), step)
    _assert_same(one, other)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in together.optimizers]
    assert rates == [group["lr"] for group in together.param_groups] == [pytest.approx(2 * rates[1]), rates[1]]


def test_a_schedule_cycles_a_momentum_that_all_have() -> None:
    together = _composite(Net())
    OneCycleLR(together, [0.1, 0.05], total_steps=12)
    assert [group["betas"][0] for group in together.param_groups] == [0.95, 0.95]
    other = CompositeOptimizer([SGD(Net().parameters(), lr=0.1), AdamW(Net().parameters())])
    with pytest.raises(ValueError, match="momentum"):
        OneCycleLR(other, 0.1, total_steps=12)


@pytest.mark.parametrize("options", [{}, {"fused": True}, AMSGRAD], ids=str)
def test_a_saved_state_goes_on_as_if_nothing_had_been(options: dict[str, bool], tmp_path: Path) -> None:
    whole = Net()
    _train(whole, [_composite(whole, **options)], range(10))

    broken = Net()
    first = _composite(broken, **options)
    _train(broken, [first], range(6))
    torch.save({"net": broken.state_dict(), "optimizer": first.state_dict()}, tmp_path / "state.pt")

    resumed = Net()
    second = _composite(resumed, **options)
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed.load_state_dict(saved["net"])
    second.load_state_dict(saved["optimizer"])
    for optimizer, group in zip(second.optimizers, second.param_groups, strict=True):
        assert optimizer.param_groups[0] is group
        assert optimizer.state is second.state
    _train(resumed, [second], range(6, 10))
    _assert_same(resumed, whole)


def test_a_rate_that_is_set_after_loading_counts() -> None:
    one, other = Net(), Net()
    together, apart = _composite(one), _composite(other).optimizers
    together.load_state_dict(together.state_dict())
    for group in [*together.param_groups, *(optimizer.param_groups[0] for optimizer in apart)]:
        group["lr"] = 0.3
    _train(one, [together], range(3))
    _train(other, apart, range(3))
    _assert_same(one, other)


def test_a_state_from_the_start_is_kept() -> None:
    net = Net()
    together = CompositeOptimizer([Adagrad(net.linear.parameters()), SparseAdam(net.embedding.parameters())])
    assert len(together.state_dict()["state"]) == 2
    _train(net, [together], range(2))
    assert len(together.state_dict()["state"]) == 3


def test_a_closure_is_called_once_and_gives_the_loss() -> None:
    net = Net()
    together = _composite(net)
    losses = []

    def closure() -> Tensor:
        together.zero_grad()
        loss: Tensor = net(torch.ones(2, 3, dtype=torch.long))
        loss.backward()
        losses.append(loss)
        return loss

    assert together.step(closure) is losses[0]
    assert len(losses) == 1
    assert not torch.equal(net.linear.weight, Net().linear.weight)


def test_a_parameter_has_one_optimizer() -> None:
    net = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="more than one parameter group"):
        CompositeOptimizer([SGD(net.parameters(), lr=0.1), AdamW(net.parameters())])


# As models param_groups them


ARGUMENTS = {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.2, "betas": (0.8, 0.9)}


def _made(groups: list[dict[str, Any]], name: str = "AdamW") -> Optimizer:
    return make_optimizer({"class_path": f"torch.optim.{name}", "init_args": dict(ARGUMENTS)}, groups)


def test_a_group_names_its_own_optimizer() -> None:
    net = Net()
    groups: list[dict[str, Any]] = [
        {"params": list(net.linear.parameters())},
        {"params": list(net.embedding.parameters()), "optimizer": "torch.optim.SparseAdam", "lr_factor": 0.5},
    ]
    made = _made(groups)
    assert isinstance(made, CompositeOptimizer)
    assert [type(optimizer) for optimizer in made.optimizers] == [AdamW, SparseAdam]
    dense, sparse = made.param_groups
    assert (dense["lr"], dense["betas"], dense["weight_decay"], dense["fused"]) == (0.1, (0.8, 0.9), 0.2, True)
    assert (sparse["lr"], sparse["betas"]) == (0.05, (0.8, 0.9))
    assert not {"weight_decay", "lr_factor", "optimizer", "fused"} & sparse.keys()
    assert "optimizer" in groups[1]  # what was given stays as it is
    _train(net, [made], range(3))


def test_matrices_go_to_muon_and_the_rest_to_adamw() -> None:
    net = nn.Linear(4, 3)
    groups: list[dict[str, Any]] = [
        {"params": [net.weight], "optimizer": "torch.optim.Muon", "momentum": 0.95},
        {"params": [net.bias], "optimizer": "torch.optim.AdamW", "weight_decay": 0.0},
    ]
    made = _made(groups, "Muon")
    assert isinstance(made, CompositeOptimizer)
    assert [type(optimizer).__name__ for optimizer in made.optimizers] == ["Muon", "AdamW"]
    matrices, rest = made.param_groups
    assert (matrices["lr"], matrices["momentum"], matrices["weight_decay"]) == (0.1, 0.95, 0.2)
    assert (rest["lr"], rest["betas"], rest["weight_decay"]) == (0.1, (0.8, 0.9), 0.0)


def test_groups_of_one_optimizer_need_no_composite() -> None:
    net = Net()
    groups: list[dict[str, Any]] = [
        {"params": list(net.linear.parameters()), "optimizer": "torch.optim.SGD"},
        {"params": list(net.embedding.parameters())},
    ]
    assert type(_made(groups, "SGD")) is SGD
