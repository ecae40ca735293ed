"""Which model for one's own data, within minutes: classical models first, then losses.

Everything goes through the search (`tune`), in rounds of ever more trials; when a model's share of
the time is over it is stopped as Ctrl-C stops it, and the next round goes on from there. So there
is a table after every step, and the same call again goes on where this one ended.

Models are judged with popularity put back, at b chosen on valid for each (`train.popularity`): it
costs no training, and without it a comparison measures how much popularity a model lets through.
"""

import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from drrl_core import classical, datasets
from drrl_core.common import cores
from drrl_core.lab import store
from drrl_core.lab.results import read_runs
from drrl_core.lab.run import configure, execute
from drrl_core.lab.store import RunError
from drrl_core.lab.tune import tune
from drrl_core.lab.workers import Compute, SearchError
from drrl_core.train import DivergedError, metrics

LOSSES = ("sl", "ccl", "drrl")  # sl and ccl before drrl, which begins with their optima
ROUNDS = (1, 4, 10, 20)  # trials of a model by the end of each round
WARM, LOOK = 5, 4.0  # steps that are not timed; seconds to look at how long an epoch takes
# A process beside this one: what is stopped in the middle of a long sum can be killed there.
HERE = Compute(workers=1, threads=cores())
COLUMNS = (
    *("model", "trials", "seconds", "b", "valid_ndcg@20_b", "behind", "low", "high", "level"),
    *("test_recall@20", "test_ndcg@20", "test_recall@20_b", "test_ndcg@20_b", "coverage_b"),
    *("mean_popularity_b", "gini_b", "settings", "key"),
)


@dataclass(frozen=True)
class Choice:
    """What came of choosing.

    Attributes:
        data: what was chosen for.
        table: a row a model, the best on valid first, see `judged`.
        chosen: the recommended model; None where nothing was finished.
        reason: why, in words.
        missing: model -> why it is not in the table.
        minutes: the budget. spent: what it took.
    """

    data: datasets.Interactions = field(repr=False)
    table: pd.DataFrame = field(repr=False)
    chosen: str | None
    reason: str
    missing: dict[str, str]
    minutes: float
    spent: float


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise KeyboardInterrupt in this block, if it is not over by then; in the main thread alone.

    Where the system has no timer, what runs is waited for.

    >>> with limit(60):
    ...     pass
    """
    if not hasattr(signal, "setitimer"):
        yield
        return

    def over(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def seconds_an_epoch(dataset: str, data: datasets.Interactions, compute: Compute) -> float:
    """How long an epoch takes here, by a few steps of Softmax Loss on MF; at least a millisecond.

    >>> data = datasets.load("synthetic")
    >>> 0.001 <= seconds_an_epoch("synthetic", data, HERE) < 60
    True
    """
    run, ended = configure(dataset, "sl", config={"epochs": 1}), list[float]()

    def look(epoch: int, step: int, value: object) -> bool:
        ended.append(time.perf_counter())
        return step > WARM and ended[-1] - ended[WARM - 1] > LOOK

    execute(run, device=compute.device, data=data, on_step=look, progress=False)
    timed = ended[min(WARM, len(ended)) - 1 :]
    a_step = (timed[-1] - timed[0]) / max(1, len(timed) - 1)
    return max(1e-3, a_step * math.ceil(data.train.nnz / run.train.batch_size))


def choose(
    dataset: str,
    *,
    minutes: float = 30,
    folder: str | Path,
    names: Sequence[str] = (*classical.REGISTRY, *LOSSES),
    compute: Compute = HERE,
    tell: Callable[[Choice], object] = lambda choice: None,
) -> Choice:
    """Which model ranks best on these data, of those that so many minutes can tell apart.

    A classical model first has up to half of the time that is left, and needs little of it; for the
    rest every model has an equal share, and what it does not need the others have. A loss, on MF,
    is trained for as many epochs as a quarter of its share holds, 100 at most.

    Args:
        dataset: a name, or the path of a file, perhaps with options; it needs valid pairs.
        minutes: the budget, > 0; what runs at its end is stopped.
        folder: `runs.csv` and `trials.csv` of the searches go there.
        names: classical models and variants of losses, in this order.
        compute: what computes; with no process of its own, what runs is stopped between two sums.
        tell: called with what is known after every step.

    Returns:
        The last choice. It is made on valid alone, see `recommended`.

    Raises:
        ValueError: minutes are not above 0, or the data have no valid pairs.
    """
    if not minutes > 0:
        raise ValueError(f"minutes must be above 0, not {minutes}")
    began, folder = time.monotonic(), Path(folder)
    data = datasets.load(dataset, data_dir=compute.data_dir)
    if not data.valid.nnz:
        raise ValueError(f"{data.name} has no valid pairs: there is nothing to choose by")
    missing = {name: "its turn did not come" for name in names}
    epochs, known = 0, Choice(data, pd.DataFrame(), None, "", missing, minutes, 0.0)
    for trials in ROUNDS:
        for number, name in enumerate(names):
            left = 60 * minutes - (time.monotonic() - began)
            if left <= 0:
                return known
            first = trials == ROUNDS[0] and name in classical.REGISTRY
            share = left / (2 if first else len(names) - number)
            config: dict[str, object] = {}
            if name not in classical.REGISTRY:
                if not epochs:
                    speed = seconds_an_epoch(dataset, data, compute)
                    epochs = min(100, max(1, int(share / 4 / speed)))
                config = {"epochs": epochs, "evaluate_every": min(5, epochs)}
            _step(dataset, name, trials, share, config, folder, compute, missing)
            table = judged(folder / "runs.csv", data, names, compute)
            for each in table["model"] if len(table) else ():
                missing.pop(each, None)
            chosen, reason = recommended(table)
            spent = (time.monotonic() - began) / 60
            known = Choice(data, table, chosen, reason, dict(missing), minutes, spent)
            tell(known)
    return known


def _step(
    dataset: str,
    name: str,
    trials: int,
    seconds: float,
    config: dict[str, object],
    folder: Path,
    compute: Compute,
    missing: dict[str, str],
) -> None:
    """Carry on a model's search for so many seconds; what cannot be run says why."""
    try:
        with limit(seconds):
            tune(
                dataset,
                name,
                trials=trials,
                config=config,
                popularity="auto",
                csv=folder / "runs.csv",
                compute=compute,
            )
    except KeyboardInterrupt:
        if name in missing:
            missing[name] = f"not one training was finished in its {seconds:.0f} s"
    except (ValueError, SearchError, DivergedError, MemoryError) as error:
        if name in missing:
            missing[name] = str(error).strip().splitlines()[-1].strip()


