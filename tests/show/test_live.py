"""Explorers in the browser: their mathematics and readouts against `dro`, their dials by hand."""

import json
import math
import re
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize_scalar

from drrl_core import dro
from drrl_core.show import explorers, live

pytestmark = pytest.mark.browser
FIELDS = {  # of a `WorstCase`, and what the browser calls them
    **{name: name for name in ("weights", "value", "dual", "k1", "truncated")},
    "effective_share": "effectiveShare",
}
ORDERS = [1, 1.025, 1.1, 1.5, 2, 2.5, 3, 5, 10, 20, 40, math.inf]
SCORES = np.random.default_rng(0).normal(0, 0.3, 300)


def rows(rng: np.random.Generator, many: int):
    """Score vectors as people have them: Gaussian, heavy-tailed, probabilities, ties, uniform."""
    kinds = [
        lambda n: rng.normal(0, 0.3, n),
        lambda n: rng.standard_t(2, n),
        lambda n: rng.beta(0.3, 0.3, n),
        lambda n: rng.normal(0, 1, n).round(1),
        lambda n: rng.uniform(-1, 1, n),
        lambda n: np.full(n, 0.25),
    ]
    lengths, often = [2, 3, 7, 50, 300, 2000], [0.2, 0.2, 0.2, 0.2, 0.15, 0.05]
    for kind in range(many):
        yield np.sort(kinds[kind % len(kinds)](int(rng.choice(lengths, p=often))))[::-1]


@pytest.fixture(scope="module")
def page(chromium):
    """A page that has the solver's functions."""
    page = chromium.new_page()
    # numbers that JSON does not have travel as text
    page.add_script_tag(
        type="module",
        content=live.source("simplex").replace("export default ", "const shown = ")
        + """
        const plain = ({ weights, dual, ...rest }) =>
          ({ ...rest, weights: [...weights], dual: String(dual) });
        const each = (solve) => (cases) => cases.map(([f, order, ...how]) =>
          solve(Float64Array.from(f), Number(order), ...how));
        window.balls = each((...how) => plain(worstCase(...how)));
        window.penalties = each((...how) => plain(penalised(...how)));
        window.turns = each((...how) => plain(turned(...how)));
        window.bounds = each((f, order, dual, radius) => dualObjective(f, dual, order, radius));
        window.triangles = (cases) => cases.map(([angle, order, radius]) => {
          const scores = scoresAt(angle);
          return { scores, ...worstOfThree(scores, Number(order), radius) };
        });
        window.ready = true;""",
    )
    page.wait_for_function("window.ready")
    yield page
    page.close()


def text(order: float) -> str:
    return str(order).replace("inf", "Infinity")


def check(found: list[dict], worst: dro.WorstCase, f: np.ndarray) -> None:
    """Answers of the browser are `dro`'s, a row each."""
    shown = {key: np.array([one[key] for one in found]) for key in FIELDS.values()}
    unit = np.maximum(f[:, 0] - f[:, -1], 1e-9)
    for field, key in FIELDS.items():
        ours, theirs = getattr(worst, field).numpy(), shown[key].astype(float)
        if field == "weights":
            ours, theirs = (x / worst.k1.numpy()[:, None] for x in (ours, theirs))
        if field == "value":
            ours, theirs = ((x - f[:, 0]) / unit for x in (ours, theirs))
        if field == "dual":  # beyond the range of the sizes it is a convention
            inside = (unit > 1e-9) & (worst.effective_share.numpy() < 1 - 1e-12)
            inside &= worst.k1.numpy() < f.shape[1] * (1 - 1e-9) / (f == f[:, :1]).sum(-1)
            ours, theirs = (x[inside] / unit[inside] for x in (ours, theirs))
            np.testing.assert_allclose(theirs, ours, rtol=1e-6, atol=1e-6)
        else:
            np.testing.assert_allclose(theirs, ours, rtol=1e-8, atol=1e-8)


