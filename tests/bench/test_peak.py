from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitrail.bench import peak
from vitrail.bench.peak import Product, best_rate, product_rate, products_of, rate_of

CPU = torch.device("cpu")


@pytest.fixture
def rates(monkeypatch):
    """Products that have a known rate instead of a measured one: ``rates[product] = operations a second``."""
    known = {}
    monkeypatch.setattr(peak, "product_rate", lambda product, dtype, device, seconds: known[product])
    return known


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),  # left out
        nn.Flatten(2),
        nn.Linear(16, 10),
        nn.ReLU(),
        nn.Linear(10, 10, bias=False),
    )


def test_products_are_those_of_linear_maps_and_convolutions():
    with torch.device("meta"):
        module = network()
        found = products_of(module, lambda: module(torch.empty(2, 3, 4, 4)))
    assert found == {Product(2 * 4 * 4, 3 * 9, 8): 1, Product(2 * 8, 16, 10): 1, Product(2 * 8, 10, 10): 1}


def test_a_layer_that_is_used_twice_counts_twice():
    layer = nn.Linear(4, 4)
    assert products_of(layer, lambda: layer(layer(torch.ones(3, 4)))) == {Product(3, 4, 4): 2}
    assert not layer._forward_hooks


def test_operations_forward_and_backward_are_those_that_pytorch_counts():
    layer, x = nn.Linear(5, 7), torch.ones(3, 5, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        layer(x).sum().backward()
    found = products_of(layer, lambda: layer(x), training=True)
    assert sum(product.flops * count for product, count in found.items()) == counter.get_total_flops() == 3 * 2 * 105
    assert set(found) == {Product(3, 5, 7), Product(3, 7, 5), Product(5, 3, 7)}


def test_a_rate_is_all_operations_over_the_time_that_they_need(rates):
    """A product that is half of the operations at a quarter of the rate takes four fifths of the time."""
    fast, slow = Product(10, 10, 10), Product(20, 10, 10)
    rates |= {fast: 400.0, slow: 100.0}
    assert rate_of(Counter({fast: 2, slow: 1}), torch.float32, CPU) == pytest.approx(160)  # 8,000 in 10 + 40 seconds


def test_the_best_square_product_counts_and_none_takes_too_long(rates):
    rates |= {Product(side, side, side): rate for side, rate in ((512, 1e11), (1024, 3e11), (2048, 2e11))}
    assert best_rate(torch.float32, CPU) == 3e11  # 2048 cubed takes 86 ms at its rate, so 4096 would take 0.7 s


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_is_measured(dtype):
    assert product_rate(Product(64, 32, 16), dtype, CPU, seconds=0.01) > 0
