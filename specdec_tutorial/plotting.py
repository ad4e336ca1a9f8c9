"""Figures of a trace: who proposed which token, what became of it, and where the time went.

Needs matplotlib (the extra ``plot``), imported only when a figure is drawn. All functions return what they
drew; in a notebook, ``plt.show()`` displays it.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from transformers import PreTrainedTokenizerBase

from .palette import ACCEPTED, CORRECTED, DRAFTER, NEUTRAL, REJECTED, TARGET
from .trace import Round, Trace

if TYPE_CHECKING:
    from IPython.display import HTML
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Outcome = Literal["accepted", "rejected", "never tested", "correction", "bonus", "no draft"]

COLORS: dict[Outcome, str] = {
    "accepted": ACCEPTED,
    "rejected": REJECTED,
    "never tested": NEUTRAL,
    "correction": CORRECTED,
    "bonus": TARGET,
    "no draft": TARGET,
}
SIGNS: dict[Outcome, str] = {"accepted": "✓ ", "rejected": "✗ ", "never tested": "", "correction": "→ ", "bonus": "+ "}


class Fate(NamedTuple):
    """A token of a round and what became of it; p and q are None for the target's own token."""

    token: int
    outcome: Outcome
    p: float | None = None
    q: float | None = None


class Moment(NamedTuple):
    """What is written, guessed and read at one moment of a round; see :func:`plot_caches`."""

    label: str
    text: Sequence[str]
    drafted: Sequence[str]
    drafter_read: int
    target_read: int


def fates(round: Round) -> list[Fate]:
    """The drafted tokens of a round in order, then the target's own token if there is one.

    Drafted tokens behind a rejection, or behind an end token, count as never tested.
    """
    tested: list[Outcome] = ["accepted" if kept else "rejected" for kept in round.decisions]
    tested += ["never tested"] * (len(round.drafted) - len(tested))
    found = [Fate(*row) for row in zip(round.drafted, tested, round.p, round.q, strict=True)]
    if len(round.emitted) > round.accepted:
        found.append(Fate(round.emitted[-1], own_outcome(round)))
    return found


def own_outcome(round: Round) -> Outcome:
    """What to call the target's own token at the end of a round."""
    if not round.drafted:
        return "no draft"
    return "correction" if round.accepted < len(round.drafted) else "bonus"


