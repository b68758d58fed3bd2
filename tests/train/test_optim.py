"""Which parameters decay, how fast each layer learns, and that both optimizers do what their papers say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.tasks.classification import Classification
from vitrail.train.optim import build_optimizer, parameter_groups, set_learning_rate

TINY_VIT = {"width": 8, "depth": 2, "heads": 2, "mlp": 16, "image_size": 8, "patch_size": 4}
EVERYTHING = {"pool": "map", "registers": 2, "layer_scale": 0.1, "qk_norm": True}

BLOCK = ("attention.qkv.weight", "attention.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight")
DECAYING = {  # everything else is a bias, a norm, a position, a token, or a factor of a channel or a map
    "vit-ti16": [
        "backbone.patch_embedding.proj.weight",
        *(f"backbone.blocks.0.{name}" for name in BLOCK),
        *(f"backbone.blocks.1.{name}" for name in BLOCK),
        "backbone.attention_pool.q.weight",
        "backbone.attention_pool.kv.weight",
        "backbone.attention_pool.proj.weight",
        "backbone.attention_pool.mlp.fc1.weight",
        "backbone.attention_pool.mlp.fc2.weight",
        "head.linear.weight",
    ],
    "resnet-18": [
        "backbone.stem.0.conv.weight",
        "backbone.stages.0.0.conv1.conv.weight",
        "backbone.stages.0.0.conv2.conv.weight",
        "backbone.stages.1.0.conv1.conv.weight",
        "backbone.stages.1.0.conv2.conv.weight",
        "backbone.stages.1.0.shortcut.conv.weight",
        "head.linear.weight",
    ],
    "lenet-5": [
        "backbone.c1.weight",
        "backbone.c3.weight",
        "backbone.c5.weight",
        "backbone.f6.weight",
        "head.linear.weight",
    ],
}
CHANGES: dict[str, dict[str, Any]] = {
    "vit-ti16": TINY_VIT | EVERYTHING,
    "resnet-18": {"depths": (1, 1), "width": 4},
    "lenet-5": {},
}


def classifier(model: str, **changes: Any) -> Classification:
    backbone = models.create(model, **changes)
    grey = {"channels": 1, "mean": (0.5,), "std": (0.5,)} if backbone.config.channels == 1 else {}
    return Classification(model, backbone, ("a", "b", "c"), Preprocess(size=backbone.config.image_size, **grey))


def by_name(module: nn.Module, groups: list[dict[str, Any]], key: str) -> dict[str, Any]:
    """The setting ``key`` of each parameter; none is in two groups."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    pairs = [(names[id(parameter)], group[key]) for group in groups for parameter in group["params"]]
    assert len(pairs) == len(dict(pairs))
    return dict(pairs)


@pytest.mark.parametrize("model", DECAYING)
def test_only_matrices_and_kernels_decay(model: str) -> None:
    task = classifier(model, **CHANGES[model])
    decay = by_name(task, parameter_groups(task, 0.05), "weight_decay")
    assert decay.keys() == dict(task.named_parameters()).keys()
    assert set(decay.values()) == {0.0, 0.05}
    assert sorted(name for name, value in decay.items() if value) == sorted(DECAYING[model])


def test_each_layer_of_a_vit_learns_at_its_own_rate() -> None:
    task = classifier("vit-ti16", **TINY_VIT, pool="class")
    scale = by_name(task, parameter_groups(task, 0.05, layer_decay=0.5), "scale")
    table = {  # embeddings, block 0, block 1, then norm and head: each half as fast as the next
        "backbone.class_token": 0.125,
        "backbone.positions": 0.125,
        "backbone.patch_embedding": 0.125,
        "backbone.blocks.0": 0.25,
        "backbone.blocks.1": 0.5,
        "backbone.norm": 1.0,
        "head": 1.0,
    }
    assert scale.keys() == dict(task.named_parameters()).keys()
    assert scale == {name: rate for name in scale for layer, rate in table.items() if name.startswith(layer)}


@pytest.mark.parametrize("model", DECAYING)
def test_without_layer_decay_all_learn_at_the_same_rate_in_two_groups(model: str) -> None:
    groups = parameter_groups(classifier(model, **CHANGES[model]), 0.05)
    assert [group["scale"] for group in groups] == [1.0, 1.0]


