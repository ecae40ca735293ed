"""Figures that compare losses: with each other, with the paper, along noise or the order."""

import itertools
import math

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

from drrl_core import classical, losses
from drrl_core.show.style import (
    ahead,
    colour,
    held_label,
    in_order,
    key,
    key_of,
    label,
    means_with_intervals,
    metric_label,
    named,
    new_figure,
    order_axis,
    order_label,
    styled,
)

LEAST = 0.55  # of the highest accuracy: what lies below is not drawn as b turns
LISTS = {
    "mean_popularity": "mean train pairs of an item in the lists",
    "coverage": "share of the catalogue in the lists",
}


@styled
def metrics_by_loss(scores: pd.DataFrame, *, dataset: str, reference: dict | None = None) -> Figure:
    """Test accuracy: a panel for each metric, a bar for each loss.

    Args:
        scores: a row for each loss, a column for each metric.
        dataset: its name, for the title.
        reference: metric -> accuracy of ranking by popularity, drawn as a line.
    """
    scores = scores.loc[in_order(scores.index)]
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
    shown = " and ".join(metric_label(metric) for metric in scores.columns)
    named(figure, f"Test {shown}, {dataset}")
    return figure


@styled
def against_paper(tables: dict[str, pd.DataFrame], *, title: str) -> Figure:
    """Our numbers beside the paper's: a panel for each metric, a line for each loss.

    Above a panel stands who is ahead in it, or that some are level (`style.ahead`).

    Args:
        tables: metric -> a table as `scorecard.comparison` gives it.
    """
    losses = in_order(next(iter(tables.values())).index)[::-1]
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
        axes.set_yticks(range(len(losses)), names)
        axes.tick_params(labelleft=axes is panels[0])
        axes.set(xlabel=f"test {metric_label(metric)}", ylim=(-0.6, len(losses) - 0.4))
        axes.set_title(f"{metric_label(metric)}: {ahead(table)}".removesuffix(": "), size=10)
    looks = dict(ls="", marker="o", ms=7), dict(ls="", marker="D", mfc="white", ms=7)
    handles = [Line2D([], [], color="#444444", **look) for look in looks]
    handles.append(Line2D([], [], color="#444444", marker="|", ms=8, lw=1.6))
    words = ["ours, mean over seeds", "the paper", "95% interval (Student's t)"]
    key(figure, handles, words, 3 if len(tables) > 1 else 1)
    named(figure, title)
    return figure


@styled
def accuracy_by_group(
    tables: dict[str, pd.DataFrame], *, of: str, metric: str, title: str
) -> Figure:
    """Accuracy in groups of equally active users, or equally popular items; a bar for each loss.

    Args:
        tables: loss -> a table as `metrics.by_activity` or `metrics.by_popularity` gives it.
        of: what makes the groups, such as a user's train pairs; the name of the x axis.
    """
    figure, [[axes]] = new_figure(6.4, 3.6)
    width = 0.8 / max(len(tables), 1)
    for nth, loss in enumerate(in_order(tables)):
        table = tables[loss]
        place = np.arange(len(table)) + width * (nth - (len(tables) - 1) / 2)
        axes.bar(place, table[metric], width, color=colour(loss), label=label(loss))
    ends = zip(table["least"], table["most"], strict=True)
    names = [f"{low:,}" if low == high else f"{low:,}–{high:,}" for low, high in ends]
    axes.set_xticks(range(len(table)), names)
    axes.set(xlabel=of, ylabel=f"test {metric_label(metric)}", ylim=(0, None))
    named(figure, title)
    key_of(figure, axes)
    return figure


@styled
def accuracy_by_noise(table: pd.DataFrame, *, metric: str, title: str) -> Figure:
    """Accuracy as false negatives grow, and DrRL's lead over the best other loss.

    Above the left panel stands who is ahead at the most of them (`style.ahead`).

    Args:
        table: index noise (share of the negatives, ascending) and variant; columns as of
            `scorecard.comparison`.
    """
    figure, [[left, right]] = new_figure(9.4, 3.9, 2)
    wide = table["ours"].unstack()
    step = 0.004 * max(wide.index.max(), 1e-9)
    losses = in_order(loss for loss in wide if wide[loss].notna().any())
    tones = [colour(loss) for loss in losses]
    for place, loss in enumerate(losses):
        rows = table.xs(loss, level="variant").reindex(wide.index)  # a gap where it was not run
        x = rows.index + step * (place - (len(losses) - 1) / 2)  # intervals beside each other
        ends = (rows[name] for name in ("low", "high"))
        line = "s--" if tones[place] in tones[:place] else "o-"
        look = {"fmt": line, "label": label(loss)}
        means_with_intervals(left, x, rows["ours"], *ends, tones[place], **look)
    left.set(xlabel="noise ratio: share of false negatives", ylabel=f"test {metric_label(metric)}")
    most = wide.index.max()
    left.set_title(f"at {most:.0%}: {ahead(table.xs(most))}".removesuffix(": "), size=10)
    key_of(figure, left, len(losses))
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
        axes.fmt_xdata = lambda at: f"{abs(at):.0%}"
    named(figure, title)
    return figure


