"""Ours against the obvious implementation, each in a process of its own, in turns.

    python tests/benchmarks/bench.py [--cases beauty-per-row ...] [--rounds 2] [--json PATH]

For each case: seconds an epoch (median step times the steps of an epoch; long epochs are measured
on their first `most` steps), peak resident memory, the ratio, and the target. `--step-costs` prints
what a step of each loss costs instead. Needs the real data sets; one heavy job at a time, or the
times lie.
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from itertools import pairwise
from pathlib import Path

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).parent))
import naive

from drrl_core import datasets, losses, metrics, runs

warnings.filterwarnings("ignore", category=UserWarning)
LEARNED = {"loss": "drrl", "order": 3.0, "weight": 2.0, "start": 0.0}
# name -> data set, our run (None: see `measure`), the naive steps, most steps, target ratio
CASES = {
    "beauty-per-row": ("amazon-beauty", LEARNED, "steps", 10**9, 4),
    "beauty-shared-pool-1024": (
        "amazon-beauty",
        LEARNED | {"sampler": "shared-pool", "negatives": 1024},
        "steps",
        10**9,
        4,
    ),
    "beauty-catalogue-exact": (
        "amazon-beauty",
        {"loss": "drrl", "order": 2.0, "radius": 2.0, "dual": "exact", "sampler": "catalogue"},
        "steps",
        15,
        1,
    ),
    "beauty-lightgcn": (
        "amazon-beauty",
        {"loss": "sl", "backbone": "lightgcn"},
        "graph_steps",
        10**9,
        2,
    ),
    "kitchen-per-row": ("amazon-kitchen", LEARNED, "steps", 60, 8),
    "gowalla-per-row": ("gowalla", LEARNED, "steps", 40, 20),
    "gowalla-ranking": ("gowalla", None, None, None, None),
}


class Enough(Exception):
    """As many steps as wanted are measured."""


def our_steps(data, settings: dict, most: int) -> list[float]:
    settings = dict(settings)
    loss, backbone = settings.pop("loss"), settings.pop("backbone", "mf")
    run = runs.configure(data.name, loss, backbone, settings | {"epochs": 1})
    stamps = []

    def on_step(_epoch, step, _value):
        stamps.append(time.perf_counter())
        if step > most:
            raise Enough

    with contextlib.suppress(Enough):
        runs.execute(run, data=data, device="cpu", on_step=on_step, progress=False)
    return [b - a for a, b in pairwise(stamps)]


def measure(case: str, side: str) -> dict:
    """One measurement, in this process."""
    name, settings, obvious, most, _ = CASES[case]
    data = datasets.load(name)
    if case == "gowalla-ranking":
        users, items = torch.randn(data.n_users, 64), torch.randn(data.n_items, 64)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        metrics.evaluate(users, items, data.test, masks=(data.train,))
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        return {"seconds": seconds, "peak_mib": peak / 1024}
    times = (
        our_steps(data, settings, most)
        if side == "ours"
        else getattr(naive, obvious)(data, most=most)
    )
    epoch = statistics.median(times) * -(-data.train.nnz // 1024)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": epoch, "peak_mib": peak / 1024, "steps": len(times)}


def step_costs() -> list[dict]:
    """Milliseconds of a step on Beauty, MF, 64 negatives a row, loss by loss."""
    data = datasets.load("amazon-beauty")
    plans = {
        name: {"loss": name, "negatives": 64, "similarity": "cosine"} for name in losses.REGISTRY
    }
    for dual in ("shared", "fixed", "exact"):
        plans[f"drrl {dual}"] = {"loss": "drrl", "order": 2.0, "radius": 1.0, "dual": dual}
    rows = []
    for name, settings in plans.items():
        times = our_steps(data, settings, 40)
        rows.append({"loss": name, "ms": 1e3 * statistics.median(times)})
        print(f"{name:14s} {rows[-1]['ms']:8.2f} ms", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=CASES)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--step-costs", action="store_true")
    parser.add_argument("--one", nargs=2, metavar=("CASE", "SIDE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*args.one)))
        return
    about = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "d": 64,
        "batch": 1024,
    }
    if args.step_costs:
        table = step_costs()
    else:
        table = []
        for case in args.cases:
            sides = ("ours",) if CASES[case][2] is None else ("ours", "naive")
            found = {side: [] for side in sides}
            for _ in range(args.rounds):
                for side in sides:
                    command = [sys.executable, __file__, "--one", case, side]
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                    found[side].append(json.loads(done.stdout.splitlines()[-1]))
            row = {"case": case, "target": CASES[case][4]}
            for side, each in found.items():
                for key in ("seconds", "peak_mib"):
                    row[f"{side}_{key}"] = round(min(run[key] for run in each), 3)
            if "naive" in found:
                row["ratio"] = round(row["naive_seconds"] / row["ours_seconds"], 2)
            table.append(row)
            print(json.dumps(row), flush=True)
        print(pd.DataFrame(table).to_string(index=False))
    if args.json:
        args.json.write_text(json.dumps({"about": about, "table": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
