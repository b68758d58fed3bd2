"""How many floating-point operations work takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count


def flops_of(work: Callable[[], object]) -> int:
    """Operations of the matrix products, convolutions and attention in ``work``, forward and backward.

    A multiplication with its addition counts as two, as in the papers on scale (Chowdhery et al. 2022, PaLM, appendix
    B). Attention is counted as the products that it is of, once each, though a fused kernel may compute some of them
    again. What works on each value for itself (norms, activations, softmax, the optimizer) is not counted.

    Best on the meta device, where nothing is computed.
    """
    backward = {torch.ops.aten.convolution_backward: _convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=backward) as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return counter.get_total_flops()


def _convolution_backward(
    gradient: Sequence[int],
    images: Sequence[int],
    weight: Sequence[int],
    bias: Sequence[int] | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    wanted: Sequence[bool],
    **others: Any,
) -> int:
    """As many operations as forward for each gradient that is ``wanted``: of the images, of the weight.

    PyTorch (2.13) by itself forgets the groups, and counts a depthwise convolution of C channels up to C times.
    """
    forward = conv_flop_count(list(images), list(weight), list(gradient), transposed=transposed)
    return forward * (int(wanted[0]) + int(wanted[1]))
