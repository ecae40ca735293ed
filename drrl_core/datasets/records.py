"""Tables that say themselves what their columns are: JSON, parquet, feather, xlsx, frames."""

import ast
import io
import itertools
import json
import re
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from .files import Content
from .interactions import DataError
from .tables import Table, as_utf8


def read_records(raw: Content, where: str) -> Table | None:
    """A table in one of these formats, told by its first bytes; None: it is none of them.

    Raises:
        DataError: it is broken, or what reads it is not installed.
    """
    kinds: dict[bytes, Callable[[Content, str], Table]] = {
        **{b"PAR1": _parquet, b"ARROW1": _feather, b"PK\x03\x04": _xlsx},
        **dict.fromkeys((b"{", b"["), _json),
    }
    start = raw[:100].removeprefix(b"\xef\xbb\xbf").lstrip()
    kind = next((kind for magic, kind in kinds.items() if start.startswith(magic)), None)
    return None if kind is None else kind(raw, where)


def of_frame(frame: Any, where: str) -> Table:
    """A pandas or Polars frame, or an Arrow table."""
    if hasattr(frame, "to_arrow"):
        return _of_arrow(frame.to_arrow(), where, "frame")
    if not isinstance(frame, pa.Table):
        frame.columns = frame.columns.map(str)
        frame = pa.Table.from_pandas(frame, preserve_index=False)
    return _of_arrow(frame, where, "frame")


def _of_arrow(table: pa.Table, where: str, format: str) -> Table:
    while any(pa.types.is_struct(field.type) for field in table.schema):
        table = table.flatten()
    if not table.num_rows:
        raise DataError(f"{where}, line 1: nothing follows the header. Check the file.")

    def at(row: int) -> tuple[str, list[str]]:
        return f"row {row + 1}", [str(column[row].as_py()) for column in table.columns]

    names = list(table.column_names)
    report = {"format": format, "header": True, "rows": table.num_rows}
    return Table(
        where,
        names,
        True,
        at(0)[1],
        lambda places, _: [table.column(k) for k in places],
        at,
        report,
    )


def _parquet(raw: Content, where: str) -> Table:
    from pyarrow import parquet

    try:
        return _of_arrow(parquet.read_table(pa.BufferReader(pa.py_buffer(raw))), where, "parquet")
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{where}: no parquet file: {error}. Write or copy it anew.") from error


def _feather(raw: Content, where: str) -> Table:
    try:
        reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(raw)))
        return _of_arrow(reader.read_all(), where, "feather")
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{where}: no feather file: {error}. Write or copy it anew.") from error


def _xlsx(raw: Content, where: str) -> Table:
    try:
        import openpyxl
    except ModuleNotFoundError as error:
        raise DataError(
            f"{where}: is an Excel file, which openpyxl reads: pip install 'drrl-core[files]'; "
            "or save it as CSV."
        ) from error
    try:
        book = openpyxl.load_workbook(io.BytesIO(raw), read_only=True, data_only=True)
        sheets = [[*sheet.iter_rows(values_only=True)] for sheet in book.worksheets]
    except Exception as error:  # it raises what it likes on broken files
        raise DataError(f"{where}: no Excel file: {error}. Save it anew, or as CSV.") from error
    sheets = [sheet for sheet in sheets if sheet]
    if len(sheets) != 1 or len(sheets[0]) < 2:
        raise DataError(
            f"{where}: {len(sheets)} sheets hold something. Save the one with names and a line a "
            "pair as CSV."
        )
    top, *rows = sheets[0]
    rows = [row for row in rows if any(cell is not None for cell in row)]
    cells = [[text_of(cell) for cell in column] for column in zip(*rows, strict=True)]
    return _of_arrow(pa.table(cells, names=[str(name) for name in top]), where, "xlsx")


def text_of(value: Any) -> str:
    """A typed cell as text; pandas and Excel make floats of whole numbers beside missing ones."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None or value != value else str(value)


def _flat(record: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys, dotted where they are nested, and values."""
    for key, value in record.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _parsed(text: bytes) -> Any:
    """A record of JSON, or as Python prints one, in which some public sets come (Steam)."""
    if re.match(rb"\s*\{u?'", text):
        return ast.literal_eval(text.decode())
    return json.loads(text)


def _json(raw: Content, where: str) -> Table:
    """A record a line, or a list of records."""
    body = as_utf8(raw, where)

    def records() -> Iterator[tuple[int, dict[str, Any]]]:
        line = 1
        try:
            if body.lstrip().startswith(b"["):
                for record in json.loads(body):
                    yield line, dict(_flat(record))
                    line += 1
                return
            for line, text in enumerate(io.BytesIO(body), 1):
                if text.strip():
                    yield line, dict(_flat(_parsed(text)))
        except (ValueError, AttributeError, SyntaxError, RecursionError, MemoryError) as error:
            raise DataError(
                f"{where}, line {line}: {error}. Expected a JSON record a line, or a list of them."
            ) from error

    some = list(itertools.islice(records(), 100))
    names = list(dict.fromkeys(name for _, record in some for name in record))
    report: dict[str, Any] = {"format": "JSON", "header": True}
    if not body.lstrip().startswith(b"["):
        report["lines"], report["blank lines"] = body.count(b"\n"), 0

    def at(row: int) -> tuple[str, list[str]]:
        line, record = next(itertools.islice(records(), row, None))
        return f"line {line}", [str(value) for value in record.values()]

    def fetch(places: list[int], _: set[int]) -> list[Any]:
        codes = [array("i") for _ in places]
        values: list[dict[str, int]] = [{} for _ in places]
        wanted = [(names[place], c, v) for place, c, v in zip(places, codes, values, strict=True)]
        for line, record in records():
            for name, code, value in wanted:
                cell = record.get(name)
                if isinstance(cell, list):
                    raise DataError(f"{where}, line {line}: {name} is a list. Name another key.")
                code.append(value.setdefault("" if cell is None else str(cell), len(value)))
        report["rows"] = len(codes[0])
        if "lines" in report:
            report["blank lines"] = len(re.findall(rb"(?m)^[ \t]*\n", body))
        parts = zip(codes, values, strict=True)
        return [pa.DictionaryArray.from_arrays(pa.array(c), pa.array(list(v))) for c, v in parts]

    first = [str(some[0][1].get(name, "")) for name in names] if some else []
    return Table(where, names, True, first, fetch, at, report)
