"""Rows of scores as the solver sees them, and weights proportional to powers of their excess."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

Work = tuple[Tensor, ...]  # memory of the size of the scores, for what is in between


class Rows(NamedTuple):
    """What the solver reads off the scores once; (..., 1) columns but for the (..., n) ones.

    All distances are in units of `scale`, a power of two, in which `spread` lies in [1/2, 1).
    """

    below: Tensor  # (..., n) distance to the largest score; very large where masked
    mass: Tensor | None  # (..., n) P, of mean 1 over the unmasked entries; None if it is uniform
    valid: Tensor | None  # (..., n) the mass, or 1 where unmasked, else 0; None if all are 1
    count: Tensor  # type: ignore[assignment]  # unmasked entries, by their mass
    tied: Tensor  # entries equal to the largest score, by their mass
    spread: Tensor  # largest minus smallest score; 0 if all are equal
    second: Tensor  # largest score minus the next lower one; very large if all are equal
    top: Tensor  # largest score, in the scores' own unit
    scale: Tensor


class Tilt(NamedTuple):
    """Weights proportional to (x / max x)^s, and their statistics, (..., 1) columns."""

    divergence: Tensor  # Rényi divergence of Q, nats
    log_mean: Tensor  # log of the mean of (x / max x)^s
    log_top: Tensor  # s·log(max x)
    below: Tensor  # mean distance to the largest score under Q
    x: Tensor  # mean of x under Q; the temperature at order 1
    total: Tensor  # sum of (x / max x)^s
    power: Tensor  # (..., n) (x / max x)^s by mass, 0 where that is accounted for apart
    lowest: Tensor | None = None  # (x / max x)^s there


def total_of(x: Tensor) -> Tensor:
    return x.sum(-1, keepdim=True)


def scratch(scores: Tensor) -> tuple[Tensor, ...]:
    """Three tensors to write to: fresh memory costs more than sums."""
    return tuple(torch.empty_like(scores) for _ in range(3))


def read(scores: Tensor, mass: Tensor | None, work: Work) -> Rows:
    info = torch.finfo(scores.dtype)
    top = scores.amax(-1, keepdim=True)
    below = top - scores
    spread = below.amax(-1, keepdim=True)
    valid, count = None, torch.full_like(top, scores.shape[-1])
    if spread.isinf().any():
        valid = torch.gt(scores, -math.inf, out=torch.empty_like(scores))
        torch.clamp_max(below, info.max, out=work[0])
        spread = work[0].mul_(valid).amax(-1, keepdim=True)
        count = total_of(valid)
    size = torch.where(spread > 0, spread, top.abs())
    least, most = math.frexp(info.tiny)[1], math.frexp(info.max)[1] - 1
    power = torch.frexp(size).exponent.clamp_(least, most)
    scale = torch.ldexp(torch.ones_like(spread), power)
    tied = torch.eq(below, 0, out=work[0])
    if mass is not None:
        valid, count = mass, total_of(mass)
        tied.mul_(mass)
    tied, second = total_of(tied), least_above_0(below, work[0])
    below.div_(scale)
    if valid is not None:
        below.clamp_max_(info.max / 2)  # further away than any β
    return Rows(below, mass, valid, count, tied, spread / scale, second / scale, top, scale)


def least_above_0(x: Tensor, out: Tensor) -> Tensor:
    """Smallest x above zero, of x >= 0; about the largest number if there is none."""
    huge = torch.finfo(x.dtype).max / 4
    torch.eq(x, 0, out=out)
    return torch.add(x, out, alpha=huge, out=out).amin(-1, keepdim=True)


def log_of_mean(mean: Tensor, mean_minus_1: Tensor) -> Tensor:
    """Log of a mean known both ways: each loses its digits where the other keeps them."""
    return torch.where(mean > 0.6, torch.log1p(mean_minus_1.clamp_min(-0.5)), torch.log(mean))


def mean_below(rows: Rows) -> Tensor:
    return total_of(rows.below if rows.valid is None else rows.below * rows.valid) / rows.count


def tilt_from_top(rows: Rows, s: float, t: Tensor, work: Work, exact: bool = False) -> Tilt:
    """The tilt by x = (f - max f + t)_+, or at order 1, where s = ∞, by exp((f - max f)/t).

    For orders up to 2, as the weights must not be steep in x. `exact` keeps the digits of weights
    that are nearly equal.
    """
    power, other, _ = (x[: len(t)] for x in work)
    if s == math.inf:
        torch.div(rows.below, -t, out=power)
    else:
        torch.sub(t, rows.below, out=power).relu_()
    if s in (1, 2) and not exact:
        power.div_(t)
        if s == 2:
            power.mul_(power)
        if rows.mass is not None:
            power.mul_(rows.mass)
    else:
        if s <= 8 and not exact:  # the logarithm of zero is slow
            power.div_(t).clamp_min_(torch.finfo(t.dtype).tiny).log_().mul_(s)
        elif s != math.inf:  # -log1p(below / x) is log(x / max x) with all its digits
            torch.div(rows.below, power, out=power).log1p_().mul_(-s)
        power.clamp_min_(math.log(torch.finfo(t.dtype).tiny) + 0.5)  # underflow is slow
        if exact:  # as exact as torch.expm1, which is not vectorised on the CPU
            half = torch.mul(power, 0.5, out=other).tanh_()
            power.exp_()
            half.addcmul_(half, power)
            excess = total_of(half if rows.valid is None else half.mul_(rows.valid)) / rows.count
        else:
            power.exp_()
        if rows.valid is not None:
            power.mul_(rows.valid)
    total = total_of(power)
    mean = total / rows.count
    log_mean = log_of_mean(mean, excess) if exact else mean.log()
    below = total_of(torch.mul(power, rows.below, out=other)) / total
    # D = s·log E_Q[x / max x] - log E_P[(x / max x)^s], and its limit
    height, x = -below / t, t
    if s != math.inf:
        height = s * torch.log1p(height.clamp_min(-1 + torch.finfo(t.dtype).eps))
        x = t - below
    return Tilt(height - log_mean, log_mean, s * t.log(), below, x, total, power)


class Place(NamedTuple):
    """Which scores are active; (..., 1) columns, and what follows from them alone."""

    depth: Tensor  # distance from the largest score to the lowest active one
    gap: Tensor  # the most that β can be below that one
    above: Tensor  # scores above it, by their mass
    tied: Tensor  # scores equal to it, by their mass
    base: Tensor  # (..., n) distance to it of the scores above it, else 0
    mask: Tensor  # (..., n) 1 above it, or the mass, else 0


def tilt_from_lowest(
    place: Place, count: Tensor, s: float, log_t: Tensor, work: Work, exact: bool = False
) -> Tilt:
    """The tilt by x = f - lowest active f + t, of scores in any order.

    For orders above 2: x at the lowest active score may underflow where its power does not, which
    is accounted for apart. `exact` keeps the digits of weights that are nearly equal.
    """
    info = torch.finfo(log_t.dtype)
    power, other, _ = (x[: len(log_t)] for x in work)
    depth, tied, t = place.depth, place.tied, log_t.exp()
    high = depth + t
    log_lowest = softplus(depth.log() - log_t).mul_(-s)  # s·log(t / high), where t underflows too
    torch.add(place.base, t.clamp_min(info.tiny), out=power)  # subnormal numbers are slow
    if exact:  # -log1p(below / x) is log(x / max x) with all its digits
        below = torch.sub(depth, place.base, out=other)
        torch.div(below, power, out=power).log1p_().mul_(-s)
        half = torch.mul(power, 0.5, out=other).tanh_()
        power.exp_()
        excess = total_of(half.addcmul_(half, power).mul_(place.mask))  # of exp - 1
    else:
        power.div_(high).clamp_min_(info.tiny).log_().mul_(s).exp_()
    power.mul_(place.mask)
    lowest = log_lowest.exp()
    mass = tied * lowest
    total = total_of(power) + mass
    log_mean = (total / count).log()
    above = total_of(torch.mul(power, place.base, out=other)) / total
    x, below = above + t, depth - above
    if exact:
        excess = excess + tied * log_lowest.expm1() - (count - place.above - tied)
        log_mean = log_of_mean(total / count, excess / count)
    # Each form of E_Q x / max x loses digits where the other has them.
    height = log_of_mean(x / high, -below / high) if exact else (x / high).log()
    log_top = s * log_t - log_lowest
    return Tilt(s * height - log_mean, log_mean, log_top, below, x, total, power, lowest)
