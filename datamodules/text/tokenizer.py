"""Tokenizers: words, characters, byte pairs, or the words of a user's function."""

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Pipeline

from datamodules.errors import DataError

PAD, UNKNOWN = 0, 1  # the first ids of every vocabulary: padding, and what is out of it
SPECIAL = ["<pad>", "<unk>"]
KINDS = ("words", "chars", "bpe")

# A character of Chinese or Japanese; letters, digits and marks, with an apostrophe between; or one sign.
CHARACTER = r"\p{Han}\p{Hiragana}\p{Katakana}"
LETTER = r"\p{L}\p{M}\p{N}_"
WORD = rf"[{CHARACTER}]|[{LETTER}&&[^{CHARACTER}]]+(?:['\u2019]\p{{L}}+)?|[^\s{LETTER}]"
CHUNK = 4096  # texts that are encoded at a time, unless they have more than
CHUNK_CHARACTERS = 1_000_000  # each of which takes about a hundred bytes in the encoding of a library
CODE_POINTS = 0x110000  # all of Unicode
SURROGATES = slice(0xD800, 0xE000)  # halves of characters
# How GPT-2 writes the bytes 0x80 to 0xBF, which continue a character of UTF-8: printable ones as they are.
CONTINUING = {chr(sign) for sign in (*range(0xA1, 0xAD), *range(0xAE, 0xC0), *range(0x122, 0x144))}


