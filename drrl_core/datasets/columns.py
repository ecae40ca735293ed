"""Which columns of a table count, and what their cells say: labels, numbers, dates."""

import contextlib
import difflib
import re
from collections.abc import Callable
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from .files import role_of
from .interactions import SPLITS, DataError
from .options import Column, Options
from .records import text_of
from .splits import compacted
from .tables import Table

_WORDS = {
    "user": "user userid uid reviewerid customerid userprocid visitorid memberid",
    "item": "item itemid iid movieid productid asin parentasin bookid businessid itemprocid",
    "rating": "rating ratings score stars overall label click clicked like liked target",
    "timestamp": "timestamp time unixreviewtime datetime date",
}
_USUAL = {key: words.split() for key, words in _WORDS.items()}
_TYPED = ":(token|float)(_seq)?$"  # as RecBole ends the names of columns
# A product and a reviewer as Amazon numbers them, in the order of its files since 2018.
_AMAZON_2018 = "(B[0-9A-Z]{9}|[0-9]{9}[0-9X]) A[0-9A-Z]{9,}"
_MISSING = {"null", "none", "nan", "na", "n/a", "<na>", "nil", "\\n", "undefined"}
_TRUTH = {"true": "1", "false": "0"}
_LONGEST = 1_000  # characters of an id
# Numbers below ten to this power are seconds since 1970, or thousandths of them, and so on.
_UNITS = ((11, "seconds"), (14, "milliseconds"), (17, "microseconds"), (400, "nanoseconds"))
_DATES = {
    "iso": ["ISO8601"],
    "rfc": ["%a, %d %b %Y %H:%M:%S %z", "%a %b %d %H:%M:%S %z %Y"],
    "us": [f"%m/%d/%Y{time}" for time in ("", " %H:%M", " %H:%M:%S", " %I:%M:%S %p")],
    "eu": [f"%d/%m/%Y{time}" for time in ("", " %H:%M", " %H:%M:%S")],
    "german": [f"%d.%m.%Y{time}" for time in ("", " %H:%M", " %H:%M:%S")],
    "long": ["%m %d, %Y", "%b %d, %Y", "%B %d, %Y"],
}


def _plain(name: str) -> str:
    """One name for `user_id`, `userId` and `user_id:token`, but never for the id `user-90`."""
    return re.sub(f"[ _.-]|{_TYPED}", "", name.strip().lower())


def naming(how: Options) -> Callable[[str], bool]:
    """Whether a cell of the first line is a name: a usual one, one that was given, RecBole's."""
    usual = {name for names in _USUAL.values() for name in names}
    given = {name for name in how.columns().values() if isinstance(name, str)}
    return lambda cell: bool(
        _plain(cell) in usual or cell.strip() in given or re.search(_TYPED, cell)
    )


