"""Processors against transformers' own warpers, and `sample` against the law it promises."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from specdec_tutorial import (
    GreedyProcessor,
    LogitsProcessor,
    MultinomialProcessor,
    NucleusProcessor,
    TopKNucleusProcessor,
    TopKProcessor,
    sample,
)

ALL = [
    MultinomialProcessor(0.7),
    GreedyProcessor(),
    TopKProcessor(3, 0.7),
    NucleusProcessor(0.8, 0.7),
    TopKNucleusProcessor(5, 0.8, 0.7),
]
every_processor = pytest.mark.parametrize("processor", ALL, ids=lambda p: type(p).__name__)

seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from([torch.float32, torch.float64])
temperatures = st.floats(0.1, 5.0)
vocabularies = st.integers(1, 300)
top_ks = st.integers(1, 320)  # beyond the vocabulary too
top_ps = st.floats(0.01, 0.99)
spreads = st.sampled_from([0.1, 1.0, 5.0, 20.0])  # from nearly flat to nearly certain


def random_logits(seed: int, vocab: int, spread: float = 3.0, dtype: torch.dtype = torch.float64) -> Tensor:
    return spread * torch.randn(3, vocab, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def judge(logits: Tensor, temperature: float, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """Probabilities by transformers' warpers, in the order in which `generate` applies them."""
    logits = TemperatureLogitsWarper(float(temperature))(None, logits)
    if top_k is not None:
        logits = TopKLogitsWarper(top_k)(None, logits)
    if top_p is not None:
        logits = TopPLogitsWarper(top_p)(None, logits)
    return torch.softmax(logits, dim=-1)


def assert_same_law(ours: Tensor, theirs: Tensor) -> None:
    exact = ours.dtype == torch.float64
    torch.testing.assert_close(ours, theirs, rtol=1e-10 if exact else 1e-4, atol=1e-14 if exact else 1e-7)
    torch.testing.assert_close(ours.sum(-1), torch.ones_like(ours.sum(-1)))


def assume_no_token_on_the_edge(logits: Tensor, temperature: float, top_k: int | None, top_p: float) -> None:
    """Where the running sum meets top_p up to rounding, keeping the token and dropping it are both right."""
    ranked = judge(logits.double(), temperature, top_k).sort(descending=True).values
    before = ranked.cumsum(-1) - ranked
    assume(bool(((before - top_p).abs() > (1e-12 if logits.dtype == torch.float64 else 1e-5)).all()))


# --- against transformers


@settings(deadline=None)
@given(seeds, vocabularies, spreads, dtypes, temperatures)
def test_multinomial_is_the_temperature_warper(seed, vocab, spread, dtype, temperature):
    logits = random_logits(seed, vocab, spread, dtype)
    assert_same_law(MultinomialProcessor(temperature)(logits), judge(logits, temperature))


@settings(deadline=None)
@given(seeds, vocabularies, spreads, dtypes)
def test_greedy_is_the_argmax(seed, vocab, spread, dtype):
    logits = random_logits(seed, vocab, spread, dtype)
    expected = torch.nn.functional.one_hot(logits.argmax(-1), vocab).to(dtype)
    assert torch.equal(GreedyProcessor()(logits), expected)


@settings(deadline=None)
@given(seeds, vocabularies, spreads, dtypes, temperatures, top_ks)
def test_top_k_is_the_warper(seed, vocab, spread, dtype, temperature, top_k):
    logits = random_logits(seed, vocab, spread, dtype)
    ours, theirs = TopKProcessor(top_k, temperature)(logits), judge(logits, temperature, top_k)
    assert torch.equal(ours > 0, theirs > 0)
    assert_same_law(ours, theirs)


@settings(deadline=None)
@given(seeds, vocabularies, spreads, dtypes, temperatures, top_ps)
def test_nucleus_is_the_warper(seed, vocab, spread, dtype, temperature, top_p):
    logits = random_logits(seed, vocab, spread, dtype)
    assume_no_token_on_the_edge(logits, temperature, None, top_p)
    ours, theirs = NucleusProcessor(top_p, temperature)(logits), judge(logits, temperature, None, top_p)
    assert torch.equal(ours > 0, theirs > 0)
    assert_same_law(ours, theirs)


