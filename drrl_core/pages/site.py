"""The site: executed notebooks, results and reference as one folder of static pages."""

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from drrl_core.pages import runner, story
from drrl_core.pages.html import public, title_of
from drrl_core.show import live

CARD = """:::{{grid-item-card}} {title}
{options}
{about}
:::
"""
INDEX = """# Lessons

Each notebook asks one question; here each is as it was executed.
The dials turn here too, without a server; `make lab` opens the notebooks themselves.
For a class: [a 45-minute lesson](TEACHING.md), which prints as a handout, and
[a page for the instructor](INSTRUCTOR.md).

::::{{grid}} 1 1 2 2
:gutter: 3

{cards}
::::

```{{toctree}}
:hidden:

{names}
```
"""


def thumbnail(notebook) -> tuple[bytes, str]:
    """A notebook's picture: of the cell tagged `thumbnail`, else its first; may be empty.

    Args:
        notebook: as `nbformat.read` gives it.
    Returns: a PNG's bytes, and the text that says what is seen.

    >>> from nbformat.v4 import new_notebook
    >>> thumbnail(new_notebook())
    (b'', '')
    """
    tagged = lambda cell: "thumbnail" in cell.metadata.get("tags", [])  # noqa: E731
    cells = sorted(notebook.cells, key=lambda cell: not tagged(cell))
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    drawn = (each for each in outputs if each.get("data", {}).get("image/png"))
    if not (first := next(drawn, None)):
        return b"", ""
    alt = first.metadata.get("image/png", {}).get("alt", "")
    return base64.b64decode(first.data["image/png"]), alt


def lessons(executed: str | Path, folder: str | Path) -> None:
    """Lay out executed notebooks for Sphinx: a copy and a picture of each, and an index of cards.

    Args:
        executed: what `runner.run_all` left: `<name>/<name>.json` beside `<name>/<name>.ipynb`.
        folder: the folder to write; what an earlier call left there is replaced.
    Raises: ValueError where no notebook was executed.

    Example: `lessons("out/notebooks", "docs/lessons")`
    """
    import nbformat

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    cards, names = [], []
    for path in sorted(Path(executed).glob("*/*.json")):
        if path.stem != path.parent.name:
            continue  # results.json
        record, source = json.loads(path.read_text(encoding="utf-8")), path.with_suffix(".ipynb")
        if record["status"] == "done":
            about = [f"{record['seconds']:.0f} s", record["parameters"].get("dataset")]
        else:
            about = [f"**{record['status']}**", f"`{record['where']}`: `{record['error']}`"]
        card = {"title": path.stem, "about": " · ".join(filter(None, about)), "options": ""}
        if source.is_file():  # it was begun
            notebook = public(nbformat.read(source, as_version=4))
            nbformat.write(notebook, folder / source.name)
            card["title"] = f"{path.stem.split('_')[0]} {title_of(notebook, path.stem)}"
            card["options"] = f":link: {path.stem}\n:link-type: doc\n"
            picture, alt = thumbnail(notebook)
            if picture:
                (folder / f"{path.stem}.png").write_bytes(picture)
                card["options"] += f":img-top: {path.stem}.png\n:img-alt: {alt}\n"
            names.append(f"{card['title']} <{path.stem}>")
        cards.append(CARD.format(**card))
    if not cards:
        raise ValueError(f"no executed notebooks in {executed}: `make notebooks` leaves some")
    index = INDEX.format(
        cards="\n".join(cards), names="\n".join([*names, "TEACHING", "INSTRUCTOR"])
    )
    (folder / "index.md").write_text(index, encoding="utf-8")


def build(executed: str | Path, target: str | Path, *, root: str | Path | None = None) -> Path:
    """Make the site from the checkout's `docs` and executed notebooks.

    Args:
        executed: what `runner.run_all` left.
        root: the checkout [default: the one this runs from].
        target: the folder to write; it can be moved, zipped, opened from a disk.
    Returns: its index.html.
    Raises: ValueError where no notebook was executed or Sphinx finds a fault, which it prints.

    Example: `build("out/notebooks", "out/site")`
    """
    from drrl_core.show import explorers  # late: it loads torch and matplotlib

    root, target = Path(root or runner.folder().parent), Path(target)
    docs = root / "docs"
    lessons(executed, docs / "lessons")
    for name in ("TEACHING", "INSTRUCTOR"):
        shutil.copy(root / "notebooks" / f"{name}.md", docs / "lessons")
    scores = np.random.default_rng(0).normal(0, 0.3, 2000)
    for view in (explorers.worst_case({"made up": scores}), explorers.simplex()):
        element = live.element(view.explorer, **view.state())
        (docs / "lessons" / f"{view.explorer}.html").write_text(element, encoding="utf-8")
    sphinx = [sys.executable, "-m", "sphinx", "-qW", "--keep-going", "-d", f"{target}.cache"]
    if subprocess.run([*sphinx, str(docs), str(target)], check=False).returncode:
        raise ValueError(f"{docs}: Sphinx found the faults above, the site may be wrong")
    (target / "story.html").write_text(story.page(), encoding="utf-8")
    return target / "index.html"
