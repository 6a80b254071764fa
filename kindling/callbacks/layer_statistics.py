"""How signals and gradients fare on their way through a network, layer by layer."""

from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules import activation
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle


class LayerStatistics(Callback):
    """Records what each layer gives and how steep the loss is in its weights, so that a bad start can be seen.

    Of every layer with weights and every activation: mean and standard deviation of its output, and the share that is
    exactly 0; of every layer with weights: the norm of its gradient, before it is clipped. A spread that shrinks or
    grows with depth tells of initial weights that are too small or too large, and zeros of units that are dead.

    It looks at the first step and then at each that the Trainer's `log_every_n_steps` logs, on the first process alone;
    other steps cost nothing. A compiled network shows its gradients only.

    Attributes:
        latest: Of each layer, by its name, what was seen last: `mean`, `std`, `zeros` and `gradient`, where it has one.
    """

    def __init__(self) -> None:
        self.latest: dict[str, dict[str, float]] = {}
        self._seen: dict[tuple[str, str], Tensor] = {}  # by layer and statistic, each a scalar on its device
        self._hooks: list[RemovableHandle] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: ANN401  # Lightning's signature
        """Begin to watch, if this step is one that is logged."""
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning sets it without a type
        if self._hooks or not every or trainer.global_step % every or not trainer.is_global_zero:
            return
        for name, layer in pl_module.named_modules():
            is_leaf, is_activation = not list(layer.children()), type(layer).__module__ == activation.__name__
            if is_leaf and (is_activation or list(layer.parameters())):
                self._hooks.append(layer.register_forward_hook(partial(self._watch, name)))

    def _watch(self, name: str, layer: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ANN401  # torch's signature
        first = output[0] if isinstance(output, tuple) else output  # of a recurrent layer, what it gives, not its state
        values = first.detach().float()
        self._seen[name, "mean"] = values.mean()
        self._seen[name, "std"] = values.std()
        self._seen[name, "zeros"] = (values == 0).float().mean()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Look at the gradients, write all down, and watch no longer."""
        if not self._hooks:
            return
        self._forget()
        # A fused optimizer gets gradients as the scaler of 16 bits left them, and divides them in its own step.
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        scale = scaler.get_scale() if scaler and getattr(optimizer, "_step_supports_amp_scaling", False) else 1
        for name, layer in pl_module.named_modules():
            gradients = [p.grad.detach() for p in layer.parameters(recurse=False) if p.grad is not None]
            if gradients:
                self._seen[name, "gradient"] = torch.stack([g.float().norm() for g in gradients]).norm() / scale
        numbers = torch.stack(list(self._seen.values())).tolist()  # a GPU is waited for once
        self.latest = {name: {} for name, _ in self._seen}
        for (name, statistic), number in zip(self._seen, numbers, strict=True):
            self.latest[name][statistic] = number
        metrics = {f"layer_{statistic}/{name}": self.latest[name][statistic] for name, statistic in self._seen}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)
        self._seen = {}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Watch no longer."""
        self._forget()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Watch no longer, whatever step was the last."""
        self._forget()

    def _forget(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
