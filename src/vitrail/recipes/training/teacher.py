"""The teacher beside a student, `--teacher`: loaded at the start, and the same one when a run goes on."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from vitrail.console import say
from vitrail.errors import SettingError
from vitrail.objectives.distill import Distillation
from vitrail.recipes.training.settings import Train
from vitrail.tasks import Classification
from vitrail.weights.load import load


def with_teacher(settings: Train, task: Classification) -> nn.Module:
    """What is trained: ``task`` itself, or with --teacher an objective around it.

    Raises :class:`CheckpointError` or :class:`RunError` for a teacher that cannot be loaded, and
    :class:`SettingError` for one that does not know the task's classes.
    """
    if settings.teacher is None:
        return task
    teacher = load(settings.teacher)
    if not isinstance(teacher, Classification):
        raise SettingError(f"{settings.teacher} knows no classes, so it cannot teach; name a trained classifier.")
    say(f"taught by a {teacher.model} from {settings.teacher}, {settings.distill} labels")
    return Distillation(task, teacher, settings.distill)


def fingerprint(learner: nn.Module) -> str | None:
    """A hash of the teacher's weights: another value means another teacher. None without one."""
    if not isinstance(learner, Distillation):
        return None
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(learner.teacher.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.reshape(-1).contiguous().view(torch.uint8).cpu().numpy().data)
    return digest.hexdigest()
