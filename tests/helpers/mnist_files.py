"""MNIST's and FashionMNIST's files with a few real digits, for tests that have no data but the packages'."""

from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F


def write_mnist(folder: Path, count: int = 300) -> Path:
    """Write the first digits of scikit-learn, resized to 28x28, as MNIST and as FashionMNIST; return the folder.

    The files are uncompressed, as compressed ones are checked against the checksums of the published ones.

    Args:
        folder: Where to write `MNIST/raw/*` and `FashionMNIST/raw/*`.
        count: Images of both splits together; a fifth of them are the test split.
    """
    x, y = (torch.from_numpy(values[:count]) for values in load_digits(return_X_y=True))
    images = F.interpolate(x.view(-1, 1, 8, 8) * (255 / 16), (28, 28), mode="bilinear").round().to(torch.uint8)
    for name in ("MNIST", "FashionMNIST"):
        raw = folder / name / "raw"
        raw.mkdir(parents=True)
        for split, rows in {"t10k": slice(count // 5), "train": slice(count // 5, None)}.items():
            write_idx(raw / f"{split}-images-idx3-ubyte", images[rows, 0])
            write_idx(raw / f"{split}-labels-idx1-ubyte", y[rows])
    return folder


def write_idx(path: Path, values: Tensor) -> None:
    """Write numbers from 0 to 255 as an idx file."""
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(bytes([0, 0, 8, values.ndim]) + sizes + bytes(values.flatten().tolist()))
