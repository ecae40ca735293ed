"""Explorers in Python: their traits, what they leave in batch, and the training monitor."""

import math
import threading
import time

import numpy as np
import pandas as pd
import pytest
import traitlets

from drrl_core import dro
from drrl_core.lab.run import configure, execute
from drrl_core.show import explorers, figures, live, monitor, style

SCORES = np.random.default_rng(0).normal(0, 0.3, 300)


@pytest.fixture
def shown(monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "a notebook")


@pytest.fixture
def batch(monkeypatch):
    for name in explorers.FRONT_ENDS:
        monkeypatch.delenv(name, raising=False)


def everything() -> list[explorers.Explorer]:
    rng = np.random.default_rng(0)
    cloud = pd.DataFrame({"order": math.inf, "radius": rng.gamma(9, 0.2, 50)})
    view = pd.DataFrame({"score": SCORES, "false_negative": SCORES > 0.4})
    learnt = {each: (rng.normal(0, 0.1 * each, (5, 80)), rng.normal(0, 0.1, 5)) for each in (1, 3)}
    recorded = pd.DataFrame({"order": [2.0], "hold": ["radius"], "ndcg@20": [0.1]})
    turned = pd.DataFrame({"mean_popularity": [30.0, 44.0], "test_ndcg@20": [0.09, 0.1]})
    turned = turned.assign(**{"valid_ndcg@20": [0.07, 0.08], "coverage": [1.0, 0.5]})
    return [
        explorers.worst_case({"a": SCORES}, order=math.inf, hold="temperature"),
        explorers.worst_case({"masked": [0.1, -np.inf, 0.4], "one": [1.0]}, radius=0.2),
        explorers.worst_case({"equal": np.zeros(5)}),
        explorers.simplex(order=math.inf),
        explorers.atlas(SCORES, {"sl": {1: cloud, 3: cloud}, "ccl": {3: cloud}}, epoch=-1),
        explorers.atlas(SCORES),
        explorers.false_negatives({"a": view}, noise=0.0),
        explorers.gamma_sweep({"a": SCORES}, recorded=recorded),
        explorers.gamma_sweep({"few": [0.1, 0.4, -np.inf, 0.2]}, radius=0.3),
        explorers.margins(learnt, order=2, weight=2.0),
        explorers.margins(learnt, order=math.inf, weight=1.0),
        explorers.popularity({"a set": {"sl": turned, "ccl": turned}}, b=0.5),
    ]


def test_in_batch_a_still_picture_and_beside_it_what_a_page_needs(batch):
    for view in everything():
        bundle, _ = view._repr_mimebundle_()
        assert bundle.keys() == {"image/png", "text/plain", live.MIME}
        assert bundle["image/png"].startswith("iVBORw0KGgo")
        found = bundle[live.MIME]
        page = live.element(found["name"], **found["state"])
        assert "NaN" not in page.rpartition("startInPage(")[2] and view.comm is None


def test_where_a_front_end_is_the_widget_itself(shown):
    bundle, _ = explorers.simplex()._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle and "image/png" not in bundle


def test_dials_are_read_and_set_and_what_is_out_of_range_is_refused():
    view = explorers.worst_case({"a": SCORES, "b": SCORES}, order=math.inf, scores="b")
    assert view.order == math.inf and view.state()["order"] == "inf" and view.scores == "b"
    view.order = 2
    assert view.order == 2.0 and view.state()["order"] == 2
    seen = []
    view.observe(lambda change: seen.append(change["new"]), names="radius")
    view.set_state({"order": "inf", "radius": 3})  # as a front end sends it
    assert view.order == math.inf and view.radius == 3 and seen == [3]
    for name, wrong in (("order", 0.99), ("order", math.nan), ("radius", -1), ("radius", "much")):
        with pytest.raises(traitlets.TraitError, match=name):
            setattr(view, name, wrong)
    with pytest.raises(traitlets.TraitError, match="hold"):
        view.hold = "nothing"
    assert (view.order, view.radius, view.hold) == (math.inf, 3, "radius")
    for wrong in ({"order": 0.5}, {"radius": math.nan}, {"hold": "eta"}, {"scores": "c"}):
        with pytest.raises(traitlets.TraitError):
            explorers.worst_case({"a": SCORES}, **wrong)


