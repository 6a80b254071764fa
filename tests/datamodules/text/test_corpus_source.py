"""A plain text is divided into windows; prompts are read from files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules import DataError
from datamodules.base import Stage
from datamodules.text.corpus_source import Prompts, find_prompts, unknown_characters
from datamodules.text.files import read_texts
from datamodules.text.tokenizer import UNKNOWN, Tokenizer
from datamodules.text.windows import IGNORED
from tests.helpers.texts import CORPUS, corpus, corpus_state, decoded, loaded_corpus, predicted


@pytest.mark.parametrize("options", [{}, {"tokenizer": "bpe", "vocab_size": 300}], ids=["chars", "bpe"])
def test_every_token_but_the_first_is_evaluated_once(path: str, options: dict[str, Any]) -> None:
    data, whole = corpus(path, **options), CORPUS + CORPUS[::-1]
    test = int(len(whole) * 0.9)
    val = int(test * 0.9)
    parts: dict[Stage, str] = {"val": whole[val:test], "test": whole[test:]}
    for stage, text in parts.items():
        ids = predicted(data, stage)
        assert text.endswith(decoded(data, ids))
        assert len(ids) == len(data.encode(text)) - 1


def test_an_epoch_takes_every_stretch_once_shifted_by_its_own_number(path: str) -> None:
    data = corpus(path)
    loader = data.train_dataloader()
    tokens = data.source.parts["train"].tokens
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


def test_a_text_is_released_and_its_tokens_are_found_again(
    path: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = corpus(path)
    data.setup("fit")
    said = caplog.messages
    caplog.clear()
    assert data.files._contents is None
    monkeypatch.delattr(Tokenizer, "_count")
    monkeypatch.delattr(Tokenizer, "encode")
    again = corpus(path)
    again.setup("fit")
    assert caplog.messages == said
    assert again.fingerprint == data.fingerprint
    for stage, part in data.source.parts.items():
        assert part.tokens.tolist() == again.source.parts[stage].tokens.tolist()


def test_without_shares_there_is_only_training(path: str) -> None:
    data = corpus(path, val_fraction=0, test_fraction=0)
    assert list(data.splits) == ["train"]
    assert data.val_dataloader() == data.test_dataloader() == []
    assert len(data.source.parts["train"].tokens) == 2 * len(CORPUS)


def test_another_text_is_tested_whole(path: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = corpus_state(path)
    (tmp_path / "new.txt").write_text("sale! sale €" * 9)
    data = loaded_corpus(str(tmp_path / "new.txt"), state)
    assert len(predicted(data, "test")) == 12 * 9 - 1 - 9  # of which nine are unknown
    out = caplog.text
    assert "new.txt is not what the model was trained on: all of its 108 tokens are used" in out
    assert "9 of 108 characters are not in the vocabulary ('€')" in out
    (tmp_path / "new.txt").write_text("€¢" * 9)
    with pytest.raises(DataError, match="no character to test on is in the vocabulary; give a text in the language"):
        loaded_corpus(str(tmp_path / "new.txt"), state).test_dataloader()
    (tmp_path / "new.txt").write_text("x")
    with pytest.raises(DataError, match="2 tokens or more"):
        loaded_corpus(str(tmp_path / "new.txt"), state).test_dataloader()


def test_prompts_are_predicted_one_by_one(path: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = corpus_state(path)
    (tmp_path / "p.txt").write_text("the king\n\na\nmy kingdom is not for sale\n")
    data = loaded_corpus(str(tmp_path / "p.txt"), state)
    (loader,) = data.predict_dataloader()
    batches: list[Tensor] = list(loader)
    assert [decoded(data, batch[0].tolist()) for batch in batches] == ["the king", "a", "m is not for sale"[-16:]]
    assert [batch.shape for batch in batches] == [(1, 8), (1, 1), (1, 16)]
    assert list(data.row_keys()["prompt"]) == ["the king", "a", "my kingdom is not for sale"]
    out = caplog.text
    assert "1 of 4 prompts are empty, and are dropped" in out
    assert out.count("1 of 3 prompts have more than 16 tokens; only the last are read") == 1


def test_prompts_that_cannot_be_read_are_one_line(path: str, tmp_path: Path) -> None:
    state = corpus_state(path)
    (tmp_path / "p.txt").write_text("the king\nthe €\n")
    with pytest.raises(DataError, match=r"p\.txt, line 2: '€' is not in the text .* train with `tokenizer='bpe'`"):
        loaded_corpus(str(tmp_path / "p.txt"), state).predict_dataloader()
    with pytest.raises(DataError, match=r"path: give prompts to continue"):
        loaded_corpus(path, state).predict_dataloader()


def test_unknown_characters_are_counted_and_named() -> None:
    tokens = np.array([2, UNKNOWN, 3, UNKNOWN, UNKNOWN])
    assert unknown_characters(tokens, "xxa€bж€", 2) == "3 of 5 characters are not in the vocabulary ('ж', '€')"
    assert unknown_characters(np.array([2, 3]), "ab", 0) == ""
    many = "".join(map(chr, range(0x400, 0x440)))
    assert unknown_characters(np.full(64, UNKNOWN), many, 0).endswith("'Ї', ...)")


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
