"""A JPEG in part is, to the last bit, a part of the JPEG."""

from __future__ import annotations

import io

import numpy as np
import PIL.Image
import pytest

from vitrail.data import jpeg, picture, read
from vitrail.data.jpeg import REDUCTIONS
from vitrail.data.sample import Sample
from vitrail.data.shapes import Shapes
from vitrail.errors import UnreadableImage

SCENE = Shapes(1, size=96).sample(0).image


def encoded(height: int = 83, width: int = 90, channels: int = 3, **options: object) -> bytes:
    pixels = SCENE[:height, :width, 0] if channels == 1 else SCENE[:height, :width]
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=80, **options)
    return file.getvalue()


def by_pillow(stored: bytes, reduction: int) -> np.ndarray:
    """Decoded by Pillow alone, all of it."""
    with PIL.Image.open(io.BytesIO(stored)) as image:
        if reduction > 1:
            image.draft(None, (image.width // reduction, image.height // reduction))
        pixels = np.array(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


@pytest.fixture(params=["Pillow", "simplejpeg"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "simplejpeg":
        pytest.importorskip("simplejpeg")
    monkeypatch.setattr(jpeg, "_found", request.param == "simplejpeg")
    assert jpeg.decoder() == request.param
    return request.param


KINDS: list[dict[str, object]] = [
    {"subsampling": 0},
    {"subsampling": 1},
    {"subsampling": 2},
    {"subsampling": 2, "progressive": True},
    {"channels": 1},
    {"subsampling": 2, "restart_marker_rows": 1},
    {"subsampling": 2, "keep_rgb": True},
]


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_any_rows_at_any_reduction_are_those_of_the_whole(
    decoder: str, options: dict[str, object], reduction: int
) -> None:
    if options.get("keep_rgb"):
        options = {"keep_rgb": True, "subsampling": 0}
    stored = encoded(**options)  # type: ignore[arg-type]
    header = jpeg.header(stored)
    assert header is not None
    assert header[:3] == (83, 90, options.get("channels", 3))
    whole = by_pillow(stored, reduction)
    assert whole.shape[:2] == (-(-83 // reduction), -(-90 // reduction))
    np.testing.assert_array_equal(jpeg.decode(stored, header, reduction), whole)
    for rows in range(1, len(whole) + 1):
        found = jpeg.decode(stored, header, reduction, rows)
        np.testing.assert_array_equal(found[:rows], whole[:rows])


def test_what_lies_below_is_not_read(decoder: str) -> None:
    """Bits that would have changed what lies below change nothing above."""
    stored = bytearray(encoded())
    header = jpeg.header(bytes(stored))
    assert header is not None
    above = jpeg.decode(bytes(stored), header, 1, 20)
    stored[-200:-2] = bytes(198)
    np.testing.assert_array_equal(jpeg.decode(bytes(stored), header, 1, 20), above)


def test_no_header_of_what_is_unusual_or_cut_short() -> None:
    stored = encoded()
    cmyk = io.BytesIO()
    PIL.Image.new("CMYK", (20, 20)).save(cmyk, "JPEG")
    png = io.BytesIO()
    PIL.Image.new("RGB", (20, 20)).save(png, "PNG")
    for other in (b"", b"\xff\xd8", stored[:-2], stored[: len(stored) // 2], cmyk.getvalue(), png.getvalue()):
        assert jpeg.header(other) is None
    assert jpeg.header(stored + bytes(100)) == jpeg.header(stored)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stands_upright(decoder: str, orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    stored = encoded(exif=exif, height=64, width=96)
    found = picture.of_bytes(stored, Sample(picture.NOTHING, "x"))
    assert isinstance(found, picture.StoredJpeg)
    whole = read.decode(stored, "x")
    assert found.size == whole.shape[:2]
    np.testing.assert_array_equal(found.whole().image, whole)
    np.testing.assert_array_equal(found.reduced(1, 40)[:40], whole[:40])
    smaller = found.reduced(8)
    assert smaller.shape == (whole.shape[0] // 8, whole.shape[1] // 8, 3)
    blocks = whole.reshape(whole.shape[0] // 8, 8, -1, 8, 3).mean(axis=(1, 3))
    assert abs(smaller - blocks).mean() < 3  # at 1/8 a pixel is the mean of a block of 8 x 8


def test_other_formats_are_decoded_whole_and_reduced_by_means() -> None:
    file = io.BytesIO()
    PIL.Image.fromarray(SCENE).save(file, "PNG")
    found = picture.of_bytes(file.getvalue(), Sample(picture.NOTHING, "x"))
    np.testing.assert_array_equal(found.reduced(1), SCENE)
    blocks = SCENE.reshape(24, 4, 24, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(found.reduced(4), blocks, atol=0.51)


def test_damage_is_told_as_ever() -> None:
    stored = encoded()
    place = stored.index(b"\xff\xc4")
    damaged = stored[: place + 4] + bytes(60) + stored[place + 64 :]  # in the tables of codes
    for wrong in (stored[: len(stored) // 2], damaged):
        with pytest.raises(UnreadableImage, match="cannot read image holiday"):
            picture.of_bytes(wrong, Sample(picture.NOTHING, "holiday")).reduced(1, 10)


def test_an_image_of_too_many_pixels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "MAX_PIXELS", 1000)
    monkeypatch.setattr(read.decode, "__defaults__", (1000,))
    with pytest.raises(UnreadableImage, match="at most 1000"):
        picture.of_bytes(encoded(), Sample(picture.NOTHING, "x"))


def test_what_is_remembered_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = encoded()
    first = picture.of_bytes(stored, Sample(picture.NOTHING, "x"))
    remembered = picture.Remembered(first)
    before = remembered.reduced(2, 5), remembered.whole().image
    monkeypatch.setattr(jpeg, "decode", None)
    monkeypatch.setattr(read, "decode", None)
    assert remembered.reduced(2) is before[0]
    assert remembered.whole().image is before[1]
    assert len(before[0]) == 42  # all rows, for those who look at more
