"""Lines of whole numbers: `user item`, or `user item item ...`, used as they are."""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from .files import Content
from .interactions import DataError

_BLOCK = 1 << 24  # bytes taken at once, so that masks stay small


@dataclass(frozen=True)
class Lines:
    """Numbers by line: (n, 2) int64 pairs, how they lay, and how many lines held what."""

    pairs: np.ndarray
    format: str
    lines: int
    blank: int


def _blocks(raw: Content) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of whole lines."""
    start = 0
    while start < len(raw):
        stop = min(start + _BLOCK, len(raw))
        cut = raw.rfind(b"\n", start, stop) + 1 if stop < len(raw) else stop
        if cut <= start:
            cut = raw.find(b"\n", stop) + 1 or len(raw)
        yield start, bytes(raw[start:cut])
        start = cut


def _tokens(part: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Of a block, the starts of its words and the line (from 0) that each is in."""
    values = np.frombuffer(part, np.uint8)
    gap = (values == 32) | (values == 9) | (values == 10)
    first = ~gap
    first[1:] &= gap[:-1]
    starts = np.flatnonzero(first)
    ends = np.flatnonzero(values == 10)
    return starts, np.searchsorted(ends, starts)


def _refuse(raw: Content, where: str, at: int, problem: str) -> NoReturn:
    """Raise, naming the line that byte `at` is in."""
    begin, end = raw.rfind(b"\n", 0, at) + 1, raw.find(b"\n", at)
    text = raw[begin : len(raw) if end < 0 else end][:200].decode("utf-8", "replace")
    found = f" Found: {text.split()!r:.200}." if text.strip() else ""
    raise DataError(f"{where}, line {raw.count(10, 0, at) + 1}: {problem}{found}")


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
    raw = raw.removeprefix(codecs.BOM_UTF8)
    if b"\r" in raw:
        raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    body = raw[sum(len(line) for line in raw.split(b"\n", header)[:header]) + header :]
    skipped = len(raw) - len(body)
    numbers, widths, firsts, line = [], [], [], 0
    for start, part in _blocks(body):
        if bad := re.search(rb"[^0-9 \t\n]", part):
            _refuse_word(raw, where, skipped + start + bad.start(), format)
        starts, lines = _tokens(part)
        if len(starts):
            ends = np.append(starts[1:], len(part))
            if (long := ends - starts > 19).any():  # blanks follow, or it is no int64
                for k in np.flatnonzero(long):
                    if len(part[starts[k] : starts[k] + 19].split()[0]) > 18:
                        at = skipped + start + int(starts[k])
                        _refuse(raw, where, at, _too_large(shape))
            numbers.append(np.fromstring(part.decode("ascii"), np.int64, sep=" "))
            first = np.flatnonzero(np.diff(lines, prepend=-1))
            widths.append(np.diff(np.append(first, len(lines))))
            firsts.append(np.stack([lines[first] + line, starts[first] + start + skipped]))
        line += part.count(b"\n")
    total = raw.count(b"\n") + (not raw.endswith(b"\n") and len(raw) > 0)
    if not numbers:
        problem = "nothing follows the header" if header else "the file is empty"
        raise DataError(
            f"{where}, line {header + 1}: {problem}. Expected a line a pair: user item."
        )
    values, width, first = np.concatenate(numbers), np.concatenate(widths), np.hstack(firsts)
    format = format or _format(width, values[np.cumsum(width) - width])
    pairs = _paired(raw, where, values, width, first[1], format)
    _check_limits(raw, where, pairs, width, first[1], shape)
    return Lines(pairs, format, total, total - len(width) - header)


def _refuse_word(raw: Content, where: str, at: int, format: str | None) -> NoReturn:
    """What is no number: bytes that are no text, other columns, or ids that are words."""
    begin, end = raw.rfind(b"\n", 0, at) + 1, raw.find(b"\n", at)
    line = bytes(raw[begin : len(raw) if end < 0 else end])
    try:
        line.decode()
    except UnicodeDecodeError as error:
        _refuse(raw, where, at, f"{error}. Save the file as UTF-8.")
    if b"\0" in line:
        _refuse(raw, where, at, "a NUL byte, as in UTF-16. Save the file as UTF-8.")
    if format != "adjacency" and len(line.split()) != 2:
        _refuse(raw, where, at, _two_fields(len(line.split())))
    problem = "an id is not a whole number >= 0. For other ids say format='table'."
    _refuse(raw, where, at, problem)


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


def _paired(
    raw: Content, where: str, values: np.ndarray, width: np.ndarray, at: np.ndarray, format: str
) -> np.ndarray:
    if format == "adjacency":
        begin = np.cumsum(width) - width
        pairs = np.stack([np.repeat(values[begin], width - 1), np.delete(values, begin)], axis=1)
        if not len(pairs):
            raise DataError(f"{where}, line 1: users without any item. Check the file.")
        return pairs
    if (wrong := width != 2).any():
        k = int(np.argmax(wrong))
        _refuse(raw, where, int(at[k]), _two_fields(int(width[k])))
    return values.reshape(-1, 2)


def _check_limits(
    raw: Content,
    where: str,
    pairs: np.ndarray,
    width: np.ndarray,
    at: np.ndarray,
    shape: tuple[int, int] | None,
) -> None:
    limits = shape or (10 * len(pairs) + 1_000_000,) * 2
    if (wrong := (pairs >= limits).any(axis=1)).any():
        line = np.searchsorted(np.cumsum(width - 1), int(np.argmax(wrong)), side="right")
        _refuse(raw, where, int(at[line]), _too_large(limits))
