"""Explorers that run in the browser: the same file in a notebook and in a page without a server.

Each is an ES module in anywidget's form (`export default { render({ model, el }) }`), `solver.js`
holds the mathematics.
"""

import html
import json
import math
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
_MODEL = """const state = %s, heard = {};
const model = {
  get: (name) => state[name],
  set: (name, value) => {
    state[name] = value;
    for (const tell of heard[`change:${name}`] ?? []) tell();
  },
  on: (event, f) => (heard[event] ??= []).push(f),
  save_changes: () => {},
};"""


def source(name: str) -> str:
    """An explorer's ES module with the solver in it, so that it needs no other file.

    Args:
        name: "worst_case".
    Returns: JavaScript whose default export has `render({ model, el })`.

    >>> "export default" in source("worst_case") and "import " not in source("worst_case")
    True
    """
    solver = (HERE / "solver.js").read_text(encoding="utf-8").replace("export function", "function")
    lines = (HERE / f"{name}.js").read_text(encoding="utf-8").splitlines()
    return solver + "\n".join(line for line in lines if not line.startswith("import ")) + "\n"


def element(name: str, **state: object) -> str:
    """An explorer as HTML for a static page: no server, no other file, no request.

    Args:
        name: "worst_case".
        state: what it starts with: scores, order (γ in [1, inf]), radius (nats).
    Returns: an element, its style and its script.

    >>> page = element("worst_case", scores=[0.1, 0.4, 0.9], order=2, radius=0.5)
    >>> "<script type=module>" in page and "http" not in page.replace("http://www.w3.org", "")
    True
    """
    if "order" in state:
        order = float(state["order"])  # type: ignore[arg-type]
        state["order"] = "inf" if order == math.inf else f"{order:g}"
    given = json.dumps(state, allow_nan=False).replace("<", "\\u003c")
    script = source(name).replace("export default { render };", "")
    style = (HERE / "live.css").read_text(encoding="utf-8")
    identity = f"explorer-{html.escape(name)}"
    return (
        f"<style>{style}</style><div id={identity}></div><script type=module>{script}"
        f"{_MODEL % given}\nrender({{ model, el: document.getElementById('{identity}') }});"
        "</script>"
    )


__all__: Sequence[str] = ["element", "source"]
