"""The evidence: what a folder of results holds, and what the paper prints, in one shape.

`measured` reads a folder of results (`lab.results` says what is in it) and `printed` the paper's
tables; claims and scorecard are made from either. A cell,
here and in the modules below, is a place in the paper's tables: (data set, backbone, share of false
negatives, metric).
"""

import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from drrl_core import classical, dro, losses
from drrl_core.lab.results import (
    NO_RUNS,
    NO_SKEW,
    order_sweeps,
    read_runs,
    read_skew,
    selected_runs,
)
from drrl_core.lab.run import ACCURACY
from drrl_core.paper import published
from drrl_core.train import metrics

CELL = ["dataset", "backbone", "noise", "metric"]
NUMBERS = [*CELL, "variant", "seed", "value", "key", "trials"]

LEVEL = 0.05  # of significance
TOLERANCE = 0.03  # numbers this close, relatively, count as equal
BASELINES = ("mse", "bce", "bpr", "ccl", "llpauc", "sl", "bsl-pooled", "advinfonce")
VARIANTS = {  # the paper's name of a loss -> ours
    losses.variants()[name].label: name
    for name in (*BASELINES, "drrl", "drrl-shared", "drrl-fixed")
}
VARIANTS["BSL"] = VARIANTS.pop("BSL (pooled)")  # `bsl`, of one positive, is SL times a number


def backbone_name(name: str) -> str:
    """The paper's name of a backbone as runs.csv has it; MF where the paper states none.

    >>> backbone_name("LightGCN"), backbone_name("not stated")
    ('lightgcn', 'mf')
    """
    return "mf" if name == "not stated" else name.lower()


def ball(row: pd.Series) -> tuple[float, float] | None:
    """Order and radius (nats) of the uncertainty ball in a run's loss; None where it has none.

    CCL's ball is of order inf and radius log c, if its margin is the best. A loss with a
    temperature, such as SL, has no fixed radius: it changes with the scores. A weight c below 1
    gives no ball.

    Args:
        row: as `read_runs` returns them.

    >>> ball(pd.Series({"loss": "ccl", "config": '{"loss.weight": 2}'}))
    (inf, 0.6931471805599453)
    """
    line = losses.REGISTRY.get(row["loss"])
    if line is None or line.order is None:
        return None
    own = {n.removeprefix("loss."): value for n, value in json.loads(row["config"]).items()}
    own = losses.hyperparameters(row["loss"]) | own
    if own.get("temperature"):
        return None
    order = float(own.get(line.order, line.order))
    if own.get("eta") is not None:
        return order, dro.radius_from_eta(own["eta"], order)
    if own.get("radius") is not None:
        return order, float(own["radius"])
    weight = own["weight"] or 1.0
    return (order, dro.radius_from_weight(weight, order)) if weight >= 1 else None


# ---------------------------------------------------------------------------------------------
# Means, intervals, tests


