"""Embeddings in TensorBoard's projector."""

import re
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from datamodules import ToyDataModule
from kindling.callbacks import EmbeddingProjector, MistakeGrid
from kindling.callbacks.projector import LARGEST_SPRITE, _thumbnails
from lit_models import LitConvNet, LitSiamese
from tests.helpers.front_door import Run
from tests.helpers.tiny import TinyImages
from tests.helpers.trainers import quiet_trainer

TINY = "--model LitSiamese --model.encoder_args.channels [4] --data tests.helpers.tiny.TinyImages --max_epochs 1"


def test_a_run_shows_the_embeddings_of_its_test(run: Run) -> None:
    run(TINY)
    folder = Path("runs/LitSiamese-TinyImages/version_0")
    config = (folder / "projector_config.pbtxt").read_text()
    assert config.count("tensor_path:") == 1
    (points,) = folder.rglob("tensors.tsv")
    rows = [[float(number) for number in line.split("\t")] for line in points.read_text().splitlines()]
    assert (len(rows), len(rows[0])) == (12, 32)  # a fifth of sixty
    torch.testing.assert_close(torch.tensor(rows).norm(dim=1), torch.ones(12))
    names = (points.parent / "metadata.tsv").read_text().splitlines()
    data = TinyImages()
    samples, indices = data.splits["test"]
    assert names == [str(label) for label in samples.y[indices].tolist()]
    with Image.open(points.parent / "sprite.png") as sheet:
        assert sheet.size == (4 * 28, 4 * 28)
        first = torch.from_numpy(np.asarray(sheet)[:28, :28, 0].copy())
    assert first.equal(samples.x[indices[0], 0])


def test_a_test_of_a_checkpoint_takes_their_place(run: Run) -> None:
    run(TINY)
    folder = Path("runs/LitSiamese-TinyImages/version_0")
    for _ in range(2):
        run(f"test --ckpt_path {folder}/checkpoints/best.ckpt --data tests.helpers.tiny.TinyImages")
        (shown,) = re.findall('tensor_path: "(.*)"', (folder / "projector_config.pbtxt").read_text())
        assert shown.startswith("00000/")
        assert (folder / shown).is_file()


def test_points_are_taken_evenly_and_need_no_images(tmp_path: Path) -> None:
    model = LitSiamese("LitMLP", in_features=4, num_outputs=3)
    logger = TensorBoardLogger(tmp_path)
    data = ToyDataModule("iris", batch_size=2, test_fraction=0.5)  # batches of 8, 75 samples
    quiet_trainer(callbacks=[EmbeddingProjector(count=20)], logger=logger).test(model, data, verbose=False)
    (points,) = tmp_path.rglob("tensors.tsv")
    assert len(points.read_text().splitlines()) == 20
    names = (points.parent / "metadata.tsv").read_text().splitlines()
    assert set(names) == {"setosa", "versicolor", "virginica"}
    assert not list(tmp_path.rglob("sprite.png"))


def test_other_models_have_no_points_and_embeddings_are_no_mistakes(tmp_path: Path) -> None:
    for model, shown, hidden in (
        (LitConvNet(channels=[4]), "grid", "points"),
        (LitSiamese(encoder_args={"channels": [4]}), "points", "grid"),
    ):
        folder = tmp_path / type(model).__name__
        callbacks: list[Callback] = [MistakeGrid(folder / "grid"), EmbeddingProjector(folder / "points")]
        quiet_trainer(callbacks=callbacks).test(model, TinyImages(), verbose=False)
        assert (folder / shown).exists()
        assert not (folder / hidden).exists()


def test_many_large_images_become_small() -> None:
    x = torch.full((500, 1, 100, 50), 255, dtype=torch.uint8)
    small = _thumbnails([x] * 20)  # a hundred on each side
    assert small.shape == (10_000, 1, LARGEST_SPRITE // 100, LARGEST_SPRITE // 200)
    assert small.eq(1).all()
