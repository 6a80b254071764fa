"""A pretrained backbone with a new head."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args
from urllib.error import URLError

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torchvision import models

from datamodules import DataModule, ImageDataModule, Samples
from datamodules.base import Stage, TaskName
from lit_models import LitConvNet, LitTransfer, ModelError
from lit_models.modules.backbones import Weights, read_weights
from lit_models.optim.factory import OptimizerName, SchedulerName
from tests.helpers.front_door import Run
from tests.helpers.tiny import TinyImages
from tests.helpers.trainers import quiet_trainer
from tests.lit_models.modules.test_backbones import Harmful

BACKBONE = "mobilenet_v3_small"  # batch norms and a dropout, and quick
PUBLISHED = models.MobileNet_V3_Small_Weights.DEFAULT
STEPS = 3  # in an epoch of TinyImages

State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture(scope="session")
def learned() -> State:
    """What a network has learned, its last layer too, in no way as a new one is."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        state: State = models.get_model(BACKBONE, weights=None).state_dict()
        for name, value in state.items():
            if name.endswith("running_mean"):
                value.normal_(std=0.1)
            elif name.endswith(("running_var", "weight")) and value.ndim == 1:
                value.uniform_(0.5, 1.5)
    return state


@pytest.fixture
def file(tmp_path: Path, learned: State) -> str:
    """The same in a file."""
    path = tmp_path / "learned.pth"
    torch.save(learned, path)
    return str(path)


@pytest.fixture
def flags(file: str) -> str:
    """A command line that trains three steps an epoch."""
    return (
        f"--model LitTransfer --model.backbone {BACKBONE} --model.weights {file} "
        "--data tests.helpers.tiny.TinyImages --data.batch_size 16 --logger false"
    )


def _transfer(weights: str | None, **options: Any) -> LitTransfer:
    return LitTransfer(BACKBONE, weights, (1, 28, 28), **options)


def _tiny(**options: Any) -> TinyImages:
    return TinyImages(batch_size=16, **options)


def _backbone(model: LitTransfer) -> State:
    return {name: value.clone() for name, value in model.net.backbone.state_dict().items()}


def _head(model: LitTransfer) -> Tensor:
    return model.net.head.get_parameter("1.weight")


def _is_learned(state: State, learned: State) -> bool:
    return all(value.equal(learned[name]) for name, value in state.items())


