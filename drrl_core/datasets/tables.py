"""Tables as text: how one is laid out is found out once, said, and never guessed in two ways."""

import codecs
import csv as py_csv
import io
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pyarrow import csv

from .files import Content
from .interactions import DataError
from .options import Options

_MARKS = ("\t", "::", ";", ",", "|", " ")
PART = "are a part of the cells"
_LONGEST = 1 << 20  # bytes of the first lines; a longer one is no line of a table


@dataclass(frozen=True)
class Table:
    """A table before its columns are chosen.

    Args:
        where: the file, for messages.
        top: its first row's cells: names, if `header`.
        header: whether they are names.
        first: the first row of data, to be shown.
        fetch: the columns at some places, as Arrow arrays, all rows; those at the places given
            second as numbers, if all their cells are.
        at: where a row is, for messages, as "line 7", and its cells.
        report: what was found out, by name.
    """

    where: str
    top: list[str]
    header: bool
    first: list[str]
    fetch: Callable[[list[int], set[int]], list[Any]]
    at: Callable[[int], tuple[str, list[str]]]
    report: dict[str, Any] = field(default_factory=dict)


def read_text(raw: Content, where: str, how: Options, is_name: Callable[[str], bool]) -> Table:
    """A table of text: its separator, quotes, comments and header.

    Args:
        is_name: whether a cell of the first line is the name of a column.

    Raises:
        DataError: it is no table, or may be read in two ways; the line is named.
    """
    body = as_utf8(raw, where, how.encoding)
    body, comments, mark = _without_comments(body, how)
    head = [line for line in bytes(body[: 1 << 18]).split(b"\n") if line.strip(b" ")][:100]
    if not head:
        raise DataError(
            f"{where}, line 1: the file is empty. Expected a line a pair: user and item."
        )
    shown = how.sep or _separator([line.decode("utf-8", "replace") for line in head])
    body, sep = _with_one_byte(body, shown, b'"' in body and how.quote is not False)
    if b" \n" in body:
        body = re.sub(rb"(?m)^ +$", b"", body)
    if b'"' in body and how.quote is not False and sep != b" ":  # blanks are none of a quoted cell
        edge = re.escape(sep)
        blanks = rb'(?m)(?:^|(?<=%s))[ \t]+(?=")|(?<=")[ \t]+(?=%s|$)' % (edge, edge)
        body = re.sub(blanks.replace(b"[ \\t]", b" ") if sep == b"\t" else blanks, b"", body)
    layout = _Layout(body, where, sep, *_quoting(body, sep, where, how))
    begin, stop = next(layout.records())
    top = layout.cells(begin, stop)
    if mark is not None and mark.count(sep) == len(top) - 1 > 0:
        raise DataError(
            f"{where}, line 1: {mark.decode('utf-8', 'replace')!r:.200} may be names or a comment. "
            f"Say comment={chr(mark[0])!r}, or delete the sign before the names."
        )
    header = how.header if how.header is not None else any(map(is_name, top))
    start = stop + 1 if header else begin
    report = {
        **{"format": "table", "separator": shown, "quotes": _said_of_quotes(layout)},
        **{"encoding": how.encoding, "header": header, "lines": body.count(b"\n")},
        "header lines": body.count(b"\n", begin, stop) + 1 if header else 0,
        "comment lines": comments,
        "line of an open quote": layout.open_quote,
        "blank lines": _blank_lines(body) - comments,
    }
    first = next((layout.cells(*each) for each in layout.records(start)), None)
    if first is None:
        raise DataError(f"{where}, line 1: nothing follows the header. Check the file.")

    def at(row: int) -> tuple[str, list[str]]:
        found = next(itertools.islice(layout.records(start), row, None))
        return layout.line(found[0]), layout.cells(*found)

    def fetch(places: list[int], numbers: set[int]) -> list[Any]:
        return layout.columns(start, len(top), places, numbers, report)

    return Table(where, top, header, first, fetch, at, report)


def _said_of_quotes(layout: "_Layout") -> str | None:
    if layout.quoted:
        return "enclose cells, over lines" if layout.multi else "enclose cells"
    return PART if b'"' in layout.body else None


def _blank_lines(body: Content) -> int:
    some = b"\n\n" in body or body.startswith(b"\n")
    return len(re.findall(rb"(?m)^\n", body)) if some else 0


