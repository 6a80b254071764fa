"""What TensorBoard shows of a test: the worst mistakes, and embeddings in its projector."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from datamodules import ToyDataModule
from kindling.callbacks import EmbeddingProjector, MistakeGrid, figures
from kindling.callbacks.figures import CAPTION, CELL, COLUMNS, GAP, LARGEST_SPRITE, _thumbnails, draw
from lit_models import LitConvNet, LitLinearRegression, LitMLP, LitModule, LitSiamese, LitTabM
from tests.helpers.front_door import Run
from tests.helpers.tiny import TinyImages
from tests.helpers.trainers import quiet_trainer

TINY = "--model LitConvNet --model.channels [4] --data tests.helpers.tiny.TinyImages --max_epochs 1"
SIAMESE = "--model LitSiamese --model.encoder_args.channels [4] --data tests.helpers.tiny.TinyImages --max_epochs 1"


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, list[tuple[str, str]]]]:
    """The images and captions of every grid that is drawn."""
    grids: list[tuple[Tensor, list[tuple[str, str]]]] = []

    def note(x: Tensor, captions: list[tuple[str, str]]) -> NDArray[np.uint8]:
        grids.append((x, captions))
        return draw(x, captions)

    monkeypatch.setattr(figures, "draw", note)
    return grids


def _grids(folder: Path) -> list[NDArray[np.uint8]]:
    """Read the grids that TensorBoard has."""
    found = []
    for path in sorted(folder.rglob("events.out.*")):
        events = EventAccumulator(str(path))
        events.Reload()
        if "test/mistakes" in events.Tags()["images"]:
            found += [_decode(image.encoded_image_string) for image in events.Images("test/mistakes")]
    return found


def _decode(png: bytes) -> NDArray[np.uint8]:
    import io

    return np.asarray(Image.open(io.BytesIO(png)))


class Told(LitModule):
    """Returns as logits what the first pixels of each image hold, in tenths.

    Args:
        kwargs: Options of `LitModule`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.net = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Read them."""
        return x[:, 0, 0, : self.num_outputs].float() / 10


def _images(logits: Tensor, channels: int = 3) -> Tensor:
    x = torch.randint(0, 256, (len(logits), channels, 12, 16), dtype=torch.uint8)
    x[:, 0, 0, : logits.shape[1]] = logits
    return x


def _loader(x: Tensor, y: Tensor) -> DataLoader[Any]:
    return DataLoader(TensorDataset(x, y), batch_size=7)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 5, 16, 500])
def test_the_most_confident_mistakes_of_all_batches_are_shown_in_order(
    drawn: list[tuple[Tensor, list[tuple[str, str]]]], channels: int, count: int
) -> None:
    torch.manual_seed(0)
    logits = torch.randint(0, 60, (100, 5))
    x, y = _images(logits, channels), torch.randint(0, 5, (100,))
    quiet_trainer(callbacks=[MistakeGrid(count=count)]).test(Told(num_outputs=5), _loader(x, y), verbose=False)
    shares = (logits / 10).softmax(1)
    confidence, guess = shares.max(1)
    wrong = (guess != y).nonzero()[:, 0]
    worst = wrong[confidence[wrong].argsort(descending=True)][:count]
    ((shown, captions),) = drawn
    assert len(shown) == min(count, len(wrong)) == len(worst)
    told = [(f"{confidence[i]:.2f} {guess[i]}", f"is {y[i]}") for i in worst.tolist()]
    assert captions == told
    assert len(set(confidence[worst].tolist())) == len(worst)  # no two are the same, so the order is one
    assert shown.equal(x[worst])


def test_of_two_classes_too(drawn: list[tuple[Tensor, list[tuple[str, str]]]]) -> None:
    x = _images(torch.tensor([[20], [200], [5], [0]]))
    y = torch.tensor([0, 0, 1, 1])
    quiet_trainer(callbacks=[MistakeGrid()]).test(Told(task="binary", num_outputs=1), _loader(x, y), verbose=False)
    ((shown, captions),) = drawn
    # Of a logit of 0 the probability of either class is a half, and the first one is named.
    assert captions == [("1.00 1", "is 0"), ("0.88 1", "is 0"), ("0.50 0", "is 1")]
    assert shown.equal(x[[1, 0, 3]])


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_column_of_labels_is_as_good_as_a_row(drawn: list[Any], task: Any) -> None:  # noqa: ANN401  # a TaskName
    outputs = 1 if task == "binary" else 3
    x, y = _images(torch.full((9, outputs), 30)), torch.arange(9)[:, None] % 2
    quiet_trainer(callbacks=[MistakeGrid()]).test(Told(task=task, num_outputs=outputs), _loader(x, y), verbose=False)
    assert len(drawn[0][1]) == (5 if task == "binary" else 4)


def test_where_all_is_right_there_is_no_grid(tmp_path: Path, drawn: list[Any]) -> None:
    logits = torch.eye(3, dtype=torch.long).repeat(4, 1) * 100
    x, y = _images(logits), torch.arange(3).repeat(4)
    quiet_trainer(callbacks=[MistakeGrid(tmp_path)]).test(Told(num_outputs=3), _loader(x, y), verbose=False)
    assert not drawn
    assert not list(tmp_path.iterdir())


def test_one_test_knows_nothing_of_another(drawn: list[Any]) -> None:
    right, wrong = _images(torch.tensor([[100, 0, 0]])), _images(torch.tensor([[0, 0, 50]]))
    zero, model = torch.tensor([0]), Told(num_outputs=3)
    trainer = quiet_trainer(callbacks=[MistakeGrid()])
    trainer.test(model, _loader(wrong, zero), verbose=False)
    trainer.test(model, _loader(right, zero), verbose=False)
    trainer.test(model, _loader(wrong, zero), verbose=False)
    assert [len(captions) for _, captions in drawn] == [1, 1]


def test_classes_have_their_names(drawn: list[Any]) -> None:
    data = TinyImages()
    data.class_names = [f"the {name}" for name in "abcdefghij"]
    quiet_trainer(callbacks=[MistakeGrid()]).test(LitConvNet(channels=[4]), data, verbose=False)
    for guess, truth in drawn[0][1]:
        assert guess[4:].startswith(" the ")
        assert truth.startswith("is the ")


@pytest.mark.parametrize("kind", ["table", "tabm", "regression", "regression of counts", "four channels", "floats"])
def test_where_there_are_no_wrong_images_there_is_no_grid(drawn: list[Any], kind: str) -> None:
    trainer = quiet_trainer(callbacks=[MistakeGrid()])
    if kind == "table":
        trainer.test(LitMLP(4, [4], num_outputs=3), ToyDataModule("iris"), verbose=False)
    elif kind == "tabm":
        model = LitTabM(13, num_outputs=3, k=4, width=8)
        trainer.test(model, ToyDataModule("wine"), verbose=False)
    elif kind == "four channels":
        trainer.test(LitConvNet((4, 12, 16), [4]), _loader(_images(torch.zeros(9, 1), 4), torch.ones(9).long()))
    elif kind.startswith("regression"):
        y = torch.arange(9) if kind.endswith("counts") else torch.rand(9)
        model_ = LitConvNet((3, 12, 16), [4], task="regression", num_outputs=1)
        trainer.test(model_, _loader(_images(torch.zeros(9, 1)), y), verbose=False)
        trainer.test(LitLinearRegression(10), ToyDataModule("diabetes"), verbose=False)
    else:
        binary = Told(task="binary", num_outputs=1)
        trainer.test(binary, _loader(_images(torch.zeros(9, 1)), torch.ones(9)), verbose=False)
    assert not drawn


class Scalar(LightningModule):
    """A model of somebody else, whose test step returns its loss.

    Args:
        gives: What it returns: a loss, None, or something else.
    """

    def __init__(self, gives: object) -> None:
        super().__init__()
        self.gives = gives

    def test_step(self, batch: object, batch_idx: int) -> Any:  # noqa: ANN401  # a step may give anything
        """Return it."""
        return self.gives


@pytest.mark.parametrize(
    "gives", [torch.tensor(0.5), {"loss": torch.tensor(0.5)}, None, torch.zeros(3), torch.zeros(7, 3, 12, 16)], ids=repr
)
def test_a_model_of_another_kind_is_left_alone(drawn: list[Any], gives: object) -> None:
    x, y = _images(torch.zeros(7, 1)), torch.ones(7).long()
    quiet_trainer(callbacks=[MistakeGrid()]).test(Scalar(gives), _loader(x, y), verbose=False)
    assert not drawn


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_nan_is_no_mistake(drawn: list[Any], task: Any) -> None:  # noqa: ANN401  # a TaskName
    outputs = 1 if task == "binary" else 3
    x = torch.full((8, 3, 12, 16), float("nan"))
    y = torch.ones(8).long()
    model = Told(task=task, num_outputs=outputs)
    model.test_metrics.reset()
    trainer = quiet_trainer(callbacks=[MistakeGrid()])
    trainer.test(model, _loader(x, y), verbose=False)
    assert not drawn
    x[3] = 0
    x[3, 0, 0, 0] = -50 if task == "binary" else 50
    trainer.test(model, _loader(x, y), verbose=False)
    assert [len(captions) for _, captions in drawn] == [1]


# The grid


WIDTH, HEIGHT = CELL + GAP, CELL + CAPTION + GAP  # of an image with caption and gap


def _cell(grid: NDArray[np.uint8], place: int) -> NDArray[np.uint8]:
    left, top = place % COLUMNS * WIDTH, place // COLUMNS * HEIGHT
    return grid[top : top + CELL, left : left + CELL]


def test_images_are_drawn_in_rows_with_captions_below() -> None:
    x = torch.zeros(6, 3, 8, 8, dtype=torch.uint8)
    for number in range(6):
        x[number, number % 3] = 40 * number + 40
    grid = draw(x, [("", "")] * 5 + [("0.99 a cat", "is a dog")])
    assert grid.shape == (2 * HEIGHT, COLUMNS * WIDTH, 3)
    for number in range(6):
        assert (_cell(grid, number) == x[number, :, 0, 0].numpy()).all()
    assert (_cell(grid, 6) == 255).all()
    below = grid[HEIGHT + CELL :, WIDTH : 2 * WIDTH]
    assert (below < 128).any()
    assert (grid[CELL:HEIGHT] == 255).all()
    assert (grid[:, CELL:WIDTH] == 255).all()


def test_few_images_need_no_whole_row() -> None:
    assert draw(torch.zeros(1, 1, 5, 5), [("a", "b")]).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("size", [(8, 4), (4, 8), (1, 400), (300, 200)])
def test_images_keep_their_aspect(size: tuple[int, int]) -> None:
    grid = draw(torch.zeros(1, 3, *size, dtype=torch.uint8), [("", "")])
    black = (grid == 0).all(2)
    assert black.any(1).sum() == pytest.approx(max(1, CELL * size[0] / max(size)), abs=1)
    assert black.any(0).sum() == pytest.approx(max(1, CELL * size[1] / max(size)), abs=1)


def test_gray_and_floating_point_are_shown_as_they_are() -> None:
    gray = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    captions = [("", "")] * 2
    expected = draw(gray.expand(-1, 3, -1, -1), captions)
    np.testing.assert_array_equal(draw(gray, captions), expected)
    np.testing.assert_array_equal(draw(gray / 255, captions), expected)
    np.testing.assert_array_equal(draw((gray / 255).double(), captions), expected)
    white = draw(torch.tensor([[[[7.0, -3.0]]]]), [("", "")])
    assert (white[10, 10] == 255).all()
    assert (white[10, CELL - 10] == 0).all()


def test_long_names_and_any_letters_can_be_written() -> None:
    draw(torch.zeros(1, 3, 8, 8), [("0.99 " + "x" * 500, "is Ameise 蚂蚁 🐜\nline")])


# In TensorBoard


def test_the_grid_is_in_tensorboard(tmp_path: Path, drawn: list[Any]) -> None:
    logger = TensorBoardLogger(tmp_path, "", "")
    trainer = quiet_trainer(logger=logger, callbacks=[MistakeGrid(tmp_path / "other")], max_epochs=2)
    model, data = LitConvNet(channels=[4]), TinyImages()
    trainer.fit(model, data)
    assert not _grids(tmp_path)
    trainer.test(model, data, verbose=False)
    logger.experiment.flush()
    (grid,) = _grids(tmp_path)
    np.testing.assert_array_equal(grid, draw(*drawn[0]))
    assert not (tmp_path / "other").exists()


def test_it_goes_to_the_run_that_is_tested(run: Run) -> None:
    cli = run(TINY)
    folder = Path(cli.trainer.default_root_dir)
    assert len(_grids(folder)) == 1
    run(f"test --ckpt_path {folder}/checkpoints/best.ckpt --data tests.helpers.tiny.TinyImages")
    first, second = _grids(folder)
    np.testing.assert_array_equal(first, second)
    assert not list(Path().glob("lightning_logs"))


def test_a_checkpoint_elsewhere_has_no_run_to_go_to(run: Run, tmp_path: Path) -> None:
    cli = run(f"{TINY} --logger false")
    folder = Path(cli.trainer.default_root_dir)
    assert not list(folder.glob("events.out.*"))
    moved = tmp_path / "models" / "mine" / "best.ckpt"
    moved.parent.mkdir(parents=True)
    (folder / "checkpoints" / "best.ckpt").rename(moved)
    before = set(Path().rglob("*")) | set((tmp_path / "models").rglob("*"))
    run(f"test --ckpt_path {moved} --data tests.helpers.tiny.TinyImages")
    assert set(Path().rglob("*")) | set((tmp_path / "models").rglob("*")) == before


def test_no_other_stage_has_one_nor_who_wants_no_logger(run: Run) -> None:
    cli = run(f"{TINY} --fast_dev_run true")
    assert not Path("runs").exists()
    cli = run(TINY)
    folder = Path(cli.trainer.default_root_dir)
    run(f"validate --ckpt_path {folder}/checkpoints/best.ckpt --data tests.helpers.tiny.TinyImages")
    run(f"test --ckpt_path {folder}/checkpoints/best.ckpt --data tests.helpers.tiny.TinyImages --logger false")
    run(f"predict --ckpt_path {folder}/checkpoints/best.ckpt --data tests.helpers.tiny.TinyImages")
    assert len(_grids(folder)) == 1


def test_a_run_shows_the_embeddings_of_its_test(run: Run) -> None:
    run(SIAMESE)
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
    run(SIAMESE)
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
