"""SentencePiece's models of the unigram kind (Kudo 2018, arXiv:1804.10959; Kudo and Richardson 2018), as T5 has them.

A ``.model`` file is a message of Protocol Buffers; the few of its fields that matter are read here, without code from
the file and without a package for it. The pieces then go to the library `tokenizers`.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vitrail.data.text.tokenizer import SPELLINGS, Tokenizer, library
from vitrail.errors import CheckpointError, SettingError

SUFFIX = ".model"
SPACE = "▁"  # what a space is called within a piece
EXTRA = 100  # sentinels that T5 appends to its pieces, the last of them first
UNIGRAM = 1
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # types of pieces


class Model(NamedTuple):
    """What a file says.

    Attributes:
        pieces: text, log-probability and type of each.
        kind: 1 is unigram.
        unknown: id of the piece for what is not known.
        byte_fallback: whether that is rather spelled in bytes.
        charsmap: the compiled table of characters that are written in another way; may be empty.
        add_prefix: whether a text is to begin with a space.
        collapse: whether several spaces become one, and those at both ends none.
    """

    pieces: list[tuple[str, float, int]]
    kind: int
    unknown: int
    byte_fallback: bool
    charsmap: bytes
    add_prefix: bool
    collapse: bool


def opens(path: Path) -> Tokenizer | None:
    """A ``.model`` file, or a folder with one. Raises :class:`CheckpointError` for one that is not of this kind."""
    found = next(iter(sorted(path.glob(f"*{SUFFIX}"))), None) if path.is_dir() else path
    if found is None or found.suffix != SUFFIX or not found.is_file():
        return None
    return as_tokenizer(read(found), found)


def learn(texts: Sequence[str], vocabulary: int, special: Sequence[str]) -> Tokenizer:
    """A tokenizer of about ``vocabulary`` pieces that make the ``texts`` likeliest, the ``special`` ones among them.

    A character that does not occur in them becomes the unknown piece if ``special`` has one, else text that holds it
    cannot be encoded. Raises :class:`SettingError` for a vocabulary that has no room for all characters.
    """
    package = library()
    characters = {SPACE if character.isspace() else character for text in texts for character in set(text)}
    if vocabulary < (least := len(characters) + len(special)):
        raise SettingError(f"pieces of this text need a --vocabulary of at least {least}, for all characters.")
    inner = package.Tokenizer(package.models.Unigram())
    _dress(package, inner, Model([], UNIGRAM, 0, False, b"", add_prefix=True, collapse=True))
    unknown = next((token for token in special if token in SPELLINGS["unknown"]), None)
    inner.train_from_iterator(
        texts,
        package.trainers.UnigramTrainer(
            vocab_size=vocabulary,
            special_tokens=list(special),
            unk_token=unknown,
            show_progress=sys.stderr.isatty(),
        ),
        length=len(texts),
    )
    return Tokenizer(inner)


def as_tokenizer(model: Model, file: Path) -> Tokenizer:
    """The tokenizer that a model describes, with T5's sentinels after its own pieces."""
    if model.kind != UNIGRAM:
        raise CheckpointError(f"{file} is not of SentencePiece's unigram kind; give a tokenizer.json of it instead.")
    package = library()
    pieces = [(text, score) for text, score, _ in model.pieces]
    special = [text for text, _, kind in model.pieces if kind in (UNKNOWN, CONTROL)]
    if not any(text.startswith("<extra_id_") for text, _ in pieces):
        sentinels = [f"<extra_id_{number}>" for number in reversed(range(EXTRA))]
        pieces += [(text, 0.0) for text in sentinels]
        special += sentinels
    try:
        inner = package.Tokenizer(package.models.Unigram(pieces, model.unknown, model.byte_fallback))
        _dress(package, inner, model)
    except Exception as error:  # of the tokenizer's own library, which has no class for it
        raise CheckpointError(f"{file} is damaged: {error}.") from error
    inner.add_special_tokens(special)
    inner.add_tokens([text for text, _, kind in model.pieces if kind == USER_DEFINED])
    return Tokenizer(inner)


def _dress(package: Any, inner: Any, model: Model) -> None:
    """What happens to a text before it is cut into pieces, and after they are put together again.

    Only a text's first word gets a space before it: what stands right behind a sentinel stays there. And a space behind
    a sentinel stays, too, so that nothing is stripped on the left.
    """
    normalizers = package.normalizers
    steps = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    if model.collapse:
        steps += [normalizers.Strip(left=False, right=True), normalizers.Replace(package.Regex(r"\s+"), " ")]
    inner.normalizer = normalizers.Sequence(steps)
    prefix = "first" if model.add_prefix else "never"
    inner.pre_tokenizer = package.pre_tokenizers.Metaspace(prepend_scheme=prefix, split=True)
    inner.decoder = package.decoders.Metaspace(prepend_scheme=prefix, split=True)


def read(file: Path) -> Model:
    """What a ``.model`` file says. Raises :class:`CheckpointError` for one that is damaged or something else."""
    try:
        return _model(file.read_bytes())
    except (ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        raise CheckpointError(f"{file} is no model of SentencePiece, or is damaged.") from error


def _model(data: bytes) -> Model:
    """The numbers are those of sentencepiece_model.proto; a field that is left out has its default."""
    parts: dict[int, list[Any]] = {1: [], 2: [], 3: []}
    for number, value in fields(data):
        if number in parts:
            parts[number].append(dict(fields(value)))
    pieces = [
        (piece[1].decode(), struct.unpack("<f", piece.get(2, bytes(4)))[0], piece.get(3, NORMAL)) for piece in parts[1]
    ]
    trainer, normaliser = parts[2][-1], parts[3][-1]
    return Model(
        pieces,
        kind=trainer.get(3, UNIGRAM),
        unknown=[kind for _, _, kind in pieces].index(UNKNOWN),
        byte_fallback=bool(trainer.get(35, 0)),
        charsmap=normaliser.get(2, b""),
        add_prefix=bool(normaliser.get(3, 1)),
        collapse=bool(normaliser.get(4, 1)),
    )


def fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a message of Protocol Buffers: whole numbers as such, all else as its bytes.

    Raises ValueError for what is none.
    """
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(message, place)
            yield number, value
            continue
        if wire not in (1, 2, 5):
            raise ValueError(f"no field has the kind {wire}")
        length, place = _varint(message, place) if wire == 2 else ({1: 8, 5: 4}[wire], place)
        if place + length > len(message):
            raise ValueError("the message is cut short")
        yield number, message[place : place + length]
        place += length


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and the place behind it."""
    value = shift = 0
    while message[place] & 0x80:
        value |= (message[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
    return value | message[place] << shift, place + 1
