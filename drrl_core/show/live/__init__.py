"""Explorers in the browser: the same file in a notebook and in a page without a server.

Each explorer is an ES module in anywidget's form (`export default { render({ model, el }) }`):
`solver.js` holds the mathematics, `kit.js` dials, panels and readouts, the file of its name the
rest. `page.js` is the model that stands in for a kernel in a static page.
"""

import html
import json
import math
import re
from pathlib import Path

HERE = Path(__file__).parent
STYLE = (HERE / "live.css").read_text(encoding="utf-8")
MIME = "application/vnd.drrl.explorer+json"  # an explorer in an executed notebook


def source(name: str) -> str:
    """An explorer's ES module with what it imports in it, so that it needs no other file.

    Args:
        name: "worst_case", "simplex", "atlas", "false_negatives", "gamma_sweep", "margins"
            or "popularity".
    Returns: JavaScript whose default export has `render({ model, el })`.

    >>> "export default" in source("worst_case") and "import " not in source("worst_case")
    True
    """
    shared = "".join(
        (HERE / f"{part}.js").read_text(encoding="utf-8") for part in ("solver", "kit")
    )
    own = (HERE / f"{name}.js").read_text(encoding="utf-8")
    own = re.sub(r'^import \{[^}]*\} from "[^"]*";\n', "", own, flags=re.MULTILINE)
    return re.sub("^export (?!default)", "", shared, flags=re.MULTILINE) + own


def sent(value: float) -> float | str:
    """A number as it travels: JSON has no infinity.

    >>> sent(math.inf), sent(2)
    ('inf', 2)
    """
    return "inf" if value == math.inf else value


def element(name: str, *, identity: str = "", **state: object) -> str:
    """An explorer as HTML for a static page: no server, no other file, no request.

    Args:
        name: as `source` takes it.
        identity: of the element in the page and in its address [default: name].
        state: `data` and a value for each dial, as an `explorers.Explorer` has them.
    Returns: an element, its style and its script.
    Raises: ValueError: NaN or an infinity within the data.

    >>> data = {"sources": [("a", [0.1, 0.4, 0.9])]}
    >>> page = element("worst_case", data=data, order=2, radius=0.5)
    >>> "<script type=module>" in page and "http" not in page.replace("http://www.w3.org", "")
    True
    """
    state = {
        key: sent(value) if isinstance(value, float) else value for key, value in state.items()
    }
    given = json.dumps(state, allow_nan=False, ensure_ascii=False).replace("<", "\\u003c")
    module = source(name).replace("export default ", "const shown = ")
    model = (HERE / "page.js").read_text(encoding="utf-8")
    identity = html.escape(identity or name)
    return (
        f'<style>{STYLE}</style><div id="{identity}"></div><script type=module>{module}{model}'
        f'startInPage(shown, "{identity}", {given});</script>'
    )


__all__ = ["MIME", "STYLE", "element", "sent", "source"]
