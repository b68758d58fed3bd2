"""Masked tokens: which are chosen and what becomes of them, what the loss is, and what cannot be."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tokenizers import AddedToken
from transformers import RobertaTokenizer

from vitrail import models
from vitrail.data.text import bytepair, wordpiece
from vitrail.data.text.batch import TextBatch
from vitrail.data.text.characters import learn
from vitrail.data.text.tokenizers import open_tokenizer
from vitrail.errors import SettingError
from vitrail.objectives.masked_token import MaskedToken, choose

TEXT = "the quick brown fox jumps over the lazy dog. why? he has no idea! so it goes.\n" * 40
CHARACTERS = learn([TEXT], 100, MaskedToken.special)
PIECES = wordpiece.learn([TEXT], 70, MaskedToken.special)
SMALL = {"width": 32, "depth": 2, "heads": 2, "mlp": 48, "context": 32}


def objective(tokenizer=CHARACTERS, context=32, **options):
    torch.manual_seed(0)
    model = models.create_text("bert-nano", vocabulary=len(tokenizer) + 3, **{**SMALL, "context": context})
    return MaskedToken("bert-nano", model, tokenizer, MaskedToken.Options(**options)).eval()


def rows(count, length, tokenizer=CHARACTERS):
    """Framed rows of text, the last fifth of each filled up, and what counts."""
    documents = tokenizer.encode_many([TEXT])
    starts = np.arange(count) * 7 % (len(documents[0]) - length)
    ids = torch.from_numpy(np.stack([documents[0][s : s + length] for s in starts]).astype(np.int64))
    ids[:, 0], ids[:, length // 2] = tokenizer.first, tokenizer.separator
    mask = (torch.arange(length) < length * 4 // 5).expand(count, -1)
    return ids.masked_fill(~mask, tokenizer.pad), mask


def test_shares_are_those_of_the_paper():
    learner = objective()
    ids, mask = rows(4000, 50)
    hidden, chosen = learner.hide(ids, torch.arange(4000), mask)
    may = mask & ~torch.isin(ids, torch.tensor(sorted(CHARACTERS.special)))
    assert not chosen[~may].any()
    assert chosen.sum() / may.sum() == pytest.approx(0.15, abs=0.01)
    assert torch.equal(hidden[~chosen], ids[~chosen])
    masked = hidden[chosen] == CHARACTERS.mask
    kept = hidden[chosen] == ids[chosen]
    by_chance = 0.1 / len(learner.text_tokens)  # of the random ones so many are what was there
    assert masked.double().mean().item() == pytest.approx(0.8, abs=0.01)
    assert kept.double().mean().item() == pytest.approx(0.1 + by_chance, abs=0.01)
    others = hidden[chosen][~masked & ~kept]
    assert len(others) / chosen.sum().item() == pytest.approx(0.1 - by_chance, abs=0.01)
    assert not torch.isin(others, torch.tensor(sorted(CHARACTERS.special))).any()
    counts = torch.bincount(others, minlength=len(CHARACTERS))[len(CHARACTERS.special) :]
    assert counts.min() > 0.5 * counts.double().mean()  # every token of text, about as often
    assert chosen[:, :25].double().mean().item() == pytest.approx(chosen[:, 26:40].double().mean().item(), abs=0.01)


def test_every_row_has_as_many_and_at_least_one():
    learner = objective()
    ids, mask = rows(200, 50)
    _, chosen = learner.hide(ids, torch.arange(200), mask)
    assert (chosen.sum(dim=1) == round(0.15 * 38)).all()
    short, shorter = ids[:, :3], torch.tensor([[CHARACTERS.first, CHARACTERS.separator, CHARACTERS.pad]])
    assert (learner.hide(short, torch.arange(200))[1].sum(dim=1) == 1).all()
    assert not learner.hide(shorter, torch.arange(1))[1].any()


def test_a_row_is_hidden_by_its_draw_alone():
    learner = objective()
    ids, mask = rows(6, 50)
    draws = torch.tensor([3, 1, 4, 1, 5, 9])
    hidden, chosen = learner.hide(ids, draws, mask)
    for row in range(6):
        alone, of_it = learner.hide(ids[row : row + 1], draws[row : row + 1], mask[row : row + 1])
        assert torch.equal(alone[0], hidden[row])
        assert torch.equal(of_it[0], chosen[row])
    filled = torch.cat([ids, torch.full((6, 9), CHARACTERS.pad)], dim=1)
    assert torch.equal(learner.hide(filled, draws)[0][:, :50], hidden)
    assert not torch.equal(learner.hide(ids, draws + 1, mask)[1], chosen)


def test_the_share_can_be_another():
    learner = objective(mask_ratio=0.5)
    ids, mask = rows(300, 50)
    assert (learner.hide(ids, torch.arange(300), mask)[1].sum(dim=1) == 19).all()


def test_whole_words_are_chosen_together():
    learner = objective(PIECES, whole_words=True)
    ids, mask = rows(500, 50, PIECES)
    _, chosen = learner.hide(ids, torch.arange(500), mask)
    pieces = [[PIECES.token(index) for index in row] for row in ids.tolist()]
    parts = 0
    for row, tokens in enumerate(pieces):
        for place in range(1, len(tokens)):
            if tokens[place].startswith("##") and tokens[place - 1] not in MaskedToken.special:
                assert chosen[row, place] == chosen[row, place - 1]
                parts += int(chosen[row, place])
    assert parts > 500
    assert chosen.sum() / (mask & ~torch.isin(ids, torch.tensor(sorted(PIECES.special)))).sum() < 0.25
    assert (chosen.sum(dim=1) >= 1).all()


def test_choosing_by_hand():
    chance = torch.tensor([[0.9, 0.5, 0.0, 0.1, 0.8, 0.2]])
    may = torch.tensor([[True, True, True, True, False, True]])
    each = torch.ones_like(may)
    assert choose(chance, may, each, 0.4).tolist() == [[False, False, True, True, False, False]]
    assert choose(chance, may, each, 0.01).tolist() == [[False, False, True, False, False, False]]
    begins = torch.tensor([[True, False, False, True, True, True]])  # the first three have the chance 0.9
    assert choose(chance, may, begins, 0.4).tolist() == [[False, False, False, True, False, True]]
    assert choose(chance, may, begins, 0.6).tolist() == [[True, True, True, True, False, True]]


def test_the_loss_is_the_cross_entropy_of_what_was_chosen():
    learner = objective()
    documents = CHARACTERS.encode_many([TEXT])
    batch = learner.training_batches(documents, 5, seed=1)[2]
    assert batch.ids.shape == (5, 30)
    framed = F.pad(F.pad(batch.ids, (1, 0), value=CHARACTERS.first), (0, 1), value=CHARACTERS.separator)
    hidden, chosen = learner.hide(framed, batch.draws)
    logits = learner(hidden)
    assert logits.shape == (5, 32, len(CHARACTERS) + 3)
    probabilities = logits.softmax(dim=-1)[chosen].gather(1, framed[chosen].unsqueeze(1))
    losses = learner.loss(batch)
    torch.testing.assert_close(losses["loss"], -probabilities.log().mean())
    guessed = (logits.argmax(dim=-1) == framed)[chosen].float().mean()
    torch.testing.assert_close(losses["accuracy"], guessed)
    assert losses.keys() == {"loss", "accuracy"}


def test_the_next_sentence_is_a_loss_of_its_own():
    learner = objective(context=48, next_sentence=True)
    documents = CHARACTERS.encode_many([TEXT[:1500], TEXT[:1200]])
    batch = learner.training_batches(documents, 7, seed=1)[0]
    assert batch.ids.shape == batch.segments.shape == (7, 48)
    losses = learner.loss(batch)
    torch.testing.assert_close(losses["loss"], losses["masked"] + losses["next"])
    hidden, chosen = learner.hide(batch.ids, batch.draws, batch.mask)
    features = learner.backbone(hidden, batch.segments, batch.mask)
    follows = (features.pooled @ learner.head.next.weight.T + learner.head.next.bias).log_softmax(dim=-1)
    torch.testing.assert_close(losses["next"], -follows[torch.arange(7), batch.labels].mean())
    wanted = batch.ids[chosen]
    guesses = learner.logits(features.tokens)[chosen].log_softmax(dim=-1)
    torch.testing.assert_close(losses["masked"], -guesses.gather(1, wanted[:, None]).mean())
    assert learner.evaluation_batches(documents, 4)[0].labels.shape == (4,)


def test_without_the_next_sentence_nothing_reads_a_pooler():
    alone, beside = objective(), objective(next_sentence=True)
    assert alone.backbone.pooler is None
    assert alone.head.next is None
    assert beside.backbone.pooler is not None
    assert json.loads(json.dumps(alone.to_json()["config"]))["pooler"] is False
    assert not any("pooler" in name for name in MaskedToken.from_json(alone.to_json()).state_dict())


def test_the_output_layer_is_the_embedding():
    learner = objective()
    assert sum(p.numel() for p in learner.head.parameters()) == 32 * 33 + 2 * 32 + len(CHARACTERS) + 3
    tokens = torch.randn(3, 32)
    hidden = learner.head.norm(F.gelu(learner.head.dense(tokens)))
    expected = hidden @ learner.backbone.token_embedding.weight.T + learner.head.bias
    torch.testing.assert_close(learner.logits(tokens), expected)


@pytest.mark.parametrize(("model", "total"), [("bert-base", 110_106_428), ("roberta-base", 124_697_433)])
def test_parameters_with_the_heads_as_published(model, total):
    with torch.device("meta"):
        backbone = models.create_text(model)
    learner = MaskedToken(model, backbone, CHARACTERS, MaskedToken.Options(next_sentence=model == "bert-base"))
    assert sum(parameter.numel() for parameter in learner.parameters()) == total


def test_a_letter_that_is_like_all_around_it_is_learned():
    text = "".join(letter * 300 for letter in "abcdefgh")
    learner = objective(learn([text], 20, MaskedToken.special), context=16, mask_ratio=0.3)
    batches = learner.training_batches(learner.tokenizer.encode_many([text]), 16, seed=0)
    optimizer = torch.optim.Adam(learner.parameters(), 3e-3)
    for step in range(80):
        loss = learner.train().loss(batches[step])["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3
    for letter in "ah":
        text, guesses = learner.eval().fill(letter * 4 + "[MASK]" + letter * 5)
        word, probability = guesses[0][0]
        assert word == letter
        assert text == letter * 10
        assert probability > 0.9


def test_filling_in_gives_the_likeliest_first():
    learner = objective()
    text, found = learner.fill("the [MASK]uick brown f[MASK]x", most=4)
    assert [len(each) for each in found] == [4, 4]
    assert text == f"the {found[0][0][0]}uick brown f{found[1][0][0]}x"
    ids = learner.framed(torch.tensor([CHARACTERS.encode("the [MASK]uick brown f[MASK]x")]))
    probabilities = learner(ids)[0, (ids[0] == CHARACTERS.mask)].softmax(dim=-1)
    for row, each in zip(probabilities, found, strict=True):
        shares = [share for _, share in each]
        assert shares == sorted(shares, reverse=True)
        assert shares[0] == pytest.approx(row[learner.text_tokens].max().item())
    with pytest.raises(SettingError, match=r"nothing is hidden in 'abc'; write \[MASK\]"):
        learner.fill("abc")


def test_robertas_tokens(tmp_path):
    special = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    bytepair.learn([TEXT], 320, special).inner.model.save(str(tmp_path))
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    words = {**{word: number for number, word in enumerate(special)}, **vocabulary}
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    tokenizer = open_tokenizer(tmp_path)
    mask = AddedToken("<mask>", lstrip=True)  # as in RoBERTa's own tokenizer.json
    theirs = RobertaTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"), mask_token=mask)
    text = "the quick <mask> über fox"
    learner = objective(tokenizer)
    framed = learner.framed(torch.tensor([tokenizer.encode(text)]))
    assert framed[0].tolist() == theirs(text)["input_ids"]
    assert (tokenizer.pad, tokenizer.mask) == (theirs.pad_token_id, theirs.mask_token_id)
    assert tokenizer.special == set(theirs.all_special_ids)
    assert len(learner.fill(text).guesses) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [({"mask_ratio": 0.0}, "0 hides none of the tokens"), ({"mask_ratio": 1.0}, "1 hides all of the tokens")],
)
def test_shares_that_hide_all_or_none(options, message):
    with pytest.raises(SettingError, match=message):
        objective(**options)


def test_what_it_cannot_be_put_around():
    gpt = models.create_text("gpt-nano", width=32, depth=1, heads=2, mlp=48)
    with pytest.raises(SettingError, match="gpt-nano is no BERT"):
        MaskedToken("gpt-nano", gpt, CHARACTERS)
    with pytest.raises(SettingError, match=r"no token such as \[CLS\], \[SEP\], \[MASK\], \[PAD\]"):
        objective(learn([TEXT], 100, ()))
    bert = models.create_text("bert-nano", width=32, depth=1, heads=2, mlp=48, vocabulary=9)
    with pytest.raises(SettingError, match=r"the tokenizer has \d+ tokens and bert-nano a vocabulary of 9"):
        MaskedToken("bert-nano", bert, CHARACTERS)
    with pytest.raises(SettingError, match="does not say where words begin"):
        objective(whole_words=True)


def test_a_batch_of_windows_is_framed_on_its_own():
    learner = objective()
    batch = TextBatch(torch.full((1, 30), 7), ("row",), torch.tensor([5]))
    framed = learner.framed(batch.ids)
    assert framed.tolist() == [[CHARACTERS.first, *[7] * 30, CHARACTERS.separator]]


def test_texts_that_do_not_belong_together_are_told_apart():
    """Documents of letters of their own: whether B is of another one can be seen from both sides."""
    rng = np.random.default_rng(0)
    documents = ["".join(rng.choice(list(of), 900)) for of in ("abcd..", "efgh..")]
    learner = objective(learn(documents, 40, MaskedToken.special), context=24, next_sentence=True)
    ids = learner.tokenizer.encode_many(documents)
    batches = learner.training_batches(ids, 16, seed=0)
    optimizer = torch.optim.Adam(learner.parameters(), 3e-3)
    for step in range(150):
        loss = learner.train().loss(batches[step])["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        figures = learner.eval().loss(learner.evaluation_batches(ids, 200)[0])
    assert figures["next_accuracy"] > 0.9
