"""The parameter counts that were published, each with the convention of counting that makes it exact."""

from dataclasses import replace

import pytest
import torch

from vitrail.models.vit.vit import SIZES, ViT

# With a linear classifier of 1,000 classes at 224 pixels: timm's models of the same geometry (vit_tiny_patch16_224 to
# vit_gigantic_patch14_224); torchvision's vit_b_16, b_32, l_16, l_32 and h_14 agree to the last parameter.
WITH_1000_CLASSES = {
    "vit-ti16": 5_717_416,
    "vit-s32": 22_878_952,
    "vit-s16": 22_050_664,
    "vit-s8": 22_055_272,
    "vit-b32": 88_224_232,
    "vit-b16": 86_567_656,
    "vit-b8": 86_576_872,
    "vit-l32": 306_535_400,
    "vit-l16": 304_326_632,
    "vit-h14": 632_045_800,
    "vit-giant14": 1_012_611_432,
    "vit-gigantic14": 1_844_440_680,
    "vit-r-ti16": 6_337_704,  # vit_tiny_r_s16_p8_224
    "vit-r26-s32": 36_431_912,  # vit_small_r26_s32_224
    "vit-r50-b16": 98_659_112,  # vit_base_r50_s16_224
    "vit-r50-l32": 328_994_856,  # vit_large_r50_s32_224
}
# The same at 384 pixels, where the table of learned positions is larger (timm's vit_…_384).
WITH_1000_CLASSES_AT_384 = {
    "vit-ti16": 5_790_376,
    "vit-s32": 22_915_432,
    "vit-s16": 22_196_584,
    "vit-b32": 88_297_192,
    "vit-b16": 86_859_496,
    "vit-l32": 306_632_680,
    "vit-l16": 304_715_752,
    "vit-r-ti16": 6_355_944,
    "vit-r26-s32": 36_468_392,
    "vit-r50-b16": 98_950_952,
    "vit-r50-l32": 329_092_136,
}


def build(name, **changes):
    with torch.device("meta"):
        return ViT(replace(SIZES[name], **changes))


def count(model, classes=None):
    """Parameters of the model, and of a linear classifier behind it if there are classes."""
    head = (model.width + 1) * classes if classes else 0
    return sum(p.numel() for p in model.parameters()) + head


def millions(parameters):
    return round(parameters / 1e6)


@pytest.mark.parametrize("name", WITH_1000_CLASSES)
def test_with_classifier_at_224_pixels(name):
    assert count(build(name), classes=1000) == WITH_1000_CLASSES[name]


@pytest.mark.parametrize("name", WITH_1000_CLASSES_AT_384)
def test_with_classifier_at_384_pixels(name):
    assert count(build(name, image_size=(384, 384)), classes=1000) == WITH_1000_CLASSES_AT_384[name]


def test_base_has_86_million_without_a_head():
    """Dosovitskiy et al. 2021, table 1: encoder and embeddings of B/16."""
    assert millions(count(build("vit-b16"))) == 86


def test_large_has_307_million_with_patches_of_32_and_a_classifier():
    """Dosovitskiy et al. 2021, table 1: it is L/32; L/16, with a smaller patch embedding, has 304."""
    assert millions(count(build("vit-l32"), classes=1000)) == 307
    assert millions(count(build("vit-l16"), classes=1000)) == 304


def test_huge_has_632_million_with_a_classifier():
    """Dosovitskiy et al. 2021, table 1: H/14 and 1,000 classes."""
    assert millions(count(build("vit-h14"), classes=1000)) == 632


def test_gigantic_has_1843_million_without_a_head():
    """Zhai et al. 2022, table 2: encoder and embeddings of G/14."""
    assert millions(count(build("vit-gigantic14"))) == 1843


def test_e_has_3926_million_with_attention_pooling_and_the_classes_of_its_data():
    """Chen et al. 2022 (PaLI), table 1: e/14 pooled by attention, and a classifier of JFT-3B's 29,593 classes."""
    assert millions(count(build("vit-e14"), classes=29_593)) == 3926


def test_22b_has_21743_million_in_the_matrices_of_its_blocks():
    """Dehghani et al. 2023, table 1: 48 blocks of 12 D² weights; no embeddings, biases, norms or pooling."""
    model = build("vit-22b14")
    matrices = [p.numel() for p in model.blocks.parameters() if p.ndim == 2]
    assert sum(matrices) == 48 * 12 * 6144**2
    assert millions(sum(matrices)) == 21_743


def test_every_published_size_is_checked_here():
    ours = {"vit-nano", "vit-micro"}
    assert SIZES.keys() - ours == WITH_1000_CLASSES.keys() | {"vit-e14", "vit-22b14"}
