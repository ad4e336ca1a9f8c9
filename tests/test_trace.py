"""A trace adds up: what counts as tested, an estimate of α without bias, and totals."""

import math

import pytest
import torch

from specdec_tutorial import Generation, Round, Trace

GAMMA, ROUNDS = 5, 4000


def simulated(alpha: float, seed: int) -> Trace:
    """Rounds in which every tested token is accepted with probability ``alpha``, independently."""
    coins = torch.rand(ROUNDS, GAMMA, generator=torch.Generator().manual_seed(seed)) < alpha
    accepted = coins.long().cumprod(1).sum(1).tolist()
    rounds = [Round([1] * (n + 1), drafted=[1] * GAMMA, accepted=n) for n in accepted]
    return Trace(3, [Round([1]), *rounds])


@pytest.mark.parametrize("alpha", [0.3, 0.7, 0.9])
def test_the_acceptance_rate_is_unbiased_and_accepted_over_drafted_is_not(alpha):
    trace = simulated(alpha, seed=1)
    # Four standard errors: with fresh seeds this would fail once in 16,000 times.
    margin = 4 * math.sqrt(alpha * (1 - alpha) / (trace.accepted + trace.rejected))
    assert abs(trace.acceptance_rate - alpha) < margin < 0.04

    censored = trace.accepted / sum(len(r.drafted) for r in trace.rounds)
    expected = alpha * (1 - alpha**GAMMA) / (1 - alpha) / GAMMA  # Leviathan et al. 2023, equation 1, less the bonus
    assert abs(censored - expected) < 0.02
    assert alpha - censored > 0.15


@pytest.mark.parametrize("alpha", [0.3, 0.9])
def test_tokens_per_round_is_what_theory_says(alpha):
    expected = (1 - alpha ** (GAMMA + 1)) / (1 - alpha)  # Leviathan et al. 2023, equation 1
    assert abs(simulated(alpha, seed=2).tokens_per_round - expected) < 4 * GAMMA / math.sqrt(ROUNDS)


@pytest.mark.parametrize(
    ("emitted", "drafted", "accepted", "decisions"),
    [
        ([9], [], 0, []),  # ordinary decoding
        ([9], [1, 2, 3], 0, [False]),
        ([1, 9], [1, 2, 3], 1, [True, False]),
        ([1, 2, 3, 9], [1, 2, 3], 3, [True] * 3),
        ([1], [1, 2, 3], 3, [True]),  # an end token inside the draft: what came after it does not count
        ([1, 2], [1, 2, 3], 2, [True, True]),  # ... nor does a rejection behind it
        ([1, 2, 9], [1, 2, 3], 2, [True, True, False]),
    ],
)
def test_decisions(emitted, drafted, accepted, decisions):
    assert Round(emitted, drafted=drafted, accepted=accepted).decisions == decisions


def test_totals():
    rounds = [Round([7]), Round([1, 9], drafted=[1, 2, 3], accepted=1), Round([1, 2], drafted=[1, 2, 3], accepted=3)]
    trace = Trace(4, rounds, seconds=2.0, model_seconds=1.5)
    assert (trace.accepted, trace.rejected) == (3, 1)
    assert trace.acceptance_rate == 3 / 4
    assert trace.tokens_per_round == 2.0
    assert trace.overhead == 0.25
    out = Generation([7, 1, 9, 1, 2], "eos", trace)
    assert (out.acceptance_rate, out.tokens_per_second) == (3 / 4, 2.5)


@pytest.mark.parametrize("rounds", [[], [Round([7])], [Round([7]), Round([8])]], ids=len)
def test_where_nothing_was_tested_there_is_no_rate(rounds):
    trace = Trace(4, rounds)
    assert (trace.accepted, trace.rejected) == (0, 0)
    assert math.isnan(trace.acceptance_rate)
    assert math.isnan(trace.tokens_per_round) == (len(rounds) < 2)
