"""Sampled speculative text has the target's law: chi-square tests of the joint law of three consecutive tokens.

Seeds are fixed, so a test passes always or never. Read as statistics: with fresh seeds each test would raise a false
alarm once in 10,000 runs (`ERROR_RATE`). The other error, a bias that stays unnoticed, is looked at by planting some.
The exact proof of the verification rule is in `test_verification.py`; here the whole loop is at work.
"""

import itertools
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from kit import perturbed
from scipy.stats import chi2, chisquare
from transformers import LlamaConfig, LlamaForCausalLM

from specdec_tutorial import (
    GreedyProcessor,
    MultinomialProcessor,
    NucleusProcessor,
    TopKNucleusProcessor,
    TopKProcessor,
    speculative,
    speculative_generate,
    verify_tokens,
)
from specdec_tutorial.processors import sample
from specdec_tutorial.verification import Verdict

ERROR_RATE = 1e-4
VOCAB, PROMPT = 4, [2, 0]
LENGTH = 4  # tokens 1, 2 and 3 are tested: 0 | 1 2 | 3 or, after a rejection, 0 | 1 | 2 3 …
SAMPLES = 2000

PLAIN = MultinomialProcessor()
CASES = [
    (PLAIN, 1),
    (PLAIN, 3),
    (MultinomialProcessor(0.7), 2),
    (TopKProcessor(3), 1),
    (NucleusProcessor(0.8, temperature=1.3), 2),
    (TopKNucleusProcessor(3, 0.8), 1),
]


class TableModel(torch.nn.Module):
    """A language model that looks its logits up by the last two tokens: fast enough to write thousands of texts."""

    def __init__(self, table):
        super().__init__()
        self.table = table  # (vocab, vocab, vocab)
        self.config = LlamaConfig(vocab_size=VOCAB, max_position_embeddings=64)
        self.generation_config = None
        self.device = table.device

    def forward(self, ids, use_cache=False):
        before = torch.nn.functional.pad(ids, (1, 0))[:, :-1]
        return SimpleNamespace(logits=self.table[before, ids])  # (1, n, vocab)


def table(seed):
    return torch.randn(VOCAB, VOCAB, VOCAB, generator=torch.Generator().manual_seed(seed))


TARGET = TableModel(table(0))
DRAFTER = TableModel(2 * table(1))  # opinionated and often wrong: α is about 0.5, and a wrong rule shows


def law_of_text(model, processor):
    """Exact probability of every text of LENGTH tokens, in float64: ``{tokens: probability}``."""
    law = {}
    for text in itertools.product(range(VOCAB), repeat=LENGTH):
        ids = torch.tensor([PROMPT + list(text)])
        with torch.inference_mode():
            probs = processor(model(ids, use_cache=False).logits[0].double())
        rows = probs[len(PROMPT) - 1 : -1]  # row i is the law of token i
        law[text] = rows.gather(1, ids[0, len(PROMPT) :, None]).prod().item()
    return law


def law_of_three(model, processor):
    """Exact law of tokens 1, 2 and 3, whatever token 0 was."""
    law = Counter()
    for text, probability in law_of_text(model, processor).items():
        law[text[1:]] += probability
    return law


def draw(drafter, target, processor, gamma, samples, **settings):
    """Tokens 1, 2 and 3 of many texts, and both outcomes of verification counted."""
    generator, seen, outcomes = torch.Generator().manual_seed(gamma), Counter(), Counter()
    for _ in range(samples):
        out = speculative_generate(
            PROMPT,
            drafter,
            target,
            gamma=gamma,
            logits_processor=processor,
            max_gen_len=LENGTH,
            seed=generator,
            **settings,
        )
        seen[tuple(out.tokens[1:])] += 1
        outcomes["accepted"] += out.trace.accepted
        outcomes["rejected"] += out.trace.rejected
    assert min(outcomes["accepted"], outcomes["rejected"]) > samples / 10  # both branches are at work
    return seen


def p_value(seen, law):
    """Chi-square goodness of fit; texts that are expected less than five times are counted together."""
    n = sum(seen.values())
    common = [text for text, probability in law.items() if n * probability >= 5]
    observed = [seen[text] for text in common]
    expected = [n * law[text] for text in common]
    rest = n - sum(expected)
    if rest > 1e-6:
        observed.append(n - sum(observed))
        expected.append(rest)
    return chisquare(observed, expected).pvalue


@pytest.mark.parametrize(("processor", "gamma"), CASES, ids=str)
def test_joint_law_of_three_tokens(processor, gamma):
    law = law_of_three(TARGET, processor)
    assert sum(law.values()) == pytest.approx(1)
    seen = draw(DRAFTER, TARGET, processor, gamma, SAMPLES, use_cache=False)
    assert all(law[text] > 0 for text in seen)  # what the processor rules out never comes
    assert p_value(seen, law) > ERROR_RATE


def test_joint_law_with_a_real_model_and_its_cache():
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    target = LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, max_position_embeddings=64, eos_token_id=None, **sizes))
    with torch.no_grad():
        target.lm_head.weight.mul_(25.0)  # clear preferences
    drafter = perturbed(target.eval(), 1.0)
    processor = MultinomialProcessor()
    seen = draw(drafter, target, processor, 2, 700)
    assert p_value(seen, law_of_three(target, processor)) > ERROR_RATE


def resamples_from_p(drafted, q, p, uniforms):
    """The correction is drawn from p, as if nothing had been rejected."""
    accepted, _ = verify_tokens(drafted, q, p, uniforms)
    return Verdict(accepted, sample(p[accepted], uniforms[-1]))


def accepts_too_easily(drafted, q, p, uniforms):
    """The random number is squared, so a token is kept with probability sqrt(p / q)."""
    return verify_tokens(drafted, q, p, torch.cat([uniforms[:-1] ** 2, uniforms[-1:]]))


def uses_a_number_twice(drafted, q, p, uniforms):
    """The number that rejected a draft also draws the correction."""
    accepted, next_token = verify_tokens(drafted, q, p, uniforms)
    if accepted < len(drafted):
        residual = (p[accepted] - q[accepted]).clamp(min=0)
        next_token = sample(residual, uniforms[accepted])
    return Verdict(accepted, next_token)


@pytest.mark.parametrize("biased", [resamples_from_p, accepts_too_easily, uses_a_number_twice])
def test_a_planted_bias_is_caught_with_the_same_number_of_samples(biased, monkeypatch):
    monkeypatch.setitem(speculative.speculate.__kwdefaults__, "verify", biased)
    seen = draw(DRAFTER, TARGET, PLAIN, 1, SAMPLES, use_cache=False)
    assert p_value(seen, law_of_three(TARGET, PLAIN)) < ERROR_RATE / 100


def test_the_drafters_law_would_be_caught():
    """How much room there is: text from the drafter alone would never pass for the target's."""
    p, q = law_of_three(TARGET, PLAIN), law_of_three(DRAFTER, PLAIN)
    noncentrality = SAMPLES * sum((q[text] - p[text]) ** 2 / p[text] for text in p)
    assert noncentrality > 10 * chi2.isf(ERROR_RATE, df=len(p) - 1)


def test_greedy_is_the_limit_of_sampling():
    """All mass on one text: no statistics needed."""
    law = law_of_three(TARGET, GreedyProcessor())
    out = speculative_generate(PROMPT, DRAFTER, TARGET, max_gen_len=LENGTH, use_cache=False)
    assert law[tuple(out.tokens[1:])] == 1
