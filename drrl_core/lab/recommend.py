"""What a trained model recommends, and its embeddings, under the ids of one's own file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array

from drrl_core.datasets import SPLITS, Interactions
from drrl_core.train import metrics
from drrl_core.train.diagnose import Trained, ranking_tables

TILE = 2**22  # scores of a few users at a time: arrays of 16 MiB


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
    user_ids, item_ids = labels(data)
    if trained.loss is None:  # a classical model, which has no tables
        model: Any = trained.model
        best = metrics.rank_by(model, users, data.n_items, masks=masks, k=k)
        parts = np.array_split(np.arange(len(users)), 1 + len(users) // 256)
        scores = [model(users[some]).gather(1, torch.from_numpy(best[some])) for some in parts]
    else:
        user_table, item_table = ranking_tables(trained)
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


def export(
    trained: Trained,
    folder: str | Path,
    *,
    k: int = 20,
    known: tuple[str, ...] = ("train",),
) -> dict[str, Path]:
    """Write recommendations and embeddings for use elsewhere, under the ids of one's own file.

    Args:
        trained: the outcome of a run.
        folder: where to; created, and what it holds of these names is replaced.
        k, known: as in `recommend`.

    Returns:
        The files written, by what they are:

        - recommendations: `recommendations.csv`, as `recommend` returns them. Ids may look like
          numbers and not be: read them with `dtype={"user": str, "item": str}`.
        - embeddings: `embeddings.npz`, users (n_users, d) and items (n_items, d), float32, whose
          dot products are the scores (for cosine they have length one); user_ids and item_ids, as
          in the file: numbers or text, no Python objects. A classical model has none.

    >>> import tempfile
    >>> from drrl_core.lab.run import configure, execute
    >>> outcome = execute(configure("synthetic", config={"epochs": 1}), progress=False)
    >>> written = export(outcome, tempfile.mkdtemp(), k=5)
    >>> pd.read_csv(written["recommendations"]).shape, np.load(written["embeddings"])["items"].shape
    ((5000, 4), (800, 64))
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = {"recommendations": folder / "recommendations.csv"}
    recommend(trained, k=k, known=known).to_csv(written["recommendations"], index=False)
    if trained.loss is None:
        return written
    written["embeddings"] = folder / "embeddings.npz"
    users, items = (table.numpy() for table in ranking_tables(trained))
    user_ids, item_ids = labels(trained.data)
    np.savez_compressed(
        written["embeddings"], users=users, items=items, user_ids=user_ids, item_ids=item_ids
    )
    return written
