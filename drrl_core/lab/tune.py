"""Tuning: the hyper-parameters of a loss, searched by Optuna on valid."""

import hashlib
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from filelock import Timeout
from tqdm import tqdm

from drrl_core import datasets
from drrl_core.common import need
from drrl_core.lab import spaces, starts, store
from drrl_core.lab import trials as table
from drrl_core.lab.results import ADDED, RUNS, kept_rows, keys_in, merge, read_as_text
from drrl_core.lab.run import ACCURACY, key_of
from drrl_core.lab.spaces import Search
from drrl_core.lab.sweep import into_store
from drrl_core.lab.workers import (
    LOCAL,
    Compute,
    Job,
    SearchError,
    Task,
    Tell,
    collect,
    complain,
    merge_row,
    valid_curve,
    written_later,
)
from drrl_core.train import DivergedError

if TYPE_CHECKING:  # an extra
    from optuna import Study
    from optuna.trial import FrozenTrial

Csv = str | Path | None
NO_B = "the run store has it from before b was recorded: search in another one (DRRL_RUNS)"


def tune(
    dataset: str,
    variant: str = "sl",
    *,
    backbone: str = "mf",
    trials: int = 20,
    seeds: int = 1,
    config: Mapping[str, object] | None = None,
    popularity: float | str = 0,
    storage: str | None = None,
    csv: Csv = None,
    compute: Compute = LOCAL,
) -> pd.DataFrame:
    """Search a loss's hyper-parameters on valid, then train the best with further seeds.

    What counts is valid NDCG@20, or what `metric` and `cutoff` say in `config`; with `popularity`
    "auto" it is that with popularity put back, at b chosen on valid for each trial: another study.

    Every trial is in an Optuna study, whose name tells data, backbone, variant and a digest of all
    that is fixed: the same call continues it. What was running when it was stopped is trained on,
    what failed (not what diverged) is tried again and costs no budget. Each trial's row in the
    table of trials beside `csv` is written as it ends, and a study that the store has not, or not
    whole, is made again from there: see `trials`. One process at a time works at a study: a lock in
    the store sees to it, so that clients with stores of their own, but one storage or one `csv`,
    must see to it themselves.

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
        dataset, backbone: as in `run.configure`.
        variant: a name in `spaces.variants`; or of a classical model, which has no backbone.
        trials: the budget, stopped and diverged ones and those from elsewhere included; written
            into the results.
        seeds: how many seeds the best is trained with, the tuning's own among them. See
            `spaces.budget` for models without a seed, or with nothing to search.
        config: what is not to be searched, as in `run.configure`; `seed` also seeds the search.
        popularity: 0 or "auto"; the latter with cutoff 20. A trial is stopped early by its accuracy
            without b in either case.
        storage: where studies are kept, a URL as SQLAlchemy has it; by default a file of SQLite in
            the store. It is written nowhere else.
        csv: a file to merge the results into as they come, see `results.merge`; what it has is
            not trained again for the further seeds.
        compute: what computes.

    Returns:
        The rows (`results.kept_rows`) of every finished trial, best first, but the best's further
        seeds before them; of what the store has lost, as `csv` has it.

    Raises:
        SearchError: some trials failed: a message lists them, after all others are done. Or all
            diverged. Or another process is at this study: nothing was begun.
        ValueError: an unknown variant, a value that is refused, or a file that is no table.
    """
    for what, number in (("trials", trials), ("seeds", seeds)):
        if number < 1:
            raise ValueError(f"{what} must be at least 1, not {number}")
    if csv:  # refused now, not when all is done
        table.read_beside(csv)
        keys_in(csv)
    need("optuna", "tune").logging.set_verbosity(30)  # warnings
    data = datasets.load(dataset, data_dir=compute.data_dir)
    if not data.valid.nnz:
        raise ValueError(f"{dataset} has no valid pairs: there is nothing to select by")
    search = spaces.plan(data, dataset, variant, backbone, config or {})
    search = replace(search, with_b=_with_b(search, popularity))
    trials, seeds = spaces.budget(search.name, trials, seeds)
    if search.run().train.refit != "none":
        raise ValueError("refit: a search selects by valid, so it cannot train on it; tune without")
    folder = store.store_folder(compute.store).resolve()
    url = storage or f"sqlite:///{folder / 'studies.sqlite'}"
    with _alone_at(search.study, url, folder):
        study, failed = _searched(search, trials, _studies(url, folder), csv, compute)
        done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
        done.sort(key=lambda trial: (-float(trial.value or 0), trial.number))
        keys, spent = [trial.user_attrs["key"] for trial in done], table.spent(study)
        if done:
            best = search.run(table.trial_point(done[0]))
            trains = [replace(best.train, seed=best.train.seed + more) for more in range(1, seeds)]
            others = [replace(best, train=train) for train in trains]
            wanted = {key_of(run, data.hash): run for run in others}
            lost, _ = into_store(
                wanted,
                "further seeds",
                csv=csv,
                done=keys_in(csv),
                compute=compute,
                trials=spent,
            )
            keys, failed = [*wanted, *keys], failed + lost
    keys = [*dict.fromkeys(keys)]  # two trials may be one run: the sampler can draw a start
    found = _rows(keys, spent, folder, csv)
    if csv:
        merge(found, csv)
        table.merge(table.rows_of(study, search), csv)
    complain(failed, trials + seeds - 1)
    if not done:
        raise SearchError(f"{search.study}: none of {spent} trials was finished, all diverged")
    return found


