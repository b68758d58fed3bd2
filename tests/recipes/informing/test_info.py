from __future__ import annotations

import json
import shutil
import tarfile

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, ViTConfig, ViTForImageClassification

from vitrail import models
from vitrail.data.text.characters import learn
from vitrail.errors import CheckpointError, DataError, RunError, SettingError, UnknownName
from vitrail.export.onnx import write_onnx
from vitrail.objectives.next_token import NextToken
from vitrail.recipes.informing.info import info
from vitrail.recipes.informing.settings import Info
from vitrail.weights.load import load
from vitrail.weights.save import save_description


def test_a_model_is_told_layer_by_layer():
    answer = info(Info("lenet-5", json=True))
    assert answer["kind"] == "model"
    counts = {layer["name"]: layer["parameters"] for layer in answer["layers"]}
    assert sum(counts.values()) == answer["parameters"]
    assert 1516 in counts.values()  # C3 of LeCun et al. 1998
    assert answer["features"]["pooled"] == 84


def test_a_model_of_text_is_told_layer_by_layer():
    answer = info(Info("gpt2", config=("depth=2", "context=32"), json=True))
    counts = {layer["name"]: layer["parameters"] for layer in answer["layers"]}
    assert counts == {
        "token_embedding": 50_257 * 768,
        "positions": 32 * 768,
        "blocks.0": 12 * 768**2 + 13 * 768,
        "blocks.1": 12 * 768**2 + 13 * 768,
        "norm": 2 * 768,
    }
    assert sum(counts.values()) == answer["parameters"]
    assert (answer["features"]["tokens"], answer["features"]["grid"]) == ([32, 768], [32])


def test_changes_to_a_model_are_counted_in():
    answer = info(Info("vit-ti16", config=("image_size=64,96", "patch_size=8", "registers=4"), json=True))
    assert answer["config"]["image_size"] == (64, 96)
    assert answer["features"]["grid"] == [8, 12]
    assert answer["features"]["tokens"] == [1 + 4 + 96, 192]
    assert answer["features"]["maps"] == [[192, 8, 12]]


def test_a_change_that_cannot_be_is_refused():
    with pytest.raises(SettingError, match="not divisible"):
        info(Info("vit-ti16", config=("patch_size=15",)))


def test_the_largest_model_takes_no_memory():
    assert info(Info("vit-22b14", json=True))["parameters"] > 21e9


def test_a_run_is_told_with_its_classes_and_how_it_came_about(colours):
    answer = info(Info(str(colours.folder), json=True))
    assert (answer["kind"], answer["model"]) == ("run", "vit-nano")
    assert answer["classes"] == ["blue", "cyan", "green", "magenta", "red", "yellow"]
    assert answer["preprocess"]["size"] == [16, 16]
    assert answer["data"] == str(colours.data)
    assert answer["images"] == {"train": 84, "validation": 12, "test": 24}
    assert answer["chosen"].startswith("84 training images of about 16 pixels")
    assert answer["parameters"] == sum(p.numel() for p in load(colours.folder).parameters())


def test_an_exported_file_is_told_with_its_classes(colours, tmp_path, vitrail):
    write_onnx(load(colours.folder), tmp_path / "colours.onnx")
    answer = info(Info(str(tmp_path / "colours.onnx"), json=True))
    assert (answer["kind"], answer["classes"]) == ("exported", list(load(colours.folder).classes))
    assert answer["model"] == load(colours.folder).model
    done = vitrail("info", __file__.replace("test_info.py", "no.onnx"))
    assert done.status == 2
    assert "no.onnx" in done.err


def test_a_run_without_labels_is_told_with_its_objective(tmp_path):
    tokenizer = learn(["abc"], 100, NextToken.special)
    model = models.create_text("gpt-nano", vocabulary=len(tokenizer), context=9)
    save_description(NextToken("gpt-nano", model, tokenizer), tmp_path)
    answer = info(Info(str(tmp_path), json=True))
    assert (answer["objective"], answer["options"], answer["task"]) == ("next-token", {"tied": True}, None)
    assert (answer["model"], answer["config"]["context"], answer["classes"]) == ("gpt-nano", 9, None)


def test_a_model_without_its_record_is_told_as_far_as_it_goes(colours, tmp_path):
    copy = shutil.copytree(colours.folder, tmp_path / "run")
    (copy / "run.json").unlink()
    answer = info(Info(str(copy), json=True))
    assert (answer["model"], answer["data"]) == ("vit-nano", None)


