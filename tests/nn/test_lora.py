"""Low-rank changes against their formula, and against the maps that they are merged into."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from vitrail.nn.lora import LoraLinear, add_lora, merged


class Scaled(nn.Linear):
    """A linear map of another kind, with a parameter of its own."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, bias=False)
        self.factor = nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        return self.factor + super().forward(x)


def network() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "first": nn.ModuleDict({"query": nn.Linear(6, 6), "mlp": nn.Linear(6, 6)}),
            "second": nn.ModuleDict({"query": Scaled(6), "value": nn.Linear(6, 6, bias=False)}),
        }
    )


def run(network, x):
    for part in network.values():
        for module in part.values():
            x = torch.tanh(module(x))
    return x


def moved(network):
    """The same with low-rank matrices that do something."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, LoraLinear):
                module.lora_b.normal_()
    return network


def test_training_begins_at_the_map_itself():
    before, adapted, x = network(), network(), torch.randn(4, 6)
    assert add_lora(adapted, ("query", "value")) == 3
    assert torch.equal(run(adapted, x), run(before, x))


@pytest.mark.parametrize(("rank", "alpha"), [(1, 16.0), (4, 2.0)])
def test_the_change_is_its_formula(rank, alpha):
    """h = W x + b + (α / r) B A x, section 4.1."""
    torch.manual_seed(0)
    linear, x = nn.Linear(5, 3), torch.randn(2, 7, 5)
    lora = LoraLinear(copy.deepcopy(linear), rank, alpha)
    with torch.no_grad():
        lora.lora_b.normal_()
    assert (lora.lora_a.shape, lora.lora_b.shape) == ((rank, 5), (3, rank))
    for given, answer in zip(x.reshape(-1, 5), lora(x).reshape(-1, 3), strict=True):
        change = alpha / rank * lora.lora_b @ (lora.lora_a @ given)
        torch.testing.assert_close(answer, linear.weight @ given + linear.bias + change)


def test_only_the_low_rank_matrices_learn():
    adapted = network()
    add_lora(adapted, ("query", "value"))
    run(moved(adapted), torch.randn(4, 6)).sum().backward()
    learned = {name for name, parameter in adapted.named_parameters() if parameter.grad is not None}
    assert learned == {
        *(f"{name}.lora_{matrix}" for name in ("first.query", "second.query", "second.value") for matrix in "ab"),
        *("first.mlp.weight", "first.mlp.bias"),  # not named, so it is as it was
    }


def test_merged_it_is_the_network_without():
    adapted, x = moved(network()), torch.randn(4, 6)
    add_lora(adapted, ("query", "value"), rank=2, alpha=1.0)
    moved(adapted)
    plain = network()
    state = merged(adapted, adapted.state_dict())
    assert state.keys() == plain.state_dict().keys()
    plain.load_state_dict(state)
    torch.testing.assert_close(run(plain, x), run(adapted, x), atol=1e-5, rtol=0)
    assert not torch.allclose(run(network(), x), run(adapted, x), atol=1e-2)


def test_merging_leaves_the_state_as_it_was():
    adapted = network()
    add_lora(adapted, ("query",))
    moved(adapted)
    state = adapted.state_dict()
    before = {name: value.clone() for name, value in state.items()}
    merged(adapted, state)
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], before[name]) for name in before)


def test_without_lora_merging_changes_nothing():
    state = network().state_dict()
    assert merged(network(), state) == state


def test_where_no_map_has_such_a_name_nothing_is_adapted():
    adapted = network()
    assert add_lora(adapted, ("qkv",)) == 0
    assert adapted.state_dict().keys() == network().state_dict().keys()