def _with_b(search: Search, popularity: float | str) -> bool:
    """Whether a search judges with popularity put back; ValueError where it cannot."""
    if popularity not in (0, "auto"):
        raise ValueError(f"popularity must be 0 or 'auto' in a search, not {popularity!r}")
    criterion = search.run().train.criterion
    if popularity and criterion not in ACCURACY:
        known = ", ".join(ACCURACY)
        raise ValueError(f"popularity 'auto' goes with {known}, not with {criterion}")
    return popularity == "auto"


def _searched(
    search: Search, budget: int, storage: Any, csv: Csv, compute: Compute
) -> tuple["Study", list[str]]:
    """The study of a search, carried on until the budget is spent, and a line for each failure."""
    import optuna

    study = optuna.create_study(
        study_name=search.study, storage=storage, direction="maximize", load_if_exists=True
    )
    study = table.restored(study, search, csv)
    over = table.count(study, "COMPLETE", "PRUNED")
    bar = tqdm(desc=search.study, total=budget, unit="trial", initial=over)

    def say(line: str) -> None:
        bar.write(line, file=sys.stderr)

    def save() -> None:
        if csv:
            written_later(csv, bar, lambda: table.merge(table.rows_of(study, search), csv))

    def tell(task: Task, result: Any) -> None:
        if search.with_b and not isinstance(result, Exception) and result["value"] is not None:
            known = result["with_b"] is not None
            result = result | {"value": result["with_b"]} if known else ValueError(NO_B)
        _tell(study, task, result, compute)
        save()
        if not isinstance(result, Exception) and result["value"] is not None:
            merge_row(csv, task, compute, bar, trials=table.spent(study))

    def serve(task: Task, result: Any) -> None:
        tell(task, result)
        bar.update()

    with bar:
        _begin(study, search, csv, lambda: starts.optima(search, storage, csv, compute, say), say)
        _retry(study)
        save()
        return study, collect(_trials(study, search, budget, compute, serve), compute, bar, tell)


def _begin(
    study: "Study",
    search: Search,
    csv: Csv,
    optima: Callable[[], list[starts.Start]],
    say: Callable[[str], None],
) -> None:
    """Plan what a study begins with, once: what is found later belongs to later studies."""
    if "starts" not in study.user_attrs:
        found = starts.known(search, csv, optima, say)
        study.set_user_attr("starts", [[*each] for each in found])
    queued = {trial.user_attrs.get("start") for trial in study.trials}
    for number, (point, origin, source) in enumerate(study.user_attrs["starts"]):
        if number not in queued:
            table.queue(study, point, origin, source, start=number)


def _retry(study: "Study") -> None:
    """Let the points of failed trials be tried again, before any new one."""
    trials: dict[str, list[FrozenTrial]] = {}
    for trial in study.trials:
        point = json.dumps(table.trial_point(trial), sort_keys=True)
        trials.setdefault(point, []).append(trial)
    for same in trials.values():
        if {trial.state.name for trial in same} == {"FAIL"}:
            told = same[0].user_attrs
            table.queue(study, table.trial_point(same[0]), told["from"], told["source"])


