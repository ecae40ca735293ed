"""Popularity put back when ranking: the scores, the choice of b, and what the lists consist of."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from drrl_core import datasets
from drrl_core.train import metrics, popularity


@pytest.fixture(scope="module")
def world():
    """Tables, and train, valid, test pairs; the last three users have no train pair."""
    rng = np.random.default_rng(0)
    taken = np.where(rng.random((60, 90)) < 0.3, rng.integers(1, 4, (60, 90)), 0)
    taken[:, :10] = rng.integers(1, 3, (60, 10))  # popular
    taken[-3:] = np.where(taken[-3:] == 1, 3, taken[-3:])
    tables = (torch.tensor(rng.normal(size=(n, 5)) * 3, dtype=torch.float32) for n in (60, 90))
    return *tables, *(csr_array((taken == split).astype(float)) for split in (1, 2, 3))


def report(users, items, train, valid, test, *, similarity="cosine", masks=None):
    ranked = popularity.by_tables(users, items, train, similarity=similarity)
    return popularity.report(ranked, train, valid, test, masks=masks)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("b", [-0.7, 0.0, 0.3, 2.0])
def test_scores_are_as_the_formula_says(world, similarity, b):
    users, items, train, *_ = world
    u, i = users.double().numpy(), items.double().numpy()
    if similarity == "cosine":
        u /= np.linalg.norm(u, axis=1)[:, None]
        i /= np.linalg.norm(i, axis=1)[:, None]
    scores = u @ i.T
    dense = train.toarray()
    s = np.mean([scores[user].std() for user in range(60) if dense[user].any()])
    wanted = scores + b * s * np.log(1 + dense.sum(0))
    rows, columns = popularity.adjusted(users, items, train, b, similarity=similarity)
    assert np.allclose(rows @ columns.T, wanted, atol=1e-4 * np.abs(wanted).max())


def test_at_zero_nothing_changes_and_far_out_popularity_alone_decides(world):
    users, items, train, *_ = world
    wanted = np.arange(60)
    plain = metrics.rank(users, items, wanted, k=10)
    for b, same in ((0.0, True), (0.5, False)):
        tables = popularity.adjusted(users, items, train, b)
        assert (metrics.rank(*tables, wanted, k=10, similarity="dot") == plain).all() == same
    pairs = np.bincount(train.indices, minlength=90)
    far = metrics.rank(
        *popularity.adjusted(users, items, train, 1e3), wanted, k=10, similarity="dot"
    )
    assert (np.sort(pairs[far], axis=1) == np.sort(pairs)[-10:]).all()


@given(st.floats(-8, 8), st.floats(0.1, 9), st.floats(0.1, 9))
def test_the_top_of_a_curve_that_has_one_is_found(top, left, right):
    found = popularity.best_strength(lambda b: (b - top) * (left if b < top else -right))
    assert abs(found - top) <= 0.1 + 1e-6
    assert abs(found) <= popularity.FARTHEST
    assert found == round(found, 1)


def test_of_equal_accuracies_the_strength_nearest_to_zero_is_taken():
    assert popularity.best_strength(lambda b: 0.5) == 0
    assert popularity.best_strength(lambda b: float(b >= 0.7)) == pytest.approx(0.7)
    assert popularity.best_strength(lambda b: -b) == -popularity.FARTHEST
    assert popularity.best_strength(lambda b: b) == popularity.FARTHEST


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_the_report_is_what_the_parts_say(world, similarity):
    users, items, train, valid, test = world
    masks = (train, valid)
    found = report(*world, similarity=similarity, masks=masks)

    def evaluated(b, target, masks):
        tables = popularity.adjusted(users, items, train, b, similarity=similarity)
        return metrics.evaluate(*tables, target, masks=masks, similarity="dot").mean()

    b = found["b"]
    for split, target, masked in (("valid", valid, (train,)), ("test", test, masks)):
        wanted = evaluated(b, target, masked)
        assert found[split] == pytest.approx(wanted[["recall@20", "ndcg@20"]].to_dict())
    assert found["valid"]["ndcg@20"] >= evaluated(0.0, valid, (train,))["ndcg@20"]
    for name, tables in (
        ("lists", (users, items, similarity)),
        ("lists_b", (*popularity.adjusted(users, items, train, b, similarity=similarity), "dot")),
    ):
        rows = metrics.seekers(test)
        best = metrics.rank(*tables[:2], rows, masks=masks, k=20, similarity=tables[2])
        assert found[name] == metrics.exposure(best, train).to_dict()


def test_test_has_no_part_in_the_choice(world):
    *tables, train, valid, test = world
    other = csr_array(test.toarray()[:, ::-1] * (train.toarray() == 0))
    first, second = (report(*tables, train, valid, each) for each in (test, other))
    assert first["b"] == second["b"] and first["valid"] == second["valid"]
    assert first["test"] != second["test"]


def test_a_popular_world_is_found_to_be_one():
    """Scores that know nothing of popularity, in a world where nothing else counts."""
    rng = np.random.default_rng(1)
    weight = 1 / np.arange(1, 301)
    pairs = np.zeros((400, 300), int)
    for user in range(400):
        taken = rng.choice(300, 20, replace=False, p=weight / weight.sum())
        pairs[user, taken] = rng.permutation([1] * 12 + [2] * 4 + [3] * 4)
    splits = [csr_array((pairs == split).astype(float)) for split in (1, 2, 3)]
    tables = (torch.tensor(rng.normal(size=(n, 8)), dtype=torch.float32) for n in (400, 300))
    found = report(*tables, *splits)
    assert found["b"] > 1
    assert found["lists_b"]["mean_popularity"] > 2 * found["lists"]["mean_popularity"]
    assert found["lists_b"]["coverage"] < found["lists"]["coverage"]
    assert found["lists_b"]["gini"] > found["lists"]["gini"]


def test_without_anything_held_out_there_is_no_strength(world):
    *tables, train, valid, test = world
    empty = csr_array(train.shape)
    assert report(*tables, train, empty, test)["b"] is None
    nothing = report(*tables, train, valid, empty)
    assert nothing["lists"]["coverage"] == 0 and math.isnan(nothing["lists"]["mean_popularity"])


@given(st.data())
@settings(deadline=None)
def test_what_lists_consist_of_is_counted_one_by_one(data):
    n = data.draw(st.integers(1, 12))
    k = data.draw(st.integers(1, n))
    rows = data.draw(st.lists(st.permutations(range(n)), min_size=1, max_size=6))
    pairs = data.draw(st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1))
    best, train = np.array(rows)[:, :k], csr_array(np.array(pairs, float))
    found = metrics.exposure(best, train)
    shown = [sum(item in row for row in best.tolist()) for item in range(n)]
    popular = [sum(row[item] for row in pairs) for item in range(n)]
    assert found["coverage"] == pytest.approx(sum(count > 0 for count in shown) / n)
    places = [popular[item] for row in best.tolist() for item in row]
    assert found["mean_popularity"] == pytest.approx(sum(places) / len(places))
    apart = sum(abs(a - b) for a in shown for b in shown)  # Gini's mean difference
    assert found["gini"] == pytest.approx(apart / (2 * n * sum(shown)), abs=1e-12)


def test_the_default_ranking_is_not_touched():
    """b = 0 in a report is the ranking without it, to the last tie."""
    data = datasets.load("synthetic")
    tables = torch.ones(data.n_users, 2), torch.ones(data.n_items, 2)  # every score alike
    found = report(*tables, data.train, data.valid, data.test)
    rows = metrics.seekers(data.test)
    best = metrics.rank(*tables, rows, masks=(data.train,), k=20)
    assert found["lists"] == metrics.exposure(best, data.train).to_dict()


def test_a_curve_has_the_report_of_its_own_b_and_of_zero(world):
    *tables, train, valid, test = world
    told = report(*world)
    ranked = popularity.by_tables(*tables, train)
    found = popularity.curve(ranked, train, valid, test, strengths=(0.0, told["b"]))
    assert found.index.tolist() == [0.0, told["b"]] and found.index.name == "b"
    lists = ["coverage", "mean_popularity", "gini"]
    for b, part in zip(found.index, ("lists", "lists_b"), strict=True):
        assert found.loc[b, lists].to_dict() == pytest.approx(told[part])
    with_b = found.loc[told["b"]]
    for split in ("valid", "test"):
        own = {name: with_b[f"{split}_{name}"] for name in metrics.ACCURACY}
        assert own == pytest.approx(told[split])
    assert popularity.CURVE[0] == popularity.LOW and popularity.CURVE[-1] == popularity.HIGH
