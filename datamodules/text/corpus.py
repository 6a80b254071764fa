"""A running text of one's own, from which a language model learns to go on with it."""

import platform
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.base import Stage
from datamodules.cache import Cache
from datamodules.errors import DataError
from datamodules.sampler import BatchSampler, Samples, Split
from datamodules.text.files import pieces, read_texts
from datamodules.text.prompts import Prompt, Prompts, read_prompts
from datamodules.text.tokenizer import UNKNOWN, Tokenizer
from datamodules.text.windows import CorpusEncoder, Windows, hashed, unknown_characters
from datamodules.user_data import UserDataModule, say

# Kinds of tokens from which a text can be put together again, and how many different ones there are at most by default:
# every character; and so many byte pairs as a text of a few megabytes has often.
VOCABULARIES = {"chars": 65_536, "bpe": 4_096}
MOST_UNKNOWN = 0.1  # share of a training text that may be unknown to a model that goes on with it
PURPOSES: dict[Stage, str] = {"train": "train on", "val": "validate on", "test": "test on"}


class TextCorpusDataModule(UserDataModule):
    """A running text, in which each token is to be predicted from those before it.

    It is divided by position: the first part trains, the next one validates, the last one tests, and the tokens are
    found in the first alone; a character that is not among them is read as unknown, and is never to be predicted. A
    batch is int64 tokens `(B, context_length)` and the next ones, of the same shape, with -100 where there is none. In
    an epoch, training takes every stretch of this length once, in a random order, and all are shifted by a random
    number of tokens. Validation and test take every known token but the first exactly once. Tokens are kept in
    `cache_dir` as a memory-mapped file, under the hash of what they were made from, and the text itself is let go of.

    Args:
        path: A text file, a folder or a glob; several files are one text, in sorted order. By default the text is the
            language reference that Python carries. `test` tests all of a text that the model was not trained on;
            `predict` wants prompts: a text file of one a line, or a CSV file with a column `prompt` or `text`.
        tokenizer: What a token is: a character (`chars`), or a byte pair (`bpe`), which knows every text.
        vocab_size: How many different tokens there are at most; by default all characters, or 4,096 byte pairs.
        context_length: Tokens that a model sees at once.
        batch_size: Stretches in a batch, of which evaluation takes no more at once: each token has a score for every
            word of the vocabulary.
        val_fraction: Share of what is before the test part that validates; 0 for none.
        test_fraction: Share of the text, at its end, that tests; 0 for none.
        encoding: Python's name of the text's encoding; UTF-8, or UTF-16 with a mark, unless given.
        kwargs: Options of `UserDataModule` and `DataModule`, but for `balance` and `num_folds`.

    Raises:
        DataError: If the text cannot be read, or is too short; the message names the file or the option.
    """

    task = "next_token"

    def __init__(
        self,
        path: str = "",
        tokenizer: str = "chars",
        vocab_size: int | None = None,
        context_length: int = 128,
        batch_size: int = 32,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        encoding: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(path, batch_size=batch_size, val_fraction=val_fraction, test_fraction=test_fraction, **kwargs)
        if tokenizer not in VOCABULARIES:
            raise DataError(f"--data.tokenizer {tokenizer}: give chars or bpe, which can give a text back.")
        if context_length < 1:
            raise DataError(f"--data.context_length {context_length}: give a number of tokens, 1 or more.")
        if self.balance != "none":
            raise DataError(f"--data.balance {self.balance}: only classes can be balanced, and a text has none.")
        if self.num_folds:
            raise DataError(f"--data.num_folds {self.num_folds}: a text is divided by position, and has no folds.")
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.encoding = encoding
        self._limit = VOCABULARIES[tokenizer] if vocab_size is None else vocab_size
        self._fitted: Tokenizer | None = None  # on the training part, or as it came with a checkpoint
        self._unknown: dict[Stage, str] = {}  # what is not in the vocabulary, of each part

    # What the data determine

    @property
    def vocab_size(self) -> int:
        """How many different tokens there are."""
        return self._tokens.size

    @property
    def num_outputs(self) -> int:  # type: ignore[override]
        """Scores for each token: one for each that may come next."""
        return self.vocab_size

    @cached_property
    def statistics(self) -> dict[str, Tensor]:
        """How many characters each token stands for, `token_lengths`, int64, `(vocab_size,)`."""
        return {"token_lengths": torch.from_numpy(self._tokens.lengths())}

    @property
    def default_prompt(self) -> str:
        """What a sample begins with unless something is given: a new line, or the most frequent character."""
        return "\n" if UNKNOWN not in self._encode("\n") else self._tokens.decode([UNKNOWN + 1])

    # From a text to windows

    @cached_property
    def _text(self) -> str:
        if self.path:
            return read_texts(self.path, self.encoding)
        from pydoc_data.topics import topics  # half a megabyte, which nobody else needs

        return "\n".join(topics[name] for name in sorted(topics))

    @property
    def _name(self) -> str:
        return self.path or f"the language reference of Python {platform.python_version()}"

    @cached_property
    def fingerprint(self) -> str:
        """What the text hashes to."""
        return hashed(self._text)

    @cached_property
    def _bounds(self) -> dict[Stage, tuple[int, int]]:
        """Where each part of the text begins and ends."""
        size = len(self._text)
        test = int(size * (1 - self.test_fraction))
        val = int(test * (1 - self.val_fraction))
        return {"train": (0, val), "val": (val, test), "test": (test, size)}

    @cached_property
    def _encoder(self) -> CorpusEncoder:
        name = Path(self.path).stem.strip("*.") or "text" if self.path else "pydoc"
        return CorpusEncoder(Cache(self.cache_dir), name, self.fingerprint)

    @property
    def _tokens(self) -> Tokenizer:
        if self._fitted is None:
            self._fitted = self._encoder.fit(self.tokenizer, self._limit, self._text, self._bounds["train"][1])
        return self._fitted

    @cached_property
    def _parts(self) -> dict[Stage, Windows]:
        found: dict[Stage, Windows] = {}
        for stage, (start, end) in self._bounds.items():
            if stage != "train" and not getattr(self, f"{stage}_fraction"):
                continue
            windows, self._unknown[stage] = self._windows(start, end)
            if len(windows.tokens) <= self.context_length:
                raise DataError(
                    f"--data.context_length {self.context_length}: to {PURPOSES[stage]}, {self._name} has "
                    f"{end - start:,} characters in {len(windows.tokens):,} tokens, and must have more tokens than "
                    "that; give a longer text, a shorter context, or other --data.val_fraction and "
                    "--data.test_fraction."
                )
            found[stage] = windows
        self._let_go()
        return found

    @property
    def splits(self) -> dict[Stage, Split]:
        """The training, validation and test windows; a part that has no share of the text is left out."""
        return {
            # Like samples they are taken by their indices: those of the first tokens.
            stage: Split(cast("Samples", windows), windows.movable_starts if stage == "train" else windows.starts)
            for stage, windows in self._parts.items()
        }

    def _windows(self, start: int, end: int) -> tuple[Windows, str]:
        """Give a stretch of the text as windows, and say what is unknown in it."""
        windows = Windows(self._encoder.encode(self._tokens, self._text, start, end), self.context_length)
        return windows, unknown_characters(windows.tokens, self._text, start) if windows.unknown else ""

    def _let_go(self) -> None:
        self.__dict__.pop("_text", None)  # it is read again if it is wanted again

    @cached_property
    def everything(self) -> Windows:
        """All of a text that the model was not trained on."""
        windows, unknown = self._windows(0, len(self._text))
        self._let_go()
        if len(windows.tokens) < 2:
            raise DataError(f"--data.path {self.path}: a text of 2 tokens or more can be tested, and this has fewer.")
        say(f"{self.path} is not what the model was trained on: all of its {len(windows.tokens):,} tokens are used")
        if unknown:
            say(f"{self.path}: {unknown}")
        return windows

    def setup(self, stage: str) -> None:
        """Read and divide the text, and say before training what it is."""
        super().setup(stage)
        if stage == "fit":
            self._check_known()
            say(self.describe())
            for part, unknown in self._unknown.items():
                if unknown:
                    say(f"the text to {PURPOSES[part]}: {unknown}")

    def describe(self) -> str:
        """Say in one line what the text is."""
        tokens, characters = sum(len(windows.tokens) for windows in self._parts.values()), self._bounds["test"][1]
        return (
            f"{self._name}: {characters:,} characters are {tokens:,} tokens ({self.tokenizer}, a vocabulary of "
            f"{self.vocab_size:,}), {characters / tokens:.2f} characters per token"
        )

    def _check_known(self) -> None:
        """Refuse to train on what can hardly be read, as a text in another language than that of the tokens."""
        windows = self._parts["train"]
        if windows.unknown > MOST_UNKNOWN * len(windows.tokens):
            limited = self.vocab_size == self._limit
            remedy = "give a larger --data.vocab_size" if limited else "train anew without --ckpt_path"
            raise DataError(
                f"--data.path {self.path}: to train on, {self._unknown['train']}; {remedy}, or take --data.tokenizer "
                "bpe, which knows every text."
            )

    def _loader(self, stage: Stage, shuffle: bool | None = None) -> list[DataLoader[Any]]:
        moves = stage == "train"
        windows = self._parts.get(stage) if moves or not self.is_new else self.everything
        if windows is None:
            return []
        if moves:
            self._check_known()  # a checkpoint may have brought its tokens only now
        elif windows.unknown and (windows.tokens[1:] == UNKNOWN).all():
            raise DataError(
                f"--data.path {self.path}: no character to {PURPOSES[stage]} is in the vocabulary; give a text in the "
                "language that was learned from."
            )
        starts, jitter = (windows.movable_starts, self.context_length) if moves else (windows.starts, 0)
        order = BatchSampler(starts, self.batch_size, moves, self.seed, jitter=jitter)
        return [self._make_loader(windows, order)]

    # Prompts, and what is made of them

    @cached_property
    def _prompts(self) -> list[Prompt]:
        if not self.path or self.fingerprint == self._trained_on:
            raise DataError("--data.path: give prompts to go on with, a text file with one a line or a CSV file.")
        return read_prompts(self.path, self.encoding)

    @cached_property
    def unlabeled(self) -> Prompts:
        """The prompts."""
        ids = [self._known(prompt.text, f"{prompt.file}, line {prompt.line}") for prompt in self._prompts]
        longer = sum(len(some) > self.context_length for some in ids)
        if longer:
            say(
                f"{self.path}: {longer:,} of {len(ids):,} prompts have more than {self.context_length} tokens; only "
                "the last are read"
            )
        return Prompts([some[-self.context_length :] for some in ids])

    def predict_dataloader(self) -> list[DataLoader[Any]]:
        """The prompts in their order, one in a batch."""
        return [self._make_loader(self.unlabeled, BatchSampler(torch.arange(len(self.unlabeled)), 1))]

    def row_keys(self) -> dict[str, Iterator[Any]]:
        """The prompts, which stand before what follows them."""
        return {"prompt": (prompt.text for prompt in self._prompts)}

    def encode(self, raw: Any) -> Tensor:  # noqa: ANN401  # a text, or its tokens
        """Turn a text into tokens.

        Args:
            raw: The text; or integers, which are tokens already.

        Returns:
            Shape `(T,)`, int64.

        Raises:
            DataError: If it is empty, or has a character that was not learned.
        """
        if not isinstance(raw, str):
            return torch.as_tensor(raw, dtype=torch.int64)
        if not raw:
            raise DataError("an empty text has nothing to go on with; give a character or more.")
        return self._known(raw, repr(raw))

    def _encode(self, text: str) -> Tensor:
        return torch.from_numpy(self._tokens.encode(pieces(text))[0].astype(np.int64))

    def _known(self, text: str, where: str) -> Tensor:
        ids = self._encode(text)
        unknown = (ids == UNKNOWN).nonzero()
        if len(unknown):
            raise DataError(
                f"{where}: {text[int(unknown[0])]!r} is no character of the text that was learned from; write it "
                "otherwise, or train with --data.tokenizer bpe, which knows every text."
            )
        return ids

    def decode(self, outputs: Tensor) -> dict[str, list[Any]]:
        """Turn tokens, `(B, T)`, into texts: `prediction`."""
        return {"prediction": [self._tokens.decode(row) for row in outputs.tolist()]}

    # What a checkpoint keeps

    def _learned(self) -> dict[str, Any]:
        """What a trained model holds to, by the names of the options."""
        return {"tokenizer": self.tokenizer, "vocab_size": self._limit, "context_length": self.context_length}

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps beside the position in the epoch: the tokens, as JSON."""
        return {**super().state_dict(), "learned": self._learned(), "vocabulary": self._tokens.state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the tokens, before anything is inferred from this text.

        Raises:
            DataError: As that of the base; or if other tokens, or another context, are asked for.
        """
        for name, now in self._learned().items():
            learned = state_dict["learned"][name]
            if now != learned:
                raise DataError(
                    f"--data.{name} {now}: this model was trained with {learned}, and reads nothing else; leave it "
                    "out, or train anew without --ckpt_path."
                )
        if self._fitted is None or self._fitted.state != state_dict["vocabulary"]:
            for name in ("_parts", "everything", "unlabeled"):
                self.__dict__.pop(name, None)
            self._fitted = Tokenizer(self.tokenizer, state=state_dict["vocabulary"])
        super().load_state_dict(state_dict)
