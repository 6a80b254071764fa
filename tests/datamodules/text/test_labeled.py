"""Labeled texts: batches, what is logged, encoding, and the state of a trained model."""

import csv
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules import DataError, TextCSVDataModule
from datamodules.base import Stage
from datamodules.text.subwords import subword_hashes
from datamodules.text.tokenizer import PAD, UNKNOWN
from lit_models import LitTextClassifier
from tests.helpers.front_door import Run
from tests.helpers.texts import Make, lines, loaded, rows, split
from tests.helpers.trainers import quiet_trainer


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


def test_a_long_text_is_truncated(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    data = make(max_length=4)
    data.setup("fit")
    assert {x.shape[1] for x, _ in data.train_dataloader()} <= {3, 4}
    cut = sum(len(text.split()) > 4 for _, text in rows())
    assert f"{cut} of 90 texts have more than max_length=4 tokens, and are truncated\n" in caplog.text
    assert len(data.encode("a b c d e f")) == 4


@pytest.mark.parametrize("tokenizer", ["words", "chars", "bpe", "shlex.split"])
def test_every_tokenizer_feeds_the_same_rows(make: Make, tokenizer: str) -> None:
    data = make(tokenizer=tokenizer)
    data.setup("fit")
    found = {"".join(text.split()) for text in split(data, "train")}
    assert found <= {"".join(text.lower().split()) for _, text in rows()}
    assert len(found) == 65


def test_texts_need_not_be_lowercased(make: Make) -> None:
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
    assert data.statistics.keys() == {"subwords", "target_mean", "target_std"}
    torch.testing.assert_close(data.statistics["target_mean"], samples.y[indices].mean())
    assert make().statistics.keys() == {"subwords"}


def test_statistics_have_the_subwords_of_each_token(make: Make) -> None:
    data = make(min_count=1)
    subwords = data.statistics["subwords"]
    assert len(subwords) == data.vocab_size
    assert not subwords[:2].any(), "padding and the unknown have none"
    assert subwords.equal(subword_hashes(data.tokenizer.tokens))


def test_folds_and_balance_are_those_of_the_base(make: Make) -> None:
    held_out = [text for fold in range(3) for text in split(make(num_folds=3, fold=fold, min_count=1), "test")]
    assert len(held_out) == 90
    counts = make(balance="downsample").splits["train"]
    assert counts.samples.y[counts.indices].bincount().tolist() == [22, 22]


def test_what_is_learned_is_logged_before_training(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    data = make(min_count=2)
    data.setup("fit")
    held_out = sorted(split(data, "val"))
    # Each text has one word of its own; what is not known leaves nothing behind.
    share = len(held_out) / sum(len(text.split()) + 1 for text in held_out)
    assert caplog.messages[-1].splitlines() == [
        "label is predicted as one of bad, good from text (binary, inferred)",
        f"vocabulary: 4 words of 65 training texts; {share:.1%} of the words of the validation texts are out of it",
    ]


def test_texts_without_known_words_are_counted(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    data = make("good\tlove it\nbad\thate it\n" * 20 + "bad\txyzzy\n", min_count=2)
    data.setup("fit")
    assert "1 of 41 texts have no known token" in caplog.text


def test_a_class_without_training_texts_is_logged(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    data = make(lines(rows(30)) + "rare\tone\nrare\ttwo\n", val_fraction=0.5, test_fraction=0.4)
    data.setup("fit")
    samples, indices = data.splits["train"]
    assert 2 not in samples.y[indices].tolist()
    assert "no text of rare is left to train on; there are too few of them\n" in caplog.text


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


def test_the_state_is_primitives(state: dict[str, Any], workdir: Path) -> None:
    torch.save(state, workdir / "state.pt")
    found = torch.load(workdir / "state.pt", weights_only=True)
    torch.testing.assert_close(found.pop("statistics"), state.pop("statistics"))
    assert found == state


@pytest.mark.parametrize(
    ("name", "value"),
    [("tokenizer", "bpe"), ("lowercase", False), ("vocab_size", 50), ("min_count", 3), ("max_length", 20)],
)
def test_texts_are_tokenized_as_in_training(state: dict[str, Any], name: str, value: object) -> None:
    with pytest.raises(DataError, match=f"{name}={value!r}: this model was trained with .*; give the same, or tra"):
        loaded(state, "texts.txt", **{name: value})


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
def test_missing_columns_are_explained_by_the_training(
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
    capsys.readouterr()
    run(f"predict --ckpt_path {TRAINED} --data.path other.txt")
    assert "other.txt is not UTF-8, and read as cp1252, as detected ('s\u00e9')" in capsys.readouterr().out
    said = _refused(run, f"predict --ckpt_path {TRAINED} --data.path other.txt --data.encoding ascii", capsys)
    assert "is not ascii; give --data.encoding" in said


def test_a_state_imports_no_function_that_the_constructor_does_not_name(
    state: dict[str, Any], workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workdir / "their_tokens.py").write_text("def cut(text):\n    return text.split()\n")
    monkeypatch.syspath_prepend(str(workdir))
    named = {**state, "tokenizing": {**state["tokenizing"], "tokenizer": "their_tokens.cut"}}
    with pytest.raises(DataError, match=r"tokenizer='words': this model was trained with their_tokens.cut"):
        loaded(named, "texts.txt")
    hidden = {key: value for key, value in named["tokenizing"].items() if key != "tokenizer"}
    assert loaded({**named, "tokenizing": hidden}, "texts.txt").tokenizer.kind == "words"
    assert "their_tokens" not in sys.modules
    assert loaded(named, "texts.txt", tokenizer="their_tokens.cut").tokenizer.kind == "their_tokens.cut"


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
    assert "it names my_tokens.cut, which would be imported here; give --data.tokenizer my_tokens.cut" in said
    with pytest.raises(DataError, match=r"tokenizer='my_tokens.cut': the checkpoint names this function"):
        TextCSVDataModule.load_from_checkpoint(TRAINED)
    assert "my_tokens" not in sys.modules
    data = TextCSVDataModule.load_from_checkpoint(TRAINED, tokenizer="my_tokens.cut")
    assert data.encode("Love it so much").tolist() == run(given.strip()).datamodule.encode("Love it so much").tolist()


@pytest.mark.parametrize("named", [{}, {"tokenizer": "chars"}])
def test_a_tokenizer_of_our_own_need_not_be_named_again(run: Run, make: Make, named: dict[str, str]) -> None:
    make()
    _train(run, "--data.tokenizer chars")
    assert TextCSVDataModule.load_from_checkpoint(TRAINED, **named).tokenizer.kind == "chars"