def interval(values) -> tuple[float, float]:
    """The 95% confidence interval of a mean over seeds, by Student's t; NaN for fewer than two.

    >>> [round(end, 3) for end in interval([0.1, 0.2, 0.3])]  # t = 4.303 with three
    [-0.048, 0.448]
    """
    from scipy.stats import t

    values = np.asarray(values, float)
    if len(values) < 2:
        return math.nan, math.nan
    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def ratio_interval(a, b) -> tuple[float, float]:
    """The 95% confidence interval of mean(a) / mean(b), each over seeds of its own.

    By the delta method to first order, with Welch's degrees of freedom; NaN where a or b has fewer
    than two seeds.

    >>> [round(end, 3) for end in ratio_interval([0.11, 0.12, 0.13], [0.1, 0.1, 0.1])]
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


def welch(a, b) -> float:
    """p of Welch's t-test that two means over seeds are equal; NaN for fewer than two of either.

    Where neither a nor b varies over its seeds, p is the test's limit: 1 if they are equal, else 0.

    >>> round(welch([0.2, 0.21, 0.19], [0.1, 0.11, 0.12]), 5), welch([0.1, 0.1], [0.1, 0.1])
    (0.00039, 1.0)
    """
    from scipy.stats import ttest_ind_from_stats

    if min(len(a), len(b)) < 2:
        return math.nan
    pair = [np.asarray(values, float) for values in (a, b)]
    if all(np.allclose(own, own[0], rtol=1e-12, atol=0) for own in pair):
        return float(np.isclose(*(own[0] for own in pair), rtol=1e-12, atol=0))
    # From means and deviations: of a sample without any, SciPy warns that its moments are in doubt.
    told = [stat for own in pair for stat in (own.mean(), own.std(ddof=1), len(own))]
    return float(ttest_ind_from_stats(*told, equal_var=False).pvalue)


@dataclass(eq=False)
class Evidence:
    """Numbers, one a row: what was measured here, or what the paper prints.

    Attributes:
        numbers: the columns in `NUMBERS`. key and trials are the run's, NaN where there is none.
        runs: every run, as `read_runs` returns them.
        skew: `skew.csv`, the runs of order sweeps included.
        folder: of the results; None where the numbers are the paper's.
    """

    numbers: pd.DataFrame
    runs: pd.DataFrame
    skew: pd.DataFrame
    folder: Path | None
    _tests: dict = field(default_factory=dict)
    _tables: dict[Path, pd.DataFrame] = field(default_factory=dict)

    @property
    def printed(self) -> bool:
        """Whether the numbers are the paper's."""
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
        """The mean of several variants' means; NaN where one is missing."""
        return self.at(cell)[[*variants]].mean(skipna=False)

    def of(self, cell: tuple, variant: str | None) -> pd.DataFrame:
        """A cell's rows of one variant, indexed by seed; no row of None."""
        own = self._groups.get((*cell, variant), self.numbers[:0])
        return own.set_index("seed").sort_index()

    @cached_property
    def _groups(self) -> dict[tuple, pd.DataFrame]:
        return dict(list(self.numbers.groupby([*CELL, "variant"])))

    def lead(self, cell: tuple, a: str, b: str) -> float:
        """a's lead over b, relative to b; zero where a leads but not significantly."""
        means = self.at(cell)
        lead = means[a] / means[b] - 1
        return 0.0 if lead > 0 and self.p(cell, a, b) >= LEVEL else lead

    def best_lead(self, cell: tuple, a: str, rivals) -> float:
        """a's lead over the best of its rivals; NaN where a leads but a rival is missing."""
        found = self.at(cell)[list(rivals)]
        if found.isna().all():
            return math.nan
        lead = self.lead(cell, a, found.idxmax())
        return math.nan if lead > 0 and found.isna().any() else lead

    def p(self, cell: tuple, a: str, b: str) -> float:
        """p of the test that a and b do not differ in a cell.

        For accuracy it is paired over users (`metrics.compare`, on means over the seeds) where all
        per-user files are there. Else it is `welch` over the seeds. NaN of the paper's numbers.
        """
        if self.printed:
            return math.nan
        pair, metric = [self.of(cell, variant) for variant in (a, b)], cell[3]
        if metric in ACCURACY:
            if (name := (cell[:3], a, b)) not in self._tests:  # one test is of both metrics
                users = [self.users(cell, variant) for variant in (a, b)]
                known = all(table is not None for table in users)
                self._tests[name] = metrics.compare(*users, samples=2_000) if known else None
            if (tested := self._tests[name]) is not None:
                return tested.loc[metric, "p_bootstrap"]
        return welch(*(rows["value"] for rows in pair))

    def users(self, cell: tuple, variant: str, columns=ACCURACY) -> pd.DataFrame | None:
        """Each user's mean over a cell's runs of one variant; None where a run's file lacks it.

        Args:
            cell: of a metric of accuracy.
            variant: of the runs.
            columns: of the files in `per_user`, such as "ndcg@20_b".
        """
        paths = [
            self.folder / "per_user" / f"{key}.csv.gz" for key in self.of(cell, variant)["key"]
        ]
        if not paths or not all(path.exists() for path in paths):
            return None
        tables = [self._table(path) for path in paths]
        if not all({*columns} <= {*table} for table in tables):
            return None
        return sum(table[[*columns]] for table in tables) / len(tables)

    def _table(self, path: Path) -> pd.DataFrame:
        """A file of users, read once."""
        if path not in self._tables:
            self._tables[path] = pd.read_csv(path, index_col="user")
        return self._tables[path]


# ---------------------------------------------------------------------------------------------
# What was measured, what is printed


def measured(folder: str | Path) -> Evidence:
    """What a folder of results holds; a file that is missing there counts as empty.

    A classical model, which has no backbone, stands in the cells of every backbone of its data set.

    Raises:
        ValueError: a file lacks a column, or see `read_runs`.
    """
    folder = Path(folder)
    runs, skew = read_runs(folder / "runs.csv"), read_skew(folder / "skew.csv").assign(noise=0.0)
    ids = [*CELL[:3], "variant", "seed"]
    rows = selected_runs(runs).rename(columns={f"test_{name}": name for name in ACCURACY})
    rows = beside_backbones(rows)
    current = skew["key"].isna() | skew["key"].isin(rows["key"])  # not of runs selected earlier
    weights = skew[skew["order"].isna() & current]
    numbers = [
        rows.melt([*ids, "key", "trials"], [*ACCURACY], var_name="metric"),
        weights.melt(ids, ["k1", "k2", "truncated"], var_name="metric"),
    ]
    numbers = pd.concat([part for part in numbers if len(part)] or numbers)
    return Evidence(numbers.reindex(columns=NUMBERS).astype({"value": float}), runs, skew, folder)


