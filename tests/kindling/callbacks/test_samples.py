"""Texts that a language model generates while it is trained."""

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard import plugin_util  # type: ignore[import-untyped]
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import Tensor, nn

from datamodules import DataError, TextCorpusDataModule, ToyDataModule
from kindling.callbacks import TextSamples
from kindling.callbacks.samples import preformatted
from lit_models import LitGPT, LitMLP, LitModule
from tests.helpers.trainers import quiet_trainer


class Next(LitModule):
    """Learns which token follows which; a part of it is always in evaluation mode.

    Args:
        vocab_size: How many tokens there are.
    """

    def __init__(self, vocab_size: int) -> None:
        super().__init__(task="next_token", num_outputs=vocab_size)
        self.embedding = nn.Embedding(vocab_size, vocab_size)
        self.net = nn.Sequential(self.embedding, nn.Dropout(0.5))
        self.times = 0

    def normalize(self, x: Tensor) -> Tensor:
        """Return the tokens as they are."""
        return x

    def generate(self, ids: Tensor, max_new_tokens: int, generator: torch.Generator) -> Tensor:
        """Draw tokens by chance."""
        assert ids.shape[0] == 1
        self.times += 1
        return torch.randint(2, self.num_outputs, (1, max_new_tokens), generator=generator)


@pytest.fixture
def data(tmp_path: Path) -> TextCorpusDataModule:
    """A text of four letters and a line break."""
    (tmp_path / "t.txt").write_text("abc <b>\n" * 100)
    return TextCorpusDataModule(str(tmp_path / "t.txt"), context_length=8, cache_dir=str(tmp_path / "cache"))


def _shown(folder: Path) -> dict[str, list[tuple[int, str]]]:
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return {
        tag.removesuffix("/text_summary"): [
            (event.step, event.tensor_proto.string_val[0].decode()) for event in events.Tensors(tag)
        ]
        for tag in events.Tags()["tensors"]
    }


def test_each_validation_is_shown_and_the_first_sample_printed(
    data: TextCorpusDataModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = TextSamples(["a", "<b>\n"], length=5)
    model = Next(data.vocab_size)
    logger = TensorBoardLogger(tmp_path, "", "")
    trainer = quiet_trainer(callbacks=[samples], logger=logger, max_epochs=2, num_sanity_val_steps=1)
    trainer.fit(model, data)
    shown = _shown(tmp_path)
    steps = trainer.global_step
    assert [step for step, _ in shown["samples/0"]] == [steps // 2, steps]
    assert model.times == 4  # not again at the end, where nothing has changed
    printed = capsys.readouterr().out.partition(f"sample after {steps} steps:\n")[2]
    assert re.fullmatch(r"a[abc <>\n]{5}\n", printed)
    assert shown["samples/0"][-1][1] == preformatted(printed[:-1])
    assert shown["samples/1"][-1][1].startswith("<pre>\n\n&lt;b&gt;\n")


def test_without_validation_there_is_a_sample_at_the_end(
    data: TextCorpusDataModule, capsys: pytest.CaptureFixture[str]
) -> None:
    data.val_fraction = 0
    quiet_trainer(callbacks=[TextSamples(length=3)]).fit(Next(data.vocab_size), data)
    assert re.search(r"sample after \d+ steps:\n\n[abc <>\n]{3}\n", capsys.readouterr().out)


def test_training_is_not_disturbed(data: TextCorpusDataModule) -> None:
    def trained(callbacks: list[TextSamples]) -> Tensor:
        torch.manual_seed(0)
        model = LitGPT(data.vocab_size, 8, 1, 1, 8, dropout=0.5)
        quiet_trainer(callbacks=callbacks, max_epochs=3, val_check_interval=2).fit(model, data)
        return model.net.embedding.weight.detach()

    assert trained([TextSamples(length=4)]).equal(trained([]))


def test_a_model_that_diverges_is_stopped_by_others(data: TextCorpusDataModule, tmp_path: Path) -> None:
    logger, model = TensorBoardLogger(tmp_path, "", ""), LitGPT(data.vocab_size, 8, 1, 1, 8, lr=1e30)
    trainer = quiet_trainer(callbacks=[TextSamples(length=4)], logger=logger, max_epochs=2)
    trainer.fit(model, data)
    assert not trainer.callback_metrics["val_loss"].isfinite()


def test_what_changes_between_samples_is_the_model(data: TextCorpusDataModule, tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, "", "")
    quiet_trainer(callbacks=[TextSamples()], logger=logger, max_epochs=2).fit(Next(data.vocab_size), data)
    first, second = (sample for _, sample in _shown(tmp_path)["samples/0"])
    assert first == second  # this one writes by chance alone


def test_other_models_and_data_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    quiet_trainer(callbacks=[TextSamples(["x"])]).fit(LitMLP(4, num_outputs=3), ToyDataModule("iris"))
    assert capsys.readouterr().out == ""


def test_a_bad_prompt_is_found_before_training(data: TextCorpusDataModule, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(Next, "training_step", never)
    with pytest.raises(DataError, match=r"--samples\.prompts: 'ä': 'ä' is not in the text"):
        quiet_trainer(callbacks=[TextSamples("ä")]).fit(Next(data.vocab_size), data)


def test_a_sample_has_a_length() -> None:
    with pytest.raises(MisconfigurationException, match=r"--samples\.length 0: give a number of tokens, 1 or more"):
        TextSamples(length=0)


@pytest.mark.parametrize(
    "text",
    ["plain", "\n# no head\n\n* none\n", "a <b>x</b> &amp; _y_ </pre> `z`", "    code\n```\n\n\n1. b  \n", "<script>"],
)
def test_tensorboard_shows_a_text_character_by_character(text: str) -> None:
    render: Callable[[str], Any] = plugin_util.markdown_to_safe_html
    found = re.fullmatch(r"<pre>\n(.*)</pre>", render(preformatted(text)), re.DOTALL)
    assert found is not None
    assert unescape(found[1]) == text
