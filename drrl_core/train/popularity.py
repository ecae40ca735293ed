"""Popularity put back when ranking: score + b·s·log(1 + train pairs of the item).

Losses differ in how much of an item's popularity they let into their scores, and a table of
accuracies measures that as much as anything else. One number b, chosen on valid after training,
sets it: nothing is trained again. With s, the mean over users of the standard deviation of their
scores, b means alike for every loss and backbone. Known forms of the same: popularity-bias
deconfounding (PDA, arXiv 2105.06067), logit adjustment (arXiv 2007.07314).
"""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array
from torch import Tensor

from drrl_core.train import metrics

# Pairs to find, b, and the pairs that are no candidates, to the 20 best items of each seeker.
Ranked = Callable[[csr_array, float, tuple[csr_array, ...]], np.ndarray]

LOW, HIGH, STEPS = -0.8, 2.0, (0.4, 0.2, 0.1)  # where b is looked for, ever more closely
FARTHEST = 8.0  # where the best is an end of that, it is looked for beyond, as far as this
CURVE = tuple(round(LOW + 0.2 * step, 1) for step in range(15))  # each 0.2 between them


def _log_popularity(train: csr_array) -> np.ndarray:
    """log(1 + train pairs) of each item, (n_items,)."""
    return np.log1p(np.bincount(train.indices, minlength=train.shape[1]))


@torch.no_grad()
def spread(users: Tensor, items: Tensor) -> Tensor:
    """Mean over the users of the standard deviation of their scores of all items; a scalar, score.

    Args:
        users, items: tables, (m, d) and (n, d), whose dot products are the scores.

    >>> spread(torch.tensor([[2.0], [0.0]]), torch.tensor([[1.0], [-1.0]]))  # (2 + 0) / 2
    tensor(1.)
    """
    centred = items - items.mean(0)
    return (users @ (centred.T @ centred / len(items)) * users).sum(1).clamp_min(0).sqrt().mean()


@torch.no_grad()
def adjusted(
    users: Tensor, items: Tensor, train: csr_array, b: float, *, similarity: str = "cosine"
) -> tuple[Tensor, Tensor]:
    """Tables whose dot products are the scores with popularity put back at strength b.

    Args:
        users, items: tables, (n_users, d) and (n_items, d), as `train.tables` gives them.
        train: the pairs that make an item popular, (n_users, n_items) CSR.
        b: any number, dimensionless; 0 changes nothing, below 0 popular items fall.
        similarity: "cosine" or "dot", as the tables were trained to compare.

    Returns:
        (n_users, d + 1) and (n_items, d + 1), to be ranked with similarity "dot".

    >>> users, items = torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> train = csr_array([[0, 1], [0, 1]])
    >>> rows, columns = adjusted(users, items, train, 1.0)
    >>> (rows @ columns.T)[0]  # s = 1/2, log 3 = 1.0986
    tensor([1.0000, 0.5493])
    """
    users, items = (metrics.unit_or_raw(table, similarity) for table in (users, items))
    known = torch.from_numpy(metrics.seekers(train)).to(users.device)
    size = b * spread(users[known], items)
    column = torch.from_numpy(_log_popularity(train)).to(items) * size
    users = torch.cat([users, users.new_ones(len(users), 1)], 1)
    return users, torch.cat([items, column[:, None]], 1)


def best_strength(accuracy_at: Callable[[float], float]) -> float:
    """The b with the highest accuracy, to the last of STEPS.

    Every 0.4 between LOW and HIGH; beyond an end while it is the best, up to FARTHEST from zero;
    then the neighbours of the best at ever smaller steps. Of equals it is the one nearest to zero,
    so that popularity is not put back for nothing.

    >>> best_strength(lambda b: -abs(b - 0.52)), best_strength(lambda b: -abs(b - 3.3))
    (0.5, 3.3)
    """
    tried: dict[float, float] = {}

    def best(wanted: Iterable[float]) -> float:
        for b in (round(float(b), 6) + 0.0 for b in wanted):
            if b not in tried and abs(b) <= FARTHEST:
                tried[b] = accuracy_at(b)
        return max(tried, key=lambda b: (tried[b], -abs(b)))

    first, *finer = STEPS
    found = best(np.arange(LOW, HIGH + first / 2, first))
    while found in (min(tried), max(tried)) and abs(found) < FARTHEST:
        found = best((found - first, found + first))
    for step in finer:
        found = best((found - step, found + step))
    return found


def by_tables(
    users: Tensor, items: Tensor, train: csr_array, *, similarity: str = "cosine"
) -> Ranked:
    """Rankings, at any b, of a model that has tables.

    Args:
        users, items, train, similarity: as in `adjusted`.

    >>> train = csr_array([[1, 0, 0], [1, 1, 0]])
    >>> ranked = by_tables(torch.ones(2, 1), torch.tensor([[0.0], [0.1], [0.2]]), train,
    ...                    similarity="dot")
    >>> ranked(train, 0, ()).tolist()[0], ranked(train, 2, ()).tolist()[0]
    ([2, 1, 0], [1, 2, 0])
    """

    def ranked(target: csr_array, b: float, masks: tuple[csr_array, ...]) -> np.ndarray:
        tables, how = (users, items), similarity
        if b:
            tables, how = adjusted(users, items, train, b, similarity=similarity), "dot"
        return metrics.rank(
            *tables, metrics.seekers(target), masks=masks, k=metrics.CUTOFF, similarity=how
        )

    return ranked


