"""Initialization of a network's weights."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import init
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

InitName = Literal[
    "kaiming_uniform", "kaiming_normal", "xavier_uniform", "xavier_normal", "normal", "orthogonal", "constant"
]
Nonlinearity = Literal["linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"]

# `torch` has no gain for the smooth relatives of ReLU, for which that of ReLU is close enough.
NONLINEARITIES: dict[type[nn.Module], Nonlinearity] = {
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.LeakyReLU: "leaky_relu",
    nn.SELU: "selu",
    **dict.fromkeys([nn.ReLU, nn.ReLU6, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish], "relu"),
}


def initialize_weights(
    module: nn.Module,
    scheme: InitName,
    nonlinearity: Nonlinearity | None = None,
    std: float = 0.01,
    value: float = 0.01,
) -> None:
    """Initialize the weights of a network, each layer by its type.

    Linear layers and convolutions get weights by the scheme, times the gain of the activation that follows
    (`torch.nn.init.calculate_gain`), so that the variance of signals is kept; recurrent layers and attention are
    initialized gate by gate and projection by projection, with a gain of 1. Biases become 0; norms become 1 and 0.
    Embeddings, also where a layer shares their weight, and modules with parameters of their own are left alone.

    Args:
        module: A network, changed in place.
        scheme: `kaiming_*` keeps the variance of signals (He et al. 2015), `xavier_*` that of signals and gradients
            (Glorot and Bengio 2010), `orthogonal` also angles (Saxe et al. 2013); `normal` and `constant` ignore sizes
            and gains.
        nonlinearity: The activation after the layers; by default, for each, the next activation in the order in which
            the network's layers were made, if it comes before the next layer with weights, else none. Functions that
            `forward` calls are not found.
        std: Standard deviation of `normal`.
        value: The value of `constant`.
    """
    embeddings = {id(part.weight) for part in module.modules() if isinstance(part, (nn.Embedding, nn.EmbeddingBag))}
    gains: dict[nn.Module, float] = {}
    latest: nn.Module | None = None
    for part in module.modules():
        if isinstance(part, (nn.Linear, _ConvNd)):
            latest, gains[part] = part, init.calculate_gain(nonlinearity or "linear")
        elif isinstance(part, (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)):
            latest, gains[part] = None, 1.0
        elif latest is not None and nonlinearity is None and type(part) in NONLINEARITIES:
            slope = getattr(part, "negative_slope", None)
            gains[latest] = init.calculate_gain(NONLINEARITIES[type(part)], slope)
            latest = None
        elif isinstance(part, (_BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)):
            part.reset_parameters()
    for part, gain in gains.items():
        size = getattr(part, "hidden_size", getattr(part, "embed_dim", None))  # rows of a gate, or a projection
        for name, parameter in part.named_parameters(recurse=False):
            if "bias" in name:
                init.zeros_(parameter)
            elif id(parameter) not in embeddings:
                for block in parameter.split(size or len(parameter)):
                    _fill(block, scheme, gain, std, value)


@torch.no_grad()
def _fill(weight: Tensor, scheme: InitName, gain: float, std: float, value: float) -> None:
    if scheme == "normal":
        init.normal_(weight, std=std)
    elif scheme == "constant":
        init.constant_(weight, value)
    elif scheme.startswith("kaiming"):
        getattr(init, f"{scheme}_")(weight, nonlinearity="linear").mul_(gain)
    else:
        getattr(init, f"{scheme}_")(weight, gain=gain)
