"""The base of all models: steps, logging, normalization of inputs, and what a checkpoint keeps beside weights."""

import inspect
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Self

import torch
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from torchmetrics import MetricCollection

from lit_models.errors import ModelError, check_non_negative, find_misfit
from lit_models.metrics import MeanLoss
from lit_models.modules.init import InitName, initialize_weights
from lit_models.modules.normalization import Normalization, rename_old_keys
from lit_models.optim.configure import OptimizerMixin
from lit_models.optim.factory import OptimizerName, SchedulerName
from lit_models.tasks import IGNORED, Reduction, Regression, TaskName, make_task

Batch = tuple[Tensor, Tensor]

MAX_EPOCHS = 30  # unless the Trainer is told otherwise, or a model knows better

# Arguments of a model that are filled in from the data module, by name, unless they are given.
LINKED = (
    *("task", "num_outputs", "in_features", "input_shape", "cat_cardinalities"),
    *("vocab_size", "max_length", "context_length"),
)


class LitModule(OptimizerMixin):
    """Base of all models. A leaf sets `self.net`, an `nn.Module` from normalized inputs to logits or values.

    Then it calls `self.initialize()`, so that `init` applies to the network. Inputs are raw: uint8 images, which are
    scaled to [0, 1] here, or floating-point numbers. The statistics that normalize them come from the data module when
    fitting starts, and are in every checkpoint.

    Args:
        task: Kind of target: `regression`, `binary`, `multiclass`, or `next_token` of a text.
        num_outputs: Outputs for each sample: classes, values, or 1 for a binary task.
        loss: A loss of `torch.nn` by name that fits the task; by default mean squared error or cross-entropy.
        reduction: Whether the loss of a step is the mean or the sum over its samples. The mean is logged.
        label_smoothing: Share of a label that is spread over all classes.
        class_weights: Weight of the samples of each class; in a binary task two numbers, of classes 0 and 1.
        ignore_index: Label of samples that loss and metrics leave out, in a multiclass task.
        normalize: Whether to use the data module's statistics.
        optimizer: An optimizer of `torch.optim` by name. Muon and SparseAdam train the weights they can, and AdamW the
            rest; LBFGS, with a line search, evaluates a batch several times in each step, and needs large ones.
        lr: Learning rate; 1 suits LBFGS.
        momentum: Momentum, of those optimizers that have it (SGD, RMSprop and Muon).
        weight_decay: Weight decay of all weights but biases and norms: decoupled in AdamW, which without it is Adam,
            and in Muon; an L2 penalty elsewhere. LBFGS, Rprop and SparseAdam have none.
        layer_decay: Layer-wise decay: the factor from a layer's learning rate to that of the layer before it.
        scheduler: Schedule of the learning rate: `none` (constant), `one-cycle`, `cosine`, `step` (a tenth every 10
            epochs), `exponential` (0.95 of it every epoch) or `plateau`.
        warmup_steps: Steps in which the learning rate rises before `cosine` begins.
        init: Initial weights of the network; see `initialize_weights`. By default its layers' own.
        compile: Whether to compile the network with `torch.compile`, which pays off on long runs only.

    Raises:
        ModelError: If an option is invalid, or does not fit the task.
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
        check_non_negative(lr=lr, momentum=momentum, weight_decay=weight_decay, warmup_steps=warmup_steps)
        if not 0 < layer_decay <= 1:
            raise ModelError("give a share above 0, up to 1", option="layer_decay", value=layer_decay)
        if class_weights is not None:  # hyperparameters are primitives, not arrays or tensors
            self.hparams["class_weights"] = [float(weight) for weight in class_weights]
        self.num_outputs = num_outputs
        self.task = make_task(task, num_outputs, loss, reduction, label_smoothing, class_weights, ignore_index)
        self.normalization = Normalization()
        self.register_load_state_dict_pre_hook(rename_old_keys)  # type: ignore[no-untyped-call]  # torch's
        self.train_loss, self.val_loss, self.test_loss = MeanLoss(), MeanLoss(), MeanLoss()
        metrics = self.task.metrics()
        self.val_metrics = metrics.clone(prefix="val_")
        self.test_metrics = metrics.clone(prefix="test_")
        self._epoch_loss: tuple[Tensor, int | Tensor] | None = None  # sum and count of an interrupted epoch
        self._is_initialized = False

    @classmethod
    def for_data(cls, data: object, **kwargs: Any) -> Self:
        """Create the model for some data, which fill in sizes and task unless they are given.

        Args:
            data: A data module, or anything with some of `task`, `num_outputs`, `in_features`, `input_shape`,
                `cat_cardinalities`, `vocab_size`, `max_length` and `context_length`.
            kwargs: Options of the model.

        Raises:
            ModelError: If the data have none of these, the model cannot read such data, or an option is invalid.
        """
        known = {name: value for name in LINKED if (value := getattr(data, name, None)) is not None}
        if not known:
            raise ModelError(f"{type(data).__name__} has no size or task to fill in", "give a data module", "data")
        cls.check_kind({name for name, value in {**known, **kwargs}.items() if value})
        takes = parameters_of(cls)
        sizes = {name: list(value) if isinstance(value, tuple) else value for name, value in known.items()}
        return cls(**{**{name: value for name, value in sizes.items() if name in takes}, **kwargs})

    @classmethod
    def check_kind(cls, offers: Collection[str]) -> None:
        """Raise a ModelError if the model cannot read data that have the sizes `offers`."""
        if misfit := find_misfit(parameters_of(cls), offers):
            raise ModelError(f"{cls.__name__}: {misfit}", "give another model")

    def initialize(self) -> None:
        """Initialize the weights of `self.net` by the scheme `init`, if one is given."""
        if self.hparams["init"] is not None:
            initialize_weights(self.net, self.hparams["init"])
        self._is_initialized = True

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits, or values in the target's own unit, `(B, num_outputs)`, from raw inputs, `(B, ...)`."""
        return self.task.rescale(self.net(self.normalize(x)))

    def normalize(self, x: Tensor) -> Tensor:
        """Return raw inputs as the network gets them: floating-point and normalized."""
        raw = x.to(self.normalization.mean.dtype)
        scale = 255 if x.dtype == torch.uint8 else 1
        if x.ndim == 2 and self.normalization.mean.ndim == 3:  # flattened images: restore their channels
            raw = raw.unflatten(1, (self.normalization.mean.shape[0], 1, -1))
        normalized: Tensor = self.normalization(raw, scale)
        return normalized

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the training loss of a batch, a scalar."""
        return self._shared_step(batch, self.train_loss)[0]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Update loss and metrics of the validation split."""
        self._eval_step(batch, self.val_loss, self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Update loss and metrics of the test split, and return the predictions."""
        return self._eval_step(batch, self.test_loss, self.test_metrics)

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Predict probabilities, or values in the target's own unit, from inputs with or without targets."""
        outputs: Tensor = self(batch if isinstance(batch, Tensor) else batch[0])
        return self.task.activate(outputs)

    def _eval_step(self, batch: Batch, mean_loss: MeanLoss, metrics: MetricCollection) -> Tensor:
        _, outputs, y = self._shared_step(batch, mean_loss)
        predictions = self.task.activate(outputs)
        metrics.update(predictions, y)
        return predictions

    def _shared_step(self, batch: Batch, mean_loss: MeanLoss) -> tuple[Tensor, Tensor, Tensor]:
        x, y = batch
        if y.ndim == 2 and y.shape[1] == 1:  # one target for each sample, as a column
            y = y.squeeze(1)
        outputs = self(x)
        if len(outputs) > len(y):  # the members of an ensemble, several for each sample, learn separately
            y = y.repeat_interleave(len(outputs) // len(y), dim=0)
        loss = self.task.loss(outputs, y)
        summed = self.hparams["reduction"] == "sum"
        mean_loss.update(
            loss.detach() / self.task.num_terms(outputs, y) if summed else loss.detach(), self.task.num_samples(y)
        )
        return loss, outputs, y

    # Losses and metrics are accumulated here, and logged once an epoch: `self.log` in every step would cost as much as
    # the step of a small model.

    def on_after_backward(self) -> None:
        """Count only the first loss of a batch, which LBFGS evaluates several times."""
        self.train_loss.is_paused = True

    def on_train_batch_end(self, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int) -> None:
        """Log the loss of every `log_every_n_steps`-th step."""
        self.train_loss.is_paused = False
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
        """Return the mean over all samples of all processes and reset it; None if there were none."""
        sums = mean_loss.pop(self.device)
        if self.trainer.world_size > 1:  # processes may have different numbers of samples
            sums = self.trainer.strategy.reduce(sums, reduce_op="sum")
        return (sums[0] / sums[1]).float() if sums[1] else None

    def _log_epoch(self, name: str, mean_loss: MeanLoss, metrics: MetricCollection | None = None) -> None:
        loss = self._epoch_mean(mean_loss)
        if loss is not None:
            self._log_loss(name, loss)
        if metrics is not None:
            self.log_dict(metrics.compute(), sync_dist=True)
            # A state that is reset in inference mode, which `Trainer.validate` uses, cannot be updated in a later fit.
            with torch.inference_mode(False):
                metrics.reset()

    def _log_loss(self, name: str, loss: Tensor) -> None:
        self.log(name, loss, sync_dist=True)

    def setup(self, stage: str) -> None:
        """Load the data's statistics when fitting starts, and compile the network if asked to.

        An `init` in a class that never calls `initialize` raises a ModelError.
        """
        if stage == "fit":
            if self.hparams["init"] is not None and not self._is_initialized:
                remedy = "call self.initialize() in its constructor, once self.net is set"
                raise ModelError(f"{type(self).__name__} ignores it", remedy, "init", self.hparams["init"])
            data = self.trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it without a type
            self.load_statistics(getattr(data, "statistics", {}))
        if self.hparams["compile"] and self.net._compiled_call_impl is None:
            self.net.compile()  # in place: `torch.compile(net)` would rename the weights in the checkpoint

    def load_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Set `mean` and `std` of inputs, and `target_mean` and `target_std` of a regression, unless they are set."""
        if not self.hparams["normalize"]:
            return
        if "mean" in statistics:
            self.normalization.set(statistics["mean"], statistics["std"])
        if isinstance(self.task, Regression) and "target_mean" in statistics:
            self.task.normalization.set(statistics["target_mean"], statistics["target_std"])

    def default_max_epochs(self, num_samples: int) -> int:
        """Return the epochs that suit this many training samples, where nothing else ends the training."""
        return MAX_EPOCHS

    def prepare_weights(self) -> None:
        """Download pretrained weights before the data are read; a model without any has nothing to do."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the class path, the training settings, and the loss of an unfinished epoch."""
        super().on_save_checkpoint(checkpoint)
        cls, package = type(self), self.__module__.partition(".")[0]
        is_public = getattr(sys.modules[package], cls.__name__, None) is cls  # of its package, so that modules can move
        checkpoint["class_path"] = f"{package if is_public else cls.__module__}.{cls.__qualname__}"
        if self.train_loss.total is not None:
            checkpoint["epoch_loss"] = [self.train_loss.total, self.train_loss.samples]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the current settings over those in the checkpoint, and load the loss of an unfinished epoch."""
        super().on_load_checkpoint(checkpoint)
        self._epoch_loss = checkpoint.get("epoch_loss")

    def on_train_start(self) -> None:
        """Apply changed settings, and restore the loss of an unfinished epoch."""
        super().on_train_start()
        self.train_loss.is_paused = False
        if self._epoch_loss is not None:
            self.train_loss.total, self.train_loss.samples = self._epoch_loss[0].to(self.device), self._epoch_loss[1]
            self._epoch_loss = None


def parameters_of(cls: type) -> set[str]:
    """Return the names of the options of a model and of its bases."""
    signatures = [inspect.signature(base.__init__) for base in cls.__mro__ if issubclass(base, LitModule)]
    found = {name: of for signature in signatures for name, of in signature.parameters.items()}
    return {name for name, of in found.items() if name != "self" and of.kind is not of.VAR_KEYWORD}
