"""Two decoders side by side in the terminal: the replay of two traces.

Two decoders that ran at the same time would fight for the same cores. So each is measured alone, and what is shown
is a replay: a trace says when every guess and every token came.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.console import Console, Group
from rich.containers import Lines
from rich.live import Live
from rich.panel import Panel
from rich.style import Style
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from .palette import ACCEPTED, CORRECTED, DRAFTER, REJECTED, TARGET
from .plotting import Outcome, fates
from .trace import Generation, Round

# Every state differs in more than its hue, and is legible on a dark and on a light terminal.
STYLES: dict[Outcome, Style] = {
    "accepted": Style(color=ACCEPTED),
    "rejected": Style(color=REJECTED, strike=True),
    "correction": Style(color="#000000", bgcolor=CORRECTED),
    "bonus": Style(color=TARGET, bold=True),
    "no draft": Style(),
}
GUESS = Style(color=DRAFTER, italic=True)
PROMPT = Style(dim=True)
# Without colors, the notation of word-wise diffs: [-thrown away-] {+put in its place+}.
MARKS: dict[Outcome, tuple[str, str]] = {"rejected": ("[-", "-]"), "correction": ("{+", "+}")}
FRAMES_PER_SECOND = 20
REPLAY_SECONDS = 6.0  # a small model is done before the eye has found the place


class Piece(NamedTuple):
    """The text that one token adds, and what became of the token."""

    text: str
    outcome: Outcome


@dataclass(frozen=True)
class Step:
    """One round, ready to be shown; times are seconds since the start.

    Attributes:
        began: when drafting began.
        drafted: when the last guess was made and verification began.
        ended: when the round's tokens were out.
        guesses: text of each drafted token.
        pieces: what became of them, and the target's own token. Guesses that were never tested are left out.
    """

    began: float
    drafted: float
    ended: float
    guesses: list[str]
    pieces: list[Piece]


@dataclass(frozen=True)
class Lane:
    """One contender: its name and color, the prompt, and the steps of its decoding."""

    title: str
    color: str
    prompt: str
    steps: list[Step]
    generation: Generation

    @property
    def seconds(self) -> float:
        """When the last token was out."""
        return self.steps[-1].ended

    def caption(self, at: float) -> str:
        """What it has done by the time ``at``."""
        rounds = self.generation.trace.rounds[: sum(step.ended <= at for step in self.steps)]
        tokens = sum(len(r.emitted) for r in rounds)
        done = "✓ " if at >= self.seconds else ""
        return f"{done}{tokens} tokens · {len(rounds)} passes · {min(at, self.seconds):.2f} s"


def lane(
    title: str, color: str, prompt: Sequence[int], generation: Generation, tokenizer: PreTrainedTokenizerBase
) -> Lane:
    """Make a trace showable."""
    context, now = list(prompt), 0.0
    steps: list[Step] = []
    for r in generation.trace.rounds:
        drafted = now + r.draft_seconds
        ended = drafted + r.verify_seconds
        steps.append(
            Step(now, drafted, ended, added_text(tokenizer, context, r.drafted), settled(tokenizer, context, r))
        )
        context, now = context + r.emitted, ended
    return Lane(title, color, tokenizer.decode(list(prompt)), steps, generation)


def settled(tokenizer: PreTrainedTokenizerBase, context: list[int], round: Round) -> list[Piece]:
    """The round's tokens in the order in which they are read, with their fates."""
    known = [fate for fate in fates(round) if fate.outcome != "never tested"]
    kept = added_text(tokenizer, context, round.emitted)
    out: list[Piece] = []
    for fate in known:
        if fate.outcome == "rejected":
            guess = added_text(tokenizer, context + round.emitted[: round.accepted], [fate.token])[0]
            out.append(Piece(guess.replace("\n", "↵"), "rejected"))
        else:
            out.append(Piece(kept.pop(0), fate.outcome))
    return out


def added_text(tokenizer: PreTrainedTokenizerBase, context: list[int], tokens: Sequence[int]) -> list[str]:
    """What each token adds to the text; nothing while a character is incomplete."""
    ids, before = list(context), str(tokenizer.decode(context))
    out: list[str] = []
    for token in tokens:
        ids.append(token)
        after = str(tokenizer.decode(ids))
        complete = not after.endswith("\N{REPLACEMENT CHARACTER}")
        out.append(after[len(before) :] if complete else "")
        before = after if complete else before
    return out


def written(lane: Lane, at: float, marks: bool = False) -> Text:
    """The lane's text at the time ``at``: what is settled, and the guesses made so far in the round that runs."""
    text = Text().append(lane.prompt, PROMPT)
    for step in lane.steps:
        if at >= step.ended:
            for piece in step.pieces:
                append(text, piece, marks)
        elif at >= step.began and step.guesses:
            share = (at - step.began) / max(step.drafted - step.began, 1e-9)
            made = step.guesses[: int(share * len(step.guesses))]
            text.append("".join(made), GUESS)
    return text


