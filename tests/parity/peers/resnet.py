import runpy

from case import clone, pth, timm, transformers

BASIC = {"layer_type": "basic", "embedding_size": 8, "hidden_sizes": [8, 16, 32, 64], "depths": [1, 2, 1, 1]}
BOTTLENECK = {"embedding_size": 8, "hidden_sizes": [32, 64, 128], "depths": [2, 1, 2]}


def torchvision(name):
    """With small residual branches: running statistics of random networks are wrong, and values would explode."""
    import torchvision

    return getattr(torchvision.models, name)(num_classes=7, zero_init_residual=True)


def torchvision_resnext(groups, width):
    from torchvision.models.resnet import Bottleneck, ResNet

    return ResNet(Bottleneck, [1, 2, 1, 1], num_classes=7, groups=groups, width_per_group=width)


def idelbayev(name, option="A"):
    """His module is called as this one is, so it cannot be imported beside it."""
    file = clone("pytorch_resnet_cifar10") / "resnet.py"
    module = runpy.run_path(str(file))
    module["BasicBlock"].__init__.__defaults__ = (1, option)  # stride and kind of shortcut
    network = module[name]()
    for block in network.modules():
        if hasattr(block, "bn2"):
            block.bn2.weight.data.zero_()  # as above
    return network


def trained_in_parallel(state):
    return {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}, "best_prec1": 91.78}


def cifar(name, model, option="A", size=(32, 32), **changes):
    build = lambda: idelbayev(name, option)  # noqa: E731
    return pth("cifar", model, build, wrap=trained_in_parallel, size=size, **changes)


CASES = {
    "timm resnet18": timm("resnet18", size=(64, 96)),
    "timm resnet26, grey": timm("resnet26", size=(75, 50), channels=1),
    "timm resnet50, other shape": timm("resnet50", size=(64, 64), layers=[1, 2, 1, 1], cardinality=4, base_width=8),
    "timm wide_resnet50_2, shallow": timm("wide_resnet50_2", size=(64, 64), layers=[1, 1, 1, 1]),
    "timm resnext50_32x4d": timm("resnext50_32x4d", size=(64, 96)),
    "timm resnext101_32x8d, shallow": timm("resnext101_32x8d", size=(64, 64), layers=[1, 1, 1, 1]),
    "timm resnext101_64x4d, shallow": timm("resnext101_64x4d", size=(64, 64), layers=[1, 1, 1, 1]),
    "torchvision resnet34": pth("torchvision", "resnet-34", lambda: torchvision("resnet34"), size=(75, 50)),
    "torchvision resnet50": pth("torchvision", "resnet-50", lambda: torchvision("resnet50"), size=(64, 96)),
    "torchvision resnext50_32x4d": pth(
        "torchvision", "resnext-50-32x4d", lambda: torchvision("resnext50_32x4d"), size=(64, 64)
    ),
    "torchvision resnext 64x4d, shallow": pth(
        "torchvision", "resnext-101-64x4d", lambda: torchvision_resnext(64, 4), size=(64, 64), depths=(1, 2, 1, 1)
    ),
    "transformers basic": transformers("ResNetForImageClassification", size=(64, 64), **BASIC),
    "transformers bottleneck": transformers(
        "ResNetForImageClassification", size=(75, 50), num_channels=1, **BOTTLENECK
    ),
    "cifar resnet20": cifar("resnet20", "resnet-20"),
    "cifar resnet56, larger image": cifar("resnet56", "resnet-56", size=(48, 48)),
    "cifar resnet20, option B": cifar("resnet20", "resnet-20", option="B", shortcut="projection"),
}
