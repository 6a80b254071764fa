"""Piecewise-linear encoding: how far a number reaches into each bin."""

import torch

from lit_models.modules.piecewise import PiecewiseLinearEncoding


def test_a_number_fills_the_bins_below_it() -> None:
    encoding = PiecewiseLinearEncoding(1, 4)
    encoding.set(torch.tensor([[0.0, 1, 2, 4, 8]]))
    found = encoding(torch.tensor([[-1.0], [0.5], [3.0], [9.0]]))
    assert found.tolist() == [[0, 0, 0, 0], [0.5, 0, 0, 0], [1, 1, 0.5, 0], [1, 1, 1, 1]]


def test_a_few_values_get_an_edge_each_and_the_rest_of_the_bins_stay_0() -> None:
    encoding = PiecewiseLinearEncoding(2, 4)
    encoding.set(torch.tensor([[0.0, 0, 0, 0, 1], [5.0, 5, 5, 6, 9]]))
    assert encoding.edges.tolist() == [[0, 1, 1, 1, 1], [5, 6, 9, 9, 9]]
    found = encoding(torch.tensor([[1.0, 6.0]]))
    assert found.tolist() == [[1, 0, 0, 0, 1, 0, 0, 0]]


def test_fewer_bins_than_quantiles_take_every_so_many() -> None:
    encoding = PiecewiseLinearEncoding(1, 2)
    encoding.set(torch.arange(5.0)[None])
    assert encoding.edges.tolist() == [[0, 2, 4]]


def test_a_linear_layer_on_it_is_any_piecewise_linear_function() -> None:
    encoding = PiecewiseLinearEncoding(1, 3)
    encoding.set(torch.tensor([[0.0, 1, 2, 3]]))
    heights = torch.tensor([4.0, -1, 2])  # the rise over each bin
    x = torch.linspace(0, 3, 50)
    found = encoding(x[:, None]) @ heights
    known = torch.tensor([0.0, 4, 3, 5])
    below = x.long().clamp(max=2)
    torch.testing.assert_close(found, known[below] + (x - below) * heights[below])


def test_before_it_is_set_the_bins_are_those_of_normalized_numbers() -> None:
    edges = PiecewiseLinearEncoding(3, 4).edges
    assert edges.shape == (3, 5)
    torch.testing.assert_close(edges[0, 1:4], torch.tensor([-0.6745, 0.0, 0.6745]), rtol=1e-3, atol=1e-4)
    assert edges.isfinite().all()
