"""Optimizers and learning-rate schedules, described by primitives: a class path and its arguments."""

import importlib
import inspect
import math
import warnings
from collections.abc import Iterator
from typing import Any, Literal

from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import (
    ExponentialLR,
    LambdaLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)

from lit_models.errors import ModelError
from lit_models.optim.composite import CompositeOptimizer

OptimizerName = Literal[
    "ASGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "LBFGS",
    "Muon",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
    "SparseAdam",
]
SchedulerName = Literal["none", "one-cycle", "cosine", "step", "exponential", "plateau"]
Config = dict[str, Any]  # {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
Groups = list[dict[str, Any]]

# What Muon and SparseAdam train; AdamW has the rest.
WANTED = {
    "Muon": "matrices that are no embeddings",
    "SparseAdam": "embeddings with sparse gradients, as by --model.sparse true of LitTextClassifier,",
}


def make_optimizer(config: Config, groups: Groups, fused: bool = True) -> Optimizer:
    """Make an optimizer, or one composite of several, each with those of the arguments that it knows.

    Args:
        config: Its `class_path` and `init_args`.
        groups: What is trained: `params`, the `lr_factor` of those that learn at a share of the learning rate, the
            class path of an `optimizer` of their own if that of `config` cannot train them, any options, and their
            `param_names`. Those that are trained alike become one.
        fused: Whether to update all parameters in one kernel where `torch` has one, which cuts Adam's step to a third.
            An explicit `fused` among the arguments wins.

    Raises:
        ModelError: If there is nothing that the optimizer can train, or it cannot train all, or an argument has a value
            that it cannot have.
    """
    own_path: str = config["class_path"]
    name = own_path.rpartition(".")[2]
    parts: dict[str, Groups] = {own_path: []}
    for group in groups:
        options = {key: value for key, value in group.items() if key != "optimizer"}
        parts.setdefault(group.get("optimizer") or own_path, []).append(options)
    if name in WANTED and not parts[own_path]:
        raise ModelError(f"--model.optimizer {name}: it trains {WANTED[name]} and here are none; give AdamW.")
    if name == "LBFGS" and (len(parts) > 1 or len({group.get("lr_factor", 1) for group in groups}) > 1):
        raise ModelError(
            "--model.optimizer LBFGS: it moves all weights together, at one learning rate; leave --model.layer_decay "
            "and --model.sparse out and give --model.backbone_lr_factor 1, or another optimizer."
        )
    if name == "LBFGS" and (search := config["init_args"].get("line_search_fn")) not in (None, "strong_wolfe"):
        raise ModelError(f"--optimizer.line_search_fn {search}: give strong_wolfe, or leave it out.")
    made = [_make_one(path, config["init_args"], own, fused) for path, own in parts.items() if own]
    return made[0] if len(made) == 1 else CompositeOptimizer(made)


def _make_one(class_path: str, init_args: dict[str, Any], groups: Groups, fused: bool) -> Optimizer:
    cls = _import(class_path)
    _, *options = inspect.signature(cls).parameters.values()  # the first are the parameters to train
    known = {option.name: option.default for option in options}
    args = {name: value for name, value in init_args.items() if name in known}
    # Adagrad's fused kernel is one for the CPU alone. `foreach` and `differentiable` exclude fusing.
    if cls.__name__ == "Adagrad" and any(p.device.type != "cpu" for group in groups for p in group["params"]):
        fused = False
    if fused and "fused" in known and not any(args.get(name) for name in ("foreach", "differentiable")):
        args["fused"] = True if args.get("fused") is None else args["fused"]
    try:
        optimizer: Optimizer = cls(_joined(groups, {**known, **args}), **args)
    except ValueError as error:
        if not str(error).startswith(("Invalid", "Adjust")):
            raise
        if args.get("lr") == 0:  # with which SparseAdam would do nothing
            raise ModelError(f"--model.lr 0 (or --optimizer.lr): {cls.__name__} needs more than 0.") from error
        raise ModelError(f"--model.optimizer {cls.__name__}: {error}; give another value.") from error
    for group in optimizer.param_groups:
        group["lr"] *= group.pop("lr_factor", 1)
    return optimizer


