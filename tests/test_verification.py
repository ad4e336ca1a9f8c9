"""Verification proved: its whole output law, enumerated with exact fractions, equals the target's with zero tolerance.

The proof is as good as the enumeration, so known bugs are planted and the same enumeration must catch each.
"""

from fractions import Fraction
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specdec_tutorial.enumeration import Law, Row, ToyModel, emitted_law, joint_law, round_law
from specdec_tutorial.processors import sample
from specdec_tutorial.verification import Verdict, Verifier, verify_tokens


def row(*weights: int) -> tuple[Fraction, ...]:
    return tuple(Fraction(w, sum(weights)) for w in weights)


def always(law: Row) -> ToyModel:
    return lambda context: law


def by_context(*laws: Row) -> ToyModel:
    """A model whose answer depends on every token so far and on their number."""
    return lambda context: laws[(sum(context) + len(context)) % len(laws)]


def overlap(p: Row, q: Row) -> Fraction:
    return sum(map(min, p, q), Fraction(0))


PAIRS = {
    "typical": (row(5, 2, 3), row(2, 6, 2)),
    "p = q": (row(1, 2, 3), row(1, 2, 3)),
    "disjoint supports": (row(1, 3, 0, 0), row(0, 0, 1, 1)),
    "zeros in p": (row(3, 0, 1), row(1, 2, 1)),
    "zeros in q": (row(1, 2, 1), row(3, 0, 1)),
    "zeros in both": (row(1, 0, 1, 2), row(2, 0, 0, 2)),
    "one-hot q (n-gram)": (row(1, 2, 1), row(0, 1, 0)),
    "one-hot q where p = 0": (row(1, 0, 3), row(0, 1, 0)),
    "one-hot p (greedy target)": (row(0, 1, 0), row(1, 2, 1)),
    "greedy, same token": (row(0, 0, 1), row(0, 0, 1)),
    "greedy, other token": (row(1, 0, 0), row(0, 0, 1)),
    "vocabulary of two": (row(1, 3), row(3, 1)),
    "uniform against peaked": (row(1, 1, 1, 1), row(5, 1, 1, 1)),
}
each_pair = pytest.mark.parametrize(("p", "q"), PAIRS.values(), ids=PAIRS.keys())

MODELS = {
    "three tokens": (by_context(row(1, 1, 2), row(2, 2, 0), row(0, 1, 3)), by_context(row(1, 2, 1), row(2, 1, 1))),
    "two tokens": (by_context(row(1, 3), row(2, 2), row(0, 1)), by_context(row(3, 1), row(1, 0))),
    "n-gram drafter": (
        by_context(row(1, 1, 2), row(1, 3, 0), row(2, 1, 1)),
        by_context(row(0, 1, 0), row(0, 0, 1), row(1, 0, 0)),
    ),
    "greedy": (by_context(row(0, 1), row(1, 0), row(0, 1)), by_context(row(1, 0), row(0, 1))),
}
each_model = pytest.mark.parametrize(("p", "q"), MODELS.values(), ids=MODELS.keys())


@each_pair
@pytest.mark.parametrize("gamma", [0, 1])
def test_next_token_has_exactly_the_targets_law(p, q, gamma):
    assert emitted_law(verify_tokens, always(q), always(p), gamma, 1) == joint_law(always(p), 1)


@each_model
@pytest.mark.parametrize(("gamma", "length"), [(0, 3), (1, 4), (2, 4), (3, 3)])
def test_joint_law_across_rounds_is_exactly_the_targets(p, q, gamma, length):
    assert emitted_law(verify_tokens, q, p, gamma, length) == joint_law(p, length)


@each_pair
def test_acceptance_is_the_overlap_of_p_and_q(p, q):
    accepted = Fraction(0)
    for x, chance in enumerate(q):
        if chance:  # the first emitted token of an accepted draft may also come by correction: count by length
            law = round_law(verify_tokens, (x,), [q], [p, p])
            accepted += chance * sum(part for emitted, part in law.items() if len(emitted) == 2)
    total_variation = sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2
    assert accepted == overlap(p, q) == 1 - total_variation


def test_tokens_per_round_follow_the_geometric_series():
    p, q = row(1, 2, 1), row(2, 1, 1)
    alpha = overlap(p, q)
    for gamma in range(4):
        mean = Fraction(0)
        for drafted, chance in joint_law(always(q), gamma).items():
            law = round_law(verify_tokens, drafted, [q] * gamma, [p] * (gamma + 1))
            mean += chance * sum(len(emitted) * part for emitted, part in law.items())
        assert mean == (1 - alpha ** (gamma + 1)) / (1 - alpha)


