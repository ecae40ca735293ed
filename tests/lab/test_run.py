"""A run: its configuration checked, its key, the record complete."""

import json
import math
import os
import platform
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from samples import RECORD, ROOT, SMALL, outcome_of, small
from scipy.sparse import csr_array

from drrl_core import backbones, datasets, losses
from drrl_core.lab import results
from drrl_core.lab import run as lab_run
from drrl_core.lab.run import configure, execute, key_of, parse_value
from drrl_core.train import LATER, DivergedError, TrainConfig, metrics, popularity, tables

pytestmark = pytest.mark.usefixtures("store")


@pytest.mark.parametrize(
    "text, value",
    [
        ("8", 8),
        ("-3", -3),
        ("0.003", 0.003),
        ("1e-3", 0.001),
        ("inf", math.inf),
        ("true", True),
        ("False", False),
        ("None", None),
        ("exact", "exact"),
        ("train+valid", "train+valid"),
        ("", ""),
    ],
)
def test_parse_value(text, value):
    found = parse_value(text)
    assert found == value and type(found) is type(value)


def test_defaults_are_those_of_the_loss_the_backbone_and_the_protocol():
    run = configure("synthetic", "bpr")
    assert run.train == TrainConfig(negatives=1, similarity="dot")
    assert (run.loss_config, run.backbone_config) == ({}, {"dim": 64})
    assert configure("synthetic").train == TrainConfig()
    assert configure("x", "drrl").loss_config == losses.hyperparameters("drrl")


@pytest.mark.parametrize(
    "name, group, key, value",
    [
        ("loss.margin", "loss", "margin", 0.25),
        ("margin", "loss", "margin", 0.25),
        ("train.lr", "train", "lr", 0.25),
        ("lr", "train", "lr", 0.25),
        ("backbone.dim", "backbone", "dim", 8),
        ("dim", "backbone", "dim", 8),
        ("similarity", "train", "similarity", "dot"),
    ],
)
def test_a_setting_goes_where_its_name_says(name, group, key, value):
    before, after = (configure("synthetic", "ccl", config=s).config for s in ({}, {name: value}))
    assert after[group].pop(key) == value != before[group].pop(key)
    assert after == before


def test_whole_numbers_and_numpy_numbers_become_plain_ones():
    settings = {"epochs": 3.0, "lr": 1, "negatives": np.int64(7), "margin": np.float32(0.5)}
    run = configure("synthetic", "ccl", config=settings)
    found = run.train.epochs, run.train.lr, run.train.negatives, run.loss_config["margin"]
    assert found == (3, 1.0, 7, 0.5) and [type(v) for v in found] == [int, float, int, float]


REFUSED = {
    "unknown": ({"lrr": 1}, r"'lrr' is no setting of ccl on mf: did you mean 'lr'"),
    "another group's": ({"loss.lr": 1}, r"'loss.lr' is no setting .*: did you mean 'train.lr'\?"),
    "another loss's": ({"temperature": 1}, "'temperature' is no setting of ccl"),
    "no such group": (
        {"model.dim": 1},
        "'model.dim' is no setting .*: did you mean 'backbone.dim'",
    ),
    "no idea": (
        {"zzzzzz": 1},
        "'zzzzzz' is no setting of ccl on mf: there are: loss.margin, loss.weight, loss.push, ba",
    ),
    "twice": ({"lr": 1, "train.lr": 1}, "'lr' and 'train.lr' are one setting: give it once"),
    "text": ({"lr": "fast"}, "lr must be of type float, not 'fast'"),
    "true": ({"epochs": True}, "epochs must be of type int, not True"),
    "none": ({"margin": None}, "margin must be of type float, not None"),
    "fraction": ({"epochs": 2.5}, "epochs must be of type int, not 2.5"),
    "endless": ({"epochs": math.inf}, "epochs must be of type int, not inf"),
    "nan": ({"loss.weight": math.nan}, "loss.weight must be of type float, not nan"),
    "number": ({"mask": 1}, "mask must be of type str, not 1"),
    "loss out of range": ({"margin": 2}, "margin must lie in"),
    "backbone out of range": ({"dim": 0}, "dim must be at least 1"),
    "train out of range": ({"train.lr": -1}, "lr must lie in"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_are_refused(case):
    settings, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        configure("synthetic", "ccl", config=settings)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"radius": "big"}, "radius must be a number, not 'big'"),
        ({"radius": math.nan}, "radius must be a number, not nan"),
        ({"radius": True}, "radius must be a number, not True"),
        ({"radius": -1}, "radius must lie in"),
        ({"radius": -1, "dual": "exact"}, "radius must lie in"),
        ({"temperature": 0, "dual": "exact"}, "temperature must lie in"),
        ({"radius": 1, "eta": 1}, "radius and eta"),
        ({"dual": "learnt"}, "dual must be one of"),
    ],
)
def test_settings_that_drrl_refuses(settings, message):
    with pytest.raises(ValueError, match=message):
        configure("synthetic", "drrl", config=settings)


