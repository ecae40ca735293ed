"""Workers: jobs computed once, whoever dies."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch
from samples import TINY, sweep, when_under_way, write

from drrl_core import datasets
from drrl_core.lab import store as store_module
from drrl_core.lab.run import configure, execute
from drrl_core.lab.workers import Compute, Job, SearchError, Task, run_jobs


def test_place_keeps_to_the_cores_there_are():
    cores = len(os.sched_getaffinity(0))
    assert Compute(threads=10**6).share() == cores
    assert Compute(workers=10**6, threads=8).share() == 1
    assert Compute(scheduler="tcp://far", threads=10**6).share() == 10**6
    with pytest.raises(ValueError, match="workers must be at least 0"):
        Compute(workers=-1)


def test_without_workers_this_process_does_it():
    def here(fail: bool) -> int:
        return 1 // (not fail) + os.getpid()

    jobs = [Job(fail, here, {"fail": fail}) for fail in (True, False)]
    found = dict(run_jobs(iter(jobs), Compute(workers=0)))
    assert found[False] == 1 + os.getpid() and isinstance(found[True], ZeroDivisionError)


def die(times: int, log: str) -> int:
    """Kill this process the first few times; say how often it was tried."""
    with open(log, "a") as file:
        file.write("x")
    if Path(log).stat().st_size <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return Path(log).stat().st_size


@pytest.mark.slow
def test_a_job_that_kills_its_workers_is_given_up_and_nobody_else_is(tmp_path):
    logs = {name: str(tmp_path / name) for name in ("bad", "once", "good")}
    times = {"bad": 99, "once": 1, "good": 0}
    jobs = [Job(name, die, {"times": times[name], "log": log}) for name, log in logs.items()]
    found = dict(run_jobs(iter(jobs), Compute(workers=2)))
    assert (found["once"], found["good"]) == (2, 1)
    assert isinstance(found["bad"], SearchError) and "3 workers" in str(found["bad"])
    assert Path(logs["bad"]).stat().st_size == 3


LONG = """
dataset: synthetic
loss: sl
settings: {epochs: 20, evaluate_every: 5, negatives: 16, dim: 16, seed: [0, 1, 2]}
"""


def check_long_sweep(found: pd.DataFrame, monkeypatch) -> None:
    """Every run once, and one of them to the last bit as if nothing had happened."""
    assert list(found["seed"]) == [0, 1, 2] and found["key"].nunique() == 3
    assert list(store_module.table()["key"].sort_values()) == sorted(found["key"])
    settings = json.loads(found["settings"][0]) | {"negatives": 16}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        wanted = execute(configure("synthetic", config=settings), progress=False)
    finally:
        torch.set_num_threads(threads)
    assert wanted.record["test"]["ndcg@20"] == found["test_ndcg@20"][0]


@pytest.mark.slow
def test_a_killed_worker_costs_the_sweep_nothing(store, tmp_path, monkeypatch):
    kept, keep = [], store_module.save
    monkeypatch.setattr(store_module, "save", lambda files, **o: kept.append(1) or keep(files, **o))
    killed = []

    def kill():
        victim = next(p for p in multiprocessing.active_children() if p.is_alive())
        killed.append(victim.pid)
        victim.kill()

    thread = when_under_way(store, kill)
    place = Compute(workers=2)
    found = sweep(write(tmp_path, LONG), compute=place)
    thread.join()
    assert len(killed) == 1 and len(kept) == 3
    check_long_sweep(found, monkeypatch)
    assert not list(store.glob("*.checkpoint"))


@pytest.mark.slow
def test_a_killed_worker_costs_a_cluster_nothing(store, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    elsewhere, kept, keep = tmp_path / "elsewhere", [], store_module.save
    monkeypatch.setattr(store_module, "save", lambda files, **o: kept.append(1) or keep(files, **o))
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    options |= {"env": {"DRRL_RUNS": str(elsewhere)}, "local_directory": str(tmp_path / "dask")}
    with distributed.LocalCluster(**options) as cluster:
        pids = {nanny.pid for nanny in cluster.workers.values()}
        victim = min(pids)
        thread = when_under_way(elsewhere, lambda: os.kill(victim, signal.SIGKILL))
        place = Compute(scheduler=cluster.scheduler_address)
        found = sweep(write(tmp_path, LONG), compute=place)
        thread.join()
        assert {nanny.pid for nanny in cluster.workers.values()} != pids  # it really was
    assert len(kept) == 3
    check_long_sweep(found, monkeypatch)
    assert not list(elsewhere.glob("?" * 16))  # only the client keeps


def test_a_worker_of_a_cluster_with_other_data_is_refused(store, at_once):
    run = configure("synthetic", config=TINY)
    job = Compute().job(Task("a run"), run, "another hash")
    ((_, error),) = run_jobs(iter([job]), Compute())
    assert isinstance(error, datasets.DataError) and "synthetic is other data" in str(error)
