"""The sizes of a ball in their units, and the size of what one already has."""

import math
from typing import Any, TypeVar

import torch
from torch import Tensor

from ._inputs import (
    check,
    check_mass,
    check_order,
    check_scores,
    check_size,
    column_of,
    mass_of,
    shaped,
)
from ._tilt import read, scratch, tilt_from_top

Number = TypeVar("Number", float, Tensor)  # number to number, tensor to tensor


def order_conj(order: float) -> float:
    """The conjugate order γ* = γ/(γ-1), in [1, inf]; dimensionless.

    >>> order_conj(2), order_conj(math.inf), order_conj(1)
    (2.0, 1.0, inf)
    """
    order = check_order(order)
    if order == 1:
        return math.inf
    return 1.0 if order == math.inf else order / (order - 1)


def _number(value: float | Tensor, name: str, low: float, order: float) -> tuple[Any, float, Any]:
    """Check a conversion's argument; return it, the order, and a module of functions for it."""
    if isinstance(value, Tensor):
        check(~(value >= low), f"{name} must lie in [{low}, inf)")
        return value, check_order(order), torch
    if not value >= low:
        raise ValueError(f"{name} must lie in [{low}, inf), got {value}")
    return float(value), check_order(order), math


def weight_from_radius(radius: Number, order: float) -> Number:
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
    except OverflowError:  # of a number
        return math.inf  # type: ignore[return-value]


def radius_from_weight(weight: Number, order: float) -> Number:
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


def eta_from_radius(radius: Number, order: float) -> Number:
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
    except OverflowError:  # of a number
        return math.inf  # type: ignore[return-value]


def radius_from_eta(eta: Number, order: float) -> Number:
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
def radius_of_temperature(
    scores: Tensor, temperature: float | Tensor, *, prior: Tensor | None = None
) -> Tensor:
    """The radius each row has under softmax loss: ρ = KL(Q_τ‖P), Q_τ ∝ P·exp(f/τ).

    Args:
        scores: (..., n) floating point, finite, -inf where masked. Unit: score.
        temperature: τ in (0, inf), score; broadcasts to the shape (...).
        prior: P, as in :func:`worst_case`; None is uniform.

    Returns:
        (...) tensor in [0, log n], with a prior in [0, -log min P]; nats.

    Raises:
        ValueError: on bad values, as :func:`worst_case`.

    Source: Eq. 5 and 8 of 'Advancing Loss Functions in Recommender Systems', AAAI 2025.

    >>> radius_of_temperature(torch.tensor([0.0, 1.0]), 1e-3)
    tensor(0.6931)
    """
    f, mass = shaped(scores), None
    if prior is not None:
        mass, f = mass_of(prior, f)
        check_mass(mass)
    f = check_scores(f)
    work, t = scratch(f), column_of(temperature, "temperature", f)
    check_size(t, ball=False)
    rows = read(f, mass, work)
    divergence = tilt_from_top(rows, math.inf, t / rows.scale, work, exact=True).divergence
    return divergence.clamp_min(0).squeeze(-1)


def breakdown_point(radius: Number) -> Number:
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
    order, f = check_order(order), check_scores(scores)
    if order == 1:
        raise ValueError("order must lie in (1, inf]: order 1 has a temperature, not a margin")
    beta, top = column_of(margin, "margin", f), f.amax(-1, keepdim=True)
    x = (f - beta).relu_()
    log_x = -torch.log1p((top - f).clamp_max_(torch.finfo(f.dtype).max) / x)
    log_x = log_x.masked_fill_(x == 0, -math.inf)
    s = 0.0 if order == math.inf else 1 / (order - 1)
    power = torch.where(x > 0, (s * log_x).exp(), 0)
    count = (f > -math.inf).sum(-1, keepdim=True)
    weights = power * (count / power.sum(-1, keepdim=True))
    return _divergence(weights, weights, count, order).squeeze(-1)


def _divergence(weights: Tensor, by_mass: Tensor, count: Tensor, order: float) -> Tensor:
    """Rényi divergence of Q from P, from the weights of mean 1, and these by mass; a column."""
    if order == 1:
        divergence = torch.xlogy(by_mass, weights).sum(-1, keepdim=True) / count
    else:  # relative to the largest weight, so that no power overflows
        largest = weights.amax(-1, keepdim=True)
        divergence = largest.log()
        if order != math.inf:
            powers = ((order - 1) * (weights / largest).log()).expm1()
            mean = (by_mass * powers).sum(-1, keepdim=True) / count
            divergence = divergence + torch.log1p(mean) / (order - 1)
    return divergence.clamp_min(0)


def _count(weights: Tensor) -> Tensor:
    """The number of unmasked entries, which weights of mean 1 over them sum to; a column."""
    if not isinstance(weights, Tensor) or not weights.is_floating_point() or weights.dim() == 0:
        raise ValueError("weights must be a floating-point tensor of shape (..., n)")
    total, n = weights.sum(-1, keepdim=True), weights.shape[-1]
    bad = ~((weights >= 0).all(-1) & (total > 0.99).squeeze(-1) & (total < 1.01 * n).squeeze(-1))
    check(bad, "weights must be >= 0 with mean 1 over the unmasked entries; divide by their mean")
    return total


@torch.no_grad()
def radius_of_weights(weights: Tensor, order: float, *, prior: Tensor | None = None) -> Tensor:
    """The radius of given weights: ρ = log(E w^γ) / (γ-1); order 1: E[w log w]; inf: log max w.

    Args:
        weights: (..., n), probability ratio, mean 1 over the unmasked entries and 0 at masked ones,
            as :func:`worst_case` returns them: their sum tells how many entries are unmasked.
        order: γ in [1, inf], dimensionless.
        prior: P, 0 at masked entries, as in :func:`worst_case`; None is uniform.

    Returns:
        (...) tensor in [0, log n], with a prior in [0, -log min P]; nats.

    Raises:
        ValueError: if the weights are negative, NaN, or cannot have mean 1.

    Source: Eq. 5, 6 and 9 of 'Advancing Loss Functions in Recommender Systems', AAAI 2025.

    >>> radius_of_weights(torch.tensor([0.0, 2.0]), 2)
    tensor(0.6931)
    """
    order, by_mass = check_order(order), weights
    if prior is not None:
        mass, _ = mass_of(prior, torch.zeros_like(weights))
        check_mass(mass)
        by_mass = weights * mass
    return _divergence(weights, by_mass, _count(by_mass), order).squeeze(-1)


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
