"""What a search begins with: what others found for the same loss, for every loss alike.

- `published`: what papers and benchmarks print for the cell (data set, backbone, loss); of a data
  set of that name but another split, a "transfer".
- `transfers`: this loss's best on valid on each of the other data sets that have been run.
- The defaults of a classical model, whose searches have no published ones.
- `optima`: DrRL also has the optima of SL and CCL, see `point_of`, and the point halfway between.

Published hyper-parameters stand in `data/published/others_hyperparameters.csv` as their authors
print them and are translated here, see `translated`. What is not searched, such as the weight decay
of cosine losses (it changes lengths, which cosines do not have), is left out; what is not stated is
as by default.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from drrl_core import classical, dro
from drrl_core.common import own_file
from drrl_core.lab import spaces, store
from drrl_core.lab.results import read_runs, run_of
from drrl_core.lab.run import Outcome, Run, changes, key_of
from drrl_core.lab.spaces import Search, Variant, config_of
from drrl_core.lab.sweep import into_store
from drrl_core.lab.trials import spent
from drrl_core.lab.workers import Compute
from drrl_core.train import TrainConfig
from drrl_core.train.diagnose import negative_scores


class Start(NamedTuple):
    """A point to begin with, where it is from (`from` in `trials`), and whose it is."""

    point: dict[str, float]
    origin: str
    source: str


def known(
    search: Search,
    csv: str | Path | None,
    optima: Callable[[], list[Start]],
    say: Callable[[str], object],
) -> list[Start]:
    """What a search begins with, in this order; the same point once.

    Args:
        search: what is searched.
        csv: a file of runs.
        optima: gives DrRL's points at the optima of SL and CCL.
        say: told what there is not.
    """
    if not search.variant.loss:
        own = classical.hyperparameters(search.backbone)
        point = {name: float(own[name.partition(".")[2]]) for name in search.variant.space}
        return distinct([Start(point, "default", ""), *transfers(search, csv)], search)
    printed = published(search)
    if not any(each.origin == "published" for each in printed):
        say(f"{search.study}: no setting is published for it")
    more = optima() if search.variant.loss == "drrl" else []
    return distinct([*printed, *transfers(search, csv), *more], search)


def distinct(starts: Iterable[Start], search: Search) -> list[Start]:
    """Each point once, to four digits."""
    seen: dict[str, Start] = {}
    for each in starts:
        seen.setdefault(str(config_of(search.variant, each.point)), each)
    return [*seen.values()]


def published(search: Search) -> list[Start]:
    """What is printed for the cell, those of its own split first."""
    rows, cell = table(), [search.data.name, search.backbone, search.name]
    rows = rows[(rows[["dataset", "backbone", "variant"]] == cell).all(axis=1)]
    rows = rows.sort_values("split", ascending=False, kind="stable")
    origins = {"same": "published", "other": "transfer"}
    return [
        Start(search.point(translated(row)), origins[row["split"]], row["source"])
        for _, row in rows.iterrows()
    ]


def table() -> pd.DataFrame:
    """The published hyper-parameters that a search can begin with, as their authors print them.

    Returns:
        dataset, split: "same" or "other" than ours; backbone, variant, params; cosine: "full",
        "half" or "dot", what τ divides; negatives, batch, users, items; source.

    >>> sorted(set(table()["split"]))
    ['other', 'same']
    """
    return pd.read_csv(own_file("tables", "published") / "others_hyperparameters.csv")


def translated(row: pd.Series) -> dict[str, float]:
    """Published hyper-parameters in our conventions, by full names.

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


def transfers(search: Search, csv: str | Path | None) -> list[Start]:
    """This variant's best on valid NDCG@20 on each other data set that a file of runs has.

    Of tunings alone, on the same backbone where there is one, at the share of false negatives that
    is nearest, with all else as in this search; of runs that would have the same key today.
    """
    if not csv or not Path(csv).exists():
        return []
    rows, own = read_runs(csv), search.run()
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
            found[row["dataset"]] = Start(search.point(run.flat_config), "transfer", source)
    return [*found.values()]


def share_pairs(one: str, other: str) -> bool:
    """Whether two data sets are made of the same pairs, by their names.

    >>> share_pairs("amazon-electronics-temporal", "amazon-electronics")
    True
    >>> share_pairs("amazon-beauty", "amazon-electronics")
    False
    """
    return one == other or one.startswith(f"{other}-") or other.startswith(f"{one}-")


def _alike(row: pd.Series, search: Search, own: Run) -> Run | None:
    """A row's run, where it differs in no more than what is searched, and is still what it was."""
    try:
        run = run_of(row)
    except ValueError:  # of hyper-parameters that there are no more
        return None
    if key_of(run, row["data_hash"]) != row["key"]:
        return None
    free = search.searched | {"train.seed", "train.noise"}
    here, there = ({"loss": r.loss_config, "train": r.config["train"]} for r in (own, run))
    return run if {*changes(here, there)} <= free else None


