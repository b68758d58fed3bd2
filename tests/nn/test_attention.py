import pytest
import torch
from torch import nn

from vitrail.nn import attention as module
from vitrail.nn.attention import Attention, attend, attention_probabilities, init_attention, join_heads, split_heads
from vitrail.nn.rope import rotary_2d, rotate

WIDTH, HEADS = 24, 3


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def randomised(layer):
    """No parameter at a special value such as 0 or 1, so that nothing hides behind it."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return layer


def ours_and_pytorchs(bias=True):
    ours = randomised(Attention(WIDTH, HEADS, qkv_bias=bias))
    theirs = nn.MultiheadAttention(WIDTH, HEADS, bias=True, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias if bias else torch.zeros(3 * WIDTH))
        theirs.out_proj.weight.copy_(ours.proj.weight)
        theirs.out_proj.bias.copy_(ours.proj.bias)
    return ours, theirs


def test_heads_are_consecutive_slices_of_the_width():
    x = torch.randn(2, 5, WIDTH)
    heads = split_heads(x, HEADS)
    for head in range(HEADS):
        assert torch.equal(heads[:, head], x[..., 8 * head : 8 * (head + 1)])
    assert torch.equal(join_heads(heads), x)


def test_probabilities_by_hand():
    """One query of two numbers, three keys: the products 2, 0 and -2 are divided by the root of 2."""
    q, k = torch.tensor([[[[1.0, 1.0]]]]), torch.tensor([[[[1.0, 1.0], [1.0, -1.0], [-2.0, 0.0]]]])
    e = torch.tensor([2.0, 0.0, -2.0]).div(2**0.5).exp()
    torch.testing.assert_close(attention_probabilities(q, k)[0, 0, 0], e / e.sum())


def test_attend_by_loops():
    q, k, v = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 5, 4), torch.randn(1, 2, 5, 4)
    expected = torch.zeros(1, 2, 3, 4, dtype=torch.float64)
    for head in range(2):
        for i in range(3):
            weights = torch.tensor([(q[0, head, i].double() @ k[0, head, j].double() / 2).exp() for j in range(5)])
            for j in range(5):
                expected[0, head, i] += weights[j] / weights.sum() * v[0, head, j]
    torch.testing.assert_close(attend(q, k, v).double(), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("tokens", "trained", "fused"),
    [(7, True, False), (8, True, True), (8, False, False), (15, False, False), (16, False, True)],
)
def test_the_fused_kernel_is_left_to_float32_and_long_sequences(monkeypatch, tokens, trained, fused):
    calls = []
    kernel = module.F.scaled_dot_product_attention
    monkeypatch.setattr(module, "PRODUCTS_IN_TRAINING", 8)
    monkeypatch.setattr(module, "PRODUCTS", 16)
    monkeypatch.setattr(
        module.F, "scaled_dot_product_attention", lambda *args, **options: calls.append(1) or kernel(*args, **options)
    )
    q, k, v = torch.randn(3, 2, HEADS, tokens, 8, dtype=torch.bfloat16)
    attend(q.requires_grad_(trained), k, v)
    assert bool(calls) == fused
    calls.clear()
    attend(*(x.float() for x in (q, k, v)))
    assert calls


@pytest.mark.parametrize("at_once", [1, 40, 200, 10**6])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", [None, (1, 1, 1, 7), (2, 1, 7, 7), (1, HEADS, 7, 7)])
def test_attention_in_parts_is_the_fused_kernels(monkeypatch, at_once, causal, mask):
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    q, k, v = torch.randn(3, 2, HEADS, 7, 8, dtype=torch.bfloat16)
    mask = None if mask is None else torch.randn(mask, dtype=torch.bfloat16)
    shut = torch.ones(7, 7, dtype=torch.bool).tril()
    both = (mask if mask is not None else torch.zeros(7, 7)).float().masked_fill(~shut, -torch.inf) if causal else mask
    expected = module.F.scaled_dot_product_attention(
        *(x.float() for x in (q, k, v)), None if both is None else both.float()
    )
    torch.testing.assert_close(attend(q, k, v, mask=mask, causal=causal).float(), expected, atol=0.03, rtol=0.02)


@pytest.mark.parametrize("products", [False, True])
def test_both_ways_are_pytorchs_multihead_attention_with_its_gradients(monkeypatch, products):
    monkeypatch.setattr(module, "_products_are_faster", lambda *_: products)
    ours, theirs = ours_and_pytorchs()
    x = torch.randn(2, 17, WIDTH, requires_grad=True)
    y, expected = ours(x), theirs(x, x, x, need_weights=False)[0]
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)
    toward = torch.randn_like(y)
    mine = torch.autograd.grad((y * toward).sum(), [x, ours.qkv.weight, ours.qkv.bias, *ours.proj.parameters()])
    same = [x, theirs.in_proj_weight, theirs.in_proj_bias, *theirs.out_proj.parameters()]
    for gradient, other in zip(mine, torch.autograd.grad((expected * toward).sum(), same), strict=True):
        torch.testing.assert_close(gradient, other, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_without_gradients_and_without_biases():
    ours, theirs = ours_and_pytorchs(bias=False)
    assert ours.qkv.bias is None
    x = torch.randn(2, 17, WIDTH)
    torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_probabilities_are_pytorchs_for_each_head():
    ours, theirs = ours_and_pytorchs()
    x = torch.randn(2, 17, WIDTH)
    probabilities = ours.probabilities(x)
    torch.testing.assert_close(probabilities, theirs(x, x, x, average_attn_weights=False)[1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("rotated", [False, True])
@torch.no_grad()
def test_probabilities_are_what_forward_pays(qk_norm, rotated):
    layer = randomised(Attention(WIDTH, HEADS, qk_norm=qk_norm))
    x, rotation = torch.randn(2, 7, WIDTH), rotary_2d((2, 3), WIDTH // HEADS) if rotated else None
    probabilities = layer.probabilities(x, rotation)
    assert probabilities.shape == (2, HEADS, 7, 7)
    torch.testing.assert_close(probabilities.sum(dim=-1), torch.ones(2, HEADS, 7))
    v = layer.queries_keys_values(x, rotation)[2]
    torch.testing.assert_close(layer.proj(join_heads(probabilities @ v)), layer(x, rotation), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_queries_and_keys_are_normalised_head_by_head_before_they_are_turned():
    layer = randomised(Attention(WIDTH, HEADS, qk_norm=True))
    assert layer.q_norm.bias is None
    assert layer.k_norm.bias is None
    x = torch.randn(2, 6, WIDTH)
    q, k, v = layer.queries_keys_values(x)
    plain = layer.qkv(x)
    for part, values, norm in ((0, q, layer.q_norm), (1, k, layer.k_norm)):
        for head in range(HEADS):
            one = plain[..., part * WIDTH + 8 * head : part * WIDTH + 8 * (head + 1)]
            centred = one - one.mean(dim=-1, keepdim=True)
            expected = centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * norm.weight
            torch.testing.assert_close(values[:, head], expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(join_heads(v), plain[..., 2 * WIDTH :])

    rotation = rotary_2d((2, 3), 8)
    turned = layer.queries_keys_values(x, rotation)
    for values, expected in zip(turned, (rotate(q, rotation), rotate(k, rotation), v), strict=True):
        assert torch.equal(values, expected)


def test_tokens_may_come_in_any_order():
    """Without positions attention has no notion of place: permuted tokens give permuted answers."""
    layer, x, order = randomised(Attention(WIDTH, HEADS)), torch.randn(2, 9, WIDTH), torch.randperm(9)
    torch.testing.assert_close(layer(x[:, order]), layer(x)[:, order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_initial_values(bias):
    """Each matrix is uniform within Xavier's bound for width to width, not for width to three widths."""
    layer = Attention(96, HEADS, qkv_bias=bias)
    init_attention(layer)
    bound = (6 / (96 + 96)) ** 0.5
    for matrix in (*layer.qkv.weight.chunk(3), layer.proj.weight):
        assert 0.99 * bound < matrix.abs().max() <= bound
        assert matrix.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)
    assert not layer.proj.bias.any()
    assert (layer.qkv.bias is None) if not bias else not layer.qkv.bias.any()


