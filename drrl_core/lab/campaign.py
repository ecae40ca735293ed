"""The campaign: long runs, cell by cell, in the order of a file; stopped and started at any time.

What is done is told by `runs.csv` alone, so that a campaign goes on wherever that file is: another
machine, or an empty run store. The file is YAML, a list of blocks; a list in one of the first four
means a cell for each of its values, and so does one inside `settings`:

    - dataset: amazon-beauty
      backbone: [lightgcn, xsimgcl]     # mf by default
      loss: [sl, ccl]                   # variants, as `drrl tune --loss` names them; or a
                                        # classical model, which has no backbone
      settings: {train.noise: [0.1, 0.2]}   # full names; none by default
      trials: 10
      seeds: 3
    - {dataset: amazon-beauty, loss: sl, again: true}

`again` tunes nothing: it trains the selected runs of `runs.csv`, where their rows are of before
popularity was recorded (see `results.added_columns`).
"""

import math
import os
import signal
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from drrl_core import classical, datasets
from drrl_core.lab import spaces
from drrl_core.lab.results import harvest, read_runs, run_of, selected_runs
from drrl_core.lab.run import Run, configure
from drrl_core.lab.store import RunError
from drrl_core.lab.sweep import read_blocks, train
from drrl_core.lab.tune import tune
from drrl_core.lab.workers import LOCAL, Compute, SearchError

BLOCK: dict[str, Any] = {"dataset": None, "backbone": "mf", "loss": None, "trials": 0, "seeds": 0}
BLOCK |= {"again": False, "settings": {}}


@dataclass(frozen=True)
class Cell:
    """One tuning of the campaign, or one loss's selected runs to be trained again."""

    dataset: str
    backbone: str
    loss: str
    trials: int = 0
    seeds: int = 0
    again: bool = False
    config: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        own = "".join(f", {name}={value}" for name, value in self.config.items())
        what = "again" if self.again else f"{self.trials} trials, {self.seeds} seeds"
        return f"{self.dataset}, {self.backbone}, {self.loss}{own} ({what})"


def read(path: str | Path) -> list[Cell]:
    """The cells of a campaign's file, in order.

    Raises:
        ValueError: the file cannot be read, or a block is not as the top of this module says.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "campaign.yaml")
    >>> _ = path.write_text("- {dataset: synthetic, loss: [sl, ccl], trials: 2, seeds: 2}")
    >>> [str(cell) for cell in read(path)]
    ['synthetic, mf, sl (2 trials, 2 seeds)', 'synthetic, mf, ccl (2 trials, 2 seeds)']
    """
    cells = [_cell(where, block) for where, block in read_blocks(path, [BLOCK])]
    if not cells:
        raise ValueError(f"{path}: expected a list of blocks, each with a dataset and a loss")
    return cells


def _cell(where: str, block: dict[str, Any]) -> Cell:
    cell = Cell(**{"config" if name == "settings" else name: v for name, v in block.items()})
    counts = [cell.trials, cell.seeds]
    if any("." not in str(name) for name in cell.config):
        raise ValueError(f"{where}: settings are full names and values, such as train.noise: 0.1")
    good = all(isinstance(n, int) and not isinstance(n, bool) and n > 1 for n in counts)
    if cell.again is not True and not good:
        raise ValueError(f"{where}: trials and seeds must be whole numbers from 2, not {counts}")
    if cell.again is True and (any(counts) or cell.config):
        raise ValueError(f"{where}: again trains what was tuned: no trials, seeds or settings")
    if cell.loss in classical.REGISTRY:
        trials, seeds = spaces.budget(cell.loss, cell.trials, cell.seeds)
        return replace(cell, backbone=cell.loss, trials=trials, seeds=seeds)
    if cell.loss not in spaces.variants(2):
        raise ValueError(f"{where}: there is no loss {cell.loss!r} to tune")
    return cell


