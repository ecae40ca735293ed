"""Rankings, metrics and tests against loops that anyone can check, ir_measures and SciPy."""

import math
import tracemalloc
from collections import defaultdict
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.sparse import csr_array

from drrl_core.train import metrics
from drrl_core.train.metrics import (
    accuracy,
    by_activity,
    by_popularity,
    compare,
    evaluate,
    rank,
    seekers,
    topk,
    unit_or_raw,
)

TIED = st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0])


@given(st.data())
@settings(deadline=None)
def test_topk_is_the_head_of_a_full_stable_sort(data):
    n_rows, n_items = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 30))
    k = data.draw(st.integers(1, n_items + 3))
    block = data.draw(st.sampled_from([2, 3, 64]))  # small ones go through blocks, several times
    row = st.lists(TIED, min_size=n_items, max_size=n_items)
    rows = data.draw(st.lists(row, min_size=n_rows, max_size=n_rows))
    expected = [sorted(range(n_items), key=lambda j, row=row: (-row[j], j))[:k] for row in rows]
    with mock.patch.object(metrics, "BLOCK", block):
        assert topk(torch.tensor(rows), k).tolist() == expected


@pytest.mark.parametrize("values", [9, 3_000, 10**7])
def test_topk_of_a_long_row_with_ties_across_the_last_place(values):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, values, (50, 5_003), generator=generator).float()
    expected = scores.sort(dim=-1, descending=True, stable=True).indices
    for k in (1, 20, 39, 40, 300, 5_003):
        assert torch.equal(topk(scores, k), expected[:, :k])
    scores[::2, 7:] = -math.inf  # nearly everything masked
    expected = scores.sort(dim=-1, descending=True, stable=True).indices
    assert torch.equal(topk(scores, 20), expected[:, :20])


