"""What a trained loss listens to: where its weight goes, user by user, over all their negatives.

A user's negatives are all items without a train pair, not the few that a step samples.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from drrl_core import dro, losses
from drrl_core.datasets import Interactions
from drrl_core.train import metrics
from drrl_core.train.step import tables

DIAGNOSTICS = ("truncated", "k1", "k2", "effective_share", "mass", "beta", "gap")
# A column of weights of false negatives -> the split whose positives they are; None: the best known
FALSE_NEGATIVES = {"k2": None, "k2_test": "test"}
TILE = 2**22  # scores of a few users at a time: arrays of 16 MiB


class Trained(Protocol):
    """A trained model and what it was trained with; the trained of a run is one."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def loss(self) -> nn.Module: ...

    @property
    def data(self) -> Interactions: ...

    @property
    def similarity(self) -> str:
        """ "cosine" or "dot"."""

    @property
    def negatives(self) -> int:
        """How many an example had."""


def diagnostics(
    model: nn.Module,
    loss: nn.Module,
    data: Interactions,
    similarity: str = "cosine",
    *,
    users: int = 100,
) -> dict[str, float]:
    """Where a loss's weight goes, over all negatives of some users; each value their mean.

    A user's negatives are all items without a train pair, not the few that a step samples.

    Args:
        model, loss, data: as in `train.fit`; trained, or half way.
        similarity: "cosine" or "dot".
        users: over how many, see `askable`.

    Returns:
        truncated, the share of the negatives with weight zero; over the users whose negatives are
        not all truncated, k1, the largest weight, and k2, the mean weight of a false negative (both
        over the mean weight), and effective_share, 1 / mean(w²); mass, how hard the negatives are
        pushed for each unit of pull, see `losses.mass`; of DrRL, beta (score; the optimum
        where it is exact, at order 1 τ) and gap (score), by how much the bound that the loss takes
        at its β exceeds the worst case that it bounds; NaN where c < 1, as no ball is bounded. NaN
        where no user has what is asked for.

    >>> from drrl_core.lab.run import configure, execute
    >>> trained = execute(configure("synthetic", config={"epochs": 1}), progress=False)
    >>> diagnostics(trained.model, trained.loss, trained.data)["truncated"]
    0.0
    """
    known = askable(data, users)
    found = _by_user(model, loss, data, similarity, known).drop(columns="k2_test")
    return {str(name): float(value) for name, value in found.mean().items()}


def by_user(trained: Trained, *, users: int | None = None) -> pd.DataFrame:
    """Whom a trained loss listens to, user by user: what `diagnostics` takes the mean of.

    Args:
        users: how many, evenly spread over those with a train pair; all when None.

    Returns:
        A row a user: the columns of `diagnostics`, and k2_test, the mean weight of the user's test
        positives over the mean weight. NaN in k2 and k2_test where a user has no such item, and in
        k1, k2, k2_test and effective_share where all the user's negatives are truncated.

    Source: k1 and k2_test are the columns of Table 1 of 'Advancing Loss Functions in Recommender
    Systems', AAAI 2025, where their means over the users stand.

    >>> from drrl_core.lab.run import configure, execute
    >>> trained = execute(configure("synthetic", config={"epochs": 1}), progress=False)
    >>> by_user(trained, users=5).shape
    (5, 6)
    """
    known = _some_users(trained.data, users)
    return _by_user(*_parts(trained), known)


