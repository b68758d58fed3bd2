"""A batch cut into parts and put back together, and moved to a device."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrail.data.sample import Batch, Boxes, Caption
from vitrail.errors import UnreadableImage


def batch(rows: int, labels: bool = True) -> Batch:
    return Batch(
        images=torch.arange(rows * 3, dtype=torch.uint8).view(rows, 3, 1, 1),
        names=tuple(map(str, range(rows))),
        labels=torch.eye(rows) if labels else None,
        captions=tuple(Caption((str(row),)) for row in range(rows)),
        step=9,
        unreadable=(UnreadableImage("x", "damaged"),),
    )


@settings(deadline=None, max_examples=60)
@given(rows=st.integers(1, 12), parts=st.integers(1, 15), labels=st.booleans())
def test_the_parts_make_up_the_batch(rows: int, parts: int, labels: bool) -> None:
    whole = batch(rows, labels)
    made = list(whole.split(parts))
    assert 1 <= len(made) <= parts
    assert sum(map(len, made)) == rows
    assert max(map(len, made)) == -(-rows // parts)
    assert torch.equal(torch.cat([part.images for part in made]), whole.images)
    assert [name for part in made for name in part.names] == list(whole.names)
    assert {part.step for part in made} == {9}
    if whole.labels is None:
        assert all(part.labels is None for part in made)
    else:
        assert torch.equal(torch.cat([part.labels for part in made if part.labels is not None]), whole.labels)


def test_what_is_not_cut_does_not_go_along() -> None:
    """Or each part would be taken for the owner of all captions."""
    assert all(part.captions == () and part.unreadable == () for part in batch(4).split(2))


@pytest.mark.parametrize("labels", [True, False])
def test_on_another_device_only_the_tensors_are_others(labels: bool) -> None:
    here = batch(3, labels)
    there = here.to(torch.device("meta"))
    assert there.images.device.type == "meta"
    assert there.images.dtype == torch.uint8
    assert (there.labels is None) == (not labels)
    assert there.labels is None or there.labels.device.type == "meta"
    assert (there.names, there.captions, there.step, there.unreadable) == (
        here.names, here.captions, here.step, here.unreadable,
    )  # fmt: skip
    assert here.images.device.type == "cpu"


def test_it_comes_out_of_a_worker_process_as_it_was() -> None:
    boxes = Boxes(np.array([[0, 0, 1, 2]], np.float32), np.array([3]))
    sent = Batch(torch.zeros(1, 3, 2, 2), ("a",), boxes=(boxes,), unreadable=(UnreadableImage("b", "empty"),))
    received = pickle.loads(pickle.dumps(sent))
    assert torch.equal(received.images, sent.images)
    np.testing.assert_array_equal(received.boxes[0].xyxy, boxes.xyxy)
    assert (received.unreadable[0].name, received.unreadable[0].reason) == ("b", "empty")
