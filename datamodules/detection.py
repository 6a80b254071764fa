"""Which data module reads what is at a path, detected from names and from the beginning of a file.

The rules are those of docs/data.md. Each finds the classes that may read it, the likeliest first; options that only
some of them have decide among these.
"""

import csv
import glob
import inspect
import itertools
import os
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from datamodules.base import DataModule
from datamodules.errors import DataError, listed
from datamodules.files import SUFFIXES, find_files
from datamodules.images.folder import EXTENSIONS, ImageFolderDataModule
from datamodules.images.hub import SAVED, HuggingFaceDataModule
from datamodules.images.user_images import STAGES
from datamodules.tables.csv import CSVDataModule
from datamodules.tables.dialect import MISSING, Dialect, beginning, complete, header, is_number
from datamodules.tables.encodings import SAMPLE, find_encoding
from datamodules.tables.reader import is_parquet, read_parquet
from datamodules.text.columns import FEW_WORDS, MOSTLY, choose_text, is_identifier, is_numeric, is_text, mean_words
from datamodules.text.corpus import TextCorpusDataModule
from datamodules.text.labeled import TextCSVDataModule
from datamodules.text.labeled_lines import FINE, FINE_LABEL, LABEL_NAMES, Form, form_of

MOST_NAMES = 200  # of a folder that are looked at
MOST_FOLDERS = 50
ROWS = 1000  # that are looked at
TABLES = (".csv", ".tsv", ".data", ".parquet", ".pq")  # suffixes of tables, before that of gzip
JSON = (".json", ".jsonl", ".ndjson")
CLASSES = "give a folder that holds a folder of images for each class"


class Detection(NamedTuple):
    """The class that reads what is at a path, and what that is, in words."""

    cls: type[DataModule]
    what: str


class _Finding(NamedTuple):
    """What is at a path, and the classes that may read it, the likeliest first; unless an option decides, `problem`."""

    what: str
    classes: tuple[type[DataModule], ...]
    problem: str = ""
    remedy: str = ""


def detect(path: str, options: Mapping[str, Any] | None = None) -> Detection:
    """Detect which data module reads what is at a path: a table, images by class, labeled texts, or running text.

    Args:
        path: A file, a folder or a glob.
        options: The options that are given for it, by name. Those that only one of two classes has decide between them;
            `encoding` and `delimiter` say how a text file is read.

    Raises:
        DataError: If there is nothing at the path that can be read, or it may be one thing or another.
    """
    options = options or {}
    try:
        found = _find(path, options)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", option="path", value=path) from error
    fit = [cls for cls in found.classes if options.keys() <= _options(cls)]
    if found.problem and len(fit) != 1:
        raise DataError(found.problem.removeprefix(f"{path}: "), found.remedy, "path", path)
    cls = (fit or found.classes)[0]
    if cls is found.classes[0]:
        return Detection(cls, found.what)
    deciding = next(name for name in options if name not in _options(found.classes[0]))
    return Detection(cls, f"{found.what} ({deciding} is given)")


def _options(cls: type) -> set[str]:
    return {name for base in cls.__mro__[:-1] for name in inspect.signature(base).parameters}


def _find(path: str, options: Mapping[str, Any]) -> _Finding:
    root = Path(path).expanduser()
    if root.is_dir():
        return _find_in_folder(root, options)
    files = find_files(path)
    is_glob = glob.has_magic(path) and not root.exists()
    if is_glob and (kinds := {_kind(file) for file in files[:MOST_NAMES]}) != {_kind(files[0])}:
        problem = f"its files are {' and '.join(sorted(kinds))}"
        raise DataError(problem, "give a glob that matches one kind", "path", path)
    found = _find_in_file(files[0], options)
    return found._replace(what=f"{len(files):,} files, the first of which is {found.what}") if is_glob else found


def _kind(file: Path) -> str:
    """Return what a file is by its name."""
    name = file.name.lower()
    if file.suffix.lower() in EXTENSIONS:
        return "images"
    return "tables" if name.removesuffix(".gz").endswith(TABLES) else "others"


