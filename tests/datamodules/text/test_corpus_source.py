"""A plain text is divided into windows; prompts are read from files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from datamodules import DataError
from datamodules.base import Stage
from datamodules.text.tokenizer import Tokenizer
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
    with pytest.raises(DataError, match=r"p\.txt, line 2: '€' is no character .* train with `tokenizer='bpe'`"):
        loaded_corpus(str(tmp_path / "p.txt"), state).predict_dataloader()
    with pytest.raises(DataError, match=r"path: give prompts to continue"):
        loaded_corpus(path, state).predict_dataloader()