def _by_user(
    model: nn.Module,
    loss: nn.Module,
    data: Interactions,
    similarity: str,
    users: np.ndarray,
) -> pd.DataFrame:
    own = DIAGNOSTICS if isinstance(loss, losses.DrRL) else DIAGNOSTICS[:5]
    columns = [*own, "k2_test"]
    rows = [pd.DataFrame(columns=columns, dtype=float)]
    for some, scores, weights, mass in _listening(model, loss, data, similarity, users):
        kept, weights = scores > -math.inf, weights.double()
        count, heard = kept.sum(-1), (weights != 0).any(-1)
        row = {
            "truncated": ((weights == 0) & kept).sum(-1) / count.double(),
            "k1": weights.masked_fill(~kept, -math.inf).amax(-1),
            "effective_share": count / weights.square().sum(-1),
            "mass": mass,
        }
        for name, split in FALSE_NEGATIVES.items():
            false = torch.from_numpy(false_negatives(data, some, split)).to(scores.device)
            row[name] = (weights * false).sum(-1) / false.sum(-1)
        for name in ("k1", "k2", "k2_test", "effective_share"):  # of nobody's weights: no mean
            row[name] = row[name].where(heard, math.nan)
        if isinstance(loss, losses.DrRL):
            row["beta"], row["gap"] = _duals(loss, scores, some, data)
        found = {name: row[name].cpu().numpy() for name in columns}
        rows.append(pd.DataFrame(found, index=some))
    return pd.concat(rows[1:] or rows).rename_axis("user")


@torch.no_grad()
def _duals(
    loss: losses.DrRL, scores: Tensor, users: np.ndarray, data: Interactions
) -> tuple[Tensor, Tensor]:
    """Each user's β and duality gap on its scores, -inf = masked; float64, score."""
    scores, index = scores.double(), torch.from_numpy(users).to(scores.device)
    family: dict[str, Any] = {**loss.hyper}
    family.pop("epsilon", None)
    ball = family.pop("weight", 1.0)
    if ball >= 1:
        if not family.keys() & {"radius", "temperature"}:
            family["radius"] = dro.radius_from_weight(ball, family["order"])
        batch = losses.Batch(index, index, **_all_items(data, scores.device))
        ones, prior = scores.new_ones(len(scores)), None  # 1 - pos is zero
        if loss.prior:
            prior = losses.log_prior(ones, scores, batch, loss.prior).exp()
        worst = dro.worst_case(scores, prior=prior, **family)
        bound = loss(ones, scores, batch)
        gap = bound / loss.push - worst.value
    else:
        gap = scores.new_full(index.shape, math.nan)
    if loss.dual == "exact":
        return worst.dual, gap
    beta = loss.beta.double()
    return beta[index] if len(beta) > 1 else beta.expand(len(index)), gap


def attention(trained: Trained, *, users: int = 200) -> dict[str, float]:
    """Where a trained loss's weight goes, averaged over users: k1, k2 and truncated.

    Args:
        users: over how many, see `askable`.

    Returns:
        As `diagnostics`, whose first three they are.
    """
    found = diagnostics(*_parts(trained), users=users)
    return {name: found[name] for name in ("k1", "k2", "truncated")}


def negatives_of(trained: Trained, user: int) -> pd.DataFrame:
    """A user's negatives, all the items without a train pair, as the trained loss sees them.

    The weight is the gradient of the user's mean loss over the train positives, scaled to mean 1.

    Args:
        user: an index, with at least one train pair.

    Returns:
        A row a negative, indexed by item: score, weight (probability ratio), false_negative.
    """
    data = trained.data
    if not len(data.train[[user]].indices):
        raise ValueError(f"user {user} has no train pair: choose one that has")
    ((_, scores, weights, _),) = _listening(*_parts(trained), np.array([user]))
    columns = {
        "score": scores[0].cpu(),
        "weight": weights[0].cpu(),
        "false_negative": false_negatives(data, user),
    }
    view = pd.DataFrame(columns, index=pd.RangeIndex(data.n_items, name="item"))
    return view[view["score"] > -math.inf]


def negative_scores(trained: Trained, *, negatives: int, users: int = 100) -> Tensor:
    """Scores of negatives as a step draws them, for `losses.starting_points`.

    Args:
        negatives: N, how many a user, drawn with replacement from all its negatives.
        users: how many, evenly spread over those with a train pair.

    Returns:
        (users, N), float64.

    >>> from drrl_core.lab.run import configure, execute
    >>> trained = execute(configure("synthetic", config={"epochs": 1}), progress=False)
    >>> negative_scores(trained, negatives=64, users=5).shape
    torch.Size([5, 64])
    """
    known = _some_users(trained.data, users)
    draw = np.random.default_rng(0).choice
    rows = [draw(negatives_of(trained, int(user))["score"], negatives) for user in known]
    return torch.tensor(np.array(rows), dtype=torch.float64)


