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

`harvest` adds, beside that file, what the scorecard wants to know of the runs that count.
"""

import difflib
import gzip
import hashlib
import io
import itertools
import json
import math
import multiprocessing
import os
import platform
import re
import shutil
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd
import torch
from tqdm import tqdm

from drrl_core import datasets, dro
from drrl_core.lab import runs, spaces, starts, trials
from drrl_core.lab.spaces import Search, changes, run_of, variant_of
from drrl_core.lab.trials import need
from drrl_core.pages import runner as notebooks
from drrl_core.paper import evidence

WEIGHED = ("k1", "k2", "truncated", "effective_share", "users")
MADE = ".made-by-drrl"  # the file that marks a folder that may be made anew
DEATHS = 3  # of workers, after which what they were at is given up


class SearchError(Exception):
    """Some of what was asked for could not be run; all the rest was, and is kept."""


# ---------------------------------------------------------------------------------------------
# Results


def results(
    keys: list[str] | None = None, *, trials: int | None = None, store: str | Path | None = None
) -> pd.DataFrame:
    """Kept runs as tidy rows, see the top of the module for the columns.

    Args:
        keys: which, in this order; all of the store by default.
        trials: the budget they were tuned with, if they were.
        store: see `runs.store_folder`.

    >>> list(results([])) == list(evidence.RUNS)
    True
    """
    rows = []
    for name in runs.table(store)["key"] if keys is None else keys:
        about = runs.record(name, store=store)
        own = about["parameters"]
        plain = runs.configure(about["dataset"], about["loss"], about["backbone"])
        settings = changes(plain.parameters, own)
        for name in ("seed", "sampler", "negatives"):
            settings.pop(f"train.{name}", None)
        row = {name: about[name] for name in evidence.RUNS if name in about}
        row |= {name: own["train"][name] for name in ("seed", "sampler", "negatives")}
        row |= {"variant": variant_of(about["loss"], own["loss"]), "trials": trials}
        row |= {f"{s}_{name}": v for s in runs.SPLITS for name, v in about[s].items()}
        row |= {"settings": json.dumps(settings), "torch": about["versions"]["torch"]}
        row |= runs.added_columns(about)
        rows.append(row)
    return pd.DataFrame(rows, columns=evidence.RUNS).astype({"trials": "Int64"})


def merge(found: pd.DataFrame, path: str | Path) -> None:
    """Add rows to a CSV file, by key; a run that was tuned for before keeps its `trials`.

    Several may merge into one file at once: they wait for each other, at a file beside it.
    """
    path, text = Path(path), io.StringIO(found.to_csv(index=False))
    found = pd.read_csv(text, dtype=str, keep_default_na=False)
    with trials.locked(path):
        if path.exists():
            before = evidence.read_as_text(path)
            known = found["key"].map(before.set_index("key")["trials"]).fillna("")
            found["trials"] = found["trials"].where(found["trials"] != "", known)
            found = pd.concat([before[~before["key"].isin(found["key"])], found])
        order = ["dataset", "backbone", "variant", "sampler", "negatives", "finished", "key"]
        runs.put(path, found.sort_values(order).to_csv(index=False).encode())


def _skew(outcome: runs.Outcome, users: int | None) -> dict[str, float]:
    """Table 1's numbers and their like: a false negative is a test item."""
    rows = runs.by_user(outcome, users=users)
    found = rows.assign(k2=rows["k2_test"], users=len(rows)).mean()
    return found[[*WEIGHED]].to_dict()


def _has_columns(path: Path, *, with_b: bool) -> bool:
    """Whether a file of users is there, and has their accuracy with popularity put back."""
    if not path.exists():
        return False
    with gzip.open(path, "rt") as file:
        return not with_b or "ndcg@20_b" in file.readline().strip().split(",")


def harvest(
    folder: str | Path = "data/results",
    *,
    users: int | None = None,
    data: Mapping[str, datasets.Interactions] = MappingProxyType({}),
    store: str | Path | None = None,
    data_dir: str | Path | None = None,
) -> dict[str, str]:
    """Put beside `runs.csv` what the scorecard asks of the runs that count, as the store has them.

    For the selected runs (`evidence.selected_runs`) that is each user's accuracy on test, for tests
    of significance; for those without noise, and for order sweeps (`evidence.order_sweeps`), where
    the weight goes: k1, k2 and the like, each user's negatives being all items without a train
    pair. What the folder has already stays as it is, also of runs that no longer
    count: nothing reads it, but the store may not be able to give it again.

    Args:
        folder: with `runs.csv`; `skew.csv` and `per_user` are written there, as `evidence` has
            them, the same bytes for the same runs.
        users: weights are averaged over so many users; None: over all with a train pair.
        data: by name, what cannot be loaded by it: a file has another path than name.
        store: see `runs.store_folder`.
        data_dir: see `datasets.data_folder`.

    Returns:
        Key -> why, of the runs whose numbers are still missing.

    Raises:
        ValueError: there is no `runs.csv`, or it is refused by `evidence.read_runs`.
    """
    folder = Path(folder)
    if not (folder / "runs.csv").exists():
        raise ValueError(f"{folder} has no runs.csv: drrl tune and drrl sweep write it with --csv")
    rows, path = evidence.read_runs(folder / "runs.csv"), folder / "skew.csv"
    finals = evidence.selected_runs(rows)
    plain = finals[finals["noise"] == 0].assign(order=math.nan, held="")
    weighed = pd.concat([plain, *evidence.order_sweeps(rows)])
    values, before = {}, pd.DataFrame(columns=[*evidence.SKEW, "users", "order", "held", "key"])
    if path.exists():
        before = pd.read_csv(path, dtype={"key": str}).fillna({"held": ""})
        values = before.drop_duplicates("key").set_index("key")[[*WEIGHED]].to_dict("index")
    homes = {key: folder / "per_user" / f"{key}.csv.gz" for key in finals["key"]}

    @cache
    def load(name: str) -> datasets.Interactions:
        return data[name] if name in data else datasets.load(name, data_dir=data_dir)

    wanted = pd.concat([finals, weighed]).drop_duplicates("key").set_index("key")["dataset"]
    missing, told_b = {}, {*finals.loc[finals["b"].notna(), "key"]}
    for key, dataset in tqdm(wanted.items(), "harvest", len(wanted), unit="run", disable=None):
        to_write = key in homes and not _has_columns(homes[key], with_b=key in told_b)
        to_weigh = key in {*weighed["key"]} - values.keys()
        if not (to_write or to_weigh):
            continue
        try:
            runs.record(key, store=store)  # before its data are looked for
            outcome = runs.load(key, store=store, data=load(dataset), device="cpu")
        except (runs.RunError, datasets.DataError) as error:
            missing[key] = str(error)
            continue
        if to_write:
            text = runs.accuracy_by_user(outcome).to_csv(float_format="%.5g")
            runs.put(homes[key], gzip.compress(text.encode(), mtime=0))
        if to_weigh:
            values[key] = _skew(outcome, users)
    found = pd.DataFrame.from_dict(values, "index", columns=WEIGHED).rename_axis("key")
    found.index = found.index.astype(str)  # of no values, integers
    ids = ["dataset", "backbone", "variant", "held", "order", "seed"]
    table = weighed[[*ids, "key"]].merge(found.reset_index(), on="key").sort_values([*ids, "key"])
    table = pd.concat([table, before[~before["key"].isin(table["key"])]]) if len(before) else table
    table = table.sort_values([*ids, "key"])[[*evidence.SKEW, "users", "order", "held", "key"]]
    text = table.astype({"users": int}).to_csv(index=False, float_format="%.6g")
    runs.put(path, text.encode())
    return missing


