"""Vision transformers that pack: a row of images of several sizes gives what each image gives alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vitrail import models
from vitrail.errors import SettingError
from vitrail.models.vit import Config, ViT
from vitrail.nn.patch_transformer import PatchTransformer

PATCH = 4
SHAPE = {"width": 24, "depth": 2, "heads": 3, "mlp": 48, "patch_size": PATCH, "image_size": (12, 8)}
SIZES = [(12, 8), (4, 20), (8, 8), (12, 8), (16, 4), (4, 4), (8, 8)]

MODELS = {
    **{f"pool {pool}": ("vit-s16", {"pool": pool}) for pool in ("class", "mean", "class-mean", "map")},
    **{f"position {kind}": ("vit-s16", {"position": kind}) for kind in ("learned", "sincos", "rotary")},
    "class token that is not pooled": ("vit-s16", {"pool": "mean", "class_token": True, "norm": "pooled"}),
    "no position of the class token": ("vit-s16", {"class_position": False}),
    "registers and rotary positions": ("vit-s16", {"registers": 3, "position": "rotary", "pool": "map"}),
    "representation layer": ("vit-s16", {"representation": 7}),
    "parallel blocks": ("vit-22b14", {}),
    "convolutional stem": ("vit-micro", {}),
    "hybrid": ("vit-r-ti16", {}),
    "DeiT": ("deit-s16", {}),
    "DeiT, distilled": ("deit-s16-distilled", {}),
    "DeiT III": ("deit3-s16", {}),
    "DINOv3": ("dinov3-s16plus", {}),
    "RoPE-ViT, mixed": ("rope-vit-s16", {}),
    "RoPE-ViT, mixed and learned": ("rope-vit-s16-ape", {}),
    "RoPE-ViT, axial": ("rope-vit-s16-axial", {}),
}


def randomised(name: str, changes: dict[str, object]) -> PatchTransformer:
    """A small model with no parameter at a special value, which may be given images of any size."""
    torch.manual_seed(0)
    model = models.create(name, **{**SHAPE, **changes})
    assert isinstance(model, PatchTransformer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.resampling = "bicubic"
    return model.eval()


@pytest.fixture(scope="module")
def made() -> dict[str, PatchTransformer]:
    return {what: randomised(*of) for what, of in MODELS.items()}


def images_of(sizes: list[tuple[int, int]], channels: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1, channels, *size, generator=generator) for size in sizes]


def grouped(images: list[Tensor]) -> list[Tensor]:
    """Neighbours of one size as one batch."""
    groups: list[Tensor] = []
    for image in images:
        if groups and groups[-1].shape[1:] == image.shape[1:]:
            groups[-1] = torch.cat([groups[-1], image])
        else:
            groups.append(image)
    return groups


def assert_as_alone(model: PatchTransformer, images: list[Tensor], atol: float = 1e-5) -> None:
    together = model.packed(grouped(images))
    pooled = torch.cat([each.pooled for each in together])
    tokens = [row for each in together for row in each.tokens]
    for number, image in enumerate(images):
        alone = model(image)
        scale = max(1.0, alone.tokens.abs().max().item())
        torch.testing.assert_close(pooled[number], alone.pooled[0], atol=atol * scale, rtol=1e-5)
        torch.testing.assert_close(tokens[number], alone.tokens[0], atol=atol * scale, rtol=1e-5)


@pytest.mark.parametrize("what", MODELS)
@torch.inference_mode()
def test_packed_images_give_what_each_gives_alone(made, what):
    assert_as_alone(made[what], images_of(SIZES))


SIDES = st.integers(1, 6).map(lambda patches: patches * PATCH)


@given(sizes=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=6), what=st.sampled_from(sorted(MODELS)))
@settings(deadline=None, max_examples=40)
@torch.inference_mode()
def test_of_any_sizes(made, sizes, what):
    assert_as_alone(made[what], images_of(sizes))


@pytest.mark.parametrize("what", ["position rotary", "DeiT, distilled", "RoPE-ViT, mixed"])
@torch.inference_mode()
def test_features_say_on_which_grid_each_image_was_cut(made, what):
    model = made[what]
    for features, (height, width) in zip(model.packed(images_of([(4, 20), (12, 8)])), [(4, 20), (12, 8)], strict=True):
        assert features.grid == (height // PATCH, width // PATCH)
        assert features.maps[0].shape == (1, 24, *features.grid)
        assert features.pooled.shape == (1, model.width)


@torch.inference_mode()
def test_the_order_of_the_images_does_not_matter(made):
    model, images = made["pool map"], images_of(SIZES)
    forwards = torch.cat([each.pooled for each in model.packed(images)])
    backwards = torch.cat([each.pooled for each in model.packed(images[::-1])])
    torch.testing.assert_close(forwards, backwards.flip(0), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_an_image_does_not_depend_on_the_others_of_its_row(made):
    model, (first, *others) = made["position learned"], images_of(SIZES)
    quiet, loud = (model.packed([first, *(1000 * level * x for x in others)])[0].pooled for level in (0, 1))
    torch.testing.assert_close(quiet, loud, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("what", MODELS)
@torch.inference_mode()
def test_in_bfloat16_the_difference_is_its_rounding(made, what):
    """No further from float32 than images alone in bfloat16 are: 8 bits a number, and a few layers."""
    model, images = made[what], images_of(SIZES)
    exact = torch.cat([model(image).pooled for image in images])
    with torch.autocast("cpu", torch.bfloat16):
        packed = torch.cat([each.pooled for each in model.packed(images)]).float()
        alone = torch.cat([model(image).pooled for image in images]).float()
    error = (alone - exact).norm() / exact.norm()
    assert (packed - exact).norm() / exact.norm() < 2 * error + 1e-3


def test_gradients_are_those_of_the_images_alone():
    model, images = randomised("vit-s16", {"position": "rotary"}), images_of(SIZES)

    def gradients(pooled: list[Tensor]) -> list[Tensor]:
        return list(torch.autograd.grad(torch.cat(pooled).square().sum(), list(model.parameters())))

    packed = gradients([each.pooled for each in model.packed(images)])
    alone = gradients([model(image).pooled for image in images])
    torch.testing.assert_close(packed, alone, atol=1e-3, rtol=1e-4)


def test_in_training_images_are_not_packed():
    with pytest.raises(SettingError, match="evaluation only"):
        ViT(Config(**SHAPE)).train().packed(images_of([(12, 8)]))


def test_positions_of_another_grid_want_to_be_allowed():
    with pytest.raises(SettingError, match="give images of 12x8 pixels"):
        ViT(Config(**SHAPE)).eval().packed(images_of([(12, 8), (8, 8)]))


def test_sides_must_be_whole_patches(made):
    with pytest.raises(SettingError, match="not divisible by the patch size 4"):
        made["pool mean"].packed(images_of([(12, 8), (3, 8)]))
