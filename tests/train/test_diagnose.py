"""Whom a trained loss listens to, against naive loops."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from samples import SMALL, outcome_of, same_learnt, small
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_array

from drrl_core import dro, losses
from drrl_core.datasets import Interactions
from drrl_core.lab.run import Outcome, configure, execute
from drrl_core.train import diagnose

pytestmark = pytest.mark.usefixtures("store")


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
        found = diagnose.false_negatives(data, user)
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


def naive_view(outcome: Outcome, user: int) -> dict[int, tuple[float, float, bool]]:
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
        view, expected = diagnose.negatives_of(outcome, user), naive_view(outcome, user)
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
        view = diagnose.negatives_of(outcome, 2)
        total = view["weight"].sum()
        assert total == pytest.approx(len(view), rel=1e-4) or total == 0, name


def test_weights_are_those_of_the_model_in_evaluation_mode():
    outcome, modes = outcome_of(), []
    outcome.model.register_forward_pre_hook(lambda model, _: modes.append(model.training))
    diagnose.negatives_of(outcome, 2)
    assert modes == [False] and outcome.model.training


def test_a_user_without_train_pairs_listens_to_nobody():
    with pytest.raises(ValueError, match="user 0 has no train pair"):
        diagnose.negatives_of(outcome_of(), 0)


@pytest.mark.parametrize("truth", [True, False])
def test_attention_is_the_mean_over_users_of_naive_loops(truth):
    outcome = outcome_of("ccl", small(truth=truth), margin=0.1)
    expected = []
    for user in range(2, 20):
        view = naive_view(outcome, user).values()
        false = [w for _, w, f in view if f]
        weights = [w for _, w, _ in view]
        expected.append([max(weights), sum(false) / len(false), weights.count(0) / len(weights)])
    found = diagnose.attention(outcome)
    assert list(found) == ["k1", "k2", "truncated"]
    assert list(found.values()) == pytest.approx(np.mean(expected, axis=0).tolist(), rel=1e-5)
    assert 0 < found["truncated"] < 1


def test_attention_counts_the_users_whose_negatives_are_all_truncated():
    outcome = outcome_of("ccl")
    tops = sorted(diagnose.negatives_of(outcome, user)["score"].max() for user in range(2, 20))
    outcome.loss.hyper["margin"] = (tops[8] + tops[9]) / 2  # nine users on either side
    views = [diagnose.negatives_of(outcome, user) for user in range(2, 20)]
    alive = [view for view in views if view["weight"].any()]
    assert len(alive) == 9
    found = diagnose.attention(outcome)
    share = np.mean([(view["weight"] == 0).mean() for view in views])
    assert found["truncated"] == pytest.approx(share)
    assert found["k1"] == pytest.approx(np.mean([view["weight"].max() for view in alive]))
    k2 = np.mean([view["weight"][view["false_negative"]].mean() for view in alive])
    assert found["k2"] == pytest.approx(k2)


@pytest.mark.parametrize("users, expected", [(1, 1), (7, 7), (17, 17), (18, 18), (200, 18)])
def test_attention_asks_as_many_users_as_it_says(users, expected, monkeypatch):
    outcome, asked, original = outcome_of(), [], diagnose._listening
    monkeypatch.setattr(diagnose, "_listening", lambda *a: asked.extend(a[-1]) or original(*a))
    diagnose.attention(outcome, users=users)
    assert len(set(asked)) == len(asked) == expected
    assert set(asked) <= set(range(2, 20)) and np.diff(asked, prepend=2).max() <= 18 / expected + 1


def test_attention_of_nobody_is_nan():
    none = csr_array((20, 30))
    outcome = outcome_of(data=replace(small(truth=False), valid=none, test=none))
    assert all(math.isnan(value) for value in diagnose.attention(outcome).values())


def test_typical_user():
    train = [[0] * 5] * 3 + [[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [1, 0, 0, 0, 0]]
    test = [[1] * 5] * 3 + [[0, 0, 0, 0, 1], [0, 0, 1, 0, 0], [1, 0, 0, 1, 1], [0, 1, 1, 1, 1]]
    data = Interactions("x", 7, 5, csr_array(train), csr_array((7, 5)), csr_array(test))
    # Of 1, 2, 2 and 4 train pairs the median is 2, and user 5 has more test pairs than user 4.
    assert diagnose.typical_user(data) == 5


@pytest.mark.parametrize("name", ["sl", "ccl"])
def test_by_user_is_naive_loops_user_by_user(name):
    outcome = outcome_of(name, **HYPER.get(name, {}))
    found = diagnose.by_user(outcome)
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
            "mass": naive_mass(outcome, view),
            "k2_test": sum(held) / len(held) if held else math.nan,
        }
        assert found.loc[user].to_dict() == pytest.approx(row, rel=1e-4, nan_ok=True)
    assert diagnose.by_user(outcome, users=5).index.tolist() == [1, 5, 10, 14, 19]
    assert (found["k2_test"] - found["k2"]).abs().max() > 0.01


def naive_mass(outcome: Outcome, view: dict[int, tuple[float, float, bool]]) -> float:
    """SL's is 1 by its formula; CCL's α times the share of the negatives above the margin."""
    if outcome.loss_name == "sl":
        return 1.0
    above = [score > outcome.loss.hyper["margin"] for score, *_ in view.values()]
    return 100 * sum(above) / len(above)


def test_the_mass_of_a_loss_is_what_it_is_pushed_by():
    for loss, more in (("sl", {}), ("drrl", {"dual": "exact", "radius": 0.5})):
        found = diagnose.by_user(outcome_of(loss, push=1.3, epochs=1, **more))
        np.testing.assert_allclose(found["mass"], 1.3, rtol=1e-4)


def test_by_user_of_the_deaf_says_that_all_is_truncated():
    found = diagnose.by_user(outcome_of("ccl", margin=0.999, epochs=1), users=3)
    assert (found["truncated"] == 1).all()
    assert (found["mass"] == 0).all()
    assert found.drop(columns=["truncated", "mass"]).isna().all(axis=None)


def test_turned_is_the_worst_case_of_each_user_s_own_scores():
    outcome = outcome_of("sl")
    found = diagnose.sweep_orders(outcome, [1, 3.0, math.inf], radius=0.4, users=3)
    assert found.index.names == ["order", "user"] and len(found) == 9
    view = diagnose.negatives_of(outcome, 10)
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
    at_c = diagnose.sweep_orders(outcome, [3.0], radius=0.4, hold="weight", users=3)
    assert at_c["radius"].to_numpy() == pytest.approx(0.3)


def test_turned_at_each_user_s_own_radius_starts_from_the_loss_s_own_weights():
    outcome = outcome_of("sl")
    own, found = diagnose.by_user(outcome), diagnose.sweep_orders(outcome, [1.0, 5.0], users=None)
    for name in ("k1", "k2", "k2_test", "effective_share"):
        np.testing.assert_allclose(found.loc[1.0, name], own[name], rtol=1e-4)
    radii = diagnose.radii_by_user(outcome, users=None)
    assert set(radii["order"]) == {1.0}
    radius = radii["radius"]
    np.testing.assert_allclose(found.loc[5.0, "radius"], radius, atol=1e-6)
    deaf = outcome_of("ccl", margin=0.999, epochs=1)
    assert diagnose.sweep_orders(deaf, [2.0], users=3).empty


def test_the_order_is_that_of_the_loss_s_entry(monkeypatch):
    for name, order in {"infonce": 1.0, "bsl": 1.0, "ccl": math.inf}.items():
        assert set(diagnose.radii_by_user(outcome_of(name), users=3)["order"]) == {order}
    drrl = outcome_of("drrl", order=3, weight=1.5)
    assert set(diagnose.radii_by_user(drrl, users=3)["order"]) == {3.0}
    psl = outcome_of("psl")
    known = ", ".join(name for name, line in losses.REGISTRY.items() if line.order is not None)
    assert {"sl", "infonce", "bsl", "ccl", "drrl"} < {*known.split(", ")}
    with pytest.raises(ValueError, match=f"no order: give a run of {known}$"):
        diagnose.radii_by_user(psl)
    entry = losses.REGISTRY["psl"]._replace(order=2.0)  # as of a loss of one's own
    monkeypatch.setitem(losses.REGISTRY, "psl", entry)
    assert set(diagnose.radii_by_user(psl, users=3)["order"]) == {2.0}


def test_margins_are_naive_minimisation_of_the_bound_user_by_user():
    outcome = outcome_of("drrl", order=2, weight=1.5, start=0.1, dual_lr=0.1)
    frame = diagnose.margins(outcome, users=5)
    assert frame.index.tolist() == [1, 5, 10, 14, 19] and frame.index.name == "user"
    scores = diagnose.scores_of(outcome, frame.index.to_numpy())
    for (user, row), own in zip(frame.iterrows(), scores, strict=True):
        f = diagnose.negatives_of(outcome, user)["score"].to_numpy()
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
    assert diagnose.margins(shared)["beta"].unique().tolist() == [shared.loss.beta.item()]
    exact = diagnose.margins(outcome_of("drrl", radius=0.5, dual="exact"))
    assert (exact["beta"] != exact["best"]).all()  # a row's is not that of all negatives
    assert (exact["gap"] >= 0).all() and exact["gap"].max() > 1e-6
    none = outcome_of("drrl", weight=1.0, start=0.0)
    frame, scores = diagnose.margins(none), diagnose.scores_of(none, np.arange(1, 20))
    assert (frame["best"] == -math.inf).all()
    f = scores[3][scores[3] > -math.inf]
    bound = frame["beta"][4] + math.sqrt(np.mean(np.maximum(f - frame["beta"][4], 0) ** 2))
    assert frame["gap"][4] == pytest.approx(bound - f.mean())


@pytest.mark.parametrize(
    "loss, settings", [("sl", {}), ("drrl", {"temperature": 0.3}), ("drrl", {"weight": 0.5})]
)
def test_margins_where_there_is_none(loss, settings):
    with pytest.raises(ValueError, match="weight"):
        diagnose.margins(outcome_of(loss, epochs=1, **settings))


@pytest.mark.parametrize("loss", losses.REGISTRY)
def test_users_are_heard_one_by_one_or_together(loss, monkeypatch):
    outcome = outcome_of(loss)
    together = diagnose.diagnostics(outcome.model, outcome.loss, outcome.data)
    monkeypatch.setattr(diagnose, "TILE", 1)  # a user at a time
    alone = diagnose.diagnostics(outcome.model, outcome.loss, outcome.data)
    assert list(alone) == list(diagnose.DIAGNOSTICS[: 7 if loss == "drrl" else 5])
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
                "mass": naive_mass_of_drrl(scores, beta),
                "beta": beta,
                "gap": bound - ball(scores, 2 * math.log(1.5)),
            }
        )
    found = diagnose.diagnostics(outcome.model, outcome.loss, outcome.data, users=3)
    expected = pd.DataFrame(rows).mean().to_dict()
    assert list(found) == list(expected) == list(diagnose.DIAGNOSTICS)
    assert list(found.values()) == pytest.approx(list(expected.values()), rel=2e-5, abs=1e-6)
    assert found["gap"] > 1e-3 and outcome.loss.beta[[2, 10, 19]].std() > 1e-4


def naive_mass_of_drrl(scores: list[float], beta: float) -> float:
    """c·mean(x₊)/sqrt(mean(x₊²)) at order 2 and c = 1.5: the slopes of Eq. 10 added up."""
    excess = [max(x - beta, 0) for x in scores]
    moment = math.sqrt(sum(x * x for x in excess) / len(excess))
    return 1.5 * sum(excess) / len(excess) / moment


def negatives(outcome: Outcome, user: int) -> tuple[list[bool], list[int]]:
    """Whether each negative is a false one, and which item it is."""
    train, false = sets_of(outcome.data, user)
    rest = [j for j in range(outcome.data.n_items) if j not in train]
    return [j in false for j in rest], rest


def naive_view_of_drrl(outcome: Outcome, user: int) -> list[tuple[float, float]]:
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
        ({"radius": 0.5, "prior": 1.0}, True),
        ({"order": 1, "radius": 0.5, "start": 0.3, "prior": -0.5}, True),
        ({"dual": "exact", "radius": 0.5, "prior": 1.0}, False),
    ],
)
def test_beta_and_gap_of_every_kind_of_drrl(settings, positive):
    outcome = outcome_of("drrl", **settings)
    found = diagnose.diagnostics(outcome.model, outcome.loss, outcome.data)
    assert math.isfinite(found["beta"])
    if positive is None:  # there is no ball
        assert math.isnan(found["gap"])
    else:
        assert (found["gap"] > 1e-4) if positive else (found["gap"] == 0)


def test_diagnostics_of_nobody_are_nan():
    none = csr_array((20, 30))
    outcome = outcome_of(data=replace(small(truth=False), valid=none, test=none))
    found = diagnose.diagnostics(outcome.model, outcome.loss, outcome.data)
    assert list(found) == list(diagnose.DIAGNOSTICS[:5])
    assert all(math.isnan(value) for value in found.values())


def test_diagnostics_stand_in_the_history_of_evaluated_epochs_and_change_nothing():
    run = configure("x", "drrl", config=SMALL | {"epochs": 5, "evaluate_every": 2})
    rows, options = [], {"data": small(), "device": "cpu", "progress": False}
    outcome = execute(run, diagnose=True, on_epoch=lambda row: rows.append(dict(row)), **options)
    history = outcome.fit.history
    assert [set(diagnose.DIAGNOSTICS) <= set(row) for row in rows] == [
        False,
        True,
        False,
        True,
        True,
    ]
    assert history["k1"].notna().tolist() == [False, True, False, True, True]
    last = diagnose.diagnostics(outcome.model, outcome.loss, outcome.data)
    best = history.set_index("epoch").loc[outcome.fit.best_epoch]
    assert {name: best[name] for name in diagnose.DIAGNOSTICS} == last
    plain = execute(run, **options)
    assert same_learnt(plain, outcome) and plain.record["test"] == outcome.record["test"]


def test_negative_scores_are_scores_of_negatives():
    outcome = outcome_of()
    found = diagnose.negative_scores(outcome, negatives=50, users=4)
    assert found.shape == (4, 50)
    known = np.arange(1, 20)
    for row, user in zip(found, known[[0, 6, 12, 18]], strict=True):
        own = diagnose.negatives_of(outcome, user)["score"].to_numpy()
        assert np.isin(row.numpy(), own.astype(np.float64)).all()
    assert torch.equal(found, diagnose.negative_scores(outcome, negatives=50, users=4))
