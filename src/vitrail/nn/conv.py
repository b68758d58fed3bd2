"""Convolutions with standardised weights (Qiao et al. 2019, Weight Standardization)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class StdConv2d(nn.Conv2d):
    """A convolution whose kernels have mean 0 and variance 1 (the biased one) each, whatever their values.

    Args:
        inputs, outputs, kernel, stride: as of `nn.Conv2d`; there is no bias.
        padding: zeros on each side, or "same": TensorFlow's, which makes the result the size of the input divided by
            the stride, rounded up, with the odd row and column at the bottom and on the right.
        eps: added to the variance before its root is taken.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, padding: int | str = 0, eps: float = 1e-8
    ) -> None:
        zeros = 0 if isinstance(padding, str) else padding
        super().__init__(inputs, outputs, kernel, stride, padding=zeros, bias=False)
        self.same = padding == "same"
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean(dim=(1, 2, 3), keepdim=True)
        variance = self.weight.var(dim=(1, 2, 3), keepdim=True, correction=0)
        weight = (self.weight - mean) * (variance + self.eps).rsqrt()
        if self.same:
            x = pad_same(x, self.kernel_size[0], self.stride[0])
        return F.conv2d(x, weight, stride=self.stride, padding=self.padding)


def pad_same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pad ``(B, C, H, W)`` as TensorFlow's SAME does, for a square kernel and stride."""
    bottom, right = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:])
    return F.pad(x, (right // 2, right - right // 2, bottom // 2, bottom - bottom // 2), value=value)
