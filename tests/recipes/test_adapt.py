"""What is trained and what stays as it is: whole runs, and every family with attention."""

from __future__ import annotations

import json

import pytest
import torch

from vitrail import models
from vitrail.data.loader import load_batches
from vitrail.data.preprocess import Preprocess
from vitrail.errors import SettingError
from vitrail.nn.lora import LoraLinear, merged
from vitrail.proofs.resume import differences
from vitrail.recipes.adapt import adapt, parameters
from vitrail.recipes.training.settings import Train
from vitrail.recipes.training.train import train
from vitrail.tasks.classification import Classification
from vitrail.train.optim import parameter_groups
from vitrail.weights.saved import load, read_weights

TRANSFORMER = {"width": 24, "depth": 2, "heads": 3, "mlp": 48, "patch_size": 8, "image_size": (24, 16)}
PYRAMID = {"widths": (8, 8, 12, 16), "depths": (1, 2, 1, 2), "heads": (1, 2, 3, 4), "image_size": (64, 64)}
WITH_ATTENTION = {
    "deit-ti16-distilled": TRANSFORMER,
    "dinov3-s16": TRANSFORMER,
    "igpt-nano": {"width": 24, "depth": 2, "heads": 3, "mlp": 48, "image_size": (6, 4), "feature_layer": 2},
    "pvt-tiny": PYRAMID,
    "pvt-v2-b0": PYRAMID,
    "rope-vit-s16": TRANSFORMER,
    "swin-t": {"width": 8, "depths": (2, 1, 2, 2), "heads": (1, 2, 4, 8), "image_size": (64, 64)},
    "t2t-7": {"width": 24, "depth": 2, "heads": 3, "mlp": 48, "token_width": 8, "image_size": (48, 32)},
    "vit-ti16": {**TRANSFORMER, "pool": "map"},
}


def task(model, **config):
    torch.manual_seed(0)
    backbone = models.create(model, **config)
    preprocess = Preprocess(tuple(backbone.config.image_size), mean=(0.5,) * 3, std=(0.5,) * 3, channels=3)
    return Classification(model, backbone, ("a", "b", "c"), preprocess)


def vit(**config):
    return task("vit-ti16", **{**TRANSFORMER, **config})


def trained(task):
    return {name for name, parameter in task.named_parameters() if parameter.requires_grad}


def breaking_off(after):
    """In the place of `load_batches`: as if the process died after so many steps."""

    def load(*arguments):
        for number, batch in enumerate(load_batches(*arguments)):
            if number == after:
                raise ConnectionResetError
            yield batch

    return load


def images(task, count=3):
    return torch.randint(256, (count, 3, *task.preprocess.size), dtype=torch.uint8)


def test_every_family_with_attention_is_swept():
    assert {models.family(name) for name in WITH_ATTENTION} == {
        family for family, parts in models.FAMILIES.items() if parts.build.projections
    }


@pytest.mark.parametrize("name", WITH_ATTENTION)
def test_merged_low_rank_changes_give_the_same_logits(name):
    adapted = task(name, **WITH_ATTENTION[name])
    plain = task(name, **WITH_ATTENTION[name]).eval()
    given = images(adapted)
    with torch.no_grad():
        before = plain(given)
        adapt(adapted, "lora", rank=2)
        torch.testing.assert_close(adapted.eval()(given), before, atol=1e-6, rtol=1e-6)
        maps = [module for module in adapted.modules() if isinstance(module, LoraLinear)]
        for module in maps:
            module.lora_b.normal_(std=0.3)
        after = adapted(given)
        plain.load_state_dict(merged(adapted, adapted.state_dict()))
        torch.testing.assert_close(plain(given), after, atol=1e-5, rtol=0)
        for module in maps:  # each of them is read, and not only its weight
            module.lora_b.zero_()
            assert not torch.equal(adapted(given), after)
            module.lora_b.normal_(std=0.3)
            after = adapted(given)


