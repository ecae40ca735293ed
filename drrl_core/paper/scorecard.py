"""The scorecard: every number and every claim of the paper, and what became of it here.

It is rebuilt from a folder of results, and from nothing else; the theorems are checked on the spot:

    runs.csv            one row a run, the columns as in `RUNS`
    skew.csv            one row a trained final: dataset, backbone, variant, seed, k1, k2,
                        truncated, effective_share, users; where a sweep went along the order,
                        order and held, what was held fixed; key
    per_user/KEY.csv.gz user, recall@20, ndcg@20 on test, of the run KEY; for significance

One rule says which runs speak for a loss, and it looks at validation only: see `finals`. What is
missing is "not run". A claim is judged on the cells (data set, backbone, share of false negatives,
metric) that were measured; a lead that a test finds insignificant counts as none. Left out are two
claims that no record could settle: that learning β costs little, and that users' scores differ.
"""

import json
import math
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from drrl_core import dro, losses, metrics
from drrl_core.paper import published
from drrl_core.runs import raised

NEEDED = (
    *("key", "dataset", "data_hash", "backbone", "variant", "loss", "settings", "seed"),
    *("sampler", "negatives", "trials", "valid_recall@20", "valid_ndcg@20", "test_recall@20"),
    *("test_ndcg@20", "best_epoch", "seconds", "device", "torch", "commit", "finished"),
)
RUNS = (  # what came later, see `runs.added_columns`, is empty in rows from before
    *NEEDED,
    *("coverage", "mean_popularity", "gini", "b", "valid_recall@20_b", "valid_ndcg@20_b"),
    *("test_recall@20_b", "test_ndcg@20_b", "coverage_b", "mean_popularity_b", "gini_b", "raised"),
)
SKEW = ("dataset", "backbone", "variant", "seed", "k1", "k2", "truncated", "effective_share")
COLUMNS = (
    *("id", "source", "claim", "dataset", "backbone", "loss", "metric", "paper", "ours", "low"),
    *("high", "seeds", "trials", "cells", "verdict", "note", "command"),
)
VARIANTS = {  # the paper's names, and ours
    **{name: name.lower() for name in ("MSE", "BCE", "BPR", "CCL", "LLPAUC", "SL", "BSL")},
    **{"AdvInfoNCE": "advinfonce", "DrRL": "drrl"},
    **{"DrRL-w/o-P": "drrl-shared", "DrRL-w/o-LP": "drrl-fixed"},
}
BASELINES = ("mse", "bce", "bpr", "ccl", "llpauc", "sl", "bsl", "advinfonce")
ACCURACY = ("recall@20", "ndcg@20")
BESIDE = ("paper", "ours", "low", "high", "difference", "seeds", "trials", "p", "seconds")
CELL = ["dataset", "backbone", "noise", "metric"]
NUMBERS = [*CELL, "variant", "seed", "value", "key", "trials"]
SIZES = ("radius", "weight", "eta", "temperature")  # DrRL takes one of them
CLOSE, LEVEL = 0.03, 0.05
KITCHEN = (
    "ratings_Home_and_Kitchen.csv?min_rating=3&k_core=10&split=time&fractions=.6,.2,.2"
    "&name=amazon-kitchen-temporal"
)


# ---------------------------------------------------------------------------------------------
# Evidence


def read_runs(path: str | Path) -> pd.DataFrame:
    """`runs.csv` with the share of false negatives (`noise`) apart from the other settings
    (`config`). Left out are runs under another protocol, `train.mask`, and those of an earlier
    version of their loss, backbone or the trainer, see `runs.raised`."""
    if not (path := Path(path)).exists():
        return NO_RUNS
    as_text(path)  # which refuses what is no table of runs
    rows = pd.read_csv(path, dtype={"key": str}).reindex(columns=RUNS).astype({"raised": object})
    rows = rows[_current(rows)]
    if (doubt := rows.groupby("dataset")["data_hash"].nunique() > 1).any():
        raise ValueError(f"{path}: {doubt.idxmax()} stands for data of different content")
    try:
        settings = [json.loads(text) for text in rows["settings"]]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: a row's settings are no JSON: {error}") from None
    noise = [float(own.pop("train.noise", 0)) for own in settings]
    config = [json.dumps(own, sort_keys=True) for own in settings]
    protocol = np.array([own.get("train.mask", "train") == "train" for own in settings], bool)
    return rows.assign(noise=np.array(noise, float), config=config)[protocol]


def as_text(path: str | Path) -> pd.DataFrame:
    """`runs.csv` to the last digit.

    Raises:
        ValueError: it is none, or has a run twice, which would count as another seed.
    """
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no table of runs: {error}") from None
    _need(rows, NEEDED, path)
    rows = rows.reindex(columns=RUNS, fill_value="")
    if (twice := rows["key"].duplicated()).any():
        raise ValueError(f"{path}: {rows['key'][twice].iloc[0]} stands in two rows: keep one")
    return rows


def _current(rows: pd.DataFrame) -> np.ndarray:
    """Which rows the same configuration would give again today, bool."""
    told = zip(rows["raised"].fillna(""), rows["backbone"], rows["loss"], strict=True)
    return np.array([text == raised(*names) for text, *names in told], bool)


def _need(rows: pd.DataFrame, columns, path: Path) -> None:
    if missing := [name for name in columns if name not in rows]:
        raise ValueError(f"{path}: no column {', '.join(missing)}")


