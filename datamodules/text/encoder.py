"""A plain text as tokens: encoded once, and cached."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.cache import Cache
from datamodules.text.files import TextFiles, pieces
from datamodules.text.tokenizer import UNKNOWN, Tokenizer, chunks

SHOWN = 8  # unknown characters that are named at most
FORMAT = "2"  # of the cached files; older ones are not read

Tokens = NDArray[Any]  # uint16 if the vocabulary is small enough, else int32


class CorpusEncoder:
    """Fits tokenizers on a text and encodes it; both are cached.

    Args:
        files: The text.
        cache: The cache.
    """

    def __init__(self, files: TextFiles, cache: Cache) -> None:
        self.files = files
        self.cache = cache

    def fit(self, kind: str, vocab_size: int, end: int) -> Tokenizer:
        """Return a tokenizer fitted on the text up to `end`."""
        path = self._path("tokenizer", ".json", kind, vocab_size, self.files.fingerprint, end)
        cached = self.cache.read(path, lambda file: Tokenizer(kind, state=file.read_text(encoding="utf-8")))
        if cached is not None:
            return cached
        tokenizer = Tokenizer(kind)
        tokenizer.fit(pieces(self.files.text, 0, end), vocab_size)
        self.cache.keep(path, lambda file: file.write_text(tokenizer.state, encoding="utf-8"))
        return tokenizer

    def encode(self, tokenizer: Tokenizer, start: int, end: int) -> Tokens:
        """Return the tokens of a stretch of the text, `(N,)`, memory-mapped if they could be cached."""
        path = self._path("tokens", ".npy", tokenizer.state, self.files.fingerprint, start, end)
        load = partial(_load, size=tokenizer.size)
        cached = self.cache.read(path, load)
        if cached is not None:
            return cached
        dtype = np.uint16 if tokenizer.size <= 2**16 else np.int32
        parts = [tokenizer.encode(some)[0].astype(dtype) for some in chunks(pieces(self.files.text, start, end))]
        tokens: Tokens = np.concatenate(parts or [np.zeros(0, dtype)])
        self.cache.keep(path, lambda file: _save(file, tokens))
        cached = self.cache.read(path, load)
        return tokens if cached is None else cached

    def _path(self, what: str, suffix: str, *made_from: object) -> Path:
        return self.cache.path(f"{self.files.stem}-{what}", suffix, FORMAT, what, *made_from)


def unknown_characters(tokens: Tokens, text: str, start: int) -> str:
    """Count and name the out-of-vocabulary characters; empty if there are none.

    Args:
        tokens: The tokens of a stretch of the text; if one is unknown, all are characters.
        text: The text.
        start: The start of the stretch.
    """
    at = np.flatnonzero(tokens == UNKNOWN)
    if not len(at):
        return ""
    names = sorted({text[start + place] for place in at[:100_000].tolist()})
    named = ", ".join(map(repr, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
    return f"{len(at):,} of {len(tokens):,} characters are not in the vocabulary ({named})"


def _save(path: Path, tokens: Tokens) -> None:
    with path.open("wb") as file:
        np.save(file, tokens)


def _load(path: Path, size: int) -> Tokens:
    tokens: Tokens = np.load(path, mmap_mode="r")
    if tokens.ndim != 1 or (len(tokens) and not 0 <= tokens.min() <= tokens.max() < size):
        raise ValueError(f"{path}: these are no tokens")
    return tokens
