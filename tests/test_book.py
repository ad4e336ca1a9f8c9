"""The chapters, as files: what a reader relies on, checked without running a cell."""

import ast
import json
import re
import statistics
import tomllib
from pathlib import Path

import pytest

from specdec_tutorial import assemble

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
URL = PROJECT["urls"]["Homepage"]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))

BADGE = "[Open in Colab](https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name})"
INSTALL = f"""\
# Colab installs the book's package here; at home this cell does nothing.
import sys

if "google.colab" in sys.modules:
    %pip install -q --no-deps "specdec-tutorial @ git+{URL}@v{PROJECT["version"]}"\
"""


def cells(chapter: Path, kind: str = "code") -> list[dict]:
    return [c for c in json.loads(chapter.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == kind]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


def code_lines(text: str) -> int:
    """Lines of code: blank lines, comments and docstrings do not count."""
    if not text.startswith(assemble.MARK):
        return sum(bool(line.strip()) for line in text.splitlines())
    documented = sum(
        (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in text.splitlines()) - documented


each_chapter = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)


def test_the_table_of_contents_names_every_chapter():
    listed = re.findall(r"file: (notebooks/\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    assert listed == [f"notebooks/{path.stem}" for path in CHAPTERS]


@each_chapter
def test_opens_with_title_badge_box_and_install_cell(chapter):
    title, box, install = json.loads(chapter.read_text(encoding="utf-8"))["cells"][:3]
    repository = URL.removeprefix("https://github.com/")
    assert source(title).startswith(f"# {int(chapter.stem[:2])}. ")
    assert BADGE.format(repository=repository, name=chapter.name) in source(title)
    assert all(f"**{word}" in source(box) for word in ("You will build", "You need", "Minutes"))
    assert source(install) == INSTALL


@each_chapter
def test_stores_nothing_that_a_run_makes(chapter):
    assert "widgets" not in json.loads(chapter.read_text(encoding="utf-8"))["metadata"]
    for cell in cells(chapter):
        if "keep_output" not in tags(cell):
            assert (cell["outputs"], cell["execution_count"]) == ([], None), f"cell {cell['id']} stores a run's output"


@each_chapter
def test_checked_outputs_exist(chapter):
    for cell in cells(chapter):
        if "NBVAL_CHECK_OUTPUT" in source(cell):
            assert cell["outputs"], f"cell {cell['id']}: nbval has nothing to compare with"


@each_chapter
def test_every_cell_has_an_id_of_its_own(chapter):
    ids = [cell.get("id") for cell in json.loads(chapter.read_text(encoding="utf-8"))["cells"]]
    assert None not in ids
    assert len(set(ids)) == len(ids)


@each_chapter
def test_cells_are_short(chapter):
    lengths = {cell["id"]: code_lines(source(cell)) for cell in cells(chapter)}
    assert statistics.median(lengths.values()) <= 8
    definitions = [cell["id"] for cell in cells(chapter) if source(cell).startswith(assemble.MARK)]
    assert {i: lengths[i] for i in definitions if lengths[i] > 40} == {}


@each_chapter
def test_every_figure_has_alt_text(chapter):
    for cell in cells(chapter):
        if "plt.show(" in source(cell):
            alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt) >= 20, f"cell {cell['id']} shows a figure without alt text in its metadata"


@each_chapter
def test_solutions_fold_everywhere(chapter):
    for cell in cells(chapter):
        if source(cell).startswith("#@title Solution"):
            assert "hide-cell" in tags(cell), cell["id"]  # in the book
            assert cell["metadata"].get("cellView") == "form", cell["id"]  # in Colab
            assert cell["metadata"].get("jupyter", {}).get("source_hidden"), cell["id"]  # in JupyterLab


def test_book_and_package_are_one_thing():
    problems = assemble.compare(ROOT / "notebooks")
    assert not problems, "\n".join(problems)
