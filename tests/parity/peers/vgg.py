from case import Case

RATIO = 1 / 128  # of timm's 4,096 units in fc6: nearly all of the file would be fc6 and fc7


def moderate(model):
    """The network in evaluation mode, with biases, norms and linear maps at no special value.

    Its kernels keep the initial ones, with which logits stay near one. What `case.randomised` adds would make them
    thousands after so many layers.
    """
    import torch

    for tensor in model.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim <= 2:
            values = torch.randn_like(tensor) * 0.05
            tensor.copy_(tensor + values if tensor.ndim == 2 else tensor + values.abs())
    return model.eval()


def torchvision(architecture, size=(224, 224)):
    """With smaller fully connected layers."""

    def save(folder):
        import torch
        import torchvision
        from torch import nn

        model = getattr(torchvision.models, architecture)(num_classes=7)
        small = {0: nn.Linear(512 * 49, 40), 3: nn.Linear(40, 24), 6: nn.Linear(24, 7)}
        for place, layer in small.items():
            model.classifier[place] = layer
        torch.save(moderate(model).state_dict(), f"{folder}/weights.pth")
        return model

    name = architecture.replace("vgg", "vgg-").replace("_", "-")
    return Case(save, "torchvision", name, {"hidden": [40, 24]}, size)


def timm(architecture, size=(224, 224), channels=3):
    def save(folder):
        import timm

        arguments = {"mlp_ratio": RATIO, "in_chans": channels}
        model = moderate(timm.create_model(architecture, num_classes=7, **arguments))
        timm.models.save_for_hf(model, folder, model_args=arguments)
        return model

    return Case(save, size=size, channels=channels)


CASES = {
    "torchvision vgg11": torchvision("vgg11"),
    "torchvision vgg11_bn": torchvision("vgg11_bn", size=(64, 96)),
    "torchvision vgg13 384": torchvision("vgg13", size=(384, 384)),
    "torchvision vgg16_bn 224x160": torchvision("vgg16_bn", size=(224, 160)),
    "torchvision vgg19": torchvision("vgg19", size=(64, 96)),
    "timm vgg11": timm("vgg11"),
    "timm vgg11_bn 384": timm("vgg11_bn", size=(384, 384)),
    "timm vgg13_bn 288x96": timm("vgg13_bn", size=(288, 96)),
    "timm vgg16 grey": timm("vgg16", size=(64, 96), channels=1),
    "timm vgg16_bn": timm("vgg16_bn", size=(96, 64)),
    "timm vgg19_bn": timm("vgg19_bn", size=(64, 96)),
}
