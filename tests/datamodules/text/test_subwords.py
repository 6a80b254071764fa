"""Subwords of tokens."""

from datamodules.text.subwords import MOST, subword_hashes


def test_related_words_share_subwords() -> None:
    learned, learner, other = (set(row.tolist()) - {0} for row in subword_hashes(["learned", "learner", "zip"]))
    assert len(learned & learner) >= 9  # <le, lea, ear, arn, rne, <lea, lear, earn, arne, ...
    assert not learned & other


def test_a_beginning_is_not_an_ending() -> None:
    first, second = (set(row.tolist()) - {0} for row in subword_hashes(["ab", "ba"]))
    assert len(first) == len(second) == 2  # <ab and ab>; <ab> is the token itself
    assert not first & second


def test_short_tokens_have_none_and_long_ones_no_more_than_fit() -> None:
    hashes = subword_hashes(["", "a", "\u4e2d", "x" * 500, "".join(map(chr, range(97, 123)))])
    assert hashes.shape == (5, MOST)
    assert (hashes != 0).sum(1).tolist() == [0, 0, 0, 9, MOST]
    assert hashes.min() == 0


def test_hashes_are_the_same_everywhere() -> None:
    assert subword_hashes(["cat"])[0, :6].tolist() == [643148878, 509494186, 1013373277, 2057700033, 1274054593, 0]