# ---------------------------------------------------------------------------------------------
# The work, and who does it


@dataclass(frozen=True)
class Place:
    """Where runs are computed, and where they are kept.

    Attributes:
        store: see `runs.store_folder`.
        data_dir: see `datasets.data_folder`; on a cluster, of the workers.
        device: "auto", "cpu", "cuda", ...
        workers: how many at a time; by default one, or as many as the cluster has. 0: at home,
            this process itself, which saves a process's start and lacks its shelter.
        threads: of each; at home no more than keeps all workers to the cores there are.
        scheduler: a Dask scheduler's address. Whoever reaches it can run any code on its workers:
            keep it to a trusted network, or use TLS (`tls://` and Dask's own configuration).
    """

    store: str | Path | None = None
    data_dir: str | Path | None = None
    device: str = "auto"
    workers: int | None = None
    threads: int = 1
    scheduler: str | None = None

    def __post_init__(self):
        for name, least in (("workers", 0), ("threads", 1)):
            if (value := getattr(self, name)) is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")

    def share(self) -> int:
        """Threads a worker."""
        able = hasattr(os, "sched_getaffinity")
        cores = len(os.sched_getaffinity(0)) if able else os.cpu_count()
        most = cores // (self.workers or 1)
        return self.threads if self.scheduler else max(1, min(self.threads, most))

    def job(self, task: "Task", run: runs.Run, data_hash: str, rivals: list | None = None) -> "Job":
        """The training of a run, see `_train`."""
        options = {
            "run": run,
            "data_hash": data_hash,
            "data_dir": self.data_dir and str(self.data_dir),
            "store": None if self.scheduler else str(runs.store_folder(self.store)),
            "device": self.device,
            "threads": self.share(),
            "rivals": rivals,
        }
        return Job(task, _train, options)


class Task(NamedTuple):
    """What a job is to a sweep or a study: a name to show, a run's key, a study's trial."""

    name: str
    key: str | None = None
    trial: object = None


class Job(NamedTuple):
    """Something to compute: `function(**arguments)`, and what it is to whoever asked for it."""

    what: object
    function: Callable
    arguments: dict


_alone = threading.Lock()  # torch's random state is the process's: one run at a time


@lru_cache(2)
def _load(name: str, data_dir: str | None, data_hash: str) -> datasets.Interactions:
    """The client's data, as this worker finds them."""
    data = datasets.load(name, data_dir=data_dir)
    if data.hash != data_hash:
        raise datasets.DataError(f"{name} is other data here than where the work was asked for")
    return data


def _train(
    run: runs.Run,
    *,
    data_hash: str,
    data_dir: str | None,
    store: str | None,
    device: str,
    threads: int,
    rivals: list[trials.Curve] | None = None,
) -> dict:
    """A worker's part of a run: train it, and return what there is to keep.

    Args:
        run: what to run.
        data_hash: of the data it is to be trained on.
        store: the folder of its checkpoint; None: this machine's own, see `runs.store_folder`.
        data_dir, device: as in `runs.execute`.
        threads: how many torch may use.
        rivals: stop where `trials.judge` by these says so; what a run that continues from a
            checkpoint reached before is judged too. None: never.

    Returns:
        values, a list of (epoch, valid NDCG@20); value, that of the best epoch, None where it was
        stopped; files, as `runs.content`, where it was not; seconds.

    Raises:
        KeyboardInterrupt: of which `fit` makes the best so far; here the run is to be continued.
    """
    with _alone:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        data, low = _load(run.dataset, data_dir, data_hash), False
        checkpoint = runs.checkpoint_of(runs.key(run, data.hash), store)
        judge, reached = None, []
        if rivals is not None:
            judge, reached = trials.judge(rivals, run.train.epochs), _reached(checkpoint)
            if over := trials.stopped(reached, judge):  # it was killed before it could say so
                return {"values": over, "value": None, "seconds": None}

        def below(row: dict) -> bool:
            nonlocal low
            low = bool(judge) and "ndcg@20" in row and judge(row["epoch"], row["ndcg@20"])
            return low

        options = {"device": device, "data": data, "on_epoch": below, "progress": False}
        try:
            outcome = runs.execute(run, checkpoint=checkpoint, resume=True, **options)
        finally:
            torch.set_num_threads(before)
    if low:
        return _told(outcome) | {"value": None}
    if not outcome.record["finished"]:
        raise KeyboardInterrupt
    return _told(outcome) | {"files": runs.content(outcome)}


