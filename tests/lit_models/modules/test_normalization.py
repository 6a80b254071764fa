"""Normalization, and the keys that older checkpoints have for it."""

import pytest
import torch
from torch import Tensor, nn

from lit_models import LitDistiller, LitGPT, LitLinearRegression, LitMLP, LitModule, LitSiamese
from lit_models.modules.normalization import Normalization


def test_it_is_neutral_at_first() -> None:
    x = torch.randn(5, 3)
    assert Normalization()(x).equal(x)
    assert Normalization().inverse(x).equal(x)


def test_it_takes_away_the_mean_and_divides_by_the_deviation() -> None:
    module = Normalization()
    module.set(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 0.5]))
    assert module(torch.tensor([[3.0, 3.0]])).tolist() == [[1.0, 2.0]]
    assert module.inverse(torch.tensor([[1.0, 2.0]])).tolist() == [[3.0, 3.0]]


def test_inverse_undoes_it() -> None:
    module = Normalization()
    module.set(torch.randn(3, 1, 1), torch.rand(3, 1, 1) + 0.1)
    x = torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(module.inverse(module(x)), x)
    torch.testing.assert_close(module(module.inverse(x)), x)


def test_it_is_set_once() -> None:
    module = Normalization()
    module.set(torch.tensor(1.0), torch.tensor(2.0))
    module.set(torch.tensor(5.0), torch.tensor(7.0))
    assert (module.mean.item(), module.std.item()) == (1, 2)


def test_what_is_set_has_the_type_of_the_module() -> None:
    module = Normalization().double()
    module.set(torch.tensor([1.0]), torch.tensor([2.0]))
    assert module.mean.dtype == module.std.dtype == torch.float64


def test_a_state_of_another_shape_loads_and_stays() -> None:
    saved = nn.Sequential(Normalization())
    saved[0].set(torch.randn(3, 1, 1), torch.rand(3, 1, 1) + 0.1)  # type: ignore[operator]  # torch's __getattr__
    fresh = nn.Sequential(Normalization())
    fresh.load_state_dict(saved.state_dict(), strict=True)
    x = torch.randn(2, 3, 4, 4)
    assert fresh(x).equal(saved(x))
    fresh[0].set(torch.zeros(3, 1, 1), torch.ones(3, 1, 1))  # type: ignore[operator]
    assert fresh(x).equal(saved(x))
    fresh[0].load_state_dict(Normalization().state_dict(), strict=True)
    assert fresh(x).equal(x)


def test_loading_does_not_touch_the_state_that_is_loaded() -> None:
    saved, fresh = Normalization(), Normalization()
    saved.set(torch.tensor([1.0]), torch.tensor([2.0]))
    fresh.load_state_dict(saved.state_dict())
    fresh.mean.zero_()
    assert saved.mean.item() == 1


def test_the_statistics_are_no_parameters() -> None:
    assert list(Normalization().parameters()) == []
    assert Normalization().state_dict().keys() == {"mean", "std", "is_set"}


def _as_older(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state with the keys of older versions."""
    return {key.replace("normalization.", "standardize."): value for key, value in state.items()}


@pytest.mark.parametrize(
    ("make", "keys"),
    [
        (lambda: LitMLP(4, [3]), {"standardize.mean"}),
        (lambda: LitLinearRegression(4), {"standardize.mean", "task.standardize.std"}),
        (lambda: LitSiamese("LitMLP", in_features=4), {"standardize.mean", "net.standardize.is_set"}),
        (lambda: LitDistiller(in_features=4), {"standardize.mean", "net.standardize.mean"}),
        (lambda: LitGPT(5, 4, 1, 1, 8), {"standardize.mean"}),
    ],
    ids=["model", "regression", "siamese", "distiller", "gpt"],
)
def test_older_checkpoints_load(make: type[LitModule], keys: set[str]) -> None:
    saved, fresh = make(), make()
    for module in saved.modules():
        if isinstance(module, Normalization):
            module.set(torch.full((4,), 3.0), torch.full((4,), 2.0))
    older = _as_older(saved.state_dict())
    assert keys <= older.keys()
    assert not [key for key in older if "normalization" in key]
    fresh.load_state_dict(older, strict=True)
    torch.testing.assert_close(fresh.state_dict(), saved.state_dict(), rtol=0, atol=0)
    fresh.load_state_dict(saved.state_dict(), strict=True)  # and so does a new one
