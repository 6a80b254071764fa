"""Known data sets of images, from their files or scikit-learn's."""

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch

from datamodules import DataError, DigitsDataModule, FashionMNISTDataModule, MNISTDataModule
from datamodules.images import mnist
from lit_models import LitMLP
from tests.helpers.mnist_files import write_idx, write_mnist
from tests.helpers.trainers import quiet_trainer

FILES = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]


@pytest.fixture(autouse=True)
def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The downloads that were asked for, all of which fail."""
    asked: list[str] = []

    def offline(url: str, *_: str) -> None:
        asked.append(url)
        raise URLError("no network")

    monkeypatch.setattr(mnist, "download_url", offline)
    return asked


@pytest.fixture
def extracted(tmp_path: Path) -> Path:
    """Torchvision's folder of MNIST with three images for each part, in extracted files."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in FILES:
        shape = (3, 28, 28) if "images" in name else (3,)
        write_idx(folder / name, torch.arange(3).view(-1, *[1] * (len(shape) - 1)).expand(shape))
    return folder


def test_the_digits_are_small_gray_images() -> None:
    data = DigitsDataModule()
    given = data.load()
    samples = given["train"]
    assert given.keys() == {"train"}
    assert samples.x.shape == (1797, 1, 8, 8)
    assert samples.x.dtype == torch.uint8
    assert (samples.x.min().item(), samples.x.max().item()) == (0, 255)
    assert len(samples.x.unique()) == 17
    assert samples.y[:12].tolist() == [*range(10), 0, 1]
    assert (data.task, data.num_outputs, data.input_shape, data.in_features) == ("multiclass", 10, (1, 8, 8), 64)
    assert data.class_names == list("0123456789")


@pytest.mark.parametrize(
    ("cls", "labels", "sums", "names"),
    [
        (MNISTDataModule, [5, 0, 4, 1, 9], [1567298545, 264923200], ["0", "9"]),
        (FashionMNISTDataModule, [9, 0, 0, 3, 0], [3431114169, 573469082], ["T-shirt/top", "Ankle boot"]),
    ],
)
def test_the_official_splits_are_read(
    cls: type[MNISTDataModule], labels: list[int], sums: list[int], names: list[str], data_dir: str, requests: list[str]
) -> None:
    data = cls(data_dir)
    train, test = data.load().values()
    assert (train.x.shape, test.x.shape) == ((60000, 1, 28, 28), (10000, 1, 28, 28))
    assert train.x.dtype == torch.uint8
    assert train.y.dtype == torch.int64
    assert (len(train.y), len(test.y)) == (60000, 10000)
    assert train.y[:5].tolist() == labels
    assert [int(part.x.sum()) for part in (train, test)] == sums
    assert data.class_names is not None
    assert [data.class_names[0], data.class_names[-1]] == names
    packed = Path(data_dir) / cls.source.__name__ / "raw" / "t10k-images-idx3-ubyte.gz"
    pixels = np.frombuffer(gzip.decompress(packed.read_bytes())[16:], dtype=np.uint8).reshape(10000, 28, 28)
    assert (test.x[:, 0].numpy() == pixels).all()
    assert requests == []


def test_a_folder_that_holds_the_packed_files_will_do(data_dir: str, requests: list[str]) -> None:
    data = MNISTDataModule(f"{data_dir}/MNIST/raw")
    assert {stage: len(split.indices) for stage, split in data.splits.items()} == {
        "train": 54000,
        "val": 6000,
        "test": 10000,
    }
    assert requests == []


@pytest.mark.usefixtures("extracted")
def test_extracted_files_will_do(tmp_path: Path, requests: list[str]) -> None:
    train, test = MNISTDataModule(str(tmp_path)).load().values()
    assert train.y.tolist() == test.y.tolist() == [0, 1, 2]
    assert train.x[:, 0, 3, 3].tolist() == [0, 1, 2]
    assert requests == []


@pytest.mark.parametrize("cls", [MNISTDataModule, FashionMNISTDataModule])
def test_both_data_sets_are_split_and_augmented(
    cls: type[MNISTDataModule], tmp_path: Path, requests: list[str]
) -> None:
    data = cls(str(write_mnist(tmp_path)), shift=2, rotation=10, batch_size=50)
    assert {stage: split.size for stage, split in data.splits.items()} == {"train": 216, "val": 24, "test": 60}
    for loader in (data.train_dataloader(), *data.val_dataloader(), *data.test_dataloader()):
        x, y = next(iter(loader))
        assert (x.shape[1:], x.dtype, y.dtype) == ((1, 28, 28), torch.uint8, torch.int64)
    assert not data.augment(x).equal(x)


def test_a_model_learns_the_digits_of_mnists_files(tmp_path: Path) -> None:
    data = MNISTDataModule(str(write_mnist(tmp_path)), batch_size=16, val_fraction=0, shift=1)
    model = LitMLP(in_features=784, num_outputs=10, hidden=[64], lr=0.01, task="multiclass")
    trainer = quiet_trainer(max_epochs=8)
    trainer.fit(model, data)
    assert trainer.test(model, data, verbose=False)[0]["test_acc"] > 0.75


