import pytest
import torch
import torch.nn.functional as F

from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Batch
from vitrail.heads.auxiliary import AuxiliaryClassifier, AuxiliaryHead
from vitrail.heads.linear import LinearHead
from vitrail.models.googlenet import Config, GoogLeNet
from vitrail.nn.features import Features
from vitrail.tasks.classification import Classification


def features(auxiliary, pooled=None):
    nothing = torch.full((len(pooled), 1, 1), float("nan"))
    return Features(tokens=nothing, prefix=0, grid=(1, 1), pooled=pooled, maps=(), auxiliary=auxiliary)


def test_predictions_are_those_of_a_linear_head():
    head = AuxiliaryHead(4, (2,), 3)
    linear = LinearHead(4, 3)
    linear.load_state_dict({name: x for name, x in head.state_dict().items() if name.startswith("linear.")})
    given = features((torch.randn(2, 2, 5, 5),), torch.randn(2, 4))
    assert torch.equal(head(given), linear(given))


def test_outputs_are_the_logits_of_all_classifiers_with_the_papers_weights():
    head = AuxiliaryHead(4, (2, 6), 3).eval()
    given = features((torch.randn(5, 2, 14, 14), torch.randn(5, 6, 14, 14)), torch.randn(5, 4))
    outputs = head.outputs(given)
    assert [weight for _, weight in outputs] == [1.0, 0.3, 0.3]
    assert torch.equal(outputs[0][0], head(given))
    assert torch.equal(outputs[2][0], head.auxiliary[1](given.auxiliary[1]))


def test_without_auxiliary_maps_it_is_a_linear_head():
    head = AuxiliaryHead(4, (), 3)
    assert head.state_dict().keys() == LinearHead(4, 3).state_dict().keys()
    assert len(head.outputs(features((), torch.randn(2, 4)))) == 1


@torch.no_grad()
def test_an_auxiliary_classifier_averages_convolves_and_maps_twice():
    torch.manual_seed(0)
    classifier = AuxiliaryClassifier(6, 3).eval()
    for tensor in (*classifier.parameters(), *classifier.buffers()):
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor))
    x = torch.randn(2, 6, 8, 12)
    means = x.reshape(2, 6, 4, 2, 4, 3).mean(dim=(3, 5))
    norm = classifier.conv.norm
    convolved = torch.einsum("bchw,oc->bohw", means, classifier.conv.conv.weight[:, :, 0, 0])
    scale = norm.weight / (norm.running_var + 0.001).sqrt()
    normalised = (convolved - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
    hidden = normalised.clamp(min=0).flatten(1) @ classifier.hidden.weight.T + classifier.hidden.bias
    expected = hidden.clamp(min=0) @ classifier.linear.weight.T + classifier.linear.bias
    torch.testing.assert_close(classifier(x), expected, rtol=1e-4, atol=1e-4)


@pytest.fixture
def task():
    torch.manual_seed(0)
    return Classification("googlenet", GoogLeNet(Config(image_size=(64, 64))), "abc", Preprocess((64, 64)))


def test_the_loss_is_the_main_one_plus_three_tenths_of_each_auxiliary_one(task):
    task.eval()  # no dropout
    labels = torch.eye(3)[:2]
    batch = Batch(torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8), ("a", "b"), labels)
    seen = task.features(batch.images)
    main = F.cross_entropy(task.head.linear(seen.pooled), labels)
    first, second = (
        F.cross_entropy(classifier(map_), labels)
        for classifier, map_ in zip(task.head.auxiliary, seen.auxiliary, strict=True)
    )
    torch.testing.assert_close(task.loss(batch)["loss"], main + 0.3 * first + 0.3 * second)


def test_auxiliary_classifiers_teach_the_layers_before_them(task):
    outputs = task.head.outputs(task.features(torch.randn(2, 3, 64, 64)))
    sum(logits.square().sum() for logits, _ in outputs[1:]).backward()
    taught = {name.split(".")[1] for name, p in task.backbone.named_parameters() if p.grad is not None and p.grad.any()}
    assert taught == {"conv1", "conv2", "conv3", "3a", "3b", "4a", "4b", "4c", "4d"}
    assert task.head.linear.weight.grad is None
