"""The hook for transformers' `generate`: same text, same settings, and a clear refusal of what cannot be done."""

import copy

import pytest
import torch
from kit import assert_same_tokens, drafter_of, reference, target_of, transformers_greedy
from tiny_models import tokens
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.generation import MaxTimeCriteria

from specdec_tutorial import (
    GreedyProcessor,
    MultinomialProcessor,
    NucleusProcessor,
    TopKNucleusProcessor,
    TopKProcessor,
    hooks,
    speculative_custom_generate,
    speculative_generate,
)

DOUBLE, LENGTH = torch.float64, 24
PROMPT = tuple(tokens(6))


@pytest.fixture(scope="module")
def target():
    return target_of("gpt2", DOUBLE)


@pytest.fixture(scope="module")
def drafter():
    return drafter_of("gpt2", DOUBLE, "perturbed")


@pytest.fixture
def call(target, drafter):
    """`target.generate` with the hook; returns the new tokens."""

    def generate(hook=None, **settings):
        ids = torch.tensor([PROMPT])
        common = {"attention_mask": torch.ones_like(ids), "max_new_tokens": LENGTH, "pad_token_id": 0, **settings}
        out = target.generate(ids, custom_generate=hook or speculative_custom_generate(drafter, seed=5), **common)
        assert torch.equal(out[:, : ids.shape[1]], ids) and len(out) == 1 and out.dtype == torch.long
        return out[0, ids.shape[1] :].tolist()

    return generate


class Recorder:
    """A streamer that remembers its calls."""

    def __init__(self):
        self.calls = []

    def put(self, value):
        self.calls.append(value.flatten().tolist())

    def end(self):
        self.calls.append("end")


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma", "gpt2"])
def test_greedy_text_is_that_of_plain_generate(kind):
    target, drafter = target_of(kind, DOUBLE), drafter_of(kind, DOUBLE, "perturbed")
    expected = reference(kind, DOUBLE, PROMPT, LENGTH)
    for gamma in (1, 5):
        hook = speculative_custom_generate(drafter, gamma=gamma)
        ours = transformers_greedy(target, list(PROMPT), LENGTH, custom_generate=hook)
        assert_same_tokens(PROMPT, ours, expected, target)


def test_the_embedded_pair(pair):
    inputs = pair.tokenizer("Tom had a red ball.", return_tensors="pt")
    inputs.pop("token_type_ids", None)
    settings = {"max_new_tokens": 12, "do_sample": False}
    ours = pair.target.generate(**inputs, **settings, custom_generate=speculative_custom_generate(pair.drafter))
    assert torch.equal(ours, pair.target.generate(**inputs, **settings))


@pytest.mark.parametrize("several", [False, True])
def test_end_tokens_are_those_of_the_call(call, several):
    text = reference("gpt2", DOUBLE, PROMPT, LENGTH)
    ends = [text[9], text[4]] if several else text[4]
    stop = min(text.index(token) for token in ([text[9], text[4]] if several else [text[4]]))
    assert call(eos_token_id=ends, do_sample=False) == text[: stop + 1]


def test_token_zero_can_be_an_end_token(target):
    """As in the embedded pair: 0 is an id like any other, not the absence of one."""
    text = reference("gpt2", DOUBLE, PROMPT, LENGTH)
    end = next(token for token in text if token and token not in PROMPT and text.index(token) > 1)
    swap = {0: end, end: 0}
    relabelled = copy.deepcopy(target)
    with torch.no_grad():
        for table in (relabelled.get_input_embeddings().weight, relabelled.get_output_embeddings().weight):
            table[[0, end]] = table[[end, 0]]
    prompt = [swap.get(token, token) for token in PROMPT]
    expected = [swap.get(token, token) for token in text[: text.index(end) + 1]]
    assert transformers_greedy(relabelled, prompt, LENGTH, 0) == expected
    hook = speculative_custom_generate(relabelled)
    assert transformers_greedy(relabelled, prompt, LENGTH, 0, custom_generate=hook) == expected


SETTINGS = [
    ({"do_sample": False}, GreedyProcessor()),
    ({"do_sample": False, "temperature": 0.5, "top_k": 3}, GreedyProcessor()),
    ({"do_sample": True, "top_k": 0}, MultinomialProcessor()),
    ({"do_sample": True, "top_k": 0, "temperature": 0.7}, MultinomialProcessor(0.7)),
    ({"do_sample": True, "top_k": 7}, TopKProcessor(7)),
    ({"do_sample": True, "top_k": 7, "temperature": 1.5}, TopKProcessor(7, 1.5)),
    ({"do_sample": True, "top_k": 0, "top_p": 0.8, "temperature": 1.5}, NucleusProcessor(0.8, 1.5)),
    ({"do_sample": True, "top_k": 9, "top_p": 0.8, "temperature": 1.5}, TopKNucleusProcessor(9, 0.8, 1.5)),
    ({"do_sample": True}, TopKProcessor(50)),  # transformers' default
]


