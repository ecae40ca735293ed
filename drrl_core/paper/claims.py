"""The claims of the paper's text, and the check that decides each.

A claim is a function whose docstring is the claim, shortened. It takes the evidence and one cell
(or one sweep, or one series of cells), and returns a margin: positive where the claim holds there,
NaN where nothing was measured. Its decorator says where the paper makes the claim, at which cells
to look, and how the margins decide. To add a claim is to add such a function.

Two claims are not here, because no record could decide them: that learning β costs little, and
that the scores of users differ.
"""

import json
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from drrl_core.lab.results import order_sweeps, selected_runs
from drrl_core.paper import evidence
from drrl_core.paper.evidence import ACCURACY, BASELINES, CELL, TOLERANCE, Evidence


class Claim(NamedTuple):
    """A claim of the paper, and how it is checked.

    Attributes:
        source, text: where the paper makes the claim; the claim, shortened.
        where: the cells (or sweeps) to look at, or evidence -> these.
        margin: (evidence, cell) -> by how much the claim holds there, NaN where not measured.
        judge: the margins -> the name and value of what is shown, and whether the claim holds.
        command: makes the records that it needs.
        note: what a reader should know.
    """

    source: str
    text: str
    where: list | Callable[[Evidence], list]
    margin: Callable[[Evidence, tuple], float]
    judge: Callable[[np.ndarray], tuple[str, float, bool]]
    command: str
    note: str


CLAIMS: dict[str, Claim] = {}


def claim(
    source: str, where, judge: Callable, command: str, note: str = "", registry: dict = CLAIMS
) -> Callable:
    """Register a function as a claim, see the top of this module and `Claim`."""

    def register(margin: Callable) -> Callable:
        text = " ".join(margin.__doc__.split()).removesuffix(".")
        registry[margin.__name__] = Claim(source, text, where, margin, judge, command, note)
        return margin

    return register


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def everywhere(margins: np.ndarray) -> tuple[str, float, bool]:
    """The claim holds if it does in every cell."""
    return "share of cells", _mean(margins > 0), _mean(margins > 0) == 1


def mostly(margins: np.ndarray) -> tuple[str, float, bool]:
    """The claim holds if it does in more than half of the cells."""
    return "share of cells", _mean(margins > 0), _mean(margins > 0) > 0.5


def at_least(least: float) -> Callable:
    """The claim holds if the mean margin is at least so much."""
    return lambda margins: ("mean", _mean(margins), _mean(margins) >= least)


def at_most(most: float) -> Callable:
    """The claim holds if the mean margin is at most so much."""
    return lambda margins: ("mean", _mean(margins), _mean(margins) <= most)


# Where to look, where the paper says it, and what a reader should know: used more than once.
OVERALL, ABLATION, SHIFTED = map(evidence.cells, (2, 3, 4))
SKEWED = [cell[:3] for cell in evidence.cells(1) if cell[3] == "k2"]
IN_FIG_4, IN_FIG_5 = "Experiments, noisy data; Fig. 4", "Experiments, the impact of γ; Fig. 5"
IN_TABLE_3 = "Experiments, ablation; Table 3"
AS_TUNED = "as tuned without noise; the radius decides, see dro.breakdown_point"
FIG_1_NOTE = (
    "Fig. 1 shows two data sets and two backbones that the text does not name; here are all"
)
# The commands that make the records, named as the notebooks are.
WEIGHT_SKEW, TRUNCATION = "drrl notebook 03_weight_skew", "drrl notebook 04_truncation"
MARGINS, COMPARISON = "drrl notebook 05_margins", "drrl notebook 06_comparison"
FALSE_NEGATIVES = "drrl notebook 07_false_negatives"
SHIFT, GAMMA_SWEEP = "drrl notebook 08_distribution_shift", "drrl notebook 09_gamma_sweep"
UNIT_WEIGHT = "drrl tune amazon-beauty --loss drrl --set weight=1 --csv data/results/runs.csv"


@claim("Introduction; Fig. 1, caption", OVERALL, at_least(0.2), COMPARISON, FIG_1_NOTE)
def traditional(e, cell):
    """SL and CCL outperform traditional losses (MSE, BCE, BPR) by over 20% on average."""
    return e.mean(cell, "sl", "ccl") / e.mean(cell, "mse", "bce", "bpr") - 1


@claim("Experiments, overall; Table 2", OVERALL, everywhere, COMPARISON)
def best(e, cell):
    """DrRL consistently outperforms all compared methods across all data sets and backbones."""
    return e.best_lead(cell, "drrl", BASELINES)


