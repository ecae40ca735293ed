"""How pairs are dealt into train, valid and test, and the k-core that may come before.

Each dealer returns 0, 1 or 2 for each pair (train, valid, test); -1 leaves it out.
"""

import numpy as np

# How a split is made here, and who uses it so.
KINDS = {
    "random": (
        "each user's pairs dealt at random by the shares, at least one to train",
        "LightGCN (He et al., SIGIR 2020, 4.1), NGCF, SimGCL, DrRL's own sets; IR-Benchmark's "
        "`data_iid`",
    ),
    "time": (
        "one moment for all: the earliest share is train; valid and test keep users and items seen "
        "in train",
        "IR-Benchmark's temporal sets (60/20/20, `dataset_summary_ood.md`); asked for by Meng et "
        "al., RecSys 2020",
    ),
    "user-time": (
        "each user's pairs in the order of time, dealt by the shares",
        "RecBole (`order: TO`, `split: RS`, `group_by: user`)",
    ),
    "last": (
        "each user's last pair is test, the one before valid",
        "SASRec (Kang, McAuley, ICDM 2018), BERT4Rec, NCF; Amazon 2023's `last_out`",
    ),
    "popularity": (
        "valid and test drawn one by one: an item by lot, then one of its pairs",
        "IR-Benchmark's popularity sets (`dataset_summary_ood.md`, `data_ood/*-popularity`); "
        "likewise MACR (Wei et al., KDD 2021, 4.1), InvCF",
    ),
}


def compacted(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The codes that occur, in order, and for each code its place among them.

    >>> [part.tolist() for part in compacted(np.array([7, 2, 7]))]
    [[2, 7], [1, 0, 1]]
    """
    there = np.zeros(codes.max(initial=-1) + 1, bool)  # counting would copy them as int64
    there[codes] = True
    return np.flatnonzero(there), (np.cumsum(there, dtype=np.int32) - 1)[codes]


def core(users: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """Which of these distinct pairs are left where every user and every item has at least k.

    >>> core(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 2]), 2).tolist()
    [True, True, True, True, False]
    """
    left = np.ones(len(users), bool)
    while True:
        enough = left.copy()
        for side in (users, items):
            enough &= np.bincount(side[left], minlength=side.max() + 1)[side] >= k
        if enough.sum() == left.sum():
            return left
        left = enough


def deal_by_user(users: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each user's pairs dealt by the shares, at least one to train.

    A pair's place is its random rank among the user's n pairs, plus one uniform draw a user, over
    n: the shares hold exactly where they give whole numbers, and on average for users of few pairs.
    """
    counts = np.bincount(users)
    rank = _rank(users, rng.random(len(users)))
    place = (rank + rng.random(len(counts))[users]) / counts[users]
    part = np.searchsorted(np.cumsum(shares)[:2], place, side="right")
    return np.where(rank == 0, 0, part)


def deal_by_time(
    users: np.ndarray, items: np.ndarray, time: np.ndarray, shares: np.ndarray
) -> np.ndarray:
    """By global time; valid and test keep the users and items seen in train."""
    last = np.ceil(np.cumsum(shares)[:2] * len(time) - 1e-9).astype(int) - 1
    part = np.searchsorted(np.partition(time, last)[last], time, side="left").astype(np.int8)
    for side in (users, items):
        seen = np.zeros(side.max() + 1, bool)
        seen[side[part == 0]] = True
        part[~seen[side]] = -1
    return part


def deal_user_time(users: np.ndarray, time: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Each user's pairs in the order of time: the earliest share, rounded up, is train.

    Pairs of one time are in the order given, so that equal times do not empty a user's train.
    """
    counts, rank = np.bincount(users)[users], _rank(users, time)
    bounds = np.ceil(np.cumsum(shares)[:2, None] * counts - 1e-9)
    part = (rank >= np.maximum(1, bounds[0])).astype(int) + (rank >= np.maximum(1, bounds[1]))
    return np.asarray(part)


def deal_last_out(users: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Each user's last pair is test, the one before valid; who has fewer than 3 is in train."""
    counts, rank = np.bincount(users)[users], _rank(users, time)
    held = np.where(rank == counts - 1, 2, np.where(rank == counts - 2, 1, 0))
    return np.where(counts < 3, 0, held)


def deal_by_popularity(
    users: np.ndarray, items: np.ndarray, shares: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Test, then valid, drawn one by one: an item by lot, then one of its pairs by lot.

    An item is drawn until one pair of it is left, which stays in train; so does the pair of a user
    that would be drawn last (IR-Benchmark drops the test pairs of users who are not in train).

    Source: `write_dataset` of IR-Benchmark-Dataset's `data_ood/*-popularity/process_*.py`.
    """
    # Lots among items are as if each rang at the moments of a Poisson process, all of one rate.
    order = np.lexsort((rng.random(len(items)), items))
    moment = np.cumsum(rng.exponential(size=len(items)))
    sizes = np.bincount(items)
    sizes = sizes[sizes > 0]
    last = np.cumsum(sizes) - 1
    wait = np.empty(len(items))
    wait[order] = moment - np.repeat(np.concatenate([[0.0], moment[last[:-1]]]), sizes)
    wait[order[last]] = np.inf
    free = np.isfinite(wait)
    free[np.lexsort((wait, users))[np.cumsum(np.bincount(users)[np.unique(users)]) - 1]] = False
    drawn = np.flatnonzero(free)[np.argsort(wait[free], kind="stable")]
    n_test, n_valid = (round(float(share) * len(users)) for share in (shares[2], shares[1]))
    part = np.zeros(len(users), int)
    part[drawn[:n_test]], part[drawn[n_test : n_test + n_valid]] = 2, 1
    return part


def cut_valid(users: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """0, or 1 for a share of each user's train pairs, rounded down."""
    counts = np.bincount(users)[users]
    rank = _rank(users, rng.random(len(users)))
    return np.asarray(rank >= counts - np.floor(share * counts + 1e-9), np.int64)


def _rank(users: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Each value's place among its user's, from 0; equal values in the order given."""
    order, counts = np.lexsort((values, users)), np.bincount(users)
    rank = np.empty(len(users), np.int64)
    rank[order] = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank
