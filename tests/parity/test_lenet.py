"""LeNet-5 under another program's names, and that program's trained weights on real digits."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from vitrail.data.idx import open_idx
from vitrail.errors import CheckpointError
from vitrail.heads.linear import LinearHead
from vitrail.models.lenet import LAYOUTS, SIZES, LeNet
from vitrail.weights.load import load
from vitrail.weights.rename import to_ours, to_theirs

LAYOUT = LAYOUTS["lenet_mnist"]


def theirs():
    """The network of khushbujpatel/lenet_mnist, of torch's own layers."""
    convolutions = {
        "c1": nn.Conv2d(1, 6, 5),
        "relu1": nn.ReLU(),
        "s2": nn.MaxPool2d(2),
        "c3": nn.Conv2d(6, 16, 5),
        "relu3": nn.ReLU(),
        "s4": nn.MaxPool2d(2),
        "c5": nn.Conv2d(16, 120, 5),
        "relu5": nn.ReLU(),
    }
    dense = {"f6": nn.Linear(120, 84), "relu6": nn.ReLU(), "f7": nn.Linear(84, 10)}
    model = nn.Sequential()
    model.add_module("convnet", nn.Sequential())
    model.add_module("flat", nn.Flatten())
    model.add_module("fc", nn.Sequential())
    for part, layers in (("convnet", convolutions), ("fc", dense)):
        for name, layer in layers.items():
            model.get_submodule(part).add_module(name, layer)
    return model


@torch.no_grad()
def test_logits_agree_and_names_go_both_ways():
    torch.manual_seed(0)
    model, config = theirs(), SIZES["lenet-5-relu"]
    ours = nn.ModuleDict({"backbone": LeNet(config), "head": LinearHead(84, 10)})
    weights, difference = to_ours(model.state_dict(), ours.state_dict(), LAYOUT, config)
    assert not difference
    ours.load_state_dict(weights)
    images = torch.randn(3, 1, 32, 32)
    torch.testing.assert_close(ours["head"](ours["backbone"](images)), model(images), atol=1e-6, rtol=1e-5)
    again = to_theirs(weights, LAYOUT, config)
    assert again.keys() == model.state_dict().keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())


def test_the_lenet_of_the_paper_is_told_what_such_a_file_lacks(tmp_path):
    torch.save(theirs().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"convnet\.s2\.coefficient"):
        load(tmp_path / "weights.pth", layout="lenet_mnist", model="lenet-5")


@pytest.mark.skipif("VITRAIL_DATA" not in os.environ, reason="needs MNIST and a checkpoint in $VITRAIL_DATA")
@torch.inference_mode()
def test_trained_weights_read_real_digits():
    """At least 98.3 % of the first 2,000 test images, resized to 32x32 as they were in its training."""
    data = Path(os.environ["VITRAIL_DATA"])
    task = load(data / "checkpoints/lenet5_mnist/mnist_cnn.pt", layout="lenet_mnist", model="lenet-5-relu")
    source = open_idx(data / "mnist").splits["test"]
    samples = [task.preprocess.apply(source.sample(index))[0] for index in range(2000)]
    images = torch.stack([torch.from_numpy(sample.image).permute(2, 0, 1) for sample in samples])
    labels = torch.tensor([sample.label.index for sample in samples])
    right = (task(images).argmax(dim=1) == labels).sum().item()
    assert right >= 0.983 * 2000
