"""Real weights: a ViT that someone trained on MNIST with vit-pytorch's code and published."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from vitrail.weights.load import load

DATA = os.environ.get("VITRAIL_DATA")
NETWORK = {
    "width": 64,
    "depth": 6,
    "heads": 4,
    "mlp": 128,
    "head_width": 64,
    "image_size": 28,
    "patch_size": 4,
    "channels": 1,
    "activation": "relu",
    "qkv_bias": False,
    "norm_eps": 1e-5,
}
MEAN, STD = 0.1307, 0.3081  # of MNIST's training pixels; the weights were trained on images normalised so


def idx(path):
    """The numbers of one of MNIST's files, uint8: four bytes a dimension after the first four, then the values."""
    raw = gzip.decompress(path.read_bytes())
    shape = tuple(np.frombuffer(raw, ">u4", raw[3], offset=4))
    return torch.from_numpy(np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape).copy())


@pytest.mark.skipif(not DATA, reason="VITRAIL_DATA names no folder with real data")
@torch.inference_mode()
def test_published_weights_score_what_was_published():
    folder = Path(DATA)
    file = folder / "checkpoints" / "vit_mnist" / "vit_mnist_gpu.pt"
    task = load(file, layout="vit-pytorch", model="vit", config=NETWORK)
    images = idx(folder / "mnist" / "t10k-images-idx3-ubyte.gz")[:, None]
    labels = idx(folder / "mnist" / "t10k-labels-idx1-ubyte.gz")
    batches = ((images / 255 - MEAN) / STD).split(500)
    predicted = torch.cat([task.head(task.backbone(batch)).argmax(dim=1) for batch in batches])
    assert len(labels) == 10_000
    assert 100 * (predicted == labels).float().mean().item() == pytest.approx(97.25, abs=0.05)
