from __future__ import annotations

import pytest

from vitrail import models
from vitrail.recipes import costs
from vitrail.recipes.costs import Cost, cost_of, count


@pytest.mark.parametrize("name", models.names())
def test_the_table_of_costs_is_what_can_be_counted(name):
    counted = count(name)
    line = ",".join(map(str, (name, counted.parameters, counted.flops, counted.features)))
    assert cost_of(name) == counted, f"put this line into src/vitrail/models/costs.csv: {line}"


def test_nothing_is_counted_that_the_table_has(monkeypatch):
    monkeypatch.setattr(costs, "count", lambda name: pytest.fail(f"{name} was counted"))
    assert all(cost_of(name) for name in models.names())


def test_a_model_that_is_not_in_the_table_is_counted(monkeypatch):
    monkeypatch.setattr(costs, "_table_of_costs", dict)
    assert cost_of("lenet-5") == Cost(parameters=60_000, flops=count("lenet-5").flops, features=84)
