"""What a search begins with: what others found for the same loss, for every loss alike.

- `published`: the settings that papers and benchmarks print for the cell (data set, backbone,
  loss); of a data set of that name but another split, a "transfer".
- `transfers`: this loss's best on valid on each of the other data sets that have been run.
- DrRL also has the optima of SL and CCL, see `spaces.mapped`, and the point halfway between.

Published settings stand in `data/published/others_hyperparameters.csv` as their authors print them
and are translated here, see `translated`. What is not searched, such as the weight decay of cosine
losses (it changes lengths, which cosines do not have), is left out; what is not stated is as by
default.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from drrl_core.lab import runs
from drrl_core.lab.spaces import Search, changes, run_of, settings_of
from drrl_core.paper import evidence
from drrl_core.paper import published as tables
from drrl_core.train.trainer import TrainConfig

TABLE = "others_hyperparameters.csv"


class Start(NamedTuple):
    """A point to begin with, where it is from (`from` in `trials`), and whose it is."""

    point: dict[str, float]
    origin: str
    source: str


def translated(row: pd.Series) -> dict[str, float]:
    """A published setting in our conventions, by full names.

    - τ of half the cosine is half of ours: (s/2)/τ = s/(2τ). PSL's alone stays: ours is of halves
      too. Whether negatives are summed or averaged, and their number N, shift a log-sum-exp by a
      constant and leave τ as it is.
    - CCL's weight multiplies a mean over the negatives, as ours does, whatever N. (Of a sum it
      would be N times as large; so would DrRL's c.)
    - AdvInfoNCE's negatives are K·N·Σ q_j e^(n_j/τ), with q summing to one: K·N is kept, and our N
      is smaller.
    - Weight decay w of Adam pulls every row at every step, our l2 the rows that a batch has, each
      positive pair's two and, as a mean, the negatives': of tables of equal lengths the penalties
      are w/2·(U + I) and l2/2·3 squared lengths, so that l2 = w·(U + I)/3.
    - Adam at another batch size: lr goes with the square root of it.
    - LLPAUC's scalars move at the model's lr in the published code, here at dual_lr.

    Args:
        row: of `table`.

    >>> row = {"variant": "sl", "params": "lr=0.01 tau=0.1", "cosine": "half", "batch": 256}
    >>> translated(pd.Series(row))
    {'train.lr': 0.02, 'loss.temperature': 0.2}
    """
    own = {name: float(text) for name, text in (each.split("=") for each in row["params"].split())}
    twice, base = 2 if row["cosine"] == "half" else 1, TrainConfig()
    found = {"train.lr": own["lr"] * math.sqrt(base.batch_size / row["batch"])}
    if wd := own.get("wd"):
        found["train.l2"] = wd * (row["users"] + row["items"]) / 3
    names = {"tau": "temperature", "tau1": "temperature_pos", "tau2": "temperature"}
    for name in own.keys() & names.keys():
        factor = 1 if row["variant"] == "psl" else twice
        found[f"loss.{names[name]}"] = factor * own[name]
    names = {"margin": "margin", "weight": "weight", "alpha": "share_pos", "beta": "share_neg"}
    found |= {f"loss.{names[name]}": own[name] for name in own.keys() & names.keys()}
    if row["variant"] == "llpauc":
        found["train.dual_lr"] = found["train.lr"]
    if "K" in own:
        found["loss.scale"] = own["K"] * row["negatives"] / base.negatives
    if "lr_adv" in own:
        found["train.dual_lr"] = own["lr_adv"]
    return found


def table() -> pd.DataFrame:
    """The published settings that a search can begin with, as their authors print them.

    Returns:
        dataset, split: "same" or "other" than ours; backbone, variant, params; cosine: "full",
        "half" or "dot", what τ divides; negatives, batch, users, items; source.

    >>> sorted(set(table()["split"]))
    ['other', 'same']
    """
    return pd.read_csv(tables.folder() / TABLE)


def published(search: Search) -> list[Start]:
    """The settings that are printed for the cell, those of its own split first."""
    rows, cell = table(), [search.data.name, search.backbone, search.name]
    rows = rows[(rows[["dataset", "backbone", "variant"]] == cell).all(axis=1)]
    rows = rows.sort_values("split", ascending=False, kind="stable")
    origins = {"same": "published", "other": "transfer"}
    return [
        Start(search.point(translated(row)), origins[row["split"]], row["source"])
        for _, row in rows.iterrows()
    ]


def share_pairs(one: str, other: str) -> bool:
    """Whether two data sets are made of the same pairs, by their names.

    >>> share_pairs("amazon-electronics-temporal", "amazon-electronics")
    True
    >>> share_pairs("amazon-beauty", "amazon-electronics")
    False
    """
    return one == other or one.startswith(f"{other}-") or other.startswith(f"{one}-")


def transfers(search: Search, csv: str | Path | None) -> list[Start]:
    """This variant's best on valid NDCG@20 on each other data set that a file of runs has.

    Of tunings alone, on the same backbone where there is one, at the share of false negatives that
    is nearest, with all else as in this search; of runs that would have the same key today.
    """
    if not csv or not Path(csv).exists():
        return []
    rows, own = evidence.read_runs(csv), search.run()
    rows = rows[(rows["variant"] == search.name) & (rows["data_hash"] != search.data.hash)]
    rows = rows[rows["trials"].notna()]  # a sweep tried more than a budget allows
    shared = rows["dataset"].map(lambda name: share_pairs(name, search.data.name))
    rows = rows[~shared.astype(bool)]
    rows = rows.assign(
        other=rows["backbone"] != search.backbone, far=(rows["noise"] - own.train.noise).abs()
    ).sort_values(["other", "far", "valid_ndcg@20", "key"], ascending=[True, True, False, True])
    found = {}
    for _, row in rows.iterrows():
        if row["dataset"] not in found and (run := _alike(row, search, own)):
            source = f"{row['dataset']}, {row['backbone']}: {row['key']}"
            found[row["dataset"]] = Start(search.point(run.settings), "transfer", source)
    return [*found.values()]


def _alike(row: pd.Series, search: Search, own: runs.Run) -> runs.Run | None:
    """A row's run, where it differs in no more than what is searched, and is still what it was."""
    try:
        run = run_of(row)
    except ValueError:  # of settings that there are no more
        return None
    if runs.key(run, row["data_hash"]) != row["key"]:
        return None
    free = search.searched | {"train.seed", "train.noise"}
    here, there = ({"loss": r.loss_parameters, "train": r.parameters["train"]} for r in (own, run))
    return run if {*changes(here, there)} <= free else None


def distinct(starts: Iterator[Start], search: Search) -> list[Start]:
    """Each point once, by its settings to four digits."""
    seen = {}
    for each in starts:
        seen.setdefault(str(settings_of(search.variant, each.point)), each)
    return [*seen.values()]


def known(
    search: Search, csv: str | Path | None, mapped: Callable[[], list[Start]], say: Callable
) -> list[Start]:
    """What a search begins with, in this order; the same point once.

    Args:
        search: what is searched.
        csv: a file of runs.
        mapped: gives DrRL's points at the optima of SL and CCL.
        say: told what there is not.
    """
    printed = published(search)
    if not any(each.origin == "published" for each in printed):
        say(f"{search.study}: no setting is published for it")
    more = mapped() if search.variant.loss == "drrl" else []
    return distinct([*printed, *transfers(search, csv), *more], search)