class Colors(ImageDataModule):
    """Forty images of 3x32x32, of two classes, or with a value, which their brightness tells.

    Args:
        task: Which of them.
        kwargs: Options of `ImageDataModule` and `DataModule`.
    """

    input_shape = (3, 32, 32)

    def __init__(self, task: TaskName = "binary", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.task: TaskName = task  # type: ignore[assignment]  # a class has one, an object may have another
        self.num_outputs = 2 if task == "multiclass" else 1
        self.class_names = None if task == "regression" else ["dark", "bright"]

    def load(self) -> dict[Stage, Samples]:
        """Make the images."""
        bright = torch.arange(40) % 2
        noise = torch.randint(0, 60, (40, 3, 32, 32), generator=torch.Generator().manual_seed(0))
        x = (noise + 190 * bright[:, None, None, None]).to(torch.uint8)
        return {"train": Samples(x, bright if self.class_names else 100 + 5.0 * bright)}


# Loading


def _in_hub(state: State) -> None:
    place = Path(torch.hub.get_dir()) / "checkpoints" / PUBLISHED.url.rpartition("/")[2]
    place.parent.mkdir(parents=True)
    torch.save(state, place)


@pytest.mark.parametrize(
    "source",
    ["a.pth", "a.pt", "a.bin", "a.safetensors", "wrapped.pth", "module.pth", "DEFAULT", "IMAGENET1K_V1", "full name"],
)
def test_weights_are_those_of_the_file_and_the_head_is_new(tmp_path: Path, learned: State, source: str) -> None:
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
    model = _transfer(weights)
    head = _head(model).clone()
    assert not _is_learned(_backbone(model), learned)
    model.load_weights()
    found = _backbone(model)
    assert len(found) == len(learned) - 2
    torch.testing.assert_close(found, {name: learned[name] for name in found}, rtol=0, atol=0)
    assert _head(model).equal(head)
    assert head.shape == (10, 1024)


def test_a_checkpoint_gives_its_backbone_and_its_statistics(tmp_path: Path, file: str) -> None:
    first, data = _transfer(file, unfreeze_epoch=0, lr=0.01), _tiny()
    trainer = quiet_trainer()
    first.normalization.mean.fill_(0.0)
    trainer.fit(first, data)
    first.normalization.mean, first.normalization.std = torch.full((1, 1, 1), 0.3), torch.full((1, 1, 1), 0.2)
    trainer.save_checkpoint(tmp_path / "first.ckpt")
    second = LitTransfer(BACKBONE, str(tmp_path / "first.ckpt"), (3, 32, 32), num_outputs=1, task="binary")
    quiet_trainer().fit(second, Colors())
    torch.testing.assert_close(_backbone(second), _backbone(first), rtol=0, atol=0)
    assert second.normalization.mean.equal(first.normalization.mean)
    assert second.normalization.std.equal(first.normalization.std)


@pytest.mark.parametrize("normalize", [True, False])
def test_statistics_of_the_weights_win_over_those_of_the_data(file: str, normalize: bool) -> None:
    model, data = _transfer(file, normalize=normalize), _tiny()
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


def test_without_weights_the_data_have_their_own() -> None:
    model, data = _transfer("none"), _tiny()
    quiet_trainer().fit(model, data)
    assert model.normalization.mean.equal(data.statistics["mean"])
    assert not model.has_weights
    with pytest.raises(ModelError, match=r"--model\.weights none"):
        model.load_weights()


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_what_turns_images_for_its_weights_does_so_in_a_checkpoint_too(name: str) -> None:
    assert LitTransfer(name, "none", (3, 75, 75)).net.backbone.transform_input


def _bad(tmp_path: Path, learned: State, what: str) -> str:
    path = tmp_path / f"{what}.pth"
    if what == "text":
        path.write_text("these are not the weights you are looking for\n")
    elif what == "empty":
        path.touch()
    elif what == "truncated":
        torch.save(learned, path)
        path.write_bytes(path.read_bytes()[:100_000])
    elif what == "list":
        torch.save([1, 2], path)
    elif what == "numbers":
        torch.save(dict.fromkeys(learned, 1), path)
    elif what == "nested":
        torch.save({"state_dict": {"state_dict": [1]}}, path)
    elif what == "no-names":
        torch.save(dict(enumerate(learned.values())), path)
    elif what == "no-dictionary-in-it":
        torch.save({"state_dict": [1, 2]}, path)
    elif what == "module":
        torch.save(models.get_model(BACKBONE, weights=None), path)
    elif what == "harmful":
        torch.save({**learned, "harm": Harmful()}, path)
    elif what == "resnet18":
        torch.save(models.get_model("resnet18", weights=None).state_dict(), path)
    elif what == "mobilenet_v3_large":  # of which many tensors have the same names
        torch.save(models.get_model(what, weights=None).state_dict(), path)
    elif what == "nan":
        torch.save({**learned, "classifier.0.weight": learned["classifier.0.weight"] * float("nan")}, path)
    elif what == "folder":
        path.mkdir()
    elif what == "text-safetensors":
        path = tmp_path / "text.safetensors"
        path.write_text("no")
    elif what == "convnet":
        path = tmp_path / "convnet.ckpt"
        trainer = quiet_trainer()
        trainer.fit(LitConvNet(channels=[4]), _tiny())
        trainer.save_checkpoint(path)
    return str(path)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("missing", "there is no such file"),
        ("text", "no weights can be read from"),
        ("harmful", "no weights can be read from"),
        ("no-names", f"these are not the weights of {BACKBONE}"),
        ("convnet", "a checkpoint of another model; give one of LitTransfer"),
    ],
)
def test_what_holds_no_weights_is_refused_in_one_line(
    tmp_path: Path, learned: State, mistake: Callable[[str], str], what: str, said: str
) -> None:
    path = _bad(tmp_path, learned, what)
    line = mistake(
        f"--model LitTransfer --model.backbone {BACKBONE} --model.weights {path} --data tests.helpers.tiny.TinyImages "
        "--max_epochs 1"
    )
    assert said in line
    assert f"--model.weights {path}" in line
    assert "\033" not in line  # no colors
    assert len(line) < 600
    assert not list(Path().iterdir()), "nothing is left behind"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("empty", "no weights can be read from"),
        ("truncated", "no weights can be read from"),
        ("list", "no weights can be read from"),
        ("folder", "there is no such file"),
        ("module", "no weights can be read from"),
        ("no-dictionary-in-it", f"these are not the weights of {BACKBONE}"),
        ("text-safetensors", "no weights can be read from"),
        ("numbers", f"these are not the weights of {BACKBONE}"),
        ("nested", f"these are not the weights of {BACKBONE}"),
        ("resnet18", f"these are not the weights of {BACKBONE}"),
        ("mobilenet_v3_large", f"these are not the weights of {BACKBONE}"),
        ("nan", "classifier.0.weight holds what is no number"),
    ],
)
def test_so_it_is_in_a_notebook(tmp_path: Path, learned: State, what: str, said: str) -> None:
    path = _bad(tmp_path, learned, what)
    model = _transfer(path)
    with pytest.raises(ModelError, match=f"^--model.weights {path}") as refused:
        model.load_weights()
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not model.has_weights


