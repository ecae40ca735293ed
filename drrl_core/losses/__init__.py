"""Every loss of the paper, 'Advancing Loss Functions in Recommender Systems' (AAAI 2025), and psl.

One value an example; the caller takes the mean. Throughout, `pos` is (B,) and holds the score of
each example's positive item; `neg` is (B, N) and holds the scores of its negatives. A score of -inf
marks a masked negative: it counts for nothing, and every "mean over the negatives" is over the
others, of which a row has at least one. Scores are cosines in [-1, 1] where the registry says
`cosine`, dot products otherwise. Scores in float16 or bfloat16 are computed with in float32.

Wrong shapes, integer scores and missing indices are a ValueError. So are, on a CPU, a row without
an unmasked negative and an index out of range; on a GPU, and within torch.compile and torch.func,
nobody looks at values: a GPU would wait at every step.

Derivatives for the scores are right to every order, in reverse and forward mode and within
torch.func. A dual variable's gradient is not the plain derivative (see below).

Where to start: `sl` with a temperature of 0.1 to 0.3; then `drrl` with the radius and order that
`starting_points` reads off the trained scores, and dual="exact", which has nothing else to tune.

What a loss owns besides the model is a *dual variable*: a parameter of the module, trained by an
optimiser of its own at its own rate. Its gradient is the mean over the batch's examples that use
it (see `dual_rows`), reversed where it maximises, so that gradient descent serves them all. How it
is trained, the module says itself, where it is not by SGD at every step:

- `dual_optimiser`: "sgd" or "adam";
- `dual_rates`: by name, how many times the common rate a variable moves at;
- `dual_epochs`: the epochs, from 1, that begin with a pass over the train pairs in which the dual
  variables move and the model rests; in all other steps they rest. None: they move at every step;
- `project()`: called after each step, to clip them.

>>> import torch
>>> loss = make("sl", temperature=0.2)
>>> loss(torch.tensor([0.9]), torch.tensor([[0.1, 0.2, 0.6]]))
tensor([-1.3033])
"""

import difflib
import functools
import inspect
import math
import warnings
from collections.abc import Callable, Iterable
from numbers import Real
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, logsigmoid, relu, softplus

from drrl_core import dro

TINY = 1e-12  # the least length a row is divided by
# Said once a process by torch, of every CSR tensor.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")


class Batch(NamedTuple):
    """Who is in the batch: users (B,), pos_items (B,), neg_items (B, N) or (M,), as indices.

    `rate` (B,) is B over the number of examples of the row's user, and `neg_rate` (M,) over the
    number of examples that an item of a pool is an unmasked negative of, see `dual_rows`; they need
    not be given, but a part of a batch keeps the whole's.
    """

    users: Tensor
    pos_items: Tensor | None = None
    neg_items: Tensor | None = None
    rate: Tensor | None = None
    neg_rate: Tensor | None = None

    def part(self, rows: Tensor) -> "Batch":
        """Some rows of the batch; a pool (M,) is everybody's."""
        own = self.neg_items if self.neg_items.dim() == 1 else self.neg_items[rows]
        return Batch(self.users[rows], self.pos_items[rows], own, self.rate[rows], self.neg_rate)


# ---------------------------------------------------------------------------------------------
# Helpers


def _check(low: float, high: float, ends: str, **given: float) -> None:
    """Refuse a hyper-parameter outside the interval; `ends` says which ends belong, like "(]"."""
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} must be a number, not {value!r}")
        at_end = (value == low and ends[0] == "[") or (value == high and ends[1] == "]")
        if not (low < value < high or at_end):
            interval = f"{ends[0]}{low:g}, {high:g}{ends[1]}"
            raise ValueError(f"{name} must lie in {interval}, not {value!r}")


def _unseen(values: Tensor) -> bool:
    """Whether values are not to be looked at: on a GPU, or where torch transforms the program."""
    return (
        values.device.type != "cpu"
        or torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
    )


def _check_scores(pos: Tensor, neg: Tensor) -> None:
    """Refuse scores that broadcasting would turn into another loss without a word."""
    for name, scores in (("pos", pos), ("neg", neg)):
        if not scores.is_floating_point():
            raise ValueError(f"{name} holds {scores.dtype}: give floats, such as {name}.float()")
    if neg.dim() == 0 or neg.shape[-1] == 0:
        raise ValueError(f"neg has shape {tuple(neg.shape)}: give at least one negative a row")
    if pos.shape != neg.shape[:-1]:
        raise ValueError(
            f"pos has shape {tuple(pos.shape)} and neg {tuple(neg.shape)}: give one positive score "
            f"a row of negatives, so pos of shape {tuple(neg.shape[:-1])}"
        )


def _check_rows(value: Tensor, neg: Tensor) -> None:
    """Refuse a row without a negative; its value is not finite, which the sum is quick to tell."""
    if _unseen(value) or math.isfinite(value.detach().sum()):
        return
    if (empty := (neg == -math.inf).all(-1)).any():
        row = empty.nonzero()[0].tolist()
        raise ValueError(
            f"neg{row} is a row of -inf, all its negatives masked, so that it has no loss: leave "
            f"out such rows ({int(empty.sum())} of {empty.numel()}), or draw more negatives"
        )


