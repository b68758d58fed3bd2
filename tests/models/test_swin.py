import itertools

import pytest
import torch
from torch import nn

from vitrail import models
from vitrail.errors import CheckpointError, SettingError
from vitrail.heads.linear import LinearHead
from vitrail.models.swin import LAYOUTS, SIZES, Config, Swin
from vitrail.models.swin.keys import TIMM_MODELS
from vitrail.models.swin.swin import Block, PatchMerging, Stage, WindowAttention, map_sizes, table_windows
from vitrail.nn.window import Windows
from vitrail.weights.rename import to_ours, to_theirs

# With a classifier of 1,000 classes: the numbers that torchvision publishes with its weights (T, S, B), and in millions
# what timm's results/results-imagenet.csv has.
PUBLISHED = {"swin-t": 28_288_354, "swin-s": 49_606_258, "swin-b": 87_768_224}
MILLIONS = {
    ("swin-t", 7, 224): 28.29,
    ("swin-s", 7, 224): 49.61,
    ("swin-b", 7, 224): 87.77,
    ("swin-b", 12, 384): 87.90,
    ("swin-l", 7, 224): 196.53,
    ("swin-l", 12, 384): 196.74,
    ("swin-t", (7, 7, 14, 7), 224): 28.33,  # AutoFormerV2's
    ("swin-s", (14, 14, 14, 7), 224): 49.74,
}
TINY = Config(4, (2, 3), (1, 2), window=3, image_size=(24, 24))


def parameters(config):
    with torch.device("meta"):
        model = Swin(config)
        head = LinearHead(model.width, 1000)
    return sum(p.numel() for p in (*model.parameters(), *head.parameters()))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_counts(name):
    assert parameters(SIZES[name]) == PUBLISHED[name]


@pytest.mark.parametrize(("name", "window", "size"), MILLIONS)
def test_published_millions_of_parameters(name, window, size):
    size_ = SIZES[name]
    config = Config(size_.width, size_.depths, size_.heads, window, (size, size))
    assert round(parameters(config) / 1e6, 2) == MILLIONS[name, window, size]


def test_every_head_of_a_published_size_has_32_channels():
    for config in SIZES.values():
        assert [config.width * 2**stage / heads for stage, heads in enumerate(config.heads)] == [32] * 4


