"""Tables with gaps, and models of them."""

import csv
import gzip
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from datamodules import CSVDataModule
from datamodules.base import Stage
from kindling.callbacks import PredictionWriter
from lit_models import LitMLP
from tests.helpers.trainers import quiet_trainer

Row = dict[str, Any]


NAMES = ("id", "a", "b", "c", "group", "day", "price", "y")


def table(size: int = 90, seed: int = 0) -> list[Row]:
    """Rows that are recognizable by `a`, with gaps in `b` and `c`; one in three has the class `yes`."""
    draw = random.Random(seed)
    rows = []
    for i in range(size):
        rows.append(
            {
                "id": f"r{seed}-{i:03}",
                "a": f"{i + 0.5}",
                "b": "" if i % 11 == 3 else str(draw.randint(0, 50)),
                "c": "" if i % 13 == 5 else draw.choice(["red", "green", "blue"]),
                "group": f"g{draw.randint(0, 17)}",
                "day": f"20{draw.randint(10, 24)}-0{draw.randint(1, 9)}-{draw.randint(10, 28)}",
                "price": f"{1e5 + 1000 * i + draw.randint(0, 99)}",
                "y": "no" if i % 3 else "yes",
            }
        )
    return rows


def write(
    path: Path, rows: list[Row], names: tuple[str, ...] = NAMES, header: bool = True, delimiter: str = ","
) -> str:
    """Write some columns of a table as text, packed if the name says so."""
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerows([names] * header + [[row[name] for name in names] for row in rows])
    return str(path)


Make = Callable[..., CSVDataModule]


def places(data: CSVDataModule, stage: Stage) -> list[int]:
    """Which rows of `table` are in a split; `a` is the first number."""
    samples, indices = data.splits[stage]
    return [int(a) for a in samples.x[indices][:, 0]]


def everywhere(data: CSVDataModule) -> list[int]:
    """Which rows are in any of the splits, sorted."""
    return sorted(place for stage in data.splits for place in places(data, stage))


class Trained(NamedTuple):
    """A checkpoint, and the data it was trained on."""

    folder: Path
    checkpoint: str
    data: CSVDataModule

    def open(self, path: str | Path, **options: Any) -> CSVDataModule:
        """Make the data of another table, of which nothing else is said."""
        return CSVDataModule(str(path), cache_dir=str(self.folder / "cache"), **options)

    def model(self) -> LitMLP:
        """Load the model."""
        return LitMLP.load_from_checkpoint(self.checkpoint, weights_only=True).eval()

    def predict(self, path: str | Path, **options: Any) -> list[dict[str, str]]:
        """Predict a table as a notebook would, and read the file."""
        out = self.folder / "predictions.csv"
        trainer = quiet_trainer(callbacks=[PredictionWriter(out)])
        data = self.open(path, **options)
        trainer.predict(self.model(), data, ckpt_path=self.checkpoint, return_predictions=False, weights_only=True)
        with out.open(newline="") as file:
            return list(csv.DictReader(file))

    def test(self, data: CSVDataModule) -> dict[str, float]:
        """Test as a notebook would."""
        trainer = quiet_trainer()
        return dict(trainer.test(self.model(), data, ckpt_path=self.checkpoint, verbose=False, weights_only=True)[0])


def train(folder: Path, path: str, **options: Any) -> Trained:
    """Train for two epochs, the plain notebook way."""
    data = CSVDataModule(path, cache_dir=str(folder / "cache"), batch_size=16, **options)
    torch.manual_seed(0)
    model = LitMLP(
        data.in_features,
        [8],
        task=data.task,
        num_outputs=data.num_outputs,
        cat_cardinalities=data.cat_cardinalities,
        lr=0.02,
    )
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(model, data)
    trainer.save_checkpoint(folder / "model.ckpt")
    return Trained(folder, str(folder / "model.ckpt"), data)


def by_key(predictions: list[dict[str, str]]) -> dict[str, float]:
    """Return the probability of `yes` under the key."""
    found = {row["id"]: float(row["probability_yes"]) for row in predictions}
    assert len(found) == len(predictions)
    return found


def shuffled(rows: list[Row]) -> list[Row]:
    return random.Random(5).sample(rows, len(rows))
