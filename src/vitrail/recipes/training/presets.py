"""The recipes of papers: `--recipe NAME` sets what a paper set. What a person sets to something else stays theirs.

Of none of them everything is reproduced. In all of them the batch, and with it the learning rate, is smaller where
there are few images; the rate starts from 0 and ends at 0 instead of at a millionth or so of its peak; SGD has
Nesterov's momentum; Mixup and CutMix change half of the pairs (in the papers every batch); the crops, colours and
RandAugment are those of `data.augment`'s presets; the size of the images is left to the model.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from vitrail import models
from vitrail.console import say
from vitrail.errors import UnknownName
from vitrail.recipes.training.settings import Train

# Learning rates are for the batch that stands beside them; `with_preset` scales them to the batch that is used.
PRESETS: dict[str, dict[str, Any]] = {
    # Touvron et al. 2021 (DeiT), table 9, and main.py: from random weights, on a million images. Without its repeated
    # augmentation; its teacher is another flag, --teacher.
    "deit": {
        "weights": "none",
        "epochs": 300,
        "batch_size": 1024,
        "learning_rate": 1e-3,  # 5e-4 for 512 images
        "weight_decay": 0.05,
        "warmup_epochs": 5.0,
        "clip": 0.0,
        "ema": 0.99996,
        "augment": "strong",
        "mixup": 0.8,
        "cutmix": 1.0,
        "label_smoothing": 0.1,
        "config": ("drop_path=0.1",),
    },
    # Steiner et al. 2022 (AugReg), by vit_jax/configs/common.py and augreg.py: fine-tuning of what was trained on
    # ImageNet-21k. It counts in steps (10,000 of 512 images for CIFAR, 20,000 for ImageNet-1k; a warm-up of 500); here
    # the epochs are those of any fine-tuning. It crops from 5 % of the area upwards and changes no colours.
    "augreg": {
        "batch_size": 512,
        "learning_rate": 0.03,
        "optimizer": "sgd",
        "weight_decay": 0.0,
        "clip": 1.0,
        "augment": "light",
        "label_smoothing": 0.0,
    },
    # Liu et al. 2021 (Swin), appendix A2.1, and config.py: from random weights, drop path as for the size T (S has
    # 0.3, B 0.5).
    "swin": {
        "weights": "none",
        "epochs": 300,
        "batch_size": 1024,
        "learning_rate": 1e-3,  # 5e-4 for 512 images
        "weight_decay": 0.05,
        "warmup_epochs": 20.0,
        "clip": 5.0,
        "augment": "strong",
        "mixup": 0.8,
        "cutmix": 1.0,
        "label_smoothing": 0.1,
        "config": ("drop_path=0.2",),
    },
    # Kolesnikov et al. 2020 (BiT), section 3.3, and bit_hyperrule.py: fine-tuning; epochs and Mixup are those of
    # `bit_hyper_rule`. A cosine in place of three steps down, and without the rule for the size of the images.
    "bit": {
        "batch_size": 512,
        "learning_rate": 0.003,
        "optimizer": "sgd",
        "weight_decay": 0.0,
        "clip": 0.0,
        "augment": "light",
        "label_smoothing": 0.0,
    },
    # He et al. 2022 (MAE), table 9, with the numbers of FINETUNE.md for ViT-B (L and H: 50 epochs, twice the rate,
    # layer decay 0.75, drop path 0.2 and 0.3). The model pools as it does; the authors' averages the patches.
    "mae-finetune": {
        "epochs": 100,
        "batch_size": 1024,
        "learning_rate": 2e-3,  # 5e-4 for 256 images
        "weight_decay": 0.05,
        "layer_decay": 0.65,
        "warmup_epochs": 5.0,
        "clip": 0.0,
        "augment": "strong",
        "mixup": 0.8,
        "cutmix": 1.0,
        "label_smoothing": 0.1,
        "config": ("drop_path=0.1",),
    },
    # Ours, for a few hundred to a few thousand images and trained weights: short, gentle, the lower layers held back.
    "small": {
        "epochs": 20,
        "batch_size": 32,
        "learning_rate": 2e-4,
        "weight_decay": 0.05,
        "layer_decay": 0.75,
        "warmup_epochs": 2.0,
        "augment": "light",
        "label_smoothing": 0.1,
    },
}


def preset(recipe: str) -> dict[str, Any]:
    """A copy of what a recipe sets. Raises :class:`UnknownName` for one that there is not."""
    if recipe not in PRESETS:
        raise UnknownName("recipe", recipe, PRESETS)
    return dict(PRESETS[recipe])


def with_preset(settings: Train, images: int) -> Train:
    """``settings`` with what the paper set wherever a person has set nothing; ``images`` is the number to train on.

    A batch is never larger than a tenth of the images, and the learning rate shrinks with it (Goyal et al. 2017); of
    fewer epochs the warm-up keeps its share. Changes to the model are left to :func:`recipe_config`.
    """
    if settings.recipe is None:
        return settings
    paper = preset(settings.recipe)
    if settings.recipe == "bit":
        paper |= bit_hyper_rule(images)
    batch_size = settings.batch_size or min(paper["batch_size"], max(2, images // 20 * 2))
    paper["learning_rate"] *= batch_size / paper["batch_size"]
    paper["batch_size"] = batch_size
    if settings.epochs is not None and "warmup_epochs" in paper:
        paper["warmup_epochs"] *= min(1.0, settings.epochs / paper["epochs"])
    usual = type(settings)()
    untouched = [
        field.name for field in fields(settings) if getattr(settings, field.name) == getattr(usual, field.name)
    ]
    return replace(settings, **{name: paper[name] for name in untouched if name in paper and name != "config"})


def bit_hyper_rule(images: int) -> dict[str, Any]:
    """BiT-HyperRule: from the number of images, how long to train (there in steps of 512 images) and whether to mix."""
    steps = 500 if images < 20_000 else 10_000 if images < 500_000 else 20_000
    return {"epochs": max(1, round(steps * 512 / images)), "mixup": 0.0 if images < 20_000 else 0.1}


def recipe_config(recipe: str | None, model: str) -> tuple[str, ...]:
    """What the paper changed in the model, as `--config` has it; what this model has no setting for is left out, and
    that is said."""
    words = preset(recipe).get("config", ()) if recipe is not None else ()
    known = models.FAMILIES[models.family(model)].config.__dataclass_fields__
    for word in words:
        if word.partition("=")[0] not in known:
            say(f"the recipe '{recipe}' sets {word}, which {model} does not have; it goes without.")
    return tuple(word for word in words if word.partition("=")[0] in known)
