"""What a model learns from: LightningDataModules that give raw, encoded batches."""

from datamodules.base import DataModule
from datamodules.batches import BatchSampler, Samples
from datamodules.corpus import TextCorpusDataModule
from datamodules.errors import DataError
from datamodules.folder import ImageFolderDataModule
from datamodules.hub import HuggingFaceDataModule
from datamodules.tabular import CSVDataModule
from datamodules.text import TextCSVDataModule
from datamodules.toy import ToyDataModule
from datamodules.vision import DigitsDataModule, FashionMNISTDataModule, ImageDataModule, MNISTDataModule

__all__ = [
    "BatchSampler",
    "CSVDataModule",
    "DataError",
    "DataModule",
    "DigitsDataModule",
    "FashionMNISTDataModule",
    "HuggingFaceDataModule",
    "ImageDataModule",
    "ImageFolderDataModule",
    "MNISTDataModule",
    "Samples",
    "TextCSVDataModule",
    "TextCorpusDataModule",
    "ToyDataModule",
]
