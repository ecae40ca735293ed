"""Classical models: each formula retyped naively, and against solvers that know nothing of it."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from drrl_core import classical
from drrl_core.train import metrics, popularity


def pairs(seed: int, users: int = 12, items: int = 8, share: float = 0.4) -> csr_array:
    """Some train pairs, ones."""
    rng = np.random.default_rng(seed)
    return csr_array((rng.random((users, items)) < share).astype(np.float32))


def dense(name: str, train: csr_array, **hyper) -> np.ndarray:
    """The scores of every user."""
    return classical.make(name, train, **hyper)(np.arange(train.shape[0])).numpy()


def test_popularity_counts():
    train = pairs(0)
    wanted = [[sum(train[[u]].toarray()[0, i] for u in range(12)) for i in range(8)]] * 12
    np.testing.assert_array_equal(dense("popularity", train), wanted)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("neighbours", "shrink"), [(3, 0.0), (2, 5.0), (100, 1.0)])
def test_itemknn_by_loops(seed, neighbours, shrink):
    train = pairs(seed)
    x = train.toarray().astype(float)
    n_users, n_items = x.shape
    wanted = np.zeros_like(x)
    for j in range(n_items):
        alike = {}
        for i in range(n_items):
            both = sum(x[u, i] * x[u, j] for u in range(n_users))
            if i != j and both:
                sizes = x[:, i].sum() * x[:, j].sum()
                alike[i] = both / (sizes**0.5 + shrink)
        # as the model has them, in single precision, so that equals are equals
        near = sorted(alike, key=lambda i: (-np.float32(alike[i]), i))[:neighbours]
        for u in range(n_users):
            wanted[u, j] = sum(alike[i] for i in near if x[u, i])
    found = dense("itemknn", train, neighbours=neighbours, shrink=shrink)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@given(st.integers(0, 10**6), st.floats(0.3, 300))
@settings(max_examples=30, deadline=None)
def test_ease_is_the_constrained_least_squares(seed, l2):
    """Column j of B: ridge regression of item j on the other items, each solved alone."""
    train = pairs(seed)
    x = train.toarray().astype(float)
    weights = np.zeros((8, 8))
    for j in range(8):
        others = [i for i in range(8) if i != j]
        stacked = np.vstack([x[:, others], np.sqrt(l2) * np.eye(7)])
        target = np.concatenate([x[:, j], np.zeros(7)])
        weights[others, j] = np.linalg.lstsq(stacked, target, rcond=None)[0]
    np.testing.assert_allclose(dense("ease", train, l2=l2), x @ weights, atol=2e-5)


@given(st.integers(0, 10**6), st.integers(1, 10), st.floats(0, 40), st.floats(0.05, 30))
@settings(max_examples=40, deadline=None)
def test_half_a_sweep_solves_the_normal_equations(seed, dim, alpha, reg):
    """Rows with fewer pairs than numbers and with more, and rows without any."""
    train = pairs(seed, users=15, items=9)
    table = np.random.default_rng(seed).normal(size=(9, dim)).astype(np.float32)
    found = classical.solved(torch.from_numpy(table), train, alpha=alpha, reg=reg).numpy()
    q, x = table.astype(float), train.toarray().astype(float)
    for u in range(15):
        weight = np.diag(1 + alpha * x[u])
        wanted = np.linalg.solve(q.T @ weight @ q + reg * np.eye(dim), q.T @ weight @ x[u])
        np.testing.assert_allclose(found[u], wanted, rtol=2e-3, atol=2e-4)


def objective(users: np.ndarray, items: np.ndarray, x: np.ndarray, alpha: float, reg: float):
    gap = (1 + alpha * x) * (x - users @ items.T) ** 2
    return gap.sum() + reg * ((users**2).sum() + (items**2).sum())


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("users", "items", "dim"), [(40, 30, 4), (30, 40, 4), (12, 8, 5), (4, 9, 64)]
)
def test_svd_is_the_low_rank_filter(users, items, dim, power):
    """X̃ V Vᵀ I^power, with V from the eigenvectors of X̃ᵀX̃: no other pairs decide the ranking."""
    train = pairs(3, users, items)
    x = train.toarray().astype(float)
    sizes_u, sizes_i = np.maximum(x.sum(1), 1), np.maximum(x.sum(0), 1)
    scaled = x / sizes_u[:, None] ** 0.5 / sizes_i**power
    values, vectors = np.linalg.eigh(scaled.T @ scaled)
    leading = vectors[:, np.argsort(-values)[: min(dim, users, items)]]
    wanted = scaled @ leading @ leading.T * sizes_i**power
    np.testing.assert_allclose(dense("svd", train, dim=dim, power=power), wanted, atol=1e-5)


def test_ials_lowers_its_objective_at_each_sweep_and_is_a_function_of_the_seed():
    train = pairs(3, users=40, items=20)
    x, back, values = train.toarray(), csr_array(train.T), []
    items = 0.01 * torch.rand(20, 5, generator=torch.Generator().manual_seed(0))
    for _ in range(6):
        users = classical.solved(items, train, alpha=3.0, reg=1.0)
        items = classical.solved(users, back, alpha=3.0, reg=1.0)
        values.append(objective(users.numpy(), items.numpy(), x, 3.0, 1.0))
    assert all(after <= before * (1 + 1e-6) for before, after in itertools.pairwise(values))
    one, again, other = (dense("ials", train, dim=5, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("name", classical.REGISTRY)
def test_an_entry_says_what_others_need(name):
    line = classical.lookup(name)
    known = classical.hyperparameters(name)
    assert {f"backbone.{each}" for each in known} >= {*line.search}
    for full, each in line.search.items():
        assert each.low <= known[full.removeprefix("backbone.")] <= each.high
    assert line.label and line.colour.startswith("#")
    assert line.source or name == "popularity"
    train = pairs(1)
    before = torch.random.get_rng_state()
    same = [dense(name, train, seed=seed) for seed in (0, 1)]
    assert np.array_equal(*same) is not line.seeded
    assert torch.equal(before, torch.random.get_rng_state())
    block = classical.make(name, train)(np.array([2, 0]))
    block[:] = 0  # may be written to
    np.testing.assert_array_equal(dense(name, train), same[0])


@pytest.mark.parametrize("name", classical.REGISTRY)
def test_users_and_items_without_pairs_are_finite(name):
    train = csr_array(np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 1]], np.float32))
    assert np.isfinite(dense(name, train)).all()
    assert np.isfinite(dense(name, csr_array((1, 1), dtype=np.float32))).all()


def test_what_is_refused_says_what_is_allowed():
    train = pairs(0)
    for hyper, message in (
        ({"l2": 0.0}, r"l2 must lie in \(0, inf\), not 0.0"),
        ({"l3": 1.0}, "model 'ease' has no hyper-parameter 'l3'"),
    ):
        with pytest.raises(ValueError, match=message):
            classical.make("ease", train, **hyper)
    with pytest.raises(ValueError, match=r"no model is called 'eese' \(did you mean 'ease'"):
        classical.make("eese", train)
    for name, hyper in (
        ("itemknn", {"neighbours": 0}),
        ("itemknn", {"shrink": -1.0}),
        ("ials", {"reg": 0.0}),
        ("ials", {"dim": 0}),
        ("ials", {"alpha": -1.0}),
        ("svd", {"dim": 0}),
        ("svd", {"power": 1.5}),
    ):
        with pytest.raises(ValueError, match="must"):
            classical.make(name, train, **hyper)


def test_memory_is_looked_at_before_it_is_asked_for():
    if not Path("/proc/meminfo").exists():
        pytest.skip("this system does not tell how much memory there is")
    with pytest.raises(ValueError, match=r"EASE on 9,000,000 items takes .* GB of memory, and"):
        classical.ease(csr_array((1, 9_000_000), dtype=np.float32))


def test_ranking_by_scores_is_ranking_by_tables():
    """The same masks, the same ties, with and without popularity."""
    rng, train = np.random.default_rng(9), pairs(0, users=30, items=40, share=0.1)
    target = csr_array((rng.random((30, 40)) < 0.1) & (train.toarray() == 0))
    users, items = (torch.from_numpy(rng.integers(-2, 3, (n, 3))).float() for n in (30, 40))
    wanted = metrics.seekers(target)

    def scores(who):
        return users[torch.from_numpy(who)] @ items.T

    same = metrics.rank(users, items, wanted, masks=(train,), similarity="dot")
    by_scores = metrics.rank_by(scores, wanted, 40, masks=(train,), size=7)
    np.testing.assert_array_equal(same, by_scores)
    reports = list(
        popularity.report(ranked, train, target, target)
        for ranked in (
            popularity.by_tables(users, items, train, similarity="dot"),
            popularity.by_scores(scores, train),
        )
    )
    assert reports[0] == reports[1]
