"""Relevance against the formulas of Chefer et al. 2021, written out naively for one image at a time."""

import pytest
import torch

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.errors import SettingError
from vitrail.explain.look import Look
from vitrail.explain.relevance import relevance
from vitrail.tasks import Classification

TINY = {"width": 24, "depth": 3, "heads": 3, "mlp": 48, "image_size": (24, 16), "patch_size": 8}


def a_task(name="vit-b16", **changes):
    torch.manual_seed(0)
    backbone = models.create(name, **TINY | changes)
    task = Classification(name, backbone, "abcd", Preprocess(backbone.config.image_size)).eval()
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return task


def photographs(task, count=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, *task.preprocess.size), dtype=torch.uint8, generator=generator)


def by_the_formulas(task, image, chosen, prefix, rows):
    """The rows of R of equations 5 and 6, with the attention of each block computed by hand."""
    backbone, paid = task.backbone, []

    def attend(layer, x):
        q, k, v = (part.unflatten(-1, (3, -1)).transpose(1, 2) for part in layer.qkv(x).chunk(3, dim=-1))
        paid.append((q @ k.transpose(-1, -2) / 8**0.5).softmax(dim=-1))
        paid[-1].retain_grad()
        return layer.proj((paid[-1] @ v).transpose(1, 2).flatten(2))

    tokens, grid = backbone.embed(task.preprocess.normalize(image[None]))
    for block in backbone.blocks:
        tokens = tokens + attend(block.attention, block.norm1(tokens))
        tokens = tokens + block.mlp(block.norm2(tokens))
    features = backbone.features(backbone.norm(tokens), grid)
    task.head(features)[0, chosen].backward()
    identity = torch.eye(tokens.shape[1])
    R = identity.clone()
    for A in paid:
        R = R + (A.grad[0] * A.detach()[0]).clamp(min=0).mean(dim=0) @ R
    task.zero_grad(set_to_none=True)
    return (R - identity)[rows].mean(dim=0)[prefix:].view(grid)


@pytest.mark.parametrize(
    ("name", "changes", "prefix", "rows"),
    [
        ("vit-b16", {"registers": 1}, 2, [0]),
        ("vit-b16", {"pool": "mean"}, 0, range(6)),
        ("vit-b16", {"pool": "mean", "class_token": True}, 1, range(1, 7)),
        ("deit-ti16", {}, 1, [0]),
        ("deit-ti16-distilled", {}, 2, [0, 1]),
    ],
)
def test_relevance_is_that_of_the_paper(name, changes, prefix, rows):
    task = a_task(name, **changes)
    images, classes = photographs(task), torch.tensor([3, 1])
    heat = relevance(task, images, classes, Look())
    for image, chosen, ours in zip(images, classes, heat, strict=True):
        expected = by_the_formulas(task, image, chosen, prefix, list(rows))
        assert expected.max() > 1e-4
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-3)


def test_attention_pooling_adds_its_own_row():
    """Of a model without blocks, relevance is what equation 5 says of the pool alone."""
    task = a_task(pool="map", depth=0)
    image = photographs(task, 1)
    tokens, grid = task.backbone.embed(task.preprocess.normalize(image))
    pool, patches = task.backbone.attention_pool, task.backbone.norm(tokens)
    A = pool.probabilities(patches).detach().requires_grad_()
    task.head.linear(pool.attended(A, patches))[0, 2].backward()
    expected = (A * A.grad).clamp(min=0).mean(dim=1)[0].view(grid)
    torch.testing.assert_close(relevance(task, image, torch.tensor([2]), Look())[0], expected.detach())


def test_no_gradients_are_left_and_those_there_are_stay():
    task = a_task()
    relevance(task, photographs(task), torch.tensor([0, 1]), Look())
    assert all(parameter.grad is None for parameter in task.parameters())
    for parameter in task.parameters():
        parameter.grad = torch.ones_like(parameter)
    relevance(task, photographs(task), torch.tensor([0, 1]), Look())
    assert all((parameter.grad == 1).all() for parameter in task.parameters())


@pytest.mark.parametrize("look", [Look(layer=1), Look(head=1)])
def test_a_layer_or_a_head_cannot_be_chosen(look):
    task = a_task()
    with pytest.raises(SettingError, match="relevance goes through all layers and heads; leave layer and head out"):
        relevance(task, photographs(task), torch.tensor([0, 1]), look)
