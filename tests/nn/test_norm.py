import pytest
import torch
from torch import nn

from vitrail.nn.norm import LayerNorm, LayerScale


@pytest.mark.parametrize("eps", [1e-6, 1e-2])
@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_by_hand(bias, eps):
    torch.manual_seed(0)
    norm = LayerNorm(8, eps=eps, bias=bias)
    assert [name for name, _ in norm.named_parameters()] == (["weight", "bias"] if bias else ["weight"])
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.copy_(torch.randn(8))
    x = torch.randn(3, 5, 8, dtype=torch.float32)
    y = x.double()
    variance, mean = torch.var_mean(y, dim=-1, correction=0, keepdim=True)
    expected = (y - mean) / (variance + eps).sqrt() * norm.weight + (norm.bias if bias else 0)
    torch.testing.assert_close(norm(x).double(), expected, atol=1e-5, rtol=1e-5)


def test_the_epsilon_is_that_of_vision_transformers():
    assert LayerNorm(8).eps == 1e-6
    assert nn.LayerNorm(8).eps == 1e-5


def test_layer_scale_has_one_factor_a_channel():
    scale = LayerScale(3, 0.1)
    assert scale.initial == 0.1
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    torch.testing.assert_close(scale(x), x / 10)
    with torch.no_grad():
        scale.gamma.copy_(torch.tensor([1.0, 0.0, -2.0]))
    assert scale(x).tolist() == [[1.0, 0.0, -6.0], [4.0, 0.0, -12.0]]
    scale(x).sum().backward()
    assert scale.gamma.grad.tolist() == [5.0, 7.0, 9.0]
