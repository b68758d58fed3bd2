import functools
import importlib.util
import sys

from case import clone, pth, transformers

SMALL = {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 2, 2, 1], "num_attention_heads": [1, 2, 4, 3]}
OURS = {"widths": [8, 12, 16, 24], "depths": [1, 2, 2, 1], "heads": [1, 2, 4, 3]}
PAPER = {"patch_size": 4, "embed_dims": [8, 12, 16, 24], "depths": [1, 2, 2, 1], "num_heads": [1, 2, 4, 3]}
RATIOS = {"mlp_ratios": [8, 8, 4, 4], "sr_ratios": [8, 4, 2, 1], "qkv_bias": True}


def authors(name):
    """A file of the authors' code, which has the name of one beside this, without its entries in timm's table."""
    from timm.models import registry

    path = clone("PVT") / "classification" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"authors_{name}", path)
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    entered, registry.register_model = registry.register_model, lambda build: build
    try:
        spec.loader.exec_module(module)
    finally:
        registry.register_model = entered
    return module


def norm():
    from torch import nn

    return functools.partial(nn.LayerNorm, eps=1e-6)


def small(side, **options):
    """The authors' class, which can be built for square images only."""

    def build():
        return authors("pvt").PyramidVisionTransformer(
            side, num_classes=7, norm_layer=norm(), **{**PAPER, **RATIOS, **options}
        )

    return pth(
        "paper", "pvt", build, wrap=lambda state: {"model": state}, size=(side, side), image_size=[side, side], **OURS
    )


CASES = {
    "paper pvt_tiny": pth("paper", "pvt-tiny", lambda: authors("pvt").pvt_tiny(num_classes=7)),
    "paper pvt_large": pth("paper", "pvt-large", lambda: authors("pvt").pvt_large(num_classes=7)),
    "paper small": small(64),
    "paper patches do not divide": small(75),
    "transformers tiny": transformers("PvtForImageClassification"),
    "transformers small": transformers("PvtForImageClassification", size=(64, 64), image_size=64, **SMALL),
    "transformers grey": transformers(
        "PvtForImageClassification", size=(75, 75), image_size=75, num_channels=1, layer_norm_eps=1e-3, **SMALL
    ),
}
