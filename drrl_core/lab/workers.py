"""Workers: jobs computed by local processes or by a Dask cluster, and what they leave put away.

A worker trains and returns the files of the finished run; the client alone saves them, so that no
worker need see the client's disk. What a worker does write is the checkpoint of the run in hand, in
the store's folder as the worker sees it: at home that is the store itself, and on a cluster the
worker's own `$DRRL_RUNS`, which may well be a shared disk. Whatever is killed, client or worker,
continues from there.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from drrl_core import datasets
from drrl_core.common import cores, need
from drrl_core.lab import store, trials
from drrl_core.lab.results import kept_rows, merge
from drrl_core.lab.run import Outcome, Run, execute, key_of
from drrl_core.train import DivergedError

MOST_DEATHS = 3  # of the workers of one job, which is then given up


class SearchError(Exception):
    """Some of what was asked for could not be run; all the rest was, and is store."""


@dataclass(frozen=True)
class Compute:
    """What computes runs, and where they are store.

    Attributes:
        store: see `store.store_folder`.
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

    def __post_init__(self) -> None:
        for name, least in (("workers", 0), ("threads", 1)):
            if (value := getattr(self, name)) is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")

    def share(self) -> int:
        """Threads a worker."""
        most = cores() // (self.workers or 1)
        return self.threads if self.scheduler else max(1, min(self.threads, most))

    def job(
        self, task: "Task", run: Run, data_hash: str, rivals: list[trials.Curve] | None = None
    ) -> "Job":
        """The training of a run, see `_train`."""
        options = {
            "run": run,
            "data_hash": data_hash,
            "data_dir": self.data_dir and str(self.data_dir),
            "folder": None if self.scheduler else str(store.store_folder(self.store)),
            "device": self.device,
            "threads": self.share(),
            "rivals": rivals,
        }
        return Job(task, _train, options)


LOCAL = Compute()  # one process beside this one


class Task(NamedTuple):
    """What a job is to a sweep or a study: a name to show, a run's key, a study's trial."""

    name: str
    key: str | None = None
    trial: Any = None


class Job(NamedTuple):
    """Something to compute: `function(**arguments)`, and what it is to whoever asked for it."""

    what: Any
    function: Callable[..., Any]
    arguments: dict[str, Any]


Tell = Callable[[Task, Any], None]  # hears a job's result, or the exception that it ended with


def run_jobs(jobs: Iterator[Job], compute: Compute) -> Generator[tuple[Any, Any], None, None]:
    """Compute jobs, as many at a time as there are workers; each is asked for when one is free.

    At home every worker is a pool of one process, so that when one dies it is known what it was
    at: that is computed again, and given up when it has cost three workers. Dask does the same on
    a cluster, by its own setting `allowed-failures`. When the caller stops early, or Ctrl-C does,
    workers are stopped at once.

    Args:
        jobs: what to compute; may be a generator that looks at what came before.
        compute: how many workers, and whose.

    Yields:
        what of the job, and its result, or the exception that it ended with.

    >>> list(run_jobs(iter([Job("a", dict, {"b": 1})]), Compute(workers=0)))
    [('a', {'b': 1})]
    """
    if compute.workers == 0 and not compute.scheduler:
        for job in jobs:
            yield job.what, _result(partial(job.function, **job.arguments))
        return
    client = None
    if compute.scheduler:
        client = need("distributed", "cluster").Client(compute.scheduler)
        one = client.get_executor(pure=False)
        free: list[Executor] = [one] * (compute.workers or max(1, len(client.nthreads())))
    else:
        free = [_process() for _ in range(compute.workers or 1)]
    running: dict[Future[Any], tuple[Job, Executor, int]] = {}
    again: deque[tuple[Job, int]] = deque()
    new = ((job, 0) for job in jobs)
    try:
        while True:
            while free and (next_one := again.popleft() if again else next(new, None)):
                (job, deaths), executor = next_one, free.pop()
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
                result = _result(future.result)
                if isinstance(result, BrokenProcessPool):
                    executor.shutdown(wait=False)
                    executor = _process()
                    if deaths + 1 < MOST_DEATHS:
                        again.append((job, deaths + 1))
                        free.append(executor)
                        continue
                    why = "out of memory, or a script without `if __name__ == '__main__':`"
                    result = SearchError(f"{MOST_DEATHS} workers died of it: {why}, perhaps")
                free.append(executor)
                yield job.what, result
    finally:
        for future in running:
            future.cancel()
        if client:
            client.close()
        else:
            _stop([*free, *(executor for _, executor, _ in running.values())], kill=bool(running))


def _result(compute: Callable[[], Any]) -> Any:
    """What a call returns, or the exception that it ends with."""
    try:
        return compute()
    except Exception as error:
        return error


def _process() -> ProcessPoolExecutor:
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=spawn, initializer=_settle)


