"""The loop on modules whose gradients are known, and on a small ViT that is stopped, killed and resumed everywhere."""

from __future__ import annotations

import json
import math
import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Batch
from vitrail.errors import DiskFull, Interrupted, SettingError, TrainingDiverged
from vitrail.tasks.classification import Classification
from vitrail.train import loop
from vitrail.train.log import read_log
from vitrail.train.loop import Plan, fit
from vitrail.train.schedule import warmup_cosine
from vitrail.train.state import STATE, State

CPU = torch.device("cpu")
NEVER, ALWAYS = 1e9, 0.0  # seconds between two saves


class Linear(nn.Module):
    """Squared error of ``w · x`` against a label; or with ``slope`` the constant gradient ``slope``."""

    depth = 0

    def __init__(self, slope: tuple[float, ...] | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 2 if slope else 5))
        self.slope = slope

    def layer(self, parameter_name: str) -> int:
        return 0

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        if self.slope:
            return {"loss": (self.weight * torch.tensor(self.slope)).sum() + 0 * batch.images.sum()}
        assert batch.labels is not None
        return {"loss": (batch.images.flatten(1) @ self.weight - batch.labels[:, 0]).square().mean()}


def batch(step: int, rows: int = 12) -> Batch:
    chance = torch.Generator().manual_seed(step)
    images = torch.randn(rows, 1, 1, 5, generator=chance)
    names = tuple(f"image-{step}-{row}" for row in range(rows))
    return Batch(images, names, torch.randn(rows, 1, generator=chance), step=step)


def load(start: int, stop: int) -> Iterator[Batch]:
    return map(batch, range(start, stop))


def run(
    folder: Path,
    learner: nn.Module,
    plan: Plan,
    load: Callable[[int, int], Iterator[Batch]] = load,
    scores: Callable[[], dict[str, float]] = lambda: {"top1": 0.0},
    keep: Callable[[], None] = lambda: None,
    **options: Any,
) -> State:
    folder.mkdir(exist_ok=True)
    return fit(learner, load, plan, validate=scores, score="top1", keep=keep, folder=folder, device=CPU, **options)


def recorded(folder: Path, key: str) -> list[float]:
    return [record[key] for record in read_log(folder / "metrics.jsonl") if record["kind"] == "train"]


SIMPLE = Plan(steps=6, steps_per_epoch=3, learning_rate=0.1, optimizer="sgd", weight_decay=0.0, log_every=1, clip=0)


# ------------------------------------------------------------------------------------------------- what a step does


@pytest.mark.parametrize("parts", [2, 3, 5, 12, 100])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_batch_in_parts_is_the_whole_batch(tmp_path: Path, parts: int, optimizer: Any) -> None:
    whole, cut = Linear(), Linear()
    plan = replace(SIMPLE, optimizer=optimizer, clip=0.5)
    run(tmp_path / "whole", whole, plan)
    run(tmp_path / "cut", cut, replace(plan, accumulate=parts))
    torch.testing.assert_close(cut.weight, whole.weight, atol=1e-6, rtol=0)
    for key in ("loss", "gradient_norm"):
        assert recorded(tmp_path / "cut", key) == pytest.approx(recorded(tmp_path / "whole", key), rel=1e-5)


