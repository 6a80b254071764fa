"""Optimizers and schedules from primitives."""

import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lit_models.errors import ModelError
from lit_models.optim.factory import (
    OptimizerName,
    SchedulerName,
    interval,
    make_optimizer,
    make_scheduler,
    remap_optimizer_state,
)

OWN: dict[str, Any] = {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.01}  # what every model gives
FUSED = ["SGD", "Adam", "AdamW", "Adagrad"]


@pytest.fixture
def net() -> nn.Module:
    """Something to train."""
    return nn.Linear(3, 2, bias=False)  # a matrix: Muon trains nothing else


def _make(net: nn.Module, name: str, may_fuse: bool = True, **args: Any) -> Optimizer:
    config = {"class_path": f"torch.optim.{name}", "init_args": {"lr": 0.1, **args}}
    return make_optimizer(config, [{"params": list(net.parameters())}], may_fuse)


def test_all_of_torch_are_here() -> None:
    classes = [cls for cls in vars(torch.optim).values() if isinstance(cls, type) and issubclass(cls, Optimizer)]
    assert {cls.__name__ for cls in classes} - {"Optimizer"} == set(get_args(OptimizerName))


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_every_optimizer_takes_what_it_knows_and_steps(net: nn.Module, name: str) -> None:
    before = net.weight.detach().clone()  # type: ignore[operator]  # torch's __getattr__
    optimizer = _make(net, name, **OWN, unknown=3)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = net(torch.ones(4, 3)).square().sum()
        loss.backward()
        if name == "SparseAdam":
            net.weight.grad = net.weight.grad.to_sparse()  # type: ignore[union-attr, operator]
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]  # torch's float
    assert not net.weight.equal(before)  # type: ignore[operator]
    assert type(optimizer).__name__ == name
    for option, value in OWN.items():
        if option in optimizer.defaults:
            assert optimizer.param_groups[0][option] == value
    assert "unknown" not in optimizer.defaults


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_it_is_fused_where_that_exists(net: nn.Module, name: str) -> None:
    assert bool(_make(net, name).defaults.get("fused")) == (name in FUSED)


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("options", [{"foreach": True}, {"differentiable": True}, {"fused": False}])
def test_an_option_that_excludes_fusing_wins(net: nn.Module, name: str, options: dict[str, bool]) -> None:
    optimizer = _make(net, name, **options)
    assert not optimizer.defaults["fused"]
    for option, value in options.items():
        assert optimizer.defaults[option] == value


def test_fusing_can_be_switched_off(net: nn.Module) -> None:
    assert not _make(net, "AdamW", may_fuse=False).defaults["fused"]
    assert _make(net, "AdamW", may_fuse=False, fused=True).defaults["fused"]  # an explicit one wins
    assert _make(net, "AdamW", fused=None, foreach=None).defaults["fused"]  # as the command line gives them


def _course(scheduler: LRScheduler, steps: int) -> list[float]:
    """The learning rate of each step."""
    rates = []
    for _ in range(steps):
        rates.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("total_steps", [1, 2, 7, 100])
def test_cosine_falls_from_the_learning_rate_to_0(net: nn.Module, total_steps: int) -> None:
    scheduler = make_scheduler("cosine", _make(net, "SGD"), total_steps)
    expected = [0.1 * (1 + math.cos(math.pi * step / total_steps)) / 2 for step in range(total_steps)]
    assert _course(scheduler, total_steps) == pytest.approx(expected)
    assert _course(scheduler, 3) == pytest.approx([0, 0, 0], abs=1e-12)  # it does not rise again


@pytest.mark.parametrize(("warmup_steps", "total_steps"), [(1, 2), (3, 10), (10, 100)])
def test_a_warm_up_rises_from_above_0_to_the_learning_rate(net: nn.Module, warmup_steps: int, total_steps: int) -> None:
    scheduler = make_scheduler("cosine", _make(net, "SGD"), total_steps, warmup_steps)
    rates, rest = _course(scheduler, total_steps), total_steps - warmup_steps
    assert rates[:warmup_steps] == pytest.approx([0.1 * (n + 1) / (warmup_steps + 1) for n in range(warmup_steps)])
    assert rates[warmup_steps:] == pytest.approx([0.1 * (1 + math.cos(math.pi * n / rest)) / 2 for n in range(rest)])


