"""The embedded set: generated from a seed, with every user's true preferences."""

import numpy as np
from scipy import sparse

from .interactions import SPLITS, Interactions
from .splits import deal_by_user


def generate(seed: int) -> Interactions:
    """1,000 users, 800 items: latent factors make the truth, fame decides what is seen of it.

    Only sums, products and comparisons of integers and uniform draws: the same on every platform.
    """
    rng = np.random.default_rng(seed)
    n_users, n_items = shape = (1_000, 800)
    tastes = rng.integers(-9, 10, (n_users, 6, 3)).sum(2)  # of three uniform draws: nearly normal
    traits = rng.integers(-9, 10, (n_items, 6, 3)).sum(2)
    fame = rng.permutation(n_items)  # 0 is the most famous
    score = tastes @ traits.T + 4_000 // (fame + 20) + rng.integers(-120, 121, (*shape, 2)).sum(2)
    score = score * n_items + rng.permutation(n_items)  # without ties in a row
    rank = np.argsort(np.argsort(-score, axis=1), axis=1)
    truth = rank < rng.integers(45, 76, (n_users, 1))

    # Of what a user likes, 15 to 39 items are seen (few by some users), famous ones more likely.
    n_seen = np.where(rng.random(n_users) < 0.04, 5, rng.integers(15, 40, n_users))
    wait = np.where(truth, rng.random(shape) * (fame + 20), np.inf)
    seen = np.argsort(np.argsort(wait, axis=1, kind="stable"), axis=1) < n_seen[:, None]
    users, items = np.nonzero(seen)
    splits = np.zeros((len(SPLITS), *shape), bool)
    splits[deal_by_user(users, np.array([0.7, 0.1, 0.2]), rng), users, items] = True

    # No item without a train pair: the user who scores it highest likes it and has seen it.
    for item in np.flatnonzero(~splits[0].any(axis=0)):
        fan = score[:, item].argmax()
        truth[fan, item] = True
        splits[:, fan, item] = True, False, False
    train, valid, test = map(sparse.csr_array, splits)
    return Interactions("synthetic", *shape, train, valid, test, truth=truth)