def raised(scores: metrics.Scorer, train: csr_array) -> Callable[[float], metrics.Scorer]:
    """A function of b: the scores with popularity put back at that strength.

    Args:
        scores: see `metrics.Scorer`.
        train: the pairs that make an item popular, (n_users, n_items) CSR.

    >>> at = raised(lambda users: torch.tensor([[0.0, 1.0]])[users * 0], csr_array([[1, 0]]))
    >>> at(1.0)(np.array([0]))  # s = 1/2, log 2 = 0.6931
    tensor([[0.3466, 1.0000]])
    """
    known, bonus = metrics.seekers(train), torch.from_numpy(_log_popularity(train)).float()

    @cache
    def size() -> float:
        parts = np.array_split(known, 1 + len(known) // 256)
        spreads = [scores(part).std(1, correction=0) for part in parts if len(part)]
        return float(torch.cat(spreads).mean()) if spreads else 0.0

    return lambda b: (lambda users: scores(users) + b * size() * bonus) if b else scores


def by_scores(scores: metrics.Scorer, train: csr_array) -> Ranked:
    """Rankings, at any b, of a model that has no tables and gives scores.

    Args:
        scores: see `metrics.Scorer`.
        train: the pairs that make an item popular, (n_users, n_items) CSR.

    >>> train = csr_array([[1, 0, 0], [1, 1, 0]])
    >>> ranked = by_scores(lambda users: torch.tensor([[0.0, 0.1, 0.2]])[users * 0], train)
    >>> ranked(train, 0, ()).tolist()[0], ranked(train, 2, ()).tolist()[0]
    ([2, 1, 0], [1, 2, 0])
    """
    at = raised(scores, train)

    def ranked(target: csr_array, b: float, masks: tuple[csr_array, ...]) -> np.ndarray:
        wanted = metrics.seekers(target)
        return metrics.rank_by(at(b), wanted, train.shape[1], masks=masks, k=metrics.CUTOFF)

    return ranked


def _accuracy(best: np.ndarray, target: csr_array) -> dict[str, float]:
    means = metrics.accuracy(best, target)[[*metrics.ACCURACY]].mean()
    return {str(name): float(value) for name, value in means.items()}


def report(
    ranked: Ranked,
    train: csr_array,
    valid: csr_array,
    test: csr_array,
    *,
    masks: tuple[csr_array, ...] | None = None,
) -> dict[str, Any]:
    """Accuracy with b chosen on valid, and what the lists consist of at b = 0 and at that b.

    Args:
        ranked: of `by_tables` or `by_scores`.
        train, valid, test: the pairs, (n_users, n_items) CSR. b is chosen by NDCG@20 on valid,
            where train pairs are no candidates; test has no part in it.
        masks: pairs that are no candidates on test; by default the train pairs.

    Returns:
        b (None without valid pairs); valid, test: recall@20 and ndcg@20 with it; lists, lists_b:
        coverage, mean_popularity and gini (see `metrics.exposure`) of the test users' 20 best,
        without b and with it. Plain numbers, for JSON.

    >>> users, items = torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    >>> train, test = csr_array([[1, 0, 0]] * 2), csr_array([[0, 1, 0]] * 2)
    >>> found = report(by_tables(users, items, train), train, csr_array((2, 3)), test)
    >>> found["b"], found["lists"]["mean_popularity"]
    (None, 0.6666666666666666)
    """
    masks = (train,) if masks is None else masks
    found: dict[str, Any] = {
        "b": None,
        "lists": metrics.exposure(ranked(test, 0, masks), train).to_dict(),
    }
    if not valid.nnz:
        return found
    on_valid = cache(lambda b: _accuracy(ranked(valid, b, (train,)), valid))
    b = best_strength(lambda b: on_valid(b)["ndcg@20"])
    best = ranked(test, b, masks)
    found |= {"b": b, "valid": on_valid(b), "test": _accuracy(best, test)}
    return found | {"lists_b": metrics.exposure(best, train).to_dict()}


def curve(
    ranked: Ranked,
    train: csr_array,
    valid: csr_array,
    test: csr_array,
    *,
    strengths: Iterable[float] = CURVE,
    masks: tuple[csr_array, ...] | None = None,
) -> pd.DataFrame:
    """Accuracy, and what the lists consist of, as b turns.

    Losses are compared at equal popularity where their curves of accuracy over popularity are.

    Args:
        ranked, train, valid, test, masks: as in `report`.
        strengths: each b.

    Returns:
        A row a b, which is the index: valid_recall@20, valid_ndcg@20, test_recall@20, test_ndcg@20;
        coverage, mean_popularity and gini of the test users' 20 best, see `metrics.exposure`.

    >>> train, test = csr_array([[1, 0, 0], [1, 1, 0]]), csr_array([[0, 1, 0], [0, 0, 0]])
    >>> ranked = by_scores(lambda users: torch.tensor([[0.0, 0.1, 0.2]])[users * 0], train)
    >>> curve(ranked, train, test, test, strengths=(0, 2))["mean_popularity"].tolist()
    [1.0, 1.0]
    """
    masks = (train,) if masks is None else masks
    rows = {}
    for b in strengths:
        best = ranked(test, b, masks)
        told = {"valid": _accuracy(ranked(valid, b, (train,)), valid)}
        told["test"] = _accuracy(best, test)
        row = {f"{split}_{name}": v for split, own in told.items() for name, v in own.items()}
        rows[b] = row | metrics.exposure(best, train).to_dict()
    return pd.DataFrame.from_dict(rows, "index").rename_axis("b")