def _reached(checkpoint: Path) -> trials.Curve:
    """What a run had reached by its checkpoint: valid NDCG@20 by epoch."""
    try:
        found = torch.load(checkpoint, weights_only=True, map_location="cpu", mmap=True)
        rows = found["state"]["history"]
        return [(row["epoch"], row["ndcg@20"]) for row in rows if "ndcg@20" in row]
    except Exception:  # there is none; or it is damaged, which `fit` has words for
        return []


def _told(outcome: runs.Outcome) -> dict:
    """What a study is told of a run: valid NDCG@20 by epoch, and where it counts."""
    rows = outcome.fit.history[["epoch", "ndcg@20"]].dropna()
    values = [(int(epoch), float(value)) for epoch, value in rows.itertuples(index=False)]
    about = outcome.record
    return {"values": values, "value": about["valid"]["ndcg@20"], "seconds": about["seconds"]}


def _notebook(name: str, out: str, parameters: dict, threads: int) -> dict:
    os.environ["OMP_NUM_THREADS"] = str(threads)  # the kernel inherits it
    return notebooks.run(name, out_dir=out, parameters=parameters, progress=False)


def _settle() -> None:
    """A local worker leaves Ctrl-C to the client, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _process() -> ProcessPoolExecutor:
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=spawn, initializer=_settle)


class _Here(Executor):
    """This process: a job is done when it has been submitted."""

    def submit(self, function: Callable, /, **arguments) -> Future:
        future = Future()
        try:
            future.set_result(function(**arguments))
        except Exception as error:
            future.set_exception(error)
        return future


def carry_out(jobs: Iterator[Job], place: Place) -> Iterator[tuple[object, object]]:
    """Compute jobs, as many at a time as there are workers; each is asked for when one is free.

    At home every worker is a pool of one process, so that when one dies it is known what it was
    at: that is computed again, and given up when it has cost three workers. Dask does the same on
    a cluster, by its own setting `allowed-failures`. When the caller stops early, or Ctrl-C does,
    workers are stopped at once.

    Args:
        jobs: what to compute; may be a generator that looks at what came before.
        place: how many workers, and whose.

    Yields:
        what of the job, and its result, or the exception that it ended with.

    >>> list(carry_out(iter([Job("a", dict, {"b": 1})]), Place()))
    [('a', {'b': 1})]
    """
    client = None
    if place.scheduler:
        client = need("distributed", "cluster").Client(place.scheduler)
        executor = client.get_executor(pure=False)
        free: list[Executor] = [executor] * (place.workers or max(1, len(client.nthreads())))
    elif place.workers == 0:
        free = [_Here()]
    else:
        free = [_process() for _ in range(place.workers or 1)]
    running, again = {}, deque()
    try:
        while True:
            while free and (again or (job := next(jobs, None))):
                job, deaths = again.popleft() if again else (job, 0)
                executor = free.pop()
                try:
                    future = executor.submit(job.function, **job.arguments)
                except BrokenProcessPool:  # it died while it had nothing to do
                    executor = _process()
                    future = executor.submit(job.function, **job.arguments)
                running[future] = job, executor, deaths
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job, executor, deaths = running.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    executor.shutdown(wait=False)
                    executor = _process()
                    if deaths + 1 < DEATHS:
                        again.append((job, deaths + 1))
                        free.append(executor)
                        continue
                    why = "out of memory, or a script without `if __name__ == '__main__':`"
                    result = SearchError(f"{DEATHS} workers died of it: {why}, perhaps")
                except Exception as error:
                    result = error
                free.append(executor)
                yield job.what, result
    finally:
        for future in running:
            future.cancel()
        if client:
            client.close()
        else:
            for executor in {*free, *(executor for _, executor, _ in running.values())}:
                if running and (processes := getattr(executor, "_processes", None)):
                    for process in processes.values():
                        process.kill()
                executor.shutdown(cancel_futures=True)


def _collect(
    jobs: Iterator[Job], place: Place, bar: tqdm, tell: Callable = lambda *_: None
) -> list:
    """Carry out jobs of Tasks, keep the runs that finish; returns a line for each that failed.

    `tell(what, result)` hears of each, when what it left is kept.
    """
    failed = []
    with closing(carry_out(jobs, place)) as done:
        try:
            for what, result in done:
                try:
                    if isinstance(result, Exception):
                        raise result
                    if files := result.get("files"):
                        runs.keep(files, store=place.store)
                except Exception as error:
                    line = f"{what.name}: {type(error).__name__}: {error}"
                    bar.write(f"failed: {line}", file=sys.stderr)
                    if not (what.trial and isinstance(error, runs.DivergedError)):
                        failed.append(line)
                    result = error
                tell(what, result)
                bar.update()
        except KeyboardInterrupt:
            bar.write("stopped; the same command continues", file=sys.stderr)
            raise
    return failed


def _complain(failed: list[str], total: int) -> None:
    if failed:
        listed = "\n  ".join(failed)
        raise SearchError(f"{len(failed)} of {total} failed, all others are kept:\n  {listed}")


# ---------------------------------------------------------------------------------------------
# Tuning


def _count(study, *states: str) -> int:
    return sum(trial.state.name in states for trial in study.trials)


def _spent(study) -> int:
    """Of the budget: trials that were begun, but for those that failed by no fault of theirs."""
    return _count(study, "RUNNING", "COMPLETE", "PRUNED")


def _retry(study) -> None:
    """Let the points of failed trials be tried again, before any new one."""
    states = {}
    for trial in study.trials:
        states.setdefault(json.dumps(trials.point_of(trial), sort_keys=True), []).append(trial)
    for same in states.values():
        if {trial.state.name for trial in same} == {"FAIL"}:
            about = [same[0].user_attrs[name] for name in ("from", "source")]
            trials.queue(study, trials.point_of(same[0]), *about)


def _trials(study, search: Search, budget: int, place: Place, tell: Callable) -> Iterator[Job]:
    """A study's trials, those first that were running when it was stopped."""
    from optuna.trial import Trial

    left = [trial for trial in study.trials if trial.state.name == "RUNNING"]
    failed = _count(study, "FAIL")  # before: this call's are to count, for it to end
    while left or len(study.trials) - _count(study, "WAITING") - failed < budget:
        if left:
            trial = Trial(study, left.pop(0)._trial_id)
            point = trials.settle(study, trial, search.variant.space)
        else:
            trial = trials.ask(study, search)
            point = trial.params
        run = search.run(point)
        key = runs.key(run, search.data.hash)
        trial.set_user_attr("key", key)
        shown = spaces.settings_of(search.variant, point).items()
        shown = ", ".join(f"{name}={value}" for name, value in shown)
        task = Task(f"trial {trial.number} ({shown})", key, trial)
        rivals = trials.rivals(study, trial, run.train.epochs)
        if (runs.store_folder(place.store) / key).exists():  # judged as if it were trained now
            outcome = runs.load(key, store=place.store, data=search.data, device="cpu")
            told, judge = _told(outcome), trials.judge(rivals, run.train.epochs)
            if over := trials.stopped(told["values"], judge):
                told |= {"values": over, "value": None}
            tell(task, told)
        else:
            yield place.job(task, run, search.data.hash, rivals)


