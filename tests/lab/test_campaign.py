"""The campaign: what is missing, in order, whatever was stopped and wherever it goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from drrl_core import classical, datasets, losses
from drrl_core.lab import campaign, results, spaces, workers
from drrl_core.lab.workers import Compute

ROOT = Path(__file__).parents[2]
QUICK = "{train.epochs: 2, train.evaluate_every: 1, train.negatives: 8, backbone.dim: 4}"
FILE = f"""
- {{dataset: synthetic, loss: [sl, ccl], trials: 2, seeds: 2, settings: {QUICK}}}
- {{dataset: synthetic, loss: bpr, trials: 2, seeds: 3, settings: {QUICK.replace("8", "1")}}}
"""


@pytest.fixture
def here(monkeypatch, tmp_path):
    """A folder with a campaign; its store is apart, and priority and signals stay as they are."""
    monkeypatch.setenv("DRRL_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(os, "nice", lambda _: None)
    (tmp_path / "campaign.yaml").write_text(FILE)
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


def go(folder: Path, **more) -> list[str]:
    place = Compute(workers=0)
    return campaign.run(folder / "campaign.yaml", folder / "results", compute=place, **more)


def missing(folder: Path) -> list[int]:
    return campaign.status(folder / "campaign.yaml", folder / "results")["missing"].tolist()


def table(folder: Path) -> pd.DataFrame:
    return results.read_runs(folder / "results" / "runs.csv")


@pytest.mark.slow
def test_cells_are_run_in_order_and_once(here):
    assert missing(here) == [3, 3, 4]
    assert go(here, cells=1) == [] and missing(here) == [0, 3, 4]
    assert {*table(here)["variant"]} == {"sl"}
    assert go(here) == [] and missing(here) == [0, 0, 0]
    rows = table(here)
    assert rows.groupby("variant")["seed"].nunique().to_dict() == {"bpr": 3, "ccl": 2, "sl": 2}
    assert (rows["trials"] == 2).all() and rows["b"].notna().all()
    finals = results.selected_runs(rows)
    written = {path.name.split(".")[0] for path in here.glob("results/per_user/*")}
    assert written == {*finals["key"]}
    before = (here / "results" / "runs.csv").read_bytes()
    assert go(here) == [] and (here / "results" / "runs.csv").read_bytes() == before


@pytest.mark.slow
def test_another_machine_goes_on_from_the_table_alone(here, monkeypatch):
    go(here, cells=2)
    before = table(here)
    shutil.rmtree(here / "runs")
    assert missing(here) == [0, 0, 4]
    trained, execute = [], workers.execute
    monkeypatch.setattr(
        workers, "execute", lambda run, **more: trained.append(run.loss) or execute(run, **more)
    )
    go(here)
    assert {*trained} == {"bpr"}
    kept = table(here).set_index("key").loc[before["key"]]
    assert (kept["finished"] == before.set_index("key")["finished"]).all()


@pytest.mark.slow
def test_a_cell_that_fails_does_not_stop_the_others(here, monkeypatch):
    execute = workers.execute

    def not_sl(run, **options):
        if run.loss == "sl":
            raise MemoryError("too large")
        return execute(run, **options)

    monkeypatch.setattr(workers, "execute", not_sl)
    (failed,) = go(here)
    assert "synthetic, mf, sl" in failed and "too large" in failed
    assert missing(here)[1:] == [0, 0]
    monkeypatch.setattr(workers, "execute", execute)
    assert go(here) == [] and missing(here) == [0, 0, 0]


@pytest.mark.slow
def test_finals_from_before_popularity_are_trained_again_to_the_same_numbers(here):
    go(here)
    path, later = here / "results" / "runs.csv", [*results.RUNS[len(results.NEEDED) :]]
    full = results.read_as_text(path).set_index("key")
    shutil.rmtree(here / "runs")
    full.drop(columns=later).reset_index().to_csv(path, index=False)
    (here / "campaign.yaml").write_text("- {dataset: synthetic, loss: [sl, bpr], again: true}")
    assert missing(here) == [2, 3]
    go(here)
    assert missing(here) == [0, 0]
    again = results.read_as_text(path).set_index("key").loc[full.index]
    finals = again.index[again["b"] != ""]
    assert len(finals) == 5
    same = [name for name in full if name not in ("seconds", "finished", "commit")]
    pd.testing.assert_frame_equal(again.loc[finals, same], full.loc[finals, same])


def test_other_settings_and_smaller_budgets_are_other_cells(here):
    go(here, cells=1)
    for change in (("trials: 2", "trials: 3"), ("seeds: 2", "seeds: 3"), ("dim: 4", "dim: 5")):
        (here / "campaign.yaml").write_text(FILE.replace(*change))
        assert missing(here)[0] > 0, change
    noisy = FILE.replace("dim: 4", "dim: 4, train.noise: [0.25, 0.5]")
    (here / "campaign.yaml").write_text(noisy)
    assert len(missing(here)) == 6 and 0 not in missing(here)


@pytest.mark.parametrize("name", [*spaces.variants(2), *spaces.classical_variants()])
def test_every_way_to_tune_can_be_a_cell(here, name):
    path = here / "own.yaml"
    path.write_text(f"- {{dataset: synthetic, loss: {name}, trials: 2, seeds: 2}}")
    (cell,) = campaign.read(path)
    assert campaign.missing(cell, results.NO_RUNS) > 0


def test_the_time_is_told_by_what_is_recorded(here):
    told = campaign.status(here / "campaign.yaml", here / "results")
    assert told["hours"].isna().all()
    go(here, cells=1)
    told = campaign.status(here / "campaign.yaml", here / "results")
    assert told["hours"].iloc[0] == 0
    median = table(here)["seconds"].median()
    assert told["hours"].iloc[1] == pytest.approx(3 * median / 3600)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a: [", "cannot be read"),
        ("[]", "expected a list of blocks"),
        ("{}", "block 1: expected a mapping with dataset and loss"),
        ("- {loss: sl}", "block 1: expected a mapping with dataset and loss"),
        ("- {dataset: synthetic, loss: sl, trails: 3}", "'trails' is none of its keys"),
        ("- {dataset: synthetic, loss: sell, trials: 3, seeds: 3}", "no loss 'sell'"),
        ("- {dataset: synthetic, loss: sl, trials: 3}", "whole numbers from 2"),
        ("- {dataset: synthetic, loss: sl, trials: 3, seeds: 2.5}", "whole numbers from 2"),
        ("- {dataset: synthetic, loss: sl, again: true, trials: 3}", "no trials, seeds"),
        ("- {dataset: synthetic, loss: sl, trials: 3, seeds: 3, settings: {lr: 1}}", "full names"),
    ],
)
def test_a_bad_file_is_refused_before_anything_runs(here, text, match):
    (here / "campaign.yaml").write_text(text)
    with pytest.raises(ValueError, match=match):
        go(here)


def test_the_project_has_one_that_can_be_read():
    cells = campaign.read(ROOT / "data" / "campaign.yaml")
    known = {*datasets.names(), *datasets.recipes().index}
    assert {cell.dataset for cell in cells} <= known
    rows = results.read_runs(ROOT / "data" / "results" / "runs.csv")
    for cell in cells:  # a classical model without a seed has one row
        if cell.again:
            assert len(campaign.recorded(cell, rows)) > (cell.loss not in classical.REGISTRY)
    assert len({str(cell) for cell in cells}) == len(cells)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_a_stop_is_heard_and_the_same_command_goes_on(here):
    slow = FILE.replace("epochs: 2", "epochs: 400").replace("evaluate_every: 1", "patience: 999")
    (here / "campaign.yaml").write_text(slow)
    command = [sys.executable, "-m", "drrl_core", "campaign", "--file", "campaign.yaml"]
    command += ["--results", "results"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=here, env=environment, stderr=subprocess.PIPE, start_new_session=True
    )
    end = time.monotonic() + 120
    while not list((here / "runs").glob("*.checkpoint")) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert b"the same command continues" in told, told.decode()
    end = time.monotonic() + 20
    with pytest.raises(ProcessLookupError):  # nor does a worker go on
        while time.monotonic() < end:
            os.killpg(process.pid, 0)
            time.sleep(0.1)
    (here / "campaign.yaml").write_text(FILE)
    assert go(here, cells=1) == [] and missing(here)[0] == 0


@pytest.mark.slow
def test_versions_of_a_loss_make_its_cells_missing_again(here, monkeypatch):
    go(here, cells=1)
    line = losses.REGISTRY["sl"]
    monkeypatch.setitem(losses.REGISTRY, "sl", line._replace(version=line.version + 1))
    assert missing(here)[0] == 3
    go(here, cells=1)
    assert missing(here)[0] == 0
    told = pd.read_csv(here / "results" / "runs.csv")
    assert sorted(told["raised"].fillna("")) == [""] * 3 + [f"loss {line.version + 1}"] * 3
    assert all(json.loads(text)["train.epochs"] == 2 for text in told["settings"])
