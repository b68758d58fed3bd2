"""Vision transformers of timm, Transformers, torchvision, of the papers' code, and of files with Google's names.

Clones: `mae`, `dino` and `dinov2` of facebookresearch, and `vit-pytorch` of lucidrains at v0.35.8, which needs einops.
"""

import importlib
from functools import partial

from case import Case, pth, repository, timm, transformers

SIZE = (64, 32)
NARROW = {"embed_dim": 48, "depth": 2, "num_heads": 3}
SHAPE = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
VIT_SHAPE = {**SHAPE, "intermediate_size": 96, "image_size": [64, 32], "size": SIZE}
DINOV2_SHAPE = {**SHAPE, "mlp_ratio": 2, "patch_size": 8, "image_size": 32, "size": (32, 32)}
OURS = {"width": 48, "depth": 2, "heads": 3, "mlp": 192, "image_size": (32, 32)}


def narrow(architecture, size=SIZE, **arguments):
    return timm(architecture, size=size, img_size=size, **{**NARROW, **arguments})


def in_memory(layout, kind, size, **config):
    """A network of Transformers in a file with the names that its version 5 uses in memory."""

    def build():
        import transformers

        cls = getattr(transformers, kind)
        return cls(cls.config_class(num_labels=7, hidden_act="gelu", **config))

    return partial(pth, layout, "vit", build, size=size)


def torchvision():
    import torchvision

    return torchvision.models.VisionTransformer(32, 16, 2, 3, 48, 192, num_classes=7)


def as_published(state):
    """torchvision's files call the MLP's layers by older names than its code."""
    return {name.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): x for name, x in state.items()}


def mae(global_pool):
    """The authors' class was written for timm 0.3.2, where ``forward_features`` did all that precedes the head."""
    from torch import nn

    cls = repository("mae").import_module("models_vit").VisionTransformer
    network = cls(global_pool, **NARROW, img_size=32, num_classes=7, norm_layer=partial(nn.LayerNorm, eps=1e-6))
    network.forward = lambda images: network.head(network.forward_features(images))
    return network


def with_decoder(state):
    """As pre-training leaves it: the decoder is in the file, too."""
    return {"model": {**state, "mask_token": state["cls_token"], "decoder_norm.bias": state["head.bias"]}}


def dino():
    from torch import nn

    cls = repository("dino").import_module("vision_transformer").VisionTransformer
    network = cls([32], 8, 3, 7, **NARROW, qkv_bias=True, norm_layer=partial(nn.LayerNorm, eps=1e-6))
    network.register_forward_hook(lambda self, images, pooled: self.head(pooled))
    return network


def dinov2(registers):
    from torch import nn

    cls = repository("dinov2").import_module("dinov2.models.vision_transformer").DinoVisionTransformer
    layers = importlib.import_module("dinov2.layers")
    block = partial(layers.NestedTensorBlock, attn_class=layers.Attention)
    options = {"init_values": 1e-5, "block_chunks": 0, "block_fn": block, "num_register_tokens": registers}
    network = cls(32, 8, **NARROW, **options)
    network.head = nn.Linear(48, 7)
    return network


def vit_pytorch():
    cls = repository("vit-pytorch").import_module("vit_pytorch.vit").ViT
    shape = {"image_size": 32, "patch_size": 8, "dim": 48, "depth": 2, "heads": 3, "dim_head": 24, "mlp_dim": 192}
    return cls(**shape, num_classes=7)


def google(layout, names, architecture, model, size=(32, 32), changes=(), stacked=False, **arguments):
    """A network of timm that has read random weights under Google's names: timm's reader of them is the peer."""

    def save(folder):
        import numpy as np
        import timm
        import torch

        network = timm.create_model(architecture, num_classes=7, img_size=size, **{**NARROW, **arguments})
        shapes = names(network)
        scale = {name: 1.0 if name.endswith("scale") else 0.0 for name in shapes}
        arrays = {name: (scale[name] + 0.05 * torch.randn(shape)).numpy() for name, shape in shapes.items()}
        np.savez(f"{folder}/weights.npz", **(with_stacked_blocks(arrays) if stacked else arrays))
        network.load_pretrained(f"{folder}/weights.npz")
        return network.eval()

    # timm's GELU is the exact one, whoever trained the weights
    return Case(save, layout, model, {**dict(changes), "activation": "gelu"}, size)


