"""BERT: published sizes, its block against PyTorch's, and what each token may know."""

import pytest
import torch
from torch import nn

from vitrail import models
from vitrail.errors import SettingError
from vitrail.models.bert import BERT, SIZES, Config
from vitrail.models.bert.bert import Block

SMALL = Config(width=48, depth=3, heads=4, mlp=80, vocabulary=40, context=16)

# As the authors and Transformers count them: with the pooler for BERT, without for RoBERTa (590,592 or 1,049,600 less).
PUBLISHED = {
    "bert-base": 109_482_240,
    "bert-large": 335_141_888,
    "roberta-base": 124_645_632 - 590_592,
    "roberta-large": 355_359_744 - 1_049_600,
}


def small(**changes):
    torch.manual_seed(0)
    model = BERT(Config(**{**vars(SMALL), **changes}))
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_as_published(name):
    with torch.device("meta"):
        model = models.create_text(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED[name]


def test_shapes():
    model = small()
    features = model(torch.randint(40, (2, 9)))
    assert features.tokens.shape == (2, 9, 48)
    assert features.pooled.shape == (2, model.width)
    assert (features.grid, features.prefix, features.maps) == ((9,), 0, ())


def test_what_is_pooled_is_the_first_token_through_a_layer_or_itself():
    ids = torch.randint(40, (2, 9))
    model, plain = small(), small(pooler=False)
    features = model(ids)
    expected = torch.tanh(features.tokens[:, 0] @ model.pooler.weight.T + model.pooler.bias)
    torch.testing.assert_close(features.pooled, expected)
    features = plain(ids)
    assert torch.equal(features.pooled, features.tokens[:, 0])
    model.leave_out_pooler()
    assert model.config == plain.config
    assert torch.equal(model(ids).pooled, model(ids).tokens[:, 0])


def test_a_block_is_pytorchs_post_norm_encoder_layer():
    torch.manual_seed(0)
    ours = Block(SMALL).eval()
    for parameter in ours.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    theirs = nn.TransformerEncoderLayer(48, 4, 80, 0.0, "gelu", 1e-12, batch_first=True, norm_first=False).eval()
    names = {
        "attention.qkv.": "self_attn.in_proj_",
        "attention.proj.": "self_attn.out_proj.",
        "norm1.": "norm1.",
        "mlp.fc1.": "linear1.",
        "mlp.fc2.": "linear2.",
        "norm2.": "norm2.",
    }
    state = ours.state_dict()
    theirs.load_state_dict({their + x: state[our + x] for our, their in names.items() for x in ("weight", "bias")})
    x, mask = torch.randn(2, 9, 48), torch.arange(9) < torch.tensor([[9], [5]])
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)
    masked = theirs(x, src_key_padding_mask=~mask)
    torch.testing.assert_close(ours(x, mask[:, None, None])[mask], masked[mask], atol=1e-5, rtol=1e-5)


def test_every_token_knows_of_those_on_both_sides():
    model, ids = small(), torch.randint(40, (1, 9))
    before = model(ids).tokens
    ids[0, 4] = (ids[0, 4] + 1) % 40
    assert ((model(ids).tokens - before).abs().amax(dim=-1) > 1e-4).all()


def test_what_fills_a_row_up_changes_nothing():
    model, ids = small(), torch.randint(40, (2, 9))
    mask = torch.arange(9) < torch.tensor([[9], [5]])
    alone = model(ids[1:, :5])
    for filler in (0, 7):
        features = model(ids.masked_fill(~mask, filler), mask=mask)
        torch.testing.assert_close(features.tokens[1:, :5], alone.tokens, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(features.pooled[1:], alone.pooled, atol=1e-5, rtol=1e-5)


def test_segments():
    ids = torch.randint(40, (1, 9))
    second = torch.ones_like(ids)
    model = small()
    assert torch.equal(model(ids).tokens, model(ids, torch.zeros_like(ids)).tokens)
    assert not torch.allclose(model(ids).tokens, model(ids, second).tokens)
    roberta = small(segments=1)
    assert torch.equal(roberta(ids).tokens, roberta(ids, second).tokens)


def test_positions_before_the_first_are_never_seen():
    ids = torch.randint(40, (1, 16))
    bert, roberta = small(), small(first_position=2)
    roberta.load_state_dict({**bert.state_dict(), "positions": torch.cat([torch.randn(2, 48), bert.positions.data])})
    assert torch.equal(bert(ids).tokens, roberta(ids).tokens)


def test_initialisation():
    torch.manual_seed(0)
    model = BERT(Config(**{**vars(SMALL), "vocabulary": 4000}))
    weight = model.token_embedding.weight
    assert weight.abs().max() <= 0.04
    assert weight.std().item() == pytest.approx(0.02 * 0.8796, rel=0.01)  # of a normal cut at two deviations
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    assert not any(bias.any() for bias in biases)
    assert (model.norm.weight == 1).all()


def test_layers_go_up_from_the_embeddings_to_the_pooler():
    model = small()
    layers = [model.layer(name) for name, _ in model.named_parameters()]
    assert layers == sorted(layers)
    assert set(layers) == set(range(model.depth + 1))


def test_what_cannot_be():
    with pytest.raises(SettingError, match="48 is not divisible by 5 heads"):
        small(heads=5)
    with pytest.raises(SettingError, match="17 tokens are more than this model's context of 16"):
        small()(torch.zeros(1, 17, dtype=torch.long))


@pytest.mark.parametrize("name", SIZES)
def test_every_size_can_be_made_small(name):
    model = models.create_text(name, width=24, depth=1, heads=3, mlp=32, vocabulary=20).eval()
    assert model(torch.zeros(1, 4, dtype=torch.long)).pooled.shape == (1, 24)
