"""Results: the tables that runs leave in a folder, which the paper's scorecard is made from.

    runs.csv            one row a run, with the columns in `RUNS`
    skew.csv            one row a run whose weights were measured: dataset, backbone, variant, seed,
                        k1, k2, truncated, effective_share, mass, users, order, held, key. order and
                        held (what was held fixed) are empty but for the runs of an order sweep;
                        mass (see `losses.mass`) where it was measured before it was recorded
    popularity.csv      what comes of turning b, how strongly popularity is put back: a row a run
                        and b, with the columns in `CURVES`
    per_user/KEY.csv.gz user, recall@20 and ndcg@20 on test, of the run KEY: for significance tests

The columns of runs.csv are

    key, dataset, data_hash         the run's key in the store; the data by name and content
    backbone, variant, loss         the variant as in `spaces.variants`, and the loss it is one of;
                                    of a classical model its name twice, and nothing
    settings                        JSON: what differs from the defaults, as `drrl train --set` says
    seed, sampler, negatives        not repeated in settings; of a classical model "none" and 0
    trials                          the budget of the tuning that the run belongs to; empty: none
    valid_recall@20, valid_ndcg@20, test_recall@20, test_ndcg@20    at the best epoch by valid NDCG
    best_epoch, seconds, device, torch, commit, finished            finished in UTC
    coverage ... gini_b             see `added_columns`
    raised                          see `run.raised`
"""

import gzip
import io
import json
import math
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from drrl_core import backbones, classical, datasets, losses
from drrl_core.common import write_whole
from drrl_core.lab.run import (
    ACCURACY,
    SPLITS,
    Outcome,
    Run,
    changes,
    configure,
    parse_value,
    raised,
)
from drrl_core.lab.spaces import variant_of
from drrl_core.lab.store import RunError, load, lock_of, record, table
from drrl_core.train import metrics
from drrl_core.train.diagnose import by_user

NEEDED = (  # the columns without which a file is no table of runs
    *("key", "dataset", "data_hash", "backbone", "variant", "loss", "settings", "seed"),
    *("sampler", "negatives", "trials", "valid_recall@20", "valid_ndcg@20", "test_recall@20"),
    *("test_ndcg@20", "best_epoch", "seconds", "device", "torch", "commit", "finished"),
)
ADDED = (  # numbers that rows from before popularity was recorded lack, see `added_columns`
    *("coverage", "mean_popularity", "gini", "b", "valid_recall@20_b", "valid_ndcg@20_b"),
    *("test_recall@20_b", "test_ndcg@20_b", "coverage_b", "mean_popularity_b", "gini_b"),
)
RUNS = (*NEEDED, *ADDED, "raised")
SKEW = ("dataset", "backbone", "variant", "seed", "k1", "k2", "truncated", "effective_share")
SIZES = ("radius", "weight", "eta", "temperature")  # a DrRL run sets one of them
WEIGHED = ("k1", "k2", "truncated", "effective_share", "mass", "users")
CURVES = (
    *("key", "b", "valid_recall@20", "valid_ndcg@20", "test_recall@20", "test_ndcg@20"),
    *("coverage", "mean_popularity", "gini"),
)
NO_RUNS = pd.DataFrame(columns=[*RUNS, "noise", "config"])
NO_SKEW = pd.DataFrame(columns=[*SKEW, "mass", "users", "order", "held", "key"])
NO_CURVES = pd.DataFrame(columns=[*CURVES])


