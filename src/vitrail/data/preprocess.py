"""From any image to the tensor that a model expects, and back: stored with the model, so that both always agree."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vitrail.data.geometry import RESAMPLING, Geometry, Interpolation, Size, from_pillow, move, to_pillow, warp
from vitrail.data.sample import Image, Sample
from vitrail.errors import CheckpointError, SettingError

RESIZES = ("squash", "crop", "pad")
LONGEST = 8  # an image this many times longer than the crop is not resized whole first, which could fill the memory


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes what the model sees.

    Attributes:
        size: height and width of the result, in pixels.
        resize: ``squash`` goes straight to the size; ``crop`` resizes until the result is the centre of the image;
            ``pad`` resizes until all of the image fits, and fills up evenly on both sides with the mean colour, which
            is zero to the model.
        crop_fraction: which part is kept of the shorter side with ``crop``, of both with ``squash``: 224 of 256 pixels
            are 0.875.
        centre: whether half a pixel beside the middle is rounded to even (timm) or down (Transformers).
        interpolation: ``nearest``, ``bilinear`` or ``bicubic``; the last two average when they shrink.
        mean, std: for each channel, with pixels in 0 ... 1.
        channels: 1 (grey) or 3 (RGB). A model of more is given tensors; images of the world do not have them.

    Raises :class:`SettingError` when these make no sense.
    """

    size: Size
    resize: Literal["squash", "crop", "pad"] = "crop"
    crop_fraction: float = 1.0
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    channels: int = 3
    centre: Literal["round", "floor"] = "round"

    def __post_init__(self) -> None:
        if len(self.size) != 2 or min(self.size) < 1:
            raise SettingError(f"the image size must be a height and a width of at least 1 pixel, not {self.size}.")
        if self.resize not in RESIZES:
            raise SettingError(f"resize must be one of {', '.join(RESIZES)}, not '{self.resize}'.")
        if not 0 < self.crop_fraction <= 1:
            raise SettingError(f"the crop fraction must be above 0 and at most 1, not {self.crop_fraction}.")
        if self.interpolation not in RESAMPLING:
            raise SettingError(f"interpolation must be one of {', '.join(RESAMPLING)}, not '{self.interpolation}'.")
        if self.centre not in ("round", "floor"):
            raise SettingError(f"the centre must be found by round or floor, not '{self.centre}'.")
        if self.channels < 1:
            raise SettingError(f"a model sees at least 1 channel, not {self.channels}.")
        finite = all(math.isfinite(value) for value in (*self.mean, *self.std))
        if not (len(self.mean) == len(self.std) == self.channels and finite and min(self.std) > 0):
            raise SettingError(f"mean and std need {self.channels} finite value(s) each, std above 0: {self}.")

    @property
    def fill(self) -> tuple[int, ...]:
        """The mean colour as uint8: what padding is made of."""
        return tuple(min(255, max(0, round(255 * value))) for value in self.mean)

    def apply(self, sample: Sample) -> tuple[Sample, Geometry]:
        """The sample with its image ``(h, w, channels)`` uint8 at ``size`` and its targets moved.

        The inverse of the geometry takes points, boxes and masks back to the original image.
        """
        image, geometry = self.view(sample.image)
        return move(sample, image, geometry), geometry

    def view(self, image: Image) -> tuple[Image, Geometry]:
        """The image alone, ``(H, W, 1 or 3)`` uint8 -> ``(h, w, channels)`` uint8, and how it got there.

        Equal to resizing the whole image with Pillow and then cropping or pasting it at whole pixels.
        """
        image = with_channels(image, self.channels)
        resized, corner = self._layout(image.shape[:2])
        geometry = self.geometry(image.shape[:2])
        if max(resized) > LONGEST * max(self.size):
            return warp(image, geometry, self.interpolation, self.fill), geometry
        canvas = to_pillow(np.full((*self.size, self.channels), self.fill, np.uint8))
        whole = to_pillow(image).resize((resized[1], resized[0]), RESAMPLING[self.interpolation])
        canvas.paste(whole, (corner[1], corner[0]))
        return from_pillow(canvas), geometry

    def geometry(self, source: Size) -> Geometry:
        """How an image of this height and width gets into the result."""
        return Geometry.place(source, *self._layout(source), self.size)

    def _layout(self, source: Size) -> tuple[Size, Size]:
        """The size of the whole image after resizing, and the row and column where its corner goes in the result."""
        h, w = self.size
        around = (math.floor(h / self.crop_fraction), math.floor(w / self.crop_fraction))
        if self.resize == "squash":
            resized = around
        elif self.resize == "crop":
            resized = _cover(source, around)
        else:
            resized = _fit(source, self.size)
        # with "floor", what is cut off above and on the left is rounded down, so the corner is rounded up
        rounded = round if self.centre == "round" else math.ceil
        return resized, (rounded((h - resized[0]) / 2), rounded((w - resized[1]) / 2))

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 ``(B, C, H, W)`` -> float32 with mean 0 and deviation 1, on the same device and memory format."""
        scale, shift = self._affine(images.device)
        return torch.addcmul(shift, images, scale)

    def denormalize(self, images: Tensor) -> Tensor:
        """The inverse of :meth:`normalize`: float ``(B, C, H, W)`` -> uint8, rounded and clipped."""
        scale, shift = self._affine(images.device)
        return ((images - shift) / scale).round().clamp(0, 255).to(torch.uint8)

    def _affine(self, device: torch.device) -> tuple[Tensor, Tensor]:
        mean, std = np.array(self.mean), np.array(self.std)
        scale, shift = 1 / (255 * std), -mean / std
        both = torch.tensor(np.stack([scale, shift])[..., None, None], dtype=torch.float32, device=device)
        return both[0], both[1]

    def to_json(self) -> dict[str, Any]:
        """All settings as a plain dictionary that JSON can hold."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Preprocess:
        """The opposite of :meth:`to_json`. Raises :class:`CheckpointError` unless exactly its keys are there."""
        names = {field.name for field in fields(Preprocess)}
        data = {"centre": "round", **data}  # which the first models did not say
        if wrong := names.symmetric_difference(data):
            raise CheckpointError(
                f"the stored preprocessing has unknown or missing settings: {', '.join(sorted(wrong))}."
            )
        try:
            settings: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in data.items()}
            return Preprocess(**settings)
        except (SettingError, TypeError) as error:
            raise CheckpointError(f"the stored preprocessing cannot be used: {error}") from error


def with_channels(image: Image, channels: int) -> Image:
    """The image ``(H, W, 1 or 3)`` uint8 with ``channels`` channels: grey is repeated, RGB becomes its luma.

    Luma is 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), as Pillow computes it. Raises :class:`SettingError` for other
    numbers of channels.
    """
    if channels not in (1, 3):
        raise SettingError(f"an image has 1 channel (grey) or 3 (RGB), the model sees {channels}; give it tensors.")
    if image.shape[2] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=2)
    return from_pillow(to_pillow(image).convert("L"))


def _cover(source: Size, target: Size) -> Size:
    """The smallest size with the proportions of ``source`` that contains ``target``.

    It is cut to whole pixels for a square, as torchvision does, and rounded for any other shape, as timm does.
    """
    (H, W), (h, w) = source, target
    if h != w:
        ratio = min(H / h, W / w)
        return round(H / ratio), round(W / ratio)
    return (h, h * W // H) if W >= H else (w * H // W, w)


def _fit(source: Size, target: Size) -> Size:
    """The largest size with the proportions of ``source`` that ``target`` contains; at least one pixel."""
    (H, W), (h, w) = source, target
    return (h, max(1, round(h * W / H))) if h * W <= w * H else (max(1, round(w * H / W)), w)
