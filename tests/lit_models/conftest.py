"""Fixtures of the tests of transfer learning."""

from pathlib import Path

import pytest
import torch
from torchvision import models

from tests.helpers.transfer import BACKBONE, State


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch keep its downloads in an empty folder, and seed it."""
    torch.manual_seed(0)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture(scope="session")
def learned() -> State:
    """The state of a pretrained network, its last layer too, which differs from that of a new one everywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        state: State = models.get_model(BACKBONE, weights=None).state_dict()
        for name, value in state.items():
            if name.endswith("running_mean"):
                value.normal_(std=0.1)
            elif name.endswith(("running_var", "weight")) and value.ndim == 1:
                value.uniform_(0.5, 1.5)
    return state


@pytest.fixture
def weights_file(tmp_path: Path, learned: State) -> str:
    """The file of the pretrained weights."""
    path = tmp_path / "learned.pth"
    torch.save(learned, path)
    return str(path)


@pytest.fixture
def transfer_flags(weights_file: str) -> str:
    """A command line that trains three steps an epoch."""
    return (
        f"--model LitTransfer --model.backbone {BACKBONE} --model.weights {weights_file} "
        "--data tests.helpers.tiny.TinyImages --data.batch_size 16 --logger false"
    )
