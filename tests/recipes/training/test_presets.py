"""The recipes of papers: the numbers that they state, and what becomes of them on few images."""

from __future__ import annotations

import pytest

from vitrail.data import augment
from vitrail.errors import SettingError, UnknownName
from vitrail.recipes.config import config_changes
from vitrail.recipes.settings import check_numbers
from vitrail.recipes.training import start
from vitrail.recipes.training.choose import choose, find_pretrained
from vitrail.recipes.training.presets import PRESETS, bit_hyper_rule, recipe_config, with_preset
from vitrail.recipes.training.settings import Train
from vitrail.recipes.training.start import open_data

MILLION = 1_281_167  # ImageNet-1k, for which the papers state their numbers


@pytest.mark.parametrize(
    ("recipe", "stated"),
    [
        # learning rates as the authors' commands compute them: base · batch / its batch
        (
            "deit",
            {"learning_rate": 5e-4 * 1024 / 512, "batch_size": 1024, "epochs": 300, "warmup_epochs": 5, "clip": 0},
        ),
        ("deit", {"ema": 0.99996, "weight_decay": 0.05, "mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1}),
        (
            "swin",
            {"learning_rate": 5e-4 * 1024 / 512, "batch_size": 1024, "epochs": 300, "warmup_epochs": 20, "clip": 5},
        ),
        ("swin", {"ema": 0.0, "weight_decay": 0.05, "mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1}),
        ("mae-finetune", {"learning_rate": 5e-4 * 1024 / 256, "batch_size": 1024, "epochs": 100, "layer_decay": 0.65}),
        ("mae-finetune", {"warmup_epochs": 5, "clip": 0, "weight_decay": 0.05, "mixup": 0.8, "cutmix": 1.0}),
        ("augreg", {"learning_rate": 0.03, "batch_size": 512, "optimizer": "sgd", "weight_decay": 0, "clip": 1}),
        ("augreg", {"mixup": 0.0, "cutmix": 0.0, "label_smoothing": 0.0, "epochs": None}),
        ("bit", {"learning_rate": 0.003, "batch_size": 512, "optimizer": "sgd", "weight_decay": 0, "mixup": 0.1}),
        ("bit", {"epochs": round(20_000 * 512 / MILLION), "clip": 0, "label_smoothing": 0.0}),
    ],
)
def test_on_imagenet_they_are_the_papers_numbers(recipe, stated):
    settings = with_preset(Train(recipe=recipe), MILLION)
    assert {name: getattr(settings, name) for name in stated} == pytest.approx(stated)


@pytest.mark.parametrize(("recipe", "rate"), [("deit", 0.1), ("swin", 0.2), ("mae-finetune", 0.1)])
def test_stochastic_depth_is_the_papers(recipe, rate):
    assert config_changes("vit-s16", recipe_config(recipe, "vit-s16")) == {"drop_path": rate}


@pytest.mark.parametrize("recipe", PRESETS)
def test_all_that_they_set_are_settings_that_make_sense(recipe):
    for images in (2, 50, 10_000, MILLION):
        settings = with_preset(Train(recipe=recipe), images)
        check_numbers(settings)
        assert settings.batch_size <= max(2, images / 10)
    assert settings.augment in augment.PRESETS
    assert settings.config == ()


def test_from_random_weights_or_not():
    assert {name for name in PRESETS if with_preset(Train(recipe=name), MILLION).weights == "none"} == {"deit", "swin"}


def test_what_a_person_sets_stays():
    theirs = {"epochs": 7, "learning_rate": 0.5, "mixup": 0.3, "weights": "runs/mine", "augment": "none"}
    settings = with_preset(Train(recipe="deit", **theirs), MILLION)
    assert {name: getattr(settings, name) for name in theirs} == theirs
    assert settings.cutmix == 1.0


def test_a_smaller_batch_has_a_smaller_rate():
    """In proportion, Goyal et al. 2017."""
    assert with_preset(Train(recipe="deit", batch_size=64), MILLION).learning_rate == pytest.approx(1e-3 * 64 / 1024)
    few = with_preset(Train(recipe="deit"), 640)
    assert (few.batch_size, few.learning_rate) == (64, pytest.approx(1e-3 * 64 / 1024))


def test_of_fewer_epochs_the_warm_up_keeps_its_share():
    assert with_preset(Train(recipe="swin", epochs=30), MILLION).warmup_epochs == pytest.approx(2)
    assert with_preset(Train(recipe="swin", epochs=600), MILLION).warmup_epochs == 20
    assert with_preset(Train(recipe="swin", epochs=30, warmup_epochs=3.0), MILLION).warmup_epochs == 3


@pytest.mark.parametrize(
    ("images", "steps", "mixup"),
    [(1_000, 500, 0.0), (19_999, 500, 0.0), (20_000, 10_000, 0.1), (499_999, 10_000, 0.1), (500_000, 20_000, 0.1)],
)
def test_the_hyper_rule_goes_by_the_number_of_images(images, steps, mixup):
    rule = bit_hyper_rule(images)
    assert rule["epochs"] * images / 512 == pytest.approx(steps, rel=0.03)
    assert rule["mixup"] == mixup


def test_without_a_recipe_nothing_changes():
    assert with_preset(Train(epochs=3), 100) == Train(epochs=3)


def test_an_unknown_recipe_is_answered_with_the_nearest_before_the_data_is_opened():
    with pytest.raises(UnknownName, match="no recipe called 'swim'; did you mean swin"):
        start.check(Train(data="nowhere", recipe="swim"))


def test_help_names_them_all(vitrail):
    said = vitrail("train", "--help").out
    assert all(name in said for name in PRESETS)


@pytest.fixture(scope="module")
def data(paint, tmp_path_factory):
    return paint(tmp_path_factory.mktemp("data") / "data", ["red", "blue"], count=10)


class TestModels:
    """What a recipe changes in the model meets models of all kinds."""

    def choice(self, settings):
        dataset = open_data(settings)
        return choose(settings, dataset, find_pretrained(settings, dataset))

    def test_a_model_with_the_setting_takes_it(self, data, tiny):
        assert self.choice(tiny(data, recipe="swin", weights="none")).changes["drop_path"] == 0.2

    def test_a_person_has_the_last_word(self, data, tiny):
        settings = tiny(data, recipe="swin", weights="none", config=("drop_path=0.05",))
        assert self.choice(settings).changes["drop_path"] == 0.05

    def test_a_trained_model_takes_it(self, colours, data, tiny):
        settings = tiny(data, recipe="mae-finetune", weights=str(colours.folder), model="auto", config=())
        choice = self.choice(settings)
        assert (choice.model, choice.changes["drop_path"]) == ("vit-nano", 0.1)

    def test_a_model_without_it_goes_without_and_that_is_said(self, data, tiny, capsys):
        settings = tiny(data, recipe="deit", weights="none", model="lenet-5", config=())
        assert "drop_path" not in self.choice(settings).changes
        said = capsys.readouterr().err
        assert said == "the recipe 'deit' sets drop_path=0.1, which lenet-5 does not have; it goes without.\n"

    def test_what_a_person_asks_of_such_a_model_is_refused(self, data, tiny):
        settings = tiny(data, recipe="deit", weights="none", model="lenet-5", config=("drop_path=0.1",))
        with pytest.raises(SettingError, match="has no setting 'drop_path'"):
            self.choice(settings)
