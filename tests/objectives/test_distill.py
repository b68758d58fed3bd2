"""Distillation against its formulas written out, and the teacher's place outside of all that trains."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Batch
from vitrail.errors import SettingError
from vitrail.objectives.distill import Distillation, soft_distillation
from vitrail.tasks.classification import Classification
from vitrail.train.ema import Ema
from vitrail.train.loop import Plan, fit
from vitrail.train.optim import build_optimizer

CLASSES = ("cat", "dog", "fox")
SHAPE = {"width": 24, "depth": 2, "heads": 3, "mlp": 48, "patch_size": 8}


def task(model="deit-ti16", size=(16, 24), classes=CLASSES, *, channels=3, seed=0, mean=0.5, **options):
    torch.manual_seed(seed)
    shape = SHAPE if model.startswith("deit") else {"width": 8}
    backbone = models.create(model, image_size=size, channels=channels, **shape)
    preprocess = Preprocess(size, mean=(mean,) * channels, std=(0.25,) * channels, channels=channels)
    made = Classification(model, backbone, classes, preprocess, **options)
    for parameter in made.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return made


def batch(count=5, size=(16, 24), seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 3, *size), dtype=torch.uint8, generator=generator)
    labels = torch.rand(count, 3, generator=generator).softmax(dim=1)
    return Batch(images, tuple("abcdefgh"[:count]), labels)


def cross_entropy(logits, targets):
    """The mean over the rows of -Σ target · log probability."""
    rows = [-(t * (x.exp() / x.exp().sum()).log()).sum() for x, t in zip(logits, targets, strict=True)]
    return torch.stack(rows).mean()


def soft(logits, teacher, temperature):
    """T² times the mean over the rows of Σ p · log(p / q)."""
    rows = []
    for x, t in zip(logits, teacher, strict=True):
        q, p = (x / temperature).exp(), (t / temperature).exp()
        q, p = q / q.sum(), p / p.sum()
        rows.append((p * (p / q).log()).sum())
    return temperature**2 * torch.stack(rows).mean()


def one_hot(teacher):
    return torch.stack([torch.tensor([float(k == row.argmax()) for k in range(3)]) for row in teacher])


@torch.no_grad()
@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("model", ["deit-ti16-distilled", "deit-ti16", "resnet-18"])
def test_the_loss_is_its_formula(kind, model):
    student, teacher = task(model, seed=1).eval(), task("deit-ti16", seed=2).eval()
    distillation = Distillation(student, teacher, kind, alpha=0.3, temperature=2.0)
    given = batch()
    tokens = student.features(given.images)
    if model == "deit-ti16-distilled":
        for_labels = student.head.linear(tokens.tokens[:, 0])
        for_teacher = student.head.distillation(tokens.tokens[:, 1])
    else:
        for_labels = for_teacher = student(given.images)
    said = teacher(given.images)
    base = cross_entropy(for_labels, given.labels)
    wanted = cross_entropy(for_teacher, one_hot(said)) if kind == "hard" else soft(for_teacher, said, 2.0)
    losses = distillation.loss(given)
    torch.testing.assert_close(losses["base"], base)
    torch.testing.assert_close(losses["distillation"], wanted)
    torch.testing.assert_close(losses["loss"], 0.7 * base + 0.3 * wanted)
    assert losses.keys() == {"loss", "base", "distillation"}


def test_auxiliary_outputs_learn_both_with_their_weights():
    student, teacher = task(seed=1), task(seed=2)
    first, second = torch.randn(5, 3), torch.randn(5, 3)
    student.head.outputs = lambda features: [(first, 1.0), (second, 0.3)]
    losses = Distillation(student, teacher, "hard", alpha=0.5).loss(batch())
    said = one_hot(teacher(batch().images))
    for part, targets in (("base", batch().labels), ("distillation", said)):
        torch.testing.assert_close(losses[part], cross_entropy(first, targets) + 0.3 * cross_entropy(second, targets))


def test_label_smoothing_and_class_weights_are_of_the_labels_alone():
    options = {"label_smoothing": 0.2, "class_weights": np.array([1.0, 2.0, 0.5], np.float32)}
    weighted, plain = (task(seed=1, **extra) for extra in (options, {}))
    ours, theirs = (Distillation(student, task(seed=2)).loss(batch()) for student in (weighted, plain))
    assert torch.equal(ours["distillation"], theirs["distillation"])
    torch.testing.assert_close(ours["base"], weighted.loss(batch())["loss"])
    assert ours["base"] != theirs["base"]


def test_soft_distillation_is_deits_code_times_the_number_of_classes():
    """Its losses.py divides the sum by the number of logits instead of by the number of images."""
    logits, teacher = torch.randn(4, 7), torch.randn(4, 7)
    p, q = (teacher / 3).log_softmax(dim=1), (logits / 3).log_softmax(dim=1)
    theirs = torch.nn.functional.kl_div(q, p, reduction="sum", log_target=True) * 9 / logits.numel()
    torch.testing.assert_close(soft_distillation(logits, teacher, 3.0), theirs * 7)


def test_soft_distillation_is_zero_where_the_student_says_the_same():
    teacher = torch.randn(4, 7)
    assert soft_distillation(teacher + 1.5, teacher, 2.0).item() == pytest.approx(0, abs=1e-6)


def test_gradients_of_soft_distillation_tend_to_those_of_the_logits_distance():
    """For a high temperature, (x - t) / (K · B) for centred logits (Hinton et al. 2015, equation 4)."""
    x, t = (torch.randn(4, 7, dtype=torch.float64) for _ in "xt")
    x, t = (x - x.mean(dim=1, keepdim=True)).requires_grad_(), t - t.mean(dim=1, keepdim=True)
    soft_distillation(x, t, 1e4).backward()
    torch.testing.assert_close(x.grad, (x.detach() - t) / (7 * 4), atol=1e-5, rtol=1e-3)


@torch.no_grad()
def test_the_teacher_sees_the_same_views_in_its_own_way():
    """Its own mean and deviation; and another size by Pillow's bilinear resizing, but for the rounding to bytes."""
    student, teacher = task(seed=1, mean=0.1), task(size=(8, 16), seed=2, mean=0.7)
    distillation = Distillation(student, teacher)
    images = batch().images
    resized = [Image.fromarray(x.permute(1, 2, 0).numpy()).resize((16, 8), Image.Resampling.BILINEAR) for x in images]
    pixels = torch.stack([torch.from_numpy(np.array(x)).permute(2, 0, 1) for x in resized]) / 255
    expected = teacher((pixels - 0.7) / 0.25)
    torch.testing.assert_close(distillation.teacher_logits(images), expected, atol=0.02, rtol=0)
    same = Distillation(student, task(seed=2, mean=0.7))
    expected = same.teacher((images / 255 - 0.7) / 0.25)
    torch.testing.assert_close(same.teacher_logits(images), expected, atol=1e-5, rtol=1e-5)


