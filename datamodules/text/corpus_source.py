"""Everything a `TextCorpusDataModule` reads: a text as windows of tokens, or prompts."""

import logging
from functools import cached_property
from typing import TYPE_CHECKING, cast

from datamodules.base import Stage
from datamodules.errors import DataError
from datamodules.sampler import Samples, Split
from datamodules.text.encoder import unknown_characters
from datamodules.text.prompts import Prompt, Prompts, find_prompts
from datamodules.text.windows import Windows
from datamodules.user_data import Source

if TYPE_CHECKING:
    from datamodules.text.corpus import TextCorpusDataModule

logger = logging.getLogger(__name__)

PURPOSES: dict[Stage, str] = {"train": "train on", "val": "validate on", "test": "test on"}


class CorpusSource(Source):
    """Everything made from a text by one tokenizer.

    Args:
        data: The data module.
    """

    data: "TextCorpusDataModule"

    def __init__(self, data: "TextCorpusDataModule") -> None:
        super().__init__(data)
        self.unknown: dict[Stage, str] = {}  # the out-of-vocabulary characters of each part

    @cached_property
    def parts(self) -> dict[Stage, Windows]:
        """The windows of each part of the text; a part without a share of it is absent."""
        data, found = self.data, dict[Stage, Windows]()
        for stage, (start, end) in data.bounds.items():
            if stage != "train" and not getattr(data, f"{stage}_fraction"):
                continue
            found[stage], self.unknown[stage] = self._windows(start, end)
            if len(found[stage].tokens) <= data.context_length:
                raise DataError(
                    f"to {PURPOSES[stage]}, {data.files.name} has {end - start:,} characters in "
                    f"{len(found[stage].tokens):,} tokens, and must have more tokens than that",
                    "give a longer text, a shorter context, or other `val_fraction` and `test_fraction`",
                    "context_length",
                    data.context_length,
                )
        data.files.release()
        return found

    @cached_property
    def splits(self) -> dict[Stage, Split]:
        """The training, validation and test windows, indexed by their starts."""
        return {
            stage: Split(cast("Samples", windows), windows.movable_starts if stage == "train" else windows.starts)
            for stage, windows in self.parts.items()
        }

    def _windows(self, start: int, end: int) -> tuple[Windows, str]:
        """Return the windows of a stretch of the text, and its out-of-vocabulary characters."""
        data = self.data
        windows = Windows(data.encoder.encode(data.fitted, start, end), data.context_length)
        return windows, unknown_characters(windows.tokens, data.files.text, start) if windows.unknown else ""

    @cached_property
    def everything(self) -> Windows:
        """All windows of a text that the model was not trained on."""
        path = self.data.path
        windows, unknown = self._windows(0, self.data.files.size)
        self.data.files.release()
        if len(windows.tokens) < 2:
            raise DataError("a text of 2 tokens or more can be tested, and this has fewer", option="path", value=path)
        logger.info(f"{path} is not what the model was trained on: all of its {len(windows.tokens):,} tokens are used")
        if unknown:
            logger.warning(f"{path}: {unknown}")
        return windows

    @cached_property
    def prompts(self) -> list[Prompt]:
        """The prompts at the path."""
        if not self.data.path or not self.data.is_new:
            raise DataError("give prompts to continue, a text file with one a line or a CSV file", option="path")
        return find_prompts(self.data.files.contents, self.data.path)

    @cached_property
    def unlabeled(self) -> Prompts:
        """The prompts as tokens."""
        length = self.data.context_length
        ids = [self.data.encode_known(prompt.text, f"{prompt.file}, line {prompt.line}") for prompt in self.prompts]
        longer = sum(len(some) > length for some in ids)
        if longer:
            what = f"{longer:,} of {len(ids):,} prompts have more than {length} tokens"
            logger.warning(f"{self.data.path}: {what}; only the last are read")
        return Prompts([some[-length:] for some in ids])
