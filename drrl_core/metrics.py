"""Full-ranking accuracy: every item is a candidate but those the user is already known to have.

Metrics are per user; their mean is over the users who have something to find.
"""

import math

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import normalize

NAMES = ("recall", "ndcg", "precision", "hitrate", "mrr")
SIMILARITIES = ("cosine", "dot")


def unit_or_raw(table: Tensor, similarity: str) -> Tensor:
    """Rows as the similarity sees them: of length one for "cosine", as they are for "dot"."""
    if similarity not in SIMILARITIES:
        raise ValueError(f"similarity must be 'cosine' or 'dot', not {similarity!r}")
    return normalize(table, dim=-1) if similarity == "cosine" else table


def topk(scores: Tensor, k: int) -> Tensor:
    """Column indices of the k largest of each row, best first; of equals, the lower index first.

    `torch.topk` leaves ties open, and they fall differently on different devices.

    >>> topk(torch.tensor([[1.0, 3.0, 3.0, 0.0, 1.0, 1.0]]), 4)
    tensor([[1, 2, 0, 4]])
    """
    k = min(k, scores.shape[-1])
    values, index = scores.topk(k)
    # A tie may straddle the k-th place: only such rows need their whole row sorted.
    last = values[:, -1:]
    straddled = (scores == last).sum(-1) > (values == last).sum(-1)
    if straddled.any():
        ranked = scores[straddled].sort(dim=-1, descending=True, stable=True)
        values[straddled], index[straddled] = ranked.values[:, :k], ranked.indices[:, :k]
    index, by_index = index.sort(dim=-1)
    order = values.gather(-1, by_index).sort(dim=-1, descending=True, stable=True).indices
    return index.gather(-1, order)


def _pairs(matrix: csr_array, users: np.ndarray) -> tuple[Tensor, Tensor]:
    """Row (within `users`) and column of every pair of these users."""
    rows = matrix[users]
    owner = np.repeat(np.arange(len(users)), np.diff(rows.indptr))
    return torch.from_numpy(owner), torch.from_numpy(rows.indices.astype(np.int64))


@torch.no_grad()
def rank(
    users: Tensor,
    items: Tensor,
    wanted: np.ndarray,
    *,
    masks: tuple[csr_array, ...] = (),
    k: int = 20,
    similarity: str = "cosine",
    memory: int = 256 * 2**20,
) -> np.ndarray:
    """The k best items of each user, best first.

    Args:
        users: (n_users, d) table. items: (n_items, d) table.
        wanted: (m,) indices of the users to rank for.
        masks: pairs that are no candidates, as (n_users, n_items) CSR matrices.
        k: how many.
        similarity: "cosine" or "dot".
        memory: bytes that the scores of one batch of users may take.

    Returns:
        (m, k) item indices. Of equal scores the lower index comes first. A masked item comes
        after every candidate.

    >>> users, items = torch.eye(2), torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> rank(users, items, np.array([0, 1]), k=2)
    array([[0, 1],
           [2, 1]])
    """
    items = unit_or_raw(items, similarity)
    size = max(1, memory // (len(items) * items.element_size()))
    found = []
    for chunk in np.array_split(wanted, math.ceil(len(wanted) / size) or 1):
        rows = users[torch.from_numpy(chunk).to(users.device)]
        scores = unit_or_raw(rows, similarity) @ items.T
        for mask in masks:
            owner, column = _pairs(mask, chunk)
            scores[owner.to(scores.device), column.to(scores.device)] = -math.inf
        found.append(topk(scores, k).cpu().numpy())
    return np.concatenate(found)


def evaluate(
    users: Tensor,
    items: Tensor,
    target: csr_array,
    *,
    masks: tuple[csr_array, ...] = (),
    ks: tuple[int, ...] = (20,),
    similarity: str = "cosine",
    memory: int = 256 * 2**20,
) -> pd.DataFrame:
    """Recall, NDCG, precision, hit rate and MRR of a full ranking, user by user.

    Recall@k = hits / |T_u|. NDCG@k is binary, discounted by log2(rank + 1), over the best DCG that
    min(k, |T_u|) items can have.

    Args:
        users, items: tables, (n_users, d) and (n_items, d).
        target: the pairs to find, (n_users, n_items) CSR.
        masks: pairs that are no candidates.
        ks: cut-offs, each at least 1.
        similarity, memory: as in `rank`.

    Returns:
        One row for each user with a target, indexed by user; columns like "recall@20".

    >>> target = csr_array(np.array([[0, 1, 1], [0, 0, 0]]))
    >>> users, items = torch.eye(2), torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> evaluate(users, items, target, ks=(2,))[["recall@2", "mrr@2"]]
          recall@2  mrr@2
    user
    0          0.5    0.5
    """
    if min(ks) < 1:
        raise ValueError(f"every cut-off must be at least 1, not {min(ks)}")
    wanted = np.flatnonzero(np.diff(target.indptr))
    best = rank(users, items, wanted, masks=masks, k=max(ks), similarity=similarity, memory=memory)
    owner, column = _pairs(target, wanted)
    n_items = target.shape[1]
    keys = (owner * n_items + column).numpy()
    hit = np.isin(np.arange(len(wanted))[:, None] * n_items + best, keys)
    size = np.diff(target.indptr)[wanted]
    discount = 1 / np.log2(np.arange(2, hit.shape[1] + 2))
    columns = {}
    for k in ks:
        top = hit[:, :k]
        ideal = np.cumsum(discount[:k])[np.minimum(size, top.shape[1]) - 1]
        values = (
            top.sum(1) / size,
            (top * discount[: top.shape[1]]).sum(1) / ideal,
            top.sum(1) / k,
            top.any(1).astype(float),
            np.where(top.any(1), 1 / (top.argmax(1) + 1), 0.0),
        )
        columns |= {f"{name}@{k}": value for name, value in zip(NAMES, values, strict=True)}
    return pd.DataFrame(columns, index=pd.Index(wanted, name="user"))