def test_the_teacher_is_frozen_and_in_evaluation_mode_always():
    student, teacher = task("deit-ti16-distilled", seed=1), task("resnet-18", seed=2)
    before = copy.deepcopy(teacher.state_dict())
    distillation = Distillation(student, teacher)
    distillation.train()
    assert student.training
    assert not any(module.training for module in teacher.modules())
    distillation.loss(batch())["loss"].backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())  # batch norms, too
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(p.grad is not None and p.grad.any() for p in student.parameters())


def test_the_teacher_is_in_no_optimizer_average_or_checkpoint_and_yet_moves_along():
    student, teacher = task(seed=1), task(seed=2)
    distillation = Distillation(student, teacher)
    assert {id(p) for p in distillation.parameters()} == {id(p) for p in student.parameters()}
    assert {f"student.{name}" for name in student.state_dict()} == distillation.state_dict().keys()
    assert Ema(distillation, 0.9).weights.keys() == distillation.state_dict().keys()
    assert teacher not in list(distillation.modules())
    grouped = [
        p for group in build_optimizer(distillation, "adamw", 1e-3, 0.05, 0.5).param_groups for p in group["params"]
    ]
    assert {id(p) for p in grouped} == {id(p) for p in student.parameters()}
    distillation.to("meta")
    assert {p.device.type for p in (*student.parameters(), *teacher.parameters())} == {"meta"}


def test_layers_are_the_students():
    student = task(seed=1)
    distillation = Distillation(student, task(seed=2))
    assert distillation.depth == student.depth
    layers = [distillation.layer(name) for name, _ in distillation.named_parameters()]
    assert layers == [student.layer(name) for name, _ in student.named_parameters()]
    assert torch.equal(distillation(batch().images), student(batch().images))


def test_the_loop_trains_the_student_to_say_what_the_teacher_says(tmp_path):
    """With the teacher alone to learn from, the student comes to agree with it on the images that it has seen."""
    student, teacher = task("deit-ti16-distilled", seed=1), task("resnet-18", seed=2)
    distillation = Distillation(student, teacher, "soft", alpha=1.0)
    given = batch(8)

    def agreement():
        with torch.no_grad():
            logits = student.head.both(student.features(given.images))[1]
        return {"agreement": (logits.argmax(dim=1) == teacher(given.images).argmax(dim=1)).float().mean().item()}

    def load(start, stop):
        return (given for _ in range(start, stop))

    with torch.no_grad():
        before = distillation.loss(given)["distillation"].item()
    plan = Plan(steps=40, steps_per_epoch=40, learning_rate=3e-3, ema=0.5)
    options = {"score": "agreement", "keep": lambda: None, "folder": tmp_path, "device": torch.device("cpu")}
    state = fit(distillation, load, plan, validate=agreement, **options)
    with torch.no_grad():
        assert distillation.eval().loss(given)["distillation"].item() < before / 10
    assert state.best == 1
    saved = torch.load(tmp_path / "last" / "state.pt", weights_only=True)["weights"]
    assert saved.keys() == {f"student.{name}" for name in student.state_dict()}


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (("cat", "dog", "owl"), "the teacher does not know 'fox' and the student does not know 'owl'"),
        (("cat", "dog"), "the teacher does not know 'fox'"),
        (("cat", "dog", "fox", *"abcde"), "the student does not know 'a', 'b', 'c' and 2 more"),
        (("cat", "fox", "dog"), "class 2 is 'fox' for the teacher and 'dog' for the student"),
    ],
)
def test_a_teacher_of_other_classes_is_refused(theirs, words):
    with pytest.raises(SettingError) as error:
        Distillation(task(), task(classes=theirs))
    assert str(error.value) == f"teacher and student must have the same classes in the same order, but {words}."


@pytest.mark.parametrize(
    ("teacher", "settings", "words"),
    [
        ({}, {"kind": "warm"}, "hard or soft, not 'warm'"),
        ({}, {"alpha": 1.5}, "from 0 to 1, not 1.5"),
        ({}, {"temperature": 0.0}, "above 0, not 0.0"),
        ({"channels": 1}, {}, "the teacher sees 1 channel"),
        ({"many_labels": True}, {}, "without many labels"),
    ],
)
def test_settings_that_make_no_sense(teacher, settings, words):
    with pytest.raises(SettingError, match=words):
        Distillation(task(), task(**teacher), **settings)
