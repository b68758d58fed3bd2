"""Small scenes of coloured shapes, drawn on demand, of which the truth is known for every task.

One to three shapes of different colours lie on a textured background, and may hide parts of each other. The one with
the largest visible area gives the label; the background, the colours and the number of shapes do not depend on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ImageDraw

from vitrail.data.rng import generator
from vitrail.data.sample import Boxes, Caption, Image, Label, Masks, Points, Sample, SemanticMap
from vitrail.data.source import Dataset, Source
from vitrail.errors import DataError, SettingError

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 48, 49),
    "orange": (240, 134, 30),
    "yellow": (250, 212, 58),
    "green": (58, 166, 76),
    "blue": (48, 104, 214),
    "purple": (134, 66, 176),
    "pink": (240, 132, 180),
}
BACKGROUNDS = ("plain", "striped", "checkered", "shaded", "cloudy")
# The side of a square of the same area, in sides of the frame: so all shapes called large are equally large.
SIZES: dict[str, tuple[float, float]] = {"large": (0.42, 0.50), "medium": (0.28, 0.33), "small": (0.18, 0.22)}
TILT = 30.0  # degrees to either side; few enough that the top of a square is still its top

POINTS = ("centre", "top", "right", "bottom", "left")  # of the upright shape, then turned with it
MIRRORED = (0, 1, 4, 3, 2)  # right and left change their names
REACH = 0.8  # how far from the centre to the outline the four lie, so that each is a place on the shape itself

FINE = 4  # edges are drawn this many times finer and then averaged
MIN_SEEN = 0.6  # the share of each shape that neither another one nor the frame may hide
MIN_LEAD = 1.5  # the largest visible area over the second largest


def _around(radii: list[float], count: int) -> NDArray[np.float64]:
    """``count`` points clockwise from the top, the radii taken in turns."""
    angle = np.arange(count) * math.tau / count
    return np.stack([np.sin(angle), -np.cos(angle)], axis=1) * np.resize(radii, (count, 1))


def _heart(count: int) -> NDArray[np.float64]:
    t = np.arange(count) * math.tau / count
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y], axis=1)


def _cross() -> NDArray[np.float64]:
    arm = np.array([[-1, -1], [-1, -3], [1, -3]])
    turn = np.array([[0, 1], [-1, 0]])  # a quarter, clockwise
    return np.concatenate([arm, arm @ turn, arm @ turn @ turn, arm @ turn.T]).astype(np.float64)


def _unit(outline: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same polygon with its centre of area at 0 and an area of 1."""
    following = np.roll(outline, -1, axis=0)
    cross = outline[:, 0] * following[:, 1] - following[:, 0] * outline[:, 1]
    centre = ((outline + following) * cross[:, None]).sum(axis=0) / (3 * cross.sum())
    return (outline - centre) / math.sqrt(cross.sum() / 2)


# Upright outlines as polygons ``(n, 2)`` of x, y, each the mirror image of itself.
SHAPES: dict[str, NDArray[np.float64]] = {
    "circle": _unit(_around([1.0], 48)),
    "cross": _unit(_cross()),
    "heart": _unit(_heart(48)),
    "square": _unit(np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])),
    "star": _unit(_around([1.0, 0.48], 10)),
    "triangle": _unit(_around([1.0], 3)),
}
CLASSES = tuple(SHAPES)


