"""Labeled texts are read from tables and lines; a trained model reads others."""

import csv
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules import DataError, TextCSVDataModule
from datamodules.text.labeled_source import find_labels, find_texts
from datamodules.text.tokenizer import PAD, UNKNOWN
from tests.helpers.texts import Make, lines, loaded, rows, split, texts

LONG = [f"a text of several words, number {i}" for i in range(60)]
SHORT = [f"id {i}" for i in range(60)]
FEW = ["yes", "no", "maybe"] * 20


def test_separate_files_are_used_as_given(make: Make, workdir: Path) -> None:
    (workdir / "val.csv").write_text("label,text\ngood,love v\n")
    (workdir / "test.txt").write_text("BAD:x hate t\n".replace("BAD", "bad"))
    data = make(val_path="val.csv", test_path="test.txt")
    assert split(data, "val") == ["love"], "what validation alone has is not known"
    assert split(data, "test") == ["hate"]
    assert len(split(data, "train")) == 90


def test_tables_and_lines_hold_the_same(make: Make, workdir: Path) -> None:
    expected = None
    pq.write_table(
        pa.table({"label": [label for label, _ in rows()], "text": [text for _, text in rows()]}), workdir / "t.parquet"
    )
    table = [["id", "label", "text"], *[[str(i), *row] for i, row in enumerate(rows())]]
    for name, delimiter in (("t.csv", ","), ("t.tsv", "\t")):
        with (workdir / name).open("w") as file:
            csv.writer(file, delimiter=delimiter).writerows(table)
    make()
    make("".join(f"{label}:sub {text}\n" for label, text in rows()), "t.label")
    for name in ("texts.txt", "t.label", "t.parquet", "t.csv", "t.tsv"):
        data = TextCSVDataModule(name, min_count=1)
        found = sorted(split(data, "train"))
        expected = expected or found
        assert found == expected, name
        assert data.source_column == "text"
        assert data.target_column == "label"


def test_a_fine_label_can_be_asked_for(make: Make) -> None:
    content = "".join(f"{label}:sub{i % 2} {text}\n" for i, (label, text) in enumerate(rows()))
    assert make(content).class_names == ["bad", "good"]
    data = make(content, label_column="fine_label")
    assert data.class_names == ["bad:sub0", "bad:sub1", "good:sub0", "good:sub1"]


def test_a_stray_quote_swallows_no_row(make: Make) -> None:
    for header in ("", "label\ttext\n"):
        content = header + lines(rows()).replace("Love", '"Love', 3)
        assert sum(split.size for split in make(content).splits.values()) == 90


def test_an_encoding_is_given_by_its_name(make: Make) -> None:
    data = make(lines(rows()).replace("much", "müch").encode("latin-1"), encoding="latin-1")
    assert all(text.endswith("müch") for text in split(data, "train"))


