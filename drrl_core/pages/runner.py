"""Find, check and execute notebooks, one or all of them; each run leaves a record."""

import ast
import io
import json
import logging
import math
import os
import re
import shlex
import subprocess
import sys
import time
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from drrl_core.common import checkout, cores, did_you_mean, need, write_whole
from drrl_core.pages.html import export_html

# What a front end, or a plotting backend meant for scripts, leaves in the environment. Inherited by
# a kernel, the first removes inline figures and the others make explorers take it for interactive.
_FRONT_END = {"MPLBACKEND", "JPY_SESSION_NAME", "SERVER_SOFTWARE", "VSCODE_PID"}
_FRONT_END |= {"COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"}


class NotebookError(Exception):
    """A notebook that cannot be found, read, started or finished; the message says what to do."""


@dataclass(frozen=True)
class Parameter:
    """A line of a `parameters` cell: `name: type = default  # help, unit; range`.

    The range, of a value or of every item in a list, is an interval, `[1, inf)` or `(0, 1]`, or a
    choice, `{cpu, cuda}`; empty means any.
    """

    name: str
    type: str
    default: object
    help: str = ""
    range: str = ""

    def check(self, value) -> None:
        """Refuse a value of another type or outside the range.

        Raises: ValueError, saying what is expected.

        >>> Parameter("dim", "int", 64, range="[1, 512]").check(0)
        Traceback (most recent call last):
        ValueError: dim = 0 is outside [1, 512]
        """
        if not _fits(ast.parse(self.type, mode="eval").body, value):
            raise ValueError(f"{self.name} = {value!r} is not {self.type}")
        for item in value if isinstance(value, list) else [value]:
            if item != item:
                raise ValueError(f"{self.name} = {item!r} is not a number")
            if self.range and item is not None and not _within(self.range, item):
                raise ValueError(f"{self.name} = {item!r} is outside {self.range}")


def _fits(kind: ast.expr, value) -> bool:
    match kind:
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            return any([_fits(left, value), _fits(right, value)])  # a list: finds typos in both
        case ast.Constant(value=None):
            return value is None
        case ast.Subscript(value=ast.Name(id="list"), slice=item):
            return type(value) is list and all(_fits(item, each) for each in value)
        case ast.Name(id="float"):
            return type(value) in (float, int)  # exactly: no bool, no numpy scalar
        case ast.Name(id="int" | "bool" | "str" as name):
            return type(value).__name__ == name
    raise ValueError(f"{ast.unparse(kind)} is none of int, float, bool, str, list[...], ... | None")


def _within(text: str, value) -> bool:
    if choice := re.fullmatch(r"\{(.+)\}", text):
        return str(value) in re.split(r"\s*,\s*", choice[1].strip())
    if not (interval := re.fullmatch(r"([\[(])\s*(\S+)\s*,\s*(\S+?)\s*([\])])", text)):
        raise ValueError(f"range {text!r} is neither like (0, 1] nor like {{cpu, cuda}}")
    low, high = float(interval[2]), float(interval[3])
    above = low <= value if interval[1] == "[" else low < value
    return above and (value <= high if interval[4] == "]" else value < high)


def folder() -> Path:
    """The checkout's folder of notebooks.

    Raises: NotebookError where the package was installed without its checkout.

    >>> folder().name
    'notebooks'
    """
    root = checkout()
    if root is None or not (path := root / "notebooks").is_dir():
        raise NotebookError(
            "no folder of notebooks here: they come with a checkout; clone the project and "
            "`pip install -e '.[notebooks]'` in it, or name an .ipynb file"
        )
    return path


def find(name) -> Path:
    """A notebook by number ("00"), name ("00_start_here") or path ("my/own.ipynb").

    Raises: NotebookError with the nearest name.

    >>> find("00").stem
    '00_start_here'
    """
    path = Path(name)
    if path.suffix == ".ipynb" and path.is_file():
        return path.resolve()
    shelf = {found.stem: found for found in sorted(folder().glob("*.ipynb"))}
    for stem, found in shelf.items():
        if str(name).removesuffix(".ipynb") in (stem, stem.split("_")[0]):
            return found
    raise NotebookError(f"no notebook {str(name)!r}: {did_you_mean(path.stem, shelf)}")


