"""Optimizers and learning rate schedules from primitives: a class path and its arguments."""

import importlib
import inspect
import math
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import torch
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau, StepLR

from lit_models.errors import ModelError

T = TypeVar("T")

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

LIBRARIES = ("lightning.", "torch.")  # importing a part of these runs nothing that a file could choose

# What Muon and SparseAdam train; AdamW trains the rest.
TRAINABLE = {
    "Muon": "matrices that are no embeddings",
    "SparseAdam": "embeddings with sparse gradients, as by `sparse=True` of LitTextClassifier,",
}


class CompositeOptimizer(Optimizer):
    """Optimizers with different parameters that step, are scheduled and are saved together.

    The composite and its optimizers share the same dictionaries of parameter groups and state: a schedule sets a
    learning rate in both, and one `state_dict` holds all. With several optimizers Lightning requires manual
    optimization; this is one. The parameter groups of all follow one another.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = list(optimizers)
        first, *others = [optimizer.defaults for optimizer in self.optimizers]
        # Schedules look here for options that every group has, such as a cycled momentum.
        common = {name: value for name, value in first.items() if all(name in other for other in others)}
        super().__init__([group for optimizer in self.optimizers for group in optimizer.param_groups], common)
        for optimizer in self.optimizers:  # some have a state before the first step
            self.state.update(optimizer.state)
        self._share()

    def _share(self) -> None:
        groups = iter(self.param_groups)
        for optimizer in self.optimizers:
            own = [next(groups) for _ in optimizer.param_groups]
            # `__setstate__` adds options that a state of an older version of torch lacks.
            optimizer.__setstate__({"state": self.state, "param_groups": own})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401  # torch's signature
        """Step each optimizer; return the loss of `closure`, which computes the gradients once for all, if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, and share it with the optimizers again."""
        super().load_state_dict(state_dict)
        self._share()


def make_optimizer(config: Config, groups: Groups, fused: bool = True) -> Optimizer:
    """Return an optimizer, or a composite of several, each with those of the arguments that it has.

    Args:
        config: Its `class_path` and `init_args`.
        groups: Parameter groups: `params`, `param_names`, and optionally `lr_factor`, a factor of the learning rate,
            `optimizer`, the class path of another optimizer if that of `config` cannot train them, and any options.
            Groups with the same options are merged.
        fused: Whether to update all parameters in one kernel where `torch` has one, which cuts Adam's step to a third.
            An explicit `fused` among the arguments wins.

    Raises:
        ModelError: If the optimizer can train none of the parameters, or not all, or an argument is invalid.
    """
    own_path: str = config["class_path"]
    name = own_path.rpartition(".")[2]
    parts: dict[str, Groups] = {own_path: []}
    for group in groups:
        options = {key: value for key, value in group.items() if key != "optimizer"}
        parts.setdefault(group.get("optimizer") or own_path, []).append(options)
    if name in TRAINABLE and not parts[own_path]:
        raise ModelError(f"it trains {TRAINABLE[name]} and here are none", "give AdamW", "optimizer", name)
    if name == "LBFGS" and (len(parts) > 1 or len({group.get("lr_factor", 1) for group in groups}) > 1):
        remedy = "leave `layer_decay` and `sparse` out and give `backbone_lr_factor=1`, or another optimizer"
        raise ModelError("it moves all weights together, at one learning rate", remedy, "optimizer", name)
    if name == "LBFGS" and (search := config["init_args"].get("line_search_fn")) not in (None, "strong_wolfe"):
        raise ModelError("give strong_wolfe, or leave it out", "", "optimizer.line_search_fn", search)
    made = [_make_one(path, config["init_args"], own, fused) for path, own in parts.items() if own]
    return made[0] if len(made) == 1 else CompositeOptimizer(made)


def _make_one(class_path: str, init_args: dict[str, Any], groups: Groups, fused: bool) -> Optimizer:
    cls: Any = _find(class_path, Optimizer, "optimizer")
    _, *options = inspect.signature(cls).parameters.values()  # the first one is params
    known = {option.name: option.default for option in options}
    args = {name: value for name, value in init_args.items() if name in known}
    # Adagrad's fused kernel is for the CPU only. `foreach` and `differentiable` exclude fused kernels.
    if cls.__name__ == "Adagrad" and any(p.device.type != "cpu" for group in groups for p in group["params"]):
        fused = False
    if fused and "fused" in known and not any(args.get(name) for name in ("foreach", "differentiable")):
        args["fused"] = True if args.get("fused") is None else args["fused"]
    try:
        optimizer: Optimizer = cls(_merge_groups(groups, {**known, **args}), **args)
    except ValueError as error:
        if not str(error).startswith(("Invalid", "Adjust")):
            raise
        if args.get("lr") == 0:  # which SparseAdam refuses
            raise ModelError(f"{cls.__name__} needs more than 0", option="lr", value=0) from error
        raise ModelError(str(error), "give another value", "optimizer", cls.__name__) from error
    for group in optimizer.param_groups:
        group["lr"] *= group.pop("lr_factor", 1)
    return optimizer


def _merge_groups(groups: Groups, common: dict[str, Any]) -> Groups:
    """Merge groups with the same options: every group costs time, and LBFGS takes only one."""
    common = {**common, "lr_factor": 1}
    merged: list[tuple[dict[str, Any], dict[str, Any]]] = []  # options that differ from `common`, and their parameters
    for group in groups:
        options = {name: value for name, value in group.items() if name in common and value != common[name]}
        lists: dict[str, Any] = {name: list(group[name]) for name in ("params", "param_names") if name in group}
        same = next((others for known, others in merged if known == options), None)
        if same is None:
            merged.append((options, lists))
        else:
            for name, values in lists.items():
                same[name] += values
    return [{**options, **lists} for options, lists in merged]


def remap_optimizer_state(optimizer: Optimizer, saved: dict[str, Any]) -> dict[str, Any] | None:
    """Return an optimizer's saved state, remapped to its current parameter groups by the names of parameters.

    It is `saved` itself if the groups are the same, otherwise the saved state of each parameter that has one, with the
    current options, and None if the parameters cannot be matched.
    """
    now = optimizer.state_dict()
    names, before = ([group.get("param_names") for group in of["param_groups"]] for of in (now, saved))
    sizes, sizes_before = ([len(group["params"]) for group in of["param_groups"]] for of in (now, saved))
    if names == before or (None in before and sizes == sizes_before):
        return saved
    if None in before or None in names or isinstance(optimizer, LBFGS):  # it has one state for all weights
        return None
    indices, saved_indices = (
        dict(pair for group in of["param_groups"] for pair in zip(group["param_names"], group["params"], strict=True))
        for of in (now, saved)
    )
    states = saved["state"]
    found = {index: states[saved_indices[name]] for name, index in indices.items() if saved_indices.get(name) in states}
    return {"state": {**now["state"], **found}, "param_groups": now["param_groups"]}


def make_scheduler(
    config: Config | SchedulerName, optimizer: Optimizer, total_steps: float, warmup_steps: int = 0
) -> LRScheduler:
    """Return a schedule for the learning rate of `optimizer`.

    Args:
        config: A `class_path` with its `init_args`, or a name. `one-cycle` (Smith and Topin 2018) rises from a 25th of
            the learning rate to all of it in the first 30 % of the steps and falls to nearly 0; `cosine` falls from
            all of it to 0 (Loshchilov and Hutter 2017); both change with every step. `step` divides by 10 every 10
            epochs, `exponential` multiplies by 0.95 with every epoch, and `plateau` divides by 10 when the loss has
            not improved for 5 epochs.
        optimizer: The optimizer.
        total_steps: Steps of the training; infinity if it has no end.
        warmup_steps: Steps in which `cosine` rises linearly from 0, exclusive, to the learning rate.

    Raises:
        ModelError: If the schedule needs an end and there is none, or does not fit the optimizer, or the warm-up is
            longer than the training.
    """
    lrs = [group["lr"] for group in optimizer.param_groups]
    if isinstance(config, dict):
        args = config["init_args"]
        if config["class_path"].endswith("OneCycleLR") and not (args.get("total_steps") or args.get("epochs")):
            args = {**args, "total_steps": _finite_steps(total_steps)}
        for name in ("max_lr", "base_lr"):  # one value for all groups would undo their factors
            if len(lrs) > 1 and isinstance(args.get(name), (int, float)) and lrs[0]:
                args = {**args, name: [args[name] * lr / lrs[0] for lr in lrs]}
        cls: Any = _find(config["class_path"], LRScheduler, "lr_scheduler")
        try:
            scheduler: LRScheduler = cls(optimizer, **args)
        except ValueError as error:  # in our messages backticks mark options
            raise ModelError(str(error).replace("`", "'"), "", "lr_scheduler", cls.__name__) from error
        return scheduler
    if config == "one-cycle":
        # Momentum has its own option, so it is not cycled.
        return OneCycleLR(optimizer, max_lr=lrs, total_steps=_finite_steps(total_steps), cycle_momentum=False)
    if config == "cosine":
        end = _finite_steps(total_steps)
        if warmup_steps >= end:
            raise ModelError(f"the training has {end} steps", "give fewer", "warmup_steps", warmup_steps)

        def factor(step: int) -> float:
            if step < warmup_steps:
                return (step + 1) / (warmup_steps + 1)
            return (1 + math.cos(math.pi * min((step - warmup_steps) / (end - warmup_steps), 1))) / 2

        # A function of the step, so that a run resumed with more epochs follows the longer curve.
        return LambdaLR(optimizer, factor)
    if config == "step":
        return StepLR(optimizer, step_size=10)
    if config == "exponential":
        return ExponentialLR(optimizer, gamma=0.95)
    return ReduceLROnPlateau(optimizer, factor=0.1, patience=5)


def fast_forward(scheduler: LRScheduler, count: int) -> None:
    """Move a schedule from its start to where it is after `count` steps or epochs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch misses the optimizer's steps, which were in another run
        if interval(scheduler) == "step":
            scheduler.last_epoch = count - 1
            scheduler.step()
        else:
            for _ in range(count):
                scheduler.step()


