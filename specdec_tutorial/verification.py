"""Which drafted tokens the target keeps.

A verifier is a pure function: the drafted tokens, both models' distributions and the random numbers go
in, the number of accepted tokens and the next token come out. So its whole output law can be enumerated.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .processors import sample


class Verdict(NamedTuple):
    """A verifier's decision; 0-dimensional integer tensors, left on the device."""

    accepted: Tensor
    next_token: Tensor


class Verifier(Protocol):
    """The signature that all verifiers share."""

    def __call__(self, drafted: Tensor, q: Tensor, p: Tensor, uniforms: Tensor) -> Verdict:
        """Decide about one round; see :func:`verify_tokens`."""


def verify_tokens(drafted: Tensor, q: Tensor, p: Tensor, uniforms: Tensor) -> Verdict:
    """Token-level rejection sampling (Leviathan et al. 2023, algorithm 1; Chen et al. 2023, algorithm 2).

    Token x is kept with probability min(1, p(x) / q(x)). At the first one that is not, the next token is
    drawn from the residual max(0, p - q); if all are kept, from p. Either way the tokens emitted are
    distributed exactly as if they had been drawn from p one by one.

    Args:
        drafted: ``(γ,)`` token ids, the i-th drawn from ``q[i]``; γ may be 0.
        q: ``(γ, vocab)`` the drafter's distributions.
        p: ``(γ + 1, vocab)`` the target's distributions after 0, 1, …, γ drafted tokens.
        uniforms: ``(γ + 1,)`` independent numbers in [0, 1), float64.

    Returns:
        how many drafted tokens are kept, and the token that follows them.
    """
    q_drafted = q.gather(1, drafted[:, None]).squeeze(1)  # (γ,)
    p_drafted = p[:-1].gather(1, drafted[:, None]).squeeze(1)  # (γ,)
    kept = uniforms[:-1] * q_drafted < p_drafted  # u < p / q, without dividing by zero
    accepted = kept.long().cumprod(0).sum()  # length of the leading run of kept tokens

    q_after = torch.cat([q, q.new_zeros(1, p.shape[1])])  # behind the last draft nothing was proposed: q = 0
    p_next = p.index_select(0, accepted.view(1)).squeeze(0)  # (vocab,)
    q_next = q_after.index_select(0, accepted.view(1)).squeeze(0)  # (vocab,)
    residual = (p_next - q_next).clamp(min=0)
    # When p = q up to rounding, a rejection has probability ~1e-7 and may leave nothing behind.
    weights = torch.where(residual.sum() > 0, residual, p_next)
    return Verdict(accepted, sample(weights, uniforms[-1]))
