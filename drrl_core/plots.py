"""The pictures: one style, one colour a loss, every figure a function that returns a `Figure`.

What an explorer moves is a `Scene`: a figure and the artists in it that follow the dials.

No pyplot: a figure belongs to whoever asked for it, in any thread, and is freed with its last
reference. `show` saves it and hands a notebook something it can display.
"""

import io
import itertools
import math
import struct
import zlib
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Polygon
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter
from PIL import Image as Raster

# Okabe and Ito's palette, told apart by colour-blind readers, in print and on a beamer.
COLOURS = {
    "sl": "#0072B2",
    "ccl": "#D55E00",
    "drrl": "#009E73",
    "bsl": "#56B4E9",
    "bsl-pooled": "#56B4E9",
    "advinfonce": "#CC79A7",
    "llpauc": "#E69F00",
    "psl": "#8C6BB1",
    "bpr": "#7F7F7F",
    "bce": "#A6A6A6",
    "mse": "#C4C4C4",
}
LABELS = {
    "sl": "SL",
    "ccl": "CCL",
    "drrl": "DrRL",
    "bsl": "BSL",
    "bsl-pooled": "BSL (pooled)",
    "advinfonce": "AdvInfoNCE",
    "llpauc": "LLPAUC",
    "psl": "PSL",
    "bpr": "BPR",
    "bce": "BCE",
    "mse": "MSE",
}
KINDS_OF_DRRL = {
    "drrl-exact": "DrRL, exact β",
    "drrl-penalty": "DrRL, penalty",
    "drrl-shared": "DrRL-w/o-P",
    "drrl-fixed": "DrRL-w/o-LP",
}
FALSE_NEGATIVE = "#7A1F5C"
DATA = "#5B6472"  # what is of no loss
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.labelsize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "legend.frameon": False,
    "lines.linewidth": 2,
}


def colour(loss: str) -> str:
    """The loss's colour across the suite, its variants' too; black for one that has none."""
    return COLOURS.get(loss, COLOURS.get(loss.partition("-")[0], "#222222"))


def label(loss: str) -> str:
    """The loss's name as the paper writes it."""
    return (LABELS | KINDS_OF_DRRL).get(loss, loss)


def order_colour(order: float) -> tuple[float, float, float]:
    """From SL's colour at order 1 through DrRL's at 2 to CCL's at ∞, evenly in 1/γ*.

    >>> order_colour(1) == to_rgb(COLOURS["sl"]), order_colour(math.inf) == to_rgb(COLOURS["ccl"])
    (True, True)
    """
    ends = np.array([to_rgb(COLOURS[loss]) for loss in ("sl", "drrl", "ccl")])
    return tuple(np.array([np.interp(1 - 1 / order, (0, 0.5, 1), channel) for channel in ends.T]))