def test_an_optional_setting_may_be_a_number_or_none():
    run = configure("synthetic", "drrl", config={"radius": 1, "weight": None})
    assert run.loss_config["radius"] == 1 and run.loss_config["weight"] is None


def test_a_name_that_two_have_must_say_whose(monkeypatch):
    class Slow(backbones.MF):
        def __init__(self, *sizes, dim: int = 4, lr: float = 0.5):
            super().__init__(*sizes, dim=dim)

    monkeypatch.setitem(backbones.REGISTRY, "slow", backbones.Backbone(Slow, "Slow"))
    with pytest.raises(ValueError, match=r"'lr' is ambiguous: .* 'backbone.lr' or 'train.lr'\?"):
        configure("synthetic", "sl", "slow", {"lr": 0.1})
    run = configure("synthetic", "sl", "slow", {"backbone.lr": 0.1, "train.lr": 0.2})
    assert run.backbone_config["lr"] == 0.1 and run.train.lr == 0.2


def test_unknown_losses_and_backbones_are_refused():
    with pytest.raises(ValueError, match=r"no loss is called 'drl' \(did you mean 'drrl'"):
        configure("synthetic", "drl")
    with pytest.raises(ValueError, match="no backbone is called 'svd'"):
        configure("synthetic", backbone="svd")


def test_the_record_is_complete_and_plain_json():
    data = small()
    outcome = outcome_of("ccl", data, seed=3, epochs=3, evaluate_every=2, margin=0.1)
    record = outcome.record
    assert list(record) == RECORD
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["dataset"] == "small" and record["data_hash"] == data.hash
    assert (record["backbone"], record["loss"], record["seed"]) == ("mf", "ccl", 3)
    given = {"epochs": 3, "seed": 3, "evaluate_every": 2, "lr": 0.05, "negatives": 5}
    assert record["parameters"] == {
        "backbone": {"dim": 4},
        "loss": {"margin": 0.1, "weight": 100.0, "push": 1.0},
        "train": vars(TrainConfig(**given)),
    }
    assert record["best_epoch"] == outcome.fit.best_epoch
    for split in ("valid", "test"):
        table = getattr(outcome.fit, split)
        assert record[split] == {k: table[k].mean() for k in ("recall@20", "ndcg@20")}
    seconds = outcome.fit.history["seconds"]
    assert record["seconds_per_epoch"] == pytest.approx(seconds.median(), abs=1e-4)
    assert record["seconds"] == pytest.approx(outcome.fit.seconds, abs=1e-3)
    assert record["device"] == "cpu" and record["threads"] == torch.get_num_threads()
    assert record["versions"]["torch"] == torch.__version__
    assert record["versions"]["python"] == platform.python_version()
    assert record["raised"] == ""
    run = configure("x", "ccl", config={**given, "dim": 4, "margin": 0.1})
    assert record["key"] == key_of(run, data.hash)
    age = datetime.now(UTC) - datetime.fromisoformat(record["finished"])
    assert 0 <= age.total_seconds() < 60
    assert record["commit"] is None or re.fullmatch("[0-9a-f]{7,40}(-dirty)?", record["commit"])


def test_the_record_stays_json_with_an_infinite_order_and_nothing_held_out():
    none = csr_array((20, 30))
    data = replace(small(), valid=none, test=none)
    record = outcome_of("drrl", data, order=math.inf, weight=2).record
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["valid"] == record["test"] == {"recall@20": None, "ndcg@20": None}
    assert parse_value(record["parameters"]["loss"]["order"]) == math.inf


def test_one_seed_one_result_another_another():
    results = []
    for seed in (0, 0, 1):
        torch.rand(3)
        outcome = outcome_of("drrl", seed=seed)
        values = [p.detach() for m in (outcome.model, outcome.loss) for p in m.parameters()]
        results.append(torch.cat([value.flatten() for value in values]))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_the_seed_decides_the_start(monkeypatch):
    starts = []
    monkeypatch.setattr(lab_run, "fit", lambda model, *_, **__: starts.append(model.users) or 1 / 0)
    state = torch.get_rng_state()
    for seed in (0, 0, 1):
        with pytest.raises(ZeroDivisionError):
            outcome_of(seed=seed)
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])
    assert torch.equal(state, torch.get_rng_state())  # the caller's generator is left alone


