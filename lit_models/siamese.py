"""Siamese learning: an encoder puts samples of one class close together, and others apart."""

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities import dim_zero_cat

from lit_models.base import LitModule
from lit_models.errors import ModelError
from lit_models.tabm import LitTabM
from lit_models.tasks import Task
from lit_models.wrapper import LitWrapper

QUERIES = 10_000  # samples whose nearest neighbor is looked for
PAIRED = 4_000  # samples of which all pairs are compared
BINS = 20_000  # of cosines, from the smallest that there is to 1
BLOCK = 2**22  # cosines in memory at a time

OTHER_LOSSES = ("loss", "reduction", "label_smoothing", "class_weights", "ignore_index")


class PairMetrics(Metric):
    """How well cosines of embeddings tell whether two samples are of one class.

    `auroc` is that of verification: the share of pairs of one class that are closer than a pair of two classes, over
    all pairs of the samples, or of `PAIRED` of them, evenly taken. It is counted in `BINS` bins, which agrees with the
    exact value to about 0.0001. `recall1` is the share of samples (of more than `QUERIES`, evenly taken) whose nearest
    other sample is of their class.

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
        """Compute both, each from 0 to 1; NaN where there is nothing to compare, or an embedding is no number."""
        z, y = dim_zero_cat(self.embeddings), dim_zero_cat(self.labels)
        if len(y) < 2 or not z.isfinite().all():
            return {"auroc": z.new_tensor(torch.nan), "recall1": z.new_tensor(torch.nan)}
        return {"auroc": _verification_auroc(z, y), "recall1": _recall_at_one(z, y)}


def _evenly(size: int, count: int, device: torch.device) -> Tensor:
    """Choose at most `count` of `size` indices, at equal distances."""
    count = min(size, count)
    return torch.arange(count, device=device) * size // count


def _verification_auroc(z: Tensor, y: Tensor) -> Tensor:
    some = _evenly(len(y), PAIRED, y.device)
    z, y = z[some], y[some]
    counts = torch.zeros(2 * BINS, dtype=torch.long, device=z.device)
    blocks = torch.arange(len(y), device=y.device).split(max(1, BLOCK // len(y)))
    # The embeddings of a model that has learned nothing yet may all point almost one way.
    low = torch.stack([(z[rows] @ z.T).min() for rows in blocks]).min()
    scale = BINS / (1 - low).clamp(min=1e-6)
    for rows in blocks:
        cosines, same = z[rows] @ z.T, y[rows, None] == y
        place = ((cosines - low) * scale).long().clamp_(0, BINS - 1) + same * BINS
        later = torch.arange(len(y), device=y.device) > rows[:, None]  # each pair once
        counts += place[later].bincount(minlength=2 * BINS)
    other, same = counts.cpu().double().view(2, BINS)  # in more digits than every device has
    # Within a bin, half of the pairs are taken to be in order.
    ordered: Tensor = (same * (other.cumsum(0) - other / 2)).sum() / (same.sum() * other.sum())
    return ordered.float().to(z.device)


def _recall_at_one(z: Tensor, y: Tensor) -> Tensor:
    hits = torch.zeros((), dtype=torch.long, device=z.device)
    queries = _evenly(len(y), QUERIES, y.device)
    for rows in queries.split(max(1, BLOCK // len(y))):
        cosines = (z[rows] @ z.T).scatter_(1, rows[:, None], -torch.inf)
        hits += (y[cosines.argmax(1)] == y[rows]).sum()
    return hits / len(queries)


class PairTask(Task):
    """Samples of one class, close to each other, and of others apart: embeddings `(B, D)`, class indices `(B,)`.

    Args:
        num_outputs: Numbers in an embedding.
        margin: The cosine up to which samples of two classes need not be pushed further apart.
    """

    name = "multiclass"
    losses = ("CosineEmbeddingLoss",)

    def __init__(self, num_outputs: int, margin: float) -> None:
        super().__init__(num_outputs)
        self.margin = margin

    def loss(self, scores: Tensor, y: Tensor) -> Tensor:
        """Compute `nn.CosineEmbeddingLoss` over all pairs in a batch: half its mean over each of the two kinds.

        A batch without a pair of one kind learns from the other alone; without any its loss is 0.
        """
        z = self.activate(scores)
        cosines = (z @ z.T).to(z.dtype)
        same = y[:, None] == y
        pulled = same.triu(1).to(cosines.dtype)
        pushed = (~same).triu(1).to(cosines.dtype)
        attraction = (pulled * (1 - cosines)).sum() / pulled.sum().clamp(min=1)
        repulsion = (pushed * (cosines - self.margin).clamp(min=0)).sum() / pushed.sum().clamp(min=1)
        return (attraction + repulsion) / 2

    def activate(self, scores: Tensor) -> Tensor:
        """Give embeddings of length 1, `(B, D)`, whose products are cosines, in float32 or better."""
        # In float16 the number of a large batch's pairs would be infinite, and a small embedding's length 0.
        return F.normalize(scores.to(torch.promote_types(scores.dtype, torch.float32)), dim=1)

    def metrics(self) -> MetricCollection:
        """Verification AUROC and recall at 1."""
        return MetricCollection({"pairs": PairMetrics()})


class LitSiamese(LitWrapper):
    """An encoder of which embeddings of one class point in one direction, and of others in other directions.

    It learns from all pairs in a batch (Hadsell et al. 2006, with the cosine for a distance): those of one class are
    drawn together, others pushed apart up to a margin, both kinds with the same weight whatever their numbers. What it
    predicts are embeddings of length 1, which serve for classes that it has never seen too.

    Args:
        encoder: The model that makes the embeddings: a class of `lit_models`, or the import path of another.
        encoder_args: Options of the encoder's own, as `channels`; those of the training are options here.
        embedding_dim: Numbers in an embedding.
        margin: The cosine up to which two classes need not be pushed further apart, -1 to 1.
        kwargs: Options of `LitWrapper` and `LitModule`.
    """

    is_embedding = True  # what it gives are no probabilities of classes

    def __init__(
        self,
        encoder: str = "LitConvNet",
        encoder_args: dict[str, Any] | None = None,
        embedding_dim: int = 32,
        margin: float = 0.3,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("task") in ("regression", "next_token"):
            raise ModelError(
                f"--model LitSiamese: this is a {kwargs['task']} task, and pairs are made by classes; give data with "
                "classes."
            )
        defaults = inspect.signature(LitModule).parameters
        for name in OTHER_LOSSES:
            if name in kwargs and kwargs[name] != defaults[name].default:
                raise ModelError(
                    f"--model.{name} {kwargs[name]}: the loss of LitSiamese is that of pairs, by --model.margin; leave "
                    "it out."
                )
        super().__init__(**kwargs)
        if embedding_dim < 2:
            raise ModelError(f"--model.embedding_dim {embedding_dim}: give 2 or more.")
        if not -1 <= margin <= 1:
            raise ModelError(f"--model.margin {margin}: give a cosine, from -1 to 1.")
        self.num_outputs = embedding_dim
        self.task = PairTask(embedding_dim, margin)
        self.val_metrics = self.task.metrics().clone(prefix="val_")
        self.test_metrics = self.task.metrics().clone(prefix="test_")
        self.make_inner("encoder", encoder, encoder_args, "multiclass", embedding_dim)
        if isinstance(self.net, LitTabM):
            raise ModelError("--model.encoder LitTabM: its many perceptrons have no common embedding; give LitMLP.")

    def decode(self, outputs: Tensor) -> dict[str, list[Any]]:
        """Turn embeddings, `(B, D)`, into columns: `e1`, `e2`, ..."""
        return {f"e{number}": column.tolist() for number, column in enumerate(outputs.unbind(1), 1)}
