"""The training loop: it trains anything with ``loss(batch)``, on one process or many, and can be killed at any time.

What makes resuming exact is not here but in what it is given: batch n and the dropout of step n depend on (seed, n)
alone, so the loop's whole memory is weights, optimizer, averages and a few numbers (`state.State`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from vitrail.choices import OptimizerName
from vitrail.console import progress, say
from vitrail.data.rng import torch_seed
from vitrail.errors import Interrupted, SettingError, TrainingDiverged
from vitrail.train import checkpoint, distributed, sharding
from vitrail.train.ema import Ema
from vitrail.train.log import MetricsLog
from vitrail.train.optim import build_optimizer, set_learning_rate
from vitrail.train.precision import products_in
from vitrail.train.recompute import recompute_blocks
from vitrail.train.schedule import warmup_cosine
from vitrail.train.state import State
from vitrail.train.stop import stop_requests


class Batch(Protocol):
    """What the loop asks of a batch, be it of images or of text."""

    @property
    def names(self) -> tuple[str, ...]:
        """What to call each of its samples."""

    def __len__(self) -> int: ...
    def split(self: B, parts: int) -> Iterator[B]: ...
    def to(self: B, device: torch.device) -> B: ...


B = TypeVar("B", bound=Batch)


@dataclass(frozen=True)
class Plan:
    """How to train; nothing is left to be guessed.

    Attributes:
        steps, steps_per_epoch: optimizer steps in all and in an epoch.
        validate_every: steps from one validation to the next; 0 for an epoch's.
        learning_rate: at its peak, for the last layer.
        beta2: decay of AdamW's second moment.
        warmup: steps until the peak.
        layer_decay: factor of the learning rate from each layer to the one below.
        clip: largest norm of the gradient, 0 for any.
        accumulate: parts into which each batch is cut to save memory; the result is the whole batch's.
        ema: decay of the weights' moving average, which is then what is validated and kept; 0 for none.
        patience: validations without a better score after which training ends, 0 for never.
        log_every: steps from one training record to the next.
        save_seconds: how often the state is saved besides at the end of training; never changes a result.
        recompute: keep no activations inside of blocks; compute them again in the backward pass.
        shard: spread weights and optimizer over the processes (FSDP2) instead of copying them to each (DDP).

    Raises :class:`SettingError` when these make no sense.
    """

    steps: int
    steps_per_epoch: int
    learning_rate: float
    validate_every: int = 0
    optimizer: OptimizerName = "adamw"
    beta2: float = 0.999
    weight_decay: float = 0.05
    warmup: int = 0
    layer_decay: float = 1.0
    clip: float = 1.0
    accumulate: int = 1
    ema: float = 0.0
    patience: int = 0
    log_every: int = 10
    save_seconds: float = 60.0
    recompute: bool = False
    shard: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SettingError("there is nothing to do: at least 1 epoch is needed.")
        if not 0 < self.learning_rate < math.inf:
            raise SettingError(f"the learning rate must be above 0, not {self.learning_rate}.")
        if not 0 < self.layer_decay <= 1:
            raise SettingError(f"the layer decay must be above 0 and at most 1, not {self.layer_decay}.")
        if not 0 <= self.ema < 1:
            raise SettingError(f"the decay of the moving average must be at least 0 and below 1, not {self.ema}.")
        if self.accumulate < 1:
            raise SettingError(f"a batch is cut into at least 1 part, not {self.accumulate}.")
        for name in ("validate_every", "weight_decay", "warmup", "clip", "patience"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingError(f"{name.replace('_', ' ')} must be 0 or more, not {getattr(self, name)}.")


def fit(
    learner: nn.Module,
    load: Callable[[int, int], Iterator[B]],
    plan: Plan,
    *,
    validate: Callable[[], dict[str, float]],
    score: str,
    lower_is_better: bool = False,
    latest: bool = False,
    keep: Callable[[], None],
    after_step: Callable[[float], None] = lambda done: None,
    folder: Path,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    tensorboard: bool = False,
) -> State:
    """Train ``learner`` for ``plan.steps`` steps, or go on from the state in ``folder`` to the same end.

    Args:
        learner: a module with ``loss(batch) -> {"loss": scalar, …}``, ``depth`` and ``layer(name)``.
        load: ``load(start, stop)`` iterates over batches ``start`` … ``stop - 1``.
        validate: figures of the learner as it is now; called after each epoch, by every process.
        score, lower_is_better: which figure decides, and whether less of it is better.
        latest: take the learner as it is now for the best so far, whatever its score.
        keep: called, by every process, when the learner as it is now has the best score so far.
        after_step: called after each step with the share of all steps that is done.
        folder: where ``metrics.jsonl`` and ``last/`` go.
        device, dtype: where to compute, and the format of matrix products.
        tensorboard: write TensorBoard events into ``folder/tensorboard``, too.

    Raises :class:`TrainingDiverged` when loss or gradient is no longer finite, :class:`Interrupted` after a signal,
    when the state has been saved.
    """
    if plan.recompute:
        recompute_blocks(learner)
    loss_of = sharding.parallel_loss(learner, plan.shard)
    rates = (plan.learning_rate, plan.weight_decay, plan.layer_decay, plan.beta2)
    optimizer = build_optimizer(learner, plan.optimizer, *rates)  # type: ignore[arg-type]
    ema = Ema(learner, plan.ema) if plan.ema else None
    state = checkpoint.restore(folder, learner, optimizer, ema)
    if state.finished:
        say("this run has finished: nothing is left to train.")
        return state

    first, sign = distributed.rank() == 0, -1 if lower_is_better else 1
    events = folder / "tensorboard" if tensorboard else None
    log = MetricsLog(folder / "metrics.jsonl", state.log_bytes, events, state.step) if first else None
    words = ""
    saved = time.monotonic()
    bar = progress("training", plan.steps, done=state.step)
    with closing(log) if log else nullcontext(), stop_requests() as stop, bar as advance:
        for batch in load(state.step, plan.steps):
            learning_rate = plan.learning_rate * warmup_cosine(state.step, plan.steps, plan.warmup)
            set_learning_rate(optimizer, learning_rate)
            torch.manual_seed(torch_seed(plan.seed, "dropout", state.step, distributed.rank()))

            loss = _backward(loss_of, batch.to(device), plan.accumulate, dtype, device)
            norm = _clip(learner, plan.clip)
            _check_finite(loss, norm, state.step, learning_rate, batch)
            optimizer.step()
            optimizer.zero_grad()
            distributed.share_buffers(learner)
            state.step += 1
            after_step(state.step / plan.steps)
            if ema is not None:
                ema.update(learner, state.step)

            epoch = math.ceil(state.step / plan.steps_per_epoch)
            if state.step % plan.log_every == 0:
                record = {"kind": "train", "step": state.step, "epoch": epoch, "loss": distributed.mean(loss)}
                _write(log, record | {"learning_rate": learning_rate, "gradient_norm": norm})
            if state.step % (plan.validate_every or plan.steps_per_epoch) == 0 or state.step == plan.steps:
                figures = _validate(learner, ema, validate, score, sign, latest, keep, state)
                _write(log, {"kind": "validation", "step": state.step, "epoch": epoch} | figures)
                words = f"{score} {figures[score]:.4f} (best {sign * state.best:.4f})"
            advance(state.step, f"epoch {epoch}, loss {loss.item():.3f} {words}")

            state.finished = state.step == plan.steps or 0 < plan.patience <= state.waited
            asked = distributed.any_process(bool(stop))
            overdue = distributed.any_process(time.monotonic() - saved > plan.save_seconds)
            if state.finished or asked or overdue:
                state.log_bytes = log.sync() if log else 0
                checkpoint.save(folder, state, learner, optimizer, ema)
                saved = time.monotonic()
            if state.finished:
                break
            if asked:
                number = max(distributed.gather(stop.signal_number))
                raise Interrupted(f"stopped after step {state.step} of {plan.steps}; all is saved.", number)
    return state


def _backward(
    loss_of: Callable[[B], dict[str, Tensor]], batch: B, parts: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Gradients of the mean loss of ``batch``, part by part; returns that loss."""
    total = torch.zeros((), device=device)
    for part in batch.split(parts):
        with products_in(dtype, device):
            loss = loss_of(part)["loss"] * (len(part) / len(batch))
        loss.backward()
        total += loss.detach()
    return total


