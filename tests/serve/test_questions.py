"""The routes about images: their answers are those of the library and of `vitrail predict`."""

from __future__ import annotations

import asyncio
import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.data.preprocess import Preprocess
from vitrail.data.read import decode
from vitrail.explain.attention import attention_between
from vitrail.explain.look import Look
from vitrail.explain.maps import METHODS, heat_maps
from vitrail.explain.seen import as_seen
from vitrail.recipes.predicting.predict import predict
from vitrail.recipes.predicting.settings import Predict
from vitrail.serve.model import Model
from vitrail.tasks.classifier import Classifier


def seen_by(task, data):
    """The image as the model sees it, ``(1, C, h, w)``."""
    return torch.from_numpy(task.preprocess.view(decode(data, "photo"))[0]).permute(2, 0, 1)[None]


def opened(response):
    assert response.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(response.content)))


def in_base64(data):
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def album(photo, tmp_path_factory):
    """Images of all kinds, and those that are none: as files, which the command line reads, by name."""
    folder = tmp_path_factory.mktemp("album")
    kinds = [
        ("PNG", "RGB"),
        ("PNG", "L"),
        ("PNG", "RGBA"),
        ("JPEG", "RGB"),
        ("JPEG", "CMYK"),
        ("GIF", "P"),
        ("PNG", "1"),
    ]
    files = {f"{number}-{kind}-{mode}": photo(number, kind, mode) for number, (kind, mode) in enumerate(kinds)}
    files["cut short.jpg"] = photo(7, "JPEG")[:900]
    files["no image.png"] = b"no image"
    files["empty.png"] = b""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder, files


class TestPredict:
    def test_the_answers_are_those_of_the_command_to_the_last_digit(self, client, run, album):
        folder, files = album
        said = predict(Predict(str(run), tuple(str(folder / name) for name in files), device="cpu", precision="float32",
                               workers=0, json=True))  # fmt: skip
        expected = [{**answer, "image": name} for answer, name in zip(said, files, strict=True)]
        sent = [("image", (name, data)) for name, data in files.items()]
        response = client.post("/predict", files=sent)
        assert response.status_code == 200
        assert response.json()["predictions"] == expected
        assert response.json()["milliseconds"] > 0
        for name, answer in zip(files, expected, strict=True):
            alone = client.post("/predict", files=[("image", (name, files[name]))])
            if answer["error"]:
                assert alone.status_code == 400
                assert alone.json() == {"error": f"cannot read image {name}: {answer['error']}."}
            else:
                assert alone.json()["predictions"] == [answer]

    def test_base64_in_json(self, client, photo):
        images = [photo(seed) for seed in range(3)]
        expected = client.post("/predict", *images).json()["predictions"]
        several = client.post("/predict", json={"images": [in_base64(image) for image in images]}).json()
        assert several["predictions"] == [{**answer, "image": str(n)} for n, answer in enumerate(expected, 1)]
        for text in (in_base64(images[0]), f"data:image/png;base64,{in_base64(images[0])}", in_lines(images[0])):
            assert client.post("/predict", json={"image": text}).json()["predictions"] == several["predictions"][:1]

    @pytest.mark.parametrize(("top", "count"), [(1, 1), (3, 3), (6, 6), (10**30, 6)])
    def test_as_many_labels_as_are_asked_for(self, client, photo, top, count):
        (answer,) = client.post(f"/predict?top={top}", photo()).json()["predictions"]
        scores = [scored["score"] for scored in answer["predictions"]]
        assert len(scores) == count
        assert scores == sorted(scores, reverse=True)

    def test_one_bad_image_has_its_error_and_the_others_their_answers(self, client, photo):
        response = client.post("/predict", photo(0), b"rubbish", photo(1))
        first, bad, last = response.json()["predictions"]
        assert response.status_code == 200
        assert bad == {
            "image": "photo-1.png",
            "predictions": [],
            "error": "damaged, or none of JPEG, PNG, WEBP, BMP, TIFF, GIF",
        }
        assert first == client.post("/predict", photo(0)).json()["predictions"][0]
        assert last["predictions"] == client.post("/predict", photo(1)).json()["predictions"][0]["predictions"]

    def test_requests_at_once_are_computed_together_and_each_has_its_own_answer(self, start, tiny, photo):
        model = Counting(tiny(), torch.device("cpu"), torch.float32)
        client = start(model, batch_size=8, delay=0.2)
        images = [photo(seed) for seed in range(24)]
        expected = [client.service.model.task.predict(decode(image, "photo"), 6) for image in images]
        del model.batches[:]

        async def all_at_once(connection):
            sent = [connection.post("/predict?top=6", files=[("image", ("a.png", image))]) for image in images]
            return await asyncio.gather(*sent)

        for response, scored in zip(client.together(all_at_once), expected, strict=True):
            (answer,) = response.json()["predictions"]
            assert [(each["label"], each["score"]) for each in answer["predictions"]] == [
                (each.label, pytest.approx(each.score, abs=2e-6)) for each in scored
            ]
        assert sum(model.batches) == 24
        assert max(model.batches) == 8
        assert len(model.batches) <= 6

    def test_a_bad_image_in_anothers_batch_harms_nobody(self, start, tiny, photo):
        client = start(batch_size=8, delay=0.2)
        alone = client.post("/predict", photo(3)).json()["predictions"]

        async def at_once(connection):
            data = [photo(3), b"rubbish", photo(3)[:500], photo(3)]
            return await asyncio.gather(
                *(connection.post("/predict", files=[("image", ("photo-0.png", each))]) for each in data)
            )

        good, rubbish, cut, also_good = client.together(at_once)
        assert good.json()["predictions"] == also_good.json()["predictions"] == alone
        assert (rubbish.status_code, cut.status_code) == (400, 400)


