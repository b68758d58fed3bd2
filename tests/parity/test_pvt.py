"""PVT and PVT v2 against Transformers on tiny random networks, through the key tables."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file

from vitrail import models
from vitrail.heads.linear import LinearHead
from vitrail.models import pvt, pvt_v2
from vitrail.weights.rename import to_ours, to_theirs

SHAPE = {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 2, 2, 1], "num_attention_heads": [1, 2, 4, 3], "num_labels": 5}
V1, V2 = ("Pvt", pvt.LAYOUTS["transformers"]), ("PvtV2", pvt_v2.LAYOUTS["transformers"])
CASES = [
    (*V1, (64, 64), {"image_size": 64}),
    (*V1, (75, 75), {"image_size": 75, "num_channels": 1, "layer_norm_eps": 1e-3}),
    (*V1, (64, 64), {"image_size": 64, "sequence_reduction_ratios": [4, 4, 1, 1], "mlp_ratios": [2, 3, 4, 5]}),
    (*V2, (64, 64), {}),
    (*V2, (75, 130), {"num_channels": 1, "layer_norm_eps": 1e-3}),
    (*V2, (75, 130), {"linear_attention": True}),
    (*V2, (96, 64), {"sr_ratios": [4, 4, 1, 2], "mlp_ratios": [2, 3, 4, 5]}),
    (*V2, (96, 64), {"qkv_bias": False}),
]


class Ours(torch.nn.Module):
    """Backbone and classifier under the names that a task has."""

    def __init__(self, described):
        super().__init__()
        self.backbone = models.create(described.model, **described.changes)
        self.head = LinearHead(self.backbone.width, 5)

    def forward(self, images):
        return self.head(self.backbone(images))


def random_peer(kind, config, folder):
    """A network of Transformers, the tensors that it saves and its config.json."""
    torch.manual_seed(0)
    cls = getattr(transformers, kind)
    peer = cls(cls.config_class(**SHAPE, **config)).eval()
    for parameter in peer.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    peer.save_pretrained(folder)
    return peer, load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())


def fitted(ours, tensors, layout, config):
    """Our module with the tensors of that layout, which must fit exactly."""
    state, difference = to_ours(tensors, ours.state_dict(), layout, config)
    assert not difference, str(difference)
    ours.load_state_dict(state)
    return ours.eval()


@pytest.mark.parametrize(("family", "layout", "size", "changes"), CASES)
@torch.no_grad()
def test_logits_and_maps_agree(family, layout, size, changes, tmp_path):
    peer, tensors, config = random_peer(f"{family}ForImageClassification", changes, tmp_path)
    ours = Ours(layout.read(config))
    fitted(ours, tensors, layout, ours.backbone.config)
    images = torch.randn(2, changes.get("num_channels", 3), *size)
    expected = peer(images, output_hidden_states=True)
    torch.testing.assert_close(ours(images), expected.logits, atol=1e-5, rtol=1e-5)

    features = ours.backbone(images)
    if family == "PvtV2":
        for map_, stage in zip(features.maps, expected.hidden_states, strict=True):
            torch.testing.assert_close(map_, stage, atol=1e-5, rtol=1e-5)
    else:  # the tokens after every block, and the last ones normalised
        for map_, block in zip(features.maps, (0, 2, 4), strict=False):
            tokens = map_.flatten(2).transpose(1, 2)
            torch.testing.assert_close(tokens, expected.hidden_states[block], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(features.tokens, expected.hidden_states[-1], atol=1e-5, rtol=1e-5)

    back = to_theirs(ours.state_dict(), layout, ours.backbone.config)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(("family", "layout"), [V1, V2])
@torch.no_grad()
def test_names_in_files_are_those_in_memory(family, layout, tmp_path):
    peer, tensors, _ = random_peer(f"{family}ForImageClassification", {"image_size": 64}, tmp_path)
    assert peer.state_dict().keys() == tensors.keys()


@pytest.mark.parametrize(("family", "layout"), [V1, V2])
@torch.no_grad()
def test_a_model_without_classifier_opens(family, layout, tmp_path):
    peer, tensors, config = random_peer(f"{family}Model", {"image_size": 64}, tmp_path)
    described = layout.read(config)
    backbone = models.create(described.model, **described.changes)
    fitted(backbone, tensors, layout, backbone.config)
    images = torch.randn(2, 3, 64, 64)
    expected = peer(images).last_hidden_state
    ours = backbone(images).tokens if family == "Pvt" else backbone(images).maps[-1]
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["Pvt", "PvtV2"])
def test_the_defaults_of_their_configs_are_those_that_ours_assumes(kind):
    """A config.json may leave out what has its default value."""
    layout = (pvt if kind == "Pvt" else pvt_v2).LAYOUTS["transformers"]
    theirs = getattr(transformers, f"{kind}Config")()
    assert layout.read(theirs.to_dict()) == layout.read({"model_type": theirs.model_type})