def groups(sizes: list[float], orders: list[float], many: int):
    """Many cases in batches of one length and order: order, scores, sizes."""
    rng = np.random.default_rng(0)
    cases = defaultdict(list)
    for f in rows(rng, many):
        cases[len(f), float(rng.choice(orders))].append((f, float(rng.choice(sizes))))
    for (_, order), group in cases.items():
        yield order, np.stack([f for f, _ in group]), np.array([size for _, size in group])


@pytest.mark.slow
def test_the_ball_is_that_of_dro_on_5000_cases(page):
    radii = [0, 1e-3, 0.05, 0.5, 1, 2, 4, 7]  # beyond log n for the short ones
    for order, f, size in groups(radii, ORDERS, 5000):
        given = [[row.tolist(), text(order), each] for row, each in zip(f, size, strict=True)]
        found = page.evaluate("balls", given)
        check(found, dro.worst_case(torch.tensor(f), order=order, radius=torch.tensor(size)), f)
        if order < math.inf:
            held = np.minimum(size, np.log(f.shape[1] / (f == f[:, :1]).sum(-1)))
            np.testing.assert_allclose([one["radius"] for one in found], held, atol=1e-9)


@pytest.mark.slow
def test_the_penalty_is_that_of_dro(page):
    for order, f, size in groups([0.02, 0.2, 2], ORDERS[:-1], 1000):
        given = [[row.tolist(), text(order), each] for row, each in zip(f, size, strict=True)]
        worst = dro.worst_case(torch.tensor(f), order=order, temperature=torch.tensor(size))
        check(page.evaluate("penalties", given), worst, f)


@pytest.mark.slow
@pytest.mark.parametrize("hold", dro.HOLDS)
def test_the_order_turns_as_in_dro_whatever_is_held(page, hold):
    for order, f, size in groups([0, 0.05, 0.5, 1, 2], ORDERS, 300):
        given = [[row.tolist(), text(order), each, hold] for row, each in zip(f, size, strict=True)]
        worst = dro.turn(torch.tensor(f), order=order, radius=torch.tensor(size), hold=hold)
        check(page.evaluate("turns", given), worst, f)


def test_the_bound_of_any_dual_value_is_that_of_dro(page):
    rng = np.random.default_rng(1)
    for order, f, size in groups([0, 0.5, 2], ORDERS, 300):
        dual = rng.uniform(0.01, 1, len(f)) if order == 1 else rng.normal(0, 1, len(f))
        given = [
            [row.tolist(), text(order), *pair]
            for row, *pair in zip(f, dual.tolist(), size.tolist(), strict=True)
        ]
        ours = dro.dual_objective(
            torch.tensor(f), torch.tensor(dual), order=order, radius=torch.tensor(size)
        )
        np.testing.assert_allclose(page.evaluate("bounds", given), ours.numpy(), rtol=1e-9)


@pytest.mark.parametrize("order", [1.0, 1.7, math.inf])
@pytest.mark.parametrize("radius", [0.1, 0.7])
def test_balls_on_the_triangle_are_drawn_where_the_divergence_is_the_radius(page, order, radius):
    angles = np.linspace(0, 2 * math.pi, 48)
    rim = page.evaluate("triangles", [[angle, text(order), radius] for angle in angles])
    for each in rim:
        worst = dro.worst_case(
            torch.tensor(each["scores"], dtype=torch.float64), order=order, radius=radius
        )
        np.testing.assert_allclose(each["weights"], worst.weights / 3, atol=1e-9)
        divergence = dro.radius_of_weights(
            3 * torch.tensor(each["weights"], dtype=torch.float64), order
        )
        assert divergence <= radius + 1e-9
        if min(each["weights"]) > 1e-9:
            assert float(divergence) == pytest.approx(radius, abs=1e-8)


