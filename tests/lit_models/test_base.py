"""What every model shares."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from datamodules import CSVDataModule, DigitsDataModule, Samples, ToyDataModule
from datamodules.toy import ToyName
from lit_models import LitConvNet, LitGPT, LitLeNet, LitLinearRegression, LitMLP, LitModule, LitSiamese, ModelError
from lit_models.tasks import Regression
from tests.helpers.trainers import quiet_trainer

BASE_OPTIONS = {
    "task",
    "num_outputs",
    "loss",
    "reduction",
    "label_smoothing",
    "class_weights",
    "ignore_index",
    "normalize",
    "optimizer",
    "lr",
    "momentum",
    "weight_decay",
    "layer_decay",
    "scheduler",
    "warmup_steps",
    "init",
    "compile",
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _digits_mlp(**options: Any) -> LitMLP:
    return LitMLP(64, [16], **options)


# Inputs


@pytest.mark.parametrize(
    "model", [LitMLP(784, [8]), LitLeNet(), LitConvNet(channels=[4])], ids=lambda m: type(m).__name__
)
def test_uint8_and_floating_point_images_give_the_same_outputs(model: LitModule) -> None:
    model.eval()
    x = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    model.normalization.set(torch.full((1, 1, 1), 0.13), torch.full((1, 1, 1), 0.31))
    torch.testing.assert_close(model(x), model(x / 255))
    torch.testing.assert_close(model(x), model.net((x / 255 - 0.13) / 0.31))
    assert not torch.allclose(model(x), model(x.float()))


def test_flattened_images_get_their_channels_back() -> None:
    model = LitMLP(3 * 28 * 28, [8])
    model.normalization.set(torch.rand(3, 1, 1), torch.rand(3, 1, 1) + 0.1)
    x = torch.randint(0, 256, (5, 3, 28, 28), dtype=torch.uint8)
    torch.testing.assert_close(model(x.flatten(1)), model(x))


def test_a_prediction_does_not_depend_on_targets() -> None:
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
    assert torch.load(tmp_path / "model.ckpt", weights_only=True)["class_path"] == "lit_models.LitMLP"
    loaded = LitMLP.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    assert loaded.hparams == model.hparams
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)


# What is logged


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


def _loader(x: Tensor, y: Tensor, *sizes: int) -> DataLoader[Any]:
    return DataLoader(Samples(x, y), batch_size=None, sampler=list(torch.arange(len(x)).split(list(sizes))))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_logged_losses_are_exact_with_weights_and_ignored_labels(
    task: Literal["binary", "multiclass"], reduction: Literal["mean", "sum"]
) -> None:
    x, y = torch.randn(20, 5), torch.arange(20) % 3
    options: dict[str, Any]
    y[::4] = 1
    if task == "multiclass":
        outputs, options = 3, {"class_weights": [0.5, 4.0, 1.0], "ignore_index": 2}
        y[-3:] = 2  # a whole batch
    else:
        outputs, y, options = 1, y.clamp(max=1), {"class_weights": [0.5, 4.0]}
    model = LitMLP(5, [4], task=task, num_outputs=outputs, reduction=reduction, lr=0.0, **options)
    trainer = quiet_trainer()
    trainer.fit(model, _loader(x, y, 10, 7, 3), _loader(x, y, 4, 13, 3))
    with torch.no_grad():
        scores = model(x)
        if task == "multiclass":
            expected = F.cross_entropy(scores, y, torch.tensor(options["class_weights"]), ignore_index=2)
            accuracy = (scores.argmax(1) == y)[y != 2].float().mean()
        else:
            weight = torch.tensor(options["class_weights"])[y]
            expected = F.binary_cross_entropy_with_logits(scores[:, 0], y.float(), weight)
            accuracy = ((scores[:, 0] > 0) == y).float().mean()
    for stage in ("train", "val"):
        torch.testing.assert_close(trainer.callback_metrics[f"{stage}_loss"], expected)
    torch.testing.assert_close(trainer.callback_metrics["val_acc"], accuracy)


def test_class_weights_are_saved_as_numbers(tmp_path: Path) -> None:
    weights = torch.tensor([1.0, 2.0, 0.5])
    model, trainer = LitMLP(3, [2], num_outputs=3, class_weights=weights), quiet_trainer()
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = LitMLP.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    assert loaded.hparams["class_weights"] == [1, 2, 0.5]
    assert loaded.task.class_weights is not None
    assert loaded.task.class_weights.equal(weights)
    assert not [name for name in model.state_dict() if "class_weights" in name]


def test_every_epoch_is_measured_anew() -> None:
    model, data = _digits_mlp(lr=0.01), DigitsDataModule()
    trainer = quiet_trainer(max_epochs=3)
    trainer.fit(model, data)
    split = data.splits["val"]
    x, y = split.samples[split.indices]
    with torch.no_grad():
        torch.testing.assert_close(trainer.callback_metrics["val_loss"], F.cross_entropy(model.eval()(x), y))


def test_names_of_metrics() -> None:
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
        assert model.normalization.mean.equal(first.statistics["mean"])
        assert model.normalization.std.equal(first.statistics["std"])
        assert model.task.normalization.mean.equal(first.statistics["target_mean"])
        assert model.task.normalization.std.equal(first.statistics["target_std"])
        quiet_trainer().fit(model, ToyDataModule("diabetes", seed=1))


@pytest.mark.parametrize("how", ["not asked to", "only tested"])
def test_statistics_stay_neutral(how: str) -> None:
    model, data = _digits_mlp(normalize=how == "only tested"), DigitsDataModule()
    trainer = quiet_trainer()
    if how == "only tested":
        trainer.test(model, data, verbose=False)
    else:
        trainer.fit(model, data)
    assert (model.normalization.mean.item(), model.normalization.std.item()) == (0, 1)


def test_plain_loaders_need_no_statistics() -> None:
    samples = DigitsDataModule().load()["train"]
    loader = DataLoader(TensorDataset(samples.x / 255, samples.y), batch_size=100)
    model = _digits_mlp()
    trainer = quiet_trainer()
    trainer.fit(model, loader, loader)
    assert trainer.callback_metrics["val_loss"].isfinite()
    assert not model.normalization.is_set


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


# Models for data


@pytest.mark.parametrize(
    ("cls", "data", "options", "expected"),
    [
        (LitMLP, "iris", {"hidden": [8]}, {"in_features": 4, "num_outputs": 3, "task": "multiclass", "hidden": [8]}),
        (LitMLP, "diabetes", {}, {"in_features": 10, "num_outputs": 1, "task": "regression"}),
        (LitMLP, "iris", {"num_outputs": 7}, {"in_features": 4, "num_outputs": 7}),
        (LitSiamese, "iris", {"encoder": "LitMLP", "embedding_dim": 2}, {"in_features": 4}),
        (LitConvNet, None, {"channels": [4]}, {"input_shape": [1, 8, 8], "num_outputs": 10}),
    ],
)
def test_a_model_for_data_has_their_sizes(
    cls: type[LitModule], data: ToyName | None, options: dict[str, Any], expected: dict[str, Any]
) -> None:
    module = DigitsDataModule() if data is None else ToyDataModule(data)
    model = cls.for_data(module, **options)
    assert type(model) is cls
    assert {name: model.hparams[name] for name in expected} == expected
    x, _ = module.splits["train"][:2]
    assert len(model(x)) == 2


def test_a_model_for_data_with_categories_gets_their_codes() -> None:
    columns = {"a": list(range(40)), "c": ["u", "v"] * 20, "y": [0.5, 1.5, 2.5, 3.5] * 10}
    data = CSVDataModule(columns)
    assert LitMLP.for_data(data).hparams["cat_cardinalities"] == data.cat_cardinalities == [3]
    with pytest.raises(ModelError, match=r"^LitConvNet: it takes no cat_cardinalities, .*; give another model\.$"):
        LitConvNet.for_data(data)


def test_a_model_for_data_that_it_cannot_read_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^LitGPT: it reads running text, which these data are not; .*"):
        LitGPT.for_data(ToyDataModule("iris"))
    with pytest.raises(ModelError, match=r"^data: list has no size or task to fill in; give a data module\.$"):
        LitMLP.for_data([1, 2])
