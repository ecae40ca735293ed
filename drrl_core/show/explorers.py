"""Explorers: dials beside a picture in a live notebook, the picture alone everywhere else.

Each explorer is a function of what it starts with. `explore` puts dials, presets and readouts
around a picture; the pictures come from `scenes`, the mathematics from `dro`.

Widget callbacks may run on another thread than the cells do, so nothing here touches pyplot: each
picture is a `Figure` of its own, drawn under one lock into an `ipywidgets.Image`.
"""

import html
import math
import os
import threading
import time
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy.optimize import minimize_scalar

from drrl_core import dro
from drrl_core.show import figures, scenes, style

_DRAWING = threading.Lock()
# Set by the front ends that can show widgets: Jupyter servers, Voilà, VS Code, Colab, Kaggle.
FRONT_ENDS = ("JPY_SESSION_NAME", "SERVER_SOFTWARE", "VSCODE_PID", "COLAB_RELEASE_TAG")
# A dial that turns evenly from SL to CCL: 1/γ* = 1 - 1/γ in steps of 1/40.
ORDERS = (*(40 / (40 - step) for step in range(40)), math.inf)
PRESETS = {"SL": {"order": 1.0}, "DrRL": {"order": 2.0}, "CCL": {"order": math.inf}}


def interactive() -> bool:
    """Whether a front end that shows widgets is known to be there.

    Under papermill and nbconvert none is, and a widget would be left as a broken placeholder.
    """
    return any(os.environ.get(name) for name in FRONT_ENDS)


def readout(values: dict[str, object]) -> str:
    """Names, values and units in one line: numbers to four digits, texts as they are.

    >>> readout({"value (score)": 0.43214, "truncated": "63%"})
    'value 0.4321 score   truncated 63%'
    """
    said = []
    for name, value in values.items():
        name, _, unit = name.rstrip(")").partition(" (")
        text = value if isinstance(value, str) else f"{float(value):.4g}"
        said.append(f"{name} {text} {unit}".rstrip())
    return "   ".join(said)


def _red(error: BaseException) -> str:
    return f"<b style='color:#B00020'>{html.escape(str(error) or type(error).__name__)}</b>"


def explore(
    draw: Callable[..., Figure | tuple[scenes.Scene, dict, dict]],
    *,
    presets: dict[str, dict] | None = None,
    parameters: tuple[str, ...] = (),
    **controls,
):
    """Dials beside a picture that follows them.

    Args:
        draw: called with one keyword argument for each control. Returns a Figure; or a Scene, what
            to move it to, and readouts, name (unit) -> value. What it raises is shown in place of
            the readout, and the last good picture stays.
        presets: name -> values of some controls; a button for each, and one that resets all.
        parameters: names of the controls that are also parameters of the notebook: a line below
            gives their values as arguments of papermill, to be copied.
        **controls: ipywidgets with a `value`, in the order of the page.

    Returns:
        A widget where a front end is known to be there, else the still picture at the controls'
        first values, its readouts below it.

    >>> import ipywidgets as w
    >>> view = explore(lambda n: style.new_figure(1, 1)[0], n=w.IntSlider(value=3))
    >>> type(view).__name__
    'Image'
    """

    def values() -> dict:
        return {name: control.value for name, control in controls.items()}

    if not interactive():
        drawn = draw(**values())
        if isinstance(drawn, Figure):
            return style.show(drawn)
        scene, moved, said = drawn
        figure = scene.move(**moved)
        figure.supxlabel(readout(said), x=0.01, ha="left", size=9, wrap=True)
        return style.show(figure)

    import ipywidgets as widgets

    image, line = widgets.Image(format="png"), widgets.HTML()
    line.add_class("drrl-readout")
    command = widgets.HTML()

    def redraw(_change=None) -> None:
        with _DRAWING:
            now = values()  # read now: the last of many moves must win
            try:
                drawn = draw(**now)
                if isinstance(drawn, Figure):
                    image.value, said = style.png(drawn), ""
                else:
                    scene, moved, said = drawn
                    image.value, said = scene.png(**moved), readout(said)
            except Exception as error:  # callbacks have no console: unseen, it freezes the picture
                line.value = _red(error)
                return
            line.value = f"<code>{html.escape(said)}</code>" if said else ""
            text = (
                now[name] if isinstance(now[name], str) else f"{now[name]:g}" for name in parameters
            )
            words = " ".join(
                f"-p {name} {value}" for name, value in zip(parameters, text, strict=True)
            )
            copied = f"papermill: <code style='user-select:all'>{html.escape(words)}</code>"
            command.value = copied if parameters else ""

    def button(name: str, chosen: dict):
        one = widgets.Button(description=name, layout={"width": "auto"})

        def press(_button) -> None:
            for key, value in chosen.items():
                controls[key].value = value

        one.on_click(press)
        return one

    buttons = [button(name, chosen) for name, chosen in (presets or {}).items()]
    buttons.append(button("reset", values()))
    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    dials = widgets.Box([*controls.values()], layout={"flex_flow": "row wrap"})
    return widgets.VBox([widgets.HBox(buttons), dials, image, line, command])