class Shown:
    """An explorer in a page of its own: dials are typed into, readouts read."""

    def __init__(self, page):
        self.page = page
        self.root = page.locator("[data-explorer]")

    def type(self, label: str, words: str) -> None:
        box = self.root.get_by_label(f"{label}, typed")
        box.fill(words)
        box.press("Enter")

    def choose(self, label: str, value: str) -> None:
        self.root.get_by_label(label, exact=True).select_option(value)

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.page.evaluate("() => new Promise((f) => requestAnimationFrame(() => setTimeout(f)))")

    def says(self, name: str) -> str:
        self.settle()
        return self.root.locator(f"[data-readout={name}]").inner_text()

    def number(self, name: str) -> float:
        return float(re.match(r"-?[\d.]+", self.says(name))[0])


@pytest.fixture
def opened(chromium, tmp_path):
    """Opens explorers from a file each, offline; nothing else may be asked for, nothing raised."""
    contexts = []

    def open_(view, width=1366, height=768, address="", **options) -> Shown:
        path = tmp_path / f"{view.explorer}-{len(contexts)}.html"
        state = json.loads(json.dumps(view.state(), sort_keys=True))  # as a notebook keeps it
        element = live.element(view.explorer, **state)
        head = "<!doctype html><meta charset=utf-8><title>dial</title>"
        head += "<meta name=viewport content='width=device-width'>"
        path.write_text(f"{head}<meta name=color-scheme content='light dark'>{element}")
        context = chromium.new_context(
            viewport={"width": width, "height": height}, offline=True, **options
        )
        page, asked = context.new_page(), []
        page.on("request", lambda request: asked.append(request.url.split("#")[0]))
        page.on("pageerror", lambda error: asked.append(str(error)))
        contexts.append((context, asked, path.as_uri()))
        page.goto(path.as_uri() + address)
        page.locator("[data-explorer]").wait_for()
        return Shown(page)

    yield open_
    for context, asked, path in contexts:
        assert [*asked] == [path]
        context.close()


def near(shown: str, value: float) -> bool:
    """Whether three digits say the value."""
    return float(re.match(r"-?[\d.]+", shown)[0]) == pytest.approx(value, rel=6e-3, abs=6e-4)


def test_the_worst_case_is_read_out_as_dro_has_it(opened):
    view = opened(explorers.worst_case({"a": SCORES, "b": 2 * SCORES}))
    for name, order, radius in (("a", 1.0, 0.5), ("b", 2.0, 1.0), ("a", 10.0, 2.0)):
        view.choose("scores", name)
        view.type("order γ", str(order))
        view.type("radius ρ", str(radius))
        f = torch.tensor(SCORES * (1 + (name == "b")))
        worst = dro.worst_case(f, order=order, radius=radius)
        wanted = {"value": worst.value, "k1": worst.k1, "dual": worst.dual}
        wanted |= {"radius": radius, "weight": dro.weight_from_radius(radius, order)}
        for key, value in wanted.items():
            assert near(view.says(key), float(value)), key
        assert view.says("truncated") == f"{100 * float(worst.truncated):.1f} %"
        assert view.says("effectiveShare") == f"{100 * float(worst.effective_share):.1f} %"
    assert dro.eta_from_radius(2.0, 10.0) > 1e5 and view.says("eta") == "over 100,000"


def test_a_margin_moved_by_hand_opens_a_gap_of_the_size_the_dual_says(opened):
    view = opened(explorers.worst_case({"a": SCORES}))
    gap = view.root.locator("[data-readout=gap]")
    assert not gap.is_visible()
    view.type("move β by", "0.2")
    f = torch.tensor(SCORES)
    worst = dro.worst_case(f, order=2, radius=1.0)
    bound = dro.dual_objective(f, float(worst.dual) + 0.2, order=2, radius=1.0)
    assert near(view.says("gap"), float(bound - worst.value)) and gap.is_visible()


