"""Every model of the table keeps the promises of `Features` and `Backbone`."""

import math

import pytest
import torch

from vitrail import models

# Changes that leave a model's structure and make it small; a ViT keeps its own patch size, pooling and variant.
SMALL = {
    "alexnet": {"widths": (8, 8, 8, 8, 8), "hidden": (32, 24), "image_size": (96, 64)},
    "bit": {"width": 8, "groups": 4, "depths": (2, 1, 2, 1), "image_size": (96, 64)},
    "deit": {"width": 24, "depth": 2, "heads": 3, "mlp": 48, "patch_size": 8, "image_size": (24, 16)},
    "dinov3": {"width": 24, "depth": 2, "heads": 3, "mlp": 48, "patch_size": 8, "image_size": (24, 16)},
    "googlenet": {"image_size": (96, 64)},
    "igpt": {
        "width": 24,
        "depth": 2,
        "heads": 3,
        "mlp": 48,
        "colours": 8,
        "image_size": (6, 4),
        "feature_layer": 2,  # the last, so that nothing lies behind what is read
    },
    "lenet": {},
    "pvt": {"widths": (8, 8, 12, 16), "depths": (1, 2, 1, 2), "heads": (1, 2, 3, 4), "image_size": (96, 64)},
    "pvt-v2": {"widths": (8, 8, 12, 16), "depths": (1, 2, 1, 2), "heads": (1, 2, 3, 4), "image_size": (96, 64)},
    "resnet": {"width": 8, "image_size": (96, 64)},
    "rope-vit": {"width": 24, "depth": 2, "heads": 3, "mlp": 48, "patch_size": 8, "image_size": (24, 16)},
    "swin": {"width": 8, "depths": (2, 1, 2, 2), "heads": (1, 2, 4, 8), "image_size": (96, 64)},
    "t2t": {"width": 24, "depth": 2, "heads": 3, "mlp": 48, "token_width": 8, "image_size": (48, 32)},
    "vgg": {"widths": (8, 8, 8, 8, 8), "hidden": (32, 24), "image_size": (96, 64)},
    "vit": {"width": 24, "depth": 2, "heads": 3, "mlp": 48},
}


def small(name, **changes):
    family, config = models.family(name), models.config(name)
    if family == "vit":  # a hybrid keeps its stages
        changes.setdefault("image_size", (3 * config.patch_size, 2 * config.patch_size))
        changes.setdefault("resnet_stages", (1,) * len(config.resnet_stages))
    torch.manual_seed(0)
    return models.create(name, **{**SMALL[family], **changes})


def randomised(model):
    """The model with no parameter at a special value such as 0, so that nothing hides behind it."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def images(model, count=3, **options):
    return torch.randn(count, model.config.channels, *model.config.image_size, **options)


def assert_contract(features, model, count):
    """Shapes agree among one another and with what the model says of itself."""
    places = math.prod(features.grid)
    assert features.tokens.shape[:2] == (count, features.prefix + places)
    assert features.pooled.shape == (count, model.width)
    assert all(map_.ndim == 4 and len(map_) == count for map_ in features.maps)
    resolutions = [tuple(map_.shape[2:]) for map_ in features.maps]
    assert resolutions == sorted(set(resolutions), reverse=True)
    assert resolutions[-1] == features.grid
    assert features.maps[-1].shape[1] == features.tokens.shape[2]


@pytest.fixture(params=models.names())
def name(request):
    return request.param


def test_shapes_as_published(name):
    with torch.device("meta"):
        model = models.create(name).eval()
        assert_contract(model(images(model, 2)), model, 2)


def test_shapes_of_images_that_are_not_square(name):
    model = small(name).eval()
    assert_contract(model(images(model, 2)), model, 2)


def test_tokens_are_the_last_map_in_row_major_order(name):
    model = randomised(small(name)).eval()
    features = model(images(model))
    places = features.tokens[:, features.prefix :]
    assert torch.equal(places.transpose(1, 2).reshape(features.maps[-1].shape), features.maps[-1])


def test_number_of_channels(name):
    model = small(name, channels=2).eval()
    assert_contract(model(images(model, 1)), model, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_features_have_the_dtype_of_weights_and_images(name, dtype):
    model = small(name).to(dtype).eval()
    features = model(images(model, dtype=dtype))
    assert {x.dtype for x in (features.tokens, features.pooled, *features.maps)} == {dtype}


def test_gradients_reach_every_parameter(name):
    model = randomised(small(name)).train()
    features = model(images(model))
    sum((x * torch.randn_like(x)).sum() for x in (features.tokens, features.pooled)).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_same_images_give_the_same_bits(name):
    model = randomised(small(name)).eval()
    x = images(model)
    first, second = model(x), model(x)
    assert torch.equal(first.tokens, second.tokens)
    assert torch.equal(first.pooled, second.pooled)


def test_an_image_does_not_depend_on_the_others_of_its_batch(name):
    model = randomised(small(name)).eval()
    x = images(model)
    together = model(x)
    for row in range(len(x)):
        alone = model(x[row : row + 1])
        for one, same in ((alone.pooled[0], together.pooled[row]), (alone.tokens[0], together.tokens[row])):
            scale = max(1.0, same.abs().max().item())  # random weights make the values of some models large
            torch.testing.assert_close(one, same, atol=1e-5 * scale, rtol=1e-5)


def test_layers_go_up_from_the_stem_to_the_depth(name):
    with torch.device("meta"):
        model = models.create(name)
    layers = [model.layer(parameter) for parameter, _ in model.named_parameters()]
    assert layers == sorted(layers)
    assert set(layers) == set(range(model.depth + 1))


def test_saved_weights_say_everything(name):
    model, other = randomised(small(name)).eval(), small(name).eval()
    other.load_state_dict(model.state_dict())
    x = images(model)
    assert torch.equal(model(x).pooled, other(x).pooled)
