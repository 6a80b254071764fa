"""A user's plain text: its tokens, its options, and its state."""

from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules import DataError, TextCorpusDataModule
from datamodules.text.tokenizer import UNKNOWN
from tests.helpers.texts import CORPUS, corpus, corpus_state, decoded, loaded_corpus


def test_the_vocabulary_is_that_of_the_training_part(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "t.txt"
    file.write_text("ab\n" * 300 + "a€b" * 30 + "ab" * 60)
    data = corpus(str(file), val_fraction=0.1, test_fraction=0.1)
    data.setup("fit")
    assert data.vocab_size == data.num_outputs == 5  # two that are no characters, and a, b and a new line
    out = "\n".join(caplog.messages)
    assert out.startswith(f"{file}: 1,110 characters are 1,110 tokens (chars, a vocabulary of 5), 1.00 characters per")
    assert "the text to validate on: 30 of 100 characters are not in the vocabulary ('€')" in out
    assert "train on" not in out


def test_rare_characters_give_way_to_a_limit(path: str, caplog: pytest.LogCaptureFixture) -> None:
    data = corpus(path, vocab_size=20)
    data.setup("fit")
    assert data.vocab_size == 20
    assert "the text to train on: " in caplog.text
    batches = list(data.train_dataloader())
    assert any((x == UNKNOWN).any() for x, _ in batches)
    assert not any((y == UNKNOWN).any() for _, y in batches)


def test_a_cache_that_cannot_be_is_logged_once(path: str, caplog: pytest.LogCaptureFixture) -> None:
    data = corpus(path, cache_dir=f"{path}/cache")
    data.setup("fit")
    assert len(list(data.train_dataloader())) > 0
    assert caplog.text.count("nothing can be kept there") == 1


def test_the_lengths_of_tokens_add_up_to_the_text(path: str) -> None:
    data = corpus(path, tokenizer="bpe", vocab_size=280)
    lengths = data.statistics["token_lengths"]
    assert lengths.shape == (data.vocab_size,)
    text = CORPUS[:500]
    assert int(lengths[data.encode(text)].sum()) == len(text)


def test_the_embedded_text_needs_nothing(tmp_path: Path) -> None:
    data = TextCorpusDataModule(cache_dir=str(tmp_path))
    data.setup("fit")
    assert data.task == "next_token"
    assert data.class_names is None
    x, y = next(iter(data.train_dataloader()))
    assert x.shape == y.shape == (32, 128)
    assert "assert" in data.files.text[:100]
    assert 50 < data.vocab_size < 500


def test_texts_become_tokens_and_back(path: str) -> None:
    data = corpus(path)
    text = "a horse,\n  <unk>42"
    ids = data.encode(text)
    assert ids.dtype == torch.int64
    assert data.decode(torch.stack([ids, ids])) == {"prediction": [text, text]}
    assert data.encode(ids).equal(ids)
    assert data.default_prompt == "\n"
    with pytest.raises(DataError, match="'a € b': '€' is not in the text that the model was trained on"):
        data.encode("a € b")
    with pytest.raises(DataError, match="an empty text"):
        data.encode("")
    some = "äöü€ 日本語\n"
    assert decoded(data, corpus(path, tokenizer="bpe").encode(some).tolist()) != some
    bpe = corpus(path, tokenizer="bpe")
    assert decoded(bpe, bpe.encode(some).tolist()) == some


def test_a_text_of_one_line_has_a_prompt_too(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("abbb" * 100)
    assert corpus(str(tmp_path / "t.txt")).default_prompt == "b"


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ({"tokenizer": "words"}, "tokenizer='words': give chars or bpe"),
        ({"tokenizer": "jieba.lcut"}, "tokenizer='jieba.lcut': give chars or bpe"),
        ({"context_length": 0}, "context_length=0: give a number of tokens, 1 or more"),
        ({"balance": "weights"}, "balance='weights': only classes can be balanced"),
        ({"num_folds": 3}, "num_folds=3: a text is divided by position"),
        ({"vocab_size": 2}, "vocab_size=2: chars need at least 3"),
        ({"tokenizer": "bpe", "vocab_size": 100}, "vocab_size=100: bpe need at least 258"),
        ({"vocab_size": 10}, "to train on, .* are not in the vocabulary .*; give a larger `vocab_size`"),
        ({"context_length": 20_000}, "context_length=20000: to train on, .* has .* characters in .* tokens"),
        ({"context_length": 3000}, "context_length=3000: to validate on"),
        ({"test_fraction": 0.0005}, "context_length=16: to test on"),
        ({"encoding": "ascii"}, "byte 0xc3 at offset .* is not ascii"),
    ],
)
def test_what_is_impossible_is_one_line(path: str, options: dict[str, Any], answer: str) -> None:
    with pytest.raises(DataError, match=answer) as caught:
        corpus(path, **options).setup("fit")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["chars", "bpe"])
def test_a_checkpoint_keeps_the_tokens(path: str, tmp_path: Path, kind: str) -> None:
    torch.save(corpus_state(path, tokenizer=kind), tmp_path / "state.ckpt")
    state = torch.load(tmp_path / "state.ckpt", weights_only=True)
    (tmp_path / "new.txt").write_text("sale! sale €" * 9)
    data = loaded_corpus(str(tmp_path / "new.txt"), state, tokenizer=kind)
    old = corpus(path, tokenizer=kind)
    assert data.vocab_size == old.vocab_size
    assert data.encode("a horse").equal(old.encode("a horse"))
    assert data.statistics["token_lengths"].equal(old.statistics["token_lengths"])


def test_a_text_that_can_hardly_be_read_is_not_trained_on(path: str, tmp_path: Path) -> None:
    state = corpus_state(path)
    (tmp_path / "new.txt").write_text("ж" * 990 + "the king\n" * 90, encoding="utf-8")
    before, after = (corpus(str(tmp_path / "new.txt")) for _ in range(2))
    before.load_state_dict(state)
    after.setup("fit")  # as Lightning does: the checkpoint comes after
    after.load_state_dict(state)
    answer = (
        r"new\.txt': to train on, 990 of 1,458 characters are not in the vocabulary \('ж'\); train anew without "
        "`ckpt_path`, or use `tokenizer='bpe'`"
    )
    with pytest.raises(DataError, match=answer):
        before.setup("fit")
    with pytest.raises(DataError, match=answer):
        after.train_dataloader()
    assert before.val_dataloader()


@pytest.mark.parametrize("options", [{"tokenizer": "bpe"}, {"vocab_size": 50}, {"context_length": 8}])
def test_other_tokens_than_those_that_were_learned_are_refused(path: str, options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="this model was trained with"):
        loaded_corpus(path, corpus_state(path), **options)
