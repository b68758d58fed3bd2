"""What a masked autoencoder paints, as images: of a learner that paints what a test wants."""

import numpy as np
import pytest
import torch

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.errors import SettingError
from vitrail.explain.draw_reconstruction import BORROWED, draw_reconstructions
from vitrail.explain.reconstruct import reconstruct
from vitrail.objectives import MAE

MEAN, STD = (0.4, 0.48, 0.6), (0.2, 0.25, 0.28)


def an_mae(answer=None, **options) -> MAE:
    """With ``answer(learner, images)`` painted in the place of every patch."""
    torch.manual_seed(0)
    shape = {"width": 24, "depth": 1, "heads": 3, "mlp": 24, "image_size": (16, 24), "patch_size": 4}
    backbone = models.create("vit-micro", **{**MAE.usual_config, **shape})
    learner = MAE("vit-micro", backbone, Preprocess((16, 24), mean=MEAN, std=STD), MAE.Options(**options)).eval()
    if answer is not None:
        learner.paint = lambda images, seen: answer(learner, images)
    return learner


def photos(count=2):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, 16, 24), dtype=np.uint8))


def as_mask(row):
    """Which pixels are hidden, ``(16, 24)``."""
    return row.hidden.repeat(4, axis=0).repeat(4, axis=1)


@pytest.mark.parametrize("normalise", [True, False])
def test_whoever_paints_the_targets_paints_the_original(normalise):
    learner = an_mae(lambda learner, images: learner.targets(images), normalise_patches=normalise)
    images = photos()
    for row, image in zip(reconstruct(learner, images, torch.tensor([3, 4])), images, strict=True):
        original = image.permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(row.original, original)
        np.testing.assert_array_equal(row.painted, original)
        assert row.error < 1e-9
        assert row.hidden.sum() == 18


def test_a_flat_answer_is_seen_where_patches_are_hidden_and_nowhere_else():
    learner = an_mae(lambda learner, images: torch.ones(len(images), 24, 48), normalise_patches=False)
    (row,) = reconstruct(learner, photos(1), torch.tensor([3]))
    hidden = as_mask(row)
    colour = [round(255 * (mean + std)) for mean, std in zip(MEAN, STD, strict=True)]
    np.testing.assert_array_equal(row.painted[hidden], np.tile(colour, (hidden.sum(), 1)))
    np.testing.assert_array_equal(row.painted[~hidden], row.original[~hidden])
    grey = [102, 122, 153]
    np.testing.assert_array_equal(row.masked[hidden], np.tile(grey, (hidden.sum(), 1)))
    np.testing.assert_array_equal(row.masked[~hidden], row.original[~hidden])
    pixels = (row.original / 255 - MEAN) / STD
    assert row.error == pytest.approx(((pixels[hidden] - 1) ** 2).mean(), rel=1e-4)


def test_without_normalised_patches_the_error_is_the_loss():
    from vitrail.data.sample import Batch

    learner, images, draws = an_mae(normalise_patches=False), photos(3), torch.tensor([1, 2, 3])
    rows = reconstruct(learner, images, draws)
    with torch.no_grad():
        loss = learner.loss(Batch(images, ("a", "b", "c"), draws=draws))["loss"].item()
    assert sum(row.error for row in rows) / 3 == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize(("ratio", "hidden"), [(0.25, 6), (0.5, 12), (0.9, 22)])
def test_another_share_hides_more_of_the_same_patches(ratio, hidden):
    learner, draws = an_mae(), torch.tensor([9])
    (usual,) = reconstruct(learner, photos(1), draws)
    (row,) = reconstruct(learner, photos(1), draws, ratio)
    assert row.hidden.sum() == hidden
    fewer, more = sorted((usual.hidden, row.hidden), key=np.sum)
    assert (more | ~fewer).all()


def test_a_share_that_hides_nothing():
    with pytest.raises(SettingError, match="mask ratio of 0 does not do for 24 patches"):
        reconstruct(an_mae(), photos(1), torch.tensor([0]), 0.0)


@pytest.mark.parametrize("borrowed", [True, False])
@pytest.mark.parametrize("count", [1, 5])
def test_the_sheet_has_three_pictures_an_image_and_says_what_is_borrowed(count, borrowed):
    rows = reconstruct(an_mae(), photos(count), torch.arange(count))
    figure = draw_reconstructions([(f"photo{i}.jpg", row) for i, row in enumerate(rows)], borrowed=borrowed)
    drawn = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title(loc="left") for axes in drawn] == [f"photo{i}.jpg" for i in range(count)]
    for axes, row in zip(drawn, rows, strict=True):
        pictures = [image.get_array() for image in axes.images]
        for picture, expected in zip(pictures, (row.masked, row.painted, row.original), strict=True):
            np.testing.assert_array_equal(picture, expected)
        words = [text.get_text() for text in axes.texts]
        assert words == ["masked, 75 % hidden", f"reconstructed, error {row.error:.2f}", "original"]
    assert (BORROWED in [text.get_text() for text in figure.texts]) == borrowed
