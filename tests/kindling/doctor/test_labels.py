"""Labels that are likeliest wrong."""

import random
from pathlib import Path

import numpy as np
import pytest

from datamodules import CSVDataModule, DigitsDataModule, TextCSVDataModule
from kindling.doctor.labels import find_suspects, summary_line, suspects
from tests.helpers.tables import table, write
from tests.helpers.texts import lines

LONG = 1000.0  # seconds
WRONG = range(20, 400, 47)


def _flowers(path: Path, wrong: range = WRONG, spread: float = 0.7) -> CSVDataModule:
    """Write a table of three classes that are well apart, some of them mistaken."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(420):
        at = i % 3
        a, b = rng.normal(4 * at, spread), rng.normal(-3 * at, spread)
        rows.append(f"{a:.3f},{b:.3f},{'xyz'[(at + (i in wrong)) % 3]}\n")
    (path / "t.csv").write_text("a,b,y\n" + "".join(rows))
    return CSVDataModule(str(path / "t.csv"), cache_dir=str(path))


def test_planted_mistakes_are_named_by_their_lines(tmp_path: Path) -> None:
    data = _flowers(tmp_path)
    trained = set(data.splits["train"].indices.tolist())
    planted = {f"line {row + 2}" for row in WRONG if row in trained}
    found = find_suspects(data, LONG)
    assert 0 < len(found) <= 10
    assert len(planted & {finding.where[0] for finding in found}) >= len(planted) - 1
    assert all(finding.check == "label" for finding in found)
    row = int(found[0].where[0].removeprefix("line ")) - 2
    assert f"{'xyz'[(row + 1) % 3]!r}, where cross-validated " in found[0].what
    assert f"expects {'xyz'[row % 3]!r}" in found[0].what
    assert summary_line(found).startswith(f"label: the {len(found)} labels most likely wrong in training: line ")


def test_a_clean_table_has_no_suspects(tmp_path: Path) -> None:
    assert find_suspects(_flowers(tmp_path, wrong=range(0)), LONG) == []


def test_classes_that_overlap_have_no_suspects(tmp_path: Path) -> None:
    assert find_suspects(_flowers(tmp_path, spread=4.0), LONG) == []


def test_planted_mistakes_in_texts_are_named(tmp_path: Path) -> None:
    draw = random.Random(0)
    rows = []
    for i in range(300):
        word = draw.choice(["love", "great", "fine"]) if i % 3 else draw.choice(["hate", "awful", "dull"])
        label = ("bad", "good")[bool(i % 3) ^ (i in WRONG)]
        rows.append((label, f"such a {word} film, {word} indeed {draw.randrange(9)}"))
    (tmp_path / "t.txt").write_text(lines(rows))
    data = TextCSVDataModule(str(tmp_path / "t.txt"), cache_dir=str(tmp_path))
    planted = {f"line {row + 1}" for row in WRONG if row in set(data.splits["train"].indices.tolist())}
    assert planted <= {finding.where[0] for finding in find_suspects(data, LONG)}


def test_without_time_none_are_looked_for(tmp_path: Path) -> None:
    assert find_suspects(_flowers(tmp_path), 0.0) == []


@pytest.mark.parametrize("streaming", [True, False])
def test_values_images_and_streams_are_left_alone(tmp_path: Path, streaming: bool) -> None:
    path = write(tmp_path / "t.csv", table(120))
    target = "y" if streaming else "price"
    data = CSVDataModule(path, target=target, streaming=streaming, key_column="id", cache_dir=str(tmp_path))
    assert find_suspects(data, LONG) == []
    assert find_suspects(DigitsDataModule(), LONG) == []


def test_a_label_is_suspect_where_another_class_is_as_likely_as_usual() -> None:
    probabilities = np.array([[0.9, 0.1], [0.96, 0.04], [0.2, 0.8], [0.04, 0.96], [0.7, 0.3], [0.97, 0.03]])
    y = np.array([0, 1, 1, 1, 0, 1])
    assert [(at, other) for at, other, _ in suspects(probabilities, y)] == [(5, 0), (1, 0)]
    assert suspects(probabilities[:1], y[:1]) == []
