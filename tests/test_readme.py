"""What the README and the pages of `docs/` say is true: commands and code run, links and names exist."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import datamodules
import lit_models
from kindling.cli import main
from tests.helpers.published import publish_weights

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
OTHER_PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md"]
TEXT = "\n".join(page.read_text() for page in PAGES)
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)
DOORS = re.compile(r"(?:[A-Z_]+=\S+ )?(?:python train\.py|kindling)(?= |$)")

# A command that stands on several pages runs once.
COMMANDS = list(
    dict.fromkeys(
        tuple(shlex.split(line[match.end() :], comments=True))
        for language, block in BLOCKS
        if language == "bash"
        for line in block.replace("\\\n", "").splitlines()
        if (match := DOORS.match(line))
    )
)
PYTHON = [block for language, block in BLOCKS if language == "python"]
OWN_MODEL = next(block for block in PYTHON if "class LitWide" in block)


@pytest.fixture
def files(workdir: Path) -> Path:
    """A working directory with the tables, images and texts that the pages speak of."""
    rows = [f"{40 + 7 * i % 90},{'abc'[i % 3]},{90 + 3 * i % 77}.5" for i in range(60)]
    for name in ("houses", "new_houses", "sold_houses"):
        (workdir / f"{name}.csv").write_text("\n".join(["area,city,price", *rows[: 60 if name == "houses" else 9]]))
    images = []
    for number in range(12):
        path = workdir / "photos" / ("cats", "dogs")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (20 * number, 90, 200 * (number % 2))).save(path)
        images.append({"image": {"bytes": path.read_bytes(), "path": None}, "label": path.parent.name})
    shutil.copytree(workdir / "photos" / "cats", workdir / "new_photos")
    pq.write_table(pa.Table.from_pylist(images), workdir / "beans.parquet")
    for name in ("reviews", "new_reviews"):
        rows = [f"{('bad', 'good')[i % 2]} and long film number {i % 7},{1 + i % 2}" for i in range(60)]
        (workdir / f"{name}.csv").write_text("\n".join(["review,stars", *rows]))
    (workdir / "prompts.txt").write_text("The for statement\nA class\n")
    (workdir / "tinyshakespeare.txt").write_text("ROMEO:\nTo be, or not to be: that is the question.\n" * 100)
    return workdir


def _fit(line: str) -> Callable[[str, pytest.FixtureRequest], str]:
    """Return a preparation that leaves a checkpoint, and adds no flags."""

    def prepare(_: str, request: pytest.FixtureRequest) -> str:
        main(shlex.split(line + (_real(line, request) if "MNIST" in line else "")))
        return ""

    return prepare


def _publish(line: str, request: pytest.FixtureRequest) -> str:
    """Put the pretrained weights where torch keeps its downloads."""
    backbone = re.search(r"--model\.backbone (\S+)", line)
    publish_weights(request, backbone[1] if backbone else "resnet18")
    return ""


def _real(_: str, request: pytest.FixtureRequest) -> str:
    """Return the flag that names the folder of real data."""
    return f" --data.data_dir {request.getfixturevalue('mnist_dir')}"


def _flags(flags: str) -> Callable[[str, pytest.FixtureRequest], str]:
    return lambda line, request: f" {flags}"


# What a command needs that has these characters in it, in this order; and the flags to add.
PREPARATIONS: dict[str, Callable[[str, pytest.FixtureRequest], str]] = {
    "LitTransfer": _publish,
    "photos": _publish,
    "beans": _publish,
    "mnist": _real,
    "MNIST": _real,
    "--accelerator gpu": _flags("--accelerator cpu --devices 1 --precision 32-true"),
    "LitMLP-DigitsDataModule": _fit("--max_epochs 1"),
    "--ckpt_path last": _fit("--max_epochs 1"),
    "--ckpt_path best": _fit("houses.csv --data.target price --max_epochs 1"),
    "LitTransfer-ImageFolderDataModule": _fit(
        "--model LitTransfer --data ImageFolderDataModule --data.path photos --max_epochs 1"
    ),
    "LitTextClassifier-TextCSVDataModule": _fit(
        "--model LitTextClassifier --data TextCSVDataModule --data.path reviews.csv --max_epochs 1"
    ),
    "LitGPT-TextCorpusDataModule": _fit(
        "--model LitGPT --data TextCorpusDataModule --max_steps 2 --limit_val_batches 2"
    ),
    "LitConvNet-MNISTDataModule": _fit(
        "--model LitConvNet --model.channels [4] --data MNISTDataModule --max_steps 2 --limit_val_batches 2 "
        "--limit_test_batches 2"
    ),
}
# How much of a fit is enough to see that it works: two steps, but for those that would then do nothing.
ENOUGH = {"last": "--max_epochs 2", "--logger": "", "--overfit_batches": ""}


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_runs(command: tuple[str, ...], request: pytest.FixtureRequest) -> None:
    line = re.sub(r"(?<!\S)configs/", f"{ROOT}/configs/", " ".join(command))
    if ".help" in line:
        with pytest.raises(SystemExit) as stop:
            main(line.split())
        assert stop.value.code == 0
        return
    # Case tells the recipe from the class; both at once would add the same flag twice, which is as good as once.
    more = "".join(prepare(line, request) for part, prepare in PREPARATIONS.items() if part in line)
    if command[:1] not in (("validate",), ("test",), ("predict",)):
        more += " " + next((flags for part, flags in ENOUGH.items() if part in line), "--fast_dev_run 2")
    main(shlex.split(line + more))


@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_every_python_block_runs(block: str, files: Path, request: pytest.FixtureRequest) -> None:
    if 'MNISTDataModule("data")' in block:
        folder = request.getfixturevalue("mnist_dir")
        block = block.replace('MNISTDataModule("data")', f"MNISTDataModule({folder!r})")
    # A part of an epoch is enough to see that every line works.
    quick = "limit_train_batches=100, limit_val_batches=2, logger=False, enable_checkpointing=False"
    block = re.sub(r"Trainer\(max_(epochs|steps)=\d+", rf"Trainer(max_\1=1, {quick}", block)
    publish_weights(request, "resnet18")
    exec(block, {"__name__": "page"})
    assert "lenet.ckpt" not in block or (files / "lenet.ckpt").is_file()


def test_the_readers_own_model_goes_the_whole_way(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(OWN_MODEL.splitlines()) <= 20
    (workdir / "my_models.py").write_text(OWN_MODEL)
    monkeypatch.syspath_prepend(str(workdir))
    main(["--model", "my_models.LitWide", "--model.width", "64", "--max_epochs", "3"])
    # It is imported from a checkpoint because it is named beside it.
    checkpoint = "runs/LitWide-DigitsDataModule/version_0/checkpoints/best.ckpt"
    cli = main(["test", "--model", "my_models.LitWide", "--ckpt_path", checkpoint])
    assert cli.trainer.callback_metrics["test_acc"] > 0.7


def test_the_readme_is_short() -> None:
    assert len(README.read_text().split()) <= 1800
    assert max(map(len, README.read_text().splitlines())) <= 120


def test_the_readme_begins_with_what_one_gets_and_shows_it() -> None:
    text = README.read_text()
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == [
        *("Two commands", "Your own data", "Notebooks and lessons", "The tour", "Figures")
    ]
    [picture] = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert text.index(picture) < text.index("## ")
    assert (ROOT / picture).stat().st_size < 150_000


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=lambda page: page.stem)
def test_every_link_and_every_file_that_is_named_is_there(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\((?!https?://)([^)#]+)", text)
    assert not [link for link in links if not (page.parent / link).exists()]
    folders = "configs|datamodules|docs|kindling|lit_models|notebooks|tests|benchmarks"
    named = re.findall(rf"(?<![\w./-])((?:{folders})/[\w./-]*\w)(?=/?[`\s:;,)])", text)
    assert not [name for name in named if not (ROOT / name).exists()]


def test_every_page_is_reached_from_the_readme() -> None:
    assert not [page.name for page in PAGES[1:] if f"(docs/{page.name})" not in README.read_text()]


def test_every_lesson_is_named_beside_tests_that_are_there() -> None:
    lines = (ROOT / "docs" / "lessons.md").read_text().splitlines()
    rows = [line.split("|")[1:-1] for line in lines if line.count("|") == 6]
    lessons, classes, recipes, tests = (
        [name for row in rows for name in re.findall(r"`(\w+)`", row[column])] for column in range(1, 5)
    )
    assert lessons == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert {"LitMLP", "LitSiamese", "LayerStatistics"} <= set(classes)
    assert not [recipe for recipe in recipes if not (ROOT / "configs" / f"{recipe}.yaml").is_file()]
    assert not [test for test in tests if not list((ROOT / "tests").rglob(f"{test}.py"))]


def test_everything_is_named() -> None:
    recipes = [path.stem for path in (ROOT / "configs").glob("*.yaml")]
    bases = {"LitModule", "DataModule", "ImageDataModule"}
    classes = [name for name in lit_models.__all__ if name.startswith("Lit")]
    classes += [name for name in datamodules.__all__ if name.endswith("DataModule")]
    missing = [name for name in [*recipes, *(set(classes) - bases)] if f"`{name}`" not in TEXT]
    assert not missing


def test_one_sentence_about_speed_is_the_same_everywhere() -> None:
    said = [re.findall(r"[\d.]+ to [\d.]+ times as long as", page.read_text()) for page in (README, OTHER_PAGES[-1])]
    assert said[0] == said[1] != []
