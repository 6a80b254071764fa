"""Convolutional networks for small images: LeNet, and a modern one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_models.base import LitModule
from lit_models.errors import ModelError, check_dropout


class LeNet(nn.Module):
    """LeNet-5 (LeCun et al. 1998), with ReLU and max pooling instead of sigmoids and average pooling.

    28x28 images get a border of 2 pixels, so that they become the 32x32 of the paper.
    `input_shape` is channels, height and width; there are `num_outputs` logits or values for each image.

    Raises:
        ModelError: If the images are neither 28x28 nor 32x32.
    """

    def __init__(self, input_shape: Sequence[int], num_outputs: int) -> None:
        super().__init__()
        channels, *size = input_shape
        if size not in ([28, 28], [32, 32]):
            problem = f"LeNet is made for 28x28 or 32x32 images, not {'x'.join(map(str, size)) or 'rows of numbers'}"
            raise ModelError(problem, "try LitMLP", "input_shape", list(input_shape))
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, kernel_size=5, padding=(32 - size[0]) // 2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, kernel_size=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, num_outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Compute outputs, `(B, num_outputs)`, from images, `(B, C, H, W)`."""
        outputs: Tensor = self.classifier(self.features(x))
        return outputs


class LitLeNet(LitModule):
    """LeNet-5 for 28x28 or 32x32 images of any number of channels.

    Args:
        input_shape: Channels, height and width of an image.
        kwargs: Options of `LitModule`.
    """

    def __init__(self, input_shape: Sequence[int] = (1, 28, 28), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.net = LeNet(input_shape, self.num_outputs)
        self.initialize()
        self.example_input_array = torch.zeros(2, *input_shape)


class ConvNet(nn.Module):
    """Stages of 3x3 convolutions with batch normalization (Ioffe and Szegedy 2015), then global average pooling.

    Takes the arguments of `LitConvNet`, and `num_outputs`; invalid ones raise a ModelError.
    """

    def __init__(self, in_channels: int, channels: Sequence[int], num_outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        check_dropout(dropout)
        if not channels or min(channels) < 1:
            raise ModelError("give one stage or more, each of 1 channel or more", "", "channels", list(channels))
        layers: list[nn.Module] = []
        for stage, width in enumerate(channels):
            if stage:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            for before in (in_channels, width):
                convolution = nn.Conv2d(before, width, kernel_size=3, padding=1, bias=False)
                layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            in_channels = width
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout))
        self.classifier = nn.Linear(in_channels, num_outputs)
        self.to(memory_format=torch.channels_last)  # the fastest layout for convolutions

    def forward(self, x: Tensor) -> Tensor:
        """Compute outputs, `(B, num_outputs)`, from images, `(B, C, H, W)`."""
        outputs: Tensor = self.classifier(self.features(x.contiguous(memory_format=torch.channels_last)))
        return outputs


class LitConvNet(LitModule):
    """A small modern convolutional network: the accurate choice for images of about 28x28.

    Args:
        input_shape: Channels, height and width of an image; of any size.
        channels: Channels of each stage of two convolutions; all but the last halve the image.
        dropout: Share of the pooled features that are dropped in training.
        kwargs: Options of `LitModule`.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (1, 28, 28),
        channels: Sequence[int] = (32, 64, 128),
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.net = ConvNet(input_shape[0], channels, self.num_outputs, dropout)
        self.initialize()
        self.example_input_array = torch.zeros(2, *input_shape)
