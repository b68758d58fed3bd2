"""Another library's names for AlexNet's weights."""

from __future__ import annotations

from vitrail.models.layout import IMAGENET_CROP, Layout, Row

TORCHVISION = (
    Row("features.0", "conv1"),
    Row("features.3", "conv2"),
    Row("features.6", "conv3"),
    Row("features.8", "conv4"),
    Row("features.10", "conv5"),
    Row("classifier.1", "fc6"),
    Row("classifier.4", "fc7"),
    Row("classifier.6", "head.linear"),
)

LAYOUTS: dict[str, Layout] = {
    "torchvision": Layout(lambda config: TORCHVISION, preprocess={**IMAGENET_CROP, "interpolation": "bilinear"}),
}
