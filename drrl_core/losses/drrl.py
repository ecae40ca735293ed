"""DrRL: the losses of the whole family, at a given β and with their own."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from drrl_core import dro
from drrl_core.losses._inputs import (
    Batch,
    check,
    check_batch,
    check_rows,
    guarded,
    guarded_forward,
    unseen,
)
from drrl_core.losses._parts import (
    count_negatives,
    dual_rows,
    log_mean_exp,
    log_prior,
    mean_negatives,
)
from drrl_core.losses.registry import PRIOR, PUSH, RATE, Range, Space, Variant, entry


def _radius(negatives: int) -> Range:
    return Range(0.05, max(0.05, 0.85 * math.log(negatives)))


# γ - 1 is searched, so that a log range gives both ends of the family their due: γ* runs from 1.007
# to 51. The radius is searched and not c: at fixed c much of a (γ, c) grid is a point mass. It ends
# at 0.85·log N, so that a row should say N.
BALL: Space = {"loss.order-1": Range(0.02, 150, True), "loss.radius": _radius, "train.lr": RATE}
FIXED: Space = {**BALL, "loss.start": Range(-0.3, 0.9)}
LEARNED: Space = {**FIXED, "train.dual_lr": Range(1e-5, 1e-1, True)}
# At order 1 what is learned is a temperature: iSogCLR's.
TEMPERATURES: Space = {
    "loss.radius": _radius,
    "loss.start": Range(0.05, 0.5, True),
    "train.dual_lr": Range(1e-5, 1e-1, True),
    "train.lr": RATE,
}
LEAST_TEMPERATURE = 0.005  # iSogCLR's; below it float32 has few digits left of exp(n/τ)
PENALTY: Space = {
    "loss.order-1": Range(0.02, 2, True),
    "loss.temperature": Range(0.01, 0.5, True),
    "train.lr": RATE,
}


def _beta(dual: Tensor | float, neg: Tensor) -> Tensor:
    beta = torch.as_tensor(dual, dtype=neg.dtype, device=neg.device)
    if beta.dim() and beta.shape != neg.shape[:-1]:
        raise ValueError(
            f"dual has shape {tuple(beta.shape)} and neg {tuple(neg.shape)}: give one number, or "
            f"one a row of negatives, so dual of shape {tuple(neg.shape[:-1])}"
        )
    return beta


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
    def forward(ctx: Any, excess: Tensor, count: Tensor, order: float, weight: float) -> Tensor:
        slope = _power_slope(excess, count, order, weight)
        ctx.sizes = order, weight
        ctx.save_for_backward(excess, count, slope)
        ctx.save_for_forward(excess, count)
        return torch.linalg.vecdot(slope, excess)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        excess, count, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph
            slope = _power_slope(excess, count, *ctx.sizes)
        return grad[..., None] * slope, None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        slope = _power_slope(*ctx.saved_tensors[:2], *ctx.sizes)
        return torch.linalg.vecdot(slope, tangent)


@guarded
def drrl_loss(
    pos: Tensor,
    neg: Tensor,
    dual: Tensor | float,
    *,
    order: float = 2.0,
    weight: float = 1.0,
    epsilon: float = 0.0,
    push: float = 1.0,
    prior: Tensor | None = None,
) -> Tensor:
    """DrRL at a given β: (1 - p) + m·[β + (mean_j (ε + c·(n_j - β)₊)^γ*)^(1/γ*)], γ* = γ/(γ-1).

    For ε = 0 it is an upper bound, for any β, of (1 - p) + m times the worst case over the Rényi
    ball of order γ and radius γ*·log c. Source: Eq. 10, where m = 1; ε is not in the paper, but 0.1
    in the authors' code.

    Args:
        pos: (B,) scores.
        neg: (B, N) scores, -inf = masked.
        dual: β, a number or (B,), in units of score.
        order: γ in (1, ∞].
        weight: c > 0, dimensionless.
        epsilon: ε >= 0, in units of score, only to reproduce the authors' code.
        push: m > 0, as in `softmax_loss`.
        prior: (B, N) P of each negative over the mean P of its row's; None is uniform.

    Returns:
        (B,) in units of score.

    >>> drrl_loss(torch.tensor([0.9]), torch.tensor([[0.1, 0.9]]), 0.5, order=2, weight=2)
    tensor([1.1657])
    """
    check(1, math.inf, "(]", order=order)
    check(0, math.inf, "()", weight=weight, push=push)
    check(0, math.inf, "[)", epsilon=epsilon)
    beta = _beta(dual, neg)
    excess = relu(neg + (-beta)[..., None])
    if epsilon:
        excess = torch.where(neg != -math.inf, excess + epsilon / weight, 0)
    if prior is not None:  # r·x^γ* is the power of r^(1/γ*)·x
        excess = excess * prior ** (1 / dro.order_conj(order))
    sizes = count_negatives(neg), order, weight
    if torch.compiler.is_compiling():  # which refuses second derivatives itself
        slope = _power_slope(excess, *sizes).detach()
        norm = torch.linalg.vecdot(slope, excess)
    elif torch._C._are_functorch_transforms_active():  # the slopes' own slopes weigh zero together
        norm = torch.linalg.vecdot(_power_slope(excess, *sizes), excess)
    else:
        norm = _PowerMean.apply(excess, *sizes)
    return (1 - pos) + push * beta + push * norm


@guarded
def drrl_penalty_loss(
    pos: Tensor,
    neg: Tensor,
    dual: Tensor | float,
    *,
    order: float = 2.0,
    temperature: float = 0.2,
    push: float = 1.0,
    prior: Tensor | None = None,
) -> Tensor:
    """DrRL's penalty twin at a given β: (1 - p) + m·[β + λ·mean_j φ*((n_j - β)/λ)].

    φ*(s) = ((1 + (γ-1)s)₊^γ* - 1)/γ. An upper bound, for any β, of (1 - p) + m times the largest
    E_Q n - λ·D(Q, P) over all Q, D the Cressie-Read divergence of Eq. 9. As γ -> 1 the best β
    gives τ times Softmax Loss, with τ = λ for every user, up to a constant.

    Args:
        pos: (B,) scores.
        neg: (B, N) scores, -inf = masked.
        dual: β, a number or (B,), in units of score.
        order: γ in (1, ∞).
        temperature: λ > 0, in units of score.
        push: m > 0, as in `softmax_loss`.
        prior: (B, N) P of each negative over the mean P of its row's; None is uniform.

    Returns:
        (B,) in units of score.

    >>> drrl_penalty_loss(torch.tensor([1.0]), torch.tensor([[0.0, 0.2]]), 0.1, temperature=0.2)
    tensor([0.1250])
    """
    check(1, math.inf, "()", order=order)
    check(0, math.inf, "()", temperature=temperature, push=push)
    beta = _beta(dual, neg)
    slope = (order - 1) * (neg - beta[..., None]) / temperature
    truncated = slope <= -1
    # exp(γ*·log1p(s)) rather than (1 + s)^γ*: as γ -> 1, 1 + s rounds to 1.
    log_power = dro.order_conj(order) * torch.where(truncated, 0, slope).log1p()
    conjugate = torch.where(truncated, -1, log_power.expm1()) / order
    if prior is not None:
        conjugate = conjugate * prior
    return (1 - pos) + push * beta + push * temperature * mean_negatives(conjugate, neg)


@guarded
def drrl_kl_loss(
    pos: Tensor,
    neg: Tensor,
    dual: Tensor | float,
    *,
    radius: float = 1.0,
    push: float = 1.0,
    prior: Tensor | None = None,
) -> Tensor:
    """DrRL of order 1 at a given temperature: (1 - p) + m·[τ·ρ + τ·log mean_j exp(n_j/τ)].

    An upper bound, for any τ > 0, of (1 - p) + m times the worst case over the KL ball of radius ρ,
    to which `drrl_loss` has no limit: at order 1 its weight is 1 whatever the radius. The
    negatives' slopes sum to m at every τ. Source: iSogCLR (Qiu et al., ICML 2023,
    arXiv 2305.11965), where m = 1.

    Args:
        pos: (B,) scores.
        neg: (B, N) scores, -inf = masked.
        dual: τ > 0, a number or (B,), in units of score.
        radius: ρ >= 0, nats.
        push: m > 0, as in `softmax_loss`.
        prior: (B, N) P of each negative over the mean P of its row's; None is uniform.

    Returns:
        (B,) in units of score.

    Raises:
        ValueError: a value out of range, or a dual of another shape; τ itself is not looked at.

    >>> drrl_kl_loss(torch.tensor([1.0]), torch.tensor([[0.5, 0.5]]), 0.2, radius=1)
    tensor([0.7000])
    """
    check(0, math.inf, "[)", radius=radius)
    check(0, math.inf, "()", push=push)
    temperature, kept = _beta(dual, neg), neg != -math.inf
    scaled = torch.where(kept, neg, 0) / temperature[..., None]  # -inf/τ would have no slope in τ
    if prior is not None:
        scaled = scaled + torch.where(kept, prior, 1).log()
    bound = log_mean_exp(torch.where(kept, scaled, -math.inf)) + radius
    return (1 - pos) + push * temperature * bound


@entry(
    "drrl",
    label="DrRL",
    colour="#009E73",
    order="order",
    search=LEARNED,
    fixed={"loss.dual": "learned"},
    variants={
        "drrl-shared": Variant("DrRL-w/o-P", LEARNED, {"loss.dual": "shared"}),
        "drrl-fixed": Variant("DrRL-w/o-LP", FIXED, {"loss.dual": "fixed"}),
        "drrl-exact": Variant("DrRL, exact β", BALL, {"loss.dual": "exact"}),
        "drrl-penalty": Variant("DrRL, penalty", PENALTY, {"loss.dual": "exact"}),
        "drrl-push": Variant(
            "DrRL, exact β, push", {**BALL, "loss.push": PUSH}, {"loss.dual": "exact"}
        ),
        "isogclr": Variant("iSogCLR", TEMPERATURES, {"loss.order": 1.0, "loss.dual": "learned"}),
        "drrl-prior": Variant(
            "DrRL, exact β, prior", {**BALL, "loss.prior": PRIOR}, {"loss.dual": "exact"}
        ),
    },
)
class DrRL(nn.Module):
    """DrRL with its dual variable β.

    The size of the ball is exactly one of `weight` (c), `radius` (ρ) and `eta` (the paper's η), or
    `temperature` (λ) for the penalty twin. The default is the paper's own advice, `weight=1` with a
    learned β: radius zero, so that β has no finite optimum and its start, `dual_lr` and the moment
    training stops decide how robust the loss is. Source: Eq. 9-11. At order 1 the dual variable is
    a temperature τ, and one learned by each user is iSogCLR (Qiu et al., ICML 2023).

    Args:
        n_users: with dual="learned" each of them has a β.
        order: γ in [1, ∞]; (1, ∞) for the penalty twin, [1, ∞) where its β is exact.
        weight: c > 0, dimensionless; at order 1, where it is 1 for every ball, give a radius.
        radius: ρ >= 0, nats.
        eta: η >= 0, dimensionless.
        temperature: λ > 0, in units of score.
        dual: "learned", a β a user; "shared", one learned β (the ablation w/o-P); "fixed", one β
            that stays (w/o-LP); "exact", each row's own optimum: no start, no rate.
        start: where β starts, in units of score; at order 1 τ, which stays at 0.005 or above.
        epsilon: ε >= 0, in units of score: the authors' 0.1, which is not in the paper.
        push: m > 0, how many times the worst case counts, as in `softmax_loss`.
        prior: a, any number: P ∝ (1 + train pairs of the item)^a, as in `softmax_loss`; other than
            at 0 the batch needs `neg_items` and `popularity`.

    Raises:
        ValueError: a value out of range, two sizes, or an exact β where there is no ball (c <= 1).

    >>> loss = DrRL(3, order=2, weight=2, start=0.5)
    >>> loss(torch.tensor([0.9]), torch.tensor([[0.1, 0.9]]), Batch(torch.tensor([2])))
    tensor([1.1657], grad_fn=<AddBackward0>)
    """

    beta: Tensor
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
        push: float = 1.0,
        prior: float = 0.0,
    ):
        super().__init__()
        given = {"weight": weight, "radius": radius, "eta": eta, "temperature": temperature}
        sizes = {name: value for name, value in given.items() if value is not None}
        sizes = sizes or {"weight": 1.0}
        if len(sizes) > 1:
            raise ValueError(f"give one size, not {' and '.join(sizes)}")
        if dual not in self.DUALS:
            raise ValueError(f"dual must be one of {', '.join(self.DUALS)}, not {dual!r}")
        exact, penalty = dual == "exact", "temperature" in sizes
        ends = ("[" if exact or not penalty else "(") + (")" if penalty else "]")
        check(1, math.inf, ends, order=order)
        check(0, math.inf, "[)" if sizes.keys() & {"radius", "eta"} else "()", **sizes)
        kl = order == 1 and not exact
        check(0 if kl else -math.inf, math.inf, "()", start=start)
        check(0, math.inf, "[)", epsilon=epsilon)
        check(0, math.inf, "()", push=push)
        check(-math.inf, math.inf, "()", prior=prior)
        if epsilon and (exact or penalty or kl):
            raise ValueError("epsilon is added to c·(n - β)₊: give it with a ball and a β, or not")
        if "eta" in sizes:
            sizes = {"radius": dro.radius_from_eta(sizes["eta"], order)}
        if kl and "weight" in sizes:
            raise ValueError("at order 1 the weight is 1 for every ball: give a radius, in nats")
        if exact and "weight" in sizes:
            if sizes["weight"] <= 1:
                raise ValueError(
                    f"weight (c) must be above 1 with dual='exact', not {sizes['weight']!r}: at "
                    "c = 1 the ball has radius zero and the loss is the plain mean, below 1 there "
                    "is no ball. Give a radius, or keep c and learn β."
                )
            sizes = {"radius": dro.radius_from_weight(sizes["weight"], order)}
        elif not (exact or kl) and "radius" in sizes:
            sizes = {"weight": dro.weight_from_radius(sizes["radius"], order)}
        self.dual, self.push, self.prior = dual, push, prior
        self.hyper: dict[str, Any] = {"order": order, **sizes}
        if exact:
            return
        self.hyper |= {} if penalty or kl else {"epsilon": epsilon}
        bound = partial(drrl_penalty_loss if penalty else drrl_loss, **self.hyper)
        self.bound = partial(drrl_kl_loss, **sizes) if kl else bound
        if dual == "learned":
            check(1, math.inf, "[)", n_users=n_users)
        beta = torch.full((n_users if dual == "learned" else 1,), float(start))
        self.beta = nn.Parameter(beta, requires_grad=dual != "fixed")

    @guarded_forward
    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        prior = log_prior(pos, neg, batch, self.prior).exp() if self.prior else None
        if self.dual == "exact":
            check_rows(neg.amax(-1), neg)
            return (1 - pos) + self.push * dro.worst_case(neg, prior=prior, **self.hyper).value
        if self.dual == "learned":
            batch = check_batch(batch, pos, neg, users=len(self.beta))
            beta = dual_rows(self.beta, batch.users, rate=batch.rate)
        else:
            beta = self.beta.expand(len(pos))
        return self.bound(pos, neg, beta, push=self.push, prior=prior)

    @torch.no_grad()
    def project(self) -> None:
        """At order 1, keep temperatures above zero, after a step."""
        if self.hyper["order"] == 1:
            self.beta.clamp_(min=LEAST_TEMPERATURE)


@entry(
    "drrl-two-sided",
    label="DrRL, two-sided",
    colour="#006C51",
    order="order",
    rowwise=False,
    search={**BALL, "loss.order_pos": Range(1.02, 151, True), "loss.radius_pos": Range(0, 1)},
)
class TwoSided(nn.Module):
    """1 - the best case of a user's positives + the worst case of each row's negatives.

    The best case is the largest E_Q p, over the positives that the batch has of the user: those
    that score high are listened to most, as in BSL and in LLPAUC, so that a false positive counts
    for less. Each side is a ball or, where its temperature is given, a penalty. With penalties of
    order 1 it is τ₁ times pooled BSL with c = τ/τ₁, up to a constant; with `radius_pos=0` its mean
    over the batch is that of `DrRL` with an exact β. Source: the two sides of BSL (ICDE 2024) at
    any order of Eq. 3 of the paper.

    Args:
        n_users: how many there are.
        order, order_pos: γ in [1, ∞] of the negatives, of the positives; finite for a penalty.
        radius, radius_pos: ρ >= 0, nats; not looked at where the side has a temperature.
        temperature, temperature_pos: τ > 0, in units of score; None is a ball.

    Raises:
        ValueError: a value out of range; a batch without `users`.

    >>> loss, batch = TwoSided(8, order=2, radius=0.5, radius_pos=9.0), Batch(torch.tensor([7, 7]))
    >>> loss(torch.tensor([0.9, 0.5]), torch.tensor([[0.1], [0.4]]), batch)  # 0.9 stands for both
    tensor([0.2000, 0.5000])
    """

    def __init__(
        self,
        n_users: int,
        *,
        order: float = 2.0,
        radius: float = 1.0,
        temperature: float | None = None,
        order_pos: float = 2.0,
        radius_pos: float = 0.5,
        temperature_pos: float | None = None,
    ):
        super().__init__()
        check(1, math.inf, "[)", n_users=n_users)
        self.n_users = n_users
        self.negatives = self._side("", order, radius, temperature)
        self.positives = self._side("_pos", order_pos, radius_pos, temperature_pos)

    @staticmethod
    def _side(end: str, order: float, radius: float, temperature: float | None) -> dict[str, Any]:
        """What `dro.worst_case` is to be given for a side, checked."""
        ball = temperature is None
        check(1, math.inf, "[]" if ball else "[)", **{f"order{end}": order})
        check(0, math.inf, "[)", **{f"radius{end}": radius})
        if temperature is None:
            return {"order": order, "radius": radius}
        check(0, math.inf, "()", **{f"temperature{end}": temperature})
        return {"order": order, "temperature": temperature}

    @guarded_forward
    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        users = check_batch(batch, pos, neg, users=self.n_users).users
        check_rows(neg.amax(-1), neg)
        same = users[:, None] == users
        first, place = same.int().argmax(1), same.tril(-1).sum(1)
        # A user's positives side by side, at its first row. How many there are, a graph cannot ask.
        width = len(users) if unseen(users) else int(place.max()) + 1
        table = pos.new_full((len(users), width), -math.inf).index_put((first, place), pos)
        best = dro.worst_case(table[first], **self.positives).value
        return (1 - best) + dro.worst_case(neg, **self.negatives).value


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
        (users,) radii in nats, and keyword arguments for `make("drrl", ...)` or `DrRL`.

    >>> radii, settings = starting_points(torch.tensor([[0.0, 0.5], [0.0, 0.1]]), 0.1, orders=(2,))
    >>> radii
    tensor([0.6530, 0.1109])
    >>> loss = DrRL(2, **settings[0])
    """
    radii = dro.radius_of_temperature(scores, temperature)
    levels = torch.quantile(radii, radii.new_tensor(quantiles)).tolist()
    grid = [{"order": o, "radius": r, "dual": "exact"} for o in orders for r in levels]
    return radii, grid
