"""Predictions: a range is held against what came, and nothing is said where nothing came."""

import pandas as pd
import pytest
from test_findings import write

from drrl_core.paper import evidence, predictions, scorecard

LINES = [
    ("sl", "gain", 0, None, None),
    ("sl", "b", 0.4, 0.5, 0.6),
    ("sl", "mean_popularity_b", None, None, 40),
    ("sl-push", "push", 1.1, 1.3, 1.5),
    ("ccl", "gain", 0, None, None),
    ("bpr", "b", 0, 0.5, 1),
]


def judged(folder, lines=LINES) -> pd.DataFrame:
    cells = [("amazon-beauty", "mf", *line, "2000-01-01") for line in lines]
    table = pd.DataFrame(cells, columns=predictions.COLUMNS)
    table.to_csv(folder / predictions.FILE, index=False)
    found = pd.DataFrame(predictions.rows(evidence.measured(folder)), columns=scorecard.COLUMNS)
    return found.set_index(found["loss"] + "." + found["metric"])


def test_each_is_held_against_what_came(tmp_path):
    runs = {"sl": (0.10, 0.12, 31.0), "ccl": (0.11, 0.10, 42.0), "sl-push": (0.13, 0.13, 44.0)}
    write(tmp_path, runs)
    path = tmp_path / "runs.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    pushed = table["variant"] == "sl-push"
    table.loc[pushed, "settings"] = '{"loss.push": 1.3}'
    table.loc[pushed, "valid_ndcg@20"] = "0.9"
    table.to_csv(path, index=False)
    found = judged(tmp_path)
    assert found["verdict"].to_dict() == {
        "sl.gain": "claim holds",
        "sl.b": "claim holds",
        "sl.mean_popularity_b": "does not hold",
        "sl-push.push": "claim holds",
        "ccl.gain": "does not hold",
        "bpr.b": "not run",
    }
    assert found.loc["sl.b", "ours"] == 0.5 and found.loc["sl-push.push", "ours"] == 1.3
    assert 0 < found.loc["sl.gain", "low"] < 20 < found.loc["sl.gain", "high"] < 30
    assert found.loc["sl.b", "note"] == "predicted on 2000-01-01: 0.4 to 0.6"
    assert found.loc["sl.mean_popularity_b", "note"].endswith("below 40")
    page = scorecard.page(scorecard.build(tmp_path))
    assert page.count(predictions.SOURCE) == len(LINES)


def test_the_best_push_may_be_none(tmp_path):
    write(tmp_path, {"sl": (0.10, 0.12, 31.0), "sl-push": (0.13, 0.13, 44.0)})
    path = tmp_path / "runs.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[table["variant"] == "sl", "valid_ndcg@20"] = "0.9"
    table.to_csv(path, index=False)
    found = judged(tmp_path)
    assert found.loc["sl-push.push", "ours"] == 1
    assert found.loc["sl-push.push", "verdict"] == "does not hold"


def test_a_file_that_cannot_be_judged_says_why(tmp_path):
    write(tmp_path, {"sl": (0.10, 0.12, 31.0)})
    with pytest.raises(ValueError, match=r"predictions.csv: quantity fame: there are: gain, b"):
        judged(tmp_path, [("sl", "fame", 0, 1, 2)])
    (tmp_path / predictions.FILE).write_text("dataset\n")
    with pytest.raises(ValueError, match=r"predictions.csv: no column backbone, variant"):
        predictions.rows(evidence.measured(tmp_path))
