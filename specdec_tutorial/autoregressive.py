"""Ordinary decoding: one target pass, one token."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from .processors import GreedyProcessor, LogitsProcessor, sample
from .request import Output, Randomness, Streamer, TokenIds, Uniforms, end_tokens, prompt_ids
from .session import DecodingSession, position_limit
from .trace import Generation, Round, Trace


@torch.inference_mode()
def autoregressive_generate(
    inputs: TokenIds,
    model: PreTrainedModel,
    *,
    logits_processor: LogitsProcessor | None = None,
    max_gen_len: int = 64,
    eos_tokens_id: int | Sequence[int] | None = None,
    use_cache: bool = True,
    seed: Randomness = None,
    streamer: Streamer | None = None,
) -> Generation:
    """Decode one token at a time.

    Args:
        inputs: prompt token ids: a list, or a ``(n,)`` or ``(1, n)`` tensor.
        model: a decoder-only transformers model.
        logits_processor: how to draw from the logits; greedy by default.
        max_gen_len: most new tokens, at least 1.
        eos_tokens_id: id or ids that end the text; default: the model's own.
        use_cache: keep keys and values (default), or read the whole prefix again for every token.
        seed: int or ``torch.Generator``; None draws a fresh seed.
        streamer: object with transformers' ``put``/``end`` interface.

    Returns:
        the new tokens and the trace; every round of it emits one token.

    Raises:
        TypeError, ValueError: unusable inputs; see :func:`specdec_tutorial.request.prompt_ids`.
    """
    began = time.perf_counter()
    processor = logits_processor or GreedyProcessor()
    prompt = prompt_ids(inputs, model)
    output = Output(prompt, max_gen_len, position_limit(model), end_tokens(eos_tokens_id, model), streamer)
    session = DecodingSession(model, use_cache)
    uniforms = Uniforms(seed, model.device)
    trace = Trace(len(prompt))

    unread = prompt
    while output.stopped_by is None:
        round_began = time.perf_counter()
        probs = processor(session.extend(unread, last=1)[0])  # (1, vocab)
        unread = sample(probs, uniforms(1)).tolist()
        emitted = output.emit(unread)
        trace.rounds.append(Round(emitted, verify_seconds=time.perf_counter() - round_began))

    trace.seconds = time.perf_counter() - began
    trace.model_seconds, trace.target_positions = session.seconds, session.positions_read
    return Generation(output.tokens, output.stopped_by, trace)
