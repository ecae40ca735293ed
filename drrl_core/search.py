"""Tuning and sweeps: many runs, over local processes or a Dask cluster, into one store.

A worker trains and returns the files of the finished run; the client alone keeps them, so that no
worker need see the client's disk. What a worker does write is the checkpoint of the run in hand, in
the store's folder as the worker sees it: at home that is the store itself, and on a cluster the
worker's own `$DRRL_RUNS`, which may well be a shared disk. Whatever is killed, client or worker,
continues from there.

`results` gives one tidy row a run, and `drrl tune --csv` and `drrl sweep --csv` merge it into a
file by key:

    key, dataset, data_hash         the run's key in the store; the data by name and content
    backbone, variant, loss         the variant as in `variants`, and the loss it is a variant of
    settings                        JSON: what differs from the defaults, as `drrl train --set` says
    seed, sampler, negatives        not repeated in settings
    trials                          the budget of the tuning that the run belongs to; empty: none
    valid_recall@20, valid_ndcg@20, test_recall@20, test_ndcg@20    at the best epoch by valid NDCG
    best_epoch, seconds, device, torch, commit, finished            finished in UTC
"""

import hashlib
import itertools
import json
import math
import multiprocessing
import os
import re
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from drrl_core import datasets, dro, losses, notebooks, runs

COLUMNS = (
    *("key", "dataset", "data_hash", "backbone", "variant", "loss", "settings", "seed"),
    *("sampler", "negatives", "trials", "valid_recall@20", "valid_ndcg@20", "test_recall@20"),
    *("test_ndcg@20", "best_epoch", "seconds", "device", "torch", "commit", "finished"),
)
STARTUP, WARMUP = 5, 25  # finished trials, and epochs, before any trial is pruned
DEATHS = 3  # of workers, after which what they were at is given up


class SearchError(Exception):
    """Some of what was asked for could not be run; all the rest was, and is kept."""


# ---------------------------------------------------------------------------------------------
# Results


def variant_of(loss: str, hyper: dict) -> str:
    """The name in `variants` of a loss with these hyper-parameters.

    >>> variant_of("drrl", {"dual": "exact", "radius": 1.0}), variant_of("sl", {})
    ('drrl-exact', 'sl')
    """
    if loss != "drrl" or hyper.get("dual", "learned") == "learned":
        return loss
    return "drrl-penalty" if hyper.get("temperature") else f"drrl-{hyper['dual']}"


def results(
    keys: list[str] | None = None, *, trials: int | None = None, store: str | Path | None = None
) -> pd.DataFrame:
    """Kept runs as tidy rows, see the top of the module for the columns.

    Args:
        keys: which, in this order; all of the store by default.
        trials: the budget they were tuned with, if they were.
        store: see `runs.store_folder`.

    >>> list(results([])) == list(COLUMNS)
    True
    """
    rows = []
    for name in runs.table(store)["key"] if keys is None else keys:
        about = runs.record(name, store=store)
        own = about["parameters"]
        plain = runs.configure(about["dataset"], about["loss"], about["backbone"])
        settings = {
            f"{group}.{name}": value
            for group, part in own.items()
            for name, value in part.items()
            if value != plain.parameters[group][name]
            and name not in ("seed", "sampler", "negatives")
        }
        row = {name: about[name] for name in COLUMNS if name in about}
        row |= {name: own["train"][name] for name in ("seed", "sampler", "negatives")}
        row |= {"variant": variant_of(about["loss"], own["loss"]), "trials": trials}
        row |= {f"{s}_{name}": v for s in runs.SPLITS for name, v in about[s].items()}
        row |= {"settings": json.dumps(settings), "torch": about["versions"]["torch"]}
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS).astype({"trials": "Int64"})


def merge(found: pd.DataFrame, path: str | Path) -> None:
    """Add rows to a CSV file, by key; a run that was tuned for before keeps its `trials`."""
    path = Path(path)
    if path.exists():
        before = pd.read_csv(path, dtype={"trials": "Int64"}, float_precision="round_trip")
        known = before.set_index("key")["trials"]
        found = found.assign(trials=found["trials"].fillna(found["key"].map(known)))
        before = before[~before["key"].isin(found["key"])]
        found = pd.concat([before, found]) if len(before) else found
    order = ["dataset", "backbone", "variant", "sampler", "negatives", "finished", "key"]
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    found.sort_values(order).to_csv(draft, index=False)
    os.replace(draft, path)