def test_topk_of_a_long_row_looks_at_few_of_its_scores(monkeypatch):
    seen, plain = [], torch.Tensor.topk

    def watched(scores, k):
        seen.append(scores.shape[-1])
        return plain(scores, k)

    monkeypatch.setattr(torch.Tensor, "topk", watched)
    topk(torch.rand(3, 40_981, generator=torch.Generator().manual_seed(0)), 20)
    assert seen == [40_981 // 64, 20 * 64 + 40_981 % 64]


def problem(*, whole: bool, seed: int = 0):
    """Tables, and disjoint train, valid and test pairs; whole numbers tie often and sum exactly."""
    rng = np.random.default_rng(seed)
    n_users, n_items, d = 30, 45, 3
    values = [rng.integers(-1, 2, (n, d)) if whole else rng.normal(size=(n, d)) for n in (30, 45)]
    users, items = (
        torch.tensor(v, dtype=torch.float64 if whole else torch.float32) for v in values
    )
    part = rng.choice(4, p=[0.7, 0.15, 0.05, 0.1], size=(n_users, n_items))
    part[:3] = np.where(part[:3] == 3, 0, part[:3])  # users without anything to find
    part[3] = np.where(np.arange(n_items) < 43, 1, 3)  # and one with two candidates left
    part[4] = np.where(np.arange(n_items) < 40, 3, 0)  # and one with more to find than k
    return users, items, *(csr_array((part == p).astype(float)) for p in (1, 2, 3))


def naive(scores: np.ndarray, target, masks, k: int) -> dict[int, list[float]]:
    """Recall, NDCG, precision, hit rate and reciprocal rank, user by user, item by item."""
    target, masks = target.toarray(), [mask.toarray() for mask in masks]
    found = {}
    for user, row in enumerate(scores.tolist()):
        wanted = {j for j in range(len(row)) if target[user, j]}
        if not wanted:
            continue
        candidates = [j for j in range(len(row)) if not any(mask[user, j] for mask in masks)]
        best = sorted(candidates, key=lambda j, row=row: (-row[j], j))[:k]
        hits = [place for place, j in enumerate(best, start=1) if j in wanted]
        ideal = sum(1 / math.log2(place + 1) for place in range(1, min(k, len(wanted)) + 1))
        found[user] = [
            len(hits) / len(wanted),
            sum(1 / math.log2(place + 1) for place in hits) / ideal,
            len(hits) / k,
            float(bool(hits)),
            1 / hits[0] if hits else 0.0,
        ]
    return found


@pytest.mark.parametrize("whole", [True, False], ids=["ties", "reals"])
@pytest.mark.parametrize("mask", ["train", "train+valid", "nothing"])
@pytest.mark.parametrize("k", [1, 5, 20, 100])
def test_metrics_are_those_of_naive_loops(whole, mask, k):
    users, items, train, valid, test = problem(whole=whole)
    masks = {"train": (train,), "train+valid": (train, valid), "nothing": ()}[mask]
    table = evaluate(users, items, test, masks=masks, ks=(k,), similarity="dot")
    expected = naive((users @ items.T).numpy(), test, masks, k)
    assert table.columns.tolist() == [f"{name}@{k}" for name in metrics.NAMES]
    assert table.index.tolist() == list(expected) and 0 not in expected and len(expected) > 20
    np.testing.assert_allclose(table.to_numpy(), list(expected.values()), rtol=1e-12)


def test_metrics_are_those_of_ir_measures():
    ir = pytest.importorskip("ir_measures")
    users, items, train, _, test = problem(whole=False)
    scores = (users @ items.T).masked_fill(torch.from_numpy(train.toarray()) > 0, -math.inf)
    kept = torch.nonzero(scores > -math.inf).tolist()
    ranked = [ir.ScoredDoc(str(u), str(j), float(scores[u, j])) for u, j in kept]
    relevant = [ir.Qrel(str(u), str(j), 1) for u, j in zip(*test.nonzero(), strict=True)]
    table = evaluate(users, items, test, masks=(train,), ks=(5, 20), similarity="dot")
    for k in (5, 20):
        wanted = ir.R @ k, ir.nDCG @ k, ir.P @ k, ir.Success @ k, ir.RR @ k
        values = {(str(m.measure), int(m.query_id)): m.value for m in
                  ir.iter_calc(wanted, relevant, ranked)}  # fmt: skip
        assert len(values) == 5 * len(table)
        for name, measure in zip(metrics.NAMES, wanted, strict=True):
            expected = [values[str(measure), user] for user in table.index]
            np.testing.assert_allclose(table[f"{name}@{k}"], expected, rtol=1e-9, err_msg=name)


def test_several_cutoffs_are_what_each_is_alone():
    users, items, train, _, test = problem(whole=True)
    together = evaluate(users, items, test, masks=(train,), ks=(20, 3, 100))
    for k in (20, 3, 100):
        alone = evaluate(users, items, test, masks=(train,), ks=(k,))
        assert together[alone.columns].equals(alone)


def test_a_cutoff_below_one_is_refused():
    users, items, _, _, test = problem(whole=True)
    best = rank(users, items, seekers(test))
    for refused in (
        lambda: evaluate(users, items, test, ks=(0,)),
        lambda: accuracy(best, test, ks=(5, 0)),
        lambda: by_popularity(best, test, test, ks=(5, 0)),
    ):
        with pytest.raises(ValueError, match="every cut-off must be at least 1, not 0"):
            refused()


def test_rankings_that_are_not_those_of_the_seekers_are_refused():
    users, items, _, _, test = problem(whole=True)
    everyone = rank(users, items, np.arange(30), k=5)
    with pytest.raises(ValueError, match="30 rankings, but 27 users with something to find"):
        accuracy(everyone, test, ks=(5,))
    best = rank(users, items, seekers(test), k=5)
    with pytest.raises(ValueError, match="a ranking of 5 items does not reach the cut-off 20"):
        by_popularity(best, test, test)
    whole = rank(users, items, seekers(test), k=100)
    assert whole.shape[1] == 45 and len(accuracy(whole, test, ks=(100,))) == 27


def test_pairs_may_stand_in_any_order():
    users, items, train, _, test = problem(whole=True)
    turned = csr_array((test.data, test.indices.copy(), test.indptr), shape=test.shape)
    for start, end in zip(test.indptr, test.indptr[1:], strict=False):
        turned.indices[start:end] = test.indices[start:end][::-1]
    expected = evaluate(users, items, test, masks=(train,))
    assert evaluate(users, items, turned, masks=(train,)).equals(expected)


def test_nothing_to_find_gives_an_empty_table():
    users, items, train, *_ = problem(whole=True)
    table = evaluate(users, items, csr_array(train.shape), masks=(train,), ks=(2,))
    assert table.shape == (0, 5) and "ndcg@2" in table


@pytest.mark.parametrize("memory", [1, 8 * 45 * 16, 8 * 45 * 20 + 7])
def test_memory_bounds_the_scores_and_changes_nothing(memory, monkeypatch):
    users, items, train, _, test = problem(whole=True)
    plenty = evaluate(users, items, test, masks=(train,), similarity="dot")
    taken = []

    def watched(scores, k):
        assert not scores.requires_grad  # nothing is kept for a backward pass
        taken.append(scores.numel() * scores.element_size())
        return topk(scores, k)

    monkeypatch.setattr(metrics, "topk", watched)
    users.requires_grad_()
    frugal = evaluate(users, items, test, masks=(train,), similarity="dot", memory=memory)
    assert frugal.equals(plenty) and len(taken) > 1
    assert max(taken) <= max(memory, 8 * 45 * 16)  # 16 rows are the least
    assert len(taken) == 2


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_rankings_do_not_depend_on_who_is_ranked_together(similarity):
    # The scores of a user would be equal, were they exact: their last bits make the ranking.
    rng = np.random.default_rng(0)
    users = torch.from_numpy(rng.uniform(1, 2, (50, 1))).float().expand(50, 64).contiguous()
    items = torch.from_numpy(rng.permuted(np.tile(rng.normal(size=64), (5_000, 1)), axis=1)).float()
    items[2_500:] = items[:2_500]
    everyone = rank(users, items, np.arange(50), similarity=similarity)
    assert len(np.unique(everyone)) > 20  # the last bits do differ
    few = rank(users, items, np.arange(50), similarity=similarity, memory=1)
    assert (few == everyone).all()
    for user in range(0, 50, 7):
        alone = rank(users, items, np.array([user]), similarity=similarity)
        assert (alone == everyone[user]).all()
    pair = rank(users, items, np.array([3, 3]), similarity=similarity)
    assert (pair == everyone[3]).all()


def test_masked_items_come_after_every_candidate_and_ties_by_index():
    items = torch.tensor([[5.0], [1.0], [1.0], [4.0]])
    masks = (csr_array([[1, 0, 0, 0]]), csr_array([[0, 0, 0, 1]]))
    best = rank(torch.ones(1, 1), items, np.array([0]), masks=masks, k=9, similarity="dot")
    assert best.tolist() == [[1, 2, 0, 3]]


def test_rank_takes_users_in_the_order_given():
    users, items, train, *_ = problem(whole=True)
    everyone = rank(users, items, np.arange(30), masks=(train,), similarity="dot")
    few = np.array([7, 2, 7])
    some = rank(users, items, few, masks=(train,), similarity="dot", memory=1)
    assert (some == everyone[few]).all()


def test_dot_listens_to_length_and_cosine_does_not():
    users, items = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0], [9.0, 9.0]])
    ranked = {s: rank(users, items, np.array([0]), k=1, similarity=s) for s in ("cosine", "dot")}
    assert ranked["cosine"].item() == 0 and ranked["dot"].item() == 1
    assert torch.equal(unit_or_raw(items, "dot"), items)
    np.testing.assert_allclose(unit_or_raw(items, "cosine"), [[1, 0], [0.5**0.5, 0.5**0.5]])
    with pytest.raises(ValueError, match="similarity must be 'cosine' or 'dot', not 'cos'"):
        rank(users, items, np.array([0]), similarity="cos")


