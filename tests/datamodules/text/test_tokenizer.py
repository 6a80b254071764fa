"""Tokenizers encode texts and decode them again."""

import shlex
import sys
from types import ModuleType

import numpy as np
import pytest
from tokenizers import trainers

from datamodules.errors import DataError
from datamodules.text.tokenizer import PAD, SPECIAL, UNKNOWN, Tokenizer, chunks

TEXTS = ["the cat sat on the mat", "the dog sat", "a cat, a dog", "Über dem Fluß"] * 3
STRANGE = ["<unk> <pad>", "  two  spaces\n\n\tand a tab \r\n", "北京 😀👍🏽 e\u0301", "\0\u2028", "<|endoftext|>", "'"]


def fitted(
    kind: str, texts: list[str], vocab_size: int = 400, min_count: int = 1, lowercase: bool = False
) -> Tokenizer:
    tokenizer = Tokenizer(kind, lowercase)
    tokenizer.fit(texts, vocab_size, min_count)
    return tokenizer


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    """The tokens of a text, all of them in the vocabulary."""
    return [tokenizer.decode([token]) for token in tokenizer.encode([text])[0].tolist()]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat sat.", ["The", "cat", "sat", "."]),
        ("Don't l\u2019été rock'n", ["Don't", "l\u2019été", "rock'n"]),
        ("'quoted' it''s", ["'", "quoted", "'", "it", "'", "'", "s"]),
        ("3.14 a_b over-cool", ["3", ".", "14", "a_b", "over", "-", "cool"]),
        ("我爱北京abc", ["我", "爱", "北", "京", "abc"]),
        ("こんにちは 한국어 हिन्दी", ["こ", "ん", "に", "ち", "は", "한국어", "हिन्दी"]),
        ("😀!? <unk>", ["😀", "!", "?", "<", "unk", ">"]),
        ("cafe\u0301", ["caf\u00e9"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert pieces(fitted("words", [text]), text) == words


def test_words_out_of_vocabulary_are_unknown_and_empty_texts_have_no_tokens() -> None:
    tokenizer = fitted("words", TEXTS)
    ids, offsets = tokenizer.encode(["the zebra", "", " \n", "cat"])
    assert offsets.tolist() == [0, 2, 2, 2, 3]
    assert (ids == UNKNOWN).tolist() == [False, True, False]
    assert ids.dtype == np.int32
    assert offsets.dtype == np.int64
    assert tokenizer.encode([])[1].tolist() == [0]


def test_the_most_frequent_words_are_in_the_vocabulary() -> None:
    assert fitted("words", TEXTS, min_count=4).size == 2 + 5  # the, cat, sat, dog, a
    known = fitted("words", TEXTS, vocab_size=4)
    assert known.size == 4
    assert (known.encode(["the a cat mat"])[0] != UNKNOWN).sum() <= 2


def test_texts_are_lowercased_if_asked() -> None:
    assert fitted("words", ["The the THE"]).size == 2 + 3
    assert fitted("words", ["The the THE"], lowercase=True).size == 2 + 1
    for kind in ("chars", "bpe"):
        tokenizer = fitted(kind, ["über ÜBER"], lowercase=True)
        assert tokenizer.decode(tokenizer.encode(["ÜBER"])[0].tolist()) == "über"


@pytest.mark.parametrize("text", [*TEXTS[:4], *STRANGE])
def test_byte_pairs_give_any_text_back(text: str) -> None:
    tokenizer = fitted("bpe", TEXTS)
    ids = tokenizer.encode([text])[0]
    assert not np.isin(ids, [PAD, UNKNOWN]).any()
    assert tokenizer.decode(ids.tolist()) == text
    assert tokenizer.lengths()[ids].sum() == len(text)


def test_byte_pairs_merge_what_is_often_together() -> None:
    assert len(fitted("bpe", TEXTS).encode(["the cat sat"])[0]) < len("the cat sat") / 2


@pytest.mark.parametrize("text", STRANGE)
def test_characters_give_back_what_is_known(text: str) -> None:
    tokenizer = fitted("chars", [text])
    ids = tokenizer.encode([text])[0]
    assert len(ids) == len(text) == tokenizer.lengths()[ids].sum()
    assert tokenizer.decode(ids.tolist()) == text
    assert tokenizer.encode(["\u1234"])[0].tolist() == [UNKNOWN]


@pytest.mark.parametrize("kind", ["words", "chars", "bpe", "shlex.split"])
def test_the_same_texts_give_the_same_vocabulary_and_its_state_is_all_of_it(kind: str) -> None:
    first, again = fitted(kind, TEXTS, lowercase=True), fitted(kind, TEXTS, lowercase=True)
    assert first.state == again.state
    restored = Tokenizer(kind, True, first.state)
    text = "The mat <pad> ZEBRA"
    assert restored.encode([text])[0].tolist() == first.encode([text])[0].tolist()
    assert restored.size == first.size
    assert restored.lengths().tolist() == first.lengths().tolist()


def test_many_texts_are_encoded_as_each_alone() -> None:
    tokenizer = fitted("words", TEXTS)
    texts = [" ".join(["cat"] * (number % 7)) for number in range(9000)]
    ids, offsets = tokenizer.encode(iter(texts))
    assert np.diff(offsets).tolist() == [number % 7 for number in range(9000)]
    assert len(ids) == offsets[-1]


@pytest.mark.parametrize("vocab_size", [3, 9, 400])
@pytest.mark.parametrize("min_count", [1, 2])
def test_characters_are_those_that_the_library_finds(vocab_size: int, min_count: int) -> None:
    texts = [*TEXTS, *STRANGE, ""] * 3 + ["\U0010ffff\ud7ff\ue000\ufeff"]
    quick = fitted("chars", texts, vocab_size, min_count)
    library = Tokenizer("chars")._pipeline
    trainer = trainers.WordLevelTrainer(
        vocab_size=vocab_size, min_frequency=min_count, special_tokens=SPECIAL, show_progress=False
    )
    library.train_from_iterator(texts, trainer)
    assert quick.state == library.to_str()
    unseen = [*texts, "zebra \U0001f993 \u1234", "<unk>"]
    ids, offsets = quick.encode(iter(unseen))
    found = [encoding.ids for encoding in library.encode_batch(unseen, add_special_tokens=False)]
    assert ids.dtype == np.int32
    assert ids.tolist() == [token for some in found for token in some]
    assert offsets.tolist() == np.cumsum([0, *map(len, found)]).tolist()


def test_half_a_character_is_unknown_and_none_of_the_vocabulary() -> None:
    tokenizer = fitted("chars", ["a\ud800b\udc00\ud83d"])
    assert tokenizer.size == len(SPECIAL) + 2
    assert (tokenizer.encode(["a\ud800b"])[0] == UNKNOWN).tolist() == [False, True, False]


def test_characters_that_are_fitted_again_have_other_ids() -> None:
    tokenizer = fitted("chars", ["aab"])
    first = tokenizer.encode(["ab"])[0].tolist()
    tokenizer.fit(["abb"], 10)
    assert tokenizer.encode(["ba"])[0].tolist() == first


def test_small_letters_that_are_two_characters() -> None:
    tokenizer = fitted("chars", ["\u0130i"], lowercase=True)  # a capital I with a dot is an i and a dot
    ids, offsets = tokenizer.encode(["\u0130", "I"])
    assert offsets.tolist() == [0, 2, 3]
    assert ids[0] == ids[2] != UNKNOWN


def test_a_users_function_gives_the_words() -> None:
    tokenizer = fitted("shlex.split", ['New "York City" is big'], lowercase=True)
    ids, offsets = tokenizer.encode(['"york city" New', "", "York"])
    assert offsets.tolist() == [0, 2, 2, 3]
    assert (ids == UNKNOWN).tolist() == [False, False, True]
    assert shlex.split('"york city"') == [tokenizer.decode(ids[:1].tolist())]


def test_no_word_of_a_function_is_taken_for_padding() -> None:
    assert PAD not in fitted("shlex.split", ["a b"]).encode(["a <pad> <unk>"])[0]


def test_chunks_are_bounded_by_their_texts_and_by_their_characters() -> None:
    texts = ["x" * 10] * 10_000 + ["y" * 600_000] * 5 + [""]
    found = list(chunks(iter(texts)))
    assert [text for some in found for text in some] == texts
    assert max(map(len, found)) <= 4096
    assert max(sum(map(len, some)) for some in found) < 1_600_000
    assert list(chunks([])) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wordz", "tokenizer='wordz': there is no such kind"),
        ("no_such_package.cut", "no_such_package.cut': there is no such function (No module named 'no_such_package'"),
        ("shlex.nothing", "has no attribute 'nothing'"),
        ("", "there is no such kind"),
        ("math.pi", "tokenizer='math.pi': this is not a function"),
    ],
)
def test_a_function_that_is_none(name: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        Tokenizer(name).encode(["some text"])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("result", ["fails", "numbers"])
def test_a_function_that_fails_names_the_text(result: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("cutter")
    module.__dict__.update({"fails": lambda text: 1 / 0, "numbers": lambda text: [1]})
    monkeypatch.setitem(sys.modules, "cutter", module)
    with pytest.raises(DataError, match=f"tokenizer='cutter.{result}': it fails on 'some text'"):
        fitted(f"cutter.{result}", ["some text"])


@pytest.mark.parametrize(("kind", "least"), [("words", 3), ("chars", 3), ("bpe", 258)])
def test_a_vocabulary_has_room_for_something(kind: str, least: int) -> None:
    assert fitted(kind, TEXTS, vocab_size=least).size <= least
    with pytest.raises(DataError, match=f"vocab_size={least - 1}: .* at least {least}"):
        fitted(kind, TEXTS, vocab_size=least - 1)


def test_what_is_neither_a_kind_nor_in_a_module_is_refused() -> None:
    with pytest.raises(DataError, match=r"tokenizer='jieba': there is no such kind; give words, chars, bpe, or"):
        Tokenizer("jieba")
