"""What a model has learned to see: how far heads look, its filters, positions and parts, and what it finds alike."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vitrail.console import say
from vitrail.data.dataset import open_dataset
from vitrail.data.files import Files
from vitrail.data.sample import Sample
from vitrail.errors import SettingError
from vitrail.explain.distance import attention_distances, draw_distances, plot_distances
from vitrail.explain.draw_neighbours import draw_neighbours
from vitrail.explain.first_layer import draw_first_layer, draw_tiles, first_layer
from vitrail.explain.merged import groups, painted
from vitrail.explain.nearest import Known, class_name, known_images, nearest, neighbours
from vitrail.explain.parts import draw_parts, parts
from vitrail.explain.positions import draw_positions, plot_positions, positions
from vitrail.explain.seen import as_seen
from vitrail.metrics import draw
from vitrail.objectives.mae import MAE
from vitrail.recipes.explaining.readable import readable
from vitrail.recipes.explaining.settings import Explain
from vitrail.recipes.given import find_images
from vitrail.recipes.opened import classification, merging, open_learner
from vitrail.tasks import Classification
from vitrail.train.precision import choose_device

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 16  # images that are looked at together
NEIGHBOURS = 6


def look_at_distances(settings: Explain) -> list[dict[str, Any]]:
    """How far each head looks, in pixels, over at most 16 images."""
    task = opened(settings)
    _, pixels = some_images(task, settings)
    found = attention_distances(task, pixels)
    finished(settings, draw_distances(found), "how far heads look")
    return [{"layer": name, "pixels": [round(head, 3) for head in heads]} for name, heads in found.items()]


def look_at_positions(settings: Explain) -> list[dict[str, Any]]:
    """How alike positions are."""
    task = opened(settings)
    kinds = positions(task.backbone)
    finished(settings, draw_positions(kinds, f"positions of {task.model}"), "its positions")
    numbers = settings.json
    return [
        {"what": kind.what, "unit": kind.unit} | ({"maps": kind.maps.round(4).tolist()} if numbers else {})
        for kind in kinds
    ]


def look_at_filters(settings: Explain) -> list[dict[str, Any]]:
    """What the first layer looks for."""
    task = opened(settings)
    layer = first_layer(task.backbone)
    finished(settings, draw_first_layer(layer, f"first layer of {task.model}"), "its filters")
    return [{"what": layer.caption} | ({"tiles": layer.tiles.round(4).tolist()} if settings.json else {})]


def look_at_parts(settings: Explain) -> list[dict[str, Any]]:
    """Features of places as colours, of at most 16 images together."""
    task = opened(settings)
    samples, pixels = some_images(task, settings)
    coloured = list(parts(task, pixels).numpy())
    seen, names = [as_seen(task.preprocess, sample.image) for sample in samples], [sample.name for sample in samples]
    finished(settings, draw_parts(seen, names, coloured), "the features")
    return [
        {"image": name} | ({"colours": colours.round(4).tolist()} if settings.json else {})
        for name, colours in zip(names, coloured, strict=True)
    ]


def look_at_merged(settings: Explain) -> list[dict[str, Any]]:
    """Which patches become one token with ``--merge R``, of at most 16 images."""
    if not settings.merge:
        raise SettingError("--method merged shows what becomes one with --merge R; give it, such as --merge 16.")
    task = opened(settings)
    merging(task, settings.merge)
    samples, pixels = some_images(task, settings)
    numbers, names = groups(task, pixels).numpy(), [sample.name for sample in samples]
    seen = list(pixels.permute(0, 2, 3, 1).cpu().numpy())
    pictures = [painted(image, of) for image, of in zip(seen, numbers, strict=True)]
    left = int(numbers[0].max()) + 1
    finished(settings, draw_parts(seen, names, pictures), f"{numbers[0].size} patches in {left} tokens")
    return [
        {"image": name, "tokens": int(of.max()) + 1} | ({"groups": of.tolist()} if settings.json else {})
        for name, of in zip(names, numbers, strict=True)
    ]


def look_at_nearest(settings: Explain) -> list[dict[str, Any]]:
    """The images of ``--data`` whose features are most like those of each image."""
    if settings.data is None:
        raise SettingError("--method nearest compares with the images of --data, such as the training data; name them.")
    task = opened(settings)
    samples, pixels = some_images(task, settings)
    known = compared(task, settings.data)
    found = nearest(task, pixels, known, NEIGHBOURS)
    shown = neighbours(known, found)
    images = [as_seen(task.preprocess, sample.image) for sample in samples]
    rows = [(image, sample.name, near) for image, sample, near in zip(images, samples, shown, strict=True)]
    finished(settings, draw_neighbours(rows), "the nearest images")
    return [
        {
            "image": sample.name,
            "nearest": [
                {"image": known.source.name(number), "label": class_name(known, number), "similarity": round(value, 4)}
                for number, value in zip(numbers, values, strict=True)
            ],
        }
        for sample, numbers, values in zip(samples, found.numbers.tolist(), found.similarities.tolist(), strict=True)
    ]


LOOKS_INSIDE: dict[str, Callable[[Explain], list[dict[str, Any]]]] = {
    "distances": look_at_distances,
    "positions": look_at_positions,
    "filters": look_at_filters,
    "parts": look_at_parts,
    "merged": look_at_merged,
    "nearest": look_at_nearest,
}


def looks_inside(task: Classification, pixels: Tensor) -> dict[str, Callable[[Axes], None]]:
    """What a sheet of all methods shows besides heat maps, of an image ``(1, C, H, W)`` uint8; what there is of it."""
    drawn: dict[str, Callable[[Axes], None]] = {}
    coloured = parts(task, pixels)[0].numpy()
    drawn["parts: features as colours"] = lambda axes: _picture(axes, coloured)
    try:
        distances = attention_distances(task, pixels)
        drawn["distances: how far heads look"] = lambda axes: _distances(axes, distances)
    except SettingError:  # no attention
        pass
    try:
        kind = positions(task.backbone)[0]
        drawn["positions: how alike they are"] = lambda axes: plot_positions(axes, kind)
    except SettingError:
        pass
    try:
        layer = first_layer(task.backbone)
        drawn["filters of the first layer"] = lambda axes: draw_tiles(axes, layer)
    except SettingError:
        pass
    return drawn


def _distances(axes: Axes, distances: dict[str, list[float]]) -> None:
    plot_distances(axes, distances)
    axes.set_ylabel("pixels", fontsize=8, labelpad=0)
    axes.set_xlabel("layer", fontsize=8, labelpad=0)
    axes.tick_params(labelsize=7)


def _picture(axes: Axes, coloured: Any) -> None:
    axes.imshow(coloured, interpolation="nearest")
    axes.set_axis_off()


def opened(settings: Explain) -> Classification:
    """The task of the settings, on its device. Raises :class:`SettingError` for what knows no classes."""
    learner = open_learner(settings.run, settings.stated)
    if isinstance(learner, MAE):
        raise SettingError(f"{settings.run} knows no classes to look for; see what it paints: --method reconstruct.")
    return classification(settings.run, learner).to(choose_device(settings.device)).eval()


def some_images(task: Classification, settings: Explain) -> tuple[list[Sample], Tensor]:
    """The first 16 readable images, and as the model sees them, ``(B, C, H, W)`` uint8 on its device.

    Raises :class:`DataError` if there is none.
    """
    files = Files(find_images(settings.images))
    samples = [sample for _, sample in itertools.islice(readable(files, "reading"), MOST)]
    if len(samples) < len(files):
        say(f"looking at {len(samples)} of {len(files)} images")
    views = [torch.from_numpy(task.preprocess.view(sample.image)[0]).permute(2, 0, 1) for sample in samples]
    return samples, torch.stack(views).to(next(task.parameters()).device)


def compared(task: Classification, data: str) -> Known:
    """The features of the images to compare with: those for training, where the data are parted."""
    dataset = open_dataset(data)
    return known_images(task, dataset.splits.get("train") or next(iter(dataset.splits.values())), dataset.classes)


def finished(settings: Explain, figure: Any, what: str) -> None:
    """Save the picture and say so."""
    draw.save(figure, settings.out)
    say(f"the picture of {what} is {settings.out}")
