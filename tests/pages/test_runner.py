"""The runner on tiny notebooks: what it refuses, and what it leaves behind."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("papermill")
pytest.importorskip("latex2mathml")
import nbformat
from jupyter_client.connect import LocalPortCache
from nbformat.v4 import new_code_cell, new_notebook

from drrl_core import common
from drrl_core.pages import runner
from drrl_core.pages.runner import NotebookError

PARAMETERS = """\
epochs: int = 3  # passes over the data; [1, 100]
lr: float | None = 0.1  # learning rate, per step; (0, 1]
losses: list[str] = ["sl"]  # which; {sl, ccl, drrl}
device: str = "cpu"
verbose: bool = False
out_dir: str = "."  # where figures and results go
"""
FIGURE = """\
import matplotlib.pyplot as plt
figure, axes = plt.subplots()
axes.plot(range(epochs));
"""
RESULTS = """\
import json, os, pathlib, sys
names = "MPLBACKEND", "JPY_SESSION_NAME", "SERVER_SOFTWARE"
found = {"epochs": epochs, "python": sys.executable, "cwd": os.getcwd()}
found["environment"] = {name: os.environ.get(name) for name in names}
pathlib.Path(out_dir, "results.json").write_text(json.dumps(found))
"""


def write(path, *cells, parameters=PARAMETERS):
    """A notebook: a str is a code cell."""
    tagged = new_code_cell(parameters or "", metadata={"tags": ["parameters"]})
    cells = [new_code_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[tagged, *cells] if parameters else cells), path)
    return path


def run(path, **options):
    return runner.run(path, out_dir=path.parent / "out", progress=False, html=False, **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One good run, on a machine that sets every known trap."""
    home = tmp_path_factory.mktemp("home {of} notebooks")
    spec = home / "share" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["/bin/false"], "display_name": "trap", "language": "sh"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(home / "share"))
        patch.setenv("MPLBACKEND", "Agg")
        patch.setenv("JPY_SESSION_NAME", "somewhere.ipynb")
        patch.setenv("SERVER_SOFTWARE", "voila/0.5")
        from jupyter_client.kernelspec import get_kernel_spec

        assert get_kernel_spec("python3").argv == ["/bin/false"]
        source = write(home / "07_tiny.ipynb", FIGURE, RESULTS)
        record = runner.run(
            source, out_dir=home / "out", parameters={"epochs": 5, "lr": "1e-3"}, progress=False
        )
    return home, record


# What is declared


def test_parameters_are_read_not_executed(tmp_path):
    path = write(tmp_path / "a.ipynb", "raise SystemExit")
    found = runner.parameters(path)
    assert list(found) == ["epochs", "lr", "losses", "device", "verbose", "out_dir"]
    assert found["lr"] == runner.Parameter(
        "lr", "float | None", 0.1, "learning rate, per step", "(0, 1]"
    )
    assert found["losses"].default == ["sl"] and found["device"].help == ""


@pytest.mark.parametrize(
    ("cell", "line", "words"),
    [
        ("a: int = 1\nb: int = 2; c: int = 3", 2, "expected one"),
        ("a: int = 1\nb = 2", 2, "expected one"),
        ("a: int = 1\nb: int", 2, "expected one"),
        ("import os\na: int = 1", 1, "expected one"),
        ("a: int = 1\n\nb: int = len('no')", 3, r"len\('no'\) is not a literal"),
        ("a: int = 1.5", 1, "a = 1.5 is not int"),
        ("a: tuple = (1, 2)", 1, "tuple is none of int"),
        ("a: int | txt = 1", 1, "txt is none of int"),
        ("a: int = 1  # count; from 1 to 9", 1, "neither like"),
        ("a: int = 0  # count; [1, 9]", 1, r"a = 0 is outside \[1, 9\]"),
        ("a: str = 'x'  # text; [1, 9]", 1, "str"),
        ("a: int = 1\n%matplotlib inline", 2, "invalid syntax"),
    ],
)
def test_a_bad_parameter_cell_is_named_by_cell_and_line(tmp_path, cell, line, words):
    path = write(tmp_path / "a.ipynb", parameters=cell)
    with pytest.raises(NotebookError, match=rf"a\.ipynb, cell 1, line {line}: .*{words}"):
        runner.parameters(path)


