"""A pretrained backbone with a new head: what is loaded, frozen and trained."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from safetensors.torch import save_file

from lit_models import LitTransfer, ModelError
from lit_models.modules.backbones import Weights, read_weights
from lit_models.optim.factory import OptimizerName, SchedulerName
from tests.helpers.front_door import Run
from tests.helpers.trainers import quiet_trainer
from tests.helpers.transfer import (
    BACKBONE,
    LAST,
    NAMED,
    PUBLISHED,
    STEPS,
    Colors,
    ModeWatch,
    Rates,
    State,
    backbone_state,
    check_resumed,
    head_weight,
    is_equal_to,
    learning_rates,
    make_transfer,
    saved_state,
    tiny_images,
)

pytestmark = pytest.mark.usefixtures("torch_home")


# Loading


def _in_hub(state: State) -> None:
    place = Path(torch.hub.get_dir()) / "checkpoints" / PUBLISHED.url.rpartition("/")[2]
    place.parent.mkdir(parents=True)
    torch.save(state, place)


@pytest.mark.parametrize(
    "source",
    ["a.pth", "a.pt", "a.bin", "a.safetensors", "wrapped.pth", "module.pth", "DEFAULT", "IMAGENET1K_V1", "full name"],
)
def test_weights_come_from_the_file_and_the_head_is_new(tmp_path: Path, learned: State, source: str) -> None:
    path = tmp_path / source
    weights = str(path)
    if source == "a.safetensors":
        save_file(learned, path)
    elif source == "wrapped.pth":
        torch.save({"state_dict": learned, "epoch": 90}, path)
    elif source == "module.pth":
        torch.save({f"module._orig_mod.{name}": value for name, value in learned.items()}, path)
    elif path.suffix:
        torch.save(learned, path)
    else:
        _in_hub(learned)
        weights = str(PUBLISHED) if source == "full name" else source
    model = make_transfer(weights)
    head = head_weight(model).clone()
    assert not is_equal_to(backbone_state(model), learned)
    model.load_weights()
    found = backbone_state(model)
    assert len(found) == len(learned) - 2
    torch.testing.assert_close(found, {name: learned[name] for name in found}, rtol=0, atol=0)
    assert head_weight(model).equal(head)
    assert head.shape == (10, 1024)


def test_a_checkpoint_gives_its_backbone_and_its_statistics(tmp_path: Path, weights_file: str) -> None:
    first, data = make_transfer(weights_file, unfreeze_epoch=0, lr=0.01), tiny_images()
    trainer = quiet_trainer()
    first.normalization.mean.fill_(0.0)
    trainer.fit(first, data)
    first.normalization.mean, first.normalization.std = torch.full((1, 1, 1), 0.3), torch.full((1, 1, 1), 0.2)
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    second = LitTransfer(BACKBONE, str(tmp_path / "first.ckpt"), (3, 32, 32), num_outputs=1, task="binary")
    quiet_trainer().fit(second, Colors())
    torch.testing.assert_close(backbone_state(second), backbone_state(first), rtol=0, atol=0)
    assert second.normalization.mean.equal(first.normalization.mean)
    assert second.normalization.std.equal(first.normalization.std)


@pytest.mark.parametrize("key", ["normalization", "standardize"])  # older checkpoints have the second one
def test_a_checkpoint_without_a_run_gives_its_statistics(tmp_path: Path, key: str) -> None:
    model = make_transfer(None)
    model.normalization.set(torch.full((1, 1, 1), 0.3), torch.full((1, 1, 1), 0.2))
    state = {name.replace("normalization.", f"{key}."): value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": dict(model.hparams)}, tmp_path / "old.ckpt")
    other = make_transfer(str(tmp_path / "old.ckpt"))
    other.load_weights()
    torch.testing.assert_close(backbone_state(other), backbone_state(model), rtol=0, atol=0)
    assert other.normalization.mean.equal(model.normalization.mean)
    assert other.normalization.std.equal(model.normalization.std)


@pytest.mark.parametrize("normalize", [True, False])
def test_statistics_of_the_weights_win_over_those_of_the_data(weights_file: str, normalize: bool) -> None:
    model, data = make_transfer(weights_file, normalize=normalize), tiny_images()
    quiet_trainer().fit(model, data)
    prepared = PUBLISHED.transforms()
    expected = [torch.tensor(values).view(3, 1, 1) for values in (prepared.mean, prepared.std)]
    if not normalize:
        expected = [torch.tensor(0.0), torch.tensor(1.0)]
    torch.testing.assert_close([model.normalization.mean, model.normalization.std], expected, rtol=0, atol=0)
    # A gray image is normalized as one of three equal channels.
    x = data.splits["test"].samples.x[:4]
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), model(x.expand(-1, 3, -1, -1)))


def test_without_weights_statistics_are_those_of_the_data() -> None:
    model, data = make_transfer("none"), tiny_images()
    quiet_trainer().fit(model, data)
    assert model.normalization.mean.equal(data.statistics["mean"])
    assert not model.has_weights
    with pytest.raises(ModelError, match=r"^weights='none': there is nothing to load"):
        model.load_weights()


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_that_normalize_images_themselves_do_so_without_weights_too(name: str) -> None:
    assert LitTransfer(name, "none", (3, 75, 75)).net.backbone.transform_input


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--model.backbone resnet81", "--model.backbone resnet81: torchvision has no such network"),
        (
            "--model.weights IMAGENET1K_V7",
            "--model.weights IMAGENET1K_V7: mobilenet_v3_small has IMAGENET1K_V1, DEFAULT",
        ),
        ("--model.weights none --model.backbone vgg11 --data.batch_size 4", "vgg11 cannot take images of 28x28 pixels"),
        ("--model.weights none --model.backbone vit_b_16", "vit_b_16 cannot take images of 28x28 pixels"),
        ("--model.views -1", "--model.views -1: give 0 or more"),
        ("--model.unfreeze_epoch -1", "--model.unfreeze_epoch -1: give 0 or more"),
        ("--model.backbone_lr_factor -0.1", "--model.backbone_lr_factor -0.1: give 0 or more"),
        ("--model.dropout 1", "--model.dropout 1"),
        ("--data ToyDataModule --model.weights none", "takes images of 3 channels, or of 1"),
    ],
)
def test_impossible_options_are_refused_in_one_line(
    mistake: Callable[[str], str], transfer_flags: str, more: str, said: str
) -> None:
    assert said in mistake(f"{transfer_flags} {more}")


# Loaded once


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that weights are read from."""
    found: list[str] = []

    def note(backbone: str, weights: str) -> Weights:
        found.append(weights)
        return read_weights(backbone, weights)

    monkeypatch.setattr("lit_models.modules.backbones.read_weights", note)
    return found