def _settle() -> None:
    """A local worker leaves Ctrl-C to the client, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_client, daemon=True).start()


def _end_with_the_client() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _stop(executors: list[Executor], *, kill: bool) -> None:
    for executor in executors:
        for process in [*(getattr(executor, "_processes", None) or {}).values()] if kill else []:
            process.kill()
        executor.shutdown(cancel_futures=True)


def collect(
    jobs: Iterator[Job], compute: Compute, bar: "tqdm[Any]", tell: Tell = lambda *_: None
) -> list[str]:
    """Compute jobs of Tasks, save the runs that finish; returns a line for each that failed.

    `tell(task, result)` hears of each, when what it left is store.
    """
    failed = []
    with closing(run_jobs(jobs, compute)) as done:
        try:
            for task, result in done:
                try:
                    if isinstance(result, Exception):
                        raise result
                    if files := result.get("files"):
                        store.save(files, store=compute.store)
                except Exception as error:
                    line = f"{task.name}: {type(error).__name__}: {error}"
                    bar.write(f"failed: {line}", file=sys.stderr)
                    if not (task.trial and isinstance(error, DivergedError)):
                        failed.append(line)
                    result = error
                tell(task, result)
                bar.update()
        except KeyboardInterrupt:
            bar.write("stopped; the same command continues", file=sys.stderr)
            raise
    return failed


def complain(failed: list[str], total: int) -> None:
    """Raise SearchError with the lines of what failed, if anything did."""
    if failed:
        head = f"{len(failed)} of {total} failed, all others are kept:"
        raise SearchError("\n  ".join([head, *failed]))


def written_later(csv: str | Path, bar: "tqdm[Any]", write: Callable[[], None]) -> None:
    """Write a file, or say that it cannot be written now: it is written again in the end."""
    try:
        write()
    except OSError as error:
        bar.write(f"{csv} is not written now: {error}", file=sys.stderr)


def merge_row(
    csv: str | Path | None,
    task: Task,
    compute: Compute,
    bar: "tqdm[Any]",
    trials: int | None = None,
) -> None:
    """Merge a kept run into a file of runs, where there is to be one."""
    if csv and task.key:

        def write() -> None:
            merge(kept_rows([str(task.key)], trials=trials, store=compute.store), str(csv))

        written_later(csv, bar, write)


_one_at_a_time = threading.Lock()  # torch's random state is the process's


def _train(
    run: Run,
    *,
    data_hash: str,
    data_dir: str | None,
    folder: str | None,
    device: str,
    threads: int,
    rivals: list[trials.Curve] | None = None,
) -> dict[str, Any]:
    """A worker's part of a run: train it, and return what there is to keep.

    Args:
        run: what to run.
        data_hash: of the data it is to be trained on.
        folder: of its checkpoint; None: this machine's own, see `store.store_folder`.
        data_dir, device: as in `run.execute`.
        threads: how many torch may use.
        rivals: stop where `trials.judge` by these says so; what a run that continues from a
            checkpoint reached before is judged too. None: never.

    Returns:
        values, a list of (epoch, valid accuracy by the run's criterion); value, that of the best
        epoch, None where it was stopped; files, as `store.files_of`, where it was not; seconds.

    Raises:
        KeyboardInterrupt: of which `fit` makes the best so far; here the run is to be continued.
    """
    with _one_at_a_time:
        before, low = torch.get_num_threads(), False
        torch.set_num_threads(threads)
        try:
            data = _load(run.dataset, data_dir, data_hash)
            checkpoint = store.checkpoint_of(key_of(run, data.hash), folder)
            judge = None if rivals is None else trials.judge(rivals, run.train.epochs)
            name = run.train.criterion
            if judge and (over := trials.stopped(_reached(checkpoint, name), judge)):
                return {"values": over, "value": None, "seconds": None}  # killed before it said so

            def below(row: dict[str, Any]) -> bool:
                nonlocal low
                low = bool(judge and name in row and judge(row["epoch"], row[name]))
                return low

            outcome = execute(
                run,
                device=device,
                data=data,
                on_epoch=below,
                checkpoint=checkpoint,
                progress=False,
            )
        finally:
            torch.set_num_threads(before)
    if low:
        return valid_curve(outcome) | {"value": None}
    if not outcome.record["finished"]:
        raise KeyboardInterrupt
    return valid_curve(outcome) | {"files": store.files_of(outcome)}


@lru_cache(2)
def _load(name: str, data_dir: str | None, data_hash: str) -> datasets.Interactions:
    """The client's data, as this worker finds them."""
    data = datasets.load(name, data_dir=data_dir)
    if data.hash != data_hash:
        raise datasets.DataError(f"{name} is other data here than where the work was asked for")
    return data


def _reached(checkpoint: Path, name: str) -> trials.Curve:
    """What a run had reached by its checkpoint: valid accuracy of that name, by epoch."""
    with suppress(Exception):  # there is none; or it is damaged, which `fit` has words for
        found = torch.load(checkpoint, weights_only=True, map_location="cpu", mmap=True)
        rows = found["state"]["history"]
        return [(row["epoch"], row[name]) for row in rows if name in row]
    return []


def valid_curve(outcome: Outcome) -> dict[str, Any]:
    """What a study is told of a run: valid accuracy, by its criterion, an epoch and at the best.

    with_b: the latter with popularity put back; None where b is not recorded by that criterion.
    """
    name = outcome.criterion
    rows = outcome.fit.history[["epoch", name]].dropna()
    values = [(int(epoch), float(value)) for epoch, value in rows.itertuples(index=False)]
    about = outcome.record
    told = {"values": values, "value": about["valid"][name], "seconds": about["seconds"]}
    put_back = about.get("popularity") or {}  # none of a run that was stopped
    return told | {"with_b": put_back.get("valid", {}).get(name)}