def randomised(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return module.eval()


def attention_by_definition(attention, x, window, shift):
    """Equation 4 for every place on its own: it sees those places that shifted windows show it with, unwrapped.

    x: ``(H, W, C)``, whose sides the windows divide; a window that crosses the border is cut off there.
    """
    height, width, channels = x.shape
    q, k, v = attention.qkv(x).reshape(height, width, 3, attention.heads, -1).unbind(2)
    out = torch.zeros_like(x)

    def number(place):
        return [(n + w - s) // w for n, w, s in zip(place, window, shift, strict=True)]

    every = list(itertools.product(range(height), range(width)))
    for here in every:
        seen = [there for there in every if number(there) == number(here)]
        for head in range(attention.heads):
            logits = torch.stack([q[here][head] @ k[there][head] for there in seen]) / q.shape[-1] ** 0.5
            rows = [
                (here[0] - there[0] + window[0] - 1) * (2 * window[1] - 1) + here[1] - there[1] + window[1] - 1
                for there in seen
            ]
            weights = (logits + attention.bias_table[rows, head]).softmax(dim=0)
            part = slice(head * channels // attention.heads, (head + 1) * channels // attention.heads)
            out[here][part] = sum(p * v[there][head] for p, there in zip(weights, seen, strict=True))
    return attention.proj(out)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("size", [(4, 4), (6, 8), (2, 2)])
@torch.no_grad()
def test_a_block_is_what_the_paper_says(number, size):
    torch.manual_seed(number)
    config = Config(6, (2,), (2,), window=2)
    stage = randomised(Stage(config, 0, (2, 2), [0.0, 0.0]))
    stage.blocks = stage.blocks[: number + 1]
    if number:
        stage.blocks[0] = Unchanged()
    block, x = stage.blocks[number], torch.randn(2, *size, 6)
    shift = (1, 1) if number and size != (2, 2) else (0, 0)
    expected = []
    for image in x:
        y = image + attention_by_definition(block.attention, block.norm1(image), (2, 2), shift)
        expected.append(y + block.mlp(block.norm2(y)))
    torch.testing.assert_close(stage(x), torch.stack(expected), atol=1e-4, rtol=1e-4)


class Unchanged(nn.Module):
    def forward(self, x, windows, positions, mask):
        return x


@torch.no_grad()
def test_merging_goes_column_by_column_and_fills_up_odd_sides():
    merging = randomised(PatchMerging(2))
    x = torch.randn(1, 3, 5, 2)
    filled = torch.zeros(1, 4, 6, 2)
    filled[:, :3, :5] = x
    merged = merging(x)
    assert merged.shape == (1, 2, 3, 4)
    for row, column in itertools.product(range(2), range(3)):
        four = [filled[0, 2 * row + down, 2 * column + right] for right in (0, 1) for down in (0, 1)]
        expected = merging.reduction(merging.norm(torch.cat(four)))
        torch.testing.assert_close(merged[0, row, column], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("size", [(24, 24), (30, 17), (7, 90), (4, 4)])
def test_resolution_of_the_maps_of_any_image(size):
    features = Swin(TINY)(torch.randn(1, 3, *size))
    height, width = -(-size[0] // 4), -(-size[1] // 4)
    assert [tuple(map_.shape) for map_ in features.maps] == [
        (1, 4, height, width),
        (1, 8, -(-height // 2), -(-width // 2)),
    ]


def test_the_last_map_is_normalised_and_the_others_are_not():
    torch.manual_seed(0)
    maps = Swin(TINY)(torch.randn(2, 3, 24, 24)).maps
    means = [map_.mean(dim=1).abs().max().item() for map_ in maps]
    assert means[0] > 1e-3
    assert means[1] < 1e-5


def test_pooled_is_the_mean_of_the_tokens():
    features = Swin(TINY)(torch.randn(2, 3, 24, 48))
    torch.testing.assert_close(features.pooled, features.tokens.mean(dim=1))


@pytest.mark.parametrize(
    ("borders", "expected"),
    [
        ("paper", [(7, 7), (7, 7), (4, 4), (2, 2)]),
        ("timm", [(7, 7), (7, 7), (4, 6), (2, 3)]),
        ("torchvision", [(7, 7)] * 4),
    ],
)
def test_tables_are_for_the_windows_that_the_maps_leave(borders, expected):
    config = Config(4, (1, 1, 1, 1), (1, 1, 1, 1), image_size=(62, 90), borders=borders)
    assert map_sizes(config) == [(16, 23), (8, 12), (4, 6), (2, 3)]
    assert table_windows(config) == expected
    tables = [stage.blocks[0].attention.bias_table for stage in Swin(config).stages]
    assert [len(table) for table in tables] == [(2 * h - 1) * (2 * w - 1) for h, w in expected]


@torch.no_grad()
def test_borders_matter_only_where_windows_do_not_fit():
    torch.manual_seed(0)
    pair = [randomised(Swin(Config(4, (2, 2), (1, 2), 4, borders=borders))) for borders in ("paper", "timm")]
    pair[1].load_state_dict(pair[0].state_dict())
    for size, same in (((64, 96), True), ((64, 72), False)):
        images = torch.randn(1, 3, *size)
        paper, timm = (model(images).pooled for model in pair)
        assert torch.allclose(paper, timm, atol=1e-4) == same


@torch.no_grad()
def test_smaller_images_use_the_middle_of_the_tables():
    torch.manual_seed(0)
    model = randomised(Swin(Config(4, (2,), (2,), window=5, image_size=(40, 40))))
    smaller = Swin(Config(4, (2,), (2,), window=3, image_size=(12, 12))).eval()
    weights = model.state_dict()
    for name in [name for name in weights if name.endswith("bias_table")]:
        weights[name] = weights[name].reshape(9, 9, 2)[2:7, 2:7].reshape(25, 2)
    smaller.load_state_dict(weights)
    images = torch.randn(2, 3, 12, 12)
    torch.testing.assert_close(model(images).tokens, smaller(images).tokens)


def adapted(before, after):
    old, new = randomised(Swin(before)), Swin(after)
    new.load_state_dict(new.adapted(old.state_dict(), before, "bicubic"))
    return old, new.eval()


@torch.no_grad()
def test_adapting_to_an_image_with_room_for_the_windows_changes_nothing():
    old, new = adapted(TINY, Config(4, (2, 3), (1, 2), window=3, image_size=(40, 32)))
    images = torch.randn(1, 3, 40, 32)
    assert torch.equal(old(images).tokens, new(images).tokens)


@torch.no_grad()
def test_adapting_resamples_the_tables_of_the_stages_whose_windows_change():
    old, new = adapted(TINY, Config(4, (2, 3), (1, 2), window=(3, 5), image_size=(40, 40), patch_size=2, channels=1))
    assert torch.equal(new.stages[0].blocks[1].attention.bias_table, old.stages[0].blocks[1].attention.bias_table)
    before, after = (model.stages[1].blocks[2].attention.bias_table for model in (old, new))
    for head in range(2):
        picture = before[:, head].reshape(1, 1, 5, 5)
        expected = nn.functional.interpolate(picture, (9, 9), mode="bicubic")
        torch.testing.assert_close(after[:, head], expected.flatten(), atol=1e-6, rtol=0)
    assert new.patch_embedding.proj.weight.shape == (4, 1, 2, 2)


def test_layers_count_blocks_and_a_merging_belongs_to_the_block_behind_it():
    model = Swin(TINY)
    assert model.depth == 6
    assert model.layer("patch_norm.weight") == 0
    assert model.layer("stages.0.blocks.1.norm1.bias") == 2
    assert model.layer("stages.1.merging.reduction.weight") == 3
    assert model.layer("stages.1.blocks.0.attention.bias_table") == 3
    assert model.layer("stages.1.blocks.2.mlp.fc1.weight") == 5
    assert model.layer("norm.bias") == 6


def test_initialisation_of_the_papers_code():
    torch.manual_seed(0)
    block = Block(Config(128, (1,), (4,)), 0, (7, 7), 0.0)
    model = Swin(Config(128, (1,), (4,)))
    assert model.stages[0].blocks[0].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.stages[0].blocks[0].mlp.fc1.bias.abs().max() == 0
    assert block.attention.bias_table.std().item() == pytest.approx(0.02, rel=0.1)
    kernel = model.patch_embedding.proj.weight  # 3 x 4 x 4 inputs
    assert kernel.abs().max().item() == pytest.approx(48**-0.5, rel=0.01)


def test_drop_path_grows_over_all_blocks():
    model = Swin(Config(4, (2, 3), (1, 2), drop_path=0.2))
    rates = [block.drop_path.rate for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_the_tables_do_not_decay():
    names = [name for name, p in Swin(TINY).named_parameters() if p.ndim > 1 and not name.endswith("weight")]
    assert len(names) == 5
    assert all(name.endswith("bias_table") for name in names)


def test_the_gradient_of_a_table_is_the_sum_over_all_pairs_with_its_offset():
    torch.manual_seed(0)
    attention = WindowAttention(4, 1, (2, 2), qkv_bias=True).double()
    x, windows = torch.randn(1, 2, 6, 4, dtype=torch.float64), Windows((2, 2))  # three windows of four places
    positions = torch.tensor([[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]])
    attention(x, windows, positions, None).square().sum().backward()
    step = 1e-6
    for row in range(9):
        with torch.no_grad():
            attention.bias_table[row] += step
            above = attention(x, windows, positions, None).square().sum()
            attention.bias_table[row] -= 2 * step
            below = attention(x, windows, positions, None).square().sum()
            attention.bias_table[row] += step
        assert attention.bias_table.grad[row].item() == pytest.approx((above - below).item() / (2 * step), abs=1e-7)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"width": 5}, "5 channels of stage 0 are not divisible by 2 heads"),
        ({"heads": (1, 3)}, "8 channels of stage 1 are not divisible by 3 heads"),
        ({"heads": (2,)}, "2 stages needs 'heads' for each of them, not 1"),
        ({"window": (7, 7, 7)}, "2 stages needs 'window' for each of them, not 3"),
        ({"window": 0}, "a side of at least 1, not 0"),
        ({"borders": "google"}, "no borders 'google'; known are: paper, timm, torchvision"),
    ],
)
def test_shapes_that_cannot_be_are_named(settings, says):
    with pytest.raises(SettingError, match=says):
        Swin(Config(**{"width": 4, "depths": (1, 1), "heads": (2, 2), **settings}))


@pytest.mark.parametrize("architecture", TIMM_MODELS)
def test_timm_configs_survive_a_round_trip(architecture):
    side = int(architecture.rpartition("_")[2])
    config = {"architecture": architecture, "pretrained_cfg": {"input_size": [3, side, side]}}
    described = LAYOUTS["timm"].read(config)
    ours = models.changed(described.model, **described.changes)
    assert (ours.image_size, ours.borders) == ((side, side), "timm")
    written = LAYOUTS["timm"].write(ours)
    assert written["architecture"] == architecture
    assert LAYOUTS["timm"].read(written) == described


def test_timm_windows_with_two_sides():
    def read(**arguments):
        return LAYOUTS["timm"].read({"architecture": "swin_tiny_patch4_window7_224", "model_args": arguments})

    assert read(window_size=[8, 8]).changes["window"] == 8
    assert read(window_size=[[8, 8], [8, 8], [4, 4], [2, 2]]).changes["window"] == (8, 8, 4, 2)
    with pytest.raises(CheckpointError, match="not square"):
        read(window_size=[8, 4])
    with pytest.raises(CheckpointError, match="has always_partition, head_dim, which"):
        read(always_partition=True, head_dim=16)


def test_transformers_config_with_another_epsilon_or_positions_is_refused():
    with pytest.raises(CheckpointError, match="another use_absolute_embeddings and layer_norm_eps"):
        LAYOUTS["transformers"].read({"model_type": "swin", "use_absolute_embeddings": True, "layer_norm_eps": 1e-6})


@pytest.mark.parametrize(
    ("layout", "changes", "says"),
    [
        ("transformers", {"image_size": (64, 64)}, "one square window for all stages"),
        ("transformers", {"image_size": (256, 256), "borders": "timm"}, "Transformers does not cut a map of 64x64"),
        ("timm", {"image_size": (256, 256)}, "timm does not cut a map of 64x64 into windows as this model does"),
        ("timm", {"image_size": (224, 448)}, "timm does not cut a map of 7x14"),
        ("timm", {"image_size": (226, 224)}, "image size 226x224 is not divisible by the patch size 4"),
        ("timm", {"image_size": (64, 64), "borders": "torchvision"}, "timm does not cut a map of 16x16"),
    ],
)
def test_what_a_library_cannot_be_is_said(layout, changes, says):
    with pytest.raises(SettingError, match=says):
        LAYOUTS[layout].write(Config(**{**vars(SIZES["swin-t"]), **changes}))


@pytest.mark.parametrize("borders", ["paper", "timm", "torchvision"])
def test_what_all_cut_alike_goes_to_each(borders):
    config = Config(**{**vars(SIZES["swin-t"]), "borders": borders})
    assert LAYOUTS["timm"].write(config)["architecture"] == "swin_tiny_patch4_window7_224"
    assert LAYOUTS["transformers"].write(config)["window_size"] == 7


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_go_to_each_layout_and_back_bit_by_bit(layout):
    model = randomised(Swin(TINY))
    theirs = to_theirs(model.state_dict(), LAYOUTS[layout], TINY)
    back, difference = to_ours(theirs, model.state_dict(), LAYOUTS[layout], TINY)
    assert str(difference) == ""
    assert all(torch.equal(back[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("layout", "ends", "begins"),
    [
        ("paper", "layers.0.downsample.reduction.weight", "layers.1.downsample.reduction.weight"),
        ("timm", "layers.1.downsample.reduction.weight", "layers.0.downsample.reduction.weight"),
    ],
)
def test_the_authors_merge_at_the_end_of_a_stage_and_timm_at_the_beginning(layout, ends, begins):
    names = to_theirs(Swin(TINY).state_dict(), LAYOUTS[layout], TINY)
    assert ends in names
    assert begins not in names


def test_what_files_hold_beside_weights_is_left_out():
    model = Swin(TINY)
    theirs = to_theirs(model.state_dict(), LAYOUTS["paper"], TINY)
    theirs["layers.0.blocks.1.attn_mask"] = torch.zeros(4, 9, 9)
    theirs["layers.0.blocks.1.attn.relative_position_index"] = torch.zeros(9, 9, dtype=torch.int64)
    theirs["head.weight"], theirs["head.bias"] = torch.zeros(3, 8), torch.zeros(3)
    _, difference = to_ours(theirs, model.state_dict(), LAYOUTS["paper"], TINY)
    assert str(difference) == ""
    theirs["absolute_pos_embed"] = torch.zeros(1, 36, 4)
    _, difference = to_ours(theirs, model.state_dict(), LAYOUTS["paper"], TINY)
    assert difference.unexpected == ["absolute_pos_embed"]
