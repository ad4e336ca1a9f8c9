"""The enumeration that proves verifiers lossless, on cases small enough to do by hand."""

from fractions import Fraction

import pytest

from specdec_tutorial.enumeration import grid, joint_law, round_law
from specdec_tutorial.verification import verify_tokens


def row(*weights: int) -> tuple[Fraction, ...]:
    return tuple(Fraction(w, sum(weights)) for w in weights)


def test_joint_law_multiplies_conditionals():
    p = {(): row(1, 3), (0,): row(1, 0), (1,): row(1, 3)}.__getitem__
    assert joint_law(p, 2) == {(0, 0): Fraction(1, 4), (1, 0): Fraction(3, 16), (1, 1): Fraction(9, 16)}
    assert joint_law(p, 0) == {(): Fraction(1)}


def test_grid_holds_every_breakpoint():
    # 1/5, 3/5, 1/5 against 1/2, 1/5, 3/10: tenths; token 1 has six of them; residual 3/4, 0, 1/4; p itself in tenths
    assert grid((1,), [row(2, 6, 2)], [row(5, 2, 3)] * 2) == [6, 20]
    assert grid((), [], [row(1, 2)]) == [3]


@pytest.mark.parametrize(
    ("drafted", "q_rows", "p_rows"),
    [
        ((0,), [], [row(1, 1)]),
        ((), [], [(Fraction(1, 2), Fraction(1, 3))]),
        ((), [], [(Fraction(3, 2), Fraction(-1, 2))]),
    ],
)
def test_bad_rows_raise(drafted, q_rows, p_rows):
    with pytest.raises(ValueError, match=r"rows of q|not a distribution"):
        round_law(verify_tokens, drafted, q_rows, p_rows)


def test_round_law_by_hand():
    """q = p for the first token, so it stays; then p alone speaks."""
    assert round_law(verify_tokens, (1,), [row(1, 1)], [row(1, 1), row(1, 3)]) == {
        (1, 0): Fraction(1, 4),
        (1, 1): Fraction(3, 4),
    }