def _tell(study, task: Task, result: dict | Exception, place: Place) -> None:
    """Put a trial's result into its study."""
    if isinstance(result, Exception):
        mild = isinstance(result, runs.DivergedError)  # the sampler is to avoid it
        trials.fail(study, task.trial, result, mild=mild)
        gone = mild
    else:
        told = {name: result[name] for name in ("values", "value", "seconds")}
        trials.tell(study, task.trial, **told)
        gone = result["value"] is None
    if gone:
        runs.checkpoint_of(task.key, place.store).unlink(missing_ok=True)


def _optimum(search: Search, storage, csv, place: Place) -> tuple[runs.Outcome, str]:
    """The best of a search, trained, and what it took: its study's, else the best on valid of the
    tuned rows of a results file that differ from this search in nothing else, trained again if
    need be.

    Raises:
        RunError, ValueError, KeyError: there is no such study, no finished trial, no run, no row.
    """
    import optuna

    try:
        study = optuna.load_study(study_name=search.study, storage=storage)
        key, took = study.best_trial.user_attrs["key"], _spent(study)
        outcome = runs.load(key, store=place.store, data=search.data)
        return outcome, f"{search.name}'s {took} trials"
    except (KeyError, ValueError, runs.RunError):
        if not csv or not Path(csv).exists():
            raise
    rows, own = evidence.read_runs(csv), search.run()
    line = {"data_hash": search.data.hash, "backbone": own.backbone, "variant": search.name}
    rows = rows[(rows[[*line]] == pd.Series(line)).all(axis=1) & (rows["seed"] == own.train.seed)]
    rows = rows[rows["trials"].notna()].sort_values(["valid_ndcg@20", "key"], ascending=False)
    for _, row in rows.iterrows():
        run = replace(run_of(row), dataset=search.dataset)
        if {*changes(own.parameters, run.parameters)} <= search.searched:
            break
    else:
        raise runs.RunError(f"{csv} has no {search.name} that was tuned so")
    key = runs.key(run, search.data.hash)
    if not (runs.store_folder(place.store) / key).exists():
        task = Task(f"{search.name}'s optimum in {csv}", key)
        with tqdm(desc=task.name, total=1, unit="run") as bar:
            _collect(iter([place.job(task, run, search.data.hash)]), place, bar)
    outcome = runs.load(key, store=place.store, data=search.data)
    return outcome, f"{search.name}'s {row['trials']:.0f} trials"


def _mapped(search: Search, storage, csv, place: Place, say: Callable) -> list[starts.Start]:
    """Where DrRL is SL and CCL at their optima, see `spaces.mapped`, and halfway."""
    found = []
    given = {name: v for name, v in search.given.items() if not spaces.is_of("drrl", name)}
    for loss in ("sl", "ccl"):
        try:
            other = spaces.plan(search.data, search.dataset, loss, search.backbone, given)
            outcome, took = _optimum(other, storage, csv, place)
        except (KeyError, ValueError, runs.RunError):
            why = "first tune it, with all else equal"
            say(f"{search.name} does not begin with {loss}'s optimum: {why}")
            continue
        if point := spaces.mapped(outcome, search.variant, search.negatives):
            found.append(starts.Start(point, loss, took))
    if len(found) == 2:
        middle = spaces.halfway(*(each.point for each in found), search.variant)
        took = " and ".join(each.source for each in found)
        found.append(starts.Start(middle, "halfway", took))
    return found


def _begin(study, search: Search, storage, csv, place: Place, say: Callable) -> None:
    """Plan what a study begins with, once: what is found later belongs to later studies."""
    if "starts" not in study.user_attrs:
        found = starts.known(search, csv, lambda: _mapped(search, storage, csv, place, say), say)
        study.set_user_attr("starts", [[*each] for each in found])
    queued = {trial.user_attrs.get("start") for trial in study.trials}
    for number, (point, origin, source) in enumerate(study.user_attrs["starts"]):
        if number not in queued:
            trials.queue(study, point, origin, source, start=number)


def _studies(url: str, folder: Path):
    """Optuna's storage; its tables are made by one process: two that begin at once both fail."""
    optuna = need("optuna", "tune")
    with (folder / "studies.lock").open("a") as file:
        trials.lock(file)
        return optuna.storages.get_storage(url)


