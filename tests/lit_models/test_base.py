"""What every model shares."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from datamodules import DigitsDataModule, Samples, ToyDataModule
from lit_models import LitConvNet, LitLeNet, LitLinearRegression, LitMLP, LitModule, ModelError
from lit_models.base import MeanLoss
from lit_models.optim import OptimizerName, SchedulerName
from lit_models.tasks import Regression
from tests.trainers import quiet_trainer

BASE_OPTIONS = {
    "task",
    "num_outputs",
    "loss",
    "reduction",
    "label_smoothing",
    "normalize",
    "optimizer",
    "lr",
    "momentum",
    "weight_decay",
    "scheduler",
    "compile",
}


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


# Inputs


@pytest.mark.parametrize(
    "model", [LitMLP(784, [8]), LitLeNet(), LitConvNet(channels=[4])], ids=lambda m: type(m).__name__
)
def test_uint8_and_floating_point_images_get_the_same_scores(model: LitModule) -> None:
    model.eval()
    x = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    model.standardize.set(torch.full((1, 1, 1), 0.13), torch.full((1, 1, 1), 0.31))
    torch.testing.assert_close(model(x), model(x / 255))
    torch.testing.assert_close(model(x), model.net((x / 255 - 0.13) / 0.31))
    assert not torch.allclose(model(x), model(x.float()))


def test_flattened_images_get_their_channels_back() -> None:
    model = LitMLP(3 * 28 * 28, [8])
    model.standardize.set(torch.rand(3, 1, 1), torch.rand(3, 1, 1) + 0.1)
    x = torch.randint(0, 256, (5, 3, 28, 28), dtype=torch.uint8)
    torch.testing.assert_close(model(x.flatten(1)), model(x))


def test_a_prediction_does_not_look_at_targets() -> None:
    model = _digits_mlp()
    x = torch.rand(5, 1, 8, 8)
    assert model.predict_step((x, torch.zeros(5)), 0).equal(model.predict_step(x, 0))
    torch.testing.assert_close(model.predict_step(x, 0), model(x).softmax(1))


# Hyperparameters


def test_hyperparameters_are_those_of_leaf_and_base_and_nothing_else() -> None:
    model = LitMLP(64, [16, 8], activation="tanh", lr=0.5, label_smoothing=0.1)
    leaf = {"in_features", "hidden", "activation", "dropout", "batch_norm", "cat_cardinalities"}
    assert model.hparams.keys() == BASE_OPTIONS | leaf
    assert (model.hparams["hidden"], model.hparams["lr"], model.hparams["momentum"]) == ([16, 8], 0.5, 0.9)
    assert LitLeNet().hparams.keys() == BASE_OPTIONS | {"input_shape"}
    assert LitLinearRegression().hparams["task"] == "regression"


def test_a_checkpoint_rebuilds_the_model_safely(tmp_path: Path) -> None:
    model, data = LitMLP(64, [16, 8], activation="tanh", num_outputs=10), DigitsDataModule()
    trainer = quiet_trainer()
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    assert torch.load(tmp_path / "model.ckpt", weights_only=True)["class_path"] == "lit_models.mlp.LitMLP"
    loaded = LitMLP.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    assert loaded.hparams == model.hparams
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)


# What is logged


def test_a_mean_loss_weighs_batches_by_their_samples() -> None:
    mean = MeanLoss()
    for loss, size in ((1.0, 30), (4.0, 10)):
        mean.update(torch.tensor(loss), size)
    assert mean.take(torch.device("cpu")).tolist() == [70, 40]
    assert mean.take(torch.device("cpu")).tolist() == [0, 0]
    for loss, size in ((float("nan"), 1), (2.0, 3)):
        mean.update(torch.tensor(loss), size)
    total, samples = mean.take(torch.device("cpu"))
    assert samples == 4
    assert total.isnan()  # it must be seen, for it stops the training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_mean_loss_of_many_batches_keeps_its_digits(dtype: torch.dtype) -> None:
    mean, loss = MeanLoss(), torch.tensor(3.1, dtype=dtype)
    for _ in range(20_000):
        mean.update(loss, torch.tensor(700))
    total, samples = mean.take(torch.device("cpu"))
    assert (total / samples).item() == pytest.approx(loss.item(), rel=1e-7)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_logged_losses_are_the_mean_over_all_samples(reduction: Literal["mean", "sum"]) -> None:
    # With a learning rate of 0 the model stays what it is; the last batch is smaller than the others.
    model, data = _digits_mlp(lr=0.0, reduction=reduction), DigitsDataModule(batch_size=100)
    trainer = quiet_trainer()
    trainer.fit(model, data)
    measured = {**trainer.callback_metrics, **trainer.test(model, data, verbose=False)[0]}
    for stage, split in data.splits.items():
        x, y = split.samples[split.indices]
        with torch.no_grad():
            expected = F.cross_entropy(model(x), y)
        torch.testing.assert_close(torch.as_tensor(measured[f"{stage}_loss"]), expected)
        if stage != "train":
            accuracy = (model(x).argmax(1) == y).float().mean()
            torch.testing.assert_close(torch.as_tensor(measured[f"{stage}_acc"]), accuracy)


def test_every_epoch_is_measured_anew() -> None:
    model, data = _digits_mlp(lr=0.01), DigitsDataModule()
    trainer = quiet_trainer(max_epochs=3)
    trainer.fit(model, data)
    split = data.splits["val"]
    x, y = split.samples[split.indices]
    with torch.no_grad():
        torch.testing.assert_close(trainer.callback_metrics["val_loss"], F.cross_entropy(model.eval()(x), y))


def test_names_of_what_is_measured() -> None:
    model, data = LitLinearRegression(10), ToyDataModule("diabetes")
    trainer = quiet_trainer(log_every_n_steps=1)
    trainer.fit(model, data)
    assert trainer.callback_metrics.keys() == {"train_loss", "train_loss_step", "val_loss", "val_mae", "val_rmse"}
    assert trainer.test(model, data, verbose=False)[0].keys() == {"test_loss", "test_mae", "test_rmse"}


def test_errors_of_a_regression_are_in_its_own_unit_and_its_loss_is_not() -> None:
    model, data = LitLinearRegression(10, lr=0.0), ToyDataModule("diabetes")
    trainer = quiet_trainer()
    trainer.fit(model, data)
    split = data.splits["val"]
    x, y = split.samples[split.indices]
    with torch.no_grad():
        error = model(x)[:, 0] - y
    measured = trainer.callback_metrics
    torch.testing.assert_close(measured["val_mae"], error.abs().mean())
    torch.testing.assert_close(measured["val_rmse"], error.square().mean().sqrt())
    torch.testing.assert_close(measured["val_loss"], (error / data.statistics["target_std"]).square().mean())


# Statistics


def test_fitting_takes_over_the_statistics_once() -> None:
    model, first = LitMLP(10, [4], task="regression", num_outputs=1), ToyDataModule("diabetes")
    quiet_trainer().fit(model, first)
    assert isinstance(model.task, Regression)
    for _ in range(2):
        assert model.standardize.mean.equal(first.statistics["mean"])
        assert model.standardize.std.equal(first.statistics["std"])
        assert model.task.standardize.mean.equal(first.statistics["target_mean"])
        assert model.task.standardize.std.equal(first.statistics["target_std"])
        quiet_trainer().fit(model, ToyDataModule("diabetes", seed=1))


@pytest.mark.parametrize("how", ["not asked to", "only tested"])
def test_statistics_stay_neutral(how: str) -> None:
    model, data = _digits_mlp(normalize=how == "only tested"), DigitsDataModule()
    trainer = quiet_trainer()
    if how == "only tested":
        trainer.test(model, data, verbose=False)
    else:
        trainer.fit(model, data)
    assert (model.standardize.mean.item(), model.standardize.std.item()) == (0, 1)


def test_plain_loaders_need_no_statistics() -> None:
    samples = DigitsDataModule().load()["train"]
    loader = DataLoader(TensorDataset(samples.x / 255, samples.y), batch_size=100)
    model = _digits_mlp()
    trainer = quiet_trainer()
    trainer.fit(model, loader, loader)
    assert trainer.callback_metrics["val_loss"].isfinite()
    assert not model.standardize.is_set


# Optimizers and schedules


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
    with pytest.raises(ModelError, match=r"--model\.scheduler: a schedule needs an end"):
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


# Compiling


def test_a_compiled_model_learns_the_same_under_the_same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Callable[..., object]] = []
    compile_by = torch.compile

    def eagerly(call: Callable[..., object], **_: object) -> Callable[..., object]:
        compiled.append(call)
        return compile_by(call, backend="eager")  # the default backend takes half a minute

    monkeypatch.setattr(torch, "compile", eagerly)
    states = []
    for asked in (False, True):
        torch.manual_seed(0)
        model = _digits_mlp(compile=asked)
        trainer = quiet_trainer(limit_train_batches=3)
        trainer.fit(model, DigitsDataModule())
        trainer.test(model, DigitsDataModule(), verbose=False)
        states.append(model.state_dict())
    assert len(compiled) == 1
    torch.testing.assert_close(states[0], states[1])


def test_validating_before_and_between_fits_does_no_harm() -> None:
    model, data = LitMLP(64), DigitsDataModule()
    quiet_trainer().validate(model, data, verbose=False)
    for _ in range(2):
        quiet_trainer(max_steps=2).fit(model, data)
        quiet_trainer().validate(model, data, verbose=False)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses_are_means_over_all_values(reduction: Literal["mean", "sum"]) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(12, 3), torch.randn(12, 2)
    model = LitLinearRegression(3, num_outputs=2, reduction=reduction, lr=0.0)
    trainer = quiet_trainer(log_every_n_steps=1)
    trainer.fit(model, DataLoader(Samples(x, y), batch_size=None, sampler=[torch.arange(5), torch.arange(5, 12)]))
    expected = (model(x) - y).square().mean().item()
    assert trainer.callback_metrics["train_loss"].item() == pytest.approx(expected, rel=1e-5)
    last = (model(x[5:]) - y[5:]).square().mean().item()
    assert trainer.callback_metrics["train_loss_step"].item() == pytest.approx(last, rel=1e-5)


def test_a_column_of_targets_is_as_good_as_a_row() -> None:
    x, y = torch.randn(8, 3), torch.randn(8, 1)
    loader = DataLoader(Samples(x, y), batch_size=None, sampler=[torch.arange(8)])
    trainer = quiet_trainer()
    trainer.fit(LitLinearRegression(3), loader, loader)
    assert trainer.callback_metrics["val_mae"].isfinite()


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
