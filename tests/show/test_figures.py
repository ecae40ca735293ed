"""Figures and explorers: what is drawn is what was given, and nothing is left behind."""

import io
import itertools
import math
import re
import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image as Raster
from scipy.sparse import csr_array

from drrl_core import classical, dro, losses
from drrl_core.lab import spaces
from drrl_core.show import figures, stills, style, words

HISTORY = pd.DataFrame({"epoch": [1, 2, 3, 4], "ndcg@20": [np.nan, 0.1, np.nan, 0.3]})
SCORES = pd.DataFrame({"recall@20": [0.2, 0.1], "ndcg@20": [0.12, 0.3]}, index=["sl", "ccl"])
VIEW = pd.DataFrame(
    {
        "score": [-0.5, 0.0, 0.4, 0.9],
        "weight": [0.0, 0.5, 1.5, 2.0],
        "false_negative": [False, False, True, True],
    }
)
PAIRS = csr_array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
LIST = pd.DataFrame(
    {"item": ["x", "a name that is too long"], "score": [0.9, -0.2], "test": [True, False]}
).assign(popularity=[1200, 3])
TRIED = pd.DataFrame({"order": [2, 5, 2], "radius": [1.0, 0.5, 0.5], "valid": [0.3, 0.2, 0.1]})
USERS = pd.DataFrame({"k1": [4.0, 1.0, np.nan, 2.0], "truncated": [0.0, 0.5, 1.0, 0.25]})
TURNED = pd.DataFrame(
    {"k1": [9.0, 3.0, 4.0, 2.0], "truncated": [0.0, 0.0, 0.5, 0.25]},
    index=pd.MultiIndex.from_product([[1.0, np.inf], [0, 1]], names=["order", "user"]),
)
DOTS = pd.DataFrame({"k1": [5.0], "truncated": [0.1]}, index=[2.0])
SIDE = pd.DataFrame(
    {
        "ours": [0.09, 0.08, np.nan],
        "low": [0.088, np.nan, np.nan],
        "high": [0.092, np.nan, np.nan],
        "paper": [0.095, np.nan, 0.07],
        "p": [0.01, 0.01, np.nan],
    },
    index=pd.Index(["drrl", "sl", "bpr"], name="variant"),
)
HALF = SIDE[["ours", "low", "high"]] / 2
NOISY = pd.concat({0.0: SIDE, 0.2: SIDE.assign(**HALF, p=0.5)}, names=["noise"])
BALLS = pd.DataFrame({"variant": "drrl", "order": 2.0, "radius": 1.0, "share": [0.5, 0.0]}).assign(
    kept=[0.3, 1.0], breakdown_point=0.25, config="{}"
)
ALONG = SIDE.assign(k1=[9.0, 4.0, 2.0]).set_index(pd.Index([1.5, 2.0, 4.0], name="order"))
GROUPS = pd.DataFrame({"least": [0, 3], "most": [2, 3], "ndcg@20": [0.1, 0.2]})
SHIFTED = pd.DataFrame(
    {"random": [0.4, 0.2], "time": [0.1, 0.15], "random_low": [0.3, np.nan]}
    | {"random_high": [0.5, np.nan], "time_low": [0.05, np.nan], "time_high": [0.15, np.nan]},
    index=["sl", "popularity"],
)
BETAS = np.linspace(-1, 1, 5)
DESCENT = {"curve": BETAS**2, "value": 0.0, "best": 0.0, "paths": {0.5: np.array([[1, 1], [0, 0]])}}
MARGINS = pd.DataFrame({"best": [0.1, 0.2], "beta": [0.1, 0.3], "gap": [0.0, 0.01]})
PATH = {(0.7, 0.1): pd.DataFrame({"epoch": [1, 2, 3], "beta": [0.6, 0.4, 0.3]})}
B_TURNED = pd.DataFrame({"mean_popularity": [30.0, 44.0], "test_ndcg@20": [0.09, 0.1]})
B_TURNED = B_TURNED.assign(**{"valid_ndcg@20": [0.07, 0.08]}).rename_axis("b")
COST = pd.DataFrame({"seconds": [3.0, 60.0], "ndcg@20": [0.0930, 0.0922]}, ["ease", "sl"])
FIGURES = {
    "descents": lambda: figures.gradient_descents(
        BETAS, {2.0: DESCENT, 1.0: DESCENT | {"curve": 5 * BETAS}}
    ),
    "margins": lambda: figures.margins_by_variant(
        {"learned": MARGINS, "exact": MARGINS}, dataset="toy", negatives=8
    ),
    "epochs": lambda: figures.margins_over_epochs({"toy": PATH, "b": PATH}, exact=PATH[0.7, 0.1]),
    "b": lambda: figures.accuracy_as_b_turns({"toy": {"sl": B_TURNED}}, title="toy"),
    "cost": lambda: figures.accuracy_by_cost(COST.assign(low=np.nan, high=np.nan), title="toy"),
    "strip": lambda: figures.order_strip(
        np.array([0.1, 0.3, 0.2]), {1: np.array([0.5, 1.5, 1]), math.inf: np.ones(3)}, radius=1
    ),
    "along": lambda: figures.along_orders(
        np.array([1, 2, math.inf]),
        {"ρ": np.array([3, 2, 1.5])},
        ylabel="worst case",
        title="toy",
        ends={"SL": 3, "CCL": 1.5},
    ),
    "radii": lambda: figures.radii_tried(np.linspace(0, 2, 50), TRIED, reference=0.2),
    "history": lambda: figures.training_history(HISTORY.assign(loss=1.0), title="toy"),
    "paper": lambda: figures.against_paper({"ndcg@20": SIDE}, title="toy"),
    "noise": lambda: figures.accuracy_by_noise(NOISY, metric="ndcg@20", title="toy"),
    "breakdown": lambda: figures.breakdown(BALLS, metric="ndcg@20", title="toy"),
    "dial": lambda: figures.accuracy_by_order(
        {"drrl, radius=1": ALONG}, {"ours": "x", "k1": "y"}, title="toy"
    ),
    "groups": lambda: figures.accuracy_by_group(
        {"sl": GROUPS}, of="pairs", metric="ndcg@20", title="toy"
    ),
    "curves": lambda: figures.learning_curves({"sl": HISTORY, "drrl": HISTORY}, dataset="toy"),
    "metrics": lambda: figures.metrics_by_loss(
        SCORES, dataset="toy", reference={"recall@20": 0.5, "ndcg@20": 0.1}
    ),
    "users": lambda: figures.users_by_loss(
        {"sl": USERS, "ccl": USERS}, ("k1", "truncated"), title="toy"
    ),
    "scores": lambda: figures.scores_of_users(
        {"a": np.array([0.1, 0.3, 0.2]), "b": np.array([0.0, 0.5])},
        {"a": 0.2, "b": 0.1},
        title="toy",
        words="β",
    ),
    "turned": lambda: figures.orders_by_user(
        {"sl": TURNED, "fixed ρ": TURNED}, ("k1", "truncated"), title="toy", dots={"sl": DOTS}
    ),
    "weights": lambda: figures.weights_by_score({"sl": VIEW, "ccl": VIEW}, dataset="toy", user=3),
    "activity": lambda: figures.popularity_and_activity(PAIRS, dataset="toy"),
    "moved": lambda: figures.popularity_by_split({"time": [[3, 1, 0], [1, 1, 2]]}, {"time": "toy"}),
    "shifted": lambda: figures.accuracy_by_split(SHIFTED, metric="NDCG@20", title="toy"),
    "recommended": lambda: figures.recommended({"sl": LIST, "ccl": LIST[:1]}, user="toy-7"),
}


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_a_figure_is_the_same_bytes_each_time_and_names_the_data(draw, recwarn):
    figure = draw()
    assert style.png(figure) == style.png(draw())
    texts = [axes.get_title("left") for axes in figure.axes] + [figure.get_suptitle()]
    made_up = draw in [FIGURES[name] for name in ("descents", "strip", "radii")]  # of no data set
    assert any("toy" in text for text in texts) or made_up
    assert not recwarn.list


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_a_key_lies_off_the_data_and_what_is_seen_is_told_in_words(draw):
    figure = draw()
    assert all(axes.get_legend() is None for axes in figure.axes)
    figure.draw_without_rendering()
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)
    told = words.seen(figure)
    assert len(told) > 20 and re.search(r"\d", told) and "\n" not in told


