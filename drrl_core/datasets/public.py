"""The named public sets: what they are, where their files come from, how these become splits."""

import difflib
import os
import sys
import tomllib
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pooch
from scipy import sparse

from drrl_core.common import checkout, own_file

from .files import read_bytes
from .interactions import SPLITS, DataError, Interactions, from_keys
from .options import parse
from .pairs import read_lines
from .recipe import Recipe, recipes, recipes_of
from .synthetic import generate

Folder = str | os.PathLike[str] | None


def names() -> list[str]:
    """The registered names, the embedded set first.

    >>> names()[:2]
    ['synthetic', 'amazon-beauty']
    """
    return list(_SETS)


def load_public(name: str, *, data_dir: Folder = None, seed: int = 0) -> Interactions:
    """A named set, its files verified, its splits disjoint. Arguments and errors as of `load`."""
    source = _source(name)
    if name == "synthetic":
        return generate(seed)
    splits = source.read(fetch(name, data_dir=data_dir), source.shape)
    keys, counts = np.unique(np.concatenate(splits), return_counts=True)
    if (counts > 1).any():
        user, item = divmod(int(keys[counts > 1][0]), source.shape[1])
        raise DataError(
            f"{data_folder(data_dir) / name}: user {user}, item {item} is in more than "
            "one split. Delete the folder and fetch the set again."
        )
    return from_keys(name, source.shape, splits)


def data_folder(data_dir: Folder = None) -> Path:
    """The folder whose `<set>/<file>` are the public files.

    Args:
        data_dir: used as it is when given; else `$DRRL_DATA`; else `data/downloads` of the
            checkout this runs from; else the user's cache folder.

    >>> data_folder("elsewhere").name
    'elsewhere'
    """
    if chosen := data_dir or os.environ.get("DRRL_DATA"):
        return Path(chosen).expanduser()
    root = checkout()
    return root / "data" / "downloads" if root else Path(pooch.os_cache("drrl"))


def fetch(name: str, *, data_dir: Folder = None) -> list[Path]:
    """Have a named set's files: verify by SHA-256 what is there, download what is missing.

    Args:
        name: one of `names()` or of `recipes()`, whose files are verified when they are brought.
        data_dir: see `data_folder`; need not be writable when the files are there.

    Returns:
        The verified files' paths; none for `synthetic`.

    Raises:
        DataError: a file differs from the registry's, or is missing and cannot be downloaded
            (`DRRL_OFFLINE` set, no network, no disk). No partial file is left.

    >>> fetch("synthetic")
    []
    """
    if recipes_of(name):
        recipe = locate(name, data_dir=data_dir)
        return [data_folder(data_dir) / name / file for file in _files(recipe)]
    source, registry = _source(name), _registry(data_dir)
    missing = [key for key in source.files if not _verified(registry, key)]
    _bring(missing, registry, f"{name}: {source.about}\nTerms: {_TERMS}; cite {source.cite}")
    return [registry.abspath / key for key in source.files]


def locate(name: str, *, data_dir: Folder = None) -> Recipe:
    """The recipe of a set whose files are in the data folder, or can be brought there.

    Raises:
        DataError: none is there; the message says which file is wanted, where it belongs and where
            it can be had.
    """
    folder, registry, known = data_folder(data_dir) / name, _registry(data_dir), recipes_of(name)
    for recipe in known:
        if all((folder / file).is_file() for file in _files(recipe)):
            return recipe
    for recipe in known:
        keys = [f"{name}/{file}" for file in _files(recipe)]
        if all(key in registry.registry for key in keys):
            missing = [key for key in keys if not (registry.abspath / key).is_file()]
            _bring(missing, registry, f"{name}: from {recipe.url}; cite {recipe.cite}")
            return recipe
    wanted = " or ".join(dict.fromkeys(recipe.file for recipe in known))
    raise DataError(
        f"{folder}: {wanted} is not there. Fetch it from {known[0].url} and put it there as it is; "
        f"or point DRRL_DATA or --data-dir to the folder whose folder {name} holds it."
    )


def _files(recipe: Recipe) -> list[str]:
    """The names of the files that a recipe reads: valid and test may be others than train."""
    options = parse(recipe.address.partition("?")[2])
    inside = "member" in options
    return [recipe.file] + [options[k] for k in ("valid", "test") if k in options and not inside]


def _bring(missing: list[str], registry: pooch.Pooch, about: str) -> None:
    """Download what is missing of the registry's files; what it is is said first."""
    offline = os.environ.get("DRRL_OFFLINE", "") not in ("", "0")
    if missing and not offline:
        print(about, file=sys.stderr)
    for key in missing:
        path, url = registry.abspath / key, registry.get_url(key)
        ways_out = (
            "Go online with DRRL_OFFLINE unset and a writable data folder; or put the file there "
            f"yourself; or point DRRL_DATA or --data-dir to a folder that holds {key}."
        )
        if offline:
            raise DataError(f"{path}: missing, and DRRL_OFFLINE forbids to fetch {url}. {ways_out}")
        # Without a bound on the wait, a silent server would look like a hanging notebook.
        http = pooch.HTTPDownloader(progressbar=True, chunk_size=1 << 16, timeout=(10, 30))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            registry.fetch(key, downloader=http)  # into a temporary file, verified, then renamed
            path.chmod(0o644)  # temporary files are private, but a class may share the folder
        except (OSError, ValueError) as error:  # the exceptions of requests are OSErrors
            raise DataError(f"{url}: cannot be brought to {path}: {error}. {ways_out}") from error


