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
  underflows although the weight it stands for does not: there the unknown is the number of active
  scores, in fractions, the lowest of them counting by its weight (see `_Place`).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

try:
    import numpy
except ImportError:  # torch does without, only its sort is slower
    numpy = None


BLOCK = 2**20  # scores solved at a time on a CPU: more leave its cache, fewer cost more calls
SAMPLE = 256  # scores of a row that a first guess is made from, about
TINY = 1e4  # times the precision: a radius of which a root finder would lose the digits


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
    valid: Tensor | None  # (..., n) 1 where unmasked, else 0; None if nothing is masked
    count: Tensor  # unmasked entries
    top: Tensor  # largest score
    tied: Tensor  # entries equal to it
    spread: Tensor  # largest minus smallest score
    work: tuple[Tensor, Tensor, Tensor]  # (..., n) scratch: fresh memory costs more than sums


class _Tilt(NamedTuple):
    """Weights proportional to (x / max x)^s, and their statistics, (..., 1) columns."""

    divergence: Tensor  # Rényi divergence of Q, nats
    log_mean: Tensor  # log of the mean of (x / max x)^s
    log_top: Tensor  # s·log(max x)
    below: Tensor  # mean distance to the largest score under Q
    total: Tensor  # sum of (x / max x)^s
    power: Tensor  # (..., n) (x / max x)^s, 0 where that is accounted for apart
    lowest: Tensor | None = None  # (x / max x)^s there


def _sum(x: Tensor) -> Tensor:
    return x.sum(-1, keepdim=True)


def _read(scores: Tensor) -> _Rows:
    info = torch.finfo(scores.dtype)
    top = scores.amax(-1, keepdim=True)
    below = top - scores
    spread = below.amax(-1, keepdim=True)
    valid, count = None, torch.full_like(top, scores.shape[-1])
    work = tuple(torch.empty_like(below) for _ in range(3))
    if spread.isinf().any():
        below.clamp_max_(info.max)
        valid = torch.gt(scores, -math.inf, out=torch.empty_like(scores))
        spread = torch.mul(below, valid, out=work[0]).amax(-1, keepdim=True)
        count = _sum(valid)
    tied = scores.shape[-1] - _sum(torch.sign(below, out=work[0]))
    return _Rows(below, valid, count, top, tied, spread, work)


def _lowest(x: Tensor, out: Tensor) -> Tensor:
    """Smallest x above zero, of x >= 0; about the largest number if there is none."""
    huge = torch.finfo(x.dtype).max / 4
    torch.eq(x, 0, out=out)
    return torch.add(x, out, alpha=huge, out=out).amin(-1, keepdim=True)


def _log_mean(mean: Tensor, mean_minus_1: Tensor) -> Tensor:
    """Log of a mean known both ways: each loses its digits where the other keeps them."""
    return torch.where(mean > 0.6, torch.log1p(mean_minus_1.clamp_min(-0.5)), torch.log(mean))


def _tilt_from_top(rows: _Rows, s: float, t: Tensor, exact: bool = True) -> _Tilt:
    """The tilt by x = (f - max f + t)_+, or at order 1, where s = ∞, by exp((f - max f)/t).

    For orders up to 2, as the weights must not be steep in x. `exact` keeps the digits of weights
    that are nearly equal.
    """
    power, other, _ = rows.work
    if s == math.inf:
        torch.div(rows.below, -t, out=power)
    else:
        torch.sub(t, rows.below, out=power).relu_()
    if s in (1, 2) and not exact:
        power.div_(t)
        if s == 2:
            power.mul_(power)
    else:
        if s <= 8 and not exact:  # the logarithm of zero is slow
            power.div_(t).clamp_min_(torch.finfo(t.dtype).tiny).log_().mul_(s)
        elif s != math.inf:  # -log1p(below / x) is log(x / max x) with all its digits
            torch.div(rows.below, power, out=power).log1p_().mul_(-s)
        power.clamp_min_(-60 if power.dtype == torch.float32 else -600)  # underflow is slow
        if exact:  # as exact as torch.expm1, which is not vectorised on the CPU
            half = torch.mul(power, 0.5, out=other).tanh_()
            power.exp_()
            half.addcmul_(half, power)
            excess = _sum(half if rows.valid is None else half.mul_(rows.valid)) / rows.count
        else:
            power.exp_()
        if rows.valid is not None:
            power.mul_(rows.valid)
    total = _sum(power)
    mean = total / rows.count
    log_mean = _log_mean(mean, excess) if exact else mean.log()
    below = _sum(torch.mul(power, rows.below, out=other)) / total
    # D = s·log E_Q[x / max x] - log E_P[(x / max x)^s], and its limit
    height = -below / t
    if s != math.inf:
        height = s * torch.log1p(height.clamp_min(-1 + torch.finfo(t.dtype).eps))
    return _Tilt(height - log_mean, log_mean, s * t.log(), below, total, power)


class _Place(NamedTuple):
    """Where β lies among the sorted scores; (..., 1) columns.

    It is told by how many scores are active, in fractions: x^s at the lowest of them is `share`
    times what it would be if β were the next lower score, and that many of it count. So β moves
    all the way down as the number grows from 0 to n, and the weights with it, without a jump.
    """

    lowest: Tensor  # the lowest active score, negated
    log_gap: Tensor  # log of the largest possible distance between β and it
    share: Tensor  # in (0, 1]
    above: Tensor  # entries above it
    tied: Tensor  # entries equal to it


def _ascending(x: Tensor) -> Tensor:
    """Each row sorted. NumPy does that ten times as fast on a CPU, without the indices."""
    if x.device.type != "cpu" or numpy is None:
        return x.sort(-1).values
    x = x.clone(memory_format=torch.contiguous_format)
    x.numpy().sort(-1)
    return x


