"""Other libraries' names for a Swin's weights, and their configs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vitrail.errors import CheckpointError, SettingError
from vitrail.models.layout import STACKED, Described, Layout, Row, nearest_size, timm_input, transformers_input
from vitrail.models.swin.swin import SIZES, Config, map_sizes, table_windows, windows_per_stage
from vitrail.nn.patch import patch_grid
from vitrail.nn.window import Borders, fit

TIMM_MODELS: dict[str, tuple[str, dict[str, Any]]] = {  # timm's architectures, our names, and what differs from them
    "swin_tiny_patch4_window7_224": ("swin-t", {}),
    "swin_small_patch4_window7_224": ("swin-s", {}),
    "swin_base_patch4_window7_224": ("swin-b", {}),
    "swin_base_patch4_window12_384": ("swin-b", {"window": 12}),
    "swin_large_patch4_window7_224": ("swin-l", {}),
    "swin_large_patch4_window12_384": ("swin-l", {"window": 12}),
    # Found by search over the shapes of a Swin: Chen et al. 2021, arXiv:2111.14725.
    "swin_s3_tiny_224": ("swin-t", {"window": (7, 7, 14, 7)}),
    "swin_s3_small_224": ("swin-s", {"window": (14, 14, 14, 7)}),
    "swin_s3_base_224": ("swin-s", {"window": (7, 7, 14, 7), "depths": (2, 2, 30, 2)}),
}
SHAPE = {  # the names of timm, which are Transformers' too, and ours
    "embed_dim": "width",
    "depths": "depths",
    "num_heads": "heads",
    "window_size": "window",
    "patch_size": "patch_size",
    "mlp_ratio": "mlp_ratio",
    "qkv_bias": "qkv_bias",
}
TIMM_HARMLESS = {  # settings of training, of the classifier, and what `timm_input` reads
    *("drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate", "weight_init"),
    *("num_classes", "img_size", "in_chans", "strict_img_size", "dynamic_img_size"),
}
TIMM_FIXED = {"always_partition": False, "global_pool": "avg"}  # what ours cannot do in another way

TRANSFORMERS_DEFAULTS = {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)}
TRANSFORMERS_FIXED = {"hidden_act": "gelu", "use_absolute_embeddings": False, "layer_norm_eps": 1e-5}

BLOCK = "stages.{}.blocks.{}"


def paper_rows(config: Config) -> list[Row]:
    """The authors' names; their merging ends a stage where ours begins the next."""
    return [*_as_the_authors(), Row("layers.{-1}.downsample", "stages.{}.merging"), Row("head", "head.linear")]


def timm_rows(config: Config) -> list[Row]:
    """The authors' names, but for the merging, which begins a stage as ours does."""
    return [*_as_the_authors(), Row("layers.{}.downsample", "stages.{}.merging"), Row("head.fc", "head.linear")]


def _as_the_authors() -> list[Row]:
    block = "layers.{}.blocks.{}"
    return [
        Row("patch_embed.proj", "patch_embedding.proj"),
        Row("patch_embed.norm", "patch_norm"),
        Row(f"{block}.attn.relative_position_bias_table", f"{BLOCK}.attention.bias_table"),
        Row(f"{block}.attn", f"{BLOCK}.attention"),
        *(Row(f"{block}.{part}", f"{BLOCK}.{part}") for part in ("norm1", "norm2", "mlp")),
        Row("norm", "norm"),
    ]


def torchvision_rows(config: Config) -> list[Row]:
    """torchvision counts patches, stages and mergings in one row."""
    rows = [Row("features.0.0", "patch_embedding.proj"), Row("features.0.2", "patch_norm")]
    for stage in range(len(config.depths)):
        block, ours = f"features.{2 * stage + 1}.{{}}", f"stages.{stage}.blocks.{{}}"
        rows += [
            Row(f"features.{2 * stage}", f"stages.{stage}.merging"),
            Row(f"{block}.attn.relative_position_bias_table", f"{ours}.attention.bias_table"),
            Row(f"{block}.attn", f"{ours}.attention"),
            *(Row(f"{block}.{part}", f"{ours}.{part}") for part in ("norm1", "norm2")),
            Row(f"{block}.mlp.0", f"{ours}.mlp.fc1"),
            Row(f"{block}.mlp.3", f"{ours}.mlp.fc2"),
        ]
    return [*rows, Row("norm", "norm"), Row("head", "head.linear")]


