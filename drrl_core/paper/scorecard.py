"""The scorecard: every number and every claim of the paper beside what was measured here.

It is made from a folder of results, see `evidence`, and from nothing else; the lemmas are checked
each time. What has no run says "not run", with the command that runs it. A claim is judged on the
cells that were measured, and a lead that is not significant counts as none.
"""

import json
import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from drrl_core.paper import evidence, findings, predictions, published
from drrl_core.paper.claims import CLAIMS as TEXT_CLAIMS
from drrl_core.paper.claims import COMPARISON, WEIGHT_SKEW, Claim
from drrl_core.paper.evidence import ACCURACY, BASELINES, TOLERANCE, VARIANTS, Evidence
from drrl_core.paper.lemmas import LEMMAS

COLUMNS = (
    *("id", "source", "claim", "dataset", "backbone", "loss", "metric", "paper", "ours", "low"),
    *("high", "seeds", "trials", "cells", "verdict", "note", "command"),
)
COMPARISON_COLUMNS = (
    *("paper", "ours", "low", "high", "difference", "seeds", "trials", "p", "seconds"),
)
FOUND = [  # the columns of what was found or predicted here
    *("source", "claim", "dataset", "backbone", "loss", "metric", "ours", "low", "high"),
    *("seeds", "verdict"),
    *("note", "command"),
]
CLAIMS: dict[str, Claim] = TEXT_CLAIMS | LEMMAS
NO_BACKBONE = "the paper states no backbone"
NOT_THEIRS = "a global-time split of the same data, for the paper's own is not published"
KITCHEN = (  # this data set as the command loads it: from a file of one's own, see data/README.md
    "ratings_Home_and_Kitchen.csv?min_rating=3&k_core=10&split=time&fractions=.6,.2,.2"
    "&name=amazon-kitchen-temporal"
)


def verdict(paper: float, ours: float, *, less_is_better: bool = False) -> str:
    """Whether a number was reproduced.

    >>> verdict(0.1, 0.102), verdict(0.1, 0.104), verdict(20.0, 25.0, less_is_better=True)
    ('reproduced within 3%', 'better', 'worse')
    """
    if math.isnan(ours):
        return "not run"
    if abs(ours / paper - 1) <= TOLERANCE + 1e-12:
        return "reproduced within 3%"
    return "better" if (ours > paper) != less_is_better else "worse"


def _gain_verdict(paper: float, ours: float) -> str:
    """`verdict` of 1 + gain, for gains in percent; but no loss reproduces a gain, however small."""
    return "worse" if ours <= 0 < paper else verdict(1 + paper / 100, 1 + ours / 100)


