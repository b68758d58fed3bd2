import json

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
from vitrail.explain.attention import attention_map, attention_rollout
from vitrail.recipes.explain import Explain, as_seen, explain, explanations
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


@pytest.mark.parametrize("method", ["attention", "rollout"])
@pytest.mark.parametrize("layer", [None, 1, 3])
@pytest.mark.parametrize("pool", ["class", "mean"])
def test_answers_are_those_of_the_blocks(tmp_path, photos, pool, layer, method):
    run = a_run(tmp_path / "run", **VIT, pool=pool, registers=1)
    settings = Explain(run, photos, method, layer, tmp_path / "sheet.png", device="cpu", json=True)
    answers = explain(settings)
    assert [answer["image"] for answer in answers] == list(photos)
    task = load(run)
    prefix = 1 + (pool == "class")
    for photo, answer in zip(photos, answers, strict=True):
        logits, layers = block_by_block(task, photo)
        scores = logits.softmax(dim=-1)[0]
        assert answer["label"] == CLASSES[scores.argmax()]
        assert answer["score"] == pytest.approx(scores.max().item(), abs=1e-5)
        layers = layers[:layer]
        if method == "attention":
            heat = attention_map(layers[-1], prefix, (2, 3), pool)
        else:
            heat = attention_rollout(layers, prefix, (2, 3), pool)
        np.testing.assert_allclose(answer["map"], heat[0].numpy(), atol=1e-5)
    assert json.loads(json.dumps(answers)) == answers
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize("method", ["attention", "rollout"])
def test_attention_pooling_looks_with_its_probe_and_its_layers_with_their_patches(tmp_path, photos, method):
    run = a_run(tmp_path / "run", **VIT, pool="map")
    _, layers = block_by_block(load(run), photos[0])

    def heat(layer):
        settings = Explain(run, photos[:1], method, layer, tmp_path / "sheet.png", device="cpu", json=True)
        return np.array(explain(settings)[0]["map"])

    if method == "attention":
        expected = attention_map(layers[-1], 0, (2, 3), "mean")
    else:
        expected = attention_rollout(layers, 0, (2, 3), "mean")
    np.testing.assert_allclose(heat(3), expected[0].numpy(), atol=1e-5)
    assert np.abs(heat(None) - heat(3)).max() > 1e-4
    assert heat(None).sum() == pytest.approx(1, abs=1e-5)


def test_without_json_it_is_told_in_words_and_the_maps_are_left_out(tmp_path, photos, capsys):
    run = a_run(tmp_path / "run", **VIT)
    answers = explain(Explain(run, photos, out=tmp_path / "pictures" / "sheet.PNG", device="cpu"))
    assert [sorted(answer) for answer in answers] == [["image", "label", "score"]] * 2
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
        assert panel.map.shape == (4, 4)
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
    words = ["runs/a", "b.jpg", "c.jpg", "--method", "rollout", "--layer", "2", "--out", "d.png"]
    settings = tyro.cli(Explain, args=words)
    assert (str(settings.run), settings.images, settings.method) == ("runs/a", ("b.jpg", "c.jpg"), "rollout")
    assert (settings.layer, str(settings.out), settings.json) == (2, "d.png", False)
