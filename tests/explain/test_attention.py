import numpy as np
import pytest
import torch

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.errors import SettingError
from vitrail.explain.attention import attention, attention_between
from vitrail.explain.look import Look
from vitrail.explain.record import record_attention
from vitrail.tasks import Classification

TINY = {"width": 24, "depth": 3, "heads": 3, "mlp": 48, "image_size": (24, 16), "patch_size": 8}
SWIN = {"width": 8, "depths": (2, 2), "heads": (1, 2), "window": 3, "image_size": (28, 20)}
PVT = {"widths": (8, 8), "depths": (1, 2), "heads": (1, 2), "mlp_ratios": (2, 2), "image_size": (32, 48)}


def a_task(name, **changes):
    torch.manual_seed(0)
    backbone = models.create(name, **changes)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return Classification(name, backbone, "abc", Preprocess(backbone.config.image_size)).eval()


def photographs(task, count=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, *task.preprocess.size), dtype=torch.uint8, generator=generator)


def recorded_of(task, images):
    with torch.no_grad(), record_attention(task.backbone) as recorded:
        task(images)
    return list(recorded.values())


def looked(task, images, layer=None, head=None):
    return attention(task, images, torch.zeros(len(images)), Look(layer, head))


@pytest.mark.parametrize(
    ("name", "changes", "prefix", "rows"),
    [
        ("vit-b16", {"registers": 2}, 3, [0]),
        ("vit-b16", {"pool": "mean", "registers": 1}, 1, range(1, 7)),
        ("vit-b16", {"pool": "mean", "class_token": True}, 1, range(1, 7)),
        ("vit-b16", {"pool": "class-mean"}, 1, [0]),
        ("deit-ti16", {}, 1, [0]),
        ("deit-ti16-distilled", {}, 2, [0, 1]),
        ("dinov3-s16", {"pool": "mean"}, 5, range(5, 11)),
        ("rope-vit-s16", {}, 1, [0]),
    ],
)
@pytest.mark.parametrize("layer", [None, 2])
@pytest.mark.parametrize("head", [None, 3])
def test_attention_by_loops(name, changes, prefix, rows, layer, head):
    task = a_task(name, **TINY | changes)
    images = photographs(task)
    probabilities = recorded_of(task, images)[(layer or 3) - 1].probabilities
    expected = np.zeros((2, 6))
    for image in range(2):
        for place in range(6):
            heads = range(3) if head is None else [head - 1]
            looks = [probabilities[image, h, row, prefix + place].item() for h in heads for row in rows]
            expected[image, place] = np.mean(looks)
        expected[image] /= expected[image].sum()
    np.testing.assert_allclose(looked(task, images, layer, head).numpy(), expected.reshape(2, 3, 2), atol=1e-6)


def test_attention_pooling_is_the_last_layer():
    task = a_task("vit-b16", **TINY, pool="map", registers=2)
    images = photographs(task)
    probe = recorded_of(task, images)[-1].probabilities
    assert probe.shape == (2, 3, 1, 6)
    torch.testing.assert_close(looked(task, images), probe.mean(dim=(1, 2)).view(2, 3, 2))
    torch.testing.assert_close(looked(task, images, 4, 2), probe[:, 1, 0].view(2, 3, 2))
    between = attention_between(task, images[0])
    torch.testing.assert_close(between.vector, probe[0, :, 0])
    torch.testing.assert_close(between.attention, probe[0].expand(-1, 6, -1))


