"""The network of a language model, against what the papers say of it."""

import math

import pytest
import torch
from torch import nn

from lit_models.modules.transformer import GPT, Attention, KVCache, apply_rotary_emb


def angles(length: int, head: int) -> tuple[torch.Tensor, torch.Tensor]:
    net = GPT(5, length, 1, 1, head)
    return net.cos, net.sin


def test_a_rotation_tells_how_far_apart_two_tokens_are_and_nothing_else() -> None:
    cos, sin = angles(20, 8)
    q, k = torch.randn(8), torch.randn(8)
    product = apply_rotary_emb(q.expand(20, 8), cos, sin) @ apply_rotary_emb(k.expand(20, 8), cos, sin).T
    for distance in (0, 1, 7):
        diagonal = product.diagonal(-distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=1e-5)
    assert not torch.isclose(product[3, 0], product[0, 0])
    torch.testing.assert_close(product[0, 0], q @ k)


def test_a_rotation_is_by_the_angles_of_the_paper() -> None:
    cos, sin = angles(6, 4)
    x = torch.tensor([1.0, 0.0, 0.0, 1.0])  # the pairs are (1, 0) and (0, 1)
    slow = 5 / 10_000**0.5
    expected = torch.tensor([math.cos(5), -math.sin(slow), math.sin(5), math.cos(slow)])
    torch.testing.assert_close(apply_rotary_emb(x.expand(6, 4), cos, sin)[5], expected)


def test_attention_is_that_of_the_paper() -> None:
    torch.manual_seed(0)
    attention, (cos, sin), x = Attention(8, 2, 0.0), angles(5, 4), torch.randn(3, 5, 8)
    with torch.no_grad():
        q, k, v = (part.view(3, 5, 2, 4).transpose(1, 2) for part in attention.qkv(x).split(8, dim=2))
        q, k = apply_rotary_emb(attention.norm(q), cos, sin), apply_rotary_emb(attention.norm(k), cos, sin)
        weights = (q @ k.transpose(2, 3) / 2).masked_fill(torch.ones(5, 5).triu(1).bool(), -math.inf).softmax(3)
        expected = attention.out((weights @ v).transpose(1, 2).reshape(3, 5, 8))
        torch.testing.assert_close(attention(x, (cos, sin), None), expected)


def test_no_token_sees_what_comes_after_it() -> None:
    net = GPT(7, 6, 2, 2, 16).eval()
    ids = torch.randint(7, (2, 6))
    other = ids.clone()
    other[:, 4:] = (ids[:, 4:] + 1) % 7
    with torch.no_grad():
        torch.testing.assert_close(net(ids)[:, :4], net(other)[:, :4])
        assert not torch.allclose(net(ids)[:, 4], net(other)[:, 4])


@pytest.mark.parametrize("first", [1, 3, 6])
def test_what_is_cached_need_not_be_read_again(first: int) -> None:
    net = GPT(7, 6, 2, 2, 16).eval()
    ids, cache = torch.randint(7, (2, 6)), net.make_cache()
    with torch.no_grad():
        parts = [net(ids[:, :first], cache), *(net(ids[:, at : at + 1], cache) for at in range(first, 6))]
        torch.testing.assert_close(torch.cat(parts, dim=1), net(ids))
    assert [layer.length for layer in cache] == [6, 6]


def test_a_cache_keeps_what_it_gets_in_order() -> None:
    cache, k, v = KVCache(4), torch.randn(2, 1, 3, 5), torch.randn(2, 1, 3, 5)
    cache.extend(k[:, :, :2], v[:, :, :2])
    found = cache.extend(k[:, :, 2:], v[:, :, 2:])
    assert torch.equal(found[0], k)
    assert torch.equal(found[1], v)


def test_embedding_and_head_are_one() -> None:
    net = GPT(7, 6, 2, 2, 16)
    assert net.lm_head.weight is net.embedding.weight
    # 2 blocks of 12 * width ** 2 in matrices, and the embedding.
    assert sum(p.numel() for p in net.parameters() if p.ndim == 2) == 2 * 12 * 16**2 + 7 * 16


def test_a_new_network_knows_nothing() -> None:
    torch.manual_seed(0)
    logits = GPT(50, 16, 4, 4, 64)(torch.randint(50, (8, 16)))
    assert torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.randint(50, (128,))).item() == pytest.approx(
        math.log(50), abs=0.15
    )


@pytest.mark.parametrize("prefix", ["", "net."])
def test_older_checkpoints_have_another_name_for_the_head(prefix: str) -> None:
    saved, fresh = GPT(5, 4, 1, 1, 8), GPT(5, 4, 1, 1, 8)
    older = {prefix + key.replace("lm_head.", "head."): value for key, value in saved.state_dict().items()}
    assert f"{prefix}head.weight" in older
    (nn.ModuleDict({"net": fresh}) if prefix else fresh).load_state_dict(older, strict=True)
    torch.testing.assert_close(fresh.state_dict(), saved.state_dict(), rtol=0, atol=0)
    assert fresh.lm_head.weight is fresh.embedding.weight
