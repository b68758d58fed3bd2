"""From JPEG files to the batch that is sent to the device: images a second, ours beside torchvision's usual way.

Both read the same files of 640 x 480 pixels, crop at random to 224 x 224 and mirror by chance, with one thread, by
turns in one run. Ours gives uint8, which the device normalises; torchvision's gives normalised floats.

    python benchmarks/pipeline.py --peers PEERS/bin/python --photos FOLDER
    python benchmarks/pipeline.py                           ours alone, on drawn scenes
    python benchmarks/pipeline.py --quality 75 --out table.md

PEERS is an environment with torchvision. FOLDER has photographs, of which those that are large enough are taken.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import PIL.Image
import torch

from vitrail.allocator import keep_freed_memory
from vitrail.data import augment, cache, jpeg, loader, picture
from vitrail.data.augment import PRESETS, Augment
from vitrail.data.folder import ImageFiles
from vitrail.data.geometry import mirrored, resized
from vitrail.data.loader import TrainingBatches, load_batches
from vitrail.data.mix import Mix
from vitrail.data.preprocess import Preprocess
from vitrail.data.rng import generator
from vitrail.data.sample import Label
from vitrail.data.shapes import Shapes
from vitrail.data.source import Source

ROOT = Path(__file__).parent.parent
WIDTH, HEIGHT = 640, 480
CROP = Augment(crop_scale=(0.08, 1.0), flip=0.5)  # torchvision's RandomResizedCrop and RandomHorizontalFlip
PREPROCESS = Preprocess((224, 224), interpolation="bilinear")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=None, help="a Python that has torchvision; left out: ours alone")
    parser.add_argument("--photos", type=Path, default=None, help="a folder of photographs; left out: drawn scenes")
    parser.add_argument("--quality", type=int, default=90, help="of the JPEG files")
    parser.add_argument("--images", type=int, default=64, help="files, and rows of a batch")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "pipeline.md")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as the command line does
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VITRAIL_CACHE"] = f"{folder}/cache"
        files = write_files(Path(folder) / "files", settings)
        with Peer(settings.peers) as peer:
            report = {
                "machine": machine(peer.version),
                "files": describe(files, settings),
                "one thread": one_thread(files, peer, settings.rounds),
                "stages": stages(files, settings.rounds),
                "workers": workers(files, peer, settings),
                "pixels": differences(files),
            }
    write(settings.out, report)


class Peer:
    """torchvision in a process of its own, which is asked for one measurement after the other."""

    def __init__(self, python: str | None) -> None:
        self.process, self.version = None, ""
        if python is None:
            return
        program = Path(__file__).with_name("pipeline_torchvision.py")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.process = subprocess.Popen(
            [python, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.version = self.answer()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            self.process.wait()

    def seconds(self, *words: object) -> float:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write("\t".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return float(self.answer())

    def answer(self) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            sys.exit("the peer's process ended; see what it says above.")
        return line


def write_files(folder: Path, settings: argparse.Namespace) -> ImageFiles:
    """JPEG files of the one size and quality, of photographs or of scenes."""
    folder.mkdir()
    images = photographs(settings.photos) if settings.photos else scenes(settings.images)
    names = [f"{number:03}.jpg" for number in range(settings.images)]
    for number, name in enumerate(names):
        images[number % len(images)].save(folder / name, quality=settings.quality)
    return ImageFiles(str(folder), names, [Label(0)] * len(names))


def photographs(folder: Path) -> list[PIL.Image.Image]:
    """Those of at least 400 pixels and in colour, scaled to cover 640 x 480 and cut to it."""
    found = []
    for file in sorted(folder.iterdir()):
        try:
            with PIL.Image.open(file) as image:
                image.load()
                if image.mode == "RGB" and min(image.size) >= 400:
                    found.append(cover(image))
        except OSError:  # none, or damaged
            continue
    if not found:
        sys.exit(f"{folder} has no colour photograph of 400 pixels or more.")
    return found


def cover(image: PIL.Image.Image) -> PIL.Image.Image:
    scale = max(WIDTH / image.width, HEIGHT / image.height)
    size = round(image.width * scale), round(image.height * scale)
    return image.resize(size, PIL.Image.Resampling.BICUBIC).crop((0, 0, WIDTH, HEIGHT))


def scenes(count: int) -> list[PIL.Image.Image]:
    drawn = Shapes(min(count, 16), size=WIDTH)
    return [PIL.Image.fromarray(drawn.sample(number).image[:HEIGHT]) for number in range(len(drawn))]


def batches(source: Source, preset: Augment = CROP, size: int | None = None) -> TrainingBatches:
    return TrainingBatches(source, 2, PREPROCESS, preset, Mix(), size or len(source))


def one_thread(files: ImageFiles, peer: Peer, rounds: int) -> list[dict[str, Any]]:
    """Processor milliseconds an image, of each way in each round; the median."""
    kept = cache.cached_source(files, files.root, "1GiB")
    light = PRESETS["light"]
    ways: dict[str, Callable[[int], float]] = {}
    if peer.process is not None:
        ways[f"{peer.version} on Pillow, as usual"] = lambda _: peer.seconds("alone", files.root)
    ways["ours, with Pillow"] = lambda n: with_pillow(lambda: seconds_of(batches(files), n))
    if jpeg.find_simplejpeg():
        ways["ours, with simplejpeg"] = lambda n: seconds_of(batches(files), n)
    ways["ours, with --cache, from the second epoch"] = lambda n: seconds_of(batches(kept), n)
    ways[f"ours, {jpeg.decoder()}, augmentation 'light' (colours, too)"] = lambda n: seconds_of(
        batches(files, light), n
    )
    ways["the same with --cache"] = lambda n: seconds_of(batches(kept, light), n)
    found: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, measure in ways.items():
            taken = measure(number)
            found[way] += [taken] if number else []  # the first round warms up
    middle = {way: statistics.median(taken) / len(files) for way, taken in found.items()}
    usual = next(iter(middle.values())) if peer.process is not None else None
    return [
        {"way": way, "ms": 1e3 * each, "images_per_second": 1 / each, "ratio": usual / each if usual else None}
        for way, each in middle.items()
    ]


def seconds_of(made: TrainingBatches, number: int) -> float:
    """Processor seconds for one batch."""
    began = time.process_time()
    made[number]
    return time.process_time() - began


def with_pillow(work: Callable[[], float]) -> float:
    """Work as if simplejpeg were not installed."""
    before, jpeg._found = jpeg.find_simplejpeg(), False
    try:
        return work()
    finally:
        jpeg._found = before


def stages(files: ImageFiles, rounds: int) -> dict[str, float]:
    """Processor milliseconds an image of each step by itself, on the same crops; the median over rounds."""
    everything = range(len(files))
    stored = [files.encoded(i) for i in everything]
    pictures = [picture.of_bytes(stored[i], files.targets(i)) for i in everything]
    boxes = [crop_of(i) for i in everything]
    decoded = [pictures[i].reduced(1, boxes[i][3]) for i in everything]
    crops = [image[y0:y1, x0:x1] for image, (x0, y0, x1, y1) in zip(decoded, boxes, strict=True)]
    rows = [resized(crop, PREPROCESS.size, PREPROCESS.interpolation) for crop in crops]
    steps: dict[str, Callable[[int], object]] = {
        "read the file": files.encoded,
        "read its header": lambda i: picture.of_bytes(stored[i], files.targets(i)),
        "draw the crop": crop_of,
        "decode down to the crop's last row": lambda i: pictures[i].reduced(1, boxes[i][3]),
        "(decode all of it)": lambda i: pictures[i].reduced(1),
        "crop and resize": lambda i: resized(crops[i], PREPROCESS.size, PREPROCESS.interpolation),
        "mirror (every other one)": lambda i: mirrored(rows[i]) if i % 2 else None,
        "colours ('light' alone)": lambda i: augment.jittered(rows[i], 1.1, 0.9, 1.2),
    }
    times = {name: timed(lambda step=step: [step(i) for i in everything], rounds) for name, step in steps.items()}
    out = loader.room((len(rows), *rows[0].shape)).numpy()
    times["copy into the batch"] = timed(lambda: np.stack(rows, out=out), rounds)
    times["all of it"] = statistics.median(seconds_of(batches(files), n) for n in range(1, rounds + 1))
    return {name: 1e3 * seconds / len(files) for name, seconds in times.items()}


def crop_of(number: int) -> tuple[int, int, int, int]:
    """What `augment` would cut out of an image of the one size, at this place of the first epoch."""
    rng = generator(0, "augment", 0, number)
    assert CROP.crop_scale is not None
    x0, y0, x1, y1 = augment._draw_crop((HEIGHT, WIDTH), PREPROCESS.size, CROP.crop_scale, CROP.crop_ratio, rng)
    return round(x0), round(y0), round(x1), round(y1)


def timed(work: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds + 1):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return statistics.median(taken[1:])


def workers(files: ImageFiles, peer: Peer, settings: argparse.Namespace) -> list[dict[str, Any]]:
    """Images a second of whole loaders with worker processes, by the clock; the median of three, by turns."""
    kept, count, size = cache.cached_source(files, files.root, "1GiB"), 8, settings.images
    rows = []
    for number in (1, 2):
        ways: dict[str, Callable[[], float]] = {}
        if peer.process is not None:
            ways["torchvision and DataLoader"] = lambda number=number: peer.seconds(
                "loaded", files.root, size, number, count
            )
        ways[f"ours, {jpeg.decoder()}"] = lambda number=number: loading_seconds(files, number, count)
        ways["ours, --cache"] = lambda number=number: loading_seconds(kept, number, count)
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(3):
            for way, measure in ways.items():
                taken[way].append(measure())
        rate = {way: count * size / statistics.median(seconds) for way, seconds in taken.items()}
        usual = next(iter(rate.values())) if peer.process is not None else None
        rows += [
            {"workers": number, "way": way, "images_per_second": each, "ratio": each / usual if usual else None}
            for way, each in rate.items()
        ]
    return rows


def loading_seconds(source: Source, number: int, count: int) -> float:
    """Seconds for ``count`` batches, after the first ones, in which the workers start."""
    loading = load_batches(batches(source), 0, count + 2 * number, number)
    for _ in range(2 * number):
        next(loading)
    began = time.perf_counter()
    for _ in range(count):
        next(loading)
    taken = time.perf_counter() - began
    assert next(loading, None) is None
    return taken


def differences(files: ImageFiles) -> dict[str, float]:
    """How far our resize of these crops, and simplejpeg's pixels, are from Pillow's: the most, in grey levels."""
    largest = {"bilinear": 0, "bicubic": 0, "simplejpeg": 0}
    for number in range(min(16, len(files))):
        x0, y0, x1, y1 = crop_of(number)
        seen = picture.of_bytes(files.encoded(number), files.targets(number))
        whole = seen.whole().image
        crop, size = whole[y0:y1, x0:x1], PREPROCESS.size
        for name in ("bilinear", "bicubic"):
            by_pillow = PIL.Image.fromarray(crop).resize(size, PIL.Image.Resampling[name.upper()])
            apart = abs(resized(crop, size, name).astype(int) - np.asarray(by_pillow))  # type: ignore[arg-type]
            largest[name] = max(largest[name], int(apart.max()))
        largest["simplejpeg"] = max(largest["simplejpeg"], int(abs(seen.reduced(1).astype(int) - whole).max()))
    return largest


def describe(files: ImageFiles, settings: argparse.Namespace) -> dict[str, Any]:
    size = statistics.mean(files.encoded_size(number) for number in range(len(files)))
    what = "photographs" if settings.photos else "drawn scenes"
    return {"what": what, "count": len(files), "quality": settings.quality, "kilobytes": size / 1000}


def machine(peer: str) -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "decoder": jpeg.decoder(),
        "peer": peer,
    }


def processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def write(out: Path, report: dict[str, Any]) -> None:
    """The tables, and beside them the same as JSON."""
    text = as_markdown(report)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    out.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
    print(text)


def as_markdown(report: dict[str, Any]) -> str:
    files, stated, apart = report["files"], report["machine"], report["pixels"]
    lines = [
        "# Input pipeline",
        "",
        f"{files['count']} JPEGs of {WIDTH}x{HEIGHT}, {files['what']}, quality {files['quality']}, "
        f"{files['kilobytes']:.0f} kB each on average, to 224x224. {stated['processor']}, {stated['cores']} cores; "
        f"Python {stated['python']}, torch {stated['torch']}, Pillow {stated['pillow']}, "
        f"{stated['peer'] or 'no peer'}; {stated['date']}. Made by `benchmarks/pipeline.py`.",
        "",
        "One process, one thread; processor time, medians, by turns:",
        "",
        "| way | ms an image | images/s | times torchvision's |",
        "|---|---|---|---|",
        *(f"| {r['way']} | {r['ms']:.3f} | {r['images_per_second']:,.0f} | {times(r)} |" for r in report["one thread"]),
        "",
        f"Where the time goes, each step by itself ({stated['decoder']}):",
        "",
        "| step | ms an image |",
        "|---|---|",
        *(f"| {name} | {ms:.3f} |" for name, ms in report["stages"].items()),
        "",
        f"Whole loaders with worker processes, batches of {files['count']}, by the clock:",
        "",
        "| workers | way | images/s | times torchvision's |",
        "|---|---|---|---|",
        *(f"| {r['workers']} | {r['way']} | {r['images_per_second']:,.0f} | {times(r)} |" for r in report["workers"]),
        "",
        f"Largest difference of our resize from Pillow's on these crops: {apart['bilinear']} grey level(s) bilinear, "
        f"{apart['bicubic']} bicubic. Largest difference of {stated['decoder']}'s decoded pixels from Pillow's: "
        f"{apart['simplejpeg']}.",
    ]
    return "\n".join(lines) + "\n"


def times(row: dict[str, Any]) -> str:
    return f"{row['ratio']:.2f}" if row["ratio"] else "—"


if __name__ == "__main__":
    main()
