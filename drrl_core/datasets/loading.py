"""The one door: `load` for any set by its name or path, `load_file` for your own data."""

import os
import re
import urllib.parse
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse

from . import public, splits
from .columns import Columns, naming
from .files import Content, contents
from .interactions import SPLITS, DataError, Interactions, from_keys
from .options import Options, checked, parse
from .pairs import read_lines
from .recipe import Recipe, recipes_of
from .records import of_frame, read_records
from .tables import read_text


def load(
    name: Any, /, *, data_dir: public.Folder = None, seed: int = 0, **options: Any
) -> Interactions:
    """Load a named set or your own data; warn once where users or items have no train pair.

    Args:
        name: one of `names()` or of `recipes()`, or the path of a file, folder or archive as
            `load_file` reads it. The last two may end in options, as a web address does:
            `ratings.csv?min_rating=4&split=time`. Or a pandas or Polars frame, or a scipy matrix
            of users by items.
        data_dir: the folder that holds the public files, see `data_folder`.
        seed: generates `synthetic` and splits your own data, int >= 0; the public sets come split.
        **options: for your own data, see `load_file`; they take precedence over those in the path.

    Raises:
        DataError: the name is unknown, or the data cannot be had or read.
        TypeError: an option of `load_file` was given with a named set.
        ValueError: an option is out of its domain.

    >>> load("synthetic").train.nnz > 10_000
    True
    """
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed={seed!r}: expected a whole number >= 0")
    if not isinstance(name, str | os.PathLike):
        return load_file(name, **{"seed": seed, **options})
    file, _, query = os.fspath(name).partition("?")
    if Path(name).exists():  # whatever its name holds
        file, query = os.fspath(name), ""
    path, shown = Path(file).expanduser(), f"{Path(file).name}?{query}" if query else None
    if recipes_of(file):
        recipe = public.locate(file, data_dir=data_dir)
        given = parse(recipe.address.partition("?")[2]) | parse(query)
        path = public.data_folder(data_dir) / file / recipe.file
        with _told_as_address(not options):
            data = load_file(path, **{"seed": seed, "name": shown or file, **given, **options})
        return _compared(data, recipe)
    if file in public.names() or not (path.suffix or len(path.parts) > 1 or path.exists()):
        if options and os.fspath(name) in public.names():
            raise TypeError(
                f"load({name!r}) takes no {', '.join(options)}: for your own files only"
            )
        return public.load_public(os.fspath(name), data_dir=data_dir, seed=seed)
    with _told_as_address(not options and isinstance(name, str)):
        given = {"seed": seed, "name": shown or path.name, **parse(query), **options}
        return load_file(path, **given)


@contextmanager
def _told_as_address(whether: bool) -> Iterator[None]:
    """Errors speak the language of where one typed."""
    try:
        yield
    except DataError as error:
        if not whether:
            raise
        raise DataError(_as_address(str(error))) from error


def _compared(data: Interactions, recipe: Recipe) -> Interactions:
    """Say where a public set's counts are not those published; `report` keeps it."""
    report = data.report or {}
    differences = recipe.differences(report["holds"])
    report["published"] = {"source": recipe.source, "differences": differences}
    if differences:
        warnings.warn(
            f"{data.name}: {recipe.file} holds {', '.join(differences)}, as published by "
            f"{recipe.source}. It is another version, or damaged; or options read it otherwise.",
            UserWarning,
            stacklevel=3,
        )
    return data


def _as_address(message: str) -> str:
    """A message with options as in a web address: `header=true` for `header=True`.

    >>> _as_address("Say header=True, or comment='#'.")
    'Say ?header=true, or ?comment=%23.'
    """

    def spelt(match: re.Match[str]) -> str:
        value = urllib.parse.quote(match[3], safe="/.,:|") if match[2] else match[0]
        value = value if match[2] else match[4].lower()
        return f"?{match[1]}={value}"

    known = "|".join(Options.model_fields)
    message = re.sub(rf"(?<![\w?&])({known})=(?:(')([^']*)'|(True|False|\d+))", spelt, message)
    return re.sub(r"(\?\w+=[^\s,]+), \?", r"\1&", message)


