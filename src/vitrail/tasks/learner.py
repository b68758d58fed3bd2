"""What the loop trains and a run's folder keeps: a network with what it learns by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from vitrail.nn.backbone import Network


class Learner(nn.Module, ABC):
    """A task, which a person wants done, or an objective, from which a network learns without being told the answer.

    Attributes:
        name: the word for it in files and on the command line.
        score, lower_is_better: the key of the validation figures by which one model is better than another.
        model: the backbone's name in the table of models.
        backbone: the network, without a head.
    """

    name: ClassVar[str]
    score: str
    lower_is_better: ClassVar[bool] = False
    model: str
    backbone: Network

    @abstractmethod
    def loss(self, batch: Any) -> dict[str, Tensor]:
        """Scalars; the one called ``loss`` is minimised, the others are only recorded."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """All but the weights, for ``model.json``."""

    @classmethod
    @abstractmethod
    def from_json(cls, description: dict[str, Any]) -> Learner:
        """The learner that :meth:`to_json` described, with fresh weights."""

    def train(self, mode: bool = True) -> Learner:
        """Training or evaluation mode; a part with no weight that is trained stays in evaluation mode.

        So the running statistics of frozen batch norms do not move, and frozen blocks do not drop anything.
        """
        super().train(mode)
        for module in self.modules():
            parameters = list(module.parameters())
            if module is not self and parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        return self

    @property
    def depth(self) -> int:
        """Number of the last layer, for layer-wise learning rates; all but the backbone belongs to it."""
        return self.backbone.depth

    def layer(self, parameter_name: str) -> int:
        """The layer a parameter belongs to."""
        first, _, rest = parameter_name.partition(".")
        return self.backbone.layer(rest) if first == "backbone" else self.depth
