"""Ours against the obvious implementation (naive.py), each in a process of its own, in turns.

    python tests/benchmarks/bench.py [--case NAME ...] [--json PATH] [--device cpu] [--list]

For each case: seconds and peak resident memory of both, their ratio, the target, and how far ours
is from what the machine allows: bytes that must be moved over a bandwidth measured here and now, or
operations over a measured rate, whichever takes longer. Seconds of an epoch are the median step
times the steps of an epoch; long epochs are measured on their first steps. The JSON is written
anew after each case. Needs the real data; one heavy job at a time, or the times lie.
"""

import argparse
import contextlib
import json
import math
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array

sys.path.insert(0, str(Path(__file__).parent))
import naive
import record

from drrl_core import datasets, losses
from drrl_core.lab.run import configure, execute
from drrl_core.train import metrics

warnings.filterwarnings("ignore", category=UserWarning)
DIM, BATCH, MIB = 64, 1024, 2**20
LEARNED = naive.DRRL | {"negatives": 64}
POOL = LEARNED | {"sampler": "shared-pool", "negatives": 1024}
EXACT = {"loss": "drrl", "order": 2.0, "radius": 2.0, "dual": "exact", "sampler": "catalogue"}
# Either side's settings are those of the README's table: of a handful tried. Ours may choose the
# batch, the sampler and the rate as well, and did so among another handful.
TO_ACCURACY = {
    "drrl": naive.DRRL
    | {"order": 2.11, "weight": 2.6, "start": -0.16, "dual_lr": 5e-5, "lr": 3e-3},
    "sl": naive.SL | {"lr": 3e-3},
}
FASTER = {"drrl": {"lr": 2e-2, "batch_size": 2048}, "sl": {"lr": 3e-2, "batch_size": 4096}}
LARGE = (1_000_000, 500_000, 20_000_000)  # users, items, pairs
ROW_SPARSE = {"optimiser": "row-sparse-adam"}


# ---------------------------------------------------------------------------------------------
# What a process measures: seconds, peak_mib, and whatever else the case is judged by


def peak() -> float:
    """The most MiB of this process so far, or since `from_now`."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))


def from_now() -> float:
    """MiB of this process now, from where its peak is counted again."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return peak()


class Enough(Exception):
    """As many steps as wanted are measured."""