@contextmanager
def _alone_at(study: str, storage: str, folder: Path) -> Iterator[None]:
    """One client at a study: two would each train on what the other is at, and spend its budget.

    The lock is on a file in the store; the process is written into it for the message alone.

    Raises:
        SearchError: another process has it.
    """
    digest = hashlib.sha256(f"{storage} {study}".encode()).hexdigest()[:16]
    with (folder / f"{digest}.lock").open("a+") as file:
        try:
            trials.lock(file, wait=False)
        except BlockingIOError:
            file.seek(0)
            who = file.read() or "another process"
            raise SearchError(
                f"{study} is being tuned by {who}: wait for it or stop it, and the same command "
                "continues"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield


@contextmanager
def _unless_open_elsewhere(csv: str | Path, bar: tqdm) -> Iterator[None]:
    """Say so where a file cannot be written now: it is written again in the end."""
    try:
        yield
    except OSError as error:
        bar.write(f"{csv} is not written now: {error}", file=sys.stderr)


def _rows(keys: list[str], spent: int, store: Path, csv: str | Path | None) -> pd.DataFrame:
    """`results` of runs, in this order, of the store's or else as the file has them."""
    found = results([key for key in keys if (store / key).exists()], trials=spent, store=store)
    if csv and Path(csv).exists():
        text = evidence.read_as_text(csv)[[*evidence.RUNS]]
        more = text[text["key"].isin({*keys} - {*found["key"]})].assign(trials=spent)
        more = more.replace({name: {"": "nan"} for name in evidence.ADDED})
        kinds = dict.fromkeys([n for n in more if "@" in n or n in evidence.ADDED], float)
        kinds |= {"seconds": float}
        kinds |= {"seed": int, "negatives": int, "best_epoch": int, "trials": "Int64"}
        parts = [part for part in (found, more.astype(kinds)) if len(part)]
        found = pd.concat(parts) if parts else found
    order = {key: place for place, key in enumerate(keys)}
    return found.sort_values("key", key=lambda each: each.map(order), ignore_index=True)


def tune(
    dataset: str,
    variant: str = "sl",
    *,
    backbone: str = "mf",
    trials: int = 20,
    seeds: int = 1,
    settings: dict | None = None,
    storage: str | None = None,
    csv: str | Path | None = None,
    place: Place = Place(),
) -> pd.DataFrame:
    """Search a loss's settings by valid NDCG@20, then train the best with further seeds.

    Every trial is in an Optuna study, whose name tells data, backbone, variant and a digest of all
    that is fixed: the same call continues it. What was running when it was stopped is trained on,
    what failed (not what diverged) is tried again and costs no budget. Each trial's row in the
    table of trials beside `csv` is written as it ends, and a study that the store has not, or not
    whole, is made again from there: see `trials`. One process at a time works at a study: a lock in
    the store sees to it, so that clients with stores of their own, but one storage or one `csv`,
    must see to it themselves (as on Windows).

    The first trials are what others found, see `starts`: for a DrRL variant also the optima of SL
    and CCL with all else equal, from their studies in the same storage or, trained again, their
    best rows in `csv`: tune these two before. They count in the budget. Then TPE chooses. All are
    stopped early by successive halving over the epochs, see `trials.judge`; a trial that diverges
    counts as stopped.

    With one worker at a time a stop, whenever it comes, and a lost store change nothing: the same
    trials, states, values and choice. With several, which trials have ended when one begins depends
    on the clock, and with it what that one's point and rivals are; they are written down as it
    begins, and what a stop finds running is trained on and judged as if it had not been stopped.

    Args:
        dataset, backbone: as in `runs.configure`.
        variant: a name in `spaces.variants`.
        trials: the budget, stopped and diverged ones and those from elsewhere included; written
            into the results.
        seeds: how many seeds the best is trained with, the tuning's own among them.
        settings: what is not to be searched, as in `runs.configure`; `seed` also seeds the search.
        storage: where studies are kept, a URL as SQLAlchemy has it; by default a file of SQLite in
            the store. It is written nowhere else.
        csv: a file to merge the results into as they come, see `merge`; what it has is not trained
            again for the further seeds.
        place: where to compute.

    Returns:
        `results` of every finished trial, best first, but the best's further seeds before them; of
        what the store has lost, as `csv` has it.

    Raises:
        SearchError: some trials failed: a message lists them, after all others are done. Or all
            diverged. Or another process is at this study: nothing was begun.
        ValueError: an unknown variant, a setting that is refused, or a file that is no table.
    """
    for what, count in (("trials", trials), ("seeds", seeds)):
        if count < 1:
            raise ValueError(f"{what} must be at least 1, not {count}")
    if csv:  # refused now, not when all is done
        _check_tables(csv)
    optuna = need("optuna", "tune")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = datasets.load(dataset, data_dir=place.data_dir)
    if not data.valid.nnz:
        raise ValueError(f"{dataset} has no valid pairs: there is nothing to select by")
    search = spaces.plan(data, dataset, variant, backbone, settings or {})
    folder = runs.store_folder(place.store).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    url = storage or f"sqlite:///{folder / 'studies.sqlite'}"
    storage = _studies(url, folder)
    with _alone_at(search.study, url, folder):
        study, failed = _searched(search, trials, storage, csv, place)
        done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
        done.sort(key=lambda trial: (-trial.value, trial.number))
        keys, spent = [trial.user_attrs["key"] for trial in done], _spent(study)
        if done:
            more, lost = _seeded(search, done[0], seeds, spent, csv, place)
            keys, failed = [*more, *keys], failed + lost
    found = _rows(keys, spent, folder, csv)
    if csv:
        merge(found, csv)
        _save(study, search, csv)
    _complain(failed, trials + seeds - 1)
    if not done:
        raise SearchError(f"{search.study}: none of {spent} trials was finished, all diverged")
    return found


def _save(study, search: Search, csv: str | Path) -> None:
    trials.merge(trials.rows_of(study, search), csv)


def _check_tables(csv: str | Path) -> None:
    table = trials.beside(csv)
    if Path(csv).exists():
        evidence.read_as_text(csv)
    if table.exists():
        trials.read(table)


def _searched(search: Search, budget: int, storage, csv, place: Place) -> tuple:
    """The study of a search, carried on until the budget is spent, and a line for each failure."""
    import optuna

    options = {"direction": "maximize", "load_if_exists": True}
    study = optuna.create_study(study_name=search.study, storage=storage, **options)
    study = trials.restored(study, search, csv)
    over = _count(study, "COMPLETE", "PRUNED")
    shown = {"desc": search.study, "total": budget, "unit": "trial", "initial": over}

    def save() -> None:
        if csv:
            with _unless_open_elsewhere(csv, bar):
                _save(study, search, csv)

    def tell(task: Task, result: dict | Exception) -> None:
        _tell(study, task, result, place)
        save()
        if csv and not isinstance(result, Exception) and result["value"] is not None:
            with _unless_open_elsewhere(csv, bar):
                merge(results([task.key], trials=_spent(study), store=place.store), csv)

    def serve(task: Task, told: dict) -> None:
        tell(task, told)
        bar.update()

    with tqdm(**shown) as bar:
        _begin(study, search, storage, csv, place, lambda line: bar.write(line, file=sys.stderr))
        _retry(study)
        save()
        return study, _collect(_trials(study, search, budget, place, serve), place, bar, tell)


def _seeded(
    search: Search, best, seeds: int, spent: int, csv: str | Path | None, place: Place
) -> tuple[list[str], list[str]]:
    """The best trial with further seeds: the runs' keys, and a line for each that failed."""
    run, store = search.run(trials.point_of(best)), runs.store_folder(place.store)
    first = run.train.seed
    others = [replace(run, train=replace(run.train, seed=first + more)) for more in range(1, seeds)]
    keys = {runs.key(each, search.data.hash): each for each in others}
    has = {*evidence.read_as_text(csv)["key"]} if csv and Path(csv).exists() else set()

    def tell(task: Task, result: dict | Exception) -> None:
        if csv and not isinstance(result, Exception):
            with _unless_open_elsewhere(csv, bar):
                merge(results([task.key], trials=spent, store=store), csv)

    jobs = [
        place.job(Task(f"seed {each.train.seed}", key), each, search.data.hash)
        for key, each in keys.items()
        if key not in has and not (store / key).exists()
    ]
    with tqdm(desc="further seeds", total=len(jobs), unit="run", disable=not jobs) as bar:
        return [*keys], _collect(iter(jobs), place, bar, tell)


# ---------------------------------------------------------------------------------------------
# Sweeps

BLOCKS = {
    "dataset": {"dataset": None, "backbone": "mf", "loss": "sl", "settings": {}},
    "notebook": {"notebook": None, "out": "out/sweep", "parameters": {}},
}


def _grid(given: dict) -> list[dict]:
    """Every choice of one from each of the lists; what is no list is the only choice."""
    lists = [value if isinstance(value, list) else [value] for value in given.values()]
    return [dict(zip(given, each, strict=True)) for each in itertools.product(*lists)]


def _read(path: str | Path) -> Iterator[tuple[str, dict]]:
    """Where in the file, and one configuration, for every point of every block's grid."""
    yaml = need("yaml", "tune")
    try:
        blocks = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    for number, block in enumerate(blocks if isinstance(blocks, list) else [blocks], 1):
        where = f"{path}, block {number}"
        if not isinstance(block, dict) or len(kind := BLOCKS.keys() & block.keys()) != 1:
            raise ValueError(f"{where}: expected a mapping with either dataset or notebook")
        defaults = BLOCKS[kind.pop()]
        for name in block:
            if name not in defaults:
                close = difflib.get_close_matches(str(name), defaults, 1) or defaults
                raise ValueError(f"{where}: {name!r} is none of its keys: {', '.join(close)}?")
        inner = list(defaults)[-1]
        points = block.pop(inner, None) or {}
        for choice in points if isinstance(points, list) else [points]:
            if not isinstance(choice, dict):
                raise ValueError(f"{where}, {inner}: expected names and values, not {choice!r}")
        outer = {name: block.get(name, value) for name, value in defaults.items() if name != inner}
        for each in _grid(outer):
            for choice in points if isinstance(points, list) else [points]:
                for point in _grid(choice):
                    yield where, each | {inner: point}


def _notebook_job(each: dict, place: Place) -> Job | None:
    """The execution of a notebook; None where it is done."""
    source, given = notebooks.find(each["notebook"]), dict(each["parameters"])
    given = notebooks.checked(source, given)
    words = re.sub(r"[^\w.=-]+", "_", " ".join(f"{k}={v}" for k, v in given.items()))[:80]
    digest = hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:6]
    out = Path(each["out"]) / f"{source.stem} {words} {digest}".replace(" ", "_")
    try:
        if json.loads((out / f"{source.stem}.json").read_text())["status"] == "done":
            return None
    except (OSError, ValueError, KeyError):  # not run, or not to its end
        pass
    options = {"name": str(source), "out": str(out), "parameters": given}
    return Job(Task(out.name), _notebook, options | {"threads": place.share()})


