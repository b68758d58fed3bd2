"""TensorFlow's checkpoints, written here from the description of the format, are read as they were written.

What TensorFlow 2.21 itself writes was compared in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vitrail.errors import CheckpointError
from vitrail.recipes.informing.info import is_checkpoint, parts
from vitrail.weights.files import find
from vitrail.weights.read import read_file, read_tensors

NUMBERS = {torch.float32: 1, torch.int32: 3, torch.int64: 9, torch.bool: 10, torch.bfloat16: 14, torch.float16: 19}
TEXT = 7

# ---------------------------------------------------------------------------------------------------- a writer of them


def checksum(data: bytes) -> bytes:
    """CRC-32C, masked as LevelDB does."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    register ^= 0xFFFFFFFF
    rotated = (register >> 15) | (register << 17) & 0xFFFFFFFF
    return ((rotated + 0xA282EAD8) % 2**32).to_bytes(4, "little")


def varint(value: int) -> bytes:
    data = b""
    while value > 127:
        data += bytes([value % 128 + 128])
        value //= 128
    return data + bytes([value])


def message(*fields: tuple[int, int | bytes]) -> bytes:
    """A protocol buffer of whole numbers and of bytes; as in proto3, what is 0 is left out."""
    data = b""
    for number, value in fields:
        if isinstance(value, bytes):
            data += varint(8 * number + 2) + varint(len(value)) + value
        elif value:
            data += varint(8 * number) + varint(value)
    return data


def block(entries: Sequence[tuple[bytes, bytes]], every: int = 3, compressed: int = 0) -> bytes:
    """Sorted keys with their values; every third key is whole, the others begin as the one before does."""
    data, restarts, before = b"", [], b""
    for number, (key, value) in enumerate(entries):
        shared = 0
        if number % every:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        else:
            restarts.append(len(data))
        data += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    for restart in restarts or [0]:
        data += restart.to_bytes(4, "little")
    data += len(restarts or [0]).to_bytes(4, "little") + bytes([compressed])
    return data + checksum(data)


def table(entries: Sequence[tuple[bytes, bytes]], in_a_block: int = 5, compressed: int = 0) -> bytes:
    data, index = b"", []
    for first in range(0, len(entries), in_a_block):
        some = block(entries[first : first + in_a_block], compressed=compressed)
        last = entries[first : first + in_a_block][-1][0]
        index.append((last, varint(len(data)) + varint(len(some) - 5)))
        data += some
    handles = b""
    for part in (block([]), block(index, every=1)):
        handles += varint(len(data)) + varint(len(part) - 5)
        data += part
    return data + handles.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")


def as_bytes(tensor: Tensor) -> bytes:
    return bytes(tensor.contiguous().view(-1).view(torch.uint8).tolist()) if tensor.numel() else b""


def write(
    prefix: Path,
    tensors: Mapping[str, Tensor],
    shards: int = 2,
    *,
    header: bytes | None = None,
    change: Callable[[str, dict[int, int | bytes]], None] = lambda name, fields: None,
    extra: Sequence[tuple[bytes, bytes]] = (),
    compressed: int = 0,
) -> Path:
    """Write a checkpoint, tensor after tensor into one file of data after the other; returns its index."""
    header = message((1, shards), (3, message((1, 1)))) if header is None else header
    contents = [b""] * shards
    entries = [(b"", header), *extra]
    for number, name in enumerate(sorted(tensors)):
        tensor, shard, data = tensors[name], number % shards, as_bytes(tensors[name])
        shape = b"".join(message((2, message((1, size)))) for size in tensor.shape)
        fields: dict[int, int | bytes] = {1: NUMBERS[tensor.dtype], 2: shape, 3: shard}
        fields |= {4: len(contents[shard]), 5: len(data)}
        change(name, fields)
        fixed = varint(8 * 6 + 5) + checksum(data)
        entries.append((name.encode(), message(*fields.items()) + fixed))
        contents[shard] += data
    for shard, content in enumerate(contents):
        prefix.with_name(f"{prefix.name}.data-{shard:05}-of-{shards:05}").write_bytes(content)
    index = prefix.with_name(f"{prefix.name}.index")
    index.write_bytes(table(sorted(entries), compressed=compressed))
    return index


