import numpy as np
import pytest
import torch
from torch import nn

from vitrail.errors import UnknownName
from vitrail.explain.attention import (
    attention_layers,
    attention_map,
    attention_rollout,
    mean_attention_distance,
    record_attention,
)
from vitrail.models.lenet import SIZES as LENETS
from vitrail.models.lenet import LeNet
from vitrail.models.vit.vit import Config, ViT
from vitrail.nn.attention import Attention, join_heads
from vitrail.nn.rope import rotary_2d

GRID = (3, 2)
POOLS = ["class", "mean", "map"]


def vit(**changes):
    torch.manual_seed(0)
    shape = {"width": 24, "depth": 3, "heads": 3, "mlp": 48, "image_size": (12, 8), "patch_size": 4, "registers": 2}
    model = ViT(Config(**shape | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def images(count=2):
    return torch.randn(count, 3, 12, 8, generator=torch.Generator().manual_seed(1))


def random_attention(queries, keys, heads=3, batch=2, seed=0):
    logits = torch.randn(batch, heads, queries, keys, generator=torch.Generator().manual_seed(seed))
    return (2 * logits).softmax(dim=-1)


def hooks_of(model):
    return [hook for module in model.modules() for hook in module._forward_hooks.values()]


@pytest.mark.parametrize(("pool", "tokens"), [("class", 9), ("mean", 8), ("map", 8)])
def test_every_layer_is_recorded_in_forward_order(pool, tokens):
    with record_attention(model := vit(pool=pool)) as recorded:
        model(images())
    shapes = {f"blocks.{i}.attention": (2, 3, tokens, tokens) for i in range(3)}
    if pool == "map":
        shapes["attention_pool"] = (2, 3, 1, 6)  # it looks at the patches, not at the two registers
    assert {name: tuple(value.shape) for name, value in recorded.items()} == shapes
    assert list(recorded) == list(shapes) == list(attention_layers(model))
    for value in recorded.values():
        assert value.dtype == torch.float32
        assert not value.requires_grad
        torch.testing.assert_close(value.sum(dim=-1), torch.ones(value.shape[:-1]))


@pytest.mark.parametrize("changes", [{}, {"position": "rotary"}, {"qk_norm": True, "parallel": True}])
@torch.no_grad()
def test_recorded_attention_times_values_is_what_the_layer_gave(changes):
    model, passed = vit(**changes), {}
    for name, layer in attention_layers(model).items():
        layer.register_forward_hook(lambda layer, args, output, name=name: passed.update({name: (args, output)}))
    with record_attention(model) as recorded:
        model(images())
    for name, layer in attention_layers(model).items():
        args, output = passed[name]
        _, _, v = layer.queries_keys_values(*args)
        torch.testing.assert_close(layer.proj(join_heads(recorded[name] @ v)), output, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_probes_attention_times_values_is_what_the_pool_gave():
    pool = vit(pool="map").attention_pool
    tokens = torch.randn(2, 8, 24)
    with record_attention(pool) as recorded:
        output = pool(tokens)
    v = pool.kv(tokens)[..., 24:].unflatten(-1, (3, 8)).transpose(1, 2)
    x = pool.proj((recorded[""] @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close((x + pool.mlp(pool.norm(x)))[:, 0], output, atol=1e-5, rtol=1e-5)


def test_layers_called_with_named_arguments():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = Attention(24, 3)

        def forward(self, x):
            return self.attention(x=x, rotation=rotary_2d(GRID, 8))

    model, x = Wrapped(), torch.randn(2, 6, 24)
    with record_attention(model) as recorded:
        model(x)
    torch.testing.assert_close(recorded["attention"], model.attention.probabilities(x, rotary_2d(GRID, 8)))


@pytest.mark.parametrize("pool", POOLS)
def test_recording_changes_neither_outputs_nor_gradients_nor_the_model(pool):
    model = vit(pool=pool, drop_path=0.5, dropout=0.2).train()
    x = images()

    def step():
        torch.manual_seed(3)
        pooled = model(x).pooled
        return pooled, *torch.autograd.grad((pooled * pooled.detach().sin()).sum(), list(model.parameters()))

    before, attributes = step(), {name: set(vars(module)) for name, module in model.named_modules()}
    with record_attention(model):
        during = step()
    assert all(torch.equal(a, b) for a, b in zip(before, during, strict=True))
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes


def test_hooks_are_there_only_while_recording():
    model = vit()
    assert hooks_of(model) == []
    with record_attention(model) as recorded:
        assert len(hooks_of(model)) == 3
    assert hooks_of(model) == []
    model(images())
    assert recorded == {}


def test_hooks_are_gone_after_an_exception():
    model = vit()
    with pytest.raises(RuntimeError, match="stop"), record_attention(model):
        raise RuntimeError("stop")
    assert hooks_of(model) == []


def test_only_the_layers_asked_for():
    model = vit()
    with record_attention(model, ["blocks.2.attention", "blocks.0.attention"]) as recorded:
        model(images())
    assert list(recorded) == ["blocks.0.attention", "blocks.2.attention"]


def test_a_layer_that_is_not_there():
    model = vit()
    with (
        pytest.raises(UnknownName, match=r"'blocks\.3\.attention'; did you mean blocks\."),
        record_attention(model, ["blocks.0.attention", "blocks.3.attention"]),
    ):
        pass
    assert hooks_of(model) == []


def test_of_two_passes_the_last_one_counts():
    model = vit()
    with record_attention(model) as recorded:
        model(images(4))
        model(images(1))
    assert [value.shape[0] for value in recorded.values()] == [1, 1, 1]
    with record_attention(model) as alone:
        model(images(1))
    assert all(torch.equal(recorded[name], alone[name]) for name in alone)


def test_half_precision_is_recorded_as_float32():
    model = vit(pool="map").bfloat16()
    with record_attention(model) as recorded:
        model(images().bfloat16())
    assert {value.dtype for value in recorded.values()} == {torch.float32}


def test_a_convolutional_model_has_no_attention():
    model = LeNet(LENETS["lenet-5"])
    assert attention_layers(model) == {}
    with record_attention(model) as recorded:
        model(torch.randn(1, 1, 28, 28))
    assert recorded == {}


@pytest.mark.parametrize("prefix", [1, 3])
@pytest.mark.parametrize("pool", POOLS)
def test_attention_map_by_loops(pool, prefix):
    h, w = GRID
    tokens = prefix + h * w
    attention = random_attention(1, h * w) if pool == "map" else random_attention(tokens, tokens)
    before = 0 if pool == "map" else prefix  # keys before those of the patches
    queries = range(prefix, tokens) if pool == "mean" else [0]
    expected = np.zeros((2, h, w))
    for b in range(2):
        for row in range(h):
            for column in range(w):
                key = before + row * w + column
                looks = [attention[b, head, query, key].item() for head in range(3) for query in queries]
                expected[b, row, column] = sum(looks) / len(looks)
        expected[b] /= expected[b].sum()
    np.testing.assert_allclose(attention_map(attention, prefix, GRID, pool).numpy(), expected, atol=1e-6)


def test_attention_map_by_hand():
    """Two heads, a class token before two patches; its look at itself is left out."""
    heads = torch.tensor([[0.5, 0.1, 0.4], [0.3, 0.1, 0.6]])
    attention = torch.zeros(1, 2, 3, 3)
    attention[0, :, 0] = heads
    attention[0, :, 1:] = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(attention_map(attention, 1, (1, 2), "class"), torch.tensor([[[1 / 6, 5 / 6]]]))
    torch.testing.assert_close(attention_map(attention, 1, (2, 1), "mean"), torch.tensor([[[0.5], [0.5]]]))


@pytest.mark.parametrize("prefix", [1, 3])
@pytest.mark.parametrize("pool", POOLS)
def test_rollout_by_whole_matrices(pool, prefix):
    """The matrices of all layers multiplied up in float64, and only then the row of the image's vector."""
    tokens = prefix + 6
    layers = [random_attention(tokens, tokens, seed=i) for i in range(4)]
    through = np.stack([np.eye(tokens)] * 2)
    for layer in layers:
        step = 0.5 * layer.double().mean(dim=1).numpy() + 0.5 * np.eye(tokens)
        through = step / step.sum(axis=-1, keepdims=True) @ through
    if pool == "class":
        arriving = through[:, 0]
    elif pool == "mean":
        arriving = through[:, prefix:].mean(axis=1)
    else:
        layers.append(random_attention(1, 6, seed=9))
        arriving = (layers[-1].double().mean(dim=1).numpy() @ through[:, prefix:])[:, 0]
    expected = arriving[:, prefix:] / arriving[:, prefix:].sum(axis=1, keepdims=True)
    rolled = attention_rollout(layers, prefix, GRID, pool)
    np.testing.assert_allclose(rolled.numpy(), expected.reshape(2, *GRID), atol=1e-6)


def test_rollout_by_hand():
    """The class token looks at patch 1 only, and before that patch 1 took half of what it has from patch 2."""
    first = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 0, 1]])
    second = torch.tensor([[0.0, 1, 0], [0, 1, 0], [0, 0, 1]])
    rolled = attention_rollout([first[None, None], second[None, None]], 1, (1, 2), "class")
    assert rolled.tolist() == [[[0.5, 0.5]]]
    assert attention_rollout([second[None, None]], 1, (1, 2), "class").tolist() == [[[1.0, 0.0]]]


def test_rollout_leaves_the_recorded_layers_alone():
    layers = [random_attention(7, 7), random_attention(7, 7, seed=1)]
    copies = [layer.clone() for layer in layers]
    attention_rollout(layers, 1, GRID, "class")
    assert len(layers) == 2
    assert all(torch.equal(layer, copy) for layer, copy in zip(layers, copies, strict=True))


@pytest.mark.parametrize("pool", POOLS)
def test_maps_of_a_model_are_shares(pool):
    with record_attention(model := vit(pool=pool)) as recorded:
        features = model(images())
    layers = list(recorded.values())
    for heat in (
        attention_map(layers[-1], features.prefix, features.grid, pool),
        attention_rollout(layers, features.prefix, features.grid, pool),
    ):
        assert heat.shape == (2, 3, 2)
        assert heat.min() > 0
        torch.testing.assert_close(heat.sum(dim=(1, 2)), torch.ones(2))


@pytest.mark.parametrize("prefix", [0, 2])
def test_mean_attention_distance_by_loops(prefix):
    h, w = GRID
    layers = [random_attention(prefix + 6, prefix + 6, seed=i) for i in range(2)]
    expected = np.zeros((2, 3))
    for i, layer in enumerate(layers):
        for head in range(3):
            distances = []
            for b in range(2):
                for query in range(h * w):
                    row = layer[b, head, prefix + query, prefix:].tolist()
                    apart = [np.hypot(query // w - key // w, query % w - key % w) * 16 for key in range(h * w)]
                    distances.append(np.average(apart, weights=row))
            expected[i, head] = np.mean(distances)
    np.testing.assert_allclose(mean_attention_distance(layers, prefix, GRID, 16).numpy(), expected, rtol=1e-5)


def test_mean_attention_distance_by_hand():
    """Head 0 looks at its own patch, head 1 at the other of two that are 4 pixels apart, head 2 at both alike."""
    heads = torch.tensor([[[1.0, 0], [0, 1]], [[0, 1], [1, 0]], [[0.5, 0.5], [0.5, 0.5]]])
    assert mean_attention_distance([heads[None]], 0, (1, 2), 4).tolist() == [[0.0, 4.0, 2.0]]
