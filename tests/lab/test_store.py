"""The store: runs kept and served, whatever is killed, damaged or asked for later."""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import Timeout
from pandas.testing import assert_frame_equal
from samples import FILES, ROOT, SMALL, same_learnt, small, stored
from scipy.sparse import csr_array

from drrl_core import common, losses
from drrl_core.lab import run as lab_run
from drrl_core.lab import store as kept
from drrl_core.lab.run import Outcome, configure, execute
from drrl_core.lab.store import RunError, get_or_train
from drrl_core.train import diagnose, tables

pytestmark = pytest.mark.usefixtures("store")


def test_where_runs_are_kept(monkeypatch, tmp_path):
    assert kept.store_folder(tmp_path) == tmp_path and kept.store_folder("~/x").is_absolute()
    monkeypatch.setenv("DRRL_RUNS", str(tmp_path / "mine"))
    assert kept.store_folder() == tmp_path / "mine" and kept.store_folder("a") == Path("a")
    monkeypatch.delenv("DRRL_RUNS")
    assert kept.store_folder() == ROOT / "data" / "runs"
    monkeypatch.setattr(common, "__file__", str(tmp_path / "site-packages/drrl_core/common.py"))
    assert kept.store_folder().name == "runs" and "drrl" in str(kept.store_folder())


def untimed(outcome: Outcome) -> dict:
    changing = ("seconds", "seconds_per_epoch", "finished")
    return {name: value for name, value in outcome.record.items() if name not in changing}


def assert_same(a: Outcome, b: Outcome, *, timed: bool = True) -> None:
    """Bit for bit."""
    assert a.record == b.record if timed else untimed(a) == untimed(b)
    for name in ("valid", "test", "history"):
        frames = [getattr(outcome.fit, name) for outcome in (a, b)]
        if name == "history" and not timed:
            frames = [frame.drop(columns="seconds") for frame in frames]
        assert_frame_equal(*frames, check_exact=True)
    assert a.fit.best_epoch == b.fit.best_epoch and same_learnt(a, b)
    for table_a, table_b in zip(tables(a.model), tables(b.model), strict=True):
        assert torch.equal(table_a, table_b)
    assert str(diagnose.attention(a)) == str(diagnose.attention(b))


CASES = [(loss, "mf") for loss in losses.REGISTRY] + [("sl", "lightgcn"), ("drrl", "xsimgcl")]


@pytest.mark.parametrize("loss, backbone", CASES)
def test_a_served_run_equals_the_trained_one(loss, backbone, store, monkeypatch):
    data = small()
    settings = {"epochs": 3, "evaluate_every": 2, "lr": 0.02}
    trained = stored(loss, backbone, data=data, **settings)
    options = {"data": data, "device": "cpu", "progress": False}
    alone = execute(configure("x", loss, backbone, SMALL | settings), **options)
    monkeypatch.setattr(lab_run, "fit", lambda *_, **__: 1 / 0)
    served = stored(loss, backbone, data=data, **settings)
    assert (trained.served, served.served, alone.served) == (False, True, False)
    assert_same(served, trained)
    assert_same(served, alone, timed=False)
    view, seen = (diagnose.negatives_of(outcome, 2) for outcome in (alone, served))
    assert_frame_equal(view, seen, check_exact=True)

    (home,) = store.iterdir()  # neither a checkpoint nor a draft is left
    assert home.name == trained.record["key"]
    assert sorted(path.name for path in home.iterdir()) == ["SHA256SUMS", *FILES]
    assert json.loads((home / "record.json").read_text()) == served.record
    with np.load(home / "tables.npz") as kept:
        for name, ranked in zip(("users", "items"), tables(alone.model), strict=True):
            assert kept[name].dtype == np.float32
            assert np.array_equal(kept[name], ranked.detach().numpy())


def test_awkward_floats_come_back_to_the_last_bit(store):
    rng = np.random.default_rng(0)
    odd = rng.integers(0, 2**63, 2000, dtype=np.int64).view(np.float64)
    odd = np.concatenate([odd[np.isfinite(odd)], [0.1 + 0.2, 5e-324, math.inf, -math.inf]])

    def add(row: dict) -> None:
        row |= {f"odd {i}": float(value) for i, value in enumerate(odd)} | {"text": "left out"}

    outcome = stored(epochs=1, options={"on_epoch": add})
    found = outcome.fit.history.filter(like="odd ").iloc[0].to_numpy()
    assert np.array_equal(found, odd) and "text" not in outcome.fit.history


def test_nothing_held_out_is_kept_too(store):
    none = csr_array((20, 30))
    data = replace(small(), valid=none, test=none)
    assert_same(stored(data=data), stored(data=data))
    assert stored(data=data).record["valid"] == {"recall@20": None, "ndcg@20": None}


