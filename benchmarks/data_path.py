"""One epoch of normalized MNIST batches: Kindling's resident tensors against torchvision's usual data set."""

import gzip
import tempfile
import time
from pathlib import Path

from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import MNIST

from benchmarks.interleaved import compare
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

    def kindling() -> float:
        start = time.perf_counter()
        for x, _ in data.train_dataloader():
            model.normalization(x.float(), 255)
        return time.perf_counter() - start

    with tempfile.TemporaryDirectory() as folder:
        _unpack(data_dir, folder)
        normalize = transforms.Normalize((0.1307,), (0.3081,))
        dataset = MNIST(folder, transform=transforms.Compose([transforms.ToTensor(), normalize]))
        loader = DataLoader(dataset, batch_size=BATCH_SIZE, shuffle=True)

        def torchvision() -> float:
            start = time.perf_counter()
            for _ in loader:
                pass
            return time.perf_counter() - start

        contenders = {"torchvision, ToTensor and Normalize, DataLoader": torchvision, "Kindling": kindling}
        compare("An epoch of normalized MNIST batches of 256", contenders, rounds)


def _unpack(data_dir: str, folder: str) -> None:
    """Unpack the files to where torchvision looks for them."""
    target = Path(folder) / "MNIST" / "raw"
    target.mkdir(parents=True)
    source = Path(data_dir) / "MNIST" / "raw"
    for part in (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ):
        packed = source / f"{part}.gz"
        content = gzip.decompress(packed.read_bytes()) if packed.is_file() else (source / part).read_bytes()
        (target / part).write_bytes(content)
