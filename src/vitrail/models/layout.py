"""How other libraries name and lay out the same weights: the words in which each family's key tables are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitrail.nn.position import Resampling


class Turn(NamedTuple):
    """How tensors of theirs become one of ours, and how it becomes theirs again."""

    to_ours: Callable[..., Tensor]
    to_theirs: Callable[[Tensor], tuple[Tensor, ...]]


SAME = Turn(lambda x: x, lambda x: (x,))
TRANSPOSED = Turn(lambda x: x.T, lambda x: (x.T,))  # a dense layer of Flax or TensorFlow
KERNEL = Turn(lambda x: x.permute(3, 2, 0, 1), lambda x: (x.permute(2, 3, 1, 0),))  # of HWIO an OIHW
POINTWISE = Turn(lambda x: x[:, :, 0, 0], lambda x: (x[:, :, None, None],))  # a 1x1 convolution that is a linear map
STACKED = Turn(lambda *parts: torch.cat(parts), lambda x: x.chunk(3))  # queries, keys, values
PAIRED = Turn(lambda *parts: torch.cat(parts), lambda x: x.chunk(2))  # keys and values


class Row(NamedTuple):
    """One line of a key table: a tensor, or a module with all tensors in it, in their words and in ours.

    Attributes:
        theirs: their name; ``{}`` stands for a number, ``{+1}`` or ``{-1}`` for ours plus or minus one. Several names
            where ours is made of several of theirs.
        ours: the backbone's name for it, as in its ``state_dict()``; what begins with ``head.`` is the classifier's.
        turn: what happens to the tensor on the way.
    """

    theirs: str | tuple[str, ...]
    ours: str
    turn: Turn = SAME


class Described(NamedTuple):
    """What a file's own config says of the architecture: a name in the table of models, and what differs from it.

    ``options`` are those of the objective that a model of text was trained with, such as an output layer of its own.
    """

    model: str
    changes: dict[str, Any]
    options: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Layout:
    """Everything about one library's way to store one family.

    Attributes:
        rows: the key table for a config of the family; the first row that fits a tensor is its row.
        prepare: tensors as files have them to tensors as the key table has them, where files differ by their age.
        prefix: what precedes the backbone's names in files of a model with a classifier, and not in those without.
        ignored: names (``{}`` as above; modules, too) of tensors that say nothing that ours does not know by itself.
        resampling: how this library changes learned positions for another image size.
        implies: changes to the config that every model has whose files are in this layout.
        preprocess: settings of `Preprocess` but size and channels, where neither the file nor its repository says.
        read: the model that a repository's ``config.json`` describes; None if it is not of this family and library.
        refine: the same with what only the tensors tell, such as whether a part is there that some files lack.
        write: the ``config.json`` for a config; raises `SettingError` for what the library cannot express. None where
            the library reads no such file.
    """

    rows: Callable[[Any], Sequence[Row]]
    prepare: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda tensors: tensors
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    resampling: Resampling = "bicubic"
    implies: Mapping[str, Any] = field(default_factory=dict)
    preprocess: Mapping[str, Any] = field(default_factory=lambda: IMAGENET_CROP)
    read: Callable[[Mapping[str, Any]], Described | None] = lambda config: None
    refine: Callable[[Described, Mapping[str, Tensor]], Described] = lambda stated, tensors: stated
    write: Callable[[Any], dict[str, Any]] | None = None


IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # of its training images

IMAGENET_CROP: Mapping[str, Any] = {  # the usual evaluation: the shorter side to 256, the middle 224
    "resize": "crop",
    "crop_fraction": 0.875,
    "interpolation": "bicubic",
    **IMAGENET,
}


def nearest_size(
    family: str, config: Any, sizes: Mapping[str, Any], shape: Callable[[Any], tuple[object, ...]]
) -> Described:
    """The published size of the same ``shape(config)`` with all that differs from it, or the family with everything."""
    stated = {each.name: getattr(config, each.name) for each in fields(config)}
    for name, size in sizes.items():
        if shape(size) == shape(config):
            return Described(name, {key: value for key, value in stated.items() if value != getattr(size, key)})
    return Described(family, stated)


def timm_input(config: Mapping[str, Any]) -> dict[str, Any]:
    """Image size and channels that a ``config.json`` of timm states."""
    stated = {**config.get("pretrained_cfg", {}), **config.get("model_args", {})}
    channels, *size = stated.get("input_size", (3, 224, 224))
    size = stated.get("img_size", size)
    return {
        "image_size": (size, size) if isinstance(size, int) else tuple(size),
        "channels": stated.get("in_chans", channels),
    }


def timm_mlp_ratio(width: int, mlp: int) -> float:
    """The ratio that gives an MLP's hidden units when timm multiplies it by the width and cuts to a whole number."""
    ratio = mlp / width
    return ratio if int(width * ratio) == mlp else (mlp + 0.5) / width


def transformers_input(config: Mapping[str, Any]) -> dict[str, Any]:
    """Image size and channels that a ``config.json`` of Transformers states."""
    size = config.get("image_size", 224)
    return {
        "image_size": (size, size) if isinstance(size, int) else tuple(size),
        "channels": config.get("num_channels", 3),
    }
