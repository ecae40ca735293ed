"""A search that a stop, a kill or a lost store does not change, and what stops a trial early."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drrl_core import datasets
from drrl_core.lab import spaces, trials, workers
from drrl_core.lab import tune as tuning
from drrl_core.lab.run import key_of
from drrl_core.lab.workers import Compute, SearchError
from drrl_core.train import DivergedError

ROOT = Path(__file__).parents[2]
SMALL = {"epochs": 12, "patience": 12, "evaluate_every": 1, "negatives": 8, "dim": 4}
HERE = Compute(workers=0)


def tune(csv, name="sl", trials=5, **more):
    options = {"trials": trials, "csv": csv, "config": SMALL, "compute": HERE} | more
    return tuning.tune("synthetic", name, **options)


def told(csv: Path) -> list[dict]:
    """What the two tables say, but for when and how long."""
    tables = [trials.read(trials.beside(csv)), pd.read_csv(csv, dtype=str, keep_default_na=False)]
    tables = [table.drop(columns=["seconds", "finished"]) for table in tables]
    tables[1] = tables[1].drop(columns="commit")
    return [row for table in tables for row in table.to_dict("records")]


def study_of(csv: Path) -> pd.DataFrame:
    return trials.read(trials.beside(csv))


# --------------------------------------------------------------------------- stops

KILLED = """
import json, multiprocessing, os, random, signal, sys, time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import optuna, torch
from drrl_core import datasets
from drrl_core.lab import tune as tuning, workers as pools

torch.set_num_threads(1)
datasets.load("synthetic")
fork = multiprocessing.get_context("fork")
pools._process = lambda: ProcessPoolExecutor(1, fork, pools._settle)
home, rng = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
small = {"epochs": 14, "patience": 14, "evaluate_every": 1, "negatives": 8, "dim": 4}


def begin(name):
    if pid := os.fork():
        return pid
    os.environ["DRRL_RUNS"] = str(home / name / "runs")
    options = {"trials": 7, "seeds": 2, "csv": home / name / "runs.csv", "config": small}
    try:
        tuning.tune("synthetic", "sl", **options)
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)


began = time.time()
assert os.waitpid(begin("whole"), 0)[1] == 0
took, kills, over = time.time() - began, [], False
pid = begin("killed")
while len(kills) < 10 and not over:
    time.sleep(rng.uniform(0.02, took / 8))
    workers = []
    while not (over := os.waitpid(pid, os.WNOHANG)[0] == pid):
        workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if workers or len(kills) % 2 == 0:
            break
        time.sleep(0.01)  # it has not begun one yet
    if over:
        break
    if len(kills) % 2:
        os.kill(int(workers[0]), signal.SIGKILL)
        kills.append("worker")
    else:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        kills.append("client")
        pid = begin("killed")
if not over:
    over = os.waitpid(pid, 0)[1] == 0