def order_dial(order: float, *, orders: tuple[float, ...] = ORDERS):
    """A slider over orders γ, evenly spaced in 1/γ*, from SL at its left to CCL at its right."""
    import ipywidgets as widgets

    known = sorted({*orders, order})
    return widgets.SelectionSlider(
        options=[(style.order_label(one), one) for one in known],
        value=order,
        description="order γ",
        continuous_update=True,
    )


def _slider(name: str, value: float, low: float, high: float, step: float):
    import ipywidgets as widgets

    return widgets.FloatSlider(
        value, min=low, max=high, step=step, description=name, readout_format=".2f"
    )


def _sorted(scores) -> np.ndarray:
    found = np.sort(np.asarray(scores, dtype=np.float64).ravel())
    return found[found > -math.inf]


def worst_case(
    sources: dict[str, np.ndarray],
    *,
    order: float = 2.0,
    radius: float = 1.0,
    temperature: float = 0.2,
    hold: str = "radius",
    shift: float = 0.0,
):
    """The worst case of a score vector: P against Q*, weight against score, β or τ marked.

    Args:
        sources: name -> (n,) scores, such as a user's negatives; -inf = masked.
        order: γ in [1, inf]. radius: ρ in nats. temperature: λ, score; `hold` says which of the
            two is held ("radius": the ball, "temperature": the penalty).
        shift: how far β (τ at order 1) is moved from its best value, score; the readout then has
            the duality gap.
    """
    import ipywidgets as widgets

    rows = {name: _sorted(scores) for name, scores in sources.items()}
    scene = scenes.worst_case_scene()
    most = math.log(max(map(len, rows.values())))

    def draw(order, radius, temperature, hold, shift, scores):
        row = rows[scores]
        f, ball = torch.from_numpy(row), hold == "radius"
        size = {"radius": radius} if ball else {"temperature": temperature}
        worst = dro.worst_case(f, order=order, **size)
        dual = float(worst.dual)
        rho = radius if ball else float(dro.radius_of_weights(worst.weights, order))
        said = {"value (score)": worst.value, ("τ" if order == 1 else "β") + " (score)": dual}
        said |= {"ρ (nats)": rho, "c": dro.weight_from_radius(rho, order)}
        if order < math.inf:
            said["η"] = dro.eta_from_radius(rho, order)
        said |= {"k₁ (× mean)": worst.k1, "truncated": f"{float(worst.truncated):.1%}"}
        said["effective share"] = f"{float(worst.effective_share):.1%}"
        ghost = None
        if ball and shift and math.isfinite(dual):
            ghost = max(dual + shift, 1e-6) if order == 1 else dual + shift
            bound = dro.dual_objective(f, ghost, order=order, radius=radius)
            said["duality gap (score)"] = bound - worst.value
        moved = {"scores": row, "weights": worst.weights.numpy(), "order": order}
        moved |= {"mark": None if order == 1 else dual, "ghost": None if order == 1 else ghost}
        moved["title_text"] = (
            f"Order {style.order_label(order)}: {float(worst.truncated):.0%} truncated, the top "
            f"negative is heard {float(worst.k1):.3g} times the mean"
        )
        return scene, moved, said

    return explore(
        draw,
        presets=PRESETS,
        parameters=("order", "radius"),
        order=order_dial(order),
        radius=_slider("radius ρ", radius, 0, math.ceil(20 * most) / 20, 0.05),
        temperature=_slider("temp. λ", temperature, 0.02, 2, 0.02),
        hold=widgets.ToggleButtons(options=["radius", "temperature"], value=hold),
        shift=_slider("move β by", shift, -0.5, 0.5, 0.02),
        scores=widgets.Dropdown(options=list(rows), description="scores"),
    )


