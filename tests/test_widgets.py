"""Every widget in a real browser: it draws, complains about nothing, fetches nothing, and its controls do something."""

import os
import shutil

import pytest

from specdec_tutorial import palette, widgets
from specdec_tutorial.plotting import trace_state
from specdec_tutorial.trace import Round, Trace

NAMES = sorted(file.stem for file in widgets.FOLDER.glob("*.js"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
CONTROLS = "button, input, select"


class Tokenizer:
    """Token n is a space and the n-th letter."""

    def decode(self, ids):
        return "".join(" " + chr(96 + i) for i in ids)


def a_trace() -> Trace:
    p, q, u = [0.5, 0.25, 0.1], [0.5, 0.75, 0.5], [0.1, 0.9, 0.5, 0.3]
    rounds = [
        Round([7]),
        Round([1, 9], drafted=[1, 2, 3], accepted=1, p=p, q=q, uniforms=u),
        Round([1, 2, 3, 9], drafted=[1, 2, 3], accepted=3, p=p, q=q, uniforms=u),
        Round([1], drafted=[1, 2, 3], accepted=2, p=p, q=q, uniforms=u),
    ]
    return Trace(4, rounds)


# A state like the one a chapter passes, for each widget.
PALETTE = {name: getattr(palette, name.upper()) for name in ("accepted", "rejected", "corrected", "target", "drafter")}
SAMPLES = {
    "cache_grid": {
        "prompt": ["Once", " upon"],
        "written": [" a", " time", "\n"],
        "colors": {"read": palette.TARGET, "kept": palette.NEUTRAL, "written": palette.TARGET},
    },
    "rejection": {
        "words": ["cat", "dog", "cow"],
        "p": [10, 6, 4],
        "q": [4, 12, 4],
        "colors": {**PALETTE, "neutral": palette.NEUTRAL},
    },
    "sampler": {
        "logits": [3 - 0.1 * i for i in range(40)],
        "words": [f" w{i}" for i in range(40)],
        "temperature": 1.0,
        "top_k": 40,
        "top_p": 1.0,
        "u": 0.4,
        "colors": {"kept": palette.TARGET, "out": palette.NEUTRAL},
    },
    "rounds": trace_state(a_trace(), Tokenizer(), 'Once </script> "upon" a time'),
}


@pytest.fixture(scope="module")
def browser():
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        reason = "no chromium on this machine: the widgets were not tried (set CHROMIUM to a browser's path)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, tmp_path):
    """A function that opens a widget with its sample state; at the end nothing may have gone wrong."""
    fetched, complaints, pages = [], [], []

    def gate(route):
        local = route.request.url.startswith(("file:", "data:", "blob:"))
        if not local:
            fetched.append(route.request.url)
        (route.continue_ if local else route.abort)()

    def open_widget(name):
        html = widgets.show(name, "a sample", **SAMPLES[name]).data
        file = tmp_path / f"{name}.html"
        file.write_text(f"<!doctype html><meta charset='utf-8'><body>{html}</body>", encoding="utf-8")
        page = browser.new_page()
        pages.append(page)
        page.route("**/*", gate)
        page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(file.as_uri())
        return page.locator(".specdec-widget")

    yield open_widget
    for page in pages:
        page.close()
    assert fetched == []
    assert complaints == []


def test_every_widget_has_a_sample():
    assert sorted(SAMPLES) == NAMES


def test_an_unknown_widget_is_refused_with_the_names_of_the_others():
    with pytest.raises(ValueError, match="rounds"):
        widgets.show("no-such-widget", "label")


@pytest.mark.parametrize("name", NAMES)
def test_widget_draws_and_names_its_controls(opened, name):
    widget = opened(name)
    assert len(widget.inner_text()) > 20
    assert widget.get_attribute("aria-label") == "a sample"
    for control in widget.locator(CONTROLS).all():
        named = (
            "node => (node.labels?.[0]?.innerText || node.innerText || node.getAttribute('aria-label') || '').trim()"
        )
        assert control.evaluate(named), f"a control without a name: {control.evaluate('node => node.outerHTML')}"


# Pressing what is pressed already changes nothing, and a control may be disabled at first.
ALTERED = """node => {
  if (node.tagName === "BUTTON") return node.click();
  if (node.type === "checkbox") return node.click();
  if (node.type === "radio") return node.checked || node.click();
  if (node.tagName === "SELECT") node.selectedIndex = (node.selectedIndex + 1) % node.options.length;
  else if (node.type === "range") node.value = node.value === node.max ? node.min : node.max;
  else return;
  node.dispatchEvent(new Event("input", { bubbles: true }));
  node.dispatchEvent(new Event("change", { bubbles: true }));
}"""
# What a person sees: the text, styles and pictures, but not the state of the control itself.
SEEN = "node => node.innerText + [...node.querySelectorAll('*')].map(x => x.getAttribute('style') + x.outerHTML.length)"


@pytest.mark.parametrize("name", NAMES)
def test_controls_change_what_is_shown(opened, name):
    total = opened(name).locator(CONTROLS).count()
    tried = 0
    for i in range(total):
        widget = opened(name)
        control = widget.locator(CONTROLS).nth(i)
        idle = "node => node.disabled || node.checked && node.type === 'radio' || node.ariaPressed === 'true'"
        if control.evaluate(idle):
            continue
        before = widget.evaluate(SEEN)
        control.evaluate(ALTERED)
        if widget.evaluate(SEEN) == before:  # there may have been nothing to clear yet
            widget.locator(CONTROLS).first.evaluate(ALTERED)
            before = widget.evaluate(SEEN)
            control.evaluate(ALTERED)
        assert widget.evaluate(SEEN) != before, control.evaluate("node => node.outerHTML")
        tried += 1
    assert tried > 0


def test_rounds_tells_the_story_of_the_trace(opened):
    widget = opened("rounds")
    told = [widget.inner_text()]
    following = widget.get_by_role("button", name="Next ›")
    while following.is_enabled():
        following.click()
        told.append(widget.inner_text())
    # Round 0 has one frame; then guesses, tests (2, 3 and 1 of them) and the end of each round.
    assert len(told) == 1 + 4 + 5 + 3
    assert "u = 0.90, p / q = 0.25 / 0.75 = 0.33; u is not below it: rejected" in told[3]
    assert "its correction: 2 new tokens for one pass" in told[4]
    assert "its bonus: 4 new tokens for one pass" in told[9]
    assert "An end token was accepted" in told[-1]
    assert 'Once </script> "upon" a time g a i a b c i a' in told[-1]


def test_rounds_is_moved_by_the_arrow_keys(opened):
    widget = opened("rounds")
    widget.get_by_role("button", name="Next ›").focus()
    first = widget.inner_text()
    widget.page.keyboard.press("ArrowRight")
    assert widget.inner_text() != first
    widget.page.keyboard.press("ArrowLeft")
    assert widget.inner_text() == first
