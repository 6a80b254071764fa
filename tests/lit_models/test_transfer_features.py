"""Features of a frozen backbone, which are computed once."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from datamodules import DataModule
from datamodules.base import TaskName
from lit_models import LitConvNet, LitTransfer
from lit_models.optim.factory import SchedulerName
from tests.helpers.front_door import Run
from tests.helpers.trainers import quiet_trainer
from tests.helpers.transfer import (
    BACKBONE,
    Colors,
    ModeWatch,
    State,
    backbone_state,
    check_resumed,
    head_weight,
    is_equal_to,
    make_transfer,
    tiny_images,
)

pytestmark = pytest.mark.usefixtures("torch_home")


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches of which features are computed."""
    extract, found = LitTransfer.extract, []

    def note(self: LitTransfer, x: Tensor) -> Tensor:
        found.append(len(x))
        return extract(self, x)

    monkeypatch.setattr(LitTransfer, "extract", note)
    return found


class Measured(Callback):
    """Notes what is measured in each epoch."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, Tensor]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note it, once the model has logged."""
        self.epochs.append({name: value.clone() for name, value in trainer.callback_metrics.items()})


def _measure(model: LitTransfer, data: DataModule, **options: Any) -> tuple[list[dict[str, Tensor]], Tensor]:
    measured = Measured()
    torch.manual_seed(1)
    quiet_trainer(max_epochs=3, callbacks=[measured], **options).fit(model, data)
    return measured.epochs, head_weight(model).detach()


@pytest.mark.parametrize(
    ("options", "trainer"),
    [
        ({}, {}),
        ({"balance": "weights"}, {}),
        ({"balance": "downsample"}, {}),
        ({"num_folds": 3, "fold": 1}, {}),
        ({"val_fraction": 0.0}, {}),
        ({"num_workers": 1}, {}),
        ({}, {"accumulate_grad_batches": 2}),
        ({}, {"val_check_interval": 2}),
    ],
    ids=str,
)
def test_training_on_features_equals_training_on_images(
    weights_file: str, learned: State, extracted: list[int], options: dict[str, Any], trainer: dict[str, Any]
) -> None:
    results = []
    for views in (0, 1, 4):
        torch.manual_seed(0)
        results.append(
            _measure(make_transfer(weights_file, views=views, dropout=0.3), tiny_images(**options), **trainer)
        )
        if not views:
            assert not extracted
    data = tiny_images(**options)
    splits = data.splits
    held_out = splits["val"].size if "val" in splits else 0
    assert sum(extracted) == 2 * (splits["train"].size + held_out)  # one view is enough where nothing is random
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_training_on_features_equals_training_on_images_in_every_task(weights_file: str, task: TaskName) -> None:
    results: list[dict[str, float]] = []
    for views in (0, 1):
        torch.manual_seed(0)
        outputs = 2 if task == "multiclass" else 1
        model = LitTransfer(BACKBONE, weights_file, (3, 32, 32), views=views, task=task, num_outputs=outputs, lr=0.01)
        data = Colors(task, batch_size=8)
        trainer = quiet_trainer(max_epochs=4)
        trainer.fit(model, data)
        measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
        results.append({**measured, **trainer.test(model, data, verbose=False)[0]})
    assert results[0].keys() == results[1].keys()
    for name, value in results[0].items():
        assert results[1][name] == pytest.approx(value, rel=1e-4, abs=1e-5)


def test_the_data_give_images_again_after_the_fit(weights_file: str, extracted: list[int]) -> None:
    watch, model, data = ModeWatch(), make_transfer(weights_file), tiny_images(shift=1)
    trainer = quiet_trainer(callbacks=[watch], max_epochs=2)
    trainer.fit(model, data)
    assert watch.sizes == {"train": {2}, "val": {2}}
    assert extracted
    watch.sizes.clear()
    for stage in ("validate", "test", "predict"):
        getattr(trainer, stage)(model, data, **({"verbose": False} if stage != "predict" else {}))
    assert watch.sizes == {"val": {4}, "test": {4}, "predict": {4}}
    assert next(iter(data.train_dataloader()))[0].shape[1:] == (1, 28, 28)
    watch.sizes.clear()
    quiet_trainer(callbacks=[watch]).fit(LitConvNet(channels=[4]), data)
    assert watch.sizes == {"train": {4}, "val": {4}}


