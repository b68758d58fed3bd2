import re

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.errors import SettingError
from vitrail.nn.patch import PatchEmbedding, patch_grid, resample_channels, resample_kernel


@pytest.mark.parametrize(("channels", "patch", "size"), [(3, 4, (8, 12)), (1, 2, (6, 2)), (2, 5, (5, 5))])
@torch.no_grad()
def test_every_patch_goes_through_one_linear_map(channels, patch, size):
    torch.manual_seed(0)
    embedding = PatchEmbedding(channels, 7, patch)
    embedding.proj.bias.normal_()
    images = torch.randn(2, channels, *size)
    rows, columns = size[0] // patch, size[1] // patch
    squares = images.unfold(2, patch, patch).unfold(3, patch, patch)  # (B, C, rows, columns, p, p)
    flat = squares.permute(0, 2, 3, 1, 4, 5).reshape(2, rows, columns, -1)
    expected = flat @ embedding.proj.weight.reshape(7, -1).T + embedding.proj.bias
    maps = embedding(images)
    assert maps.shape == (2, 7, rows, columns)
    torch.testing.assert_close(maps, expected.permute(0, 3, 1, 2), atol=1e-5, rtol=1e-5)


def test_initial_values():
    torch.manual_seed(0)
    embedding = PatchEmbedding(3, 512, 8)
    assert embedding.proj.weight.std().item() == pytest.approx((1 / (3 * 8 * 8)) ** 0.5, rel=0.02)
    assert not embedding.proj.bias.any()


def test_grid_of_patches():
    assert patch_grid((224, 224), 16) == (14, 14)
    assert patch_grid((8, 24), 4) == (2, 6)


@pytest.mark.parametrize(
    ("size", "patch", "instead"), [((225, 224), 16, 224), ((224, 230), 16, 224), ((3, 3), 4, 4), ((31, 40), 8, 24)]
)
def test_images_that_do_not_divide_into_patches(size, patch, instead):
    sentence = (
        f"image size {size[0]}x{size[1]} is not divisible by the patch size {patch}; "
        f"take an image size such as {instead} or another patch size."
    )
    with pytest.raises(SettingError, match=f"^{re.escape(sentence)}$"):
        patch_grid(size, patch)
    with pytest.raises(SettingError, match=f"^{re.escape(sentence)}$"):
        PatchEmbedding(1, 4, patch)(torch.zeros(1, 1, *size))


def scaled(patches, size):
    """Patches ``(N, p, p)`` at another size, by Pillow's bicubic filter."""
    pictures = [Image.fromarray(patch.numpy()).resize((size, size), Image.Resampling.BICUBIC) for patch in patches]
    return torch.from_numpy(np.stack([np.array(picture) for picture in pictures]))


@pytest.mark.parametrize(("before", "after"), [(4, 8), (8, 12), (16, 32), (6, 7)])
def test_larger_patches_give_the_tokens_that_the_small_ones_gave(before, after):
    """FlexiViT, section 3.4: nothing is lost when a patch grows, so the tokens can be the same."""
    torch.manual_seed(0)
    kernel, patches = torch.randn(5, 1, before, before), torch.randn(20, before, before)
    other = resample_kernel(kernel, after)
    assert other.shape == (5, 1, after, after)
    tokens = patches.flatten(1) @ kernel.flatten(1).T
    torch.testing.assert_close(scaled(patches, after).flatten(1) @ other.flatten(1).T, tokens, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("before", "after"), [(8, 4), (12, 8), (32, 16), (7, 6)])
def test_smaller_patches_give_the_nearest_tokens_that_can_be(before, after):
    """Of all kernels it has the least expected square error on white noise: the gradient there is zero."""
    torch.manual_seed(0)
    kernel = torch.randn(5, 1, before, before)
    resize = scaled(torch.eye(before**2).view(-1, before, before), after).flatten(1)  # (before², after²)
    error = resample_kernel(kernel, after).flatten(1) @ resize.T - kernel.flatten(1)  # E[(error · x)²] = |error|²
    torch.testing.assert_close(error @ resize, torch.zeros(5, after**2), atol=1e-3, rtol=0)
    assert error.square().sum() < kernel.square().sum()


def test_channels_are_resampled_alike_and_in_the_dtype_given():
    torch.manual_seed(0)
    kernel = torch.randn(4, 3, 8, 8)
    together = resample_kernel(kernel, 6)
    for channel in range(3):
        alone = resample_kernel(kernel[:, channel : channel + 1], 6)
        torch.testing.assert_close(together[:, channel : channel + 1], alone)
    assert resample_kernel(kernel.bfloat16(), 6).dtype == torch.bfloat16
    assert torch.equal(resample_kernel(kernel, 8), kernel)


def test_a_grey_image_gives_what_it_gave_as_rgb():
    torch.manual_seed(0)
    kernel, grey = torch.randn(5, 3, 4, 4), torch.randn(2, 1, 8, 8)
    as_rgb = torch.nn.functional.conv2d(grey.expand(-1, 3, -1, -1), kernel, stride=4)
    alone = torch.nn.functional.conv2d(grey, resample_channels(kernel, 1), stride=4)
    torch.testing.assert_close(alone, as_rgb, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("before", "after"), [(3, 2), (3, 4), (3, 6), (3, 7), (1, 3), (4, 3)])
def test_more_channels_repeat_the_kernels_in_turn(before, after):
    kernel = torch.randn(5, before, 4, 4)
    other = resample_channels(kernel, after)
    assert other.shape == (5, after, 4, 4)
    for channel in range(after):
        torch.testing.assert_close(other[:, channel], kernel[:, channel % before] * before / after)


def test_as_many_channels_are_left_alone():
    kernel = torch.randn(5, 3, 4, 4)
    assert torch.equal(resample_channels(kernel, 3), kernel)
