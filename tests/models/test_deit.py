"""DeiT: the published parameter counts, and what sets it apart from ViT."""

from dataclasses import replace

import pytest
import torch

from vitrail.errors import CheckpointError, SettingError
from vitrail.heads.distilled import DistilledHead
from vitrail.heads.linear import LinearHead
from vitrail.models.deit import SIZES, Config, DeiT
from vitrail.models.deit.keys import TIMM_SIZES, read_timm, read_transformers, write_timm, write_transformers
from vitrail.models.layout import Described
from vitrail.models.vit.vit import Config as ViTConfig
from vitrail.models.vit.vit import ViT

# With one classifier of 1,000 classes, or two, at 224 pixels: timm's models of the same name. The papers round them to
# 5, 22 and 86 million (Touvron et al. 2021, table 1), and to 22.0, 38.8, 86.6, 304.4 and 632.1 (README of DeiT III).
AT_224 = {
    "deit-ti16": 5_717_416,
    "deit-s16": 22_050_664,
    "deit-b16": 86_567_656,
    "deit-ti16-distilled": 5_910_800,
    "deit-s16-distilled": 22_436_432,
    "deit-b16-distilled": 87_338_192,
    "deit3-s16": 22_059_496,
    "deit3-m16": 38_849_512,
    "deit3-b16": 86_585_320,
    "deit3-l16": 304_374_760,
    "deit3-h14": 632_126_440,
}
AT_384 = {
    "deit-b16": 86_859_496,
    "deit-b16-distilled": 87_630_032,
    "deit3-s16": 22_205_416,
    "deit3-b16": 86_877_160,
    "deit3-l16": 304_763_880,
}
TINY = Config(24, 2, 3, 48, image_size=(24, 16), patch_size=8)


def parameters(name, **changes):
    with torch.device("meta"):
        model = DeiT(replace(SIZES[name], **changes))
        head = (DistilledHead if model.classifier == "distilled" else LinearHead)(model.width, 1000)
    return sum(p.numel() for p in (*model.parameters(), *head.parameters()))


def random_model(config):
    torch.manual_seed(0)
    model = DeiT(config).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize("name", AT_224)
def test_published_parameter_counts(name):
    assert parameters(name) == AT_224[name]


@pytest.mark.parametrize("name", AT_384)
def test_published_parameter_counts_at_384_pixels(name):
    assert parameters(name, image_size=(384, 384)) == AT_384[name]


def test_every_published_size_is_checked_here():
    assert SIZES.keys() == AT_224.keys()


@torch.no_grad()
def test_without_a_distillation_token_it_is_vit():
    ours = random_model(TINY)
    vit = ViT(ViTConfig(24, 2, 3, 48, image_size=(24, 16), patch_size=8)).eval()
    vit.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 24, 16)
    assert torch.equal(ours(images).tokens, vit(images).tokens)
    assert torch.equal(ours(images).pooled, vit(images).pooled)