def load_file(path: Any, **options: Any) -> Interactions:
    """Load your own data and split them, or keep the split that they have.

    Three formats are text, also packed (`.gz`, `.bz2`, `.xz`, `.zst`) or in a zip or tar archive:

    - "pairs": lines `user item`, whole numbers used as they are: a number that never occurs is a
      user or item without pairs.
    - "adjacency": lines `user item item ...`, whole numbers likewise.
    - "table": columns for user and item and perhaps more, with a header (RecBole's `user_id:token`
      too) or without; ids are labels of any kind, and kept; blanks around them are not.

    JSON lines and lists, parquet, feather and xlsx are told by their first bytes. A repeated pair
    counts once. What may be read in two ways is refused, with the way out. `report` of the result
    says what was found out and done.

    Args:
        path: the file, folder or archive; or a pandas or Polars frame, or a scipy matrix of users
            by items, whose values are ratings.
        **options: by name, as follows; what is left out is None, if nothing else is said.
        format: one of these; None: told by the content; text is a table, but for `.txt` (pairs;
            adjacency where no user comes twice and the lines differ in length).
        user: the column's name (of JSON, keys joined by dots), or its position from 0; None: found
            by its usual names (user_id, userId, uid, ...); without a header the first column of
            two to four.
        item: likewise; without a header the second.
        rating: likewise, but never guessed without a header; finite numbers in the file's unit.
        timestamp: likewise; finite numbers, or dates.
        sep: what parts the columns; None: the mark that all lines at the top hold as often, of tab,
            `::`, semicolon, comma, bar, blanks.
        header: whether line 1 holds names; None: it does if it holds a usual or a given one.
        encoding: of a table; of itself "utf-8".
        quote: whether `"` encloses cells; None: found out.
        comment: what lines begin with that are skipped; None: `#` and `%` at the top of the file.
        decimal: "," or "."; None: found out.
        dates: "iso", "rfc", "us" (month first), "eu" (day first), "german" (by dots), "long"
            (`09 13, 2009`), or a pattern of strptime; None: the one that all dates fit.
        missing: "drop" rows whose user or item is empty or NULL, NA, None, ...; "keep" these words
            as ids; None: refuse them.
        member: the file meant, of a folder or an archive that holds several.
        valid: the file with the valid pairs, relative to `path`.
        test: the file with the test pairs, likewise.
        overlap: "drop" from valid and test the pairs of an earlier split; None: refuse them.
        where: COLUMN:VALUE, or COLUMN:VALUE|VALUE; other rows are dropped.
        since: drop rows before this date (ISO 8601) or number.
        until: drop rows at or after it, likewise.
        min_rating: drop rows rated lower, in the file's unit; None keeps all.
        max_pairs: then drop users with more distinct pairs, int >= 1; None keeps all.
        k_core: then keep the largest set of pairs in which every user and every item has as many,
            int >= 1, of itself 1; above 1 the users and items that are left are numbered anew.
        split: "random": each user's pairs are dealt by `fractions`, at least one to train.
            "time": the earliest share of all pairs is train, the next valid, the last test (equal
            times stay together); valid and test keep the users and items seen in train.
            "user-time": each user's pairs by time. "last": each user's last pair is test, the one
            before it valid. "popularity": valid and test have all items alike, see `splits.KINDS`.
            "column:NAME": as that column says. None: as the files or a column `split` say, and
            then without valid a share of each user's train pairs, rounded down; else "random".
        fractions: shares of train, valid and test, dimensionless, >= 0, sum 1, train > 0; of itself
            (0.8, 0.1, 0.1).
        seed: of a random split, int >= 0, of itself 0; the same pairs in another order split alike.
        name: of the set; None: the file's.

    Raises:
        DataError: the data cannot be read; the message names the line.
        ValueError: an option is out of its domain.
        TypeError: there is no option of that name.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "films.csv")
    ...     _ = path.write_text("user,item\\nann,Alien\\nann,Brazil\\nbob,Brazil\\n")
    ...     data = load_file(path, fractions=(1, 0, 0))
    >>> data.user_ids.tolist(), data.train.toarray().tolist()
    (['ann', 'bob'], [[1.0, 1.0], [0.0, 1.0]])
    """
    plan, label = checked(options), "data"
    if isinstance(path, str | os.PathLike):
        path = Path(path).expanduser()
        label, parts = str(path), _read_all(path, plan)
    elif sparse.issparse(path):
        parts = {"train": _of_matrix(path)}
    else:
        parts = {"train": _of_table(of_frame(path, label), plan)}
    rows = _joined(parts)
    if plan.split in splits.KINDS:  # made anew
        rows.part = None
    rows = _filtered(rows, plan, label)
    return _dealt(rows, plan, label, plan.name or (path.name if isinstance(path, Path) else label))