def test_cosine_metrics_are_dot_metrics_of_unit_rows():
    users, items, train, _, test = problem(whole=False)
    unit = [table / table.norm(dim=-1, keepdim=True) for table in (users, items)]
    expected = naive((unit[0] @ unit[1].T).numpy(), test, (train,), 20)
    table = evaluate(users, items, test, masks=(train,))
    np.testing.assert_allclose(table.to_numpy(), list(expected.values()), rtol=1e-12)


# ---------------------------------------------------------------------------- by group


def naive_groups(counts: list[int], groups: int) -> list[list[int]]:
    """Members of each: cut the sorted members evenly, then let equals join the first of them."""
    order = sorted(range(len(counts)), key=lambda i: counts[i])
    found, taken = [], 0
    for group in range(1, groups + 1):
        end = math.ceil(group * len(counts) / groups)
        while 0 < end < len(order) and counts[order[end]] == counts[order[end - 1]]:
            end += 1
        if end > taken:
            found.append(sorted(order[taken:end]))
            taken = end
    return found


def rows_of(counts: list[int], width: int) -> csr_array:
    """As many pairs in each row."""
    return csr_array((np.arange(width) < np.array(counts)[:, None]).astype(float))


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=40),
    st.integers(1, 9),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_activity_groups_are_those_of_naive_loops(counts, groups, seed):
    rng = np.random.default_rng(seed)
    who = rng.permutation(len(counts))[: rng.integers(1, len(counts) + 1)]
    table = pd.DataFrame(rng.random((len(who), 2)), columns=["x@1", "y@1"], index=who)
    found = by_activity(table, rows_of(counts, 10), groups=groups)
    members = naive_groups([counts[user] for user in who], groups)
    assert found.index.name == "group" and found.index.tolist() == list(range(len(members)))
    assert found.columns.tolist() == ["least", "most", "users", "x@1", "y@1"]
    for group, places in enumerate(members):
        of = [counts[who[place]] for place in places]
        assert found.loc[group, ["least", "most", "users"]].tolist() == [min(of), max(of), len(of)]
        expected = [math.fsum(table["y@1"].iloc[p] for p in places) / len(places)]
        np.testing.assert_allclose(found.loc[group, ["y@1"]].tolist(), expected)