class Fail(Callback):
    """Breaks the second epoch."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise in the second epoch."""
        if trainer.current_epoch == 1:
            raise ValueError("no")


@pytest.mark.parametrize("then", ["test", "predict", "fit"])
def test_the_data_give_images_again_after_a_fit_that_failed(weights_file: str, then: str) -> None:
    model, data, watch = make_transfer(weights_file), tiny_images(shift=1), ModeWatch()
    with pytest.raises(ValueError, match="no"):
        quiet_trainer(max_epochs=2, callbacks=[Fail()]).fit(model, data)
    trainer = quiet_trainer(callbacks=[watch])
    if then == "fit":
        trainer.fit(LitConvNet(channels=[4]), data)
    elif then == "test":
        trainer.test(model, data, verbose=False)
    else:
        trainer.predict(model, data)
    assert set.union(*watch.sizes.values()) == {4}


@pytest.mark.parametrize(
    "options",
    [
        {"fast_dev_run": True},
        {"limit_train_batches": 1},
        {"limit_train_batches": 2},
        {"limit_train_batches": 0.5},
        {"limit_val_batches": 1},
    ],
    ids=str,
)
def test_a_fit_of_a_few_batches_computes_no_features(
    weights_file: str, extracted: list[int], options: dict[str, Any]
) -> None:
    quiet_trainer(**options).fit(make_transfer(weights_file), tiny_images())
    assert not extracted


@pytest.mark.parametrize("option", [{"unfreeze_epoch": 1}, {"unfreeze_epoch": 0}, {"views": 0}], ids=str)
def test_features_are_not_computed_once_if_they_change_or_are_not_cached(
    weights_file: str, extracted: list[int], option: dict[str, Any]
) -> None:
    quiet_trainer().fit(make_transfer(weights_file, **option), tiny_images())
    quiet_trainer().fit(make_transfer(None), tiny_images())
    assert not extracted


def test_features_are_computed_without_a_validation_split(weights_file: str, extracted: list[int]) -> None:
    data = tiny_images(val_fraction=0)
    quiet_trainer().fit(make_transfer(weights_file), data)
    assert sum(extracted) == data.splits["train"].size


def test_views_differ_and_are_reproducible(weights_file: str) -> None:
    class Keep(LitTransfer):
        def on_train_start(self) -> None:
            super().on_train_start()
            split = self.trainer.datamodule._features["train"]  # type: ignore[attr-defined]
            kept.append(split.samples.x.view(3, -1, 1024))

    kept: list[Tensor] = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = Keep(BACKBONE, weights_file, (1, 28, 28), views=3)
        quiet_trainer(max_epochs=3).fit(model, tiny_images(shift=2))
    first, second, third = kept[0]
    assert not first.equal(second)
    assert not second.equal(third)
    assert kept[0].equal(kept[1])  # whatever else was drawn


