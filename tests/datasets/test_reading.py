"""What could be read wrongly in silence is read right, or refused with the line and the way out.

Every file here holds the same 8 users, 9 items and 48 pairs, in a layout that people have.
"""

import bz2
import gzip
import io
import itertools
import json
import lzma
import re
import subprocess
import sys
import tarfile
import time
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from datasets_help import pairs_of, quiet, real_data, write
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from drrl_core import datasets
from drrl_core.datasets import DataError, files, load, splits
from drrl_core.datasets.options import Options

PAIRS = [(u, i) for u in range(8) for i in range(9) if (u + 2 * i) % 3]
LABELS = {(f"u{u}", f"i{i}") for u, i in PAIRS}
FORMATS = datasets.formats()
QUOTE = '"'
DAY = pd.Timestamp("2019-03-04")
# Pairs in the order of time: every user and every item is among the first half.
ORDER = sorted(PAIRS, key=lambda pair: (pair[0] * 5 + pair[1] * 7) % 11)
assert all({pair[k] for pair in ORDER[:24]} == {pair[k] for pair in PAIRS} for k in (0, 1))
MOMENTS = {pair: DAY + pd.Timedelta(n, "D") for n, pair in enumerate(ORDER)}


def table(row, header=None, end="\n") -> str:
    """A line a pair: `row` of user, item and the number of the pair."""
    lines = [row(u, i, n) for n, (u, i) in enumerate(PAIRS)]
    return end.join([*([header] if header else []), *lines]) + end


def adds_up(data) -> None:
    """Lines and rows that were read are all accounted for."""
    report = data.report
    for file in report["files"]:
        if "lines" in file:
            parts = ("header lines", "comment lines", "blank lines", "lines inside quoted cells")
            parts += ("lists",) if "lists" in file else ("rows",)
            assert file["lines"] == sum(file.get(part, 0) for part in parts)
    assert report["rows"] == sum(file["rows"] for file in report["files"])
    assert report["rows"] == report["kept"] + sum(report["dropped"].values())
    assert report["kept"] == data.train.nnz + data.valid.nnz + data.test.nnz
    json.dumps(report)


