"""T5 and the 2017 Transformer: their published sizes, and what every encoder-decoder promises."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from vitrail import models
from vitrail.errors import SettingError
from vitrail.models import t5, transformer
from vitrail.nn.attention import attention_probabilities
from vitrail.nn.cross_attention import CrossAttention

# As Transformers counts them; version 1.1 without its output, which is the objective's: 32,128 times the width more,
# so that the small one has the 76,961,152 that are published.
PARAMETERS = {
    "t5-small": 60_506_624,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "t5-3b": 2_851_598_336,
    "t5-11b": 11_307_321_344,
    "t5-v1_1-small": 76_961_152 - 32_128 * 512,
    "t5-v1_1-base": 247_577_856 - 32_128 * 768,
    "t5-v1_1-large": 783_150_080 - 32_128 * 1024,
    "t5-v1_1-xl": 2_849_757_184 - 32_128 * 2048,
    "t5-v1_1-xxl": 11_135_332_352 - 32_128 * 4096,
}
SMALL = {"width": 24, "depth": 2, "decoder_depth": 3, "heads": 3, "mlp": 40, "vocabulary": 30, "context": 16}
NAMES = ("t5-small", "t5-v1_1-small", "transformer-base")


def count(name):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in models.create_text(name).parameters())


def small(name, **changes):
    torch.manual_seed(0)
    model = models.create_text(name, **{**SMALL, **({"head_width": 5} if name.startswith("t5") else {}), **changes})
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def ids(length=10, rows=3):
    return torch.randint(30, (rows, length))


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_parameter_counts(name):
    assert count(name) == PARAMETERS[name]


def test_every_published_size_of_t5_is_checked_here():
    assert t5.SIZES.keys() == {"t5-nano", *PARAMETERS}


@pytest.mark.parametrize(("name", "published"), [("transformer-base", 65e6), ("transformer-big", 213e6)])
def test_the_first_transformers_have_about_the_parameters_of_the_papers_table_3(name, published):
    """The paper rounds, and its vocabulary is "about 37,000"; what is not embedding is PyTorch's to the last one."""
    config = transformer.SIZES[name]
    with torch.device("meta"):
        theirs = nn.Transformer(config.width, config.heads, 6, 6, config.mlp, batch_first=True)
    stacks = sum(p.numel() for p in theirs.parameters()) - 4 * config.width  # its norms behind each stack
    assert count(name) == stacks + 37_000 * config.width
    assert abs(count(name) / published - 1) < 0.035


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_what_is_written_later_never_changes_what_was_before(name):
    model, source, written = small(name), ids(), ids(8)
    memory = model.encode(source)
    before = model.decode(written, memory)
    written[:, 5] = (written[:, 5] + 1) % 30
    after = model.decode(written, memory)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_every_token_that_is_read_counts_for_every_one_that_is_written(name):
    model, source, written = small(name), ids(), ids(4)
    before = model.decode(written, model.encode(source))
    for place in range(10):
        other = source.clone()
        other[:, place] = (other[:, place] + 1) % 30
        after = model.decode(written, model.encode(other))
        assert ((before - after).abs().amax(dim=-1) > 0).all()


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_written_in_pieces_from_the_caches_it_is_the_same(name):
    model, source, written = small(name), ids(), ids(9)
    mask = torch.arange(10) < torch.tensor([[10], [7], [2]])
    memory, cache = model.encode(source, mask), model.new_cache()
    whole = model.decode(written, memory, mask)
    pieces = [model.decode(part, memory, mask, cache) for part in written.split([1, 4, 3, 1], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-5, rtol=1e-5)
    assert len(cache) == 3
    assert all(len(block.own) == 9 and len(block.memory) == 10 for block in cache)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_padding_changes_nothing(name):
    model, source = small(name), ids()
    mask = torch.arange(10).expand(3, -1) < 6
    features, short = model(source, mask=mask), model(source[:, :6])
    torch.testing.assert_close(features.tokens[:, :6], short.tokens, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features.pooled, short.tokens.mean(dim=1), atol=1e-5, rtol=1e-5)
    assert (features.grid, features.prefix, features.maps) == ((10,), 0, ())


@torch.no_grad()
def test_a_t5_knows_distances_not_places():
    """The middle of a text moved along is the same to it, as far as tokens look; its first block alone shows it."""
    model = small("t5-small", depth=1)
    bias = model.encoder.distance_bias(12, 12)
    assert torch.equal(bias[..., 2:8, 3:9], bias[..., 4:10, 5:11])
    assert torch.equal(bias[..., -3:, :], model.encoder.distance_bias(3, 12))


@torch.no_grad()
def test_the_first_transformer_adds_places_that_are_known_at_any_length():
    positions = transformer.transformer.sinusoids(0, 50, 24)
    assert torch.equal(positions[20:30], transformer.transformer.sinusoids(20, 30, 24))
    turns = torch.einsum("pi,qi->pq", positions, positions)  # depends on how far apart two places are
    assert all(turns.diagonal(offset).std() < 1e-5 for offset in range(5))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name):
    model = small(name).train()
    model.decode(ids(6), model.encode(ids())).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", NAMES)
