"""Interaction data: named public sets, your own files, and an embedded synthetic set.

`load` is the one door: every set arrives as an immutable `Interactions`, whatever its source.
"""

import codecs
import contextlib
import csv
import difflib
import gzip
import hashlib
import io
import itertools
import os
import re
import sys
import urllib.parse
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pooch
from scipy import sparse

SPLITS = ("train", "valid", "test")


class DataError(Exception):
    """Data that cannot be had or read; the message names file and line, or URL, and the way out."""


@dataclass(frozen=True, eq=False)
class Interactions:
    """Who interacted with what, in three disjoint splits; immutable.

    Args:
        name: the set's name, for titles and records.
        n_users: rows of each split, >= 1.
        n_items: columns of each split, >= 1.
        train: pairs to learn from, (n_users, n_items); any scipy sparse array, stored as a
            read-only CSR copy: ones, sorted indices, no duplicates.
        valid: pairs to select by, likewise.
        test: pairs to report on, likewise.
        user_ids: the original label of each user, (n_users,), or None where ids are used as is.
        item_ids: the original label of each item, (n_items,), or None.
        truth: bool (n_users, n_items), True where the user would really like the item; known for
            generated data alone, otherwise None.
        dropped: of your own file, why rows of it are in no split, and how many; otherwise None.

    Raises:
        ValueError: an array's shape is not that of n_users and n_items.

    >>> data = load("synthetic")
    >>> data
    Interactions(name='synthetic', n_users=1000, n_items=800)
    >>> false_negative = data.truth & (data.train.toarray() == 0)
    """

    name: str
    n_users: int
    n_items: int
    train: sparse.csr_array = field(repr=False)
    valid: sparse.csr_array = field(repr=False)
    test: sparse.csr_array = field(repr=False)
    user_ids: np.ndarray | None = field(default=None, repr=False)
    item_ids: np.ndarray | None = field(default=None, repr=False)
    truth: np.ndarray | None = field(default=None, repr=False)
    dropped: dict[str, int] | None = field(default=None, repr=False)

    def __post_init__(self):
        shape = (self.n_users, self.n_items)
        shapes = dict.fromkeys((*SPLITS, "truth"), shape)
        shapes |= {"user_ids": shape[:1], "item_ids": shape[1:]}
        for key, wanted in shapes.items():
            if (value := getattr(self, key)) is None:
                continue
            if value.shape != wanted:
                raise ValueError(f"{key} has shape {value.shape}, not {wanted}")
            value = _canonical(value) if key in SPLITS else np.array(value)
            for array in (value.data, value.indices, value.indptr) if key in SPLITS else (value,):
                array.setflags(write=False)
            object.__setattr__(self, key, value)

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of the sizes and the three splits, the same on every platform.

        >>> load("synthetic").hash == load("synthetic", seed=1).hash
        False
        """
        digest = hashlib.sha256(np.array([self.n_users, self.n_items], "<i8").tobytes())
        for split in (self.train, self.valid, self.test):
            digest.update(split.indptr.astype("<i8").tobytes())
            digest.update(split.indices.astype("<i8").tobytes())
        return digest.hexdigest()

    def stats(self) -> pd.DataFrame:
        """Sizes and gaps, one row a quantity, one column under the set's name.

        Returns:
            Counts of users, items and pairs; density: all pairs / (users x items), dimensionless.
            `pd.concat([a.stats(), b.stats()], axis=1)` sets two data sets side by side.

        >>> load("synthetic").stats().loc["users", "synthetic"]
        1000
        """
        pairs = {f"{key} pairs": int(getattr(self, key).nnz) for key in SPLITS}
        users_without, items_without = _without_train(self)
        rows = {
            "users": self.n_users,
            "items": self.n_items,
            **pairs,
            "density": sum(pairs.values()) / (self.n_users * self.n_items),
            "users without train pairs": users_without,
            "items without train pairs": items_without,
            "median train pairs a user": float(np.median(np.diff(self.train.indptr))),
            "most train pairs a user": int(np.diff(self.train.indptr).max()),
        }
        return pd.Series(rows, dtype=object).to_frame(self.name)


def checks(data: Interactions) -> pd.DataFrame:
    """What makes models useless on one's own data, looked for one by one.

    Returns:
        A row a check: found, a count or a share (dimensionless); look, whether that is worth a
        look, by a rule of thumb; then, what follows from it, and the way out.

    >>> checks(load("synthetic"))["look"].any()
    np.False_
    """
    degree = np.diff(data.train.indptr)
    fame = np.bincount(data.train.indices, minlength=data.n_items)
    users, items = degree > 0, fame > 0
    user, item = np.hstack([data.valid.nonzero(), data.test.nonzero()])
    total = max(1, len(user))
    cold_users, cold_items = (~users[user]).sum() / total, (~items[item]).sum() / total
    splits = [data.train, data.valid, data.test]
    shared = sum(int(a.multiply(b).nnz) for a, b in itertools.combinations(splits, 2))
    top = np.sort(fame)[::-1][: max(1, data.n_items // 100)].sum() / max(1, fame.sum())
    gone = data.dropped or {}
    repeated, rows = gone.get("repeated", 0), sum(gone.values()) + sum(s.nnz for s in splits)
    known = degree[users] if users.any() else np.zeros(1)
    table = {
        "pairs in two splits": (
            *(shared, shared > 0),
            "what is masked in the ranking can never be found: split anew",
        ),
        "valid pairs": (
            *(data.valid.nnz, not data.valid.nnz),
            "none: nothing to choose by; larger fractions",
        ),
        "test pairs": (
            *(data.test.nnz, not data.test.nnz),
            "none: accuracy cannot be told; larger fractions",
        ),
        "held-out pairs whose user has no train pair, share": (
            *(cold_users, cold_users > 0.02),
            "such a user is ranked at random; split='random' keeps one pair to train",
        ),
        "held-out pairs whose item has no train pair, share": (
            *(cold_items, cold_items > 0.02),
            "such an item is never found, and recall stays below 1 by so much; k_core=5",
        ),
        "users without train pairs, share": (
            *((~users).mean(), (~users).mean() > 0.1),
            "ids with gaps, or another column: format='table' takes ids for labels",
        ),
        "median train pairs of the others": (
            *(float(np.median(known)), np.median(known) < 5),
            "little to learn from; k_core=5, or a lower min_rating",
        ),
        "recall@20 by chance": (
            *(min(1.0, 20 / data.n_items), data.n_items < 100),
            "so few items make any ranking look good, or are a column of ratings: say item=",
        ),
        "most train pairs of a user, share of all items": (
            *(degree.max() / data.n_items, degree.max() > data.n_items / 2),
            "a robot, or a test account? It has hardly any negatives: drop it",
        ),
        "share of train pairs on the 1% most popular items": (
            *(top, top > 0.5),
            "ranking by popularity is hard to beat: show it beside every loss",
        ),
        "rows that repeat a pair, share": (
            *(repeated / max(1, rows), repeated > 0.1 * rows),
            "each counts once; if many, is it the right column?",
        ),
    }
    names = ("found", "look", "then")
    found = pd.DataFrame.from_dict(table, orient="index", columns=names).rename_axis("check")
    return found.astype({"found": float, "look": bool})


def shift(data: Interactions, *, split: str = "test", draws: int = 20) -> dict[str, float]:
    """How far the items' popularity has moved from train to a split that was held out.

    Popularity is an item's share of a split's pairs. Two samples of one distribution differ, too:
    by_chance is the distance where train and split are pooled and dealt anew, in the same sizes.

    Args:
        split: "valid" or "test".
        draws: how many times they are dealt anew, at least 1.

    Returns:
        distance, the total variation ½ Σ |p - q|, in [0, 1]: the share of the split's pairs that
        would have to go to other items; by_chance, its mean over the draws; kept, the share of the
        split's pairs that lie with the tenth of the items most popular in train, over the same
        share in train (1: the same). NaN where a split is empty.

    >>> found = shift(load("synthetic"))
    >>> abs(found["distance"] - found["by_chance"]) < 0.01
    True
    """
    sizes = [data.train.nnz, getattr(data, split).nnz]
    pairs = np.concatenate([data.train.indices, getattr(data, split).indices])
    if not min(sizes):
        return dict.fromkeys(("distance", "by_chance", "kept"), float("nan"))

    def popularity(items: np.ndarray) -> list[np.ndarray]:
        parts = np.split(items, sizes[:1])
        return [np.bincount(part, minlength=data.n_items) / len(part) for part in parts]

    def distance(items: np.ndarray) -> float:
        before, after = popularity(items)
        return float(np.abs(before - after).sum() / 2)

    rng, (before, after) = np.random.default_rng(0), popularity(pairs)
    top = np.argsort(-before, kind="stable")[: max(1, data.n_items // 10)]
    return {
        "distance": distance(pairs),
        "by_chance": float(np.mean([distance(rng.permutation(pairs)) for _ in range(draws)])),
        "kept": float(after[top].sum() / before[top].sum()),
    }


def _canonical(matrix) -> sparse.csr_array:
    """A copy: float32 ones, int64 indices (they index a tensor as they are), sorted, no repeats."""
    matrix = sparse.csr_array(matrix, dtype=np.float32, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    matrix.indices, matrix.indptr = (a.astype(np.int64) for a in (matrix.indices, matrix.indptr))
    matrix.data[:] = 1
    return matrix


def _without_train(data: Interactions) -> tuple[int, int]:
    """How many users and how many items no train pair mentions."""
    items = np.bincount(data.train.indices, minlength=data.n_items)
    return int((np.diff(data.train.indptr) == 0).sum()), int((items == 0).sum())


# ---------------------------------------------------------------------------- named sets


def names() -> list[str]:
    """The registered names, the embedded set first.

    >>> names()[:2]
    ['synthetic', 'amazon-beauty']
    """
    return list(_SETS)


def load(name: str | os.PathLike, *, data_dir=None, seed: int = 0, **options) -> Interactions:
    """Load a named set or your own file; warn once where users or items have no train pair.

    Args:
        name: one of `names()`, or the path of a file as `load_file` reads it. A path may end in
            options, written as in a web address: `ratings.csv?min_rating=4&k_core=5&split=time`.
        data_dir: the folder that holds the public files, see `data_folder`.
        seed: generates `synthetic` and splits your own file, int >= 0; the public sets come split.
        **options: for your own file, see `load_file`; they take precedence over those in the path.

    Raises:
        DataError: the name is unknown, or the data cannot be had or read.
        TypeError: an option of `load_file` was given with a named set.

    >>> load("synthetic").train.nnz > 10_000
    True
    """
    file, _, query = os.fspath(name).partition("?")
    if Path(name).exists():  # whatever its name holds
        file, query = name, ""
    path = Path(file)
    if file not in _SETS and (path.suffix or len(path.parts) > 1 or path.exists()):
        return load_file(
            path, **{"seed": seed, "name": Path(name).name, **_parse(query), **options}
        )
    source = _source(name)
    if options:
        raise TypeError(f"load({name!r}) takes no {', '.join(options)}: for your own files only")
    if name == "synthetic":
        return _synthetic(seed)
    splits = source.read(fetch(name, data_dir=data_dir), source.shape)
    keys, counts = np.unique(np.concatenate(splits), return_counts=True)
    if (counts > 1).any():
        user, item = divmod(int(keys[counts > 1][0]), source.shape[1])
        raise DataError(
            f"{data_folder(data_dir) / name}: user {user}, item {item} is in more than "
            "one split. Delete the folder and fetch the set again."
        )
    return _interactions(name, source.shape, splits)


def data_folder(data_dir=None) -> Path:
    """The folder whose `<set>/<file>` are the public files.

    Args:
        data_dir: used as it is when given; else `$DRRL_DATA`; else `data/downloads` of the
            checkout this runs from; else the user's cache folder.

    >>> data_folder("elsewhere").name
    'elsewhere'
    """
    if chosen := data_dir or os.environ.get("DRRL_DATA"):
        return Path(chosen).expanduser()
    registry = _registry_file()
    in_checkout = registry.parent != Path(__file__).parents[1]
    return registry.parent / "downloads" if in_checkout else pooch.os_cache("drrl")


def fetch(name: str, *, data_dir=None) -> list[Path]:
    """Have a named set's files: verify by SHA-256 what is there, download what is missing.

    Args:
        name: one of `names()`.
        data_dir: see `data_folder`; need not be writable when the files are there.

    Returns:
        The verified files' paths; none for `synthetic`.

    Raises:
        DataError: a file differs from the registry's, or is missing and cannot be downloaded
            (`DRRL_OFFLINE` set, no network, no disk). No partial file is left.

    >>> fetch("synthetic")
    []
    """
    source, registry = _source(name), _registry(data_dir)
    missing = [key for key in source.files if not _verified(registry, key)]
    offline = os.environ.get("DRRL_OFFLINE", "") not in ("", "0")
    if missing and not offline:
        print(f"{name}: {source.about}\nTerms: {_TERMS}; cite {source.cite}", file=sys.stderr)
    for key in missing:
        path, url = registry.abspath / key, registry.get_url(key)
        ways_out = (
            "Go online with DRRL_OFFLINE unset and a writable data folder; or put the file there "
            f"yourself; or point DRRL_DATA or --data-dir to a folder that holds {key}."
        )
        if offline:
            raise DataError(f"{path}: missing, and DRRL_OFFLINE forbids to fetch {url}. {ways_out}")
        # Without a bound on the wait, a silent server would look like a hanging notebook.
        http = pooch.HTTPDownloader(progressbar=True, chunk_size=1 << 16, timeout=(10, 30))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            registry.fetch(key, downloader=http)  # into a temporary file, verified, then renamed
            path.chmod(0o644)  # temporary files are private, but a class may share the folder
        except (OSError, ValueError) as error:  # the exceptions of requests are OSErrors
            raise DataError(f"{url}: cannot be brought to {path}: {error}. {ways_out}") from error
    return [registry.abspath / key for key in source.files]


def describe(name: str, *, data_dir=None) -> dict:
    """What is known of a named set without loading it: source, terms, files, expected counts.

    Args:
        name: one of `names()`.
        data_dir: where to look for the files, see `data_folder`.

    Returns:
        A JSON-ready dict: name, about, terms, citation, megabytes (MB, all files together), users,
        items, train, valid, test (counts expected; None: by the seed) and files, a list of dicts:
        file, path, url, sha256, present, bytes (None where absent). No file is verified here.

    Raises:
        DataError: the name is unknown.

    >>> describe("amazon-beauty")["train"]
    51455
    """
    source, registry = _source(name), _registry(data_dir)
    files = []
    for key in source.files:
        path, sha256 = registry.abspath / key, registry.registry[key].removeprefix("sha256:")
        size = path.stat().st_size if path.is_file() else None
        file = dict(file=key, path=str(path), url=registry.get_url(key), sha256=sha256)
        files.append(file | dict(present=size is not None, bytes=size))
    counts = dict(zip(("users", "items", *SPLITS), source.shape + source.pairs, strict=True))
    terms = _TERMS if source.files else "part of this package, MIT"
    about = dict(name=name, about=source.about, terms=terms, citation=source.cite)
    return about | dict(megabytes=source.megabytes, **counts, files=files)


def _source(name) -> "_Source":
    if name not in _SETS:
        close = difflib.get_close_matches(str(name).lower(), names(), n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise DataError(
            f"unknown data set {str(name)!r}. {hint}Known are {', '.join(names())}; or "
            "give the path of your own file, such as ./ratings.csv."
        )
    return _SETS[name]


def _registry_file() -> Path:
    """Beside the package in a wheel, in `data/` in a checkout."""
    packaged = Path(__file__).parents[1] / "registry.txt"
    return packaged if packaged.is_file() else packaged.parents[1] / "data" / "registry.txt"


def _registry(data_dir) -> pooch.Pooch:
    registry = pooch.create(path=data_folder(data_dir), base_url="")
    registry.load_registry(_registry_file())
    return registry


def _verified(registry: pooch.Pooch, key: str) -> bool:
    """True: there and right; False: not there. A file that is not right is never overwritten."""
    path, wanted = registry.abspath / key, registry.registry[key].removeprefix("sha256:")
    try:
        found = pooch.file_hash(str(path)) if path.exists() else None
    except OSError as error:
        raise DataError(f"{path}: {error}. Mend its permissions, or delete it.") from error
    if found not in (None, wanted):
        raise DataError(
            f"{path}: its SHA-256 is {found}, the registry's is {wanted}: damaged, or "
            "another version. Delete or rename it, then fetch again."
        )
    return found is not None


def _interactions(name: str, shape, splits: list[np.ndarray], **more) -> Interactions:
    """From keys user * n_items + item, one sorted array a split; warns where train has gaps."""
    splits = [
        sparse.csr_array((np.ones(len(keys)), np.divmod(keys, shape[1])), shape=shape)
        for keys in splits
    ]
    data = Interactions(name, int(shape[0]), int(shape[1]), *splits, **more)
    users, items = _without_train(data)
    if users or items:
        warnings.warn(
            f"{data.name}: {users:,} of {data.n_users:,} users and {items:,} of {data.n_items:,} "
            "items have no train pair; nothing is learned about them.",
            UserWarning,
            stacklevel=3,
        )
    return data


def _read_splits(paths: list[Path], shape: tuple[int, int]) -> list[np.ndarray]:
    """Three files, one a split."""
    return [
        np.unique(_read_pairs(_read_bytes(path), path, shape) @ [shape[1], 1]) for path in paths
    ]


def _read_gowalla(paths: list[Path], shape: tuple[int, int]) -> list[np.ndarray]:
    """Valid and test have files; train is what else the (users + items) squared matrix holds."""
    valid, test = _read_splits(paths[:2], shape)
    try:
        block = sparse.load_npz(paths[2]).tocsr()[: shape[0], shape[0] :].tocoo()
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{paths[2]}: broken: {error}. Delete it and fetch again.") from error
    keys = block.row.astype(np.int64) * shape[1] + block.col
    return [np.setdiff1d(keys, valid), valid, test]


def _read_temporal(paths: list[Path], shape: tuple[int, int]) -> list[np.ndarray]:
    """Train and test are archived; valid is the rest of the same pairs, both ends in train."""
    try:
        with zipfile.ZipFile(paths[0]) as archive:
            raw = {key: archive.read(f"{key}.tsv") for key in ("train", "test")}
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{paths[0]}: broken: {error}. Delete it and fetch again.") from error
    train, test = (
        np.unique(_read_pairs(raw[key], f"{paths[0]}/{key}.tsv", shape, header=1) @ [shape[1], 1])
        for key in ("train", "test")
    )
    rest = np.setdiff1d(np.concatenate(_read_splits(paths[1:], shape)), np.union1d(train, test))
    users, items = np.divmod(train, shape[1])
    known = np.isin(rest // shape[1], users) & np.isin(rest % shape[1], items)
    return [train, rest[known], test]


@dataclass(frozen=True)
class _Source:
    """A named set: where it comes from, what it must hold, and how its files become splits."""

    about: str
    cite: str
    shape: tuple[int, int]
    pairs: tuple[int | None, int | None, int | None]
    megabytes: float
    files: tuple[str, ...] = ()
    read: Callable[[list[Path], tuple[int, int]], list[np.ndarray]] = _read_splits


def _amazon(name: str, label: str, shape, pairs, megabytes: float) -> _Source:
    files = tuple(f"{name}/{part}.txt" for part in ("train_data", "valid_data", "test"))
    about = f"Amazon 2014 {label}, random split, from github.com/cynthia-shengjia/AAAI-2025-DrRL"
    return _Source(about, _MCAULEY, shape, pairs, megabytes, files)


_TERMS = "for research; the publishers state no licence"
_MCAULEY = "McAuley, Targett, Shi, van den Hengel: Image-based recommendations, SIGIR 2015"
_BEAUTY, _KITCHEN, _ELECTRONICS = "amazon-beauty", "amazon-kitchen", "amazon-electronics"
_SETS = {
    "synthetic": _Source(
        *("generated from a seed, with every user's true preferences", "nothing"),
        *((1_000, 800), (None, None, None), 0.0),
    ),
    _BEAUTY: _amazon(_BEAUTY, "Beauty", (7_068, 3_570), (51_455, 9_363, 18_688), 0.8),
    _KITCHEN: _amazon(
        _KITCHEN, "Home and Kitchen", (51_552, 23_158), (265_611, 58_405, 103_728), 4.8
    ),
    _ELECTRONICS: _amazon(
        _ELECTRONICS, "Electronics", (13_455, 8_360), (159_418, 22_980, 52_123), 2.4
    ),
    "gowalla": _Source(
        "Gowalla check-ins, random split, from github.com/cynthia-shengjia/AAAI-2025-DrRL and "
        "github.com/gusye1234/LightGCN-PyTorch",
        "Cho, Myers, Leskovec: Friendship and mobility, KDD 2011; He et al.: LightGCN, SIGIR 2020",
        (29_858, 40_981),
        (716_648, 93_480, 217_242),
        7.1,
        ("gowalla/valid_data.txt", "gowalla/test.txt", "gowalla/s_adj_mat.npz"),
        _read_gowalla,
    ),
}
_SETS[f"{_ELECTRONICS}-temporal"] = _Source(
    f"the pairs of {_ELECTRONICS} in a global-time split (train the earliest 60%, test the last "
    "20%), from github.com/Tiny-Snow/IR-Benchmark-Dataset",
    _MCAULEY,
    (13_455, 8_360),
    (140_712, 31_904, 24_668),
    3.1,
    (f"{_ELECTRONICS}-temporal/proc.zip", *_SETS[_ELECTRONICS].files),
    _read_temporal,
)


# ---------------------------------------------------------------------------- own files


def load_file(
    path: str | os.PathLike,
    *,
    format: str | None = None,
    user: str | int | None = None,
    item: str | int | None = None,
    rating: str | int | None = None,
    timestamp: str | int | None = None,
    sep: str | None = None,
    header: bool | None = None,
    encoding: str = "utf-8",
    min_rating: float | None = None,
    k_core: int = 1,
    split: str = "random",
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    name: str | None = None,
) -> Interactions:
    """Load your own file and split it.

    Three formats are read, each also as `.gz`:

    - "pairs": lines `user item`, whole numbers used as they are: a number that never occurs is a
      user or item without pairs.
    - "adjacency": lines `user item item ...`, whole numbers likewise.
    - "table": columns for user and item and perhaps rating and timestamp, with a header (RecBole's
      `user_id:token` too) or without (Amazon's raw ratings); ids are labels of any kind, and kept.

    A repeated pair counts once. What may be read in two ways is refused, with the way out.

    Args:
        path: the file.
        format: one of these; None: a table, but for `.txt` (pairs; adjacency where no user comes
            twice and the lines differ in length, the longest over four fields).
        user: the column's name, or its position from 0; None: found by its usual names (user_id,
            userId, uid, ...), or, without a header, in the order user, item, rating, timestamp.
        item: likewise.
        rating: likewise; finite numbers in the file's unit.
        timestamp: likewise; finite numbers, or dates as ISO 8601.
        sep: one character; None: the first of tab, semicolon, comma, bar, space that line 1 holds.
        header: whether line 1 holds names; None: it does if it holds a usual or a given one.
        encoding: of a table.
        min_rating: drop rows rated lower, in the file's unit; None keeps all.
        k_core: then keep the largest set of pairs in which every user and every item has as many,
            int >= 1; above 1 the users and items that are left are numbered anew.
        split: "random": each user's pairs are dealt by `fractions`, at least one to train.
            "time": the earliest share of all pairs is train, the next valid, the last test (equal
            times stay together); valid and test keep the users and items seen in train.
        fractions: shares of train, valid and test, dimensionless, >= 0, sum 1, train > 0.
        seed: of the random split, int >= 0; the same pairs in another order split alike.
        name: of the set; None: the file's.

    Raises:
        DataError: the file cannot be read; the message names the line.
        ValueError: `format`, `sep`, `k_core`, `split` or `fractions` is out of its domain.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "films.csv")
    ...     _ = path.write_text("user,item\\nann,Alien\\nann,Brazil\\nbob,Brazil\\n")
    ...     data = load_file(path, fractions=(1, 0, 0))
    >>> data.user_ids.tolist(), data.train.toarray().tolist()
    (['ann', 'bob'], [[1.0, 1.0], [0.0, 1.0]])
    """
    shares, columns = np.asarray(fractions, float), (user, item, rating, timestamp)
    if shares.shape != (3,) or shares[0] <= 0 or (shares < 0).any() or abs(shares.sum() - 1) > 1e-9:
        raise ValueError(f"fractions={fractions!r}: expected three shares >= 0, sum 1, train > 0")
    if split not in ("random", "time") or format not in (None, "pairs", "adjacency", "table"):
        raise ValueError(
            f"split={split!r}, format={format!r}: expected random or time; "
            "pairs, adjacency or table"
        )
    if (sep is not None and len(sep) != 1) or k_core < 1:
        raise ValueError(f"sep={sep!r}, k_core={k_core!r}: expected one character, and k_core >= 1")
    path = Path(path).expanduser()
    raw, name = _read_bytes(path), name or path.name
    needed = {"rating": min_rating is not None, "timestamp": split == "time"}
    bare = {sep, header, *columns} == {None}
    if format in ("pairs", "adjacency") and not bare:
        raise ValueError(f"format={format!r} takes no sep, header or columns: it has none")
    if format != "table" and bare and (format or ".txt" in path.suffixes[-2:]):
        table = pd.DataFrame(_read_pairs(raw, path, format=format), columns=["user", "item"])
    else:
        table = _read_table(_decode(raw, path, encoding), path, sep, header, columns, needed)
    if missing := [key for key in needed if needed[key] and key not in table]:
        raise DataError(
            f"{path}, line 1: no {missing[0]} column, which min_rating and split='time' rest on. "
            f"Say {missing[0]}= with a name or a position."
        )
    sizes = {"read": len(table)}
    if min_rating is not None:
        table = table[table["rating"] >= min_rating]
        sizes["rated below min_rating"] = len(table)
        if table.empty:
            raise DataError(f"{path}: no rating reaches min_rating={min_rating}. Lower it.")
    if split == "time":  # of a repeated pair, the earliest counts
        table = table.sort_values("timestamp", kind="stable")
    table = table.drop_duplicates(["user", "item"])
    sizes["repeated"] = len(table)
    if k_core > 1:
        table = _core(table, k_core)
        sizes["outside the k-core"] = len(table)
        if table.empty:
            raise DataError(f"{path}: nothing is left with k_core={k_core}. Lower it.")
    (user_ids, users), (item_ids, items) = (
        _codes(table[key], gaps=k_core == 1) for key in ("user", "item")
    )
    shape = (users.max() + 1, items.max() + 1)
    order = np.lexsort((items, users))
    users, items = users[order], items[order]
    keys = users * shape[1] + items
    if split == "time":
        part = _deal_by_time(users, items, table["timestamp"].to_numpy()[order], shares)
        sizes["held out, user or item not in train"] = int((part >= 0).sum())
    else:
        part = _deal_by_user(users, shares, np.random.default_rng(seed))
    splits = [keys[part == k] for k in range(len(SPLITS))]
    none = [SPLITS[k] for k in range(len(SPLITS)) if shares[k] > 0 and not len(splits[k])]
    if none and split == "time":
        raise DataError(
            f"{path}: the split by time leaves no {none[0]} pair with user and item in "
            "train. Choose other fractions, or split='random'."
        )
    if none:
        warnings.warn(
            f"{name}: {len(keys):,} pairs of {len(np.unique(users)):,} users are too few: none is "
            f"left for {' and '.join(none)}, so accuracy there cannot be told.",
            UserWarning,
            stacklevel=2,
        )
    dropped = {why: a - b for (_, a), (why, b) in itertools.pairwise(sizes.items())}
    more = {"user_ids": user_ids, "item_ids": item_ids, "dropped": dropped}
    return _interactions(name, shape, splits, **more)


def _column(text: str) -> str | int:
    return int(text) if text.isdecimal() else text


# How the options of `load_file` are read where they come with the path.
_PARSERS = {
    **dict.fromkeys(("format", "sep", "encoding", "split", "name"), str),
    **dict.fromkeys(("user", "item", "rating", "timestamp"), _column),
    **dict.fromkeys(("k_core", "seed"), int),
    "header": {"true": True, "false": False}.__getitem__,
    "min_rating": float,
    "fractions": lambda text: tuple(float(part) for part in text.split(",")),
}


def _parse(query: str) -> dict:
    """Options as in `min_rating=4&fractions=.6,.2,.2`, `%3B` for what has a meaning there."""
    options = {}
    for key, text in urllib.parse.parse_qsl(query, keep_blank_values=True):
        if key not in _PARSERS:
            close = difflib.get_close_matches(key, _PARSERS, n=1)
            hint = f"Did you mean {close[0]}? " if close else ""
            raise DataError(f"?{query}: no option {key!r}. {hint}Known: {', '.join(_PARSERS)}.")
        try:
            options[key] = _PARSERS[key](text)
        except (ValueError, KeyError):
            raise DataError(
                f"?{query}: {key}={text} cannot be read. Expected as in k_core=10, min_rating=3.5, "
                "header=true, fractions=.8,.1,.1."
            ) from None
    if query and not options:
        raise DataError(f"?{query}: expected options such as ?min_rating=4&k_core=5.")
    return options


def _read_bytes(path: Path) -> bytes:
    """The file's content, unpacked if it is gzip."""
    where, parts = str(path), []
    try:
        raw = path.read_bytes()
        if raw.startswith(b"PK\x03\x04"):
            raise DataError(f"{where} is a zip archive: unpack it and give the table in it.")
        if path.suffix != ".gz" and not raw.startswith(b"\x1f\x8b"):
            return raw
        with gzip.open(io.BytesIO(raw)) as stream:
            while part := stream.read1(1 << 20):
                parts.append(part)
        return b"".join(parts)
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, (EOFError, zlib.error, gzip.BadGzipFile)):
            where += f", line {sum(part.count(10) for part in parts) + 1}"
        raise DataError(
            f"{where}: cannot be read: {error}. Check the path and its permissions; "
            "copy or download a damaged file again."
        ) from error