class Tokenizer:
    """Encodes texts as token ids, and decodes them, by a vocabulary that `fit` builds.

    Words and characters that are out of vocabulary become `UNKNOWN`; byte pairs (Sennrich et al. 2016, over the bytes
    of UTF-8 as in GPT-2) can encode every text.

    Args:
        kind: `words` (Unicode's letters and digits; every Chinese character is one), `chars`, `bpe`, or the dotted name
            of a function from a text to its words, as `jieba.lcut`, which is imported when it is first needed.
        lowercase: Whether texts are lowercased first.
        state: The `state` of a fitted tokenizer.

    Raises:
        DataError: If there is no such kind; and from `fit` or `encode`, if there is no such function.
    """

    def __init__(self, kind: str = "words", lowercase: bool = False, state: str | None = None) -> None:
        self.kind = kind
        if kind not in KINDS and "." not in kind:
            raise self._error("there is no such kind")
        self._ids: NDArray[np.int32] | None = None  # of every character there is, `(CODE_POINTS,)`
        self._pipeline = self._make(lowercase) if state is None else Pipeline.from_str(state)
        self._pipeline.encode_special_tokens = True  # "<unk>" in a text is read as these characters

    def _make(self, lowercase: bool) -> Pipeline:
        pipeline = Pipeline(models.BPE() if self.kind == "bpe" else models.WordLevel(unk_token=SPECIAL[UNKNOWN]))
        if self.kind == "bpe":
            pipeline.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            pipeline.decoder = decoders.ByteLevel()
        elif self.kind == "chars":
            pipeline.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
            pipeline.decoder = decoders.Fuse()
        elif self.kind == "words":
            pipeline.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), "removed", invert=True)
        normalizer: list[normalizers.Normalizer] = [normalizers.NFC()] if self.kind not in ("bpe", "chars") else []
        normalizer += [normalizers.Lowercase()] * lowercase
        if normalizer:
            pipeline.normalizer = normalizers.Sequence(normalizer)
        return pipeline

    def fit(self, texts: Iterable[str], vocab_size: int, min_count: int = 1) -> None:
        """Build the vocabulary from texts.

        Args:
            texts: The training texts.
            vocab_size: Maximum number of ids, including the special ones.
            min_count: How often a token, or a pair to be merged, must occur.

        Raises:
            DataError: If `vocab_size` has no room for any token besides the special ones, or for all bytes.
        """
        least = len(SPECIAL) + (256 if self.kind == "bpe" else 1)  # all bytes, or one token
        if vocab_size < least:
            raise DataError(f"{self.kind} need at least {least}", option="vocab_size", value=vocab_size)
        if self._is_direct:
            self._count(texts, vocab_size, min_count)
            return
        options: dict[str, Any] = {"vocab_size": vocab_size, "special_tokens": SPECIAL, "show_progress": False}
        trainer: trainers.Trainer
        if self.kind == "bpe":
            alphabet = pre_tokenizers.ByteLevel.alphabet()
            trainer = trainers.BpeTrainer(min_frequency=max(min_count, 2), initial_alphabet=alphabet, **options)
        else:
            trainer = trainers.WordLevelTrainer(min_frequency=min_count, **options)
        if self.kind not in KINDS:
            texts = chain.from_iterable(map(self._words, texts))
        self._pipeline.train_from_iterator(texts, trainer)

    @property
    def _is_direct(self) -> bool:
        """Whether every character of a text, unchanged, is a token: NumPy then is some 60 times as fast."""
        return self.kind == "chars" and self._pipeline.normalizer is None

    def _count(self, texts: Iterable[str], vocab_size: int, min_count: int) -> None:
        """Find the most frequent characters, of equally frequent ones the first, as the library's trainer does."""
        counts = np.zeros(CODE_POINTS, np.int64)
        for some in chunks(texts):
            points, found = np.unique(_code_points(some), return_counts=True)
            counts[points] += found
        counts[SURROGATES] = 0  # which no vocabulary can hold
        known = np.flatnonzero(counts >= max(min_count, 1))
        known = known[np.argsort(-counts[known], kind="stable")][: vocab_size - len(SPECIAL)]
        names = SPECIAL + list(map(chr, known.tolist()))
        self._pipeline.model = models.WordLevel({name: at for at, name in enumerate(names)}, SPECIAL[UNKNOWN])
        self._pipeline.add_special_tokens(SPECIAL)
        self._ids = None

    def _encode_characters(self, texts: Sequence[str]) -> NDArray[np.int32]:
        if self._ids is None:
            self._ids = np.full(CODE_POINTS, UNKNOWN, np.int32)
            for token, at in self._pipeline.get_vocab().items():
                if len(token) == 1:
                    self._ids[ord(token)] = at
        found: NDArray[np.int32] = self._ids[_code_points(texts)]
        return found

    @cached_property
    def _segment(self) -> Callable[[str], Sequence[str]]:
        """The user's function."""
        module, _, function = self.kind.rpartition(".")
        try:
            found: Callable[[str], Sequence[str]] = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError, ValueError) as error:
            raise self._error(f"there is no such function ({error})") from error
        if not callable(found):
            raise self._error("this is not a function")
        return found

    def _error(self, problem: str) -> DataError:
        remedy = f"give {', '.join(KINDS)}, or a function from a text to its words with its module, as jieba.lcut"
        return DataError(problem, remedy, "tokenizer", self.kind)

    def _words(self, text: str) -> list[str]:
        segment = self._segment
        try:
            return [word for word in segment(text) if word.strip()]
        except Exception as error:  # a user's function may raise anything
            problem = f"it fails on {text[:60]!r} ({type(error).__name__}: {error})"
            raise DataError(problem, option="tokenizer", value=self.kind) from error

    @property
    def state(self) -> str:
        """Everything fitted, as JSON."""
        return str(self._pipeline.to_str())

    @property
    def size(self) -> int:
        """Number of ids."""
        return int(self._pipeline.get_vocab_size())

    @property
    def tokens(self) -> list[str]:
        """The token of each id; nothing for padding and what is out of vocabulary."""
        found = [""] * self.size
        for token, at in self._pipeline.get_vocab().items():
            found[at] = token if at > UNKNOWN else ""
        return found

    def encode(self, texts: Iterable[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Encode texts.

        Returns:
            The ids of all texts, concatenated, `(N,)`, and the offsets of the texts in them, `(n + 1,)`.
        """
        parts: list[NDArray[np.int32]] = []
        lengths = [0]
        for some in chunks(texts):
            if self._is_direct:
                parts.append(self._encode_characters(some))
                lengths += map(len, some)
                continue
            has_words = self.kind not in KINDS
            given = [self._words(text) for text in some] if has_words else some
            found = self._pipeline.encode_batch_fast(given, is_pretokenized=has_words, add_special_tokens=False)
            ids = [encoding.ids for encoding in found]
            flat = np.fromiter(chain.from_iterable(ids), np.int32)
            flat[flat == PAD] = UNKNOWN  # a user's function may return "<pad>" as a word
            parts.append(flat)
            lengths += map(len, ids)
        return np.concatenate(parts) if parts else np.zeros(0, np.int32), np.cumsum(lengths, dtype=np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids into a text: exactly the encoded one, if they are byte pairs, or characters in the vocabulary."""
        return str(self._pipeline.decode(list(ids), skip_special_tokens=True))  # a character that is cut off is U+FFFD

    def lengths(self) -> NDArray[np.int64]:
        """Count the characters of each token, `(size,)`; a character of several tokens counts for the first of them."""
        found = np.ones(self.size, np.int64)
        found[PAD] = 0
        if self.kind == "bpe":
            for token, at in self._pipeline.get_vocab().items():
                if at > UNKNOWN:
                    found[at] = sum(sign not in CONTINUING for sign in token)
        return found


def _code_points(texts: Sequence[str]) -> NDArray[np.uint32]:
    return np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), "<u4")


def chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield texts in lists: of up to `CHUNK` texts, and no more than reach `CHUNK_CHARACTERS`."""
    some: list[str] = []
    size = 0
    for text in texts:
        some.append(text)
        size += len(text)
        if len(some) == CHUNK or size >= CHUNK_CHARACTERS:
            yield some
            some, size = [], 0
    if some:
        yield some
