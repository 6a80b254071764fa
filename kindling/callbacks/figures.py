"""What TensorBoard shows of a test: the most confident mistakes, and embeddings in its projector."""

import contextlib
import io
import math
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from torch import Tensor

# Pixels: the side of an image, the height of its caption, the gap around both. Images in a row.
CELL, CAPTION, GAP, COLUMNS = 160, 28, 4, 4
LARGEST_SPRITE = 8192  # pixels: the longest side of the sprite image that the projector accepts


class Figure(Callback):
    """Collects some samples of a test for TensorBoard; in a distributed test those of rank 0.

    Args:
        log_dir: Where TensorBoard's events go if the Trainer has no logger of its own; None for nowhere.
        count: Maximum number of samples.
    """

    def __init__(self, log_dir: str | Path | None = None, count: int = 16) -> None:
        self.log_dir = log_dir
        self.count = count
        self._found: list[Any] = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Discard the samples of the previous test."""
        self._found = []

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, *args: Any
    ) -> None:
        """Keep some samples of a batch."""
        if isinstance(batch, (tuple, list)) and isinstance(outputs, Tensor) and trainer.is_global_zero:
            self._keep(trainer, pl_module, outputs, *batch)

    @abstractmethod
    def _keep(self, trainer: Trainer, pl_module: LightningModule, outputs: Tensor, x: Tensor, y: Tensor) -> None: ...

    @contextlib.contextmanager
    def _open_writer(self, trainer: Trainer) -> Iterator[Any]:
        """Open the Trainer's own `SummaryWriter`, or one to `log_dir`, closed afterwards; None for nowhere."""
        own = next((logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)), None)
        if own is not None or self.log_dir is None:
            yield own and own.experiment
        else:
            from torch.utils.tensorboard import SummaryWriter  # takes seconds, and only a test needs it

            with SummaryWriter(str(self.log_dir)) as writer:
                yield writer


def class_name(trainer: Trainer, label: int) -> str:
    """Return the name of a class on one line, or its number if the data have no names."""
    names = getattr(trainer.datamodule, "class_names", None) or []  # type: ignore[attr-defined]  # set without a type
    return " ".join(names[label].split()) if label < len(names) else str(label)


