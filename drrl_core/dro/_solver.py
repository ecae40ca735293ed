"""How the worst case of each row is found; what it is, `ball` tells.

The worst-case weights are w ∝ x^s with x = (f - β)_+ and s = 1/(γ-1), or exp(f/τ) at order 1.
Lowering β spreads them out, so that the divergence falls with it, and one root a row remains to be
found. Two things need care:

* up to order 2, β may lie very far away: everything is measured from the largest score;
* above order 2, β may lie so close below the lowest active score that the distance between them
  underflows although the weight it stands for does not: everything is measured from that score. It
  is found first, among the sorted ones, and the logarithm of the distance then.

Rows are scaled by powers of two, so that no unit of the scores is too small or too large. The last
step measures the divergence of the weights that are returned. A row in single precision for which
it is not the radius, or not surely so, is solved again in double precision.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._root import Remaining, root
from ._tilt import (
    Place,
    Rows,
    Tilt,
    Work,
    least_above_0,
    mean_below,
    read,
    scratch,
    tilt_from_lowest,
    tilt_from_top,
    total_of,
)

try:
    import numpy
except ImportError:  # torch does without, only its sort is slower
    numpy = None  # type: ignore[assignment]


BLOCK = 2**20  # scores solved at a time on a CPU: more leave its cache, fewer cost more calls
SAMPLE = 256  # scores of a row that a first guess is made from, about


class WorstCase(NamedTuple):
    """The worst case of each row, and what it looks like.

    Shapes: ``weights`` has the shape (..., n) of the scores, every other field the shape (...).
    """

    value: Tensor  # score; the only field with a gradient: w / n in f, the multiplier in the size
    weights: Tensor  # probability ratio dQ/dP; mean 1 under P, 0 at masked ones
    dual: Tensor  # score; the temperature τ at order 1, above it the threshold β: w > 0 iff f > β
    log_dual: Tensor  # log score; log τ, above order 1 log(lowest active score - β)
    k1: Tensor  # probability ratio; the largest weight (the mean weight is 1)
    truncated: Tensor  # share of P in [0, 1) whose weight is zero; order 1 truncates nothing
    effective_share: Tensor  # share in (0, 1]; 1 / mean(w²) under P


class Found(NamedTuple):
    """The weights of each row up to a factor, and where they end; (..., 1) columns but `power`."""

    tilt: Tilt
    power: Tensor  # (..., n) proportional to the weights, by mass
    anchor: Tensor  # distance from the largest score to the one that `log_t` is measured from
    log_t: Tensor  # log of the distance from there to β; log τ at order 1
    log_dual: Tensor  # log of the distance from the lowest active score to β; log τ at order 1
    kept: Tensor  # entries with a weight, by their mass
    sure: Tensor  # whether a series gave the answer to all digits
    sound: bool | Tensor = True  # whether nothing underflowed


class Dial(NamedTuple):
    """The size that is asked for; (..., 1) columns, and how far a tilt is from it."""

    order: float
    s: float  # 1 / (γ-1)
    ball: bool
    size: Tensor  # nats; for the penalty its temperature λ, at order 1, or s·λ: w = (x / (s·λ))^s
    goal: Tensor  # what the measure below should be
    whole: Tensor  # the mean is asked for
    spike: Tensor  # the maximum is asked for

    def excess(self, divergence: Tensor, log_mean: Tensor, log_top: Tensor, goal: Tensor) -> Tensor:
        """Positive where β is too high, or τ too low; falls as β does."""
        if not self.ball:
            return goal - log_mean - log_top
        # exp(D) - 1 is a power of the distance to β, nearly, both far away and close by
        return divergence.clamp_min(torch.finfo(goal.dtype).tiny).expm1_().log_().sub_(goal)


def _nearly_uniform(rows: Rows, dial: Dial, work: Work) -> tuple[Tensor, Tensor]:
    """Distance from the largest score to β (at order 1, τ), by a series in √ρ; where it is exact.

    With w ∝ (1 + (γ-1)θ(f - mean))^s, D is a series in θ and the central moments of the row.
    """
    order, radius = dial.order, dial.size
    mean = mean_below(rows)
    g = torch.sub(mean, rows.below, out=work[0])
    if rows.valid is not None:
        g.mul_(rows.valid if rows.mass is None else rows.mass.sign())
    square = torch.mul(g, g, out=work[1])
    held = square if rows.mass is None else square * rows.mass
    m2, m3 = total_of(held) / rows.count, total_of(g.mul_(held)) / rows.count
    m4 = total_of(square.mul_(held)) / rows.count
    a = order - 1
    first = (2 * radius / (order * m2)).sqrt()
    cubic = 2 * (1 - a) / 3 * m3 / m2
    quartic = ((1 - a) * (1 - 2 * a) * m4 / m2 - (3 - a) * m2) / 4
    factor = 1 - cubic * first / 2 + (5 / 8 * cubic**2 - quartic / 2) * first**2
    nearly = first * rows.spread * max(1, a) < (20 * torch.finfo(m2.dtype).eps) ** 0.2
    factor = torch.where(nearly, factor, 1 / (1 + cubic * first / 2).clamp(0.5, 2))
    if order > 1:
        full = (2 * (a * radius).clamp_max(60).expm1() / (a * order * m2)).sqrt()
        first = torch.where(nearly, first, full)
    theta = first * factor
    return (1 / theta if order == 1 else mean + dial.s / theta), nearly


def _at_order_2(rows: Rows, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Distance t from the largest score to β, in closed form: a quadratic for each active set.

    With weights ∝ t - b over the k smallest distances b, E w² = n/k·(1 + var/(t - mean)²) = e^ρ,
    so that (t - mean)² is var over an excess of e^ρ·k/n - 1. Of many scores that is the answer for
    a sample of a few hundred: a first guess. With it, the slope of log(e^D - 1) there in log t.
    """
    stride = max(1, rows.below.shape[-1] // SAMPLE)
    below, count = rows.below[..., ::stride], rows.count
    if rows.valid is not None:
        count = total_of(rows.valid[..., ::stride]).clamp_min(1)
    elif stride > 1:
        count = torch.full_like(count, below.shape[-1])
    below = _ascending(below)
    if rows.valid is not None:  # masked ones come last, and are not looked at
        below = torch.minimum(below, rows.spread)
    k = torch.arange(1, below.shape[-1] + 1, dtype=below.dtype, device=below.device)
    mean = below.cumsum(-1).div_(k)
    variance = (below * below).cumsum(-1).div_(k).addcmul_(mean, mean, value=-1).clamp_min_(0)
    excess = (k / count).sub_(1).mul_(radius.exp()).add_(radius.expm1())
    # The next score is active too if the k above it are not spread out enough with β at it.
    apart = (below[..., 1:] - mean[..., :-1]).square_().mul_(excess[..., :-1])
    apart.sub_(variance[..., :-1]).neg_().sign_().add_(1).clamp_max_(1)
    last = torch.minimum(total_of(apart), count - 1)
    mean, variance, excess = (x.gather(-1, last.long()) for x in (mean, variance, excess))
    above = (variance / excess).sqrt()  # t - mean
    return mean + above, -2 * (mean + above) / above * excess / (excess + 1 - (last + 1) / count)


def _ascending(x: Tensor) -> Tensor:
    """Each row sorted. NumPy does that ten times as fast on a CPU, without the indices."""
    if x.device.type != "cpu" or numpy is None:
        return x.sort(-1).values
    x = x.clone(memory_format=torch.contiguous_format)
    x.numpy().sort(-1)
    return x


def _up_to_2(rows: Rows, dial: Dial, steps: int, work: Work) -> Found:
    """The weights at orders in [1, 2]; the unknown is log t, the distance to β, or log τ."""
    order, s, size = dial.order, dial.s, dial.size
    info = torch.finfo(size.dtype)
    nearly, noise = dial.whole, torch.full_like(size, 64 * info.eps)
    slope: float | Tensor = -s
    if not dial.ball and order == 1:
        lo = hi = guess = size
    elif not dial.ball:  # the mean weight is at most 1, at least 1 (by Jensen, or of the tied)
        mean = mean_below(rows)
        lo, hi = size, torch.minimum(mean + size, size * (rows.count / rows.tied) ** (order - 1))
        guess = (lo * hi).sqrt()
    else:  # where only the largest score is left, and where the ball is not reached
        floor = size.clamp_min(info.tiny)
        lo = rows.second.minimum(rows.spread) * (0.01 if order == 1 else max(1.0, s / 100))
        if rows.mass is not None:  # however little of P is at the top
            lo = lo / (1 + (rows.count / rows.tied).log() / 100)
        # since D <= γ·L²/8 if log w has range L
        reach = rows.spread * math.sqrt((1 if order == 1 else s * (s + 1)) / 8) / floor.sqrt()
        hi = (reach if order == 1 else reach + rows.spread).maximum(lo)
        guess, nearly = _nearly_uniform(rows, dial, work)
        slope = -2.0
        if order == 2 and rows.mass is None:
            closed, slope = _at_order_2(rows, size)
            guess = torch.where(nearly, guess, closed)
        noise = torch.where(nearly | dial.whole | dial.spike, math.inf, info.eps * (64 + 2 / floor))
    lo, hi, log_t = (x.clamp(info.tiny, info.max / 8).log() for x in (lo, hi, guess))
    if dial.ball or order > 1:
        log_t = torch.where((log_t >= lo) & (log_t <= hi) | nearly, log_t, (lo + hi) / 2)

        def excess(log_t: Tensor, rows: Rows, goal: Tensor) -> Tensor:
            tilt = tilt_from_top(rows, s, log_t.exp(), work)
            return dial.excess(tilt.divergence, tilt.log_mean, tilt.log_top, goal)

        log_t = root(excess, (rows, dial.goal), lo, hi, log_t, slope, noise, steps)
    log_t = torch.where(dial.whole, math.log(info.max / 8), log_t)
    log_t = torch.where(dial.spike, math.log(info.tiny), log_t)
    tilt = tilt_from_top(rows, s, log_t.exp(), work, exact=not dial.ball)
    power, log_dual = tilt.power, log_t
    if order == 1:
        kept = rows.count  # but for the maximum, where the tilt underflows
        power.mul_(torch.eq(rows.below, 0, out=work[1]).add_(~dial.spike).clamp_max_(1))
    else:
        x = torch.sub(log_t.exp(), rows.below, out=work[1]).relu_()
        log_dual = least_above_0(x, work[2]).log()
        torch.sign(x, out=x)
        power.mul_(x)
        kept = total_of(x if rows.mass is None else x.mul_(rows.mass))
    return Found(tilt, power, torch.zeros_like(log_t), log_t, log_dual, kept, nearly)


def _locate(
    down: Tensor,
    mass: Tensor | None,
    rows: Rows,
    entries: Tensor,
    tied: Tensor,
    unit: Tensor,
    dial: Dial,
    start: Tensor,
    work: Work,
) -> tuple[Tensor, Tensor, Tensor]:
    """How many scores are active, and the excess with β at the lowest of them, and at the next.

    `down` ascends, `mass` in its order; of the `entries`, `tied` are largest. The next after the
    last lies a `unit` below it, and one more than there are is said to be active where β is lower
    still. The secant through the last two looks, every second time bisection.
    """
    s, tiny = dial.s, torch.finfo(down.dtype).tiny
    lo, hi = tied - 1, entries + 1
    at_lo, at_hi = torch.full_like(lo, math.inf), torch.full_like(lo, -math.inf)
    k = torch.minimum(torch.maximum(start.ceil(), tied), entries)
    rest = Remaining(lo, at_lo, at_hi)
    count, goal, size = rows.count, dial.goal, dial.size
    k1 = y1 = k
    for step in range(5 + 2 * down.shape[-1].bit_length()):
        x, power, mask = (w[: len(k)] for w in work)
        beta = down.gather(-1, torch.minimum(k, entries - 1).long()) + (k == entries) * unit
        torch.sub(beta, down, out=x).relu_()
        torch.sign(x, out=mask)
        if mass is not None:
            mask.mul_(mass)
        torch.clamp_min(x, tiny, out=power).log_().mul_(s).exp_().mul_(mask)
        total = total_of(power)
        log_mean = (total / count).log()
        y = goal - log_mean
        if dial.ball:
            y = s * (total_of(x.mul_(power)) / total).log() - log_mean - size
        right = y > 0
        lo, at_lo = torch.where(right, k, lo), torch.where(right, y, at_lo)
        hi, at_hi = torch.where(right, hi, k), torch.where(right, at_hi, y)
        rise = y * (k / k1).log() / (y1 - y) if step else y.clamp(-2, 2)
        k1, y1, k = k, y, ((lo + hi) / 2).floor()
        if step < 4 or step % 2:
            target = (k1 * rise.exp()).round()
            target = torch.where(target == target, target, k)  # it may be no number
            k = torch.minimum(torch.maximum(target, lo + 1), hi - 1)
        k = torch.maximum(k, tied)
        done = hi - lo <= 1
        state: Any = down, mass, entries, lo, hi, at_lo, at_hi, k, k1, y1, count, tied, unit
        state = *state, goal, size, done
        state = rest.drop(done, (lo, at_lo, at_hi), state, step)
        if state is None:
            break
        down, mass, entries, lo, hi, at_lo, at_hi, k, k1, y1, count, tied, unit, *others = state
        goal, size, done = others
    found = rest.found if state is None else rest.all(lo, at_lo, at_hi)
    lo, at_lo, at_hi = found.split(1, -1)
    return lo + 1, at_lo, at_hi


def _above_2(scores: Tensor, rows: Rows, dial: Dial, steps: int, work: Work) -> Found:
    """The weights at orders above 2; the unknown is the distance of β to the lowest active score.

    Within reach of the next lower score that is a power of the unknown, so chosen that the
    divergence is nearly linear in it; further down, an exponential.
    """
    s, size, info = dial.s, dial.size, torch.finfo(scores.dtype)
    down = torch.div(scores, -rows.scale)
    unit = torch.where(rows.spread > 0, rows.spread, 1)
    ordered, mass, entries, tied = _ascending(down), None, rows.count, rows.tied
    if rows.mass is not None:
        ordered, places = down.sort(-1)
        mass = rows.mass.gather(-1, places)
        entries, tied = total_of(rows.mass.sign()), total_of((ordered == ordered[..., :1]).to(size))
    floor = size.clamp_min(info.tiny)
    # exact at order ∞, and close to it for normally distributed scores
    share = -torch.expm1(-floor) if dial.ball else torch.full_like(size, 0.3)
    start = rows.count * (1 - share ** (1 + s))
    if dial.s < info.eps:  # order ∞
        exact = rows.count.double() * (-size.double()).exp()
        at_lo = at_hi = size
        if mass is None:
            active = exact.ceil().to(size.dtype)
        else:
            active = (torch.searchsorted(mass.double().cumsum(-1), exact) + 1).to(size.dtype)
    else:
        how = ordered, mass, rows, entries, tied, unit, dial, start, work
        active, at_lo, at_hi = _locate(*how)
    active = torch.where(dial.whole, entries + 1, active.maximum(tied))
    active = torch.where(dial.spike, tied, active)
    far = active > entries
    active = active.minimum(entries)

    place, at_lowest, least = _place(ordered, down, rows.mass, active, entries, unit, work)
    nearly = torch.zeros_like(dial.whole)
    if dial.s < info.eps:
        share = ((exact - place.above) / place.tied).clamp(info.tiny, 1)
        log_t = place.gap.log() + share.log().to(size.dtype) / s
    else:
        log_t, nearly = _distance(rows, dial, place, far, at_lo, at_hi, steps, work)
    log_t = torch.where(dial.whole, math.log(info.max / 8), log_t)
    log_t = torch.where(dial.spike & dial.ball, 0, log_t)
    tilt = tilt_from_lowest(place, rows.count, s, log_t, work, exact=not dial.ball)
    power = tilt.power.addcmul_(at_lowest, tilt.lowest)  # type: ignore[arg-type]
    sound = (place.above == 0) | (least >= 4 * info.tiny * (place.depth + log_t.exp()))
    kept = place.above + place.tied
    return Found(tilt, power, place.depth, log_t, log_t, kept, nearly, sound)


def _place(
    ordered: Tensor,
    down: Tensor,
    mass: Tensor | None,
    active: Tensor,
    entries: Tensor,
    unit: Tensor,
    work: Work,
) -> tuple[Place, Tensor, Tensor]:
    """Where the lowest of the active scores lies; the mass of those equal to it, (..., n).

    Last, the least x that is not accounted for apart: further down, numbers lose their digits.
    """
    lowest = ordered.gather(-1, active.long() - 1)
    before = torch.searchsorted(ordered, lowest)
    upto = torch.searchsorted(ordered, lowest, right=True)
    gap = ordered.gather(-1, upto.clamp_max(down.shape[-1] - 1)) - lowest
    gap = torch.where(upto < entries, gap, unit).clamp_min(torch.finfo(down.dtype).tiny)
    base = torch.sub(lowest, down).relu_()
    at_lowest, above, mask = torch.eq(down, lowest, out=work[2]), before.to(down.dtype), base.sign()
    tied = upto - above
    if mass is not None:
        at_lowest.mul_(mass)
        above, tied = total_of(mask.mul_(mass)), total_of(at_lowest)
    place = Place(lowest - ordered[..., :1], gap, above, tied, base, mask)
    return place, at_lowest, lowest - ordered.gather(-1, (before - 1).clamp_min(0))


def _near(place: Place, at_lo: Tensor, at_hi: Tensor, s: float) -> tuple[Tensor, ...]:
    """A first guess of the unknown above the next lower score, the slope there, and `bend`.

    With the distance share^(1/s) of what it can be, the lowest score counts by its `share`; what
    that does to the scores above it is about bend·share^(1/s) as much. The unknown is the larger.
    """
    tiny = torch.finfo(at_lo.dtype).tiny
    bend = place.above * (place.gap / (place.depth + place.gap)).pow(1 - s) * (s / (1 + s) ** 2)
    bend = bend.clamp_min(tiny)
    known = at_lo.isfinite() & at_hi.isfinite()
    part = torch.where(known, at_lo / (at_lo - at_hi), 0.5).nan_to_num(0.5) * (1 + bend)
    share = torch.minimum(part, (part / bend).pow(s)).clamp(tiny, 1)
    for _ in range(2):  # of Newton's, on share + bend·share^(1/s) = part, a convex function
        curve = bend * share.pow(1 / s)
        share = share - (share + curve - part) / (1 + curve / (s * share))
    share = share.clamp(tiny, 1)
    guess = torch.maximum(share, bend * share.pow(1 / s))
    return guess, torch.where(known, (at_hi - at_lo) / (1 + bend), -1.0), bend


def _distance(
    rows: Rows,
    dial: Dial,
    place: Place,
    far: Tensor,
    at_lo: Tensor,
    at_hi: Tensor,
    steps: int,
    work: Work,
) -> tuple[Tensor, Tensor]:
    """Log of the distance from the lowest active score to β; where a series gave all its digits."""
    s, size, info = dial.s, dial.size, torch.finfo(at_lo.dtype)
    nearly, noise, reach = torch.zeros_like(far), torch.full_like(size, 64 * info.eps), size
    near = place if rows.mass is None else place._replace(above=place.above / place.tied)
    guess, slope, bend = _near(near, at_lo, at_hi, s)
    lo, hi = torch.full_like(guess, info.tiny), bend.clamp_min(1)
    if dial.ball:
        floor = size.clamp_min(info.tiny)
        noise = info.eps * (64 + 4 / floor)
        slope = slope / -torch.expm1(-floor)
        # since D <= γ·L²/8 if log w has range L
        reach = rows.spread * math.sqrt(s * (s + 1) / 8) / floor.sqrt()
    if far.device.type != "cpu" or far.any():  # there the unknown is the logarithm
        if dial.ball:
            first, nearly = _nearly_uniform(rows, dial, work)
            nearly &= far
        else:
            first = size + mean_below(rows)
        lo = torch.where(far, place.gap.log(), lo)
        hi = torch.where(far, reach.maximum(2 * place.gap).log(), hi)
        first = torch.log((first - place.depth).maximum(place.gap))
        guess = torch.where(far, first, guess)
        slope = torch.where(far, -2.0 if dial.ball else -s, slope)
    noise = torch.where(nearly | dial.whole | dial.spike, math.inf, noise)
    guess = torch.where(nearly, guess, torch.minimum(torch.maximum(guess, lo), hi))

    def log_distance(u: Tensor, log_gap: Tensor, log_bend: Tensor, far: Tensor) -> Tensor:
        near = u.log()
        return torch.where(far, u, log_gap + torch.minimum(near / s, near - log_bend))

    def excess(u: Tensor, place: Place, count: Tensor, goal: Tensor, *how: Tensor) -> Tensor:
        tilt = tilt_from_lowest(place, count, s, log_distance(u, *how), work)
        return dial.excess(tilt.divergence, tilt.log_mean, tilt.log_top, goal)

    how = place.gap.log(), bend.log(), far
    u = root(excess, (place, rows.count, dial.goal, *how), lo, hi, guess, slope, noise, steps)
    return log_distance(u, *how), nearly


def _solve(
    scores: Tensor, size: Tensor, mass: Tensor | None, order: float, ball: bool
) -> tuple[WorstCase, Tensor]:
    """The worst case of each row of a matrix, its weights by mass; whether it is surely right."""
    info = torch.finfo(scores.dtype)
    work = scratch(scores)
    rows = read(scores, mass, work)
    # At order ∞, s = 0 would turn the truncated x = 0 into 0^0; a very small s > 0 does not.
    s = math.inf if order == 1 else max(1 / (order - 1), info.eps**2)
    # Rows that need more are few; in double precision there is nobody to hand them on to.
    steps = 200 if info.bits == 64 else 24
    if ball:
        whole, spike = size <= 0, size >= torch.log(rows.count / rows.tied)
        goal = size.clamp(info.tiny, 60).expm1().log()
        goal = torch.where(spike, math.inf, goal)
    else:
        whole = spike = torch.zeros_like(rows.top, dtype=torch.bool)
        size = (size / rows.scale) * (1 if order == 1 else s)
        goal = s * size.log() if order > 1 else size
    dial = Dial(order, s, ball, size, goal, whole, spike)
    if order <= 2:
        found = _up_to_2(rows, dial, steps, work)
    else:
        found = _above_2(scores, rows, dial, steps, work)
    return _described(rows, dial, found, work)


def _described(rows: Rows, dial: Dial, found: Found, work: Work) -> tuple[WorstCase, Tensor]:
    """The worst case in the scores' own unit, from weights known up to a factor."""
    tilt, order, s, t = found.tilt, dial.order, dial.s, found.log_t.exp()
    weights = found.power.mul_(rows.count / tilt.total)
    value, excess = -tilt.below, tilt.divergence - dial.size
    if not dial.ball:  # E_Q f - λ·η(Q), second-order exact in the weights
        excess = 0 * t if order == 1 else tilt.log_mean + tilt.log_top - dial.goal
        penalty = dial.size * tilt.divergence
        if order > 1:
            power = tilt.divergence / s
            # (γ-1)·λ·E w^γ = E_Q (f - β), but for what the mean of w is off, overflows less
            far = tilt.x * (-excess / s).exp() - dial.size
            penalty = torch.where(power < 1, dial.size * power.expm1(), far) / order
        value = value - penalty
    whole, spike = dial.whole, dial.spike
    if order == 1:
        dual = torch.where(whole, math.inf, torch.where(spike, 0.0, t * rows.scale))
        truncated = 0 * t
    else:
        dual = rows.top - (found.anchor + t) * rows.scale
        dual = torch.where(whole, -math.inf, torch.where(spike, rows.top, dual))
        truncated = 1 - found.kept / rows.count
    log_dual = found.log_dual + rows.scale.log()
    log_dual = torch.where(whole, math.inf, torch.where(spike, -math.inf, log_dual))
    if order == math.inf:  # any β from the next lower score up to this one would do
        dual, log_dual = rows.top - found.anchor * rows.scale, torch.full_like(t, -math.inf)
    ratio = ratio_of(weights, rows.mass)
    share = rows.count / total_of(torch.mul(weights, ratio, out=work[1]))
    value = rows.top + value * rows.scale
    columns = value, dual, log_dual, ratio.amax(-1, keepdim=True), truncated, share
    value, dual, log_dual, k1, truncated, share = (column.squeeze(-1) for column in columns)
    sure = _sure(rows, dial, found, excess)
    return WorstCase(value, weights, dual, log_dual, k1, truncated, share), sure.squeeze(-1)


def _sure(rows: Rows, dial: Dial, found: Found, excess: Tensor) -> Tensor:
    """Whether the weights are the ones of the size asked for, to what single precision can hold."""
    sound = found.sound & (rows.second >= 4 * torch.finfo(excess.dtype).tiny)
    if not dial.ball:
        return (excess.abs() <= 1e-4) & sound
    error, floor = excess.abs() + 4 * torch.finfo(excess.dtype).eps, dial.size
    # The value's derivative in the radius is (value - β)/γ*, and τ; a radius of next to nothing
    # moves the weights by its root.
    slope = found.tilt.x / (1 if dial.order == 1 else dial.s + 1)
    largest = torch.maximum(
        rows.top.abs() / rows.scale, (rows.top / rows.scale - rows.spread).abs()
    )
    right = (error <= 1e-4 * (10 * floor.sqrt()).clamp_max(1)) & (slope * error <= 1e-5 * largest)
    right &= found.tilt.x > torch.finfo(error.dtype).tiny ** 0.6  # no product underflows
    if dial.order == math.inf:  # nothing had to be found
        right = torch.ones_like(right)
    return (right | found.sure | dial.whole | dial.spike) & sound


def ratio_of(weights: Tensor, mass: Tensor | None) -> Tensor:
    """dQ/dP of weights that are by mass; zero where there is none."""
    return weights if mass is None else torch.where(mass > 0, weights / mass, 0)


def solve(scores: Tensor, size: Tensor, mass: Tensor | None, order: float, ball: bool) -> WorstCase:
    """The worst case of each row; its weights are Q_j over the mean P_j, so dQ/dP by mass.

    Args:
        scores: (..., n) of single or double precision, checked.
        size: (..., 1); ρ of the ball, λ of the penalty.
        mass: (..., n) P, of mean 1 over the unmasked entries, 0 at the masked; None if uniform.
        order: γ in [1, inf].
    """
    shape = scores.shape
    scores, size = scores.reshape(-1, shape[-1]), size.expand(*shape[:-1], 1).reshape(-1, 1)
    mass = None if mass is None else mass.expand(shape).reshape(-1, shape[-1])
    many = max(1, BLOCK // shape[-1]) if scores.device.type == "cpu" else max(1, len(scores))
    sizes = size.split(many)
    masses = [None] * len(sizes) if mass is None else mass.split(many)
    parts = [
        _surely(*part, order, ball) for part in zip(scores.split(many), sizes, masses, strict=True)
    ]
    value, weights, *others = (
        parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
    )
    rest = (x.reshape(shape[:-1]) for x in others)
    return WorstCase(value.reshape(shape[:-1]), weights.reshape(shape), *rest)


def _surely(
    scores: Tensor, size: Tensor, mass: Tensor | None, order: float, ball: bool
) -> WorstCase:
    """In the scores' own precision where that does, else in double precision."""
    result, sure = _solve(scores, size, mass, order, ball)
    if scores.dtype != torch.float64 and not sure.all():
        rows = (~sure).nonzero().squeeze(-1)
        mass = None if mass is None else mass[rows].double()
        again, _ = _solve(scores[rows].double(), size[rows].double(), mass, order, ball)
        for mine, better in zip(result, again, strict=True):
            mine.index_copy_(0, rows, better.to(mine.dtype))
    return result
