"""The whole output law of a verifier, with exact fractions and no sampling.

A verifier is a pure function, and it is piecewise constant in its random numbers. For a rule made of p / q and of the
residual, with fractions for p and q, the borders where its answer changes lie on a grid that is known beforehand. So
it is enough to call the verifier, as it ships, once inside each cell of the grid, and to add up the sizes of the cells.

Rounding moves a border by about 1e-16 (1e-7 in float32); the middle of a cell does not notice, so what is computed is
the law of the code in exact arithmetic. For the same reason a border that is out of place by less than half a cell
goes unseen: use many different p and q, and ``refine`` where a rule has borders of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import product
from typing import TypeAlias

import torch

from .verification import Verifier

Row: TypeAlias = Sequence[Fraction]  # a distribution over the vocabulary
Law: TypeAlias = dict[tuple[int, ...], Fraction]  # a distribution over token sequences
ToyModel: TypeAlias = Callable[[tuple[int, ...]], Row]  # context -> distribution of the next token


def joint_law(model: ToyModel, length: int, context: tuple[int, ...] = ()) -> Law:
    """Law of the next ``length`` tokens when they are drawn from ``model`` one by one; impossible ones are left out."""
    law: Law = {(): Fraction(1)}
    for _ in range(length):
        law = {
            (*tokens, x): weight * chance
            for tokens, weight in law.items()
            for x, chance in enumerate(model(context + tokens))
            if chance
        }
    return law


def round_law(
    verify: Verifier,
    drafted: tuple[int, ...],
    q_rows: Sequence[Row],
    p_rows: Sequence[Row],
    *,
    point: Fraction = Fraction(1, 2),
    refine: int = 1,
    dtypes: tuple[torch.dtype, torch.dtype] = (torch.float64, torch.float64),
) -> Law:
    """Law of the tokens that a round emits, given what was drafted.

    Args:
        verify: the code under test.
        drafted: γ token ids.
        q_rows: γ distributions, as the verifier is told them.
        p_rows: γ + 1 distributions.
        point: where in each cell to call the verifier, in [0, 1). Cells are closed on the left, so 0 asks at the very
            edge; that is fair only where nothing is rounded.
        refine: cut each cell into this many. A law that changes has borders that the grid does not know.
        dtypes: of q and p as the verifier gets them.

    Returns:
        emitted tokens (accepted ones and the one after them) -> probability.

    Raises:
        ValueError: there are not γ rows of q and γ + 1 rows of p, or a row is no distribution.
    """
    check_rows(drafted, q_rows, p_rows)
    sizes = grid(drafted, q_rows, p_rows)
    points = [[float((k + point) / (n * refine)) for k in range(n * refine)] for n in sizes]
    weight = Fraction(1, math.prod(map(len, points)))
    tokens = torch.tensor(drafted, dtype=torch.long)
    q = torch.tensor([list(map(float, row)) for row in q_rows], dtype=dtypes[0]).view(len(drafted), len(p_rows[0]))
    p = torch.tensor([list(map(float, row)) for row in p_rows], dtype=dtypes[1])
    law: Law = {}
    for uniforms in product(*points):
        accepted, next_token = verify(tokens, q, p, torch.tensor(uniforms, dtype=torch.float64))
        emitted = (*drafted[: int(accepted)], int(next_token))
        law[emitted] = law.get(emitted, Fraction(0)) + weight
    return law


def grid(drafted: tuple[int, ...], q_rows: Sequence[Row], p_rows: Sequence[Row]) -> list[int]:
    """How many equal cells each uniform number's range is cut into: γ for the tests, one for the last token.

    Token x is kept where u < p(x) / q(x): over a common denominator that is a fraction with the numerator of q(x) below
    the line. The last token changes at partial sums of a residual, divided by its whole, or of p itself.
    """
    cells, last = [], 1
    for i, p in enumerate(p_rows):
        denominator = math.lcm(*(x.denominator for x in p))
        if i < len(drafted):
            q = q_rows[i]
            denominator = math.lcm(denominator, *(x.denominator for x in q))
            cells.append(max(1, int(q[drafted[i]] * denominator)))
            missing = sum(max(a - b, Fraction(0)) for a, b in zip(p, q, strict=True))
            last = math.lcm(last, max(1, int(missing * denominator)))
        last = math.lcm(last, denominator)
    return [*cells, last]


def emitted_law(
    verify: Verifier,
    q: ToyModel,
    p: ToyModel,
    gamma: int,
    length: int,
    *,
    told: ToyModel | None = None,
    refine: int = 1,
    dtypes: tuple[torch.dtype, torch.dtype] = (torch.float64, torch.float64),
) -> Law:
    """Joint law of the first ``length`` tokens of speculative decoding, over as many rounds as they take.

    Args:
        verify: the code under test.
        q: the model that drafts are drawn from.
        p: the target; the verifier is lossless for it if the law equals ``joint_law(p, length)``.
        gamma: tokens drafted in every round, also where fewer are still wanted; what is too much is cut off.
        length: how many tokens.
        told: the q that the verifier is told instead, to study a decoder that tells it the wrong one.
        refine, dtypes: see :func:`round_law`.

    Returns:
        token sequence -> probability; sequences that cannot occur are left out.
    """
    law: list[Law] = [{(): Fraction(1)}, *({} for _ in range(length))]  # one law for each length reached so far
    for reached in range(length):
        for text, weight in law[reached].items():
            for drafted, chance in joint_law(q, gamma, text).items():
                seen = [text + drafted[:i] for i in range(gamma + 1)]
                q_rows, p_rows = [(told or q)(c) for c in seen[:-1]], [p(c) for c in seen]
                for new, part in round_law(verify, drafted, q_rows, p_rows, refine=refine, dtypes=dtypes).items():
                    longer = (text + new)[:length]
                    law[len(longer)][longer] = law[len(longer)].get(longer, Fraction(0)) + weight * chance * part
    return law[length]


def check_rows(drafted: tuple[int, ...], q_rows: Sequence[Row], p_rows: Sequence[Row]) -> None:
    """Raise ValueError unless the rows fit the draft and each is a distribution."""
    if (len(q_rows), len(p_rows)) != (len(drafted), len(drafted) + 1):
        raise ValueError(f"{len(drafted)} drafted tokens need {len(drafted)} rows of q and one more of p")
    for row in [*q_rows, *p_rows]:
        if min(row) < 0 or sum(row) != 1:
            raise ValueError(f"not a distribution: {', '.join(map(str, row))}")
