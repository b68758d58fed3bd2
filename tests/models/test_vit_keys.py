"""The key tables of ViT: every one of them both ways, what files say of themselves, and what older files are like."""

from dataclasses import replace

import pytest
import torch

from vitrail import models
from vitrail.errors import CheckpointError, SettingError
from vitrail.heads.linear import LinearHead
from vitrail.models.vit import LAYOUTS, SIZES, Config, ViT
from vitrail.weights.rename import to_ours, to_theirs

TINY = Config(24, 2, 3, 48, image_size=(32, 48), patch_size=8)
MAP, MEAN = {"pool": "map"}, {"pool": "mean"}
HYBRID = {"stem": "resnet", "resnet_stages": (2, 1)}
VARIANTS = {  # what each library's ViT can be, beside the plain one
    "timm": [
        *({}, MAP, MEAN, HYBRID, {"stem": "resnet"}, {"layer_scale": 0.1, "registers": 2, "class_position": False}),
        *({**MEAN, "norm": "pooled", "class_token": True, "qkv_bias": False}, {**MAP, "registers": 2}),
    ],
    "transformers": [{}, {"representation": 10}],
    "transformers-5": [{}, {"representation": 10}],
    "transformers-dinov2": [{"pool": "class-mean", "layer_scale": 0.1}],
    "transformers-5-dinov2": [{"pool": "class-mean", "layer_scale": 0.1}],
    "transformers-dinov2-registers": [{"pool": "class-mean", "layer_scale": 0.1, "registers": 2}],
    "transformers-5-dinov2-registers": [{"pool": "class-mean", "layer_scale": 0.1, "registers": 2}],
    "torchvision": [{}],
    "google": [{}, MEAN, {"representation": 10}, HYBRID, {"stem": "resnet"}],
    "big_vision": [{"class_position": False}, MAP, {**MEAN, "position": "sincos", "representation": 24}],
    "paper": [{}, {**MEAN, "norm": "pooled", "class_token": True}],
    "dino": [{}, {"layer_scale": 0.1}],
    "dino-registers": [{"layer_scale": 0.1, "registers": 2}],
    "vit-pytorch": [{}, {"qkv_bias": False, "head_width": 10}],
}
# timm's results-imagenet.csv: millions of parameters, with a classifier of 1,000 classes at the size of the name.
MILLIONS = {
    "vit_tiny_patch16_384": 5.79,
    "vit_small_patch32_384": 22.92,
    "vit_base_patch8_224": 86.58,
    "vit_base_patch16_224_miil": 86.54,
    "vit_large_patch32_384": 306.63,
    "vit_tiny_r_s16_p8_384": 6.36,
    "vit_small_r26_s32_384": 36.47,
    "vit_base_r50_s16_384": 98.95,
    "vit_large_r50_s32_384": 329.09,
    "vit_medium_patch16_gap_384": 39.03,
    "vit_wee_patch16_reg1_gap_256": 13.42,
    "vit_little_patch16_reg4_gap_256": 22.52,
    "vit_medium_patch16_reg1_gap_256": 38.88,
    "vit_mediumd_patch16_reg4_gap_384": 64.27,
    "vit_betwixt_patch16_reg4_gap_384": 60.60,
    "vit_so400m_patch14_siglip_378": 429.38,
    "vit_so400m_patch14_siglip_gap_378": 414.14,
    "eva_large_patch14_336": 304.53,
    "test_vit": 0.37,
}
SIDES = {"vit_base_patch16_224_miil": 224, "test_vit": 160}
FLEXIVIT = {"flexivit_small": 22.06, "flexivit_base": 86.59, "flexivit_large": 304.36}


