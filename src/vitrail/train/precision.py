"""Which number format the machine multiplies fastest without harm: one table, read once."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from vitrail.choices import Precision
from vitrail.errors import SettingError


def choose_device(requested: str = "auto") -> torch.device:
    """``auto`` is CUDA, else Apple's MPS, else the CPU. Raises :class:`SettingError` for a device that is not here."""
    if requested == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(requested)
        torch.empty(0, device=device).cpu()  # back again, which "meta" cannot
    except (RuntimeError, AssertionError, ImportError) as error:
        raise SettingError(
            f"device '{requested}' is not available here; --device auto takes the best there is."
        ) from error
    return device


def choose_precision(device: torch.device, requested: Precision = "auto") -> torch.dtype:
    """The format of matrix products: bfloat16 where the hardware multiplies it natively, float32 elsewhere."""
    if requested != "auto":
        return getattr(torch, requested)
    return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 products run natively: Ampere and later; CPUs with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def products_in(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """A context in which matrix products use ``dtype`` while weights, losses and norms stay float32."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype)
