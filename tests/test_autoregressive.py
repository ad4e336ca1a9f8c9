"""One token at a time: the same tokens as transformers' ``generate``, and every way to stop or to be refused."""

import pytest
import torch
from tiny_models import LIMIT, VOCAB, tiny, tokens

from specdec_tutorial import GreedyProcessor, MultinomialProcessor, NucleusProcessor, TopKProcessor, load_pair
from specdec_tutorial import autoregressive_generate as generate

OPENINGS = ["Once upon a time", "Tom had a red ball.", "The little dog was sad because"]
PROMPT = tokens(6)


@pytest.fixture(scope="module")
def pair():
    return load_pair("stories")


@pytest.fixture(scope="module")
def model():
    return tiny("llama", torch.float64)


@pytest.fixture(scope="module")
def greedy_text(model):
    """Twelve greedy tokens after PROMPT; later tests end it early."""
    return generate(PROMPT, model, max_gen_len=12).tokens


def reference(model, prompt, n, ends=None):
    """What transformers' own greedy decoding adds to the prompt."""
    ids = torch.tensor([prompt])
    settings = {"do_sample": False, "num_beams": 1, "max_new_tokens": n, "eos_token_id": ends, "pad_token_id": 0}
    mask = torch.ones_like(ids)
    return model.generate(ids, attention_mask=mask, **settings)[0, len(prompt) :].tolist()


class Recorder:
    """A streamer that remembers its calls."""

    def __init__(self):
        self.calls = []

    def put(self, value):
        assert value.ndim == 1 and value.device.type == "cpu"
        self.calls.append(value.tolist())

    def end(self):
        self.calls.append("end")


@pytest.mark.parametrize("opening", OPENINGS)
@pytest.mark.parametrize("role", ["target", "drafter"])
def test_equals_generate_on_the_embedded_pair(pair, opening, role):
    model, prompt = getattr(pair, role), pair.tokenizer(opening)["input_ids"]
    out = generate(prompt, model, max_gen_len=32)
    assert out.tokens == reference(model, prompt, 32, model.generation_config.eos_token_id)


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma", "gpt2", "hybrid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_generate_on_random_models(kind, dtype):
    model, seen = tiny(kind, dtype), set()
    for seed, n_prompt in enumerate((1, 6, 17)):
        prompt = tokens(n_prompt, seed)
        expected = reference(model, prompt, 30)
        seen.update(expected)
        assert generate(prompt, model, max_gen_len=30).tokens == expected
        if dtype == torch.float64:
            assert generate(prompt, model, max_gen_len=30, use_cache=False).tokens == expected
    assert len(seen) > 3  # a model that repeats one token tests nothing


@pytest.mark.parametrize("kind", ["hybrid", "mamba"])
def test_recurrent_models_decode_without_cache(kind):
    model = tiny(kind)
    out = generate(PROMPT, model, max_gen_len=8, use_cache=False)
    assert out.tokens == reference(model, PROMPT, 8)


@pytest.mark.parametrize("processor", [MultinomialProcessor(1.3), TopKProcessor(5), NucleusProcessor(0.8)], ids=repr)
def test_sampling_is_the_same_with_and_without_cache(model, processor):
    cached, naive = (
        generate(PROMPT, model, logits_processor=processor, max_gen_len=24, use_cache=use_cache, seed=3).tokens
        for use_cache in (True, False)
    )
    assert cached == naive


def test_greedy_is_the_default(model, greedy_text):
    assert generate(PROMPT, model, logits_processor=GreedyProcessor(), max_gen_len=12, seed=5).tokens == greedy_text


def test_the_trace_has_a_round_for_every_token(model, greedy_text):
    out = generate(PROMPT, model, max_gen_len=12)
    trace = out.trace
    assert [r.emitted for r in trace.rounds] == [[token] for token in greedy_text]
    assert all(r.drafted == [] and r.decisions == [] and r.accepted == 0 for r in trace.rounds)
    assert (trace.prompt_length, trace.accepted, trace.rejected, trace.drafter_positions) == (len(PROMPT), 0, 0, 0)
    assert out.acceptance_rate != out.acceptance_rate  # nan: nothing was drafted
    assert trace.tokens_per_round == 1
    assert 0 < sum(r.verify_seconds for r in trace.rounds) <= trace.seconds
    assert 0 < trace.model_seconds < trace.seconds and 0 < trace.overhead < 1
    assert out.tokens_per_second == 12 / trace.seconds


@pytest.mark.parametrize("n", [1, 2, 7])
def test_positions_read(model, n):
    length = len(PROMPT)
    cached = generate(PROMPT, model, max_gen_len=n)
    naive = generate(PROMPT, model, max_gen_len=n, use_cache=False)
    assert cached.trace.target_positions == length + n - 1  # the newest token is never read
    assert naive.trace.target_positions == sum(length + i for i in range(n))


@pytest.mark.parametrize("n", [1, 2])
def test_short_texts(model, greedy_text, n):
    out = generate(PROMPT, model, max_gen_len=n)
    assert (out.tokens, out.stopped_by) == (greedy_text[:n], "max_gen_len")


def test_an_end_token_can_come_first(model, greedy_text):
    out = generate(PROMPT, model, max_gen_len=12, eos_tokens_id=greedy_text[0])
    assert (out.tokens, out.stopped_by) == (greedy_text[:1], "eos")


def test_of_several_end_tokens_the_earliest_wins(model, greedy_text):
    late, early = greedy_text[7], greedy_text[3]
    first = min(greedy_text.index(late), greedy_text.index(early))
    for ends in ([late, early], [early, late], (late, early)):
        out = generate(PROMPT, model, max_gen_len=12, eos_tokens_id=ends)
        assert (out.tokens, out.stopped_by) == (greedy_text[: first + 1], "eos")
    assert out.tokens == reference(model, PROMPT, 12, [late, early])


