"""Public sets that one brings oneself: each is read in its layout, and its counts compared."""

import gzip
import io
import tarfile
import warnings
import zipfile
from pathlib import Path

import pytest
from datasets_help import pairs_of, quiet, real_data

from drrl_core import datasets
from drrl_core.datasets import DataError, load, public, recipe

# Every user and item has a pair in train, so that nothing else is warned about.
PAIRS = [(u, i) for u in range(1, 31) for i in range(1, 41) if (u + i) % 3]
SPLIT = {"train": PAIRS[:-80], "valid": PAIRS[-80:-40], "test": PAIRS[-40:]}
TIME = 1_300_000_000


def lines(line, pairs=PAIRS, header="") -> bytes:
    rows = [line(u, i, n) for n, (u, i) in enumerate(pairs)]
    return ("\n".join(([header] if header else []) + rows) + "\n").encode()


def lists(pairs) -> bytes:
    users = dict.fromkeys(u for u, _ in pairs)
    return "".join(f"{u} {' '.join(str(i) for v, i in pairs if v == u)}\n" for u in users).encode()


def rated(sep, header=""):
    return lambda: lines(lambda u, i, n: sep.join(map(str, (u, i, 3.5, TIME + n))), header=header)


def steam(u, i, n) -> str:
    """As the file's own lines are: printed by Python 2, with what trips a reader of JSON."""
    text, date = 'u"it\'s \\xfc"', f"u'20{10 + n % 9}-01-0{1 + n % 9}'"
    return f"{{u'username': u'{u}', u'product_id': u'{i}', u'text': {text}, 'date': {date}}}"


def amazon(u, i, n) -> str:
    ids = f'"user_id": "{u}", "parent_asin": "{i}", "asin": "V{i}", "timestamp": {TIME + n}000'
    return f'{{"rating": 4.0, "title": "t", "images": [], {ids}}}'


AMAZON = "user_id,parent_asin,rating,timestamp"
CSV = rated(",", "userId,movieId,rating,timestamp")
BY_MEMBER = {  # what a layout's file holds, by its name in the recipe: the content, or of members
    "u.data": rated("\t"),
    "ratings.dat": rated("::"),
    "ratings.csv": CSV,
    "user_artists.dat": lambda: lines(
        lambda u, i, n: f"{u}\t{i}\t{n}", header="userID\tartistID\tweight"
    ),
    "usersha1-artmbid-artname-plays.tsv": lambda: (
        lines(lambda u, i, n: f'{u}\t{i}\tA "quote\t{n}') + b"1\t\tno id\t3\n"
    ),
    "data1.txt": lambda: lines(lambda u, i, n: f"{u}\t{i}\t{n}", PAIRS[:-40]),
    "test1.txt": lambda: lines(lambda u, i, n: f"{u}\t{i}\t{n}", PAIRS[-40:]),
    "train.txt": lambda: lists(PAIRS[:-40]),
    "test.txt": lambda: lists(PAIRS[-40:]),
    "train.tsv": lambda: lines(
        lambda u, i, n: f"{u}\t{i}", PAIRS[:-40], "user_procid\titem_procid"
    ),
    "test.tsv": lambda: lines(lambda u, i, n: f"{u}\t{i}", PAIRS[-40:], "user_procid\titem_procid"),
    "loc-gowalla_totalCheckins.txt.gz": lambda: lines(
        lambda u, i, n: f"{u}\t2010-10-19T23:{n % 60:02}:27Z\t30.2\t-97.7\t{i}"
    ),
    "steam_reviews.json.gz": lambda: lines(steam),
    "Books.jsonl.gz": lambda: lines(amazon),
    "Books.csv.gz": rated(",", AMAZON),
    **{
        f"Books.{role}.csv{end}": (
            lambda pairs=pairs: lines(lambda u, i, n: f"{u},{i},4.0,{n}", pairs, AMAZON)
        )
        for role, pairs in SPLIT.items()
        for end in ("", ".gz")
    },
}
MEMBERS = {
    "proc.zip": ["train.tsv", "test.tsv"],
    "yelp2018.tar.gz": ["yelp2018/train.txt", "yelp2018/test.txt"],
}


def bring(folder: Path, found: recipe.Recipe) -> None:
    """Lay a set's file, of its layout and with our pairs, in its folder."""
    home = folder / found.name
    home.mkdir(parents=True, exist_ok=True)
    options = public.parse(found.address.partition("?")[2])
    members = MEMBERS.get(found.file) or [options[key] for key in options if key == "member"]
    content = {name: BY_MEMBER[Path(name).name]() for name in members}
    if found.file.endswith(".zip"):
        with zipfile.ZipFile(home / found.file, "w") as archive:
            archive.writestr("README.txt", "read me")
            for name, raw in content.items():
                archive.writestr(name, raw)
    elif found.file.endswith(".tar.gz"):
        with tarfile.open(home / found.file, "w:gz") as archive:
            for name, raw in content.items():
                info = tarfile.TarInfo(name)
                info.size = len(raw)
                archive.addfile(info, io.BytesIO(raw))
    else:
        for name in public._files(found):
            raw = BY_MEMBER[name]()
            (home / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)