@pytest.mark.parametrize("n", [9, 10, 11, 70, 29_858])
@pytest.mark.parametrize("groups", [1, 3, 7, 10])
def test_groups_of_distinct_counts_are_equal(n, groups):
    counts = np.random.default_rng(0).permutation(n)
    group, bounds = metrics._groups(counts, groups, "users")
    sizes = np.bincount(group)
    assert len(bounds) == min(n, groups) and sizes.max() - sizes.min() <= 1
    assert bounds["most"].iloc[-1] == n - 1 and (np.diff(group[counts.argsort()]) >= 0).all()


def test_no_user_and_no_group():
    table = pd.DataFrame({"recall@20": []}, index=pd.Index([], dtype=int))
    assert by_activity(table, rows_of([1, 2], 3)).shape == (0, 4)
    with pytest.raises(ValueError, match="groups must be at least 1, not 0"):
        by_activity(table, rows_of([1, 2], 3), groups=0)


@pytest.mark.parametrize("groups", [1, 4, 100])
@pytest.mark.parametrize("seed", range(3))
def test_recall_by_popularity_is_that_of_naive_loops(groups, seed):
    users, items, train, _, test = problem(whole=False, seed=seed)
    rng = np.random.default_rng(seed)
    kept = train.toarray() * (rng.random(train.shape) < rng.random(45))  # unlike popular
    kept[:, :3], kept[:, 3] = 0, 1
    best = rank(users, items, seekers(test), masks=(train,), k=10)
    found = by_popularity(best, test, csr_array(kept), ks=(10, 3), groups=groups)
    popularity = [int(sum(column)) for column in kept.T]
    members = naive_groups(popularity, groups)
    assert len(members) == len(found) and len(members) > min(groups, 5) - 1
    assert found.columns.tolist() == [
        "least", "most", "items", "users", "targets", "recall@10", "recall@3"
    ]  # fmt: skip
    wanted = defaultdict(set)
    for user, item in zip(*test.nonzero(), strict=True):
        wanted[int(user)].add(int(item))
    for group, inside in enumerate(members):
        recalls, n_targets = {10: [], 3: []}, 0
        for row, user in enumerate(sorted(wanted)):
            sought = wanted[user] & set(inside)
            n_targets += len(sought)
            for k in recalls if sought else ():
                recalls[k].append(len(sought & set(best[row, :k].tolist())) / len(sought))
        of = [popularity[item] for item in inside]
        expected = [min(of), max(of), len(of), len(recalls[3]), n_targets]
        expected += [np.mean(r) if r else math.nan for r in recalls.values()]
        np.testing.assert_allclose(found.loc[group].tolist(), expected, rtol=1e-12)
    assert found["targets"].sum() == test.nnz and found["items"].sum() == 45


