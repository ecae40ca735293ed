"""The project as a whole: its layers, its set-up files, its README."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from drrl_core import scorecard

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "drrl_core"
# Who may import whom, within the package.
LAYERS = {
    "__init__": set(),
    "dro": set(),
    "datasets": set(),
    "backbones": set(),
    "metrics": set(),
    "published": set(),
    "scorecard": {"dro", "losses", "metrics", "published"},
    "losses": {"dro"},
    "sampling": {"datasets", "losses"},
    "trainer": {"datasets", "losses", "metrics", "sampling"},
    "runs": {"backbones", "datasets", "dro", "losses", "metrics", "trainer"},
    "plots": set(),
    "explorers": {"dro", "plots"},
    "gallery": set(),
    "notebooks": {"gallery", "runs"},
    "spaces": {"datasets", "dro", "losses", "runs", "trainer"},
    "starts": {"published", "runs", "scorecard", "spaces", "trainer"},
    "trials": {"runs", "spaces"},
    "search": {
        *("datasets", "dro", "notebooks", "runs", "scorecard", "spaces", "starts", "trials"),
    },
    "__main__": {"datasets", "gallery", "notebooks", "runs", "scorecard", "search"},
}


def imports_of(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "drrl_core":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("drrl_core."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("drrl_core.")}
    return found - {"__version__"}


def test_modules_import_only_what_lies_below_them():
    modules = {path.stem: imports_of(path.read_text()) for path in PACKAGE.glob("*.py")}
    assert modules.keys() == LAYERS.keys()
    for name, found in modules.items():
        assert found <= LAYERS[name], f"{name} imports {found - LAYERS[name]}"


def requirements(lines: list[str]) -> dict[str, str]:
    """Name -> bound, for lines such as `numpy>=2.1`."""
    pattern = re.compile(r"([A-Za-z0-9_.-]+)\s*(>=\s*[0-9.]+)?$")
    return {
        m[1].lower(): (m[2] or "").replace(" ", "") for line in lines if (m := pattern.match(line))
    }


def test_environment_yml_agrees_with_pyproject():
    yaml = pytest.importorskip("yaml")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = requirements(project["dependencies"] + project["optional-dependencies"]["notebooks"])
    wanted["python"] = project["requires-python"]

    lines = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    by_pip = next(line["pip"] for line in lines if isinstance(line, dict))
    given = requirements([line for line in lines if isinstance(line, str)] + by_pip)
    given.pop("pip")
    # conda-forge's names for the same things
    alias = {"pytorch": "torch", "matplotlib-base": "matplotlib", "seaborn-base": "seaborn"}
    alias["nbconvert-core"] = "nbconvert"
    assert {alias.get(name, name): bound for name, bound in given.items()} == wanted


def test_lock_file_satisfies_pyproject_and_names_no_index():
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text and "--" not in text
    pins = dict(re.findall(r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==(\S+)", text, re.M))
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    extras = [line for group in project["optional-dependencies"].values() for line in group]
    for line in project["dependencies"] + extras:
        need = Requirement(line)
        assert pins[need.name.lower()] in need.specifier, line


def test_the_example_in_the_readme_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        assert len(block.strip().splitlines()) <= 15
        script = tmp_path / "example.py"
        script.write_text(block)
        subprocess.run([sys.executable, str(script)], check=True, cwd=tmp_path, timeout=120)


def test_readme_names_every_notebook_and_the_commands_exist():
    readme = (ROOT / "README.md").read_text()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert path.name in readme
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
    for command in re.findall(r"make ([a-z]+)", readme):
        assert command in targets


def test_nothing_in_the_package_is_bound_to_one_device_or_unsafe():
    for path in PACKAGE.glob("*.py"):
        text = path.read_text()
        assert ".cuda()" not in text, path
        assert not re.search(r"(?<![\w.])eval\(|pickle", text), path
        assert not re.search(r"torch\.load\((?!.*weights_only=True)", text), path


def test_ci_runs_the_command_of_the_readme():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith("\nmake test")


def test_the_measured_table_is_what_the_records_say():
    readme = (ROOT / "README.md").read_text()
    runs = scorecard.read_runs(ROOT / "data" / "results" / "runs.csv")
    finals = scorecard.finals(runs).query("dataset == 'amazon-beauty' and noise == 0")
    rows = [row for row in readme.splitlines() if " ± " in row]
    assert len(rows) >= 5
    for _, own in finals.groupby(["backbone", "variant"]):
        means = own[["valid_ndcg@20", "test_recall@20", "test_ndcg@20"]].mean()
        settings = [f"{n.split('.')[-1]}={v}" for n, v in json.loads(own["config"].iloc[0]).items()]
        words = [*(f"| {mean:.4f} ± " for mean in means), *settings]
        assert any(all(word in row for word in words) for row in rows), words
    by_time = scorecard.finals(runs).query("dataset == 'amazon-electronics-temporal'")
    assert len(by_time)
    for _, own in by_time.groupby("variant"):
        means = own[["test_recall@20", "test_ndcg@20"]].mean()
        assert any(all(f"| {mean:.4f} ± " in row for mean in means) for row in rows), means
