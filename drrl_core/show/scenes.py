"""Scenes: figures that an explorer moves, with the artists that follow its dials, and a film."""

import io
import math
import struct
import zlib
from collections.abc import Callable

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon
from matplotlib.ticker import PercentFormatter
from PIL import Image as Raster

from drrl_core.show.style import (
    FALSE_NEGATIVE_COLOUR,
    STYLE,
    colour,
    label,
    new_figure,
    order_axis,
    order_colour,
    order_label,
    quantity_axis,
    styled,
)


class Scene:
    """A figure of which some artists move; the rest is drawn once, and again when an axis changes.

    Building a figure of two panels anew takes some 130 ms, too slow for a slider; this takes 10.

    Args:
        figure: complete, with every artist.
        moving: the artists that follow the dials, in the order they are drawn.
        move: called with keyword arguments; changes only these artists and the ends of axes.
    """

    def __init__(self, figure: Figure, moving: list[Artist], move: Callable[..., None]):
        self.figure, self.moving, self._move = figure, moving, move
        self._canvas = FigureCanvasAgg(figure)
        self._backgrounds = {}  # by the ends of the axes

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
            with mpl.rc_context(STYLE):  # ticks are made only now
                self._canvas.draw()
            self.figure.set_layout_engine("none")  # the panels stay where they are
            if len(self._backgrounds) == 16:
                self._backgrounds.clear()
            self._backgrounds[ends] = self._canvas.copy_from_bbox(self.figure.bbox)
        self._canvas.restore_region(self._backgrounds[ends])
        for artist in self.moving:
            (artist.axes or self.figure).draw_artist(artist)
        return _encode_png(np.asarray(self._canvas.buffer_rgba())[..., :3])


def _encode_png(pixels: np.ndarray) -> bytes:
    """(height, width, 3) bytes as a PNG, without filters: a third of the time that Pillow takes."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each row begins with its filter; 0 is none
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


def _axis_end(axes: Axes, value: float) -> float:
    """The upper end of an axis that starts at 0: the next of 1, 2, 5, 10, ... above the value.

    The axis stays if it reaches the value and at most five times as far: redrawing is slow.
    """
    now = axes.get_ylim()[1]
    if not now / 5 <= value <= now:
        power = 10.0 ** math.floor(math.log10(max(value, 1e-6)))
        now = next(power * step for step in (1, 2, 5, 10) if power * step >= value)
    return now


@styled
def worst_case_scene(tops: tuple[float, float] | None = None) -> Scene:
    """Scores under P and under the worst case Q*, and the weight against the score.

    Moved by scores (n,) sorted, weights (n,) of mean 1, order, mark (score; β, below which no
    weight is, None at order 1), ghost (score; a margin set by hand, or None), and title_text.

    Args:
        tops: fixed upper ends of the two vertical axes; by default they follow the values.
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
    said = 3 if tops else 4  # in a film nobody sets β by hand
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
        if len(scores) > 600:  # keep all of the highest: the weight may be steep there
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
        ends = tops or [*map(_axis_end, (left, right), highest)]
        left.set_ylim(0, ends[0])
        right.set_ylim(-0.02 * ends[1], ends[1])

    return Scene(figure, [crowd, worst, outline, curve, dots, *marks, *ghosts, title], move)


