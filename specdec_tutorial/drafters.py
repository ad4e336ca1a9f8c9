"""Who guesses: a drafter proposes tokens that the target then verifies."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from .processors import LogitsProcessor, sample
from .request import vocabulary_size
from .session import DecodingSession, position_limit


class Draft(NamedTuple):
    """Guessed tokens and the distributions they were really drawn from.

    Attributes:
        tokens: ``(γ,)`` ids; γ may be less than was asked for, even 0.
        probs: ``(γ, vocab)`` the processed q that each token was drawn from.
    """

    tokens: Tensor
    probs: Tensor


class Drafter(Protocol):
    """What the speculative loop asks of a drafter."""

    def propose(self, context: list[int], uniforms: Tensor) -> Draft:
        """Guess what follows ``context``: at most one token for each number in ``uniforms``."""

    def observe(self, context: list[int]) -> None:
        """Learn what the text has become after verification."""


class ModelDrafter:
    """Drafts with a smaller language model that has a session, so a cache, of its own.

    Args:
        model: a causal language model with the target's tokenizer.
        processor: the target's processor; sampling q by the same rule as p keeps acceptance high.
        vocab_size: the target's vocabulary size. Models of one family often pad theirs differently.
        use_cache: as in :class:`DecodingSession`.

    Raises:
        ValueError: the model's cache cannot be rolled back.
    """

    def __init__(self, model: PreTrainedModel, processor: LogitsProcessor, vocab_size: int, use_cache: bool = True):
        self.session = DecodingSession(model, use_cache)
        self.session.require_rollback()
        self.processor = processor
        self.vocab_size = vocab_size
        self.limit = position_limit(model)
        self.last_id = vocabulary_size(model) - 1

    def propose(self, context: list[int], uniforms: Tensor) -> Draft:
        """Draft one token for each number in ``uniforms``; fewer where the model can read no further.

        Args:
            context: the text so far, as token ids.
            uniforms: ``(γ,)`` numbers in [0, 1), float64, on the model's device.
        """
        gamma = max(0, min(len(uniforms), self.limit - len(context) + 1))
        tokens = [uniforms.new_empty(0, dtype=torch.long)]
        probs = [uniforms.new_empty(0, self.vocab_size, dtype=torch.float32)]
        # The target's table may be padded further than ours: an id we do not know is read as our last one.
        unread: Tensor | list[int] = [min(t, self.last_id) for t in context[self.session.length :]]
        for i in range(gamma):
            q = self.processor(self._fit(self.session.extend(unread, last=1)[0]))  # (1, vocab)
            unread = sample(q, uniforms[i : i + 1])  # (1,)
            tokens.append(unread)
            probs.append(q)
        return Draft(torch.cat(tokens), torch.cat(probs))

    def observe(self, context: list[int]) -> None:
        """Forget drafted tokens that were not kept."""
        self.session.rollback(min(self.session.length, len(context) - 1))

    def _fit(self, logits: Tensor) -> Tensor:
        """Cut or pad ``(1, vocab)`` logits to the target's vocabulary; padding can never be drawn."""
        missing = self.vocab_size - logits.shape[-1]
        return F.pad(logits, (0, missing), value=-torch.inf) if missing else logits
