"""One style for every picture: a colour and a name for each loss, axes that all figures share.

No pyplot: a figure belongs to whoever asked for it, in any thread, and is freed with its last
reference. `show` saves it and hands a notebook something it can display.
"""

import io
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

from drrl_core import classical, losses
from drrl_core.show.words import seen

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
    "legend.fontsize": 9,
    "text.parse_math": False,  # a data set's name may hold a dollar sign
    "svg.fonttype": "none",  # letters stay letters, to be changed on a slide
    "svg.hashsalt": "drrl",  # the same figure gives the same bytes
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


def in_order(names: Iterable[str]) -> list[str]:
    """Losses as every figure lists them: the family from SL to CCL, others, classical models.

    >>> in_order(["ease", "bpr", "ccl", "drrl", "sl"])
    ['sl', 'drrl', 'ccl', 'bpr', 'ease']
    """
    ways = losses.variants()
    known = [*ways, *classical.REGISTRY]

    def place(name: str) -> tuple[float, int]:
        if name not in ways:
            return (3, known.index(name)) if name in known else (4, 0)
        order = losses.REGISTRY[ways[name].loss].order
        return (2 if order is None else 0.5 if isinstance(order, str) else 1 - 1 / order), (
            known.index(name)
        )

    return sorted(names, key=place)


def ahead(table: pd.DataFrame) -> str:
    """Who is ahead in a table of `scorecard.comparison`, in words; a tie is called a tie.

    A loss is level with the best where the test over users does not tell the two apart, p >= 0.05.

    Args:
        table: a row a loss; ours, its accuracy; p, of the test against the best of the others.
    Returns: nothing where fewer than two were run, or one was not tested.

    >>> rows = pd.DataFrame({"ours": [0.3, 0.2, 0.1], "p": [0.4, 0.4, 0.01]}, ["sl", "ccl", "bpr"])
    >>> ahead(rows), ahead(rows.iloc[1:].assign(p=0.01)), ahead(rows.iloc[:1])
    ('SL and CCL are level at the top', 'CCL is ahead', '')
    """
    known = table.dropna(subset="ours").sort_values("ours", ascending=False)
    if len(known) < 2 or known["p"].isna().any():
        return ""
    level = [
        label(one) for one in in_order([known.index[0], *known.index[1:][known["p"][1:] >= 0.05]])
    ]
    if len(level) > 3:
        return f"{len(level)} are level at the top"
    *others, last = level
    return f"{', '.join(others)} and {last} are level at the top" if others else f"{last} is ahead"


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


def named(figure: Figure, title: str) -> None:
    """Give a figure a title, in lines that it has room for: a name of data may be long."""
    title = textwrap.fill(title, int(9 * figure.get_figwidth()))
    figure.suptitle(title, x=0.01, ha="left", size=12, weight="bold")


def key(figure: Figure, handles: Sequence, words: Sequence[str], columns: int = 4) -> None:
    """Explain the marks below the axes, where no data lie."""
    columns = min(columns, max(len(words), 1))
    figure.legend(handles, words, loc="outside lower center", ncols=columns)


def key_of(figure: Figure, axes: Axes, columns: int = 4) -> None:
    """`key` of what has a label in these axes."""
    key(figure, *axes.get_legend_handles_labels(), columns)


def _saved(figure: Figure, form: str, **options) -> bytes:
    """The figure's bytes in a format; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=form, **options)
    return buffer.getvalue()


def png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as PNG bytes; the same figure gives the same bytes."""
    return _saved(figure, "png", dpi=dpi, metadata={"Software": None})


def show(figure: Figure, path: str | Path | None = None):
    """Save the figure, if a path is given, and return what a notebook displays.

    Args:
        path: of a PNG; beside it an SVG of the same name, for slides.
    Returns: an image with what is seen in it as its text (`words.seen`).
    """
    from IPython.display import Image

    data = png(figure)
    if path:
        vector = _saved(figure, "svg", metadata={"Date": None})
        for file, content in ((Path(path), data), (Path(path).with_suffix(".svg"), vector)):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    return Image(data=data, width=int(figure.get_figwidth() * 90), alt=seen(figure))


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


def one_scale(row: Iterable[Axes]) -> tuple[float, float]:
    """Give panels of one quantity one y axis, as all figures do; its two ends."""
    ends = [axes.get_ylim() for axes in row]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    for axes in row:
        axes.set_ylim(low, high)
    return low, high


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
    axes.fmt_xdata = lambda at: order_label(1 / (1 - at) if at < 1 else math.inf)


QUANTITIES = {
    "k1": "k₁: largest weight (× mean)",
    "k2": "k₂: weight of a false\nnegative (× mean)",
    "k2_test": "k₂: weight of a held-out\ntest positive (× mean)",
    "truncated": "truncated share",
    "truncated_best": "truncated share at the best β",
    "effective_share": "effective share 1/E w²",
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


NEUTRAL_COLOURS = "#222222", "#C4629B", "#B88000", "#3A9AD9"  # of curves that are no loss
