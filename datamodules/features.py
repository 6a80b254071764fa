"""What a network that stays as it is makes of its inputs, computed once."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from datamodules.sampler import Samples, Split

Change = Callable[[Tensor], Tensor]


def compute_features(
    batches: Iterable[Any], size: int, extract: Change, augment: Change, views: int, seed: int, device: torch.device
) -> Split:
    """Compute the features of all samples, in one pass over them.

    Args:
        batches: Inputs with their targets, in an order that stays.
        size: How many samples there are.
        extract: From a batch of inputs to features, `(B, F)`.
        augment: Varies a batch of inputs at random.
        views: How many variations of each sample to take.
        seed: Seed of the variations: a run that is resumed finds the same.
        device: Where `extract` wants its batch.

    Returns:
        Samples of `views * size` features, one variation of all after the other, and the indices of the first.
    """
    found: Tensor | None = None
    targets, start = [], 0
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        # No bar in a file.
        for number, (x, y) in enumerate(
            tqdm(batches, "computing features", unit=" batches", disable=None, leave=False)
        ):
            x = x.to(device)
            for view in range(views):
                torch.manual_seed((seed * 2**20 + number) * 2**10 + view)
                features = extract(augment(x)).float().cpu()
                if found is None:
                    found = torch.empty(views, size, *features.shape[1:])
                found[view, start : start + len(y)] = features
            targets.append(y)
            start += len(y)
    assert found is not None
    return Split(Samples(found.flatten(0, 1), torch.cat(targets * views)), torch.arange(size))