def describe(name: str, *, data_dir: Folder = None) -> dict[str, Any]:
    """What is known of a named set without loading it: source, terms, files, expected counts.

    Args:
        name: one of `names()`.
        data_dir: where to look for the files, see `data_folder`.

    Returns:
        A JSON-ready dict: name, about, terms, citation, megabytes (MB, all files together), users,
        items, train, valid, test (counts expected; None: by the seed) and files, a list of dicts:
        file, path, url, sha256, present, bytes (None where absent). No file is verified here.

    Raises:
        DataError: the name is unknown.

    >>> describe("amazon-beauty")["train"]
    51455
    """
    source, registry = _source(name), _registry(data_dir)
    files = []
    for key in source.files:
        path, sha256 = registry.abspath / key, registry.registry[key].removeprefix("sha256:")
        size = path.stat().st_size if path.is_file() else None
        file = dict(file=key, path=str(path), url=registry.get_url(key), sha256=sha256)
        files.append(file | dict(present=size is not None, bytes=size))
    counts = dict(zip(("users", "items", *SPLITS), source.shape + source.pairs, strict=True))
    terms = _TERMS if source.files else "part of this package, MIT"
    about = dict(name=name, about=source.about, terms=terms, citation=source.cite)
    return about | dict(megabytes=source.megabytes, **counts, files=files)


def _source(name: str) -> "_Source":
    if name not in _SETS:
        known = [*names(), *dict.fromkeys(recipes().index)]
        close = difflib.get_close_matches(str(name).lower(), known, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise DataError(
            f"unknown data set {str(name)!r}. {hint}Known are {', '.join(known)}; or "
            "give the path of your own file, such as ./ratings.csv."
        )
    return _SETS[name]


def _registry(data_dir: Folder) -> pooch.Pooch:
    registry = pooch.create(path=data_folder(data_dir), base_url="")
    registry.load_registry(own_file("registry.txt", "registry.txt"))
    return registry


def _verified(registry: pooch.Pooch, key: str) -> bool:
    """True: there and right; False: not there. A file that is not right is never overwritten."""
    path, wanted = registry.abspath / key, registry.registry[key].removeprefix("sha256:")
    try:
        found = pooch.file_hash(str(path)) if path.exists() else None
    except OSError as error:
        raise DataError(f"{path}: {error}. Mend its permissions, or delete it.") from error
    if found not in (None, wanted):
        raise DataError(
            f"{path}: its SHA-256 is {found}, the registry's is {wanted}: damaged, or "
            "another version. Delete or rename it, then fetch again."
        )
    return found is not None


def _read_splits(paths: list[Path], shape: tuple[int, int]) -> list[np.ndarray]:
    """Three files, one a split."""
    return [
        np.unique(read_lines(read_bytes(path), str(path), shape).pairs @ [shape[1], 1])
        for path in paths
    ]


def _read_gowalla(paths: list[Path], shape: tuple[int, int]) -> list[np.ndarray]:
    """Valid and test have files; train is what else the (users + items) squared matrix holds."""
    valid, test = _read_splits(paths[:2], shape)
    try:
        square: Any = sparse.load_npz(paths[2])
        block = square.tocsr()[: shape[0], shape[0] :].tocoo()
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{paths[2]}: broken: {error}. Delete it and fetch again.") from error
    keys = block.row.astype(np.int64) * shape[1] + block.col
    return [np.setdiff1d(keys, valid), valid, test]


def _read_temporal(paths: list[Path], shape: tuple[int, int]) -> list[np.ndarray]:
    """Train and test are archived; valid is the rest of the same pairs, both ends in train."""
    try:
        with zipfile.ZipFile(paths[0]) as archive:
            raw = {key: archive.read(f"{key}.tsv") for key in ("train", "test")}
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{paths[0]}: broken: {error}. Delete it and fetch again.") from error
    train, test = (
        np.unique(
            read_lines(raw[key], f"{paths[0]}/{key}.tsv", shape, header=1).pairs @ [shape[1], 1]
        )
        for key in ("train", "test")
    )
    rest = np.setdiff1d(np.concatenate(_read_splits(paths[1:], shape)), np.union1d(train, test))
    users, items = np.divmod(train, shape[1])
    known = np.isin(rest // shape[1], users) & np.isin(rest % shape[1], items)
    return [train, rest[known], test]


@dataclass(frozen=True)
class _Source:
    """A named set: where it comes from, what it must hold, and how its files become splits."""

    about: str
    cite: str
    shape: tuple[int, int]
    megabytes: float
    pairs: tuple[int | None, int | None, int | None] = (None, None, None)
    files: tuple[str, ...] = ()
    read: Callable[[list[Path], tuple[int, int]], list[np.ndarray]] = _read_splits


_TERMS = "for research; the publishers state no licence"
_READERS = {"gowalla": _read_gowalla, "amazon-electronics-temporal": _read_temporal}


def _sets() -> dict[str, _Source]:
    """As `sets.toml` beside this module has them."""
    text = Path(__file__).with_name("sets.toml").read_text(encoding="utf-8")
    found = {}
    for name, facts in tomllib.loads(text).items():
        facts = {key: tuple(v) if isinstance(v, list) else v for key, v in facts.items()}
        found[name] = _Source(**facts, read=_READERS.get(name, _read_splits))
    return found


_SETS = _sets()
