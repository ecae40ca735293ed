"""Time of `worst_case` against `torch.sort` of the same scores, alternating in one run.

    python tests/benchmarks/bench_dro.py [--rows 1024] [--columns 4096] [--threads 2] [--json PATH]

Prints the median over the repeats, and how many sorts that is. The target for 1,024 x 4,096 scores
in float32 is three sorts up to order 10 and six above; for 1,024 x 64, three throughout. Then what
an exact β costs in training: the time of a step of MF, 64 negatives a row, the optimiser included,
over that with a learned β of the same order, alternating too. The target is 1.25.
"""

import argparse
import math
import statistics
import time

import numpy as np
import record
import torch
from scipy.sparse import csr_array

from drrl_core import backbones, losses
from drrl_core.datasets import Interactions
from drrl_core.dro import worst_case
from drrl_core.train import TrainConfig, fit

ORDERS = (1.0, 1.5, 2.0, 2.5, 3.0, 5.0, 10.0, 20.0, 33.0, 150.0, math.inf)
RADII = (0.5,)


def seconds(call) -> float:
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def step_seconds(data: Interactions, **settings) -> float:
    """Median seconds of a training step over an epoch."""
    torch.manual_seed(0)
    model = backbones.make("mf", n_users=data.n_users, n_items=data.n_items)
    loss = losses.make("drrl", n_users=data.n_users, radius=1.0, **settings)
    stamps = []
    note = lambda *_: stamps.append(time.perf_counter())  # noqa: E731
    fit(model, loss, data, TrainConfig(epochs=1), on_step=note, progress=False)
    return statistics.median(np.diff(stamps))


def training(orders: tuple[float, ...], repeats: int) -> list[dict]:
    """Milliseconds of a step with a learned and with an exact β, a line an order."""
    users, items, pairs = 7068, 3570, 51455  # as many as Amazon Beauty has
    rng = np.random.default_rng(0)
    place = rng.integers(users, size=pairs), rng.integers(items, size=pairs)
    train = csr_array((np.ones(pairs), place), shape=(users, items))
    none = csr_array(train.shape)
    data, table = Interactions("random", users, items, train, none, none), []
    for order in orders:
        learned, exact = [], []
        for _ in range(repeats):
            learned.append(step_seconds(data, order=max(order, 1.001), dual="learned"))
            exact.append(step_seconds(data, order=order, dual="exact"))
        line = {"learned_ms": 1e3 * min(learned), "exact_ms": 1e3 * min(exact)}
        table.append({"order": order, **line, "ratio": min(exact) / min(learned)})
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--columns", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of torch; its default if not given")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", help="also write the table to this file")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(args.rows, args.columns, generator=generator).mul(0.3).to(args.device)

    sizes = [{"radius": r} for r in RADII] + [{"temperature": 0.2}]
    cases = [(order, size) for order in ORDERS for size in sizes]
    cases = [(order, size) for order, size in cases if order < math.inf or "radius" in size]
    table = []
    for order, size in cases:
        worst_case(scores, order=order, **size)
        pairs = [
            (
                seconds(lambda: torch.sort(scores, dim=-1)),
                seconds(lambda o=order, s=size: worst_case(scores, order=o, **s)),
            )
            for _ in range(args.repeats)
        ]
        sort, solve = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
        target = 3 if order <= 10 or args.columns <= 64 else 6
        table.append(
            {"order": order, **size, "sort_ms": sort, "worst_case_ms": solve}
            | {"sorts": solve / sort, "target": target}
        )
    print(
        f"{args.rows} x {args.columns} float32, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}, {args.device}"
    )
    print(f"{'order':>9}  {'dial':<17} {'sort ms':>9} {'worst_case ms':>14} {'sorts':>6}  target")
    for line in table:
        name = "radius" if "radius" in line else "temperature"
        print(
            f"{line['order']:>9g}  {name + ' ' + format(line[name], 'g'):<17} "
            f"{line['sort_ms']:>9.2f} {line['worst_case_ms']:>14.2f} {line['sorts']:>6.2f}  "
            f"{'<=' if line['sorts'] <= line['target'] else 'ABOVE'} {line['target']}"
        )
    steps = training((1.0, 1.5, 2.0, 2.5, 5.0, 20.0, 150.0, math.inf), args.repeats)
    print("A training step of 1,024 x 64 negatives, MF of 7,068 x 3,570, d = 64")
    for line in steps:
        print(
            f"{line['order']:>9g}  learned {line['learned_ms']:.2f} ms, exact "
            f"{line['exact_ms']:.2f} ms, ratio {line['ratio']:.2f}  "
            f"{'<=' if line['ratio'] <= 1.25 else 'ABOVE'} 1.25"
        )
    about = record.about(args.device) | {"rows": args.rows, "columns": args.columns}
    tables = {"table": list(map(_finite, table)), "steps": list(map(_finite, steps))}
    record.put(args.json, "bench_dro", {"about": about} | tables)


def _finite(line: dict) -> dict:
    return line | {"order": "inf"} if line["order"] == math.inf else line


if __name__ == "__main__":
    main()
