"""Tables of runs: merged, read back, and what is harvested beside them."""

import math
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from samples import RUNS, TINY, harvested, sweep, tune, write

from drrl_core import datasets, losses
from drrl_core.lab import results, spaces
from drrl_core.lab import store as store_module
from drrl_core.lab.run import configure, execute, key_of
from drrl_core.lab.workers import Compute
from drrl_core.paper import evidence
from drrl_core.train import popularity, tables


@pytest.mark.slow
def test_a_results_file_that_is_open_elsewhere_stops_no_sweep(store, tmp_path, monkeypatch, capsys):
    put, refused = results.write_whole, []

    def once(path, content):
        if path.name == "runs.csv" and not refused:
            refused.append(path)
            raise PermissionError("used by another process")
        put(path, content)

    monkeypatch.setattr(results, "write_whole", once)
    csv = tmp_path / "runs.csv"
    sweep(write(tmp_path, RUNS), csv=csv, compute=Compute(workers=0))
    assert refused and len(pd.read_csv(csv)) == 9
    assert "runs.csv is not written now: used by another process" in capsys.readouterr().err


def test_merging_keeps_a_budget_and_no_row_twice(store, at_once, tmp_path):
    path = tmp_path / "new" / "runs.csv"
    tuned = tune(trials=2, csv=path)
    before = path.read_text()
    results.merge(results.kept_rows(), path)  # of these runs alone: no budget
    assert path.read_text() == before
    run = configure("synthetic", "ccl", config=TINY)
    record = store_module.get_or_train(run, progress=False).record
    results.merge(results.kept_rows([record["key"]]), path)
    found = pd.read_csv(path).set_index("key")
    assert len(found) == 3 and math.isnan(found.loc[record["key"], "trials"])
    assert (found.loc[tuned["key"], "trials"] == 2).all()


def test_several_merge_into_one_file_at_once(store, tmp_path):
    store_module.get_or_train(configure("synthetic", "ccl", config=TINY), progress=False)
    row, path, together = results.kept_rows(), tmp_path / "runs.csv", threading.Barrier(8)

    def add(number):
        together.wait()
        results.merge(row.assign(key=f"{number:016x}"), path)

    with ThreadPoolExecutor(8) as clients:
        list(clients.map(add, range(8)))
    assert sorted(pd.read_csv(path, dtype=str)["key"]) == [f"{n:016x}" for n in range(8)]


@pytest.mark.slow
def test_harvest_takes_from_the_store_what_the_scorecard_asks(counted, tmp_path):
    folder = shutil.copytree(counted / "results", tmp_path / "results")
    found = pd.read_csv(folder / "runs.csv", index_col="key")
    few = {"users": 20, "store": counted / "runs"}
    assert results.harvest(folder, **few) == {}
    skew = pd.read_csv(folder / "skew.csv")
    along = skew[skew["order"].notna()]
    assert along["order"].tolist() == [1.2, 2, 4, math.inf] and set(along["held"]) == {"radius=0.5"}
    finals = skew[skew["order"].isna()]  # of sl both seeds, of drrl the best on valid
    best = found[found["loss"] == "drrl"]["valid_ndcg@20"].idxmax()
    plain = found[(found["loss"] == "sl") & ~found["settings"].str.contains("noise")]
    assert set(finals["key"]) == {best, *plain.index} and len(finals) == 3

    written = harvested(folder)
    sl = found[found["loss"] == "sl"].index
    curves = results.read_curves(folder / "popularity.csv")
    assert set(curves["key"]) == set(finals["key"])
    own = curves[curves["key"] == best].set_index("b")
    assert own.index.tolist() == [*popularity.CURVE]
    assert own.loc[0.0, "test_ndcg@20"] == pytest.approx(found.loc[best, "test_ndcg@20"], rel=1e-4)
    assert finals["mass"].notna().all() and finals.loc[
        finals["variant"] == "sl", "mass"
    ].to_numpy() == pytest.approx(1, rel=1e-4)
    assert written.keys() - {"skew.csv", "popularity.csv"} == {
        f"{key}.csv.gz" for key in [best, *sl]
    }
    for key in [best, *sl]:
        table = pd.read_csv(folder / "per_user" / f"{key}.csv.gz", index_col="user")
        whole = store_module.load(key, store=counted / "runs")
        pd.testing.assert_frame_equal(table, results.accuracy_by_user(whole), rtol=1e-4)
        plain = whole.fit.test[["recall@20", "ndcg@20"]]
        pd.testing.assert_frame_equal(table[["recall@20", "ndcg@20"]], plain, rtol=1e-4)
        assert found.loc[key, "test_ndcg@20_b"] == pytest.approx(
            table["ndcg@20_b"].mean(), rel=1e-3
        )
    users = evidence.measured(folder).p(("synthetic", "mf", 0.0, "ndcg@20"), "sl", "drrl")
    assert 0 < users <= 1
    path = folder / "per_user" / f"{best}.csv.gz"  # one from before popularity was put back
    table = pd.read_csv(path, index_col="user")[["recall@20", "ndcg@20"]]
    table.to_csv(path, float_format="%.5g")
    assert results.harvest(folder, **few) == {} and harvested(folder) == written
    (folder / "skew.csv").unlink()
    assert results.harvest(folder, **few) == {} and harvested(folder) == written


