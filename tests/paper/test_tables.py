"""Tables in pages: each number from the rows of its cell, and nothing else of the page touched."""

import json

import numpy as np
import pandas as pd
import pytest

from drrl_core.lab import results
from drrl_core.paper import tables


def rows(**more) -> pd.DataFrame:
    """Three seeds of a loss, of known numbers."""
    row = {name: np.nan for name in results.RUNS} | {
        **{"dataset": "amazon-beauty", "backbone": "mf", "variant": "sl", "loss": "sl"},
        **{"settings": json.dumps({"train.lr": 0.01}), "config": json.dumps({"train.lr": 0.01})},
        **{"noise": 0.0, "sampler": "per-row", "negatives": 64, "trials": 20, "raised": ""},
        **{"valid_ndcg@20": 0.07, "test_recall@20": 0.15},
    }
    seeds = [row | {"seed": n, "test_ndcg@20": 0.09 + n / 1000, "key": f"{n}"} for n in range(3)]
    return pd.DataFrame([each | more for each in seeds])


def cells(text: str) -> list[dict[str, str]]:
    head, _, *body = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()
    )
    return [dict(zip(head, line, strict=True)) for line in body]


def test_a_row_says_what_the_records_say():
    (row,) = cells(tables.table(rows(), "amazon-beauty", "mf"))
    assert row["loss"] == "SL" and row["tuned to"] == "`lr=0.01`" and row["trials"] == "20"
    assert row["test NDCG@20"] == "0.0910 ± 0.0025"  # 4.303 · 0.001 / √3
    assert row["test Recall@20"] == "0.1500 ± 0.0000"
    assert row["the paper: Recall / NDCG"] == "0.1573/0.0941"
    assert {row["b"], row["popular"], row["covers"], row["Recall / NDCG with b"]} == {"–"}
    told = {"b": 0.5, "coverage": 1.0, "coverage_b": 0.9, "mean_popularity": 30.0}
    told |= {"mean_popularity_b": 46.0, "test_recall@20_b": 0.16, "test_ndcg@20_b": 0.096}
    (row,) = cells(tables.table(rows(**told), "amazon-beauty", "mf"))
    assert row["b"] == "0.5" and row["Recall / NDCG with b"] == "0.1600/0.0960"
    assert row["popular"] == "30 → 46" and row["covers"] == "1.00 → 0.90"


def test_the_best_comes_first_and_other_cells_stay_out():
    better = rows(variant="drrl", loss="drrl", **{"test_ndcg@20": 0.095})
    noisy = rows(variant="bpr", loss="bpr", noise=0.1)
    elsewhere = rows(variant="ccl", loss="ccl", backbone="lightgcn")
    found = pd.concat([rows(), better, noisy, elsewhere], ignore_index=True)
    assert [row["loss"] for row in cells(tables.table(found, "amazon-beauty", "mf"))] == [
        "DrRL",
        "SL",
    ]
    assert tables.table(found, "gowalla", "mf") == "Not run.\n"


def test_a_loss_that_the_paper_lacks_has_a_dash():
    exact = rows(variant="drrl-exact", loss="drrl")
    (row,) = cells(tables.table(exact, "amazon-beauty", "mf"))
    assert row["the paper: Recall / NDCG"] == "–" and row["loss"] == "DrRL, exact β"
    begun = rows(variant="ccl", loss="ccl").iloc[:1]  # its other seeds are not trained yet
    both = pd.concat([exact, rows(), begun], ignore_index=True)
    (row,) = cells(tables.table(both, "amazon-beauty", "mf", short=True))  # leaves it out
    assert tuple(row) == tables.SHORT and row["loss"] == "SL"


@pytest.mark.parametrize("before", ["", "| old |\n|---|\n"])
def test_filling_changes_the_tables_alone_and_twice_is_once(before):
    page = (
        f"# Page\n\n<!-- table: amazon-beauty mf -->\n{before}<!-- end -->\ntext | kept |\n"
        f"<!-- table: amazon-beauty lightgcn short -->\n{before}<!-- end -->\nend\n"
    )
    found = tables.fill(page, rows())
    assert found.startswith("# Page\n\n<!-- table: amazon-beauty mf -->\n| loss |")
    assert "text | kept |" in found and found.endswith("Not run.\n<!-- end -->\nend\n")
    assert "old" not in found and tables.fill(found, rows()) == found
