"""What is at a path: every rule of docs/data.md, and what none of them decides."""

import gzip
import json
import random
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules import CSVDataModule, DataError, ImageFolderDataModule, detection
from datamodules.detection import detect
from tests.helpers.photos import write_photos

SENTENCES = [f"the {['bad', 'good'][i % 2]} and long film of number {i % 30}" for i in range(60)]
NUMBERS = [f"{i},{i * i % 37}.5,{'abc'[i % 3]}" for i in range(60)]
TABLE = "area,price,city\n" + "\n".join(NUMBERS)
REVIEWS = "review,stars\n" + "\n".join(f'"{text}, it is",{1 + i % 5}' for i, text in enumerate(SENTENCES))
LINES = "\n".join(f"{'ab'[i % 2]}\t{text}" for i, text in enumerate(SENTENCES))
PROSE = "\n".join(f"It was the best of times, {text}.\nOr the worst" for text in SENTENCES)
FINE = "\n".join(f"{'AB'[i % 2]}:sub {text}" for i, text in enumerate(SENTENCES))
POEM = "\n".join(f"the night was number {number}, and the day was long" for number in range(50))


def _table(names: str, *columns: list[str]) -> str:
    return "\n".join([names, *(",".join(row) for row in zip(*columns, strict=True))])


KEYS = [str(number) for number in range(60)]
KINDS = [("red", "green", "blue")[number % 3] for number in range(60)]
SHORT = [("one", "two")[number % 2] for number in range(60)]
REVERSED = [f"{text[::-1]} it is what it is" for text in SENTENCES]
VALUES = [f"{number * number % 37}.5" for number in range(60)]

FOUND = {
    "a.csv: numbers and categories": (TABLE, "CSVDataModule", "a table of 3 columns"),
    "a.tsv": (TABLE.replace(",", "\t"), "CSVDataModule", "a table of 3 columns"),
    "a.csv.gz": (TABLE, "CSVDataModule", "a table of 3 columns"),
    "a.data": ("\n".join(NUMBERS), "CSVDataModule", "a table of 3 columns"),
    "a.txt: a table by its lines": (TABLE.replace(",", ";"), "CSVDataModule", "a table of 3 columns"),
    "a.dat: numbers between blanks": ("\n".join("1.5 2 3.5" for _ in SENTENCES), "CSVDataModule", "a table of 3"),
    "a.tsv: two columns of numbers": ("\n".join(f"{i}\t{i % 2}" for i in range(40)), "CSVDataModule", "a table of 2"),
    "a.tsv: short categories": (_table("x,y", KINDS, SHORT).replace(",", "\t"), "CSVDataModule", "a table of 2"),
    "a.csv: label last": (REVIEWS, "TextCSVDataModule", "texts in review and labels in stars"),
    "a.csv: label first": (_table("kind,story", SHORT, SENTENCES), "TextCSVDataModule", "story and labels in kind"),
    "a.csv: no header": (
        _table("1,this is the best film", [str(i % 2) for i in range(60)], SENTENCES),
        "TextCSVDataModule",
        "labels in x1",
    ),
    "a.csv: numbered rows": (_table("n,story,kind", KEYS, SENTENCES, SHORT), "TextCSVDataModule", "labels in kind"),
    "a.csv: a named key": (
        _table("user_id,story,kind", KEYS[::-1], SENTENCES, SHORT),
        "TextCSVDataModule",
        "texts in story and labels in kind",
    ),
    "a.csv: a usual name of the label": (
        _table("story,label,color", SENTENCES, SHORT, KINDS),
        "TextCSVDataModule",
        "texts in story and labels in label",
    ),
    "a.csv: two texts, one of a usual name": (
        _table("title,text,label", SENTENCES, REVERSED, SHORT),
        "TextCSVDataModule",
        "texts in text and labels in label",
    ),
    "a.csv: short texts of a usual name": (
        _table("text,mood", [f"nice film{number}" for number in range(60)], SHORT),
        "TextCSVDataModule",
        "texts in text and labels in mood",
    ),
    "a.csv: Chinese": (
        _table("文本,类", [f"我们喜欢这个产品{number}" for number in range(60)], SHORT),
        "TextCSVDataModule",
        "texts in 文本 and labels in 类",
    ),
    "a.csv: numbers beside a text": (
        _table("name,kind,age", SENTENCES, SHORT, VALUES),
        "CSVDataModule",
        "a table of 3 columns, numbers (age) beside the text in name",
    ),
    "a.csv: long names of classes": (
        _table("x,kind", VALUES, [f"a complaint about the delivery of {kind}" for kind in KINDS]),
        "CSVDataModule",
        "a table of 2 columns",
    ),
    "a.csv: dates": (
        _table("day,y", [f"2024-01-{1 + i % 28:02} 10:00:{i:02}" for i in range(60)], SHORT),
        "CSVDataModule",
        "a table of 2 columns",
    ),
    "a.txt: label<TAB>text": (LINES, "TextCSVDataModule", "lines of label<TAB>text"),
    "a.tsv: label<TAB>text": (LINES, "TextCSVDataModule", "lines of label<TAB>text"),
    "a.txt: text<TAB>label": (
        "\n".join("\t".join(line.split("\t")[::-1]) for line in LINES.split("\n")),
        "TextCSVDataModule",
        "lines of text<TAB>label",
    ),
    "a.label: LABEL:sub text": (FINE, "TextCSVDataModule", "lines of LABEL:sub text"),
    "a.txt: prose": (PROSE, "TextCorpusDataModule", "running text"),
    "a.txt: a comma in each line": (POEM, "TextCorpusDataModule", "running text"),
    "README": ("one line", "TextCorpusDataModule", "running text"),
    "a.md: one label is none": (FINE.replace("B:", "A:"), "TextCorpusDataModule", "running text"),
}