def test_a_run_that_is_not_finished_is_no_model_yet(colours, tmp_path):
    (tmp_path / "run").mkdir()
    shutil.copy(colours.folder / "run.json", tmp_path / "run")
    with pytest.raises(RunError, match=r"not a finished run: it has no model\.json"):
        info(Info(str(tmp_path / "run")))


def test_data_are_counted_by_class_and_split(paint, tmp_path):
    answer = info(Info(str(paint(tmp_path / "data", ["red", "blue"], count=10)), json=True))
    assert answer["kind"] == "data"
    assert answer["images"] == {"train": 14, "validation": 2, "test": 4}
    assert answer["classes"]["red"] == {"train": 7, "validation": 1, "test": 2}
    assert answer["pixels"]["width"] == {"smallest": 16, "median": 16.0, "largest": 16}
    assert answer["leaks"] == []


def test_images_in_two_splits_are_named(paint, tmp_path):
    for seed, split in enumerate(("train", "test")):
        paint(tmp_path / "data" / split, ["red", "blue"], count=10, seed=seed)
    shutil.copy(tmp_path / "data/train/red/00.png", tmp_path / "data/test/red/again.png")
    (leak,) = [note for note in info(Info(str(tmp_path / "data"), json=True))["leaks"] if "test" in note.split()[:4]]
    assert leak.endswith("again.png")


def test_columns_of_a_table_can_be_named(paint, tmp_path):
    paint(tmp_path / "data", ["red", "blue"], count=4)
    rows = [f"{name}/0{number}.png\t{name}" for name in ("red", "blue") for number in range(4)]
    (tmp_path / "data" / "table.tsv").write_text("\n".join(["picture\thue", *rows]))
    settings = Info(str(tmp_path / "data" / "table.tsv"), image_column="picture", label_column="hue", json=True)
    assert set(info(settings)["classes"]) == {"red", "blue"}


def test_what_is_nothing_of_these_is_answered_with_the_nearest_models():
    with pytest.raises(UnknownName, match="called 'vit-nanno'; did you mean vit-nano"):
        info(Info("vit-nanno"))


def test_a_file_that_is_no_data_is_said_to_be_none(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DataError, match=r"is a '\.txt' file; DATA must be one of"):
        info(Info(str(tmp_path / "notes.txt")))


def test_for_people_it_is_a_table_in_which_names_stand_as_they_are(vitrail, paint, tmp_path):
    data = paint(tmp_path / "data", ["red", "blue"], count=10)
    (data / "red").rename(data / "[red] :bee:")
    said = vitrail("info", data)
    assert said.status == 0
    lines = [line.split() for line in said.out.splitlines()]
    assert ["classes", "train", "validation", "test"] in lines
    assert ["[red]", ":bee:", "7", "1", "2"] in lines
    assert ["many", "labels", "no"] in lines


@pytest.mark.parametrize("subject", ["vit-nano", "shapes:12"])
def test_json_is_one_document(vitrail, subject):
    said = vitrail("info", subject, "--json")
    assert (said.status, said.err) == (0, "")
    assert json.loads(said.out)["kind"] in ("model", "data")


# -------------------------------------------------------------------------------------------------- files of weights


def vit_of_transformers(folder):
    """A tiny network with names for its two classes, in the library's own folder."""
    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48}
    config = ViTConfig(**shape, image_size=32, patch_size=8, id2label={0: "ant", 1: "bee"})
    ViTForImageClassification(config).save_pretrained(folder)
    return folder


def test_a_folder_of_weights_says_what_it_is(tmp_path):
    folder = vit_of_transformers(tmp_path / "vit")
    answer = info(Info(str(folder), json=True))
    assert (answer["kind"], answer["model"], answer["layout"]) == ("weights", "vit", "transformers, transformers-5")
    assert answer["classes"] == ["ant", "bee"]
    assert answer["preprocess"]["size"] == [32, 32]
    assert (answer["config"]["width"], answer["config"]["depth"]) == (24, 2)
    assert [file["name"] for file in answer["files"]] == ["model.safetensors"]
    stored = load_file(folder / "model.safetensors")
    assert {row["name"]: (row["shape"], row["type"]) for row in answer["tensors"]} == {
        name: (list(tensor.shape), "float32") for name, tensor in stored.items()
    }
    assert answer["parameters"] == sum(tensor.numel() for tensor in stored.values())


