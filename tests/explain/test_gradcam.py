"""Grad-CAM against its formulas in loops, against derivatives by differences, and against higher derivatives."""

import pytest
import torch

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.explain.gradcam import as_map, gradcam, gradcam_plus_plus, last_activation, plus_plus_weights
from vitrail.tasks import Classification

RESNET = ("resnet-18", {"width": 4, "depths": (1, 1, 1, 1), "image_size": (96, 64)})
VIT = ("vit-b16", {"width": 16, "depth": 2, "heads": 2, "mlp": 24, "patch_size": 8, "image_size": (24, 16)})
CLASSES = torch.tensor([2, 0])


def a_task(model, **more):
    name, changes = model
    torch.manual_seed(0)
    backbone = models.create(name, **{**changes, **more})
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    task = Classification(name, backbone, ("a", "b", "c"), Preprocess(backbone.config.image_size))
    torch.nn.init.normal_(task.head.linear.weight)
    return task.eval()


def photographs(task):
    return torch.randint(0, 256, (2, 3, *task.preprocess.size), dtype=torch.uint8)


@torch.no_grad()
def test_formulas_by_loops():
    """Of a network that averages its last map, a channel's derivative is the classifier's weight over the places."""
    task = a_task(RESNET)
    images = photographs(task)
    maps, weight = task.features(images).maps[-1], task.head.linear.weight
    _, channels, h, w = maps.shape
    expected = torch.zeros(2, h, w)
    for b, label in enumerate(CLASSES.tolist()):
        for row in range(h):
            for column in range(w):
                total = sum(weight[label, k] / (h * w) * maps[b, k, row, column] for k in range(channels))
                expected[b, row, column] = max(0, total)
    assert expected.any()
    torch.testing.assert_close(gradcam(task, images, CLASSES), expected)


@pytest.mark.parametrize("pool", ["class", "mean", "map", "class-mean"])
def test_derivatives_by_differences(pool):
    """What the activation of a transformer is changes with its pooling; its derivatives are always those of it."""
    task = a_task(VIT, pool=pool, registers=1).double()
    images = task.preprocess.normalize(photographs(task)).double()
    _, gradient = last_activation(task, images, CLASSES)
    assert gradient.shape == (2, 16, 3, 2)
    # the class token alone is read of the last tokens, so that what goes into the last attention is what counts
    part = task.backbone.blocks[1].norm1 if pool == "class" else task.backbone.norm
    prefix, step = task.backbone.prefix, 1e-5
    for row, column, channel in ((0, 0, 3), (2, 1, 7), (1, 0, 15)):
        changed = []
        for sign in (1, -1):

            def shift(layer, inputs, output, sign=sign, place=prefix + 2 * row + column, channel=channel):
                output = output.clone()
                output[:, place, channel] += sign * step
                return output

            with torch.no_grad(), part.register_forward_hook(shift):
                changed.append(task(images).gather(1, CLASSES[:, None])[:, 0])
        slope = (changed[0] - changed[1]) / (2 * step)
        torch.testing.assert_close(gradient[:, channel, row, column].double(), slope, atol=1e-6, rtol=1e-4)


def test_plus_plus_by_second_and_third_derivatives():
    """Equation 10, for the exponential of a logit that is linear in the activations, by differentiating thrice."""
    torch.manual_seed(0)
    activation = torch.rand(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    slopes = torch.randn(1, 3, 2, 2, dtype=torch.float64) / 4

    def derivative(value, *place):
        return torch.autograd.grad(value, activation, create_graph=True)[0][place]

    score = (slopes * activation).sum().exp()
    expected = torch.zeros(1, 3, dtype=torch.float64)
    for channel in range(3):
        total = activation[0, channel].sum()
        for row in range(2):
            for column in range(2):
                place = (0, channel, row, column)
                first = derivative(score, *place)
                second = derivative(first, *place)
                third = derivative(second, *place)
                alpha = second / (2 * second + total * third)
                expected[0, channel] += (alpha * first.relu() / score).detach()
    torch.testing.assert_close(plus_plus_weights(activation.detach(), slopes), expected)


def test_plus_plus_stays_finite_where_activations_are_negative():
    activation, gradient = torch.full((1, 1, 2, 2), -1.0), torch.full((1, 1, 2, 2), 0.5)
    assert plus_plus_weights(activation, gradient).tolist() == [[1.0]]  # g³ Σ A would make the divisor 0


def test_plus_plus_weighs_the_activations_of_a_model():
    task = a_task(RESNET)
    images = photographs(task)
    activation, gradient = last_activation(task, images, CLASSES)
    expected = torch.einsum("bd,bdhw->bhw", plus_plus_weights(activation, gradient), activation).clamp(min=0)
    assert expected.any()
    torch.testing.assert_close(gradcam_plus_plus(task, images, CLASSES), expected)


def test_a_class_that_depends_on_nothing_has_an_empty_map():
    task = a_task(RESNET)
    torch.nn.init.zeros_(task.head.linear.weight)
    assert not gradcam(task, photographs(task), CLASSES).any()


def test_tokens_that_stand_behind_their_pixels_are_moved_back():
    """Of an iGPT whose pixel i is read at token i + 1."""
    task = a_task(
        ("igpt-nano", {"width": 8, "depth": 1, "heads": 2, "mlp": 8, "image_size": (2, 3), "feature_layer": 1})
    )
    images = photographs(task)
    features = task.features(images)
    places = as_map(features.tokens, features, lag=1).flatten(2)
    for number in range(5):
        assert torch.equal(places[:, :, number], features.tokens[:, number + 1])
    assert not places[:, :, 5].any(), "no token is made of the last pixel"
    activation, _ = last_activation(task, images, CLASSES)
    torch.testing.assert_close(activation.flatten(2), places.detach())