def test_what_is_seen_names_curves_bars_and_marks_with_their_numbers():
    assert words.seen(FIGURES["curves"]()).endswith(
        "valid NDCG@20 against epoch. SL: 0.1 at 2, 0.3 at 4; SL: 0.3 at 4; "
        "DrRL: 0.1 at 2, 0.3 at 4; DrRL: 0.3 at 4"
    )
    assert "test Recall@20. SL: 0.2; CCL: 0.1" in words.seen(FIGURES["metrics"]())
    assert "bars" not in words.seen(FIGURES["strip"]())  # how many have a score: the background
    told = words.seen(figures.against_paper({"a": SIDE, "b": SIDE}, title="toy"))
    assert told.count("DrRL, ours, mean over seeds: 0.09") == 2  # in the panel without names too
    told = words.seen(FIGURES["paper"]())
    assert "DrRL, ours, mean over seeds: 0.09; DrRL, the paper: 0.095" in told
    assert "SL: 0.08 at 0%, 0.04 at 20%" in words.seen(FIGURES["noise"]())
    assert "a model trained there: 5 at 2" in words.seen(FIGURES["turned"]())  # of order 2


def test_a_dollar_in_a_name_breaks_no_picture(tmp_path):
    name = "a$b_{$c"
    for figure in (
        figures.learning_curves({"sl": HISTORY}, dataset=name),
        figures.recommended({"sl": LIST.assign(item=["$x", "x$^$"])}, user=name),
        figures.along_orders(
            np.array([1, 2]), {name: np.ones(2)}, ylabel=name, title=name, ends={name: 1, "CCL": 2}
        ),
    ):
        style.show(figure, tmp_path / "picture.png")
        assert name in (tmp_path / "picture.svg").read_text()


