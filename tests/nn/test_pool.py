import pytest
import torch
from torch import nn

from vitrail.nn.pool import AttentionPool

WIDTH, HEADS = 24, 3


@pytest.mark.parametrize("training", [False, True])
def test_pooling_is_pytorchs_attention_from_the_probe_and_an_mlp(training):
    torch.manual_seed(0)
    pool = AttentionPool(WIDTH, HEADS, 48, eps=1e-5)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    with torch.no_grad():
        for parameter in pool.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        theirs.in_proj_weight.copy_(torch.cat([pool.q.weight, pool.kv.weight]))
        theirs.in_proj_bias.copy_(torch.cat([pool.q.bias, pool.kv.bias]))
        theirs.out_proj.load_state_dict(pool.proj.state_dict())
    tokens = torch.randn(2, 9, WIDTH)
    with torch.set_grad_enabled(training):
        x = theirs(pool.probe.expand(2, -1, -1), tokens, tokens, need_weights=False)[0][:, 0]
        normalised = nn.functional.layer_norm(x, (WIDTH,), pool.norm.weight, pool.norm.bias, eps=1e-5)
        hidden = nn.functional.gelu(nn.functional.linear(normalised, *pool.mlp.fc1.parameters()))
        expected = x + nn.functional.linear(hidden, *pool.mlp.fc2.parameters())
        pooled = pool(tokens)
    assert pooled.shape == (2, WIDTH)
    torch.testing.assert_close(pooled, expected, atol=1e-5, rtol=1e-5)


def test_the_order_of_the_tokens_does_not_matter():
    torch.manual_seed(0)
    pool, tokens = AttentionPool(WIDTH, HEADS, 48), torch.randn(2, 9, WIDTH)
    torch.testing.assert_close(pool(tokens[:, torch.randperm(9)]), pool(tokens), atol=1e-5, rtol=1e-5)


def test_initial_values():
    """Each matrix is uniform within Xavier's bound for width to width, not for width to two widths; no biases."""
    torch.manual_seed(0)
    pool = AttentionPool(96, HEADS, 384)
    bound = (6 / (96 + 96)) ** 0.5
    for matrix in (pool.q.weight, *pool.kv.weight.chunk(2), pool.proj.weight):
        assert 0.99 * bound < matrix.abs().max() <= bound
        assert matrix.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)
    assert not any(linear.bias.any() for linear in (pool.q, pool.kv, pool.proj))
    assert pool.probe.any()
