"""A trained model as a folder that timm or Transformers open themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from safetensors.torch import save
from torch import Tensor

from vitrail import atomic, models
from vitrail.data.preprocess import Preprocess
from vitrail.errors import SettingError
from vitrail.models.layout import Layout
from vitrail.tasks import Classification
from vitrail.weights import preprocessing
from vitrail.weights.rename import to_theirs

Library = Literal["timm", "transformers"]

RESAMPLE = {name: number for number, name in preprocessing.RESAMPLE.items()}  # Pillow's numbers


def write_checkpoint(task: Classification, library: Library, folder: Path) -> None:
    """Write ``config.json`` and ``model.safetensors``, for Transformers ``preprocessor_config.json``, too.

    Raises :class:`SettingError` for a model, or a way to prepare images, that the library does not have.
    """
    layout = layout_of(task, library)
    assert layout.write is not None
    config = layout.write(task.backbone.config)
    weights = to_theirs(task.state_dict(), layout, task.backbone.config)
    if library == "timm":
        _write_json(folder / "config.json", timm_config(task, config))
    else:
        preprocessor = transformers_preprocessor(task.preprocess)
        _write_json(folder / "config.json", transformers_config(task, config))
        _write_json(folder / "preprocessor_config.json", preprocessor)
    tensors: dict[str, Tensor] = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    atomic.write_bytes(folder / "model.safetensors", save(tensors, metadata={"format": "pt"}))


def layout_of(task: Classification, library: Library) -> Layout:
    """The library's layout of the task's family, of several the one that can hold the model.

    Raises :class:`SettingError` if the library does not have the family.
    """
    family = models.family(task.model)
    layouts = _written_by(library, family)
    if not layouts:
        able = [name for name in get_args(Library) if _written_by(name, family)]
        raise SettingError(
            f"{library} has no {family}; " + (f"export to {' or '.join(able)}." if able else "no other library does.")
        )
    return next((layout for layout in layouts if _holds(layout, task.backbone.config)), layouts[0])


def timm_config(task: Classification, config: Mapping[str, Any]) -> dict[str, Any]:
    """timm's ``config.json``: architecture, preprocessing and labels."""
    preprocess = task.preprocess
    if preprocess.resize == "pad":
        raise SettingError("timm cannot pad images to their size; train with another preprocessing.")
    return {
        **config,
        "num_classes": len(task.classes),
        "num_features": task.backbone.width,
        "label_names": list(task.classes),
        "pretrained_cfg": {
            "num_classes": len(task.classes),
            "input_size": [preprocess.channels, *preprocess.size],
            "crop_pct": preprocess.crop_fraction,
            "crop_mode": {"crop": "center", "squash": "squash"}[preprocess.resize],
            "interpolation": preprocess.interpolation,
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
        },
    }


def transformers_config(task: Classification, config: Mapping[str, Any]) -> dict[str, Any]:
    """Transformers' ``config.json``: architecture and labels."""
    return {
        **config,
        "num_labels": len(task.classes),
        "id2label": {str(index): name for index, name in enumerate(task.classes)},
        "label2id": {name: index for index, name in enumerate(task.classes)},
        "problem_type": "multi_label_classification" if task.many_labels else "single_label_classification",
    }


def transformers_preprocessor(preprocess: Preprocess) -> dict[str, Any]:
    """Transformers' ``preprocessor_config.json``. Raises :class:`SettingError` for what it has no words for.

    Half a pixel beside the middle is rounded down there, whatever ``preprocess.centre`` says.
    """
    h, w = preprocess.size
    around = [int(side / preprocess.crop_fraction) for side in (h, w)]
    if preprocess.resize == "pad" or (preprocess.resize == "crop" and h != w):
        raise SettingError(
            "Transformers cannot prepare images as this model wants them (padded, or cut to another shape than a "
            "square); export to timm, or train with another --image-size."
        )
    square = {"shortest_edge": around[0]} if preprocess.resize == "crop" else {"height": around[0], "width": around[1]}
    return {
        "image_processor_type": "BitImageProcessor" if preprocess.resize == "crop" else "DeiTImageProcessor",
        "do_resize": True,
        "size": square,
        "resample": RESAMPLE[preprocess.interpolation],
        "do_center_crop": True,
        "crop_size": {"height": h, "width": w},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
        "do_convert_rgb": preprocess.channels == 3,
    }


def _written_by(library: str, family: str) -> list[Layout]:
    """A library may have several models for what is one family here, such as Transformers' ViT and DINOv2."""
    layouts = models.FAMILIES[family].layouts.items()
    return [layout for name, layout in layouts if name.split("-")[0] == library and layout.write is not None]


def _holds(layout: Layout, config: Any) -> bool:
    assert layout.write is not None
    try:
        layout.write(config)
    except SettingError:
        return False
    return True


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    atomic.write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
