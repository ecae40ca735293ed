"""Tuning: every trial once, whatever is killed, and a choice that can be trusted."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
from samples import ROOT, TINY, studies, trials_of, tune, when_under_way, write

from drrl_core import cli as command
from drrl_core import datasets, losses
from drrl_core.lab import results, spaces, workers
from drrl_core.lab import store as store_module
from drrl_core.lab import tune as tuning
from drrl_core.lab.run import configure, execute, key_of
from drrl_core.lab.workers import Compute, SearchError
from drrl_core.train import DivergedError


@pytest.mark.slow
def test_drrl_begins_with_the_optima_of_sl_and_ccl_and_reaches_them(store, at_once, capsys):
    longer = {"epochs": 5, "lr": 0.01}
    for name in ("sl", "ccl"):
        tune(name, trials=2, config=longer)
    tune("drrl-fixed", trials=4, config=longer)
    for other in ("sl", "ccl"):
        assert f"{other}'s optimum" not in capsys.readouterr().err
    found = {study.study_name.split("/")[2]: study for study in studies(store)}
    first = found["drrl-fixed"].trials
    assert [t.user_attrs.get("from") for t in first] == [*("sl", "ccl", "halfway", "sampler")]
    for trial, origin in zip(first[:2], ("sl", "ccl"), strict=True):
        assert trial.value == pytest.approx(found[origin].best_value, rel=0.03)
    one, other, middle = (trial.params for trial in first[:3])
    assert middle["loss.order-1"] == pytest.approx(math.sqrt(0.02 * 150))
    most = 0.85 * math.log(TINY["negatives"])  # where the search ends, though CCL does not
    radii = one["loss.radius"], min(other["loss.radius"], most)
    assert middle["loss.radius"] == pytest.approx(sum(radii) / 2)
    assert one["loss.start"] < -1  # outside what is searched, unlike their middle
    assert middle["loss.start"] == pytest.approx((-0.3 + other["loss.start"]) / 2)
    tune("drrl-fixed", trials=5, config=longer)  # they are enqueued once
    assert len(found["drrl-fixed"].trials) == 5


def test_drrl_says_what_it_could_not_begin_with(store, at_once, capsys):
    tune("drrl-penalty", trials=1)
    err = capsys.readouterr().err
    assert "does not begin with sl's optimum" in err and "ccl's optimum" in err


@pytest.mark.slow
def test_a_store_without_studies_begins_with_the_optima_in_the_results_file(
    store, at_once, tmp_path, capsys
):
    longer, csv = {"epochs": 5, "lr": 0.01}, tmp_path / "runs.csv"
    before = tune("sl", trials=2, seeds=2, config=longer, csv=csv)
    tune("ccl", trials=1, config=longer, csv=csv)
    tune("sl", trials=1, config=longer | {"dim": 5, "epochs": 9}, csv=csv)  # is another
    best = before[before["seed"] == 0].iloc[0]
    for name in ("drrl-fixed", "drrl-shared"):  # which finds the first's in the store
        if name == "drrl-fixed":
            shutil.rmtree(store)
        tune(name, trials=3, config=longer, csv=csv)
        assert "does not begin with" not in capsys.readouterr().err
        (study,) = (each for each in studies(store) if name in each.study_name)
        assert [trial.user_attrs.get("from") for trial in study.trials] == ["sl", "ccl", "halfway"]
        assert study.trials[0].value == pytest.approx(best["valid_ndcg@20"], rel=0.03)
        assert store_module.record(best["key"])["valid"]["ndcg@20"] == best["valid_ndcg@20"]
    tune("drrl-fixed", trials=1, config=longer | {"dim": 6}, csv=csv)
    assert "does not begin with sl's optimum" in capsys.readouterr().err


@pytest.mark.slow
def test_the_best_is_chosen_on_valid_and_trained_with_further_seeds(store, at_once, tmp_path):
    found = tune(trials=4, seeds=3, csv=tmp_path / "runs.csv")
    assert list(found["seed"]) == [1, 2, 0, 0, 0, 0]
    tuned = found[found["seed"] == 0]
    assert list(tuned["valid_ndcg@20"]) == sorted(tuned["valid_ndcg@20"], reverse=True)
    assert set(found["settings"][:3]) == {tuned["settings"].iloc[0]}
    assert set(found["trials"]) == {4} and set(found["variant"]) == {"sl"}
    assert tuned["settings"].nunique() == 4
    row = found.iloc[0]
    settings = json.loads(row["settings"]) | {"seed": 1, "negatives": 8}
    run = configure("synthetic", row["loss"], row["backbone"], settings)
    again = execute(run, progress=False).record  # a row says all that it takes
    assert (again["key"], again["test"]["ndcg@20"]) == (row["key"], row["test_ndcg@20"])
    written = pd.read_csv(tmp_path / "runs.csv", dtype=str)
    assert tuple(written) == results.RUNS
    merged = written.set_index("key").loc[found["key"]]
    assert [float(text) for text in merged["test_ndcg@20"]] == list(found["test_ndcg@20"])


def test_trials_are_judged_by_the_metric_and_the_cutoff(store, at_once, tmp_path):
    given = {"metric": "recall", "cutoff": 3, "epochs": 3, "evaluate_every": 1}
    found = tune(trials=3, seeds=2, config=given, csv=tmp_path / "runs.csv")
    (study,) = studies(store)
    for trial in study.trials:
        record = store_module.record(trial.user_attrs["key"])
        assert trial.value == record["valid"]["recall@3"] and "ndcg@3" in record["test"]
        history = store_module.load(record["key"], data=datasets.load("synthetic")).fit.history
        assert [*trial.intermediate_values.values()] == history["recall@3"].tolist()
    best = max(study.trials, key=lambda trial: trial.value).user_attrs["key"]
    assert [*found["seed"]] == [1, 0, 0, 0] and found["key"][1] == best
    assert json.loads(found["settings"][0])["train.cutoff"] == 3
    kept = store_module.table()
    assert {"test_recall@3", "valid_ndcg@3", "train.metric"} <= {*kept}
    assert set(kept["train.cutoff"]) == {3}


@pytest.mark.slow
@pytest.mark.parametrize("name", spaces.variants(8))
def test_every_variant_is_tuned_from_anywhere_in_its_space(store, name):
    single = losses.lookup(spaces.variants(8)[name].loss).negatives == 1
    given = {"negatives": 1} if single else {}
    found = tune(name, trials=2, config=given | {"epochs": 1}, compute=Compute(workers=0))
    assert len(found) == 2 and (found["valid_ndcg@20"] > 0).all()


def test_the_same_call_again_trains_nothing(store, at_once, monkeypatch):
    first = tune(trials=3, seeds=2)
    monkeypatch.setattr(workers, "execute", None)
    pd.testing.assert_frame_equal(tune(trials=3, seeds=2), first)
    (store / "studies.sqlite").unlink()  # the runs are still there
    pd.testing.assert_frame_equal(tune(trials=3, seeds=2), first)


@pytest.mark.slow
def test_a_stop_changes_nothing(store, at_once, monkeypatch, capsys):
    whole = f"sqlite:///{store / 'whole.sqlite'}"
    store.mkdir()
    tune(trials=6, storage=whole)
    for path in store.glob("?" * 16):
        path.rename(path.with_name(f"gone-{path.name}"))
    keep, kept, done = store_module.save, [], []

    def keep_some(files, **options):
        if len(kept) == 2 and not done:
            done.append(1)
            raise KeyboardInterrupt  # trained, but not kept yet
        kept.append(json.loads(files["record.json"])["key"])
        return keep(files, **options)

    monkeypatch.setattr(store_module, "save", keep_some)
    with pytest.raises(KeyboardInterrupt):
        tune(trials=6)
    assert "the same command continues" in capsys.readouterr().err
    assert [state for *_, state in trials_of(store)] == ["COMPLETE", "COMPLETE", "RUNNING"]
    assert len(list(store.glob("*.checkpoint"))) == 1
    tune(trials=6)
    assert trials_of(store) == trials_of(store, "whole.sqlite")
    assert len(kept) == len(set(kept)) == 6 and not list(store.glob("*.checkpoint"))


@pytest.mark.slow
def test_a_trial_below_the_others_is_stopped_and_leaves_no_checkpoint(store, at_once):
    longer = {"epochs": 30, "patience": 30, "lr": 0.01}
    found = tune(trials=6, config=longer)
    (study,) = studies(store)
    states = [trial.state.name for trial in study.trials]
    assert set(states[:3]) == {"COMPLETE"} and "PRUNED" in states
    assert len(found) == states.count("COMPLETE") and set(found["trials"]) == {6}
    for trial in study.trials:
        last = max(trial.intermediate_values)
        assert last == 30 if trial.state.name == "COMPLETE" else last in (10, 20)
    assert not list(store.glob("*.checkpoint"))


@pytest.mark.slow
def test_a_trial_that_continues_is_judged_by_all_that_it_reached(store, at_once, monkeypatch):
    """Whenever it is stopped, before the rung or after, while that was being said or not."""
    longer = TINY | {"epochs": 14, "patience": 14}
    run, data = configure("synthetic", config=longer), datasets.load("synthetic")
    job = Compute().job(None, run, data.hash, [[(10, 2.0)]] * 3)
    plain = Compute().job(None, run, data.hash)
    whole = job.function(**job.arguments)
    assert whole["value"] is None and [epoch for epoch, _ in whole["values"]] == [*range(1, 11)]
    checkpoint = store_module.checkpoint_of(key_of(run, data.hash))
    for epochs in (1, 9, 10):
        checkpoint.unlink()
        store_module.get_or_train(
            run, on_epoch=lambda row, n=epochs: row["epoch"] == n, progress=False
        )
        monkeypatch.setattr(workers, "execute", execute if epochs < 10 else None)
        again = job.function(**job.arguments)
        assert (again["value"], again["values"]) == (None, whole["values"])
    monkeypatch.undo()
    assert plain.function(**plain.arguments)["value"] is not None  # nobody to be judged by


@pytest.mark.slow
def test_failures_are_listed_the_others_kept_and_divergence_is_an_outcome(
    store, at_once, monkeypatch, tmp_path
):
    execute, calls = workers.execute, []

    def sometimes(run, **options):
        calls.append(run)
        if len(calls) == 1:
            raise DivergedError("epoch 1")
        if len(calls) == 2:
            raise OSError("disk full")
        return execute(run, **options)

    monkeypatch.setattr(workers, "execute", sometimes)
    with pytest.raises(SearchError, match=r"1 of 4 failed.*\n.*trial 1 .*disk full"):
        tune(trials=4, csv=tmp_path / "runs.csv")
    states = [state for *_, state in trials_of(store)]
    assert states == ["PRUNED", "FAIL", "COMPLETE", "COMPLETE"]
    assert len(pd.read_csv(tmp_path / "runs.csv")) == 2
    # What failed has cost no budget: the same command tries its point again, and no other.
    found = tune(trials=4, csv=tmp_path / "runs.csv")
    *_, (_, again, value, _) = trials_of(store)
    assert again == trials_of(store)[1][1] and value is not None and len(trials_of(store)) == 5
    assert len(found) == 3 and set(found["trials"]) == {4}
    assert len(calls) == 5 and len(tune(trials=4)) == 3 and len(calls) == 5


def test_failing_for_ever_ends_and_all_diverging_is_said(store, at_once, monkeypatch):
    error = OSError("disk full")

    def fails(run, **options):
        raise error

    monkeypatch.setattr(workers, "execute", fails)
    for more in range(1, 3):
        with pytest.raises(SearchError, match="2 of 2 failed"):
            tune(trials=2)
        assert [state for *_, state in trials_of(store)] == ["FAIL"] * 2 * more
    error = DivergedError("epoch 1")
    with pytest.raises(SearchError, match="none of 2 trials was finished, all diverged"):
        tune(trials=2)


def test_ctrl_c_here_leaves_a_trial_to_be_continued(store, ctrl_c):
    options = {"trials": 2, "config": {"epochs": 6}, "compute": Compute(workers=0)}
    with pytest.raises(KeyboardInterrupt):
        tune(**options)
    assert [state for *_, state in trials_of(store)] == ["RUNNING"]
    assert len(list(store.glob("*.checkpoint"))) == 1
    assert len(tune(**options)) == 2 and not list(store.glob("*.checkpoint"))
    assert [state for *_, state in trials_of(store)] == ["COMPLETE"] * 2


def test_one_client_at_a_study_and_another_is_told_who(store, at_once, monkeypatch):
    begun, refused, train = threading.Event(), threading.Event(), workers._train

    def wait(run, **more):
        begun.set()
        assert refused.wait(60)
        return train(run, **more)

    monkeypatch.setattr(workers, "_train", wait)
    with ThreadPoolExecutor(1) as other:
        first = other.submit(tune, trials=1)
        assert begun.wait(60)
        try:
            with pytest.raises(SearchError, match=rf"synthetic/mf/sl.*process {os.getpid()} on"):
                tune(trials=2)
        finally:
            refused.set()
        first.result()
    assert [state for *_, state in trials_of(store)] == ["COMPLETE"]
    assert len(tune(trials=2)) == 2  # the lock went with the first


def test_other_studies_are_not_waited_for(store):
    store.mkdir()
    with tuning._alone_at("a", "one", store):
        for study, storage in (("b", "one"), ("a", "another")):
            with tuning._alone_at(study, storage, store):
                pass
        with pytest.raises(SearchError), tuning._alone_at("a", "one", store):
            pass


def test_clients_that_begin_at_once_make_one_storage(store):
    store.mkdir()
    together = threading.Barrier(4)

    def begin(_):
        together.wait()
        return tuning._studies(f"sqlite:///{store / 'studies.sqlite'}", store).get_all_studies()

    with ThreadPoolExecutor(4) as clients:
        assert list(clients.map(begin, range(4))) == [[]] * 4


def test_a_killed_client_leaves_no_lock(store):
    store.mkdir()
    code = (
        "import pathlib, sys, time; from drrl_core.lab import tune as tuning\n"
        "with tuning._alone_at('study', 'url', pathlib.Path(sys.argv[1])):\n"
        "    print('locked', flush=True); time.sleep(100)"
    )
    line = [sys.executable, "-c", code, str(store)]
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(SearchError, match=f"process {process.pid} on"):
            tuning._alone_at("study", "url", store).__enter__()
    finally:
        process.kill()
        process.communicate()
    (left,) = store.glob("*.owner")
    assert str(process.pid) in left.read_text()
    with tuning._alone_at("study", "url", store):
        assert left.read_text().startswith(f"process {os.getpid()} on")


def test_the_storage_is_written_nowhere_else(store, at_once, tmp_path, capsys):
    url = f"sqlite:///{tmp_path / 'hunter2.sqlite'}"
    tune(trials=1, storage=url, csv=tmp_path / "runs.csv")
    out = capsys.readouterr()
    assert "hunter2" not in out.out + out.err
    for path in [tmp_path / "runs.csv", *store.rglob("*")]:
        assert path.is_dir() or b"hunter2" not in path.read_bytes()
    assert not (store / "studies.sqlite").exists()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"variant": "drl"}, "no variant 'drl'; did you mean 'drrl'"),
        ({"config": {"temprature": 1}}, "did you mean.*temperature"),
        ({"config": {"lr": -1}}, "lr must lie in"),
        ({"variant": "drrl-exact", "config": {"dual": "fixed"}}, "its own dual.*drrl-fixed"),
    ],
)
def test_tune_refuses_before_it_starts(store, options, match):
    with pytest.raises(ValueError, match=match):
        tune(**options)
    assert not list(store.glob("*"))


def test_tune_refuses_data_without_valid_pairs(store, tmp_path):
    (tmp_path / "own.csv").write_text("user,item\n1,2\n1,3\n2,2\n")
    with pytest.raises(ValueError, match="no valid pairs"):
        tuning.tune(str(tmp_path / "own.csv"), "sl")


def test_the_commands_print_what_they_found_and_fail_where_something_did(
    store, at_once, tmp_path, monkeypatch, capsys
):
    def drrl(*arguments):
        monkeypatch.setattr(sys, "argv", ["drrl", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            command.main()
        return end.value.code or 0, *capsys.readouterr()

    small = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]
    line = ["tune", "synthetic", "--loss", "drrl-exact", "--trials", 1, "--seeds", 2, *small]
    code, out, err = drrl(*line, "--csv", tmp_path / "runs.csv")
    rows = pd.read_csv(tmp_path / "runs.csv")
    assert code == 0 and "1/1" in err and list(rows["seed"]) == [0, 1]
    for _, row in rows.iterrows():
        assert f"{row['key']} drrl-exact" in out and f"{row['test_ndcg@20']:.4f}"[:5] in out
    code, _, err = drrl("sweep", write(tmp_path, "- {dataset: synthetic, loss: sll}"))
    assert code == 2 and "block 1: no loss is called 'sll'" in err and "Traceback" not in err
    monkeypatch.setattr(workers, "execute", None)
    code, out, err = drrl("sweep", write(tmp_path, "- {dataset: synthetic}"))
    assert code == 2 and "1 of 1 failed" in err and "Traceback" not in err and not out


@pytest.mark.slow
def test_the_command_continues_after_ctrl_c_and_after_a_kill(store, tmp_path):
    line = [sys.executable, "-m", "drrl_core", "tune", "synthetic", "--trials", "3"]
    for setting in ("epochs=60", "patience=60", "evaluate_every=60", "dim=4", "negatives=8"):
        line += ["--set", setting]
    seen = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 300}
    for number in (signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        when_under_way(store, lambda p=process, n=number: p.send_signal(n)).join()
        _, err = process.communicate(timeout=60)  # closed by the worker, too: it is gone
        assert process.returncode != 0
        if number == signal.SIGINT:
            assert "the same command continues" in err
        assert [state for *_, state in trials_of(store)].count("RUNNING") == 1
    done = subprocess.run(line, **seen)
    assert done.returncode == 0, done.stderr
    assert [state for *_, state in trials_of(store)] == ["COMPLETE"] * 3
    assert len(store_module.table()) == 3 and not list(store.glob("*.checkpoint"))


def test_popularity_put_back_can_be_what_counts(store, at_once):
    """Another study, each trial's value its accuracy with b, the same runs, the best of these."""
    plain, with_b = tune("sl", trials=3), tune("sl", trials=3, popularity="auto")
    assert {*plain["key"][:1]} & {*with_b["key"]}  # the first trial is the same run, trained once
    one, other = sorted(studies(store), key=lambda s: s.trials[0].value or 0)
    for trial in other.trials:
        if trial.state.name == "COMPLETE":
            told = store_module.load(trial.user_attrs["key"]).record["popularity"]["valid"]
            assert trial.value == told["ndcg@20"]
    assert one.study_name != other.study_name
    best = with_b["valid_ndcg@20_b"].max()
    assert with_b["valid_ndcg@20_b"].iloc[0] == pytest.approx(best, abs=1e-12)


def test_a_point_that_is_drawn_twice_is_one_row(store, at_once, tmp_path, monkeypatch):
    csv = tmp_path / "runs.csv"
    same = {"temperature": 0.25, "lr": 0.01}
    found = tune("sl", trials=3, config=same, csv=csv)  # nothing is left to search
    assert len(found) == 1 == len(results.read_runs(csv))


def test_popularity_that_a_search_cannot_put_back_is_refused(store, at_once):
    with pytest.raises(ValueError, match=r"popularity must be 0 or 'auto' in a search, not 0\.5"):
        tune("sl", popularity=0.5)
    with pytest.raises(ValueError, match=r"'auto' goes with recall@20, ndcg@20, not with ndcg@10"):
        tune("sl", popularity="auto", config={"cutoff": 10})
