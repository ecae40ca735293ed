"""Distributionally robust optimisation over Rényi balls: one family, two dials.

With P uniform over the n scores f of a row, the family is

    R(f) = max { E_Q f : D_γ(Q‖P) <= ρ },    Q_j = w_j P_j,    mean of w = 1,

where dial one is the order γ in [1, ∞] of the Rényi divergence (1: Kullback–Leibler, ∞: worst-case
regret) and dial two the radius ρ >= 0. :func:`worst_case` solves it exactly for a batch of rows.
Four units are in use: score, nats (radius), dimensionless (order, weight c, share) and probability
ratio (w, of mean 1).

The solver in brief. The worst-case weights are w ∝ x^s with x = (f - β)_+ and s = 1/(γ-1), or
exp(f/τ) at order 1; lowering β spreads them out, so the divergence is monotone in β and one root
per row remains to be found. Two things need care:

* near order 1, β runs off to -∞: everything is measured from the largest score, through log1p;
* above order 2, β may lie so close below the lowest active score that the distance between them
  underflows although the weight it stands for does not: there the active set is found first, by
  bisection over the sorted scores, and the unknown is the weight of its lowest member.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

STEPS = None
_PAPER = "'Distributionally Robust Rényi Loss', AAAI 2025"


class WorstCase(NamedTuple):
    """The worst case of each row, and what it looks like.

    Shapes: ``weights`` has the shape (..., n) of the scores, every other field the shape (...).
    """

    value: Tensor  # score; the only field that carries a gradient: d value / d f = w / n
    weights: Tensor  # probability ratio; mean 1 over the unmasked entries, 0 at masked ones
    dual: Tensor  # score; the temperature τ at order 1, above it the threshold β: w > 0 iff f > β
    log_dual: Tensor  # log score; log τ, above order 1 log(lowest active score - β)
    k1: Tensor  # probability ratio; the largest weight (the mean weight is 1)
    truncated: Tensor  # share in [0, 1) of weights that are zero; order 1 truncates nothing
    effective_share: Tensor  # share in (0, 1]; 1 / mean(w²)


class _Rows(NamedTuple):
    """What the solver reads off the scores once; (..., 1) columns but for the first two."""

    below: Tensor  # (..., n) distance to the largest score; positive where masked
    valid: Tensor  # (..., n) 1 where unmasked, else 0
    count: Tensor  # unmasked entries
    top: Tensor  # largest score
    tied: Tensor  # entries equal to it
    spread: Tensor  # largest minus smallest score


class _Lowest(NamedTuple):
    """The lowest active score, where its weight rather than β is the unknown; (..., 1) columns."""

    tied: Tensor  # entries equal to it
    depth: Tensor  # distance to the largest score
    others: Tensor  # (..., n) 1 at unmasked entries that differ from it
    log_gap: Tensor  # log of the largest distance to β in question
    log_share: Tensor  # log of its x^s, relative to that at the largest distance


class _Tilt(NamedTuple):
    """Weights proportional to (x / max x)^s, and their statistics; (..., 1) columns but `power`."""

    power: Tensor  # (..., n) (x / max x)^s, zero at the lowest active score where that is apart
    lowest: Tensor  # the power there
    total: Tensor  # sum of all powers
    log_mean: Tensor  # log of their mean
    log_top: Tensor  # s·log(max x)
    below: Tensor  # mean distance to the largest score under Q
    divergence: Tensor  # Rényi divergence of Q, nats


def _read(scores: Tensor) -> _Rows:
    info = torch.finfo(scores.dtype)
    top = scores.amax(-1, keepdim=True)
    below = (top - scores).clamp_max_(info.max)
    valid = (scores > -math.inf).to(scores.dtype)
    count = valid.sum(-1, keepdim=True)
    tied = (below == 0).to(scores.dtype).sum(-1, keepdim=True)
    spread = (below * valid).amax(-1, keepdim=True)
    below = below.minimum(spread.clamp_min(info.tiny))
    return _Rows(below, valid, count, top, tied, spread)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vecdot(a, b).unsqueeze(-1)


def _tilt(
    rows: _Rows,
    s: float,
    x: Tensor,
    top_x: Tensor,
    low: _Lowest | None = None,
    *,
    mild: bool = True,
) -> _Tilt:
    """The tilt by x = (f - β)_+; at order 1, where s = ∞, by exp(f/τ) with x = f - max f, top_x = τ.

    `mild` takes the trouble to be exact to the last digit where D is small.
    """
    if math.isinf(s):
        power = x / top_x
    else:  # log(x / max x), with all its digits whether x is next to max x or next to nothing
        power = (rows.below / x).log1p_().mul_(-s)
    power.clamp_min_(-60 if power.dtype == torch.float32 else -600)  # underflow is slow
    excess = _dot(power.expm1(), rows.valid if low is None else low.others) if mild else None
    power = power.exp_()
    total, below = power.sum(-1, keepdim=True), _dot(power, rows.below)
    if low is None:
        lowest = torch.zeros_like(top_x)
        log_top = s * top_x.log()
    else:
        # The lowest x may underflow, its power (1 + depth/x)^-s does not: get there by log_share.
        log_ratio = s * (low.depth.log() - low.log_gap) - low.log_share  # s·log(depth/x)
        log_lowest = -(log_ratio.relu() + s * torch.log1p((-(log_ratio / s).abs()).exp()))
        log_top = low.log_share + s * low.log_gap - log_lowest
        lowest = log_lowest.exp()
        total = total + low.tied * lowest
        below = below + low.tied * lowest * low.depth
        excess = excess + low.tied * log_lowest.expm1()
    log_mean = torch.log(total / rows.count)
    if mild:
        log_mean = torch.where(log_mean > -0.5, torch.log1p(excess / rows.count), log_mean)
    below = below / total
    # D = s·log E_Q[x / max x] - log E_P[(x / max x)^s]
    if math.isinf(s):
        divergence = -below / top_x - log_mean
    else:
        height = _dot(power, x)
        if low is not None:
            height = height + low.tied * lowest * (top_x - low.depth)
        log_height = torch.log(height / total / top_x)
        if mild:
            log_height = torch.where(log_height > -0.5, torch.log1p(-below / top_x), log_height)
        divergence = s * log_height - log_mean
    return _Tilt(power, lowest, total, log_mean, log_top, below, divergence)


def _root(excess: Callable[[Tensor], Tensor], lo: Tensor, hi: Tensor, steps: int) -> Tensor:
    """Zero of a decreasing function in [lo, hi], for every row at once: Chandrupatla's method.

    Inverse quadratic interpolation where the last three points look like a graph that can be
    inverted, bisection elsewhere. The number of steps is fixed, so that nothing in it depends on
    the data. `lo` and `hi` are brackets by construction; the clamps keep them so under rounding.
    """
    tiny = torch.finfo(lo.dtype).tiny
    a, b = lo, hi
    fa, fb = excess(a).clamp_min(tiny), excess(b).clamp_max(-tiny)
    c, fc = a, fa
    share = torch.full_like(a, 0.5)
    for _ in range(steps):
        x = a + share * (b - a)
        fx = excess(x)
        same = (fx > 0) == (fa > 0)
        c, fc = torch.where(same, a, b), torch.where(same, fa, fb)
        b, fb = torch.where(same, b, a), torch.where(same, fb, fa)
        a, fa = x, fx
        xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
        smooth = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi)
        step = fa / (fb - fa) * fc / (fb - fc)
        step = step + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
        share = torch.where(smooth & step.isfinite(), step, 0.5).clamp(1e-9, 1 - 1e-9)
    return torch.where(fa.abs() < fb.abs(), a, b)


def _lowest_active(
    scores: Tensor, rows: _Rows, s: float, excess: Callable[[_Tilt], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Bisect the sorted scores for the lowest one above the β at which `excess` vanishes.

    Returns it, its distance to the next score below, and whether there is none below.
    """
    ordered = scores.sort(-1, descending=True).values
    inside, outside = torch.zeros_like(rows.count), rows.count
    inside, outside = inside.long(), outside.long()
    for _ in range(scores.shape[-1].bit_length()):
        middle = (inside + outside) // 2
        beta = ordered.gather(-1, middle)
        tilt = _tilt(rows, s, (scores - beta).relu_(), rows.top - beta, mild=False)
        # 0/0 where β is the largest score itself, which is always active: hence not "> 0".
        active = ~(excess(tilt) <= 0)
        inside = torch.where(active, middle, inside)
        outside = torch.where(active, outside, middle)
    lowest = ordered.gather(-1, inside)
    below = ordered.gather(-1, outside.clamp_max(scores.shape[-1] - 1))
    return lowest, lowest - below, outside >= rows.count