@st.composite
def laws(draw: st.DrawFn, vocab: int, denominator: int) -> tuple[Fraction, ...]:
    """Any distribution with this denominator: the gaps between cuts of a line."""
    cuts = sorted(draw(st.lists(st.integers(0, denominator), min_size=vocab - 1, max_size=vocab - 1)))
    return row(*(b - a for a, b in zip([0, *cuts], [*cuts, denominator], strict=True)))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data(), st.integers(2, 3), st.sampled_from([(0, 6), (1, 6), (2, 4)]))
def test_lossless_for_random_laws(data, vocab, setting):
    gamma, denominator = setting  # the number of cells grows as denominator ** (γ + 1)
    p = by_context(*(data.draw(laws(vocab, denominator)) for _ in range(2)))
    q = by_context(*(data.draw(laws(vocab, denominator)) for _ in range(2)))
    assert emitted_law(verify_tokens, q, p, gamma, 2) == joint_law(p, 2)


@pytest.mark.parametrize("dtypes", list(product([torch.float32, torch.float64], repeat=2)), ids=str)
@each_pair
def test_dtypes_may_differ(p, q, dtypes):
    assert emitted_law(verify_tokens, always(q), always(p), 1, 2, dtypes=dtypes) == joint_law(always(p), 2)


# Weights that add up to a power of two, with powers of two among q: float64 rounds nothing, so edges can be asked.
@pytest.mark.parametrize(
    ("p", "q"), [(row(1, 2, 1), row(2, 1, 1)), (row(3, 0, 1), row(1, 2, 1)), (row(4, 0, 4), row(2, 4, 2))]
)
def test_cells_are_closed_on_the_left(p, q):
    """A uniform number may be exactly 0, or exactly p/q; such edges must count as what lies above them."""
    for x in range(len(p)):
        at_edge, inside = (round_law(verify_tokens, (x,), [q], [p, p], point=Fraction(k, 4)) for k in (0, 2))
        assert at_edge == inside


def test_a_finer_grid_changes_nothing():
    p, q = MODELS["three tokens"]
    coarse, fine = (emitted_law(verify_tokens, q, p, 2, 2, refine=k) for k in (1, 2))
    assert coarse == fine


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_left_to_draw_from_never_yields_an_impossible_token(dtype):
    """p = q up to rounding, yet a rejection: the residual is empty, or a few 1e-8 in odd places."""
    torch.manual_seed(0)
    for _ in range(300):
        p = torch.softmax(torch.randn(2, 50, dtype=dtype), -1)
        p[:, 25:] = 0  # ruled out, as by top-k
        p /= p.sum(-1, keepdim=True)
        q = (p[:1] * (1 + 1e-7 * torch.randn(1, 50, dtype=dtype))).clamp(min=0)
        x = p[0].argmax().view(1)
        q[0, x] = p[0, x] * (1 + 2e-7)  # only here is a rejection possible
        verdict = verify_tokens(x, q, p, torch.tensor([1 - 1e-16, torch.rand(())], dtype=torch.float64))
        assert verdict.accepted == 0 and verdict.next_token < 25


def test_an_empty_residual_falls_back_to_p():
    p = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    q = torch.tensor([[0.5 + 1e-7, 0.5 + 1e-7, 0.0]])  # sums to more than one, as rounding may have it
    u = torch.tensor([0.99999999, 0.7], dtype=torch.float64)
    accepted, token = verify_tokens(torch.tensor([0]), q, p, u)
    assert (int(accepted), int(token)) == (0, 1)


# --- the kit is tested: planted bugs


