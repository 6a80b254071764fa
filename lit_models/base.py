"""What every model shares: its steps, its logging, its optimizer, and the statistics it normalizes by."""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from torchmetrics import MetricCollection

from lit_models.errors import ModelError
from lit_models.modules.init import InitName, initialize_weights
from lit_models.modules.normalization import Normalization, rename_old_keys
from lit_models.optim.configure import OptimizerMixin
from lit_models.optim.factory import OptimizerName, SchedulerName
from lit_models.tasks import IGNORED, Reduction, Regression, TaskName, make_task

Batch = tuple[Tensor, Tensor]


class MeanLoss:
    """Mean loss over samples, whatever the sizes of their batches, at the cost of one addition a step.

    Not torchmetrics' `MeanMetric`: that one looks for NaN in every step, which a GPU must wait for, and with the look
    disabled (1.9) it ignores the weights. A loss that is no number must be seen as such; it stops the training.
    """

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.samples: int | Tensor = 0
        self.last = torch.tensor(math.nan)  # of the latest batch
        self.is_closed = False

    def update(self, loss: Tensor, size: int | Tensor) -> None:
        """Add the mean loss of a batch of `size` samples, or of weights that add up to it, unless this is closed."""
        if self.is_closed:
            return
        self.last = loss
        # In more digits than a loss has: in bfloat16, what is added to many batches would be lost.
        total = loss.to(torch.float32 if loss.device.type == "mps" else torch.float64) * size
        self.total = total if self.total is None else self.total.add_(total)
        self.samples = self.samples + (size.to(total.dtype) if isinstance(size, Tensor) else size)

    def take(self, device: torch.device) -> Tensor:
        """Give the sum over all samples since the last time, and their number: shape `(2,)`."""
        total = torch.zeros((), device=device) if self.total is None else self.total
        self.total, samples, self.samples = None, self.samples, 0
        return torch.stack([total, torch.as_tensor(samples, dtype=total.dtype, device=device)])


