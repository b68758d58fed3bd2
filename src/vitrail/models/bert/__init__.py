"""BERT and RoBERTa: transformers of text that look both ways."""

from vitrail.models.bert.bert import BERT, SIZES, Config, initialise
from vitrail.models.bert.keys import LAYOUTS

__all__ = ["BERT", "LAYOUTS", "SIZES", "Config", "initialise"]
