"""Derivatives of the worst case, by implicit differentiation of its optimality conditions.

Here w are the weights by mass, of mean 1: Q_j over the mean P_j, so that no formula asks for P.
The value's gradient is w / n in the scores (envelope theorem), and the multiplier of the size: in
the radius (value - β)/γ*, or τ at order 1, in the temperature -η(Q).

With the active scores fixed, the weights move by dw = a·(v - μ - κ f) along v, where a = s·w/x, or
w/τ at order 1: the derivative of w in f - β. The multipliers μ and κ keep the mean of w at 1 and,
on a ball, E_Q f where it was, as the gradient of the divergence is affine in f: dw is a times what
a least-squares fit of v on 1 and f, with weights a, leaves over. A penalty has no κ.

All functions work row by row, so that a batch dimension more is no other function.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ._inputs import check_mass, check_size, check_values
from ._solver import solve
from .sizes import order_conj

# What torch hands a `Function`: its context, and per argument a gradient, a tangent or nothing.
Context = Any
How = tuple[float, bool]  # order, ball


def _jvp(function: Callable[..., Any], ctx: Context, *moves: Any) -> Any:
    """Apply a function to what `ctx` saved, so that a jvp can be differentiated forwards again.

    torch calls a jvp with forward mode switched off, and the second derivative would be zero.
    """
    with forward_ad._set_fwd_grad_enabled(True):
        saved = [forward_ad.unpack_dual(x).primal for x in ctx.saved_tensors]
        return function(saved, *moves)


def _by_row(function: Any) -> Any:
    """Let a function of rows, whose last dimension is the row's, be mapped over a dimension."""

    def vmap(info: Any, in_dims: tuple[int | None, ...], *given: Any) -> tuple[Any, Any]:
        batched = [
            x
            if not isinstance(x, Tensor)
            else x.expand(info.batch_size, *x.shape)
            if dim is None
            else x.movedim(dim, 0)
            for x, dim in zip(given, in_dims, strict=True)
        ]
        found = function.apply(*batched)
        return found, (0,) * len(found)

    function.vmap = staticmethod(vmap)
    return function


Fields = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]  # of a `WorstCase`


def _checked(scores: Tensor, size: Tensor, mass: Tensor | None, order: float, ball: bool) -> Fields:
    """The solver, if the values are what they should be. Shapes are known to be right."""
    if mass is not None:
        check_mass(mass)
    check_values(scores)
    check_size(size, ball)
    return (*solve(scores, size, mass, order, ball),)


def _multiplier(
    scores: Tensor, size: Tensor, value: Tensor, weights: Tensor, dual: Tensor, how: How
) -> Tensor:
    """Derivative of the value in its radius, or temperature; a column."""
    order, ball = how
    lowest = torch.where(scores > -math.inf, scores, math.inf).amin(-1, keepdim=True)
    value, dual = value.unsqueeze(-1), dual.unsqueeze(-1)
    if not ball:
        heard = torch.where(weights > 0, scores - value, 0)
        return -(weights * heard).sum(-1, keepdim=True) / weights.sum(-1, keepdim=True) / size
    rate = dual if order == 1 else (value - dual) / order_conj(order)
    return torch.where(value > lowest, rate, 0)  # a row of equal scores hears of no radius


@_by_row
class Value(torch.autograd.Function):
    """The fields of a worst case; its value has derivatives, to second order."""

    @staticmethod
    def forward(
        scores: Tensor, size: Tensor, mass: Tensor | None, order: float, ball: bool
    ) -> tuple[Tensor, ...]:
        return _checked(scores, size, mass, order, ball)

    @staticmethod
    def setup_context(ctx: Context, inputs: Any, output: Any) -> None:
        scores, size, _, *ctx.how = inputs
        value, weights, dual, log_dual, *_ = output
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(scores, size, value, weights, dual, log_dual)
        ctx.save_for_forward(scores, size, value, weights, dual, log_dual)

    @staticmethod
    def backward(ctx: Context, gradient: Tensor | None, *_: Any) -> Any:
        if gradient is None:
            return None, None, None, None, None
        slope, rate = _Slope.apply(*ctx.saved_tensors, ctx.needs_input_grad[1], *ctx.how)
        gradient = gradient.unsqueeze(-1)
        to_size = gradient * rate if ctx.needs_input_grad[1] else None
        return gradient * slope, to_size, None, None, None

    @staticmethod
    def jvp(ctx: Context, v: Tensor | None, r: Tensor | None, *_: Any) -> Any:
        def along(saved: list[Tensor], v: Tensor | None, r: Tensor | None) -> Any:
            slope, rate = _Slope.apply(*saved, r is not None, *ctx.how)
            moves = [] if v is None else [(slope * v).sum(-1)]
            return sum(moves if r is None else [*moves, (rate * r).squeeze(-1)])

        return _jvp(along, ctx, v, r), None, None, None, None, None, None