def test_a_long_name_is_not_cut_off():
    name = "movielens-latest-small?min_rating=4&k_core=10&split=time"
    for figure in (
        figures.metrics_by_loss(SCORES, dataset=name),
        figures.learning_curves({"sl": HISTORY}, dataset=name),
    ):
        figure.draw_without_rendering()
        titles = [each for each in figure.findobj(Text) if each.get_fontweight() == "bold"]
        boxes = [each.get_window_extent() for each in titles if each.get_text()]
        assert max(box.x1 for box in boxes) <= figure.bbox.x1
        assert max(box.y1 for box in boxes) <= figure.bbox.y1 + 1


def test_a_figure_is_saved_for_the_page_and_for_slides_with_its_text(tmp_path):
    shown = style.show(FIGURES["metrics"](), tmp_path / "new" / "a.png")
    assert (tmp_path / "new" / "a.png").read_bytes() == shown.data
    drawn = (tmp_path / "new" / "a.svg").read_text()
    assert "<svg" in drawn and "test Recall@20</text>" in drawn  # letters, no outlines
    style.show(FIGURES["metrics"](), tmp_path / "b.png")
    assert (tmp_path / "b.svg").read_text() == drawn
    assert shown.alt == words.seen(FIGURES["metrics"]())


def brightness(colour: str) -> float:
    """Relative luminance, as WCAG 2 defines it."""
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def linear(colour: str) -> np.ndarray:
    part = np.array(to_rgb(colour))
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def lab(colour: str) -> np.ndarray:
    """CIE L*a*b* under D65: equal distances look equally far apart."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.array(to_xyz) @ linear(colour) / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_colours_stand_out_from_white_and_from_each_other():
    names = [*losses.REGISTRY, *classical.REGISTRY]
    tones = {style.colour(name) for name in names} | {style.FALSE_NEGATIVE_COLOUR}
    tones |= {*style.NEUTRAL_COLOURS, stills.SHARED}
    for tone in tones:
        assert 1.05 / (brightness(tone) + 0.05) >= 3, tone  # WCAG 2.1, 1.4.11: of graphics
    for one, other in itertools.combinations(tones, 2):
        assert np.linalg.norm(lab(one) - lab(other)) > 12, (one, other)


def test_a_loss_has_one_place_in_every_figure():
    rows = SIDE.assign(seconds=[3.0, 2.0, 1.0])
    mixed = ["bpr", "ease", "ccl", "drrl", "sl"]
    assert style.in_order(mixed) == ["sl", "drrl", "ccl", "bpr", "ease"]
    figure = figures.accuracy_by_cost(rows.rename(columns={"ours": "ndcg@20"}), title="toy")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["SL", "DrRL"]
    titles = [axes.get_title("left") for axes in FIGURES["weights"]().axes[:2]]
    assert titles[0].startswith("SL") and titles[1].startswith("CCL")
    scores = SCORES.loc[["ccl", "sl"]]
    axes = figures.metrics_by_loss(scores, dataset="toy").axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["SL", "CCL"]


def test_panels_of_one_quantity_are_on_one_scale():
    for name in ("descents", "epochs"):
        assert len({axes.get_ylim() for axes in FIGURES[name]().axes}) == 1
    high = VIEW.assign(weight=VIEW["weight"] * 20)
    figure = figures.weights_by_score({"sl": high, "ccl": VIEW}, dataset="toy", user=3)
    assert len({axes.get_ylim() for axes in figure.axes if axes.collections}) == 1


def test_a_title_calls_a_tie_a_tie():
    panels = [(SIDE.dropna(subset="ours"), "DrRL is ahead"), (SIDE, "DrRL is ahead")]
    panels += [(SIDE.assign(p=[0.2, 0.2, np.nan]), "SL and DrRL are level at the top")]
    panels += [(SIDE.assign(p=[0.2, np.nan, np.nan]), ""), (SIDE[:1], "")]  # not tested, alone
    for table, said in panels:
        (axes,) = figures.against_paper({"ndcg@20": table}, title="toy").axes
        assert axes.get_title("left") == ("NDCG@20: " + said).removesuffix(": ")
    many = pd.DataFrame({"ours": [0.4, 0.3, 0.2, 0.1], "p": 0.5}, ["sl", "ccl", "bpr", "mse"])
    assert style.ahead(many) == "4 are level at the top"
    assert (
        FIGURES["noise"]().axes[0].get_title("left") == "at 20%: SL and DrRL are level at the top"
    )


def test_learning_curves_draw_the_evaluated_epochs_and_mark_the_best():
    axes = figures.learning_curves({"sl": HISTORY}, dataset="toy").axes[0]
    line, best = axes.lines
    assert line.get_xydata().tolist() == [[2, 0.1], [4, 0.3]]
    assert best.get_xydata().tolist() == [[4, 0.3]]
    assert line.get_color() == style.colour("sl")


def test_curves_are_those_of_the_metric_that_the_runs_were_judged_by():
    turned = HISTORY.assign(loss=1.0, **{"recall@5": 1 - HISTORY["ndcg@20"]})
    curves = figures.learning_curves({"sl": turned}, dataset="toy", metric="recall@5").axes[0]
    right = figures.training_history(turned, title="toy", metric="recall@5").axes[1]
    for axes in (curves, right):
        assert axes.get_ylabel() == "valid Recall@5"
        assert axes.lines[1].get_xydata().tolist() == [[2, 0.9]]


def test_a_ball_is_drawn_along_the_share_and_along_its_own_measure_of_it():
    left, right = figures.breakdown(BALLS, metric="ndcg@20", title="toy").axes
    curve, stroke = left.lines
    assert curve.get_xydata().tolist() == [[0, 1], [0.5, 0.3]]
    assert stroke.get_xdata().tolist() == [0.25, 0.25]
    assert right.lines[0].get_xydata().tolist() == [[2, 0.3]]


def test_users_are_counted_and_their_mean_is_marked():
    axes = figures.users_by_loss({"sl": USERS}, ("k1", "truncated"), title="toy").axes
    steps, mean = axes[0].lines
    assert steps.get_xydata().tolist() == [[1, 1 / 3], [2, 2 / 3], [4, 1]]
    assert mean.get_xdata()[0] == pytest.approx(7 / 3) and axes[0].get_xscale() == "log"
    assert axes[1].lines[0].get_xdata().tolist() == [0, 0.25, 0.5, 1]


def test_turned_draws_the_mean_over_users_along_1_over_the_conjugate_order():
    figure = figures.orders_by_user({"sl": TURNED}, ("k1",), title="toy", dots={"sl": DOTS})
    mean, dot = figure.axes[0].lines
    assert mean.get_xydata().tolist() == [[0, 6], [1, 3]]
    assert dot.get_xydata().tolist() == [[0.5, 5]]
    assert figure.axes[0].get_title("left") == "SL"


def test_metrics_are_bars_of_their_length():
    figure = figures.metrics_by_loss(
        SCORES, dataset="toy", reference={"recall@20": 0.5, "ndcg@20": 0.1}
    )
    for axes, metric in zip(figure.axes, SCORES.columns, strict=True):
        assert [bar.get_width() for bar in axes.patches] == SCORES[metric].tolist()
        assert axes.get_xlim()[1] > 0.5 * (metric == "recall@20")  # the reference is in sight


def test_activity_counts_users_and_popularity_adds_up():
    left, right = figures.popularity_and_activity(PAIRS, dataset="toy").axes
    assert sum(bar.get_height() for bar in left.patches) == 3  # who has train pairs
    assert "at most 1 train" in left.get_title("left")
    curve = max(right.lines, key=lambda line: len(line.get_xdata()))
    assert curve.get_xydata().tolist() == [[0, 0], [0.25, 0.75], [0.5, 1], [0.75, 1], [1, 1]]


def test_radii_tried_draws_a_line_an_order_and_where_sl_is():
    for reference in (0.29, 0.31):
        figure = figures.radii_tried(np.linspace(0, 2, 50), TRIED, reference=reference)
        above, below = figure.axes
        assert sum(bar.get_height() for bar in above.patches) == 50
        lines = {line.get_label(): line.get_xydata().tolist() for line in below.lines}
        assert lines["γ = 2"] == [[0.5, 0.1], [1.0, 0.3]] and lines["γ = 5"] == [[0.5, 0.2]]
        assert reference in {
            line.get_ydata()[0] for line in below.lines if len(line.get_ydata()) == 2
        }
        assert "Valid NDCG@20" in below.get_title("left")
        assert below.get_ylim()[0] < 0.1 and below.get_ylim()[1] > 0.31


def test_recommended_shows_hits_in_full_and_own_ids():
    figure = figures.recommended({"sl": LIST, "ccl": LIST}, user="ann")
    for axes in figure.axes:
        assert [bar.get_width() for bar in axes.patches] == [0.9, -0.2]
        assert [bar.get_alpha() for bar in axes.patches] == [1.0, 0.3]
        names = [text.get_text() for text in axes.get_yticklabels()]
        assert names == ["x", "a name that i…"]
        assert {text.get_text() for text in axes.texts} == {"1,200", "3"}


def test_ours_is_a_full_mark_and_the_papers_a_hollow_one():
    (axes,) = FIGURES["paper"]().axes
    marks = {
        name: {tuple(line.get_xydata()[0]): line.get_markeredgecolor() for line in lines}
        for name, lines in {
            kind: [
                line for line in axes.lines if line.get_marker() == kind and len(line.get_xdata())
            ]
            for kind in "oD"
        }.items()
    }
    assert marks["o"][0.09, 1] == marks["D"][0.095, 1] == style.colour("drrl")
    assert marks["o"][0.08, 2] == style.colour("sl") and (0.07, 0) in marks["D"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["BPR, not run", "DrRL", "SL"]


def test_the_lead_is_over_the_best_other_and_filled_where_it_is_sure():
    right = FIGURES["noise"]().axes[1]
    _, line, sure, unsure = right.lines
    assert line.get_ydata().tolist() == pytest.approx([12.5, 12.5])
    assert sure.get_xdata().tolist() == [0.0] and unsure.get_xdata().tolist() == [0.2]
    assert [text.get_text() for text in right.texts] == ["SL"]  # once: it does not change


def test_along_the_dial_the_first_panel_has_the_intervals():
    first, second = FIGURES["dial"]().axes
    bars = [len(axes.containers[0].lines[1]) for axes in (first, second)]  # caps
    assert bars[0] == 2
    line = first.containers[0].lines[0]
    assert line.get_xdata().tolist() == pytest.approx([1 / 3, 1 / 2, 3 / 4])
    assert second.containers[0].lines[0].get_ydata().tolist() == [9, 4, 2]
    low, high = first.containers[0].lines[2][0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((0.088, 0.092))
    assert second.get_yscale() == "log"


def test_popularity_is_in_units_of_the_average_item_on_one_scale():
    counts = {"random": ([6, 2, 4], [1, 1, 1]), "time": ([6, 2, 4], [0, 30, 0])}
    left, right = figures.popularity_by_split(counts, {"random": "a", "time": "b"}).axes
    assert left.lines[1].get_xydata().tolist() == [[1.5, 1], [0.5, 1], [1, 1]]
    assert right.lines[1].get_xydata().tolist() == [[1.5, 0], [0.5, 3], [1, 0]]
    assert left.get_xlim() == right.get_ylim() == pytest.approx((0, 3.3))


def test_accuracy_moved_says_what_is_kept():
    axes = figures.accuracy_by_split(SHIFTED, metric="NDCG@20", title="toy").axes[0]
    assert [text.get_text() for text in axes.texts] == ["keeps 75%", "keeps 25%"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["Popularity", "SL"]
    spans = [line.get_xdata() for line in axes.lines if line.get_marker() == "|"]
    assert [*map(list, spans[2:])] == [[0.3, 0.5], [0.05, 0.15]]


def test_accuracy_by_cost_has_a_mark_a_model_in_the_order_of_all_figures():
    rows = pd.DataFrame(
        {"seconds": [0.1, 60.0, 3.0], "ndcg@20": [0.02, 0.0922, 0.093]},
        ["popularity", "sl", "ease"],
    )
    figure = figures.accuracy_by_cost(rows.assign(low=0.09, high=0.095), title="toy")
    (axes,) = figure.axes
    marks = {line.get_marker(): line.get_xydata().tolist() for line in axes.lines}
    assert marks["D"] == [[3.0, 0.093]] and marks["o"] == [[60.0, 0.0922]]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["SL", "EASE", "Popularity: 0.0200"] and axes.get_xscale() == "log"


def test_weights_tell_false_negatives_apart_and_say_their_share():
    figure = figures.weights_by_score({"sl": VIEW}, dataset="toy", user=3)
    axes = next(axes for axes in figure.axes if axes.collections)
    ordinary, false = (points.get_offsets().tolist() for points in axes.collections)
    assert ordinary == [[-0.5, 0.0], [0.0, 0.5]] and false == [[0.4, 1.5], [0.9, 2.0]]
    said = " ".join(text.get_text() for text in axes.texts)
    assert "truncated: 25%" in said and "false negatives: 87.5%" in said


def test_every_loss_has_a_colour_and_a_label_of_its_own():
    for name, way in losses.variants().items():
        assert style.label(name) == way.label and style.colour(name) != style.colour("no loss")
    assert len({way.label for way in losses.variants().values()}) == len(losses.variants())
    main = [style.colour(name) for name in ("sl", "ccl", "drrl")]
    assert len(set(main)) == 3
    kinds = {name: way.loss for name, way in spaces.variants(8).items() if name != way.loss}
    assert {"drrl-shared", "drrl-fixed", "drrl-exact", "drrl-penalty", "sl-push"} < kinds.keys()
    assert all(style.colour(name) == style.colour(loss) for name, loss in kinds.items())
    assert style.label("drrl-shared") == "DrRL-w/o-P"


def test_the_style_does_not_leak_and_pyplot_is_never_loaded():
    before = dict(mpl.rcParams)
    FIGURES["weights"]()
    assert dict(mpl.rcParams) == before
    assert not getattr(sys.modules.get("matplotlib.pyplot"), "get_fignums", list)()


def test_the_film_runs_there_and_back_on_axes_that_stay():
    scores = torch.linspace(-1, 1, 50, dtype=torch.float64)
    dial = {order: dro.worst_case(scores, order=order, radius=0.5) for order in (1, 2, math.inf)}
    film = stills.order_film(scores.numpy(), dial, radius=0.5, pause=100)
    assert film == stills.order_film(scores.numpy(), dial, radius=0.5, pause=100)
    pictures = Raster.open(io.BytesIO(film))
    frames = []
    for frame in range(pictures.n_frames):
        pictures.seek(frame)
        frames.append((np.array(pictures.convert("L")).astype(int), pictures.info["duration"]))
    assert [pause for _, pause in frames] == [600, 100, 600, 100]
    (first, _), (middle, _), (last, _), (again, _) = frames
    assert (middle == again).all() and (first != last).any()
    axis = slice(0, 30)  # the labels left of the first panel
    assert np.abs(first[40:, axis] - last[40:, axis]).max() < 40  # but for the palette