@dataclass
class _Rows:
    """Rows of a file: codes of users and items, what the codes stand for, and what else counts."""

    users: np.ndarray
    items: np.ndarray
    user_ids: np.ndarray | None = None
    item_ids: np.ndarray | None = None
    rating: np.ndarray | None = None
    time: np.ndarray | None = None
    part: np.ndarray | None = None
    shape: tuple[int, int] = (0, 0)  # at least
    holds: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    reports: list[dict[str, Any]] = field(default_factory=list)

    def keys(self, n_items: int) -> np.ndarray:
        """One number a pair."""
        return np.asarray(self.users.astype(np.int64) * n_items + self.items)

    def keep(self, which: np.ndarray, why: str, none: str = "no row is left.") -> None:
        """Keep these rows, a mask or places; the others are counted; `none` says what then."""
        before = len(self.users)
        for key in ("users", "items", "rating", "time", "part"):
            if (value := getattr(self, key)) is not None:
                setattr(self, key, value[which])
        self.dropped[why] = self.dropped.get(why, 0) + before - len(self.users)
        if not len(self.users):
            raise DataError(none)


def _read_all(path: Path, plan: Options) -> dict[str, _Rows]:
    """The rows of each split that is a file; train alone where there is one file."""
    found = contents(path, plan.member)
    for role, other in (("valid", plan.valid), ("test", plan.test)):
        if other is not None:
            if role in found:
                raise DataError(f"{path}: holds a {role} file. Leave {role}= out.")
            inside = plan.member is not None or path.is_dir()
            there = contents(path, other) if inside else contents(path.parent / other)
            found |= {role: there["train"]}
    parts, format, several = {}, plan.format, len(found) > 1
    for role in SPLITS:
        if role in found:
            parts[role] = _read(*found.pop(role), plan, format)
            kind = parts[role].reports[0]["format"]
            format = kind if kind in ("adjacency", "table") and several else format
    return parts


def _read(where: str, raw: Content, how: Options, format: str | None) -> _Rows:
    plain = format is None and how.bare and ".txt" in Path(where).suffixes[-2:]
    if plain or format in ("pairs", "adjacency"):
        lines = read_lines(raw, where, format=format)
        for key in how.needed:
            raise DataError(
                f"{where}, line 1: no {key} column, as lines of numbers have none. For other "
                f"columns say format='table', with user=, item= and {key}=."
            )
        report = {"file": where, "format": lines.format, "lines": lines.lines}
        report |= {"blank lines": lines.blank, "rows": len(lines.pairs)}
        if lines.format == "adjacency":
            report["lists"] = lines.lines - lines.blank
        return _Rows(lines.pairs[:, 0], lines.pairs[:, 1], reports=[report])
    table = read_records(raw, where) or read_text(raw, where, how, naming(how))
    rows = _of_table(table, how)
    pa.default_memory_pool().release_unused()  # columns that were read, as large as the rows
    return rows


