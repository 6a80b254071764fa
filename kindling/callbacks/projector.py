"""Embeddings of a test, as points in TensorBoard's projector."""

import contextlib
import io
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from kindling.callbacks.figure import Figure, class_name

TAG = "test"
LARGEST_SPRITE = 8192  # pixels: the longest side of the sprite image that the projector accepts


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
                writer.add_embedding(embeddings, names, images, trainer.global_step, TAG)


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
