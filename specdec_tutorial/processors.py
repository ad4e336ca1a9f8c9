"""From logits to the probabilities a token is drawn from.

A processor is a function from logits to a probability distribution. Greedy decoding is one too: its
distribution puts everything on a single token. That is why one verification rule serves every mode.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class LogitsProcessor(ABC):
    """Turns logits into probabilities; call it with logits of any leading shape.

    Args:
        temperature: logits are divided by it, *before* any filtering, as in transformers. Default 1.

    Raises:
        ValueError: the temperature is not positive.
    """

    def __init__(self, temperature: float = 1.0):
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}; use GreedyProcessor for temperature 0")
        self.temperature = temperature

    def __call__(self, logits: Tensor) -> Tensor:
        """``(..., vocab)`` logits -> ``(..., vocab)`` probabilities, in float32 or wider."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return torch.softmax(self.filter(logits / self.temperature), dim=-1)

    @abstractmethod
    def filter(self, logits: Tensor) -> Tensor:
        """Return a copy of ``(..., vocab)`` logits with -inf where a token is ruled out."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in vars(self).items())})"


class MultinomialProcessor(LogitsProcessor):
    """Plain sampling from the softmax: rules nothing out."""

    def filter(self, logits: Tensor) -> Tensor:
        """Return the logits as they are."""
        return logits


class GreedyProcessor(LogitsProcessor):
    """All probability on the most likely token; the lowest id wins a tie."""

    def __init__(self) -> None:
        super().__init__()

    def __call__(self, logits: Tensor) -> Tensor:
        """``(..., vocab)`` logits -> one-hot ``(..., vocab)`` probabilities."""
        best = logits.argmax(dim=-1, keepdim=True)  # (..., 1)
        dtype = torch.promote_types(logits.dtype, torch.float32)
        return torch.zeros_like(logits, dtype=dtype).scatter_(-1, best, 1.0)

    def filter(self, logits: Tensor) -> Tensor:
        """Keep the most likely token only."""
        return keep_top_k(logits, 1)


class TopKProcessor(LogitsProcessor):
    """Sampling among the ``top_k`` most likely tokens (Fan et al. 2018, section 5.1).

    Raises:
        ValueError: ``top_k`` is less than 1.
    """

    def __init__(self, top_k: int, temperature: float = 1.0):
        super().__init__(temperature)
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}")
        self.top_k = top_k

    def filter(self, logits: Tensor) -> Tensor:
        """Keep the ``top_k`` highest logits, and all that tie with the last of them."""
        return keep_top_k(logits, self.top_k)


class NucleusProcessor(LogitsProcessor):
    """Sampling from the smallest set of tokens whose probability reaches ``top_p`` (Holtzman et al. 2020, section 3.1).

    Raises:
        ValueError: ``top_p`` is not in (0, 1].
    """

    def __init__(self, top_p: float, temperature: float = 1.0):
        super().__init__(temperature)
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {top_p}")
        self.top_p = top_p

    def filter(self, logits: Tensor) -> Tensor:
        """Keep the nucleus; the most likely token is always in it."""
        return keep_nucleus(logits, self.top_p)


class TopKNucleusProcessor(LogitsProcessor):
    """Top-k first, then the nucleus of what is left, renormalized (the order of transformers).

    Raises:
        ValueError: ``top_k`` is less than 1, or ``top_p`` is not in (0, 1].
    """

    def __init__(self, top_k: int, top_p: float, temperature: float = 1.0):
        super().__init__(temperature)
        self.top_k = TopKProcessor(top_k).top_k
        self.top_p = NucleusProcessor(top_p).top_p

    def filter(self, logits: Tensor) -> Tensor:
        """Keep the nucleus of the ``top_k`` most likely tokens."""
        return keep_nucleus(keep_top_k(logits, self.top_k), self.top_p)


def keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """Copy of ``(..., vocab)`` logits with -inf below the ``top_k``-th highest."""
    kth = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[..., -1:]  # (..., 1)
    return logits.masked_fill(logits < kth, -torch.inf)


def keep_nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Copy of ``(..., vocab)`` logits with -inf outside the nucleus of mass ``top_p``."""
    ordered, ids = logits.sort(dim=-1, descending=True, stable=True)
    probs = torch.softmax(ordered, dim=-1, dtype=torch.float64)
    behind = probs.flip(-1).cumsum(dim=-1).flip(-1)  # mass of a token and all rarer ones: summed from the small end
    outside = behind <= 1 - top_p
    outside[..., 0] = False
    return logits.masked_fill(outside.scatter(-1, ids, outside), -torch.inf)


def sample(probs: Tensor, uniform: Tensor) -> Tensor:
    """Draw tokens by inverting the cumulative distribution (Devroye 1986, section III.2).

    The randomness comes from outside, so the same number always gives the same token: a draw can be
    replayed, and a rule built on it can be enumerated.

    Args:
        probs: ``(..., vocab)`` weights; they need not sum to one.
        uniform: ``(...)`` numbers in [0, 1), float64.

    Returns:
        ``(...)`` token ids; never one of weight zero.
    """
    cdf = probs.cumsum(dim=-1, dtype=torch.float64)  # float32 would misplace rare tokens of a large vocabulary
    threshold = uniform.unsqueeze(-1) * cdf[..., -1:]  # (..., 1)
    tokens = torch.searchsorted(cdf, threshold, right=True).squeeze(-1)
    return tokens.clamp(max=probs.shape[-1] - 1)
