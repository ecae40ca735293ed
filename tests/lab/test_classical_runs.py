"""Classical models as runs: recorded, kept, tuned and told apart as those of losses are."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch

from drrl_core import classical, datasets
from drrl_core.lab import campaign, choose, results, spaces, store
from drrl_core.lab.recommend import export, recommend
from drrl_core.lab.run import changes, configure, execute, key_of, refitting
from drrl_core.lab.tune import tune
from drrl_core.lab.workers import Compute
from drrl_core.paper import evidence, tables
from drrl_core.train import TrainConfig, metrics, popularity, refitted

SMALL = {"itemknn": {"neighbours": 20}, "ials": {"dim": 8, "sweeps": 3}}


@pytest.fixture(scope="module")
def data():
    return datasets.load("synthetic")


def test_the_record_has_what_one_of_a_loss_has(data):
    ours = execute(configure("synthetic", "", "ease"), data=data)
    other = execute(configure("synthetic", config={"epochs": 1}), data=data, progress=False)
    assert ours.record.keys() == other.record.keys()
    assert ours.record["popularity"].keys() == other.record["popularity"].keys()
    assert ours.record["backbone"] == "ease" and ours.record["loss"] == ""
    assert ours.record["parameters"]["train"].keys() < other.record["parameters"]["train"].keys()
    assert ours.fit.valid.index.equals(other.fit.valid.index)
    assert list(ours.fit.test) == list(other.fit.test)


@pytest.mark.parametrize("name", classical.REGISTRY)
def test_the_numbers_are_those_of_a_naive_ranking(data, name):
    """Scores sorted in full, masked by hand; NDCG retyped; b's report by tables of scores."""
    outcome = execute(configure("synthetic", "", name, SMALL.get(name)), data=data)
    every = outcome.model(np.arange(data.n_users)).numpy().astype(float)
    every[data.train.nonzero()] = -np.inf
    for split in ("valid", "test"):
        target, found = getattr(data, split).toarray() > 0, []
        for u in np.flatnonzero(target.any(1)):
            best = np.argsort(-every[u], kind="stable")[:20]
            gain = target[u, best] / np.log2(np.arange(2, 22))
            ideal = (1 / np.log2(np.arange(2, 22)))[: target[u].sum()].sum()
            found.append(gain.sum() / ideal)
        assert outcome.record[split]["ndcg@20"] == pytest.approx(np.mean(found), abs=1e-9)
    about = outcome.record["popularity"]
    assert about["valid"]["ndcg@20"] >= outcome.record["valid"]["ndcg@20"] - 1e-12
    with_b = results.accuracy_by_user(outcome)
    assert with_b["ndcg@20_b"].mean() == pytest.approx(about["test"]["ndcg@20"], abs=1e-12)
    assert with_b["ndcg@20"].mean() == pytest.approx(outcome.record["test"]["ndcg@20"], abs=1e-12)


def test_the_key_is_of_what_counts_alone(data):
    base = configure("synthetic", "", "ials")
    same = replace(base, train=replace(base.train, lr=0.5, epochs=7, negatives=3))
    assert key_of(same, data.hash) == key_of(base, data.hash)
    for config in ({"alpha": 11}, {"seed": 1}, {"mask": "train+valid"}, {"cutoff": 10}):
        other = configure("synthetic", "", "ials", config)
        assert key_of(other, data.hash) != key_of(base, data.hash)
    with pytest.raises(ValueError, match="'lr' is no setting of ease"):
        configure("synthetic", "", "ease", {"lr": 0.1})
    with pytest.raises(ValueError, match=r"no model is called 'eas' .did you mean 'ease'"):
        configure("synthetic", "", "eas")


def test_a_mask_of_valid_leaves_valid_out_of_the_test_ranking(data):
    plain, masked = (
        execute(configure("synthetic", "", "popularity", {"mask": mask}), data=data)
        for mask in ("train", "train+valid")
    )
    assert masked.record["test"]["recall@20"] > plain.record["test"]["recall@20"]
    users, items = torch.ones(data.n_users, 1), torch.from_numpy(data.train.sum(0)).float()[:, None]
    masks = (data.train, data.valid)
    wanted = metrics.evaluate(users, items, data.test, masks=masks, similarity="dot")
    pd.testing.assert_frame_equal(masked.fit.test, wanted)


