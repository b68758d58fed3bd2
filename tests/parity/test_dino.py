"""DINO's loss, centre, head and schedules beside the authors' program, a clone in `VITRAIL_REPOSITORIES`/dino.

Only single classes are taken out of its files, whose imports want torchvision and a GPU.
"""

import ast
import os
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vitrail.objectives.dino import DINO, Head, cross_entropy_of_views, momentum, teacher_temperature

FOLDER = Path(os.environ.get("VITRAIL_REPOSITORIES", "nowhere"), "dino")
pytestmark = pytest.mark.skipif(
    not (FOLDER / "main_dino.py").is_file(), reason="VITRAIL_REPOSITORIES has no clone of facebookresearch/dino"
)

ALONE = types.SimpleNamespace(all_reduce=lambda tensor: None, get_world_size=lambda: 1)


def theirs(file, name):
    """A class or function of the authors' file, and no more of it."""
    tree = ast.parse((FOLDER / file).read_text())
    tree.body = [node for node in tree.body if getattr(node, "name", None) == name]
    space = {"torch": torch, "nn": nn, "F": F, "np": np, "dist": ALONE, "trunc_normal_": nn.init.trunc_normal_}
    exec(compile(tree, file, "exec"), space)
    return space[name]


@pytest.mark.parametrize("views", [2, 6])
def test_loss_and_centre_over_several_steps(views):
    options = DINO.Options(teacher_temperature=0.07, first_temperature=0.04, temperature_warmup=0.3)
    peer = theirs("main_dino.py", "DINOLoss")(16, views, 0.04, 0.07, 3, 10)
    centre = torch.zeros(16)
    random = torch.Generator().manual_seed(0)
    for epoch in range(0, 10, 3):
        student = torch.randn(views * 5, 16, generator=random)
        teacher = torch.randn(2 * 5, 16, generator=random) + 0.5
        expected = peer(student, teacher, epoch)
        temperature = float(peer.teacher_temp_schedule[epoch])
        wanted = ((teacher - centre) / temperature).softmax(dim=1).unflatten(0, (2, 5))
        loss = cross_entropy_of_views((student / 0.1).log_softmax(dim=1).unflatten(0, (views, 5)), wanted)
        torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
        centre.lerp_(teacher.mean(dim=0), 1 - options.centre_momentum)
        torch.testing.assert_close(centre, peer.center[0])
    ends = [teacher_temperature(done, options) for done in (0.0, 1.0)]
    assert ends == pytest.approx([peer.teacher_temp_schedule[0], peer.teacher_temp_schedule[-1]])


@pytest.mark.parametrize("batch_norm", [False, True])
def test_head_with_their_weights(batch_norm):
    ours = Head(8, DINO.Options(outputs=20, hidden=24, bottleneck=10, batch_norm=batch_norm))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch has a newer form of weight normalisation
        peer = theirs("vision_transformer.py", "DINOHead")(8, 20, batch_norm, hidden_dim=24, bottleneck_dim=10)
    with torch.no_grad():
        peer.last_layer.weight_v.mul_(torch.rand(20, 1) + 0.5)
    ours.mlp.load_state_dict(peer.mlp.state_dict() if batch_norm else spread(peer.mlp.state_dict()))
    ours.last.load_state_dict({"weight": peer.last_layer.weight_v.detach()})
    x, y = torch.randn(6, 8), torch.randn(6, 20)
    torch.testing.assert_close(ours(x), peer(x))
    (ours(x) * y).sum().backward()
    (peer(x) * y).sum().backward()
    torch.testing.assert_close(ours.last.weight.grad, peer.last_layer.weight_v.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.mlp[0].weight.grad, peer.mlp[0].weight.grad, atol=1e-5, rtol=1e-4)


def spread(state):
    """Their numbers of the layers, where two places are kept free for batch norms that are not there."""
    places = {"0": "0", "2": "3", "4": "6"}
    return {f"{places[name[0]]}{name[1:]}": value for name, value in state.items()}


def test_the_teachers_momentum():
    peer = theirs("utils.py", "cosine_scheduler")(0.996, 1, 5, 20)
    assert [momentum(step / 100, 0.996) for step in range(100)] == pytest.approx(peer.tolist())
