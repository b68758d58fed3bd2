import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from vitrail.nn.sampling import probabilities, sample

V = 12


def logits(rows=4, seed=0):
    return torch.randn(rows, V, generator=torch.Generator().manual_seed(seed)) * 3


def by_hand(row, temperature, top_k, top_p):
    """Sorted tokens, taken one by one as long as they are allowed to be."""
    weights = {token: math.exp(value / temperature) for token, value in enumerate(row.double().tolist())}
    best = sorted(weights, key=lambda token: -weights[token])
    best = best[: top_k or V]
    total, kept, mass = sum(weights[token] for token in best), [], 0.0
    for token in best:
        if mass >= (top_p or 2) * total:
            break
        kept.append(token)
        mass += weights[token]
    return [weights[token] / mass if token in kept else 0.0 for token in range(V)]


@given(
    seed=st.integers(0, 1000),
    temperature=st.floats(0.1, 3),
    top_k=st.none() | st.integers(1, 2 * V),
    top_p=st.none() | st.floats(0.01, 0.99),
)
@settings(deadline=None, max_examples=200)
def test_what_is_left_is_what_the_papers_say(seed, temperature, top_k, top_p):
    x = logits(seed=seed)
    found = probabilities(x, temperature=temperature, top_k=top_k, top_p=top_p)
    expected = torch.tensor([by_hand(row, temperature, top_k, top_p) for row in x])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [None, 1, 3, V])
@pytest.mark.parametrize("top_p", [None, 0.2, 0.7, 0.95])
def test_as_transformers(temperature, top_k, top_p):
    x = logits(rows=50)
    scores = TemperatureLogitsWarper(temperature)(None, x)
    if top_k is not None:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p is not None:
        scores = TopPLogitsWarper(top_p)(None, scores)
    found = probabilities(x, temperature=temperature, top_k=top_k, top_p=top_p)
    torch.testing.assert_close(found, scores.softmax(dim=-1))


def test_the_nucleus_is_the_smallest_set_with_at_least_that_mass():
    x = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    sizes = {p: int((probabilities(x, top_p=p) > 0).sum()) for p in (0.01, 0.49, 0.51, 0.79, 0.81, 0.96, 1.0)}
    assert sizes == {0.01: 1, 0.49: 1, 0.51: 2, 0.79: 2, 0.81: 3, 0.96: 4, 1.0: 4}


def test_as_likely_as_the_last_of_them_is_likely_enough():
    x = torch.tensor([1.0, 2.0, 2.0, 0.0])
    assert probabilities(x, top_k=1).tolist() == [0, 0.5, 0.5, 0]


def test_without_temperature_the_likeliest_is_taken():
    x = logits()
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert torch.equal(sample(x, generator, temperature=0.0), x.argmax(dim=-1))
    assert torch.equal(generator.get_state(), before)


def test_a_seed_gives_the_same_tokens_and_another_one_others():
    x = logits(rows=64)
    first, again, other = (sample(x, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    sample(logits(), torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_tokens_are_drawn_as_often_as_they_are_likely():
    x, n = logits(rows=1), 40_000
    drawn = sample(x.expand(n, -1), torch.Generator().manual_seed(0), temperature=2.0, top_k=5)
    shares = drawn.bincount(minlength=V) / n
    expected = probabilities(x[0], temperature=2.0, top_k=5)
    assert (shares[expected == 0] == 0).all()
    assert ((shares - expected).abs() <= 4 * (expected * (1 - expected) / n).sqrt()).all()


@pytest.mark.parametrize("shape", [(V,), (3, V), (2, 5, V)])
def test_any_number_of_rows(shape):
    x = torch.randn(shape)
    for temperature in (0.0, 1.0):
        drawn = sample(x, torch.Generator().manual_seed(0), temperature=temperature)
        assert drawn.shape == shape[:-1]
        assert drawn.dtype == torch.int64


def test_half_precision_is_drawn_from_as_single():
    x = logits().bfloat16()
    assert probabilities(x).dtype == torch.float32
    torch.testing.assert_close(probabilities(x), x.float().softmax(dim=-1))
