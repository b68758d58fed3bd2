"""AlexNet against torch's own layers in the order, and with the names, of torchvision's file."""

import pytest
import torch
from torch import nn

from vitrail.heads.linear import LinearHead
from vitrail.models.alexnet import LAYOUTS, AlexNet, Config
from vitrail.weights.rename import to_ours, to_theirs

WIDTHS, HIDDEN = (4, 6, 8, 7, 5), (11, 9)


def theirs():
    one, two, three, four, five = WIDTHS
    features = nn.Sequential(
        *(nn.Conv2d(3, one, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(one, two, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(two, three, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(three, four, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(four, five, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
    )
    classifier = nn.Sequential(
        *(nn.Dropout(), nn.Linear(five * 36, HIDDEN[0]), nn.ReLU()),
        *(nn.Dropout(), nn.Linear(HIDDEN[0], HIDDEN[1]), nn.ReLU()),
        nn.Linear(HIDDEN[1], 3),
    )
    model = nn.Sequential()
    for name, part in (
        ("features", features),
        ("avgpool", nn.AdaptiveAvgPool2d(6)),
        ("flatten", nn.Flatten()),
        ("classifier", classifier),
    ):
        model.add_module(name, part)
    return model.eval()


@pytest.mark.parametrize("size", [(224, 224), (160, 224), (384, 384), (63, 70)])
@torch.no_grad()
def test_logits_agree_and_names_go_both_ways(size):
    torch.manual_seed(0)
    model, config = theirs(), Config(WIDTHS, HIDDEN)
    ours = nn.ModuleDict({"backbone": AlexNet(config), "head": LinearHead(HIDDEN[1], 3)}).eval()
    weights, difference = to_ours(model.state_dict(), ours.state_dict(), LAYOUTS["torchvision"], config)
    assert not difference
    ours.load_state_dict(weights)
    images = torch.randn(2, 3, *size)
    torch.testing.assert_close(ours["head"](ours["backbone"](images)), model(images), atol=1e-5, rtol=1e-4)
    again = to_theirs(weights, LAYOUTS["torchvision"], config)
    assert again.keys() == model.state_dict().keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())