def parameters(path) -> dict[str, Parameter]:
    """What a notebook's cell tagged `parameters` declares, by name; read, never executed.

    Raises: NotebookError with cell and line, where one is not `name: type = literal  # help`.

    >>> parameters(find("00"))["epochs"].type
    'int'
    """
    path, found, line, last = Path(path), {}, 1, 0
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotebookError(f"{path} is no notebook: {type(error).__name__}: {error}") from error
    tagged = [i for i, cell in enumerate(cells) if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise NotebookError(f"{path.name}: {len(tagged)} cells are tagged `parameters`, not one")
    source = "".join(cells[tagged[0]]["source"])
    try:
        body = ast.parse(source).body
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        notes = {each.start[0]: each.string[1:] for each in tokens if each.type == tokenize.COMMENT}
        for node in body:
            line = node.lineno
            if line == last or not isinstance(node, ast.AnnAssign) or not node.value:
                raise ValueError("expected one `name: type = literal  # help, unit; range` a line")
            last = node.end_lineno
            text, _, limits = notes.get(last, "").partition(";")
            try:
                default = ast.literal_eval(node.value)
            except ValueError:
                raise ValueError(f"{ast.unparse(node.value)} is not a literal") from None
            name, kind = ast.unparse(node.target), ast.unparse(node.annotation)
            found[name] = Parameter(name, kind, default, text.strip(), limits.strip())
            found[name].check(default)
    except (SyntaxError, ValueError, TypeError) as error:
        where = f"{path.name}, cell {tagged[0] + 1}, line {getattr(error, 'lineno', line)}"
        raise NotebookError(f"{where}: {getattr(error, 'msg', error)}") from error
    return found


def _numbers(value):
    """Numbers that YAML reads as text, such as 1e-3 and inf; nan too, which `check` refuses."""
    if isinstance(value, list):
        return [_numbers(each) for each in value]
    number = r"[-+]?([\d.]+e[-+]?\d+|inf(inity)?|nan)"
    text = isinstance(value, str) and re.fullmatch(number, value, re.I)
    return float(value) if text else value


def checked(source: Path, given: dict) -> dict:
    """Values for a notebook's parameters, checked, as its kernel can use them.

    Numbers that YAML reads as text become numbers; paths of data files become absolute.

    Raises:
        NotebookError: an unknown name, a value of another type or out of range.
    """
    declared, given = parameters(source), dict(given)
    for name, value in given.items():
        if name not in declared:
            raise NotebookError(
                f"{source.stem} has no parameter {name!r}: {did_you_mean(name, declared)}"
            )
        if "str" not in declared[name].type:
            value = _numbers(value)
        elif isinstance(value, str):
            # The kernel works elsewhere. A data file's path may end in options, `?k_core=5`.
            for part in (value, value.partition("?")[0]):
                if os.path.isfile(here := os.path.expanduser(part)):
                    value = os.path.abspath(here) + value.removeprefix(part)
                    break
        given[name] = value
        try:
            declared[name].check(value)
        except ValueError as error:
            raise NotebookError(f"{source.stem}: {error} ({declared[name].help})") from error
    return given


def _values(source: Path, given: dict, out_dir: Path) -> tuple[dict, dict]:
    """The values to inject into the notebook, and the values of all its parameters."""
    declared, given = parameters(source), checked(source, given)
    told = {"out_dir": str(out_dir)} | given if "out_dir" in declared else given
    return told, {name: each.default for name, each in declared.items()} | told


def _native_kernel() -> type:
    """A kernel manager that starts this interpreter, whatever is registered as `python3`."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class NativeKernel(AsyncKernelManager):
        def __init__(self, **options):
            # Without folders to search it takes ipykernel's own specification: sys.executable.
            specs = KernelSpecManager(kernel_dirs=[], ensure_native_kernel=True)
            super().__init__(kernel_spec_manager=specs, **options)

        async def start_kernel(self, **options):
            env = {key: value for key, value in os.environ.items() if key not in _FRONT_END}
            return await super().start_kernel(env=env, **options)

    return NativeKernel


def _not_about_names(record: logging.LogRecord) -> bool:
    # papermill calls a parameter of type `float | None` unknown; `checked` has seen them all
    return "Passed unknown parameter" not in record.getMessage()


def _post_mortem(executed: Path, error: Exception) -> tuple[str, str]:
    """Where and why a run ended; a notebook that only looks finished is marked as failed."""
    import nbformat
    from papermill.exceptions import PapermillExecutionError

    kind, why = type(error).__name__, (str(error).strip().splitlines() or [""])[0]
    notebook = nbformat.read(executed, as_version=4) if executed.is_file() else None
    code = [cell for cell in notebook.cells if cell.cell_type == "code"] if notebook else []
    ran = [cell for cell in code if cell.source.strip() and cell.metadata.papermill["start_time"]]
    if not ran:
        return "before its first cell", f"{kind}: {why}"
    faults = [output for output in ran[-1].outputs if output.output_type == "error"]
    if not isinstance(error, PapermillExecutionError | NotebookError):
        # A killed kernel or a timeout: papermill then marks every cell as completed.
        faults = [nbformat.v4.new_output("error", ename=kind, evalue=why, traceback=[why])]
        ran[-1].outputs.extend(faults)
        for cell in code:
            cell.metadata.papermill.status = "completed" if cell in ran else "pending"
        ran[-1].metadata.papermill.update(status="failed", exception=True)
        notebook.metadata.papermill.exception = True
        nbformat.write(notebook, executed)
    line = ran[-1].source.strip().splitlines()[0]
    return f"in cell [{len(ran)}], `{line}`", f"{faults[0].ename}: {faults[0].evalue}"


def _plain(path: Path) -> str:
    return re.sub(r"[{}]", r"\g<0>\g<0>", str(path))  # papermill reads braces as templates


def _stamp(path: Path):
    return (path.stat().st_mtime_ns, path.stat().st_ino) if path.is_file() else None


def _arguments(name, out_dir, given: dict) -> list[str]:
    """The arguments of `drrl` that repeat this run."""
    parameters = [word for k, v in given.items() for word in ("-p", f"{k}={json.dumps(v)}")]
    return ["notebook", str(name), "--out", str(out_dir), *parameters]


def _write(path: Path, record: dict) -> None:
    write_whole(path, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())


def _execute(source: Path, executed: Path, told: dict, *, timeout, progress: bool) -> None:
    """Execute a notebook into the file `executed`; after a failure that has the cells that ran.

    Raises: what papermill raises; NotebookError where papermill overlooks a failure.
    """
    import papermill

    logging.getLogger("papermill").addFilter(_not_about_names)
    options = {
        "parameters": told,
        "kernel_name": "python3",
        "language": "python",
        "kernel_manager_class": _native_kernel(),
        "resources": {"metadata": {"path": str(source.parent)}},  # cwd= would change our own folder
        "execution_timeout": math.ceil(timeout) if timeout else None,
        "start_timeout": 120,
        "iopub_timeout": 60,
        "extra_arguments": ["--log-level=ERROR"],  # else each run warns about unencrypted loopback
        "progress_bar": progress and {"desc": source.stem, "disable": None},
    }
    try:
        notebook = papermill.execute_notebook(_plain(source), _plain(executed), **options)
    except RuntimeError as error:
        # A kernel's ports are chosen before they are bound: another process may take one.
        if "died before replying" not in str(error):
            raise
        notebook = papermill.execute_notebook(_plain(source), _plain(executed), **options)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    if any(output.output_type == "error" for output in outputs):
        raise NotebookError("papermill takes a quiet sys.exit() for success")


def run(
    name, *, out_dir, parameters: dict | None = None, timeout=None, html=True, progress=True
) -> dict:
    """Execute a notebook in a fresh kernel of this interpreter, in the notebook's own folder.

    Leaves `<stem>.ipynb`, the record `<stem>.json` and, after success, `<stem>.html`. Only a record
    whose status is "done" means success: an executed notebook can look finished and not be. A
    parameter `out_dir` the caller has not set is the folder, for figures and a results.json.

    Args:
        name: as `find` takes it.
        out_dir: where to write; created.
        parameters: values by name, checked before anything starts; the path of a file is taken
            from the caller's folder, not the notebook's.
        timeout: seconds any one cell may take.
        html: whether to export a page.
        progress: whether to show a bar (on a terminal).
    Returns: notebook, parameters, seconds, finished, versions, status "done"; results, if this run
        wrote any. The record of a run that failed has where, error and again (the command).
    Raises: NotebookError; when a cell, the kernel or the clock ended it, with cell, cause, the
        half-executed notebook and the command to repeat.

    Example: `run("00", out_dir="out/00", parameters={"epochs": 2})["results"]`
    """
    source, target, given = find(name), Path(out_dir).resolve(), dict(parameters or {})
    told, values = _values(source, given, target)
    executed, page, record_file = (
        target / f"{source.stem}.{end}" for end in ("ipynb", "html", "json")
    )
    if executed == source:
        raise NotebookError(f"{source.name} itself lies in {target}: name another folder")
    for module in ("papermill", "nbconvert", "latex2mathml") if html else ("papermill",):
        need(module, "notebooks")
    from drrl_core.lab.run import versions

    target.mkdir(parents=True, exist_ok=True)
    for stale in (executed, page, record_file):
        stale.unlink(missing_ok=True)
    results = source.parent / (values.get("out_dir") or target) / "results.json"
    before, start = _stamp(results), time.perf_counter()

    def record(status: str) -> dict:
        return {
            "notebook": source.stem,
            "parameters": values,
            "seconds": round(time.perf_counter() - start, 2),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            "status": status,
        }

    try:
        _execute(source, executed, told, timeout=timeout, progress=progress)
    except Exception as error:
        where, why = _post_mortem(executed, error)
        again = shlex.join(["drrl", *_arguments(name, out_dir, given)])
        _write(record_file, record("failed") | {"where": where, "error": why, "again": again})
        raise NotebookError(
            f"{source.stem} failed {where}\n  {why}\n"
            f"  as far as it came: {executed}\n  again: {again}"
        ) from error
    done, found = record("done"), {}
    if _stamp(results) not in (None, before):
        try:
            found["results"] = json.loads(results.read_text(encoding="utf-8"))
        except ValueError as error:
            raise NotebookError(f"{source.stem} wrote {results}, not JSON: {error}") from error
    if html:
        export_html(executed, page)
    _write(record_file, done)
    return done | found


def run_all(
    names=(), *, out_dir, parameters: dict | None = None, timeout=None, jobs: int | None = None
) -> Iterator[dict]:
    """Execute notebooks side by side, each in a process of its own, past any failure.

    Processes times threads are at most as many as the cores that this process may use.

    Args:
        names: as `find` takes them; none means all notebooks.
        out_dir: each notebook has a folder of its name in it, as `run` leaves it, with a log.
        parameters: values by name, by notebook ({"00_start_here": {"epochs": 2}}).
        timeout: seconds any one cell may take.
        jobs: processes at once; as many as cores, if not given.
    Yields: records as `run` leaves them, as they end; "failed" also where the process was killed.
    Raises: NotebookError for a wrong name, before anything starts.

    Example: `[record["status"] for record in run_all(out_dir="out/notebooks")]`
    """
    waiting = [find(name) for name in names] or sorted(folder().glob("*.ipynb"))
    given = {find(name).stem: values or {} for name, values in (parameters or {}).items()}
    jobs = min(jobs or cores(), cores(), len(waiting)) or 1
    libraries = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
    threads = {f"{name}_NUM_THREADS": str(cores() // jobs) for name in libraries}
    limit = ["--timeout", str(timeout)] if timeout else []
    running = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                source = waiting.pop(0)
                target = Path(out_dir).resolve() / source.stem
                target.mkdir(parents=True, exist_ok=True)
                for stale in target.glob(f"{source.stem}.*"):
                    stale.unlink()
                words = _arguments(source, target, given.get(source.stem, {}))
                with (target / f"{source.stem}.log").open("w") as log:
                    process = subprocess.Popen(
                        [sys.executable, "-m", "drrl_core", *words, *limit],
                        env=os.environ | threads,
                        stdout=log,
                        stderr=log,
                    )
                running[process] = target / f"{source.stem}.json", words, time.perf_counter()
            time.sleep(0.1)
            for process in [each for each in running if each.poll() is not None]:
                record, words, start = running.pop(process)
                if not record.exists():  # refused, or killed
                    code, said = process.returncode, record.with_suffix(".log").read_text("utf-8")
                    ended = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
                    fault = {
                        "notebook": record.stem,
                        "seconds": round(time.perf_counter() - start, 2),
                        "status": "failed",
                        "where": "outside its cells",
                        "error": ended if code < 0 else (said.splitlines() or [ended])[-1],
                        "again": shlex.join(["drrl", *words]),
                    }
                    _write(record, fault)
                yield json.loads(record.read_text(encoding="utf-8"))
    finally:
        for process in running:
            process.terminate()
