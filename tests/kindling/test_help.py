"""The help that people read."""

from collections.abc import Callable

import pytest

from kindling.help import DATA, MODELS
from tests.helpers.front_door import Run


def _help(run: Run, capsys: pytest.CaptureFixture[str], line: str) -> str:
    with pytest.raises(SystemExit) as stop:
        run(line)
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_help_fits_on_two_screens(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    lines = _help(run, capsys, "--help").splitlines()
    assert len(lines) <= 100
    assert max(map(len, lines[: lines.index("examples:")])) <= 100
    words = {line.split()[0] for line in lines if line}
    assert {"fit", "validate", "test", "predict", "cross_validate", *MODELS, *DATA} <= words
    assert {"--max_epochs", "--ckpt_path", "--model.lr", "--data.batch_size", "--early_stopping.patience"} <= words
    assert "  LitTransfer            Pretrained backbone of torchvision with a new head" in lines
    assert sum(line.startswith("  --") for line in lines) <= 30


def test_all_flags_are_shown_when_asked_for(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    whole = _help(run, capsys, "--help_all")
    assert whole == _help(run, capsys, "fit --help")
    assert "--trainer.reload_dataloaders_every_n_epochs" in whole
    assert "--checkpoint.save_top_k" in whole


def test_data_from_python_are_not_offered(mistake: Callable[[str], str]) -> None:
    assert "ArrayDataModule" not in DATA
    answer = "ArrayDataModule takes X and y, arrays or tensors, from Python only; give another data module."
    assert answer in mistake("--data ArrayDataModule")
