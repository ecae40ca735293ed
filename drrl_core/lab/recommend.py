"""What a trained model recommends, and its embeddings, under the ids of one's own file."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array

from drrl_core.common import whole_file
from drrl_core.datasets import SPLITS, Interactions
from drrl_core.train import metrics
from drrl_core.train.diagnose import Trained, ranking_tables

TILE = 2**22  # scores of a few users at a time: arrays of 16 MiB
# What a cell begins with that a spreadsheet runs; and the mark that keeps it from doing so.
_FORMULA = tuple("=+-@\t\r\n\0＝＋－＠'")


def labels(data: Interactions) -> tuple[np.ndarray, np.ndarray]:
    """The ids that users and items came with, (n_users,) and (n_items,); numbers from 0 where none.

    >>> from drrl_core import datasets
    >>> users, items = labels(datasets.load("synthetic"))
    >>> int(users[-1]), int(items[-1])
    (999, 799)
    """
    users, items = data.user_ids, data.item_ids
    return (
        np.arange(data.n_users) if users is None else users,
        np.arange(data.n_items) if items is None else items,
    )


def _indices(data: Interactions, users: np.ndarray | Sequence[int | str]) -> np.ndarray:
    """Indices of users given by index or, as text, by their own ids."""
    asked = np.asarray(users)
    if asked.dtype.kind in "UOS":
        own = {str(label): index for index, label in enumerate(labels(data)[0])}
        places = [own.get(str(user), -1) for user in asked]
        unknown = [str(user) for user, place in zip(asked, places, strict=True) if place < 0]
        if unknown:
            raise ValueError(f"users {unknown[:5]} are not in {data.name}: expected its own ids")
        return np.array(places, np.int64)
    whole = asked.dtype.kind in "iu" or not asked.size
    if not whole or ((asked < 0) | (asked >= data.n_users)).any():
        raise ValueError(
            f"users={users!r:.100}: expected indices from 0 to {data.n_users - 1}, or own ids as "
            "text"
        )
    return asked.astype(np.int64)


def recommend(
    trained: Trained,
    *,
    k: int = 20,
    users: np.ndarray | Sequence[int | str] | None = None,
    known: tuple[str, ...] = ("train",),
) -> pd.DataFrame:
    """The k best items of each user, under the ids that users and items came with.

    Args:
        trained: the outcome of a run.
        k: how many, at least 1.
        users: indices >= 0, or text, the file's own ids; None: everyone with a train pair, for
            nothing is known of the others.
        known: the splits whose pairs are no candidates. ("train",) is what accuracy is measured
            on; ("train", "valid", "test") recommends nothing that a user already has.

    Returns:
        A row a recommendation, a user's best first: user, item (their own ids), rank from 1, score
        (cosine or dot product, as trained). Fewer than k where a user has fewer candidates.

    Raises:
        ValueError: k is below 1, `known` names no split, or a user is not known.

    >>> from drrl_core.lab.run import configure, execute
    >>> outcome = execute(configure("synthetic", config={"epochs": 1}), progress=False)
    >>> list(recommend(outcome, k=3, users=np.array([7]))["rank"])
    [1, 2, 3]
    """
    data = trained.data
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    if odd := {*known} - {*SPLITS}:
        raise ValueError(f"known has {sorted(odd)}: expected some of {', '.join(SPLITS)}")
    users = metrics.seekers(data.train) if users is None else _indices(data, users)
    masks = tuple(getattr(data, name) for name in known)
    (user_table, item_table), (user_ids, item_ids) = ranking_tables(trained), labels(data)
    best = metrics.rank(user_table, item_table, users, masks=masks, k=k, similarity="dot")
    parts = np.array_split(np.arange(len(users)), 1 + best.size * item_table.shape[1] // TILE)
    scores = [
        torch.einsum("ud,ukd->uk", user_table[users[some]], item_table[best[some]])
        for some in parts
    ]
    owner, rank = np.repeat(users, best.shape[1]), np.tile(np.arange(best.shape[1]), len(users))
    columns = {
        "user": user_ids[owner],
        "rank": rank + 1,
        "item": item_ids[best.ravel()],
        "score": torch.cat(scores).flatten().numpy(),
    }
    taken = data.n_items - np.diff(sum(masks, csr_array(data.train.shape)).indptr)[users]
    return pd.DataFrame(columns)[rank < np.repeat(taken, best.shape[1])].reset_index(drop=True)


def embeddings(trained: Trained) -> dict[str, pd.DataFrame]:
    """The vectors whose dot products are the scores, under the ids of one's own file.

    Returns:
        For "users" and for "items" a table, a row each: id, as in the file, then the d coordinates,
        v0, v1, ..., float32. Where scores are cosines, the vectors have length one.

    >>> from drrl_core.lab.run import configure, execute
    >>> outcome = execute(configure("synthetic", config={"epochs": 1}), progress=False)
    >>> embeddings(outcome)["items"].shape
    (800, 65)
    """
    tables, ids = ranking_tables(trained), labels(trained.data)
    found = {}
    for side, table, own in zip(("users", "items"), tables, ids, strict=True):
        columns = [f"v{k}" for k in range(table.shape[1])]
        found[side] = pd.DataFrame(table.cpu().numpy(), columns=columns)
        found[side].insert(0, "id", own)
    return found


def suffix_of(path: str | Path) -> str:
    """A file's suffix, where tables can be written so.

    Raises:
        ValueError: it is none of .csv, .parquet and .npz.

    >>> suffix_of("lists.npz")
    '.npz'
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".csv", ".parquet", ".npz"):
        raise ValueError(f"{path}: expected a name that ends in .csv, .parquet or .npz")
    return suffix


