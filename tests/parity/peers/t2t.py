"""The authors' code, github.com/yitu-opensource/T2T-ViT, cloned as T2T-ViT; it was written for timm 0.3."""

import sys
import types

from case import pth, repository


def authors():
    """Their module of models, with the names of timm where they look for them."""
    import timm.layers

    for name, module in {
        "helpers": types.SimpleNamespace(load_pretrained=None),
        "registry": types.SimpleNamespace(register_model=lambda function: function),
        "layers": timm.layers,
    }.items():
        sys.modules[f"timm.models.{name}"] = module
    return repository("T2T-ViT").import_module("models.t2t_vit")


def published(name, depth=None, **arguments):
    """One of their named networks; cut off after ``depth`` blocks, which keeps all else and makes it small."""

    def build():
        network = getattr(authors(), name)(num_classes=7, **arguments)
        network.blocks = network.blocks[:depth]
        return network

    return build


def ema(state):
    """As their training program writes it; the first set of weights is not the one to take."""
    return {
        "epoch": 309,
        "state_dict": {name: tensor * 0 for name, tensor in state.items()},
        "state_dict_ema": state,
    }


CASES = {
    "paper t2t-7": pth("paper", "t2t-7", published("t2t_vit_7"), wrap=ema),
    "paper t2t-10 at 96 pixels": pth(
        "paper", "t2t-10", published("t2t_vit_10", img_size=96), size=(96, 96), image_size=[96, 96]
    ),
    "paper t2t-12, grey": pth("paper", "t2t-12", published("t2t_vit_12", depth=2, in_chans=1), channels=1)._replace(
        changes={"channels": 1, "depth": 2}
    ),
}
for size in ("14", "19", "24", "t_14", "t_19", "t_24"):
    name = f"t2t-{size.replace('_', '-')}"
    CASES[f"paper {name}, 2 blocks"] = pth("paper", name, published(f"t2t_vit_{size}", depth=2), depth=2)
