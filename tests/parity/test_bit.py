"""BiT against Transformers' on small random networks, and its weights under every library's names."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BitConfig, BitForImageClassification

from vitrail import models
from vitrail.errors import CheckpointError, SettingError
from vitrail.models.bit.bit import SIZES, BiT, Config
from vitrail.models.bit.keys import LAYOUTS, read_timm, read_transformers, write_timm, write_transformers
from vitrail.models.layout import Described
from vitrail.weights.load import load, load_pretrained
from vitrail.weights.rename import to_ours, to_theirs

SHAPE = {"embedding_size": 16, "hidden_sizes": [64, 128, 256], "depths": [2, 1, 2], "num_groups": 4}


def random_peer(**config):
    torch.manual_seed(0)
    peer = BitForImageClassification(BitConfig(**SHAPE, num_labels=5, **config)).eval()
    for parameter in peer.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return peer


@pytest.mark.parametrize(("size", "channels"), [((64, 64), 3), ((75, 50), 1)])
@torch.no_grad()
def test_logits_maps_and_pooled_agree(size, channels, tmp_path):
    peer = random_peer(num_channels=channels)
    peer.save_pretrained(tmp_path)
    ours = load(tmp_path)
    assert ours.backbone.config.conv_eps == 1e-8
    images = torch.randn(2, channels, *size)
    torch.testing.assert_close(ours(images), peer(images).logits, atol=1e-5, rtol=1e-4)
    expected = peer.bit(images, output_hidden_states=True)
    features = ours.backbone(images)
    stages = (*expected.hidden_states[1:-1], expected.last_hidden_state)
    for map_, stage in zip(features.maps, stages, strict=True):
        torch.testing.assert_close(map_, stage, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(features.pooled, expected.pooler_output.flatten(1), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_file_without_classifier_opens(tmp_path):
    peer = random_peer().bit
    peer.save_pretrained(tmp_path)
    ours = load_pretrained(tmp_path)
    assert ours.classes == ()
    images = torch.randn(2, 3, 64, 64)
    expected = peer(images).pooler_output.flatten(1)
    torch.testing.assert_close(ours.backbone(images).pooled, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_goes_back_is_theirs_to_the_bit_and_loads(tmp_path):
    peer = random_peer()
    peer.save_pretrained(tmp_path)
    ours = load(tmp_path)
    config = ours.backbone.config
    back = to_theirs(ours.state_dict(), LAYOUTS["transformers"], config)
    file = load_file(tmp_path / "model.safetensors")
    assert back.keys() == file.keys()
    assert all(torch.equal(back[name], file[name]) for name in file)
    again = BitForImageClassification(BitConfig(**write_transformers(config), num_labels=5)).eval()
    again.load_state_dict(back)
    images = torch.randn(2, 3, 50, 75)
    torch.testing.assert_close(again(images).logits, ours(images), atol=1e-5, rtol=1e-4)


def state():
    model = BiT(Config((1, 11), 8, groups=4))
    of_task = {f"backbone.{name}": tensor for name, tensor in model.state_dict().items()}
    return model.config, of_task | {"head.linear.weight": torch.randn(3, 64), "head.linear.bias": torch.randn(3)}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_tensor_has_one_name_in_every_layout(layout):
    config, ours = state()
    theirs = to_theirs(ours, layout, config)
    assert len(theirs) == len(ours)
    again, difference = to_ours(theirs, ours, layout, config)
    assert not difference, str(difference)
    assert all(torch.equal(again[name], tensor) for name, tensor in ours.items())


def test_names_and_shapes_in_the_authors_files():
    """As big_transfer's bit_pytorch/models.py reads them: HWIO kernels, units in two digits, a convolution as head."""
    config, ours = state()
    theirs = to_theirs(ours, LAYOUTS["google"], config)
    kernel = theirs["resnet/block2/unit11/b/standardized_conv2d/kernel"]
    assert kernel.shape == (3, 3, 16, 16)
    assert torch.equal(kernel[0, 2, 5, 7], ours["backbone.stages.1.10.conv2.weight"][7, 5, 0, 2])
    assert theirs["resnet/root_block/standardized_conv2d/kernel"].shape == (7, 7, 3, 8)
    assert theirs["resnet/block1/unit01/a/proj/standardized_conv2d/kernel"].shape == (1, 1, 8, 32)
    assert torch.equal(theirs["resnet/block1/unit01/a/group_norm/gamma"], ours["backbone.stages.0.0.norm1.weight"])
    assert torch.equal(theirs["resnet/group_norm/beta"], ours["backbone.norm.bias"])
    assert torch.equal(theirs["resnet/head/conv2d/kernel"][0, 0], ours["head.linear.weight"].T)


