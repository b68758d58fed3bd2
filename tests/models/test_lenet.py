import pytest
import torch
import torch.nn.functional as F

from vitrail.errors import SettingError
from vitrail.models.lenet.lenet import C3_TABLE, SIZES, Config, LeNet, SubSampling, TableConvolution, squash

# Table I of the paper as it is printed: rows are the maps of S2, columns the maps of C3.
TABLE_I = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""
CONNECTED = torch.tensor([[mark == "X" for mark in row] for row in TABLE_I.split()]).T  # (16, 6)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return LeNet(Config())


def connections(convolution):
    """Which pixels of its input every pixel of the convolution's output looks at: (16, 10, 10, 6, 14, 14) bool."""
    jacobian = torch.autograd.functional.jacobian(lambda x: convolution(x)[0], torch.randn(1, 6, 14, 14))
    return jacobian[:, :, :, 0] != 0


def test_parameter_counts_of_the_paper(model):
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert counts == {"c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164}
    assert sum(counts.values()) == 60_000  # "only 60,000 trainable free parameters"


def test_c3_has_151600_connections_where_table_1_has_them(model):
    seen = connections(model.c3)
    assert torch.equal(seen.any(dim=(1, 2, 4, 5)), CONNECTED)
    biases = 16 * 10 * 10
    assert seen.sum().item() + biases == 151_600


def test_absent_connections_of_c3_stay_absent_in_training(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    before = model.c3.weight.detach().clone()
    images = torch.randn(4, 1, 28, 28)
    for _ in range(100):
        optimizer.zero_grad()
        model(images).pooled.square().mean().backward()
        optimizer.step()
    assert (model.c3.weight != before).all()
    assert torch.equal(connections(model.c3).any(dim=(1, 2, 4, 5)), CONNECTED)


def test_c3_adds_one_small_convolution_for_every_connection(model):
    x = torch.randn(2, 6, 14, 14)
    expected = model.c3.bias[:, None, None].expand(2, 16, 10, 10).clone()
    kernels = iter(model.c3.weight)
    for output in range(16):
        for seen in C3_TABLE[output]:
            expected[:, output] += F.conv2d(x[:, [seen]], next(kernels)[None, None])[:, 0]
    torch.testing.assert_close(model.c3(x), expected)


def test_sub_sampling_is_coefficient_times_sum_of_four_plus_bias():
    layer = SubSampling(2)
    with torch.no_grad():
        layer.coefficient.copy_(torch.tensor([0.5, -1.0]))
        layer.bias.copy_(torch.tensor([1.0, 3.0]))
    x = torch.tensor([[1.0, 2, 0, 1], [3, 4, 0, 1]]).expand(1, 2, 2, 4)
    assert layer(x).tolist() == [[[[6.0, 2.0]], [[-7.0, 1.0]]]]


def test_squash_is_one_at_one():
    assert squash(torch.tensor([-1.0, 0.0, 1.0])).tolist() == pytest.approx([-1, 0, 1], abs=1e-4)
    assert squash(torch.tensor(1e3)).item() == pytest.approx(1.7159)


def test_initial_values_are_uniform_within_2_4_over_fan_in(model):
    fan_in = {"c1": 25, "s2": 4, "s4": 4, "c5": 400, "f6": 120}
    for name, inputs in fan_in.items():
        for parameter in getattr(model, name).parameters():
            assert parameter.abs().max() <= 2.4 / inputs
    for name in ("c1", "c5", "f6"):
        largest = getattr(model, name).weight.abs().max().item()
        assert largest == pytest.approx(2.4 / fan_in[name], rel=0.05)


def test_fan_in_of_c3_counts_the_connections_that_a_map_has():
    layer = TableConvolution(6, ((0,), (0, 1, 2, 3, 4, 5)))
    assert layer.weight[0].abs().max().item() == pytest.approx(2.4 / 25, rel=0.2)
    assert layer.weight[1:].abs().max().item() == pytest.approx(2.4 / 150, rel=0.1)


def test_28_pixels_are_padded_by_repeating_the_border(model):
    large = LeNet(Config(image_size=(32, 32)))
    large.load_state_dict(model.state_dict())
    images = torch.full((2, 1, 28, 28), -0.4)
    images[:, :, 4:24, 4:24] = torch.randn(2, 1, 20, 20)
    padded = torch.full((2, 1, 32, 32), -0.4)
    padded[:, :, 2:30, 2:30] = images
    torch.testing.assert_close(model(images).pooled, large(padded).pooled)


def test_maps_are_those_of_the_figure(model):
    features = model(torch.randn(3, 1, 28, 28))
    assert [tuple(map_.shape) for map_ in features.maps] == [(3, 6, 14, 14), (3, 16, 5, 5)]
    assert features.pooled.shape == (3, 84)


def test_other_image_sizes_are_refused(model):
    with pytest.raises(SettingError, match="28x28 or 32x32 pixels, not 64x48"):
        Config(image_size=(64, 48))
    with pytest.raises(SettingError, match="reads images of 28x28 pixels, not 32x30"):
        model(torch.zeros(1, 1, 32, 30))


def test_lenet_as_it_is_built_today():
    """The well-known count of a dense LeNet-5 with its ten classes, and plain torch layers that compute the same."""
    torch.manual_seed(0)
    model = LeNet(SIZES["lenet-5-relu"])
    assert sum(p.numel() for p in model.parameters()) + 84 * 10 + 10 == 61_706
    images = torch.randn(2, 1, 32, 32)
    s2 = F.max_pool2d(F.relu(model.c1(images)), 2)
    s4 = F.max_pool2d(F.relu(F.conv2d(s2, model.c3.weight, model.c3.bias)), 2)
    f6 = F.relu(model.f6(F.relu(model.c5(s4)).flatten(1)))
    features = model(images)
    torch.testing.assert_close(features.pooled, f6)
    torch.testing.assert_close(features.maps, (s2, s4))


@pytest.mark.parametrize(("what", "value"), [("c3", "sparse"), ("activation", "gelu"), ("pooling", "mean")])
def test_unknown_choices_are_named(what, value):
    with pytest.raises(SettingError, match=f"no {what} '{value}'; known are: "):
        Config(**{what: value})
