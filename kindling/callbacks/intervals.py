"""What a test predicted, and how sure its metrics are."""

import math
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor

from datamodules import BatchSampler
from kindling.intervals import Interval, Outcome


class MetricIntervals(Callback):
    """Collects the predictions of a test, and computes the 95 % intervals of its metrics from them.

    The bootstrap draws test samples, or groups of rows where `group_column` holds groups together. Models that predict
    something else than classes or values (texts, embeddings) are skipped, and so is a metric that is not what Kindling
    means by its name.
    """

    def __init__(self) -> None:
        self.outcome: Outcome | None = None
        self.rows: NDArray[np.int64] | None = None  # which samples they are, `(n,)`; None where that is not known
        self.intervals: dict[str, Interval] = {}  # of the latest test, by the names of the metrics

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the previous test."""
        self.outcome, self.rows, self.intervals = None, None, {}
        self._kept: list[tuple[Tensor, Tensor]] = []
        task = getattr(pl_module, "task", None)
        self._kind = None if getattr(pl_module, "is_embedding", False) else getattr(task, "name", None)
        self._ignored = getattr(task, "ignore_index", None)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, *args: Any
    ) -> None:
        """Keep the class, the probability or the value that was predicted, where it is; reading it would sync a GPU."""
        if not (isinstance(batch, tuple | list) and len(batch) > 1 and isinstance(outputs, Tensor)):
            return
        y = batch[1]
        if self._kind == "multiclass" and outputs.ndim == 2 and y.numel() == len(outputs):
            self._kept.append((outputs.argmax(1), y.view(-1)))
        elif self._kind == "binary" and outputs.ndim == 1 and y.numel() == len(outputs):
            self._kept.append((outputs, y.view(-1)))
        elif self._kind == "regression" and y.numel() == outputs.numel():
            self._kept.append((outputs, y.view(outputs.shape)))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the intervals; the processes of a distributed test put their predictions together."""
        predicted, y = np.empty(0), np.empty(0)
        if self._kept:
            predicted, y = (torch.cat(part).float().cpu().numpy() for part in zip(*self._kept, strict=True))
        rows = _tested_rows(trainer, len(y))
        self._kept = []
        if trainer.world_size > 1:
            shares: list[Any] = [None] * trainer.world_size
            dist.all_gather_object(shares, (predicted, y, rows))
            shares = [share for share in shares if len(share[1])]
            if not shares:
                return
            predicted, y = (np.concatenate([share[part] for share in shares]) for part in (0, 1))
            known = all(share[2] is not None for share in shares)
            rows = np.concatenate([share[2] for share in shares]) if known else None
        if not len(y) or self._kind not in ("multiclass", "binary", "regression") or not np.isfinite(predicted).all():
            return
        if self._kind == "multiclass":
            counted = y != self._ignored
            predicted, y, rows = predicted[counted], y[counted], None if rows is None else rows[counted]
        self.rows = rows
        self.outcome = Outcome(self._kind, predicted, y, _groups(trainer, rows))
        self.intervals = self._checked(trainer, self.outcome) if trainer.is_global_zero and len(y) else {}

    def _checked(self, trainer: Trainer, outcome: Outcome) -> dict[str, Interval]:
        """Return the intervals of those metrics that were logged with the same value."""
        logged = {name.removeprefix("test_"): float(value) for name, value in trainer.callback_metrics.items()}
        ours = {name: value for name, value in outcome.metrics().items() if name in logged}
        same = [name for name, value in ours.items() if math.isclose(value, logged[name], rel_tol=2e-3, abs_tol=2e-3)]
        found = outcome.intervals(same)
        return {f"test_{name}": found[name] for name in logged if name in found}


def _tested_rows(trainer: Trainer, count: int) -> NDArray[np.int64] | None:
    """Return which samples the first `count` predictions of this process belong to; None if the loader cannot tell."""
    loaders = trainer.test_dataloaders
    loader = loaders[0] if isinstance(loaders, list) and len(loaders) == 1 else loaders
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, BatchSampler):
        return None
    rows = torch.cat([torch.empty(0, dtype=torch.long), *sampler]).numpy()
    return rows[:count] if len(rows) >= count else None


def _groups(trainer: Trainer, rows: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """Return the group of each tested row."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it without a type
    groups = data.groups("test") if hasattr(data, "groups") else None
    return None if groups is None or rows is None else groups.numpy()[rows]
