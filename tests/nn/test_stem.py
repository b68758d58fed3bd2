from __future__ import annotations

import pytest
import torch
from torch.nn.functional import batch_norm, conv2d, relu

from vitrail.errors import SettingError
from vitrail.nn.stem import ConvStem


def test_stem_by_hand():
    torch.manual_seed(0)
    stem = ConvStem(channels=3, width=16, patch_size=4).eval()
    x = images = torch.randn(2, 3, 8, 12)
    for stride, (conv, norm, _) in zip((1, 2, 2), stem.convs, strict=True):
        x = conv2d(x, conv.weight, stride=stride, padding=1)
        x = relu(batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5))
    expected = torch.einsum("bchw,dc->bdhw", x, stem.proj.weight[:, :, 0, 0]) + stem.proj.bias[:, None, None]
    assert expected.shape == (2, 16, 2, 3)
    torch.testing.assert_close(stem(images), expected, atol=1e-5, rtol=1e-5)


def test_channels_double_up_to_half_the_width():
    convs = ConvStem(channels=1, width=32, patch_size=8).convs
    assert [conv[0].weight.shape[:2] for conv in convs] == [(4, 1), (4, 4), (8, 4), (16, 8)]


@pytest.mark.parametrize(("width", "patch_size"), [(16, 1), (16, 3), (16, 6), (12, 8)])
def test_patch_sizes_that_cannot_be(width, patch_size):
    with pytest.raises(SettingError, match="stem=patch"):
        ConvStem(channels=1, width=width, patch_size=patch_size)


def test_image_that_does_not_divide_into_patches():
    with pytest.raises(SettingError, match="not divisible by the patch size 4"):
        ConvStem(channels=1, width=8, patch_size=4)(torch.zeros(1, 1, 10, 8))
