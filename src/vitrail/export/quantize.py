"""Weights of 8 bits: a quarter of the size (dynamic quantisation by onnxruntime).

Weights become whole numbers once, with a scale for each output channel; activations become such when they are
there, with a scale for all of them together.
"""

from __future__ import annotations

import logging
from pathlib import Path

PRODUCTS = ("MatMul", "Gemm", "Conv")  # what is computed with whole numbers


def quantise(path: Path) -> None:
    """Replace an ONNX file, and the weights beside it, by the same model with weights of 8 bits, in one file.

    They are unsigned: products of unsigned numbers overflow on no processor, as those with signed ones do on x86 before
    AVX512-VNNI.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(path)
    model.graph.ClearField("value_info")  # it has the shapes of weights that are turned around now
    for part in path.parent.glob(f"{path.name}.*"):
        part.unlink()
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it advises on the root logger
    try:
        quantize_dynamic(
            model, path, op_types_to_quantize=list(PRODUCTS), per_channel=True, weight_type=QuantType.QUInt8
        )
    finally:
        logger.setLevel(level)
