"""The kit is itself tested: famous bugs are planted, and the check that is meant to find each of them must do so."""

import pytest
import torch
from kit import assert_same_tokens, checked_generate, drafter_of, reference, target_of
from tiny_models import tokens

from specdec_tutorial import DecodingSession, GreedyProcessor, ModelDrafter, speculative
from specdec_tutorial.processors import sample
from specdec_tutorial.request import Output
from specdec_tutorial.verification import Verdict, verify_tokens

PROMPT = tuple(tokens(6))
KIND, DOUBLE = "gpt2", torch.float64
TEXT_LENGTH = 24


def run(role="perturbed", **parts):
    """One checked run; fails where a check fails or the text is not the target's."""
    target, drafter = target_of(KIND, DOUBLE), drafter_of(KIND, DOUBLE, role)
    tokens, _ = checked_generate(PROMPT, drafter, target, max_gen_len=TEXT_LENGTH, **parts)
    expected = reference(KIND, DOUBLE, PROMPT, TEXT_LENGTH)
    ends = [i for i, token in enumerate(expected) if token in parts.get("ends", ())]
    assert_same_tokens(PROMPT, tokens, expected[: ends[0] + 1] if ends else expected, target)


def caught():
    return pytest.raises((AssertionError, pytest.fail.Exception))


@pytest.mark.parametrize("role", ["perturbed", "oracle", "negated"])
def test_without_a_bug_nothing_is_reported(role):
    run(role)


class KeepsOneTooMany(DecodingSession):
    def rollback(self, length):
        super().rollback(min(length + 1, self.length))


class KeepsOneTooFew(DecodingSession):
    def rollback(self, length):
        super().rollback(max(length - 1, 0))


class NeverForgets(DecodingSession):
    def rollback(self, length):
        pass


class ForgetsOnlyInTheList(DecodingSession):
    """The list of tokens is cut, the cache is not."""

    def rollback(self, length):
        self.tokens = self.tokens[:, :length]


class CropsAWrongToken(DecodingSession):
    """The cache has the right length, and the entry of another token at its end."""

    def rollback(self, length):
        wrong = length < self.length
        super().rollback(length)
        if wrong:
            self._cache.crop(-1)
            self.model(self.tokens[:, :1], past_key_values=self._cache, use_cache=True)


@pytest.mark.parametrize(
    "session", [KeepsOneTooMany, KeepsOneTooFew, NeverForgets, ForgetsOnlyInTheList, CropsAWrongToken]
)
def test_a_target_that_is_rolled_back_wrongly(session):
    with caught():
        run(session=session)


class NotRolledBack(ModelDrafter):
    def observe(self, context):
        pass


class RolledBackTooLittle(ModelDrafter):
    def observe(self, context):
        self.session.rollback(min(self.session.length, len(context)))


class ReadsEverythingAgain(ModelDrafter):
    """Right, but slow: the text is the same and only the accounts can tell."""

    def observe(self, context):
        self.session.reset()


@pytest.mark.parametrize("guesser", [NotRolledBack, RolledBackTooLittle, ReadsEverythingAgain])
def test_a_drafter_that_is_rolled_back_wrongly(guesser):
    with caught():
        run(guesser=guesser)


class LooksAtTheLastTokenOnly(Output):
    """An end token inside an accepted draft goes unnoticed."""

    def emit(self, tokens):
        ends, self.ends = self.ends, self.ends & {tokens[-1]}
        try:
            return super().emit(tokens)
        finally:
            self.ends = ends


def test_an_end_token_ignored_inside_a_draft():
    text = reference(KIND, DOUBLE, PROMPT, TEXT_LENGTH)
    inside = next(t for t in text if text.index(t) % 5 == 3)  # an oracle with γ = 4 writes 1, then 5 a round
    run("oracle", ends=[inside])
    with caught():
        run("oracle", ends=[inside], output=LooksAtTheLastTokenOnly)


def test_a_bonus_token_dropped(monkeypatch):
    """The text stays the same, for the next round writes the token; only the accounts can tell."""
    honest = speculative.read_back

    def dropping(draft, *args):
        result = honest(draft, *args)
        if 0 < result.accepted == len(result.drafted):
            result.emitted.pop()
        return result

    monkeypatch.setattr(speculative, "read_back", dropping)
    with caught():
        run("oracle")


def one_row_late(drafted, q, p, uniforms):
    """The rows of p are read one position off."""
    return verify_tokens(drafted, q, p.roll(1, dims=0), uniforms)


def keeps_everything(drafted, q, p, uniforms):
    return Verdict(torch.tensor(len(drafted)), sample(p[-1], uniforms[-1]))


def draws_the_correction_from_the_drafter(drafted, q, p, uniforms):
    accepted, next_token = verify_tokens(drafted, q, p, uniforms)
    return Verdict(accepted, drafted[accepted] if accepted < len(drafted) else next_token)


@pytest.mark.parametrize("verify", [one_row_late, keeps_everything, draws_the_correction_from_the_drafter])
def test_a_wrong_verifier(verify):
    with caught():
        run(verify=verify)


class SoftmaxInRounds(GreedyProcessor):
    """Greedy for the first token, which nobody drafted, and the softmax where drafts are tested."""

    def __call__(self, logits):
        return torch.softmax(logits, dim=-1) if len(logits) > 1 else super().__call__(logits)


class DraftsTheArgmax(ModelDrafter):
    """Drafts greedily, and claims that the tokens were drawn from the softmax."""

    def propose(self, context, uniforms):
        softmax = []

        class Remembering(GreedyProcessor):
            def __call__(self, logits):
                softmax.append(torch.softmax(logits, dim=-1))
                return super().__call__(logits)

        self.processor = Remembering()
        draft = super().propose(context, uniforms)
        return draft._replace(probs=torch.cat([draft.probs[:0], *softmax]))


def argmax_of_the_residual(drafted, q, p, uniforms):
    accepted, _ = verify_tokens(drafted, q, p, uniforms)
    behind = torch.cat([q, torch.zeros_like(p[:1])])
    return Verdict(accepted, (p[accepted] - behind[accepted]).clamp(min=0).argmax())


def test_the_classic_softmax_ratios_for_greedy_drafts():
    """Kept with probability p(x) / q(x) of the softmax: now and then a token stays that is not the argmax of p."""
    with caught():
        run(processor=SoftmaxInRounds(), guesser=DraftsTheArgmax, verify=argmax_of_the_residual)
