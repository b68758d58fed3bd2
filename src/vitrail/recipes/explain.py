"""Explain: where in an image a model looks, or what it paints, as a picture and as numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tyro.conf import Positional

from vitrail.console import progress, say
from vitrail.data.files import Files
from vitrail.data.geometry import Geometry, warp
from vitrail.data.preprocess import Preprocess, with_channels
from vitrail.data.sample import Image, Label
from vitrail.data.source import Source
from vitrail.errors import DataError, SettingError, UnreadableImage
from vitrail.explain.attention import Pool, attention_layers, attention_map, attention_rollout, record_attention
from vitrail.explain.draw import Panel, draw_attention
from vitrail.metrics import draw
from vitrail.models.vit.vit import ViT
from vitrail.objectives.mae import MAE
from vitrail.recipes.opened import classification, open_learner
from vitrail.recipes.predict import find_images
from vitrail.recipes.reconstruct import reconstructions
from vitrail.recipes.settings import UNSTATED, Changes, Images, LeftOpen, Stated, check_numbers
from vitrail.tasks import Classification
from vitrail.train.precision import choose_device

Look = Literal["attention", "rollout"]
Method = Literal[Look, "reconstruct"]

MOST_PANELS = 16  # images that one sheet shows legibly
SHARPEST = 512  # pixels; no image on the sheet needs a longer side


@dataclass(frozen=True)
class Explain:
    """Show where in images a vision transformer looks, or what a masked autoencoder paints where it sees nothing.

    Examples:
      vitrail explain runs/clothing shirt.jpg
      vitrail explain runs/clothing photos/*.jpg --method rollout --out looks.png
      vitrail explain runs/clothing shirt.jpg --layer 1 --json
      vitrail explain runs/photos-mae photos/*.jpg --method reconstruct --mask-ratio 0.9
    """

    run: Positional[str]
    """A run's folder; or published weights: hf:ORG/NAME, timm:NAME, or a file (with --layout and --model)."""
    images: Positional[Images]
    """Files, folders, patterns; or - for an image, or a list of paths, on standard input. The first 16 are drawn."""
    method: Method = "attention"
    """attention: what one layer looks at; rollout: what arrives through all layers (Abnar and Zuidema 2020);
    reconstruct: hidden patches as a masked autoencoder paints them."""
    layer: LeftOpen[int] = None
    """The layer, counted from 1, where attention is read or rollout ends; left out: the last."""
    out: Path = Path("explanation.png")
    """The picture, a PNG file."""
    mask_ratio: LeftOpen[float] = None
    """reconstruct: the share of patches that is hidden; left out: that of training."""
    seed: int = 0
    """reconstruct: another seed hides other patches."""
    options: Changes = ()
    """reconstruct: what a file does not say of its pre-training, such as: normalise_patches=false."""
    device: str = "auto"
    """cpu, cuda, mps, or auto for the best there is."""
    stated: Stated = UNSTATED
    json: bool = False
    """Print one JSON document: a list of {"image", "label", "score", "map"}, a map being rows of shares that sum to 1;
    of reconstruct {"image", "error", "hidden"}, the mean squared error in normalised pixels, and which patches."""


def explain(settings: Explain) -> list[dict[str, Any]]:
    """Draw the picture; returns image, label and score of each readable image, and for JSON its map.

    Raises :class:`SettingError` for a model without attention, :class:`DataError` if no image can be read.
    """
    check_numbers(settings)
    if settings.out.suffix.lower() != ".png":
        raise SettingError(f"the picture is a PNG file: give --out a name that ends in .png, not {settings.out.name}.")
    if settings.method == "reconstruct":
        if settings.layer is not None:
            raise SettingError("--layer is one of attention; --method reconstruct has none.")
        return reconstructions(settings)
    if settings.mask_ratio is not None or settings.options:
        raise SettingError("--mask-ratio and --options are for --method reconstruct.")
    learner = open_learner(settings.run, settings.stated)
    if isinstance(learner, MAE):
        raise SettingError(f"{settings.run} knows no classes to look for; see what it paints: --method reconstruct.")
    task = classification(settings.run, learner)
    files = Files(find_images(settings.images))
    answers: list[dict[str, Any]] = []
    panels: list[Panel] = []
    task.to(choose_device(settings.device))
    for name, panel in explanations(task, files, settings.method, settings.layer):
        answers.append({"image": name, "label": panel.label, "score": panel.score})
        if settings.json:
            answers[-1]["map"] = [[round(share, 6) for share in row] for row in panel.map.tolist()]
        if len(panels) < MOST_PANELS:
            panels.append(panel)
    if not panels:
        raise DataError("none of the images can be read; give others.")
    draw.save(draw_attention(panels), settings.out)
    if not settings.json:
        for answer in answers:
            say(f"{answer['image']}: {answer['label']} {answer['score']:.1%}")
        say(f"the picture of {'them' if len(answers) == len(panels) else f'the first {len(panels)}'} is {settings.out}")
    return answers


def explanations(
    task: Classification, source: Source, method: Look = "attention", layer: int | None = None
) -> Iterator[tuple[str, Panel]]:
    """Name and `Panel` of each image of ``source``, on the task's device; an unreadable one is named and left out.

    Raises :class:`SettingError` for a model without attention, or without that layer.
    """
    layers, pool = vantage(task, layer)
    device = next(task.parameters()).device
    with progress("explaining", len(source), unit="image") as advance:
        for index in range(len(source)):
            try:
                sample = source.sample(index)
            except UnreadableImage as error:
                say(f"left out: {error}")
                continue
            image, _ = task.preprocess.view(sample.image)
            pixels = torch.from_numpy(image).permute(2, 0, 1)[None].to(device)
            logits, heat = look(task, pixels, method, layers, pool)
            best = task.decode(logits, top=1)[0][0]
            truth = task.classes[sample.label.index] if isinstance(sample.label, Label) else None
            shown = as_seen(task.preprocess, sample.image)
            yield sample.name, Panel(shown, heat[0].cpu().numpy(), best.label, best.score, truth)
            advance(index + 1)


def vantage(task: Classification, layer: int | None) -> tuple[list[str], Pool]:
    """The attention layers up to number ``layer``, and how the image's vector comes from the tokens behind them."""
    backbone = task.backbone
    if not isinstance(backbone, ViT):
        raise SettingError(
            f"{task.model} has no attention to show; explain a run of a vision transformer, such as --model vit-micro."
        )
    names = list(attention_layers(backbone))
    pool: Pool = "class" if backbone.config.pool == "class-mean" else backbone.config.pool
    if layer is None:
        return names, pool
    if not 1 <= layer <= backbone.config.depth:
        raise SettingError(f"there is no layer {layer}; this {task.model} has layers 1 to {backbone.config.depth}.")
    return names[:layer], "mean" if backbone.class_token is None else "class"


@torch.inference_mode()
def look(task: Classification, images: Tensor, method: Look, layers: list[str], pool: Pool) -> tuple[Tensor, Tensor]:
    """Logits ``(B, K)`` and maps ``(B, h, w)`` of uint8 images ``(B, C, H, W)``."""
    with record_attention(task.backbone, layers if method == "rollout" else layers[-1:]) as recorded:
        features = task.backbone(task.preprocess.normalize(images))
    rows, columns = features.grid
    probabilities = list(recorded.values())
    if method == "rollout":
        heat = attention_rollout(probabilities, features.prefix, (rows, columns), pool)
    else:
        heat = attention_map(probabilities[-1], features.prefix, (rows, columns), pool)
    return task.head(features), heat


def as_seen(preprocess: Preprocess, image: Image) -> Image:
    """What the model sees of an image, its cut and its colours, yet as sharp as the image is, for people."""
    _, geometry = preprocess.view(image)
    scale = min(geometry.matrix[0, 0], geometry.matrix[1, 1])  # of the axis that lost most
    sharper = max(1.0, min(1 / scale, SHARPEST / max(geometry.size)))
    size = (round(geometry.size[0] * sharper), round(geometry.size[1] * sharper))
    enlarged = geometry.then(Geometry.place(geometry.size, size, (0, 0), size))
    return warp(with_channels(image, preprocess.channels), enlarged, preprocess.interpolation, preprocess.fill)
