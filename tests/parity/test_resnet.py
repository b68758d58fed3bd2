"""ResNet against Transformers' on small random networks, through the key tables; and trained weights on real images."""

import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import ResNetConfig, ResNetForImageClassification

from vitrail import models
from vitrail.data.folder import open_folder
from vitrail.errors import CheckpointError, SettingError
from vitrail.models.layout import Described
from vitrail.models.resnet.keys import (
    LAYOUTS,
    TIMM_MODELS,
    read_timm,
    read_transformers,
    write_timm,
    write_transformers,
)
from vitrail.models.resnet.resnet import SIZES, Config, ResNet
from vitrail.weights.load import load, load_pretrained
from vitrail.weights.rename import to_ours, to_theirs

BASIC = {"layer_type": "basic", "hidden_sizes": [8, 16, 32]}
BOTTLENECK = {"layer_type": "bottleneck", "hidden_sizes": [32, 64, 128]}


def random_peer(**config):
    """Other values than the initial ones for every parameter and every running statistic."""
    torch.manual_seed(0)
    peer = ResNetForImageClassification(ResNetConfig(embedding_size=8, depths=[2, 1, 3], num_labels=5, **config)).eval()
    for tensor in (*peer.parameters(), *peer.buffers()):
        if tensor.is_floating_point():
            values = torch.randn_like(tensor) * 0.2
            tensor.data.copy_(tensor + values if tensor.ndim > 1 else (1 + values).abs())
    return peer


@pytest.mark.parametrize("settings", [BASIC, BOTTLENECK])
@pytest.mark.parametrize(("size", "channels"), [((64, 64), 3), ((75, 50), 1)])
@torch.no_grad()
def test_logits_maps_and_pooled_agree(settings, size, channels, tmp_path):
    peer = random_peer(**settings, num_channels=channels)
    peer.save_pretrained(tmp_path)
    ours = load(tmp_path)
    assert ours.backbone.config.channels == channels
    images = torch.randn(2, channels, *size)
    torch.testing.assert_close(ours(images), peer(images).logits, atol=1e-4, rtol=1e-5)
    expected = peer.resnet(images, output_hidden_states=True)
    features = ours.backbone(images)
    for map_, stage in zip(features.maps, expected.hidden_states[1:], strict=True):
        torch.testing.assert_close(map_, stage, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features.pooled, expected.pooler_output.flatten(1), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_file_without_classifier_opens(tmp_path):
    peer = random_peer(**BASIC).resnet
    peer.save_pretrained(tmp_path)
    ours = load_pretrained(tmp_path)
    assert ours.classes == ()
    images = torch.randn(2, 3, 64, 64)
    expected = peer(images).pooler_output.flatten(1)
    torch.testing.assert_close(ours.backbone(images).pooled, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("settings", [BASIC, BOTTLENECK])
@torch.no_grad()
def test_what_goes_back_is_theirs_to_the_bit_and_loads(settings, tmp_path):
    peer = random_peer(**settings)
    peer.save_pretrained(tmp_path)
    ours = load(tmp_path)
    config = ours.backbone.config
    back = to_theirs(ours.state_dict(), LAYOUTS["transformers"], config)
    file = load_file(tmp_path / "model.safetensors")
    assert back.keys() == file.keys()
    assert all(torch.equal(back[name], file[name]) for name in file)
    again = ResNetForImageClassification(ResNetConfig(**write_transformers(config), num_labels=5)).eval()
    again.load_state_dict(back)
    images = torch.randn(2, 3, 50, 75)
    torch.testing.assert_close(again(images).logits, ours(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "settings", [{}, {"shortcut": "pad"}, {"shortcut": "absent"}, {"block": "bottleneck", "groups": 2}]
)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_tensor_has_one_name_in_every_layout(settings, layout):
    model = ResNet(replace(Config("basic", (1, 2), width=4), **settings))
    state = {f"backbone.{name}": tensor for name, tensor in model.state_dict().items()}
    state |= {"head.linear.weight": torch.randn(3, model.width), "head.linear.bias": torch.randn(3)}
    theirs = to_theirs(state, layout, model.config)
    assert len(theirs) == len(state)
    again, difference = to_ours(theirs, state, layout, model.config)
    assert not difference, str(difference)
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


def test_the_published_size_is_recognised_by_its_shape():
    stated = {"model_type": "resnet", "depths": [3, 4, 23, 3], "num_channels": 1, "image_size": 160}
    assert read_transformers(stated) == Described("resnet-101", {"image_size": (160, 160), "channels": 1})
    arguments = {"layers": [3, 4, 6, 3], "cardinality": 32, "base_width": 4}
    assert read_timm({"architecture": "resnet26", "model_args": arguments}).model == "resnext-50-32x4d"


@pytest.mark.parametrize("name", [name for name in SIZES if SIZES[name].stem == "imagenet"])
def test_a_published_size_goes_to_timm_and_back_under_its_own_name(name):
    written = json.loads(json.dumps(write_timm(replace(SIZES[name], image_size=(96, 64), channels=1))))
    assert written["architecture"] == name.replace("-", "", 1).replace("-", "_")
    assert read_timm(written) == Described(name, {"image_size": (96, 64), "channels": 1})


@pytest.mark.parametrize("architecture", TIMM_MODELS)
def test_every_architecture_of_timm_is_read_and_written_as_itself(architecture):
    config = changed(read_timm({"architecture": architecture}))
    assert write_timm(config)["architecture"] == architecture


@pytest.mark.parametrize("settings", [{"block": "basic"}, {"groups": 2, "group_width": 8}, {"group_width": 16}])
def test_other_shapes_go_to_timm_and_back(settings):
    config = replace(Config("bottleneck", (1, 2, 1, 2)), **settings)
    assert changed(read_timm(json.loads(json.dumps(write_timm(config))))) == config


def changed(described):
    return models.changed(described.model, **described.changes)


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"downsample_in_bottleneck": True}, "downsample_in_bottleneck=True, Vitrail's has False"),
        ({"hidden_act": "gelu"}, "hidden_act=gelu, Vitrail's has relu"),
        ({"hidden_sizes": [256, 512, 512, 512]}, r"\[256, 512, 512, 512\] channels, Vitrail's double them"),
    ],
)
def test_what_ours_is_not_is_named(stated, words):
    with pytest.raises(CheckpointError, match=words):
        read_transformers({"model_type": "resnet", **stated})