def test_rows_without_text_or_label_are_dropped_and_counted(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    data = make("text,label\n" + "a b,x\nc,y\n" * 20 + ",x\nd,\n ,\n", "t.csv")
    assert sum(split.size for split in data.splits.values()) == 40
    assert (
        "t.csv: 3 rows without text or label are dropped; the first is t.csv, line 42: '' in column text\n"
        in caplog.text
    )


@pytest.mark.parametrize("columns", [{}, {"text_column": "text", "label_column": "label"}], ids=["found", "named"])
def test_only_an_empty_text_is_missing(make: Make, columns: dict[str, str]) -> None:
    signs = ["NA", "?", "null", "N/A", "nan", "-"]
    content = "text,label\n" + "a b c,x\nd,y\n" * 20 + "".join(f"{sign},x\n" for sign in signs)
    data = make(content + ",x\nd,NA\nd,-\n ,y\n", "t.csv", missing_values=["-"], test_fraction=0, **columns)
    assert data.class_names == ["x", "y"]
    assert sum(split.size for split in data.splits.values()) == 46
    found = texts(data, data.predict_dataloader()[0])
    assert len(found) == 50
    assert {"na", "?", "null", "nan", "-"} < {*found}
    assert list(data.row_keys()["text"])[40:46] == signs


BAD: dict[str, tuple[str | bytes, dict[str, Any], str]] = {
    "empty file": ("", {}, "texts.txt: the file is empty"),
    "no path": (lines(rows()), {"path": ""}, "path: give the table"),
    "missing file": (lines(rows()), {"path": "text.txt"}, "there is no such file; did you mean texts.txt?"),
    "only texts": ("love\nhate it\n" * 20, {}, "its lines are neither label<TAB>text nor LABEL:sub text"),
    "text as label": (lines(rows()), {"label_column": "text"}, "label_column='text': these are the texts"),
    "both the same": (
        lines(rows()),
        {"label_column": "text", "text_column": "text"},
        "label_column='text': these are the texts",
    ),
    "no such text": (lines(rows()), {"text_column": "txt"}, "text_column='txt': texts.txt: there is no column"),
    "no such label": (lines(rows()), {"label_column": "lable"}, "no column 'lable'; did you mean 'label'?"),
    "one class": ("good\ta\ngood\tb\n", {}, "the target is the same in every row; give another `label_column`"),
    "class of one": (
        lines(rows()) + "odd\tx\n",
        {},
        "texts.txt, line 91: 'odd' in column label is the only row of its",
    ),
    "all texts empty": ("good\t\nbad\t \n" * 9, {}, "texts.txt: no row has anything in the column 'text'"),
    "all labels empty": ("text,label\n" + "a b,\n" * 9, {}, "texts.txt: no row has anything in the column 'label'"),
    "never both": ("text,label\n" + "a b,\n,x\n,y\n" * 9, {}, "texts.txt: no row has both text and label"),
    "words as numbers": (lines(rows()), {"task": "regression"}, "line 1: 'bad' in column label is not a number"),
    "damaged": (lines(rows()).replace("so", "sö").encode() + b"bad\t\xe9\n", {}, "line 91: byte 0xe9 at offset"),
    "unknown encoding": (lines(rows()), {"encoding": "klingon"}, "encoding='klingon': Python knows no such"),
    "binary": (bytes(range(256)), {}, "texts.txt: this is not text (a NUL byte in line 1)"),
    "unknown tokenizer": (lines(rows()), {"tokenizer": "wordz"}, "tokenizer='wordz': there is no such kind"),
    "no room": (lines(rows()), {"vocab_size": 2}, "vocab_size=2: words need at least 3"),
    "no length": (lines(rows()), {"max_length": 0}, "max_length=0: give 1 or more"),
    "no count": (lines(rows()), {"min_count": 0}, "min_count=0: give 1 or more"),
    "nothing often": (
        lines(rows()),
        {"min_count": 999},
        "min_count=999: no token occurs so often in 65 training texts; give less",
    ),
    "balanced numbers": ("1.5\ta\n2.5\tb\n3.7\tc\n" * 9, {"balance": "weights"}, "only classes can be balanced"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_texts_are_one_line(make: Make, case: str) -> None:
    content, options, message = BAD[case]
    make(content)
    with pytest.raises(DataError) as error:
        TextCSVDataModule(**{"path": "texts.txt", "min_count": 1, **options}).setup("fit")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("stage", ["val", "test"])
def test_a_class_seen_only_in_what_is_held_out_is_named(make: Make, workdir: Path, stage: str) -> None:
    (workdir / "other.txt").write_text("good\tlove\nodd\tstrange\nbad\thate\n")
    message = "other.txt, line 2: 'odd' in column label is none of the training classes (bad, good)"
    with pytest.raises(DataError) as error:
        make(**{f"{stage}_path": "other.txt"}).setup("fit")
    assert message in str(error.value)


def test_a_column_of_lists_is_no_text(make: Make, workdir: Path) -> None:
    pq.write_table(pa.table({"text": [["a"], ["b"]] * 9, "label": ["x", "y"] * 9}), workdir / "t.parquet")
    with pytest.raises(DataError, match=r"column text holds no text \(list<.*give another `text_column`"):
        TextCSVDataModule("t.parquet", text_column="text").setup("fit")


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("new.txt", "love it\n\nzzz\n", {}),
        ("new.csv", "id,text\n1,love it\n2,\n3,zzz\n", {}),
        ("one.csv", 'text\nlove it\n""\nzzz\n', {}),
        ("new.csv", "id,review\n1,love it\n2,\n3,zzz\n", {"text_column": "review"}),
        ("new.tab", "odd\tlove it\nodd\t\n\tzzz\n", {}),
        ("new.label", "ODD:x love it\nODD:x\nODD:y zzz\n", {}),
    ],
)
def test_every_row_is_predicted_in_its_order(
    state: dict[str, Any], workdir: Path, name: str, content: str, options: dict[str, Any]
) -> None:
    (workdir / name).write_text(content)
    data = loaded(state, name, **options)
    (batch,) = data.predict_dataloader()[0]
    assert data.vocab_size == loaded(state, "texts.txt").vocab_size
    love = int(data.encode("love")[0])
    assert batch.tolist() == [[love, UNKNOWN], [UNKNOWN, PAD], [UNKNOWN, PAD]]
    assert list(data.row_keys()["text"]) == ["love it", "", "zzz"]


def test_unknown_and_truncated_texts_to_predict_are_logged(
    state: dict[str, Any], workdir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (workdir / "new.txt").write_text("so " * 300 + "\nzzz\n")
    loaded(state, "new.txt").predict_dataloader()
    assert [record.message for record in caplog.records] == [
        "new.txt: each of its 2 lines is read as a text",
        "new.txt: 1 of 2 texts have more than max_length=256 tokens, and are truncated",
        "new.txt: 1 of 2 texts have no known token",
    ]


def test_other_texts_are_tested_whole_and_the_same_by_their_split(state: dict[str, Any], workdir: Path) -> None:
    again = loaded(state, "texts.txt")
    assert sum(len(y) for _, y in again.test_dataloader()[0]) == 18
    (workdir / "new.csv").write_text("text,label\n" + "love,good\nhate it,bad\n" * 20)
    new = loaded(state, "new.csv")
    (batch,) = new.test_dataloader()[0]
    assert len(batch[1]) == 40
    assert texts(new, [batch]) == ["hate"] * 20 + ["love"] * 20, "the longest first; it was never learned"
    assert batch[1].tolist() == [0] * 20 + [1] * 20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,label\nlove,good\nlove,odd\n", "new.csv, line 3: 'odd' in column label is none of the training classes"),
        ("text,stars\nlove,good\n", "name yours by `label_column`: there is no column 'label', only text, stars"),
    ],
)
def test_what_cannot_be_tested_is_one_line(state: dict[str, Any], workdir: Path, content: str, message: str) -> None:
    (workdir / "new.csv").write_text(content)
    with pytest.raises(DataError) as error:
        loaded(state, "new.csv").test_dataloader()
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,txt\n1,love\n", "name yours by `text_column`: there is no column 'text'; did you mean 'txt'?"),
        ("text,label\n,good\n", "new.csv: no row has anything in the column 'text'"),
        ("", "new.csv: the file is empty"),
    ],
)
def test_what_cannot_be_predicted_is_one_line(state: dict[str, Any], workdir: Path, content: str, message: str) -> None:
    (workdir / "new.csv").write_text(content)
    with pytest.raises(DataError) as error:
        loaded(state, "new.csv").predict_dataloader()
    assert message in str(error.value)