def test_no_more_views_are_computed_than_there_are_epochs(weights_file: str) -> None:
    class Keep(LitTransfer):
        def on_train_start(self) -> None:
            super().on_train_start()
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            kept.append(len(data._features["train"].samples) // data.splits["train"].size)

    kept: list[int] = []
    for epochs in (1, 2, 9):
        quiet_trainer(max_epochs=epochs).fit(Keep(BACKBONE, weights_file, (1, 28, 28), views=4), tiny_images(shift=2))
    assert kept == [1, 2, 4]


def test_a_resumed_run_has_the_same_views(run: Run, transfer_flags: str) -> None:
    more = "--max_epochs 4"
    check_resumed(
        run,
        f"{transfer_flags} --model.scheduler cosine --model.views 3 --model.dropout 0.3 --data.shift 2",
        [4, 6],
        more,
    )


def test_plain_loaders_compute_features_in_every_step(weights_file: str, learned: State, extracted: list[int]) -> None:
    samples = tiny_images().load()["train"]
    loader: DataLoader[Any] = DataLoader(TensorDataset(samples.x / 255, samples.y), batch_size=20)
    model = make_transfer(weights_file)
    trainer = quiet_trainer()
    trainer.fit(model, loader, loader)
    trainer.test(model, loader, verbose=False)
    assert trainer.callback_metrics["test_loss"].isfinite()
    assert is_equal_to(backbone_state(model), learned)
    assert not extracted


def test_features_and_images_give_the_same_outputs(weights_file: str) -> None:
    model = LitTransfer(BACKBONE, weights_file, (3, 32, 32), task="regression", num_outputs=2).eval()
    model.load_weights()
    model.task.normalization.set(torch.tensor([3.0, 4.0]), torch.tensor([5.0, 6.0]))  # type: ignore[union-attr, operator]
    x = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        features = model.extract(x)
        assert features.shape == (4, 1024)
        torch.testing.assert_close(model(features), model(x))
        torch.testing.assert_close(model(x / 255), model(x))


def test_the_best_checkpoint_is_tested_on_images(run: Run, transfer_flags: str) -> None:
    cli = run(
        f"{transfer_flags} --logger true --max_epochs 3 --model.lr 0.01 --data.shift 1 --early_stopping.patience 1"
    )
    folder = Path(cli.trainer.default_root_dir)
    model = LitTransfer.load_from_checkpoint(folder / "checkpoints" / "best.ckpt", weights_only=True).eval()
    assert isinstance(cli.datamodule, DataModule)
    samples, indices = cli.datamodule.splits["test"]
    x, y = samples[indices]
    assert x.shape[1:] == (1, 28, 28)
    with torch.no_grad():
        loss = model.task.loss(model(x), y).item()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["test"]["test_loss"] == pytest.approx(loss, rel=1e-5)
    assert summary["best"]["val_loss"] <= summary["final"]["val_loss"]
    found = EventAccumulator(str(folder))
    found.Reload()
    assert found.Tags()["graph"]


def test_features_are_computed_at_the_precision_of_the_trainer(weights_file: str) -> None:
    model = make_transfer(weights_file)
    trainer = quiet_trainer(precision="bf16-mixed")
    trainer.fit(model, tiny_images())
    assert trainer.callback_metrics["train_loss"].isfinite()
    for precision in ("64-true", "bf16-true"):
        quiet_trainer(precision=precision).fit(make_transfer(weights_file), tiny_images())


def test_a_compiled_network_trains_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_by = torch.compile
    monkeypatch.setattr(torch, "compile", lambda call, **_: compile_by(call, backend="eager"))
    results = []
    for asked in (False, True):
        torch.manual_seed(0)
        model = LitTransfer("squeezenet1_1", "none", (1, 28, 28), compile=asked)
        quiet_trainer(max_epochs=2, limit_train_batches=2).fit(model, tiny_images())
        results.append(model.state_dict())
    torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scheduler", get_args(SchedulerName))
def test_the_head_learns_from_features_under_every_schedule(weights_file: str, scheduler: str) -> None:
    class Keep(LitTransfer):
        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            seen.append(batch[0].ndim)
            return super().training_step(batch, batch_idx)

    seen: list[int] = []
    quiet_trainer().fit(Keep(BACKBONE, weights_file, (1, 28, 28), scheduler=scheduler), tiny_images(shift=2))
    assert set(seen) == {2}  # and not the images, (B, C, H, W)
