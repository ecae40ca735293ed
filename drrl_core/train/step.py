"""One step: scores of a batch, gradients in tiles of rows, the optimisers that move them."""

import ctypes
import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from drrl_core.losses import Batch, SampledScores
from drrl_core.train import metrics, sampling
from drrl_core.train.config import TrainConfig

DUAL_OPTIMISERS = ("sgd", "adam")
BUILDERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": partial(torch.optim.Adam, fused=True),
    "row-sparse-adam": torch.optim.SparseAdam,
    "sgd": torch.optim.SGD,
}
# Scores of a tile of rows. On a CPU larger ones leave the cache and smaller ones cost more calls,
# of an exact β above all; a GPU wants large ones.
TILE = {"cpu": 2**20, "cuda": 2**25}


def keep_freed_memory() -> None:
    """Have the C library keep what is freed, up to 64 MiB, for the next step (glibc's has a say).

    It gives pages back as soon as a few megabytes are free, and a step's arrays, made anew each
    time, then wait for fresh ones: that takes longer than what is computed in them.
    """
    with suppress(AttributeError, OSError, TypeError):  # another system's library
        mallopt, trim_threshold, mmap_threshold = ctypes.CDLL(None).mallopt, -1, -3
        mallopt(trim_threshold, 2**26)
        mallopt(mmap_threshold, 2**25)


@torch.no_grad()
def tables(model: nn.Module) -> tuple[Tensor, Tensor]:
    """The model's user and item tables as they are ranked with: evaluation mode, no gradient."""
    training = model.training
    model.eval()
    try:
        return model()
    finally:
        model.train(training)


def score(
    users: Tensor, items: Tensor, batch: Batch, similarity: str = "cosine"
) -> tuple[Tensor, Tensor]:
    """Scores of a batch: (B,) of the positives, (B, N) of the negatives, each row its own.

    >>> table = torch.eye(3)
    >>> batch = Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([[1, 2]]))
    >>> score(table, table, batch)
    (tensor([1.]), tensor([[0., 0.]]))
    """
    rows = metrics.unit_or_raw(users.index_select(0, batch.users), similarity)
    index = torch.cat([batch.pos_items[:, None], batch.neg_items], 1)
    scores = SampledScores.apply(rows, items, index, similarity == "cosine")
    return scores[:, 0], scores[:, 1:]


def backward(
    model: Any,
    loss: Any,
    batch: Batch,
    sampler: sampling.Sampler,
    config: TrainConfig,
    slopes: list[Tensor] | None = None,
) -> Tensor:
    """The loss of a batch, detached; its gradients are left in the parameters.

    The loss goes back to the rows of the tables that the batch has. Their slopes add up in an
    array for each table, which goes on to the parameters at once, or becomes their gradient where
    the tables are the parameters. `slopes` keeps these arrays from step to step, empty at first.
    For row-sparse Adam there are none: the gradients are sparse.
    """
    tables = model()
    extra = model.penalty(batch.users, batch.pos_items) + l2_penalty(model, batch, config.l2)
    dense = config.optimiser == "adam"
    slopes = [] if slopes is None else slopes
    if dense and not slopes:
        slopes += [torch.empty_like(table) for table in tables]
    users, items = (table.detach() for table in tables)
    if batch.neg_items.dim() == 2:
        into = slopes[1] if dense else None
        value, *parts = _rows_backward(users, items, loss, batch, config, into)
    else:
        value, *parts = _pool_backward(users, items, loss, batch, sampler, config)
    onward = [(extra, torch.ones_like(extra))] if extra.requires_grad else []
    for i, (table, part) in enumerate(zip(tables, parts, strict=True)):
        if not dense:
            index, rows = map(torch.cat, zip(*part, strict=True))
            slope = torch.sparse_coo_tensor(index[None], rows, table.shape, check_invariants=False)
        elif part:
            slope = slopes[i].zero_()
            for index, rows in part:
                slope.index_add_(0, index, rows)
        else:
            slope = slopes[i]
        if not table.is_leaf:
            onward.append((table, slope))
        elif table.requires_grad:
            table.grad = slope if table.grad is None else table.grad + slope
    if onward:
        ends, gradients = zip(*onward, strict=True)
        torch.autograd.backward(ends, gradients)
    return value + extra.detach()


Part = list[tuple[Tensor, Any]]  # rows of a table, by index, and their slopes


