"""Linear maps."""

import pytest
import torch

from lit_models import LitLinearRegression, LitLogisticRegression, ModelError


@pytest.mark.parametrize(("features", "outputs"), [(1, 1), (13, 1), (5, 3)])
def test_a_linear_regression_is_a_weighted_sum_and_a_bias(features: int, outputs: int) -> None:
    model = LitLinearRegression(features, outputs)
    x = torch.randn(7, features)
    weight, bias = model.net[1].weight, model.net[1].bias  # type: ignore[index]  # a Sequential
    torch.testing.assert_close(model(x), x @ weight.T + bias)
    assert sum(p.numel() for p in model.parameters()) == (features + 1) * outputs
    assert model.predict_step(x, 0).shape == ((7,) if outputs == 1 else (7, outputs))


def test_a_logistic_regression_gives_the_probability_of_class_1() -> None:
    model = LitLogisticRegression(4)
    x = torch.randn(7, 4)
    torch.testing.assert_close(model.predict_step(x, 0), model(x)[:, 0].sigmoid())
    assert sum(p.numel() for p in model.parameters()) == 5


def test_with_several_classes_it_is_a_softmax_regression() -> None:
    model = LitLogisticRegression(4, 3, "multiclass")
    x = torch.randn(7, 4)
    torch.testing.assert_close(model.predict_step(x, 0).sum(1), torch.ones(7))
    assert sum(p.numel() for p in model.parameters()) == 15


def test_images_are_flattened() -> None:
    assert LitLogisticRegression(64, 10, "multiclass")(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_more_than_one_logit_is_no_binary_task() -> None:
    with pytest.raises(ModelError, match="a binary task has 1 output"):
        LitLogisticRegression(4, 3)