def test_weights_are_loaded_when_fitting_starts_and_once(
    tmp_path: Path, loads: list[str], weights_file: str, learned: State
) -> None:
    model, data = make_transfer(weights_file, unfreeze_epoch=0, lr=0.01), tiny_images()
    quiet_trainer().validate(model, data, verbose=False)
    assert not loads
    trainer = quiet_trainer()
    trainer.fit(model, data)
    assert loads == [weights_file]
    trained = backbone_state(model)
    assert not is_equal_to(trained, learned)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    Path(weights_file).unlink()
    again = LitTransfer.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    torch.testing.assert_close(backbone_state(again), trained, rtol=0, atol=0)
    quiet_trainer().test(again, data, verbose=False)
    quiet_trainer(limit_train_batches=1).fit(again, data)
    quiet_trainer(limit_train_batches=1).fit(model, data)
    assert loads == [weights_file]
    assert not is_equal_to(backbone_state(again), learned)


def test_a_checkpoint_needs_no_file_of_weights(
    run: Run, transfer_flags: str, weights_file: str, loads: list[str]
) -> None:
    cli = run(f"{transfer_flags} --max_epochs 2 --model.unfreeze_epoch 1")
    folder = Path(cli.trainer.default_root_dir) / "checkpoints"
    Path(weights_file).unlink()
    run(f"test {NAMED} --ckpt_path {folder}/best.ckpt")
    run(f"predict {NAMED} --ckpt_path {folder}/best.ckpt")
    resumed = run(f"{NAMED} --ckpt_path {folder}/last.ckpt --max_epochs 3 --logger false")
    assert resumed.trainer.current_epoch == 3
    assert loads == [weights_file]


