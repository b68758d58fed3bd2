"""From a small run of MAE on: the picture of what it paints, probes, fine-tuning, going on, and what goes wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from vitrail.weights import objective

FIXED = ("--device", "cpu", "--precision", "float32", "--workers", 0)
TINY = ("--model", "vit-micro", "--config", "width=32", "depth=2", "heads=2", "mlp=64", "patch_size=4")


@pytest.fixture(scope="module")
def pretrained(colours, tmp_path_factory):
    """A run of four steps on the six colours."""
    from vitrail.recipes.pretraining.pretrain import pretrain
    from vitrail.recipes.pretraining.settings import Pretrain

    folder = tmp_path_factory.mktemp("pretrained") / "run"
    fixed = {"device": "cpu", "precision": "float32", "workers": 0, "steps": 4, "batch_size": 16}
    pretrain(Pretrain(str(colours.data), "mae", folder, model="vit-micro", config=TINY[3:], **fixed))
    return folder


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_a_fresh_run_is_as_the_paper_has_it(pretrained):
    learner = objective.load(pretrained)
    config = learner.backbone.config
    assert (config.stem, config.position, config.pool, config.class_token) == ("patch", "learned", "mean", True)
    assert not learner.backbone.positions[0, 0].any()
    assert learner.augment.crop_scale == (0.2, 1.0)


def test_a_picture_and_the_error_of_each_image(vitrail, pretrained, photo, tmp_path):
    words = ("explain", pretrained, photo, photo, "--method", "reconstruct", "--device", "cpu", "--out")
    done = vitrail(*words, tmp_path / "a.png", "--json")
    answers = json.loads(done.out)
    assert (done.status, len(answers)) == (0, 2)
    assert set(answers[0]) == {"image", "error", "hidden"}
    assert np.sum(answers[0]["hidden"]) == 12
    assert answers[0]["hidden"] != answers[1]["hidden"]  # each place has a mask of its own
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"
    again = json.loads(vitrail(*words, tmp_path / "b.png", "--json").out)
    assert again == answers
    other = json.loads(vitrail(*words, tmp_path / "b.png", "--json", "--seed", 1).out)
    assert other[0]["hidden"] != answers[0]["hidden"]
    less = json.loads(vitrail(*words, tmp_path / "b.png", "--json", "--mask-ratio", 0.25).out)
    assert np.sum(less[0]["hidden"]) == 4
    done = vitrail(*words, tmp_path / "b.png")
    assert f"{photo}: error {answers[0]['error']:.3f}" in done.err
    assert f"the picture of them is {tmp_path / 'b.png'}" in done.err


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--mask-ratio", 1), "a mask ratio of 1 does not do for 16 patches"),
        (("--mask-ratio", 0), "a mask ratio of 0 does not do for 16 patches"),
        (("--image-size", 32), "leave out --image-size"),
        (("--options", "mask_ratio=0.5"), "knows what was set about mae; options are for files to be told"),
        (("--options", "ratio=0.5"), "--options has no 'ratio'; it has: mask_ratio"),
        (("--out", "a.jpg"), "ends in .png"),
        (("--seed", -1), "--seed must be"),
        (("--layer", 1), "--method reconstruct has none"),
    ],
)
def test_what_cannot_be_asked_for(vitrail, pretrained, photo, flags, problem):
    done = vitrail("explain", pretrained, photo, "--method", "reconstruct", "--device", "cpu", *flags)
    assert (done.status, done.out) == (2, "")
    assert problem in done.err


def test_a_run_of_something_else_paints_nothing(vitrail, colours, pretrained, photo):
    done = vitrail("explain", colours.folder, photo, "--method", "reconstruct")
    assert done.status == 2
    assert "was not pre-trained on images; give a run of `vitrail pretrain`" in done.err
    done = vitrail("explain", pretrained, photo)
    assert done.status == 2
    assert "knows no classes to look for; see what it paints: --method reconstruct" in done.err
    done = vitrail("explain", colours.folder, photo, "--mask-ratio", 0.5)
    assert done.status == 2
    assert "--mask-ratio is for --method reconstruct" in done.err


def test_unreadable_images_are_named(vitrail, pretrained, photo, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    out = tmp_path / "a.png"
    done = vitrail("explain", pretrained, broken, photo, "--method", "reconstruct", "--out", out, "--json")
    assert (done.status, len(json.loads(done.out))) == (0, 1)
    assert f"left out: cannot read image {broken}" in done.err
    done = vitrail("explain", pretrained, broken, "--method", "reconstruct", "--out", out)
    assert done.status == 2
    assert "none of the images can be read" in done.err


def test_published_files_are_painted_with_and_gone_on_from(vitrail, colours, photo, tmp_path):
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    decoder = {"decoder_hidden_size": 32, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 1}
    shape = {**small, **decoder, "decoder_intermediate_size": 64, "image_size": 16, "patch_size": 4}
    peer = ViTMAEForPreTraining(ViTMAEConfig(**shape))
    peer.save_pretrained(tmp_path / "peer")
    out = ("--out", tmp_path / "a.png")
    done = vitrail("explain", tmp_path / "peer", photo, "--method", "reconstruct", *out)
    assert done.status == 0, done.err
    on = ("--steps", 1, "--batch-size", 16, "--learning-rate", 1e-9, *FIXED)
    run = tmp_path / "run"
    done = vitrail("pretrain", colours.data, "--objective", "mae", "--weights", tmp_path / "peer", "--out", run, *on)
    assert done.status == 0, done.err
    kept = load_file(run / "model.safetensors")  # after a step that changes next to nothing
    theirs = peer.state_dict()
    for name, ours in (
        ("vit.layers.0.mlp.fc1", "backbone.blocks.0.mlp.fc1"),
        ("decoder.decoder_pred", "decoder_output"),
    ):
        torch.testing.assert_close(kept[f"{ours}.weight"], theirs[f"{name}.weight"], atol=1e-6, rtol=0)
    other = ("--options", "decoder_width=64", *on, "--out", tmp_path / "other")
    done = vitrail("pretrain", colours.data, "--objective", "mae", "--weights", tmp_path / "peer", *other)
    assert done.status == 0, done.err
    assert "gives the weights of the backbone; all else of mae begins with random ones" in done.err
    kept = load_file(tmp_path / "other" / "model.safetensors")
    torch.testing.assert_close(
        kept["backbone.blocks.0.mlp.fc1.weight"], theirs["vit.layers.0.mlp.fc1.weight"], atol=1e-6, rtol=0
    )


def test_an_encoder_alone_cannot_paint(vitrail, photo, tmp_path):
    from vitrail import models

    backbone = models.create("vit", width=32, depth=2, heads=2, mlp=64, image_size=16, patch_size=4)
    names = {"class_token": "cls_token", "positions": "pos_embed"}
    parts = (("patch_embedding.", "patch_embed."), (".attention.", ".attn."))
    tensors = {}
    for name, value in backbone.state_dict().items():
        name = names.get(name, name)
        for ours, theirs in parts:
            name = name.replace(ours, theirs)
        tensors[name] = value
    torch.save({"model": tensors}, tmp_path / "encoder.pth")
    stated = ("--layout", "mae", "--model", "vit", "--config")
    shape = ("width=32", "depth=2", "heads=2", "mlp=64", "image_size=16,16", "patch_size=4")
    done = vitrail("explain", tmp_path / "encoder.pth", photo, "--method", "reconstruct", *stated, *shape)
    assert done.status == 2
    assert "holds a backbone alone, and nothing else of mae" in done.err


@pytest.mark.parametrize("probe", ["linear", "knn"])
def test_its_features_are_probed(vitrail, pretrained, colours, probe):
    done = vitrail("evaluate", pretrained, colours.data, "--probe", probe, *FIXED, "--json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["top1"] > 0.5  # of six colours


def test_it_is_fine_tuned(vitrail, pretrained, colours, tmp_path):
    run, wide = tmp_path / "run", tmp_path / "wide"
    start = ("train", colours.data, "--weights", pretrained, *FIXED)
    done = vitrail(*start, "--out", run, "--epochs", 12, "--learning-rate", 3e-3, "--layer-decay", 1)
    assert done.status == 0, done.err
    assert json.loads((run / "evaluation.json").read_text())["top1"] > 0.5  # of six colours
    before, after = load_file(pretrained / "model.safetensors"), load_file(run / "model.safetensors")
    of_encoder = {name for name in before if name.startswith("backbone.")}
    assert after.keys() - {"head.linear.weight", "head.linear.bias"} == of_encoder
    assert not torch.equal(before["backbone.positions"], after["backbone.positions"])  # now they are trained
    done = vitrail(*start, "--out", wide, "--epochs", 1, "--image-size", 24)
    assert done.status == 0, done.err
    assert load_file(wide / "model.safetensors")["backbone.positions"].shape == (1, 37, 32)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--model", "resnet-18"), "mae is made for vit, not for resnet-18"),
        ((*TINY, "stem=conv"), "hides a ViT's patches; vit-micro is none, or has another stem"),
        ((*TINY, "--options", "mask_ratio=1"), "a mask ratio of 1 does not do for 16 patches"),
        ((*TINY, "--options", "mask_ratio=0.99"), "a mask ratio of 0.99 does not do for 16 patches"),
        ((*TINY, "--options", "decoder_heads=7"), "a decoder of width 32, depth 1, 7 heads"),
    ],
)
def test_what_cannot_be_pre_trained(vitrail, colours, tmp_path, flags, problem):
    done = vitrail("pretrain", colours.data, "--objective", "mae", *flags, "--steps", 1, "--out", tmp_path / "run")
    assert (done.status, done.out) == (2, "")
    assert problem in done.err
    assert not (tmp_path / "run").exists()