def finals(rows: pd.DataFrame) -> pd.DataFrame:
    """The runs that speak for each dataset, backbone, variant and noise: one configuration's.

    The rule, on validation only: of the configurations that were tuned for (of all, where none
    was), those with the most seeds, since a mean over many is not the luck of one; and of these
    the one whose mean valid NDCG@20 is highest. With false negatives it is the configuration that
    speaks without them, where one does: what is asked is how a loss fares as tuned.

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

    plain = rows["noise"] == 0
    quiet = best(tuned(rows[plain]))
    speaks, known = (
        pd.MultiIndex.from_frame(rows[names]).isin(pd.MultiIndex.from_frame(quiet[names]))
        for names in ([*cell, "config"], cell)
    )
    rows = pd.concat([tuned(rows[plain | ~known]), rows[~plain & speaks]])
    return rows.merge(best(rows)[group + config])


def sweeps(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """The sweeps along the order: runs of DrRL that differ in it alone, and in the seed.

    Args:
        rows: as `read_runs` returns them; those with noise are left out.

    Returns:
        The rows of each sweep, four orders at least, by order and seed, with the columns order and
        held: which size of the ball was held fixed, and at what, such as "weight=2".
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


NO_RUNS = pd.DataFrame(columns=[*RUNS, "noise", "config"])
NO_SKEW = pd.DataFrame(columns=[*SKEW, "order", "held", "key"])


@dataclass(eq=False)
class Evidence:
    """Numbers, one a row: what was measured here, or what the paper prints.

    Attributes:
        numbers: the columns as in `NUMBERS`; key and trials of the run, NaN where there is none.
        runs: as `read_runs`, every run.
        skew: as `skew.csv`, the sweeps along the order among it.
        folder: of the results; None: the numbers are the paper's.
    """

    numbers: pd.DataFrame
    runs: pd.DataFrame
    skew: pd.DataFrame
    folder: Path | None
    _tests: dict = field(default_factory=dict)

    @property
    def printed(self) -> bool:
        return self.folder is None

    @cached_property
    def means(self) -> pd.DataFrame:
        """Mean over the seeds, a row a cell, a column a variant."""
        wide = self.numbers.pivot_table(index=CELL, columns="variant", values="value")
        return wide.reindex(columns=sorted({*wide.columns, *VARIANTS.values()}))

    def at(self, cell: tuple) -> pd.Series:
        """A cell's means by variant, NaN where nothing was measured."""
        if cell in self.means.index:
            return self.means.loc[cell]
        return pd.Series(np.nan, self.means.columns)

    def mean(self, cell: tuple, *variants: str) -> float:
        """Of several variants' means; NaN where one is missing."""
        return self.at(cell)[[*variants]].mean(skipna=False)

    def of(self, cell: tuple, variant: str | None) -> pd.DataFrame:
        """A cell's rows of one variant, indexed by seed; of None no row."""
        own = self._groups.get((*cell, variant), self.numbers[:0])
        return own.set_index("seed").sort_index()

    @cached_property
    def _groups(self) -> dict[tuple, pd.DataFrame]:
        return dict(list(self.numbers.groupby([*CELL, "variant"])))

    def lead(self, cell: tuple, a: str, b: str) -> float:
        """a's lead over b, relative to b; zero where a test finds a lead insignificant."""
        means = self.at(cell)
        lead = means[a] / means[b] - 1
        return 0.0 if lead > 0 and self.p(cell, a, b) >= LEVEL else lead

    def best_lead(self, cell: tuple, a: str, rivals) -> float:
        """a's lead over the best of its rivals; NaN if it leads but a rival is missing."""
        found = self.at(cell)[list(rivals)]
        if found.isna().all():
            return math.nan
        lead = self.lead(cell, a, found.idxmax())
        return math.nan if lead > 0 and found.isna().any() else lead

    def p(self, cell: tuple, a: str, b: str) -> float:
        """p of no difference: over users, paired, where their files are here (means over the
        seeds); else over the seeds, Welch's, where there are two at least; else NaN.

        Where no seed changes anything in either, p is what Welch's tends to: 1 if they are equal,
        else 0."""
        from scipy.stats import ttest_ind_from_stats

        if self.printed:
            return math.nan
        pair, name = [self.of(cell, variant) for variant in (a, b)], (cell[:3], a, b)
        if cell[3] in ACCURACY and name not in self._tests:
            users = [self._users(rows["key"]) for rows in pair]
            known = all(table is not None for table in users)
            self._tests[name] = metrics.compare(*users, samples=2_000) if known else None
        if cell[3] in ACCURACY and (tested := self._tests[name]) is not None:
            return tested.loc[cell[3], "p_bootstrap"]
        if min(map(len, pair)) < 2:
            return math.nan
        values = [rows["value"].to_numpy(float) for rows in pair]
        if all(np.allclose(own, own[0], rtol=1e-12, atol=0) for own in values):
            return float(np.isclose(*(own[0] for own in values), rtol=1e-12, atol=0))
        # From means and spreads: of one sample that does not spread, SciPy would doubt the moments.
        told = [stat for own in values for stat in (own.mean(), own.std(ddof=1), len(own))]
        return ttest_ind_from_stats(*told, equal_var=False).pvalue

    def _users(self, keys: pd.Series) -> pd.DataFrame | None:
        """Means over all of the seeds: a lead is of all of them."""
        paths = [self.folder / "per_user" / f"{key}.csv.gz" for key in keys]
        if not paths or not all(path.exists() for path in paths):
            return None
        return sum(pd.read_csv(p, index_col="user")[[*ACCURACY]] for p in paths) / len(paths)


