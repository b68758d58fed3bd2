import pytest
import torch
from torch import nn

from vitrail.errors import SettingError
from vitrail.heads.linear import LinearHead
from vitrail.models.resnet.resnet import SIZES, Basic, Bottleneck, Config, ResNet

# As published with torchvision's weights: the network with its classifier of 1,000 classes.
PUBLISHED = {
    "resnet-18": 11_689_512,
    "resnet-34": 21_797_672,
    "resnet-50": 25_557_032,
    "resnet-101": 44_549_160,
    "resnet-152": 60_192_808,
}
TINY = Config("bottleneck", (1, 2), width=4)


def test_every_size_has_a_published_count():
    assert PUBLISHED.keys() == SIZES.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_counts(name):
    with torch.device("meta"):
        model = ResNet(SIZES[name])
        head = LinearHead(model.width, 1000)
    assert sum(p.numel() for p in (*model.parameters(), *head.parameters())) == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_name_counts_the_weighted_layers(name):
    with torch.device("meta"):
        model = ResNet(SIZES[name])
    convolutions = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" not in n]
    assert name == f"resnet-{len(convolutions) + 1}"  # and the classifier


@pytest.mark.parametrize(("stem", "strides"), [("imagenet", (4, 8, 16, 32)), ("small", (1, 2, 4, 8))])
def test_resolution_of_the_maps(stem, strides):
    model = ResNet(Config("basic", (1, 1, 1, 1), width=4, stem=stem))
    maps = model(torch.randn(1, 3, 96, 64)).maps
    assert [tuple(map_.shape) for map_ in maps] == [
        (1, 4 * 2**i, 96 // stride, 64 // stride) for i, stride in enumerate(strides)
    ]


def test_a_bottleneck_strides_in_its_3x3_convolution():
    block = Bottleneck(8, 4, stride=2, zero_init=False)
    strides = [m.stride[0] for m in (block.conv1.conv, block.conv2.conv, block.conv3.conv)]
    assert strides == [1, 2, 1]


def test_only_a_change_of_shape_needs_weights_in_the_shortcut():
    shortcuts = {name.split(".shortcut")[0] for name, _ in ResNet(TINY).named_parameters() if "shortcut" in name}
    assert shortcuts == {"stages.0.0", "stages.1.0"}


@pytest.mark.parametrize("block", [Basic(8, 8, 1, zero_init=True), Bottleneck(32, 8, 1, zero_init=True)])
def test_a_zero_initialised_block_begins_as_the_identity(block):
    x = torch.rand(2, block.expansion * 8, 5, 5)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(("zero_init", "scale"), [(True, 0.0), (False, 1.0)])
def test_zero_init_reaches_the_last_norm_of_every_block(zero_init, scale):
    model = ResNet(Config("bottleneck", (1, 2), width=4, zero_init=zero_init))
    for block in (*model.stages[0], *model.stages[1]):
        assert block.conv3.norm.weight.unique().tolist() == [scale]
        assert block.conv2.norm.weight.unique().tolist() == [1.0]


def test_he_initialisation():
    torch.manual_seed(0)
    weight = ResNet(Config("basic", (1,), width=128)).stages[0][0].conv1.conv.weight
    assert weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)


def test_layers_count_through_the_stages():
    model = ResNet(TINY)
    assert model.depth == 3
    assert model.layer("stem.0.conv.weight") == 0
    assert model.layer("stages.0.0.conv1.conv.weight") == 1
    assert model.layer("stages.1.0.shortcut.norm.bias") == 2
    assert model.layer("stages.1.1.conv3.norm.weight") == 3


def test_pooled_is_the_mean_of_the_tokens():
    model = ResNet(TINY)
    features = model(torch.randn(2, 3, 64, 96))
    assert features.grid == (8, 12)
    torch.testing.assert_close(features.pooled, features.tokens.mean(dim=1))


@pytest.mark.parametrize(("what", "value"), [("block", "dense"), ("stem", "large")])
def test_unknown_choices_are_named(what, value):
    settings = {"block": "basic", "depths": (1,), what: value}
    with pytest.raises(SettingError, match=f"no {what} '{value}'; known are: "):
        ResNet(Config(**settings))