@torch.no_grad()
@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize("token_positions", [False, True])
def test_the_order_is_class_distillation_patches_and_each_has_its_position(distilled, token_positions):
    model = random_model(replace(TINY, distilled=distilled, token_positions=token_positions))
    images = torch.randn(1, 3, 24, 16)
    tokens, grid = model.embed(images)
    assert grid == (3, 2)
    expected = [model.class_token[0, 0]]
    if distilled:
        expected.append(model.distillation_token[0, 0])
    kernel, bias = model.patch_embedding.proj.weight, model.patch_embedding.proj.bias
    for row in range(3):
        for column in range(2):
            patch = images[0, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            expected.append((kernel * patch).sum(dim=(1, 2, 3)) + bias)
    first = 0 if token_positions else 1 + distilled
    for position, place in enumerate(range(first, len(expected))):
        expected[place] = expected[place] + model.positions[0, position]
    assert model.positions.shape[1] == len(expected) - first
    torch.testing.assert_close(tokens[0], torch.stack(expected), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_pooled_is_what_decides():
    images = torch.randn(2, 3, 24, 16)
    both, alone = (random_model(replace(TINY, distilled=True, class_only=only)) for only in (False, True))
    assert both.classifier == "distilled"
    assert alone.classifier == random_model(TINY).classifier == "linear"
    tokens = both(images).tokens
    torch.testing.assert_close(both(images).pooled, (tokens[:, 0] + tokens[:, 1]) / 2)
    assert torch.equal(alone(images).pooled, tokens[:, 0])


def test_begins_as_the_authors_code():
    torch.manual_seed(0)
    model = DeiT(Config(192, 2, 3, 768, distilled=True, layer_scale=1e-4))
    linear = [m for m in model.blocks.modules() if isinstance(m, torch.nn.Linear)]
    for weight in (*(m.weight for m in linear), model.positions):
        assert weight.std().item() == pytest.approx(0.02, rel=0.03)
    for token in (model.class_token, model.distillation_token):
        assert token.std().item() == pytest.approx(0.02, rel=0.2)
    assert not any(m.bias.any() for m in linear)
    bound = (3 * 16 * 16) ** -0.5  # of PyTorch's uniform initialisation
    assert bound * 0.99 < model.patch_embedding.proj.weight.abs().max().item() <= bound
    for scale in (model.blocks[0].scale1, model.blocks[1].scale2):
        assert torch.equal(scale.gamma, torch.full((192,), 1e-4))


def test_an_image_of_another_size_is_refused_with_the_right_one():
    with pytest.raises(SettingError, match="3x2 patches, the image has 2x2; give images of 24x16 pixels"):
        DeiT(TINY)(torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("changes", [{"distilled": True}, {"distilled": True, "token_positions": False}, {}])
def test_adapted_to_another_size_patch_and_number_of_channels(changes):
    before = replace(TINY, **changes)
    after = replace(before, image_size=(32, 64), patch_size=16, channels=1)
    weights = random_model(before).state_dict()
    model = DeiT(after)
    adapted = model.adapted(weights, before, "bicubic")
    model.load_state_dict(adapted)
    first = model.prefix if before.token_positions else 0
    assert torch.equal(adapted["positions"][:, :first], weights["positions"][:, :first])
    grid = weights["positions"][:, first:].unflatten(1, (3, 2)).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(grid, (2, 4), mode="bicubic", align_corners=False)
    torch.testing.assert_close(adapted["positions"][:, first:].transpose(1, 2).unflatten(2, (2, 4)), resized)
    unchanged = weights.keys() - {"positions", "patch_embedding.proj.weight"}
    assert all(torch.equal(adapted[name], weights[name]) for name in unchanged)


@pytest.mark.parametrize("architecture", TIMM_SIZES)
def test_timms_architectures_are_our_sizes(architecture):
    size = 384 if architecture.endswith("384") else 224
    stated = {"architecture": architecture, "pretrained_cfg": {"input_size": [3, size, size]}}
    changes = {"image_size": (384, 384)} if size == 384 else {}
    assert read_timm(stated) == Described(TIMM_SIZES[architecture], changes)


SHAPES = [
    *SIZES.values(),
    replace(SIZES["deit-s16"], image_size=(160, 224), channels=1),
    Config(36, 5, 3, 100, image_size=(24, 40), patch_size=8, layer_scale=0.1),
    Config(36, 5, 3, 7, image_size=(24, 40), patch_size=8, distilled=True),
]


def restored(described):
    return (
        replace(SIZES[described.model], **described.changes)
        if described.model in SIZES
        else Config(**described.changes)
    )


@pytest.mark.parametrize("config", SHAPES, ids=str)
def test_timms_config_says_everything(config):
    assert restored(read_timm(write_timm(config))) == config


def test_timms_ratio_gives_the_hidden_units():
    """Which timm takes as the whole part of width times ratio, in floating point."""
    for mlp in range(1, 2000):
        config = replace(TINY, width=147, mlp=mlp)
        assert int(147 * write_timm(config)["model_args"]["mlp_ratio"]) == mlp
    assert write_timm(SIZES["deit-s16"])["model_args"]["mlp_ratio"] == 4


@pytest.mark.parametrize("config", [c for c in SHAPES if c.distilled], ids=str)
@pytest.mark.parametrize("changes", [{}, {"class_only": True, "norm_eps": 1e-12}])
def test_transformers_config_says_everything(config, changes):
    config = replace(config, **changes)
    assert restored(read_transformers(write_transformers(config))) == config


def test_other_models_are_not_read():
    assert read_timm({"architecture": "vit_small_patch16_224"}) is None
    assert read_timm({}) is None
    assert read_transformers({"model_type": "vit"}) is None


@pytest.mark.parametrize(
    ("write", "changes", "words"),
    [
        (write_timm, {"distilled": True, "class_only": True}, "two classifiers"),
        (write_timm, {"distilled": True, "token_positions": False}, "without positions"),
        (write_timm, {"norm_eps": 1e-12}, "1e-12"),
        (write_transformers, {}, "always has a distillation token"),
        (write_transformers, {"distilled": True, "layer_scale": 1e-4}, "no DeiT III"),
        (write_transformers, {"distilled": True, "token_positions": False}, "no DeiT III"),
    ],
)
def test_what_a_library_cannot_express_is_refused(write, changes, words):
    with pytest.raises(SettingError, match=words):
        write(replace(TINY, **changes))


def test_what_ours_cannot_be_is_refused():
    for strange in ({"act_layer": "relu"}, {"global_pool": "avg"}, {"qkv_bias": False}):
        with pytest.raises(CheckpointError, match=f"has {next(iter(strange))}, which"):
            read_timm({"architecture": "deit_tiny_patch16_224", "model_args": {**strange, "depth": 3}})
    for strange in ({"qkv_bias": False}, {"hidden_act": "relu"}):
        with pytest.raises(CheckpointError, match="GELU, and biases"):
            read_transformers({"model_type": "deit", **strange})
