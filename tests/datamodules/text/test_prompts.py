"""Prompts from a file."""

from pathlib import Path

import pytest
import torch

from datamodules import DataError
from datamodules.text.files import read_texts
from datamodules.text.prompts import Prompts, find_prompts


def _read(tmp_path: Path, name: str, text: str) -> list[tuple[str, int]]:
    (tmp_path / name).write_bytes(text.encode())
    path = str(tmp_path / name)
    return [(prompt.text, prompt.line) for prompt in find_prompts(read_texts(path, None), path)]


def test_each_line_is_a_prompt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert _read(tmp_path, "p.txt", 'To be, "or\r\n\n  not\nto') == [('To be, "or', 1), ("  not", 3), ("to", 4)]
    assert "p.txt: 1 of 4 prompts are empty, and are dropped" in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("p.csv", 'prompt\n"a\nb"\nc\n', [("a\nb", 3), ("c", 4)]),
        ("p.csv", "id,Text\n1,a\n2,\n3\n4,b\n", [("a", 2), ("b", 5)]),
        ("p.csv", "text;prompt\nx;a\n", [("a", 2)]),
        ("p.tsv", "prompt\tid\na, b\t1\n", [("a, b", 2)]),
    ],
)
def test_a_table_has_a_column_of_them(tmp_path: Path, name: str, text: str, expected: list[tuple[str, int]]) -> None:
    assert _read(tmp_path, name, text) == expected


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("p.txt", "\n\n", "the file is empty"),
        ("p.csv", "prompt\n,\n", "there is no prompt"),
        ("p.csv", "a,b\n1,2\n", "none of its columns a, b is named prompt or text"),
        ("p.csv", 'prompt\n"open', "p.csv, line 2: unexpected end of data"),
    ],
)
def test_bad_prompts_are_named(tmp_path: Path, name: str, text: str, answer: str) -> None:
    with pytest.raises(DataError, match=answer):
        _read(tmp_path, name, text)


def test_each_is_a_batch_of_its_own() -> None:
    prompts = Prompts([torch.tensor([1, 2]), torch.tensor([3])])
    assert prompts[torch.tensor([0])].tolist() == [[1, 2]]
    assert prompts[torch.tensor([1])].tolist() == [[3]]
    assert len(prompts) == 2
