"""Four decoders side by side, in one process: how fast, how much overhead, and the same tokens or not.

Absolute speeds say more about the machine and the minute than about a decoder. So every decoder takes its turn on
every prompt in every repeat, in an order that changes, and what counts is the ratio within a repeat.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from .contenders import REFERENCE, SPECULATIVE, Decoder, Run, decoders
from .models import ModelPair
from .request import prompt_ids
from .trace import Round

# Openings in the style of simple stories, written for this file; no training text holds them.
PROMPTS = (
    "Once upon a time, a small gray mouse found a key under the old tree.",
    "Tom had a red ball. He took it to the park, but",
    "The little dog was sad because nobody wanted to play with him.",
    "Anna and her brother built a tall tower of blocks.",
    "One rainy morning, Lily could not find her yellow boots.",
    "A frog named Pip lived in a pond behind the school.",
    '"Please help me," said the bird. "My wing hurts and I cannot fly."',
    "Every night, Grandpa told Ben a story about the moon.",
    "There was a boy who was afraid of the dark. One day, his mom",
    "The children wanted to bake a big cake for their teacher.",
)


@dataclass(frozen=True)
class Spread:
    """One figure a repeat: the median is what to quote, minimum and maximum say how far to trust it."""

    values: list[float]

    @property
    def median(self) -> float:
        """Middle of the repeats."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """Smallest of the repeats."""
        return min(self.values)

    @property
    def high(self) -> float:
        """Largest of the repeats."""
        return max(self.values)

    def as_dict(self) -> dict[str, Any]:
        """``median``, ``low``, ``high`` and all ``values``."""
        return {"median": self.median, "low": self.low, "high": self.high, "values": self.values}


@dataclass(frozen=True)
class Score:
    """A decoder's figures, one value a repeat.

    Attributes:
        ratio: tokens a second relative to the package's autoregressive decoding in the same repeat.
        tokens_per_second: new tokens divided by wall time, prompts included.
        overhead: share of wall time outside the models' forward passes.
    """

    ratio: Spread
    tokens_per_second: Spread
    overhead: Spread


@dataclass(frozen=True)
class Difference:
    """The first token at which a decoder left the text of autoregressive decoding.

    Attributes:
        decoder: its name.
        prompt: index of the prompt.
        position: index of the new token.
        token: what it wrote; None if it had stopped.
        expected: what autoregressive decoding wrote; None if that had stopped.
        gap: logit of ``expected`` minus logit of ``token`` in float64; nan where one of them is None.
    """

    decoder: str
    prompt: int
    position: int
    token: int | None
    expected: int | None
    gap: float

    @property
    def is_tie(self) -> bool:
        """Both tokens are equally likely up to float32 rounding, so the decoder is not to blame."""
        return abs(self.gap) < 1e-4  # false for nan


@dataclass
class Report:
    """All that was measured.

    Attributes:
        settings: pair, gamma, max_gen_len, repeats, prompts, and the machine's threads, torch and transformers.
        scores: figures of every decoder by name.
        differences: empty if all decoders wrote the same tokens on all prompts in all repeats.
        acceptance_rate: unbiased α over all prompts.
        tokens_per_round: mean number of tokens a target pass yielded after the prompt.
        c: median seconds for a drafted token / median seconds for an autoregressive one, bookkeeping included.
        v: median seconds to verify γ drafts / median seconds for an autoregressive token: v(γ + 1).
        load_seconds: time to load the pair, if that was measured.
    """

    settings: dict[str, Any]
    scores: dict[str, Score] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    acceptance_rate: float = math.nan
    tokens_per_round: float = math.nan
    c: float = math.nan
    v: float = math.nan
    load_seconds: float = math.nan

    @property
    def identical(self) -> bool:
        """All decoders wrote the same tokens, every time."""
        return not self.differences

    @property
    def expected_ratio(self) -> float:
        """What tokens a round, c and v promise: tokens_per_round / (γ c + v)."""
        return self.tokens_per_round / (self.settings["gamma"] * self.c + self.v)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None where nothing could be measured.

        Keys: ``settings``, ``identical``, ``differences``, ``decoders`` (for each name ``ratio``, ``tokens_per_second``
        and ``overhead``, each with ``median``, ``low``, ``high``, ``values``), ``acceptance_rate``,
        ``tokens_per_round``, ``c``, ``v``, ``expected_ratio``, ``load_seconds``.
        """
        names = ("acceptance_rate", "tokens_per_round", "c", "v", "expected_ratio", "load_seconds")
        differences = [vars(d) | {"gap": None if math.isnan(d.gap) else d.gap} for d in self.differences]
        scores = {name: {key: spread.as_dict() for key, spread in vars(s).items()} for name, s in self.scores.items()}
        figures = {name: getattr(self, name) for name in names}
        figures = {name: None if math.isnan(value) else value for name, value in figures.items()}
        head = {"settings": self.settings, "identical": self.identical, "differences": differences}
        return head | {"decoders": scores} | figures