def measured(folder: str | Path) -> Evidence:
    """What the files in a folder of results say; what is missing there was not run."""
    folder = Path(folder)
    runs, path = read_runs(folder / "runs.csv"), folder / "skew.csv"
    skew = pd.read_csv(path) if path.exists() else NO_SKEW
    _need(skew, SKEW, path)
    more = {"order": np.nan, "held": "", "key": np.nan}
    skew = skew.assign(**{name: skew.get(name, other) for name, other in more.items()}, noise=0.0)
    ids = [*CELL[:3], "variant", "seed"]
    rows = finals(runs).rename(columns={f"test_{name}": name for name in ACCURACY})
    current = skew["key"].isna() | skew["key"].isin(rows["key"])  # of no earlier harvest
    weights = skew[skew["order"].isna() & current]
    numbers = [
        rows.melt([*ids, "key", "trials"], [*ACCURACY], var_name="metric"),
        weights.melt(ids, ["k1", "k2", "truncated"], var_name="metric"),
    ]
    numbers = pd.concat([part for part in numbers if len(part)] or numbers)
    return Evidence(numbers.reindex(columns=NUMBERS).astype({"value": float}), runs, skew, folder)


def printed() -> Evidence:
    """The paper's own numbers, for the claims to be held against them too."""
    rows = pd.concat([published.table(number) for number in (1, 2, 3, 4)])
    rows = rows[rows["loss"] != "Imp.%"].assign(noise=0.0, seed=0)
    rows["variant"] = rows["loss"].map(VARIANTS)
    rows["backbone"] = rows["backbone"].map(_backbone)
    rows = rows.drop_duplicates([*CELL, "variant"])  # Table 3 repeats some of Table 2
    return Evidence(rows.reindex(columns=NUMBERS), NO_RUNS, NO_SKEW, None)


def _backbone(name: str) -> str:
    """As in our records; MF where the paper states none."""
    return "mf" if name == "not stated" else name.lower()


# ---------------------------------------------------------------------------------------------
# Claims


class Claim(NamedTuple):
    """A claim of the paper, and how it is checked.

    Attributes:
        source, text: where the paper says what, shortened.
        where: the cells (or sweeps) to look at, or evidence -> these.
        margin: (evidence, cell) -> what speaks for the claim there, NaN where not measured.
        judge: the margins -> a name, what is shown of them, and whether the claim holds.
        command: runs what it rests on.
        note: what a reader should know.
    """

    source: str
    text: str
    where: list | Callable[["Evidence"], list]
    margin: Callable[["Evidence", tuple], float]
    judge: Callable[[np.ndarray], tuple[str, float, bool]]
    command: str
    note: str


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def everywhere(margins: np.ndarray) -> tuple[str, float, bool]:
    """Positive in every cell."""
    return "share of cells", _mean(margins > 0), _mean(margins > 0) == 1


def mostly(margins: np.ndarray) -> tuple[str, float, bool]:
    """Positive in more than half of the cells."""
    return "share of cells", _mean(margins > 0), _mean(margins > 0) > 0.5


def at_least(least: float) -> Callable:
    """A mean over the cells of so much."""
    return lambda margins: ("mean", _mean(margins), _mean(margins) >= least)


def at_most(most: float) -> Callable:
    """A mean over the cells of no more."""
    return lambda margins: ("mean", _mean(margins), _mean(margins) <= most)


CLAIMS: dict[str, Claim] = {}


def claim(source: str, where, judge: Callable, command: str, note: str = "") -> Callable:
    """Register a margin, whose docstring is the claim."""

    def register(margin: Callable) -> Callable:
        text = " ".join(margin.__doc__.split()).removesuffix(".")
        CLAIMS[margin.__name__] = Claim(source, text, where, margin, judge, command, note)
        return margin

    return register


def _cells(number: int) -> list[tuple]:
    rows = published.table(number)[["dataset", "backbone", "metric"]].drop_duplicates()
    return [(data, _backbone(backbone), 0.0, metric) for data, backbone, metric in rows.to_numpy()]


OVERALL, ABLATION, SHIFTED = map(_cells, (2, 3, 4))
SKEWED = [cell[:3] for cell in _cells(1) if cell[3] == "k2"]
COMPARED, SKEW_OF = "drrl notebook 06_comparison", "drrl notebook 03_weight_skew"
TRUNCATED, ABLATED = "drrl notebook 04_truncation", "drrl notebook 05_margins"
NOISED, MOVED = "drrl notebook 07_false_negatives", "drrl notebook 08_distribution_shift"
SWEPT, TESTED = "drrl notebook 09_gamma_sweep", "python -m pytest tests/test_dro.py"


@claim(
    *("Introduction; Fig. 1, caption", OVERALL, at_least(0.2), COMPARED),
    "Fig. 1 shows two data sets and two backbones that the text does not name; here are all",
)
def traditional(e, cell):
    """SL and CCL outperform traditional losses (MSE, BCE, BPR) by over 20% on average."""
    return e.mean(cell, "sl", "ccl") / e.mean(cell, "mse", "bce", "bpr") - 1


@claim("Experiments, overall; Table 2", OVERALL, everywhere, COMPARED)
def best(e, cell):
    """DrRL consistently outperforms all compared methods across all data sets and backbones."""
    return e.best_lead(cell, "drrl", BASELINES)


@claim("Table 2, caption", OVERALL, everywhere, COMPARED)
def stars(e, cell):
    """Each improvement over the best baseline is statistically significant, p < 0.05."""
    if e.printed:
        return 1.0  # each has its star
    lead, rivals = e.best_lead(cell, "drrl", BASELINES), e.at(cell)[[*BASELINES]]
    untested = lead > 0 and math.isnan(e.p(cell, "drrl", rivals.idxmax()))
    return math.nan if untested else lead