class MistakeGrid(Figure):
    """Logs to TensorBoard, after each test, the misclassified images with the highest confidence."""

    # `_found` holds confidence, prediction, label, each `(n,)`, and images `(n, C, H, W)`.

    def _keep(self, trainer: Trainer, pl_module: LightningModule, outputs: Tensor, x: Tensor, y: Tensor) -> None:
        """Keep the worst mistakes so far."""
        # Skip what is not images with class labels, and what models of other kinds return.
        if x.ndim != 4 or x.shape[1] not in (1, 3) or y.is_floating_point() or len(y) != y.numel():
            return
        if getattr(pl_module, "is_embedding", False):
            return
        if pl_module.hparams.get("task") == "regression" or not 1 <= outputs.ndim <= 2 or len(outputs) != len(y):
            return
        probabilities, y = outputs.float(), y.view(-1)
        if probabilities.ndim == 1:
            probabilities = torch.stack([1 - probabilities, probabilities], dim=1)
        confidence, prediction = probabilities.max(1)
        confidence = confidence.nan_to_num(0).masked_fill(prediction == y, 0)
        found = _top([confidence, prediction, y, x], self.count)
        if self._found:
            found = _top([torch.cat(pair) for pair in zip(self._found, found, strict=True)], self.count)
        self._found = found

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the grid and log it."""
        if not self._found or not self._found[0].any():
            return
        wrong = self._found[0] > 0
        confidence, prediction, label, x = (values[wrong].cpu() for values in self._found)
        captions = [
            (f"{share:.2f} {class_name(trainer, guess)}", f"is {class_name(trainer, truth)}")
            for guess, share, truth in zip(prediction.tolist(), confidence.tolist(), label.tolist(), strict=True)
        ]
        grid = draw(x, captions)
        with self._open_writer(trainer) as writer:
            if writer is not None:
                writer.add_image("test/mistakes", grid, trainer.global_step, dataformats="HWC")
        self._found = []


def _top(found: list[Tensor], count: int) -> list[Tensor]:
    best = found[0].topk(min(count, len(found[0]))).indices
    return [values[best] for values in found]


def draw(x: Tensor, captions: list[tuple[str, str]]) -> NDArray[np.uint8]:
    """Draw images as a grid, each with a caption of two lines below it.

    Args:
        x: The images, `(n, C, H, W)`, uint8, or floating-point from 0 to 1; of 1 or 3 channels.
        captions: Two lines for each image.

    Returns:
        One image, `(height, width, 3)`.
    """
    from PIL import Image, ImageDraw, ImageFont

    if x.is_floating_point():
        x = (x.clamp(0, 1) * 255).round()
    cells = x.to(torch.uint8).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    rows = -(-len(cells) // COLUMNS)
    width, height = CELL + GAP, CELL + CAPTION + GAP
    sheet = Image.new("RGB", (min(len(cells), COLUMNS) * width, rows * height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for place, (cell, lines) in enumerate(zip(cells, captions, strict=True)):
        left, top = place % COLUMNS * width, place // COLUMNS * height
        small = Image.fromarray(cell)
        # Enlarged pixels stay sharp; a reduced image is smoothed.
        how = Image.Resampling.NEAREST if max(small.size) < CELL else Image.Resampling.BILINEAR
        small = small.resize([max(1, side * CELL // max(small.size)) for side in small.size], how)
        sheet.paste(small, (left, top))
        for number, line in enumerate(lines):
            pen.text((left + 2, top + CELL + 14 * number), line[:26], fill="black", font=font)
    return np.asarray(sheet)


class EmbeddingProjector(Figure):
    """Logs to TensorBoard's projector, after each test, the outputs of a model that computes embeddings.

    A point is labeled with its class, and shown as its image where inputs are images. Points are evenly spaced in the
    test split.
    """

    def __init__(self, log_dir: str | Path | None = None, count: int = 2000) -> None:
        super().__init__(log_dir, count)

    # `_found` holds embeddings, labels and inputs of each batch.

    def _keep(self, trainer: Trainer, pl_module: LightningModule, outputs: Tensor, x: Tensor, y: Tensor) -> None:
        """Keep some of a batch."""
        if not getattr(pl_module, "is_embedding", False):
            return
        each = math.ceil(self.count / max(1, sum(trainer.num_test_batches)))
        size = min(each, len(y), self.count - sum(len(labels) for _, labels, _ in self._found))
        some = torch.arange(size, device=y.device) * len(y) // max(1, size)
        self._found.append((outputs[some].float().cpu(), y.view(-1)[some].cpu(), x[some].cpu()))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the points."""
        if not self._found:
            return
        embeddings, labels = (torch.cat([batch[part] for batch in self._found]) for part in (0, 1))
        x = self._found[0][2]
        images = _thumbnails([batch[2] for batch in self._found]) if x.ndim == 4 and x.shape[1] in (1, 3) else None
        self._found = []
        names = [class_name(trainer, int(label)) for label in labels]
        # A repeated test replaces the points of the previous one; SummaryWriter prints a warning.
        with self._open_writer(trainer) as writer, contextlib.redirect_stdout(io.StringIO()):
            if writer is not None:
                writer.add_embedding(embeddings, names, images, trainer.global_step, "test")


def _thumbnails(batches: list[Tensor]) -> Tensor:
    """Scale batches of images, `(B, C, H, W)`, to floating-point from 0 to 1 and to a size that fits on one sprite."""
    count, (height, width) = sum(map(len, batches)), batches[0].shape[2:]
    share = min(1.0, LARGEST_SPRITE // math.ceil(math.sqrt(count)) / max(height, width))
    size = [max(1, int(side * share)) for side in (height, width)]
    thumbnails = []
    for x in batches:
        scaled = x.float() / 255 if x.dtype == torch.uint8 else x.float()
        thumbnails.append(F.interpolate(scaled, size, mode="area") if share < 1 else scaled)
    return torch.cat(thumbnails).clamp(0, 1)