def simplex(*, order: float = 2.0, radius: float = 0.3, angle: float = 70.0):
    """Three items: the balls of SL, DrRL and CCL on the triangle, and the worst case in each.

    The boundary of a ball is made of the worst cases of scores that rise in every direction.

    Args:
        order: γ in [1, inf], of the ball in the middle.
        radius: ρ in nats; beyond log 3 every ball is the whole triangle.
        angle: of the direction in which scores rise, degrees.
    """
    scene = scenes.simplex_scene()
    steps = torch.linspace(0, 2 * math.pi, 241, dtype=torch.float64)
    corners = torch.from_numpy(scenes.CORNERS)

    def scores_of(angles: torch.Tensor) -> torch.Tensor:  # of the items, rising in that direction
        return (torch.stack([angles.cos(), angles.sin()], -1) @ (corners - corners.mean(0)).T) / 2

    def draw(order, radius, angle):
        asked = torch.tensor([math.radians(angle)], dtype=torch.float64)
        f, balls, said = scores_of(torch.cat([steps, asked])), [], {}
        for name, one in (("KL", 1.0), ("Rényi", order), ("regret", math.inf)):
            worst = dro.worst_case(f, order=one, radius=radius)
            *rim, star = worst.weights.numpy() / 3
            balls.append((one, np.array(rim), star))
            said[f"value {name} (score)"] = worst.value[-1]
        title = f"Radius {radius:.2f} nats, the ball between: order {style.order_label(order)}"
        return scene, {"balls": balls, "scores": f[-1].numpy(), "title_text": title}, said

    return explore(
        draw,
        presets=PRESETS,
        parameters=("order", "radius"),
        order=order_dial(order),
        radius=_slider("radius ρ", radius, 0, 1.1, 0.02),
        angle=_slider("scores rise", angle, 0, 360, 5),
    )


def atlas(
    scores: np.ndarray, clouds: dict[str, dict[int, pd.DataFrame]] | None = None, *, epoch: int = 0
):
    """The plane order × radius of a score vector, and where trained losses lie on it.

    Args:
        scores: (n,) one user's negatives, for the contours; -inf = masked.
        clouds: loss -> epoch -> a row for each user, columns order and radius (nats), as
            `diagnose.radii_by_user` gives it.
        epoch: position of the first one shown among the epochs; negative counts from the end.
    """
    import ipywidgets as widgets

    row, clouds = torch.from_numpy(_sorted(scores)), clouds or {}
    orders = np.array([*ORDERS[:-1], 200.0, math.inf])
    radii = np.linspace(0.02, 0.95 * math.log(len(row)), 40)
    rows, sizes = row.expand(len(radii), -1), torch.from_numpy(radii)
    worst = [dro.worst_case(rows, order=one, radius=sizes) for one in orders]
    k1, truncated = (
        np.stack([getattr(one, name).numpy() for one in worst], 1) for name in ("k1", "truncated")
    )
    epochs = sorted({each for cloud in clouds.values() for each in cloud})
    scene = scenes.atlas_scene(orders, radii, k1, truncated, list(clouds))

    def draw(epoch):
        at = {loss: cloud[epoch] for loss, cloud in clouds.items() if epoch in cloud}
        said = {
            f"{style.label(loss)}: median ρ (nats)": cloud["radius"].median()
            for loss, cloud in at.items()
        }
        title = f"Where each loss's users lie, after epoch {epoch}" if clouds else "The atlas"
        return scene, {"clouds_at": at, "title_text": title}, said

    options = epochs or [0]
    slider = widgets.SelectionSlider(
        options=options, value=options[epoch], description="epoch", continuous_update=True
    )
    return explore(draw, epoch=slider)


