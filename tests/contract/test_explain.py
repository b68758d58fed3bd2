"""Every method of explanation keeps its promises on every family, and leaves the model as it was."""

import importlib.util
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch

from vitrail.data.preprocess import Preprocess
from vitrail.errors import SettingError
from vitrail.explain.attention import attention, attention_between
from vitrail.explain.distance import attention_distances
from vitrail.explain.look import Look
from vitrail.explain.maps import METHODS, heat_maps
from vitrail.explain.record import attention_layers, record_attention
from vitrail.explain.relevance import relevance
from vitrail.models import FAMILIES, family
from vitrail.tasks import Classification

spec = importlib.util.spec_from_file_location("sizes", Path(__file__).parent / "test_models.py")
sizes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sizes)

# A model of every family, and of each way to pool, to place and to attend; with what it is changed by.
MODELS = {
    "alexnet": ("alexnet", {}),
    "bit": ("bit-r50x1", {}),
    "deit": ("deit-ti16", {}),
    "deit, distilled": ("deit-ti16-distilled", {}),
    "dinov3": ("dinov3-s16", {}),
    "dinov3, mean": ("dinov3-s16", {"pool": "mean"}),
    "googlenet": ("googlenet", {}),
    "igpt": ("igpt-nano", {}),
    "igpt, features of the middle": ("igpt-nano", {"feature_layer": 1}),
    "igpt, hidden pixels": ("igpt-nano", {"causal": False}),
    "lenet": ("lenet-5-relu", {}),  # whose features are positive, as Grad-CAM++ wants them
    "pvt": ("pvt-tiny", {}),
    "pvt-v2": ("pvt-v2-b0", {}),
    "pvt-v2, linear": ("pvt-v2-b2-li", {}),
    "resnet": ("resnet-18", {}),
    "rope-vit": ("rope-vit-s16", {}),
    "rope-vit, axial": ("rope-vit-s16-axial-ape", {}),
    "swin": ("swin-t", {}),
    "swin, timm's borders": ("swin-t", {"borders": "timm", "window": 3}),
    "swin, torchvision's borders": ("swin-t", {"borders": "torchvision", "window": 3}),
    "t2t": ("t2t-7", {}),
    "t2t, transformer": ("t2t-t-14", {}),
    "vgg": ("vgg-11", {}),
    "vit": ("vit-b16", {}),
    "vit, mean, convolutions": ("vit-micro", {}),
    "vit, map": ("vit-e14", {}),
    "vit, map, parallel, normalised queries": ("vit-22b14", {"registers": 2}),
    "vit, hybrid": ("vit-r26-s32", {}),
    "vit, class and mean, registers": ("vit-b32", {"pool": "class-mean", "registers": 3}),
    "vit, rotary, norm on the vector": ("vit-b16", {"position": "rotary", "pool": "mean", "norm": "pooled"}),
    "vit, class token beside the mean": ("vit-b16", {"pool": "mean", "class_token": True}),
}
CLASSES = tuple("abcde")


@cache
def a_task(case, seed=0):
    name, changes = MODELS[case]
    backbone = sizes.small(name, **changes)
    channels = backbone.config.channels
    half = (0.5,) * channels
    preprocess = Preprocess(backbone.config.image_size, channels=channels, mean=half, std=half)
    task = Classification(name, backbone, CLASSES, preprocess)
    torch.manual_seed(seed)
    return sizes.randomised(task).eval()


