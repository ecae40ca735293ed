"""Your own file loads as it should, or the message says where and what to do."""

import csv
import inspect
import io
import math
import re
import warnings
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from datasets_help import pairs_of, quiet, write
from hypothesis import given, settings
from hypothesis import strategies as st

from drrl_core import datasets
from drrl_core.datasets import DataError, load
from drrl_core.datasets.options import Options

TABLE = "userId,movieId,rating,timestamp\nu1,a,4,10\nu1,b,2,20\nu2,a,5,30\nu2,c,3,40\n"
GOOD = {
    "header found": ("x.csv", TABLE, {}),
    "header named": (
        "x.csv",
        TABLE.replace("userId,movieId", "who,what"),
        {"user": "who", "item": "what"},
    ),
    "by position": ("x.csv", TABLE, {"user": 0, "item": 1}),
    "no header": ("x.csv", TABLE.partition("\n")[2], {}),
    "tabs": ("x.tsv", TABLE.replace(",", "\t"), {}),
    "semicolons": ("x.csv", TABLE.replace(",", ";"), {}),
    "gzip": ("x.csv.gz", TABLE, {}),
    "byte-order mark": ("x.csv", "\ufeff" + TABLE, {}),
    "UTF-16": ("x.csv", TABLE.encode("utf-16"), {"encoding": "utf-16"}),
    "line ends": ("x.csv", TABLE.replace("\n", "\r\n") + "\r\n\r\n", {}),
    "old line ends": ("x.csv", TABLE.replace("\n", "\r"), {}),
    "typed header": ("x.inter", TABLE.replace("userId,movieId", "user_id:token,item_id:token"), {}),
    "RecBole": (
        "x.inter",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        + TABLE.partition("\n")[2].replace(",", "\t"),
        {},
    ),
    "typed header of other names": (
        "x.inter",
        TABLE.replace("userId,movieId,", "who:token,what:token,"),
        {"user": "who:token", "item": "what:token"},
    ),
    "spaces": ("x.txt", TABLE.replace(",", " "), {"format": "table"}),
    "other columns": ("x.csv", re.sub("(?m)^(?=.)", "note,", TABLE), {}),
    "other separator": ("x.csv", TABLE.replace(",", "~"), {"sep": "~"}),
    "repeated pair": ("x.csv", TABLE + "u1,a,1,50\n", {}),
}


@pytest.mark.parametrize("case", GOOD)
@pytest.mark.filterwarnings("ignore:.*no train pair", "ignore:.*too few")
def test_own_tables(tmp_path, case):
    name, content, options = GOOD[case]
    path = write(tmp_path, name, content)
    data = load(path, **options)
    assert pairs_of(data) == {("u1", "a"), ("u1", "b"), ("u2", "a"), ("u2", "c")}
    assert data.name == name and data.truth is None
    assert load(str(path), **options).hash == data.hash


def test_own_pairs_keep_their_numbers(tmp_path):
    path = write(tmp_path, "x.txt", "0 5\n\n3\t1\n0 5\n")
    with pytest.warns(UserWarning, match="2 of 4 users and 4 of 6 items") as caught:
        data = load(path, fractions=(1, 0, 0))
    assert len(caught) == 1
    assert (data.n_users, data.n_items) == (4, 6) and pairs_of(data) == {(0, 5), (3, 1)}
    assert data.user_ids is None and data.item_ids is None
    zipped = write(tmp_path, "x.txt.gz", b"\xef\xbb\xbf0 5\n3\t1")
    assert quiet(zipped, fractions=(1, 0, 0)).hash == data.hash


def test_labels_keep_their_kind(tmp_path):
    data = quiet(write(tmp_path, "x.csv", "user,item\n10,007\n9,7\n9,NA\n"), missing="keep")
    assert data.user_ids.tolist() == [9, 10]
    assert data.item_ids.tolist() == ["007", "7", "NA"]


def test_min_rating(tmp_path):
    path = write(tmp_path, "x.csv", TABLE)
    assert pairs_of(quiet(path, min_rating=4)) == {("u1", "a"), ("u2", "a")}
    with pytest.raises(DataError, match=r"x\.csv: no rating reaches min_rating=6"):
        load(path, min_rating=6)
    with pytest.raises(DataError, match=r"x\.csv, line 1: no rating column"):
        load(write(tmp_path, "x.csv", "user,item\n1,2\n"), min_rating=3)