def _trials(
    study: "Study", search: Search, budget: int, compute: Compute, tell: Tell
) -> Iterator[Job]:
    """A study's trials, those first that were running when it was stopped."""
    from optuna.trial import Trial

    left = [trial for trial in study.trials if trial.state.name == "RUNNING"]
    failed = table.count(study, "FAIL")  # before: this call's are to count, for it to end
    while left or len(study.trials) - table.count(study, "WAITING") - failed < budget:
        if left:
            trial = Trial(study, left.pop(0)._trial_id)
            point = table.settle(study, trial, search.variant.space)
        else:
            trial = table.ask(study, search)
            point = trial.params
        run = search.run(point)
        key = key_of(run, search.data.hash)
        trial.set_user_attr("key", key)
        shown = spaces.config_of(search.variant, point).items()
        shown_as = ", ".join(f"{name}={value}" for name, value in shown)
        task = Task(f"trial {trial.number} ({shown_as})", key, trial)
        rivals = table.rivals(study, trial, run.train.epochs)
        if (store.store_folder(compute.store) / key).exists():  # judged as if it were trained now
            outcome = store.load(key, store=compute.store, data=search.data, device="cpu")
            told, judge = valid_curve(outcome), table.judge(rivals, run.train.epochs)
            if over := table.stopped(told["values"], judge):
                told |= {"values": over, "value": None}
            tell(task, told)
        else:
            yield compute.job(task, run, search.data.hash, rivals)


def _tell(study: "Study", task: Task, result: Any, compute: Compute) -> None:
    """Put a trial's result into its study."""
    if isinstance(result, Exception):
        diverged = isinstance(result, DivergedError)  # the sampler is to avoid it
        table.fail(study, task.trial, result, pruned=diverged)
        over = diverged
    else:
        told = {name: result[name] for name in ("values", "value", "seconds")}
        table.tell(study, task.trial, **told)
        over = result["value"] is None
    if over:
        store.checkpoint_of(str(task.key), compute.store).unlink(missing_ok=True)


def _rows(keys: list[str], spent: int, folder: Path, csv: Csv) -> pd.DataFrame:
    """Rows of runs, in this order, of the store's or else as the file has them."""
    found = kept_rows([key for key in keys if (folder / key).exists()], trials=spent, store=folder)
    if csv and Path(csv).exists():
        text = read_as_text(csv)[[*RUNS]]
        more = text[text["key"].isin({*keys} - {*found["key"]})].assign(trials=spent)
        more = more.replace({name: {"": "nan"} for name in ADDED})
        kinds: dict[str, Any] = dict.fromkeys([n for n in RUNS if "@" in n or n in ADDED], float)
        kinds |= {"seconds": float}
        kinds |= {"seed": int, "negatives": int, "best_epoch": int, "trials": "Int64"}
        parts = [part for part in (found, more.astype(kinds)) if len(part)]
        found = pd.concat(parts) if parts else found
    order = {key: number for number, key in enumerate(keys)}
    return found.sort_values("key", key=lambda each: each.map(order), ignore_index=True)


def _studies(url: str, folder: Path) -> Any:
    """Optuna's storage; its tables are made by one process: two that begin at once both fail."""
    with store.lock_of(folder / "studies"):
        return need("optuna", "tune").storages.get_storage(url)


@contextmanager
def _alone_at(study: str, storage: str, folder: Path) -> Iterator[None]:
    """One client at a study: two would each train on what the other is at, and spend its budget.

    The lock is on a file in the store; the process stands beside it, for the message alone.

    Raises:
        SearchError: another process has it.
    """
    path = folder / hashlib.sha256(f"{storage} {study}".encode()).hexdigest()[:16]
    owner = path.with_suffix(".owner")
    try:
        with store.lock_of(path).acquire(blocking=False):
            owner.write_text(f"process {os.getpid()} on {platform.node()}")
            yield
    except Timeout:
        who = owner.read_text() if owner.exists() else "another process"
        raise SearchError(
            f"{study} is being tuned by {who}: wait for it or stop it, and the same command "
            "continues"
        ) from None
