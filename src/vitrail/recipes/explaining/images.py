"""Heat maps of images: one sheet of one method for several images, or of all methods for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitrail.console import progress, say
from vitrail.data.files import Files
from vitrail.data.sample import Label, Sample
from vitrail.data.source import Source
from vitrail.errors import SettingError
from vitrail.explain.draw import Panel, draw_maps
from vitrail.explain.look import Look
from vitrail.explain.maps import METHODS, heat_maps, methods_of
from vitrail.explain.seen import as_seen
from vitrail.explain.sheet import Sheet, draw_sheet
from vitrail.metrics import draw
from vitrail.recipes.explaining.kernel import one_of_several
from vitrail.recipes.explaining.model import looks_inside, opened
from vitrail.recipes.explaining.readable import readable
from vitrail.recipes.explaining.settings import Explain
from vitrail.recipes.given import find_images
from vitrail.tasks import Classification

MOST_PANELS = 16  # images that one sheet shows legibly
TOP = 5  # classes on a sheet of all methods


@dataclass(frozen=True, eq=False)
class Seen:
    """An image of the world, what a model sees of it, and what it says.

    Attributes:
        sample: the image, its name, and its label, where it is known.
        pixels: ``(1, C, H, W)`` uint8 on the model's device.
        scores: ``(K,)``.
    """

    sample: Sample
    pixels: Tensor
    scores: Tensor


def one_sheet(settings: Explain) -> list[dict[str, Any]]:
    """Draw the maps of one method; returns what the model says of each readable image, and for JSON its map."""
    task = opened(settings)
    look, number = Look(settings.layer, settings.head), class_number(task, settings.of_class)
    answers: list[dict[str, Any]] = []
    panels: list[Panel] = []
    for seen in each_seen(task, Files(find_images(settings.images))):
        panel = explained(task, seen, settings.method, number, look)
        answers.append(as_answer(task, seen, number))
        if settings.json:
            answers[-1]["map"] = [[round(value, 4) for value in row] for row in panel.map.tolist()]
        if len(panels) < MOST_PANELS:
            panels.append(panel)
    draw.save(draw_maps(panels, settings.method), settings.out)
    if not settings.json:
        for answer in answers:
            say(in_words(answer))
        say(f"the picture of {'them' if len(answers) == len(panels) else f'the first {len(panels)}'} is {settings.out}")
    return answers


def sheets(settings: Explain) -> list[dict[str, Any]]:
    """Draw a sheet of all methods for each image; returns what the model says, and where each sheet is."""
    task = opened(settings)
    number = class_number(task, settings.of_class)
    files = Files(find_images(settings.images))
    if len(files) == 1 and settings.out.suffix.lower() != ".png":
        raise SettingError(f"the picture is a PNG file: give --out a name that ends in .png, not {settings.out.name}.")
    answers = []
    for index, seen in enumerate(each_seen(task, files)):
        picture = settings.out if len(files) == 1 else one_of_several(settings.out, index, seen.sample.name)
        sheet = all_of(task, seen, number, settings)
        draw.save(draw_sheet(sheet), picture)
        answers.append({**as_answer(task, seen, number), "picture": str(picture)})
        if not settings.json:
            say(f"{in_words(answers[-1])}: {picture}")
    return answers


def all_of(task: Classification, seen: Seen, number: int | None, settings: Explain) -> Sheet:
    """Everything that a sheet shows of an image; methods that the model does not have are left out."""
    able = methods_of(task.backbone)
    with progress("explaining", len(able) + 1, unit="method") as advance:
        maps = {}
        for done, (name, method) in enumerate(able.items(), start=1):
            look = Look(settings.layer if method.of_layer else None, settings.head if method.of_head else None)
            maps[name] = explained(task, seen, name, number, look).map
            advance(done)
        inside = looks_inside(task, seen.pixels)
    best = seen.scores.topk(min(TOP, len(task.classes)))
    top = [(task.classes[k], score) for k, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
    shown = as_seen(task.preprocess, seen.sample.image)
    return Sheet(Path(seen.sample.name).name, task.model, shown, top, explained_class(task, seen, number), maps, inside)


def explanations(
    task: Classification, source: Source, method: str = "attention", look: Look | None = None
) -> Iterator[tuple[str, Panel]]:
    """Name and `Panel` of each readable image of ``source``, for its most probable class, on the task's device.

    Raises :class:`SettingError` for a model without such a map.
    """
    for seen in each_seen(task, source):
        yield seen.sample.name, explained(task, seen, method, None, look or Look())


def each_seen(task: Classification, source: Source) -> Iterator[Seen]:
    """The images of ``source``; errors and unreadable images as of `readable`."""
    device = next(task.parameters()).device
    for _, sample in readable(source):
        image, _ = task.preprocess.view(sample.image)
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].to(device)
        with torch.inference_mode():
            scores = task.scores(task(pixels))[0].cpu()
        yield Seen(sample, pixels, scores)


def explained(task: Classification, seen: Seen, method: str, number: int | None, look: Look) -> Panel:
    """The map of one method for the class of a number, or for the most probable one."""
    best = int(seen.scores.argmax())
    chosen = best if number is None else number
    heat = heat_maps(task, seen.pixels, method, torch.tensor([chosen], device=seen.pixels.device), look)[0]
    truth = task.classes[seen.sample.label.index] if isinstance(seen.sample.label, Label) else None
    of_class = task.classes[chosen] if number is not None and METHODS[method].of_class else None
    shown = as_seen(task.preprocess, seen.sample.image)
    return Panel(shown, heat.cpu().numpy(), task.classes[best], float(seen.scores[best]), truth, of_class)


def explained_class(task: Classification, seen: Seen, number: int | None) -> str:
    """The class that maps of a class are of."""
    return task.classes[int(seen.scores.argmax()) if number is None else number]


def as_answer(task: Classification, seen: Seen, number: int | None) -> dict[str, Any]:
    """What the model says of an image, and the class that is explained."""
    best = int(seen.scores.argmax())
    score = round(float(seen.scores[best]), 6)
    explained = explained_class(task, seen, number)
    return {"image": seen.sample.name, "label": task.classes[best], "score": score, "class": explained}


def in_words(answer: dict[str, Any]) -> str:
    """One line for people."""
    asked = "" if answer["class"] == answer["label"] else f", explained for {answer['class']}"
    return f"{answer['image']}: {answer['label']} {answer['score']:.1%}{asked}"


def class_number(task: Classification, words: str | None) -> int | None:
    """The class of a name, or of a number from 0. Raises :class:`SettingError` for one that the model does not know."""
    if words is None:
        return None
    if (number := task.class_number(words)) is not None:
        return number
    some = ", ".join(task.classes[:8]) + (" …" if len(task.classes) > 8 else "")
    raise SettingError(f"the model knows no class '{words}'; it knows: {some}, or a number below {len(task.classes)}.")