def interval(scheduler: LRScheduler) -> Literal["step", "epoch"]:
    """Return whether a schedule changes with every step or every epoch."""
    return "step" if type(scheduler).__name__ in ("OneCycleLR", "CyclicLR", "LambdaLR") else "epoch"


def _finite_steps(steps: float) -> int:
    if math.isinf(steps):
        raise ModelError("a schedule needs an end", "give `max_epochs` or `max_steps`", "scheduler")
    return int(steps)


def find_class(path: str, base: type[T]) -> type[T] | None:
    """Return the subclass of `base` at an import path, or None if there is none.

    It is of torch or Lightning, of a module that is imported already, or of this package, where the name alone or a
    former address will do. Nothing else is imported, as the path may come from a file of somebody else.
    """
    module, _, name = path.rpartition(".")
    package = __name__.partition(".")[0]
    if module.partition(".")[0] in ("", package):
        module = package
    elif f"{module}.".startswith(LIBRARIES):
        importlib.import_module(module)
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) and issubclass(found, base) else None


def _find(class_path: str, base: type[T], option: str) -> type[T]:
    found = find_class(class_path, base)
    if found is None:
        problem = f"there is no such {base.__name__} in what is imported here"
        raise ModelError(problem, "import its module first", option, class_path)
    return found
