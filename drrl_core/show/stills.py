"""The still picture of each explorer, for where no browser moves it; and a film of the order."""

import io
import math

import numpy as np
from contourpy import contour_generator
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon
from matplotlib.ticker import PercentFormatter
from PIL import Image as Raster

from drrl_core.show.style import (
    FALSE_NEGATIVE_COLOUR,
    colour,
    key,
    key_of,
    label,
    named,
    new_figure,
    order_axis,
    order_colour,
    order_label,
    png,
    quantity_axis,
    styled,
)

SHARED = "#C4629B"  # of the one β for all
WORST_CASE = "Q*: the worst case"


def _edges(scores: np.ndarray) -> np.ndarray:
    low, high = float(scores.min()), float(scores.max())
    pad = 0.04 * (high - low) or 0.1
    return np.linspace(low - pad, high + pad, 61 if len(scores) > 200 else 21)


@styled
def worst_case(
    scores: np.ndarray,
    weights: np.ndarray,
    *,
    order: float,
    mark: float | None = None,
    title: str = "",
    tops: tuple[float, float] | None = None,
) -> Figure:
    """Scores under P and under the worst case Q*, and the weight against the score.

    Args:
        scores: (n,) sorted. weights: (n,) of mean 1. order: γ in [1, inf].
        mark: β, score, below which no weight is; None at order 1.
        tops: fixed upper ends of the two vertical axes; by default they follow the values.
    """
    figure, [[left, right]] = new_figure(9.4, 3.9, 2)
    tone, edges = order_colour(order), _edges(scores)
    crowd, shares = (
        np.histogram(scores, edges, weights=w)[0] / len(scores) for w in (None, weights)
    )
    crowd = left.stairs(crowd, edges, fill=True, color="#D3D6DB")
    left.stairs(shares, edges, fill=True, alpha=0.45, color=tone)
    left.stairs(shares, edges, lw=1.6, color=tone)
    right.plot(scores, weights, "o-" if len(scores) <= 60 else "-", ms=5, lw=2.4, color=tone)
    right.axhline(1, color="#999999", lw=1, ls=":")
    finite = mark is not None and math.isfinite(mark)
    marks = (
        [panel.axvline(mark, color="#222222", ls="--", lw=1.3) for panel in (left, right)]
        if finite
        else []
    )
    handles = [crowd, Patch(facecolor=tone, alpha=0.6), *marks[:1]]
    key(figure, handles, ["P: all alike", WORST_CASE, "β: no weight below"][: len(handles)])
    left.set(xlabel="score of the negative", ylabel="share of the distribution", ylim=(0, None))
    right.set(xlabel="score of the negative", ylabel="weight (mean 1)")
    for panel, top in zip((left, right), tops or (), strict=False):
        panel.set_ylim(0, top)
    for panel in (left, right):
        panel.set_xlim(edges[0], edges[-1])
    named(figure, title)
    return figure


def order_film(scores: np.ndarray, worst: dict, *, radius: float, pause: int = 150) -> bytes:
    """An animated GIF: the order goes through those of `worst`, and back.

    Args:
        scores: (n,) sorted. worst: order -> its `dro.WorstCase`, ascending. radius: in nats.
        pause: milliseconds for each picture; the first and the last stay six times as long.
    """
    tops, frames = (0.12, 1.1 * max(float(each.k1) for each in worst.values())), []
    for order, each in worst.items():
        said = f"Radius {radius:.3g} nats, order γ = {order_label(order)}"
        mark = None if order == 1 else float(each.dual)
        drawn = worst_case(
            scores, each.weights.numpy(), order=order, mark=mark, title=said, tops=tops
        )
        frames.append(Raster.open(io.BytesIO(png(drawn, dpi=70))).convert("RGB"))
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
def false_negatives(
    scores: np.ndarray,
    false: np.ndarray,
    weights: np.ndarray,
    curves: dict[float, tuple[np.ndarray, np.ndarray]],
    *,
    title: str = "",
) -> Figure:
    """The weight that false negatives get: by score, and by the share of false negatives.

    Args:
        scores: (n,). false: (n,) bool. weights: (n,) of mean 1.
        curves: order -> shares of false negatives, and the share of the weight that they get.
    """
    figure, [[left, right]] = new_figure(9.4, 3.9, 2)
    edges, n = _edges(scores), len(scores)
    looks = {
        "Q*: weight on ordinary negatives": (weights, {"fill": True, "color": "#9AA0A8"}),
        "Q*: weight on false negatives": (
            np.where(false, weights, 0),
            {"fill": True, "color": FALSE_NEGATIVE_COLOUR},
        ),
        "P: all alike": (np.ones(n), {"lw": 1.6, "color": "#222222"}),
    }
    for name, (mass, look) in looks.items():
        left.stairs(np.histogram(scores, edges, weights=mass)[0] / n, edges, label=name, **look)
    left.set(xlabel="score of the negative", ylabel="share of the distribution")
    right.plot([0, 1], [0, 1], ":", color="#777777", lw=1.3, label="all alike")
    for order, (x, y) in curves.items():
        right.plot(x, y, color=order_colour(order), label=f"order {order_label(order)}")
    right.axvline(false.mean(), color="#222222", ls="--", lw=1.2)
    right.set(xlabel="share of false negatives", ylabel="their share of the weight")
    right.set(xlim=(0, 0.5), ylim=(0, 1.03))
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    shown = zip(left.get_legend_handles_labels(), right.get_legend_handles_labels(), strict=True)
    key(figure, *(a + b for a, b in shown))
    named(figure, title)
    return figure


