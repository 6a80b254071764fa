"""How a model is trained: its optimizer and schedule, and what of them a resumed run takes over."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lit_models.errors import ModelError
from lit_models.optim.factory import counts_steps, fast_forward, make_optimizer, make_scheduler, remap_optimizer_state
from lit_models.optim.param_groups import param_groups


class OptimizerMixin(LightningModule):
    """Makes the optimizer and the schedule that its hyperparameters name, and resumes with changed ones.

    Attributes:
        optimizer_config: LightningCLI's `--optimizer` group; where given, it wins over the hyperparameters.
        lr_scheduler_config: LightningCLI's `--lr_scheduler` group, likewise.
    """

    def __init__(self) -> None:
        super().__init__()
        self.optimizer_config: dict[str, Any] | None = None
        self.lr_scheduler_config: dict[str, Any] | None = None
        self._settings: list[dict[str, Any]] = []  # of each parameter group, as configured
        self._schedule: dict[str, Any] = {}  # the state of the scheduler, as configured
        self._settings_changed = False

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the optimizer and the scheduler that `optimization` describes."""
        config, trainer = self.optimization, self.trainer
        # Gradients are clipped before the optimizer sees them, but under a 16-bit scaler a fused one unscales them.
        fused = not (trainer.gradient_clip_val and str(trainer.precision) == "16-mixed")
        optimizer = make_optimizer(config["optimizer"], self.param_groups(), fused)
        if isinstance(optimizer, LBFGS):
            self._check_closure()
            self.to(memory_format=torch.contiguous_format)  # it flattens gradients, which lie as the weights do
        warmup: int = config["warmup_steps"]
        if warmup and config["scheduler"] != "cosine":
            raise ModelError(f"--model.warmup_steps {warmup}: only --model.scheduler cosine warms up; give that.")
        scheduler = None
        if config["scheduler"] != "none":
            steps = trainer.estimated_stepping_batches
            # A look whether all works is shorter than any warm-up.
            if trainer.fast_dev_run:  # type: ignore[attr-defined]  # Lightning sets it without a type
                warmup = min(warmup, int(steps) - 1)
            scheduler = make_scheduler(config["scheduler"], optimizer, steps, warmup)
            self._schedule = copy.deepcopy(scheduler.state_dict())
        self._settings = _without_params(optimizer.param_groups)
        optimizer.register_load_state_dict_pre_hook(self._take_state)
        if scheduler is None:
            return optimizer
        watched = "val_loss" if trainer.enable_validation else "train_loss"
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": scheduler,
                "interval": "step" if counts_steps(scheduler) else "epoch",
                # Only a plateau is looked for in a metric; where validation is rare, so is the look.
                "monitor": getattr(scheduler, "monitor", watched),
                "frequency": trainer.check_val_every_n_epoch or 1 if isinstance(scheduler, ReduceLROnPlateau) else 1,
                "strict": False,
            },
        }

    def trained(self) -> dict[str, float]:
        """What is trained, by the beginnings of weights' names, and at which share of the learning rate."""
        return {"": 1.0}

    def param_groups(self) -> list[dict[str, Any]]:
        """How each weight is trained, as `make_optimizer` takes it: see `groups.param_groups`."""
        return param_groups(self, self.trained(), self.optimization["optimizer"], self.hparams["layer_decay"])

    @property
    def _description(self) -> list[dict[str, Any]]:
        return _without_params(self.param_groups())

    @property
    def optimization(self) -> dict[str, Any]:
        """What trains this model, in primitives: `optimizer` (class path and arguments) and `scheduler`."""
        return _optimization(self.hparams, self.optimizer_config, self.lr_scheduler_config)

    def _check_closure(self) -> None:
        """Refuse what would be wrong where a step evaluates a batch several times."""
        trainer = self.trainer
        for flag, is_given in {
            "--gradient_clip_val": bool(trainer.gradient_clip_val),
            "--accumulate_grad_batches": trainer.accumulate_grad_batches > 1,
            "--precision 16-mixed": str(trainer.precision) == "16-mixed",
            # Each process would search by its own loss, and wait forever for those who have found.
            f"--devices {trainer.world_size}": trainer.world_size > 1,
        }.items():
            if is_given:
                raise ModelError(
                    f"{flag}: LBFGS evaluates a batch several times in a step, and needs its whole loss and gradient "
                    "each time; leave it out, or give another optimizer."
                )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what LightningCLI was told of the optimizer, and how each weight is trained."""
        checkpoint["optimizer_config"] = self.optimizer_config
        checkpoint["lr_scheduler_config"] = self.lr_scheduler_config
        checkpoint["param_groups"] = self._description

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let the optimizer and the schedule of now win over those in the checkpoint.

        Their saved states hold settings beside the running state: left alone, a new learning rate or more epochs would
        be silently ignored when a run is resumed.
        """
        now, groups = self.optimization, self._description
        configs = checkpoint.get("optimizer_config"), checkpoint.get("lr_scheduler_config")
        saved = _optimization({**self.hparams, **checkpoint.get("hyper_parameters", {})}, *configs)
        groups_before = checkpoint.get("param_groups", groups)
        self._settings_changed = (saved, groups_before) != (now, groups)
        owners, owners_before = _owners(groups), _owners(groups_before)
        moved = any(owners_before.get(name, owner) != owner for name, owner in owners.items())
        if saved["optimizer"]["class_path"] != now["optimizer"]["class_path"] or moved:
            checkpoint["optimizer_states"] = []
        if saved["scheduler"] != now["scheduler"]:
            checkpoint["lr_schedulers"] = []
        for state in checkpoint.get("lr_schedulers", []):
            for setting in ("total_steps", "_schedule_phases", "base_lrs", "max_lrs", "min_lrs", "_last_lr"):
                state.pop(setting, None)

    def _take_state(self, optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        """Fit a saved state of the optimizer to the groups of now."""
        fitted = remap_optimizer_state(optimizer, state)
        self._settings_changed |= fitted is not state
        if fitted is None:
            self.print("the optimizer begins anew: its weights are grouped otherwise than in the checkpoint")
        return optimizer.state_dict() if fitted is None else fitted

    def on_train_start(self) -> None:
        """Apply changed settings now that the optimizer's state is back."""
        if not self._settings_changed:
            return
        optimizer, scheduler = self.trainer.optimizers[0], self.lr_schedulers()
        for group, settings in zip(optimizer.param_groups, self._settings, strict=True):
            group.update(settings)
        if isinstance(scheduler, LRScheduler) and not isinstance(scheduler, ReduceLROnPlateau):
            # From its beginning, by the new settings, to where it must be; a plateau goes by the loss, not by the time.
            scheduler.load_state_dict(copy.deepcopy(self._schedule))
            fast_forward(scheduler, self.global_step if counts_steps(scheduler) else self.current_epoch)


def _without_params(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in group.items() if name != "params"} for group in groups]


def _owners(groups: list[dict[str, Any]]) -> dict[str, str | None]:
    """Tell which weights have an optimizer of their own."""
    return {name: group.get("optimizer") for group in groups for name in group.get("param_names", ())}


def _optimization(
    hparams: Mapping[str, Any], optimizer: dict[str, Any] | None, lr_scheduler: dict[str, Any] | None
) -> dict[str, Any]:
    own: dict[str, Any] = {
        "class_path": f"torch.optim.{hparams['optimizer']}",
        "init_args": {name: hparams[name] for name in ("lr", "momentum", "weight_decay")},
    }
    if hparams["optimizer"] == "LBFGS":  # whose steps have no safe length of their own
        own["init_args"]["line_search_fn"] = "strong_wolfe"
    return {
        "optimizer": optimizer or own,
        "scheduler": lr_scheduler or hparams["scheduler"],
        "warmup_steps": hparams["warmup_steps"],
    }