def test_what_is_not_held_is_dead_and_the_penalty_s_radius_is_read_off_its_weights(opened):
    view = opened(explorers.worst_case({"a": SCORES}, temperature=0.3, hold="temperature"))
    dials = {
        name: view.root.get_by_label(name, exact=True) for name in ("radius ρ", "temperature λ")
    }
    assert dials["radius ρ"].is_disabled() and dials["temperature λ"].is_enabled()
    view.type("order γ", "1")
    radius = float(dro.radius_of_temperature(torch.tensor(SCORES), 0.3))
    assert near(view.says("radius"), radius)
    view.type("order γ", "∞")  # the penalty's limit is the mean
    assert near(view.says("value"), SCORES.mean()) and view.says("dual") == "none"
    view.choose("held", "radius")
    assert dials["radius ρ"].is_enabled() and dials["temperature λ"].is_disabled()


def test_what_is_typed_is_used_or_refused_aloud(opened):
    view = opened(explorers.worst_case({"a": SCORES}))
    box = view.root.get_by_label("radius ρ, typed")
    alert = view.root.get_by_role("alert")
    view.type("radius ρ", "1,5")
    worst = dro.worst_case(torch.tensor(SCORES), order=2, radius=1.5)
    assert near(view.says("value"), float(worst.value)) and box.input_value() == "1.5"
    before = view.says("value")
    for wrong in ("99", "-1", "two", ""):
        view.type("radius ρ", wrong)
        assert f"“{wrong}” is not a number from 0 to 5.75 nats. It stays at 1.5." in (
            alert.inner_text()
        )
        assert box.input_value() == "1.5" and view.says("value") == before
    view.type("order γ", "0.5")
    assert "“0.5” is not a number from 1 to ∞" in alert.inner_text()
    view.type("order γ", "inf")
    assert alert.inner_text() == "" and near(view.says("k1"), math.exp(1.5))


def test_presets_turn_the_order_and_reset_takes_all_back(opened):
    view = opened(explorers.worst_case({"a": SCORES}, order=1.5, radius=0.75))
    box = view.root.get_by_label("order γ, typed")
    for name, order in (("SL", "1"), ("DrRL", "2"), ("CCL", "∞")):
        view.root.get_by_role("button", name=name, exact=True).click()
        view.settle()
        assert box.input_value() == order
    view.type("radius ρ", "2")
    view.root.get_by_role("button", name="reset").click()
    assert near(view.says("radius"), 0.75) and box.input_value() == "1.5"


def test_a_link_and_the_papermill_line_bring_back_the_whole_view(opened):
    sources = {"a": SCORES, "user 3, his own": 2 * SCORES}
    start = explorers.worst_case(sources, view="")
    view = opened(start)
    view.type("order γ", "inf")
    view.type("radius ρ", "0.85")
    view.choose("scores", "user 3, his own")
    state = "worst_case.order=inf&worst_case.radius=0.85&worst_case.temperature=0.2&"
    state += "worst_case.shift=0&worst_case.hold=radius&worst_case.scores=user+3%2C+his+own"
    line = f"-p view '{state}'"
    assert view.says("value") and view.root.get_by_text(line).is_visible()
    address = view.page.url.split("#")[1]
    again = opened(start, address=f"#{address}")
    for name in ("value", "k1", "radius"):
        assert again.says(name) == view.says(name)
    assert again.root.get_by_text(line).is_visible()
    taken = opened(explorers.worst_case(sources, view=state))  # as papermill's kernel has it
    assert taken.says("value") == view.says("value") and taken.says("k1") == view.says("k1")
    wrong = opened(start, address="#worst_case.radius=much&worst_case.nothing=3&other.order=5")
    assert near(wrong.says("radius"), 1)


