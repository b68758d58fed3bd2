"""What the model computes for the service: batches of prepared images to answers, all in one thread."""

from __future__ import annotations

import base64
import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.sample import Image
from vitrail.errors import SettingError
from vitrail.explain.attention import attention_between
from vitrail.explain.look import Look
from vitrail.explain.maps import heat_maps
from vitrail.explain.record import attention_layers, record_attention
from vitrail.nn.inference import ready
from vitrail.recipes.predicting.alike import alike, fewest_alike, least
from vitrail.tasks import Classification
from vitrail.tasks.classifier import Classifier, Scored


class Heat(NamedTuple):
    """Where an image speaks for a class: the map ``(H, W)`` float32 in 0 … 1 at the model's size, class and score."""

    map: NDArray[np.float32]
    number: int
    label: str
    score: float


class Model:
    """A classifier that answers batches of images ``(h, w, C)`` uint8, as ``task.preprocess`` has prepared them.

    Args:
        task: in evaluation mode, on ``device``; kept as it is to be looked into, beside a copy that answers.
        device: where it computes.
        dtype: of products; explanations are always computed in float32.

    Attributes:
        layers: those with attention; known after `warm_up`.
        alike: whether an answer is the same to the last bit in every batch, as far as `warm_up` has seen.
    """

    def __init__(self, task: Classifier, device: torch.device, dtype: torch.dtype) -> None:
        self.task, self.device, self.dtype = task, device, dtype
        self._answering = ready(copy.deepcopy(task), dtype) if isinstance(task, Classification) else task
        self.layers: list[dict[str, Any]] = []
        self.alike = True
        self._fewest = least(device)

    def warm_up(self, batch_size: int) -> None:
        """Compute a batch, on a GPU a whole one so that its memory is there, and find how few images are enough."""
        preprocess, enough = self.task.preprocess, 2 * least(self.device)
        count = enough if self.device.type == "cpu" else max(batch_size, enough)
        shape = (count, *preprocess.size, preprocess.channels)
        images = self._stacked(list(np.random.default_rng(0).integers(0, 256, shape, np.uint8)))
        fewest = fewest_alike(self._answering, images, self.dtype)
        self.alike, self._fewest = fewest is not None, fewest or least(self.device)
        self.layers = layers_of(self.task, images)

    def predict(self, asked: Sequence[tuple[Image, int]]) -> list[list[Scored]]:
        """Images, each with how many classes are wanted of it, to these."""
        logits = alike(self._answering, self._stacked([image for image, _ in asked]), self.dtype, self._fewest)
        return [self.task.decode(row[None], top)[0] for row, (_, top) in zip(logits, asked, strict=True)]

    def embed(self, images: Sequence[Image]) -> list[list[float]]:
        """The vector of each image that the classifier reads."""
        self.looked_into()
        vectors: list[list[float]] = alike(self._pooled, self._stacked(images), self.dtype).tolist()
        return vectors

    def heat(self, image: Image, method: str, of: int | None, look: Look) -> Heat:
        """Where an image speaks for class number ``of``; None for the most probable. Raises what `heat_maps` does."""
        task, images = self.looked_into(), self._stacked([image])
        scores = task.scores(alike(self._answering, images, self.dtype, self._fewest))[0]
        number = int(scores.argmax()) if of is None else of
        heat = heat_maps(task, images, method, torch.tensor([number], device=self.device), look)[0]
        return Heat(heat.float().cpu().numpy(), number, task.classes[number], round(float(scores[number]), 6))

    def attention(self, image: Image, layer: int | None) -> dict[str, Any]:
        """Who looks where in an image, as JSON holds it; ``layer`` is counted from 1, None for the last.

        Raises :class:`SettingError` for a model without attention, or without that layer.
        """
        between = attention_between(self.looked_into(), self._stacked([image])[0], layer)
        attention, largest = _as_bytes(between.attention)
        row, largest_in_row = (None, None) if between.vector is None else _as_bytes(between.vector)
        return {
            "layer": layer or len(self.layers),
            "heads": len(between.attention),
            "grid": list(between.grid),
            "attention": attention,
            "largest": largest,
            "prefix_row": row,
            "prefix_largest": largest_in_row,
        }

    def looked_into(self) -> Classification:
        """The task with its insides. Raises :class:`SettingError` for an exported one."""
        if not isinstance(self.task, Classification):
            raise SettingError("an exported model answers, and cannot be looked into; serve the run it was made of.")
        return self.task

    def number(self, of: str) -> int:
        """The number of a class, given by name or as that number. Raises :class:`SettingError`."""
        if (number := self.task.class_number(of)) is not None:
            return number
        raise SettingError(f"there is no class called '{of}'; /model lists the classes.")

    def _pooled(self, images: Tensor) -> Tensor:
        assert isinstance(self._answering, Classification)
        return self._answering.features(images).pooled

    def _stacked(self, images: Sequence[Image]) -> Tensor:
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(self.device)


@torch.inference_mode()
def layers_of(task: Classifier, images: Tensor) -> list[dict[str, Any]]:
    """The layers with attention in the order in which they run, each with its heads and the grid of its places."""
    if not isinstance(task, Classification) or not (names := attention_layers(task.backbone)):
        return []
    with record_attention(task.backbone) as recorded:
        task.features(images[:1])
    return [{"name": name, "heads": recorded[name].heads, "grid": list(recorded[name].grid)} for name in names]


def _as_bytes(rows: Tensor) -> tuple[str, str]:
    """Rows ``(…, n)`` in base64: as uint8, 255 for the largest of each, and these as little-endian float32."""
    largest = rows.amax(dim=-1, keepdim=True)
    scaled = (255 * rows / largest.where(largest > 0, 1)).round().to(torch.uint8)
    return _base64(scaled.numpy()), _base64(largest.numpy().astype("<f4"))


def _base64(values: NDArray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