def write_table(table: pd.DataFrame, path: str | Path) -> Path:
    """Write recommendations or embeddings, whole or not at all, as the file's suffix says.

    Args:
        table: of `recommend` or `embeddings`.
        path: a name that ends in .csv, .parquet or .npz (an array a column; no Python objects). Its
            folder is made; a file of that name is replaced.

    In CSV a text that a spreadsheet would run as a formula, one that begins with = + - @ (wide ones
    too), tab, line end or NUL, gets a `'` in front, as does one that begins with `'`; `read_table`
    takes it off again. Numbers are left as they are.

    Raises:
        ValueError: the suffix is another.

    Source: OWASP, 'CSV Injection', and its Application Security Verification Standard 5.0, 1.2.10.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "lists.csv")
    >>> _ = write_table(pd.DataFrame({"user": ["=1+1"], "item": ["b"], "score": [-0.5]}), path)
    >>> print(path.read_text().splitlines()[1])
    "'=1+1","b",-0.5
    >>> read_table(path)["user"][0]
    '=1+1'
    """
    path, suffix = Path(path), suffix_of(path)
    texts = [str(name) for name in table if table[name].dtype.kind in "OUT"]
    with whole_file(path) as draft:
        if suffix == ".parquet":
            table.to_parquet(draft, index=False)
        elif suffix == ".npz":
            arrays = {str(name): table[name].to_numpy() for name in table}
            arrays |= {name: arrays[name].astype(str) for name in texts}
            with draft.open("wb") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        else:
            safe = {name: table[name].map(_harmless) for name in texts}
            table.assign(**safe).to_csv(draft, index=False, quoting=csv.QUOTE_NONNUMERIC)
    return path


def read_table(path: str | Path) -> pd.DataFrame:
    """What `write_table` wrote; of CSV, which knows no types, ids are text.

    Raises:
        ValueError: the suffix is none of .csv, .parquet and .npz.
    """
    path, suffix = Path(path), suffix_of(path)
    if suffix == ".parquet":
        return pd.read_parquet(path)
    if suffix == ".npz":
        with np.load(path) as arrays:
            return pd.DataFrame(dict(arrays))
    ids = dict.fromkeys(("user", "item", "id"), str)
    table = pd.read_csv(path, dtype=ids, keep_default_na=False)
    own = {name: table[name].str.removeprefix("'") for name in ids if name in table}
    return table.assign(**own)


def _harmless(text: str) -> str:
    return f"'{text}" if text[:1] in _FORMULA else text


def export(
    trained: Trained,
    path: str | Path,
    *,
    k: int = 20,
    users: np.ndarray | Sequence[int | str] | None = None,
    known: tuple[str, ...] = ("train",),
    vectors: bool = True,
) -> dict[str, Path]:
    """Write recommendations and embeddings for use elsewhere, under the ids of one's own file.

    Args:
        trained: the outcome of a run.
        path: of the recommendations, see `write_table`.
        k, users, known: as in `recommend`.
        vectors: the `embeddings` too, to files beside it: `lists_users.csv` and `lists_items.csv`
            where `path` is `lists.csv`.

    Returns:
        The files written, by what they hold: recommendations, users, items.

    >>> import tempfile
    >>> from drrl_core.lab.run import configure, execute
    >>> outcome = execute(configure("synthetic", config={"epochs": 1}), progress=False)
    >>> written = export(outcome, Path(tempfile.mkdtemp(), "lists.parquet"), k=5)
    >>> {what: read_table(path).shape for what, path in written.items()}
    {'recommendations': (5000, 4), 'users': (1000, 65), 'items': (800, 65)}
    """
    path, suffix = Path(path), suffix_of(path)
    lists = recommend(trained, k=k, users=users, known=known)
    written = {"recommendations": write_table(lists, path)}
    for side, table in embeddings(trained).items() if vectors else ():
        written[side] = write_table(table, path.with_name(f"{path.stem}_{side}{suffix}"))
    return written
