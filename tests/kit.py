"""The kit that shows decoding to be lossless: drafters good and bad, references, and a run checked after every round.

Checks raise AssertionError. `test_planted_bugs.py` makes sure that they do.
"""

import copy
from functools import cache

import pytest
import torch
from tiny_models import tiny
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicSlidingWindowLayer

from specdec_tutorial import (
    DecodingSession,
    GreedyProcessor,
    ModelDrafter,
    Trace,
    autoregressive_generate,
    speculate,
    verify_tokens,
)
from specdec_tutorial.doctor import diagnose
from specdec_tutorial.request import Output, Uniforms, vocabulary_size
from specdec_tutorial.session import position_limit

KINDS = ["llama", "mistral", "gemma", "gpt2"]  # two of them look through a window that is shorter than the texts
DTYPES = [torch.float32, torch.float64]
CLOSE = {torch.float32: {"rtol": 1e-4, "atol": 1e-4}, torch.float64: {"rtol": 1e-10, "atol": 1e-10}}

target_of = cache(tiny)


def perturbed(model: PreTrainedModel, scale: float, seed: int = 0) -> PreTrainedModel:
    """A noisy copy; the noise on each weight matrix has ``scale`` times its spread."""
    generator = torch.Generator().manual_seed(seed)
    noisy = copy.deepcopy(model)
    with torch.no_grad():
        for weight in noisy.parameters():
            if weight.ndim >= 2:
                noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
                weight.add_((noise * weight.double().std() * scale).to(weight.dtype))
    return noisy


def negated(model: PreTrainedModel) -> PreTrainedModel:
    """A copy that likes least what the model likes most: the worst greedy drafter there is."""
    worst = copy.deepcopy(model)
    with torch.no_grad():
        worst.get_output_embeddings().weight.neg_()
    return worst


@cache
def drafter_of(kind: str, dtype: torch.dtype, role: str) -> PreTrainedModel:
    """A drafter for ``target_of(kind, dtype)``; the perturbed ones guess right more than half of the time."""
    target = target_of(kind, dtype)
    return {"perturbed": lambda: perturbed(target, 0.1), "oracle": lambda: target, "negated": lambda: negated(target)}[
        role
    ]()


def transformers_greedy(model, prompt, n, ends=None, **settings) -> list[int]:
    """The new tokens of transformers' own greedy decoding."""
    ids = torch.tensor([prompt])
    common = {"do_sample": False, "num_beams": 1, "max_new_tokens": n, "eos_token_id": ends, "pad_token_id": 0}
    out = model.generate(ids, attention_mask=torch.ones_like(ids), **common, **settings)
    return out[0, len(prompt) :].tolist()


@cache
def reference(kind: str, dtype: torch.dtype, prompt: tuple[int, ...], n: int) -> list[int]:
    """Greedy text of ``target_of(kind, dtype)``, on which this package and transformers agree."""
    model = target_of(kind, dtype)
    ours = autoregressive_generate(prompt, model, max_gen_len=n).tokens
    assert_same_tokens(prompt, ours, transformers_greedy(model, list(prompt), n), model)
    return ours


def assert_same_tokens(prompt, ours, expected, target) -> None:
    """Equal token for token; if not, the failure says whether a tie or a bug is to blame."""
    if ours != expected:
        pytest.fail(str(diagnose(list(prompt), ours, expected, target)))


def assert_fresh(session: DecodingSession, text: list[int]) -> None:
    """The session holds exactly ``text``, with the keys and values of a model that reads it for the first time."""
    assert session.tokens.tolist() == [text]
    if session._cache is None:
        return
    assert session._cache.get_seq_length() == len(text)
    if not text:
        return
    fresh = session.model(torch.tensor([text]), use_cache=True).past_key_values
    for ours, theirs in zip(session._cache.layers, fresh.layers, strict=True):
        needed = len(text)
        if isinstance(ours, DynamicSlidingWindowLayer):
            needed = min(needed, ours.sliding_window - 1)  # what the next token looks at besides itself
        assert min(ours.keys.shape[2], theirs.keys.shape[2]) >= needed
        for mine, expected in ((ours.keys, theirs.keys), (ours.values, theirs.values)):
            torch.testing.assert_close(mine[:, :, -needed:], expected[:, :, -needed:], **CLOSE[mine.dtype])


class Checked:
    """Passes everything on to a drafter; when the loop is done with a round, looks into both sessions."""

    def __init__(self, drafter: ModelDrafter, target: DecodingSession):
        self.drafter, self.target = drafter, target
        self.rounds = 0

    def propose(self, context, uniforms):
        return self.drafter.propose(context, uniforms)

    def observe(self, context):
        self.drafter.observe(context)
        self.rounds += 1
        session = self.drafter.session
        assert self.target.length == len(context) - 1  # all is read but the newest token
        assert_fresh(self.target, context[:-1])
        assert session.length <= len(context) - 1
        assert_fresh(session, context[: session.length])


def assert_accounts(trace: Trace, tokens: list[int], gamma: int, n: int, ends=()) -> None:
    """Every token, every draft and every position that a model read is accounted for.

    ``n`` is the most tokens that there was room for.
    """
    first, *rounds = trace.rounds
    assert [token for r in trace.rounds for token in r.emitted] == tokens
    assert len(first.emitted) == 1 and first.drafted == []
    assert trace.target_positions == trace.prompt_length + sum(len(r.drafted) + 1 for r in rounds)

    written, drafter_read, drafter_positions = 1, 0, 0
    for r in rounds:
        g = len(r.drafted)
        assert g == min(gamma, n - written - 1)
        assert len(r.p) == len(r.q) == len(r.uniforms) - 1 == g >= r.accepted
        kept = r.emitted[: r.accepted]
        assert kept == r.drafted[: len(kept)]
        cut_short = r.emitted[-1] in ends and len(r.emitted) <= r.accepted
        assert cut_short or len(r.emitted) == r.accepted + 1
        assert not set(r.emitted[:-1]) & set(ends)
        length = trace.prompt_length + written
        if g:
            drafter_positions += length - drafter_read + g - 1
            drafter_read = length + g - 1
        written += len(r.emitted)
        drafter_read = min(drafter_read, trace.prompt_length + written - 1)
    assert trace.drafter_positions == drafter_positions


@torch.inference_mode()
def checked_generate(
    prompt,
    drafter,
    target,
    *,
    gamma=4,
    processor=None,
    max_gen_len=24,
    ends=(),
    seed=0,
    session=DecodingSession,
    guesser=ModelDrafter,
    output=Output,
    verify=verify_tokens,
) -> tuple[list[int], Trace]:
    """What `speculative_generate` does, with both sessions checked after every round and the accounts at the end.

    The parts can be swapped for broken ones.
    """
    processor = processor or GreedyProcessor()
    limit = position_limit(target)
    text = output(list(prompt), max_gen_len, limit, frozenset(ends), None)
    reader = session(target)
    checked = Checked(guesser(drafter, processor, vocabulary_size(target)), reader)
    uniforms = Uniforms(seed, target.device)
    trace = speculate(text, reader, checked, gamma=gamma, processor=processor, uniforms=uniforms, verify=verify)
    trace.target_positions = reader.positions_read
    trace.drafter_positions = checked.drafter.session.positions_read
    assert checked.rounds == len(trace.rounds) - 1
    assert_accounts(trace, text.tokens, gamma, min(max_gen_len, limit - len(prompt)), ends)
    return text.tokens, trace
