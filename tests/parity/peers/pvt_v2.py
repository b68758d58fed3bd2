import functools

from case import pth, timm, transformers
from pvt import PAPER, RATIOS, authors, norm

OURS = {"widths": [8, 12, 16, 24], "depths": [1, 2, 2, 1], "heads": [1, 2, 4, 3]}
tiny = functools.partial(
    transformers,
    "PvtV2ForImageClassification",
    hidden_sizes=[8, 12, 16, 24],
    depths=[1, 2, 2, 1],
    num_attention_heads=[1, 2, 4, 3],
)


def small(size, **options):
    """The authors' class; it reads images of any size."""

    def build():
        return authors("pvt_v2").PyramidVisionTransformerV2(
            num_classes=7, norm_layer=norm(), **PAPER, **RATIOS, **options
        )

    return pth(
        "paper",
        "pvt-v2",
        build,
        wrap=lambda state: {"model": state},
        size=size,
        image_size=list(size),
        **OURS,
        **options,
    )


CASES = {
    "timm b0": timm("pvt_v2_b0"),
    "timm b0 at 75x130": timm("pvt_v2_b0", size=(75, 130)),
    "timm b2_li": timm("pvt_v2_b2_li", size=(75, 130)),
    "timm b5": timm("pvt_v2_b5", size=(64, 64)),
    "timm of another shape": timm(
        "pvt_v2_b1",
        size=(64, 96),
        channels=1,
        embed_dims=(8, 12, 16),
        depths=(1, 2, 1),
        num_heads=2,
        mlp_ratios=3,
        sr_ratios=(4, 2, 1),
        qkv_bias=False,
    ),
    "transformers b0": transformers("PvtV2ForImageClassification", size=(64, 96)),
    "transformers small": tiny(size=(75, 130), num_channels=1, layer_norm_eps=1e-3),
    "transformers linear": tiny(size=(75, 130), linear_attention=True),
    "paper b0": pth("paper", "pvt-v2-b0", lambda: authors("pvt_v2").pvt_v2_b0(num_classes=7), size=(96, 64)),
    "paper b2_li": pth("paper", "pvt-v2-b2-li", lambda: authors("pvt_v2").pvt_v2_b2_li(num_classes=7), size=(96, 64)),
    "paper small": small((75, 130)),
    "paper linear": small((75, 130), linear=True),
}