print(json.dumps(kills))
sys.exit(not over)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="children are found in /proc")
def test_ten_kills_change_nothing(tmp_path):
    """Of the client and of the worker, by SIGKILL, at random moments of a search of seven."""
    line = [sys.executable, "-c", KILLED, str(tmp_path), "2"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    kills = json.loads(done.stdout)
    assert kills == ["client", "worker"] * 5
    whole, killed = tmp_path / "whole" / "runs.csv", tmp_path / "killed" / "runs.csv"
    assert told(killed) == told(whole)
    states = [*study_of(whole)["state"]]
    assert len(states) == 7 and {"COMPLETE", "PRUNED"} == {*states}
    assert not list((tmp_path / "killed" / "runs").glob("*.checkpoint"))


@pytest.mark.slow
def test_a_stop_between_any_two_writes_changes_nothing(store, tmp_path, monkeypatch):
    """After its first write to its storage, two writes later, three later, and so on."""
    from optuna.storages import RDBStorage

    names = ("create_new_trial", "set_trial_param", "set_trial_user_attr", "set_study_user_attr")
    names += ("set_trial_state_values", "set_trial_intermediate_value")
    few = SMALL | {"epochs": 2}
    tune(tmp_path / "whole.csv", trials=3, config=few, storage=f"sqlite:///{tmp_path / 'w'}")
    wanted = told(tmp_path / "whole.csv")
    trials.beside(tmp_path / "whole.csv").unlink()
    left, count = [0], 0

    def stopping(function):
        def write(*args, **options):
            result = function(*args, **options)
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            return result

        return write

    for name in names:
        monkeypatch.setattr(RDBStorage, name, stopping(getattr(RDBStorage, name)))
    csv = tmp_path / "stopped" / "runs.csv"
    for stop in range(1, 200):
        left[0] = stop
        try:
            tune(csv, trials=3, config=few)
        except KeyboardInterrupt:
            count += 1
        else:
            break
    assert count > 5 and told(csv) == wanted


def test_a_trial_that_runs_on_has_the_rivals_that_it_began_with():
    data = datasets.load("synthetic")
    plan = spaces.plan(data, "synthetic", "sl", "mf", SMALL)
    study = optuna.create_study(direction="maximize")
    first, second, third = (trials.ask(study, plan) for _ in range(3))
    for trial in (first, second):
        assert trials.rivals(study, trial, 14) == []
    trials.tell(study, first, values=[(5, 0.1), (7, 0.05)], value=0.1, seconds=1.0)
    fourth = trials.ask(study, plan)
    trials.tell(study, second, values=[(5, 0.2)], value=None, seconds=1.0)
    trials.fail(study, third, DivergedError("epoch 1"), pruned=True)
    fifth = trials.ask(study, plan)
    again = optuna.trial.Trial(study, fourth._trial_id)  # as after a stop
    trials.settle(study, again, plan.variant.space)
    finished = [(5, 0.1), (7, 0.1), (14, 0.1)]
    assert trials.rivals(study, again, 14) == [finished]
    assert trials.rivals(study, fifth, 14) == [finished, [(5, 0.2)]]


# --------------------------------------------------------------------------- the table


@pytest.mark.slow
def test_every_trial_is_a_row_as_it_ends(store, tmp_path, monkeypatch):
    csv, execute, seen = tmp_path / "runs.csv", workers.execute, []

    def sometimes(run, **options):
        if csv.with_name("trials.csv").exists():
            seen.append([*study_of(csv)["state"]])
        if len(seen) == 2:
            raise DivergedError("epoch 1")
        if len(seen) == 3:
            assert len(pd.read_csv(csv)) == 1
            raise OSError("disk full")
        return execute(run, **options)

    monkeypatch.setattr(workers, "execute", sometimes)
    with pytest.raises(SearchError, match="disk full"):
        tune(csv, trials=6)
    assert seen[2][:2] == ["COMPLETE", "PRUNED"]
    rows = study_of(csv)
    assert [*rows["number"]] == [str(n) for n in range(6)] and set(rows["from"]) == {"sampler"}
    assert list(rows["error"][:3]) == ["", "epoch 1", "disk full"] and rows["state"][2] == "FAIL"
    own, kept = rows[rows["state"] == "COMPLETE"], pd.read_csv(csv, index_col="key")
    assert {*own["key"]} == {*kept.index} and (kept["trials"] == 5).all()
    for _, row in rows.iterrows():
        values = json.loads(row["values"])
        assert row["state"] in ("PRUNED", "FAIL") or values[-1][0] == 12 == int(row["epochs"])
        if row["value"]:
            assert float(row["value"]) == kept.loc[row["key"], "valid_ndcg@20"]
            assert float(row["value"]) <= max(value for _, value in values)
    plan = spaces.plan(datasets.load("synthetic"), "synthetic", "sl", "mf", SMALL)
    for _, row in own.iterrows():
        run = plan.run(json.loads(row["params"]))
        assert key_of(run, row["data_hash"]) == row["key"]
    assert json.loads(rows["versions"][0]).keys() == {"drrl-core", "torch", "optuna"}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search of three trials, of five, of eight, and its store and tables at each."""
    home = tmp_path_factory.mktemp("searched")
    place = Compute(home / "runs", workers=0)
    for number in (3, 5, 8):
        found = tune(home / "runs.csv", trials=number, seeds=2, compute=place)
        shutil.copytree(home, home.with_name(f"{home.name}-{number}"))
    return home, found


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["store", "study", "nothing newer than"])
def test_the_table_alone_rebuilds_the_study(searched, tmp_path, monkeypatch, lost):
    home, wanted = searched
    here = shutil.copytree(home.with_name(f"{home.name}-5"), tmp_path / "here")
    store, csv, ran, execute = here / "runs", here / "runs.csv", [], workers.execute
    if lost == "study":
        (store / "studies.sqlite").unlink()
    else:
        shutil.rmtree(store)
        if lost != "store":
            shutil.copytree(home.with_name(f"{home.name}-3") / "runs", store)
    monkeypatch.setattr(workers, "execute", lambda run, **o: ran.append(run) or execute(run, **o))
    found = tune(csv, trials=8, seeds=2, compute=Compute(store, workers=0))
    assert told(csv) == told(home / "runs.csv")
    states = [*study_of(csv)["state"]]
    assert len(states) == 8 and {"COMPLETE", "PRUNED"} == {*states}
    late = ["seconds", "finished", "commit"]
    pd.testing.assert_frame_equal(found.drop(columns=late), wanted.drop(columns=late))
    assert list(found["seed"][:2]) == [1, 0]
    assert 3 <= len(ran) <= 4  # three trials, and the second seed of another best
    assert len({*map(str, ran)}) == len(ran)


@pytest.mark.slow
def test_what_waits_is_in_the_table_too(store, tmp_path, monkeypatch):
    """A study that begins with others' points has the same ones after its store is lost."""
    csv = tmp_path / "runs.csv"
    for name in ("sl", "ccl"):
        tune(csv, name, trials=1)
    tune(csv, "drrl-fixed", trials=1)
    rows = study_of(csv)
    rows = rows[rows["variant"] == "drrl-fixed"]
    assert [*rows["state"]] == ["COMPLETE", "WAITING", "WAITING"]
    assert [*rows["from"]] == ["sl", "ccl", "halfway"]
    assert [*rows["source"]] == [
        "sl's 1 trials",
        "ccl's 1 trials",
        "sl's 1 trials and ccl's 1 trials",
    ]
    shutil.rmtree(store)
    ran, execute = [], workers.execute
    monkeypatch.setattr(workers, "execute", lambda run, **o: ran.append(run) or execute(run, **o))
    tune(csv, "drrl-fixed", trials=4)
    again = study_of(csv)
    again = again[again["variant"] == "drrl-fixed"]
    assert [*again["from"]] == ["sl", "ccl", "halfway", "sampler"]
    assert [*again["params"][:3]] == [*rows["params"]]
    assert [run.loss for run in ran] == ["drrl"] * 3  # SL and CCL were not needed again


def test_a_table_that_is_none_is_refused_before_anything_starts(store, tmp_path):
    csv = tmp_path / "runs.csv"
    trials.beside(csv).write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"trials\.csv: no column study"):
        tune(csv)
    trials.beside(csv).unlink()
    tune(csv, trials=2)
    rows = study_of(csv)
    shutil.rmtree(store)
    rows[1:].to_csv(trials.beside(csv), index=False)
    with pytest.raises(ValueError, match="has no row for trial 0: put it back"):
        tune(csv)
    pd.concat([rows, rows]).to_csv(trials.beside(csv), index=False)
    with pytest.raises(ValueError, match=r"trial 0 of synthetic/mf/sl/.* stands in two rows"):
        tune(csv)
    with pytest.raises(ValueError, match="is where the trials go"):
        tune(tmp_path / "trials.csv")


