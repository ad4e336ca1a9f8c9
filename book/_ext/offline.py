"""Sphinx extension: the built pages fetch nothing from the network."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.fileutil import copy_asset_file

# The SVG output draws its glyphs from paths inside the script; the HTML output would load font files.
MATHJAX = "tex-svg-full.js"


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Serve MathJax from the book itself, as one file."""
    if error is None and app.builder.format == "html":
        package = find_spec("sphinx-mathjax-offline")  # the hyphens keep it out of an import statement
        source = Path(package.origin).parent / "static" / "mathjax" / MATHJAX
        copy_asset_file(str(source), str(Path(app.outdir) / "_static" / MATHJAX))


def drop_thebe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Leave out thebe, which would fetch a kernel; jupyter-book loads it twice, an error in the console."""
    context["script_files"] = [s for s in context["script_files"] if "thebe" not in str(s).lower()]


def setup(app: Sphinx) -> dict[str, bool]:
    app.config.mathjax_path = MATHJAX
    app.connect("html-page-context", drop_thebe)
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
