"""Odd ends and bad input of speculative decoding: where texts stop, what may be passed in, what is refused and why."""

import copy
import itertools
import math

import pytest
import torch
from kit import assert_accounts, assert_same_tokens, checked_generate, drafter_of, reference, target_of
from tiny_models import LIMIT, VOCAB, tiny, tokens
from transformers import LlamaConfig, LlamaForCausalLM

from specdec_tutorial import MultinomialProcessor, autoregressive_generate, speculative_generate

PROMPT = tuple(tokens(6))
KIND, DOUBLE = "gpt2", torch.float64  # the liveliest of the tiny models
LENGTH = 24
GAMMAS = range(1, 9)


@pytest.fixture(scope="module")
def target():
    return target_of(KIND, DOUBLE)


@pytest.fixture(scope="module")
def drafter():
    return drafter_of(KIND, DOUBLE, "perturbed")


@pytest.fixture(scope="module")
def text(target):
    return reference(KIND, DOUBLE, PROMPT, LENGTH)


class Recorder:
    """A streamer that remembers its calls."""

    def __init__(self):
        self.calls = []

    def put(self, value):
        assert value.ndim == 1 and value.device.type == "cpu"
        self.calls.append(value.tolist())

    def end(self):
        self.calls.append("end")


# --- where texts stop ---


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("gamma", [1, 4, 8])
def test_short_texts_and_drafts_longer_than_what_remains(target, drafter, text, gamma, n):
    out = speculative_generate(PROMPT, drafter, target, gamma=gamma, max_gen_len=n)
    assert (out.tokens, out.stopped_by) == (text[:n], "max_gen_len")
    assert_accounts(out.trace, out.tokens, gamma, n)
    if n == 1:
        assert len(out.trace.rounds) == 1 and math.isnan(out.trace.tokens_per_round)


def place_of_end(trace):
    """Where in its round the end token stood."""
    last = trace.rounds[-1]
    if len(trace.rounds) == 1:
        return "first"
    if len(last.emitted) <= last.accepted:
        return "inside the draft"
    return "bonus" if last.accepted == len(last.drafted) else "correction"


def test_an_end_token_in_every_place(target, text):
    places = set()
    for role, gammas in (("perturbed", GAMMAS), ("oracle", GAMMAS), ("negated", (1, 3))):
        for gamma, token in itertools.product(gammas, sorted(set(text))):
            out = speculative_generate(
                PROMPT, drafter_of(KIND, DOUBLE, role), target, gamma=gamma, max_gen_len=LENGTH, eos_tokens_id=token
            )
            assert (out.tokens, out.stopped_by) == (text[: text.index(token) + 1], "eos")
            assert_accounts(out.trace, out.tokens, gamma, LENGTH, [token])
            places.add(place_of_end(out.trace))
    assert places == {"first", "inside the draft", "bonus", "correction"}


def test_sessions_are_in_order_when_an_end_token_cuts_a_draft(target, text):
    out, trace = checked_generate(PROMPT, target, target, gamma=8, ends=[text[4]])
    assert out == text[: text.index(text[4]) + 1]
    assert trace.accepted == len(out) - 1  # what lies behind the end counts neither way
    assert trace.rejected == 0


@pytest.mark.parametrize("gamma", GAMMAS)
def test_of_several_end_tokens_the_earliest_in_the_text_wins(target, drafter, text, gamma):
    for late, early in ((9, 4), (7, 3), (20, 2)):
        first = min(text.index(text[late]), text.index(text[early]))
        for ends in ([text[late], text[early]], (text[early], text[late])):
            out = speculative_generate(PROMPT, drafter, target, gamma=gamma, max_gen_len=LENGTH, eos_tokens_id=ends)
            assert (out.tokens, out.stopped_by) == (text[: first + 1], "eos")


def test_the_targets_own_end_token_is_the_default_and_the_drafters_is_not(text):
    target, drafter = copy.deepcopy(target_of(KIND, DOUBLE)), copy.deepcopy(target_of(KIND, DOUBLE))
    drafter.generation_config.eos_token_id = text[0]
    assert speculative_generate(PROMPT, drafter, target, max_gen_len=LENGTH).tokens == text
    target.generation_config.eos_token_id = [VOCAB - 1, text[3]]
    out = speculative_generate(PROMPT, drafter, target, max_gen_len=LENGTH)
    assert (out.tokens, out.stopped_by) == (text[: text.index(text[3]) + 1], "eos")
    assert speculative_generate(PROMPT, drafter, target, max_gen_len=LENGTH, eos_tokens_id=()).tokens == text


