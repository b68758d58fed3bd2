"""Another program's names for LeNet-5's weights."""

from __future__ import annotations

from vitrail.models.layout import Layout, Row

# khushbujpatel/lenet_mnist on GitHub: "lenet-5-relu". Its max-pools have no weights; there are rows for them, so that
# what a file lacks for the paper's sub-sampling is said as any other difference.
LENET_MNIST = (
    Row("convnet.c1", "c1"),
    Row("convnet.s2", "s2"),
    Row("convnet.c3", "c3"),
    Row("convnet.s4", "s4"),
    Row("convnet.c5", "c5"),
    Row("fc.f6", "f6"),
    Row("fc.f7", "head.linear"),  # followed there by a log-softmax, which changes no probability
)

LAYOUTS: dict[str, Layout] = {
    "lenet_mnist": Layout(
        lambda config: LENET_MNIST,
        preprocess={"resize": "squash", "interpolation": "bilinear", "mean": (0.1307,), "std": (0.3081,)},
    ),
}
