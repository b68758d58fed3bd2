"""Another library's names for GoogLeNet's weights."""

from __future__ import annotations

from vitrail.models.googlenet.googlenet import INCEPTIONS
from vitrail.models.layout import IMAGENET_CROP, Layout, Row

BRANCHES = {
    "branch1": "one",
    "branch2.0": "middle.0",
    "branch2.1": "middle.1",
    "branch3.0": "large.0",
    "branch3.1": "large.1",
    "branch4.1": "pool.1",
}


def conv_norm(theirs: str, ours: str) -> tuple[Row, Row]:
    return Row(f"{theirs}.conv", f"{ours}.conv"), Row(f"{theirs}.bn", f"{ours}.norm")


TORCHVISION = (
    *(row for name in ("conv1", "conv2", "conv3") for row in conv_norm(name, f"stem.{name}")),
    *(
        row
        for name in INCEPTIONS
        for theirs, ours in BRANCHES.items()
        for row in conv_norm(f"inception{name}.{theirs}", f"inceptions.{name}.{ours}")
    ),
    Row("fc", "head.linear"),
    *conv_norm("aux{+1}.conv", "head.auxiliary.{}.conv"),
    Row("aux{+1}.fc1", "head.auxiliary.{}.hidden"),
    Row("aux{+1}.fc2", "head.auxiliary.{}.linear"),
)

LAYOUTS: dict[str, Layout] = {
    "torchvision": Layout(
        lambda config: TORCHVISION,
        # The released weights came from TensorFlow and want pixels between -1 and 1. torchvision normalises with
        # ImageNet's statistics as ever and then undoes that inside the model (`transform_input`).
        preprocess={**IMAGENET_CROP, "interpolation": "bilinear", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
        ignored=("aux1", "aux2"),  # in files with auxiliary classifiers, where ours is to have none
    ),
}
