"""The usual way to training images, for `benchmarks/pipeline.py` to measure: torchvision on Pillow.

It is run by an interpreter that has torchvision, is told on standard input what to do, and answers with seconds.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

SIDE = 224
USUAL = transforms.Compose(
    [
        transforms.RandomResizedCrop(SIDE),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)


class Photos(Dataset):
    """All files of a folder, ``times`` over."""

    def __init__(self, folder: str, times: int = 1) -> None:
        self.files = sorted(Path(folder).iterdir()) * times

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.files[index]) as image:
            return USUAL(image.convert("RGB"))


def alone(folder: str) -> float:
    """Processor seconds for one image after another, without batches."""
    photos = Photos(folder)
    began = time.process_time()
    for index in range(len(photos)):
        photos[index]
    return time.process_time() - began


def loaded(folder: str, batch_size: int, workers: int, batches: int) -> float:
    """Seconds for so many batches of a DataLoader, after the first ones, in which its workers start."""
    photos = Photos(folder)
    photos = Photos(folder, times=-(-(batches + 2 * workers) * batch_size // len(photos)))
    loader = iter(DataLoader(photos, batch_size, shuffle=True, num_workers=workers, drop_last=True))
    for _ in range(2 * workers):
        next(loader)
    began = time.perf_counter()
    for _ in range(batches):
        next(loader)
    return time.perf_counter() - began


def main() -> None:
    torch.set_num_threads(1)
    print(f"torchvision {torchvision.__version__}", flush=True)
    for line in sys.stdin:
        what, folder, *numbers = line.rstrip("\n").split("\t")
        print(alone(folder) if what == "alone" else loaded(folder, *map(int, numbers)), flush=True)


if __name__ == "__main__":
    main()
