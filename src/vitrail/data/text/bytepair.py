"""Byte pairs (Sennrich et al. 2016) on bytes, as GPT-2 has them (Radford et al. 2019, section 2.2).

Words are cut where letters, digits, other signs and spaces meet; of the bytes of a word the pair that was merged first
in training is merged first. So every text has tokens, and comes back out of them bit by bit.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitrail.data.text.tokenizer import Tokenizer, library
from vitrail.errors import CheckpointError, SettingError

# Vocabulary and merges: as Transformers names the two files, and as OpenAI does.
FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>")  # GPT-2 has the last one, RoBERTa the others


def learn(texts: Sequence[str], vocabulary: int, special: Sequence[str]) -> Tokenizer:
    """A tokenizer of at most ``vocabulary`` tokens: the ``special`` ones, 256 bytes, and the pairs found most often.

    Raises :class:`SettingError` for a vocabulary that has no room for all bytes.
    """
    if vocabulary < (least := 256 + len(special)):
        raise SettingError(f"byte pairs need a --vocabulary of at least {least}, for every byte; not {vocabulary}.")
    package = library()
    inner = on_bytes(package.models.BPE())
    inner.train_from_iterator(
        texts,
        package.trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=list(special),
            initial_alphabet=package.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=sys.stderr.isatty(),
        ),
        length=len(texts),
    )
    return Tokenizer(inner)


def opens(path: Path) -> Tokenizer | None:
    """GPT-2's or RoBERTa's, from a folder with the two `FILES`, or either of them; None where they are not.

    Raises :class:`CheckpointError` for files that are damaged, or of which one is missing.
    """
    pair = found(path)
    if pair is None:
        return None
    vocabulary, merges = pair
    for file in pair:
        if not file.is_file():
            raise CheckpointError(f"{path} has half of a tokenizer: {file.name} is missing; put it there.")
    package = library()
    try:
        tokens = json.loads(vocabulary.read_text(encoding="utf-8"))
        if any(token.endswith("</w>") for token in tokens):  # byte pairs of another kind, such as CLIP's
            return None
        inner = on_bytes(package.models.BPE.from_file(str(vocabulary), str(merges)))
    except Exception as error:  # of the tokenizer's own library, which has no class for it
        raise CheckpointError(f"{vocabulary} and {merges.name} are damaged ({error}); fetch them again.") from error
    inner.add_special_tokens([package.AddedToken(word, lstrip=word == "<mask>") for word in SPECIAL if word in tokens])
    return Tokenizer(inner)


def found(path: Path) -> tuple[Path, Path] | None:
    """The two files in a folder, or the one that is given with the other beside it; None if none of them is there."""
    folder = path if path.is_dir() else path.parent
    for names in FILES:
        if any((folder / name).is_file() for name in names) if path.is_dir() else path.name in names:
            return folder / names[0], folder / names[1]
    return None


def on_bytes(model: Any) -> Any:
    """A tokenizer of the package `tokenizers` that cuts words and spells bytes as GPT-2's."""
    package = library()
    inner = package.Tokenizer(model)
    inner.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = package.decoders.ByteLevel()
    return inner
