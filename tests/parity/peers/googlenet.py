from case import Case, pth, randomised


def torchvision(**settings):
    import torchvision

    return torchvision.models.googlenet(num_classes=7, init_weights=False, **settings)


def with_transformed_input(folder):
    """As released: the model turns images normalised with ImageNet's statistics into such as ours gets at once."""
    import torch

    model = randomised(torchvision(transform_input=True))
    torch.save(model.state_dict(), f"{folder}/weights.pth")
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])

    def run(images):
        pixels = images * 0.5 + 0.5
        return model((pixels - mean[:, None, None]) / std[:, None, None])

    return run


CASES = {
    "torchvision": pth("torchvision", "googlenet", torchvision),
    "torchvision transform_input": Case(with_transformed_input, "torchvision", "googlenet"),
    "torchvision without auxiliary": pth(
        "torchvision", "googlenet", lambda: torchvision(aux_logits=False), size=(160, 97), auxiliary=False
    ),
    "torchvision 384": pth("torchvision", "googlenet", torchvision, size=(384, 384), auxiliary=False),
}