def sweep_orders(
    trained: Trained,
    orders: Sequence[float],
    *,
    radius: float | None = None,
    hold: str = "radius",
    users: int | None = 200,
) -> pd.DataFrame:
    """The order turned on a trained model's scores, user by user; nothing is trained anew.

    Args:
        orders: γ in [1, inf], each.
        radius: ρ in [0, inf), nats, of the ball at order 2; None for each user's own, see
            `radii_by_user`.
        hold: what stays while the order turns, see `dro.turn`.
        users: how many, evenly spread over those with a train pair; all when None.

    Returns:
        A row a user and order: radius (nats, of the worst-case weights), dual (β, at order 1 τ;
        score), and k1, truncated, effective_share, k2 and k2_test as in `by_user`.

    Raises:
        ValueError: as `dro.turn`; where radius is None, as `radii_by_user`.

    >>> from drrl_core.lab.run import configure, execute
    >>> trained = execute(configure("synthetic", config={"epochs": 1}), progress=False)
    >>> found = sweep_orders(trained, [1, 2], radius=0.5, users=5)
    >>> len(found), bool((found.loc[1.0, "k1"] >= found.loc[2.0, "k1"]).all())
    (10, True)
    """
    own = None if radius is not None else radii_by_user(trained, users=users)["radius"]
    known = _some_users(trained.data, users)
    if own is not None:  # users whose negatives are all truncated have no radius
        known = own.dropna().index.to_numpy(copy=True)
    read = ["dual", "k1", "truncated", "effective_share"]
    columns = ["order", "user", "radius", *read, *FALSE_NEGATIVES]
    rows = [pd.DataFrame(columns=columns, dtype=float)]
    for some, scores, *_ in _listening(*_parts(trained), known):
        scores = scores.double()
        size: Any = radius if own is None else torch.tensor(own[some].to_numpy()).to(scores)
        false = {
            name: false_negatives(trained.data, some, split)
            for name, split in FALSE_NEGATIVES.items()
        }
        for order in orders:
            worst = dro.turn(scores, order=order, radius=size, hold=hold)
            row = {"radius": dro.radius_of_weights(worst.weights, order)}
            row |= {name: getattr(worst, name) for name in read}
            for name, marks in false.items():
                row[name] = dro.k2(worst.weights, torch.from_numpy(marks).to(scores.device))
            found = {name: value.cpu().numpy() for name, value in row.items()}
            rows.append(pd.DataFrame({"order": float(order), "user": some, **found}))
    return pd.concat(rows[1:] or rows).set_index(["order", "user"]).sort_index()


def _order(loss: nn.Module) -> float:
    """The order of a loss, by its entry; ValueError for one outside the family."""
    made_by = type(loss), getattr(loss, "function", None)
    entries = losses.REGISTRY.values()
    order = next((line.order for line in entries if line.factory in made_by), None)
    if order is None:
        known = ", ".join(name for name, line in losses.REGISTRY.items() if line.order is not None)
        raise ValueError(f"{loss} has no order: give a run of {known}")
    return float(loss.hyper[order] if isinstance(order, str) else order)  # type: ignore[index]


def radii_by_user(trained: Trained, *, users: int | None = 200) -> pd.DataFrame:
    """Where a trained loss lies in the family: each user's order and radius, over all negatives.

    A temperature or a margin sets a radius too, another one for each user: that of the weights the
    loss gives. SL is of order 1, CCL of order ∞, DrRL of its own.

    Args:
        trained: by a loss whose entry says an order, such as sl, bsl, ccl and drrl.
        users: how many, evenly spread over those with a train pair; all when None.

    Returns:
        A row a user: order, radius (nats; NaN where all the user's negatives are truncated).

    Raises:
        ValueError: the loss has no order.

    Source: Eq. 5, 6 and 9 of 'Advancing Loss Functions in Recommender Systems', AAAI 2025.
    """
    order = _order(trained.loss)
    known, radii = _some_users(trained.data, users), []
    for _, _, weights, _ in _listening(*_parts(trained), known):
        weights, heard = weights.double(), (weights != 0).any(-1)
        radius = weights.new_full(heard.shape, math.nan)
        if heard.any():
            radius[heard] = dro.radius_of_weights(weights[heard], order)
        radii.append(radius.cpu().numpy())
    columns = {"order": order, "radius": np.concatenate(radii)}
    return pd.DataFrame(columns, index=pd.Index(known, name="user"))


