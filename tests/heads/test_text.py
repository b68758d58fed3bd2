"""The heads of text against the same few operations by hand."""

from __future__ import annotations

import torch

from vitrail import models
from vitrail.heads.text import PooledHead, TokenHead

TINY = {"width": 8, "depth": 1, "heads": 2, "mlp": 8, "vocabulary": 11, "context": 8}
IDS = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])


def test_a_pooled_head_is_linear_in_what_a_bert_pools() -> None:
    backbone = models.create_text("bert-base", **TINY).eval()
    head = PooledHead(backbone, 3).eval()
    features = backbone(IDS)
    assert head.hidden is None
    torch.testing.assert_close(head(features), features.pooled @ head.linear.weight.T + head.linear.bias)


def test_it_brings_the_layer_that_a_roberta_leaves_out() -> None:
    backbone = models.create_text("roberta-base", **TINY).eval()
    head = PooledHead(backbone, 3).eval()
    features = backbone(IDS)
    hidden = (features.tokens[:, 0] @ head.hidden.weight.T + head.hidden.bias).tanh()
    torch.testing.assert_close(head(features), hidden @ head.linear.weight.T + head.linear.bias)


def test_a_gpt_is_asked_after_its_last_token() -> None:
    backbone = models.create_text("gpt-nano", **TINY).eval()
    head = PooledHead(backbone, 3).eval()
    longer = torch.cat([IDS, torch.zeros(2, 2, dtype=torch.int64)], dim=1)
    mask = torch.tensor([[True] * 4 + [False] * 2] * 2)
    torch.testing.assert_close(head(backbone(IDS)), head(backbone(longer, mask=mask)))


def test_a_token_head_is_linear_in_each_token() -> None:
    backbone = models.create_text("bert-base", **TINY).eval()
    head = TokenHead(8, 5).eval()
    features = backbone(IDS)
    assert head(features).shape == (2, 4, 5)
    torch.testing.assert_close(head(features)[1, 2], features.tokens[1, 2] @ head.linear.weight.T + head.linear.bias)


def test_heads_drop_in_training_only() -> None:
    torch.manual_seed(0)
    backbone = models.create_text("bert-base", **TINY).eval()
    features = backbone(IDS)
    for head in (PooledHead(backbone, 3), TokenHead(8, 5)):
        assert not torch.equal(head(features), head(features))
        head.eval()
        assert torch.equal(head(features), head(features))
