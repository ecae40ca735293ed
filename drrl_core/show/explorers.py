"""Explorers: dials and a picture in the browser, the still picture where no browser moves it.

Each is an `Explorer`, an anywidget around a module of `live`. The dials are its traits: they can be
read, and set, `view.order = 2`. Executed in batch it leaves its still picture, and beside it what
an exported page needs to be alive.
"""

import base64
import io
import itertools
import math
import os
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl

import anywidget
import numpy as np
import pandas as pd
import torch
import traitlets
from matplotlib.figure import Figure
from scipy.optimize import minimize_scalar

from drrl_core import dro
from drrl_core.show import figures, live, stills, style, words

# Set by the front ends that can show widgets: Jupyter servers, Voilà, VS Code, Colab, Kaggle.
FRONT_ENDS = ("JPY_SESSION_NAME", "SERVER_SOFTWARE", "VSCODE_PID", "COLAB_RELEASE_TAG")
# A dial that turns evenly from SL to CCL: 1/γ* = 1 - 1/γ in steps of 1/40.
ORDERS = (*(40 / (40 - step) for step in range(40)), math.inf)


def interactive() -> bool:
    """Whether a front end that shows widgets is known to be there.

    Under papermill and nbconvert none is, and a widget would be left as a broken placeholder.
    """
    return any(os.environ.get(name) for name in FRONT_ENDS)