def looked_at(queries, keys, mask=None, causal=False):
    """Which keys each query may look at, ``(queries, keys)``, restated one by one."""
    allowed = torch.ones(queries, keys, dtype=torch.bool)
    for i in range(queries):
        for j in range(keys):
            if causal and j > i + keys - queries:
                allowed[i, j] = False
            if mask is not None and not mask[i, j]:
                allowed[i, j] = False
    return allowed


@pytest.mark.parametrize("trained", [False, True])  # the fused kernel, and matrix products
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("queries", [5, 2, 1])
@pytest.mark.parametrize("masked", [None, "bool", "float"])
def test_masks_and_causality_against_a_softmax_written_out(trained, causal, queries, masked):
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 3, queries, 4), torch.randn(2, 3, 5, 4), torch.randn(2, 3, 5, 4)
    bools = torch.rand(queries, 5) < 0.6
    bools[:, 0] = True  # a query that sees nothing has no softmax
    bias = torch.randn(queries, 5)
    allowed = looked_at(queries, 5, bools if masked == "bool" else None, causal)
    products = torch.einsum("bhid,bhjd->bhij", q, k) * 0.3 + (bias if masked == "float" else 0)
    weights = torch.where(allowed, products.exp(), 0.0)
    expected = weights / weights.sum(-1, keepdim=True) @ v
    mask = {None: None, "bool": bools, "float": bias}[masked]
    y = attend(q.requires_grad_(trained), k, v, mask=mask, causal=causal, scale=0.3)
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)
    probabilities = module.attention_probabilities(q, k, mask=mask, causal=causal, scale=0.3)
    torch.testing.assert_close(probabilities @ v, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_kept_keys_and_values_give_what_all_tokens_together_give():
    torch.manual_seed(0)
    layer = module.Attention(12, 3, causal=True)
    x = torch.randn(2, 7, 12)
    cache = module.KeyValues()
    parts = [layer(part, cache=cache) for part in x.split([3, 1, 2, 1], dim=1)]
    assert len(cache) == 7
    torch.testing.assert_close(torch.cat(parts, dim=1), layer(x), atol=1e-6, rtol=1e-5)


def test_rows_of_a_cache_can_be_chosen():
    cache = module.KeyValues()
    assert len(cache) == 0
    keys = torch.randn(3, 2, 4, 5)
    cache.extended(keys, -keys)
    cache.select(torch.tensor([2, 0, 2, 1]))
    assert torch.equal(cache.keys, keys[[2, 0, 2, 1]])
    assert torch.equal(cache.values, -keys[[2, 0, 2, 1]])


def test_a_causal_layer_looks_back_only():
    layer = module.Attention(12, 3, causal=True)
    probabilities = layer.probabilities(torch.randn(1, 6, 12))
    assert (probabilities.triu(1) == 0).all()
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(1, 3, 6))
