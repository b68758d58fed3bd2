"""The first lesson on convolution: a kernel laid over a person's own pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vitrail.console import say
from vitrail.data.files import Files
from vitrail.explain.draw_kernels import draw_kernel
from vitrail.explain.kernels import KERNELS, Filtered, apply
from vitrail.metrics import draw
from vitrail.recipes.explaining.readable import readable
from vitrail.recipes.explaining.settings import Explain
from vitrail.recipes.given import find_images


def kernel_lesson(settings: Explain) -> list[dict[str, Any]]:
    """Filter each readable image and draw it; returns the sizes, and for JSON the numbers that came out.

    Of several images each has a picture, in a folder of the name of ``--out`` without its ending. Raises
    :class:`SettingError` for a kernel that does not fit, :class:`DataError` if no image can be read.
    """
    assert settings.kernel is not None
    files = Files(find_images((settings.run, *settings.images)))
    answers = []
    for index, sample in readable(files, "filtering"):
        filtered = apply(sample.image, KERNELS[settings.kernel], settings.padding, settings.stride, settings.pool)
        picture = settings.out if len(files) == 1 else one_of_several(settings.out, index, sample.name)
        draw.save(draw_kernel(filtered, settings.kernel), picture)
        answers.append(as_answer(sample.name, filtered, picture) | as_numbers(filtered, settings.json))
        if not settings.json:
            say(in_words(answers[-1]))
    return answers


def one_of_several(out: Path, index: int, name: str) -> Path:
    """The file of one of several pictures: in the folder ``out``, or in that of its name without the .png."""
    folder = out.with_suffix("") if out.suffix.lower() == ".png" else out
    return folder / f"{index + 1:03d}-{Path(name).stem}.png"


def as_answer(name: str, filtered: Filtered, picture: Path) -> dict[str, Any]:
    """Which image became how large, and where the picture of it is."""
    sizes = {"before": list(filtered.image.shape[:2]), "after": list(filtered.result.shape[:2])}
    return {"image": name, **sizes, "picture": str(picture)}


def as_numbers(filtered: Filtered, wanted: bool) -> dict[str, Any]:
    """The numbers of the result, rows of pixels, of colour images with the channels last."""
    return {"result": filtered.result.round(4).tolist()} if wanted else {}


def in_words(answer: dict[str, Any]) -> str:
    """One line for people."""
    before, after = ("x".join(map(str, answer[key])) for key in ("before", "after"))
    return f"{answer['image']}: {before} became {after}: {answer['picture']}"
