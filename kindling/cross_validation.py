"""Cross-validation: a fit for each fold, and what they find together."""

from collections.abc import Callable
from statistics import fmean, stdev
from typing import Any, TypeVar

from kindling.runs import is_first_process

Cli = TypeVar("Cli", bound=Any)


def cross_validate(fit: Callable[[int], Cli]) -> Cli:
    """Fit once for every fold, and print the mean and the standard deviation of each metric.

    Args:
        fit: Runs the command line with one fold held out.

    Returns:
        The command of the last fold.
    """
    measured: list[dict[str, float]] = []
    baselines: list[dict[str, dict[str, float]]] = []
    while True:
        cli = fit(len(measured))
        # The fold is the test split, or the validation split where the data have a test split of their own.
        measured.append(cli.summary.summary.get("test" if cli.datamodule.fold_is_test else "best", {}))
        baselines.append(cli.summary.summary.get("baselines", {}) if cli.datamodule.fold_is_test else {})
        num_folds = cli.datamodule.num_folds
        if is_first_process():
            print(f"fold {len(measured)} of {num_folds}:", *(f"{k} {v:.4g}" for k, v in measured[-1].items()), sep="  ")
        if len(measured) == num_folds:
            break
    if is_first_process() and measured[0]:
        print(f"mean and standard deviation over {len(measured)} folds")
        for name in measured[0]:
            print(f"  {name:<12} {_mean([metrics[name] for metrics in measured if name in metrics])}")
        for name in reversed(baselines[0]):
            folds = [found[name] for found in baselines if name in found]
            if len(folds) == len(measured):  # the commonest class may be another in each fold
                means = [f"{of} {_mean([fold[of] for fold in folds])}" for of in measured[0] if of in folds[0]]
                print(f"  baseline {name:<{max(map(len, baselines[0]))}}", *means, sep="  ")
    return cli


def _mean(values: list[float]) -> str:
    """Return the mean of the folds, and their standard deviation."""
    return f"{fmean(values):.4g}" + (f" +- {stdev(values):.2g}" if len(values) > 1 else "")