def read_runs(path: str | Path, *, refit: str = "none") -> pd.DataFrame:
    """The runs in `runs.csv` that count.

    Left out are runs of another protocol (`train.mask`, `train.refit`), and runs of an earlier
    version of their loss, their backbone or the trainer (`run.raised`): today they would give other
    numbers.

    Args:
        path: the file.
        refit: which protocol's: "train+valid" are the runs that were trained on valid too.

    Returns:
        The columns in `RUNS`, and two made from settings: noise, the share of false negatives, and
        config, the other settings as JSON. No row where there is no file.

    Raises:
        ValueError: it is no table of runs, has a run twice, or one name for two contents.
    """
    if not (path := Path(path)).exists():
        return NO_RUNS
    read_as_text(path)  # raises if it is no table of runs
    rows = pd.read_csv(path, dtype={"key": str}).reindex(columns=RUNS)
    rows = rows.astype({"raised": object, "loss": object})
    rows["loss"] = rows["loss"].fillna("")  # of a classical model
    rows = rows[_current(rows)]
    if (doubt := rows.groupby("dataset")["data_hash"].nunique() > 1).any():
        raise ValueError(f"{path}: {doubt.idxmax()} stands for data of different content")
    try:
        settings = [json.loads(text) for text in rows["settings"]]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: a row's settings are no JSON: {error}") from None
    noise = [float(own.pop("train.noise", 0)) for own in settings]
    config = [json.dumps(own, sort_keys=True) for own in settings]
    protocol = [
        own.get("train.mask", "train") == "train" and own.get("train.refit", "none") == refit
        for own in settings
    ]
    rows = rows.assign(noise=np.array(noise, float), config=config)
    return rows[np.array(protocol, bool)]


def read_as_text(path: str | Path) -> pd.DataFrame:
    """Every row of `runs.csv`, each value as the text in the file; empty where a column is missing.

    Raises:
        ValueError: it is no table of runs, or has a run twice, which would count as another seed.
    """
    rows = read_text(path, "runs", NEEDED).reindex(columns=[*RUNS], fill_value="")
    if (twice := rows["key"].duplicated()).any():
        raise ValueError(f"{path}: {rows['key'][twice].iloc[0]} stands in two rows: keep one")
    return rows


def _current(rows: pd.DataFrame) -> np.ndarray:
    """Which rows the same configuration would give again today, bool."""
    told = zip(rows["raised"].fillna(""), rows["backbone"], rows["loss"], strict=True)
    ours = {*backbones.REGISTRY, *losses.REGISTRY, *classical.REGISTRY}

    def current(text: str, *names: str) -> bool:
        # One from outside that is not registered here is not imported because a table says so.
        return not any(":" in name for name in {*names} - ours) and text == raised(*names)

    return np.array([current(*each) for each in told], bool)


def read_text(path: str | Path, kind: str, columns: Iterable[str]) -> pd.DataFrame:
    """A CSV file, each value as its text; ValueError where it is no table of its kind."""
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no table of {kind}: {error}") from None
    need_columns(rows, columns, path)
    return rows


def need_columns(rows: pd.DataFrame, columns: Iterable[str], path: str | Path) -> None:
    """Raise ValueError where a table that was read from `path` lacks a column."""
    if missing := [name for name in columns if name not in rows]:
        raise ValueError(f"{path}: no column {', '.join(missing)}")


def selected_runs(rows: pd.DataFrame) -> pd.DataFrame:
    """The runs that stand for each loss: those of one configuration, selected on validation.

    One configuration is selected for each data set, backbone, variant and share of false negatives.
    Candidates are those that were tuned (all, where none was). Of these, the ones with the most
    seeds, because a mean over many seeds is not one lucky seed; and then the one with the highest
    mean NDCG@20 on validation. Among false negatives it is the configuration selected without them,
    where there is one: the question is how a loss does as it was tuned.

    Args:
        rows: as `read_runs` returns them.
    """
    cell, config = ["dataset", "backbone", "variant"], ["sampler", "negatives", "config"]
    group = [*cell, "noise"]

    def tuned(rows: pd.DataFrame) -> pd.DataFrame:
        these = rows["trials"].notna()
        return rows[these | ~these.groupby([rows[name] for name in group]).transform("any")]

    def best(rows: pd.DataFrame) -> pd.DataFrame:
        found = rows.groupby(group + config, as_index=False).agg(
            seeds=("seed", "nunique"), valid=("valid_ndcg@20", "mean")
        )
        found = found.sort_values(
            ["seeds", "valid", *config], ascending=[False, False, *[True] * 3]
        )
        return found.dropna(subset="valid").drop_duplicates(group)

    clean = rows["noise"] == 0
    selected = best(tuned(rows[clean]))
    as_selected, has_selected = (
        pd.MultiIndex.from_frame(rows[names]).isin(pd.MultiIndex.from_frame(selected[names]))
        for names in ([*cell, "config"], cell)
    )
    rows = pd.concat([tuned(rows[clean | ~has_selected]), rows[~clean & as_selected]])
    return rows.merge(best(rows)[group + config])