@styled
def breakdown(table: pd.DataFrame, *, metric: str, title: str) -> Figure:
    """The share of its accuracy that each ball keeps as false negatives grow.

    Left against the share of false negatives; right against that share divided by the ball's
    breakdown point: if that point decides, the curves fall together.

    Args:
        table: as `evidence.balls_in_noise` gives it.
        metric: whose accuracy it is, for the axes.
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
    right.set(xlabel="that share / breakdown point exp(-ρ)")
    right.xaxis.set_major_formatter("{x:g}")
    key_of(figure, left, 3)
    named(figure, title)
    return figure


@styled
def accuracy_by_order(
    sweeps: dict[str, pd.DataFrame], panels: dict[str, str], *, title: str
) -> Figure:
    """Accuracy and other quantities of trained models against the order, a panel for each.

    Args:
        sweeps: what was held fixed -> a row for each model, as `evidence.accuracy_by_order` gives.
        panels: column -> the name of its axis. The columns low and high, where there are any, are
            the interval of the first.
    """
    figure, axes_of = new_figure(
        9.4, 2.9 * math.ceil(len(panels) / 2), 2, math.ceil(len(panels) / 2)
    )
    looks = ("o-", "#222222"), ("s--", "#C4629B"), ("^:", "#B88000"), ("v-.", "#3A9AD9")
    lead = next(iter(panels))
    for axes, (name, words) in zip(axes_of.flat, panels.items(), strict=False):
        for (held, rows), (line, tone) in zip(sweeps.items(), itertools.cycle(looks), strict=False):
            x, none = 1 - 1 / rows.index.to_numpy(float), np.full(len(rows), np.nan)
            ends = (rows["low"], rows["high"]) if name == lead and "low" in rows else (none, none)
            means_with_intervals(axes, x, rows[name], *ends, tone, fmt=line, label=held_label(held))
        order_axis(axes)
        axes.set(ylabel=words)
        if name in ("k1", "k2"):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
    for axes in axes_of.flat[len(panels) :]:
        axes.set_axis_off()
    key_of(figure, axes_of.flat[0])
    named(figure, title)
    return figure


@styled
def accuracy_by_cost(
    table: pd.DataFrame, *, title: str, metric: str = "ndcg@20", reference: str = "popularity"
) -> Figure:
    """What accuracy costs: test accuracy against seconds of one training, in logarithms.

    Args:
        table: a row for each loss and classical model; seconds, > 0; the metric, with low and high,
            its interval, NaN if unknown.
        title: said above.
        metric: the column, and the name of the axis.
        reference: a row that is told beside the names: what costs nothing. Diamonds are classical
            models, squares other ways to tune a loss.

    >>> rows = pd.DataFrame({"seconds": [3.0, 60.0], "ndcg@20": [0.0930, 0.0922]}, ["ease", "sl"])
    >>> figure = accuracy_by_cost(rows.assign(low=math.nan, high=math.nan), title="Beauty")
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['SL', 'EASE']
    """
    figure, [[axes]] = new_figure(7.6, 4.2)
    points = table[(table["seconds"] > 0) & table[metric].notna()].drop(reference, errors="ignore")
    for name, row in points.loc[in_order(points.index)].iterrows():
        style = {"color": colour(name), "mec": "white", "mew": 0.6, "label": label(name)}
        mark = "D" if name in classical.REGISTRY else "o" if name in losses.REGISTRY else "s"
        axes.plot([row["seconds"]] * 2, [row["low"], row["high"]], "-", color=colour(name), lw=1.2)
        axes.plot(row["seconds"], row[metric], mark, ms=9, ls="", **style)
    handles, words = axes.get_legend_handles_labels()
    if reference in table.index:
        handles.append(Line2D([], [], ls=""))
        words.append(f"{label(reference)}: {table.loc[reference, metric]:.4f}")
    figure.legend(handles, words, loc="outside right center")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="seconds of one training", ylabel=f"test {metric_label(metric)}")
    axes.margins(0.08)
    named(figure, title)
    return figure


@styled
def accuracy_as_b_turns(
    panels: dict[str, dict[str, pd.DataFrame]],
    *,
    title: str,
    across: str = "mean_popularity",
    metric: str = "ndcg@20",
) -> Figure:
    """Accuracy on test over what the lists consist of, as b turns: a curve a loss.

    Where two curves lie on each other, what tells the losses apart is popularity alone.

    Args:
        panels: by the name above it, for each loss a table as of `popularity.curve`, the index its
            b. A dot is b = 0, a star the b that is best on valid. A table of pushes, whose index
            is called "push", is drawn as squares: its trainings have no b.
        title: said above all.
        across: the column of the x axis, "mean_popularity" or "coverage".
        metric: of both splits, as in the names of the columns.

    >>> turned = pd.DataFrame({"mean_popularity": [30.0, 44.0], "test_ndcg@20": [0.09, 0.1]})
    >>> turned = turned.assign(**{"valid_ndcg@20": [0.07, 0.08]}).rename_axis("b")
    >>> figure = accuracy_as_b_turns({"Beauty": {"sl": turned}}, title="As b turns")
    >>> [text.get_text() for text in figure.legends[0].get_texts()]
    ['SL', 'b = 0', 'best b on valid']
    """
    figure, [row] = new_figure(4.3 * len(panels) + 1.2, 4.2, len(panels))
    handles = {}
    for axes, (name, curves) in zip(row, panels.items(), strict=True):
        for loss in in_order(curves):
            turned = curves[loss]
            turned, y = turned.sort_index(), turned.sort_index()[f"test_{metric}"]
            pushes = turned.index.name == "push"
            style = {"color": colour(loss), "label": label(loss), "mec": "white", "mew": 0.6}
            line = "s:" if pushes else "-"
            (handles[loss],) = axes.plot(turned[across], y, line, ms=7, **style)
            if not pushes:
                plain = np.abs(turned.index.to_numpy(float)).argmin()
                best = turned[f"valid_{metric}"].to_numpy().argmax()
                for place, mark, size in ((plain, "o", 8), (best, "*", 14)):
                    point = turned[across].iloc[place], y.iloc[place]
                    axes.plot(*point, mark, ms=size, color=colour(loss), mec="white", mew=0.8)
        places = pd.concat([each.set_index(across)[f"test_{metric}"] for each in curves.values()])
        highest, seen = places.max(), places.index[places >= LEAST * places.max()]
        around = 1.15 if across == "mean_popularity" else 1.03
        axes.set_xlim(seen.min() / around, seen.max() * around)
        axes.set(
            title=name,
            ylim=(LEAST * highest, 1.04 * highest),
            ylabel=f"test {metric_label(metric)}",
        )
        axes.set_xlabel(LISTS[across])
        if across == "mean_popularity":
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
    marks = {"b = 0": ("o", 8), "best b on valid": ("*", 13)}
    shown = [*handles.values()]
    shown += [
        Line2D([], [], ls="", marker=mark, ms=size, color="#444") for mark, size in marks.values()
    ]
    words = [*(label(loss) for loss in handles), *marks]
    figure.legend(shown, words, loc="outside right center")
    named(figure, title)
    return figure


@styled
def accuracy_by_split(table: pd.DataFrame, *, metric: str, title: str) -> Figure:
    """What a shift costs each loss: accuracy on a random split and on one by time.

    Args:
        table: a row for each loss (or "popularity"); columns random and time, means over the
            seeds; random_low, random_high, time_low, time_high, their intervals, NaN if unknown.
        metric: its name, for the axis.
    """
    table = table.loc[in_order(table.index)]
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
    named(figure, title)
    axes.grid(axis="y", visible=False)
    looks = dict(ls="", marker="o", ms=8, color="#444444")
    handles = [Line2D([], [], mfc=fill, **looks) for fill in ("white", "#444444")]
    handles.append(Line2D([], [], color="#444444", marker="|", ms=8, lw=1.4))
    words = ["random split", "split by time", "95% interval over seeds"]
    key(figure, handles, words)
    return figure
