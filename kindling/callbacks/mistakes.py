"""The images that a classifier gets wrong with the most confidence."""

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor

from kindling.callbacks.figure import Figure, class_name

# Pixels: the side of an image, the height of its caption, the gap around both. Images in a row.
CELL, CAPTION, GAP, COLUMNS = 160, 28, 4, 4


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
