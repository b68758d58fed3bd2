"""The objectives by name."""

from vitrail.objectives.dino import DINO
from vitrail.objectives.mae import MAE
from vitrail.objectives.masked_token import MaskedToken
from vitrail.objectives.next_token import NextToken
from vitrail.objectives.objective import ImageObjective, Objective, TextObjective
from vitrail.objectives.pixels import MaskedPixel, NextPixel
from vitrail.objectives.simclr import SimCLR
from vitrail.objectives.span import Span

IMAGE_OBJECTIVES: dict[str, type[ImageObjective]] = {
    "mae": MAE,
    "dino": DINO,
    "simclr": SimCLR,
    "next-pixel": NextPixel,
    "masked-pixel": MaskedPixel,
}
TEXT_OBJECTIVES: dict[str, type[TextObjective]] = {
    "masked-token": MaskedToken,
    "next-token": NextToken,
    "span": Span,
}
OBJECTIVES: dict[str, type[Objective]] = {**IMAGE_OBJECTIVES, **TEXT_OBJECTIVES}

# What the published weights of each family of models of text were trained with.
LEARNED_BY: dict[str, type[TextObjective]] = {"bert": MaskedToken, "gpt": NextToken, "t5": Span, "transformer": Span}

__all__ = [
    "IMAGE_OBJECTIVES",
    "LEARNED_BY",
    "OBJECTIVES",
    "TEXT_OBJECTIVES",
    "ImageObjective",
    "Objective",
    "TextObjective",
]
