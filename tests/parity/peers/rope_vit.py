"""The authors' code, github.com/naver-ai/rope-vit, cloned as rope-vit; built for squares, it runs on any."""

from functools import partial

from case import pth, repository, timm

TINY = {"embed_dim": 48, "depth": 2, "num_heads": 3}
SCALED = {**TINY, "init_values": 1.0}  # LayerScale at its start would hide what the attention does
COMPUTED = ("freqs_t_x", "freqs_t_y")  # buffers of the places, which must not be randomised


def authors(rotary, absolute, channels, size=64):
    from torch import nn

    code = repository("rope-vit", "deit").import_module("models.vit_rope")
    network = code.rope_vit_models(
        **TINY,
        init_scale=1.0,
        img_size=size,
        in_chans=channels,
        num_classes=7,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        block_layers=code.RoPE_Layer_scale_init_Block,
        Attention_block=code.RoPEAttention,
        rope_theta={"axial": 100.0, "mixed": 10.0}[rotary],
        rope_mixed=rotary == "mixed",
        use_ape=absolute,
    )
    network.patch_embed.strict_img_size = False
    if rotary == "mixed":
        for name in COMPUTED:
            setattr(network, name, network._buffers.pop(name))
    return network


def as_saved(state):
    import torch

    places = {name: torch.zeros(16) for name in COMPUTED if "freqs" in state}
    return {"model": {**state, **places}}


def paper(rotary, absolute=False, size=(64, 64), channels=3):
    shape = {"width": 48, "depth": 2, "heads": 3, "mlp": 192, "rotary": rotary, "absolute": absolute}
    build = partial(authors, rotary, absolute, channels)
    case = pth("paper", "rope-vit", build, wrap=as_saved, size=size, channels=channels)
    return case._replace(changes={**shape, "image_size": size, "channels": channels})


CASES = {
    "timm axial": timm("vit_small_patch16_rope_224", depth=2, init_values=1.0),
    "timm axial not square": timm("vit_base_patch16_rope_224", size=(96, 160), img_size=(96, 160), **SCALED),
    "timm axial ape": timm("vit_large_patch16_rope_ape_224", size=(80, 48), img_size=(80, 48), **SCALED),
    "timm mixed": timm("vit_base_patch16_rope_mixed_224", size=(64, 64), img_size=64, channels=1, **SCALED),
    "timm mixed not square": timm(
        "vit_small_patch16_rope_mixed_224", size=(48, 128), img_size=(48, 128), depth=2, init_values=1.0
    ),
    "timm mixed ape": timm(
        "vit_base_patch16_rope_mixed_ape_224", size=(64, 40), img_size=(64, 40), patch_size=8, mlp_ratio=2.5, **SCALED
    ),
    "paper axial": paper("axial"),
    "paper axial ape": paper("axial", absolute=True),
    "paper axial not square": paper("axial", size=(48, 96)),
    "paper mixed": paper("mixed", channels=1),
    "paper mixed ape": paper("mixed", absolute=True),
    "paper mixed not square": paper("mixed", size=(128, 48)),
}
