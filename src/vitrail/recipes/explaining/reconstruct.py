"""Reconstruct: hide patches of images and let a masked autoencoder paint them, as a picture and as numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vitrail.console import say
from vitrail.data.files import Files
from vitrail.data.preprocess import Preprocess
from vitrail.data.rng import generator
from vitrail.data.sample import Image
from vitrail.errors import SettingError
from vitrail.explain.draw_reconstruction import draw_reconstructions
from vitrail.explain.reconstruct import Reconstruction, reconstruct
from vitrail.metrics import draw
from vitrail.objectives.mae import MAE, count_seen
from vitrail.recipes.config import parsed_changes
from vitrail.recipes.explaining.readable import readable
from vitrail.recipes.explaining.settings import Explain
from vitrail.recipes.given import find_images
from vitrail.recipes.opened import as_stated
from vitrail.train.precision import choose_device
from vitrail.weights import objective

MOST_ROWS = 16  # images that one sheet shows legibly


def reconstructions(settings: Explain) -> list[dict[str, Any]]:
    """Draw the picture; returns the error of each readable image, and for JSON which of its patches were hidden.

    Raises :class:`SettingError` for what was not trained as a masked autoencoder, or a share of hidden patches that
    cannot be, :class:`DataError` if no image can be read.
    """
    learner = open_mae(settings)
    if settings.mask_ratio is not None:
        count_seen(learner.backbone.grid[0] * learner.backbone.grid[1], settings.mask_ratio)
    files = Files(find_images(settings.images))
    answers: list[dict[str, Any]] = []
    rows: list[tuple[str, Reconstruction]] = []
    for index, sample in readable(files):
        row = painted(learner, sample.image, index, settings)
        answers.append({"image": sample.name, "error": row.error})
        if settings.json:
            answers[-1]["hidden"] = row.hidden.astype(int).tolist()
        if len(rows) < MOST_ROWS:
            rows.append(("/".join(Path(sample.name).parts[-2:]), row))  # of class folders, the class
    draw.save(draw_reconstructions(rows, borrowed=learner.options.normalise_patches), settings.out)
    if not settings.json:
        for answer in answers:
            say(f"{answer['image']}: error {answer['error']:.3f}")
        say(f"the picture of {'them' if len(answers) == len(rows) else f'the first {len(rows)}'} is {settings.out}")
    return answers


def open_mae(settings: Explain) -> MAE:
    """The objective of a run, of ``hf:ORG/NAME``, or of a file that the settings explain, on the device."""
    if settings.stated.image_size is not None:
        raise SettingError("patches are painted at the image size of pre-training; leave out --image-size.")
    options = parsed_changes(MAE.Options, settings.options, "--options")
    preparation = parsed_changes(Preprocess, settings.stated.preprocess, "--preprocess")
    learner = objective.load(settings.run, objective="mae", **as_stated(settings.stated), options=options)
    if not isinstance(learner, MAE):
        raise SettingError(
            f"{settings.run} was pre-trained with {learner.name}, which paints no hidden patches; give a run of "
            "`vitrail pretrain DATA --objective mae`."
        )
    learner.preprocess = replace(learner.preprocess, **preparation)
    return learner.to(choose_device(settings.device))


def painted(learner: MAE, image: Image, index: int, settings: Explain) -> Reconstruction:
    """The reconstruction of one image; which patches are hidden depends on the seed and its number alone."""
    image, _ = learner.preprocess.view(image)
    device = learner.mask_token.device
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].to(device)
    draw = int(generator(settings.seed, "mask", index).integers(2**63))
    (row,) = reconstruct(learner, pixels, torch.tensor([draw], device=device), settings.mask_ratio)
    return row