def _decode(raw: bytes, where, encoding: str) -> str:
    """Text without byte-order mark; wrong bytes and NULs are named by line."""
    try:
        text = raw.decode(encoding).removeprefix("\ufeff")
        before, problem = text.partition("\0")[0], "a NUL byte, as in UTF-16"
        if len(before) == len(text):
            return text
        line = before.count("\n") + 1
    except UnicodeDecodeError as error:
        line, problem = raw[: error.start].count(b"\n") + 1, str(error)
    raise DataError(
        f"{where}, line {line}: {problem}. Save the file as UTF-8; or, for a table, "
        "give encoding='latin-1', 'utf-16' or what it is."
    )


def _records(text: str, sep: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each record that is not blank."""
    reader, line = csv.reader(io.StringIO(text, newline=""), delimiter=sep), 1
    for fields in reader:
        if len(fields) > 1 or "".join(fields).strip():
            yield line, fields
        line = reader.line_num + 1


def _read_text(text: str, where, sep: str) -> pd.DataFrame:
    """All cells as text, for inference would make one user of '007' and '7', and none of 'NA'."""
    problem = None
    try:
        source = io.BytesIO(text.encode())
        cells = pd.read_csv(source, sep=sep, header=None, dtype=str, na_filter=False)
        if (cells.iloc[:, -1] != "").all():  # else there may be short lines: pandas fills them up
            return cells
    except ValueError as error:
        problem = error
    width, line = None, 1
    try:
        for line, fields in _records(text, sep):
            width = width or len(fields)
            if len(fields) != width:
                raise DataError(
                    f"{where}, line {line}: {len(fields)} fields, but {width} in the "
                    "first line. Mend the line; or quote a field that holds the "
                    "separator; or say which it is with sep=."
                )
    except csv.Error as error:
        problem = error
    if problem:
        problem = problem if width else "the file is empty"
        raise DataError(f"{where}, line {line}: {problem}. Expected a line a pair: user and item.")
    return cells


def _refuse(bad: pd.Series, text: str, where, sep: str, why: str) -> None:
    """Raise for the first bad row; its index counts the records of the text."""
    if bad.any():
        line, fields = next(itertools.islice(_records(text, sep), bad.idxmax(), None))
        raise DataError(f"{where}, line {line}: {why} Found: {fields!r:.200}.")


def _read_pairs(
    raw: bytes, where, shape=None, *, header: int = 0, format: str | None = "pairs"
) -> np.ndarray:
    """Lines in whole numbers as int64 (n, 2): fast, and slow only where a line is to be named."""
    raw = raw.removeprefix(codecs.BOM_UTF8)
    body = raw.split(b"\n", header)[-1]
    # For pandas, 1.0 and True are whole numbers too: let digits and spaces alone go the fast way.
    if format != "adjacency" and not body.translate(None, b"0123456789 \t\r\n"):
        with contextlib.suppress(ValueError, OverflowError):
            pairs = pd.read_csv(io.BytesIO(body), sep=r"\s+", header=None, dtype=np.int64)
            pairs = pairs.to_numpy()
            if pairs.shape[1] == 2 and (pairs < (shape or _limits(len(pairs)))).all():
                return pairs
    lines = enumerate(io.StringIO(_decode(raw, where, "utf-8"), newline=None), 1)
    rows = [(line, fields) for line, text in lines if (fields := text.split())][header:]
    if not rows:
        problem = "nothing follows the header" if header else "the file is empty"
        raise DataError(
            f"{where}, line {header + 1}: {problem}. Expected a line a pair: user item."
        )
    widths = [len(fields) for _, fields in rows]
    if format is None and max(widths) > max(4, min(widths)):
        format = "adjacency" if len({fields[0] for _, fields in rows}) == len(rows) else None
    limits = shape or _limits(sum(widths) - len(rows))
    for line, fields in rows:
        if format != "adjacency" and len(fields) != 2:
            problem = (
                f"expected two fields, user and item, not {len(fields)}. Mend the line; or say "
                "format='adjacency' if lines are `user item item ...`; or format='table'"
            )
        elif not all(field.isascii() and field.isdecimal() for field in fields):
            problem = "an id is not a whole number >= 0. For other ids say format='table'"
        elif any(len(field) > 18 for field in fields) or any(
            int(field) >= limits[k > 0] for k, field in enumerate(fields)
        ):
            problem = (
                f"an id is too large, expected below {limits}, or tables would be mostly empty. "
                "To have ids taken for labels say format='table'"
            )
        else:
            continue
        raise DataError(f"{where}, line {line}: {problem}. Found: {fields!r:.200}.")
    pairs = [(int(user), int(item)) for _, (user, *items) in rows for item in items]
    if not pairs:
        raise DataError(f"{where}, line 1: users without any item. Check the file.")
    return np.array(pairs)


def _limits(pairs: int) -> tuple[int, int]:
    """Ids may have gaps; beyond these, nearly all rows of a table would be empty."""
    return (10 * pairs + 1_000_000,) * 2


_USUAL = {
    "user": ("user", "userid", "uid", "reviewerid", "customerid"),
    "item": ("item", "itemid", "iid", "movieid", "productid", "asin", "parentasin", "bookid"),
    "rating": ("rating", "ratings", "score", "stars", "overall"),
    "timestamp": ("timestamp", "time", "unixreviewtime", "datetime", "date"),
}
_TYPED = ":(token|float)(_seq)?$"  # as RecBole ends the names of columns
# A product and a reviewer as Amazon numbers them, in the order of its files since 2018.
_AMAZON_2018 = "(B[0-9A-Z]{9}|[0-9]{9}[0-9X]) A[0-9A-Z]{9,}"


def _plain(name: str) -> str:
    """One name for `user_id`, `userId` and `user_id:token`, but never for the id `user-90`."""
    return re.sub(f"[ _.-]|{_TYPED}", "", name.strip().lower())


def _read_table(text: str, where, sep, header, columns, needed: dict) -> pd.DataFrame:
    """Columns user and item as text; rating and timestamp, where there are any, as numbers."""
    first = text.lstrip("\r\n").partition("\n")[0]
    sep = sep or next((mark for mark in "\t;,| " if mark in first), ",")
    cells = _read_text(text, where, sep)
    top, ask = cells.iloc[0].tolist(), header is None
    if header is None:
        usual = {name for names in _USUAL.values() for name in names}
        header = any(
            _plain(cell) in usual or cell in columns or re.search(_TYPED, cell) for cell in top
        )
    places = _places(top, header, dict(zip(_USUAL, columns, strict=True)), needed, where)
    table = cells.iloc[int(header) :, list(places.values())].set_axis(list(places), axis=1)
    if table.empty:
        raise DataError(f"{where}, line 1: nothing follows the header. Check the file.")
    user, item = (top[places[key]] for key in ("user", "item"))
    # Names hold no numbers, and neither does a name come twice in its column.
    number = any(re.match(r"[-+]?\.?[0-9]", cell) for cell in top)
    again = (table[["user", "item"]].iloc[1:] == [user, item]).any(axis=None)
    if ask and not (header or number or again):
        raise DataError(
            f"{where}, line 1: {top!r:.200} may be names or data. Say header=True, "
            "with user= and item=, or header=False."
        )
    if not header and set(columns) == {None} and re.fullmatch(_AMAZON_2018, f"{user} {item}"):
        raise DataError(
            f"{where}, line 1: {top!r:.200} has a product first, then a reviewer. "
            "Say user=1, item=0; or user=0, item=1 if it is right as it is."
        )
    for key in places:
        if key in ("user", "item"):
            _refuse(table[key] == "", text, where, sep, f"no {key}. Name it or drop the line.")
        elif needed[key] or not header:
            values = _numbers(table[key], dates=key == "timestamp")
            why = (
                f"the {key} is no number. Mend it; or say {key}= if it is another column; or "
                "header=True if these are names."
            )
            _refuse(~np.isfinite(values), text, where, sep, why)
            table = table.assign(**{key: values})
    return table


def _places(top: list[str], header: bool, columns: dict, needed: dict, where) -> dict[str, int]:
    """The positions of the columns at hand, user and item certainly."""
    places = {}
    for order, (key, column) in enumerate(columns.items()):
        if isinstance(column, int):
            found = [column]
        elif not header:
            found = [order] if column is None else []
        elif column is None:
            found = [place for place, name in enumerate(top) if _plain(name) in _USUAL[key]]
        else:
            found = [place for place, name in enumerate(top) if name == column]
        wanted, ways_out = needed.get(key, True), f"Say {key}= with a name or a position from 0"
        if len(found) > 1 and wanted:
            several = [top[place] for place in found]
            raise DataError(f"{where}, line 1: {several} may each be the {key}. {ways_out}.")
        if found and 0 <= found[0] < len(top):
            places[key] = found[0]
        elif column is not None or key in ("user", "item"):
            close = difflib.get_close_matches(str(column or key), top if header else [], n=1)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            column = "" if column is None else f" {column!r}"
            raise DataError(
                f"{where}, line 1: no {key} column{column} in {top!r:.200}. {hint}{ways_out}, "
                "or sep=, or header=False if that is data."
            )
    return places


def _numbers(cells: pd.Series, *, dates: bool) -> pd.Series:
    """Numbers, or seconds since 1970 if the first cell is a date; NaN where a cell is neither."""
    values = pd.to_numeric(cells, errors="coerce")
    if dates and pd.isna(values.iloc[0]):
        moments = pd.to_datetime(cells, errors="coerce", utc=True, format="ISO8601")
        values = (moments - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(1, "s")
    return values


def _codes(cells: pd.Series, *, gaps: bool) -> tuple[np.ndarray | None, np.ndarray]:
    """Labels, sorted, and each cell's index among them; numbers are the indices, if `gaps` may be.

    Labels are int64 where each is a plain whole number, so that they join other tables as such.
    """
    if cells.dtype == np.int64:
        return (None, cells.to_numpy()) if gaps else np.unique(cells, return_inverse=True)
    codes, labels = pd.factorize(cells)
    whole = all(re.fullmatch("0|-?[1-9][0-9]{0,17}", label) for label in labels)
    ids, order = np.unique(np.array(list(labels), np.int64 if whole else str), return_inverse=True)
    return ids, order[codes]


def _core(pairs: pd.DataFrame, k: int) -> pd.DataFrame:
    """The most of these distinct pairs that leave every user and every item at least k of them."""
    left = pairs[["user", "item"]].apply(lambda column: pd.factorize(column)[0])
    while True:
        enough = [left.groupby(key)[key].transform("size") >= k for key in left]
        if (enough[0] & enough[1]).all():
            return pairs.loc[left.index]
        left = left[enough[0] & enough[1]]


# ---------------------------------------------------------------------------- splits


def _deal_by_user(users: np.ndarray, shares, rng: np.random.Generator) -> np.ndarray:
    """0, 1 or 2 for each pair: each user's pairs dealt by the shares, at least one to train.

    A pair's place is its random rank among the user's n pairs, plus one uniform draw a user, over
    n: the shares hold exactly where they give whole numbers, and on average for users of few pairs.
    """
    counts = np.bincount(users)
    rank = pd.Series(rng.random(len(users))).groupby(users).rank(method="first").to_numpy() - 1
    place = (rank + rng.random(len(counts))[users]) / counts[users]
    part = np.searchsorted(np.cumsum(shares)[:2], place, side="right")
    return np.where(rank == 0, 0, part)


def _deal_by_time(users: np.ndarray, items: np.ndarray, time: np.ndarray, shares) -> np.ndarray:
    """0, 1 or 2 for each pair by global time; -1 where its user or item is not in train."""
    last = np.ceil(np.cumsum(shares)[:2] * len(time) - 1e-9).astype(int) - 1
    part = np.searchsorted(np.sort(time)[last], time, side="left")
    known = np.isin(users, users[part == 0]) & np.isin(items, items[part == 0])
    return np.where(known, part, -1)


def _synthetic(seed: int) -> Interactions:
    """1,000 users, 800 items: latent factors make the truth, fame decides what is seen of it.

    Only sums, products and comparisons of integers and uniform draws: the same on every platform.
    """
    rng = np.random.default_rng(seed)
    n_users, n_items = shape = (1_000, 800)
    tastes = rng.integers(-9, 10, (n_users, 6, 3)).sum(2)  # of three uniform draws: nearly normal
    traits = rng.integers(-9, 10, (n_items, 6, 3)).sum(2)
    fame = rng.permutation(n_items)  # 0 is the most famous
    score = tastes @ traits.T + 4_000 // (fame + 20) + rng.integers(-120, 121, (*shape, 2)).sum(2)
    score = score * n_items + rng.permutation(n_items)  # without ties in a row
    rank = np.argsort(np.argsort(-score, axis=1), axis=1)
    truth = rank < rng.integers(45, 76, (n_users, 1))

    # Of what a user likes, 15 to 39 items are seen (few by some users), famous ones more likely.
    n_seen = np.where(rng.random(n_users) < 0.04, 5, rng.integers(15, 40, n_users))
    wait = np.where(truth, rng.random(shape) * (fame + 20), np.inf)
    seen = np.argsort(np.argsort(wait, axis=1, kind="stable"), axis=1) < n_seen[:, None]
    users, items = np.nonzero(seen)
    splits = np.zeros((len(SPLITS), *shape), bool)
    splits[_deal_by_user(users, (0.7, 0.1, 0.2), rng), users, items] = True

    # No item without a train pair: the user who scores it highest likes it and has seen it.
    for item in np.flatnonzero(~splits[0].any(axis=0)):
        fan = score[:, item].argmax()
        truth[fan, item] = True
        splits[:, fan, item] = True, False, False
    return Interactions("synthetic", *shape, *map(sparse.csr_array, splits), truth=truth)