def sweep(
    path: str | Path,
    *,
    csv: str | Path | None = None,
    place: Place = Place(),
) -> pd.DataFrame:
    """Run every configuration of a file: grids over runs, or over a notebook's parameters.

    The file is YAML, a block or a list of blocks, and a list anywhere means each of its values:

        - dataset: [amazon-beauty, amazon-kitchen]
          backbone: mf                              # the default
          loss: drrl
          settings: {order: [1.5, 2, 5], radius: 1, dual: exact, seed: [0, 1, 2]}
        - notebook: 02_one_family
          parameters: {order: [1.5, 2]}
          out: out/sweep                            # the default: a folder in it for each

    `settings` may be a list of such grids. All is checked before anything starts. A run that the
    store or `csv` has, or a notebook that left its record, is done; delete it to have it again.
    Notebooks on a cluster need `out` on a shared disk.

    Args:
        path: the file.
        csv: a file to merge the results into as they come, see `merge`.
        place: where to compute.

    Returns:
        `results` of the runs that the store has now, in the file's order.

    Raises:
        ValueError: a file, or a configuration in it, is refused: names block and setting.
        SearchError: some failed: a message lists them, after all others are done.
    """
    wanted, jobs = {}, []
    data_hash = cache(lambda name: datasets.load(name, data_dir=place.data_dir).hash)
    for where, each in _read(path):
        try:
            if "notebook" in each:
                jobs += filter(None, [_notebook_job(each, place)])
                continue
            settings = {
                k: runs.parse_value(v) if isinstance(v, str) else v
                for k, v in each["settings"].items()
            }
            run = runs.configure(each["dataset"], each["loss"], each["backbone"], settings)
            wanted[runs.key(run, data_hash(each["dataset"]))] = run
        except (TypeError, ValueError, datasets.DataError, notebooks.NotebookError) as error:
            raise ValueError(f"{where}: {error}") from error
    done = {*evidence.read_as_text(csv)["key"]} if csv and Path(csv).exists() else set()
    return train(wanted, name=Path(path).name, csv=csv, done=done, more=jobs, place=place)


