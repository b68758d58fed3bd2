"""Weights for another image size, patch size or number of channels than they were made for, by each library's rule."""

from case import Case, randomised

NARROW = {"embed_dim": 32, "depth": 2, "num_heads": 2}


def timm_at(architecture, size=(224, 224), channels=3, before=None, **after) -> Case:
    """A network of timm that takes its weights from one as published, as `timm.create_model(pretrained=True)` does."""

    def save(folder):
        import timm
        from timm.models._builder import adapt_input_conv
        from timm.models.vision_transformer import checkpoint_filter_fn

        model = randomised(timm.create_model(architecture, num_classes=7, **NARROW, **(before or {})))
        timm.models.save_for_hf(model, folder, model_args={**NARROW, **(before or {})})
        other = timm.create_model(architecture, num_classes=7, in_chans=channels, **NARROW, **after)
        state = checkpoint_filter_fn(model.state_dict(), other)
        name = "patch_embed.proj.weight"
        state[name] = adapt_input_conv(channels, state[name])
        other.load_state_dict(state)
        return other.eval()

    wanted = {"image_size": size, "channels": channels, "patch_size": after.get("patch_size", 16)}
    return Case(save, size=size, channels=channels, loaded_with=wanted)


def transformers_at(kind, size, **config) -> Case:
    """A network of Transformers that resamples its positions while it runs."""

    def save(folder):
        import transformers

        cls = getattr(transformers, kind)
        model = randomised(cls(cls.config_class(num_labels=7, image_size=64, hidden_size=32, **config)))
        model.save_pretrained(folder)
        return lambda images: model(images, interpolate_pos_encoding=True)

    return Case(save, size=size, loaded_with={"image_size": size})


SMALL = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "patch_size": 16}

CASES = {
    "timm, 384": timm_at("vit_small_patch16_224", (384, 384), img_size=384),
    "timm, 224x160": timm_at("vit_small_patch16_224", (224, 160), img_size=(224, 160)),
    "timm, patch 32 of 16": timm_at("vit_small_patch16_224", patch_size=32),
    "timm, patch 8 of 16 at 96x64": timm_at("vit_small_patch16_224", (96, 64), img_size=(96, 64), patch_size=8),
    "timm, 1 channel": timm_at("vit_small_patch16_224", channels=1),
    "timm, 4 channels": timm_at("vit_small_patch16_224", channels=4),
    "timm, registers, 280": timm_at(
        "vit_small_patch14_reg4_dinov2", (280, 280), before={"img_size": 224}, patch_size=14, img_size=280
    ),
    "transformers, 384": transformers_at("ViTForImageClassification", (384, 384), **SMALL),
    "transformers, 224x160": transformers_at("ViTForImageClassification", (224, 160), **SMALL),
}