def test_it_is_kept_served_and_read_back(data, tmp_path):
    run = configure("synthetic", "", "ials", SMALL["ials"])
    first = store.get_or_train(run, store=tmp_path, data=data)
    again = store.get_or_train(run, store=tmp_path, data=data)
    assert not first.served and again.served and again.record == first.record
    pd.testing.assert_frame_equal(again.fit.valid, first.fit.valid)
    users = np.array([3, 500])
    assert torch.equal(again.model(users), first.model(users))  # solved again
    (home,) = tmp_path.glob("[0-9a-f]*[0-9a-f]")
    assert {path.name for path in home.iterdir()} == {*store.TOLD, store.SUMS}
    row = store.table(tmp_path).iloc[0]
    assert (row["backbone"], row["loss"]) == ("ials", "") and row["backbone.dim"] == 8
    (home / "record.json").write_text("{}")
    with pytest.raises(store.RunError, match="damaged"):
        store.get_or_train(run, store=tmp_path, data=data)


def test_its_row_gives_its_run_again(data, tmp_path):
    run = configure("synthetic", "", "itemknn", {"neighbours": 20, "seed": 2})
    store.get_or_train(run, store=tmp_path, data=data)
    results.merge(results.kept_rows(store=tmp_path), tmp_path / "runs.csv")
    (row,) = (row for _, row in results.read_runs(tmp_path / "runs.csv").iterrows())
    assert (row["backbone"], row["variant"], row["loss"]) == ("itemknn", "itemknn", "")
    assert (row["sampler"], row["negatives"]) == ("none", 0)
    assert json.loads(row["settings"]) == {"backbone.neighbours": 20}
    assert key_of(results.run_of(row), data.hash) == row["key"]
    text = results.read_as_text(tmp_path / "runs.csv").iloc[0]
    assert text["loss"] == ""


def test_recommendations_leave_out_what_is_known(data, tmp_path):
    outcome = execute(configure("synthetic", "", "ease"), data=data)
    users = np.array([0, 7, 999])
    found = recommend(outcome, k=5, users=users)
    scores = outcome.model(users).numpy()
    for row, (user, own) in enumerate(found.groupby("user")):
        assert not {*own["item"]} & {*data.train[[user]].indices}
        np.testing.assert_allclose(own["score"], scores[row, own["item"]], rtol=1e-6)
        assert own["score"].is_monotonic_decreasing and list(own["rank"]) == [1, 2, 3, 4, 5]
    written = export(outcome, tmp_path / "lists.csv", k=5)
    assert {*written} == {"recommendations"}  # it has no tables


# ---------------------------------------------------------------------------------------------
# Trained on valid too


def test_refit_trains_on_both_and_is_never_among_the_others(data, tmp_path):
    run = configure("synthetic", "", "ease")
    outcome = store.get_or_train(run, store=tmp_path, data=data)
    refit = store.get_or_train(refitting(run, outcome), store=tmp_path, data=data)
    x = (data.train + data.valid).astype(np.float32)
    wanted = classical.make("ease", x)(np.arange(5))
    assert torch.equal(refit.model(np.arange(5)), wanted)
    assert refit.record["data_hash"] == data.hash and refit.record["valid"]["ndcg@20"] is None
    best = metrics.rank_by(refit.model, metrics.seekers(data.test), data.n_items, masks=(x,))
    assert refit.record["test"]["ndcg@20"] == metrics.accuracy(best, data.test)["ndcg@20"].mean()
    csv = tmp_path / "runs.csv"
    results.merge(results.kept_rows(store=tmp_path), csv)
    assert list(results.read_runs(csv)["key"]) == [outcome.record["key"]]
    (own,) = results.read_runs(csv, refit="train+valid")["settings"]
    assert json.loads(own) == {"train.refit": "train+valid"}


