"""The paper's tables are whole and consistent, and the scorecard says what the records say."""

import numpy as np
import pytest

from drrl_core import datasets
from drrl_core.paper import published

COUNTS = {1: 12, 2: 216 + 24, 3: 12, 4: 28}


@pytest.mark.parametrize("number", COUNTS)
def test_each_number_of_a_table_is_there_once(number):
    rows = published.table(number)
    assert len(rows) == COUNTS[number] and list(rows) == list(published.COLUMNS)
    assert not rows.duplicated(["dataset", "backbone", "loss", "metric"]).any()
    assert rows.notna().all(axis=None)
    named = {*datasets.names(), "amazon-kitchen-temporal"}  # which comes from a raw file
    assert set(rows["dataset"]) <= named
    accuracy = rows[rows["metric"].str.contains("@") & (rows["loss"] != "Imp.%")]["value"]
    assert ((accuracy > 0) & (accuracy < 0.2)).all()


def test_some_numbers_typed_again():
    values = {
        n: published.table(n).set_index(["dataset", "loss", "metric"])["value"] for n in (1, 3, 4)
    }
    assert values[1]["gowalla", "DrRL", "k2"] == 51.20
    assert values[3]["amazon-beauty", "DrRL-w/o-P", "ndcg@20"] == 0.0922
    assert values[4]["amazon-kitchen-temporal", "CCL", "ndcg@20"] == 0.01065
    overall = published.table(2).set_index(["dataset", "backbone", "loss", "metric"])
    assert (
        overall.loc[("amazon-electronics", "XSimGCL", "AdvInfoNCE", "recall@20"), "value"] == 0.0771
    )
    assert overall.loc[("gowalla", "MF", "Imp.%", "ndcg@20"), "value"] == 11.98


def test_the_improvements_are_those_of_the_table():
    rows = published.table(2)
    gains = rows["loss"] == "Imp.%"
    assert rows["significant"].equals(gains)  # all have their star
    for cell, numbers in rows[~gains].groupby(["dataset", "backbone", "metric"]):
        ours = numbers.loc[numbers["loss"] == "DrRL", "value"].item()
        best = numbers.loc[numbers["loss"] != "DrRL", "value"].max()
        printed = rows[gains].set_index(["dataset", "backbone", "metric"]).loc[cell, "value"]
        # printed from more digits than the four shown: what rounding allows
        low = 100 * ((ours - 5e-5) / (best + 5e-5) - 1) - 0.005
        high = 100 * ((ours + 5e-5) / (best - 5e-5) - 1) + 0.005
        assert low <= printed <= high, (cell, low, printed, high)


def test_the_ablation_repeats_table_2():
    key = ["dataset", "backbone", "metric"]
    both = [published.table(n).query("loss == 'DrRL'").set_index(key)["value"] for n in (2, 3)]
    assert len(both[1]) == 4 and np.array_equal(both[0][both[1].index], both[1])


def test_there_are_four_tables():
    with pytest.raises(ValueError, match="tables 1 to 4, not 5"):
        published.table(5)