@claim("Experiments, overall", OVERALL, mostly, COMPARED)
def robust(e, cell):
    """DRO-enhanced losses (SL, BSL, CCL, AdvInfoNCE, DrRL) are generally superior to others."""
    others = e.mean(cell, "mse", "bce", "bpr", "llpauc")
    return e.mean(cell, "sl", "bsl", "ccl", "advinfonce", "drrl") / others - 1


@claim("DrRL, subsumes SL and CCL", OVERALL, everywhere, COMPARED)
def not_worse(e, cell):
    """DrRL performs at least not worse than SL and CCL."""
    worse = max(e.lead(cell, other, "drrl") for other in ("sl", "ccl"))
    return math.nan if math.isnan(e.mean(cell, "drrl", "sl", "ccl")) else 1.0 - 2 * (worse > 0)


def _unit_weight(e: "Evidence") -> list[tuple]:
    """Cell and accuracy of DrRL at c = 1, the best on validation."""
    unit = [json.loads(text).get("loss.weight") == 1 for text in e.runs["config"]]
    rows = finals(e.runs[np.array(unit, bool) & (e.runs["variant"] == "drrl")])
    means = rows.groupby(CELL[:3])[[f"test_{name}" for name in ACCURACY]].mean()
    stacked = means.set_axis(ACCURACY, axis=1).stack()
    return [(cell, value) for cell, value in stacked.items()]


@claim(
    *("DrRL, easy implementation", _unit_weight, mostly),
    "drrl tune amazon-beauty --loss drrl --set weight=1 --csv data/results/runs.csv",
)
def unit_weight(e, found):
    """In many cases setting c = 1 yields satisfactory performance (within 3% of the tuned)."""
    return found[1] / e.mean(found[0], "drrl") - (1 - CLOSE)


@claim("Limitations of SL; Table 1", SKEWED, everywhere, SKEW_OF)
def skewed(e, cell):
    """In SL noisy data receive large weights, typically over 20 times the average."""
    return e.mean((*cell, "k2"), "sl") - 20


@claim("DrRL, robustness; Table 1", SKEWED, everywhere, SKEW_OF)
def less_skewed(e, cell):
    """The weights of noisy data are significantly smaller in DrRL than in SL."""
    return e.mean((*cell, "k2"), "sl") - e.mean((*cell, "k2"), "drrl")


@claim("Limitations of CCL; Fig. 2", SKEWED, mostly, TRUNCATED)
def filtered(e, cell):
    """CCL filters out over 90% of the negatives, often."""
    return e.mean((*cell, "truncated"), "ccl") - 0.9


@claim("DrRL, data utilization; Fig. 2", SKEWED, at_least(0.095), TRUNCATED)
def less_filtered(e, cell):
    """DrRL filters out 10% less than CCL on average (9.5 points at least)."""
    return e.mean((*cell, "truncated"), "ccl") - e.mean((*cell, "truncated"), "drrl")


def _sweeps(e: "Evidence") -> list[pd.DataFrame]:
    """Diagnostics along the order, two at least."""
    rows = e.skew.dropna(subset="order")
    found = [rows[rows["key"].isin(each["key"])] for each in sweeps(e.runs)]
    return [rows for rows in found if rows["order"].nunique() > 1]


def _fall(sweep: pd.DataFrame, column: str) -> float:
    """By how much a diagnostic falls along the order; where it also rises, minus the steepest."""
    steps = np.diff(sweep.groupby("order")[column].mean())
    return -steps.sum() if (steps <= 0).all() else -steps.max()


@claim("DrRL, data utilization; Fig. 3", _sweeps, everywhere, TRUNCATED, "contradicts the next")
def truncation_falls(e, sweep):
    """As γ increases, the truncation ratio decreases."""
    return _fall(sweep, "truncated")


@claim("Experiments, the impact of γ; Fig. 5", _sweeps, everywhere, SWEPT)
def utilization_rises(e, sweep):
    """A larger γ* (a smaller γ) enhances data utilization: less is truncated."""
    return _fall(sweep.assign(kept=1 - sweep["truncated"]), "kept")


@claim("Experiments, the impact of γ; Fig. 5", _sweeps, everywhere, SWEPT)
def flatter(e, sweep):
    """A smaller γ* (a larger γ) flattens the weight distribution: k1 falls."""
    return _fall(sweep, "k1")


def _trained_sweeps(e: "Evidence") -> list[np.ndarray]:
    """Test NDCG@20 along the order."""
    return [rows.groupby("order")["test_ndcg@20"].mean().to_numpy() for rows in sweeps(e.runs)]


@claim("Experiments, the impact of γ; Fig. 5", _trained_sweeps, everywhere, SWEPT)
def concave(e, values):
    """Performance rises with γ* and then declines: the best γ* is neither end of a sweep."""
    return values[1:-1].max() - max(values[0], values[-1])


def _noisy(e: "Evidence") -> list[tuple]:
    return [cell for cell in e.means.index if cell[2] > 0 and cell[3] in ACCURACY]


def _series(e: "Evidence") -> list[list[tuple]]:
    """Cells that differ in their share of false negatives alone, which rises from 0."""
    found = {}
    for cell in sorted(_noisy(e)):
        start = (*cell[:2], 0.0, cell[3])
        found.setdefault(start, [start]).append(cell)
    return [*found.values()]


def _kept(e: "Evidence", series: list[tuple], at: int, variant: str) -> float:
    """The share of its accuracy that a variant keeps at one of a series' cells."""
    return e.mean(series[at], variant) / e.mean(series[0], variant)


AS_TUNED = "as tuned without noise; the radius decides, see dro.breakdown_point"


@claim(
    "Experiments, noisy data; Fig. 4",
    _noisy,
    mostly,
    NOISED,
    "over the losses that were run, " + AS_TUNED,
)
def best_in_noise(e, cell):
    """DrRL outperforms the compared losses across most noise ratios."""
    return e.best_lead(cell, "drrl", e.at(cell)[[*BASELINES]].dropna().index)


