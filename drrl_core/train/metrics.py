"""Full-ranking accuracy: every item is a candidate but those the user is already known to have.

Metrics are per user; their mean is over the users who have something to find. `by_activity` and
`by_popularity` say for whom and for what a model is good, `compare` whether one is better.
"""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import normalize, pad

NAMES = ("recall", "ndcg", "precision", "hitrate", "mrr")
CUTOFF = 20  # the paper's; every run is reported at it, so that runs compare
ACCURACY = (f"recall@{CUTOFF}", f"ndcg@{CUTOFF}")
SIMILARITIES = ("cosine", "dot")
BLOCK = 64  # neighbouring scores that `topk` first knows by their maximum alone
# A matrix product of few rows takes other paths, with other last bits, and breaks ties differently.
LEAST_ROWS = 16
# Users' indices, (m,), to their scores of all items, (m, n_items): an array that may be written to.
Scorer = Callable[[np.ndarray], Tensor]


def unit_or_raw(table: Tensor, similarity: str) -> Tensor:
    """Rows as the similarity sees them: of length one for "cosine", as they are for "dot"."""
    if similarity not in SIMILARITIES:
        raise ValueError(f"similarity must be 'cosine' or 'dot', not {similarity!r}")
    return normalize(table, dim=-1) if similarity == "cosine" else table


def topk(scores: Tensor, k: int) -> Tensor:
    """Column indices of the k largest of each row, best first; of equals, the lower index first.

    `torch.topk` leaves ties open, and they fall differently on different devices.

    >>> topk(torch.tensor([[1.0, 3.0, 3.0, 0.0, 1.0, 1.0]]), 4)
    tensor([[1, 2, 0, 4]])
    """
    n = scores.shape[-1]
    k = min(k, n)
    if 6 * k * BLOCK < n:  # with fewer items it takes longer than it saves
        # The k best lie in the k blocks of the best maxima, or in the tail that fills no block: the
        # best of any other block has k scores before it. With ties too: an earlier block's items
        # have lower indices.
        whole = n - n % BLOCK
        maxima = scores[:, :whole].unflatten(-1, (-1, BLOCK)).amax(-1)
        blocks = topk(maxima, k).sort(dim=-1).values
        every = torch.arange(n, device=scores.device)
        column = (blocks[..., None] * BLOCK + every[:BLOCK]).flatten(-2)
        column = torch.cat([column, every[whole:].expand(len(scores), -1)], dim=-1)
        return column.gather(-1, topk(scores.gather(-1, column), k))
    values, index = scores.topk(min(k + 1, n))
    # A tie may straddle the k-th place: only such rows need their whole row sorted.
    straddled = (values[:, k - 1 : k] == values[:, k:]).any(-1)
    values, index = values[:, :k], index[:, :k]
    if straddled.any():
        ranked = scores[straddled].sort(dim=-1, descending=True, stable=True)
        values[straddled], index[straddled] = ranked.values[:, :k], ranked.indices[:, :k]
    index, by_index = index.sort(dim=-1)
    order = values.gather(-1, by_index).sort(dim=-1, descending=True, stable=True).indices
    return index.gather(-1, order)


def _pairs(matrix: csr_array, users: np.ndarray) -> tuple[Tensor, Tensor]:
    """Row (within `users`) and column of every pair of these users."""
    rows = matrix[users]
    owner = np.repeat(np.arange(len(users)), np.diff(rows.indptr))
    return torch.from_numpy(owner), torch.from_numpy(rows.indices.astype(np.int64))


