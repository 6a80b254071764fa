"""Data of one's own are known by their content: a model is tested on what it has not seen, and used on all."""

import hashlib
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from datamodules import Samples
from datamodules.base import Stage
from datamodules.errors import DataError
from datamodules.sampler import Inputs, Split
from datamodules.user_data import UserDataModule, physical_memory
from lit_models import LitLogisticRegression
from tests.helpers.trainers import quiet_trainer


class Points(UserDataModule):
    """Numbers in a file, one a line, of two classes: below zero and above.

    Args:
        path: The file.
        kwargs: Options of `UserDataModule` and `DataModule`.
    """

    task = "binary"
    num_outputs = 1
    input_shape = (1,)
    class_names = ["below", "above"]  # noqa: RUF012  # as in the base

    def __init__(self, path: str = "", **kwargs: Any) -> None:
        super().__init__(path, **kwargs)

    @property
    def fingerprint(self) -> str:
        """What is in the file hashes to."""
        return hashlib.sha256(Path(self.path).read_bytes()).hexdigest()

    def _read(self) -> Tensor:
        return torch.tensor([[float(line)] for line in Path(self.path).read_text().split()])

    def load(self) -> dict[Stage, Samples]:
        """Read the file."""
        return {"train": self.everything}

    @property
    def everything(self) -> Samples:
        """All numbers with their classes."""
        x = self._read()
        return Samples(x, (x[:, 0] > 0).long())

    @property
    def unlabeled(self) -> Inputs:
        """All numbers."""
        return Inputs(self._read())


def points(path: Path, start: int = -20, stop: int = 20, **options: Any) -> Points:
    path.write_text("\n".join(str(number + 0.5) for number in range(start, stop)))
    return Points(str(path), batch_size=4, **options)


def size(loaders: list[Any]) -> int:
    return sum(len(batch if isinstance(batch, Tensor) else batch[0]) for loader in loaders for batch in loader)


def test_what_was_trained_on_is_tested_by_its_test_split(tmp_path: Path) -> None:
    data = points(tmp_path / "a.txt")
    quiet_trainer().fit(LitLogisticRegression(in_features=1, num_outputs=1, task="binary"), data)
    assert not data.is_new
    assert (size(data.val_dataloader()), size(data.test_dataloader())) == (3, 8)
    assert size(data.predict_dataloader()) == 40
    again = Points(str(tmp_path / "a.txt"))
    again.load_state_dict(data.state_dict())
    assert not again.is_new
    assert size(again.test_dataloader()) == 8


def test_other_data_are_tested_whole_and_in_their_order(tmp_path: Path) -> None:
    data = points(tmp_path / "a.txt")
    data.setup("fit")
    other = points(tmp_path / "b.txt", -5, 12)
    other.load_state_dict(data.state_dict())
    assert other.is_new
    for loaders in (other.val_dataloader(), other.test_dataloader()):
        x = torch.cat([x for x, _ in loaders[0]])
        assert torch.equal(x[:, 0], torch.arange(-5, 12) + 0.5)
    assert torch.equal(torch.cat(list(other.predict_dataloader()[0]))[:, 0], torch.arange(-5, 12) + 0.5)
    assert torch.equal(other.statistics["mean"], data.statistics["mean"])


class Ragged(Points):
    """Numbers of which each has as many digits as it has."""

    def _lengths(self, split: Split) -> Tensor | None:
        return torch.tensor([len(str(value)) for value in split.samples.x[split.indices, 0].tolist()])