@claim("Experiments, noisy data; Fig. 4", _series, everywhere, NOISED, AS_TUNED)
def gain_grows(e, series):
    """As the noise ratio increases, so does DrRL's improvement over the best baseline."""
    leads = [(c[2], e.mean(c, "drrl") / e.at(c)[[*BASELINES]].max() - 1) for c in series]
    known = np.array([point for point in leads if not math.isnan(point[1])])
    return np.polyfit(*known.T, 1)[0] if len(known) > 1 else math.nan


@claim("Experiments, noisy data; Fig. 4", _series, everywhere, NOISED)
def ccl_in_some_noise(e, series):
    """CCL is robust at the lower noise ratios: at the lowest it keeps more than SL."""
    return _kept(e, series, 1, "ccl") - _kept(e, series, 1, "sl")


@claim("Experiments, noisy data; Fig. 4", _series, everywhere, NOISED, AS_TUNED)
def ccl_in_much_noise(e, series):
    """CCL collapses under high noise: at the highest it keeps the least of all losses."""
    others = [_kept(e, series, -1, name) for name in (*BASELINES, "drrl") if name != "ccl"]
    return pd.Series(others).min() - _kept(e, series, -1, "ccl")


@claim("Abstract; limitations of SL; Fig. 4", _series, everywhere, NOISED, AS_TUNED)
def sl_in_much_noise(e, series):
    """SL is highly sensitive to false negatives, DrRL less: at the highest ratio it keeps more."""
    return _kept(e, series, -1, "drrl") - _kept(e, series, -1, "sl")


@claim("Experiments, distribution shifts; Table 4", SHIFTED, everywhere, MOVED)
def best_under_shift(e, cell):
    """Under temporal shift DrRL achieves the best performance."""
    return e.best_lead(cell, "drrl", [name for name in BASELINES if name not in ("mse", "bce")])


@claim("Experiments, ablation; Table 3", ABLATION, everywhere, ABLATED)
def best_of_its_kind(e, cell):
    """DrRL outperforms itself without learnt β (w/o-LP) and without personal β (w/o-P)."""
    return e.best_lead(cell, "drrl", ("drrl-fixed", "drrl-shared"))


@claim("Experiments, ablation; Table 3", ABLATION, at_least(CLOSE), ABLATED, "contradicts the next")
def personal(e, cell):
    """DrRL-w/o-LP outperforms DrRL-w/o-P by a large margin (over 3%)."""
    return e.lead(cell, "drrl-fixed", "drrl-shared")


@claim("Experiments, ablation; Table 3", ABLATION, at_most(CLOSE), ABLATED)
def close(e, cell):
    """DrRL-w/o-P is slightly worse but remains close to DrRL-w/o-LP (within 3%)."""
    return abs(e.mean(cell, "drrl-shared") / e.mean(cell, "drrl-fixed") - 1)


# The theorems: formulas as the paper prints them, against the solver, on scores without ties.
F = np.sin(np.arange(1, 201) ** 2.0) / 4
GAMMA, RHO = 2.5, 1.2
STAR = GAMMA / (GAMMA - 1)
C = math.exp(RHO / STAR)


def _here(e: "Evidence") -> list:
    return [] if e.printed else [None]


def _worst(order: float, radius: float) -> dro.WorstCase:
    return dro.worst_case(torch.from_numpy(F), order=order, radius=radius)


def _dual(beta: float) -> float:
    return beta + C * (np.maximum(F - beta, 0) ** STAR).mean() ** (1 / STAR)


@claim("Lemma 1", _here, at_most(1e-6), TESTED)
def lemma_1_sl(e, _):
    """SL is DRO on the negatives within a ball of KL-divergence."""
    tau = 0.2
    weights = np.exp(F / tau) / np.exp(F / tau).mean()
    radius = (weights * np.log(weights)).mean()  # the one that τ amounts to
    loss = tau * radius + tau * math.log(np.exp(F / tau).mean())
    return abs(loss - _worst(1, radius).value.item())


@claim("Lemma 1", _here, at_most(1e-6), TESTED)
def lemma_1_ccl(e, _):
    """CCL, at its best margin, is DRO within a ball of worst-case regret of radius log α."""
    alpha, beta = 10, np.sort(F)[-20]  # the 20 best of 200 are above it
    loss = beta + alpha * np.maximum(F - beta, 0).mean()
    return abs(loss - _worst(math.inf, math.log(alpha)).value.item())


@claim("Lemma 2", _here, at_most(1e-6), TESTED)
def lemma_2(e, _):
    """DrRL's worst case is the minimum over β of Eq. 10."""
    from scipy.optimize import minimize_scalar

    lowest = minimize_scalar(_dual, bounds=(-2, F.max()), options={"xatol": 1e-12}).fun
    return abs(lowest - _worst(GAMMA, RHO).value.item())


@claim("Lemma 3", _here, at_most(1e-6), TESTED, "with E w = 1, for which E Q* = 1 is printed")
def lemma_3(e, _):
    """The worst-case weights are polynomial in the scores, Eq. 11."""
    worst = _worst(GAMMA, RHO)
    excess = np.maximum(F - worst.dual.item(), 0)
    weights = C * excess ** (1 / (GAMMA - 1)) / (excess**STAR).mean() ** (1 / GAMMA)
    return np.abs(weights - worst.weights.numpy()).max()


