"""What was predicted here before it was run: `predictions.csv` of a folder of results, judged.

A line there has a data set, backbone and variant, a quantity, the range in which it was predicted
to lie (an end left empty: none), the value where there was one, and the day on which it was written
down; the repository's history has the commit, which is older than the runs.
"""

import json
import math
from typing import Any

import pandas as pd

from drrl_core.lab.results import need_columns, selected_runs
from drrl_core.paper import findings
from drrl_core.paper.evidence import Evidence

SOURCE = "Predicted here, before it was run"
FILE = "predictions.csv"
COLUMNS = ("dataset", "backbone", "variant", "quantity", "low", "predicted", "high", "written")
COMMAND = "drrl sweep data/sweeps/{dataset}_{backbone}_push.yaml --csv data/results/runs.csv"

CLAIMS = {  # quantity -> the sentence
    "gain": "Popularity put back raises its NDCG@20 on test: the gain in percent",
    "b": "b, chosen on valid after training",
    "mean_popularity_b": "Mean popularity of its lists at that b",
    "push": "The push that is best on valid, without b",
}


def measured(e: Evidence, line: pd.Series) -> tuple[float, float, float]:
    """What came of a prediction: the value, and its 95% interval where it has one; else NaN.

    Args:
        line: of `predictions.csv`.
    """
    cell = (line["dataset"], line["backbone"], 0.0)
    rows = e.runs[(e.runs["dataset"] == cell[0]) & (e.runs["backbone"] == cell[1])]
    rows = rows[(rows["noise"] == 0) & rows["b"].notna()]
    pushed = line["quantity"] == "push"
    wanted = ["sl", line["variant"]] if pushed else [line["variant"]]
    rows = rows[rows["variant"].isin(wanted)]
    if rows["variant"].nunique() < len(wanted):
        return math.nan, math.nan, math.nan
    if line["quantity"] == "gain":
        return findings.differences(e, cell, (wanted[0], True), (wanted[0], False))
    selected = selected_runs(rows)
    if pushed:
        best = selected.loc[selected["valid_ndcg@20"].idxmax(), "config"]
        return float(json.loads(best).get("loss.push", 1.0)), math.nan, math.nan
    return float(selected[line["quantity"]].mean()), math.nan, math.nan


def rows(e: Evidence) -> list[dict[str, Any]]:
    """A row of the scorecard for every prediction; "not run" where nothing came of it yet.

    A gain holds where its whole interval lies within what was predicted, all else where its value
    does; the ends themselves are outside.

    Raises:
        ValueError: the file lacks a column, or names a quantity that is none of `CLAIMS`.

    >>> from drrl_core.paper import evidence
    >>> rows(evidence.measured("nowhere"))
    []
    """
    if e.folder is None or not (path := e.folder / FILE).is_file():
        return []
    found = []
    table = pd.read_csv(path)
    need_columns(table, COLUMNS, path)
    if strange := {*table["quantity"]} - {*CLAIMS}:
        known = ", ".join(CLAIMS)
        raise ValueError(f"{path}: quantity {', '.join(strange)}: there are: {known}")
    for _, line in table.iterrows():
        ours, low, high = measured(e, line)
        ends = [line[end] if line[end] == line[end] else None for end in ("low", "high")]
        told = [value for value in (low, ours, high) if not math.isnan(value)]
        above = ends[0] is None or all(value > ends[0] for value in told)
        below = ends[1] is None or all(value < ends[1] for value in told)
        verdict = "claim holds" if above and below else "does not hold"
        sign = {(True, False): "above {0:g}", (False, True): "below {1:g}"}
        words = sign.get((ends[0] is not None, ends[1] is not None), "{0:g} to {1:g}")
        own = {name: line[name] for name in ("dataset", "backbone")}
        row = {"id": "predicted." + ".".join([line["quantity"], *own.values(), line["variant"]])}
        row |= {"source": SOURCE, "claim": CLAIMS[line["quantity"]], **own}
        row |= {"loss": line["variant"], "metric": line["quantity"], "ours": ours}
        row |= {"low": low, "high": high, "verdict": verdict if told else "not run"}
        row |= {"note": f"predicted on {line['written']}: {words.format(*(x or 0 for x in ends))}"}
        found.append(row | {"command": COMMAND.format(**own)})
    return found
