import pytest
import torch

from vitrail.heads.linear import LinearHead
from vitrail.nn.features import Features


def features(pooled):
    """Features in which the pooled vector alone means anything."""
    nothing = torch.full((len(pooled), 1, 1), float("nan"))
    return Features(tokens=nothing, prefix=0, grid=(1, 1), pooled=pooled, maps=())


def test_logits_are_a_linear_map_of_the_pooled_vector():
    head = LinearHead(2, 3)
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[1.0, 0], [0, 2], [3, 4]]))
        head.linear.bias.copy_(torch.tensor([0.5, 0, -1]))
    assert head(features(torch.tensor([[1.0, 2.0], [0.0, -1.0]]))).tolist() == [[1.5, 4.0, 10.0], [0.5, -2.0, -5.0]]


def test_begins_with_every_class_about_equally_likely():
    torch.manual_seed(0)
    head = LinearHead(256, 100)
    assert head.linear.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not head.linear.bias.any()
    probabilities = head(features(torch.randn(8, 256))).softmax(dim=1)
    assert probabilities.max().item() < 0.05


def test_the_backbone_gets_a_gradient_in_the_first_step():
    pooled = torch.randn(4, 8, requires_grad=True)
    torch.nn.functional.cross_entropy(LinearHead(8, 5)(features(pooled)), torch.arange(4)).backward()
    assert (pooled.grad != 0).all()
