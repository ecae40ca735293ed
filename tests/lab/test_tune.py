"""Tuning and sweeps: every trial once, whatever is killed, and results that can be trusted."""

import json
import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import torch

from drrl_core import cli as command
from drrl_core import datasets, losses
from drrl_core.lab import results, spaces, starts, workers
from drrl_core.lab import store as store_module
from drrl_core.lab import sweep as sweeps
from drrl_core.lab import tune as tuning
from drrl_core.lab.run import Run, configure, execute, key_of
from drrl_core.lab.workers import Compute, Job, SearchError, Task, run_jobs
from drrl_core.pages import runner
from drrl_core.pages.sweeps import notebook_job
from drrl_core.paper import evidence, plans
from drrl_core.train import diagnose, metrics, trainer
from drrl_core.train.trainer import DivergedError

ROOT = Path(__file__).parents[2]
sweep = partial(sweeps.sweep, notebook=notebook_job)
TINY = {"epochs": 2, "evaluate_every": 1, "negatives": 8, "dim": 4}


@pytest.fixture
def store(monkeypatch, tmp_path):
    monkeypatch.setenv("DRRL_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def at_once(monkeypatch):
    """Workers are threads: no process to start, and a test can reach into them."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(workers, "_process", lambda: ThreadPoolExecutor(1))
    yield
    torch.set_num_threads(threads)


def tune(variant="sl", trials=3, **more):
    more["config"] = TINY | more.get("config", {})
    return tuning.tune("synthetic", variant, trials=trials, **more)


def studies(store: Path, name: str = "studies.sqlite") -> list[optuna.Study]:
    url = f"sqlite:///{store / name}"
    names = optuna.study.get_all_study_names(url)
    return [optuna.load_study(study_name=name, storage=url) for name in names]


def trials_of(store: Path, name: str = "studies.sqlite") -> list[tuple]:
    (study,) = studies(store, name)
    return [(t.number, t.params, t.value, t.state.name) for t in study.trials]


# --------------------------------------------------------------------------- search spaces


def test_every_loss_has_a_variant_and_every_corner_of_its_space_is_accepted():
    table = spaces.variants(64)
    assert {variant.loss for variant in table.values()} == losses.REGISTRY.keys()
    for name, variant in table.items():
        for end in (0, 1):
            point = {key: each[end] for key, each in variant.space.items()}
            settings = spaces.config_of(variant, point)
            run = configure("synthetic", variant.loss, "mf", settings)
            assert spaces.variant_of(run.loss, run.loss_config) == name
            assert configure("synthetic", variant.loss, "mf", json.loads(json.dumps(settings)))


def test_the_balls_are_no_point_mass_and_both_ends_of_the_family_are_within():
    for count in (64, 1024, 3570):
        for name in ("drrl", "drrl-shared", "drrl-fixed", "drrl-exact"):
            space = spaces.variants(count)[name].space
            assert space["loss.radius"][:2] == (0.05, 0.85 * math.log(count))
            low, high = (1 + gamma for gamma in space["loss.order-1"][:2])
            assert low / (low - 1) >= 50 and high / (high - 1) <= 1.007


def test_what_is_given_is_not_searched():
    data = datasets.load("synthetic")

    def plan(name, **given):
        found = spaces.plan(data, "synthetic", name, "mf", given)
        return found.variant.space.keys(), found.run()

    space, run = plan("drrl", weight=1, order=2, lr=0.5, negatives=32)
    assert space == {"loss.start", "train.dual_lr"}
    assert (run.loss_config["weight"], run.loss_config["radius"]) == (1, None)
    assert (run.loss_config["order"], run.train.lr) == (2, 0.5)
    space, _ = plan("drrl-exact", sampler="catalogue")
    assert space == {"loss.order-1", "loss.radius", "train.lr"}
    wide = spaces.plan(data, "synthetic", "drrl-exact", "mf", {"sampler": "catalogue"})
    assert wide.variant.space["loss.radius"].high == 0.85 * math.log(800)
    found = spaces.plan(data, "synthetic", "sl", "xsimgcl", {"backbone.temperature": 0.3})
    assert "loss.temperature" in found.variant.space


def test_studies_are_apart_where_anything_differs():
    data = datasets.load("synthetic")
    given = [{}, {"epochs": 3}, {"seed": 1}, {"negatives": 32}, {"lr": 0.1}, {"train.lr": 0.1}]
    names = [spaces.plan(data, "synthetic", "sl", "mf", each).study for each in given]
    names += [spaces.plan(data, "synthetic", name, "mf", {}).study for name in ("drrl", "ccl")]
    assert len(set(names)) == len(names) - 1 and names[4] == names[5]
    assert all(name.startswith("synthetic/mf/") for name in names)


# --------------------------------------------------------------------------- optima, mapped


@pytest.fixture(scope="module")
def trained():
    shared = {"epochs": 4, "lr": 0.01}
    sl = configure("synthetic", "sl", config=shared | {"temperature": 0.15})
    ccl = configure("synthetic", "ccl", config=shared | {"margin": 0.2, "weight": 8})
    return {run.loss: execute(run, progress=False) for run in (sl, ccl)}


@pytest.mark.parametrize(
    "name", ["drrl", "drrl-shared", "drrl-fixed", "drrl-exact", "drrl-penalty"]
)
@pytest.mark.parametrize("origin", ["sl", "ccl"])
def test_a_mapped_optimum_listens_as_the_loss_it_comes_from(trained, name, origin):
    variant = spaces.variants(64)[name]
    point = starts.point_of(trained[origin], variant, 64)
    if (name, origin) == ("drrl-penalty", "ccl"):
        assert point is None  # as the order grows the penalty becomes the plain mean
        return
    assert point.keys() == variant.space.keys() and point["train.lr"] == 0.01
    settings = spaces.config_of(variant, point)
    run = configure("synthetic", "drrl", config=settings)  # accepted
    made = losses.make("drrl", n_users=20, n_items=1, **run.loss_config)
    rng, rows = np.random.default_rng(1), []
    for user in range(0, 1000, 50):
        rows.append(rng.choice(diagnose.negatives_of(trained[origin], user)["score"], 64))
    neg, pos = torch.tensor(np.array(rows)), torch.full((20,), 0.5)
    found = losses.negative_weights(made, pos, neg, losses.Batch(torch.arange(20)))
    if origin == "sl":  # w ∝ exp(f/τ)
        wanted = 64 * torch.softmax(neg / 0.15, -1)
    else:  # w alike above β, none below; at order 151, nearly
        wanted = (neg > 0.2).float()
        wanted *= 64 / wanted.sum(-1, keepdim=True)
    if (name, origin) == ("drrl-exact", "ccl"):  # one margin is another radius for each row
        wanted = (neg > 0.2).double().mean(-1).log().neg().median()
        assert point["loss.radius"] == pytest.approx(wanted.item(), rel=0.15)
        return
    slack = 0.3 if name == "drrl-exact" else 0.05  # and one radius another τ
    assert (found - wanted).abs().mean() < slack * wanted.abs().mean()


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


# --------------------------------------------------------------------------- tuning


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


@pytest.fixture
def ctrl_c(monkeypatch):
    """Ctrl-C falls into the third evaluation, once."""
    evaluate, seen = metrics.evaluate, []

    def interrupted(*given, **options):
        seen.append(given)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return evaluate(*given, **options)

    monkeypatch.setattr(metrics, "evaluate", interrupted)


def test_ctrl_c_here_leaves_a_trial_to_be_continued(store, ctrl_c):
    options = {"trials": 2, "config": {"epochs": 6}, "compute": Compute(workers=0)}
    with pytest.raises(KeyboardInterrupt):
        tune(**options)
    assert [state for *_, state in trials_of(store)] == ["RUNNING"]
    assert len(list(store.glob("*.checkpoint"))) == 1
    assert len(tune(**options)) == 2 and not list(store.glob("*.checkpoint"))
    assert [state for *_, state in trials_of(store)] == ["COMPLETE"] * 2


def test_ctrl_c_here_leaves_a_sweep_to_be_continued(store, ctrl_c, tmp_path):
    options = {"csv": tmp_path / "runs.csv", "compute": Compute(workers=0)}
    path = write(tmp_path, RUNS.replace("epochs: 1", "epochs: 6, evaluate_every: 1"))
    with pytest.raises(KeyboardInterrupt):
        sweep(path, **options)
    assert store_module.table().empty
    assert len(sweep(path, **options)) == 9


def test_a_file_that_is_no_table_of_runs_is_refused_before_anything_starts(store, tmp_path):
    (tmp_path / "runs.csv").write_text("a,b\n1,2\n")
    for start in (tune, lambda **more: sweep(write(tmp_path, RUNS), **more)):
        with pytest.raises(ValueError, match=r"runs\.csv: no column key"):
            start(csv=tmp_path / "runs.csv")
    assert not list(store.glob("*")) or store_module.table().empty


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


def test_place_keeps_to_the_cores_there_are():
    cores = len(os.sched_getaffinity(0))
    assert Compute(threads=10**6).share() == cores
    assert Compute(workers=10**6, threads=8).share() == 1
    assert Compute(scheduler="tcp://far", threads=10**6).share() == 10**6
    with pytest.raises(ValueError, match="workers must be at least 0"):
        Compute(workers=-1)


# --------------------------------------------------------------------------- results


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


# --------------------------------------------------------------------------- sweeps

RUNS = """
- dataset: synthetic
  loss: [sl, ccl]
  settings: {epochs: 1, negatives: 4, dim: 4, lr: [1e-2, 0.003], seed: [0, 1]}
- dataset: synthetic
  loss: sl
  settings:
    - {epochs: 1, negatives: 4, dim: 4, lr: 0.01, temperature: [0.1, 0.2]}
"""


def write(tmp_path, text: str) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return path


def test_a_sweep_is_the_grid_each_once(store, at_once, tmp_path, monkeypatch):
    found = sweep(write(tmp_path, RUNS), csv=tmp_path / "runs.csv")
    # two losses, two rates, two seeds; then τ = 0.1, while τ = 0.2 is the first of all
    assert list(found["loss"]) == ["sl"] * 4 + ["ccl"] * 4 + ["sl"]
    assert list(found["seed"]) == [0, 1] * 4 + [0]
    rates = [json.loads(text).get("train.lr") for text in found["settings"]]
    assert rates == [0.01, 0.01, 0.003, 0.003] * 2 + [0.01]
    assert len(pd.read_csv(tmp_path / "runs.csv")) == 9 and found["trials"].isna().all()
    monkeypatch.setattr(workers, "execute", None)
    pd.testing.assert_frame_equal(sweep(tmp_path / "sweep.yaml"), found)


def test_a_stopped_sweep_has_written_what_it_has(store, at_once, tmp_path, monkeypatch):
    execute, csv = workers.execute, tmp_path / "runs.csv"
    before = []

    def third_is_stopped(run, **options):
        if len(before) == 2:
            raise KeyboardInterrupt
        before.append(run)
        return execute(run, **options)

    monkeypatch.setattr(workers, "execute", third_is_stopped)
    with pytest.raises(KeyboardInterrupt):
        sweep(write(tmp_path, RUNS), csv=csv)
    assert len(pd.read_csv(csv)) == 2
    monkeypatch.setattr(workers, "execute", execute)
    assert len(sweep(tmp_path / "sweep.yaml", csv=csv)) == len(pd.read_csv(csv)) == 9


def test_a_sweep_lists_what_failed_and_keeps_the_rest(store, at_once, tmp_path, monkeypatch):
    execute = workers.execute

    def not_ccl(run, **options):
        if run.loss == "ccl":
            raise DivergedError("epoch 1")
        return execute(run, **options)

    monkeypatch.setattr(workers, "execute", not_ccl)
    with pytest.raises(SearchError, match="4 of 9 failed") as error:
        sweep(write(tmp_path, RUNS))
    assert str(error.value).count("ccl on mf, synthetic (dim=4, epochs=1") == 4
    assert len(store_module.table()) == 5


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (
            "- dataset: synthetic\n  los: sl",
            "block 1: 'los' is none of its keys; did you mean 'loss'",
        ),
        ("- {loss: sl}", "block 1: expected a mapping with either dataset or notebook"),
        ("- {dataset: synthetic, notebook: '00'}", "either dataset or notebook"),
        ("just text", "block 1: expected a mapping"),
        ("a: [", "(?s)cannot be read.*line 1"),
        ("!!python/object/apply:os.system ['false']", "cannot be read"),
        ("- {dataset: synthetic}\n- {dataset: synthetic, settings: [1]}", "block 2, settings"),
        ("- {dataset: synthetic, settings: {lr: [0.1, 0]}}", "block 1: lr must lie"),
        ("- {dataset: synthetic, settings: {tempratur: 1}}", "block 1: 'tempratur'.*mean"),
        ("- {dataset: nothing}", "block 1: .*nothing"),
        ("- {dataset: synthetic, loss: [sl, sel]}", "block 1: no loss is called 'sel'"),
        ("- {notebook: '77'}", "block 1: no notebook '77'"),
        ("- {notebook: '00', parameters: {epoch: 1}}", "block 1: 00_start_here has no parameter"),
        (
            "- {notebook: '00', parameters: {epochs: many}}",
            "block 1: 00_start_here: epochs = 'many' is not int",
        ),
    ],
)
def test_a_sweep_is_checked_before_anything_starts(store, tmp_path, text, match):
    with pytest.raises(ValueError, match=match):
        sweep(write(tmp_path, text))
    assert not store.exists()
    with pytest.raises(ValueError, match=r"nowhere\.yaml cannot be read"):
        sweep(tmp_path / "nowhere.yaml")


def test_a_sweep_over_a_notebook(store, at_once, tmp_path, monkeypatch):
    ran = []

    def run(name, *, out_dir, parameters, progress):
        ran.append((Path(name).stem, parameters))
        Path(out_dir).mkdir(parents=True, exist_ok=True)
        record = {"status": "done" if len(ran) > 1 else "failed"}
        (Path(out_dir) / f"{Path(name).stem}.json").write_text(json.dumps(record))
        return record

    monkeypatch.setattr(runner, "run", run)
    source = "epochs: int = 1  # passes\nlr: float = 0.1  # rate"
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": source}
    (tmp_path / "own.ipynb").write_text(json.dumps({"cells": [cell]}))
    text = f"notebook: {tmp_path}/own.ipynb\nout: {tmp_path}/out\n"
    text += "parameters: {epochs: [1, 2], lr: 1e-3}"  # which YAML takes for text
    for _ in range(3):  # the second time what had failed is done again, then nothing
        assert sweep(write(tmp_path, text)).empty
    assert ran == [("own", {"epochs": n, "lr": 0.001}) for n in (1, 2, 1)]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert [
        name.startswith(f"own_epochs={n}_lr=0.001_") for n, name in zip((1, 2), names, strict=True)
    ] == [True, True]


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


# --------------------------------------------------------------------------- harvest


COUNTING = """
- {dataset: synthetic, loss: sl, settings: {seed: [0, 1], noise: [0, 0.2], <<: &tiny
    {epochs: 2, evaluate_every: 1, negatives: 8, dim: 4}}}
- {dataset: synthetic, loss: drrl, settings: {order: [1.2, 2, 4, .inf], radius: 0.5, <<: *tiny}}
"""


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """A folder with `runs.csv`, and the store of its runs."""
    home = tmp_path_factory.mktemp("counted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "_process", lambda: ThreadPoolExecutor(1))
        place = Compute(home / "runs")
        sweep(write(home, COUNTING), csv=home / "results" / "runs.csv", compute=place)
    return home


def harvested(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.glob("**/[!.]*.csv*")) if path.name != "runs.csv"]
    return {path.name: path.read_bytes() for path in files}


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
    assert written.keys() - {"skew.csv"} == {f"{key}.csv.gz" for key in [best, *sl]}
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
    users, items = (t.detach().double().numpy() for t in trainer.tables(outcome.model))
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


# --------------------------------------------------------------------------- plans, completed


def test_a_row_tells_of_its_run(counted):
    rows = pd.read_csv(counted / "results" / "runs.csv")
    data_hash = datasets.load("synthetic").hash
    for _, row in rows.iterrows():
        assert key_of(results.run_of(row), data_hash) == row["key"]


def points(blocks: list[dict], tmp_path: Path) -> list[Run]:
    path = plans.write_plan(blocks, tmp_path / "sweeps" / "plan.yaml")
    assert "&" not in path.read_text()  # lists are written out where they stand
    return [
        configure(each["dataset"], each["loss"], each["backbone"], each["settings"])
        for _, each in sweeps.read_blocks(path)
    ]


def test_the_plan_of_noise_is_each_final_again_at_every_ratio(counted, tmp_path):
    rows = results.read_runs(counted / "results" / "runs.csv")
    found = points(plans.noise_plan(rows, (0, 0.3), range(2)), tmp_path)
    assert [run.loss for run in found] == ["drrl"] * 4 + ["sl"] * 4
    assert [(run.train.noise, run.train.seed) for run in found[4:]] == [
        *((0, 0), (0, 1), (0.3, 0), (0.3, 1))
    ]
    data_hash = datasets.load("synthetic").hash
    plain = {key_of(run, data_hash) for run in found if run.train.noise == 0}
    finals = results.selected_runs(rows[rows["noise"] == 0])
    assert {*finals["key"]} <= plain  # those are not trained again
    found = points(plans.noise_plan(rows, (0, 0.3), range(1), radii=(0.4, 0.8)), tmp_path)
    assert {run.loss for run in found} == {"drrl"}
    sizes = [(run.loss_config["radius"], run.train.noise) for run in found]
    assert sizes == [(0.4, 0), (0.4, 0.3), (0.8, 0), (0.8, 0.3)]
    sizes = {tuple(run.loss_config[name] for name in results.SIZES[1:]) for run in found}
    assert sizes == {(None, None, None)}


def test_the_plan_of_orders_holds_the_radius_and_then_c(counted, tmp_path):
    rows = results.read_runs(counted / "results" / "runs.csv")
    (final,) = rows[rows["loss"] == "drrl"].head(1).to_dict("records")
    own = {"loss.radius": 0.5, "train.lr": 0.003}
    made = [
        final
        | dict.fromkeys(["settings", "config"], json.dumps(own | {"loss.order": order}))
        | {"valid_ndcg@20": valid}
        for order, valid in ((2.0, 0.2), (3.0, 0.1), (1.02, 0.9), ("inf", 0.8))
    ]
    made += [made[0] | {"noise": 0.1, "valid_ndcg@20": 0.95}]
    rows = pd.concat([pd.DataFrame(made), rows[rows["loss"] == "sl"]])
    found = points(plans.order_plan(rows, (4, 1.5)), tmp_path)
    assert [run.loss_config["order"] for run in found[::3]] == [1.5, 2, 4] * 2
    assert {run.loss_config["radius"] for run in found[:9]} == {0.5}
    assert {run.loss_config["weight"] for run in found[9:]} == {1.284}  # e^(ρ/γ*) = e^.25
    assert {run.train.lr for run in found} == {0.003} and len({str(run) for run in found}) == 18
    assert plans.order_plan(rows, between=(5, 9)) == []
    lower = made[1] | {"trials": 9, "valid_ndcg@20": 0.01}  # but tuned, which no sweep's row is
    found = points(plans.order_plan(pd.concat([rows, pd.DataFrame([lower])]), (4,)), tmp_path)
    assert {run.loss_config["order"] for run in found} == {3, 4}


def test_what_was_recorded_is_completed_and_left_as_it_was(counted, store, tmp_path):
    recorded, before = counted / "results", harvested(counted)
    options = {"trials": 1, "seeds": 2, "config": TINY, "compute": Compute(workers=0)}
    e = plans.complete(recorded, tmp_path / "a", "synthetic", ["bpr", "sl"], **options)
    assert harvested(counted) == before and len(e.runs) == 2 + 8
    cell = ("synthetic", "mf", 0.0, "ndcg@20")
    assert e.of(cell, "bpr").index.tolist() == [0, 1] and e.at(cell)["sl"] > 0
    assert set(store_module.table()["loss"]) == {"bpr"}  # sl was recorded
    options["plan"] = lambda rows: plans.noise_plan(rows, (0, 0.5), range(2))
    e = plans.complete(recorded, tmp_path / "b", "synthetic", ["bpr"], **options)
    assert e.mean(("synthetic", "mf", 0.5, "ndcg@20"), "bpr") > 0 and len(store_module.table()) == 4
    e = plans.complete(tmp_path / "none", tmp_path / "c", "synthetic", ["bpr"])
    assert e.means.empty  # nothing recorded, nothing computed
    assert [path.name for path in (tmp_path / "c").iterdir()] == [plans.MADE]


def test_results_are_not_made_where_they_were_recorded(counted, tmp_path):
    folder = shutil.copytree(counted / "results", tmp_path / "out" / "results")
    before = harvested(folder)
    for other in (folder, folder.parent, folder / "more"):
        with pytest.raises(ValueError, match="copy that"):
            plans.complete(folder, other, "synthetic", ["sl"])
    assert harvested(folder) == before and (folder / "runs.csv").exists()


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_nothing_gives_way_but_what_was_made_here(counted, store, tmp_path):
    folder, recorded = tmp_path / "results", counted / "results"
    for content in ({"runs.csv": "mine"}, {"deep/other.txt": "mine"}):
        for name, text in content.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        before = files_of(folder)
        with pytest.raises(ValueError, match=r"results has files that were not made here.*choose"):
            plans.complete(recorded, folder, "synthetic", ["sl"])
        assert files_of(folder) == before
        shutil.rmtree(folder)
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="no folder of its own"):
        plans.complete(recorded, folder, "synthetic", ["sl"])
    folder.unlink()
    folder.mkdir()  # empty: nothing to lose
    plans.complete(recorded, folder, "synthetic", ["sl"])
    (folder / "old").touch()
    plans.complete(recorded, folder, "synthetic", ["sl"])
    assert not (folder / "old").exists()
    assert files_of(folder).keys() - {plans.MADE} == files_of(recorded).keys()


def test_what_the_store_cannot_give_again_is_kept_under_another_name(counted, store, tmp_path):
    folder, recorded = tmp_path / "results", counted / "results"
    options = {"trials": 1, "seeds": 1, "config": TINY, "compute": Compute(workers=0)}
    for _ in range(2):
        plans.complete(recorded, folder, "synthetic", ["bpr"], **options)
    assert [path.name for path in tmp_path.glob("results*")] == ["results"]  # given again
    before = files_of(folder)
    assert "trials.csv" in before
    shutil.rmtree(store)
    plans.complete(recorded, folder, "synthetic", ["sl"])
    assert files_of(tmp_path / "results-1") == before
    assert "bpr" not in (folder / "runs.csv").read_text()
    assert files_of(folder)["trials.csv"] == before["trials.csv"]


def test_a_file_of_one_s_own_is_completed_and_swept(store, tmp_path):
    users, items = datasets.load("synthetic").train.nonzero()
    own = tmp_path / "own.csv"
    pd.DataFrame({"user": users, "item": items}).to_csv(own, index=False)
    options = {"trials": 1, "seeds": 1, "config": TINY, "compute": Compute(workers=0)}
    options["plan"] = lambda rows: plans.noise_plan(rows, (0, 0.5), range(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of users and items without a train pair
        e = plans.complete("none", tmp_path / "out", str(own), ["sl"], **options)
    (name,) = e.runs["dataset"].unique()
    assert e.mean((name, "mf", 0.5, "ndcg@20"), "sl") > 0
    assert e.mean((name, "mf", 0.0, "k1"), "sl") > 0
    assert len(list((tmp_path / "out" / "per_user").iterdir())) == 2


def test_a_run_that_the_file_has_is_not_run_again(counted, store, tmp_path):
    csv = shutil.copy(counted / "results" / "runs.csv", tmp_path / "runs.csv")
    found = sweep(write(tmp_path, COUNTING), csv=csv, compute=Compute(workers=0))
    assert found.empty and store_module.table().empty


def test_without_workers_this_process_does_it():
    def here(fail: bool) -> int:
        return 1 // (not fail) + os.getpid()

    jobs = [Job(fail, here, {"fail": fail}) for fail in (True, False)]
    found = dict(run_jobs(iter(jobs), Compute(workers=0)))
    assert found[False] == 1 + os.getpid() and isinstance(found[True], ZeroDivisionError)


# --------------------------------------------------------------------------- workers that die


def die(times: int, log: str) -> int:
    """Kill this process the first few times; say how often it was tried."""
    with open(log, "a") as file:
        file.write("x")
    if Path(log).stat().st_size <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return Path(log).stat().st_size


def test_a_job_that_kills_its_workers_is_given_up_and_nobody_else_is(tmp_path):
    logs = {name: str(tmp_path / name) for name in ("bad", "once", "good")}
    times = {"bad": 99, "once": 1, "good": 0}
    jobs = [Job(name, die, {"times": times[name], "log": log}) for name, log in logs.items()]
    found = dict(run_jobs(iter(jobs), Compute(workers=2)))
    assert (found["once"], found["good"]) == (2, 1)
    assert isinstance(found["bad"], SearchError) and "3 workers" in str(found["bad"])
    assert Path(logs["bad"]).stat().st_size == 3


LONG = """
dataset: synthetic
loss: sl
settings: {epochs: 20, evaluate_every: 5, negatives: 16, dim: 16, seed: [0, 1, 2]}
"""


def when_under_way(store: Path, act) -> threading.Thread:
    """Do something as soon as a run has left a checkpoint, or another than it had."""

    def found():
        return {(path, path.stat().st_mtime_ns) for path in store.glob("*.checkpoint")}

    def wait(before):
        while not found() - before:
            time.sleep(0.005)
        act()

    thread = threading.Thread(target=wait, args=(found(),), daemon=True)
    thread.start()
    return thread


def check_long_sweep(found: pd.DataFrame, monkeypatch) -> None:
    """Every run once, and one of them to the last bit as if nothing had happened."""
    assert list(found["seed"]) == [0, 1, 2] and found["key"].nunique() == 3
    assert list(store_module.table()["key"].sort_values()) == sorted(found["key"])
    settings = json.loads(found["settings"][0]) | {"negatives": 16}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        wanted = execute(configure("synthetic", config=settings), progress=False)
    finally:
        torch.set_num_threads(threads)
    assert wanted.record["test"]["ndcg@20"] == found["test_ndcg@20"][0]


def test_a_killed_worker_costs_the_sweep_nothing(store, tmp_path, monkeypatch):
    kept, keep = [], store_module.save
    monkeypatch.setattr(store_module, "save", lambda files, **o: kept.append(1) or keep(files, **o))
    killed = []

    def kill():
        victim = next(p for p in multiprocessing.active_children() if p.is_alive())
        killed.append(victim.pid)
        victim.kill()

    thread = when_under_way(store, kill)
    place = Compute(workers=2)
    found = sweep(write(tmp_path, LONG), compute=place)
    thread.join()
    assert len(killed) == 1 and len(kept) == 3
    check_long_sweep(found, monkeypatch)
    assert not list(store.glob("*.checkpoint"))


def test_a_killed_worker_costs_a_cluster_nothing(store, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    elsewhere, kept, keep = tmp_path / "elsewhere", [], store_module.save
    monkeypatch.setattr(store_module, "save", lambda files, **o: kept.append(1) or keep(files, **o))
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    options |= {"env": {"DRRL_RUNS": str(elsewhere)}, "local_directory": str(tmp_path / "dask")}
    with distributed.LocalCluster(**options) as cluster:
        pids = {nanny.pid for nanny in cluster.workers.values()}
        victim = min(pids)
        thread = when_under_way(elsewhere, lambda: os.kill(victim, signal.SIGKILL))
        place = Compute(scheduler=cluster.scheduler_address)
        found = sweep(write(tmp_path, LONG), compute=place)
        thread.join()
        assert {nanny.pid for nanny in cluster.workers.values()} != pids  # it really was
    assert len(kept) == 3
    check_long_sweep(found, monkeypatch)
    assert not list(elsewhere.glob("?" * 16))  # only the client keeps


def test_a_worker_of_a_cluster_with_other_data_is_refused(store, at_once):
    run = configure("synthetic", config=TINY)
    job = Compute().job(Task("a run"), run, "another hash")
    ((_, error),) = run_jobs(iter([job]), Compute())
    assert isinstance(error, datasets.DataError) and "synthetic is other data" in str(error)


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
