"""What columns look like."""

import pytest

from datamodules.text.columns import is_identifier, is_numeric, is_text, mean_words

TEXTS = [f"this is film number {number}" for number in range(20)]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "2.5", "-3e4"], True),
        (["1", "2", "?", ""], True),
        (["1"] * 9 + ["a"], True),
        (["1"] * 8 + ["a", "b"], False),
        (["", "NA"], False),
        ([], False),
    ],
)
def test_numbers_are_nearly_all_numbers(cells: list[str], expected: bool) -> None:
    assert is_numeric(cells) == expected


@pytest.mark.parametrize(
    ("name", "cells", "expected"),
    [
        ("x", TEXTS, True),
        ("x", ["", "NA", *TEXTS], True),
        ("x", TEXTS[:2] * 10, False),
        ("x", [f"a film{number}" for number in range(20)], False),
        ("Review", [f"a film{number}" for number in range(20)], True),
        ("review", [f"film{number}" for number in range(20)], False),
        ("x", [f"{number}" for number in range(20)], False),
        ("x", [f"550e-84-a-b-{number}" for number in range(20)], False),
        ("x", [], False),
    ],
)
def test_texts_have_several_words_and_are_seldom_the_same(name: str, cells: list[str], expected: bool) -> None:
    assert is_text(name, cells) == expected


def test_a_chinese_character_is_a_word() -> None:
    assert mean_words(["我们 2024", "the film!"]) == 2.5


@pytest.mark.parametrize(
    ("name", "cells", "expected"),
    [
        ("x", ["7", "8", "9"], True),
        ("x", ["7", "9", "8"], False),
        ("user_id", ["7", "9", "8"], True),
        ("PassengerId", ["a", "b", "c"], True),
        ("id", ["7", "7", "8"], False),
        ("wood", ["pine", "oak", "fir"], False),
    ],
)
def test_an_identifier_numbers_or_names_the_rows(name: str, cells: list[str], expected: bool) -> None:
    assert is_identifier(name, cells) == expected
