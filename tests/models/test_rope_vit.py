"""RoPE-ViT: published parameter counts, its rotations by brute force, other image sizes, and other libraries' files."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from vitrail import models
from vitrail.errors import CheckpointError, SettingError
from vitrail.models.layout import Described
from vitrail.models.rope_vit.keys import LAYOUTS, TIMM_SIZES, read_timm, write_timm
from vitrail.models.rope_vit.rope_vit import SIZES, Block, Config, RoPEViT
from vitrail.weights.rename import to_ours, to_theirs

# With a linear classifier of 1,000 classes at 224 pixels: timm's vit_…_patch16_rope_…_224; its table of results has
# the same in millions (21.98, 22.06, 21.99, 22.06; 86.43, 86.59, 86.44, 86.59; 304.17, 304.37, 304.20, 304.40).
WITH_1000_CLASSES = {
    "rope-vit-s16-axial": 21_984_232,
    "rope-vit-s16-axial-ape": 22_059_496,
    "rope-vit-s16": 21_988_840,
    "rope-vit-s16-ape": 22_064_104,
    "rope-vit-b16-axial": 86_434_792,
    "rope-vit-b16-axial-ape": 86_585_320,
    "rope-vit-b16": 86_444_008,
    "rope-vit-b16-ape": 86_594_536,
    "rope-vit-l16-axial": 304_174_056,
    "rope-vit-l16-axial-ape": 304_374_760,
    "rope-vit-l16": 304_198_632,
    "rope-vit-l16-ape": 304_399_336,
}
TINY = Config(24, 2, 3, 40, patch_size=4, image_size=(20, 12))


def tiny(**changes):
    torch.manual_seed(0)
    model = RoPEViT(replace(TINY, **changes)).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.3)
    return model


@pytest.mark.parametrize("name", SIZES)
def test_parameters_with_a_classifier(name):
    with torch.device("meta"):
        model = models.create(name)
    assert sum(p.numel() for p in model.parameters()) + (model.width + 1) * 1000 == WITH_1000_CLASSES[name]


def by_hand(model, block, x, rows, columns, frequencies):
    """One block in double precision, a patch's query and key as complex numbers, token by token and head by head."""
    attention, width = block.attention, x.shape[-1]
    normed = F.layer_norm(x, (width,), block.norm1.weight, block.norm1.bias, 1e-6)
    q, k, v = (normed @ attention.qkv.weight.T + attention.qkv.bias).chunk(3, dim=-1)
    turn = torch.ones(1 + rows * columns, 3, 4, dtype=torch.complex128)
    for head in range(3):
        for row in range(rows):
            for column in range(columns):
                angle = column * frequencies[0, head] + row * frequencies[1, head]
                turn[1 + row * columns + column, head] = torch.polar(torch.ones_like(angle), angle)
    heads = []
    for head in range(3):
        part = slice(8 * head, 8 * head + 8)
        turned = [
            torch.view_as_complex(z[..., part].unflatten(-1, (-1, 2)).contiguous()) * turn[:, head] for z in (q, k)
        ]
        scores = (turned[0] @ turned[1].mH).real / math.sqrt(8)
        heads.append(scores.softmax(dim=-1) @ v[..., part])
    attended = torch.cat(heads, dim=-1) @ attention.proj.weight.T + attention.proj.bias
    x = x + block.scale1.gamma * attended
    normed = F.layer_norm(x, (width,), block.norm2.weight, block.norm2.bias, 1e-6)
    hidden = F.gelu(normed @ block.mlp.fc1.weight.T + block.mlp.fc1.bias)
    return x + block.scale2.gamma * (hidden @ block.mlp.fc2.weight.T + block.mlp.fc2.bias)


def axial_by_hand(heads):
    """Of each head the frequencies of the columns, then of the rows: half of the pairs turns by one axis alone."""
    falling = torch.tensor([100 ** -(i / 2) for i in range(2)], dtype=torch.float64)
    still = torch.zeros(2, dtype=torch.float64)
    return torch.stack([torch.cat([falling, still]), torch.cat([still, falling])]).unsqueeze(1).expand(2, heads, 4)


@pytest.mark.parametrize("rotary", ["axial", "mixed"])
@pytest.mark.parametrize("grid", [(5, 3), (2, 7)])
@torch.no_grad()
def test_blocks_by_hand(rotary, grid):
    model = tiny(rotary=rotary).double()
    tokens = torch.randn(2, 1 + grid[0] * grid[1], 24, dtype=torch.float64)
    expected = tokens
    for number, block in enumerate(model.blocks):
        frequencies = axial_by_hand(3) if rotary == "axial" else model.frequencies[:, number]
        expected = by_hand(model, block, expected, *grid, frequencies)
    expected = F.layer_norm(expected, (24,), model.norm.weight, model.norm.bias, 1e-6)
    torch.testing.assert_close(model.encode(tokens, grid), expected, atol=1e-5, rtol=1e-5)


def test_learned_positions_are_the_patches_alone():
    model = tiny(absolute=True)
    tokens, grid = model.embed(torch.zeros(1, 3, 20, 12))
    assert grid == (5, 3)
    torch.testing.assert_close(tokens[:, :1], model.class_token)
    torch.testing.assert_close(tokens[:, 1:], model.positions + model.patch_embedding.proj.bias)


def test_without_learned_positions_any_image_will_do():
    model, other = tiny(), tiny(image_size=(32, 8))
    other.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 8, 28)
    assert model(images).grid == (2, 7)
    assert torch.equal(model(images).tokens, other(images).tokens)


