from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitrail.errors import SettingError
from vitrail.heads.linear import LinearHead
from vitrail.models.resnet.resnet import SIZES, Basic, Bottleneck, Config, Pad, ResNet

# As published with torchvision's weights: the network with its classifier of 1,000 classes.
PUBLISHED = {
    "resnet-18": 11_689_512,
    "resnet-34": 21_797_672,
    "resnet-50": 25_557_032,
    "resnet-101": 44_549_160,
    "resnet-152": 60_192_808,
    "resnext-50-32x4d": 25_028_904,
    "resnext-101-32x8d": 88_791_336,
    "resnext-101-64x4d": 83_455_272,
}
# Millions, to the digit given by He et al. 2016, table 6: with the classifier of 10 classes.
PUBLISHED_CIFAR = {
    "resnet-20": "0.27",
    "resnet-32": "0.46",
    "resnet-44": "0.66",
    "resnet-56": "0.85",
    "resnet-110": "1.7",
}
TINY = Config("bottleneck", (1, 2), width=4)


def count(config, classes):
    with torch.device("meta"):
        model = ResNet(config)
        head = LinearHead(model.width, classes)
    return sum(p.numel() for p in (*model.parameters(), *head.parameters()))


def test_every_size_has_a_published_count():
    assert PUBLISHED.keys() | PUBLISHED_CIFAR.keys() == SIZES.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_counts(name):
    assert count(SIZES[name], 1000) == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED_CIFAR)
def test_published_parameter_counts_for_cifar(name):
    digits = len(PUBLISHED_CIFAR[name].partition(".")[2])
    assert f"{count(SIZES[name], 10) / 1e6:.{digits}f}" == PUBLISHED_CIFAR[name]


@pytest.mark.parametrize("name", SIZES)
def test_the_name_counts_the_weighted_layers(name):
    with torch.device("meta"):
        model = ResNet(SIZES[name])
    convolutions = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" not in n]
    assert name.split("-")[1] == str(len(convolutions) + 1)  # and the classifier


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


@pytest.mark.parametrize(
    "settings", [{"shortcut": "pad"}, {"shortcut": "absent"}, {"shortcut": "pad", "block": "bottleneck"}]
)
def test_padding_and_plain_networks_have_no_weights_beside_the_convolutions(settings):
    model = ResNet(replace(SIZES["resnet-20"], **settings))
    assert [name for name, _ in model.named_parameters() if "shortcut" in name] == []


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(4, 8, 2), (4, 7, 2), (4, 16, 1)])
def test_padding_leaves_pixels_out_and_adds_channels_of_zeros_on_both_sides(inputs, outputs, stride):
    x = torch.randn(2, inputs, 7, 6)
    padded = Pad(inputs, outputs, stride)(x)
    assert padded.shape == (2, outputs, -(-7 // stride), -(-6 // stride))
    first = (outputs - inputs) // 2
    for channel in range(outputs):
        for row in range(padded.shape[2]):
            for column in range(padded.shape[3]):
                there = first <= channel < first + inputs
                expected = x[:, channel - first, row * stride, column * stride] if there else torch.zeros(2)
                assert torch.equal(padded[:, channel, row, column], expected)


def test_a_plain_network_is_its_convolutions_in_a_row():
    torch.manual_seed(0)
    model = ResNet(Config("basic", (2, 2), width=4, stem="small", shortcut="absent")).eval()
    x = torch.randn(2, 3, 8, 6)
    y = model.stem(x)
    for block in (*model.stages[0], *model.stages[1]):
        y = rectified(block.conv2, rectified(block.conv1, y))
    assert torch.equal(model(x).maps[-1], y)


def rectified(conv_norm, x):
    return F.relu(conv_norm.norm(conv_norm.conv(x)))


def test_a_plain_network_of_the_same_depth_has_as_many_parameters():
    """Section 3.3: the shortcuts of option A come without parameters."""
    assert count(SIZES["resnet-56"], 10) == count(replace(SIZES["resnet-56"], shortcut="absent"), 10)


def test_zero_init_does_not_silence_a_plain_network():
    model = ResNet(Config("bottleneck", (2, 1), width=4, stem="small", shortcut="absent", zero_init=True))
    assert {norm.weight.unique().item() for norm in model.modules() if isinstance(norm, nn.BatchNorm2d)} == {1.0}


@pytest.mark.parametrize(("name", "first"), [("resnext-50-32x4d", 128), ("resnext-101-64x4d", 256)])
def test_the_groups_of_resnext_grow_wider_from_stage_to_stage(name, first):
    """Xie et al. 2017, table 1: 3x3, 128 channels in 32 groups, then 256, 512, 1024."""
    with torch.device("meta"):
        model = ResNet(SIZES[name])
    for number, stage in enumerate(model.stages):
        for block in stage:
            assert block.conv2.conv.out_channels == block.conv2.conv.in_channels == first * 2**number
            assert block.conv2.conv.groups == SIZES[name].groups
            assert block.conv3.conv.out_channels == 256 * 2**number


@torch.no_grad()
def test_a_block_with_groups_is_the_sum_of_as_many_small_bottlenecks():
    """Xie et al. 2017, equation 3 and figure 3: (c) is (a)."""
    torch.manual_seed(0)
    block = Bottleneck(16, 4, 2, zero_init=False, groups=4, group_width=3).eval()
    x = torch.rand(2, 16, 9, 7)
    branches = []
    for group in range(4):
        channels = slice(3 * group, 3 * group + 3)
        y = F.relu(branch(block.conv1, x, rows=channels))
        y = F.relu(branch(block.conv2, y, rows=channels, stride=2, padding=1))
        branches.append(F.conv2d(y, block.conv3.conv.weight[:, channels]))
    expected = F.relu(block.conv3.norm(sum(branches)) + block.shortcut(x))
    torch.testing.assert_close(block(x), expected, atol=1e-6, rtol=1e-5)


def branch(conv_norm, x, rows, **options):
    """The convolution's channels of one group, as a convolution of its own, and their norm."""
    norm = conv_norm.norm
    y = F.conv2d(x, conv_norm.conv.weight[rows], **options)
    return F.batch_norm(y, norm.running_mean[rows], norm.running_var[rows], norm.weight[rows], norm.bias[rows])


def test_groups_in_a_basic_block_are_refused():
    with pytest.raises(SettingError, match="a basic block has no groups of channels; take block=bottleneck"):
        ResNet(Config("basic", (1,), groups=2))


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


@pytest.mark.parametrize(("what", "value"), [("block", "dense"), ("shortcut", "long"), ("stem", "large")])
def test_unknown_choices_are_named(what, value):
    settings = {"block": "basic", "depths": (1,), what: value}
    with pytest.raises(SettingError, match=f"no {what} '{value}'; known are: "):
        ResNet(Config(**settings))