def optima(
    search: Search,
    storage: Any,
    csv: str | Path | None,
    compute: Compute,
    say: Callable[[str], object],
) -> list[Start]:
    """Where DrRL is SL and CCL at their optima, see `point_of`, and halfway.

    Args:
        search: of a DrRL variant.
        storage: Optuna's, where the searches of SL and CCL may be.
        csv: a file of runs, where they may be too.
        compute: trains an optimum that the store lacks.
        say: told of an optimum that is not found.
    """
    found = []
    given = {name: v for name, v in search.given.items() if not spaces.is_of("drrl", name)}
    for loss in ("sl", "ccl"):
        try:
            other = spaces.plan(search.data, search.dataset, loss, search.backbone, given)
            other = replace(other, with_b=search.with_b)
            outcome, took = _optimum(other, storage, csv, compute)
        except (KeyError, ValueError, store.RunError):
            why = "first tune it, with all else equal"
            say(f"{search.name} does not begin with {loss}'s optimum: {why}")
            continue
        if point := point_of(outcome, search.variant, search.negatives):
            found.append(Start(point, loss, took))
    if len(found) == 2:
        middle = halfway(found[0].point, found[1].point, search.variant)
        took = " and ".join(each.source for each in found)
        found.append(Start(middle, "halfway", took))
    return found


def _optimum(
    search: Search, storage: Any, csv: str | Path | None, compute: Compute
) -> tuple[Outcome, str]:
    """The best of a search, trained, and what it took: its study's, else that of a file of runs.

    Raises:
        RunError, ValueError, KeyError: there is no such study, no finished trial, no run, no row.
    """
    import optuna

    try:
        study = optuna.load_study(study_name=search.study, storage=storage)
        key = study.best_trial.user_attrs["key"]
        outcome = store.load(key, store=compute.store, data=search.data)
        return outcome, f"{search.name}'s {spent(study)} trials"
    except (KeyError, ValueError, store.RunError):
        if not csv or not Path(csv).exists():
            raise
    run, trials = _best_recorded(search, csv)
    key = key_of(run, search.data.hash)
    into_store({key: run}, f"{search.name}'s optimum in {csv}", compute=compute)
    outcome = store.load(key, store=compute.store, data=search.data)
    return outcome, f"{search.name}'s {trials} trials"


def _best_recorded(search: Search, csv: str | Path) -> tuple[Run, int]:
    """The best on valid of the tuned rows of a file that differ from a search in nothing else, and
    how many trials it took."""
    rows, own = read_runs(csv), search.run()
    line = {"data_hash": search.data.hash, "backbone": own.backbone, "variant": search.name}
    rows = rows[(rows[[*line]] == pd.Series(line)).all(axis=1) & (rows["seed"] == own.train.seed)]
    rows = rows[rows["trials"].notna()].sort_values(["valid_ndcg@20", "key"], ascending=False)
    for _, row in rows.iterrows():
        run = replace(run_of(row), dataset=search.dataset)
        if {*changes(own.config, run.config)} <= search.searched:
            return run, int(row["trials"])
    raise store.RunError(f"{csv} has no {search.name} that was tuned so")


def point_of(outcome: Outcome, variant: Variant, negatives: int) -> dict[str, float] | None:
    """The point of a DrRL variant that is a trained SL or CCL: tuned DrRL then contains both.

    - CCL is order ∞, here 151: c is its weight and β its margin, which stays (lowest dual_lr).
      An exact β has no margin: the radius is the one that the margin amounts to.
    - SL is the penalty at order 1, here 1.02, with its own τ. For a ball, the radius that its τ
      amounts to; a β that stays is that ball's own, far below the scores, where (f - β)^(γ*-1) is
      all but exp(f/τ).

    What differs per user is the median of 100 users' N sampled negatives.

    Args:
        outcome: a trained SL or CCL.
        variant: of DrRL.
        negatives: N.

    Returns:
        The point, which may lie outside the search space where β or c must; None where there is
        none: CCL is no penalty.
    """
    own = outcome.record["parameters"]
    exact = variant.fixed["loss.dual"] == "exact"
    scores = negative_scores(outcome, negatives=negatives)
    point = {"train.lr": own["train"]["lr"], "train.dual_lr": 1e-5}
    if outcome.record["loss"] == "ccl":
        if "loss.temperature" in variant.space:
            return None
        margin, weight = own["loss"]["margin"], own["loss"]["weight"]
        point |= {"loss.order-1": 150.0, "loss.start": margin}
        point["loss.radius"] = dro.radius_from_weight(weight, 151.0)
        if exact:
            radius = dro.radius_of_margin(scores, margin, 151.0).nanmedian().item()
            point["loss.radius"] = variant.space["loss.radius"].clip(radius)
    else:
        tau = own["loss"]["temperature"]
        radius = dro.radius_of_temperature(scores, tau).median().item()
        beta = dro.worst_case(scores, order=1.02, radius=radius).dual.median().item()
        point |= {"loss.order-1": 0.02, "loss.temperature": tau}
        point |= {"loss.radius": radius, "loss.start": beta}
    return {name: value for name, value in point.items() if name in variant.space}


def halfway(one: dict[str, float], other: dict[str, float], variant: Variant) -> dict[str, float]:
    """The middle of two points, each put into the search space first, on the scale of its ranges.

    >>> one = {"loss.temperature": 0.1, "train.lr": 0.001}
    >>> middle = halfway(one, {"loss.temperature": 9, "train.lr": 0.01}, spaces.variants(64)["sl"])
    >>> round(middle["loss.temperature"], 3), round(middle["train.lr"], 5)
    (0.2, 0.00316)
    """
    point = {}
    for name, each in variant.space.items():
        a, b = (each.clip(end[name]) for end in (one, other))
        point[name] = math.sqrt(a * b) if each.log else (a + b) / 2
    return point
