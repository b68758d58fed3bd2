"""MAE with its decoder in other libraries' files: the authors' own, and Transformers' ViTMAEForPreTraining."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from vitrail.models.layout import IMAGENET, Described, Layout, Row
from vitrail.models.vit.keys_google import PREPROCESS
from vitrail.models.vit.keys_timm import timm_rows
from vitrail.models.vit.keys_transformers import block_5_rows, block_rows, read_vit, vit_5_rows, vit_rows
from vitrail.models.vit.vit import Config

Rows = Callable[[Config], Sequence[Row]]

OPTIONS = {  # of Transformers' config, with its defaults
    "mask_ratio": ("mask_ratio", 0.75),
    "norm_pix_loss": ("normalise_patches", False),
    "decoder_hidden_size": ("decoder_width", 512),
    "decoder_num_hidden_layers": ("decoder_depth", 8),
    "decoder_num_attention_heads": ("decoder_heads", 16),
    "decoder_intermediate_size": ("decoder_mlp", 2048),
}


def mae_rows(config: Config) -> Sequence[Row]:
    """The authors' names, whose blocks are timm's in encoder and decoder."""
    layer = "decoder_blocks.{}"
    return [
        *timm_rows(config),
        *_around_the_blocks(""),
        *(Row(f"{layer}.{part}", f"{layer}.{part}") for part in ("norm1", "norm2", "mlp")),
        Row(f"{layer}.attn", f"{layer}.attention"),
    ]


def transformers_rows(config: Config) -> Sequence[Row]:
    """The names in files, of version 5, too."""
    return _transformers_rows(vit_rows(config), block_rows)


def transformers_5_rows(config: Config) -> Sequence[Row]:
    """The names that version 5 uses in memory."""
    return _transformers_rows(vit_5_rows(config), block_5_rows)


def prepare_transformers(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Version 5 (5.23, at least) writes the decoder's blocks under another name than the files before it have."""
    written, usual = "decoder.decoder_encoder.layer.", "decoder.decoder_layers."
    return {name.replace(written, usual): tensor for name, tensor in tensors.items()}


def read_transformers(config: Mapping[str, Any]) -> Described | None:
    """A ViTMAE with its decoder; None for the encoder alone, which is a backbone like others."""
    if "ViTMAEForPreTraining" not in (config.get("architectures") or ()):
        return None
    encoder = read_vit(config)
    if encoder is None:
        return None
    options = {ours: config.get(theirs, default) for theirs, (ours, default) in OPTIONS.items()}
    return encoder._replace(options=options)


def _transformers_rows(encoder: Sequence[Row], rows_of_block: Callable[[str, str], list[Row]]) -> list[Row]:
    def below(name: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return f"vit.{name}" if isinstance(name, str) else tuple(f"vit.{each}" for each in name)

    return [
        *(row._replace(theirs=below(row.theirs)) for row in encoder),
        *_around_the_blocks("decoder."),
        *rows_of_block("decoder.decoder_layers.{}", "decoder_blocks.{}"),
    ]


def _around_the_blocks(prefix: str) -> list[Row]:
    return [
        Row(f"{prefix}decoder_embed", "decoder_embedding"),
        Row(f"{prefix}mask_token", "mask_token"),
        Row(f"{prefix}decoder_pos_embed", "decoder_positions"),
        Row(f"{prefix}decoder_norm", "decoder_norm"),
        Row(f"{prefix}decoder_pred", "decoder_output"),
    ]


TRANSFORMERS = Layout(
    transformers_rows, prepare_transformers, preprocess={**PREPROCESS, **IMAGENET}, read=read_transformers
)

LAYOUTS: dict[str, Layout] = {
    "transformers": TRANSFORMERS,
    "transformers-5": replace(TRANSFORMERS, rows=transformers_5_rows),
    "mae": Layout(mae_rows),
}
