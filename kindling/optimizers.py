"""The `--optimizer` and `--lr_scheduler` groups: whether they or the model's own options apply, and a trial step."""

import warnings
from typing import Any

import torch
from jsonargparse import ArgumentError, Namespace
from torch.optim.lr_scheduler import ReduceLROnPlateau

from kindling.arguments import imported_class, options_of, value_of
from kindling.compatibility import init_args
from lit_models import LitModule, ModelError
from lit_models.optim.factory import make_optimizer, make_scheduler

# Each group, the option of the model that it overrides, and the options that it hides.
GROUPS = {"optimizer": ("optimizer", ("lr", "momentum", "weight_decay")), "lr_scheduler": ("scheduler", ())}


def resolve_groups(config: Namespace, given: Namespace, args: list[str]) -> None:
    """Set to None a group that came from a checkpoint, where the model's own option was given.

    Raises:
        ArgumentError: If an option of the model was given that a group hides.
    """
    by_hand, options = init_args(given, "model"), options_of(imported_class(config.model.class_path))
    for group, (own, hidden) in GROUPS.items():
        if group not in given and own in by_hand:
            config[group] = None
        for name in hidden if config[group] is not None else ():
            # The configuration that a run leaves behind has the defaults as well.
            is_flag = any(value_of(f"--model.{prefix}{name}", args) is not None for prefix in ("", "init_args."))
            if name in by_hand and (is_flag or by_hand[name] != options[name].default):
                trains = f"--{group} {config[group].class_path.rpartition('.')[2]}"
                raise ArgumentError(None, f"--model.{name}: {trains} is what trains this model; give --{group}.{name}.")


def try_optimizer(model: LitModule, given: Namespace) -> None:
    """Step the optimizer and the scheduler of a model once, on a weight of their own, to find what torch refuses.

    Raises:
        ArgumentError: If torch refuses what `--optimizer` or `--lr_scheduler` was given.
    """
    config, group = model.optimization, "optimizer"
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # there was no step of the optimizer before that of the scheduler
            optimizer = make_optimizer(config["optimizer"], [{"params": [weight]}])
            group = "lr_scheduler"
            if isinstance(config["scheduler"], dict):
                scheduler: Any = make_scheduler(config["scheduler"], optimizer, total_steps=100)
                scheduler.step(*([0.0] if isinstance(scheduler, ReduceLROnPlateau) else []))
    except Exception as error:
        reason = error.__cause__ if isinstance(error, ModelError) else error
        if given.get(group) is None or reason is None:
            raise
        name, options = given[group].class_path.rpartition(".")[2], vars(given[group].get("init_args") or Namespace())
        flags = "".join(f" --{group}.{option} {value}" for option, value in options.items())
        raise ArgumentError(None, f"--{group} {name}{flags}: torch cannot use this ({reason}).") from error
