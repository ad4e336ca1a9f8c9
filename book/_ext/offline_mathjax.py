"""Sphinx extension: serve MathJax from the book itself, as one file that fetches neither fonts nor components."""

from importlib.util import find_spec
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.fileutil import copy_asset_file

# The SVG output draws its glyphs from paths inside the script; the HTML output would load font files.
SCRIPT = "tex-svg-full.js"


def copy_script(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        package = find_spec("sphinx-mathjax-offline")  # the hyphens keep it out of an import statement
        source = Path(package.origin).parent / "static" / "mathjax" / SCRIPT
        copy_asset_file(str(source), str(Path(app.outdir) / "_static" / SCRIPT))


def setup(app: Sphinx) -> dict[str, bool]:
    app.config.mathjax_path = SCRIPT
    app.connect("build-finished", copy_script)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