@pytest.mark.parametrize("name", WITH_ATTENTION)
def test_low_rank_changes_and_the_head_learn_and_nothing_else(name):
    adapted = task(name, **WITH_ATTENTION[name])
    adapt(adapted, "lora", rank=2)
    names = trained(adapted)
    assert {name.rpartition(".")[2] for name in names if name.startswith("backbone.")} == {"lora_a", "lora_b"}
    assert {name for name in names if name.startswith("head.")} == {f"head.{n}" for n in adapted.head.state_dict()}
    for projection in adapted.backbone.projections:
        assert name.startswith("t2t") or any(f".{projection}.lora_a" in each for each in names)
    grouped = [parameter for group in parameter_groups(adapted, 0.05, 0.7) for parameter in group["params"]]
    assert len(grouped) == len(names)
    assert all(
        adapted.layer(f"{each.rpartition('.')[0]}.lora_b") == adapted.layer(each) for each in names if "lora" in each
    )


def test_low_rank_matrices_do_not_decay():
    adapted = vit()
    adapt(adapted, "lora")
    decaying = [p for group in parameter_groups(adapted, 0.05) if group["weight_decay"] for p in group["params"]]
    assert [parameter.shape for parameter in decaying] == [adapted.head.linear.weight.shape]


def test_stochastic_depth_goes_on_beside_low_rank_changes():
    adapted = vit(drop_path=0.5, depth=4)
    adapt(adapted, "lora")
    given = images(adapted, 16)
    with torch.no_grad():
        assert not torch.equal(adapted(given), adapted(given))
        adapted.eval()
        assert torch.equal(adapted(given), adapted(given))


def test_the_head_alone():
    adapted = vit()
    adapt(adapted, "head")
    assert trained(adapted) == {"head.linear.weight", "head.linear.bias"}
    assert adapted.training
    assert not any(module.training for module in adapted.backbone.modules())


@pytest.mark.parametrize("freeze", [0, 1, 2])
def test_layers_below_stay_as_they_are(freeze):
    adapted = vit()
    adapt(adapted, "full", freeze=freeze)
    for name, parameter in adapted.named_parameters():
        assert parameter.requires_grad == (adapted.layer(name) >= freeze)
    assert adapted.backbone.patch_embedding.training == (freeze == 0)
    assert [block.training for block in adapted.backbone.blocks] == [freeze < 2, True]


@pytest.mark.parametrize(
    ("how", "freeze", "sentence"),
    [
        ("head", 1, "--freeze is for --adapt full"),
        ("lora", 1, "--freeze is for --adapt full"),
        ("full", 9, "--freeze 9 is more than vit-ti16 has, whose last layer is 3; .* take --adapt head"),
    ],
)
def test_what_makes_no_sense(how, freeze, sentence):
    with pytest.raises(SettingError, match=sentence):
        adapt(vit(), how, freeze)


def test_a_model_without_attention_has_no_low_rank_changes():
    with pytest.raises(SettingError, match="resnet-18 has none; take --adapt head or full"):
        adapt(task("resnet-18", width=8, image_size=(32, 32)), "lora")


def test_what_is_trained_is_said():
    adapted = vit()
    whole = sum(parameter.numel() for parameter in adapted.parameters())
    assert parameters(adapted) == f"{whole:,} parameters"
    adapt(adapted, "head")
    assert parameters(adapted) == f"{whole:,} parameters, of which 75 ({75 / whole:.1%}) are trained"


@pytest.fixture(scope="module")
def data(paint, tmp_path_factory):
    """Two of the six colours, whose pictures drift."""
    return paint(tmp_path_factory.mktemp("two") / "data", ["red", "yellow"], count=20, noise=40, seed=3)


