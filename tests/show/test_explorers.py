"""Explorers: what the dials say is what is solved and drawn, and nothing is left behind."""

import gc
import html
import io
import math
import re
import threading
import time

import ipywidgets as widgets
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from scipy.optimize import minimize_scalar

from drrl_core import dro
from drrl_core.lab.run import configure, execute
from drrl_core.show import explorers, figures, scenes, style

SCORES = np.random.default_rng(0).normal(0, 0.3, 300)


@pytest.fixture
def live(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "a notebook")


@pytest.fixture
def batch(monkeypatch):
    for name in explorers.FRONT_ENDS:
        monkeypatch.delenv(name, raising=False)


def parts(explorer):
    """Buttons by name, controls by description, picture, readout, and what to copy."""
    buttons, dials, image, line, command = explorer.children
    named = {control.description: control for control in dials.children}
    return {button.description: button for button in buttons.children}, named, image, line, command


def said(line: widgets.HTML) -> dict[str, float]:
    """Name -> number, of a readout."""
    text = html.unescape(re.sub("<[^>]*>", "", line.value))
    matches = (re.match(r"(.+?) (-?\d\S*|inf|-inf)", item) for item in text.split("   "))
    return {m[1]: float(m[2].rstrip("%")) for m in matches}


def test_the_readout_is_the_solver_s_answer_at_the_dials(live):
    _, dials, image, line, _ = parts(explorers.worst_case({"a": SCORES}))
    seen = set()
    for order, radius in ((1.0, 0.5), (2.0, 1.0), (10.0, 2.0), (math.inf, 1.5)):
        dials["order γ"].value, dials["radius ρ"].value = order, radius
        worst = dro.worst_case(torch.from_numpy(SCORES), order=order, radius=radius)
        found = said(line)
        assert found["value"] == pytest.approx(float(worst.value), rel=1e-3, abs=1e-4)
        assert found["k₁"] == pytest.approx(float(worst.k1), rel=1e-3)
        assert f"truncated {float(worst.truncated):.1%}" in line.value
        assert found["c"] == pytest.approx(dro.weight_from_radius(radius, order), rel=1e-3)
        seen.add(image.value)
    assert len(seen) == 4


def test_a_margin_moved_by_hand_opens_a_gap_of_the_size_the_dual_says(live):
    _, dials, _, line, _ = parts(explorers.worst_case({"a": SCORES}, order=2.0, radius=1.0))
    assert "duality gap" not in line.value
    dials["move β by"].value = 0.2
    f = torch.from_numpy(SCORES)
    worst = dro.worst_case(f, order=2, radius=1.0)
    bound = dro.dual_objective(f, float(worst.dual) + 0.2, order=2, radius=1.0)
    gap = float(bound - worst.value)
    assert gap > 1e-3 and said(line)["duality gap"] == pytest.approx(gap, rel=1e-3)


def test_presets_turn_the_order_and_reset_takes_all_back(live):
    explorer = explorers.worst_case({"a": SCORES}, order=1.5, radius=0.75)
    buttons, dials, image, _, command = parts(explorer)
    first = image.value
    for name, order in (("SL", 1), ("DrRL", 2), ("CCL", math.inf)):
        buttons[name].click()
        assert dials["order γ"].value == order and dials["radius ρ"].value == 0.75
    dials["radius ρ"].value = 2.0
    assert "-p order inf -p radius 2" in command.value
    buttons["reset"].click()
    assert dials["order γ"].value == 1.5 and dials["radius ρ"].value == 0.75
    assert "-p order 1.5 -p radius 0.75" in command.value
    pixels = [
        np.asarray(Image.open(io.BytesIO(png)).convert("L"), int) for png in (first, image.value)
    ]
    assert np.abs(pixels[0] - pixels[1]).mean() < 4  # an axis may be longer than at first


def test_what_cannot_be_solved_is_said_in_place_and_the_picture_stays(live):
    _, dials, image, line, _ = parts(explorers.worst_case({"a": SCORES}))
    dials[""].value = "temperature"
    kept = image.value
    dials["order γ"].value = math.inf
    assert "order must be finite with a temperature" in line.value and image.value == kept
    dials["order γ"].value = 2.0
    assert "value" in line.value and "must be" not in line.value