def test_no_parameter_cell_and_no_notebook(tmp_path):
    with pytest.raises(NotebookError, match="0 cells are tagged"):
        runner.parameters(write(tmp_path / "a.ipynb", "1", parameters=None))
    (tmp_path / "b.ipynb").write_text("{}")
    with pytest.raises(NotebookError, match="no notebook"):
        runner.parameters(tmp_path / "b.ipynb")


def test_find(tmp_path, monkeypatch):
    shelf = tmp_path / "notebooks"
    first = write(shelf / "00_start_here.ipynb")
    own = write(tmp_path / "own.ipynb")
    monkeypatch.setattr(common, "__file__", str(tmp_path / "drrl_core" / "common.py"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "registry.txt").touch()
    assert runner.folder() == shelf
    for name in ("00", "00_start_here", "00_start_here.ipynb", first):
        assert runner.find(name) == first
    assert runner.find(own) == own
    with pytest.raises(NotebookError, match="did you mean '00_start_here'"):
        runner.find("00_strat_here")
    with pytest.raises(NotebookError, match="there are: 00_start_here"):
        runner.find("99")
    shutil.rmtree(shelf)
    with pytest.raises(NotebookError, match="come with a checkout"):
        runner.find("00")


# What is refused before anything starts


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epoch": 3}, "no parameter 'epoch': did you mean 'epochs'"),
        ({"epochs": "3"}, "epochs = '3' is not int .passes over"),
        ({"epochs": True}, "is not int"),
        ({"epochs": 101}, r"outside \[1, 100\]"),
        ({"epochs": None}, "is not int"),
        ({"lr": 0.0}, r"outside \(0, 1\]"),
        ({"lr": float("nan")}, r"lr = nan is not a number"),
        ({"lr": "nan"}, r"lr = nan is not a number"),
        ({"lr": "-inf"}, r"lr = -inf is outside"),
        ({"lr": "high"}, r"is not float \| None"),
        ({"losses": "sl"}, r"is not list\[str\]"),
        ({"losses": ["sl", "slc"]}, "losses = 'slc' is outside"),
        ({"verbose": 1}, "is not bool"),
        ({"device": Path("x")}, "is not str"),
        ({"lr": "inf"}, r"lr = inf is outside"),
    ],
)
def test_wrong_values_start_nothing(tmp_path, given, words):
    with pytest.raises(NotebookError, match=words):
        run(write(tmp_path / "a.ipynb"), parameters=given)
    assert not (tmp_path / "out").exists()


def test_the_source_is_not_overwritten(tmp_path):
    path = write(tmp_path / "a.ipynb")
    with pytest.raises(NotebookError, match="another folder"):
        runner.run(path, out_dir=tmp_path)


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "papermill", None)
    with pytest.raises(ValueError, match=r"pip install 'drrl-core\[notebooks\]'"):
        run(write(tmp_path / "a.ipynb"))


# What a good run leaves


def test_the_record_says_what_ran(finished):
    home, record = finished
    assert record["status"] == "done" and record["notebook"] == "07_tiny"
    assert record["parameters"] == {
        "epochs": 5,
        "lr": 0.001,
        "losses": ["sl"],
        "device": "cpu",
        "verbose": False,
        "out_dir": str(home / "out"),
    }
    assert record["seconds"] > 0 and {"python", "papermill"} <= set(record["versions"])
    written = json.loads((home / "out" / "07_tiny.json").read_text())
    assert written | {"results": record["results"]} == record
    files = {path.name for path in (home / "out").iterdir()}
    assert files == {"07_tiny.ipynb", "07_tiny.html", "07_tiny.json", "results.json"}


