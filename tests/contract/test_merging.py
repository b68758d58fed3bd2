"""Every model that merges tokens keeps its promises while it does, and the others say that they do not."""

import importlib.util
from pathlib import Path

import pytest
import torch

from vitrail import models
from vitrail.explain.record import record_attention

spec = importlib.util.spec_from_file_location("sizes", Path(__file__).parent / "test_models.py")
sizes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sizes)

# Of each way to pool, to place and to attend one.
MERGING = [
    "deit-ti16-distilled",
    "deit3-s16",
    "dinov3-s16",
    "rope-vit-s16",
    "rope-vit-s16-axial-ape",
    "vit-nano",
    "vit-s16",
    "vit-r26-s32",
    "vit-e14",
    "vit-22b14",
]
PAIRS = 4


@pytest.fixture(params=MERGING)
def model(request):
    """Of two blocks and 24 or more patches."""
    side = models.config(request.param).patch_size if models.family(request.param) == "vit" else 8
    return sizes.randomised(sizes.small(request.param, image_size=(6 * side, 4 * side))).eval()


def test_the_families_that_merge():
    merging = {name for name, family in models.FAMILIES.items() if family.build.merge is not None}
    assert merging == {"deit", "dinov3", "rope-vit", "vit"} == {models.family(name) for name in MERGING}


@torch.no_grad()
def test_features_are_whole_and_have_as_many_vectors_as_tokens_were_left(model):
    x = sizes.images(model, 2)
    whole = model(x)
    model.merge = PAIRS
    merged = model(x)
    sizes.assert_contract(merged, model, 2)
    assert (merged.prefix, merged.grid) == (whole.prefix, whole.grid)
    places = whole.grid[0] * whole.grid[1]
    for row in merged.tokens:
        assert len(row[merged.prefix :].unique(dim=0)) == places - PAIRS * len(model.blocks)
        assert len(row[: merged.prefix].unique(dim=0)) == merged.prefix
    assert not torch.equal(merged.pooled, whole.pooled)
    model.merge = 0
    assert torch.equal(model(x).tokens, whole.tokens)


@torch.no_grad()
def test_an_image_does_not_depend_on_the_others_of_its_batch(model):
    model.merge = PAIRS
    x = sizes.images(model, 3)
    together = model(x)
    for row in range(3):
        alone = model(x[row : row + 1])
        scale = max(1.0, together.tokens[row].abs().max().item())
        torch.testing.assert_close(alone.tokens[0], together.tokens[row], atol=1e-5 * scale, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@torch.no_grad()
def test_features_have_the_dtype_of_weights_and_images(model, dtype):
    model.merge = PAIRS
    features = model.to(dtype)(sizes.images(model, 2, dtype=dtype))
    assert {x.dtype for x in (features.tokens, features.pooled, *features.maps)} == {dtype}
    assert features.tokens.isfinite().all()


@torch.no_grad()
def test_automatic_precision(model):
    model.merge = PAIRS
    x = sizes.images(model, 2)
    with torch.autocast("cpu", torch.bfloat16):
        features = model(x)
    sizes.assert_contract(features, model, 2)
    assert features.tokens.isfinite().all()


@torch.no_grad()
def test_attention_is_looked_into_without_merging(model):
    x = sizes.images(model, 1)
    with record_attention(model) as expected:
        model(x)
    model.merge = PAIRS
    with record_attention(model) as recorded:
        model(x)
    assert model.merge == PAIRS
    assert list(recorded) == list(expected)
    for name, layer in recorded.items():
        assert torch.equal(layer.probabilities, expected[name].probabilities)
