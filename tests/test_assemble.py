"""The check that keeps book and package one thing is itself checked, on a package of three definitions."""

import json
from pathlib import Path

import pytest

from specdec_tutorial import assemble

MODULE = '''\
"""A module."""

import math

LIMIT = 3


def half(x: float) -> float:
    """Half of it."""
    return x / 2


class Counter:
    """Counts."""

    step = 1

    def __init__(self) -> None:
        """Start at nothing."""
        self.n = 0

    @property
    def doubled(self) -> int:
        """Twice the count."""
        return 2 * self.n
'''
CELLS = {
    "first": "import math\n\nLIMIT = 3\n\n\ndef half(x: float) -> float:\n    return x / 2  # a comment may differ",
    "class": "class Counter:\n    step = 1\n\n    def __init__(self) -> None:\n        self.n = 0",
    "more": "class Counter(Counter):\n    @property\n    def doubled(self) -> int:\n        return 2 * self.n",
}


def book(folder: Path, cells: dict[str, str], module: str = "toy") -> tuple[Path, Path]:
    """A folder of one chapter, and a package of one module."""
    mark = f"# @package specdec_tutorial.{module}\n"
    notebook = {
        "cells": [
            {"cell_type": "code", "id": i, "metadata": {}, "source": (mark + text).splitlines(True)}
            for i, text in cells.items()
        ]
    }
    (folder / "toy.py").write_text(MODULE)
    (folder / "01_toy.ipynb").write_text(json.dumps(notebook))
    return folder, folder


def problems(folder: Path, cells: dict[str, str], module: str = "toy") -> list[str]:
    return assemble.compare(*book(folder, cells, module), core=("toy",))


def test_agreement_ignores_docstrings_comments_and_imports(tmp_path):
    assert problems(tmp_path, CELLS) == []


@pytest.mark.parametrize(
    ("cell", "old", "new", "definition"),
    [
        ("first", "x / 2", "x / 3", "half"),
        ("first", "LIMIT = 3", "LIMIT = 4", "LIMIT"),
        ("first", "x: float", "x: int", "half"),
        ("class", "step = 1", "step = 2", "Counter"),
        ("class", "self.n = 0", "self.n = 1", "Counter.__init__"),
        ("more", "    @property\n", "", "Counter.doubled"),
    ],
)
def test_a_planted_difference_is_named_and_mended(tmp_path, cell, old, new, definition):
    changed = CELLS | {cell: CELLS[cell].replace(old, new)}
    (found,) = problems(tmp_path, changed)
    assert found.startswith(f"01_toy.ipynb, cell {cell}: {definition} differs from specdec_tutorial.toy\n")

    assert assemble.write(tmp_path, tmp_path) == [f"01_toy.ipynb, cell {cell}: {definition}"]
    assert assemble.compare(tmp_path, tmp_path, core=("toy",)) == []
    assert assemble.write(tmp_path, tmp_path) == []


def test_the_difference_is_shown(tmp_path):
    (found,) = problems(tmp_path, CELLS | {"first": CELLS["first"].replace("x / 2", "x / 3")})
    assert "-    return x / 2" in found
    assert "+    return x / 3" in found


def test_what_no_chapter_builds_is_named(tmp_path):
    assert problems(tmp_path, {"first": CELLS["first"], "class": CELLS["class"]}) == [
        "specdec_tutorial.toy: Counter.doubled is built in no chapter"
    ]


def test_a_class_that_no_chapter_builds_is_named_once(tmp_path):
    assert problems(tmp_path, {"first": CELLS["first"]}) == ["specdec_tutorial.toy: Counter is built in no chapter"]


def test_what_is_built_twice_is_named(tmp_path):
    (found,) = problems(tmp_path, CELLS | {"again": "LIMIT = 3"})
    assert found == "01_toy.ipynb, cell again: LIMIT was built already in 01_toy.ipynb, cell first"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def quarter(x):\n    return x / 4", "quarter is not in specdec_tutorial.toy"),
        ("print(LIMIT)", "line 2 defines nothing: print(LIMIT)"),
        ("def half(", "'(' was never closed"),
    ],
)
def test_a_cell_that_cannot_ship_is_named(tmp_path, text, message):
    (found,) = problems(tmp_path, CELLS | {"odd": text})
    assert found.startswith("01_toy.ipynb, cell odd: ")
    assert message in found


def test_an_unknown_module_is_named(tmp_path):
    found = problems(tmp_path, {"first": "LIMIT = 3"}, module="typo")
    assert "01_toy.ipynb, cell first: there is no module specdec_tutorial.typo" in found


def test_the_command_says_where_to_run_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["assemble"])
    with pytest.raises(SystemExit):
        assemble.main()
    assert "no chapters in notebooks/" in capsys.readouterr().err


def test_cells_made_of_the_real_modules_agree_with_them(tmp_path):
    notebook = {"cells": []}
    for module in assemble.CORE:
        text = f"{assemble.MARK}{module}\n" + (assemble.PACKAGE / f"{module}.py").read_text(encoding="utf-8")
        notebook["cells"].append({"cell_type": "code", "id": module, "metadata": {}, "source": text.splitlines(True)})
    (tmp_path / "01_all.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    assert assemble.compare(tmp_path) == []