def as_utf8(raw: Content, where: str, encoding: str = "utf-8") -> Content:
    """UTF-8 without byte-order mark, each line ending in a newline; wrong bytes named by line."""
    problem, at = "a NUL byte, as in UTF-16", -1
    try:
        if not (raw.isascii() and encoding == "utf-8"):
            text = raw.decode(encoding)
            raw = raw if encoding == "utf-8" else text.encode()
        raw = raw.removeprefix(codecs.BOM_UTF8)
        at = raw.find(b"\0")
    except LookupError:
        raise ValueError(f"encoding={encoding!r}: expected one such as 'latin-1'") from None
    except UnicodeError as error:
        problem, at = str(error), getattr(error, "start", 0)
    if at >= 0:
        raise DataError(
            f"{where}, line {raw.count(10, 0, at) + 1}: {problem}. Save the file as UTF-8; or, for "
            "a table, give encoding='latin-1', 'utf-16' or what it is."
        )
    raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in raw else raw
    return raw if raw.endswith(b"\n") else raw + b"\n"


def _without_comments(body: Content, how: Options) -> tuple[Content, int, bytes | None]:
    """The text with comment lines emptied, how many there were, and the last of those on top."""
    if how.comment is not None:
        pattern = rb"(?m)^%s.*" % re.escape(how.comment.encode())
        return *re.subn(pattern, b"", body), None
    top = re.match(rb"(?:[ \t]*\n|[#%][^\n]*\n)*+", body)
    marks = re.findall(rb"(?m)^[#%].*", top[0]) if top else []
    if how.header is not None or not marks or top is None:
        return body, 0, None
    return b"\n" * top[0].count(b"\n") + body[top.end() :], len(marks), marks[-1]


def _separator(head: list[str]) -> str:
    """The first mark that every line at the top holds as often; else the first that line 1 holds.

    >>> _separator(["u0;i1;4,5", "u0;i2;3,5"]), _separator(["user item", "u0  i1"])
    (';', ' ')
    """
    plain = [re.sub(r'"[^"]*"', "", line).strip(" ") for line in head]
    for mark in _MARKS:
        counts = {len(line.split() if mark == " " else line.split(mark)) for line in plain}
        if len(counts) == 1 and counts != {1}:
            return mark
    return next((mark for mark in _MARKS if mark in plain[0]), ",")


def _with_one_byte(body: Content, sep: str, quotes: bool) -> tuple[Content, bytes]:
    """The text with a separator of one byte: of a run of blanks one, for `::` a control sign."""
    mark = sep.encode()
    if sep == " " and any(run in body for run in (b"  ", b"\t", b" \n", b"\n ")):
        if quotes:
            part = rb'("(?:[^"\n]|"")*+")|[ \t]+'
            body = re.sub(part, lambda match: match[1] or b" ", body)
        else:
            body = re.sub(rb"[ \t]+", b" ", body)
        return re.sub(rb"(?m)^ | $", b"", body), mark
    if len(mark) == 1:
        return body, mark
    free = next((bytes([k]) for k in (31, 30, 29, 28) if k not in body), None)
    if free is None:
        raise ValueError(f"sep={sep!r}: the file is full of control characters")
    return body.replace(mark, free), free


def _quoting(body: Content, sep: bytes, where: str, how: Options) -> tuple[bool, bool, int]:
    """Whether quotes enclose cells, whether over several lines, and the line of one left open.

    A quote that opens and does not close in its line may do either: it is a part of the cell, if
    then all lines are of one width; or it goes on, if then all records are.
    """
    if b'"' not in body or how.quote is False:
        return False, False, 0
    edge = re.escape(sep)
    whole = rb'(?m)(?:^|(?<=%s))"(?:[^"\n]|"")*+"(?=%s|$)' % (edge, edge)
    rest, enclosed = re.subn(whole, b"", body)
    stray = re.search(rb'(?m)(?:^|(?<=%s))"' % edge, rest)
    if stray is None:
        return enclosed > 0, False, 0
    line = rest.count(10, 0, stray.start()) + 1
    layout = _Layout(body, where, sep, True, True, 0)
    by_quotes, by_lines = layout.well_quoted(), _ragged(body, sep, False) is None
    if by_quotes and (how.quote or not by_lines):
        return True, True, 0
    if by_lines and not by_quotes and how.quote is None:
        return False, False, line
    problem = (
        "it may enclose several lines, or be a part of the cell. Say quote=True, or quote=False"
        if by_quotes
        else "it does not close. Mend the line; or say quote=False if it is a part of the cell"
    )
    raise DataError(f"{where}, line {line}: a quote opens, and {problem}.")