def _write(folder: Path, name: str, content: str) -> Path:
    file = folder / name.partition(":")[0]
    file.write_bytes(gzip.compress(content.encode()) if file.suffix == ".gz" else content.encode())
    return file


@pytest.mark.parametrize("name", FOUND)
def test_a_file_is_what_its_beginning_shows(tmp_path: Path, name: str) -> None:
    content, expected, what = FOUND[name]
    found = detect(str(_write(tmp_path, name, content + "\n")))
    assert found.cls.__name__ == expected
    assert what in found.what


def test_parquet_is_a_table_of_any_kind(tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": range(60), "y": VALUES}), path)
    assert detect(path).cls.__name__ == "CSVDataModule"
    pq.write_table(pa.table({"story": SENTENCES, "mood": SHORT}), path)
    assert detect(path).cls.__name__ == "TextCSVDataModule"
    pq.write_table(pa.Table.from_pylist([{"image": {"bytes": b"x", "path": None}, "label": 1}]), path)
    assert detect(path).cls.__name__ == "HuggingFaceDataModule"


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "gb18030"])
def test_an_encoding_does_not_hide_what_a_file_is(tmp_path: Path, encoding: str) -> None:
    word = {"gb18030": "我们喜欢这个产品"}.get(encoding, "Köln")
    (tmp_path / "a.txt").write_bytes(LINES.replace("film", word).encode(encoding))
    assert detect(str(tmp_path / "a.txt")).cls.__name__ == "TextCSVDataModule"


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        (REVIEWS, {"target": "stars"}, "CSVDataModule"),
        (_table("name,kind,age", SENTENCES, SHORT, VALUES), {"label_column": "kind"}, "TextCSVDataModule"),
        (_table("name,kind,color", SENTENCES, SHORT, KINDS), {"label_column": "kind"}, "TextCSVDataModule"),
        (_table("name,kind,color", SENTENCES, SHORT, KINDS), {"target": "kind"}, "CSVDataModule"),
        (LINES.replace("\n", "\n\n"), {"context_length": "8"}, "TextCorpusDataModule"),
        (PROSE, {"text_column": "text"}, "TextCSVDataModule"),
        (TABLE, {"batch_size": "8"}, "CSVDataModule"),
        (TABLE, {"bogus": "8"}, "CSVDataModule"),  # the parser says that there is no such option
    ],
)
def test_options_of_one_class_decide(tmp_path: Path, content: str, options: Mapping[str, str], expected: str) -> None:
    name = "a.csv" if content[:4] in ("area", "revi", "name") else "a.txt"
    found = detect(str(_write(tmp_path, name, content + "\n")), options)
    assert found.cls.__name__ == expected


