import json
from typing import get_args

import numpy as np
import pytest
import torch
import tyro
from PIL import Image

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Label, Sample
from vitrail.data.source import Source
from vitrail.errors import DataError, SettingError
from vitrail.explain.kernels import KERNELS
from vitrail.explain.maps import METHODS, at_image_size
from vitrail.explain.seen import as_seen
from vitrail.recipes.explaining.explain import MEANT_FOR, check, explain
from vitrail.recipes.explaining.images import explanations
from vitrail.recipes.explaining.settings import Explain, KernelName, Map
from vitrail.tasks import Classification
from vitrail.weights.load import load
from vitrail.weights.save import save_description, save_weights

CLASSES = ("ash", "birch", "cedar")
VIT = {"width": 24, "depth": 3, "heads": 3, "mlp": 48, "image_size": (16, 24), "patch_size": 8}


def a_task(model="vit-nano", many_labels=False, channels=3, **changes):
    torch.manual_seed(0)
    backbone = models.create(model, channels=channels, **changes)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    half = (0.5,) * channels
    preprocess = Preprocess(tuple(backbone.config.image_size), channels=channels, mean=half, std=half)
    return Classification(model, backbone, CLASSES, preprocess, many_labels=many_labels)


def a_run(folder, *arguments, **options):
    task = a_task(*arguments, **options)
    save_description(task, folder)
    save_weights(task.state_dict(), folder)
    return folder


