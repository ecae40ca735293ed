"""Your own files, read: pairs of numbers, adjacency lists, tables with columns of labels."""

import codecs
import contextlib
import csv
import difflib
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from .interactions import DataError


def read_bytes(path: Path) -> bytes:
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


def decode(raw: bytes, where, encoding: str) -> str:
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


def read_pairs(
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
    lines = enumerate(io.StringIO(decode(raw, where, "utf-8"), newline=None), 1)
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


def read_table(text: str, where, sep, header, columns, needed: dict) -> pd.DataFrame:
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


def codes(cells: pd.Series, *, gaps: bool) -> tuple[np.ndarray | None, np.ndarray]:
    """Labels, sorted, and each cell's index among them; numbers are the indices, if `gaps` may be.

    Labels are int64 where each is a plain whole number, so that they join other tables as such.
    """
    if cells.dtype == np.int64:
        return (None, cells.to_numpy()) if gaps else np.unique(cells, return_inverse=True)
    codes, labels = pd.factorize(cells)
    whole = all(re.fullmatch("0|-?[1-9][0-9]{0,17}", label) for label in labels)
    ids, order = np.unique(np.array(list(labels), np.int64 if whole else str), return_inverse=True)
    return ids, order[codes]
