import pytest
import torch

from vitrail.errors import SettingError
from vitrail.heads.linear import LinearHead
from vitrail.models.alexnet.alexnet import SIZES, AlexNet, Config

TINY = Config(widths=(2, 3, 4, 5, 6), hidden=(8, 7))


def test_published_parameter_count():
    with torch.device("meta"):
        model = AlexNet(SIZES["alexnet"])
        head = LinearHead(model.width, 1000)
    assert sum(p.numel() for p in (*model.parameters(), *head.parameters())) == 61_100_840


def test_maps_are_the_three_pooled_ones():
    features = AlexNet(TINY).eval()(torch.randn(2, 3, 224, 224))
    assert [tuple(map_.shape) for map_ in features.maps] == [(2, 2, 27, 27), (2, 3, 13, 13), (2, 6, 6, 6)]
    assert features.pooled.shape == (2, 7)


@pytest.mark.parametrize("size", [(63, 63), (64, 100), (250, 191)])
def test_any_size_from_the_smallest_on(size):
    features = AlexNet(Config(TINY.widths, TINY.hidden, image_size=size)).eval()(torch.randn(1, 3, *size))
    assert min(features.grid) >= 1
    assert features.pooled.shape == (1, 7)


def test_smaller_images_are_refused_with_the_smallest_size():
    with pytest.raises(SettingError, match="at least 63x63 pixels, not 224x62"):
        AlexNet(Config(image_size=(224, 62)))


def test_dropout_works_in_training_alone():
    torch.manual_seed(0)
    model, images = AlexNet(Config(TINY.widths, (64, 64))), torch.randn(1, 3, 64, 64)
    assert not torch.equal(model(images).pooled, model(images).pooled)
    model.eval()
    assert torch.equal(model(images).pooled, model(images).pooled)


def test_initial_values_of_the_authors_code():
    torch.manual_seed(0)
    model = AlexNet(Config(hidden=(64, 64)))
    deviations = {"conv1": 0.01, "conv2": 0.01, "conv3": 0.03, "conv4": 0.03, "conv5": 0.03, "fc6": 0.01, "fc7": 0.01}
    for name, deviation in deviations.items():
        layer = getattr(model, name)
        assert layer.weight.std().item() == pytest.approx(deviation, rel=0.05)
        assert layer.bias.unique().tolist() == [0.0 if name in ("conv1", "conv3") else 1.0]