def _of_matrix(matrix: Any) -> _Rows:
    found = sparse.coo_array(matrix)
    report = {"format": "matrix", "rows": int(found.nnz)}
    if not found.nnz:
        raise DataError("the matrix holds no pair. Give one of users by items.")
    rated = found.data.astype(float)
    return _Rows(found.row, found.col, rating=rated, shape=found.shape, reports=[report])


def _of_table(table: Any, how: Options) -> _Rows:
    columns = Columns(table, how)
    users, user_ids = columns.labels("user")
    items, item_ids = columns.labels("item")
    rows = _Rows(users, items, user_ids, item_ids, reports=[{"file": table.where} | table.report])
    if "rating" in columns.cells:
        try:
            rows.rating = columns.numbers("rating")
        except DataError:
            if "rating" in how.needed:
                raise
            rows.reports[0]["ratings"] = None
    if "timestamp" in columns.cells:
        rows.time = columns.times()
        rows.reports[0]["dates"] = table.report["dates"]
    if "split" in columns.cells:
        rows.part = columns.parts()
    wanted = columns.wanted_rows() if how.where is not None else None
    if how.missing == "drop":
        there = (users >= 0) & (items >= 0)
        wanted = wanted if wanted is None else wanted[there]
        rows.keep(there, "no user or item", f"{table.where}: no row has user and item.")
    if wanted is not None:
        none = f"{table.where}: no row is left of where={how.where!r}. Choose another."
        rows.keep(wanted, f"where is not {how.where}", none)
    return rows


def _joined(parts: dict[str, _Rows]) -> _Rows:
    """One table of ids and one of rows, each row with its split."""
    each = list(parts.values())
    reports = [one.reports[0] for one in each]
    rows = _Rows(np.empty(0), np.empty(0), shape=each[0].shape, reports=reports)
    for side in ("user", "item"):
        codes, ids = [getattr(one, f"{side}s") for one in each], []
        for k, one in enumerate(each):
            known = getattr(one, f"{side}_ids")
            if known is None and any(getattr(other, f"{side}_ids") is not None for other in each):
                numbers, codes[k] = np.unique(codes[k], return_inverse=True)
                known = np.array(list(map(str, numbers)), object)
            ids.append(known)
        if ids[0] is not None:
            labels = np.concatenate(ids)
            whole = all(re.fullmatch("0|-?[1-9][0-9]{0,17}", label) for label in labels)
            kind = np.int64 if whole else str
            table, place = np.unique(np.array(list(labels), kind), return_inverse=True)
            places = np.split(place, np.cumsum([len(some) for some in ids])[:-1])
            codes = [p.astype(np.int32)[c] for p, c in zip(places, codes, strict=True)]
            setattr(rows, f"{side}_ids", table)
        setattr(rows, f"{side}s", np.concatenate(codes) if len(each) > 1 else codes[0])
        own = getattr(rows, f"{side}_ids")
        present = np.bincount(getattr(rows, f"{side}s")) if own is None else np.ones(len(own))
        rows.holds[f"{side}s"] = int(np.count_nonzero(present))
    rows.holds["rows"] = sum(report["rows"] for report in reports)
    for key in ("rating", "time", "part"):
        values = [getattr(one, key) for one in each]
        if all(value is not None for value in values):
            setattr(rows, key, np.concatenate(values) if len(each) > 1 else values[0])
    if len(parts) > 1:
        rows.part = np.repeat(
            [SPLITS.index(key) for key in parts], [len(one.users) for one in each]
        )
    for one in each:
        for why, count in one.dropped.items():
            rows.dropped[why] = rows.dropped.get(why, 0) + count
    return rows


