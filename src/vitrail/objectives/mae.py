"""Masked autoencoders (He et al., CVPR 2022, arXiv:2111.06377): most patches are hidden, and painted from the others.

The encoder sees the visible patches only, so that pre-training is cheap; a light decoder, which is thrown away later,
puts one learned token in the place of each hidden patch and paints its pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vitrail.data.preprocess import Preprocess
from vitrail.data.rng import uniform
from vitrail.data.sample import Batch
from vitrail.data.source import Source
from vitrail.errors import SettingError
from vitrail.models.layout import Layout
from vitrail.models.vit.vit import Block, Config, ViT
from vitrail.nn.backbone import Backbone
from vitrail.nn.norm import LayerNorm
from vitrail.nn.position import sincos_2d
from vitrail.objectives.mae_keys import LAYOUTS
from vitrail.objectives.objective import ImageObjective


class MAE(ImageObjective):
    """A ViT learns to paint the patches that it does not see.

    The ``loss`` is the mean squared error over the hidden patches, each patch's pixels standardised by its own mean and
    deviation where ``options.normalise_patches`` (section 4.1). Positions are fixed, in the encoder, too.

    Raises :class:`SettingError` for a backbone that is no ViT of plain patches, a share that hides none or all, and a
    decoder that cannot be.
    """

    name = "mae"
    beta2 = 0.95
    # Section A.1's class token and positions; the mean of the patches is what fine-tuning and probes read (A.3).
    usual_config: ClassVar[dict[str, Any]] = {
        "stem": "patch",
        "position": "learned",
        "pool": "mean",
        "class_token": True,
        "norm": "tokens",
    }
    layouts: ClassVar[Mapping[str, Layout]] = LAYOUTS
    backbone: ViT
    decoder_positions: Tensor

    @dataclass(frozen=True)
    class Options:
        """What can be set.

        Attributes:
            mask_ratio: the share of patches that is hidden.
            normalise_patches: whether each patch's pixels are standardised before they are compared.
            decoder_width, decoder_depth: of the decoder; 0 for two thirds of the encoder's, at most 512 and 8.
            decoder_heads, decoder_mlp: its attention heads, 0 for heads of 32 features, and the hidden units of its
                MLPs, 0 for four times its width.
        """

        mask_ratio: float = 0.75
        normalise_patches: bool = True
        decoder_width: int = 0
        decoder_depth: int = 0
        decoder_heads: int = 0
        decoder_mlp: int = 0

    def __init__(self, model: str, backbone: Backbone, preprocess: Preprocess, options: Any = None) -> None:
        if not isinstance(backbone, ViT) or backbone.config.stem != "patch":
            raise SettingError(f"masked autoencoding hides a ViT's patches; {model} is none, or has another stem.")
        options = resolved(options or self.Options(), backbone.config)
        super().__init__(model, backbone, preprocess, options)
        config, grid, width = backbone.config, backbone.grid, options.decoder_width
        self.seen = count_seen(grid[0] * grid[1], options.mask_ratio)
        self.decoder_embedding = nn.Linear(config.width, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.register_buffer("decoder_positions", fixed_positions(grid, width, backbone.prefix))
        block = Config(
            width,
            options.decoder_depth,
            options.decoder_heads,
            options.decoder_mlp,
            activation=config.activation,
            qkv_bias=config.qkv_bias,
            norm_eps=config.norm_eps,
        )
        self.decoder_blocks = nn.ModuleList(Block(block, 0.0) for _ in range(block.depth))
        self.decoder_norm = LayerNorm(width, eps=config.norm_eps)
        self.decoder_output = nn.Linear(width, config.patch_size**2 * config.channels)
        nn.init.normal_(self.mask_token, std=0.02)
        for linear in (self.decoder_embedding, self.decoder_output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        pooled_norm = backbone.norm if config.norm == "pooled" else None
        for idle in (backbone.positions, backbone.attention_pool, backbone.representation, pooled_norm):
            if idle is not None:  # fixed, or behind what the decoder reads
                idle.requires_grad_(False)

    @torch.no_grad()
    def fitted_to(self, source: Source, seed: int) -> MAE:
        """Itself with the paper's positions, and its class token, in place of random ones."""
        backbone = self.backbone
        if backbone.positions is not None:
            own = backbone.positions.shape[1] - backbone.grid[0] * backbone.grid[1]  # 1 with a class token's, else 0
            backbone.positions.copy_(fixed_positions(backbone.grid, backbone.config.width, own))
        if backbone.class_token is not None:
            nn.init.normal_(backbone.class_token, std=0.02)
        return self

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.draws is not None, "masks are drawn from a batch's draws"
        images = self.normalized(batch.images)
        seen, hidden = self.order(batch.draws).tensor_split([self.seen], dim=1)
        error = (self.paint(images, seen).float() - self.targets(images)).square().mean(dim=-1)
        return {"loss": error.gather(1, hidden).mean()}

    def order(self, draws: Tensor) -> Tensor:
        """The numbers of all N patches in a random order for each sample, ``(B, N)``; the first of them are seen."""
        return uniform(draws, self.backbone.grid[0] * self.backbone.grid[1]).argsort(dim=1, stable=True)

    def paint(self, images: Tensor, seen: Tensor) -> Tensor:
        """Normalised images ``(B, C, H, W)`` and the numbers of the patches that are seen, ``(B, n)``, to pixels.

        Returns what the decoder paints in the place of every patch, ``(B, N, p · p · C)``; as of `targets`.
        """
        prefix = self.backbone.prefix
        tokens, grid = self.backbone.embed(images)
        visible = tokens[:, prefix:].gather(1, _along(seen, tokens))
        encoded = self.backbone.encode(torch.cat([tokens[:, :prefix], visible], dim=1), grid, seen)
        embedded = self.decoder_embedding(encoded)
        patches = self.mask_token.to(embedded).expand(len(images), grid[0] * grid[1], -1)
        patches = patches.scatter(1, _along(seen, embedded), embedded[:, prefix:])
        x = torch.cat([embedded[:, :prefix], patches], dim=1) + self.decoder_positions
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_output(self.decoder_norm(x))[:, prefix:]

    def targets(self, images: Tensor) -> Tensor:
        """What is to be painted: ``(B, N, p · p · C)`` float32, row by row of a patch, the channels last."""
        patches = patchify(images.float(), self.backbone.config.patch_size)
        if self.options.normalise_patches:
            mean, deviation = statistics(patches)
            patches = (patches - mean) / deviation
        return patches

    def pixels(self, painted: Tensor, images: Tensor) -> Tensor:
        """What was painted in the scale of the normalised images ``(B, C, H, W)``, ``(B, N, p · p · C)`` float32.

        Where each patch was standardised, its mean and deviation are not painted; they are taken from the image.
        """
        painted = painted.float()
        if self.options.normalise_patches:
            mean, deviation = statistics(patchify(images.float(), self.backbone.config.patch_size))
            painted = painted * deviation + mean
        return painted


