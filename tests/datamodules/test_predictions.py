"""Predictions in Python, as a data frame."""

import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules import ToyDataModule
from datamodules.predictions import as_frame
from lit_models import LitLinearRegression, LitMLP


def test_they_are_what_the_model_predicts_of_the_test_split() -> None:
    data = ToyDataModule("iris", batch_size=2)
    model = LitMLP.for_data(data, dropout=0.5).train()
    found = data.predictions(model)
    assert model.training
    samples, indices = data.splits["test"]
    with torch.no_grad():
        expected = data.decode(model.eval().predict_step(samples[indices], 0))
    assert list(found) == list(expected)
    assert list(found["prediction"]) == expected["prediction"]
    np.testing.assert_allclose(found["probability_setosa"], expected["probability_setosa"], rtol=1e-5)


def test_half_precision_is_decoded() -> None:
    data = ToyDataModule("diabetes")
    assert len(data.predictions(LitLinearRegression.for_data(data).bfloat16())) == 88


class _Rounded(LitLinearRegression):
    def decode(self, outputs: Tensor) -> dict[str, list[Any]]:
        """Decode values as integers."""
        return {"rounded": outputs.round().int().tolist()}


def test_a_model_with_outputs_of_its_own_decodes_them() -> None:
    data = ToyDataModule("line")
    assert dict(data.predictions(_Rounded.for_data(data))).keys() == {"rounded"}


def test_columns_stay_what_they_are_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert as_frame({"prediction": [1, 2]}) == {"prediction": [1, 2]}