def order_label(order: float) -> str:
    """The order as one would say it, with the loss it makes.

    >>> [order_label(order) for order in (1, 1.5, math.inf)]
    ['1 (SL)', '1.5', '∞ (CCL)']
    """
    return {1: "1 (SL)", math.inf: "∞ (CCL)"}.get(order, f"{order:.3g}")


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """The suite's style for one figure function, and for nobody else in the process."""

    @wraps(draw)
    def in_style(*args, **kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return in_style


def new_figure(width: float, height: float, columns: int = 1, rows: int = 1):
    """A figure of so many inches, and its axes as a (rows, columns) array."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as PNG bytes, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def show(figure: Figure, path: str | Path | None = None):
    """Save the figure as `path` (PNG), if given, and return what a notebook displays."""
    from IPython.display import Image

    data = png(figure)
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(data)
    return Image(data=data, width=int(figure.get_figwidth() * 90))


@styled
def learning_curves(histories: dict[str, pd.DataFrame], *, dataset: str) -> Figure:
    """Valid NDCG@20 over epochs, a line a loss, its best epoch marked.

    Args:
        histories: loss name -> `Fit.history`.
        dataset: its name, for the title.
    """
    figure, [[axes]] = new_figure(6.4, 3.6)
    for loss, history in histories.items():
        seen = history.dropna(subset="ndcg@20")
        axes.plot(seen["epoch"], seen["ndcg@20"], color=colour(loss), label=label(loss))
        best = seen.loc[seen["ndcg@20"].idxmax()]
        axes.plot(best["epoch"], best["ndcg@20"], "o", color=colour(loss), markersize=7)
    axes.set(xlabel="epoch", ylabel="valid NDCG@20", xlim=(0, None))
    axes.set_title(f"Learning curves, {dataset} (dot: best epoch)")
    axes.legend(loc="lower right")
    return figure


@styled
def training(history: pd.DataFrame, *, title: str) -> Figure:
    """One run as it goes: the loss of each epoch, and valid NDCG@20 where it was evaluated.

    Args:
        history: `Fit.history`, or as much of it as there is; empty before the first epoch.
        title: of the whole.
    """
    figure, [[left, right]] = new_figure(9.4, 3.4, 2)
    if len(history):
        left.plot(history["epoch"], history["loss"], "o-", ms=4, color="#222222")
    seen = history.dropna(subset="ndcg@20") if "ndcg@20" in history else history[:0]
    if len(seen):
        right.plot(seen["epoch"], seen["ndcg@20"], "o-", ms=4, color="#222222")
        best = seen.loc[seen["ndcg@20"].idxmax()]
        right.plot(best["epoch"], best["ndcg@20"], "o", ms=9, color=COLOURS["drrl"])
        right.set_title(f"best so far {best['ndcg@20']:.4f}, epoch {best['epoch']:.0f}")
    for axes, name in ((left, "loss (mean of the epoch)"), (right, "valid NDCG@20")):
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.suptitle(title, x=0.01, ha="left", size=12, weight="bold")
    return figure


@styled
def metrics_by_loss(scores: pd.DataFrame, *, dataset: str, reference: dict | None = None) -> Figure:
    """Test accuracy, a panel a metric and a bar a loss.

    Args:
        scores: index loss, a column a metric.
        dataset: its name, for the title.
        reference: metric -> accuracy of ranking by popularity, drawn as a line.
    """
    figure, [panels] = new_figure(6.8, 1.3 + 0.4 * len(scores), len(scores.columns))
    place = np.arange(len(scores))[::-1]
    for axes, metric in zip(panels, scores.columns, strict=True):
        values = scores[metric]
        axes.barh(place, values, color=[colour(loss) for loss in scores.index], height=0.65)
        for y, value in zip(place, values, strict=True):
            axes.text(value, y, f" {value:.4f}", va="center")
        if reference:
            axes.axvline(reference[metric], color="#222222", linestyle="--", linewidth=1.2)
            at = (reference[metric], len(scores) - 0.5)
            axes.text(*at, " by popularity", ha="left", va="bottom", size=8)
        axes.set_yticks(place, [label(loss) for loss in scores.index])
        widest = max(values.max(), reference[metric] if reference else 0)
        axes.set(xlim=(0, widest * 1.25), ylim=(-0.6, len(scores) - 0.1))
        axes.set_xlabel(f"test {metric_label(metric)}")
        axes.grid(axis="y", visible=False)
    figure.suptitle(f"Ranking accuracy, {dataset}", x=0.01, ha="left", size=11, weight="bold")
    return figure


def metric_label(metric: str) -> str:
    """As one writes it.

    >>> metric_label("ndcg@20")
    'NDCG@20'
    """
    return metric.replace("recall", "Recall").replace("ndcg", "NDCG")


def held_label(held: str) -> str:
    """What a sweep held fixed, as one says it.

    >>> held_label("drrl, weight=1.649")
    'DrRL at c = 1.65'
    """
    variant, _, size = held.partition(", ")
    name, _, value = size.partition("=")
    symbol = {"radius": "ρ", "weight": "c", "eta": "η", "temperature": "λ"}[name]
    return f"{label(variant)} at {symbol} = {float(value):.3g}"


def _points(axes: Axes, x, y, low, high, tone, **style) -> None:
    """Means and their intervals, upright; a mean without one is a point alone."""
    ends = np.array([np.asarray(y) - low, np.asarray(high) - y], float)
    style = {"fmt": "o", "ms": 6, "capsize": 3, "elinewidth": 1.4, "color": tone} | style
    axes.errorbar(x, y, yerr=np.nan_to_num(ends), **style)


@styled
def against_paper(tables: dict[str, pd.DataFrame], *, title: str) -> Figure:
    """What was measured beside what the paper prints, a panel a metric and a line a loss.

    Args:
        tables: metric -> as `scorecard.comparison` gives it; the first one's order is the order.
    """
    losses = list(next(iter(tables.values())).index)[::-1]
    size = 3.9 * len(tables) + 1.2, 1.5 + 0.34 * len(losses)
    figure, [panels] = new_figure(*size, len(tables))
    for axes, (metric, table) in zip(panels, tables.items(), strict=True):
        for y, loss in enumerate(losses):
            row, tone = table.loc[loss], colour(loss)
            axes.plot([row["low"], row["high"]], [y, y], "|-", color=tone, lw=1.6, ms=8)
            axes.plot(row["ours"], y, "o", color=tone, ms=8)
            axes.plot(row["paper"], y, "D", mfc="white", mec=tone, mew=1.6, ms=7, zorder=1)
        absent = table["ours"].isna()
        names = [label(loss) + ", not run" * int(absent[loss]) for loss in losses]
        axes.set_yticks(range(len(losses)), names if axes is panels[0] else [])
        axes.set(xlabel=f"test {metric_label(metric)}", ylim=(-0.6, len(losses) - 0.4))
    looks = dict(ls="", marker="o", ms=7), dict(ls="", marker="D", mfc="white", ms=7)
    handles = [Line2D([], [], color="#444444", **look) for look in looks]
    handles.append(Line2D([], [], color="#444444", marker="|", ms=8, lw=1.6))
    words = ["ours, mean over seeds", "the paper", "95% interval (Student's t)"]
    columns = 3 if len(tables) > 1 else 1
    figure.legend(handles, words, loc="outside lower center", ncols=columns, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", size=12, weight="bold")
    return figure


@styled
def by_group(tables: dict[str, pd.DataFrame], *, of: str, metric: str, title: str) -> Figure:
    """Accuracy over groups of users or items that are alike active or popular, a bar a loss.

    Args:
        tables: loss -> as `metrics.by_activity` or `metrics.by_popularity` gives it.
        of: what is counted, for the axis.
    """
    figure, [[axes]] = new_figure(6.4, 3.6)
    width = 0.8 / max(len(tables), 1)
    for nth, (loss, table) in enumerate(tables.items()):
        place = np.arange(len(table)) + width * (nth - (len(tables) - 1) / 2)
        axes.bar(place, table[metric], width, color=colour(loss), label=label(loss))
    ends = zip(table["least"], table["most"], strict=True)
    names = [f"{low:,}" if low == high else f"{low:,}–{high:,}" for low, high in ends]
    axes.set_xticks(range(len(table)), names)
    axes.set(xlabel=of, ylabel=f"test {metric_label(metric)}", ylim=(0, None))
    axes.set_title(title)
    axes.legend(loc="best")
    return figure


@styled
def along_noise(table: pd.DataFrame, *, metric: str, title: str) -> Figure:
    """Accuracy as false negatives grow, and DrRL's lead over the best other loss.

    Args:
        table: index noise (share of the negatives, ascending) and variant; columns as of
            `scorecard.comparison`.
    """
    figure, [[left, right]] = new_figure(9.4, 3.9, 2)
    wide = table["ours"].unstack()
    step = 0.004 * max(wide.index.max(), 1e-9)
    losses = [loss for loss in wide if wide[loss].notna().any()]
    tones = [colour(loss) for loss in losses]
    for place, loss in enumerate(losses):
        rows = table.xs(loss, level="variant").reindex(wide.index)  # a gap where it was not run
        x = rows.index + step * (place - (len(losses) - 1) / 2)  # intervals beside each other
        ends = (rows[name] for name in ("low", "high"))
        line = "s--" if tones[place] in tones[:place] else "o-"
        _points(left, x, rows["ours"], *ends, tones[place], fmt=line, label=label(loss))
    left.set(xlabel="noise ratio: share of false negatives", ylabel=f"test {metric_label(metric)}")
    names = left.get_legend_handles_labels()
    figure.legend(*names, loc="outside lower center", ncols=max(len(losses), 1), fontsize=9)
    right.axhline(0, color="#777777", lw=1.2)
    if "drrl" in losses and len(losses) > 1:
        others = wide[losses].drop(columns="drrl")
        lead = 100 * (wide["drrl"] / others.max(axis=1) - 1)
        sure = table.xs("drrl", level="variant")["p"].reindex(lead.index) < 0.05
        right.plot(lead.index, lead, color=colour("drrl"))
        for kind, fill in ((sure, colour("drrl")), (~sure, "white")):
            style = dict(ls="", marker="o", ms=8, mfc=fill, mec=colour("drrl"))
            right.plot(lead.index[kind], lead[kind], **style)
        rivals = others.loc[lead.dropna().index].idxmax(axis=1)
        for place, (x, rival) in enumerate(rivals[rivals != rivals.shift()].items()):
            away = (0, -17 if place % 2 else 9)
            style = dict(textcoords="offset points", size=8, ha="center")
            right.annotate(label(rival), (x, lead[x]), away, **style)
    right.set(xlabel="noise ratio", ylabel="DrRL's lead over the best other, %")
    right.margins(y=0.25)
    right.set_title(
        "filled: p < 0.05; named: that other, where it changes", size=9, weight="normal"
    )
    for axes in (left, right):
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.suptitle(title, x=0.01, ha="left", size=12, weight="bold")
    return figure


@styled
def breakdown(table: pd.DataFrame, *, metric: str, title: str) -> Figure:
    """What balls keep of their accuracy, against the share of false negatives; then against that
    share in units of each ball's breakdown point, which would lay all that break upon each other.

    Args:
        table: as `evidence.balls_in_noise`.
        metric: of which `kept` is told, for the axes.
    """
    figure, [[left, right]] = new_figure(9.4, 4.3, 2)
    ids = ["radius", "order", "variant", "config"]
    groups = list(table.groupby(ids))  # by radius
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.92, len(groups)))
    marks = {name: mark for name, mark in zip(sorted({*table["variant"]}), "osD^v", strict=False)}
    for tone, ((radius, order, variant, _), rows) in zip(shades, groups, strict=True):
        rows, point = rows.sort_values("share"), rows["breakdown_point"].iloc[0]
        name = f"{label(variant)}, γ = {order_label(order).split()[0]}, ρ = {radius:.2f}"
        style = {"color": tone, "marker": marks[variant], "ms": 6, "lw": 1.6}
        left.plot(rows["share"], rows["kept"], label=name, **style)
        left.plot([point, point], [0, 0.05], color=tone, lw=2.5)
        noisy = rows[rows["share"] > 0]
        right.plot(noisy["share"] / point, noisy["kept"], **style)
    for axes in (left, right):
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set(ylim=(0, max(1.05, 1.05 * table["kept"].max())))
    left.set(ylabel=f"test {metric_label(metric)} kept")
    left.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    most = table["share"].max() if len(table) else 0.5
    left.set(
        xlabel="false negatives among a row's (stroke: breakdown point)", xlim=(0, most * 1.05)
    )
    right.axvline(1, color="#222222", ls="--", lw=1.2)
    right.set_xscale("log", base=2)
    right.set(xlabel=r"that share / breakdown point $e^{-\rho}$")
    right.xaxis.set_major_formatter("{x:g}")
    figure.legend(loc="outside lower center", ncols=3, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", size=12, weight="bold")
    return figure


@styled
def along_dial(sweeps: dict[str, pd.DataFrame], panels: dict[str, str], *, title: str) -> Figure:
    """What trained models of one family do along the order, a panel a quantity.

    Args:
        sweeps: what was held fixed -> a row a model, as in `evidence.accuracy_by_order`.
        panels: column -> what it is. Where there are low and high, they are the first one's, whose
            best is in the legend.
    """
    figure, axes_of = new_figure(
        9.4, 2.9 * math.ceil(len(panels) / 2), 2, math.ceil(len(panels) / 2)
    )
    looks = ("o-", "#222222"), ("s--", "#CC79A7"), ("^:", "#E69F00"), ("v-.", "#56B4E9")
    lead = next(iter(panels))
    for axes, (name, words) in zip(axes_of.flat, panels.items(), strict=False):
        for (held, rows), (line, tone) in zip(sweeps.items(), itertools.cycle(looks), strict=False):
            x, none = 1 - 1 / rows.index.to_numpy(float), np.full(len(rows), np.nan)
            ends = (rows["low"], rows["high"]) if name == lead and "low" in rows else (none, none)
            label = f"{held_label(held)}, best at γ = {rows[lead].idxmax():.3g}"
            _points(axes, x, rows[name], *ends, tone, fmt=line, label=label)
        _order_axis(axes)
        axes.set(ylabel=words)
        if name in ("k1", "k2"):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
    for axes in axes_of.flat[len(panels) :]:
        axes.set_axis_off()
    axes_of.flat[0].legend(fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", size=12, weight="bold")
    return figure


@styled
def weights_by_score(views: dict[str, pd.DataFrame], *, dataset: str, user: int) -> Figure:
    """One user's negatives under each loss: where their scores lie, and how much each is heard.

    Args:
        views: loss name -> a row a negative: score, weight (mean 1), false_negative (bool).
        dataset: its name, for the title.
        user: whose negatives they are.
    """
    figure, [panels] = new_figure(3.5 * len(views), 4.3, len(views))
    for axes, (loss, view) in zip(panels, views.items(), strict=True):
        crowd = axes.twinx()
        crowd.hist(view["score"], bins=40, color="#DADCE0")
        top = crowd.get_ylim()[1] * 1.6
        crowd.set(yticks=[], ylim=(-top * 0.05 / 1.08, top))  # stands on weight 0
        crowd.spines[:].set_visible(False)
        axes.set_zorder(crowd.get_zorder() + 1)  # the crowd is the background
        axes.patch.set_visible(False)
        false, weight = view["false_negative"], view["weight"]
        axes.scatter(view["score"][~false], weight[~false], s=10, color=colour(loss))
        axes.scatter(
            view["score"][false],
            weight[false],
            s=34,
            marker="D",
            facecolor="white",
            edgecolor=FALSE_NEGATIVE,
            linewidth=1.3,
        )
        heard = weight[false].sum() / weight.sum() if weight.any() else 0
        axes.set_title(f"{label(loss)}, {dataset}, user {user}", color=colour(loss), pad=34)
        axes.text(
            0,
            1.02,
            f"truncated: {(weight == 0).mean():.0%} of the items\n"
            f"weight on false negatives: {heard:.1%}",
            transform=axes.transAxes,
            va="bottom",
            size=9,
        )
        axes.set(xlabel="score of the negative", ylim=(-0.05 * weight.max(), 1.08 * weight.max()))
    panels[0].set_ylabel("weight (mean 1)")
    dot, diamond = (
        Line2D([], [], ls="", marker="o", ms=4, color="#444444"),
        Line2D([], [], ls="", marker="D", ms=6, mfc="white", mec=FALSE_NEGATIVE, mew=1.3),
    )
    share = f"false negative ({view['false_negative'].mean():.1%} of the items)"
    handles = [dot, diamond, Patch(color="#DADCE0")]
    names = ["negative", share, "how many items have that score"]
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=9)
    return figure


@styled
def popularity_and_activity(train, *, dataset: str) -> Figure:
    """How unequal a data set is: pairs of a user, and who holds the pairs among the items.

    Args:
        train: (n_users, n_items) CSR. dataset: its name, for the title.
    """
    figure, [[left, right]] = new_figure(8.6, 3.5, 2)
    activity = np.diff(train.indptr)
    top = max(2, activity.max() + 1)
    bins = np.unique(np.geomspace(1, top, 25).round()) if top > 60 else np.arange(0.5, top + 1)
    left.hist(activity[activity > 0], bins=bins, color=DATA, edgecolor="white", linewidth=0.5)
    if top > 60:
        left.set_xscale("log")
    middle = np.median(activity[activity > 0]) if activity.any() else 0
    left.axvline(middle, color="#222222", linewidth=1.2, linestyle="--")
    side = dict(ha="left", va="top", size=9, transform=left.get_xaxis_transform())
    left.text(middle, 0.99, f" median {middle:g}", **side)
    left.set(xlabel="train pairs of a user", ylabel="users", ylim=(0, 1.12 * left.get_ylim()[1]))
    left.set_title(f"Half of the users have at most {middle:g} train pairs")
    fame = np.sort(np.bincount(train.indices, minlength=train.shape[1]))[::-1]
    held = np.concatenate([[0], np.cumsum(fame) / max(1, fame.sum())])
    share = np.linspace(0, 1, len(held))
    right.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle=":")
    right.fill_between(share, held, share, color=DATA, alpha=0.15, linewidth=0)
    right.plot(share, held, color=DATA)
    tenth = float(np.interp(0.1, share, held))
    right.plot(0.1, tenth, "o", color=DATA, markersize=7)
    right.set(xlabel="items, the most popular first", ylabel="share of the train pairs")
    right.set(xlim=(0, 1), ylim=(0, 1.02))
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_formatter("{x:.0%}")
    right.set_title(f"A tenth of the items has {tenth:.0%} of the pairs")
    figure.suptitle(f"{dataset}, train pairs", x=0.01, ha="left", size=11)
    return figure


@styled
def radii_tried(radii: np.ndarray, tried: pd.DataFrame, *, reference: float) -> Figure:
    """From SL to DrRL: the radius SL used, user by user, and how DrRL fares at some of them.

    Args:
        radii: (users,) nats, of a trained SL.
        tried: a row a trained DrRL: order, radius (nats), valid (NDCG@20).
        reference: valid NDCG@20 of that SL.
    """
    figure, [upper, lower] = new_figure(7.0, 5.2, rows=2)
    above, below = upper[0], lower[0]
    above.hist(radii, bins=30, color=COLOURS["sl"], alpha=0.75, edgecolor="white", linewidth=0.5)
    above.set(ylabel="users", xlabel="radius ρ that SL amounts to (nats)")
    above.set_title("SL's one temperature is another radius for each user")
    span = [*radii, *tried["radius"]]
    room = 0.05 * (max(span) - min(span) or 1)
    for axes in (above, below):
        axes.set_xlim(min(span) - room, max(span) + room)
        for radius in tried["radius"].unique():
            axes.axvline(radius, color="#999999", linewidth=1, linestyle=":")
    below.axhline(reference, color=COLOURS["sl"], linewidth=1.4)
    right = dict(ha="right", va="bottom", size=9, transform=below.get_yaxis_transform())
    below.text(0.995, reference, "SL", color=COLOURS["sl"], **right)
    for order, rows in tried.groupby("order"):
        rows = rows.sort_values("radius")
        look = dict(color=order_colour(order), marker="o", label=f"γ = {order_label(order)}")
        below.plot(rows["radius"], rows["valid"], **look)
    ends = [reference, *tried["valid"]]
    room = 0.15 * (max(ends) - min(ends) or 0.1)
    below.set(ylim=(min(ends) - room, max(ends) + room))
    below.set(xlabel="radius ρ of DrRL, one for all users (nats)", ylabel="valid NDCG@20")
    best = tried.loc[tried["valid"].idxmax()]
    word = "above" if best["valid"] > reference else "below"
    below.set_title(f"DrRL, β exact: the best of {len(tried)} is {word} SL on valid")
    below.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@styled
def recommended(lists: dict[str, pd.DataFrame], *, user: object) -> Figure:
    """One user's best items under each loss, named by the ids of one's own file.

    Args:
        lists: loss name -> a row an item, best first: item (id), score, test (bool: the user's
            held-out pair), popularity (train pairs of the item).
        user: the user's id.
    """
    longest = max(len(rows) for rows in lists.values())
    figure, [panels] = new_figure(3.4 * len(lists), 1.5 + 0.3 * longest, len(lists))
    for axes, (loss, rows) in zip(panels, lists.items(), strict=True):
        place = -np.arange(len(rows))
        bars = axes.barh(place, rows["score"], color=colour(loss), height=0.72)
        for bar, hit in zip(bars, rows["test"], strict=True):
            bar.set_alpha(1.0 if hit else 0.3)
        names = [str(item) if len(str(item)) < 15 else f"{item!s:.13}…" for item in rows["item"]]
        axes.set_yticks(place, names, size=9)
        low = min(0.0, rows["score"].min())
        span = (max(rows["score"].max(), 0) - low) or 1
        for y, value, count in zip(place, rows["score"], rows["popularity"], strict=True):
            axes.text(max(value, 0) + 0.02 * span, y, f"{count:,}", va="center", size=8)
        axes.set(xlim=(low, low + 1.2 * span), ylim=(-longest + 0.4, 0.6), xlabel="score")
        axes.set_title(label(loss), color=colour(loss))
        axes.grid(axis="y", visible=False)
    handles = [Patch(color="#444444"), Patch(color="#444444", alpha=0.3), Line2D([], [], ls="")]
    names = ["in test", "not in test", "number: train pairs of the item"]
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=9)
    title = f"User {user}: the best {longest} items without a train pair"
    figure.suptitle(title, x=0.01, ha="left", size=11, weight="bold")
    return figure


@styled
def popularity_moved(splits: dict[str, tuple[np.ndarray, np.ndarray]], said: dict) -> Figure:
    """Each item's popularity in train against that in test, a panel a way to split.

    Args:
        splits: name of a split -> how many train, and how many test pairs each item has, (n,) both.
        said: name of a split -> what its title adds.
    """
    figure, [panels] = new_figure(4.3 * len(splits), 4.4, len(splits))
    points = {
        name: [np.asarray(part) * len(part) / max(1, np.sum(part)) for part in counts]
        for name, counts in splits.items()
    }
    top = 1.1 * max(part.max() for parts in points.values() for part in parts) or 1
    for axes, (name, (x, y)) in zip(panels, points.items(), strict=True):
        axes.plot([0, top], [0, top], color="#999999", linewidth=1, linestyle=":")
        axes.plot(x, y, "o", ms=4, alpha=0.35, mew=0, color=DATA)
        for scale in (axes.set_xscale, axes.set_yscale):
            scale("function", functions=(np.sqrt, np.square))  # counts spread like their root
        ticks = [tick for tick in (0, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if tick <= top]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set(xlim=(0, top), ylim=(0, top), xlabel="popularity in train (average item: 1)")
        axes.set_title(f"{name}: {said[name]}")
    panels[0].set_ylabel("popularity in test (average item: 1)")
    return figure


@styled
def accuracy_moved(table: pd.DataFrame, *, metric: str, title: str) -> Figure:
    """What a shift costs each loss: accuracy on a random split and on one by time.

    Args:
        table: a row a loss (or "popularity"); columns random, time, each mean over the seeds;
            random_low, random_high, time_low, time_high, their intervals, NaN where there is none.
        metric: its name, as on the axis.
    """
    figure, [[axes]] = new_figure(7.4, 1.3 + 0.42 * len(table))
    for y, (loss, row) in enumerate(table[::-1].iterrows()):
        tone = colour(loss)
        axes.plot([row["random"], row["time"]], [y, y], color=tone, alpha=0.35, linewidth=5)
        for split, fill in (("random", "white"), ("time", tone)):
            ends = row[f"{split}_low"], row[f"{split}_high"]
            axes.plot(ends, [y, y], "|-", color=tone, ms=9, linewidth=1.4)
            axes.plot(row[split], y, "o", ms=9, mfc=fill, mec=tone, mew=1.6)
        kept = f"keeps {row['time'] / row['random']:.0%}"
        right = dict(transform=axes.get_yaxis_transform(), va="center", size=9, color=tone)
        axes.text(1.01, y, kept, **right)
    names = [label(loss) for loss in table.index[::-1]]
    axes.set_yticks(range(len(table)), names)
    axes.set(xlabel=f"test {metric}", xlim=(0, None), ylim=(-0.6, len(table) - 0.4))
    axes.set_title(title)
    axes.grid(axis="y", visible=False)
    looks = dict(ls="", marker="o", ms=8, color="#444444")
    handles = [Line2D([], [], mfc=fill, **looks) for fill in ("white", "#444444")]
    handles.append(Line2D([], [], color="#444444", marker="|", ms=8, lw=1.4))
    words = ["random split", "split by time", "95% interval over seeds"]
    figure.legend(handles, words, loc="outside lower center", ncols=3, fontsize=9)
    return figure


ORDER_TICKS = (1, 1.25, 1.5, 2, 3, 5, 10, math.inf)


def _order_axis(axes: Axes) -> None:
    """An axis of orders, evenly in 1/γ* = 1 - 1/γ: SL at its left end, CCL at its right."""
    names = ["1\nSL", *map(str, ORDER_TICKS[1:-1]), "∞\nCCL"]
    axes.set_xticks([1 - 1 / order for order in ORDER_TICKS], names)
    axes.set(xlabel="order γ (evenly in 1/γ*)", xlim=(-0.035, 1.035))


@styled
def order_strip(scores: np.ndarray, worst: dict[float, np.ndarray], *, radius: float) -> Figure:
    """Weight against score at one radius, a panel an order: from SL's shape to CCL's.

    Args:
        scores: (n,). worst: order -> (n,) worst-case weights. radius: in nats, for the title.
    """
    figure, [panels] = new_figure(2.3 * len(worst), 3.2, len(worst))
    by_score, top = np.argsort(scores), max(weights.max() for weights in worst.values())
    for axes, (order, weights) in zip(panels, worst.items(), strict=True):
        crowd = axes.twinx()
        crowd.hist(scores, bins=30, color="#DADCE0")
        crowd.set(yticks=[], ylim=(-crowd.get_ylim()[1] * 0.05, crowd.get_ylim()[1] * 1.8))
        crowd.spines[:].set_visible(False)
        axes.set_zorder(crowd.get_zorder() + 1)
        axes.patch.set_visible(False)
        axes.plot(scores[by_score], weights[by_score], color=order_colour(order), linewidth=2.6)
        axes.set_title(f"γ = {order_label(order)}", color=order_colour(order))
        said = f"{(weights == 0).mean():.0%} truncated\ntop: {weights.max():.3g} × mean"
        axes.text(0.04, 0.97, said, transform=axes.transAxes, va="top", size=9)
        axes.set(xlabel="score", ylim=(-0.04 * top, 1.28 * top))
        if axes is not panels[0]:
            axes.set_yticklabels([])
    panels[0].set_ylabel("weight (mean 1)")
    title = f"One radius, ρ = {radius:.3g} nats: turning the order turns SL into CCL"
    figure.suptitle(title, x=0.01, ha="left", size=12, weight="bold")
    return figure


@styled
def along_orders(
    orders: np.ndarray, curves: dict[str, np.ndarray], *, ylabel: str, title: str, ends: dict
) -> Figure:
    """Something along the order dial, a curve for each quantity that is held fixed.

    Args:
        orders: (a,) γ in [1, ∞]. curves: name -> (a,) values.
        ends: name -> value, at SL's end and at CCL's; drawn as lines across.
    """
    figure, [[axes]] = new_figure(7.0, 3.9)
    for (name, values), line, tone in zip(
        curves.items(), ("-", "--", ":", "-."), TONES, strict=False
    ):
        axes.plot(1 - 1 / np.asarray(orders), values, ls=line, color=tone, label=name, lw=2.4)
    corners = ("sl", 1.0, "right"), ("ccl", 0.0, "left")
    for (name, value), (loss, side, align) in zip(ends.items(), corners, strict=True):
        axes.axhline(value, color=colour(loss), linewidth=1.2)
        axes.text(side, value, name, color=colour(loss), va="bottom", ha=align, size=9)
    _order_axis(axes)
    axes.set(ylabel=ylabel)
    axes.set_title(title)
    axes.legend(title="held fixed", loc="best")
    return figure


QUANTITIES = {
    "k1": "$k_1$: largest weight (× mean)",
    "k2": "$k_2$: weight of a false\nnegative (× mean)",
    "k2_test": "$k_2$: weight of a held-out\ntest positive (× mean)",
    "truncated": "truncated share",
    "truncated_best": "truncated share at the best β",
    "effective_share": "effective share $1/E w^2$",
}
RATIOS = ("k1", "k2", "k2_test")  # probability ratios, on logarithmic axes; the rest are shares


def _quantity(axes: Axes, name: str, *, across: bool = False) -> None:
    """The axis of one of QUANTITIES: its name, its ticks, and its ends where it is a share."""
    which = "x" if across else "y"
    axes.set(**{f"{which}label": QUANTITIES[name]})
    if name in RATIOS:
        axes.set(**{f"{which}scale": "log"})
        axis = getattr(axes, f"{which}axis")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    else:
        axes.set(**{f"{which}lim": (-0.03, 1.03)})
        getattr(axes, f"{which}axis").set_major_formatter(PercentFormatter(1))


@styled
def users_by_loss(
    found: dict[str, pd.DataFrame], quantities: tuple[str, ...], *, title: str
) -> Figure:
    """How a quantity spreads over the users, a panel a quantity and a curve a loss.

    Args:
        found: loss -> a row a user, as `runs.by_user` gives it.
        quantities: columns of it, of QUANTITIES.
    """
    figure, [panels] = new_figure(4.4 * len(quantities), 3.8, len(quantities))
    for axes, name in zip(panels, quantities, strict=True):
        for loss, users in found.items():
            values = np.sort(users[name].dropna())
            steps = np.arange(1, len(values) + 1) / max(len(values), 1)
            axes.step(values, steps, where="post", color=colour(loss))
            if len(values):
                at = np.searchsorted(values, values.mean()) / len(values)
                axes.plot(values.mean(), at, "D", ms=8, mec="white", color=colour(loss))
        _quantity(axes, name, across=True)
        axes.set(ylim=(-0.02, 1.02))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    panels[0].set_ylabel("share of the users at or below")
    handles = [Line2D([], [], color=colour(loss), label=label(loss)) for loss in found]
    mean = Line2D([], [], ls="", marker="D", ms=7, color="#444444", label="mean over the users")
    figure.legend(handles=[*handles, mean], loc="outside lower center", ncols=len(found) + 1)
    figure.suptitle(title, x=0.01, ha="left", size=12, weight="bold")
    return figure


TONES = "#222222", "#CC79A7", "#E69F00", "#56B4E9"  # of what is no loss


@styled
def scores_of_users(
    rows: dict[str, np.ndarray], margins: dict[str, float], *, title: str, words: str
) -> Figure:
    """Where a few users' scores lie, a curve a user, and a margin for each.

    Args:
        rows: who -> (n,) scores. margins: who -> β, score; `words` say which β it is.
    """
    figure, [[axes]] = new_figure(7.0, 3.6)
    low, high = (end(map(end, rows.values())) for end in (min, max))
    edges = np.linspace(low, high, 41)
    for (who, scores), tone in zip(rows.items(), TONES, strict=False):
        axes.hist(scores, edges, density=True, histtype="step", lw=2, color=tone, label=who)
        axes.axvline(margins[who], color=tone, ls="--", lw=1.4)
    handles, names = axes.get_legend_handles_labels()
    handles.append(Line2D([], [], color="#777777", ls="--", lw=1.4))
    axes.legend(handles, [*names, words], loc="upper right", fontsize=9)
    axes.set(xlabel="score of the negative", ylabel="density")
    axes.set_title(title)
    return figure


@styled
def turned_by_user(
    columns: dict[str, pd.DataFrame],
    quantities: tuple[str, ...],
    *,
    title: str,
    dots: dict[str, pd.DataFrame] | None = None,
) -> Figure:
    """Quantities along the order dial: the mean over users and where four in five of them lie.

    Args:
        columns: heading (or a loss) -> as `runs.turned` gives it; a column of panels each.
        quantities: a row of panels each, of QUANTITIES.
        dots: heading -> trained models, index order, columns as quantities; drawn where given.
    """
    size = 3.5 * len(columns), 0.9 + 2.4 * len(quantities)
    figure, panels = new_figure(*size, len(columns), len(quantities))
    for axes, heading in zip(panels[0], columns, strict=True):
        axes.set_title(label(heading), color=colour(heading))
    for row, name in zip(panels, quantities, strict=True):
        for axes, (heading, found) in zip(row, columns.items(), strict=True):
            by_order = found[name].groupby(level="order")
            mean, tone = by_order.mean(), colour(heading)
            x = 1 - 1 / mean.index.to_numpy()
            axes.fill_between(x, by_order.quantile(0.1), by_order.quantile(0.9), color="#D3D6DB")
            axes.plot(x, mean, color=tone)
            if dots and heading in dots:
                at = dots[heading]
                axes.plot(1 - 1 / at.index.to_numpy(), at[name], "D", ms=8, mec="white", color=tone)
            _order_axis(axes)
            _quantity(axes, name)
            axes.label_outer(remove_inner_ticks=False)
        ends = [axes.get_ylim() for axes in row]
        low, high = min(low for low, _ in ends), max(high for _, high in ends)
        for axes in row:  # of a ratio no more than is readable: a tenth of the users may have none
            axes.set_ylim(max(low, high / 1000) if name in RATIOS else low, high)
    handles = [Line2D([], [], color="#444444"), Patch(color="#D3D6DB")]
    names = ["mean over the users", "10% to 90% of them"]
    if dots:
        handles.append(Line2D([], [], ls="", marker="D", ms=7, color="#444444"))
        names.append("a model trained there")
    figure.legend(handles, names, loc="outside lower center", ncols=3)
    figure.suptitle(title, x=0.01, ha="left", size=12, weight="bold")
    return figure


VARIANTS = {
    "learned": "DrRL: one β a user, learnt",
    "shared": "w/o-P: one learnt β for all",
    "fixed": "w/o-LP: one fixed β",
    "exact": "exact β of each row",
}


@styled
def descents(betas: np.ndarray, panels: dict[float, dict]) -> Figure:
    """The bound β + c·‖(f-β)₊‖ as a curve, and gradient descent on it from several starts.

    Args:
        betas: (b,) score, ascending. panels: c -> curve (b,), score; value, the worst case; best,
            the exact β, -inf where there is none; paths, start -> (m, 2), β and bound on the way.
    """
    figure, [axes_of] = new_figure(9.4, 3.8, len(panels))
    for axes, (weight, panel) in zip(axes_of, panels.items(), strict=True):
        axes.plot(betas, panel["curve"], color="#222222", linewidth=1.6)
        axes.axhline(panel["value"], color="#999999", linewidth=1, linestyle=":")
        for tone, (start, path) in zip(
            (COLOURS["drrl"], "#CC79A7"), panel["paths"].items(), strict=False
        ):
            axes.plot(*path.T, "o", markersize=4, color=tone, alpha=0.6, mew=0)
            axes.plot(*path[0], "o", markersize=8, mfc="white", mec=tone, mew=2)
            axes.plot(*path[-1], "o", markersize=8, color=tone, label=f"from β = {start:g}")
        if math.isfinite(panel["best"]):
            axes.plot(panel["best"], panel["value"], "D", ms=7, color="#222222", label="exact β")
            said = "the worst case"
        else:
            said = "the mean, which no β reaches"
        at = (0.02, panel["value"])
        across = axes.get_yaxis_transform()
        axes.text(*at, said, transform=across, va="top", size=9, color="#666666")
        axes.set_title(f"c = {weight:g}")
        axes.set(xlabel="margin β (score)", xlim=(betas[0], betas[-1]))
        axes.legend(loc="upper center", fontsize=9)
    axes_of[0].set_ylabel("bound (score)")
    title = "With a ball the start is forgotten; at c = 1 there is nowhere to arrive"
    figure.suptitle(title, x=0.01, ha="left", size=12, weight="bold")
    return figure


@styled
def margins_by_variant(frames: dict[str, pd.DataFrame], *, dataset: str, negatives: int) -> Figure:
    """The β that each variant of DrRL uses against the exact one, a dot a user.

    Args:
        frames: variant -> `runs.margins`. dataset: its name, for the title.
        negatives: N of a row, for the caption of the exact variant.
    """
    figure, [panels] = new_figure(2.6 * len(frames), 3.5, len(frames))
    every = pd.concat(frames.values())[["beta", "best"]]
    low, high = every.min().min(), every.max().max()
    ends = low - 0.05 * (high - low), high + 0.05 * (high - low)
    for axes, (variant, frame) in zip(panels, frames.items(), strict=True):
        axes.plot(ends, ends, color="#999999", linewidth=1.2)
        tone = "#222222" if variant == "exact" else COLOURS["drrl"]
        axes.plot(frame["best"], frame["beta"], "o", ms=4, alpha=0.5, mew=0, color=tone)
        named = VARIANTS[variant].replace(": ", ":\n")
        axes.set_title(named if variant != "exact" else f"exact,\non each row of {negatives}")
        said = f"mean gap {frame['gap'].mean():.4f}"
        axes.text(0.04, 0.96, said, transform=axes.transAxes, va="top", size=9)
        axes.set(xlim=ends, ylim=ends, aspect="equal")
        if axes is not panels[0]:
            axes.set_yticklabels([])
    panels[0].set_ylabel("β in use (score)")
    figure.supxlabel("exact β on all of the user's negatives (score)", size=10)
    title = f"Whose margin is where it should be? {dataset}, a dot a user"
    figure.suptitle(title, x=0.01, ha="left", size=12, weight="bold")
    return figure


@styled
def margins_over_epochs(
    panels: dict[str, dict[tuple[float, float], pd.DataFrame]], exact: pd.DataFrame
) -> Figure:
    """Where the learnt β goes, a panel a weight c, a line a start and rate.

    Args:
        panels: the panel's title -> (start, rate) -> a history with diagnostics, as `runs.execute`
            adds them; the first panel is that of the ball.
        exact: the history of the run that solves for β in that ball.
    """
    figure, [axes_of] = new_figure(9.4, 3.8, len(panels))
    every = {run for panel in panels.values() for run in panel}
    tones = dict(zip(sorted({run[0] for run in every}), ("#CC79A7", COLOURS["drrl"]), strict=False))
    lines = dict(zip(sorted({run[1] for run in every}), (":", "-"), strict=False))
    for axes, (title, panel) in zip(axes_of, panels.items(), strict=True):
        for (start, rate), history in panel.items():
            seen = history.dropna(subset="beta")
            axes.plot(
                [0, *seen["epoch"]],
                [start, *seen["beta"]],
                color=tones[start],
                linestyle=lines[rate],
                label=f"start {start:g}, rate {rate:g}",
            )
        axes.set(xlabel="epoch", xlim=(0, None))
        axes.set_title(title)
    seen = exact.dropna(subset="beta")
    axes_of[0].plot(seen["epoch"], seen["beta"], "D", ms=5, color="#222222", label="exact, its run")
    ends = [axes.get_ylim() for axes in axes_of]
    for axes in axes_of:
        axes.set_ylim(min(low for low, _ in ends), max(high for _, high in ends))
    axes_of[0].set_ylabel("mean β of the users (score)")
    axes_of[0].legend(loc="lower right", fontsize=9)
    title = "A ball gives β somewhere to arrive, at a rate that is quick enough"
    figure.suptitle(title, x=0.01, ha="left", size=12, weight="bold")
    return figure


# ---------------------------------------------------------------------------------------------
# Scenes: what explorers move


class Scene:
    """A figure of which some artists move; the rest is drawn once, and again when an axis changes.

    To build a figure of two panels anew takes some 130 ms, too slow for a slider; this takes ten.

    Args:
        figure: with everything in it.
        moving: the artists that follow the dials, in the order they are drawn.
        move: called with keyword arguments, changes the moving artists and axes' limits only.
    """

    def __init__(self, figure: Figure, moving: list[Artist], move: Callable[..., None]):
        self.figure, self.moving, self._move = figure, moving, move
        self._canvas, self._backgrounds = FigureCanvasAgg(figure), {}  # by the ends of the axes

    def move(self, **values) -> Figure:
        """The figure itself, moved: to save it, or to show it where nothing moves."""
        with mpl.rc_context(STYLE):
            self._move(**values)
        for artist in self.moving:
            artist.set_animated(False)
        return self.figure

    def png(self, **values) -> bytes:
        """The picture after a move, as PNG bytes."""
        self._move(**values)
        ends = tuple((*axes.get_xlim(), *axes.get_ylim()) for axes in self.figure.axes)
        if ends not in self._backgrounds:
            for artist in self.moving:
                artist.set_animated(True)
            with mpl.rc_context(STYLE):  # for ticks, which are made as they are needed
                self._canvas.draw()
            self.figure.set_layout_engine("none")  # the panels stay where they are
            if len(self._backgrounds) == 16:
                self._backgrounds.clear()
            self._backgrounds[ends] = self._canvas.copy_from_bbox(self.figure.bbox)
        self._canvas.restore_region(self._backgrounds[ends])
        for artist in self.moving:
            (artist.axes or self.figure).draw_artist(artist)
        return _encoded(np.asarray(self._canvas.buffer_rgba())[..., :3])


def _encoded(pixels: np.ndarray) -> bytes:
    """(height, width, 3) bytes as a PNG, in a third of the time of Pillow, which tries filters."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # a row begins with its filter, 0: none
    rows[:, 1:] = pixels.reshape(height, -1)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0),
        b"IDAT": zlib.compress(rows, 1),
        b"IEND": b"",
    }
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, data in chunks.items():
        parts += [struct.pack(">I", len(data)), name, data]
        parts += [struct.pack(">I", zlib.crc32(name + data))]
    return b"".join(parts)


