import pytest
import torch

from vitrail.heads.distilled import DistilledHead
from vitrail.nn.features import Features


def features(tokens):
    """Features in which the tokens alone mean anything."""
    nothing = torch.full((len(tokens), tokens.shape[2]), float("nan"))
    return Features(tokens=tokens, prefix=2, grid=(1, 1), pooled=nothing, maps=())


def test_the_answer_is_the_mean_of_two_classifiers():
    head = DistilledHead(2, 3)
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[1.0, 0], [0, 2], [3, 4]]))
        head.linear.bias.copy_(torch.tensor([0.5, 0, -1]))
        head.distillation.weight.copy_(torch.tensor([[0.0, 1], [1, 0], [1, 1]]))
        head.distillation.bias.copy_(torch.tensor([0.0, 2, 0]))
    tokens = torch.tensor([[[1.0, 2], [3, 4], [torch.nan, torch.nan]]])  # class, distillation, and a patch
    (of_class, half), (of_distillation, other) = head.outputs(features(tokens))
    assert (half, other) == (0.5, 0.5)
    assert of_class.tolist() == [[1.5, 4, 10]]
    assert of_distillation.tolist() == [[4, 5, 7]]
    assert head(features(tokens)).tolist() == [[2.75, 4.5, 8.5]]


def test_begins_with_two_different_small_classifiers():
    torch.manual_seed(0)
    head = DistilledHead(256, 100)
    for linear in (head.linear, head.distillation):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.02)
        assert not linear.bias.any()
    assert not torch.equal(head.linear.weight, head.distillation.weight)
