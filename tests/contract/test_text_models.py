"""Every model of text keeps the promises of `Features` and `TextBackbone`."""

import pytest
import torch

from vitrail import models
from vitrail.errors import SettingError

# Changes that leave a model's structure and make it small.
SHAPE = {"width": 24, "depth": 2, "heads": 3, "mlp": 48, "vocabulary": 50, "context": 16}
SMALL = {
    "bert": SHAPE,
    "gpt": SHAPE,
    "t5": {**SHAPE, "decoder_depth": 2, "head_width": 8},
    "transformer": {**SHAPE, "decoder_depth": 2},
}


def small(name, **changes):
    torch.manual_seed(0)
    return models.create_text(name, **{**SMALL[models.family(name)], **changes})


def randomised(model):
    """The model with no parameter at a special value such as 0, so that nothing hides behind it."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def ids(rows=3, length=16):
    return torch.randint(50, (rows, length), generator=torch.Generator().manual_seed(1))


def kept(lengths):
    """Which tokens count, in rows of these lengths."""
    return torch.arange(16) < torch.tensor(lengths)[:, None]


@pytest.fixture(params=models.text_names())
def name(request):
    return request.param


@pytest.fixture(params=[models.text_names()[0], "gpt-nano", "t5-nano", "transformer-nano"])
def one_of_each(request):
    return request.param


def test_shapes_as_published(name):
    with torch.device("meta"):
        model = models.create_text(name).eval()
        features = model(torch.zeros(2, model.config.context, dtype=torch.int64))
    assert features.tokens.shape == (2, model.config.context, model.config.width)
    assert features.pooled.shape == (2, model.width)
    assert (features.prefix, features.grid, features.maps) == (0, (model.config.context,), ())


@pytest.mark.parametrize("length", [1, 5, 16])
def test_texts_of_any_length(name, length):
    model = randomised(small(name)).eval()
    features = model(ids(length=length))
    assert features.tokens.shape == (3, length, 24)
    assert features.grid == (length,)
    assert features.tokens.isfinite().all()


@torch.no_grad()
def test_what_fills_a_row_up_changes_nothing(name):
    model, lengths = randomised(small(name)).eval(), (16, 9, 3)
    other = ids()
    other[~kept(lengths)] = 7
    first, second = (model(each, mask=kept(lengths)) for each in (ids(), other))
    for row, length in enumerate(lengths):
        alone = model(ids()[row : row + 1, :length])
        for features in (first, second):
            torch.testing.assert_close(features.tokens[row, :length], alone.tokens[0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(features.pooled[row], alone.pooled[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_order_of_tokens_matters(name):
    model = randomised(small(name)).eval()
    tokens = model(torch.tensor([[5, 6, 7, 8], [7, 6, 5, 8]])).tokens
    assert (tokens[0, -1] - tokens[1, -1]).abs().max() > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@torch.no_grad()
def test_features_have_the_dtype_of_the_weights(name, dtype):
    features = small(name).to(dtype).eval()(ids())
    assert {features.tokens.dtype, features.pooled.dtype} == {dtype}


def test_gradients_reach_every_parameter(name):
    """But those of a decoder, which is asked by what trains it."""
    model = randomised(small(name)).train()
    features = model(ids())
    sum((x * torch.randn_like(x)).sum() for x in (features.tokens, features.pooled)).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert [n for n in without if not n.startswith("decoder")] == []


def test_layers_go_up_to_the_depth(name):
    """The last one may be a head's alone."""
    with torch.device("meta"):
        model = models.create_text(name)
    layers = {model.layer(parameter) for parameter, _ in model.named_parameters()}
    assert layers | {model.depth} == set(range(model.depth + 1))


@torch.no_grad()
def test_saved_weights_say_everything(name):
    model, other = randomised(small(name)).eval(), small(name).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(ids()).tokens, other(ids()).tokens)


def test_a_config_is_read_again_from_what_json_makes_of_it(name):
    config = models.config(name)
    assert models.changed(name, **vars(config)) == config
    assert models.changed(models.family(name), **vars(config)) == config


def test_more_tokens_than_the_context(one_of_each):
    with pytest.raises(SettingError, match="17 tokens are more than this model's context of 16"):
        small(one_of_each)(ids(length=17))


def test_heads_that_do_not_divide_the_width(one_of_each):
    if models.family(one_of_each) == "t5":
        pytest.skip("the heads of a T5 have a width of their own")
    with pytest.raises(SettingError, match=r"24 .*divisible by 5 heads"):
        small(one_of_each, heads=5)


def test_images_and_text_are_not_confused():
    with pytest.raises(SettingError, match="vit-nano is a model of images, not of text"):
        models.create_text("vit-nano")
    with pytest.raises(SettingError, match="gpt2 is a model of text, not of images"):
        models.create("gpt2")
