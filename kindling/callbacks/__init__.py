"""Lightning callbacks: checkpoints, progress, random states, figures in TensorBoard, and prediction files."""

from kindling.callbacks.checkpoints import BestCheckpoint, EarlyStopping, LastCheckpoint
from kindling.callbacks.doctor import Doctor
from kindling.callbacks.figures import EmbeddingProjector, MistakeGrid
from kindling.callbacks.intervals import MetricIntervals
from kindling.callbacks.layer_statistics import LayerStatistics
from kindling.callbacks.predictions import PredictionWriter
from kindling.callbacks.progress import ProgressBar
from kindling.callbacks.resuming import MaxStepsCheckpointing, RNGState
from kindling.callbacks.samples import TextSamples
from kindling.callbacks.summary import RunSummary

__all__ = [
    "BestCheckpoint",
    "Doctor",
    "EarlyStopping",
    "EmbeddingProjector",
    "LastCheckpoint",
    "LayerStatistics",
    "MaxStepsCheckpointing",
    "MetricIntervals",
    "MistakeGrid",
    "PredictionWriter",
    "ProgressBar",
    "RNGState",
    "RunSummary",
    "TextSamples",
]