def test_options_and_data_dir_are_passed_on(monkeypatch, tmp_path):
    asked, rows = [], []
    monkeypatch.setattr(
        datasets, "load", lambda name, data_dir: asked.append((name, data_dir)) or small()
    )
    run = configure("amazon-beauty", config=SMALL)
    execute(run, data_dir=tmp_path, progress=False, on_epoch=rows.append, device="cpu")
    assert asked == [("amazon-beauty", tmp_path)] and len(rows) == 2


def test_a_diverged_run_names_the_loss_and_its_parameters():
    told = r"sl on mf, \{'temperature': 0.2, 'push': 1.0, 'prior': 0.0\}: epoch 1, step"
    with pytest.raises(DivergedError, match=told):
        outcome_of(lr=1e30, similarity="dot", epochs=3, batch_size=16)


def test_a_device_that_is_not_there_is_refused_before_loading(monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda *_, **__: 1 / 0)
    with pytest.raises(ValueError, match="device 'gpu' cannot be used here"):
        execute(configure("synthetic"), device="gpu")


def test_equal_runs_have_one_key_however_they_were_written():
    settings = {"radius": 1, "lr": 0.5, "epochs": 3, "train.dual_lr": 1, "dim": 8}
    first = key_of(configure("synthetic", "drrl", config=settings), "data")
    assert re.fullmatch("[0-9a-f]{16}", first)
    turned = dict(reversed(settings.items()))
    other = {"loss.radius": 1.0, "train.lr": np.float32(0.5), "train.epochs": 3.0, "dual_lr": 1.0}
    other |= {"backbone.dim": np.int64(8), "seed": 0, "order": 2}  # and defaults, said aloud
    for again in (turned, other):
        assert key_of(configure("synthetic", "drrl", config=again), "data") == first
    assert key_of(configure("./elsewhere.csv", "drrl", config=settings), "data") == first


def test_every_setting_the_data_and_the_version_change_the_key(monkeypatch):
    base = configure("x", "drrl", "xsimgcl", {"weight": 2})
    variants = [(base, "other"), (configure("x", "sl", "xsimgcl"), "data")]
    variants.append((replace(base, backbone="lightgcn"), "data"))
    words = {"sampler": "catalogue", "similarity": "dot", "mask": "train+valid", "dual": "shared"}
    words |= {"precision": "high", "optimiser": "row-sparse-adam", "metric": "recall"}
    words["refit"] = "train+valid"
    for group, part in base.config.items():
        for name, value in part.items():
            new = words.get(name) or ((value or 1) + 1 if name != "noise" else 0.5)
            if group == "train":
                changed = replace(base, train=replace(base.train, **{name: new}))
            else:
                changed = replace(base, **{f"{group}_config": part | {name: new}})
            variants.append((changed, "data"))
    for order in (math.inf, 2.5, 2**60, 2**60 + 1):
        variants.append((replace(base, loss_config={"order": order}), "data"))
    keys = [key_of(base, "data"), *(key_of(*variant) for variant in variants)]
    monkeypatch.setattr(lab_run, "VERSION", 2)
    keys.append(key_of(base, "data"))
    line = losses.REGISTRY[base.loss]
    monkeypatch.setitem(losses.REGISTRY, base.loss, line._replace(version=line.version + 1))
    keys.append(key_of(base, "data"))
    line = backbones.REGISTRY[base.backbone]
    monkeypatch.setitem(backbones.REGISTRY, base.backbone, line._replace(version=2))
    keys.append(key_of(base, "data"))
    assert len(set(keys)) == len(keys) > 35


def test_what_is_recorded_keeps_its_key():
    """Every recorded run is found again under its key, but for those of an earlier version."""
    rows = results.read_as_text(ROOT / "data" / "results" / "runs.csv")
    assert len(rows) > 600
    for _, row in rows.iterrows():
        version = lab_run.raised(row["backbone"], row["loss"])
        row = pd.Series({**row, "seed": int(row["seed"]), "negatives": int(row["negatives"])})
        same = key_of(results.run_of(row), row["data_hash"]) == row["key"]
        assert same == (row["raised"] == version), row["key"]
    assert not {*rows["loss"][rows["raised"] != ""]} - {"advinfonce", "llpauc"}


