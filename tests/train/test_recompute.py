import copy

import pytest
import torch
from torch import nn

from vitrail import models
from vitrail.errors import SettingError
from vitrail.train.recompute import recompute_blocks

SMALL = {
    "vit-s16": {
        "width": 48,
        "depth": 3,
        "heads": 3,
        "mlp": 96,
        "image_size": (32, 32),
        "dropout": 0.1,
        "drop_path": 0.2,
    },
    "swin-t": {"width": 16, "depths": (1, 1), "heads": (1, 2), "image_size": (56, 56)},
}


def gradients(model, images):
    torch.manual_seed(1)
    model.zero_grad()
    model(images).pooled.square().sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def kept(model, images):
    """Bytes that the backward pass is left."""
    total = 0

    def count(tensor):
        nonlocal total
        total += tensor.nbytes if tensor.grad_fn is not None else 0
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        model(images)
    return total


@pytest.mark.parametrize("name", SMALL)
def test_gradients_are_equal_to_the_bit_and_less_is_kept(name):
    torch.manual_seed(0)
    model = models.create(name, **SMALL[name]).train()
    images = torch.randn(2, 3, *model.config.image_size)
    before, much = gradients(model, images), kept(model, images)
    blocks = sum(len(part) for part in model.modules() if isinstance(part, nn.ModuleList) and part[0] is not None)
    assert 0 < recompute_blocks(model) <= blocks
    after = gradients(model, images)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert kept(model, images) < much / 2


def test_a_copy_computes_with_its_own_weights():
    model = models.create("vit-s16", **SMALL["vit-s16"]).eval()
    recompute_blocks(model)
    other = copy.deepcopy(model)
    nn.init.normal_(other.blocks[0].mlp.fc1.weight)
    images = torch.randn(1, 3, 32, 32)
    assert not torch.equal(model(images).pooled, other(images).pooled)


@pytest.mark.parametrize(("name", "words"), [("resnet-20", "batch norms"), ("lenet-5", "no blocks")])
def test_what_cannot_be_is_refused(name, words):
    with pytest.raises(SettingError, match=words):
        recompute_blocks(models.create(name))
