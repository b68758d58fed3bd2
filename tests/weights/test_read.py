"""Every kind of file of weights becomes named tensors, and no file makes this program run what it brings."""

from __future__ import annotations

import argparse
import os
import pathlib
import random
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from vitrail.errors import CheckpointError
from vitrail.weights.read import PREFIXES, WRAPPERS, Unneeded, read_file, read_tensors

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "stem.weight": torch.randn(4, 3, generator=generator),
        "stem.bias": torch.randn(4, generator=generator).bfloat16(),
        "count": torch.tensor(7),
    }


def assert_weights(path: Path, expected: dict[str, Tensor] | None = None) -> None:
    found, expected = read_tensors([path]), weights() if expected is None else expected
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(found[name].dtype == expected[name].dtype for name in expected)


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_tensors([path])
    said = str(caught.value)
    assert said.startswith(str(path))
    assert "\n" not in said
    assert ". " not in said.removeprefix(str(path))
    return said


def write(path: Path, content: Any, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


# --------------------------------------------------------------------------------------------------------- the formats


def test_safetensors(tmp_path: Path) -> None:
    safetensors.torch.save_file(weights(), tmp_path / "model.safetensors")
    assert_weights(tmp_path / "model.safetensors")


def test_several_parts_are_put_together(tmp_path: Path) -> None:
    parts = []
    for number, (name, tensor) in enumerate(weights().items()):
        parts.append(tmp_path / f"{number}.safetensors")
        safetensors.torch.save_file({name: tensor}, parts[-1])
    assert read_tensors(parts).keys() == weights().keys()
    with pytest.raises(CheckpointError, match=r"there is no file .*9\.safetensors; the checkpoint is incomplete"):
        read_tensors([*parts, tmp_path / "9.safetensors"])


@FORMATS
@pytest.mark.parametrize("name", ["weights.pth", "pytorch_model.bin", "best.pth.tar", "noname"])
def test_torch(tmp_path: Path, name: str, zipped: bool) -> None:
    assert_weights(write(tmp_path / name, weights(), zipped))


@FORMATS
def test_parameters_and_the_state_dict_of_a_module(tmp_path: Path, zipped: bool) -> None:
    module = nn.BatchNorm1d(3)
    assert_weights(write(tmp_path / "1.pth", module.state_dict(), zipped), dict(module.state_dict()))
    parameters = dict(module.named_parameters())
    found = read_tensors([write(tmp_path / "2.pth", parameters, zipped)])
    assert not any(tensor.requires_grad for tensor in found.values())
    assert found.keys() == parameters.keys()


def test_npz(tmp_path: Path) -> None:
    arrays = {
        "a/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
        "other order of bytes": np.arange(3, dtype=">f4"),
        "half": np.arange(3, dtype=np.float16),
        "step": np.int64(5),
        "text": np.array("made by hand"),
    }
    np.savez(tmp_path / "model.npz", **arrays)
    found = read_tensors([tmp_path / "model.npz"])
    assert found.keys() == arrays.keys() - {"text"}
    for name, tensor in found.items():
        assert np.array_equal(tensor.numpy(), arrays[name])


@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_bfloat16_in_npz_as_jax_writes_it(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = torch.randn(shape).bfloat16()
    two_bytes = values.view(torch.int16).numpy().view(np.dtype("V2"))
    np.savez(tmp_path / "model.npz", kernel=two_bytes)
    assert_weights(tmp_path / "model.npz", {"kernel": values.float()})


# ---------------------------------------------------------------------------------------------- wrappers and prefixes


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_each_wrapper(tmp_path: Path, wrapper: str) -> None:
    assert_weights(write(tmp_path / "w.pth", {"epoch": 3, wrapper: weights(), "optimizer": {"state": {}}}))


def test_averaged_weights_go_before_the_others(tmp_path: Path) -> None:
    other = {"other": torch.ones(1)}
    assert_weights(write(tmp_path / "1.pth", {"state_dict": other, "state_dict_ema": weights()}))
    assert_weights(write(tmp_path / "2.pth", {"student": other, "teacher": weights()}))
    for nothing in (None, "", {}, 7):
        assert_weights(write(tmp_path / "3.pth", {"state_dict_ema": nothing, "state_dict": weights()}))


def test_wrappers_in_wrappers_and_a_layer_called_as_one(tmp_path: Path) -> None:
    assert_weights(write(tmp_path / "1.pth", {"model": OrderedDict(state_dict={"net": weights()})}))
    tensors = {"model": torch.ones(3), "net": torch.zeros(())}
    assert_weights(write(tmp_path / "2.pth", tensors), tensors)


def test_a_dictionary_that_holds_itself(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    assert "holds no named tensors" in refusal(write(tmp_path / "w.pth", content))


@pytest.mark.parametrize("prefix", [*PREFIXES, "module._orig_mod.", "_orig_mod.module.", "opt/target/params/img/"])
def test_prefixes_that_all_names_have(tmp_path: Path, prefix: str) -> None:
    assert_weights(write(tmp_path / "w.pth", {prefix + name: tensor for name, tensor in weights().items()}))


def test_a_prefix_that_not_all_names_have_belongs_to_them(tmp_path: Path) -> None:
    tensors = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert_weights(write(tmp_path / "w.pth", tensors), tensors)


def test_what_belongs_to_texts_is_left_out(tmp_path: Path) -> None:
    tensors = {f"params/img/{name}": tensor for name, tensor in weights().items()}
    assert_weights(write(tmp_path / "w.pth", {**tensors, "params/txt/embedding": torch.ones(3)}))
    assert read_tensors([write(tmp_path / "t.pth", {"params/txt/embedding": torch.ones(3)})]) == {}


# ------------------------------------------------------------------------------------------- what is beside the weights


@FORMATS
@pytest.mark.parametrize("core", ["core", "_core"], ids=["NumPy 1", "NumPy 2"])
def test_settings_and_numbers_of_numpy(tmp_path: Path, zipped: bool, core: str) -> None:
    """As training programs write them; the module of NumPy's scalars had another name before version 2."""
    beside = {
        "args": argparse.Namespace(lr=0.1, sizes=[1, 2], seed=np.int64(3), folder=pathlib.PurePosixPath("x").name),
        "best": np.float64(81.2),
        "loss": np.float32(1.5),
        "history": np.arange(4.0),
    }
    path = write(tmp_path / "w.pth", {"model": weights(), **beside}, zipped=False)
    if zipped:
        path = write(path, {"model": weights(), **beside})
    elif core == "core":
        path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"))
    assert_weights(path)


class Harmful:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch {self.path}",)


@FORMATS
def test_a_file_that_would_run_code(tmp_path: Path, zipped: bool) -> None:
    trace = tmp_path / "it_ran"
    said = refusal(write(tmp_path / "w.pth", {"model": weights(), "x": Harmful(trace)}, zipped))
    assert "would run code when opened: it holds posix.system beside tensors" in said or os.name != "posix"
    assert "in a place you trust, save its state_dict() as safetensors" in said
    assert not trace.exists()
    torch.load(tmp_path / "w.pth", weights_only=False)  # as it would have done
    assert trace.exists()


@FORMATS
def test_a_whole_module(tmp_path: Path, zipped: bool) -> None:
    assert "it holds torch.nn.modules.linear.Linear" in refusal(write(tmp_path / "w.pth", nn.Linear(2, 3), zipped))


@FORMATS
@pytest.mark.parametrize("thing", [np.dtype("float64"), np.float32(1), np.ones(3), argparse.Namespace(x=1)], ids=repr)
def test_what_is_let_pass_is_never_made(tmp_path: Path, zipped: bool, thing: Any) -> None:
    """NumPy's own way to make an array from a pickle trusts what it is told; so it is not asked."""
    before = set(torch.serialization.get_safe_globals())
    path = write(tmp_path / "w.pth", {"model": weights(), "x": thing}, zipped)
    assert isinstance(read_file(path)["x"], Unneeded)
    assert set(torch.serialization.get_safe_globals()) == before


def test_pickled_objects_in_npz(tmp_path: Path) -> None:
    trace = tmp_path / "it_ran"
    np.savez(tmp_path / "model.npz", allow_pickle=True, kernel=np.ones(3), x=np.array([Harmful(trace)]))
    assert "would run code when opened: it holds pickled objects beside tensors" in refusal(tmp_path / "model.npz")
    assert not trace.exists()


@pytest.mark.parametrize("content", [{}, [torch.ones(1)], torch.ones(3), {"a": 1}, {"state_dict": {}}, 7])
def test_no_named_tensors(tmp_path: Path, content: Any) -> None:
    assert "holds no named tensors; save a model's state_dict()" in refusal(write(tmp_path / "w.pth", content))


# ------------------------------------------------------------------------------------------------------------- damage


def every_format(folder: Path) -> list[Path]:
    safetensors.torch.save_file(weights(), folder / "a.safetensors")
    np.savez_compressed(folder / "b.npz", kernel=np.random.default_rng(0).normal(size=50), other=np.ones(3))
    np.savez(folder / "c.npz", kernel=np.random.default_rng(0).normal(size=50))
    write(folder / "d.pth", {"model": weights(), "best": np.float64(1)})
    write(folder / "e.pth", {"model": weights(), "best": np.float64(1)}, zipped=False)
    return sorted(folder.iterdir())


def test_cut_short_at_any_length(tmp_path: Path) -> None:
    for path in every_format(tmp_path):
        whole = path.read_bytes()
        for length in {*range(12), *range(0, len(whole), 37), *range(len(whole) - 12, len(whole))}:
            path.write_bytes(whole[:length])
            said = refusal(path)
            in_a_name = path.name == "e.pth" and "would run code" in said  # a name that is cut short is another one
            assert "is damaged, cut short or no file of weights (" in said or in_a_name, (path.name, length)


def test_single_bits_that_are_wrong(tmp_path: Path) -> None:
    """Either the file is refused, or what came through are tensors; nothing else happens."""
    chance = random.Random(0)
    for path in every_format(tmp_path):
        whole, refused = path.read_bytes(), 0
        for _ in range(200):
            damaged = bytearray(whole)
            damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
            path.write_bytes(damaged)
            try:
                tensors = read_tensors([path])
            except CheckpointError:
                refused += 1
            else:
                assert all(isinstance(tensor, Tensor) for tensor in tensors.values())
        assert refused > 10, path.name


@pytest.mark.parametrize("name", ["w.safetensors", "w.npz", "w.pth"])
def test_garbage(tmp_path: Path, name: str) -> None:
    chance = random.Random(0)
    path = tmp_path / name
    pages = [
        b"<html>Access denied</html>",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"PK\x03\x04",
        b"\x80\x02.",
    ]
    for content in [*pages, *(chance.randbytes(chance.randrange(300)) for _ in range(100))]:
        path.write_bytes(content)
        assert "is damaged, cut short or no file of weights (" in refusal(path)


def test_one_format_under_the_name_of_another(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.ones(3))
    (tmp_path / "array.npy").rename(tmp_path / "w.npz")
    assert "no file of weights" in refusal(tmp_path / "w.npz")
    write(tmp_path / "w.safetensors", weights())
    assert "no file of weights" in refusal(tmp_path / "w.safetensors")
