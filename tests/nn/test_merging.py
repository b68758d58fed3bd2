"""Token merging beside a naive account of it, and where it must change nothing: among tokens that are alike."""

import pytest
import torch
from torch import nn

from vitrail.models.vit.vit import Block, Config
from vitrail.nn.attention import Attention, attention_probabilities
from vitrail.nn.merging import Merging, match
from vitrail.nn.rope import Rotation, rotary_2d, rotate

SIZES = [(0, 8), (0, 7), (1, 8), (1, 9), (2, 6), (5, 12)]  # prefix, patches


def similarity(one, other):
    return torch.dot(one, other).item() / (one.norm() * other.norm()).item()


def groups_by_hand(keys, pairs, prefix):
    """The tokens of one input that become one, as sets of numbers: token by token, without a matrix."""
    patches = range(prefix, len(keys))
    edges = []
    for token in (number for number in patches if number % 2 == 0):
        partner = max(
            (number for number in patches if number % 2), key=lambda other: similarity(keys[token], keys[other])
        )
        edges.append((similarity(keys[token], keys[partner]), token, partner))
    groups = {number: {number} for number in range(len(keys))}
    for _, token, partner in sorted(edges, reverse=True)[:pairs]:
        groups[partner] |= groups.pop(token)
    return {frozenset(group) for group in groups.values()}


def groups_of(into):
    return {frozenset((into == number).nonzero().flatten().tolist()) for number in into.unique()}


