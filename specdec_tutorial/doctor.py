"""Two greedy texts that should be equal and are not: did rounding decide a tie, or is there a bug?

Models compute the same logits in several ways: one token at a time or a block at once, with or without a cache. The
results differ in the last digits. Where two tokens are all but equally likely, that decides which one is the argmax,
and nobody is to blame. Everywhere else a difference is a bug.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

import torch
from transformers import PreTrainedModel

from .request import TokenIds, prompt_ids

# In float32 a small model's logits move by about 1e-6 with the order of the sums, a deep model's by about 1e-5.
FLOAT32_BOUND = 1e-4


@dataclass(frozen=True)
class Divergence:
    """The first difference between two greedy texts.

    Attributes:
        position: index of the first new token that differs.
        ours: our token there; None where our text has ended.
        reference: the reference's token there; None where it has ended.
        gap: how far the worse of the two lies below the most likely token, in logits, computed in float64;
            infinite if one of the texts has ended, which no rounding explains.
        verdict: ``"tie"`` if the gap is within ``bound``, else ``"bug"``.
        bound: how large a gap rounding may explain.
    """

    position: int
    ours: int | None
    reference: int | None
    gap: float
    verdict: Literal["tie", "bug"]
    bound: float

    def __str__(self) -> str:
        tokens = f"new token {self.position} is {self.ours}, the reference has {self.reference}"
        if math.isinf(self.gap):
            return f"{self.verdict}: {tokens}; one of the two texts stops where the other goes on"
        side = "within" if self.verdict == "tie" else "beyond"
        return (
            f"{self.verdict}: {tokens}; in float64 the worse of them lies {self.gap:.2g} below "
            f"the best logit, {side} the {self.bound:g} that rounding may explain"
        )


def diagnose(
    prompt: TokenIds,
    ours: Sequence[int],
    reference: Sequence[int],
    target: PreTrainedModel,
    bound: float = FLOAT32_BOUND,
) -> Divergence | None:
    """Find the first difference between two greedy texts and judge it with a copy of the target in float64.

    Args:
        prompt: the token ids that both texts continue.
        ours: new tokens.
        reference: new tokens that they should equal.
        target: the model that both came from.
        bound: largest gap that counts as a tie; the default suits float32. About 0.1 suits bfloat16, which
            keeps 8 binary digits.

    Returns:
        None if the texts are equal.

    Raises:
        TypeError, ValueError: unusable prompt; see :func:`specdec_tutorial.request.prompt_ids`.
    """
    pairs = enumerate(zip_longest(ours, reference))
    position, (a, b) = next(((i, pair) for i, pair in pairs if pair[0] != pair[1]), (-1, (None, None)))
    if position < 0:
        return None
    prefix = [*prompt_ids(prompt, target), *ours[:position]]
    judge = copy.deepcopy(target).double()
    with torch.inference_mode():
        logits = judge(torch.tensor([prefix], device=target.device), use_cache=False).logits[0, -1]  # (vocab,)
    gap = math.inf if a is None or b is None else (logits.max() - logits[[a, b]].min()).item()
    return Divergence(position, a, b, gap, "tie" if gap <= bound else "bug", bound)