def test_the_dials_turn_by_keyboard_and_by_touch_and_say_where_they_are(opened):
    view = opened(explorers.worst_case({"a": SCORES}), has_touch=True)
    order = view.root.get_by_role("slider", name="order γ")
    order.focus()
    view.page.keyboard.press("End")
    assert near(view.says("k1"), math.e)
    assert order.get_attribute("aria-valuetext") == "∞ (CCL)"
    view.page.keyboard.press("ArrowLeft")
    view.settle()
    assert order.get_attribute("aria-valuetext") == "40"
    radius = view.root.get_by_role("slider", name="radius ρ")
    box = radius.bounding_box()
    view.page.touchscreen.tap(box["x"] + 0.5 * box["width"], box["y"] + box["height"] / 2)
    assert view.number("radius") == pytest.approx(2.9, abs=0.2)
    assert box["height"] >= 24
    for control in view.root.locator("input, select, button").all():
        name = control.get_attribute("aria-label") or control.inner_text()
        label = view.root.locator(f"label[for='{control.get_attribute('id')}']")
        assert name or label.inner_text()


def test_masked_and_few_and_equal_scores_have_a_picture(opened):
    sources = {"masked": [0.1, -np.inf, 0.4], "equal": np.zeros(5), "one": np.ones(1)}
    view = opened(explorers.worst_case(sources, radius=0.2))
    for name in sources:
        view.choose("scores", name)
        for order in ("1", "2", "inf"):
            view.type("order γ", order)
            view.says("value")
            assert not re.search(r"NaN|Infinity|undefined|e\+", view.root.inner_text())


VIEW = pd.DataFrame({"score": SCORES, "false_negative": SCORES + np.arange(300) % 7 / 10 > 0.6})


@pytest.mark.parametrize("order", [1.0, 2.0, math.inf])
def test_false_negatives_get_of_the_weight_what_the_solver_gives_them(opened, order):
    view, false = opened(explorers.false_negatives({"a": VIEW})), VIEW["false_negative"].to_numpy()
    assert 5 < false.sum() < 60
    view.type("order γ", str(order))
    view.type("radius ρ", "0.75")
    for noise in (0.0, 0.05, 0.4):
        view.type("share false", str(noise))
        few, row = round(300 * noise), []  # evenly from the sorted scores of each kind
        for part, size in ((SCORES[~false], 300 - few), (SCORES[false], few)):
            row += [sorted(part)[int((k + 0.5) * len(part) / size)] for k in range(size)]
        worst = dro.worst_case(torch.tensor(row), order=order, radius=0.75)
        share = float(worst.weights[300 - few :].sum()) / 300
        assert view.number("heard") == pytest.approx(100 * share, abs=0.051)
        assert near(view.says("k1"), float(worst.k1))
        assert view.number("heard") <= view.number("most") + 0.1
        assert near(view.says("k2"), share / noise) if noise else view.says("k2") == "none"
        assert view.number("breakdown") == pytest.approx(100 * math.exp(-0.75), abs=0.051)


def test_at_the_share_that_there_is_the_scores_are_the_user_s_own(opened):
    share = VIEW["false_negative"].mean()
    view = opened(explorers.false_negatives({"a": VIEW}, noise=share, radius=0.5))
    w = dro.worst_case(torch.from_numpy(SCORES), order=2, radius=0.5).weights.numpy()
    assert near(view.says("k2"), w[VIEW["false_negative"]].mean())


@pytest.mark.parametrize("hold", dro.HOLDS)
def test_the_order_swept_is_the_solver_s_at_what_is_held(opened, hold):
    recorded = {"order": [1.25, 2.0, math.inf], "hold": [hold, "radius", hold]}
    recorded = pd.DataFrame(recorded | {"ndcg@20": [0.1, 0.125, np.nan]})
    view = opened(explorers.gamma_sweep({"a": SCORES}, recorded=recorded))
    assert view.says("accuracy") == "0.1250"
    view.choose("held", hold)
    for order, radius in ((1.25, 0.5), (10.0, 1.2), (math.inf, 1.2)):
        view.type("order γ", str(order))
        view.type("ρ at order 2", str(radius))
        worst = dro.turn(torch.tensor(SCORES), order=order, radius=radius, hold=hold)
        rho = float(dro.radius_of_weights(worst.weights, order))
        assert near(view.says("k1"), float(worst.k1)) and near(view.says("radius"), rho)
        assert view.number("truncated") == pytest.approx(100 * float(worst.truncated), abs=0.051)
        assert view.says("accuracy") == ("0.1000" if order == 1.25 else "not run")