def train(
    wanted: Mapping[str, runs.Run],
    *,
    name: str,
    csv: str | Path | None = None,
    done: Collection[str] = (),
    more: Collection[Job] = (),
    place: Place = Place(),
) -> pd.DataFrame:
    """Have runs in the store, and in a results file as they come.

    Args:
        wanted: the runs, by their keys.
        name: of the whole, to show.
        csv: a file to merge the results into, see `merge`.
        done: keys of runs that are not to be trained, though the store lacks them.
        more: other work, done before.
        place: where to compute.

    Returns:
        `results` of the runs that the store has now, in the order of `wanted`.

    Raises:
        SearchError: some failed: a message lists them, after all others are done.
    """
    folder, jobs = runs.store_folder(place.store), [*more]
    data_hash = cache(lambda dataset: datasets.load(dataset, data_dir=place.data_dir).hash)
    for key, run in wanted.items():
        if key not in done and not (folder / key).exists():
            plain = runs.configure(run.dataset, run.loss, run.backbone)
            changed = changes(plain.parameters, run.parameters).items()
            shown = ", ".join(f"{name.partition('.')[2]}={value}" for name, value in changed)
            task = Task(f"{run.loss} on {run.backbone}, {run.dataset} ({shown})", key)
            jobs.append(place.job(task, run, data_hash(run.dataset)))

    def tell(task: Task, result: dict | Exception) -> None:
        if csv and task.key and not isinstance(result, Exception):
            with _unless_open_elsewhere(csv, bar):
                merge(results([task.key], store=folder), csv)

    with tqdm(desc=name, total=len(jobs), unit="run") as bar:
        failed = _collect(iter(jobs), place, bar, tell)
    found = results([key for key in wanted if (folder / key).exists()], store=folder)
    if csv:
        merge(found, csv)
    _complain(failed, len(jobs))
    return found


# ---------------------------------------------------------------------------------------------
# What the paper's figures take

NOISES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
RADII = (0.35, 0.7, 1.0, 1.2, 1.8)  # breakdown points from 70% to 17%
ORDERS = (1.1, 1.25, 1.5, 2.0, 3.0, 6.0, 51.0)  # γ* from 11 to 1.02


def copied(recorded: str | Path, folder: str | Path, *, store: str | Path | None = None) -> None:
    """A copy of a folder of results, to add to; made anew where an earlier one stands.

    Only a folder that was made here, which its file MADE says, gives way. It is deleted where all
    its runs are in the store or in what was recorded, else it is kept under another name.

    Args:
        recorded: the folder of results, which is only read; it need not be there.
        folder: where the copy is to be.
        store: see `runs.store_folder`.

    Raises:
        ValueError: one is in the other, or something else stands there: nothing is touched.
    """
    folder, recorded, tables = Path(folder), Path(recorded), []
    csv = folder / "runs.csv"
    mine, theirs = folder.resolve(), recorded.resolve()
    if mine in (theirs, *theirs.parents) or theirs in mine.parents:
        raise ValueError(f"{folder} is made anew, and {recorded} is in it or around it: copy that")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"{folder} is no folder of its own: choose another place for results")
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MADE).is_file():
            raise ValueError(
                f"{folder} has files that were not made here (no {MADE} among them), and would be "
                "replaced: move them, or choose another folder"
            )
        tables += [trials.read(path) for path in [trials.beside(csv)] if path.exists()]
        if _has(folder) <= _has(recorded) | {*runs.table(store)["key"]}:
            shutil.rmtree(folder)
        else:
            names = (folder.with_name(f"{folder.name}-{n}") for n in itertools.count(1))
            folder.rename(next(path for path in names if not path.exists()))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MADE).write_text("Made by drrl, which deletes this folder when it makes it anew.\n")
    if recorded.is_dir():
        shutil.copytree(recorded, folder, dirs_exist_ok=True)
        tables += [trials.read(path) for path in [trials.beside(csv)] if path.exists()]
    for table in tables:  # of trials: it counts for nothing, and saves training them again
        trials.merge(table, csv)


def _has(folder: Path) -> set[str]:
    """The keys of the runs that a folder of results has."""
    path = folder / "runs.csv"
    return {*evidence.read_as_text(path)["key"]} if path.exists() else set()