def _mixed(ordinary: np.ndarray, false: np.ndarray, n: int, noise: float):
    """n scores, a share `noise` of them false: taken from the sorted scores at even steps.

    With n and `noise` as in the data these are the scores themselves.
    """
    few = round(noise * n)
    parts = [
        part[((np.arange(size) + 0.5) * len(part) / max(size, 1)).astype(int)]
        for part, size in ((ordinary, n - few), (false, few))
    ]
    return np.concatenate(parts), np.arange(n) >= n - few


def false_negatives(
    views: dict[str, pd.DataFrame], *, noise: float = 0.1, order: float = 2.0, radius: float = 1.0
):
    """The share of the weight that false negatives get, as their number grows, at one radius.

    Nothing is trained anew. The number of negatives stays; a share `noise` of them is false
    and the rest ordinary, each taken at even steps from the sorted scores of its kind.

    Args:
        views: name -> a row for each negative: score, false_negative (bool).
        noise: share of false negatives, in [0, 0.5].
        order: γ in [1, inf]; shown between SL and CCL. radius: ρ in nats, the same for all three.

    Raises:
        ValueError: a view without false negatives, or without others.
    """
    import ipywidgets as widgets

    rows = {}
    for name, view in views.items():
        kinds = [_sorted(view["score"][view["false_negative"] == kind]) for kind in (False, True)]
        if not all(map(len, kinds)):
            raise ValueError(
                f"view {name!r} needs negatives of both kinds: take a user with held-out positives"
            )
        rows[name] = kinds
    grid, scene = np.linspace(0, 0.5, 11), scenes.false_negatives_scene()

    def share(scores: np.ndarray, false: np.ndarray, order: float, radius: float):
        worst = dro.worst_case(torch.from_numpy(scores), order=order, radius=radius)
        return (worst.weights.numpy() * false).sum(-1) / scores.shape[-1], worst

    # Curves are drawn from fewer negatives, to save time; the readouts use all of them.
    @lru_cache(256)
    def curve(name: str, order: float, radius: float) -> np.ndarray:
        n = min(sum(map(len, rows[name])), 400)
        mixed = [_mixed(*rows[name], n, each) for each in grid]
        return share(*map(np.stack, zip(*mixed, strict=True)), order, radius)[0]

    @lru_cache(256)
    def end(name: str, noise: float, order: float, radius: float) -> float:
        n = min(sum(map(len, rows[name])), 2000)
        return share(*_mixed(*rows[name], n, noise), order, radius)[0]

    def draw(noise, order, radius, scores):
        row, false = _mixed(*rows[scores], sum(map(len, rows[scores])), noise)
        heard, worst = share(row, false, order, radius)
        orders = (1.0, order, math.inf)
        low, high = (end(scores, noise, one, radius) for one in (1.0, math.inf))
        said = {"noise": f"{false.mean():.1%}", "their weight": f"{heard:.1%}"}
        said |= {"SL": f"{low:.1%}", "CCL": f"{high:.1%}"}
        said["at most"] = f"{min(1, (false.mean() * math.exp(radius)) ** (1 - 1 / order)):.1%}"
        if false.any():
            said["k₂ (× mean)"] = heard / false.mean()
        said |= {"k₁ (× mean)": worst.k1, "truncated": f"{float(worst.truncated):.1%}"}
        moved = {"scores": row, "false": false, "weights": worst.weights.numpy(), "grid": grid}
        moved |= {"noise": false.mean(), "now": [low, heard, high]}
        moved["shares"] = [(one, curve(scores, one, radius)) for one in orders]
        moved["title_text"] = (
            f"Radius {radius:.2f} nats: {false.mean():.0%} false negatives draw "
            f"{heard:.0%} of the weight at order {style.order_label(order)}"
        )
        return scene, moved, said

    most = math.log(max(sum(map(len, kinds)) for kinds in rows.values()))
    return explore(
        draw,
        presets=PRESETS,
        parameters=("noise", "order", "radius"),
        noise=_slider("noise", noise, 0, 0.5, 0.01),
        order=order_dial(order),
        radius=_slider("radius ρ", radius, 0, math.ceil(20 * most) / 20, 0.05),
        scores=widgets.Dropdown(options=list(rows), description="scores"),
    )


