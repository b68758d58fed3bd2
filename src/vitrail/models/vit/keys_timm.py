"""ViT in timm, and in the authors' own files that have the names which timm took over: MAE, DINO, DINOv2."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from vitrail.errors import CheckpointError, SettingError
from vitrail.models.layout import Described, Row, timm_input
from vitrail.models.vit.named import described
from vitrail.models.vit.vit import SIZES, Config

DINOV2 = {"patch_size": 14, "init_values": 1e-5}
REGISTERS = {"reg_tokens": 4, "no_embed_class": True}
TIPS = {**DINOV2, "reg_tokens": 1, "no_embed_class": True}
MAP = {"global_pool": "map", "class_token": False}
GAP = {"global_pool": "avg", "class_token": False, "fc_norm": False}
SEARCHED = {"init_values": 1e-6, "qkv_bias": False, **GAP}
REGISTERED = {"class_token": False, "no_embed_class": True, "global_pool": "avg", "init_values": 1e-5}
MEDIUM = {"embed_dim": 512, "num_heads": 8}
BETWIXT = {"embed_dim": 640, "num_heads": 10}
LITTLE = {"embed_dim": 320, "depth": 14, "num_heads": 5, "mlp_ratio": 5.6}
WEE = {"embed_dim": 256, "depth": 14, "num_heads": 4, "mlp_ratio": 5}
SO400M = {"embed_dim": 1152, "depth": 27, "num_heads": 16, "mlp_ratio": 3.7362}
GIANT_OPT = {"embed_dim": 1536, "depth": 40, "num_heads": 16, "mlp_ratio": 4}
TANH = {"act_layer": "gelu_tanh"}

# timm's architectures, mostly without the image size that their names end in: our size, and the arguments of timm's
# VisionTransformer that make the difference. The first architecture of a size is the one to write.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit_tiny_patch16": ("vit-ti16", {}),
    "vit_small_patch32": ("vit-s32", {}),
    "vit_small_patch16": ("vit-s16", {}),
    "vit_small_patch8": ("vit-s8", {}),
    "vit_base_patch16": ("vit-b16", {}),
    "vit_base_patch32": ("vit-b32", {}),
    "vit_base_patch8": ("vit-b8", {}),
    "vit_base_patch16_224_miil": ("vit-b16", {"qkv_bias": False}),
    "vit_large_patch32": ("vit-l32", {}),
    "vit_large_patch16": ("vit-l16", {}),
    "vit_large_patch14": ("vit-l16", {"patch_size": 14}),
    "vit_huge_patch14": ("vit-h14", {}),
    "vit_giant_patch14": ("vit-giant14", {}),
    "vit_gigantic_patch14": ("vit-gigantic14", {}),
    "vit_tiny_r_s16_p8": ("vit-r-ti16", {}),
    "vit_small_r26_s32": ("vit-r26-s32", {}),
    "vit_base_r26_s32": ("vit-r26-s32", {"embed_dim": 768, "num_heads": 12}),
    "vit_base_r50_s16": ("vit-r50-b16", {}),
    "vit_large_r50_s32": ("vit-r50-l32", {}),
    "vit_small_patch14_dinov2": ("vit-s16", DINOV2),
    "vit_base_patch14_dinov2": ("vit-b16", DINOV2),
    "vit_large_patch14_dinov2": ("vit-l16", DINOV2),
    "vit_small_patch14_reg4_dinov2": ("vit-s16", {**DINOV2, **REGISTERS}),
    "vit_base_patch14_reg4_dinov2": ("vit-b16", {**DINOV2, **REGISTERS}),
    "vit_large_patch14_reg4_dinov2": ("vit-l16", {**DINOV2, **REGISTERS}),
    "vit_base_patch14_reg1_tipsv2": ("vit-b16", TIPS),
    "vit_large_patch14_reg1_tipsv2": ("vit-l16", TIPS),
    "vit_so400m_patch14_reg1_tipsv2": ("vit-b16", {**SO400M, **TIPS}),
    "vit_base_patch32_siglip": ("vit-b32", {**MAP, **TANH}),
    "vit_base_patch16_siglip": ("vit-b16", MAP),
    "vit_large_patch16_siglip": ("vit-l16", MAP),
    "vit_large_patch16_siglip_512": ("vit-l16", {**MAP, **TANH}),
    "vit_so400m_patch14_siglip": ("vit-b16", {**SO400M, "patch_size": 14, **MAP}),
    "vit_so400m_patch16_siglip": ("vit-b16", {**SO400M, **MAP, **TANH}),
    "vit_giantopt_patch16_siglip": ("vit-b16", {**GIANT_OPT, **MAP, **TANH}),
    "vit_base_patch32_siglip_gap": ("vit-b32", {**GAP, **TANH}),
    "vit_base_patch16_siglip_gap": ("vit-b16", GAP),
    "vit_large_patch16_siglip_gap": ("vit-l16", GAP),
    "vit_large_patch16_siglip_gap_512": ("vit-l16", {**GAP, **TANH}),
    "vit_so400m_patch14_siglip_gap": ("vit-b16", {**SO400M, "patch_size": 14, **GAP}),
    "vit_so400m_patch16_siglip_gap": ("vit-b16", {**SO400M, **GAP, **TANH}),
    "vit_giantopt_patch16_siglip_gap": ("vit-b16", {**GIANT_OPT, **GAP, **TANH}),
    "vit_base_patch16_gap": ("vit-b16", {"num_heads": 16, **GAP}),
    "vit_huge_patch14_gap": ("vit-h14", GAP),
    "vit_huge_patch16_gap": ("vit-h14", {"patch_size": 16, **GAP}),
    "vit_giant_patch16_gap": ("vit-giant14", {"patch_size": 16, **GAP}),
    "vit_medium_patch16_gap": ("vit-b16", {**MEDIUM, **SEARCHED}),
    "vit_betwixt_patch16_gap": ("vit-b16", {**BETWIXT, **SEARCHED}),
    "vit_wee_patch16_reg1_gap": ("vit-b16", {**WEE, **REGISTERED, "reg_tokens": 1}),
    "vit_little_patch16_reg1_gap": ("vit-b16", {**LITTLE, **REGISTERED, "reg_tokens": 1}),
    "vit_little_patch16_reg4_gap": ("vit-b16", {**LITTLE, **REGISTERED, "reg_tokens": 4}),
    "vit_medium_patch16_reg1_gap": ("vit-b16", {**MEDIUM, **REGISTERED, "reg_tokens": 1}),
    "vit_medium_patch16_reg4_gap": ("vit-b16", {**MEDIUM, **REGISTERED, "reg_tokens": 4}),
    "vit_mediumd_patch16_reg4_gap": ("vit-b16", {**MEDIUM, "depth": 20, **REGISTERED, "reg_tokens": 4}),
    "vit_betwixt_patch16_reg1_gap": ("vit-b16", {**BETWIXT, **REGISTERED, "reg_tokens": 1}),
    "vit_betwixt_patch16_reg4_gap": ("vit-b16", {**BETWIXT, **REGISTERED, "reg_tokens": 4}),
    "vit_base_patch16_reg4_gap": ("vit-b16", {**REGISTERED, "reg_tokens": 4, "init_values": None}),
    "eva_large_patch14": ("vit-l16", {"patch_size": 14, "global_pool": "avg"}),
    "flexivit_small": ("vit-s16", {"no_embed_class": True}),
    "flexivit_base": ("vit-b16", {"no_embed_class": True}),
    "flexivit_large": ("vit-l16", {"no_embed_class": True}),
    "test_vit": ("vit-b16", {"embed_dim": 64, "depth": 6, "num_heads": 2, "mlp_ratio": 3}),
}

# Arguments that mean just what a setting of ours does, and those that are for training or change nothing.
SAME = {
    "embed_dim": "width",
    "depth": "depth",
    "num_heads": "heads",
    "init_values": "layer_scale",
    "qkv_bias": "qkv_bias",
    "reg_tokens": "registers",
    "act_layer": "activation",
}
TRANSLATED = {"patch_size", "mlp_ratio", "global_pool", "class_token", "no_embed_class", "fc_norm"}
HARMLESS = {"img_size", "in_chans", "num_classes", "weight_init", "fix_init", "drop_rate", "pos_drop_rate"}
HARMLESS |= {"patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate", "dynamic_img_size"}
POOLS: dict[str, Any] = {"token": "class", "avg": "mean", "map": "map"}


def timm_rows(config: Config) -> Sequence[Row]:
    """timm's names; its ``fc_norm`` is the final norm where that is on the pooled vector."""
    root = "patch_embed.backbone.stem" if config.resnet_stages else "patch_embed.backbone"
    unit, block = "patch_embed.backbone.stages.{}.blocks.{}", "patch_embedding.stages.{}.{}"
    return [
        Row("cls_token", "class_token"),
        Row("reg_token", "registers"),
        Row("pos_embed", "positions"),
        Row(root, "patch_embedding.root"),
        *(Row(f"{unit}.conv{n}", f"{block}.conv{n}.conv") for n in (1, 2, 3)),
        *(Row(f"{unit}.norm{n}", f"{block}.conv{n}.norm") for n in (1, 2, 3)),
        Row(f"{unit}.downsample", f"{block}.shortcut"),
        Row("patch_embed.proj", "patch_embedding.proj"),
        Row("blocks.{}.norm1", "blocks.{}.norm1"),
        Row("blocks.{}.attn", "blocks.{}.attention"),
        Row("blocks.{}.ls1", "blocks.{}.scale1"),
        Row("blocks.{}.norm2", "blocks.{}.norm2"),
        Row("blocks.{}.mlp", "blocks.{}.mlp"),
        Row("blocks.{}.ls2", "blocks.{}.scale2"),
        Row("fc_norm" if config.norm == "pooled" else "norm", "norm"),
        Row("attn_pool.latent", "attention_pool.probe"),
        Row("attn_pool", "attention_pool"),
        Row("head", "head.linear"),
    ]


