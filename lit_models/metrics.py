"""Metrics that torchmetrics does not have: the mean loss at almost no cost, and verification by embeddings."""

import math

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

MAX_QUERIES = 10_000  # samples whose nearest neighbor is looked up
MAX_PAIRED = 4_000  # samples of which all pairs are compared
BINS = 20_000  # of cosines, from the smallest one to 1
CHUNK = 2**22  # cosines in memory at a time


class MeanLoss:
    """Mean loss over samples, whatever the sizes of their batches, at the cost of one addition a step.

    Not torchmetrics' `MeanMetric`: its check for NaN forces a GPU sync in every step, and without the check it ignores
    the weights (1.9). A NaN must also stay visible here, as it stops the training.
    """

    def __init__(self) -> None:
        self.total: Tensor | None = None
        self.samples: int | Tensor = 0
        self.last = torch.tensor(math.nan)  # of the latest batch
        self.is_paused = False

    def update(self, loss: Tensor, size: int | Tensor) -> None:
        """Add the mean loss of a batch of `size` samples, or of weights with this sum, unless paused."""
        if self.is_paused:
            return
        self.last = loss
        # A sum of many batches needs more digits than a bfloat16 loss has; MPS has no float64.
        total = loss.to(torch.float32 if loss.device.type == "mps" else torch.float64) * size
        self.total = total if self.total is None else self.total.add_(total)
        self.samples = self.samples + (size.to(total.dtype) if isinstance(size, Tensor) else size)

    def pop(self, device: torch.device) -> Tensor:
        """Return the summed loss and the number of samples since the last call, shape `(2,)`, and reset both."""
        total = torch.zeros((), device=device) if self.total is None else self.total
        self.total, samples, self.samples = None, self.samples, 0
        return torch.stack([total, torch.as_tensor(samples, dtype=total.dtype, device=device)])


class PairMetrics(Metric):
    """Verification (AUROC) and retrieval (recall at 1) by the cosine similarity of embeddings.

    `auroc` is the area under the ROC curve of verification: the share of same-class pairs that are closer than a pair
    of two classes, over all pairs of at most `MAX_PAIRED` evenly spaced samples. It is counted in `BINS` bins, which
    agrees with the exact value to about 0.0001. `recall1` is the share of samples (at most `MAX_QUERIES`, evenly
    spaced) whose nearest other sample is of their class.

    Time grows with the square of the samples up to these numbers; memory does not.
    """

    embeddings: list[Tensor]
    labels: list[Tensor]
    full_state_update = False
    is_differentiable = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("embeddings", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")

    def update(self, embeddings: Tensor, labels: Tensor) -> None:
        """Add samples: embeddings of length 1, `(B, D)`, and their classes, `(B,)`."""
        self.embeddings.append(embeddings.detach())
        self.labels.append(labels)

    def compute(self) -> dict[str, Tensor]:
        """Compute `auroc` and `recall1`; NaN if there are fewer than two samples, or an embedding is not finite."""
        z, y = dim_zero_cat(self.embeddings), dim_zero_cat(self.labels)
        if len(y) < 2 or not z.isfinite().all():
            return {"auroc": z.new_tensor(torch.nan), "recall1": z.new_tensor(torch.nan)}
        return {"auroc": _verification_auroc(z, y), "recall1": _recall_at_one(z, y)}


def _evenly_spaced(size: int, count: int, device: torch.device) -> Tensor:
    """Return at most `count` of `size` indices, at equal distances."""
    count = min(size, count)
    return torch.arange(count, device=device) * size // count


def _verification_auroc(z: Tensor, y: Tensor) -> Tensor:
    compared = _evenly_spaced(len(y), MAX_PAIRED, y.device)
    z, y = z[compared], y[compared]
    counts = torch.zeros(2 * BINS, dtype=torch.long, device=z.device)
    chunks = torch.arange(len(y), device=y.device).split(max(1, CHUNK // len(y)))
    # The bins start at the smallest cosine: before training, all embeddings may point in almost one direction.
    low = torch.stack([(z[rows] @ z.T).min() for rows in chunks]).min()
    scale = BINS / (1 - low).clamp(min=1e-6)
    for rows in chunks:
        cosines, same = z[rows] @ z.T, y[rows, None] == y
        bins = ((cosines - low) * scale).long().clamp_(0, BINS - 1) + same * BINS
        upper = torch.arange(len(y), device=y.device) > rows[:, None]  # each pair once
        counts += bins[upper].bincount(minlength=2 * BINS)
    other, same = counts.cpu().double().view(2, BINS)  # float64, which not every device has
    # Within a bin, half of the pairs count as ordered.
    ordered: Tensor = (same * (other.cumsum(0) - other / 2)).sum() / (same.sum() * other.sum())
    return ordered.float().to(z.device)


def _recall_at_one(z: Tensor, y: Tensor) -> Tensor:
    hits = torch.zeros((), dtype=torch.long, device=z.device)
    queries = _evenly_spaced(len(y), MAX_QUERIES, y.device)
    for rows in queries.split(max(1, CHUNK // len(y))):
        cosines = (z[rows] @ z.T).scatter_(1, rows[:, None], -torch.inf)
        hits += (y[cosines.argmax(1)] == y[rows]).sum()
    return hits / len(queries)
