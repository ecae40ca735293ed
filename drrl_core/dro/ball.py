"""The worst case over a ball or with a penalty, its dual bound, and how the order is turned."""

import math

import torch
from torch import Tensor

from ._derivatives import Value, opaque
from ._inputs import (
    check,
    check_mass,
    check_order,
    check_radius,
    check_scores,
    column_of,
    mass_of,
    shaped,
)
from ._solver import WorstCase, ratio_of
from ._tilt import log_of_mean
from .sizes import eta_from_radius, order_conj, radius_from_eta


def worst_case(
    scores: Tensor,
    *,
    order: float,
    radius: float | Tensor | None = None,
    temperature: float | Tensor | None = None,
    prior: Tensor | None = None,
) -> WorstCase:
    """Worst-case mean of each row of scores over a Rényi ball, or with a Cressie–Read penalty.

    With a radius ρ, max of E_Q f over D_γ(Q‖P) <= ρ; with a temperature λ, max over Q of
    E_Q f - λ·η(Q), η = E[w^γ - 1] / (γ(γ-1)), which is KL at γ = 1. P is uniform on the unmasked
    entries, or the prior. The weights w = dQ/dP are

        w_j ∝ (f_j - β)_+^(1/(γ-1)),    γ = 1: exp(f_j/τ),    γ = ∞: e^ρ above β, less at β.

    For ρ = 0 that is the mean under P; for ρ >= -log P(f = max f), which is log(n/m) with m of n
    entries tied there, the maximum.
    `dual` is the β, or the τ, of these weights, for the penalty as for the ball. (Some write the
    penalty's dual as β + λ/(γ-1), so that E w = 1 is its optimality.) It is -inf, at order 1 inf,
    for ρ = 0, and the maximum, at order 1 zero, when that takes all the weight.

    Args:
        scores: (..., n) floating point, finite; -inf masks an entry. Unit: score. Half precision
            is computed, and returned, in float32.
        order: γ in [1, inf], dimensionless; a Python number. Finite with a temperature.
        radius: ρ in [0, inf), nats; a number or a tensor that broadcasts to the shape (...).
        temperature: λ in (0, inf), score; likewise. Exactly one of the two is given.
        prior: P up to a factor a row, >= 0, of the scores' shape or (n,); 0 masks an entry. A
            constant: it has no derivative. None is the uniform P, and the fastest.

    Returns:
        A :class:`WorstCase`. The gradient of `value` in the scores is Q, so weights times P, or
        weights / n (envelope theorem); in a radius that requires grad it is the multiplier
        (value - dual)/γ*, or τ at order 1, and inf at radius 0; in a temperature -η(Q). Second
        derivatives are those with the active scores fixed, in reverse and forward mode and under
        torch.func; kinks, where a score enters, have the derivative of one side. At order inf they
        are zero in the scores. All else is constant. At order 1 `truncated` is 0.

    Raises:
        ValueError: on bad values, naming the row.
        RuntimeError: if a third derivative is asked for.

    Source: Eq. 3–6 and 9–11 of 'Advancing Loss Functions in Recommender Systems', AAAI 2025.

    >>> worst = worst_case(torch.tensor([0.0, 1.0, 2.0, 3.0]), order=math.inf, radius=math.log(2))
    >>> worst.value.item(), worst.weights.tolist()
    (2.5, [0.0, 0.0, 2.0, 2.0])
    >>> twice = worst_case(torch.tensor([0.0, 1.0, 3.0]), order=math.inf, radius=math.log(2),
    ...                    prior=torch.tensor([1.0, 2.0, 1.0]))  # as [0, 1, 1, 3]
    >>> twice.value.item(), twice.weights.tolist()
    (2.0, [0.0, 1.0, 2.0])
    """
    order, f = check_order(order), shaped(scores)
    if (radius is None) == (temperature is None):
        raise ValueError("give exactly one of radius (a ball, nats) and temperature (a penalty)")
    if temperature is not None and order == math.inf:
        raise ValueError("order must be finite with a temperature: order inf has a radius only")
    if radius is not None:
        size = column_of(radius, "radius", f)
    else:
        assert temperature is not None  # one of them is given
        size = column_of(temperature, "temperature", f)
    solved = opaque if torch.compiler.is_compiling() else Value.apply
    mass = None
    if prior is not None:
        mass, f = mass_of(prior, f)
    worst = WorstCase(*solved(f, size, mass, order, radius is not None))
    return worst if mass is None else worst._replace(weights=ratio_of(worst.weights, mass))


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
    order, f = check_order(order), check_scores(scores)
    rho = check_radius(radius, f).squeeze(-1)
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
    scores: Tensor,
    dual: float | Tensor,
    *,
    order: float,
    radius: float | Tensor,
    prior: Tensor | None = None,
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
        prior: P, as in :func:`worst_case`; None is uniform.

    Returns:
        (...) tensor; score.

    Raises:
        ValueError: on bad values, as :func:`worst_case`.

    Source: Eq. 10 of 'Advancing Loss Functions in Recommender Systems', AAAI 2025.

    >>> dual_objective(torch.tensor([0.0, 1.0, 2.0, 3.0]), 1.5, order=math.inf, radius=math.log(2))
    tensor(2.5000)
    """
    order, f, mass = check_order(order), shaped(scores), None
    if prior is not None:
        mass, f = mass_of(prior, f)
        check_mass(mass)
    f = check_scores(f)
    radius, dual = check_radius(radius, f), column_of(dual, "dual", f)
    valid = f.detach() > -math.inf
    mass = valid.to(f.dtype) if mass is None else mass
    count = mass.sum(-1, keepdim=True)
    top = f.detach().amax(-1, keepdim=True)
    below = torch.where(valid, top - f, 0)
    if order == 1:
        check((~(dual >= 0)).squeeze(-1), "dual must lie in [0, inf], the temperature at order 1")
        unit, conjugate = dual, 1.0
        log_x, active = -below / torch.where(unit > 0, unit, 1), valid
    else:
        check((~(dual < math.inf)).squeeze(-1), "dual must lie in [-inf, inf)")
        unit, conjugate = top - dual, 1.0 if order == math.inf else order / (order - 1)
        active = valid & (f.detach() > dual.detach())
        log_x = -conjugate * torch.log1p(below / torch.where(active, f - dual, 1))
    far = unit.isinf()
    mean_minus_1 = (mass * torch.where(active, log_x.expm1(), -1)).sum(-1, keepdim=True)
    mean = (mass * torch.where(active, log_x.exp(), 0)).sum(-1, keepdim=True)
    inside = unit > 0
    log_mean = log_of_mean(torch.where(inside, mean / count, 1), mean_minus_1 / count)
    # max f + unit·(c·‖x‖ - 1) for x = (f-β)_+ / unit: nothing cancels where β is far away
    exponent = (radius if order == 1 else radius / conjugate) + log_mean / conjugate
    growth = exponent if order == 1 else exponent.expm1()
    bound = top + torch.where(inside & ~far, unit, 0) * growth
    bound = torch.where(inside, bound, top if order == 1 else dual)
    limit = top - (mass * below).sum(-1, keepdim=True) / count
    bound = torch.where(far, torch.where(radius > 0, math.inf, limit), bound)
    return bound.squeeze(-1)