def measure(
    pair: ModelPair,
    prompts: Sequence[str] = PROMPTS,
    *,
    gamma: int = 4,
    max_gen_len: int = 64,
    repeats: int = 5,
    contenders: Mapping[str, Decoder] | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Report:
    """Time all decoders on all prompts, after one round for warming up.

    Args:
        pair: the models.
        prompts: texts to continue.
        gamma: tokens drafted in a round.
        max_gen_len: most new tokens for a prompt.
        repeats: how often everything is measured.
        contenders: other decoders by name; one must be called ``"autoregressive"``. Default: :func:`decoders`.
        progress: called after every measured prompt of every decoder.

    Raises:
        ValueError: no prompt or an unusable one, ``repeats``, ``gamma`` or ``max_gen_len`` below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    if not prompts:
        raise ValueError("there is no prompt to measure with")
    texts = [prompt_ids(pair.tokenizer(prompt)["input_ids"], pair.target) for prompt in prompts]
    contenders = contenders or decoders(pair, gamma, max_gen_len)
    for decode in contenders.values():
        decode(texts[0])

    runs: dict[str, list[list[Run]]] = {name: [[] for _ in range(repeats)] for name in contenders}
    for repeat in range(repeats):
        for index, ids in enumerate(texts):
            for name in turns(list(contenders), repeat, index):
                runs[name][repeat].append(contenders[name](ids))
                progress()

    settings = {"pair": pair.name, "gamma": gamma, "max_gen_len": max_gen_len, "repeats": repeats}
    machine = {"threads": torch.get_num_threads(), "torch": torch.__version__, "transformers": transformers.__version__}
    report = Report(settings | machine | {"prompts": list(prompts)})
    report.scores = {name: score(own, runs[REFERENCE]) for name, own in runs.items()}
    report.differences = differences(runs, texts, pair.target)
    add_costs(report, runs)
    return report


def turns(names: list[str], repeat: int, prompt: int) -> list[str]:
    """Who goes when: everybody comes first, second, … equally often, and not always behind the same one."""
    first = (repeat + prompt) % len(names)
    order = names[first:] + names[:first]
    return order[::-1] if repeat % 2 else order


def score(own: list[list[Run]], reference: list[list[Run]]) -> Score:
    """Figures of one decoder; both arguments hold the runs of each repeat."""
    speeds = [_speed(row) for row in own]
    ratios = [speed / _speed(row) for speed, row in zip(speeds, reference, strict=True)]
    overheads = [1 - sum(run.model_seconds for run in row) / sum(run.seconds for run in row) for row in own]
    return Score(Spread(ratios), Spread(speeds), Spread(overheads))


def _speed(runs: list[Run]) -> float:
    return sum(len(run.tokens) for run in runs) / sum(run.seconds for run in runs)


def differences(runs: dict[str, list[list[Run]]], texts: list[list[int]], target: PreTrainedModel) -> list[Difference]:
    """Where each decoder left the reference's text: for every prompt, the first place of the first repeat that did."""
    expected = [run.tokens for run in runs[REFERENCE][0]]
    found: list[Difference] = []
    for name, own in runs.items():
        for i, standard in enumerate(expected):
            wrong = next((row[i].tokens for row in own if row[i].tokens != standard), None)
            if wrong is not None:
                found.append(first_difference(name, i, wrong, standard))
    if found:
        exact = copy.deepcopy(target).double()
        found = [replace(d, gap=logit_gap(d, texts[d.prompt] + expected[d.prompt][: d.position], exact)) for d in found]
    return found


def first_difference(decoder: str, prompt: int, tokens: list[int], expected: list[int]) -> Difference:
    """Where two unequal texts part; the gap is left open."""
    both = zip([*tokens, None], [*expected, None], strict=False)
    return next(Difference(decoder, prompt, i, a, b, math.nan) for i, (a, b) in enumerate(both) if a != b)


@torch.inference_mode()
def logit_gap(difference: Difference, context: list[int], model: PreTrainedModel) -> float:
    """How much ``model`` prefers the expected token to the one that was written."""
    if difference.token is None or difference.expected is None:
        return math.nan
    logits = model(torch.tensor([context], device=model.device)).logits[0, -1]  # (vocab,)
    return float(logits[difference.expected] - logits[difference.token])


def add_costs(report: Report, runs: dict[str, list[list[Run]]]) -> None:
    """Acceptance, tokens a round, c and v from the traces of the package's own two decoders."""
    rounds = _rounds(runs.get(SPECULATIVE, []))
    steps = [r.verify_seconds for r in _rounds(runs[REFERENCE])]
    if not rounds or not steps:
        return
    tested = [kept for r in rounds for kept in r.decisions]
    full = [r for r in rounds if len(r.drafted) == report.settings["gamma"]]
    report.tokens_per_round = statistics.fmean(len(r.emitted) for r in rounds)
    if tested:
        report.acceptance_rate = statistics.fmean(tested)
    if full:
        step = statistics.median(steps)
        report.c = statistics.median(r.draft_seconds / len(r.drafted) for r in full) / step
        report.v = statistics.median(r.verify_seconds for r in full) / step


def _rounds(runs: list[list[Run]]) -> list[Round]:
    """All rounds behind the prompt's."""
    return [r for row in runs for run in row if run.trace is not None for r in run.trace.rounds[1:]]
