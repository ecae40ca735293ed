"""Explorers in the browser: their mathematics against `dro`, their dials by keyboard."""

import math
from collections import defaultdict

import numpy as np
import pytest
import torch

from drrl_core import dro
from drrl_core.show import live

pytestmark = pytest.mark.browser
FIELDS = {  # of a `WorstCase`, and what the browser calls them
    **{name: name for name in ("weights", "value", "dual", "k1", "truncated")},
    "effective_share": "effectiveShare",
}
ORDERS = [1, 1.025, 1.1, 1.5, 2, 2.5, 3, 5, 10, 20, 40, math.inf]


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
    page = chromium.new_page()
    script = live.source("worst_case").replace("export default ", "const shown = ")
    # numbers that JSON does not have travel as text
    page.add_script_tag(
        type="module",
        content=script
        + """
        window.solve = (cases) => cases.map(([how, scores, order, size]) => {
          const found = how(Float64Array.from(scores), Number(order), size);
          return { ...found, weights: [...found.weights], dual: String(found.dual) };
        });
        window.balls = (cases) => window.solve(cases.map((one) => [worstCase, ...one]));
        window.penalties = (cases) => window.solve(cases.map((one) => [penalised, ...one]));
        window.ready = true;""",
    )
    page.wait_for_function("window.ready")
    yield page
    page.close()


def check(page, solve: str, name: str, sizes: list[float], orders: list[float], many: int) -> None:
    """Solve many cases in the browser and by `dro`, there in batches of one length and order."""
    rng = np.random.default_rng(0)
    cases = defaultdict(list)
    for f in rows(rng, many):
        cases[len(f), float(rng.choice(orders))].append((f, float(rng.choice(sizes))))
    for (_, order), group in cases.items():
        f, size = np.stack([f for f, _ in group]), np.array([size for _, size in group])
        worst = dro.worst_case(torch.tensor(f), order=order, **{name: torch.tensor(size)})
        text = str(order).replace("inf", "Infinity")
        given = [[row.tolist(), text, each] for row, each in group]
        answers = page.evaluate(f"given => {solve}(given)", given)
        shown = {key: np.array([one[key] for one in answers]) for key in FIELDS.values()}
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
        if name == "radius" and order < math.inf:
            found = np.array([one["radius"] for one in answers])
            held = np.minimum(size, np.log(f.shape[1] / (f == f[:, :1]).sum(-1)))
            np.testing.assert_allclose(found, held, atol=1e-9)


@pytest.mark.slow
def test_the_ball_is_that_of_dro_on_5000_cases(page):
    radii = [0, 1e-3, 0.05, 0.5, 1, 2, 4, 7]  # beyond log n for the short ones
    check(page, "balls", "radius", radii, ORDERS, 5000)


@pytest.mark.slow
def test_the_penalty_is_that_of_dro(page):
    check(page, "penalties", "temperature", [0.02, 0.2, 2], ORDERS[:-1], 1000)


@pytest.fixture
def dial(chromium, tmp_path):
    """The explorer in a page of its own, opened from a file; nothing else may be asked for."""
    scores = np.random.default_rng(0).normal(0, 0.3, 10_000).tolist()
    path = tmp_path / "page.html"
    text = live.element("worst_case", scores=scores, order=2, radius=1)
    path.write_text(f"<!doctype html><meta charset=utf-8><title>dial</title>{text}")
    context = chromium.new_context(viewport={"width": 1366, "height": 768}, offline=True)
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: asked.append(str(error)))
    page.goto(path.as_uri())
    yield page
    assert asked == [path.as_uri()]
    context.close()


def test_the_dials_turn_by_keyboard_and_say_where_they_are(dial):
    scores = torch.tensor(np.random.default_rng(0).normal(0, 0.3, 10_000))

    def title(order: float, radius: float) -> None:
        worst = dro.worst_case(scores, order=order, radius=radius)
        dial.get_by_text(f"counts {float(worst.k1):.3g}").wait_for(timeout=5000)

    title(2, 1)
    order = dial.get_by_role("slider", name="order γ")
    order.focus()
    dial.keyboard.press("End")
    title(math.inf, 1)
    assert order.get_attribute("aria-valuetext") == "∞ (Cosine Contrastive Loss)"
    dial.keyboard.press("ArrowLeft")
    title(40, 1)
    dial.get_by_role("button", name="Softmax Loss").click()
    title(1, 1)
    assert dial.get_by_text("weight zero").first.is_visible()
    dial.get_by_role("slider", name="radius ρ").focus()
    dial.keyboard.press("ArrowRight")
    title(1, 1.05)


def test_all_is_seen_at_once_and_letters_are_large_enough(dial):
    assert dial.evaluate("document.documentElement.scrollHeight") <= 768
    sizes = dial.evaluate("""[...document.querySelectorAll('svg text')].map(
        (text) => 16 * text.closest('svg').getBoundingClientRect().width / 470)""")
    assert min(sizes) >= 12
    dial.set_viewport_size({"width": 390, "height": 844})
    assert dial.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_wrong_state_is_said_in_place(chromium):
    with pytest.raises(ValueError, match="could not convert"):
        live.element("worst_case", scores=[0.1, 0.2], order="two", radius=1)
    page = chromium.new_page()
    page.set_content(live.element("worst_case", scores=[0.1, 0.2, 0.5], order=0.5, radius=1))
    page.get_by_text("order must lie in [1, inf] and radius in [0, inf), got 0.5 and 1").wait_for()
    page.close()