def test_the_penalty_s_radius_is_read_off_its_weights(live):
    explorer = explorers.worst_case({"a": SCORES}, temperature=0.3, hold="temperature")
    _, dials, _, line, _ = parts(explorer)
    dials["order γ"].value = 1.0
    f = torch.from_numpy(SCORES)
    assert said(line)["ρ"] == pytest.approx(float(dro.radius_of_temperature(f, 0.3)), rel=1e-3)


def test_masked_and_few_and_equal_scores_have_a_picture(batch):
    rows = {"masked": np.array([0.1, -np.inf, 0.4]), "equal": np.zeros(5), "one": np.ones(1)}
    for name, row in rows.items():
        shown = explorers.worst_case({name: row}, radius=0.2)
        assert shown.data.startswith(b"\x89PNG")


@pytest.mark.parametrize("order", [1.0, 1.7, math.inf])
@pytest.mark.parametrize("radius", [0.1, 0.7])
def test_balls_on_the_simplex_are_drawn_where_the_divergence_is_the_radius(live, order, radius):
    drawn = {}

    def spy(self, **values):
        drawn.update(values)
        return b""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes.Scene, "png", spy)
        explorers.simplex(order=order, radius=radius, angle=40.0)
    for one, rim, star in drawn["balls"]:
        ratio = torch.from_numpy(3 * rim)
        divergence = dro.radius_of_weights(ratio / ratio.mean(-1, keepdim=True), one).numpy()
        assert (divergence <= radius + 1e-9).all() and np.allclose(rim.sum(1), 1)
        inside = (rim > 1e-9).all(1)
        assert np.allclose(divergence[inside], radius, atol=1e-8)
        assert (rim @ drawn["scores"] <= star @ drawn["scores"] + 1e-12).all()
    assert [one for one, *_ in drawn["balls"]] == [1, order, math.inf]


def test_the_atlas_moves_its_clouds_and_leaves_out_users_without_a_radius(live):
    early = pd.DataFrame({"order": 1.0, "radius": [0.2, 0.4, np.nan]})
    late = early.assign(radius=[1.0, 2.0, 3.0])
    _, dials, image, line, _ = parts(explorers.atlas(SCORES, {"sl": {1: early, 5: late}}))
    assert said(line)["SL: median ρ"] == pytest.approx(0.3)
    first = image.value
    dials["epoch"].value = 5
    assert said(line)["SL: median ρ"] == pytest.approx(2.0) and image.value != first


VIEW = pd.DataFrame({"score": SCORES, "false_negative": SCORES + np.arange(300) % 7 / 10 > 0.6})


@pytest.mark.parametrize("order", [1.0, 2.0, math.inf])
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.4])
def test_false_negatives_get_of_the_weight_what_the_solver_gives_them(live, noise, order):
    _, dials, image, line, command = parts(explorers.false_negatives({"a": VIEW}))
    first = image.value
    dials["noise"].value, dials["order γ"].value, dials["radius ρ"].value = noise, order, 0.75
    few, false = round(300 * noise), VIEW["false_negative"].to_numpy()
    assert 5 < false.sum() < 60
    row = []  # evenly from the sorted scores of each kind
    for part, size in ((SCORES[~false], 300 - few), (SCORES[false], few)):
        row += [sorted(part)[int((k + 0.5) * len(part) / size)] for k in range(size)]
    worst = dro.worst_case(torch.tensor(row), order=order, radius=0.75)
    share = float(worst.weights[300 - few :].sum()) / 300
    assert said(line)["their weight"] == pytest.approx(100 * share, abs=0.051)
    assert said(line)["k₁"] == pytest.approx(float(worst.k1), rel=1e-3)
    assert f"truncated {float(worst.truncated):.1%}" in line.value
    assert said(line)["their weight"] <= said(line)["at most"] + 0.1
    assert ("k₂" in line.value) == (noise > 0)
    if noise:
        assert said(line)["k₂"] == pytest.approx(share * 300 / few, rel=1e-3)
    assert image.value != first and f"-p noise {noise:g} -p order {order:g}" in command.value


