"""What the README says is true: its commands run, its code runs, and everything it should name is named."""

import re
import shlex
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import datamodules
import lit_models
from kindling.cli import main
from tests.helpers.front_door import ROOT
from tests.helpers.published import publish_weights

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    shlex.split(line, comments=True)[2:]
    for language, block in BLOCKS
    if language == "bash"
    for line in block.splitlines()
    if line.startswith("python train.py")
]
CHECKPOINT = "runs/LitMLP-DigitsDataModule/version_0/checkpoints"
TABLE_CHECKPOINT = CHECKPOINT.replace("Digits", "CSV")
TEXT_CHECKPOINT = "runs/LitTextClassifier-TextCSVDataModule/version_0/checkpoints"
GPT_CHECKPOINT = "runs/LitGPT-TextCorpusDataModule/version_0/checkpoints"
TEACHER = "runs/LitConvNet-MNISTDataModule/version_0/checkpoints"
PHOTO_CHECKPOINT = "runs/LitTransfer-ImageFolderDataModule/version_0/checkpoints"


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 400


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_runs(command: list[str], workdir: Path, request: pytest.FixtureRequest) -> None:
    line = " ".join(command)
    _write_houses(workdir)
    _write_photos(workdir)
    _write_texts(workdir)
    if "LitTransfer" in line:
        publish_weights(request, command[command.index("--model.backbone") + 1] if "backbone" in line else "resnet18")
    if "--accelerator gpu" in line:
        command = [*command, "--accelerator", "cpu", "--devices", "1", "--precision", "32-true"]
    if ".help" in line:
        with pytest.raises(SystemExit) as stop:
            main(command)
        assert stop.value.code == 0
        return
    if CHECKPOINT in line:
        main(["--max_epochs", "1"])
    if TABLE_CHECKPOINT in line:
        main(shlex.split("--data CSVDataModule --data.path houses.csv --data.target price --max_epochs 1"))
    if PHOTO_CHECKPOINT in line:
        main(shlex.split("--model LitTransfer --data ImageFolderDataModule --data.path photos --max_epochs 1"))
    if TEXT_CHECKPOINT in line:
        texts = "--data TextCSVDataModule --data.path reviews.csv"
        main(shlex.split(f"--model LitTextClassifier {texts} --max_epochs 1"))
    if GPT_CHECKPOINT in line:
        main(shlex.split("--model LitGPT --data TextCorpusDataModule --max_steps 2 --limit_val_batches 2"))
    if TEACHER in line:
        data = f"--data MNISTDataModule --data.data_dir {request.getfixturevalue('data_dir')} --limit_val_batches 2"
        main(shlex.split(f"--model LitConvNet --model.channels [4] {data} --max_steps 2 --limit_test_batches 2"))
    if "configs/" in line:
        command = [str(ROOT / word) if word.startswith("configs/") else word for word in command]
    if "mnist" in line.lower():
        command = [*command, "--data.data_dir", request.getfixturevalue("data_dir")]
    if "last.ckpt" in line:
        command = [*command, "--max_epochs", "2"]
    elif "test" not in command and "predict" not in command:
        command = [*command, "--fast_dev_run", "2"]
    main(command)


def _write_houses(folder: Path) -> None:
    """Write the tables that the README speaks of."""
    rows = [f"{40 + 7 * i % 90},{'abc'[i % 3]},{90 + 3 * i % 77}.5" for i in range(60)]
    for name in ("houses", "new_houses", "sold_houses"):
        (folder / f"{name}.csv").write_text("\n".join(["area,city,price", *rows[: 60 if name == "houses" else 9]]))


def _write_photos(folder: Path) -> None:
    """Write the pictures that the README speaks of: in folders, without classes, and in a Parquet file."""
    rows = []
    for number in range(12):
        path = folder / "photos" / ("cats", "dogs")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (20 * number, 90, 200 * (number % 2))).save(path)
        rows.append({"image": {"bytes": path.read_bytes(), "path": None}, "label": path.parent.name})
    shutil.copytree(folder / "photos" / "cats", folder / "new_photos")
    pq.write_table(pa.Table.from_pylist(rows), folder / "beans.parquet")


def _write_texts(folder: Path) -> None:
    """Write the reviews, the prompts and the plays that the README speaks of."""
    for name in ("reviews", "new_reviews"):
        rows = [f"{('bad', 'good')[i % 2]} and long film number {i % 7},{1 + i % 2}" for i in range(60)]
        (folder / f"{name}.csv").write_text("\n".join(["review,stars", *rows]))
    (folder / "prompts.txt").write_text("The for statement\nA class\n")
    (folder / "tinyshakespeare.txt").write_text("ROMEO:\nTo be, or not to be: that is the question.\n" * 100)


def _python_blocks() -> list[str]:
    return [block for language, block in BLOCKS if language == "python"]


def test_the_notebook_lines_run(workdir: Path, data_dir: str, request: pytest.FixtureRequest) -> None:
    session, one_liners, _ = _python_blocks()
    session = session.replace('MNISTDataModule("data")', f"MNISTDataModule({data_dir!r})")
    # A part of an epoch is enough to see that every line works.
    session = session.replace("max_epochs=1", "max_epochs=1, limit_train_batches=100, logger=False")
    one_liners = one_liners.replace("max_epochs=5", "max_epochs=1, logger=False, enable_checkpointing=False")
    one_liners = one_liners.replace("max_steps=100", "max_steps=2, logger=False, enable_checkpointing=False")
    _write_houses(workdir)
    _write_photos(workdir)
    _write_texts(workdir)
    publish_weights(request, "resnet18")
    names: dict[str, object] = {}
    exec(session, names)
    exec(one_liners, names)
    assert (workdir / "lenet.ckpt").is_file()


def test_the_readers_own_model_goes_the_whole_way(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _python_blocks()[2]
    assert len(source.splitlines()) <= 20
    (workdir / "my_models.py").write_text(source)
    monkeypatch.syspath_prepend(str(workdir))
    main(["--model", "my_models.LitWide", "--model.width", "64", "--max_epochs", "3"])
    cli = main(["test", "--ckpt_path", "runs/LitWide-DigitsDataModule/version_0/checkpoints/best.ckpt"])
    assert cli.trainer.callback_metrics["test_acc"] > 0.7


def test_every_lesson_is_named_beside_tests_that_are_there() -> None:
    rows = [line.split("|")[1:-1] for line in README.splitlines() if line.startswith("|") and line.count("|") == 6]
    lessons, classes, recipes, tests = (
        [name for row in rows for name in re.findall(r"`(\w+)`", row[column])] for column in range(1, 5)
    )
    assert lessons == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert {"LitMLP", "LitSiamese", "LayerStatistics"} <= set(classes)
    assert all((ROOT / "configs" / f"{recipe}.yaml").is_file() for recipe in recipes)
    assert all(list((ROOT / "tests").rglob(f"{test}.py")) for test in tests)


def test_everything_is_named() -> None:
    recipes = [path.stem for path in (ROOT / "configs").glob("*.yaml")]
    bases = {"LitModule", "DataModule", "ImageDataModule"}
    classes = [name for name in lit_models.__all__ if name.startswith("Lit")]
    classes += [name for name in datamodules.__all__ if name.endswith("DataModule")]
    missing = [name for name in [*recipes, *(set(classes) - bases)] if f"`{name}`" not in README]
    assert not missing
