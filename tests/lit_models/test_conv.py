"""Convolutional networks."""

import pytest
import torch

from lit_models import ConvNet, LeNet, LitConvNet, LitLeNet, ModelError


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 32, 32), (3, 28, 28), (3, 32, 32)])
def test_lenet_takes_both_of_its_sizes_in_any_color(shape: tuple[int, int, int]) -> None:
    model = LitLeNet(shape, num_outputs=7)
    assert model(torch.zeros(4, *shape)).shape == (4, 7)
    assert model(model.example_input_array).shape == (2, 7)


def test_lenet_has_the_parameters_of_the_paper() -> None:
    assert sum(p.numel() for p in LeNet((1, 28, 28), 10).parameters()) == 61_706


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 32), (3, 224, 224), (64,)])
def test_lenet_takes_no_other_size(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"^input_shape=\[.*: LeNet is made for 28x28 or 32x32 images"):
        LitLeNet(shape)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 8, 8), (2, 13, 7), (1, 1, 1)])
def test_convnet_takes_any_size(shape: tuple[int, int, int]) -> None:
    model = LitConvNet(shape, [4, 8, 16], num_outputs=7)
    assert model(torch.rand(4, *shape)).shape == (4, 7)
    assert model(model.example_input_array).shape == (2, 7)


def test_each_stage_of_a_convnet_halves_the_image() -> None:
    net = ConvNet(1, [4, 8, 16], 10)
    sizes = []
    for layer in net.features:
        layer.register_forward_hook(lambda module, _, out: sizes.append((type(module).__name__, tuple(out.shape[1:]))))
    net(torch.zeros(2, 1, 28, 28))
    convolutions = [shape for kind, shape in sizes if kind == "Conv2d"]
    assert convolutions == [(4, 28, 28), (4, 28, 28), (8, 14, 14), (8, 14, 14), (16, 7, 7), (16, 7, 7)]
    assert ("AdaptiveAvgPool2d", (16, 1, 1)) in sizes


def test_convnet_drops_out_in_training_only() -> None:
    net = ConvNet(1, [8], 10, dropout=0.5)
    x = torch.rand(4, 1, 8, 8)
    assert not net(x).equal(net(x))
    net.eval()
    assert net(x).equal(net(x))


def test_a_convnet_averages_over_all_places() -> None:
    torch.manual_seed(0)
    model = LitConvNet((1, 8, 8), [4]).eval()
    x = torch.zeros(3, 1, 8, 8)
    x[0, 0, 3, 3], x[1, 0, 4, 4] = 1, 1
    scores = model(x)
    torch.testing.assert_close(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2])
