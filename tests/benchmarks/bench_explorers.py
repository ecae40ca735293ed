"""From slider to picture: milliseconds of a move of each explorer, in this process.

    python tests/benchmarks/bench_explorers.py [--scores 10000] [--moves 200] [--json PATH]

A move sets a dial's value; the time ends when the new PNG stands in the image widget. The target is
a median of 30 ms and a 95th percentile of 60 ms at 10,000 scores on two cores. Figures that are
alive after the moves and were not before are counted: there should be none.
"""

import argparse
import gc
import math
import os
import statistics
import time

os.environ["JPY_SESSION_NAME"] = "benchmark"  # explorers are live where a front end is

import numpy as np
import pandas as pd
import record
import torch
from matplotlib.figure import Figure

from drrl_core.show import explorers


def sweep(explorer, dial: str, moves: int) -> list[float]:
    """Milliseconds of moves of one dial, back and forth over its range in 40 steps or so."""
    _, dials, image, line, _ = explorer.children
    control = next(one for one in dials.children if one.description == dial)
    options = getattr(control, "options", None)
    steps = [one[1] if isinstance(one, tuple) else one for one in options or ()]
    steps = steps or list(np.linspace(control.min, 0.9 * control.max, 41))
    there_and_back, times = steps + steps[-2:0:-1], []
    for move in range(moves):
        before, start = image.value, time.perf_counter()
        control.value = there_and_back[move % len(there_and_back)]
        if image.value is not before:  # else the dial stood there already
            times.append(1e3 * (time.perf_counter() - start))
        assert "B00020" not in line.value, line.value
    return times


def cases(n: int) -> dict:
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 0.3, n)
    clouds = {
        loss: {
            epoch: pd.DataFrame({"order": order, "radius": rng.gamma(9, epoch / 40, 200)})
            for epoch in (1, 3, 6, 12, 20)
        }
        for loss, order in {"sl": 1.0, "drrl": 2.0, "ccl": math.inf}.items()
    }
    view = pd.DataFrame({"score": scores, "false_negative": scores + rng.normal(0, 0.3, n) > 0.7})
    learnt = {
        epoch: (rng.normal(0, 0.03 * epoch, (40, n)), rng.normal(0.1, 0.1, 40))
        for epoch in (1, 3, 6, 10)
    }
    return {
        "worst case": (lambda: explorers.worst_case({"a": scores}), ("order γ", "radius ρ")),
        "simplex": (explorers.simplex, ("order γ", "radius ρ", "scores rise")),
        "false negatives": (
            lambda: explorers.false_negatives({"a": view}),
            ("noise", "order γ", "radius ρ"),
        ),
        "gamma sweep": (lambda: explorers.gamma_sweep({"a": scores}, hold="weight"), ("order γ",)),
        "margins": (
            lambda: explorers.margins(learnt, order=2, weight=2.0),
            ("user", "epoch", "solved on", "weight c"),
        ),
        "atlas": (lambda: explorers.atlas(scores, clouds), ("epoch",)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scores", type=int, default=10_000)
    parser.add_argument("--moves", type=int, default=200)
    parser.add_argument("--json")
    args = parser.parse_args()
    table = []
    for name, (make, dials) in cases(args.scores).items():
        explorer = make()
        gc.collect()
        before = sum(type(thing) is Figure for thing in gc.get_objects())
        for dial in dials:
            times = sweep(explorer, dial, args.moves)
            row = {"explorer": name, "dial": dial, "median_ms": statistics.median(times)}
            row["p95_ms"] = float(np.percentile(times, 95))
            gc.collect()
            alive = sum(type(thing) is Figure for thing in gc.get_objects())
            table.append(row | {"moves": len(times), "figures_left": alive - before})
    print(f"{args.scores} scores, {torch.get_num_threads()} threads; targets: median 30, p95 60 ms")
    print(pd.DataFrame(table).round(1).to_string(index=False))
    about = record.about() | {"scores": args.scores}
    record.put(args.json, "bench_explorers", {"about": about, "table": table})


if __name__ == "__main__":
    main()