class TestRuns:
    """From a model that knows six colours to one that tells two of them apart."""

    @pytest.fixture
    def settings(self, colours, data, tiny, tmp_path):
        """``settings(adapt, …)``: a run from the model of six colours."""

        def make(adapt, out="run", **others) -> Train:
            fixed = {"weights": str(colours.folder), "model": "auto", "config": (), "learning_rate": 1e-2}
            return tiny(data, tmp_path / out, epochs=3, adapt=adapt, **fixed | others)

        return make

    def test_the_head_alone_leaves_the_backbone_bit_by_bit_with_its_statistics(self, colours, settings, tmp_path):
        train(settings("head"))
        before, after = (read_weights(folder / "model.safetensors") for folder in (colours.folder, tmp_path / "run"))
        backbone = [name for name in before if name.startswith("backbone.")]
        assert any("running_mean" in name for name in backbone)
        assert all(torch.equal(before[name], after[name]) for name in backbone)
        assert json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["adapt"] == "head"
        assert load(tmp_path / "run").classes == ("red", "yellow")

    def test_frozen_layers_stay_and_the_others_do_not(self, colours, settings, tmp_path):
        train(settings("full", freeze=2))
        before, after = (read_weights(folder / "model.safetensors") for folder in (colours.folder, tmp_path / "run"))
        task = load(colours.folder)
        for name in before:
            if name.startswith("backbone.") and "norm" not in name:
                frozen = task.backbone.layer(name.removeprefix("backbone.")) < 2
                assert torch.equal(before[name], after[name]) == frozen, name

    def test_a_run_with_low_rank_changes_holds_a_plain_model(self, colours, settings, tmp_path, monkeypatch):
        """Its logits are those of the adapted model that was trained, seen at the moment when it was kept."""
        from vitrail.recipes.training import train as recipe

        kept = {}

        def spy(module, state):
            with torch.no_grad():
                kept["logits"] = module(images)
            return merged(module, state)

        images = torch.randint(256, (5, 3, 16, 16), dtype=torch.uint8)
        monkeypatch.setattr(recipe, "merged", spy)
        figures = train(settings("lora", lora_rank=3, ema=0.5))
        task = load(tmp_path / "run")
        names = read_weights(tmp_path / "run" / "model.safetensors").keys()
        assert names == load(colours.folder).state_dict().keys()
        with torch.no_grad():
            torch.testing.assert_close(task(images), kept["logits"], atol=1e-5, rtol=0)
        before = load(colours.folder).state_dict()
        changed = {
            name
            for name, value in task.state_dict().items()
            if not torch.equal(value, before.get(name))
            if name.startswith("backbone.")
        }
        assert changed == {f"backbone.blocks.{i}.attention.{p}.weight" for i in range(2) for p in ("qkv", "proj")}
        assert figures["top1"] > 0.5

    @pytest.mark.parametrize("how", ["lora", "head"])
    def test_it_goes_on_exactly(self, settings, tmp_path, monkeypatch, how):
        """Broken off in its second epoch, and gone on with, it ends bit by bit as without."""
        train(settings(how, "whole", ema=0.9, save_seconds=0.0))
        with monkeypatch.context() as patch:
            patch.setattr("vitrail.recipes.training.train.load_batches", breaking_off(after=3))
            with pytest.raises(ConnectionResetError):
                train(settings(how, "parted", ema=0.9, save_seconds=0.0))
        train(Train(resume=tmp_path / "parted"))
        assert differences(tmp_path / "whole", tmp_path / "parted") == []

    @pytest.mark.parametrize("flags", [{"adapt": "head"}, {"adapt": "lora"}, {"freeze": 1}])
    def test_random_weights_are_not_kept_as_they_are(self, data, tiny, tmp_path, flags):
        with pytest.raises(SettingError, match=r"keeps trained weights, and vit-nano has none .* by --weights"):
            train(tiny(data, tmp_path / "run", **flags))
        assert not (tmp_path / "run").exists()

    def test_it_says_how_much_is_trained_and_that_the_head_is_new(self, colours, data, vitrail, tmp_path):
        words = ("--weights", colours.folder, "--adapt", "lora", "--lora-rank", 2, "--epochs", 1, "--device", "cpu")
        said = vitrail("train", data, *words, "--out", tmp_path / "run")
        assert said.status == 0
        assert "a new head for 2 classes in place of that for 6" in said.err
        assert "of which 834 (" in said.err  # in 2 blocks rank 2 · (32 + 96 + 32 + 32), and a head of 2 · 33
