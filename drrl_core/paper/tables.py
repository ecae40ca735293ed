"""Tables of results in Markdown pages, made from the records whenever these change.

A page says where a table goes, and `fill` puts it there, between two comments:

    <!-- table: amazon-beauty mf -->
    <!-- end -->

`short` after the names leaves accuracy on test alone, of the losses that the paper has.
"""

import json
import math
import re

import pandas as pd

from drrl_core import classical, losses
from drrl_core.lab.results import selected_runs
from drrl_core.lab.run import ACCURACY
from drrl_core.paper import evidence

ALONE = {name: line.label for name, line in classical.REGISTRY.items()}
NAMES = {name: way.label for name, way in losses.variants().items()} | {
    "bsl-pooled": "BSL",
    "bsl": "BSL of one positive (SL times a number)",
    "drrl-shared": "DrRL, one β for all (w/o-P)",
    "drrl-fixed": "DrRL, fixed β (w/o-LP)",
    "drrl-penalty": "DrRL, penalty twin",
    **{name: f"*{label}*" for name, label in ALONE.items()},
}
FULL = (
    *("loss", "tuned to", "trials", "valid NDCG@20", "test Recall@20", "test NDCG@20", "b"),
    *("Recall / NDCG with b", "popular", "covers", "Gini", "seconds", "the paper: Recall / NDCG"),
)
SHORT = ("loss", "test Recall / NDCG", "Recall / NDCG with b", "seconds")
SHORT += ("the paper: Recall / NDCG",)
PLACE = re.compile(r"(<!-- table: (\S+) (\S+)( short)? -->\n)(.*?)(<!-- end -->)", re.S)


def _spread(values: pd.Series) -> str:
    """A mean and half its 95% interval over the seeds, by Student's t."""
    low, high = evidence.interval(values)
    half = "" if math.isnan(low) else f" ± {(high - low) / 2:.4f}"
    return f"{values.mean():.4f}{half}"


def _pair(values: pd.Series, digits: int = 4) -> str:
    return "–" if values.isna().any() else "/".join(f"{value:.{digits}f}" for value in values)


def table(rows: pd.DataFrame, dataset: str, backbone: str, *, short: bool = False) -> str:
    """The losses of one data set and backbone, and the classical models, which have none, as a
    Markdown table, the best on test first.

    Args:
        rows: as `results.read_runs` returns them; each loss's selected runs are shown.
        dataset, backbone: of the table.
        short: accuracy on test alone, of the losses that the paper has, those with fewer seeds
            than others left out, and of the classical models.

    Returns:
        Lines of Markdown. Means over the seeds, ± half a 95% interval (Student's t) where there
        are several. b is how strongly popularity is put back (`popularity`), the median of the
        seeds; popular, the mean train pairs of an item in the lists, without b → with it; covers,
        the share of the catalogue in them, and Gini, how unequal they share the places, likewise.
        seconds: of one training to its end. A dash: not recorded, or not printed.

    >>> from drrl_core.lab.results import NO_RUNS
    >>> table(NO_RUNS, "amazon-beauty", "mf")
    'Not run.\\n'
    """
    rows = evidence.beside_backbones(rows[rows["dataset"] == dataset])
    rows = rows[rows["backbone"] == backbone]
    selected = selected_runs(rows[rows["noise"] == 0]) if len(rows) else rows
    if selected.empty:
        return "Not run.\n"
    lines, printed = [], evidence.printed()
    missing = pd.Series([math.nan])
    cells_of = [(dataset, backbone, 0.0, metric) for metric in ACCURACY]
    paper = pd.DataFrame([printed.at(cell) for cell in cells_of])
    for variant, own in selected.groupby("variant"):
        settings = json.loads(own["config"].iloc[0]).items()
        tuned = " ".join(f"{name.split('.')[-1]}={value}" for name, value in settings)
        told = own[["coverage", "coverage_b", "mean_popularity", "mean_popularity_b"]].mean()
        gini = own[["gini", "gini_b"]].mean()
        known = own["b"].notna().all()
        arrow = "{:.{d}f} → {:.{d}f}".format
        cells = {
            "loss": NAMES.get(variant, variant),
            "tuned to": f"`{tuned}`",
            "trials": f"{own['trials'].max():.0f}" if own["trials"].notna().any() else "by hand",
            "valid NDCG@20": _spread(own["valid_ndcg@20"]),
            "test Recall@20": _spread(own["test_recall@20"]),
            "test NDCG@20": _spread(own["test_ndcg@20"]),
            "test Recall / NDCG": _pair(own[["test_recall@20", "test_ndcg@20"]].mean()),
            "b": f"{own['b'].median():g}" if known else "–",
            "Recall / NDCG with b": _pair(own[["test_recall@20_b", "test_ndcg@20_b"]].mean()),
            "popular": arrow(*told.iloc[2:], d=0) if known else "–",
            "covers": arrow(*told.iloc[:2], d=2) if known else "–",
            "Gini": arrow(*gini, d=2) if known else "–",
            "seconds": f"{own['seconds'].mean():.0f}",
            "the paper: Recall / NDCG": _pair(paper.get(variant, missing)),
        }
        lines.append((own["test_ndcg@20"].mean(), cells))
    if short:
        most = selected.groupby("variant")["seed"].nunique()
        most = {NAMES.get(name, name) for name in most.index[most == most.max()]}
        alone = {NAMES[name] for name in ALONE}
        lines = [
            each
            for each in lines
            if each[1]["loss"] in alone or (each[1]["loss"] in most and each[1][SHORT[-1]] != "–")
        ]
    lines.sort(key=lambda line: -line[0])
    columns = SHORT if short else FULL
    body = [f"| {' | '.join(cells[name] for name in columns)} |" for _, cells in lines]
    return "\n".join([f"| {' | '.join(columns)} |", "|" + "---|" * len(columns), *body, ""])


def fill(page: str, rows: pd.DataFrame) -> str:
    """A page with its tables made anew from the records.

    >>> from drrl_core.lab.results import NO_RUNS
    >>> fill("<!-- table: gowalla mf -->\\n<!-- end -->", NO_RUNS)
    '<!-- table: gowalla mf -->\\nNot run.\\n<!-- end -->'
    """

    def put(found: re.Match) -> str:
        start, dataset, backbone, short, _, end = found.groups()
        return start + table(rows, dataset, backbone, short=bool(short)) + end

    return PLACE.sub(put, page)