def test_a_view_in_an_address_s_form_sets_the_dials_and_the_still_picture(batch):
    text = "worst_case.order=inf&worst_case.scores=b%2C+%C3%BC&worst_case.radius=0.5&atlas.epoch=3"
    view = explorers.worst_case({"a": SCORES, "b, ü": 2 * SCORES}, view=text)
    assert (view.order, view.scores, view.radius) == (math.inf, "b, ü", 0.5)
    same = explorers.worst_case({"b, ü": 2 * SCORES}, order=math.inf, radius=0.5)
    pictures = [each._repr_mimebundle_()[0]["image/png"] for each in (view, same)]
    assert pictures[0] == pictures[1]
    same.radius = 1.5
    bundle, about = same._repr_mimebundle_()
    assert bundle["image/png"] != pictures[0] and "weight (mean 1)" in about["image/png"]["alt"]
    drawn = explorers.album(
        lambda where, n: style.new_figure(n, 1)[0],
        where=[("a", "b"), "c"],
        n=[1, 2],
        view="album.n=2",
    )
    assert (drawn.n, drawn.where) == (2, "a · b")
    for wrong in ("worst_case.nothing=1", "worst_case.order=0.5", "worst_case.hold=eta"):
        with pytest.raises(traitlets.TraitError):
            explorers.worst_case({"a": SCORES}, view=wrong)


def test_a_state_that_json_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        live.element("worst_case", data={"sources": [("a", [0.1, math.nan])]}, order=2)


def test_a_view_without_false_negatives_is_refused():
    view = pd.DataFrame({"score": SCORES, "false_negative": False})
    with pytest.raises(ValueError, match="view 'b' needs negatives of both kinds"):
        explorers.false_negatives({"b": view})


def test_orders_lie_evenly_between_the_two_losses():
    conj = [1 / dro.order_conj(order) for order in explorers.ORDERS]
    assert np.allclose(np.diff(conj), 1 / 40) and conj[0] == 0 and conj[-1] == 1


def train_with(**settings):
    run = configure("synthetic", "sl", config={"dim": 4, "negatives": 4} | settings)
    return lambda on_epoch: execute(run, on_epoch=on_epoch, progress=False)


@pytest.fixture
def displayed(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    return shown


def test_a_stop_from_another_thread_is_heard_and_the_best_model_kept(shown, displayed):
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

    outcome = monitor.watch(and_press)
    button, image, line = displayed[0].children
    history = outcome.fit.history
    assert heard == ["stops after this epoch", button.description] and button.disabled
    assert len(history) < 5000 and outcome.record["finished"] is None
    assert button.description == f"stopped after {len(history)} epochs" and not line.value
    assert outcome.fit.best_epoch <= len(history)
    assert outcome.fit.valid["ndcg@20"].mean() == pytest.approx(history["ndcg@20"].max(), abs=1e-4)
    assert image.value == style.png(figures.training_history(history, title="Training"))


def test_what_ends_a_training_is_said_in_place_and_raised(shown, displayed):
    def fails(on_epoch):
        on_epoch({"epoch": 1, "loss": 0.5})
        raise ArithmeticError("the loss is nan, of <SL>")

    with pytest.raises(ArithmeticError):
        monitor.watch(fails)
    button, _, line = displayed[0].children
    assert "the loss is nan, of &lt;SL&gt;" in line.value and button.disabled


def test_a_picture_that_fails_does_not_end_the_training(shown, displayed, monkeypatch):
    def broken(history, title):
        raise OSError("no font")

    monkeypatch.setattr(figures, "training_history", broken)
    outcome = monitor.watch(train_with(epochs=2))
    assert len(outcome.fit.history) == 2 and "no font" in displayed[0].children[2].value


def test_in_batch_it_trains_and_leaves_the_still_picture(batch, displayed):
    outcome = monitor.watch(train_with(epochs=2, evaluate_every=1), title="Two epochs")
    assert outcome.record["finished"] and len(displayed) == 1
    picture = figures.training_history(outcome.fit.history, title="Two epochs")
    assert displayed[0].data == style.png(picture)
    best = picture.axes[1].get_title("left")
    assert best.startswith(f"best so far {outcome.fit.history['ndcg@20'].max():.4f}")
