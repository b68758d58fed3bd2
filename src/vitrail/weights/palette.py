"""All tensors of a checkpoint: those of its weights, and the palette that an iGPT's files keep beside them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vitrail.errors import CheckpointError
from vitrail.weights.files import Files
from vitrail.weights.read import read_tensors

NAME = "clusters"  # of the palette among the tensors, as Transformers calls it
BESIDE = "kmeans_centers.npy"  # the file of OpenAI's


def all_tensors(files: Files) -> dict[str, Tensor]:
    """The tensors of the files of weights, and ``clusters`` ``(K, C)`` float32 where there is such a palette.

    Transformers has it in ``preprocessor_config.json``, OpenAI in a file of its own beside the weights. Raises what
    `read_tensors` raises, and :class:`CheckpointError` for a palette that is none.
    """
    tensors = read_tensors(files.weights)
    file = files.weights[0].parent / BESIDE
    if files.preprocessor.get(NAME) is not None:
        tensors[NAME] = _palette(files.preprocessor[NAME], f"{files.name}: the palette of its preprocessor_config.json")
    elif file.is_file():
        try:
            tensors[NAME] = _palette(np.load(file, allow_pickle=False), str(file))
        except (ValueError, EOFError) as error:
            raise CheckpointError(f"{file} is damaged or no array of NumPy's; fetch it again.") from error
    return tensors


def _palette(values: object, where: str) -> Tensor:
    try:
        palette = torch.as_tensor(np.asarray(values, dtype=np.float32))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{where} is no table of numbers; fetch it again.") from error
    if palette.ndim != 2:
        raise CheckpointError(f"{where} has the shape {tuple(palette.shape)}, not one row a colour; fetch it again.")
    return palette
