"""The authors' code, github.com/facebookresearch/dinov3, cloned as dinov3, with a classifier to have logits."""

from functools import partial

from case import pth, repository, timm

TINY = {"embed_dim": 48, "depth": 2, "num_heads": 3}
SCALED = {**TINY, "init_values": 1.0}  # LayerScale at its start would hide what the attention does


def authors(**options):
    from torch import nn

    code = repository("dinov3", "dinov3").import_module("dinov3.models.vision_transformer")
    network = code.DinoVisionTransformer(
        **TINY,
        layerscale_init=1.0,
        norm_layer="layernormbf16",
        pos_embed_rope_dtype="fp32",
        n_storage_tokens=4,
        mask_k_bias=True,
        **options,
    )
    network.init_weights()
    for module in network.modules():  # these are computed, and must not be randomised
        for name in ("periods", "bias_mask"):
            if name in module._buffers:
                setattr(module, name, module._buffers.pop(name))
    network.head = nn.Linear(48, 7)
    return network


def as_saved(state):
    import torch

    masks = {f"{name}_mask": torch.ones_like(tensor) for name, tensor in state.items() if name.endswith("qkv.bias")}
    return {**state, **masks, "rope_embed.periods": torch.ones(4)}


def paper(size=(64, 64), options=None, **changes):
    shape = {"width": 48, "depth": 2, "heads": 3, "mlp": 192, "image_size": size}
    case = pth("paper", "dinov3", partial(authors, **(options or {})), wrap=as_saved, size=size)
    return case._replace(changes={**shape, **changes})


SEVEN = {"qkv_bias": False, "ffn_layer": "swiglu64", "ffn_ratio": 3, "untie_global_and_local_cls_norm": True}

CASES = {
    "timm s16": timm("vit_small_patch16_dinov3", size=(256, 256), depth=2, init_values=1.0),
    "timm s16 with biases, not square": timm("vit_small_patch16_dinov3_qkvb", size=(64, 96), **SCALED),
    "timm s16plus": timm("vit_small_plus_patch16_dinov3_qkvb", size=(96, 64), depth=2, init_values=1.0),
    "timm h16plus, 1 channel": timm("vit_huge_plus_patch16_dinov3", size=(64, 64), channels=1, mlp_ratio=3.3, **SCALED),
    "timm 7b16": timm("vit_7b_patch16_dinov3", size=(64, 64), **SCALED),
    "timm class token, 2 registers": timm(
        "vit_base_patch16_dinov3", size=(64, 48), global_pool="token", num_reg_tokens=2, patch_size=8, **SCALED
    ),
    "paper": paper(),
    "paper not square": paper((48, 128)),
    "paper s16plus": paper(options={"ffn_layer": "swiglu", "ffn_ratio": 6}, gated=True),
    "paper 7b16": paper((32, 64), SEVEN, gated=True, mlp=128, qv_bias=False),
}
