"""Weights of torchvision's networks for tests, which have no net to fetch the published ones from."""

from pathlib import Path

import pytest
import torch
from torchvision import models


def publish_weights(request: pytest.FixtureRequest, backbone: str) -> Path:
    """Put random weights where torch keeps what it has downloaded, under the published file's name.

    Args:
        request: Of the test, which gets a folder of its own for such files.
        backbone: The network.

    Returns:
        The file.
    """
    folder = request.getfixturevalue("tmp_path") / "torch"
    request.getfixturevalue("monkeypatch").setenv("TORCH_HOME", str(folder))
    file: Path = folder / "hub" / "checkpoints" / models.get_model_weights(backbone)["DEFAULT"].url.rpartition("/")[2]
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(models.get_model(backbone, weights=None).state_dict(), file)
    return file