def _raise(axes: Axes, value: float) -> float:
    """The upper end of an axis from zero: the next of 1, 2, 5, 10, ... that holds the value.

    An axis that holds it and is not five times too long stays: to redraw it takes time.
    """
    now = axes.get_ylim()[1]
    if not now / 5 <= value <= now:
        power = 10.0 ** math.floor(math.log10(max(value, 1e-6)))
        now = next(power * step for step in (1, 2, 5, 10) if power * step >= value)
    return now


@styled
def worst_case_scene(tops: tuple[float, float] | None = None) -> Scene:
    """Scores under P and under the worst case Q*, and the weight against the score.

    Moved by scores (n,) sorted, weights (n,) of mean 1, order, mark (score; where weights begin,
    None at order 1), ghost (score; a margin set by hand, or None), and title.

    Args:
        tops: where the two vertical axes end, whatever is drawn; by default they follow it.
    """
    figure, [[left, right]] = new_figure(9.4, 3.9, 2)
    crowd = left.stairs([1], [0, 1], fill=True, color="#D3D6DB")
    worst = left.stairs([1], [0, 1], fill=True, alpha=0.45)
    outline = left.stairs([1], [0, 1], linewidth=1.6)
    left.set(xlabel="score of the negative", ylabel="share of the distribution")
    (curve,) = right.plot([], [], linewidth=2.4)
    (dots,) = right.plot([], [], "o", markersize=5)
    right.axhline(1, color="#999999", linewidth=1, linestyle=":")
    right.set(xlabel="score of the negative", ylabel="weight (mean 1)")
    marks = [panel.axvline(0, color="#222222", ls="--", lw=1.3) for panel in (left, right)]
    ghosts = [panel.axvline(0, color="#B00020", ls=":", lw=1.8) for panel in (left, right)]
    title = figure.suptitle(" ", x=0.01, ha="left", size=12, weight="bold")
    handles = [crowd, Patch(facecolor="#999999", edgecolor="#444444"), marks[0], ghosts[0]]
    words = ["P: all alike", "Q*: the worst case", "β: no weight below", "your β"]
    said = 3 if tops else 4  # nobody moves β in a film
    right.legend(handles[:said], words[:said], loc="upper left", fontsize=9)

    def move(*, scores, weights, order, mark=None, ghost=None, title_text=""):
        low, high = float(scores[0]), float(scores[-1])
        pad = 0.04 * (high - low) or 0.1
        edges = np.linspace(low, high, 61 if len(scores) > 200 else 21)
        if high == low:
            edges += np.linspace(-pad, pad, len(edges))
        shares = [np.histogram(scores, edges, weights=w)[0] / len(scores) for w in (None, weights)]
        for artist, share in zip((crowd, worst, outline), (*shares, shares[1]), strict=True):
            artist.set_data(share, edges)
        seen = np.arange(len(scores))
        if len(scores) > 600:  # all of the highest, where the weight may be steep
            seen = np.r_[np.linspace(0, len(scores) - 201, 300).astype(int), seen[-200:]]
        curve.set_data(scores[seen], weights[seen])
        few = slice(None) if len(scores) <= 60 else slice(0)
        dots.set_data(scores[few], weights[few])
        tone = order_colour(order)
        worst.set_facecolor(tone)
        outline.set_edgecolor(tone)
        curve.set_color(tone)
        dots.set_color(tone)
        for at, lines in ((mark, marks), (ghost, ghosts)):
            for line in lines:
                line.set_visible(at is not None and low - pad <= at <= high + pad)
                line.set_xdata([low if at is None else at] * 2)
        title.set_text(title_text)
        for panel in (left, right):
            panel.set_xlim(low - pad, high + pad)
        highest = 1.05 * max(share.max() for share in shares), 1.05 * weights.max()
        ends = tops or [_raise(panel, y) for panel, y in zip((left, right), highest, strict=True)]
        left.set_ylim(0, ends[0])
        right.set_ylim(-0.02 * ends[1], ends[1])

    return Scene(figure, [crowd, worst, outline, curve, dots, *marks, *ghosts, title], move)