@pytest.mark.parametrize("total_steps", [3, 5])
def test_a_warm_up_ends_before_the_training_does(net: nn.Module, total_steps: int) -> None:
    with pytest.raises(ModelError, match=rf"^warmup_steps=5: the training has {total_steps} steps; give fewer"):
        make_scheduler("cosine", _make(net, "SGD"), total_steps, 5)


@pytest.mark.parametrize(
    ("name", "share"), [("step", lambda epoch: 0.1 ** (epoch // 10)), ("exponential", lambda epoch: 0.95**epoch)]
)
def test_schedules_that_count_epochs_are_their_formulas(
    net: nn.Module, name: SchedulerName, share: Callable[[int], float]
) -> None:
    rates = _course(make_scheduler(name, _make(net, "SGD"), math.inf), 35)  # they need no end
    assert rates == pytest.approx([0.1 * share(epoch) for epoch in range(35)])


@pytest.mark.parametrize("name", ["SGD", "AdamW", "Adagrad"])
def test_one_cycle_rises_to_the_learning_rate_and_falls_to_nearly_0(net: nn.Module, name: str) -> None:
    rates = _course(make_scheduler("one-cycle", _make(net, name), 100), 100)
    assert rates[0] == pytest.approx(0.1 / 25)
    assert max(rates) == rates[29] == pytest.approx(0.1)
    assert rates[-1] < 1e-6
    assert rates == sorted(rates[:29]) + sorted(rates[29:], reverse=True)


@pytest.mark.parametrize("total_steps", [1, 2, 3, 10])
def test_one_cycle_can_be_short(net: nn.Module, total_steps: int) -> None:
    rates = _course(make_scheduler("one-cycle", _make(net, "SGD"), total_steps), total_steps)
    assert all(0 < rate <= 0.1 + 1e-9 for rate in rates)


def test_plateau_divides_by_10_after_5_epochs_without_improvement(net: nn.Module) -> None:
    optimizer = _make(net, "SGD")
    scheduler = make_scheduler("plateau", optimizer, 100)
    assert isinstance(scheduler, ReduceLROnPlateau)
    rates = []
    for loss in [3.0, 2.0, *[2.0] * 6, 1.0]:
        scheduler.step(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1] * 7 + [0.01] * 2)


def test_a_schedule_by_its_class_gets_its_arguments(net: nn.Module) -> None:
    config = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 2, "gamma": 0.5}}
    assert _course(make_scheduler(config, _make(net, "SGD"), 100), 5) == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025])


@pytest.mark.parametrize(
    ("args", "expected"), [({}, 50), ({"total_steps": 20}, 20), ({"epochs": 3, "steps_per_epoch": 4}, 12)]
)
def test_a_one_cycle_by_its_class_is_as_long_as_the_training_unless_told(
    net: nn.Module, args: dict[str, int], expected: int
) -> None:
    config = {"class_path": "torch.optim.lr_scheduler.OneCycleLR", "init_args": {"max_lr": 0.3, **args}}
    scheduler = make_scheduler(config, _make(net, "SGD"), 50)
    assert scheduler.total_steps == expected  # type: ignore[attr-defined]  # a OneCycleLR has it
    assert "total_steps" in args or "total_steps" not in config["init_args"]


@pytest.mark.parametrize(
    ("name", "by_step"),
    [("one-cycle", True), ("cosine", True), ("plateau", False), ("step", False), ("exponential", False)],
)
def test_which_schedules_count_steps(net: nn.Module, name: SchedulerName, by_step: bool) -> None:
    assert (interval(make_scheduler(name, _make(net, "SGD"), 10)) == "step") is by_step