def _solve(
    scores: Tensor, order: float, radius: Tensor | None, temperature: Tensor | None
) -> WorstCase:
    info = torch.finfo(scores.dtype)
    rows = _read(scores)
    # At order ∞, s = 0 would turn the truncated x = 0 into 0^0; the smallest s > 0 does not.
    s = math.inf if order == 1 else max(1 / (order - 1), info.eps**2)
    steps = 24 if scores.dtype == torch.float64 else (STEPS or 12)

    # `excess` falls as β falls; `reach` is a distance (temperature at order 1) where it is <= 0,
    # above order 2 provided that no score is truncated there.
    if radius is not None:
        spike, whole = radius >= torch.log(rows.count / rows.tied), radius <= 0
        # D_γ <= γ·L²/8 where log w has range L
        factor = 1.0 if order == 1 else s * (s + 1)
        reach = rows.spread * (factor / 8 / radius.clamp_min(info.tiny)).sqrt()

        def excess(tilt: _Tilt) -> Tensor:
            return tilt.divergence - radius
    else:
        spike = whole = torch.zeros_like(rows.tied, dtype=torch.bool)
        scale = temperature if order == 1 else temperature * s
        reach = scale.expand_as(rows.top)

        def excess(tilt: _Tilt) -> Tensor:
            return s * scale.log() - tilt.log_mean - tilt.log_top

    if order <= 2:
        apart, low, anchor = None, None, rows.top
        offset = scores - rows.top
        if radius is None:  # mean weight 1 puts it between these two
            bracket = reach, reach * (rows.count / rows.tied) ** (order - 1)
        else:
            # Below the second largest score nothing but the largest is left.
            second = rows.below.masked_fill(rows.below == 0, math.inf).amin(-1, keepdim=True)
            second = second.minimum(rows.spread) * (0.01 if order == 1 else max(1.0, s / 100))
            bracket = second, (reach if order == 1 else reach + rows.spread).maximum(second)

        def tilt_at(log_t: Tensor) -> _Tilt:
            t = log_t.exp()
            return _tilt(rows, s, offset if order == 1 else (offset + t).relu_(), t)

        lo, hi = (end.clamp(info.tiny, info.max / 4).log() for end in bracket)
        log_t = lo if order == 1 and radius is None else _root(
            lambda u: excess(tilt_at(u)), lo, hi, steps
        )
        log_t = torch.where(whole, hi, torch.where(spike, math.log(info.tiny), log_t))
        tilt = tilt_at(log_t)
    else:
        anchor, gap, bottom = _lowest_active(scores, rows, s, excess)
        log_gap = torch.where(bottom, reach, gap).clamp(info.tiny, info.max / 4).log()
        apart = scores == anchor
        offset = (scores - anchor).masked_fill_(apart, -math.inf)
        tied = apart.to(scores.dtype)
        rows = rows._replace(below=rows.below + tied)  # positive there, too: its power is 0, not 0/0
        others, tied = rows.valid - tied, tied.sum(-1, keepdim=True)
        depth = rows.top - anchor

        def tilt_at(share: Tensor) -> _Tilt:
            log_share = share.log()
            t = (log_gap + log_share / s).exp()
            low = _Lowest(tied, depth, others, log_gap, log_share)
            return _tilt(rows, s, (offset + t).relu_(), depth + t, low)

        lo = torch.full_like(depth, info.tiny)
        share = _root(lambda u: excess(tilt_at(u)), lo, torch.ones_like(lo), steps)
        share = torch.where(whole, 1.0, share)
        tilt = tilt_at(share)
        log_t = log_gap + share.log() / s
    t = log_t.exp()

    if order == 1:
        power = tilt.power * rows.valid
    else:
        x = (offset + t).relu_()
        active = x.sign()
        power = tilt.power * active
        if apart is not None:
            power = torch.where(apart, tilt.lowest, tilt.power)
    weights = power * (rows.count / tilt.total)
    value = rows.top - tilt.below
    if temperature is not None:
        # E_Q f - λ·η(Q), with η from (γ-1)·E w^γ = E_Q (f - β) / λ
        if order == 1:
            cost = -temperature * tilt.log_mean
        elif order <= 2:
            cost = scale * (-tilt.log_mean / s).expm1()
        else:
            cost = depth + t - scale
        value = rows.top - ((order - 1) * tilt.below + cost) / order

    if order == 1:
        truncated = torch.zeros_like(t)
        dual, log_dual = torch.where(spike, 0.0, torch.where(whole, math.inf, t)), log_t
    else:
        active = active.sum(-1, keepdim=True)
        if apart is None:
            log_t = x.masked_fill_(x == 0, math.inf).amin(-1, keepdim=True).log()
        else:
            active = active + tied
        truncated = 1 - active / rows.count
        dual = torch.where(spike, rows.top, torch.where(whole, -math.inf, anchor - t))
        log_dual = log_t
    log_dual = torch.where(spike, -math.inf, torch.where(whole, math.inf, log_dual))
    if math.isinf(order):  # any β up to the lowest active score that is above the next one
        dual, log_dual = anchor, torch.full_like(anchor, -math.inf)
    share = rows.count / _dot(weights, weights)
    columns = value, dual, log_dual, weights.amax(-1, keepdim=True), truncated, share
    value, dual, log_dual, k1, truncated, share = (column.squeeze(-1) for column in columns)
    return WorstCase(value, weights, dual, log_dual, k1, truncated, share)


