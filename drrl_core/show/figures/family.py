"""Pictures of the family: scores, the weights that each order gives them, users' radii."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from drrl_core.show.style import (
    FALSE_NEGATIVE_COLOUR,
    NEUTRAL_COLOURS,
    RATIOS,
    colour,
    in_order,
    key,
    key_of,
    label,
    named,
    new_figure,
    one_scale,
    order_axis,
    order_colour,
    order_label,
    quantity_axis,
    styled,
)


@styled
def weights_by_score(views: dict[str, pd.DataFrame], *, dataset: str, user: int) -> Figure:
    """One user's negatives under each loss: how their scores are spread, and the weight of each.

    Weights are on one scale in all panels.

    Args:
        views: loss name -> a row for each negative: score, weight (mean 1), false_negative (bool).
        dataset: its name, for the title.
        user: whose negatives they are.
    """
    figure, [panels] = new_figure(3.5 * len(views), 4.3, len(views))
    most = max(view["weight"].max() for view in views.values())
    for axes, loss in zip(panels, in_order(views), strict=True):
        view = views[loss]
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
            edgecolor=FALSE_NEGATIVE_COLOUR,
            linewidth=1.3,
        )
        heard = weight[false].sum() / weight.sum() if weight.any() else 0
        axes.set_title(label(loss), color=colour(loss), pad=34)
        axes.text(
            0,
            1.02,
            f"truncated: {(weight == 0).mean():.0%} of the items\n"
            f"weight on false negatives: {heard:.1%}",
            transform=axes.transAxes,
            va="bottom",
            size=9,
        )
        axes.set(xlabel="score of the negative", ylim=(-0.05 * most, 1.08 * most))
    panels[0].set_ylabel("weight (mean 1)")
    dot, diamond = (
        Line2D([], [], ls="", marker="o", ms=4, color="#444444"),
        Line2D([], [], ls="", marker="D", ms=6, mfc="white", mec=FALSE_NEGATIVE_COLOUR, mew=1.3),
    )
    share = f"false negative ({view['false_negative'].mean():.1%} of the items)"
    handles = [dot, diamond, Patch(color="#DADCE0")]
    names = ["negative", share, "how many items have that score"]
    key(figure, handles, names)
    named(figure, f"Weight of the negatives of user {user}, {dataset}")
    return figure


@styled
def radii_tried(radii: np.ndarray, tried: pd.DataFrame, *, reference: float) -> Figure:
    """The radius that SL amounts to for each user, and DrRL's accuracy at some of these radii.

    Args:
        radii: (users,) nats, of a trained SL.
        tried: a row for each trained DrRL: order, radius (nats), valid (NDCG@20).
        reference: valid NDCG@20 of that SL.
    """
    figure, [upper, lower] = new_figure(7.0, 5.2, rows=2)
    above, below = upper[0], lower[0]
    above.hist(radii, bins=30, color=colour("sl"), alpha=0.75, edgecolor="white", linewidth=0.5)
    above.set(ylabel="users", xlabel="radius ρ that SL amounts to (nats)")
    above.set_title("Radius of each user under SL's one temperature")
    span = [*radii, *tried["radius"]]
    room = 0.05 * (max(span) - min(span) or 1)
    for axes in (above, below):
        axes.set_xlim(min(span) - room, max(span) + room)
        for radius in tried["radius"].unique():
            axes.axvline(radius, color="#999999", linewidth=1, linestyle=":")
    below.axhline(reference, color=colour("sl"), linewidth=1.4)
    right = dict(ha="right", va="bottom", size=9, transform=below.get_yaxis_transform())
    below.text(0.995, reference, "SL", color=colour("sl"), **right)
    for order, rows in tried.groupby("order"):
        rows = rows.sort_values("radius")
        look = dict(color=order_colour(order), marker="o", label=f"γ = {order_label(order)}")
        below.plot(rows["radius"], rows["valid"], **look)
    ends = [reference, *tried["valid"]]
    room = 0.15 * (max(ends) - min(ends) or 0.1)
    below.set(ylim=(min(ends) - room, max(ends) + room))
    below.set(xlabel="radius ρ of DrRL, one for all users (nats)", ylabel="valid NDCG@20")
    below.set_title(f"Valid NDCG@20 of DrRL, β exact: {len(tried)} trainings")
    key_of(figure, below)
    return figure


@styled
def order_strip(scores: np.ndarray, worst: dict[float, np.ndarray], *, radius: float) -> Figure:
    """Weight against score at one radius, a panel for each order, from SL's shape to CCL's.

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
    title = f"Weight by score at one radius, {radius:.3g} nats: the order turns SL into CCL"
    named(figure, title)
    return figure