def test_values_that_cannot_be_are_said(net: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"^optimizer='SGD': Invalid momentum value: -1"):
        _make(net, "SGD", momentum=-1)
    with pytest.raises(ModelError, match=r"^optimizer='Muon': Adjust learning rate function foo"):
        _make(net, "Muon", adjust_lr_fn="foo")
    with pytest.raises(ModelError, match=r"^optimizer.line_search_fn='wolfe': give strong_wolfe"):
        _make(net, "LBFGS", line_search_fn="wolfe")
    config = {"class_path": "torch.optim.lr_scheduler.OneCycleLR", "init_args": {"max_lr": 0.3}}
    with pytest.raises(ModelError, match=r"^lr_scheduler='OneCycleLR': .* 'cycle_momentum'"):
        make_scheduler(config, _make(net, "Adadelta"), 10)


# Groups of parameters


GROUPS: list[Any] = [
    {"class_path": "torch.optim.lr_scheduler.OneCycleLR", "init_args": {"max_lr": 0.4}},
    {
        "class_path": "torch.optim.lr_scheduler.OneCycleLR",
        "init_args": {"max_lr": 1, "epochs": 2, "steps_per_epoch": 5},
    },
    {"class_path": "torch.optim.lr_scheduler.CyclicLR", "init_args": {"base_lr": 0.1, "max_lr": 0.4}},
    {"class_path": "torch.optim.lr_scheduler.CosineAnnealingLR", "init_args": {"T_max": 10}},
    {"class_path": "torch.optim.lr_scheduler.LinearLR", "init_args": {"start_factor": 0.5}},
]


def _grouped(name: str, lr: float = 0.1) -> Optimizer:
    groups = [
        {"params": [nn.Parameter(torch.ones(2, 2))], "lr_factor": factor}
        if factor != 1
        else {"params": [nn.Parameter(torch.ones(2, 2))]}
        for factor in (1, 0.25, 2.0)
    ]
    return make_optimizer({"class_path": f"torch.optim.{name}", "init_args": {"lr": lr, "momentum": 0.9}}, groups)


@pytest.mark.parametrize("name", sorted({*get_args(OptimizerName)} - {"LBFGS"}))
def test_a_group_learns_at_its_share_of_the_rate(name: str) -> None:
    optimizer = _grouped(name)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.025, 0.2])
    assert all("lr_factor" not in group for group in optimizer.param_groups)


@pytest.mark.parametrize("config", ["one-cycle", "cosine", "exponential", "plateau", *GROUPS], ids=str)
def test_every_schedule_keeps_the_shares(config: Any) -> None:  # noqa: ANN401  # a name or a class with arguments
    optimizer = _grouped("SGD")
    given = {"class_path": config["class_path"], "init_args": dict(config["init_args"])} if config in GROUPS else config
    scheduler = make_scheduler(config, optimizer, 10)
    assert config == given  # what is recorded stays what was given
    rates = set()
    for _ in range(8):
        first, *others = [group["lr"] for group in optimizer.param_groups]
        assert others == pytest.approx([first / 4, first * 2], rel=1e-6)
        rates.add(first)
        optimizer.step()
        scheduler.step(*[1.0] * isinstance(scheduler, ReduceLROnPlateau))  # type: ignore[arg-type]  # a plateau takes it
    assert len(rates) > 1


def test_rates_given_for_each_group_are_taken() -> None:
    config = {"class_path": "torch.optim.lr_scheduler.OneCycleLR", "init_args": {"max_lr": [0.1, 0.2, 0.3]}}
    optimizer = _grouped("SGD")
    make_scheduler(config, optimizer, 10)
    assert [group["max_lr"] for group in optimizer.param_groups] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("config", ["one-cycle", "cosine", GROUPS[0]], ids=str)
