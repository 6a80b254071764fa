"""Optimizers and learning-rate schedules, described by primitives: a class path and its arguments."""

import importlib
import inspect
import math
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from lit_models.tasks import ModelError

OptimizerName = Literal[
    "SGD", "Adam", "AdamW", "Adagrad", "Adadelta", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop"
]
SchedulerName = Literal["none", "one-cycle", "cosine", "plateau"]
Config = dict[str, Any]  # {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}


def make_optimizer(config: Config, groups: list[dict[str, Any]], fused: bool = True) -> Optimizer:
    """Make an optimizer, with those of the arguments that it knows.

    Args:
        config: Its `class_path` and `init_args`.
        groups: What is trained: `params`, and the `lr_factor` of those that learn at a share of the learning rate.
        fused: Whether to update all parameters in one kernel where `torch` has one, which cuts Adam's step to a third.
            An explicit `fused` among the arguments wins.
    """
    cls = _import(config["class_path"])
    known = inspect.signature(cls).parameters
    args = {name: value for name, value in config["init_args"].items() if name in known}
    # Adagrad's fused kernel is one for the CPU alone. `foreach` and `differentiable` exclude fusing.
    if cls.__name__ == "Adagrad" and any(p.device.type != "cpu" for group in groups for p in group["params"]):
        fused = False
    if fused and "fused" in known and not any(args.get(name) for name in ("foreach", "differentiable")):
        args["fused"] = True if args.get("fused") is None else args["fused"]
    optimizer: Optimizer = cls(groups, **args)
    for group in optimizer.param_groups:
        group["lr"] *= group.pop("lr_factor", 1)
    return optimizer


def make_scheduler(config: Config | SchedulerName, optimizer: Optimizer, total_steps: float) -> LRScheduler:
    """Make a schedule for the learning rate that `optimizer` has.

    Args:
        config: A `class_path` with its `init_args`, or a name. `one-cycle` (Smith and Topin 2018) rises from a 25th of
            the learning rate to all of it in the first 30 % of the steps and falls to nearly 0; `cosine` falls from
            all of it to 0 (Loshchilov and Hutter 2017); both change with every step. `plateau` divides by 10 when the
            loss has not improved for 5 epochs.
        optimizer: Whose learning rate is set.
        total_steps: How many steps the training takes; infinity if it has no end.

    Raises:
        ModelError: If the schedule needs an end and there is none.
    """
    lrs = [group["lr"] for group in optimizer.param_groups]
    if isinstance(config, dict):
        args = config["init_args"]
        if config["class_path"].endswith("OneCycleLR") and not (args.get("total_steps") or args.get("epochs")):
            args = {**args, "total_steps": _finite(total_steps)}
        for name in ("max_lr", "base_lr"):  # what would be one and the same for all groups
            if len(lrs) > 1 and isinstance(args.get(name), (int, float)) and lrs[0]:
                args = {**args, name: [args[name] * lr / lrs[0] for lr in lrs]}
        scheduler: LRScheduler = _import(config["class_path"])(optimizer, **args)
        return scheduler
    if config == "one-cycle":
        # The momentum stays what it was set to.
        return OneCycleLR(optimizer, max_lr=lrs, total_steps=_finite(total_steps), cycle_momentum=False)
    if config == "cosine":
        end = _finite(total_steps)
        # By the step alone, so that a run resumed with more epochs follows the longer curve.
        return LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * min(step / end, 1))) / 2)
    return ReduceLROnPlateau(optimizer, factor=0.1, patience=5)


def counts_steps(scheduler: LRScheduler) -> bool:
    """Whether a schedule changes with every step rather than every epoch."""
    return type(scheduler).__name__ in ("OneCycleLR", "CyclicLR", "LambdaLR")


def _finite(steps: float) -> int:
    if math.isinf(steps):
        raise ModelError("--model.scheduler: a schedule needs an end; give --max_epochs or --max_steps.")
    return int(steps)


def _import(class_path: str) -> Any:  # noqa: ANN401  # a class that only the configuration knows
    module, name = class_path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)
