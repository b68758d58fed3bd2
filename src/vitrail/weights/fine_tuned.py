"""From published weights that were fine-tuned on a task of text to that task: BERT's and RoBERTa's of Transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vitrail.errors import CheckpointError, SettingError
from vitrail.tasks import Answering, Tagging, TextClassification, TextTask
from vitrail.weights import text
from vitrail.weights.files import Files, find
from vitrail.weights.read import read_tensors
from vitrail.weights.rename import compare


class Head(NamedTuple):
    """A task, and their names and ours for the linear maps of its head."""

    kind: type[TextTask[Any]]
    maps: dict[str, str]


LABELLED = Head(TextClassification, {"classifier": "linear"})
OF_ROBERTA = Head(TextClassification, {"classifier.dense": "hidden", "classifier.out_proj": "linear"})
TAGGED, ANSWERED = Head(Tagging, {"classifier": "linear"}), Head(Answering, {"qa_outputs": "linear"})

# By what a `config.json` calls its architecture, without the name of the model.
HEADS = {"ForSequenceClassification": LABELLED, "ForTokenClassification": TAGGED, "ForQuestionAnswering": ANSWERED}
MODELS = ("Bert", "Roberta", "XLMRoberta", "Camembert")
ARCHITECTURES = {f"{model}{name}": head for model in MODELS for name, head in HEADS.items()}
ARCHITECTURES |= {f"{model}ForSequenceClassification": OF_ROBERTA for model in MODELS[1:]}


def described(files: Files) -> Head | None:
    """The task that a repository's ``config.json`` states; None for none of text."""
    architectures = (files.config or {}).get("architectures") or ()
    return next((ARCHITECTURES[name] for name in architectures if name in ARCHITECTURES), None)


def load(reference: str | Path, *, classes: Sequence[str] | None = None) -> TextTask[Any]:
    """The task of fine-tuned weights, in evaluation mode, on the CPU.

    Args:
        classes: names in the order of the logits, where others are wanted than the files have.

    Raises :class:`CheckpointError` for files that are missing, damaged, or of something else, :class:`SettingError` for
    another number of classes.
    """
    files = find(reference)
    head = described(files)
    if head is None:
        raise CheckpointError(f"{files.name} was not fine-tuned on a task of text that Vitrail knows.")
    found, tensors = text.load_backbone(reference), read_tensors(files.weights)
    weights = {
        f"{ours}.{part}": tensor
        for theirs, ours in head.maps.items()
        for part in ("weight", "bias")
        if (tensor := tensors.get(f"{theirs}.{part}")) is not None
    }
    options: dict[str, Any] = {} if head.kind is Answering else {"classes": names(files, classes)}
    task = head.kind(found.model, found.backbone, found.tokenizer, **options)
    if difference := compare(task.head.state_dict(), weights):
        raise CheckpointError(f"the head of {files.name} does not fit {task.name} with {task.model}: {difference}.")
    task.head.load_state_dict(weights)
    return task.eval()


def names(files: Files, wanted: Sequence[str] | None) -> list[str]:
    """The classes or tags in the order of the logits."""
    config = files.config or {}
    if config.get("problem_type") not in (None, "single_label_classification"):
        raise CheckpointError(f"{files.name} is for {config['problem_type']}; Vitrail's has one class a text.")
    stated = {int(number): str(name) for number, name in (config.get("id2label") or {0: "0", 1: "1"}).items()}
    if wanted is not None and len(wanted) != len(stated):
        raise SettingError(f"{len(wanted)} names were given for the {len(stated)} classes of {files.name}.")
    return [stated[number] for number in sorted(stated)] if wanted is None else list(wanted)
