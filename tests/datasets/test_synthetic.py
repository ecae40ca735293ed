"""The embedded set is as documented, and the same for ever."""

import warnings

import numpy as np
import pytest
from scipy.sparse.linalg import svds

from drrl_core import datasets
from drrl_core.datasets import Interactions, load


def ndcg_at_20(score: np.ndarray, data: Interactions) -> float:
    score = np.where(data.train.toarray() > 0, -np.inf, score)
    hits = np.take_along_axis(data.test.toarray(), np.argsort(-score, axis=1)[:, :20], axis=1)
    discount = 1 / np.log2(np.arange(2, 22))
    wanted = np.minimum(np.diff(data.test.indptr), 20)
    ideal = np.concatenate([[0], np.cumsum(discount)])[wanted]
    return float(((hits @ discount)[wanted > 0] / ideal[wanted > 0]).mean())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_synthetic_is_as_documented(seed):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load("synthetic", seed=seed)
    splits = [getattr(data, key).toarray() > 0 for key in datasets.SPLITS]
    assert sum(split.astype(int) for split in splits).max() == 1  # disjoint
    seen = np.any(splits, axis=0)
    assert (data.truth >= seen).all()
    assert 0.06 < data.truth.mean() < 0.09 and 0.5 < 1 - seen.sum() / data.truth.sum() < 0.65
    each = seen.sum(1)
    assert np.median(each) > 20 and each.max() <= 42 and 10 < (each < 15).sum() < 90
    assert np.allclose([s.sum() / seen.sum() for s in splits], (0.7, 0.1, 0.2), atol=0.01)
    popularity = np.sort(data.train.sum(axis=0))
    assert popularity[0] >= 1 and popularity[-80:].sum() > 0.35 * popularity.sum()  # skewed


@pytest.mark.parametrize("seed", [0, 1])
def test_synthetic_can_be_learned_but_not_solved(seed):
    data = load("synthetic", seed=seed)
    left, values, right = svds(data.train.astype(float), k=10, random_state=0)
    popularity = np.tile(data.train.sum(axis=0), (data.n_users, 1))
    assert 2 * ndcg_at_20(popularity, data) < ndcg_at_20(left * values @ right, data) < 0.5


def test_synthetic_is_pinned():
    """Another hash is another data set: results on it no longer compare with earlier ones."""
    assert load("synthetic").hash.startswith("3729ab8db0414491")
    assert load("synthetic", seed=7).hash.startswith("3589b3c2bcd3d571")