HELD = {
    "radius": "radius ρ",
    "weight": "weight c (the paper's figures)",
    "eta": "Cressie–Read η (its text)",
    "temperature": "temperature λ (the penalty)",
}


def gamma_sweep(
    sources: dict[str, np.ndarray],
    *,
    order: float = 2.0,
    radius: float = 1.0,
    hold: str = "radius",
    recorded: pd.DataFrame | None = None,
    metric: str = "ndcg@20",
):
    """Truncation, skew, data use and recorded accuracy against the order, one size held fixed.

    Args:
        sources: name -> (n,) scores, such as a user's negatives; -inf = masked.
        order: γ in [1, inf]. radius: ρ in nats at order 2, where the size that is held is computed.
        hold: which size is held, one of `dro.HOLDS`.
        recorded: a row for each trained model, columns order, hold and `metric`; adds a panel.
        metric: the name of the accuracy.
    """
    import ipywidgets as widgets

    rows = {name: torch.from_numpy(_sorted(scores)) for name, scores in sources.items()}
    orders, names = np.array(ORDERS[::2] + ORDERS[-1:]), ("truncated", "k1", "effective_share")
    most = max(map(len, rows.values()))
    values = recorded[metric].dropna() if recorded is not None else pd.Series(dtype=float)
    ends = (float(values.min()), float(values.max())) if len(values) else None
    scene = scenes.sweep_scene(most, ends, f"recorded {metric.replace('ndcg', 'NDCG')}")

    @lru_cache(32)  # a whole curve is slow, one point on it is not
    def curve(name: str, radius: float, hold: str) -> dict[str, np.ndarray]:
        worst = [dro.turn(rows[name], order=one, radius=radius, hold=hold) for one in orders]
        return {key: np.array([float(getattr(one, key)) for one in worst]) for key in names}

    def draw(order, radius, hold, scores):
        worst = dro.turn(rows[scores], order=order, radius=radius, hold=hold)
        rho = float(dro.radius_of_weights(worst.weights, order))
        now = {name: float(getattr(worst, name)) for name in names}
        said = {"ρ (nats)": rho, "c": dro.weight_from_radius(rho, order)}
        if order < math.inf:
            said["η"] = dro.eta_from_radius(rho, order)
        said |= {"truncated": f"{now['truncated']:.1%}", "k₁ (× mean)": now["k1"]}
        said["effective share"] = f"{now['effective_share']:.1%}"
        moved = {"orders": orders, "order": order, "now": now}
        if ends:
            known = recorded[recorded["hold"] == hold].dropna(subset=metric).sort_values("order")
            moved["known"] = known["order"].to_numpy(), known[metric].to_numpy()
            here = known.loc[np.isclose(1 / known["order"], 1 / order), metric]
            said[metric] = f"{here.mean():.4f}" if len(here) else "not run"
        moved["held_at"] = curve(scores, radius, hold)
        moved["reference_at"] = curve(scores, radius, "radius")
        moved["title_text"] = (
            f"{HELD[hold].partition(' (')[0]} held, order {style.order_label(order)}: "
            f"{now['truncated']:.0%} truncated, {now['effective_share']:.0%} used"
        )
        return scene, moved, said

    sized = _slider("ρ at order 2", radius, 0.05, math.ceil(20 * math.log(most)) / 20, 0.05)
    sized.continuous_update = False
    return explore(
        draw,
        presets=PRESETS,
        parameters=("order", "radius", "hold"),
        order=order_dial(order),
        radius=sized,
        hold=widgets.Dropdown(
            options=[(words, name) for name, words in HELD.items()], value=hold, description="held"
        ),
        scores=widgets.Dropdown(options=list(rows), description="scores"),
    )