def state_of(config, classes=5):
    """All tensors of a random model with its classifier."""
    torch.manual_seed(0)
    model = ViT(config)
    head = LinearHead(model.width, classes)
    tensors = {f"backbone.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"head.{k}": v for k, v in head.state_dict().items()}
    return {name: torch.randn_like(x) for name, x in tensors.items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def read(layout, **config):
    described = LAYOUTS[layout].read(config)
    return models.changed(described.model, **described.changes)


@pytest.mark.parametrize(("layout", "changes"), [(name, each) for name, all_ in VARIANTS.items() for each in all_])
def test_every_tensor_goes_out_and_comes_back_as_it_was(layout, changes):
    config = replace(TINY, **changes)
    ours = state_of(config)
    theirs = to_theirs(ours, LAYOUTS[layout], config)
    assert sum(x.numel() for x in theirs.values()) == sum(x.numel() for x in ours.values())
    back, difference = to_ours(theirs, ours, LAYOUTS[layout], config)
    assert not difference, str(difference)
    assert same(back, ours)
    assert same(to_theirs(back, LAYOUTS[layout], config), theirs)


@pytest.mark.parametrize(("layout", "changes"), [(name, all_[0]) for name, all_ in VARIANTS.items()])
def test_a_backbone_alone_opens_from_a_file_with_a_classifier_and_from_one_without(layout, changes):
    config = replace(TINY, **changes)
    ours = state_of(config)
    backbone = {name: x for name, x in ours.items() if name.startswith("backbone.")}
    with_classifier = to_theirs(ours, LAYOUTS[layout], config)
    without = {
        k.removeprefix(LAYOUTS[layout].prefix): v for k, v in to_theirs(backbone, LAYOUTS[layout], config).items()
    }
    for theirs in (with_classifier, without):
        back, difference = to_ours(theirs, backbone, LAYOUTS[layout], config)
        assert not difference, str(difference)
        assert same(back, backbone)


def test_every_layout_is_checked_here():
    assert VARIANTS.keys() == LAYOUTS.keys()


@pytest.mark.parametrize("architecture", [*MILLIONS, *FLEXIVIT])
def test_architectures_of_timm_have_their_published_number_of_parameters(architecture):
    side = 240 if architecture in FLEXIVIT else SIDES.get(architecture) or int(architecture.split("_")[-1])
    config = read("timm", architecture=architecture, pretrained_cfg={"input_size": [3, side, side]})
    assert config.image_size == (side, side)
    with torch.device("meta"):
        model = ViT(config)
    parameters = sum(p.numel() for p in model.parameters()) + 1000 * (model.width + 1)
    assert round(parameters / 1e6, 2) == {**MILLIONS, **FLEXIVIT}[architecture]


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("vit_tiny_patch16_224", "vit-ti16"),
        ("vit_small_patch8_224", "vit-s8"),
        ("vit_base_patch16_384", "vit-b16"),
        ("vit_huge_patch14_224", "vit-h14"),
        ("vit_gigantic_patch14_224", "vit-gigantic14"),
        ("vit_base_r50_s16_384", "vit-r50-b16"),
        ("vit_base_patch16_siglip_512", "vit-b16"),
    ],
)
def test_architectures_of_timm_have_our_names(architecture, name):
    assert LAYOUTS["timm"].read({"architecture": architecture}).model == name


def test_what_timms_model_was_built_with_goes_before_its_architecture():
    arguments = {"img_size": [32, 48], "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "mlp_ratio": 2}
    others = {"in_chans": 1, "global_pool": "avg", "act_layer": "relu", "qkv_bias": False, "init_values": 0.1}
    config = read("timm", architecture="vit_base_patch16_224", model_args={**arguments, **others})
    expected = {"channels": 1, "pool": "mean", "class_token": True, "norm": "pooled", "activation": "relu"}
    assert config == replace(TINY, **expected, qkv_bias=False, layer_scale=0.1)


def test_timms_patches_of_a_hybrid_are_counted_on_its_map():
    config = read("timm", architecture="vit_small_r26_s32_224", model_args={"patch_size": 2, "img_size": 128})
    assert config == replace(SIZES["vit-r26-s32"], patch_size=64, image_size=(128, 128))


def test_an_image_that_timm_cuts_to_whole_patches_is_that_much_smaller():
    stated = {"input_size": [3, 384, 384]}
    config = read("timm", architecture="vit_so400m_patch14_siglip_384", pretrained_cfg=stated)
    assert config.image_size == (378, 378)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"pre_norm": True}, "has pre_norm, which"),
        ({"global_pool": "avgmax"}, "pools by 'avgmax'"),
        ({"reg_tokens": 4}, "positions on its registers"),
    ],
)
def test_a_model_of_timm_that_ours_cannot_be(arguments, what):
    with pytest.raises(CheckpointError, match=what):
        LAYOUTS["timm"].read({"architecture": "vit_base_patch16_224", "model_args": arguments})


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"model_type": "vit", "hidden_act": "quick_gelu"}, "the activation quick_gelu"),
        ({"model_type": "dinov2", "use_swiglu_ffn": True}, "gated MLPs"),
    ],
)
def test_a_model_of_transformers_that_ours_cannot_be(config, what):
    layout = "transformers-dinov2" if config["model_type"] == "dinov2" else "transformers"
    with pytest.raises(CheckpointError, match=what):
        LAYOUTS[layout].read(config)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "config", [{}, {"architecture": "resnet50"}, {"architecture": "vit_base_patch16_clip_224"}, {"model_type": "swin"}]
)
def test_other_families_are_not_taken_for_a_vit(layout, config):
    assert LAYOUTS[layout].read(config) is None


