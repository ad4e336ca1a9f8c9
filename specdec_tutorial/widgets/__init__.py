"""Small interactive pictures that need no kernel, no network and no JavaScript library.

Each is one ES module in this folder, ``export default { render({ model, el }) }``: the interface of
anywidget. Here it is emitted as plain HTML together with its state, so it works in the built book,
in Colab and in JupyterLab alike.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from IPython.display import HTML

FOLDER = Path(__file__).parent

# The part of anywidget's model that a widget without a kernel needs: state to read and write.
PAGE = """\
<div id="{id}" class="specdec-widget" role="group" aria-label="{label}"></div>
<script>(() => {{
const state = {state};
const model = {{ get: (key) => state[key], set: (key, value) => {{ state[key] = value; }} }};
{module}
widget.render({{ model, el: document.getElementById("{id}") }});
}})();</script>
"""


def show(name: str, label: str, **state: Any) -> HTML:
    """Return the widget ``name`` for display as the last value of a cell.

    Args:
        name: a file in this folder, without ``.js``.
        label: what a screen reader announces.
        state: what ``model.get(key)`` returns in the widget; JSON values.

    Raises:
        ValueError: there is no such widget.
    """
    from IPython.display import HTML  # the package itself must import without Jupyter

    names = sorted(file.stem for file in FOLDER.glob("*.js"))
    if name not in names:
        raise ValueError(f"no widget named {name!r}; there are {', '.join(names)}")
    module = (FOLDER / f"{name}.js").read_text("utf-8").replace("export default", "const widget =", 1)
    # "</" would end the script element in the middle of a string
    text = json.dumps(state).replace("</", "<\\/")
    return HTML(PAGE.format(id=f"specdec-{uuid4().hex[:12]}", label=label, state=text, module=module))