# Freezing


@pytest.mark.parametrize("views", [0, 1, 2])
@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_a_frozen_backbone_does_not_change(
    weights_file: str, learned: State, views: int, optimizer: OptimizerName
) -> None:
    # Weight decay, too, must not touch it.
    model, watch = make_transfer(weights_file, views=views, optimizer=optimizer, lr=0.1, weight_decay=0.1), ModeWatch()
    head = head_weight(model).clone()
    quiet_trainer(max_epochs=2, callbacks=[watch], val_check_interval=2).fit(model, tiny_images(shift=1))
    assert is_equal_to(backbone_state(model), learned)
    assert watch.modes == [{False}] * 2 * STEPS
    assert not head_weight(model).equal(head)


def test_the_backbone_trains_from_its_unfreeze_epoch_on(weights_file: str, learned: State) -> None:
    model, watch = make_transfer(weights_file, unfreeze_epoch=2, weight_decay=0.1, lr=0.01), ModeWatch()
    trainer = quiet_trainer(max_epochs=4, callbacks=[watch], val_check_interval=2)
    trainer.fit(model, tiny_images())
    assert [is_equal_to(state, learned) for state in watch.states] == [True, True, False, False]
    assert watch.modes == [{False}] * 2 * STEPS + [{True}] * 2 * STEPS
    changed = {name for name, value in watch.states[2].items() if not value.equal(learned[name])}
    assert {"features.0.0.weight", "features.0.1.running_mean", "features.0.1.weight", "classifier.0.weight"} <= changed
    assert watch.sizes["train"] == {4}
    # Freezing begins anew with the next fit.
    again = ModeWatch()
    quiet_trainer(max_epochs=1, callbacks=[again]).fit(model, tiny_images())
    assert again.modes == [{False}] * STEPS


def test_the_backbone_trains_from_the_start_if_it_is_not_frozen(weights_file: str) -> None:
    for model in (
        make_transfer(weights_file, unfreeze_epoch=0),
        make_transfer(None, unfreeze_epoch=3),
        make_transfer("none"),
    ):
        watch = ModeWatch()
        quiet_trainer(callbacks=[watch]).fit(model, tiny_images())
        assert watch.modes == [{True}] * STEPS


def test_a_resumed_run_unfreezes_when_the_uninterrupted_one_does(run: Run, transfer_flags: str) -> None:
    # In the middle of an epoch before, at the end of the last one of these, and in the first in which it learns.
    more = "--max_epochs 4"
    check_resumed(
        run,
        f"{transfer_flags} --model.unfreeze_epoch 2 --model.scheduler one-cycle --model.dropout 0.3 --data.shift 1",
        [4, 6, 8],
        more,
    )


def test_a_run_that_trained_the_head_resumes_with_the_whole_network(
    run: Run, transfer_flags: str, learned: State
) -> None:
    run(f"{transfer_flags} --max_epochs 2 --model.scheduler one-cycle")
    assert is_equal_to(_features_of(saved_state(0)), learned)
    cli = run(f"{NAMED} --ckpt_path {LAST.format(0)} --max_epochs 4 --logger false --model.unfreeze_epoch 0")
    assert not is_equal_to(_features_of(saved_state(1)), learned)
    scheduler = cli.trainer.lr_scheduler_configs[0].scheduler
    assert scheduler.last_epoch == cli.trainer.global_step
    assert len(cli.trainer.optimizers[0].param_groups) == 2
    run(f"{NAMED} --ckpt_path {LAST.format(1)} --max_epochs 5 --logger false --model.unfreeze_epoch null")  # and back


