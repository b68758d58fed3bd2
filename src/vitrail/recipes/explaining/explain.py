"""Explain: where in images a model finds what it says, what it has learned to see, or what it paints; as a picture."""

from __future__ import annotations

from typing import Any

from vitrail.errors import SettingError
from vitrail.explain.maps import METHODS
from vitrail.recipes.explaining.images import one_sheet, sheets
from vitrail.recipes.explaining.kernel import kernel_lesson
from vitrail.recipes.explaining.model import LOOKS_INSIDE
from vitrail.recipes.explaining.reconstruct import reconstructions
from vitrail.recipes.explaining.settings import Explain
from vitrail.recipes.settings import check_numbers

# The methods that a setting is for; with --all it is for those of them that are on the sheet.
MEANT_FOR: dict[str, tuple[str, ...]] = {
    "of_class": tuple(name for name, method in METHODS.items() if method.of_class),
    "layer": tuple(name for name, method in METHODS.items() if method.of_layer),
    "head": tuple(name for name, method in METHODS.items() if method.of_head),
    "merge": ("merged",),
    "data": ("nearest",),
    "kernel": ("filters",),
    "padding": ("filters",),
    "stride": ("filters",),
    "pool": ("filters",),
    "mask_ratio": ("reconstruct",),
    "options": ("reconstruct",),
}
FLAGS = {"of_class": "class"}  # settings whose flag has another name


def explain(settings: Explain) -> list[dict[str, Any]]:
    """Draw the picture; returns what is in it: of heat maps label and score of each readable image, for JSON the map.

    Raises :class:`SettingError` for a model that has no such explanation, :class:`DataError` if no image can be read.
    """
    check(settings)
    if settings.method == "reconstruct":
        return reconstructions(settings)
    if settings.kernel is not None:
        return kernel_lesson(settings)
    if settings.all:
        return sheets(settings)
    if settings.method in METHODS:
        return one_sheet(settings)
    return LOOKS_INSIDE[settings.method](settings)


def check(settings: Explain) -> None:
    """Raises :class:`SettingError` for settings that make no sense, or not with each other."""
    check_numbers(settings)
    for name, methods in MEANT_FOR.items():
        meant = settings.method in methods or (settings.all and name in ("of_class", "layer", "head"))
        if getattr(settings, name) != getattr(Explain, name) and not meant:
            flag = FLAGS.get(name, name).replace("_", "-")
            raise SettingError(f"--{flag} is for --method {', '.join(methods)}; --method {settings.method} has none.")
    if settings.kernel is None and any(getattr(settings, name) != 1 for name in ("stride", "pool")):
        raise SettingError("--stride and --pool are of a --kernel; name one: --kernel edge-2.")
    if not settings.all and settings.out.suffix.lower() != ".png":
        raise SettingError(f"the picture is a PNG file: give --out a name that ends in .png, not {settings.out.name}.")