def order_film(scores: np.ndarray, worst: dict, *, radius: float, pause: int = 150) -> bytes:
    """The order turned from one end to the other and back, as an animated GIF.

    Args:
        scores: (n,) sorted. worst: order -> its `dro.WorstCase`, ascending. radius: in nats.
        pause: milliseconds a picture; the ends stay for six.
    """
    most = max(float(each.k1) for each in worst.values())
    scene, frames = worst_case_scene(tops=(0.12, 1.1 * most)), []
    scene.figure.set_dpi(70)
    for order, each in worst.items():
        moved = {"scores": scores, "weights": each.weights.numpy(), "order": order}
        moved |= {"mark": None if order == 1 else float(each.dual)}
        said = f"Radius {radius:.3g} nats, order γ = {order_label(order)}"
        frames.append(Raster.open(io.BytesIO(scene.png(**moved, title_text=said))))
    frames = [frame.quantize(64, method=Raster.Quantize.MEDIANCUT) for frame in frames]
    times = [6 * pause, *[pause] * (len(frames) - 2), 6 * pause]
    again = slice(-2, 0, -1)
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        format="gif",
        save_all=True,
        append_images=[*frames[1:], *frames[again]],
        duration=[*times, *times[again]],
        loop=0,
    )
    return buffer.getvalue()


