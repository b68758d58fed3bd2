"""Distillation: a student learns the labels of its images, and what a trained teacher says of the same images.

Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015, arXiv:1503.02531; the hard kind and the
distillation token are of DeiT (Touvron et al. 2021, arXiv:2012.12877, section 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail.choices import DistillationKind
from vitrail.data.sample import Batch
from vitrail.errors import SettingError
from vitrail.heads.distilled import DistilledHead
from vitrail.tasks.classification import Classification


class Distillation(nn.Module):
    """A classification that is trained with a teacher beside it: ``(1 - alpha) · base + alpha · distillation``.

    The student is what trains and what is kept. Its class token learns the labels and its distillation token the
    teacher; a student without that token learns both with the same logits. The teacher only answers: it is frozen,
    always in evaluation mode, and no submodule, so that no optimizer, average or checkpoint holds its weights; yet it
    moves along to another device. It sees the student's own augmented views, normalised and resized as it needs them.

    Args:
        student, teacher: tasks with the same classes in the same order, one class an image.
        kind: "hard", cross-entropy with the teacher's most probable class, or "soft", its probabilities.
        alpha: the teacher's share of the loss.
        temperature: T, by which the soft kind divides both logits.

    Raises :class:`SettingError` for a share or temperature that makes no sense, and for a teacher whose classes or
    channels are not the student's.
    """

    def __init__(
        self,
        student: Classification,
        teacher: Classification,
        kind: DistillationKind = "hard",
        alpha: float = 0.5,
        temperature: float = 3.0,
    ) -> None:
        super().__init__()
        if kind not in ("hard", "soft"):
            raise SettingError(f"distillation is hard or soft, not '{kind}'.")
        if not 0 <= alpha <= 1:
            raise SettingError(f"the teacher's share of the loss must be from 0 to 1, not {alpha}.")
        if not 0 < temperature < math.inf:
            raise SettingError(f"the temperature of distillation must be above 0, not {temperature}.")
        check_teacher(student, teacher)
        self.student = student
        self.kind = kind
        self.alpha = alpha
        self.temperature = temperature
        self._teacher = (teacher.eval().requires_grad_(False),)  # in a tuple it is no submodule

    @property
    def teacher(self) -> Classification:
        """Who is asked."""
        return self._teacher[0]

    def forward(self, images: Tensor) -> Tensor:
        """The student's logits ``(B, K)``."""
        return self.student(images)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The mixed ``loss``, and its two parts: ``base`` of the labels, ``distillation`` of the teacher."""
        assert batch.labels is not None, "distillation needs labels"
        features, head = self.student.features(batch.images), self.student.head
        if isinstance(head, DistilledHead):
            of_class, of_distillation = head.both(features)
            labelled, taught = [(of_class, 1.0)], [(of_distillation, 1.0)]
        else:
            labelled = taught = head.outputs(features)  # type: ignore[operator]
        teacher = self.teacher_logits(batch.images)
        base = weighted(labelled, self.student.criterion, batch.labels)
        distillation = weighted(taught, self.criterion, teacher)
        loss = (1 - self.alpha) * base + self.alpha * distillation
        return {"loss": loss, "base": base, "distillation": distillation}

    def criterion(self, logits: Tensor, teacher: Tensor) -> Tensor:
        """How far logits ``(B, K)`` float32 are from the teacher's; a scalar, the mean over the images."""
        if self.kind == "hard":
            return F.cross_entropy(logits, teacher.argmax(dim=1))
        return soft_distillation(logits, teacher, self.temperature)

    @torch.no_grad()
    def teacher_logits(self, images: Tensor) -> Tensor:
        """What the teacher says of images ``(B, C, H, W)`` uint8 of the student's size: ``(B, K)`` float32."""
        preprocess, pixels = self.teacher.preprocess, images
        if pixels.shape[-2:] != preprocess.size:
            pixels = F.interpolate(pixels.float(), preprocess.size, mode="bilinear", antialias=True)
        return self.teacher(preprocess.normalize(pixels)).float()

    @property
    def depth(self) -> int:
        """Number of the student's last layer, for layer-wise learning rates."""
        return self.student.depth

    def layer(self, parameter_name: str) -> int:
        """The layer a parameter belongs to."""
        return self.student.layer(parameter_name.removeprefix("student."))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """What PyTorch's ``to``, ``cuda`` … go through: the teacher comes along."""
        self.teacher._apply(fn, recurse)
        return super()._apply(fn, recurse)


def soft_distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(logits / T)) of logits ``(B, K)``, the mean over the B images.

    T² keeps the gradients' size whatever T is (Hinton et al. 2015, section 2). DeiT's paper has the same (section 4);
    its code (losses.py) divides by K, too, so that the teacher counts less the more classes there are.
    """
    targets = F.log_softmax(teacher / temperature, dim=1)
    predictions = F.log_softmax(logits / temperature, dim=1)
    return temperature**2 * F.kl_div(predictions, targets, reduction="batchmean", log_target=True)


def weighted(
    outputs: Sequence[tuple[Tensor, float]], criterion: Callable[[Tensor, Tensor], Tensor], targets: Tensor
) -> Tensor:
    """The sum of a criterion over a head's outputs, each with its weight."""
    return torch.stack([weight * criterion(logits.float(), targets) for logits, weight in outputs]).sum()


def check_teacher(student: Classification, teacher: Classification) -> None:
    """Raise :class:`SettingError` unless the teacher can say something of the student's images and classes."""
    if student.many_labels or teacher.many_labels:
        raise SettingError("a teacher is asked for one class an image; distil models without many labels.")
    ours, theirs = student.preprocess.channels, teacher.preprocess.channels
    if ours != theirs:
        raise SettingError(f"the teacher sees {theirs} channel(s), the student {ours}; give both the same images.")
    if difference := class_difference(student.classes, teacher.classes):
        raise SettingError(f"teacher and student must have the same classes in the same order, but {difference}.")


def class_difference(student: Sequence[str], teacher: Sequence[str]) -> str:
    """Where two lists of classes differ, in words; empty if they do not."""
    known, asked = set(teacher), set(student)
    unknown, foreign = [name for name in student if name not in known], [name for name in teacher if name not in asked]
    if unknown or foreign:
        parts = [f"the teacher does not know {_some(unknown)}"] * bool(unknown)
        parts += [f"the student does not know {_some(foreign)}"] * bool(foreign)
        return " and ".join(parts)
    for number, (ours, theirs) in enumerate(zip(student, teacher, strict=True), 1):
        if ours != theirs:
            return f"class {number} is '{theirs}' for the teacher and '{ours}' for the student"
    return ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