# Folders


def _look_into(root: Path) -> list[Path]:
    """Return the first visible files in a folder and those below it, as paths below it."""
    found: list[Path] = []
    folders = deque([root])
    for _ in range(MOST_FOLDERS):
        if not folders:
            break
        with os.scandir(folder := folders.popleft()) as entries:
            visible = [entry.name for entry in itertools.islice(entries, MOST_NAMES) if not entry.name.startswith(".")]
        for path in sorted(folder / name for name in visible):
            if path.is_dir():
                folders.append(path)
            elif path.is_file():
                found.append(path.relative_to(root))
    return found


def _find_in_folder(root: Path, options: Mapping[str, Any]) -> _Finding:
    if any((root / name).is_file() for name in SAVED):
        return _Finding("a saved data set of images", (HuggingFaceDataModule,))
    kinds: dict[str, list[Path]] = {}
    for file in _look_into(root):
        kinds.setdefault(_kind(file), []).append(file)
    images, tables, others = (kinds.get(kind, []) for kind in ("images", "tables", "others"))
    if not kinds:
        remedy = "give a table, a folder of images by class, or a text"
        raise DataError("this folder is empty", remedy, "path", str(root))
    if images and tables:
        problem = f"it holds images ({images[0]}, ...) as well as tables ({listed([str(file) for file in tables], 2)})"
        remedy = "give `data=ImageFolderDataModule` or `data=CSVDataModule`, or the path of either alone"
        return _Finding("a folder of images and tables", (ImageFolderDataModule, CSVDataModule), problem, remedy)
    if images:
        return _find_images(root, images)
    if tables:
        return _find_tables(root, tables, [file for file in others if file.suffix.lower() in SUFFIXES], options)
    return _find_texts(root, others, options)


def _find_images(root: Path, images: Sequence[Path]) -> _Finding:
    tops = {image.parts[0] for image in images if len(image.parts) > 1}
    deep = {image.parts[0] for image in images if len(image.parts) > 2}
    splits = sorted(top for top in tops & deep if top.lower() in STAGES)
    classes = sorted({image.parts[1] for image in images if image.parts[0] in splits and len(image.parts) > 2})
    classes = classes if splits else sorted(tops)
    if not classes:
        raise DataError("its images have no classes", CLASSES, "path", str(root))
    divided = f", divided into {' and '.join(splits)}" if splits else ""
    return _Finding(f"images by class ({listed(classes, 4)}){divided}", (ImageFolderDataModule,))


def _find_tables(root: Path, tables: list[Path], texts: list[Path], options: Mapping[str, Any]) -> _Finding:
    first = next((file for file in tables if len(file.parts) == 1), None)
    if first is None:
        remedy = f"give them by a glob, as '{root / '**' / ('*' + tables[0].suffix)}'"
        raise DataError(f"its tables are in folders of their own ({tables[0]}, ...)", remedy, "path", str(root))
    if beside := [file for file in texts if len(file.parts) == 1 and _kind(file) == "others"]:
        problem = (
            f"it holds tables ({first}, ...) as well as other texts ({beside[0]}, ...), which would be read as one"
        )
        raise DataError(problem, f"give the tables by a glob, as '{root / ('*' + first.suffix)}'", "path", str(root))
    found = _find_in_file(root / first, options)
    count = sum(len(file.parts) == 1 for file in tables)
    return found._replace(what=f"{found.what}, in {count:,} files" if count > 1 else found.what)


