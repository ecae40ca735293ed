"""Negatives: never a train item, uniform over the rest; an epoch: every pair once, by its seed."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.stats import chisquare

from drrl_core.datasets import Interactions
from drrl_core.losses import make
from drrl_core.train.config import TrainConfig
from drrl_core.train.sampling import SAMPLERS, Sampler, epoch_seed


def interactions(train) -> Interactions:
    """A data set of these train pairs alone."""
    train = np.asarray(train)
    none = csr_array(train.shape)
    return Interactions("small", *train.shape, csr_array(train), none, none)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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


@st.composite
def train_sets(draw) -> np.ndarray:
    """Up to 6 users and 12 items; nobody has them all."""
    n_users, n_items = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    train = np.zeros((n_users, n_items), int)
    for user in range(n_users):
        seen = draw(st.sets(st.integers(0, n_items - 1), max_size=n_items - 1))
        train[user, list(seen)] = 1
    return train


# ---------------------------------------------------------------------------- a row's own negatives


@given(st.data())
@settings(deadline=None)
def test_negatives_are_those_of_the_naive_set_difference(data):
    train = data.draw(train_sets())
    users = data.draw(st.lists(st.integers(0, len(train) - 1), min_size=1, max_size=8))
    uniform = torch.rand(len(users), 40, dtype=torch.float64, generator=generator(3))
    expected = []
    for user, numbers in zip(users, uniform.tolist(), strict=True):
        rest, seen = left(train, user), np.flatnonzero(train[user]).tolist()
        early = [item for item in seen if item < len(rest)]
        late = [item for item in rest if item >= len(rest)]
        instead = dict(zip(early, late, strict=True))
        drawn = [int(u * len(rest)) for u in numbers]
        expected.append([instead.get(item, item) for item in drawn])
        assert not set(expected[-1]) & set(seen)
    sampler = Sampler(interactions(train), count=40)
    assert sampler._draw(torch.tensor(users), generator(3)).tolist() == expected


def test_negatives_are_exactly_uniform(monkeypatch):
    """An even grid of numbers, its ends included, falls on each item left equally often."""
    for user in range(len(CROWDED)):
        rest = left(CROWDED, user)
        edges = torch.arange(len(rest), dtype=torch.float64) / len(rest)
        grid = torch.cat([edges, edges + 1 / len(rest) - 2**-53, edges + 0.5 / len(rest)])
        monkeypatch.setattr(torch, "rand", lambda size, grid=grid, **_: grid.expand(size))
        sampler = Sampler(interactions(CROWDED), count=len(grid))
        drawn = sampler._draw(torch.tensor([user, user]), None)
        assert sorted(drawn[0].tolist()) == sorted(rest * 3)


def test_drawn_negatives_pass_a_chi_square_test():
    (batch,) = Sampler(interactions(CROWDED), count=20_000, batch_size=99).epoch(0, 1)
    assert batch.neg_items.dtype == torch.int64
    for user, row in zip(batch.users.tolist(), batch.neg_items, strict=True):
        rest = left(CROWDED, user)
        counts = row.bincount(minlength=8).numpy()
        assert counts[rest].sum() == 20_000
        if len(rest) > 1:
            assert chisquare(counts[rest]).pvalue > 1e-3


def test_rows_are_drawn_independently():
    sampler = Sampler(interactions(np.zeros((2, 4))), count=20_000)
    one, two = sampler._draw(torch.tensor([0, 0]), generator(1))
    pairs = (4 * one + two).bincount(minlength=16)
    assert chisquare(pairs.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_user_without_a_possible_negative_is_named(kind):
    with pytest.raises(ValueError, match="small: user 1 has a train pair with every one of the 3"):
        Sampler(interactions([[1, 0, 1], [1, 1, 1], [0, 0, 0]]), kind=kind)


def test_an_unknown_kind_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=f"{', '.join(SAMPLERS)}, not 'pool'"):
        Sampler(interactions(CROWDED), kind="pool")


# ---------------------------------------------------------------------------- by popularity

# Popularities of 1 to 5 of six items; nobody has them all.
UNEVEN = np.array(
    [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 0, 1, 1, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 1, 0],
    ]
)


@pytest.mark.parametrize("power", [-1.5, 0.75, 2.0])
def test_negatives_by_popularity_are_in_its_power_and_never_train_items(power):
    sampler = Sampler(interactions(UNEVEN), count=20_000, batch_size=99, power=power)
    (batch,) = sampler.epoch(0, 1)
    assert batch.popularity.tolist() == UNEVEN.sum(0).tolist()
    share = (1.0 + UNEVEN.sum(0)) ** power
    for user in range(len(UNEVEN)):
        rest = left(UNEVEN, user)
        counts = sampler._draw(torch.tensor([user]), generator(user))[0].bincount(minlength=6)
        expected = share[rest] / share[rest].sum() * 20_000
        assert counts[rest].sum() == 20_000
        if len(rest) > 1:
            assert chisquare(counts[rest].numpy(), expected).pvalue > 1e-3
    again = next(sampler.epoch(0, 1))
    assert torch.equal(again.neg_items, batch.neg_items)


def test_drawn_by_popularity_and_corrected_the_loss_is_that_of_uniform_draws():
    """In the mean over many batches; with the other sign, and without, it is another."""
    train, rng = UNEVEN, generator(0)
    scores, power = torch.rand(*train.shape, generator=rng).double(), 1.0

    def value(power, prior):
        sampler = Sampler(interactions(train), count=50_000, batch_size=99, power=power)
        (batch,) = sampler.epoch(3, 1)
        rows = batch.users[:, None]
        pos, neg = scores[batch.users, batch.pos_items], scores[rows, batch.neg_items]
        return make("sl", temperature=0.3, prior=prior)(pos, neg, batch).mean().item()

    uniform = value(0.0, 0.0)
    assert value(power, -power) == pytest.approx(uniform, abs=5e-3)
    assert abs(value(power, 0.0) - uniform) > 1e-2
    assert abs(value(power, power) - uniform) > 1e-2


def test_noise_stays_in_draws_by_popularity():
    sampler = Sampler(interactions(UNEVEN), count=10, noise=0.3, power=1.0)
    drawn = sampler._draw(torch.arange(5), generator(2))
    for user, row in enumerate(drawn.tolist()):
        assert all(UNEVEN[user, item] for item in row[:3])
        assert not any(UNEVEN[user, item] for item in row[3:])


def test_a_power_that_leaves_nothing_to_draw_or_has_no_meaning_is_refused():
    with pytest.raises(ValueError, match=r"at power 60.0 .* are train items of user .*nearer to 0"):
        Sampler(interactions(UNEVEN), power=60.0)
    for kind in ("shared-pool", "catalogue"):
        with pytest.raises(ValueError, match=f"power must be a number.*not 1.0 {kind}"):
            Sampler(interactions(UNEVEN), kind=kind, power=1.0)
        with pytest.raises(ValueError, match="draw_power must be a number"):
            TrainConfig(sampler=kind, draw_power=1.0)
    for power in (np.nan, np.inf):
        with pytest.raises(ValueError, match="power must be a number"):
            Sampler(interactions(UNEVEN), power=power)
        with pytest.raises(ValueError, match="draw_power must be a number"):
            TrainConfig(draw_power=power)


# ---------------------------------------------------------------------------- an epoch


def epoch_of(data: Interactions, *, seed=0, epoch=1, batch_size=7, count=5, **options):
    """Users, items, negatives and rates of an epoch, and the sizes of its batches."""
    sampler = Sampler(data, batch_size=batch_size, count=count, **options)
    parts = list(sampler.epoch(seed, epoch))
    assert all(part.neg_rate is None for part in parts)  # the trainer knows it
    given = (part[:4] for part in parts)
    fields = [torch.cat(f) if f[0].dim() else f for f in zip(*given, strict=True)]
    return fields, [len(part.users) for part in parts]


def test_an_epoch_visits_every_train_pair_once_with_negatives_of_its_user():
    (users, items, neg, _), sizes = epoch_of(interactions(CROWDED))
    expected = list(zip(*np.nonzero(CROWDED), strict=True))
    assert sorted(zip(users.tolist(), items.tolist(), strict=True)) == expected
    assert sizes == [7, 7, 7, 4] and neg.shape == (25, 5)
    assert not CROWDED[users[:, None], neg].any()
    assert len(set(map(tuple, neg.T.tolist()))) == 5
    assert neg.dtype == items.dtype == users.dtype == torch.int64


@pytest.mark.parametrize("kind", ["shared-pool", "catalogue"])
def test_an_epoch_of_pools_visits_every_train_pair_once(kind):
    (users, items, _, _), sizes = epoch_of(interactions(CROWDED), kind=kind)
    expected = list(zip(*np.nonzero(CROWDED), strict=True))
    assert sorted(zip(users.tolist(), items.tolist(), strict=True)) == expected
    assert sizes == [7, 7, 7, 4]


def test_a_batch_larger_than_the_data_is_one_batch():
    assert epoch_of(interactions(CROWDED), batch_size=10**6)[1] == [25]


@pytest.mark.parametrize("options", [{}, {"noise": 0.4}, {"kind": "shared-pool"}])
def test_an_epoch_is_a_function_of_seed_and_epoch_alone(options):
    data = interactions(CROWDED)
    first, _ = epoch_of(data, seed=4, epoch=2, **options)
    torch.manual_seed(9)  # neither read ...
    before = torch.get_rng_state()
    again, _ = epoch_of(data, seed=4, epoch=2, **options)
    assert torch.equal(before, torch.get_rng_state())  # ... nor moved
    assert all(map(torch.equal, first, again))
    for other in ({"seed": 5, "epoch": 2}, {"seed": 4, "epoch": 3}, {"seed": 2, "epoch": 4}):
        users, items, neg, _ = epoch_of(data, **other, **options)[0]
        assert not torch.equal(torch.stack([users, items]), torch.stack(first[:2]))
        assert not torch.equal(neg, first[2])


def test_seeds_of_different_seeds_and_epochs_differ():
    names = {(seed, epoch) for seed in (*range(40), 2**32, 2**62) for epoch in range(1, 41)}
    seeds = {epoch_seed(*name) for name in names}
    assert len(seeds) == len(names) and all(0 <= seed < 2**63 for seed in seeds)


def test_positives_come_in_a_random_order():
    """Over many epochs each pair is first equally often."""
    data = interactions(CROWDED)
    firsts = [epoch_of(data, epoch=e, count=1)[0] for e in range(500)]
    pairs = [int(users[0] * 8 + items[0]) for users, items, *_ in firsts]
    counts = np.bincount(pairs, minlength=40)
    assert chisquare(counts[CROWDED.ravel() > 0]).pvalue > 1e-3


@pytest.mark.parametrize("kind", SAMPLERS)
def test_rate_is_the_batch_over_the_uses_of_each_user(kind):
    sampler = Sampler(interactions(CROWDED), kind=kind, batch_size=7, count=3)
    for batch in sampler.epoch(0, 1):
        users = batch.users.tolist()
        expected = [len(users) / users.count(user) for user in users]
        assert batch.rate.tolist() == pytest.approx(expected, rel=1e-6)


# ---------------------------------------------------------------------------- pools


def test_a_pool_is_distinct_items_drawn_uniformly_for_each_batch():
    sampler = Sampler(interactions(np.eye(4, 10)), kind="shared-pool", count=3, batch_size=2)
    pools = [batch.neg_items for epoch in range(1500) for batch in sampler.epoch(0, epoch)]
    assert all(pool.shape == (3,) and len(pool.unique()) == 3 for pool in pools)
    # Items of a pool repel each other: counts spread less than multinomial ones, by (n - M)/(n - 1)
    # of the variance. Scaled up to a chi-square of 9 degrees.
    counts = torch.cat(pools).bincount(minlength=10).numpy()
    statistic = ((counts - 900) ** 2).sum() / 900 * 9 / 7
    assert 1.7 < statistic < 27.9  # the 0.4% and 99.9% points
    # Pairs of items too: 45 of them, each in 3 of 45 pools.
    together = np.zeros((10, 10), int)
    for pool in pools:
        together[np.ix_(pool, pool)] += 1
    assert chisquare(together[np.triu_indices(10, 1)]).pvalue > 1e-3
    # Two batches of an epoch have pools of their own.
    same = [
        set(a.tolist()) == set(b.tolist()) for a, b in zip(pools[::2], pools[1::2], strict=True)
    ]
    assert np.mean(same) < 0.03


@given(st.data())
@settings(deadline=None)
def test_positives_are_the_naive_membership(data):
    train = data.draw(train_sets())
    n_users, n_items = train.shape
    sampler = Sampler(interactions(train), kind="shared-pool", count=1)
    users = torch.tensor(data.draw(st.lists(st.integers(0, n_users - 1), min_size=1, max_size=8)))
    items = st.lists(st.integers(0, n_items - 1), min_size=1, unique=True)
    pool = torch.tensor(data.draw(items))
    expected = train[np.ix_(users, pool)] > 0
    found = np.zeros(expected.shape, int)
    np.add.at(found, tuple(index.numpy() for index in sampler.positives(users, pool)), 1)
    assert (found == expected).all()  # each once


def test_a_pool_larger_than_the_catalogue_is_the_catalogue():
    data = interactions(CROWDED)
    sampler = Sampler(data, kind="shared-pool", count=99, batch_size=99)
    (batch,) = sampler.epoch(0, 1)
    assert sorted(batch.neg_items.tolist()) == list(range(8))
    row, column = sampler.positives(batch.users, batch.neg_items)
    found = set(zip(batch.users[row].tolist(), batch.neg_items[column].tolist(), strict=True))
    assert found == set(zip(*np.nonzero(CROWDED), strict=True))


def test_a_catalogue_is_every_item_and_its_positives_the_train_pairs():
    sampler = Sampler(interactions(CROWDED), kind="catalogue", count=2, batch_size=7)
    for batch in sampler.epoch(0, 1):
        assert batch.neg_items.tolist() == list(range(8))
        row, column = sampler.positives(batch.users, batch.neg_items)
        found = np.zeros((7, 8), int)[: len(batch.users)]
        np.add.at(found, (row.numpy(), column.numpy()), 1)
        assert (found == CROWDED[batch.users]).all()


def test_only_a_small_pool_can_be_crowded():
    data = interactions(CROWDED)  # at most seven of eight items are a user's
    crowded = [Sampler(data, kind="shared-pool", count=count).crowded for count in (1, 7, 8, 99)]
    assert crowded == [True, True, False, False]
    assert not Sampler(data, kind="catalogue", count=1).crowded
    assert not Sampler(data, count=1).crowded


# ---------------------------------------------------------------------------- noise


@pytest.mark.parametrize("count, noise", [(10, 0.3), (100, 0.29), (64, 0.1), (1, 0.99), (7, 0.0)])
def test_a_share_of_each_row_rounded_down_is_of_the_users_own_train_items(count, noise):
    train = (np.random.default_rng(0).random((6, 30)) < 0.3).astype(int)
    (users, _, neg, _), _ = epoch_of(interactions(train), count=count, noise=noise)
    own = train[users[:, None], neg].sum(1)
    assert set(own.tolist()) == {int(Fraction(str(noise)) * count)}


def test_noise_is_uniform_over_the_users_train_items():
    data = interactions(CROWDED)
    (users, _, neg, _), _ = epoch_of(data, count=8000, noise=0.5, batch_size=99)
    for user, row in zip(users.tolist(), neg.tolist(), strict=True):
        counts = np.bincount(row, minlength=8)
        own = np.flatnonzero(CROWDED[user])
        assert counts[own].sum() == 4000 and chisquare(counts[own]).pvalue > 1e-3
        rest = np.delete(counts, own)
        assert rest.sum() == 4000 and (len(rest) == 1 or chisquare(rest).pvalue > 1e-3)


def test_without_noise_the_stream_is_as_if_there_were_none():
    data = interactions(CROWDED)
    plain, zero, some = (
        epoch_of(data, **options)[0] for options in ({}, {"noise": 0.0}, {"noise": 0.4})
    )
    assert all(map(torch.equal, plain, zero))
    # The first batch of a noisy epoch differs in its noise alone.
    assert torch.equal(plain[2][:7, 2:], some[2][:7, 2:])
    assert not torch.equal(plain[2][:7, :2], some[2][:7, :2])


@pytest.mark.parametrize(
    "kind, noise",
    [("per-row", 1.0), ("per-row", -0.1), ("per-row", float("nan"))]
    + [(kind, 0.1) for kind in ("shared-pool", "catalogue")],
)
def test_noise_is_refused_out_of_range_and_for_pools(kind, noise):
    with pytest.raises(ValueError, match="noise must lie in"):
        Sampler(interactions(CROWDED), kind=kind, noise=noise)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", SAMPLERS)
def test_batches_on_a_gpu(kind):
    data = interactions(CROWDED)
    sampler = Sampler(data, "cuda", kind=kind, batch_size=99, count=5)
    (batch,) = sampler.epoch(0, 1)
    assert {part.device.type for part in batch} == {"cuda"}
    if kind == "per-row":
        assert not CROWDED[batch.users.cpu()[:, None], batch.neg_items.cpu()].any()
    else:
        row, column = sampler.positives(batch.users, batch.neg_items)
        assert CROWDED[batch.users[row].cpu(), batch.neg_items[column].cpu()].all()
