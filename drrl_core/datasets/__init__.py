"""Interaction data: named public sets, your own files, and an embedded synthetic set.

`load` is the one door: every set arrives as an immutable `Interactions`, whatever its source.
"""

from .interactions import SPLITS, DataError, Interactions
from .loading import load, load_file
from .options import formats
from .provenance import others, told
from .public import data_folder, describe, fetch, names
from .quality import account, checks, shift
from .recipe import recipes

__all__ = [
    "SPLITS",
    "DataError",
    "Interactions",
    "account",
    "checks",
    "data_folder",
    "describe",
    "fetch",
    "formats",
    "load",
    "load_file",
    "names",
    "others",
    "recipes",
    "shift",
    "told",
]
