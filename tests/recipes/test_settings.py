from __future__ import annotations

import math
import re
from dataclasses import fields, replace

import pytest

from vitrail.errors import SettingError
from vitrail.recipes.benching.settings import Bench
from vitrail.recipes.demo import Demo
from vitrail.recipes.evaluating.settings import Evaluate
from vitrail.recipes.generating.settings import Generate
from vitrail.recipes.predicting.settings import Predict
from vitrail.recipes.pretraining.settings import Pretrain
from vitrail.recipes.settings import NUMBERS, check_numbers
from vitrail.recipes.training.settings import Train
from vitrail.serve.settings import Serve

RECIPES = (
    Train(),
    Pretrain(),
    Evaluate(run="run"),
    Predict(run="run", images=()),
    Generate(run="run"),
    Serve(run="run"),
    Demo(),
    Bench(models=()),
)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_every_number_has_its_range_and_the_defaults_are_within(recipe):
    numbers = {field.name for field in fields(recipe) if re.search(r"\b(int|float)\b", str(field.type))}
    assert numbers
    assert numbers <= NUMBERS.keys()
    check_numbers(recipe)


@pytest.mark.parametrize("name", sorted(NUMBERS))
@pytest.mark.parametrize("value", [-1, math.nan])
def test_no_number_may_be_negative_or_none_at_all(name, value):
    recipe = next(each for each in RECIPES if hasattr(each, name))
    with pytest.raises(SettingError, match=rf"^--{name.replace('_', '-')} must be .*, not (-1|nan)\.$"):
        check_numbers(replace(recipe, **{name: value}))


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("epochs", [1, 1000], [0]),
        ("batch_size", [1, 4096], [0]),
        ("learning_rate", [1e-9, 10.0], [0.0, math.inf]),
        ("layer_decay", [0.65, 1.0], [0.0, 1.01]),
        ("label_smoothing", [0.0, 0.99], [1.0, 1.5]),
        ("ema", [0.0, 0.9999], [1.0]),
        ("max_unreadable", [0.0, 1.0], [1.1]),
        ("mixup", [0.0, 5.0], [math.inf]),
        ("workers", [0, 64], []),
    ],
)
def test_the_ends_of_the_ranges(name, good, bad):
    for value in good:
        check_numbers(replace(Train(), **{name: value}))
    for value in bad:
        with pytest.raises(SettingError, match=f"--{name.replace('_', '-')} must be"):
            check_numbers(replace(Train(), **{name: value}))


def test_a_number_that_is_left_open_is_no_mistake():
    check_numbers(Train(epochs=None, workers=None))
