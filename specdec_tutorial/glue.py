"""Hand a number from a chapter's run to its prose.

The book reads what is glued with the role ``{glue:text}`name:.2f` ``. This is the record format of myst-nb, written
without importing it, so that a chapter also runs where only the package is installed.
"""

_RECORD = "application/papermill.record/"


def glue(name: str, value: float | int | str) -> None:
    """Store ``value`` under ``name`` in the cell's output, where it stays invisible.

    Args:
        name: unique in the whole book; begin with the chapter, as in ``"ch5-acceptance"``.
        value: a number or a short text.
    """
    from IPython.display import display

    record = {_RECORD + "text/plain": repr(value)}
    display(record, raw=True, metadata={"scrapbook": {"name": name, "mime_prefix": _RECORD}})
