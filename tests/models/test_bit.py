import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitrail.errors import SettingError
from vitrail.heads.linear import LinearHead
from vitrail.models.bit.bit import SIZES, BiT, Block, Config

# As published with timm's weights: the network with its classifier of 1,000 classes.
PUBLISHED = {
    "bit-r50x1": 25_549_352,
    "bit-r50x3": 217_319_080,
    "bit-r101x1": 44_541_480,
    "bit-r101x3": 387_934_888,
    "bit-r152x2": 236_335_208,
    "bit-r152x4": 936_533_224,
}
TINY = Config((1, 2), 8, groups=4)


def random_model(config=TINY):
    torch.manual_seed(0)
    model = BiT(config).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.2)
    return model


def test_every_size_has_a_published_count():
    assert PUBLISHED.keys() == SIZES.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_counts(name):
    with torch.device("meta"):
        model = BiT(SIZES[name])
        head = LinearHead(model.width, 1000)
    assert sum(p.numel() for p in (*model.parameters(), *head.parameters())) == PUBLISHED[name]


@pytest.mark.parametrize("name", SIZES)
def test_the_name_counts_the_weighted_layers_and_widens_a_resnet(name):
    with torch.device("meta"):
        model = BiT(SIZES[name])
    convolutions = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" not in n]
    assert name == f"bit-r{len(convolutions) + 1}x{model.width // 2048}"  # and the classifier


@torch.no_grad()
@pytest.mark.parametrize(("inputs", "stride"), [(12, 1), (12, 2), (32, 2), (32, 1)])
def test_a_block_by_hand(inputs, stride):
    torch.manual_seed(0)
    block = Block(Config((1,), 8, groups=4, conv_eps=1e-3), inputs, 8, stride)
    for parameter in block.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    x = torch.randn(2, inputs, 7, 6)
    y = rectified(block.norm1, x)
    around = x if (inputs, stride) == (32, 1) else convolved(block.shortcut, y, stride)
    y = convolved(block.conv1, y)
    y = convolved(block.conv2, rectified(block.norm2, y), stride, padding=1)
    y = convolved(block.conv3, rectified(block.norm3, y))
    torch.testing.assert_close(block(x), y + around, atol=1e-4, rtol=1e-5)


def rectified(norm, x):
    """An image's values with mean 0 and variance 1 in each of 4 groups of channels, scaled, shifted, rectified."""
    groups = [
        (group - group.mean()) / (group.var(correction=0) + 1e-5).sqrt() for image in x for group in image.chunk(4)
    ]
    y = torch.cat(groups).view_as(x)
    return (y * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)


def convolved(conv, x, stride=1, padding=0):
    kernels = [(kernel - kernel.mean()) / (kernel.var(correction=0) + 1e-3).sqrt() for kernel in conv.weight]
    return F.conv2d(x, torch.stack(kernels), stride=stride, padding=padding)


@torch.no_grad()
@pytest.mark.parametrize("size", [(16, 16), (21, 14)])
def test_zeros_around_the_stem_count_in_its_max_pool(size):
    model = random_model()
    x = torch.randn(8, 3, *size)
    y, pooled = model.stem.conv(x), model.stem(x)
    height, width = y.shape[2:]
    wins = 0
    for i in range(pooled.shape[2]):
        for j in range(pooled.shape[3]):
            rows, columns = range(2 * i - 1, 2 * i + 2), range(2 * j - 1, 2 * j + 2)
            inside = [y[:, :, r, c] for r in rows for c in columns if 0 <= r < height and 0 <= c < width]
            largest = torch.stack(inside).amax(dim=0)
            if len(inside) < 9:
                wins += (largest < 0).sum()
                largest = largest.clamp(min=0)
            assert torch.equal(pooled[:, :, i, j], largest)
    assert pooled.shape[2:] == ((height + 1) // 2, (width + 1) // 2)
    assert wins > 0  # a max-pool that pads by itself would have kept these negative values


def test_resolution_of_the_maps():
    maps = BiT(Config((1, 1, 1, 1), 8, groups=4))(torch.randn(1, 3, 96, 64)).maps
    assert [tuple(map_.shape) for map_ in maps] == [
        (1, 32 * 2**i, 96 // stride, 64 // stride) for i, stride in enumerate((4, 8, 16, 32))
    ]


@torch.no_grad()
def test_pooled_is_the_mean_over_the_places_after_norm_and_relu():
    model = random_model()
    x = torch.randn(2, 3, 32, 48)
    features = model(x)
    last = model.stem(x)
    for stage in model.stages:
        last = stage(last)
    torch.testing.assert_close(features.pooled, rectified(model.norm, last).mean(dim=(2, 3)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features.pooled, features.tokens.mean(dim=1))


@torch.no_grad()
def test_in_training_too_an_image_does_not_depend_on_the_others_of_its_batch():
    model = random_model().train()
    x = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(model(x).pooled[1:2], model(x[1:2]).pooled, atol=1e-5, rtol=1e-5)
    assert list(model.buffers()) == []


@torch.no_grad()
def test_scale_and_mean_of_a_kernel_do_not_matter():
    model = random_model()
    x = torch.randn(1, 3, 32, 32)
    before = model(x).pooled
    for name, parameter in model.named_parameters():
        if parameter.ndim == 4:
            parameter.mul_(3).add_(0.5 if name.startswith("stem") else -1)
    torch.testing.assert_close(model(x).pooled, before, atol=1e-4, rtol=1e-4)


def test_layers_count_through_the_stages():
    model = BiT(TINY)
    assert model.depth == 4
    assert model.layer("stem.conv.weight") == 0
    assert model.layer("stages.0.0.norm1.weight") == 1
    assert model.layer("stages.1.0.shortcut.weight") == 2
    assert model.layer("stages.1.1.conv3.weight") == 3
    assert model.layer("norm.bias") == 4


def test_a_width_that_the_groups_do_not_divide_is_refused():
    with pytest.raises(
        SettingError, match="the width 48 is not divisible by 32 groups; take a multiple or other groups"
    ):
        BiT(Config((1,), 48))
