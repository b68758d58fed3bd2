from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail import models
from vitrail.data.sample import Label, Sample
from vitrail.data.source import Dataset, Source
from vitrail.errors import RunError, SettingError, UnknownName, UnreadableImage
from vitrail.recipes.config import config_changes
from vitrail.recipes.training.choose import (
    best_batch_size,
    choose,
    find_pretrained,
    fit_to_images,
    model_for,
    reference,
    typical_side,
)
from vitrail.recipes.training.settings import Train
from vitrail.weights.files import NoNetwork
from vitrail.weights.published import recommended


@dataclass(frozen=True)
class Blank(Source):
    """Images of given heights and widths; one with a height of 0 cannot be read."""

    shapes: tuple[tuple[int, int], ...]
    channels: int = 3

    def __len__(self) -> int:
        return len(self.shapes)

    def name(self, index: int) -> str:
        return str(index)

    def label(self, index: int) -> Label:
        return Label(index % 2)

    def encoded(self, index: int) -> bytes:
        return bytes(index)

    def sample(self, index: int) -> Sample:
        if not self.shapes[index][0]:
            raise UnreadableImage(self.name(index), "it is blank")
        return Sample(np.zeros((*self.shapes[index], self.channels), np.uint8), self.name(index), self.label(index))


def data(count: int, side: int, channels: int = 3) -> Dataset:
    source = Blank(((side, side + 5),) * count, channels)
    return Dataset("blank", "folder", ("a", "b"), {"train": source, "validation": source}, channels=channels)


@pytest.mark.parametrize(
    ("images", "side", "model"),
    [
        (1000, 8, "vit-nano"),
        (1000, 12, "vit-nano"),
        (1000, 28, "vit-micro"),
        (1000, 64, "vit-micro"),
        (1000, 224, "resnet-18"),
        (20_000, 224, "vit-s16"),
    ],
)
def test_the_model_follows_from_the_size_and_the_number_of_the_images(images, side, model):
    assert model_for(Train(weights="none"), images, side) == model


@settings(deadline=None, max_examples=60)
@given(images=st.integers(2, 10**6))
def test_a_batch_is_never_larger_than_the_data_and_is_even(images):
    size = best_batch_size(images)
    assert 2 <= size <= images
    assert size % 2 == 0


@settings(deadline=None, max_examples=25)
@given(
    model=st.sampled_from(["resnet-18", "vit-nano", "vit-ti16"]),
    side=st.integers(1, 2000),
    channels=st.sampled_from([1, 3]),
)
def test_whatever_the_images_the_model_can_be_built_and_run(model, side, channels):
    with torch.device("meta"):
        backbone = models.create(model, **fit_to_images(model, side, channels))
        features = backbone.eval()(torch.empty(1, channels, *backbone.config.image_size))
    assert features.pooled.shape == (1, backbone.width)


def test_the_typical_side_is_the_median_of_the_shorter_ones():
    assert typical_side(Blank(((10, 99), (99, 20), (30, 40)))) == 20


def test_images_that_cannot_be_read_do_not_count():
    assert typical_side(Blank(((0, 0), (30, 40), (0, 0)))) == 30
    assert typical_side(Blank(((0, 0),))) == 224


def test_what_is_left_open_is_chosen_and_said():
    choice = choose(Train(), data(1000, 28, channels=1))
    assert (choice.model, choice.batch_size, choice.learning_rate) == ("vit-micro", best_batch_size(1000), 0.001)
    assert choice.preprocess().channels == choice.create().config.channels == 1
    assert choice.flip == 0.0  # a mirrored character is another one
    assert choice.reason.startswith("1,000 training images of about 28 pixels, 2 classes: vit-micro at 28 pixels for ")
    assert choice.reason.endswith("augmentation 'light', from random weights (none of vit-micro are published)")


def test_what_is_given_is_taken():
    settings = Train(
        model="resnet-18",
        image_size=40,
        epochs=3,
        batch_size=10,
        learning_rate=0.5,
        optimizer="sgd",
        warmup_epochs=0.25,
        augment="strong",
        flip="no",
        mixup=0.8,
        cutmix=1.0,
    )
    choice = choose(settings, data(100, 300))
    assert (choice.model, choice.changes["image_size"]) == ("resnet-18", [40, 40])
    assert (choice.epochs, choice.batch_size, choice.learning_rate, choice.warmup_epochs) == (3, 10, 0.5, 0.25)
    assert (choice.augment, choice.flip, choice.mixup, choice.cutmix) == ("strong", 0.0, 0.8, 1.0)


def test_each_optimizer_has_its_usual_learning_rate():
    assert choose(Train(optimizer="adamw"), data(100, 28)).learning_rate == 0.001
    assert choose(Train(optimizer="sgd"), data(100, 28)).learning_rate == 0.02


def test_mirroring_can_be_asked_for():
    assert choose(Train(flip="yes"), data(100, 28, channels=1)).flip == 0.5


def test_grey_images_can_be_given_to_a_model_of_colours():
    choice = choose(Train(config=("channels=3",)), data(100, 28, channels=1))
    assert choice.preprocess().channels == choice.create().config.channels == 3