def _check_batch(batch: "Batch | None", pos: Tensor, neg: Tensor, **sizes: int) -> None:
    """Refuse a batch without the indices that a loss needs; `sizes` are what each is below."""
    for name, size in sizes.items():
        index = getattr(batch, name, None)
        shapes = [pos.shape] if name == "users" else [neg.shape, neg.shape[-1:]]
        allowed = " or ".join(str(tuple(shape)) for shape in shapes)
        if index is None:
            raise ValueError(
                f"batch.{name} is missing, by which this loss finds what it owns: call it as "
                f"loss(pos, neg, Batch(users, pos_items, neg_items)), {name} of shape {allowed}"
            )
        if index.shape not in shapes:
            raise ValueError(
                f"batch.{name} has shape {tuple(index.shape)}, but pos {tuple(pos.shape)} and neg "
                f"{tuple(neg.shape)}: give {name} of shape {allowed}"
            )
        if index.is_floating_point() or index.dtype == torch.bool:
            raise ValueError(f"batch.{name} holds {index.dtype}: give indices, such as int64")
        if index.numel() and not _unseen(index):
            low, high = (end.item() for end in index.aminmax())
            if low < 0 or high >= size:
                raise ValueError(
                    f"batch.{name} goes from {low} to {high}, but must lie in [0, {size}): the "
                    f"loss was made for {size} of them"
                )


def _guard(loss: Callable[[Tensor, Tensor], Tensor], pos: Tensor, neg: Tensor) -> Tensor:
    """The loss of checked scores, in their type.

    Halves are computed with in float32: float16 counts to 65,504, and bfloat16 keeps three digits.
    """
    _check_scores(pos, neg)
    dtype = torch.promote_types(pos.dtype, neg.dtype)
    wide = torch.promote_types(dtype, torch.float32)
    value = loss(pos.to(wide), neg.to(wide))
    _check_rows(value, neg)
    return value.to(dtype)


