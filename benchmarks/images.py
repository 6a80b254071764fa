"""A person's own images: epochs from the cache and from features, against decoding and against the whole network."""

import tempfile
from collections import deque
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18
from torchvision.transforms import v2

from benchmarks.interleaved import compare, seconds_of
from benchmarks.training_step import Stopwatch
from datamodules import ImageFolderDataModule
from lit_models import LitTransfer


def run(data_dir: str, rounds: int = 5) -> None:
    """Print both tables.

    Args:
        data_dir: A folder with `hymenoptera_data`.
        rounds: How often each contender runs.
    """
    path = Path(data_dir).resolve() / "hymenoptera_data"
    with tempfile.TemporaryDirectory() as work:
        _data_path(path, work, rounds)
        _frozen(path, work, rounds)


def _data_path(path: Path, work: str, rounds: int) -> None:
    # Without random transforms, images are center-cropped.
    options: dict[str, Any] = {"path": str(path), "cache_dir": work}
    plain: dict[str, Any] = {**options, "train_transforms": []}
    cached, cached_plain = (ImageFolderDataModule(cache="disk", **each) for each in (options, plain))
    decoded, decoded_plain = (ImageFolderDataModule(cache="none", **each) for each in (options, plain))
    transform = v2.Compose([v2.RandomResizedCrop(224, scale=(0.35, 1.0)), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    usual = DataLoader(ImageFolder(str(path / "train"), transform), 32, shuffle=True, num_workers=2)

    def epoch(data: ImageFolderDataModule) -> float:
        loader = data.train_dataloader()
        next(iter(loader))  # worker processes are started before the clock, and live on
        return seconds_of(lambda: deque(loader, maxlen=0))

    contenders = {
        "Kindling, decoding in 2 workers": lambda: epoch(decoded_plain),
        "Kindling, from the cache": lambda: epoch(cached_plain),
        "Kindling, decoding in 2 workers, augmented": lambda: epoch(decoded),
        "Kindling, from the cache, augmented": lambda: epoch(cached),
        "torchvision's ImageFolder, DataLoader with 2 workers, augmented": lambda: seconds_of(
            lambda: deque(usual, maxlen=0)
        ),
    }
    compare("An epoch of 245 photographs for a 224x224 network", contenders, rounds)


def _frozen(path: Path, work: str, rounds: int) -> None:
    weights = Path(work) / "resnet18.pth"
    torch.manual_seed(0)
    torch.save(resnet18().state_dict(), weights)  # the time does not depend on what they are
    data = ImageFolderDataModule(str(path), cache_dir=work)

    def epoch(views: int) -> float:
        stopwatch = Stopwatch()  # of the second epoch: the first also does what is done once
        options: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False}
        trainer = Trainer(max_epochs=2, logger=False, enable_checkpointing=False, callbacks=[stopwatch], **options)
        trainer.fit(LitTransfer(weights=str(weights), task="binary", num_outputs=1, views=views), data)
        return stopwatch.median()

    contenders = {"the whole network": lambda: epoch(0), "features, computed before": lambda: epoch(1)}
    compare("An epoch of a new head on a frozen ResNet-18, 245 photographs and 153 to validate", contenders, rounds)
