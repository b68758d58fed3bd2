"""DINO: the loss and the schedules are the paper's, the teacher follows and never learns, small views fit the model."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from vitrail import models
from vitrail.data.preprocess import Preprocess
from vitrail.data.sample import Batch
from vitrail.errors import SettingError
from vitrail.objectives.dino import (
    ANY_SIZE,
    DINO,
    Head,
    cross_entropy_of_views,
    entropies,
    local_size,
    momentum,
    teacher_temperature,
)
from vitrail.objectives.views import dino_views

SMALL = {"width": 32, "depth": 2, "heads": 2, "mlp": 48, "patch_size": 4, "image_size": 16}
FEW = {"local_views": 3, "outputs": 12, "hidden": 24, "bottleneck": 10}


def dino(model="vit-s16", config=None, **options):
    torch.manual_seed(0)
    backbone = models.create(model, **(SMALL if config is None else config))
    size, channels = backbone.config.image_size, backbone.config.channels
    preprocess = Preprocess(size, channels=channels, mean=(0.5,) * channels, std=(0.5,) * channels)
    return DINO(model, backbone, preprocess, DINO.Options(**{**FEW, **options}))


def batch_for(learner, count=4, seed=1):
    random = torch.Generator().manual_seed(seed)

    def images(size):
        return torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=random)

    views = tuple(images(preprocess.size) for _, preprocess in learner.further)
    return Batch(images(learner.preprocess.size), ("",) * count, views=views)


# ---- the loss ----


def view_by_view(given, wanted, centre, temperature, teacher):
    """Equations 1 to 3 and algorithm 1 with loops, of outputs before any softmax: a list of views, each (B, K)."""
    terms = []
    for i, answer in enumerate(wanted):
        p = ((answer - centre) / teacher).softmax(dim=1)
        for v, guess in enumerate(given):
            if i != v:
                q = (guess / temperature).softmax(dim=1)
                terms += [-(p[n] * q[n].log()).sum() for n in range(len(p))]
    return torch.stack(terms).mean()


@pytest.mark.parametrize("views", [2, 5])
def test_the_loss_is_the_mean_over_all_pairs_of_different_views(views):
    random = torch.Generator().manual_seed(0)
    given = torch.randn(views, 3, 7, generator=random, dtype=torch.float64)
    wanted = torch.randn(2, 3, 7, generator=random, dtype=torch.float64)
    expected = view_by_view(given, wanted, 0.0, 1.0, 1.0)
    loss = cross_entropy_of_views(given.log_softmax(dim=2), wanted.softmax(dim=2))
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("done", [0.0, 0.1, 1.0])
def test_the_loss_of_a_batch_view_by_view(done):
    learner = dino().eval()
    learner.centre.copy_(torch.linspace(-0.5, 0.5, 12))
    learner.done.fill_(done)
    batch = batch_for(learner)
    views = [learner.normalized(images) for images in (batch.images, *batch.views)]
    given = [learner.student_head(learner.student(view).pooled) for view in views]
    wanted = [learner.head(learner.backbone(view).pooled) for view in views[:2]]
    expected = view_by_view(given, wanted, learner.centre, 0.1, teacher_temperature(done, learner.options))
    torch.testing.assert_close(learner.loss(batch)["loss"], expected, atol=1e-5, rtol=1e-5)


def test_a_collapse_shows_in_the_figures():
    learner = dino(temperature_warmup=0).eval()
    batch = batch_for(learner)
    assert learner.loss(batch)["information"] >= 0
    with torch.no_grad():
        learner.head.last.weight.copy_(learner.head.last.weight[:1].expand_as(learner.head.last.weight))
    uniform = learner.loss(batch)
    assert uniform["entropy"].item() == pytest.approx(math.log(12), abs=1e-4)
    assert uniform["information"].item() == pytest.approx(0, abs=1e-4)
    learner.centre[0] = -10.0  # one output wins for every image
    one = learner.loss(batch)
    assert one["entropy"].item() == pytest.approx(0, abs=1e-4)
    assert one["information"].item() == pytest.approx(0, abs=1e-4)


def test_entropies():
    torch.testing.assert_close(entropies(torch.tensor([[1.0, 0, 0, 0], [0.25] * 4])), torch.tensor([0.0, math.log(4)]))


# ---- student and teacher ----


def test_only_the_student_learns():
    learner = dino(frozen=0.0)
    learner.train().loss(batch_for(learner))["loss"].backward()
    learned = {name.partition(".")[0] for name, p in learner.named_parameters() if p.grad is not None and p.grad.any()}
    assert learned == {"student", "student_head"}
    asked = {name.partition(".")[0] for name, p in learner.named_parameters() if p.requires_grad}
    assert asked == learned


def test_at_first_the_teacher_is_the_student():
    learner = dino()
    for ours, theirs in ((learner.backbone, learner.student), (learner.head, learner.student_head)):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name])


def test_the_teacher_is_the_moving_average_of_the_student():
    learner = dino(momentum=0.9).train()
    pairs = [(learner.backbone, learner.student), (learner.head, learner.student_head)]
    expected = [{name: p.clone() for name, p in teacher.named_parameters()} for teacher, _ in pairs]
    for step in range(4):
        learner.loss(batch_for(learner, seed=step))
        with torch.no_grad():
            for _, student in pairs:
                for parameter in student.parameters():
                    parameter.add_(torch.randn_like(parameter))
        m = 1 - 0.1 * (math.cos(math.pi * step / 4) + 1) / 2
        for average, (_, student) in zip(expected, pairs, strict=True):
            for name, parameter in student.named_parameters():
                average[name] = m * average[name] + (1 - m) * parameter.detach()
        learner.after_step((step + 1) / 4)
    for average, (teacher, _) in zip(expected, pairs, strict=True):
        for name, parameter in teacher.named_parameters():
            torch.testing.assert_close(parameter, average[name])


def test_momentum_and_temperature_follow_their_schedules():
    assert [momentum(done, 0.996) for done in (0.0, 0.5, 1.0)] == pytest.approx([0.996, 0.998, 1.0])
    options = DINO.Options(teacher_temperature=0.07, first_temperature=0.04, temperature_warmup=0.3)
    found = [teacher_temperature(done, options) for done in (0.0, 0.15, 0.3, 1.0)]
    assert found == pytest.approx([0.04, 0.055, 0.07, 0.07])
    assert teacher_temperature(0.0, replace(options, temperature_warmup=0.0)) == 0.07


@pytest.mark.parametrize("parts", [1, 2])
def test_the_centre_follows_the_mean_of_the_teachers_answers_whether_a_batch_is_cut_or_not(parts):
    learner = dino(centre_momentum=0.8).train()
    expected = torch.zeros(12)
    for step in range(3):
        batch = batch_for(learner, seed=step)
        with torch.no_grad():
            large = learner.normalized(torch.cat([batch.images, batch.views[0]]))
            expected = 0.8 * expected + 0.2 * learner.head(learner.backbone(large).pooled).mean(dim=0)
        before = learner.centre.clone()
        for part in batch.split(parts):
            learner.loss(part)
        assert torch.equal(learner.centre, before)  # until the step is done
        learner.after_step((step + 1) / 3)
    torch.testing.assert_close(learner.centre, expected)


def test_what_is_measured_leaves_no_trace():
    learner = dino().train()
    learner.loss(batch_for(learner))
    learner.eval()
    learner.loss(batch_for(learner, seed=9))
    learner.train()
    other = dino().train()
    other.loss(batch_for(other))
    for each in (learner, other):
        each.after_step(0.5)
    assert torch.equal(learner.centre, other.centre)


def test_the_last_layer_stays_at_first():
    learner = dino(frozen=0.5).train()
    for done, moves in ((0.0, False), (0.49, False), (0.5, True)):
        learner.done.fill_(done)
        learner.zero_grad()
        learner.loss(batch_for(learner))["loss"].backward()
        assert bool(learner.student_head.last.weight.grad.any()) == moves
        assert learner.student_head.mlp[0].weight.grad.any()


def test_the_teacher_drops_nothing_but_takes_its_own_statistics():
    learner = dino("vit-micro", {"image_size": 16, "depth": 2, "dropout": 0.5, "drop_path": 0.5}).train()
    assert learner.student.blocks[0].training
    assert not learner.backbone.blocks[0].training
    before = learner.backbone.state_dict()["patch_embedding.convs.0.1.running_mean"].clone()
    learner.loss(batch_for(learner))
    assert not torch.equal(learner.backbone.state_dict()["patch_embedding.convs.0.1.running_mean"], before)
    learner.eval()
    assert not any(module.training for module in learner.modules())


# ---- the head ----


def test_the_head_gives_cosines_whatever_the_length_of_its_directions():
    head = Head(8, DINO.Options(**FEW))
    x = torch.randn(5, 8)
    answers = head(x)
    hidden = head.mlp(x)
    for n in range(5):
        for k in range(12):
            cosine = F.cosine_similarity(hidden[n], head.last.weight[k], dim=0)
            torch.testing.assert_close(answers[n, k], cosine)
    with torch.no_grad():
        head.last.weight *= torch.rand(12, 1) + 0.5
    torch.testing.assert_close(head(x), answers)


def test_the_last_layer_is_exact_in_bfloat16():
    head = Head(8, DINO.Options(**FEW))
    with torch.autocast("cpu", torch.bfloat16):
        answers = head(torch.randn(5, 8))
    assert answers.dtype == torch.float32
    assert not torch.equal(answers, answers.bfloat16().float())


def test_batch_norms_of_the_teachers_head_see_its_own_views():
    learner = dino(batch_norm=True).train()
    before = learner.head.state_dict()["mlp.1.running_mean"].clone()
    learner.loss(batch_for(learner))
    assert not torch.equal(learner.head.state_dict()["mlp.1.running_mean"], before)


@pytest.mark.parametrize(("width", "hidden"), [(128, 768), (384, 2048), (768, 2048)])
def test_the_width_of_the_head_follows_the_backbone(width, hidden):
    with torch.device("meta"):
        assert Head(width, DINO.Options()).mlp[0].out_features == hidden


# ---- views ----


def test_the_views_are_the_papers():
    first, second, local = dino_views(0.4, 224)
    assert [view.crop_scale for view in (first, second, local)] == [(0.4, 1.0), (0.4, 1.0), (0.05, 0.4)]
    for view, blur, solarize in ((first, 1.0, 0.0), (second, 0.1, 0.2), (local, 0.5, 0.0)):
        colour = view.colour
        assert (colour.brightness, colour.contrast, colour.saturation, colour.hue) == (0.4, 0.4, 0.2, 0.1)
        assert (colour.jitter, colour.grey, colour.radius, view.flip) == (0.8, 0.2, (0.1, 2.0), 0.5)
        assert (colour.blur, colour.solarize) == (blur, solarize)
    assert all(view.colour.blur == 0 for view in dino_views(0.4, 32))


def test_two_large_views_and_as_many_small_ones_as_asked_for():
    learner = dino(local_views=3)
    assert [preprocess.size for _, preprocess in learner.further] == [(16, 16), (8, 8), (8, 8), (8, 8)]
    alone = dino(local_views=0)
    assert [preprocess.size for _, preprocess in alone.further] == [(16, 16)]
    assert torch.isfinite(alone.train().loss(batch_for(alone))["loss"])


@pytest.mark.parametrize(
    ("model", "config", "side"),
    [
        ("vit-s16", {}, 96),
        ("vit-s8", {}, 96),
        ("vit-h14", {"depth": 1}, 98),
        ("vit-micro", {}, 12),
        ("resnet-50", {}, 96),
        ("resnet-20", {}, 14),
    ],
)
def test_small_views_are_96_of_224_pixels_in_whole_patches(model, config, side):
    with torch.device("meta"):
        backbone = models.create(model, **config)
    assert local_size(model, backbone, 0) == (side, side)


@pytest.mark.parametrize("family", ANY_SIZE)
def test_each_family_takes_small_views(family):
    model = next(iter(models.FAMILIES[family].sizes))
    with torch.device("meta"):
        backbone = models.create(model, **({"resnet_stages": ()} if family == "vit" else {}))
        size = local_size(model, backbone, 0)
        features = backbone.eval()(torch.empty(1, backbone.config.channels, *size))
    assert features.pooled.shape == (1, backbone.width)
    assert size < backbone.config.image_size


def test_learned_positions_are_resampled_for_small_views_and_learn_from_them():
    learner = dino(frozen=0.0)
    small = torch.randn(2, 3, 8, 8)
    learner.student(small).pooled.sum().backward()
    assert (learner.student.positions.grad[0].abs().sum(dim=1) > 0).all()
    whole = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(learner.student(whole).pooled, learner.backbone(whole).pooled)  # no change at full size
    with pytest.raises(SettingError, match="4x4 patches"):
        learner.backbone(small)  # the teacher never sees one


# ---- bad settings ----


@pytest.mark.parametrize(
    "options",
    [
        {"local_views": -1},
        {"local_size": 7},
        {"outputs": 0},
        {"temperature": 0},
        {"teacher_temperature": float("nan")},
        {"momentum": 1.5},
        {"split": 0},
        {"frozen": -0.1},
    ],
)
def test_settings_that_make_no_sense_are_refused(options):
    with pytest.raises(SettingError):
        dino(**options)


def test_a_model_of_one_image_size_is_refused_with_small_views_and_taken_without():
    config = {"width": 32, "depth": 1, "heads": 2, "mlp": 48, "image_size": 32}
    with pytest.raises(SettingError, match="local_views=0"):
        dino("deit-ti16", config)
    assert dino("deit-ti16", config, local_views=0).further