@pytest.mark.parametrize(("prefix", "patches"), SIZES)
def test_matching_is_what_it_is_by_hand(prefix, patches):
    random = torch.Generator().manual_seed(prefix + patches)
    for pairs in range(1, patches // 2 + 1):
        keys = torch.randn(3, prefix + patches, 4, generator=random)
        into = match(keys, pairs, prefix)
        for row, key in zip(into, keys, strict=True):
            assert groups_of(row) == groups_by_hand(key, pairs, prefix)
            assert row[:prefix].tolist() == list(range(prefix))
            assert row.unique().tolist() == list(range(prefix + patches - pairs))


def with_keys(merging, keys):
    """Let the merging see attention whose keys are the tokens."""
    attention = Attention(keys.shape[2], 1, qkv_bias=False)
    with torch.no_grad():
        attention.qkv.weight.zero_()
        attention.qkv.weight.unflatten(0, (3, -1))[1].fill_diagonal_(1)
    merging.attend(attention, keys)


@pytest.mark.parametrize(("prefix", "patches"), SIZES)
def test_after_several_blocks_a_token_is_the_mean_of_all_that_are_in_it(prefix, patches):
    random = torch.Generator().manual_seed(1)
    x = torch.randn(4, prefix + patches, 5, generator=random)
    merging, y = Merging(pairs=2, prefix=prefix), x
    for _ in range(3):
        before = y.shape[1]
        with_keys(merging, y)
        y = merging.merge(y)
        assert y.shape[1] == before - min(2, (before - prefix) // 2)
    restored = merging.restore(y)
    assert restored.shape == x.shape
    assert torch.equal(y[:, :prefix], x[:, :prefix])
    for row in range(4):
        for group in map(sorted, groups_of(merging.into[row])):
            token = merging.into[row, group[0]]
            torch.testing.assert_close(y[row, token], x[row, group].mean(dim=0))
            assert torch.equal(restored[row, group], y[row, token].expand(len(group), -1))
            assert merging.sizes[row, token] == len(group)
    torch.testing.assert_close(restored.mean(dim=1), x.mean(dim=1))  # pooled by size
    torch.testing.assert_close((y * merging.sizes.unsqueeze(-1)).sum(dim=1), x.sum(dim=1))


def test_tokens_are_merged_until_one_is_left():
    merging, y = Merging(pairs=99, prefix=1), torch.randn(2, 1 + 9, 4)
    left = []
    for _ in range(5):
        with_keys(merging, y)
        y = merging.merge(y)
        left.append(y.shape[1] - 1)
    assert left == [5, 3, 2, 1, 1]
    assert merging.sizes.tolist() == [[1.0, 9.0]] * 2


def test_the_first_block_pays_attention_as_ever_and_the_next_in_proportion():
    torch.manual_seed(0)
    attention = Attention(8, 2)
    x = torch.randn(2, 6, 8)
    merging = Merging(pairs=2)
    torch.testing.assert_close(merging.attend(attention, x), attention(x))
    y = merging.merge(x)
    q, k, v = attention.queries_keys_values(y)
    weights = attention_probabilities(q, k) * merging.sizes[:, None, None]  # eq. 1: softmax(q kᵀ / √d + log s)
    expected = attention.proj(((weights / weights.sum(dim=-1, keepdim=True)) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(merging.attend(attention, y), expected)


@pytest.mark.parametrize("changes", [{}, {"parallel": True}, {"qk_norm": True}, {"layer_scale": 0.5}])
@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("rotary", [False, True])
@torch.no_grad()
def test_blocks_do_not_change_when_tokens_that_are_the_same_become_one(changes, prefix, rotary):
    torch.manual_seed(0)
    blocks = nn.ModuleList(Block(Config(24, 3, 3, 48, **changes), 0.0) for _ in range(3)).eval()
    for parameter in blocks.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    x = torch.randn(2, prefix + 6, 24)
    x = torch.cat([x[:, :prefix], x[:, prefix:].repeat_interleave(8, dim=1)], dim=1)  # each block halves their number
    turns = rotary_2d((2, 3), 8)
    rotation = (
        Rotation(turns.cos.repeat_interleave(8, dim=0), turns.sin.repeat_interleave(8, dim=0)) if rotary else None
    )
    expected, merging, y = x, Merging(pairs=24, prefix=prefix), x
    for block, left in zip(blocks, (24, 12, 6), strict=True):
        expected, y = block(expected, rotation), block(y, rotation, merging=merging)
        assert y.shape[1] == prefix + left
    assert merging.sizes[:, prefix:].eq(8).all()
    torch.testing.assert_close(merging.restore(y), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("heads", [1, 3])
def test_a_product_with_a_merged_key_is_the_mean_of_those_at_its_places(heads):
    random = torch.Generator().manual_seed(0)
    angles = torch.randn(heads, 6, 4, generator=random)
    rotation = Rotation(angles.cos().repeat(1, 1, 2), angles.sin().repeat(1, 1, 2))
    if heads == 1:
        rotation = Rotation(rotation.cos[0], rotation.sin[0])
    merging = Merging(pairs=2, prefix=1)
    merging.into = torch.tensor([[0, 1, 1, 1, 2, 3, 2], [0, 3, 2, 1, 3, 3, 1]])
    merging.sizes = torch.tensor([[1.0, 3, 2, 1], [1, 2, 1, 3]])
    tokens, queries = torch.randn(2, heads, 4, 8, generator=random), torch.randn(2, heads, 8, generator=random)
    turned = rotate(tokens, merging.turned(rotation))
    assert torch.equal(turned[:, :, 0], tokens[:, :, 0])
    apart = rotate(tokens.gather(2, merging.into[:, None, :, None].expand(-1, heads, -1, 8)), rotation)
    for row in range(2):
        for token in range(1, 4):
            there = merging.into[row] == token
            expected = torch.einsum("hd,hpd->hp", queries[row], apart[row][:, there]).mean(dim=1)
            torch.testing.assert_close(torch.einsum("hd,hd->h", queries[row], turned[row, :, token]), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_tokens_keep_their_type(dtype):
    torch.manual_seed(0)
    block = Block(Config(24, 1, 3, 48), 0.0).to(dtype)
    merging, y = Merging(pairs=3), torch.randn(2, 10, 24, dtype=dtype)
    for left in (7, 4):
        y = block(y, merging=merging)
        assert (y.dtype, y.shape) == (dtype, (2, left, 24))
    assert merging.restore(y).dtype == dtype


def test_gradients_reach_every_token():
    block = Block(Config(24, 1, 3, 48), 0.0)
    merging, x = Merging(pairs=4), torch.randn(2, 10, 24, requires_grad=True)
    merging.restore(block(block(x, merging=merging), merging=merging)).square().sum().backward()
    assert x.grad.abs().sum(dim=2).gt(0).all()
