"""Siamese learning: an encoder maps samples of one class close together, and others apart."""

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection

from lit_models.base import LitModule
from lit_models.ensemble import LitEnsemble
from lit_models.errors import ModelError
from lit_models.metrics import PairMetrics
from lit_models.tasks import Task
from lit_models.wrapper import LitWrapper

OTHER_LOSSES = ("loss", "reduction", "label_smoothing", "class_weights", "ignore_index")


class PairTask(Task):
    """Embeddings of size `num_outputs`, close within a class and apart between classes: targets `(B,)`, classes."""

    name = "multiclass"
    losses = ("CosineEmbeddingLoss",)

    def __init__(self, num_outputs: int, margin: float) -> None:
        super().__init__(num_outputs)
        self.margin = margin

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Compute `nn.CosineEmbeddingLoss` over all pairs of a batch: half its mean over each of the two kinds.

        If a batch has no pair of one kind, that half is 0.
        """
        z = self.activate(outputs)
        cosines = (z @ z.T).to(z.dtype)
        same = y[:, None] == y
        positive = same.triu(1).to(cosines.dtype)
        negative = (~same).triu(1).to(cosines.dtype)
        attraction = (positive * (1 - cosines)).sum() / positive.sum().clamp(min=1)
        repulsion = (negative * (cosines - self.margin).clamp(min=0)).sum() / negative.sum().clamp(min=1)
        return (attraction + repulsion) / 2

    def activate(self, outputs: Tensor) -> Tensor:
        """Return embeddings of length 1, `(B, D)`, in float32 or better; their products are cosines."""
        # In float16 the number of pairs in a large batch would overflow, and the length of a small embedding be 0.
        return F.normalize(outputs.to(torch.promote_types(outputs.dtype, torch.float32)), dim=1)

    def metrics(self) -> MetricCollection:
        """Return the AUROC of verification and recall at 1."""
        return MetricCollection({"pairs": PairMetrics()})


class LitSiamese(LitWrapper):
    """An encoder whose embeddings point in the same direction within a class, and in different ones between classes.

    It learns from all pairs in a batch (Hadsell et al. 2006, with the cosine as distance): those of one class are drawn
    together, others pushed apart up to a margin; both kinds have the same weight, whatever their numbers. It predicts
    embeddings of length 1, which also serve for classes that are not in the training split.

    Args:
        encoder: The model that computes the embeddings: a class of `lit_models`, or the import path of another.
        encoder_args: The encoder's own options, such as `channels`; those of training are options here.
        embedding_dim: Size of an embedding.
        margin: Cosine below which two classes are not pushed further apart, -1 to 1.
        kwargs: Options of `LitWrapper` and `LitModule`.

    Raises:
        ModelError: If an option is invalid, or the task has no classes.
    """

    inner_option = "encoder"
    is_embedding = True  # predictions are not probabilities

    def __init__(
        self,
        encoder: str = "LitConvNet",
        encoder_args: dict[str, Any] | None = None,
        embedding_dim: int = 32,
        margin: float = 0.3,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("task") in ("regression", "next_token"):
            raise ModelError("LitSiamese makes pairs by class", "give data with classes", "task", kwargs["task"])
        defaults = inspect.signature(LitModule).parameters
        for name in OTHER_LOSSES:
            if name in kwargs and kwargs[name] != defaults[name].default:
                problem = "the loss of LitSiamese is that of pairs, by `margin`"
                raise ModelError(problem, "leave it out", name, kwargs[name])
        super().__init__(**kwargs)
        if embedding_dim < 2:
            raise ModelError("give 2 or more", option="embedding_dim", value=embedding_dim)
        if not -1 <= margin <= 1:
            raise ModelError("give a cosine, from -1 to 1", option="margin", value=margin)
        self.num_outputs = embedding_dim
        self.task = PairTask(embedding_dim, margin)
        self.val_metrics = self.task.metrics().clone(prefix="val_")
        self.test_metrics = self.task.metrics().clone(prefix="test_")
        self.make_inner(encoder, encoder_args, "multiclass", embedding_dim)
        if isinstance(self.net, LitEnsemble):
            raise ModelError("its members have no common embedding", "give LitMLP", "encoder", encoder)

    def decode(self, outputs: Tensor) -> dict[str, list[Any]]:
        """Return the columns `e1`, `e2`, ... of embeddings, `(B, D)`."""
        return {f"e{number}": column.tolist() for number, column in enumerate(outputs.unbind(1), 1)}