def test_a_loss_is_refitted_for_its_best_epochs(data, tmp_path):
    run = configure("synthetic", config={"epochs": 4, "evaluate_every": 1, "lr": 0.05})
    outcome = store.get_or_train(run, store=tmp_path, data=data, progress=False)
    again = refitting(run, outcome)
    assert again.train == replace(
        run.train, refit="train+valid", epochs=outcome.record["best_epoch"]
    )
    refit = store.get_or_train(again, store=tmp_path, data=data, progress=False)
    assert refit.record["best_epoch"] == again.train.epochs and refit.record["finished"]
    assert refit.data.train.nnz == data.train.nnz + data.valid.nnz and not refit.data.valid.nnz
    served = store.get_or_train(again, store=tmp_path, data=data)
    assert served.served and served.data.hash == refit.data.hash
    with pytest.raises(ValueError, match="a search selects by valid"):
        tune("synthetic", "sl", trials=2, config={"refit": "train+valid"})
    with pytest.raises(ValueError, match=r"refit must be one of 'none', 'train.valid', not 'all'"):
        TrainConfig(refit="all")


def test_keys_of_runs_without_refit_are_as_they_were(data):
    assert "refit" not in TrainConfig().identity()
    assert refitted(data, TrainConfig()) is data
    old = {k: v for k, v in asdict(TrainConfig()).items() if k != "refit"}
    assert changes({"train": asdict(TrainConfig())}, {"train": old}) == {}


# ---------------------------------------------------------------------------------------------
# Tuned


@pytest.fixture(scope="module")
def tuned(data, tmp_path_factory):
    """A folder with the searches of two classical models, and of a loss."""
    folder = tmp_path_factory.mktemp("tuned")
    compute = Compute(store=folder / "store", workers=0)
    for name, trials in (("popularity", 5), ("ease", 3)):
        tune("synthetic", name, trials=trials, seeds=3, csv=folder / "runs.csv", compute=compute)
    config = {"epochs": 2, "evaluate_every": 1}
    tune("synthetic", "sl", trials=2, config=config, csv=folder / "runs.csv", compute=compute)
    return folder


def test_the_same_search_tunes_them(tuned):
    rows = results.read_runs(tuned / "runs.csv")
    assert rows["variant"].value_counts().to_dict() == {"ease": 3, "sl": 2, "popularity": 1}
    best = results.selected_runs(rows).set_index("variant")
    ease = rows[rows["variant"] == "ease"]
    assert best.loc["ease", "valid_ndcg@20"] == ease["valid_ndcg@20"].max()
    assert (ease["trials"] >= 1).all() and ease["seed"].eq(0).all()


def test_the_campaign_counts_them(tuned, tmp_path):
    path = tmp_path / "campaign.yaml"
    block = "- {dataset: synthetic, loss: [popularity, ease, ials], trials: 3, seeds: 3}"
    path.write_text(block)
    cells = campaign.read(path)
    assert [(cell.backbone, cell.trials, cell.seeds) for cell in cells] == [
        ("popularity", 1, 1),
        ("ease", 3, 1),
        ("ials", 3, 3),
    ]
    left = campaign.status(path, tuned)["missing"].tolist()
    assert left == [0, 0, 5]


def test_whole_numbers_stay_whole(data):
    search = spaces.plan(data, "synthetic", "itemknn", "mf", {})
    run = search.run({"backbone.neighbours": 17.4321, "backbone.shrink": 3.14159})
    assert run.backbone_config == {"neighbours": 17, "shrink": 3.142}
    given = spaces.plan(data, "synthetic", "itemknn", "mf", {"neighbours": 9})
    assert list(given.variant.space) == ["backbone.shrink"]
    assert given.run().backbone_config["neighbours"] == 9


def test_they_stand_beside_the_losses(tuned):
    e = evidence.measured(tuned)
    at = e.at(("synthetic", "mf", 0.0, "ndcg@20")).dropna()
    assert {*at.index} == {"popularity", "ease", "sl"}
    text = tables.table(results.read_runs(tuned / "runs.csv"), "synthetic", "mf")
    assert "| *EASE* | `l2=" in text and "| *Popularity* | `` | 1 |" in text
    short = tables.table(results.read_runs(tuned / "runs.csv"), "synthetic", "mf", short=True)
    assert "*EASE*" in short and "SL" not in short  # the paper has no such data set
    assert results.harvest(tuned, store=tuned / "store") == {}  # no weights of what has no loss
    assert {*pd.read_csv(tuned / "skew.csv")["variant"]} == {"sl"}
    assert not np.isnan(e.p(("synthetic", "mf", 0.0, "ndcg@20"), "ease", "popularity"))


