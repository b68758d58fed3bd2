"""A tag for each word: names of people and places, parts of speech."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.text.batch import TextBatch
from vitrail.data.text.conll import open_tagged
from vitrail.data.text.examples import TaggedWords, TextData
from vitrail.data.text.inputs import first_pieces, joined
from vitrail.data.text.labelled import Columns
from vitrail.data.text.rows import IGNORED, Row, Rows
from vitrail.data.text.tokenizer import Tokenizer
from vitrail.errors import DataError
from vitrail.heads.text import TokenHead
from vitrail.metrics.spans import marks_spans, span_figures, spans
from vitrail.nn.backbone import TextBackbone
from vitrail.tasks.text_task import Outputs, TextTask

NOTHING = "O"  # the tag of a word that is of no interest


class Tagging(TextTask[TaggedWords]):
    """Logits ``(B, T, K)``: those of a word are its first token's, the others are not asked (Devlin et al. 2019, 5.3).

    Words that were cut, or have no token, get the tag O, or the first one where there is none.

    Args:
        model, backbone, tokenizer, length: as of `TextTask`.
        classes: the K tags, in the order of the outputs.
        label_smoothing: share of each target that is spread over all tags.
    """

    name: ClassVar[str] = "tagging"
    main: ClassVar[dict[str, str]] = {"f1": "F1", "accuracy": "accuracy of the words"}
    counted = "sentences"

    def __init__(
        self,
        model: str,
        backbone: TextBackbone,
        tokenizer: Tokenizer,
        classes: Sequence[str],
        *,
        length: int | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(model, backbone, tokenizer, TokenHead(backbone.width, len(classes)), length)
        self.classes = tuple(classes)
        self.numbers = {tag: number for number, tag in enumerate(self.classes)}
        self.label_smoothing = label_smoothing
        self.marked = marks_spans(classes)

    def loss(self, batch: TextBatch) -> dict[str, Tensor]:
        """Cross-entropy, the mean over the words of each sentence, then over the sentences."""
        assert batch.labels is not None, "tagging needs labels"
        of_tokens = F.cross_entropy(
            self.logits(batch).transpose(1, 2),
            batch.labels,
            ignore_index=IGNORED,
            reduction="none",
            label_smoothing=self.label_smoothing,
        )
        words = (batch.labels != IGNORED).sum(dim=1).clamp_min(1)
        return {"loss": (of_tokens.sum(dim=1) / words).mean()}

    @classmethod
    def open(cls, data: str, columns: Columns, *, seed: int = 0, as_given: bool = False) -> TextData[TaggedWords]:
        return open_tagged(data, seed=seed, as_given=as_given)

    def example(self, name: str, *pieces: str) -> TaggedWords:
        return TaggedWords(name, tuple(pieces[0].split()))

    def rows(self, examples: Sequence[TaggedWords]) -> Rows:
        # Byte pairs hold the space before a word, which the first one has, too, when RoBERTa is fine-tuned on words.
        space = " " if self.tokenizer.inner.token_to_id("Ġ") is not None else ""
        encoded = self.tokenizer.encode_with_spans([space + " ".join(example.words) for example in examples])
        rows, cut = [], 0
        for number, (example, (ids, places)) in enumerate(zip(examples, encoded, strict=True)):
            found = joined(self.frame, ids, None, self.length)
            kept = len(ids) - found.lost
            first = first_pieces(example.words, places[:kept] - len(space))
            word_of = np.full(len(found.ids), -1)
            word_of[found.starts[0] + first[first >= 0]] = np.flatnonzero(first >= 0)
            rows.append(Row(number, example.name, found.ids, found.segments, self._labels(example, word_of), word_of))
            cut += found.lost > 0
        return Rows(rows, cut, self.pad, per_token=True)

    def _labels(self, example: TaggedWords, word_of: NDArray[np.int64]) -> NDArray[np.int64] | None:
        if example.tags is None:
            return None
        if unknown := next((tag for tag in example.tags if tag not in self.numbers), None):
            raise DataError(
                f"the model does not know the tag '{unknown}' of {example.name}; it knows: {', '.join(self.classes)}."
            )
        tags = np.array([self.numbers[tag] for tag in example.tags])
        return np.where(word_of >= 0, tags[word_of], IGNORED)

    def tags(self, examples: Sequence[TaggedWords], rows: Rows, outputs: Outputs) -> list[list[tuple[str, float]]]:
        """The tag of each word and how probable it is; 0 for a word that the model has not seen."""
        nothing = NOTHING if NOTHING in self.classes else self.classes[0]
        found = []
        for example, row, logits in zip(examples, rows.rows, outputs, strict=True):
            assert row.places is not None
            scores, indices = torch.from_numpy(logits).softmax(dim=1).max(dim=1)
            of_sentence = [(nothing, 0.0)] * len(example.words)
            for token in np.flatnonzero(row.places >= 0):
                of_sentence[row.places[token]] = self.classes[int(indices[token])], round(float(scores[token]), 6)
            found.append(of_sentence)
        return found

    def figures(self, examples: Sequence[TaggedWords], rows: Rows, outputs: Outputs) -> dict[str, Any]:
        """Precision, recall and F1 of whole entities where tags mark such, else of words; the accuracy of the words."""
        predicted = [[tag for tag, _ in sentence] for sentence in self.tags(examples, rows, outputs)]
        figures = span_figures([example.tags or () for example in examples], predicted, self.marked)
        counted = "entities" if self.marked else "words"
        figures["per_class"] = [
            {counted if key == "images" else key: value for key, value in row.items()} for row in figures["per_class"]
        ]
        return figures | {"texts": len(examples)}

    def answers(
        self, examples: Sequence[TaggedWords], rows: Rows, outputs: Outputs, top: int = 5
    ) -> list[dict[str, Any]]:
        """For each text its words with their tags and scores, and what the tags mark."""
        answers = []
        for example, tagged in zip(examples, self.tags(examples, rows, outputs), strict=True):
            marked = spans([tag for tag, _ in tagged], self.marked)
            answers.append(
                {
                    "text": " ".join(example.words),
                    "words": [
                        {"word": word, "tag": tag, "score": score}
                        for word, (tag, score) in zip(example.words, tagged, strict=True)
                    ],
                    "entities": [
                        {"text": " ".join(example.words[span.start : span.stop]), **span._asdict()} for span in marked
                    ],
                }
            )
        return answers

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"classes": list(self.classes)}

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> Tagging:
        return cls(*cls.parts(description), description["classes"], length=description["length"])