def _guarded(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """For a function of (pos, neg, ...)."""

    @functools.wraps(loss)
    def guarded(pos: Tensor, neg: Tensor, *rest: Tensor | float, **hyper: float | str) -> Tensor:
        return _guard(lambda p, n: loss(p, n, *rest, **hyper), pos, neg)

    return guarded


def _guarded_forward(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """For a module's method of (pos, neg, batch)."""

    @functools.wraps(forward)
    def guarded(self: nn.Module, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        return _guard(lambda p, n: forward(self, p, n, batch), pos, neg)

    return guarded


def _unknown(what: str, name: str, known: Iterable[str]) -> ValueError:
    close = difflib.get_close_matches(name, known, 1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return ValueError(f"{what} {name!r}{hint}; there are: {', '.join(known)}")


def _count(neg: Tensor) -> Tensor:
    """How many unmasked negatives, in the scores' own type: an integer's log would be float32."""
    neg = neg.detach()
    if torch._C._are_functorch_transforms_active():  # where there is no `out`
        return (neg != -math.inf).sum(-1, dtype=neg.dtype)
    return torch.ne(neg, -math.inf, out=torch.empty_like(neg)).sum(-1)  # twice as fast as of bools


def _mean(values: Tensor, neg: Tensor) -> Tensor:
    """Mean of `values` over the unmasked negatives of each row."""
    return torch.where(neg != -math.inf, values, 0).sum(-1) / _count(neg)


def _log_mean_exp(values: Tensor) -> Tensor:
    return values.logsumexp(-1) - _count(values).log()


def _beta(dual: Tensor | float, neg: Tensor) -> Tensor:
    beta = torch.as_tensor(dual, dtype=neg.dtype, device=neg.device)
    if beta.dim() and beta.shape != neg.shape[:-1]:
        raise ValueError(
            f"dual has shape {tuple(beta.shape)} and neg {tuple(neg.shape)}: give one number, or "
            f"one a row of negatives, so dual of shape {tuple(neg.shape[:-1])}"
        )
    return beta


def _rescale(values: Tensor, factor: Tensor | float) -> Tensor:
    """The values as they are; their gradient times `factor`."""
    fixed = values.detach()
    return fixed + factor * (values - fixed)


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
        return _rescale(table.index_select(0, index), rate)
    return (
        _mean_sloped(table, index, kept, ascend)
        .index_select(0, index.flatten())
        .view(*index.shape, *table.shape[1:])
    )


def _mean_sloped(table: Tensor, index: Tensor, kept: Tensor | None, ascend: bool) -> Tensor:
    """The table as it is; its gradient as in `dual_rows`, whose rows are then taken from it."""
    kept = torch.ones_like(index) if kept is None else kept
    counts = kept.to(table.dtype).sum_to_size(index.shape).flatten()
    uses = table.new_zeros(len(table)).index_add(0, index.flatten(), counts).clamp_min(1)
    scale = (-len(kept) if ascend else len(kept)) / uses
    # Before the rows are gathered: there may be many more of them than the table has.
    return _rescale(table, scale.view(-1, *[1] * (table.dim() - 1)))


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
        ctx,
        rows: Tensor,
        table: Tensor,
        index: Tensor,
        cosine: bool = False,
        into: Tensor | None = None,
    ) -> Tensor:
        flat, by_item, most = index.flatten(), (), math.inf
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
            most = uses.max()
        if most > len(rows):  # CSR: no more than the number of columns a row
            gathered = table.index_select(0, flat).view(*index.shape, -1)
            scores = torch.bmm(gathered, rows[..., None]).squeeze(-1)
        else:
            scores = rows.new_zeros(len(flat))
            wanted = _csr(*by_item[:2], scores, (len(table), len(rows)))
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
    def backward(ctx, slope: Tensor) -> tuple[Tensor | None, ...]:
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


# ---------------------------------------------------------------------------------------------
# Losses without state


@_guarded
def mse_loss(pos: Tensor, neg: Tensor) -> Tensor:
    """Mean squared error: ((σ(p) - 1)² + mean_j σ(n_j)²) / 2. Source: Pan et al., 2008.

    >>> mse_loss(torch.tensor([0.0]), torch.tensor([[0.0]]))
    tensor([0.2500])
    """
    return ((pos.sigmoid() - 1).square() + _mean(neg.sigmoid().square(), neg)) / 2


@_guarded
def bce_loss(pos: Tensor, neg: Tensor) -> Tensor:
    """Binary cross-entropy: (softplus(-p) + mean_j softplus(n_j)) / 2. Source: Johnson, 2014.

    >>> bce_loss(torch.tensor([0.0]), torch.tensor([[0.0]]))
    tensor([0.6931])
    """
    return (softplus(-pos) + _mean(softplus(neg), neg)) / 2


@_guarded
def bpr_loss(pos: Tensor, neg: Tensor) -> Tensor:
    """Bayesian personalised ranking: mean_j softplus(n_j - p). Source: Rendle et al., 2009.

    >>> bpr_loss(torch.tensor([1.0]), torch.tensor([[1.0]]))
    tensor([0.6931])
    """
    return _mean(softplus(neg - pos[..., None]), neg)


@_guarded
def softmax_loss(pos: Tensor, neg: Tensor, *, temperature: float = 0.2) -> Tensor:
    """Softmax Loss: -p/τ + log Σ_j exp(n_j/τ). The positive is not in the denominator.

    Order 1 of the family: τ times it is, up to a constant, the worst case over a KL ball whose
    radius depends on the row. Source: Eq. 1 of the paper.

    Args:
        pos: (B,) scores.
        neg: (B, N) scores, -inf = masked.
        temperature: τ > 0, in units of score.

    Returns:
        (B,) dimensionless.

    >>> softmax_loss(torch.tensor([0.9]), torch.tensor([[0.1, 0.2, 0.6]]), temperature=0.2)
    tensor([-1.3033])
    """
    _check(0, math.inf, "()", temperature=temperature)
    return (neg / temperature).logsumexp(-1) - pos / temperature


@_guarded
def bilateral_softmax_loss(
    pos: Tensor, neg: Tensor, *, temperature: float = 0.2, temperature_pos: float = 0.2
) -> Tensor:
    """BSL: -p/τ1 + (τ2/τ1)·log mean_j exp(n_j/τ2).

    Best-case DRO on the positives, worst-case on the negatives. With one positive a row it is τ2/τ1
    times Softmax Loss at τ2, up to a constant. Source: BSL, ICDE 2024.

    Args:
        pos: (B,) scores.
        neg: (B, N) scores, -inf = masked.
        temperature: τ2 > 0, in units of score.
        temperature_pos: τ1 > 0, in units of score.

    Returns:
        (B,) dimensionless.

    >>> bilateral_softmax_loss(torch.tensor([0.9]), torch.tensor([[0.5]]), temperature_pos=0.5)
    tensor([-0.8000])
    """
    _check(0, math.inf, "()", temperature=temperature, temperature_pos=temperature_pos)
    ratio = temperature / temperature_pos
    return ratio * _log_mean_exp(neg / temperature) - pos / temperature_pos


@_guarded
def cosine_contrastive_loss(
    pos: Tensor, neg: Tensor, *, margin: float = 0.4, weight: float = 100.0
) -> Tensor:
    """Cosine Contrastive Loss: (1 - p) + α·mean_j (n_j - β)₊.

    Order ∞ of the family: an upper bound of the worst case over the ball max log Q/P <= log α,
    tight at the margin that leaves a share 1/α of the negatives active. Source: Eq. 2, Lemma 1.

    Args:
        pos: (B,) cosines.
        neg: (B, N) cosines, -inf = masked.
        margin: β in [-1, 1], in units of score. Negatives below it are truncated.
        weight: α >= 0, dimensionless; above 1 it is a ball of radius log α nats.

    Returns:
        (B,) in units of score.

    >>> cosine_contrastive_loss(torch.tensor([0.9]), torch.tensor([[0.1, 0.7]]), margin=0.5,
    ...                         weight=2)
    tensor([0.3000])
    """
    _check(-1, 1, "[]", margin=margin)
    _check(0, math.inf, "[)", weight=weight)
    return (1 - pos) + weight * _mean(relu(neg - margin), neg)


def _power_slope(excess: Tensor, count: Tensor, order: float, weight: float) -> Tensor:
    """Slopes of c·(mean_j x_j^γ*)^(1/γ*); the mean is their sum weighted by the excesses x."""
    # The largest excess is factored out: float32 powers of small numbers underflow to zero, and
    # take the gradient with them. All truncated: the clamps give value and subgradient zero.
    tiny = torch.finfo(excess.dtype).tiny
    ratio = excess / excess.detach().amax(-1, keepdim=True).clamp_min(tiny)
    # γ* - 1; the truncated have no slope anyway, and roots of zero take seven times as long.
    slope = ratio.clamp_min(1e-20)
    slope = slope if order == 2 else slope.pow(1 / (order - 1))
    # At least 1/count, but where all are truncated: then far enough from zero for its derivatives.
    moment = (torch.linalg.vecdot(slope, ratio) / count).clamp_min(1e-9)
    scale = (weight / (count * moment.pow(1 / order)))[..., None]
    return slope * scale if torch.is_grad_enabled() else slope.mul_(scale)


class _PowerMean(torch.autograd.Function):
    """c·(mean_j x_j^γ*)^(1/γ*) over `count` of the x >= 0, differentiable to every order.

    Of degree one in the x, it is their sum weighted by its slopes: these then serve the way back,
    which autograd would take a second power of every score for. Where that way is itself to be
    differentiated, and in forward mode, they are computed again, with a graph.
    """

    @staticmethod
    def forward(ctx, excess: Tensor, count: Tensor, order: float, weight: float) -> Tensor:
        slope = _power_slope(excess, count, order, weight)
        ctx.sizes = order, weight
        ctx.save_for_backward(excess, count, slope)
        ctx.save_for_forward(excess, count)
        return torch.linalg.vecdot(slope, excess)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        excess, count, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph
            slope = _power_slope(excess, count, *ctx.sizes)
        return grad[..., None] * slope, None, None, None

    @staticmethod
    def jvp(ctx, tangent: Tensor, *_: None) -> Tensor:
        slope = _power_slope(*ctx.saved_tensors[:2], *ctx.sizes)
        return torch.linalg.vecdot(slope, tangent)


@_guarded
def drrl_loss(
    pos: Tensor,
    neg: Tensor,
    dual: Tensor | float,
    *,
    order: float = 2.0,
    weight: float = 1.0,
    epsilon: float = 0.0,
) -> Tensor:
    """DrRL at a given β: (1 - p) + β + (mean_j (ε + c·(n_j - β)₊)^γ*)^(1/γ*), γ* = γ/(γ-1).

    For ε = 0 it is an upper bound, for any β, of (1 - p) + the worst case over the Rényi ball of
    order γ and radius γ*·log c. Source: Eq. 10; ε is not in the paper, but 0.1 in the authors'
    code.

    Args:
        pos: (B,) scores.
        neg: (B, N) scores, -inf = masked.
        dual: β, a number or (B,), in units of score.
        order: γ in (1, ∞].
        weight: c > 0, dimensionless.
        epsilon: ε >= 0, in units of score, only to reproduce the authors' code.

    Returns:
        (B,) in units of score.

    >>> drrl_loss(torch.tensor([0.9]), torch.tensor([[0.1, 0.9]]), 0.5, order=2, weight=2)
    tensor([1.1657])
    """
    _check(1, math.inf, "(]", order=order)
    _check(0, math.inf, "()", weight=weight)
    _check(0, math.inf, "[)", epsilon=epsilon)
    beta = _beta(dual, neg)
    excess = relu(neg + (-beta)[..., None])
    if epsilon:
        excess = torch.where(neg != -math.inf, excess + epsilon / weight, 0)
    sizes = _count(neg), order, weight
    if torch.compiler.is_compiling():  # which refuses second derivatives itself
        slope = _power_slope(excess, *sizes).detach()
        norm = torch.linalg.vecdot(slope, excess)
    elif torch._C._are_functorch_transforms_active():  # the slopes' own slopes weigh zero together
        norm = torch.linalg.vecdot(_power_slope(excess, *sizes), excess)
    else:
        norm = _PowerMean.apply(excess, *sizes)
    return (1 - pos) + beta + norm


@_guarded
def drrl_penalty_loss(
    pos: Tensor, neg: Tensor, dual: Tensor | float, *, order: float = 2.0, temperature: float = 0.2
) -> Tensor:
    """DrRL's penalty twin at a given β: (1 - p) + β + λ·mean_j φ*((n_j - β)/λ).

    φ*(s) = ((1 + (γ-1)s)₊^γ* - 1)/γ. An upper bound, for any β, of (1 - p) + the largest
    E_Q n - λ·D(Q, P) over all Q, D the Cressie-Read divergence of Eq. 9. As γ -> 1 the best β
    gives τ times Softmax Loss, with τ = λ for every user, up to a constant.

    Args:
        pos: (B,) scores.
        neg: (B, N) scores, -inf = masked.
        dual: β, a number or (B,), in units of score.
        order: γ in (1, ∞).
        temperature: λ > 0, in units of score.

    Returns:
        (B,) in units of score.

    >>> drrl_penalty_loss(torch.tensor([1.0]), torch.tensor([[0.0, 0.2]]), 0.1, temperature=0.2)
    tensor([0.1250])
    """
    _check(1, math.inf, "()", order=order)
    _check(0, math.inf, "()", temperature=temperature)
    beta = _beta(dual, neg)
    slope = (order - 1) * (neg - beta[..., None]) / temperature
    truncated = slope <= -1
    # exp(γ*·log1p(s)) rather than (1 + s)^γ*: as γ -> 1, 1 + s rounds to 1.
    log_power = dro.order_conj(order) * torch.where(truncated, 0, slope).log1p()
    conjugate = torch.where(truncated, -1, log_power.expm1()) / order
    return (1 - pos) + beta + temperature * _mean(conjugate, neg)


@_guarded
def pairwise_softmax_loss(
    pos: Tensor, neg: Tensor, *, temperature: float = 0.1, surrogate: str = "tanh"
) -> Tensor:
    """PSL: log Σ_j σ(d_j/2)^(1/τ), d_j = n_j - p, σ(x) = tanh(x)+1, atan(x)+1 or (x+1)₊.

    With σ = exp it would be Softmax Loss at temperature 2τ; all three grow more slowly, so that a
    negative far above its positive, often a false one, counts for less. Source: PSL, NeurIPS 2024.

    Args:
        pos: (B,) cosines.
        neg: (B, N) cosines, -inf = masked.
        temperature: τ > 0, dimensionless.
        surrogate: σ, "tanh", "atan" or "relu". Where σ <= 0 (with cosines, the last at d = -2
            alone) the pair counts for nothing: log σ is held at the log of the float's epsilon.

    Returns:
        (B,) dimensionless.

    >>> pairwise_softmax_loss(torch.tensor([0.5]), torch.tensor([[0.5, 0.5]]))
    tensor([0.6931])
    """
    _check(0, math.inf, "()", temperature=temperature)
    if surrogate not in ("tanh", "atan", "relu"):
        raise ValueError(f"surrogate must be 'tanh', 'atan' or 'relu', not {surrogate!r}")
    gap = neg - pos[..., None]
    if surrogate == "tanh":  # tanh(x) + 1 = 2·sigmoid(2x), which does not cancel
        log_sigma = logsigmoid(gap) + math.log(2)
    else:
        if surrogate == "atan":  # whose second derivative at -inf would be NaN
            gap = gap.masked_fill(neg == -math.inf, 0)
        sigma_minus_1 = (gap / 2).atan() if surrogate == "atan" else gap / 2
        log_sigma = sigma_minus_1.clamp_min(torch.finfo(gap.dtype).eps - 1).log1p()
    return torch.where(neg != -math.inf, log_sigma / temperature, -math.inf).logsumexp(-1)


# ---------------------------------------------------------------------------------------------
# Losses with state, or that need to know who is in the batch


class Stateless(nn.Module):
    """A loss function with its hyper-parameters bound, called like any other loss."""

    def __init__(self, function: Callable[..., Tensor], **hyper: float):
        super().__init__()
        function(torch.zeros(1), torch.zeros(1, 1), **hyper)  # bad values are refused now
        self.function, self.hyper = function, hyper

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        return self.function(pos, neg, **self.hyper)

    def extra_repr(self) -> str:
        return ", ".join([self.function.__name__, *(f"{k}={v}" for k, v in self.hyper.items())])


class PooledBSL(nn.Module):
    """BSL as DrRL's authors compute it, the positives of a user in the batch pooled.

    -log mean_{i in S} exp(c·p_i/τ) + c·log mean_j exp(n_j/τ), S the batch's rows of the same user:
    the value depends on who else is in the batch. BSL's own code has no c in the first term.
    Source: BSL, ICDE 2024.

    Args:
        n_users: how many there are.
        temperature: τ > 0, in units of score.
        ratio: c > 0, dimensionless.

    >>> loss, batch = PooledBSL(8, temperature=0.5), Batch(torch.tensor([7, 7]))
    >>> loss(torch.tensor([0.9, 0.9]), torch.tensor([[0.1], [0.4]]), batch)
    tensor([-1.6000, -1.0000])
    """

    def __init__(self, n_users: int, *, temperature: float = 0.2, ratio: float = 1.0):
        super().__init__()
        _check(1, math.inf, "[)", n_users=n_users)
        _check(0, math.inf, "()", temperature=temperature, ratio=ratio)
        self.n_users, self.temperature, self.ratio = n_users, temperature, ratio

    @_guarded_forward
    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        _check_batch(batch, pos, neg, users=self.n_users)
        scaled, users = self.ratio * pos / self.temperature, batch.users
        table = scaled.new_full((self.n_users,), -math.inf)
        top = table.scatter_reduce(0, users, scaled.detach(), "amax")[users]
        share = torch.stack([(scaled - top).exp(), torch.ones_like(scaled)], -1)
        total, count = share.new_zeros(self.n_users, 2).index_add(0, users, share)[users].unbind(-1)
        pooled = top + (total / count).log()
        return self.ratio * _log_mean_exp(neg / self.temperature) - pooled


class AdvInfoNCE(nn.Module):
    """-log[e^(p/τ) / (e^(p/τ) + K·N·Σ_j q_j e^(n_j/τ))], q = softmax_j(g_u·g_j), g an adversary.

    The adversary ascends by Adam at `dual_lr`. Source: AdvInfoNCE, NeurIPS 2023; K = 64 there, 1 in
    DrRL's code.

    Args:
        n_users, n_items: how many rows g has.
        temperature: τ > 0, in units of score.
        scale: K > 0, dimensionless.
        adversary_dim: length of g_u and g_j, >= 1.
        passes: 0, the adversary moves at every step, beside the model; else, as in the published
            code, only in so many passes of its own over the train pairs, before every fifth epoch
            from the third: 5 in DrRL's code, 7 to 20 in AdvInfoNCE's.

    >>> loss = AdvInfoNCE(1, 2, temperature=0.5)
    >>> batch = Batch(torch.tensor([0]), neg_items=torch.tensor([[1, 1]]))
    >>> loss(torch.tensor([0.5]), torch.tensor([[0.5, 0.5]]), batch).detach()  # log(1 + N)
    tensor([1.0986])
    """

    dual_optimiser = "adam"

    def __init__(
        self,
        n_users: int,
        n_items: int,
        *,
        temperature: float = 0.2,
        scale: float = 1.0,
        adversary_dim: int = 64,
        passes: int = 0,
    ):
        super().__init__()
        _check(0, math.inf, "()", temperature=temperature, scale=scale)
        _check(1, math.inf, "[)", n_users=n_users, n_items=n_items, adversary_dim=adversary_dim)
        _check(0, math.inf, "[)", passes=passes)
        self.temperature, self.scale = temperature, scale
        self.dual_epochs = range(3, 3 + 5 * passes, 5) if passes else None
        self.users = nn.Parameter(nn.init.xavier_normal_(torch.empty(n_users, adversary_dim)))
        self.items = nn.Parameter(nn.init.xavier_normal_(torch.empty(n_items, adversary_dim)))

    @_guarded_forward
    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        _check_batch(batch, pos, neg, users=len(self.users), neg_items=len(self.items))
        kept = neg != -math.inf
        users = dual_rows(self.users, batch.users, rate=batch.rate, ascend=True)
        index = batch.neg_items
        if index.dim() == 1:
            hard = users @ dual_rows(self.items, index, kept, rate=batch.neg_rate, ascend=True).T
        else:
            items = _mean_sloped(self.items, index, kept, True)
            if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
                # There are no sparse products there.
                hard = (items[index] * users[:, None]).sum(-1)
            else:
                hard = SampledScores.apply(users, items, index)
        log_q = torch.where(kept, hard.to(neg.dtype), -math.inf).log_softmax(-1)
        log_count = math.log(self.scale) + _count(neg).log()
        against = log_count + (log_q + neg / self.temperature).logsumexp(-1)
        return softplus(against - pos / self.temperature)


class LLPAUC(nn.Module):
    """Lower-left partial AUC as a min-max over scalars.

    P = σ(p), M = σ(n), sp(x) = log(1 + e^(5x))/5, and the value is
    -s⁺ - sp(-(P-a)² + 2(1+γ)P - s⁺)/α + s⁻ + mean_j sp((M-b)² + 2(1+γ)M - s⁻)/β - γ²
    - θ_b(b - 1 - γ) + θ_a(a + γ): minimised over a, b, s⁻ and θ, maximised over γ and s⁺, by Adam,
    these and s⁻ at twice the rate; its authors' rate is the model's. Source: LLPAUC, WWW 2024, and
    its published code for the θ.

    Args:
        share_pos, share_neg: α and β in (0, 1], the shares of positives and negatives that count.

    >>> LLPAUC()(torch.tensor([0.0]), torch.tensor([[0.0]]))
    tensor([15.4922], grad_fn=<AddBackward0>)
    """

    dual_optimiser = "adam"
    #        start, lowest, highest, rate (below zero: maximises)
    SCALARS: ClassVar = {
        "a": (1.0, 0, 1, 1),
        "b": (0.0, 0, 1, 1),
        "gamma": (0.0, -1, 1, -2),
        "s_pos": (0.5, -1, 4, -2),
        "s_neg": (0.5, 0, 5, 2),
        "theta_a": (0.5, 0, 1e9, 1),
        "theta_b": (0.5, 0, 1e9, 1),
    }
    dual_rates: ClassVar = {name: abs(rate) for name, (*_, rate) in SCALARS.items()}

    def __init__(self, *, share_pos: float = 0.5, share_neg: float = 0.05):
        super().__init__()
        _check(0, 1, "(]", share_pos=share_pos, share_neg=share_neg)
        self.share_pos, self.share_neg = share_pos, share_neg
        for name, (start, *_) in self.SCALARS.items():
            self.register_parameter(name, nn.Parameter(torch.tensor(start)))

    @_guarded_forward
    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        a, b, gamma, s_pos, s_neg, theta_a, theta_b = (
            _rescale(getattr(self, name), math.copysign(1, rate))
            for name, (*_, rate) in self.SCALARS.items()
        )
        p, m = pos.sigmoid(), neg.sigmoid()
        high = softplus(-(p - a).square() + 2 * (1 + gamma) * p - s_pos, beta=5)
        low = softplus((m - b).square() + 2 * (1 + gamma) * m - s_neg, beta=5)
        constraint = theta_a * (a + gamma) - theta_b * (b - 1 - gamma) - gamma.square()
        return s_neg + _mean(low, neg) / self.share_neg - s_pos - high / self.share_pos + constraint

    @torch.no_grad()
    def project(self) -> None:
        """Clip each scalar to its range, after a step."""
        for name, (_, lowest, highest, _) in self.SCALARS.items():
            getattr(self, name).clamp_(lowest, highest)


class DrRL(nn.Module):
    """DrRL with its dual variable β.

    The size of the ball is exactly one of `weight` (c), `radius` (ρ) and `eta` (the paper's η), or
    `temperature` (λ) for the penalty twin. The default is the paper's own advice, `weight=1` with a
    learned β: radius zero, so that β has no finite optimum and its start, `dual_lr` and the moment
    training stops decide how robust the loss is. Source: Eq. 9-11.

    Args:
        n_users: with dual="learned" each of them has a β.
        order: γ in (1, ∞]; with an exact β, 1 too.
        weight: c > 0, dimensionless.
        radius: ρ >= 0, nats.
        eta: η >= 0, dimensionless.
        temperature: λ > 0, in units of score.
        dual: "learned", a β a user; "shared", one learned β (the ablation w/o-P); "fixed", one β
            that stays (w/o-LP); "exact", each row's own optimum: no start, no rate.
        start: where β starts, in units of score.
        epsilon: ε >= 0, in units of score: the authors' 0.1, which is not in the paper.

    Raises:
        ValueError: a value out of range, two sizes, or an exact β where there is no ball (c <= 1).

    >>> loss = DrRL(3, order=2, weight=2, start=0.5)
    >>> loss(torch.tensor([0.9]), torch.tensor([[0.1, 0.9]]), Batch(torch.tensor([2])))
    tensor([1.1657], grad_fn=<AddBackward0>)
    """

    DUALS = ("learned", "shared", "fixed", "exact")

    def __init__(
        self,
        n_users: int,
        *,
        order: float = 2.0,
        weight: float | None = None,
        radius: float | None = None,
        eta: float | None = None,
        temperature: float | None = None,
        dual: str = "learned",
        start: float = 0.7,
        epsilon: float = 0.0,
    ):
        super().__init__()
        sizes = {"weight": weight, "radius": radius, "eta": eta, "temperature": temperature}
        sizes = {name: value for name, value in sizes.items() if value is not None}
        sizes = sizes or {"weight": 1.0}
        if len(sizes) > 1:
            raise ValueError(f"give one size, not {' and '.join(sizes)}")
        if dual not in self.DUALS:
            raise ValueError(f"dual must be one of {', '.join(self.DUALS)}, not {dual!r}")
        exact, penalty = dual == "exact", "temperature" in sizes
        _check(1, math.inf, ("[" if exact else "(") + (")" if penalty else "]"), order=order)
        _check(0, math.inf, "[)" if sizes.keys() & {"radius", "eta"} else "()", **sizes)
        _check(-math.inf, math.inf, "()", start=start)
        _check(0, math.inf, "[)", epsilon=epsilon)
        if epsilon and (exact or penalty):
            raise ValueError("epsilon is added to c·(n - β)₊: give it with a ball and a β, or not")
        if "eta" in sizes:
            sizes = {"radius": dro.radius_from_eta(eta, order)}
        if exact and "weight" in sizes:
            if sizes["weight"] <= 1:
                raise ValueError(
                    f"weight (c) must be above 1 with dual='exact', not {sizes['weight']!r}: at "
                    "c = 1 the ball has radius zero and the loss is the plain mean, below 1 there "
                    "is no ball. Give a radius, or keep c and learn β."
                )
            sizes = {"radius": dro.radius_from_weight(weight, order)}
        elif not exact and "radius" in sizes:
            sizes = {"weight": dro.weight_from_radius(sizes["radius"], order)}
        self.dual, self.hyper = dual, {"order": order, **sizes}
        if exact:
            return
        self.function = drrl_penalty_loss if penalty else drrl_loss
        self.hyper |= {} if penalty else {"epsilon": epsilon}
        if dual == "learned":
            _check(1, math.inf, "[)", n_users=n_users)
        beta = torch.full((n_users if dual == "learned" else 1,), float(start))
        self.beta = nn.Parameter(beta, requires_grad=dual != "fixed")

    @_guarded_forward
    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        if self.dual == "exact":
            _check_rows(neg.amax(-1), neg)
            return (1 - pos) + dro.worst_case(neg, **self.hyper).value
        if self.dual == "learned":
            _check_batch(batch, pos, neg, users=len(self.beta))
            beta = dual_rows(self.beta, batch.users, rate=batch.rate)
        else:
            beta = self.beta.expand(len(pos))
        return self.function(pos, neg, beta, **self.hyper)


# ---------------------------------------------------------------------------------------------
# The registry


class Loss(NamedTuple):
    """One line of the registry: how a loss is made, and what it expects by default."""

    factory: Callable
    similarity: str = "cosine"
    negatives: int = 64
    rowwise: bool = True  # an example's value depends on its own row alone
    version: int = 1  # raise it when the same configuration gives other numbers than before


REGISTRY = {
    "mse": Loss(mse_loss, "dot", 1),
    "bce": Loss(bce_loss, "dot", 1),
    "bpr": Loss(bpr_loss, "dot", 1),
    "sl": Loss(softmax_loss),
    "bsl": Loss(bilateral_softmax_loss),
    "bsl-pooled": Loss(PooledBSL, rowwise=False),
    "ccl": Loss(cosine_contrastive_loss),
    "advinfonce": Loss(AdvInfoNCE, version=2),
    "llpauc": Loss(LLPAUC, version=2),
    "psl": Loss(pairwise_softmax_loss),
    "drrl": Loss(DrRL),
}


def lookup(name: str) -> Loss:
    """The registry's line for a loss; ValueError with a suggestion where there is none.

    >>> lookup("ccl").similarity
    'cosine'
    """
    if name not in REGISTRY:
        raise _unknown("no loss is called", name, REGISTRY)
    return REGISTRY[name]


def hyperparameters(name: str) -> dict[str, float | str | None]:
    """Names and defaults of what `make` accepts for a loss.

    >>> hyperparameters("ccl")
    {'margin': 0.4, 'weight': 100.0}
    """
    given = inspect.signature(lookup(name).factory).parameters.values()
    return {p.name: p.default for p in given if p.kind is p.KEYWORD_ONLY}


def make(name: str, *, n_users: int = 0, n_items: int = 0, **hyper: float | str) -> nn.Module:
    """A loss by name, as a module called with (pos, neg, batch) that returns one value an example.

    Args:
        name: one of REGISTRY.
        n_users, n_items: sizes, needed by the losses that own a variable a user or an item.
        **hyper: hyper-parameters, see `hyperparameters(name)`.

    Raises:
        ValueError: no such loss, no such hyper-parameter, or a value out of range.

    >>> make("drrl", n_users=10, order=1.5, radius=2.0).beta.shape
    torch.Size([10])
    """
    factory, known = lookup(name).factory, hyperparameters(name)
    for key in hyper:
        if key not in known:
            raise _unknown(f"loss {name!r} has no hyper-parameter", key, known)
    if not inspect.isclass(factory):
        return Stateless(factory, **hyper)
    sizes = {"n_users": n_users, "n_items": n_items}
    wanted = inspect.signature(factory).parameters
    return factory(**{key: size for key, size in sizes.items() if key in wanted}, **hyper)


def negative_weights(
    loss: Callable[..., Tensor], pos: Tensor, neg: Tensor, batch: Batch | None = None
) -> Tensor:
    """How much each negative is listened to: w_j = ∂L/∂n_j, scaled to mean 1 over the negatives.

    By autograd, so it serves every loss; for SL it is Eq. 8, for DrRL at its best β Eq. 11. A row
    whose negatives have no gradient at all (all truncated) is zero throughout.

    Args:
        loss: called as loss(pos, neg, batch). pos: (B,). neg: (B, N), -inf = masked.

    Returns:
        (B, N), probability ratios.

    >>> negative_weights(make("ccl", margin=0.5), torch.tensor([0.9]), torch.tensor([[0.1, 0.7]]))
    tensor([[0., 2.]])
    """
    with torch.enable_grad():
        neg = neg.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(pos.detach(), neg, batch).sum(), neg)
    wide = torch.promote_types(neg.dtype, torch.float32)  # as in `_guard`
    mean = _mean(slope.to(wide), neg.detach().to(wide))[..., None]
    return torch.where(mean == 0, 0, slope / mean)


def starting_points(
    scores: Tensor,
    temperature: float,
    *,
    orders: tuple[float, ...] = (1.5, 2.0, 5.0),
    quantiles: tuple[float, ...] = (0.25, 0.5, 0.75),
) -> tuple[Tensor, list[dict[str, float | str]]]:
    """From a tuned Softmax Loss to DrRL: the radius SL really used, and settings to try.

    SL at temperature τ is, for each user, the ball of radius KL(Q‖P), Q_j ∝ exp(f_j/τ). The
    settings are quantiles over users of that radius, at several orders, β exact.

    Args:
        scores: (users, N) of a trained SL model's negatives, -inf = masked. Let a row hold as many
            as training draws: radii grow with their number, and no ball of N exceeds log N.
        temperature: the τ it was trained with, > 0, in units of score.
        orders: γ in [1, ∞], each a row of the grid.
        quantiles: in [0, 1], which users' radii to try.

    Returns:
        (users,) radii in nats, and keyword arguments for `make("drrl", ...)`.

    >>> radii, settings = starting_points(torch.tensor([[0.0, 0.5], [0.0, 0.1]]), 0.1, orders=(2,))
    >>> radii
    tensor([0.6530, 0.1109])
    >>> loss = make("drrl", **settings[0])
    """
    radii = dro.radius_of_temperature(scores, temperature)
    levels = torch.quantile(radii, radii.new_tensor(quantiles)).tolist()
    grid = [{"order": o, "radius": r, "dual": "exact"} for o in orders for r in levels]
    return radii, grid
