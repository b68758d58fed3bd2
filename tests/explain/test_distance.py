import io
import itertools

import numpy as np
import pytest
import torch

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.errors import SettingError
from vitrail.explain.distance import attention_distances, draw_distances, mean_attention_distance
from vitrail.explain.record import Recorded, record_attention
from vitrail.nn.reach import Full
from vitrail.tasks import Classification

GRID = (3, 2)


def a_task(name, **changes):
    torch.manual_seed(0)
    backbone = models.create(name, **changes)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    channels = backbone.config.channels
    half = (0.5,) * channels
    preprocess = Preprocess(backbone.config.image_size, channels=channels, mean=half, std=half)
    return Classification(name, backbone, "abc", preprocess).eval()


def photographs(task, count=2):
    shape = (count, task.preprocess.channels, *task.preprocess.size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def by_loops(rows, size, image_size):
    """Of one head's matrix ``(B, places, places)``: the mean over images and queries of the weighted distances."""
    h, w = size
    scale = image_size[0] / h, image_size[1] / w
    distances = []
    for image, query in itertools.product(range(len(rows)), range(h * w)):
        apart = [np.hypot((query // w - key // w) * scale[0], (query % w - key % w) * scale[1]) for key in range(h * w)]
        distances.append(np.average(apart, weights=rows[image, query].numpy()))
    return np.mean(distances)


@pytest.mark.parametrize("prefix", [0, 2])
def test_mean_attention_distance_by_loops(prefix):
    logits = torch.randn(2, 3, prefix + 6, prefix + 6, generator=torch.Generator().manual_seed(0))
    layer = Recorded((2 * logits).softmax(dim=-1), Full(GRID))
    expected = [by_loops(layer.probabilities[:, head, prefix:, prefix:], GRID, (48, 32)) for head in range(3)]
    np.testing.assert_allclose(mean_attention_distance(layer, (48, 32)).numpy(), expected, rtol=1e-5)


def test_mean_attention_distance_by_hand():
    """Head 0 looks at its own patch, head 1 at the other of two that are 4 pixels apart, head 2 at both alike."""
    heads = torch.tensor([[[1.0, 0], [0, 1]], [[0, 1], [1, 0]], [[0.5, 0.5], [0.5, 0.5]]])
    layer = Recorded(heads[None], Full((1, 2)))
    assert mean_attention_distance(layer, (4, 8)).tolist() == [0.0, 4.0, 2.0]


@pytest.mark.parametrize("borders", ["paper", "timm", "torchvision"])
def test_distances_in_windows_by_loops(borders):
    task = a_task("swin-t", width=8, depths=(2, 2), heads=(1, 2), window=3, image_size=(28, 20), borders=borders)
    images = photographs(task)
    with torch.no_grad(), record_attention(task.backbone) as recorded:
        task(images)
    for layer in recorded.values():
        distances = mean_attention_distance(layer, (28, 20))
        for head in range(layer.heads):
            rows = layer.reach.carry(layer.matrix(head + 1), torch.eye(layer.places).expand(2, -1, -1))
            assert distances[head].item() == pytest.approx(by_loops(rows, layer.grid, (28, 20)), rel=1e-4)


def test_distances_to_a_reduced_map_are_those_to_the_middle_of_what_it_covers():
    task = a_task(
        "pvt-tiny",
        widths=(8, 8),
        depths=(1, 1),
        heads=(1, 2),
        mlp_ratios=(2, 2),
        reductions=(2, 1),
        image_size=(16, 24),
    )
    images = photographs(task)
    with torch.no_grad(), record_attention(task.backbone) as recorded:
        task(images)
    first = recorded["stages.0.blocks.0.attention"]
    centres = (
        [(4 * y + 2, 4 * x + 2) for y in range(4) for x in range(6)],
        [(8 * y + 4, 8 * x + 4) for y in (0, 1) for x in (0, 1, 2)],
    )
    apart = np.array([[np.hypot(a - c, b - d) for c, d in centres[1]] for a, b in centres[0]])
    expected = (first.probabilities[:, 0].numpy() * apart).sum(axis=-1).mean()
    assert mean_attention_distance(first, (16, 24)).tolist() == [pytest.approx(expected, rel=1e-5)]


def test_all_layers_but_the_pool():
    shape = {"width": 24, "depth": 3, "heads": 3, "mlp": 48, "image_size": (24, 16), "patch_size": 8}
    task = a_task("vit-b16", **shape, pool="map")
    distances = attention_distances(task, photographs(task))
    assert list(distances) == [f"blocks.{i}.attention" for i in range(3)]
    assert {len(heads) for heads in distances.values()} == {3}


def test_a_model_without_attention():
    task = a_task("lenet-5")
    with pytest.raises(SettingError, match="lenet-5 has no attention to show"):
        attention_distances(task, photographs(task))


def test_the_picture_has_a_point_for_every_head():
    distances = {"blocks.0.attention": [3.0, 8.0], "blocks.1.attention": [6.0, 7.0, 12.0]}
    figure = draw_distances(distances)
    (axes,) = figure.axes
    (points,) = axes.collections
    assert points.get_offsets().tolist() == [[1, 3], [1, 8], [2, 6], [2, 7], [2, 12]]
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_xydata(), [[1, 5.5], [2, 25 / 3]])
    assert axes.get_ylim()[0] == 0
    figure.savefig(file := io.BytesIO(), format="png")
    assert file.getvalue().startswith(b"\x89PNG")
