"""GoogLeNet against torch's own functions on the tensors, and with the names, of torchvision's file."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitrail.heads.auxiliary import AuxiliaryHead
from vitrail.models.googlenet import LAYOUTS, Config, GoogLeNet
from vitrail.weights.rename import to_ours, to_theirs

LAYOUT, CLASSES = LAYOUTS["torchvision"], 3

# Table 1 of the paper: inputs, then #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj.
TABLE_1 = """
3a 192  64  96 128 16  32  32
3b 256 128 128 192 32  96  64
4a 480 192  96 208 16  48  64
4b 512 160 112 224 24  64  64
4c 512 128 128 256 24  64  64
4d 512 112 144 288 32  64  64
4e 528 256 160 320 32 128 128
5a 832 256 160 320 32 128 128
5b 832 384 192 384 48 128 128
"""


def tensors(auxiliary):
    """Random weights of a whole network, scaled to keep its values near one."""
    weights = {}

    def linear(name, inputs, outputs):
        weights[f"{name}.weight"] = torch.randn(outputs, inputs) / inputs**0.5
        weights[f"{name}.bias"] = torch.randn(outputs) * 0.1

    def convolution(name, inputs, outputs, kernel=1):
        weights[f"{name}.conv.weight"] = torch.randn(outputs, inputs, kernel, kernel) / (inputs * kernel**2 / 2) ** 0.5
        for each in ("weight", "running_var"):
            weights[f"{name}.bn.{each}"] = torch.rand(outputs) + 0.5
        for each in ("bias", "running_mean"):
            weights[f"{name}.bn.{each}"] = torch.randn(outputs) * 0.1
        weights[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)

    convolution("conv1", 3, 64, 7)
    convolution("conv2", 64, 64)
    convolution("conv3", 64, 192, 3)
    for line in TABLE_1.split("\n")[1:-1]:
        name = f"inception{line.split()[0]}"
        inputs, one, reduce3, three, reduce5, five, pooled = map(int, line.split()[1:])
        convolution(f"{name}.branch1", inputs, one)
        convolution(f"{name}.branch2.0", inputs, reduce3)
        convolution(f"{name}.branch2.1", reduce3, three, 3)
        convolution(f"{name}.branch3.0", inputs, reduce5)
        convolution(f"{name}.branch3.1", reduce5, five, 3)
        convolution(f"{name}.branch4.1", inputs, pooled)
    for name, inputs in (("aux1", 512), ("aux2", 528)) if auxiliary else ():
        convolution(f"{name}.conv", inputs, 128)
        linear(f"{name}.fc1", 2048, 1024)
        linear(f"{name}.fc2", 1024, CLASSES)
    linear("fc", 1024, CLASSES)
    return weights


def run(weights, x):
    """The logits of the classifier, and of the auxiliary ones where there are weights for them."""

    def convolve(name, x, stride=1):
        kernel = weights[f"{name}.conv.weight"]
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        norm = [weights[f"{name}.bn.{each}"] for each in ("running_mean", "running_var", "weight", "bias")]
        return F.relu(F.batch_norm(x, *norm, eps=0.001))

    def linear(name, x):
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def pool(x, side=3):
        return F.max_pool2d(x, side, 2, ceil_mode=True)

    def classify(name, x):
        x = convolve(f"{name}.conv", F.adaptive_avg_pool2d(x, 4)).flatten(1)
        return linear(f"{name}.fc2", F.relu(linear(f"{name}.fc1", x)))

    def inception(name, x):
        middle = convolve(f"{name}.branch2.1", convolve(f"{name}.branch2.0", x))
        large = convolve(f"{name}.branch3.1", convolve(f"{name}.branch3.0", x))
        pooled = convolve(f"{name}.branch4.1", F.max_pool2d(x, 3, 1, 1))
        return torch.cat([convolve(f"{name}.branch1", x), middle, large, pooled], dim=1)

    x = pool(convolve("conv3", convolve("conv2", pool(convolve("conv1", x, stride=2)))))
    auxiliary = []
    for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        if name == "4a":
            x = pool(x)
        if name == "5a":
            x = pool(x, 2)
        x = inception(f"inception{name}", x)
        if name in ("4a", "4d") and "aux1.fc1.weight" in weights:
            auxiliary.append(classify("aux1" if name == "4a" else "aux2", x))
    return [linear("fc", x.mean(dim=(2, 3))), *auxiliary]


def ours(config):
    backbone = GoogLeNet(config)
    return nn.ModuleDict(
        {"backbone": backbone, "head": AuxiliaryHead(backbone.width, backbone.auxiliary_widths, CLASSES)}
    ).eval()


@pytest.mark.parametrize("auxiliary", [True, False])
@pytest.mark.parametrize("size", [(224, 224), (160, 97), (15, 33)])
@torch.no_grad()
def test_all_logits_agree_and_names_go_both_ways(auxiliary, size):
    torch.manual_seed(0)
    given, config = tensors(auxiliary), Config(auxiliary=auxiliary)
    model = ours(config)
    weights, difference = to_ours(given, model.state_dict(), LAYOUT, config)
    assert not difference
    model.load_state_dict(weights)
    images = torch.randn(2, 3, *size)
    outputs = model["head"].outputs(model["backbone"](images))
    for (logits, _), expected in zip(outputs, run(given, images), strict=True):
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)
    again = to_theirs(weights, LAYOUT, config)
    assert again.keys() == given.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in given.items())


def test_a_file_with_auxiliary_classifiers_opens_without_them():
    torch.manual_seed(0)
    given, config = tensors(auxiliary=True), Config(auxiliary=False)
    weights, difference = to_ours(given, ours(config).state_dict(), LAYOUT, config)
    assert not difference
    assert not [name for name in weights if "auxiliary" in name]


def test_a_file_without_them_says_what_is_missing():
    config = Config()
    _, difference = to_ours(tensors(auxiliary=False), ours(config).state_dict(), LAYOUT, config)
    assert {name.split(".")[0] for name in difference.missing} == {"aux1", "aux2"}