@dataclass(frozen=True)
class Thing:
    """One shape of a scene: its class, names of its size and colour, and in pixels and degrees where it lies."""

    shape: int
    size: str
    colour: str
    side: float
    angle: float
    centre: tuple[float, float]

    def place(self, xy: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points of the unit shape ``(n, 2)`` -> pixels of the frame."""
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        return xy @ np.array([[cos, sin], [-sin, cos]]) * self.side + self.centre

    @property
    def words(self) -> str:
        return f"a {self.size} {self.colour} {CLASSES[self.shape]}"


@dataclass(frozen=True)
class Shapes(Source):
    """Scenes ``first`` to ``first + count - 1`` of those that ``seed`` stands for, ``size`` x ``size`` pixels.

    Every sample has a label, boxes and masks of what is visible of each thing (the largest first), a semantic map
    (0 is the background, k + 1 is class k), the key points :data:`POINTS` of each thing, and captions.
    Raises :class:`SettingError` for frames too small to tell shapes apart.
    """

    count: int
    seed: int = 0
    size: int = 64
    first: int = 0

    def __post_init__(self) -> None:
        if self.size < 32:
            raise SettingError(f"shapes need at least 32 pixels a side to be told apart, not {self.size}.")

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"shapes#{self._number(index)}"

    def label(self, index: int) -> Label:
        return Label(_draw_label(self._rng(index)))

    def encoded(self, index: int) -> bytes:
        return self.sample(index).image.tobytes()

    def sample(self, index: int) -> Sample:
        rng = self._rng(index)
        label = _draw_label(rng)
        background = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
        things, order, owner = _draw_things(label, self.size, rng)
        masks = owner == np.arange(1, len(things) + 1)[:, None, None]
        classes = np.array([thing.shape for thing in things], np.int64)
        return Sample(
            image=_paint(_background(background, self.size, rng), things, order),
            name=self.name(index),
            label=Label(label),
            boxes=Boxes(np.stack([_tight_box(mask) for mask in masks]), classes),
            masks=Masks(masks, classes),
            semantic=SemanticMap(np.array([0, *(classes + 1)], np.uint8)[owner]),
            points=Points(np.stack([_points(*both) for both in zip(things, masks, strict=True)]), MIRRORED),
            caption=Caption(_captions(things, background)),
        )

    def _number(self, index: int) -> int:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.first + index

    def _rng(self, index: int) -> np.random.Generator:
        return generator(self.seed, "scene", self._number(index))


def open_shapes(spec: str) -> Dataset:
    """``shapes`` (4,000 scenes for training) or ``shapes:N``; an eighth of that, at least 10, to validate and to test.

    The scenes of validation and test stay the same for all N. Raises :class:`DataError` for another spec.
    """
    word, _, number = ("shapes:4000" if spec == "shapes" else spec).partition(":")
    if word != "shapes" or not number.isdecimal() or not 0 < int(number) <= 10**9:
        raise DataError(f"'{spec}' is not a number of scenes; write 'shapes' or, for instance, 'shapes:1000'.")
    train, rest = int(number), max(10, int(number) // 8)
    return Dataset(
        name=spec,
        format="shapes",
        classes=CLASSES,
        splits={
            "train": Shapes(train),
            "validation": Shapes(rest, first=10**9),
            "test": Shapes(rest, first=2 * 10**9),
        },
        notes=("scenes of coloured shapes, drawn on demand and the same every time.",),
    )


def _draw_label(rng: np.random.Generator) -> int:
    """The first thing drawn of a scene, so that the label is known without painting it."""
    return int(rng.integers(len(CLASSES)))


def _draw_things(
    label: int, size: int, rng: np.random.Generator
) -> tuple[list[Thing], NDArray[np.intp], NDArray[np.intp]]:
    """Things that can all be seen, the largest (of class ``label``) first, in which order to paint them, and the owner
    of each pixel ``(size, size)``: 0 for the background, n for the n-th thing.
    """
    count = int(rng.integers(1, 4))
    shapes = [label, *rng.integers(len(CLASSES), size=count - 1).tolist()]
    colours = rng.permutation(list(COLOURS))[:count].tolist()
    while True:  # only places, sizes and order are drawn anew, so that every label and number stays equally likely
        sizes = _draw_sizes(count, rng)
        things = [_draw_thing(*of, size, rng) for of in zip(shapes, sizes, colours, strict=True)]
        order = rng.permutation(count)
        owner = _owner(things, order, size)
        area = np.bincount(owner.ravel(), minlength=count + 1)[1:]
        seen = area / [thing.side**2 for thing in things]
        if seen.min() >= MIN_SEEN and (count == 1 or area[0] >= MIN_LEAD * area[1:].max()):
            return things, order, owner


def _draw_sizes(count: int, rng: np.random.Generator) -> list[str]:
    """Names of sizes, the first larger than all others."""
    names = list(SIZES)
    largest = rng.integers(len(names) - 1 if count > 1 else len(names))
    return [names[largest], *(names[rng.integers(largest + 1, len(names))] for _ in range(count - 1))]


def _draw_thing(shape: int, size: str, colour: str, frame: int, rng: np.random.Generator) -> Thing:
    side = rng.uniform(*SIZES[size]) * frame
    margin = 0.55 * side  # the tips of a star may stick out
    x, y = rng.uniform(margin, frame - margin, 2)
    return Thing(shape, size, colour, side, rng.uniform(-TILT, TILT), (x, y))


def _owner(things: list[Thing], order: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """Which thing (1, 2, ...) or else background (0) covers most of each pixel: ``(size, size)``."""
    canvas = PIL.Image.new("L", (size * FINE, size * FINE))
    draw = ImageDraw.Draw(canvas)
    for n in order:
        _polygon(draw, things[n], int(n) + 1, int(n) + 1)
    fine = np.asarray(canvas)
    cover = [
        np.asarray(PIL.Image.fromarray((fine == n).astype(np.uint8) * 255).reduce(FINE)) for n in range(len(things) + 1)
    ]
    return np.argmax(cover, axis=0)


def _paint(background: Image, things: list[Thing], order: NDArray[np.intp]) -> Image:
    size = len(background)
    canvas = PIL.Image.fromarray(background).resize((size * FINE, size * FINE), PIL.Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(canvas)
    for n in order:
        red, green, blue = COLOURS[things[n].colour]
        _polygon(draw, things[n], (red, green, blue), (red // 3, green // 3, blue // 3))
    return np.array(canvas.reduce(FINE))


def _polygon(draw: ImageDraw.ImageDraw, thing: Thing, fill: int | tuple[int, ...], edge: int | tuple[int, ...]) -> None:
    """The shape with a dark line around it, as a pane of stained glass has its lead."""
    outline = [tuple(xy) for xy in (thing.place(SHAPES[CLASSES[thing.shape]]) * FINE).tolist()]
    draw.polygon(outline, fill=fill)
    draw.line([*outline, outline[0], outline[1]], fill=edge, width=FINE, joint="curve")


def _background(kind: str, size: int, rng: np.random.Generator) -> Image:
    """A muted texture between two colours, with some grain: ``(size, size, 3)`` uint8."""
    base = rng.uniform(70, 210) + rng.uniform(-22, 22, 3)
    other = base + rng.choice([-1, 1]) * rng.uniform(25, 45) + rng.uniform(-10, 10, 3)
    mixture = _texture(kind, size, rng)[..., None]
    grain = rng.normal(0, 5, (size, size, 1))
    return (base * (1 - mixture) + other * mixture + grain).clip(0, 255).astype(np.uint8)


def _texture(kind: str, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """How much of the second colour each pixel has: ``(size, size)`` in 0 ... 1."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    angle = rng.uniform(0, math.tau)
    along, across = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
    waves = rng.uniform(3, 7) * math.tau
    if kind == "striped":
        return _square_wave(np.sin(along * waves))
    if kind == "checkered":
        return _square_wave(np.sin(along * waves) * np.sin(across * waves))
    if kind == "shaded":
        return along / 1.42 + 0.5  # the diagonal is sqrt(2) long
    if kind == "cloudy":
        coarse = PIL.Image.fromarray(rng.random((6, 6), np.float32))
        return np.asarray(coarse.resize((size, size), PIL.Image.Resampling.BICUBIC)).clip(0, 1).astype(np.float64)
    return np.zeros((size, size))


def _square_wave(wave: NDArray[np.float64]) -> NDArray[np.float64]:
    return (wave * 4).clip(-0.5, 0.5) + 0.5  # steep, but not jagged


def _tight_box(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def _points(thing: Thing, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Key points ``(5, 3)``; visible where the pixel they fall in belongs to the thing."""
    xy = thing.place(_landmarks(SHAPES[CLASSES[thing.shape]]))
    column, row = np.floor(xy).astype(int).T
    inside = (column >= 0) & (column < mask.shape[1]) & (row >= 0) & (row < mask.shape[0])
    visible = inside & mask[row.clip(0, mask.shape[0] - 1), column.clip(0, mask.shape[1] - 1)]
    return np.column_stack([xy, visible]).astype(np.float32)


def _landmarks(outline: NDArray[np.float64]) -> NDArray[np.float64]:
    """The key points of an upright unit shape: ``(5, 2)``."""
    directions = np.array([[0, -1], [1, 0], [0, 1], [-1, 0]])
    return np.concatenate([np.zeros((1, 2)), [REACH * _radius(outline, way) * way for way in directions]])


def _radius(outline: NDArray[np.float64], way: NDArray[np.int64]) -> float:
    """How far from the centre the outline is in the direction ``way`` (a unit vector)."""
    ahead, aside = outline @ way, outline @ np.array([-way[1], way[0]])
    next_ahead, next_aside = np.roll(ahead, -1), np.roll(aside, -1)
    crossing = (aside > 0) != (next_aside > 0)
    share = aside[crossing] / (aside - next_aside)[crossing]
    return float((ahead[crossing] + share * (next_ahead - ahead)[crossing]).max())


def _captions(things: list[Thing], background: str) -> tuple[str, str]:
    """What is there, and where the largest thing is relative to the others."""
    *most, last = [thing.words for thing in things]
    there = f"{', '.join(most)} and {last}" if most else last
    relations = " and ".join(f"{_relation(things[0], other)} {other.words}" for other in things[1:])
    number = ("one shape", "two shapes", "three shapes")[len(things) - 1]
    where = f"{number}: {things[0].words} {relations}".rstrip()
    return f"{there} on a {background} background", where


def _relation(thing: Thing, other: Thing) -> str:
    x, y = other.centre[0] - thing.centre[0], other.centre[1] - thing.centre[1]
    if abs(x) > abs(y):
        return "left of" if x > 0 else "right of"
    return "above" if y > 0 else "below"
