"""A running text of one's own."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules import DataError, TextCorpusDataModule
from datamodules.base import Stage
from datamodules.text.tokenizer import UNKNOWN, Tokenizer
from datamodules.text.windows import IGNORED

WORDS = ("the king", "a horse,", "my kingdom", "is", "not\n  for", "sale!\n", "äöü", "42", "<unk>")
TEXT = " ".join(WORDS[number * number % 7 % len(WORDS)] for number in range(1200)) + "".join(WORDS)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A text of about ten thousand characters."""
    file = tmp_path / "text.txt"
    file.write_text(TEXT + TEXT[::-1], encoding="utf-8")
    return str(file)


def _data(path: str, **options: Any) -> TextCorpusDataModule:
    defaults: dict[str, Any] = {"context_length": 16, "batch_size": 4, "cache_dir": str(Path(path).parent / "cache")}
    return TextCorpusDataModule(path, **{**defaults, **options})


def _predicted(data: TextCorpusDataModule, stage: Stage) -> list[int]:
    (loader,) = data.val_dataloader() if stage == "val" else data.test_dataloader()
    return [token for _, y in loader for token in y[y != IGNORED].tolist()]


def _text(data: TextCorpusDataModule, ids: list[int]) -> str:
    text: str = data.decode(torch.tensor([ids]))["prediction"][0]
    return text


@pytest.mark.parametrize("options", [{}, {"tokenizer": "bpe", "vocab_size": 300}], ids=["chars", "bpe"])
def test_every_token_but_the_first_is_evaluated_once(path: str, options: dict[str, Any]) -> None:
    data, whole = _data(path, **options), TEXT + TEXT[::-1]
    test = int(len(whole) * 0.9)
    val = int(test * 0.9)
    parts: dict[Stage, str] = {"val": whole[val:test], "test": whole[test:]}
    for stage, text in parts.items():
        ids = _predicted(data, stage)
        assert text.endswith(_text(data, ids))
        assert len(ids) == len(data.encode(text)) - 1


def test_an_epoch_takes_every_stretch_once_shifted_by_its_own_number(path: str) -> None:
    data = _data(path)
    loader = data.train_dataloader()
    tokens = data._parts["train"].tokens
    offsets, orders = set(), set()
    for epoch in range(8):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]  # it is a BatchSampler
        starts = torch.cat(list(loader.sampler))
        offset = int(starts.min())
        assert 0 <= offset < 16
        assert starts.sort().values.tolist() == list(range(offset, offset + 16 * len(starts), 16))
        assert len(tokens) - 1 - (offset + 16 * len(starts)) < 16  # no whole stretch is left out
        offsets.add(offset)
        orders.add(tuple((starts - offset).tolist()))
        for x, y in loader:
            assert x.shape == y.shape
            assert x.shape[1] == 16
            assert y[:, :-1][y[:, :-1] != IGNORED].tolist() == x[:, 1:][y[:, :-1] != IGNORED].tolist()
    assert len(offsets) > 3
    assert len(orders) == 8


def test_what_is_learned_is_learned_from_the_training_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "t.txt"
    file.write_text("ab\n" * 300 + "a€b" * 30 + "ab" * 60)
    data = _data(str(file), val_fraction=0.1, test_fraction=0.1)
    data.setup("fit")
    assert data.vocab_size == data.num_outputs == 5  # two that are no characters, and a, b and a new line
    out = capsys.readouterr().out
    assert out.startswith(f"{file}: 1,110 characters are 1,110 tokens (chars, a vocabulary of 5), 1.00 characters per")
    assert "the text to validate on: 30 of 100 characters are not in the vocabulary ('€')" in out
    assert "train on" not in out