def resolved(options: MAE.Options, encoder: Config) -> MAE.Options:
    """The options with the decoder's shape, where it was left open, after the encoder's: for B, L and H the paper's.

    Raises :class:`SettingError` for a shape that cannot be.
    """
    width = options.decoder_width or min(512, max(1, round(encoder.width * 2 / 3 / 32)) * 32)
    depth = options.decoder_depth or min(8, max(1, round(encoder.depth * 2 / 3)))
    heads = options.decoder_heads or max(1, width // 32)
    mlp = options.decoder_mlp or 4 * width
    if min(width, depth, heads, mlp) < 1 or width % heads:
        raise SettingError(f"a decoder of width {width}, depth {depth}, {heads} heads and MLPs of {mlp} cannot be.")
    return replace(options, decoder_width=width, decoder_depth=depth, decoder_heads=heads, decoder_mlp=mlp)


def count_seen(patches: int, mask_ratio: float) -> int:
    """How many of the patches are seen, rounded down as in the authors' code.

    Raises :class:`SettingError` for a share that hides none of them, or all.
    """
    seen = int(patches * (1 - mask_ratio)) if 0 < mask_ratio < 1 else -1
    if not 0 < seen < patches:
        raise SettingError(
            f"a mask ratio of {mask_ratio:g} does not do for {patches} patches: some must be hidden, and some seen."
        )
    return seen


def fixed_positions(grid: tuple[int, int], width: int, prefix: int) -> Tensor:
    """Sine-cosine positions ``(1, prefix + h · w, width)`` float32; those of the tokens before the patches are 0."""
    patches = sincos_2d(grid, width, endpoint=False)
    return torch.cat([patches.new_zeros(prefix, width), patches])[None]


def statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each patch ``(B, N, p · p · C)``, with the unbiased variance and epsilon of the authors."""
    return patches.mean(dim=-1, keepdim=True), (patches.var(dim=-1, keepdim=True) + 1e-6).sqrt()


def patchify(images: Tensor, patch: int) -> Tensor:
    """Images ``(B, C, H, W)`` to patches ``(B, N, p · p · C)``."""
    x = images.unfold(2, patch, patch).unfold(3, patch, patch)  # B, C, h, w, p, q
    return x.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """The inverse of `patchify`."""
    x = patches.unflatten(1, grid).unflatten(3, (patch, patch, -1))  # B, h, w, p, q, C
    return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def _along(numbers: Tensor, tokens: Tensor) -> Tensor:
    """Numbers of tokens ``(B, n)`` as `gather` and `scatter` want them for ``tokens (B, N, D)``."""
    return numbers.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
