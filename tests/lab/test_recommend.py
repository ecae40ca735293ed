"""Recommendations and embeddings under the ids of one's own file."""

import ast
import csv
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from samples import outcome_of, small
from scipy.sparse import csr_array

from drrl_core.datasets import Interactions
from drrl_core.lab import recommend
from drrl_core.train import metrics, tables

pytestmark = pytest.mark.usefixtures("store")


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
    found = recommend.recommend(outcome, k=5, known=known)
    assert list(found) == ["user", "rank", "item", "score"]
    assert [*zip(found["user"], found["rank"], found["item"], strict=True)] == [
        row[:3] for row in expected
    ]
    np.testing.assert_allclose(found["score"], [row[3] for row in expected], atol=1e-6)


def test_recommended_test_items_are_the_hits_of_the_record():
    data = small()
    outcome, wanted = outcome_of("sl", data), metrics.seekers(data.test)
    found = recommend.recommend(outcome, k=20, users=wanted)
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
    found = recommend.recommend(outcome_of("sl", data), k=40)
    assert {*found.loc[found["user"] == 3, "item"]} == {4, 9}
    assert (found.groupby("user").size() == 30 - np.diff(data.train.indptr)[1:]).all()


@pytest.mark.parametrize(
    "wrong, why",
    [({"k": 0}, "k must be at least 1"), ({"known": ("tset",)}, "tset.*train, valid, test")],
)
def test_what_recommend_refuses(wrong, why):
    with pytest.raises(ValueError, match=why):
        recommend.recommend(outcome_of(), **wrong)


def test_many_users_are_scored_in_parts(monkeypatch):
    outcome = outcome_of()
    whole = recommend.recommend(outcome, k=7)
    monkeypatch.setattr(recommend, "TILE", 100)
    assert_frame_equal(recommend.recommend(outcome, k=7), whole)