@claim("Table 2, caption", OVERALL, everywhere, COMPARISON)
def stars(e, cell):
    """Each improvement over the best baseline is statistically significant, p < 0.05."""
    if e.printed:
        return 1.0  # each has its star
    lead, rivals = e.best_lead(cell, "drrl", BASELINES), e.at(cell)[[*BASELINES]]
    untested = lead > 0 and math.isnan(e.p(cell, "drrl", rivals.idxmax()))
    return math.nan if untested else lead


@claim("Experiments, overall", OVERALL, mostly, COMPARISON)
def robust(e, cell):
    """DRO-enhanced losses (SL, BSL, CCL, AdvInfoNCE, DrRL) are generally superior to others."""
    others = e.mean(cell, "mse", "bce", "bpr", "llpauc")
    return e.mean(cell, "sl", "bsl-pooled", "ccl", "advinfonce", "drrl") / others - 1


@claim("DrRL, subsumes SL and CCL", OVERALL, everywhere, COMPARISON)
def not_worse(e, cell):
    """DrRL performs at least not worse than SL and CCL."""
    worse = max(e.lead(cell, other, "drrl") for other in ("sl", "ccl"))
    return math.nan if math.isnan(e.mean(cell, "drrl", "sl", "ccl")) else 1.0 - 2 * (worse > 0)


def _unit_weight(e: Evidence) -> list[tuple]:
    """Cell and accuracy of DrRL at c = 1, the best on validation."""
    unit = [json.loads(text).get("loss.weight") == 1 for text in e.runs["config"]]
    rows = selected_runs(e.runs[np.array(unit, bool) & (e.runs["variant"] == "drrl")])
    means = rows.groupby(CELL[:3])[[f"test_{name}" for name in ACCURACY]].mean()
    stacked = means.set_axis(ACCURACY, axis=1).stack()
    return [(cell, value) for cell, value in stacked.items()]


@claim("DrRL, easy implementation", _unit_weight, mostly, UNIT_WEIGHT)
def unit_weight(e, found):
    """In many cases setting c = 1 yields satisfactory performance (within 3% of the tuned)."""
    return found[1] / e.mean(found[0], "drrl") - (1 - TOLERANCE)


@claim("Limitations of SL; Table 1", SKEWED, everywhere, WEIGHT_SKEW)
def skewed(e, cell):
    """In SL noisy data receive large weights, typically over 20 times the average."""
    return e.mean((*cell, "k2"), "sl") - 20


@claim("DrRL, robustness; Table 1", SKEWED, everywhere, WEIGHT_SKEW)
def less_skewed(e, cell):
    """The weights of noisy data are significantly smaller in DrRL than in SL."""
    return e.mean((*cell, "k2"), "sl") - e.mean((*cell, "k2"), "drrl")


@claim("Limitations of CCL; Fig. 2", SKEWED, mostly, TRUNCATION)
def filtered(e, cell):
    """CCL filters out over 90% of the negatives, often."""
    return e.mean((*cell, "truncated"), "ccl") - 0.9


@claim("DrRL, data utilization; Fig. 2", SKEWED, at_least(0.095), TRUNCATION)
def less_filtered(e, cell):
    """DrRL filters out 10% less than CCL on average (9.5 points at least)."""
    return e.mean((*cell, "truncated"), "ccl") - e.mean((*cell, "truncated"), "drrl")


def _sweeps(e: Evidence) -> list[pd.DataFrame]:
    """The rows of skew.csv of each order sweep, where there are two orders at least."""
    rows = e.skew.dropna(subset="order")
    found = [rows[rows["key"].isin(each["key"])] for each in order_sweeps(e.runs)]
    return [rows for rows in found if rows["order"].nunique() > 1]


def _fall(sweep: pd.DataFrame, column: str) -> float:
    """By how much a column falls as the order grows; where it rises, minus the steepest rise."""
    steps = np.diff(sweep.groupby("order")[column].mean())
    return -steps.sum() if (steps <= 0).all() else -steps.max()


@claim("DrRL, data utilization; Fig. 3", _sweeps, everywhere, TRUNCATION, "contradicts the next")
def truncation_falls(e, sweep):
    """As γ increases, the truncation ratio decreases."""
    return _fall(sweep, "truncated")


@claim(IN_FIG_5, _sweeps, everywhere, GAMMA_SWEEP)
def utilization_rises(e, sweep):
    """A larger γ* (a smaller γ) enhances data utilization: less is truncated."""
    return _fall(sweep.assign(kept=1 - sweep["truncated"]), "kept")


@claim(IN_FIG_5, _sweeps, everywhere, GAMMA_SWEEP)
def flatter(e, sweep):
    """A smaller γ* (a larger γ) flattens the weight distribution: k1 falls."""
    return _fall(sweep, "k1")


