"""What goes in and out of the service, for its OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Response
from pydantic import BaseModel, Field

from vitrail.serve.uploads import FIELD, FORM, JSON

Pair = Annotated[list[int], Field(min_length=2, max_length=2)]


class Failure(BaseModel):
    error: str = Field(description="one sentence")


class Status(BaseModel):
    status: str


class Scored(BaseModel):
    label: str
    score: float = Field(description="from 0 to 1")


class Prediction(BaseModel):
    image: str = Field(description="the name of the file that was sent; of base64 its number, from 1")
    predictions: list[Scored] = Field(description="the most probable first; none of an image that cannot be read")
    error: str | None = Field(description="why an image cannot be read")


class Predictions(BaseModel):
    predictions: list[Prediction] = Field(description="in the order of the images")
    milliseconds: float


class Embeddings(BaseModel):
    embeddings: list[list[float] | None] = Field(description="in the order of the images")
    errors: list[str | None] = Field(description="why an image has none")
    width: int = Field(description="of each vector")


class Attention(BaseModel):
    layer: int
    heads: int
    grid: Pair = Field(description="rows and columns of the n places")
    attention: str = Field(
        description="base64 of uint8 (heads, n, n): from each place (row) to each other, 255 being a row's largest"
    )
    largest: str = Field(description="base64 of float32 (heads, n), little-endian: what 255 stands for in each row")
    prefix_row: str | None = Field(description="base64 of uint8 (heads, n): the look of the class token, or the probe")
    prefix_largest: str | None = Field(description="base64 of float32 (heads,): what 255 stands for there")


class Explained(BaseModel):
    label: str
    score: float
    class_: int = Field(alias="class")
    method: str
    map: list[list[float]] = Field(description="rows of values in 0 … 1, at the size of the model's images")


class Method(BaseModel):
    name: str
    what: str
    of_class: bool
    layers: bool
    heads: bool


class Layer(BaseModel):
    name: str
    heads: int
    grid: Pair


class Bounds(BaseModel):
    bytes: int
    pixels: int
    images: int


class Described(BaseModel):
    name: str
    model: str
    task: str
    classes: list[str]
    many_labels: bool
    image_size: Pair = Field(description="height and width")
    channels: int
    parameters: int | None
    precision: str
    device: str
    methods: list[Method] = Field(description="of explanation")
    layers: list[Layer] = Field(description="with attention, in the order in which they run")
    card: dict[str, Any] = Field(description="what is known of the run")
    examples: list[str]
    limits: Bounds


LOCKED: dict[int | str, dict[str, Any]] = {
    401: {"model": Failure, "description": "without the token, where one is wanted"},
}
FAILURES: dict[int | str, dict[str, Any]] = {
    **LOCKED,
    400: {"model": Failure, "description": "not an image, or a malformed body"},
    413: {"model": Failure, "description": "too many bytes, pixels or images"},
    415: {"model": Failure, "description": "another kind of body"},
    422: {"model": Failure, "description": "something that makes no sense"},
    503: {"model": Failure, "description": "too many images wait; try again after the seconds of Retry-After"},
    504: {"model": Failure, "description": "it took longer than the time limit"},
}


def _body(one: bool) -> dict[str, Any]:
    """The body of a request with one image, or with several, as OpenAPI tells it."""
    file: dict[str, Any] = {"type": "string", "format": "binary"}
    text = {"type": "string", "description": "base64 of an image file"}
    fields = {FIELD: file if one else {"type": "array", "items": file, "minItems": 1}}
    several = {"type": "object", "properties": {"images": {"type": "array", "items": text, "minItems": 1}}}
    single = {"type": "object", "properties": {"image": text}, "required": ["image"]}
    form = {"type": "object", "properties": fields, "required": [FIELD]}
    either = single if one else {"anyOf": [single, {**several, "required": ["images"]}]}
    return {"requestBody": {"required": True, "content": {FORM: {"schema": form}, JSON: {"schema": either}}}}


# Arguments of the routes that read images: what goes in, and what comes out besides JSON.
A_PNG = {"image/png": {"schema": {"type": "string", "format": "binary"}}}
SEVERAL: dict[str, Any] = {"tags": ["images"], "openapi_extra": _body(one=False), "responses": FAILURES}
ONE: dict[str, Any] = {"tags": ["images"], "openapi_extra": _body(one=True), "responses": FAILURES}
PICTURE: dict[str, Any] = {
    **ONE,
    "response_class": Response,
    "responses": {200: {"description": "a PNG file", "content": A_PNG}, **FAILURES},
}
HEAT: dict[str, Any] = {
    **ONE,
    "response_class": Response,
    "responses": {
        200: {"model": Explained, "description": "a PNG file, or numbers with format=json", "content": A_PNG},
        **FAILURES,
    },
}
