"""Training batches: positives in a random order, and the negatives each is set against.

Everything random is a function of (seed, epoch), so that a run can be repeated, and continued
from the end of any epoch, by naming the two.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from drrl_core.datasets import Interactions
from drrl_core.losses import Batch

SAMPLERS = ("per-row", "shared-pool", "catalogue")


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed for one epoch: streams of different (seed, epoch) are independent.

    >>> epoch_seed(0, 1) == epoch_seed(0, 1) != epoch_seed(1, 0)
    True
    """
    return int(
        np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0] >> np.uint64(1)
    )


class Sampler:
    """Batches of one data set.

    - "per-row": `count` negatives for each example, uniform with replacement over the items its
      user has no train interaction with: exactly, without a mask of users × items. At a noise
      ratio r, floor(count·r) of them are drawn from the user's own train items instead. With a
      `power` s they are drawn in proportion to (1 + train pairs)^s; what corrects that is a loss's
      prior=-s.
    - "shared-pool": `count` items drawn once for the batch, without replacement; the pairs of the
      pool that are train interactions are to be masked, see `positives`.
    - "catalogue": all items are the pool. Nothing is sampled: the loss as the paper writes it.

    Args:
        data: the interactions.
        device: where the indices live.
        kind: one of SAMPLERS.
        count: N of a row, or M of the pool, >= 1; not looked at for the catalogue.
        batch_size: examples a batch, >= 1.
        noise: r in [0, 1), per-row only.
        power: s, any number, per-row only; 0 is uniform.

    Raises:
        ValueError: a value out of range, or a user whose train items are all the items there are.

    >>> from drrl_core import datasets
    >>> sampler = Sampler(datasets.load("synthetic"), count=8, batch_size=100)
    >>> batch = next(sampler.epoch(seed=0, epoch=1))
    >>> batch.users.shape, batch.neg_items.shape
    (torch.Size([100]), torch.Size([100, 8]))
    """

    def __init__(
        self,
        data: Interactions,
        device: torch.device | str = "cpu",
        *,
        kind: str = "per-row",
        count: int = 64,
        batch_size: int = 1024,
        noise: float = 0.0,
        power: float = 0.0,
    ):
        if kind not in SAMPLERS:
            raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, not {kind!r}")
        if not 0 <= noise < 1 or (noise and kind != "per-row"):
            raise ValueError(f"noise must lie in [0, 1), above 0 only per-row, not {noise} {kind}")
        if not np.isfinite(power) or (power and kind != "per-row"):
            raise ValueError(
                f"power must be a number, other than 0 only per-row, not {power} {kind}"
            )
        degree = np.diff(data.train.indptr)
        if (degree >= data.n_items).any():
            user = int(np.argmax(degree >= data.n_items))
            raise ValueError(
                f"{data.name}: user {data.user_id(user)!r} has a train pair with every one of the "
                f"{data.n_items} items, which leaves no negative to draw: max_pairs="
                f"{data.n_items - 1} drops such users of your own file; or drop some of the pairs"
            )
        self.kind, self.batch_size, self.n_items = kind, batch_size, data.n_items
        self.count = min(count, data.n_items) if kind != "per-row" else count
        # Whether a user may have all of a pool in train.
        self.crowded = kind == "shared-pool" and int(degree.max(initial=0)) >= self.count
        self.noise = int(np.floor(self.count * noise + 1e-9))

        def put(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array.astype(np.int64)).to(device)

        self.device = torch.device(device)
        self.start, self.degree = put(data.train.indptr), put(degree)
        self.items = put(data.train.indices).int()  # half the memory; indices are long elsewhere
        each = torch.arange(data.n_users, device=device, dtype=torch.int32)
        self.users = torch.repeat_interleave(each, self.degree)
        self.popularity = self.items.bincount(minlength=self.n_items)
        self.mass: Tensor | None = None  # of the items up to each, where draws are not uniform
        if power:
            self.mass = self._cumulated(data, power)
        self.where: Tensor | None = None  # see `positives`
        if kind == "per-row":
            self._index()

    def _index(self) -> None:
        """What `_draw` looks train pairs up in."""
        self.keys = self.users.long() * self.n_items + self.items
        # As many train items of a user lie before its last `degree` items as others lie among
        # these: the k-th of the former stands for the k-th of the latter.
        rank = torch.arange(len(self.items), device=self.device) - self.start[self.users]
        last = self.n_items - self.degree[self.users]
        tail = self.users.long() * self.n_items + last + rank
        at = torch.searchsorted(self.keys, tail).clamp_max_(len(tail) - 1)
        self.instead = torch.zeros_like(self.items)
        self.instead[self.items < last] = (last + rank)[self.keys[at] != tail].int()
        # At most one byte in eight is set: a draw whose byte is not is no train pair.
        self.size = 2 ** (8 * len(self.keys)).bit_length()
        self.maybe = torch.zeros(self.size, dtype=torch.bool, device=self.device)
        self.maybe[self.keys & (self.size - 1)] = True

    def epoch(self, seed: int, epoch: int) -> Iterator[Batch]:
        """Every train pair once, in a random order.

        Yields:
            Batch: users, pos_items and rate (B,), neg_items (B, N) or, for a pool, (M,);
            popularity (n_items,).
        """
        rng = torch.Generator(self.device).manual_seed(epoch_seed(seed, epoch))
        pools = np.random.default_rng(epoch_seed(seed, epoch))  # draws M of n without a pass over n
        order = torch.randperm(len(self.users), device=self.device, generator=rng)
        everything = torch.arange(self.n_items, device=self.device)
        for rows in order.split(self.batch_size):
            users, items = (x.index_select(0, rows).long() for x in (self.users, self.items))
            if self.kind == "per-row":
                negatives = self._draw(users, rng)
            elif self.kind == "shared-pool":
                drawn = pools.choice(self.n_items, self.count, replace=False, shuffle=False)
                negatives = torch.from_numpy(drawn).to(self.device)
            else:
                negatives = everything
            _, which, uses = users.unique(return_inverse=True, return_counts=True)
            rate = len(users) / uses[which]
            yield Batch(users, items, negatives, rate, popularity=self.popularity)

    def _draw(self, users: Tensor, rng: torch.Generator) -> Tensor:
        def uniform(*size: int) -> Tensor:
            return torch.rand(size, dtype=torch.float64, device=self.device, generator=rng)

        shape = len(users), self.count
        if self.mass is None:
            drawn = self._evenly(users, uniform(*shape))
        else:
            drawn = torch.searchsorted(self.mass, uniform(*shape), right=True)
            flat, owner = drawn.view(-1), users.repeat_interleave(self.count) * self.n_items
            again = self._in_train(owner + flat)
            while len(again):
                flat[again] = torch.searchsorted(self.mass, uniform(len(again)), right=True)
                again = again[self._in_train(owner[again] + flat[again])]
        if self.noise:
            place = (uniform(len(users), self.noise) * self.degree[users, None]).long()
            drawn[:, : self.noise] = self.items[self.start[users, None] + place].long()
        return drawn

    def _in_train(self, key: Tensor) -> Tensor:
        """Which of the pairs, each user · n_items + item, are train pairs."""
        at = torch.searchsorted(self.keys, key).clamp_max_(len(self.keys) - 1)
        return (self.keys[at] == key).nonzero().view(-1)

    def _evenly(self, users: Tensor, uniform: Tensor) -> Tensor:
        # An item of the first n - degree: itself, or where it is a train item the one instead.
        drawn = (uniform * (self.n_items - self.degree[users])[:, None]).long()
        flat, key = drawn.view(-1), (drawn + users[:, None] * self.n_items).view(-1)
        some = self.maybe.index_select(0, key & (self.size - 1)).nonzero().view(-1)
        at = torch.searchsorted(self.keys, key[some]).clamp_max_(len(self.keys) - 1)
        instead = self.instead.index_select(0, at).long()
        flat[some] = torch.where(self.keys[at] == key[some], instead, flat[some])
        return drawn

    def _cumulated(self, data: Interactions, power: float) -> Tensor:
        """Of the draws, the share of the items up to each; refuses where few draws would do."""
        share = (power * self.popularity.double().log1p()).softmax(0)
        taken = torch.bincount(self.users, share[self.items], minlength=data.n_users)
        if taken.amax() > 0.999:
            raise ValueError(
                f"{data.name}: at power {power} {taken.amax():.3%} of all draws are train items of "
                f"user {data.user_id(int(taken.argmax()))!r}, which leaves next to no negative to "
                "draw: give a power nearer to 0"
            )
        total = share.cumsum(0)
        return (total / total[-1]).contiguous()

    def positives(self, users: Tensor, pool: Tensor) -> tuple[Tensor, Tensor]:
        """Where a pool holds train items of the users: row and column of each such pair.

        >>> from drrl_core import datasets
        >>> data = datasets.load("synthetic")
        >>> rows, columns = Sampler(data).positives(torch.tensor([7]), torch.arange(data.n_items))
        >>> columns.tolist() == data.train[[7]].indices.tolist()
        True
        """
        degree = self.degree[users]
        rows = torch.repeat_interleave(torch.arange(len(users), device=self.device), degree)
        first = torch.cumsum(degree, 0) - degree
        rank = torch.arange(len(rows), device=self.device) - first[rows]
        items = self.items[self.start[users][rows] + rank].long()
        if len(pool) == self.n_items and self.kind == "catalogue":
            return rows, items
        if self.where is None:
            self.where = torch.full((self.n_items,), -1, device=self.device)
        self.where[pool] = torch.arange(len(pool), device=self.device)
        columns = self.where.index_select(0, items)
        self.where[pool] = -1
        return rows[columns >= 0], columns[columns >= 0]
