"""Networks of torchvision without their last layer, and with a new head."""

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torchvision import models

from lit_models.errors import ModelError, check_dropout


def make_backbone(name: str, input_shape: Sequence[int]) -> tuple[nn.Module, int]:
    """Return a network of torchvision without its last layer, from images `(B, 3, H, W)` to features `(B, F)`, and F.

    Its weights are random, and `input_shape` is channels, height and width of an image.

    Raises:
        ModelError: If there is no such network, or it cannot take such images.
    """
    check_name(name)
    channels, *size = input_shape
    if channels not in (1, 3) or len(size) != 2:
        raise ModelError(f"{name} takes images of 3 channels, or of 1", "", "input_shape", list(input_shape))
    options: dict[str, Any] = {}
    if name.startswith("vit"):
        options["image_size"] = size[0]
    elif name.startswith("maxvit"):
        options["input_size"] = tuple(size)
    elif name in ("googlenet", "inception_v3"):
        # Their weights were trained with another normalization, which the networks apply themselves.
        options = {"aux_logits": False, "init_weights": True, "transform_input": True}
    try:
        net: nn.Module = models.get_model(name, weights=None, **options)
        if name.startswith("squeezenet"):  # its last layer is a convolution
            net.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
            features = 512
        else:
            path, last = [(path, layer) for path, layer in net.named_modules() if isinstance(layer, nn.Linear)][-1]
            net.set_submodule(path, nn.Identity())
            features = last.in_features
        # Check the image size on the meta device, without computing anything.
        tensors = {key: value.to("meta") for key, value in (*net.named_parameters(), *net.named_buffers())}
        functional_call(net.eval(), tensors, torch.zeros(1, 3, *size, device="meta"))
    except (RuntimeError, ValueError, AssertionError) as error:
        problem = f"{name} cannot take images of {'x'.join(map(str, size))} pixels ({' '.join(str(error).split())})"
        remedy = "give images of 224x224 pixels, or another `backbone`"
        raise ModelError(problem, remedy, "input_shape", list(input_shape)) from error
    return net.train(), features


def check_name(name: str) -> None:
    """Raise a ModelError unless torchvision has a classification network of this name."""
    known = models.list_models(module=models)
    if name not in known:
        close = difflib.get_close_matches(name.lower(), known)
        hint = "give resnet18, vgg16, efficientnet_b0, vit_b_16, ..."
        hint = f"did you mean {' or '.join(close)}?" if close else hint
        raise ModelError("torchvision has no such network to classify images", hint, "backbone", name)


class TransferNet(nn.Module):
    """A classification network of torchvision whose last layer is replaced.

    Its arguments are those of `LitTransfer`, and `num_outputs`, the outputs for each sample.

    Raises:
        ModelError: If there is no such network, or it cannot take such images.
    """

    def __init__(self, backbone: str, input_shape: Sequence[int], num_outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        check_dropout(dropout)
        self.backbone, features = make_backbone(backbone, input_shape)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(features, num_outputs))
        self.is_frozen = False
        self.to(memory_format=torch.channels_last)  # the fastest layout for convolutions

    def forward(self, x: Tensor) -> Tensor:
        """Compute outputs, `(B, num_outputs)`, from normalized images, `(B, C, H, W)`."""
        outputs: Tensor = self.head(self.features(x))
        return outputs

    def features(self, x: Tensor) -> Tensor:
        """Compute the inputs of the head, `(B, F)`, from normalized images, `(B, C, H, W)`."""
        features: Tensor = self.backbone(x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last))
        return features

    def freeze(self, is_frozen: bool) -> None:
        """Freeze the backbone, with its batch norms and dropouts in evaluation mode, or unfreeze it."""
        self.is_frozen = is_frozen
        self.backbone.requires_grad_(not is_frozen)
        self.backbone.train(self.training and not is_frozen)

    def train(self, mode: bool = True) -> "TransferNet":
        """Set the training mode of all but a frozen backbone."""
        super().train(mode)
        self.backbone.train(mode and not self.is_frozen)
        return self