def test_rare_characters_give_way_to_a_limit(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = _data(path, vocab_size=20)
    data.setup("fit")
    assert data.vocab_size == 20
    assert "the text to train on: " in capsys.readouterr().out
    batches = list(data.train_dataloader())
    assert any((x == UNKNOWN).any() for x, _ in batches)
    assert not any((y == UNKNOWN).any() for _, y in batches)


def test_a_text_is_let_go_of_and_its_files_are_found_again(
    path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = _data(path)
    data.setup("fit")
    said = capsys.readouterr().out
    assert "_text" not in data.__dict__
    monkeypatch.delattr(Tokenizer, "_count")
    monkeypatch.delattr(Tokenizer, "encode")
    again = _data(path)
    again.setup("fit")
    assert capsys.readouterr().out == said
    assert again.fingerprint == data.fingerprint
    for stage, part in data._parts.items():
        assert part.tokens.tolist() == again._parts[stage].tokens.tolist()


def test_that_nothing_can_be_kept_is_said_once(path: str, caplog: pytest.LogCaptureFixture) -> None:
    data = _data(path, cache_dir=f"{path}/cache")
    data.setup("fit")
    assert len(list(data.train_dataloader())) > 0
    assert caplog.text.count("nothing can be kept there") == 1


def test_the_lengths_of_tokens_add_up_to_the_text(path: str) -> None:
    data = _data(path, tokenizer="bpe", vocab_size=280)
    lengths = data.statistics["token_lengths"]
    assert lengths.shape == (data.vocab_size,)
    text = TEXT[:500]
    assert int(lengths[data.encode(text)].sum()) == len(text)


def test_the_embedded_text_needs_nothing(tmp_path: Path) -> None:
    data = TextCorpusDataModule(cache_dir=str(tmp_path))
    data.setup("fit")
    assert data.task == "next_token"
    assert data.class_names is None
    x, y = next(iter(data.train_dataloader()))
    assert x.shape == y.shape == (32, 128)
    assert "assert" in data._text[:100]
    assert 50 < data.vocab_size < 500


def test_without_shares_there_is_only_training(path: str) -> None:
    data = _data(path, val_fraction=0, test_fraction=0)
    assert list(data.splits) == ["train"]
    assert data.val_dataloader() == data.test_dataloader() == []
    assert len(data._parts["train"].tokens) == 2 * len(TEXT)


def test_texts_become_tokens_and_back(path: str) -> None:
    data = _data(path)
    text = "a horse,\n  <unk>42"
    ids = data.encode(text)
    assert ids.dtype == torch.int64
    assert data.decode(torch.stack([ids, ids])) == {"prediction": [text, text]}
    assert data.encode(ids).equal(ids)
    assert data.default_prompt == "\n"
    with pytest.raises(DataError, match="'a € b': '€' is no character of the text that was learned from"):
        data.encode("a € b")
    with pytest.raises(DataError, match="an empty text"):
        data.encode("")
    some = "äöü€ 日本語\n"
    assert _text(data, _data(path, tokenizer="bpe").encode(some).tolist()) != some
    bpe = _data(path, tokenizer="bpe")
    assert _text(bpe, bpe.encode(some).tolist()) == some


def test_a_text_of_one_line_has_a_prompt_too(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("abbb" * 100)
    assert _data(str(tmp_path / "t.txt")).default_prompt == "b"


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ({"tokenizer": "words"}, "--data.tokenizer words: give chars or bpe"),
        ({"tokenizer": "jieba.lcut"}, "--data.tokenizer jieba.lcut: give chars or bpe"),
        ({"context_length": 0}, "--data.context_length 0: give a number of tokens, 1 or more"),
        ({"balance": "weights"}, "--data.balance weights: only classes can be balanced"),
        ({"num_folds": 3}, "--data.num_folds 3: a text is divided by position"),
        ({"vocab_size": 2}, "--data.vocab_size 2: chars need at least 3"),
        ({"tokenizer": "bpe", "vocab_size": 100}, "--data.vocab_size 100: bpe need at least 258"),
        ({"vocab_size": 10}, "to train on, .* are not in the vocabulary .*; give a larger --data.vocab_size"),
        ({"context_length": 20_000}, "--data.context_length 20000: to train on, .* has .* characters in .* tokens"),
        ({"context_length": 3000}, "--data.context_length 3000: to validate on"),
        ({"test_fraction": 0.0005}, "--data.context_length 16: to test on"),
        ({"encoding": "ascii"}, "byte 0xc3 at offset .* is not ascii"),
    ],
)
def test_what_is_impossible_is_one_line(path: str, options: dict[str, Any], answer: str) -> None:
    with pytest.raises(DataError, match=answer) as caught:
        _data(path, **options).setup("fit")
    assert "\n" not in str(caught.value)


def _trained(path: str, **options: Any) -> dict[str, Any]:
    data = _data(path, **options)
    data.setup("fit")
    return data.state_dict()


def _loaded(path: str, state: dict[str, Any], **options: Any) -> TextCorpusDataModule:
    data = _data(path, **options)
    data.load_state_dict(state)
    return data


@pytest.mark.parametrize("kind", ["chars", "bpe"])
def test_a_checkpoint_keeps_the_tokens(path: str, tmp_path: Path, kind: str) -> None:
    torch.save(_trained(path, tokenizer=kind), tmp_path / "state.ckpt")
    state = torch.load(tmp_path / "state.ckpt", weights_only=True)
    (tmp_path / "new.txt").write_text("sale! sale €" * 9)
    data = _loaded(str(tmp_path / "new.txt"), state, tokenizer=kind)
    old = _data(path, tokenizer=kind)
    assert data.vocab_size == old.vocab_size
    assert data.encode("a horse").equal(old.encode("a horse"))
    assert data.statistics["token_lengths"].equal(old.statistics["token_lengths"])


def test_another_text_is_tested_whole(path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = _trained(path)
    (tmp_path / "new.txt").write_text("sale! sale €" * 9)
    data = _loaded(str(tmp_path / "new.txt"), state)
    assert len(_predicted(data, "test")) == 12 * 9 - 1 - 9  # of which nine are unknown
    out = capsys.readouterr().out
    assert "new.txt is not what the model was trained on: all of its 108 tokens are used" in out
    assert "9 of 108 characters are not in the vocabulary ('€')" in out
    (tmp_path / "new.txt").write_text("€¢" * 9)
    with pytest.raises(DataError, match="no character to test on is in the vocabulary; give a text in the language"):
        _loaded(str(tmp_path / "new.txt"), state).test_dataloader()
    (tmp_path / "new.txt").write_text("x")
    with pytest.raises(DataError, match="2 tokens or more"):
        _loaded(str(tmp_path / "new.txt"), state).test_dataloader()


def test_a_text_that_can_hardly_be_read_is_not_trained_on(path: str, tmp_path: Path) -> None:
    state = _trained(path)
    (tmp_path / "new.txt").write_text("ж" * 990 + "the king\n" * 90, encoding="utf-8")
    before, after = (_data(str(tmp_path / "new.txt")) for _ in range(2))
    before.load_state_dict(state)
    after.setup("fit")  # as Lightning does: the checkpoint comes after
    after.load_state_dict(state)
    answer = (
        r"new\.txt: to train on, 990 of 1,458 characters are not in the vocabulary \('ж'\); train anew without "
        "--ckpt_path, or take --data.tokenizer bpe"
    )
    with pytest.raises(DataError, match=answer):
        before.setup("fit")
    with pytest.raises(DataError, match=answer):
        after.train_dataloader()
    assert before.val_dataloader()


@pytest.mark.parametrize("options", [{"tokenizer": "bpe"}, {"vocab_size": 50}, {"context_length": 8}])
def test_other_tokens_than_those_that_were_learned_are_refused(path: str, options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="this model was trained with"):
        _loaded(path, _trained(path), **options)


def test_prompts_are_predicted_one_by_one(path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = _trained(path)
    (tmp_path / "p.txt").write_text("the king\n\na\nmy kingdom is not for sale\n")
    data = _loaded(str(tmp_path / "p.txt"), state)
    (loader,) = data.predict_dataloader()
    batches: list[Tensor] = list(loader)
    assert [_text(data, batch[0].tolist()) for batch in batches] == ["the king", "a", "m is not for sale"[-16:]]
    assert [batch.shape for batch in batches] == [(1, 8), (1, 1), (1, 16)]
    assert list(data.row_keys()["prompt"]) == ["the king", "a", "my kingdom is not for sale"]
    out = capsys.readouterr().out
    assert "1 of 4 prompts are empty, and are left out" in out
    assert out.count("1 of 3 prompts have more than 16 tokens; only the last are read") == 1


def test_prompts_that_cannot_be_read_are_one_line(path: str, tmp_path: Path) -> None:
    state = _trained(path)
    (tmp_path / "p.txt").write_text("the king\nthe €\n")
    with pytest.raises(DataError, match=r"p\.txt, line 2: '€' is no character .* train with --data\.tokenizer bpe"):
        _loaded(str(tmp_path / "p.txt"), state).predict_dataloader()
    with pytest.raises(DataError, match=r"--data\.path: give prompts to go on with"):
        _loaded(path, state).predict_dataloader()