def _bounds(scores: torch.Tensor, margins: torch.Tensor, order: float, radius: float) -> np.ndarray:
    """(b, 2): each of the (b,) margins beside the bound it gives on one row of scores."""
    rows = scores.to(margins.dtype).expand(len(margins), -1)
    value = dro.dual_objective(rows, margins, order=order, radius=radius)
    return torch.stack([margins, value], 1).numpy()


def _shared_margin(scores: torch.Tensor, ball: dict, bounds: tuple[float, float]):
    """The one β for all users whose mean bound is least (`x`), and that bound (`fun`)."""
    return minimize_scalar(
        lambda beta: float(dro.dual_objective(scores, beta, **ball).mean()),
        bounds=bounds,
        method="bounded",
        options={"xatol": 1e-4},
    )


def margins(
    epochs: dict[int, tuple[np.ndarray, np.ndarray]],
    *,
    order: float,
    weight: float,
    negatives: int = 64,
    users: list | None = None,
    user: int = 0,
):
    """A user's bound β + c·‖(f-β)₊‖, the path of SGD on it and the exact β; beside it all users.

    Args:
        epochs: epoch -> scores (u, n) of users' negatives, -inf = masked (`diagnose.scores_of`),
            and the β (u,) that each had then.
        order: γ in (1, inf]. weight: c >= 1, dimensionless; as trained.
        negatives: N, how many a training row draws; the exact β of such rows can be shown too.
        users: their names; 0, 1, ... unless given.
        user: whose curve to start with, counted from zero.
    """
    import ipywidgets as widgets

    tables = {
        epoch: [torch.as_tensor(table).double() for table in pair]
        for epoch, pair in sorted(epochs.items())
    }
    scores, betas = (list(each) for each in zip(*tables.values(), strict=True))
    names = list(range(len(betas[0]))) if users is None else list(users)
    at_weight = {"order": order, "radius": dro.radius_from_weight(weight, order)}
    worst = [dro.worst_case(each, **at_weight) for each in scores]
    gaps = [
        float((dro.dual_objective(f, beta, **at_weight) - exact.value).mean())
        for f, beta, exact in zip(scores, betas, worst, strict=True)
    ]
    points = [torch.stack([w.dual, b], 1).numpy() for w, b in zip(worst, betas, strict=True)]
    seen = np.concatenate(points).ravel()
    low, high = (end(seen[np.isfinite(seen)]) for end in (np.min, np.max))
    shared = [_shared_margin(f, at_weight, (low, high)) for f in scores]
    low, high = low - 0.25, high + 0.25
    scene = scenes.margins_scene(low, high, weight=weight)
    grid = torch.linspace(low, high, 41)  # float32: exact enough to look at, and quicker

    def draw(user, epoch, solved_on, weight_now):
        at, ball = list(tables).index(epoch), dro.radius_from_weight(weight_now, order)
        whole = scores[at][user]
        whole = row = whole[whole > -math.inf]
        if solved_on:
            rng = np.random.default_rng(solved_on)
            row = whole[torch.from_numpy(rng.integers(len(whole), size=negatives))]
        exact = dro.worst_case(row, order=order, radius=ball)
        learnt, size = torch.stack([beta[user] for beta in betas[: at + 1]]), (order, ball)
        trail, curve = _bounds(row, learnt, *size), _bounds(row, grid, *size)
        moved = {"curve": curve, "trail": trail, "chosen": user, "users": points[at]}
        moved["whole"] = _bounds(whole, grid, *size) if solved_on else np.empty((0, 2))
        moved |= {"best": (float(exact.dual), float(exact.value)), "shared": shared[at].x}
        moved["title_text"] = (
            f"User {names[user]}, epoch {epoch}, {len(row)} negatives, c = {weight_now:g}"
        )
        said = {"learnt β (score)": trail[-1, 0], "exact β (score)": exact.dual}
        said |= {"worst case (score)": exact.value, "gap (score)": trail[-1, 1] - exact.value}
        said["mean gap (score)"] = gaps[at]
        said["at one β for all (score)"] = shared[at].fun - float(worst[at].value.mean())
        return scene, moved, said

    rows = [("all negatives", 0), *((f"row {i} of {negatives}", i) for i in range(1, 21))]
    return explore(
        draw,
        presets={"c = 1": {"weight_now": 1.0}},
        user=widgets.IntSlider(user, 0, len(names) - 1, description="user"),
        epoch=widgets.SelectionSlider(options=list(tables), value=max(tables), description="epoch"),
        solved_on=widgets.SelectionSlider(options=rows, description="solved on"),
        weight_now=_slider("weight c", weight, 1, max(4, 2 * weight), 0.05),
    )