def test_a_missing_download_says_where_to_put_it(
    mistake: Callable[[str], str], run: Run, monkeypatch: pytest.MonkeyPatch, learned: State, file: str
) -> None:
    def offline(*args: object, **options: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torch.hub.urlopen", offline)
    line = f"--model LitTransfer --model.backbone {BACKBONE} --data tests.helpers.tiny.TinyImages --fast_dev_run true"
    said = mistake(line)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    assert f"--model.weights DEFAULT: {PUBLISHED.url} cannot be downloaded" in said
    assert f"put that file into {folder}" in said
    assert not list(Path().iterdir())
    assert not list(folder.iterdir())
    torch.save(learned, folder / PUBLISHED.url.rpartition("/")[2])
    model = run(line).model
    assert isinstance(model, LitTransfer)
    assert _is_learned(_backbone(model), learned)


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
    mistake: Callable[[str], str], flags: str, more: str, said: str
) -> None:
    assert said in mistake(f"{flags} {more}")


# Loaded once


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that weights are read from."""
    found: list[str] = []

    def note(backbone: str, weights: str) -> Weights:
        found.append(weights)
        return read_weights(backbone, weights)

    monkeypatch.setattr("lit_models.transfer.read_weights", note)
    return found


def test_weights_are_loaded_when_fitting_starts_and_once(
    tmp_path: Path, loads: list[str], file: str, learned: State
) -> None:
    model, data = _transfer(file, unfreeze_epoch=0, lr=0.01), _tiny()
    quiet_trainer().validate(model, data, verbose=False)
    assert not loads
    trainer = quiet_trainer()
    trainer.fit(model, data)
    assert loads == [file]
    trained = _backbone(model)
    assert not _is_learned(trained, learned)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    Path(file).unlink()
    again = LitTransfer.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    torch.testing.assert_close(_backbone(again), trained, rtol=0, atol=0)
    quiet_trainer().test(again, data, verbose=False)
    quiet_trainer(limit_train_batches=1).fit(again, data)
    quiet_trainer(limit_train_batches=1).fit(model, data)
    assert loads == [file]
    assert not _is_learned(_backbone(again), learned)


def test_a_checkpoint_needs_no_file_of_weights(run: Run, flags: str, file: str, loads: list[str]) -> None:
    cli = run(f"{flags} --max_epochs 2 --model.unfreeze_epoch 1")
    folder = Path(cli.trainer.default_root_dir) / "checkpoints"
    Path(file).unlink()
    run(f"test --ckpt_path {folder}/best.ckpt")
    run(f"predict --ckpt_path {folder}/best.ckpt")
    resumed = run(f"--ckpt_path {folder}/last.ckpt --max_epochs 3 --logger false")
    assert resumed.trainer.current_epoch == 3
    assert loads == [file]


# Freezing


class Watch(Callback):
    """Notes what a backbone is at the end of each epoch, and in which mode its layers are in each step."""

    def __init__(self) -> None:
        self.states: list[State] = []
        self.modes: list[set[bool]] = []
        self.sizes: dict[str, set[int]] = {}

    def _look(self, stage: str, batch: Any) -> None:  # noqa: ANN401  # a batch of any kind
        x = batch if isinstance(batch, Tensor) else batch[0]
        self.sizes.setdefault(stage, set()).add(x.ndim)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:  # noqa: ANN401
        """Look at the modes of all layers."""
        self._look("train", batch)
        if isinstance(pl_module, LitTransfer):
            assert pl_module.net.head.training
            self.modes.append({layer.training for layer in pl_module.net.backbone.modules()})

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:  # noqa: ANN401
        """Look at a batch."""
        self._look("val", batch)

    def on_test_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:  # noqa: ANN401
        """Look at a batch."""
        self._look("test", batch)

    def on_predict_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *_: Any) -> None:  # noqa: ANN401
        """Look at a batch."""
        self._look("predict", batch)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what was learned so far."""
        if isinstance(pl_module, LitTransfer):
            self.states.append(_backbone(pl_module))