@torch.no_grad()
def test_a_file_of_the_authors_opens(tmp_path):
    config, ours = state()
    theirs = to_theirs(ours, LAYOUTS["google"], config)
    np.savez(tmp_path / "BiT.npz", **{name: tensor.numpy() for name, tensor in theirs.items()})
    changes = {"depths": (1, 11), "width": 8, "groups": 4}
    task = load(tmp_path / "BiT.npz", layout="google", model="bit-r50x1", config=changes)
    assert task.backbone.config.conv_eps == 1e-10
    assert (task.preprocess.resize, task.preprocess.interpolation, task.preprocess.mean) == (
        "squash",
        "bilinear",
        (0.5,) * 3,
    )
    assert all(torch.equal(tensor, ours[name]) for name, tensor in task.state_dict().items())


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize(("read", "write"), [(read_timm, write_timm), (read_transformers, write_transformers)])
def test_a_published_size_goes_out_and_back_under_its_own_name(name, read, write):
    config = replace(SIZES[name], conv_eps=1e-8, image_size=(96, 64), channels=1)
    written = json.loads(json.dumps(write(config)))
    assert read(written) == Described(name, {"conv_eps": 1e-8, "image_size": (96, 64), "channels": 1})
    if read is read_timm:
        assert written["architecture"] == f"resnetv2_{name.removeprefix('bit-r')}_bit"


@pytest.mark.parametrize("depths", [(3, 4, 23, 3), (3, 8, 36, 3)])
def test_other_widths_go_to_timm_and_back(depths):
    config = Config(depths, 32, conv_eps=1e-8)
    described = read_timm(json.loads(json.dumps(write_timm(config))))
    assert models.changed(described.model, **described.changes) == config


@pytest.mark.parametrize(
    ("read", "stated", "words"),
    [
        (
            read_transformers,
            {"model_type": "bit", "layer_type": "bottleneck"},
            "layer_type=bottleneck, Vitrail's has pre",
        ),
        (read_transformers, {"model_type": "bit", "width_factor": 3}, "width_factor=3, Vitrail's has 1"),
        (read_transformers, {"model_type": "bit", "embedding_size": 32}, "Vitrail's double them: .128, 256, 512, 1024"),
        (read_timm, {"architecture": "resnetv2_50x1_bit", "model_args": {"preact": False}}, "has preact=False, which"),
        (read_timm, {"architecture": "resnetv2_50x1_bit", "model_args": {"stem_chs": 32}}, "Vitrail's double them"),
    ],
)
def test_what_ours_is_not_is_named(read, stated, words):
    with pytest.raises(CheckpointError, match=words):
        read(stated)


@pytest.mark.parametrize(
    ("write", "config", "words"),
    [
        (write_timm, SIZES["bit-r50x1"], "open or train it with conv_eps=1e-08 to export it"),
        (write_transformers, SIZES["bit-r50x1"], "open or train it with conv_eps=1e-08 to export it"),
        (write_transformers, Config((1, 1), 4, groups=4, conv_eps=1e-8), "a multiple of 8, this one has 4"),
        (write_timm, Config((1, 1), 32, conv_eps=1e-8), "export it to transformers"),
        (write_timm, Config((3, 4, 6, 3), 16, groups=4, conv_eps=1e-8), "export it to transformers"),
    ],
)
def test_what_a_library_cannot_express_is_refused(write, config, words):
    with pytest.raises(SettingError, match=words):
        write(config)