def test_at_the_share_that_there_is_the_scores_are_the_user_s_own(live):
    share = VIEW["false_negative"].mean()
    _, _, _, line, _ = parts(explorers.false_negatives({"a": VIEW}, noise=share, radius=0.5))
    w = dro.worst_case(torch.from_numpy(SCORES), order=2, radius=0.5).weights.numpy()
    assert said(line)["k₂"] == pytest.approx(w[VIEW["false_negative"]].mean(), rel=1e-3)


def test_false_negatives_stand_still_in_batch_and_none_are_refused(batch):
    assert explorers.false_negatives({"a": VIEW}).data.startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="view 'b' needs negatives of both kinds"):
        explorers.false_negatives({"a": VIEW, "b": VIEW.assign(false_negative=False)})


@pytest.mark.parametrize("hold", dro.HOLDS)
def test_the_order_swept_is_the_solver_s_at_what_is_held(live, hold):
    _, dials, image, line, command = parts(explorers.gamma_sweep({"a": SCORES}))
    f, seen = torch.from_numpy(SCORES), {image.value}
    dials["held"].value = hold
    for order, radius in ((1.0, 0.5), (2.0, 0.5), (10.0, 1.2)):
        dials["order γ"].value, dials["ρ at order 2"].value = order, radius
        worst = dro.turn(f, order=order, radius=radius, hold=hold)
        rho = float(dro.radius_of_weights(worst.weights, order))
        found = said(line)
        assert found["k₁"] == pytest.approx(float(worst.k1), rel=1e-3)
        assert found["ρ"] == pytest.approx(rho, rel=1e-3)
        assert found["truncated"] == pytest.approx(100 * float(worst.truncated), abs=0.051)
        share = 100 * float(worst.effective_share)
        assert found["effective share"] == pytest.approx(share, abs=0.051)
        seen.add(image.value)
    assert len(seen) == 4
    assert f"-p order 10 -p radius 1.2 -p hold {hold}" in command.value


def test_the_curve_goes_through_the_dial_s_point_and_meets_the_reference_at_order_2(live):
    drawn = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes.Scene, "png", lambda self, **values: drawn.update(values) or b"")
        explorers.gamma_sweep({"a": SCORES}, order=4.0, radius=0.8, hold="eta")
    at = {float(order): place for place, order in enumerate(drawn["orders"])}
    for name in ("truncated", "k1", "effective_share"):
        held, reference = drawn["held_at"][name], drawn["reference_at"][name]
        assert drawn["now"][name] == held[at[4.0]] != reference[at[4.0]]
        assert held[at[2.0]] == pytest.approx(reference[at[2.0]])
    assert drawn["reference_at"]["k1"][-1] == pytest.approx(math.exp(0.8))


def test_recorded_accuracy_is_shown_where_it_was_run_and_said_to_be_missing_elsewhere(live):
    recorded = pd.DataFrame(
        {
            "order": [1.25, 2.0, math.inf, 2.0],
            "hold": ["radius", "radius", "radius", "weight"],
            "ndcg@20": [0.1, 0.125, 0.15, np.nan],
        }
    )
    explorer = explorers.gamma_sweep({"a": SCORES}, recorded=recorded)
    _, dials, image, line, _ = parts(explorer)
    assert said(line)["ndcg@20"] == 0.125
    dials["order γ"].value = math.inf
    assert said(line)["ndcg@20"] == 0.15
    dials["order γ"].value = 4.0
    assert "ndcg@20 not run" in line.value
    dials["order γ"].value, shown = 2.0, image.value
    dials["held"].value = "weight"
    assert "ndcg@20 not run" in line.value and image.value != shown


def test_the_sweep_stands_still_in_batch(batch):
    few = explorers.gamma_sweep({"few": np.array([0.1, 0.4, -np.inf, 0.2])}, radius=0.3)
    assert few.data.startswith(b"\x89PNG")


def naive_bound(f, beta: float, c: float) -> float:
    """At order 2."""
    return beta + c * math.sqrt(np.mean(np.maximum(np.asarray(f) - beta, 0) ** 2))


