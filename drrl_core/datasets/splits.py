"""How pairs are dealt into train, valid and test, and the k-core that may come before."""

import numpy as np
import pandas as pd


def core(pairs: pd.DataFrame, k: int) -> pd.DataFrame:
    """The most of these distinct pairs that leave every user and every item at least k of them."""
    left = pairs[["user", "item"]].apply(lambda column: pd.factorize(column)[0])
    while True:
        enough = [left.groupby(key)[key].transform("size") >= k for key in left]
        if (enough[0] & enough[1]).all():
            return pairs.loc[left.index]
        left = left[enough[0] & enough[1]]


def deal_by_user(users: np.ndarray, shares, rng: np.random.Generator) -> np.ndarray:
    """0, 1 or 2 for each pair: each user's pairs dealt by the shares, at least one to train.

    A pair's place is its random rank among the user's n pairs, plus one uniform draw a user, over
    n: the shares hold exactly where they give whole numbers, and on average for users of few pairs.
    """
    counts = np.bincount(users)
    rank = pd.Series(rng.random(len(users))).groupby(users).rank(method="first").to_numpy() - 1
    place = (rank + rng.random(len(counts))[users]) / counts[users]
    part = np.searchsorted(np.cumsum(shares)[:2], place, side="right")
    return np.where(rank == 0, 0, part)


def deal_by_time(users: np.ndarray, items: np.ndarray, time: np.ndarray, shares) -> np.ndarray:
    """0, 1 or 2 for each pair by global time; -1 where its user or item is not in train."""
    last = np.ceil(np.cumsum(shares)[:2] * len(time) - 1e-9).astype(int) - 1
    part = np.searchsorted(np.sort(time)[last], time, side="left")
    known = np.isin(users, users[part == 0]) & np.isin(items, items[part == 0])
    return np.where(known, part, -1)
