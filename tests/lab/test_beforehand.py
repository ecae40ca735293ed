"""The rule of popularity before training: what it says, and what it may look at."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_array

from drrl_core import classical, datasets
from drrl_core.lab import beforehand
from drrl_core.train import metrics


def test_test_pairs_have_no_part_in_it():
    data = datasets.load("synthetic")
    emptied = replace(data, test=csr_array(data.test.shape, dtype=data.test.dtype))
    assert beforehand.expected(data) == beforehand.expected(emptied)


def test_without_valid_pairs_it_says_so():
    data = datasets.load("synthetic")
    with pytest.raises(ValueError, match="no valid pairs"):
        beforehand.expected(replace(data, valid=data.valid * 0))


def test_the_stand_in_s_lists_by_loops():
    """Scores by cosines plus b·s·log(1 + n), lists by sorting, popularity by counting."""
    data = datasets.load("synthetic")
    found = beforehand.expected(data)
    rows, columns = (table.double().numpy() for table in classical.spectrum(data.train))
    rows, columns = (t / np.linalg.norm(t, axis=1, keepdims=True) for t in (rows, columns))
    scores, train = rows @ columns.T, data.train.toarray() > 0
    popular = train.sum(0)
    seekers = np.flatnonzero(train.any(1))
    scores += found["stand_in"]["b"] * scores[seekers].std(1).mean() * np.log1p(popular)
    scores[train] = -np.inf
    wanted = np.flatnonzero(data.valid.toarray().any(1))
    best = np.argsort(-scores[wanted], axis=1)[:, : metrics.CUTOFF]
    assert popular[best].mean() == pytest.approx(found["mean_popularity"], rel=1e-3)


def test_a_world_without_taste_wants_popularity_back():
    """Where users differ in nothing, popularity is all that there is to know."""
    rng = np.random.default_rng(0)
    chances = 1 / np.arange(1, 201.0)
    drawn = [rng.choice(200, 25, replace=False, p=chances / chances.sum()) for _ in range(300)]

    def pairs(part: slice) -> csr_array:
        dense = np.zeros((300, 200), np.float32)
        for user, items in enumerate(drawn):
            dense[user, items[part]] = 1
        return csr_array(dense)

    parts = [pairs(slice(*ends)) for ends in ((0, 20), (20, 22), (22, 25))]
    data = datasets.Interactions("tasteless", 300, 200, *parts)
    found = beforehand.expected(data)
    assert found["b"] > 0.4 and found["stable"] > 0.3
    assert found["stand_in"]["ndcg@20"][1] > found["stand_in"]["ndcg@20"][0]


@pytest.mark.skipif(not os.environ.get("DRRL_DATA"), reason="needs real data: set DRRL_DATA")
def test_the_predictions_are_the_rule_s():
    """What was written down before the runs is what the command prints (of Yelp2018: minutes)."""
    table = pd.read_csv(Path(__file__).parents[2] / "data/results/predictions.csv")
    table = table[(table["dataset"] == "movielens-1m") & table["predicted"].notna()]
    wanted = dict(zip(table["quantity"], table["predicted"], strict=True))
    found = beforehand.expected(datasets.load("movielens-1m"))
    assert wanted == pytest.approx(
        {
            "b": found["b"],
            "push": found["push"],
            "mean_popularity_b": found["mean_popularity"],
        },
        rel=0.01,
    )