def test_a_given_delimiter_makes_a_table(tmp_path: Path) -> None:
    path = str(_write(tmp_path, "a.txt", "\n".join(f"{i}:{i % 3}:{'ab'[i % 2]}" for i in range(40))))
    assert detect(path).cls.__name__ == "TextCorpusDataModule"
    assert detect(path, {"delimiter": ":"}).cls.__name__ == "CSVDataModule"


def test_which_option_decided_is_said(tmp_path: Path) -> None:
    path = str(_write(tmp_path, "a.csv", REVIEWS))
    assert detect(path, {"target": "stars"}).what.endswith("labels in stars (target is given)")


REFUSED = {
    "a.csv: two texts": (
        _table("question,answer", SENTENCES, REVERSED),
        "it has only text (question, answer), and no column of labels or numbers to predict; add one, or give "
        "`data=TextCSVDataModule` with `label_column`, or `data=CSVDataModule` with `target`",
    ),
    "a.csv: texts without labels": (_table("id,text", KEYS, SENTENCES), "it has only text (text)"),
    "a.csv: several labels": (
        _table("story,kind,color", SENTENCES, SHORT, KINDS),
        "it may be labeled text or a table: story holds texts, and kind, color may be labels; give",
    ),
    "a.csv: several texts and a label": (
        _table("question,answer,kind", SENTENCES, [text.replace("film", "book") for text in SENTENCES], SHORT),
        "question, answer hold texts, and kind may be labels; give",
    ),
    "a.csv: one column": (
        "area\n" + "\n".join(KEYS),
        "there is only one column (area), and nothing to predict it from; give `delimiter`, or "
        "`data=TextCorpusDataModule` if it is running text",
    ),
    "a.jsonl": (json.dumps({"text": "a"}), "JSON is not read; write it as CSV or Parquet, or give"),
    "a.csv": ("", "the file is empty"),
    "b.csv": (" \n", "the file is empty"),
    "a.png": ("x", "one image is nothing to learn from; give a folder that holds a folder of images for each class"),
    "a.csv: not text": ("a\0b", "this is not text (a NUL byte in line 1); give a text file, or a CSV, TSV or Parquet"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_no_rule_decides_is_refused(tmp_path: Path, name: str) -> None:
    content, message = REFUSED[name]
    with pytest.raises(DataError) as error:
        detect(str(_write(tmp_path, name, content)))
    assert message in str(error.value)
    assert str(error.value).count(str(tmp_path)) == 1


def test_binary_junk_is_refused(tmp_path: Path) -> None:
    for name in ("junk.csv", "junk", "junk.txt"):
        (tmp_path / name).write_bytes(random.Random(0).randbytes(3000))
        with pytest.raises(DataError, match=f"{name}: this is not text"):
            detect(str(tmp_path / name))
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(DataError, match="an Excel sheet; save it as CSV"):
        detect(str(tmp_path / "a.xlsx"))


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "houses.csv").write_text(TABLE)
    with pytest.raises(DataError, match=r"there is no such file; did you mean .*houses\.csv\?"):
        detect(str(tmp_path / "hauses.csv"))
    with pytest.raises(DataError, match="no file matches"):
        detect(str(tmp_path / "*.tsv"))


# Folders: names and contents, and what is found; or what is said where that is refused.
FOLDERS: dict[str, tuple[dict[str, str], str]] = {
    "tables": ({"a.csv": TABLE, "b.csv": TABLE}, "CSVDataModule: a table of 3 columns, in 2 files"),
    "a table and a page": ({"a.csv": TABLE, "README.md": "x", ".hidden.png": ""}, "CSVDataModule: a table of 3 col"),
    "tables of texts": ({"a.csv": REVIEWS, "b.csv": REVIEWS}, "TextCSVDataModule: labeled text"),
    "texts": ({"a.txt": PROSE, "b.txt": PROSE}, "TextCorpusDataModule: running text, in 2 files"),
    "texts in one folder": ({"de/a.txt": PROSE, "de/b.txt": PROSE}, "TextCorpusDataModule: running text, in 2 files"),
    "texts above and below": ({"a.txt": PROSE, "b/b.txt": PROSE}, "TextCorpusDataModule: running text"),
    "lines": ({"a.txt": LINES, "b.txt": LINES}, "TextCSVDataModule: lines of label<TAB>text, in 2 files"),
    "saved": ({"dataset_info.json": "{}", "a.arrow": ""}, "HuggingFaceDataModule: a saved data set of images"),
    "nothing": ({}, "this folder is empty; give a table, a folder of images by class, or a text"),
    "hidden": ({".a.csv": TABLE}, "this folder is empty"),
    "junk": ({"a.bin": "\0"}, "there is no table, image or text in it (a.bin); give a file, or a folder that has some"),
    "tables and texts": ({"a.csv": TABLE, "b.txt": PROSE}, "as well as other texts (b.txt, ...)"),
    "tables below": ({"2024/a.csv": TABLE}, "its tables are in folders of their own (2024/a.csv, ...); give them by a"),
    "classes of texts": (
        {"neg/a.txt": PROSE, "pos/a.txt": PROSE},
        "its texts are in folders (neg, pos), which may be classes, or parts of one running text; write classes as "
        "lines `label<TAB>text` or as a table, or give `data=TextCorpusDataModule`",
    ),
    "classes of lines": (
        {"rt-polarity.neg": PROSE, "rt-polarity.pos": PROSE},
        "its texts are in files (rt-polarity.neg, rt-polarity.pos), which may be classes, or parts of one running text",
    ),
    "lines of other names": ({"a.label": FINE}, "of a folder of lines of LABEL:sub text all names must end in .csv,"),
    "images without classes": ({"a.png": "", "b.jpg": ""}, "its images have no classes; give a folder that holds"),
    "images and a table": (
        {"cats/a.png": "", "list.csv": TABLE},
        "it holds images (cats/a.png, ...) as well as tables (list.csv); give `data=ImageFolderDataModule` or "
        "`data=CSVDataModule`, or the path of either alone",
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_what_its_files_are(tmp_path: Path, name: str) -> None:
    files, expected = FOLDERS[name]
    for file, content in files.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(content)
    try:
        found = detect(str(tmp_path))
    except DataError as error:
        said = str(error)
    else:
        said = f"{found.cls.__name__}: {found.what}"
    assert expected in said


def test_images_are_in_folders_of_classes(tmp_path: Path) -> None:
    (write_photos(tmp_path / "plain", count=2) / "license.txt").write_text("free")
    assert detect(str(tmp_path / "plain")) == (ImageFolderDataModule, "images by class (ants, bees, cats)")
    for split in ("train", "val"):
        write_photos(tmp_path / "divided" / split, ("ants", "bees"), count=2)
    what = "images by class (ants, bees), divided into train and val"
    assert detect(str(tmp_path / "divided")) == (ImageFolderDataModule, what)
    assert detect(str(tmp_path / "divided"), {"target": "y"}).cls is ImageFolderDataModule


def test_an_option_decides_a_mixed_folder(tmp_path: Path) -> None:
    (write_photos(tmp_path, count=2) / "list.csv").write_text(TABLE)
    assert detect(str(tmp_path), {"image_size": "32"}).cls is ImageFolderDataModule
    assert detect(str(tmp_path), {"target": "price"}).cls is CSVDataModule


def test_a_glob_is_what_its_first_file_is(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(TABLE)
    found = detect(str(tmp_path / "*.csv"))
    assert (found.cls, found.what) == (CSVDataModule, "2 files, the first of which is a table of 3 columns")
    (tmp_path / "c.txt").write_text(PROSE)
    with pytest.raises(DataError, match="its files are others and tables; give a glob that matches one kind"):
        detect(str(tmp_path / "*"))


def test_little_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "MOST_NAMES", 3)
    monkeypatch.setattr(detection, "MOST_FOLDERS", 2)
    for number in range(9):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "a.png").touch()
    assert len(detection._look_into(tmp_path)) == 1
    file = tmp_path / "big.csv"
    file.write_bytes((TABLE + "\n").encode() + b"1,2,a\n" * 100_000 + b"\0\xff")
    assert detect(str(file)).cls is CSVDataModule