@claim("DrRL, subsumes SL and CCL", _here, at_most(1e-6), TESTED, "at one ρ; at one η not CCL")
def limits(e, _):
    """DrRL → SL as γ → 1, and DrRL → CCL as γ → ∞."""
    pairs = ((1 + 1e-7, 1), (1e7, math.inf))
    return max(abs(_worst(a, RHO).value - _worst(b, RHO).value).item() for a, b in pairs)


@claim("DrRL, learnable β", _here, at_most(1e-6), TESTED)
def convex(e, _):
    """The objective is convex in β."""
    heights = np.array([_dual(beta) for beta in np.linspace(-2, F.max(), 401)])
    return max(0.0, (heights[1:-1] - (heights[:-2] + heights[2:]) / 2).max())


NO_BACKBONE = "the paper states no backbone"
NOT_THEIRS = "a global-time split of the same data, for the paper's own is not published"


# ---------------------------------------------------------------------------------------------
# Rows


def interval(values) -> tuple[float, float]:
    """The 95% interval of a mean over seeds, by Student's t; NaN for fewer than two.

    >>> [round(end, 3) for end in interval([0.1, 0.2, 0.3])]  # t = 4.303 with three
    [-0.048, 0.448]
    """
    from scipy.stats import t

    values = np.asarray(values, float)
    if len(values) < 2:
        return math.nan, math.nan
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def _ratio_interval(a, b) -> tuple[float, float]:
    """The 95% interval of a ratio of two means over seeds, each loss's its own: to first order,
    with Welch's degrees of freedom; NaN for fewer than two of either.

    >>> [round(end, 3) for end in _ratio_interval([0.11, 0.12, 0.13], [0.1, 0.1, 0.1])]
    [0.952, 1.448]
    """
    from scipy.stats import t

    if min(len(a), len(b)) < 2:
        return math.nan, math.nan
    shares = [np.var(each, ddof=1) / len(each) / np.mean(each) ** 2 for each in (a, b)]
    degrees = sum(share**2 / (len(each) - 1) for share, each in zip(shares, (a, b), strict=True))
    ratio, spread = np.mean(a) / np.mean(b), math.sqrt(sum(shares))
    half = ratio * spread * t.ppf(0.975, sum(shares) ** 2 / degrees) if spread else 0.0
    return float(ratio - half), float(ratio + half)


def verdict(paper: float, ours: float, *, less_is_better: bool = False) -> str:
    """Whether a number was reproduced.

    >>> verdict(0.1, 0.102), verdict(0.1, 0.104), verdict(20.0, 25.0, less_is_better=True)
    ('reproduced within 3%', 'better', 'worse')
    """
    if math.isnan(ours):
        return "not run"
    if abs(ours / paper - 1) <= CLOSE + 1e-12:
        return "reproduced within 3%"
    return "better" if (ours > paper) != less_is_better else "worse"


def comparison(
    e: Evidence, dataset: str, backbone: str = "mf", *, metric: str = "ndcg@20", noise: float = 0.0
) -> pd.DataFrame:
    """The losses side by side in one cell, ours and the paper's, the best of ours first.

    Returns:
        A row a variant; paper, and ours, the mean over the seeds, NaN where there is none; low and
        high, its 95% interval by Student's t; difference, ours over the paper's in percent; seeds;
        trials, the budget of the tuning; p of no difference from the best of the others, as
        `Evidence.p`; seconds, of training a seed.

    >>> comparison(measured("nowhere"), "amazon-beauty")["paper"].idxmax()
    'drrl'
    """
    cell, paper = (dataset, _backbone(backbone), noise, metric), printed()
    ours, rows, seconds = e.at(cell), [], e.runs.set_index("key")["seconds"]
    theirs = paper.at(cell).reindex(ours.index)
    variants = ours.index[ours.notna() | theirs.notna()]
    for variant in variants:
        own, others = e.of(cell, variant), ours.drop(variant).dropna()
        low, high = interval(own["value"])
        known = len(own) and len(others)
        rows.append(
            dict(
                paper=theirs[variant],
                ours=ours[variant],
                low=low,
                high=high,
                difference=100 * (ours[variant] / theirs[variant] - 1),
                seeds=len(own),
                trials=own["trials"].max(),
                p=e.p(cell, variant, others.idxmax()) if known else math.nan,
                seconds=seconds.reindex(own["key"]).mean(),
            )
        )
    found = pd.DataFrame(rows, variants, BESIDE).rename_axis("variant")
    return found.sort_values(["ours", "paper"], ascending=False)


def along(e: Evidence, dataset: str, backbone: str = "mf", *, metric: str = "ndcg@20") -> dict:
    """The sweeps along the order: what each model that was trained there does.

    Returns:
        Variant and what was held fixed, such as "drrl, weight=2" -> a row an order γ: ours, the
        mean of the metric over the seeds; low and high, its 95% interval; seeds; truncated, k1, k2
        and effective_share, as `skew.csv` has them, NaN where it has not.

    >>> along(measured("nowhere"), "amazon-beauty")
    {}
    """
    found = {}
    here = sweeps(e.runs[(e.runs["dataset"] == dataset) & (e.runs["backbone"] == backbone)])
    for rows, label in zip(here, _labels(here), strict=True):
        groups = rows.groupby("order")[f"test_{metric}"]
        table = groups.agg(ours="mean", seeds="count")
        table["low"], table["high"] = zip(*groups.apply(interval), strict=True)
        weighed = e.skew[e.skew["key"].isin(rows["key"]) & e.skew["order"].notna()]
        numbers = ["truncated", "k1", "k2", "effective_share"]
        table = table.join(weighed.groupby("order")[numbers].mean())
        found[label] = table
    return found


