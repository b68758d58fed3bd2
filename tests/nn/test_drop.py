import pytest
import torch

from vitrail.nn.drop import DropPath, drop_path_rates


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_in_training_inputs_are_dropped_or_scaled_up_as_a_whole(rate):
    torch.manual_seed(0)
    count = 20_000
    x = torch.randn(count, 3, 2) + 5
    y = DropPath(rate).train()(x)
    kept = y.flatten(1).any(dim=1)
    torch.testing.assert_close(y[kept], x[kept] / (1 - rate))
    assert not y[~kept].any()
    deviation = (rate * (1 - rate) / count) ** 0.5
    assert kept.double().mean().item() == pytest.approx(1 - rate, abs=4 * deviation)
    assert y.mean().item() == pytest.approx(5, abs=4 * 5 * deviation / (1 - rate))


def test_each_input_has_a_chance_of_its_own():
    """Neighbours are dropped together as often as chance has it, a quarter of the time."""
    torch.manual_seed(0)
    kept = DropPath(0.5).train()(torch.ones(20_000)).bool()
    together = (~kept[1:] & ~kept[:-1]).double().mean().item()
    assert together == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(("rate", "training"), [(0.5, False), (0.0, True), (0.0, False)])
def test_otherwise_nothing_happens_and_no_chance_is_drawn(rate, training):
    x = torch.randn(4, 3)
    before = torch.get_rng_state()
    assert DropPath(rate).train(training)(x) is x
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_seed_drops_the_same_inputs():
    x, drop = torch.randn(64, 3), DropPath(0.5).train()
    torch.manual_seed(7)
    first = drop(x)
    second = drop(x)
    torch.manual_seed(7)
    assert torch.equal(drop(x), first)
    assert not torch.equal(second, first)


def test_gradients_flow_through_what_is_kept():
    torch.manual_seed(0)
    x = torch.randn(64, 3, requires_grad=True)
    y = DropPath(0.25).train()(x)
    y.sum().backward()
    kept = y.any(dim=1)
    assert 0 < kept.sum() < 64
    torch.testing.assert_close(x.grad, kept[:, None].expand(64, 3) / 0.75)


def test_half_precision_stays_half_precision():
    torch.manual_seed(0)
    assert DropPath(0.5).train()(torch.ones(8, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_rates_grow_linearly_with_depth():
    assert drop_path_rates(0.3, 4) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert drop_path_rates(0.3, 1) == [0.0]
    assert drop_path_rates(0.0, 3) == [0.0, 0.0, 0.0]


def test_the_rate_is_seen_when_a_model_is_printed():
    assert repr(DropPath(0.25)) == "DropPath(rate=0.25)"
