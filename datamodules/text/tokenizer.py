"""Text to tokens and back: words, characters, byte pairs, or the words of a function of one's own."""

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Pipeline

from datamodules.errors import DataError

PAD, UNKNOWN = 0, 1  # the first ids, whatever the tokens are: what fills a row of a batch, and what was never seen
SPECIAL = ["<pad>", "<unk>"]
KINDS = ("words", "chars", "bpe")
BYTES = 256  # tokens that byte-pair encoding begins with

# A character of Chinese or Japanese; letters, digits and marks, with an apostrophe between; or one sign.
CHARACTER = r"\p{Han}\p{Hiragana}\p{Katakana}"
LETTER = r"\p{L}\p{M}\p{N}_"
WORD = rf"[{CHARACTER}]|[{LETTER}&&[^{CHARACTER}]]+(?:['\u2019]\p{{L}}+)?|[^\s{LETTER}]"
ANY_CHARACTER = r"[\s\S]"
CHUNK = 4096  # texts that are encoded at a time, unless they have
CHUNK_CHARACTERS = 1_000_000  # or more, of each of which a library's encoding takes about a hundred bytes
POINTS = 0x110000  # what a character can be
SURROGATES = slice(0xD800, 0xE000)  # halves of characters, which are none


class Tokenizer:
    """Turns texts into ids and back, by a vocabulary that `fit` finds.

    Words and characters that are not in it become `UNKNOWN`; byte pairs (Sennrich et al. 2016, over the bytes of UTF-8
    as in GPT-2) know every text.

    Args:
        kind: `words` (Unicode's letters and digits; every Chinese character is one), `chars`, `bpe`, or a function
            from a text to its words by its dotted name, as `jieba.lcut`.
        lowercase: Whether capitals count as small letters.
        state: What `state` gave of a tokenizer that is fitted.

    Raises:
        DataError: If there is no such function.
    """

    def __init__(self, kind: str = "words", lowercase: bool = False, state: str | None = None) -> None:
        self.kind = kind
        self._segment = None if kind in KINDS else _find(kind)
        self._lowercase = lowercase
        self._pipeline = self._make() if state is None else Pipeline.from_str(state)
        # So that a text with "<unk>" in it is read as the characters that stand there.
        self._pipeline.encode_special_tokens = True

    def _make(self) -> Pipeline:
        pipeline = Pipeline(models.BPE() if self.kind == "bpe" else models.WordLevel(unk_token=SPECIAL[UNKNOWN]))
        if self.kind == "bpe":
            pipeline.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            pipeline.decoder = decoders.ByteLevel()
        elif self.kind == "chars":
            pipeline.pre_tokenizer = pre_tokenizers.Split(Regex(ANY_CHARACTER), "isolated")
            pipeline.decoder = decoders.Fuse()
        elif self.kind == "words":
            pipeline.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), "removed", invert=True)
        normalizer: list[normalizers.Normalizer] = [normalizers.NFC()] if self.kind not in ("bpe", "chars") else []
        if self._lowercase:
            normalizer.append(normalizers.Lowercase())
        if normalizer:
            pipeline.normalizer = normalizers.Sequence(normalizer)
        return pipeline

    def fit(self, texts: Iterable[str], vocab_size: int, min_count: int = 1) -> None:
        """Find the vocabulary.

        Args:
            texts: What to learn it from.
            vocab_size: How many ids there are at most, the special ones among them.
            min_count: How often a token, or a pair to be joined, must be seen.

        Raises:
            DataError: If there is no room for more than the special ids, or for all bytes.
        """
        least = len(SPECIAL) + (BYTES if self.kind == "bpe" else 1)
        if vocab_size < least:
            raise DataError(f"--data.vocab_size {vocab_size}: {self.kind} need at least {least}.")
        if self._is_direct:
            self._count(texts, vocab_size, min_count)
            return
        trainer: trainers.Trainer
        if self.kind == "bpe":
            trainer = trainers.BpeTrainer(
                vocab_size=vocab_size,
                min_frequency=max(min_count, 2),
                special_tokens=SPECIAL,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            )
        else:
            trainer = trainers.WordLevelTrainer(
                vocab_size=vocab_size, min_frequency=min_count, special_tokens=SPECIAL, show_progress=False
            )
        if self._segment is None:
            self._pipeline.train_from_iterator(texts, trainer)
        else:  # its words reach the trainer whole
            whole = Pipeline(models.WordLevel(unk_token=SPECIAL[UNKNOWN]))
            whole.normalizer = self._pipeline.normalizer
            whole.train_from_iterator(chain.from_iterable(map(self._words, texts)), trainer)
            whole.encode_special_tokens = True
            self._pipeline = whole

    @property
    def _is_direct(self) -> bool:
        """Whether each character of a text, as it stands there, is a token: then NumPy is some 60 times as fast."""
        return self.kind == "chars" and self._pipeline.normalizer is None

    def _count(self, texts: Iterable[str], vocab_size: int, min_count: int) -> None:
        """Find the most frequent characters, the first of them where they are equal, as the library's trainer does."""
        counts = np.zeros(POINTS, np.int64)
        for some in chunks(texts):
            points, found = np.unique(_points(some), return_counts=True)
            counts[points] += found
        counts[SURROGATES] = 0  # no vocabulary can hold them
        known = np.flatnonzero(counts >= max(min_count, 1))
        known = known[np.argsort(-counts[known], kind="stable")][: vocab_size - len(SPECIAL)]
        names = SPECIAL + list(map(chr, known.tolist()))
        self._pipeline.model = models.WordLevel({name: at for at, name in enumerate(names)}, SPECIAL[UNKNOWN])
        self._pipeline.add_special_tokens(SPECIAL)
        self.__dict__.pop("_ids", None)

    @cached_property
    def _ids(self) -> NDArray[np.int32]:
        """The id of every character that there can be, `(POINTS,)`."""
        ids = np.full(POINTS, UNKNOWN, np.int32)
        for token, at in self._pipeline.get_vocab().items():
            if len(token) == 1:
                ids[ord(token)] = at
        return ids

    def _words(self, text: str) -> list[str]:
        assert self._segment is not None
        try:
            return [word for word in self._segment(text) if word.strip()]
        except Exception as error:  # whatever a stranger's function meets
            reason = f"{type(error).__name__}: {error}"
            raise DataError(f"--data.tokenizer {self.kind}: it fails on {text[:60]!r} ({reason}).") from error

    @property
    def state(self) -> str:
        """All that was fitted, as JSON."""
        state: str = self._pipeline.to_str()
        return state

    @property
    def size(self) -> int:
        """How many ids there are."""
        size: int = self._pipeline.get_vocab_size()
        return size

    def encode(self, texts: Iterable[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Turn texts into ids.

        Args:
            texts: The texts.

        Returns:
            All ids in a row, `(N,)`, and where each text begins, with the end of the last, `(n + 1,)`.
        """
        parts: list[NDArray[np.int32]] = []
        lengths = [0]
        for some in chunks(texts):
            if self._is_direct:
                parts.append(self._ids[_points(some)])
                lengths += map(len, some)
                continue
            if self._segment is None:
                found = self._pipeline.encode_batch_fast(some, add_special_tokens=False)
            else:
                words = [self._words(text) for text in some]
                found = self._pipeline.encode_batch_fast(words, is_pretokenized=True, add_special_tokens=False)
            ids = [encoding.ids for encoding in found]
            flat = np.fromiter(chain.from_iterable(ids), np.int32)
            flat[flat == PAD] = UNKNOWN  # a function of one's own may give "<pad>" for a word
            parts.append(flat)
            lengths += map(len, ids)
        return np.concatenate(parts) if parts else np.zeros(0, np.int32), np.cumsum(lengths, dtype=np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        """Turn ids into a text: exactly that which was encoded, of characters and byte pairs that are all known."""
        # Byte pairs put a character that is cut off in the middle as U+FFFD.
        text: str = self._pipeline.decode(list(ids), skip_special_tokens=True)
        return text

    def lengths(self) -> NDArray[np.int64]:
        """Count the characters that each id stands for, `(size,)`; of a character of several ids, the first counts."""
        found = np.ones(self.size, np.int64)
        found[PAD] = 0
        if self.kind == "bpe":
            # GPT-2 writes a byte as a character of its own; those that go on with a character are 0x80 to 0xBF.
            signs = _byte_signs()
            for token, at in self._pipeline.get_vocab().items():
                if at > UNKNOWN:
                    found[at] = sum(not 0x80 <= signs[sign] < 0xC0 for sign in token)
        return found


def _find(name: str) -> Callable[[str], Sequence[str]]:
    module, _, function = name.rpartition(".")
    if not module:
        raise DataError(
            f"--data.tokenizer {name}: there is no such kind; give {', '.join(KINDS)}, or a function with its module, "
            "as jieba.lcut."
        )
    try:
        found: Callable[[str], Sequence[str]] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise DataError(
            f"--data.tokenizer {name}: there is no such function ({error}); give {', '.join(KINDS)}, or a function "
            "from a text to its words, as jieba.lcut, of a package that is installed."
        ) from error
    if not callable(found):
        raise DataError(f"--data.tokenizer {name}: this is no function.")
    return found


def _byte_signs() -> dict[str, int]:
    """Invert GPT-2's table of bytes: those that can be seen stand for themselves, the others for 256 and up."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + at): byte for at, byte in enumerate(unseen)}


def _points(texts: Sequence[str]) -> NDArray[np.uint32]:
    return np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), "<u4")


def chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Go through texts, some at a time: up to `CHUNK`, and no more than reach `CHUNK_CHARACTERS`."""
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
