"""Key tables at work: both ways, bit by bit, and strictly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from vitrail.errors import SettingError
from vitrail.models.layout import KERNEL, PAIRED, POINTWISE, SAME, STACKED, TRANSPOSED, Layout, Row, Turn
from vitrail.weights.rename import compare, count_fitting, names_of_theirs, to_ours, to_theirs

ROWS = (
    Row("embed.cls", "class_token"),
    Row("embed.kernel", "patches.weight", KERNEL),
    Row(tuple(f"layer_{{+1}}.{part}.weight" for part in "qkv"), "blocks.{}.qkv.weight", STACKED),
    Row(tuple(f"layer_{{+1}}.{part}.bias" for part in "qkv"), "blocks.{}.qkv.bias", STACKED),
    Row("layer_{+1}.dense", "blocks.{}.proj"),
    Row("layer_{-1}.down.{}.conv.weight", "blocks.{}.down.{}.linear.weight", POINTWISE),
    Row("bn", "norm"),
    Row("classifier", "head.linear"),
)
LAYOUT = Layout(lambda config: ROWS, prefix="net.", ignored=("mask_token", "decoder.{}"))


def task() -> dict[str, Tensor]:
    """All tensors of a small task, each with numbers of its own."""
    shapes: dict[str, tuple[int, ...]] = {
        "backbone.class_token": (1, 1, 6),
        "backbone.patches.weight": (6, 3, 4, 5),
        "backbone.norm.weight": (6,),
        "backbone.norm.running_mean": (6,),
        "head.linear.weight": (2, 6),
        "head.linear.bias": (2,),
    }
    for block in (0, 1, 11):
        shapes |= {f"backbone.blocks.{block}.qkv.weight": (18, 6), f"backbone.blocks.{block}.qkv.bias": (18,)}
        shapes |= {f"backbone.blocks.{block}.proj.weight": (6, 6), f"backbone.blocks.{block}.proj.bias": (6,)}
    shapes["backbone.blocks.1.down.12.linear.weight"] = (7, 6)
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {**tensors, "backbone.norm.num_batches_tracked": torch.tensor(5)}


def ours_of(theirs: dict[str, Tensor], wanted: dict[str, Tensor] | None = None, layout: Layout = LAYOUT) -> Any:
    return to_ours(theirs, task() if wanted is None else wanted, layout, None)


def headless() -> dict[str, Tensor]:
    return {name: tensor for name, tensor in task().items() if not name.startswith("head.")}


def assert_equal(some: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    assert some.keys() == others.keys()
    for name, tensor in some.items():
        assert tensor.shape == others[name].shape, name
        assert tensor.dtype == others[name].dtype, name
        assert torch.equal(tensor, others[name]), name


# ----------------------------------------------------------------------------------------------------------- both ways


def test_names_in_their_words() -> None:
    assert set(to_theirs(task(), LAYOUT, None)) == {
        "net.embed.cls",
        "net.embed.kernel",
        *(f"net.bn.{name}" for name in ("weight", "running_mean", "num_batches_tracked")),
        *(f"net.layer_{block}.{part}.{name}" for block in (1, 2, 12) for part in "qkv" for name in ("weight", "bias")),
        *(f"net.layer_{block}.dense.{name}" for block in (1, 2, 12) for name in ("weight", "bias")),
        "net.layer_0.down.12.conv.weight",
        "classifier.weight",
        "classifier.bias",
    }


def test_values_in_their_order() -> None:
    ours, theirs = task(), to_theirs(task(), LAYOUT, None)
    qkv = ours["backbone.blocks.11.qkv.weight"]
    for number, part in enumerate("qkv"):
        assert torch.equal(theirs[f"net.layer_12.{part}.weight"], qkv[6 * number : 6 * number + 6])
    kernel = ours["backbone.patches.weight"]
    assert theirs["net.embed.kernel"].shape == (4, 5, 3, 6)
    assert theirs["net.embed.kernel"][1, 2, 0, 4] == kernel[4, 0, 1, 2]
    assert theirs["net.layer_0.down.12.conv.weight"].shape == (7, 6, 1, 1)
    assert all(tensor.is_contiguous() for tensor in theirs.values())


def test_there_and_back_is_bit_equal() -> None:
    theirs = to_theirs(task(), LAYOUT, None)
    ours, difference = ours_of(theirs)
    assert (len(difference), str(difference)) == (0, "")
    assert_equal(ours, task())
    assert_equal(to_theirs(ours, LAYOUT, None), theirs)


@pytest.mark.parametrize(
    ("turn", "shapes"),
    [
        (SAME, [(3, 4)]),
        (TRANSPOSED, [(3, 4)]),
        (KERNEL, [(2, 3, 4, 5)]),
        (POINTWISE, [(4, 5, 1, 1)]),
        (STACKED, [(2, 5)] * 3),
        (PAIRED, [(2, 5)] * 2),
    ],
)
def test_each_turn_undoes_itself(turn: Turn, shapes: list[tuple[int, ...]]) -> None:
    theirs = [torch.randn(shape) for shape in shapes]
    back = turn.to_theirs(turn.to_ours(*theirs))
    assert all(torch.equal(one, other) for one, other in zip(back, theirs, strict=True))


def test_the_first_row_that_fits_is_the_one() -> None:
    rows = (Row("a.special", "block.{}.norm"), Row("b.{}", "block.{}"))
    assert names_of_theirs(rows, "block.3.norm.weight") == (["a.special.weight"], SAME)
    assert names_of_theirs(rows, "block.3.other.weight") == (["b.3.other.weight"], SAME)
    assert names_of_theirs(rows, "blocks.3") is None
    assert names_of_theirs(rows, "block.three") is None
    assert names_of_theirs((Row("a", "norm"),), "norm1.weight") is None


def test_a_scalar_of_ours_may_be_several_of_theirs() -> None:
    """Every batch norm that is cut in three counts the same batches."""
    rows = (Row(("a", "b", "c"), "norm", STACKED),)
    ours = {"norm.num_batches_tracked": torch.tensor(3), "norm.weight": torch.arange(6.0)}
    theirs = to_theirs(ours, Layout(lambda config: rows), None)
    assert {name: tensor.tolist() for name, tensor in theirs.items()} == {
        **{f"{part}.num_batches_tracked": 3 for part in "abc"},
        "a.weight": [0, 1],
        "b.weight": [2, 3],
        "c.weight": [4, 5],
    }
    back, difference = to_ours(theirs, ours, Layout(lambda config: rows), None)
    assert not difference
    assert_equal(back, ours)


def test_a_model_that_the_layout_has_no_name_for() -> None:
    with pytest.raises(SettingError, match=r"this layout has no name for backbone\.registers, so it cannot hold"):
        to_theirs({**task(), "backbone.registers": torch.zeros(1)}, LAYOUT, None)


# --------------------------------------------------------------------------------------------------------- prefix, head


def test_the_prefix_may_be_there_or_not() -> None:
    theirs = to_theirs(task(), LAYOUT, None)
    bare = {name.removeprefix("net."): tensor for name, tensor in theirs.items()}
    assert_equal(ours_of(bare)[0], ours_of(theirs)[0])
    assert not ours_of(bare)[1]


def test_a_classifier_may_be_left_over_where_none_is_wanted() -> None:
    ours, difference = ours_of(to_theirs(task(), LAYOUT, None), headless())
    assert not difference
    assert_equal(ours, headless())


def test_a_classifier_that_is_wanted_and_not_there() -> None:
    _, difference = ours_of(to_theirs(headless(), LAYOUT, None))
    assert difference.missing == ["classifier.weight", "classifier.bias"]


# ----------------------------------------------------------------------------------------------------------- strictness


def test_the_whole_difference_is_told() -> None:
    theirs = to_theirs(task(), LAYOUT, None)
    del theirs["net.layer_1.k.weight"], theirs["net.embed.cls"]
    theirs["net.layer_1.dense.weight"] = torch.zeros(6, 5)
    theirs["net.layer_2.q.weight"] = torch.zeros(6, 5)
    theirs["net.extra.weight"] = torch.zeros(1)
    _, difference = ours_of(theirs)
    assert len(difference) == 5
    assert sorted(difference.missing) == ["embed.cls", "layer_1.k.weight"]
    assert difference.unexpected == ["extra.weight"]
    assert sorted(difference.reshaped) == [
        "layer_1.dense.weight is (6, 5), ours (backbone.blocks.0.proj.weight) (6, 6)",
        "layer_2.q.weight + layer_2.k.weight + layer_2.v.weight is (6, 5) and (6, 6) and (6, 6), "
        "ours (backbone.blocks.1.qkv.weight) (18, 6)",
    ]
    for words in (*difference.missing, *difference.unexpected, *difference.reshaped):
        assert words in str(difference)


def test_a_tensor_with_another_number_of_dimensions() -> None:
    theirs = to_theirs(task(), LAYOUT, None)
    theirs["net.embed.kernel"] = torch.zeros(3)
    theirs["net.layer_0.down.12.conv.weight"] = torch.zeros(())
    _, difference = ours_of(theirs)
    assert len(difference.reshaped) == 2


def test_a_tensor_that_the_layout_has_no_name_for() -> None:
    _, difference = ours_of(to_theirs(task(), LAYOUT, None), {**task(), "backbone.registers": torch.zeros(1)})
    assert difference.missing == ["backbone.registers, for which this layout has no name"]


def test_what_says_nothing_is_ignored_and_only_that() -> None:
    theirs = to_theirs(task(), LAYOUT, None)
    beside = {"net.mask_token": 1, "decoder.3.weight": 1, "net.decoder.0.a.b": 1, "other.num_batches_tracked": 1}
    assert not ours_of({**theirs, **{name: torch.ones(1) for name in beside}})[1]
    for name in ("net.mask_tokens", "decoder.x.weight", "xdecoder.1"):
        assert len(ours_of({**theirs, name: torch.ones(1)})[1]) == 1, name


def test_counters_of_batch_norms_may_be_missing() -> None:
    theirs = to_theirs(task(), LAYOUT, None)
    del theirs["net.bn.num_batches_tracked"]
    ours, difference = ours_of(theirs)
    assert not difference
    assert ours["backbone.norm.num_batches_tracked"] == 0
    assert ours["backbone.norm.num_batches_tracked"].dtype == torch.int64


def test_files_are_prepared_before_they_are_read() -> None:
    old = {name.replace("dense", "fc"): tensor for name, tensor in to_theirs(task(), LAYOUT, None).items()}
    layout = replace(LAYOUT, prepare=lambda tensors: {k.replace(".fc.", ".dense."): v for k, v in tensors.items()})
    assert len(ours_of(old)[1]) > 0
    assert not ours_of(old, layout=layout)[1]


def test_what_is_given_is_not_changed() -> None:
    theirs = to_theirs(task(), LAYOUT, None)
    before = {name: tensor.clone() for name, tensor in theirs.items()}
    ours_of(theirs)
    assert_equal(theirs, before)


def test_counting_what_fits() -> None:
    theirs = to_theirs(task(), LAYOUT, None)
    assert count_fitting(theirs, task(), LAYOUT, None) == len(task()) - 1  # without the counter
    del theirs["net.layer_1.k.weight"]
    assert count_fitting(theirs, task(), LAYOUT, None) == len(task()) - 2
    assert count_fitting({}, task(), LAYOUT, None) == 0


def test_comparing_two_sets_of_tensors() -> None:
    wanted = {"a": torch.zeros(2), "b": torch.zeros(2), "c": torch.zeros(2)}
    assert not compare(wanted, {name: torch.ones(2) for name in wanted})
    difference = compare(wanted, {"b": torch.zeros(2), "c": torch.zeros(3), "d": torch.zeros(1)})
    assert str(difference) == "missing a; unexpected d; c is (3,), not (2,)"