def test_arguments_of_timm_that_ours_has_not_are_named():
    with pytest.raises(CheckpointError, match="this resnet50 has avg_down=True, which Vitrail's ResNet has not"):
        read_timm({"architecture": "resnet50", "model_args": {"avg_down": True, "global_pool": "avg", "in_chans": 3}})


@pytest.mark.parametrize(("write", "name"), [(write_timm, "resnet-20"), (write_transformers, "resnext-50-32x4d")])
def test_what_a_library_cannot_express_is_refused(write, name):
    with pytest.raises(SettingError, match="this one differs, so"):
        write(SIZES[name])


@pytest.mark.parametrize(("name", "accuracy"), [("resnet20-12fca82f", 80.45), ("resnet56-4bfd9763", 84.15)])
@pytest.mark.skipif("VITRAIL_DATA" not in os.environ, reason="needs CIFAR-10 and checkpoints in $VITRAIL_DATA")
@torch.inference_mode()
def test_trained_weights_recognise_real_images(name, accuracy, tmp_path):
    """As many of 2,000 JPEGs as the author's own program, github.com/akamaster/pytorch_resnet_cifar10.

    Of the lossless images they recognise 91.78 and 93.62 %, as the files state.
    """
    data = Path(os.environ["VITRAIL_DATA"])
    with tarfile.open(data / "cifar10_jpg.tgz") as archive:
        archive.extractall(tmp_path, [m for m in archive if m.name.startswith("test")], filter="data")
    model = name.partition("-")[0].replace("resnet", "resnet-")
    task = load(data / f"checkpoints/resnet_cifar10/{name}.th", layout="cifar", model=model)
    source = open_folder(tmp_path / "test").splits["train"]  # the only one
    samples = [task.preprocess.apply(source.sample(index))[0] for index in range(len(source))]
    images = torch.stack([torch.from_numpy(sample.image).permute(2, 0, 1) for sample in samples])
    labels = torch.tensor([sample.label.index for sample in samples])
    logits = torch.cat([task(batch) for batch in images.split(250)])
    assert len(images) == 2000
    assert 100 * (logits.argmax(dim=1) == labels).float().mean().item() == pytest.approx(accuracy, abs=0.051)
