"""What tests of several rooms share: small data, small runs, searches and sweeps."""

import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import torch
from scipy.sparse import csr_array

from drrl_core.datasets import Interactions
from drrl_core.lab import sweep as sweeps
from drrl_core.lab import tune as tuning
from drrl_core.lab.run import Outcome, configure, execute
from drrl_core.lab.store import get_or_train
from drrl_core.pages.sweeps import notebook_job

# The fields of a finished run's record.
RECORD = [
    *["key", "dataset", "data_hash", "backbone", "loss", "parameters", "seed", "best_epoch"],
    *["valid", "test", "popularity", "seconds", "seconds_per_epoch", "device", "threads"],
    *["versions", "raised", "commit", "finished"],
]
FILES = ["history.csv", "record.json", "state.pt", "tables.npz", "test.csv", "valid.csv"]


SMALL = {"epochs": 2, "negatives": 5, "dim": 4, "lr": 0.05}


def small(*, truth: bool = True, seed: int = 0) -> Interactions:
    """20 users, 30 items, disjoint splits; user 0 has no train pair, user 1 nothing held out."""
    rng = np.random.default_rng(seed)
    part = rng.choice(4, p=[0.6, 0.2, 0.1, 0.1], size=(20, 30))
    part[0, part[0] == 1] = 0
    part[1, part[1] > 1] = 0
    liked = (part > 0) | (rng.random((20, 30)) < 0.1) if truth else None
    if truth:
        liked[1] = part[1] > 0
    splits = (csr_array((part == p).astype(float)) for p in (1, 2, 3))
    return Interactions("small", 20, 30, *splits, truth=liked)


def outcome_of(loss: str = "sl", data: Interactions | None = None, **settings) -> Outcome:
    run = configure("synthetic", loss, config=SMALL | settings)
    return execute(run, data=data or small(), device="cpu", progress=False)


def stored(loss: str = "sl", backbone: str = "mf", *, data=None, options=None, **settings):
    run = configure("synthetic", loss, backbone, SMALL | settings)
    options = {"data": data or small(), "device": "cpu", "progress": False} | (options or {})
    return get_or_train(run, **options)


def same_learnt(*outcomes: Outcome) -> bool:
    states = [{**o.model.state_dict(), **o.loss.state_dict()} for o in outcomes]
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


ROOT = Path(__file__).parents[1]


sweep = partial(sweeps.sweep, notebook=notebook_job)


TINY = {"epochs": 2, "evaluate_every": 1, "negatives": 8, "dim": 4}


def tune(variant="sl", trials=3, **more):
    more["config"] = TINY | more.get("config", {})
    return tuning.tune("synthetic", variant, trials=trials, **more)


def studies(store: Path, name: str = "studies.sqlite") -> list[optuna.Study]:
    url = f"sqlite:///{store / name}"
    names = optuna.study.get_all_study_names(url)
    return [optuna.load_study(study_name=name, storage=url) for name in names]


def trials_of(store: Path, name: str = "studies.sqlite") -> list[tuple]:
    (study,) = studies(store, name)
    return [(t.number, t.params, t.value, t.state.name) for t in study.trials]


RUNS = """
- dataset: synthetic
  loss: [sl, ccl]
  settings: {epochs: 1, negatives: 4, dim: 4, lr: [1e-2, 0.003], seed: [0, 1]}
- dataset: synthetic
  loss: sl
  settings:
    - {epochs: 1, negatives: 4, dim: 4, lr: 0.01, temperature: [0.1, 0.2]}
"""


def write(tmp_path, text: str) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return path


COUNTING = """
- {dataset: synthetic, loss: sl, settings: {seed: [0, 1], noise: [0, 0.2], <<: &tiny
    {epochs: 2, evaluate_every: 1, negatives: 8, dim: 4}}}
- {dataset: synthetic, loss: drrl, settings: {order: [1.2, 2, 4, .inf], radius: 0.5, <<: *tiny}}
"""


def harvested(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.glob("**/[!.]*.csv*")) if path.name != "runs.csv"]
    return {path.name: path.read_bytes() for path in files}


def when_under_way(store: Path, act) -> threading.Thread:
    """Do something as soon as a run has left a checkpoint, or another than it had."""

    def found():
        return {(path, path.stat().st_mtime_ns) for path in store.glob("*.checkpoint")}

    def wait(before):
        while not found() - before:
            time.sleep(0.005)
        act()

    thread = threading.Thread(target=wait, args=(found(),), daemon=True)
    thread.start()
    return thread
