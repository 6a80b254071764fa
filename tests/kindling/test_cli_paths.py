"""The front door, given little more than a path."""

import csv
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import yaml

from kindling.compatibility import FOLLOWING
from lit_models.modules import backbones
from tests.helpers.front_door import Run
from tests.helpers.photos import write_photos
from tests.helpers.published import publish_weights

QUICK = "--fast_dev_run 1"
TABLE = FOLLOWING["CSVDataModule"]
Mistake = Callable[[str], str]


@pytest.fixture
def files(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a table, reviews, lines, a text and images; there is no network."""

    def fail(*_: object, **__: object) -> None:
        raise URLError("no network here")

    monkeypatch.setattr(backbones, "urlopen", fail)
    monkeypatch.setenv("TORCH_HOME", str(workdir / "torch"))
    rows = [f"{90 + 3 * i % 77}.5,{40 + 7 * i % 90},{('Köln', 'Bonn', 'Ulm')[i % 3]}" for i in range(60)]
    (workdir / "houses.csv").write_text("\n".join(["price,area,city", *rows]), encoding="latin-1")
    texts = [f"a {('bad', 'good')[i % 2]} and long film of number {i % 30}" for i in range(60)]
    (workdir / "reviews.csv").write_text(
        "\n".join(["review,stars", *(f"{t},{1 + i % 2}" for i, t in enumerate(texts))])
    )
    (workdir / "lines.txt").write_text("\n".join(f"{'ab'[i % 2]}\t{text}" for i, text in enumerate(texts)))
    (workdir / "story.txt").write_text("Once upon a time, there was a miller.\nHe was poor\n" * 99)
    write_photos(workdir / "photos", ("ants", "bees"), count=10)
    return workdir


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("line", "model", "data"),
    [
        ("houses.csv --data.target price", TABLE, "CSVDataModule"),
        ("fit --data.path houses.csv", TABLE, "CSVDataModule"),
        ("houses.csv --model LitMLP --model.hidden [8]", "LitMLP", "CSVDataModule"),
        ("reviews.csv", "LitTextClassifier", "TextCSVDataModule"),
        ("reviews.csv --data.target stars", TABLE, "CSVDataModule"),
        ("lines.txt", "LitTextClassifier", "TextCSVDataModule"),
        ("story.txt --model.width 8 --data.context_length 16", "LitGPT", "TextCorpusDataModule"),
        ("photos", "LitConvNet", "ImageFolderDataModule"),
        ("", "LitMLP", "DigitsDataModule"),
    ],
)
def test_data_and_model_are_chosen_and_said(
    run: Run, line: str, model: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = run(f"{line} {QUICK}")
    assert (type(cli.model).__name__, type(cli.datamodule).__name__) == (model, data)
    out = capsys.readouterr().out
    if not line:
        assert "overrule" not in out
    else:
        path = line.replace("fit --data.path ", "").split()[0]
        assert out.startswith(f"{path}: ")
        assert "overrule" in out.partition("\n")[0]
        assert data in out.partition("\n")[0]


@pytest.mark.usefixtures("files")
def test_a_pretrained_network_reads_images_where_its_weights_are(run: Run, request: pytest.FixtureRequest) -> None:
    publish_weights(request, "resnet18")
    cli = run(f"photos {QUICK} --data.batch_size 2")
    assert (type(cli.model).__name__, cli.datamodule.image_size) == ("LitTransfer", 224)


@pytest.mark.usefixtures("files")
def test_what_was_chosen_from_scratch_is_repeated_by_the_configuration(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = run("photos --max_epochs 1 --model.channels [4]")
    assert "no pretrained weights (resnet18-f37072fd.pth is not in" in capsys.readouterr().out
    assert cli.model.hparams["input_shape"] == [3, 64, 64]
    file = Path(cli.trainer.default_root_dir) / "config.yaml"
    assert yaml.safe_load(file.read_text())["data"]["init_args"]["image_size"] == 64
    again = run(f"--config {file} {QUICK}")
    assert again.model.hparams == cli.model.hparams
    assert again.datamodule.image_size == 64


@pytest.mark.usefixtures("files")
def test_a_checkpoint_knows_its_data(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    fitted = run("houses.csv --data.target price --max_epochs 1")
    best = f"runs/{TABLE}-CSVDataModule/version_0/checkpoints/best.ckpt"
    assert "read as cp1252, as detected ('Köln')" in capsys.readouterr().out
    for line in (
        f"test --ckpt_path {best}",
        f"test --ckpt_path {best} houses.csv",
        "test --ckpt_path best ./houses.csv",
    ):
        tested = run(line)
        assert tested.trainer.callback_metrics["test_loss"] == fitted.trainer.callback_metrics["test_loss"]
        assert tested.datamodule.hparams["encoding"] == "cp1252"
    capsys.readouterr()
    # One column of texts would be no table by itself.
    Path("new.csv").write_text("city,area\nKöln,50\nBonn,60\n", encoding="utf-8")
    run(f"predict --ckpt_path {best} new.csv")
    assert "overrule" not in capsys.readouterr().out
    with Path("predictions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2
    resumed = run(f"houses.csv --ckpt_path {best.replace('best', 'last')} --max_epochs 2")
    assert (type(resumed.model).__name__, resumed.trainer.current_epoch) == (TABLE, 2)


@pytest.mark.usefixtures("files")
def test_every_fold_is_of_the_same_data(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    cli = run("cross_validate houses.csv --data.target price --data.num_folds 2 --max_epochs 1")
    assert type(cli.model).__name__ == TABLE
    assert capsys.readouterr().out.count("overrule") == 1


@pytest.mark.usefixtures("files")
def test_a_configuration_names_the_data_or_the_model(run: Run) -> None:
    Path("data.yaml").write_text("data:\n  path: houses.csv\n  target: price\n")
    assert type(run(f"--config data.yaml {QUICK}").model).__name__ == TABLE
    Path("model.yaml").write_text("model:\n  class_path: LitMLP\n  init_args:\n    hidden: [8]\n")
    cli = run(f"--config model.yaml houses.csv {QUICK}")
    assert (type(cli.model).__name__, type(cli.datamodule).__name__) == ("LitMLP", "CSVDataModule")


@pytest.mark.usefixtures("files")
def test_a_configuration_is_printed_without_another_word(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("houses.csv --print_config")
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["data"]["class_path"] == "datamodules.CSVDataModule"
    assert printed["model"]["class_path"] == f"lit_models.{TABLE}"


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("hauses.csv", "--data.path hauses.csv: there is no such file; did you mean houses.csv?"),
        ("nowhere/at/all", "--data.path nowhere/at/all: there is no such file."),
        (
            "mix",
            "--data.path mix: it holds images (a/1.png, ...) as well as tables (b.csv); give --data ImageFolderData",
        ),
        ("empty", "--data.path empty: this folder is empty; give a table, a folder of images by class, or a text."),
        ("two.csv", "--data.path two.csv: it has only text (question, answer), and no column of labels"),
        (
            "one.csv",
            "one.csv: there is only one column (area), and nothing to predict it from; give --data.delimiter, or",
        ),
        (
            "junk.csv",
            "junk.csv: this is not text (a NUL byte in line 1); give a text file, or a CSV, TSV or Parquet file.",
        ),
        ("photos/ants", "--data.path photos/ants: its images have no classes; give a folder that holds a folder of"),
        (
            "houses.csv --data.targt price",
            "--data.targt: CSVDataModule has no such option; did you mean --data.target?",
        ),
        ("houses.csv --data.target prize", "--data.target prize: houses.csv: there is no column 'prize'; did you mean"),
        ("test houses.csv", "test needs a trained model: give --ckpt_path"),
    ],
)
def test_what_cannot_be_read_is_one_line(mistake: Mistake, line: str, answer: str) -> None:
    for folder in ("empty", "mix/a"):
        Path(folder).mkdir(parents=True)
    Path("mix/a/1.png").touch()
    Path("mix/b.csv").write_text("a,b\n1,2\n")
    texts = [f"what is the meaning of {number}" for number in range(30)]
    Path("two.csv").write_text("question,answer\n" + "".join(f"{text},it is {text}\n" for text in texts))
    Path("one.csv").write_text("area\n" + "1\n2\n" * 20)
    Path("junk.csv").write_bytes(bytes(range(256)))
    assert answer in mistake(line)
