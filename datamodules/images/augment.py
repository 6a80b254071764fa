"""Random changes to a batch of images, each sample in its own way, on the device where the batch is."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def random_affine(x: Tensor, shift: int = 0, rotation: float = 0.0, crop: float = 0.0, flip: bool = False) -> Tensor:
    """Shift, rotate, crop and flip every image at random, in one resampling.

    What comes in from outside an image is 0.

    Args:
        x: Images, shape `(B, C, H, W)`, uint8 or floating point.
        shift: Largest shift in each direction, in pixels.
        rotation: Largest rotation to either side, in degrees.
        crop: Largest share of each side that is cropped away; what is left is enlarged to the whole.
        flip: Whether half of the images are mirrored left to right.

    Returns:
        Images of the same shape and type.
    """
    batch, channels, height, width = x.shape
    steps = torch.randint(-shift, shift + 1, (2, batch), device=x.device)
    if not (rotation or crop or flip):  # whole pixels are only moved, five times as fast
        y = torch.arange(height, device=x.device) + shift - steps[1][:, None]
        x_ = torch.arange(width, device=x.device) + shift - steps[0][:, None]
        sample = torch.arange(batch, device=x.device)[:, None, None, None]
        channel = torch.arange(channels, device=x.device)[None, :, None, None]
        return F.pad(x, [shift] * 4)[sample, channel, y[:, None, :, None], x_[:, None, None, :]]

    def uniform(limit: float) -> Tensor:
        return (torch.rand(batch, device=x.device) * 2 - 1) * limit

    angle = uniform(math.radians(rotation))
    scale = 1 - torch.rand(batch, device=x.device) * crop
    mirror = torch.where(torch.rand(batch, device=x.device) < 0.5, -1.0, 1.0) if flip else torch.ones_like(scale)
    # A crop may lie anywhere between the outermost pixels: its center moves by what was cropped away. A shift is by
    # whole pixels, which does not blur.
    dx = uniform(1 - 1 / width) * (1 - scale) + steps[0] * 2 / width
    dy = uniform(1 - 1 / height) * (1 - scale) + steps[1] * 2 / height
    # Coordinates run from -1 to 1 on both axes, so a rotation of an oblong image needs its aspect.
    cos, sin, aspect = angle.cos() * scale, angle.sin() * scale, height / width
    rows = [torch.stack([cos * mirror, -sin * aspect, dx], 1), torch.stack([sin / aspect * mirror, cos, dy], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), [batch, 1, height, width], align_corners=False)
    moved = F.grid_sample(x.to(grid.dtype), grid, align_corners=False)
    return moved.round_().to(x.dtype) if x.dtype == torch.uint8 else moved.to(x.dtype)


def random_erasing(x: Tensor, probability: float) -> Tensor:
    """Set a random rectangle of some of the images to 0 (Zhong et al. 2017, "Random Erasing Data Augmentation").

    Args:
        x: Images, shape `(B, C, H, W)`.
        probability: Share of the images that lose a rectangle, of 2 to 33 % of the area and an aspect of 0.3 to 3.3.

    Returns:
        Images of the same shape and type.
    """
    batch, _, height, width = x.shape
    random = torch.rand(5, batch, device=x.device)
    area = 0.02 + random[0] * (0.33 - 0.02)
    aspect = torch.exp((random[1] * 2 - 1) * math.log(3.3))
    rows, columns = (area * aspect).sqrt().clamp(max=1) * height, (area / aspect).sqrt().clamp(max=1) * width
    top, left = random[2] * (height - rows), random[3] * (width - columns)
    y = torch.arange(height, device=x.device)[None, :, None]
    x_ = torch.arange(width, device=x.device)[None, None, :]

    def column(v: Tensor) -> Tensor:
        return v[:, None, None]

    inside = (y >= column(top)) & (y < column(top + rows)) & (x_ >= column(left)) & (x_ < column(left + columns))
    erased = inside & column(random[4] < probability)
    return x.masked_fill(erased[:, None], 0)