def _features_of(state: State) -> State:
    prefix = "net.backbone."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def test_unfreezing_later_on_several_devices_is_refused(weights_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "world_size", 2)
    for epoch, refused in ((2, True), (0, False), (None, False)):
        model = make_transfer(weights_file, unfreeze_epoch=epoch, normalize=False)
        model._trainer = quiet_trainer()
        if refused:
            with pytest.raises(ModelError, match=r"^unfreeze_epoch=2: several devices"):
                model.setup("fit")
            model.setup("test")
        else:
            model.setup("fit")


# Learning rates


def _callbacks(trainer: Trainer) -> list[Callback]:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it without a type
    return callbacks


@pytest.mark.parametrize("optimizer", sorted({*get_args(OptimizerName)} - {"LBFGS", "Muon", "SparseAdam"}))
def test_the_backbone_trains_at_a_share_of_the_learning_rate(weights_file: str, optimizer: OptimizerName) -> None:
    rates = Rates()
    model = make_transfer(weights_file, unfreeze_epoch=1, optimizer=optimizer, lr=0.01, backbone_lr_factor=0.2)
    trainer = quiet_trainer(max_epochs=2, limit_train_batches=1, callbacks=[rates])
    trainer.fit(model, tiny_images())
    assert type(trainer.optimizers[0]).__name__ == optimizer
    assert rates.rates == [pytest.approx([0.01, 0.002])] * 2
    head, backbone = trainer.optimizers[0].param_groups
    assert sum(p.numel() for p in head["params"]) == 1025 * 10
    assert len(head["params"]) + len(backbone["params"]) == len(list(model.parameters()))
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("scheduler", get_args(SchedulerName))
def test_schedules_keep_the_share_of_the_backbone(weights_file: str, scheduler: SchedulerName) -> None:
    rates = Rates()
    model = make_transfer(weights_file, unfreeze_epoch=1, scheduler=scheduler, lr=0.01)
    quiet_trainer(max_epochs=3, callbacks=[rates]).fit(model, tiny_images())
    assert len(rates.rates) == 3 * STEPS
    assert all(backbone == pytest.approx(head / 10, rel=1e-6) for head, backbone in rates.rates)
    assert (len({head for head, _ in rates.rates}) > 1) == (scheduler in ("one-cycle", "cosine", "exponential"))


@pytest.mark.parametrize(
    "schedule",
    [
        "OneCycleLR --lr_scheduler.max_lr 0.1",
        "CyclicLR --lr_scheduler.base_lr 0.06 --lr_scheduler.max_lr 0.1",
        "StepLR --lr_scheduler.step_size 1",
        "ReduceLROnPlateau --lr_scheduler.monitor val_loss",
    ],
)
def test_schedules_of_the_command_line_keep_the_share_of_the_backbone(
    run: Run, transfer_flags: str, schedule: str
) -> None:
    cli = run(
        f"{transfer_flags} --model.unfreeze_epoch 1 --max_epochs 2 --optimizer SGD --optimizer.lr 0.1 "
        f"--lr_scheduler {schedule} --trainer.callbacks+=tests.helpers.transfer.Rates"
    )
    (noted,) = [callback for callback in _callbacks(cli.trainer) if isinstance(callback, Rates)]
    assert len(noted.rates) == 2 * STEPS
    assert all(backbone == pytest.approx(head / 10, rel=1e-6) for head, backbone in noted.rates)
    assert max(head for head, _ in noted.rates) > 0.05


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"lr": 0.5}, [0.5, 0.05]),
        ({"backbone_lr_factor": 0.5}, [0.01, 0.005]),
        ({"lr": 0.5, "backbone_lr_factor": 1.0}, [0.5]),
        ({"unfreeze_epoch": 5}, [0.01, 0.001]),
        ({"unfreeze_epoch": None}, [0.01]),
        ({}, [0.01, 0.001]),
    ],
    ids=str,
)
@pytest.mark.parametrize("scheduler", ["none", "plateau"])
def test_changed_learning_rates_are_applied_on_resuming(
    tmp_path: Path, weights_file: str, options: dict[str, Any], expected: list[float], scheduler: SchedulerName
) -> None:
    same: dict[str, Any] = {"unfreeze_epoch": 0, "lr": 0.01, "scheduler": scheduler}
    trainer = quiet_trainer(limit_train_batches=1)
    trainer.fit(make_transfer(weights_file, **same), tiny_images())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed = quiet_trainer(limit_train_batches=1, max_epochs=2)
    model = make_transfer(weights_file, **{**same, **options})
    resumed.fit(model, tiny_images(), ckpt_path=str(tmp_path / "last.ckpt"), weights_only=True)
    assert resumed.global_step == 2
    assert learning_rates(resumed) == pytest.approx(expected)