def test_learned_positions_fix_the_size():
    with pytest.raises(SettingError, match="positions are for 5x3 patches, the image has 3x3; give images of 20x12"):
        tiny(absolute=True)(torch.zeros(1, 3, 12, 12))


@pytest.mark.parametrize(("resampling", "antialias"), [("bicubic", False), ("bicubic-antialias", True)])
def test_learned_positions_of_another_size(resampling, antialias):
    before, after = tiny(absolute=True), tiny(absolute=True, image_size=(12, 28))
    after.load_state_dict(after.adapted(before.state_dict(), before.config, resampling))
    grid = before.positions.detach().view(1, 5, 3, 24).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, (3, 7), mode="bicubic", antialias=antialias).permute(0, 2, 3, 1).reshape(1, 21, 24)
    torch.testing.assert_close(after.positions.detach(), expected)
    assert torch.equal(after.frequencies, before.frequencies)


def test_frequencies_at_the_start():
    """The authors' code: two axes at a right angle, turned by chance in each block and head, and sizes that fall."""
    torch.manual_seed(0)
    model = RoPEViT(Config(64 * 4, 3, 4, 8, image_size=(32, 32)))
    frequencies = model.frequencies.detach()
    assert frequencies.shape == (2, 3, 4, 32)
    sizes = 10.0 ** -(torch.arange(16) * 4 / 64)
    torch.testing.assert_close(frequencies.norm(dim=0), sizes.repeat(2).expand(3, 4, 32))
    first, second = frequencies.chunk(2, dim=-1)
    torch.testing.assert_close((first * second).sum(dim=0), torch.zeros(3, 4, 16), atol=1e-6, rtol=0)
    directions = torch.atan2(first[1], first[0])
    torch.testing.assert_close(directions, directions[..., :1].expand_as(directions))
    assert len(directions[..., 0].flatten().unique()) == 12


def test_weights_at_the_start():
    torch.manual_seed(0)
    model = RoPEViT(Config(256, 1, 4, 512, absolute=True, image_size=(160, 160), channels=1))
    for weight in (model.blocks[0].attention.qkv.weight, model.blocks[0].mlp.fc2.weight, model.positions):
        assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not model.blocks[0].attention.qkv.bias.any()
    assert (model.blocks[0].scale1.gamma == 1e-4).all()
    assert model.patch_embedding.proj.weight.abs().max().item() == pytest.approx(1 / 16, rel=0.01)  # 1 / √(16 · 16)


def test_every_block_drops_as_often_as_any_other():
    blocks = [module for module in RoPEViT(replace(TINY, drop_path=0.3)).modules() if isinstance(module, Block)]
    assert [block.drop_path.rate for block in blocks] == [0.3, 0.3]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rotary": "polar"}, "there are no 'polar' rotary positions; known are: axial, mixed"),
        ({"heads": 5}, "the width 24 is not divisible by 5 heads"),
        ({"heads": 4}, "a head width that is a multiple of 4, not 6"),
        ({"image_size": (21, 12)}, "not divisible by the patch size 4"),
    ],
)
def test_shapes_that_cannot_be(changes, words):
    with pytest.raises(SettingError, match=words):
        RoPEViT(replace(TINY, **changes))


def test_timms_architectures():
    assert set(TIMM_SIZES.values()) == set(SIZES)
    for architecture, name in TIMM_SIZES.items():
        config = {"architecture": architecture, "pretrained_cfg": {"input_size": [3, 224, 224]}}
        assert read_timm(config) == Described(name, {})
        assert write_timm(SIZES[name])["architecture"] == architecture


def test_timms_arguments():
    config = {
        "architecture": "vit_small_patch16_rope_ape_224",
        "pretrained_cfg": {"input_size": [3, 64, 96]},
        "model_args": {"embed_dim": 24, "mlp_ratio": 2.5, "in_chans": 1, "num_classes": 5, "global_pool": "token"},
    }
    expected = {"width": 24, "mlp": 60, "image_size": (64, 96), "channels": 1}
    assert read_timm(config) == Described("rope-vit-s16-axial-ape", expected)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_args": {"rope_temperature": 10000.0}}, "was made with rope_temperature"),
        ({"global_pool": "avg"}, "not pooled by its class token"),
    ],
)
def test_what_ours_does_not_have_is_refused(config, words):
    with pytest.raises(CheckpointError, match=words):
        read_timm({"architecture": "vit_small_patch16_rope_224", **config})


def test_other_architectures_are_not_ours():
    assert read_timm({"architecture": "vit_small_patch16_224"}) is None
    assert read_timm({"model_type": "vit"}) is None


@pytest.mark.parametrize("mlp", range(1, 60))
def test_a_config_written_is_the_config_read(mlp):
    for rotary, absolute in (("axial", False), ("axial", True), ("mixed", False), ("mixed", True)):
        config = Config(28, 3, 7, mlp, rotary, absolute, image_size=(32, 48), patch_size=8, channels=2)
        described = read_timm(write_timm(config))
        assert models.changed(described.model, **described.changes) == config


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rotary", ["axial", "mixed"])
def test_there_and_back(layout, rotary):
    model = tiny(rotary=rotary, absolute=True)
    ours = {**model.state_dict(), "head.linear.weight": torch.randn(5, 24), "head.linear.bias": torch.randn(5)}
    theirs = to_theirs(ours, LAYOUTS[layout], model.config)
    if rotary == "mixed":
        name, shape = {"timm": ("rope.freqs", (2, 2, 3, 4)), "paper": ("freqs", (2, 2, 12))}[layout]
        assert theirs[name].shape == shape
    back, difference = to_ours(theirs, ours, LAYOUTS[layout], model.config)
    assert not difference
    assert all(torch.equal(back[name], tensor) for name, tensor in ours.items())
