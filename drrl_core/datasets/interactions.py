"""Who interacted with what: the immutable `Interactions`, and the error that data may raise."""

import hashlib
import itertools
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

SPLITS = ("train", "valid", "test")


class DataError(Exception):
    """Data that cannot be had or read; the message names file and line, or URL, and the way out."""


@dataclass(frozen=True, eq=False)
class Interactions:
    """Who interacted with what, in three disjoint splits; immutable.

    Args:
        name: the set's name, for titles and records.
        n_users: rows of each split, >= 1.
        n_items: columns of each split, >= 1.
        train: pairs to learn from, (n_users, n_items); any scipy sparse array, stored as a
            read-only CSR copy: ones, sorted indices, no duplicates.
        valid: pairs to select by, likewise.
        test: pairs to report on, likewise.
        user_ids: the original label of each user, (n_users,), or None where ids are used as is.
        item_ids: the original label of each item, (n_items,), or None.
        truth: bool (n_users, n_items), True where the user would really like the item; known for
            generated data alone, otherwise None.
        dropped: of your own file, why rows of it are in no split, and how many; otherwise None.
        report: of your own file, how it was read: its layout, lines, rows, columns; otherwise None.

    Raises:
        ValueError: an array's shape is not that of n_users and n_items; or a pair is in two splits.

    >>> from drrl_core.datasets import load
    >>> data = load("synthetic")
    >>> data
    Interactions(name='synthetic', n_users=1000, n_items=800)
    >>> false_negative = data.truth & (data.train.toarray() == 0)
    """

    name: str
    n_users: int
    n_items: int
    train: sparse.csr_array = field(repr=False)
    valid: sparse.csr_array = field(repr=False)
    test: sparse.csr_array = field(repr=False)
    user_ids: np.ndarray | None = field(default=None, repr=False)
    item_ids: np.ndarray | None = field(default=None, repr=False)
    truth: np.ndarray | None = field(default=None, repr=False)
    dropped: dict[str, int] | None = field(default=None, repr=False)
    report: dict[str, Any] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        shape = (self.n_users, self.n_items)
        wanted: dict[str, tuple[int, ...]] = {"truth": shape}
        wanted |= {"user_ids": shape[:1], "item_ids": shape[1:]}
        for key in SPLITS:
            if (split := getattr(self, key)).shape != shape:
                raise ValueError(f"{key} has shape {split.shape}, not {shape}")
            split = canonical(split)
            for array in (split.data, split.indices, split.indptr):
                array.setflags(write=False)
            object.__setattr__(self, key, split)
        for key, size in wanted.items():
            if (value := getattr(self, key)) is None:
                continue
            if value.shape != size:
                raise ValueError(f"{key} has shape {value.shape}, not {size}")
            value = np.array(value)
            value.setflags(write=False)
            object.__setattr__(self, key, value)
        for one, other in itertools.combinations(SPLITS, 2):
            if shared := int(getattr(self, one).multiply(getattr(self, other)).nnz):
                raise ValueError(
                    f"{shared:,} pairs are in {one} and in {other}: the splits must be disjoint, "
                    "for what is masked in the ranking is never found. Take them from one."
                )

    def user_id(self, index: int) -> int | str:
        """A user by its own id, where the file has ids; else its number.

        >>> from drrl_core.datasets import load
        >>> load("synthetic").user_id(3)
        3
        """
        return index if self.user_ids is None else self.user_ids[index].item()

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of the sizes and the three splits, the same on every platform.

        >>> from drrl_core.datasets import load
        >>> load("synthetic").hash == load("synthetic", seed=1).hash
        False
        """
        digest = hashlib.sha256(np.array([self.n_users, self.n_items], "<i8").tobytes())
        for split in (self.train, self.valid, self.test):
            digest.update(split.indptr.astype("<i8").tobytes())
            digest.update(split.indices.astype("<i8").tobytes())
        return digest.hexdigest()

    def stats(self) -> pd.DataFrame:
        """Sizes and gaps, one row a quantity, one column under the set's name.

        Returns:
            Counts of users, items and pairs; density: all pairs / (users x items), dimensionless.
            `pd.concat([a.stats(), b.stats()], axis=1)` sets two data sets side by side.

        >>> from drrl_core.datasets import load
        >>> load("synthetic").stats().loc["users", "synthetic"]
        1000
        """
        pairs = {f"{key} pairs": int(getattr(self, key).nnz) for key in SPLITS}
        users_without, items_without = without_train(self)
        rows = {
            "users": self.n_users,
            "items": self.n_items,
            **pairs,
            "density": sum(pairs.values()) / (self.n_users * self.n_items),
            "users without train pairs": users_without,
            "items without train pairs": items_without,
            "median train pairs a user": float(np.median(np.diff(self.train.indptr))),
            "most train pairs a user": int(np.diff(self.train.indptr).max()),
        }
        return pd.Series(rows, dtype=object).to_frame(self.name)


def canonical(matrix: Any) -> Any:
    """A copy: float32 ones, int64 indices (they index a tensor as they are), sorted, no repeats."""
    matrix = sparse.csr_array(matrix, dtype=np.float32, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    matrix.indices, matrix.indptr = (a.astype(np.int64) for a in (matrix.indices, matrix.indptr))
    matrix.data[:] = 1
    return matrix


def without_train(data: Interactions) -> tuple[int, int]:
    """How many users and how many items no train pair mentions."""
    items = np.bincount(data.train.indices, minlength=data.n_items)
    return int((np.diff(data.train.indptr) == 0).sum()), int((items == 0).sum())


def from_keys(
    name: str, shape: tuple[int, int], splits: list[np.ndarray], **more: Any
) -> Interactions:
    """From keys user * n_items + item, one sorted array a split; warns where train has gaps."""
    parts = []
    for keys in splits:
        ends = np.searchsorted(keys, np.arange(shape[0] + 1, dtype=np.int64) * shape[1])
        content = (np.ones(len(keys), np.float32), keys % shape[1], ends)
        parts.append(sparse.csr_array(content, shape=shape))
    train, valid, test = parts
    data = Interactions(name, int(shape[0]), int(shape[1]), train, valid, test, **more)
    users, items = without_train(data)
    if users or items:
        warnings.warn(
            f"{data.name}: {users:,} of {data.n_users:,} users and {items:,} of {data.n_items:,} "
            "items have no train pair; nothing is learned about them.",
            UserWarning,
            stacklevel=3,
        )
    return data
