"""Vision transformers that take images of several sizes at once, without padding (NaViT, Dehghani et al. 2023).

Packing happens between the two halves of such a model: each image is embedded on its own grid, the tokens of all lie in
one row while they are encoded, and each image's features are read from its own tokens again.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import cycle

from torch import Tensor, nn

from vitrail.errors import SettingError
from vitrail.nn.backbone import PlainTransformer
from vitrail.nn.features import Features
from vitrail.nn.norm import LayerNorm
from vitrail.nn.position import Resampling, resample_positions
from vitrail.nn.rope import Rotation
from vitrail.nn.segments import pack


class PatchTransformer(PlainTransformer):
    """A plain transformer of the patches of an image, with tokens such as the class token before them.

    Attributes:
        grid: rows and columns of patches of an image of its own size, to which learned positions belong.
        positions: learned ones, ``(1, N, D)`` or with the tokens before the patches ``(1, P + N, D)``; or None.
        merge: pairs of tokens that become one in each block (`nn.merging`); 0 for none.
        resampling: how learned positions follow an image of another size, as those of small views in training, or of
            packed images; None to refuse it.
        blocks: the layers; each takes tokens and a `Rotation` or None, and by name `Segments` and `Merging`.
        norm: the last one.
    """

    merge = 0
    grid: tuple[int, int]
    positions: nn.Parameter | None
    resampling: Resampling | None = None
    blocks: nn.ModuleList
    norm: LayerNorm

    @abstractmethod
    def embed(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Images ``(B, C, H, W)`` to tokens ``(B, P + h · w, D)`` with their positions, and the grid ``(h, w)``."""

    @abstractmethod
    def features(self, tokens: Tensor, grid: tuple[int, int]) -> Features:
        """Encoded tokens to what a head reads."""

    def rotations(self, grid: tuple[int, int]) -> Sequence[Rotation | None]:
        """How the blocks turn queries and keys of an ``(h, w)`` grid: one for all of them, or one each."""
        return [None]

    def normed(self, tokens: Tensor) -> Tensor:
        """What comes out of the last block, through the final norm where that is one of tokens."""
        return self.norm(tokens)

    def packed(self, groups: Sequence[Tensor]) -> list[Features]:
        """What the model makes of each of several batches ``(B_i, C, H_i, W_i)``, all encoded as one row.

        Raises :class:`SettingError` in training, where chance drops whole rows and not images, and with
        token merging.
        """
        if self.training:
            raise SettingError("images are packed in evaluation only; call eval() on the model.")
        if self.merge:
            raise SettingError("tokens of packed images cannot be merged; leave out --pack or --merge.")
        embedded = [self.embed(images) for images in groups]
        row, segments = pack([tokens for tokens, _ in embedded])
        grids = [grid for _, grid in embedded]
        rotations = zip(*(self.rotations(grid) for grid in grids), strict=True)
        turns = [segments.rotation(of_groups) for of_groups in rotations]
        for block, turn in zip(self.blocks, cycle(turns)):  # one turn may be for all blocks
            row = block(row, turn, segments=segments)
        encoded = segments.unpack(self.normed(row))
        return [self.features(tokens, grid) for tokens, grid in zip(encoded, grids, strict=True)]

    def learned_positions(self, grid: tuple[int, int]) -> Tensor:
        """The learned positions for an ``(h, w)`` grid of patches, resampled if that is allowed.

        Raises :class:`SettingError` for another grid than the model's own where it is not.
        """
        assert self.positions is not None
        if grid == self.grid:
            return self.positions
        if self.resampling is None:
            raise SettingError(
                "this model's learned positions are for {}x{} patches, the image has {}x{}; "
                "give images of {}x{} pixels.".format(*self.grid, *grid, *self.config.image_size)
            )
        return resample_positions(self.positions, self.grid, grid, self.resampling)