def transformers_rows(config: Config) -> list[Row]:
    """The names in files, of version 5, too."""
    block = "encoder.layers.{}.blocks.{}"
    qkv = tuple(f"{block}.attention.self.{part}" for part in ("query", "key", "value"))
    return [
        *_around_the_attention(),
        Row(f"{block}.attention.self.relative_position_bias_table", f"{BLOCK}.attention.bias_table"),
        Row(qkv, f"{BLOCK}.attention.qkv", STACKED),
        Row(f"{block}.attention.output.dense", f"{BLOCK}.attention.proj"),
        Row(f"{block}.intermediate.dense", f"{BLOCK}.mlp.fc1"),
        Row(f"{block}.output.dense", f"{BLOCK}.mlp.fc2"),
    ]


def transformers_5_rows(config: Config) -> list[Row]:
    """The names that version 5 uses in memory."""
    block = "encoder.layers.{}.blocks.{}"
    table = f"{block}.attention.relative_position_bias.relative_position_bias_table"
    return [
        *_around_the_attention(),
        Row(table, f"{BLOCK}.attention.bias_table"),
        Row(tuple(f"{block}.attention.{part}_proj" for part in "qkv"), f"{BLOCK}.attention.qkv", STACKED),
        Row(f"{block}.attention.o_proj", f"{BLOCK}.attention.proj"),
        Row(f"{block}.mlp", f"{BLOCK}.mlp"),
    ]


def _around_the_attention() -> list[Row]:
    block = "encoder.layers.{}.blocks.{}"
    return [
        Row("embeddings.patch_embeddings.projection", "patch_embedding.proj"),
        Row("embeddings.norm", "patch_norm"),
        Row("encoder.layers.{-1}.downsample", "stages.{}.merging"),
        Row(f"{block}.layernorm_before", f"{BLOCK}.norm1"),
        Row(f"{block}.layernorm_after", f"{BLOCK}.norm2"),
        Row("layernorm", "norm"),
        Row("classifier", "head.linear"),
    ]


def described(config: Config) -> Described:
    """The published size of this shape and what differs from it, or the family with everything."""
    return nearest_size("swin", config, SIZES, lambda of: (of.width, of.depths, of.heads))


def read_timm(config: Mapping[str, Any]) -> Described | None:
    """A Swin of timm. Raises `CheckpointError` for one that was built with what ours does not have."""
    architecture = config.get("architecture", "")
    if architecture not in TIMM_MODELS:
        return None
    arguments = {name: value for name, value in (config.get("model_args") or {}).items() if value is not None}
    others = {name: value for name, value in arguments.items() if name not in SHAPE and name not in TIMM_HARMLESS}
    if strange := sorted(name for name, value in others.items() if value != TIMM_FIXED.get(name)):
        raise CheckpointError(f"this {architecture} has {', '.join(strange)}, which Vitrail's Swin has not.")
    name, changes = TIMM_MODELS[architecture]
    size = _with(replace(SIZES[name], **changes, **timm_input(config), borders="timm"), arguments)
    return described(replace(size, window=_square(size)))


def _square(config: Config) -> int | tuple[int, ...]:
    """Our windows for timm's, which have two sides each: a pair of numbers is height and width for all stages."""
    stages, windows = len(config.depths), config.window
    given = (windows,) * stages if isinstance(windows, int) or [type(x) for x in windows] == [int, int] else windows
    pairs = [(side, side) if isinstance(side, int) else tuple(side) for side in given]
    if any(height != width for height, width in pairs):
        raise CheckpointError(f"this Swin has windows that are not square, {pairs}; Vitrail's are.")
    sides = tuple(height for height, _ in pairs)
    return sides[0] if len(set(sides)) == 1 else sides