@styled
def gamma_sweep(
    held: dict[str, np.ndarray],
    reference: dict[str, np.ndarray],
    orders: np.ndarray,
    *,
    order: float,
    recorded: tuple[np.ndarray, np.ndarray] | None = None,
    metric: str = "accuracy",
    title: str = "",
) -> Figure:
    """Truncation, skew and data use against the order, with the present order marked.

    Args:
        held, reference: quantity -> (a,) along the (a,) orders, with what the reader holds fixed,
            and with the radius fixed.
        recorded: (m,) orders and (m,) accuracies, in a panel more. metric: their name.
    """
    figure, [panels] = new_figure(
        10.4 if recorded is None else 13.2, 3.5, 3 + (recorded is not None)
    )
    for axes, name in zip(panels, held, strict=False):
        axes.plot(
            1 - 1 / orders,
            reference[name],
            ":",
            color="#999999",
            lw=1.6,
            label="at a fixed radius ρ",
        )
        axes.plot(1 - 1 / orders, held[name], color="#222222", label="as held")
        quantity_axis(axes, name)
    if recorded is not None:
        panels[3].plot(1 - 1 / recorded[0], recorded[1], "D", ms=7, mec="white", color="#222222")
        panels[3].set(ylabel=f"recorded {metric}")
    for axes in panels:
        order_axis(axes)
        axes.axvline(1 - 1 / order, color=order_colour(order), ls="--", lw=1.4)
    named(figure, title)
    key_of(figure, panels[0])
    return figure


CORNERS = np.array([[0, 0], [1, 0], [0.5, 3**0.5 / 2]])  # of the triangle of three items' weights


@styled
def simplex(
    balls: dict[str, tuple[float, np.ndarray, np.ndarray]], scores: np.ndarray, *, title: str = ""
) -> Figure:
    """Balls around the uniform distribution over three items, and the worst case in each.

    Args:
        balls: name -> order, (m, 3) boundary, (3,) worst case. scores: (3,).
    """
    figure, [[axes]] = new_figure(6.2, 5.0)
    axes.set(xlim=(-0.16, 1.16), ylim=(-0.14, 1.0), aspect="equal")
    axes.axis("off")
    axes.add_patch(Polygon(CORNERS, fill=False, edgecolor="#555555", linewidth=1.4))
    centre = CORNERS.mean(0)
    axes.plot(*centre, "o", color="#222222", markersize=5)
    for name, (order, rim, worst) in balls.items():
        tone = order_colour(order)
        axes.add_patch(Polygon(rim @ CORNERS, alpha=0.18, facecolor=tone))
        axes.add_patch(Polygon(rim @ CORNERS, fill=False, lw=2, edgecolor=tone))
        axes.plot(*(worst @ CORNERS), "*", ms=15, mec="white", mew=0.8, color=tone, label=name)
    uphill = (scores - scores.mean()) @ CORNERS
    axes.annotate(
        "", centre + 0.3 * uphill / np.hypot(*uphill), centre, arrowprops={"arrowstyle": "->"}
    )
    away = np.array([[-0.05, -0.06], [0.05, -0.06], [0, 0.06]])
    for name, score, at in zip("ABC", scores, CORNERS + away, strict=True):
        axes.text(*at, f"item {name}\nscore {score:.2f}", ha="center", va="center", size=9)
    key_of(figure, axes)
    named(figure, title)
    return figure


