"""Small pretrained networks for the tests of transfer learning, and callbacks that watch them learn."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torchvision import models

from datamodules import ImageDataModule, Samples
from datamodules.base import Stage, TaskName
from lit_models import LitTransfer
from tests.helpers.front_door import Run
from tests.helpers.tiny import TinyImages

BACKBONE = "mobilenet_v3_small"  # small and fast, with batch norms and a dropout
PUBLISHED = models.MobileNet_V3_Small_Weights.DEFAULT
STEPS = 3  # in an epoch of TinyImages
LAST = "runs/LitTransfer-TinyImages/version_{}/checkpoints/last.ckpt"
NAMED = "--data tests.helpers.tiny.TinyImages"  # nothing else that a checkpoint names is imported

State = dict[str, Tensor]


def make_transfer(weights: str | None, **options: Any) -> LitTransfer:
    """Return a model for `TinyImages`."""
    return LitTransfer(BACKBONE, weights, (1, 28, 28), **options)


def tiny_images(**options: Any) -> TinyImages:
    """Return `TinyImages` of `STEPS` batches."""
    return TinyImages(batch_size=16, **options)


def backbone_state(model: LitTransfer) -> State:
    """Return a copy of the backbone's state."""
    return {name: value.clone() for name, value in model.net.backbone.state_dict().items()}


def head_weight(model: LitTransfer) -> Tensor:
    """Return the weight of the head."""
    return model.net.head.get_parameter("1.weight")


def is_equal_to(state: State, learned: State) -> bool:
    """Return whether all tensors of a state equal those of the pretrained one."""
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
        """Return the images."""
        bright = torch.arange(40) % 2
        noise = torch.randint(0, 60, (40, 3, 32, 32), generator=torch.Generator().manual_seed(0))
        x = (noise + 190 * bright[:, None, None, None]).to(torch.uint8)
        return {"train": Samples(x, bright if self.class_names else 100 + 5.0 * bright)}


class ModeWatch(Callback):
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
            self.states.append(backbone_state(pl_module))


def learning_rates(trainer: Trainer) -> list[float]:
    """Return the learning rate of each parameter group."""
    return [group["lr"] for group in trainer.optimizers[0].param_groups]


class Rates(Callback):
    """Notes the learning rates of every step."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []

    def on_before_optimizer_step(self, trainer: Trainer, *_: Any) -> None:
        """Note them."""
        self.rates.append(learning_rates(trainer))


LAST = "runs/LitTransfer-TinyImages/version_{}/checkpoints/last.ckpt"
NAMED = "--data tests.helpers.tiny.TinyImages"  # nothing else that a checkpoint names is imported


def saved_state(version: int) -> State:
    state: State = torch.load(LAST.format(version), weights_only=True)["state_dict"]
    return state


def interrupt(run: Run, transfer_flags: str, step: int) -> None:
    with pytest.raises(SystemExit):
        run(f"{transfer_flags} --trainer.callbacks+=tests.helpers.tiny.Interrupt --trainer.callbacks.step {step}")


def check_resumed(run: Run, transfer_flags: str, steps: list[int], more: str = "") -> None:
    run(f"{transfer_flags} {more}")
    for version, step in enumerate(steps):
        interrupt(run, f"{transfer_flags} {more}", step)
        assert torch.load(LAST.format(2 * version + 1), weights_only=True)["global_step"] == step
        run(f"{NAMED} --ckpt_path {LAST.format(2 * version + 1)} {more} --logger false")
        torch.testing.assert_close(saved_state(2 * version + 2), saved_state(0), rtol=0, atol=0)


class Harmful:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the call that makes a file."""
        return (Path("harm").touch, ())