def order_film(scores: np.ndarray, worst: dict, *, radius: float, pause: int = 150) -> bytes:
    """An animated GIF: the order goes through those of `worst`, and back.

    Args:
        scores: (n,) sorted. worst: order -> its `dro.WorstCase`, ascending. radius: in nats.
        pause: milliseconds for each picture; the first and the last stay six times as long.
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
    """The weight that false negatives get: by score, and by the share of false negatives.

    Moved by scores (n,), false (n,) bool and weights (n,) of mean 1; noise, the share of the
    negatives that are false; grid (m,) of such shares; shares, for each of three orders the pair of
    the order and (m,) the share of the weight that false negatives get along the grid; now, these
    three shares at this noise; and title_text.
    """
    figure, [[left, right]] = new_figure(9.4, 3.9, 2)
    heard = left.stairs([1], [0, 1], fill=True, color="#9AA0A8")
    false_heard = left.stairs([1], [0, 1], fill=True, color=FALSE_NEGATIVE_COLOUR)
    crowd = left.stairs([1], [0, 1], linewidth=1.6, color="#222222")
    left.set(xlabel="score of the negative", ylabel="share of the distribution")
    words = ["Q*: weight on ordinary negatives", "Q*: weight on false negatives", "P: all alike"]
    left.legend([heard, false_heard, crowd], words, loc="upper left", fontsize=9)
    right.plot([0, 1], [0, 1], ":", color="#777777", lw=1.3)
    right.text(0.345, 0.335, "all alike", color="#777777", size=9, va="top")
    # the second one's colour follows the order
    looks = (2, order_colour(1)), (3.2, "#444444"), (2, order_colour(math.inf))
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
        left.set_ylim(0, _axis_end(left, 1.3 * max(bar.max() for bar in bars)))

    return Scene(figure, [heard, false_heard, crowd, here, *lines, *spots, title], move)


@styled
def sweep_scene(
    n: int, accuracy: tuple[float, float] | None = None, metric: str = "accuracy"
) -> Scene:
    """Truncation, skew and data use against the order, with the present order marked.

    Moved by orders (a,); held_at and reference_at, quantity -> (a,) along the orders, with what the
    reader holds fixed, and with the radius fixed; order, and now, quantity -> its value there;
    known, (m,) orders and (m,) recorded accuracies; and title_text.

    Args:
        n: number of negatives, the largest possible weight.
        accuracy: least and largest recorded accuracy; None leaves their panel out.
        metric: the name of that accuracy, for its axis.
    """
    names = ("truncated", "k1", "effective_share")
    figure, [panels] = new_figure(10.4 if accuracy is None else 13.2, 3.5, 3 + bool(accuracy))
    held, reference, spots, heres = [], [], [], []
    for axes, name in zip(panels, names, strict=False):
        reference += axes.plot([], [], ":", color="#999999", lw=1.6)
        held += axes.plot([], [], color="#222222")
        quantity_axis(axes, name)
    panels[1].set_ylim(0.9, 1.2 * n)
    recorded = []
    if accuracy:
        recorded = panels[3].plot([], [], "D", ms=7, mec="white", color="#222222")
        pad = 0.1 * (accuracy[1] - accuracy[0]) or 0.01
        panels[3].set(ylabel=metric, ylim=(accuracy[0] - pad, accuracy[1] + pad))
        recorded.append(panels[3].text(0.5, 0.5, "", transform=panels[3].transAxes, ha="center"))
    for axes in panels:
        order_axis(axes)
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


CORNERS = np.array([[0, 0], [1, 0], [0.5, 3**0.5 / 2]])  # of the triangle of three items' weights


@styled
def simplex_scene() -> Scene:
    """Balls around the uniform distribution over three items, and the worst case in each.

    Moved by balls, three times (order, (m, 3) boundary, (3,) worst case); scores (3,); title_text.
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

    Moved by clouds_at, loss -> a row for each user with order and radius (nats); and title_text.

    Args:
        orders: (a,) γ in [1, ∞], ascending. radii: (b,) nats.
        k1, truncated: (b, a), a row for each radius.
        losses: which may be in `clouds_at`.
    """
    figure, [[axes]] = new_figure(7.6, 4.8)
    across = 1 - 1 / np.asarray(orders)
    greys = [str(1 - 0.055 * step) for step in range(10)]
    shade = axes.contourf(across, radii, truncated, levels=np.linspace(0, 1, 11), colors=greys)
    figure.colorbar(shade, ax=axes, label="truncated share of the negatives", format="{x:.0%}")
    levels = [level for level in (1.5, 2, 5, 10, 20, 50, 100, 500, 2000) if level < k1.max()]
    lines = axes.contour(across, radii, k1, levels=levels, colors="#7A1F5C", linewidths=1)
    axes.clabel(lines, fmt=lambda level: f"k₁ {level:g}", fontsize=8)
    order_axis(axes)
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
        rng = np.random.default_rng(0)  # a fixed seed: spread users of one order sideways
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

    Moved by curve and whole, (b, 2) β and bound, on the chosen negatives and on all negatives;
    trail (e, 2), the same for the learnt β of each epoch so far; best, (β, bound) at the minimum,
    β -inf where there is none; shared, the best β if all users had the same; users (u, 2), exact
    and learnt β; chosen, the user's row in `users`; and title_text.

    Args:
        low, high: the ends of the axes of β, score. weight: the c that all were trained with.
    """
    figure, [[left, right]] = new_figure(9.4, 4.3, 2)
    (ghost,) = left.plot([], [], color="#BBBBBB", linewidth=1.6)
    (line,) = left.plot([], [], color="#222222", linewidth=1.8)
    worst = left.axhline(0, color="#999999", linestyle=":", linewidth=1.4)
    one = left.axvline(0, color="#CC79A7", linestyle="--", linewidth=1.4)
    (past,) = left.plot([], [], "o", ms=5, mew=0, alpha=0.5, color=colour("drrl"))
    (lowest,) = left.plot([], [], "D", ms=11, mec="white", color="#222222")
    (now,) = left.plot([], [], "o", ms=9, mec="white", color=colour("drrl"))
    left.set(xlabel="margin β (score)", ylabel="bound (score)", xlim=(low, high))
    left.yaxis.set_major_formatter("{x:+.1f}")  # a sign keeps the labels' width
    right.plot([low, high], [low, high], color="#999999", linewidth=1.2)
    level = right.axhline(0, color="#CC79A7", linestyle="--", linewidth=1.4)
    (crowd,) = right.plot([], [], "o", ms=4, mew=0, alpha=0.45, color=colour("drrl"))
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