def weights() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(0)
    tensors = {"flag": torch.tensor([True, False]), "none": torch.empty(0, 3), "scalar": torch.tensor(2.5)}
    for number in range(4):
        tensors[f"model/h{number}/attn/c_attn/w"] = torch.randn(1, 2, 3, generator=random)
        tensors[f"model/h{number}/attn/c_attn/b"] = torch.randn(3, generator=random).half()
        tensors[f"model/h{number}/ln_1/g"] = torch.randn(2, generator=random).bfloat16()
        tensors[f"model/h{number}/place"] = torch.randint(-9, 9, (2,), generator=random)
    return tensors


def few() -> dict[str, Tensor]:
    """Enough of them for two blocks and two files of data."""
    return {name: tensor for name, tensor in weights().items() if not name.startswith("model/") or "h0" in name}


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def refusal(index: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_tensors([index])
    said = str(caught.value)
    assert "\n" not in said
    return said


# --------------------------------------------------------------------------------------------------------- the reading


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_every_tensor_comes_back_bit_for_bit(tmp_path: Path, shards: int) -> None:
    index = write(tmp_path / "model.ckpt", weights(), shards)
    assert_same(read_tensors([index]), weights())


def test_a_tensor_can_be_changed(tmp_path: Path) -> None:
    found = read_tensors([write(tmp_path / "model.ckpt", weights())])
    found["scalar"] += 1
    assert found["scalar"] == 3.5


def test_what_an_optimizer_keeps_is_left_out(tmp_path: Path) -> None:
    slots = ("bert/w/adam_m", "bert/w/adam_v", "w/Adam", "w/Adam_1", "w/Momentum", "encoder/k_slot_vc")
    counters = ("global_step", "beta1_power", "training/beta2_power_1", "save_counter/.ATTRIBUTES/VARIABLE_VALUE")
    kept = {"bert/w": torch.ones(2), "model/adam_model/w": torch.ones(3), "Momentum_of/w": torch.ones(1)}
    unneeded = {name: torch.zeros(2) for name in (*slots, *counters, "v/.OPTIMIZER_SLOT/adam/m", "optimizer/rate")}
    assert_same(read_tensors([write(tmp_path / "model.ckpt", kept | unneeded)]), kept)


def test_what_is_no_number_is_left_out(tmp_path: Path) -> None:
    tensors = {"_CHECKPOINTABLE_OBJECT_GRAPH": torch.zeros(3), "w": torch.ones(2)}

    def change(name: str, fields: dict[int, int | bytes]) -> None:
        fields[1] = TEXT if name != "w" else fields[1]

    assert read_tensors([write(tmp_path / "model.ckpt", tensors, change=change)]).keys() == {"w"}


def test_a_checkpoint_is_named_by_its_index_by_its_prefix_or_by_its_folder(tmp_path: Path) -> None:
    index = write(tmp_path / "model.ckpt", weights())
    for name in (index, tmp_path / "model.ckpt", tmp_path):
        assert find(name).weights == (index,)
    later = write(tmp_path / "model.ckpt-20", weights())
    with pytest.raises(CheckpointError, match=r"has several: model\.ckpt-20\.index, model\.ckpt\.index; name the file"):
        find(tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/model.ckpt-20"\nall_model: "model.ckpt"\n')
    assert find(tmp_path).weights == (later,)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "gone"\n')
    with pytest.raises(CheckpointError, match="has several"):
        find(tmp_path)


def test_info_knows_it_and_all_its_files(tmp_path: Path) -> None:
    index = write(tmp_path / "model.ckpt", weights())
    assert is_checkpoint(str(index))
    assert is_checkpoint(str(tmp_path / "model.ckpt"))
    assert not is_checkpoint(str(tmp_path / "other.ckpt"))
    assert is_checkpoint(str(tmp_path))
    data = [f"model.ckpt.data-0000{number}-of-00002" for number in range(2)]
    assert [path.name for path in parts(find(index))] == ["model.ckpt.index", *data]
    write(tmp_path / "other.ckpt", weights())
    assert not is_checkpoint(str(tmp_path))  # which of the two?
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"')
    assert is_checkpoint(str(tmp_path))


def test_one_on_the_hub_is_fetched_with_its_data(tmp_path: Path, hub) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path / "bert_model.ckpt", weights())
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    hub.add("org/bert", files)
    for name in ("hf:org/bert/bert_model.ckpt", "hf:org/bert/bert_model.ckpt.index"):
        assert_same(read_tensors(find(name).weights), weights())
    hub.add("org/half", {name: content for name, content in files.items() if "00001-of" not in name})
    with pytest.raises(CheckpointError, match=r"a part that bert_model\.ckpt\.index names is not in the repository"):
        find("hf:org/half/bert_model.ckpt.index")


# --------------------------------------------------------------------------------------------------------- the refusals


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    index = write(tmp_path / "model.ckpt", weights())
    (tmp_path / "model.ckpt.data-00001-of-00002").unlink()
    assert refusal(index) == (
        f"there is no file {tmp_path}/model.ckpt.data-00001-of-00002, which model.ckpt.index needs; the checkpoint is "
        "incomplete."
    )


def test_slices_and_compression_are_refused(tmp_path: Path) -> None:
    def sliced(name: str, fields: dict[int, int | bytes]) -> None:
        fields[7] = message((1, b""))

    index = write(tmp_path / "a", weights(), change=sliced)
    assert refusal(index) == f"{index} cannot be read: it has a variable in slices; save each in one piece."
    parts = [(b"\0\x01part", b"")]
    assert "it has a variable in slices" in refusal(write(tmp_path / "b", weights(), extra=parts))
    assert "its index is compressed" in refusal(write(tmp_path / "c", weights(), compressed=1))
    swapped = message((1, 2), (2, 1))
    assert "the highest byte first" in refusal(write(tmp_path / "d", weights(), header=swapped))


@pytest.mark.parametrize(
    ("number", "value", "reason"),
    [
        (2, message((2, message((1, 2**62)))), "which its shape"),
        (2, message((2, message((1, 2**64 - 1)))), "which its shape"),
        (3, 7, "is in a file that there is not"),
        (4, 2**63, "ends before"),
        (5, 10**15, "which its shape"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(tmp_path: Path, number: int, value: int | bytes, reason: str) -> None:
    def change(name: str, fields: dict[int, int | bytes]) -> None:
        fields[number] = value

    assert reason in refusal(write(tmp_path / "model.ckpt", {"w": torch.ones(2)}, change=change))


@pytest.mark.parametrize("count", [0, 100_000, 2**63])
def test_a_header_without_a_sensible_number_of_files_is_refused(tmp_path: Path, count: int) -> None:
    index = write(tmp_path / "model.ckpt", weights(), header=message((1, count)))
    assert "the number of files of data makes no sense" in refusal(index)


def test_no_damaged_byte_goes_unseen(tmp_path: Path) -> None:
    """Whatever byte is another one, the tensors are the right ones or the file is refused."""
    small = few()
    index = write(tmp_path / "model.ckpt", small)
    refused = 0
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for place in range(len(whole)):
            for mask in (1, 255) if path == index else (16,):
                path.write_bytes(whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :])
                refused += refused_or_right(index, small)
        path.write_bytes(whole)
    assert refused > 500  # all but what is padding, or the block of metadata, which is empty


def test_no_cut_goes_unseen(tmp_path: Path) -> None:
    index = write(tmp_path / "model.ckpt", few())
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            assert refused_or_right(index, few())
        path.write_bytes(whole)


def refused_or_right(index: Path, expected: Mapping[str, Tensor]) -> bool:
    """Whether reading raises `CheckpointError`; any other exception, or another tensor, fails."""
    try:
        found = read_file(index)
    except CheckpointError:
        return True
    assert_same(found, expected)
    return False