@settings(deadline=None)
@given(seeds, vocabularies, spreads, dtypes, temperatures, top_ks, top_ps)
def test_top_k_nucleus_is_both_warpers_in_their_order(seed, vocab, spread, dtype, temperature, top_k, top_p):
    logits = random_logits(seed, vocab, spread, dtype)
    assume_no_token_on_the_edge(logits, temperature, top_k, top_p)
    ours, theirs = TopKNucleusProcessor(top_k, top_p, temperature)(logits), judge(logits, temperature, top_k, top_p)
    assert torch.equal(ours > 0, theirs > 0)
    assert_same_law(ours, theirs)


WEIGHTS = torch.tensor([10.0, 6.0, 3.0, 1.0], dtype=torch.float64)


def test_temperature_comes_before_the_nucleus():
    # at T = 1/2 the weights are 100, 36, 9, 1: two tokens reach 0.9; at T = 1 it takes three
    assert NucleusProcessor(0.9, temperature=0.5)(WEIGHTS.log()).count_nonzero() == 2
    assert NucleusProcessor(0.9)(WEIGHTS.log()).count_nonzero() == 3


def test_top_k_comes_before_the_nucleus():
    # of the two best, 10 and 6, the first alone has 0.625; of all four it has 0.5
    assert TopKNucleusProcessor(2, 0.6)(WEIGHTS.log()).tolist() == [1, 0, 0, 0]


# --- what holds for every processor


@every_processor
@pytest.mark.parametrize("shape", [(7,), (1, 7), (4, 7), (2, 3, 7), (0, 7)])
def test_rows_are_independent_and_shapes_stay(processor: LogitsProcessor, shape):
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    probs = processor(logits)
    assert probs.shape == shape
    for row, result in zip(logits.reshape(-1, 7), probs.reshape(-1, 7), strict=True):
        torch.testing.assert_close(processor(row), result)


@every_processor
def test_inputs_are_not_changed(processor: LogitsProcessor):
    logits = random_logits(0, 40)
    before = logits.clone()
    processor(logits)
    processor.filter(logits)
    assert torch.equal(logits, before)


@every_processor
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(processor: LogitsProcessor, dtype):
    logits = random_logits(1, 40).to(dtype)
    assert processor(logits).dtype == torch.float32
    assert torch.equal(processor(logits), processor(logits.float()))


@every_processor
def test_a_token_ruled_out_before_stays_out(processor: LogitsProcessor):
    logits = random_logits(2, 10)
    logits[:, 4] = -torch.inf
    probs = processor(logits)
    assert (probs[:, 4] == 0).all()
    torch.testing.assert_close(probs.sum(-1), torch.ones(3, dtype=torch.float64))


@every_processor
def test_only_differences_of_logits_count(processor: LogitsProcessor):
    logits = random_logits(3, 10)
    torch.testing.assert_close(processor(logits + 1000), processor(logits), rtol=1e-9, atol=1e-12)


# --- greedy, ties, the size of the nucleus


def test_ties():
    assert GreedyProcessor()(torch.tensor([1.0, 3.0, 3.0, 0.0])).tolist() == [0, 1, 0, 0]  # the lowest id wins
    assert TopKProcessor(2)(torch.tensor([5.0, 3.0, 3.0, 0.0])).gt(0).tolist() == [True, True, True, False]  # all stay
    assert NucleusProcessor(0.4)(torch.zeros(4)).gt(0).tolist() == [True, True, False, False]  # the lowest ids stay


@settings(deadline=None)
@given(seeds, vocabularies, dtypes)
def test_without_a_tie_top_k_1_is_greedy(seed, vocab, dtype):
    logits = random_logits(seed, vocab, dtype=dtype)
    best = logits.topk(min(2, vocab)).values
    assume(vocab == 1 or bool((best[:, 0] > best[:, 1]).all()))
    assert torch.equal(TopKProcessor(1)(logits), GreedyProcessor()(logits))


@settings(deadline=None)
@given(seeds, vocabularies, spreads, top_ps)
def test_the_nucleus_is_the_smallest_set_that_reaches_top_p(seed, vocab, spread, top_p):
    logits = random_logits(seed, vocab, spread)
    assume_no_token_on_the_edge(logits, 1.0, None, top_p)
    full, kept = torch.softmax(logits, -1), NucleusProcessor(top_p)(logits) > 0
    for probs, inside in zip(full, kept, strict=True):
        mass = probs[inside].sum()
        assert mass > top_p - 1e-9
        assert mass - probs[inside].min() < top_p  # without its rarest token it falls short
        assert not (~inside).any() or probs[inside].min() >= probs[~inside].max()


