"""What is wrong with a data set is found, and drift is told from chance."""

import warnings

import numpy as np
import pandas as pd
import pytest
from datasets_help import in_splits

from drrl_core import datasets
from drrl_core.datasets import load


def test_checks_on_good_data_find_nothing_to_look_at():
    table = datasets.checks(load("synthetic"))
    assert not table["look"].any() and (table["then"] != "").all()
    assert table.loc["test pairs", "found"] == load("synthetic").test.nnz


SQUARE = np.kron(np.eye(30, dtype=int), np.ones((6, 6), int))  # 180 users, as many items, 6 pairs
NONE = np.zeros_like(SQUARE)
LAST = np.zeros_like(SQUARE)
LAST[:, -1] = 1 - SQUARE[:, -1] - np.roll(SQUARE, 6, 1)[:, -1]
TRAPS = {
    "valid pairs": ((SQUARE, NONE, np.roll(SQUARE, 6, 1)), 0),
    "test pairs": ((SQUARE, np.roll(SQUARE, 6, 1), NONE), 0),
    "held-out pairs whose user has no train pair, share": (
        (np.where(np.arange(180)[:, None] < 18, 0, SQUARE), np.roll(SQUARE, 6, 1), LAST),
        None,
    ),
    "held-out pairs whose item has no train pair, share": (
        (np.where(np.arange(180) == 179, 0, SQUARE), np.roll(SQUARE, 6, 1), LAST),
        None,
    ),
    "users without train pairs, share": (
        (np.where(np.arange(180)[:, None] < 36, 0, SQUARE), NONE, NONE),
        0.2,
    ),
    "median train pairs of the others": ((np.eye(180, dtype=int), NONE, NONE), 1),
    "recall@20 by chance": ((np.ones((180, 50), int), NONE[:, :50], NONE[:, :50]), 0.4),
    "most train pairs of a user, share of all items": (
        (np.where(np.arange(180)[:, None] == 3, 1, SQUARE), NONE, NONE),
        1.0,
    ),
    "share of train pairs on the 1% most popular items": (
        (np.where(np.arange(180) == 5, 1, np.eye(180, dtype=int)), NONE, NONE),
        180 / 359,
    ),
}


@pytest.mark.parametrize("name", TRAPS)
def test_checks_find_the_trap(name):
    splits, found = TRAPS[name]
    data = in_splits(*splits)
    row = datasets.checks(data).loc[name]
    assert row["look"]
    if found is None:  # naively
        held = [
            (u, i) for part in (data.valid, data.test) for u, i in zip(*part.nonzero(), strict=True)
        ]
        train = data.train.toarray()
        cold = [train[u].sum() if "user" in name else train[:, i].sum() for u, i in held]
        found = np.mean(np.array(cold) == 0)
        assert 0 < found < 1
    assert row["found"] == pytest.approx(found)


def test_checks_count_repeated_rows(tmp_path):
    path = tmp_path / "x.csv"
    lines = [f"u{u},i{i}" for u in range(9) for i in range(9)]
    for again, look in ((8, False), (20, True)):
        path.write_text("\n".join(["user,item", *lines, *lines[:again]]))
        row = datasets.checks(load(path)).loc["rows that repeat a pair, share"]
        assert row["found"] == pytest.approx(again / (81 + again)) and row["look"] == look


def test_checks_of_nothing_at_all():
    table = datasets.checks(in_splits([[0, 0]], [[0, 0]], [[0, 0]]))
    assert table.loc["test pairs", "look"] and table["found"].notna().all()


def test_shift_is_the_distance_of_shares():
    train, test = [[1, 1, 0, 0], [1, 0, 1, 0]], [[0, 0, 0, 1], [0, 1, 0, 1]]
    found = datasets.shift(in_splits(train, np.zeros((2, 4)), test))
    p, q = (2 / 4, 1 / 4, 1 / 4, 0), (0, 1 / 3, 0, 2 / 3)
    assert found["distance"] == pytest.approx(
        sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2
    )
    assert found["kept"] == 0  # the most popular item of four has no test pair
    assert np.isnan([*datasets.shift(in_splits(train, test, np.zeros((2, 4)))).values()]).all()
    nobody = np.zeros((2, 4))
    same = in_splits(np.vstack([train, nobody]), np.vstack([nobody, train]), np.zeros((4, 4)))
    assert datasets.shift(same, split="valid")["distance"] == 0


def test_shift_tells_a_drift_from_chance(tmp_path):
    made = load("synthetic")
    users, items = made.train.nonzero()
    rng = np.random.default_rng(1)
    season, noise = rng.random(made.n_items)[items], rng.random(len(items))
    distances = []
    for drift in (0, 0.3, 0.6):
        table = {"user": users, "item": items, "timestamp": drift * season + (1 - drift) * noise}
        pd.DataFrame(table).to_csv(tmp_path / "x.csv", index=False)
        with warnings.catch_warnings(action="ignore"):
            data = load(tmp_path / "x.csv", split="time", fractions=(0.6, 0.2, 0.2))
        found = datasets.shift(data)
        distances.append(found["distance"] - found["by_chance"])
        assert found["by_chance"] < 0.25
    assert abs(distances[0]) < 0.01 and 0.1 < distances[1] < distances[2]
