"""Sweeps: every configuration of a file once, checked before anything starts."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from samples import COUNTING, RUNS, sweep, tune, write

from drrl_core.lab import store as store_module
from drrl_core.lab import workers
from drrl_core.lab.workers import Compute, SearchError
from drrl_core.pages import runner
from drrl_core.train import DivergedError


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_run_that_the_file_has_is_not_run_again(counted, store, tmp_path):
    csv = shutil.copy(counted / "results" / "runs.csv", tmp_path / "runs.csv")
    found = sweep(write(tmp_path, COUNTING), csv=csv, compute=Compute(workers=0))
    assert found.empty and store_module.table().empty