def _place(down: Tensor, count: Tensor, reach: Tensor, s: float, active: Tensor) -> _Place:
    """The place of β where `active` of the scores are, in float64; `down` ascends."""
    info = torch.finfo(down.dtype)
    index = (active.ceil().long() - 1).clamp(0, down.shape[-1] - 1)
    lowest = down.gather(-1, index)
    above = torch.searchsorted(down, lowest)
    upto = torch.searchsorted(down, lowest, right=True)
    gap = down.gather(-1, upto.clamp_max(down.shape[-1] - 1)) - lowest
    gap = torch.where(upto < count, gap, reach).clamp(info.tiny, info.max / 4)
    tied = upto - above
    share = ((active - above) / tied).to(down.dtype)
    above, tied = above.to(down.dtype), tied.to(down.dtype)
    if s > 1e-3:
        # Lowering β by a score brings in that score, in proportion to its share, and adds to all
        # above it, in proportion to share^(1/s); `bend` is about how much more the latter does.
        # Were they not weighed so, D would go down in waves, and a root take twice the steps.
        bend = above * (gap / (lowest - down[..., :1] + gap)).pow(1 - s) / (1 + s) ** 2
        part = share * (1 + bend)
        share = torch.minimum(part, (part / bend).pow(s)).clamp(info.tiny, 1)
        for _ in range(2):  # of Newton's, on share + bend·share^(1/s) = part, a convex function
            curve = bend * share.pow(1 / s)
            share = share - (share + curve - part) / (1 + curve / (s * share))
    return _Place(lowest, gap.log(), share.clamp(info.tiny, 1), above, tied)


def _tilt_from_lowest(
    down: Tensor, rows: _Rows, place: _Place, s: float, exact: bool = True
) -> _Tilt:
    """The tilt with β at that place, of the negated scores in any order.

    For orders above 2: x at the lowest active score may underflow where its power does not, which
    is accounted for apart. `exact` keeps the digits of weights that are nearly equal.
    """
    info = torch.finfo(down.dtype)
    x, above, power = rows.work
    log_share = place.share.log()
    t, depth = (place.log_gap + log_share / s).exp(), place.lowest + rows.top
    torch.sign(torch.sub(place.lowest, down, out=x).relu_(), out=above)
    if exact:  # -log1p(below / x) is log(x / max x) with all its digits
        below = torch.mul(above, depth, out=power).sub_(x)
        x.add_(t).add_(1 - above)
        torch.div(below, x, out=power).log1p_().mul_(-s)
        half = torch.mul(power, 0.5, out=x).tanh_()
        power.exp_()
        excess = _sum(half.addcmul_(half, power))  # of exp - 1
    else:
        x.add_(t).div_(depth + t).clamp_min_(info.tiny * 1e8)  # subnormal numbers are slow
        torch.log(x, out=power).mul_(s).exp_()
    power.mul_(above)
    # s·log(x / max x) = -s·log(1 + depth/x) at the lowest score, by way of s·log(depth/x)
    ratio = s * (depth.log() - place.log_gap) - log_share
    log_lowest = -(ratio.relu() + s * torch.log1p((-(ratio / s).abs()).exp()))
    lowest = log_lowest.exp()
    mass = place.tied * lowest
    total = _sum(power) + mass
    log_mean = (total / rows.count).log()
    if exact:
        dropped = rows.count - place.above - place.tied
        excess = excess + place.tied * log_lowest.expm1() - dropped
        log_mean = _log_mean(total / rows.count, excess / rows.count)
        torch.sub(place.lowest, down, out=x).relu_()
        below = depth - _sum(x.mul_(power)) / total
        # Where E_Q x is next to nothing this loses digits of D, and the value hardly depends on D.
        height = torch.log1p((-below / (depth + t)).clamp_min(-1 + info.eps))
    else:
        mean = (torch.linalg.vecdot(power, x).unsqueeze(-1) + mass * t / (depth + t)) / total
        height, below = mean.log(), (depth + t) * (1 - mean)
    log_top = log_share + s * place.log_gap - log_lowest
    return _Tilt(s * height - log_mean, log_mean, log_top, below, total, power, lowest)


def _part(given, kept: Tensor):
    """Some rows of whatever is given for each; scratch is not looked at, and not copied."""
    if isinstance(given, Tensor):
        return given.index_select(0, kept)
    if isinstance(given, _Rows):
        work = tuple(x[: len(kept)] for x in given.work)
        return _Rows(*(_part(x, kept) for x in given[:-1]), work)
    return None if given is None else tuple(_part(x, kept) for x in given)


def _root(
    excess: Callable[..., Tensor],
    given: tuple,
    lo: Tensor,
    hi: Tensor,
    x: Tensor,
    slope: float | Tensor,
    noise: Tensor | float,
    close: float,
    steps: int,
) -> Tensor:
    """Zero of excess(x, *given), decreasing between lo and hi, for all rows from a first guess x.

    Inverse quadratic interpolation through the last three points (at first the secant, and before
    it a line of the given slope), bisection where that leaves the bracket or gains too little. A
    row is done when its next step hardly matters, or its value is mere noise, and does not change
    any more: leaving it out, as is done on the CPU, is no different from going on.
    """
    looking = x.device.type == "cpu"  # a GPU would wait
    found, left = x, None
    done = torch.zeros_like(x, dtype=torch.bool)
    noise = torch.as_tensor(noise, dtype=x.dtype).expand_as(x)
    x1 = f1 = f2 = size1 = inverse1 = x  # of earlier steps
    for step in range(steps):
        f = excess(x, *given)
        size, right = f.abs(), f > 0
        lo, hi = torch.where(right, x, lo), torch.where(right, hi, x)
        inverse = (x - x1) / (f - f1) if step else torch.ones_like(x) / slope
        target = x - f * inverse
        if step > 1:
            target = target + f * f1 * (inverse - inverse1) / (f - f2)
        good = (target > lo) & (target < hi)
        if step > 1:
            good = good & (size < (0.9 if step < 6 else 0.5) * size1)
        last = torch.where(good, (x - x1).abs(), 1.0) if step else 1.0
        away = 1e-3 + 8 * (x - x1).abs() if step else math.inf  # the bracket may reach far out
        middle = ((lo + hi) / 2).clamp(x - away, x + away)
        target = torch.where(good, target, middle)
        target = torch.where(done | (size <= noise), x, target)
        done = (target - x).abs() * last <= close  # about the distance to the zero that is left
        x1, f1, f2, size1, inverse1, x = x, f, f1, size, inverse, target
        if not looking:
            continue
        many = int(done.sum())
        if many > len(done) // 4 or many == len(done):
            found = x if left is None else found.index_copy(0, left, x)
            if many == len(done):
                return found
            kept = (~done).squeeze(-1).nonzero().squeeze(-1)
            left = kept if left is None else left[kept]
            state = (given, lo, hi, x, x1, f1, f2, size1, inverse1, noise, done)
            given, lo, hi, x, x1, f1, f2, size1, inverse1, noise, done = _part(state, kept)
    return x if left is None else found.index_copy(0, left, x)


