"""Span corruption as an objective: its loss word for word, and what it refuses."""

import numpy as np
import pytest
import torch

from vitrail import models
from vitrail.data.text.batch import TextBatch
from vitrail.data.text.characters import learn
from vitrail.data.text.spans import corrupted
from vitrail.errors import SettingError
from vitrail.objectives.span import AnswerWriter, Span, sentinels

TEXT = "the quick brown fox jumps over the lazy dog. " * 40
SMALL = {"width": 32, "depth": 2, "decoder_depth": 2, "heads": 2, "mlp": 48, "context": 24}


def objective(model="t5-nano", special=Span.special, gated=None, **options):
    tokenizer = learn([TEXT], 1000, special)
    torch.manual_seed(0)
    changes = {} if gated is None else {"gated": gated}
    backbone = models.create_text(model, **SMALL, vocabulary=len(tokenizer), **changes)
    return Span(model, backbone, tokenizer, Span.Options(**options))


def batch_of(learner, rows=4):
    documents = learner.tokenizer.encode_many([TEXT])
    return learner.training_batches(documents, rows, seed=0)[0]


@pytest.mark.parametrize("model", ["t5-nano", "transformer-nano"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_loss_is_the_mean_over_all_that_is_written(model, tied):
    learner = objective(model, tied=tied)
    batch = batch_of(learner)
    source, target = corrupted(batch.ids, batch.draws, learner.lengths, learner.sentinels, learner.end)
    total, of_text = [], []
    for read, written in zip(source, target, strict=True):
        so_far = [learner.tokenizer.pad]  # T5 begins with it
        for token in written.tolist():
            chances = learner(read[None], torch.tensor([so_far]))[0, -1].softmax(dim=-1)
            nats = -chances[token].log().item()
            total.append(nats)
            if token not in learner.tokenizer.special:
                of_text.append(nats)
            so_far.append(token)
    losses = learner.loss(batch)
    assert losses["loss"].item() == pytest.approx(np.mean(total), abs=1e-5)
    assert losses["text"].item() == pytest.approx(np.mean(of_text), abs=1e-5)
    assert len(of_text) == 4 * learner.lengths.hidden


@torch.no_grad()
def test_only_a_tied_output_is_the_embedding_and_only_t5s_is_scaled():
    tokens = torch.randn(3, 32)
    tied, own, first = objective(tied=True), objective(tied=False), objective("transformer-nano")
    assert torch.allclose(tied.logits(tokens), tokens @ tied.backbone.token_embedding.weight.T * 32**-0.5, atol=1e-5)
    assert torch.allclose(own.logits(tokens), tokens @ own.head.weight.T, atol=1e-5)
    assert torch.allclose(first.logits(tokens), tokens @ first.backbone.token_embedding.weight.T, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "gated", "tied"), [("t5-nano", True, False), ("t5-nano", False, True), ("transformer-nano", None, True)]
)
def test_the_output_is_tied_where_the_models_paper_ties_it(model, gated, tied):
    learner = objective(model, gated=gated)
    assert learner.options.tied is tied
    assert (learner.head is None) is tied
    assert Span.from_json(learner.to_json()).options == learner.options


def test_a_row_takes_as_much_text_as_fills_the_context():
    learner = objective()
    batch = batch_of(learner)
    assert batch.ids.shape == (4, learner.window)
    assert learner.window > 24
    source, target = corrupted(batch.ids, batch.draws, learner.lengths, learner.sentinels, learner.end)
    assert source.shape[1] == 24
    assert target.shape[1] < 24


def test_nothing_stands_between_two_documents():
    learner = objective()
    documents = [np.array([5, 6], np.int32), np.array([7], np.int32)]
    assert learner.joined(documents).tolist() == [5, 6, 7]
    assert learner.joined([]).tolist() == []


def test_it_learns_to_copy_what_it_reads():
    """The same two windows again and again: what is written is soon known."""
    learner = objective()
    optimizer = torch.optim.Adam(learner.parameters(), 3e-3)
    batch = batch_of(learner, 2)
    for _ in range(100):
        loss = learner.loss(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2
    source, target = corrupted(batch.ids, batch.draws, learner.lengths, learner.sentinels, learner.end)
    writer, last, answer = AnswerWriter(learner.eval(), source), torch.full((2,), learner.pad), []
    for _ in range(target.shape[1]):
        last = writer.step(last).argmax(dim=-1)
        answer.append(last)
    assert torch.equal(torch.stack(answer, dim=1), target)


@torch.no_grad()
def test_a_writer_goes_on_with_the_rows_that_are_selected():
    learner = objective().eval()
    source = torch.randint(5, 30, (3, 10))
    mask = torch.arange(10) < torch.tensor([[10], [7], [4]])
    written = torch.randint(5, 30, (3, 4))
    rows = torch.tensor([2, 0, 0, 2])
    writer = AnswerWriter(learner, source, mask)
    for place in range(3):
        writer.step(written[:, place])
    writer.select(rows)
    logits = writer.step(written[rows, 3])
    assert torch.allclose(logits, learner(source, written, mask)[rows, -1], atol=1e-5)


def test_sentinels_are_found_by_their_names():
    tokenizer = learn(["abc"], 100, ("<pad>", "<extra_id_1>", "</s>", "<extra_id_0>", "<extra_id_3>"))
    assert sentinels(tokenizer) == [3, 1]


def test_what_cannot_be_is_refused():
    tokenizer = learn([TEXT], 1000, Span.special)
    reader = models.create_text("t5-nano", decoder_depth=0)
    decoder = models.create_text("gpt-nano", vocabulary=len(tokenizer))
    with pytest.raises(SettingError, match=r"a model that reads and writes, such as t5-nano; gpt-nano is none"):
        Span("gpt-nano", decoder, tokenizer)
    with pytest.raises(SettingError, match="a model that reads and writes"):
        Span("t5-nano", reader, tokenizer)
    with pytest.raises(SettingError, match="no <pad> or no </s>"):
        objective(special=("<|endoftext|>",))
    with pytest.raises(SettingError, match=r"has 3 gaps, but the tokenizer has 1 tokens"):
        objective(special=("<pad>", "</s>", "<extra_id_0>"), mask_ratio=0.3)
    with pytest.raises(SettingError, match="makes no sense"):
        objective(mask_ratio=1.0)


def test_a_mask_never_lets_padding_be_seen():
    learner = objective().eval()
    source = torch.randint(5, 30, (2, 10))
    mask = torch.arange(10) < 6
    written = torch.randint(5, 30, (2, 4))
    other = source.clone()
    other[:, 6:] = torch.randint(5, 30, (2, 4))
    mask = mask.expand(2, -1)
    assert torch.equal(learner(source, written, mask), learner(other, written, mask))
    assert torch.allclose(learner(source, written, mask), learner(source[:, :6], written), atol=1e-5)


def test_batches_split_and_move(tmp_path):
    learner = objective()
    batch = batch_of(learner)
    assert isinstance(batch, TextBatch)
    whole = learner.loss(batch)["loss"].item()
    parts = [learner.loss(part)["loss"].item() for part in batch.split(2)]
    assert whole == pytest.approx(np.mean(parts), abs=1e-5)
