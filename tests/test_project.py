"""The project as a whole: its layers, its set-up files, its README."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

import drrl_core
from drrl_core.lab import results
from drrl_core.paper import evidence, tables

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "drrl_core"
# Who may import whom, within the package.
LAYERS = {
    "__init__": {"backbones", "datasets", "dro", "losses", "testing", "train"},
    "__main__": {"cli"},
    "common": set(),
    "dro": set(),
    "datasets": {"common"},
    "registry": set(),
    "testing": {"backbones", "classical", "losses", "registry"},
    "backbones": {"registry"},
    "classical": {"losses", "registry"},
    "losses": {"dro", "registry"},
    "train": {"common", "datasets", "dro", "losses"},
    "lab": {"backbones", "classical", "common", "datasets", "dro", "losses", "registry", "train"},
    "paper": {"classical", "common", "datasets", "dro", "lab", "losses", "train"},
    "show": {"classical", "dro", "losses"},
    "pages": {"common", "dro", "lab", "show"},
    "cli": {"cli_data", "lab", "pages", "paper"},
    "cli_data": {"datasets", "lab", "pages"},
}
# What a practitioner imports. It knows nothing of the rest, and loads none of what the rest needs.
CORE = {"common", "registry", "testing", "dro", "losses", "backbones", "classical", "datasets"}
CORE |= {"train"}
UPSTAIRS = LAYERS.keys() - CORE - {"__init__"}


def sources() -> dict[Path, str]:
    """Every module of the package, in sub-packages too."""
    return {path: path.read_text() for path in PACKAGE.rglob("*.py")}


def room_of(path: Path) -> str:
    """The module or the folder of the package that a file is in."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports_of(source: str) -> set[str]:
    """The rooms that a module imports from."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1  # of the same room
        elif isinstance(node, ast.ImportFrom) and node.module == "drrl_core":
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("drrl_core."):
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.startswith("drrl_core.")}
    return {name.split(".")[1] for name in found - {"drrl_core.__version__"}}


def test_rooms_import_only_what_lies_below_them():
    found = {}
    for path, source in sources().items():
        found.setdefault(room_of(path), set()).update(imports_of(source))
    assert found.keys() == LAYERS.keys()
    for room, others in found.items():
        assert others - {room} <= LAYERS[room], f"{room} imports {others - LAYERS[room]}"


def test_the_core_and_the_pictures_know_nothing_of_what_is_above_them():
    assert LAYERS["show"] == {"classical", "dro", "losses"}
    for room in CORE | {"__init__"}:
        assert LAYERS[room] <= CORE, f"{room} imports {LAYERS[room] - CORE}"


def test_the_core_loads_neither_the_rest_nor_what_only_the_rest_needs():
    rooms = "drrl_core.train.metrics, drrl_core.train.popularity, "
    rooms += ", ".join(f"drrl_core.{room}" for room in sorted(CORE))
    above = sorted(f"drrl_core.{room}" for room in UPSTAIRS)
    code = f"""import sys, drrl_core, {rooms}
unwanted = {{"matplotlib", "optuna", "typer", "ipywidgets", "nbconvert", "papermill", *{above}}}
print(*sorted(unwanted & {{*sys.modules}}))"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not done.stdout.split()


def test_the_public_names_are_what_their_modules_have():
    names = "Batch DataError DrRL Interactions TrainConfig cosine_contrastive_loss drrl_loss"
    names += " evaluate fit load make_backbone make_loss register softmax_loss worst_case"
    assert drrl_core.__all__ == names.split() and {*drrl_core.__all__} <= {*dir(drrl_core)}
    for name in drrl_core.__all__:
        home, own = drrl_core._HOMES[name]
        assert getattr(drrl_core, name) is getattr(import_module(f"drrl_core.{home}"), own)
    told = {  # what type checkers are told is what Python finds
        alias.asname or alias.name: (node.module.removeprefix("drrl_core."), alias.name)
        for node in ast.walk(ast.parse((PACKAGE / "__init__.py").read_text()))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("drrl_core.")
        for alias in node.names
    }
    assert told == drrl_core._HOMES
    with pytest.raises(AttributeError, match="has no attribute 'softmaxloss'"):
        drrl_core.softmaxloss  # noqa: B018
    code = "import sys, drrl_core; print(*{'torch', 'numpy', 'pandas'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not done.stdout.split()


