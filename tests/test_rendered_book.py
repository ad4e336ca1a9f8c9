"""The built pages, opened in a browser with the network cut. `make test` builds them first."""

import os
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.rendered
HTML = Path(__file__).parent.parent / "_build" / "html"
PAGES = sorted([*HTML.glob("book/*.html"), *HTML.glob("notebooks/*.html")])
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="session")
def browser():
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        reason = "no chromium on this machine: the built pages were not opened (set CHROMIUM to a browser's path)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=PAGES, ids=lambda path: path.stem)
def page(request, browser):
    """One built page, fully loaded, with what it asked the network for and what it complained about."""
    page = browser.new_page()
    page.set_default_timeout(180_000)  # milliseconds; a busy machine is slow, not wrong
    page.fetched, page.complaints = [], []

    def gate(route):
        local = route.request.url.startswith(("file:", "data:", "blob:"))
        if not local:
            page.fetched.append(route.request.url)
        (route.continue_ if local else route.abort)()

    page.route("**/*", gate)
    page.on("console", lambda message: message.type == "error" and page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(request.param.as_uri())
    page.wait_for_load_state("networkidle")
    page.evaluate("window.MathJax?.startup?.promise?.then(() => true)")
    yield page
    page.close()


def test_the_book_was_built():
    assert PAGES, "no pages in _build/html: run `make book` first"


def test_page_renders_with_the_network_cut(page):
    assert page.fetched == []
    assert page.complaints == []
    assert page.locator("mjx-container").count() >= page.locator(".math").count()
    # MathJax marks an error with an element of its own, and shows an unknown macro in red.
    assert page.locator('mjx-merror, [data-mjx-error], mjx-container [fill="red"]').count() == 0


def test_images_load_and_speak(page):
    for image in page.locator("article img").all():
        alt, address = image.get_attribute("alt") or "", image.get_attribute("src") or ""
        # Without a text of its own, Sphinx puts the file's name there.
        assert len(alt) >= 20 and not alt.endswith((".png", ".svg")), f"no alt text: {address}"
        assert image.evaluate("image => image.complete && image.naturalWidth > 0"), f"does not load: {address}"


def test_nothing_is_left_unrendered(page):
    text = page.locator("article").inner_text()
    for residue in ("{glue:", "{cite:", "{py:", "Traceback (most recent call last)"):
        assert residue not in text