def _clip(learner: nn.Module, largest: float) -> float:
    """Scale gradients down to the norm ``largest``; returns the norm before."""
    norm: Any = nn.utils.clip_grad_norm_(learner.parameters(), largest or math.inf)
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)


def _check_finite(loss: Tensor, norm: float, step: int, learning_rate: float, batch: Batch) -> None:
    if math.isfinite(loss.item()) and math.isfinite(norm):
        return
    names = ", ".join(batch.names[:4]) + (" …" if len(batch) > 4 else "")
    raise TrainingDiverged(
        f"training diverged at step {step} (learning rate {learning_rate:.3g}): loss {loss.item():g}, gradient norm "
        f"{norm:g}, on the batch of {names}; try a smaller --learning-rate, or --precision float32."
    )


def _validate(
    learner: nn.Module,
    ema: Ema | None,
    validate: Callable[[], dict[str, float]],
    score: str,
    sign: int,
    latest: bool,
    keep: Callable[[], None],
    state: State,
) -> dict[str, float]:
    """Measure the learner (its average, where there is one), keep it if it is the best so far.

    ``sign`` times the score is what more of is better; that is what the state remembers.
    """
    learner.eval()
    with ema.in_place_of(learner) if ema else torch.no_grad():
        figures = validate()
        reached = sign * figures[score]
        state.waited = 0 if reached > state.best else state.waited + 1
        if latest or reached >= state.best:  # of equals the later one, which is the surer of what it says
            state.best, state.best_step = reached, state.step
            keep()
    learner.train()
    return figures


def _write(log: MetricsLog | None, record: dict[str, Any]) -> None:
    if log:
        log.write({key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in record.items()})