@pytest.mark.parametrize("loss", ["sl", "bpr"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_export_reads_back_under_ones_own_ids(loss, suffix, tmp_path):
    data = own_ids(small())
    outcome = outcome_of(loss, data)
    written = recommend.export(outcome, tmp_path / "new" / "folder" / f"lists{suffix}", k=4)
    names = {f"lists{what}{suffix}" for what in ("", "_users", "_items")}
    assert {path.name for path in (tmp_path / "new" / "folder").iterdir()} == names
    table = recommend.read_table(written["recommendations"])
    assert_frame_equal(table, recommend.recommend(outcome, k=4), check_dtype=False)
    users, items = (recommend.read_table(written[side]) for side in ("users", "items"))
    assert users["id"].tolist() == data.user_ids.tolist()
    assert items["id"].tolist() == data.item_ids.tolist()
    users, items = (side.set_index("id").astype(np.float32) for side in (users, items))
    made = recommend.embeddings(outcome)
    for side, stored in (("users", users), ("items", items)):
        assert (stored.to_numpy() == made[side].drop(columns="id").to_numpy()).all()
    scores = [users.loc[row.user] @ items.loc[row.item] for row in table.itertuples()]
    np.testing.assert_allclose(scores, table["score"], atol=1e-5)


def test_export_numbers_those_who_came_without_ids(tmp_path):
    written = recommend.export(outcome_of(), tmp_path / "lists.npz", k=2)
    with np.load(written["users"], allow_pickle=False) as stored:
        assert stored["id"].tolist() == list(range(20))
    found = recommend.read_table(written["recommendations"])
    assert found["user"].unique().tolist() == list(range(1, 20))


SHEET = "=+-@\t\r\n\0＝＋－＠"  # what spreadsheets take for the beginning of a formula
IDS = [f"{sign}x" for sign in SHEET] + ["=1+1,2", '=HYPERLINK("a";"b")', "-5", "'", "''q", "'=q"]
IDS += ["a,b", 'a"b', "NA", "nan", "", "007", "1e5", " x ", "a\r\nb", "é\u2028", "True"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_tables_read_back_whatever_the_ids_are(suffix, tmp_path):
    table = pd.DataFrame({"user": IDS, "rank": range(len(IDS)), "item": IDS[::-1]})
    table["score"] = np.linspace(-1, 1, len(IDS), dtype=np.float32)
    found = recommend.read_table(recommend.write_table(table, tmp_path / f"lists{suffix}"))
    assert found["user"].tolist() == IDS and found["item"].tolist() == IDS[::-1]
    assert (found["rank"] == table["rank"]).all()
    assert (found["score"].astype(np.float32) == table["score"]).all()


def test_no_text_in_csv_begins_as_a_formula_does(tmp_path):
    table = pd.DataFrame({"user": IDS, "item": IDS, "score": -0.5})
    path = recommend.write_table(table, tmp_path / "lists.csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = [*csv.reader(file)][1:]
    for user, item, score in rows:
        assert user[:1] not in {*SHEET} and item[:1] not in {*SHEET}
        assert score == "-0.5"  # a number is no formula, and stays one
    plain = [own for own in IDS if own[:1] not in {*SHEET, "'"}]
    assert {user for user, *_ in rows} >= {*plain}  # the others are as they were


def test_a_suffix_that_is_none_says_which_there_are(tmp_path):
    with pytest.raises(
        ValueError, match=r"lists\.xls: expected a name that ends in \.csv, \.parquet"
    ):
        recommend.write_table(pd.DataFrame(), tmp_path / "lists.xls")


def test_the_recipe_that_serves_the_vectors_recommends_the_same(tmp_path):
    pytest.importorskip("faiss", reason="faiss-cpu is not installed: pip install 'drrl-core[dev]'")
    page = (Path(__file__).parents[2] / "docs" / "howto.md").read_text()
    (block,) = re.findall(r"```python\n(import faiss.*?)```", page, re.S)
    outcome = outcome_of("bpr", own_ids(small()))
    data, found = outcome.data, recommend.recommend(outcome, k=5)
    recommend.export(outcome, tmp_path / "lists.parquet")
    asked = {
        user: data.item_ids[data.train[[index]].indices].tolist()
        for index, user in enumerate(data.user_ids.tolist())
        if index
    }
    asks = f"\nprint({{user: best(user, 5, known) for user, known in {asked!r}.items()}})"
    done = subprocess.run(
        [sys.executable, "-c", block + asks], cwd=tmp_path, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    served = ast.literal_eval(done.stdout)
    for user, rows in found.groupby("user"):
        assert served[user] == rows["item"].tolist()


@pytest.mark.parametrize("users", [[-1], [20], [3, -2], [1.5], [True, False]])
def test_users_that_are_none_are_refused(users):
    with pytest.raises(
        ValueError, match=r"users=.*expected indices from 0 to 19, or own ids as text"
    ):
        recommend.recommend(outcome_of(), users=users)


def test_users_are_asked_for_by_index_or_own_id():
    data = own_ids(small())
    outcome, some = outcome_of("sl", data), [7, 3]
    found = recommend.recommend(outcome, users=some)
    named = recommend.recommend(outcome, users=[str(data.user_ids[user]) for user in some])
    assert_frame_equal(found, named)
    assert [*dict.fromkeys(found["user"])] == [data.user_ids[user] for user in some]
    with pytest.raises(
        ValueError, match=r"users \['nobody'\] are not in small: expected its own ids"
    ):
        recommend.recommend(outcome, users=["nobody", str(data.user_ids[3])])
    assert not len(recommend.recommend(outcome, users=[]))


def test_popularity_is_put_back_as_it_is_measured():
    outcome = outcome_of()
    data, auto = outcome.data, outcome.record["popularity"]["b"]
    for asked, b in (("auto", auto), (0.7, 0.7), (0, 0.0)):
        assert outcome.strength(asked) == b
        found = recommend.recommend(outcome, k=20, popularity=asked)
        told = outcome.rankings
        wanted = metrics.seekers(data.test)
        best = pd.DataFrame(told["ranked"](data.test, b, (data.train,)), index=wanted)
        items = pd.Series(range(data.n_items), recommend.labels(data)[1])
        own = found.assign(item=items[found["item"]].to_numpy()).groupby("user")["item"]
        ids, known = recommend.labels(data)[0], {*metrics.seekers(data.train)}
        for user in [user for user in wanted if user in known][:10]:
            assert own.get_group(ids[user]).tolist() == best.loc[user].tolist()
    for wrong in ("much", math.nan, math.inf):
        with pytest.raises(ValueError, match="popularity must be a number or 'auto'"):
            recommend.recommend(outcome, popularity=wrong)
