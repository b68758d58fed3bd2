import copy

import pytest
import torch
from torch import nn

from vitrail import models
from vitrail.nn.inference import ready
from vitrail.nn.mlp import Mlp
from vitrail.nn.packed import PackedLinear, can_pack
from vitrail.train.precision import products_in

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def with_statistics(model):
    """Batch norms that have seen something."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            nn.init.normal_(layer.weight, 1, 0.1)
            nn.init.normal_(layer.bias)
    return model


def test_float32_stays_to_the_last_bit():
    model = with_statistics(models.create("resnet-20")).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        before = model(images).pooled
        assert torch.equal(ready(model, torch.float32)(images).pooled, before)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("vit-s16", {"width": 48, "depth": 2, "heads": 3, "mlp": 96, "image_size": (32, 32)}),
        ("vit-micro", {"width": 48, "depth": 2, "heads": 3, "mlp": 96}),
        ("resnet-20", {}),
        ("vgg-11-bn", {"image_size": (32, 32)}),
    ],
)
def test_it_differs_from_float64_no_more_than_autocast_does(name, changes):
    model = with_statistics(models.create(name, **changes)).eval()
    images = torch.randn(4, 3, *model.config.image_size)
    with torch.inference_mode():
        exact = copy.deepcopy(model).double()(images.double()).pooled
        with products_in(torch.bfloat16, CPU):
            cast = (model(images).pooled - exact).abs().mean()
            ours = (ready(model, torch.bfloat16)(images).pooled - exact).abs().mean()
    assert 0 < ours < 1.5 * cast


def test_a_batch_norm_becomes_part_of_the_convolution_before_it():
    layers = with_statistics(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.BatchNorm2d(8)))
    ready(layers, torch.bfloat16)
    assert [type(layer) for layer in layers] == [nn.Conv2d, nn.Identity, nn.ReLU, nn.BatchNorm2d]
    assert layers[0].weight.dtype == torch.bfloat16


@pytest.mark.skipif(not can_pack(), reason="this build of PyTorch cannot pack")
def test_linear_maps_are_packed_and_take_the_gelu_behind_them_along():
    mlp = ready(Mlp(8, 16), torch.bfloat16)
    assert isinstance(mlp.fc1, PackedLinear)
    assert isinstance(mlp.act, nn.Identity)
    assert mlp.fc1.activation == ("gelu", "none")
    assert mlp.fc2.activation[0] == "none"
    assert isinstance(ready(Mlp(8, 16, activation="relu"), torch.bfloat16).act, nn.ReLU)


def test_a_weight_that_is_shared_stays_what_it_is_elsewhere():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.output = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False)
            self.output.weight = self.embedding.weight

    tied = ready(Tied(), torch.bfloat16)
    assert tied.embedding.weight.dtype == torch.float32


def test_what_computes_something_else_with_its_weight_is_left_alone():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    layers = ready(nn.Sequential(Doubled(4, 4)), torch.bfloat16)
    assert type(layers[0]) is Doubled
    assert layers[0].weight.dtype == torch.float32