def _ragged(body: Content, sep: bytes, quoted: bool) -> tuple[int, int, int] | None:
    """The first line of another width than the first, its width and the first's."""
    width, cell = 0, re.compile(rb'"(?:[^"]|"")*+"')
    for number, line in enumerate(io.BytesIO(body), 1):
        if line != b"\n":
            found = (cell.sub(b"", line) if quoted and b'"' in line else line).count(sep) + 1
            width = width or found
            if found != width:
                return number, found, width
    return None


@dataclass(frozen=True)
class _Layout:
    """A text whose separator and quotes are known."""

    body: Content
    where: str
    sep: bytes
    quoted: bool
    multi: bool
    open_quote: int  # the line of a quote that does not close; 0: none

    def records(self, start: int = 0) -> Iterator[tuple[int, int]]:
        """Where each record that is not blank begins and ends."""
        if self.multi:
            cell = rb'(?:"(?:[^"]|"")*+"|[^"\n%s][^\n%s]*+)?+' % ((self._in_class(),) * 2)
            record = re.compile(rb"%s(?:%s%s)*+(?=\n)" % (cell, re.escape(self.sep), cell))
            while match := record.match(self.body, start):
                if match.end() > start:
                    yield match.span()
                start = match.end() + 1
            return
        while start < len(self.body):
            stop = self.body.find(b"\n", start)
            if stop > start:
                yield start, stop
            start = stop + 1

    def _in_class(self) -> bytes:
        return b"\\" + self.sep

    def well_quoted(self) -> bool:
        """Whether all the text is records of one width."""
        stop, width = -1, 0
        for begin, stop in self.records():
            found = len(self.cells(begin, stop))
            width = width or found
            if found != width:
                return False
        return not self.body[stop + 1 :].strip(b"\n")

    def line(self, at: int) -> str:
        return f"line {self.body.count(10, 0, at) + 1}"

    def cells(self, begin: int, stop: int) -> list[str]:
        """A record's cells; one too long for a table is refused."""
        text = bytes(self.body[begin : min(stop, begin + _LONGEST)])
        if len(text) == _LONGEST:
            raise DataError(
                f"{self.where}, {self.line(begin)}: over {_LONGEST:,} bytes long, begins "
                f"{text[:60]!r}. Expected a line a pair: user and item."
            )
        if not self.quoted or b'"' not in text:
            return text.decode("utf-8", "replace").split(self.sep.decode())
        source = io.StringIO(text.decode("utf-8", "replace"), newline="")
        try:
            return next(py_csv.reader(source, delimiter=self.sep.decode()))
        except py_csv.Error as error:
            raise DataError(f"{self.where}, {self.line(begin)}: {error}. Mend the line.") from None

    def columns(
        self,
        start: int,
        width: int,
        places: list[int],
        numbers: set[int],
        report: dict[str, Any],
    ) -> list[Any]:
        """The columns at these places, as dictionary-encoded text or, if they are, as numbers."""
        names, text = [str(place) for place in range(width)], pa.dictionary(pa.int32(), pa.string())
        types = dict.fromkeys(names, text) | {names[k]: pa.float64() for k in numbers}
        try:
            table = csv.read_csv(
                pa.BufferReader(pa.py_buffer(self.body)[start:]),
                read_options=csv.ReadOptions(column_names=names, block_size=1 << 24),
                parse_options=csv.ParseOptions(
                    delimiter=self.sep.decode(),
                    quote_char='"' if self.quoted else False,
                    newlines_in_values=self.multi,
                ),
                convert_options=csv.ConvertOptions(
                    include_columns=[names[place] for place in places],
                    column_types=types,
                    null_values=[],
                    strings_can_be_null=False,
                ),
            )
        except pa.ArrowInvalid as error:
            if numbers:
                return self.columns(start, width, places, set(), report)
            raise self._refusal(error) from None
        counted = report["header lines"] + report["comment lines"] + report["blank lines"]
        report["rows"], inside = table.num_rows, report["lines"] - counted - table.num_rows
        report["lines inside quoted cells"] = inside
        if inside and not self.multi:
            raise DataError(
                f"{self.where}: {report['lines']:,} lines hold {table.num_rows:,} rows, which do "
                "not add up. Say quote=False, or save the table anew."
            )
        return [table.column(names[place]) for place in places]

    def _refusal(self, error: Exception) -> DataError:
        ragged = None if self.multi else _ragged(self.body, self.sep, self.quoted)
        if ragged is None:
            return DataError(f"{self.where}, line 1: {error}. Save the table anew.")
        return DataError(
            f"{self.where}, line {ragged[0]}: {ragged[1]} fields, but {ragged[2]} in the first "
            "line. Mend the line; or quote a field that holds the separator; or say which it is "
            "with sep=."
        )