def test_an_infinite_order_is_found_again(store):
    record = stored("drrl", order=math.inf, weight=2).record
    assert kept.load(record["key"], data=small()).loss.hyper["order"] == math.inf
    assert kept.table()["loss.order"].tolist() == [math.inf]


SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
sys.path[:0] = [{tests!r}, {root!r}]
import torch
from samples import stored
torch.set_num_threads(1)
kill_at, ready, go = int(sys.argv[1]), *map(Path, sys.argv[2:])
ready.touch()
while not go.exists():
    time.sleep(0.001)
def on_epoch(row):
    if row["epoch"] == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
outcome = stored("drrl", options={{"on_epoch": on_epoch}}, epochs=12, evaluate_every=1)
print(json.dumps([outcome.record, outcome.fit.test.to_dict(), outcome.fit.history.to_dict()]))
"""


def start(tmp_path: Path, name: str, *, kill_at: int = 0) -> subprocess.Popen:
    """Another process that waits for a file `go`, then trains and prints what it got."""
    here, script = Path(__file__).parent, tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(here.parent), root=str(here.parents[1])))
    command = [sys.executable, script, str(kill_at), tmp_path / name, tmp_path / "go"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes)


@pytest.mark.slow
def test_two_processes_at_once_leave_one_good_record_and_return_the_same(store, tmp_path):
    both = [start(tmp_path, name) for name in ("one", "two")]
    while not all((tmp_path / name).exists() for name in ("one", "two")):
        assert all(process.poll() is None for process in both), both[0].communicate()
    (tmp_path / "go").touch()
    texts = []
    for process in both:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        texts.append(out)
    assert texts[0] == texts[1]
    (home,) = store.iterdir()
    served = stored("drrl", epochs=12, evaluate_every=1)
    assert served.served and served.record == json.loads(texts[0])[0]
    assert home.name == served.record["key"]


@pytest.mark.slow
def test_killed_in_the_middle_it_is_continued_to_the_same_end(store, tmp_path):
    (tmp_path / "go").touch()
    for kill_at in (4, 9):
        process = start(tmp_path, "one", kill_at=kill_at)
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL
        (left,) = store.iterdir()
        assert left.suffix == ".checkpoint"
    seen = []
    options = {"on_epoch": lambda row: seen.append(row["epoch"])}
    found = stored("drrl", epochs=12, evaluate_every=1, options=options)
    assert seen == [9, 10, 11, 12] and not found.served
    elsewhere = {"store": tmp_path / "other"}
    whole = stored("drrl", epochs=12, evaluate_every=1, options=elsewhere)
    assert_same(found, whole, timed=False)
    assert [path.name for path in store.iterdir()] == [found.record["key"]]


def test_the_first_to_finish_is_kept(store):
    inner = []

    def overtaken(row: dict) -> None:
        if not inner:
            inner.append(None)
            inner[0] = stored()

    outer = stored(options={"on_epoch": overtaken})
    assert outer.record == inner[0].record and not outer.served
    assert [path.name for path in store.iterdir()] == [outer.record["key"]]
    assert_same(stored(), inner[0])


def test_the_first_to_finish_is_kept_up_to_the_last_moment(store, monkeypatch):
    original, first = os.rename, []

    def overtaken(source, target):
        if not first:
            first.append(None)
            first[0] = stored()
        original(source, target)

    monkeypatch.setattr(os, "rename", overtaken)
    assert stored().record == first[0].record
    assert [path.name for path in store.iterdir()] == [first[0].record["key"]]


def stop_at_epoch_2(row):
    return row["epoch"] == 2


def stop_at_the_last_step(epoch, step, loss):
    return epoch == 4 and step > 1


def press_ctrl_c(row):
    if row["epoch"] == 2:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "options",
    [
        {"on_epoch": stop_at_epoch_2},
        {"on_epoch": press_ctrl_c},
        {"on_step": stop_at_the_last_step},
    ],
)
def test_what_was_stopped_is_not_kept_but_continued(options, store, tmp_path):
    settings = {"epochs": 4, "batch_size": 64, "evaluate_every": 1}
    stopped = stored(options=options, **settings)
    assert stopped.record["finished"] is None and not stopped.served
    assert [path.suffix for path in store.iterdir()] == [".checkpoint"]
    assert kept.table().empty
    whole = stored(options={"store": tmp_path / "other"}, **settings)
    found = stored(**settings)
    assert found.record["finished"] and len(found.fit.history) == 4
    assert_same(found, whole, timed=False)


def test_a_full_disk_leaves_nothing_half_written(store, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(OSError, match="No space left"):
            stored()
    assert [path.suffix for path in store.iterdir()] == [".checkpoint"]
    epochs = []
    stored(options={"on_epoch": epochs.append})
    assert not epochs and len(list(store.iterdir())) == 1  # nothing had to be trained again


def test_a_checkpoint_of_the_same_run_under_another_path_is_continued(store):
    options = {"data": small(), "device": "cpu", "progress": False}
    settings = SMALL | {"epochs": 4, "evaluate_every": 1}
    run = configure("films.csv", "drrl", config=settings | {"radius": 1})
    get_or_train(run, on_epoch=stop_at_epoch_2, **options)
    same = configure("./films.csv", "drrl", config=settings | {"radius": 1.0})
    epochs = []
    get_or_train(same, on_epoch=lambda row: epochs.append(row["epoch"]), **options)
    assert epochs == [3, 4]


@pytest.mark.parametrize("how", ["truncated", "missing", "changed"])
@pytest.mark.parametrize("name", ["SHA256SUMS", *FILES])
def test_a_damaged_record_is_reported_and_left_alone(name, how, store):
    home = store / stored().record["key"]
    content = (home / name).read_bytes()
    if how == "missing":
        (home / name).unlink()
    elif how == "truncated":
        (home / name).write_bytes(content[: len(content) // 2])
    else:
        (home / name).write_bytes(content[:20] + b"#" + content[21:])
    before = {path: path.read_bytes() for path in home.iterdir()}

    asked = [stored, lambda: kept.load(home.name, data=small())]
    asked.append(lambda: stored(options={"diagnose": True}))
    for ask in asked:
        with pytest.raises(RunError, match=rf"{home}/\S+: .*\. Move {home} away") as error:
            ask()
        assert name == "SHA256SUMS" or str(home / name) in str(error.value)
    if name == "record.json" or (name == "SHA256SUMS" and how == "missing"):
        with pytest.warns(UserWarning, match="left out: .*Move"):
            assert kept.table().empty
    assert {path: path.read_bytes() for path in home.iterdir()} == before


def test_a_run_that_cannot_be_rebuilt_is_reported(store, monkeypatch):
    key = stored("drrl").record["key"]
    monkeypatch.delitem(losses.REGISTRY, "drrl")
    with pytest.raises(RunError, match=r"of commit .*, and cannot be rebuilt here"):
        kept.load(key, data=small())


def test_diagnostics_are_kept(store):
    options = {"diagnose": True}
    trained = stored("drrl", epochs=3, evaluate_every=2, options=options)
    assert trained.fit.history["gap"].notna().tolist() == [False, True, True]
    served = stored("drrl", epochs=3, evaluate_every=2, options=options)
    assert served.served
    assert_same(trained, served)
    assert stored("drrl", epochs=3, evaluate_every=2).fit.history["gap"].notna().any()


def test_diagnostics_asked_for_later_are_added_and_change_nothing_else(store, tmp_path):
    first = stored("drrl")
    assert "gap" not in first.fit.history
    home = store / first.record["key"]
    before = {name: (home / name).read_bytes() for name in FILES}
    later = stored("drrl", options={"diagnose": True})
    assert not later.served and later.record == first.record
    assert {name: (home / name).read_bytes() for name in FILES} == before
    assert sorted(path.name for path in home.iterdir()) == sorted(
        ["SHA256SUMS", "diagnostics.csv", *FILES]
    )
    kept = later.fit.history.drop(columns=list(diagnose.DIAGNOSTICS))
    assert_frame_equal(kept, first.fit.history, check_exact=True)
    at_once = stored("drrl", options={"diagnose": True, "store": tmp_path / "other"})
    assert_same(later, at_once, timed=False)
    assert stored("drrl", options={"diagnose": True}).served
    assert [path.name for path in store.iterdir()] == [home.name]


def test_epochs_without_diagnostics_are_no_start_for_a_run_that_wants_them(store):
    settings = {"epochs": 4, "evaluate_every": 1}
    stored("drrl", options={"on_epoch": stop_at_epoch_2}, **settings)
    found = stored("drrl", options={"diagnose": True}, **settings)
    assert found.fit.history["gap"].notna().all()


FIRST = ["key", "dataset", "backbone", "loss", "seed", "sampler", "negatives"]


LAST = [
    *["best_epoch", "valid_recall@20", "valid_ndcg@20", "test_recall@20", "test_ndcg@20"],
    *["seconds", "device", "finished"],
]


def test_the_table_of_an_empty_store_has_its_columns(store):
    for _ in range(2):
        found = kept.table()
        assert found.empty and list(found) == FIRST + LAST
        store.mkdir(exist_ok=True)


def test_the_table_has_a_row_a_run_and_a_column_a_parameter(store):
    outcomes = [stored("ccl", margin=0.1), stored("drrl", "lightgcn", radius=1, seed=5)]
    outcomes.append(stored("sl", sampler="catalogue", lr=0.02))
    (store / "notes").mkdir()
    (store / "0123456789abcdef").write_text("no folder")
    found = kept.table()
    assert list(found)[:7] == FIRST and list(found)[-len(LAST) :] == LAST
    between = list(found)[7:-9]
    groups = [name.split(".")[0] for name in between]
    assert groups == sorted(groups, key=["loss", "backbone", "train"].index)
    assert {"loss.margin", "loss.temperature", "loss.radius", "backbone.layers"} <= set(between)
    assert not {"loss.eta", "train.seed", "train.sampler", "train.negatives"} & set(between)
    found = found.set_index("key")
    assert len(found) == 3 and found["finished"].is_monotonic_increasing
    for outcome in outcomes:
        row, record = found.loc[outcome.record["key"]], outcome.record
        assert (row["loss"], row["backbone"]) == (record["loss"], record["backbone"])
        assert row["test_ndcg@20"] == record["test"]["ndcg@20"]
        assert row["valid_recall@20"] == record["valid"]["recall@20"]
        assert row["best_epoch"] == record["best_epoch"] and row["seconds"] == record["seconds"]
    chosen = found.loc[[outcome.record["key"] for outcome in outcomes]]
    assert chosen["loss.margin"].fillna(-1).tolist() == [0.1, -1, -1]
    assert chosen["seed"].tolist() == [0, 5, 0] and chosen["train.lr"].tolist() == [
        0.05,
        0.05,
        0.02,
    ]
    assert chosen["sampler"].tolist() == ["per-row", "per-row", "catalogue"]
    assert pd.api.types.is_numeric_dtype(found["loss.radius"])


def test_load_by_the_first_digits(store):
    outcomes = {seed: stored(seed=seed) for seed in range(17)}  # two share their first digit
    keys = [outcome.record["key"] for outcome in outcomes.values()]
    for outcome in outcomes.values():
        key = outcome.record["key"]
        short = next(key[:n] for n in range(17) if sum(k.startswith(key[:n]) for k in keys) == 1)
        for name in (key, short):
            assert_same(kept.load(name, data=small()), outcome)
        assert kept.record(short) == outcome.record
    shared = next(d for d in "0123456789abcdef" if sum(k.startswith(d) for k in keys) > 1)
    with pytest.raises(RunError, match=rf"runs have a key that starts with '{shared}': {shared}"):
        kept.load(shared)
    with pytest.raises(RunError, match=r"no run in .* has a key that starts with 'xyz'"):
        kept.load("xyz")


def test_load_finds_the_data_or_says_what_is_wrong(store):
    run = configure("synthetic", config={"epochs": 1, "dim": 4})
    trained = get_or_train(run, device="cpu", progress=False)
    assert_same(kept.load(trained.record["key"], device="cpu"), trained)
    with pytest.raises(RunError, match="was trained on other data than this synthetic"):
        kept.load(trained.record["key"], data=small())
    key = stored().record["key"]
    with pytest.raises(RunError, match=f"{key}: give the data it was trained on: unknown data"):
        kept.load(key)


def test_compare_sets_two_runs_side_by_side(store):
    a, b = stored("sl"), stored("ccl")
    found = kept.compare(a.record["key"], b.record["key"])
    assert found.index.names == ["split", "metric"]
    for split in ("valid", "test"):
        for name in ("recall@20", "ndcg@20"):
            row = found.loc[split, name]
            assert row["a"] == pytest.approx(a.record[split][name])
            assert row["b"] == pytest.approx(b.record[split][name])
            assert row["difference"] == pytest.approx(row["a"] - row["b"])
    assert found.filter(like="p_").notna().all(axis=None)
    other = stored(data=small(seed=1)).record["key"]
    with pytest.raises(RunError, match="were trained on different data"):
        kept.compare(a.record["key"], other)


def test_a_lock_is_one_process_s_and_goes_with_it(tmp_path):
    code = (
        "import pathlib, sys, time; from drrl_core.lab.store import lock_of\n"
        "with lock_of(pathlib.Path(sys.argv[1])):\n"
        "    print('locked', flush=True); time.sleep(100)"
    )
    path = tmp_path / "runs.csv"
    line = [sys.executable, "-c", code, str(path)]
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(Timeout):
            kept.lock_of(path).acquire(timeout=0.3)
    finally:
        process.kill()
        process.communicate()
    assert [left.name for left in tmp_path.iterdir()] == [".runs.csv.lock"]  # stale, and no matter
    with kept.lock_of(path).acquire(timeout=5):
        pass
