import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitrail.bench.flops import flops_of


def backward(layer, *shape, gradient_of_input=True):
    with torch.device("meta"):
        x = torch.empty(shape, requires_grad=gradient_of_input)
        return flops_of(lambda: layer(x).sum().backward())


def test_attention_is_counted_though_one_kernel_computes_it():
    q = torch.zeros(2, 3, 50, 8, device="meta")
    assert flops_of(lambda: F.scaled_dot_product_attention(q, q, q)) == 2 * 3 * (2 * 2 * 50 * 50 * 8)


def test_backward_attention_counts_no_product_twice():
    q, k, v = (torch.zeros(2, 3, 50, 8, device="meta", requires_grad=True) for _ in range(3))
    attended = 2 * 3 * (2 * 2 * 50 * 50 * 8)
    assert flops_of(lambda: F.scaled_dot_product_attention(q, k, v).sum().backward()) == 3 * attended


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_a_convolution_takes_twice_as_much_backward_whatever_its_groups(groups):
    with torch.device("meta"):
        layer = nn.Conv2d(8, 16, 3, padding=1, groups=groups)
    forward = 2 * (2 * 6 * 6) * (9 * 8 // groups) * 16
    assert backward(layer, 2, 8, 6, 6) == 3 * forward
    assert backward(layer, 2, 8, 6, 6, gradient_of_input=False) == 2 * forward


def test_a_linear_map():
    with torch.device("meta"):
        layer = nn.Linear(5, 7)
    assert backward(layer, 3, 5) == 3 * (2 * 3 * 5 * 7)
