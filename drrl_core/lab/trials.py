"""The trials of a study: a table that rebuilds it, the next point, and when one is stopped.

`trials.csv` stands beside the file of runs, one row a trial, whatever came of it:

    study, number                       which trial of which study
    dataset, data_hash, backbone, variant
    from                                where its point is from: "published", "transfer" (another
                                        data set), "sl", "ccl", "halfway", "default" (of a
                                        classical model) or "sampler"
    source                              of these: a paper, or a run here and what it took
    params                              the point, JSON, with all digits
    state                               Optuna's: COMPLETE, PRUNED (diverged ones are, with their
                                        error), FAIL, RUNNING, or WAITING for its turn
    epochs, value, values               trained; best valid NDCG@20; JSON, [epoch, valid NDCG@20]
    key                                 of its run
    seconds, finished, versions, error

A study is this table and nothing more: each trial is decided by the rows before it alone, the seed
and its number. So a store that is lost, or another machine's, makes no difference.
"""

import json
import math
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from drrl_core.common import need, write_whole
from drrl_core.lab import results
from drrl_core.lab.run import versions
from drrl_core.lab.spaces import Search
from drrl_core.lab.store import lock_of
from drrl_core.losses import Range

if TYPE_CHECKING:  # an extra
    from optuna import Study
    from optuna.distributions import FloatDistribution
    from optuna.trial import FrozenTrial, Trial

COLUMNS = (
    *("study", "number", "dataset", "data_hash", "backbone", "variant", "from", "source"),
    *("params", "state", "epochs", "value", "values", "key", "seconds", "finished", "versions"),
    "error",
)
IDS = ["study", "number"]
TOLD = ("from", "source", "key", "seconds", "finished", "versions", "error")  # as attributes
STARTUP = 5  # trials, those from elsewhere included, before TPE has a say
EARLIEST, FIRST, REDUCTION, FEW = 10, 0.15, 2, 3  # see `judge`
Curve = list[tuple[int, float]]


def beside(csv: str | Path) -> Path:
    """The table of trials that belongs to a file of runs.

    >>> beside("data/results/runs.csv").as_posix()
    'data/results/trials.csv'
    """
    path = Path(csv).with_name("trials.csv")
    if path == Path(csv):
        raise ValueError(f"{csv} is where the trials go: give the file of runs another name")
    return path


def read(path: str | Path) -> pd.DataFrame:
    """A table of trials as text, to the last digit.

    Raises:
        ValueError: it is none, or has a trial twice.
    """
    rows = results.read_text(path, "trials", COLUMNS)
    if (twice := rows.duplicated(IDS)).any():
        study, number = rows.loc[twice, IDS].iloc[0]
        raise ValueError(f"{path}: trial {number} of {study} stands in two rows: keep one")
    return rows


def read_beside(csv: str | Path) -> pd.DataFrame | None:
    """The table of trials that belongs to a file of runs, as `read`; None where there is none."""
    path = beside(csv)
    return read(path) if path.exists() else None


def trial_point(trial: "FrozenTrial") -> dict[str, float]:
    """Where a trial is in its space, from the moment that it is planned."""
    point: dict[str, float] = trial.system_attrs.get("fixed_params") or trial.params
    return point


def count(study: "Study", *states: str) -> int:
    """How many trials are in one of these states, by Optuna's names."""
    return sum(trial.state.name in states for trial in study.trials)


def spent(study: "Study") -> int:
    """Of the budget: trials that were begun, but for those that failed by no fault of theirs."""
    return count(study, "RUNNING", "COMPLETE", "PRUNED")


def rows_of(study: "Study", search: Search) -> pd.DataFrame:
    """A study's trials as rows of the table, text throughout."""
    about = {"study": search.study, "dataset": search.data.name, "data_hash": search.data.hash}
    about |= {"backbone": search.backbone, "variant": search.name}
    rows = []
    for trial in study.trials:
        values = sorted(trial.intermediate_values.items())
        told = {name: trial.user_attrs.get(name, "") for name in TOLD}
        row = about | told | {"number": trial.number, "params": json.dumps(trial_point(trial))}
        row |= {"state": trial.state.name, "values": json.dumps(values)}
        row |= {"epochs": values[-1][0] if values else "", "value": ""}
        if trial.state.name == "COMPLETE":
            row["value"] = repr(trial.value)
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS).astype(str)


