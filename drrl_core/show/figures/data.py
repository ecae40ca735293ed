"""Pictures of data: who is active, what is popular, how a split moves both, what is recommended."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from drrl_core.show.style import (
    DATA_COLOUR,
    colour,
    in_order,
    key,
    label,
    named,
    new_figure,
    styled,
)


@styled
def popularity_and_activity(train, *, dataset: str) -> Figure:
    """How unequal a data set is: pairs per user, and the share of the pairs that each item has.

    Args:
        train: (n_users, n_items) CSR. dataset: its name, for the title.
    """
    from seaborn import histplot  # here: it loads pyplot

    figure, [[left, right]] = new_figure(8.6, 3.5, 2)
    activity = np.diff(train.indptr)
    activity, wide = activity[activity > 0], activity.max(initial=0) > 60
    edges = np.unique(np.geomspace(0.5, activity.max(initial=1) + 0.5, 25).round()) + 0.5
    shape = dict(bins=np.log10(edges), log_scale=True) if wide else dict(discrete=True)
    histplot(activity, ax=left, color=DATA_COLOUR, edgecolor="white", alpha=1, **shape)
    left.xaxis.set_major_formatter("{x:g}")
    middle = np.median(activity) if len(activity) else 0
    left.axvline(middle, color="#222222", linewidth=1.2, linestyle="--")
    side = dict(ha="left", va="top", size=9, transform=left.get_xaxis_transform())
    left.text(middle, 0.99, f" median {middle:g}", **side)
    left.set(xlabel="train pairs of a user", ylabel="users", ylim=(0, 1.12 * left.get_ylim()[1]))
    left.set_title(f"Half of the users have at most {middle:g} train pairs")
    fame = np.sort(np.bincount(train.indices, minlength=train.shape[1]))[::-1]
    held = np.concatenate([[0], np.cumsum(fame) / max(1, fame.sum())])
    share = np.linspace(0, 1, len(held))
    right.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle=":")
    right.fill_between(share, held, share, color=DATA_COLOUR, alpha=0.15, linewidth=0)
    right.plot(share, held, color=DATA_COLOUR)
    tenth = float(np.interp(0.1, share, held))
    right.plot(0.1, tenth, "o", color=DATA_COLOUR, markersize=7)
    right.set(xlabel="items, the most popular first", ylabel="share of the train pairs")
    right.set(xlim=(0, 1), ylim=(0, 1.02))
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_formatter("{x:.0%}")
    right.set_title(f"A tenth of the items has {tenth:.0%} of the pairs")
    named(figure, f"{dataset}, train pairs")
    return figure


@styled
def recommended(lists: dict[str, pd.DataFrame], *, user: object) -> Figure:
    """One user's best items under each loss, with the ids of the data file.

    Args:
        lists: loss name -> a row for each item, best first: item (id), score, test (bool: a
            held-out pair of the user), popularity (train pairs of the item).
        user: the user's id.
    """
    longest = max(len(rows) for rows in lists.values())
    figure, [panels] = new_figure(3.4 * len(lists), 1.5 + 0.3 * longest, len(lists))
    for axes, loss in zip(panels, in_order(lists), strict=True):
        rows = lists[loss]
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
    key(figure, handles, names)
    named(figure, f"User {user}: the {longest} highest scores without a train pair")
    return figure


@styled
def popularity_by_split(splits: dict[str, tuple[np.ndarray, np.ndarray]], said: dict) -> Figure:
    """Each item's popularity in train against that in test, a panel for each split.

    Args:
        splits: name of a split -> each item's number of train pairs, and of test pairs, (n,) both.
        said: name of a split -> the rest of its title.
    """
    figure, [panels] = new_figure(4.3 * len(splits), 4.4, len(splits))
    points = {
        name: [np.asarray(part) * len(part) / max(1, np.sum(part)) for part in counts]
        for name, counts in splits.items()
    }
    top = 1.1 * max(part.max() for parts in points.values() for part in parts) or 1
    for axes, (name, (x, y)) in zip(panels, points.items(), strict=True):
        axes.plot([0, top], [0, top], color="#999999", linewidth=1, linestyle=":")
        axes.plot(x, y, "o", ms=4, alpha=0.35, mew=0, color=DATA_COLOUR)
        for scale in (axes.set_xscale, axes.set_yscale):
            scale("function", functions=(np.sqrt, np.square))  # counts spread like their root
        ticks = [tick for tick in (0, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if tick <= top]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set(xlim=(0, top), ylim=(0, top), xlabel="popularity in train (average item: 1)")
        axes.set_title(f"{name}: {said[name]}")
    panels[0].set_ylabel("popularity in test (average item: 1)")
    return figure
