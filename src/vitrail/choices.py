"""What some settings may be, and two limits: apart from the code they are for, so that flags need no PyTorch."""

from __future__ import annotations

from typing import Literal

Precision = Literal["auto", "float32", "bfloat16"]
OptimizerName = Literal["adamw", "sgd"]
Adapt = Literal["full", "head", "lora"]
DistillationKind = Literal["hard", "soft"]

MAX_PIXELS = 178_956_970  # of an image: where Pillow itself takes one for a decompression bomb
MAX_UNREADABLE = 0.1  # the share of a split that may be unreadable before work on it stops
