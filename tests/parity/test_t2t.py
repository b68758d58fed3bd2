"""T2T-ViT against its equations, worked out slowly in float64 from tensors under the authors' names.

Neither Transformers nor timm has the family. The authors' own code is compared with in `peers/t2t.py`.
"""

import math

import pytest
import torch
import torch.nn.functional as F

from vitrail.heads.linear import LinearHead
from vitrail.models.t2t import LAYOUTS, Config, T2TViT
from vitrail.weights.rename import to_ours, to_theirs

WIDTH, DEPTH, HEADS, MLP, TOKENS, CLASSES = 12, 2, 3, 20, 6, 5


def authors_tensors(attention, grid, channels):
    """Random weights as a file of the authors has them."""
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 1 + grid[0] * grid[1], WIDTH),
        "tokens_to_token.project.weight": (WIDTH, TOKENS * 9),
        "tokens_to_token.project.bias": (WIDTH,),
        "head.weight": (CLASSES, WIDTH),
        "head.bias": (CLASSES,),
        **norm("norm", WIDTH),
    }
    for number, inputs in ((1, channels * 49), (2, TOKENS * 9)):
        name = f"tokens_to_token.attention{number}."
        shapes |= norm(name + "norm1", inputs) | norm(name + "norm2", TOKENS)
        if attention == "performer":
            shapes |= {name + "w": (TOKENS // 2, TOKENS)} | linear(name + "kqv", inputs, 3 * TOKENS)
            shapes |= linear(name + "proj", TOKENS, TOKENS)
            shapes |= linear(name + "mlp.0", TOKENS, TOKENS) | linear(name + "mlp.2", TOKENS, TOKENS)
        else:
            shapes |= {name + "attn.qkv.weight": (3 * TOKENS, inputs)} | linear(name + "attn.proj", TOKENS, TOKENS)
            shapes |= linear(name + "mlp.fc1", TOKENS, TOKENS) | linear(name + "mlp.fc2", TOKENS, TOKENS)
    for number in range(DEPTH):
        name = f"blocks.{number}."
        shapes |= norm(name + "norm1", WIDTH) | norm(name + "norm2", WIDTH)
        shapes |= {name + "attn.qkv.weight": (3 * WIDTH, WIDTH)} | linear(name + "attn.proj", WIDTH, WIDTH)
        shapes |= linear(name + "mlp.fc1", WIDTH, MLP) | linear(name + "mlp.fc2", MLP, WIDTH)
    return {name: torch.randn(shape) * (0.3 if len(shape) > 1 else 0.5) for name, shape in shapes.items()}


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def linear(name, inputs, outputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


class Equations:
    """The network of the paper from the authors' tensors, one image at a time."""

    def __init__(self, tensors):
        self.tensors = {name: tensor.double() for name, tensor in tensors.items()}

    def logits(self, image):
        x, grid = self.split(image.double(), 7, 4, 2)
        for number in (1, 2):
            x = self.token_layer(f"tokens_to_token.attention{number}.", x)
            x, grid = self.split(x.T.reshape(-1, *grid), 3, 2, 1)
        x = torch.cat([self.tensors["cls_token"][0], self.linear("tokens_to_token.project", x)])
        x = x + self.tensors["pos_embed"][0]
        for number in range(DEPTH):
            name = f"blocks.{number}."
            x = x + self.attention(name + "attn", self.norm(name + "norm1", x))
            x = x + self.mlp(name + "mlp.fc1", name + "mlp.fc2", self.norm(name + "norm2", x))
        return self.linear("head", self.norm("norm", x))[0]

    def split(self, map_, kernel, stride, padding):
        """The soft split, window by window."""
        channels, height, width = map_.shape
        padded = torch.zeros(channels, height + 2 * padding, width + 2 * padding, dtype=torch.float64)
        padded[:, padding : padding + height, padding : padding + width] = map_
        tops = range(0, padded.shape[1] - kernel + 1, stride)
        lefts = range(0, padded.shape[2] - kernel + 1, stride)
        windows = [padded[:, y : y + kernel, x : x + kernel].reshape(-1) for y in tops for x in lefts]
        return torch.stack(windows), (len(tops), len(lefts))

    def token_layer(self, name, x):
        x = self.norm(name + "norm1", x)
        if name + "w" in self.tensors:
            k, q, v = self.linear(name + "kqv", x).split(TOKENS, dim=1)
            x = v + self.linear(name + "proj", self.performer(name, q, k, v))
            return x + self.mlp(name + "mlp.0", name + "mlp.2", self.norm(name + "norm2", x))
        q, k, v = self.linear(name + "attn.qkv", x).split(TOKENS, dim=1)
        mixed = F.scaled_dot_product_attention(q[None], k[None], v[None], scale=x.shape[1] ** -0.5)[0]
        x = v + self.linear(name + "attn.proj", mixed)
        return x + self.mlp(name + "mlp.fc1", name + "mlp.fc2", self.norm(name + "norm2", x))

    def performer(self, name, q, k, v):
        """Each query's weight for each key, then the weighted mean of the values: quadratic, as it is defined."""
        w = self.tensors[name + "w"]

        def feature(vector):
            return [math.exp(float(row @ vector - vector @ vector / 2)) / math.sqrt(len(w)) for row in w]

        queries, keys = ([feature(vector) for vector in vectors] for vectors in (q, k))
        weights = [[sum(a * b for a, b in zip(one, other, strict=True)) for other in keys] for one in queries]
        rows = torch.tensor(weights, dtype=torch.float64)
        return rows @ v / (rows.sum(dim=1, keepdim=True) + 1e-8)

    def attention(self, name, x):
        q, k, v = self.linear(name + ".qkv", x).reshape(len(x), 3, HEADS, -1).permute(1, 2, 0, 3)
        mixed = F.scaled_dot_product_attention(q, k, v, scale=(WIDTH // HEADS) ** -0.5)
        return self.linear(name + ".proj", mixed.permute(1, 0, 2).reshape(len(x), -1))

    def mlp(self, first, second, x):
        return self.linear(second, F.gelu(self.linear(first, x)))

    def norm(self, name, x):
        weight, bias = self.tensors[name + ".weight"], self.tensors[name + ".bias"]
        variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    def linear(self, name, x):
        y = x @ self.tensors[name + ".weight"].T
        return y + self.tensors[name + ".bias"] if name + ".bias" in self.tensors else y


@pytest.mark.parametrize("attention", ["performer", "transformer"])
@pytest.mark.parametrize(
    ("size", "grid", "channels"), [((48, 48), (3, 3), 3), ((64, 32), (4, 2), 1), ((37, 50), (3, 3), 3)]
)
@torch.no_grad()
def test_logits_are_those_of_the_equations(attention, size, grid, channels):
    torch.manual_seed(0)
    config = Config(WIDTH, DEPTH, HEADS, MLP, attention, TOKENS, image_size=size, channels=channels)
    theirs = authors_tensors(attention, grid, channels)
    backbone, head = T2TViT(config).eval(), LinearHead(WIDTH, CLASSES)
    wanted = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    wanted |= {f"head.{name}": value for name, value in head.state_dict().items()}
    ours, difference = to_ours(theirs, wanted, LAYOUTS["paper"], config)
    assert not difference, str(difference)
    back = to_theirs(ours, LAYOUTS["paper"], config)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.items())

    torch.nn.ModuleDict({"backbone": backbone, "head": head}).load_state_dict(ours)
    images = torch.randn(2, channels, *size)
    equations = Equations(theirs)
    expected = torch.stack([equations.logits(image) for image in images]).float()
    torch.testing.assert_close(head(backbone(images)), expected, atol=1e-5, rtol=1e-5)