def merge(found: pd.DataFrame, csv: str | Path) -> None:
    """Add rows to the table beside a file of runs, by study and number."""
    with lock_of(Path(csv)):
        if (before := read_beside(csv)) is not None:
            mine = pd.MultiIndex.from_frame(found[IDS])
            found = pd.concat([before[~pd.MultiIndex.from_frame(before[IDS]).isin(mine)], found])
        found = found.assign(order=found["number"].astype(int)).sort_values(["study", "order"])
        write_whole(beside(csv), found[[*COLUMNS]].to_csv(index=False).encode())


def _frozen(row: pd.Series, space: dict[str, Range]) -> "FrozenTrial":
    """A row as Optuna has a trial. One that has not ended is to be begun again."""
    from optuna.trial import TrialState, create_trial

    point, state = json.loads(row["params"]), TrialState[row["state"]]
    over = state.is_finished()
    return create_trial(
        state=state if over else TrialState.WAITING,
        value=float(row["value"]) if row["value"] else None,
        params=point if over else {},
        distributions={name: within(space[name], point[name]) for name in point if over},
        user_attrs={name: row[name] for name in TOLD if row[name] != ""},
        system_attrs={"fixed_params": point},
        intermediate_values={int(epoch): value for epoch, value in json.loads(row["values"])},
    )


def restored(study: "Study", search: Search, csv: str | Path | None) -> "Study":
    """The study with what the table has of it and the storage has not; the table has the last word.

    Raises:
        ValueError: the table's numbers leave out a trial.
    """
    import optuna

    if not csv or (rows := read_beside(csv)) is None:
        return study
    rows = rows[rows["study"] == search.study]
    known = {trial.number: trial for trial in study.trials}
    theirs = {int(row["number"]): _frozen(row, search.variant.space) for _, row in rows.iterrows()}
    new = {n: trial for n, trial in theirs.items() if trial.state.is_finished() or n not in known}
    if not any(n not in known or not known[n].state.is_finished() for n in new):
        return study
    known |= new
    if missing := set(range(len(known))) - known.keys():
        why = f"{search.study} has no row for trial {min(missing)}: put it back"
        raise ValueError(f"{beside(csv)}: {why}")
    name, storage = study.study_name, study._storage
    optuna.delete_study(study_name=name, storage=storage)
    study = optuna.create_study(study_name=name, storage=storage, direction="maximize")
    study.set_user_attr("starts", [])  # they are among the rows
    study.add_trials([known[number] for number in sorted(known)])
    return study


def tell(
    study: "Study",
    trial: "Trial",
    *,
    values: Curve,
    value: float | None,
    seconds: float | None,
) -> None:
    """Put a trial's result into its study; value None: it was stopped."""
    from optuna.trial import TrialState

    known = study.trials[trial.number].intermediate_values  # of a client that was stopped here
    for epoch, each in values:
        if epoch not in known:
            trial.report(each, epoch)
    _note(trial, seconds=seconds)
    if value is None:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, value)


def fail(study: "Study", trial: "Trial", error: Exception, *, pruned: bool) -> None:
    """A trial that ended with an error; pruned: the sampler is to avoid its point."""
    from optuna.trial import TrialState

    _note(trial, error=str(error))
    study.tell(trial, state=TrialState.PRUNED if pruned else TrialState.FAIL)


def _note(trial: "Trial", **more: object) -> None:
    more |= {"finished": datetime.now(UTC).isoformat(timespec="seconds")}
    kept = {name: text for name, text in versions().items() if name in ("drrl-core", "torch")}
    more["versions"] = json.dumps(kept | {"optuna": need("optuna", "tune").__version__})
    for name, value in more.items():
        if value is not None:
            trial.set_user_attr(name, value)


def within(each: Range, value: float) -> "FloatDistribution":
    """A range as Optuna has it, wide enough for a value from elsewhere."""
    from optuna.distributions import FloatDistribution

    return FloatDistribution(min(each.low, value), max(each.high, value), log=each.log)


def queue(
    study: "Study", point: dict[str, float], origin: str, source: str = "", **more: object
) -> None:
    """Put a point into a study, to be tried when its turn comes."""
    study.enqueue_trial(point, {"from": origin, "source": source, **more})


