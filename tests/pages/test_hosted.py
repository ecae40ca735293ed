"""Colab and Binder: one setting, links and the installing cell that come and go with it."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from drrl_core.pages import hosted, runner

ROOT = Path(__file__).parents[2]
ADDRESS = "https://github.com/somebody/losses"


def test_the_notebooks_are_as_the_setting_says_and_change_with_it_alone(tmp_path):
    own = hosted.address(ROOT)
    for path in runner.folder().glob("*.ipynb"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    before = {path.name: path.read_text() for path in tmp_path.glob("*.ipynb")}
    hosted.fit(tmp_path, own)
    assert {path.name: path.read_text() for path in tmp_path.glob("*.ipynb")} == before, (
        "drrl hosted"
    )
    for _ in range(2):  # a second time changes nothing
        hosted.fit(tmp_path, ADDRESS)
        for path in tmp_path.glob("*.ipynb"):
            title, links, install, *_ = nbformat.read(path, as_version=4).cells
            assert title.source.startswith("# ")
            assert f"github/somebody/losses/blob/HEAD/notebooks/{path.name})" in links.source
            assert (
                f"gh/somebody/losses/HEAD?urlpath=lab/tree/notebooks/{path.name})" in links.source
            )
            assert f"clone --quiet --depth 1 {ADDRESS} project" in install.source
    hosted.fit(tmp_path, own)
    assert {path.name: path.read_text() for path in tmp_path.glob("*.ipynb")} == before


def test_an_address_that_colab_does_not_open_is_refused(tmp_path):
    for good in ("", ADDRESS, ADDRESS + "/"):
        (tmp_path / "pyproject.toml").write_text(f'[tool.drrl]\naddress = "{good}"')
        assert hosted.address(tmp_path) == good.removesuffix("/")
    (tmp_path / "pyproject.toml").write_text('[tool.drrl]\naddress = "https://example.org/a/b"')
    with pytest.raises(ValueError, match=r"is not https://github\.com/OWNER/NAME"):
        hosted.address(tmp_path)


def test_the_installing_cell_does_nothing_elsewhere_and_clones_on_colab(tmp_path):
    """In IPython, with a repository on this disk in place of the public one; pip only looks."""
    origin = tmp_path / "origin"
    for command in (["init", "-q", str(origin)], ["-C", str(origin), "add", "."]):
        subprocess.run(["git", *command], check=True)
        (origin / "notebooks").mkdir(parents=True, exist_ok=True)
        (origin / "notebooks" / "here").touch()
        (origin / "pyproject.toml").write_text('[project]\nname = "toy"\nversion = "1"\n')
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(origin), *who, "commit", "-qm", "a"], check=True)
    cell = hosted.COLAB.format(address=origin.as_uri()).replace("%pip install", "%pip --version #")
    for colab, where in ((False, tmp_path), (True, tmp_path / "project" / "notebooks")):
        fake = "import sys, types\nsys.modules['google.colab'] = types.ModuleType('a')\n" * colab
        code = f"{fake}{cell}\nimport os\nprint('in', os.getcwd())"
        (tmp_path / "cell.ipy").write_text(code)
        command = [sys.executable, "-m", "IPython", "--no-banner", "cell.ipy"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert f"in {where}" in done.stdout, done.stdout + done.stderr


def test_binder_has_its_environment_and_keeps_the_first_lessons_models():
    script = (ROOT / "postBuild").read_text()
    assert (ROOT / "environment.yml").is_file() and (ROOT / "postBuild").stat().st_mode & 0o100
    for name in ("00", "01", "02"):
        assert runner.find(name) and name in script
