"""From a request to the images in it: as files of a form, or as base64 in JSON; within limits while it streams in."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from vitrail.errors import UnreadableImage
from vitrail.serve.refusal import Refusal

FORM, JSON = "multipart/form-data", "application/json"
FIELD = "image"
LONGEST_NAME = 200  # letters


@dataclass(frozen=True)
class Upload:
    """An image as it came: what the client calls it, and its encoded bytes, or the base64 of these."""

    name: str
    data: bytes | str

    def encoded(self) -> bytes:
        """The bytes of the image file. Raises :class:`UnreadableImage` for what is no base64."""
        if isinstance(self.data, bytes):
            return self.data
        text = self.data.partition(",")[2] if self.data.startswith("data:") else self.data
        try:
            return base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise UnreadableImage(self.name, "it is not base64") from error


async def read_uploads(request: Request, most: int) -> list[Upload]:
    """The images of a request, at least one.

    Raises :class:`Refusal`: 415 for another kind of body, 400 for a malformed one, 422 for one without images, 413 for
    more than ``most``.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == FORM:
        uploads = await _of_form(request, most)
    elif kind == JSON:
        uploads = await asyncio.to_thread(_of_json, await request.body())
    else:
        raise Refusal(415, f"send images as {FORM}, in fields called '{FIELD}', or as base64 in {JSON}.")
    if not uploads:
        raise Refusal(422, f"there is no image in the request; send a file in the field '{FIELD}'.")
    if len(uploads) > most:
        raise too_many(most)
    return uploads


def too_many(most: int) -> Refusal:
    return Refusal(
        413, f"at most {most} image{'s' if most > 1 else ''} can be sent in one request; send several requests."
    )


async def _of_form(request: Request, most: int) -> list[Upload]:
    try:
        async with request.form(max_files=most, max_fields=most) as form:
            return [Upload(_shown(file.filename or "image"), await file.read()) for file in _files(form)]
    except HTTPException as error:
        if str(error.detail).startswith("Too many files"):
            raise too_many(most) from error
        raise Refusal(400, "the form is malformed; let your HTTP library write it.") from error
    except (LookupError, ValueError, AttributeError) as error:  # of odd headers of a part
        raise Refusal(400, "the form is malformed; let your HTTP library write it.") from error


def _files(form: FormData) -> list[UploadFile]:
    given = [value for key, value in form.multi_items() if key == FIELD]
    files = [value for value in given if isinstance(value, UploadFile)]
    if len(files) < len(given):
        raise Refusal(422, f"the field '{FIELD}' holds text; it must be a file, with a file name.")
    return files


def _of_json(body: bytes) -> list[Upload]:
    try:
        asked: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "the body is no JSON document; check its syntax and that it is UTF-8.") from error
    given = [asked["image"]] if isinstance(asked, dict) and "image" in asked else None
    if given is None and isinstance(asked, dict):
        given = asked.get("images")
    if not isinstance(given, list) or not all(isinstance(image, str) for image in given):
        raise Refusal(422, 'send {"image": "BASE64"} or {"images": ["BASE64", ...]}.')
    return [Upload(str(number), image) for number, image in enumerate(given, 1)]


def _shown(name: str) -> str:
    """A client's name for a file as text that JSON and a terminal can hold."""
    text = name[:LONGEST_NAME].encode("utf-8", "replace").decode()
    return "".join(letter if letter.isprintable() else "?" for letter in text)