SHADES, LEVELS = np.arange(1, 10) / 10, (1.5, 2, 5, 10, 20, 50, 100, 500, 2000)


def contours(across: np.ndarray, radii: np.ndarray, k1: np.ndarray, truncated: np.ndarray):
    """Outlines of where the truncated share is at least 10%, 20%, ..., and lines of equal k1.

    Args:
        across: (a,) 1 - 1/γ, ascending. radii: (b,) nats. k1, truncated: (b, a).
    Returns: for each share its rings, and for each level of k1 its lines; each an (m, 2) array.
    """
    regions = contour_generator(across, radii, truncated, fill_type="OuterOffset")
    shades = []
    for level in SHADES:
        parts = zip(*regions.filled(level, 2), strict=True)
        shades.append([ring for each, ends in parts for ring in np.split(each, ends[1:-1])])
    lines = contour_generator(across, radii, k1)
    found = {level: lines.lines(level) for level in LEVELS}
    return shades, {level: each for level, each in found.items() if each}


@styled
def atlas(shades: list, lines: dict, clouds: dict, *, highest: float, title: str = "") -> Figure:
    """The plane order × radius, with contours of k1 and of the truncated share.

    Args:
        shades, lines: as `contours` gives them.
        clouds: loss -> (m, 2), 1 - 1/γ and the radius (nats) of each user. highest: radius shown.
    """
    figure, [[axes]] = new_figure(7.6, 4.8)
    for rings in shades:
        for ring in rings:
            axes.fill(*ring.T, color="#000000", alpha=0.055, lw=0)
    for level, each in lines.items():
        for line in each:
            axes.plot(*line.T, color=FALSE_NEGATIVE_COLOUR, lw=1)
        axes.annotate(
            f"k₁ {level:g}", each[0][len(each[0]) // 3], color=FALSE_NEGATIVE_COLOUR, size=8
        )
    for loss, points in clouds.items():
        axes.plot(*points.T, "o", ms=4, alpha=0.45, mew=0, color=colour(loss))
        if len(points):
            middle = np.median(points, 0)
            axes.plot(*middle, "D", ms=8, mec="white", color=colour(loss), label=label(loss))
    order_axis(axes)
    axes.set(ylabel="radius ρ (nats)", ylim=(0, highest))
    axes.grid(visible=False)
    if clouds:
        key_of(figure, axes)
    named(figure, title)
    return figure


@styled
def margins(
    curve: np.ndarray,
    trail: np.ndarray,
    best: tuple[float, float],
    shared: float,
    users: np.ndarray,
    *,
    title: str = "",
) -> Figure:
    """One user's bound as a function of β, and every user's β in use against the exact one.

    Args:
        curve: (b, 2), β and bound. trail: (e, 2), the same for the learnt β of each epoch.
        best: β and bound at the minimum, β -inf where there is none.
        shared: the best β if all users had the same. users: (u, 2), exact and learnt β.
    """
    figure, [[left, right]] = new_figure(9.4, 4.3, 2)
    tone = colour("drrl")
    left.plot(*curve.T, color="#222222", lw=1.8, label="bound")
    left.axhline(best[1], color="#999999", ls=":", lw=1.4, label="worst case")
    left.plot(*trail[:-1].T, "o", ms=5, mew=0, alpha=0.5, color=tone, label="the epochs before")
    left.plot(*trail[-1:].T, "o", ms=9, mec="white", color=tone, label="learnt β")
    if math.isfinite(best[0]):
        left.plot(*best, "D", ms=9, mec="white", color="#222222", label="exact β")
    left.axvline(shared, color=SHARED, ls="--", lw=1.4, label="one β for all")
    low, high = curve[0, 0], curve[-1, 0]
    left.set(xlabel="margin β (score)", ylabel="bound (score)", xlim=(low, high))
    left.set_ylim(best[1] - 0.03, best[1] + 0.5)
    left.set_title(title)
    right.plot([low, high], [low, high], color="#999999", lw=1.2)
    right.axhline(shared, color=SHARED, ls="--", lw=1.4)
    right.plot(*users.T, "o", ms=4, mew=0, alpha=0.45, color=tone)
    right.set(xlabel="exact β on all negatives (score)", ylabel="learnt β (score)")
    right.set(xlim=(low, high), ylim=(low, high))
    right.set_title("All users")
    key_of(figure, left, 6)
    return figure
