"""Tasks of text against Transformers: what is put into the model, and what comes out of its head."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertTokenizer,
    RobertaConfig,
    RobertaForQuestionAnswering,
    RobertaForSequenceClassification,
    RobertaForTokenClassification,
)

from vitrail.data.text.inputs import frame, joined
from vitrail.data.text.tokenizers import open_tokenizer
from vitrail.errors import CheckpointError, SettingError
from vitrail.tasks import Answering, Tagging, TextClassification
from vitrail.weights.load import load

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [*SPECIAL, *"abcdefghij", *(f"##{letter}" for letter in "abcdefghij"), "!", ","]
SHAPE = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "vocab_size": len(VOCABULARY),
    "max_position_embeddings": 18,
}
KINDS = {
    "classification": (BertForSequenceClassification, RobertaForSequenceClassification, TextClassification),
    "tagging": (BertForTokenClassification, RobertaForTokenClassification, Tagging),
    "answer": (BertForQuestionAnswering, RobertaForQuestionAnswering, Answering),
}
LABELS = {0: "zero", 1: "one", 2: "two"}


def saved(folder: Path, kind: str, roberta: bool, **config: object):
    """A fine-tuned model of Transformers with random weights, saved with its tokenizer."""
    torch.manual_seed(0)
    options = SHAPE | ({} if kind == "answer" else {"id2label": LABELS}) | config
    made = RobertaConfig(**options, pad_token_id=0, type_vocab_size=1) if roberta else BertConfig(**options)
    model = KINDS[kind][roberta](made).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    return model


def difference(folder: Path, kind: str, roberta: bool) -> float:
    """The largest difference of any logit that is asked for, of rows of different lengths in two parts."""
    theirs = saved(folder, kind, roberta)
    ours = load(folder)
    assert isinstance(ours, KINDS[kind][2])
    ids = torch.randint(5, len(VOCABULARY), (3, 12))
    mask = torch.arange(12) < torch.tensor([12, 7, 3])[:, None]
    segments = (torch.arange(12) >= 5).long().expand(3, -1)
    with torch.no_grad():
        # RoBERTa's positions leave out what fills rows up, which comes last
        options = {"attention_mask": mask.long()} | ({} if roberta else {"token_type_ids": segments})
        answer = theirs(input_ids=ids * mask, **options)
        mine = ours(ids * mask, segments, mask)
    wanted = answer.logits if kind != "answer" else torch.stack([answer.start_logits, answer.end_logits], dim=-1)
    differences = (mine - wanted).abs()
    return float((differences if kind == "classification" else differences[mask]).max())


CASES: dict[str, Callable[[Path], float]] = {
    f"{'roberta' if roberta else 'bert'} {kind}": lambda folder, kind=kind, roberta=roberta: difference(
        folder, kind, roberta
    )
    for roberta in (False, True)
    for kind in KINDS
}


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    assert CASES[name](tmp_path) <= 1e-5


def test_inputs_are_those_of_transformers(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY))
    ours = open_tokenizer(tmp_path)
    theirs = BertTokenizer({word: number for number, word in enumerate(VOCABULARY)})
    texts = ["abc, a!", "ab cdef ghij abba", "j", "a b c d e f g h i j"]
    for first in texts:
        for second in (None, *texts):
            for length in (6, 9, 12, 40) if second is None else (40,):  # of two, BERT's own code cuts otherwise
                wanted = theirs(first, second, truncation="longest_first", max_length=length)
                ids = [ours.encode_many([text])[0] for text in (first, second or "a")]
                found = joined(frame(ours), ids[0], None if second is None else ids[1], length)
                assert found.ids.tolist() == wanted["input_ids"]
                assert found.segments.tolist() == wanted["token_type_ids"]


def test_fine_tuned_weights_are_ready_to_predict(tmp_path: Path) -> None:
    theirs = saved(tmp_path, "classification", roberta=False)
    tokenizer = BertTokenizer({word: number for number, word in enumerate(VOCABULARY)})
    with torch.no_grad():
        scores = theirs(**tokenizer("abc, a!", return_tensors="pt")).logits.softmax(dim=-1)[0]
    said = load(tmp_path).predict("abc, a!")["predictions"]
    assert {of["label"]: of["score"] for of in said} == pytest.approx(
        {name: score.item() for name, score in zip(LABELS.values(), scores, strict=True)}, abs=1e-5
    )
    assert load(tmp_path, classes=["x", "y", "z"]).classes == ("x", "y", "z")
    with pytest.raises(SettingError, match="2 names were given for the 3 classes"):
        load(tmp_path, classes=["x", "y"])


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    saved(tmp_path, "classification", roberta=False)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"problem_type": "multi_label_classification"}))
    with pytest.raises(CheckpointError, match="one class a text"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["BertForQuestionAnswering"]}))
    with pytest.raises(CheckpointError, match=r"the head of .* does not fit answer"):
        load(tmp_path)