def write_timm(config: Config) -> dict[str, Any]:
    """``config.json`` for `timm.create_model`. Raises `SettingError` where timm would cut image or maps differently."""
    patch_grid(config.image_size, config.patch_size)  # timm does not pad images
    _check_borders(config, "timm", "timm")
    shapes = {theirs: replace(SIZES[ours], **changes) for theirs, (ours, changes) in TIMM_MODELS.items()}
    same = [
        theirs
        for theirs, size in shapes.items()
        if size == replace(size, width=config.width, depths=config.depths, heads=config.heads, window=config.window)
    ]
    return {
        "architecture": same[0] if same else "swin_tiny_patch4_window7_224",
        "num_features": config.width * 2 ** (len(config.depths) - 1),
        "global_pool": "avg",
        "model_args": {
            "img_size": list(config.image_size),
            "in_chans": config.channels,
            **{theirs: getattr(config, ours) for theirs, ours in SHAPE.items()},
            # Not one number a stage: for two stages timm would take these as height and width.
            "window_size": [[side, side] for side in windows_per_stage(config)],
        },
    }


def read_transformers(config: Mapping[str, Any]) -> Described | None:
    """A Swin of Transformers. Raises `CheckpointError` for one that was built with what ours does not have."""
    if config.get("model_type") != "swin":
        return None
    strange = [name for name, value in TRANSFORMERS_FIXED.items() if config.get(name, value) != value]
    if strange:
        raise CheckpointError(f"this Swin has another {' and '.join(strange)} than Vitrail's; it cannot be opened.")
    size = Config(width=0, depths=(), heads=(), **transformers_input(config))
    return described(_with(size, {**TRANSFORMERS_DEFAULTS, **config}))


def write_transformers(config: Config) -> dict[str, Any]:
    """``config.json`` for Transformers. Raises `SettingError` for windows that its Swin cannot have."""
    windows = set(table_windows(config))
    if len(windows) > 1 or len(set(next(iter(windows)))) > 1:
        raise SettingError(
            "Transformers has one square window for all stages and does not make it smaller for a small map; "
            "export to timm, or choose a window and an image size that fit."
        )
    _check_borders(config, "paper", "Transformers")
    height, width = config.image_size
    stages = len(config.depths)
    return {
        "model_type": "swin",
        "architectures": ["SwinForImageClassification"],
        **{theirs: getattr(config, ours) for theirs, ours in SHAPE.items()},
        **TRANSFORMERS_FIXED,
        "window_size": windows.pop()[0],
        "image_size": height if height == width else [height, width],
        "num_channels": config.channels,
        "num_layers": stages,
        "hidden_size": config.width * 2 ** (stages - 1),
    }


def _with(size: Config, stated: Mapping[str, Any]) -> Config:
    """A config with what is stated in their names; lists, as JSON has them, as tuples."""
    changes: dict[str, Any] = {}
    for theirs, ours in SHAPE.items():
        if theirs in stated:
            value = stated[theirs]
            changes[ours] = tuple(value) if isinstance(value, list) else value
    return replace(size, **changes)


def _check_borders(config: Config, theirs: Borders, library: str) -> None:
    """Raise `SettingError` if a library would cut a map of the config's image size differently than the config does."""
    for (height, width), window in zip(map_sizes(config), table_windows(config), strict=True):
        ours, other = (fit((height, width), window, borders) for borders in (config.borders, theirs))
        if not (height % ours.size[0] or width % ours.size[1]) or not any(ours.shift):
            other = other._replace(pad_first=ours.pad_first)  # the order of padding and shift matters only with both
        if ours != other:
            raise SettingError(
                f"{library} does not cut a map of {height}x{width} into windows as this model does; "
                f"choose an image size whose maps divide into windows, or borders={theirs}."
            )


BUFFERS = ("layers.{}.blocks.{}.attn.relative_position_index", "layers.{}.blocks.{}.attn_mask")  # computed, by ours too

LAYOUTS: dict[str, Layout] = {
    "timm": Layout(timm_rows, ignored=BUFFERS, read=read_timm, write=write_timm),
    "transformers": Layout(
        transformers_rows,
        prefix="swin.",
        ignored=(
            "encoder.layers.{}.blocks.{}.attention.self.relative_position_index",
            *("embeddings.mask_token", "decoder"),  # of the pre-training that fills in masked patches
        ),
        read=read_transformers,
        write=write_transformers,
    ),
    "transformers-5": Layout(
        transformers_5_rows, prefix="swin.", ignored=("embeddings.mask_token", "decoder"), read=read_transformers
    ),
    "torchvision": Layout(torchvision_rows, ignored=("features.{}.{}.attn.relative_position_index",)),
    "paper": Layout(paper_rows, ignored=BUFFERS),
}
