from functools import partial

from case import pth, repository, timm, transformers

TINY = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}
SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "patch_size": 8,
}
OURS = {"width": 24, "depth": 2, "heads": 3, "mlp": 96, "patch_size": 8, "image_size": (32, 48)}


SHAPE = {"img_size": (32, 48), "num_classes": 7, "mlp_ratio": 4, "qkv_bias": True, **TINY}


def distilled():
    """The distilled DeiT as its authors wrote it, upon timm's ViT."""
    from torch import nn

    code = repository("deit").import_module("models")
    return code.DistilledVisionTransformer(**SHAPE, norm_layer=partial(nn.LayerNorm, eps=1e-6))


def third():
    """DeiT III as its authors wrote it."""
    from torch import nn

    code = repository("deit").import_module("models_v2")
    norm = partial(nn.LayerNorm, eps=1e-6)
    return code.vit_models(**SHAPE, norm_layer=norm, block_layers=code.Layer_scale_init_Block)


def in_model(state):
    return {"model": state}


CASES = {
    "timm deit": timm("deit_small_patch16_224", img_size=(32, 48), size=(32, 48), **TINY),
    "timm deit, 1 channel": timm("deit_tiny_patch16_224", img_size=32, size=(32, 32), channels=1, **TINY),
    "timm deit distilled": timm("deit_tiny_distilled_patch16_224", img_size=(48, 32), size=(48, 32), **TINY),
    "timm deit_tiny as published": timm("deit_tiny_patch16_224"),
    "timm deit_tiny_distilled as published": timm("deit_tiny_distilled_patch16_224"),
    "timm deit_base_distilled at 384": timm("deit_base_distilled_patch16_384", size=(384, 384)),
    "timm deit3": timm("deit3_base_patch16_224", img_size=(32, 48), size=(32, 48), mlp_ratio=3, **TINY),
    "timm deit3_small as published": timm("deit3_small_patch16_224"),
    "transformers": transformers("DeiTForImageClassification", size=(32, 48), image_size=[32, 48], **SMALL),
    "transformers, two classifiers": transformers(
        "DeiTForImageClassificationWithTeacher", size=(48, 32), image_size=[48, 32], layer_norm_eps=1e-6, **SMALL
    ),
    "paper, distilled": pth("paper", "deit-ti16-distilled", distilled, wrap=in_model, size=(32, 48), **OURS),
    "paper, DeiT III": pth("paper", "deit3-s16", third, wrap=in_model, size=(32, 48), **OURS),
}
