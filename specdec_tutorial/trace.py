"""What happened while decoding: data only, no behavior beyond adding up.

Plots, tables, the console's debug view and all statistics are views of a trace.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

StopReason = Literal["eos", "max_gen_len", "model_limit"]


@dataclass(frozen=True)
class Round:
    """One pass of the target and what came of it.

    Round 0 of a trace is the pass over the prompt. Ordinary decoding drafts nothing, so every one of
    its rounds emits one token.

    Attributes:
        drafted: the γ tokens guessed in this round.
        accepted: how many of them the target kept.
        emitted: the tokens added to the text: accepted ones and one of the target's own, cut off at an end token.
        p: target's probability of each drafted token, length γ.
        q: drafter's probability of each drafted token, length γ.
        uniforms: random numbers in [0, 1): one for each drafted token, then the one that drew the last token.
        draft_seconds: wall time of guessing.
        verify_seconds: wall time of the target's pass and the decision.
    """

    emitted: list[int]
    drafted: list[int] = field(default_factory=list)
    accepted: int = 0
    p: list[float] = field(default_factory=list)
    q: list[float] = field(default_factory=list)
    uniforms: list[float] = field(default_factory=list)
    draft_seconds: float = 0.0
    verify_seconds: float = 0.0

    @property
    def decisions(self) -> list[bool]:
        """Accepted or not, for each drafted token that was put to the test and whose outcome was emitted."""
        kept = [True] * self.accepted + [False] * (self.accepted < len(self.drafted))
        return kept[: len(self.emitted)]


@dataclass
class Trace:
    """All rounds of one generation, and what the whole cost.

    Attributes:
        prompt_length: tokens in the prompt.
        rounds: round 0 reads the prompt, the others decode.
        seconds: wall time of the whole call.
        model_seconds: the part of it spent inside the models' forward passes.
        target_positions: positions fed to the target; with a cache, ``prompt_length + Σ (γ + 1)`` over rounds 1, 2, …
        drafter_positions: positions fed to the drafter.
    """

    prompt_length: int
    rounds: list[Round] = field(default_factory=list)
    seconds: float = 0.0
    model_seconds: float = 0.0
    target_positions: int = 0
    drafter_positions: int = 0

    @property
    def accepted(self) -> int:
        """Drafted tokens that were tested and kept."""
        return sum(sum(r.decisions) for r in self.rounds)

    @property
    def rejected(self) -> int:
        """Drafted tokens that were tested and replaced. Those behind a rejection were never tested."""
        return sum(len(r.decisions) - sum(r.decisions) for r in self.rounds)

    @property
    def acceptance_rate(self) -> float:
        """Unbiased estimate of α: accepted / (accepted + rejected); nan if nothing was tested.

        accepted / drafted would count tokens behind a rejection as failures, though nobody asked about them.
        """
        tested = self.accepted + self.rejected
        return self.accepted / tested if tested else float("nan")

    @property
    def tokens_per_round(self) -> float:
        """Mean number of tokens a target pass yielded after the prompt; nan if there was no such pass."""
        rounds = self.rounds[1:]
        return sum(len(r.emitted) for r in rounds) / len(rounds) if rounds else float("nan")

    @property
    def overhead(self) -> float:
        """Share of wall time spent outside the models' forward passes."""
        return 1 - self.model_seconds / self.seconds


@dataclass(frozen=True)
class Generation:
    """The result of every decoder.

    Attributes:
        tokens: the new tokens, without the prompt; an end token is included when one was produced.
        stopped_by: ``"eos"``, ``"max_gen_len"``, or ``"model_limit"`` when the model can read no further.
        trace: how the tokens came about.
    """

    tokens: list[int]
    stopped_by: StopReason
    trace: Trace

    @property
    def acceptance_rate(self) -> float:
        """See :attr:`Trace.acceptance_rate`."""
        return self.trace.acceptance_rate

    @property
    def tokens_per_second(self) -> float:
        """New tokens divided by the wall time of the whole call, prompt included."""
        return len(self.tokens) / self.trace.seconds
