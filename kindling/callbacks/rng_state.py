"""States of the random number generators in checkpoints, so that a resumed run draws the same numbers."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class RNGState(Callback):
    """Saves the states of all random number generators in every checkpoint and restores them when training resumes.

    The order of the batches does not depend on them: data modules derive it from their own seed and the epoch.
    """

    def __init__(self) -> None:
        self._saved: dict[str, Any] | None = None

    @property
    def state_key(self) -> str:
        """The key of this callback's state in a checkpoint, the same in older checkpoints."""
        return "RandomState"

    def state_dict(self) -> dict[str, Any]:
        """Collect the states, as types that `weights_only=True` loads."""
        name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # the global one
        return {
            "python": random.getstate(),
            "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training starts: building loaders and the sanity check also draw numbers."""
        self._saved = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the states from the checkpoint."""
        if self._saved is None:
            return
        version, numbers, gauss = self._saved["python"]
        random.setstate((version, tuple(numbers), gauss))
        name, keys, *rest = self._saved["numpy"]
        np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
        torch.set_rng_state(self._saved["torch"].cpu())
        if len(self._saved["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([state.cpu() for state in self._saved["cuda"]])
        self._saved = None