def _labels(found: list[pd.DataFrame]) -> list[str]:
    """Variant and what was held; where that is not one sweep's alone, what else differs."""
    first = [rows.iloc[0] for rows in found]
    labels = [f"{row['variant']}, {row['held']}" for row in first]
    own = [json.loads(row["config"]) for row in first]
    for label in {label for label in labels if labels.count(label) > 1}:
        same = [i for i, each in enumerate(labels) if each == label]
        names = sorted({name for i in same for name in own[i]} - {"loss.order"})
        differ = [n for n in names if len({json.dumps(own[i].get(n)) for i in same}) > 1]
        for i in same:
            labels[i] += "".join(f", {n.split('.')[-1]}={own[i].get(n)}" for n in differ)
    return labels


def ball(row: pd.Series) -> tuple[float, float] | None:
    """Order and radius (nats) of the ball that a run's loss was given; None where it has none.

    CCL's is of order inf and radius log c, which its margin may fall short of. A penalty, SL's
    among them, has another ball at other scores; a weight c below 1 has none.

    Args:
        row: as `read_runs` returns them.

    >>> ball(pd.Series({"loss": "ccl", "config": '{"loss.weight": 2}'}))
    (inf, 0.6931471805599453)
    """
    if row["loss"] not in ("ccl", "drrl"):
        return None
    own = {n.removeprefix("loss."): value for n, value in json.loads(row["config"]).items()}
    own = losses.hyperparameters(row["loss"]) | own
    order = float(own.get("order", "inf"))
    if own.get("temperature"):
        return None
    if own.get("eta") is not None:
        return order, dro.radius_from_eta(own["eta"], order)
    if own.get("radius") is not None:
        return order, float(own["radius"])
    weight = own["weight"] or 1.0
    return (order, dro.radius_from_weight(weight, order)) if weight >= 1 else None


def balls_in_noise(
    e: Evidence, dataset: str, backbone: str = "mf", *, metric: str = "ndcg@20"
) -> pd.DataFrame:
    """What each ball keeps of its accuracy as false negatives grow, and where it is to break.

    Args:
        e: with runs that differ in noise alone, without any among them.
        dataset, backbone: where.
        metric: of the test split.

    Returns:
        A row a ball and share: variant, config (its settings), order, radius (nats), share of false
        negatives in a row of negatives as they were drawn, breakdown_point (`dro.breakdown_point`),
        kept (share of the accuracy at none, means over the seeds that have both), seeds.

    >>> balls_in_noise(measured("nowhere"), "amazon-beauty").empty
    True
    """
    columns = ["variant", "config", "order", "radius", "share", "breakdown_point", "kept", "seeds"]
    rows = e.runs[(e.runs["dataset"] == dataset) & (e.runs["backbone"] == backbone)]
    rows, found = rows[rows["sampler"] == "per-row"], []  # which alone has noise
    for (variant, negatives, config), own in rows.groupby(["variant", "negatives", "config"]):
        values = own.pivot_table(f"test_{metric}", index="seed", columns="noise")
        if (about := ball(own.iloc[0])) is None or 0.0 not in values or values.shape[1] < 2:
            continue
        for noise, value in values.items():
            both = values[[0.0]].assign(value=value).dropna()  # of the same seeds
            share = math.floor(negatives * noise + 1e-9) / negatives
            kept = both["value"].mean() / both[0.0].mean()
            point = dro.breakdown_point(about[1])
            found.append((variant, config, *about, share, point, kept, len(both)))
    return pd.DataFrame(found, columns=columns)


def _gain_verdict(paper: float, ours: float) -> str:
    """Of gains in percent: of the accuracies they amount to; but a loss is no gain reproduced."""
    return "worse" if ours <= 0 < paper else verdict(1 + paper / 100, 1 + ours / 100)


def _tuned(dataset: str, variant: str, backbone: str) -> str:
    """The command that tunes a loss, and trains the best with three seeds."""
    words = ["drrl", "tune", KITCHEN if dataset == "amazon-kitchen-temporal" else dataset]
    words += ["--loss", variant, "--backbone", backbone, "--trials", "20", "--seeds", "3"]
    return shlex.join([*words, "--csv", "data/results/runs.csv"])


def _retrain(run: pd.Series) -> str:
    """The command that trains one of the finals again."""
    words = ["drrl", "train", KITCHEN if "kitchen-temporal" in run["dataset"] else run["dataset"]]
    words += ["--backbone", run["backbone"], "--loss", run["loss"]]
    for name, value in json.loads(run["settings"]).items():
        words += ["--set", f"{name}={value}"]
    words += ["--sampler", run["sampler"], "--negatives", str(run["negatives"])]
    return shlex.join([*words, "--seed", str(run["seed"])])


def _number_row(e: Evidence, number: int, printed: pd.Series) -> dict:
    """A number of Tables 1 to 4, and ours."""
    dataset, backbone, metric = printed["dataset"], printed["backbone"], printed["metric"]
    cell, note = (dataset, _backbone(backbone), 0.0, metric), ""
    gain = printed["loss"] == "Imp.%"
    variant = "drrl" if gain else VARIANTS[printed["loss"]]
    own, less = e.of(cell, variant), metric in ("k1", "k2")
    values = own["value"]
    if gain:
        rivals = e.at(cell)[[*BASELINES]]
        rival = None if rivals.isna().any() else rivals.idxmax()
        other = e.of(cell, rival)["value"]
        mean = 100 * (values.mean() / other.mean() - 1)
        low, high = (100 * (end - 1) for end in _ratio_interval(values, other))
        seeds = min(len(values), len(other))
        note = f"over {rival}" if rival else f"{rivals.notna().sum()} of 8 baselines run"
        judged = _gain_verdict(printed["value"], mean)
    else:
        mean, seeds = values.mean(), len(values)
        judged = verdict(printed["value"], mean, less_is_better=less)
        low, high = interval(values)
    if printed["backbone"] == "not stated":
        note = NO_BACKBONE + (f"; {NOT_THEIRS}" if number == 4 else "")
    run = e.runs[e.runs["key"].isin(own["key"])]
    if less:
        command = f"{SKEW_OF} -p dataset={dataset}"
    elif len(run):
        command = _retrain(run.sort_values("seed").iloc[0])
    else:
        command = _tuned(dataset, variant, cell[1])
    return dict(
        id=f"table{number}.{dataset}.{cell[1]}.{printed['loss']}.{metric}",
        source=f"Table {number}",
        dataset=dataset,
        backbone=cell[1],
        loss=printed["loss"],
        metric="gain in " + metric + ", %" if gain else metric,
        paper=printed["value"],
        ours=mean,
        low=low,
        high=high,
        seeds=seeds if not math.isnan(mean) else 0,
        trials=own["trials"].max(),
        verdict=judged,
        note=note,
        command=command,
    )


