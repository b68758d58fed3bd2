"""What a layer's reach says against what the layer does: values are handed through it, one place at a time."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vitrail.models.swin.swin import WindowAttention
from vitrail.models.t2t.tokens import TokenPerformer, TokenTransformer
from vitrail.nn.attention import Attention, KeyValues
from vitrail.nn.pool import AttentionPool
from vitrail.nn.reach import AttentionLayer, Full, Reduced, Windowed, grid_centres, overlap, spread
from vitrail.nn.reduction import ConvTokens, ReducedAttention
from vitrail.nn.window import Windows, fit, relative_positions, shift_mask

sides = st.integers(1, 12)


def transparent(linear):
    """A map that changes nothing."""
    nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)


def probabilities_like(values):
    return (2 * torch.randn_like(values)).softmax(dim=-1)


def windowed(size, window, borders, shifted):
    """A layer whose one head takes the first channel as it is, and its inputs but the map."""
    layer = WindowAttention(2, 1, window, qkv_bias=True)
    nn.init.eye_(layer.qkv.weight[4:])
    nn.init.zeros_(layer.qkv.bias)
    transparent(layer.proj)
    windows = fit(size, window, borders)
    windows = windows if shifted else windows._replace(shift=(0, 0))
    mask = shift_mask(size, windows) if any(windows.shift) else None
    return layer, (windows, relative_positions(windows.size, window), mask)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("borders", ["paper", "timm", "torchvision"])
@pytest.mark.parametrize("size", [(4, 6), (5, 7), (3, 2), (1, 5)])
@torch.no_grad()
def test_windows_carry_what_the_layer_mixes(size, borders, shifted):
    """The N x N matrix of a layer in windows, by putting 1 at one place and looking where it goes."""
    torch.manual_seed(0)
    layer, others = windowed(size, (3, 3), borders, shifted)
    count = size[0] * size[1]
    paid = probabilities_like(layer.probabilities(torch.randn(1, *size, 2), *others))
    goes = torch.zeros(count, count)
    for place in range(count):
        map_ = torch.zeros(1, *size, 2)
        map_[0, place // size[1], place % size[1], 0] = 1
        goes[:, place] = layer.attended(paid, map_, *others)[0, ..., 0].flatten()
    reach = layer.reach(torch.zeros(1, *size, 2), *others)
    assert isinstance(reach, Windowed)
    carried = reach.carry(paid[:, :, 0], torch.eye(count)[None])
    torch.testing.assert_close(carried[0], goes)
    shares = torch.rand(1, 3, count)
    torch.testing.assert_close(reach.carry(paid[:, :, 0], shares), shares @ goes)


@torch.no_grad()
def test_a_window_that_was_shifted_together_does_not_look_across_the_border():
    torch.manual_seed(0)
    layer, others = windowed((6, 6), (3, 3), "paper", shifted=True)
    x = torch.randn(1, 6, 6, 2)
    rows = layer.reach(x, *others).carry(layer.probabilities(x, *others)[:, :, 0], torch.eye(36)[None])[0]
    seen = rows.view(6, 6, 6, 6) > 1e-6
    for (row, column), (other_row, other_column) in itertools.product(itertools.product(range(6), repeat=2), repeat=2):
        together = (row + 2) // 3 == (other_row + 2) // 3 and (column + 2) // 3 == (other_column + 2) // 3
        assert seen[row, column, other_row, other_column] == together


@pytest.mark.parametrize(("size", "ratio"), [((4, 6), 2), ((6, 3), 3)])
@torch.no_grad()
def test_reduced_attention_carries_what_the_layer_mixes(size, ratio):
    """With a reduction that takes means, a place of the small map has the same share of each place it covers."""
    torch.manual_seed(0)
    layer = ReducedAttention(2, 1, ConvTokens(2, 2, ratio, ratio, eps=1e-6))
    layer.reduction.norm = nn.Identity()
    layer.reduction.conv.weight.copy_(torch.eye(2)[:, :, None, None].expand(-1, -1, ratio, ratio) / ratio**2)
    nn.init.zeros_(layer.reduction.conv.bias)
    nn.init.eye_(layer.kv.weight[2:])
    nn.init.zeros_(layer.kv.bias)
    transparent(layer.proj)
    count = size[0] * size[1]
    paid = probabilities_like(layer.probabilities(torch.randn(1, count, 2), size))
    goes = torch.zeros(count, count)
    for place in range(count):
        tokens = torch.zeros(1, count, 2)
        tokens[0, place, 0] = 1
        goes[:, place] = layer.attended(paid, tokens, size)[0, :, 0]
    reach = layer.reach(torch.zeros(1, count, 2), size)
    assert reach == Reduced(size, (size[0] // ratio, size[1] // ratio))
    torch.testing.assert_close(reach.carry(paid[:, 0], torch.eye(count)[None])[0], goes)


def test_without_a_reduction_every_token_reaches_every_token():
    assert ReducedAttention(4, 2, None).reach(torch.zeros(1, 7, 4), (2, 3)) == Full((2, 3))


@given(before=sides, after=sides)
@settings(max_examples=40, deadline=None)
def test_overlap_by_counting_small_pieces(before, after):
    pieces = math.lcm(before, after)
    counted = np.zeros((before, after))
    for piece in range(pieces):
        counted[piece * before // pieces, piece * after // pieces] += before / pieces
    np.testing.assert_allclose(overlap(before, after, torch.zeros(())).numpy(), counted, atol=1e-6)


@given(before=st.tuples(sides, sides), after=st.tuples(sides, sides))
@settings(max_examples=40, deadline=None)
def test_spreading_keeps_sums_and_what_is_even(before, after):
    shares = torch.rand(2, before[0] * before[1], dtype=torch.float64)
    torch.testing.assert_close(spread(shares, before, after).sum(dim=-1), shares.sum(dim=-1))
    even = torch.full((1, before[0] * before[1]), 1 / (before[0] * before[1]), dtype=torch.float64)
    torch.testing.assert_close(
        spread(even, before, after), torch.full((1, after[0] * after[1]), 1 / math.prod(after)).double()
    )


def test_spreading_to_a_finer_map_is_even():
    finer = spread(torch.tensor([[4.0, 8.0]]), (1, 2), (2, 4)).view(2, 4)
    assert finer.tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]


def test_centres_by_hand():
    assert grid_centres((2, 1)).tolist() == [[0.25, 0.5], [0.75, 0.5]]
    queries, keys = Full((2, 1)).centres(torch.zeros(1, 1, 3, 3))
    assert queries.isnan().tolist() == [[True, True], [False, False], [False, False]]
    assert torch.equal(queries.nan_to_num(), keys.nan_to_num())
    queries, keys = Reduced((2, 2), (1, 1)).centres(torch.zeros(1, 1, 4, 1))
    assert keys.tolist() == [[0.5, 0.5]]
    assert queries[3].tolist() == [0.75, 0.75]
    centres, _ = Windowed((1, 3), Windows((1, 2))).centres(torch.zeros(1, 2, 1, 2, 2))
    assert centres[0, 0].tolist() == [[0.5, pytest.approx(1 / 6)], [0.5, 0.5]]
    assert centres[1, 0].isnan().tolist() == [[False, False], [True, True]]  # the second is padding


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (Attention(6, 2), (torch.randn(1, 5, 6),)),
        (AttentionPool(6, 2, 8), (torch.randn(1, 5, 6),)),
        (ReducedAttention(6, 2, None), (torch.randn(1, 6, 6), (2, 3))),
        (TokenTransformer(6, 4), (torch.randn(1, 6, 6), (2, 3))),
        (TokenPerformer(6, 4).eval(), (torch.randn(1, 6, 6), (2, 3))),
    ],
)
def test_every_kind_is_an_attention_layer_whose_gradient_runs_through_the_probabilities(layer, inputs):
    assert isinstance(layer, AttentionLayer)
    probabilities = layer.probabilities(*inputs)
    output = layer(*inputs)
    torch.testing.assert_close(layer.attended(probabilities, *inputs), output, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(layer.attended(torch.roll(probabilities, 1, dims=-1), *inputs), output, atol=1e-5)
    (slope,) = torch.autograd.grad(layer.attended(probabilities, *inputs).square().sum(), probabilities)
    assert slope.abs().max() > 0


def test_other_modules_are_no_attention_layers():
    assert not isinstance(nn.Linear(2, 2), AttentionLayer)
    assert not isinstance(nn.MultiheadAttention(2, 1), AttentionLayer)


@torch.no_grad()
def test_a_cache_and_a_mask_are_looked_at_as_forward_does():
    torch.manual_seed(0)
    layer, cache = Attention(6, 2, causal=True), KeyValues()
    x = torch.randn(1, 5, 6)
    layer(x[:, :3], cache=cache)
    output = layer(x[:, 3:], cache=cache)
    paid = layer.probabilities(x[:, 3:], cache=cache)
    assert paid.shape == (1, 2, 2, 5)
    torch.testing.assert_close(paid, layer.probabilities(x)[:, :, 3:], atol=1e-6, rtol=0)
    torch.testing.assert_close(layer.attended(paid, x[:, 3:], cache=cache), output, atol=1e-6, rtol=0)
    mask = torch.tensor([True, True, False, True, True])[None, None, None]
    paid = layer.probabilities(x, mask=mask)
    assert (paid[..., 2] == 0).all()
    torch.testing.assert_close(layer.attended(paid, x, mask=mask), layer(x, mask=mask), atol=1e-6, rtol=0)
