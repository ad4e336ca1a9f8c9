"""Greedy speculative decoding writes the target's own text, with caches and accounts in order after every round.

Sampling is in `test_sampling_law.py`, bad input and odd ends in `test_speculative_edges.py`.
"""

import math

import pytest
import torch
from kit import (
    DTYPES,
    KINDS,
    assert_accounts,
    assert_same_tokens,
    checked_generate,
    drafter_of,
    perturbed,
    reference,
    target_of,
    transformers_greedy,
)
from tiny_models import WINDOW, tokens

from specdec_tutorial import (
    GreedyProcessor,
    MultinomialProcessor,
    NucleusProcessor,
    TopKNucleusProcessor,
    TopKProcessor,
    autoregressive_generate,
    speculative_generate,
)

ROLES = ["perturbed", "oracle", "negated"]
PROMPTS = [tuple(tokens(n, seed)) for seed, n in enumerate((6, 1, 17))]
GAMMAS = range(1, 9)
OPENINGS = ["Once upon a time", "Tom had a red ball.", "The little dog was sad because"]
LENGTH = 24  # of the new text

each_kind = pytest.mark.parametrize("kind", KINDS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
each_role = pytest.mark.parametrize("role", ROLES)


def pairs_of(gammas):
    """Every γ, and the prompts in turn."""
    return [(gamma, PROMPTS[i % len(PROMPTS)]) for i, gamma in enumerate(gammas)]


@each_kind
@each_dtype
@each_role
def test_greedy_text_is_the_targets_own(kind, dtype, role):
    target, drafter = target_of(kind, dtype), drafter_of(kind, dtype, role)
    accepted = rejected = 0
    n = 14 if role == "negated" else LENGTH  # wrong drafts cost the most
    for gamma, prompt in pairs_of(GAMMAS):
        out = speculative_generate(prompt, drafter, target, gamma=gamma, max_gen_len=n)
        assert_same_tokens(prompt, out.tokens, reference(kind, dtype, prompt, LENGTH)[:n], target)
        assert_accounts(out.trace, out.tokens, gamma, n)
        accepted, rejected = accepted + out.trace.accepted, rejected + out.trace.rejected
    # A drafter that is never right, or never wrong, would leave half of the loop untested.
    assert {"perturbed": 0.3 * rejected < accepted < 10 * rejected, "oracle": not rejected, "negated": not accepted}[
        role
    ]


@each_kind
@each_dtype
@pytest.mark.parametrize("role", ["perturbed", "negated"])
def test_both_caches_are_fresh_after_every_round(kind, dtype, role):
    target, drafter = target_of(kind, dtype), drafter_of(kind, dtype, role)
    for gamma, prompt in pairs_of((1, 4, 8)):
        text, _ = checked_generate(prompt, drafter, target, gamma=gamma, max_gen_len=16)
        assert_same_tokens(prompt, text, reference(kind, dtype, prompt, LENGTH)[:16], target)
        assert len(prompt) + 16 > 3 * WINDOW


@pytest.mark.parametrize("kind", ["llama", "gemma"])
@pytest.mark.parametrize(
    "processor",
    [MultinomialProcessor(1.5), TopKProcessor(5, 2.0), NucleusProcessor(0.9, 2.0), TopKNucleusProcessor(9, 0.9, 2.0)],
    ids=repr,
)
def test_caches_are_fresh_when_sampling(kind, processor):
    target, drafter = target_of(kind, torch.float64), perturbed(target_of(kind, torch.float64), 0.5)
    _, trace = checked_generate(PROMPTS[0], drafter, target, processor=processor, max_gen_len=30, seed=4)
    assert trace.accepted and trace.rejected


@pytest.mark.parametrize("kind", KINDS)
def test_equals_transformers_own_assisted_decoding(kind):
    target, drafter = target_of(kind, torch.float64), drafter_of(kind, torch.float64, "perturbed")
    for prompt, gamma in ((PROMPTS[0], 3), (PROMPTS[2], 5)):
        drafter.generation_config.num_assistant_tokens = gamma
        theirs = transformers_greedy(target, list(prompt), LENGTH, assistant_model=drafter)
        ours = speculative_generate(prompt, drafter, target, gamma=gamma, max_gen_len=LENGTH).tokens
        assert_same_tokens(prompt, ours, theirs, target)


@each_kind
@each_role
def test_without_cache_the_text_is_the_same(kind, role):
    target, drafter = target_of(kind, torch.float64), drafter_of(kind, torch.float64, role)
    for gamma, prompt in ((2, PROMPTS[0]), (5, PROMPTS[1])):
        out = speculative_generate(prompt, drafter, target, gamma=gamma, max_gen_len=12, use_cache=False)
        assert_same_tokens(prompt, out.tokens, reference(kind, torch.float64, prompt, LENGTH)[:12], target)
        with_cache = speculative_generate(prompt, drafter, target, gamma=gamma, max_gen_len=12)
        assert out.trace.target_positions > with_cache.trace.target_positions
        assert [r.drafted for r in out.trace.rounds] == [r.drafted for r in with_cache.trace.rounds]


def test_without_cache_samples_are_the_same():
    target, drafter = target_of("llama", torch.float64), drafter_of("llama", torch.float64, "perturbed")
    settings = {"logits_processor": MultinomialProcessor(1.5), "seed": 11, "max_gen_len": 20}
    cached, naive = (speculative_generate(PROMPTS[0], drafter, target, use_cache=c, **settings) for c in (True, False))
    assert cached.tokens == naive.tokens


@pytest.mark.parametrize("kind", ["hybrid", "mamba"])
def test_recurrent_models_work_without_cache(kind):
    target = target_of(kind)
    drafter = perturbed(target, 0.1)
    expected = autoregressive_generate(PROMPTS[0], target, max_gen_len=10, use_cache=False).tokens
    out = speculative_generate(PROMPTS[0], drafter, target, max_gen_len=10, use_cache=False)
    assert_same_tokens(PROMPTS[0], out.tokens, expected, target)


def test_target_and_drafter_may_be_different_architectures():
    for kind, other in (("llama", "gpt2"), ("gemma", "mistral"), ("gpt2", "gemma")):
        text, _ = checked_generate(PROMPTS[0], target_of(other), target_of(kind), max_gen_len=16)
        assert_same_tokens(PROMPTS[0], text, reference(kind, torch.float32, PROMPTS[0], LENGTH)[:16], target_of(kind))


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("n", [1, 2, 9, 24])
def test_an_oracle_is_always_right_and_needs_the_fewest_rounds(gamma, n):
    target = target_of("llama", torch.float64)
    trace = speculative_generate(PROMPTS[0], target, target, gamma=gamma, max_gen_len=n).trace
    assert len(trace.rounds) == 1 + math.ceil((n - 1) / (gamma + 1))
    assert trace.rejected == 0
    assert trace.acceptance_rate == 1.0 if n > 2 else math.isnan(trace.acceptance_rate)


def test_an_oracle_is_always_right_when_sampling():
    target = target_of("llama", torch.float64)
    for seed in range(4):
        settings = {"logits_processor": MultinomialProcessor(1.5), "seed": seed, "max_gen_len": 31}
        trace = speculative_generate(PROMPTS[0], target, target, gamma=5, **settings).trace
        assert (trace.acceptance_rate, len(trace.rounds)) == (1.0, 6)


def test_greedy_is_the_default():
    target, drafter = target_of("llama", torch.float64), drafter_of("llama", torch.float64, "perturbed")
    expected = reference("llama", torch.float64, PROMPTS[0], LENGTH)
    for processor in (None, GreedyProcessor()):
        for seed in (None, 1):  # greedy drafts are one-hot too, so chance has no say
            settings = {"logits_processor": processor, "seed": seed, "max_gen_len": LENGTH}
            out = speculative_generate(PROMPTS[0], drafter, target, **settings)
            assert out.tokens == expected
            assert all(q == 1.0 for r in out.trace.rounds for q in r.q)
            assert all(p in (0.0, 1.0) for r in out.trace.rounds for p in r.p)


@pytest.mark.parametrize("opening", OPENINGS)
def test_the_embedded_pair(pair, opening):
    ids, n = pair.tokenizer(opening)["input_ids"], 24
    ends = pair.target.generation_config.eos_token_id
    expected = autoregressive_generate(ids, pair.target, max_gen_len=n).tokens
    assert_same_tokens(ids, expected, transformers_greedy(pair.target, ids, n, ends), pair.target)
    for gamma in (1, 4, 7):
        out = speculative_generate(ids, pair.drafter, pair.target, gamma=gamma, max_gen_len=n)
        assert_same_tokens(ids, out.tokens, expected, pair.target)
        assert_accounts(out.trace, out.tokens, gamma, n, [ends])


def test_the_embedded_pair_after_every_round(pair):
    ids = pair.tokenizer(OPENINGS[0])["input_ids"]
    text, _ = checked_generate(ids, pair.drafter, pair.target, gamma=3, max_gen_len=10)
    assert_same_tokens(ids, text, autoregressive_generate(ids, pair.target, max_gen_len=10).tokens, pair.target)
    theirs = transformers_greedy(pair.target, ids, 10, assistant_model=pair.drafter)
    assert_same_tokens(ids, text, theirs, pair.target)