def a_photo(path, height=60, width=80, seed=0):
    """Noise that is smooth enough to survive resizing."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return str(path)


@pytest.fixture
def photos(tmp_path):
    return tuple(a_photo(tmp_path / f"photo{i}.png", seed=i) for i in range(2))


@torch.no_grad()
def block_by_block(task, photo):
    """The logits for a photo and the attention of each block, without hooks."""
    image, _ = task.preprocess.view(np.asarray(Image.open(photo)))
    x = task.preprocess.normalize(torch.from_numpy(image).permute(2, 0, 1)[None])
    tokens, _ = task.backbone.embed(x)
    layers = []
    for block in task.backbone.blocks:
        layers.append(block.attention.probabilities(block.norm1(tokens)))
        tokens = block(tokens)
    return task(x), layers


def heat_of(layers, method, pool):
    """The map on 2x3 patches out of whole matrices: of the last layer, or of all multiplied up."""
    through = torch.eye(layers[0].shape[-1])
    for layer in layers if method == "rollout" else []:
        through = (0.5 * layer.mean(dim=1) + 0.5 * torch.eye(layer.shape[-1])) @ through
    if method == "attention":
        through = layers[-1].mean(dim=1)
    row = through[0, 0] if pool == "class" else through[0, -6:].mean(dim=0)
    return at_image_size(row[-6:].view(1, 2, 3), torch.zeros(1, 3, 16, 24))[0].numpy()


@pytest.mark.parametrize("method", ["attention", "rollout"])
@pytest.mark.parametrize("layer", [None, 1, 3])
@pytest.mark.parametrize("pool", ["class", "mean"])
def test_answers_are_those_of_the_blocks(tmp_path, photos, pool, layer, method):
    run = a_run(tmp_path / "run", **VIT, pool=pool, registers=1)
    out = tmp_path / "sheet.png"
    answers = explain(Explain(run, photos, method, layer=layer, out=out, device="cpu", json=True))
    assert [answer["image"] for answer in answers] == list(photos)
    task = load(run)
    for photo, answer in zip(photos, answers, strict=True):
        logits, layers = block_by_block(task, photo)
        scores = logits.softmax(dim=-1)[0]
        assert answer["label"] == CLASSES[scores.argmax()]
        assert answer["score"] == pytest.approx(scores.max().item(), abs=1e-5)
        assert answer["class"] == answer["label"]
        np.testing.assert_allclose(answer["map"], heat_of(layers[:layer], method, pool), atol=1e-4)
    assert json.loads(json.dumps(answers)) == answers
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize("method", ["attention", "rollout"])
def test_attention_pooling_looks_with_its_probe_and_its_layers_with_their_patches(tmp_path, photos, method):
    run = a_run(tmp_path / "run", **VIT, pool="map")
    _, layers = block_by_block(load(run), photos[0])

    def heat(layer):
        out = tmp_path / "sheet.png"
        settings = Explain(run, photos[:1], method, layer=layer, out=out, device="cpu", json=True)
        return np.array(explain(settings)[0]["map"])

    np.testing.assert_allclose(heat(3), heat_of(layers, method, "mean"), atol=1e-4)
    assert np.abs(heat(None) - heat(3)).max() > 1e-3
    assert heat(None).max() == 1


def test_without_json_it_is_told_in_words_and_the_maps_are_left_out(tmp_path, photos, capsys):
    run = a_run(tmp_path / "run", **VIT)
    answers = explain(Explain(run, photos, out=tmp_path / "pictures" / "sheet.PNG", device="cpu"))
    assert [sorted(answer) for answer in answers] == [["class", "image", "label", "score"]] * 2
    written = capsys.readouterr()
    assert written.out == ""
    lines = [f"{a['image']}: {a['label']} {100 * a['score']:.1f}%" for a in answers]
    assert written.err.splitlines() == [*lines, f"the picture of them is {tmp_path / 'pictures' / 'sheet.PNG'}"]
    assert [file.name for file in (tmp_path / "pictures").iterdir()] == ["sheet.PNG"]


def test_all_images_are_explained_and_the_first_16_drawn(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for i in range(18):
        a_photo(tmp_path / "photos" / f"{i:02}.png", seed=i)
    run = a_run(tmp_path / "run", **VIT)
    answers = explain(Explain(run, (str(tmp_path / "photos"),), out=tmp_path / "sheet.png", device="cpu"))
    assert len(answers) == 18
    assert f"the picture of the first 16 is {tmp_path / 'sheet.png'}" in capsys.readouterr().err


def test_an_unreadable_image_is_named_and_left_out(tmp_path, photos, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    run = a_run(tmp_path / "run", **VIT)
    answers = explain(Explain(run, (photos[0], str(broken), photos[1]), out=tmp_path / "sheet.png", device="cpu"))
    assert [answer["image"] for answer in answers] == list(photos)
    assert f"left out: cannot read image {broken}" in capsys.readouterr().err


def test_no_readable_image_at_all(tmp_path):
    broken = tmp_path / "broken.png"
    broken.touch()
    run = a_run(tmp_path / "run", **VIT)
    with pytest.raises(DataError, match="none of the images can be read"):
        explain(Explain(run, (str(broken),), out=tmp_path / "sheet.png", device="cpu"))
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(
    ("model", "changes"),
    [("lenet-5", {"channels": 1}), ("resnet-18", {"width": 8, "image_size": (32, 32)})],
)
def test_a_model_without_attention(tmp_path, photos, model, changes):
    run = a_run(tmp_path / "run", model, **changes)
    with pytest.raises(SettingError, match=f"{model} has no attention to show; explain a run of a vision transformer"):
        explain(Explain(run, photos, out=tmp_path / "sheet.png", device="cpu"))
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_draws_a_map_of_the_pixels_that_the_model_sees(tmp_path, photos, method):
    run = a_run(tmp_path / "run", **VIT, pool="class")
    out = tmp_path / "sheet.png"
    (answer,) = explain(Explain(run, photos[:1], method, out=out, device="cpu", json=True))
    heat = np.array(answer["map"])
    assert heat.shape == (16, 24)
    assert heat.min() >= 0
    assert heat.max() in (0, 1)
    assert out.stat().st_size > 1000


@pytest.mark.parametrize("word", ["cedar", "2"])
def test_another_class_is_explained_by_its_name_or_number(tmp_path, photos, word):
    run = a_run(tmp_path / "run", **VIT, pool="class")
    fixed = {"out": tmp_path / "sheet.png", "device": "cpu", "json": True}
    (answer,) = explain(Explain(run, photos[:1], "occlusion", of_class=word, **fixed))
    (other,) = explain(Explain(run, photos[:1], "occlusion", of_class="ash", **fixed))
    assert (answer["class"], other["class"]) == ("cedar", "ash")
    assert answer["label"] == other["label"]
    assert answer["map"] != other["map"]


def test_one_head_is_not_the_mean_of_all(tmp_path, photos):
    run = a_run(tmp_path / "run", **VIT, pool="class")
    fixed = {"out": tmp_path / "sheet.png", "device": "cpu", "json": True}
    maps = [np.array(explain(Explain(run, photos[:1], head=head, **fixed))[0]["map"]) for head in (None, 1, 3)]
    assert all(np.abs(a - b).max() > 1e-3 for a, b in ((maps[0], maps[1]), (maps[1], maps[2])))
    with pytest.raises(SettingError, match="no head 4; this layer has heads 1 to 3"):
        explain(Explain(run, photos[:1], head=4, **fixed))


def test_one_sheet_of_all_methods(tmp_path, photos, capsys):
    run, out = a_run(tmp_path / "run", **VIT), tmp_path / "all.png"
    (answer,) = explain(Explain(run, photos[:1], all=True, out=out, device="cpu"))
    assert answer["picture"] == str(out)
    with Image.open(out) as picture:
        assert picture.width > 1000
    assert f"{answer['label']} {answer['score']:.1%}: {out}" in capsys.readouterr().err


def test_a_sheet_takes_a_layer_and_a_head_for_the_methods_that_have_them(tmp_path, photos):
    run, fixed = a_run(tmp_path / "run", **VIT), {"all": True, "device": "cpu"}
    for name, chosen in (("plain", {}), ("chosen", {"layer": 1, "head": 2})):
        explain(Explain(run, photos[:1], out=tmp_path / f"{name}.png", **fixed, **chosen))
    assert (tmp_path / "plain.png").read_bytes() != (tmp_path / "chosen.png").read_bytes()


def test_a_sheet_of_a_model_without_derivatives_by_pixels(tmp_path, photos):
    tiny = {"width": 24, "depth": 2, "heads": 3, "mlp": 48, "colours": 8, "image_size": (6, 4)}
    run = a_run(tmp_path / "run", "igpt-s", **tiny)
    (answer,) = explain(Explain(run, photos[:1], all=True, out=tmp_path / "all.png", device="cpu"))
    assert answer["picture"] == str(tmp_path / "all.png")


@pytest.mark.parametrize("model", ["lenet-5", "resnet-18"])
def test_a_sheet_of_a_model_without_attention_has_what_there_is(tmp_path, photos, model):
    changes = {"channels": 1} if model == "lenet-5" else {"width": 8, "image_size": (32, 32)}
    run = a_run(tmp_path / "run", model, **changes)
    answers = explain(Explain(run, photos, all=True, out=tmp_path / "sheets", device="cpu"))
    names = sorted(file.name for file in (tmp_path / "sheets").iterdir())
    assert names == ["001-photo0.png", "002-photo1.png"]
    assert [answer["picture"] for answer in answers] == [str(tmp_path / "sheets" / name) for name in names]


@pytest.mark.parametrize("method", ["distances", "positions", "filters", "parts"])
def test_what_a_model_has_learned_to_see(tmp_path, photos, method):
    run, out = a_run(tmp_path / "run", **VIT, position="learned"), tmp_path / "inside.png"
    shown = photos if method in ("distances", "parts") else ()
    answers = explain(Explain(run, shown, method, out=out, device="cpu", json=True))
    assert json.loads(json.dumps(answers)) == answers
    with Image.open(out) as picture:
        assert picture.format == "PNG"
    if method == "distances":
        assert [len(answer["pixels"]) for answer in answers] == [3, 3, 3]
        assert all(0 < head < 30 for answer in answers for head in answer["pixels"])
    if method == "positions":
        similarity = np.array(answers[0]["maps"])
        assert similarity.shape == (2, 3, 2, 3)
        np.testing.assert_allclose(similarity.reshape(6, 6).diagonal(), 1, atol=1e-4)


def test_the_nearest_images_of_some_data(tmp_path, paint):
    data = paint(tmp_path / "data", ["blue", "green", "red"])
    run, out = a_run(tmp_path / "run", **VIT), tmp_path / "near.png"
    known = sorted((data / "train" if (data / "train").is_dir() else data).rglob("*.png"))[0]
    (answer,) = explain(Explain(run, (str(known),), "nearest", data=str(data), out=out, device="cpu", json=True))
    values = [near["similarity"] for near in answer["nearest"]]
    assert values == sorted(values, reverse=True)
    assert {near["label"] for near in answer["nearest"]} <= {"blue", "green", "red"}
    assert out.exists()
    with pytest.raises(SettingError, match="--method nearest compares with the images of --data"):
        explain(Explain(run, (str(known),), "nearest", out=out))


def test_the_lecture_on_a_kernel_needs_no_model(tmp_path, capsys):
    rows = ("000000", "012210", "024420", "013310", "012310", "001100")
    pixels = np.array([[int(number) for number in row] for row in rows], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "lecture.png")
    out = tmp_path / "kernel.png"
    lesson = {"method": "filters", "kernel": "edge-2", "out": out}
    (answer,) = explain(Explain(str(tmp_path / "lecture.png"), **lesson, json=True))
    filtered = [[0, -1, -1, 0], [-2, -5, -5, -2], [2, -2, -1, 2], [-1, 0, -5, 0]]
    np.testing.assert_array_equal(np.array(answer["result"])[..., 0], filtered)
    (answer,) = explain(Explain(str(tmp_path / "lecture.png"), **lesson, pool=2, json=True))
    np.testing.assert_array_equal(np.array(answer["result"])[..., 0], [[0, 0], [2, 2]])
    explain(Explain(str(tmp_path / "lecture.png"), **lesson, padding=1))
    assert f"6x6 became 6x6: {out}" in capsys.readouterr().err


def test_names_on_the_command_line_are_those_of_the_library():
    assert get_args(Map) == tuple(METHODS)
    assert get_args(KernelName) == tuple(KERNELS)
    assert set(MEANT_FOR) <= set(Explain.__dataclass_fields__)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer": 2, "method": "gradcam"}, "--layer is for --method attention, rollout"),
        ({"of_class": "ash"}, "--class is for --method relevance, gradcam"),
        ({"head": 1, "method": "rollout"}, "--head is for --method attention"),
        ({"data": "photos"}, "--data is for --method nearest"),
        ({"kernel": "sharpen"}, "--kernel is for --method filters"),
        ({"pool": 2, "method": "filters"}, "--stride and --pool are of a --kernel"),
        ({"mask_ratio": 0.5}, "--mask-ratio is for --method reconstruct"),
        ({"options": ("a=b",), "all": True}, "--options is for --method reconstruct"),
    ],
)
def test_a_setting_of_another_method_is_refused(changes, words):
    with pytest.raises(SettingError, match=words):
        check(Explain("run", ("photo.jpg",), **changes))


def test_a_class_that_the_model_does_not_know(tmp_path, photos):
    run = a_run(tmp_path / "run", **VIT)
    with pytest.raises(SettingError, match="knows no class 'oak'; it knows: ash, birch, cedar, or a number below 3"):
        explain(Explain(run, photos, "gradcam", of_class="oak", out=tmp_path / "sheet.png", device="cpu"))


@pytest.mark.parametrize("layer", [-1, 0, 4])
def test_a_layer_that_is_not_there(tmp_path, photos, layer):
    run = a_run(tmp_path / "run", **VIT)
    with pytest.raises(SettingError, match=f"no layer {layer}; this vit-nano has layers 1 to 3"):
        explain(Explain(run, photos, layer=layer, out=tmp_path / "sheet.png", device="cpu"))


def test_a_picture_that_is_no_png(tmp_path, photos):
    with pytest.raises(SettingError, match=r"ends in \.png, not sheet\.jpg"):
        explain(Explain(tmp_path / "run", photos, out=tmp_path / "sheet.jpg"))


class Labelled(Source):
    """Grey 8x8 images of known classes, held in memory."""

    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def name(self, index):
        return f"image {index}"

    def label(self, index):
        return Label(self.labels[index])

    def encoded(self, index):
        return bytes([index])

    def sample(self, index):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 1), dtype=np.uint8)
        return Sample(pixels, self.name(index), self.label(index))


@pytest.mark.parametrize("many_labels", [False, True])
def test_panels_of_a_labelled_source_know_the_truth(many_labels):
    task = a_task(**VIT | {"image_size": (8, 8), "patch_size": 2}, channels=1, many_labels=many_labels).eval()
    source = Labelled([2, 0])
    named = list(explanations(task, source))
    assert [name for name, _ in named] == ["image 0", "image 1"]
    for index, (_, panel) in enumerate(named):
        assert panel.truth == CLASSES[source.labels[index]]
        assert panel.map.shape == (8, 8)
        np.testing.assert_array_equal(panel.image, source.sample(index).image)
        best = task.predict(source.sample(index).image, top=1)[0]
        assert (panel.label, panel.score) == (best.label, pytest.approx(best.score, abs=1e-5))


def test_a_cropped_image_is_shown_as_sharp_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    shown = as_seen(Preprocess((16, 16)), image)
    np.testing.assert_array_equal(shown, image[:, 16:80])


@pytest.mark.parametrize(("height", "width"), [(64, 16), (16, 64)])
def test_a_squashed_image_keeps_the_detail_of_its_longer_side(height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    shown = as_seen(Preprocess((16, 16), resize="squash", interpolation="nearest"), image)
    np.testing.assert_array_equal(shown, image.repeat(64 // height, axis=0).repeat(64 // width, axis=1))


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize(("height", "width"), [(48, 80), (300, 200), (1300, 900), (20, 24), (7, 5)])
def test_what_is_shown_is_what_the_model_sees(tmp_path, resize, height, width):
    photo = np.asarray(Image.open(a_photo(tmp_path / "photo.png", height, width)))
    preprocess = Preprocess((24, 32), resize=resize, crop_fraction=0.8)
    shown, (seen, _) = as_seen(preprocess, photo), preprocess.view(photo)
    assert shown.shape[0] / shown.shape[1] == pytest.approx(24 / 32, rel=0.02)
    assert 32 <= shown.shape[1] <= 512
    small = np.asarray(Image.fromarray(shown).resize((32, 24), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(small - seen)[1:-1, 1:-1].mean() < 4


def test_a_grey_model_is_shown_grey_images(tmp_path):
    photo = np.asarray(Image.open(a_photo(tmp_path / "photo.png")))
    shown = as_seen(Preprocess((60, 80), channels=1, mean=(0.5,), std=(0.5,)), photo)
    np.testing.assert_array_equal(shown[..., 0], np.asarray(Image.fromarray(photo).convert("L")))


def test_the_settings_are_flags(tmp_path):
    words = ["runs/a", "b.jpg", "c.jpg", "--method", "gradcam", "--class", "dress", "--out", "d.png"]
    settings = tyro.cli(Explain, args=words)
    assert (str(settings.run), settings.images, settings.method) == ("runs/a", ("b.jpg", "c.jpg"), "gradcam")
    assert (settings.of_class, str(settings.out), settings.json) == ("dress", "d.png", False)