def test_the_atlas_moves_its_clouds_and_leaves_out_users_without_a_radius(opened):
    early = pd.DataFrame({"order": 1.0, "radius": [0.2, 0.4, np.nan]})
    late = early.assign(radius=[1.0, 2.0, 3.0])
    view = opened(explorers.atlas(SCORES, {"sl": {1: early, 5: late}}))
    assert view.says("sl") == "0.400 nats"
    view.type("epoch", "5")
    assert view.says("sl") == "2.00 nats"
    view.type("epoch", "3")
    assert "is not one of 1, 5" in view.root.get_by_role("alert").inner_text()
    worst = dro.worst_case(torch.tensor(SCORES), order=2, radius=1.0)
    assert near(view.says("k1"), float(worst.k1))


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


def test_the_margins_are_the_bound_and_its_lowest_point(opened, users):
    view = opened(explorers.margins(users, order=2, weight=1.8, users=["a", "b", "c"]))
    for epoch, user, c in ((7, 0, 1.8), (1, 2, 1.8), (7, 1, 3.0)):
        for label, value in (("epoch", epoch), ("user", user), ("weight c", c)):
            view.type(label, str(value))
        f, beta = users[epoch][0][user], users[epoch][1][user]
        f = f[f > -np.inf]
        best = minimize_scalar(lambda b, f=f, c=c: naive_bound(f, b, c), bracket=(-1, 1))
        wanted = {"learnt": beta, "exact": best.x, "worst": best.fun}
        wanted["gap"] = naive_bound(f, beta, c) - best.fun
        for key, value in wanted.items():
            assert near(view.says(key), value), key
    whole = view.says("exact")
    view.type("solved on", "1")  # of a row it is another
    assert view.says("exact") != whole
    view.type("solved on", "0")
    view.root.get_by_role("button", name="c = 1").click()
    assert view.says("exact") == "none" and near(view.says("worst"), f.mean())


def test_the_margins_of_all_users_and_the_best_one_for_all(opened, users):
    view = opened(explorers.margins(users, order=2, weight=1.8))
    scores, beta = users[7]
    rows = [row[row > -np.inf] for row in scores]
    best = [minimize_scalar(lambda b, f=f: naive_bound(f, b, 1.8), bracket=(-1, 1)) for f in rows]
    least = np.mean([each.fun for each in best])
    gap = np.mean([naive_bound(f, b, 1.8) for f, b in zip(rows, beta, strict=True)]) - least
    one = min(np.mean([naive_bound(f, b, 1.8) for f in rows]) for b in np.linspace(-1, 1, 2001))
    assert near(view.says("mean"), gap) and near(view.says("shared"), one - least)


CURVES = {
    loss: pd.DataFrame(
        {
            "mean_popularity": [20.0 + more, 40.0 + more, 90.0],
            "coverage": [1.0, 0.8, 0.2],
            "test_ndcg@20": [0.09, 0.1 + more / 1000, 0.04],
            "valid_ndcg@20": [0.07, 0.08, 0.03],
        },
        index=[-0.4, 0.4, 1.2],
    )
    for loss, more in (("sl", 0.0), ("ccl", 5.0))
}


def test_b_turns_all_losses_along_their_curves(opened):
    view = opened(explorers.popularity({"a set": CURVES, "another": {"ccl": CURVES["ccl"]}}))
    assert view.says("sl") == "0.0950 · 30 · 90 %"  # b = 0, between two
    view.type("b, how much popularity is put back", "0.4")
    assert view.says("sl") == "0.1000 · 40 · 80 %"
    assert view.says("ccl") == "0.1050 · 45 · 80 %"
    assert "at b = 0.4: the losses lie 5 % apart" in view.root.inner_text()
    view.choose("data set", "another")
    assert view.says("ccl").startswith("0.1050") and "apart" not in view.root.inner_text()
    view.type("b, how much popularity is put back", "3")
    assert "is not a number from -0.4 to 1.2" in view.root.get_by_role("alert").inner_text()