def test_the_kernel_is_this_python_without_a_front_end(finished):
    home, record = finished
    results = record["results"]
    assert results["epochs"] == 5
    assert results["python"] == sys.executable
    assert Path(results["cwd"]).samefile(home)
    environment = results["environment"]
    assert environment.pop("MPLBACKEND") in (None, "module://matplotlib_inline.backend_inline")
    assert set(environment.values()) == {None}


def test_figures_are_inside_whatever_the_backend_outside(finished):
    notebook = nbformat.read(finished[0] / "out" / "07_tiny.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1


def test_numbers_that_yaml_takes_for_text_and_paths_from_where_one_stands(tmp_path, monkeypatch):
    cell = "order: float = 2.0\norders: list[float] = [1]\nname: str = ''\nfiles: list[str] = []\n"
    cell += "file: str = ''\nasked: str = ''"
    path = write(tmp_path / "shelf" / "a.ipynb", parameters=cell)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.csv").write_text("user,item\n")
    given = {"order": "inf", "orders": [1, "1e-3", "inf", "-inf"], "name": "1e-3"}
    given |= {"file": "own.csv", "asked": "own.csv?k_core=5&name=nan", "files": ["inf"]}
    told, _ = runner._values(path, given, tmp_path)
    assert told == {
        "order": float("inf"),
        "orders": [1, 0.001, float("inf"), -float("inf")],
        "file": str(tmp_path / "own.csv"),
        "asked": str(tmp_path / "own.csv") + "?k_core=5&name=nan",
        "name": "1e-3",
        "files": ["inf"],
    }


def test_a_port_that_another_kernel_took_meanwhile_fails_nothing(tmp_path, monkeypatch):
    find = LocalPortCache.find_available_port
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = [other.getsockname()[1]]
        monkeypatch.setattr(
            LocalPortCache,
            "find_available_port",
            lambda cache, ip: taken.pop() if taken else find(cache, ip),
        )
        done = run(write(tmp_path / "a.ipynb", "print('fine')"), parameters={"epochs": 2})
    assert done["status"] == "done" and not taken


# What a failed run leaves


@pytest.mark.parametrize(
    ("cell", "timeout", "words"),
    [
        ("1 / epochs\n1 / 0", None, "ZeroDivisionError: division by zero"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", None, "DeadKernelError: "),
        ("import os; os._exit(0)", None, "DeadKernelError: "),
        ("import time; time.sleep(60)", 1, "CellTimeoutError: .* after 1 seconds"),
        ("raise SystemExit(0)", None, "SystemExit: 0"),
    ],
    ids=["exception", "killed", "exit", "timeout", "sys.exit"],
)
def test_a_failure_is_never_taken_for_success(tmp_path, cell, timeout, words):
    path = write(tmp_path / "a.ipynb", "print('fine')", cell, "print('never')")
    record = tmp_path / "out" / "a.json"
    record.parent.mkdir()
    for stale in (record, record.with_suffix(".html")):
        stale.write_text("of an earlier run")
    with pytest.raises(NotebookError) as caught:
        run(path, parameters={"epochs": 2}, timeout=timeout)
    first = re.escape(cell.splitlines()[0])
    executed = record.with_suffix(".ipynb")
    written = json.loads(record.read_text())
    assert written["status"] == "failed" and written["parameters"]["epochs"] == 2
    assert re.fullmatch(rf"in cell \[4\], `{first}`", written["where"])
    assert re.match(words, written["error"])
    assert f"\n  again: {written['again']}" in str(caught.value)
    assert re.search(rf"a failed in cell \[4\], `{first}`\n  {words}", str(caught.value))
    assert str(executed) in str(caught.value)
    assert f"drrl notebook {path} --out {tmp_path / 'out'} -p epochs=2" in str(caught.value)
    assert not record.with_suffix(".html").exists()
    cells = nbformat.read(executed, as_version=4).cells
    cells = [each for each in cells if each.cell_type == "code"]
    assert "fine" in cells[-3].outputs[0].text
    assert "error" in [output.output_type for output in cells[-2].outputs]
    assert not cells[-1].outputs
    if "SystemExit" not in cell:
        assert [each.metadata.papermill.status for each in cells[-2:]] == ["failed", "pending"]


def test_results_of_an_earlier_run_are_not_ours(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.json").write_text("{}")
    record = run(write(tmp_path / "a.ipynb", "assert lr is None"), parameters={"lr": None})
    assert record["status"] == "done" and "results" not in record


def test_results_must_be_json(tmp_path):
    path = write(tmp_path / "a.ipynb", "open(f'{out_dir}/results.json', 'w').write('{,}')")
    with pytest.raises(NotebookError, match=r"results\.json, not JSON"):
        run(path)
    assert not (tmp_path / "out" / "a.json").exists()


@pytest.mark.slow
def test_the_bare_papermill_command_runs_it_too(tmp_path):
    path = write(tmp_path / "a.ipynb", FIGURE, RESULTS)
    command = [sys.executable, "-m", "papermill", path, tmp_path / "b.ipynb", "-k", "python3"]
    environment = {k: v for k, v in os.environ.items() if k not in runner._FRONT_END}
    # the language, which our runner names, is in every notebook saved by Jupyter
    command += ["--language", "python", "-p", "epochs", "2", "-p", "out_dir", tmp_path]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    assert json.loads((tmp_path / "results.json").read_text())["epochs"] == 2


# Many side by side


@pytest.mark.slow
def test_the_suite_runs_on_past_failures_and_says_how_to_repeat_them(tmp_path):
    report = """import json, os, pathlib
found = {name: os.environ[f"{name}_NUM_THREADS"] for name in ("OMP", "MKL")}
found["cores"] = len(os.sched_getaffinity(0))
pathlib.Path(out_dir, "results.json").write_text(json.dumps(found | {"epochs": epochs}))"""
    cells = {
        "00_good": report,
        "01_kernel": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "02_process": "import os, signal; os.kill(os.getppid(), signal.SIGKILL)",
        "03_timeout": "import time; time.sleep(60)",
        "04_refused": "1",
    }
    paths = [write(tmp_path / f"{name}.ipynb", cell) for name, cell in cells.items()]
    tiny = {str(path): {"epochs": 7} for path in paths} | {str(paths[-1]): {"epochs": 700}}
    (tmp_path / "tiny.yaml").write_text(json.dumps(tiny))
    command = [sys.executable, "-m", "drrl_core", "notebooks", *map(str, paths), "--timeout", "3"]
    command += ["--parameters", tmp_path / "tiny.yaml", "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    rows = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines()}
    assert rows == {name: "done" if name == "00_good" else "failed" for name in cells}

    results = json.loads((tmp_path / "out" / "00_good" / "results.json").read_text())
    jobs = min(results["cores"], len(cells))
    assert results["epochs"] == 7
    assert results["OMP"] == results["MKL"] == str(results["cores"] // jobs)

    head, *faults = done.stderr.strip().split("\n\n")
    assert head == "4 of 5 failed:"
    faults = {text.split()[0]: text for text in faults}
    for name, where in {
        "01_kernel": "in cell [3], `import os, signal; os.kill(os.getpid(), signal.SIGKILL)`\n"
        "  error  DeadKernelError",
        "02_process": "outside its cells\n  error  killed by signal 9",
        "03_timeout": "in cell [3], `import time; time.sleep(60)`\n  error  CellTimeoutError",
        "04_refused": "outside its cells\n  error  drrl: 04_refused: epochs = 700 is outside",
    }.items():
        assert where in faults[name]
        again = f"drrl notebook {tmp_path / name}.ipynb --out {tmp_path / 'out' / name} -p epochs="
        assert f"\n  again  {again}" in faults[name]


def test_a_wrong_name_starts_no_suite(tmp_path):
    with pytest.raises(NotebookError, match="no notebook '99'"):
        next(runner.run_all([write(tmp_path / "a.ipynb"), "99"], out_dir=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_every_front_end_is_cleared_away():
    explorers = pytest.importorskip("drrl_core.show.explorers")
    assert set(explorers.FRONT_ENDS) <= runner._FRONT_END