@pytest.mark.parametrize("views", [0, 1, 2])
@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_a_frozen_backbone_stays_what_it_was(file: str, learned: State, views: int, optimizer: OptimizerName) -> None:
    # Weight decay, too, must not touch it.
    model, watch = _transfer(file, views=views, optimizer=optimizer, lr=0.1, weight_decay=0.1), Watch()
    head = _head(model).clone()
    quiet_trainer(max_epochs=2, callbacks=[watch], val_check_interval=2).fit(model, _tiny(shift=1))
    assert _is_learned(_backbone(model), learned)
    assert watch.modes == [{False}] * 2 * STEPS
    assert not _head(model).equal(head)


def test_it_learns_from_the_epoch_on_in_which_it_is_unfrozen(file: str, learned: State) -> None:
    model, watch = _transfer(file, unfreeze_epoch=2, weight_decay=0.1, lr=0.01), Watch()
    trainer = quiet_trainer(max_epochs=4, callbacks=[watch], val_check_interval=2)
    trainer.fit(model, _tiny())
    assert [_is_learned(state, learned) for state in watch.states] == [True, True, False, False]
    assert watch.modes == [{False}] * 2 * STEPS + [{True}] * 2 * STEPS
    changed = {name for name, value in watch.states[2].items() if not value.equal(learned[name])}
    assert {"features.0.0.weight", "features.0.1.running_mean", "features.0.1.weight", "classifier.0.weight"} <= changed
    assert watch.sizes["train"] == {4}
    # Freezing begins anew with the next fit.
    again = Watch()
    quiet_trainer(max_epochs=1, callbacks=[again]).fit(model, _tiny())
    assert again.modes == [{False}] * STEPS


def test_it_learns_from_the_start_if_it_is_never_frozen(file: str) -> None:
    for model in (_transfer(file, unfreeze_epoch=0), _transfer(None, unfreeze_epoch=3), _transfer("none")):
        watch = Watch()
        quiet_trainer(callbacks=[watch]).fit(model, _tiny())
        assert watch.modes == [{True}] * STEPS