class LitModule(OptimizerMixin):
    """Base of all models. A leaf sets `self.net`, a plain `nn.Module` from normalized inputs to scores.

    Inputs are raw: uint8 images, which are scaled to [0, 1] here, or floating-point numbers. The statistics by which
    they are normalized are taken over from the data module when fitting starts, and are in every checkpoint.

    Args:
        task: What kind of target is learned: `regression`, `binary`, `multiclass`, or `next_token` of a text.
        num_outputs: Scores for each sample: classes, values, or 1 for a binary task.
        loss: A loss of `torch.nn` by name that fits the task; by default mean squared error or cross-entropy.
        reduction: Whether a step descends along the mean or the sum of its samples' losses. What is logged is the mean.
        label_smoothing: Share of a label that is spread over all classes.
        class_weights: How much the samples of each class count; in a binary task two numbers, of classes 0 and 1.
        ignore_index: The label of samples that count in no loss and no metric, of a multiclass task.
        normalize: Whether to take over the data module's statistics.
        optimizer: An optimizer of `torch.optim` by name. Muon and SparseAdam train what they can, and AdamW the rest;
            LBFGS, with a line search, evaluates a batch several times in each step, and wants large ones.
        lr: Learning rate; 1 suits LBFGS.
        momentum: Momentum, of those optimizers that have it (SGD, RMSprop and Muon).
        weight_decay: Weight decay of all but vectors, as biases are: decoupled in AdamW, which without it is Adam, and
            in Muon; an L2 penalty elsewhere. LBFGS, Rprop and SparseAdam have none.
        layer_decay: The learning rate of each layer, as a share of that of the next one towards the output.
        scheduler: Course of the learning rate: `none` (constant), `one-cycle`, `cosine`, `step` (a tenth every 10
            epochs), `exponential` (0.95 of it every epoch) or `plateau`.
        warmup_steps: In how many steps the learning rate rises before the `cosine` begins.
        init: What the weights of the network begin as; see `initialize_weights`. By default as its layers have it.
        compile: Whether to compile the network with `torch.compile`, which pays on long runs only.
    """

    net: nn.Module

    def __init__(
        self,
        task: TaskName = "multiclass",
        num_outputs: int = 10,
        loss: str | None = None,
        reduction: Reduction = "mean",
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        ignore_index: int = IGNORED,
        normalize: bool = True,
        optimizer: OptimizerName = "AdamW",
        lr: float = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        layer_decay: float = 1.0,
        scheduler: SchedulerName = "none",
        warmup_steps: int = 0,
        init: InitName | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()  # once, for every leaf: Lightning collects the arguments of all their constructors
        for name in ("lr", "momentum", "weight_decay", "warmup_steps"):
            if self.hparams[name] < 0:
                raise ModelError(f"--model.{name} {self.hparams[name]}: give 0 or more.")
        if not 0 < layer_decay <= 1:
            raise ModelError(f"--model.layer_decay {layer_decay}: give a share above 0, up to 1.")
        if class_weights is not None:  # an array or a tensor would be no primitive
            self.hparams["class_weights"] = [float(weight) for weight in class_weights]
        self.num_outputs = num_outputs
        self.task = make_task(task, num_outputs, loss, reduction, label_smoothing, class_weights, ignore_index)
        self.normalization = Normalization()
        self.register_load_state_dict_pre_hook(rename_old_keys)  # type: ignore[no-untyped-call]  # torch's
        self.train_loss, self.val_loss, self.test_loss = MeanLoss(), MeanLoss(), MeanLoss()
        metrics = self.task.metrics()
        self.val_metrics = metrics.clone(prefix="val_")
        self.test_metrics = metrics.clone(prefix="test_")
        # Sum and count of the epoch that a checkpoint broke off.
        self._epoch_loss: tuple[Tensor, int | Tensor] | None = None

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401  # torch's signature
        """Initialize the network by the scheme that was asked for, if any, as soon as a leaf has made it."""
        super().__setattr__(name, value)
        if name == "net" and self.hparams["init"] is not None:
            initialize_weights(value, self.hparams["init"])

    def forward(self, x: Tensor) -> Tensor:
        """Compute scores from raw inputs.

        Args:
            x: Inputs, shape `(B, ...)`: uint8 images, or floating-point numbers (of images, from 0 to 1).

        Returns:
            Shape `(B, num_outputs)`: logits, or values in the target's own unit.
        """
        return self.task.rescale(self.net(self.normalize(x)))

    def normalize(self, x: Tensor) -> Tensor:
        """Compute what the network gets from raw inputs: floating-point, and normalized."""
        raw = x.to(self.normalization.mean.dtype)
        scale = 255 if x.dtype == torch.uint8 else 1
        if x.ndim == 2 and self.normalization.mean.ndim == 3:  # flattened images get their channels back
            raw = raw.unflatten(1, (self.normalization.mean.shape[0], 1, -1))
        normalized: Tensor = self.normalization(raw, scale)
        return normalized

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the loss to descend along."""
        return self._shared_step(batch, self.train_loss)[0]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure a batch of the validation split."""
        self._measure(batch, self.val_loss, self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Measure a batch of the test split, and give what is predicted."""
        return self._measure(batch, self.test_loss, self.test_metrics)

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Predict probabilities, or values in the target's own unit; targets in the batch are not looked at."""
        scores: Tensor = self(batch if isinstance(batch, Tensor) else batch[0])
        return self.task.activate(scores)

    def _measure(self, batch: Batch, mean_loss: MeanLoss, metrics: MetricCollection) -> Tensor:
        _, scores, y = self._shared_step(batch, mean_loss)
        predicted = self.task.activate(scores)
        metrics.update(predicted, y)
        return predicted

    def _shared_step(self, batch: Batch, mean_loss: MeanLoss) -> tuple[Tensor, Tensor, Tensor]:
        x, y = batch
        if y.ndim == 2 and y.shape[1] == 1:  # one target for each sample, written as a column
            y = y.squeeze(1)
        scores = self(x)
        if len(scores) > len(y):  # an ensemble's members, several for each sample, learn one by one
            y = y.repeat_interleave(len(scores) // len(y), dim=0)
        loss = self.task.loss(scores, y)
        summed = self.hparams["reduction"] == "sum"
        mean_loss.update(
            loss.detach() / self.task.num_terms(scores, y) if summed else loss.detach(), self.task.num_samples(y)
        )
        return loss, scores, y

    # What is measured is accumulated without a word to the Trainer, and logged once an epoch: a `self.log` in every
    # step would cost as much as the step of a small model.

    def on_after_backward(self) -> None:
        """Count a batch once, however often LBFGS evaluates it: the first time."""
        self.train_loss.is_closed = True

    def on_train_batch_end(self, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int) -> None:
        """Log the loss of every `log_every_n_steps`-th step."""
        self.train_loss.is_closed = False
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning sets it without a type
        if every and self.global_step % every == 0 and self.train_loss.total is not None:
            self.log("train_loss_step", self.train_loss.last)

    def on_train_epoch_end(self) -> None:
        """Log the mean loss of the epoch."""
        self._log_epoch("train_loss", self.train_loss)

    def on_validation_epoch_end(self) -> None:
        """Log loss and metrics of the validation split."""
        self._log_epoch("val_loss", self.val_loss, self.val_metrics)

    def on_test_epoch_end(self) -> None:
        """Log loss and metrics of the test split."""
        self._log_epoch("test_loss", self.test_loss, self.test_metrics)

    def _epoch_mean(self, mean_loss: MeanLoss) -> Tensor | None:
        """Take the mean over all samples of all processes; None if there were none."""
        taken = mean_loss.take(self.device)
        if self.trainer.world_size > 1:  # processes may have unequal shares
            taken = self.trainer.strategy.reduce(taken, reduce_op="sum")
        return (taken[0] / taken[1]).float() if taken[1] else None

    def _log_epoch(self, name: str, mean_loss: MeanLoss, metrics: MetricCollection | None = None) -> None:
        loss = self._epoch_mean(mean_loss)
        if loss is not None:
            self._log_loss(name, loss)
        if metrics is not None:
            self.log_dict(metrics.compute(), sync_dist=True)
            # What is reset in inference mode, in which `Trainer.validate` runs, could not be updated in a later fit.
            with torch.inference_mode(False):
                metrics.reset()

    def _log_loss(self, name: str, loss: Tensor) -> None:
        self.log(name, loss, sync_dist=True)

    def setup(self, stage: str) -> None:
        """Take over the data's statistics when fitting starts, and compile the network if asked to."""
        if stage == "fit":
            data = self.trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it without a type
            self.take_statistics(getattr(data, "statistics", {}))
        if self.hparams["compile"] and self.net._compiled_call_impl is None:
            self.net.compile()  # in place: `torch.compile(net)` would rename what is in the checkpoint

    def take_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Take over by what the data are normalized, unless it is known already or not wanted."""
        if not self.hparams["normalize"]:
            return
        if "mean" in statistics:
            self.normalization.set(statistics["mean"], statistics["std"])
        if isinstance(self.task, Regression) and "target_mean" in statistics:
            self.task.normalization.set(statistics["target_mean"], statistics["target_std"])

    def prepare_weights(self) -> None:
        """Get what a first fit begins with, before the data are read; here nothing."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add which class this is, how it is trained, and the loss of an unfinished epoch."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["class_path"] = public_address(type(self))
        if self.train_loss.total is not None:
            checkpoint["epoch_loss"] = [self.train_loss.total, self.train_loss.samples]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let the settings of now win over those in the checkpoint, and keep the loss of an unfinished epoch."""
        super().on_load_checkpoint(checkpoint)
        self._epoch_loss = checkpoint.get("epoch_loss")

    def on_train_start(self) -> None:
        """Apply changed settings, and go on with a broken-off epoch's loss."""
        super().on_train_start()
        self.train_loss.is_closed = False
        if self._epoch_loss is not None:
            self.train_loss.total, self.train_loss.samples = self._epoch_loss[0].to(self.device), self._epoch_loss[1]
            self._epoch_loss = None


def public_address(cls: type) -> str:
    """Return the address by which files name a class: that of its package if it is public, so that modules can move."""
    package = cls.__module__.partition(".")[0]
    is_public = getattr(sys.modules[package], cls.__name__, None) is cls
    return f"{package if is_public else cls.__module__}.{cls.__qualname__}"