def test_an_end_token_in_the_last_place_counts_as_end(target, drafter, text):
    n = text.index(text[5]) + 1
    out = speculative_generate(PROMPT, drafter, target, max_gen_len=n, eos_tokens_id=text[5])
    assert (out.tokens, out.stopped_by) == (text[:n], "eos")


@pytest.mark.parametrize("kind", ["gpt2", "mistral"])
@pytest.mark.parametrize("free", [1, 2, 5])
def test_stops_where_the_target_can_read_no_further(kind, free):
    target, prompt = target_of(kind), tokens(LIMIT - free)
    expected = autoregressive_generate(prompt, target, max_gen_len=10)
    for gamma in (1, 4):
        out = speculative_generate(prompt, drafter_of(kind, torch.float32, "perturbed"), target, gamma=gamma)
        assert_same_tokens(prompt, out.tokens, expected.tokens, target)
        assert (len(out.tokens), out.stopped_by) == (free, "model_limit")


def test_a_drafter_with_a_shorter_limit_falls_silent(target, text):
    torch.manual_seed(0)
    config = copy.deepcopy(target.config)
    config.n_positions = limit = 15
    short = type(target)(config).to(DOUBLE).eval()
    weights = target.state_dict()
    weights["transformer.wpe.weight"] = weights["transformer.wpe.weight"][:limit]
    short.load_state_dict(weights)
    out, length = speculative_generate(PROMPT, short, target, gamma=4, max_gen_len=LENGTH), len(PROMPT)
    assert_same_tokens(PROMPT, out.tokens, text, target)
    for r in out.trace.rounds:
        if length > len(PROMPT):
            assert len(r.drafted) == max(0, min(4, limit - length + 1, len(PROMPT) + LENGTH - length - 1))
        length += len(r.emitted)
    assert out.trace.rounds[-1].drafted == []
    for prompt in (tokens(limit), tokens(limit + 5)):
        expected = autoregressive_generate(prompt, target, max_gen_len=6).tokens
        assert_same_tokens(prompt, speculative_generate(prompt, short, target, max_gen_len=6).tokens, expected, target)


# --- vocabularies padded to different sizes ---


def with_vocabulary(model, size):
    """A copy whose tables have ``size`` rows; new rows give logits too low to be drawn."""
    other = copy.deepcopy(model)
    other.resize_token_embeddings(size, mean_resizing=False)
    if size > VOCAB:
        bias = torch.zeros(size, dtype=model.dtype)
        bias[VOCAB:] = -1e9
        other.lm_head.bias = torch.nn.Parameter(bias)
    return other


@pytest.mark.parametrize("ours", [VOCAB, VOCAB + 11])
@pytest.mark.parametrize("theirs", [VOCAB, VOCAB + 3, VOCAB + 300])
@pytest.mark.parametrize("gamma", [1, 4])
def test_vocabularies_padded_differently(target, drafter, text, ours, theirs, gamma):
    p, q = with_vocabulary(target, ours), with_vocabulary(drafter, theirs)
    out = speculative_generate(PROMPT, q, p, gamma=gamma, max_gen_len=LENGTH)
    assert_same_tokens(PROMPT, out.tokens, text, target)
    sampled = speculative_generate(PROMPT, q, p, logits_processor=MultinomialProcessor(), max_gen_len=LENGTH, seed=0)
    assert len(sampled.tokens) == LENGTH and max(sampled.tokens) < VOCAB


def test_a_drafter_with_padding_that_it_likes(target, text):
    """Random padding rows may win the argmax of q; they are cut off before anything is drawn."""
    eager = copy.deepcopy(target)
    eager.resize_token_embeddings(VOCAB + 8, mean_resizing=False)
    with torch.no_grad():
        eager.lm_head.weight[VOCAB:] = 10 * eager.lm_head.weight[:8]
    out = speculative_generate(PROMPT, eager, target, max_gen_len=LENGTH)
    assert_same_tokens(PROMPT, out.tokens, text, target)
    assert all(token < VOCAB for r in out.trace.rounds for token in r.drafted)


def test_a_text_with_a_token_that_the_drafter_does_not_know(target, text):
    """Padding rows are hardly ever drawn, but where the target's table is the larger one they can be."""
    known = sorted(text)[-1]  # the target writes this token, and it is the first that the drafter lacks
    out = speculative_generate(PROMPT, with_vocabulary(target, known), target, max_gen_len=LENGTH)
    assert_same_tokens(PROMPT, out.tokens, text, target)


# --- what may be passed in ---


@pytest.mark.parametrize("given", [list, tuple, torch.tensor, lambda ids: torch.tensor([ids])])
def test_ways_to_give_a_prompt(target, drafter, text, given):
    assert speculative_generate(given(PROMPT), drafter, target, max_gen_len=LENGTH).tokens == text


