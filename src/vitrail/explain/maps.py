"""Heat maps: where in an image a model finds what it says of it, by any of several methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vitrail.errors import UnknownName
from vitrail.explain.attention import attention
from vitrail.explain.gradcam import gradcam, gradcam_plus_plus
from vitrail.explain.integrated_gradients import integrated_gradients_map
from vitrail.explain.look import Look
from vitrail.explain.occlusion import occlusion
from vitrail.explain.record import attention_layers
from vitrail.explain.relevance import relevance
from vitrail.explain.rollout import rollout
from vitrail.nn.backbone import Backbone
from vitrail.tasks import Classification

Maps = Callable[[Classification, Tensor, Tensor, Look], Tensor]


class Method(NamedTuple):
    """A way to make a heat map.

    Attributes:
        maps: task in evaluation mode, images ``(B, C, H, W)`` uint8, classes ``(B,)`` int64, `Look` -> ``(B, h, w)``
            float32, 0 or more: how much each place matters, at the resolution of the method.
        what: in a few words.
        of_class: whether the map is that of one class; if not, the classes make no difference.
        needs_attention: whether a model without attention has no such map.
        needs_pixels: whether a model without derivatives by the pixels has no such map.
        of_layer, of_head: whether a layer, or a head, may be chosen.
    """

    maps: Maps
    what: str
    of_class: bool = False
    needs_attention: bool = False
    needs_pixels: bool = False
    of_layer: bool = False
    of_head: bool = False


def without_look(maps: Callable[[Classification, Tensor, Tensor], Tensor]) -> Maps:
    """A method that looks at no attention."""
    return lambda task, images, classes, look: maps(task, images, classes)


METHODS: dict[str, Method] = {
    "attention": Method(
        attention,
        "what one layer looks at for the vector of the image",
        needs_attention=True,
        of_layer=True,
        of_head=True,
    ),
    "rollout": Method(
        rollout,
        "what arrives in the vector through all layers (Abnar and Zuidema 2020)",
        needs_attention=True,
        of_layer=True,
    ),
    "relevance": Method(
        relevance,
        "attention that speaks for a class, all layers (Chefer et al. 2021)",
        of_class=True,
        needs_attention=True,
    ),
    "gradcam": Method(
        without_look(gradcam), "where the last features speak for a class (Selvaraju et al. 2017)", of_class=True
    ),
    "gradcam++": Method(
        without_look(gradcam_plus_plus),
        "the same, each place counted by itself (Chattopadhay et al. 2018)",
        of_class=True,
    ),
    "integrated-gradients": Method(
        without_look(integrated_gradients_map),
        "what each pixel adds to a class's score (Sundararajan et al. 2017)",
        of_class=True,
        needs_pixels=True,
    ),
    "occlusion": Method(
        without_look(occlusion),
        "how much a class loses while a place is covered (Zeiler and Fergus 2014)",
        of_class=True,
    ),
}


def methods_of(backbone: Backbone) -> dict[str, Method]:
    """The methods that a model has, by name."""
    attentive = bool(attention_layers(backbone))
    by_pixels = hasattr(backbone, "input_kernel")  # iGPT looks the numbers of colours up instead
    return {
        name: method
        for name, method in METHODS.items()
        if (attentive or not method.needs_attention) and (by_pixels or not method.needs_pixels)
    }


def heat_maps(
    task: Classification, images: Tensor, method: str, classes: Tensor | None = None, look: Look | None = None
) -> Tensor:
    """Where the model finds what speaks for a class, as maps ``(B, H, W)`` float32 in 0 … 1 of the size of the images.

    Args:
        task: in evaluation mode; left as it was, whatever happens.
        images: ``(B, C, H, W)`` uint8 as the model sees them, on the task's device.
        method: a name out of `METHODS`.
        classes: ``(B,)`` int64; None for the most probable one of each image.
        look: which attention, for methods that look at one.

    The largest value of a map is 1, unless nothing in the image speaks for the class: then all are 0.
    Raises :class:`UnknownName` for another method, :class:`SettingError` for a model that has no such map.
    """
    if method not in METHODS:
        raise UnknownName("method", method, METHODS)
    if classes is None:
        with torch.inference_mode():
            classes = task(images).argmax(dim=1)
    with torch.inference_mode(False):  # in which nothing has gradients; what was made in it is copied
        maps = METHODS[method].maps(task, images.clone(), classes.clone(), look or Look())
        return at_image_size(maps.detach(), images)


def at_image_size(maps: Tensor, images: Tensor) -> Tensor:
    """Maps ``(B, h, w)``, 0 or more, resized to ``(B, H, W)`` of the images and divided by the largest of each."""
    resized = F.interpolate(maps.float()[:, None], images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    largest = resized.amax(dim=(1, 2), keepdim=True)
    return resized / largest.where(largest > 0, 1)