@styled
def false_negatives_scene() -> Scene:
    """How much of the weight goes to false negatives, by score and by how many there are.

    Moved by scores (n,), false (n,) bool and weights (n,) of mean 1; noise, the share of the
    negatives that are false; grid (m,) of such shares; shares, three orders and for each (m,) what
    they get of the weight; now, the same at this noise; and title.
    """
    figure, [[left, right]] = new_figure(9.4, 3.9, 2)
    heard = left.stairs([1], [0, 1], fill=True, color="#9AA0A8")
    false_heard = left.stairs([1], [0, 1], fill=True, color=FALSE_NEGATIVE)
    crowd = left.stairs([1], [0, 1], linewidth=1.6, color="#222222")
    left.set(xlabel="score of the negative", ylabel="share of the distribution")
    words = ["Q*: weight on ordinary negatives", "Q*: weight on false negatives", "P: all alike"]
    left.legend([heard, false_heard, crowd], words, loc="upper left", fontsize=9)
    right.plot([0, 1], [0, 1], ":", color="#777777", lw=1.3)
    right.text(0.345, 0.335, "all alike", color="#777777", size=9, va="top")
    looks = (2, order_colour(1)), (3.2, "#444444"), (2, order_colour(math.inf))  # but see move
    lines = [right.plot([], [], lw=width, color=tone)[0] for width, tone in looks]
    spots = [right.plot([], [], "o", ms=8, mec="white", color=tone)[0] for _, tone in looks]
    words = ["order 1 (SL)", "the dial's order", "order ∞ (CCL)"]
    right.legend(lines, words, loc="upper left", fontsize=9, frameon=True, edgecolor="none")
    here = right.axvline(0, color="#222222", ls="--", lw=1.2)
    right.set(xlabel="noise ratio: share of false negatives", ylabel="their share of the weight")
    right.set(xlim=(0, 0.5), ylim=(0, 1.03))
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    title = figure.suptitle(" ", x=0.01, ha="left", size=12, weight="bold")

    def move(*, scores, false, weights, noise, grid, shares, now, title_text=""):
        low, high = float(scores.min()), float(scores.max())
        pad = 0.04 * (high - low) or 0.1
        edges = np.linspace(low - pad, high + pad, 61 if len(scores) > 200 else 21)
        mass = [weights, np.where(false, weights, 0), np.ones(len(scores))]
        bars = [np.histogram(scores, edges, weights=part)[0] / len(scores) for part in mass]
        for artist, bar in zip((heard, false_heard, crowd), bars, strict=True):
            artist.set_data(bar, edges)
        for line, spot, (order, share), at in zip(lines, spots, shares, now, strict=True):
            line.set_data(grid, share)
            spot.set_data([noise], [at])
            line.set_color(order_colour(order))
            spot.set_markerfacecolor(order_colour(order))
        here.set_xdata([noise] * 2)
        title.set_text(title_text)
        left.set_xlim(low - pad, high + pad)
        left.set_ylim(0, _raise(left, 1.3 * max(bar.max() for bar in bars)))

    return Scene(figure, [heard, false_heard, crowd, here, *lines, *spots, title], move)


