"""DINO (Caron et al., ICCV 2021, arXiv:2104.14294): a network learns to say of small views what its own average says.

The student sees two large and several small views of an image, the teacher the large ones alone. The student learns
the teacher's answer to every other view; the teacher is the moving average of the student. What keeps both from giving
one answer to everything is that the teacher's answers are centred, against one output winning always, and sharpened,
against all winning alike.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitrail import models
from vitrail.data.augment import Augment
from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Batch
from vitrail.errors import SettingError
from vitrail.models.vit.vit import ViT
from vitrail.nn.backbone import Backbone
from vitrail.objectives.objective import ImageObjective
from vitrail.objectives.views import dino_views
from vitrail.train import distributed

LOCAL = 96 / 224  # side of a local view over that of a global one, in the paper
ANY_SIZE = ("bit", "dinov3", "pvt-v2", "resnet", "rope-vit", "swin", "vit")  # families that take smaller images, too


class DINO(ImageObjective):
    """A student, and a teacher that follows it; the teacher's network is the ``backbone``, for it is the better one.

    The ``loss`` is the mean cross-entropy, in nats, of the student's answer to a view with the teacher's to another one
    (equation 3). While validating two more figures tell a collapse: ``entropy`` of a teacher's answer, and
    ``information``, by how much less that is than the entropy of their mean: 0 if all images get the same answer.

    Raises :class:`SettingError` for settings that make no sense, and for a model that small views do not fit.
    """

    name = "dino"
    latest: ClassVar[bool] = True  # its loss is that of another question each time, for the teacher changes, too
    families: ClassVar[tuple[str, ...]] = tuple(models.FAMILIES)
    centre: Tensor
    done: Tensor

    @dataclass(frozen=True)
    class Options:
        """What can be set.

        Attributes:
            local_views: how many small views the student sees besides the two large ones.
            local_size: their side in pixels; 0 for 96 of 224, in whole patches.
            split: the smallest share of an image that a large view shows, and the largest of a small one.
            outputs: dimensions of an answer; 65,536 in the paper, for a million images.
            hidden: units of the head's MLP; 0 for six times the backbone's width, at most 2,048.
            bottleneck: units of the vector before its last layer.
            batch_norm: whether the MLP has batch norms, with which small batches of small images learn sooner.
            temperature: of the student's answers.
            teacher_temperature, first_temperature: of the teacher's; the second at the start.
            temperature_warmup: share of all steps after which it is no longer the first but the other.
            momentum: of the teacher at the start; it rises to 1 along a cosine.
            centre_momentum: of the mean of the teacher's answers.
            frozen: share of all steps in which the head's last layer stays.
        """

        local_views: int = 8
        local_size: int = 0
        split: float = 0.4
        outputs: int = 4096
        hidden: int = 0
        bottleneck: int = 256
        batch_norm: bool = False
        temperature: float = 0.1
        teacher_temperature: float = 0.07
        first_temperature: float = 0.04
        temperature_warmup: float = 0.3
        momentum: float = 0.996
        centre_momentum: float = 0.9
        frozen: float = 0.01

    def __init__(self, model: str, backbone: Backbone, preprocess: Preprocess, options: Any = None) -> None:
        options = options or self.Options()
        check(options)
        super().__init__(model, backbone, preprocess, options)
        self.augment, *self._others = dino_views(options.split, min(preprocess.size))
        if options.local_views:
            self._local = replace(preprocess, size=local_size(model, backbone, options.local_size))
        self.student = copy.deepcopy(backbone)
        if isinstance(self.student, ViT):
            self.student.resampling = "bicubic"
        self.student_head = Head(backbone.width, options)
        self.head = copy.deepcopy(self.student_head)
        for teacher in (self.backbone, self.head):
            teacher.requires_grad_(False)
        self.register_buffer("centre", torch.zeros(options.outputs))
        self.register_buffer("done", torch.zeros(()))  # share of all steps
        self._sum: Tensor | float = 0.0  # of the teacher's answers in this step, which may be in parts
        self._answers = 0

    @property
    def further(self) -> tuple[tuple[Augment, Preprocess], ...]:
        """The other large view, and the small ones."""
        second, local = self._others
        small = [(local, self._local)] * self.options.local_views if self.options.local_views else []
        return ((second, self.preprocess), *small)

    def train(self, mode: bool = True) -> DINO:
        """Training or evaluation mode; the teacher drops nothing, but takes the statistics of its own batches."""
        super().train(mode)
        for module in (*self.backbone.modules(), *self.head.modules()):
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.train(mode)
        return self

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        second, *small = batch.views
        large = self.normalized(torch.cat([batch.images, second]))
        with torch.no_grad():
            answers = self.head(self.backbone(large).pooled)
            wanted = ((answers - self.centre) / teacher_temperature(float(self.done), self.options)).softmax(dim=1)
        pooled = [self.student(large).pooled]
        if small:
            pooled.append(self.student(self.normalized(torch.cat(small))).pooled)
        given = self.student_head(torch.cat(pooled), frozen=float(self.done) < self.options.frozen)
        given = (given / self.options.temperature).log_softmax(dim=1)
        loss = cross_entropy_of_views(given.unflatten(0, (-1, len(batch))), wanted.unflatten(0, (2, -1)))
        if self.training:
            self._sum, self._answers = self._sum + answers.sum(dim=0), self._answers + len(answers)
            return {"loss": loss}
        entropy = entropies(wanted).mean()
        return {"loss": loss, "entropy": entropy, "information": entropies(wanted.mean(dim=0)) - entropy}

    @torch.no_grad()
    def after_step(self, done: float) -> None:
        """The teacher follows the student, and the centre the mean of the teacher's answers, over all processes."""
        student = [*self.student.parameters(), *self.student_head.parameters()]
        teacher = [*self.backbone.parameters(), *self.head.parameters()]
        follow = 1 - momentum(float(self.done), self.options.momentum)
        torch._foreach_lerp_(
            [distributed.own_part(each) for each in teacher], [distributed.own_part(each) for each in student], follow
        )
        assert isinstance(self._sum, Tensor), "there has been no step"
        self.centre.lerp_(distributed.average(self._sum / self._answers), 1 - self.options.centre_momentum)
        self._sum, self._answers = 0.0, 0
        self.done.fill_(done)


