"""What real tables reach: cross-validated accuracy, and the error beside that of gradient-boosted trees."""

import contextlib
import re
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.front_door import train
from datamodules import CSVDataModule

ROOT = Path(__file__).parent.parent


def run(data_dir: str, repeats: int = 3) -> None:
    """Print both tables.

    Args:
        data_dir: A folder with `tabular/pima_diabetes.csv`, `titanic.csv` and `california_housing.csv`.
        repeats: How many seeds each figure is a mean of.
    """
    folder = Path(data_dir).resolve() / "tabular"
    with tempfile.TemporaryDirectory() as work, contextlib.chdir(work):  # where runs and predictions go
        _classification(folder, repeats)
        _regression(folder, repeats)


def _classification(folder: Path, repeats: int) -> None:
    print(f"\nFive-fold cross-validation with only path and target given, mean of seeds 0 to {repeats - 1}\n")
    print("| table | test_acc | test_auroc |")
    print("|---|---|---|")
    for file, target in (("pima_diabetes.csv", "Outcome"), ("titanic.csv", "Survived")):
        measured = [
            train(
                f"cross_validate --data CSVDataModule --data.path {folder / file} --data.target {target} "
                f"--model LitMLP --data.seed {seed} --seed_everything {seed}"
            )[1]
            for seed in range(repeats)
        ]
        cells = []
        for name in ("test_acc", "test_auroc"):
            means = [float(re.findall(rf"^ +{name} +([\d.]+)", text, re.M)[0]) for text in measured]
            cells.append(f"{statistics.fmean(means):.4f} ({', '.join(f'{mean:.4f}' for mean in means)})")
        print(f"| {file} | {' | '.join(cells)} |", flush=True)


def _regression(folder: Path, repeats: int) -> None:
    path, target = folder / "california_housing.csv", "median_house_value"
    print(f"\n{path.name}: test_rmse and its ratio to scikit-learn's HistGradientBoostingRegressor on the same split\n")
    print("| data seed | trees | table_mlp | table_tabm |")
    print("|---|---|---|---|")
    for seed in range(repeats):
        trees = _trees(CSVDataModule(str(path), target=target, seed=seed))
        cells = []
        for recipe in ("table_mlp", "table_tabm"):
            _, text = train(
                f"--config {ROOT}/configs/{recipe}.yaml --data.path {path} --data.target {target} --data.seed {seed} "
                f"--seed_everything {seed}"
            )
            rmse = float(re.findall(r"test_rmse ([\d.]+)", text)[0])
            cells.append(f"{rmse:,.0f} ({rmse / trees:.3f})")
        print(f"| {seed} | {trees:,.0f} | {' | '.join(cells)} |", flush=True)


def _trees(data: CSVDataModule) -> float:
    """Fit the trees, as they come, to the training and validation rows, and return their error on the test rows."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    samples, test = data.splits["test"]
    fitted = torch.cat([data.splits["train"].indices, data.splits["val"].indices])
    codes = list(range(data.in_features - len(data.cat_cardinalities), data.in_features))
    model = HistGradientBoostingRegressor(random_state=0, categorical_features=codes)
    model.fit(samples.x[fitted].numpy(), samples.y[fitted].numpy())
    errors = model.predict(samples.x[test].numpy()) - samples.y[test].numpy()
    return float(np.sqrt(np.square(errors).mean()))