def test_an_end_token_in_the_last_place_counts_as_eos(model, greedy_text):
    first = greedy_text.index(greedy_text[5])
    out = generate(PROMPT, model, max_gen_len=first + 1, eos_tokens_id=greedy_text[5])
    assert (out.tokens, out.stopped_by) == (greedy_text[: first + 1], "eos")


def test_end_tokens_that_do_not_come(model, greedy_text):
    never = next(token for token in range(VOCAB) if token not in greedy_text)
    for ends in (None, [], never):
        assert generate(PROMPT, model, max_gen_len=12, eos_tokens_id=ends).tokens == greedy_text


@pytest.mark.parametrize("several", [False, True])
def test_the_models_own_end_token_is_the_default(greedy_text, several):
    model = tiny("llama", torch.float64)
    model.generation_config.eos_token_id = [VOCAB - 1, greedy_text[2]] if several else greedy_text[2]
    ended = generate(PROMPT, model, max_gen_len=12)
    assert ended.stopped_by == "eos" and len(ended.tokens) <= 3
    assert generate(PROMPT, model, max_gen_len=12, eos_tokens_id=[]).tokens == greedy_text  # told otherwise


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("free", [1, 2, 5])
def test_stops_where_the_model_can_read_no_further(kind, free):
    model, prompt = tiny(kind), tokens(LIMIT - free)
    out = generate(prompt, model, max_gen_len=10)
    assert (len(out.tokens), out.stopped_by) == (free, "model_limit")
    assert generate(prompt, model, max_gen_len=free).stopped_by == "max_gen_len"


@pytest.mark.parametrize("surplus", [0, 1, 30])
def test_a_prompt_at_the_limit_is_refused(model, surplus):
    with pytest.raises(ValueError, match=f"{LIMIT + surplus} tokens and the model reads at most {LIMIT}; shorten"):
        generate(tokens(LIMIT + surplus), model)


@pytest.mark.parametrize("given", [list, tuple, torch.tensor, lambda ids: torch.tensor([ids]), lambda ids: [ids]])
def test_ways_to_give_a_prompt(model, greedy_text, given):
    assert generate(given(PROMPT), model, max_gen_len=12).tokens == greedy_text


@pytest.mark.parametrize(
    "nothing", [[], torch.empty(0, dtype=torch.long), torch.empty(1, 0, dtype=torch.long)], ids=repr
)
def test_an_empty_prompt_is_refused(model, nothing):
    with pytest.raises(ValueError, match="the prompt is empty"):
        generate(nothing, model)


def test_text_is_refused(model):
    with pytest.raises(TypeError, match="token ids, not a string"):
        generate("Once upon a time", model)


@pytest.mark.parametrize("floats", [[0.5, 1.0], torch.ones(3), [True, False]], ids=repr)
def test_what_is_no_token_id_is_refused(model, floats):
    with pytest.raises(TypeError, match="token ids must be integers"):
        generate(floats, model)


def test_batches_are_refused(model):
    with pytest.raises(ValueError, match=r"shape \(2, 6\); batches are not supported"):
        generate(torch.tensor([PROMPT, PROMPT]), model)


@pytest.mark.parametrize("bad", [-1, VOCAB, 10**6])
def test_ids_outside_the_vocabulary_are_refused(model, bad):
    with pytest.raises(ValueError, match=f"outside the model's vocabulary of {VOCAB}"):
        generate([1, bad, 2], model)


@pytest.mark.parametrize("length", [0, -1])
def test_lengths_below_one_are_refused(model, length):
    with pytest.raises(ValueError, match=f"max_gen_len must be at least 1, got {length}"):
        generate(PROMPT, model, max_gen_len=length)


def test_seeds(model):
    def sampled(seed):
        return generate(PROMPT, model, logits_processor=MultinomialProcessor(), max_gen_len=24, seed=seed).tokens

    assert sampled(7) == sampled(7) == sampled(torch.Generator().manual_seed(7))
    assert sampled(7) != sampled(8)
    assert sampled(None) != sampled(None)  # equal once in a great many runs
    generator = torch.Generator().manual_seed(7)
    assert sampled(generator) != sampled(generator)  # a generator goes on where it stood
    with pytest.raises(TypeError, match="seed must be"):
        sampled("7")


def test_the_global_random_state_is_left_alone(model):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    generate(PROMPT, model, logits_processor=MultinomialProcessor(), max_gen_len=4, seed=1)
    generate(PROMPT, model, logits_processor=MultinomialProcessor(), max_gen_len=4)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("ends", [(), (3, 4)])
def test_the_streamer_gets_the_prompt_then_every_token_then_the_end(model, greedy_text, ends):
    recorder = Recorder()
    out = generate(PROMPT, model, max_gen_len=5, eos_tokens_id=[greedy_text[i] for i in ends], streamer=recorder)
    assert recorder.calls == [PROMPT, *([token] for token in out.tokens), "end"]


def test_a_text_streamer_of_transformers_prints_the_text(pair, capsys):
    from transformers import TextStreamer

    ids = pair.tokenizer(OPENINGS[0])["input_ids"]
    out = generate(ids, pair.target, max_gen_len=12, streamer=TextStreamer(pair.tokenizer))
    assert capsys.readouterr().out.strip() == pair.tokenizer.decode(ids + out.tokens).strip()


def test_gradients_are_not_recorded_and_the_prompt_is_not_changed(model):
    ids = torch.tensor(PROMPT)
    before = ids.clone()
    generate(ids, model, max_gen_len=3)
    assert torch.equal(ids, before)
    assert all(weight.grad is None for weight in model.parameters())