@styled
def sweep_scene(
    n: int, accuracy: tuple[float, float] | None = None, metric: str = "accuracy"
) -> Scene:
    """What the adversary does along the order dial, and where the dial stands.

    Moved by orders (a,), held and reference, quantity -> (a,) along them: as something is held, and
    at a fixed radius; now, quantity -> its value at order; known, (m,) orders and (m,) accuracies
    that were recorded; and title.

    Args:
        n: how many negatives there are: no weight is larger.
        accuracy: ends of the axis of recorded accuracies; None leaves its panel out.
    """
    names = ("truncated", "k1", "effective_share")
    figure, [panels] = new_figure(10.4 if accuracy is None else 13.2, 3.5, 3 + bool(accuracy))
    held, reference, spots, heres = [], [], [], []
    for axes, name in zip(panels, names, strict=False):
        reference += axes.plot([], [], ":", color="#999999", lw=1.6)
        held += axes.plot([], [], color="#222222")
        _quantity(axes, name)
    panels[1].set_ylim(0.9, 1.2 * n)
    recorded = []
    if accuracy:
        recorded = panels[3].plot([], [], "D", ms=7, mec="white", color="#222222")
        pad = 0.1 * (accuracy[1] - accuracy[0]) or 0.01
        panels[3].set(ylabel=metric, ylim=(accuracy[0] - pad, accuracy[1] + pad))
        recorded.append(panels[3].text(0.5, 0.5, "", transform=panels[3].transAxes, ha="center"))
    for axes in panels:
        _order_axis(axes)
        heres.append(axes.axvline(0, color="#222222", ls="--", lw=1.1))
        spots += axes.plot([], [], "o", ms=9, mec="white") if axes in panels[:3] else []
    title = figure.suptitle(" ", x=0.01, ha="left", size=12, weight="bold")
    words = ["as held", "at a fixed radius ρ"]
    figure.legend([held[0], reference[0]], words, loc="outside upper right", ncols=2, fontsize=9)

    def move(*, orders, held_at, reference_at, order, now, known=None, title_text=""):
        x = 1 - 1 / np.asarray(orders)
        for name, line, other, spot in zip(names, held, reference, spots, strict=True):
            line.set_data(x, held_at[name])
            other.set_data(x, reference_at[name])
            spot.set_data([1 - 1 / order], [now[name]])
            spot.set_markerfacecolor(order_colour(order))
        for here in heres:
            here.set_xdata([1 - 1 / order] * 2)
        if recorded:
            recorded[0].set_data(1 - 1 / np.asarray(known[0]), known[1])
            recorded[1].set_text("" if len(known[0]) else "not run")
        title.set_text(title_text)

    return Scene(figure, [*reference, *held, *recorded, *heres, *spots, title], move)