@styled
def along_orders(
    orders: np.ndarray, curves: dict[str, np.ndarray], *, ylabel: str, title: str, ends: dict
) -> Figure:
    """One quantity against the order, with a curve for each way to hold the size fixed.

    Args:
        orders: (a,) γ in [1, ∞]. curves: name -> (a,) values.
        ends: name -> value; SL's first, then CCL's; drawn as horizontal lines.
    """
    figure, [[axes]] = new_figure(7.0, 3.9)
    for (name, values), line, tone in zip(
        curves.items(), ("-", "--", ":", "-."), NEUTRAL_COLOURS, strict=False
    ):
        axes.plot(1 - 1 / np.asarray(orders), values, ls=line, color=tone, label=name, lw=2.4)
    corners = ("sl", 1.0, "right"), ("ccl", 0.0, "left")
    for (name, value), (loss, side, align) in zip(ends.items(), corners, strict=True):
        axes.axhline(value, color=colour(loss), linewidth=1.2)
        axes.text(side, value, name, color=colour(loss), va="bottom", ha=align, size=9)
    order_axis(axes)
    axes.set(ylabel=ylabel)
    named(figure, title)
    key_of(figure, axes, 2)
    return figure


@styled
def users_by_loss(
    found: dict[str, pd.DataFrame], quantities: tuple[str, ...], *, title: str
) -> Figure:
    """How quantities are distributed over the users: a panel for each, a curve for each loss.

    Args:
        found: loss -> a row for each user, as `diagnose.by_user` gives it.
        quantities: which of its columns to draw; names in QUANTITIES.
    """
    figure, [panels] = new_figure(4.4 * len(quantities), 3.8, len(quantities))
    for axes, name in zip(panels, quantities, strict=True):
        for loss in in_order(found):
            users = found[loss]
            values = np.sort(users[name].dropna())
            steps = np.arange(1, len(values) + 1) / max(len(values), 1)
            axes.step(values, steps, where="post", color=colour(loss))
            if len(values):
                at = np.searchsorted(values, values.mean()) / len(values)
                axes.plot(values.mean(), at, "D", ms=8, mec="white", color=colour(loss))
        quantity_axis(axes, name, across=True)
        axes.set(ylim=(-0.02, 1.02))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    panels[0].set_ylabel("share of the users at or below")
    handles = [Line2D([], [], color=colour(loss), label=label(loss)) for loss in in_order(found)]
    mean = Line2D([], [], ls="", marker="D", ms=7, color="#444444", label="mean over the users")
    handles.append(mean)
    key(figure, handles, [each.get_label() for each in handles], len(handles))
    named(figure, title)
    return figure


@styled
def scores_of_users(
    rows: dict[str, np.ndarray], margins: dict[str, float], *, title: str, words: str
) -> Figure:
    """The distribution of a few users' scores, a curve for each user, with a margin for each.

    Args:
        rows: user's name -> (n,) scores. margins: user's name -> β, score.
        words: which β it is, for the legend.
    """
    figure, [[axes]] = new_figure(7.0, 3.6)
    low, high = (end(map(end, rows.values())) for end in (min, max))
    edges = np.linspace(low, high, 41)
    for (who, scores), tone in zip(rows.items(), NEUTRAL_COLOURS, strict=False):
        axes.hist(scores, edges, density=True, histtype="step", lw=2, color=tone, label=who)
        axes.axvline(margins[who], color=tone, ls="--", lw=1.4)
    handles, names = axes.get_legend_handles_labels()
    handles.append(Line2D([], [], color="#777777", ls="--", lw=1.4))
    key(figure, handles, [*names, words])
    axes.set(xlabel="score of the negative", ylabel="density")
    named(figure, title)
    return figure


@styled
def orders_by_user(
    columns: dict[str, pd.DataFrame],
    quantities: tuple[str, ...],
    *,
    title: str,
    dots: dict[str, pd.DataFrame] | None = None,
) -> Figure:
    """Quantities against the order: the mean over the users, and the middle 80% of them.

    Args:
        columns: heading (or a loss) -> a table as `diagnose.sweep_orders` gives it; one
            column of panels.
        quantities: names in QUANTITIES; one row of panels each.
        dots: heading -> a row for each trained model: index order, the quantities as columns.
    """
    columns = {heading: columns[heading] for heading in in_order(columns)}
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
            order_axis(axes)
            quantity_axis(axes, name)
            axes.label_outer(remove_inner_ticks=False)
        low, high = one_scale(row)
        if name in RATIOS:  # no more than is readable: a tenth of the users may have none
            for axes in row:
                axes.set_ylim(max(low, high / 1000), high)
    handles = [Line2D([], [], color="#444444"), Patch(color="#D3D6DB")]
    names = ["mean over the users", "10% to 90% of them"]
    if dots:
        handles.append(Line2D([], [], ls="", marker="D", ms=7, color="#444444"))
        names.append("a model trained there")
    key(figure, handles, names)
    named(figure, title)
    return figure
