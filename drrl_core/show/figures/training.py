"""Figures of training: accuracy, losses and margins β over the epochs."""

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from drrl_core.show.style import (
    colour,
    in_order,
    key_of,
    label,
    metric_label,
    named,
    new_figure,
    one_scale,
    styled,
)


@styled
def learning_curves(
    histories: dict[str, pd.DataFrame], *, dataset: str, metric: str = "ndcg@20"
) -> Figure:
    """Valid accuracy over the epochs: a line for each loss, a dot at its best epoch.

    Args:
        histories: loss name -> `Fit.history`.
        dataset: its name, for the title.
        metric: the column that the runs were judged by.
    """
    figure, [[axes]] = new_figure(6.4, 3.6)
    for loss in in_order(histories):
        history = histories[loss]
        seen = history.dropna(subset=metric)
        axes.plot(seen["epoch"], seen[metric], color=colour(loss), label=label(loss))
        best = seen.loc[seen[metric].idxmax()]
        axes.plot(best["epoch"], best[metric], "o", color=colour(loss), markersize=7)
    axes.set(xlabel="epoch", ylabel=f"valid {metric_label(metric)}", xlim=(0, None))
    named(figure, f"Valid {metric_label(metric)} by epoch, {dataset} (dot: highest)")
    key_of(figure, axes)
    return figure


@styled
def training_history(history: pd.DataFrame, *, title: str, metric: str = "ndcg@20") -> Figure:
    """One run: the loss of each epoch, and valid accuracy where it was evaluated.

    Args:
        history: `Fit.history`, of a run that has ended or still goes on; empty before any epoch.
        title: of the figure.
        metric: the column that the run is judged by.
    """
    figure, [[left, right]] = new_figure(9.4, 3.4, 2)
    if len(history):
        left.plot(history["epoch"], history["loss"], "o-", ms=4, color="#222222")
    seen = history.dropna(subset=metric) if metric in history else history[:0]
    if len(seen):
        right.plot(seen["epoch"], seen[metric], "o-", ms=4, color="#222222")
        best = seen.loc[seen[metric].idxmax()]
        right.plot(best["epoch"], best[metric], "o", ms=9, color=colour("drrl"))
        right.set_title(f"best so far {best[metric]:.4f}, epoch {best['epoch']:.0f}")
    shown = f"valid {metric_label(metric)}"
    for axes, name in ((left, "loss (mean of the epoch)"), (right, shown)):
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.get_major_locator().set_params(integer=True)
    named(figure, title)
    return figure


BETA_LABELS = {
    "learned": "DrRL: one β a user, learnt",
    "shared": "w/o-P: one learnt β for all",
    "fixed": "w/o-LP: one fixed β",
    "exact": "exact β of each row",
}


@styled
def gradient_descents(betas: np.ndarray, panels: dict[float, dict]) -> Figure:
    """The bound β + c·‖(f-β)₊‖ as a curve, and gradient descent on it from several starts.

    Args:
        betas: (b,) score, ascending.
        panels: c -> a panel, a dictionary of curve, the bound (b,), score; value, the worst case,
            score; best, the exact β, -inf where there is none; paths, start -> (m, 2), β and bound
            after each step.
    """
    figure, [axes_of] = new_figure(9.4, 3.8, len(panels))
    for axes, (weight, panel) in zip(axes_of, panels.items(), strict=True):
        axes.plot(betas, panel["curve"], color="#222222", linewidth=1.6)
        axes.axhline(panel["value"], color="#999999", linewidth=1, linestyle=":")
        for tone, (start, path) in zip(
            (colour("drrl"), "#C4629B"), panel["paths"].items(), strict=False
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
    one_scale(axes_of)
    axes_of[0].set_ylabel("bound (score)")
    key_of(figure, axes_of[0])
    title = "The bound as a function of β, and gradient descent on it from two starts"
    named(figure, title)
    return figure


@styled
def margins_by_variant(frames: dict[str, pd.DataFrame], *, dataset: str, negatives: int) -> Figure:
    """The β that each variant of DrRL uses against the exact one, a dot for each user.

    Args:
        frames: variant -> a table as `diagnose.margins` gives it. dataset: its name, for the title.
        negatives: how many a training row draws, for the caption of the exact variant.
    """
    figure, [panels] = new_figure(2.6 * len(frames), 3.5, len(frames))
    every = pd.concat(frames.values())[["beta", "best"]]
    low, high = every.min().min(), every.max().max()
    ends = low - 0.05 * (high - low), high + 0.05 * (high - low)
    for axes, (variant, frame) in zip(panels, frames.items(), strict=True):
        axes.plot(ends, ends, color="#999999", linewidth=1.2)
        tone = "#222222" if variant == "exact" else colour("drrl")
        axes.plot(frame["best"], frame["beta"], "o", ms=4, alpha=0.5, mew=0, color=tone)
        words = BETA_LABELS[variant].replace(": ", ":\n")
        axes.set_title(words if variant != "exact" else f"exact,\non each row of {negatives}")
        said = f"mean gap {frame['gap'].mean():.4f}"
        axes.text(0.04, 0.96, said, transform=axes.transAxes, va="top", size=9)
        axes.set(xlim=ends, ylim=ends, aspect="equal")
        if axes is not panels[0]:
            axes.set_yticklabels([])
    panels[0].set_ylabel("β in use (score)")
    figure.supxlabel("exact β on all of the user's negatives (score)", size=10)
    title = f"β in use against the exact β, {dataset}: a dot a user"
    named(figure, title)
    return figure


@styled
def margins_over_epochs(
    panels: dict[str, dict[tuple[float, float], pd.DataFrame]], exact: pd.DataFrame
) -> Figure:
    """The learnt β over the epochs: a panel for each weight c, a line for each start and rate.

    Args:
        panels: the panel's title -> (start, rate) -> a history with diagnostics, as `run.execute`
            leaves it; the first panel is the one with c > 1, whose β has a finite best value.
        exact: the history of the run that solves for β in that ball.
    """
    figure, [axes_of] = new_figure(9.4, 3.8, len(panels))
    every = {run for panel in panels.values() for run in panel}
    tones = dict(zip(sorted({run[0] for run in every}), ("#C4629B", colour("drrl")), strict=False))
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
    one_scale(axes_of)
    axes_of[0].set_ylabel("mean β of the users (score)")
    key_of(figure, axes_of[0], 3)
    title = "Mean β of the users, from two starts at two rates"
    named(figure, title)
    return figure
