"""Where the notebooks open without an installation: Colab and Binder, by one setting.

That is `address` of `[tool.drrl]` in pyproject.toml, the project's public repository. Empty: none.
"""

import re
import tomllib
from pathlib import Path

TAG = "hosted"  # of the two cells, so that they are found again
COLAB = """import sys

if "google.colab" in sys.modules:
    !git clone --quiet --depth 1 {address} project
    %pip install --quiet --editable project[notebooks,tune]
    sys.path.insert(0, "/content/project")
    %cd project/notebooks"""


def address(root: str | Path) -> str:
    """The setting; "" where there is none.

    Raises: ValueError: it is no repository that Colab and Binder open.
    """
    project = tomllib.loads((Path(root) / "pyproject.toml").read_text(encoding="utf-8"))
    found = project["tool"]["drrl"]["address"].removesuffix("/")
    if found and not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", found):
        raise ValueError(
            f"address = {found!r} in pyproject.toml is not https://github.com/OWNER/NAME"
        )
    return found


def pages(address: str) -> str:
    """Where GitHub publishes the site of that repository.

    >>> pages("https://github.com/ann/losses"), pages("")
    ('https://ann.github.io/losses/', '')
    """
    return re.sub(r"https://github.com/([^/]+)/(.+)", r"https://\1.github.io/\2/", address)


def fitted(notebook, name: str, address: str):
    """A notebook with links to Colab and Binder under its title, and a cell that installs on Colab.

    Args:
        notebook: as `nbformat.read` gives it; changed.
        name: of its file, such as "00_start_here".
        address: of the repository; "": both cells are taken out.
    Returns: the notebook.

    >>> from nbformat.v4 import new_markdown_cell, new_notebook
    >>> made = fitted(new_notebook(cells=[new_markdown_cell("# Q?")]), "00", "https://github.com/a/b")
    >>> made.cells[1].source.split("](")[0], len(fitted(made, "00", "").cells)
    ('[Open in Colab', 1)
    """
    from nbformat.v4 import new_code_cell, new_markdown_cell

    notebook.cells = [c for c in notebook.cells if TAG not in c.metadata.get("tags", [])]
    if address:
        repository = address.removeprefix("https://github.com/")
        colab = f"https://colab.research.google.com/github/{repository}/blob/HEAD/notebooks/{name}.ipynb"
        binder = (
            f"https://mybinder.org/v2/gh/{repository}/HEAD?urlpath=lab/tree/notebooks/{name}.ipynb"
        )
        tags = {"tags": [TAG]}
        said = f"[Open in Colab]({colab}) · [Open in Binder]({binder})"
        code = COLAB.format(address=address)
        notebook.cells[1:1] = [
            new_markdown_cell(said, metadata=tags),
            new_code_cell(code, metadata=tags),
        ]
    for place, cell in enumerate(notebook.cells):
        cell.id = str(place)  # as nbstripout numbers them
    return notebook


def fit(folder: str | Path, address: str) -> None:
    """`fitted`, for every notebook of a folder; a file that stays as it is is not written.

    Example: `fit("notebooks", "https://github.com/OWNER/NAME")`
    """
    import nbformat

    for path in sorted(Path(folder).glob("*.ipynb")):
        before = path.read_text(encoding="utf-8")
        notebook = fitted(nbformat.reads(before, as_version=4), path.stem, address)
        if (after := nbformat.writes(notebook) + "\n") != before:
            path.write_text(after, encoding="utf-8")
