import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitrail.errors import SettingError
from vitrail.heads.linear import LinearHead
from vitrail.models.vgg.keys import LAYOUTS, TIMM_MODELS
from vitrail.models.vgg.vgg import SIZES, VGG, Config

# As published with torchvision's weights: the network with its classifier of 1,000 classes.
PUBLISHED = {
    "vgg-11": 132_863_336,
    "vgg-13": 133_047_848,
    "vgg-16": 138_357_544,
    "vgg-19": 143_667_240,
    "vgg-11-bn": 132_868_840,
    "vgg-13-bn": 133_053_736,
    "vgg-16-bn": 138_365_992,
    "vgg-19-bn": 143_678_248,
}


def tiny(**changes):
    return Config(**{"depths": (1, 2, 1, 1, 1), "widths": (3, 4, 5, 6, 7), "hidden": (12, 10), **changes})


def test_every_size_has_a_published_count():
    assert PUBLISHED.keys() == SIZES.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_counts(name):
    with torch.device("meta"):
        model = VGG(SIZES[name])
        head = LinearHead(model.width, 1000)
    assert sum(p.numel() for p in (*model.parameters(), *head.parameters())) == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_name_counts_the_weighted_layers(name):
    with torch.device("meta"):
        model = VGG(SIZES[name])
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert name.removesuffix("-bn") == f"vgg-{len(layers) + 1}"  # and the classifier
    assert model.depth == len(layers) - 1


def test_maps_are_the_pooled_ends_of_the_stages():
    maps = VGG(tiny()).eval()(torch.randn(2, 3, 96, 64)).maps
    assert [tuple(map_.shape) for map_ in maps] == [
        (2, width, 96 // stride, 64 // stride) for width, stride in zip((3, 4, 5, 6, 7), (2, 4, 8, 16, 32), strict=True)
    ]


def dense_by_hand(model, last):
    """The paper's section 3.2: fc6 at every 7x7 window, one after the other, and the mean of what fc7 makes of them."""
    rows, columns = last.shape[2] - 6, last.shape[3] - 6
    windows = [last[:, :, i : i + 7, j : j + 7].flatten(1) for i in range(rows) for j in range(columns)]
    return torch.stack([F.relu(model.fc7(F.relu(model.fc6(window)))) for window in windows]).mean(dim=0)


@pytest.mark.parametrize("size", [(224, 224), (288, 256), (256, 352)])
@torch.no_grad()
def test_dense_evaluation_slides_over_the_last_map(size):
    torch.manual_seed(0)
    model = VGG(tiny(dense=True)).eval()
    features = model(torch.randn(2, 3, *size))
    torch.testing.assert_close(features.pooled, dense_by_hand(model, features.maps[-1]), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("size", [(224, 224), (250, 230), (160, 224), (32, 64)])
@torch.no_grad()
def test_up_to_7x7_places_dense_or_not_is_the_same(size):
    torch.manual_seed(0)
    model, images = VGG(tiny()).eval(), torch.randn(2, 3, *size)
    dense = VGG(tiny(dense=True)).eval()
    dense.load_state_dict(model.state_dict())
    torch.testing.assert_close(dense(images).pooled, model(images).pooled)


def test_what_cannot_be_is_refused():
    with pytest.raises(SettingError, match="at least 32x32 pixels, not 31x224"):
        VGG(tiny(image_size=(31, 224)))
    with pytest.raises(SettingError, match="4 stages needs a width for each"):
        VGG(tiny(depths=(1, 1, 1, 1)))


def test_he_initialisation_of_the_convolutions():
    torch.manual_seed(0)
    model = VGG(Config((1, 1), widths=(64, 128), hidden=(128, 128)))
    assert model.stages[1][0].conv.weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert model.fc6.weight.std().item() == pytest.approx(0.01, rel=0.02)


@pytest.mark.parametrize("architecture", TIMM_MODELS)
def test_timms_config_and_back(architecture):
    """A ``config.json`` as timm writes it, then as we write it: the same model."""
    layout = LAYOUTS["timm"]
    arguments = {"drop_rate": 0.1, "in_chans": 1}
    pretrained = {"input_size": [3, 160, 224], "crop_pct": 0.875}
    stated = {"architecture": architecture, "model_args": arguments, "pretrained_cfg": pretrained}
    model, changes, _ = layout.read(stated)
    assert architecture == model.replace("-", "", 1).replace("-", "_")
    assert changes == {"dense": True, "dropout": 0.1, "channels": 1, "image_size": (160, 224)}
    config = Config(**{**vars(SIZES[model]), **changes})
    again, same, _ = layout.read(layout.write(config))
    assert again == model
    assert Config(**{**vars(SIZES[again]), **same}) == config


def test_another_librarys_config_is_none_of_timms_vggs():
    assert LAYOUTS["timm"].read({"architecture": "resnet18"}) is None
    assert LAYOUTS["timm"].read({"model_type": "vit"}) is None


def test_what_timm_cannot_express_is_refused():
    write = LAYOUTS["timm"].write
    with pytest.raises(SettingError, match="dense=true"):
        write(Config(**{**vars(SIZES["vgg-16"]), "image_size": (256, 224)}))
    with pytest.raises(SettingError, match="timm has no VGG of"):
        write(tiny())
