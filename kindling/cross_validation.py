"""Cross-validation: a fit for every fold, and the mean and spread of what each is measured by."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from jsonargparse import ArgumentError, Namespace

from kindling.compatibility import init_args
from kindling.runs import is_first_process

if TYPE_CHECKING:
    from kindling.cli import KindlingCLI

NUM_FOLDS = 5  # unless --data.num_folds says otherwise


def hold_out(fold: int, config: Namespace, given: Namespace) -> None:
    """Set `--data.fold`, and `--data.num_folds` where it is not given.

    Raises:
        ArgumentError: If the data have no folds, or one was given.
    """
    options = config.data.init_args
    if "fold" not in options:
        raise ArgumentError(None, f"cross_validate: {config.data.class_path} knows no folds.")
    if "fold" in init_args(given, "data"):
        raise ArgumentError(None, "--data.fold: cross_validate holds out each fold in turn; leave it out.")
    options.fold, options.num_folds = fold, options.num_folds or NUM_FOLDS


def cross_validate(fit: Callable[[int], KindlingCLI]) -> KindlingCLI:
    """Fit once for every fold, and print the mean and the spread of what each is measured by.

    Args:
        fit: Fits with one fold held out.

    Returns:
        The last fold's command.
    """
    measured: list[dict[str, float]] = []
    while True:
        cli = fit(len(measured))
        # The fold is the test split, or the validation split where the data have a test split of their own.
        measured.append(cli.summary.summary.get("test" if cli.datamodule.tests_fold else "best", {}))
        num_folds = cli.datamodule.num_folds
        if is_first_process():
            print(f"fold {len(measured)} of {num_folds}:", *(f"{k} {v:.4g}" for k, v in measured[-1].items()), sep="  ")
        if len(measured) == num_folds:
            break
    if is_first_process() and measured[0]:
        print(f"mean and standard deviation over {len(measured)} folds")
        for name in measured[0]:
            values = [metrics[name] for metrics in measured if name in metrics]
            spread = f" +- {stdev(values):.2g}" if len(values) > 1 else ""
            print(f"  {name:<12} {fmean(values):.4g}{spread}")
    return cli
