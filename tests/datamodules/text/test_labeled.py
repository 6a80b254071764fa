"""Texts of one's own with labels: what is learned from them, and how a trained model meets others."""

import csv
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from datamodules import DataError, TextCSVDataModule
from datamodules.base import Stage
from datamodules.text.tokenizer import PAD, UNKNOWN
from lit_models import LitTextClassifier
from tests.helpers.front_door import Run
from tests.helpers.trainers import quiet_trainer

Row = tuple[str, str]
Make = Callable[..., TextCSVDataModule]


def rows(size: int = 90) -> list[Row]:
    """Labels and texts of 3 to 14 words; the first word tells the class, the second the row."""
    return [
        ("good" if i % 3 else "bad", f"{'Love' if i % 3 else 'Hate'} row{i:03} {'so ' * (i % 12)}much")
        for i in range(size)
    ]


def lines(of: Iterable[Row]) -> str:
    return "".join(f"{label}\t{text}\n" for label, text in of)


@pytest.fixture
def make(workdir: Path) -> Make:
    """Make the data of a file."""

    def data(content: str | bytes | None = None, name: str = "texts.txt", **options: Any) -> TextCSVDataModule:
        content = lines(rows()) if content is None else content
        (workdir / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return TextCSVDataModule(name, **{"min_count": 1, **options})

    return data


def texts(data: TextCSVDataModule, batches: Iterable[Any]) -> list[str]:
    """What stands in some batches."""
    x = [batch if isinstance(batch, Tensor) else batch[0] for batch in batches]
    return [data.tokenizer.decode(row[row != PAD].tolist()) for batch in x for row in batch]


def split(data: TextCSVDataModule, stage: Stage) -> list[str]:
    samples, indices = data.splits[stage]
    return texts(data, [samples[indices]])


# Batches


def test_a_batch_is_token_ids_and_classes(make: Make) -> None:
    data = make(lines([("b", "x y z"), ("a", "x"), ("b", "z z"), ("a", "y x")]), val_fraction=0, test_fraction=0)
    assert (data.task, data.num_outputs, data.class_names) == ("binary", 1, ["a", "b"])
    assert data.vocab_size == 5
    x, y = data.splits["train"].samples[torch.arange(4)]
    ids = {word: int(data.encode(word)[0]) for word in "xyz"}
    assert x.tolist() == [
        [ids["x"], ids["y"], ids["z"]],
        [ids["x"], 0, 0],
        [ids["z"]] * 2 + [0],
        [ids["y"], ids["x"], 0],
    ]
    assert x.dtype == y.dtype == torch.int64
    assert y.tolist() == [1, 0, 1, 0]


def test_every_text_is_in_one_of_the_splits_with_its_label(make: Make) -> None:
    data = make(test_fraction=0.2, val_fraction=0.25)
    found = {stage: split(data, stage) for stage in data.splits}
    assert [len(found[stage]) for stage in ("train", "val", "test")] == [54, 18, 18]
    for stage, (samples, indices) in data.splits.items():
        first = ["love" if label else "hate" for label in samples.y[indices].tolist()]
        assert first == [text.split()[0] for text in found[stage]]
        assert first.count("hate") == len(first) / 3, "stratified"


def test_epochs_and_evaluation_take_every_text_once_in_batches_of_similar_length(make: Make) -> None:
    data = make(lines(rows(900)), batch_size=16, val_fraction=0.5)
    loaders: dict[Stage, Iterable[Any]] = {"train": data.train_dataloader(), "val": data.val_dataloader()[0]}
    for stage, loader in loaders.items():
        batches = list(loader)
        assert len(torch.cat([y for _, y in batches])) == data.splits[stage].size
        padding = sum(int((x == PAD).sum()) for x, _ in batches) / sum(x.numel() for x, _ in batches)
        assert padding < (0.05 if stage == "train" else 0.2), "by chance it is about 0.4"


def test_only_the_training_texts_make_the_vocabulary(make: Make) -> None:
    data = make()
    for stage in ("train", "val", "test"):
        samples, indices = data.splits[stage]
        known = samples.x.index_select(0, indices)[:, 1] != UNKNOWN
        assert known.all() if stage == "train" else not known.any()


def test_a_long_text_loses_its_end(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    data = make(max_length=4)
    data.setup("fit")
    assert {x.shape[1] for x, _ in data.train_dataloader()} <= {3, 4}
    cut = sum(len(text.split()) > 4 for _, text in rows())
    assert (
        f"{cut} of 90 texts have more than --data.max_length 4 tokens, and are cut there\n" in capsys.readouterr().out
    )
    assert len(data.encode("a b c d e f")) == 4


@pytest.mark.parametrize("tokenizer", ["words", "chars", "bpe", "shlex.split"])
def test_every_tokenizer_feeds_the_same_rows(make: Make, tokenizer: str) -> None:
    data = make(tokenizer=tokenizer)
    data.setup("fit")
    found = {"".join(text.split()) for text in split(data, "train")}
    assert found <= {"".join(text.lower().split()) for _, text in rows()}
    assert len(found) == 65


def test_capitals_stay_if_asked(make: Make) -> None:
    assert all("Love" in text or "Hate" in text for text in split(make(lowercase=False), "train"))


def test_workers_make_the_same_batches(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    alone, workers = make(), make(num_workers=2)
    for (x, y), (same_x, same_y) in zip(alone.train_dataloader(), workers.train_dataloader(), strict=True):
        assert x.equal(same_x)
        assert y.equal(same_y)
    assert "fork" not in "".join(capfd.readouterr()), "the tokenizer has done its work before"


def test_a_regression_has_statistics_of_its_target(make: Make) -> None:
    data = make("".join(f"{i / 7:.4f}\tword{i}\n" for i in range(60)), val_fraction=0)
    assert (data.task, data.num_outputs, data.class_names) == ("regression", 1, None)
    samples, indices = data.splits["train"]
    assert data.statistics.keys() == {"target_mean", "target_std"}
    torch.testing.assert_close(data.statistics["target_mean"], samples.y[indices].mean())
    assert make().statistics == {}


def test_what_was_given_apart_is_used_so(make: Make, workdir: Path) -> None:
    (workdir / "val.csv").write_text("label,text\ngood,love v\n")
    (workdir / "test.txt").write_text("BAD:x hate t\n".replace("BAD", "bad"))
    data = make(val_path="val.csv", test_path="test.txt")
    assert split(data, "val") == ["love"], "what validation alone has is not known"
    assert split(data, "test") == ["hate"]
    assert len(split(data, "train")) == 90


def test_folds_and_balance_are_those_of_the_base(make: Make) -> None:
    held_out = [text for fold in range(3) for text in split(make(num_folds=3, fold=fold, min_count=1), "test")]
    assert len(held_out) == 90
    counts = make(balance="downsample").splits["train"]
    assert counts.samples.y[counts.indices].bincount().tolist() == [22, 22]


# Formats


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


# What is said


def test_what_is_learned_is_said_before_training(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    data = make(min_count=2)
    data.setup("fit")
    held_out = sorted(split(data, "val"))
    # Each text has one word of its own; what is not known leaves nothing behind.
    share = len(held_out) / sum(len(text.split()) + 1 for text in held_out)
    assert capsys.readouterr().out.splitlines() == [
        "label is predicted as one of bad, good from text (binary; --data.task overrules)",
        f"4 words are known from 65 training texts; {share:.1%} of the words of validation are not among them",
    ]


def test_rows_without_text_or_label_are_left_out_and_counted(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    data = make("text,label\n" + "a b,x\nc,y\n" * 20 + ",x\nd,\n ,\n", "t.csv")
    assert sum(split.size for split in data.splits.values()) == 40
    assert (
        "t.csv: 3 rows without text or label are left out; the first is t.csv, line 42: '' in column text\n"
        in capsys.readouterr().out
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


def test_texts_of_only_unknown_words_are_counted(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    data = make("good\tlove it\nbad\thate it\n" * 20 + "bad\txyzzy\n", min_count=2)
    data.setup("fit")
    assert "1 of 41 texts have nothing in them that is known" in capsys.readouterr().out


def test_a_class_of_which_nothing_is_left_to_train_on_is_said(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    data = make(lines(rows(30)) + "rare\tone\nrare\ttwo\n", val_fraction=0.5, test_fraction=0.4)
    data.setup("fit")
    samples, indices = data.splits["train"]
    assert 2 not in samples.y[indices].tolist()
    assert "no text of rare is left to train on; there are too few of them\n" in capsys.readouterr().out


# Encoding


def test_a_text_is_encoded_as_in_its_batch(make: Make) -> None:
    data = make()
    assert split(data, "train")[0] == data.tokenizer.decode(data.encode(split(data, "train")[0]).tolist())
    assert data.encode("").tolist() == data.encode("zzz").tolist() == [UNKNOWN]
    ids = data.encode("love it so")
    assert data.encode(ids).equal(ids)
    assert data.encode(ids.tolist()).equal(ids)


@pytest.mark.parametrize("raw", [None, 1.5, torch.ones(2), [], [[2, 3]], ["love"], [-1], [10**6]])
def test_what_is_no_text_is_refused(make: Make, raw: object) -> None:
    with pytest.raises(DataError, match=r"TextCSVDataModule: (an input is a text|token ids are from 0 to)"):
        make().encode(raw)


# What is wrong is one line


BAD: dict[str, tuple[str | bytes, dict[str, Any], str]] = {
    "empty file": ("", {}, "texts.txt: the file is empty"),
    "no path": (lines(rows()), {"path": ""}, "--data.path: give the table"),
    "missing file": (lines(rows()), {"path": "text.txt"}, "there is no such file; did you mean texts.txt?"),
    "only texts": ("love\nhate it\n" * 20, {}, "its lines are neither label<TAB>text nor LABEL:sub text"),
    "text as label": (lines(rows()), {"label_column": "text"}, "--data.label_column text: these are the texts"),
    "both the same": (lines(rows()), {"label_column": "text", "text_column": "text"}, "text: these are the texts"),
    "no such text": (lines(rows()), {"text_column": "txt"}, "--data.text_column txt: texts.txt: there is no column"),
    "no such label": (lines(rows()), {"label_column": "lable"}, "no column 'lable'; did you mean 'label'?"),
    "one class": ("good\ta\ngood\tb\n", {}, "the target is the same in every row; give another --data.label_column"),
    "class of one": (
        lines(rows()) + "odd\tx\n",
        {},
        "texts.txt, line 91: 'odd' in column label is the only row of its",
    ),
    "all texts empty": ("good\t\nbad\t \n" * 9, {}, "texts.txt: no row has anything in the column 'text'"),
    "all labels empty": ("text,label\n" + "a b,\n" * 9, {}, "texts.txt: no row has anything in the column 'label'"),
    "never both": ("text,label\n" + "a b,\n,x\n,y\n" * 9, {}, "texts.txt: no row has both text and label"),
    "words as numbers": (lines(rows()), {"task": "regression"}, "line 1: 'bad' in column label is no number"),
    "wrong encoding": (lines(rows()).encode() + b"bad\t\xe9\n", {}, "line 91: byte 0xe9 at offset 3385 is not utf-8"),
    "unknown encoding": (lines(rows()), {"encoding": "klingon"}, "--data.encoding klingon: Python knows no such"),
    "binary": (bytes(range(256)), {}, "texts.txt: this is no text (a NUL byte in line 1)"),
    "unknown tokenizer": (lines(rows()), {"tokenizer": "wordz"}, "--data.tokenizer wordz: there is no such kind"),
    "no room": (lines(rows()), {"vocab_size": 2}, "--data.vocab_size 2"),
    "no length": (lines(rows()), {"max_length": 0}, "--data.max_length 0: give 1 or more"),
    "no count": (lines(rows()), {"min_count": 0}, "--data.min_count 0: give 1 or more"),
    "nothing often": (
        lines(rows()),
        {"min_count": 999},
        "--data.min_count 999: in 65 training texts no token is seen so",
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
    message = "other.txt, line 2: 'odd' in column label is none of the classes that were learned (bad, good)"
    with pytest.raises(DataError) as error:
        make(**{f"{stage}_path": "other.txt"}).setup("fit")
    assert message in str(error.value)


def test_a_column_of_lists_is_no_text(make: Make, workdir: Path) -> None:
    pq.write_table(pa.table({"text": [["a"], ["b"]] * 9, "label": ["x", "y"] * 9}), workdir / "t.parquet")
    with pytest.raises(DataError, match=r"column text holds no text \(list<.*give another --data.text_column"):
        TextCSVDataModule("t.parquet", text_column="text").setup("fit")


# A trained model


def loaded(state: dict[str, Any], path: str, **options: Any) -> TextCSVDataModule:
    data = TextCSVDataModule(path, **{"min_count": 1, **options})
    data.load_state_dict(state)
    return data


@pytest.fixture
def state(make: Make) -> dict[str, Any]:
    """What a checkpoint keeps of texts in lines."""
    data = make()
    data.setup("fit")
    return data.state_dict()


def test_the_state_is_primitives(state: dict[str, Any], workdir: Path) -> None:
    torch.save(state, workdir / "state.pt")
    assert torch.load(workdir / "state.pt", weights_only=True) == state


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


def test_predicting_says_what_is_unknown_or_cut(
    state: dict[str, Any], workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workdir / "new.txt").write_text("so " * 300 + "\nzzz\n")
    loaded(state, "new.txt").predict_dataloader()
    assert capsys.readouterr().out.splitlines() == [
        "new.txt: each of its 2 lines is taken for a text",
        "new.txt: 1 of 2 texts have more than --data.max_length 256 tokens, and are cut there",
        "new.txt: 1 of 2 texts have nothing in them that is known",
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
        ("text,label\nlove,good\nlove,odd\n", "new.csv, line 3: 'odd' in column label is none of the classes"),
        ("text,stars\nlove,good\n", "name yours by --data.label_column: there is no column 'label', only text, stars"),
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
        ("id,txt\n1,love\n", "name yours by --data.text_column: there is no column 'text'; did you mean 'txt'?"),
        ("text,label\n,good\n", "new.csv: no row has anything in the column 'text'"),
        ("", "new.csv: the file is empty"),
    ],
)
def test_what_cannot_be_predicted_is_one_line(state: dict[str, Any], workdir: Path, content: str, message: str) -> None:
    (workdir / "new.csv").write_text(content)
    with pytest.raises(DataError) as error:
        loaded(state, "new.csv").predict_dataloader()
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("tokenizer", "bpe"), ("lowercase", False), ("vocab_size", 50), ("min_count", 3), ("max_length", 20)],
)
def test_texts_are_taken_apart_as_in_training(state: dict[str, Any], name: str, value: object) -> None:
    with pytest.raises(
        DataError, match=f"--data.{name} {value}: this model was trained with .*; give the same, or tra"
    ):
        loaded(state, "texts.txt", **{name: value})


@pytest.mark.parametrize("header", [False, None])
def test_columns_without_names_are_found_again(make: Make, workdir: Path, header: bool | None) -> None:
    table = "".join(f"{text},{len(label)}\n" for label, text in rows())
    data = make(table, "t.csv", header=False)
    assert (data.source_column, data.target_column) == ("x1", "y")
    (workdir / "new.csv").write_text("love it\nhate it\n")
    new = loaded(data.state_dict(), "new.csv", header=False)
    assert sum(map(len, new.predict_dataloader()[0])) == 2


def test_a_model_goes_on_with_its_own_vocabulary(make: Make, tmp_path: Path) -> None:
    data = make()
    model = LitTextClassifier(vocab_size=data.vocab_size, task="binary", num_outputs=1)
    trainer = quiet_trainer()
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    size = data.vocab_size
    other = make(lines(rows(300)), "more.txt")
    quiet_trainer(max_epochs=2).fit(model, other, ckpt_path=tmp_path / "model.ckpt")
    assert other.vocab_size == size
    assert other.splits["train"].size == 216


def test_texts_go_through_the_front_door(run: Run, workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workdir / "texts.txt").write_text(lines(rows()))
    what = "--model LitTextClassifier --data TextCSVDataModule --data.path texts.txt"
    run(f"{what} --data.batch_size 8 --max_epochs 8 --model.lr 0.01")
    checkpoint = "runs/LitTextClassifier-TextCSVDataModule/version_0/checkpoints/best.ckpt"
    assert "label is predicted as one of bad, good from text" in capsys.readouterr().out
    (workdir / "new.txt").write_text('Hate row1 much\n\nLove "it", so much\n')
    run(f"predict --ckpt_path {checkpoint} --data.path new.txt")
    with (workdir / "predictions.csv").open() as file:
        found = list(csv.DictReader(file))
    assert [row["text"] for row in found] == ["Hate row1 much", "", 'Love "it", so much']
    assert [found[0]["prediction"], found[2]["prediction"]] == ["bad", "good"]
    assert found[0].keys() == {"text", "prediction", "probability_bad", "probability_good"}
    run(f"test --ckpt_path {checkpoint}")


TRAINED = "runs/LitTextClassifier-TextCSVDataModule/version_0/checkpoints/best.ckpt"


def _train(run: Run, flags: str) -> None:
    run(f"--model LitTextClassifier --data TextCSVDataModule --data.path texts.txt --max_epochs 1 {flags}")


def _refused(run: Run, line: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run(line)
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("command", ["predict", "test"])
def test_columns_that_nobody_named_are_said_to_be_those_of_the_training(
    run: Run, make: Make, workdir: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    make()
    _train(run, "")
    (workdir / "new.csv").write_text("review,kind\nLove it so much,good\nHate it,bad\n")
    line = f"{command} --ckpt_path {TRAINED} --data.path new.csv"
    said = _refused(run, line, capsys)
    assert "new.csv: this model was trained on the column text; name yours by --data.text_column: there is no" in said
    assert "--data.text_column revi: new.csv: there is no" in _refused(run, f"{line} --data.text_column revi", capsys)
    if command == "test":
        said = _refused(run, f"{line} --data.text_column review", capsys)
        assert "new.csv: this model was trained on the column label; name yours by --data.label_column:" in said
        line += " --data.label_column kind"
    run(f"{line} --data.text_column review")


def test_an_encoding_is_that_of_one_file(
    run: Run, make: Make, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = lines(rows()).replace("so ", "s\u00e9 ")
    make(content.encode("latin-1"), encoding="latin-1")
    (workdir / "other.txt").write_bytes(content.encode("latin-1"))
    _train(run, "--data.encoding latin-1 --data.test_path other.txt")
    assert run(f"test --ckpt_path {TRAINED}").datamodule.hparams["encoding"] == "latin-1"
    assert run(f"test --ckpt_path {TRAINED} --data.path ./texts.txt").datamodule.hparams["encoding"] == "latin-1"
    (workdir / "new.txt").write_bytes("good\tLove s\u00e9\nbad\tHate caf\u00e9\n".encode())
    run(f"test --ckpt_path {TRAINED} --data.path new.txt")
    run(f"predict --ckpt_path {TRAINED} --data.path new.txt")
    assert "caf\u00e9" in Path("predictions.csv").read_text(encoding="utf-8")
    said = _refused(run, f"predict --ckpt_path {TRAINED} --data.path other.txt", capsys)
    assert "is not utf-8; give --data.encoding" in said
    run(f"predict --ckpt_path {TRAINED} --data.path other.txt --data.encoding latin-1")


def test_a_function_in_a_checkpoint_is_not_run_unless_it_is_named(
    run: Run, make: Make, workdir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    (workdir / "my_tokens.py").write_text("def cut(text):\n    return text.split()\n")
    monkeypatch.syspath_prepend(str(workdir))
    _train(run, "--data.tokenizer my_tokens.cut")
    given = f"predict --ckpt_path {TRAINED} --data.tokenizer my_tokens.cut\n"
    assert given in capsys.readouterr().out
    monkeypatch.delitem(sys.modules, "my_tokens")
    said = _refused(run, f"predict --ckpt_path {TRAINED}", capsys)
    assert "taken apart by the function my_tokens.cut, which would be run here; give --data.tokenizer" in said
    assert "my_tokens" not in sys.modules
    run(given.strip())
