"""What a user wants out of a text. As for images, a task is the module that is trained: a model, and the head on it."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vitrail import models
from vitrail.data.text.batch import TextBatch
from vitrail.data.text.corpus import COLUMNS
from vitrail.data.text.examples import Example, TextData
from vitrail.data.text.inputs import frame
from vitrail.data.text.labelled import Columns
from vitrail.data.text.rows import EvaluationRows, Rows
from vitrail.data.text.tokenizer import Tokenizer
from vitrail.errors import SettingError
from vitrail.nn.backbone import TextBackbone
from vitrail.tasks.learner import Learner

E = TypeVar("E", bound=Example)
Outputs = Sequence[NDArray[np.float32]]  # what the network says of each row, in the order of the rows


class TextTask(Learner, Generic[E]):
    """A model of text with a head, and all that is needed to use them on texts of the world.

    Examples become rows of tokens (`rows`), the network says something of each row, and the task makes figures
    (`figures`) or answers (`answers`) of that. One example may be several rows.

    Args:
        model: the model's name in the table of models.
        backbone: the model.
        tokenizer: how text becomes its tokens.
        head: what rides on the model's features.
        length: most tokens of a row; None for the model's context.

    Attributes:
        main: figures that tell of a model in a line, with their words; the first one is the ``score``.
        pools: whether it reads what the model pools, and not each token.
        counted: what its examples are called.
        pieces, columns: what the parts of an input are called, and the usual names of their columns in a table.

    Raises :class:`SettingError` for a length that the model or the special tokens do not allow.
    """

    backbone: TextBackbone
    main: ClassVar[dict[str, str]]
    pools: ClassVar[bool] = False
    counted: ClassVar[str] = "texts"
    pieces: ClassVar[tuple[str, ...]] = ("text",)
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (COLUMNS,)

    def __init__(
        self, model: str, backbone: TextBackbone, tokenizer: Tokenizer, head: nn.Module, length: int | None
    ) -> None:
        super().__init__()
        context = backbone.config.context
        if length is not None and length > context:
            raise SettingError(f"a length of {length} is more than the context of {model}, which is {context} tokens.")
        self.model = model
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.head = head
        self.length = length or context
        self.frame = frame(tokenizer)
        self.frame.room(self.length, len(self.pieces))
        self.score = next(iter(self.main))

    def forward(self, ids: Tensor, segments: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Rows of tokens, as of `TextBackbone`, to the head's output: ``(B, K)``, or ``(B, T, K)``."""
        return self.head(self.backbone(ids, segments, mask))

    def logits(self, batch: TextBatch) -> Tensor:
        """The head's output for a batch, float32; for the `loss`, which is what sharding gathers weights for."""
        return self.forward(batch.ids, batch.segments, batch.mask).float()

    @abstractmethod
    def loss(self, batch: TextBatch) -> dict[str, Tensor]:
        """The mean over the rows, so that a batch may be cut into parts."""

    @classmethod
    @abstractmethod
    def open(cls, data: str, columns: Columns, *, seed: int = 0, as_given: bool = False) -> TextData[E]:
        """The examples in files; arguments as of `data.text.labelled.open_labelled`."""

    @abstractmethod
    def example(self, name: str, *pieces: str) -> E:
        """What a person types, as an example of which nothing is known but its `pieces`."""

    @abstractmethod
    def rows(self, examples: Sequence[E]) -> Rows:
        """Examples as inputs, with what is known of them. Raises :class:`DataError` for a class that is not known."""

    @abstractmethod
    def figures(self, examples: Sequence[E], rows: Rows, outputs: Outputs) -> dict[str, Any]:
        """How good the outputs are, ready for JSON: numbers and, perhaps, ``per_class`` and ``confusion``."""

    @abstractmethod
    def answers(self, examples: Sequence[E], rows: Rows, outputs: Outputs, top: int = 5) -> list[dict[str, Any]]:
        """What the outputs mean, a dictionary an example, ready for JSON."""

    def calibrate(self, examples: Sequence[E], rows: Rows, outputs: Outputs) -> None:
        """Set what is fitted on held-out examples when training is over; most tasks have nothing of the kind."""

    def outputs(self, batch: TextBatch) -> list[NDArray[np.float32]]:
        """The head's output for each row of a batch; where it is one a token, without what fills the row up."""
        values = self(batch.ids, batch.segments, batch.mask).float().cpu().numpy()
        if values.ndim == 2 or batch.mask is None:
            return list(values)
        return [row[:length] for row, length in zip(values, batch.mask.sum(dim=1).tolist(), strict=True)]

    @torch.inference_mode()
    def predict(self, *pieces: str, top: int = 5) -> dict[str, Any]:
        """What the model says of a text, or of several `pieces`, such as question and context."""
        if len(pieces) != len(self.pieces):
            raise SettingError(f"{self.name} is asked with {' and '.join(self.pieces)}, not {len(pieces)} text(s).")
        self.eval()
        device = next(self.parameters()).device
        examples = [self.example("text", *pieces)]
        rows = self.rows(examples)
        batches = EvaluationRows(rows, batch_size=32)
        found: dict[int, NDArray[np.float32]] = {}
        for step in range(len(batches)):
            batch, numbers = batches[step]
            found.update(zip(numbers, self.outputs(batch.to(device)), strict=True))
        return self.answers(examples, rows, [found[number] for number in range(len(rows))], top)[0]

    @property
    def pad(self) -> int:
        """The id that fills rows up; any will do, for it is masked."""
        return self.tokenizer.pad or 0

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.name,
            "model": self.model,
            "config": dataclasses.asdict(self.backbone.config),
            "length": self.length,
            "tokenizer": self.tokenizer.to_json(),
        }

    @staticmethod
    def parts(description: dict[str, Any]) -> tuple[str, TextBackbone, Tokenizer]:
        """Model, backbone and tokenizer of what :meth:`to_json` wrote."""
        backbone = models.create_text(description["model"], **description["config"])
        return description["model"], backbone, Tokenizer.from_json(description["tokenizer"])
