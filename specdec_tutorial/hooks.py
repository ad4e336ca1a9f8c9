"""Speculative decoding inside a ``generate`` call you already have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList
from transformers.generation import (
    EosTokenCriteria,
    MaxLengthCriteria,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from .processors import (
    GreedyProcessor,
    LogitsProcessor,
    MultinomialProcessor,
    NucleusProcessor,
    TopKNucleusProcessor,
    TopKProcessor,
)
from .request import Randomness, Streamer
from .speculative import speculative_generate


def speculative_custom_generate(
    drafter: PreTrainedModel, gamma: int = 4, seed: Randomness = None, streamer: Streamer | None = None
) -> Callable[..., Tensor]:
    """Make the callable for transformers' ``model.generate(**inputs, custom_generate=...)``.

    Sampling settings (``do_sample``, ``temperature``, ``top_k``, ``top_p``), ``max_new_tokens``, end tokens
    and ``use_cache`` are taken from the call, as always.

    Args:
        drafter: a small model with the target's tokenizer.
        gamma: tokens drafted in a round.
        seed: int or ``torch.Generator``; None draws a fresh seed from torch's global generator.
        streamer: give it here: transformers (5.15 to 5.23) shows the prompt to the ``streamer`` of a ``generate``
            call, but does not hand it on to a callable.

    Returns:
        a callable that ``generate`` accepts; the call returns ``(1, prompt + new)`` ids as usual.

    Example:
        ``model.generate(**inputs, max_new_tokens=64, custom_generate=speculative_custom_generate(drafter))``

    Raises:
        ValueError: (when called) the ``generate`` call asks for something the speculative loop does not do:
            several beams or sequences, penalties and other processors, padding, foreign stopping criteria.
    """

    own_streamer = streamer

    def custom_generate(
        model: PreTrainedModel,
        input_ids: Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        streamer: Streamer | None = None,
        **model_kwargs: Any,
    ) -> Tensor:
        refuse_unsupported(logits_processor, stopping_criteria, generation_config, model_kwargs)
        out = speculative_generate(
            input_ids,
            drafter,
            model,
            gamma=gamma,
            logits_processor=processor_of(generation_config),
            max_gen_len=generation_config.max_length - input_ids.shape[1],
            eos_tokens_id=() if generation_config.eos_token_id is None else generation_config.eos_token_id,
            use_cache=generation_config.use_cache is not False,
            seed=int(torch.randint(2**62, ())) if seed is None else seed,
            streamer=own_streamer if streamer is None else WithoutPrompt(streamer),
        )
        return torch.cat([input_ids, torch.tensor([out.tokens], device=input_ids.device)], dim=1)

    return custom_generate


class WithoutPrompt:
    """``generate`` has already given the prompt to the streamer; keep it from coming twice."""

    def __init__(self, streamer: Streamer):
        self.streamer = streamer
        self.prompt_seen = False

    def put(self, value: Tensor) -> None:
        """Pass on everything but the first call."""
        if self.prompt_seen:
            self.streamer.put(value)
        self.prompt_seen = True

    def end(self) -> None:
        """Pass it on."""
        self.streamer.end()


def processor_of(config: GenerationConfig) -> LogitsProcessor:
    """The processor that does what a generation config's sampling settings say."""
    if not config.do_sample:
        return GreedyProcessor()
    temperature = 1.0 if config.temperature is None else config.temperature
    top_k, top_p = config.top_k or 0, 1.0 if config.top_p is None else config.top_p
    if top_k and top_p < 1:
        return TopKNucleusProcessor(top_k, top_p, temperature)
    if top_k:
        return TopKProcessor(top_k, temperature)
    return NucleusProcessor(top_p, temperature) if top_p < 1 else MultinomialProcessor(temperature)


def refuse_unsupported(
    processors: LogitsProcessorList,
    criteria: StoppingCriteriaList,
    config: GenerationConfig,
    model_kwargs: dict[str, Any],
) -> None:
    """Raise ValueError for settings that would be ignored otherwise."""
    known = (TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, MaxLengthCriteria, EosTokenCriteria)
    unknown = [type(x).__name__ for x in [*processors, *criteria] if not isinstance(x, known)]
    for count in ("num_beams", "num_return_sequences"):
        if (getattr(config, count) or 1) > 1:
            unknown.append(f"{count}={getattr(config, count)}")
    if config.return_dict_in_generate:
        unknown.append("return_dict_in_generate")
    mask = model_kwargs.get("attention_mask")
    if mask is not None and not bool(mask.all()):
        unknown.append("an attention mask with zeros (padding)")
    if unknown:
        raise ValueError(f"speculative decoding does not support {', '.join(unknown)}; remove it from the call")
