from case import Case, randomised, repository, timm, transformers

TINY = {"embedding_size": 16, "hidden_sizes": [64, 128, 256], "depths": [2, 1, 2], "num_groups": 4}
LARGE = (128, 160)  # the norms of narrow, deep networks would else have few values each, and blow rounding errors up


def narrow(architecture, width, size, grey=False):
    """timm's with other channels, which it multiplies by the factor behind the x of the architecture's name."""
    stages = [width * 4 * 2**stage for stage in range(4)]
    arguments = {"stem_chs": width, "channels": stages, "in_chans": 1 if grey else 3}

    def save(folder):
        import timm

        model = randomised(timm.create_model(architecture, num_classes=7, **arguments))
        timm.models.save_for_hf(model, folder, model_args=arguments)
        return model

    return Case(save, size=size, channels=arguments["in_chans"])


def google(model, units, factor, size, **changes):
    """A network of the authors' PyTorch code as their `.npz`, and as their own function reads that again."""

    def save(folder):
        import numpy as np

        models = repository("big_transfer").import_module("bit_pytorch.models")
        written = randomised(models.ResNetV2(units, factor, head_size=7))
        np.savez(f"{folder}/weights.npz", **arrays(written))
        read = models.ResNetV2(units, factor, head_size=7).eval()
        with np.load(f"{folder}/weights.npz") as weights:
            read.load_from(weights)
        return read

    return Case(save, "google", model, changes, size)


def arrays(model):
    def kernel(conv):
        return conv.weight.detach().permute(2, 3, 1, 0).numpy()

    def norm(name, group_norm):
        values = {"gamma": group_norm.weight, "beta": group_norm.bias}
        return {f"resnet/{name}group_norm/{key}": value.detach().numpy() for key, value in values.items()}

    found = {
        "resnet/root_block/standardized_conv2d/kernel": kernel(model.root.conv),
        "resnet/head/conv2d/kernel": kernel(model.head.conv),
        "resnet/head/conv2d/bias": model.head.conv.bias.detach().numpy(),
        **norm("", model.head.gn),
    }
    for block, units in model.body.named_children():
        for name, unit in units.named_children():
            place = f"{block}/{name}"
            for number, letter in enumerate("abc", start=1):
                conv = getattr(unit, f"conv{number}")
                found[f"resnet/{place}/{letter}/standardized_conv2d/kernel"] = kernel(conv)
                found |= norm(f"{place}/{letter}/", getattr(unit, f"gn{number}"))
            if hasattr(unit, "downsample"):
                found[f"resnet/{place}/a/proj/standardized_conv2d/kernel"] = kernel(unit.downsample)
    return found


CASES = {
    "timm resnetv2_50x1_bit": timm("resnetv2_50x1_bit", size=(64, 96)),
    "timm resnetv2_50x3_bit, narrow, grey": narrow("resnetv2_50x3_bit", 32, (75, 50), grey=True),
    "timm resnetv2_101x1_bit, narrow": narrow("resnetv2_101x1_bit", 32, LARGE),
    "timm resnetv2_101x3_bit, narrow": narrow("resnetv2_101x3_bit", 32, LARGE),
    "timm resnetv2_152x2_bit, narrow": narrow("resnetv2_152x2_bit", 16, LARGE),
    "timm resnetv2_152x4_bit, narrow": narrow("resnetv2_152x4_bit", 8, LARGE),
    "transformers": transformers("BitForImageClassification", size=(75, 50), **TINY),
    "transformers, grey": transformers("BitForImageClassification", size=(64, 64), num_channels=1, **TINY),
    "google R50x1": google("bit-r50x1", [3, 4, 6, 3], 1, (64, 96)),
    "google, other depths": google("bit-r50x3", [1, 2, 1, 11], 1, (75, 50), depths=(1, 2, 1, 11), width=64),
}
