import pytest
import torch
from torch import nn

from vitrail import models
from vitrail.errors import SettingError
from vitrail.heads import CLASSIFIERS
from vitrail.models.googlenet.googlenet import INCEPTIONS, SIZES, Config, GoogLeNet
from vitrail.models.googlenet.keys import LAYOUTS


def parameters(config):
    with torch.device("meta"):
        model = GoogLeNet(config)
        head = CLASSIFIERS[model.classifier](model, 1000)
    return sum(p.numel() for p in (*model.parameters(), *head.parameters()))


def test_published_parameter_counts():
    """torchvision's: in its table of weights, and of its network in training."""
    assert parameters(Config(auxiliary=False)) == 6_624_904
    assert parameters(SIZES["googlenet"]) == 13_004_888


def test_the_papers_kernel_changes_nothing_but_the_large_convolutions():
    reduce, large = zip(*((row[3], row[4]) for row in INCEPTIONS.values()), strict=True)
    more = sum((25 - 9) * a * b for a, b in zip(reduce, large, strict=True))
    assert parameters(Config(kernel=5)) - parameters(Config(kernel=3)) == more


def test_twenty_two_layers_with_weights():
    """Table 1, "depth": a module counts as two."""
    with torch.device("meta"):
        model = models.create("googlenet")
    stem = [m for m in model.stem.modules() if isinstance(m, nn.Conv2d)]
    assert len(stem) + 2 * len(model.inceptions) + 1 == 22  # and the classifier
    assert model.depth == len(stem) + len(model.inceptions) - 1


@torch.no_grad()
def test_sizes_of_table_1():
    with torch.device("meta"):
        model = models.create("googlenet").eval()
        features = model(torch.randn(1, 3, 224, 224))
    shapes = [tuple(map_.shape[1:]) for map_ in features.maps]
    assert shapes == [(192, 56, 56), (480, 28, 28), (832, 14, 14), (1024, 7, 7)]
    assert [tuple(map_.shape[1:]) for map_ in features.auxiliary] == [(512, 14, 14), (528, 14, 14)]
    assert model.auxiliary_widths == (512, 528)


@torch.no_grad()
def test_a_module_sees_as_far_as_its_kernels():
    """What one pixel changes: 3x3 places with kernels of 3, 5x5 places in the channels of the large convolution."""
    for kernel in (3, 5):
        torch.manual_seed(0)
        module = GoogLeNet(Config(kernel=kernel)).eval().inceptions["3a"]
        x = torch.rand(1, 192, 9, 9)
        y = x.clone()
        y[:, :, 4, 4] += 10
        changed = (module(x) != module(y))[0]
        one, _, middle, _, large, pooled = INCEPTIONS["3a"]
        seen = [part.any(dim=0) for part in changed.split([one, middle, large, pooled])]
        for part, side in zip(seen, (1, 3, kernel, 3), strict=True):
            expected = torch.zeros(9, 9, dtype=torch.bool)
            expected[4 - side // 2 : 5 + side // 2, 4 - side // 2 : 5 + side // 2] = True
            assert torch.equal(part, expected)


def test_without_auxiliary_maps_nothing_else_changes():
    torch.manual_seed(0)
    model, images = GoogLeNet(Config()).eval(), torch.randn(1, 3, 64, 96)
    plain = GoogLeNet(Config(auxiliary=False)).eval()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model(images).pooled, plain(images).pooled)
    assert plain(images).auxiliary == ()
    assert plain.auxiliary_widths == ()


@pytest.mark.parametrize("size", [(15, 15), (17, 40), (224, 160)])
def test_any_size_from_the_smallest_on(size):
    with torch.device("meta"):
        features = GoogLeNet(Config(image_size=size)).eval()(torch.randn(1, 3, *size))
    assert features.pooled.shape == (1, 1024)
    assert min(features.grid) >= 1


def test_what_cannot_be_is_refused():
    with pytest.raises(SettingError, match="at least 15x15 pixels, not 14x15"):
        GoogLeNet(Config(image_size=(14, 15)))
    with pytest.raises(SettingError, match="3 or 5, not 7"):
        GoogLeNet(Config(kernel=7))


def test_the_released_weights_see_pixels_between_minus_one_and_one():
    """torchvision normalises with ImageNet's statistics, and its model turns that into what is said here."""
    preprocess = LAYOUTS["torchvision"].preprocess
    pixels = torch.rand(3, 5)
    mean, std = torch.tensor([[0.485], [0.456], [0.406]]), torch.tensor([[0.229], [0.224], [0.225]])
    transformed = (pixels - mean) / std * (std / 0.5) + (mean - 0.5) / 0.5
    ours = (pixels - torch.tensor(preprocess["mean"])[:, None]) / torch.tensor(preprocess["std"])[:, None]
    torch.testing.assert_close(ours, transformed)
