"""Positions of every kind, against loops, and against the products of queries and keys that they are there for."""

import numpy as np
import pytest
import torch

from vitrail import models
from vitrail.errors import SettingError
from vitrail.explain.positions import (
    BIAS,
    SIMILARITY,
    PositionMaps,
    draw_positions,
    plot_positions,
    position_similarity,
    positions,
)
from vitrail.metrics.draw import save
from vitrail.nn.rope import rotate
from vitrail.nn.window import relative_positions

PLAIN = {"width": 24, "depth": 2, "heads": 3, "mlp": 24, "patch_size": 8, "image_size": (24, 16)}
SWIN = {"width": 8, "depths": (2, 1), "heads": (1, 2), "window": 3, "image_size": (32, 32)}
PVT = {"widths": (8, 8, 12, 16), "depths": (1, 1, 1, 1), "heads": (1, 2, 3, 4), "image_size": (96, 64)}


def created(name, **changes):
    torch.manual_seed(0)
    return models.create(name, **changes).eval()


def test_similarity_by_loops():
    vectors = torch.randn(2 + 6, 5)
    similarity = position_similarity(vectors, (3, 2))
    for i in range(6):
        for j in range(6):
            a, b = vectors[2 + i].numpy(), vectors[2 + j].numpy()
            expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            assert similarity[i // 2, i % 2, j // 2, j % 2].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["vit-b16", "deit-ti16-distilled", "deit3-s16", "t2t-7", "igpt-nano"])
def test_added_positions_are_found_without_those_of_the_prefix(name):
    changes = {key: value for key, value in PLAIN.items() if key != "patch_size" or name not in ("t2t-7", "igpt-nano")}
    backbone = created(name, **changes)
    (found,) = positions(backbone)
    grid = {"t2t-7": (2, 1), "igpt-nano": (24, 16)}.get(name, (3, 2))
    count = grid[0] * grid[1]
    expected = position_similarity(backbone.positions[0, -count:].detach(), grid)
    np.testing.assert_allclose(found.maps, expected.numpy(), atol=1e-6)
    assert found.what == ("fixed positions" if name == "t2t-7" else "learned positions")
    assert found.unit == SIMILARITY


def test_sine_cosine_positions_are_those_that_are_added():
    backbone = created("vit-b16", **PLAIN, position="sincos")
    (found,) = positions(backbone)
    torch.nn.init.zeros_(backbone.patch_embedding.proj.weight)
    torch.nn.init.zeros_(backbone.patch_embedding.proj.bias)
    tokens, grid = backbone.embed(torch.zeros(1, 3, 24, 16))
    np.testing.assert_allclose(found.maps, position_similarity(tokens[0].detach(), grid).numpy(), atol=1e-6)


@pytest.mark.parametrize("name", ["dinov3-s16", "vit-b16", "rope-vit-s16", "rope-vit-s16-axial"])
def test_rotary_similarity_is_what_is_left_of_a_product_on_average(name):
    """Of queries and keys that are alike and look nowhere in particular: a Monte Carlo mean over these."""
    backbone = created(name, **PLAIN, **({"position": "rotary"} if name == "vit-b16" else {}))
    (found,) = positions(backbone)
    seen = []
    for block in backbone.blocks:
        block.attention.register_forward_hook(lambda layer, inputs, output: seen.append(inputs[1]))
    backbone(torch.zeros(1, 3, 24, 16))
    vectors = torch.randn(4000, 3, 1, 8).expand(-1, -1, 6, -1)
    means = []
    for rotation in seen:
        turned = rotate(vectors, rotation)
        products = torch.einsum("bhnd,bhmd->nm", turned, turned) / vectors[:, :, 0].square().sum()
        means.append(products)
    expected = torch.stack(means).mean(dim=0).view(3, 2, 3, 2)
    np.testing.assert_allclose(found.maps, expected.detach().numpy(), atol=0.02)
    np.testing.assert_allclose(found.maps[0, 0, 0, 0], 1, atol=1e-6)
    np.testing.assert_allclose(found.maps[0, 0, 1, 1], found.maps[1, 0, 2, 1], atol=1e-6)  # by offset alone


def test_rotary_and_learned_positions_in_one_model():
    kinds = positions(created("rope-vit-s16-axial-ape", **PLAIN))
    assert [kind.what for kind in kinds] == ["learned positions", "rotary positions, mean of layers and heads"]


def test_each_stage_of_a_pvt_has_its_own():
    kinds = positions(created("pvt-tiny", **PVT))
    assert [kind.maps.shape for kind in kinds] == [(24, 16) * 2, (12, 8) * 2, (6, 4) * 2, (3, 2) * 2]


def test_biases_of_swin_are_those_between_two_places():
    backbone = created("swin-t", **SWIN)
    first, second = positions(backbone)
    assert (first.unit, first.maps.shape, second.maps.shape) == (BIAS, (2, 1, 5, 5), (1, 2, 5, 5))
    attention = backbone.stages[1].blocks[0].attention
    bias = attention.bias_table[relative_positions((3, 3), (3, 3))]  # (N, N, heads): query, key
    for query, key in ((0, 8), (4, 4), (7, 2)):
        down, right = query // 3 - key // 3, query % 3 - key % 3
        np.testing.assert_allclose(second.maps[0, :, 2 + down, 2 + right], bias[query, key].detach().numpy())


@pytest.mark.parametrize("name", ["lenet-5", "pvt-v2-b0"])
def test_a_model_without_positions_says_so(name):
    changes = PVT if name == "pvt-v2-b0" else {}
    with pytest.raises(SettingError, match=r"^this model has no positions to show: "):
        positions(created(name, **changes))


def test_the_model_is_left_without_hooks():
    backbone = created("dinov3-s16", **PLAIN)
    positions(backbone)
    assert not any(module._forward_pre_hooks for module in backbone.modules())


def test_at_most_14_by_14_maps_are_drawn():
    from matplotlib.figure import Figure

    maps = np.linspace(-1, 1, 30 * 20 * 4 * 3, dtype=np.float32).reshape(30, 20, 4, 3)
    drawn = plot_positions(Figure().subplots(), PositionMaps("learned positions", SIMILARITY, maps))
    tile = 32 // 4 * np.array([4, 3])
    picture = np.asarray(drawn.get_array())
    assert picture.shape == tuple(14 * tile + 13 * 3)
    assert picture[0, 0] == maps[0, 0, 0, 0]
    assert picture[-1, -1] == maps[-1, -1, -1, -1]
    assert drawn.norm.vmax == 1


@pytest.mark.parametrize(
    ("name", "changes", "count"), [("vit-b16", PLAIN, 1), ("swin-t", SWIN, 2), ("pvt-tiny", PVT, 4)]
)
def test_a_picture_of_every_kind(name, changes, count, tmp_path):
    figure = draw_positions(positions(created(name, **changes)), name)
    assert len([axes for axes in figure.axes if axes.images]) == count
    save(figure, tmp_path / "positions.png")