def _joined(groups: Groups, common: dict[str, Any]) -> Groups:
    """Make one group of those that are trained alike: every group costs time, and LBFGS takes but one."""
    common = {**common, "lr_factor": 1}
    joined: list[tuple[dict[str, Any], dict[str, Any]]] = []  # options that are not those of all, and what has them
    for group in groups:
        options = {name: value for name, value in group.items() if name in common and value != common[name]}
        lists: dict[str, Any] = {name: list(group[name]) for name in ("params", "param_names") if name in group}
        alike = next((others for known, others in joined if known == options), None)
        if alike is None:
            joined.append((options, lists))
        else:
            for name, values in lists.items():
                alike[name] += values
    return [{**options, **lists} for options, lists in joined]


def remap_optimizer_state(optimizer: Optimizer, saved: dict[str, Any]) -> dict[str, Any] | None:
    """Fit an optimizer's saved state to the groups that it has now, by the names of what they train.

    Returns:
        What was saved, if the groups are the same. Else what the optimizer can load: the saved state of each weight
        that has one, and the options of now. None if there is no telling which state is whose.
    """
    now = optimizer.state_dict()
    names, before = ([group.get("param_names") for group in of["param_groups"]] for of in (now, saved))
    sizes, sizes_before = ([len(group["params"]) for group in of["param_groups"]] for of in (now, saved))
    if names == before or (None in before and sizes == sizes_before):
        return saved
    if None in before or None in names or isinstance(optimizer, LBFGS):  # which has one state of all weights
        return None
    places = {name: place for group in saved["param_groups"] for name, place in _places(group)}
    states = saved["state"]
    found = {
        place: states[places[name]]
        for group in now["param_groups"]
        for name, place in _places(group)
        if places.get(name) in states
    }
    return {"state": {**now["state"], **found}, "param_groups": now["param_groups"]}


def _places(group: dict[str, Any]) -> Iterator[tuple[str, int]]:
    return zip(group["param_names"], group["params"], strict=True)


def make_scheduler(
    config: Config | SchedulerName, optimizer: Optimizer, total_steps: float, warmup_steps: int = 0
) -> LRScheduler:
    """Make a schedule for the learning rate that `optimizer` has.

    Args:
        config: A `class_path` with its `init_args`, or a name. `one-cycle` (Smith and Topin 2018) rises from a 25th of
            the learning rate to all of it in the first 30 % of the steps and falls to nearly 0; `cosine` falls from
            all of it to 0 (Loshchilov and Hutter 2017); both change with every step. `step` divides by 10 every 10
            epochs, `exponential` multiplies by 0.95 with every epoch, and `plateau` divides by 10 when the loss has
            not improved for 5 epochs.
        optimizer: Whose learning rate is set.
        total_steps: How many steps the training takes; infinity if it has no end.
        warmup_steps: In how many steps `cosine` rises from 0, which is left out, to all of the learning rate.

    Raises:
        ModelError: If the schedule needs an end and there is none, or it does not fit the optimizer, or does not warm
            up.
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
        if warmup_steps >= end:
            raise ModelError(f"--model.warmup_steps {warmup_steps}: the training has {end} steps; give fewer.")

        def share(step: int) -> float:
            if step < warmup_steps:
                return (step + 1) / (warmup_steps + 1)
            return (1 + math.cos(math.pi * min((step - warmup_steps) / (end - warmup_steps), 1))) / 2

        return LambdaLR(optimizer, share)  # by the step alone: a run resumed with more epochs follows the longer curve
    if config == "step":
        return StepLR(optimizer, step_size=10)
    if config == "exponential":
        return ExponentialLR(optimizer, gamma=0.95)
    return ReduceLROnPlateau(optimizer, factor=0.1, patience=5)


def fast_forward(scheduler: LRScheduler, count: int) -> None:
    """Put a schedule that is at its beginning where it is after so many steps or epochs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch looks for steps of the optimizer, which were taken in another run
        if counts_steps(scheduler):
            scheduler.last_epoch = count - 1
            scheduler.step()
        else:
            for _ in range(count):
                scheduler.step()


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
