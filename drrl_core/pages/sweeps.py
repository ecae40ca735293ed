"""Notebooks in a sweep: the execution of one as a job for the laboratory's workers."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from drrl_core.lab.workers import Compute, Job, Task
from drrl_core.pages import runner


def notebook_job(block: dict[str, Any], compute: Compute) -> Job | None:
    """The execution of a notebook; None where it is done. `sweep` takes it as `notebook`.

    Args:
        block: notebook, a name as `runner.find` takes it; parameters, of the notebook; out, the
            folder that gets a folder for it.
        compute: how many threads it may use.

    Raises:
        ValueError: no such notebook, or parameters that it refuses.
    """
    try:
        source = runner.find(block["notebook"])
        given = runner.checked(source, dict(block["parameters"]))
    except runner.NotebookError as error:
        raise ValueError(str(error)) from error
    words = re.sub(r"[^\w.=-]+", "_", " ".join(f"{k}={v}" for k, v in given.items()))[:80]
    digest = hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:6]
    out = Path(block["out"]) / f"{source.stem} {words} {digest}".replace(" ", "_")
    try:
        if json.loads((out / f"{source.stem}.json").read_text())["status"] == "done":
            return None
    except (OSError, ValueError, KeyError):  # not run, or not to its end
        pass
    options = {"name": str(source), "out": str(out), "parameters": given}
    return Job(Task(out.name), _execute, options | {"threads": compute.share()})


def _execute(name: str, out: str, parameters: dict[str, Any], threads: int) -> dict[str, Any]:
    os.environ["OMP_NUM_THREADS"] = str(threads)  # the kernel inherits it
    return runner.run(name, out_dir=out, parameters=parameters, progress=False)
