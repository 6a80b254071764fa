"""What a model learns from: LightningDataModules that give raw, encoded batches."""

from datamodules.base import DataError, DataModule
from datamodules.batches import BatchSampler, Samples
from datamodules.toy import ToyDataModule
from datamodules.vision import DigitsDataModule, FashionMNISTDataModule, ImageDataModule, MNISTDataModule

__all__ = [
    "BatchSampler",
    "DataError",
    "DataModule",
    "DigitsDataModule",
    "FashionMNISTDataModule",
    "ImageDataModule",
    "MNISTDataModule",
    "Samples",
    "ToyDataModule",
]
