"""Swin against Transformers' on small random networks, through the key tables that open its files."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import SwinConfig, SwinForImageClassification, SwinForMaskedImageModeling

from vitrail import models
from vitrail.heads.linear import LinearHead
from vitrail.models.swin import LAYOUTS
from vitrail.models.swin.keys import SHAPE
from vitrail.weights.rename import to_ours, to_theirs

SMALL = {"embed_dim": 8, "depths": [2, 2, 2], "num_heads": [1, 2, 4], "window_size": 4, "image_size": 64}
CHANGES = {
    "maps of whole windows": ({}, (64, 64)),
    "padded maps": ({"image_size": [68, 76]}, (68, 76)),
    "another image size than the config's": ({}, (150, 91)),
    "a stage of one window": ({"window_size": 8, "image_size": 128}, (128, 128)),
    "one window high and two wide": ({"image_size": [64, 128]}, (64, 128)),
    "other dimensions": ({"patch_size": 2, "mlp_ratio": 2.0, "qkv_bias": False, "num_channels": 1}, (64, 64)),
}


def theirs(config, kind=SwinForImageClassification):
    torch.manual_seed(0)
    model = kind(SwinConfig(num_labels=5, **{**SMALL, **config})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


class Ours(torch.nn.Module):
    """Backbone and classifier, named as in a task."""

    def __init__(self, config):
        super().__init__()
        described = LAYOUTS["transformers"].read(config)
        self.backbone = models.create(described.model, **described.changes)
        self.head = LinearHead(self.backbone.width, 5)

    def forward(self, images):
        return self.head(self.backbone(images))


@pytest.mark.parametrize("case", CHANGES)
@pytest.mark.parametrize("layout", ["transformers", "transformers-5"])
@torch.no_grad()
def test_logits_agree_and_weights_go_both_ways(case, layout, tmp_path):
    changes, size = CHANGES[case]
    model = theirs(changes)
    if layout == "transformers":  # the names in files are not those in memory
        model.save_pretrained(tmp_path)
        weights = load_file(tmp_path / "model.safetensors")
    else:
        weights = model.state_dict()
    ours = Ours(model.config.to_dict()).eval()
    renamed, difference = to_ours(weights, ours.state_dict(), LAYOUTS[layout], ours.backbone.config)
    assert str(difference) == ""
    ours.load_state_dict(renamed)

    images = torch.randn(2, model.config.num_channels, *size)
    torch.testing.assert_close(ours(images), model(images).logits, atol=1e-5, rtol=1e-4)

    back = to_theirs(ours.state_dict(), LAYOUTS[layout], ours.backbone.config)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)


@torch.no_grad()
def test_maps_are_the_stages_outputs_before_the_next_merging():
    model = theirs({})
    ours = Ours(model.config.to_dict()).eval()
    weights, _ = to_ours(model.state_dict(), ours.state_dict(), LAYOUTS["transformers-5"], ours.backbone.config)
    ours.load_state_dict(weights)
    images = torch.randn(2, 3, 72, 56)
    expected = model.swin(images, output_hidden_states=True, output_hidden_states_before_downsampling=True)
    features = ours.backbone(images)
    stages = expected.reshaped_hidden_states[1:]
    for map_, stage in zip(features.maps[:-1], stages[:-1], strict=True):
        torch.testing.assert_close(map_, stage, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(features.tokens, expected.last_hidden_state, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(features.pooled, expected.pooler_output, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_what_learned_by_filling_in_patches_opens_without_a_classifier(tmp_path):
    model = theirs({"encoder_stride": 16}, SwinForMaskedImageModeling)
    model.save_pretrained(tmp_path)
    backbone = Ours(model.config.to_dict()).backbone.eval()
    weights = load_file(tmp_path / "model.safetensors")
    renamed, difference = to_ours(weights, backbone.state_dict(), LAYOUTS["transformers"], backbone.config)
    assert str(difference) == ""
    backbone.load_state_dict(renamed)
    images = torch.randn(1, 3, 64, 64)
    expected = model.swin(images).last_hidden_state
    torch.testing.assert_close(backbone(images).tokens, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("case", CHANGES)
def test_our_config_builds_their_model(case):
    stated = SwinConfig(num_labels=5, **{**SMALL, **CHANGES[case][0]}).to_dict()
    described = LAYOUTS["transformers"].read(stated)
    written = LAYOUTS["transformers"].write(models.changed(described.model, **described.changes))
    assert LAYOUTS["transformers"].read(written) == described
    built = SwinConfig(num_labels=5, **{key: value for key, value in written.items() if key != "model_type"}).to_dict()
    assert {name: built[name] for name in SHAPE} == {name: stated[name] for name in SHAPE}
