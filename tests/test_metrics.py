"""Rankings and metrics against loops that anyone can check, and against ir_measures."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from drrl_core import metrics
from drrl_core.metrics import evaluate, rank, topk, unit_or_raw

TIED = st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0])


@given(st.data())
@settings(deadline=None)
def test_topk_is_the_head_of_a_full_stable_sort(data):
    n_rows, n_items = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    k = data.draw(st.integers(1, n_items + 3))
    row = st.lists(TIED, min_size=n_items, max_size=n_items)
    rows = data.draw(st.lists(row, min_size=n_rows, max_size=n_rows))
    expected = [sorted(range(n_items), key=lambda j, row=row: (-row[j], j))[:k] for row in rows]
    assert topk(torch.tensor(rows), k).tolist() == expected


def test_topk_of_a_long_row_with_ties_across_the_last_place():
    scores = torch.randint(0, 9, (50, 2_000), generator=torch.Generator().manual_seed(0)).float()
    expected = scores.sort(dim=-1, descending=True, stable=True).indices
    for k in (1, 20, 300):
        assert torch.equal(topk(scores, k), expected[:, :k])


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
    with pytest.raises(ValueError, match="every cut-off must be at least 1, not 0"):
        evaluate(users, items, test, ks=(5, 0))


def test_nothing_to_find_gives_an_empty_table():
    users, items, train, *_ = problem(whole=True)
    table = evaluate(users, items, csr_array(train.shape), masks=(train,), ks=(2,))
    assert table.shape == (0, 5) and "ndcg@2" in table


@pytest.mark.parametrize("memory", [1, 4_000, 8 * 45 * 7])
def test_memory_bounds_the_scores_and_changes_nothing(memory, monkeypatch):
    users, items, train, _, test = problem(whole=True)
    plenty = evaluate(users, items, test, masks=(train,), similarity="dot")
    taken = []

    def watched(scores, k):
        taken.append(scores.numel() * scores.element_size())
        return topk(scores, k)

    monkeypatch.setattr(metrics, "topk", watched)
    frugal = evaluate(users, items, test, masks=(train,), similarity="dot", memory=memory)
    assert frugal.equals(plenty) and len(taken) > 1
    assert max(taken) <= max(memory, 8 * 45)  # a row is the least


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
