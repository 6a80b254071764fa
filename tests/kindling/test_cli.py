"""The front door, as a user opens it."""

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from datamodules import CSVDataModule, DigitsDataModule
from lit_models import LitMLP
from tests.helpers.front_door import ROOT, Run

BEST = "runs/LitMLP-DigitsDataModule/version_0/checkpoints/best.ckpt"
Mistake = Callable[[str], str]


def test_without_any_argument_an_mlp_learns_the_digits(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    cli = run("")
    out = capsys.readouterr().out
    assert cli.trainer.callback_metrics["test_acc"] >= 0.96
    assert "best val_loss" in out
    assert f"python train.py test --ckpt_path {BEST}" in out
    folder = Path("runs/LitMLP-DigitsDataModule/version_0")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["epochs"] == 30
    assert summary["test"]["test_acc"] == pytest.approx(float(cli.trainer.callback_metrics["test_acc"]))
    assert summary["best"]["val_loss"] <= summary["final"]["val_loss"]
    assert summary["samples_per_second"] > 0
    assert (folder / "checkpoints/last.ckpt").is_file()
    assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["class_path"] == "lit_models.LitMLP"


def test_the_test_figure_is_repeated_from_the_checkpoint_alone(run: Run) -> None:
    fitted = run("--max_epochs 3 --data.seed 5 --model.hidden [32]")
    figure = fitted.trainer.callback_metrics["test_acc"].clone()
    tested = run(f"test --ckpt_path {BEST}")
    assert tested.trainer.callback_metrics["test_acc"] == figure
    assert tested.datamodule.seed == 5


def test_flat_and_long_trainer_flags_mean_the_same(run: Run) -> None:
    flat = run("--max_epochs 1 --accelerator=cpu --gradient_clip_val 0.5")
    long = run("fit --trainer.max_epochs 1 --trainer.accelerator=cpu --trainer.gradient_clip_val 0.5")
    assert flat.trainer.max_epochs == long.trainer.max_epochs == 1
    assert flat.trainer.gradient_clip_val == long.trainer.gradient_clip_val == 0.5


def test_the_data_tell_the_model_its_sizes_unless_they_are_given(run: Run) -> None:
    cli = run("--fast_dev_run 1 --data ToyDataModule --data.name wine")
    assert (cli.model.hparams["in_features"], cli.model.num_outputs) == (13, 3)
    run("--max_epochs 1 --data ToyDataModule --data.name wine --model.num_outputs 7")  # a class may be to come
    best = "runs/LitMLP-ToyDataModule/version_0/checkpoints/best.ckpt"
    assert run(f"test --ckpt_path {best}").model.num_outputs == 7
    run(f"predict --ckpt_path {best}")
    assert Path("predictions.csv").read_text().partition("\n")[0].endswith("probability_6")


def test_explicit_flags_beat_the_checkpoint(run: Run) -> None:
    run("--max_epochs 1 --model.hidden [24] --data.batch_size 32")
    last = BEST.replace("best", "last")
    cli = run(f"--ckpt_path {last} --max_epochs 2 --model.lr 0.5 --data.seed 0")
    assert cli.model.hparams["hidden"] == [24]
    assert cli.datamodule.batch_size == 32
    assert cli.trainer.optimizers[0].param_groups[0]["lr"] == 0.5
    assert cli.trainer.current_epoch == 2


def test_more_accuracy_is_better(run: Run) -> None:
    cli = run("--max_epochs 5 --checkpoint.monitor val_acc --early_stopping.monitor val_acc")
    best = json.loads((Path(cli.trainer.default_root_dir) / "summary.json").read_text())["best"]
    assert best["val_acc"] >= 0.9


def test_other_folders_among_the_runs_do_no_harm(run: Run) -> None:
    Path("runs/LitMLP-DigitsDataModule/version_0_old").mkdir(parents=True)
    run("--max_epochs 1")
    assert Path(BEST).is_file()


def test_the_split_cannot_change_when_a_run_is_resumed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("--max_epochs 1")
    with pytest.raises(SystemExit) as stop:
        run(f"--ckpt_path {BEST} --data.seed 1 --max_epochs 2")
    assert stop.value.code == 2
    assert "--data.seed 1: a run is resumed with its own splits and batches; it had 0." in capsys.readouterr().err


@pytest.mark.slow
def test_digits_are_learned_on_any_split(run: Run) -> None:
    figures = [float(run(f"--data.seed {seed}").trainer.callback_metrics["test_acc"]) for seed in range(5)]
    assert min(figures) >= 0.95
    assert sum(figures) / 5 >= 0.97


@pytest.mark.slow
def test_lenet_reads_99_of_100_digits(run: Run, data_dir: str) -> None:
    cli = run(f"--config {ROOT}/configs/mnist_lenet.yaml --data.data_dir {data_dir}")
    assert cli.trainer.callback_metrics["test_acc"] >= 0.99


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_nothing_is_evaluated_without_a_checkpoint(mistake: Mistake, subcommand: str) -> None:
    assert f"{subcommand} needs a trained model: give --ckpt_path" in mistake(subcommand)


def test_data_that_do_not_fit_the_checkpoint_are_one_line(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("--max_epochs 1 --data ToyDataModule --data.name wine")
    with pytest.raises(SystemExit) as stop:
        run(f"test --ckpt_path {BEST.replace('Digits', 'Toy')} --data.name iris")
    assert stop.value.code == 2
    assert "was trained with in_features 13, but ToyDataModule has 4" in capsys.readouterr().err


def test_a_class_that_is_chosen_has_its_own_defaults(run: Run, workdir: Path) -> None:
    (workdir / "t.csv").write_text("x,y\n" + "".join(f"{i},{i % 5}.5\n" for i in range(40)))
    cli = run("--model LitMLP --data CSVDataModule --data.path t.csv --max_epochs 1")
    assert isinstance(cli.datamodule, CSVDataModule)
    assert cli.datamodule.hparams["batch_size"] is None  # and not the 64 of the default data
    resumed = run("--ckpt_path runs/LitMLP-CSVDataModule/version_0/checkpoints/last.ckpt --max_epochs 2 --data.seed 0")
    assert resumed.datamodule.hparams["path"] == "t.csv"


def test_data_of_another_class_than_the_checkpoint_knows_are_one_line(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--max_epochs 1")
    with pytest.raises(SystemExit) as stop:
        run(f"test --ckpt_path {BEST} --data ToyDataModule --data.name iris")
    assert stop.value.code == 2
    assert "--data ToyDataModule: this model was trained on DigitsDataModule" in capsys.readouterr().err


def test_weights_that_do_not_fit_the_flags_are_one_line(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("--max_epochs 1")
    with pytest.raises(SystemExit) as stop:
        run(f"test --ckpt_path {BEST} --model.hidden [7]")
    assert stop.value.code == 2
    assert "its weights do not fit this model" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["fit --help", "test --help"])
def test_help_names_the_subcommands(run: Run, capsys: pytest.CaptureFixture[str], line: str) -> None:
    with pytest.raises(SystemExit) as stop:
        run(line)
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "fit, validate, test, predict" in out
    assert "--data" in out


def test_predictions_have_a_class_and_its_probabilities_for_every_sample(run: Run) -> None:
    run("--max_epochs 5")
    cli = run(f"predict --ckpt_path {BEST}")
    header, *rows = Path("predictions.csv").read_text().splitlines()
    assert header.split(",")[:2] == ["prediction", "probability_0"]
    samples, indices = cli.datamodule.splits["test"]
    assert len(rows) == len(indices)
    right = sum(int(row.split(",")[0]) == y for row, y in zip(rows, samples.y[indices].tolist(), strict=True))
    assert right / len(rows) == pytest.approx(_test_accuracy(run))


def _test_accuracy(run: Run) -> float:
    return float(run(f"test --ckpt_path {BEST}").trainer.callback_metrics["test_acc"])


def test_runs_do_not_overwrite_each_other(run: Run) -> None:
    for _ in range(2):
        run("--max_epochs 1 --logger false")
    assert sorted(path.parent.name for path in Path("runs").rglob("summary.json")) == ["version_0", "version_1"]
    assert len(list(Path("runs").rglob("best.ckpt"))) == 2


def test_training_stops_early_and_keeps_the_best(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    cli = run("--max_epochs 100 --early_stopping.patience 1 --model.lr 0.05")
    assert "stopped early: Monitored metric val_loss did not improve" in capsys.readouterr().out
    assert cli.trainer.current_epoch < 100
    best = torch.load(BEST, weights_only=True)
    assert best["epoch"] < cli.trainer.current_epoch
    patient = run(f"--ckpt_path {BEST.replace('best', 'last')} --early_stopping.patience 5 --max_epochs 100")
    assert patient.trainer.current_epoch > cli.trainer.current_epoch + 1


@pytest.mark.parametrize("flags", ["--enable_progress_bar false", "--enable_checkpointing false", "--max_steps 5"])
def test_parts_can_be_switched_off(run: Run, flags: str) -> None:
    cli = run(f"{flags} --max_epochs 2")
    assert "test_acc" in cli.trainer.callback_metrics


def test_without_validation_the_training_loss_is_watched(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("--max_epochs 2 --data.val_fraction 0")
    assert "best train_loss" in capsys.readouterr().out


def test_a_users_own_model_trains_by_its_path(run: Run, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workdir / "tiny_models.py").write_text(
        "from torch import nn\n"
        "from lit_models import LitModule\n"
        "class LitTiny(LitModule):\n"
        "    def __init__(self, in_features: int = 64, width: int = 8, **kwargs):\n"
        "        super().__init__(**kwargs)\n"
        "        self.net = nn.Sequential(nn.Flatten(), nn.Linear(in_features, width), nn.ReLU(),\n"
        "                                 nn.Linear(width, self.num_outputs))\n"
    )
    monkeypatch.syspath_prepend(str(workdir))
    run("--model tiny_models.LitTiny --model.width 16 --max_epochs 2")
    best = "runs/LitTiny-DigitsDataModule/version_0/checkpoints/best.ckpt"
    cli = run(f"test --model tiny_models.LitTiny --ckpt_path {best}")
    assert cli.model.hparams["width"] == 16


@pytest.mark.slow
def test_two_processes_train_together(workdir: Path) -> None:
    command = f"{sys.executable} {ROOT}/train.py --accelerator cpu --devices 2 --strategy ddp --max_epochs 2"
    done = subprocess.run(
        command.split(), capture_output=True, text=True, timeout=200, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(Path("runs/LitMLP-DigitsDataModule/version_0/summary.json").read_text())
    assert summary["steps"] == 2 * 11  # 1,294 samples in batches of 64, shared by two
    assert summary["test"]["test_acc"] > 0.3
    low, high = summary["test_intervals"]["test_acc"]  # of the samples of both
    assert low < summary["test"]["test_acc"] < high
    assert len(summary["baselines"]) == 1
    assert not Path("runs/LitMLP-DigitsDataModule/version_1").exists()


def test_help_comes_before_the_imports_that_only_training_needs() -> None:
    code = "import sys, train; sys.exit(any(name.startswith(('sklearn', 'tensorboard.')) for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_test_without_a_test_split_says_so(run: Run, mistake: Mistake, tmp_path: Path) -> None:
    run("--max_epochs 1 --data.test_fraction 0")
    kept = shutil.move("runs", tmp_path / "kept")  # `mistake` looks for runs left behind
    line = mistake(f"test --ckpt_path {kept}/LitMLP-DigitsDataModule/version_0/checkpoints/best.ckpt")
    assert "test: DigitsDataModule has no test split here" in line


GPT = (
    "--model LitGPT --model.width 8 --model.num_layers 1 --model.dropout 0.2 --data TextCorpusDataModule "
    "--data.context_length 32 --samples.length 20"
)
GPT_RUN = "runs/LitGPT-TextCorpusDataModule/version_{}"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A text of six thousand characters."""
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{number} bottles of beer\non the wall,\n" for number in range(200)))
    return path


def test_a_language_model_goes_the_whole_way(
    run: Run, capsys: pytest.CaptureFixture[str], text: Path, tmp_path: Path
) -> None:
    run(f"{GPT} --data.path {text} --max_steps 3 --samples.prompts beer")
    out = capsys.readouterr().out
    assert f"{text}: " in out
    assert "sample after 3 steps:\nbeer" in out
    best = GPT_RUN.format(0) + "/checkpoints/best.ckpt"
    assert f"python train.py predict --ckpt_path {best} --data.path prompts.txt" in out
    summary = json.loads(Path(GPT_RUN.format(0), "summary.json").read_text())
    assert summary["best"]["val_loss"] == summary["final"]["val_loss"]
    tested = run(f"test --ckpt_path {best}").trainer.callback_metrics
    assert float(tested["test_loss"]) == pytest.approx(summary["test"]["test_loss"], rel=1e-6)
    (tmp_path / "prompts.csv").write_text('id,prompt\n1,"on the\nwall"\n2,9\n')
    run(f"predict --ckpt_path {best} --data.path {tmp_path}/prompts.csv --model.max_new_tokens 7")
    with Path("predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["prompt"] for row in rows] == ["on the\nwall", "9"]
    assert [len(row["prediction"]) for row in rows] == [7, 7]


def test_bad_prompts_are_one_line(run: Run, mistake: Mistake, text: Path, tmp_path: Path) -> None:
    run(f"{GPT} --data.path {text} --max_steps 1 --limit_val_batches 1 --limit_test_batches 1")
    kept = shutil.move("runs", tmp_path / "kept")  # `mistake` looks for runs left behind
    best = Path(kept) / Path(GPT_RUN.format(0)).relative_to("runs") / "checkpoints" / "best.ckpt"
    file = tmp_path / "prompts.txt"
    file.write_text("beer\n9 \u20ac\n", encoding="utf-8")
    (tmp_path / "empty.txt").write_text("")
    for path, answer in {
        f"--data.path {file}": f"{file}, line 2: '\u20ac' is not in the text that the model was trained on",
        f"--data.path {tmp_path}/empty.txt": "empty.txt: the file is empty",
        f"--data.path {tmp_path}/prompt.txt": f"there is no such file; did you mean {file}?",
        "": "--data.path: give prompts to continue",
    }.items():
        assert answer in mistake(f"predict --ckpt_path {best} {path}")


@pytest.mark.parametrize(
    ("flags", "answer"),
    [
        ("--samples.prompts \u20ac", "--samples.prompts: '\u20ac'"),
        ("--samples.length 0", "--samples.length 0: give a number of tokens, 1 or more."),
        ("--samples.prompt beer", "--samples.prompt: there is no such flag; did you mean --samples.prompts?"),
        ("--data.num_folds 3", "--data.num_folds 3: a text is divided by position, and has no folds."),
        ("--data.context_length 9999", "--data.context_length 9999: to train on"),
    ],
)
def test_a_mistake_with_a_text_is_one_line(mistake: Mistake, text: Path, flags: str, answer: str) -> None:
    assert answer in mistake(f"{GPT} --data.path {text} {flags}")


def test_a_compiled_network_is_trained(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = nn.Module.compile
    # Without a compiler behind it, which would take half a minute.
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled(module, backend="eager"))
    assert "test_acc" in run("--max_epochs 1 --model.compile true").trainer.callback_metrics


def test_folds_of_a_text_are_refused(mistake: Mistake, text: Path) -> None:
    assert "a text is divided by position" in mistake(f"cross_validate {GPT} --data.path {text}")


def test_an_interrupted_language_model_sees_the_same_batches(run: Run, text: Path) -> None:
    flags = f"{GPT} --data.path {text} --max_epochs 3"  # an epoch is 5 steps
    run(flags)
    with pytest.raises(SystemExit):
        run(f"{flags} --trainer.callbacks+=tests.helpers.tiny.Interrupt --trainer.callbacks.step 7")
    run(f"--ckpt_path {GPT_RUN.format(1)}/checkpoints/last.ckpt --max_epochs 3 --samples.length 5")
    whole, parts = (
        torch.load(f"{GPT_RUN.format(version)}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for version in (0, 2)
    )
    torch.testing.assert_close(parts, whole, rtol=0, atol=0)


def test_an_interruption_before_the_first_step_leaves_no_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(model: LitMLP) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LitMLP, "on_fit_start", interrupt)
    with pytest.raises(SystemExit):
        run("--max_epochs 1")
    assert not Path("runs").exists()


def test_an_interruption_while_data_are_read_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(data: DigitsDataModule) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DigitsDataModule, "load", interrupt)
    with pytest.raises(SystemExit) as stop:
        run("--max_epochs 1")
    assert stop.value.code == 130
    assert capsys.readouterr().err == "train.py: interrupted before anything was trained or written.\n"
    assert not Path("runs").exists()