def photographs(task, count=2, seed=1):
    shape = (count, task.preprocess.channels, *task.preprocess.size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def hooks_of(model):
    tables = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [hook for module in model.modules() for table in tables for hook in getattr(module, table).values()]


def everything_of(task):
    """What must not change: hooks, attributes, modes, and what there is of gradients."""
    return (
        hooks_of(task),
        {name: set(vars(module)) for name, module in task.named_modules()},
        [module.training for module in task.modules()],
        [(parameter.requires_grad, parameter.grad) for parameter in task.parameters()],
    )


WITHOUT = {"alexnet", "bit", "googlenet", "lenet", "resnet", "vgg"}  # families that have no attention
ATTENTIVE = [case for case, (name, _) in MODELS.items() if family(name) not in WITHOUT]
REFUSED = [(case, "integrated-gradients") for case in MODELS if case.startswith("igpt")]  # which has no derivatives
PAIRS = [
    (case, name)
    for name, method in METHODS.items()
    for case in (ATTENTIVE if method.needs_attention else MODELS)
    if (case, name) not in REFUSED
]

every_pair = pytest.mark.parametrize(("case", "method"), PAIRS)
every_attention = pytest.mark.parametrize("case", ATTENTIVE)


def test_every_family_is_swept():
    assert {family(name) for name, _ in MODELS.values()} == set(FAMILIES)


@cache
def maps_of(case, method):
    """Maps of two images, and of which classes: the most probable ones that anything in the image speaks for."""
    task = a_task(case)
    images = photographs(task)
    ranked = task(images).argsort(dim=1, descending=True)
    classes = ranked[:, 0].clone()
    maps = heat_maps(task, images, method, classes)
    for rank in range(1, len(CLASSES)):
        empty = maps.amax(dim=(1, 2)) == 0
        if not empty.any():
            break
        classes[empty] = ranked[empty, rank]
        maps[empty] = heat_maps(task, images[empty], method, classes[empty])
    return maps, classes


@every_pair
def test_maps_are_of_the_images_size_and_leave_the_model_alone(case, method):
    task = a_task(case)
    images = photographs(task)
    logits, state = task(images), {name: value.clone() for name, value in task.state_dict().items()}
    before = everything_of(task)
    maps, _ = maps_of(case, method)
    assert maps.shape == (2, *task.preprocess.size)
    assert maps.dtype == torch.float32
    assert not maps.requires_grad
    assert maps.isfinite().all()
    assert maps.min() >= 0
    assert maps.amax(dim=(1, 2)).tolist() == pytest.approx([1, 1])
    assert everything_of(task) == before
    assert all(torch.equal(value, state[name]) for name, value in task.state_dict().items())
    assert torch.equal(task(images), logits)


@every_pair
def test_maps_depend_on_the_weights(case, method):
    """The sanity check of Adebayo et al. 2018: a map that another network has, too, would not explain this one."""
    task = a_task(case, seed=9)
    maps, classes = maps_of(case, method)
    assert (heat_maps(task, photographs(task), method, classes) - maps).abs().max() > 0.01


@every_pair
def test_each_image_has_its_own_map_and_class(case, method):
    """Also where parameters are frozen, and in inference mode."""
    task = deepcopy(a_task(case)).requires_grad_(False)
    images, (expected, classes) = photographs(task)[1:], (each[1:] for each in maps_of(case, method))
    with torch.inference_mode():
        alone = heat_maps(task, images.clone(), method, classes.clone())
        torch.testing.assert_close(alone, expected, atol=1e-3, rtol=0)
    other = heat_maps(task, images, method, (classes + 1) % len(CLASSES))
    assert ((other - expected).abs().max() > 1e-3) == METHODS[method].of_class
    assert not any(parameter.requires_grad for parameter in task.parameters())


@pytest.mark.parametrize(("case", "method"), REFUSED)
def test_what_makes_no_sense_is_refused(case, method):
    task = a_task(case)
    with pytest.raises(SettingError, match=r"take a method"):
        heat_maps(task, photographs(task), method)


@pytest.mark.parametrize("case", sorted(MODELS.keys() - set(ATTENTIVE)))
@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.needs_attention])
def test_attention_is_refused_where_there_is_none(case, method):
    task = a_task(case)
    with pytest.raises(SettingError, match=f"^{task.model} has no attention to show; explain a run of a vision"):
        heat_maps(task, photographs(task), method)


