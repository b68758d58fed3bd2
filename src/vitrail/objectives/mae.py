"""Masked autoencoders (He et al., CVPR 2022, arXiv:2111.06377): most patches are hidden, and painted from the others.

The encoder sees the visible patches only, so that pre-training is cheap; a light decoder, which is thrown away later,
puts one learned token in the place of each hidden patch and paints its pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vitrail.data.preprocess import Preprocess
from vitrail.data.rng import uniform
from vitrail.data.sample import Batch
from vitrail.errors import SettingError
from vitrail.models.vit.vit import Block, Config, ViT
from vitrail.nn.backbone import Backbone
from vitrail.nn.norm import LayerNorm
from vitrail.nn.position import sincos_2d
from vitrail.objectives.objective import ImageObjective


class MAE(ImageObjective):
    """A ViT learns to paint the patches that it does not see.

    The ``loss`` is the mean squared error over the hidden patches, each patch's pixels standardised by its own mean and
    deviation where ``options.normalise_patches`` (section 4.1).

    Raises :class:`SettingError` for a backbone that is no ViT of plain patches, or a share that hides none or all.
    """

    name = "mae"
    beta2 = 0.95
    usual_config: ClassVar[dict[str, Any]] = {"stem": "patch"}
    backbone: ViT

    @dataclass(frozen=True)
    class Options:
        """What can be set.

        Attributes:
            mask_ratio: the share of patches that is hidden.
            normalise_patches: whether each patch's pixels are standardised before they are compared.
            decoder_width, decoder_depth, decoder_heads: of the decoder, whose MLP has four times its width; 0 for a
                width of two thirds of the encoder's, at most 512, in whole heads.
        """

        mask_ratio: float = 0.75
        normalise_patches: bool = True
        decoder_width: int = 0
        decoder_depth: int = 8
        decoder_heads: int = 16

    def __init__(self, model: str, backbone: Backbone, preprocess: Preprocess, options: Any = None) -> None:
        options = options or self.Options()
        if not isinstance(backbone, ViT) or backbone.config.stem != "patch":
            raise SettingError(f"masked autoencoding hides a ViT's patches; {model} is none, or has another stem.")
        patches = backbone.grid[0] * backbone.grid[1]
        hidden = round(options.mask_ratio * patches)
        if not 0 < hidden < patches:
            raise SettingError(
                f"a mask ratio of {options.mask_ratio} hides {hidden} of {patches} patches; some must be hidden, and "
                "some seen."
            )
        width = options.decoder_width or default_width(backbone.config.width, options.decoder_heads)
        super().__init__(model, backbone, preprocess, replace(options, decoder_width=width))
        self.seen = patches - hidden
        config = backbone.config
        self.decoder_embedding = nn.Linear(config.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        of_decoder = Config(width, options.decoder_depth, options.decoder_heads, 4 * width)
        self.decoder_blocks = nn.ModuleList(Block(of_decoder, 0.0) for _ in range(options.decoder_depth))
        self.decoder_norm = LayerNorm(width)
        self.decoder_output = nn.Linear(width, config.patch_size**2 * config.channels)
        nn.init.normal_(self.mask_token, std=0.02)
        for linear in (self.decoder_embedding, self.decoder_output):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.draws is not None, "masks are drawn from a batch's draws"
        images = self.normalized(batch.images)
        order = self.order(batch.draws)
        painted, wanted = self.paint(images, order), self.targets(images)
        error = (painted.float() - wanted).square().mean(dim=-1)
        hidden = order[:, self.seen :]
        return {"loss": error.gather(1, hidden).mean()}

    def order(self, draws: Tensor) -> Tensor:
        """All N patches of each image in a random order ``(B, N)``; the encoder sees the first `seen` of them."""
        return uniform(draws, self.backbone.grid[0] * self.backbone.grid[1]).argsort(dim=1)

    def paint(self, images: Tensor, order: Tensor) -> Tensor:
        """Normalised images ``(B, C, H, W)`` to the pixels ``(B, N, p · p · C)`` that the decoder paints."""
        prefix = self.backbone.prefix
        tokens, grid = self.backbone.embed(images)
        seen = order[:, : self.seen]
        visible = tokens[:, prefix:].gather(1, seen.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
        encoded = self.backbone.encode(torch.cat([tokens[:, :prefix], visible], dim=1), grid)
        embedded = self.decoder_embedding(encoded)
        prefix_tokens, patches = embedded[:, :prefix], embedded[:, prefix:]
        everything = self.mask_token.to(patches.dtype).expand(len(images), order.shape[1], -1)
        everything = everything.scatter(1, seen.unsqueeze(-1).expand(-1, -1, patches.shape[-1]), patches)
        everything = everything + sincos_2d(grid, patches.shape[-1])[None].to(patches)
        x = torch.cat([prefix_tokens, everything], dim=1)
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_output(self.decoder_norm(x[:, prefix:]))

    def targets(self, images: Tensor) -> Tensor:
        """What is to be painted: ``(B, N, p · p · C)`` float32, row by row of a patch, the channels last."""
        patches = patchify(images.float(), self.backbone.config.patch_size)
        if self.options.normalise_patches:
            mean, variance = patches.mean(dim=-1, keepdim=True), patches.var(dim=-1, keepdim=True)
            patches = (patches - mean) / (variance + 1e-6).sqrt()
        return patches


def default_width(encoder: int, heads: int) -> int:
    """Two thirds of the encoder's width, at most 512, in heads of a multiple of 4 features."""
    step = 4 * heads
    return max(step, min(512, round(encoder * 2 / 3 / step) * step))


def patchify(images: Tensor, patch: int) -> Tensor:
    """Images ``(B, C, H, W)`` to patches ``(B, N, p · p · C)``."""
    x = images.unfold(2, patch, patch).unfold(3, patch, patch)  # B, C, h, w, p, q
    return x.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """The inverse of `patchify`."""
    x = patches.unflatten(1, grid).unflatten(3, (patch, patch, -1))  # B, h, w, p, q, C
    return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