def test_one_group_of_items_has_the_recall_of_all_and_no_targets_have_none():
    users, items, train, _, test = problem(whole=True)
    best = rank(users, items, seekers(test), masks=(train,), k=7)
    found = by_popularity(best, test, train, ks=(7,), groups=1)
    expected = accuracy(best, test, ks=(7,))["recall@7"].mean()
    assert found["recall@7"].item() == pytest.approx(expected, rel=1e-12) and 0 < expected < 1
    nothing = by_popularity(best[:0], csr_array(test.shape), train, ks=(7,))
    assert nothing["recall@7"].isna().all() and not nothing[["users", "targets"]].any(axis=None)


def test_rank_and_accuracy_are_evaluate():
    users, items, train, _, test = problem(whole=True)
    best = rank(users, items, seekers(test), masks=(train,), k=9)
    assert accuracy(best, test, ks=(9, 4)).equals(
        evaluate(users, items, test, masks=(train,), ks=(9, 4))
    )


# ---------------------------------------------------------------------------- between two runs


def runs(gap: np.ndarray, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tables of metrics per user whose difference is `gap`."""
    b = pd.DataFrame(np.random.default_rng(seed).random(gap.shape)).add_prefix("m")
    return b + gap, b


def test_compare_agrees_with_scipy():
    rng = np.random.default_rng(0)
    gap = np.column_stack([rng.normal(0.1, 1, 80), rng.exponential(size=80) - 0.95])
    a, b = runs(gap)
    found = compare(a, b, samples=20_000)
    np.testing.assert_allclose(found["difference"], gap.mean(0), atol=1e-12)
    np.testing.assert_allclose(found[["a", "b"]].T, [a.mean(), b.mean()], rtol=1e-12)
    for name, d in zip(found.index, gap.T, strict=True):
        row, error = found.loc[name], d.std() / 80**0.5
        assert row["p_wilcoxon"] == pytest.approx(stats.wilcoxon(a[name], b[name]).pvalue, rel=1e-9)
        for level in (0.95, 0.5):
            row = compare(a, b, samples=20_000, level=level).loc[name]
            reference = stats.bootstrap(
                (d,), np.mean, n_resamples=20_000, method="percentile", confidence_level=level,
                rng=np.random.default_rng(1),
            )  # fmt: skip
            # Two sets of draws: quantiles differ by a few hundredths of the standard error.
            expected = reference.confidence_interval
            np.testing.assert_allclose(row[["low", "high"]].tolist(), expected, atol=0.08 * error)
        means = reference.bootstrap_distribution
        p = 2 * min((means <= 0).mean(), (means >= 0).mean())
        assert row["p_bootstrap"] == pytest.approx(p, abs=0.01) and 0.02 < p < 0.9


def test_compare_is_the_bootstrap_of_naive_loops():
    gap = np.random.default_rng(0).normal(0.3, 1, (13, 3))
    found = compare(*runs(gap), samples=40, seed=7, level=0.8)
    rng, means = np.random.default_rng(7), []
    for _ in range(40):
        drawn = [int(user) for user in rng.integers(13, size=13)]
        means.append([math.fsum(gap[user, m] for user in drawn) / 13 for m in range(3)])
    means = np.array(means)
    np.testing.assert_allclose(found["low"], np.percentile(means, 10, axis=0))
    np.testing.assert_allclose(found["high"], np.percentile(means, 90, axis=0))
    for metric in range(3):
        below, above = (sum(s * m[metric] <= 0 for m in means) for s in (1, -1))
        p = min(1, 2 * min(below + 1, above + 1) / 41)
        assert found["p_bootstrap"].iloc[metric] == pytest.approx(p)


def test_memory_of_compare_changes_nothing_and_a_seed_repeats():
    tables = runs(np.random.default_rng(0).normal(0.1, 1, (101, 2)))
    found = compare(*tables, samples=999)
    for memory in (1, 24 * 101 * 10):
        frugal = compare(*tables, samples=999, memory=memory)
        pd.testing.assert_frame_equal(frugal, found, rtol=1e-9)
    assert compare(*tables, samples=999).equals(found)
    tables = runs(np.random.default_rng(0).normal(size=(5_000, 1)))
    tracemalloc.start()
    compare(*tables, samples=200, memory=2**20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * 2**20 < 24 * 5_000 * 200  # all draws at once would take 23 MiB
    assert not compare(*tables, samples=999, seed=1).equals(found)


def test_without_a_difference_p_is_uniform_and_with_one_the_interval_covers_it():
    gap = np.random.default_rng(0).standard_t(5, (150, 400))
    found = compare(*runs(gap), samples=1_000)
    for name in ("p_bootstrap", "p_wilcoxon"):
        assert stats.kstest(found[name], "uniform").pvalue > 0.01
        assert 0.025 < (found[name] < 0.05).mean() < 0.08
    shifted = compare(*runs(gap + 0.4), samples=1_000)
    covered = (shifted["low"] < 0.4) & (shifted["high"] > 0.4)
    assert 0.92 < covered.mean() < 0.98
    # Of a mean 0.4 with a standard error of (5 / 3 / 150)^(1/2) = 0.105.
    power = stats.norm.sf(1.96 - 0.4 / (5 / 3 / 150) ** 0.5)
    for name in ("p_bootstrap", "p_wilcoxon"):
        assert (shifted[name] < 0.05).mean() > power - 0.03
    within = (shifted["low"] > 0) | (shifted["high"] < 0)
    assert ((shifted["p_bootstrap"] < 0.05) == within).mean() > 0.99


def test_a_clear_difference_has_the_least_p_and_its_sign():
    a, b = runs(np.full((60, 1), 0.25) + np.linspace(-0.1, 0.1, 60)[:, None])
    found = compare(a, b, samples=99).loc["m0"]
    assert found["p_bootstrap"] == 2 / 100 and found["p_wilcoxon"] < 1e-9
    assert 0.2 < found["low"] < found["difference"] == pytest.approx(0.25) and found["high"] < 0.3
    turned = compare(b, a, samples=99).loc["m0"]
    np.testing.assert_allclose(
        turned[["difference", "high", "low"]].tolist(),
        [-found[name] for name in ("difference", "low", "high")],
    )
    assert turned["p_bootstrap"] == 2 / 100


def test_equal_runs_and_metrics_that_cancel_have_p_one():
    for n in (1, 5, 100):
        found = compare(*runs(np.zeros((n, 1))), samples=99).loc["m0"]
        assert found[["difference", "low", "high"]].tolist() == [0, 0, 0]
        assert found["p_bootstrap"] == found["p_wilcoxon"] == 1
    # In floating point 2/3 - 1/3 exceeds 1/3, and the ranks of the two would differ.
    third = pd.DataFrame({"x": [1 / 3, 2 / 3, 0, 1]}), pd.DataFrame({"x": [0, 1 / 3, 1 / 3, 2 / 3]})
    whole = pd.DataFrame({"x": [1, 2, 0, 3]}), pd.DataFrame({"x": [0, 1, 1, 2]})
    assert compare(*third)["p_wilcoxon"].equals(compare(*whole)["p_wilcoxon"])


def test_compare_aligns_users_and_metrics_and_refuses_others():
    a, b = runs(np.random.default_rng(0).normal(size=(6, 2)))
    found = compare(a, b, samples=50)
    assert compare(a, b.iloc[[3, 1, 0, 5, 4, 2], ::-1], samples=50).equals(found)
    turned = compare(a[["m1", "m0"]], b, samples=50)
    assert turned.loc[["m0", "m1"]].equals(found) and turned.index.tolist() == ["m1", "m0"]
    with pytest.raises(ValueError, match="3 users are in one table only"):
        compare(a.drop(index=[1, 2]), b.drop(index=5))
    with pytest.raises(ValueError, match="metrics in one table only: m0, m1"):
        compare(a[["m0"]], b[["m1"]])
    with pytest.raises(ValueError, match="no users to compare"):
        compare(a[:0], b[:0])
    with pytest.raises(ValueError, match="metrics must be numbers, not NaN"):
        compare(a.where(a != a.iloc[2, 1]), b)
