"""How images must be prepared for published weights: what other libraries' files say, as a `Preprocess`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from vitrail.data.geometry import Interpolation, Size
from vitrail.data.preprocess import Preprocess
from vitrail.errors import CheckpointError
from vitrail.models.layout import IMAGENET

TIMM_MODES: dict[str, Literal["crop", "squash", "pad"]] = {"center": "crop", "squash": "squash", "border": "pad"}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # of 0 … 1 makes -1 … 1
RESAMPLE: dict[Any, Interpolation] = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def from_timm(config: Mapping[str, Any], size: Size, channels: int) -> Preprocess:
    """What a ``config.json`` of timm (its ``pretrained_cfg``) says, for images of ``size``.

    Raises :class:`CheckpointError` for steps that are none of ours.
    """
    cfg = config["pretrained_cfg"]
    mode, fraction = cfg.get("crop_mode") or "center", cfg.get("crop_pct") or 0.875
    if mode not in TIMM_MODES or (mode == "border" and fraction != 1):
        raise CheckpointError(
            f"its preprocessing crops by '{mode}', a part of {fraction}, which Vitrail does not know."
        )
    return Preprocess(
        size=size,
        resize=TIMM_MODES[mode],
        crop_fraction=fraction,
        interpolation=_known(cfg.get("interpolation") or "bicubic"),
        mean=statistics(cfg.get("mean", IMAGENET["mean"]), channels),
        std=statistics(cfg.get("std", IMAGENET["std"]), channels),
        channels=channels,
    )


def from_transformers(config: Mapping[str, Any], size: Size, channels: int) -> Preprocess:
    """What a ``preprocessor_config.json`` of Transformers says; ``size`` is the model's, where the file is silent.

    Raises :class:`CheckpointError` for steps that are none of ours.
    """
    if not config.get("do_resize", True):
        raise CheckpointError("its preprocessing does not resize images, which Vitrail cannot do without.")
    resized, cropped = _size(config.get("size", {}), size), None
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    mode, fraction = "squash" if isinstance(resized, tuple) else "crop", 1.0
    if kind.startswith("ConvNext"):  # ResNet's, too: its rule for the size is its own
        cropped, mode, fraction = _convnext(config, size)
    elif config.get("do_center_crop") and config.get("crop_size", config.get("size")):
        window = _size(config.get("crop_size", config.get("size")), size)
        cropped = (window, window) if isinstance(window, int) else window
        if kind.startswith("Levit") and isinstance(resized, int):
            resized = int(256 / 224 * resized)
        sides = (resized, resized) if isinstance(resized, int) else resized
        fraction = kept(cropped[0], sides[0])
        around = math.floor(cropped[0] / fraction), math.floor(cropped[1] / fraction)
        if around != sides:
            raise CheckpointError(f"its preprocessing cuts {cropped} out of {sides} pixels, which Vitrail cannot do.")
    elif isinstance(resized, int):  # the shorter side, and nothing cut: only square pictures fit, so cut the middle
        cropped = (resized, resized)
    final = cropped or (resized if isinstance(resized, tuple) else (resized, resized))
    normalized = config.get("do_normalize", True)
    scale = 255 * config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 255.0
    usual = HALF if kind.startswith("ImageGPT") else IMAGENET  # where nothing is stated
    mean = config.get("image_mean") or usual["mean"] if normalized else (0.0, 0.0, 0.0)
    std = config.get("image_std") or usual["std"] if normalized else (1.0, 1.0, 1.0)
    return Preprocess(
        size=final,
        resize=mode,  # type: ignore[arg-type]
        crop_fraction=fraction,
        interpolation=_known(RESAMPLE.get(config.get("resample", 2), config.get("resample", 2))),
        mean=statistics([m / scale for m in mean], channels),
        std=statistics([s / scale for s in std], channels),
        channels=channels,
        centre="floor",
    )


def kept(cropped: int, resized: int) -> float:
    """The crop fraction for which `Preprocess` resizes to ``resized`` pixels before it cuts out ``cropped``."""
    fraction = min(1.0, cropped / resized)
    return fraction if math.floor(cropped / fraction) == max(resized, cropped) else cropped / (resized + 0.5)


def statistics(values: Any, channels: int) -> tuple[float, ...]:
    """A mean or deviation a channel: as given, or their average for every channel where the numbers differ."""
    given = tuple(float(value) for value in (values if isinstance(values, list | tuple) else [values]))
    return given if len(given) == channels else (sum(given) / len(given),) * channels


def _convnext(config: Mapping[str, Any], size: Size) -> tuple[Size, str, float]:
    """ConvNeXt's rule: below 384 pixels crop the middle out of a larger picture, from there on squash."""
    shortest = _size(config.get("size", {}), size)
    side = shortest if isinstance(shortest, int) else shortest[0]
    if side >= 384:
        return (side, side), "squash", 1.0
    return (side, side), "crop", kept(side, int(side / config.get("crop_pct", 224 / 256)))


def _size(value: Any, otherwise: Size) -> int | Size:
    """A size as Transformers writes it: the shorter side as one number, or height and width."""
    if isinstance(value, Mapping):
        if "shortest_edge" in value:
            return int(value["shortest_edge"])
        return (int(value["height"]), int(value["width"])) if "height" in value else otherwise
    if isinstance(value, list | tuple):
        return int(value[0]), int(value[-1])
    return (int(value), int(value)) if value else otherwise


def _known(interpolation: Any) -> Interpolation:
    if interpolation not in RESAMPLE.values():
        raise CheckpointError(f"its preprocessing resizes by '{interpolation}', which Vitrail does not know.")
    return interpolation
