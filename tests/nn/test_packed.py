import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitrail.nn.packed import ROWS, PackedLinear, can_pack

pytestmark = pytest.mark.skipif(not can_pack(), reason="this build of PyTorch cannot pack")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("gelu", [None, "none", "tanh"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3,), (2, 5, 3), (40, 3), (0, 3)])
def test_it_is_the_linear_map_in_float64_but_for_the_rounding(gelu, bias, shape):
    linear = nn.Linear(3, 7, bias=bias)
    x = torch.randn(shape)
    rounded = (t if t is None else t.bfloat16().double() for t in (x, linear.weight, linear.bias))
    expected = F.linear(*rounded)
    if gelu:
        expected = F.gelu(expected, approximate=gelu)
    y = PackedLinear(linear, gelu)(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), expected, atol=2e-2, rtol=2**-7)


def test_a_row_does_not_depend_on_how_many_others_there_are():
    packed = PackedLinear(nn.Linear(96, 64))
    x = torch.randn(4 * ROWS, 96)
    whole = packed(x)
    for rows in (1, 2, 3, ROWS - 1, ROWS, ROWS + 1):
        assert torch.equal(packed(x[:rows]), whole[:rows])


def test_the_map_itself_stays_as_it_was():
    linear = nn.Linear(4, 4)
    before = linear.weight.clone()
    PackedLinear(linear)
    assert torch.equal(linear.weight, before)
    assert linear.weight.dtype == torch.float32
