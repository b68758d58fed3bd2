import numpy as np
import pytest
import torch

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.errors import SettingError
from vitrail.explain.look import Look
from vitrail.explain.record import Recorded, record_attention
from vitrail.explain.rollout import rolled_out, rollout
from vitrail.nn.reach import Full
from vitrail.tasks import Classification

GRID = (3, 2)
POOLS = ["class", "mean", "map"]
PYRAMIDS = {
    "swin-t": {"width": 8, "depths": (2, 2, 1), "heads": (1, 2, 2), "window": 3, "image_size": (32, 48)},
    "pvt-tiny": {
        "widths": (8, 8),
        "depths": (2, 2),
        "heads": (1, 2),
        "mlp_ratios": (2, 2),
        "reductions": (2, 1),
        "image_size": (32, 48),
    },
    "pvt-v2-b0": {
        "widths": (8, 8),
        "depths": (2, 1),
        "heads": (1, 2),
        "mlp_ratios": (2, 2),
        "reductions": (2, 1),
        "image_size": (32, 48),
    },
    "t2t-7": {"width": 24, "depth": 2, "heads": 3, "mlp": 48, "token_width": 8, "image_size": (32, 48)},
}


def random_layer(queries, keys, heads=3, batch=2, seed=0, skipped=True):
    logits = torch.randn(batch, heads, queries, keys, generator=torch.Generator().manual_seed(seed))
    return Recorded((2 * logits).softmax(dim=-1), Full(GRID, skipped))


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


@pytest.mark.parametrize("prefix", [1, 3])
@pytest.mark.parametrize("pool", POOLS)
def test_rollout_by_whole_matrices(pool, prefix):
    """The matrices of all layers multiplied up in float64, and only then the row of the image's vector."""
    tokens = prefix + 6
    layers = [random_layer(tokens, tokens, seed=i) for i in range(4)]
    through = np.stack([np.eye(tokens)] * 2)
    for layer in layers:
        step = 0.5 * layer.probabilities.double().mean(dim=1).numpy() + 0.5 * np.eye(tokens)
        through = step / step.sum(axis=-1, keepdims=True) @ through
    if pool == "class":
        arriving = through[:, 0]
    elif pool == "mean":
        arriving = through[:, prefix:].mean(axis=1)
    else:
        layers.append(random_layer(1, 6, seed=9, skipped=False))
        arriving = (layers[-1].probabilities.double().mean(dim=1).numpy() @ through[:, prefix:])[:, 0]
    expected = arriving[:, prefix:] / arriving[:, prefix:].sum(axis=1, keepdims=True)
    rolled = rolled_out(layers, class_tokens=int(pool == "class"))
    np.testing.assert_allclose(rolled.numpy(), expected.reshape(2, *GRID), atol=1e-6)


def test_rollout_by_hand():
    """The class token looks at patch 1 only, and before that patch 1 took half of what it has from patch 2."""
    first = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 0, 1]])
    second = torch.tensor([[0.0, 1, 0], [0, 1, 0], [0, 0, 1]])
    layers = [Recorded(matrix[None, None], Full((1, 2))) for matrix in (first, second)]
    assert rolled_out(layers, class_tokens=1).tolist() == [[[0.5, 0.5]]]
    assert rolled_out(layers[1:], class_tokens=1).tolist() == [[[1.0, 0.0]]]


def test_two_tokens_that_decide_together():
    layers = [random_layer(8, 8, seed=i) for i in range(3)]
    both = rolled_out(layers, class_tokens=2)
    swapped = [
        Recorded(layer.probabilities[:, :, [1, 0, *range(2, 8)]][..., [1, 0, *range(2, 8)]], layer.reach)
        for layer in layers
    ]
    torch.testing.assert_close(both, rolled_out(swapped, class_tokens=2))
    assert (both - rolled_out(layers, class_tokens=1)).abs().max() > 1e-3


def test_rollout_leaves_the_recorded_layers_alone():
    layers = [random_layer(7, 7), random_layer(7, 7, seed=1)]
    copies = [layer.probabilities.clone() for layer in layers]
    rolled_out(layers, class_tokens=1)
    assert len(layers) == 2
    assert all(torch.equal(layer.probabilities, copy) for layer, copy in zip(layers, copies, strict=True))


def finer(before, after):
    """A matrix: each place of a map as the places of a finer one that lie on it, each with the same share of it."""
    matrix = torch.zeros(before[0] * before[1], after[0] * after[1])
    rows, columns = after[0] // before[0], after[1] // before[1]
    for place in range(after[0] * after[1]):
        row, column = divmod(place, after[1])
        matrix[row // rows * before[1] + column // columns, place] = 1 / (rows * columns)
    return matrix


@pytest.mark.parametrize("name", PYRAMIDS)
def test_rollout_through_a_pyramid_by_whole_matrices(name):
    """Every layer as the matrix of all its tokens, the stages in between as matrices, too."""
    task = a_task(name, **PYRAMIDS[name])
    images = photographs(task)
    with torch.no_grad(), record_attention(task.backbone) as recorded:
        task(images)
    layers = list(recorded.values())
    assert len({layer.grid for layer in layers}) > 1
    last = layers[-1]
    row = torch.zeros(1, 1, last.prefix + last.places)
    row[..., slice(0, 1) if last.prefix else slice(None)] = 1 / (1 if last.prefix else last.places)
    for number in reversed(range(len(layers))):
        layer = layers[number]
        tokens = layer.prefix + layer.places
        whole = layer.reach.carry(layer.matrix(), torch.eye(tokens).expand(2, -1, -1))
        row = row @ (0.5 * whole + 0.5 * torch.eye(tokens))
        if number and layers[number - 1].grid != layer.grid:
            row = row[..., layer.prefix :] @ finer(layer.grid, layers[number - 1].grid)
    expected = (row / row.sum(dim=-1, keepdim=True)).view(2, *layers[0].grid)
    torch.testing.assert_close(rollout(task, images, torch.zeros(2), Look()), expected)


@pytest.mark.parametrize("name", PYRAMIDS)
def test_maps_of_a_model_are_shares(name):
    task = a_task(name, **PYRAMIDS[name])
    for layer in (None, 1, 2):
        heat = rollout(task, photographs(task), torch.zeros(2), Look(layer))
        assert heat.min() >= 0
        torch.testing.assert_close(heat.sum(dim=(1, 2)), torch.ones(2))


def test_a_head_cannot_be_chosen():
    task = a_task("t2t-7", **PYRAMIDS["t2t-7"])
    with pytest.raises(SettingError, match="rollout goes through all heads; leave the head out"):
        rollout(task, photographs(task), torch.zeros(2), Look(head=1))
