"""Packed images of several sizes against the other ways to compute them, in one run, taking turns.

All ways keep each image's proportions, and give the same logits, which is checked first:

    packed         one row without padding, as `--pack` does
    one by one     each image a batch of its own
    by size        each group of images of one size a batch
    padded         every image's tokens padded to those of the longest, under a mask

and, where an image has as many patches as the model's own, squashed: to one size, which is the usual batch.

    python benchmarks/packing.py                                   32 pictures as websites have them, vit-s16
    python benchmarks/packing.py --photos DIR --tokens 196 576     pictures of the sizes of those in a folder
    python benchmarks/packing.py --run RUN --data DATA             also: accuracy packed, and squashed, cropped, padded
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vitrail.allocator import keep_freed_memory
from vitrail.bench.machine import in_words, machine
from vitrail.bench.timing import in_turns, spread
from vitrail.data.loader import UnreadableImages
from vitrail.data.preprocess import RESIZES
from vitrail.data.proportions import Proportions
from vitrail.data.read import is_image
from vitrail.nn.inference import ready
from vitrail.nn.patch_transformer import PatchTransformer
from vitrail.recipes.benching.model import opened
from vitrail.recipes.evaluating.evaluate import held_out, measure
from vitrail.recipes.evaluating.settings import Evaluate
from vitrail.recipes.opened import open_task
from vitrail.recipes.packing import RESAMPLING
from vitrail.tasks import Classification
from vitrail.train.precision import choose_device, choose_precision, products_in

ROOT = Path(__file__).parent.parent
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}  # of logits, as a share of the largest

# Height and width of 32 pictures as websites have them: thumbnails, pictures in a text, photographs.
PICTURES = [
    *[(100, 100)] * 2,
    *[(150, 150)] * 3,
    *[(150, 200)] * 2,
    *[(200, 300)] * 2,
    *[(240, 320)] * 4,
    *[(300, 200)] * 2,
    *[(320, 480)] * 3,
    *[(427, 640)] * 4,
    *[(480, 640)] * 3,
    *[(640, 480)] * 2,
    *[(400, 400), (600, 800), (768, 1024), (1080, 1920), (960, 640)],
]


@dataclass(frozen=True)
class Speed:
    """How fast one way computes the mix.

    Attributes:
        tokens: most patches of an image.
        images_per_second, low, high: median and quartiles.
        packed: how many times as fast packing is.
        filling: share of the tokens that are padding.
    """

    tokens: int
    way: str
    images_per_second: float
    low: float
    high: float
    packed: float
    filling: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit-s16")
    parser.add_argument("--photos", type=Path, default=None, help="a folder, of whose pictures the sizes are taken")
    parser.add_argument("--tokens", type=int, nargs="+", default=[196, 1024], help="most patches of an image")
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each way")
    parser.add_argument("--run", default=None, help="a run whose accuracy is measured")
    parser.add_argument("--data", default=None, help="on these images, or on its own that training held back")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "packing.md")
    settings = parser.parse_args()
    keep_freed_memory()  # as every command does
    sizes = PICTURES if settings.photos is None else sizes_in(settings.photos)
    task = random_task(settings.model)
    speeds = [speed for tokens in settings.tokens for speed in speeds_of(task, sizes, tokens, settings)]
    accuracies = accuracies_of(settings) if settings.run else {}
    write(settings, len(sizes), speeds, accuracies)


def sizes_in(folder: Path) -> list[tuple[int, int]]:
    """Height and width of each picture in a folder."""
    found = []
    for path in sorted(folder.rglob("*")):
        if is_image(path.name):
            with Image.open(path) as picture:
                found.append((picture.height, picture.width))
    return found


def random_task(model: str) -> Classification:
    """A classifier with random weights, which none of the ways cares about."""
    torch.manual_seed(0)
    task = opened(model, None)
    if not isinstance(task, Classification) or not isinstance(task.backbone, PatchTransformer):
        raise SystemExit(f"{model} packs no images; take a ViT, DeiT, DINOv3 or RoPE-ViT")
    task.backbone.resampling = RESAMPLING
    return task.eval()


def speeds_of(
    task: Classification, sizes: list[tuple[int, int]], tokens: int, settings: argparse.Namespace
) -> Iterator[Speed]:
    """Each way's speed for a mix of sizes with so many tokens an image at most."""
    device = choose_device(settings.device)
    dtype = choose_precision(device, settings.precision)
    task = ready(task.to(device), dtype)
    groups = [group.to(device) for group in mix(sizes, Proportions(task.preprocess, patch_of(task), tokens))]
    ways = ways_of(task, groups, tokens)
    with torch.inference_mode(), products_in(dtype, device):
        expected = ways["one by one"]().float()
        for name, way in ways.items():
            error = 0.0 if name == "squashed" else (way().float() - expected).abs().max().item()
            if error > TOLERANCE[dtype] * max(1.0, expected.abs().max().item()):
                raise SystemExit(f"{name} gives other logits than one by one: {error:.2g}")
        times = in_turns(ways, settings.seconds, device)
    packed = spread(times["packed"]).median
    for name in ways:
        of_way = spread(times[name])
        yield Speed(
            tokens=tokens,
            way=name,
            images_per_second=round(len(sizes) / of_way.median, 2),
            low=round(len(sizes) / of_way.high, 2),
            high=round(len(sizes) / of_way.low, 2),
            packed=round(of_way.median / packed, 3),
            filling=round(filling(groups, patch_of(task)) if name == "padded" else 0.0, 3),
        )


def patch_of(task: Classification) -> int:
    return int(task.packing_backbone().config.patch_size)


