"""Normalization by statistics that are saved with the model."""

from typing import Any

import torch
from torch import Tensor, nn


class Normalization(nn.Module):
    """Subtract a mean and divide by a standard deviation; the identity until `set` is called.

    The statistics are buffers, so they are in every checkpoint and every exported graph. Their shapes are
    those of the data; `load_state_dict` adopts the shapes of the state.
    """

    mean: Tensor
    std: Tensor
    is_set: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))
        self.register_buffer("is_set", torch.tensor(False))
        self.register_load_state_dict_pre_hook(_take_over_shapes)  # type: ignore[no-untyped-call]  # torch's

    def set(self, mean: Tensor, std: Tensor) -> None:
        """Set the statistics, unless they are set: a trained model keeps those it was trained with.

        They have shapes that broadcast with the inputs, and a standard deviation is never 0.
        """
        if not self.is_set:
            self.mean, self.std = mean.to(self.mean), std.to(self.std)
            self.is_set.fill_(True)

    def forward(self, x: Tensor, scale: float = 1) -> Tensor:
        """Normalize `x / scale`, of any shape.

        The statistics are scaled, not the inputs, which saves a pass over every batch.
        """
        return (x - self.mean * scale).div_(self.std * scale)

    def inverse(self, x: Tensor) -> Tensor:
        """Return `x` before normalization; the inverse of `forward`."""
        return x * self.std + self.mean


def rename_old_keys(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    """Rename the keys of older checkpoints, `standardize.*`, before a model loads its state."""
    for old in [key for key in state_dict if key.startswith((f"{prefix}standardize.", f"{prefix}task.standardize."))]:
        state_dict[old.replace("standardize.", "normalization.")] = state_dict.pop(old)


def _take_over_shapes(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    for name in ("mean", "std"):
        saved = state_dict.get(prefix + name)
        if isinstance(saved, Tensor):
            setattr(module, name, torch.empty_like(saved, device=getattr(module, name).device))
