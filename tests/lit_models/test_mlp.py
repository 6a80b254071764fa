"""The multilayer perceptron."""

import pytest
import torch
from torch import nn

from lit_models import MLP, LitMLP
from lit_models.mlp import Activation


def _kinds(net: MLP) -> list[type[nn.Module]]:
    return [type(layer) for layer in net.layers]


@pytest.mark.parametrize("hidden", [[], [5], [32, 16, 8]])
def test_depth_and_widths_are_as_asked(hidden: list[int]) -> None:
    net = MLP(12, hidden, 3)
    linear = [layer for layer in net.layers if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == list(
        zip([12, *hidden], [*hidden, 3], strict=True)
    )
    assert net(torch.zeros(2, 12)).shape == (2, 3)
    assert _kinds(net)[-1] is nn.Linear  # scores are raw


@pytest.mark.parametrize(
    ("activation", "kind"), [("relu", nn.ReLU), ("sigmoid", nn.Sigmoid), ("tanh", nn.Tanh), ("gelu", nn.GELU)]
)
def test_the_activation_stands_between_each_two_layers(activation: Activation, kind: type[nn.Module]) -> None:
    assert _kinds(MLP(4, [3, 3], 2, activation)) == [nn.Flatten, nn.Linear, kind, nn.Linear, kind, nn.Linear]


def test_batch_normalization_and_dropout_stand_in_their_places() -> None:
    net = MLP(4, [3], 2, dropout=0.25, batch_norm=True)
    assert _kinds(net) == [nn.Flatten, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Dropout, nn.Linear]
    assert net.layers[1].bias is None
    assert net.layers[-1].bias is not None
    assert net.layers[4].p == 0.25


def test_dropout_acts_in_training_only() -> None:
    net = MLP(4, [100], 2, dropout=0.5)
    x = torch.randn(3, 4)
    assert not net(x).equal(net(x))
    net.eval()
    assert net(x).equal(net(x))


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 32, 32), (3, 8, 8), (7,)])
def test_inputs_of_any_shape_are_flattened(shape: tuple[int, ...]) -> None:
    features = torch.Size(shape).numel()
    model = LitMLP(features, [4], num_outputs=3)
    assert model(torch.zeros(2, *shape)).shape == (2, 3)
    assert model(model.example_input_array).shape == (2, 3)


def test_options_reach_the_network() -> None:
    model = LitMLP(6, [5], "tanh", 0.1, True, task="regression", num_outputs=2)
    assert isinstance(model.net, MLP)
    assert _kinds(model.net) == [nn.Flatten, nn.Linear, nn.BatchNorm1d, nn.Tanh, nn.Dropout, nn.Linear]
    assert model.predict_step(torch.zeros(4, 6), 0).shape == (4, 2)
