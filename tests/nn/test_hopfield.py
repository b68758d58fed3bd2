"""The modern Hopfield network against attention, its own energy, and what the paper proves of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vitrail.nn.attention import attend
from vitrail.nn.hopfield import Hopfield, energy, recall, recalled, retrieve, update


def on_sphere(count: int, width: int, seed: int = 0) -> Tensor:
    """Random patterns of norm √d, ``(count, d)`` float64."""
    patterns = torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return patterns / patterns.norm(dim=1, keepdim=True) * width**0.5


def half_erased(patterns: Tensor, seed: int = 1) -> Tensor:
    """Every pattern with half of its features, chosen by chance, at zero."""
    order = torch.rand(patterns.shape, generator=torch.Generator().manual_seed(seed)).argsort(dim=1)
    return patterns.masked_fill(order < patterns.shape[1] // 2, 0)


@pytest.mark.parametrize("beta", [0.1, 1.0, 4.0])
def test_an_update_is_attention_with_patterns_as_keys_and_values(beta):
    states, patterns = on_sphere(7, 16, seed=1).float(), on_sphere(50, 16).float()
    attended = attend(states[None, None], patterns[None, None], patterns[None, None], scale=beta)[0, 0]
    assert (update(states, patterns, beta) - attended).abs().max() <= 1e-6


def test_an_update_is_a_step_down_the_gradient_of_the_energy():
    states, patterns = on_sphere(7, 16, seed=1).requires_grad_(), on_sphere(50, 16)
    (gradient,) = torch.autograd.grad(energy(states, patterns, 0.3).sum(), states)
    assert torch.allclose(update(states, patterns, 0.3), states - gradient, atol=1e-12)


def test_the_energy_by_hand():
    patterns = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    state = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    likeness = torch.tensor([0.5, 1.0], dtype=torch.float64).exp().sum().log() / 0.5
    by_hand = -likeness + 2 / 2 + torch.log(torch.tensor(2.0, dtype=torch.float64)) / 0.5 + 4 / 2
    assert torch.allclose(energy(state, patterns, 0.5), by_hand)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(1, 12), st.floats(0.01, 20))
def test_the_energy_never_rises_and_keeps_to_its_bounds(seed, count, width, beta):
    random = torch.Generator().manual_seed(seed)
    patterns = torch.randn(count, width, generator=random, dtype=torch.float64)
    largest = patterns.norm(dim=1).max()
    states = torch.randn(5, width, generator=random, dtype=torch.float64)
    states = states / states.norm(dim=1, keepdim=True) * largest
    before = energy(states, patterns, beta)
    for _ in range(8):
        assert (before >= -1e-9).all()
        assert (before <= 2 * largest**2 + 1e-9).all()
        states = update(states, patterns, beta)
        after = energy(states, patterns, beta)
        assert (after <= before + 1e-9).all()
        before = after


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_thousand_patterns_half_erased_come_back_in_one_step(seed):
    patterns = on_sphere(1000, 64, seed)
    answers = retrieve(half_erased(patterns, seed), patterns, beta=1.0)
    assert torch.equal(torch.cdist(answers, patterns).argmin(dim=1), torch.arange(1000))
    assert ((answers - patterns).norm(dim=1) / 8).median() < 1e-4


def test_a_small_beta_forgets_them_all():
    patterns = on_sphere(1000, 64)
    answers = retrieve(half_erased(patterns), patterns, beta=64**-0.5)
    found = torch.cdist(answers, patterns).argmin(dim=1) == torch.arange(1000)
    assert ((answers - patterns).norm(dim=1) > 4).all()  # half of a pattern's norm away from what was asked for
    assert found.double().mean() > 0.9  # though a little of it is still there


def three_pairs(width: int = 24) -> Tensor:
    """Six patterns of norm 5: three pairs that resemble each other."""
    pairs = torch.eye(width, dtype=torch.float64)[:3].repeat_interleave(2, dim=0)
    own = torch.eye(width, dtype=torch.float64)[3:9]
    return 5 * (0.95 * pairs + (1 - 0.95**2) ** 0.5 * own)


@pytest.mark.parametrize(("beta", "patterns"), [(0.01, 6), (0.5, 2), (10.0, 1)])
def test_the_three_kinds_of_fixed_points(beta, patterns):
    stored = three_pairs()
    found = retrieve(stored, stored, beta, steps=200)
    assert (found - update(found, stored, beta)).abs().max() < 1e-9  # it is one
    assert recalled(found, stored, beta).tolist() == [patterns] * 6
    share = torch.zeros(6, 6, dtype=torch.float64)
    for row in range(6):
        first = {6: 0, 2: row // 2 * 2, 1: row}[patterns]
        share[row, first : first + patterns] = 1 / patterns
    assert torch.allclose(found, share @ stored, atol=0.06)  # the mean of all, of its pair, or the pattern itself


def test_what_is_recalled_sums_to_one_and_is_counted():
    states, patterns = on_sphere(3, 8, seed=1), on_sphere(20, 8)
    shares = recall(states, patterns, 0.2)
    assert torch.allclose(shares.sum(dim=-1), torch.ones(3, dtype=torch.float64))
    for row, count in zip(shares, recalled(states, patterns, 0.2, mass=0.5).tolist(), strict=True):
        largest = sorted(row.tolist(), reverse=True)
        assert sum(largest[:count]) >= 0.5 > sum(largest[: count - 1])


def ours_and_pytorchs(stored_width: int) -> tuple[Hopfield, nn.MultiheadAttention]:
    torch.manual_seed(0)
    ours = Hopfield(24, 3, stored_width=stored_width)
    theirs = nn.MultiheadAttention(24, 3, kdim=stored_width, vdim=stored_width, batch_first=True)
    parts = (ours.query, ours.key, ours.value)
    weights = (theirs.q_proj_weight, theirs.k_proj_weight, theirs.v_proj_weight)
    with torch.no_grad():
        for part, weight in zip(parts, weights, strict=True):
            weight.copy_(part.weight)
        theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        theirs.out_proj.load_state_dict(ours.proj.state_dict())
    return ours, theirs


def test_one_step_of_the_layer_is_pytorchs_multi_head_attention():
    ours, theirs = ours_and_pytorchs(stored_width=10)
    states, stored = torch.randn(2, 5, 24), torch.randn(2, 7, 10)
    allowed = torch.rand(5, 7) < 0.7
    allowed[:, 0] = True
    for mask in (None, allowed):
        expected, _ = theirs(states, stored, stored, attn_mask=None if mask is None else ~mask)
        assert torch.allclose(ours(states, stored, mask=mask), expected, atol=1e-5)


def test_more_steps_move_the_queries_among_the_keys():
    torch.manual_seed(0)
    layer = Hopfield(24, 3, beta=0.7, steps=4)
    states, stored = torch.randn(2, 5, 24), torch.randn(2, 7, 24)
    queries, keys, values = layer.query(states), layer.key(stored), layer.value(stored)
    heads = []
    for head in (slice(0, 8), slice(8, 16), slice(16, 24)):
        moved = retrieve(queries[..., head], keys[..., head], 0.7, steps=3)
        heads.append(recall(moved, keys[..., head], 0.7) @ values[..., head])
    assert torch.allclose(layer(states, stored), layer.proj(torch.cat(heads, dim=-1)), atol=1e-5)