class Counting(Model):
    """Notes how many images it was given at once."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.batches = []

    def predict(self, asked):
        self.batches.append(len(asked))
        return super().predict(asked)


def in_lines(data):
    return base64.encodebytes(data).decode()


class TestExplain:
    @pytest.mark.parametrize("method", METHODS)
    def test_the_map_is_that_of_the_library(self, client, photo, method):
        task, data = client.service.model.task, photo(4)
        said = client.post(f"/explain?method={method}&class=cedar&format=json", data).json()
        expected = heat_maps(task, seen_by(task, data), method, torch.tensor([2]))[0]
        np.testing.assert_allclose(said.pop("map"), expected.numpy(), atol=1e-4)
        scores = client.post("/predict?top=6", data).json()["predictions"][0]["predictions"]
        (score,) = [scored["score"] for scored in scores if scored["label"] == "cedar"]
        assert said == {"label": "cedar", "score": pytest.approx(score, abs=1e-6), "class": 2, "method": method}

    def test_without_a_class_it_is_that_of_the_most_probable_one(self, client, photo):
        best = client.post("/predict", photo(4)).json()["predictions"][0]["predictions"][0]
        said = client.post("/explain?method=gradcam&format=json", photo(4)).json()
        assert (said["label"], said["score"]) == (best["label"], pytest.approx(best["score"], abs=1e-6))
        by_number = client.post(f"/explain?method=gradcam&format=json&class={said['class']}", photo(4)).json()
        assert by_number == said

    def test_layer_and_head(self, client, photo):
        task = client.service.model.task
        said = client.post("/explain?method=attention&layer=1&head=3&format=json", photo(4)).json()
        expected = heat_maps(task, seen_by(task, photo(4)), "attention", look=Look(1, 3))[0]
        np.testing.assert_allclose(said["map"], expected.numpy(), atol=1e-4)

    def test_heat_is_the_map_as_a_clear_picture(self, client, photo):
        numbers = np.array(client.post("/explain?method=rollout&format=json", photo(4)).json()["map"])
        rgba = opened(client.post("/explain?method=rollout&format=heat", photo(4)))
        assert rgba.shape == (16, 24, 4)
        np.testing.assert_allclose(rgba[..., 3] / 255, numbers, atol=0.003)

    def test_png_is_the_map_over_what_the_model_sees(self, client, photo):
        data = photo(4, size=(130, 70))
        picture = opened(client.post("/explain?method=rollout", data))
        assert picture.shape == as_seen(client.service.model.task.preprocess, decode(data, "a")).shape

    @pytest.mark.parametrize(
        ("query", "sentence"),
        [
            ("method=nonsense", "there is no method called 'nonsense'"),
            ("method=gradcam&class=oak", "there is no class called 'oak'; /model lists the classes."),
            ("method=gradcam&class=6", "there is no class called '6'"),
            ("method=gradcam&class=-1", "there is no class called '-1'"),
            ("method=attention&layer=3", "there is no layer 3; this vit-nano has layers 1 to 2."),
            ("method=attention&head=4", "there is no head 4; this layer has heads 1 to 3."),
            ("layer=0", "layer: input should be greater than or equal to 1."),
            ("format=gif", "format: input should be 'png', 'heat' or 'json'."),
        ],
    )
    def test_what_is_not_there(self, client, photo, query, sentence):
        response = client.post(f"/explain?{query}", photo())
        assert response.status_code == 422
        assert response.json()["error"].startswith(sentence)

    def test_only_one_image(self, client, photo):
        response = client.post("/explain", photo(), photo())
        assert (response.status_code, response.json()) == (
            413,
            {"error": "at most 1 image can be sent in one request; send several requests."},
        )


def test_attention_is_that_of_the_library(client, photo):
    task = client.service.model.task
    for layer in (None, 1, 2):
        query = "" if layer is None else f"?layer={layer}"
        said = client.post(f"/attention{query}", photo(5)).json()
        expected = attention_between(task, seen_by(task, photo(5))[0], layer)
        assert (said["layer"], said["heads"], said["grid"]) == (layer or 2, 3, [2, 3])
        rows = np.frombuffer(base64.b64decode(said["attention"]), np.uint8).reshape(3, 6, 6)
        largest = np.frombuffer(base64.b64decode(said["largest"]), "<f4").reshape(3, 6, 1)
        assert (rows.max(axis=-1) == 255).all()
        np.testing.assert_allclose(rows / 255 * largest, expected.attention.numpy(), atol=0.005)
        if expected.vector is None:
            assert said["prefix_row"] is said["prefix_largest"] is None
        else:
            row = np.frombuffer(base64.b64decode(said["prefix_row"]), np.uint8).reshape(3, 6)
            most = np.frombuffer(base64.b64decode(said["prefix_largest"]), "<f4").reshape(3, 1)
            np.testing.assert_allclose(row / 255 * most, expected.vector.numpy(), atol=0.005)


def test_the_class_tokens_row_is_told_where_there_is_one(start, tiny, photo):
    shape = {"width": 24, "depth": 2, "heads": 3, "mlp": 48, "image_size": (16, 24), "patch_size": 8}
    for pool in ("class", "mean"):
        task = tiny("vit-nano", **shape, pool=pool)
        said = start(Model(task, torch.device("cpu"), torch.float32)).post("/attention", photo()).json()
        assert (said["prefix_row"] is None) == (pool == "mean")


def test_view_is_what_the_model_sees(client, photo):
    for mode in ("RGB", "L"):
        data = photo(6, mode=mode, size=(130, 70))
        response = client.post("/view", data)
        expected = as_seen(client.service.model.task.preprocess, decode(data, "a"))
        np.testing.assert_array_equal(opened(response), expected)
        assert response.headers["x-image-height"] == str(expected.shape[0])
        assert response.headers["x-image-width"] == str(expected.shape[1])


def test_embeddings_are_what_the_classifier_reads(client, photo):
    task = client.service.model.task
    said = client.post("/embed", photo(0), b"rubbish", photo(1)).json()
    assert said["width"] == task.backbone.width == 24
    assert said["errors"] == [None, "damaged, or none of JPEG, PNG, WEBP, BMP, TIFF, GIF", None]
    assert said["embeddings"][1] is None
    for row, seed in ((0, 0), (2, 1)):
        with torch.inference_mode():
            pooled = task.features(seen_by(task, photo(seed))).pooled[0]
        np.testing.assert_allclose(said["embeddings"][row], pooled.numpy(), atol=1e-4, rtol=1e-4)
    assert client.post("/embed", photo(0)).json()["embeddings"] == said["embeddings"][:1]


class TestBodies:
    @pytest.mark.parametrize("path", ["/predict", "/embed", "/view", "/explain", "/attention"])
    @pytest.mark.parametrize(
        ("status", "options"),
        [
            (415, {"content": b"\x89PNG", "headers": {"content-type": "image/png"}}),
            (415, {"content": b"x"}),
            (400, {"content": b"{", "headers": {"content-type": "application/json"}}),
            (400, {"content": b"\xff", "headers": {"content-type": "application/json"}}),
            (400, {"content": b"[" * 200_000, "headers": {"content-type": "application/json; charset=utf-8"}}),
            (422, {"json": []}),
            (422, {"json": {}}),
            (422, {"json": {"images": []}}),
            (422, {"json": {"image": 3}}),
            (422, {"json": {"images": "AAAA"}}),
            (400, {"json": {"image": "!!!"}}),
            (400, {"json": {"image": "AAA"}}),
            (400, {"json": {"image": "é"}}),
            (400, {"json": {"image": ""}}),
            (400, {"content": b"rubbish", "headers": {"content-type": "multipart/form-data"}}),
            (400, {"content": b"rubbish", "headers": {"content-type": "multipart/form-data; boundary=x"}}),
            (422, {"data": {"image": "text"}, "files": {"other": b"x"}}),
            (422, {"files": {"other": ("a.png", b"x")}}),
        ],
    )
    def test_other_bodies_are_refused_in_one_sentence(self, client, path, status, options):
        response = client.post(path, **options)
        assert (response.status_code, list(response.json())) == (status, ["error"])
        sentence = response.json()["error"]
        assert sentence.endswith(".")
        assert not any(word in sentence for word in ("Traceback", "site-packages", "/", "\\")) or "/json" in sentence

    @pytest.mark.parametrize(
        "disposition",
        [
            b'form-data; name="image"; filename="\\ud800.png"',
            b"form-data; name=image; filename*=raw_unicode_escape''%5Cud800",
            b'form-data; name="image"; filename="\xff\xfe\x00\x1b[31m"',
            b"form-data; name*=idna''xn--a; filename=a",
        ],
    )
    @pytest.mark.parametrize("charset", ["", "; charset=raw_unicode_escape", "; charset=idna", "; charset=hex"])
    def test_odd_names_of_files(self, client, photo, disposition, charset):
        parts = b"--x\r\nContent-Disposition: " + disposition + b"\r\n\r\n" + photo() + b"\r\n--x--\r\n"
        kind = {"content-type": f"multipart/form-data; boundary=x{charset}"}
        response = client.post("/predict", content=parts, headers=kind)
        assert response.status_code in (200, 400, 422)
        assert json.loads(response.content)


class Brightness(Classifier):
    """What an exported model is to the service: a classifier without insides."""

    model = "vit-nano"
    classes = ("dark", "bright")
    many_labels = False
    temperature = 1.0
    preprocess = Preprocess((16, 24))

    def forward(self, images):
        light = images.flatten(1).float().mean(dim=1) / 255
        return torch.stack([-light, light], dim=1)


def test_an_exported_model_predicts_and_is_not_looked_into(start, photo):
    client = start(Model(Brightness(), torch.device("cpu"), torch.float32))
    (answer,) = client.post("/predict", photo()).json()["predictions"]
    assert [scored["label"] for scored in answer["predictions"]] == ["bright", "dark"]
    assert client.post("/view", photo()).status_code == 200
    for path in ("/embed", "/explain", "/attention"):
        response = client.post(path, photo())
        assert response.status_code == 422
        assert "cannot be looked into" in response.json()["error"]
    said = client.get("/model").json()
    assert (said["methods"], said["layers"], said["parameters"]) == ([], [], None)
    assert said["precision"] == "as exported"
