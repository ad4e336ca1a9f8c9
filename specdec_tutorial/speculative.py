"""Speculative decoding: guess several tokens, check them in one pass of the target."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .drafters import Draft, Drafter, ModelDrafter
from .processors import GreedyProcessor, LogitsProcessor, sample
from .request import Output, Randomness, Streamer, TokenIds, Uniforms, end_tokens, prompt_ids, vocabulary_size
from .session import DecodingSession, position_limit
from .trace import Generation, Round, StopReason, Trace
from .verification import Verdict, Verifier, verify_tokens

MAX_VOCABULARY_PADDING = 1024  # models pad embeddings to round sizes; a larger difference is another tokenizer


def speculate(
    output: Output,
    target: DecodingSession,
    drafter: Drafter,
    *,
    gamma: int,
    processor: LogitsProcessor,
    uniforms: Uniforms,
    verify: Verifier = verify_tokens,
) -> Trace:
    """The one loop: draft, verify in a single target pass, keep what was accepted, roll back the rest.

    Args:
        output: holds the prompt; receives the new tokens.
        target: a fresh session of the target model.
        drafter: proposes tokens.
        gamma: most tokens to draft in a round, at least 1.
        processor: the target's distribution p is ``processor(logits)``.
        uniforms: source of random numbers.
        verify: the acceptance rule.

    Returns:
        the trace, all rounds filled in; who calls adds the totals.
    """
    trace = Trace(len(output.context))
    began = time.perf_counter()
    p = processor(target.extend(output.context, last=1)[0])  # (1, vocab)
    emitted = output.emit(sample(p, uniforms(1)).tolist())
    trace.rounds.append(Round(emitted, verify_seconds=time.perf_counter() - began))

    while output.stopped_by is None:
        began = time.perf_counter()
        # A round emits one token more than it accepts, so the last token needs no draft.
        draft = drafter.propose(output.context, uniforms(min(gamma, output.remaining - 1)))
        drafted = time.perf_counter()
        last = torch.tensor(output.context[-1:], device=draft.tokens.device)
        p = processor(target.extend(torch.cat([last, draft.tokens]))[0])  # (γ + 1, vocab)
        u = uniforms(len(draft.tokens) + 1)
        result = read_back(draft, p, u, verify(draft.tokens, draft.probs, p, u))
        emitted = output.emit(result.emitted)
        target.rollback(len(output.context) - 1)  # the newest token has not been read yet
        drafter.observe(output.context)
        seconds = time.perf_counter() - drafted
        trace.rounds.append(replace(result, emitted=emitted, draft_seconds=drafted - began, verify_seconds=seconds))
    return trace


def read_back(draft: Draft, p: Tensor, uniforms: Tensor, verdict: Verdict) -> Round:
    """Everything the host wants to know about a round, in one transfer from the device."""
    gamma, at = len(draft.tokens), draft.tokens[:, None]
    p_drafted, q_drafted = p[:-1].gather(1, at).squeeze(1), draft.probs.gather(1, at).squeeze(1)  # (γ,)
    ids = torch.cat([torch.stack(verdict), draft.tokens])  # (2 + γ,)
    row = torch.cat([ids, p_drafted, q_drafted, uniforms]).tolist()  # float64 holds every id exactly
    accepted, next_token, *drafted = map(int, row[: 2 + gamma])
    p_row, q_row, u_row = row[2 + gamma : 2 + 2 * gamma], row[2 + 2 * gamma : 2 + 3 * gamma], row[2 + 3 * gamma :]
    return Round([*drafted[:accepted], next_token], drafted, accepted, p_row, q_row, u_row)


@torch.inference_mode()
def speculative_generate(
    inputs: TokenIds,
    drafter: PreTrainedModel,
    target: PreTrainedModel,
    *,
    gamma: int = 4,
    logits_processor: LogitsProcessor | None = None,
    max_gen_len: int = 64,
    eos_tokens_id: int | Sequence[int] | None = None,
    use_cache: bool = True,
    seed: Randomness = None,
    streamer: Streamer | None = None,
) -> Generation:
    """Decode with a drafter model: same distribution as the target alone, fewer target passes.

    Leviathan et al. 2023, algorithm 1. Greedy decoding gives the very tokens of
    :func:`autoregressive_generate`; sampling gives tokens of the same law, though not the same tokens for a seed.

    Args:
        inputs: prompt token ids: a list, or a ``(n,)`` or ``(1, n)`` tensor.
        drafter: a small model with the target's tokenizer, on the same device.
        target: the model whose text is wanted.
        gamma: tokens drafted in a round, at least 1.
        logits_processor: how to draw from the logits of both models; greedy by default.
        max_gen_len: most new tokens, at least 1.
        eos_tokens_id: id or ids that end the text; default: the target's own.
        use_cache: keep keys and values (default), or read the whole prefix again in every pass.
        seed: int or ``torch.Generator``; None draws a fresh seed.
        streamer: object with transformers' ``put``/``end`` interface; gets tokens as they are accepted.

    Returns:
        the new tokens and the trace of every round.

    Raises:
        TypeError, ValueError: unusable inputs; see :func:`specdec_tutorial.request.prompt_ids`.
        ValueError: ``gamma`` below 1; models on different devices or with different tokenizers; a model
            whose cache cannot be rolled back.
    """
    began = time.perf_counter()
    if gamma < 1:
        raise ValueError(f"gamma must be at least 1, got {gamma}; autoregressive_generate decodes without drafts")
    check_pair(drafter, target)
    processor = logits_processor or GreedyProcessor()
    prompt = prompt_ids(inputs, target)
    session = DecodingSession(target, use_cache)
    session.require_rollback()
    guesser = ModelDrafter(drafter, processor, vocabulary_size(target), use_cache)
    output = Output(prompt, max_gen_len, position_limit(target), end_tokens(eos_tokens_id, target), streamer)

    trace = speculate(
        output, session, guesser, gamma=gamma, processor=processor, uniforms=Uniforms(seed, target.device)
    )
    trace.seconds = time.perf_counter() - began
    trace.model_seconds = session.seconds + guesser.session.seconds
    trace.target_positions, trace.drafter_positions = session.positions_read, guesser.session.positions_read
    stopped_by = cast(StopReason, output.stopped_by)  # speculate returns once it is set
    return Generation(output.tokens, stopped_by, trace)


def check_pair(drafter: PreTrainedModel, target: PreTrainedModel) -> None:
    """Raise ValueError if the two models cannot work together, as far as the models themselves tell."""
    if drafter.device != target.device:
        raise ValueError(f"the drafter is on {drafter.device} and the target on {target.device}; move one of them")
    sizes = vocabulary_size(drafter), vocabulary_size(target)
    if abs(sizes[0] - sizes[1]) > MAX_VOCABULARY_PADDING:
        raise ValueError(
            f"the drafter's vocabulary has {sizes[0]} tokens and the target's {sizes[1]}: they have different "
            "tokenizers, so their token ids mean different things; choose models of one family"
        )
