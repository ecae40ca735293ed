"""Lines of whole numbers: `user item`, or `user item item ...`, used as they are."""

import io
import itertools
import re
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from .files import Content
from .interactions import DataError
from .tables import as_utf8

_LONGEST = 1 << 24  # bytes of a line


@dataclass(frozen=True)
class Lines:
    """Numbers by line: (n, 2) int64 pairs, how they lay, and how many lines held what."""

    pairs: np.ndarray
    format: str
    lines: int
    blank: int


def read_lines(
    raw: Content,
    where: str,
    shape: tuple[int, int] | None = None,
    *,
    header: int = 0,
    format: str | None = "pairs",
) -> Lines:
    """The pairs of a file of whole numbers.

    Args:
        raw: its bytes; where: its name, for messages.
        shape: ids must lie below; None: below ten times the pairs plus a million, for beyond that
            nearly all rows of a table would be empty.
        header: so many first lines are names.
        format: "pairs", "adjacency", or None: adjacency where no user comes twice, and the lines
            differ in length and are no pairs with a faulty line.

    Raises:
        DataError: a line is not so; it is named.
    """
    body = as_utf8(raw, where) if raw else raw
    for _ in range(header):
        body = body[body.find(b"\n") + 1 :]

    def refuse(line: int, problem: str) -> NoReturn:
        text = next(itertools.islice(io.BytesIO(body), line, None)).decode()
        raise DataError(
            f"{where}, line {line + header + 1}: {problem} Found: {text[:200].split()!r:.200}."
        )

    def line_of(match: re.Match[Any]) -> int:
        return body.count(10, 0, match.start())

    wide = re.search(rb"[^\n]{%d}" % _LONGEST, body) if len(body) > _LONGEST else None
    if wide:
        refuse(line_of(wide), f"the line has over {_LONGEST:,} bytes.")
    if bad := re.search(rb"[^0-9 \t\n]", body):
        found = len(body[body.rfind(b"\n", 0, bad.start()) + 1 :].split(b"\n", 1)[0].split())
        word = "an id is not a whole number >= 0. For other ids say format='table'."
        refuse(line_of(bad), word if format == "adjacency" or found == 2 else _two_fields(found))
    if long := re.search(rb"[0-9]{19}", body):
        refuse(line_of(long), _too_large(shape))
    every = np.fromiter((len(line.split()) for line in io.BytesIO(body)), np.int64)
    rows = np.flatnonzero(every)
    if not len(rows):
        problem = "nothing follows the header" if header else "the file is empty"
        raise DataError(
            f"{where}, line {header + 1}: {problem}. Expected a line a pair: user item."
        )
    values, width = np.fromstring(body.decode(), np.int64, sep=" "), every[rows]  # text, no bytes
    begin = np.cumsum(width) - width
    format = format or _format(width, values[begin])
    if format == "adjacency":
        owner = np.repeat(np.arange(len(rows)), width - 1)
        pairs = np.stack([values[begin][owner], np.delete(values, begin)], axis=1)
    elif (width != 2).any():
        k = int(np.argmax(width != 2))
        refuse(int(rows[k]), _two_fields(int(width[k])))
    else:
        owner, pairs = np.arange(len(rows)), values.reshape(-1, 2)
    if not len(pairs):
        raise DataError(f"{where}, line 1: users without any item. Check the file.")
    limits = shape or (10 * len(pairs) + 1_000_000,) * 2
    if (wrong := (pairs >= limits).any(axis=1)).any():
        refuse(int(rows[owner[np.argmax(wrong)]]), _too_large(limits))
    return Lines(pairs, format, len(every) + header, len(every) - len(rows))


def _two_fields(found: int) -> str:
    return (
        f"expected two fields, user and item, not {found}. Mend the line; or say "
        "format='adjacency' if lines are `user item item ...`; or format='table', with user= and "
        "item= if there are more columns."
    )


def _too_large(shape: tuple[int, int] | None) -> str:
    limit = f", expected below {shape}" if shape else ""
    return (
        f"an id is too large{limit}, or tables would be mostly empty. "
        "To have ids taken for labels say format='table'."
    )


def _format(width: np.ndarray, users: np.ndarray) -> str:
    """Adjacency, if lines differ in length, begin with distinct ids and are mostly no pairs."""
    uneven = width.max() > max(2, width.min()) and len(np.unique(users)) == len(users)
    return "adjacency" if uneven and (width.max() > 3 or (width != 2).mean() > 0.5) else "pairs"
