"""A user's plain text, from which a language model learns to predict the next token."""

import logging
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.base import Stage
from datamodules.errors import DataError
from datamodules.sampler import BatchSampler
from datamodules.text.corpus_source import PURPOSES, CorpusSource
from datamodules.text.files import TextFiles, pieces
from datamodules.text.tokenizer import UNKNOWN, Tokenizer
from datamodules.user_data import UserDataModule

logger = logging.getLogger(__name__)

# Tokenizers from whose tokens a text can be restored, with their largest vocabulary by default: every character; and as
# many byte pairs as are frequent in a text of a few megabytes.
VOCABULARIES = {"chars": 65_536, "bpe": 4_096}
MOST_UNKNOWN = 0.1  # share of a training text that may be out of the vocabulary of a model that is trained further


class TextCorpusDataModule(UserDataModule):
    """A plain text, in which each token is to be predicted from those before it.

    It is divided by position: the first part trains, the next one validates, the last one tests. The vocabulary is
    that of the first part; other characters are inputs, but no targets. A batch is int64 tokens `(B, context_length)`
    and the next ones, of the same shape, with -100 where nothing is predicted. A training epoch takes every window of
    this length once, in random order, all shifted by the same random number of tokens. Validation and test predict
    every known token but the first exactly once. Tokens are cached in `cache_dir` as a memory-mapped file, and the text
    itself is freed.

    Args:
        path: A text file, a folder or a glob; several files are one text, in sorted order. By default the text is the
            language reference that Python carries. `test` tests all of a text that the model was not trained on;
            `predict` needs prompts: a text file with one a line, or a CSV file with a column `prompt` or `text`.
        tokenizer: What a token is: a character (`chars`), or a byte pair (`bpe`), which can encode every text.
        vocab_size: Maximum size of the vocabulary; by default all characters, or 4,096 byte pairs.
        context_length: Tokens that a model sees at once.
        batch_size: Windows in a batch, also of evaluation: each token has a logit for every token of the vocabulary.
        val_fraction: Share of the text before the test part that validates; 0 for none.
        test_fraction: Share of the text, at its end, that tests; 0 for none.
        encoding: Python's name of the text's encoding; detected unless given.
        kwargs: Options of `UserDataModule` and `DataModule`, but for `balance` and `num_folds`.

    Raises:
        DataError: If the text cannot be read, or is too short; the message names the file or the option.
    """

    task = "next_token"
    source: CorpusSource

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
            raise DataError("give chars or bpe, from which a text can be restored", option="tokenizer", value=tokenizer)
        if context_length < 1:
            raise DataError("give a number of tokens, 1 or more", option="context_length", value=context_length)
        if self.balance != "none":
            raise DataError("only classes can be balanced, and a text has none", option="balance", value=self.balance)
        if self.num_folds:
            raise DataError("a text is divided by position, and has no folds", option="num_folds", value=self.num_folds)
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.files = TextFiles(path, encoding, self.cache_dir)
        self._limit = VOCABULARIES[tokenizer] if vocab_size is None else vocab_size
        # The options that a trained model depends on.
        self._learned = {"tokenizer": tokenizer, "vocab_size": self._limit, "context_length": context_length}
        self._fitted: Tokenizer | None = None  # on the training part, or loaded from a checkpoint

    @property
    def fitted(self) -> Tokenizer:
        """The tokenizer, fitted on the training part or loaded from a checkpoint."""
        if self._fitted is None:
            self._fitted = self.files.fit(self.tokenizer, self._limit, self.bounds["train"][1])
        return self._fitted

    @property
    def vocab_size(self) -> int:
        """Number of tokens in the vocabulary."""
        return self.fitted.size

    @property
    def num_outputs(self) -> int:  # type: ignore[override]
        """Logits of each token: one for each that may be next."""
        return self.vocab_size

    @cached_property
    def statistics(self) -> dict[str, Tensor]:
        """How many characters each token stands for, `token_lengths`, int64, `(vocab_size,)`."""
        return {"token_lengths": torch.from_numpy(self.fitted.lengths())}

    @property
    def default_prompt(self) -> str:
        """The prompt of a sample unless one is given: a line break, or the most frequent character."""
        return "\n" if UNKNOWN not in self._encode("\n") else self.fitted.decode([UNKNOWN + 1])

    @property
    def fingerprint(self) -> str:
        """The hash of the text."""
        return self.files.fingerprint

    @property
    def detected_encoding(self) -> str | None:
        """The encoding of the text, if it was detected and is not UTF-8."""
        return self.files.detected_encoding

    @property
    def bounds(self) -> dict[Stage, tuple[int, int]]:
        """The first character of each part of the text, and the first after it."""
        size = self.files.size
        test = int(size * (1 - self.test_fraction))
        val = int(test * (1 - self.val_fraction))
        return {"train": (0, val), "val": (val, test), "test": (test, size)}

    def open_source(self) -> CorpusSource:
        """Return a new source; nothing needs to be read yet."""
        return CorpusSource(self)

    def setup(self, stage: str) -> None:
        """Read and divide the text; before training, log what it is."""
        super().setup(stage)
        if stage == "fit":
            self._check_known()
            logger.info(self.describe())
            for part, unknown in self.source.unknown.items():
                if unknown:
                    logger.warning(f"the text to {PURPOSES[part]}: {unknown}")

    def describe(self) -> str:
        """Return one line about the text and its tokens."""
        characters = self.files.size
        tokens = sum(len(windows.tokens) for windows in self.source.parts.values())
        return (
            f"{self.files.name}: {characters:,} characters are {tokens:,} tokens ({self.tokenizer}, a vocabulary of "
            f"{self.vocab_size:,}), {characters / tokens:.2f} characters per token"
        )

    def _check_known(self) -> None:
        """Raise an error if too much to train on is out of vocabulary, as of a text in another language."""
        windows = self.source.parts["train"]
        if windows.unknown > MOST_UNKNOWN * len(windows.tokens):
            limited = self.vocab_size == self._limit
            remedy = "give a larger `vocab_size`" if limited else "train anew without `ckpt_path`"
            remedy += ", or use `tokenizer='bpe'`, which can encode every text"
            raise DataError(f"to train on, {self.source.unknown['train']}", remedy, "path", self.path)

    def _loader(self, stage: Stage, shuffle: bool | None = None) -> list[DataLoader[Any]]:
        moves = stage == "train"
        windows = self.source.parts.get(stage) if moves or not self.is_new else self.everything
        if windows is None:
            return []
        if moves:
            self._check_known()  # the checkpoint is loaded after `setup`
        elif windows.unknown and (windows.tokens[1:] == UNKNOWN).all():
            problem = f"no character to {PURPOSES[stage]} is in the vocabulary"
            raise DataError(problem, "give a text in the language of the training text", "path", self.path)
        starts, jitter = (windows.movable_starts, self.context_length) if moves else (windows.starts, 0)
        drop_last = self.drop_last and moves
        order = BatchSampler(starts, self.batch_size, moves, self.seed, jitter=jitter, drop_last=drop_last)
        return [self._make_loader(windows, order)]

    def predict_dataloader(self) -> list[DataLoader[Any]]:
        """Return the prompts in their order, one in a batch."""
        return [self._make_loader(self.unlabeled, BatchSampler(torch.arange(len(self.unlabeled)), 1))]

    def row_keys(self) -> dict[str, Iterator[Any]]:
        """Return the prompts, as a column before their continuations."""
        return {"prompt": (prompt.text for prompt in self.source.prompts)}

    def encode(self, raw: Any) -> Tensor:  # noqa: ANN401  # a text, or its tokens
        """Encode a text as tokens, `(T,)`, int64; integers are tokens already.

        Raises:
            DataError: If it is empty, or has a character out of vocabulary.
        """
        if not isinstance(raw, str):
            return torch.as_tensor(raw, dtype=torch.int64)
        if not raw:
            raise DataError("an empty text cannot be continued", "give a character or more")
        return self.encode_known(raw, repr(raw))

    def _encode(self, text: str) -> Tensor:
        return torch.from_numpy(self.fitted.encode(pieces(text))[0].astype(np.int64))

    def encode_known(self, text: str, where: str) -> Tensor:
        """Encode a text as tokens, `(T,)`, int64; `where` it is from is for messages.

        Raises:
            DataError: If it has a character out of vocabulary.
        """
        ids = self._encode(text)
        unknown = (ids == UNKNOWN).nonzero()
        if len(unknown):
            problem = f"{where}: {text[int(unknown[0])]!r} is not in the text that the model was trained on"
            remedy = "write it otherwise, or train with `tokenizer='bpe'`, which can encode every text"
            raise DataError(problem, remedy)
        return ids

    def decode(self, outputs: Tensor) -> dict[str, list[Any]]:
        """Decode tokens, `(B, T)`, into texts: `prediction`."""
        return {"prediction": [self.fitted.decode(row) for row in outputs.tolist()]}

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: also the tokenizer, as JSON."""
        return {**super().state_dict(), "learned": self._learned, "vocabulary": self.fitted.state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the tokenizer, before anything is inferred from this text.

        Raises:
            DataError: As that of the base; or if the options ask for other tokens or another context.
        """
        for name, now in self._learned.items():
            learned = state_dict["learned"][name]
            if now != learned:
                problem = f"this model was trained with {learned}, and reads nothing else"
                raise DataError(problem, "leave it out, or train anew without `ckpt_path`", name, now)
        if self._fitted is None or self._fitted.state != state_dict["vocabulary"]:
            self._source = None
            self._fitted = Tokenizer(self.tokenizer, state=state_dict["vocabulary"])
        super().load_state_dict(state_dict)