def _find_texts(root: Path, files: Sequence[Path], options: Mapping[str, Any]) -> _Finding:
    """Find out what texts in a folder are."""
    readable = [file for file in files[:20] if _is_text(root / file)]
    if not readable:
        problem = f"there is no table, image or text in it ({listed([str(file) for file in files], 3)})"
        raise DataError(problem, "give a file, or a folder that has some", "path", str(root))
    parts = sorted({file.parts[0] for file in files})
    in_folders = all(len(file.parts) > 1 for file in files)
    if len(parts) > 1 and (in_folders or len({Path(part).stem for part in parts}) == 1):  # reviews.pos and reviews.neg
        where = "folders" if in_folders else "files"
        problem = f"its texts are in {where} ({listed(parts, 3)}), which may be classes, or parts of one running text"
        remedy = "write classes as lines `label<TAB>text` or as a table, or give `data=TextCorpusDataModule`"
        return _Finding(f"running text in {where}", (TextCorpusDataModule, TextCSVDataModule), problem, remedy)
    found = _find_in_file(root / readable[0], options)
    if found.classes[0] is not TextCorpusDataModule and readable[0].suffix.lower() not in SUFFIXES:
        remedy = f"give the files by a glob, as '{root / ('*' + readable[0].suffix)}'"
        raise DataError(
            f"of a folder of {found.what} all names must end in {', '.join(SUFFIXES)}", remedy, "path", str(root)
        )
    return found._replace(what=f"{found.what}, in {len(files):,} files" if len(files) > 1 else found.what)


def _is_text(file: Path) -> bool:
    try:
        find_encoding(file, SAMPLE)
    except DataError:
        return False
    return file.stat().st_size > 0


# Files


def _find_in_file(file: Path, options: Mapping[str, Any]) -> _Finding:
    if _kind(file) == "images":
        raise DataError(f"{file}: one image is nothing to learn from", CLASSES)
    if not file.is_file():
        raise DataError(f"{file}: this is not a regular file")
    if is_parquet(file):
        return _find_in_parquet(file)
    if file.name.lower().removesuffix(".gz").endswith(JSON):
        remedy = "write it as CSV or Parquet, or give `data=TextCorpusDataModule` if it is running text"
        return _Finding(
            "JSON", (TextCorpusDataModule, CSVDataModule, TextCSVDataModule), f"{file}: JSON is not read", remedy
        )
    encoding, text, is_whole = beginning(file, options.get("encoding") or find_encoding(file, SAMPLE))
    lines = text.splitlines()
    if not is_whole and len(lines) > 1:
        lines.pop()  # it may be cut off
    lines = [line for line in lines if line.strip()]
    if not options.keys() & {"delimiter", "quote", "header"} and (found := _find_labels(file, encoding, lines)):
        return found
    is_named = _kind(file) == "tables"
    try:
        columns = _read_columns(file, Dialect(encoding=encoding, delimiter=options.get("delimiter")), text, is_whole)
    except DataError:
        if is_named:
            raise
        columns = {}
    if is_named and len(columns) == 1:
        problem = f"{file}: there is only one column ({next(iter(columns))}), and nothing to predict it from"
        remedy = "give `delimiter`, or `data=TextCorpusDataModule` if it is running text"
        return _Finding("a table of one column", (CSVDataModule, TextCorpusDataModule), problem, remedy)
    if is_named or len(columns) > 1:
        return _find_in_columns(file, columns)
    return _Finding("running text", (TextCorpusDataModule, TextCSVDataModule))


def _find_labels(file: Path, encoding: str, lines: Sequence[str]) -> _Finding | None:
    """Find labeled texts in lines; None if they are something else."""
    form: Form | None = form_of(file, encoding)
    classes = (TextCSVDataModule, TextCorpusDataModule)
    if form == "fine":
        labels = Counter(match[1] for line in lines if (match := FINE.fullmatch(line)))
        return _Finding("lines of LABEL:sub text", classes) if 1 < len(labels) <= len(lines) / 2 else None
    if form not in ("first", "last"):
        return None
    texts = [line.partition("\t")[2] if form == "first" else line.rpartition("\t")[0] for line in lines]
    if is_numeric(texts) or (_kind(file) == "tables" and not is_text("", texts)):
        return None
    what = "lines of label<TAB>text" if form == "first" else "lines of text<TAB>label"
    return _Finding(what, classes)