@_by_row
class _Slope(torch.autograd.Function):
    """The gradient of the value, in the scores (..., n) and in the size (..., 1)."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        scores, size, value, weights, dual, log_dual, sized, order, ball
    ):
        slope = weights / weights.sum(-1, keepdim=True)
        if not sized:
            return slope, torch.zeros_like(size)
        return slope, _multiplier(scores, size, value, weights, dual, (order, ball))

    @staticmethod
    def setup_context(ctx: Context, inputs: Any, output: Any) -> None:
        *given, _, order, ball = inputs
        ctx.how = order, ball
        ctx.save_for_backward(*given)
        ctx.save_for_forward(*given)

    @staticmethod
    def backward(ctx: Context, slope: Tensor, rate: Tensor) -> Any:
        return *_Product.apply(slope, rate, *ctx.saved_tensors, *ctx.how), *[None] * 7

    @staticmethod
    def jvp(ctx: Context, v: Tensor | None, r: Tensor | None, *_: Any) -> Any:
        return _jvp(_product, ctx, v, r, ctx.how)


def _product(saved: list[Tensor], v: Tensor | None, r: Tensor | None, how: How) -> Any:
    """The Hessian in a direction that may be none."""
    scores, size, *_ = saved
    v = torch.zeros_like(scores) if v is None else v
    r = torch.zeros_like(size) if r is None else r
    return _Product.apply(v, r, *saved, *how)


@_by_row
class _Product(torch.autograd.Function):
    """The Hessian of the value in scores and size, times a direction v (..., n) and r (..., 1)."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        v, r, scores, size, value, weights, dual, log_dual, order, ball
    ):
        rate = _multiplier(scores, size, value, weights, dual, (order, ball))
        return _hessian_product(v, r, scores, size, weights, dual, log_dual, rate, order, ball)

    @staticmethod
    def setup_context(ctx: Context, inputs: Any, output: Any) -> None:
        _, _, *given, order, ball = inputs
        ctx.how = order, ball
        ctx.save_for_backward(*given)
        ctx.save_for_forward(*given)

    @staticmethod
    def backward(ctx: Context, v: Tensor, r: Tensor) -> Any:
        if any(ctx.needs_input_grad[2:4]):
            raise RuntimeError(THIRD)
        return *_Product.apply(v, r, *ctx.saved_tensors, *ctx.how), *[None] * 8

    @staticmethod
    def jvp(ctx: Context, v: Tensor | None, r: Tensor | None, *moves: Any) -> Any:
        if any(move is not None for move in moves[:2]):
            raise RuntimeError(THIRD)
        return _jvp(_product, ctx, v, r, ctx.how)


THIRD = (
    "worst_case has derivatives to second order only, and a third was asked for: detach the "
    "scores and the size before the last differentiation, or compute it without create_graph"
)


def _hessian_product(
    v: Tensor,
    r: Tensor,
    scores: Tensor,
    size: Tensor,
    weights: Tensor,
    dual: Tensor,
    log_dual: Tensor,
    rate: Tensor,
    order: float,
    ball: bool,
) -> tuple[Tensor, Tensor]:
    """See `_Product`. Everything is measured from the lowest active score, whose a may be huge."""
    active, n = weights > 0, weights.sum(-1, keepdim=True)
    lowest = torch.where(active, scores, math.inf).amin(-1, keepdim=True)
    f = torch.where(active, scores - lowest, 0)
    unit, gap = dual.unsqueeze(-1), log_dual.unsqueeze(-1).exp()
    if order == 1:
        a = weights / unit
    else:
        least = torch.finfo(scores.dtype).tiny ** 0.5
        s = 1 if order == math.inf else 1 / (order - 1)
        a = torch.where(active, s * weights / (f + gap).clamp_min(least), 0)
    at_lowest = active & (f == 0)
    v = v - torch.where(at_lowest, v, 0).sum(-1, keepdim=True) / at_lowest.sum(-1, keepdim=True)
    total = a.sum(-1, keepdim=True)
    f_mean = (a * f).sum(-1, keepdim=True) / total
    f, v = f - f_mean, v - (a * v).sum(-1, keepdim=True) / total
    af = a * f
    square, product = (af * f).sum(-1, keepdim=True), (af * v).sum(-1, keepdim=True)
    if not ball:
        to_scores = (a * v - af * (r / size)) / n
        return to_scores, (square * (r / size) - product) / (n * size)
    free = (square > 0) & rate.isfinite()  # else the weights do not move: the mean, the maximum
    bent = 0 if order == math.inf else a * v - af * (product / square)
    to_scores = torch.where(free, bent / n + af * (rate * r / square), 0)
    turn = n * rate / square
    bent_rate = (rate - turn * (f_mean + gap)) / order_conj(order)
    rate_moves = -turn * unit if order == 1 else bent_rate
    return to_scores, torch.where(free, rate * product / square + r * rate_moves, 0)


@torch.library.custom_op("drrl::worst_case", mutates_args=())
def opaque(
    scores: Tensor, size: Tensor, mass: Tensor | None, order: float, ball: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The solver as one node of a compiled graph: how long it goes on depends on the data."""
    return _checked(scores, size, mass, order, ball)


@opaque.register_fake
def _(
    scores: Tensor, size: Tensor, mass: Tensor | None, order: float, ball: bool
) -> tuple[Tensor, ...]:
    value, *others = (scores.new_empty(scores.shape[:-1]) for _ in range(6))
    return value, torch.empty_like(scores, memory_format=torch.contiguous_format), *others


def _keep(ctx: Context, inputs: Any, output: Any) -> None:
    scores, size, _, *ctx.how = inputs
    ctx.save_for_backward(scores, size, *output[:3])


def _envelope(ctx: Context, gradient: Tensor, *_: Any) -> tuple[Tensor, Tensor, None, None, None]:
    scores, size, value, weights, dual = ctx.saved_tensors
    gradient = gradient.unsqueeze(-1)
    rate = _multiplier(scores, size, value, weights, dual, ctx.how)
    slope = weights / weights.sum(-1, keepdim=True)
    return gradient * slope, gradient * rate, None, None, None


opaque.register_autograd(_envelope, setup_context=_keep)
