import math

import pytest
import torch

from vitrail.nn.lora import add_lora
from vitrail.nn.mlp import Mlp, init_mlp


@torch.no_grad()
def test_mlp_by_hand():
    """With the exact GELU, x times the share of a normal distribution that lies below x, not with its tanh formula."""
    torch.manual_seed(0)
    mlp = Mlp(6, 10)
    x = 3 * torch.randn(4, 5, 6)
    hidden = x.double() @ mlp.fc1.weight.double().T + mlp.fc1.bias
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    expected = hidden @ mlp.fc2.weight.double().T + mlp.fc2.bias
    torch.testing.assert_close(mlp(x).double(), expected, atol=1e-6, rtol=1e-5)


def test_dropout_follows_both_layers_in_training_only():
    torch.manual_seed(0)
    mlp = Mlp(4, 1000, dropout=0.25)
    with torch.no_grad():  # every hidden unit is GELU(100) = 100, and each output the mean of all
        for parameter, value in zip(mlp.parameters(), (0.0, 100.0, 1e-3, 0.0), strict=True):
            parameter.fill_(value)
    x = torch.randn(500, 4)
    torch.testing.assert_close(mlp.eval()(x), torch.full((500, 4), 100.0), atol=0, rtol=1e-5)
    y = mlp.train()(x)
    kept = y[y != 0]
    assert 1 - len(kept) / y.numel() == pytest.approx(0.25, abs=0.05)  # by the second dropout
    assert kept.mean().item() == pytest.approx(100 / 0.75, rel=0.01)
    assert kept.std().item() == pytest.approx(100 / 0.75 * math.sqrt(0.25 / 0.75 / 1000), rel=0.15)  # by the first


def test_without_dropout_training_draws_no_chance():
    mlp, x = Mlp(4, 8).train(), torch.randn(3, 4)
    assert torch.equal(mlp(x), mlp(x))


def test_initial_values():
    torch.manual_seed(0)
    mlp = Mlp(96, 384)
    init_mlp(mlp)
    bound = (6 / (96 + 384)) ** 0.5
    for linear in (mlp.fc1, mlp.fc2):
        assert 0.99 * bound < linear.weight.abs().max() <= bound
        assert linear.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
        assert linear.bias.std().item() == pytest.approx(1e-6, rel=0.3)


@pytest.mark.parametrize("change", ["none", "dropout", "lora", "relu"])
def test_training_learns_what_the_layers_say(change):
    """With GELU's input alone kept where that can be, in `gelu_linear`; one by one where it cannot."""
    torch.manual_seed(0)
    mlp = Mlp(6, 10, activation="relu" if change == "relu" else "gelu", dropout=0.5 if change == "dropout" else 0)
    if change == "lora":
        add_lora(mlp, ["fc2"])
    x = torch.randn(4, 5, 6)

    def gradients(forward):
        torch.manual_seed(1)
        mlp.zero_grad()
        forward(x).square().sum().backward()
        return {name: weight.grad for name, weight in mlp.named_parameters() if weight.requires_grad}

    layers = (mlp.fc1, mlp.act, mlp.drop, mlp.fc2, mlp.drop)
    torch.testing.assert_close(gradients(mlp.train()), gradients(torch.nn.Sequential(*layers)))