def with_stacked_blocks(arrays):
    """One array for all blocks, as big_vision has them when it scans over the blocks."""
    import numpy as np

    first = "Transformer/encoderblock_{}/"
    rests = [name.removeprefix(first.format(0)) for name in arrays if name.startswith(first.format(0))]
    others = {name: x for name, x in arrays.items() if "encoderblock_" not in name}
    blocks = {rest: [arrays[first.format(i) + rest] for i in range(NARROW["depth"])] for rest in rests}
    return others | {f"Transformer/encoderblock/{rest}": np.stack(each) for rest, each in blocks.items()}


def norm(name, width):
    return {f"{name}/scale": (width,), f"{name}/bias": (width,)}


def dense(name, inputs, outputs):
    return {f"{name}/kernel": (inputs, outputs), f"{name}/bias": (outputs,)}


def attention(name, width, heads):
    shapes = {f"{name}/out/kernel": (heads, width // heads, width), f"{name}/out/bias": (width,)}
    for part in ("query", "key", "value"):
        shapes |= {f"{name}/{part}/kernel": (width, heads, width // heads)}
        shapes |= {f"{name}/{part}/bias": (heads, width // heads)}
    return shapes


def encoder(network, number):
    """Names and shapes of all but the tokens; the two programs number the layers of a block in different ways."""
    width, heads = network.embed_dim, network.blocks[0].attn.num_heads
    second_norm, self_attention, mlp = number
    inputs, side, _ = network.patch_embed.proj.weight.shape[1:]
    shapes = {"embedding/kernel": (side, side, inputs, width), "embedding/bias": (width,)}
    shapes |= norm("Transformer/encoder_norm", width) | dense("head", width, 7)
    for i in range(len(network.blocks)):
        block = f"Transformer/encoderblock_{i}"
        shapes |= norm(f"{block}/LayerNorm_0", width) | norm(f"{block}/LayerNorm_{second_norm}", width)
        shapes |= attention(f"{block}/MultiHeadDotProductAttention_{self_attention}", width, heads)
        shapes |= dense(f"{block}/MlpBlock_{mlp}/Dense_0", width, 4 * width)
        shapes |= dense(f"{block}/MlpBlock_{mlp}/Dense_1", 4 * width, width)
    return shapes


def vit_jax(network):
    positions = {"Transformer/posembed_input/pos_embedding": network.pos_embed.shape}
    return {**encoder(network, (2, 1, 3)), **positions, "cls": (1, 1, network.embed_dim)}


def hybrid(network):
    shapes = {**vit_jax(network), "conv_root/kernel": (7, 7, 3, 64)}
    shapes |= {f"gn_root/{x}": (1, 1, 1, 64) for x in ("scale", "bias")}  # with the axes that old files have
    for s, stage in enumerate(network.patch_embed.backbone.stages):
        for u, unit in enumerate(stage.blocks):
            layers = {"1": unit.conv1, "2": unit.conv2, "3": unit.conv3}
            layers |= {"_proj": unit.downsample.conv} if unit.downsample is not None else {}
            for number, conv in layers.items():
                outputs, inputs, side, _ = conv.weight.shape
                shapes[f"block{s + 1}/unit{u + 1}/conv{number}/kernel"] = (side, side, inputs, outputs)
                shapes |= norm(f"block{s + 1}/unit{u + 1}/gn{number}", outputs)
    return shapes


def big_vision(network):
    width, shapes = network.embed_dim, {**encoder(network, (1, 0, 0)), "pos_embedding": network.pos_embed.shape}
    if network.attn_pool is None:
        return {**shapes, "cls": (1, 1, width)}
    shapes |= {"MAPHead_0/probe": (1, 1, width), **norm("MAPHead_0/LayerNorm_0", width)}
    shapes |= attention("MAPHead_0/MultiHeadDotProductAttention_0", width, network.attn_pool.num_heads)
    shapes |= dense("MAPHead_0/MlpBlock_0/Dense_0", width, 4 * width)
    return shapes | dense("MAPHead_0/MlpBlock_0/Dense_1", 4 * width, width)


PATCH_8 = {**OURS, "patch_size": 8}
SCALED = {**PATCH_8, "layer_scale": 1e-5}
R50 = {**OURS, "image_size": (64, 32), "stem": "resnet", "resnet_stages": (3, 4, 9)}

CASES = {
    "timm plain": narrow("vit_base_patch16_224"),
    "timm other patch and channels": narrow("vit_small_patch16_224", patch_size=8, channels=4),
    "timm miil": narrow("vit_base_patch16_224_miil"),
    "timm mean beside a class token": narrow("vit_large_patch16_224", global_pool="avg"),
    "timm dinov2": narrow("vit_small_patch14_dinov2", size=(56, 28)),
    "timm dinov2 with registers": narrow("vit_small_patch14_reg4_dinov2", size=(56, 28)),
    "timm siglip": narrow("vit_base_patch16_siglip_224"),
    "timm siglip with tanh": narrow("vit_so400m_patch16_siglip_256"),
    "timm siglip gap": narrow("vit_base_patch16_siglip_gap_224"),
    "timm gap": narrow("vit_medium_patch16_gap_240"),
    "timm registers and gap": narrow("vit_medium_patch16_reg4_gap_256"),
    "timm flexivit": narrow("flexivit_small"),
    "timm test_vit": timm("test_vit", size=(160, 160)),
    "timm R+Ti": narrow("vit_tiny_r_s16_p8_224", size=(96, 64)),
    "timm R26": narrow("vit_small_r26_s32_224", size=(96, 64)),
    "timm R50": narrow("vit_base_r50_s16_384", size=(96, 64)),
    "transformers": transformers("ViTForImageClassification", **VIT_SHAPE),
    "transformers tanh": transformers(
        "ViTForImageClassification", **VIT_SHAPE, hidden_act="gelu_pytorch_tanh", qkv_bias=False
    ),
    "transformers dinov2": transformers("Dinov2ForImageClassification", **DINOV2_SHAPE),
    "transformers dinov2 with registers": transformers("Dinov2WithRegistersForImageClassification", **DINOV2_SHAPE),
    "transformers-5": in_memory(
        "transformers-5", "ViTForImageClassification", (32, 32), **SHAPE, intermediate_size=192, image_size=32
    )(**OURS, norm_eps=1e-12),
    "transformers-5 dinov2": in_memory(
        "transformers-5-dinov2", "Dinov2ForImageClassification", (32, 32), **SHAPE, patch_size=8, image_size=32
    )(**SCALED, pool="class-mean"),
    "torchvision": pth("torchvision", "vit", torchvision, size=(32, 32), **OURS),
    "torchvision as published": pth("torchvision", "vit", torchvision, wrap=as_published, size=(32, 32), **OURS),
    "MAE": pth("paper", "vit", lambda: mae(False), wrap=with_decoder, size=(32, 32), **OURS),
    "MAE fine-tuned": pth(
        "paper", "vit", lambda: mae(True), size=(32, 32), **OURS, pool="mean", class_token=True, norm="pooled"
    ),
    "DINO": pth("dino", "vit", dino, size=(32, 32), **PATCH_8),
    "DINOv2": pth("dino", "vit", lambda: dinov2(0), size=(32, 32), **SCALED),
    "DINOv2 with registers": pth("dino-registers", "vit", lambda: dinov2(4), size=(32, 32), **SCALED, registers=4),
    "vit-pytorch": pth(
        "vit-pytorch", "vit", vit_pytorch, size=(32, 32), **PATCH_8, head_width=24, qkv_bias=False, norm_eps=1e-5
    ),
    "google": google("google", vit_jax, "vit_base_patch16_224", "vit", changes=OURS),
    "google hybrid": google("google", hybrid, "vit_base_r50_s16_224", "vit", size=(64, 32), changes=R50),
    "big_vision": google("big_vision", big_vision, "flexivit_small", "vit", changes=OURS),
    "big_vision stacked": google(
        "big_vision", big_vision, "vit_base_patch16_siglip_224", "vit", stacked=True, changes={**OURS, "pool": "map"}
    ),
}
