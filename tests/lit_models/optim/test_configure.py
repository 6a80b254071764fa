"""How a model is trained: its optimizer and its schedule, at first and when a run is resumed."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from datamodules import DigitsDataModule, Samples
from lit_models import LitConvNet, LitLinearRegression, LitMLP, LitModule, LitTextClassifier, ModelError
from lit_models.optim.factory import OptimizerName, SchedulerName
from tests.helpers.tiny import TinyTexts
from tests.helpers.trainers import quiet_trainer


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _digits_mlp(**options: Any) -> LitMLP:
    return LitMLP(64, [16], **options)


def _lr(trainer: Trainer) -> float:
    lr: float = trainer.optimizers[0].param_groups[0]["lr"]
    return lr


def _note_rates(model: LitModule) -> list[float]:
    """The learning rate of every step that the model is going to take."""
    rates: list[float] = []

    def note(optimizer: Optimizer) -> None:
        rates.append(optimizer.param_groups[0]["lr"])

    model.on_before_optimizer_step = note  # type: ignore[method-assign]
    return rates


def test_options_reach_the_optimizer() -> None:
    trainer = quiet_trainer(limit_train_batches=2)
    trainer.fit(_digits_mlp(optimizer="SGD", lr=0.03, momentum=0.4, weight_decay=0.02), DigitsDataModule())
    group = trainer.optimizers[0].param_groups[0]
    assert isinstance(trainer.optimizers[0], torch.optim.SGD)
    assert (group["lr"], group["momentum"], group["weight_decay"], group["fused"]) == (0.03, 0.4, 0.02, True)


@pytest.mark.parametrize(("scheduler", "last"), [("cosine", 0.00017), ("one-cycle", 4e-8), ("none", 0.01)])
def test_a_schedule_ends_with_the_training(scheduler: SchedulerName, last: float) -> None:
    model = _digits_mlp(lr=0.01, scheduler=scheduler)
    rates = _note_rates(model)
    quiet_trainer(max_epochs=3, limit_train_batches=4).fit(model, DigitsDataModule())
    assert len(rates) == 12
    assert rates[-1] == pytest.approx(last, rel=0.01)


def test_a_schedule_needs_an_end() -> None:
    with pytest.raises(ModelError, match=r"^scheduler: a schedule needs an end; give `max_epochs` or `max_steps`\.$"):
        quiet_trainer(max_epochs=-1).fit(_digits_mlp(scheduler="cosine"), DigitsDataModule())


@pytest.mark.parametrize(("val_fraction", "watched"), [(0.1, "val_loss"), (0.0, "train_loss")])
def test_a_plateau_is_looked_for_in_what_is_measured(val_fraction: float, watched: str) -> None:
    trainer = quiet_trainer(max_epochs=2, limit_train_batches=2)
    trainer.fit(_digits_mlp(scheduler="plateau"), DigitsDataModule(val_fraction=val_fraction))
    config = trainer.lr_scheduler_configs[0]
    assert (config.monitor, config.interval) == (watched, "epoch")


def _resume(tmp_path: Path, first: LitModule, second: LitModule, epochs: int = 3) -> tuple[Trainer, Trainer]:
    before = quiet_trainer(max_epochs=2, limit_train_batches=4)
    before.fit(first, DigitsDataModule())
    before.save_checkpoint(tmp_path / "last.ckpt")
    after = quiet_trainer(max_epochs=epochs, limit_train_batches=4)
    after.fit(second, DigitsDataModule(), ckpt_path=str(tmp_path / "last.ckpt"), weights_only=True)
    return before, after


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_a_changed_learning_rate_is_applied_on_resuming(tmp_path: Path, optimizer: OptimizerName) -> None:
    first, second = (_digits_mlp(optimizer=optimizer, lr=lr) for lr in (0.01, 0.002))
    before, after = _resume(tmp_path, first, second)
    assert (_lr(before), _lr(after)) == (0.01, 0.002)
    assert after.global_step == 12
    state: dict[str, Tensor] = next(iter(after.optimizers[0].state.values()))
    assert optimizer == "SGD" or state["step"] == 12  # what the optimizer has learned is not lost


def _plateau(**options: Any) -> LitMLP:
    """A model whose learning rate is divided by 10 after every epoch, as no improvement is ever good enough."""
    model = _digits_mlp(**options)
    args = {"patience": 0, "threshold": 1.0}
    model.lr_scheduler_config = {"class_path": "torch.optim.lr_scheduler.ReduceLROnPlateau", "init_args": args}
    return model


def test_a_lowered_learning_rate_survives_a_resume_with_the_same_settings(tmp_path: Path) -> None:
    before, after = _resume(tmp_path, _plateau(lr=0.1), _plateau(lr=0.1))
    assert _lr(before) == pytest.approx(0.001)
    assert _lr(after) == pytest.approx(0.0001)


def test_but_an_explicit_one_is_taken(tmp_path: Path) -> None:
    _, after = _resume(tmp_path, _plateau(lr=0.1), _plateau(lr=0.5))
    assert _lr(after) == pytest.approx(0.05)


@pytest.mark.parametrize("scheduler", ["cosine", "one-cycle"])
def test_a_schedule_with_more_epochs_follows_the_longer_curve(tmp_path: Path, scheduler: SchedulerName) -> None:
    first, second, whole = (_digits_mlp(scheduler=scheduler, lr=0.01) for _ in range(3))
    _, after = _resume(tmp_path, first, second, epochs=4)
    straight = quiet_trainer(max_epochs=4, limit_train_batches=4)
    straight.fit(whole, DigitsDataModule())
    assert _lr(after) == pytest.approx(_lr(straight), abs=1e-12)


def test_a_schedule_follows_a_changed_learning_rate_on_resuming(tmp_path: Path) -> None:
    first, second = (_digits_mlp(scheduler="cosine", lr=lr) for lr in (0.01, 0.04))
    rates = _note_rates(second)
    _resume(tmp_path, first, second, epochs=4)
    curve = [0.04 * (1 + torch.tensor(torch.pi * step / 16).cos().item()) / 2 for step in range(8, 16)]
    assert rates == pytest.approx(curve, rel=1e-5)


EPOCHS: list[tuple[str, dict[str, Any], Callable[[int], float]]] = [
    ("StepLR", {"step_size": 1, "gamma": 0.5}, lambda epoch: 0.5**epoch),
    ("MultiStepLR", {"milestones": [1, 3], "gamma": 0.1}, lambda epoch: 0.1 ** ((epoch >= 1) + (epoch >= 3))),
    ("LinearLR", {"start_factor": 0.5, "total_iters": 4}, lambda epoch: 0.5 + 0.125 * min(epoch, 4)),
    ("exponential", {}, lambda epoch: 0.95**epoch),
]


@pytest.mark.parametrize(("name", "args", "share"), EPOCHS, ids=[name for name, _, _ in EPOCHS])
@pytest.mark.parametrize("what", ["rate", "schedule"])
def test_a_schedule_that_counts_epochs_is_where_the_training_is(
    tmp_path: Path, name: str, args: dict[str, Any], share: Callable[[int], float], what: str
) -> None:
    def model(lr: float, has_it: bool = True) -> LitMLP:
        made = _digits_mlp(lr=lr, scheduler="exponential" if has_it and not args else "none")
        if has_it and args:
            made.lr_scheduler_config = {"class_path": f"torch.optim.lr_scheduler.{name}", "init_args": args}
        return made

    first = model(0.01) if what == "rate" else model(0.04, has_it=False)
    second = model(0.04)
    rates = _note_rates(second)
    _resume(tmp_path, first, second, epochs=5)
    assert rates == pytest.approx([0.04 * share(step // 4) for step in range(8, 20)], rel=1e-6)


def test_a_warm_up_that_is_added_on_resuming_is_over_where_it_would_be(tmp_path: Path) -> None:
    first, second = (_digits_mlp(scheduler="cosine", lr=0.01, warmup_steps=steps) for steps in (0, 10))
    rates = _note_rates(second)
    _resume(tmp_path, first, second, epochs=4)
    assert rates[:3] == pytest.approx([0.01 * 9 / 11, 0.01 * 10 / 11, 0.01], rel=1e-6)
    assert rates[3] == pytest.approx(0.01 * (1 + math.cos(math.pi / 6)) / 2, rel=1e-6)


@pytest.mark.parametrize("optimizer", ["AdamW", "Adagrad", "SGD"])
@pytest.mark.parametrize("options", [{"weight_decay": 0.1}, {"layer_decay": 0.5}], ids=str)
def test_a_changed_grouping_keeps_what_the_optimizer_has_learned(
    tmp_path: Path, optimizer: OptimizerName, options: dict[str, float]
) -> None:
    first, second = _digits_mlp(optimizer=optimizer), _digits_mlp(optimizer=optimizer, **options)
    taken: list[dict[str, Any]] = []

    def take(optimizer: Optimizer) -> None:
        if not taken:
            names: dict[Tensor, str] = {p: name for name, p in second.named_parameters()}
            taken.extend([{names[p]: copy.deepcopy(state) for p, state in optimizer.state.items()}])

    second.on_before_zero_grad = take  # type: ignore[method-assign]
    before, after = _resume(tmp_path, first, second)
    names: dict[Tensor, str] = {p: name for name, p in first.named_parameters()}
    kept = {names[p]: state for p, state in before.optimizers[0].state.items()}
    torch.testing.assert_close(taken[0], kept)
    groups = after.optimizers[0].param_groups
    if "weight_decay" in options:
        assert [group["weight_decay"] for group in groups] == [0.1, 0]
    else:
        assert [group["lr"] for group in groups] == pytest.approx([0.0005, 0.001])


@pytest.mark.parametrize(("weight_decay", "steps"), [(0.0, 12), (0.1, 4)])
def test_a_state_without_names_is_taken_if_it_fits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, weight_decay: float, steps: int
) -> None:
    first = quiet_trainer(max_epochs=2, limit_train_batches=4)
    first.fit(_digits_mlp(scheduler="exponential"), DigitsDataModule())
    first.save_checkpoint(tmp_path / "last.ckpt")
    older = torch.load(tmp_path / "last.ckpt", weights_only=True)
    del older["param_groups"], older["optimizer_states"][0]["param_groups"][0]["param_names"]
    older["hyper_parameters"]["weight_decay"] = weight_decay  # biases had it too
    torch.save(older, tmp_path / "last.ckpt")
    after = quiet_trainer(max_epochs=3, limit_train_batches=4)
    model, path = _digits_mlp(weight_decay=weight_decay, scheduler="exponential"), str(tmp_path / "last.ckpt")
    after.fit(model, DigitsDataModule(), ckpt_path=path, weights_only=True)
    assert {int(state["step"]) for state in after.optimizers[0].state.values()} == {steps}
    assert _lr(after) == pytest.approx(0.001 * 0.95**3)
    assert ("the state of the optimizer is reset" in caplog.text) == (weight_decay > 0)


def test_another_optimizer_can_take_over(tmp_path: Path) -> None:
    _, after = _resume(tmp_path, _digits_mlp(lr=0.01), _digits_mlp(lr=0.01, optimizer="SGD"))
    assert isinstance(after.optimizers[0], torch.optim.SGD)
    assert after.optimizers[0].param_groups[0]["momentum"] == 0.9
    assert _lr(after) == 0.01


def test_what_the_command_line_says_of_the_optimizer_wins_and_is_kept(tmp_path: Path) -> None:
    model = _digits_mlp(lr=0.5, scheduler="cosine")
    model.optimizer_config = {"class_path": "torch.optim.RMSprop", "init_args": {"lr": 0.02}}
    model.lr_scheduler_config = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 1}}
    trainer = quiet_trainer(limit_train_batches=2)
    trainer.fit(model, DigitsDataModule())
    assert isinstance(trainer.optimizers[0], torch.optim.RMSprop)
    assert _lr(trainer) == pytest.approx(0.002)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    saved = torch.load(tmp_path / "model.ckpt", weights_only=True)
    assert saved["optimizer_config"] == model.optimizer_config
    assert saved["lr_scheduler_config"] == model.lr_scheduler_config


def test_rare_validation_and_a_plateau_go_together() -> None:
    model = LitMLP(64, scheduler="plateau")
    trainer = quiet_trainer(max_epochs=3, check_val_every_n_epoch=2)
    trainer.fit(model, DigitsDataModule())
    assert trainer.current_epoch == 3


def test_one_cycle_leaves_the_momentum_alone() -> None:
    model = LitMLP(64, optimizer="SGD", momentum=0.0, scheduler="one-cycle")
    trainer = quiet_trainer(max_steps=5)
    trainer.fit(model, DigitsDataModule())
    assert trainer.optimizers[0].param_groups[0]["momentum"] == 0.0


def test_a_warm_up_rises_and_falls_with_the_training() -> None:
    model = _digits_mlp(lr=0.01, scheduler="cosine", warmup_steps=4)
    rates = _note_rates(model)
    quiet_trainer(max_epochs=3, limit_train_batches=4).fit(model, DigitsDataModule())
    rising = [0.01 * step / 5 for step in range(1, 5)]
    falling = [0.01 * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    assert rates == pytest.approx(rising + falling, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (
            {"scheduler": "cosine", "warmup_steps": 8},
            r"^warmup_steps=8: the training has 8 steps; give",
        ),
        ({"warmup_steps": 2}, r"^warmup_steps=2: only `scheduler=cosine` warms up"),
        ({"scheduler": "one-cycle", "warmup_steps": 2}, r"^warmup_steps=2: only"),
        ({"optimizer": "SparseAdam"}, r"^optimizer='SparseAdam': .* `sparse=True` of LitTextClassifier"),
        ({"optimizer": "LBFGS", "layer_decay": 0.5}, r"^optimizer='LBFGS': .* leave `layer_decay`"),
    ],
    ids=str,
)
def test_what_cannot_be_trained_so_is_refused(options: dict[str, Any], answer: str) -> None:
    trainer = quiet_trainer(max_epochs=2, limit_train_batches=4)
    with pytest.raises(ModelError, match=answer) as error:
        trainer.fit(_digits_mlp(**options), DigitsDataModule())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("options", [{"warmup_steps": -1}, {"layer_decay": 0.0}, {"layer_decay": 1.5}], ids=str)
def test_impossible_numbers_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=rf"^{next(iter(options))}={next(iter(options.values()))}: give "):
        _digits_mlp(**options)


# LBFGS, which evaluates a batch several times


def _linear() -> tuple[Tensor, Tensor, DataLoader[Any]]:
    x = torch.randn(200, 6)
    y = x @ torch.arange(6.0) - 2 + torch.randn(200)
    return x, y, DataLoader(Samples(x, y), batch_size=None, sampler=[torch.arange(200)])


@pytest.mark.parametrize("lr", [1.0, 0.03])  # 0.03 is the model's own
def test_lbfgs_finds_the_least_squares(lr: float) -> None:
    x, y, loader = _linear()
    # Of a mean, LBFGS is content with 2e-5: it stops where the loss changes by less than 1e-9.
    model = LitLinearRegression(6, optimizer="LBFGS", lr=lr, reduction="sum")
    quiet_trainer(max_epochs=5, precision="64-true").fit(model, loader)
    ones = torch.cat([x, torch.ones(200, 1)], dim=1).double()
    best = torch.linalg.lstsq(ones, y.double()[:, None]).solution[:, 0]
    found = torch.cat([p.detach().flatten() for p in model.parameters()]).double()
    torch.testing.assert_close(found, best, rtol=0, atol=1e-5)


def test_a_batch_counts_once_however_often_it_is_evaluated() -> None:
    loader = _linear()[2]
    model = LitLinearRegression(6, optimizer="LBFGS", lr=1.0)
    calls: list[float] = []
    loss = model.task.loss

    def count(outputs: Tensor, y: Tensor) -> Tensor:
        calls.append(float(loss(outputs, y).detach()))
        return loss(outputs, y)

    model.task.loss = count  # type: ignore[method-assign]
    trainer = quiet_trainer(max_epochs=1, log_every_n_steps=1)
    trainer.fit(model, loader)
    assert len(calls) > 3
    assert trainer.global_step == 1
    for name in ("train_loss", "train_loss_step"):
        assert trainer.callback_metrics[name].item() == pytest.approx(calls[0], rel=1e-6)


def test_lbfgs_is_resumed_as_if_nothing_had_been(tmp_path: Path) -> None:
    options: dict[str, Any] = {"optimizer": "LBFGS", "lr": 0.5}
    whole, broken = _digits_mlp(**options), _digits_mlp(**options)
    broken.load_state_dict(whole.state_dict())
    quiet_trainer(max_epochs=3, limit_train_batches=4).fit(whole, DigitsDataModule())
    again = _digits_mlp(**options)
    _, after = _resume(tmp_path, broken, again)
    assert after.optimizers[0].param_groups[0]["line_search_fn"] == "strong_wolfe"
    torch.testing.assert_close(again.state_dict(), whole.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"gradient_clip_val": 1.0}, "gradient_clip_val=1.0"),
        ({"accumulate_grad_batches": 2}, "accumulate_grad_batches=2"),
        ({"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))]}, "precision='16-mixed'"),
    ],
    ids=["clipping", "accumulating", "scaling"],
)
def test_what_would_be_wrong_with_a_closure_is_refused(options: dict[str, Any], option: str) -> None:
    with pytest.raises(ModelError, match=f"^{option}: LBFGS evaluates a batch several times"):
        quiet_trainer(**options).fit(_digits_mlp(optimizer="LBFGS"), DigitsDataModule())


def test_so_are_several_processes_each_with_a_search_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "world_size", 2)
    with pytest.raises(ModelError, match=r"^devices=2: LBFGS evaluates a batch several times"):
        quiet_trainer().fit(_digits_mlp(optimizer="LBFGS"), DigitsDataModule())


def test_lbfgs_trains_convolutions_whose_weights_lie_otherwise_in_memory() -> None:
    model = LitConvNet((1, 8, 8), [4], optimizer="LBFGS", lr=1.0)
    trainer = quiet_trainer(max_epochs=2, limit_train_batches=2)
    trainer.fit(model, DigitsDataModule(batch_size=256))
    assert trainer.callback_metrics["train_loss"] < 2


def test_an_embedding_that_changes_its_optimizer_begins_anew(tmp_path: Path) -> None:
    def fit(sparse: bool, epochs: int, path: str | None) -> Trainer:
        model = LitTextClassifier(30, num_outputs=3, embedding_dim=4, sparse=sparse, max_length=12)
        trainer = quiet_trainer(max_epochs=epochs)
        trainer.fit(model, TinyTexts(), ckpt_path=path, weights_only=True)
        return trainer

    path = str(tmp_path / "last.ckpt")
    fit(True, 2, None).save_checkpoint(path)
    after = fit(False, 3, path)
    (optimizer,) = after.optimizers
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {int(state["step"]) for state in optimizer.state.values()} == {after.global_step // 3}