class Columns:
    """The columns of a table that count, by what they are: user, item, rating, timestamp, ...

    Raises:
        DataError: user or item cannot be told for certain, or another that is needed is missing.
    """

    def __init__(self, table: Table, how: Options) -> None:
        self.table, self.how = table, how
        self.asked = how.columns()
        self.named = self.asked["user"] is not None and self.asked["item"] is not None
        self.places = self._places()
        self._refuse_guesses()
        order = [key for key in self.places if key != "timestamp" or key in how.needed]
        self.cells = self._fetched(order, ("rating", "timestamp"))
        for key in ("rating", "timestamp"):  # messages show what is no number as it is written
            if (
                key in self.cells
                and self.cells[key].of_numbers
                and self.cells[key].floats() is None
            ):
                self.cells = self._fetched(order, ())
        distinct = {self.places[key] for key in order}
        name = table.top if table.header else [""] * len(table.top)
        table.report["columns"] = {
            key: {"name": name[place].strip(), "position": place}
            for key, place in self.places.items()
        }
        unread = [place for place in range(len(table.top)) if place not in distinct]
        table.report["columns not read"] = [name[place].strip() or place for place in unread[:20]]
        report = {key: n for key in ("user", "item") if (n := self.cells[key].padded)}
        if report:
            table.report["cells with blanks around"] = report
        self._refuse_odd_cells()

    def _fetched(self, order: list[str], numbers: tuple[str, ...]) -> dict[str, "_Cells"]:
        """The columns, each once; these as numbers if they are, without making text of them."""
        distinct = list(dict.fromkeys(self.places[key] for key in order))
        text = {self.places[key] for key in order if key not in numbers}
        plain = {self.places[key] for key in order if key in numbers} - text
        cells = dict(zip(distinct, map(_Cells, self.table.fetch(distinct, plain)), strict=True))
        return {key: cells[self.places[key]] for key in order}

    def refuse(self, problem: str, row: int | None = None) -> NoReturn:
        """Raise for a row, or for the table."""
        where = self.table.where
        if row is None:
            raise DataError(f"{where}, line 1: {problem}")
        line, found = self.table.at(row)
        raise DataError(f"{where}, {line}: {problem} Found: {found!r:.200}.")

    def _places(self) -> dict[str, int]:
        """The positions of the columns at hand, user and item certainly."""
        top, header, places = self.table.top, self.table.header, {}
        names = [name.strip() for name in top]
        for order, (key, column) in enumerate(self.asked.items()):
            wanted = key in ("user", "item", *self.how.needed)
            if column is None and (key not in _USUAL or (self.named and not wanted)):
                auto = self.how.split is None and not self.how.by_files
                if key == "split" and auto and header and key in names:
                    places[key] = names.index(key)
                continue
            found = self._found(key, order, column, names)
            ways_out = f"Say {key}= with a name or a position from 0"
            if len(found) > 1 and wanted:
                several = [names[place] for place in found]
                self.refuse(f"{several} may each be the {key}. {ways_out}.")
            if found and 0 <= found[0] < len(top):
                places[key] = found[0]
            elif column is not None or wanted:
                near = difflib.get_close_matches(str(column or key), names if header else [], n=1)
                hint = f"Did you mean {near[0]!r}? " if near else ""
                said = "" if column is None else f" {column!r}"
                self.refuse(
                    f"no {key} column{said} in {_shown(top)}. {hint}{ways_out}, or sep="
                    f"{', or header=False if that is data' * header}."
                )
        if places["user"] == places["item"]:
            self.refuse(
                f"user and item are one column, {names[places['user']]!r}. Say user= and item= "
                f"with two of {_shown(top)}."
            )
        return places

    def _found(self, key: str, order: int, column: Column, names: list[str]) -> list[int]:
        if isinstance(column, int):
            return [column]
        if column is not None:
            return [k for k, name in enumerate(names) if name == column and self.table.header]
        if self.table.header:
            return [k for k, name in enumerate(names) if _plain(name) in _USUAL[key]]
        alone = {self.asked["user"], self.asked["item"]} == {None}
        return [order] if key in ("user", "item") and alone and len(names) > order else []

    def _refuse_guesses(self) -> None:
        """Refuse what would be read by position, and may be something else."""
        table, top = self.table, self.table.top
        if self.named or table.header:
            return
        user, item = (table.first[self.places[key]].strip() for key in ("user", "item"))
        if len(top) > 4:
            self.refuse(
                f"{len(top)} columns and no header: {_shown(top)}. Say which are user and item, "
                "as in user=0, item=1."
            )
        if _is_date(item):
            self.refuse(
                f"the second column holds dates: {_shown(top)}. Say which are user and item, as in "
                "user=0, item=2."
            )
        if re.fullmatch(_AMAZON_2018, f"{user} {item}"):
            self.refuse(
                f"{top!r:.200} has a product first, then a reviewer. Say user=1, item=0; or "
                "user=0, item=1 if it is right as it is."
            )

    def _refuse_odd_cells(self) -> None:
        """Refuse a first line that may be names or data, and a guessed item that may be a time."""
        table, top = self.table, self.table.top
        user, item = self.cells["user"], self.cells["item"]
        # Names hold no numbers, and neither does a name come twice in its column.
        number = any(re.match(r"\s*[-+]?\.?[0-9]", cell) for cell in top)
        again = any((each.codes[1:] == each.codes[0]).any() for each in (user, item))
        if self.how.header is None and not (table.header or number or again):
            self.refuse(
                f"{top!r:.200} may be names or data. Say header=True, with user= and item=, or "
                "header=False."
            )
        if self.named or table.header:
            return
        rows, settled = len(item.codes), "Say which are user and item, as in user=0, item=1 if so."
        for place, each in (("first", user), ("second", item)):
            if rows >= 20 and len(each.values) > 0.9 * rows:
                few = f"{len(each.values):,} values in {rows:,} rows"
                why = f"the {place} column has {few}, as times or numbers of rows have"
                self.refuse(f"{why}: {_shown(top)}. {settled}")
        for why, pattern in (
            ("times", r"1\d{9}(\d{3})?(\.\d+)?"),
            ("decimals", r"-?\d+\.\d*[1-9]"),
        ):
            if rows >= 20 and all(re.fullmatch(pattern, text) for text in item.values):
                self.refuse(f"the second column holds {why}: {_shown(top)}. {settled}")

    def labels(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Each row's code, int64, and what the codes stand for; -1 where the cell is missing."""
        cells, how = self.cells[key], self.how
        values, codes = cells.values, cells.codes
        bad = {
            f"no {key}. Name it or drop the line, or say missing='drop'.": values == "",
            f"{key} is said to be missing. Say missing='drop', or missing='keep' if it is an id.": (
                np.array([value.lower() in _MISSING for value in values], bool)
            ),
        }
        for (why, wrong), fine in zip(bad.items(), (("drop",), ("drop", "keep")), strict=True):
            if wrong.any() and how.missing not in fine:
                self.refuse(why, cells.first_row(wrong))
        quotes = np.array([value.startswith('"') for value in values], bool)
        if quotes.any() and (line := self.table.report.get("line of an open quote")):
            raise DataError(
                f"{self.table.where}, line {line}: a quote opens in a cell and does not close, and "
                f"quotes are in the {key}s. Mend the line; or say quote=False if they are of them."
            )
        numbers = {value for value in values if value.isdecimal()}
        if twice := next((v for v in values if v.endswith(".0") and v[:-2] in numbers), None):
            row = cells.first_row(values == twice)
            self.refuse(f"the {key} {twice[:-2]!r} is written as {twice!r} too. Mend one.", row)
        if (long := np.array([len(value) > _LONGEST for value in values], bool)).any():
            why = f"the {key} has over {_LONGEST} characters. Is it the right column? Say {key}=."
            self.refuse(why, cells.first_row(long))
        if how.missing == "drop":
            gone = np.any(list(bad.values()), axis=0)
            codes = np.where(gone[codes], -1, (np.cumsum(~gone) - 1)[codes])
            values = values[~gone]
        return codes, values

    def numbers(self, key: str) -> np.ndarray:
        """A column of finite numbers, one a row; decimal commas are understood where certain."""
        cells, report = self.cells[key], self.table.report
        if (found := cells.floats()) is not None:
            return found
        texts, decimal = cells.values, self.how.decimal
        commas = np.array(["," in text for text in texts], bool)
        if decimal is None and commas.any():
            thousands = [re.fullmatch(r"[-+]?\d{1,3}(,\d{3})+", text) for text in texts[commas]]
            if all(thousands):
                self.refuse(
                    f"the {key} may have decimal commas or thousands. Say decimal=',' or "
                    "decimal='.'.",
                    cells.first_row(commas),
                )
            decimal = "," if not any("." in text for text in texts) else "."
        if commas.any():
            report["decimal"] = decimal
            drop, point = (".", ",") if decimal == "," else (",", ".")
            texts = np.array([text.replace(drop, "").replace(point, ".") for text in texts], object)
        texts = np.array([_TRUTH.get(text.lower(), text) for text in texts], object)
        values = pd.to_numeric(pd.Series(list(texts), dtype=str), errors="coerce").to_numpy(float)
        if not np.isfinite(values).all():
            self._no_number(key, cells.first_row(~np.isfinite(values)))
        return np.asarray(values[cells.codes])

    def _no_number(self, key: str, row: int) -> NoReturn:
        self.refuse(
            f"the {key} is no number. Mend it; or say {key}= if it is another column; or "
            "header=True if these are names.",
            row,
        )

    def times(self) -> np.ndarray:
        """Seconds since 1970, or the numbers that the column holds; one a row."""
        cells, report, wanted = self.cells["timestamp"], self.table.report, self.how.dates
        if wanted is None and (values := cells.floats()) is not None:
            size = float(np.median(np.abs(values[:10_000])))
            dated = self.how.since is not None or self.how.until is not None
            dated = dated and values.min() > 19_000_000 and values.max() < 21_000_000
            if dated and (values % 100 <= 31).all():
                why = "the timestamp may be a day or seconds. Say dates='%Y%m%d' if it is a day."
                self.refuse(why, 0)
            power, unit = next(each for each in _UNITS if size < 10 ** each[0])
            report["dates"] = f"numbers, as {unit}"
            return np.asarray(values if power == 11 else values / 10 ** (min(power, 20) - 11))
        if wanted in (None, "iso") and (values := cells.iso_dates()) is not None:
            report["dates"] = "iso"
            return values
        texts = pd.Series(list(cells.values), dtype=str)
        number = pd.to_numeric(texts, errors="coerce").to_numpy(float)
        if wanted is None and np.isfinite(number[cells.codes[0]]):
            self._no_number("timestamp", cells.first_row(~np.isfinite(number)))
        texts = texts.str.replace(r" ?(UTC|GMT)$", "Z", regex=True)
        forms = _DATES if wanted is None else {wanted: _DATES.get(wanted, [wanted])}
        found: dict[str, np.ndarray] = {}
        broken: dict[str, np.ndarray] = {}
        every = [(form, pattern) for form, patterns in forms.items() for pattern in patterns]
        some = texts.iloc[:: max(1, len(texts) // 1_000)]  # millions in vain would take minutes
        likely = [each for each in every if np.isfinite(_moments(some, each[1])).all()]
        for form, pattern in likely or every:
            moments = _moments(texts, pattern)
            if np.isfinite(moments).all():
                found.setdefault(form, moments)
            elif np.isfinite(moments[cells.codes[0]]):
                broken[form] = moments
        different = {moments.tobytes() for moments in found.values()}
        if len(different) > 1:
            ways = " or ".join(f"dates={form!r}" for form in found)
            self.refuse(f"the timestamp may be read in two ways. Say {ways}.", 0)
        if not found:
            moments = next(iter(broken.values()), np.full(len(texts), np.nan))
            self._no_number("timestamp", cells.first_row(~np.isfinite(moments)))
        report["dates"] = next(iter(found))
        return np.asarray(found[report["dates"]][cells.codes])

    def wanted_rows(self) -> np.ndarray:
        """Where the column of `where=` has one of the values after its colon."""
        cells, (_, _, text) = self.cells["where"], (self.how.where or "").partition(":")
        values = {value.strip() for value in text.split("|")}
        if unknown := values - {*cells.values}:
            few = ", ".join(map(repr, cells.values[:8]))
            self.refuse(
                f"where={self.how.where!r}: {sorted(unknown)} is not in it; there are {few}."
            )
        return np.asarray(np.isin(cells.values, list(values))[cells.codes])

    def parts(self) -> np.ndarray:
        """0, 1 or 2 a row: which split its column of splits says."""
        cells = self.cells["split"]
        roles = [role_of(value) for value in cells.values]
        wrong = np.array([role is None for role in roles], bool)
        if wrong.any():
            why = "the split is none of train, valid and test. Say split= for another column."
            self.refuse(why, cells.first_row(wrong))
        return np.asarray(np.array([SPLITS.index(role or "") for role in roles])[cells.codes])


class _Cells:
    """A column: its distinct values, text without blanks around, and each row's code."""

    def __init__(self, column: Any) -> None:
        self._column = column
        self.of_numbers = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)

    @cached_property
    def _encoded(self) -> tuple[Any, Any]:
        column = self._column
        if not pa.types.is_dictionary(column.type):
            column = pc.dictionary_encode(column)
        if isinstance(column, pa.ChunkedArray):
            column = column.unify_dictionaries().combine_chunks()
        self._column = column
        return column.dictionary, column.indices

    def floats(self) -> np.ndarray | None:
        """A finite number each row; None where a cell is none. No text is made of them."""
        if self.of_numbers:
            values = np.asarray(self._column.cast(pa.float64()), float)
            if not np.isfinite(values).all():
                return None
            if self._column.type == pa.float64():
                self._column = pa.array(values)  # the same memory, not a second copy
            return values
        words, indices = self._encoded
        try:
            if not (pa.types.is_integer(words.type) or pa.types.is_floating(words.type)):
                words = pc.utf8_trim_whitespace(pc.cast(words, pa.string()))
            values = np.asarray(pc.cast(words, pa.float64()).to_numpy(zero_copy_only=False))
        except pa.ArrowInvalid:
            return None
        known = not indices.null_count and np.isfinite(values).all()
        return values[indices.to_numpy()] if known else None

    def iso_dates(self) -> np.ndarray | None:
        """Seconds since 1970 each row, where all are dates that Arrow parses: fast, without text.

        No other form that is known begins with a year, so what is read so is read in one way.
        """
        words, indices = self._encoded
        if not pa.types.is_string(words.type) or indices.null_count:
            return None
        texts = pc.replace_substring_regex(pc.utf8_trim_whitespace(words), " ?(UTC|GMT)$", "Z")
        for zone in (None, "UTC"):
            with contextlib.suppress(pa.ArrowInvalid):
                moments = texts.cast(pa.timestamp("us", zone)).cast(pa.int64())
                return np.asarray(moments)[np.asarray(indices)] / 1e6
        return None

    @cached_property
    def _coded(self) -> tuple[np.ndarray, np.ndarray, int]:
        words, indices = self._encoded
        texts = [*map(text_of, words.to_pylist()), ""]
        indices = indices.fill_null(len(texts) - 1) if indices.null_count else indices
        indices = np.asarray(indices)
        distinct: dict[str, int] = {}
        again = [distinct.setdefault(text.strip(), len(distinct)) for text in texts]
        padded = sum(text != text.strip() for text in texts)
        # Values that no row has (a stray blank, the empty cell) are left out.
        used, codes = compacted(np.array(again, np.int32)[indices])
        return np.array(list(distinct), object)[used], codes, padded

    @property
    def values(self) -> np.ndarray:
        return self._coded[0]

    @property
    def codes(self) -> np.ndarray:
        return self._coded[1]

    @property
    def padded(self) -> int:
        return self._coded[2]

    def first_row(self, wrong: np.ndarray) -> int:
        """The first row whose value is one of these."""
        return int(np.argmax(wrong[self.codes]))


def _moments(texts: pd.Series, pattern: str) -> np.ndarray:
    """Seconds since 1970; NaN where the text is not of this form."""
    dates = pd.to_datetime(texts, errors="coerce", utc=True, format=pattern)
    moments = dates.dt.tz_convert(None).to_numpy("datetime64[us]")  # of all years that dates have
    return np.where(np.isnat(moments), np.nan, moments.astype(np.int64) / 1e6)


def _is_date(text: str) -> bool:
    return bool(re.match(r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}\b", text))


def _shown(top: list[str]) -> str:
    """Columns by position, to be chosen from."""
    some = ", ".join(f"{k}: {cell.strip()!r:.40}" for k, cell in enumerate(top[:12]))
    return f"[{some}{', ...' * (len(top) > 12)}]"