def test_the_layers_have_no_circle():
    order = []
    while len(order) < len(LAYERS):
        ready = [room for room in LAYERS if room not in order and LAYERS[room] <= {*order}]
        assert ready, f"in a circle: {LAYERS.keys() - {*order}}"
        order += ready


def test_no_module_uses_another_ones_private_names():
    for path, source in sources().items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("drrl_core"):
                private = [alias.name for alias in node.names if alias.name.startswith("_")]
                assert room_of(path) in node.module or not {*private} - {"__version__"}, path


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


def test_a_wheel_holds_every_file_of_the_package_and_the_tables_it_reads(tmp_path):
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = {*zipfile.ZipFile(wheel).namelist()}
    kinds = {".py", ".j2", ".js", ".css", ".toml"}
    files = [path for path in PACKAGE.rglob("*") if path.suffix in kinds]
    assert kinds == {path.suffix for path in files}
    assert {path.relative_to(ROOT).as_posix() for path in files} <= held
    tables = {f"drrl_core/tables/{path.name}" for path in (ROOT / "data/published").iterdir()}
    assert tables | {"drrl_core/registry.txt"} <= held


def test_the_example_on_the_page_of_results_runs():
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "results.md").read_text(), re.S)
    done = subprocess.run(
        [sys.executable, "-c", block], check=True, cwd=ROOT, timeout=120, capture_output=True
    )
    assert b"p_bootstrap" in done.stdout


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
    for path, text in sources().items():
        assert ".cuda()" not in text, path
        assert not re.search(r"(?<![\w.])eval\(|pickle", text), path
        assert not re.search(r"torch\.load\((?!.*weights_only=True)", text), path


def test_ci_runs_the_command_of_the_readme():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith("\nmake test\nmake test-all")
    assert "\nmake test " in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", [*(ROOT / ".github" / "workflows").glob("*.yml")], ids=str)
def test_the_workflows_run_commands_that_exist(path):
    yaml = pytest.importorskip("yaml")
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    jobs = yaml.safe_load(path.read_text())["jobs"].values()
    steps = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    assert steps
    for command in re.findall(r"\bmake ([a-z-]+)", "\n".join(steps)):
        assert command in targets
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"\[([a-z,]+)\]", "\n".join(steps)):
        assert {*extras.split(",")} <= project["optional-dependencies"].keys()


def test_the_changes_name_the_version():
    release = drrl_core.__version__.split(".dev")[0]
    assert f"\n## {release}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("name", ["README.md", "docs/results.md"])
def test_the_tables_are_what_the_records_say(name):
    page = (ROOT / name).read_text()
    rows = results.read_runs(ROOT / "data" / "results" / "runs.csv")
    assert tables.PLACE.search(page)
    assert tables.fill(page, rows) == page, "make scorecard"


def test_every_cell_that_was_run_is_on_the_page_of_results():
    rows = results.read_runs(ROOT / "data" / "results" / "runs.csv")
    places = tables.PLACE.findall((ROOT / "docs" / "results.md").read_text())
    shown = {(dataset, backbone) for _, dataset, backbone, *_ in places}
    cells = evidence.beside_backbones(rows)[["dataset", "backbone"]].drop_duplicates()
    assert {*map(tuple, cells.to_numpy())} <= shown


def test_the_laboratory_s_modules_use_those_that_its_page_names_above_them():
    from drrl_core import lab

    order = re.findall(r"^    (\w+) ", lab.__doc__, re.M)
    assert {*order} == {path.stem for path in (PACKAGE / "lab").glob("*.py")} - {"__init__"}
    for name in order:
        for node in ast.walk(ast.parse((PACKAGE / "lab" / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("drrl_core.lab"):
                home = node.module.removeprefix("drrl_core.lab").removeprefix(".")
                used = {home} if home else {alias.name for alias in node.names}
                assert used <= {*order[: order.index(name)]}, f"{name} uses {used}"