def test_the_model_of_another_run_is_taken_as_it_is(colours):
    settings = Train(weights=str(colours.folder))
    choice = choose(settings, data(100, 200), find_pretrained(settings, data(100, 200)))
    assert choice.model == "vit-nano"
    assert (choice.changes["width"], list(choice.changes["image_size"])) == (32, [16, 16])
    assert choice.reason.endswith(f"from {colours.folder}")


def test_weights_must_be_those_of_a_run(tmp_path):
    with pytest.raises(RunError, match="there is no run folder"):
        find_pretrained(Train(weights=str(tmp_path / "nothing")), data(100, 28))


class TestPublishedWeights:
    """`--weights auto`, the default."""

    @pytest.fixture
    def offline(self, monkeypatch, tmp_path):
        """No network, and nothing in the cache."""
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    @pytest.mark.parametrize(
        ("settings", "side", "weights"),
        [
            (Train(model="swin-t"), 224, recommended("swin-t").reference),
            (Train(model="swin-t"), 32, recommended("swin-t").reference),  # enlarged, they still know more than chance
            (Train(), 224, recommended("vit-s16").reference),
            (Train(), 28, "none"),
            (Train(model="resnet-18"), 224, recommended("resnet-18").reference),
            (Train(model="resnet-18"), 32, "none"),  # its stem for photographs would leave a single place
            (Train(model="vit-nano"), 224, "none"),
            (Train(model="swin-t", weights="none"), 224, "none"),
            (Train(model="swin-t", weights="runs/mine"), 224, "runs/mine"),
        ],
    )
    def test_they_are_those_of_the_model_where_there_are_any(self, settings, side, weights):
        assert reference(settings, 1000, side) == weights

    def test_without_a_network_one_sentence_names_the_remedy(self, offline, vitrail, paint, tmp_path):
        folder = paint(tmp_path / "data", ["red", "blue"], count=10)
        said = vitrail("train", folder, "--model", "swin-t", "--out", tmp_path / "run")
        assert said.status == 2
        sentence = said.err.splitlines()[-1]
        assert sentence.startswith(f"vitrail: {recommended('swin-t').reference} is not in the cache")
        assert sentence.endswith("; try again with a network, or from random weights with --weights none.")
        assert not (tmp_path / "run").exists()

    def test_who_named_weights_is_not_offered_random_ones(self, offline):
        with pytest.raises(NoNetwork, match=r"try again with a network\.$"):
            find_pretrained(Train(weights="hf:timm/swin_tiny_patch4_window7_224.ms_in1k"), data(100, 224))

    @pytest.mark.parametrize(
        ("settings", "side", "words"),
        [
            (Train(model="vit-nano"), 8, "from random weights (none of vit-nano are published)"),
            (Train(model="resnet-18"), 32, "from random weights (published ones know large photographs)"),
            (Train(model="vit-nano", weights="none"), 8, "from random weights"),
        ],
    )
    def test_why_weights_are_random_is_said(self, settings, side, words):
        assert choose(settings, data(100, side)).reason.endswith(f", {words}")


def test_an_unknown_model_is_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="no model called 'vit-mikro'; did you mean vit-micro"):
        choose(Train(model="vit-mikro"), data(100, 28))


class TestConfig:
    @pytest.mark.parametrize(
        ("model", "word", "value"),
        [
            ("vit-ti16", "patch_size=8", 8),
            ("vit-ti16", "image_size=64,96", [64, 96]),
            ("vit-ti16", "drop_path=0.1", 0.1),
            ("vit-ti16", "layer_scale=1e-5", 1e-5),
            ("vit-ti16", "layer_scale=none", None),
            ("vit-ti16", "parallel=true", True),
            ("vit-ti16", "qkv_bias=False", False),
            ("vit-ti16", "pool=map", "map"),
            ("resnet-18", "depths=1,1,2,1", [1, 1, 2, 1]),
            ("resnet-18", "stem=small", "small"),
        ],
    )
    def test_words_become_values_of_the_type_that_the_model_has(self, model, word, value):
        changes = config_changes(model, (word,))
        assert changes == {word.partition("=")[0]: value}
        assert type(next(iter(changes.values()))) is type(value)

    @pytest.mark.parametrize(
        ("word", "complaint"),
        [
            ("nonsense", "--config takes name=value, such as patch_size=8, not 'nonsense'"),
            ("colour=red", "the model 'vit-ti16' has no setting 'colour'; it has: width, depth, "),
            ("patch_size=three", "patch_size must be a whole number"),
            ("patch_size=", "patch_size must be a whole number"),
            ("drop_path=a", "drop_path must be a number"),
            ("parallel=maybe", "parallel must be true or false"),
            ("pool=max", "pool must be one of class, mean"),
            ("image_size=64", "image_size must be whole numbers with commas between"),
            ("layer_scale=x", "layer_scale must be a number or none"),
        ],
    )
    def test_what_makes_no_sense_is_refused_in_one_sentence(self, word, complaint, capfd):
        with pytest.raises(SettingError) as error:
            config_changes("vit-ti16", (word,))
        assert complaint in str(error.value)
        assert capfd.readouterr() == ("", "")
