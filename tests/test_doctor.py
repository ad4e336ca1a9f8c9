"""The doctor tells a tie from a bug, or the failures of the other tests would mislead."""

import copy
import math

import pytest
import torch
from kit import assert_same_tokens
from tiny_models import VOCAB, tiny, tokens

from specdec_tutorial import autoregressive_generate
from specdec_tutorial.doctor import FLOAT32_BOUND, diagnose

PROMPT = tokens(6)


@pytest.fixture(scope="module")
def model():
    return tiny("llama")


@pytest.fixture(scope="module")
def text(model):
    return autoregressive_generate(PROMPT, model, max_gen_len=8).tokens


def with_rival(model, token, difference):
    """A copy in which the logit of another token, the rival, is ``1 - difference`` times that of ``token``."""
    rival = (token + 1) % VOCAB
    twin = copy.deepcopy(model)
    with torch.no_grad():
        head = twin.get_output_embeddings().weight
        head[rival] = head[token] * (1 - difference)
    return twin, rival


def changed(text, position, token):
    return [*text[:position], token, *text[position + 1 :]]


def test_equal_texts_need_no_diagnosis(model, text):
    assert diagnose(PROMPT, text, text, model) is None
    assert diagnose(PROMPT, [], [], model) is None
    assert_same_tokens(PROMPT, text, text, model)


@pytest.mark.parametrize("swap", [False, True])
def test_a_planted_tie(model, text, swap):
    twin, rival = with_rival(model, text[0], 1e-7)
    texts = [text, changed(text, 0, rival)]
    found = diagnose(PROMPT, *(reversed(texts) if swap else texts), twin)
    assert (found.verdict, found.position) == ("tie", 0)
    assert {found.ours, found.reference} == {text[0], rival}
    assert 0 < found.gap <= FLOAT32_BOUND
    assert str(found).startswith("tie: new token 0 is")


def test_the_bound_is_the_callers(model, text):
    twin, rival = with_rival(model, text[0], 1e-3)
    ours = changed(text, 0, rival)
    assert diagnose(PROMPT, ours, text, twin).verdict == "bug"
    assert diagnose(PROMPT, ours, text, twin, bound=0.1).verdict == "tie"


def test_a_tie_of_two_others_excuses_nobody(model, text):
    """The two most likely tokens are tied, but ours is a third one."""
    twin, rival = with_rival(model, text[0], 1e-7)
    third = next(token for token in range(VOCAB) if token not in (text[0], rival))
    assert diagnose(PROMPT, changed(text, 0, third), text, twin).verdict == "bug"


@pytest.mark.parametrize("position", [0, 3, 7])
def test_a_planted_bug(model, text, position):
    wrong = (text[position] + 5) % VOCAB
    found = diagnose(torch.tensor([PROMPT]), changed(text, position, wrong), text, model)
    assert (found.verdict, found.position, found.ours, found.reference) == ("bug", position, wrong, text[position])
    assert FLOAT32_BOUND < found.gap < math.inf
    with pytest.raises(pytest.fail.Exception, match=f"bug: new token {position} is {wrong}"):
        assert_same_tokens(PROMPT, changed(text, position, wrong), text, model)


@pytest.mark.parametrize(("ours", "reference"), [(8, 5), (5, 8), (0, 1)])
def test_a_text_that_stops_early_is_a_bug(model, text, ours, reference):
    found = diagnose(PROMPT, text[:ours], text[:reference], model)
    assert (found.verdict, found.position, found.gap) == ("bug", min(ours, reference), math.inf)
    assert "stops where the other goes on" in str(found)


def test_the_model_is_left_as_it_was(model, text):
    diagnose(PROMPT, changed(text, 2, 0 if text[2] else 1), text, model)
    assert model.dtype == torch.float32