def test_the_gradient_is_that_of_the_mean_over_the_batch(tmp_path: Path) -> None:
    learner = Linear()
    before, images, labels = learner.weight.detach().clone(), batch(0).images.flatten(1), batch(0).labels
    assert labels is not None
    gradient = 2 * images.T @ (images @ before - labels[:, 0]) / 12
    run(tmp_path, learner, replace(SIMPLE, steps=1))
    rate = 0.1 * warmup_cosine(0, 1, 0)
    expected = before - rate * 1.9 * gradient  # Nesterov's first step: gradient + 0.9 · gradient
    torch.testing.assert_close(learner.weight.detach(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("clip", "factor"), [(0.0, 1.0), (1.0, 0.2), (2.5, 0.5), (5.0, 1.0), (100.0, 1.0)])
def test_a_gradient_of_norm_5_is_clipped(tmp_path: Path, clip: float, factor: float) -> None:
    learner = Linear(slope=(3.0, -4.0))
    before = learner.weight.detach().clone()
    run(tmp_path, learner, replace(SIMPLE, steps=1, clip=clip))
    expected = before - 0.1 * 1.9 * factor * torch.tensor([3.0, -4.0])
    torch.testing.assert_close(learner.weight.detach(), expected, atol=1e-5, rtol=0)
    assert recorded(tmp_path, "gradient_norm") == [5.0]  # before it was clipped


def test_the_learning_rate_follows_its_schedule_and_the_layers(tmp_path: Path) -> None:
    class Layers(Linear):
        depth = 2

    learner = Layers(slope=(1.0, 0.0))
    plan = replace(SIMPLE, steps=4, warmup=2, layer_decay=0.5)
    before = learner.weight[0].item()
    run(tmp_path, learner, plan)
    rates = [0.05, 0.1, 0.1, 0.1 * (0.01 + 0.99 * 0.5)]  # two steps of warm-up, top and middle of the cosine
    assert recorded(tmp_path, "learning_rate") == pytest.approx(rates)
    velocity, expected = 0.0, before
    for rate in rates:
        velocity = 0.9 * velocity + 1.0
        expected -= 0.25 * rate * (1.0 + 0.9 * velocity)
    assert learner.weight[0].item() == pytest.approx(expected, abs=1e-6)


def test_small_numbers_keep_their_digits_in_the_records(tmp_path: Path) -> None:
    run(tmp_path, Linear(), replace(SIMPLE, steps=1, learning_rate=1.25e-7))
    assert recorded(tmp_path, "learning_rate") == [1.25e-7]


def test_records_say_when_and_what(tmp_path: Path) -> None:
    learner = Linear()
    plan = replace(SIMPLE, steps=7, steps_per_epoch=3, log_every=2)
    run(tmp_path, learner, plan, scores=lambda: {"top1": 0.5, "nll": 1 / 3})
    records = read_log(tmp_path / "metrics.jsonl")
    assert [(r["kind"], r["step"], r["epoch"]) for r in records] == [
        ("train", 2, 1), ("validation", 3, 1), ("train", 4, 2), ("train", 6, 2), ("validation", 6, 2),
        ("validation", 7, 3),
    ]  # fmt: skip
    assert records[1] == {"kind": "validation", "step": 3, "epoch": 1, "top1": 0.5, "nll": 0.333333}
    assert list(records[0]) == ["kind", "step", "epoch", "loss", "learning_rate", "gradient_norm"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 0}, "at least 1 epoch"),
        ({"learning_rate": 0.0}, "learning rate must be above 0, not 0.0"),
        ({"learning_rate": math.nan}, "learning rate must be above 0, not nan"),
        ({"layer_decay": 0.0}, "layer decay must be above 0 and at most 1, not 0.0"),
        ({"layer_decay": 1.1}, "layer decay"),
        ({"ema": 1.0}, "moving average must be at least 0 and below 1, not 1.0"),
        ({"accumulate": 0}, "at least 1 part, not 0"),
        ({"weight_decay": -0.1}, "weight decay must be 0 or more, not -0.1"),
        ({"warmup": -1}, "warmup must be 0 or more"),
        ({"clip": math.nan}, "clip must be 0 or more, not nan"),
        ({"patience": -1}, "patience must be 0 or more"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=re.escape(words)):
        replace(SIMPLE, **change)


# ---------------------------------------------------------------------------------------------- the best, and the end


def scripted(scores: list[float]) -> Callable[[], dict[str, float]]:
    left = iter(scores)
    return lambda: {"top1": next(left)}


def test_the_weights_with_the_best_score_are_kept(tmp_path: Path) -> None:
    learner = Linear()
    kept: list[Tensor] = []
    at_validation: list[Tensor] = []
    scores = scripted([0.2, 0.7, 0.7, 0.6, 0.9, 0.8])

    def validate() -> dict[str, float]:
        assert not learner.training
        at_validation.append(learner.weight.detach().clone())
        return scores()

    state = run(
        tmp_path, learner, replace(SIMPLE, steps=12, steps_per_epoch=2), scores=validate,
        keep=lambda: kept.append(learner.weight.detach().clone()),
    )  # fmt: skip
    assert [t.tolist() for t in kept] == [at_validation[k].tolist() for k in (0, 1, 2, 4)]  # of equals the later
    assert (state.best, state.best_step, state.waited, state.step) == (0.9, 10, 1, 12)
    assert learner.training