def _nearly_uniform(rows: _Rows, order: float, s: float, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Distance from the largest score to β (at order 1, τ), by a series in √ρ; where it is exact.

    With w ∝ (1 + (γ-1)θ(f - mean))^s, D is a series in θ and the central moments of the row.
    """
    mean = _sum(rows.below if rows.valid is None else rows.below * rows.valid) / rows.count
    g = torch.sub(mean, rows.below, out=rows.work[0])
    if rows.valid is not None:
        g.mul_(rows.valid)
    square = torch.mul(g, g, out=rows.work[1])
    m2, m3 = _sum(square) / rows.count, _sum(g.mul_(square)) / rows.count
    m4 = _sum(square.mul_(square)) / rows.count
    a = order - 1
    first = (2 * radius / (order * m2)).sqrt()
    cubic = 2 * (1 - a) / 3 * m3 / m2
    quartic = ((1 - a) * (1 - 2 * a) * m4 / m2 - (3 - a) * m2) / 4
    factor = 1 - cubic * first / 2 + (5 / 8 * cubic**2 - quartic / 2) * first**2
    nearly = first * rows.spread < (20 * torch.finfo(m2.dtype).eps) ** 0.2
    factor = torch.where(nearly, factor, 1 / (1 + cubic * first / 2).clamp(0.5, 2))
    if order > 1:
        first = torch.where(nearly, first, (2 * (a * radius).expm1() / (a * order * m2)).sqrt())
    theta = first * factor
    return (1 / theta if order == 1 else mean + s / theta), nearly


def _at_order_2(rows: _Rows, radius: Tensor, whole: bool) -> tuple[Tensor, Tensor]:
    """Distance t from the largest score to β, in closed form: a quadratic for each active set.

    With weights ∝ t - b over the k smallest distances b, E w² = n/k·(1 + var/(t - mean)²) = e^ρ,
    so that (t - mean)² is var over an excess of e^ρ·k/n - 1. Unless the whole row is asked for, of
    many scores that is the answer for a sample of a few hundred: a first guess. With it, the slope
    of log(e^D - 1) there in log t.
    """
    stride = 1 if whole else max(1, rows.below.shape[-1] // SAMPLE)
    below = rows.below[..., ::stride]
    valid = torch.ones_like(below) if rows.valid is None else rows.valid[..., ::stride]
    count = _sum(valid).clamp_min(1)
    middle = _sum(below * valid) / count
    below = _ascending(below).sub_(middle)
    k = torch.arange(1, below.shape[-1] + 1, dtype=below.dtype, device=below.device)
    mean = below.cumsum(-1) / k
    variance = (below * below).cumsum(-1).div_(k).addcmul_(mean, mean, value=-1).clamp_min_(0)
    excess = (k / count).sub_(1).mul_(radius.exp()).add_(radius.expm1())
    # The next score is active too if the k above it are not spread out enough with β at it.
    apart = (below[..., 1:] - mean[..., :-1]).square_().mul_(excess[..., :-1])
    last = (variance[..., :-1] >= apart).sum(-1, keepdim=True)
    mean, variance, excess = (x.gather(-1, last) for x in (mean, variance, excess))
    above = (variance / excess).sqrt()  # t - mean
    t = middle + mean + above
    return t, -2 * t / above * excess / (excess + 1 - (last + 1) / count)


def _solve(
    scores: Tensor, order: float, radius: Tensor | None, temperature: Tensor | None
) -> WorstCase:
    info = torch.finfo(scores.dtype)
    rows = _read(scores)
    # At order ∞, s = 0 would turn the truncated x = 0 into 0^0; a very small s > 0 does not.
    s = math.inf if order == 1 else max(1 / (order - 1), info.eps**2)
    # The most that rows of any kind were seen to need; ordinary ones are done after four to eight.
    steps = 48 if info.bits == 64 else 24

    # `excess` falls as β does, or as τ rises. At `reach` below the smallest score (a temperature,
    # at order 1) it is surely negative.
    if radius is not None:
        whole, spike = radius <= 0, radius >= torch.log(rows.count / rows.tied)
        floor = radius.clamp_min(info.tiny)
        # since D <= γ·L²/8 if log w has range L
        reach = rows.spread * math.sqrt((1 if order == 1 else s * (s + 1)) / 8) / floor.sqrt()

        goal = torch.where(spike, math.inf, floor.clamp_max(60).expm1().log())

        def excess(tilt: _Tilt, goal: Tensor) -> Tensor:
            # exp(D) - 1 is a power of the distance to β, nearly, both far away and close by
            return tilt.divergence.clamp_min(info.tiny).expm1().log() - goal
    else:
        whole = spike = torch.zeros_like(rows.top, dtype=torch.bool)
        scale = temperature if order == 1 else temperature * s  # w = (x / scale)^s
        reach = scale.expand_as(rows.top)

        goal = s * scale.log().expand_as(rows.top)

        def excess(tilt: _Tilt, goal: Tensor) -> Tensor:
            return goal - tilt.log_mean - tilt.log_top

    if order <= 2:
        anchor = rows.top
        guess = None
        if radius is None:  # where the mean weight is at most, at least 1
            lo, hi = reach, reach * (rows.count / rows.tied) ** (order - 1)
            slope, noise = -s, 4 * info.eps
        else:  # where only the largest score is left, and where the ball is not reached
            second = _lowest(rows.below, rows.work[0])
            second = second.minimum(rows.spread) * (0.01 if order == 1 else max(1.0, s / 100))
            lo, hi = second, (reach if order == 1 else reach + rows.spread).maximum(second)
            if order == 2:
                nearly = radius < TINY * info.eps
                guess, slope = _at_order_2(rows, radius, whole=bool(nearly.any()))
            else:
                (guess, nearly), slope = _nearly_uniform(rows, order, s, radius), -2.0
        lo, hi = (end.clamp(info.tiny, info.max / 4).log() for end in (lo, hi))
        log_t = lo
        if guess is not None:
            log_t = guess.clamp(info.tiny, info.max / 4).log()
            log_t = torch.where((log_t > lo) & (log_t < hi) | nearly, log_t, (lo + hi) / 2)
            noise = info.eps * (4 + 2 / floor)
            noise = torch.where(whole | spike | nearly, math.inf, noise)

        def excess_at(log_t: Tensor, rows: _Rows, goal: Tensor) -> Tensor:
            return excess(_tilt_from_top(rows, s, log_t.exp(), exact=False), goal)

        if order > 1 or radius is not None:
            given = rows, goal
            log_t = _root(excess_at, given, lo, hi, log_t, slope, noise, info.eps, steps)
        log_t = torch.where(whole, hi, torch.where(spike, math.log(info.tiny), log_t))
        tilt = _tilt_from_top(rows, s, log_t.exp(), exact=radius is None)
        x = torch.sub(log_t.exp(), rows.below, out=rows.work[1]).relu_()
        above = torch.sign(x, out=rows.work[2])
        if order == 1:
            valid = torch.ones_like(x) if rows.valid is None else rows.valid
            above = valid.lerp(above, spike.to(x.dtype))
        kept = _sum(above)
        power = tilt.power.mul_(above)
        log_dual = log_t if order == 1 else _lowest(x, above).log()
    else:
        down = -scores
        ascending = _ascending(down)

        def excess_at(log_count: Tensor, rows: _Rows, goal: Tensor, down: Tensor, reach: Tensor):
            place = _place(down, rows.count, reach, s, log_count.exp())
            return excess(_tilt_from_lowest(down, rows, place, s, exact), goal).double()

        count = rows.count.double()
        lo, hi = rows.tied.double().log(), count.log()
        if radius is None:
            exact, noise = False, 8 * info.eps
            start, slope = (0.7 * count).log(), -1.0
        else:
            # Where what is lost would show: expm1(D) is known to so many digits only.
            exact = bool((floor < TINY * info.eps).any())
            noise = 4 * info.eps if exact else info.eps * (8 + 4 / floor)
            noise = torch.where(whole | spike, math.inf, noise)
            # exact at order ∞, and close to it for normally distributed scores
            share = -torch.expm1(-floor.double())
            left = count * share ** order_conj(order)
            near = left < 1  # β is below all scores
            start = (count - torch.where(near, 0.5, left)).log()
            slope = torch.where(near, -4 * count, -1 / share)
        if order == math.inf:
            log_count = hi - radius
        else:
            log_count = start.clamp(lo, hi)
            given, close = (rows, goal, ascending, reach), info.eps / scores.shape[-1]
            log_count = _root(excess_at, given, lo, hi, log_count, slope, noise, close, steps)
        active = torch.where(whole, count, torch.where(spike, rows.tied / 2, log_count.exp()))
        place = _place(ascending, rows.count, reach, s, active)
        tilt = _tilt_from_lowest(down, rows, place, s)
        anchor, kept = -place.lowest, place.above + place.tied
        power = tilt.power.addcmul_((down == place.lowest).to(down.dtype), tilt.lowest)
        log_t = log_dual = place.log_gap + place.share.log() / s

    t = log_t.exp()
    weights = power.mul_(rows.count / tilt.total)
    value = rows.top - tilt.below
    if radius is None:  # E_Q f - λ·η(Q), second-order exact in the weights
        if order == 1:
            penalty = temperature * tilt.divergence
        else:
            power = tilt.divergence / s
            penalty = scale * power.expm1()
            if order > 2:  # (γ-1)·λ·E w^γ = E_Q (f - β) where the exponential loses digits
                direct = rows.top - anchor + t - scale - tilt.below
                penalty = torch.where(power < 1, penalty, direct)
            penalty = penalty / order
        value = value - penalty

    if order == 1:
        dual, truncated = torch.where(whole, math.inf, torch.where(spike, 0.0, t)), 0 * t
    else:
        dual = torch.where(whole, -math.inf, torch.where(spike, rows.top, anchor - t))
        truncated = 1 - kept / rows.count
    log_dual = torch.where(whole, math.inf, torch.where(spike, -math.inf, log_dual))
    if order == math.inf:  # any β from the next lower score up to this one would do
        dual, log_dual = anchor, torch.full_like(t, -math.inf)
    share = rows.count / _sum(torch.mul(weights, weights, out=rows.work[1]))
    columns = value, dual, log_dual, weights.amax(-1, keepdim=True), truncated, share
    value, dual, log_dual, k1, truncated, share = (column.squeeze(-1) for column in columns)
    return WorstCase(value, weights, dual, log_dual, k1, truncated, share)


def _solve_in_blocks(
    scores: Tensor, order: float, radius: Tensor | None, temperature: Tensor | None
) -> WorstCase:
    """On the CPU, solve as many rows at a time as the processor's cache holds."""
    shape = scores.shape
    flat = [
        None if x is None else x.reshape(-1, x.shape[-1]) for x in (scores, radius, temperature)
    ]
    many = max(1, BLOCK // shape[-1])
    if scores.device.type != "cpu" or len(flat[0]) <= many:
        value, weights, *rest = _solve(flat[0], order, *flat[1:])
    else:
        none = [None] * -(-len(flat[0]) // many)
        blocks = zip(*(none if x is None else x.split(many) for x in flat), strict=True)
        parts = [_solve(f, order, r, t) for f, r, t in blocks]
        value, weights, *rest = (torch.cat(field) for field in zip(*parts, strict=True))
    return WorstCase(
        value.reshape(shape[:-1]), weights.reshape(shape), *(x.reshape(shape[:-1]) for x in rest)
    )


@torch.library.custom_op("drrl::worst_case", mutates_args=())
def _opaque(
    scores: Tensor, order: float, radius: Tensor | None, temperature: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The solver as one node of a compiled graph: how long it goes on depends on the data."""
    return tuple(_solve_in_blocks(scores, order, radius, temperature))


@_opaque.register_fake
def _(scores, order, radius, temperature):
    value, *others = (scores.new_empty(scores.shape[:-1]) for _ in range(6))
    return value, torch.empty_like(scores, memory_format=torch.contiguous_format), *others


def _order(order: float) -> float:
    order = float(order)
    if not order >= 1:
        raise ValueError(f"order must lie in [1, inf], got {order}: use 1 for KL, inf for CVaR")
    return order


def _check(bad: Tensor, message: str) -> None:
    """Refuse rows marked bad. Looks at the data, which a graph being traced cannot."""
    if not torch.compiler.is_compiling() and bad.any():
        row = tuple(bad.nonzero()[0].tolist())
        raise ValueError(f"{message} (row {row[0] if len(row) == 1 else row})")


def _scores(scores: Tensor) -> Tensor:
    """The scores in at least float32, checked."""
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        raise ValueError("scores must be a floating-point tensor of shape (..., n)")
    if scores.dim() == 0 or scores.shape[-1] == 0:
        raise ValueError(f"scores must have shape (..., n) with n >= 1, got {tuple(scores.shape)}")
    top = scores.detach().amax(-1)  # not a number if any score is
    _check(top.isnan(), "scores must not be NaN; mask entries with -inf")
    _check(top == math.inf, "scores must be finite, or -inf where masked, got inf")
    _check(top == -math.inf, "scores must leave an entry unmasked (above -inf); drop the row")
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


def _column(value: float | Tensor, name: str, scores: Tensor) -> Tensor:
    """A number per row of the scores, as a column."""
    column = torch.as_tensor(value, dtype=scores.dtype, device=scores.device)
    leading = scores.shape[:-1]
    try:
        return column.expand(leading).unsqueeze(-1)
    except RuntimeError:
        raise ValueError(
            f"{name} must be a number or broadcast to shape {tuple(leading)}, one a row of "
            f"scores, got shape {tuple(column.shape)}"
        ) from None


def _radius(radius: float | Tensor, scores: Tensor) -> Tensor:
    column = _column(radius, "radius", scores)
    bad = ~((column >= 0) & column.isfinite()).squeeze(-1)
    _check(bad, "radius must lie in [0, inf) nats; 0 gives the plain mean")
    return column


def _temperature(temperature: float | Tensor, scores: Tensor) -> Tensor:
    column = _column(temperature, "temperature", scores)
    bad = ~((column > 0) & column.isfinite()).squeeze(-1)
    _check(bad, "temperature must lie in (0, inf), in units of the scores")
    return column


class _Envelope(torch.autograd.Function):
    """The value, with the gradient w / n in the scores."""

    @staticmethod
    def forward(ctx, scores: Tensor, value: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(weights)
        return value.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (weights,) = ctx.saved_tensors  # whose mean is 1, so that their sum is n
        return weights * (gradient / weights.sum(-1)).unsqueeze(-1), None, None


def worst_case(
    scores: Tensor,
    *,
    order: float,
    radius: float | Tensor | None = None,
    temperature: float | Tensor | None = None,
) -> WorstCase:
    """Worst-case mean of each row of scores over a Rényi ball, or with a Cressie–Read penalty.

    With a radius ρ, max of E_Q f over D_γ(Q‖P) <= ρ; with a temperature λ, max over Q of
    E_Q f - λ·η(Q), η = E[w^γ - 1] / (γ(γ-1)), which is KL at γ = 1. P is uniform on the unmasked
    entries. The weights are

        w_j ∝ (f_j - β)_+^(1/(γ-1)),    γ = 1: exp(f_j/τ),    γ = ∞: e^ρ above β, less at β.

    For ρ = 0 that is the mean; for ρ >= log(n/m), with m entries tied at the maximum, the maximum.
    `dual` is the β, or the τ, of these weights, for the penalty as for the ball. (Some write the
    penalty's dual as β + λ/(γ-1), so that E w = 1 is its optimality.) It is -inf, at order 1 inf,
    for ρ = 0, and the maximum, at order 1 zero, when that takes all the weight.

    Args:
        scores: (..., n) floating point, finite; -inf masks an entry. Unit: score. Half precision
            is computed, and returned, in float32.
        order: γ in [1, inf], dimensionless; a Python number. Finite with a temperature.
        radius: ρ in [0, inf), nats; a number or a tensor that broadcasts to the shape (...).
        temperature: λ in (0, inf), score; likewise. Exactly one of the two is given.

    Returns:
        A :class:`WorstCase`. The gradient of `value` in the scores is weights / n (envelope
        theorem), to first order only; all else is constant. At order 1 `truncated` is 0.

    Raises:
        ValueError: on bad values, naming the row. Values are not looked at under torch.compile.

    Source: Eq. 3–6 and 9–11 of 'Advancing Loss Functions in Recommender Systems', AAAI 2025.

    >>> worst = worst_case(torch.tensor([0.0, 1.0, 2.0, 3.0]), order=math.inf, radius=math.log(2))
    >>> worst.value.item(), worst.weights.tolist()
    (2.5, [0.0, 0.0, 2.0, 2.0])
    """
    order, f = _order(order), _scores(scores)
    if (radius is None) == (temperature is None):
        raise ValueError("give exactly one of radius (a ball, nats) and temperature (a penalty)")
    if temperature is not None and order == math.inf:
        raise ValueError("order must be finite with a temperature: order inf has a radius only")
    with torch.no_grad():
        if radius is not None:
            radius = _radius(radius, f)
        else:
            temperature = _temperature(temperature, f)
        solve = _opaque if torch.compiler.is_compiling() else _solve_in_blocks
        result = WorstCase(*solve(f.detach(), order, radius, temperature))
    if f.requires_grad:
        result = result._replace(value=_Envelope.apply(f, result.value, result.weights))
    return result


HOLDS = ("radius", "weight", "eta", "temperature")


@torch.no_grad()
def turn(
    scores: Tensor, *, order: float, radius: float | Tensor, hold: str = "radius"
) -> WorstCase:
    """The worst case at an order, when one measure of size stays what it is at order 2.

    "Turning the order" means nothing until it is said what stays. At order 2 the four agree:

    - "radius": ρ, the Rényi ball's;
    - "weight": c = e^(ρ/γ*). Towards order 1 the ball grows without bound: the maximum;
    - "eta": the Cressie–Read η. Towards order ∞ the ball shrinks to nothing: the mean;
    - "temperature": λ, the penalty's, of which each row has its own; at order ∞ the mean.

    Args:
        scores: (..., n) floating point, finite, -inf where masked. Unit: score.
        order: γ in [1, inf], dimensionless.
        radius: ρ in [0, inf), nats, of the ball at order 2; broadcasts to the shape (...).
        hold: one of HOLDS.

    Returns:
        A :class:`WorstCase`, without a gradient; of the penalty where its temperature is held.

    Raises:
        ValueError: another hold; bad values, as :func:`worst_case`.

    Source: c and η as in Eq. 9 and 10 of 'Advancing Loss Functions in Recommender Systems'.

    >>> f = torch.tensor([0.0, 1.0, 2.0, 3.0])
    >>> [turn(f, order=math.inf, radius=0.5, hold=hold).value.item() for hold in ("weight", "eta")]
    [1.926038146018982, 1.5]
    """
    if hold not in HOLDS:
        raise ValueError(f"hold must be one of {', '.join(HOLDS)}, not {hold!r}")
    order, f = _order(order), _scores(scores)
    rho = _radius(radius, f).squeeze(-1)
    if hold == "weight" and order == 1:  # the whole simplex, where all orders are alike
        rho, order = torch.where(rho > 0, math.inf, 0.0), math.inf
    elif hold == "weight":
        rho = rho / 2 * order_conj(order)
    elif hold == "eta":
        rho = radius_from_eta(eta_from_radius(rho, 2), order) if order < math.inf else 0 * rho
    elif hold == "temperature" and order == math.inf:
        rho = 0 * rho
    elif hold == "temperature":  # at order 2 the weights are (f - β)_+ / λ, of mean 1
        beta, info = worst_case(f, order=2, radius=rho).dual.unsqueeze(-1), torch.finfo(f.dtype)
        excess = (f - beta.clamp_min(-(info.max**0.25))).relu_()  # β is -inf at radius 0
        size = excess.sum(-1) / (f > -math.inf).sum(-1)
        return worst_case(f, order=order, temperature=size.clamp_min(info.tiny))
    return worst_case(f, order=order, radius=torch.nan_to_num(rho))  # inf: as large as can be


def dual_objective(
    scores: Tensor, dual: float | Tensor, *, order: float, radius: float | Tensor
) -> Tensor:
    """Upper bound of the ball's worst case, for any dual value; equal to it at the best one.

        γ > 1: β + e^(ρ/γ*)·(E (f-β)_+^γ*)^(1/γ*),    γ = 1: τρ + τ·log E exp(f/τ).

    Convex in the dual, and differentiable in it and in the scores (zero in these, where β is above
    them all). Its excess over ``worst_case(...).value`` is the duality gap of that dual value.

    Args:
        scores: (..., n) floating point, finite, -inf where masked. Unit: score.
        dual: β in [-inf, inf), or at order 1 τ in [0, inf]; score; broadcasts to the shape (...).
        order: γ in [1, inf], dimensionless; a Python number.
        radius: ρ in [0, inf), nats; broadcasts to the shape (...).

    Returns:
        (...) tensor; score.

    Raises:
        ValueError: on bad values, as :func:`worst_case`.

    Source: Eq. 10 of 'Advancing Loss Functions in Recommender Systems', AAAI 2025.

    >>> dual_objective(torch.tensor([0.0, 1.0, 2.0, 3.0]), 1.5, order=math.inf, radius=math.log(2))
    tensor(2.5000)
    """
    order, f = _order(order), _scores(scores)
    radius, dual = _radius(radius, f), _column(dual, "dual", f)
    valid = f.detach() > -math.inf
    count = valid.sum(-1, keepdim=True)
    top = f.detach().amax(-1, keepdim=True)
    below = torch.where(valid, top - f, 0)
    if order == 1:
        _check((~(dual >= 0)).squeeze(-1), "dual must lie in [0, inf], the temperature at order 1")
        unit, conjugate = dual, 1.0
        log_x, active = -below / torch.where(unit > 0, unit, 1), valid
    else:
        _check((~(dual < math.inf)).squeeze(-1), "dual must lie in [-inf, inf)")
        unit, conjugate = top - dual, 1.0 if order == math.inf else order / (order - 1)
        active = valid & (f.detach() > dual.detach())
        log_x = -conjugate * torch.log1p(below / torch.where(active, f - dual, 1))
    far = unit.isinf()
    mean_minus_1 = torch.where(active, log_x.expm1(), -valid.to(f.dtype)).sum(-1, keepdim=True)
    mean = torch.where(active, log_x.exp(), 0).sum(-1, keepdim=True)
    inside = unit > 0
    log_mean = _log_mean(torch.where(inside, mean / count, 1), mean_minus_1 / count)
    # max f + unit·(c·‖x‖ - 1) for x = (f-β)_+ / unit: nothing cancels where β is far away
    exponent = (radius if order == 1 else radius / conjugate) + log_mean / conjugate
    growth = exponent if order == 1 else exponent.expm1()
    bound = top + torch.where(inside & ~far, unit, 0) * growth
    bound = torch.where(inside, bound, top if order == 1 else dual)
    limit = top - below.sum(-1, keepdim=True) / count
    bound = torch.where(far, torch.where(radius > 0, math.inf, limit), bound)
    return bound.squeeze(-1)


def order_conj(order: float) -> float:
    """The conjugate order γ* = γ/(γ-1), in [1, inf]; dimensionless.

    >>> order_conj(2), order_conj(math.inf), order_conj(1)
    (2.0, 1.0, inf)
    """
    order = _order(order)
    if order == 1:
        return math.inf
    return 1.0 if order == math.inf else order / (order - 1)


def _number(value: float | Tensor, name: str, low: float, order: float):
    """Check a conversion's argument; return it, the order, and a module of functions for it."""
    if isinstance(value, Tensor):
        _check(~(value >= low), f"{name} must lie in [{low}, inf)")
        return value, _order(order), torch
    if not value >= low:
        raise ValueError(f"{name} must lie in [{low}, inf), got {value}")
    return float(value), _order(order), math


def weight_from_radius(radius: float | Tensor, order: float):
    """The weight c = exp(ρ/γ*) of a radius; number to number, tensor to tensor.

    Args:
        radius: ρ in [0, inf), nats.
        order: γ in [1, inf], dimensionless.

    Returns:
        c in [1, inf], dimensionless; 1 at order 1, e^ρ at order inf; inf where it overflows.

    Raises:
        ValueError: if an argument is out of range.

    Source: c_γ, Eq. 10 of 'Advancing Loss Functions in Recommender Systems', AAAI 2025, in nats.

    >>> round(weight_from_radius(1.0, 2), 4)
    1.6487
    """
    radius, order, lib = _number(radius, "radius", 0, order)
    try:
        return lib.exp(radius / order_conj(order))
    except OverflowError:
        return math.inf


def radius_from_weight(weight: float | Tensor, order: float):
    """The radius ρ = γ*·log c of a weight; number to number, tensor to tensor.

    Args:
        weight: c in [1, inf), dimensionless.
        order: γ in (1, inf], dimensionless.

    Returns:
        ρ in [0, inf), nats.

    Raises:
        ValueError: if an argument is out of range; at order 1, where c is 1 for every radius.

    Source: c_γ, Eq. 10 of 'Advancing Loss Functions in Recommender Systems', AAAI 2025, in nats.

    >>> round(radius_from_weight(1.5, math.inf), 4)
    0.4055
    """
    weight, order, lib = _number(weight, "weight", 1, order)
    if order == 1:
        raise ValueError("order must lie in (1, inf]: at order 1 the weight is 1 for every radius")
    return lib.log(weight) * order_conj(order)


def eta_from_radius(radius: float | Tensor, order: float):
    """The Cressie–Read radius η = (exp((γ-1)ρ) - 1) / (γ(γ-1)); at order 1, η = ρ.

    Args:
        radius: ρ in [0, inf), nats; number or tensor.
        order: γ in [1, inf), dimensionless.

    Returns:
        η in [0, inf], dimensionless; inf where it overflows.

    Raises:
        ValueError: if an argument is out of range; at order inf, where η does not exist.

    Source: Eq. 9 of 'Advancing Loss Functions in Recommender Systems', AAAI 2025.

    >>> round(eta_from_radius(1.0, 2), 4)
    0.8591
    """
    radius, order, lib = _number(radius, "radius", 0, order)
    if order == math.inf:
        raise ValueError("order must lie in [1, inf): eta does not exist at order inf")
    if order == 1:
        return radius
    try:
        return lib.expm1((order - 1) * radius) / (order * (order - 1))
    except OverflowError:
        return math.inf


def radius_from_eta(eta: float | Tensor, order: float):
    """The radius ρ = log(1 + γ(γ-1)η) / (γ-1) of a Cressie–Read radius; at order 1, ρ = η.

    Args:
        eta: η in [0, inf), dimensionless; number or tensor.
        order: γ in [1, inf), dimensionless.

    Returns:
        ρ in [0, inf), nats.

    Raises:
        ValueError: if an argument is out of range; at order inf, where η does not exist.

    Source: Eq. 9 and 10 of 'Advancing Loss Functions in Recommender Systems', AAAI 2025.

    >>> round(radius_from_eta(0.5, 2), 4)
    0.6931
    """
    eta, order, lib = _number(eta, "eta", 0, order)
    if order == math.inf:
        raise ValueError("order must lie in [1, inf): eta does not exist at order inf")
    return eta if order == 1 else lib.log1p(order * (order - 1) * eta) / (order - 1)


@torch.no_grad()
def radius_of_temperature(scores: Tensor, temperature: float | Tensor) -> Tensor:
    """The radius each row has under softmax loss: ρ = KL(Q_τ‖P), Q_τ ∝ exp(f/τ).

    Args:
        scores: (..., n) floating point, finite, -inf where masked. Unit: score.
        temperature: τ in (0, inf), score; broadcasts to the shape (...).

    Returns:
        (...) tensor in [0, log n]; nats.

    Raises:
        ValueError: on bad values, as :func:`worst_case`.

    Source: Eq. 5 and 8 of 'Advancing Loss Functions in Recommender Systems', AAAI 2025.

    >>> radius_of_temperature(torch.tensor([0.0, 1.0]), 1e-3)
    tensor(0.6931)
    """
    f = _scores(scores)
    rows, t = _read(f), _temperature(temperature, f)
    divergence = _tilt_from_top(rows, math.inf, t).divergence
    return divergence.clamp_min(0).squeeze(-1)


def breakdown_point(radius: float | Tensor):
    """The share e^-ρ of false negatives from which on a ball has nothing left to teach.

    Q uniform over a share ν of P is -log ν away from it, at every order. So from ν = e^-ρ on the
    worst case is at least the mean score of the false negatives. Where these are drawn from the
    user's own positives, that mean is in expectation the one the loss pulls up: whatever the
    scores, the user's expected loss is no less than scores that are all equal give. A β that is
    not the best makes it only larger, and scores all equal to β, where they can be, the least.

    The penalty of a fixed τ, as in SL, has no such point: at any ν < 1, false negatives that share
    one score above all others have a ball smaller than -log ν, and something is gained. Near order
    1 a β held far below all scores is such a penalty.

    Args:
        radius: ρ in [0, inf), nats; number or tensor.

    Returns:
        ν in (0, 1], share of the negatives; the same for every order.

    Raises:
        ValueError: if the radius is out of range.

    >>> round(breakdown_point(1.0), 3)
    0.368
    """
    radius, _, lib = _number(radius, "radius", 0, 1)
    return lib.exp(-radius)


@torch.no_grad()
def radius_of_margin(scores: Tensor, margin: float | Tensor, order: float) -> Tensor:
    """The radius each row has under a margin: ρ = D_γ(Q‖P), Q ∝ (f-β)_+^(1/(γ-1)).

    With x = (f-β)_+ it is γ*·log[(E x^γ*)^(1/γ) / E x^(γ*-1)]; at order inf, -log P(f > β).

    Args:
        scores: (..., n) floating point, finite, -inf where masked. Unit: score.
        margin: β, score; broadcasts to the shape (...).
        order: γ in (1, inf], dimensionless.

    Returns:
        (...) tensor in [0, log n], nats; NaN where no score exceeds the margin, as no weight is
        left.

    Raises:
        ValueError: on bad values, as :func:`worst_case`; at order 1, which has no margin.

    Source: Eq. 6 and 11 of 'Advancing Loss Functions in Recommender Systems', AAAI 2025.

    >>> radius_of_margin(torch.tensor([0.0, 1.0, 2.0, 3.0]), 1.5, math.inf)
    tensor(0.6931)
    """
    order, f = _order(order), _scores(scores)
    if order == 1:
        raise ValueError("order must lie in (1, inf]: order 1 has a temperature, not a margin")
    beta, top = _column(margin, "margin", f), f.amax(-1, keepdim=True)
    x = (f - beta).relu_()
    log_x = -torch.log1p((top - f).clamp_max_(torch.finfo(f.dtype).max) / x)
    log_x = log_x.masked_fill_(x == 0, -math.inf)
    s = 0.0 if order == math.inf else 1 / (order - 1)
    power = torch.where(x > 0, (s * log_x).exp(), 0)
    count = (f > -math.inf).sum(-1, keepdim=True)
    weights = power * (count / power.sum(-1, keepdim=True))
    return _divergence(weights, count, order).squeeze(-1)


def _divergence(weights: Tensor, count: Tensor, order: float) -> Tensor:
    """Rényi divergence of Q from P, from the weights of mean 1; a column."""
    if order == 1:
        divergence = torch.xlogy(weights, weights).sum(-1, keepdim=True) / count
    else:  # relative to the largest weight, so that no power overflows
        largest = weights.amax(-1, keepdim=True)
        divergence = largest.log()
        if order != math.inf:
            powers = ((order - 1) * (weights / largest).log()).expm1()
            mean = (weights * powers).sum(-1, keepdim=True) / count
            divergence = divergence + torch.log1p(mean) / (order - 1)
    return divergence.clamp_min(0)


def _count(weights: Tensor) -> Tensor:
    """The number of unmasked entries, which weights of mean 1 over them sum to; a column."""
    if not isinstance(weights, Tensor) or not weights.is_floating_point() or weights.dim() == 0:
        raise ValueError("weights must be a floating-point tensor of shape (..., n)")
    total, n = weights.sum(-1, keepdim=True), weights.shape[-1]
    bad = ~((weights >= 0).all(-1) & (total > 0.99).squeeze(-1) & (total < 1.01 * n).squeeze(-1))
    _check(bad, "weights must be >= 0 with mean 1 over the unmasked entries; divide by their mean")
    return total


@torch.no_grad()
def radius_of_weights(weights: Tensor, order: float) -> Tensor:
    """The radius of given weights: ρ = log(E w^γ) / (γ-1); order 1: E[w log w]; inf: log max w.

    Args:
        weights: (..., n), probability ratio, mean 1 over the unmasked entries and 0 at masked ones,
            as :func:`worst_case` returns them: their sum tells how many entries are unmasked.
        order: γ in [1, inf], dimensionless.

    Returns:
        (...) tensor in [0, log n]; nats.

    Raises:
        ValueError: if the weights are negative, NaN, or cannot have mean 1.

    Source: Eq. 5, 6 and 9 of 'Advancing Loss Functions in Recommender Systems', AAAI 2025.

    >>> radius_of_weights(torch.tensor([0.0, 2.0]), 2)
    tensor(0.6931)
    """
    order, count = _order(order), _count(weights)
    return _divergence(weights, count, order).squeeze(-1)


def k2(weights: Tensor, false_negatives: Tensor) -> Tensor:
    """Weight of the false negatives relative to the mean weight, per row.

        k2 = mean of w over the marked entries / mean of w over the unmasked entries (which is 1)

    Args:
        weights: (..., n), probability ratio, mean 1 over the unmasked entries and 0 at masked ones.
        false_negatives: (..., n) bool, True at unmasked entries that are really positives.

    Returns:
        (...) tensor, probability ratio; NaN where a row has none.

    Raises:
        ValueError: if the shapes differ, the marks are not bool, or weights cannot have mean 1.

    Source: Table 1 of 'Advancing Loss Functions in Recommender Systems', AAAI 2025.

    >>> k2(torch.tensor([0.5, 0.5, 2.0]), torch.tensor([False, True, True]))
    tensor(1.2500)
    """
    _count(weights)
    if false_negatives.dtype != torch.bool or false_negatives.shape != weights.shape:
        raise ValueError(
            f"false_negatives must be bool of shape {tuple(weights.shape)} like the weights, got "
            f"{false_negatives.dtype} of shape {tuple(false_negatives.shape)}"
        )
    return (weights * false_negatives).sum(-1) / false_negatives.sum(-1)