def test_a_file_that_says_nothing_is_told_with_what_would_fit(tmp_path, vitrail):
    save_file(models.create("lenet-5").state_dict(), tmp_path / "lenet.safetensors")
    answer = info(Info(str(tmp_path / "lenet.safetensors"), json=True))
    assert answer["model"] is None
    assert "does not say what it is; give --layout and --model" in answer["reason"]
    assert len(answer["tensors"]) == len(models.create("lenet-5").state_dict())
    said = vitrail("info", tmp_path / "lenet.safetensors")
    assert said.status == 0
    assert "give --layout and --model" in " ".join(said.out.split())


def test_a_file_that_is_explained(tmp_path):
    torch.save(load_file(vit_of_transformers(tmp_path / "vit") / "model.safetensors"), tmp_path / "weights.pth")
    shape = ("width=24", "depth=2", "heads=3", "mlp=48", "image_size=32,32", "patch_size=8")
    told = {"layout": "transformers", "model": "vit-ti16", "json": True}
    answer = info(Info(str(tmp_path / "weights.pth"), config=shape, **told))
    assert (answer["model"], answer["classes"]) == ("vit-ti16", ["0", "1"])
    answer = info(Info(str(tmp_path / "weights.pth"), **told))
    assert answer["model"] is None
    assert "does not fit the model vit-ti16: " in answer["reason"]


def test_weights_of_a_model_of_text(tmp_path):
    GPT2LMHeadModel(GPT2Config(n_embd=24, n_layer=2, n_head=3, vocab_size=40, n_positions=8)).save_pretrained(tmp_path)
    answer = info(Info(str(tmp_path), json=True))
    assert (answer["kind"], answer["model"], answer["layout"]) == ("weights", "gpt", "transformers")
    assert (answer["objective"], answer["config"]["width"], answer["config"]["context"]) == ("next-token", 24, 8)
    (tmp_path / "config.json").unlink()
    assert info(Info(str(tmp_path), json=True))["model"] is None
    shape = ("width=24", "depth=2", "heads=3", "mlp=96", "vocabulary=40", "context=8")
    told = Info(str(tmp_path), layout="transformers", model="gpt2", config=shape, json=True)
    assert (info(told)["model"], info(told)["config"]) == ("gpt2", answer["config"])
    assert "does not fit the model" in info(Info(str(tmp_path), layout="transformers", model="gpt2"))["reason"]


def test_weights_in_parts(tmp_path):
    folder = vit_of_transformers(tmp_path / "whole")
    network = ViTForImageClassification.from_pretrained(folder)
    network.save_pretrained(tmp_path / "parts", max_shard_size="10KB")
    whole, parts = (info(Info(str(tmp_path / name), json=True)) for name in ("whole", "parts"))
    assert len(parts["files"]) > 1
    assert sorted(row["name"] for row in parts["tensors"]) == sorted(row["name"] for row in whole["tensors"])
    index = info(Info(str(tmp_path / "parts" / "model.safetensors.index.json"), json=True))
    assert index["model"] == "vit"
    (tmp_path / "parts" / "config.json").unlink()
    assert info(Info(str(tmp_path / "parts"), json=True))["model"] is None


def test_damaged_or_dangerous_weights_are_refused(tmp_path, vitrail):
    (tmp_path / "cut.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match="is damaged, cut short or no file of weights"):
        info(Info(str(tmp_path / "cut.safetensors")))
    torch.save(torch.nn.Linear(2, 3), tmp_path / "module.pth")
    said = vitrail("info", tmp_path / "module.pth")
    assert said.status == 2
    assert "would run code when opened" in said.err


def test_an_archive_of_pictures_is_data_and_no_weights(paint, tmp_path):
    paint(tmp_path / "data", ["red", "blue"], count=4)
    with tarfile.open(tmp_path / "shard-000000.tar", "w") as archive:
        for name in ("red", "blue"):
            for number in range(4):
                archive.add(tmp_path / "data" / name / f"0{number}.png", f"{name}{number}.png")
                (tmp_path / "label.cls").write_text(name)
                archive.add(tmp_path / "label.cls", f"{name}{number}.cls")
    assert info(Info(str(tmp_path / "shard-000000.tar"), json=True))["kind"] == "data"
    torch.save({"state_dict": models.create("lenet-5").state_dict()}, tmp_path / "model_best.pth.tar")
    assert info(Info(str(tmp_path / "model_best.pth.tar"), json=True))["kind"] == "weights"
