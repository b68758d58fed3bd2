"""VGG against torch's own layers in the order, and with the names, of torchvision's and of timm's files."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitrail.heads.linear import LinearHead
from vitrail.models.vgg import LAYOUTS, VGG, Config
from vitrail.weights.rename import to_ours, to_theirs

# Table 1 of the paper from top to bottom: convolutions of so many channels, M for maxpool. Here a 16th of the channels.
TABLE_1 = {
    "A": "64 M 128 M 256 256 M 512 512 M 512 512 M",
    "B": "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    "D": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    "E": "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}
DEPTHS = {"A": (1, 1, 2, 2, 2), "B": (2, 2, 2, 2, 2), "D": (2, 2, 3, 3, 3), "E": (2, 2, 4, 4, 4)}
WIDTHS, HIDDEN = (4, 8, 16, 32, 32), (11, 9)


def convolutions(column, batch_norm):
    layers, inputs = [], 3
    for word in TABLE_1[column].split():
        if word == "M":
            layers.append(nn.MaxPool2d(2))
            continue
        outputs = int(word) // 16
        norm = [nn.BatchNorm2d(outputs)] if batch_norm else []
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), *norm, nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*layers)


class Torchvision(nn.Module):
    def __init__(self, column, batch_norm):
        super().__init__()
        self.features = convolutions(column, batch_norm)
        self.classifier = nn.Sequential(
            *(nn.Linear(WIDTHS[-1] * 49, HIDDEN[0]), nn.ReLU(), nn.Dropout()),
            *(nn.Linear(HIDDEN[0], HIDDEN[1]), nn.ReLU(), nn.Dropout()),
            nn.Linear(HIDDEN[1], 3),
        )

    def forward(self, x):
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), 7).flatten(1))


class Timm(nn.Module):
    """fc6 and fc7 are convolutions without padding; the mean of their places is classified."""

    def __init__(self, column, batch_norm):
        super().__init__()
        self.features = convolutions(column, batch_norm)
        self.pre_logits = nn.ModuleDict(
            {"fc1": nn.Conv2d(WIDTHS[-1], HIDDEN[0], 7), "fc2": nn.Conv2d(HIDDEN[0], HIDDEN[1], 1)}
        )
        self.head = nn.ModuleDict({"fc": nn.Linear(HIDDEN[1], 3)})

    def forward(self, x):
        x = self.features(x)
        x = F.adaptive_avg_pool2d(x, [max(7, n) for n in x.shape[2:]])
        x = F.relu(self.pre_logits["fc2"](F.relu(self.pre_logits["fc1"](x))))
        return self.head["fc"](x.mean(dim=(2, 3)))


def randomise(model):
    """Other values than the initial ones for every norm's scale, shift and running statistic."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.data.copy_((tensor + torch.randn_like(tensor) * 0.2).abs())


@pytest.mark.parametrize(("layout", "kind"), [("torchvision", Torchvision), ("timm", Timm)])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(
    ("column", "size"), [("A", (224, 224)), ("B", (160, 224)), ("D", (320, 256)), ("E", (288, 96))]
)
@torch.no_grad()
def test_logits_agree_and_names_go_both_ways(layout, kind, batch_norm, column, size):
    torch.manual_seed(0)
    model = kind(column, batch_norm).eval()
    randomise(model)
    config = Config(DEPTHS[column], batch_norm, WIDTHS, HIDDEN, dense=layout == "timm")
    ours = nn.ModuleDict({"backbone": VGG(config), "head": LinearHead(HIDDEN[1], 3)}).eval()
    weights, difference = to_ours(model.state_dict(), ours.state_dict(), LAYOUTS[layout], config)
    assert not difference
    ours.load_state_dict(weights)
    images = torch.randn(2, 3, *size)
    torch.testing.assert_close(ours["head"](ours["backbone"](images)), model(images), atol=1e-5, rtol=1e-4)
    again = to_theirs(weights, LAYOUTS[layout], config)
    assert again.keys() == model.state_dict().keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())
