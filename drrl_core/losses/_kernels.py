"""Scores of sampled negatives, and their gradients, without a row a pair."""

import math
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

TINY = 1e-12  # the least length a row is divided by
# Said once a process by torch, of every CSR tensor.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")


def _csr(start: Tensor, column: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    # Unchecked: a row may hold a column twice, and in any order, which the two products allow.
    return torch.sparse_csr_tensor(start, column, values, size=size, check_invariants=False)


class SampledScores(torch.autograd.Function):
    """Scores rows[b] · table[index[b, j]] for every (b, j), nothing gathered and nothing scattered.

    Autograd would keep a (B·N, d) tensor and scatter a gradient of that size. On a CPU the pairs
    are put together by item instead, so that the table is walked through once in its own order: the
    scores are the wanted entries of the product table · rowsᵀ, the table's gradient is the product
    of the sparse (n, B) matrix of slopes with the rows.

    All arguments go to `apply`, by position.

    Args:
        rows, table, index: (B, d) and (n, d), of one type, and (B, N) of integers in [0, n).
        cosine: table rows count as of length one: their norms divide the scores, and the table is
            never copied.
        into: (n, d); the table's gradient is written there, over whatever it held, and not handed
            to autograd: fresh memory of that size at each step takes longer than the product.

    Returns:
        (B, N), with gradients to the first order; RuntimeError where a second is asked for.

    Raises:
        ValueError: on a CPU, an index that is not in [0, n).

    >>> index = torch.tensor([[1, 2, 1]])
    >>> SampledScores.apply(torch.tensor([[3.0, 4.0]]), torch.ones(5, 2), index)
    tensor([[7., 7., 7.]])
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        table: Tensor,
        index: Tensor,
        cosine: bool = False,
        into: Tensor | None = None,
    ) -> Tensor:
        flat, most = index.flatten(), math.inf
        by_item: tuple[Tensor, ...] = ()
        if rows.device.type == "cpu":
            place = flat.int().sort(stable=True).indices  # by item, each item's pairs by row
            uses = flat.bincount(minlength=len(table))
            if len(uses) > len(table):
                raise ValueError(
                    f"index goes up to {len(uses) - 1}, but must lie in [0, {len(table)}): the "
                    f"table has {len(table)} rows"
                )
            start = uses.new_zeros(len(table) + 1)
            torch.cumsum(uses, 0, out=start[1:])
            by_item = start, place // index.shape[1], place
            most = uses.max().item()
        if most > len(rows):  # CSR: no more than the number of columns a row
            gathered = table.index_select(0, flat).view(*index.shape, -1)
            scores = torch.bmm(gathered, rows[..., None]).squeeze(-1)
        else:
            scores = rows.new_zeros(len(flat))
            wanted = _csr(by_item[0], by_item[1], scores, (len(table), len(rows)))
            product = torch.sparse.sampled_addmm(wanted, table, rows.T, beta=0)
            scores = scores.scatter_(0, by_item[2], product.values()).view(index.shape)
        length = by = None
        if cosine:
            length = torch.linalg.vector_norm(table, dim=1).clamp_min_(TINY)
            by = length.reciprocal().index_select(0, flat).view(index.shape)
            scores = scores * by
        ctx.save_for_backward(rows, table, index, scores, length, by, *by_item)
        ctx.into = into
        return scores

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        rows, table, index, scores, length, by, *by_item = ctx.saved_tensors
        flat, weight = index.flatten(), slope if by is None else slope * by
        to_rows = embedding_bag(index, table, per_sample_weights=weight, mode="sum")
        to_table = torch.empty_like(table) if ctx.into is None else ctx.into
        if rows.device.type != "cpu":
            spread = (weight[..., None] * rows[:, None]).flatten(0, 1)
            to_table.zero_().index_add_(0, flat, spread)
        else:
            start, owner, place = by_item
            weight = weight.flatten().index_select(0, place)
            slopes = _csr(start, owner, weight, (len(table), len(rows)))
            torch.addmm(to_table, slopes, rows, beta=0, out=to_table)
        if by is not None:  # a longer row has a smaller score
            shrink = length.new_zeros(len(table)).index_add_(0, flat, (slope * scores).flatten())
            to_table.addcmul_((shrink / length.square())[:, None], table, value=-1)
        return to_rows, to_table if ctx.into is None else None, None, None, None
