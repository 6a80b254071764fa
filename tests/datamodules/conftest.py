"""Samples for tests of what all data modules share."""

import pytest
import torch

from datamodules import Samples


@pytest.fixture
def pool() -> Samples:
    """Two hundred rows of three columns, each row recognizable by its first; three classes, 20, 60 and 120 of them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, generator=generator)
    x[:, 0] = torch.arange(200.0)
    y = torch.tensor([0, 1, 1, 1, 2, 2, 2, 2, 2, 2]).repeat(20)[torch.randperm(200, generator=generator)]
    return Samples(x, y)


@pytest.fixture
def official() -> Samples:
    """An official test split of 30 rows."""
    return Samples(torch.randn(30, 3), torch.arange(30) % 3)
