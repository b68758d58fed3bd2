"""The part of a text that answers a question: where it begins and where it ends (Devlin et al. 2019, section 4.2).

A context too long for one row is read through windows that overlap; the best of all their spans is the answer. Where a
window has none, both ends are its first token; so are those of a question without an answer (section 4.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.text.batch import TextBatch
from vitrail.data.text.examples import Answer, Question, TextData
from vitrail.data.text.inputs import IDS, joined
from vitrail.data.text.labelled import Columns
from vitrail.data.text.rows import Row, Rows
from vitrail.data.text.squad import open_questions
from vitrail.data.text.tokenizer import Tokenizer
from vitrail.errors import SettingError
from vitrail.heads.text import TokenHead
from vitrail.metrics.answers import answer_figures, best_threshold, overlap_f1
from vitrail.nn.backbone import TextBackbone
from vitrail.tasks.text_task import Outputs, TextTask

LONGEST = 30  # tokens of an answer, as BERT's program has it


class Found(NamedTuple):
    """The best span of a question's windows.

    Attributes:
        text: the part of the context.
        start: number of its first character.
        score, nothing: how probable it is, and that there is no answer, among all spans.
        margin: by how much "there is no answer" is ahead of it, in logits.
    """

    text: str
    start: int
    score: float
    nothing: float
    margin: float


class Answering(TextTask[Question]):
    """Two logits a token, ``(B, T, 2)``: that the answer begins there, and that it ends there.

    Args:
        model, backbone, tokenizer, length: as of `TextTask`.
        threshold: the margin from which on a question has no answer; None if every question has one.

    Raises :class:`SettingError` for a tokenizer without a first token, such as GPT's, whose models look back only.
    """

    name: ClassVar[str] = "answer"
    main: ClassVar[dict[str, str]] = {"f1": "F1", "exact_match": "exact match"}
    counted = "questions"
    pieces = ("question", "context")
    columns = (("question",), ("context",))

    def __init__(
        self,
        model: str,
        backbone: TextBackbone,
        tokenizer: Tokenizer,
        *,
        length: int | None = None,
        threshold: float | None = None,
    ) -> None:
        if tokenizer.first is None:
            raise SettingError(
                f"answers are found by a model that looks both ways and begins with a token such as [CLS]; {model} "
                "has none: take a BERT."
            )
        super().__init__(model, backbone, tokenizer, TokenHead(backbone.width, 2, dropout=0.0), length)
        self.threshold = threshold

    def logits(self, batch: TextBatch) -> Tensor:
        """Logits, with nothing left for what fills rows up."""
        logits = super().logits(batch)
        return logits if batch.mask is None else logits.masked_fill(~batch.mask.unsqueeze(-1), float("-inf"))

    def loss(self, batch: TextBatch) -> dict[str, Tensor]:
        """The mean of the cross-entropies of the first and of the last token."""
        assert batch.labels is not None, "answering needs labels"
        return {"loss": F.cross_entropy(self.logits(batch), batch.labels)}

    @classmethod
    def open(cls, data: str, columns: Columns, *, seed: int = 0, as_given: bool = False) -> TextData[Question]:
        return open_questions(data, seed=seed, as_given=as_given)

    def example(self, name: str, *pieces: str) -> Question:
        return Question(name, pieces[0], pieces[1])

    def rows(self, examples: Sequence[Question]) -> Rows:
        """Windows of each context; a question may take up to half of a row, and is cut beyond that."""
        room = self.frame.room(self.length, 2)
        questions = self.tokenizer.encode_many([example.question for example in examples])
        contexts = {context: number for number, context in enumerate(dict.fromkeys(one.context for one in examples))}
        encoded = self.tokenizer.encode_with_spans(list(contexts))
        rows, cut = [], 0
        for number, (example, question) in enumerate(zip(examples, questions, strict=True)):
            cut += len(question) > room // 2
            ids, places = encoded[contexts[example.context]]
            rows += self._windows(number, example, question[: room // 2], ids, places)
        return Rows(rows, cut, self.pad)

    def _windows(
        self, number: int, example: Question, question: IDS, context: IDS, places: NDArray[np.int64]
    ) -> list[Row]:
        """Rows of one question; each window of the context begins in the middle of the one before."""
        size = self.frame.room(self.length, 2) - len(question)
        step = max(1, size // 2)
        rows = []
        for first in range(0, max(1, len(context) - size + step), step):
            window = slice(first, first + size)
            found = joined(self.frame, question, context[window], self.length)
            characters = np.full((len(found.ids), 2), -1)
            characters[found.starts[1] : found.starts[1] + len(context[window])] = places[window]
            labels = None if example.answers is None else ends(example.answers, characters)
            rows.append(Row(number, example.name, found.ids, found.segments, labels, characters))
        return rows

    def found(self, examples: Sequence[Question], rows: Rows, outputs: Outputs) -> list[Found]:
        """The best span for each question."""
        of_question: dict[int, list[tuple[NDArray[np.int64], NDArray[np.float32]]]] = {}
        for row, logits in zip(rows.rows, outputs, strict=True):
            assert row.places is not None
            of_question.setdefault(row.example, []).append((row.places, logits))
        return [best_span(example.context, of_question[number]) for number, example in enumerate(examples)]

    def calibrate(self, examples: Sequence[Question], rows: Rows, outputs: Outputs) -> None:
        """Fit the threshold, where there may be no answer and some of the questions have none."""
        if self.threshold is None or all(example.answers for example in examples):
            return
        found = self.found(examples, rows, outputs)
        given = [[answer.text for answer in example.answers or ()] for example in examples]
        worth = [overlap_f1(one.text, of) for one, of in zip(found, given, strict=True)]
        empty = [overlap_f1("", of) for of in given]
        margins = np.array([one.margin for one in found])
        self.threshold = round(best_threshold(margins, np.array(worth), np.array(empty)), 4)

    def figures(self, examples: Sequence[Question], rows: Rows, outputs: Outputs) -> dict[str, Any]:
        """SQuAD's exact match and F1; where there are both, also those of questions with an answer and without one."""
        texts = [one.text if self.answered(one) else "" for one in self.found(examples, rows, outputs)]
        given = [[answer.text for answer in example.answers or ()] for example in examples]
        return answer_figures(texts, given) | {"texts": len(examples), "threshold": self.threshold}

    def answered(self, found: Found) -> bool:
        """Whether a span is given as the answer, and not that there is none."""
        return self.threshold is None or found.margin <= self.threshold

    def answers(self, examples: Sequence[Question], rows: Rows, outputs: Outputs, top: int = 5) -> list[dict[str, Any]]:
        """For each question the answer, None where there is none; where it begins, and how probable it is."""
        return [
            {
                "question": example.question,
                "answer": one.text if self.answered(one) else None,
                "start": one.start if self.answered(one) else None,
                "score": round(one.score if self.answered(one) else one.nothing, 6),
            }
            for example, one in zip(examples, self.found(examples, rows, outputs), strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"threshold": self.threshold}

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> Answering:
        return cls(*cls.parts(description), length=description["length"], threshold=description["threshold"])


def ends(answers: Sequence[Answer], characters: NDArray[np.int64]) -> NDArray[np.int64]:
    """First and last token ``(2,)`` of the first answer in a window; both 0 if it has none, or not the whole of it.

    Args:
        answers: what people gave; the first one is learned.
        characters: ``(n, 2)``, the characters of the context that each token stands for; -1 for other tokens.
    """
    if not answers:
        return np.zeros(2, np.int64)
    start, stop = answers[0].start, answers[0].start + len(answers[0].text)
    inside = np.flatnonzero((characters[:, 0] < stop) & (characters[:, 1] > start) & (characters[:, 0] >= 0))
    of_context = np.flatnonzero(characters[:, 0] >= 0)
    whole = len(inside) and characters[of_context[0], 0] <= start and characters[of_context[-1], 1] >= stop
    return inside[[0, -1]] if whole else np.zeros(2, np.int64)


def best_span(context: str, windows: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]]) -> Found:
    """The span with the largest sum of logits, of at most `LONGEST` tokens.

    Args:
        context: what the spans are of.
        windows: for each one the characters ``(n, 2)`` of its tokens, and their logits ``(n, 2)``.
    """
    best, nowhere = (-np.inf, 0, 0), np.inf
    total = torch.tensor(-np.inf, dtype=torch.float64)
    for characters, logits in windows:
        values = logits.astype(np.float64)
        nowhere = min(nowhere, values[0].sum())
        of_context = np.flatnonzero(characters[:, 0] >= 0)
        places, begin, end = characters[of_context], values[of_context, 0], values[of_context, 1]
        for more in range(min(LONGEST, len(places))):
            sums = begin[: len(begin) - more] + end[more:]
            total = torch.logaddexp(total, torch.from_numpy(sums).logsumexp(dim=0))
            if sums.max() > best[0]:
                first = int(sums.argmax())
                best = sums[first], places[first, 0], places[first + more, 1]
    score, start, stop = best
    everything = float(torch.logaddexp(total, torch.tensor(nowhere, dtype=torch.float64)))
    probable, nothing = np.exp(score - everything), np.exp(nowhere - everything)
    before = len(context[start:stop]) - len(context[start:stop].lstrip())
    text = context[start:stop].strip()
    return Found(text, int(start) + before, float(probable), float(nothing), float(nowhere - score))
