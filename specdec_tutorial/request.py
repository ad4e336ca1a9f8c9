"""The plumbing around every decoder: checked input, one stop rule, one source of randomness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .session import position_limit
from .trace import StopReason

TokenIds: TypeAlias = Sequence[int] | Tensor
Randomness: TypeAlias = int | torch.Generator | None


class Streamer(Protocol):
    """The interface of transformers' streamers, such as ``TextStreamer``."""

    def put(self, value: Tensor) -> None:
        """Take ``(n,)`` new token ids on the CPU; the first call brings the prompt."""

    def end(self) -> None:
        """There will be no more."""


def prompt_ids(inputs: TokenIds, model: PreTrainedModel) -> list[int]:
    """Check a prompt and return it as a list.

    Args:
        inputs: a list of token ids, or a ``(n,)`` or ``(1, n)`` integer tensor.
        model: the target, whose vocabulary and position limit the prompt must fit.

    Raises:
        TypeError: the inputs are not token ids (a string, floats).
        ValueError: empty prompt, a batch of several, an id outside the vocabulary, or a prompt that
            leaves the model no position to write to.
    """
    if isinstance(inputs, str):
        raise TypeError('inputs must be token ids, not a string; pass tokenizer(text)["input_ids"]')
    ids = torch.as_tensor(inputs)
    if ids.ndim == 2 and len(ids) == 1:
        ids = ids[0]
    if ids.numel() == 0:
        raise ValueError("the prompt is empty; give at least one token, for example the model's start token")
    if ids.ndim != 1:
        shape = tuple(ids.shape)
        raise ValueError(
            f"expected the ids of one prompt, (n,) or (1, n), got shape {shape}; batches are not supported"
        )
    if ids.is_floating_point() or ids.dtype == torch.bool:
        raise TypeError(f"token ids must be integers, got {ids.dtype}")
    prompt: list[int] = ids.tolist()
    vocab = vocabulary_size(model)
    if not 0 <= min(prompt) <= max(prompt) < vocab:
        raise ValueError(
            f"the prompt has a token id outside the model's vocabulary of {vocab}; was it made by another tokenizer?"
        )
    limit = position_limit(model)
    if len(prompt) >= limit:
        raise ValueError(
            f"the prompt has {len(prompt)} tokens and the model reads at most {limit}; "
            f"shorten it to {limit - 1} or less"
        )
    return prompt


def vocabulary_size(model: PreTrainedModel) -> int:
    """Number of logits the model returns, padding included."""
    return int(model.config.get_text_config().vocab_size)


def end_tokens(eos_tokens_id: int | Sequence[int] | None, model: PreTrainedModel) -> frozenset[int]:
    """The ids that end a text: those given, else those of the model's generation config; maybe none."""
    if eos_tokens_id is None:
        eos_tokens_id = model.generation_config.eos_token_id if model.generation_config else None
    if eos_tokens_id is None:
        return frozenset()
    return frozenset([eos_tokens_id] if isinstance(eos_tokens_id, int) else eos_tokens_id)


class Uniforms:
    """A stream of random numbers in [0, 1): float64, drawn on the generator's device, used on the model's.

    Args:
        seed: an int, a ``torch.Generator``, or None for a fresh seed.
        device: where the numbers are needed.

    Raises:
        TypeError: ``seed`` is something else.
    """

    def __init__(self, seed: Randomness, device: torch.device):
        if isinstance(seed, torch.Generator):
            self.generator = seed
        elif seed is None or isinstance(seed, int):
            self.generator = torch.Generator()
            _ = self.generator.seed() if seed is None else self.generator.manual_seed(seed)
        else:
            raise TypeError(f"seed must be an int, a torch.Generator or None, got {type(seed).__name__}")
        self.device = device

    def __call__(self, n: int) -> Tensor:
        """``(n,)`` fresh numbers."""
        source = self.generator.device
        return torch.rand(n, generator=self.generator, dtype=torch.float64, device=source).to(self.device)


class Output:
    """The text being written: grows by accepted tokens, knows when to stop, feeds the streamer.

    Args:
        prompt: checked token ids.
        max_gen_len: most new tokens to write, at least 1.
        limit: most tokens the model can hold, prompt included.
        ends: ids that end the text.
        streamer: told about the prompt at once and about tokens as they come.

    Raises:
        ValueError: ``max_gen_len`` is less than 1.

    Attributes:
        context: prompt and new tokens.
        stopped_by: None while there is more to write.
    """

    def __init__(
        self, prompt: list[int], max_gen_len: int, limit: int, ends: frozenset[int], streamer: Streamer | None
    ):
        if max_gen_len < 1:
            raise ValueError(f"max_gen_len must be at least 1, got {max_gen_len}")
        self.context = list(prompt)
        self.prompt_length = len(prompt)
        self.ends = ends
        self.streamer = streamer
        self.remaining = min(max_gen_len, limit - len(prompt))
        self.stopped_by: StopReason | None = None
        self._full: StopReason = "max_gen_len" if max_gen_len <= limit - len(prompt) else "model_limit"
        if streamer is not None:
            streamer.put(torch.tensor(prompt))

    @property
    def tokens(self) -> list[int]:
        """The new tokens."""
        return self.context[self.prompt_length :]

    def emit(self, tokens: list[int]) -> list[int]:
        """Append ``tokens`` up to and including the first end token; return those appended."""
        for i, token in enumerate(tokens):
            if token in self.ends:
                tokens = tokens[: i + 1]
                self.stopped_by = "eos"
                break
        self.context += tokens
        self.remaining -= len(tokens)
        if self.stopped_by is None and self.remaining == 0:
            self.stopped_by = self._full
        if self.streamer is not None:
            self.streamer.put(torch.tensor(tokens))
            if self.stopped_by is not None:
                self.streamer.end()
        return tokens