PLAIN = table(lambda u, i, n: f"u{u},i{i}", "user_id,item_id")
LAYOUTS = {
    "stray quotes in a column nobody reads": (
        "x.tsv",
        table(lambda u, i, n: f"u{u}\ti{i}\t{QUOTE * (n % 7 == 3)}Title {n}", "user\titem\ttitle"),
    ),
    "titles over several lines": (
        "x.csv",
        table(lambda u, i, n: f'u{u},"a\n""b"", c\n",i{i}', "user,title,item"),
    ),
    "inches": ("x.csv", table(lambda u, i, n: f'u{u},i{i},{n}" wide', "user,item,size")),
    "blanks around cells": (
        "x.csv",
        table(lambda u, i, n: f"{' ' * (n % 3)}u{u} ,\t{' ' * (n % 2)}i{i}", "user , item"),
    ),
    "blanks before quotes": ("x.csv", table(lambda u, i, n: f'u{u}, "i{i}" ', "user, item")),
    "double colons": ("x.dat", table(lambda u, i, n: f"u{u}::i{i}::4::{n}")),
    "several blanks": ("x.dat", table(lambda u, i, n: f" u{u}   i{i} \t {n}", "user item time")),
    "a separator of one's own": ("x.csv?sep=%7E%7E", table(lambda u, i, n: f"u{u}~~i{i}~~3")),
    "comments on top": ("x.csv", "# by hand\n% of 2020\n\n" + PLAIN),
    "comments anywhere": (
        "x.csv?comment=//",
        "// a\n" + PLAIN.replace("\nu3", "\n// b\nu3") + "// c",
    ),
    "old line ends": ("x.csv", PLAIN.replace("\n", "\r")),
    "mixed line ends": ("x.csv", PLAIN.replace("\nu3", "\r\n\r\nu3").replace("\nu4", "\n  \nu4")),
    "no end": ("x.csv", PLAIN.rstrip()),
    "a long cell": (
        "x.csv",
        table(lambda u, i, n: f"u{u},i{i},{'x' * 200_000 * (n == 9)}", "user,item,t"),
    ),
    "no number in it, times before items": (
        "x.tsv?user=0&item=2",
        table(lambda u, i, n: f"u{u}\t2009-05-{n % 28 + 1:02d}T10:00:00Z\ti{i}\tName"),
    ),
    "five columns": (
        "x.txt?user=0&item=4",
        table(lambda u, i, n: f"u{u}\t2010-10-{n % 28 + 1:02d}T00:00:01Z\t30.{n}\t-97.0\ti{i}"),
    ),
    "semicolons and decimal commas": (
        "x.csv?min_rating=4",
        table(lambda u, i, n: f"u{u};i{i};{4 + n % 2},5", "user;item;rating"),
    ),
    "NULL as an id": ("x.csv?missing=drop", PLAIN + "NULL,i1\nu1,NA\n,i3\nu2,None\n"),
    "a column that says what counts": (
        "x.csv?where=event:buy|cart",
        table(lambda u, i, n: f"u{u},{('buy', 'cart')[n % 2]},i{i}", "user,event,item")
        + "u1,view,i9\n",
    ),
    "JSON lines": (
        "x.json",
        table(lambda u, i, n: json.dumps({"reviewerID": f"u{u}", "asin": f"i{i}", "overall": 4.0})),
    ),
    "JSON lines, nested": (
        "x.jsonl?user=by.id&item=of.id",
        table(lambda u, i, n: json.dumps({"by": {"id": f"u{u}"}, "of": {"id": f"i{i}"}, "s": [1]})),
    ),
    "a JSON list": (
        "x.json",
        json.dumps([{"user_id": f"u{u}", "item_id": f"i{i}"} for u, i in PAIRS], indent=1),
    ),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_every_layout_is_read_to_the_last_pair(tmp_path, case):
    address, content = LAYOUTS[case]
    name, _, query = address.partition("?")
    write(tmp_path, name, content)
    data = quiet(f"{tmp_path / name}?{query}" if query else tmp_path / name)
    assert pairs_of(data) == LABELS and (data.n_users, data.n_items) == (8, 9)
    adds_up(data)
    assert any("48 kept" in line for line in datasets.account(data))


TIMES = {
    "seconds": (lambda t: str(int(t.timestamp())), "numbers, as seconds"),
    "milliseconds": (lambda t: str(int(t.timestamp() * 1000)), "numbers, as milliseconds"),
    "ISO": (str, "iso"),
    "ISO with zone": (lambda t: f"{t.isoformat()}+00:00", "iso"),
    "UTC": (lambda t: f"{t} UTC", "iso"),
    "RFC": (lambda t: t.strftime('"%a, %d %b %Y %H:%M:%S +0000"'), "rfc"),
    "US": (lambda t: t.strftime("%m/%d/%Y %I:%M:%S %p"), "us"),
    "day first": (lambda t: t.strftime("%d/%m/%Y"), "eu"),
    "dots": (lambda t: t.strftime("%d.%m.%Y"), "german"),
    "Amazon": (lambda t: f'"{t.month:02d} {t.day}, {t.year}"', "long"),
}


@pytest.mark.parametrize("form", TIMES)
def test_dates_of_every_form_order_the_split(tmp_path, form):
    spell, found = TIMES[form]
    text = table(lambda u, i, n: f"u{u},i{i},{spell(MOMENTS[u, i])}", "user,item,time")
    path = write(tmp_path, "x.csv", text)
    data = quiet(path, split="time", fractions=(0.5, 0.25, 0.25))
    first = {(f"u{u}", f"i{i}") for u, i in ORDER[:24]}
    assert pairs_of(data, "train") == first and data.report["files"][0]["dates"] == found
    some = quiet(path, since="2019-03-14", until="2019-03-24")
    assert pairs_of(some) == {(f"u{u}", f"i{i}") for u, i in ORDER[10:20]}
    assert some.dropped["outside since and until"] == 38


REFUSED = {
    "month or day first": (
        "x.csv?split=time",
        table(
            lambda u, i, n: f"u{u},i{i},{n % 12 + 1:02d}/{n % 11 + 1:02d}/2019", "user,item,time"
        ),
        "line 2: the timestamp may be read in two ways. Say ?dates=us or ?dates=eu",
    ),
    "decimal or thousands": (
        "x.csv?min_rating=4",
        table(lambda u, i, n: f"u{u};i{i};4,500", "user;item;rating"),
        "line 2: the rating may have decimal commas or thousands. Say ?decimal=",
    ),
    "a quote that closes elsewhere, or is of the cell": (
        "x.tsv",
        table(lambda u, i, n: f"u{u}\ti{i}\t{QUOTE * (n in (5, 9))}", "user\titem\ttitle"),
        "line 7: a quote opens, and it may enclose several lines.*Say ?quote=true, or ?quote=false",
    ),
    "an open quote in an id": (
        "x.csv",
        PLAIN + '"u9,i1\n',
        "line 50: a quote opens in a cell and does not close",
    ),
    "rating by position": (
        "x.csv?min_rating=3",
        table(lambda u, i, n: f"{u},{i},{n % 4},{n % 5}"),
        r"line 1: no rating column in \[0: '0', 1: '1', 2: '0', 3: '0'\]. Say rating=",
    ),
    "time by position": (
        "x.csv?split=time",
        table(lambda u, i, n: f"{u},{i},4,{n}"),
        "line 1: no timestamp column",
    ),
    "five columns without names": (
        "x.csv",
        table(lambda u, i, n: f"{u},7,8,9,{i}"),
        "line 1: 5 columns and no header: .*as in ?user=0&item=1",
    ),
    "dates second": (
        "x.csv",
        table(lambda u, i, n: f"u{u},2019-10-{n % 28 + 1:02d},i{i}"),
        "line 1: the second column holds dates",
    ),
    "times second": (
        "x.csv",
        table(lambda u, i, n: f"u{u},{1_500_000_000 + n // 3},i{i}"),
        "line 1: the second column holds times",
    ),
    "nearly unique second": (
        "x.csv",
        table(lambda u, i, n: f"u{u},{n * 17},i{i}"),
        "line 1: the second column has 48 values in 48 rows",
    ),
    "a number of the row first": (
        "x.csv",
        table(lambda u, i, n: f"{n},u{u},i{i}"),
        "line 1: the first column has 48 values in 48 rows",
    ),
    "decimals second": (
        "x.csv",
        table(lambda u, i, n: f"u{u},{n % 5}.25,i{i}"),
        "line 1: the second column holds decimals",
    ),
    "an open quote in a title, and quoted ids": (
        "x.csv",
        table(lambda u, i, n: f'"u{u}","i{i}","T{QUOTE * (n != 20)}', "user,item,title"),
        "line 22: a quote opens in a cell and does not close, and quotes are in the users",
    ),
    "an id in two spellings": (
        "x.csv",
        PLAIN.replace("u", "").replace("ser", "user") + "1.0,i1\n",
        "line 50: the user '1' is written as '1.0' too",
    ),
    "days or seconds": (
        "x.csv?since=2019-10-05",
        table(lambda u, i, n: f"u{u},i{i},201910{n % 28 + 1:02d}", "user,item,date"),
        "line 2: the timestamp may be a day or seconds. Say ?dates=%25Y%25m%25d if",
    ),
    "user and item in one column": ("x.csv?user=0&item=0", PLAIN, "user and item are one column"),
    "NULL": ("x.csv", PLAIN + "NULL,i1\n", "line 50: user is said to be missing.*missing=drop"),
    "NA": ("x.csv", PLAIN + "u1, NA\n", "line 50: item is said to be missing.*missing=keep"),
    "blanks alone": ("x.csv", PLAIN + "  ,i1\n", "line 50: no user. Name it or drop the line"),
    "a lone return": ("x.csv", "a,b,3\n\r,c,4\n", "line 3: no user"),
    "a last line of NBSP": ("x.csv", PLAIN + "\xa0", "line 50: 1 fields, but 2"),
    "a last line of a form feed": ("x.csv", PLAIN + "\f", "line 50: 1 fields, but 2"),
    "a last line of U+2028": ("x.csv", PLAIN + "\u2028", "line 50: 1 fields, but 2"),
    "a long id": (
        "x.csv",
        PLAIN + f"{'x' * 1001},i1\n",
        "line 50: the user has over 1000 characters",
    ),
    "names or a comment": (
        "x.csv",
        "#who,what\n" + PLAIN.partition("\n")[2],
        "may be names or a comm",
    ),
    "no such value": (
        "x.csv?where=item_id:i77",
        PLAIN,
        r"\['i77'\] is not in it; there are 'i1', 'i2'",
    ),
    "lists of one length": ("x.txt", "0 1 2\n1 2 3\n", "line 1: expected two .*?format=adjacency"),
    "broken JSON": (
        "x.json",
        '{"user": 1, "item": 2}\n{"user": 1,\n',
        "line 2: .*a JSON record a line",
    ),
    "JSON of numbers": ("x.json", "[1, 2]", "line 1: .*Expected a JSON record a line, or a list"),
    "a list as an id": ("x.json", '{"user": 1, "item": [2]}\n', "line 1: item is a list"),
    "no header in words": (
        "x.csv",
        "who,what\nann,Alien\n",
        "Say ?header=true, with user= and item=",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_may_be_read_in_two_ways_is_refused(tmp_path, case):
    address, content, problem = REFUSED[case]
    name, _, query = address.partition("?")
    write(tmp_path, name, content)
    pattern = "(?s)" + re.sub(r"\?(?=[a-z])", r"\\?", problem)
    with pytest.raises(DataError, match=pattern) as caught:
        load(f"{tmp_path / name}?{query}" if query else str(tmp_path / name))
    assert str(caught.value).startswith(str(tmp_path / name)) and str(caught.value).endswith(".")


def test_python_is_told_in_python(tmp_path):
    path = write(tmp_path, "x.csv", "who,what\nann,Alien\n")
    with pytest.raises(DataError, match="Say header=True, with user="):
        load(path)


def test_two_ways_are_settled_as_asked(tmp_path):
    text, _ = REFUSED["month or day first"][1:]
    path = write(tmp_path, "x.csv", text)
    us, eu = (quiet(path, split="time", dates=dates) for dates in ("us", "eu"))
    assert us.hash != eu.hash and us.hash == quiet(path, split="time", dates="%m/%d/%Y").hash
    path = write(tmp_path, "y.csv", REFUSED["decimal or thousands"][1])
    assert len(pairs_of(quiet(path, min_rating=4, decimal=","))) == 48
    assert quiet(path, min_rating=4, decimal=".").report["files"][0]["ratings"]["to"] == 4500
    text = REFUSED["a quote that closes elsewhere, or is of the cell"][1]
    path = write(tmp_path, "z.tsv", text)
    assert len(pairs_of(quiet(path, quote=False))) == 48
    assert len(pairs_of(quiet(path, quote=True))) == 44  # lines of four pairs are in one title
    path = write(tmp_path, "n.csv", PLAIN + "NULL,i1\nu1,NA\n")
    assert pairs_of(quiet(path, missing="keep")) == LABELS | {("NULL", "i1"), ("u1", "NA")}
    dropped = quiet(path, missing="drop")
    assert pairs_of(dropped) == LABELS and dropped.dropped["no user or item"] == 2


def test_zeros_that_count_as_liked_are_named(tmp_path):
    path = write(
        tmp_path, "x.csv", table(lambda u, i, n: f"{u},{i},{n % 3 // 2}", "user,item,label")
    )
    with pytest.warns(
        UserWarning, match=r"'label' goes from 0 to 1, and its 32 rows .* min_rating=1"
    ):
        data = load(path)
    assert len(pairs_of(data)) == 48
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(pairs_of(load(path, min_rating=1))) == 16
    assert not any("count as liked" in str(each.message) for each in caught)
    words = "False", "True", "true"
    text = table(lambda u, i, n: f"{u},{i},{words[n % 3]}", "user,item,liked")
    with pytest.warns(UserWarning, match="'liked' goes from 0 to 1, and its 16 rows"):
        load(write(tmp_path, "x.csv", text))
    text = table(lambda u, i, n: f"{u},{i},{'yes' * (n % 2)}", "user,item,liked")
    data = quiet(write(tmp_path, "x.csv", text))
    assert "ratings: not all are numbers, so they are not looked at" in datasets.account(data)


def test_a_robot_is_named_by_its_own_id_with_what_drops_it(tmp_path):
    robot = "".join(f"zz_bot,i{i}\n" for i in range(9))
    path = write(tmp_path, "x.csv", PLAIN + robot)
    with pytest.warns(UserWarning, match="user 'zz_bot' has every one of the 9 items.*max_pairs=8"):
        data = load(path)
    assert (data.n_users, data.n_items, data.report["kept"]) == (9, 9, 57)
    assert pairs_of(quiet(path, max_pairs=8)) == LABELS
    then = datasets.checks(data).loc["most train pairs of a user, share of all items", "then"]
    assert "'zz_bot'" in then and "max_pairs=" in then


def test_few_items_are_said_to_make_recall_one(tmp_path):
    path = write(tmp_path, "x.csv", PLAIN)
    with pytest.warns(UserWarning, match="recall@20 is 1 whatever is learned"):
        load(path)


noise = st.text('01ui,;"\t \n\r', max_size=12)


@settings(max_examples=300, deadline=None)
@given(
    spots=st.lists(st.tuples(st.integers(0, 400), noise), min_size=1, max_size=3),
)
def test_a_mutated_file_is_read_as_plainly_or_refused(tmp_path_factory, spots):
    """Every file that is accepted is read as an independent, naive reading reads it."""
    text = table(lambda u, i, n: f"u{u},i{i},{n}", "user,item,n")
    for at, insert in spots:
        text = text[:at] + insert + text[at:]
    path = write(tmp_path_factory.mktemp("m"), "x.csv", text)
    try:
        data = quiet(path, user="user", item="item", missing="keep")
    except DataError:
        return
    adds_up(data)
    plain = [line for line in re.split(r"\r\n|\r|\n", text)]
    top = next(line for line in plain if line.strip(" "))
    if '"' not in text:
        rows = [line.split(",") for line in plain if line.strip(" ")][1:]
        places = [[cell.strip() for cell in top.split(",")].index(key) for key in ("user", "item")]
        assert {tuple(row[k].strip() for k in places) for row in rows} == {
            tuple(map(str, pair)) for pair in pairs_of(data)
        }


# ---------------------------------------------------------------------------- the table of formats


def of_format(folder, kind: str):
    """The pairs in a format, as what `load` takes."""
    text = {
        "table": ("x.csv", PLAIN),
        "pairs": ("x.txt", table(lambda u, i, n: f"{u} {i}")),
        "adjacency": ("x.txt", lists(PAIRS[:-1])),  # of two lengths
        "JSON": LAYOUTS["JSON lines"],
        "packed": ("x.csv.gz", PLAIN),
        "folder": ("in/x.csv", PLAIN),
    }
    frame = pd.DataFrame(sorted(LABELS), columns=["user", "item"])
    if kind == "frame":
        return frame
    if kind == "matrix":
        return sparse.csr_array((np.ones(48), np.array(PAIRS).T), shape=(8, 9))
    if kind in ("parquet", "feather"):
        getattr(frame, f"to_{kind}")(folder / f"x.{kind}")
        return folder / f"x.{kind}"
    if kind == "xlsx":
        frame.to_excel(folder / "x.xlsx", index=False)
        return folder / "x.xlsx"
    if kind == "archive":
        with zipfile.ZipFile(folder / "x.zip", "w") as archive:
            archive.writestr("x.csv", PLAIN)
        return folder / "x.zip"
    name, content = text[kind]
    (folder / name).parent.mkdir(exist_ok=True)
    path = write(folder, name, content)
    return path.parent if kind == "folder" else path


@pytest.mark.parametrize("kind", datasets.formats().index)
def test_every_row_of_the_table_of_formats_is_true(tmp_path, kind):
    data = quiet(of_format(tmp_path, kind))
    numbers = set(PAIRS[:-1] if kind == "adjacency" else PAIRS)
    assert pairs_of(data) == (LABELS if data.user_ids is not None else numbers)
    formats = {file["format"] for file in data.report["files"]}
    assert formats == {kind} or kind in ("packed", "archive", "folder")


def test_the_readme_has_the_table_of_formats_and_every_option():
    page = (Path(__file__).parents[2] / "data" / "README.md").read_text(encoding="utf-8")
    rows = ["| format | example | told by |", "|---|---|---|"]
    rows += [f"| `{row.Index}` | {row.example} | {row.told_by} |" for row in FORMATS.itertuples()]
    rows = [row.replace("`|`", "`\\|`") for row in rows]
    found = page.partition("as a table -->\n")[2].partition("<!-- end -->")[0]
    assert found == "\n".join(rows) + "\n"
    options, kinds = page.partition("| option |")[2].split("| split |")
    for option in Options.model_fields:
        assert f"`{option}`" in options, option
    rows = [f"| `{kind}` | {what} | {used} |" for kind, (what, used) in splits.KINDS.items()]
    assert "\n".join(rows) in kinds


# ---------------------------------------------------------------------------- packed and archived

PACK = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda raw: pytest.importorskip("zstandard").compress(raw),
}


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("named", [True, False])
def test_packed_files(tmp_path, kind, named):
    packed = PACK[kind](PLAIN.encode())
    path = tmp_path / (f"x.csv.{kind}" if named else "x.csv")
    path.write_bytes(packed)
    assert pairs_of(quiet(path)) == LABELS
    path.write_bytes(packed[:-9])
    with pytest.raises(DataError, match=r"line \d+: cannot be read: .*Copy or download"):
        load(path)


@pytest.mark.parametrize("kind", PACK)
def test_what_unpacks_to_far_more_than_a_table_is_refused_early(tmp_path, kind, monkeypatch):
    path = tmp_path / f"x.csv.{kind}"
    monkeypatch.setattr(files, "_MOST", 1 << 18)
    path.write_bytes(PACK[kind](b"u1,i1\n" * (1 << 20)))
    tracemalloc.start()
    begin = time.perf_counter()
    try:
        with pytest.raises(DataError, match="unpack to more than 100 times as many"):
            load(path)
        if kind != "xz":  # whose own dictionary is larger
            assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - begin < 10


def test_a_member_of_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("set/ratings.csv", PLAIN)
        archive.writestr("__MACOSX/._ratings.csv", b"\0")
    assert pairs_of(quiet(tmp_path / "x.zip")) == LABELS
    with zipfile.ZipFile(tmp_path / "x.zip", "a") as archive:
        archive.writestr("set/movies.csv", "item,title\n")
    with pytest.raises(DataError, match=r"'set/ratings.csv', 'set/movies.csv'. Say member="):
        load(str(tmp_path / "x.zip"))
    assert pairs_of(quiet(f"{tmp_path / 'x.zip'}?member=set/ratings.csv")) == LABELS
    with pytest.raises(DataError, match=r"no file 'ratings.csv' in it"):
        load(f"{tmp_path / 'x.zip'}?member=ratings.csv")


@pytest.mark.parametrize(
    ("magic", "what"),
    [
        (b"\x89HDF\r\n", "HDF5"),
        (b"\x80\x05", "may run code"),
        (b"SQLite format 3\0", "SQLite"),
        (b"\xd0\xcf\x11\xe0", "old Excel"),
        (b"%PDF-1.4", "PDF"),
        (b"<!DOCTYPE html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b"\x93NUMPY", "NumPy"),
    ],
)
def test_foreign_formats_are_named(tmp_path, magic, what):
    path = tmp_path / "x.csv"
    path.write_bytes(magic + b" rest")
    with pytest.raises(DataError, match=f"x.csv: is .*{what}.*: "):
        load(path)


# ---------------------------------------------------------------------------- typed tables

FRAME = pd.DataFrame(
    [(f"u{u}", f"i{i}", 4.0, MOMENTS[u, i]) for u, i in PAIRS],
    columns=["user_id", "item_id", "rating", "timestamp"],
)


@pytest.mark.parametrize("kind", ["parquet", "feather", "xlsx", "pandas", "polars", "arrow"])
def test_typed_tables(tmp_path, kind):
    if kind == "xlsx":
        pytest.importorskip("openpyxl")
    frame: object = FRAME
    if kind in ("parquet", "feather"):
        frame = tmp_path / f"x.{kind}"
        getattr(FRAME, f"to_{kind}")(frame)
    elif kind == "xlsx":
        frame = tmp_path / "x.xlsx"
        FRAME.to_excel(frame, index=False)
    elif kind == "polars":
        frame = pytest.importorskip("polars").from_pandas(FRAME)
    elif kind == "arrow":
        frame = pytest.importorskip("pyarrow").Table.from_pandas(FRAME)
    data = quiet(frame, split="time", fractions=(0.5, 0.25, 0.25), min_rating=4)
    assert pairs_of(data, "train") == {(f"u{u}", f"i{i}") for u, i in ORDER[:24]}
    adds_up(data)
    if isinstance(frame, type(tmp_path)):
        frame.write_bytes(frame.read_bytes()[:-40])
        with pytest.raises(DataError, match=f"x.{kind}.* no |is a zip archive"):
            load(frame)


def test_whole_numbers_beside_missing_ones_stay_whole(tmp_path):
    frame = pd.DataFrame({"user": [1.0, 2.0, np.nan], "item": [10, 20, 30]})
    with pytest.raises(DataError, match="row 3: no user"):
        load(frame)
    data = quiet(frame, missing="drop")
    assert data.user_ids.tolist() == [1, 2] and data.dropped["no user or item"] == 1


def test_a_sparse_matrix_is_users_by_items():
    users, items = np.array(PAIRS).T
    matrix = sparse.csr_matrix((np.arange(48) + 1.0, (users, items)), shape=(8, 9))
    data = quiet(matrix, name="mine")
    assert pairs_of(data) == set(PAIRS) and data.name == "mine" and data.user_ids is None
    assert len(pairs_of(quiet(matrix, min_rating=40))) == 9
    wide = sparse.csr_matrix((np.ones(48), (users, items)), shape=(10, 12))
    assert (quiet(wide).n_users, quiet(wide).n_items) == (10, 12)
    assert quiet(wide, k_core=2).n_users == 8
    with pytest.raises(DataError, match="holds no pair"):
        load(sparse.csr_matrix((3, 3)))


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("min_rating=6", "no rating reaches .?min_rating=6"),
        ("since=2020", "no row lies between since and until"),
        ("until=2019-03-04", "no row lies between since and until"),
        ("max_pairs=1", "every user has more than .?max_pairs=1 pairs"),
        ("k_core=9", "nothing is left with .?k_core=9"),
        ("where=rating:5", "not in it; there are '4.0'"),
    ],
)
def test_a_filter_that_leaves_nothing_is_named(tmp_path, query, problem):
    FRAME.to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(DataError, match=problem) as caught:
        load(f"{tmp_path / 'x.csv'}?{query}")
    assert str(caught.value).startswith(str(tmp_path))


def test_a_year_is_a_date(tmp_path):
    FRAME.assign(timestamp=FRAME["timestamp"] - pd.Timedelta(80, "D")).to_csv(
        tmp_path / "x.csv", index=False
    )
    path = f"{tmp_path / 'x.csv'}"
    before, after = quiet(f"{path}?until=2019"), quiet(f"{path}?since=2019")
    assert before.report["kept"] == 18 and after.report["kept"] == 30
    assert quiet(path, since=2019).hash == after.hash


# ---------------------------------------------------------------------------- splits


def parted(n: int) -> str:
    return ("train", "train", "train", "valid", "test")[n % 5]


THREE = {
    part: {pair for n, pair in enumerate(PAIRS) if parted(n) == part} for part in datasets.SPLITS
}


def lists(pairs) -> str:
    grouped = itertools.groupby(sorted(pairs), key=lambda pair: pair[0])
    return "".join(f"{u} {' '.join(str(i) for _, i in some)}\n" for u, some in grouped)


def columns(pairs, header="", sep="\t") -> str:
    return header + "".join(f"{u}{sep}{i}{sep}3{sep}{9 * u + i}\n" for u, i in sorted(pairs))


INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
SPLITS = {
    "pairs": (
        "train.txt?valid=valid.txt&test=test.txt",
        lambda pairs: "".join(f"{u} {i}\n" for u, i in pairs),
        "{}.txt",
    ),
    "lists": ("train.txt?valid=valid.txt&test=test.txt", lists, "{}.txt"),
    "RecBole": (
        "ml.train.inter?valid=ml.valid.inter&test=ml.test.inter",
        lambda p: columns(p, INTER),
        "ml.{}.inter",
    ),
    "MovieLens": ("u1.base?test=u1.test&valid=u1.val", columns, "u1.{}"),
    "in a folder": (".", lambda p: columns(p, INTER), "ml.{}.inter"),
}
ENDS = {"u1.{}": {"train": "base", "valid": "val", "test": "test"}}


@pytest.mark.parametrize("case", SPLITS)
def test_a_split_made_elsewhere(tmp_path, case):
    address, spell, names = SPLITS[case]
    for part, pairs in THREE.items():
        write(tmp_path, names.format(ENDS.get(names, {}).get(part, part)), spell(pairs))
    data = quiet(f"{tmp_path}/{address}")
    for part, pairs in THREE.items():
        assert pairs_of(data, part) == pairs
    assert data.report["split"] == "as given"
    adds_up(data)


def test_a_split_in_an_archive_or_a_column(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for part, pairs in THREE.items():
            archive.writestr(f"set/{part}.tsv", columns(pairs, "user\titem\tr\tt\n"))
        archive.writestr("set/user_list.tsv", "a\tb\n")
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        for part, pairs in THREE.items():
            content = lists(pairs).encode()
            info = tarfile.TarInfo(f"set/{part}.txt")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    named = {"train": "train", "valid": "dev", "test": "TEST"}
    rows = "".join(f"{u},{i},{named[parted(n)]}\n" for n, (u, i) in enumerate(PAIRS))
    write(tmp_path, "x.csv", "user,item,split\n" + rows)
    write(tmp_path, "y.csv", "user,item,fold\n" + rows)
    for address in ("x.zip", "x.tar.gz", "x.csv", "y.csv?split=column:fold"):
        data = quiet(f"{tmp_path}/{address}")
        for part, pairs in THREE.items():
            assert pairs_of(data, part) == pairs, address
    assert quiet(f"{tmp_path}/x.csv?split=random").report["split"] == "random"
    anew = quiet(f"{tmp_path}/x.zip?split=random")
    assert pairs_of(anew) == set(PAIRS) and pairs_of(anew, "test") != THREE["test"]
    data = quiet(f"{tmp_path}/x.zip?member=set/valid.tsv&test=set/test.tsv&fractions=1,0,0")
    assert pairs_of(data, "train") == THREE["valid"] and pairs_of(data, "test") == THREE["test"]
    with pytest.raises(DataError, match="line 2: the split is none of train, valid and test"):
        load(write(tmp_path, "z.csv", "user,item,split\n1,2,first\n3,4,train\n"))


def test_several_folds_in_a_folder_are_asked_for(tmp_path):
    for fold, part in itertools.product(("u1", "u2"), ("base", "test")):
        write(tmp_path, f"{fold}.{part}", columns(THREE["train" if part == "base" else "test"]))
    with pytest.raises(DataError, match=r"2 splits are in it: 'u1.base', 'u2.base'. Say member="):
        load(str(tmp_path))
    data = quiet(f"{tmp_path}?member=u2.base&fractions=1,0,0")
    assert pairs_of(data, "train") == THREE["train"] and pairs_of(data, "test") == THREE["test"]


def test_overlap_is_refused_or_dropped_and_counted(tmp_path):
    write(tmp_path, "train.csv", "user,item\n" + "".join(f"u{u},i{i}\n" for u, i in PAIRS[:40]))
    write(tmp_path, "test.csv", "user,item\n" + "".join(f"u{u},i{i}\n" for u, i in PAIRS[30:]))
    address = f"{tmp_path}/train.csv?test=test.csv"
    with pytest.raises(
        DataError, match=r"10 pairs are in two splits, such as user 'u\d', item 'i\d'"
    ):
        load(address)
    data = quiet(f"{address}&overlap=drop&fractions=1,0,0")
    assert (data.train.nnz, data.test.nnz) == (40, 8)
    assert data.dropped["in an earlier split too"] == 10
    adds_up(data)


def test_valid_is_cut_from_train_where_there_is_none(tmp_path):
    rng = np.random.default_rng(0)
    seen = [rng.permutation(60)[: 10 + u] for u in range(30)]
    for part, some in (
        ("train", [each[:-4] for each in seen]),
        ("test", [each[-4:] for each in seen]),
    ):
        write(tmp_path, f"{part}.txt", lists({(u, i) for u, each in enumerate(some) for i in each}))
    data = quiet(f"{tmp_path}/train.txt?test=test.txt&seed=3")
    held = np.diff(data.valid.indptr)
    assert (held == [(6 + u) // 9 for u in range(30)]).all()  # a ninth, rounded down
    assert data.train.nnz + data.valid.nnz == sum(len(each) - 4 for each in seen)
    assert quiet(f"{tmp_path}/train.txt?test=test.txt&fractions=1,0,0").valid.nnz == 0


def test_users_unseen_in_train_are_kept_and_counted(tmp_path):
    write(tmp_path, "train.csv", "user,item\n" + "".join(f"u{u},i{i}\n" for u, i in PAIRS[:30]))
    write(tmp_path, "test.csv", "user,item\nnew,i1\n")
    with pytest.warns(UserWarning, match="1 of 6 users and 0 of 9 items have no train pair"):
        data = load(f"{tmp_path}/train.csv?test=test.csv&fractions=1,0,0")
    assert pairs_of(data, "test") == {("new", "i1")}


def test_lists_of_one_length_need_their_name(tmp_path):
    path = write(tmp_path, "x.txt", "0 1 2\n1 2 3\n")
    assert pairs_of(quiet(f"{path}?format=adjacency")) == {(0, 1), (0, 2), (1, 2), (1, 3)}


def timed(tmp_path):
    rng = np.random.default_rng(1)
    rows = {
        (u, i): int(rng.integers(10**6)) for u in range(40) for i in rng.permutation(50)[: 2 + u]
    }
    lines = "".join(f"{u},{i},{t}\n" for (u, i), t in rows.items())
    return write(tmp_path, "x.csv", "user,item,time\n" + lines), rows


def test_each_users_last_pair_is_left_out(tmp_path):
    path, rows = timed(tmp_path)
    data = quiet(path, split="last")
    for u in range(40):
        own = sorted((pair for pair in rows if pair[0] == u), key=rows.get)
        expected = (own[:-2], own[-2:-1], own[-1:]) if len(own) > 2 else (own, [], [])
        for part, pairs in zip(datasets.SPLITS, expected, strict=True):
            assert {pair for pair in pairs_of(data, part) if pair[0] == u} == {*pairs}


def test_each_users_pairs_by_time(tmp_path):
    path, rows = timed(tmp_path)
    data = quiet(path, split="user-time", fractions=(0.6, 0.2, 0.2))
    for u in range(40):
        own = sorted((pair for pair in rows if pair[0] == u), key=rows.get)
        a, b = (int(np.ceil(share * len(own) - 1e-9)) for share in (0.6, 0.8))
        assert {pair for pair in pairs_of(data, "train") if pair[0] == u} == {*own[:a]}
        assert {pair for pair in pairs_of(data, "test") if pair[0] == u} == {*own[b:]}


def test_a_split_by_popularity_is_flat_over_items(tmp_path):
    rng = np.random.default_rng(2)
    fame = 1 / (np.arange(60) + 5)
    lines = [
        f"{u},{i}\n"
        for u in range(400)
        for i in rng.choice(60, 15, replace=False, p=fame / fame.sum())
    ]
    path = write(tmp_path, "x.csv", "user,item\n" + "".join(lines))
    flat, usual = quiet(path, split="popularity"), quiet(path)
    spread = [
        np.std(np.bincount(data.test.indices, minlength=60)) / (data.test.nnz / 60)
        for data in (flat, usual)
    ]
    assert spread[0] < 0.6 * spread[1]
    assert flat.test.nnz == usual.report["kept"] // 10 and np.diff(flat.train.indptr).min() > 0
    assert np.bincount(flat.train.indices, minlength=60).min() > 0
    assert (
        flat.hash
        == quiet(path, split="popularity").hash
        != quiet(path, split="popularity", seed=1).hash
    )


def drawn_by_lot(users, items, count, rng) -> set:
    """The description taken literally: an item by lot, one of its pairs by lot, one is left."""
    left = {item: [*np.flatnonzero(items == item)] for item in np.unique(items)}
    test = set()
    while len(test) < count:
        own = left[rng.choice([*left])]
        if len(own) > 1:
            test.add(own.pop(rng.integers(len(own))))
    return test


def test_a_split_by_popularity_has_the_law_of_the_draws_that_define_it():
    """How often each pair is in test, over many seeds, beside a literal simulation."""
    sizes, rng = [2, 3, 4, 8, 20, 40], np.random.default_rng(0)
    items = np.repeat(np.arange(6), sizes)
    users = np.arange(len(items)) % 7  # so many pairs that no user's last one is in question
    draws, shares = 1_500, np.array([0.7, 0.0, 0.3])
    count = round(0.3 * len(items))
    ours, literal = np.zeros(len(items)), np.zeros(len(items))
    for seed in range(draws):
        ours += splits.deal_by_popularity(users, items, shares, np.random.default_rng(seed)) == 2
        literal[[*drawn_by_lot(users, items, count, rng)]] += 1
    ours, literal = (np.bincount(items, weights=each) / draws for each in (ours, literal))
    assert ours.sum() == literal.sum() == count
    np.testing.assert_allclose(ours, literal, atol=0.12)  # 5 standard errors of such a mean
    assert abs(ours[4] - ours[5]) < 0.25  # twice as popular, as often in test


# ---------------------------------------------------------------------------- size


def test_a_bad_last_line_is_named_in_the_time_of_reading(tmp_path):
    lines = "".join(f"u{n % 5003},i{n % 977}\n" for n in range(400_000))
    good, bad = write(tmp_path, "x.csv", "user,item\n" + lines), tmp_path / "y.csv"
    bad.write_text(good.read_text() + "u1,i1,9\n")
    quiet(good)
    begin = time.perf_counter()
    quiet(good)
    reading = time.perf_counter() - begin
    begin = time.perf_counter()
    with pytest.raises(DataError, match="line 400002: 3 fields, but 2"):
        load(bad)
    assert time.perf_counter() - begin < 3 * reading + 1


@pytest.mark.parametrize("name", ["x.csv", "x.txt"])
def test_a_line_of_millions_of_fields_is_refused_at_once(tmp_path, name):
    sep = "," if name == "x.csv" else " "
    path = write(tmp_path, name, sep.join(["7"] * 3_000_000) + "\n")
    begin = time.perf_counter()
    with pytest.raises(DataError, match="line 1: "):
        load(path)
    assert time.perf_counter() - begin < 5


PEAK = """
import re, sys, warnings
from drrl_core import datasets
warnings.simplefilter("ignore")
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = peak()
datasets.load(sys.argv[1])
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are told by Linux alone")
@pytest.mark.parametrize("dates", [False, True])
def test_a_split_by_time_takes_hardly_more_memory_than_one_at_random(tmp_path, dates):
    rng, n = np.random.default_rng(0), 600_000
    times = rng.integers(10**9, 2 * 10**9, n)
    times = times.astype("datetime64[s]").astype(str) if dates else times
    columns = zip(rng.integers(0, 30_000, n), rng.integers(0, 9_000, n), times, strict=True)
    path = write(tmp_path, "x.csv", "".join(f"{u},{i},3,{t}\n" for u, i, t in columns))
    address = f"{path}?user=0&item=1&rating=2&timestamp=3"
    peaks = [
        int(subprocess.run([sys.executable, "-c", PEAK, each], capture_output=True).stdout)
        for each in (address, f"{address}&split=time")
    ]
    # dates are kept as text once: 2.1 to 2.5 times were seen
    assert peaks[1] < (2.8 if dates else 1.4) * peaks[0], peaks


def test_dates_beyond_the_years_of_nanoseconds(tmp_path):
    for spell in (str, lambda day: "/".join(reversed(str(day).split("-")))):  # ISO, day first
        days = [f"{year}-12-31" for year in (1600, 1969, 1999, 9999)]
        lines = [f"u{n % 9},i{n},{spell(days[n % 4])}" for n in range(40)]
        data = quiet(write(tmp_path, "x.csv", "\n".join(["user,item,date", *lines])), since="1970")
        assert {int(item[1:]) % 4 for _, item in pairs_of(data)} == {2, 3}


# ---------------------------------------------------------------------------- real archives


@pytest.mark.data
@pytest.mark.parametrize(
    ("address", "users", "items", "train", "test"),
    [
        # IR-Benchmark's archive, as its summary.txt counts
        ("movielens-1m/proc.zip", 6_033, 3_123, 665_133, 169_316),
        # LightGCN's lists, as its Table 2 counts: 1,561,406 interactions
        ("yelp2018/yelp2018.tar.gz", 31_668, 38_048, 1_237_259, 324_147),
        # the same three files as the named set
        ("amazon-beauty", 7_068, 3_570, 51_455 + 9_363, 18_688),
    ],
)
def test_real_splits_made_elsewhere(address, users, items, train, test):
    root = real_data(address.partition("/")[0])
    data = quiet(f"{root}/{address}")
    assert (data.n_users, data.n_items, data.test.nnz) == (users, items, test)
    assert data.train.nnz + data.valid.nnz == train and data.valid.nnz > 0
    adds_up(data)
    if address == "amazon-beauty":
        assert data.hash == quiet("amazon-beauty", data_dir=root).hash