def _read_columns(file: Path, given: Dialect, text: str, is_whole: bool) -> dict[str, list[str]]:
    """Return the first values of each column; none if this is no table, of a file that is not named as one."""
    dialect = complete(file, given, may_have_one=True)
    assert dialect.delimiter is not None
    assert dialect.quote is not None
    rows = csv.reader(text.splitlines(keepends=True), delimiter=dialect.delimiter, quotechar=dialect.quote)
    try:
        found = [row for row in itertools.islice(rows, ROWS) if row]
    except csv.Error:
        found = []
    found = found[:-1] if len(found) > 2 and not is_whole and len(found) < ROWS else found
    names = header(file, dialect)[0]
    found = found[1:] if dialect.header else found
    alike = [row for row in found if len(row) == len(names)]
    if _kind(file) != "tables":
        numbers = [is_number(cell, str(dialect.decimal)) or cell in MISSING for row in alike for cell in row]
        in_blanks = dialect.delimiter == " " and sum(numbers) < MOSTLY * len(numbers)
        if len(alike) < max(2, MOSTLY * len(found)) or in_blanks:
            return {}
    decimal = str(dialect.decimal)
    columns = {name: [row[at].strip() for row in alike] for at, name in enumerate(names)}
    # Sentences with a comma each are no table.
    if _kind(file) != "tables" and all(mean_words(of) >= FEW_WORDS for of in columns.values()):
        return {}
    return columns if decimal == "." else {name: [c.replace(decimal, ".") for c in of] for name, of in columns.items()}


def _find_in_parquet(file: Path) -> _Finding:
    schema: pa.Schema = read_parquet(file, lambda parquet: parquet.schema_arrow)
    if any(pa.types.is_struct(field.type) or pa.types.is_binary(field.type) for field in schema):
        return _Finding("a table of images", (HuggingFaceDataModule,))
    batch = read_parquet(file, lambda parquet: next(parquet.iter_batches(ROWS), None))
    rows = [] if batch is None else batch.to_pylist()
    columns = {name: ["" if row[name] is None else str(row[name]) for row in rows] for name in schema.names}
    return _find_in_columns(file, columns)


# Columns


def _find_in_columns(file: Path, columns: Mapping[str, Sequence[str]]) -> _Finding:
    """Tell a table from one of labeled texts by what its columns hold."""
    table = f"a table of {len(columns)} columns"
    texts = [name for name, cells in columns.items() if is_text(name, cells)]
    if not texts:
        return _Finding(table, (CSVDataModule, TextCSVDataModule))
    keys = [name for name, cells in columns.items() if is_identifier(name, cells)]
    others = [name for name in columns if name not in (*texts, *keys)]
    text = choose_text(file, {name: columns[name] for name in texts})
    rest = [name for name in columns if name != text and name not in keys]
    label = rest[0] if rest == others and len(rest) == 1 else None
    label = next((name for known in LABEL_NAMES for name in rest if name.lower() == known), label)
    fine = [name for name in others if name.lower() == FINE_LABEL]
    numbers = [name for name in others if name not in (label, *fine) and is_numeric(columns[name])]
    both = (CSVDataModule, TextCSVDataModule)
    if numbers:
        return _Finding(f"{table}, numbers ({listed(numbers, 2)}) beside the text in {listed(texts, 2)}", both)
    if text is not None and label is not None:
        return _Finding(f"labeled text, a table with texts in {text} and labels in {label}", both[::-1])
    remedy = "give `data=TextCSVDataModule` with `label_column`, or `data=CSVDataModule` with `target`"
    if not others:
        problem = f"{file}: it has only text ({listed(texts, 4)}), and no column of labels or numbers to predict"
        remedy = f"add one, or {remedy}"
    else:
        what = f"{listed(texts, 2)} holds texts" if len(texts) == 1 else f"{listed(texts, 4)} hold texts"
        problem = f"{file}: it may be labeled text or a table: {what}, and {listed(others, 4)} may be labels"
    return _Finding(table, both, problem, remedy)