# ---------------------------------------------------------------------------------------------
# Chosen


def test_choosing_ends_in_a_recommendation_from_valid_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(choose, "ROUNDS", (1, 2))
    monkeypatch.setattr(choose, "seconds_an_epoch", lambda *_: 40.0)  # a few epochs
    told: list[choose.Choice] = []
    names = ("popularity", "ease", "sl")
    found = choose.choose(
        "synthetic",
        minutes=20,
        folder=tmp_path,
        names=names,
        compute=Compute(store=tmp_path / "store", workers=0),
        tell=told.append,
    )
    assert {*found.table["model"]} == {*names} and not found.missing
    assert [len(each.table) for each in told[:3]] == [1, 2, 3]
    assert found.table["valid_ndcg@20_b"].is_monotonic_decreasing
    level = found.table[found.table["level"]]
    assert found.chosen == level.sort_values("seconds")["model"].iloc[0] != "popularity"
    first = found.table.iloc[0]
    assert first["behind"] == 0 and first["level"]
    for _, row in found.table.iterrows():
        assert row["behind"] == pytest.approx(first["valid_ndcg@20_b"] - row["valid_ndcg@20_b"])


def test_a_model_s_time_is_limited_and_the_others_go_on(tmp_path, monkeypatch):
    def forever(*args, **options):
        while True:
            pass

    monkeypatch.setattr(choose, "tune", forever)
    found = choose.choose("synthetic", minutes=0.02, folder=tmp_path, names=("ease", "itemknn"))
    assert found.chosen is None and "more minutes" in found.reason
    assert {*found.missing} == {"ease", "itemknn"}
    assert all("not one training was finished" in why for why in found.missing.values())
    with pytest.raises(ValueError, match="minutes must be above 0, not 0"):
        choose.choose("synthetic", minutes=0, folder=tmp_path)


def test_a_tie_is_called_a_tie_and_the_cheaper_wins():
    table = pd.DataFrame(
        [
            ("sl", 0.0, 0.0, 0.0, True, 60.0),
            ("ease", 0.001, -0.001, 0.003, True, 2.0),
            ("popularity", 0.05, 0.04, 0.06, False, 0.1),
        ],
        columns=["model", "behind", "low", "high", "level", "seconds"],
    )
    name, reason = choose.recommended(table)
    assert name == "ease" and reason.startswith("A tie of sl, ease: of these ease is the cheapest")
    ahead = table.assign(level=[True, False, False], low=[0.0, 0.0005, 0.04])
    assert choose.recommended(ahead)[0] == "sl"
    assert "sl is ahead: ease, the next, lies 0.0010 behind" in choose.recommended(ahead)[1]
    assert choose.recommended(table.iloc[:0])[0] is None


def test_the_page_says_what_the_table_says(tmp_path, tuned, data):
    from drrl_core.pages import choose as pages

    names = ("popularity", "ease", "sl")
    compute = Compute(store=tuned / "store", workers=0)
    table = choose.judged(tuned / "runs.csv", data, names, compute)
    name, reason = choose.recommended(table)
    choice = choose.Choice(data, table, name, reason, {"ccl": "<no> time"}, 5, 1.0)
    page, csv = pages.write(choice, "synthetic", tmp_path)
    text = page.read_text()
    for _, row in table.iterrows():
        assert f"{row['test_ndcg@20']:.4f}" in text
    assert "CCL: &lt;no&gt; time" in text and "http" not in text.replace("http-equiv", "")
    assert "drrl train &#x27;synthetic&#x27; --model ease --set backbone.l2=" in text
    assert list(pd.read_csv(csv)["model"]) == list(table["model"])


def test_popularity_by_scores_of_a_scorer_is_that_of_its_tables(data):
    outcome = execute(configure("synthetic", "", "ials", SMALL["ials"]), data=data)
    ranked = popularity.by_scores(outcome.model, data.train)
    report = popularity.report(ranked, data.train, data.valid, data.test)
    assert report["b"] == outcome.record["popularity"]["b"]
    assert report["test"] == outcome.record["popularity"]["test"]