CORNERS = np.array([[0, 0], [1, 0], [0.5, 3**0.5 / 2]])  # of the simplex of three items


@styled
def simplex_scene() -> Scene:
    """Balls around the uniform distribution over three items, and the worst case in each.

    Moved by balls, (order, (m, 3) boundary, (3,) worst case) each, scores (3,), and title.
    """
    figure, [[axes]] = new_figure(6.2, 5.0)
    axes.set(xlim=(-0.16, 1.16), ylim=(-0.14, 1.0), aspect="equal")
    axes.axis("off")
    axes.add_patch(Polygon(CORNERS, fill=False, edgecolor="#555555", linewidth=1.4))
    centre = CORNERS.mean(0)
    axes.plot(*centre, "o", color="#222222", markersize=5)
    axes.annotate("P", centre, (-12, -12), textcoords="offset points", size=10)
    handles = [Patch(facecolor=order_colour(o), alpha=0.7) for o in (1, 2, math.inf)]
    words = ["Kullback–Leibler (SL)", "Rényi (DrRL)", "worst-case regret (CCL)"]
    axes.legend(handles, words, loc="upper left", bbox_to_anchor=(-0.08, 1.02), fontsize=9)
    shapes = [axes.add_patch(Polygon(CORNERS, alpha=0.18)) for _ in range(3)]
    rims = [axes.add_patch(Polygon(CORNERS, fill=False, linewidth=2)) for _ in range(3)]
    stars = [axes.plot([], [], "*", markersize=15, mec="white", mew=0.8)[0] for _ in range(3)]
    arrow = axes.quiver(*centre, 0, 1, angles="xy", scale_units="xy", scale=1, width=0.006)
    away = np.array([[-0.05, -0.06], [0.05, -0.06], [0, 0.06]])
    names = [axes.text(*at, "", ha="center", va="center", size=9) for at in CORNERS + away]
    title = axes.set_title(" ", loc="left")

    def move(*, balls, scores, title_text=""):
        for (order, rim, worst), *parts in zip(balls, shapes, rims, stars, strict=True):
            tone = order_colour(order)
            for part in parts[:2]:
                part.set_xy(rim @ CORNERS)
            parts[0].set_facecolor(tone)
            parts[1].set_edgecolor(tone)
            parts[2].set_data(*(worst @ CORNERS)[:, None])
            parts[2].set_color(tone)
        uphill = (scores - scores.mean()) @ CORNERS
        size = np.hypot(*uphill)
        arrow.set_UVC(*(0.3 * uphill / size if size > 1e-9 else uphill))
        for name, item, score in zip(names, "ABC", scores, strict=True):
            name.set_text(f"item {item}\nscore {score:.2f}")
        title.set_text(title_text)

    return Scene(figure, [*shapes, *rims, arrow, *stars, *names, title], move)