def test_a_rate_of_0_is_possible(config: Any) -> None:  # noqa: ANN401  # a name or a class with arguments
    optimizer = _grouped("SGD", lr=0.0)
    scheduler = make_scheduler(config, optimizer, 10)
    optimizer.step()
    scheduler.step()
    assert config in GROUPS or all(group["lr"] == 0 for group in optimizer.param_groups)


@pytest.mark.parametrize("name", ["SparseAdam", "Muon"])
def test_an_optimizer_with_nothing_to_train_is_refused(net: nn.Module, name: str) -> None:
    groups = [{"params": list(net.parameters()), "optimizer": "torch.optim.AdamW"}]
    config = {"class_path": f"torch.optim.{name}", "init_args": {"lr": 0.1}}
    with pytest.raises(ModelError, match=rf"^optimizer='{name}': it trains .* and here are none; give AdamW\.$"):
        make_optimizer(config, groups)


def test_sparse_adam_needs_a_rate(net: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"^lr=0: SparseAdam needs more than 0"):
        _make(net, "SparseAdam", lr=0.0)


@pytest.mark.parametrize("more", [{"lr_factor": 0.5}, {"optimizer": "torch.optim.SparseAdam"}])
def test_lbfgs_trains_all_or_nothing(more: dict[str, Any]) -> None:
    groups = [{"params": [nn.Parameter(torch.ones(2))], **options} for options in ({}, more)]
    config = {"class_path": "torch.optim.LBFGS", "init_args": {"lr": 0.1}}
    with pytest.raises(ModelError, match=r"^optimizer='LBFGS': it moves all weights together"):
        make_optimizer(config, groups)
    same = [{"params": [nn.Parameter(torch.ones(2))], "weight_decay": decay} for decay in (0.0, 0.1)]  # it has none
    assert len(make_optimizer(config, same).param_groups) == 1


# A state that was saved by other groups


def _named(*groups: str, optimizer: str = "AdamW") -> tuple[dict[str, nn.Parameter], Optimizer]:
    """Parameters `a` to `d`, each of which is as large as its place, in groups of different decay."""
    weights = {name: nn.Parameter(torch.ones(place)) for place, name in enumerate("abcd", 1)}
    described = [
        {"params": [weights[name] for name in names], "param_names": list(names), "weight_decay": 0.1 * place}
        for place, names in enumerate(groups, 1)
    ]
    return weights, make_optimizer({"class_path": f"torch.optim.{optimizer}", "init_args": {"lr": 0.1}}, described)


@pytest.mark.parametrize("optimizer", ["AdamW", "Adagrad"])  # Adagrad has a state from the start
@pytest.mark.parametrize("groups", [("abcd",), ("db", "ca"), ("c",), ("ab", "cd")])
def test_a_state_follows_its_weight_into_other_groups(groups: tuple[str, ...], optimizer: str) -> None:
    before, first = _named("ba", "c", optimizer=optimizer)
    for name, weight in before.items():
        weight.grad = torch.full_like(weight, float(ord(name)))
    first.step()
    after, second = _named(*groups, optimizer=optimizer)
    fitted = remap_optimizer_state(second, first.state_dict())
    assert fitted is not None
    second.load_state_dict(fitted)
    for name in "".join(groups):
        if name != "d":
            torch.testing.assert_close(second.state[after[name]], first.state[before[name]])
        else:
            assert all(not value.any() for value in second.state[after[name]].values())
    assert [group["weight_decay"] for group in second.param_groups] == [0.1 * n for n in range(1, len(groups) + 1)]
    for weight in after.values():
        weight.grad = torch.ones_like(weight)
    second.step()


def test_the_same_groups_keep_what_was_saved() -> None:
    first, second = _named("ab", "cd")[1], _named("ab", "cd")[1]
    assert remap_optimizer_state(second, saved := first.state_dict()) is saved


def test_lbfgs_has_one_state_of_all_weights_and_shares_it_with_no_others() -> None:
    first, second = _named("ab", optimizer="LBFGS")[1], _named("abc", optimizer="LBFGS")[1]
    assert remap_optimizer_state(second, first.state_dict()) is None
