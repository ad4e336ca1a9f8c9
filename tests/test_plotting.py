"""Figures of a trace say what the trace says. No model is needed: traces are written by hand."""

import builtins

import pytest

from specdec_tutorial import plotting
from specdec_tutorial.trace import Round, Trace

matplotlib = pytest.importorskip("matplotlib", reason="figures need the extra [plot]")
matplotlib.use("agg")
pyplot = pytest.importorskip("matplotlib.pyplot")

P, Q, U = [0.5, 0.25, 0.001], [0.5, 0.75, 0.5], [0.1, 0.9, 0.5, 0.3]
PROMPT = Round([7])
CORRECTED = Round([1, 9], drafted=[1, 2, 3], accepted=1, p=P, q=Q, uniforms=U)
ALL_KEPT = Round([1, 2, 3, 9], drafted=[1, 2, 3], accepted=3, p=P, q=Q, uniforms=U)
ENDED = Round([1], drafted=[1, 2, 3], accepted=2, p=P, q=Q, uniforms=U)  # token 1 ends the text
TRACE = Trace(4, [PROMPT, CORRECTED, ALL_KEPT, ENDED])


class Tokenizer:
    """Token n is a space and the n-th letter; 9 is a line end, 7 something that matplotlib takes for a formula."""

    def decode(self, ids):
        return "".join({9: "\n", 7: "$x$ <b>"}.get(i, " " + chr(96 + i)) for i in ids)


def outcomes(round):
    return [fate.outcome for fate in plotting.fates(round)]


def texts(figure):
    figure.canvas.draw()  # a text that cannot be drawn raises here
    return [t.get_text() for t in figure.axes[0].texts]


def test_every_token_of_a_round_has_its_fate():
    assert outcomes(PROMPT) == ["no draft"]
    assert outcomes(CORRECTED) == ["accepted", "rejected", "never tested", "correction"]
    assert outcomes(ALL_KEPT) == ["accepted", "accepted", "accepted", "bonus"]
    assert outcomes(ENDED) == ["accepted", "never tested", "never tested"]


def test_fates_agree_with_the_statistics_of_the_trace():
    all_outcomes = [outcome for round in TRACE.rounds for outcome in outcomes(round)]
    assert all_outcomes.count("accepted") == TRACE.accepted
    assert all_outcomes.count("rejected") == TRACE.rejected


def test_plot_rounds_shows_each_token_with_p_and_q():
    shown = texts(plotting.plot_rounds(TRACE, Tokenizer()))
    assert {"✓ ·a", "✗ ·b", "·c", "→ ↵", "+ ↵"} <= set(shown)
    assert {"p 0.50  q 0.50", "p 0.25  q 0.75", "p <.01  q 0.50", "correction", "bonus"} <= set(shown)
    assert sum(text.startswith("round") for text in shown) == 4


def test_plot_rounds_stops_where_it_is_told():
    shown = texts(plotting.plot_rounds(TRACE, Tokenizer(), most=2))
    assert "round 1" in shown and "round 2" not in shown


@pytest.mark.parametrize("accepted, own", [(0, "correction"), (1, "correction"), (2, "bonus")])
def test_plot_round_marks_guesses(accepted, own):
    shown = texts(plotting.plot_round("…", ["a", "b"], accepted, "c"))
    assert own in shown
    assert shown.count("accepted") == accepted
    assert shown.count("rejected") == (accepted < 2)


def test_plot_caches_writes_how_far_each_model_has_read():
    moments = [plotting.Moment("before", "AB", "", 1, 1), plotting.Moment("after", "AB", "cd", 3, 4)]
    shown = texts(plotting.plot_caches(moments))
    assert {"before", "after", "drafter 1", "target 1", "drafter 3", "target 4"} <= set(shown)


def test_plot_timeline_stacks_verifying_on_drafting():
    timed = Trace(4, [Round([7], verify_seconds=0.004), Round([1, 9], draft_seconds=0.001, verify_seconds=0.005)])
    figure = plotting.plot_timeline(timed)
    draft, verify = figure.axes[0].containers
    assert [bar.get_height() for bar in draft] == pytest.approx([0, 1])
    assert [bar.get_y() + bar.get_height() for bar in verify] == pytest.approx([4, 6])
    assert [t for t in texts(figure) if t] == ["+1", "+2"]


def test_colored_text_strikes_out_rejected_guesses_and_escapes():
    pytest.importorskip("IPython")
    page = plotting.colored_text(TRACE, Tokenizer()).data
    assert page.count("<del") == TRACE.rejected
    assert "round 1, rejected, p 0.25, q 0.75" in page
    assert "&lt;b&gt;" in page and "<b>" not in page


def test_trace_state_is_the_trace():
    state = plotting.trace_state(TRACE, Tokenizer(), "prompt")
    assert [r["own"] for r in state["rounds"]] == ["$x$·<b>", "↵", "↵", None]
    assert [r["decisions"] for r in state["rounds"]] == [[], [True, False], [True] * 3, [True]]
    written = "".join(r["kept"] + r["added"] for r in state["rounds"])
    assert written == Tokenizer().decode([t for r in TRACE.rounds for t in r.emitted])


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"specdec-tutorial\[plot\]"):
        plotting.plot_timeline(TRACE)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot.close("all")