def everything() -> dict[str, explorers.Explorer]:
    rng = np.random.default_rng(0)
    cloud = pd.DataFrame({"order": math.inf, "radius": rng.gamma(9, 0.2, 50)})
    learnt = {each: (rng.normal(0, 0.1 * each, (5, 80)), rng.normal(0, 0.1, 5)) for each in (1, 3)}
    recorded = pd.DataFrame({"order": [2.0], "hold": ["radius"], "ndcg@20": [0.1]})
    return {
        "worst_case": explorers.worst_case({"a": SCORES}),
        "simplex": explorers.simplex(),
        "atlas": explorers.atlas(SCORES, {"sl": {1: cloud, 3: cloud}, "ccl": {3: cloud}}),
        "false_negatives": explorers.false_negatives({"a": VIEW}),
        "gamma_sweep": explorers.gamma_sweep({"a": SCORES}, recorded=recorded),
        "margins": explorers.margins(learnt, order=2, weight=2.0),
        "popularity": explorers.popularity({"a set": CURVES, "another": {"ccl": CURVES["ccl"]}}),
    }


@pytest.mark.parametrize("name", everything())
def test_all_is_seen_at_once_and_letters_are_large_enough(opened, name):
    view = opened(everything()[name])
    for width in (1366, 1024, 640):  # of a notebook's column, the last
        view.page.set_viewport_size({"width": width, "height": 768})
        view.settle()
        assert view.page.evaluate("document.documentElement.scrollHeight") <= 768
        assert view.page.evaluate("document.documentElement.scrollWidth") <= width
        letters = view.page.evaluate("""() => [...document.querySelectorAll('[data-explorer] *')]
            .filter((each) => [...each.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
            .filter((each) => each.getClientRects().length)
            .map((each) => [getComputedStyle(each).fontSize, each.getBoundingClientRect()])
            .map(([size, { left, right }]) => [parseFloat(size), left, right])""")
        assert min(size for size, *_ in letters) >= 12
        assert min(left for _, left, _ in letters) >= 0
        assert max(right for *_, right in letters) <= width
    if name in ("gamma_sweep", "atlas"):
        assert view.root.locator("svg text", has_text="CCL").first.is_visible()
    view.page.set_viewport_size({"width": 390, "height": 844})
    assert view.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_dark_theme_keeps_its_letters_readable(opened):
    tones = {}
    for scheme in ("light", "dark"):
        view = opened(explorers.false_negatives({"a": VIEW}), color_scheme=scheme)
        said = "getComputedStyle(document.querySelector('svg text')).fill"
        tones[scheme] = [int(each) for each in re.findall(r"\d+", view.page.evaluate(said))][:3]
    assert max(tones["light"]) < 100 and min(tones["dark"]) > 150


def test_an_album_shows_the_picture_that_was_drawn_for_its_dials(opened):
    from drrl_core.show import style

    def draw(where: tuple, n: int):
        figure, [[axes]] = style.new_figure(n, 1 + len(where))
        axes.set(xlabel=f"where {' · '.join(where)}", ylabel=f"n {n}")
        return figure

    album = explorers.album(
        draw,
        where=[("a", "b"), ("c",)],
        n=[2, 4],
        first={"n": 4},
    )
    view = opened(album)
    shape = "['naturalWidth', 'naturalHeight'].map((side) => document.querySelector('img')[side])"
    view.page.wait_for_function(f"{shape}[0] > 0")
    assert view.page.evaluate(shape) == [440, 330]
    view.choose("where", "c")
    view.type("n", "2")
    view.settle()
    view.page.wait_for_function(f"{shape}[0] === 220")
    assert view.page.evaluate(shape) == [220, 220]
    assert view.root.locator("img").get_attribute("alt") == "n 2 against where c"