def piece(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """The text of one token with its spaces and line ends made visible."""
    return str(tokenizer.decode([token])).replace(" ", "·").replace("\n", "↵")


def plot_round(context: str, drafted: Sequence[str], accepted: int, own: str) -> Figure:
    """Draw the idea of one round: guesses, one pass of the target over all of them, what is kept.

    Args:
        context: the end of the text so far.
        drafted: the guessed tokens.
        accepted: how many of them the target keeps.
        own: the target's own token after those.
    """
    gamma = len(drafted)
    figure, ax = _canvas(gamma + 4.1, 3.2, width=1.15)
    for y, who in [(2.5, f"drafter\n{gamma} small passes"), (1.4, "target\n1 large pass"), (0.3, "new text")]:
        ax.text(0, y + 0.3, who, va="center", fontsize=10)
    for y in (2.5, 0.3):
        ax.text(2.9, y + 0.3, context, ha="right", va="center", fontsize=10, color=NEUTRAL)
    for i, token in enumerate(drafted):
        _box(ax, 3 + i, 2.5, token, "", DRAFTER)
        ax.annotate("", (3.46 + i, 2.05), (3.46 + i, 2.48), arrowprops={"arrowstyle": "->", "color": NEUTRAL})
    _box(ax, 3, 1.4, "one pass reads all guesses and judges every one", "", TARGET, width=gamma + 1)
    outcomes: list[Outcome] = ["accepted" if i < accepted else "never tested" for i in range(gamma)]
    if accepted < gamma:
        outcomes[accepted] = "rejected"
    outcome: Outcome = "correction" if accepted < gamma else "bonus"
    for i, (token, what) in enumerate(zip([*drafted, own], [*outcomes, outcome], strict=True)):
        _box(ax, 3 + i, 0.3, SIGNS[what] + token, what, COLORS[what], dashed=what == "never tested")
    return figure


def plot_caches(moments: Sequence[Moment]) -> Figure:
    """Draw, moment by moment, how far each of the two models has read.

    Written tokens stand in solid boxes, guessed ones in dashed boxes; the bars below span what a model has read.
    """
    widest = max(len(m.text) + len(m.drafted) for m in moments)
    figure, ax = _canvas(widest + 5.4, 1.35 * len(moments), width=0.75)
    for row, moment in enumerate(reversed(moments)):
        y = 1.35 * row
        ax.text(0, y + 0.8, moment.label, va="center", fontsize=10)
        for i, token in enumerate([*moment.text, *moment.drafted]):
            guess = i >= len(moment.text)
            _box(ax, 4 + i, y + 0.5, token, "", DRAFTER if guess else NEUTRAL, dashed=guess)
        bars = [("drafter", moment.drafter_read, DRAFTER, 0.3), ("target", moment.target_read, TARGET, 0.1)]
        for who, read, color, height in bars:
            ax.barh(y + height, read, left=3.98, height=0.15, color=color)
            ax.text(4.05 + read, y + height, f"{who} {read}", va="center", fontsize=8, color=color)
    return figure


def plot_rounds(trace: Trace, tokenizer: PreTrainedTokenizerBase, most: int = 12) -> Figure:
    """Draw the first ``most`` rounds of a trace: one row a round, one box a token, p and q below each guess.

    The last column holds the target's own token: a correction where a guess was rejected, else a bonus.
    """
    rounds = trace.rounds[:most]
    gamma = max(len(r.drafted) for r in rounds)
    figure, ax = _canvas(gamma + 2.2, 0.72 * len(rounds) + 0.5, width=1.3)
    for row, round in enumerate(rounds):
        y = 0.72 * (len(rounds) - 1 - row)
        ax.text(0, y + 0.3, f"round {row}", va="center", fontsize=9)
        for i, fate in enumerate(fates(round)):
            text = SIGNS.get(fate.outcome, "") + piece(tokenizer, fate.token)
            note = fate.outcome if fate.p is None or fate.q is None else f"p {_short(fate.p)}  q {_short(fate.q)}"
            x = 0.7 + (i if fate.p is not None else gamma + 0.2)
            _box(ax, x, y, text, note, COLORS[fate.outcome], dashed=fate.outcome == "never tested")
    _legend(ax, ["accepted", "rejected", "never tested", "correction", "bonus"])
    return figure


def plot_timeline(trace: Trace) -> Figure:
    """Draw the milliseconds of every round, drafting below and verifying above, with the tokens it yielded."""
    plt = _pyplot()
    figure, ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
    rounds = range(len(trace.rounds))
    draft = [1000 * r.draft_seconds for r in trace.rounds]
    verify = [1000 * r.verify_seconds for r in trace.rounds]
    ax.bar(rounds, draft, color=DRAFTER, label="drafting")
    ax.bar(rounds, verify, bottom=draft, color=TARGET, label="verifying")
    for i, round in enumerate(trace.rounds):
        ax.text(i, draft[i] + verify[i], f"+{len(round.emitted)}", ha="center", va="bottom", fontsize=8)
    ax.set(xlabel="round (0 reads the prompt); above each bar: tokens it yielded", ylabel="milliseconds")
    ax.margins(y=0.12)
    ax.legend()
    return figure


def colored_text(trace: Trace, tokenizer: PreTrainedTokenizerBase) -> HTML:
    """The generated text, every token underlined in the color of its origin, rejected guesses struck out.

    Hovering over a token shows its round, p and q. A thin bar ends each round.
    """
    from IPython.display import HTML  # the package itself must import without Jupyter

    parts: list[str] = []
    for number, round in enumerate(trace.rounds):
        for fate in fates(round):
            if fate.outcome == "never tested":
                continue
            tag = "del" if fate.outcome == "rejected" else "span"
            about = f"round {number}, {fate.outcome}" + ("" if fate.p is None else f", p {fate.p:.2f}, q {fate.q:.2f}")
            style = f"border-bottom:3px solid {COLORS[fate.outcome]}"
            shown = escape(str(tokenizer.decode([fate.token])))
            parts.append(f'<{tag} style="{style}" title="{about}">{shown}</{tag}>')
        parts.append(f'<span style="color:{NEUTRAL}" aria-hidden="true">│</span>')
    named: list[Outcome] = ["accepted", "rejected", "correction", "bonus"]
    legend = " ".join(f'<span style="border-bottom:3px solid {COLORS[name]}">{name}</span>' for name in named)
    body = f'<p style="white-space:pre-wrap;line-height:2">{"".join(parts)}</p><p>{legend}</p>'
    return HTML(f'<div role="group" aria-label="Generated text, colored by origin">{body}</div>')


def trace_state(trace: Trace, tokenizer: PreTrainedTokenizerBase, prompt: str) -> dict[str, Any]:
    """A trace as plain JSON values, small enough to sit in a page: the state of the widget ``rounds``."""
    rounds = [
        {
            "drafted": [piece(tokenizer, token) for token in r.drafted],
            "decisions": r.decisions,
            "p": [float(f"{x:.4g}") for x in r.p],
            "q": [float(f"{x:.4g}") for x in r.q],
            "u": [float(f"{x:.4g}") for x in r.uniforms],
            "own": piece(tokenizer, r.emitted[-1]) if len(r.emitted) > r.accepted else None,
            "kind": own_outcome(r),
            "kept": tokenizer.decode(r.emitted[: r.accepted]),
            "added": tokenizer.decode(r.emitted[r.accepted :]),
        }
        for r in trace.rounds
    ]
    return {"prompt": prompt, "rounds": rounds, "colors": COLORS}


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('figures need matplotlib: pip install "specdec-tutorial[plot]"') from error
    return plt


def _canvas(columns: float, rows: float, width: float) -> tuple[Figure, Axes]:
    """An empty figure on which a unit is one token box."""
    figure, ax = _pyplot().subplots(figsize=(width * columns, 0.9 * rows), layout="constrained")
    ax.set(xlim=(0, columns), ylim=(-0.05, rows))  # room for the line of the lowest boxes
    ax.axis("off")
    return figure, ax


def _box(
    ax: Axes, x: float, y: float, text: str, note: str, color: str, *, width: float = 1, dashed: bool = False
) -> None:
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle((x, y), width - 0.08, 0.6, linewidth=1.5, **_style(color, dashed)))
    safe, middle = text.replace("$", r"\$"), x + (width - 0.08) / 2  # a dollar sign would begin a formula
    size = 9 if len(text) <= 11 * width else 7
    ax.text(middle, y + (0.38 if note else 0.3), safe, ha="center", va="center", fontsize=size)
    ax.text(middle, y + 0.13, note, ha="center", va="center", fontsize=7)


def _short(probability: float) -> str:
    return "<.01" if 0 < probability < 0.005 else f"{probability:.2f}"


def _style(color: str, dashed: bool) -> dict[str, Any]:
    """A frame of the color, filled with a tint of it unless dashed."""
    from matplotlib.colors import to_rgb

    face = (*to_rgb(color), 0.0 if dashed else 0.16)
    return {"facecolor": face, "edgecolor": color, "linestyle": "--" if dashed else "-"}


def _legend(ax: Axes, names: Sequence[Outcome]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(**_style(COLORS[n], n == "never tested"), label=SIGNS[n] + n) for n in names]
    ax.legend(handles=handles, loc="upper left", ncols=len(names), fontsize=8, frameon=False)