def monitor(train: Callable, *, title: str = "Training"):
    """Train, with live curves and a button that stops it where widgets are shown.

    The button works at the end of an epoch, with JupyterLab >= 4.4 and ipykernel >= 7, which handle
    messages on another thread than cells. Elsewhere interrupt the kernel, which stops as cleanly.
    Either way the best model so far is returned, and a run of `store.get_or_train` continues from
    there the next time.

    Args:
        train: called with `on_epoch`; trains, and returns an object with a `fit.history`; such as
            `lambda on_epoch: get_or_train(run, on_epoch=on_epoch, progress=False)`.
        title: over the picture.

    Returns:
        What `train` returns. Without a front end it trains, and shows one picture at the end.
        What `train` raises is shown, and raised.
    """
    from IPython.display import display

    if not interactive():
        outcome = train(on_epoch=None)
        display(style.show(figures.training_history(outcome.fit.history, title=title)))
        return outcome

    import ipywidgets as widgets

    image, line, asked = widgets.Image(format="png"), widgets.HTML(), threading.Event()
    button = widgets.Button(description="Stop", icon="stop", button_style="danger")
    button.layout.width = "auto"
    rows, pause = [], [0.0, 0.0]  # when the last picture was ready, how long it took

    def stop(_button) -> None:
        button.disabled, button.description = True, "stops after this epoch"
        asked.set()  # last, so that the text at the training's end stays

    def draw(history: pd.DataFrame) -> None:
        start = time.perf_counter()
        try:
            with _DRAWING:
                image.value = style.png(figures.training_history(history, title=title))
        except Exception as error:  # a picture is no reason to end a training
            line.value = _red(error)
        pause[:] = time.perf_counter(), time.perf_counter() - start

    def after_epoch(row: dict) -> bool:
        rows.append(dict(row))
        if time.perf_counter() - pause[0] > 9 * pause[1]:  # a tenth of the time for pictures
            draw(pd.DataFrame(rows))
        return asked.is_set()

    button.on_click(stop)
    # ipykernel 7.4 sends a comm's messages to whichever shell last wrote to it: here the one that
    # is about to be busy. Without that note they come on the front end's own subshell.
    vars(button.comm).pop("_reply_subshell_id", None)
    draw(pd.DataFrame())
    pause[:] = 0.0, 0.0  # forget the first, empty picture, which takes longer
    display(widgets.VBox([button, image, line]))
    try:
        outcome = train(on_epoch=after_epoch)
    except BaseException as error:
        line.value = _red(error)
        raise
    finally:
        button.disabled = True
    history = outcome.fit.history
    draw(history)
    ended = "stopped" if asked.is_set() else "done"
    button.description = f"{ended} after {len(history)} epochs"
    return outcome