def _filtered(rows: _Rows, plan: Options, where: str) -> _Rows:
    """The distinct pairs that count, sorted by user and item."""
    _describe_ratings(rows)
    if plan.min_rating is not None and rows.rating is not None:
        none = f"{where}: no rating reaches min_rating={plan.min_rating:g}. Lower it."
        rows.keep(rows.rating >= plan.min_rating, "rated below min_rating", none)
    if rows.time is not None and (plan.since is not None or plan.until is not None):
        since, until = (_moment(key, getattr(plan, key)) for key in ("since", "until"))
        inside, none = (rows.time >= since) & (rows.time < until), "since and until"
        rows.keep(inside, f"outside {none}", f"{where}: no row lies between {none}. Widen them.")
    n_items = int(rows.items.max()) + 1
    keys = rows.keys(n_items)
    rows.rating, order = None, np.argsort(keys, kind="stable")
    keys = keys[order]
    again = keys[1:] == keys[:-1]
    by = [each for each in (rows.time, rows.part) if each is not None]
    if by and again.any():  # of a pair, the earliest in each split
        tied = np.concatenate([[False], again]) | np.concatenate([again, [False]])
        some = order[tied]
        order[tied] = some[np.lexsort([*(each[some] for each in by), keys[tied]])]
    if rows.part is not None:
        again &= rows.part[order][1:] == rows.part[order][:-1]
    del keys  # as large as the file's columns
    rows.keep(order[np.concatenate([[True], ~again])] if again.any() else order, "repeated")
    if rows.part is not None:
        _apart(rows, plan, where, n_items)
    if plan.max_pairs is not None:
        few = np.bincount(rows.users)[rows.users] <= plan.max_pairs
        none = f"{where}: every user has more than max_pairs={plan.max_pairs} pairs. Raise it."
        rows.keep(few, "user above max_pairs", none)
    if plan.k_core > 1:
        none = f"{where}: nothing is left with k_core={plan.k_core}. Lower it."
        left = splits.core(rows.users, rows.items, plan.k_core)
        rows.keep(left, "outside the k-core", none)
    for side in ("user", "item"):
        codes, ids = getattr(rows, f"{side}s"), getattr(rows, f"{side}_ids")
        if ids is not None or plan.k_core > 1:  # numbers used as they are may have gaps
            used, codes = splits.compacted(codes)
            setattr(rows, f"{side}s", codes)
            setattr(rows, f"{side}_ids", used if ids is None else ids[used])
    return rows


def _apart(rows: _Rows, plan: Options, where: str, n_items: int) -> None:
    """Let no pair be in two splits of those that the files make."""
    keys = rows.keys(n_items)
    again = np.concatenate([[False], keys[1:] == keys[:-1]])  # sorted by key, then by split
    if not again.any():
        return
    if plan.overlap is None:
        k = int(np.argmax(again))
        pair = [
            repr(code if ids is None else ids[code].item())
            for code, ids in ((rows.users[k], rows.user_ids), (rows.items[k], rows.item_ids))
        ]
        raise DataError(
            f"{where}: {again.sum():,} pairs are in two splits, such as user {pair[0]}, item "
            f"{pair[1]}. Say overlap='drop' to keep them in the earlier one."
        )
    rows.keep(~again, "in an earlier split too")


def _moment(key: str, value: str | float | None) -> float:
    """A date or a number as seconds."""
    if value is None:
        return -np.inf if key == "since" else np.inf
    try:
        if not re.match(r"\d{4}(-|$)", str(value).removesuffix(".0")):  # else a year, or a date
            return float(value)
        return float(np.datetime64(str(value).removesuffix(".0"), "us").astype(np.int64)) / 1e6
    except ValueError:
        raise ValueError(f"{key}={value!r}: expected a date such as 2019-01-31") from None


def _describe_ratings(rows: _Rows) -> None:
    """Say what range the ratings have, and which of them count as liked and may not be meant so."""
    if rows.rating is not None and len(rows.rating):
        low, high = float(rows.rating.min()), float(rows.rating.max())
        zeros = int((rows.rating <= 0).sum())
        least = float(rows.rating[rows.rating > 0].min()) if zeros < len(rows.rating) else None
        found = {"from": low, "to": high, "not above 0": zeros, "least above 0": least}
        rows.reports[0]["ratings"] = found


