"""The one door: `load` for any set by its name or path, `load_file` for your own file."""

import difflib
import itertools
import os
import urllib.parse
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from . import public, tables
from .interactions import SPLITS, DataError, Interactions, from_keys
from .splits import core, deal_by_time, deal_by_user


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
    known = file in public.names()
    if not known and (path.suffix or len(path.parts) > 1 or path.exists()):
        given = {"seed": seed, "name": Path(name).name, **_parse(query), **options}
        return load_file(path, **given)
    if options and os.fspath(name) in public.names():
        raise TypeError(f"load({name!r}) takes no {', '.join(options)}: for your own files only")
    return public.load_public(os.fspath(name), data_dir=data_dir, seed=seed)


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
    raw, name = tables.read_bytes(path), name or path.name
    needed = {"rating": min_rating is not None, "timestamp": split == "time"}
    bare = {sep, header, *columns} == {None}
    if format in ("pairs", "adjacency") and not bare:
        raise ValueError(f"format={format!r} takes no sep, header or columns: it has none")
    if format != "table" and bare and (format or ".txt" in path.suffixes[-2:]):
        pairs = tables.read_pairs(raw, path, format=format)
        table = pd.DataFrame(pairs, columns=["user", "item"])
    else:
        text = tables.decode(raw, path, encoding)
        table = tables.read_table(text, path, sep, header, columns, needed)
    if missing := [key for key in needed if needed[key] and key not in table]:
        raise DataError(
            f"{path}, line 1: no {missing[0]} column, which min_rating and split='time' rest on. "
            f"Say {missing[0]}= with a name or a position."
        )
    sizes = {"read": len(table)}
    table = _filtered(table, path, min_rating, k_core, split == "time", sizes)
    return _dealt(table, path, name, shares, seed if split == "random" else None, k_core, sizes)


def _filtered(table, path, min_rating, k_core, by_time, sizes):
    """The distinct pairs that count; `sizes` gets how many are left after each step."""
    if min_rating is not None:
        table = table[table["rating"] >= min_rating]
        sizes["rated below min_rating"] = len(table)
        if table.empty:
            raise DataError(f"{path}: no rating reaches min_rating={min_rating}. Lower it.")
    if by_time:  # of a repeated pair, the earliest counts
        table = table.sort_values("timestamp", kind="stable")
    table = table.drop_duplicates(["user", "item"])
    sizes["repeated"] = len(table)
    if k_core > 1:
        table = core(table, k_core)
        sizes["outside the k-core"] = len(table)
        if table.empty:
            raise DataError(f"{path}: nothing is left with k_core={k_core}. Lower it.")
    return table


def _dealt(table, path, name, shares, seed, k_core, sizes):
    """Pairs, split at random by `seed`, or by time where that is None."""
    (user_ids, users), (item_ids, items) = (
        tables.codes(table[key], gaps=k_core == 1) for key in ("user", "item")
    )
    shape = (users.max() + 1, items.max() + 1)
    order = np.lexsort((items, users))
    users, items = users[order], items[order]
    keys = users * shape[1] + items
    if seed is None:
        part = deal_by_time(users, items, table["timestamp"].to_numpy()[order], shares)
        sizes["held out, user or item not in train"] = int((part >= 0).sum())
    else:
        part = deal_by_user(users, shares, np.random.default_rng(seed))
    splits = [keys[part == k] for k in range(len(SPLITS))]
    none = [SPLITS[k] for k in range(len(SPLITS)) if shares[k] > 0 and not len(splits[k])]
    if none and seed is None:
        raise DataError(
            f"{path}: the split by time leaves no {none[0]} pair with user and item in "
            "train. Choose other fractions, or split='random'."
        )
    if none:
        warnings.warn(
            f"{name}: {len(keys):,} pairs of {len(np.unique(users)):,} users are too few: none is "
            f"left for {' and '.join(none)}, so accuracy there cannot be told.",
            UserWarning,
            stacklevel=3,
        )
    dropped = {why: a - b for (_, a), (why, b) in itertools.pairwise(sizes.items())}
    more = {"user_ids": user_ids, "item_ids": item_ids, "dropped": dropped}
    return from_keys(name, shape, splits, **more)


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