def dino_rows(config: Config) -> Sequence[Row]:
    """DINO's and DINOv2's own names: timm's but for the registers."""
    return [Row("register_tokens", "registers"), *timm_rows(config)]


def read_timm(config: Mapping[str, Any]) -> Described | None:
    """A ViT of timm. Raises `CheckpointError` for one that was built with what ours does not have."""
    architecture = str(config.get("architecture", ""))
    name, arguments = ARCHITECTURES.get(architecture) or ARCHITECTURES.get(re.sub(r"_\d+$", "", architecture), ("", {}))
    if not name:
        return None
    arguments = {**arguments, **(config.get("model_args") or {})}
    if strange := sorted(arguments.keys() - SAME.keys() - TRANSLATED - HARMLESS):
        raise CheckpointError(f"this {architecture} has {', '.join(strange)}, which Vitrail's ViT has not.")
    ours = translated(SIZES[name], arguments)
    stated = timm_input(config)
    stated["image_size"] = tuple(n // ours.patch_size * ours.patch_size for n in stated["image_size"])  # 384 by 14
    return described(replace(ours, **stated))


def translated(size: Config, arguments: Mapping[str, Any]) -> Config:
    """A size of ours, changed as the arguments of timm's VisionTransformer say."""
    same = {ours: arguments[theirs] for theirs, ours in SAME.items() if theirs in arguments}
    pool = arguments.get("global_pool", "token")
    class_token, no_position = arguments.get("class_token", True), arguments.get("no_embed_class", False)
    if pool not in POOLS:
        raise CheckpointError(f"this ViT pools by '{pool}', which Vitrail's does not.")
    if same.get("registers") and not no_position:
        raise CheckpointError("this ViT has positions on its registers, which Vitrail's have not.")
    fc_norm = arguments.get("fc_norm")
    width = same.get("width", size.width)
    return replace(
        size,
        **same,
        mlp=int(width * arguments.get("mlp_ratio", size.mlp / size.width)),
        patch_size=arguments["patch_size"] * reduction(size) if "patch_size" in arguments else size.patch_size,
        pool=POOLS[pool],
        class_token=class_token and pool != "token",
        class_position=not (class_token and no_position),
        norm="pooled" if (pool == "avg" if fc_norm is None else fc_norm) else "tokens",
    )


def write_timm(config: Config) -> dict[str, Any]:
    """``config.json`` for `timm.create_model`. Raises `SettingError` for what timm's ViT cannot be."""
    class_token = config.class_token or config.pool == "class"
    for true, what in (
        (config.stem == "conv", "convolutional stem"),
        (config.position != "learned", f"{config.position} positions"),
        (config.pool == "class-mean", "pooling of class token and mean"),
        (config.registers and class_token and config.class_position, "registers beside a class token with a position"),
        (config.representation, "representation layer"),
        (config.head_width, "setting for the width of a head"),
        (config.parallel or config.qk_norm or not config.norm_bias, "blocks as those of ViT-22B"),
        (config.norm_eps > 1e-6, f"epsilon of {config.norm_eps:g}"),  # a smaller one than its 1e-6 is not to be seen
    ):
        if true:
            raise SettingError(f"timm's ViT has no {what}, so this model cannot be written for it.")
    pool = next(theirs for theirs, ours in POOLS.items() if ours == config.pool)
    return {
        "architecture": _architecture(config),
        "num_features": config.width,
        "global_pool": pool,
        "model_args": {
            "img_size": list(config.image_size),
            "in_chans": config.channels,
            **{theirs: getattr(config, ours) for theirs, ours in SAME.items()},
            "mlp_ratio": (config.mlp + 0.5) / config.width,  # of which timm takes the whole units
            "patch_size": config.patch_size // reduction(config),
            "global_pool": pool,
            "class_token": class_token,
            "no_embed_class": bool(config.registers) or not config.class_position,
            "fc_norm": config.norm == "pooled",
        },
    }


def reduction(config: Config) -> int:
    """By how much a hybrid's ResNet reduces the resolution before timm counts the pixels of a patch; 1 without one."""
    return 4 * 2 ** max(len(config.resnet_stages) - 1, 0) if config.stem == "resnet" else 1


def _architecture(config: Config) -> str:
    """An architecture of timm that the arguments make this one: of the same size, or at least with the same ResNet."""
    of_size = {name: f"{architecture}_224" for architecture, (name, _) in reversed(ARCHITECTURES.items())}
    if (name := described(config).model) in of_size:
        return of_size[name]
    for name, architecture in of_size.items():
        if (SIZES[name].stem, SIZES[name].resnet_stages) == (config.stem, config.resnet_stages):
            return architecture
    raise SettingError(f"timm has no hybrid with the ResNet stages {config.resnet_stages}.")