def test_what_is_of_unequal_lengths_is_predicted_by_them_and_says_how(tmp_path: Path) -> None:
    assert points(tmp_path / "a.txt").prediction_order is None
    data = Ragged(str(tmp_path / "a.txt"), batch_size=2)
    assert data.prediction_order is None  # who looks at the batches themselves finds the rows in their order
    rows = data.unlabeled.x.index_select(0, torch.arange(40))
    assert torch.equal(torch.cat(list(data.predict_dataloader()[0])), rows)
    trainer = quiet_trainer()
    trainer.predicting, trainer.predict_loop.return_predictions = True, False
    data.trainer = trainer
    order = data.prediction_order
    assert order is not None
    assert order.sort().values.equal(torch.arange(40))
    batches = list(data.predict_dataloader()[0])
    assert torch.equal(torch.cat(batches), data.unlabeled.x.index_select(0, order))
    lengths = [len(str(value)) for value in torch.cat(batches)[:, 0].tolist()]
    assert lengths == sorted(lengths, reverse=True)


def test_predictions_that_are_given_back_are_in_the_order_of_the_rows(tmp_path: Path) -> None:
    class Same(LightningModule):
        def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            return batch

    points(tmp_path / "a.txt")
    data = Ragged(str(tmp_path / "a.txt"), batch_size=2)
    given = quiet_trainer().predict(Same(), data)
    rows = data.unlabeled.x.index_select(0, torch.arange(40))
    assert torch.equal(torch.cat([batch for batch in given or [] if isinstance(batch, Tensor)]), rows)


def test_a_moved_file_is_the_same_data(tmp_path: Path) -> None:
    data = points(tmp_path / "a.txt")
    data.setup("fit")
    moved = points(tmp_path / "b.txt")
    moved.load_state_dict(data.state_dict())
    assert not moved.is_new


def test_before_any_training_nothing_is_new(tmp_path: Path) -> None:
    data = points(tmp_path / "a.txt")
    assert not data.is_new
    assert size(data.test_dataloader()) == 8


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_other_splits_of_the_same_data_are_refused(tmp_path: Path, stage: str) -> None:
    model = LitLogisticRegression(in_features=1, num_outputs=1, task="binary")
    data = points(tmp_path / "a.txt")
    trainer = quiet_trainer(default_root_dir=tmp_path)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    run = getattr(quiet_trainer(), stage)
    with pytest.raises(DataError, match=r"seed=1: a model is tested with the splits it was trained with"):
        run(model, Points(str(tmp_path / "a.txt"), seed=1), ckpt_path=tmp_path / "a.ckpt", verbose=False)
    # All of other data are taken, however they would be divided.
    other = points(tmp_path / "b.txt", -3, 8, seed=1)
    run(model, other, ckpt_path=tmp_path / "a.ckpt", verbose=False)
    assert size(other.test_dataloader()) == 11


def test_training_goes_on_with_other_data_only_between_epochs(tmp_path: Path) -> None:
    model = LitLogisticRegression(in_features=1, num_outputs=1, task="binary")
    trainer = quiet_trainer(max_steps=3, max_epochs=-1, default_root_dir=tmp_path)
    trainer.fit(model, points(tmp_path / "a.txt"))
    trainer.save_checkpoint(tmp_path / "within.ckpt")
    trainer = quiet_trainer(default_root_dir=tmp_path)
    trainer.fit(model, points(tmp_path / "a.txt"))
    trainer.save_checkpoint(tmp_path / "between.ckpt")

    with pytest.raises(
        DataError, match=r"b\.txt': this run was interrupted within an epoch on other data; finish it th"
    ):
        quiet_trainer(max_epochs=2).fit(model, points(tmp_path / "b.txt", -9, 30), ckpt_path=tmp_path / "within.ckpt")
    other = points(tmp_path / "b.txt", -9, 30)
    quiet_trainer(max_epochs=2).fit(model, other, ckpt_path=tmp_path / "between.ckpt")
    assert not other.is_new, "what is trained on now is not all validated on"
    assert size(other.test_dataloader()) == 8
    assert other.state_dict()["trained_on"] == other.fingerprint


def test_memory_is_known_or_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    assert physical_memory() > 1e8

    def unknown(name: str) -> int:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "sysconf", unknown)
    assert physical_memory() == math.inf
    monkeypatch.delattr(os, "sysconf")
    assert physical_memory() == math.inf
