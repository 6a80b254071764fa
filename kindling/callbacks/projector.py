"""Embeddings as points in space, in TensorBoard's projector."""

import contextlib
import io
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from kindling.callbacks.writer import open_writer

TAG = "test"
LARGEST_SHEET = 8192  # pixels of a side, of the picture of all pictures that the projector takes


class EmbeddingProjector(Callback):
    """Shows TensorBoard's projector, after each test, the embeddings of a model whose outputs are such.

    Each point has its class for a name, and its picture where inputs are pictures. In a distributed test they are those
    of the first process.

    Args:
        log_dir: Where TensorBoard's files go if the Trainer has no logger of its own; None for nowhere.
        count: How many points at most, evenly taken from the test split.
    """

    def __init__(self, log_dir: str | Path | None = None, count: int = 2000) -> None:
        self.log_dir = log_dir
        self.count = count
        self._found: list[tuple[Tensor, Tensor, Tensor]] = []  # embeddings, labels and inputs of each batch

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._found = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401  # Lightning's signature
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep some of a batch."""
        if not (getattr(pl_module, "is_embedding", False) and trainer.is_global_zero):
            return
        x, y = batch
        each = math.ceil(self.count / max(1, sum(trainer.num_test_batches)))
        size = min(each, len(y), self.count - sum(len(labels) for _, labels, _ in self._found))
        some = torch.arange(size, device=y.device) * len(y) // max(1, size)
        self._found.append((outputs[some].float().cpu(), y.view(-1)[some].cpu(), x[some].cpu()))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write them."""
        if not self._found:
            return
        embeddings, labels = (torch.cat([batch[part] for batch in self._found]) for part in (0, 1))
        x = self._found[0][2]
        images = _thumbnails([batch[2] for batch in self._found]) if x.ndim == 4 and x.shape[1] in (1, 3) else None
        self._found = []
        known = getattr(trainer.datamodule, "class_names", None) or []  # type: ignore[attr-defined]
        names = [_name(known, int(label)) for label in labels]
        # A test that is repeated replaces what is there, with a warning.
        with open_writer(trainer, self.log_dir) as writer, contextlib.redirect_stdout(io.StringIO()):
            if writer is not None:
                writer.add_embedding(embeddings, names, images, trainer.global_step, TAG)


def _name(names: list[str], label: int) -> str:
    # A line of a table for each: what would end one is a space.
    return " ".join(names[label].split()) if label < len(names) else str(label)


def _thumbnails(batches: list[Tensor]) -> Tensor:
    """Make pictures, `(B, C, H, W)` each, uint8 or from 0 to 1, floating-point and so small that all fit on a sheet."""
    count, (height, width) = sum(map(len, batches)), batches[0].shape[2:]
    share = min(1.0, LARGEST_SHEET // math.ceil(math.sqrt(count)) / max(height, width))
    size = [max(1, int(side * share)) for side in (height, width)]
    pictures = []
    for x in batches:
        scaled = x.float() / 255 if x.dtype == torch.uint8 else x.float()
        pictures.append(F.interpolate(scaled, size, mode="area") if share < 1 else scaled)
    return torch.cat(pictures).clamp(0, 1)
