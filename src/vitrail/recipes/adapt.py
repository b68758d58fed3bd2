"""Which weights of a model are trained: all, those above some layer, the head alone, or low-rank changes."""

from __future__ import annotations

from torch import nn

from vitrail.choices import Adapt
from vitrail.errors import SettingError
from vitrail.nn.lora import add_lora
from vitrail.tasks.learner import Learner


def adapt(task: Learner, how: Adapt, freeze: int = 0, rank: int = 8) -> None:
    """Switch off the gradients of everything in ``task`` that is to stay as it is.

    Args:
        how: "full" trains every weight, "head" the classifier alone, "lora" the classifier and a change of rank
            ``rank`` to each of the attention's projections (Hu et al. 2022), scaled by α / r = 2.
        freeze: with "full", layers below this one stay as they are; `Backbone.layer` counts them.

    Raises :class:`SettingError` for a model without such projections, or with fewer layers.
    """
    if how != "full" and freeze:
        raise SettingError(f"--freeze is for --adapt full; --adapt {how} leaves every layer as it is.")
    if freeze > task.depth:
        raise SettingError(
            f"--freeze {freeze} is more than {task.model} has, whose last layer is {task.depth}; to train the "
            "classifier alone, take --adapt head."
        )
    for name, parameter in task.backbone.named_parameters():
        if how != "full" or task.backbone.layer(name) < freeze:
            parameter.requires_grad_(False)
    if how == "lora" and not add_lora(task.backbone, task.backbone.projections, rank, alpha=2 * rank):
        raise SettingError(f"--adapt lora changes attention, and {task.model} has none; take --adapt head or full.")
    for name, parameter in task.backbone.named_parameters():
        if not task.backbone.reads(name):  # which would wait for a gradient in vain
            parameter.requires_grad_(False)
    task.train()  # so that frozen parts are in evaluation mode from the first step on


def refuse_frozen_noise(how: Adapt, freeze: int, model: str, weights: str) -> None:
    """Raises :class:`SettingError` where random weights would stay as they are; ``weights`` as `Choice` has them."""
    if weights == "none" and (how != "full" or freeze):
        flag = f"--adapt {how}" if how != "full" else f"--freeze {freeze}"
        raise SettingError(f"{flag} keeps trained weights, and {model} has none to begin with; name some by --weights.")


def parameters(module: nn.Module) -> str:
    """Number of a module's parameters, and of those that training changes, in words."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in module.parameters()]
    everything, trained = sum(size for size, _ in sizes), sum(size for size, grad in sizes if grad)
    part = "" if trained == everything else f", of which {trained:,} ({trained / everything:.1%}) are trained"
    return f"{everything:,} parameters{part}"
