"""Which device and which number format are chosen, and what the format changes."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from vitrail.errors import SettingError
from vitrail.train import precision
from vitrail.train.precision import choose_device, choose_precision, multiplies_bfloat16, products_in

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"), [(True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_is_the_best_device_there_is(cuda: bool, mps: bool, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device() == torch.device(chosen)


def test_the_cpu_is_always_there() -> None:
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["gpu", "", "cuda:99", "cuda:x", "vulkan", "hpu", "privateuseone", "meta"])
def test_a_device_that_is_not_here_is_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(SettingError) as caught:
        choose_device(name)
    assert str(caught.value) == f"device '{name}' is not available here; --device auto takes the best there is."


@pytest.mark.parametrize(
    ("device", "has", "native"),
    [
        (CUDA, {"capability": (8, 0)}, True),
        (CUDA, {"capability": (9, 0)}, True),
        (CUDA, {"capability": (7, 5)}, False),
        (CPU, {"avx512_bf16": True, "amx": False}, True),
        (CPU, {"avx512_bf16": False, "amx": True}, True),
        (CPU, {"avx512_bf16": False, "amx": False}, False),
        (torch.device("mps"), {}, False),
    ],
)
def test_bfloat16_is_chosen_where_the_hardware_multiplies_it(
    device: torch.device, has: dict[str, object], native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: has["capability"])
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has["avx512_bf16"])
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has["amx"])
    assert multiplies_bfloat16(device) is native
    assert choose_precision(device) == (torch.bfloat16 if native else torch.float32)
    assert choose_precision(device, "float32") == torch.float32
    assert choose_precision(device, "bfloat16") == torch.bfloat16


def test_the_questions_to_the_processor_can_be_asked() -> None:
    """They are private to torch; a new release may have others."""
    assert isinstance(multiplies_bfloat16(CPU), bool)


def test_float32_leaves_everything_as_it_is() -> None:
    a, b = torch.randn(4, 4), torch.randn(4, 4)
    with products_in(torch.float32, CPU):
        assert torch.equal(a @ b, torch.mm(a, b))
        assert (a @ b).dtype == torch.float32
        assert not torch.is_autocast_enabled("cpu")


def test_bfloat16_is_for_products_alone() -> None:
    x, weight = torch.randn(2, 8), torch.randn(3, 8, requires_grad=True)
    with products_in(torch.bfloat16, CPU):
        logits = F.linear(x, weight)
        assert logits.dtype == torch.bfloat16
        assert F.layer_norm(x, (8,)).dtype == torch.float32
        loss = F.cross_entropy(logits.float(), torch.tensor([0, 2]))
    assert loss.dtype == torch.float32
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def test_the_names_on_the_command_line_are_those_of_torch() -> None:
    names = set(get_args(precision.Precision)) - {"auto"}
    assert {getattr(torch, name) for name in names} == {torch.float32, torch.bfloat16}
