"""What a person opens: the page's files, the examples, the list of routes."""

from __future__ import annotations

import json
import re

import pytest
import torch

from vitrail.errors import SettingError
from vitrail.serve.describe import card, examples_in
from vitrail.serve.model import Model


@pytest.fixture
def album(tmp_path, photo):
    folder = tmp_path / "album"
    (folder / "more.png").mkdir(parents=True)
    for name in ("b é.png", "a.png", "notes.txt"):
        (folder / name).write_bytes(photo())
    (tmp_path / "secret.png").write_bytes(photo(1))
    return folder


def test_the_examples_that_are_listed_are_shown_and_nothing_else(start, album, photo):
    client = start(examples=examples_in(album))
    assert client.get("/model").json()["examples"] == ["a.png", "b é.png"]
    for name in ("a.png", "b%20%C3%A9.png"):
        response = client.get(f"/examples/{name}")
        assert (response.status_code, response.content) == (200, photo())
        assert response.headers["content-type"] == "image/png"
    for name in ("notes.txt", "more.png", "../secret.png", "..%2fsecret.png", "%2e%2e/secret.png", "", str(album)):
        assert client.get(f"/examples/{name}").status_code == 404


@pytest.mark.parametrize(("folder", "sentence"), [("nowhere", "is no folder"), ("empty", "has no images in it")])
def test_a_folder_without_examples(tmp_path, folder, sentence):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingError, match=sentence):
        examples_in(tmp_path / folder)


def test_every_part_of_the_page_is_served_with_its_kind_and_nothing_beside_it(client):
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    parts = set(re.findall(r'(?:href|src)="(page/[^"]+)"', page.text))
    assert parts
    kinds = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    for part in parts:
        response = client.get(f"/{part}")
        assert response.status_code == 200
        assert response.headers["content-type"].partition(";")[0] == kinds[part.rpartition(".")[2]]
    for path in ("/page/", "/page/nothing.js", "/page/..%2fapp.py", "/page/index.html"):
        assert client.get(path).status_code == 404


def test_the_list_of_routes_names_every_route_and_wants_nothing_of_another_host(client):
    page = client.get("/docs").text
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in page
    assert "http" not in page.replace("httpx", "")
    assert "<script" not in page


def test_the_model_is_described(client):
    said = client.get("/model").json()
    task = client.service.model.task
    assert said["name"] == "trees"
    assert (said["model"], said["task"], said["classes"]) == ("vit-nano", "classification", list(task.classes))
    assert (said["image_size"], said["channels"], said["many_labels"]) == ([16, 24], 3, False)
    assert said["parameters"] == sum(parameter.numel() for parameter in task.parameters())
    assert (said["precision"], said["device"], said["card"]) == ("float32", "cpu", {})
    assert said["layers"] == [{"name": f"blocks.{i}.attention", "heads": 3, "grid": [2, 3]} for i in range(2)]
    assert said["limits"] == {"bytes": 1_000_000, "pixels": 10_000, "images": 64}
    flags = {method["name"]: (method["of_class"], method["layers"], method["heads"]) for method in said["methods"]}
    assert flags["attention"] == (False, True, True)
    assert flags["gradcam"] == (True, False, False)
    assert all(method["what"] for method in said["methods"])


def test_a_model_without_attention_has_no_layers_and_fewer_methods(start, tiny, photo):
    client = start(Model(tiny("resnet-20", image_size=(16, 24)), torch.device("cpu"), torch.float32))
    said = client.get("/model").json()
    assert said["layers"] == []
    assert "attention" not in (names := [method["name"] for method in said["methods"]])
    assert "gradcam" in names
    response = client.post("/attention", photo())
    assert response.status_code == 422
    assert response.json()["error"].startswith("resnet-20 has no attention to show")


def test_the_card_tells_what_is_known_of_a_run_without_its_paths(tmp_path):
    run = {"settings": {"data": "/home/me/clothing", "seed": 3}, "choice": {"epochs": 40}}
    measured = {"top1": 0.75, "ece": 0.04, "split": "test", "images": 120, "confusion": []}
    (tmp_path / "run.json").write_text(json.dumps({**run, "data": {"images": {"train": 360}}}))
    (tmp_path / "evaluation.json").write_text(json.dumps(measured))
    assert card(str(tmp_path)) == {
        "trained_on": "clothing",
        "training_images": 360,
        "epochs": 40,
        "seed": 3,
        "measured_on": "test",
        "measured_images": 120,
        "accuracy": 0.75,
        "calibration_error": 0.04,
    }


def test_a_model_that_merges_tokens_says_so_and_is_explained_whole(client, start, tiny, photo):
    task = tiny()
    task.backbone.merge = 2
    merging = start(Model(task, torch.device("cpu"), torch.float32))
    assert merging.get("/model").json()["card"] == {"merge": "2 pairs of tokens a block"}
    assert merging.get("/model").json()["layers"] == client.get("/model").json()["layers"]
    scores = [service.post("/predict", photo()).json()["predictions"] for service in (client, merging)]
    assert scores[0] != scores[1]
    attention = [service.post("/attention", photo()).json()["attention"] for service in (client, merging)]
    assert attention[0] == attention[1]


def test_figures_with_merged_tokens_are_told_where_tokens_are_merged(tmp_path):
    for folder, accuracy in ((tmp_path, 0.75), (tmp_path / "merge-8", 0.74)):
        folder.mkdir(exist_ok=True)
        (folder / "evaluation.json").write_text(json.dumps({"top1": accuracy}))
    assert card(str(tmp_path)) == {"accuracy": 0.75}
    assert card(str(tmp_path), merge=8) == {"accuracy": 0.74}
    assert card(str(tmp_path), merge=4) == {}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"settings": null, "data": null}', "\xff"])
def test_a_damaged_record_leaves_the_card_empty(tmp_path, text):
    (tmp_path / "run.json").write_text(text, encoding="latin-1")
    assert card(str(tmp_path)) == {}
    assert card("timm:vit_small_patch16_224") == {}