@pytest.mark.parametrize("header", [False, None])
def test_columns_without_names_are_found_again(make: Make, workdir: Path, header: bool | None) -> None:
    table = "".join(f"{text},{len(label)}\n" for label, text in rows())
    data = make(table, "t.csv", header=False)
    assert (data.source_column, data.target_column) == ("x1", "y")
    (workdir / "new.csv").write_text("love it\nhate it\n")
    new = loaded(data.state_dict(), "new.csv", header=False)
    assert sum(map(len, new.predict_dataloader()[0])) == 2


@pytest.mark.parametrize(
    ("columns", "text", "label"),
    [
        ({"text": LONG, "label": FEW}, "text", "label"),
        ({"label": FEW, "Text": SHORT, "notes": LONG}, "Text", "label"),
        ({"id": SHORT, "stuff": LONG, "kind": FEW}, "stuff", "kind"),
        ({"sentence": LONG, "score": [i / 7 for i in range(60)]}, "sentence", "score"),
        ({"text": LONG, "id": list(range(60)), "class": SHORT, "lang": FEW}, "text", "class"),
    ],
)
def test_names_come_first_then_the_content(columns: dict[str, list[object]], text: str, label: str) -> None:
    table = pa.table(columns)
    assert find_texts(table, "t.csv") == text
    assert find_labels(table, "t.csv", text) == label


def test_the_labels_may_be_as_long_as_the_texts() -> None:
    table = pa.table({"a": LONG, "b": LONG})
    assert find_texts(table, "t.csv", label="b") == "a"
    assert find_texts(pa.table({"a": SHORT, "b": LONG}), "t.csv", label="b") == "b", "those are the texts"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [1, 2], "b": [3, 4]}, "t.csv: no column holds text; it has a, b."),
        ({"q1": LONG, "q2": LONG, "same": FEW}, "t.csv: q1 or q2 may be the texts; name the column by `text_col"),
    ],
)
def test_no_texts_or_several(columns: dict[str, list[object]], message: str) -> None:
    with pytest.raises(DataError) as error:
        find_texts(pa.table(columns), "t.csv")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({}, "t.csv: there is no column of labels beside 'text'"),
        ({"a": FEW, "b": FEW}, "t.csv: a or b may be the labels; name the column by `label_column`"),
        ({"a": SHORT, "b": SHORT}, "t.csv: a or b: none looks like the labels; name the column by `label_column`"),
    ],
)
def test_no_labels_or_several(columns: dict[str, list[object]], message: str) -> None:
    with pytest.raises(DataError) as error:
        find_labels(pa.table({"text": LONG, **columns}), "t.csv", "text")
    assert message in str(error.value)
