"""Optimizers and learning-rate schedules, described by primitives: a class path and its arguments."""

import importlib
import inspect
import math
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from lit_models.composite import CompositeOptimizer
from lit_models.tasks import ModelError

OptimizerName = Literal[
    "SGD", "Adam", "AdamW", "Adagrad", "Adadelta", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop", "Muon"
]
SchedulerName = Literal["none", "one-cycle", "cosine", "plateau"]
Config = dict[str, Any]  # {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}


def make_optimizer(config: Config, groups: list[dict[str, Any]], fused: bool = True) -> Optimizer:
    """Make an optimizer, or one composite of several, each with those of the arguments that it knows.

    Args:
        config: Its `class_path` and `init_args`.
        groups: What is trained: `params`, the `lr_factor` of those that learn at a share of the learning rate, the
            class path of an `optimizer` of their own if those of `config` cannot train them, and any of its options.
        fused: Whether to update all parameters in one kernel where `torch` has one, which cuts Adam's step to a third.
            An explicit `fused` among the arguments wins.

    Raises:
        ModelError: If Muon is to train what is no matrix, or SparseAdam what has dense gradients, or an argument has a
            value that it cannot have.
    """
    parts: dict[str, list[dict[str, Any]]] = {}
    for group in groups:
        own = {name: value for name, value in group.items() if name != "optimizer"}
        class_path: str = group.get("optimizer") or config["class_path"]
        if class_path.endswith(".SparseAdam") and "optimizer" not in group:
            raise ModelError(
                "--optimizer SparseAdam: it trains sparse gradients alone, and here are others; give AdamW, beside "
                "which --model.sparse true has SparseAdam by itself."
            )
        parts.setdefault(class_path, []).append(own)
    made = [_make_one(path, config["init_args"], own, fused) for path, own in parts.items()]
    return made[0] if len(made) == 1 else CompositeOptimizer(made)


def _make_one(class_path: str, init_args: dict[str, Any], groups: list[dict[str, Any]], fused: bool) -> Optimizer:
    cls = _import(class_path)
    known = inspect.signature(cls).parameters
    args = {name: value for name, value in init_args.items() if name in known}
    if cls.__name__ == "Muon" and any(p.ndim != 2 for group in groups for p in group["params"]):
        raise ModelError("--model.optimizer Muon: it trains matrices alone, and here are others; give AdamW.")
    # Adagrad's fused kernel is one for the CPU alone. `foreach` and `differentiable` exclude fusing.
    if cls.__name__ == "Adagrad" and any(p.device.type != "cpu" for group in groups for p in group["params"]):
        fused = False
    if fused and "fused" in known and not any(args.get(name) for name in ("foreach", "differentiable")):
        args["fused"] = True if args.get("fused") is None else args["fused"]
    try:
        optimizer: Optimizer = cls(groups, **args)
    except ValueError as error:
        if not str(error).startswith("Invalid"):
            raise
        if args.get("lr") == 0:  # with which SparseAdam would do nothing
            raise ModelError(f"--model.lr 0 (or --optimizer.lr): {cls.__name__} needs more than 0.") from error
        raise ModelError(f"--model.optimizer {cls.__name__}: {error}; give another value.") from error
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
        ModelError: If the schedule needs an end and there is none, or it does not fit the optimizer.
    """
    lrs = [group["lr"] for group in optimizer.param_groups]
    if isinstance(config, dict):
        args = config["init_args"]
        if config["class_path"].endswith("OneCycleLR") and not (args.get("total_steps") or args.get("epochs")):
            args = {**args, "total_steps": _finite(total_steps)}
        for name in ("max_lr", "base_lr"):  # what would be one and the same for all groups
            if len(lrs) > 1 and isinstance(args.get(name), (int, float)) and lrs[0]:
                args = {**args, name: [args[name] * lr / lrs[0] for lr in lrs]}
        try:
            scheduler: LRScheduler = _import(config["class_path"])(optimizer, **args)
        except ValueError as error:
            raise ModelError(f"--lr_scheduler {config['class_path'].rpartition('.')[2]}: {error}.") from error
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
