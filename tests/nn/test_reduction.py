import pytest
import torch
from torch import nn

from vitrail.errors import SettingError
from vitrail.nn.reduction import ConvTokens, ReducedAttention, as_map


def randomised(module):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return module.double()


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (7, 4, 3)])
@torch.no_grad()
def test_tokens_are_a_linear_map_of_each_window_normalised(kernel, stride, padding):
    part = randomised(ConvTokens(3, 5, kernel, stride, padding=padding, eps=1e-2))
    images = torch.randn(2, 3, 11, 9, dtype=torch.float64)
    padded = nn.functional.pad(images, [padding] * 4)
    tokens, (h, w) = part(images)
    assert tokens.shape == (2, h * w, 5)
    assert (h, w) == tuple((n + 2 * padding - kernel) // stride + 1 for n in (11, 9))
    for row in range(h):
        for column in range(w):
            window = padded[:, :, row * stride : row * stride + kernel, column * stride : column * stride + kernel]
            y = window.flatten(1) @ part.conv.weight.flatten(1).T + part.conv.bias
            y = (y - y.mean(1, keepdim=True)) / (y.var(1, correction=0, keepdim=True) + 1e-2).sqrt()
            torch.testing.assert_close(tokens[:, row * w + column], y * part.norm.weight + part.norm.bias)


@pytest.mark.parametrize("reduced", [False, True])
@torch.no_grad()
def test_every_token_looks_at_the_reduced_ones(reduced):
    part = randomised(ReducedAttention(6, 2, ConvTokens(6, 6, 2, 2, eps=1e-5) if reduced else None))
    x = torch.randn(1, 20, 6, dtype=torch.float64)
    source = part.reduction(as_map(x, (4, 5)))[0] if reduced else x
    assert source.shape[1] == (4 if reduced else 20)
    heads = []
    for head in (slice(0, 3), slice(3, 6)):
        q = part.q(x)[0, :, head]
        k, v = part.kv(source)[0, :, :6][:, head], part.kv(source)[0, :, 6:][:, head]
        rows = []
        for query in q:
            weights = torch.stack([(query @ key / 3**0.5).exp() for key in k])
            rows.append((weights[:, None] * v).sum(0) / weights.sum())
        heads.append(torch.stack(rows))
    torch.testing.assert_close(part(x, (4, 5))[0], part.proj(torch.cat(heads, dim=1)))


def test_a_map_that_is_smaller_than_the_kernel():
    sentence = "^a map of 3x8 places is too small for a reduction that needs 4x4; give larger images.$"
    with pytest.raises(SettingError, match=sentence):
        ConvTokens(1, 2, 4, 4, eps=1e-5)(torch.zeros(1, 1, 3, 8))


def test_heads_must_divide_the_width():
    with pytest.raises(SettingError, match=r"^the width 10 is not divisible by 3 heads\.$"):
        ReducedAttention(10, 3, None)


def test_maps_have_their_tokens_row_by_row():
    tokens = torch.arange(12.0).reshape(1, 6, 2)
    assert as_map(tokens, (2, 3))[0, 0].tolist() == [[0, 2, 4], [6, 8, 10]]