def margins(trained: Trained, *, users: int | None = 200) -> pd.DataFrame:
    """Each user's margin β beside the exact one, that of the ball over all the user's negatives.

    Args:
        trained: by drrl, with c >= 1 where its size is c.
        users: how many, evenly spread over those with a train pair; all when None.

    Returns:
        A row a user: pairs, its train pairs; beta, the loss's margin (score), and where the loss
        solves for it on each row, that of one row, drawn as in training; best, the exact one
        (score; -inf at c = 1, where there is none); gap, by how much the bound at beta exceeds
        that at best, on all negatives (score).

    Raises:
        ValueError: the loss has no margin, or c < 1 and so no ball.

    >>> from drrl_core.lab.run import configure, execute
    >>> run = configure("synthetic", "drrl", config={"radius": 1, "epochs": 1})
    >>> frame = margins(execute(run, progress=False))
    >>> bool((frame["gap"] >= 0).all())
    True
    """
    loss: Any = trained.loss
    pairs = np.diff(trained.data.train.indptr)
    hyper = getattr(loss, "hyper", {})
    if not {"weight", "radius"} & hyper.keys() or hyper["order"] == 1:
        raise ValueError("no margin: give a run of drrl with order > 1 and a weight or a radius")
    order, radius = hyper["order"], hyper.get("radius")
    if radius is None:
        radius = dro.radius_from_weight(hyper["weight"], order)
    known = _some_users(trained.data, users)
    scores = torch.from_numpy(scores_of(trained, known))
    worst = dro.worst_case(scores, order=order, radius=radius)
    if loss.dual == "exact":
        chance, rng = (scores > -math.inf).double(), torch.Generator().manual_seed(0)
        row = torch.multinomial(chance, trained.negatives, replacement=True, generator=rng)
        beta = dro.worst_case(scores.gather(1, row), order=order, radius=radius).dual
    else:
        beta = loss.beta.detach().cpu().double().expand(trained.data.n_users)[known]
    gap = dro.dual_objective(scores, beta, order=order, radius=radius) - worst.value
    columns = {"pairs": pairs[known], "beta": beta, "best": worst.dual, "gap": gap}
    return pd.DataFrame(columns, index=pd.Index(known, name="user"))


def false_negatives(
    data: Interactions, users: int | np.ndarray, split: str | None = None
) -> np.ndarray:
    """Items without a train pair that the user would like.

    Known where the data come with the truth; elsewhere the held-out positives, which is all that
    can be known.

    Args:
        users: an index, or several.
        split: "valid" or "test" to take that split's positives, with or without the truth.

    Returns:
        bool, (n_items,) of one user, (users, n_items) of several.

    >>> from drrl_core import datasets
    >>> data = datasets.load("synthetic")
    >>> bool((false_negatives(data, 0) & (data.train[[0]].toarray()[0] > 0)).any())
    False
    """
    several = np.atleast_1d(users)
    if split:
        liked = getattr(data, split)[several].toarray() > 0
    elif data.truth is not None:
        liked = data.truth[several]
    else:
        liked = (data.valid[several] + data.test[several]).toarray() > 0
    liked[data.train[several].nonzero()] = False
    marks: np.ndarray = liked if np.ndim(users) else liked[0]
    return marks


def askable(data: Interactions, users: int) -> np.ndarray:
    """Users with a train pair and a false negative, see `false_negatives`; so many, evenly spread.

    >>> from drrl_core import datasets
    >>> askable(datasets.load("synthetic"), 3)
    array([  0, 499, 999])
    """
    liked = data.valid + data.test if data.truth is None else csr_array(data.truth, dtype=float)
    missed = np.diff(liked.indptr) - np.diff(csr_array(liked.multiply(data.train)).indptr)
    return _evenly(np.flatnonzero((np.diff(data.train.indptr) > 0) & (missed > 0)), users)


