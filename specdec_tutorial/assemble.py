"""Keeps the book and the package one thing.

A chapter's cell that begins with ``# @package specdec_tutorial.<module>`` holds final definitions in full.
``python -m specdec_tutorial.assemble`` compares each with the package, docstrings and imports aside;
``--write`` copies what changed from the package into the cells.

A class too long for one cell continues in another as ``class Name(Name):``; its methods are compared one by one.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARK = "# @package specdec_tutorial."
CORE = ("processors", "session", "autoregressive", "trace", "verification", "drafters", "speculative")
PACKAGE = Path(__file__).parent
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Definition:
    """A function, a constant, a method (``Class.method``), or a class without its methods."""

    name: str
    code: str  # as the parser sees it, docstrings dropped: what is compared
    first: int  # lines of the source it was found in, from 1, both included
    last: int


@dataclass(frozen=True)
class Cell:
    """A marked cell of a chapter."""

    chapter: Path
    id: str
    module: str
    source: str

    def __str__(self) -> str:
        return f"{self.chapter.name}, cell {self.id}"


def drop_docstrings(tree: ast.AST) -> None:
    """Remove docstrings, and the ``pass`` or ``...`` that may stand in for one."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, *FUNCTIONS)):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
            node.body = [s for s in node.body if ast.unparse(s) not in ("pass", "...")]


def definitions(source: str) -> Iterator[Definition]:
    """Every top-level definition of a module or cell. Raises ValueError at a statement that defines nothing."""
    for node in ast.parse(source).body:
        if isinstance(node, FUNCTIONS):
            yield _definition(node.name, node)
        elif isinstance(node, ast.ClassDef):
            yield from _class_parts(node)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            yield _definition(ast.unparse(target), node)
        elif not (isinstance(node, (ast.Import, ast.ImportFrom)) or _is_text(node)):
            raise ValueError(f"line {node.lineno} defines nothing: {ast.unparse(node).splitlines()[0]}")


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _definition(name: str, node: ast.stmt, last: int | None = None) -> Definition:
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    last = last or node.end_lineno or first
    drop_docstrings(node)
    return Definition(name, ast.unparse(node), first, last)


def _class_parts(node: ast.ClassDef) -> Iterator[Definition]:
    methods = [_definition(f"{node.name}.{m.name}", m) for m in node.body if isinstance(m, FUNCTIONS)]
    node.body = [s for s in node.body if not isinstance(s, FUNCTIONS)]
    if [ast.unparse(b) for b in node.bases] != [node.name]:  # else it continues the class of that name
        yield _definition(node.name, node, last=methods[0].first - 1 if methods else None)
    yield from methods


def marked_cells(notebooks: Path) -> Iterator[Cell]:
    """The marked cells of all chapters, in reading order."""
    for path in sorted(notebooks.glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and source.startswith(MARK):
                yield Cell(path, cell.get("id", "?"), source.splitlines()[0].removeprefix(MARK).strip(), source)


def compare(notebooks: Path, package: Path = PACKAGE, core: tuple[str, ...] = CORE) -> list[str]:
    """What keeps chapters and package from being one thing, one message each; empty when they agree."""
    problems: list[str] = []
    built: dict[tuple[str, str], Cell] = {}
    shipped = {module: _shipped(package, module) for module in core}
    for cell in marked_cells(notebooks):
        ours = shipped.setdefault(cell.module, _shipped(package, cell.module))
        if not ours:
            problems.append(f"{cell}: there is no module specdec_tutorial.{cell.module}")
            continue
        try:
            found = list(definitions(cell.source))
        except (SyntaxError, ValueError) as error:
            problems.append(f"{cell}: {error}")
            continue
        for theirs in found:
            key = cell.module, theirs.name
            if key in built:
                problems.append(f"{cell}: {theirs.name} was built already in {built[key]}")
            built.setdefault(key, cell)
            if theirs.name not in ours:
                problems.append(f"{cell}: {theirs.name} is not in specdec_tutorial.{cell.module}")
            elif ours[theirs.name].code != theirs.code:
                diff = _diff(ours[theirs.name].code, theirs.code, cell)
                problems.append(f"{cell}: {theirs.name} differs from specdec_tutorial.{cell.module}\n{diff}")
    for module in core:
        for name in shipped[module]:
            owner = name.partition(".")[0]  # a class that is built nowhere need not be named method by method
            if (module, name) not in built and (name == owner or (module, owner) in built):
                problems.append(f"specdec_tutorial.{module}: {name} is built in no chapter")
    return problems


def _shipped(package: Path, module: str) -> dict[str, Definition]:
    path = package / f"{module}.py"
    return {d.name: d for d in definitions(path.read_text(encoding="utf-8"))} if path.exists() else {}


def _diff(ours: str, theirs: str, cell: Cell) -> str:
    lines = difflib.unified_diff(ours.splitlines(), theirs.splitlines(), "package", cell.chapter.name, "", "", 1, "")
    return "\n".join(f"    {line}" for line in list(lines)[:20])


def write(notebooks: Path, package: Path = PACKAGE) -> list[str]:
    """Copy changed definitions from the package into the marked cells; returns what was changed."""
    changed: list[str] = []
    for path in sorted(notebooks.glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        before = len(changed)
        for raw in notebook["cells"]:
            source = "".join(raw["source"])
            if raw["cell_type"] == "code" and source.startswith(MARK):
                module = source.splitlines()[0].removeprefix(MARK).strip()
                updated, names = _updated(source, package / f"{module}.py")
                raw["source"] = updated.splitlines(keepends=True)
                changed += [f"{path.name}, cell {raw.get('id', '?')}: {name}" for name in names]
        if len(changed) > before:
            _save(path, notebook)
    return changed


def _updated(source: str, module: Path) -> tuple[str, list[str]]:
    text = module.read_text(encoding="utf-8")
    shipped = {d.name: d for d in definitions(text)}
    lines, names = source.splitlines(), []
    for old in reversed(list(definitions(source))):  # from the bottom, so that line numbers above stay true
        new = shipped.get(old.name)
        if new and new.code != old.code:
            lines[old.first - 1 : old.last] = text.splitlines()[new.first - 1 : new.last]
            names.append(old.name)
    return "\n".join(lines), names[::-1]


def _save(path: Path, notebook: dict[str, Any]) -> None:
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> int:
    """The command line: 0 when book and package agree."""
    parser = argparse.ArgumentParser("python -m specdec_tutorial.assemble", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--write", action="store_true", help="copy changed definitions from the package into the cells")
    parser.add_argument("--notebooks", type=Path, default=Path("notebooks"), help="folder of the chapters")
    options = parser.parse_args()
    if not any(options.notebooks.glob("*.ipynb")):
        parser.error(f"no chapters in {options.notebooks}/; run it from the project's root or give --notebooks")
    if options.write:
        for line in write(options.notebooks):
            print("updated", line)
    problems = compare(options.notebooks)
    print("\n".join(problems) if problems else "book and package agree")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