# --------------------------------------------------------------------------- what stops a trial

CURVE = st.lists(st.floats(0, 1, width=16), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(CURVE, max_size=7),
    CURVE,
    st.sampled_from([1, 2, 5, 30]),
    st.sampled_from([12, 25, 50, 100]),
)
def test_a_trial_stops_at_a_rung_where_it_is_not_in_the_upper_half(others, own, every, epochs):
    def curve(values):
        steps = [each for each in range(every, epochs + 1, every)]
        return trials.best_so_far(zip(steps, values, strict=False))

    def at(values, rung):  # what it had, there or as soon after as it was looked at
        return next((best for epoch, best in values if epoch >= rung), None)

    others, own = [each for each in map(curve, others) if each], curve(own)
    first, wanted = max(10, round(0.15 * epochs)), None
    for rung in (first * 2**n for n in range(8)):
        mine = at(own, rung)
        if mine is None:
            break
        field = sorted([*(v for each in others if (v := at(each, rung)) is not None), mine])
        if mine < field[-max(1, len(field) // 2)]:
            wanted = next(epoch for epoch, _ in own if epoch >= rung)
            break
    over = trials.stopped(own, trials.judge(others, epochs))
    if wanted is not None and wanted < epochs and len(others) >= 3:
        assert over == own[: len(over)] and over[-1][0] == wanted
    else:
        assert over is None


def test_nobody_is_stopped_in_a_short_run_or_without_rivals():
    rng = np.random.default_rng(0)
    curve = [(epoch, float(rng.random())) for epoch in range(1, 101)]
    better = [(epoch, 9.0) for epoch, _ in curve]
    for few in range(3):
        assert trials.stopped(curve, trials.judge([better] * few, 100)) is None
    assert trials.stopped(curve, trials.judge([better] * 3, 100)) == curve[:15]
    assert trials.stopped(curve[:9], trials.judge([better[:9]] * 3, 9)) is None
