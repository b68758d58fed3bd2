"""The objectives by name."""

from vitrail.objectives.mae import MAE
from vitrail.objectives.next_token import NextToken
from vitrail.objectives.objective import ImageObjective, Objective, TextObjective

IMAGE_OBJECTIVES: dict[str, type[ImageObjective]] = {"mae": MAE}
TEXT_OBJECTIVES: dict[str, type[TextObjective]] = {"next-token": NextToken}
OBJECTIVES: dict[str, type[Objective]] = {**IMAGE_OBJECTIVES, **TEXT_OBJECTIVES}

# What the published weights of each family of models of text were trained with.
LEARNED_BY: dict[str, type[TextObjective]] = {"gpt": NextToken}

__all__ = [
    "IMAGE_OBJECTIVES",
    "LEARNED_BY",
    "OBJECTIVES",
    "TEXT_OBJECTIVES",
    "ImageObjective",
    "Objective",
    "TextObjective",
]
