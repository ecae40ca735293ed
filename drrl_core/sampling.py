"""Training rows: positives in a random order, and for each its negatives.

Everything random is a function of (seed, epoch), so that a run can be repeated, and continued
from the end of any epoch, by naming the two.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from drrl_core.datasets import Interactions
from drrl_core.losses import Batch


def generator(seed: int, epoch: int, device: torch.device | str = "cpu") -> torch.Generator:
    """The random numbers of one epoch: streams of different (seed, epoch) are independent.

    >>> a, b = generator(0, 1), generator(0, 1)
    >>> bool(torch.rand((), generator=a) == torch.rand((), generator=b))
    True
    """
    state = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))


class UniformNegatives:
    """Negatives uniform over the items a user has no train interaction with, exactly.

    The user's k train items leave n_items - k ranks. The r-th item left is r plus the number of
    train items before it, and that number is one binary search: among the sorted train items
    p_0 < p_1 < ..., item p_t stands before it iff p_t - t <= r. So there is no rejection and no
    mask of users × items; memory is one integer a train pair.

    Args:
        data: the interactions.
        device: where the indices live.

    Raises:
        ValueError: a user has a train interaction with every item, so there is no negative.

    >>> from drrl_core import datasets
    >>> data = datasets.load("synthetic")
    >>> draw = UniformNegatives(data)
    >>> items = draw(torch.tensor([3, 3]), 50, generator(0, 1))
    >>> items.shape, bool(data.train[[3]].toarray()[0][items].any())
    (torch.Size([2, 50]), False)
    """

    def __init__(self, data: Interactions, device: torch.device | str = "cpu"):
        start = data.train.indptr.astype(np.int64)
        counts = np.diff(start)
        if (counts >= data.n_items).any():
            user = int(np.argmax(counts >= data.n_items))
            raise ValueError(
                f"{data.name}: user {user} has a train pair with every one of the {data.n_items} "
                "items, which leaves no negative to draw: drop the user, or some of the pairs"
            )
        users = np.repeat(np.arange(data.n_users), counts)
        rank = np.arange(start[-1]) - start[users]
        keys = users * data.n_items + (data.train.indices - rank)
        self.n_items = data.n_items
        self.start = torch.from_numpy(start).to(device)
        self.left = torch.from_numpy(data.n_items - counts).to(device)
        self.keys = torch.from_numpy(keys).to(device)

    def __call__(self, users: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """(B,) users -> (B, count) item indices, drawn with replacement."""
        uniform = torch.rand(
            len(users), count, dtype=torch.float64, device=users.device, generator=generator
        )
        rank = (uniform * self.left[users, None]).long()
        before = torch.searchsorted(self.keys, users[:, None] * self.n_items + rank, right=True)
        return rank + before - self.start[users, None]


def batches(
    data: Interactions,
    negatives: UniformNegatives,
    *,
    batch_size: int,
    count: int,
    seed: int,
    epoch: int,
) -> Iterator[Batch]:
    """One epoch: every train pair once, in a random order, with `count` negatives each.

    Yields:
        Batch with users (B,), pos_items (B,), neg_items (B, count).
    """
    device = negatives.start.device
    rng = generator(seed, epoch, device)
    users = np.repeat(np.arange(data.n_users), np.diff(data.train.indptr))
    users = torch.from_numpy(users).to(device)
    items = torch.from_numpy(data.train.indices.astype(np.int64)).to(device)
    order = torch.randperm(len(users), device=device, generator=rng)
    for rows in order.split(batch_size):
        yield Batch(users[rows], items[rows], negatives(users[rows], count, rng))