def complete(
    recorded: str | Path,
    folder: str | Path,
    dataset: str,
    names: list[str],
    *,
    backbones: list[str] = ("mf",),
    trials: int = 0,
    seeds: int = 3,
    settings: dict | None = None,
    plan: Callable[[pd.DataFrame], list[dict]] | None = None,
    place: Place = Place(),
) -> evidence.Evidence:
    """What was recorded, and what was not, computed now: a folder of results of one's own.

    Args:
        recorded: a folder of results, which is only read; it need not be there.
        folder: a copy of it is made here, see `copied`, and what is computed is added.
        dataset, backbones, names: what is to be there: these variants' finals, in this order.
        trials: the budget of each that is missing, and of what the plan adds; 0: compute nothing.
        seeds, settings: as in `tune`, of each that is missing.
        plan: what there is of these -> blocks of a sweep to be run too, see `noise_plan`.
        place: where to compute.

    Returns:
        `evidence.measured` of the folder. Weights are averaged over 200 users.
    """
    folder, csv = Path(folder), Path(folder) / "runs.csv"
    copied(recorded, folder, store=place.store)
    if trials:
        data = datasets.load(dataset, data_dir=place.data_dir)

        def known() -> pd.DataFrame:
            rows = evidence.read_runs(csv)
            mine = (rows["dataset"] == data.name) & (rows["noise"] == 0)
            return rows[mine & rows["variant"].isin(names) & rows["backbone"].isin(backbones)]

        for backbone, variant in itertools.product(backbones, names):
            here = known()
            if not ((here["backbone"] == backbone) & (here["variant"] == variant)).any():
                options = {"backbone": backbone, "trials": trials, "seeds": seeds}
                tune(dataset, variant, **options, settings=settings, csv=csv, place=place)
        if plan:
            blocks = [block | {"dataset": dataset} for block in plan(known())]
            sweep(write_plan(blocks, folder / "sweep.yaml"), csv=csv, place=place)
        options = {"store": place.store, "data_dir": place.data_dir}
        harvest(folder, users=200, data={data.name: data}, **options)
    return evidence.measured(folder)


def _again(final: pd.Series, seeds, **changed) -> dict:
    """A block of a sweep: a final once more, but for what is changed (None: left out)."""
    own = run_of(final).settings
    names = [*json.loads(final["settings"]), "train.sampler", "train.negatives"]
    settings = {name: own[name] for name in names}
    settings |= {name.replace("__", "."): value for name, value in changed.items()}
    settings = {name: value for name, value in settings.items() if value is not None}
    outer = {name: final[name] for name in ("dataset", "backbone", "loss")}
    return outer | {"settings": settings | {"train.seed": [*seeds]}}


def noise_plan(rows: pd.DataFrame, ratios=NOISES, seeds=range(3), *, radii=None) -> list[dict]:
    """The sweep of Fig. 4: losses as they were tuned, at shares of false negatives.

    Args:
        rows: as `evidence.read_runs`; the selected ones without noise are run again.
        ratios: of each row's negatives, in [0, 1).
        seeds: of every point.
        radii: ρ, nats. DrRL's balls alone, at these instead of their own: to see where each breaks
            (`dro.breakdown_point`).

    Returns:
        Blocks as `sweep` takes them from a file. The sampler is per-row, which alone has noise.
    """
    finals = evidence.selected_runs(rows[rows["noise"] == 0])
    one = finals.drop_duplicates(["dataset", "backbone", "variant"])
    changed = {"train__noise": [*map(float, ratios)], "train__sampler": "per-row"}
    if radii is not None:
        one = one[one["loss"] == "drrl"]
        one = one[[evidence.ball(row) is not None for _, row in one.iterrows()]]
        changed |= {f"loss__{name}": None for name in evidence.SIZES}
        changed["loss__radius"] = [*map(float, radii)]
    return [_again(row, seeds, **changed) for _, row in one.iterrows()]


def order_plan(
    rows: pd.DataFrame, orders=ORDERS, seeds=range(3), *, between=(1.25, 20.0)
) -> list[dict]:
    """The sweep of Fig. 5: DrRL along the order, once at its c and once at its ρ.

    It starts from the best on valid of an order well between the ends, a trial of a tuning where
    there is one: an optimum that is SL's or CCL's, see `mapped`, has a β that suits no other order.

    Args:
        rows: as `evidence.read_runs`; of DrRL's variants without noise one each is chosen.
        orders: γ in (1, ∞); the chosen one's is added.
        seeds: of every point.
        between: the chosen one's γ.

    Returns:
        Two blocks a variant, as `sweep` takes them from a file.
    """
    rows = rows[(rows["loss"] == "drrl") & (rows["noise"] == 0)]
    rows = rows.assign(tuned=rows["trials"].notna())  # a sweep before this is no place to begin
    rows = rows.sort_values(["tuned", "valid_ndcg@20", "key"], ascending=False)
    blocks, chosen = [], set()
    for _, row in rows.iterrows():
        group = row["dataset"], row["backbone"], row["variant"]
        order, radius = evidence.ball(row) or (math.nan, math.nan)
        if group in chosen or not between[0] <= order <= between[1]:
            continue
        chosen.add(group)
        sizes = {"radius": radius, "weight": dro.weight_from_radius(radius, order)}
        free = {f"loss__{name}": None for name in evidence.SIZES}
        for name, size in sizes.items():
            held = {f"loss__{name}": float(f"{float(size):.4g}")}
            held["loss__order"] = sorted({*map(float, orders), order})
            blocks.append(_again(row, seeds, **free | held))
    return blocks


def write_plan(blocks: list[dict], path: str | Path) -> Path:
    """Blocks as a file for `sweep`."""
    yaml, path = need("yaml", "tune"), Path(path)
    blocks = json.loads(json.dumps(blocks))  # shared lists would become anchors in YAML
    text = yaml.safe_dump(blocks, sort_keys=False, default_flow_style=None, width=99)
    runs.put(path, text.encode())
    return path
