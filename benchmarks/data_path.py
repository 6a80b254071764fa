"""One epoch of normalized MNIST batches: Kindling's resident tensors against torchvision's usual data set."""

import gzip
import tempfile
from collections import deque
from pathlib import Path

from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import MNIST

from benchmarks.interleaved import compare, seconds_of
from datamodules import MNISTDataModule
from lit_models import LitMLP

BATCH_SIZE = 256


def run(data_dir: str, rounds: int = 5) -> None:
    """Print the table.

    Args:
        data_dir: A folder that `MNISTDataModule` can use.
        rounds: How often each contender goes through the 60,000 training images.
    """
    data = MNISTDataModule(data_dir, batch_size=BATCH_SIZE, val_fraction=0)
    model = LitMLP()
    model.normalization.set(data.statistics["mean"], data.statistics["std"])

    def kindling() -> None:
        for x, _ in data.train_dataloader():
            model.normalization(x.float(), 255)

    with tempfile.TemporaryDirectory() as folder:
        _unpack(data_dir, folder)
        normalize = transforms.Normalize((0.1307,), (0.3081,))
        dataset = MNIST(folder, transform=transforms.Compose([transforms.ToTensor(), normalize]))
        loader = DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=True)
        contenders = {
            "torchvision, ToTensor and Normalize, DataLoader": lambda: seconds_of(lambda: deque(loader, maxlen=0)),
            "Kindling": lambda: seconds_of(kindling),
        }
        compare("An epoch of normalized MNIST batches of 256", contenders, rounds)


def _unpack(data_dir: str, folder: str) -> None:
    """Unpack the files to where torchvision looks for them."""
    target = Path(folder) / "MNIST" / "raw"
    target.mkdir(parents=True)
    source = Path(data_dir) / "MNIST" / "raw"
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        packed = source / f"{part}-ubyte.gz"
        content = gzip.decompress(packed.read_bytes()) if packed.is_file() else (source / f"{part}-ubyte").read_bytes()
        (target / f"{part}-ubyte").write_bytes(content)
