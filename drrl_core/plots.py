"""The pictures: one style, one colour a loss, every figure a function that returns a `Figure`.

No pyplot: a figure belongs to whoever asked for it, in any thread, and is freed with its last
reference. `show` saves it and hands a notebook something it can display.
"""

import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart by colour-blind readers, in print and on a beamer.
COLOURS = {
    "sl": "#0072B2",
    "ccl": "#D55E00",
    "drrl": "#009E73",
    "bsl": "#56B4E9",
    "bsl-pooled": "#56B4E9",
    "advinfonce": "#CC79A7",
    "llpauc": "#E69F00",
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
    "bpr": "BPR",
    "bce": "BCE",
    "mse": "MSE",
}
FALSE_NEGATIVE = "#7A1F5C"
ORDINARY = "#9AA0A6"
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


def new_figure(width: float, height: float, columns: int = 1, rows: int = 1, **kwargs):
    """A figure in the suite's style and its axes, as `Figure.subplots` gives them; inches."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(rows, columns, **kwargs)


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


def learning_curves(histories: dict[str, pd.DataFrame], *, dataset: str) -> Figure:
    """Valid NDCG@20 over epochs, a line a loss, its best epoch marked.

    Args:
        histories: loss name -> `Fit.history`.
        dataset: its name, for the title.
    """
    figure, axes = new_figure(6.4, 3.6)
    for loss, history in histories.items():
        seen = history.dropna(subset="ndcg@20")
        axes.plot(seen["epoch"], seen["ndcg@20"], color=colour(loss), label=label(loss))
        best = seen.loc[seen["ndcg@20"].idxmax()]
        axes.plot(best["epoch"], best["ndcg@20"], "o", color=colour(loss), markersize=7)
    axes.set(xlabel="epoch", ylabel="valid NDCG@20", xlim=(0, None), ylim=(0, None))
    axes.set_title(f"Learning curves, {dataset} (dot: best epoch)")
    axes.legend(loc="lower right")
    return figure


def metrics_by_loss(scores: pd.DataFrame, *, dataset: str, reference: dict | None = None) -> Figure:
    """Test accuracy, a panel a metric and a bar a loss.

    Args:
        scores: index loss, a column a metric.
        dataset: its name, for the title.
        reference: metric -> accuracy of ranking by popularity, drawn as a line.
    """
    figure, panels = new_figure(6.4, 0.9 + 0.45 * len(scores), len(scores.columns), squeeze=False)
    place = np.arange(len(scores))[::-1]
    for axes, metric in zip(panels[0], scores.columns, strict=True):
        values = scores[metric]
        axes.barh(place, values, color=[colour(loss) for loss in scores.index], height=0.65)
        for y, value in zip(place, values, strict=True):
            axes.text(value, y, f" {value:.4f}", va="center")
        if reference:
            axes.axvline(reference[metric], color="#222222", linestyle="--", linewidth=1.2)
            axes.text(
                reference[metric], len(scores) - 0.45, "popularity ", ha="center", va="bottom", size=8
            )
        axes.set_yticks(place, [label(loss) for loss in scores.index])
        axes.set(xlim=(0, values.max() * 1.22), ylim=(-0.6, len(scores) - 0.1))
        axes.set_xlabel(f"test {metric.replace('recall', 'Recall').replace('ndcg', 'NDCG')}")
        axes.grid(axis="y", visible=False)
    figure.suptitle(f"Ranking accuracy, {dataset}", x=0.02, ha="left", size=11, weight="bold")
    return figure


def weights_by_score(views: dict[str, pd.DataFrame], *, dataset: str, user: int) -> Figure:
    """One user's negatives under each loss: where their scores lie, and how much each is heard.

    Args:
        views: loss name -> a row a negative: score, weight (mean 1), false_negative (bool).
        dataset: its name, for the title.
        user: whose negatives they are.
    """
    figure, panels = new_figure(3.4 * len(views), 3.6, len(views), squeeze=False)
    for axes, (loss, view) in zip(panels[0], views.items(), strict=True):
        ordinary, false = view[~view["false_negative"]], view[view["false_negative"]]
        crowd = axes.twinx()
        crowd.hist(view["score"], bins=40, color="#DADCE0")
        crowd.set(yticks=[], ylim=(0, crowd.get_ylim()[1] * 1.6))
        crowd.spines[:].set_visible(False)
        axes.set_zorder(crowd.get_zorder() + 1)  # the crowd is the background
        axes.patch.set_visible(False)
        axes.scatter(
            ordinary["score"], ordinary["weight"], s=9, color=colour(loss), label="ordinary"
        )
        axes.scatter(
            false["score"],
            false["weight"],
            s=34,
            marker="D",
            facecolor="white",
            edgecolor=FALSE_NEGATIVE,
            linewidth=1.3,
            label="false negative",
        )
        heard = np.average(view["false_negative"], weights=view["weight"] + 1e-300)
        axes.set_title(f"{label(loss)}, {dataset}", color=colour(loss))
        axes.set(xlabel="score of the negative", ylim=(-0.04 * view["weight"].max(), None))
        axes.text(
            0.03,
            0.97,
            f"false negatives: {view['false_negative'].mean():.1%} of the items,\n"
            f"{heard:.1%} of the weight\ntruncated: {(view['weight'] == 0).mean():.0%}",
            transform=axes.transAxes,
            va="top",
            size=8.5,
        )
        axes.legend(loc="upper left", bbox_to_anchor=(0, 0.8), fontsize=8.5, handletextpad=0.1)
    panels[0, 0].set_ylabel(f"weight of the negative (mean 1), user {user}")
    return figure