def test_adjacency_lines(tmp_path):
    path = write(tmp_path, "x.txt", "0 5 3 4 7 5\n\n2\n1\t3 \r\n3 0 1\n")
    pairs = {(0, 5), (0, 3), (0, 4), (0, 7), (1, 3), (3, 0), (3, 1)}
    data = quiet(path)
    assert pairs_of(data) == pairs and (data.n_users, data.n_items) == (4, 8)
    assert quiet(path, format="adjacency").hash == data.hash
    other = write(tmp_path, "y.lst", "0 1 2\n1 1 3\n")  # a table of three columns, but for its name
    assert pairs_of(quiet(other, format="adjacency")) == {(0, 1), (0, 2), (1, 1), (1, 3)}


@pytest.mark.parametrize("first", ["user-90,item-7", "user:90,item:7", "item5,time1", "user 1,x"])
def test_an_id_like_a_name_is_no_header(tmp_path, first):
    user, item = first.split(",")
    data = quiet(write(tmp_path, "x.csv", f"{first}\nu2,i2\n{user},i2\n"))
    assert pairs_of(data) == {(user, item), ("u2", "i2"), (user, "i2")}


def test_so_few_pairs_that_nothing_is_held_out(tmp_path):
    path = write(tmp_path, "x.csv", "user,item\na,1\nb,1\nc,2\n")
    with pytest.warns(UserWarning, match="3 pairs of 3 users are too few: none .* valid and test"):
        load(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(path, fractions=(1, 0, 0))


def test_formats_and_columns_do_not_mix(tmp_path):
    path = write(tmp_path, "x.txt", "0 1\n")
    for options in ({"user": 1}, {"header": True}, {"sep": " "}):
        with pytest.raises(ValueError, match="format='pairs' takes no sep, header or columns"):
            load(path, format="pairs", **options)


def test_options_come_with_the_path(tmp_path):
    path = write(tmp_path, "x.csv", TABLE + "u1,c,3,7\nu2,b,4,8\n")
    query = "min_rating=2.5&fractions=.5,.25,.25&split=time&user=0&item=movieId&header=true&sep=%2C"
    options = dict(min_rating=2.5, fractions=(0.5, 0.25, 0.25), split="time", user=0)
    data = quiet(f"{path}?{query}")
    assert data.hash == quiet(path, **options, item="movieId", header=True, sep=",").hash
    assert data.name == f"x.csv?{query}" and quiet(path).name == "x.csv"
    assert quiet(f"{path}?{query}", min_rating=5, split="random").train.nnz == 1
    assert quiet(f"{path}?seed=3&name=mine&k_core=2").name == "mine"
    assert quiet(f"{path}?seed=3").hash == quiet(path, seed=3).hash
    page = inspect.getdoc(datasets.load_file).partition("Raises:")[0]
    assert re.findall(r"(?m)^ {4}(\w+): ", page) == ["path", *Options.model_fields]
    odd = write(tmp_path, "odd?k_core=3.csv", TABLE)
    assert pairs_of(quiet(odd)) == pairs_of(quiet(write(tmp_path, "x.csv", TABLE)))
    for query, problem in {
        "kcore=5": "no option 'kcore'; did you mean 'k_core'?",
        "k_core=few": "k_core=few cannot be read",
        "header=maybe": "header=maybe cannot be read",
        "fractions=1,": "fractions=1, cannot be read",
        "k_core": "expected options such as",
    }.items():
        with pytest.raises(DataError, match=re.escape(problem) if query != "k_core" else "k_core"):
            load(f"{path}?{query}")
    with pytest.raises(
        DataError, match=r"unknown data set 'gowalla\?k_core=5'. Did you mean 'gowalla'"
    ):
        load("gowalla?k_core=5")


def naive_core(pairs: set, k: int) -> set:
    while True:
        users, items = (Counter(pair[side] for pair in pairs) for side in (0, 1))
        left = {(u, i) for u, i in pairs if users[u] >= k and items[i] >= k}
        if left == pairs:
            return left
        pairs = left


@settings(max_examples=80, deadline=None)
@given(
    pairs=st.sets(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=50),
    k=st.integers(1, 4),
    name=st.sampled_from(["x.txt", "x.csv"]),
)
def test_k_core_is_that_of_the_definition(folder, pairs, k, name):
    lines = "".join(f"{u},{i}\n" for u, i in pairs)
    path = write(
        folder, name, lines.replace(",", " ") if name == "x.txt" else "user,item\n" + lines
    )
    expected = naive_core(pairs, k)
    if not expected:
        with pytest.raises(DataError, match=f"nothing is left with k_core={k}"):
            load(path, k_core=k)
        return
    data = quiet(path, k_core=k)
    assert pairs_of(data) == expected
    if k > 1:  # no gaps in the numbers
        assert data.n_users == len({u for u, _ in expected}) == len(data.user_ids)


def test_the_temporal_split_of_raw_amazon_ratings(tmp_path):
    """As the Electronics set was made: ratings from 3, 10-core, 60/20/20 by global time."""
    rng = np.random.default_rng(1)
    rows = [
        (
            f"A{u:013d}",
            f"{i:010d}",
            float(rng.integers(1, 6)),
            int(rng.integers(10**9, 10**9 + 900)),
        )
        for u in range(120)
        for i in rng.choice(60, rng.integers(8, 40), replace=False)
    ]
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    path = write(tmp_path, "ratings_Home_and_Kitchen.csv", text)
    data = quiet(
        f"{path}?rating=2&timestamp=3&min_rating=3&k_core=10&split=time&fractions=.6,.2,.2"
    )

    liked = {(u, i): time for u, i, stars, time in rows if stars >= 3}
    core = naive_core(set(liked), 10)
    assert 500 < len(core) < len(liked)
    times = sorted(liked[pair] for pair in core)
    first, second = times[math.ceil(0.6 * len(core)) - 1], times[math.ceil(0.8 * len(core)) - 1]
    train = {pair for pair in core if liked[pair] <= first}
    users, items = ({pair[side] for pair in train} for side in (0, 1))
    known = {pair for pair in core - train if pair[0] in users and pair[1] in items}
    assert pairs_of(data, "train") == train
    assert pairs_of(data, "valid") == {pair for pair in known if liked[pair] <= second}
    assert pairs_of(data, "test") == {pair for pair in known if liked[pair] > second}


BAD = {
    "empty": ("x.txt", "", {}, "line 1: the file is empty"),
    "blank": ("x.txt", "\n \n", {}, "line 1: the file is empty"),
    "not whole": ("x.txt", "0 1\n1.0 2\n", {}, "line 2: an id is not a whole number"),
    "a word": ("x.txt", "0 1\n\n1 two\n", {}, "line 3: an id is not a whole number"),
    "negative": ("x.txt", "0 1\n-1 2\n", {}, "line 2: an id is not a whole number >= 0"),
    "short": ("x.txt", "0 1\n1\n", {}, "line 2: expected two fields, .* not 1"),
    "long": ("x.txt", "0 1\n1 2 3\n", {}, "line 2: expected two .* not 3.*format='adjacency'"),
    "three columns": ("x.txt", "0 1 5\n1 2 3\n", {}, "line 1: expected two fields"),
    "commas": ("x.txt", "0,1\n1,2\n", {}, "line 1: expected two fields.*format='table'"),
    "one item each": ("x.txt", "0 1 2 3 4 5\n1 2 3 4 5 6\n", {}, "line 1: expected two .* not 6"),
    "a user twice": ("x.txt", "0 1 2 3 4 5\n1 2\n0 6\n", {}, "line 1: expected two .* not 6"),
    "users alone": ("x.txt", "0\n1\n", {"format": "adjacency"}, "line 1: users without any item"),
    "adjacent word": (
        "x.txt",
        "0 1\n1 2 b\n",
        {"format": "adjacency"},
        "line 2: an id is not a wh",
    ),
    "adjacent huge": (
        "x.txt",
        f"0 1\n1 2 {'9' * 5_000}\n",
        {"format": "adjacency"},
        "line 2: .*large",
    ),
    "huge": ("x.txt", "0 1\n1 9999999999\n", {}, "line 2: an id is too large"),
    "beyond int64": ("x.txt", f"0 1\n{'9' * 30} 1\n", {}, "line 2: an id is too large"),
    "latin-1": ("x.txt", "0 1\n1 é\n".encode("latin-1"), {}, "line 2: .*utf-8.*Save the file"),
    "utf-16": ("x.txt", "0 1\n1 2\n".encode("utf-16"), {}, "line 1: .*utf-8.*Save the file"),
    "NULs": ("x.txt", "0 1\n1 2\n".encode("utf-16-le"), {}, "line 1: a NUL byte, as in UTF-16"),
    "empty table": ("x.csv", "", {}, "line 1: the file is empty"),
    "header alone": ("x.csv", "user,item\n", {}, "line 1: nothing follows the header"),
    "short row": ("x.csv", "user,item\n1,2\n3\n", {}, "line 3: 1 fields, but 2"),
    "long row": ("x.csv", "user,item\n1,2\n3,4,5\n", {}, "line 3: 3 fields, but 2"),
    "open quote": (
        "x.csv",
        'user,item\n1,2\n"3,4\n5,6\n',
        {},
        "line 3: a quote opens in a cell and does not close, and quotes are in the users",
    ),
    "no item": ("x.csv", "user,item,rating\n1,2,3\n1,,3\n", {}, "line 3: no item"),
    "no such column": (
        "x.csv",
        "user,item\n1,2\n",
        {"item": "itme"},
        "line 1: no item column 'itme'.*Did you mean 'item'",
    ),
    "no such place": ("x.csv", "user,item\n1,2\n", {"item": 2}, "line 1: no item column 2"),
    "a name, no header": ("x.csv", "1,2\n2,3\n", {"user": "who"}, "line 1: no user column 'who'"),
    "unknown names": ("x.csv", "who,what\n1,2\n", {"header": True}, "line 1: no user column in"),
    "one column": ("x.csv", "user\n1\n", {}, "line 1: no item column"),
    "header or data": ("x.csv", "who,what\n1,2\n3,4\n", {}, "line 1: .*may be names or data"),
    "names or labels": ("x.csv", "who,what\nann,Alien\n", {}, "line 1: .*may be names or data"),
    "two items": (
        "x.csv",
        "user_id,asin,parent_asin\na,b,c\n",
        {},
        r"line 1: \['asin', 'parent_asin'\] may each be the item. Say item=",
    ),
    "one name twice": (
        "x.csv",
        "u,i,i\n1,2,3\n",
        {"user": "u", "item": "i"},
        "may each be the item",
    ),
    "product first": (
        "x.csv",
        "B000052YAN,A1PG2VV4W1WRPL,5.0,1428364800\n",
        {},
        "line 1: .*a product first, then a reviewer. Say user=1, item=0",
    ),
    "a usual word as data": ("x.csv", "ann,time\nbob,Alien\n", {}, "no user column.*header=False"),
    "no core": ("x.csv", "user,item\n1,2\n1,3\n", {"k_core": 2}, "nothing is left with k_core=2"),
    "bad rating": (
        "x.csv",
        "user,item,rating\n1,2,3\n\n3,4,good\n",
        {"min_rating": 3},
        "line 4: the rating is no number.*'good'",
    ),
    "rating nan": (
        "x.csv",
        "1,2,3\n3,4,nan\n",
        {"rating": 2, "min_rating": 1},
        "line 2: the rating is no number",
    ),
    "bad time": (
        "x.csv",
        'user,item,time\n"1\n1",2,3\n3,4,x\n',
        {"split": "time"},
        "line 4: the timestamp is no number",
    ),
    "bad date": (
        "x.csv",
        "user,item,time\n1,2,2020-01-01\n3,4,2020-13-01\n",
        {"split": "time"},
        "line 3: the timestamp is no number",
    ),
    "no time": ("x.csv", "user,item\n1,2\n", {"split": "time"}, "line 1: no timestamp column"),
    "no time in pairs": ("x.txt", "1 2\n", {"split": "time"}, "line 1: no timestamp column"),
    "one time": (
        "x.csv",
        "user,item,time\n1,2,3\n1,4,3\n",
        {"split": "time"},
        "leaves no valid pair",
    ),
    "latin-1 table": (
        "x.csv",
        "user,item\n1,é\n".encode("latin-1"),
        {},
        "line 2: .*utf-8.*encoding='latin-1'",
    ),
    "not gzip": ("x.csv", b"\x1f\x8b no", {}, "line 1: cannot be read"),
    "zip": (
        "x.csv",
        b"PK\x03\x04\xb3",
        {},
        r"x\.csv is a zip archive: unpack it and give the table",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_named_by_line(tmp_path, case):
    name, content, options, problem = BAD[case]
    path = write(tmp_path, name, content)
    with pytest.raises(DataError, match="(?s)" + problem) as caught:
        load(path, **options)
    assert str(caught.value).startswith(str(path)) and str(caught.value).endswith(".")


def test_truncated_gzip_and_files_that_are_none(tmp_path):
    lines = "".join(f"{k} {k * 7919 % 5003}\n" for k in range(5_000))
    path = write(tmp_path, "x.txt.gz", lines)
    path.write_bytes(path.read_bytes()[:-3_000])
    with pytest.raises(DataError, match=r"x\.txt\.gz, line \d{4}: cannot be read.*end-of-stream"):
        load(path)
    path.write_bytes(b"0 1\n")
    with pytest.raises(DataError, match=r"x\.txt\.gz, line 1: cannot be read: Not a gzipped file"):
        load(path)
    with pytest.raises(DataError, match=r"none\.csv: cannot be read: .*No such file"):
        load(tmp_path / "none.csv")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"folder: no train and test file is in it: none"):
        load(tmp_path / "folder")


def test_arguments_out_of_their_domain(tmp_path):
    path = write(tmp_path, "x.csv", TABLE)
    for options in (
        {"split": "leave-one-out"},
        {"sep": ""},
        {"format": "csv"},
        {"k_core": 0},
        {"fractions": (0.5, 0.1, 0.1)},
        {"fractions": (0, 0.5, 0.5)},
        {"fractions": (1.1, -0.1, 0)},
        {"fractions": (math.nan, 0, 0)},
        {"fractions": (math.inf, 0, 0)},
        {"seed": -1},
        {"seed": None},
        {"seed": 1.5},
        {"max_pairs": 0},
        {"min_rating": math.nan},
        {"missing": "maybe"},
        {"decimal": ";"},
        {"comment": ""},
        {"where": "rating"},
        {"overlap": "keep"},
        {"encoding": "latin-99"},
        {"since": "yesterday"},
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            load(path, **options)
    assert quiet(path, seed=np.int64(3), k_core=np.int32(1)).hash == quiet(path, seed=3).hash
    with pytest.raises(TypeError, match="colour"):
        load(path, colour="red")


def test_random_split_deals_each_users_pairs(tmp_path):
    lines = [f"{u} {i}" for u in range(300) for i in range([20, 3, 1][u % 3])]
    path = write(tmp_path, "x.txt", "\n".join(lines))
    data = load(path)
    counts = np.stack([np.diff(getattr(data, key).indptr) for key in datasets.SPLITS], 1)
    assert (counts[0::3] == (16, 2, 2)).all() and (counts[2::3] == (1, 0, 0)).all()
    assert (counts[1::3, 0] >= 2).all() and abs(counts[1::3].mean(0)[2] / 3 - 0.1) < 0.05
    turned = write(tmp_path, "y.txt", "\n".join(lines[::-1]))
    assert load(turned).hash == data.hash != load(path, seed=1).hash
    assert load(path, fractions=(1, 0, 0)).train.nnz == len(lines)


@pytest.mark.parametrize("dates", [False, True])
def test_time_split_is_global(tmp_path, dates):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "user": rng.integers(0, 40, 2_000),
            "item": rng.integers(0, 60, 2_000),
            "time": rng.integers(0, 500, 2_000),
        }
    )
    table.loc[table["time"].idxmax(), "user"] = 99  # new at the very end: in no split
    first = table.sort_values("time").drop_duplicates(["user", "item"])
    shown = table.assign(time=pd.Timestamp("2020-01-01") + pd.to_timedelta(table["time"], "h"))
    (shown if dates else table).to_csv(tmp_path / "x.csv", index=False)
    data = quiet(tmp_path / "x.csv", split="time", fractions=(0.6, 0.2, 0.2))
    when = {(u, i): t for u, i, t in first.itertuples(index=False)}
    times = [{when[pair] for pair in pairs_of(data, key)} for key in datasets.SPLITS]
    assert max(times[0]) < min(times[1]) and max(times[1]) < min(times[2])
    assert abs(data.train.nnz / len(first) - 0.6) < 0.01
    assert data.n_users == 41 and len(pairs_of(data)) == len(first) - 1
    assert quiet(tmp_path / "x.csv", split="time", fractions=(1, 0, 0)).train.nnz == len(first)


def test_what_was_dropped_of_a_file_is_counted(tmp_path):
    path = tmp_path / "x.csv"
    rows = [f"u{u},i{i},{3 + (u + i) % 3},{100 * i + u}" for u in range(6) for i in range(6)]
    bad = ["u0,i1,1,5", "u1,i1,2,5"]  # rated low
    again = rows[:3]
    alone = ["u9,i0,5,7", "u8,i0,5,8"]  # not in the 3-core
    path.write_text("\n".join(["user,item,rating,timestamp", *rows, *bad, *again, *alone]) + "\n")
    data = load(path, min_rating=3, k_core=3)
    assert data.dropped == {"rated below min_rating": 2, "repeated": 3, "outside the k-core": 2}
    assert len(pairs_of(data)) == 36
    assert load("synthetic").dropped is None
    path.write_text("user,item,timestamp\na,x,1\na,y,2\nb,x,3\na,z,4\nb,y,5\nb,q,6\nc,x,7\nb,x,8\n")
    data = load(path, split="time", fractions=(0.57, 0, 0.43))
    assert data.dropped == {"repeated": 1, "held out, user or item not in train": 2}


label = st.one_of(  # blanks around an id are taken off, and one of blanks alone is none
    st.integers(-50, 10**15).map(str),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), min_size=1)
    .map(str.strip)
    .filter(bool),
)
many = settings(max_examples=150, deadline=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("any")


@many
@given(
    pairs=st.sets(st.tuples(label, label), min_size=1),
    sep=st.sampled_from(",\t;| ~"),
    zipped=st.booleans(),
    seed=st.integers(0, 9),
)
def test_any_labels_come_back(folder, pairs, sep, zipped, seed):
    text = io.StringIO()
    csv.writer(text, delimiter=sep, quoting=csv.QUOTE_ALL).writerows([("user", "item"), *pairs])
    path = write(folder, "x.csv" + ".gz" * zipped, text.getvalue())
    data = quiet(path, sep=sep, seed=seed, missing="keep")
    assert {(str(u), str(i)) for u, i in pairs_of(data)} == pairs
    assert sum(getattr(data, key).nnz for key in datasets.SPLITS) == len(pairs)
    assert np.diff(data.train.indptr).min() >= 1


@many
@given(
    pairs=st.sets(st.tuples(st.integers(0, 999), st.integers(0, 999)), min_size=1),
    sep=st.sampled_from([" ", "\t", "  "]),
    end=st.sampled_from(["\n", "\r\n", "\n\n"]),
)
def test_any_numbers_come_back(folder, pairs, sep, end):
    path = write(folder, "x.txt", "".join(f"{u}{sep}{i}{end}" for u, i in pairs))
    data = quiet(path)
    assert pairs_of(data) == pairs
    assert data.n_users == 1 + max(u for u, _ in pairs)


@many
@given(
    content=st.one_of(st.binary(), st.text('0123 \n\t,";-x\r.', max_size=60).map(str.encode)),
    name=st.sampled_from(["x.txt", "x.csv", "x.tsv", "y.csv.gz"]),
    options=st.sampled_from(
        [
            {},
            {"header": True},
            {"header": False},
            {"split": "time"},
            {"min_rating": 2},
            {"user": 1, "item": 0},
        ]
    ),
)
def test_any_bytes_load_or_say_why(folder, content, name, options):
    path = folder / name
    path.write_bytes(content)
    try:
        data = quiet(path, **options)
    except DataError as error:
        assert str(error).startswith(str(path))
    else:
        assert sum(getattr(data, key).nnz for key in datasets.SPLITS) >= 1