@pytest.mark.parametrize("top_p", [1e-9, 0.5, 1.0])
def test_the_nucleus_always_has_a_token(top_p):
    certain = torch.tensor([0.0, 1000.0, 0.0])
    assert NucleusProcessor(top_p)(certain).tolist() == [0, 1, 0]
    assert NucleusProcessor(top_p)(torch.zeros(3)).count_nonzero() >= 1


def test_top_p_1_rules_nothing_out_in_float32():
    logits = random_logits(0, 4096, spread=5.0, dtype=torch.float32)
    assert torch.equal(NucleusProcessor(1.0)(logits), MultinomialProcessor()(logits))


# --- sample

weight = st.sampled_from([0.0, 1e-300, 1e-9, 0.1, 1.0, 1e9])


@settings(deadline=None)
@given(st.lists(weight, min_size=1, max_size=50), st.floats(0, 1, exclude_max=True))
def test_sample_inverts_the_running_sum_and_never_draws_weight_zero(weights, u):
    assume(any(weights))
    token = int(sample(torch.tensor(weights, dtype=torch.float64), torch.tensor(u, dtype=torch.float64)))
    assert weights[token] > 0
    running = torch.tensor(weights, dtype=torch.float64).cumsum(0).tolist()
    assert running[token] > u * running[-1]
    assert token == 0 or running[token - 1] <= u * running[-1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_sample_is_exact_at_the_breakpoints(dtype):
    probs = torch.tensor([0.25, 0.0, 0.5, 0.125, 0.125, 0.0], dtype=dtype)
    for token, (left, right) in zip((0, 2, 3, 4), pairwise([0.0, 0.25, 0.75, 0.875, 1.0]), strict=True):
        ends = torch.tensor([left, math.nextafter(right, 0)], dtype=torch.float64)  # the interval is [left, right)
        assert sample(probs.expand(2, -1), ends).tolist() == [token, token]


def test_sample_counts_exactly_on_a_grid():
    grid = (torch.arange(20, dtype=torch.float64) + 0.5) / 20
    assert sample(WEIGHTS.expand(20, -1), grid).bincount().tolist() == [10, 6, 3, 1]


def test_sample_reaches_tokens_too_rare_for_a_float32_sum():
    probs = torch.tensor([1.0, 1e-9])
    assert sample(probs, torch.tensor(math.nextafter(1, 0), dtype=torch.float64)) == 1


def test_sample_takes_any_leading_shape():
    probs = torch.rand(2, 3, 7, generator=torch.Generator().manual_seed(0))
    uniform = torch.rand(2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tokens = sample(probs, uniform)
    assert tokens.shape == (2, 3)
    assert tokens.tolist() == [[int(sample(probs[i, j], uniform[i, j])) for j in range(3)] for i in range(2)]


@every_processor
def test_drawn_tokens_follow_the_processed_law(processor: LogitsProcessor):
    # Chi-square: of all seeds, one in 10 000 would fail a correct processor. This one is fixed, so it never flickers.
    n = 20_000
    probs = processor(WEIGHTS.log())
    drawn = sample(probs.expand(n, -1), torch.rand(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    counts = drawn.bincount(minlength=4)
    inside = probs > 0
    assert counts[~inside].sum() == 0
    if inside.sum() > 1:
        expected = n * probs[inside] / probs[inside].sum()
        assert chisquare(counts[inside].numpy(), expected.numpy()).pvalue > 1e-4


# --- bad parameters


@pytest.mark.parametrize("temperature", [0, 0.0, -1, math.nan])
@pytest.mark.parametrize(
    ("kind", "others"),
    [(MultinomialProcessor, ()), (TopKProcessor, (2,)), (NucleusProcessor, (0.9,)), (TopKNucleusProcessor, (2, 0.9))],
)
def test_a_temperature_that_is_not_positive(kind, others, temperature):
    with pytest.raises(ValueError, match=f"temperature must be positive, got {temperature}; use GreedyProcessor"):
        kind(*others, temperature)


@pytest.mark.parametrize("top_k", [0, -3])
@pytest.mark.parametrize("make", [TopKProcessor, lambda k: TopKNucleusProcessor(k, 0.9)])
def test_a_top_k_below_one(make, top_k):
    with pytest.raises(ValueError, match=f"top_k must be at least 1, got {top_k}"):
        make(top_k)


@pytest.mark.parametrize("top_p", [0, -0.1, 1.01, math.nan])
@pytest.mark.parametrize("make", [NucleusProcessor, lambda p: TopKNucleusProcessor(2, p)])
def test_a_top_p_outside_its_range(make, top_p):
    with pytest.raises(ValueError, match=f"top_p must be above 0 and at most 1, got {top_p}"):
        make(top_p)