def _rows_backward(
    users: Tensor,
    items: Tensor,
    loss: Any,
    batch: Batch,
    config: TrainConfig,
    to_items: Tensor | None,
) -> tuple[Tensor, Part, Part]:
    """The loss, and its slopes to the rows; those to the items are in `to_items` where given."""
    raw = users.index_select(0, batch.users).requires_grad_()
    rows = metrics.unit_or_raw(raw, config.similarity)
    index, touched = torch.cat([batch.pos_items[:, None], batch.neg_items], 1), []
    if to_items is None:
        found, index = index.unique(return_inverse=True)
        items = items.index_select(0, found)
        to_items = torch.empty_like(items)
        touched = [(found, to_items)]
    scores = SampledScores.apply(rows, items, index, config.similarity == "cosine", to_items)
    value = loss(scores[:, 0], scores[:, 1:], batch).mean()
    value.backward()
    return value.detach(), [(batch.users, raw.grad)], touched


def _pool_backward(
    users: Tensor,
    items: Tensor,
    loss: Any,
    batch: Batch,
    sampler: sampling.Sampler,
    config: TrainConfig,
) -> tuple[Tensor, Part, Part]:
    """The same, where the (B, M) scores exist a tile of rows at a time, forward and backward."""
    size, width = len(batch.users), len(batch.neg_items)
    row, column = sampler.positives(batch.users, batch.neg_items)
    if sampler.crowded:  # without a negative an example has no loss
        kept = row.bincount(minlength=size) < width
        row, column = (kept.cumsum(0) - 1)[row][kept[row]], column[kept[row]]
        batch = batch.part(kept)
    uses = len(batch.users) - column.bincount(minlength=width)
    batch = batch._replace(neg_rate=size / uses.clamp_min(1))
    places = (users, batch.users), (items, batch.pos_items), (items, batch.neg_items)
    raw = [table.index_select(0, index).requires_grad_() for table, index in places]
    ends = [metrics.unit_or_raw(end, config.similarity) for end in raw]
    rows, positives, pool = (end.detach() for end in ends)
    to_rows, to_positives, to_pool = map(torch.zeros_like, (rows, positives, pool))
    value = rows.new_zeros(())
    many = max(16, TILE.get(rows.device.type, TILE["cuda"]) // width)
    starts = torch.arange(0, len(rows) + many, many, device=row.device)
    bounds = zip(starts.tolist(), torch.searchsorted(row, starts).tolist(), strict=True)
    for (start, first), (end, last) in pairwise(bounds):
        tile = slice(start, end)
        own = row[first:last] - start, column[first:last]
        neg: Any = rows[tile] @ pool.T
        neg[own] = -math.inf
        pos: Any = (rows[tile] * positives[tile]).sum(-1)
        part = batch.part(tile)
        share = loss(pos.requires_grad_(), neg.requires_grad_(), part).sum() / size
        share.backward()
        slope = neg.grad
        slope[own] = 0
        torch.addmm(pos.grad[:, None] * positives[tile], slope, pool, out=to_rows[tile])
        torch.mul(pos.grad[:, None], rows[tile], out=to_positives[tile])
        to_pool.addmm_(slope.T, rows[tile])
        value += share.detach()
    torch.autograd.backward(ends, [to_rows, to_positives, to_pool])
    of_users, *of_items = [(place[1], end.grad) for place, end in zip(places, raw, strict=True)]
    return value, [of_users], of_items


def l2_penalty(model: Any, batch: Batch, l2: float) -> Tensor:
    """l2/2 · (‖e_u‖² + ‖e_i‖² + mean_j ‖e_j‖²), raw embeddings, mean over the batch."""
    if not l2:
        return model.users.new_zeros(())
    lengths = model.items.square().sum(-1)
    size = model.users[batch.users].square().sum(-1) + lengths[batch.pos_items]
    return l2 / 2 * (size + lengths[batch.neg_items].mean(-1)).mean()


def optimisers_of(
    model: nn.Module, loss: nn.Module, config: TrainConfig
) -> list[torch.optim.Optimizer]:
    """The model's optimiser and, where the loss owns what can be trained, the one it names."""
    if config.optimiser == "row-sparse-adam" and not all(table.is_leaf for table in model()):
        raise ValueError("row-sparse-adam is for models whose tables are their parameters: mf")
    optimisers = [BUILDERS[config.optimiser](model.parameters(), lr=config.lr)]
    rates = getattr(loss, "dual_rates", {})
    owned = [
        {"params": [value], "lr": config.dual_lr * rates.get(name, 1)}
        for name, value in loss.named_parameters()
        if value.requires_grad
    ]
    if owned:
        optimisers.append(BUILDERS[dual_optimiser(loss)](owned, lr=config.dual_lr))
    return optimisers


def dual_optimiser(loss: nn.Module) -> str:
    name = getattr(loss, "dual_optimiser", "sgd")
    if name not in DUAL_OPTIMISERS:
        known = " or ".join(map(repr, DUAL_OPTIMISERS))
        raise ValueError(f"{type(loss).__name__}.dual_optimiser must be {known}, not {name!r}")
    return name
