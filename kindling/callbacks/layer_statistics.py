"""Statistics of activations and gradients, layer by layer."""

from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules import activation
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle


class LayerStatistics(Callback):
    """Logs statistics of each layer's output and gradient, which show bad initial weights.

    For every layer with weights and every activation: mean and standard deviation of its output, and the share of
    exact zeros. For every layer with weights: the norm of its gradient before clipping. A standard deviation that
    shrinks or grows with depth shows initial weights that are too small or too large; zeros show dead units.

    Measures the first step and then each that the Trainer's `log_every_n_steps` logs, on rank 0 only; other steps cost
    nothing, and 0 measures none. Of a compiled network only gradients are seen.

    Attributes:
        latest: The last measurement of each layer, by its name: `mean`, `std`, `zeros` and, if it has one, `gradient`.
    """

    def __init__(self) -> None:
        self.latest: dict[str, dict[str, float]] = {}
        self._seen: dict[tuple[str, str], Tensor] = {}  # by layer and statistic, each a scalar on its device
        self._hooks: list[RemovableHandle] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: ANN401  # Lightning's signature
        """Register the hooks, if this step is logged."""
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]  # Lightning sets it without a type
        if self._hooks or not every or trainer.global_step % every or not trainer.is_global_zero:
            return
        for name, layer in pl_module.named_modules():
            is_leaf, is_activation = not list(layer.children()), type(layer).__module__ == activation.__name__
            if is_leaf and (is_activation or list(layer.parameters())):
                self._hooks.append(layer.register_forward_hook(partial(self._watch, name)))

    def _watch(self, name: str, layer: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ANN401  # torch's signature
        first = output[0] if isinstance(output, tuple) else output  # a recurrent layer also returns its state
        values = first.detach().float()
        self._seen[name, "mean"] = values.mean()
        self._seen[name, "std"] = values.std()
        self._seen[name, "zeros"] = (values == 0).float().mean()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Measure the gradients, log all statistics and remove the hooks."""
        if not self._hooks:
            return
        self._remove_hooks()
        # With 16-bit precision a fused optimizer gets scaled gradients, and unscales them in its own step.
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        scale = scaler.get_scale() if scaler and getattr(optimizer, "_step_supports_amp_scaling", False) else 1
        for name, layer in pl_module.named_modules():
            gradients = [p.grad.detach() for p in layer.parameters(recurse=False) if p.grad is not None]
            if gradients:
                self._seen[name, "gradient"] = torch.stack([g.float().norm() for g in gradients]).norm() / scale
        numbers = torch.stack(list(self._seen.values())).tolist()  # one GPU sync
        self.latest = {name: {} for name, _ in self._seen}
        for (name, statistic), number in zip(self._seen, numbers, strict=True):
            self.latest[name][statistic] = number
        metrics = {f"layer_{statistic}/{name}": self.latest[name][statistic] for name, statistic in self._seen}
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)
        self._seen = {}

    def _remove_hooks(self, *args: Any, **kwargs: Any) -> None:
        while self._hooks:
            self._hooks.pop().remove()

    teardown = on_exception = _remove_hooks
