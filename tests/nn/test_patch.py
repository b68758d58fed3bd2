import re

import pytest
import torch

from vitrail.errors import SettingError
from vitrail.nn.patch import PatchEmbedding, patch_grid


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