@torch.no_grad()
def rank(
    users: Tensor,
    items: Tensor,
    wanted: np.ndarray,
    *,
    masks: tuple[csr_array, ...] = (),
    k: int = 20,
    similarity: str = "cosine",
    memory: int | None = None,
) -> np.ndarray:
    """The k best items of each user, best first.

    Args:
        users: (n_users, d) table. items: (n_items, d) table.
        wanted: (m,) indices of the users to rank for.
        masks: pairs that are no candidates, as (n_users, n_items) CSR matrices.
        k: how many.
        similarity: "cosine" or "dot".
        memory: bytes that the scores of one batch of users may take, but for 16 users at least;
            None is 16 MiB, which stays in the cache, and 256 MiB where the tables are on a GPU.

    Returns:
        (m, k) item indices. Of equal scores the lower index comes first. A masked item comes
        after every candidate.

    >>> users, items = torch.eye(2), torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> rank(users, items, np.array([0, 1]), k=2)
    array([[0, 1],
           [2, 1]])
    """
    items = unit_or_raw(items, similarity)
    memory = memory or 2**20 * (16 if items.device.type == "cpu" else 256)
    size = max(LEAST_ROWS, memory // (len(items) * items.element_size()))
    size = min(size, max(LEAST_ROWS, len(wanted)))
    table = items.new_empty(size, len(items))  # one for all batches: fresh pages cost time

    def scores(chunk: np.ndarray) -> Tensor:
        rows = users[torch.from_numpy(chunk).to(users.device)]
        rows = pad(rows, (0, 0, 0, max(0, LEAST_ROWS - len(chunk))))
        torch.mm(unit_or_raw(rows, similarity), items.T, out=table[: len(rows)])
        return table[: len(chunk)]

    return rank_by(scores, wanted, len(items), masks=masks, k=k, size=size)


@torch.no_grad()
def rank_by(
    scores: Scorer,
    wanted: np.ndarray,
    n_items: int,
    *,
    masks: tuple[csr_array, ...] = (),
    k: int = 20,
    size: int = 256,
) -> np.ndarray:
    """`rank`, of a model that has no tables and gives scores: the same masks, the same ties.

    Args:
        scores: gives (m, n_items) scores of m users, see `Scorer`.
        wanted: (m,) indices of the users to rank for.
        n_items: how many items there are.
        masks, k: as in `rank`.
        size: users at a time, >= 1.

    Returns:
        (m, k) item indices, as `rank`.

    >>> every = torch.tensor([[0.0, 2.0, 2.0], [3.0, 0.0, 1.0]])
    >>> rank_by(lambda users: every[users], np.array([0, 1]), 3, k=2)
    array([[1, 2],
           [0, 2]])
    """
    best = np.empty((len(wanted), min(k, n_items)), np.int64)
    for start in range(0, len(wanted), size):
        chunk = wanted[start : start + size]
        block = scores(chunk)
        for mask in masks:
            owner, column = _pairs(mask, chunk)
            block[owner.to(block.device), column.to(block.device)] = -math.inf
        best[start : start + size] = topk(block, k).cpu().numpy()
    return best


def seekers(target: csr_array) -> np.ndarray:
    """Indices of the users who have something to find: the rows of every ranking below.

    >>> seekers(csr_array(np.array([[0, 1], [0, 0], [1, 1]])))
    array([0, 2])
    """
    return np.flatnonzero(np.diff(target.indptr))


def _check_cutoffs(ks: tuple[int, ...]) -> None:
    if min(ks) < 1:
        raise ValueError(f"every cut-off must be at least 1, not {min(ks)}")


def _hits(best: np.ndarray, target: csr_array, ks: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Which of the ranked items are targets, (m, k) bool; row and item of every target."""
    _check_cutoffs(ks)
    wanted, n_items = seekers(target), target.shape[1]
    if len(best) != len(wanted):
        raise ValueError(f"{len(best)} rankings, but {len(wanted)} users with something to find")
    if best.shape[1] < min(max(ks), n_items):
        raise ValueError(f"a ranking of {best.shape[1]} items does not reach the cut-off {max(ks)}")
    owner, item = (part.numpy() for part in _pairs(target, wanted))
    if not len(owner):
        return np.zeros(best.shape, bool), owner, item
    keys = np.sort(owner * n_items + item)
    asked = np.arange(len(best))[:, None] * n_items + best
    place = np.searchsorted(keys, asked)
    return keys[np.minimum(place, len(keys) - 1)] == asked, owner, item


def accuracy(best: np.ndarray, target: csr_array, *, ks: tuple[int, ...] = (20,)) -> pd.DataFrame:
    """Recall, NDCG, precision, hit rate and MRR of given rankings, user by user.

    Recall@k = hits / |T_u|. NDCG@k is binary, discounted by log2(rank + 1), over the best DCG that
    min(k, |T_u|) items can have.

    Args:
        best: (m, k) item indices, best first, a row for each of the m `seekers(target)`.
        target: the pairs to find, (n_users, n_items) CSR.
        ks: cut-offs, each at least 1.

    Returns:
        One row for each user with a target, indexed by user; columns like "recall@20".

    >>> accuracy(np.array([[0, 2]]), csr_array([[0, 1, 1]]), ks=(2,))[["recall@2", "mrr@2"]]
          recall@2  mrr@2
    user
    0          0.5    0.5
    """
    hit, *_ = _hits(best, target, ks)
    wanted = seekers(target)
    size = np.diff(target.indptr)[wanted]
    discount = 1 / np.log2(np.arange(2, hit.shape[1] + 2))
    columns: dict[str, np.ndarray] = {}
    for k in ks:
        top = hit[:, :k]
        ideal = np.cumsum(discount[:k])[np.minimum(size, top.shape[1]) - 1]
        values = (
            top.sum(1) / size,
            (top * discount[: top.shape[1]]).sum(1) / ideal,
            top.sum(1) / k,
            top.any(1).astype(float),
            np.where(top.any(1), 1 / (top.argmax(1) + 1), 0.0),
        )
        columns |= {f"{name}@{k}": value for name, value in zip(NAMES, values, strict=True)}
    return pd.DataFrame(columns, index=pd.Index(wanted, name="user"))


def evaluate(
    users: Tensor,
    items: Tensor,
    target: csr_array,
    *,
    masks: tuple[csr_array, ...] = (),
    ks: tuple[int, ...] = (20,),
    similarity: str = "cosine",
    memory: int | None = None,
) -> pd.DataFrame:
    """`accuracy` of the full ranking of every user with something to find.

    Args:
        users, items: tables, (n_users, d) and (n_items, d).
        target: the pairs to find, (n_users, n_items) CSR.
        masks: pairs that are no candidates.
        ks: cut-offs, each at least 1.
        similarity, memory: as in `rank`.

    Returns:
        One row for each user with a target, indexed by user; columns like "recall@20".

    >>> target = csr_array(np.array([[0, 1, 1], [0, 0, 0]]))
    >>> users, items = torch.eye(2), torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> evaluate(users, items, target, ks=(2,))[["recall@2", "mrr@2"]]
          recall@2  mrr@2
    user
    0          0.5    0.5
    """
    _check_cutoffs(ks)
    wanted, k = seekers(target), max(ks)
    best = rank(users, items, wanted, masks=masks, k=k, similarity=similarity, memory=memory)
    return accuracy(best, target, ks=ks)


def _groups(counts: np.ndarray, groups: int, of: str) -> tuple[np.ndarray, pd.DataFrame]:
    """About equal groups by count, equal counts together: the group of each, and their bounds."""
    if groups < 1:
        raise ValueError(f"groups must be at least 1, not {groups}")
    # The last member of each group, were ties broken; then all of its equals join it.
    last = (np.arange(1, groups + 1) * len(counts) + groups - 1) // groups - 1
    most = np.unique(np.sort(counts)[last] if len(counts) else counts)
    group = np.searchsorted(most, counts)
    within = pd.Series(counts).groupby(group)
    bounds = within.agg(least="min", most="max").assign(**{of: within.size()})
    return group, bounds.rename_axis("group")


def by_activity(table: pd.DataFrame, train: csr_array, *, groups: int = 5) -> pd.DataFrame:
    """Mean metrics of users who are alike active, that is, have alike many train pairs.

    Args:
        table: metrics per user, indexed by user, from `evaluate`.
        train: (n_users, n_items) CSR.
        groups: how many quantile groups of the users of `table`. Users with equally many pairs
            are together, so groups may be unequal, and fewer.

    Returns:
        A row a group, the least active first: least and most train pairs of a user (both in the
        group), how many users, and the mean of each metric over them.

    >>> table = pd.DataFrame({"recall@1": [0.0, 1.0, 1.0]}, index=[0, 1, 3])
    >>> by_activity(table, csr_array([[1, 0], [1, 0], [1, 1], [1, 1]]), groups=2)
           least  most  users  recall@1
    group
    0          1     1      2       0.5
    1          2     2      1       1.0
    """
    group, bounds = _groups(np.diff(train.indptr)[table.index], groups, "users")
    return bounds.join(table.groupby(group).mean())


def by_popularity(
    best: np.ndarray,
    target: csr_array,
    train: csr_array,
    *,
    ks: tuple[int, ...] = (20,),
    groups: int = 5,
) -> pd.DataFrame:
    """Recall of items that are alike popular, that is, have alike many train pairs.

    Recall@k of a group: of a user's targets in the group, the share among the user's k best of
    *all* items; then the mean over the users who have such targets. A group's items thus compete
    with the whole catalogue, and the groups' recalls do not add up to the recall of all.

    Args:
        best: (m, k) item indices, best first, a row for each of the m `seekers(target)`.
        target: the pairs to find, (n_users, n_items) CSR.
        train: pairs that make an item popular, (n_users, n_items) CSR.
        ks: cut-offs, each at least 1.
        groups: how many quantile groups of all the items. Items with equally many pairs are
            together, so groups may be unequal, and fewer.

    Returns:
        A row a group, the least popular first: least and most train pairs of an item (both in the
        group), how many items, users who have targets among them, such targets, and recall at each
        cut-off (NaN where no user has any).

    One ranking serves both `accuracy` and this:

    >>> train = csr_array([[1, 0, 0], [1, 0, 0]])
    >>> target = csr_array([[0, 1, 1], [0, 1, 0]])
    >>> users, items = torch.eye(2), torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> best = rank(users, items, seekers(target), masks=(train,), k=1)
    >>> accuracy(best, target, ks=(1,))["recall@1"].mean()
    np.float64(0.25)
    >>> by_popularity(best, target, train, ks=(1,), groups=2)
           least  most  items  users  targets  recall@1
    group
    0          0     0      2      2        3      0.25
    1          2     2      1      0        0       NaN
    """
    hit, owner, item = _hits(best, target, ks)
    group, bounds = _groups(np.bincount(train.indices, minlength=train.shape[1]), groups, "items")
    shape = len(best), len(bounds)

    def count(row: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Pairs of each row and group of items."""
        cell = row * shape[1] + group[item]
        return np.bincount(cell, minlength=math.prod(shape)).reshape(shape)

    targets = count(owner, item)
    users = (targets > 0).sum(0)
    table = bounds.assign(users=users, targets=targets.sum(0))
    for k in ks:
        row, place = np.nonzero(hit[:, :k])
        recall = (count(row, best[row, place]) / np.maximum(targets, 1)).sum(0)
        table[f"recall@{k}"] = np.where(users, recall / np.maximum(users, 1), np.nan)
    return table


def exposure(best: np.ndarray, train: csr_array) -> pd.Series:
    """What given rankings consist of: how much of the catalogue, how popular, how unequal.

    Args:
        best: (m, k) item indices, a row a user; all count alike, whatever their rank.
        train: the pairs that make an item popular, (n_users, n_items) CSR.

    Returns:
        coverage, the share of the catalogue that stands in one ranking at least, in [0, 1];
        mean_popularity, the mean train pairs of an item that was ranked, each time it was;
        gini, the Gini coefficient of how often each item of the catalogue was ranked: 0 where all
        alike, towards 1 where few items take all the places. mean_popularity and gini are NaN
        where there is no ranking.

    Source: coverage and Gini as in Castells et al., 'Novelty and Diversity in Recommender
    Systems', 2022; mean_popularity is the mean over the list positions.

    >>> exposure(np.array([[0, 1], [0, 2]]), csr_array([[1, 0, 0, 1], [1, 1, 0, 1]])).to_dict()
    {'coverage': 0.75, 'mean_popularity': 1.25, 'gini': 0.375}
    """
    n = train.shape[1]
    pairs = np.bincount(train.indices, minlength=n)
    shown = np.sort(np.bincount(best.ravel(), minlength=n))
    total = best.size or math.nan
    gini = ((2 * np.arange(1, n + 1) - n - 1) * shown).sum() / (n * total)
    values = (shown > 0).mean(), pairs[best.ravel()].sum() / total, gini
    return pd.Series(
        dict(zip(("coverage", "mean_popularity", "gini"), map(float, values), strict=True))
    )


def compare(
    a: pd.DataFrame,
    b: pd.DataFrame,
    *,
    samples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
    memory: int = 8 * 2**20,
) -> pd.DataFrame:
    """Whether two runs differ by more than the choice of users explains: paired tests.

    A user's difference is a - b. The bootstrap draws users with replacement, the same for every
    metric. Its interval is that of percentiles; its p is the level at which that interval would
    touch zero, 2 min(P(mean <= 0), P(mean >= 0)), each P with one added draw that counts. Neither
    test knows of the chance in training: two seeds of one configuration can differ significantly.

    Args:
        a, b: metrics per user, indexed by user, of the same users and metrics, in any order.
        samples: bootstrap draws; p is at least 2 / (samples + 1).
        level: coverage of the interval, between 0 and 1.
        seed: of the draws.
        memory: bytes that the draws made at once may take, but for one at least; it changes
            nothing else.

    Returns:
        A row a metric: the means a and b, their difference, the interval's low and high,
        p_bootstrap, and p_wilcoxon of the signed-rank test (zero differences are left out; where
        all are zero, p is 1). All p are two-sided and of one test, not corrected for several.

    >>> a = pd.DataFrame({"recall@1": [0.5, 1.0, 0.5, 1.0]}, index=[3, 1, 4, 5])
    >>> b = pd.DataFrame({"recall@1": [0.0, 0.5, 0.0, 0.0]}, index=[1, 3, 4, 5])
    >>> compare(a, b).round(3)
                 a      b  difference   low  high  p_bootstrap  p_wilcoxon
    metric
    recall@1  0.75  0.125       0.625  0.25   1.0        0.009        0.25
    """
    # Not at the top: it takes longer to import than everything else here but torch.
    from scipy.stats import wilcoxon

    alone = len(a.index.symmetric_difference(b.index))
    if alone:
        raise ValueError(f"{alone} users are in one table only: compare runs on the same users")
    if odd := sorted({*a.columns} ^ {*b.columns}):
        raise ValueError(f"metrics in one table only: {', '.join(odd)}")
    if not len(a):
        raise ValueError("no users to compare")
    b = b.reindex(index=a.index, columns=a.columns)
    gap = (a - b).to_numpy()
    if np.isnan(gap).any():
        raise ValueError("metrics must be numbers, not NaN")
    n = len(gap)
    rng = np.random.default_rng(seed)
    step = max(1, memory // (24 * n))  # a draw, its counts, and these as reals: 8 bytes each
    means = []
    for start in range(0, samples, step):
        drawn = rng.integers(n, size=(min(step, samples - start), n))
        drawn += n * np.arange(len(drawn))[:, None]
        times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)
        means.append(times @ gap / n)
    # 1/3 + 1/3 - 2/3 is zero, and 2/3 - 1/3 as large as 1/3, whatever the last bits say.
    drawn, gap = np.concatenate(means).round(12), gap.round(12)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    tail = np.minimum((drawn <= 0).sum(0), (drawn >= 0).sum(0))
    columns = {
        "a": a.mean(),
        "b": b.mean(),
        "difference": gap.mean(0),
        "low": low,
        "high": high,
        "p_bootstrap": np.minimum(1, 2 * (tail + 1) / (samples + 1)),
        "p_wilcoxon": [wilcoxon(d).pvalue if d.any() else 1.0 for d in gap.T],
    }
    return pd.DataFrame(columns, index=pd.Index(a.columns, name="metric"))