def ask(study: "Study", search: Search) -> "Trial":
    """The study's next trial: the first that waits, else one at a point that TPE chooses.

    TPE is asked apart from the storage: it sees the trials before, is seeded by their number, and
    its point is in the study whole before the trial begins. So a stop at any moment, or a study
    that was rebuilt, changes nothing.
    """
    import optuna

    space = search.variant.space
    if not any(trial.state.name == "WAITING" for trial in study.trials):
        state = [search.run().train.seed, len(study.trials)]
        seed = int(np.random.SeedSequence(state).generate_state(1)[0])
        sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=STARTUP, constant_liar=True
        )
        apart = optuna.create_study(direction="maximize", sampler=sampler)
        apart.add_trials(study.trials)
        free = {name: within(each, each.low) for name, each in space.items()}
        queue(study, apart.ask({**free}).params, "sampler")
    trial = study.ask()
    settle(study, trial, space)
    return trial


def settle(study: "Study", trial: "Trial", space: dict[str, Range]) -> dict[str, float]:
    """Have a trial's point in the storage, and what it is judged by; returns the point."""
    point = trial_point(study.trials[trial.number])
    for name, value in point.items():
        wide = within(space[name], value)
        trial.suggest_float(name, wide.low, wide.high, log=wide.log)
    if "rivals" not in trial.user_attrs:
        ended = (each for each in study.trials if each.state.is_finished())
        trial.set_user_attr("rivals", [each.number for each in ended if each.intermediate_values])
    return point


def rivals(study: "Study", trial: "Trial", epochs: int) -> list[Curve]:
    """What a trial is judged by: the best valid NDCG@20 by epoch of those that had ended when it
    began, finished ones up to the last epoch, wherever they stopped gaining."""
    found = []
    for number in trial.user_attrs["rivals"]:
        other = study.trials[number]
        best = best_so_far(sorted(other.intermediate_values.items()))
        if other.state.name == "COMPLETE" and best[-1][0] < epochs:
            best.append((epochs, best[-1][1]))
        found.append(best)
    return found


def best_so_far(values: Iterable[tuple[int, float]]) -> Curve:
    """The best value up to each epoch.

    >>> best_so_far([(5, 0.1), (10, 0.3), (15, 0.2)])
    [(5, 0.1), (10, 0.3), (15, 0.3)]
    """
    found = [*values]
    best = accumulate((value for _, value in found), max)
    return [(epoch, value) for (epoch, _), value in zip(found, best, strict=True)]


def judge(others: list[Curve], epochs: int) -> Callable[[int, float], bool]:
    """Whether a trial is to stop, as Optuna's `SuccessiveHalvingPruner` decides.

    Its rungs are at 15% of the epochs (ten at least), 30%, 60%: at each a trial stops unless its
    best so far is in the upper half of all that came so far. The first three are let through:
    Optuna would have each of them beat all before it, and what a search begins with would go by
    its first epochs. The pruner is asked in a study in memory, made of the others' curves and
    nothing else, so that it decides the same wherever and whenever it is asked.

    Hyperband was not taken: it has some trials skip the lower rungs, and TPE learn from each of its
    brackets apart, for which twenty trials are too few. A reduction by three costs a tenth less,
    and drops the best of twenty three times as often where early ranks are only roughly right.

    Args:
        others: as `rivals`.
        epochs: at most.

    Returns:
        A function of (epoch, valid NDCG@20), to be called in the order of the epochs.

    >>> others = [[(10, 0.2), (20, 0.3)], [(10, 0.1), (20, 0.2)], [(10, 0.1), (20, 0.4)]]
    >>> low = judge(others, 50)
    >>> [low(5, 0.05), low(10, 0.15), low(20, 0.25)]
    [False, False, True]
    """
    optuna = need("optuna", "tune")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    first = max(EARLIEST, round(FIRST * epochs))
    pruner = optuna.pruners.SuccessiveHalvingPruner(first, REDUCTION)
    study = optuna.create_study(direction="maximize", pruner=pruner)

    for curve in others:
        trial = study.ask()
        for epoch, value in curve:
            trial.report(value, epoch)
            while trial.should_prune():  # notes what it had at this rung; there may be a next
                pass
    trial, best = study.ask(), -math.inf

    def low(epoch: int, value: float) -> bool:
        nonlocal best
        best = max(best, value)
        trial.report(best, epoch)
        return trial.should_prune() and len(others) >= FEW and epoch < epochs

    return low


def stopped(values: Curve, low: Callable[[int, float], bool]) -> Curve | None:
    """Of a curve the part up to where it is stopped; None where it is not.

    >>> stopped([(1, 0.1), (2, 0.0), (3, 0.2)], lambda epoch, value: value == 0)
    [(1, 0.1), (2, 0.0)]
    """
    for count, (epoch, value) in enumerate(values, 1):
        if low(epoch, value):
            return values[:count]
    return None
