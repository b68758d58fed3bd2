"""A packed row against what its images would be alone, by loops and by one dense mask."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vitrail.nn.attention import Attention, attend_within
from vitrail.nn.rope import rotary_2d, rotate, rotation
from vitrail.nn.segments import Segments, pack

GROUPS = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 9)), min_size=1, max_size=5)


def owners(groups: list[tuple[int, int]]) -> Tensor:
    """For each token of the row a number of its image."""
    lengths = [tokens for images, tokens in groups for _ in range(images)]
    return torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))


@given(GROUPS)
@settings(deadline=None, max_examples=30)
def test_a_row_has_the_tokens_of_each_image_in_their_order_and_gives_them_back(groups):
    tensors = [torch.randn(images, tokens, 4) for images, tokens in groups]
    row, segments = pack(tensors)
    assert torch.equal(row, torch.cat([image for tensor in tensors for image in tensor])[None])
    assert segments.groups == tuple(groups)
    assert all(torch.equal(one, same) for one, same in zip(segments.unpack(row), tensors, strict=True))


@given(GROUPS)
@settings(deadline=None, max_examples=30)
def test_the_mask_lets_tokens_of_one_image_look_at_one_another(groups):
    owner = owners(groups)
    assert torch.equal(Segments(tuple(groups)).mask(), owner[:, None] == owner[None, :])


@given(GROUPS, st.sampled_from([None, 1.0, 0.3]))
@settings(deadline=None, max_examples=30)
def test_attention_within_images_is_dense_attention_under_a_mask(groups, scale):
    owner = owners(groups)
    q, k, v = torch.randn(3, 1, 2, len(owner), 8).unbind()
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=owner[:, None] == owner[None, :], scale=scale)
    result = attend_within(q, k, v, Segments(tuple(groups)), scale=scale)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)


def test_no_token_sees_another_image():
    groups = ((2, 3), (1, 5))
    q, k, v = torch.randn(3, 1, 2, 11, 8).unbind()
    before = attend_within(q, k, v, Segments(groups))
    k[:, :, 3:6], v[:, :, 3:6] = 1e4, 1e4  # the second image
    after = attend_within(q, k, v, Segments(groups))
    others = [0, 1, 2, *range(6, 11)]
    assert torch.equal(before[:, :, others], after[:, :, others])
    assert not torch.equal(before[:, :, 3:6], after[:, :, 3:6])


def test_a_layer_and_its_probabilities_agree_on_a_packed_row():
    torch.manual_seed(0)
    layer = Attention(12, 3)
    row, segments = pack([torch.randn(2, 4, 12), torch.randn(1, 6, 12)])
    shares = layer.probabilities(row, segments=segments)
    assert torch.equal(shares[0, 0] > 0, segments.mask())
    torch.testing.assert_close(layer.attended(shares, row, segments=segments), layer(row, segments=segments))


def mixed(grid: tuple[int, int]) -> object:
    """A rotation that differs from head to head."""
    angles = torch.randn(2, grid[0] * grid[1], 4, generator=torch.Generator().manual_seed(sum(grid)))
    return rotation(angles, "neighbours")


@pytest.mark.parametrize("make", [lambda grid: rotary_2d(grid, 8), mixed])
@pytest.mark.parametrize("prefix", [0, 3])
def test_a_row_is_turned_as_each_image_is(make, prefix):
    grids, images = [(2, 3), (4, 1)], (2, 1)
    groups = [torch.randn(n, 2, prefix + h * w, 8) for n, (h, w) in zip(images, grids, strict=True)]
    row, segments = pack([group.transpose(1, 2) for group in groups])
    turned = rotate(row.transpose(1, 2), segments.rotation([make(grid) for grid in grids]))
    alone = [rotate(group, make(grid)) for group, grid in zip(groups, grids, strict=True)]
    torch.testing.assert_close(turned, pack([x.transpose(1, 2) for x in alone])[0].transpose(1, 2))


def test_without_rotary_positions_nothing_turns():
    assert Segments(((1, 3), (2, 4))).rotation([None, None]) is None
