"""Of what losses are made: means over the unmasked negatives, a prior, rows of a dual variable."""

import math

import torch
from torch import Tensor

from drrl_core.losses._inputs import Batch, check_batch


def count_negatives(neg: Tensor) -> Tensor:
    """How many unmasked negatives, in the scores' own type: an integer's log would be float32."""
    neg = neg.detach()
    if torch._C._are_functorch_transforms_active():  # where there is no `out`
        return (neg != -math.inf).sum(-1, dtype=neg.dtype)
    return torch.ne(neg, -math.inf, out=torch.empty_like(neg)).sum(-1)  # twice as fast as of bools


def mean_negatives(values: Tensor, neg: Tensor) -> Tensor:
    """Mean of `values` over the unmasked negatives of each row."""
    return torch.where(neg != -math.inf, values, 0).sum(-1) / count_negatives(neg)


def log_mean_exp(values: Tensor) -> Tensor:
    return values.logsumexp(-1) - count_negatives(values).log()


def log_prior(pos: Tensor, neg: Tensor, batch: Batch | None, power: float) -> Tensor:
    """Log of P ∝ (1 + train pairs of the item)^power, in units of the uniform P of each row.

    Negatives that were drawn in proportion to q stand for uniform ones with P ∝ 1/q, the logQ
    correction: -log q is *added* to their scores, over the temperature. Drawn often, each counts
    for less. So the power is minus that of the draws.

    Returns:
        (B, N), nats; its exp has mean 1 over the unmasked negatives, and is 0 at the masked.

    >>> batch = Batch(torch.tensor([0]), neg_items=torch.tensor([[0, 1]]),
    ...               popularity=torch.tensor([0, 2]))
    >>> log_prior(torch.zeros(1), torch.zeros(1, 2), batch, 1.0).exp()
    tensor([[0.5000, 1.5000]])
    """
    if batch is None or batch.popularity is None:
        raise ValueError(
            "batch.popularity is missing, which a prior asks for: call the loss as loss(pos, neg, "
            "Batch(users, pos_items, neg_items, popularity=train pairs of each item, (n_items,)))"
        )
    batch = check_batch(batch, pos, neg, neg_items=len(batch.popularity))
    log_p = power * batch.popularity.to(neg).log1p()[batch.neg_items].expand_as(neg)
    kept = neg.detach() != -math.inf
    log_p = torch.where(kept, log_p, -math.inf).log_softmax(-1)
    return log_p + count_negatives(neg).log()[..., None]


def rescale(values: Tensor, factor: Tensor | float) -> Tensor:
    """The values as they are; their gradient times `factor`."""
    fixed = values.detach()
    return fixed + factor * (values - fixed)


def fitted(value: Tensor, fit: Tensor) -> Tensor:
    """The value as it is; its gradient that of value + fit, by which what a loss owns moves."""
    return value + (fit - fit.detach())


def dual_rows(
    table: Tensor,
    index: Tensor,
    kept: Tensor | None = None,
    *,
    rate: Tensor | None = None,
    ascend: bool = False,
) -> Tensor:
    """Rows of a dual variable whose gradient is the mean over the examples that use them.

    The caller averages the loss over the batch, so that a user's β would get 1/B of each of its
    examples: a step a thousand times smaller than that of a β shared by all, and one that
    shrinks as the batch grows. Scaling by B / uses makes one learning rate mean one thing.

    Args:
        table: (n, ...) the dual variable, one row a user (or item).
        index: (B,) or (B, N) rows used by each example, or (M,) by all of them.
        kept: (B, N) or (B, M), which of the index each example really uses (it is not masked);
            a row twice in one example is two uses. Without it, each of (B,) is used once.
        rate: (B,) or (M,) B / uses of each of the index, where it is known already.
        ascend: reverse the gradient, for a variable that maximises.

    Returns:
        `table[index]`, exactly; only its gradient is rescaled.

    >>> table = torch.zeros(3, requires_grad=True)
    >>> rows = dual_rows(table, torch.tensor([0, 0, 2, 2]))
    >>> (rows * torch.tensor([1.0, 3.0, 5.0, 5.0])).mean().backward()
    >>> table.grad
    tensor([2., 0., 5.])
    """
    if rate is not None:
        rate = (-rate if ascend else rate).view(-1, *[1] * (table.dim() - 1))
        return rescale(table.index_select(0, index), rate)
    return (
        mean_sloped(table, index, kept, ascend)
        .index_select(0, index.flatten())
        .view(*index.shape, *table.shape[1:])
    )


def mean_sloped(table: Tensor, index: Tensor, kept: Tensor | None, ascend: bool) -> Tensor:
    """The table as it is; its gradient as in `dual_rows`, whose rows are then taken from it."""
    kept = torch.ones_like(index) if kept is None else kept
    counts = kept.to(table.dtype).sum_to_size(index.shape).flatten()
    uses = table.new_zeros(len(table)).index_add(0, index.flatten(), counts).clamp_min(1)
    scale = (-len(kept) if ascend else len(kept)) / uses
    # Before the rows are gathered: there may be many more of them than the table has.
    return rescale(table, scale.view(-1, *[1] * (table.dim() - 1)))