@pytest.fixture
def users():
    """Epoch -> scores of three users, one item of each masked, and their β."""
    rng = np.random.default_rng(1)
    scores = rng.normal([[-0.1], [0.0], [0.2]], 0.3, (3, 200))
    scores[[0, 1, 2], [5, 6, 7]] = -np.inf
    return {1: (scores / 2, np.full(3, 0.4)), 7: (scores, np.array([0.3, 0.1, -0.2]))}


def test_the_margins_readout_is_the_bound_and_its_lowest_point(live, users):
    explorer = explorers.margins(users, order=2, weight=1.8, users=["a", "b", "c"])
    _, dials, image, line, _ = parts(explorer)
    seen = set()
    for epoch, user, c in ((7, 0, 1.8), (1, 2, 1.8), (7, 1, 3.0)):
        dials["epoch"].value, dials["user"].value, dials["weight c"].value = epoch, user, c
        f, beta = users[epoch][0][user], users[epoch][1][user]
        f = f[f > -np.inf]
        best = minimize_scalar(lambda b, f=f, c=c: naive_bound(f, b, c), bracket=(-1, 1))
        found = said(line)
        assert found["learnt β"] == pytest.approx(beta)
        assert found["exact β"] == pytest.approx(best.x, abs=1e-4)
        assert found["worst case"] == pytest.approx(best.fun, rel=1e-3)
        assert found["gap"] == pytest.approx(naive_bound(f, beta, c) - best.fun, rel=1e-3)
        seen.add(image.value)
    assert len(seen) == 3


def test_the_margins_of_all_users_and_the_best_one_for_all(live, users):
    _, dials, _, line, _ = parts(explorers.margins(users, order=2, weight=1.8))
    scores, beta = users[7]
    rows = [row[row > -np.inf] for row in scores]
    least = [
        minimize_scalar(lambda b, f=f: naive_bound(f, b, 1.8), bracket=(-1, 1)).fun for f in rows
    ]
    gap = np.mean([naive_bound(f, b, 1.8) for f, b in zip(rows, beta, strict=True)]) - np.mean(
        least
    )
    grid = np.linspace(-1, 1, 2001)
    one = min(np.mean([naive_bound(f, b, 1.8) for f in rows]) for b in grid) - np.mean(least)
    found = said(line)
    assert found["mean gap"] == pytest.approx(gap, rel=1e-3)
    assert found["at one β for all"] == pytest.approx(one, rel=1e-2) and one > 1e-3
    dials["weight c"].value = 3.0  # the users stay as they were trained
    assert said(line)["mean gap"] == found["mean gap"]


def test_the_exact_margin_of_a_row_is_another_than_that_of_all(live, users):
    _, dials, image, line, _ = parts(explorers.margins(users, order=2, weight=1.8, negatives=8))
    whole, found, first = said(line)["exact β"], set(), image.value
    for row in (1, 2, 3):
        dials["solved on"].value = row
        found.add(said(line)["exact β"])
    assert len(found | {whole}) == 4 and image.value != first


def test_at_weight_one_there_is_no_exact_margin_and_the_worst_case_is_the_mean(live, users):
    buttons, dials, _, line, _ = parts(explorers.margins(users, order=2, weight=1.8))
    buttons["c = 1"].click()
    f = users[7][0][0]
    assert said(line)["exact β"] == -math.inf
    assert said(line)["worst case"] == pytest.approx(f[f > -np.inf].mean(), rel=1e-3)
    buttons["reset"].click()
    assert dials["weight c"].value == 1.8 and said(line)["exact β"] > -1


def test_a_run_at_weight_one_has_margins_to_look_at(batch, users):
    assert explorers.margins(users, order=2, weight=1.0).data.startswith(b"\x89PNG")


def train_with(**settings):
    run = configure("synthetic", "sl", config={"dim": 4, "negatives": 4} | settings)
    return lambda on_epoch: execute(run, on_epoch=on_epoch, progress=False)