def _accuracy_sweeps(e: Evidence) -> list[np.ndarray]:
    """Test NDCG@20 at each order, an array a sweep."""
    found = [rows.groupby("order")["test_ndcg@20"] for rows in order_sweeps(e.runs)]
    return [values.mean().to_numpy() for values in found]


@claim(IN_FIG_5, _accuracy_sweeps, everywhere, GAMMA_SWEEP)
def concave(e, values):
    """Performance rises with γ* and then declines: the best γ* is neither end of a sweep."""
    return values[1:-1].max() - max(values[0], values[-1])


def _noisy(e: Evidence) -> list[tuple]:
    """The cells of accuracy among false negatives."""
    return [cell for cell in e.means.index if cell[2] > 0 and cell[3] in ACCURACY]


def _series(e: Evidence) -> list[list[tuple]]:
    """Lists of cells that differ in their share of false negatives alone, rising from 0."""
    found = {}
    for cell in sorted(_noisy(e)):
        start = (*cell[:2], 0.0, cell[3])
        found.setdefault(start, [start]).append(cell)
    return [*found.values()]


def _kept(e: Evidence, series: list[tuple], at: int, variant: str) -> float:
    """A variant's accuracy in one cell of a series, over that without false negatives."""
    return e.mean(series[at], variant) / e.mean(series[0], variant)


@claim(IN_FIG_4, _noisy, mostly, FALSE_NEGATIVES, "over the losses that were run, " + AS_TUNED)
def best_in_noise(e, cell):
    """DrRL outperforms the compared losses across most noise ratios."""
    return e.best_lead(cell, "drrl", e.at(cell)[[*BASELINES]].dropna().index)


@claim(IN_FIG_4, _series, everywhere, FALSE_NEGATIVES, AS_TUNED)
def gain_grows(e, series):
    """As the noise ratio increases, so does DrRL's improvement over the best baseline."""
    leads = [(c[2], e.mean(c, "drrl") / e.at(c)[[*BASELINES]].max() - 1) for c in series]
    known = np.array([point for point in leads if not math.isnan(point[1])])
    return np.polyfit(*known.T, 1)[0] if len(known) > 1 else math.nan


@claim(IN_FIG_4, _series, everywhere, FALSE_NEGATIVES)
def ccl_in_some_noise(e, series):
    """CCL is robust at the lower noise ratios: at the lowest it keeps more than SL."""
    return _kept(e, series, 1, "ccl") - _kept(e, series, 1, "sl")


@claim(IN_FIG_4, _series, everywhere, FALSE_NEGATIVES, AS_TUNED)
def ccl_in_much_noise(e, series):
    """CCL collapses under high noise: at the highest it keeps the least of all losses."""
    others = [_kept(e, series, -1, name) for name in (*BASELINES, "drrl") if name != "ccl"]
    return pd.Series(others).min() - _kept(e, series, -1, "ccl")


@claim("Abstract; limitations of SL; Fig. 4", _series, everywhere, FALSE_NEGATIVES, AS_TUNED)
def sl_in_much_noise(e, series):
    """SL is highly sensitive to false negatives, DrRL less: at the highest ratio it keeps more."""
    return _kept(e, series, -1, "drrl") - _kept(e, series, -1, "sl")


@claim("Experiments, distribution shifts; Table 4", SHIFTED, everywhere, SHIFT)
def best_under_shift(e, cell):
    """Under temporal shift DrRL achieves the best performance."""
    return e.best_lead(cell, "drrl", [name for name in BASELINES if name not in ("mse", "bce")])


@claim(IN_TABLE_3, ABLATION, everywhere, MARGINS)
def best_of_its_kind(e, cell):
    """DrRL outperforms itself without learnt β (w/o-LP) and without personal β (w/o-P)."""
    return e.best_lead(cell, "drrl", ("drrl-fixed", "drrl-shared"))


@claim(IN_TABLE_3, ABLATION, at_least(TOLERANCE), MARGINS, "contradicts the next")
def personal(e, cell):
    """DrRL-w/o-LP outperforms DrRL-w/o-P by a large margin (over 3%)."""
    return e.lead(cell, "drrl-fixed", "drrl-shared")


@claim(IN_TABLE_3, ABLATION, at_most(TOLERANCE), MARGINS)
def close(e, cell):
    """DrRL-w/o-P is slightly worse but remains close to DrRL-w/o-LP (within 3%)."""
    return abs(e.mean(cell, "drrl-shared") / e.mean(cell, "drrl-fixed") - 1)