def test_where_less_is_better_the_least_is_kept(tmp_path: Path) -> None:
    kept: list[int] = []
    learner = Linear()
    state = run(
        tmp_path, learner, replace(SIMPLE, steps=12, steps_per_epoch=2, patience=2), lower_is_better=True,
        scores=scripted([0.9, 0.3, 0.3, 0.5, 0.4, 0.1]), keep=lambda: kept.append(1),
    )  # fmt: skip
    assert len(kept) == 3
    assert (state.best, state.best_step, state.finished, state.step) == (-0.3, 6, True, 8)  # the last before patience


@pytest.mark.parametrize(("every", "steps"), [(0, [5, 10, 12]), (4, [4, 8, 12]), (7, [7, 12])])
def test_validations_come_when_they_are_planned(tmp_path: Path, every: int, steps: list[int]) -> None:
    run(tmp_path, Linear(), replace(SIMPLE, steps=12, steps_per_epoch=5, validate_every=every))
    records = [record for record in read_log(tmp_path / "metrics.jsonl") if record["kind"] == "validation"]
    assert [record["step"] for record in records] == steps
    assert [record["epoch"] for record in records] == [math.ceil(step / 5) for step in steps]


def test_after_each_step_the_learner_is_told_how_much_is_done(tmp_path: Path) -> None:
    told: list[float] = []
    run(tmp_path, Linear(), replace(SIMPLE, steps=4, steps_per_epoch=4), after_step=told.append)
    assert told == [0.25, 0.5, 0.75, 1.0]


def test_with_a_moving_average_it_is_the_average_that_is_measured_and_kept(tmp_path: Path) -> None:
    learner, kept = Linear(), []
    plan = replace(SIMPLE, steps=4, steps_per_epoch=4, ema=0.5)
    run(tmp_path, learner, plan, keep=lambda: kept.append(learner.weight.detach().clone()))
    alone, average, step = Linear(), torch.linspace(-1, 1, 5).double(), 0

    def follow() -> dict[str, float]:
        nonlocal average, step
        step += 1
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * alone.weight.detach().double()
        return {"top1": 0.0}

    run(tmp_path / "alone", alone, replace(plan, ema=0, steps_per_epoch=1), scores=follow)
    assert torch.equal(learner.weight, alone.weight)  # training goes on with the weights themselves
    torch.testing.assert_close(kept[0].double(), average, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("scores", "patience", "epochs", "best"),
    [
        ([0.1, 0.5, 0.4, 0.5, 0.9, 0.9], 2, 4, 4),  # two that are not better, though one is as good
        ([0.1, 0.5, 0.4, 0.6, 0.5, 0.5], 2, 6, 4),  # it began to count anew
        ([0.5, 0.4, 0.3, 0.2, 0.1, 0.0], 1, 2, 1),
        ([0.5, 0.4, 0.3, 0.2, 0.1, 0.0], 0, 6, 1),  # never
    ],
)
def test_training_ends_when_nothing_gets_better(
    tmp_path: Path, scores: list[float], patience: int, epochs: int, best: int
) -> None:
    plan = replace(SIMPLE, steps=12, steps_per_epoch=2, patience=patience)
    state = run(tmp_path, Linear(), plan, scores=scripted(scores))
    assert (state.step, state.best_step, state.finished) == (2 * epochs, 2 * best, True)


def test_a_finished_run_is_not_gone_on_with(tmp_path: Path) -> None:
    learner = Linear()
    plan = replace(SIMPLE, patience=1, steps_per_epoch=1)
    state = run(tmp_path, learner, plan, scores=scripted([0.5, 0.4]))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = Linear()
    assert run(tmp_path, again, plan, load=lambda start, stop: pytest.fail("nothing is to be loaded")) == state
    assert torch.equal(again.weight, learner.weight)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


# --------------------------------------------------------------------------------------------------------- divergence