@pytest.fixture
def displayed(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    return shown


def test_a_stop_from_another_thread_is_heard_and_the_best_model_kept(live, displayed):
    train, heard = train_with(epochs=5000, evaluate_every=1, patience=5000, lr=0.05), []

    def press():
        while not displayed or displayed[0].children[1].value == first:
            time.sleep(0.01)
        button = displayed[0].children[0]
        button.observe(lambda change: heard.append(change["new"]), names="description")
        button.click()

    first = None

    def and_press(on_epoch):
        nonlocal first
        first = displayed[0].children[1].value  # the picture before the first epoch
        threading.Thread(target=press, daemon=True).start()
        return train(on_epoch=on_epoch)

    outcome = explorers.monitor(and_press)
    button, image, line = displayed[0].children
    history = outcome.fit.history
    assert heard == ["stops after this epoch", button.description] and button.disabled
    assert len(history) < 5000 and outcome.record["finished"] is None
    assert button.description == f"stopped after {len(history)} epochs" and not line.value
    assert outcome.fit.best_epoch <= len(history)
    assert outcome.fit.valid["ndcg@20"].mean() == pytest.approx(history["ndcg@20"].max(), abs=1e-4)
    assert image.value == style.png(figures.training_history(history, title="Training"))


def test_what_ends_a_training_is_said_in_place_and_raised(live, displayed):
    def fails(on_epoch):
        on_epoch({"epoch": 1, "loss": 0.5})
        raise ArithmeticError("the loss is nan, of <SL>")

    with pytest.raises(ArithmeticError):
        explorers.monitor(fails)
    button, _, line = displayed[0].children
    assert "the loss is nan, of &lt;SL&gt;" in line.value and button.disabled


def test_a_picture_that_fails_does_not_end_the_training(live, displayed, monkeypatch):
    def broken(history, title):
        raise OSError("no font")

    monkeypatch.setattr(figures, "training_history", broken)
    outcome = explorers.monitor(train_with(epochs=2))
    assert len(outcome.fit.history) == 2 and "no font" in displayed[0].children[2].value


def test_in_batch_it_trains_and_leaves_the_still_picture(batch, displayed):
    outcome = explorers.monitor(train_with(epochs=2, evaluate_every=1), title="Two epochs")
    assert outcome.record["finished"] and len(displayed) == 1
    picture = figures.training_history(outcome.fit.history, title="Two epochs")
    assert displayed[0].data == style.png(picture)
    best = picture.axes[1].get_title("left")
    assert best.startswith(f"best so far {outcome.fit.history['ndcg@20'].max():.4f}")


def test_the_quick_picture_is_the_full_one(batch):
    scene = scenes.worst_case_scene()
    worst = dro.worst_case(torch.from_numpy(np.sort(SCORES)), order=2, radius=1)
    moved = {"scores": np.sort(SCORES), "weights": worst.weights.numpy(), "order": 2, "mark": 0.1}
    scene.png(**moved | {"order": 5, "title_text": "something else"})
    quick = Image.open(io.BytesIO(scene.png(**moved))).convert("L")
    full = Image.open(io.BytesIO(style.png(scene.move(**moved), dpi=scene.figure.dpi))).convert("L")
    gap = np.abs(np.asarray(quick, int) - np.asarray(full, int))
    assert quick.size == full.size and (gap > 60).mean() < 0.01


@pytest.mark.slow
def test_moves_leave_no_figure_behind(live):
    _, dials, image, _, _ = parts(explorers.worst_case({"a": SCORES[:50]}))
    gc.collect()
    before = sum(type(thing) is Figure for thing in gc.get_objects())
    for step in range(200):  # a thousand: tests/benchmarks/bench_explorers.py
        dials["radius ρ"].value = 0.05 * (step % 60)
    gc.collect()
    assert sum(type(thing) is Figure for thing in gc.get_objects()) <= before
    assert bytes(image.value).startswith(b"\x89PNG")


def test_orders_lie_evenly_between_the_two_losses():
    conj = [1 / dro.order_conj(order) for order in explorers.ORDERS]
    assert np.allclose(np.diff(conj), 1 / 40) and conj[0] == 0 and conj[-1] == 1
    assert explorers.order_dial(1.2345).value == 1.2345
