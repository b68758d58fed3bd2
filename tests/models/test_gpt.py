import math

import pytest
import torch
from torch import nn

from vitrail import models
from vitrail.data.text.batch import TextBatch
from vitrail.data.text.characters import learn
from vitrail.errors import SettingError
from vitrail.models.gpt import GPT, Block, Config
from vitrail.objectives.next_token import NextToken

SHAPE = {"width": 24, "depth": 2, "heads": 3, "mlp": 48, "vocabulary": 30, "context": 16}
POSITIONS = [{"position": "learned"}, {"position": "rotary"}, {"position": "rotary", "rotary_pairs": "halves"}]


def small(**changes):
    torch.manual_seed(0)
    return models.create_text("gpt", **{**SHAPE, **changes})


def randomised(model):
    """No parameter at a special value such as 0, so that nothing hides behind it."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def ids(rows=3, length=16):
    return torch.randint(30, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("gpt2", 124_439_808),  # of the released weights
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
    ],
)
def test_parameters_as_published(name, parameters):
    with torch.device("meta"):
        model = models.create_text(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_a_block_is_pytorchs_pre_norm_encoder_layer_with_a_causal_mask():
    torch.manual_seed(0)
    config = Config(**{**SHAPE, "activation": "gelu"})  # PyTorch's layer has no tanh approximation
    ours = randomised(Block(config))
    theirs = nn.TransformerEncoderLayer(
        *(24, 3, 48), dropout=0.0, activation="gelu", layer_norm_eps=1e-5, batch_first=True, norm_first=True
    ).eval()
    names = {
        "norm1.": "norm1.",
        "attention.qkv.": "self_attn.in_proj_",
        "attention.proj.": "self_attn.out_proj.",
        "norm2.": "norm2.",
        "mlp.fc1.": "linear1.",
        "mlp.fc2.": "linear2.",
    }
    state = ours.state_dict()
    theirs.load_state_dict({their + x: state[our + x] for our, their in names.items() for x in ("weight", "bias")})
    x = torch.randn(2, 16, 24)
    mask = nn.Transformer.generate_square_subsequent_mask(16)
    torch.testing.assert_close(ours(x), theirs(x, src_mask=mask, is_causal=True), atol=1e-5, rtol=1e-5)


def test_gelu_is_the_approximation_by_tanh():
    x = torch.linspace(-4, 4, 100)
    expected = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    torch.testing.assert_close(small().blocks[0].mlp.act(x), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("changes", POSITIONS)
@pytest.mark.parametrize("place", [0, 7, 15])
@torch.no_grad()
def test_another_token_changes_nothing_before_it_and_everything_from_it_on(changes, place):
    model = randomised(small(**changes))
    before, other = ids(), ids()
    other[:, place] = (other[:, place] + 1) % 30
    first, second = model(before).tokens, model(other).tokens
    assert torch.equal(first[:, :place], second[:, :place])
    assert (first[:, place:] != second[:, place:]).any(dim=-1).all()


@pytest.mark.parametrize("changes", POSITIONS)
@pytest.mark.parametrize("cuts", [[1] * 16, [5, 1, 1, 9], [15, 1], [1, 15], [16]])
@torch.no_grad()
def test_tokens_that_come_later_find_the_others_in_the_cache(changes, cuts):
    model = randomised(small(**changes))
    whole, cache = model(ids()).tokens, model.new_cache()
    parts = [model(part, cache=cache).tokens for part in ids().split(cuts, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)
    assert all(len(each) == 16 for each in cache)


@torch.no_grad()
def test_in_double_precision_cached_and_whole_agree_to_the_last_digits():
    model = randomised(small()).double()
    cache = model.new_cache()
    parts = [model(part, cache=cache).tokens for part in ids().split(1, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(ids()).tokens, atol=1e-12, rtol=1e-12)


@torch.no_grad()
def test_rows_of_a_cache_can_be_chosen():
    model = randomised(small())
    cache = model.new_cache()
    model(ids()[:, :10], cache=cache)
    for each in cache:
        each.select(torch.tensor([2, 0, 0]))
    chosen = ids()[[2, 0, 0]]
    torch.testing.assert_close(
        model(chosen[:, 10:], cache=cache).tokens, model(chosen).tokens[:, 10:], atol=1e-5, rtol=1e-5
    )


def test_the_two_ways_to_pair_features_are_one_network_but_for_the_order_of_rows():
    """Features 2 i and 2 i + 1 of a head moved to i and i + d / 2, in queries and keys: the same tokens come out."""
    neighbours = randomised(small(position="rotary", rotary_pairs="neighbours"))
    halves = GPT(Config(**SHAPE, position="rotary", rotary_pairs="halves")).eval()
    d = 24 // 3
    order = torch.cat([torch.arange(0, d, 2), torch.arange(1, d, 2)])
    rows = torch.cat([part * 24 + head * d + order for part in (0, 1) for head in range(3)])
    rows = torch.cat([rows, torch.arange(48, 72)])  # values stay
    state = neighbours.state_dict()
    moved = {name: x[rows] if ".attention.qkv." in name else x for name, x in state.items()}
    halves.load_state_dict(moved)
    with torch.no_grad():
        torch.testing.assert_close(halves(ids()).tokens, neighbours(ids()).tokens, atol=1e-5, rtol=1e-5)
        halves.load_state_dict(state)
        assert (halves(ids()).tokens - neighbours(ids()).tokens).abs().max() > 1e-2


def test_what_a_row_says_is_where_its_tokens_end():
    model = randomised(small())
    mask = torch.arange(16) < torch.tensor([[16], [9], [1]])
    features = model(ids(), mask=mask)
    for row, length in enumerate((16, 9, 1)):
        alone = model(ids()[row : row + 1, :length])
        torch.testing.assert_close(features.pooled[row], alone.pooled[0], atol=1e-5, rtol=1e-5)
        assert torch.equal(alone.pooled[0], alone.tokens[0, -1])


def test_dropout_is_for_training_alone():
    model = small(dropout=0.5)
    assert not torch.equal(model.train()(ids()).tokens, model(ids()).tokens)
    assert torch.equal(model.eval()(ids()).tokens, model(ids()).tokens)


def test_weights_begin_as_small_as_gpt_2s():
    torch.manual_seed(0)
    model = models.create_text("gpt", **{**SHAPE, "width": 192, "mlp": 768, "depth": 8})
    residual = 0.02 / math.sqrt(16)
    for name, parameter in model.named_parameters():
        expected = {"positions": 0.01}.get(name, residual if name.endswith(("proj.weight", "fc2.weight")) else 0.02)
        if parameter.ndim == 2:
            assert parameter.std().item() == pytest.approx(expected, rel=0.1), name
        else:
            assert set(parameter.tolist()) == {float("norm" in name and name.endswith("weight"))}, name


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"heads": 5}, "24 is not divisible by 5"),
        ({"position": "rotary", "width": 27, "heads": 9}, "must be even, not 3"),
    ],
)
def test_a_shape_that_cannot_be(changes, words):
    with pytest.raises(SettingError, match=words):
        small(**changes)(ids())


def test_more_tokens_than_the_context():
    with pytest.raises(SettingError, match="17 tokens are more than this model's context of 16; cut them"):
        small()(ids(length=17))
    model, cache = small(), small().new_cache()
    model(ids(), cache=cache)
    with pytest.raises(SettingError, match="17 tokens are more"):
        model(ids(length=1), cache=cache)


# ---------------------------------------------------------------------------------------------------- the next token


def objective(**options):
    tokenizer = learn(["abcdefgh"], 30, NextToken.special)
    torch.manual_seed(0)
    return NextToken("gpt", randomised(small()), tokenizer, NextToken.Options(**options))


def batch(rows=4, length=17):
    return TextBatch(ids(rows, length), tuple("abcd"[:rows]), torch.zeros(rows, dtype=torch.int64))


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_the_loss_is_the_mean_surprise_at_each_next_token(tied):
    learner = objective(tied=tied)
    rows = batch().ids
    output = learner.backbone.token_embedding.weight if tied else learner.head.weight
    surprise = []
    for row in rows:
        for place in range(1, 17):
            scores = learner.backbone(row[None, :place]).tokens[0, -1] @ output.T
            surprise.append(-scores.log_softmax(dim=-1)[row[place]])
    torch.testing.assert_close(learner.loss(batch())["loss"], torch.stack(surprise).mean(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_gradients_reach_every_parameter(tied):
    learner = objective(tied=tied).train()
    learner.loss(batch())["loss"].backward()
    assert [n for n, p in learner.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert any(n.startswith("head") for n, _ in learner.named_parameters()) != tied


def test_it_comes_back_from_its_description():
    learner = objective(tied=False)
    again = NextToken.from_json(learner.to_json())
    again.load_state_dict(learner.state_dict())
    assert torch.equal(again.eval()(ids()), learner(ids()))
    assert again.options == learner.options


def test_a_model_that_looks_ahead_is_refused():
    bert = models.create_text("bert-nano", vocabulary=30)
    with pytest.raises(SettingError, match="bert-nano sees the tokens that it is to predict"):
        NextToken("bert-nano", bert, learn(["abc"], 30, ()))


def test_figures_that_tokenizers_share():
    """A text of 8 tokens whose letters take two bytes each: of loss log 2 a token, a bit each."""
    learner = objective()
    learner.tokenizer = learn(["äöü"], 30, NextToken.special)

    class Batches:
        ids = torch.tensor(learner.tokenizer.encode("äöüäöüäö")).numpy()

    figures = learner.figures({"loss": math.log(2)}, Batches())
    assert figures == pytest.approx(
        {"loss": math.log(2), "perplexity": 2.0, "bits_per_character": 1.0, "bits_per_byte": 0.5}
    )
