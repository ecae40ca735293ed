"""Interactions are immutable, canonical, and what they say they are."""

import hashlib
import pickle
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from scipy import sparse

from drrl_core.datasets import Interactions, load


def small(**changes) -> Interactions:
    splits = {
        "train": [[1, 1, 0], [0, 0, 0]],
        "valid": [[0, 0, 1], [0, 0, 0]],
        "test": [[0, 0, 0], [1, 0, 0]],
    }
    splits = {key: sparse.csr_array(rows) for key, rows in splits.items()}
    return Interactions("small", 2, 3, **splits | changes)


def test_interactions_are_immutable():
    data = load("synthetic")
    with pytest.raises(FrozenInstanceError):
        data.n_users = 3
    for split in (data.train, data.valid, data.test):
        for array in (split.data, split.indices, split.indptr):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        data.truth[0, 0] = True


def test_splits_are_canonical_copies():
    rows, columns = np.array([0, 0, 0, 1]), np.array([2, 0, 2, 1])
    given_matrix = sparse.coo_array((np.array([3, 1, 1, 0]), (rows, columns)), shape=(2, 3))
    data = small(train=given_matrix, valid=sparse.csr_array((2, 3)))
    assert data.train.indices.tolist() == [0, 2] and data.train.data.tolist() == [1, 1]
    assert data.train.indptr.tolist() == [0, 2, 2] and data.train.has_canonical_format
    assert data.train.dtype == np.float32 and data.train.indices.dtype == np.int64
    assert given_matrix.nnz == 4


def test_read_only_splits_serve_the_usual_operations():
    train = load("synthetic").train
    assert (train @ np.ones(800)).sum() == train.nnz == (train.T @ train).trace()
    assert train[[3, 5]].sum() == train[[3]].sum() + train[[5]].sum()
    assert (train.toarray() == train.tocsc().tocoo().toarray()).all()
    assert (train + train).max() == 2 and train.multiply(train).nnz == train.nnz
    copy = pickle.loads(pickle.dumps(load("synthetic")))
    assert copy.hash == load("synthetic").hash


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"valid has shape \(3, 3\)"):
        small(valid=sparse.csr_array((3, 3)))
    with pytest.raises(ValueError, match="user_ids has shape"):
        small(user_ids=np.arange(3))


@pytest.mark.parametrize(
    ("one", "other"), [("train", "valid"), ("train", "test"), ("valid", "test")]
)
def test_a_pair_in_two_splits_is_refused(one, other):
    shared = small()
    more = {other: getattr(shared, other) + getattr(shared, one)}
    with pytest.raises(ValueError, match=rf"\d pairs are in {one} and in {other}: .* disjoint"):
        replace(shared, **more)


def test_hash_tells_content_and_nothing_else():
    data = small()
    narrow = sparse.csr_array(data.train)
    narrow.indices, narrow.indptr = (a.astype(np.int32) for a in (narrow.indices, narrow.indptr))
    assert replace(data, train=narrow, name="other").hash == data.hash
    assert replace(data, valid=data.test, test=data.valid).hash != data.hash
    assert replace(data, train=data.valid, valid=data.train).hash != data.hash
    expected = hashlib.sha256(np.array([2, 3, 0, 2, 2, 0, 1, 0, 1, 1, 2, 0, 0, 1, 0], "<i8"))
    assert data.hash == expected.hexdigest()


def test_stats():
    table = small().stats()["small"]
    assert table["train pairs"] == 2 and table["valid pairs"] == table["test pairs"] == 1
    assert table["density"] == 4 / 6 and table["median train pairs a user"] == 1
    assert table["users without train pairs"] == 1 and table["items without train pairs"] == 1
