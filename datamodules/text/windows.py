"""A long row of tokens: kept on disk, and taken in windows."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.cache import Cache
from datamodules.text.files import pieces
from datamodules.text.tokenizer import PAD, UNKNOWN, Tokenizer, chunks

IGNORED = -100  # what stands in the place of a target where nothing is to be predicted, as torch's losses have it
HASHED = 1_000_000  # characters at a time
SHOWN = 8  # unknown characters that are named at most
FORMAT = "2"  # of what is kept; a change makes older files unread

Tokens = NDArray[Any]  # uint16 where the vocabulary is small enough, else int32


class Windows(Dataset[tuple[Tensor, Tensor]]):
    """Stretches of a row of tokens, each with the token that follows each of its own. A batch is one indexing.

    That a token is unknown is nothing to be predicted: it is read, and is no target.

    Args:
        tokens: The row, `(N,)`, 2 or more.
        length: Tokens in a window.
    """

    def __init__(self, tokens: Tokens, length: int) -> None:
        self.tokens = np.asarray(tokens)  # of a memory map, what can be indexed fastest
        self.length = length

    @cached_property
    def unknown(self) -> int:
        """How many tokens are unknown."""
        return int(np.count_nonzero(self.tokens == UNKNOWN))

    @property
    def starts(self) -> Tensor:
        """Where the windows begin that, one after another, predict every token but the first, once."""
        return torch.arange(0, len(self.tokens) - 1, self.length)

    @property
    def movable_starts(self) -> Tensor:
        """Where those begin that can be moved on by less than a window and still have something to predict."""
        return torch.arange(0, len(self.tokens) - self.length, self.length)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Take a whole batch.

        Args:
            starts: The first token of each window, `(B,)`.

        Returns:
            Tokens and their next ones, int64, `(B, length)` each; past the end they are `PAD` and `IGNORED`, and a
            next one that is `UNKNOWN` is `IGNORED` too.
        """
        at = starts.numpy()[:, None] + np.arange(self.length + 1)
        beyond = at >= len(self.tokens)
        if not beyond.any():
            found = self.tokens[at]
            return _int64(found[:, :-1]), self._targets(found[:, 1:])
        found = self.tokens[np.minimum(at, len(self.tokens) - 1)].astype(np.int64)
        x = np.where(beyond[:, :-1], PAD, found[:, :-1])
        return _int64(x), self._targets(np.where(beyond[:, 1:], IGNORED, found[:, 1:]))

    def _targets(self, values: NDArray[Any]) -> Tensor:
        targets = _int64(values)
        return targets.masked_fill_(targets == UNKNOWN, IGNORED) if self.unknown else targets


def _int64(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))


class CorpusEncoder:
    """Fits tokenizers on a text and encodes it, once: what comes out is cached.

    Args:
        cache: Where.
        name: What the names of the files begin with.
        fingerprint: The hash of the text.
    """

    def __init__(self, cache: Cache, name: str, fingerprint: str) -> None:
        self.cache = cache
        self.name = name
        self.fingerprint = fingerprint

    def fit(self, kind: str, vocab_size: int, text: str, end: int) -> Tokenizer:
        """Return a tokenizer fitted on a text up to `end`."""
        path = self._path("tokenizer", ".json", kind, vocab_size, self.fingerprint, end)
        cached = self.cache.read(path, lambda file: Tokenizer(kind, state=file.read_text(encoding="utf-8")))
        if cached is not None:
            return cached
        tokenizer = Tokenizer(kind)
        tokenizer.fit(pieces(text, 0, end), vocab_size)
        self.cache.keep(path, lambda file: file.write_text(tokenizer.state, encoding="utf-8"))
        return tokenizer

    def encode(self, tokenizer: Tokenizer, text: str, start: int, end: int) -> Tokens:
        """Return the tokens of a stretch of a text, `(N,)`, memory-mapped if they could be kept."""
        path = self._path("tokens", ".npy", tokenizer.state, self.fingerprint, start, end)

        def load(file: Path) -> Tokens:
            return _load_tokens(file, tokenizer.size)

        cached = self.cache.read(path, load)
        if cached is not None:
            return cached
        small = np.uint16 if tokenizer.size <= 2**16 else np.int32
        parts = [tokenizer.encode(some)[0].astype(small) for some in chunks(pieces(text, start, end))]
        tokens: Tokens = np.concatenate(parts or [np.zeros(0, small)])
        self.cache.keep(path, lambda file: _save_tokens(file, tokens))
        cached = self.cache.read(path, load)
        return tokens if cached is None else cached

    def _path(self, what: str, suffix: str, *made_from: object) -> Path:
        return self.cache.path(f"{self.name}-{what}", suffix, FORMAT, what, *made_from)


def unknown_characters(tokens: Tokens, text: str, start: int) -> str:
    """Count and name the characters that are not in the vocabulary; empty if there are none.

    Args:
        tokens: Those of a stretch of the text; one that is unknown is a character, and so are all others then.
        text: The text.
        start: Where the stretch begins.
    """
    at = np.flatnonzero(tokens == UNKNOWN)
    if not len(at):
        return ""
    names = sorted({text[start + place] for place in at[:100_000].tolist()})
    named = ", ".join(map(repr, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
    return f"{len(at):,} of {len(tokens):,} characters are not in the vocabulary ({named})"


def hashed(text: str) -> str:
    """Hash a text: SHA-256 of its UTF-8."""
    found = hashlib.sha256()
    for start in range(0, len(text), HASHED):
        found.update(text[start : start + HASHED].encode("utf-8", "surrogatepass"))
    return found.hexdigest()


def _save_tokens(path: Path, tokens: Tokens) -> None:
    with path.open("wb") as file:
        np.save(file, tokens)


def _load_tokens(path: Path, size: int) -> Tokens:
    tokens: Tokens = np.load(path, mmap_mode="r")
    if tokens.ndim != 1 or (len(tokens) and not 0 <= tokens.min() <= tokens.max() < size):
        raise ValueError(f"{path}: these are no tokens")
    return tokens
