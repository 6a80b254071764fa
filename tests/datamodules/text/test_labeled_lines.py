"""Labeled texts in lines: their form is detected from the content, and quotes have no meaning."""

import gzip
from pathlib import Path

import pytest

from datamodules.errors import DataError
from datamodules.tables.dialect import Dialect
from datamodules.text.labeled_lines import Form, LineFiles, form_of, open_texts

ROWS = [("good" if i % 2 else "bad", f"it was number {i}, really") for i in range(40)]
TAB = "".join(f"{label}\t{text}\n" for label, text in ROWS)
FINE = "".join(f"{label.upper()}:sort{i % 5} {text}\n" for i, (label, text) in enumerate(ROWS))
CSV = "label,text\n" + "".join(f'{label},"{text}"\n' for label, text in ROWS)
HEADED = "label\ttext\n" + TAB
PLAIN = "".join(f"{text}\n" for _, text in ROWS)


def read(path: Path, content: str | bytes, **options: object) -> LineFiles:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    files = open_texts(str(path), Dialect(**options), str(path.parent / "cache"))  # type: ignore[arg-type]
    assert isinstance(files, LineFiles)
    return files


FORMS: dict[str, tuple[str, Form | None]] = {
    "label, tab, text": (TAB, "first"),
    "one line": ("good\tit was\n", "first"),
    "text, tab, label": ("".join(f"{text}\t{label}\n" for label, text in ROWS), "last"),
    "a number and a text": ("".join(f"{i / 7}\t{text}\n" for i, (_, text) in enumerate(ROWS)), "first"),
    "fine labels": (FINE, "fine"),
    "columns with names": (HEADED, "headed"),
    "quoted columns with names": ("label\ttext\n" + "".join(f'{label}\t"{text}"\n' for label, text in ROWS), None),
    "a stray quote among columns": (HEADED.replace("it was", '"it was', 1), "headed"),
    "rows of several lines": (HEADED.replace("it was number 3", '"it was\nnumber 3"'), None),
    "a table": (CSV, None),
    "three columns": ("".join(f"{i}\t{label}\t{text}\n" for i, (label, text) in enumerate(ROWS)), None),
    "a text on both sides": ("".join(f"{text}\t{text[::-1]}\n" for _, text in ROWS), None),
    "addresses": ("http://a.b/c d\n" * 30, None),
    "texts alone": (PLAIN, None),
}


@pytest.mark.parametrize("case", FORMS)
def test_the_form_is_detected_from_the_content(tmp_path: Path, case: str) -> None:
    content, form = FORMS[case]
    (tmp_path / "texts").write_text(content)
    assert form_of(tmp_path / "texts") == form


def test_texts_without_labels_are_accepted_only_if_asked(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text(PLAIN)
    assert form_of(tmp_path / "texts.txt", may_be_plain=True) == "plain"
    (tmp_path / "texts.csv").write_text(PLAIN)
    assert form_of(tmp_path / "texts.csv", may_be_plain=True) is None
    (tmp_path / "one").write_text("words\n" + PLAIN)
    assert form_of(tmp_path / "one", may_be_plain=True) == "plain"
    assert form_of(tmp_path / "one", columns=["words"], may_be_plain=True) is None, "a table of one column"


def test_with_a_delimiter_a_quote_or_a_header_it_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "texts").write_text(TAB)
    for dialect in (Dialect(delimiter="\t"), Dialect(quote="'"), Dialect(header=True)):
        assert not isinstance(open_texts(str(tmp_path / "texts"), dialect, str(tmp_path)), LineFiles)


def test_no_sign_has_a_meaning(tmp_path: Path) -> None:
    texts = ['"opened', "a\ttab\tor two", 'in "the" middle', "'", "#,;|", "\x85 \u2028 \x0c", 'closed"'] * 3
    files = read(tmp_path / "texts", "".join(f"good\t{text}\nbad\t-\n" for text in texts))
    table = files.read()
    assert table["text"].to_pylist()[::2] == texts
    assert set(table["label"].to_pylist()) == {"good", "bad"}


def test_fine_labels_have_their_coarse_one_in_front(tmp_path: Path) -> None:
    table = read(tmp_path / "texts", FINE + "BAD:sort1\n").read()
    assert table.column_names == ["label", "fine_label", "text"]
    assert [table[name][1].as_py() for name in table.column_names] == ["GOOD", "GOOD:sort1", ROWS[1][1]]
    assert [table[name][40].as_py() for name in table.column_names] == ["BAD", "BAD:sort1", ""]


def test_named_columns_are_called_so(tmp_path: Path) -> None:
    table = read(tmp_path / "texts", "sentence\tmood\n" + "".join(f"{text}\t{label}\n" for label, text in ROWS)).read()
    assert table.column_names == ["sentence", "mood"]
    assert table["mood"].to_pylist() == [label for label, _ in ROWS]


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (TAB.replace("it", "été").encode(), {}),
        (b"\xef\xbb\xbf" + TAB.replace("it", "été").encode(), {}),
        (TAB.replace("it", "été").replace("\n", "\r\n").encode(), {}),
        (TAB.replace("it", "été").replace("\n", "\n\n").encode(), {}),
        (TAB.replace("it", "été").encode("latin-1"), {"encoding": "latin-1"}),
        (TAB.replace("it", "été").encode("utf-16"), {}),
        (gzip.compress(TAB.replace("it", "été").encode(), mtime=0), {}),
    ],
)
def test_encodings_and_ends_of_lines(tmp_path: Path, content: bytes, options: dict[str, str]) -> None:
    table = read(tmp_path / "texts", content, **options).read()
    assert table["text"].to_pylist() == [text.replace("it", "été") for _, text in ROWS]


def test_a_place_is_a_line_through_all_files(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("\n" + TAB)
    files = open_texts(str(tmp_path / "*.txt"), Dialect(), str(tmp_path))
    assert files.where(0, "label") == f"{tmp_path}/a.txt, line 2: 'bad' in column label"
    assert files.where(41, "text") == f"{tmp_path}/b.txt, line 3: 'it was number 1, really' in column text"
    assert len(files.read()) == 80


def test_content_and_reading_are_the_fingerprint(tmp_path: Path) -> None:
    first = read(tmp_path / "a", TAB)
    assert read(tmp_path / "b", TAB).fingerprint == first.fingerprint
    assert read(tmp_path / "c", TAB, encoding="latin-1").fingerprint != first.fingerprint
    assert read(tmp_path / "d", TAB + "good\tx\n").fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TAB + "no tab\n", "texts, line 41: there is no tab between label and text in 'no tab'; put one there"),
        (FINE + "no label\n", "texts, line 41: 'no label' is not a LABEL:sub text, as the others are"),
        (b"\xef\xbb\xbf" + TAB.encode() * 9999 + b"good\t\xff\n", "line 399961: byte 0xff at offset 11698838 is not"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path / "texts", content).read()
    assert message in str(error.value)


def test_files_of_other_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "1.txt").write_text(HEADED)
    (tmp_path / "2.txt").write_text("text\tlabel\n" + TAB)
    with pytest.raises(DataError, match=r"2\.txt, line 1: the columns are \['text', 'label'\], but"):
        open_texts(str(tmp_path), Dialect(), str(tmp_path)).read()