def test_a_lowered_rate_survives_a_resume_with_the_same_settings(tmp_path: Path, weights_file: str) -> None:
    rates: list[list[float]] = []
    for epochs in (2, 3):
        model = make_transfer(weights_file, unfreeze_epoch=0, lr=0.1)
        # It is divided by 10 after every epoch, as no improvement is ever good enough.
        args = {"patience": 0, "threshold": 1.0}
        model.lr_scheduler_config = {"class_path": "torch.optim.lr_scheduler.ReduceLROnPlateau", "init_args": args}
        trainer = quiet_trainer(limit_train_batches=1, max_epochs=epochs)
        path = str(tmp_path / "last.ckpt") if rates else None
        trainer.fit(model, tiny_images(), ckpt_path=path, weights_only=True)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        rates.append(learning_rates(trainer))
    assert rates == [pytest.approx([1e-3, 1e-4]), pytest.approx([1e-4, 1e-5])]


# How images are prepared


@pytest.mark.parametrize(
    ("backbone", "weights", "expected"),
    [
        ("resnet18", "DEFAULT", (224, 256, "bilinear")),
        ("efficientnet_b1", "DEFAULT", (240, 255, "bilinear")),
        ("efficientnet_b1", "IMAGENET1K_V1", (240, 256, "bicubic")),
        ("vit_b_16", "IMAGENET1K_SWAG_E2E_V1", (384, 384, "bicubic")),
        ("inception_v3", "DEFAULT", (299, 342, "bilinear")),
    ],
)
def test_preprocessing_is_that_of_the_weights(backbone: str, weights: str, expected: tuple[int, int, str]) -> None:
    options = LitTransfer.preprocessing(backbone, weights, input_shape=(3, 224, 224), dropout=0.1)
    assert (options["image_size"], options["resize_size"], options["interpolation"]) == expected


@pytest.mark.parametrize("weights", ["none", None])
def test_without_weights_there_is_no_preprocessing(weights: str | None) -> None:
    assert LitTransfer.preprocessing("resnet18", weights) == {}


def test_preprocessing_of_a_checkpoint_is_its_image_size(tmp_path: Path) -> None:
    path = tmp_path / "small.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": {"input_shape": [3, 96, 96]}}, path)
    assert LitTransfer.preprocessing(BACKBONE, str(path)) == {"image_size": 96}
    torch.save({"state_dict": {}, "hyper_parameters": {"in_features": 8}}, path)
    with pytest.raises(ModelError, match="a checkpoint of another model; give one of LitTransfer"):
        LitTransfer.preprocessing(BACKBONE, str(path))


def test_other_weights_are_refused_on_resuming(
    run: Run, mistake: Callable[[str], str], weights_file: str, tmp_path: Path
) -> None:
    model = f"--model LitTransfer --model.backbone {BACKBONE} --model.weights none"
    run(f"{model} --data tests.helpers.tiny.TinyImages --max_epochs 1")
    kept = shutil.move("runs", tmp_path / "kept")  # `mistake` looks for runs left behind
    last = next(Path(kept).rglob("last.ckpt"))
    line = mistake(f"{NAMED} --ckpt_path {last} --max_epochs 2 --model.weights {weights_file}")
    assert "the run of this checkpoint began with none" in line