def recorded(cell: Cell, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a cell: of its tuning with its budget, or the selected runs to be trained again.

    Args:
        rows: as `results.read_runs` returns them.
    """
    rows = rows[(rows["dataset"] == _name(cell.dataset)) & (rows["backbone"] == cell.backbone)]
    rows = rows[rows["variant"] == cell.loss]
    if cell.again:
        rows = rows[rows["noise"] == 0]
        return selected_runs(rows) if len(rows) else rows
    line = (spaces.variants(2) | spaces.classical_variants())[cell.loss]
    free = {name.removesuffix("-1") for name in line.space} | {"train.seed"}
    corner = spaces.config_of(line, {name: each.low for name, each in line.space.items()})
    wanted = configure(cell.dataset, line.loss, cell.backbone, {**corner, **cell.config})

    def own(run: Run) -> dict[str, object]:
        return {name: value for name, value in run.flat_config.items() if name not in free}

    same = [own(run_of(row)) == own(wanted) for _, row in rows.iterrows()]
    return rows[np.array(same, bool) & (rows["trials"] >= cell.trials).to_numpy(bool)]


def _name(dataset: str) -> str:
    """As results name it: a file by its `name`."""
    known = {*datasets.names(), *datasets.recipes().index}
    return dataset if dataset in known else datasets.load(dataset).name


def missing(cell: Cell, rows: pd.DataFrame) -> int:
    """How many trainings of a cell are not in the table yet, about; 0: it is done."""
    found = recorded(cell, rows)
    if cell.again:
        return int(found["b"].isna().sum())
    best = found.groupby(["sampler", "negatives", "config"])["seed"].nunique().max()
    if len(found) and best >= cell.seeds:  # further seeds are trained when all trials are done
        return 0
    return max(1, cell.trials + cell.seeds - 1 - len(found))


def _seconds(cell: Cell, rows: pd.DataFrame) -> float:
    """What one training of a cell takes, by what is recorded: the median of the nearest kind."""
    for names in (["dataset", "backbone", "variant"], ["dataset", "backbone"]):
        wanted = (_name(cell.dataset), cell.backbone, cell.loss)[: len(names)]
        same = (rows[names] == pd.Series(dict(zip(names, wanted, strict=True)))).all(axis=1)
        if same.any():
            return float(rows.loc[same, "seconds"].median())
    return math.nan


def status(path: str | Path, results: str | Path) -> pd.DataFrame:
    """A row a cell, in order: its name, `missing` trainings, and the hours they may take.

    The hours are those of as many whole trainings, by the median of what is recorded of the same
    data set and backbone; NaN where nothing is. Trials that are pruned take less.
    """
    rows = read_runs(Path(results) / "runs.csv")
    columns: dict[str, list[Any]] = {"cell": [], "missing": [], "hours": []}
    for cell in read(path):
        left = missing(cell, rows)
        columns["cell"].append(str(cell))
        columns["missing"].append(left)
        columns["hours"].append(left * _seconds(cell, rows) / 3600 if left else 0.0)
    return pd.DataFrame(columns)


def _again(cell: Cell, csv: Path, compute: Compute) -> None:
    """Train a loss's selected runs once more, as their rows say."""
    found = recorded(cell, read_runs(csv))
    wanted = {}
    for _, row in found[found["b"].isna()].iterrows():
        wanted[row["key"]] = replace(run_of(row), dataset=cell.dataset)
    train(wanted, name=str(cell), csv=csv, compute=compute)


def run(
    path: str | Path,
    results: str | Path,
    *,
    cells: int | None = None,
    compute: Compute = LOCAL,
) -> list[str]:
    """Run the cells that are missing, in order, at the lowest priority.

    Rows are merged into `runs.csv` as they come; after each cell, what `results.harvest` adds to it
    is written. Ctrl-C or SIGTERM stops it; the same call goes on from there.

    Args:
        path: the campaign's file.
        results: the folder with `runs.csv`, see `results.harvest`.
        cells: at most so many; None: all.
        compute: what computes; by default one process here, with one thread.

    Returns:
        A line for each cell that failed; all others were run.
    """
    csv = Path(results) / "runs.csv"
    failed, done = [], 0
    if hasattr(os, "nice"):
        os.nice(19)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for cell in read(path):
        if done == cells or not missing(cell, read_runs(csv)):
            continue
        done += 1
        print(f"campaign: {cell}", file=sys.stderr, flush=True)
        try:
            if cell.again:
                _again(cell, csv, compute)
            else:
                tune(
                    cell.dataset,
                    cell.loss,
                    backbone=cell.backbone,
                    trials=cell.trials,
                    seeds=cell.seeds,
                    config=cell.config,
                    csv=csv,
                    compute=compute,
                )
        except (ValueError, SearchError, RunError, datasets.DataError) as error:
            failed.append(f"{cell}: {error}")
            print(f"campaign: failed: {failed[-1]}", file=sys.stderr, flush=True)
        harvest(results, store=compute.store, data_dir=compute.data_dir)
    return failed
