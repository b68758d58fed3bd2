import pytest
import torch
from torch import nn

from vitrail import models
from vitrail.errors import SettingError, UnknownName
from vitrail.explain.record import Recorded, attention_in_graph, attention_layers, record_attention
from vitrail.models.lenet import SIZES as LENETS
from vitrail.models.lenet import LeNet
from vitrail.models.vit.vit import Config, ViT
from vitrail.nn.attention import Attention
from vitrail.nn.reach import Full
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


def hooks_of(model):
    return [hook for module in model.modules() for hook in module._forward_hooks.values()]


@pytest.mark.parametrize(("pool", "tokens"), [("class", 9), ("mean", 8), ("map", 8)])
def test_every_layer_is_recorded_in_forward_order(pool, tokens):
    with record_attention(model := vit(pool=pool)) as recorded:
        model(images())
    shapes = {f"blocks.{i}.attention": (2, 3, tokens, tokens) for i in range(3)}
    if pool == "map":
        shapes["attention_pool"] = (2, 3, 1, 6)  # it looks at the patches, not at the two registers
    assert {name: tuple(value.probabilities.shape) for name, value in recorded.items()} == shapes
    assert list(recorded) == list(shapes) == list(attention_layers(model))
    for layer in recorded.values():
        assert layer.probabilities.dtype == torch.float32
        assert not layer.probabilities.requires_grad
        torch.testing.assert_close(layer.probabilities.sum(dim=-1), torch.ones(layer.probabilities.shape[:-1]))
        assert (layer.grid, layer.heads, layer.places) == (GRID, 3, 6)
        assert layer.prefix == (0 if layer.probabilities.shape[2] == 1 else tokens - 6)


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
    torch.testing.assert_close(
        recorded["attention"].probabilities, model.attention.probabilities(x, rotary_2d(GRID, 8))
    )


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
        assert len(hooks_of(model)) == 4  # of the layers, and of the backbone that knows the grid
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
    assert [value.probabilities.shape[0] for value in recorded.values()] == [1, 1, 1]
    with record_attention(model) as alone:
        model(images(1))
    assert all(torch.equal(recorded[name].probabilities, alone[name].probabilities) for name in alone)


def test_half_precision_is_recorded_as_float32():
    model = vit(pool="map").bfloat16()
    with record_attention(model) as recorded:
        model(images().bfloat16())
    assert {value.probabilities.dtype for value in recorded.values()} == {torch.float32}


def test_a_convolutional_model_has_no_attention():
    model = LeNet(LENETS["lenet-5"])
    assert attention_layers(model) == {}
    with record_attention(model) as recorded:
        model(torch.randn(1, 1, 28, 28))
    assert recorded == {}


def test_an_igpt_has_the_layers_that_its_features_are_read_behind():
    model = models.create("igpt-nano", width=8, depth=4, heads=2, mlp=8, colours=4, image_size=4, feature_layer=2)
    assert list(attention_layers(model)) == ["blocks.0.attention", "blocks.1.attention"]
    with record_attention(model) as recorded:
        model(torch.randn(1, 3, 4, 4))
    assert list(recorded) == list(attention_layers(model))


def test_a_task_knows_the_layers_of_its_backbone_and_their_grid():
    class Task(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = vit()

        def forward(self, x):
            return self.backbone(x).pooled

    with record_attention(task := Task()) as recorded:
        task(images())
    assert recorded["backbone.blocks.2.attention"].grid == GRID


def test_one_head_or_their_mean():
    probabilities = torch.rand(2, 3, 7, 7)
    layer = Recorded(probabilities, Full(GRID))
    assert torch.equal(layer.matrix(2), probabilities[:, 1])
    torch.testing.assert_close(layer.matrix(), (probabilities[:, 0] + probabilities[:, 1] + probabilities[:, 2]) / 3)
    for head in (0, 4, -1):
        with pytest.raises(SettingError, match=f"no head {head}; this layer has heads 1 to 3"):
            layer.matrix(head)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("frozen", [False, True])
def test_in_the_graph_the_output_stays_and_depends_on_the_attention(pool, frozen):
    """The slope of the output along a change of one layer's attention is that of finite differences."""
    model = vit(pool=pool).double().requires_grad_(not frozen)
    x = images().double()
    expected = model(x).pooled
    with attention_in_graph(model) as recorded:
        pooled = model(x).pooled
    torch.testing.assert_close(pooled, expected, atol=1e-10, rtol=1e-8)
    layers = list(recorded.values())
    slopes = torch.autograd.grad(pooled.square().sum(), [layer.probabilities for layer in layers])
    assert all(parameter.grad is None for parameter in model.parameters())
    last = list(recorded)[-1]
    direction = torch.randn_like(layers[-1].probabilities)

    def moved(step):
        layer = model.get_submodule(last)

        def changed(layer, inputs, output):
            return layer.attended(layers[-1].probabilities + step * direction, *inputs)

        with layer.register_forward_hook(changed), torch.no_grad():
            return model(x).pooled.square().sum().item()

    difference = (moved(1e-6) - moved(-1e-6)) / 2e-6
    assert (slopes[-1] * direction).sum().item() == pytest.approx(difference, rel=1e-4)
    assert hooks_of(model) == []