def _solve_in_blocks(
    scores: Tensor, order: float, radius: Tensor | None, temperature: Tensor | None
) -> WorstCase:
    """On the CPU, solve as many rows at a time as the processor's cache holds."""
    rows = max(1, 2**18 // scores.shape[-1])
    if scores.device.type != "cpu" or torch.compiler.is_compiling() or scores[..., 0].numel() <= rows:
        return _solve(scores, order, radius, temperature)
    shape = scores.shape
    blocks = [
        None if x is None else x.reshape(-1, x.shape[-1]).split(rows)
        for x in (scores, radius, temperature)
    ]
    none = [None] * len(blocks[0])
    parts = [
        _solve(f, order, r, t) for f, r, t in zip(*(b or none for b in blocks), strict=True)
    ]
    value, weights, *rest = (torch.cat(field) for field in zip(*parts, strict=True))
    return WorstCase(
        value.reshape(shape[:-1]), weights.reshape(shape), *(x.reshape(shape[:-1]) for x in rest)
    )


def _column(value, name: str, scores: Tensor, *, low: float, strict: bool = False) -> Tensor:
    """A number or tensor as a (..., 1) column next to the scores; checked."""
    column = torch.as_tensor(value, dtype=scores.dtype, device=scores.device)
    column = column.expand(scores.shape[:-1]).unsqueeze(-1)
    return column


def worst_case(scores: Tensor, *, order: float, radius=None, temperature=None) -> WorstCase:
    f = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    order = float(order)
    with torch.no_grad():
        r = None if radius is None else _column(radius, "radius", f, low=0)
        lam = None if temperature is None else _column(temperature, "temperature", f, low=0)
        result = _solve_in_blocks(f.detach(), order, r, lam)
    if f.requires_grad:
        # Envelope theorem: the solver is not differentiated, its weights are the gradient.
        valid = f.detach() > -math.inf
        linear = (f.masked_fill(~valid, 0.0) * result.weights).sum(-1) / valid.sum(-1)
        result = result._replace(value=result.value + (linear - linear.detach()))
    return result