@styled
def atlas_scene(
    orders: np.ndarray, radii: np.ndarray, k1: np.ndarray, truncated: np.ndarray, losses: list[str]
) -> Scene:
    """The plane order × radius, with contours of k1 and of the truncated share.

    Moved by clouds, loss -> its users' order and radius (nats), and title.

    Args:
        orders: (a,) γ in [1, ∞], ascending. radii: (b,) nats.
        k1, truncated: (b, a), over the plane.
        losses: those that have a cloud.
    """
    figure, [[axes]] = new_figure(7.6, 4.8)
    across = 1 - 1 / np.asarray(orders)
    greys = [str(1 - 0.055 * step) for step in range(10)]
    shade = axes.contourf(across, radii, truncated, levels=np.linspace(0, 1, 11), colors=greys)
    figure.colorbar(shade, ax=axes, label="truncated share of the negatives", format="{x:.0%}")
    levels = [level for level in (1.5, 2, 5, 10, 20, 50, 100, 500, 2000) if level < k1.max()]
    lines = axes.contour(across, radii, k1, levels=levels, colors="#7A1F5C", linewidths=1)
    axes.clabel(lines, fmt=lambda level: f"k₁ {level:g}", fontsize=8)
    _order_axis(axes)
    axes.set(ylabel="radius ρ (nats)", ylim=(0, radii[-1]))
    axes.grid(visible=False)
    clouds = {
        loss: axes.plot([], [], "o", ms=4, alpha=0.45, mew=0, color=colour(loss))[0]
        for loss in losses
    }
    centres = {
        loss: axes.plot([], [], "D", ms=8, mec="white", color=colour(loss), label=label(loss))[0]
        for loss in losses
    }
    if losses:
        axes.legend(loc="upper left", bbox_to_anchor=(0.05, 1), frameon=True, framealpha=0.9)
    title = axes.set_title(" ")

    def move(*, clouds_at, title_text=""):
        rng = np.random.default_rng(0)  # users of one order beside each other, the same each time
        for loss, cloud in clouds_at.items():
            points = cloud[["order", "radius"]].dropna().to_numpy()
            x = 1 - 1 / points[:, 0] + rng.normal(0, 0.008, len(points))
            clouds[loss].set_data(x, points[:, 1])
            middle = np.median(points, 0) if len(points) else np.full(2, np.nan)
            centres[loss].set_data([1 - 1 / middle[0]], [middle[1]])
        title.set_text(title_text)

    return Scene(figure, [*clouds.values(), *centres.values(), title], move)


@styled
def margins_scene(low: float, high: float, *, weight: float) -> Scene:
    """One user's bound as a function of β, and every user's β in use against the exact one.

    Moved by curve and whole, (b, 2) β and bound, on the scores looked at and on all negatives;
    trail (e, 2), the learnt β of the epochs so far on that curve; best, (β, bound) at the minimum,
    β -inf where there is none; shared, one β for all; users (u, 2), exact and learnt β; chosen,
    a row of these; and title.

    Args:
        low, high: the ends of the axes of β, score. weight: the c that all were trained with.
    """
    figure, [[left, right]] = new_figure(9.4, 4.3, 2)
    (ghost,) = left.plot([], [], color="#BBBBBB", linewidth=1.6)
    (line,) = left.plot([], [], color="#222222", linewidth=1.8)
    worst = left.axhline(0, color="#999999", linestyle=":", linewidth=1.4)
    one = left.axvline(0, color="#CC79A7", linestyle="--", linewidth=1.4)
    (past,) = left.plot([], [], "o", ms=5, mew=0, alpha=0.5, color=COLOURS["drrl"])
    (lowest,) = left.plot([], [], "D", ms=11, mec="white", color="#222222")
    (now,) = left.plot([], [], "o", ms=9, mec="white", color=COLOURS["drrl"])
    left.set(xlabel="margin β (score)", ylabel="bound (score)", xlim=(low, high))
    left.yaxis.set_major_formatter("{x:+.1f}")  # as wide above zero as below
    right.plot([low, high], [low, high], color="#999999", linewidth=1.2)
    level = right.axhline(0, color="#CC79A7", linestyle="--", linewidth=1.4)
    (crowd,) = right.plot([], [], "o", ms=4, mew=0, alpha=0.45, color=COLOURS["drrl"])
    (ring,) = right.plot([], [], "o", ms=11, mfc="none", mec="#222222", mew=1.8)
    right.set(xlabel="exact β on all negatives (score)", ylabel="learnt β (score)")
    right.set(xlim=(low, high), ylim=(low, high))
    right.set_title(f"All users, c = {weight:g} as trained")
    title = left.set_title(" ")
    handles = [line, lowest, worst, now, past, one, ghost]
    words = ["bound", "exact β", "worst case", "learnt β", "the epochs before", "one β for all"]
    words += ["on all negatives"]
    tight = {"fontsize": 9, "columnspacing": 1.2, "handletextpad": 0.5}
    figure.legend(handles, words, loc="outside upper center", ncols=7, **tight)

    def move(*, curve, whole, trail, best, shared, users, chosen, title_text=""):
        line.set_data(*curve.T)
        ghost.set_data(*whole.T)
        past.set_data(*trail[:-1].T)
        now.set_data(*trail[-1:].T)
        lowest.set_data([best[0]], [best[1]])
        lowest.set_visible(math.isfinite(best[0]))
        worst.set_ydata([best[1]] * 2)
        one.set_xdata([shared] * 2)
        level.set_ydata([shared] * 2)
        crowd.set_data(*users.T)
        ring.set_data(*users[chosen : chosen + 1].T)
        title.set_text(title_text)
        floor = math.floor(10 * (best[1] - 0.03)) / 10
        left.set_ylim(floor, floor + 0.5)

    moving = [ghost, line, worst, one, past, lowest, now, level, crowd, ring, title]
    return Scene(figure, moving, move)