def test_what_a_config_of_transformers_leaves_out_is_its_default():
    config = read("transformers", model_type="vit")
    assert config == replace(SIZES["vit-b16"], norm_eps=1e-12)
    assert read("transformers-dinov2", model_type="dinov2").norm_eps == 1e-6
    assert read("transformers-dinov2-registers", model_type="dinov2_with_registers").registers == 4


@pytest.mark.parametrize("layout", [name for name, layout in LAYOUTS.items() if layout.write])
def test_what_is_written_says_what_the_model_is(layout):
    square = {} if layout == "timm" else {"image_size": (32, 32)}
    for changes in VARIANTS[layout]:
        if changes.get("representation") or changes.get("stem"):
            continue
        config = replace(TINY, **changes, **square)
        assert read(layout, **LAYOUTS[layout].write(config)) == config


@pytest.mark.parametrize("name", [name for name in SIZES if name.startswith("vit-r")])
def test_hybrids_are_written_as_the_architecture_of_timm_with_their_resnet(name):
    config = replace(SIZES[name], width=24, heads=3, mlp=50, image_size=(64, 96))
    assert read("timm", **LAYOUTS["timm"].write(config)) == config


@pytest.mark.parametrize("mlp", range(40, 60))
def test_the_units_of_the_mlp_survive_timms_ratio(mlp):
    config = replace(TINY, mlp=mlp)
    ratio = LAYOUTS["timm"].write(config)["model_args"]["mlp_ratio"]
    assert int(config.width * ratio) == mlp


@pytest.mark.parametrize(
    ("layout", "changes", "what"),
    [
        ("timm", {"stem": "conv"}, "convolutional stem"),
        ("timm", {"position": "rotary"}, "rotary positions"),
        ("timm", {"pool": "class-mean"}, "pooling of class token and mean"),
        ("timm", {"registers": 2}, "registers beside a class token with a position"),
        ("timm", {"representation": 5}, "representation layer"),
        ("timm", {"head_width": 5}, "width of a head"),
        ("timm", {"parallel": True}, "blocks as those of ViT-22B"),
        ("timm", {"norm_eps": 1e-5}, "epsilon of 1e-05"),
        ("timm", HYBRID, r"no hybrid with the ResNet stages \(2, 1\)"),
        ("transformers", {"pool": "mean"}, "pooling by mean"),
        ("transformers", {"registers": 2}, "registers"),
        ("transformers", {"layer_scale": 0.1}, "LayerScale"),
        ("transformers", {"class_position": False}, "class token without a position"),
        ("transformers", {"norm": "pooled"}, "norm after the pooling"),
        ("transformers", {"position": "sincos"}, "sincos positions"),
        ("transformers", {"stem": "conv"}, "conv stem"),
        ("transformers-dinov2", {}, "classifier on pooling by class"),
        ("transformers-dinov2", {"pool": "class-mean"}, "block without LayerScale"),
        ("transformers-dinov2", {"pool": "class-mean", "layer_scale": 1.0, "mlp": 50}, "no multiple of the width"),
        ("transformers-dinov2", {"pool": "class-mean", "layer_scale": 1.0}, "image that is not square"),
        ("transformers-dinov2", {"registers": 2}, "registers"),
        ("transformers-dinov2-registers", {}, "form without registers"),
    ],
)
def test_what_another_library_cannot_be_is_not_written(layout, changes, what):
    with pytest.raises(SettingError, match=what):
        LAYOUTS[layout].write(replace(TINY, **changes))


def test_files_of_torchvision_with_the_older_names_of_the_mlp():
    ours = state_of(TINY)
    new = to_theirs(ours, LAYOUTS["torchvision"], TINY)
    old = {name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): x for name, x in new.items()}
    assert old.keys() != new.keys()
    back, difference = to_ours(old, ours, LAYOUTS["torchvision"], TINY)
    assert not difference
    assert same(back, ours)


def test_files_of_vit_jax_with_the_newer_numbers():
    """In the published files the numbers count all layers of a block; today's Flax counts each kind by itself."""
    ours = state_of(TINY)
    published = to_theirs(ours, LAYOUTS["google"], TINY)
    today = {}
    for name, x in published.items():
        for old, new in (("Norm_2", "Norm_1"), ("Attention_1", "Attention_0"), ("MlpBlock_3", "MlpBlock_0")):
            name = name.replace(old, new)
        today[name] = x
    assert "Transformer/encoderblock_1/MultiHeadDotProductAttention_0/query/kernel" in today
    back, difference = to_ours(today, ours, LAYOUTS["google"], TINY)
    assert not difference, str(difference)
    assert same(back, ours)


