import functools

from case import pth, repository, timm, transformers

SMALL = {"embed_dim": 8, "depths": (2, 2, 2), "num_heads": (1, 2, 4)}
OURS = {"width": 8, "depths": [2, 2, 2], "heads": [1, 2, 4]}
small = functools.partial(timm, "swin_tiny_patch4_window7_224", **SMALL)
tiny = functools.partial(transformers, "SwinForImageClassification", **SMALL)


def torchvision(size, window):
    from torchvision.models.swin_transformer import SwinTransformer

    def build():
        return SwinTransformer([4, 4], 8, [2, 2, 2], [1, 2, 4], [window, window], num_classes=7)

    return pth("torchvision", "swin", build, size=size, window=window, borders="torchvision", **OURS)


def paper(size, window):
    """The authors' own, whose windows must divide the maps."""

    def build():
        repository("Swin-Transformer")
        from models.swin_transformer import SwinTransformer

        return SwinTransformer(
            size, embed_dim=8, depths=[2, 2, 2], num_heads=[1, 2, 4], window_size=window, num_classes=7
        )

    def wrap(state):
        return {"model": state}

    return pth("paper", "swin", build, wrap=wrap, size=size, image_size=list(size), window=window, **OURS)


CASES = {
    "timm swin_tiny": timm("swin_tiny_patch4_window7_224"),
    "timm swin_s3_tiny": timm("swin_s3_tiny_224", size=(224, 224)),
    "timm 384 window 12": timm("swin_base_patch4_window12_384", size=(384, 384), embed_dim=8, num_heads=(1, 2, 4, 8)),
    "timm map divides": small(size=(112, 112), img_size=112),
    "timm padded": small(size=(120, 136), img_size=(120, 136)),
    "timm windows as large as maps": small(size=(64, 64), img_size=64),
    "timm not square": small(size=(60, 164), img_size=(60, 164), window_size=5, mlp_ratio=2.0),
    "timm windows by stage": small(size=(96, 96), img_size=96, window_size=((6, 6), (4, 4), (3, 3)), qkv_bias=False),
    "timm one channel": small(size=(112, 112), channels=1, patch_size=8, img_size=112),
    "transformers map divides": tiny(size=(112, 112), image_size=112),
    "transformers padded": tiny(size=(120, 136), image_size=(120, 136)),
    "transformers not square": tiny(size=(112, 224), image_size=(112, 224), num_channels=1, mlp_ratio=2.0),
    "transformers odd image": tiny(size=(150, 171), image_size=224, window_size=5, qkv_bias=False),
    "torchvision map divides": torchvision((112, 112), 7),
    "torchvision padded": torchvision((120, 136), 7),
    "torchvision maps below the window": torchvision((64, 100), 7),
    "paper map divides": paper((112, 112), 7),
    "paper windows as large as maps": paper((64, 64), 8),
    "paper not square": paper((96, 192), 6),
}
