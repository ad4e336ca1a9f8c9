"""The decoders that a benchmark compares, behind one interface."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from transformers import PreTrainedModel

from .autoregressive import autoregressive_generate
from .models import ModelPair
from .session import position_limit
from .speculative import speculative_generate
from .trace import Generation, Trace

REFERENCE = "autoregressive"
SPECULATIVE = "speculative"


@dataclass(frozen=True)
class Run:
    """What one decoder made of one prompt.

    Attributes:
        tokens: the new tokens.
        seconds: wall time of the call.
        model_seconds: the part of it spent inside the models' forward passes.
        trace: every round, where the decoder keeps a trace.
    """

    tokens: list[int]
    seconds: float
    model_seconds: float
    trace: Trace | None = None


Decoder: TypeAlias = Callable[[list[int]], Run]


def decoders(pair: ModelPair, gamma: int, max_gen_len: int) -> dict[str, Decoder]:
    """Four greedy decoders: this package's two, and transformers' ``generate`` without and with a drafter."""

    def autoregressive(ids: list[int]) -> Generation:
        return autoregressive_generate(ids, pair.target, max_gen_len=max_gen_len)

    def speculative(ids: list[int]) -> Generation:
        return speculative_generate(ids, pair.drafter, pair.target, gamma=gamma, max_gen_len=max_gen_len)

    def generate(ids: list[int], **options: Any) -> list[int]:
        config = pair.target.generation_config
        out = pair.target.generate(
            torch.tensor([ids], device=pair.target.device),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=pair.target.device),
            do_sample=False,
            max_new_tokens=min(max_gen_len, position_limit(pair.target) - len(ids)),
            pad_token_id=0 if config.pad_token_id is None else config.pad_token_id,  # unused: there is no padding
            **options,
        )
        new: list[int] = out[0, len(ids) :].tolist()
        return new

    def assisted(ids: list[int]) -> list[int]:
        with constant_gamma(pair.drafter, gamma):
            return generate(ids, assistant_model=pair.drafter)

    return {
        REFERENCE: _ours(autoregressive),
        SPECULATIVE: _ours(speculative),
        "generate": _theirs(generate, pair),
        "generate, assisted": _theirs(assisted, pair),
    }


def _ours(decode: Callable[[list[int]], Generation]) -> Decoder:
    def run(ids: list[int]) -> Run:
        began = time.perf_counter()
        out = decode(ids)
        return Run(out.tokens, time.perf_counter() - began, out.trace.model_seconds, out.trace)

    return run


def _theirs(decode: Callable[[list[int]], list[int]], pair: ModelPair) -> Decoder:
    def run(ids: list[int]) -> Run:
        with forward_seconds(pair.target, pair.drafter) as passes:
            began = time.perf_counter()
            tokens = decode(ids)
            return Run(tokens, time.perf_counter() - began, sum(passes))

    return run


@contextmanager
def constant_gamma(drafter: PreTrainedModel, gamma: int) -> Iterator[None]:
    """Make ``generate(assistant_model=drafter)`` draft γ tokens in every round; afterwards all is as before."""
    before = drafter.generation_config
    drafter.generation_config = copy.deepcopy(before)  # generate itself writes to it, too
    drafter.generation_config.update(
        num_assistant_tokens=gamma, num_assistant_tokens_schedule="constant", assistant_confidence_threshold=0.0
    )
    try:
        yield
    finally:
        drafter.generation_config = before


@contextmanager
def forward_seconds(*models: PreTrainedModel) -> Iterator[list[float]]:
    """Wall time of every forward pass of the models, as they happen."""
    seconds: list[float] = []
    began: list[float] = []
    hooks = []
    for model in models:
        hooks.append(model.register_forward_pre_hook(lambda *_: began.append(time.perf_counter())))
        hooks.append(model.register_forward_hook(lambda *_: seconds.append(time.perf_counter() - began.pop())))
    try:
        yield seconds
    finally:
        for hook in hooks:
            hook.remove()
