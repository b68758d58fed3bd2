"""Packed images of several sizes against Transformers' ViT, which is given one image at a time."""

from __future__ import annotations

import torch
from transformers import ViTConfig, ViTForImageClassification

from vitrail.data.preprocess import Preprocess
from vitrail.tasks import Classification
from vitrail.weights.load import load_pretrained

SIZES = [(24, 48), (32, 32), (8, 64), (40, 24)]


def task_of(folder) -> Classification:
    found = load_pretrained(folder)
    found.backbone.resampling = found.resampling
    task = Classification(found.model, found.backbone, found.classes, Preprocess((32, 32)))
    task.head.load_state_dict(found.head)
    return task.eval()


@torch.inference_mode()
def test_logits_of_several_sizes_at_once(tmp_path):
    torch.manual_seed(0)
    shape = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 80}
    peer = ViTForImageClassification(ViTConfig(**shape, patch_size=8, image_size=32, num_labels=5)).eval()
    for parameter in peer.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    peer.save_pretrained(tmp_path)
    images = [torch.randn(2, 3, *size) for size in SIZES]
    theirs = torch.cat([peer(each[None], interpolate_pos_encoding=True).logits for group in images for each in group])
    torch.testing.assert_close(task_of(tmp_path).packed(images), theirs, atol=1e-4, rtol=1e-5)
