"""Which column has the texts, and which their labels."""

import pyarrow as pa
import pytest

from datamodules.errors import DataError
from datamodules.text.columns import find_labels, find_texts

LONG = [f"a text of several words, number {i}" for i in range(60)]
SHORT = [f"id {i}" for i in range(60)]
FEW = ["yes", "no", "maybe"] * 20


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
