"""How far our preparation of images is from the peers' own: the largest difference of a pixel, in grey levels of 255.

Run by an interpreter that has timm, torchvision and Transformers:

    PYTHONPATH=src VITRAIL_DATA=… PEERS/bin/python benchmarks/preprocessing.py > benchmarks/results/preprocessing.md
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import transformers
from PIL import Image
from timm.data import create_transform, resolve_data_config

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.weights.preprocessing import from_timm, from_transformers
from vitrail.weights.published import of_family

Peer = Callable[[Image.Image], torch.Tensor]

PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("ViTImageProcessor", {}),
    "Swin": ("ViTImageProcessor", {"resample": 3, "image_mean": [0.485, 0.456, 0.406]}),
    "DeiT": ("DeiTImageProcessor", {}),
    "BiT": ("BitImageProcessor", {"size": {"shortest_edge": 448}, "crop_size": {"height": 448, "width": 448}}),
    "DINOv2": ("BitImageProcessor", {"size": {"shortest_edge": 256}}),
    "ResNet": ("ConvNextImageProcessor", {"size": {"shortest_edge": 224}}),
    "ConvNeXT, 384": ("ConvNextImageProcessor", {}),
    "PVT": ("PvtImageProcessor", {}),
    "DINOv3": ("DINOv3ViTImageProcessor", {}),
}


def of_timm() -> Iterator[tuple[str, Preprocess, Peer]]:
    """Each way to prepare images that released weights of timm's have, with one of them as its name."""
    seen = set()
    for family in models.FAMILIES:
        for weights in of_family(family):
            name = weights.reference.partition("timm/")[2]
            if not name or (cfg := timm.get_pretrained_cfg(name)) is None:
                continue
            data = resolve_data_config(pretrained_cfg=cfg.to_dict())
            config = {"pretrained_cfg": {**cfg.to_dict(), "crop_pct": data["crop_pct"]}}
            preprocess = from_timm(config, data["input_size"][1:], 3)
            if preprocess not in seen:
                seen.add(preprocess)
                yield f"timm {name}", preprocess, create_transform(**data)


def of_transformers() -> Iterator[tuple[str, Preprocess, Peer]]:
    """The processors of Transformers, in Pillow's and in torchvision's form, which differ from one another."""
    for name, (kind, settings) in PROCESSORS.items():
        for form, ending in (("Pillow", "Pil"), ("torchvision", "")):
            if (make := getattr(transformers, kind + ending, None)) is None:
                continue
            processor = make(**settings)
            preprocess = from_transformers(processor.to_dict(), (224, 224), 3)
            yield (
                f"Transformers {name}, by {form}",
                preprocess,
                lambda picture, processor=processor: processor(picture, return_tensors="pt")["pixel_values"][0],
            )


def photos() -> dict[str, Image.Image]:
    folder = Path(os.environ["VITRAIL_DATA"], "photos")
    names = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg") and path.stem != "truncated")
    return {path.name: Image.open(path).convert("RGB") for path in names}


def differences(preprocess: Preprocess, peer: Peer, picture: Image.Image) -> torch.Tensor:
    """How far apart both are in each value of what they make of a picture, in units of 1/255."""
    pixels, _ = preprocess.view(np.array(picture))
    ours = preprocess.normalize(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0]
    theirs = peer(picture)
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs() * torch.tensor(preprocess.std)[:, None, None] * 255).flatten()


def main() -> None:
    torch.set_num_threads(1)
    pictures = photos()
    print(f"| preparation | settings | largest difference over {len(pictures)} pictures | values beyond 1 |")
    print("|---|---|---|---|")
    for name, preprocess, peer in (*of_timm(), *of_transformers()):
        found = torch.cat([differences(preprocess, peer, picture) for picture in pictures.values()])
        side, mode, fraction = preprocess.size[0], preprocess.resize, preprocess.crop_fraction
        settings = f"{side}, {mode} {fraction:.4g}, {preprocess.interpolation}"
        print(f"| {name} | {settings} | {found.max():.2f} | {(found > 1.01).float().mean():.4%} |", flush=True)


if __name__ == "__main__":
    main()