def _average_row(gains: pd.DataFrame, metric: str, paper: float) -> dict:
    """The text's average improvement on Gowalla over three backbones."""
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
        command=COMPARED,
    )


def _claim_row(e: Evidence, paper: Evidence, name: str) -> dict:
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


def numbers(e: Evidence) -> pd.DataFrame:
    """A row for each number of the tables, and for the two averages that the text gives."""
    rows = [
        _number_row(e, number, one)
        for number in published.TABLES
        for _, one in published.table(number).iterrows()
    ]
    gains = pd.DataFrame([row for row in rows if row["loss"] == "Imp.%"])
    rows += [_average_row(gains, m, p) for m, p in zip(ACCURACY, (6.9, 5.2), strict=True)]
    return pd.DataFrame(rows, columns=COLUMNS)


def claims(e: Evidence) -> pd.DataFrame:
    """A row for each claim."""
    paper = printed()
    return pd.DataFrame([_claim_row(e, paper, name) for name in CLAIMS], columns=COLUMNS)


def build(folder: str | Path = "data/results") -> pd.DataFrame:
    """The scorecard of a folder of results.

    Args:
        folder: see the top of this module.

    Returns:
        One row for each number and each claim. paper: what it prints; of a claim, what the same
        check finds in its own tables. ours: the mean over the seeds; of a claim what `metric`
        says. low, high: 95% interval over the seeds. trials: the budget of the tuning. cells: how
        many of a claim's were measured. verdict: "reproduced within 3%" (of a gain, of 1 + gain),
        "better", "worse" (of k1 and k2 less is better), "claim holds", "does not hold" or "not
        run". command: runs it again, the first seed of a number that was run.

    Raises:
        ValueError: a file lacks a column, or mixes data.

    >>> build("nowhere")["verdict"].value_counts().to_dict()
    {'not run': 317, 'claim holds': 6}
    """
    e = measured(folder)
    rows = [*numbers(e).to_dict("records"), *claims(e).to_dict("records")]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"seeds": "Int64", "trials": "Int64"})


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Scorecard: the paper's numbers and claims</title>
<style>
body { max-width: 80rem; margin: 0 auto; padding: 1rem; background: #fff; color: #1a1a1a;
       font: 1rem/1.5 system-ui, sans-serif }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: .85rem }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #ddd; text-align: left }
td { vertical-align: top; font-variant-numeric: tabular-nums }
td:last-child { font-family: monospace }
summary { cursor: pointer; font-weight: 600; margin: .6em 0 }
.good { background: #d9f0e3 } .bad { background: #fbdcd6 } .none { color: #667 }
</style>
</head>
<body><main>
<h1>Scorecard: the paper's numbers and claims</h1>
<p>Ours beside the paper's: the mean over the seeds and its 95% interval by Student's t, which for
three seeds reaches 4.3 standard errors to either side. The configuration is the best on validation.
"Reproduced" is within 3%. A claim is judged on the cells that were measured; a lead that is not
significant (p &lt; 0.05, paired over users) counts as none. A claim's value for the paper is what
the same check finds in the paper's own tables.</p>
{counts}
<h2>Claims</h2>
{claims}
<h2>Numbers</h2>
{numbers}
</main></body></html>
"""


def page(table: pd.DataFrame) -> str:
    """The scorecard as an HTML page that needs no network.

    >>> page(build("nowhere")).count("<tr")
    336
    """

    def html(rows: pd.DataFrame, columns, **options) -> str:
        options = {"index": False, "na_rep": "", "border": 0} | options
        text = rows[columns].to_html(float_format="{:.5g}".format, **options)
        for words, name in (
            ("reproduced within 3%|better|claim holds", "good"),
            ("worse|does not hold", "bad"),
            ("not run", "none"),
        ):
            text = re.sub(f"<td>({words})</td>", rf'<td class="{name}">\1</td>', text)
        return text

    is_claim = table["claim"].notna()
    counts = pd.crosstab(table["source"].where(~is_claim, "Claims"), table["verdict"])
    counts = counts.rename_axis(index=None, columns=None)
    shown = ["claim", "source", "metric", "paper", "ours", "cells", "verdict", "note", "command"]
    columns = [name for name in COLUMNS if name not in ("id", "source", "claim", "cells")]
    parts = [
        f"<details><summary>{source}</summary>{html(rows, columns)}</details>"
        for source, rows in table[~is_claim].groupby("source")
    ]
    filled = {
        "counts": html(counts, list(counts), index=True),
        "claims": html(table[is_claim], shown),
        "numbers": "\n".join(parts),
    }
    return re.sub(r"\{(counts|claims|numbers)\}", lambda found: filled[found[1]], _PAGE)