def beside_backbones(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of runs, those of classical models once for each backbone of their data set, MF always.

    >>> rows = pd.DataFrame({"dataset": ["a"] * 2, "backbone": ["lightgcn", "ease"]})
    >>> sorted(beside_backbones(rows.assign(variant=["sl", "ease"]))["backbone"])
    ['lightgcn', 'lightgcn', 'mf']
    """
    alone = rows["backbone"].isin(classical.REGISTRY)
    parts = [rows[~alone]]
    for dataset, own in rows[alone].groupby("dataset"):
        beside = {*rows.loc[~alone & (rows["dataset"] == dataset), "backbone"], "mf"}
        parts += [own.assign(backbone=backbone) for backbone in sorted(beside)]
    return pd.concat(parts) if len(parts) > 1 else rows


def printed() -> Evidence:
    """The paper's own numbers: each claim is also checked on them."""
    rows = pd.concat([published.table(number) for number in (1, 2, 3, 4)])
    rows = rows[rows["loss"] != "Imp.%"].assign(noise=0.0, seed=0)
    rows["variant"] = rows["loss"].map(VARIANTS)
    rows["backbone"] = rows["backbone"].map(backbone_name)
    rows = rows.drop_duplicates([*CELL, "variant"])  # Table 3 repeats some of Table 2
    return Evidence(rows.reindex(columns=NUMBERS), NO_RUNS, NO_SKEW, None)


def cells(number: int) -> list[tuple]:
    """The cells of one of the paper's tables.

    >>> len(cells(2)), cells(2)[0]
    (24, ('gowalla', 'mf', 0.0, 'recall@20'))
    """
    rows = published.table(number)[["dataset", "backbone", "metric"]].drop_duplicates()
    return [(data, backbone_name(name), 0.0, metric) for data, name, metric in rows.to_numpy()]


def accuracy_by_order(
    e: Evidence, dataset: str, backbone: str = "mf", *, metric: str = "ndcg@20"
) -> dict[str, pd.DataFrame]:
    """The order sweeps of one data set and backbone: accuracy and weights at each order.

    Returns:
        A table for each sweep, named by its variant and what was held fixed, such as
        "drrl, weight=2", and by what else differs where that is not unique. A row an order γ: ours,
        the mean of the metric on test over the seeds; low and high, its 95% interval; seeds;
        truncated, k1, k2 and effective_share, as in `skew.csv`, NaN where they were not measured.

    >>> accuracy_by_order(measured("nowhere"), "amazon-beauty")
    {}
    """
    found = {}
    here = order_sweeps(e.runs[(e.runs["dataset"] == dataset) & (e.runs["backbone"] == backbone)])
    for rows, label in zip(here, _labels(here), strict=True):
        groups = rows.groupby("order")[f"test_{metric}"]
        table = groups.agg(ours="mean", seeds="count")
        table["low"], table["high"] = zip(*groups.apply(interval), strict=True)
        weighed = e.skew[e.skew["key"].isin(rows["key"]) & e.skew["order"].notna()]
        numbers = ["truncated", "k1", "k2", "effective_share"]
        found[label] = table.join(weighed.groupby("order")[numbers].mean())
    return found


def _labels(found: list[pd.DataFrame]) -> list[str]:
    """Variant and what was held fixed; where sweeps share that, the settings that differ too."""
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


def balls_in_noise(
    e: Evidence, dataset: str, backbone: str = "mf", *, metric: str = "ndcg@20"
) -> pd.DataFrame:
    """How much accuracy each ball keeps among false negatives, and its breakdown point.

    Args:
        e: with runs that differ in their share of false negatives alone, and some without any.
        dataset, backbone: of the runs.
        metric: on the test split.

    Returns:
        A row a ball and share: variant, config (its settings), order, radius (nats), share of false
        negatives in a row of negatives as they were drawn, breakdown_point (`dro.breakdown_point`),
        kept (accuracy over that without false negatives, means over the seeds that have both),
        seeds.

    >>> balls_in_noise(measured("nowhere"), "amazon-beauty").empty
    True
    """
    columns = ["variant", "config", "order", "radius", "share", "breakdown_point", "kept", "seeds"]
    rows = e.runs[(e.runs["dataset"] == dataset) & (e.runs["backbone"] == backbone)]
    rows, found = rows[rows["sampler"] == "per-row"], []  # the only sampler with false negatives
    for (variant, negatives, config), own in rows.groupby(["variant", "negatives", "config"]):
        values = own.pivot_table(f"test_{metric}", index="seed", columns="noise")
        if (size := ball(own.iloc[0])) is None or 0.0 not in values or values.shape[1] < 2:
            continue
        for noise, value in values.items():
            both = values[[0.0]].assign(value=value).dropna()  # of the same seeds
            share = math.floor(negatives * noise + 1e-9) / negatives
            kept = both["value"].mean() / both[0.0].mean()
            point = dro.breakdown_point(size[1])
            found.append((variant, config, *size, share, point, kept, len(both)))
    return pd.DataFrame(found, columns=columns)