class Head(nn.Module):
    """Vectors ``(B, D)`` to answers ``(B, K)`` float32: an MLP, then cosines with K learned directions (appendix C).

    The length of a direction plays no part, as with the paper's weight normalisation of fixed gain.
    """

    def __init__(self, width: int, options: DINO.Options) -> None:
        super().__init__()
        hidden, bottleneck = options.hidden or min(2048, 6 * width), options.bottleneck
        norm = nn.BatchNorm1d if options.batch_norm else nn.Identity
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden),
            norm(hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            norm(hidden),
            nn.GELU(),
            nn.Linear(hidden, bottleneck),
        )
        self.last = nn.Linear(bottleneck, options.outputs, bias=False)
        for linear in self.mlp:
            if isinstance(linear, nn.Linear):
                nn.init.trunc_normal_(linear.weight, std=0.02)
                nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        """With ``frozen`` the directions have a gradient of zero; without any, DDP would wait for it."""
        x = self.mlp(x)
        with torch.autocast(x.device.type, enabled=False):  # a temperature of 0.04 would magnify bfloat16's rounding
            directions = F.normalize(self.last.weight, dim=1)
            if frozen:
                directions = directions.detach() + 0 * directions
            return F.normalize(x.float(), dim=1) @ directions.T


def cross_entropy_of_views(given: Tensor, wanted: Tensor) -> Tensor:
    """The mean of -Σ p log q over images and all pairs of a teacher's view and another one of the student's.

    Args:
        given: log q ``(V, B, K)``, the student's log-probabilities for each view.
        wanted: p ``(T, B, K)``, the teacher's probabilities for the first T views.
    """
    views, seen = len(given), len(wanted)
    every_pair = (wanted.sum(dim=0) * given.sum(dim=0)).sum(dim=1).mean()
    same_view = (wanted * given[:seen]).sum(dim=(0, 2)).mean()
    return (same_view - every_pair) / (seen * (views - 1))


def entropies(probabilities: Tensor) -> Tensor:
    """-Σ p log p over the last dimension, in nats."""
    return torch.special.entr(probabilities).sum(dim=-1)


def momentum(done: float, first: float) -> float:
    """The teacher's, from ``first`` to 1 along a cosine, when that share of all steps is done."""
    return 1 - (1 - first) * (1 + math.cos(math.pi * done)) / 2


def teacher_temperature(done: float, options: DINO.Options) -> float:
    """In a straight line from the first to the other, when that share of all steps is done."""
    if done >= options.temperature_warmup:
        return options.teacher_temperature
    rise = options.teacher_temperature - options.first_temperature
    return options.first_temperature + rise * done / options.temperature_warmup


def local_size(model: str, backbone: Backbone, side: int) -> tuple[int, int]:
    """Height and width of a small view: ``side``, or as in the paper. Raises :class:`SettingError` if none fits."""
    if models.family(model) not in ANY_SIZE:
        raise SettingError(
            f"{model} takes images of one size, and DINO's local views are smaller; leave them out with --options "
            f"local_views=0, or take a model such as vit-s16 (families: {', '.join(ANY_SIZE)})."
        )
    step = getattr(backbone.config, "patch_size", 1)
    if side % step:
        raise SettingError(f"local views of {side} pixels are no whole number of patches of {step}.")
    if side:
        return side, side
    height, width = (max(1, round(whole * LOCAL / step)) * step for whole in backbone.config.image_size)
    return height, width


def check(options: DINO.Options) -> None:
    """Raises :class:`SettingError` for the first setting that makes no sense."""
    ranges = {
        "0 or more": (0, math.inf, ("local_views", "local_size", "hidden")),
        "at least 1": (1, math.inf, ("outputs", "bottleneck")),
        "above 0": (1e-9, math.inf, ("temperature", "teacher_temperature", "first_temperature")),
        "from 0 to 1": (0, 1, ("temperature_warmup", "momentum", "centre_momentum", "frozen")),
        "above 0 and at most 1": (1e-9, 1, ("split",)),
    }
    for words, (least, most, names) in ranges.items():
        for name in names:
            if not least <= getattr(options, name) <= most:
                raise SettingError(f"{name} of DINO must be {words}, not {getattr(options, name)}.")
