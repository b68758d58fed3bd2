"""Every geometric change of an image is one affine matrix, and everything known about the image moves by it.

Coordinates are continuous: x to the right, y down, and the pixel in row i and column j covers [j, j+1) x [i, i+1). So a
resize is a pure scaling, and a point, a box or a mask can be taken to the model's frame and back without off-by-halves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from vitrail.data.sample import IGNORE, Boxes, Image, Masks, Sample, SemanticMap

Size = tuple[int, int]  # height, width
Interpolation = Literal["nearest", "bilinear", "bicubic"]

RESAMPLING: dict[Interpolation, PIL.Image.Resampling] = {
    "nearest": PIL.Image.Resampling.NEAREST,
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "bicubic": PIL.Image.Resampling.BICUBIC,
}

MIN_VISIBLE = 0.1  # an instance goes when less than this share of its area stays inside the frame


@dataclass(frozen=True, eq=False)
class Geometry:
    """An affine change of coordinates between two frames.

    Attributes:
        matrix: ``(3, 3)`` float64; takes ``(x, y, 1)`` of the source frame to the result frame.
        source: height and width of the frame it starts from.
        size: height and width of the frame it leads to.
    """

    matrix: NDArray[np.float64]
    source: Size
    size: Size

    @staticmethod
    def identity(size: Size) -> Geometry:
        """Nothing changes."""
        return Geometry(np.eye(3), size, size)

    @staticmethod
    def place(source: Size, resized: Size, corner: Size, size: Size) -> Geometry:
        """Resize the whole image to ``resized``, and put its top left corner at ``corner`` (row, column) of the frame.

        A negative corner crops, a positive one pads.
        """
        sy, sx = resized[0] / source[0], resized[1] / source[1]
        return Geometry(np.array([[sx, 0, corner[1]], [0, sy, corner[0]], [0, 0, 1]], np.float64), source, size)

    @staticmethod
    def crop_resize(source: Size, box: tuple[float, float, float, float], size: Size) -> Geometry:
        """Let the region ``box`` (x0, y0, x1, y1; it may stick out) fill the whole result."""
        x0, y0, x1, y1 = box
        sx, sy = size[1] / (x1 - x0), size[0] / (y1 - y0)
        return Geometry(np.array([[sx, 0, -x0 * sx], [0, sy, -y0 * sy], [0, 0, 1]], np.float64), source, size)

    @staticmethod
    def flip(size: Size) -> Geometry:
        """Mirror left and right."""
        return Geometry(np.array([[-1, 0, size[1]], [0, 1, 0], [0, 0, 1]], np.float64), size, size)

    @staticmethod
    def translate(size: Size, x: float, y: float) -> Geometry:
        """Move the content by ``x`` pixels to the right and ``y`` down."""
        return Geometry(np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64), size, size)

    @staticmethod
    def rotate(size: Size, degrees: float) -> Geometry:
        """Turn about the centre of the frame, clockwise as one sees it."""
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        return _about_centre(size, [[cos, -sin], [sin, cos]])

    @staticmethod
    def shear(size: Size, x: float, y: float) -> Geometry:
        """Slant about the centre: ``x`` pixels to the right for each one down, and ``y`` down for each to the right."""
        return _about_centre(size, [[1, x], [y, 1]])

    def then(self, other: Geometry) -> Geometry:
        """This change followed by ``other``. Raises ValueError when the frames between them differ."""
        if self.size != other.source:
            raise ValueError(f"a geometry that ends at {self.size} cannot go on with one that starts at {other.source}")
        return Geometry(other.matrix @ self.matrix, self.source, other.size)

    @property
    def inverse(self) -> Geometry:
        """The way back: from the result frame to the source frame."""
        return Geometry(np.linalg.inv(self.matrix).astype(np.float64), self.size, self.source)

    @property
    def mirrors(self) -> bool:
        """Whether left and right change sides."""
        return bool(np.linalg.det(self.matrix[:2, :2]) < 0)

    def apply(self, xy: NDArray) -> NDArray[np.float64]:
        """Move points ``(..., 2)`` given as x, y."""
        return np.asarray(xy, np.float64) @ self.matrix[:2, :2].T + self.matrix[:2, 2]


def _about_centre(size: Size, linear: list[list[float]]) -> Geometry:
    matrix, centre = np.eye(3), np.array([size[1] / 2, size[0] / 2])
    matrix[:2, :2] = linear
    matrix[:2, 2] = centre - matrix[:2, :2] @ centre
    return Geometry(matrix, size, size)


def move(sample: Sample, image: Image, geometry: Geometry) -> Sample:
    """The sample with ``image``, which ``geometry`` made of its own, and with all its targets moved along.

    Instances of which less than ``MIN_VISIBLE`` stays in the frame are dropped from boxes, masks and points alike, so
    that the n-th entry of each still tells of the same thing; boxes decide, or masks where there are no boxes.
    """
    boxes, masks, points, semantic = sample.boxes, sample.masks, sample.points, sample.semantic
    kept = _kept(boxes, masks, geometry)
    if boxes is not None:
        boxes = Boxes(move_boxes(boxes.xyxy[kept], geometry), boxes.classes[kept])
    if masks is not None:
        masks = Masks(move_masks(masks.masks[kept], geometry), masks.classes[kept])
    if points is not None:
        moved = move_points(points.xyv[kept], geometry)
        mirrored = bool(points.mirror) and geometry.mirrors
        points = replace(points, xyv=moved[:, list(points.mirror)] if mirrored else moved)
    if semantic is not None:
        semantic = SemanticMap(move_semantic(semantic.classes, geometry))
    return replace(sample, image=image, boxes=boxes, masks=masks, points=points, semantic=semantic)


def _kept(boxes: Boxes | None, masks: Masks | None, geometry: Geometry) -> NDArray[np.bool_] | slice:
    """Which instances stay: ``(n,)`` bool, or all of them where neither boxes nor masks tell."""
    if boxes is not None:
        return visible_share(boxes.xyxy, geometry) >= MIN_VISIBLE
    if masks is not None:
        before = masks.masks.sum(axis=(1, 2)) * abs(np.linalg.det(geometry.matrix))
        after = move_masks(masks.masks, geometry).sum(axis=(1, 2))
        return (after > 0) & (after >= MIN_VISIBLE * before)
    return slice(None)


def move_boxes(xyxy: NDArray, geometry: Geometry) -> NDArray[np.float32]:
    """Boxes ``(n, 4)`` in the result frame: the hull of the moved corners, clipped to the frame; none is dropped."""
    return _clip(_hull(xyxy, geometry), geometry.size).astype(np.float32)


def visible_share(xyxy: NDArray, geometry: Geometry) -> NDArray[np.float64]:
    """Which share of the area of each moved box lies inside the result frame: ``(n,)``, 0 for a box without area."""
    hull = _hull(xyxy, geometry)
    area = _area(hull)
    return np.divide(_area(_clip(hull, geometry.size)), area, out=np.zeros_like(area), where=area > 0)


def _hull(xyxy: NDArray, geometry: Geometry) -> NDArray[np.float64]:
    corners = geometry.apply(xyxy[:, [[0, 1], [2, 1], [2, 3], [0, 3]]])  # (n, 4, 2)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def _clip(xyxy: NDArray[np.float64], size: Size) -> NDArray[np.float64]:
    return np.clip(xyxy, 0, [size[1], size[0], size[1], size[0]])


def _area(xyxy: NDArray[np.float64]) -> NDArray[np.float64]:
    return (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])


def move_points(xyv: NDArray, geometry: Geometry) -> NDArray[np.float32]:
    """Key points ``(..., 3)`` as x, y, visibility in the result frame; outside it, visibility becomes 0."""
    xy = geometry.apply(xyv[..., :2])
    inside = ((xy >= 0) & (xy < [geometry.size[1], geometry.size[0]])).all(axis=-1, keepdims=True)
    return np.concatenate([xy, np.where(inside, xyv[..., 2:], 0)], axis=-1).astype(np.float32)


def move_masks(masks: NDArray[np.bool_], geometry: Geometry) -> NDArray[np.bool_]:
    """Masks ``(n, H, W)`` bool in the result frame, ``(n, h, w)``; what comes from outside the source is False."""
    rows, columns, inside = _sampled(geometry)
    return masks[:, rows, columns] & inside


def move_semantic(classes: NDArray[np.uint8], geometry: Geometry) -> NDArray[np.uint8]:
    """A semantic map ``(H, W)`` uint8 in the result frame, ``(h, w)``; what comes from outside the source is IGNORE."""
    rows, columns, inside = _sampled(geometry)
    return np.where(inside, classes[rows, columns], np.uint8(IGNORE))


def _sampled(geometry: Geometry) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
    """Row and column of the source pixel in which the centre of each result pixel falls, and whether there is one."""
    (h, w), (H, W) = geometry.size, geometry.source
    y, x = np.mgrid[:h, :w] + 0.5
    source = np.floor(geometry.inverse.apply(np.stack([x, y], axis=-1))).astype(np.intp)
    columns, rows = source[..., 0], source[..., 1]
    inside = (columns >= 0) & (columns < W) & (rows >= 0) & (rows < H)
    return rows.clip(0, H - 1), columns.clip(0, W - 1), inside


def resized(image: Image, size: Size, interpolation: Interpolation) -> Image:
    """All of an image ``(H, W, C)`` uint8 as a new one of ``size``, averaging what it shrinks; for training.

    PyTorch does it several times faster than Pillow where the processor has AVX2. The two differ by one grey level, or
    two where they enlarge; and bicubic interpolation beyond black and white is cut off by each after another axis.
    """
    if interpolation == "nearest":
        return from_pillow(to_pillow(image).resize((size[1], size[0]), RESAMPLING[interpolation]))
    if image.shape[:2] == size:
        return image.copy()
    pixels = torch.from_numpy(image.copy()).unsqueeze(0).permute(0, 3, 1, 2)  # channels-last in memory
    found = F.interpolate(pixels, size, mode=interpolation, antialias=True)
    return found[0].permute(1, 2, 0).contiguous().numpy()


def mirrored(image: Image) -> Image:
    """Left and right exchanged; ``image`` must not be read-only."""
    return torch.from_numpy(image).flip(1).numpy()  # NumPy takes ten times as long for pixels of three bytes


def warp(image: Image, geometry: Geometry, interpolation: Interpolation, fill: tuple[int, ...]) -> Image:
    """The image ``(H, W, C)`` uint8 in the result frame ``(h, w, C)``; ``fill`` (C values) where it does not reach.

    Scaling, cropping, padding and mirroring are done by Pillow's resize, which averages what it shrinks. Anything else
    samples without averaging, so it is meant for changes that keep the scale, such as a rotation.
    """
    (a, b, _), (c, d, _), _ = geometry.matrix
    if b or c or d < 0:
        return _transform(image, geometry, interpolation, fill)
    if a < 0:
        mirrored = warp(image, geometry.then(Geometry.flip(geometry.size)), interpolation, fill)
        return np.ascontiguousarray(mirrored[:, ::-1])
    return _resize(image, geometry, interpolation, fill)


def _resize(image: Image, geometry: Geometry, interpolation: Interpolation, fill: tuple[int, ...]) -> Image:
    (h, w), (H, W) = geometry.size, geometry.source
    rounding = 1e-6  # an edge this near to a whole pixel is meant to be there
    (left, top), (right, bottom) = geometry.apply(np.array([[0, 0], [W, H]]))
    x0, x1 = max(0, math.ceil(left - rounding)), min(w, math.floor(right + rounding))
    y0, y1 = max(0, math.ceil(top - rounding)), min(h, math.floor(bottom + rounding))
    canvas = PIL.Image.new("L" if len(fill) == 1 else "RGB", (w, h), fill[0] if len(fill) == 1 else fill)
    if x0 < x1 and y0 < y1:
        corners = geometry.inverse.apply(np.array([[x0, y0], [x1, y1]]))
        box = np.clip(corners, 0, [W, H]).ravel().tolist()
        canvas.paste(to_pillow(image).resize((x1 - x0, y1 - y0), RESAMPLING[interpolation], box=box), (x0, y0))
    return from_pillow(canvas)


def _transform(image: Image, geometry: Geometry, interpolation: Interpolation, fill: tuple[int, ...]) -> Image:
    h, w = geometry.size
    warped = to_pillow(image).transform(
        (w, h),
        PIL.Image.Transform.AFFINE,
        data=geometry.inverse.matrix[:2].ravel().tolist(),
        resample=RESAMPLING[interpolation],
        fillcolor=fill[0] if len(fill) == 1 else fill,
    )
    return from_pillow(warped)


def to_pillow(image: Image) -> PIL.Image.Image:
    """The array ``(H, W, 1)`` or ``(H, W, 3)`` uint8 as a Pillow image of mode L or RGB."""
    return PIL.Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def from_pillow(image: PIL.Image.Image) -> Image:
    """A Pillow image of mode L or RGB as an array ``(H, W, 1)`` or ``(H, W, 3)`` uint8."""
    pixels = np.array(image)  # a copy, for Pillow's own memory cannot be written to
    return pixels[..., None] if pixels.ndim == 2 else pixels