def _number(value: Any) -> Any:
    """A number that stands as text, as in an address."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


class Number(traitlets.Float):
    """A number of a dial; infinity travels as text, and what is not in the range is refused."""

    def __init__(self, value: float, low: float = -math.inf, high: float = math.inf):
        super().__init__(float(value))
        self.low, self.high = low, high
        self.tag(
            to_json=lambda now, _: live.sent(now),
            from_json=lambda now, _: float(now),
        )

    def validate(self, obj: Any, value: Any) -> float:
        """The value as a float.

        Raises: TraitError: no number, NaN, or outside the range.
        """
        number = super().validate(obj, _number(value))
        if not self.low <= number <= self.high:
            raise traitlets.TraitError(
                f"{self.name} must lie in [{self.low:g}, {self.high:g}], got {value}"
            )
        return number


class Explorer(anywidget.AnyWidget):
    """Dials beside a picture. Each dial is a trait: read it, set it, `observe` it.

    Args:
        name: of the module in `live`.
        still: draws the picture for where nothing moves; called with the explorer.
        data: what the module reads; JSON without infinities. An executed notebook sorts the keys of
            its objects: what has an order is a list.
        view: where the dials stand at first, as a page's address and the line under an explorer of
            a notebook have it: `name.dial=value&...`; what is of other explorers is left to them.
            None: no notebook, and no such line.
        **dials: name -> trait.

    Raises: traitlets.TraitError: a dial that there is not, or a value outside its range.

    >>> view = simplex(view="simplex.order=1.5&atlas.epoch=3")
    >>> view.order
    1.5
    >>> view.order = 2
    >>> view.order, view.radius
    (2.0, 0.3)
    >>> view.order = 0.5
    Traceback (most recent call last):
    traitlets.traitlets.TraitError: order must lie in [1, inf], got 0.5
    """

    _css = live.STYLE
    data = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        name: str,
        still: Callable[[Any], Figure],
        data: dict[str, Any],
        view: str | None = None,
        **dials: traitlets.TraitType,
    ):
        self.explorer, self._still, self._dials = name, still, list(dials)
        script = traitlets.Unicode(live.source(name))
        self.add_traits(
            _esm=script.tag(sync=True), **{key: each.tag(sync=True) for key, each in dials.items()}
        )
        super().__init__(data=data | {"notebook": view is not None})
        given = {key: getattr(self, key) for key in dials}
        for place, text in parse_qsl(view or ""):
            whose, _, key = place.rpartition(".")
            if whose == name and key not in given:
                raise traitlets.TraitError(f"{name} has no dial {key!r}: {', '.join(given)}")
            if whose == name:
                known = getattr(dials[key], "values", None) or ()  # of a menu
                given[key] = next((one for one in known if str(one) == text), text)
        for key, value in given.items():
            self.set_trait(key, value)  # a first value is checked like any other

    def open(self) -> None:
        """Tell the front end of the widget, where there is one."""
        if interactive():
            super().open()

    def state(self) -> dict[str, Any]:
        """What a page without a server needs: `live.element(view.explorer, **view.state())`."""
        dials = {key: live.sent(getattr(self, key)) for key in self._dials}
        return {"data": self.data} | dials

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict, dict] | None:
        if interactive():
            return super()._repr_mimebundle_(**options)
        picture = self._still(self)
        shown = {"name": self.explorer, "state": self.state()}
        return {
            "image/png": base64.b64encode(style.png(picture)).decode(),
            "text/plain": f"<explorer {self.explorer}>",
            live.MIME: shown,
        }, {"image/png": {"width": int(picture.get_figwidth() * 90), "alt": words.seen(picture)}}


def _plain(scores: Any) -> list[float]:
    """Unmasked scores with seven digits, as JSON has them."""
    found = np.asarray(scores, dtype=np.float64).ravel()
    return [float(f"{score:.7g}") for score in found[found > -math.inf]]


def _sorted(scores: Any) -> torch.Tensor:
    return torch.tensor(sorted(_plain(scores)), dtype=torch.float64)


def _choice(options: Sequence, value: Any = None) -> traitlets.Enum:
    """A menu; the first of the options unless another is given."""
    return traitlets.Enum(list(options), default_value=options[0] if value in (None, "") else value)


def worst_case(
    sources: dict[str, np.ndarray],
    *,
    order: float = 2.0,
    radius: float = 1.0,
    temperature: float = 0.2,
    hold: str = "radius",
    shift: float = 0.0,
    scores: str | None = None,
    view: str | None = None,
) -> Explorer:
    """The worst case of a score vector: P against Q*, weight against score, β or τ marked.

    Args:
        sources: name -> (n,) scores, such as a user's negatives; -inf = masked.
        order: γ in [1, inf]. radius: ρ in nats. temperature: λ, score; `hold` says which of the
            two is held ("radius": the ball, "temperature": the penalty).
        shift: how far β (τ at order 1) is moved from its best value, score; the readout then has
            the duality gap.
        scores: which of the sources is shown first. view: as for `Explorer`.
    """
    data = {"sources": [[name, _plain(row)] for name, row in sources.items()]}
    dials = {
        "order": Number(order, 1),
        "radius": Number(radius, 0),
        "temperature": Number(temperature, 1e-3),
        "hold": _choice(("radius", "temperature"), hold),
        "shift": Number(shift),
        "scores": _choice(list(sources), scores),
    }

    def still(now: Any) -> Figure:
        f, order = _sorted(sources[now.scores]), now.order
        size = {now.hold: getattr(now, now.hold)}
        if now.hold == "temperature" and order == math.inf:
            size = {"radius": 0.0}  # the penalty's limit: the mean
        worst = dro.worst_case(f, order=order, **size)
        mark = None if order == 1 else float(worst.dual)
        title = (
            f"Order {style.order_label(order)}: {float(worst.truncated):.0%} truncated, the top "
            f"negative is heard {float(worst.k1):.3g} times the mean"
        )
        return stills.worst_case(
            f.numpy(), worst.weights.numpy(), order=order, mark=mark, title=title
        )

    return Explorer("worst_case", still, data, view, **dials)


def simplex(
    *,
    order: float = 2.0,
    radius: float = 0.3,
    angle: float = 70.0,
    view: str | None = None,
) -> Explorer:
    """Three items: the balls of SL, DrRL and CCL on the triangle, and the worst case in each.

    The boundary of a ball is made of the worst cases of scores that rise in every direction.

    Args:
        order: γ in [1, inf], of the ball in the middle.
        radius: ρ in nats; beyond log 3 every ball is the whole triangle.
        angle: of the direction in which scores rise, degrees. view: as for `Explorer`.
    """

    def still(now: Any) -> Figure:
        steps = torch.linspace(0, 2 * math.pi, 241, dtype=torch.float64)
        angles = torch.cat([steps, torch.tensor([math.radians(now.angle)])])
        corners = torch.from_numpy(stills.CORNERS)
        f = (torch.stack([angles.cos(), angles.sin()], -1) @ (corners - corners.mean(0)).T) / 2
        balls = {}
        names = {"Kullback–Leibler (SL)": 1.0, "Rényi (DrRL)": now.order, "regret (CCL)": math.inf}
        for name, one in names.items():
            *rim, star = dro.worst_case(f, order=one, radius=now.radius).weights.numpy() / 3
            balls[name] = one, np.array(rim), star
        between = style.order_label(now.order)
        title = f"Radius {now.radius:.2f} nats, the ball between: order {between}"
        return stills.simplex(balls, f[-1].numpy(), title=title)

    dials = {"order": Number(order, 1), "radius": Number(radius, 0), "angle": Number(angle, 0, 360)}
    return Explorer("simplex", still, {}, view, **dials)


def atlas(
    scores: np.ndarray,
    clouds: dict[str, dict[int, pd.DataFrame]] | None = None,
    *,
    epoch: int = 0,
    order: float = 2.0,
    radius: float = 1.0,
    view: str | None = None,
) -> Explorer:
    """The plane order × radius of a score vector, and where trained losses lie on it.

    Args:
        scores: (n,) one user's negatives, for the contours; -inf = masked.
        clouds: loss -> epoch -> a row for each user, columns order and radius (nats), as
            `diagnose.radii_by_user` gives it.
        epoch: position of the first one shown among the epochs; negative counts from the end.
        order, radius: γ and ρ (nats) of the point whose worst case is read out.
        view: as for `Explorer`.
    """
    row, clouds = _sorted(scores), clouds or {}
    orders = np.array([*ORDERS[:-1], 200.0, math.inf])
    radii = np.linspace(0.02, 0.95 * math.log(len(row)), 40)
    rows, sizes = row.expand(len(radii), -1), torch.from_numpy(radii)
    worst = [dro.worst_case(rows, order=one, radius=sizes) for one in orders]
    k1, truncated = (
        np.stack([getattr(one, name).numpy() for one in worst], 1) for name in ("k1", "truncated")
    )
    shades, lines = stills.contours(1 - 1 / orders, radii, k1, truncated)
    rng = np.random.default_rng(0)  # a fixed seed: spread users of one order sideways

    def points(cloud: pd.DataFrame) -> np.ndarray:
        found = cloud[["order", "radius"]].dropna().to_numpy()
        return np.c_[1 - 1 / found[:, 0] + rng.normal(0, 0.008, len(found)), found[:, 1]]

    epochs = sorted({each for cloud in clouds.values() for each in cloud})
    at = {
        each: {loss: points(cloud[each]) for loss, cloud in clouds.items() if each in cloud}
        for each in epochs
    }
    short = lambda points: np.round(points, 4).tolist()  # noqa: E731
    data = {
        "scores": _plain(scores),
        "highest": float(radii[-1]),
        "shades": [[short(ring) for ring in rings] for rings in shades],
        "contours": [[level, [short(line) for line in each]] for level, each in lines.items()],
        "losses": [
            (loss, {"label": style.label(loss), "colour": style.colour(loss)}) for loss in clouds
        ],
        "clouds": {
            each: {loss: short(cloud) for loss, cloud in found.items()}
            for each, found in at.items()
        },
    }
    dials = {"order": Number(order, 1), "radius": Number(radius, 0)}
    if epochs:
        dials["epoch"] = _choice(epochs, epochs[epoch])

    def still(now: Any) -> Figure:
        title = f"Where each loss's users lie, after epoch {now.epoch}" if at else "The atlas"
        shown = at[now.epoch] if at else {}
        return stills.atlas(shades, lines, shown, highest=radii[-1], title=title)

    return Explorer("atlas", still, data, view, **dials)


def _mixed(ordinary: np.ndarray, false: np.ndarray, n: int, noise: float):
    """n scores, a share `noise` of them false: taken from the sorted scores at even steps.

    With n and `noise` as in the data these are the scores themselves.
    """
    few = math.floor(noise * n + 0.5)
    parts = [
        part[((np.arange(size) + 0.5) * len(part) / max(size, 1)).astype(int)]
        for part, size in ((ordinary, n - few), (false, few))
    ]
    return np.concatenate(parts), np.arange(n) >= n - few


def false_negatives(
    views: dict[str, pd.DataFrame],
    *,
    noise: float = 0.1,
    order: float = 2.0,
    radius: float = 1.0,
    scores: str | None = None,
    view: str | None = None,
) -> Explorer:
    """The share of the weight that false negatives get, as their number grows, at one radius.

    Nothing is trained anew. The number of negatives stays; a share `noise` of them is false
    and the rest ordinary, each taken at even steps from the sorted scores of its kind.

    Args:
        views: name -> a row for each negative: score, false_negative (bool).
        noise: share of false negatives, in [0, 0.5].
        order: γ in [1, inf]; shown between SL and CCL. radius: ρ in nats, the same for all three.
        scores: which of the views is shown first. view: as for `Explorer`.

    Raises:
        ValueError: a view without false negatives, or without others.
    """
    data = {}
    for name, rows in views.items():
        kinds = [rows["score"][rows["false_negative"] == kind] for kind in (False, True)]
        data[name] = dict(zip(("ordinary", "wrong"), map(_plain, kinds), strict=True))
        if not all(data[name].values()):
            raise ValueError(
                f"view {name!r} needs negatives of both kinds: take a user with held-out positives"
            )
    dials = {
        "noise": Number(noise, 0, 0.5),
        "order": Number(order, 1),
        "radius": Number(radius, 0),
        "scores": _choice(list(data), scores),
    }

    def still(now: Any) -> Figure:
        kinds = [np.sort(kind) for kind in data[now.scores].values()]
        n = sum(map(len, kinds))

        def heard(n: int, noise: float, order: float):
            row, false = _mixed(*kinds, n, noise)
            worst = dro.worst_case(torch.from_numpy(row), order=order, radius=now.radius)
            weights = worst.weights.numpy()
            return row, false, weights, float(weights[false].sum()) / n

        grid, least = np.linspace(0, 0.5, 11), min(n, 400)
        curves = {
            one: (grid, np.array([heard(least, each, one)[3] for each in grid]))
            for one in (1.0, now.order, math.inf)
        }
        *row, share = heard(n, now.noise, now.order)
        title = (
            f"Radius {now.radius:.2f} nats: {row[1].mean():.0%} false negatives draw "
            f"{share:.0%} of the weight at order {style.order_label(now.order)}"
        )
        return stills.false_negatives(*row, curves, title=title)

    return Explorer("false_negatives", still, {"views": [*data.items()]}, view, **dials)


def gamma_sweep(
    sources: dict[str, np.ndarray],
    *,
    order: float = 2.0,
    radius: float = 1.0,
    hold: str = "radius",
    scores: str | None = None,
    recorded: pd.DataFrame | None = None,
    metric: str = "ndcg@20",
    view: str | None = None,
) -> Explorer:
    """Truncation, skew, data use and recorded accuracy against the order, one size held fixed.

    Args:
        sources: name -> (n,) scores, such as a user's negatives; -inf = masked.
        order: γ in [1, inf]. radius: ρ in nats at order 2, where the size that is held is computed.
        hold: which size is held, one of `dro.HOLDS`. scores: which source is shown first.
        recorded: a row for each trained model, columns order, hold and `metric`; adds a panel.
        metric: the name of the accuracy. view: as for `Explorer`.
    """
    data: dict[str, Any] = {"sources": [[name, _plain(row)] for name, row in sources.items()]}
    data["metric"] = style.metric_label(metric)
    if recorded is not None:
        known = recorded.dropna(subset=metric)
        data["recorded"] = [
            {"order": live.sent(float(one)), "hold": how, "value": float(value)}
            for one, how, value in zip(known["order"], known["hold"], known[metric], strict=True)
        ]
    dials = {
        "order": Number(order, 1),
        "radius": Number(radius, 0),
        "hold": _choice(dro.HOLDS, hold),
        "scores": _choice(list(sources), scores),
    }

    def still(now: Any) -> Figure:
        f, orders = _sorted(sources[now.scores]), np.array(ORDERS[::2])
        names = ("truncated", "k1", "effective_share")

        def curve(how: str) -> dict[str, np.ndarray]:
            worst = [dro.turn(f, order=one, radius=now.radius, hold=how) for one in orders]
            return {name: np.array([float(getattr(one, name)) for one in worst]) for name in names}

        worst = dro.turn(f, order=now.order, radius=now.radius, hold=now.hold)
        told = f"{float(worst.truncated):.0%} truncated"
        about = {"title": f"{now.hold} held, order {style.order_label(now.order)}: {told}"}
        about |= {"order": now.order, "metric": data["metric"]}
        if recorded is not None:
            rows = known[known["hold"] == now.hold].sort_values("order")
            about["recorded"] = rows["order"].to_numpy(), rows[metric].to_numpy()
        return stills.gamma_sweep(curve(now.hold), curve("radius"), orders, **about)

    return Explorer("gamma_sweep", still, data, view, **dials)


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
    curves: int = 24,
    view: str | None = None,
) -> Explorer:
    """A user's bound β + c·‖(f-β)₊‖, the path of SGD on it and the exact β; beside it all users.

    Args:
        epochs: epoch -> scores (u, n) of users' negatives, -inf = masked (`diagnose.scores_of`),
            and the β (u,) that each had then.
        order: γ in (1, inf]. weight: c >= 1, dimensionless; as trained.
        negatives: N, how many a training row draws; the exact β of such rows can be shown too.
        users: their names; 0, 1, ... unless given.
        user: whose curve to start with, counted from zero among those that have one.
        curves: how many of the users have a curve, evenly spread; all are among the dots.
        view: as for `Explorer`.
    """
    at_weight = {"order": order, "radius": dro.radius_from_weight(weight, order)}
    tables = {
        epoch: [torch.as_tensor(table).double() for table in pair]
        for epoch, pair in sorted(epochs.items())
    }
    worst = {epoch: dro.worst_case(f, **at_weight) for epoch, (f, _) in tables.items()}
    seen = np.concatenate([np.r_[worst[epoch].dual, tables[epoch][1]] for epoch in tables])
    seen = seen[np.isfinite(seen)]
    low, high = float(seen.min()), float(seen.max())
    total = len(tables[min(tables)][1])
    chosen = np.unique(np.linspace(0, total - 1, min(curves, total)).astype(int)).tolist()
    found = []
    for epoch, (f, beta) in tables.items():
        exact = worst[epoch]
        best = _shared_margin(f, at_weight, (low, high))
        gap = float((dro.dual_objective(f, beta, **at_weight) - exact.value).mean())
        one = {"epoch": epoch, "gap": gap, "shared": float(best.x)}
        one |= {"cost": float(best.fun) - float(exact.value.mean()), "learnt": beta.tolist()}
        one["exact"] = [each if math.isfinite(each) else None for each in exact.dual.tolist()]
        found.append(one | {"scores": [_plain(f[each]) for each in chosen]})
    names = list(range(total)) if users is None else list(users)
    data = {"order": live.sent(order), "weight": weight, "negatives": negatives, "epochs": found}
    data |= {"low": low - 0.25, "high": high + 0.25}
    data["users"] = [{"name": str(names[each]), "place": each} for each in chosen]

    def still(now: Any) -> Figure:
        place, last, order = chosen[now.user], now.epoch, at_weight["order"]
        ball = {"order": order, "radius": dro.radius_from_weight(now.weight, order)}
        f, exact = tables[last][0][place], worst[last]
        own = dro.worst_case(f, **ball)

        def bounds(betas: torch.Tensor) -> np.ndarray:
            value = dro.dual_objective(f.expand(len(betas), -1), betas, **ball)
            return torch.stack([betas, value], 1).numpy()

        grid = torch.linspace(data["low"], data["high"], 41, dtype=torch.float64)
        past = [beta[place] for epoch, (_, beta) in tables.items() if epoch <= last]
        best = float(own.dual), float(own.value)
        points = torch.stack([exact.dual, tables[last][1]], 1).numpy()
        shared = next(one["shared"] for one in found if one["epoch"] == last)
        title = f"User {names[place]}, epoch {last}, c = {now.weight:g}"
        trail = bounds(torch.stack(past))
        return stills.margins(bounds(grid), trail, best, shared, points, title=title)

    dials = {
        "user": _choice(range(len(chosen)), user),
        "epoch": _choice(list(tables), max(tables)),
        "row": _choice(range(21)),
        "weight": Number(weight, 1),
    }
    return Explorer("margins", still, data, view, **dials)


def popularity(
    worlds: dict[str, dict[str, pd.DataFrame]],
    *,
    b: float = 0.0,
    where: str | None = None,
    metric: str = "ndcg@20",
    view: str | None = None,
) -> Explorer:
    """Accuracy over popularity and over coverage, a curve a loss, as b turns for all of them.

    Args:
        worlds: data set -> loss -> a table as of `train.popularity.curve`, the index its b; at
            least one loss in each.
        b: how strongly popularity is put back, between the least and the largest there is; between
            two that were ranked it is drawn on the line between them.
        where: the data set shown first. metric: as in the columns' names. view: as for `Explorer`.
    """
    names = {
        "popular": "mean_popularity",
        "covers": "coverage",
        "accuracy": f"test_{metric}",
    }

    def points(turned: pd.DataFrame) -> list[dict[str, float]]:
        rows = turned.sort_index().rename_axis("b").reset_index()
        found = rows[["b", *names.values()]].set_axis(["b", *names], axis=1)
        return [
            {key: float(f"{x:.6g}") for key, x in row.items()} for row in found.to_dict("records")
        ]

    losses = style.in_order({loss for curves in worlds.values() for loss in curves})
    ends = [float(x) for curves in worlds.values() for each in curves.values() for x in each.index]
    data = {
        "metric": style.metric_label(metric),
        "low": min(ends),
        "high": max(ends),
        "losses": [
            (one, {"label": style.label(one), "colour": style.colour(one)}) for one in losses
        ],
        "worlds": [
            (name, [(loss, points(turned)) for loss, turned in curves.items()])
            for name, curves in worlds.items()
        ],
    }

    def still(now: Any) -> Figure:
        title = f"Test {data['metric']} as popularity is put back"
        return figures.accuracy_as_b_turns(
            {now.where: worlds[now.where]}, title=title, metric=metric
        )

    dials = {"b": Number(b, min(ends), max(ends)), "where": _choice(list(worlds), where)}
    return Explorer("popularity", still, data, view, **dials)


def album(
    draw: Callable[..., Figure],
    *,
    first: dict[str, Any] | None = None,
    view: str | None = None,
    **choices: Sequence,
) -> Explorer:
    """Pictures of a figure, one for each setting of some dials; all are drawn beforehand.

    Args:
        draw: called with one keyword argument for each choice; returns a Figure.
        first: choice -> the value shown first [default: its first one]. view: as for `Explorer`.
        **choices: name -> its values: numbers give a dial, anything else a menu, in which a pair
            stands as its parts.
    Returns: an `Explorer`.

    >>> view = album(lambda n: style.new_figure(n, 1)[0], n=[1, 2, 3], first={"n": 2})
    >>> view.n
    2
    """
    said = {name: [_words(value) for value in values] for name, values in choices.items()}
    drawn = []
    for setting in itertools.product(*choices.values()):
        buffer, figure = io.BytesIO(), draw(**dict(zip(choices, setting, strict=True)))
        figure.savefig(buffer, format="webp", dpi=110)
        picture = base64.b64encode(buffer.getvalue()).decode()
        drawn.append((f"data:image/webp;base64,{picture}", words.seen(figure)))
    data = {"choices": [*said.items()], "pictures": drawn}

    def still(now: Any) -> Figure:
        at = {name: said[name].index(getattr(now, name)) for name in choices}
        return draw(**{name: choices[name][place] for name, place in at.items()})

    start = {name: values[0] for name, values in choices.items()} | (first or {})
    dials = {name: _choice(said[name], _words(start[name])) for name in choices}
    return Explorer("album", still, data, view, **dials)


def _words(value: Any) -> Any:
    if isinstance(value, int | float | np.number):
        return getattr(value, "item", lambda: value)()
    return " · ".join(map(str, value)) if isinstance(value, tuple) else str(value)
