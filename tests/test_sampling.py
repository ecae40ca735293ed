"""Negatives: never a train item, uniform over the rest; an epoch: every pair once, by its seed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.stats import chisquare

from drrl_core.datasets import Interactions
from drrl_core.sampling import UniformNegatives, batches, generator


def interactions(train) -> Interactions:
    """A data set of these train pairs alone."""
    train = np.asarray(train)
    none = csr_array(train.shape)
    return Interactions("small", *train.shape, csr_array(train), none, none)


def left(train, user: int) -> list[int]:
    """The items without a train pair, by set difference."""
    return sorted(set(range(len(train[user]))) - set(np.flatnonzero(train[user]).tolist()))


# Users with all items but one (the first, a middle one, the last), with half of them, with none.
CROWDED = np.array(
    [
        [0, 1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 0, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 1, 0],
        [1, 0, 1, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]
)


@given(st.data())
@settings(deadline=None)
def test_negatives_are_those_of_the_naive_set_difference(data):
    n_users, n_items = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 12))
    train = np.zeros((n_users, n_items), int)
    for user in range(n_users):
        seen = data.draw(st.sets(st.integers(0, n_items - 1), max_size=n_items - 1))
        train[user, list(seen)] = 1
    users = torch.tensor(data.draw(st.lists(st.integers(0, n_users - 1), min_size=1, max_size=8)))

    uniform = torch.rand(len(users), 40, dtype=torch.float64, generator=generator(3, 7))
    rest = [left(train, user) for user in users.tolist()]
    expected = [
        [row[int(u * len(row))] for u in numbers.tolist()]
        for row, numbers in zip(rest, uniform, strict=True)
    ]
    assert UniformNegatives(interactions(train))(users, 40, generator(3, 7)).tolist() == expected


def test_negatives_are_exactly_uniform(monkeypatch):
    """An even grid of numbers, its ends included, falls on each item left equally often."""
    draw = UniformNegatives(interactions(CROWDED))
    for user in range(len(CROWDED)):
        rest = left(CROWDED, user)
        edges = torch.arange(len(rest), dtype=torch.float64) / len(rest)
        grid = torch.cat([edges, edges + 1 / len(rest) - 2**-53, edges + 0.5 / len(rest)])
        monkeypatch.setattr(torch, "rand", lambda *shape, grid=grid, **_: grid.expand(shape))
        drawn = draw(torch.tensor([user, user]), len(grid), None)
        assert sorted(drawn[0].tolist()) == sorted(rest * 3)


def test_drawn_negatives_pass_a_chi_square_test():
    draw = UniformNegatives(interactions(CROWDED))
    items = draw(torch.arange(len(CROWDED)), 20_000, generator(0, 1))
    assert items.dtype == torch.int64
    for user, row in enumerate(items):
        rest = left(CROWDED, user)
        counts = row.bincount(minlength=8).numpy()
        assert counts[rest].sum() == 20_000
        if len(rest) > 1:
            assert chisquare(counts[rest]).pvalue > 1e-3


def test_rows_are_drawn_independently():
    draw = UniformNegatives(interactions(np.zeros((2, 4))))
    one, two = draw(torch.tensor([0, 0]), 20_000, generator(0, 1))
    pairs = (4 * one + two).bincount(minlength=16)
    assert chisquare(pairs.numpy()).pvalue > 1e-3


def test_a_user_without_a_possible_negative_is_named():
    with pytest.raises(ValueError, match="small: user 1 has a train pair with every one of the 3"):
        UniformNegatives(interactions([[1, 0, 1], [1, 1, 1], [0, 0, 0]]))


def epoch_of(data: Interactions, *, seed=0, epoch=1, batch_size=7, count=5):
    negatives = UniformNegatives(data)
    options = {"batch_size": batch_size, "count": count, "seed": seed, "epoch": epoch}
    parts = list(batches(data, negatives, **options))
    return [torch.cat(field) for field in zip(*parts, strict=True)], [len(p.users) for p in parts]


def test_an_epoch_visits_every_train_pair_once_with_negatives_of_its_user():
    (users, items, neg), sizes = epoch_of(interactions(CROWDED))
    expected = list(zip(*np.nonzero(CROWDED), strict=True))
    assert sorted(zip(users.tolist(), items.tolist(), strict=True)) == expected
    assert sizes == [7, 7, 7, 4] and neg.shape == (25, 5)
    assert not CROWDED[users[:, None], neg].any()
    assert len(set(map(tuple, neg.T.tolist()))) == 5
    assert neg.dtype == items.dtype == users.dtype == torch.int64


def test_a_batch_larger_than_the_data_is_one_batch():
    assert epoch_of(interactions(CROWDED), batch_size=10**6)[1] == [25]


def test_an_epoch_is_a_function_of_seed_and_epoch_alone():
    data = interactions(CROWDED)
    first, _ = epoch_of(data, seed=4, epoch=2)
    torch.manual_seed(9)  # neither read ...
    before = torch.get_rng_state()
    again, _ = epoch_of(data, seed=4, epoch=2)
    assert torch.equal(before, torch.get_rng_state())  # ... nor moved
    assert all(map(torch.equal, first, again))
    for other in ({"seed": 5, "epoch": 2}, {"seed": 4, "epoch": 3}, {"seed": 2, "epoch": 4}):
        users, items, neg = epoch_of(data, **other)[0]
        assert not torch.equal(torch.stack([users, items]), torch.stack(first[:2]))
        assert not torch.equal(neg, first[2])


def test_streams_of_different_seeds_and_epochs_differ():
    names = {(seed, epoch) for seed in (*range(40), 2**32, 2**62) for epoch in range(1, 41)}
    firsts = {torch.rand((), dtype=torch.float64, generator=generator(*name)) for name in names}
    assert len({float(first) for first in firsts}) == len(names)


def test_positives_come_in_a_random_order():
    """Over many epochs each pair is first equally often."""
    data = interactions(CROWDED)
    firsts = [epoch_of(data, epoch=e, count=1)[0] for e in range(500)]
    counts = np.bincount([int(users[0] * 8 + items[0]) for users, items, _ in firsts], minlength=40)
    assert chisquare(counts[CROWDED.ravel() > 0]).pvalue > 1e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_on_a_gpu():
    data = interactions(CROWDED)
    negatives = UniformNegatives(data, "cuda")
    (batch,) = batches(data, negatives, batch_size=99, count=50, seed=0, epoch=1)
    assert {part.device.type for part in batch} == {"cuda"}
    assert not CROWDED[batch.users.cpu()[:, None], batch.neg_items.cpu()].any()