def judged(
    csv: Path, data: datasets.Interactions, names: Sequence[str], compute: Compute
) -> pd.DataFrame:
    """The best trial of each model by valid NDCG@20 with b, set beside the best of all.

    Returns:
        A row a model, the best on valid first. trials, those that were finished; seconds of the
        training; b; behind, by how much valid NDCG@20 with b lies behind the leader's, with low and
        high, the 95% interval of `metrics.compare` (paired over users; not of chance in training);
        level: the interval holds zero. Test accuracy without b and with it (_b), what the lists
        with b consist of, settings, key.
    """
    rows = read_runs(csv)
    rows = rows[(rows["data_hash"] == data.hash) & rows["variant"].isin(names) & rows["b"].notna()]
    rows = rows.sort_values(["valid_ndcg@20_b", "key"], ascending=[False, True])
    trials, best = rows.groupby("variant").size(), rows.drop_duplicates("variant")
    users: list[pd.DataFrame] = []
    found: list[dict[str, Any]] = []
    for _, row in best.iterrows():
        try:
            outcome = store.load(row["key"], store=compute.store, data=data, device="cpu")
        except RunError:  # kept elsewhere
            continue
        users.append(outcome.on_valid(row["b"])[["ndcg@20"]])
        line = {name: row[name] for name in COLUMNS if name in row}
        line |= {"model": row["variant"], "trials": int(trials[row["variant"]])}
        gap = metrics.compare(users[0], users[-1], samples=2_000).loc["ndcg@20"]
        line |= {"behind": gap["difference"], "low": gap["low"], "high": gap["high"]}
        found.append(line | {"level": bool(gap["low"] <= 0)})
    return pd.DataFrame(found, columns=list(COLUMNS))


def recommended(table: pd.DataFrame) -> tuple[str | None, str]:
    """The model to take, and why: of those level with the leader on valid, the cheapest to train.

    Args:
        table: as `judged`.

    >>> rows = [("ease", 0.0, True, 3.0), ("sl", 0.001, True, 60.0), ("popularity", 0.05, False, 1)]
    >>> table = pd.DataFrame(rows, columns=["model", "behind", "level", "seconds"])
    >>> recommended(table.assign(low=0.0, high=0.002))[0]
    'ease'
    """
    if not len(table):
        return None, "Nothing was finished in this time: give it more minutes."
    leader, level = table.iloc[0], table[table["level"]]
    cheapest = level.sort_values("seconds").iloc[0]
    name = str(cheapest["model"])
    if len(level) == 1:
        if len(table) == 1:
            return name, f"{name} is the only one that was finished."
        second = table.iloc[1]
        return name, (
            f"{name} is ahead: {second['model']}, the next, lies {second['behind']:.4f} behind in "
            f"NDCG@20 on valid, each with its b (95% interval {second['low']:.4f} to "
            f"{second['high']:.4f})."
        )
    others = ", ".join(each for each in level["model"] if each != name)
    first = (
        f"it also leads on valid; {others} cannot be told from it."
        if name == leader["model"]
        else f"{leader['model']} leads by {cheapest['behind']:.4f} in NDCG@20 on valid, no more "
        f"than the choice of users explains (95% interval {cheapest['low']:.4f} to "
        f"{cheapest['high']:.4f})."
    )
    return name, (
        f"A tie of {', '.join(level['model'])}: of these {name} is the cheapest to train, in "
        f"{cheapest['seconds']:.1f} s; {first}"
    )


def command(row: pd.Series, dataset: str) -> str:
    """The command that trains a row of the table again.

    >>> row = pd.Series({"model": "ease", "settings": '{"backbone.l2": 90.0}', "b": 0.2})
    >>> command(row, "my.csv")
    "drrl train 'my.csv' --model ease --set backbone.l2=90.0 --popularity 0.2"
    """
    option = "--model" if row["model"] in classical.REGISTRY else "--loss"
    words = [f"drrl train '{dataset}' {option} {row['model']}"]
    words += [f"--set {name}={value}" for name, value in json.loads(row["settings"]).items()]
    words += [f"--popularity {row['b']:g}"] * bool(row["b"])
    return " ".join(words)