def test_a_frozen_parameter_is_in_no_group() -> None:
    task = classifier("lenet-5")
    task.backbone.requires_grad_(False)
    assert by_name(task, parameter_groups(task, 0.1), "weight_decay") == {
        "head.linear.weight": 0.1,
        "head.linear.bias": 0.0,
    }


def test_the_learning_rate_is_set_for_every_group_at_its_scale() -> None:
    task = classifier("vit-ti16", **TINY_VIT)
    optimizer = build_optimizer(task, "adamw", 1.0, 0.05, layer_decay=0.5)
    set_learning_rate(optimizer, 0.008)
    assert {(group["scale"], group["lr"]) for group in optimizer.param_groups} == {
        (1.0, 0.008), (0.5, 0.004), (0.25, 0.002), (0.125, 0.001),
    }  # fmt: skip


class Two(nn.Module):
    """A matrix that decays, in layer 0 of 1, and a bias that does not, in layer 1."""

    depth = 1

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[2.0, -3.0]], dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor([0.5], dtype=torch.float64))

    def layer(self, parameter_name: str) -> int:
        return ("weight", "bias").index(parameter_name)


GRADIENTS = [{"weight": [[0.1, -4.0]], "bias": [1.0]}, {"weight": [[-0.3, 2.0]], "bias": [0.25]}]
RATE, DECAY, LAYER_DECAY = 0.1, 0.2, 0.5


def after_two_steps(name: Any) -> dict[str, list[float]]:
    module = Two()
    optimizer = build_optimizer(module, name, 1.0, DECAY, LAYER_DECAY)
    for gradient in GRADIENTS:
        set_learning_rate(optimizer, RATE)
        for key, parameter in module.named_parameters():
            parameter.grad = torch.tensor(gradient[key], dtype=torch.float64)
        optimizer.step()
    return {key: parameter.flatten().tolist() for key, parameter in module.named_parameters()}


def by_hand(update: Any) -> dict[str, list[float]]:
    """``update(weight, gradients so far, decay)`` gives the change for a learning rate of 1."""
    values = {"weight": [2.0, -3.0], "bias": [0.5]}
    settings: Mapping[str, tuple[float, float]] = {"weight": (RATE * LAYER_DECAY, DECAY), "bias": (RATE, 0.0)}
    for key, numbers in values.items():
        rate, decay = settings[key]
        for place in range(len(numbers)):
            gradients = [torch.tensor(gradient[key]).flatten()[place].item() for gradient in GRADIENTS]
            memory: dict[str, float] = {}
            for step, gradient in enumerate(gradients, 1):
                numbers[place] += rate * update(numbers[place], gradient, decay, step, memory)
    return values


def adamw(weight: float, gradient: float, decay: float, step: int, memory: dict[str, float]) -> float:
    """Loshchilov and Hutter 2019, algorithm 2, in torch's scaling of the decay by the learning rate."""
    memory["m"] = 0.9 * memory.get("m", 0.0) + 0.1 * gradient
    memory["v"] = 0.999 * memory.get("v", 0.0) + 0.001 * gradient**2
    m, v = memory["m"] / (1 - 0.9**step), memory["v"] / (1 - 0.999**step)
    return -m / (math.sqrt(v) + 1e-8) - decay * weight


def nesterov(weight: float, gradient: float, decay: float, step: int, memory: dict[str, float]) -> float:
    """Sutskever et al. 2013, section 2, as torch has it: L2 decay in the gradient, a look ahead of one step."""
    gradient += decay * weight
    memory["velocity"] = 0.9 * memory["velocity"] + gradient if step > 1 else gradient
    return -(gradient + 0.9 * memory["velocity"])


@pytest.mark.parametrize(("name", "update"), [("adamw", adamw), ("sgd", nesterov)])
def test_two_steps_are_those_computed_by_hand(name: str, update: Any) -> None:
    computed, expected = after_two_steps(name), by_hand(update)
    for key, values in expected.items():
        assert computed[key] == pytest.approx(values, rel=1e-6)  # gradients went through float32
