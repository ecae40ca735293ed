"""What was found here beyond the paper: popularity, put back after training or let in during it.

Every finding is a sentence about one loss in one cell, with a number, its 95% interval over users
and a verdict. They were written down after the first runs had been seen, so none is a prediction.

The intervals are those of `metrics.compare`: paired over users, each user's accuracy being the mean
over the seeds. They do not know of the chance in training.
"""

import math
from collections.abc import Iterator

import pandas as pd

from drrl_core import classical
from drrl_core.lab.results import selected_runs
from drrl_core.paper.evidence import TOLERANCE, Evidence, beside_backbones
from drrl_core.train import metrics

METRIC = "ndcg@20"
REFERENCE = "sl"
SOURCE = "Found here"
COMMAND = "drrl notebook 11_three_dials"

LIFT = "Popularity put back after training, at b chosen on valid, raises its NDCG@20 on test"
LEVEL = "SL with b is not behind it with b"
POPULAR = "Ahead of SL as published, it lists more popular items than SL"
PUSH = "SL with push, without b, is level with SL with b: within 3%"


def differences(
    e: Evidence, cell: tuple, a: tuple[str, bool], b: tuple[str, bool]
) -> tuple[float, float, float]:
    """How far a is ahead of b on test NDCG@20, in percent of b, with its 95% interval over users.

    Args:
        cell: data set, backbone, share of false negatives.
        a, b: a variant, and whether with popularity put back.

    Returns:
        The difference, low and high; NaN where a run has no file of users with what is asked for.
    """
    users = []
    for variant, with_b in (a, b):
        name = METRIC + "_b" * with_b
        table = e.users((*cell, METRIC), variant, [name])
        if table is None:
            return math.nan, math.nan, math.nan
        users.append(table.set_axis([METRIC], axis=1))
    found = metrics.compare(*users, samples=2_000).loc[METRIC]
    low, ahead, high = (100 * found[name] / found["b"] for name in ("low", "difference", "high"))
    return ahead, low, high


def _told(rows: pd.DataFrame) -> str:
    """What b does to a loss's lists, in words."""
    b, before, after = rows[["b", "mean_popularity", "mean_popularity_b"]].mean()
    return f"b {b:.2g}; mean popularity of the lists {before:.0f}, with b {after:.0f}"


def _lift(e: Evidence, cell: tuple, variant: str, own: pd.DataFrame) -> dict:
    gain, low, high = differences(e, cell, (variant, True), (variant, False))
    return {"claim": LIFT, "metric": "gain in ndcg@20, %", "note": _told(own)} | {
        **{"ours": gain, "low": low, "high": high, "holds": low > 0},
    }


def _level(e: Evidence, cell: tuple, variant: str, own: pd.DataFrame) -> dict:
    lead, low, high = differences(e, cell, (REFERENCE, True), (variant, True))
    return {"claim": LEVEL, "metric": "lead of SL in ndcg@20, both with b, %"} | {
        **{"ours": lead, "low": low, "high": high, "holds": high >= 0},
    }


def _popular(e: Evidence, cell: tuple, own: pd.DataFrame, reference: pd.DataFrame) -> dict:
    ours, theirs = (rows["mean_popularity"].mean() for rows in (own, reference))
    return {"claim": POPULAR, "metric": "mean popularity of its lists over that of SL's"} | {
        **{"ours": ours / theirs, "holds": ours > theirs},
    }


def _push(e: Evidence, cell: tuple) -> dict:
    lead, low, high = differences(e, cell, ("sl-push", False), (REFERENCE, True))
    near = 100 * TOLERANCE
    return {"claim": PUSH, "metric": "lead of push in ndcg@20, %"} | {
        **{"ours": lead, "low": low, "high": high, "holds": -near < low and high < near},
    }


def _of_cell(e: Evidence, cell: tuple, runs: pd.DataFrame) -> Iterator[tuple[str, str, dict]]:
    """The findings of a cell: what kind, of which variant, and what is told."""
    by_variant = dict(list(runs[runs["variant"] != "popularity"].groupby("variant")))
    reference = by_variant.get(REFERENCE)
    for variant, own in by_variant.items():
        if own["b"].isna().any():
            continue
        if variant not in classical.REGISTRY or cell[1] == "mf":  # it has no backbone: told once
            yield "lift", variant, _lift(e, cell, variant, own)
        if reference is None or reference["b"].isna().any() or variant == REFERENCE:
            continue
        yield "level", variant, _level(e, cell, variant, own)
        ahead, low, _ = differences(e, cell, (variant, False), (REFERENCE, False))
        if low > 0:
            found = _popular(e, cell, own, reference)
            told = f"ahead of SL by {ahead:.1f}% as published"
            yield "popular", variant, found | {"note": told}
        if variant == "sl-push":
            yield "push", variant, _push(e, cell)


def rows(e: Evidence) -> list[dict]:
    """A row of the scorecard for every finding of every cell that was run with b.

    Without false negatives. `ours`, `low` and `high` are as `metric` says; "not run" stands where
    a file of users is missing.

    >>> from drrl_core.paper import evidence
    >>> rows(evidence.measured("nowhere"))
    []
    """
    found = []
    runs = e.runs[e.runs["noise"] == 0]
    selected = beside_backbones(selected_runs(runs)) if len(runs) else runs
    for (dataset, backbone), own in selected.groupby(["dataset", "backbone"]):
        for kind, variant, told in _of_cell(e, (dataset, backbone, 0.0), own):
            these = own[own["variant"] == variant]
            holds, known = told.pop("holds"), not math.isnan(told["ours"])
            row = {"id": f"found.{kind}.{dataset}.{backbone}.{variant}", "source": SOURCE}
            row |= {"dataset": dataset, "backbone": backbone, "loss": variant, **told}
            row |= {"seeds": these["seed"].nunique(), "trials": these["trials"].max()}
            row |= {
                "verdict": ("claim holds" if holds else "does not hold") if known else "not run"
            }
            found.append(row | {"command": COMMAND})
    return found


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """How many rows of the scorecard hold of each sentence, by data set and backbone.

    Args:
        table: of `scorecard.build`.

    Returns:
        A row a sentence, data set and backbone: holds, and of how many that were measured.
    """
    own = table[(table["source"] == SOURCE) & (table["verdict"] != "not run")]
    groups = (
        own["verdict"].eq("claim holds").groupby([own[n] for n in ("claim", "dataset", "backbone")])
    )
    return groups.agg(holds="sum", of="count").reset_index()
