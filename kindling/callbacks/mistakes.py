"""What a classifier of pictures gets most wrong, to be looked at."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor

from kindling.callbacks.writer import open_writer

# Pixels of a picture, of what is written below it and of what is left free, and pictures in a row.
CELL, CAPTION, GAP, COLUMNS = 160, 28, 4, 4


class MistakeGrid(Callback):
    """Shows TensorBoard, after each test, the pictures that were wrongly classified with the most confidence.

    In a distributed test they are those of the first process.

    Args:
        log_dir: Where TensorBoard's events go if the Trainer has no logger of its own; None for nowhere.
        count: How many pictures at most.
    """

    def __init__(self, log_dir: str | Path | None = None, count: int = 16) -> None:
        self.log_dir = log_dir
        self.count = count
        self._worst: list[Tensor] = []  # confidence, prediction, label, each `(n,)`, and pictures `(n, C, H, W)`

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._worst = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401  # Lightning's signature
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the worst mistakes so far."""
        if not (isinstance(batch, (tuple, list)) and isinstance(outputs, Tensor) and trainer.is_global_zero):
            return
        x, y = batch
        # Neither pictures, nor classes, nor what a model of another kind may give.
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
        if self._worst:
            found = _top([torch.cat(pair) for pair in zip(self._worst, found, strict=True)], self.count)
        self._worst = found

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw them."""
        if not self._worst or not self._worst[0].any():
            return
        wrong = self._worst[0] > 0
        confidence, prediction, label, x = (values[wrong].cpu() for values in self._worst)
        names = getattr(trainer.datamodule, "class_names", None) or []  # type: ignore[attr-defined]
        captions = [
            (f"{share:.2f} {_name(names, guess)}", f"is {_name(names, truth)}")
            for guess, share, truth in zip(prediction.tolist(), confidence.tolist(), label.tolist(), strict=True)
        ]
        grid = draw(x, captions)
        with open_writer(trainer, self.log_dir) as writer:
            if writer is not None:
                writer.add_image("test/mistakes", grid, trainer.global_step, dataformats="HWC")
        self._worst = []


def _top(found: list[Tensor], count: int) -> list[Tensor]:
    best = found[0].topk(min(count, len(found[0]))).indices
    return [values[best] for values in found]


def _name(names: list[str], index: int) -> str:
    return names[index] if index < len(names) else str(index)


def draw(x: Tensor, captions: list[tuple[str, str]]) -> NDArray[np.uint8]:
    """Lay pictures out in rows, each with two lines below it.

    Args:
        x: The pictures, `(n, C, H, W)`, uint8, or floating-point from 0 to 1; of 1 or 3 channels.
        captions: Two lines for each.

    Returns:
        One picture, `(height, width, 3)`.
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
        # Few pixels are shown as they are, many are smoothed.
        how = Image.Resampling.NEAREST if max(small.size) < CELL else Image.Resampling.BILINEAR
        small = small.resize([max(1, side * CELL // max(small.size)) for side in small.size], how)
        sheet.paste(small, (left, top))
        for number, line in enumerate(lines):
            pen.text((left + 2, top + CELL + 14 * number), line[:26], fill="black", font=font)
    return np.asarray(sheet)