LAST = "runs/LitTransfer-TinyImages/version_{}/checkpoints/last.ckpt"


def _saved(version: int) -> State:
    state: State = torch.load(LAST.format(version), weights_only=True)["state_dict"]
    return state


def _interrupted(run: Run, flags: str, step: int) -> None:
    with pytest.raises(SystemExit):
        run(f"{flags} --trainer.callbacks+=tests.helpers.tiny.Interrupt --trainer.callbacks.step {step}")


def _resumed_equals(run: Run, flags: str, steps: list[int], more: str = "") -> None:
    run(f"{flags} {more}")
    for version, step in enumerate(steps):
        _interrupted(run, f"{flags} {more}", step)
        assert torch.load(LAST.format(2 * version + 1), weights_only=True)["global_step"] == step
        run(f"--ckpt_path {LAST.format(2 * version + 1)} {more} --logger false")
        torch.testing.assert_close(_saved(2 * version + 2), _saved(0), rtol=0, atol=0)


def test_a_resumed_run_unfreezes_when_the_uninterrupted_one_does(run: Run, flags: str) -> None:
    # In the middle of an epoch before, at the end of the last one of these, and in the first in which it learns.
    more = "--max_epochs 4"
    _resumed_equals(
        run,
        f"{flags} --model.unfreeze_epoch 2 --model.scheduler one-cycle --model.dropout 0.3 --data.shift 1",
        [4, 6, 8],
        more,
    )


def test_a_run_that_trained_the_head_goes_on_with_the_whole(run: Run, flags: str, learned: State) -> None:
    run(f"{flags} --max_epochs 2 --model.scheduler one-cycle")
    assert _is_learned(_features_of(_saved(0)), learned)
    cli = run(f"--ckpt_path {LAST.format(0)} --max_epochs 4 --logger false --model.unfreeze_epoch 0")
    assert not _is_learned(_features_of(_saved(1)), learned)
    scheduler = cli.trainer.lr_scheduler_configs[0].scheduler
    assert scheduler.last_epoch == cli.trainer.global_step
    assert len(cli.trainer.optimizers[0].param_groups) == 2
    run(f"--ckpt_path {LAST.format(1)} --max_epochs 5 --logger false --model.unfreeze_epoch null")  # and back


def _features_of(state: State) -> State:
    prefix = "net.backbone."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def test_several_devices_that_unfreeze_later_are_refused(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "world_size", 2)
    for epoch, refused in ((2, True), (0, False), (None, False)):
        model = _transfer(file, unfreeze_epoch=epoch, normalize=False)
        model._trainer = quiet_trainer()
        if refused:
            with pytest.raises(ModelError, match=r"^--model\.unfreeze_epoch 2: several devices"):
                model.setup("fit")
            model.setup("test")
        else:
            model.setup("fit")


# Learning rates


def _callbacks(trainer: Trainer) -> list[Callback]:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it without a type
    return callbacks


def _rates(trainer: Trainer) -> list[float]:
    return [group["lr"] for group in trainer.optimizers[0].param_groups]


