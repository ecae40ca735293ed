"""What was found here: each sentence holds where the records say so, and only there."""

import math

import numpy as np
import pandas as pd
import pytest
from test_scorecard import run

from drrl_core.lab import results
from drrl_core.paper import evidence, findings, scorecard

RNG = np.random.default_rng(0)
USERS = RNG.random(400)
CELL = ("amazon-beauty", "mf", 0.0)


def write(folder, losses):
    """Runs of each loss: its accuracy without b and with it, and the popularity of its lists."""
    rows = []
    (folder / "per_user").mkdir()
    for variant, (plain, with_b, popular) in losses.items():
        more = {"b": 0.5, "mean_popularity": popular, "mean_popularity_b": 44.0}
        row = run(variant, test=plain, **more)
        rows.append(row)
        if with_b is None:
            continue
        noise = RNG.normal(0, 0.01, (2, len(USERS)))
        table = pd.DataFrame({"recall@20": USERS, "ndcg@20": plain * 2 * USERS + noise[0]})
        table["ndcg@20_b"] = with_b * 2 * USERS + noise[1]
        path = folder / "per_user" / f"{row['key']}.csv.gz"
        table.rename_axis("user").to_csv(path)
    frame = pd.DataFrame(rows).reindex(columns=results.RUNS)
    frame.to_csv(folder / "runs.csv", index=False)
    return evidence.measured(folder)


def told(e) -> pd.DataFrame:
    table = pd.DataFrame(findings.rows(e), columns=scorecard.COLUMNS)
    return table.set_index(
        table["id"].str.removeprefix("found.").str.replace("amazon-beauty.mf.", "")
    )


def test_each_sentence_holds_where_it_is_so(tmp_path):
    e = write(
        tmp_path,
        {
            "sl": (0.10, 0.12, 31.0),
            "ccl": (0.11, 0.11, 42.0),
            "bpr": (0.08, 0.14, 33.0),
            "bce": (0.12, 0.115, 25.0),
            "sl-push": (0.12, 0.12, 44.0),
        },
    )
    found = told(e)
    verdicts = found["verdict"].replace({"claim holds": True, "does not hold": False}).to_dict()
    assert verdicts == {
        "lift.sl": True,
        "lift.ccl": False,
        "level.ccl": True,
        "popular.ccl": True,
        "lift.bpr": True,
        "level.bpr": False,
        "lift.bce": False,
        "level.bce": True,
        "popular.bce": False,
        "lift.sl-push": False,
        "level.sl-push": True,
        "popular.sl-push": True,
        "push.sl-push": True,
    }
    assert found.loc["lift.sl", "ours"] == pytest.approx(20, abs=2)
    assert found.loc["level.bpr", "ours"] == pytest.approx(100 * (12 / 14 - 1), abs=2)
    assert found.loc["popular.ccl", "ours"] == pytest.approx(42 / 31)
    known = found.dropna(subset="low")
    assert ((known["low"] <= known["ours"]) & (known["ours"] <= known["high"])).all()
    assert "b 0.5; mean popularity of the lists 31, with b 44" in found.loc["lift.sl", "note"]


def test_a_push_that_is_far_from_b_is_not_called_level(tmp_path):
    e = write(tmp_path, {"sl": (0.10, 0.12, 31.0), "sl-push": (0.113, 0.113, 44.0)})
    assert told(e).loc["push.sl-push", "verdict"] == "does not hold"


def test_what_has_no_users_or_no_b_is_not_judged(tmp_path):
    e = write(tmp_path, {"sl": (0.10, 0.12, 31.0), "ccl": (0.11, None, 42.0)})
    found = told(e)
    assert found.loc["level.ccl", "verdict"] == "not run" and "popular.ccl" not in found.index
    assert math.isnan(findings.differences(e, CELL, ("sl", True), ("psl", True))[0])
    rows = pd.read_csv(tmp_path / "runs.csv").assign(b=math.nan)
    rows.to_csv(tmp_path / "runs.csv", index=False)
    assert findings.rows(evidence.measured(tmp_path)) == []


def test_they_stand_in_the_scorecard_and_on_its_page_apart_from_the_papers(tmp_path):
    write(tmp_path, {"sl": (0.10, 0.12, 31.0), "ccl": (0.11, 0.11, 42.0)})
    table = scorecard.build(tmp_path)
    own = table[table["source"] == findings.SOURCE]
    assert own["id"].is_unique and len(own) == 4
    summary = findings.summary(table).set_index("claim")
    assert summary.loc[findings.LIFT, ["holds", "of"]].tolist() == [1, 2]
    page = scorecard.page(table)
    assert page.count("Found here, beyond the paper") == 1 and findings.LEVEL in page
    assert "Found here, beyond" not in scorecard.page(scorecard.build(tmp_path / "nowhere"))
