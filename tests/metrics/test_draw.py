from __future__ import annotations

import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vitrail.metrics import draw
from vitrail.metrics.calibration import reliability
from vitrail.metrics.classification import as_rows, per_class

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def saved(figure: Figure, path: Path) -> Image.Image:
    """The picture as written, after checks that hold for all: PNG, as large as asked for, white, with ink on it."""
    draw.save(figure, path)
    picture = Image.open(path)
    width, height = figure.get_size_inches() * 144
    assert picture.format == "PNG"
    assert picture.size == (int(width), int(height))
    grey = np.asarray(picture.convert("L"))
    assert {int(grey[y, x]) for x in (0, -1) for y in (0, -1)} == {255}
    assert (grey < 128).mean() > 0.001
    return picture


def texts(figure: Figure) -> str:
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text))


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def run(steps: int, every: int, score: str = "top1", **fixed: float) -> list[dict[str, Any]]:
    """Records of a run that gets better; ``fixed`` replaces values by constants."""
    history: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        record = {"step": step, "epoch": step // every, "loss": 2 / step, "learning_rate": 1e-3 / step}
        history.append({"kind": "train", **record, **fixed})
        if step % every == 0:
            record = {"step": step, "epoch": step // every, "nll": 2.5 / step, score: 1 - 1 / step}
            history.append({"kind": "validation", **record, **fixed})
    return history


def line(axes: Any, label: str) -> tuple[list[float], list[float]]:
    found = next(line for line in axes.lines if line.get_label() == label)
    return found.get_xdata().tolist(), found.get_ydata().tolist()


@pytest.mark.parametrize(("score", "title"), [("top1", "top-1 accuracy"), ("map", "mean average precision")])
def test_curves_show_loss_score_and_rate(tmp_path: Path, score: str, title: str) -> None:
    figure = draw.curves(run(100, 10, score))
    assert titles(figure) == ["loss", f"{title}: best 99.0 %, epoch 10", "learning rate"]
    assert {axes.get_xlabel() for axes in figure.axes} == {"step"}
    steps = list(range(10, 101, 10))
    assert line(figure.axes[0], "validation") == (steps, [2.5 / step for step in steps])
    assert saved(figure, tmp_path / "curves.png").width == int(3 * 4.2 * 144)


def test_curves_smooth_the_training_loss() -> None:
    """Of 100 losses each becomes the mean of itself and two on either side, fewer at the ends."""
    losses = [2 / step for step in range(1, 101)]
    _, smooth = line(draw.curves(run(100, 10)).axes[0], "training")
    assert smooth[50] == pytest.approx(sum(losses[48:53]) / 5)
    assert smooth[0] == pytest.approx(sum(losses[:3]) / 3)
    assert smooth[-1] == pytest.approx(sum(losses[-3:]) / 3)


def test_curves_mark_the_last_of_equally_good_epochs() -> None:
    history = [
        {"kind": "validation", "step": 10 * epoch, "epoch": epoch, "loss": 1.0, "top1": top1}
        for epoch, top1 in enumerate([0.5, 0.75, 0.75, 0.25], start=1)
    ]
    assert titles(draw.curves(history)) == ["loss", "top-1 accuracy: best 75.0 %, epoch 3"]


def test_curves_leave_out_what_is_not_finite(tmp_path: Path) -> None:
    history = run(20, 5)
    history[3]["loss"], history[7]["loss"], history[-1]["top1"] = math.nan, None, math.inf
    figure = draw.curves(history)
    assert len(line(figure.axes[0], "training")[0]) == 18
    assert "epoch 3" in titles(figure)[1]
    saved(figure, tmp_path / "curves.png")


@pytest.mark.parametrize(
    ("history", "panels"),
    [
        pytest.param(run(1, 2), 2, id="one training record"),
        pytest.param(run(1, 1)[1:], 2, id="one validation record"),
        pytest.param([{"kind": "train", "step": 1, "epoch": 0, "loss": 1.0}], 1, id="loss alone"),
        pytest.param([], 1, id="nothing yet"),
        pytest.param(run(50, 5, loss=0.5, learning_rate=0.0, top1=1.0), 3, id="constant"),
        pytest.param(run(2000, 2), 3, id="long"),
    ],
)
def test_curves_of_any_history(tmp_path: Path, history: list[dict[str, Any]], panels: int) -> None:
    figure = draw.curves(history)
    assert len(figure.axes) == panels
    saved(figure, tmp_path / "curves.png")


def mistakes(K: int) -> NDArray[np.int64]:
    """Class c is right 90 - c % 7 times and taken for the next 10 + c % 7 times, for the one after that twice."""
    rest = np.arange(K) % 7
    matrix = np.diag(90 - rest)
    matrix[np.arange(K), (np.arange(K) + 1) % K] = 10 + rest
    if K > 2:
        matrix[np.arange(K), (np.arange(K) + 2) % K] = 2
    return matrix


@pytest.mark.parametrize("K", [2, 10, 20, 50, 200])
def test_confusion(tmp_path: Path, K: int) -> None:
    matrix = mistakes(K)
    figure = draw.confusion(matrix.tolist(), [f"class {c}" for c in range(K)])
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "truth")
    assert titles(figure)[0] == f"{100 * matrix.trace() / matrix.sum():.1f} % of {matrix.sum():,} right"
    np.testing.assert_allclose(axes.images[0].get_array(), matrix / matrix.sum(1, keepdims=True))
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert names == ([f"class {c}" for c in range(K)] if K <= 50 else [])
    written = {tuple(map(int, text.get_position()[::-1])): int(text.get_text()) for text in axes.texts}
    expected = {(int(i), int(j)): int(matrix[i, j]) for i, j in np.argwhere(matrix)}
    assert written == (expected if K <= 20 else {})
    assert ("most frequent mistakes" in texts(figure)) == (K > 50)
    saved(figure, tmp_path / "confusion.png")


def test_confusion_of_many_classes_lists_the_most_frequent_mistakes() -> None:
    listed = draw.confusion(mistakes(60), [f"class {c}" for c in range(60)]).axes[1].texts[0].get_text().split("\n")
    assert len(listed) == 20
    assert listed[0] == "16 × class 6 → class 7"  # 10 + 6 % 7, and the first such class


@pytest.mark.parametrize("K", [2, 10, 200])
def test_confusion_without_images_or_without_mistakes(tmp_path: Path, K: int) -> None:
    names = [str(c) for c in range(K)]
    assert titles(draw.confusion(np.zeros((K, K), int), names))[0] == "0.0 % of 0 right"
    perfect = draw.confusion(3 * np.eye(K, dtype=int), names)
    assert titles(perfect)[0] == f"100.0 % of {3 * K} right"
    saved(perfect, tmp_path / "confusion.png")


def test_class_names_of_any_kind(tmp_path: Path) -> None:
    """Dollars are no formula, what the font lacks gives no warning, and long names are cut."""
    names = ["$_^{$", "猫", "line\nbreak", "n" * 60, "50 % _^{", ""]
    figure = draw.confusion(np.eye(6, dtype=int), names)
    shown = [tick.get_text().replace(r"\$", "$") for tick in figure.axes[0].get_yticklabels()]
    assert shown == ["$_^{$", "?", "line?break", "n" * 23 + "…", "50 % _^{", ""]
    saved(figure, tmp_path / "confusion.png")


def test_reliability_diagram(tmp_path: Path) -> None:
    """All 95 % sure and half right, then all 55 % sure: 45 % and 5 % off."""
    correct = np.arange(40) % 2 == 0
    before = reliability(np.full(40, 0.95), correct)
    after = reliability(np.full(40, 0.55), correct)
    figure = draw.reliability_diagram({"as trained": before, "temperature 3.20": after})
    upper, lower = figure.axes
    assert upper.get_title(loc="left") == "calibration error (ECE) 45.0 % → 5.0 %"
    assert (upper.get_ylabel(), lower.get_xlabel(), lower.get_ylabel()) == (
        "accuracy",
        "confidence",
        "share of decisions",
    )
    assert line(upper, "as trained") == ([pytest.approx(0.95)], [0.5])
    assert line(upper, "temperature 3.20") == ([pytest.approx(0.55)], [0.5])
    saved(figure, tmp_path / "reliability.png")


@pytest.mark.parametrize("n", [0, 1, 1000])
def test_reliability_diagram_of_one_table(tmp_path: Path, n: int) -> None:
    confidences = np.linspace(0, 1, n)
    figure = draw.reliability_diagram({"as trained": reliability(confidences, confidences > 0.3)})
    assert "ECE" in titles(figure)[0]
    assert "→" not in titles(figure)[0]
    saved(figure, tmp_path / "reliability.png")


@pytest.mark.parametrize("K", [1, 2, 10, 100, 200])
def test_per_class_bars(tmp_path: Path, K: int) -> None:
    matrix = np.pad(mistakes(K) if K > 1 else np.array([[4]]), (0, 1))  # and one class that does not occur
    rows = as_rows([f"class {c}" for c in range(K)] + ["absent"], per_class(matrix))
    figure = draw.per_class_bars(rows)
    axes = figure.axes[0]
    ranked = sorted(rows[:K], key=lambda row: row["f1"])[:100]
    assert [bar.get_width() for bar in axes.patches] == [row["f1"] for row in ranked]
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert names == [f"{row['label']} ({row['images']})" for row in ranked]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the weakest on top
    assert titles(figure)[0] == ("F1 of the 100 weakest of 200 classes" if K > 100 else f"F1 of {K} classes")
    saved(figure, tmp_path / "bars.png")


def test_saving_replaces_the_old_picture_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "plots" / "curves.png"
    saved(draw.curves(run(5, 5)), path)
    old = path.read_bytes()
    saved(draw.curves(run(9, 3)), path)
    assert path.read_bytes() != old
    assert [file.name for file in path.parent.iterdir()] == ["curves.png"]


def test_threads_draw_what_one_thread_draws(tmp_path: Path) -> None:
    def drawn(name: str) -> bytes:
        draw.save(draw.confusion(mistakes(4), ["a", "b", "c", "d"]), tmp_path / name)
        return (tmp_path / name).read_bytes()

    alone = drawn("alone.png")
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(drawn, [f"{i}.png" for i in range(8)])) == {alone}


def test_matplotlib_is_imported_late_and_pyplot_never() -> None:
    program = """
import sys
from vitrail.metrics import classification, draw, many_labels
assert not {"torch", "matplotlib"} & set(sys.modules)
draw.confusion([[1, 0], [0, 1]], ["a", "b"]), draw.curves([])
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
