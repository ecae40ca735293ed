"""What this installation is and finds: the first thing to send with a question."""

import os
import platform
import shutil
import sys
from pathlib import Path

import torch

from drrl_core import __version__, datasets
from drrl_core.common import cores
from drrl_core.lab import run
from drrl_core.lab.store import store_folder


def _folder(path: Path) -> str:
    """A folder, whether it can be written to, and how much room it has."""
    there = next(each for each in (path, *path.parents) if each.exists())
    state = "" if path.exists() else " (not made yet)"
    if not os.access(there, os.W_OK):
        return f"{path}{state}: cannot be written to"
    return f"{path}{state}: {shutil.disk_usage(there).free / 1e9:.0f} GB free"


def report() -> dict[str, str]:
    """This installation: versions, machine, devices, folders, data sets, browser.

    Returns: a line of text for each; what is missing says so.

    >>> report()["drrl-core"].split(",")[0] == __version__
    True
    """
    devices = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    here = [
        name
        for name in datasets.names()
        if all(file["present"] for file in datasets.describe(name)["files"])
    ]
    found = {
        "drrl-core": f"{__version__}, {Path(__file__).parents[1]}",
        "commit": run.commit() or "not a checkout of git",
        "python": f"{platform.python_version()}, {sys.executable}",
        "system": f"{platform.platform()}, {cores()} cores",
        "encoding": f"{sys.stdout.encoding}, files {sys.getfilesystemencoding()}",
        "threads": f"{torch.get_num_threads()} of torch, OMP_NUM_THREADS "
        + os.environ.get("OMP_NUM_THREADS", "not set"),
        "devices": ", ".join(["cpu", *devices]),
        "runs": _folder(store_folder()),
        "data": os.environ.get("DRRL_DATA") or "DRRL_DATA is not set",
        "sets here": ", ".join(here),
        "browser": browser or "none: the tests in a browser are skipped",
    }
    packages = {name: text for name, text in run.versions().items() if name not in found}
    return found | packages
