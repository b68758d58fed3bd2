"""What a peer's network is made from. Read by the peers' own interpreter; see make.py."""

import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple


class Case(NamedTuple):
    """One network of a peer, and how its files are opened by us.

    save(folder) writes the network's random weights as its library publishes them and returns it; `layout`, `model` and
    `changes` are what a person must say of files that do not say it themselves; `loaded_with` is the image size and so
    on that the weights are loaded for, where it is not their own.
    """

    save: Callable[[str], Any]
    layout: str | None = None
    model: str | None = None
    changes: Mapping[str, Any] = MappingProxyType({})
    size: tuple[int, int] = (224, 224)
    channels: int = 3
    loaded_with: Mapping[str, Any] = MappingProxyType({})


def timm(
    architecture: str, size: tuple[int, int] = (224, 224), channels: int = 3, classes: int = 7, **arguments
) -> Case:
    """A network of timm, as `timm.models.save_for_hf` writes it; ``arguments`` go beyond its architecture."""

    def save(folder: str) -> Any:
        import timm

        extra = {"in_chans": channels} if channels != 3 else {}
        model = randomised(timm.create_model(architecture, num_classes=classes, **extra, **arguments))
        timm.models.save_for_hf(model, folder, model_args={**extra, **arguments} or None)
        return model

    return Case(save, size=size, channels=channels)


def transformers(kind: str, size: tuple[int, int] = (224, 224), classes: int = 7, **config) -> Case:
    """A network of Transformers, such as "ViTForImageClassification", as `save_pretrained` writes it."""

    def save(folder: str) -> Any:
        import transformers

        cls = getattr(transformers, kind)
        model = randomised(cls(cls.config_class(num_labels=classes, **config)))
        model.save_pretrained(folder)
        return model

    return Case(save, size=size, channels=config.get("num_channels", 3))


def pth(
    layout: str,
    model: str,
    build: Callable[[], Any],
    *,
    wrap: Callable[[dict], Any] = lambda state: state,
    size: tuple[int, int] = (224, 224),
    channels: int = 3,
    **changes,
) -> Case:
    """A network that ``build()`` makes, written by `torch.save` in a ``wrap`` of its authors' own."""

    def save(folder: str) -> Any:
        import torch

        network = randomised(build())
        torch.save(wrap(network.state_dict()), f"{folder}/weights.pth")
        return network

    return Case(save, layout, model, changes, size, channels)


def randomised(model: Any) -> Any:
    """The network in evaluation mode with no parameter or running statistic at a special value such as 0 or 1."""
    import torch

    for name, tensor in model.state_dict().items():  # not what is computed, and so in no file
        if tensor.is_floating_point() and not name.endswith("attn_mask"):  # computed, and yet in Swin's
            values = torch.randn_like(tensor) * 0.05
            tensor.data.copy_(tensor + values if tensor.ndim > 1 else tensor + values.abs())
    return model.eval()


class NoClone(Exception):
    """A paper's code is not here."""


def clone(name: str) -> Path:
    """The folder ``$VITRAIL_REPOSITORIES/name``, a clone of a paper's code. Raises `NoClone` if it is not there."""
    folder = Path(os.environ.get("VITRAIL_REPOSITORIES", "nowhere"), name)
    if not folder.is_dir():
        raise NoClone(f"there is no clone {name} in VITRAIL_REPOSITORIES")
    return folder


def repository(name: str, package: str | None = None) -> Any:
    """Put a `clone` on the path; for ``pth`` cases.

    ``package`` is a folder in it whose name a file beside this one has, too, and which is to be found all the same.
    """
    import sys
    import types

    folder = clone(name)
    sys.path.insert(0, str(folder))
    if package is not None:
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__path__ = [str(folder / package)]
    return importlib