def test_files_of_big_vision_with_all_blocks_in_one_array():
    config = replace(TINY, **MAP)
    ours = state_of(config)
    theirs = to_theirs(ours, LAYOUTS["big_vision"], config)
    first = "Transformer/encoderblock_0/"
    rests = [name.removeprefix(first) for name in theirs if name.startswith(first)]
    scanned = {name: x for name, x in theirs.items() if "encoderblock_" not in name}
    for rest in rests:
        blocks = [theirs[f"Transformer/encoderblock_{i}/{rest}"] for i in range(2)]
        scanned[f"Transformer/encoderblock/{rest}"] = torch.stack(blocks)
    back, difference = to_ours(scanned, ours, LAYOUTS["big_vision"], config)
    assert not difference, str(difference)
    assert same(back, ours)


@torch.no_grad()
def test_files_of_big_vision_whose_class_token_has_a_position_or_none():
    """Whatever the file, the tokens that enter the first block are the same."""
    ours = state_of(TINY)
    without = to_theirs(ours, LAYOUTS["big_vision"], TINY)
    assert without["pos_embedding"].shape == (1, 24, 24)
    model = ViT(
        replace(TINY, image_size=(40, 40))
    ).eval()  # 25 patches: a square, so that the 26th is the class token's
    config, wanted = model.config, {f"backbone.{name}": x for name, x in model.state_dict().items()}
    torch.manual_seed(1)
    positions = torch.randn(1, 26, 24)
    newest = {**without, "pos_embedding": positions[:, 1:], "cls": without["cls"] + positions[:, :1]}
    oldest = {**without, "Transformer/pos_embedding": positions}
    del oldest["pos_embedding"]
    images, tokens = torch.randn(1, 3, 40, 40), []
    for theirs in (newest, oldest):
        renamed, difference = to_ours(theirs, wanted, LAYOUTS["big_vision"], config)
        assert not difference, str(difference)
        model.load_state_dict({name.removeprefix("backbone."): x for name, x in renamed.items()})
        assert not model.positions[:, 0].any()
        tokens.append(model.embed(images)[0])
    torch.testing.assert_close(tokens[0], tokens[1])
    torch.testing.assert_close(tokens[0][0, 0], without["cls"][0, 0] + positions[0, 0])


@torch.no_grad()
def test_vit_pytorch_reads_a_patch_pixel_by_pixel_with_its_channels():
    ours = state_of(TINY)
    weight = to_theirs(ours, LAYOUTS["vit-pytorch"], TINY)["to_patch_embedding.1.weight"]
    image = torch.randn(3, 8, 8)
    pixels = torch.tensor([image[c, row, column] for row in range(8) for column in range(8) for c in range(3)])
    kernel = ours["backbone.patch_embedding.proj.weight"]
    torch.testing.assert_close(weight @ pixels, (kernel * image).sum(dim=(1, 2, 3)), atol=1e-4, rtol=1e-4)


def test_googles_heads_are_an_axis_of_their_own():
    ours = state_of(TINY)
    theirs = to_theirs(ours, LAYOUTS["google"], TINY)
    attention = "Transformer/encoderblock_1/MultiHeadDotProductAttention_1"
    qkv = ours["backbone.blocks.1.attention.qkv.weight"]
    for part, name in enumerate(("query", "key", "value")):
        kernel = theirs[f"{attention}/{name}/kernel"]
        assert kernel.shape == (24, 3, 8)
        assert torch.equal(kernel[5, 2], qkv[24 * part + 16 : 24 * part + 24, 5])
    out = theirs[f"{attention}/out/kernel"]
    assert out.shape == (3, 8, 24)
    assert torch.equal(out[2, :, 7], ours["backbone.blocks.1.attention.proj.weight"][7, 16:])


def test_the_decoder_of_a_masked_autoencoder_is_left_out():
    backbone = {name: x for name, x in state_of(TINY).items() if name.startswith("backbone.")}
    for layout, extra in (("paper", "decoder_blocks.0.norm1.weight"), ("transformers", "decoder.mask_token")):
        theirs = {**to_theirs(backbone, LAYOUTS[layout], TINY), extra: torch.zeros(3)}
        back, difference = to_ours(theirs, backbone, LAYOUTS[layout], TINY)
        assert not difference, str(difference)
        assert same(back, backbone)


def test_a_pre_logits_layer_that_is_not_asked_for_is_reported():
    config = replace(TINY, representation=24)
    theirs = to_theirs(state_of(config), LAYOUTS["google"], config)
    _, difference = to_ours(theirs, state_of(TINY), LAYOUTS["google"], TINY)
    assert difference.unexpected == ["pre_logits/kernel", "pre_logits/bias"]