def test_swin_looks_window_by_window():
    """The mean over all places, and no place is looked at from another window."""
    task = a_task("swin-t", **SWIN)
    images = photographs(task)
    first = recorded_of(task, images)[0].probabilities  # windows of 3x3 on a map of 7x5: 3x2, padded
    expected = torch.zeros(2, 9, 6)
    for number in range(6):
        row, column = 3 * (number // 2), 3 * (number % 2)
        for query in range(9):
            if row + query // 3 < 7 and column + query % 3 < 5:
                look = first[:, number, :, query].mean(dim=1).view(2, 3, 3)
                expected[:, row : row + 3, column : column + 3] += look
    expected = expected[:, :7, :5]
    torch.testing.assert_close(looked(task, images, 1), expected / expected.sum(dim=(1, 2), keepdim=True))
    between = attention_between(task, images[0], 1).attention.view(1, 7, 5, 7, 5)
    assert (between[0, 0, 0, :3, :3] > 0).all()
    assert between[0, 0, 0, 3:].max() == between[0, 0, 0, :, 3:].max() == 0
    shifted = attention_between(task, images[0], 2).attention.view(7, 5, 7, 5)
    assert (shifted[2, 2] > 1e-9).nonzero().amin(dim=0).tolist() == [1, 1], "places 1 to 3 are together after the shift"


def test_a_pyramid_looks_at_all_places_that_a_key_covers():
    task = a_task("pvt-tiny", **PVT, reductions=(2, 1))
    images = photographs(task)
    layers = recorded_of(task, images)
    small = layers[0].probabilities.mean(dim=(1, 2)).view(2, 4, 6)
    expected = small.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2) / 4
    torch.testing.assert_close(looked(task, images, 1), expected)
    torch.testing.assert_close(
        looked(task, images), to_1(layers[-1].probabilities[:, :, 0, 1:].mean(dim=1)).view(2, 4, 6)
    )


def to_1(rows):
    return rows / rows.sum(dim=-1, keepdim=True)


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_between_is_the_recorded_matrix_without_the_prefix(pool):
    task = a_task("vit-b16", **TINY, pool=pool, registers=1)
    image = photographs(task)[0]
    for number, layer in enumerate(recorded_of(task, image[None]), start=1):
        between = attention_between(task, image, number)
        assert between.grid == (3, 2)
        torch.testing.assert_close(between.attention, to_1(layer.probabilities[0, :, layer.prefix :, layer.prefix :]))
        if pool == "class":
            torch.testing.assert_close(between.vector, to_1(layer.probabilities[0, :, 0, 2:]))
        else:
            assert between.vector is None


def test_between_takes_places_of_a_fine_map_together():
    """30 x 58 places are too many; two by three and two by two, they come to 10 x 20 and 15 x 29."""
    task = a_task("vit-b16", **TINY | {"image_size": (30, 58), "patch_size": 1, "depth": 1, "pool": "mean"})
    image = photographs(task)[0]
    between = attention_between(task, image)
    assert between.grid == (10, 20)
    torch.testing.assert_close(between.attention.sum(dim=-1), torch.ones(3, 200))
    task = a_task("vit-b16", **TINY | {"image_size": (30, 56), "patch_size": 1, "depth": 1, "pool": "mean"})
    image = photographs(task)[0]
    whole = recorded_of(task, image[None])[0].probabilities[0].view(3, 15, 2, 28, 2, 15, 2, 28, 2)
    between = attention_between(task, image)
    assert between.grid == (15, 28)
    expected = whole.mean(dim=(2, 4)).sum(dim=(-1, -3)).flatten(1, 2).flatten(2)
    torch.testing.assert_close(between.attention, expected, atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_what_an_igpt_looks_at_is_the_pixel_that_a_token_was_made_of():
    """Token i holds the colour of pixel i - 1: what looks at it looks there, and nobody sees the last pixel."""
    task = a_task("igpt-nano", width=8, depth=2, heads=2, mlp=8, colours=4, image_size=(3, 2), feature_layer=2)
    images = photographs(task)
    rows = recorded_of(task, images)[-1].probabilities.mean(dim=(1, 2))
    expected = torch.cat([rows[:, 1:], torch.zeros(2, 1)], dim=1)
    torch.testing.assert_close(looked(task, images), to_1(expected).view(2, 3, 2))
    between = attention_between(task, images[0]).attention
    assert (between[:, 0] == 0).all()
    assert (between[:, 1, 0] == 1).all(), "the second token sees the start and the first pixel"


@pytest.mark.parametrize("layer", [0, 4, -1])
def test_a_layer_that_is_not_there(layer):
    task = a_task("vit-b16", **TINY)
    for ask in (
        lambda: looked(task, photographs(task), layer),
        lambda: attention_between(task, photographs(task)[0], layer),
    ):
        with pytest.raises(SettingError, match=f"no layer {layer}; this vit-b16 has layers 1 to 3"):
            ask()


def test_a_head_that_is_not_there():
    task = a_task("vit-b16", **TINY)
    with pytest.raises(SettingError, match="no head 4; this layer has heads 1 to 3"):
        looked(task, photographs(task), head=4)
