"""Configuration of a model's optimizer and schedule, and how a resumed run changes them."""

import copy
import logging
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lit_models.errors import ModelError
from lit_models.optim.factory import fast_forward, interval, make_optimizer, make_scheduler, remap_optimizer_state

logger = logging.getLogger(__name__)


class OptimizerMixin(LightningModule):
    """Configures the optimizer and the schedule of a model's hyperparameters, and resumes with changed ones.

    Attributes:
        optimizer_config: LightningCLI's group `optimizer`; if given, it wins over the hyperparameters.
        lr_scheduler_config: LightningCLI's group `lr_scheduler`, likewise.
    """

    def __init__(self) -> None:
        super().__init__()
        self.optimizer_config: dict[str, Any] | None = None
        self.lr_scheduler_config: dict[str, Any] | None = None
        self._settings: list[dict[str, Any]] = []  # of each parameter group, as configured
        self._schedule: dict[str, Any] = {}  # the state of the scheduler, as configured
        self._settings_changed = False

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer and scheduler of `optimization`; raise a ModelError if they do not fit the Trainer."""
        config, trainer = self.optimization, self.trainer
        # Under a 16-bit scaler a fused optimizer unscales gradients itself, which is too late to clip them.
        fused = not (trainer.gradient_clip_val and str(trainer.precision) == "16-mixed")
        optimizer = make_optimizer(config["optimizer"], self.param_groups(), fused)
        if isinstance(optimizer, LBFGS):
            self._check_closure()
            # It flattens gradients, which have the layout of the weights.
            self.to(memory_format=torch.contiguous_format)
        warmup: int = config["warmup_steps"]
        if warmup and config["scheduler"] != "cosine":
            raise ModelError("only `scheduler=cosine` warms up", "give that", "warmup_steps", warmup)
        scheduler = None
        if config["scheduler"] != "none":
            steps = trainer.estimated_stepping_batches
            # A fast dev run is shorter than any warm-up.
            if trainer.fast_dev_run:  # type: ignore[attr-defined]  # Lightning sets it without a type
                warmup = min(warmup, int(steps) - 1)
            scheduler = make_scheduler(config["scheduler"], optimizer, steps, warmup)
            self._schedule = copy.deepcopy(scheduler.state_dict())
        self._settings = _without_params(optimizer.param_groups)
        optimizer.register_load_state_dict_pre_hook(self._remap_state)
        if scheduler is None:
            return optimizer
        monitored = "val_loss" if trainer.enable_validation else "train_loss"
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": scheduler,
                "interval": interval(scheduler),
                # Only a plateau monitors a metric: as often as there is validation.
                "monitor": getattr(scheduler, "monitor", monitored),
                "frequency": trainer.check_val_every_n_epoch or 1 if isinstance(scheduler, ReduceLROnPlateau) else 1,
                "strict": False,
            },
        }

    def lr_factors(self) -> dict[str, float]:
        """Return learning rate factors by prefix of parameter names; parameters without one are not trained."""
        return {"": 1.0}

    def param_groups(self) -> list[dict[str, Any]]:
        """Return a parameter group for each weight, as `make_optimizer` takes them.

        Vectors, which are biases and the weights of norms, do not decay, as in nanoGPT and timm. Embeddings with sparse
        gradients are trained by SparseAdam, and by Muon (Jordan et al. 2024) the matrices that are no embeddings. AdamW
        trains what the chosen optimizer cannot. Layers decay as in Clark et al. 2020.

        Returns:
            `params`, `param_names`, and, where they are not the default, `lr_factor`, `weight_decay`, `optimizer` and
            `adjust_lr_fn`.
        """
        optimizer, layer_decay = self.optimization["optimizer"], self.hparams["layer_decay"]
        chosen = optimizer["class_path"].rpartition(".")[2]
        embeddings = [part for part in self.modules() if isinstance(part, (nn.Embedding, nn.EmbeddingBag))]
        sparse = {part.weight: part.sparse for part in embeddings}
        layers_above = depths(self) if layer_decay != 1 else {}
        groups = []
        for prefix, lr_factor in self.lr_factors().items():
            for name, weight in self.named_parameters():
                if not name.startswith(prefix):
                    continue
                group: dict[str, Any] = {"params": [weight], "param_names": [name]}
                factor = lr_factor * layer_decay ** layers_above.get(name, 0)
                if factor != 1:
                    group["lr_factor"] = factor
                if weight.ndim < 2:
                    group["weight_decay"] = 0.0
                is_matrix = weight.ndim == 2 and weight not in sparse and "weight" in name.rpartition(".")[2]
                if sparse.get(weight):
                    group["optimizer"] = "torch.optim.SparseAdam"
                elif chosen == "SparseAdam" or (chosen == "Muon" and not is_matrix):
                    group["optimizer"] = "torch.optim.AdamW"
                elif chosen == "Muon" and not optimizer["init_args"].get("adjust_lr_fn"):
                    group["adjust_lr_fn"] = "match_rms_adamw"  # so that one learning rate suits both
                groups.append(group)
        return groups

    @property
    def optimization(self) -> dict[str, Any]:
        """The optimizer (class path and arguments), `scheduler` and `warmup_steps` of this model, as primitives."""
        return _optimization(self.hparams, self.optimizer_config, self.lr_scheduler_config)

    def _check_closure(self) -> None:
        """Raise an error if an option of the Trainer does not work with steps that evaluate a batch several times."""
        trainer = self.trainer
        problem = "LBFGS evaluates a batch several times in a step, and needs its whole loss and gradient each time"
        for option, value, is_given in (
            ("gradient_clip_val", trainer.gradient_clip_val, bool(trainer.gradient_clip_val)),
            ("accumulate_grad_batches", trainer.accumulate_grad_batches, trainer.accumulate_grad_batches > 1),
            ("precision", trainer.precision, str(trainer.precision) == "16-mixed"),
            # Each process would search by its own loss, and wait forever for those that are done.
            ("devices", trainer.world_size, trainer.world_size > 1),
        ):
            if is_given:
                raise ModelError(problem, "leave it out, or give another optimizer", option, value)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add LightningCLI's groups `optimizer` and `lr_scheduler`, and the options of each parameter group."""
        checkpoint["optimizer_config"] = self.optimizer_config
        checkpoint["lr_scheduler_config"] = self.lr_scheduler_config
        checkpoint["param_groups"] = _without_params(self.param_groups())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remove states and settings from a checkpoint that do not fit the current optimizer and schedule.

        Saved states hold settings too: otherwise a new learning rate or more epochs would be silently ignored when a
        run is resumed.
        """
        now, groups = self.optimization, _without_params(self.param_groups())
        configs = checkpoint.get("optimizer_config"), checkpoint.get("lr_scheduler_config")
        saved = _optimization({**self.hparams, **checkpoint.get("hyper_parameters", {})}, *configs)
        saved_groups = checkpoint.get("param_groups", groups)
        self._settings_changed = (saved, saved_groups) != (now, groups)
        optimizers, saved_optimizers = _optimizer_by_name(groups), _optimizer_by_name(saved_groups)
        moved = any(saved_optimizers.get(name, path) != path for name, path in optimizers.items())
        if saved["optimizer"]["class_path"] != now["optimizer"]["class_path"] or moved:
            checkpoint["optimizer_states"] = []
        if saved["scheduler"] != now["scheduler"]:
            checkpoint["lr_schedulers"] = []
        for state in checkpoint.get("lr_schedulers", []):
            for setting in ("total_steps", "_schedule_phases", "base_lrs", "max_lrs", "min_lrs", "_last_lr"):
                state.pop(setting, None)

    def _remap_state(self, optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        """Return a saved state of the optimizer, remapped to its current parameter groups."""
        remapped = remap_optimizer_state(optimizer, state)
        self._settings_changed |= remapped is not state
        if remapped is None:
            logger.warning("the state of the optimizer is reset: its parameter groups are not those of the checkpoint")
        return optimizer.state_dict() if remapped is None else remapped

    def on_train_start(self) -> None:
        """Apply changed settings, now that the state of the optimizer is loaded."""
        if not self._settings_changed:
            return
        optimizer, scheduler = self.trainer.optimizers[0], self.lr_schedulers()
        for group, settings in zip(optimizer.param_groups, self._settings, strict=True):
            group.update(settings)
        if isinstance(scheduler, LRScheduler) and not isinstance(scheduler, ReduceLROnPlateau):
            # Replay it from the start with the new settings; a plateau depends on the loss, not on time.
            scheduler.load_state_dict(copy.deepcopy(self._schedule))
            fast_forward(scheduler, self.global_step if interval(scheduler) == "step" else self.current_epoch)


def depths(module: nn.Module) -> dict[str, int]:
    """Return the number of layers between each weight, by its name, and the output.

    A layer is a module with a weight of two dimensions or more; vectors belong to the layer of the matrix before them.
    """
    layers: dict[str, int] = {}
    count, seen = 0, set()
    for prefix, part in module.named_modules():
        own = [(name, p) for name, p in part.named_parameters(prefix, recurse=False) if p not in seen]
        count += any(p.ndim > 1 for _, p in own)
        for name, p in own:
            seen.add(p)
            layers[name] = max(count, 1)
    return {name: max(count, 1) - layer for name, layer in layers.items()}


def _without_params(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in group.items() if name != "params"} for group in groups]


def _optimizer_by_name(groups: list[dict[str, Any]]) -> dict[str, str | None]:
    """Return the class path of each weight's own optimizer, None for the common one."""
    return {name: group.get("optimizer") for group in groups for name in group.get("param_names", ())}


def _optimization(
    hparams: Mapping[str, Any], optimizer: dict[str, Any] | None, lr_scheduler: dict[str, Any] | None
) -> dict[str, Any]:
    own: dict[str, Any] = {
        "class_path": f"torch.optim.{hparams['optimizer']}",
        "init_args": {name: hparams[name] for name in ("lr", "momentum", "weight_decay")},
    }
    if hparams["optimizer"] == "LBFGS":  # without it, steps may diverge
        own["init_args"]["line_search_fn"] = "strong_wolfe"
    return {
        "optimizer": optimizer or own,
        "scheduler": lr_scheduler or hparams["scheduler"],
        "warmup_steps": hparams["warmup_steps"],
    }
