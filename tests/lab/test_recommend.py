"""Recommendations and embeddings under the ids of one's own file."""

from dataclasses import replace

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
def test_export_reads_back_under_ones_own_ids(loss, tmp_path):
    data = own_ids(small())
    outcome = outcome_of(loss, data)
    written = recommend.export(outcome, tmp_path / "new" / "folder", k=4)
    assert {path.parent for path in written.values()} == {tmp_path / "new" / "folder"}
    options = {"dtype": {"user": str, "item": str}, "keep_default_na": False}
    table = pd.read_csv(written["recommendations"], **options)
    assert_frame_equal(table, recommend.recommend(outcome, k=4), check_dtype=False)
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
    written = recommend.export(outcome_of(), tmp_path, k=2)
    with np.load(written["embeddings"]) as stored:
        assert stored["user_ids"].tolist() == list(range(20))
    assert pd.read_csv(written["recommendations"])["user"].unique().tolist() == list(range(1, 20))


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
