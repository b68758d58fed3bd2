"""What every task has in common."""

from __future__ import annotations

import pytest
import torch

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.tasks.classification import Classification


@pytest.fixture
def task():
    """A ResNet whose batch norms keep statistics, with a head of two classes."""
    torch.manual_seed(0)
    backbone = models.create("resnet-18", width=8, image_size=(32, 32))
    preprocess = Preprocess((32, 32), mean=(0.5,) * 3, std=(0.25,) * 3, channels=3)
    return Classification("resnet-18", backbone, ("a", "b"), preprocess)


def images():
    return torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)


def buffers(module):
    return {name: value.clone() for name, value in module.named_buffers()}


def moved(module, before):
    return {name for name, value in module.named_buffers() if not torch.equal(value, before[name])}


def test_with_all_weights_trained_every_part_changes_its_mode(task):
    assert all(module.training for module in task.train().modules())
    assert not any(module.training for module in task.eval().modules())


def test_what_is_not_trained_stays_in_evaluation_mode(task):
    task.backbone.requires_grad_(False)
    assert task.train() is task
    assert task.training
    assert task.head.training
    assert not any(module.training for module in task.backbone.modules())


def test_statistics_of_frozen_parts_do_not_move_and_those_of_others_do(task):
    first, *_, last = (module for module in task.backbone.modules() if isinstance(module, torch.nn.BatchNorm2d))
    first.requires_grad_(False)
    before = buffers(task)
    task.train()(images())
    names = moved(task, before)
    frozen = next(name for name, module in task.named_modules() if module is first)
    trained = next(name for name, module in task.named_modules() if module is last)
    assert not any(name.startswith(f"{frozen}.") for name in names)
    assert any(name.startswith(f"{trained}.") for name in names)


def test_a_frozen_block_drops_nothing(task):
    task = Classification(
        "vit-ti16",
        models.create("vit-ti16", width=24, depth=2, heads=3, mlp=48, image_size=(32, 32), dropout=0.5, drop_path=0.5),
        ("a", "b"),
        task.preprocess,
    )
    given = images()
    assert not torch.equal(task.train()(given), task(given))
    task.backbone.requires_grad_(False)
    assert torch.equal(task.train()(given), task(given))


def test_layers_are_the_backbones_and_the_head_belongs_to_the_last(task):
    assert task.depth == task.backbone.depth
    for name, _ in task.named_parameters():
        part, _, rest = name.partition(".")
        assert task.layer(name) == (task.depth if part == "head" else task.backbone.layer(rest))