@pytest.mark.parametrize(("settings", "processor"), SETTINGS, ids=[str(s) for s, _ in SETTINGS])
def test_sampling_settings_become_the_processor(call, drafter, target, monkeypatch, settings, processor):
    seen = []

    def spy(*args, **kwargs):
        seen.append(kwargs["logits_processor"])
        return speculative_generate(*args, **kwargs)

    monkeypatch.setattr(hooks, "speculative_generate", spy)
    ours = call(eos_token_id=None, **settings)
    assert repr(seen) == repr([processor])
    direct = speculative_generate(
        PROMPT, drafter, target, logits_processor=processor, max_gen_len=LENGTH, eos_tokens_id=(), seed=5
    )
    assert ours == direct.tokens


def test_settings_that_are_not_set_are_off():
    assert repr(hooks.processor_of(GenerationConfig(do_sample=True))) in map(
        repr, [MultinomialProcessor(), TopKProcessor(50)]
    )
    bare = GenerationConfig(do_sample=True)
    bare.temperature = bare.top_k = bare.top_p = None
    assert repr(hooks.processor_of(bare)) == repr(MultinomialProcessor())


def test_without_a_seed_torch_decides(call, drafter):
    hook, settings = speculative_custom_generate(drafter), {"do_sample": True, "temperature": 2.0}
    texts = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        texts.append(call(hook, **settings))
    assert texts[0] == texts[1] != texts[2]
    assert call(hook, **settings) != call(hook, **settings)


@pytest.mark.parametrize("settings", [{"use_cache": False}, {"use_cache": True}, {}], ids=str)
def test_the_cache_setting_is_passed_on(call, monkeypatch, settings):
    seen = []

    def spy(*args, **kwargs):
        seen.append(kwargs["use_cache"])
        return speculative_generate(*args, **kwargs)

    monkeypatch.setattr(hooks, "speculative_generate", spy)
    assert call(do_sample=False, **settings) == reference("gpt2", DOUBLE, PROMPT, LENGTH)
    assert seen == [settings.get("use_cache", True)]


def test_the_streamer_gets_the_prompt_once(call, drafter):
    recorder = Recorder()
    text = call(speculative_custom_generate(drafter, streamer=recorder), do_sample=False)
    prompt, *pieces, last = recorder.calls
    assert prompt == list(PROMPT) and last == "end"
    assert [token for piece in pieces for token in piece] == text and "end" not in pieces


def test_a_streamer_of_the_call_has_the_prompt_already(target, drafter):
    """What happens where transformers hands it on: `generate` has shown it the prompt before it calls the hook."""
    recorder, ids = Recorder(), torch.tensor([PROMPT])
    config = GenerationConfig(do_sample=False, max_length=len(PROMPT) + 5)
    hook = speculative_custom_generate(drafter)
    recorder.put(ids)
    out = hook(target, ids, LogitsProcessorList(), StoppingCriteriaList(), config, streamer=recorder)
    prompt, *pieces, last = recorder.calls
    assert prompt == list(PROMPT) and last == "end"
    assert [token for piece in pieces for token in piece] == out[0, len(PROMPT) :].tolist()


UNSUPPORTED = [
    ({"num_beams": 2}, "num_beams=2"),
    ({"num_return_sequences": 2, "do_sample": True}, "num_return_sequences=2"),
    ({"repetition_penalty": 1.3}, "RepetitionPenalty"),
    ({"no_repeat_ngram_size": 2}, "NoRepeatNGram"),
    ({"min_new_tokens": 3, "eos_token_id": 1}, "MinNewTokens"),
    ({"bad_words_ids": [[1]]}, "BadWords"),
    ({"do_sample": True, "min_p": 0.1}, "MinP"),
    ({"do_sample": True, "typical_p": 0.5}, "Typical"),
    ({"max_time": 9.0}, "MaxTimeCriteria"),
    ({"stopping_criteria": StoppingCriteriaList([MaxTimeCriteria(9.0)])}, "MaxTimeCriteria"),
    ({"attention_mask": torch.tensor([[0, 1, 1, 1, 1, 1]])}, "padding"),
    ({"return_dict_in_generate": True}, "return_dict_in_generate"),
]


@pytest.mark.parametrize(("settings", "name"), UNSUPPORTED, ids=[name for _, name in UNSUPPORTED])
def test_what_would_be_ignored_is_refused_by_name(call, settings, name):
    with pytest.raises(ValueError, match=rf"speculative decoding does not support .*{name}.*remove it from the call"):
        call(**{"do_sample": False, **settings})


def test_all_that_is_wrong_is_named_at_once(call):
    with pytest.raises(ValueError, match=r"RepetitionPenalty\w+, MaxTimeCriteria, num_beams=2"):
        call(num_beams=2, repetition_penalty=1.2, max_time=3.0, do_sample=False)


def test_batches_are_refused(target, drafter):
    ids = torch.tensor([PROMPT, PROMPT])
    with pytest.raises(ValueError, match="batches are not supported"):
        target.generate(ids, max_new_tokens=2, custom_generate=speculative_custom_generate(drafter))