class Rates(Callback):
    """Notes the learning rates of every step."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []

    def on_before_optimizer_step(self, trainer: Trainer, *_: Any) -> None:
        """Note them."""
        self.rates.append(_rates(trainer))


@pytest.mark.parametrize("optimizer", sorted({*get_args(OptimizerName)} - {"LBFGS", "Muon", "SparseAdam"}))
def test_the_backbone_learns_at_a_share_of_the_rate(file: str, optimizer: OptimizerName) -> None:
    rates = Rates()
    model = _transfer(file, unfreeze_epoch=1, optimizer=optimizer, lr=0.01, backbone_lr_factor=0.2)
    trainer = quiet_trainer(max_epochs=2, limit_train_batches=1, callbacks=[rates])
    trainer.fit(model, _tiny())
    assert type(trainer.optimizers[0]).__name__ == optimizer
    assert rates.rates == [pytest.approx([0.01, 0.002])] * 2
    head, backbone = trainer.optimizers[0].param_groups
    assert sum(p.numel() for p in head["params"]) == 1025 * 10
    assert len(head["params"]) + len(backbone["params"]) == len(list(model.parameters()))
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("scheduler", get_args(SchedulerName))
def test_a_schedule_keeps_the_share(file: str, scheduler: SchedulerName) -> None:
    rates = Rates()
    model = _transfer(file, unfreeze_epoch=1, scheduler=scheduler, lr=0.01)
    quiet_trainer(max_epochs=3, callbacks=[rates]).fit(model, _tiny())
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
def test_so_does_one_of_the_command_line(run: Run, flags: str, schedule: str) -> None:
    cli = run(
        f"{flags} --model.unfreeze_epoch 1 --max_epochs 2 --optimizer SGD --optimizer.lr 0.1 --lr_scheduler {schedule} "
        "--trainer.callbacks+=tests.lit_models.test_transfer.Rates"
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
def test_changed_rates_are_applied_on_resuming(
    tmp_path: Path, file: str, options: dict[str, Any], expected: list[float], scheduler: SchedulerName
) -> None:
    same: dict[str, Any] = {"unfreeze_epoch": 0, "lr": 0.01, "scheduler": scheduler}
    trainer = quiet_trainer(limit_train_batches=1)
    trainer.fit(_transfer(file, **same), _tiny())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed = quiet_trainer(limit_train_batches=1, max_epochs=2)
    model = _transfer(file, **{**same, **options})
    resumed.fit(model, _tiny(), ckpt_path=str(tmp_path / "last.ckpt"), weights_only=True)
    assert resumed.global_step == 2
    assert _rates(resumed) == pytest.approx(expected)


def test_a_lowered_rate_survives_a_resume_with_the_same_settings(tmp_path: Path, file: str) -> None:
    rates: list[list[float]] = []
    for epochs in (2, 3):
        model = _transfer(file, unfreeze_epoch=0, lr=0.1)
        # It is divided by 10 after every epoch, as no improvement is ever good enough.
        args = {"patience": 0, "threshold": 1.0}
        model.lr_scheduler_config = {"class_path": "torch.optim.lr_scheduler.ReduceLROnPlateau", "init_args": args}
        trainer = quiet_trainer(limit_train_batches=1, max_epochs=epochs)
        path = str(tmp_path / "last.ckpt") if rates else None
        trainer.fit(model, _tiny(), ckpt_path=path, weights_only=True)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        rates.append(_rates(trainer))
    assert rates == [pytest.approx([1e-3, 1e-4]), pytest.approx([1e-4, 1e-5])]


# Features that are computed once


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
    return measured.epochs, _head(model).detach()


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
def test_features_give_what_images_give(
    file: str, learned: State, extracted: list[int], options: dict[str, Any], trainer: dict[str, Any]
) -> None:
    results = []
    for views in (0, 1, 4):
        torch.manual_seed(0)
        results.append(_measure(_transfer(file, views=views, dropout=0.3), _tiny(**options), **trainer))
        if not views:
            assert not extracted
    data = _tiny(**options)
    splits = data.splits
    held_out = splits["val"].size if "val" in splits else 0
    assert sum(extracted) == 2 * (splits["train"].size + held_out)  # one view is enough where nothing is random
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_so_they_do_in_every_task(file: str, task: TaskName) -> None:
    results: list[dict[str, float]] = []
    for views in (0, 1):
        torch.manual_seed(0)
        outputs = 2 if task == "multiclass" else 1
        model = LitTransfer(BACKBONE, file, (3, 32, 32), views=views, task=task, num_outputs=outputs, lr=0.01)
        data = Colors(task, batch_size=8)
        trainer = quiet_trainer(max_epochs=4)
        trainer.fit(model, data)
        measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
        results.append({**measured, **trainer.test(model, data, verbose=False)[0]})
    assert results[0].keys() == results[1].keys()
    for name, value in results[0].items():
        assert results[1][name] == pytest.approx(value, rel=1e-4, abs=1e-5)


def test_after_the_fit_there_are_images_again(file: str, extracted: list[int]) -> None:
    watch, model, data = Watch(), _transfer(file), _tiny(shift=1)
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
def test_so_there_are_after_a_fit_that_broke_off(file: str, then: str) -> None:
    model, data, watch = _transfer(file), _tiny(shift=1), Watch()
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
def test_a_look_at_a_few_batches_computes_no_features_of_all(
    file: str, extracted: list[int], options: dict[str, Any]
) -> None:
    quiet_trainer(**options).fit(_transfer(file), _tiny())
    assert not extracted


@pytest.mark.parametrize("option", [{"unfreeze_epoch": 1}, {"unfreeze_epoch": 0}, {"views": 0}], ids=str)
def test_nor_does_what_changes_or_need_not_be_kept(file: str, extracted: list[int], option: dict[str, Any]) -> None:
    quiet_trainer().fit(_transfer(file, **option), _tiny())
    quiet_trainer().fit(_transfer(None), _tiny())
    assert not extracted


def test_without_validation_features_are_computed_all_the_same(file: str, extracted: list[int]) -> None:
    data = _tiny(val_fraction=0)
    quiet_trainer().fit(_transfer(file), data)
    assert sum(extracted) == data.splits["train"].size


def test_views_are_different_draws_and_a_run_repeats_them(file: str) -> None:
    class Keep(LitTransfer):
        def on_train_start(self) -> None:
            super().on_train_start()
            split = self.trainer.datamodule._features["train"]  # type: ignore[attr-defined]
            kept.append(split.samples.x.view(3, -1, 1024))

    kept: list[Tensor] = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = Keep(BACKBONE, file, (1, 28, 28), views=3)
        quiet_trainer(max_epochs=3).fit(model, _tiny(shift=2))
    first, second, third = kept[0]
    assert not first.equal(second)
    assert not second.equal(third)
    assert kept[0].equal(kept[1])  # whatever else was drawn


def test_no_more_views_are_computed_than_there_are_epochs(file: str) -> None:
    class Keep(LitTransfer):
        def on_train_start(self) -> None:
            super().on_train_start()
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            kept.append(len(data._features["train"].samples) // data.splits["train"].size)

    kept: list[int] = []
    for epochs in (1, 2, 9):
        quiet_trainer(max_epochs=epochs).fit(Keep(BACKBONE, file, (1, 28, 28), views=4), _tiny(shift=2))
    assert kept == [1, 2, 4]


def test_a_resumed_run_has_the_same_views(run: Run, flags: str) -> None:
    more = "--max_epochs 4"
    _resumed_equals(
        run, f"{flags} --model.scheduler cosine --model.views 3 --model.dropout 0.3 --data.shift 2", [4, 6], more
    )


def test_plain_loaders_have_no_features_to_keep(file: str, learned: State, extracted: list[int]) -> None:
    samples = _tiny().load()["train"]
    loader: DataLoader[Any] = DataLoader(TensorDataset(samples.x / 255, samples.y), batch_size=20)
    model = _transfer(file)
    trainer = quiet_trainer()
    trainer.fit(model, loader, loader)
    trainer.test(model, loader, verbose=False)
    assert trainer.callback_metrics["test_loss"].isfinite()
    assert _is_learned(_backbone(model), learned)
    assert not extracted


def test_features_and_images_get_the_same_scores(file: str) -> None:
    model = LitTransfer(BACKBONE, file, (3, 32, 32), task="regression", num_outputs=2).eval()
    model.load_weights()
    model.task.normalization.set(torch.tensor([3.0, 4.0]), torch.tensor([5.0, 6.0]))  # type: ignore[union-attr, operator]
    x = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        features = model.extract(x)
        assert features.shape == (4, 1024)
        torch.testing.assert_close(model(features), model(x))
        torch.testing.assert_close(model(x / 255), model(x))


def test_the_best_checkpoint_is_tested_on_images(run: Run, flags: str) -> None:
    cli = run(f"{flags} --logger true --max_epochs 3 --model.lr 0.01 --data.shift 1 --early_stopping.patience 1")
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


def test_precision_of_half_the_bits_is_kept_out_of_the_features(file: str) -> None:
    model = _transfer(file)
    trainer = quiet_trainer(precision="bf16-mixed")
    trainer.fit(model, _tiny())
    assert trainer.callback_metrics["train_loss"].isfinite()
    for precision in ("64-true", "bf16-true"):
        quiet_trainer(precision=precision).fit(_transfer(file), _tiny())


def test_compiled_it_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_by = torch.compile
    monkeypatch.setattr(torch, "compile", lambda call, **_: compile_by(call, backend="eager"))
    results = []
    for asked in (False, True):
        torch.manual_seed(0)
        model = LitTransfer("squeezenet1_1", "none", (1, 28, 28), compile=asked)
        quiet_trainer(max_epochs=2, limit_train_batches=2).fit(model, _tiny())
        results.append(model.state_dict())
    torch.testing.assert_close(results[1], results[0], rtol=1e-3, atol=1e-4)


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
def test_the_preparation_of_the_weights_is_known(backbone: str, weights: str, expected: tuple[int, int, str]) -> None:
    options = LitTransfer.preprocessing(backbone, weights, input_shape=(3, 224, 224), dropout=0.1)
    assert (options["image_size"], options["resize_size"], options["interpolation"]) == expected


@pytest.mark.parametrize("weights", ["none", None])
def test_without_weights_there_is_none(weights: str | None) -> None:
    assert LitTransfer.preprocessing("resnet18", weights) == {}


def test_a_checkpoint_says_which_size_it_was_trained_at(tmp_path: Path) -> None:
    path = tmp_path / "small.ckpt"
    torch.save({"state_dict": {}, "hyper_parameters": {"input_shape": [3, 96, 96]}}, path)
    assert LitTransfer.preprocessing(BACKBONE, str(path)) == {"image_size": 96}
    torch.save({"state_dict": {}, "hyper_parameters": {"in_features": 8}}, path)
    with pytest.raises(ModelError, match="a checkpoint of another model; give one of LitTransfer"):
        LitTransfer.preprocessing(BACKBONE, str(path))


def test_other_weights_are_refused_where_a_run_goes_on(
    run: Run, mistake: Callable[[str], str], file: str, tmp_path: Path
) -> None:
    model = f"--model LitTransfer --model.backbone {BACKBONE} --model.weights none"
    run(f"{model} --data tests.helpers.tiny.TinyImages --max_epochs 1")
    kept = shutil.move("runs", tmp_path / "kept")  # `mistake` looks for runs left behind
    line = mistake(f"--ckpt_path {next(Path(kept).rglob('last.ckpt'))} --max_epochs 2 --model.weights {file}")
    assert "the run of this checkpoint began with none" in line


@pytest.mark.parametrize("scheduler", get_args(SchedulerName))
def test_the_head_learns_from_features_under_every_schedule(file: str, scheduler: str) -> None:
    class Keep(LitTransfer):
        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            seen.append(batch[0].ndim)
            return super().training_step(batch, batch_idx)

    seen: list[int] = []
    quiet_trainer().fit(Keep(BACKBONE, file, (1, 28, 28), scheduler=scheduler), _tiny(shift=2))
    assert set(seen) == {2}  # and not the images, (B, C, H, W)
