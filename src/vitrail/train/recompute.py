"""Less memory for more time: what a block computes is computed again when its gradients are (Chen et al. 2016).

"Training deep nets with sublinear memory cost", arXiv:1604.06174; known as gradient, or activation, checkpointing.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from vitrail.errors import SettingError


def recompute_blocks(learner: nn.Module) -> int:
    """Let each block of the innermost ModuleLists keep its input alone until the backward pass; returns how many.

    Gradients stay the same, dropout too. Raises :class:`SettingError` where there is no such block, and for batch
    norms, which would count each batch twice.
    """
    lists = [module for module in learner.modules() if isinstance(module, nn.ModuleList)]
    blocks = [block for each in lists if not _has_list(each) for block in each]
    if not blocks:
        raise SettingError("this model has no blocks whose activations could be left out; leave out --recompute.")
    if any(isinstance(layer, _BatchNorm) for block in blocks for layer in block.modules()):
        raise SettingError("batch norms would count each batch twice; leave out --recompute, or take --accumulate.")
    for block in blocks:
        block.forward = MethodType(_checkpointed, block)  # a method, which copies of the block have as their own
    return len(blocks)


def _has_list(blocks: nn.ModuleList) -> bool:
    return any(isinstance(part, nn.ModuleList) for block in blocks for part in block.modules())


def _checkpointed(block: nn.Module, *inputs: Any, **named: Any) -> Any:
    forward = type(block).forward
    if not torch.is_grad_enabled():
        return forward(block, *inputs, **named)
    return checkpoint(forward, block, *inputs, use_reentrant=False, **named)
