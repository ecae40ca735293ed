"""Recipes of public sets that one brings oneself: how their files are read, and what they hold."""

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from drrl_core.common import did_you_mean

from .interactions import DataError

COUNTS = ("users", "items", "rows")
_UNITS = {"K": 1e3, "M": 1e6}


@dataclass(frozen=True)
class Recipe:
    """One way to read a set: a file, the options behind it, and the counts that it must have.

    Args:
        name: the set's.
        address: the file's name in the set's folder, with options as in a web address.
        holds: users, items and rows before any filter: a number, a text such as "632.0K" that is
            rounded so, or 0 where nothing is published.
        source, url, cite: who published the counts, where the file is, whom to cite.
        checked: whether the counts were compared with the file itself.
    """

    name: str
    address: str
    holds: tuple[int | str, int | str, int | str]
    source: str
    url: str
    cite: str
    checked: bool = False

    @property
    def file(self) -> str:
        """The file's name."""
        return self.address.partition("?")[0]

    def differences(self, found: dict[str, int]) -> list[str]:
        """Where the counts found are not those published, a text each."""
        return [
            f"{found[key]:,} {key}, not {_shown(said)}"
            for key, said in zip(COUNTS, self.holds, strict=True)
            if said and not _agree(found[key], said)
        ]


def recipes_of(name: str) -> list[Recipe]:
    """The recipes of a set, the one to try first at the top; none: no set of that name.

    Raises:
        DataError: a collection has no such part.

    >>> [recipe.file for recipe in recipes_of("amazon-2023-Books")][-1], recipes_of("my.csv")
    ('Books.jsonl.gz', [])
    """
    key = next((key for key in _tables() if name.startswith(key.removesuffix("*"))), name)
    table = _tables().get(key if key.endswith("*") else name)
    if table is None:
        return []
    part, found = name.removeprefix(key.removesuffix("*")), []
    for each in table["files"]:
        facts = {"source": each["source"], "url": table["url"], "cite": table["cite"]}
        counts = table["each"][each["each"]].get(part) if "each" in each else each["holds"]
        if counts:
            address = each["file"].replace("*", part)
            checked = each.get("checked", False)
            found.append(Recipe(name, address, tuple(counts), **facts, checked=checked))
    if not found:
        parts = sorted({part for counts in table["each"].values() for part in counts})
        raise DataError(f"{name}: no such part of {key}; {did_you_mean(part, parts)}")
    return found


def recipes() -> pd.DataFrame:
    """The public sets that one brings oneself, a row a file that is read.

    Returns:
        Indexed by set (`*`: a part of the name): file, users, items, rows, as published; checked,
        whether the file itself was counted; source; url.

    >>> recipes().loc["movielens-100k", "users"]
    '943'
    """
    rows = []
    for key, table in _tables().items():
        for each in table["files"]:
            counts = dict(zip(COUNTS, map(_shown, each.get("holds", (0, 0, 0))), strict=True))
            about = {"checked": each.get("checked", False), "source": each["source"]}
            file = each["file"].partition("?")[0]
            rows.append({"set": key, "file": file} | counts | about | {"url": table["url"]})
    return pd.DataFrame(rows).set_index("set")


@functools.cache
def _tables() -> dict[str, dict[str, Any]]:
    return tomllib.loads(Path(__file__).with_name("recipes.toml").read_text(encoding="utf-8"))


def _agree(found: int, said: int | str) -> bool:
    """Whether a count is the published one, which a text gives rounded."""
    if isinstance(said, int):
        return found == said
    digits, unit = said[:-1], _UNITS[said[-1]]
    half = 0.5 * 10.0 ** -len(digits.partition(".")[2])
    return abs(found / unit - float(digits)) <= half * (1 + 1e-9)


def _shown(said: int | str) -> str:
    return f"{said:,}" if isinstance(said, int) and said else str(said or "")
