"""A run: settings checked, the record complete, kept and served; whom the trained loss hears."""

import json
import math
import os
import platform
import re
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_array

from drrl_core import backbones, datasets, dro, losses
from drrl_core.datasets import Interactions
from drrl_core.lab import runs, spaces
from drrl_core.lab.runs import RunError, configure, execute, get_or_train, parse_value
from drrl_core.paper import evidence
from drrl_core.train import metrics, popularity, trainer
from drrl_core.train.trainer import DivergedError, TrainConfig, tables

RECORD = [
    *["key", "dataset", "data_hash", "backbone", "loss", "parameters", "seed", "best_epoch"],
    *[
        "valid",
        "test",
        "popularity",
        "seconds",
        "seconds_per_epoch",
        "device",
        "threads",
        "versions",
    ],
    *["raised", "commit", "finished"],
]
FILES = ["history.csv", "record.json", "state.pt", "tables.npz", "test.csv", "valid.csv"]
SMALL = {"epochs": 2, "negatives": 5, "dim": 4, "lr": 0.05}


@pytest.fixture(autouse=True)
def store(monkeypatch, tmp_path):
    """Finished runs are kept apart for each test, and out of the user's own."""
    monkeypatch.setenv("DRRL_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def small(*, truth: bool = True, seed: int = 0) -> Interactions:
    """20 users, 30 items, disjoint splits; user 0 has no train pair, user 1 nothing held out."""
    rng = np.random.default_rng(seed)
    part = rng.choice(4, p=[0.6, 0.2, 0.1, 0.1], size=(20, 30))
    part[0, part[0] == 1] = 0
    part[1, part[1] > 1] = 0
    liked = (part > 0) | (rng.random((20, 30)) < 0.1) if truth else None
    if truth:
        liked[1] = part[1] > 0
    splits = (csr_array((part == p).astype(float)) for p in (1, 2, 3))
    return Interactions("small", 20, 30, *splits, truth=liked)


def outcome_of(loss: str = "sl", data: Interactions | None = None, **settings) -> runs.Outcome:
    run = configure("synthetic", loss, settings=SMALL | settings)
    return execute(run, data=data or small(), device="cpu", progress=False)


# ---------------------------------------------------------------------------- settings


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
    assert (run.loss_parameters, run.backbone_parameters) == ({}, {"dim": 64})
    assert configure("synthetic").train == TrainConfig()
    assert configure("x", "drrl").loss_parameters == losses.hyperparameters("drrl")


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
    before, after = (
        configure("synthetic", "ccl", settings=s).parameters for s in ({}, {name: value})
    )
    assert after[group].pop(key) == value != before[group].pop(key)
    assert after == before


def test_whole_numbers_and_numpy_numbers_become_plain_ones():
    settings = {"epochs": 3.0, "lr": 1, "negatives": np.int64(7), "margin": np.float32(0.5)}
    run = configure("synthetic", "ccl", settings=settings)
    found = run.train.epochs, run.train.lr, run.train.negatives, run.loss_parameters["margin"]
    assert found == (3, 1.0, 7, 0.5) and [type(v) for v in found] == [int, float, int, float]


REFUSED = {
    "unknown": ({"lrr": 1}, r"'lrr' is no setting of ccl on mf: did you mean lr\?"),
    "another group's": ({"loss.lr": 1}, r"'loss.lr' is no setting .*: did you mean train.lr\?"),
    "another loss's": ({"temperature": 1}, "'temperature' is no setting of ccl"),
    "no such group": ({"model.dim": 1}, "'model.dim' is no setting .*: did you mean backbone.dim"),
    "no idea": ({"zzzzzz": 1}, "'zzzzzz' is no setting of ccl on mf: loss.margin, loss.weight, ba"),
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
        configure("synthetic", "ccl", settings=settings)


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
        configure("synthetic", "drrl", settings=settings)


def test_an_optional_setting_may_be_a_number_or_none():
    run = configure("synthetic", "drrl", settings={"radius": 1, "weight": None})
    assert run.loss_parameters["radius"] == 1 and run.loss_parameters["weight"] is None


def test_a_name_that_two_have_must_say_whose(monkeypatch):
    class Slow(backbones.MF):
        def __init__(self, *sizes, dim: int = 4, lr: float = 0.5):
            super().__init__(*sizes, dim=dim)

    monkeypatch.setitem(backbones.REGISTRY, "slow", backbones.Backbone(Slow))
    with pytest.raises(ValueError, match=r"'lr' is ambiguous: .* backbone.lr or train.lr\?"):
        configure("synthetic", "sl", "slow", {"lr": 0.1})
    run = configure("synthetic", "sl", "slow", {"backbone.lr": 0.1, "train.lr": 0.2})
    assert run.backbone_parameters["lr"] == 0.1 and run.train.lr == 0.2


def test_unknown_losses_and_backbones_are_refused():
    with pytest.raises(ValueError, match=r"no loss is called 'drl' \(did you mean 'drrl'"):
        configure("synthetic", "drl")
    with pytest.raises(ValueError, match="no backbone is called 'svd'"):
        configure("synthetic", backbone="svd")


# ---------------------------------------------------------------------------- the record


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
        "loss": {"margin": 0.1, "weight": 100.0},
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
    run = configure("x", "ccl", settings={**given, "dim": 4, "margin": 0.1})
    assert record["key"] == runs.key(run, data.hash)
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
    monkeypatch.setattr(runs, "fit", lambda model, *_, **__: starts.append(model.users) or 1 / 0)
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
    run = configure("amazon-beauty", settings=SMALL)
    execute(run, data_dir=tmp_path, progress=False, on_epoch=rows.append, device="cpu")
    assert asked == [("amazon-beauty", tmp_path)] and len(rows) == 2


def test_a_diverged_run_names_the_loss_and_its_parameters():
    with pytest.raises(DivergedError, match=r"sl on mf, \{'temperature': 0.2\}: epoch 1, step"):
        outcome_of(lr=1e30, similarity="dot", epochs=3, batch_size=16)


def test_a_device_that_is_not_there_is_refused_before_loading(monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda *_, **__: 1 / 0)
    with pytest.raises(ValueError, match="device 'gpu' cannot be used here"):
        execute(configure("synthetic"), device="gpu")


# ---------------------------------------------------------------------------- whom it listens to


def sets_of(data: Interactions, user: int) -> tuple[set, set]:
    """A user's train items, and the false negatives, both by set arithmetic."""
    train = set(np.flatnonzero(data.train.toarray()[user]).tolist())
    held_out = data.valid.toarray()[user] + data.test.toarray()[user]
    liked = held_out if data.truth is None else data.truth[user]
    return train, set(np.flatnonzero(liked).tolist()) - train


@pytest.mark.parametrize("truth", [True, False])
def test_false_negatives_are_liked_and_never_trained_on(truth):
    data, some = small(truth=truth), 0
    for user in range(data.n_users):
        found = runs.false_negatives(data, user)
        train, expected = sets_of(data, user)
        assert found.dtype == bool and set(np.flatnonzero(found).tolist()) == expected
        assert not found[list(train)].any()
        some += len(expected) > 0
    assert some > 15


WEIGHTS = {  # each example's ∂L/∂n_j, up to a factor; naive, one positive p and negatives n
    "sl": lambda p, n: [math.exp(x / 0.2) / sum(math.exp(y / 0.2) for y in n) for x in n],
    "ccl": lambda p, n: [float(x > 0.1) for x in n],
    "bpr": lambda p, n: [1 / (1 + math.exp(p - x)) for x in n],
    "drrl": lambda p, n: [
        max(x - 0.1, 0) / math.sqrt(sum(max(y - 0.1, 0) ** 2 for y in n)) for x in n
    ],
}
HYPER = {"ccl": {"margin": 0.1}, "drrl": {"start": 0.1, "dual": "fixed"}}


def naive_view(outcome: runs.Outcome, user: int) -> dict[int, tuple[float, float, bool]]:
    """Item -> (score, weight, false negative), pair by pair."""
    name = outcome.record["loss"]
    users, items = (table.double() for table in outcome.model())
    if name != "bpr":
        users, items = (t / t.norm(dim=1, keepdim=True) for t in (users, items))
    score = [(users[user] @ item).item() for item in items]
    train, false = sets_of(outcome.data, user)
    rest = [j for j in range(len(score)) if j not in train]
    rows = [WEIGHTS[name](score[i], [score[j] for j in rest]) for i in train]
    total = [sum(column) for column in zip(*rows, strict=True)]
    mean = sum(total) / len(total)
    return {j: (score[j], w / mean, j in false) for j, w in zip(rest, total, strict=True)}


@pytest.mark.parametrize("name", WEIGHTS)
def test_negatives_of_a_user_are_those_of_naive_loops(name):
    outcome = outcome_of(name, **HYPER.get(name, {}))
    for user in (2, 11):
        view, expected = runs.negatives_of(outcome, user), naive_view(outcome, user)
        assert list(view) == ["score", "weight", "false_negative"] and view.index.name == "item"
        assert view.index.tolist() == list(expected)
        score, weight, false = map(list, zip(*expected.values(), strict=True))
        np.testing.assert_allclose(view["score"], score, atol=1e-6)
        np.testing.assert_allclose(view["weight"], weight, rtol=1e-4, atol=1e-6)
        assert view["false_negative"].tolist() == false and view["false_negative"].dtype == bool
        assert view["weight"].mean() == pytest.approx(1, abs=1e-5)


def test_every_loss_shows_its_weights():
    for name in losses.REGISTRY:
        outcome = outcome_of(name, epochs=1)
        view = runs.negatives_of(outcome, 2)
        total = view["weight"].sum()
        assert total == pytest.approx(len(view), rel=1e-4) or total == 0, name


def test_weights_are_those_of_the_model_in_evaluation_mode():
    outcome, modes = outcome_of(), []
    outcome.model.register_forward_pre_hook(lambda model, _: modes.append(model.training))
    runs.negatives_of(outcome, 2)
    assert modes == [False] and outcome.model.training


def test_a_user_without_train_pairs_listens_to_nobody():
    with pytest.raises(ValueError, match="user 0 has no train pair"):
        runs.negatives_of(outcome_of(), 0)


@pytest.mark.parametrize("truth", [True, False])
def test_attention_is_the_mean_over_users_of_naive_loops(truth):
    outcome = outcome_of("ccl", small(truth=truth), margin=0.1)
    expected = []
    for user in range(2, 20):
        view = naive_view(outcome, user).values()
        false = [w for _, w, f in view if f]
        weights = [w for _, w, _ in view]
        expected.append([max(weights), sum(false) / len(false), weights.count(0) / len(weights)])
    found = runs.attention(outcome)
    assert list(found) == ["k1", "k2", "truncated"]
    assert list(found.values()) == pytest.approx(np.mean(expected, axis=0).tolist(), rel=1e-5)
    assert 0 < found["truncated"] < 1


def test_attention_counts_the_users_whose_negatives_are_all_truncated():
    outcome = outcome_of("ccl")
    tops = sorted(runs.negatives_of(outcome, user)["score"].max() for user in range(2, 20))
    outcome.loss.hyper["margin"] = (tops[8] + tops[9]) / 2  # nine users on either side
    views = [runs.negatives_of(outcome, user) for user in range(2, 20)]
    alive = [view for view in views if view["weight"].any()]
    assert len(alive) == 9
    found = runs.attention(outcome)
    share = np.mean([(view["weight"] == 0).mean() for view in views])
    assert found["truncated"] == pytest.approx(share)
    assert found["k1"] == pytest.approx(np.mean([view["weight"].max() for view in alive]))
    k2 = np.mean([view["weight"][view["false_negative"]].mean() for view in alive])
    assert found["k2"] == pytest.approx(k2)


@pytest.mark.parametrize("users, expected", [(1, 1), (7, 7), (17, 17), (18, 18), (200, 18)])
def test_attention_asks_as_many_users_as_it_says(users, expected, monkeypatch):
    outcome, asked, original = outcome_of(), [], runs._listening
    monkeypatch.setattr(runs, "_listening", lambda *a: asked.extend(a[-1]) or original(*a))
    runs.attention(outcome, users=users)
    assert len(set(asked)) == len(asked) == expected
    assert set(asked) <= set(range(2, 20)) and np.diff(asked, prepend=2).max() <= 18 / expected + 1


def test_attention_of_nobody_is_nan():
    none = csr_array((20, 30))
    outcome = outcome_of(data=replace(small(truth=False), valid=none, test=none))
    assert all(math.isnan(value) for value in runs.attention(outcome).values())


def test_typical_user():
    train = [[0] * 5] * 3 + [[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [1, 0, 0, 0, 0]]
    test = [[1] * 5] * 3 + [[0, 0, 0, 0, 1], [0, 0, 1, 0, 0], [1, 0, 0, 1, 1], [0, 1, 1, 1, 1]]
    data = Interactions("x", 7, 5, csr_array(train), csr_array((7, 5)), csr_array(test))
    # Of 1, 2, 2 and 4 train pairs the median is 2, and user 5 has more test pairs than user 4.
    assert runs.typical_user(data) == 5


@pytest.mark.parametrize("name", ["sl", "ccl"])
def test_by_user_is_naive_loops_user_by_user(name):
    outcome = outcome_of(name, **HYPER.get(name, {}))
    found = runs.by_user(outcome)
    assert found.index.tolist() == list(range(1, 20)) and found.index.name == "user"
    test = outcome.data.test.toarray() > 0
    for user in (1, 2, 7, 19):
        view = naive_view(outcome, user)
        w = {item: weight for item, (_, weight, _) in view.items()}
        false = [x for _, x, marked in view.values() if marked]
        held = [w[item] for item in np.flatnonzero(test[user]) if item in w]
        row = {
            "truncated": list(w.values()).count(0) / len(w),
            "k1": max(w.values()),
            "k2": sum(false) / len(false) if false else math.nan,
            "effective_share": len(w) / sum(x * x for x in w.values()),
            "k2_test": sum(held) / len(held) if held else math.nan,
        }
        assert found.loc[user].to_dict() == pytest.approx(row, rel=1e-4, nan_ok=True)
    assert runs.by_user(outcome, users=5).index.tolist() == [1, 5, 10, 14, 19]
    assert (found["k2_test"] - found["k2"]).abs().max() > 0.01


def test_by_user_of_the_deaf_says_that_all_is_truncated():
    found = runs.by_user(outcome_of("ccl", margin=0.999, epochs=1), users=3)
    assert (found["truncated"] == 1).all()
    assert found.drop(columns="truncated").isna().all(axis=None)


def test_turned_is_the_worst_case_of_each_user_s_own_scores():
    outcome = outcome_of("sl")
    found = runs.turned(outcome, [1, 3.0, math.inf], radius=0.4, users=3)
    assert found.index.names == ["order", "user"] and len(found) == 9
    view = runs.negatives_of(outcome, 10)
    f = torch.tensor(view["score"].to_numpy()).double()
    for order in (1.0, 3.0, math.inf):
        worst = dro.worst_case(f, order=order, radius=0.4)
        w = worst.weights.numpy()
        row = found.loc[(order, 10)]
        assert row["dual"] == pytest.approx(float(worst.dual))
        assert row["radius"] == pytest.approx(0.4) and row["k1"] == pytest.approx(w.max())
        assert row["truncated"] == pytest.approx((w == 0).mean() if order > 1 else 0)
        assert row["effective_share"] == pytest.approx(1 / np.mean(w**2))
        assert row["k2"] == pytest.approx(w[view["false_negative"]].mean())
    at_c = runs.turned(outcome, [3.0], radius=0.4, hold="weight", users=3)
    assert at_c["radius"].to_numpy() == pytest.approx(0.3)


def test_turned_at_each_user_s_own_radius_starts_from_the_loss_s_own_weights():
    outcome = outcome_of("sl")
    own, found = runs.by_user(outcome), runs.turned(outcome, [1.0, 5.0], users=None)
    for name in ("k1", "k2", "k2_test", "effective_share"):
        np.testing.assert_allclose(found.loc[1.0, name], own[name], rtol=1e-4)
    radius = runs.places(outcome, users=None)["radius"]
    np.testing.assert_allclose(found.loc[5.0, "radius"], radius, atol=1e-6)
    deaf = outcome_of("ccl", margin=0.999, epochs=1)
    assert runs.turned(deaf, [2.0], users=3).empty


def test_margins_are_naive_minimisation_of_the_bound_user_by_user():
    outcome = outcome_of("drrl", order=2, weight=1.5, start=0.1, dual_lr=0.1)
    frame = runs.margins(outcome, users=5)
    assert frame.index.tolist() == [1, 5, 10, 14, 19] and frame.index.name == "user"
    scores = runs.scores_of(outcome, frame.index.to_numpy())
    for (user, row), own in zip(frame.iterrows(), scores, strict=True):
        f = runs.negatives_of(outcome, user)["score"].to_numpy()
        assert own[own > -math.inf] == pytest.approx(f, abs=1e-6)

        def bound(beta, f=f):
            return beta + 1.5 * math.sqrt(np.mean(np.maximum(f - beta, 0) ** 2))

        beta = outcome.loss.beta[user].item()
        best = minimize_scalar(bound, bracket=(-1, 1), tol=1e-10)
        assert row["pairs"] == outcome.data.train[[user]].nnz and row["beta"] == beta != 0.1
        assert row["best"] == pytest.approx(best.x, abs=1e-4)
        assert row["gap"] == pytest.approx(bound(beta) - best.fun, abs=1e-6)


def test_margins_of_the_ablations_and_of_no_ball():
    shared = outcome_of("drrl", weight=1.5, dual="shared", dual_lr=0.1)
    assert runs.margins(shared)["beta"].unique().tolist() == [shared.loss.beta.item()]
    exact = runs.margins(outcome_of("drrl", radius=0.5, dual="exact"))
    assert (exact["beta"] != exact["best"]).all()  # a row's is not that of all negatives
    assert (exact["gap"] >= 0).all() and exact["gap"].max() > 1e-6
    none = outcome_of("drrl", weight=1.0, start=0.0)
    frame, scores = runs.margins(none), runs.scores_of(none, np.arange(1, 20))
    assert (frame["best"] == -math.inf).all()
    f = scores[3][scores[3] > -math.inf]
    bound = frame["beta"][4] + math.sqrt(np.mean(np.maximum(f - frame["beta"][4], 0) ** 2))
    assert frame["gap"][4] == pytest.approx(bound - f.mean())


@pytest.mark.parametrize(
    "loss, settings", [("sl", {}), ("drrl", {"temperature": 0.3}), ("drrl", {"weight": 0.5})]
)
def test_margins_where_there_is_none(loss, settings):
    with pytest.raises(ValueError, match="weight"):
        runs.margins(outcome_of(loss, epochs=1, **settings))


@pytest.mark.parametrize("loss", losses.REGISTRY)
def test_users_are_heard_one_by_one_or_together(loss, monkeypatch):
    outcome = outcome_of(loss)
    together = runs.diagnostics(outcome.model, outcome.loss, outcome.data)
    monkeypatch.setattr(runs, "TILE", 1)  # a user at a time
    alone = runs.diagnostics(outcome.model, outcome.loss, outcome.data)
    assert list(alone) == list(runs.DIAGNOSTICS[: 6 if loss == "drrl" else 4])
    assert list(alone.values()) == pytest.approx(list(together.values()), rel=1e-5, nan_ok=True)


def ball(scores: list[float], radius: float) -> float:
    """max E_Q f over the Rényi ball of order 2, E w² <= e^ρ, by its dual on a fine grid of β."""
    f = np.sort(np.array(scores, dtype=float))
    beta = np.linspace(f[0] - 50, f[-1], 2_000_001)
    for _ in range(2):  # and a finer one about the best
        excess = np.zeros_like(beta)
        for x in f:
            excess += np.maximum(x - beta, 0) ** 2
        value = beta + np.sqrt(math.exp(radius) * excess / len(f))
        best = beta[value.argmin()]
        beta = np.linspace(best - 1e-4, best + 1e-4, 20_001)
    return float(value.min())


def test_diagnostics_are_those_of_naive_loops():
    outcome = outcome_of("drrl", start=0.2, weight=1.5, dual_lr=0.1)
    rows = []
    for user in (2, 10, 19):  # evenly spread over 2 ... 19
        view = naive_view_of_drrl(outcome, user)
        scores, weights = [x for x, _ in view], [w for _, w in view]
        false = [w for w, j in zip(weights, negatives(outcome, user)[0], strict=True) if j]
        beta, n = outcome.loss.beta[user].item(), len(scores)
        bound = beta + 1.5 * math.sqrt(sum(max(x - beta, 0) ** 2 for x in scores) / n)
        rows.append(
            {
                "truncated": weights.count(0) / n,
                "k1": max(weights),
                "k2": sum(false) / len(false),
                "effective_share": n / sum(w * w for w in weights),
                "beta": beta,
                "gap": bound - ball(scores, 2 * math.log(1.5)),
            }
        )
    found = runs.diagnostics(outcome.model, outcome.loss, outcome.data, users=3)
    expected = pd.DataFrame(rows).mean().to_dict()
    assert list(found) == list(expected) == list(runs.DIAGNOSTICS)
    assert list(found.values()) == pytest.approx(list(expected.values()), rel=2e-5, abs=1e-6)
    assert found["gap"] > 1e-3 and outcome.loss.beta[[2, 10, 19]].std() > 1e-4


def negatives(outcome: runs.Outcome, user: int) -> tuple[list[bool], list[int]]:
    """Whether each negative is a false one, and which item it is."""
    train, false = sets_of(outcome.data, user)
    rest = [j for j in range(outcome.data.n_items) if j not in train]
    return [j in false for j in rest], rest


def naive_view_of_drrl(outcome: runs.Outcome, user: int) -> list[tuple[float, float]]:
    users, items = (t.double() / t.double().norm(dim=1, keepdim=True) for t in outcome.model())
    scores = [(users[user] @ items[j]).item() for j in negatives(outcome, user)[1]]
    excess = [max(x - outcome.loss.beta[user].item(), 0) for x in scores]
    return [(x, e * len(scores) / sum(excess)) for x, e in zip(scores, excess, strict=True)]


@pytest.mark.parametrize(
    "settings, positive",
    [
        ({"dual": "shared", "radius": 0.5}, True),
        ({"dual": "fixed", "temperature": 0.3, "start": 0.1}, True),
        ({"dual": "exact", "radius": 0.5}, False),
        ({"dual": "exact", "temperature": 0.5, "order": 1}, False),
        ({"dual": "shared", "weight": 2, "order": math.inf}, True),
        ({"weight": 0.5}, None),
    ],
)
def test_beta_and_gap_of_every_kind_of_drrl(settings, positive):
    outcome = outcome_of("drrl", **settings)
    found = runs.diagnostics(outcome.model, outcome.loss, outcome.data)
    assert math.isfinite(found["beta"])
    if positive is None:  # there is no ball
        assert math.isnan(found["gap"])
    else:
        assert (found["gap"] > 1e-4) if positive else (found["gap"] == 0)


def test_diagnostics_of_nobody_are_nan():
    none = csr_array((20, 30))
    outcome = outcome_of(data=replace(small(truth=False), valid=none, test=none))
    found = runs.diagnostics(outcome.model, outcome.loss, outcome.data)
    assert list(found) == list(runs.DIAGNOSTICS[:4])
    assert all(math.isnan(value) for value in found.values())


def test_diagnostics_stand_in_the_history_of_evaluated_epochs_and_change_nothing():
    run = configure("x", "drrl", settings=SMALL | {"epochs": 5, "evaluate_every": 2})
    rows, options = [], {"data": small(), "device": "cpu", "progress": False}
    outcome = execute(run, diagnose=True, on_epoch=lambda row: rows.append(dict(row)), **options)
    history = outcome.fit.history
    assert [set(runs.DIAGNOSTICS) <= set(row) for row in rows] == [False, True, False, True, True]
    assert history["k1"].notna().tolist() == [False, True, False, True, True]
    last = runs.diagnostics(outcome.model, outcome.loss, outcome.data)
    best = history.set_index("epoch").loc[outcome.fit.best_epoch]
    assert {name: best[name] for name in runs.DIAGNOSTICS} == last
    plain = execute(run, **options)
    assert same_learnt(plain, outcome) and plain.record["test"] == outcome.record["test"]


# ---------------------------------------------------------------------------- the key


def test_equal_runs_have_one_key_however_they_were_written():
    settings = {"radius": 1, "lr": 0.5, "epochs": 3, "train.dual_lr": 1, "dim": 8}
    first = runs.key(configure("synthetic", "drrl", settings=settings), "data")
    assert re.fullmatch("[0-9a-f]{16}", first)
    turned = dict(reversed(settings.items()))
    other = {"loss.radius": 1.0, "train.lr": np.float32(0.5), "train.epochs": 3.0, "dual_lr": 1.0}
    other |= {"backbone.dim": np.int64(8), "seed": 0, "order": 2}  # and defaults, said aloud
    for again in (turned, other):
        assert runs.key(configure("synthetic", "drrl", settings=again), "data") == first
    assert runs.key(configure("./elsewhere.csv", "drrl", settings=settings), "data") == first


def test_every_setting_the_data_and_the_version_change_the_key(monkeypatch):
    base = configure("x", "drrl", "xsimgcl", {"weight": 2})
    variants = [(base, "other"), (configure("x", "sl", "xsimgcl"), "data")]
    variants.append((replace(base, backbone="lightgcn"), "data"))
    words = {"sampler": "catalogue", "similarity": "dot", "mask": "train+valid", "dual": "shared"}
    words |= {"precision": "high", "optimiser": "row-sparse-adam"}
    for group, part in base.parameters.items():
        for name, value in part.items():
            new = words.get(name) or ((value or 1) + 1 if name != "noise" else 0.5)
            if group == "train":
                changed = replace(base, train=replace(base.train, **{name: new}))
            else:
                changed = replace(base, **{f"{group}_parameters": part | {name: new}})
            variants.append((changed, "data"))
    for order in (math.inf, 2.5, 2**60, 2**60 + 1):
        variants.append((replace(base, loss_parameters={"order": order}), "data"))
    keys = [runs.key(base, "data"), *(runs.key(*variant) for variant in variants)]
    monkeypatch.setattr(trainer, "VERSION", 2)
    keys.append(runs.key(base, "data"))
    line = losses.REGISTRY[base.loss]
    monkeypatch.setitem(losses.REGISTRY, base.loss, line._replace(version=line.version + 1))
    keys.append(runs.key(base, "data"))
    line = backbones.REGISTRY[base.backbone]
    monkeypatch.setitem(backbones.REGISTRY, base.backbone, line._replace(version=2))
    keys.append(runs.key(base, "data"))
    assert len(set(keys)) == len(keys) > 35


def test_what_is_recorded_keeps_its_key():
    """Every recorded run is found again under its key, but for those of an earlier version."""
    rows = evidence.read_as_text(Path(__file__).parents[2] / "data" / "results" / "runs.csv")
    assert len(rows) > 600
    for _, row in rows.iterrows():
        raised = runs.raised(row["backbone"], row["loss"])
        row = pd.Series({**row, "seed": int(row["seed"]), "negatives": int(row["negatives"])})
        same = runs.key(spaces.run_of(row), row["data_hash"]) == row["key"]
        assert same == (row["raised"] == raised), row["key"]
    assert not {*rows["loss"][rows["raised"] != ""]} - {"advinfonce", "llpauc"}


def test_the_record_tells_of_popularity_put_back():
    outcome = execute(configure("synthetic", settings=SMALL), progress=False)
    data, found = outcome.data, outcome.record["popularity"]
    splits = data.train, data.valid, data.test
    assert found == popularity.report(*tables(outcome.model), *splits)
    masked = configure("synthetic", settings=SMALL | {"mask": "train+valid"})
    again = execute(masked, progress=False)
    wanted = {"masks": (data.train, data.valid)}
    assert again.record["popularity"] == popularity.report(*tables(again.model), *splits, **wanted)
    dot = execute(configure("synthetic", "bpr", settings=SMALL), progress=False)
    wanted = {"similarity": "dot"}
    assert dot.record["popularity"] == popularity.report(*tables(dot.model), *splits, **wanted)
    columns = runs.added_columns(outcome.record)
    assert {*columns} | {*evidence.NEEDED} == {*evidence.RUNS}
    for name in ("recall@20", "ndcg@20"):
        assert columns[f"test_{name}_b"] == found["test"][name]
        assert columns[f"valid_{name}_b"] == found["valid"][name]
    assert found["valid"]["ndcg@20"] >= outcome.record["valid"]["ndcg@20"]  # b = 0 is among them
    for each in (outcome, again, dot):
        means = runs.accuracy_by_user(each).mean()
        for name in ("recall@20", "ndcg@20"):
            assert means[name] == pytest.approx(each.record["test"][name])
            assert means[f"{name}_b"] == pytest.approx(each.record["popularity"]["test"][name])
    stopped = execute(
        configure("synthetic", settings=SMALL), progress=False, on_epoch=lambda _: True
    )
    assert stopped.record["popularity"] is None
    assert runs.added_columns(stopped.record) == {"raised": ""}


def test_where_runs_are_kept(monkeypatch, tmp_path):
    assert runs.store_folder(tmp_path) == tmp_path and runs.store_folder("~/x").is_absolute()
    monkeypatch.setenv("DRRL_RUNS", str(tmp_path / "mine"))
    assert runs.store_folder() == tmp_path / "mine" and runs.store_folder("a") == Path("a")
    monkeypatch.delenv("DRRL_RUNS")
    assert runs.store_folder() == Path(__file__).parents[2] / "data" / "runs"
    monkeypatch.setattr(runs, "__file__", str(tmp_path / "site-packages/drrl_core/lab/runs.py"))
    assert runs.store_folder().name == "runs" and "drrl" in str(runs.store_folder())


# ---------------------------------------------------------------------------- the store


def stored(loss: str = "sl", backbone: str = "mf", *, data=None, options=None, **settings):
    run = configure("synthetic", loss, backbone, SMALL | settings)
    options = {"data": data or small(), "device": "cpu", "progress": False} | (options or {})
    return get_or_train(run, **options)


def untimed(outcome: runs.Outcome) -> dict:
    changing = ("seconds", "seconds_per_epoch", "finished")
    return {name: value for name, value in outcome.record.items() if name not in changing}


def same_learnt(*outcomes: runs.Outcome) -> bool:
    states = [{**o.model.state_dict(), **o.loss.state_dict()} for o in outcomes]
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def assert_same(a: runs.Outcome, b: runs.Outcome, *, timed: bool = True) -> None:
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
    assert str(runs.attention(a)) == str(runs.attention(b))


CASES = [(loss, "mf") for loss in losses.REGISTRY] + [("sl", "lightgcn"), ("drrl", "xsimgcl")]


@pytest.mark.parametrize("loss, backbone", CASES)
def test_a_served_run_equals_the_trained_one(loss, backbone, store, monkeypatch):
    data = small()
    settings = {"epochs": 3, "evaluate_every": 2, "lr": 0.02}
    trained = stored(loss, backbone, data=data, **settings)
    options = {"data": data, "device": "cpu", "progress": False}
    alone = execute(configure("x", loss, backbone, SMALL | settings), **options)
    monkeypatch.setattr(runs, "fit", lambda *_, **__: 1 / 0)
    served = stored(loss, backbone, data=data, **settings)
    assert (trained.served, served.served, alone.served) == (False, True, False)
    assert_same(served, trained)
    assert_same(served, alone, timed=False)
    view, seen = (runs.negatives_of(outcome, 2) for outcome in (alone, served))
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
    assert runs.load(record["key"], data=small()).loss.hyper["order"] == math.inf
    assert runs.table()["loss.order"].tolist() == [math.inf]


SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
sys.path[:0] = [{tests!r}, {root!r}]
import torch
from test_runs import stored
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
    script.write_text(SCRIPT.format(tests=str(here), root=str(here.parents[1])))
    command = [sys.executable, script, str(kill_at), tmp_path / name, tmp_path / "go"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes)


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
    assert runs.table().empty
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
    run = configure("films.csv", "drrl", settings=settings | {"radius": 1})
    get_or_train(run, on_epoch=stop_at_epoch_2, **options)
    same = configure("./films.csv", "drrl", settings=settings | {"radius": 1.0})
    epochs = []
    get_or_train(same, on_epoch=lambda row: epochs.append(row["epoch"]), **options)
    assert epochs == [3, 4]


# ---------------------------------------------------------------------------- damage


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

    asked = [stored, lambda: runs.load(home.name, data=small())]
    asked.append(lambda: stored(options={"diagnose": True}))
    for ask in asked:
        with pytest.raises(RunError, match=rf"{home}/\S+: .*\. Move {home} away") as error:
            ask()
        assert name == "SHA256SUMS" or str(home / name) in str(error.value)
    if name == "record.json" or (name == "SHA256SUMS" and how == "missing"):
        with pytest.warns(UserWarning, match="left out: .*Move"):
            assert runs.table().empty
    assert {path: path.read_bytes() for path in home.iterdir()} == before


def test_a_run_that_cannot_be_rebuilt_is_reported(store, monkeypatch):
    key = stored("drrl").record["key"]
    monkeypatch.delitem(losses.REGISTRY, "drrl")
    with pytest.raises(RunError, match=r"of commit .*, and cannot be rebuilt here"):
        runs.load(key, data=small())


# ---------------------------------------------------------------------------- diagnostics, kept


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
    kept = later.fit.history.drop(columns=list(runs.DIAGNOSTICS))
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


# ---------------------------------------------------------------------------- table, load, compare

FIRST = ["key", "dataset", "backbone", "loss", "seed", "sampler", "negatives"]
LAST = [
    *["best_epoch", "valid.recall@20", "valid.ndcg@20", "test.recall@20", "test.ndcg@20"],
    *["seconds", "device", "finished"],
]


def test_the_table_of_an_empty_store_has_its_columns(store):
    for _ in range(2):
        found = runs.table()
        assert found.empty and list(found) == FIRST + LAST
        store.mkdir(exist_ok=True)


def test_the_table_has_a_row_a_run_and_a_column_a_parameter(store):
    outcomes = [stored("ccl", margin=0.1), stored("drrl", "lightgcn", radius=1, seed=5)]
    outcomes.append(stored("sl", sampler="catalogue", lr=0.02))
    (store / "notes").mkdir()
    (store / "0123456789abcdef").write_text("no folder")
    found = runs.table()
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
        assert row["test.ndcg@20"] == record["test"]["ndcg@20"]
        assert row["valid.recall@20"] == record["valid"]["recall@20"]
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
            assert_same(runs.load(name, data=small()), outcome)
        assert runs.record(short) == outcome.record
    shared = next(d for d in "0123456789abcdef" if sum(k.startswith(d) for k in keys) > 1)
    with pytest.raises(RunError, match=rf"runs have a key that starts with '{shared}': {shared}"):
        runs.load(shared)
    with pytest.raises(RunError, match=r"no run in .* has a key that starts with 'xyz'"):
        runs.load("xyz")


def test_load_finds_the_data_or_says_what_is_wrong(store):
    run = configure("synthetic", settings={"epochs": 1, "dim": 4})
    trained = get_or_train(run, device="cpu", progress=False)
    assert_same(runs.load(trained.record["key"], device="cpu"), trained)
    with pytest.raises(RunError, match="was trained on other data than this synthetic"):
        runs.load(trained.record["key"], data=small())
    key = stored().record["key"]
    with pytest.raises(RunError, match=f"{key}: give the data it was trained on: unknown data"):
        runs.load(key)


def test_compare_sets_two_runs_side_by_side(store):
    a, b = stored("sl"), stored("ccl")
    found = runs.compare(a.record["key"], b.record["key"])
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
        runs.compare(a.record["key"], other)


def test_the_commit_is_none_without_git(monkeypatch, tmp_path):
    runs._commit.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runs._commit() is None
    runs._commit.cache_clear()


# ---------------------------------------------------------------------------- real data


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
    run = configure("amazon-beauty", "sl", settings={"epochs": 2, "lr": 0.01})
    record = execute(run, data=data, device="cpu", progress=False).record
    assert record["valid"]["ndcg@20"] > 1.5 * popular["ndcg@20"].mean() > 0.005


# ---------------------------------------------------------------------------- what comes of it


def own_ids(data: Interactions) -> Interactions:
    """The same data under labels of which numbers, or an index, would make something else."""
    users = np.array([f"{n:03}" for n in range(data.n_users)])
    items = np.array([f"NA, {n}" for n in range(data.n_items)])
    return replace(data, user_ids=users, item_ids=items)


@pytest.mark.parametrize("loss", ["sl", "bpr"])  # cosine, and dot product
@pytest.mark.parametrize("known", [("train",), ("train", "valid", "test")])
def test_recommendations_are_those_of_naive_loops(loss, known):
    data = own_ids(small())
    outcome = outcome_of(loss, data)
    users, items = (table.detach().double().numpy() for table in tables(outcome.model))
    if loss == "sl":
        users, items = (t / np.linalg.norm(t, axis=1, keepdims=True) for t in (users, items))
    expected = []
    for user in range(1, data.n_users):  # user 0 has no train pair
        taken = {i for name in known for i in getattr(data, name)[[user]].indices}
        left = [(-items[i] @ users[user], i) for i in range(data.n_items) if i not in taken]
        for place, (score, i) in enumerate(sorted(left)[:5], 1):
            expected.append((data.user_ids[user], place, data.item_ids[i], -score))
    found = runs.recommend(outcome, k=5, known=known)
    assert list(found) == ["user", "rank", "item", "score"]
    assert [*zip(found["user"], found["rank"], found["item"], strict=True)] == [
        row[:3] for row in expected
    ]
    np.testing.assert_allclose(found["score"], [row[3] for row in expected], atol=1e-6)


def test_recommended_test_items_are_the_hits_of_the_record():
    data = small()
    outcome, wanted = outcome_of("sl", data), metrics.seekers(data.test)
    found = runs.recommend(outcome, k=20, users=wanted)
    hits = [
        (u, i) in {*zip(*data.test.nonzero(), strict=True)}
        for u, i in zip(found["user"], found["item"], strict=True)
    ]
    recall = found.assign(hit=hits).groupby("user")["hit"].sum() / np.diff(data.test.indptr)[wanted]
    assert recall.mean() == pytest.approx(outcome.record["test"]["recall@20"])


def test_a_user_with_few_candidates_gets_as_many():
    data = small()
    train = data.train.toarray()
    train[3] = 1
    train[3, [4, 9]] = 0
    empty = csr_array(train.shape)
    data = Interactions("few", 20, 30, csr_array(train), empty, empty)
    found = runs.recommend(outcome_of("sl", data), k=40)
    assert {*found.loc[found["user"] == 3, "item"]} == {4, 9}
    assert (found.groupby("user").size() == 30 - np.diff(data.train.indptr)[1:]).all()


@pytest.mark.parametrize(
    "wrong, why",
    [({"k": 0}, "k must be at least 1"), ({"known": ("tset",)}, "tset.*train, valid, test")],
)
def test_what_recommend_refuses(wrong, why):
    with pytest.raises(ValueError, match=why):
        runs.recommend(outcome_of(), **wrong)


@pytest.mark.parametrize("users", [[-1], [20], [3, -2], [1.5], [True, False]])
def test_users_that_are_none_are_refused(users):
    with pytest.raises(
        ValueError, match=r"users=.*expected indices from 0 to 19, or own ids as text"
    ):
        runs.recommend(outcome_of(), users=users)


def test_users_are_asked_for_by_index_or_own_id():
    data = own_ids(small())
    outcome, some = outcome_of("sl", data), [7, 3]
    found = runs.recommend(outcome, users=some)
    named = runs.recommend(outcome, users=[str(data.user_ids[user]) for user in some])
    assert_frame_equal(found, named)
    assert [*dict.fromkeys(found["user"])] == [data.user_ids[user] for user in some]
    with pytest.raises(
        ValueError, match=r"users \['nobody'\] are not in small: expected its own ids"
    ):
        runs.recommend(outcome, users=["nobody", str(data.user_ids[3])])
    assert not len(runs.recommend(outcome, users=[]))


def test_many_users_are_scored_in_parts(monkeypatch):
    outcome = outcome_of()
    whole = runs.recommend(outcome, k=7)
    monkeypatch.setattr(runs, "TILE", 100)
    assert_frame_equal(runs.recommend(outcome, k=7), whole)


@pytest.mark.parametrize("loss", ["sl", "bpr"])
def test_export_reads_back_under_ones_own_ids(loss, tmp_path):
    data = own_ids(small())
    outcome = outcome_of(loss, data)
    written = runs.export(outcome, tmp_path / "new" / "folder", k=4)
    assert {path.parent for path in written.values()} == {tmp_path / "new" / "folder"}
    options = {"dtype": {"user": str, "item": str}, "keep_default_na": False}
    table = pd.read_csv(written["recommendations"], **options)
    assert_frame_equal(table, runs.recommend(outcome, k=4), check_dtype=False)
    with np.load(written["embeddings"], allow_pickle=False) as stored:
        vectors = dict(stored)
    assert vectors["user_ids"].tolist() == data.user_ids.tolist()
    assert vectors["item_ids"].tolist() == data.item_ids.tolist()
    user, item = (
        {label: vector for label, vector in zip(vectors[f"{k}_ids"], vectors[f"{k}s"], strict=True)}
        for k in ("user", "item")
    )
    scores = [user[row.user] @ item[row.item] for row in table.itertuples()]
    np.testing.assert_allclose(scores, table["score"], atol=1e-5)
    assert vectors["users"].dtype == vectors["items"].dtype == np.float32


def test_export_numbers_those_who_came_without_ids(tmp_path):
    written = runs.export(outcome_of(), tmp_path, k=2)
    with np.load(written["embeddings"]) as stored:
        assert stored["user_ids"].tolist() == list(range(20))
    assert pd.read_csv(written["recommendations"])["user"].unique().tolist() == list(range(1, 20))


def test_negative_scores_are_scores_of_negatives():
    outcome = outcome_of()
    found = runs.negative_scores(outcome, negatives=50, users=4)
    assert found.shape == (4, 50)
    known = np.arange(1, 20)
    for row, user in zip(found, known[[0, 6, 12, 18]], strict=True):
        own = runs.negatives_of(outcome, user)["score"].to_numpy()
        assert np.isin(row.numpy(), own.astype(np.float64)).all()
    assert torch.equal(found, runs.negative_scores(outcome, negatives=50, users=4))