def our_steps(data, settings: dict, most: int, device: str = "cpu") -> list[float]:
    """Seconds of each step, but for the first; on a GPU, which runs behind, their mean each."""
    settings = dict(settings)
    loss, backbone = settings.pop("loss"), settings.pop("backbone", "mf")
    run = configure(data.name, loss, backbone, settings | {"epochs": 1})
    total, stamps = -(-data.train.nnz // run.train.batch_size), []

    def on_step(_epoch, step, _value):
        if device != "cpu" and step in (1, most, total):
            torch.cuda.synchronize()
        stamps.append(time.perf_counter())
        if step >= most:
            raise Enough

    with contextlib.suppress(Enough):
        execute(run, data=data, device=device, on_step=on_step, progress=False)
    if device != "cpu":
        return [(stamps[-1] - stamps[0]) / (len(stamps) - 1)] * (len(stamps) - 1)
    return [b - a for a, b in pairwise(stamps)]


def epoch_of(data, times: list[float]) -> dict:
    seconds = statistics.median(times) * -(-data.train.nnz // BATCH)
    return {"seconds": seconds, "peak_mib": peak(), "steps": len(times)}


def our_epoch(name: str, settings: dict, most: int, device: str, _goal) -> dict:
    data = datasets.load(name)
    return epoch_of(data, our_steps(data, settings, most, device))


def naive_epoch(name: str, make: Callable, settings: dict, most: int, device: str, _goal) -> dict:
    data = datasets.load(name)
    return epoch_of(data, naive.steps(make, data, settings, most, device))


def naive_to_accuracy(loss: str, _device: str, _goal) -> dict:
    data = datasets.load("amazon-beauty")

    def accuracy(users, items):
        return metrics.evaluate(users, items, data.valid, masks=(data.train,))["ndcg@20"].mean()

    found = naive.train(data, TO_ACCURACY[loss], accuracy, epochs=60, every=5, patience=2)
    seconds, best = max(found, key=lambda each: each[1])
    return {"seconds": seconds, "peak_mib": peak(), "ndcg": best, "epochs": 5 * len(found)}


def our_to_accuracy(loss: str, device: str, goal: float) -> dict:
    data = datasets.load("amazon-beauty")
    settings = TO_ACCURACY[loss] | {"epochs": 60, "evaluate_every": 4} | FASTER[loss]
    run = configure(data.name, settings.pop("loss"), config=settings)
    start, seen = time.perf_counter(), []

    def on_epoch(row):
        seen.append((row.get("ndcg@20", 0.0), time.perf_counter() - start, row["epoch"]))
        return seen[-1][0] >= goal

    execute(run, data=data, device=device, on_epoch=on_epoch, progress=False)
    ndcg, seconds, epochs = seen[-1]
    seconds = seconds if ndcg >= goal else math.inf
    return {"seconds": seconds, "peak_mib": peak(), "ndcg": ndcg, "epochs": epochs}


def ranking(obvious: bool, _device: str, _goal) -> dict:
    data = datasets.load("gowalla")
    rng = torch.Generator().manual_seed(0)
    users, items = (torch.randn(n, DIM, generator=rng) for n in (data.n_users, data.n_items))
    before, start = from_now(), time.perf_counter()
    if obvious:
        found = naive.ranking(users, items, data.train, data.test)
    else:
        found = metrics.evaluate(users, items, data.test, masks=(data.train,))["ndcg@20"].mean()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_mib": peak() - before, "ndcg": float(found)}


def large(share: float, most: int, settings: dict, device: str, _goal) -> dict:
    """A part of an epoch of the large synthetic set, or of one that is smaller in every way."""
    n_users, n_items, pairs = (round(size * share) for size in LARGE)
    before, rng = from_now(), np.random.default_rng(0)
    start = np.arange(n_users + 1, dtype=np.int32) * (pairs // n_users)  # a pair may come twice
    items = (n_items * rng.random(pairs, dtype=np.float32) ** 2).astype(np.int32)
    train = csr_array((np.ones(pairs, np.int8), items, start), shape=(n_users, n_items))
    del items
    none = csr_array(train.shape, dtype=np.int8)
    data = datasets.Interactions("large", n_users, n_items, train, none, none)
    del train
    times = our_steps(data, settings, most, device)
    found = epoch_of(data, times) | {"pairs": data.train.nnz}
    found["ns_per_pair"] = 1e9 * found["seconds"] / data.train.nnz
    return found | {"bytes_per_row": (peak() - before) * MIB / (n_users + n_items)}


def loss_step(name: str, _device: str, _goal) -> dict:
    """Memory of a loss alone, forward and back on 16,384 × 64 scores; seconds of a step on MF."""
    data, settings = datasets.load("amazon-beauty"), LOSSES[name]
    hyper = {k: v for k, v in settings.items() if k in losses.hyperparameters(settings["loss"])}
    loss = losses.make(settings["loss"], n_users=data.n_users, n_items=data.n_items, **hyper)
    rows = torch.arange(16 * BATCH)
    negatives = torch.randint(data.n_items, (len(rows), 64))
    batch = losses.Batch(rows % data.n_users, rows % data.n_items, negatives)
    pos, neg = torch.rand(len(rows)), torch.rand(len(rows), 64).requires_grad_()
    before = from_now()
    loss(pos, neg, batch).mean().backward()
    grown = peak() - before
    return {"seconds": statistics.median(our_steps(data, settings, 50)), "peak_mib": grown}


LOSSES = {
    name: {"loss": name, "negatives": 64, "similarity": "cosine"}
    for name in losses.REGISTRY
    if name != "drrl"
}
for dual, order in (("learned", 2.0), ("shared", 2.0), ("fixed", 2.0), ("exact", 2.0)):
    LOSSES[f"drrl {dual}"] = {"loss": "drrl", "order": order, "radius": 1.0, "dual": dual}
LOSSES["drrl exact 1"] = LOSSES["drrl exact"] | {"order": 1.0}
LOSSES["drrl exact 5"] = LOSSES["drrl exact"] | {"order": 5.0}


# ---------------------------------------------------------------------------------------------
# What the machine allows


def _rate(amount: float, call: Callable, repeats: int = 5) -> float:
    """Of the best of some repeats, an amount a second."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return amount / min(times)


def copying(size: float) -> float:
    """Bytes a second, read and written, copying arrays of about so many bytes."""
    source = torch.rand(max(2**16, int(min(size, 2**28)) // 4))
    target = torch.empty_like(source)
    many = max(1, 2**26 // source.nbytes)
    return _rate(2 * source.nbytes * many, lambda: [target.copy_(source) for _ in range(many)])


def gathering(rows: int) -> float:
    """Bytes a second read, gathering rows of 64 numbers at random from a table."""
    table, index = torch.rand(rows, DIM), torch.randint(rows, (2**16,))
    out = torch.empty(len(index), DIM)
    return _rate(out.nbytes, lambda: torch.index_select(table, 0, index, out=out))


def multiplying() -> float:
    """Operations a second of a matrix product in float32."""
    a, b = torch.rand(2, 1536, 1536)
    return _rate(2 * 1536**3, lambda: a @ b)


class Limit(NamedTuple):
    """The least that must be done: bytes streamed, rows gathered, operations."""

    streamed: float = 0  # bytes
    held: float = 0  # bytes of the arrays they stream through
    gathered: float = 0  # rows of 64 float32
    rows: int = 1  # of the table they lie in
    operations: float = 0

    def seconds(self) -> tuple[float, str]:
        """On this machine, and what it is spent on."""
        bytes_ = self.streamed / copying(self.held) if self.streamed else 0.0
        bytes_ += self.gathered * 4 * DIM / gathering(self.rows) if self.gathered else 0.0
        operations = self.operations / multiplying()
        return max((bytes_, "bytes"), (operations, "operations"))


def epoch_limit(shape: tuple[int, int, int], settings: dict) -> Limit:
    """Of an epoch on so many users, items and pairs.

    Every number of the tables, its gradient and its two moments is read and written at each step of
    Adam, at each touch of row-sparse Adam. A score takes 2·d operations forward and 4·d back. Rows
    of negatives each example draws for itself are gathered forward and back; LightGCN gathers as
    many rows a layer as it has edges, forward and back.
    """
    users, items, pairs = shape
    steps, sampler = pairs / BATCH, settings.get("sampler", "per-row")
    scores = {"per-row": settings.get("negatives", 64), "catalogue": items}
    scores = scores.get(sampler, settings.get("negatives", 64)) + 1
    table = 4 * DIM * (users + items)
    gathered = 2 * pairs * (scores + 1) if sampler == "per-row" else 0
    operations = 6 * DIM * pairs * scores
    if settings.get("backbone") == "lightgcn":
        edges = steps * 2 * 2 * 2 * pairs  # both directions, forward and back, two layers
        gathered, operations = gathered + edges, operations + 2 * DIM * edges
    streamed = steps * 8 * table
    if settings.get("optimiser") == "row-sparse-adam":
        drawn = BATCH * scores if sampler == "per-row" else BATCH + scores
        touched = items * (1 - (1 - 1 / items) ** drawn) + BATCH
        streamed = steps * 8 * 4 * DIM * touched
    return Limit(streamed, 4 * table, gathered, items, operations)


# ---------------------------------------------------------------------------------------------
# The cases


class Case(NamedTuple):
    sides: dict[str, Callable]  # called with device and goal, in a process of its own
    target: str
    holds: Callable[[dict], bool]  # of the row below
    limit: Limit | None
    rounds: int = 2
    goal: str | None = None  # a measurement of the naive side that ours must reach
    derive: Callable[[dict], dict] = lambda found: {}


def epoch_case(
    name: str,
    shape: tuple,
    settings: dict,
    least: float,
    *,
    make=naive.mf,
    obvious=naive.DRRL,
    most=(10**9, 10**9),
    rounds=2,
    memory: float | None = None,
) -> Case:
    sides = {
        "naive": lambda *a: naive_epoch(name, make, obvious, most[0], *a),
        "ours": lambda *a: our_epoch(name, settings, most[1], *a),
    }
    target = f"{least:g} times faster" + (f", peak <= {memory:g} of naive" if memory else "")

    def holds(row):
        lean = not memory or row["ours_peak_mib"] <= memory * row["naive_peak_mib"]
        return row["ratio"] >= least and lean

    return Case(sides, target, holds, epoch_limit(shape, settings), rounds)


def accuracy_case(loss: str) -> Case:
    sides = {
        "naive": lambda *a: naive_to_accuracy(loss, *a),
        "ours": lambda *a: our_to_accuracy(loss, *a),
    }
    return Case(sides, "6 times sooner", lambda row: row["ratio"] >= 6, None, 1, "ndcg")


def _growth(found: dict) -> dict:
    full, part = found["full"], found["sixteenth"]
    return {
        "ns_per_pair": [full["ns_per_pair"], part["ns_per_pair"]],
        "bytes_per_row": [full["bytes_per_row"], part["bytes_per_row"]],
        "time_growth": full["ns_per_pair"] / part["ns_per_pair"],
        "memory_growth": full["bytes_per_row"] / part["bytes_per_row"],
    }


def large_case(settings: dict) -> Case:
    sides = {
        "sixteenth": lambda *a: large(1 / 16, 60, settings, *a),
        "full": lambda *a: large(1, 60, settings, *a),
    }
    target = "<= 12 GiB; ns a pair, bytes a row <= 1.3 times those of 1/16"

    def holds(row):
        growth = max(row["time_growth"], row["memory_growth"])
        return row["full_peak_mib"] <= 12 * 1024 and growth <= 1.3

    return Case(sides, target, holds, epoch_limit(LARGE, settings), derive=_growth)


BEAUTY, KITCHEN, GOWALLA = (7068, 3570, 51455), (51552, 23158, 265611), (29858, 40981, 716648)
GRAPH = {"loss": "sl", "temperature": 0.2, "backbone": "lightgcn"}
CASES = {
    "beauty-per-row": epoch_case("amazon-beauty", BEAUTY, LEARNED, 4),
    "kitchen-per-row": epoch_case("amazon-kitchen", KITCHEN, LEARNED, 8, most=(30, 60)),
    "gowalla-per-row": epoch_case(
        "gowalla", GOWALLA, LEARNED, 20, most=(30, 60), rounds=1, memory=0.25
    ),
    "beauty-shared-pool": epoch_case("amazon-beauty", BEAUTY, POOL, 4),
    "beauty-catalogue-exact": epoch_case("amazon-beauty", BEAUTY, EXACT, 1),
    "beauty-lightgcn": epoch_case(
        "amazon-beauty", BEAUTY, GRAPH, 2, make=naive.lightgcn, obvious=naive.SL
    ),
    "beauty-accuracy-drrl": accuracy_case("drrl"),
    "beauty-accuracy-sl": accuracy_case("sl"),
    "gowalla-ranking": Case(
        {"naive": lambda *a: ranking(True, *a), "ours": lambda *a: ranking(False, *a)},
        "<= 5 s, <= 1024 MiB above the model",
        lambda row: row["ours_seconds"] <= 5 and row["ours_peak_mib"] <= 1024,
        Limit(operations=2 * DIM * GOWALLA[0] * GOWALLA[1]),
    ),
    "million-per-row": large_case(LEARNED | ROW_SPARSE),
    "million-shared-pool": large_case(POOL | ROW_SPARSE),
    "losses": Case(
        {name: (lambda *a, name=name: loss_step(name, *a)) for name in LOSSES},
        "a table; exact β <= 1.25 of learned",
        lambda row: row["exact_over_learned"] <= 1.25,
        None,
        derive=lambda found: {
            "exact_over_learned": found["drrl exact"]["seconds"] / found["drrl learned"]["seconds"]
        },
    ),
}


def measured(case: str, side: str, device: str, goal: float | None) -> dict:
    """One measurement, in a process of its own."""
    command = [sys.executable, __file__, "--one", case, side, str(goal), "--device", device]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{case}, {side}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def run_case(name: str, device: str) -> dict:
    """A row of the table: the best of the rounds, the sides in turns."""
    case, began, goal = CASES[name], time.perf_counter(), None
    found = {side: [] for side in case.sides}
    for _ in range(case.rounds):
        for side in case.sides:
            found[side].append(measured(name, side, device, goal))
            if side == "naive" and case.goal:
                goal = found[side][-1][case.goal]
    best = {side: min(each, key=lambda one: one["seconds"]) for side, each in found.items()}
    row = {"case": name}
    for side, one in best.items():
        one["peak_mib"] = min(each["peak_mib"] for each in found[side])
        row |= {f"{side}_{key}": value for key, value in one.items()}
    if "naive" in best:
        row["ratio"] = best["naive"]["seconds"] / best["ours"]["seconds"]
    row |= case.derive(best) | {"target": case.target}
    row["holds"] = bool(case.holds(row))
    if case.limit and device == "cpu":
        row["limit_seconds"], row["limit_by"] = case.limit.seconds()
        mine = row.get("ours_seconds", row.get("full_seconds"))
        row["times_the_limit"] = mine / row["limit_seconds"]
    return row | {"took": time.perf_counter() - began}


def shown(rows: list[dict]) -> str:
    """The table as text; a case of many sides as a table of its own."""
    columns = (
        "case ours_seconds naive_seconds ratio ours_peak_mib naive_peak_mib limit_seconds "
        "limit_by times_the_limit holds target"
    )
    table = pd.DataFrame(rows).reindex(columns=columns.split())
    text = [table.round(3).to_string(index=False, na_rep="")]
    for row in rows:
        if row["case"].startswith("million"):
            text += [json.dumps(row)]
        if row["case"] == "losses":
            each = [
                {"loss": n, "ms": 1e3 * row[f"{n}_seconds"], "loss_mib": row[f"{n}_peak_mib"]}
                for n in LOSSES
            ]
            text += [pd.DataFrame(each).round(2).to_string(index=False)]
    return "\n\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", nargs="*", default=list(CASES), choices=CASES)
    parser.add_argument("--json", help="a file to write to, after each case")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--one", nargs=3, metavar=("CASE", "SIDE", "GOAL"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        case, side, goal = args.one
        goal = None if goal == "None" else float(goal)
        print(json.dumps(CASES[case].sides[side](args.device, goal)))
        return
    about = record.about(args.device) | {
        "gbytes_per_s": copying(2**28) / 1e9,
        "gflops": multiplying() / 1e9,
        "gpu": "measured" if args.device == "cuda" else "not run",
    }
    rows = []
    for name in args.case:
        rows.append(run_case(name, args.device) | {"commit": about["commit"]})
        print(json.dumps(rows[-1]), flush=True)
        others = record.get(args.json, "bench").get("table", [])
        others = [row for row in others if row["case"] not in args.case]
        record.put(args.json, "bench", {"about": about, "table": others + rows})
    print(json.dumps(about), shown(rows), sep="\n")
    print(f"On a GPU: {about['gpu']}.")


if __name__ == "__main__":
    main()
