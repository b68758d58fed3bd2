"""The moving average against a loop in float64, and that lending it to a module changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vitrail.train.ema import Ema


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def disturb(module: nn.Module, step: int) -> None:
    """What a training step does: other weights, other statistics, one more batch counted."""
    torch.manual_seed(step)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += torch.randn_like(parameter)
    module.train()(torch.randn(5, 3))


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.9999])
def test_it_is_the_average_that_a_loop_in_float64_gives(decay: float) -> None:
    module = network()
    ema = Ema(module, decay)
    expected = {name: value.double().numpy().copy() for name, value in module.state_dict().items()}
    for step in range(1, 41):
        disturb(module, step)
        ema.update(module, step)
        keep = min(decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            expected[name] = keep * expected[name] + (1 - keep) * value.double().numpy()
    for name, value in ema.weights.items():
        if value.is_floating_point():
            np.testing.assert_allclose(value.double().numpy(), expected[name], rtol=2e-5, atol=2e-5)


def test_whole_numbers_are_copied() -> None:
    module = network()
    ema = Ema(module, 0.99)
    for step in range(1, 8):
        disturb(module, step)
        ema.update(module, step)
    assert ema.weights["1.num_batches_tracked"].item() == 7
    assert ema.weights["1.num_batches_tracked"].dtype == torch.int64


def test_it_is_a_copy_that_does_not_follow_by_itself() -> None:
    module = network()
    ema, before = Ema(module, 0.9), state(module)
    disturb(module, 1)
    assert_equal(ema.weights, before)
    after = state(module)
    ema.update(module, 1)
    assert_equal(state(module), after)


def averaged() -> tuple[nn.Module, Ema]:
    module = network()
    ema = Ema(module, 0.9)
    disturb(module, 1)
    ema.update(module, 1)
    return module, ema


def test_lent_to_a_module_it_is_there_and_then_gone_without_a_trace() -> None:
    module, ema = averaged()
    own, average = state(module), {name: value.clone() for name, value in ema.weights.items()}
    parameters = [id(parameter) for parameter in module.parameters()]
    with ema.in_place_of(module):
        assert_equal(state(module), average)
        assert not torch.equal(module.state_dict()["0.weight"], own["0.weight"])
    assert_equal(state(module), own)
    assert_equal(ema.weights, average)
    assert [id(parameter) for parameter in module.parameters()] == parameters  # which the optimizer holds


def train_inside(module: nn.Module) -> None:
    disturb(module, 2)


def fail(module: nn.Module) -> None:
    raise RuntimeError("validation failed")


def interrupt(module: nn.Module) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("action", [train_inside, fail, interrupt])
def test_whatever_happens_meanwhile_the_module_gets_its_own_weights_back(
    action: Callable[[nn.Module], None],
) -> None:
    module, ema = averaged()
    own, average = state(module), {name: value.clone() for name, value in ema.weights.items()}
    try:
        with ema.in_place_of(module):
            action(module)
    except (RuntimeError, KeyboardInterrupt):
        pass
    assert_equal(state(module), own)
    assert_equal(ema.weights, average)


def test_it_takes_over_saved_averages_as_copies() -> None:
    _, saved = averaged()
    ema = Ema(network(), 0.9)
    ema.load(saved.weights)
    assert_equal(ema.weights, saved.weights)
    ema.weights["0.weight"].zero_()
    assert saved.weights["0.weight"].any()
