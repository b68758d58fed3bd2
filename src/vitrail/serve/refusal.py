"""What the service answers where it does not do what was asked."""

from __future__ import annotations

from collections.abc import Mapping

from vitrail.errors import TooManyPixels, UnreadableImage, UserError

GONE = 499  # how the log tells that the client left before the answer, which nobody reads


class Refusal(Exception):
    """An answer that is an error: its HTTP status, and one sentence for the client, without anything of the host."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.headers = dict(headers or {})


def too_large(megabytes: float) -> Refusal:
    return Refusal(413, f"the upload is larger than {megabytes:g} megabytes; send smaller images, or fewer at once.")


def busy(waiting: int) -> Refusal:
    """More images are there than may wait."""
    return Refusal(503, f"{waiting} images wait already; try again in a second.", {"Retry-After": "1"})


def too_slow(seconds: float) -> Refusal:
    return Refusal(504, f"the answer took longer than {seconds:g} seconds; send fewer images, or try again later.")


def of_error(error: UserError) -> Refusal:
    """The refusal for a mistake that the library has found in an image (400, 413) or in what is asked of it (422)."""
    if isinstance(error, UnreadableImage):
        return Refusal(413 if isinstance(error, TooManyPixels) else 400, f"{error}.")
    return Refusal(422, str(error))