def test_a_record_tells_of_the_cutoff_and_an_older_one_of_what_was_the_only_choice():
    given = SMALL | {"metric": "hitrate", "cutoff": 5}
    outcome = execute(configure("synthetic", config=given), progress=False)
    for split in ("valid", "test"):
        told, found = outcome.record[split], getattr(outcome.fit, split)
        assert list(told) == ["recall@20", "ndcg@20", "recall@5", "ndcg@5", "hitrate@5"]
        assert all(told[name] == pytest.approx(found[name].mean()) for name in told)
    assert outcome.criterion == "hitrate@5"
    plain = execute(configure("synthetic", config=SMALL), progress=False)
    assert list(plain.record["test"]) == [*lab_run.ACCURACY] and plain.criterion == "ndcg@20"
    older = {group: dict(part) for group, part in plain.record["parameters"].items()}
    for name in LATER:
        del older["train"][name]
    assert lab_run.read_config({"parameters": older}) == lab_run.read_config(plain.record)


def test_a_hyper_parameter_that_came_later_is_in_keys_where_it_is_turned():
    keys = [key_of(configure("x", "sl", config={"push": push}), "") for push in (1, 1.3)]
    assert keys[0] == key_of(configure("x", "sl"), "") != keys[1]
    keys += [
        key_of(configure("x", "sl", config={name: 1.5}), "") for name in ("prior", "draw_power")
    ]
    assert len({*keys}) == 4
    plain = configure("x", "sl")
    del plain.loss_config["push"], plain.loss_config["prior"]  # as it was before
    assert key_of(plain, "") == keys[0]


def test_the_record_tells_of_popularity_put_back():
    def report(outcome, similarity="cosine", **masks):
        users_items = tables(outcome.model)
        ranked = popularity.by_tables(*users_items, data.train, similarity=similarity)
        return popularity.report(ranked, data.train, data.valid, data.test, **masks)

    outcome = execute(configure("synthetic", config=SMALL), progress=False)
    data, found = outcome.data, outcome.record["popularity"]
    assert found == report(outcome)
    masked = configure("synthetic", config=SMALL | {"mask": "train+valid"})
    again = execute(masked, progress=False)
    assert again.record["popularity"] == report(again, masks=(data.train, data.valid))
    dot = execute(configure("synthetic", "bpr", config=SMALL), progress=False)
    assert dot.record["popularity"] == report(dot, "dot")
    columns = results.added_columns(outcome.record)
    assert {*columns} | {*results.NEEDED} == {*results.RUNS}
    for name in ("recall@20", "ndcg@20"):
        assert columns[f"test_{name}_b"] == found["test"][name]
        assert columns[f"valid_{name}_b"] == found["valid"][name]
    assert found["valid"]["ndcg@20"] >= outcome.record["valid"]["ndcg@20"]  # b = 0 is among them
    for each in (outcome, again, dot):
        means = results.accuracy_by_user(each).mean()
        for name in ("recall@20", "ndcg@20"):
            assert means[name] == pytest.approx(each.record["test"][name])
            assert means[f"{name}_b"] == pytest.approx(each.record["popularity"]["test"][name])
    stopped = execute(configure("synthetic", config=SMALL), progress=False, on_epoch=lambda _: True)
    assert stopped.record["popularity"] is None
    assert results.added_columns(stopped.record) == {"raised": ""}


def test_the_commit_is_none_without_git(monkeypatch, tmp_path):
    lab_run.commit.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert lab_run.commit() is None
    lab_run.commit.cache_clear()


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.filterwarnings("ignore:amazon-beauty. 0 of 7,068 users and 3 of 3,570 items")
def test_two_epochs_on_amazon_beauty_beat_popularity():
    root = Path(os.environ.get("DRRL_DATA") or "nowhere")
    if not (root / "amazon-beauty").is_dir():
        pytest.skip("real data not found: set DRRL_DATA to the folder that holds amazon-beauty/ …")
    data = datasets.load("amazon-beauty", data_dir=root)
    popularity = torch.from_numpy(data.train.sum(axis=0))[:, None]
    everyone = torch.ones(data.n_users, 1)
    popular = metrics.evaluate(
        everyone, popularity, data.valid, masks=(data.train,), similarity="dot"
    )
    run = configure("amazon-beauty", "sl", config={"epochs": 2, "lr": 0.01})
    record = execute(run, data=data, device="cpu", progress=False).record
    assert record["valid"]["ndcg@20"] > 1.5 * popular["ndcg@20"].mean() > 0.005