def assert_rows_sum_to_1(case, sums):
    """The Performer's nearly do, since its divisor has a small number added."""
    if case == "t2t":
        assert sums.max() < 1 + 1e-5
        assert sums.median() > 0.999
    else:
        torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-5, rtol=0)


@every_attention
@torch.no_grad()
def test_attention_times_values_is_what_each_layer_gives(case):
    task = a_task(case)
    passed = {}

    def keep(name):
        return lambda layer, inputs, named, output: passed.update({name: (inputs, named, output)})

    layers = attention_layers(task.backbone)
    for name, layer in layers.items():
        layer.register_forward_hook(keep(name), with_kwargs=True)
    task(photographs(task))
    assert list(passed) == list(layers), "they are listed as they run"
    for name, layer in layers.items():
        inputs, named, output = passed[name]
        probabilities = layer.probabilities(*inputs, **named)
        assert_rows_sum_to_1(case, probabilities.sum(dim=-1))
        assert probabilities.shape[-3] == layer.heads
        attended = layer.attended(probabilities, *inputs, **named)
        scale = max(1.0, output.abs().max().item())
        torch.testing.assert_close(attended, output, atol=1e-5 * scale, rtol=1e-5)


@every_attention
@torch.no_grad()
def test_shares_are_carried_as_the_recorded_matrices_say(case):
    """Every place's row out of `carry`; what is lost of it went to the padding of a window."""
    task = a_task(case)
    with record_attention(task.backbone) as recorded:
        task(photographs(task))
    for layer in recorded.values():
        if not layer.reach.skipped:
            continue
        tokens = layer.prefix + layer.places
        rows = layer.reach.carry(layer.matrix(), torch.eye(tokens).expand(2, -1, -1))
        assert rows.shape == (2, tokens, tokens)
        assert rows.min() >= 0
        if case.startswith("swin"):
            assert rows.sum(dim=-1).max() < 1 + 1e-5
        else:
            assert_rows_sum_to_1(case, rows.sum(dim=-1))


@every_attention
def test_every_layer_and_head_can_be_looked_at(case):
    task = a_task(case)
    images = photographs(task)
    for number, layer in enumerate(attention_layers(task.backbone).values(), start=1):
        for head in (None, 1, layer.heads):
            maps = attention(task, images, torch.zeros(2), Look(number, head))
            torch.testing.assert_close(maps.sum(dim=(1, 2)), torch.ones(2))
        between = attention_between(task, images[0], number)
        places = between.grid[0] * between.grid[1]
        assert between.attention.shape == (layer.heads, places, places)
        assert between.attention.dtype == torch.float32
        assert max(between.grid) <= 28
        sums = between.attention.sum(dim=-1)
        if task.backbone.lag:
            assert (sums[:, 0] == 0).all(), "the first token sees no pixel"
            sums = sums[:, 1:]
        torch.testing.assert_close(sums, torch.ones_like(sums))
        if between.vector is not None:
            assert between.vector.shape == (layer.heads, places)
            torch.testing.assert_close(between.vector.sum(dim=-1), torch.ones(layer.heads))


@every_attention
def test_heads_look_no_further_than_the_image_is(case):
    task = a_task(case)
    distances = attention_distances(task, photographs(task))
    height, width = task.preprocess.size
    layers = attention_layers(task.backbone)
    assert [len(heads) for heads in distances.values()] == [layers[name].heads for name in distances]
    assert all(0 <= head < (height**2 + width**2) ** 0.5 for heads in distances.values() for head in heads)


def test_relevance_is_left_as_clean_by_an_exception(monkeypatch):
    task = a_task("vit")
    before = everything_of(task)

    def fail(*inputs):
        raise RuntimeError("stop")

    monkeypatch.setattr("vitrail.explain.relevance.gradients", fail)
    with pytest.raises(RuntimeError, match="stop"):
        relevance(task, photographs(task), torch.tensor([1, 3]), Look())
    assert everything_of(task) == before
