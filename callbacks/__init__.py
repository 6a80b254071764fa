"""What watches a model learn: Lightning callbacks that save, stop, show and write."""

from callbacks.checkpoints import BestCheckpoint, EarlyStopping, LastCheckpoint
from callbacks.last_step import LastStep
from callbacks.layers import LayerStatistics
from callbacks.mistakes import MistakeGrid
from callbacks.predictions import PredictionWriter
from callbacks.progress import ProgressBar
from callbacks.projector import EmbeddingProjector
from callbacks.random_state import RandomState
from callbacks.samples import TextSamples
from callbacks.summary import RunSummary, log_hyperparameters

__all__ = [
    "BestCheckpoint",
    "EarlyStopping",
    "EmbeddingProjector",
    "LastCheckpoint",
    "LastStep",
    "LayerStatistics",
    "MistakeGrid",
    "PredictionWriter",
    "ProgressBar",
    "RandomState",
    "RunSummary",
    "TextSamples",
    "log_hyperparameters",
]