def comparison(
    e: Evidence,
    dataset: str,
    backbone: str = "mf",
    *,
    metric: str = "ndcg@20",
    noise: float = 0.0,
    among: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The losses side by side in one cell, ours and the paper's, the best of ours first.

    Args:
        among: the variants compared [default: all that were measured or are printed].

    Returns:
        A row a variant. paper; ours, the mean over the seeds; NaN where there is none. low and
        high, the 95% interval of ours. difference, ours over the paper's in percent. seeds. trials,
        the budget of the tuning. p of the test against the best of the others, see `Evidence.p`.
        seconds to train one seed.

    >>> comparison(evidence.measured("nowhere"), "amazon-beauty")["paper"].idxmax()
    'drrl'
    """
    cell = (dataset, evidence.backbone_name(backbone), noise, metric)
    ours, seconds = e.at(cell), e.runs.set_index("key")["seconds"]
    ours = ours if among is None else ours.reindex([*among])
    theirs = evidence.printed().at(cell).reindex(ours.index)

    def row(variant: str) -> dict:
        own, others = e.of(cell, variant), ours.drop(variant).dropna()
        low, high = evidence.interval(own["value"])
        known = len(own) and len(others)
        found = {"paper": theirs[variant], "ours": ours[variant], "low": low, "high": high}
        found["difference"] = 100 * (ours[variant] / theirs[variant] - 1)
        found |= {"seeds": len(own), "trials": own["trials"].max()}
        found["p"] = e.p(cell, variant, others.idxmax()) if known else math.nan
        return found | {"seconds": seconds.reindex(own["key"]).mean()}

    variants = ours.index[ours.notna() | theirs.notna()]
    found = pd.DataFrame([row(variant) for variant in variants], variants, COMPARISON_COLUMNS)
    return found.rename_axis("variant").sort_values(["ours", "paper"], ascending=False)


# ---------------------------------------------------------------------------------------------
# Rows


def _tuning_command(dataset: str, variant: str, backbone: str) -> str:
    """The command that tunes a loss, and trains the best with three seeds."""
    words = ["drrl", "tune", KITCHEN if dataset == "amazon-kitchen-temporal" else dataset]
    words += ["--loss", variant, "--backbone", backbone, "--trials", "20", "--seeds", "3"]
    return shlex.join([*words, "--csv", "data/results/runs.csv"])


def _training_command(run: pd.Series) -> str:
    """The command that trains a recorded run again."""
    words = ["drrl", "train", KITCHEN if "kitchen-temporal" in run["dataset"] else run["dataset"]]
    words += ["--backbone", run["backbone"], "--loss", run["loss"]]
    for name, value in json.loads(run["settings"]).items():
        words += ["--set", f"{name}={value}"]
    words += ["--sampler", run["sampler"], "--negatives", str(run["negatives"])]
    return shlex.join([*words, "--seed", str(run["seed"])])


def _number_row(e: Evidence, number: int, printed: pd.Series) -> dict:
    """A number of Tables 1 to 4, and ours."""
    dataset, metric, gain = printed["dataset"], printed["metric"], printed["loss"] == "Imp.%"
    cell, note = (dataset, evidence.backbone_name(printed["backbone"]), 0.0, metric), ""
    variant = "drrl" if gain else VARIANTS[printed["loss"]]
    own, less = e.of(cell, variant), metric in ("k1", "k2")
    values = own["value"]
    if gain:
        rivals = e.at(cell)[[*BASELINES]]
        rival = None if rivals.isna().any() else rivals.idxmax()
        other = e.of(cell, rival)["value"]
        mean = 100 * (values.mean() / other.mean() - 1)
        low, high = (100 * (end - 1) for end in evidence.ratio_interval(values, other))
        seeds = min(len(values), len(other))
        note = f"over {rival}" if rival else f"{rivals.notna().sum()} of 8 baselines run"
        judged = _gain_verdict(printed["value"], mean)
    else:
        mean, seeds = values.mean(), len(values)
        judged = verdict(printed["value"], mean, less_is_better=less)
        low, high = evidence.interval(values)
    if printed["backbone"] == "not stated":
        note = NO_BACKBONE + (f"; {NOT_THEIRS}" if number == 4 else "")
    run = e.runs[e.runs["key"].isin(own["key"])]
    if less:
        command = f"{WEIGHT_SKEW} -p dataset={dataset}"
    elif len(run):
        command = _training_command(run.sort_values("seed").iloc[0])
    else:
        command = _tuning_command(dataset, variant, cell[1])
    row = {"id": f"table{number}.{dataset}.{cell[1]}.{printed['loss']}.{metric}"}
    row |= {"source": f"Table {number}", "dataset": dataset, "backbone": cell[1]}
    row |= {"loss": printed["loss"], "metric": f"gain in {metric}, %" if gain else metric}
    row |= {"paper": printed["value"], "ours": mean, "low": low, "high": high}
    row |= {"seeds": 0 if math.isnan(mean) else seeds, "trials": own["trials"].max()}
    return row | {"verdict": judged, "note": note, "command": command}


def _average_row(gains: pd.DataFrame, metric: str, paper: float) -> dict:
    """The average gain on Gowalla over three backbones, which the text gives."""
    three = gains[(gains["dataset"] == "gowalla") & gains["metric"].str.contains(metric)]
    mean = three["ours"].mean(skipna=False)
    return dict(
        id=f"text.gowalla.{metric}",
        source="Experiments, overall",
        dataset="gowalla",
        loss="Imp.%",
        metric=f"gain in {metric}, %, mean over backbones",
        paper=paper,
        ours=mean,
        seeds=0 if math.isnan(mean) else three["seeds"].min(),
        verdict=_gain_verdict(paper, mean),
        note=f"Table 2's own improvements average {three['paper'].mean():.2f}",
        command=COMPARISON,
    )


def _claim_row(e: Evidence, paper: Evidence, name: str) -> dict:
    """A claim, judged on what was measured and on the paper's own numbers."""
    claim = CLAIMS[name]

    def judge(e: Evidence) -> tuple[int, int, tuple[str, float, bool]]:
        cells = claim.where(e) if callable(claim.where) else claim.where
        margins = np.array([claim.margin(e, cell) for cell in cells], float)
        known = margins[~np.isnan(margins)]
        return len(known), len(margins), claim.judge(known)

    (known, total, (shown, ours, holds)), (_, _, (_, theirs, _)) = judge(e), judge(paper)
    return dict(
        id=f"claim.{name}",
        source=claim.source,
        claim=claim.text,
        metric=shown,
        paper=theirs,
        ours=ours,
        cells=f"{known} of {total}" if total else "",
        verdict=("claim holds" if holds else "does not hold") if known else "not run",
        note=claim.note,
        command=claim.command,
    )


def number_rows(e: Evidence) -> pd.DataFrame:
    """A row for each number of the tables, and for the two averages in the text."""
    rows = [
        _number_row(e, number, one)
        for number in published.TABLES
        for _, one in published.table(number).iterrows()
    ]
    gains = pd.DataFrame([row for row in rows if row["loss"] == "Imp.%"])
    rows += [_average_row(gains, m, p) for m, p in zip(ACCURACY, (6.9, 5.2), strict=True)]
    return pd.DataFrame(rows, columns=COLUMNS)


def claim_rows(e: Evidence) -> pd.DataFrame:
    """A row for each claim and lemma."""
    paper = evidence.printed()
    return pd.DataFrame([_claim_row(e, paper, name) for name in CLAIMS], columns=COLUMNS)


def build(folder: str | Path = "data/results") -> pd.DataFrame:
    """The scorecard of a folder of results.

    Args:
        folder: see `evidence`.

    Returns:
        One row for each number and each claim of the paper, for each of `findings` and for each
        of `predictions`, with

        - paper: the number it prints; for a claim, what the same check finds in its own tables.
        - ours: the mean over the seeds; for a claim, what `metric` says.
        - low, high: the 95% interval over the seeds. trials: the budget of the tuning.
        - cells: how many of a claim's cells were measured.
        - verdict: "reproduced within 3%" (for a gain, of 1 + gain), "better", "worse" (lower k1 and
          k2 are better), "claim holds", "does not hold" or "not run".
        - command: makes the records; for a number that was run, trains its first seed again.

    Raises:
        ValueError: see `evidence.measured`.

    >>> build("nowhere")["verdict"].value_counts().to_dict()
    {'not run': 317, 'claim holds': 6}
    """
    e = evidence.measured(folder)
    rows = [*number_rows(e).to_dict("records"), *claim_rows(e).to_dict("records")]
    rows += findings.rows(e) + predictions.rows(e)
    return pd.DataFrame(rows, columns=COLUMNS).astype({"seeds": "Int64", "trials": "Int64"})


# ---------------------------------------------------------------------------------------------
# Page


def _html(rows: pd.DataFrame, columns, **options) -> str:
    """Rows as an HTML table, verdicts with their class."""
    options = {"index": False, "na_rep": "", "border": 0} | options
    text = rows[columns].to_html(float_format="{:.5g}".format, **options)
    for words, name in (
        ("reproduced within 3%|better|claim holds", "good"),
        ("worse|does not hold", "bad"),
        ("not run", "none"),
    ):
        text = re.sub(f"<td>({words})</td>", rf'<td class="{name}">\1</td>', text)
    return text


def page(table: pd.DataFrame) -> str:
    """The scorecard as an HTML page that needs no network.

    >>> page(build("nowhere")).count("<tr")
    336
    """
    own = table["source"].isin([findings.SOURCE, predictions.SOURCE])
    found, table = table[own], table[~own]
    is_claim = table["claim"].notna()
    counts = pd.crosstab(table["source"].where(~is_claim, "Claims"), table["verdict"])
    counts = counts.rename_axis(index=None, columns=None)
    shown = ["claim", "source", "metric", "paper", "ours", "cells", "verdict", "note", "command"]
    columns = [name for name in COLUMNS if name not in ("id", "source", "claim", "cells")]
    numbers = table[~is_claim].groupby("source")
    text = Path(__file__).with_name("scorecard.html.j2").read_text(encoding="utf-8")
    return jinja2.Template(text, autoescape=True, keep_trailing_newline=True).render(
        counts=_html(counts, list(counts), index=True),
        claims=_html(table[is_claim], shown),
        found=_html(found, FOUND) if len(found) else "",
        numbers=[(source, _html(rows, columns)) for source, rows in numbers],
    )
