import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.nn.gelu_linear import gelu_linear


def gradients(output: Tensor, *wanted: Tensor) -> list[Tensor]:
    weights = torch.linspace(-1, 1, output.numel()).view_as(output)
    return [output.detach(), *torch.autograd.grad((output.float() * weights).sum(), wanted)]


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 3, 4)])
def test_as_gelu_and_a_linear_map(shape, bias, approximate):
    torch.manual_seed(0)
    fc2, hidden = nn.Linear(12, 6, bias=bias), torch.randn(*shape, 12, requires_grad=True)
    wanted = (hidden, *fc2.parameters())
    expected = gradients(fc2(F.gelu(hidden, approximate=approximate)), *wanted)
    found = gradients(gelu_linear(hidden, fc2.weight, fc2.bias, approximate), *wanted)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_gradients_are_those_of_differences():
    torch.manual_seed(0)
    inputs = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 3, 5), (4, 5), (4,))]
    assert torch.autograd.gradcheck(gelu_linear, inputs)


def test_float32_weights_and_a_bfloat16_input():
    """As under autocast: the product is in bfloat16, the weight's gradient in float32."""
    torch.manual_seed(0)
    fc2, hidden = nn.Linear(16, 8), torch.randn(4, 9, 16, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        expected = gradients(fc2(F.gelu(hidden)), hidden, fc2.weight, fc2.bias)
        found = gradients(gelu_linear(hidden, fc2.weight, fc2.bias), hidden, fc2.weight, fc2.bias)
    assert [x.dtype for x in found] == [x.dtype for x in expected]
    torch.testing.assert_close(found, expected)


def test_only_the_input_and_the_weight_are_kept():
    fc2, hidden = nn.Linear(16, 8), torch.randn(4, 9, 16, requires_grad=True)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.data_ptr()) or x, lambda x: x):
        gelu_linear(hidden, fc2.weight, fc2.bias)
    assert sorted(kept) == sorted([hidden.data_ptr(), fc2.weight.data_ptr()])


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_what_is_frozen_has_no_gradient(frozen):
    fc2, hidden = nn.Linear(16, 8), torch.randn(4, 16, requires_grad=True)
    getattr(fc2, frozen).requires_grad_(False)
    gelu_linear(hidden, fc2.weight, fc2.bias).sum().backward()
    assert hidden.grad is not None
    assert [name for name, weight in fc2.named_parameters() if weight.grad is None] == [frozen]
