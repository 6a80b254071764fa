"""Means and standard deviations."""

import torch
from torch import Tensor


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean and standard deviation of numbers, `(n, ...)`, over the first dimension, in float64.

    Returns:
        Two float32 tensors of shape `(...)`; the deviation of a constant is 1.
    """
    std, mean = torch.std_mean(x.double(), dim=0, correction=0)
    return mean.float(), torch.where(std > 0, std, 1.0).float()


def image_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean and standard deviation of each channel, in units of [0, 1].

    Counting the 256 values is exact, and needs no copy of the images in floating point.

    Args:
        x: Images, shape `(n, C, H, W)`, uint8, or floating-point from 0 to 1.

    Returns:
        Two tensors of shape `(C, 1, 1)`; the deviation of a constant channel is 1.
    """
    if x.is_floating_point():
        mean, std = moments(x.movedim(1, -1).flatten(0, -2))
        return mean.view(-1, 1, 1), std.view(-1, 1, 1)
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in x.unbind(1)]).double()
    share = counts / counts.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ values
    std = (share @ values.square() - mean.square()).clamp(min=0).sqrt()
    std = torch.where(std > 0, std, 1.0)
    return mean.float().view(-1, 1, 1), std.float().view(-1, 1, 1)