class Bad(Linear):
    """Finite until step 4, whose loss or gradient is not."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        loss = super().loss(batch)["loss"]
        if batch.step == 4:
            zero = (self.weight - self.weight.detach()).abs().sum()
            loss = loss + {"nan": zero * math.nan, "inf": zero + math.inf, "gradient": zero.sqrt()}[self.what]
        return {"loss": loss}


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize(("what", "said"), [("nan", "loss nan"), ("inf", "loss inf"), ("gradient", "norm nan")])
def test_a_loss_or_gradient_that_is_not_finite_stops(tmp_path: Path, what: str, said: str, parts: int) -> None:
    plan = replace(SIMPLE, save_seconds=ALWAYS, accumulate=parts)
    learner = Bad(what)
    after_four = Linear()
    run(tmp_path / "four", after_four, replace(plan, save_seconds=NEVER), load=lambda a, b: stop_before(4, a, b))
    with pytest.raises(TrainingDiverged) as caught:
        run(tmp_path, learner, plan)
    words = str(caught.value)
    assert said in words
    assert "at step 4 " in words
    assert f"learning rate {0.1 * warmup_cosine(4, 6, 0):.3g}" in words
    assert "image-4-0, image-4-1, image-4-2, image-4-3 …" in words
    assert "image-4-4" not in words
    assert "\n" not in words
    assert torch.equal(learner.weight, after_four.weight)  # the step was not taken
    saved = torch.load(tmp_path / STATE, weights_only=True)
    assert saved["state"]["step"] == 4
    assert torch.equal(saved["weights"]["weight"], after_four.weight)


def stop_before(step: int, start: int, stop: int) -> Iterator[Batch]:
    """The batches before ``step`` alone."""
    return load(start, min(step, stop))


# ------------------------------------------------------------------------------- stopped, killed and resumed anywhere


STEPS = 9
SMALL = {"width": 16, "depth": 2, "heads": 2, "mlp": 16, "image_size": 8, "patch_size": 4}
LONG = Plan(
    steps=STEPS, steps_per_epoch=4, learning_rate=0.01, warmup=2, layer_decay=0.8, accumulate=2, ema=0.9, log_every=2,
    save_seconds=NEVER, seed=5,
)  # fmt: skip


class Killed(BaseException):
    """As SIGKILL: nothing in the program may catch it."""


def vit() -> Classification:
    torch.manual_seed(0)
    backbone = models.create("vit-ti16", **SMALL, dropout=0.2, drop_path=0.3)
    return Classification("vit-ti16", backbone, ("a", "b", "c"), Preprocess(size=(8, 8)))


def image_batch(step: int) -> Batch:
    chance = torch.Generator().manual_seed(step)
    images = torch.randint(256, (6, 3, 8, 8), dtype=torch.uint8, generator=chance)
    labels = torch.eye(3)[torch.randint(3, (6,), generator=chance)]
    return Batch(images, tuple(map(str, range(6))), labels, step=step)


def train(folder: Path, plan: Plan = LONG, before_step: Callable[[int], None] = lambda step: None) -> dict[str, Any]:
    """Train, or go on, to the end, and return all that can be compared; ``before_step`` may put an end to it."""
    task = vit()
    images = image_batch(1000).images

    def batches(start: int, stop: int) -> Iterator[Batch]:
        for step in range(start, stop):
            before_step(step)
            yield image_batch(step)

    def validate() -> dict[str, float]:
        with torch.no_grad():
            return {"top1": task(images).std().item()}  # any number that depends on every weight

    def keep() -> None:
        torch.save(task.state_dict(), folder / "best.pt")

    torch.manual_seed(os.getpid())  # whatever was drawn before must not matter
    state = run(folder, task, plan, load=batches, scores=validate, keep=keep)
    return {
        "state": state,
        "weights": task.state_dict(),
        "best": torch.load(folder / "best.pt", weights_only=True),
        "saved": torch.load(folder / STATE, weights_only=True),
        "metrics": (folder / "metrics.jsonl").read_bytes(),
    }


def assert_same(one: Any, other: Any) -> None:
    """Equal to the last bit, whatever is in whatever."""
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype
        assert one.numpy().tobytes() == other.numpy().tobytes()
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    else:
        assert one == other


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The run that nobody stopped."""
    return train(tmp_path_factory.mktemp("reference"))


def test_the_same_run_twice_is_the_same_to_the_last_bit(tmp_path: Path, reference: dict[str, Any]) -> None:
    assert_same(train(tmp_path), reference)
    assert len(reference["metrics"].splitlines()) == 4 + 3
    assert reference["state"].finished
    assert not torch.equal(reference["saved"]["ema"]["head.linear.weight"], reference["weights"]["head.linear.weight"])


def test_another_seed_is_another_run(tmp_path: Path, reference: dict[str, Any]) -> None:
    """Batches and initial weights are the same here: it is dropout and drop-path that differ."""
    other = train(tmp_path, replace(LONG, seed=6))
    assert not torch.equal(other["weights"]["head.linear.weight"], reference["weights"]["head.linear.weight"])