def typical_user(data: Interactions) -> int:
    """A user with the median number of train pairs and, of those, the most test pairs.

    >>> from drrl_core import datasets
    >>> typical_user(datasets.load("synthetic")) >= 0
    True
    """
    counts = np.diff(data.train.indptr)
    middle = np.sort(counts[counts > 0])[(counts > 0).sum() // 2]
    return int(np.argmax(np.where(counts == middle, np.diff(data.test.indptr), -1)))


def scores_of(trained: Trained, users: np.ndarray) -> np.ndarray:
    """Users' scores of all items as the trained model has them, float64, (users, n_items).

    -inf where a train pair makes the item no negative.

    >>> from drrl_core.lab.run import configure, execute
    >>> trained = execute(configure("synthetic", config={"epochs": 1}), progress=False)
    >>> scores_of(trained, np.array([3, 7])).shape
    (2, 800)
    """
    rows, items = ranking_tables(trained)
    scores = (rows[torch.tensor(users)] @ items.T).double().numpy()
    scores[trained.data.train[users].nonzero()] = -math.inf
    return scores


def ranking_tables(trained: Trained) -> tuple[Tensor, Tensor]:
    """User and item table on the CPU whose dot products are the scores."""
    found = (metrics.unit_or_raw(table, trained.similarity) for table in tables(trained.model))
    users, items = (table.detach().float().cpu() for table in found)
    return users, items


def _parts(trained: Trained) -> tuple[nn.Module, nn.Module, Interactions, str]:
    return trained.model, trained.loss, trained.data, trained.similarity


def _some_users(data: Interactions, count: int | None) -> np.ndarray:
    """So many of the users with a train pair, evenly spread over them; all where count is None."""
    return _evenly(metrics.seekers(data.train), count)


def _all_items(data: Interactions, device: torch.device) -> dict[str, Tensor]:
    """Of a batch whose negatives are all items: which these are, and how popular."""
    counts = np.bincount(data.train.indices, minlength=data.n_items)
    items = torch.arange(data.n_items, device=device)
    return {"neg_items": items, "popularity": torch.from_numpy(counts).to(device)}


def _evenly(users: np.ndarray, count: int | None) -> np.ndarray:
    count = len(users) if count is None else min(count, len(users))
    chosen: np.ndarray = users[np.linspace(0, len(users) - 1, count).astype(int)]
    return chosen


def _listening(
    model: nn.Module,
    loss: nn.Module,
    data: Interactions,
    similarity: str,
    users: np.ndarray,
) -> Iterator[tuple[np.ndarray, Tensor, Tensor, Tensor]]:
    """Whom a loss listens to, a few users at a time.

    Yields:
        The users (U,), all items' scores (U, n_items), -inf where a train pair makes the item no
        negative, weights (U, n_items): the gradient of each user's mean loss over its train
        positives, scaled to mean 1 over its negatives; and the mass (U,) of that gradient.
    """
    user_table, item_table = tables(model)
    item_table = metrics.unit_or_raw(item_table, similarity)
    device = item_table.device
    everything = _all_items(data, device)
    pairs = int(np.diff(data.train.indptr)[users].sum())
    parts = min(len(users), 1 + pairs * data.n_items // TILE)
    for some in np.array_split(users, parts) if parts else ():
        owner, items = (torch.from_numpy(x).long().to(device) for x in data.train[some].nonzero())
        index = torch.from_numpy(some).long().to(device)
        with torch.no_grad():
            scores = metrics.unit_or_raw(user_table[index], similarity) @ item_table.T
        pos = scores[owner, items]
        scores[owner, items] = -math.inf

        def of_users(
            pos: Tensor, neg: Tensor, batch: losses.Batch, owner: Tensor = owner
        ) -> Tensor:
            value: Tensor = loss(pos, neg.index_select(0, owner), batch)
            return value

        batch = losses.Batch(index[owner], items, **everything)
        pull, push = losses.slopes(of_users, pos, scores, batch)
        mass = push.sum(-1) / push.new_zeros(len(some)).index_add_(0, owner, pull)
        weights = losses.weights_of(push, scores)
        yield some, scores, weights.where(scores > -math.inf, 0), mass
