"""What is seen in a figure, in words made from what was drawn: the text for who cannot see it."""

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Polygon, StepPatch
from matplotlib.ticker import FuncFormatter

MOST = 9  # things told of a panel
FEW = 12  # bars told one by one


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _points(x: np.ndarray, y: np.ndarray) -> str:
    ends = (f"{_number(each.min())} to {_number(each.max())}" for each in (x, y))
    return "{} points, across {}, up {}".format(len(x), *ends)


def _curve(x: np.ndarray, y: np.ndarray, said=_number) -> str:
    places = {"": 0, " ": len(y) - 1}
    inside = {"highest ": int(y.argmax()), "lowest ": int(y.argmin())}
    places |= {word: at for word, at in inside.items() if 0 < at < len(y) - 1}
    told = (f"{word.lstrip()}{_number(y[i])} at {said(x[i])}" for word, i in places.items())
    return ", ".join(told)


def _name_at(axis, place: float) -> str:
    """The words that an axis was given at a place."""
    if not isinstance(axis.get_major_formatter(), FuncFormatter):
        return ""
    places = axis.get_ticklocs()
    told = zip(places, axis.get_major_formatter().format_ticks(places), strict=True)
    return next((text for at, text in told if abs(at - place) < 0.5), "")


def _bars(axes: Axes, bars: BarContainer, name: str) -> Iterator[tuple[str, str]]:
    """Each of a few bars by the word of its place; many as a whole."""
    lying = bars.orientation == "horizontal"
    size = np.array([bar.get_width() if lying else bar.get_height() for bar in bars])
    middle = np.array([bar.get_center()[int(lying)] for bar in bars])
    if len(bars) > FEW:
        top = f"highest {_number(size.max())} at {_number(middle[size.argmax()])}"
        yield name, f"{len(bars)} bars, {top}"
        return
    axis = axes.yaxis if lying else axes.xaxis
    for place, value in zip(middle, size, strict=True):
        yield " ".join(filter(None, (name, _name_at(axis, place)))), _number(value)


def _look(line) -> tuple[str, bool]:
    """A mark, and whether it is hollow."""
    return line.get_marker(), to_hex(line.get_markerfacecolor()) == "#ffffff"


def _parts(axes: Axes, names: dict) -> Iterator[tuple[str, str]]:
    """(name, words) of each thing drawn; a line of two ends without a label is a mark, untold."""

    labels = {part: each.get_label() for each in axes.containers for part in each.get_children()}

    def own(artist) -> str:
        said = str(labels.get(artist) or artist.get_label())
        return "" if said.startswith("_") else said

    for bars in axes.containers:
        if isinstance(bars, BarContainer) and len(bars):
            yield from _bars(
                axes, bars, own(bars) or names.get(to_hex(bars[0].get_facecolor()), "")
            )
    for shape in axes.patches:
        if isinstance(shape, Polygon | StepPatch) and own(shape):
            x, y = shape.get_path().vertices.T
            yield own(shape), f"highest {_number(y.max())} at {_number(x[y.argmax()])}"
    across = axes.fmt_xdata or _number
    for line in axes.lines:
        x, y = np.asarray(line.get_xydata(), float).T
        x, y = (each[np.isfinite(x + y)] for each in (x, y))
        name = own(line) or names.get(to_hex(line.get_color()), "")
        if line.get_marker() in ("|", "_"):
            continue  # the ends of an interval
        if len(x) == 1:
            place, mark = _name_at(axes.yaxis, y[0]), names.get(_look(line), "")
            name = ", ".join(dict.fromkeys(filter(None, (place or name, mark))))
            yield name, _number(x[0]) if place else f"{_number(y[0])} at {across(x[0])}"
        elif len(x) > 1 and line.get_linestyle() == "None":
            yield name, _points(x, y)
        elif len(x) > 2 or (len(x) == 2 and own(line)):
            yield name, _curve(x, y, across)
    for points in axes.collections:
        if isinstance(points, PathCollection) and len(at := np.asarray(points.get_offsets())):
            yield names.get(to_hex(points.get_edgecolor()[0]), ""), _points(*at.T)


def _panel(axes: Axes, names: dict) -> str:
    """A panel in words; nothing of one that has no name and whose parts have none: a background."""
    if not (axes.get_title("left") or axes.get_xlabel() or any(dict(_parts(axes, names)))):
        return ""
    parts = [": ".join(filter(None, part)) for part in dict.fromkeys(_parts(axes, names))]
    if len(parts) > MOST:
        parts[MOST:] = [f"and {len(parts) - MOST} more"]
    parts += [text.get_text() for text in axes.texts if any(map(str.isalpha, text.get_text()))][:3]
    what = " against ".join(filter(None, (axes.get_ylabel(), axes.get_xlabel())))
    told = ". ".join(filter(None, (axes.get_title("left"), what, "; ".join(parts))))
    return " ".join(told.split())


def seen(figure: Figure) -> str:
    """What is seen in a figure: its panels' axes, and of each curve or bar its ends and extremes.

    Args:
        figure: drawn.
    Returns: one line of text. Curves are named by their labels, or by the key's of their colour.

    >>> figure = Figure()
    >>> axes = figure.subplots()
    >>> _ = axes.plot([1, 2, 3], [0.1, 0.4, 0.2], label="SL")
    >>> _ = axes.set(xlabel="epoch", ylabel="NDCG")
    >>> seen(figure)
    'NDCG against epoch. SL: 0.1 at 1, 0.2 at 3, highest 0.4 at 2'
    """
    names: dict = {}
    for legend in figure.legends:
        for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
            if isinstance(handle, Line2D):
                names.setdefault(_look(handle), text.get_text())
                for tone in (handle.get_color(), handle.get_markeredgecolor()):
                    names.setdefault(to_hex(tone), text.get_text())
            elif isinstance(handle, Patch):
                names.setdefault(to_hex(handle.get_facecolor()), text.get_text())
    return " | ".join(filter(None, (_panel(axes, names) for axes in figure.axes)))
