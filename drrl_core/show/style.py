"""One style for every picture: a colour and a name for each loss, axes that all figures share.

No pyplot: a figure belongs to whoever asked for it, in any thread, and is freed with its last
reference. `show` saves it and hands a notebook something it can display.
"""

import io
import math
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

from drrl_core import classical, losses

FALSE_NEGATIVE_COLOUR = "#7A1F5C"


DATA_COLOUR = "#5B6472"  # of a data set, where no loss is meant


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
    """The colour of a loss or a classical model in every figure: a variant has its loss's, an
    unknown loss black."""
    if loss in classical.REGISTRY:
        return classical.REGISTRY[loss].colour
    known = losses.variants().get(loss)
    return losses.REGISTRY[known.loss].colour if known else "#222222"


def label(loss: str) -> str:
    """The loss's name as the paper writes it; a classical model's."""
    if loss in classical.REGISTRY:
        return classical.REGISTRY[loss].label
    known = losses.variants().get(loss)
    return known.label if known else loss


def order_colour(order: float) -> tuple[float, float, float]:
    """The colour of an order γ: SL's at 1, DrRL's at 2, CCL's at ∞, between them mixed by 1/γ*.

    >>> order_colour(1) == to_rgb(colour("sl")), order_colour(math.inf) == to_rgb(colour("ccl"))
    (True, True)
    """
    ends = np.array([to_rgb(colour(loss)) for loss in ("sl", "drrl", "ccl")])
    return tuple(np.array([np.interp(1 - 1 / order, (0, 0.5, 1), channel) for channel in ends.T]))


def order_label(order: float) -> str:
    """The order as text, with the name of the loss at either end.

    >>> [order_label(order) for order in (1, 1.5, math.inf)]
    ['1 (SL)', '1.5', '∞ (CCL)']
    """
    return {1: "1 (SL)", math.inf: "∞ (CCL)"}.get(order, f"{order:.3g}")


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw a figure in the suite's style, and leave matplotlib's own settings as they were."""

    @wraps(draw)
    def in_style(*args, **kwargs) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return in_style


def new_figure(width: float, height: float, columns: int = 1, rows: int = 1):
    """A figure of that width and height (inches), and its axes as a (rows, columns) array."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as PNG bytes; the same figure gives the same bytes."""
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


def metric_label(metric: str) -> str:
    """The name of a metric as it is printed.

    >>> metric_label("ndcg@20")
    'NDCG@20'
    """
    return metric.replace("recall", "Recall").replace("ndcg", "NDCG")


def held_label(held: str) -> str:
    """What a sweep held fixed, as text.

    >>> held_label("drrl, weight=1.649")
    'DrRL at c = 1.65'
    """
    variant, _, size = held.partition(", ")
    name, _, value = size.partition("=")
    symbol = {"radius": "ρ", "weight": "c", "eta": "η", "temperature": "λ"}[name]
    return f"{label(variant)} at {symbol} = {float(value):.3g}"


def means_with_intervals(axes: Axes, x, y, low, high, tone, **style) -> None:
    """Means with vertical error bars from low to high; without these (NaN) a dot alone."""
    ends = np.array([np.asarray(y) - low, np.asarray(high) - y], float)
    style = {"fmt": "o", "ms": 6, "capsize": 3, "elinewidth": 1.4, "color": tone} | style
    axes.errorbar(x, y, yerr=np.nan_to_num(ends), **style)


ORDER_TICKS = (1, 1.25, 1.5, 2, 3, 5, 10, math.inf)


def order_axis(axes: Axes) -> None:
    """Let the x axis be orders, spaced by 1/γ* = 1 - 1/γ: SL at its left end, CCL at its right."""
    names = ["1\nSL", *map(str, ORDER_TICKS[1:-1]), "∞\nCCL"]
    axes.set_xticks([1 - 1 / order for order in ORDER_TICKS], names)
    axes.set(xlabel="order γ (evenly in 1/γ*)", xlim=(-0.035, 1.035))


QUANTITIES = {
    "k1": "$k_1$: largest weight (× mean)",
    "k2": "$k_2$: weight of a false\nnegative (× mean)",
    "k2_test": "$k_2$: weight of a held-out\ntest positive (× mean)",
    "truncated": "truncated share",
    "truncated_best": "truncated share at the best β",
    "effective_share": "effective share $1/E w^2$",
}


RATIOS = ("k1", "k2", "k2_test")  # probability ratios, on logarithmic axes; the rest are shares


def quantity_axis(axes: Axes, name: str, *, across: bool = False) -> None:
    """Name and scale the axis of one of QUANTITIES: logarithmic for a ratio, 0 to 1 for a share."""
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


NEUTRAL_COLOURS = "#222222", "#CC79A7", "#E69F00", "#56B4E9"  # of curves that are no loss