def order_sweeps(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """The sweeps of the order γ: runs of DrRL that differ in the order and the seed alone.

    Args:
        rows: as `read_runs` returns them; those among false negatives are left out.

    Returns:
        The rows of each sweep of at least four orders, sorted by order and seed. Two columns are
        added: order; and held, the size of the ball that was held fixed, such as "weight=2".
    """
    rows = rows[(rows["noise"] == 0) & (rows["loss"] == "drrl")]
    own = [json.loads(text) for text in rows["config"]]
    order = [float(settings.pop("loss.order", 2)) for settings in own]
    sizes = [{n: s[f"loss.{n}"] for n in SIZES if f"loss.{n}" in s} or {"weight": 1} for s in own]
    held = [f"{name}={value}" for each in sizes for name, value in each.items()]
    rows = rows.assign(order=order, held=held, others=[json.dumps(settings) for settings in own])
    groups = rows.groupby(["dataset", "backbone", "sampler", "negatives", "others"])
    found = [each.drop(columns="others").sort_values(["order", "seed"]) for _, each in groups]
    return [each for each in found if each["order"].nunique() >= 4]


def run_of(row: pd.Series) -> Run:
    """The run that a row of `runs.csv` tells of.

    >>> row = pd.Series({"dataset": "synthetic", "loss": "drrl", "backbone": "mf", "seed": 3})
    >>> row["settings"] = '{"loss.order": "inf"}'
    >>> run = run_of(pd.concat([row, pd.Series({"sampler": "per-row", "negatives": 8})]))
    >>> run.loss_config["order"], run.train.seed, run.train.negatives
    (inf, 3, 8)
    """
    names = ("seed", "sampler", "negatives") if row["loss"] else ("seed",)
    config = {f"train.{name}": row[name] for name in names}
    for name, value in json.loads(row["settings"]).items():
        config[name] = parse_value(value) if isinstance(value, str) else value
    backbone = row["backbone"] if row["loss"] else row["variant"]  # it may stand beside a backbone
    return configure(row["dataset"], row["loss"], backbone, config)


def kept_rows(
    keys: Iterable[str] | None = None,
    *,
    trials: int | None = None,
    store: str | Path | None = None,
) -> pd.DataFrame:
    """Kept runs as rows of `runs.csv`.

    Args:
        keys: which, in this order; all of the store by default.
        trials: the budget they were tuned with, if they were.
        store: see `store.store_folder`.

    >>> list(kept_rows([])) == list(RUNS)
    True
    """
    rows = []
    for key in table(store)["key"] if keys is None else keys:
        about = record(key, store=store)
        own = about["parameters"]
        plain = configure(about["dataset"], about["loss"], about["backbone"])
        settings = changes(plain.config, own)
        row = {name: about[name] for name in RUNS if name in about}
        without = {"sampler": "none", "negatives": 0}  # of a classical model
        for name in ("seed", "sampler", "negatives"):
            settings.pop(f"train.{name}", None)
            row[name] = (without | own["train"])[name]
        variant = variant_of(about["loss"], own["loss"]) or about["backbone"]
        row |= {"variant": variant, "trials": trials}
        row |= {f"{split}_{name}": v for split in SPLITS for name, v in about[split].items()}
        row |= {"settings": json.dumps(settings), "torch": about["versions"]["torch"]}
        rows.append(row | added_columns(about))
    return pd.DataFrame(rows, columns=list(RUNS)).astype({"trials": "Int64"})


def added_columns(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record tells since popularity is put back, as columns of `runs.csv`.

    Returns:
        coverage, mean_popularity, gini of the test users' lists; b; accuracy on valid and test
        with b, such as test_ndcg@20_b; the lists' three with b, such as gini_b; raised, such as
        "loss 2". What an older record does not tell is left out.

    >>> about = {"b": 0.3, "lists": {"gini": 1}}
    >>> added_columns({"raised": "loss 2", "popularity": about})
    {'raised': 'loss 2', 'b': 0.3, 'gini': 1}
    """
    about = record.get("popularity") or {}
    row = {"raised": record.get("raised", "")}
    row |= {"b": about["b"]} if "b" in about else {}
    row |= about.get("lists", {})
    row |= {f"{name}_b": value for name, value in about.get("lists_b", {}).items()}
    for split in SPLITS:
        row |= {f"{split}_{name}_b": value for name, value in about.get(split, {}).items()}
    return row


def merge(found: pd.DataFrame, path: str | Path) -> None:
    """Add rows to a file of runs, by key; a run that was tuned for before keeps its `trials`.

    Several may merge into one file at once: they wait for each other, see `store.lock_of`.
    """
    path, text = Path(path), io.StringIO(found.to_csv(index=False))
    found = pd.read_csv(text, dtype=str, keep_default_na=False)
    with lock_of(path):
        if path.exists():
            before = read_as_text(path)
            known = found["key"].map(before.set_index("key")["trials"]).fillna("")
            found["trials"] = found["trials"].where(found["trials"] != "", known)
            found = pd.concat([before[~before["key"].isin(found["key"])], found])
        order = ["dataset", "backbone", "variant", "sampler", "negatives", "finished", "key"]
        write_whole(path, found.sort_values(order).to_csv(index=False).encode())


def keys_in(path: str | Path | None) -> set[str]:
    """The keys of the runs that a file of runs has; none where there is no file."""
    return {*read_as_text(path)["key"]} if path and Path(path).exists() else set()


def accuracy_by_user(outcome: Outcome) -> pd.DataFrame:
    """Each user's Recall and NDCG on test, and with popularity put back where the record has a b.

    Returns:
        A row a user with test items: recall@20, ndcg@20 and, with b, recall@20_b, ndcg@20_b.

    >>> from drrl_core.lab.run import execute
    >>> outcome = execute(configure("synthetic", config={"epochs": 1}), progress=False)
    >>> list(accuracy_by_user(outcome))
    ['recall@20', 'ndcg@20', 'recall@20_b', 'ndcg@20_b']
    """
    data, found = outcome.data, outcome.fit.test[list(ACCURACY)]
    b = (outcome.record.get("popularity") or {}).get("b")
    if b is None:
        return found
    told = outcome.rankings
    with_b = metrics.accuracy(told["ranked"](data.test, b, told["masks"]), data.test)
    return found.join(with_b[list(ACCURACY)].add_suffix("_b"))


def harvest(
    folder: str | Path = "data/results",
    *,
    users: int | None = None,
    data: Mapping[str, datasets.Interactions] = MappingProxyType({}),
    store: str | Path | None = None,
    data_dir: str | Path | None = None,
) -> dict[str, str]:
    """Put beside `runs.csv` what the scorecard asks of the runs that count, as the store has them.

    For the selected runs (`selected_runs`) that is each user's accuracy on test, for tests of
    significance; for those without noise, what comes of putting popularity back, and, as for order
    sweeps (`order_sweeps`), where the weight goes: k1, k2 and the like, each user's negatives being
    all items without a train pair. What the
    folder has already stays as it is, also of runs that no longer count: nothing reads it, but the
    store may not be able to give it again.

    Args:
        folder: with `runs.csv`; `skew.csv`, `popularity.csv` and `per_user` are written there, the
            same bytes for the same runs.
        users: weights are averaged over so many users; None: over all with a train pair.
        data: by name, what cannot be loaded by it: a file has another path than name.
        store: see `store.store_folder`.
        data_dir: see `datasets.data_folder`.

    Returns:
        Key -> why, of the runs whose numbers are still missing.

    Raises:
        ValueError: there is no `runs.csv`, or it is refused by `read_runs`.
    """
    folder = Path(folder)
    if not (folder / "runs.csv").exists():
        raise ValueError(f"{folder} has no runs.csv: drrl tune and drrl sweep write it with --csv")
    rows = read_runs(folder / "runs.csv")
    selected = selected_runs(rows)
    with_loss = (selected["noise"] == 0) & (selected["loss"] != "")
    plain = selected[with_loss].assign(order=math.nan, held="")
    weighed = pd.concat([plain, *order_sweeps(rows)])
    before = read_skew(folder / "skew.csv")
    values: dict[Any, Any] = (
        before.drop_duplicates("key").set_index("key")[[*WEIGHED]].to_dict("index")
    )

    @cache
    def data_of(name: str) -> datasets.Interactions:
        return data[name] if name in data else datasets.load(name, data_dir=data_dir)

    missing = {}
    curves = read_curves(folder / "popularity.csv")
    wanted = pd.concat([selected, weighed]).drop_duplicates("key").set_index("key")
    to_weigh = {*weighed["key"]} - values.keys()
    with_b = selected["b"].notna() & (selected["noise"] == 0)
    to_turn = {*selected["key"][with_b]} - {*curves["key"]}
    for key, row in tqdm(wanted.iterrows(), "harvest", len(wanted), unit="run", disable=None):
        path = folder / "per_user" / f"{key}.csv.gz"
        to_write = key in {*selected["key"]} and not _has_columns(path, with_b=pd.notna(row["b"]))
        if not (to_write or key in to_weigh or key in to_turn):
            continue
        try:
            record(key, store=store)  # before its data are looked for
            outcome = load(key, store=store, data=data_of(row["dataset"]), device="cpu")
        except (RunError, datasets.DataError) as error:
            missing[key] = str(error)
            continue
        if to_write:
            text = accuracy_by_user(outcome).to_csv(float_format="%.5g")
            write_whole(path, gzip.compress(text.encode(), mtime=0))
        if key in to_weigh:
            values[key] = mean_weights(outcome, users)
        if key in to_turn:
            curves = _with_curve(folder / "popularity.csv", curves, key, outcome)
    _write_skew(folder / "skew.csv", weighed, values, before)
    return missing


def _with_curve(path: Path, curves: pd.DataFrame, key: str, outcome: Outcome) -> pd.DataFrame:
    """The table of what comes of turning b, with a run more; written at once, for it takes long."""
    turned = outcome.turned().reset_index().assign(key=key)
    curves = pd.concat([curves, turned])[[*CURVES]] if len(curves) else turned[[*CURVES]]
    text = curves.sort_values(["key", "b"]).to_csv(index=False, float_format="%.5g")
    write_whole(path, text.encode())
    return curves


def _read_beside(path: str | Path, needed: Iterable[str], empty: pd.DataFrame) -> pd.DataFrame:
    """A table beside `runs.csv`, with the columns of `empty`, which stands for no file."""
    if not Path(path).exists():
        return empty
    rows = pd.read_csv(path, dtype={"key": str})
    need_columns(rows, needed, path)
    return rows.reindex(columns=[*empty])


def read_curves(path: str | Path) -> pd.DataFrame:
    """`popularity.csv`, what comes of turning b; no row where there is no file.

    Raises:
        ValueError: a column is missing.
    """
    return _read_beside(path, CURVES, NO_CURVES)


def read_skew(path: str | Path) -> pd.DataFrame:
    """`skew.csv`; no row where there is no file. What a file of before lacks is empty.

    Raises:
        ValueError: a column is missing.
    """
    rows = _read_beside(path, SKEW, NO_SKEW)
    return rows.assign(held=rows["held"].astype(object).fillna(""))


def _write_skew(
    path: Path, weighed: pd.DataFrame, values: dict[Any, Any], before: pd.DataFrame
) -> None:
    """Write what was measured of the runs that are weighed now, and what was there of others."""
    ids = ["dataset", "backbone", "variant", "held", "order", "seed", "key"]
    found = pd.DataFrame.from_dict(values, "index", columns=[*WEIGHED]).rename_axis("key")
    found.index = found.index.astype(str)  # of no values, integers
    table = weighed[ids].merge(found.reset_index(), on="key").sort_values(ids)
    if len(before):
        table = pd.concat([table, before[~before["key"].isin(table["key"])]])
    table = table.sort_values(ids)[[*NO_SKEW]].astype({"users": int})
    write_whole(path, table.to_csv(index=False, float_format="%.6g").encode())


def mean_weights(outcome: Outcome, users: int | None) -> dict[str, float]:
    """Table 1's numbers and their like, means over users; a false negative is a test item.

    Args:
        users: over how many; None: all with a train pair.
    """
    rows = by_user(outcome, users=users)
    found = rows.assign(k2=rows["k2_test"], users=len(rows)).mean()
    return {name: float(found[name]) for name in WEIGHED}


def _has_columns(path: Path, *, with_b: bool) -> bool:
    """Whether a file of users is there, and has their accuracy with popularity put back."""
    if not path.exists():
        return False
    with gzip.open(path, "rt") as file:
        return not with_b or "ndcg@20_b" in file.readline().strip().split(",")
