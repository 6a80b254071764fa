"""Piecewise-linear encoding of numbers."""

import math

import torch
from torch import Tensor, nn


class PiecewiseLinearEncoding(nn.Module):
    """Encodes a number by how far it reaches into each of several bins: 1 below it, 0 above it, a share within it.

    So that a linear layer after it is a piecewise-linear function of the number (Gorishniy et al., NeurIPS 2022). The
    bins are those of a normal distribution until `set` is called; they are in every checkpoint.

    Args:
        num_numbers: Numbers in a row.
        num_bins: Bins of each number.
    """

    edges: Tensor

    def __init__(self, num_numbers: int, num_bins: int) -> None:
        super().__init__()
        share = torch.linspace(0, 1, num_bins + 1).clamp(0.01, 0.99)
        normal = math.sqrt(2) * torch.erfinv(2 * share - 1)
        self.register_buffer("edges", normal.repeat(num_numbers, 1))

    def set(self, quantiles: Tensor) -> None:
        """Choose the bins from evenly spaced quantiles of each number, `(F, Q)`.

        A number with no more values than there are edges gets an edge at each.
        """
        size = self.edges.shape[1]
        for at, column in enumerate(quantiles):
            values = column.unique()
            few = len(values) <= size
            pick = torch.arange(size).clamp(max=len(values) - 1) if few else torch.linspace(0, len(column) - 1, size)
            self.edges[at] = (values if few else column)[pick.round().long()]

    def forward(self, x: Tensor) -> Tensor:
        """Encode numbers, `(B, F)`, as shares from 0 to 1, `(B, F * num_bins)`."""
        start, width = self.edges[:, :-1], self.edges.diff(dim=1)
        # A bin without a width is skipped: it would only repeat the one before it.
        shares = (x.unsqueeze(2) - start) * torch.where(width > 0, 1 / width, 0.0)
        return shares.clamp(0, 1).flatten(1)
