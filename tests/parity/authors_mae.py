"""Writes an MAE of the authors' code, and what it makes of random images with which patches hidden.

Run by an interpreter that has timm:  python authors_mae.py CLONE FOLDER SHAPE, the last as JSON. The code is older than
what it imports: NumPy has lost a name that it uses, and timm's block an argument.
"""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import timm.models.vision_transformer
import torch
from safetensors.torch import save_file
from torch import nn


@torch.no_grad()
def main(clone: str, folder: Path, shape: dict) -> None:
    np.float = float  # noqa: NPY001 - it is set, not used
    block = timm.models.vision_transformer.Block
    timm.models.vision_transformer.Block = lambda *args, qk_scale, **others: block(*args, **others)
    sys.path.insert(0, clone)
    import models_mae

    torch.manual_seed(0)
    network = models_mae.MaskedAutoencoderViT(**shape, norm_layer=partial(nn.LayerNorm, eps=1e-6)).eval()
    for name, parameter in network.named_parameters():
        if "pos_embed" not in name:  # which are fixed
            parameter.add_(torch.randn_like(parameter) * 0.05)
    images = torch.randn(3, shape.get("in_chans", 3), shape["img_size"], shape["img_size"])
    noise = torch.rand(3, network.patch_embed.num_patches)
    torch.rand, drawn = (lambda *size, device: noise), torch.rand
    loss, painted, hidden = network(images, mask_ratio=0.75)
    torch.rand = drawn
    torch.save({"model": network.state_dict()}, folder / "weights.pth")
    answers = {"images": images, "noise": noise, "painted": painted, "hidden": hidden, "loss": loss}
    save_file({name: value.contiguous() for name, value in answers.items()}, folder / "answers.safetensors")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))
