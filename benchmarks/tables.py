"""What tables reach by default, beside TabM, the recipes, and scikit-learn's models, each on the same splits."""

import contextlib
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.front_door import train
from datamodules import CSVDataModule

CONFIGS = Path(__file__).parent.parent / "configs"
FEW = 2000  # rows; of tables with fewer, five folds are tested instead of one split
# Targets and what is left out; without a target it is the last column.
TABLES: dict[str, str] = {
    "more/abalone.csv": "--data.task regression",
    "more/breast-cancer.csv": "",
    "more/german.csv": "",
    "more/glass.csv": "",
    "more/housing.csv": "--data.task regression",
    "more/ionosphere.csv": "",
    "more/mpg.csv": "--data.target mpg --data.task regression",
    "more/phoneme.csv": "",
    "more/taxis.csv": "--data.target total --data.task regression --data.exclude [fare,tip,tolls]",
    "more/winequality-red.csv": "--data.task regression",
    "california_housing.csv": "--data.target median_house_value",
    "pima_diabetes.csv": "--data.target Outcome",
    "titanic.csv": "--data.target Survived",
}
NETWORKS = {  # the recipe `table_mlp` is the default, written out
    "default": "--model LitMLPEnsemble",
    "LitTabM": "--model LitTabM",
    "LitMLP": "--model LitMLP",
    "table_tabm": f"--config {CONFIGS}/table_tabm.yaml",
}
QUIET = "--baselines false --doctor false"
OTHERS = ("linear", "boosting", "forest")


def run(data_dir: str, repeats: int = 3, networks: tuple[str, ...] = tuple(NETWORKS)) -> None:
    """Print the error of each model relative to the best of scikit-learn's.

    The error is 1 - accuracy, or the root mean squared error, and the mean over splits and seeds. Scikit-learn's models
    learn from the training and the validation rows; ours learn from the training rows only.

    Args:
        data_dir: A folder with `tabular/*.csv` and `tabular/more/*.csv`.
        repeats: How many seeds each figure is a mean of.
        networks: Which of `NETWORKS` to run.
    """
    folder = Path(data_dir).resolve() / "tabular"
    names = [*networks, *OTHERS]
    print(f"\nError relative to the best of {', '.join(OTHERS)}, seeds 0 to {repeats - 1}\n")
    print(f"| table | rows | best error | {' | '.join(names)} | seconds of a default fit |")
    print("|---" * (len(names) + 4) + "|")
    relative: dict[str, list[float]] = {name: [] for name in names}
    ranks: dict[str, list[int]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as work, contextlib.chdir(work):  # where runs go
        for file, options in TABLES.items():
            errors, seconds, rows = _errors(f"--data.path {folder / file} {options}", repeats, networks)
            best = min(errors[name] for name in OTHERS)
            for name in names:
                relative[name].append(errors[name] / best)
                ranks[name].append(1 + sum(errors[other] < errors[name] for other in names))
            cells = " | ".join(f"{errors[name] / best:.3f}" for name in names)
            print(f"| {Path(file).stem} | {rows:,} | {best:.4g} | {cells} | {seconds:.0f} |", flush=True)
    means = (f"{math.exp(statistics.fmean(map(math.log, relative[name]))):.3f}" for name in names)
    print(f"| geometric mean | | | {' | '.join(means)} | |")
    print(f"| mean rank | | | {' | '.join(f'{statistics.fmean(ranks[name]):.2f}' for name in names)} | |")


def _errors(options: str, repeats: int, networks: tuple[str, ...]) -> tuple[dict[str, float], float, int]:
    """Return the mean error of each model, the mean seconds of the first network's fit, and the number of rows."""
    found: dict[str, list[float]] = {name: [] for name in (*networks, *OTHERS)}
    seconds: list[float] = []
    folds, rows = 1, 0
    for seed in range(repeats):
        fold = 0
        while fold < folds:
            split = f"{options} --data.seed {seed} --data.num_folds 5 --data.fold {fold}"
            for name in networks:
                begin = time.perf_counter()
                cli, _ = train(f"{NETWORKS[name]} --data CSVDataModule {split} --seed_everything {seed} {QUIET}")
                seconds += [time.perf_counter() - begin] if name == networks[0] else []
                test = cli.summary.summary["test"]
                found[name].append(test["test_rmse"] if "test_rmse" in test else 1 - test["test_acc"])
                data = cli.datamodule
            rows = sum(split.size for split in data.splits.values())
            folds = 5 if rows < FEW else 1
            for name, error in _scikit_learn(data).items():
                found[name].append(error)
            fold += 1
    return {name: statistics.fmean(each) for name, each in found.items()}, statistics.fmean(seconds), rows


def _scikit_learn(data: CSVDataModule) -> dict[str, float]:
    """Fit scikit-learn's models, as they come, to the training and validation rows, and return their test errors."""
    from sklearn import ensemble, linear_model
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    samples, test = data.splits["test"]
    fitted = torch.cat([data.splits[stage].indices for stage in ("train", "val")])
    x, y = samples.x.numpy(), samples.y.numpy()
    codes = list(range(data.in_features - len(data.cat_cardinalities), data.in_features))
    numbers = list(range(data.in_features - len(codes)))
    columns = make_column_transformer((StandardScaler(), numbers), (OneHotEncoder(handle_unknown="ignore"), codes))
    kind, linear = "Classifier", linear_model.LogisticRegression(max_iter=2000)
    if data.task == "regression":
        kind, linear = "Regressor", linear_model.RidgeCV(np.logspace(-3, 3, 13))
    # Trees of scikit-learn take at most 255 categories of a column.
    categorical = [code for code, size in zip(codes, data.cat_cardinalities, strict=True) if size <= 255]
    boosting = getattr(ensemble, f"HistGradientBoosting{kind}")(random_state=0, categorical_features=categorical)
    models: dict[str, Any] = {
        "linear": make_pipeline(columns, linear),
        "boosting": boosting,
        "forest": getattr(ensemble, f"RandomForest{kind}")(300, random_state=0, n_jobs=-1),
    }

    def error(model: Any) -> float:  # noqa: ANN401  # scikit-learn has no types
        predicted: NDArray[Any] = model.fit(x[fitted], y[fitted]).predict(x[test])
        if data.task == "regression":
            return float(np.sqrt(np.square(predicted - y[test]).mean()))
        return float((predicted != y[test]).mean())

    return {name: error(model) for name, model in models.items()}
