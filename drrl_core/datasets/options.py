"""How your own data are to be read, filtered and split: the options, checked."""

import re
import tomllib
import urllib.parse
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from drrl_core.common import did_you_mean

from . import splits
from .interactions import DataError

Column = int | str | None
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Text = Annotated[str, Field(min_length=1)]
_KINDS = f"^({'|'.join(splits.KINDS)}|column:.+)$"
_ALLOWED = {
    "split": f"it should be {', '.join(splits.KINDS)} or column:NAME",
    "where": "it should be COLUMN:VALUE",
    "fractions": "they should be three shares >= 0, as in .8,.1,.1",
}


class Options(BaseModel):
    """The parameters of `load_file`, where they are described."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["pairs", "adjacency", "table"] | None = None
    user: Column = None
    item: Column = None
    rating: Column = None
    timestamp: Column = None
    sep: _Text | None = None
    header: bool | None = None
    encoding: str = "utf-8"
    quote: bool | None = None
    comment: _Text | None = None
    decimal: Literal[",", "."] | None = None
    dates: _Text | None = None
    missing: Literal["keep", "drop"] | None = None
    member: str | None = None
    valid: str | None = None
    test: str | None = None
    overlap: Literal["drop"] | None = None
    where: Annotated[str, Field(pattern="^[^:]+:")] | None = None
    since: float | str | None = None
    until: float | str | None = None
    min_rating: Annotated[float, Field(allow_inf_nan=False)] | None = None
    max_pairs: Annotated[int, Field(ge=1)] | None = None
    k_core: Annotated[int, Field(ge=1)] = 1
    split: Annotated[str, Field(pattern=_KINDS)] | None = None
    fractions: tuple[_Share, _Share, _Share] = (0.8, 0.1, 0.1)
    seed: Annotated[int, Field(ge=0)] = 0
    name: str | None = None

    @model_validator(mode="after")
    def _fit_together(self) -> "Options":
        if abs(sum(self.fractions) - 1) > 1e-9 or not self.fractions[0]:
            raise ValueError(f"fractions={self.fractions}: expected sum 1, train > 0")
        if self.by_files and self.split is not None:
            raise ValueError(f"split={self.split}: valid= and test= say the split. Leave one out")
        if not self.bare and self.format in ("pairs", "adjacency"):
            problem = "takes no sep, header or columns: it has none"
            raise ValueError(f"format={self.format!r} {problem}")
        return self

    @property
    def shares(self) -> np.ndarray:
        """Of train, valid and test."""
        return np.asarray(self.fractions, float)

    @property
    def by_files(self) -> bool:
        """Whether files say the split."""
        return self.valid is not None or self.test is not None

    @property
    def bare(self) -> bool:
        """Whether no option is of tables alone."""
        of_tables = (
            "user item rating timestamp sep header quote comment decimal dates missing where"
        )
        return self.encoding == "utf-8" and {getattr(self, k) for k in of_tables.split()} == {None}

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns that the options rest on."""
        timed = self.split in ("time", "user-time", "last")
        timed = timed or self.since is not None or self.until is not None
        return ("rating",) * (self.min_rating is not None) + ("timestamp",) * timed

    def columns(self) -> dict[str, Column]:
        """The columns asked for, by what they are."""
        kinds = {key: getattr(self, key) for key in ("user", "item", "rating", "timestamp")}
        where, split = (self.where or "").partition(":")[0], (self.split or "").partition(":")[2]
        return kinds | {"where": column(where), "split": column(split)}


def column(text: str) -> Column:
    """A column's position where that is a number, else its name; None for none."""
    return int(text) if text.isdecimal() else text or None


def checked(given: dict[str, Any]) -> Options:
    """Options, or a ValueError that names the first that is wrong."""
    given = {key: v.item() if isinstance(v, np.generic) else v for key, v in given.items()}
    try:
        return Options(**given)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise ValueError(first["msg"].removeprefix("Value error, ")) from None
        key = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            hint = did_you_mean(key, Options.model_fields)
            raise TypeError(f"load_file() takes no option {key!r}; {hint}") from None
        allowed = _ALLOWED.get(key, re.sub(r"^(Input|String) should ", "it should ", first["msg"]))
        raise ValueError(f"{key}={given[key]!r}: {allowed}") from None


def parse(query: str) -> dict[str, Any]:
    """Options as in `min_rating=4&fractions=.6,.2,.2`, `%3B` for what has a meaning there."""
    options: dict[str, Any] = {}
    for key, text in urllib.parse.parse_qsl(query, keep_blank_values=True):
        if key not in Options.model_fields:
            raise DataError(
                f"?{query}: no option {key!r}; {did_you_mean(key, Options.model_fields)}"
            )
        value: Any = tuple(text.split(",")) if key == "fractions" else text
        options[key] = column(text) if key in ("user", "item", "rating", "timestamp") else value
        try:
            options[key] = getattr(checked({key: options[key]}), key)
        except ValueError as error:
            why = str(error).partition(": ")[2]
            raise DataError(f"?{query}: {key}={text} cannot be read: {why}.") from None
    if query and not options:
        raise DataError(f"?{query}: expected options such as ?min_rating=4&k_core=5.")
    return options


def formats() -> pd.DataFrame:
    """What one's own data may be: an example of each format, and how it is told from the others.

    >>> list(formats().loc["pairs"])
    ['`0 17`: user and item, whole numbers', '`.txt`']
    """
    text = Path(__file__).with_name("formats.toml").read_text(encoding="utf-8")
    return pd.DataFrame(tomllib.loads(text)).T.rename_axis("format")