def append(text: Text, piece: Piece, marks: bool) -> None:
    """Append a piece in its style; its leading space stays unstyled, so that words keep apart."""
    word = piece.text.lstrip(" ")
    text.append(piece.text[: len(piece.text) - len(word)], Style())
    before, after = MARKS.get(piece.outcome, ("", "")) if marks and word else ("", "")
    text.append(before + word + after, STYLES[piece.outcome])


def lines(lane: Lane, at: float, console: Console) -> Lines:
    """The lane's text at the time ``at``, broken to half the console's width."""
    inside = console.width // 2 - 4  # borders and a space on either side
    return written(lane, at, without_colors(console)).wrap(console, inside)


def frame(lanes: Sequence[Lane], at: float, console: Console, most: int | None = None) -> Table:
    """Both lanes at the time ``at``, as high as they will be in the end; of more than ``most`` lines, the last."""
    height = max(len(lines(one, one.seconds, console)) for one in lanes)
    height = max(1, min(height, most or height))
    grid = Table.grid(expand=True, padding=0)
    panels = []
    for one in lanes:
        grid.add_column(ratio=1)
        text = Text("\n").join(lines(one, at, console)[-height:])
        title, caption = Text(one.title, Style(bold=True)), Text(one.caption(at))
        panels.append(
            Panel(text, title=title, subtitle=caption, border_style=one.color, padding=(0, 1), height=height + 2)
        )
    grid.add_row(*panels)
    return grid


def without_colors(console: Console) -> bool:
    """True where styles would be lost: a pipe, a file, ``NO_COLOR``, a dumb terminal."""
    return console.color_system is None or console.no_color


def legend(console: Console) -> Text:
    """What the styles, or the marks, stand for."""
    if without_colors(console):
        return Text("[-a rejected guess-]  {+the target's correction+}")
    text = Text().append("guess", GUESS)
    names: dict[Outcome, str] = {
        "accepted": "accepted",
        "rejected": "rejected",
        "correction": "target's correction",
        "bonus": "target's bonus",
    }
    for outcome, name in names.items():
        text.append("   ").append(name, STYLES[outcome])
    return text


def slowdown(lanes: Sequence[Lane]) -> float:
    """The whole factor by which a replay must be slowed down to last at least ``REPLAY_SECONDS``; 1 if it does."""
    return max(1.0, float(math.ceil(REPLAY_SECONDS / max(lane.seconds for lane in lanes))))


def replay(lanes: Sequence[Lane], console: Console, slow: float) -> None:
    """Show both lanes as they came, ``slow`` times slower; Ctrl-C skips to the end."""
    last = max(lane.seconds for lane in lanes)
    most = max(1, console.height - 5)  # borders, legend, cursor
    began = time.perf_counter()
    try:
        with Live(console=console, refresh_per_second=FRAMES_PER_SECOND, transient=True) as live:
            while (at := (time.perf_counter() - began) / slow) < last:
                live.update(Group(frame(lanes, at, console, most), legend(console)))
                time.sleep(1 / FRAMES_PER_SECOND)
    except KeyboardInterrupt:
        pass


def heading(pair: str, drawing: str, animated: bool, slow: float) -> Text:
    """What is shown, and how it was made."""
    how = "measured one after the other"
    if animated:
        how += ", replayed together" + (f" {slow:g} times slower" if slow != 1 else " at their speed")
    return Text(f"{pair}, {drawing}: {how}", Style(dim=True))


def print_result(console: Console, lanes: list[Lane], greedy: bool) -> bool:
    """Print the figures; return whether the tokens are as promised."""
    plain, guessed = (one.generation for one in lanes)
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for column in ("", "tokens/s", "tokens", "target passes", "seconds"):
        table.add_column(column, justify="right" if column else "left")
    for one, out in zip(lanes, (plain, guessed), strict=True):
        cells = (
            f"{out.tokens_per_second:.0f}",
            str(len(out.tokens)),
            str(len(out.trace.rounds)),
            f"{out.trace.seconds:.2f}",
        )
        table.add_row(one.title, *cells)
    ratio = guessed.tokens_per_second / plain.tokens_per_second
    console.print()
    console.print(table)
    console.print(
        Text(f"{ratio:.2f} × the speed", Style(bold=True)),
        f"· acceptance {figure(guessed.acceptance_rate)} · {figure(guessed.trace.tokens_per_round)} tokens a round",
    )
    if not greedy:
        console.print("same law: a sampled text differs, its distribution does not")
        return True
    same = plain.tokens == guessed.tokens
    verdict = "identical tokens" if same else "different tokens: the decoders disagree"
    console.print(Text(verdict, Style(color=ACCEPTED if same else REJECTED, bold=True)))
    return same


def figure(value: float, digits: int = 2) -> str:
    """A rounded number; a dash where nothing could be measured."""
    return "–" if math.isnan(value) else f"{value:.{digits}f}"
