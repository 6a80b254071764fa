"""Means and standard deviations."""

import pytest
import torch

from datamodules.statistics import image_moments, moments


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 + 0.1, -3.3333])
def test_what_does_not_vary_has_a_deviation_of_1(value: float) -> None:
    x = torch.stack([torch.full((1000,), value), torch.arange(1000.0)], 1)
    mean, std = moments(x)
    torch.testing.assert_close(mean[0], torch.tensor(value))
    assert std[0] == 1
    assert std[1] > 100


@pytest.mark.parametrize("value", [0, 1, 77, 255])
def test_nor_does_a_channel_that_does_not_vary(value: int) -> None:
    mean, std = image_moments(torch.full((10, 1, 28, 28), value, dtype=torch.uint8))
    assert mean.item() == pytest.approx(value / 255)
    assert std.item() == 1