def kill_at(step: int) -> Callable[[int], None]:
    def check(now: int) -> None:
        if now == step:
            raise Killed

    return check


@pytest.mark.parametrize("step", range(STEPS))
def test_killed_at_any_step_it_ends_the_same(tmp_path: Path, reference: dict[str, Any], step: int) -> None:
    with pytest.raises(Killed):
        train(tmp_path, replace(LONG, save_seconds=ALWAYS), kill_at(step))
    assert_same(train(tmp_path), reference)


@pytest.mark.parametrize(("saved", "killed"), [(0, 7), (2, 3), (3, 8), (4, 5), (5, 8)])
def test_what_was_done_after_the_last_save_is_done_again(
    tmp_path: Path, reference: dict[str, Any], saved: int, killed: int
) -> None:
    with pytest.raises(Killed):
        train(tmp_path, replace(LONG, save_seconds=ALWAYS), kill_at(saved))
    with pytest.raises(Killed):
        train(tmp_path, before_step=kill_at(killed))
    assert_same(train(tmp_path), reference)


def test_killed_at_every_step_it_ends_the_same(tmp_path: Path, reference: dict[str, Any]) -> None:
    for step in range(1, STEPS):
        with pytest.raises(Killed):
            train(tmp_path, replace(LONG, save_seconds=ALWAYS), kill_at(step))
    assert_same(train(tmp_path), reference)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("step", [0, 3, 6])
def test_a_signal_saves_and_stops(
    tmp_path: Path, reference: dict[str, Any], number: signal.Signals, status: int, step: int
) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught:
        train(tmp_path, before_step=lambda now: signal.raise_signal(number) if now == step else None)
    assert caught.value.exit_status == status
    assert str(caught.value) == f"stopped after step {step + 1} of {STEPS}; all is saved."
    assert torch.load(tmp_path / STATE, weights_only=True)["state"]["step"] == step + 1
    assert signal.getsignal(number) == before
    assert_same(train(tmp_path), reference)


def test_a_signal_during_the_last_step_changes_nothing(tmp_path: Path, reference: dict[str, Any]) -> None:
    stop = lambda now: signal.raise_signal(signal.SIGTERM) if now == STEPS - 1 else None  # noqa: E731
    assert_same(train(tmp_path, before_step=stop), reference)


def test_a_full_disk_stops_and_leaves_a_state_to_go_on_with(
    tmp_path: Path, reference: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes = Path.write_bytes
    writes = 0

    def full_at_the_third(path: Path, data: bytes) -> int:
        nonlocal writes
        writes += 1
        if writes == 3:
            raise OSError(28, "No space left on device")
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", full_at_the_third)
    with pytest.raises(DiskFull, match=r"state\.pt could not be written"):
        train(tmp_path, replace(LONG, save_seconds=ALWAYS))
    monkeypatch.undo()
    assert torch.load(tmp_path / STATE, weights_only=True)["state"]["step"] == 2
    assert_same(train(tmp_path), reference)


def test_the_metrics_are_json_lines_without_times(reference: dict[str, Any]) -> None:
    keys = {key for line in reference["metrics"].splitlines() for key in json.loads(line)}
    assert keys == {"kind", "step", "epoch", "loss", "learning_rate", "gradient_norm", "top1"}


def test_in_bfloat16_products_are_of_that_format_and_weights_stay_float32(tmp_path: Path) -> None:
    task, formats = vit(), set()
    task.backbone.register_forward_hook(lambda module, inputs, output: formats.add(output.tokens.dtype))
    task.head.register_forward_hook(lambda module, inputs, output: formats.add(output.dtype))
    run(tmp_path, task, LONG, load=lambda a, b: map(image_batch, range(a, b)), dtype=torch.bfloat16)
    assert torch.bfloat16 in formats
    assert {parameter.dtype for parameter in task.parameters()} == {torch.float32}
    assert all(map(math.isfinite, recorded(tmp_path, "loss")))


def test_the_log_is_closed_however_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = []
    make = loop.MetricsLog
    monkeypatch.setattr(loop, "MetricsLog", lambda *words: logs.append(make(*words)) or logs[-1])
    with pytest.raises(Killed):
        train(tmp_path, before_step=kill_at(1))
    assert logs[0].file.closed