def test_seeds(target, drafter):
    def sampled(seed):
        processor = MultinomialProcessor(2.0)
        return speculative_generate(PROMPT, drafter, target, logits_processor=processor, seed=seed).tokens

    assert sampled(7) == sampled(7) == sampled(torch.Generator().manual_seed(7))
    assert sampled(7) != sampled(8)
    assert sampled(None) != sampled(None)  # equal once in a great many runs
    generator = torch.Generator().manual_seed(7)
    assert sampled(generator) != sampled(generator)  # a generator goes on where it stood
    with pytest.raises(TypeError, match=r"seed must be an int, a torch\.Generator or None, got str"):
        sampled("7")


@pytest.mark.parametrize("ends", [(), (4, 9)])
@pytest.mark.parametrize("gamma", [1, 5])
def test_the_streamer_gets_the_prompt_the_tokens_of_each_round_and_one_end(target, drafter, text, gamma, ends):
    recorder, ends = Recorder(), [text[i] for i in ends]
    settings = {"gamma": gamma, "max_gen_len": LENGTH, "eos_tokens_id": ends}
    out = speculative_generate(PROMPT, drafter, target, streamer=recorder, **settings)
    *pieces, last = recorder.calls
    assert last == "end" and "end" not in pieces
    assert pieces == [list(PROMPT), *(r.emitted for r in out.trace.rounds)]
    assert [token for piece in pieces for token in piece] == [*PROMPT, *out.tokens]


def test_a_text_streamer_of_transformers_prints_the_text(pair, capsys):
    from transformers import TextStreamer

    ids = pair.tokenizer("Once upon a time")["input_ids"]
    out = speculative_generate(ids, pair.drafter, pair.target, max_gen_len=8, streamer=TextStreamer(pair.tokenizer))
    assert capsys.readouterr().out.strip() == pair.tokenizer.decode(ids + out.tokens).strip()


# --- what is refused ---


@pytest.mark.parametrize("gamma", [0, -1])
def test_a_gamma_below_one_is_refused(target, drafter, gamma):
    with pytest.raises(ValueError, match=f"gamma must be at least 1, got {gamma}; autoregressive_generate decodes"):
        speculative_generate(PROMPT, drafter, target, gamma=gamma)


@pytest.mark.parametrize("length", [0, -3])
def test_a_length_below_one_is_refused(target, drafter, length):
    with pytest.raises(ValueError, match=f"max_gen_len must be at least 1, got {length}"):
        speculative_generate(PROMPT, drafter, target, max_gen_len=length)


@pytest.mark.parametrize("nothing", [[], torch.empty(1, 0, dtype=torch.long)], ids=["list", "tensor"])
def test_an_empty_prompt_is_refused(target, drafter, nothing):
    with pytest.raises(ValueError, match="the prompt is empty; give at least one token"):
        speculative_generate(nothing, drafter, target)


@pytest.mark.parametrize("surplus", [0, 1])
def test_a_prompt_at_the_limit_is_refused(target, drafter, surplus):
    with pytest.raises(ValueError, match=f"{LIMIT + surplus} tokens and the model reads at most {LIMIT}; shorten"):
        speculative_generate(tokens(LIMIT + surplus), drafter, target)


def test_batches_and_foreign_ids_are_refused(target, drafter):
    with pytest.raises(ValueError, match="batches are not supported"):
        speculative_generate(torch.tensor([PROMPT, PROMPT]), drafter, target)
    with pytest.raises(ValueError, match="was it made by another tokenizer"):
        speculative_generate([VOCAB], drafter, target)


def test_models_on_different_devices_are_refused(target, drafter):
    with pytest.raises(ValueError, match="the drafter is on meta and the target on cpu; move one of them"):
        speculative_generate(PROMPT, copy.deepcopy(drafter).to("meta"), target)


def test_vocabularies_that_are_far_apart_are_refused(target):
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    stranger = LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB + 1025, **sizes))
    with pytest.raises(
        ValueError, match=f"has {VOCAB + 1025} tokens and the target's {VOCAB}: .* different tokenizers"
    ):
        speculative_generate(PROMPT, stranger, target)


@pytest.mark.parametrize("kind", ["hybrid", "mamba"])
@pytest.mark.parametrize("role", ["target", "drafter"])
def test_recurrent_models_are_refused_with_a_way_out(target, kind, role):
    recurrent = tiny(kind)
    models = {"drafter": recurrent, "target": target} if role == "drafter" else {"drafter": target, "target": recurrent}
    with pytest.raises(ValueError, match=f"{type(recurrent).__name__} .*use_cache=False"):
        speculative_generate(PROMPT, **models)
