"""Progress that can be read."""

import re
import sys
from typing import Any

import pytest
from lightning.pytorch import Trainer

from datamodules import DigitsDataModule
from kindling.callbacks import ProgressBar
from lit_models import LitMLP
from tests.helpers.front_door import Run
from tests.helpers.trainers import quiet_trainer

Output = pytest.CaptureFixture[str]


def _fit(interval: float, **options: Any) -> Trainer:
    trainer = quiet_trainer(
        callbacks=[ProgressBar(interval)],
        enable_progress_bar=True,
        limit_train_batches=3,
        log_every_n_steps=1,
        **options,
    )
    trainer.fit(LitMLP(64, [8]), DigitsDataModule())
    return trainer


def _lines(capsys: Output) -> list[str]:
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]


def test_an_epoch_is_a_line_with_its_metrics(capsys: Output) -> None:
    trainer = _fit(0, max_epochs=3)
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line.split()[:2] for line in lines] == [["epoch", f"{epoch}/3"] for epoch in (1, 2, 3)]
    names = r"train_loss [\d.]+  val_acc [\d.]+  val_f1 [\d.]+  val_loss [\d.]+  \d+ s"
    for line in lines:
        parts = sorted(re.split(" {2,}", line)[1:-1])
        assert re.fullmatch(names, "  ".join([*parts, line.rpartition("  ")[2]])), line
    assert re.split(" {2,}", lines[0])[1].startswith("train_loss ")
    assert f"val_loss {trainer.callback_metrics['val_loss']:.4g}" in lines[-1]
    assert "\r" not in captured.out + captured.err
    assert "\x1b" not in captured.out + captured.err


def test_lines_are_no_closer_than_the_interval_but_the_last_is_always_there(capsys: Output) -> None:
    _fit(1000, max_epochs=5)
    assert [line.split()[1] for line in _lines(capsys)] == ["1/5", "5/5"]


def test_without_a_limit_epochs_are_only_counted(capsys: Output) -> None:
    _fit(0, max_epochs=-1, max_steps=6)
    assert [line.split()[1] for line in _lines(capsys)] == ["1", "2"]


def test_in_a_terminal_there_is_also_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    trainer = _fit(0, max_epochs=2)
    trainer.test(trainer.lightning_module, DigitsDataModule(), verbose=False)
    captured = capsys.readouterr()
    for title in ("epoch 1/2", "epoch 2/2", "test"):
        assert f"\r{title}:" in captured.err
    assert "/3 [" in captured.err
    assert captured.err.endswith("\r")  # cleared
    assert len([line for line in captured.out.splitlines() if line.startswith("epoch")]) == 2


def test_the_bar_is_not_drawn_at_every_step(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("kindling.callbacks.progress.time.monotonic", lambda: 5.0)  # the clock stands still
    _fit(0)
    err = capsys.readouterr().err
    assert "0/3 [" in err
    assert "3/3 [" not in err


def test_it_can_be_switched_off(run: Run, capsys: Output) -> None:
    run("--max_epochs 2 --enable_progress_bar false")
    assert _lines(capsys) == []
    run("--max_epochs 2")
    assert [line.split()[1] for line in _lines(capsys)][-1:] == ["2/2"]


def test_a_disabled_bar_says_nothing(capsys: Output) -> None:
    bar = ProgressBar()
    bar.disable()
    bar.print("hello")
    assert capsys.readouterr().out == ""
    bar.enable()
    bar.print("hello", 3)
    assert capsys.readouterr().out == "hello 3\n"
