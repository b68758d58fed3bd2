from case import pth


def torchvision():
    """With smaller fully connected layers, which are nearly all of the file."""
    import torchvision
    from torch import nn

    model = torchvision.models.alexnet(num_classes=7)
    model.classifier[1], model.classifier[4], model.classifier[6] = (
        nn.Linear(256 * 36, 40),
        nn.Linear(40, 24),
        nn.Linear(24, 7),
    )
    return model


SMALL = {"hidden": [40, 24]}

CASES = {
    "torchvision": pth("torchvision", "alexnet", torchvision, **SMALL),
    "torchvision 384": pth("torchvision", "alexnet", torchvision, size=(384, 384), **SMALL),
    "torchvision 224x160": pth("torchvision", "alexnet", torchvision, size=(224, 160), **SMALL),
    "torchvision 63x96": pth("torchvision", "alexnet", torchvision, size=(63, 96), **SMALL),
}
