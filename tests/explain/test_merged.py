import numpy as np
import pytest
import torch

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.explain.merged import border_colours, borders, groups, painted
from vitrail.tasks import Classification


def test_places_of_one_token_have_one_number():
    torch.manual_seed(0)
    backbone = models.create("vit-s16", width=24, depth=3, heads=3, mlp=48, patch_size=4, image_size=(24, 16))
    task = Classification("vit-s16", backbone, ["a", "b"], Preprocess((24, 16), mean=(0.5,) * 3, std=(0.5,) * 3)).eval()
    backbone.merge = 5
    images = torch.randint(0, 256, (2, 3, 24, 16), dtype=torch.uint8)
    found = groups(task, images)
    assert found.shape == (2, 6, 4)
    tokens = task.features(images).tokens[:, 1:]
    for numbers, row in zip(found.flatten(1), tokens, strict=True):
        assert sorted(numbers.unique().tolist()) == list(range(24 - 3 * 5))
        alike = (row[:, None] == row).all(dim=2)
        assert torch.equal(alike, numbers[:, None] == numbers)
    backbone.merge = 0
    assert [len(row.unique()) for row in groups(task, images)] == [24, 24]


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_painted_place_by_place(channels):
    image = np.random.default_rng(0).integers(0, 256, (16, 24, channels), dtype=np.uint8)
    numbers = np.array([[0, 1, 1], [2, 1, 0]])  # 2 is alone; the two places of 0 do not touch
    picture = painted(image, numbers)
    assert (picture.shape, picture.dtype) == ((448, 672, 3), np.uint8)
    place, border = 224, 224 // 6
    for row, column in np.ndindex(2, 3):
        inside = picture[row * place + border : (row + 1) * place - border, column * place + border :]
        inside = inside[:, : place - 2 * border]
        if numbers[row, column] == 2:
            large = np.broadcast_to(image[8:, :8], (8, 8, 3)).repeat(28, axis=0).repeat(28, axis=1)
            assert np.array_equal(picture[place:, :place], large)
            continue
        patches = [image[8 * y : 8 * y + 8, 8 * x : 8 * x + 8] for y, x in np.argwhere(numbers == numbers[row, column])]
        mean = np.concatenate(patches).mean(axis=(0, 1))
        assert np.abs(inside - mean).max() <= 1
    colour = border_colours(3)[1].astype(np.uint8)
    assert (picture[0, place:] == colour).all()  # the upper edge of both places of 1
    assert not (picture[border + 1 : place - border, 2 * place - 3 : 2 * place + 3] == colour).all(axis=2).any()


@pytest.mark.parametrize("width", [1, 2])
def test_borders_are_where_a_neighbour_is_another(width):
    of = np.random.default_rng(1).integers(0, 3, (6, 7)).repeat(3, axis=0).repeat(3, axis=1)
    found = borders(of, width)
    for (y, x), number in np.ndenumerate(of):
        reach = [(y + step, x) for step in range(-width, width + 1)] + [
            (y, x + step) for step in range(-width, width + 1)
        ]
        inside = [place for place in reach if 0 <= place[0] < of.shape[0] and 0 <= place[1] < of.shape[1]]
        assert found[y, x] == (len(inside) < len(reach) or any(of[place] != number for place in inside))