def leading_run(drafted: torch.Tensor, q: torch.Tensor, p: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Length of the leading run of kept tokens."""
    at = drafted[:, None]
    kept = uniforms[:-1] * q.gather(1, at).squeeze(1) < p[:-1].gather(1, at).squeeze(1)
    return kept.long().cumprod(0).sum()


def last_token(accepted: torch.Tensor, q: torch.Tensor, p: torch.Tensor, uniforms: torch.Tensor) -> Verdict:
    """The right last step, after whatever was accepted."""
    residual = (p[accepted] - torch.cat([q, torch.zeros_like(p[:1])])[accepted]).clamp(min=0)
    return Verdict(accepted, sample(residual if residual.sum() > 0 else p[accepted], uniforms[-1]))


def resamples_from_p(drafted, q, p, uniforms):
    accepted = leading_run(drafted, q, p, uniforms)
    return Verdict(accepted, sample(p[accepted], uniforms[-1]))


def bonus_from_wrong_row(drafted, q, p, uniforms):
    accepted, token = verify_tokens(drafted, q, p, uniforms)
    return Verdict(accepted, sample(p[-2], uniforms[-1]) if accepted == len(drafted) else token)


def drops_last_accepted(drafted, q, p, uniforms):
    accepted, token = verify_tokens(drafted, q, p, uniforms)
    return Verdict((accepted - 1).clamp(min=0), token)


def draws_again_after_a_mismatch(drafted, q, p, uniforms):
    """The target's own sample is compared with the draft, then thrown away if it differs, and another is drawn."""
    same = (sample(p[:-1], uniforms[:-1]) == drafted).long()
    accepted = same.cumprod(0).sum()
    return Verdict(accepted, sample(p[accepted], uniforms[-1]))


def forgets_where_the_run_ended(drafted, q, p, uniforms):
    """Counts all kept tokens instead of those before the first rejection."""
    at = drafted[:, None]
    kept = uniforms[:-1] * q.gather(1, at).squeeze(1) < p[:-1].gather(1, at).squeeze(1)
    return last_token(kept.sum(), q, p, uniforms)


def swaps_p_and_q(drafted, q, p, uniforms):
    """Reads a paper that names the models the other way round."""
    return verify_tokens(drafted, p[:-1], torch.cat([q, p[-1:]]), uniforms)


def caught(bug: Verifier, models: tuple[ToyModel, ToyModel], gamma: int, length: int) -> bool:
    p, q = models
    return emitted_law(bug, q, p, gamma, length) != joint_law(p, length)


@pytest.mark.parametrize(
    ("bug", "drafter", "gamma", "length"),
    [
        (resamples_from_p, "three tokens", 1, 1),
        (resamples_from_p, "n-gram drafter", 1, 1),
        (draws_again_after_a_mismatch, "n-gram drafter", 1, 1),
        (swaps_p_and_q, "three tokens", 1, 1),
        (forgets_where_the_run_ended, "three tokens", 2, 2),
        (bonus_from_wrong_row, "three tokens", 1, 2),  # these two, only later tokens show
        (bonus_from_wrong_row, "n-gram drafter", 2, 3),
        (drops_last_accepted, "three tokens", 2, 3),
        (drops_last_accepted, "n-gram drafter", 1, 2),
    ],
)
def test_planted_bug_is_caught(bug, drafter, gamma, length):
    assert caught(bug, MODELS[drafter], gamma, length)
    assert not caught(verify_tokens, MODELS[drafter], gamma, length)


def test_testing_softmax_for_drafts_that_were_argmax_is_caught():
    """The token was chosen without drawing, so its q is one-hot; the verifier is told the softmax instead."""
    p, softmax_q = always(row(5, 2, 3)), row(2, 6, 2)
    argmax_q = row(0, 1, 0)
    assert not caught(verify_tokens, (p, always(argmax_q)), 1, 1)
    law = emitted_law(verify_tokens, always(argmax_q), p, 1, 1, told=always(softmax_q))
    assert law == {(0,): Fraction(1, 2), (1,): Fraction(1, 3), (2,): Fraction(1, 6)}  # not 1/2, 1/5, 3/10


def accepts_up_to_and_including(drafted, q, p, uniforms):
    """u <= p / q, written without dividing: true where p = 0 and u q = 0."""
    at = drafted[:, None]
    kept = uniforms[:-1] * q.gather(1, at).squeeze(1) <= p[:-1].gather(1, at).squeeze(1)
    return last_token(kept.long().cumprod(0).sum(), q, p, uniforms)


def impossible_tokens(verify: Verifier, q: Row, p: Row, x: int, point: Fraction) -> Law:
    """Emitted sequences that hold a token of target probability zero."""
    law = round_law(verify, (x,), [q], [p, p], point=point)
    return {emitted: part for emitted, part in law.items() if any(p[token] == 0 for token in emitted)}


@pytest.mark.parametrize(
    ("q", "point"),
    [(row(1, 0, 3), Fraction(1, 2)), (row(1, 2, 1), Fraction(0))],
    ids=["a token that q rules out too", "a uniform number that is exactly 0"],
)
def test_accepting_at_equality_is_caught(q, point):
    """Token 1 is impossible for the target, so it must never pass, wherever the draft came from."""
    p = row(1, 0, 1)
    assert impossible_tokens(accepts_up_to_and_including, q, p, 1, point)
    assert not impossible_tokens(verify_tokens, q, p, 1, point)


def test_a_shared_uniform_number_is_caught():
    """Drawing the correction with the number that caused the rejection; its breakpoints need a finer grid."""

    def shares(drafted, q, p, uniforms):
        accepted = leading_run(drafted, q, p, uniforms)
        return verify_tokens(drafted, q, p, torch.cat([uniforms[:-1], uniforms[accepted].view(1)]))

    p, q = always(row(5, 2, 3)), always(row(2, 6, 2))
    laws = [emitted_law(shares, q, p, 1, 1, refine=k) for k in (2, 4)]
    assert laws[0] == laws[1] == {(0,): Fraction(9, 20), (1,): Fraction(1, 5), (2,): Fraction(7, 20)}
