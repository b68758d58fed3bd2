"""Images of every kind, whole and damaged."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.data.read import decode, is_image, read_bytes
from vitrail.errors import UnreadableImage

GREY = np.random.default_rng(1).integers(0, 256, (10, 12), dtype=np.uint8)
COLOUR = np.random.default_rng(2).integers(0, 256, (10, 12, 3), dtype=np.uint8)


def encode(pixels: np.ndarray | PIL.Image.Image, format: str, **options: object) -> bytes:
    image = PIL.Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


FILES = {
    "jpeg": encode(COLOUR, "JPEG"),
    "progressive jpeg": encode(COLOUR, "JPEG", progressive=True),
    "grey jpeg": encode(GREY, "JPEG"),
    "cmyk jpeg": encode(PIL.Image.fromarray(COLOUR).convert("CMYK"), "JPEG"),
    "png": encode(COLOUR, "PNG"),
    "palette png": encode(PIL.Image.fromarray(COLOUR).quantize(16), "PNG"),
    "16 bit png": encode(GREY.astype(np.uint16) * 257, "PNG"),
    "webp": encode(COLOUR, "WEBP"),
    "lossless webp": encode(COLOUR, "WEBP", lossless=True),
    "bmp": encode(COLOUR, "BMP"),
    "palette bmp": encode(PIL.Image.fromarray(COLOUR).quantize(16), "BMP"),
    "tiff": encode(COLOUR, "TIFF"),
    "lzw tiff": encode(COLOUR, "TIFF", compression="tiff_lzw"),
    "float tiff": encode(GREY.astype(np.float32), "TIFF"),
    "gif": encode(GREY, "GIF"),
}


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ],
)
def test_lossless_formats_give_the_stored_pixels(format: str, options: dict) -> None:
    image = decode(encode(COLOUR, format, **options), "x")
    assert image.dtype == np.uint8
    assert not image.flags.writeable
    assert np.array_equal(image, COLOUR)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_grey_images_have_one_channel(format: str) -> None:
    assert np.array_equal(decode(encode(GREY, format), "x"), GREY[:, :, None])


def test_black_and_white_becomes_0_and_255() -> None:
    assert np.array_equal(decode(encode(GREY > 99, "PNG"), "x")[:, :, 0], np.where(GREY > 99, 255, 0))


def test_jpeg_is_near_what_was_stored() -> None:
    ramp = np.broadcast_to(np.arange(0, 240, 5, dtype=np.uint8)[None, :, None], (32, 48, 3))
    image = decode(encode(np.ascontiguousarray(ramp), "JPEG", quality=95), "x")
    assert np.abs(image.astype(int) - ramp).max() <= 4


def test_only_the_first_frame_of_a_gif_is_read() -> None:
    first, second = PIL.Image.fromarray(GREY), PIL.Image.fromarray(255 - GREY)
    image = decode(encode(first, "GIF", save_all=True, append_images=[second]), "x")
    assert np.array_equal(image, np.dstack([GREY] * 3))  # a palette, so RGB


def test_the_first_picture_of_a_camera_s_multi_picture_jpeg_is_read() -> None:
    red, blue = PIL.Image.new("RGB", (16, 16), "red"), PIL.Image.new("RGB", (16, 16), "blue")
    image = decode(encode(red, "MPO", save_all=True, append_images=[blue]), "x")
    assert np.abs(image.reshape(-1, 3) - np.array([255.0, 0, 0])).max() <= 3


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_is_divided_by_257_and_rounded(format: str) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(decode(encode(values, format), "x")[:, :, 0], np.rint(values / 257))


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bit_grey_is_scaled_by_its_own_range(dtype: type) -> None:
    values = np.array([[-100, 0, 100], [155, 300, 410]], dtype)
    expected = [[0, 50, 100], [128, 200, 255]]  # (value + 100) / 510 * 255, where 127.5 rounds to even
    assert decode(encode(values, "TIFF"), "x")[:, :, 0].tolist() == expected


def test_values_that_are_no_numbers_do_not_spoil_the_range() -> None:
    values = np.array([[np.nan, 1, 2], [3, np.inf, -np.inf]], np.float32)
    assert decode(encode(values, "TIFF"), "x")[:, :, 0].tolist() == [[0, 0, 128], [255, 255, 0]]


@pytest.mark.parametrize("value", [7.0, np.nan])
def test_a_constant_float_image_is_black(value: float) -> None:
    assert not decode(encode(np.full((3, 4), value, np.float32), "TIFF"), "x").any()


def test_transparent_pixels_are_laid_on_white() -> None:
    alpha = np.arange(120, dtype=np.uint8).reshape(10, 12) * 2
    alpha[0], alpha[1] = 0, 255
    image = decode(encode(np.dstack([COLOUR, alpha]), "PNG"), "x")
    share = alpha[:, :, None] / 255
    assert np.abs(image - (COLOUR * share + 255 * (1 - share))).max() <= 1
    assert (image[0] == 255).all()
    assert np.array_equal(image[1], COLOUR[1])


def test_grey_with_alpha_stays_grey() -> None:
    alpha = np.full_like(GREY, 51)
    image = decode(encode(PIL.Image.merge("LA", [PIL.Image.fromarray(GREY), PIL.Image.fromarray(alpha)]), "PNG"), "x")
    assert image.shape == (10, 12, 1)
    assert np.abs(image[:, :, 0] - (GREY * 0.2 + 255 * 0.8)).max() <= 1


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_a_transparent_colour_of_a_palette_becomes_white(format: str) -> None:
    image = PIL.Image.new("P", (2, 2))
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    image.putdata([0, 1, 1, 2])
    expected = [[[200, 0, 0], [255, 255, 255]], [[255, 255, 255], [0, 0, 200]]]
    assert decode(encode(image, format, transparency=1), "x").tolist() == expected


def test_a_palette_without_transparency_becomes_its_colours() -> None:
    image = PIL.Image.new("P", (2, 1))
    image.putpalette([200, 10, 20, 30, 200, 40])
    image.putdata([1, 0])
    assert decode(encode(image, "PNG"), "x").tolist() == [[[30, 200, 40], [200, 10, 20]]]


def test_a_transparent_colour_of_a_plain_png_becomes_white() -> None:
    image = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    assert decode(encode(image, "PNG", transparency=(4, 5, 6)), "x").tolist() == [[[1, 2, 3], [255, 255, 255]]]
    assert decode(encode(image[:, :, 0], "PNG", transparency=4), "x").tolist() == [[[1], [255]]]


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_has_the_right_colours(format: str) -> None:
    red = PIL.Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    stored = encode(red, format)
    if format == "JPEG":
        assert b"Adobe" in stored  # such files hold the inverse of each ink
    assert np.abs(decode(stored, "x") - np.array([255.0, 0, 0])).max() <= 3


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(("format", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_exif_orientation_is_obeyed_once(orientation: int, format: str, options: dict) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    stored = encode(COLOUR, format, exif=exif, **options)
    assert np.array_equal(decode(stored, "x"), UPRIGHT[orientation](COLOUR))


def test_exif_orientation_of_jpeg_and_grey() -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    blocks = np.repeat(np.repeat(np.array([[0, 80], [160, 240], [40, 200]], np.uint8), 16, 0), 16, 1)
    image = decode(encode(blocks, "JPEG", exif=exif), "x")
    assert image.shape == (32, 48, 1)
    assert np.abs(image[:, :, 0] - np.rot90(blocks, -1).astype(int)).max() <= 2


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x09"]
)
def test_damaged_exif_leaves_sound_pixels_alone(exif: bytes) -> None:
    assert np.array_equal(decode(encode(COLOUR, "PNG", exif=exif), "x"), COLOUR)


def test_the_pixel_limit_is_checked_before_decoding() -> None:
    stored = encode(COLOUR, "PNG")
    assert decode(stored, "x", max_pixels=120).shape == (10, 12, 3)
    with pytest.raises(UnreadableImage, match=r"12 x 10 pixels.*at most 119"):
        decode(stored[:60], "x", max_pixels=119)  # nothing but the header is there


def test_pillow_s_own_limit_is_an_error_and_its_warning_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 100)
    assert decode(encode(COLOUR, "PNG"), "x").shape == (10, 12, 3)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(UnreadableImage, match="exceeds limit"):
        decode(encode(COLOUR, "PNG"), "x")


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (b"", "empty"),
        (b"no image at all", "none of JPEG, PNG"),
        (encode(COLOUR, "PPM"), "none of JPEG, PNG"),
        (encode(COLOUR, "ICO"), "none of JPEG, PNG"),
        (FILES["jpeg"][:-100], "truncated"),
    ],
)
def test_reasons_are_short_and_plain(stored: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=reason) as caught:
        decode(stored, "cat.jpg")
    assert caught.value.name == "cat.jpg"
    assert str(caught.value).startswith("cannot read image cat.jpg: ")
    assert "0x" not in caught.value.reason
    assert len(caught.value.reason) <= 120
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.name, copy.reason) == (caught.value.name, caught.value.reason)


def test_files_are_read_and_missing_ones_named(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(FILES["png"])
    assert np.array_equal(decode(file, "a"), COLOUR)
    assert read_bytes(file) == FILES["png"]
    for missing in (tmp_path / "b.png", tmp_path, Path("zero\0byte.png")):
        with pytest.raises(UnreadableImage):
            decode(missing, "b")
        with pytest.raises(UnreadableImage):
            read_bytes(missing)
    with pytest.raises(UnreadableImage, match="no such file"):
        decode(tmp_path / "b.png", "b")


@pytest.mark.parametrize("kind", FILES)
def test_a_file_cut_short_anywhere_never_gives_other_pixels(kind: str) -> None:
    whole = decode(FILES[kind], kind)
    read = 0
    for length in range(len(FILES[kind])):
        with contextlib.suppress(UnreadableImage):
            assert np.array_equal(decode(FILES[kind][:length], kind), whole)
            read += 1
    assert read < len(FILES[kind]) / 2


@settings(deadline=None, max_examples=300)
@given(kind=st.sampled_from(sorted(FILES)), flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 7)), max_size=8))
def test_flipped_bits_give_an_image_or_unreadable(kind: str, flips: list[tuple[float, int]]) -> None:
    stored = bytearray(FILES[kind])
    for where, bit in flips:
        stored[int(where * (len(stored) - 1))] ^= 1 << bit
    _decodes_or_is_refused(bytes(stored))


@settings(deadline=None, max_examples=200)
@given(kind=st.sampled_from(sorted(FILES)), keep=st.integers(2, 60), rest=st.binary(max_size=200))
def test_garbage_after_a_sound_beginning_gives_an_image_or_unreadable(kind: str, keep: int, rest: bytes) -> None:
    _decodes_or_is_refused(FILES[kind][:keep] + rest)


def _decodes_or_is_refused(stored: bytes) -> None:
    try:
        image = decode(stored, "x", max_pixels=100_000)
    except UnreadableImage:
        return
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] in (1, 3)
    assert 0 < image.size <= 300_000


def test_endings_that_count_as_images() -> None:
    assert all(is_image(name) for name in ("a.jpg", "b.JPEG", "c.Png", "d.webp", "e.bmp", "f.tif", "g.TIFF", "h.gif"))
    assert not any(is_image(name) for name in ("jpg", "a.txt", "a.jpg.txt", "a.mp4", "Thumbs.db"))


@pytest.mark.skipif("VITRAIL_DATA" not in os.environ, reason="needs real photographs in $VITRAIL_DATA/photos")
def test_real_pictures_of_many_kinds() -> None:
    folder = Path(os.environ["VITRAIL_DATA"]) / "photos"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    shapes = {"camera.png": (512, 512, 1), "chelsea.png": (300, 451, 3), "checker_bilevel.png": (10, 10, 1)}
    shapes |= {"horse.png": (328, 400, 3), "foo3x5x4indexed.png": (3, 5, 3), "retina.jpg": (1411, 1411, 3)}
    assert {name: decode(folder / name, name).shape for name in shapes} == shapes
    with pytest.raises(UnreadableImage):
        decode(folder / "truncated.jpg", "truncated.jpg")