def mix(sizes: list[tuple[int, int]], proportions: Proportions) -> list[Tensor]:
    """Noise of the sizes that pictures of ``sizes`` get, a group of each."""
    torch.manual_seed(0)
    grids = Counter(proportions.grid(size) for size in sizes)
    shapes = [(count, 3, *(side * proportions.patch_size for side in grid)) for grid, count in sorted(grids.items())]
    noise = [torch.randint(256, shape, dtype=torch.uint8) for shape in shapes]
    return [group.contiguous(memory_format=torch.channels_last) for group in noise]


def filling(groups: list[Tensor], patch: int) -> float:
    """Which share of the patches is padding where all images are as long as the longest."""
    lengths = [group.shape[2] * group.shape[3] // patch**2 for group in groups for _ in group]
    return 1 - sum(lengths) / (max(lengths) * len(lengths))


def ways_of(task: Classification, groups: list[Tensor], tokens: int) -> dict[str, Callable[[], Tensor]]:
    """Each way as a function that gives the logits of all images."""
    ways: dict[str, Callable[[], Tensor]] = {
        "packed": lambda: task.packed(groups),
        "one by one": lambda: torch.cat([task(image[None]) for group in groups for image in group]),
        "by size": lambda: torch.cat([task(group) for group in groups]),
        "padded": lambda: padded(task, groups),
    }
    height, width = task.preprocess.size
    if tokens == height * width // patch_of(task) ** 2:
        images = sum(len(group) for group in groups)
        squashed = torch.randint(256, (images, 3, height, width), dtype=torch.uint8, device=groups[0].device)
        squashed = squashed.contiguous(memory_format=torch.channels_last)
        ways["squashed"] = lambda: task(squashed)
    return ways


def padded(task: Classification, groups: list[Tensor]) -> Tensor:
    """Logits of all images, their tokens filled up with zeros to those of the longest, which nobody looks at."""
    backbone = task.packing_backbone()
    if any(turn is not None for turn in backbone.rotations(backbone.grid)):
        raise SystemExit("the padded way is for models without rotary positions")
    embedded = [backbone.embed(task.preprocess.normalize(group)) for group in groups]
    longest = max(tokens.shape[1] for tokens, _ in embedded)
    x = torch.cat([torch.nn.functional.pad(tokens, (0, 0, 0, longest - tokens.shape[1])) for tokens, _ in embedded])
    lengths = torch.tensor([tokens.shape[1] for tokens, _ in embedded for _ in tokens], device=x.device)
    mask = (torch.arange(longest, device=x.device) < lengths[:, None])[:, None, None]
    with masked(backbone, mask):
        for block in backbone.blocks:
            x = block(x)
    parts = backbone.normed(x).split([len(tokens) for tokens, _ in embedded])
    own = [part[:, : tokens.shape[1]] for part, (tokens, _) in zip(parts, embedded, strict=True)]
    return torch.cat([task.head(backbone.features(each, grid)) for each, (_, grid) in zip(own, embedded, strict=True)])


@contextmanager
def masked(backbone: PatchTransformer, mask: Tensor) -> Iterator[None]:
    """Within the context every block's attention has this mask."""

    def with_mask(module: Any, inputs: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return inputs, {**named, "mask": mask}

    with ExitStack() as hooks:
        for block in backbone.blocks:
            handle = block.attention.register_forward_pre_hook(with_mask, with_kwargs=True)  # type: ignore[union-attr,operator]
            hooks.callback(handle.remove)
        yield


def accuracies_of(settings: argparse.Namespace) -> dict[str, float]:
    """Top-1 of a run on held-out images: packed, and in each way that brings them to one size."""
    evaluation = Evaluate(settings.run, settings.data, device=settings.device, precision=settings.precision)
    task = open_task(settings.run, evaluation.stated)
    _, source = held_out(evaluation, task)
    device = choose_device(settings.device)
    dtype = choose_precision(device, settings.precision)
    own = task.to(device).preprocess
    backbone = task.packing_backbone()
    backbone.resampling = backbone.resampling or RESAMPLING
    ready(task, dtype)
    proportions = Proportions(own, patch_of(task))
    found = {}
    for name in ("packed", *RESIZES):
        fraction = own.crop_fraction if name == own.resize else 1.0
        task.preprocess = own if name == "packed" else replace(own, resize=name, crop_fraction=fraction)
        packing = proportions if name == "packed" else None
        metric = measure(task, source, device, dtype, UnreadableImages(len(source)), what=name, proportions=packing)
        found[name] = round(metric.compute()["top1"], 4)
    return found


def write(settings: argparse.Namespace, images: int, speeds: list[Speed], accuracies: dict[str, float]) -> None:
    """The tables, and the same as JSON."""
    where = in_words(machine(choose_device(settings.device)))
    lines = [f"{settings.model}, {settings.precision} precision, {images} images of several sizes. {where}.", ""]
    lines += ["| most patches | way | images/s | quartiles | padding | packed is faster by |", "|" + "---|" * 6]
    for each in speeds:
        quartiles = f"{each.low:,} … {each.high:,}"
        cells = (each.tokens, each.way, each.images_per_second, quartiles, f"{each.filling:.1%}", f"{each.packed:.2f}")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    if accuracies:
        lines += ["", f"Accuracy of `{settings.run}`:", "", "| images are | top-1 |", "|---|---|"]
        lines += [f"| {name} | {accuracy:.2%} |" for name, accuracy in accuracies.items()]
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    settings.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    record = {
        "model": settings.model,
        "precision": settings.precision,
        "images": images,
        "machine": asdict(machine(choose_device(settings.device))),
        "speeds": [asdict(each) for each in speeds],
        "accuracies": accuracies,
    }
    settings.out.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(settings.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
