"""One class a text, or a pair of texts, from the vector that the model pools: BERT's [CLS], GPT's last token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vitrail.data.text.batch import TextBatch
from vitrail.data.text.examples import LabelledText, TextData
from vitrail.data.text.inputs import joined
from vitrail.data.text.labelled import FIRST_COLUMNS, SECOND_COLUMNS, Columns, open_labelled
from vitrail.data.text.rows import Row, Rows
from vitrail.data.text.tokenizer import Tokenizer
from vitrail.errors import DataError, SettingError
from vitrail.heads.text import PooledHead
from vitrail.metrics.calibration import expected_calibration_error, fit_temperature, reliability, top_class
from vitrail.metrics.classification import ClassificationMetric, negative_log_likelihood
from vitrail.nn.backbone import TextBackbone
from vitrail.tasks.text_task import Outputs, TextTask


class TextClassification(TextTask[LabelledText]):
    """Logits ``(B, K)`` of a text.

    Args:
        model, backbone, tokenizer, length: as of `TextTask`.
        classes: the K class names, in the order of the outputs.
        label_smoothing: share of each target that is spread over all classes (Szegedy et al. 2016).
        class_weights: ``(K,)``, how much the loss of each class counts.
        temperature: by which logits are divided before they become scores (Guo et al. 2017).
    """

    name: ClassVar[str] = "text-classification"
    main: ClassVar[dict[str, str]] = {"top1": "accuracy", "macro_f1": "macro F1"}
    pools = True

    def __init__(
        self,
        model: str,
        backbone: TextBackbone,
        tokenizer: Tokenizer,
        classes: Sequence[str],
        *,
        length: int | None = None,
        label_smoothing: float = 0.0,
        class_weights: NDArray[np.float32] | None = None,
        temperature: float = 1.0,
    ) -> None:
        if not 0 < temperature < float("inf"):
            raise SettingError(f"the temperature must be above 0, not {temperature}.")
        super().__init__(model, backbone, tokenizer, PooledHead(backbone, len(classes)), length)
        self.classes = tuple(classes)
        self.numbers = {name: number for number, name in enumerate(self.classes)}
        self.label_smoothing = label_smoothing
        self.temperature = temperature
        weights = None if class_weights is None else torch.from_numpy(class_weights)
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", weights, persistent=False)

    def loss(self, batch: TextBatch) -> dict[str, Tensor]:
        """Cross-entropy."""
        assert batch.labels is not None, "classification needs labels"
        logits = self.logits(batch)
        return {"loss": F.cross_entropy(logits, batch.labels, self.class_weights, label_smoothing=self.label_smoothing)}

    @classmethod
    def open(cls, data: str, columns: Columns, *, seed: int = 0, as_given: bool = False) -> TextData[LabelledText]:
        return open_labelled(data, columns, pairs=len(cls.pieces) == 2, seed=seed, as_given=as_given)

    def example(self, name: str, *pieces: str) -> LabelledText:
        return LabelledText(name, pieces[0], second=pieces[1] if len(pieces) == 2 else None)

    def rows(self, examples: Sequence[LabelledText]) -> Rows:
        first = self.tokenizer.encode_many([example.text for example in examples])
        pairs = len(self.pieces) == 2
        second = self.tokenizer.encode_many([example.second or "" for example in examples]) if pairs else None
        rows, cut = [], 0
        for number, example in enumerate(examples):
            found = joined(self.frame, first[number], None if second is None else second[number], self.length)
            rows.append(Row(number, example.name, found.ids, found.segments, self._label(example)))
            cut += found.lost > 0
        return Rows(rows, cut, self.pad)

    def _label(self, example: LabelledText) -> NDArray[np.int64] | None:
        if example.label is None:
            return None
        if example.label not in self.numbers:
            known = ", ".join(self.classes[:20]) + (" …" if len(self.classes) > 20 else "")
            raise DataError(
                f"the model does not know the class '{example.label}' of {example.name}; it knows: {known}."
            )
        return np.array(self.numbers[example.label])

    def metric(self, rows: Rows, outputs: Outputs) -> ClassificationMetric:
        """The figures of rows whose labels are known, and what they are computed of."""
        metric = ClassificationMetric(self.classes)
        labels = torch.tensor([int(row.labels) for row in rows.rows if row.labels is not None])
        one_hot = F.one_hot(labels, len(self.classes))
        metric.update(torch.from_numpy(np.stack(outputs)), one_hot, range(len(rows)))
        return metric

    def figures(self, examples: Sequence[LabelledText], rows: Rows, outputs: Outputs) -> dict[str, Any]:
        """Those of classification, and what the fitted temperature makes of calibration."""
        metric = self.metric(rows, outputs)
        figures = metric.compute()
        figures["texts"] = figures.pop("images")
        figures["per_class"] = [
            {"texts" if key == "images" else key: value for key, value in row.items()} for row in figures["per_class"]
        ]
        logits = metric.logits / self.temperature
        calibrated = {
            "temperature": self.temperature,
            "ece_calibrated": expected_calibration_error(reliability(*top_class(logits, metric.targets))),
            "nll_calibrated": negative_log_likelihood(logits, metric.targets),
        }
        return figures | calibrated

    def calibrate(self, examples: Sequence[LabelledText], rows: Rows, outputs: Outputs) -> None:
        """Fit the temperature."""
        metric = self.metric(rows, outputs)
        self.temperature = round(fit_temperature(metric.logits, metric.targets), 4)

    def answers(
        self, examples: Sequence[LabelledText], rows: Rows, outputs: Outputs, top: int = 5
    ) -> list[dict[str, Any]]:
        """For each text its ``top`` classes with their calibrated scores, the most probable first."""
        scores = (torch.from_numpy(np.stack(outputs)) / self.temperature).softmax(dim=1)
        values, indices = scores.topk(min(top, len(self.classes)))
        return [
            {
                **dict(zip(self.pieces, (example.text, example.second), strict=False)),
                "predictions": [
                    {"label": self.classes[k], "score": round(score, 6)} for k, score in zip(ks, of, strict=True)
                ],
            }
            for example, ks, of in zip(examples, indices.tolist(), values.tolist(), strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"classes": list(self.classes), "temperature": self.temperature}

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> TextClassification:
        return cls(
            *cls.parts(description),
            description["classes"],
            length=description["length"],
            temperature=description["temperature"],
        )


class TextPair(TextClassification):
    """Logits ``(B, K)`` of two texts: whether one follows from the other, whether they say the same …"""

    name = "text-pair"
    counted = "pairs"
    pieces = ("text", "second")
    columns = (FIRST_COLUMNS, SECOND_COLUMNS)
