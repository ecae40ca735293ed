"""A run: names and ranges checked, the record complete, and who the trained loss listens to."""

import json
import math
import os
import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from drrl_core import backbones, datasets, losses, metrics, runs
from drrl_core.datasets import Interactions
from drrl_core.runs import configure, execute, parse_value
from drrl_core.trainer import DivergedError, TrainConfig

RECORD = [
    *["dataset", "data_hash", "backbone", "loss", "parameters", "seed", "best_epoch", "valid"],
    *["test", "seconds", "seconds_per_epoch", "device", "threads", "versions"],
]
SMALL = {"epochs": 2, "negatives": 5, "dim": 4, "lr": 0.05}


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

    monkeypatch.setitem(backbones.REGISTRY, "slow", Slow)
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
    outcome, asked, original = outcome_of(), [], runs.negatives_of
    monkeypatch.setattr(
        runs, "negatives_of", lambda outcome, user: asked.append(user) or original(outcome, user)
    )
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
