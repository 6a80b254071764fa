"""Data modules: LightningDataModules of encoded batches, which models normalize."""

from datamodules.arrays import ArrayDataModule
from datamodules.base import DataModule
from datamodules.errors import DataError
from datamodules.images.base import ImageDataModule
from datamodules.images.folder import ImageFolderDataModule
from datamodules.images.hub import HuggingFaceDataModule
from datamodules.images.mnist import DigitsDataModule, FashionMNISTDataModule, MNISTDataModule
from datamodules.sampler import BatchSampler, Samples
from datamodules.tables.csv import CSVDataModule
from datamodules.text.corpus import TextCorpusDataModule
from datamodules.text.labeled import TextCSVDataModule
from datamodules.toy import ToyDataModule

__all__ = [
    "ArrayDataModule",
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
