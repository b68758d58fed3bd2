from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from vitrail.errors import DataError
from vitrail.recipes.given import find_images


@pytest.fixture
def standard_input(monkeypatch):
    """Puts bytes where standard input is read."""

    def put(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return put


def test_a_file_a_folder_a_pattern(album):
    files = [str(file) for file in find_images([str(album / "red" / "00.png"), str(album / "b*" / "0[12].png")])]
    assert files == [str(album / name) for name in ("red/00.png", "blue/01.png", "blue/02.png")]
    assert len(find_images([str(album)])) == 7  # six pictures and a broken one; the text is not called a picture


def test_folders_below_a_pattern(album):
    assert len(find_images([str(album / "**" / "00.png")])) == 2


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    odd = tmp_path / "a[1].png"
    Image.new("RGB", (4, 4)).save(odd)
    assert find_images([str(odd)]) == [odd]


def test_a_list_of_paths_on_standard_input(standard_input):
    standard_input("a.png\n\n b é.jpg\r\n".encode())
    assert find_images(["-"]) == [Path("a.png"), Path(" b é.jpg")]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"])
@pytest.mark.parametrize("colour", ["black", "red"])
def test_an_image_on_standard_input(standard_input, kind, colour):
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), colour).save(buffer, kind)
    standard_input(buffer.getvalue())
    assert find_images(["-"]) == [("-", buffer.getvalue())]


def test_an_image_whose_bytes_happen_to_be_text(standard_input):
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2)).save(buffer, "BMP", dpi=(1, 1))
    assert buffer.getvalue().decode().splitlines()
    standard_input(buffer.getvalue())
    assert find_images(["-"]) == [("-", buffer.getvalue())]


def test_an_image_on_standard_input_is_answered(standard_input, colours, album, vitrail):
    standard_input((album / "blue" / "00.png").read_bytes())
    said = vitrail("predict", colours.folder, "-", "--json", "--device", "cpu")
    (answer,) = json.loads(said.out)
    assert answer["image"] == "-"
    assert answer["predictions"][0]["label"] == "blue"


def test_nothing_on_standard_input(standard_input):
    standard_input(b"")
    with pytest.raises(DataError, match="no image on standard input"):
        find_images(["-"])


@pytest.mark.parametrize("word", ["*.nothing", "empty"])
def test_a_word_without_images_is_named(tmp_path, monkeypatch, word):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there is no image at"):
        find_images([word])


def test_no_word_at_all():
    with pytest.raises(DataError, match="no image was given"):
        find_images([])