def test_extracted_files_that_could_be_anybodys_will_not(extracted: Path) -> None:
    with pytest.raises(DataError, match="could not be downloaded"):
        FashionMNISTDataModule(str(extracted)).load()


def test_images_and_labels_of_different_numbers_are_refused(extracted: Path, tmp_path: Path) -> None:
    write_idx(extracted / FILES[1], torch.arange(2))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte: images of \(3, 28, 28\) do not go with 2 labels"):
        MNISTDataModule(str(tmp_path)).load()


def _is_damaged(data: MNISTDataModule, path: Path) -> None:
    with pytest.raises(DataError, match="damaged") as error:
        data.load()
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message


@pytest.mark.parametrize("name", [FILES[0], FILES[3]])
def test_a_damaged_packed_file_is_named(extracted: Path, name: str) -> None:
    path = extracted / f"{name}.gz"
    path.write_bytes(gzip.compress((extracted / name).read_bytes()))  # readable, but not what was published
    _is_damaged(MNISTDataModule(str(extracted.parent.parent)), path)


@pytest.mark.parametrize("size", [0, 3, 10, 100, -1])
def test_a_truncated_extracted_file_is_named(extracted: Path, size: int) -> None:
    path = extracted / FILES[2]
    path.write_bytes(path.read_bytes()[:size])
    _is_damaged(MNISTDataModule(str(extracted.parent.parent)), path)


def test_an_extracted_file_of_another_kind_is_named(extracted: Path) -> None:
    path = extracted / FILES[0]
    path.write_bytes(b"<html>" * 1000)
    _is_damaged(MNISTDataModule(str(extracted.parent.parent)), path)


def test_mnist_is_no_fashion(data_dir: str) -> None:
    folder = Path(data_dir) / "MNIST" / "raw"
    with pytest.raises(DataError, match="damaged") as error:
        FashionMNISTDataModule(str(folder)).load()
    assert str(folder / "train-images-idx3-ubyte.gz") in str(error.value)


def test_a_failed_download_names_the_file_the_reason_and_the_remedy(tmp_path: Path, requests: list[str]) -> None:
    with pytest.raises(DataError) as error:
        MNISTDataModule(str(tmp_path)).prepare_data()
    message = str(error.value)
    assert str(tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte.gz") in message
    assert "no network" in message
    assert "`data_dir`" in message
    assert requests == [f"{mirror}train-images-idx3-ubyte.gz" for mirror in MNISTDataModule.source.mirrors]


def test_a_failed_download_leaves_no_folder_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str, root: str, *_: str) -> None:
        Path(root).mkdir(parents=True, exist_ok=True)  # as torchvision does
        raise URLError("no network")

    monkeypatch.setattr(mnist, "download_url", fail)
    with pytest.raises(DataError, match="no network"):
        MNISTDataModule(str(tmp_path / "new")).prepare_data()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "FashionMNIST").mkdir()
    (tmp_path / "FashionMNIST" / "mine").touch()
    for cls, folder in ((MNISTDataModule, tmp_path / "mine"), (FashionMNISTDataModule, tmp_path)):
        with pytest.raises(DataError, match="no network"):
            cls(str(folder)).prepare_data()
    assert sorted(tmp_path.rglob("*")) == [tmp_path / name for name in ("FashionMNIST", "FashionMNIST/mine", "mine")], (
        "only what was made is removed"
    )


Fetch = Callable[[str, str, str, str], None]


@pytest.fixture
def fetch(data_dir: str, requests: list[str]) -> Fetch:
    """A download that takes the file from the folder of real data."""

    def copy(url: str, root: str, filename: str, md5: str) -> None:
        requests.append(url)
        Path(root).mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(data_dir) / "MNIST" / "raw" / filename, root)

    return copy


def test_what_is_missing_is_downloaded_and_nothing_else(
    extracted: Path, fetch: Fetch, requests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist, "download_url", fetch)
    (extracted / FILES[3]).unlink()
    data = MNISTDataModule(str(extracted.parent.parent))
    for _ in range(2):
        data.prepare_data()
    assert [url.rpartition("/")[2] for url in requests] == [f"{FILES[3]}.gz"]
    assert (extracted / f"{FILES[3]}.gz").is_file()


def test_another_mirror_helps_out(
    extracted: Path, fetch: Fetch, requests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def second(url: str, *args: Any) -> None:
        fetch(url, *args)
        if len(requests) == 1:
            raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr(mnist, "download_url", second)
    (extracted / FILES[3]).unlink()
    MNISTDataModule(str(extracted.parent.parent)).prepare_data()
    assert requests == [f"{mirror}{FILES[3]}.gz" for mirror in MNISTDataModule.source.mirrors]


def test_one_image_is_encoded_as_a_batch_holds_it() -> None:
    data = DigitsDataModule()
    x = data.load()["train"].x[0]
    for raw in (x, x[0], x.flatten().tolist(), x[0].numpy().astype(np.float64)):
        encoded = data.encode(raw)
        assert encoded.dtype == torch.uint8
        assert encoded.equal(x)
    assert data.encode([300.0] * 32 + [-5.0] * 32).unique().tolist() == [0, 255]
    with pytest.raises(DataError, match="an input has 64 numbers, not 63"):
        data.encode([0] * 63)
