"""The pictures: one style, one colour a loss, every figure a function that returns a `Figure`.

No pyplot: a figure belongs to whoever asked for it, in any thread, and is freed with its last
reference. `show` saves it and hands a notebook something it can display.
"""

import io
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

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
FALSE_NEGATIVE = "#7A1F5C"
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
    """The loss's colour across the suite; black for one that has none."""
    return COLOURS.get(loss, "#222222")


def label(loss: str) -> str:
    """The loss's name as the paper writes it."""
    return LABELS.get(loss, loss)


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
        axes.set_xlabel(f"test {metric.replace('recall', 'Recall').replace('ndcg', 'NDCG')}")
        axes.grid(axis="y", visible=False)
    figure.suptitle(f"Ranking accuracy, {dataset}", x=0.01, ha="left", size=11, weight="bold")
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
