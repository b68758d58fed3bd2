"""ResNet against Transformers' ResNetModel on small random networks."""

import pytest
import torch
from transformers import ResNetConfig, ResNetModel

from vitrail.models.resnet.resnet import Config, ResNet

PARTS = {"convolution": "conv", "normalization": "norm"}


def our_name(theirs):
    """``encoder.stages.1.layers.0.layer.2.convolution.weight`` is our ``stages.1.0.conv3.conv.weight``."""
    words = theirs.split(".")
    part, tensor = PARTS[words[-2]], words[-1]
    if words[0] == "embedder":
        return f"stem.0.{part}.{tensor}"
    _, _, stage, _, block, kind, *number, _, _ = words
    layer = "shortcut" if kind == "shortcut" else f"conv{int(number[0]) + 1}"
    return f"stages.{stage}.{block}.{layer}.{part}.{tensor}"


def randomise(model):
    """Other values than the initial ones for every parameter and every running statistic."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            values = torch.randn_like(tensor) * 0.2
            tensor.data.copy_(tensor + values if tensor.ndim > 1 else (1 + values).abs())


@pytest.mark.parametrize(("block", "widen"), [("basic", 1), ("bottleneck", 4)])
@pytest.mark.parametrize("size", [(64, 64), (75, 50)])
@torch.no_grad()
def test_maps_and_pooled_agree(block, widen, size):
    torch.manual_seed(0)
    settings = {"depths": [2, 1, 3], "layer_type": block, "downsample_in_bottleneck": False}
    sizes = {"embedding_size": 8, "hidden_sizes": [8 * widen, 16 * widen, 32 * widen]}
    theirs = ResNetModel(ResNetConfig(**settings, **sizes)).eval()
    randomise(theirs)
    ours = ResNet(Config(block, (2, 1, 3), width=8)).eval()
    ours.load_state_dict({our_name(name): tensor for name, tensor in theirs.state_dict().items()})

    images = torch.randn(2, 3, *size)
    expected = theirs(images, output_hidden_states=True)
    features = ours(images)
    for map_, stage in zip(features.maps, expected.hidden_states[1:], strict=True):
        torch.testing.assert_close(map_, stage, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features.pooled, expected.pooler_output.flatten(1), atol=1e-5, rtol=1e-5)
