"""Sampling of tokens."""

from typing import Any

import pytest
import torch

from lit_models.gpt import sample

LOGITS = torch.tensor([0.5, 0.25, 0.15, 0.1]).log()


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, [0.5, 0.25, 0.15, 0.1]),
        ({"temperature": 0.5}, [25 / 34.5, 6.25 / 34.5, 2.25 / 34.5, 1 / 34.5]),
        ({"temperature": 0}, [1, 0, 0, 0]),
        ({"top_k": 2}, [2 / 3, 1 / 3, 0, 0]),
        ({"top_k": 1}, [1, 0, 0, 0]),
        ({"top_k": 9}, [0.5, 0.25, 0.15, 0.1]),
        ({"top_p": 0.75}, [2 / 3, 1 / 3, 0, 0]),
        ({"top_p": 0.76}, [5 / 9, 2.5 / 9, 1.5 / 9, 0]),
        ({"top_p": 0.01}, [1, 0, 0, 0]),
        ({"top_k": 3, "top_p": 0.6}, [2 / 3, 1 / 3, 0, 0]),
    ],
)
def test_tokens_are_sampled_by_their_probabilities(how: dict[str, Any], expected: list[float]) -> None:
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, **how}
    order = torch.tensor([2, 0, 3, 1])  # the most likely token need not come first
    drawn = sample(LOGITS[order].repeat(20_000, 1), **settings, generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (20_000, 1)
    found = order[drawn[:, 0]].bincount(minlength=4) / 20_000
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float), atol=0.012, rtol=0)
    assert (found[torch.tensor(expected) == 0] == 0).all()