def test_harvest_keeps_what_the_store_has_not_and_what_counts_no_more(counted, tmp_path):
    folder = shutil.copytree(counted / "results", tmp_path / "results")
    csv, few = folder / "runs.csv", {"users": 20, "store": counted / "runs"}
    results.harvest(folder, **few)
    before = harvested(folder)
    nowhere = tmp_path / "nowhere"
    assert results.harvest(folder, store=nowhere) == {} and harvested(folder) == before

    (folder / "skew.csv").unlink()
    missing = results.harvest(folder, store=nowhere)
    assert len(missing) == 6 and all("no run in" in why for why in missing.values())
    assert pd.read_csv(folder / "skew.csv").empty
    (folder / "skew.csv").write_bytes(before["skew.csv"])
    rows = pd.read_csv(csv)
    for some in (rows[rows["loss"] == "sl"], rows[:0]):  # measured, though none is read now
        some.to_csv(csv, index=False)
        assert results.harvest(folder, store=nowhere) == {} and harvested(folder) == before
    rows.to_csv(csv, index=False)
    assert results.harvest(folder, store=nowhere) == {} and harvested(folder) == before
    with pytest.raises(ValueError, match=r"has no runs\.csv: drrl tune and"):
        results.harvest(tmp_path)


def test_weights_are_harvested_over_all_users():
    data = datasets.load("synthetic")
    run = configure("synthetic", "sl", config=TINY | {"temperature": 0.3, "epochs": 8})
    outcome = execute(run, data=data, progress=False)
    users, items = (t.detach().double().numpy() for t in tables(outcome.model))
    users, items = (t / np.linalg.norm(t, axis=1, keepdims=True) for t in (users, items))
    k1, k2 = [], []
    for user in range(data.n_users):
        train, test = (part[[user]].indices for part in (data.train, data.test))
        if len(train):
            weight = np.exp(items @ users[user] / 0.3)
            negatives = np.setdiff1d(np.arange(data.n_items), train)
            k1.append(weight[negatives].max() / weight[negatives].mean())
            k2.append(weight[test].mean() / weight[negatives].mean() if len(test) else np.nan)
    found = results.mean_weights(outcome, None)
    assert found["users"] == len(k1) > 900 and found["truncated"] == 0
    assert found["k1"] == pytest.approx(np.mean(k1), rel=1e-4)
    assert found["k2"] == pytest.approx(np.nanmean(k2), rel=1e-4)
    assert results.mean_weights(outcome, 10)["users"] == 10


@pytest.mark.parametrize("name", spaces.variants(8))
def test_the_weights_of_every_loss_can_be_harvested(name):
    line = spaces.variants(8)[name]
    point = {key: each.low for key, each in line.space.items()}
    settings = spaces.config_of(line, point) | TINY | {"epochs": 1}
    settings |= {"negatives": 1} if losses.lookup(line.loss).negatives == 1 else {}
    run = configure("synthetic", line.loss, config=settings)
    found = results.mean_weights(execute(run, progress=False), 5)
    assert found["k1"] >= 1 and found["k2"] >= 0 and 0 <= found["truncated"] < 1


def test_a_row_tells_of_its_run(counted):
    rows = pd.read_csv(counted / "results" / "runs.csv")
    data_hash = datasets.load("synthetic").hash
    for _, row in rows.iterrows():
        assert key_of(results.run_of(row), data_hash) == row["key"]