EVERY = [
    (name, k)
    for name in dict.fromkeys(datasets.recipes().index.str.replace("*", "Books"))
    for k in range(len(recipe.recipes_of(name)))
]


@pytest.mark.parametrize("name, k", EVERY)
def test_every_recipe_reads_its_layout_and_checks_the_counts(name, k, tmp_path, monkeypatch):
    found = recipe.recipes_of(name)[k]
    bring(tmp_path, found)
    monkeypatch.setenv("DRRL_DATA", str(tmp_path))
    monkeypatch.setenv("DRRL_OFFLINE", "1")
    with pytest.warns(UserWarning, match=f"{name}: {found.file} holds .* not .*, as published by"):
        data = load(name)
    assert pairs_of(data) == {*PAIRS}
    gone = {why: count for why, count in data.dropped.items() if count}
    assert gone == ({"no user or item": 1} if name == "lastfm-360k" else {})
    holds = {"users": 30, "items": 40, "rows": len(PAIRS) + len(gone)}
    assert data.report["holds"] == holds
    said = [text for text in data.report["published"]["differences"]]
    assert len(said) == sum(map(bool, found.holds)) and f"{holds['rows']:,} rows, not" in said[-1]
    assert any(found.source in line for line in datasets.account(data))

    # Where the counts are right, nothing is said; the user's own options come on top.
    right = recipe.Recipe(name, found.address, tuple(holds.values()), "us", "", "")
    monkeypatch.setattr(public, "recipes_of", lambda _: [right])
    with warnings.catch_warnings(record=True) as caught:
        again = load(f"{name}?name=mine")
    assert not [each for each in caught if "published" in str(each.message)]
    assert again.hash == data.hash and again.name == "mine"
    assert again.report["published"] == {"source": "us", "differences": []}
    assert "published (us): the same" in datasets.account(again)
    if found.file in MEMBERS or "test=" in found.address:
        assert pairs_of(data, "test") == {*PAIRS[-40:]}


@pytest.mark.data
def test_the_files_at_hand_hold_what_was_published():
    root = real_data("movielens-1m")
    for name, k in EVERY:
        found = recipe.recipes_of(name)[k]
        if all((root / name / file).is_file() for file in public._files(found)):
            published = quiet(name, data_dir=root).report["published"]
            assert published == {"source": found.source, "differences": []}


@pytest.mark.parametrize(
    "said, least, most",
    [("632.0K", 631_950, 632_050), ("2.5M", 2_450_000, 2_550_000), (641, 641, 641)],
)
def test_a_rounded_count_is_one_of_those_that_round_to_it(said, least, most):
    held = recipe.Recipe("x", "x.csv", (said, 0, 0), "s", "u", "c")
    for count, differs in ((least, 0), (most, 0), (least - 1, 1), (most + 1, 1)):
        found = held.differences({"users": count, "items": 1, "rows": 1})
        assert len(found) == differs, count
    assert held.differences({"users": 7, "items": 1, "rows": 1}) == [f"7 users, not {said}"]


def test_a_file_that_is_missing_is_named_with_its_folder_and_where_it_is_had(tmp_path, monkeypatch):
    monkeypatch.setenv("DRRL_OFFLINE", "1")
    with pytest.raises(DataError) as error:
        load("steam?k_core=5", data_dir=tmp_path)
    for part in (str(tmp_path / "steam"), "steam_reviews.json.gz", "https://cseweb.ucsd.edu"):
        assert part in str(error.value)
    with pytest.raises(DataError, match=r"DRRL_OFFLINE forbids to fetch https://files\.grouplens"):
        load("movielens-20m", data_dir=tmp_path)
    with pytest.raises(DataError, match=r"no such part of amazon-2023-\*; did you mean 'Books'"):
        load("amazon-2023-Bokks")
    with pytest.raises(DataError, match="Did you mean 'movielens-1m'"):
        load("movielens-1n")


def test_the_readme_has_the_table_of_recipes():
    page = (Path(__file__).parents[2] / "data" / "README.md").read_text(encoding="utf-8")
    rows = ["| name | file | users / items / rows | counted | source |", "|---|---|---|---|---|"]
    for row in datasets.recipes().itertuples():
        counts = " / ".join(each or "–" for each in (row.users, row.items, row.rows))
        counts = counts if row.rows else "27 to 34 parts, as in `recipes.toml`"
        counted = "yes" if row.checked else "no"
        rows.append(f"| `{row.Index}` | `{row.file}` | {counts} | {counted} | {row.source} |")
    found = page.partition("`datasets.recipes()` as a table -->\n")[2].partition("<!-- end -->")[0]
    assert found == "\n".join(rows) + "\n"
