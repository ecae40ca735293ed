"""The whole site, made once: every notebook as committed, each with one picture."""

import base64
import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """The folder of a site made from a copy of this checkout's pages."""
    pytest.importorskip("myst_nb")
    import nbformat
    from nbformat.v4 import new_output

    from drrl_core.pages import site

    home = tmp_path_factory.mktemp("checkout")
    for name in ("docs", "figures", "notebooks"):
        left_out = shutil.ignore_patterns("lessons", "api")
        shutil.copytree(ROOT / name, home / name, ignore=left_out)
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "pyproject.toml"):
        shutil.copy(ROOT / name, home)
    (home / "data").symlink_to(ROOT / "data")
    png = base64.b64encode((ROOT / "figures" / "weights.png").read_bytes()).decode()
    record = {"status": "done", "seconds": 1, "parameters": {"dataset": "synthetic"}}
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        target = home / "executed" / path.stem / path.name
        target.parent.mkdir(parents=True)
        notebook = nbformat.read(path, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        seen = {"image/png": {"alt": "what is seen"}}
        code[-1].outputs = [new_output("display_data", data={"image/png": png}, metadata=seen)]
        nbformat.write(notebook, target)
        target.with_suffix(".json").write_text(json.dumps(record))
    return site.build(home / "executed", home / "site", root=home).parent
