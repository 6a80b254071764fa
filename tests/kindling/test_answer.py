"""What is said after a test."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from kindling.answer import bounds, figure, table, verdict, with_intervals
from kindling.baselines import Baseline
from kindling.intervals import Outcome
from tests.helpers.front_door import Run


def _classes(right: int, size: int = 1000, flipped: int = 0) -> Outcome:
    """The first ones are right, or those after the first `flipped`."""
    return Outcome("multiclass", (np.roll(np.arange(size), flipped) >= right).astype(np.int64), np.zeros(size, int))


def _baseline(outcome: Outcome, rows: int = 10, is_constant: bool = False) -> Baseline:
    return Baseline("always 1" if is_constant else "trees", {"": outcome}, rows, 10, is_constant=is_constant)


@pytest.mark.parametrize(
    ("value", "interval", "shown"),
    [
        (0.82123, (0.7631, 0.8729), "m 0.8212 (0.763 to 0.873)"),
        (2.5, (2.25, 3), "m 2.5000 (2.250 to 3.000)"),
        (0.01234, (0.011, 0.0143), "m 0.0123 (0.011 to 0.0143)"),
        (450.25, (431.27, 470.0), "m 450.25 (431.3 to 470)"),
        (47213.26, (45102.4, 49400.1), "m 47213.3 (45102 to 49400)"),
    ],
)
def test_a_metric_is_shown_with_its_interval(value: float, interval: tuple[float, float], shown: str) -> None:
    assert with_intervals({"m": value, "n": 1.0}, {"m": interval}) == [shown, "n 1.0000"]
    assert f"m {figure(value)} {bounds(interval)}" == shown


def test_a_baseline_on_a_part_says_so() -> None:
    lines = table(
        [_baseline(_classes(600), is_constant=True), _baseline(_classes(700), rows=4)], {"x": "so"}, ["test_acc"]
    )
    assert lines == [
        "  baselines on the same 1,000 test samples, fitted on the 10 of train and validation:",
        "  trees     test_acc 0.7000  on 4 of 10",
        "  always 1  test_acc 0.6000",
        "  x: left out, as so",
    ]


def test_a_model_that_is_best_needs_no_verdict() -> None:
    assert verdict(_classes(800), [_baseline(_classes(700)), _baseline(_classes(800))]) == []
    assert verdict(_classes(800), []) == []


def test_a_clearly_better_baseline_is_told_with_what_it_means() -> None:
    said = verdict(_classes(700), [_baseline(_classes(600), is_constant=True), _baseline(_classes(900))])
    assert said[0].startswith("A baseline is better: trees, test_acc 0.9000 against 0.7000 (the difference is 0.1")
    assert "use the baseline" in said[1]
    said = verdict(_classes(700), [_baseline(_classes(900), is_constant=True)])
    assert "has learned nothing" in said[1]


def test_a_barely_better_baseline_is_no_proof() -> None:
    (said,) = verdict(_classes(70, 100, flipped=50), [_baseline(_classes(72, 100))])
    assert "100 test samples are too few to be sure of it (the difference is -0." in said


def test_less_error_is_better() -> None:
    y = np.zeros(400)
    model, trees = (Outcome("regression", np.random.default_rng(0).normal(0, scale, 400), y) for scale in (2, 1))
    said = verdict(model, [_baseline(trees)])
    assert "trees, test_rmse" in said[0]
    assert "use the baseline" in said[1]
    assert verdict(trees, [_baseline(model)]) == []


TABLE = "--data CSVDataModule --data.path t.csv --data.target y"


@pytest.fixture
def noise(workdir: Path) -> Path:
    """A table whose target is the sign of a product, which trees find."""
    rng = np.random.default_rng(0)
    rows = [f"{a:.3f},{b:.3f},{'yes' if a * b > 0 else 'no'}\n" for a, b in rng.normal(size=(900, 2))]
    (workdir / "t.csv").write_text("a,b,y\n" + "".join(rows))
    return workdir


@pytest.mark.usefixtures("noise")
def test_a_run_ends_with_an_honest_answer(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kindling.cli.BASELINES", 1000.0)  # so that a loaded machine fits all of them too
    cli = run(f"{TABLE} --max_epochs 2 --model.hidden [2]")
    out = capsys.readouterr().out
    summary = json.loads((Path(cli.trainer.default_root_dir) / "summary.json").read_text())
    low, high = summary["test_intervals"]["test_acc"]
    assert low < summary["test"]["test_acc"] < high
    assert f"test_acc {summary['test']['test_acc']:.4f} ({low:.3f} to {high:.3f})" in out
    assert summary["baselines"].keys() == {"always yes", "logistic regression", "gradient boosting"} or (
        "always no" in summary["baselines"]
    )
    trees = summary["baselines"]["gradient boosting"]
    assert trees["test_acc"] > 0.9
    assert (trees["samples"], trees["of"]) == (720, 720)
    last = out.splitlines()[-2:]
    assert last[0].startswith("A baseline is better: gradient boosting, test_acc 0.9")
    assert last[1].startswith("As it stands, this model is not worth its effort")
    capsys.readouterr()
    run(f"test --ckpt_path {summary['best_checkpoint']}")
    tested = capsys.readouterr().out
    assert f"with 95 % intervals:  test_acc {summary['test']['test_acc']:.4f} ({low:.3f} to {high:.3f})" in tested
    assert "baseline" not in tested


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize("flags", ["--baselines false", "--overfit_batches 1", "--fast_dev_run 1"])
def test_baselines_can_be_left_out(run: Run, capsys: pytest.CaptureFixture[str], flags: str) -> None:
    cli = run(f"{TABLE} --max_epochs 1 {flags}")
    assert "baseline" not in capsys.readouterr().out
    assert "baselines" not in cli.summary.summary
    if flags == "--baselines false":
        assert cli.summary.summary["test_intervals"].keys() == {"test_acc", "test_auroc", "test_f1"}
        config = yaml.safe_load((Path(cli.trainer.default_root_dir) / "config.yaml").read_text())
        assert config["baselines"] is False


@pytest.mark.usefixtures("noise")
def test_a_stream_has_intervals_alone(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    cli = run(f"{TABLE} --max_epochs 1 --data.streaming true")
    assert "no baselines, as the table is streamed" in capsys.readouterr().out
    assert "test_acc" in cli.summary.summary["test_intervals"]


@pytest.mark.usefixtures("noise")
def test_folds_have_baselines_too(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kindling.cli.BASELINES", 1000.0)
    run(f"cross_validate {TABLE} --max_epochs 1 --data.num_folds 2")
    assert "  baseline logistic regression  test_acc 0.5" in capsys.readouterr().out


def test_a_misspelled_switch_is_one_line(mistake: Callable[[str], str]) -> None:
    assert "--baseline: there is no such flag; did you mean --baselines?" in mistake("--baseline false")
    assert "--doctor 3: expected bool" in mistake("--doctor 3")
