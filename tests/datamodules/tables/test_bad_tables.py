"""What is wrong with a table is one line that says where and how to mend it; nothing is written."""

import gzip
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from datamodules import CSVDataModule
from tests.helpers.front_door import Run

GOOD = "a,b,y\n" + "".join(f"{i},{i * i % 7}.5,{'no' if i % 3 else 'yes'}\n" for i in range(30))
Mistake = Callable[[str], str]


@pytest.fixture
def refused(mistake: Mistake, workdir: Path) -> Mistake:
    """Run a command line on a table that must be refused, and see that no file has come or gone."""

    def refuse(line: str) -> str:
        before = sorted(workdir.rglob("*"))
        message = mistake(f"--data CSVDataModule {line}")
        assert sorted(workdir.rglob("*")) == before
        return message

    return refuse


def _line(number: int, text: str) -> str:
    """Replace a line of the good table, counted from 1 as an editor does."""
    lines = GOOD.splitlines(keepends=True)
    lines[number - 1] = text
    return "".join(lines)


BAD: dict[str, tuple[str | bytes, str, str]] = {
    "empty": ("", "", "bad.csv: the file is empty"),
    "spaces": ("  \n\n", "", "bad.csv: the file is empty"),
    "header only": ("a,b,y\n", "", "bad.csv: there is a header, but no row of data"),
    "no such target": (GOOD, "--data.target why", "there is no column 'why', only a, b, y"),
    "nearly a target": (GOOD.replace("y\n", "price\n", 1), "--data.target prise", "did you mean 'price'?"),
    "constant target": (GOOD.replace("yes", "no"), "", "the target is the same in every row"),
    "constant number": (GOOD.replace("yes", "1").replace("no", "1"), "", "the target is the same in every row"),
    "target missing": (
        GOOD.replace("yes", "").replace("no", "NA"),
        "",
        "no row has a value in the target column 'y'",
    ),
    "short row": (_line(12, "1,2\n"), "", "bad.csv, line 12: 2 values where there are 3 columns"),
    "long row": (_line(12, "1,2,no,4\n"), "", "bad.csv, line 12: 4 values where there are 3 columns"),
    "text in numbers": (_line(12, "12x,2,no\n"), "", "bad.csv, line 12: '12x' in column a is not a number"),
    "text in a target": (
        GOOD.replace("no", "0.25").replace("yes", "2.25").replace("0.25", "oops", 1),
        "",
        "line 3: 'oops' in column y is not a number",
    ),
    "asked for numbers": (GOOD, "--data.target a --data.numeric [y]", "line 2: 'yes' in column y is not a number"),
    "infinity": (_line(12, "1,inf,no\n"), "", "line 12: 'inf' in column b is infinite, or too large for float32"),
    "overflow": (_line(12, "1,1e39,no\n"), "", "line 12: '1e39' in column b is infinite, or too large for float32"),
    "overflow of float64": (_line(12, "1,1e999,no\n"), "", "line 12: '1e999' in column b is infinite, or too large"),
    "negative overflow": (_line(12, "-4e38,1,no\n"), "", "line 12: '-4e38' in column a is infinite, or too large"),
    "same names": (GOOD.replace("a,b", "a,a", 1), "", "bad.csv, line 1: there are 2 columns named 'a'"),
    "one column": ("a\n1\n2\n3\n", "", "with the delimiter ',' there is only one column; give --data.delimiter"),
    "wrong delimiter": (GOOD, "--data.delimiter ;", "with the delimiter ';' there is only one column"),
    "wrong encoding": (
        GOOD.replace("no", "né").encode() + b"1,2,n\xe9\n",
        "",
        "is not utf-8; give --data.enc",
    ),
    "unknown encoding": (GOOD, "--data.encoding klingon", "--data.encoding klingon: Python knows no such encoding"),
    "not that encoding": (
        GOOD.replace("no", "né").encode("latin-1"),
        "--data.encoding ascii",
        "line 3: byte 0xe9 at offset 23 is not ascii",
    ),
    "binary": (bytes(range(256)) * 20, "", "bad.csv: this is not text"),
    "image": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(100), "", "bad.csv"),
    "sheet": (b"PK\x03\x04" + bytes(100), "", "bad.csv: this is a zip archive or an Excel sheet; save it as CSV"),
    "NUL bytes": (_line(12, "1,2,n\0o\n"), "", "bad.csv: this is not text (a NUL byte in line 12)"),
    "cut gzip": (gzip.compress(GOOD.encode() * 50)[:-20], "", "the gzip file is truncated or damaged"),
    "broken gzip": (gzip.compress(GOOD.encode())[:20] + b"junk" * 20, "", "the gzip file is truncated or damaged"),
    "damaged Parquet": (b"PAR1" + b"junk" * 50, "", "bad.csv: a damaged Parquet file"),
    "more folds than rows": (GOOD, "--data.num_folds 31", "--data.num_folds 31: there are only 30 samples"),
    "a class of one": (_line(12, "1,2,maybe\n"), "", "line 12: 'maybe' in column y is the only row of its class"),
    "fewer rows than classes": ("a,y\n1,b\n2,c\n3,d\n", "", "is the only row of its class"),
    "excluded target": (GOOD, "--data.target b --data.exclude [a,b]", "--data.target b: it cannot be predicted and"),
    "no such exclude": (GOOD, "--data.exclude [c]", "--data.exclude ['c']: there is no column 'c'"),
    "no such key": (GOOD, "--data.key_column c", "--data.key_column c: there is no column 'c'"),
    "no such group": (GOOD, "--data.group_column c", "--data.group_column c: there is no column 'c'"),
    "no such time": (GOOD, "--data.time_column c", "--data.time_column c: there is no column 'c'"),
    "long delimiter": (GOOD, "--data.delimiter ab", "--data.delimiter ab: give one character"),
    "no text encoding": (GOOD, "--data.encoding base64", "--data.encoding base64: Python knows no such encoding"),
    "no mark": (GOOD, "--data.encoding utf-16", "bad.csv: this is not utf-16"),
    "time as target": (GOOD, "--data.target b --data.time_column b", "--data.target b: it cannot be predicted and"),
    "nothing to learn from": (GOOD, "--data.exclude [a,b]", "no column is left to learn from"),
    "two classes of three": (_line(12, "1,2,maybe\n1,2,maybe\n"), "--data.task binary", "y has 3 values, not 2"),
    "regression of words": (GOOD, "--data.task regression", "line 2: 'yes' in column y is not a number"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_table_is_one_line(refused: Mistake, workdir: Path, case: str) -> None:
    content, flags, expected = BAD[case]
    (workdir / "bad.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    assert expected in refused(f"--data.path bad.csv {flags}")


@pytest.mark.parametrize(
    "case", ["infinity", "overflow", "text in numbers", "short row", "cut gzip", "constant target"]
)
def test_a_streamed_bad_table_is_one_line_too(mistake: Mistake, workdir: Path, case: str) -> None:
    content, flags, expected = BAD[case]
    (workdir / "bad.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    message = mistake(f"--data CSVDataModule --data.path bad.csv --data.streaming true {flags}")
    assert expected in message
    assert not list(workdir.rglob("*.tmp"))


def test_no_such_file(refused: Mistake, workdir: Path) -> None:
    assert "--data.path houses.csv: there is no such file." in refused("--data.path houses.csv")
    assert "--data.path a/houses.csv: there is no such file." in refused("--data.path a/houses.csv")
    (workdir / "house.csv").write_text(GOOD)
    assert "there is no such file; did you mean house.csv?" in refused("--data.path houses.csv")


def test_a_glob_that_matches_nothing(refused: Mistake) -> None:
    assert "--data.path part-*.csv: no file matches" in refused("--data.path part-*.csv")


def test_a_folder_without_tables(refused: Mistake, workdir: Path) -> None:
    (workdir / "folder").mkdir()
    (workdir / "folder" / "notes.md").write_text("no table")
    assert "--data.path folder: this folder has no table" in refused("--data.path folder")


def test_a_folder_of_different_headers(refused: Mistake, workdir: Path) -> None:
    (workdir / "folder").mkdir()
    (workdir / "folder" / "1.csv").write_text(GOOD)
    (workdir / "folder" / "2.csv").write_text(GOOD.replace("b,y", "c,y", 1))
    assert "folder/2.csv: column 'b' is not in both this file and folder/1.csv" in refused("--data.path folder")


def test_a_folder_of_text_and_parquet(refused: Mistake, workdir: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (workdir / "folder").mkdir()
    (workdir / "folder" / "1.csv").write_text(GOOD)
    pq.write_table(pa.table({"a": [1], "b": [1.0], "y": ["no"]}), workdir / "folder" / "2.parquet")
    assert "folder/2.parquet: this folder mixes Parquet and text files" in refused("--data.path folder")


def test_the_line_is_that_of_the_right_file(refused: Mistake, workdir: Path) -> None:
    (workdir / "folder").mkdir()
    (workdir / "folder" / "1.csv").write_text(GOOD)
    (workdir / "folder" / "2.csv").write_text(_line(5, "1,-inf,no\n"))
    assert "folder/2.csv, line 5: '-inf' in column b is infinite" in refused("--data.path folder")


def test_lines_are_counted_through_quoted_newlines_and_empty_lines(refused: Mistake, workdir: Path) -> None:
    (workdir / "bad.csv").write_text(_line(4, '\n2,4,"y\nes"\n3,4,"y\nes"\n').replace("9,4.5", "9,inf"))
    line = (workdir / "bad.csv").read_text()[: (workdir / "bad.csv").read_text().index("9,inf")].count("\n") + 1
    assert f"line {line}: 'inf' in column b" in refused("--data.path bad.csv")


def test_a_row_of_a_parquet_file_is_named(refused: Mistake, workdir: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    a = np.arange(20.0)
    a[7] = np.inf
    pq.write_table(pa.table({"a": a, "y": ["no", "yes"] * 10}), workdir / "bad.parquet")
    assert "bad.parquet, row 8, column a is infinite" in refused("--data.path bad.parquet")


def test_same_names_in_parquet(refused: Mistake, workdir: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_arrays([pa.array([1.0, 2.0])] * 3, names=["a", "a", "y"])
    pq.write_table(table, workdir / "bad.parquet")
    assert "bad.parquet: there are 2 columns named 'a'" in refused("--data.path bad.parquet")


def test_a_damaged_body_of_a_parquet_file(refused: Mistake, workdir: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"a": np.random.default_rng(0).normal(size=5000), "y": ["no", "yes"] * 2500})
    pq.write_table(table, workdir / "bad.parquet")
    content = bytearray((workdir / "bad.parquet").read_bytes())
    content[4:2000] = bytes(1996)
    (workdir / "bad.parquet").write_bytes(content)
    assert "bad.parquet: a damaged Parquet file" in refused("--data.path bad.parquet")


@pytest.fixture
def nobody() -> Iterator[None]:
    """Be a user who may not read everything; root may."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_no_permission(refused: Mistake, workdir: Path, request: pytest.FixtureRequest) -> None:
    (workdir / "bad.csv").write_text(GOOD)
    (workdir / "bad.csv").chmod(0)
    workdir.chmod(0o777)
    for folder in workdir.parents:
        folder.chmod(folder.stat().st_mode | 0o55)
    request.getfixturevalue("nobody")
    assert "--data.path bad.csv: cannot be read (Permission denied)" in refused("--data.path bad.csv")


@pytest.fixture
def full_disk(big_table: str) -> Iterator[None]:
    """Let no file grow beyond 64 KiB, once the table is there."""
    resource = pytest.importorskip("resource", reason="only POSIX systems limit the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def big_table(workdir: Path) -> str:
    """The name of a table too large for a full disk."""
    rng = np.random.default_rng(0)
    rows = "".join(f"{a:.6f},{b:.6f},{a + b > 0}\n" for a, b in rng.normal(size=(20_000, 2)))
    (workdir / "big.csv").write_text(f"a,b,y\n{rows}")
    return "big.csv"


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_no_half_written_cache(mistake: Mistake, workdir: Path, big_table: str) -> None:
    message = mistake(f"--data CSVDataModule --data.path {big_table} --data.cache_dir cache --data.streaming true")
    assert "--data.cache_dir cache: the parsed table cannot be kept there" in message
    assert [path.name for path in workdir.rglob("*") if path.is_file()] == [big_table]


@pytest.mark.usefixtures("full_disk")
def test_a_table_in_memory_needs_no_cache(workdir: Path, big_table: str, caplog: pytest.LogCaptureFixture) -> None:
    data = CSVDataModule(big_table, cache_dir="cache", streaming=False)
    data.setup("fit")
    assert caplog.text.count("cache: nothing can be kept there") == 1
    assert [path.name for path in workdir.rglob("*") if path.is_file()] == [big_table]


def test_a_cache_folder_that_cannot_be(refused: Mistake, workdir: Path, caplog: pytest.LogCaptureFixture) -> None:
    (workdir / "bad.csv").write_text(GOOD)
    message = refused("--data.path bad.csv --data.cache_dir bad.csv/cache --data.streaming true")
    assert "--data.cache_dir bad.csv/cache: the parsed table cannot be kept there" in message
    CSVDataModule("bad.csv", cache_dir="bad.csv/cache").setup("fit")
    assert caplog.text.count("bad.csv/cache: nothing can be kept there") == 1


# Tables for a model that is trained already


@pytest.fixture
def trained(run: Run, workdir: Path) -> str:
    """A checkpoint of a model that learned from the good table."""
    (workdir / "good.csv").write_text(GOOD)
    run("--model LitMLP --data CSVDataModule --data.path good.csv --max_epochs 1")
    return "runs/LitMLP-CSVDataModule/version_0/checkpoints/best.ckpt"


PREDICT = {
    "missing column": ("a,c\n1,2\n2,3\n", "new.csv: there is no column 'b'"),
    "another name": ("a,B\n1,2\n2,3\n", "new.csv: there is no column 'b'; did you mean 'B'?"),
    "another type": ("a,b\n1,x\n2,z\n3,w\n", "new.csv, line 2: 'x' in column b is not a number"),
    "infinity": ("a,b\n1,2\n2,inf\n", "new.csv, line 3: 'inf' in column b is infinite"),
    "empty": ("", "new.csv: the file is empty"),
    "no rows": ("a,b\n", "new.csv: there is a header, but no row of data"),
}


@pytest.mark.parametrize("case", PREDICT)
def test_a_bad_table_to_predict_is_one_line(
    trained: str, run: Run, workdir: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content, expected = PREDICT[case]
    (workdir / "new.csv").write_text(content)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run(f"predict --ckpt_path {trained} --data.path new.csv")
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert not (workdir / "predictions.csv").exists()


def test_numbers_where_text_was_are_one_line(run: Run, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workdir / "good.csv").write_text("c,y\n" + "red,1.5\nblue,2.5\ngreen,0.5\n" * 10)
    run("--model LitMLP --data CSVDataModule --data.path good.csv --max_epochs 1")
    (workdir / "new.csv").write_text("c,d\n1,2\n3,4\n")
    with pytest.raises(SystemExit):
        run("predict --ckpt_path runs/LitMLP-CSVDataModule/version_0/checkpoints/best.ckpt --data.path new.csv")
    assert "new.csv, line 2: '1' in column c: numbers, where the model was trained on text (blue, green, red)" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("flags", ["--data.seed 5", "--data.num_folds 5", "--data.streaming true"])
def test_a_model_is_not_tested_on_rows_it_was_trained_on(
    trained: str, run: Run, capsys: pytest.CaptureFixture[str], flags: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        run(f"test --ckpt_path {trained} {flags}")
    assert stop.value.code == 2
    assert "a model is tested with the splits it was trained with" in capsys.readouterr().err


def test_columns_stay_as_they_were_trained(trained: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(f"predict --ckpt_path {trained} --data.exclude [a]")
    assert stop.value.code == 2
    assert "--data.exclude ['a']: this model was trained with []" in capsys.readouterr().err


def test_an_unknown_label_is_one_line(
    trained: str, run: Run, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workdir / "new.csv").write_text("a,b,y\n1,2,no\n2,3,perhaps\n")
    with pytest.raises(SystemExit):
        run(f"test --ckpt_path {trained} --data.path new.csv")
    assert "new.csv, line 3: 'perhaps' in column y is none of the training classes (no, yes)" in (
        capsys.readouterr().err
    )
