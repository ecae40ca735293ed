"""What a benchmark leaves behind: its part of one JSON file, and the machine it ran on."""

import json
import os
import platform
from pathlib import Path

import torch

from drrl_core.lab.run import commit


def about(device: str = "cpu") -> dict:
    on_gpu = device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name() if on_gpu else platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": commit(),
    }


def get(path: str | Path | None, script: str) -> dict:
    """A script's part of the file; empty where there is none."""
    return (
        json.loads(Path(path).read_text()).get(script, {}) if path and Path(path).exists() else {}
    )


def put(path: str | Path | None, script: str, part: dict) -> None:
    """Set a script's part of the file; the others' stay. Without a path, nothing."""
    if path is None:
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(whole | {script: part}, indent=1, allow_nan=False) + "\n")