def test_layers_go_up_from_the_embedding_through_both_stacks(name):
    model = small(name)
    layers = {parameter: model.layer(parameter) for parameter, _ in model.named_parameters()}
    assert list(layers.values()) == sorted(layers.values())
    assert layers["token_embedding.weight"] == 0
    assert layers["encoder.blocks.1.mlp.fc2.weight"] == 2
    assert layers["decoder.blocks.0.attention.qkv.weight"] == 3
    assert layers["decoder.blocks.2.mlp.fc2.weight"] == model.depth - 1 == 5


@pytest.mark.parametrize("name", NAMES)
def test_more_tokens_than_the_context_are_refused(name):
    model = small(name)
    memory = model.encode(ids(16))
    with pytest.raises(SettingError, match="17 tokens are more than this model's context of 16"):
        model.encode(ids(17))
    with pytest.raises(SettingError, match="17 tokens are more"):
        model.decode(ids(17), memory)
    cache = model.new_cache()
    model.decode(ids(16), memory, cache=cache)
    with pytest.raises(SettingError, match="17 tokens are more"):
        model.decode(ids(1), memory, cache=cache)


def test_a_shape_that_cannot_be_is_refused():
    with pytest.raises(SettingError, match="width 25 must be even and divisible by 5 heads"):
        transformer.Transformer(replace(transformer.SIZES["transformer-nano"], width=25, heads=5))


@torch.no_grad()
def test_fresh_queries_are_as_much_smaller_as_attention_is_not_scaled():
    model = models.create_text("t5-nano", vocabulary=50)
    block = model.decoder.blocks[0]
    inner, width, head = 4 * 32, 128, 32
    expected = {"q": (width * head) ** -0.5, "kv": width**-0.5}
    assert block.attention.qkv.weight[:inner].std().item() == pytest.approx(expected["q"], rel=0.05)
    assert block.attention.qkv.weight[inner:].std().item() == pytest.approx(expected["kv"], rel=0.05)
    assert block.cross_attention.q.weight.std().item() == pytest.approx(expected["q"], rel=0.05)
    assert block.cross_attention.kv.weight.std().item() == pytest.approx(expected["kv"], rel=0.05)
    assert block.mlp.fc2.weight.std().item() == pytest.approx(320**-0.5, rel=0.05)


@torch.no_grad()
def test_cross_attention_shows_what_it_pays():
    torch.manual_seed(0)
    layer = CrossAttention(12, 3, scale=0.7)
    x, memory = torch.randn(2, 4, 12), torch.randn(2, 6, 12)
    mask = torch.arange(6) < torch.tensor([[6], [2]])
    paid = layer.probabilities(x, memory, mask)
    q, k, v = layer.queries_keys_values(x, memory)
    assert torch.equal(paid, attention_probabilities(q, k, mask=mask[:, None, None], scale=0.7))
    assert not paid[1, ..., 2:].any()
    assert torch.allclose(layer(x, memory, mask), layer.proj((paid @ v).transpose(1, 2).flatten(2)), atol=1e-6)