def _deal(rows: _Rows, plan: Options) -> np.ndarray:
    """0, 1 or 2 for each pair: train, valid or test; -1: none."""
    shares, rng = plan.shares, np.random.default_rng(plan.seed)
    time = rows.time if rows.time is not None else np.zeros(len(rows.users))
    match plan.split:
        case "time":
            return splits.deal_by_time(rows.users, rows.items, time, shares)
        case "user-time":
            return splits.deal_user_time(rows.users, time, shares)
        case "last":
            return splits.deal_last_out(rows.users, time)
        case "popularity":
            return splits.deal_by_popularity(rows.users, rows.items, shares, rng)
    if rows.part is None:
        return splits.deal_by_user(rows.users, shares, rng)
    part = rows.part.copy()
    if not (part == 1).any() and shares[1] > 0 and (part == 0).any():
        train = part == 0
        part[train] = splits.cut_valid(rows.users[train], shares[1] / shares[:2].sum(), rng)
    return part


def _dealt(rows: _Rows, plan: Options, where: str, name: str) -> Interactions:
    part = _deal(rows, plan)
    least = rows.shape if plan.k_core == 1 else (0, 0)
    users, items = (int(side.max()) + 1 for side in (rows.users, rows.items))
    shape = (max(users, least[0]), max(items, least[1]))
    keys, given = rows.keys(shape[1]), rows.part is not None
    if plan.split == "time":
        rows.dropped["held out, user or item not in train"] = int((part < 0).sum())
    parts = [keys[part == k] for k in range(len(SPLITS))]
    none = [SPLITS[k] for k in range(3) if plan.shares[k] > 0 and not len(parts[k])]
    if not len(parts[0]) or (none and plan.split == "time"):
        raise DataError(
            f"{where}: the split {'by time ' * (plan.split == 'time')}leaves no {none[0]} pair"
            f"{' with user and item in train' * (plan.split == 'time')}. Choose other fractions, "
            "or split='random'."
        )
    if none:
        warnings.warn(
            f"{name}: {len(keys):,} pairs of {len(np.unique(rows.users)):,} users are too few: none"
            f" is left for {' and '.join(none)}, so accuracy there cannot be told.",
            UserWarning,
            stacklevel=3,
        )
    report = {
        "files": rows.reports,
        "dropped": rows.dropped,
        "holds": rows.holds,
        "rows": rows.holds["rows"],
        "kept": sum(map(len, parts)),
        "split": plan.split or ("as given" if given else "random"),
    }
    more = {"user_ids": rows.user_ids, "item_ids": rows.item_ids, "dropped": rows.dropped}
    data = from_keys(name, shape, parts, **more, report=report)
    for text in _doubts(data, plan):
        warnings.warn(f"{name}: {text}", UserWarning, stacklevel=3)
    return data


def _doubts(data: Interactions, plan: Options) -> Iterator[str]:
    """What is read as it is, and makes a model or its accuracy useless if it is not meant so."""
    files = (data.report or {})["files"]
    found = next((each["ratings"] for each in files if each.get("ratings")), None)
    if found and found["not above 0"] and plan.min_rating is None:
        column = files[0].get("columns", {}).get("rating", {}).get("name", "")
        way = f"min_rating={found['least above 0']:g}" if found["least above 0"] else "min_rating="
        yield (
            f"the rating column {column!r} goes from {found['from']:g} to {found['to']:g}, and its "
            f"{found['not above 0']:,} rows not above 0 count as liked; {way} drops them."
        )
    train = np.diff(data.train.indptr)
    degree = train + np.diff(data.valid.indptr) + np.diff(data.test.indptr)
    if data.n_users > 1 and degree.max() == data.n_items > 1:
        yield (
            f"user {data.user_id(int(degree.argmax()))!r} has every one of the {data.n_items:,} "
            f"items, so nothing can be learned of it; max_pairs={data.n_items - 1} drops it."
        )
    ranked = data.n_items - train[degree > train]
    if len(ranked) and ranked.max() <= 20:
        yield (
            f"at most {ranked.max()} items are left to rank for a user, so recall@20 is 1 whatever "
            "is learned. If the file has more items, name their column: item="
        )
