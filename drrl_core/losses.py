"""Every loss of the paper, one value an example; the caller takes the mean.

Throughout, `pos` is (B,) and holds the score of each example's positive item; `neg` is (B, N) and
holds the scores of its negatives. A score of -inf marks a masked negative: it counts for nothing,
and every "mean over the negatives" is over the others. Scores are cosines in [-1, 1] where the
registry says `cosine`, dot products otherwise.

What a loss owns besides the model is a *dual variable*: a parameter of the module, trained by an
optimiser of its own at its own rate. `dual_rows` gives its gradient a unit: the mean over the
batch's examples that use it.

>>> import torch
>>> loss = make("sl", temperature=0.2)
>>> loss(torch.tensor([0.9]), torch.tensor([[0.1, 0.2, 0.6]]))
tensor([-1.2788])
"""

import difflib
import inspect
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from drrl_core import dro


class Batch(NamedTuple):
    """Who is in the batch: users (B,), pos_items (B,), neg_items (B, N) or (M,), as indices."""

    users: Tensor
    pos_items: Tensor | None = None
    neg_items: Tensor | None = None


# ---------------------------------------------------------------------------------------------
# Helpers


def _check(low: float, high: float = math.inf, *, above: bool = False, **given: float) -> None:
    """Refuse a hyper-parameter outside [low, high], or (low, high] when `above`."""
    for name, value in given.items():
        if not (low < value <= high or (value == low and not above)):
            bracket = "(" if above else "["
            raise ValueError(f"{name} must lie in {bracket}{low:g}, {high:g}], not {value!r}")


def _mean(values: Tensor, neg: Tensor) -> Tensor:
    """Mean of `values` over the unmasked negatives of each row."""
    kept = neg > -math.inf
    return torch.where(kept, values, 0).sum(-1) / kept.sum(-1)


def _conjugate(order: float) -> float:
    """γ* = γ/(γ-1), written so that γ = ∞ gives 1."""
    return 1 / (1 - 1 / order)


def _log_mean_exp(values: Tensor) -> Tensor:
    return values.logsumexp(-1) - (values > -math.inf).sum(-1).log()


def dual_rows(table: Tensor, index: Tensor, size: int, *, ascend: bool = False) -> Tensor:
    """Rows of a dual variable whose gradient is the mean over the examples that use them.

    The caller averages the loss over the batch, so that a user's β would get 1/B of each of its
    examples: a step a thousand times smaller than that of a β shared by all, and one that
    shrinks as the batch grows. Scaling by B / uses makes one learning rate mean one thing.

    Args:
        table: (n, ...) the dual variable, one row a user (or item).
        index: integer tensor of any shape, which rows are used.
        size: B, over how many examples the caller averages.
        ascend: reverse the gradient, for a variable that maximises.

    Returns:
        `table[index]`, exactly; only its gradient is rescaled.

    >>> table = torch.zeros(3, requires_grad=True)
    >>> rows = dual_rows(table, torch.tensor([0, 0, 2, 2]), 4)
    >>> (rows * torch.tensor([1.0, 3.0, 5.0, 5.0])).mean().backward()
    >>> table.grad
    tensor([2., 0., 5.])
    """
    flat = index.flatten()
    uses = table.new_zeros(len(table)).index_add_(0, flat, table.new_ones(()).expand(len(flat)))
    scale = (-size if ascend else size) / uses[flat]
    rows = table.index_select(0, flat)
    scale = scale.view(-1, *[1] * (rows.dim() - 1))
    rows = rows.detach() + scale * (rows - rows.detach())
    return rows.view(*index.shape, *table.shape[1:])


# ---------------------------------------------------------------------------------------------
# Losses without state


def mse_loss(pos: Tensor, neg: Tensor) -> Tensor:
    """Mean squared error: ((σ(p) - 1)² + mean_j σ(n_j)²) / 2.

    >>> mse_loss(torch.tensor([0.0]), torch.tensor([[0.0]]))
    tensor([0.2500])
    """
    return ((pos.sigmoid() - 1).square() + _mean(neg.sigmoid().square(), neg)) / 2


def bce_loss(pos: Tensor, neg: Tensor) -> Tensor:
    """Binary cross-entropy: (softplus(-p) + mean_j softplus(n_j)) / 2.

    >>> bce_loss(torch.tensor([0.0]), torch.tensor([[0.0]]))
    tensor([0.6931])
    """
    return (softplus(-pos) + _mean(softplus(neg), neg)) / 2


def bpr_loss(pos: Tensor, neg: Tensor) -> Tensor:
    """Bayesian personalised ranking: mean_j softplus(n_j - p).

    >>> bpr_loss(torch.tensor([1.0]), torch.tensor([[1.0]]))
    tensor([0.6931])
    """
    return _mean(softplus(neg - pos[..., None]), neg)


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
    tensor([-1.2788])
    """
    _check(0, temperature=temperature, above=True)
    return (neg / temperature).logsumexp(-1) - pos / temperature


def bilateral_softmax_loss(
    pos: Tensor, neg: Tensor, *, temperature: float = 0.2, temperature_pos: float = 0.2
) -> Tensor:
    """BSL: -p/τ1 + (τ2/τ1)·log mean_j exp(n_j/τ2), τ1 = temperature_pos, τ2 = temperature.

    >>> bilateral_softmax_loss(torch.tensor([0.9]), torch.tensor([[0.5]]), temperature_pos=0.5)
    tensor([-0.8000])
    """
    _check(0, temperature=temperature, temperature_pos=temperature_pos, above=True)
    ratio = temperature / temperature_pos
    return ratio * _log_mean_exp(neg / temperature) - pos / temperature_pos


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
    _check(-1, 1, margin=margin)
    _check(0, weight=weight)
    return (1 - pos) + weight * _mean(relu(neg - margin), neg)


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
    _check(1, order=order, above=True)
    _check(0, weight=weight, above=True)
    _check(0, epsilon=epsilon)
    beta = torch.as_tensor(dual, dtype=neg.dtype, device=neg.device)
    conj = _conjugate(order)
    excess = epsilon + weight * relu(neg - beta[..., None])
    # The largest excess is factored out: float32 powers of small numbers underflow to zero, and
    # take the gradient with them. All truncated: value β, subgradient zero.
    top = excess.detach().amax(-1, keepdim=True)
    top = torch.where(top > 0, top, 1)
    moment = _mean((excess / top).pow(conj), neg)
    alive = moment > 0
    norm = torch.where(alive, moment, 1).pow(1 / conj) * alive
    return (1 - pos) + beta + top.squeeze(-1) * norm


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
    _check(1, order=order, above=True)
    _check(0, temperature=temperature, above=True)
    beta = torch.as_tensor(dual, dtype=neg.dtype, device=neg.device)
    slope = (order - 1) * (neg - beta[..., None]) / temperature
    active = slope > -1
    # exp(γ*·log1p(s)) rather than (1 + s)^γ*: as γ -> 1, 1 + s rounds to 1.
    log_power = _conjugate(order) * torch.where(active, slope, 0).log1p()
    conjugate = torch.where(active, log_power.expm1(), -1) / order
    return (1 - pos) + beta + temperature * _mean(conjugate, neg)


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


class PooledBSL(nn.Module):
    """BSL as its authors compute it, the positives of a user in the batch pooled.

    -log mean_{i in S} exp(c·p_i/τ) + c·log mean_j exp(n_j/τ), S the batch's rows of the same user:
    the value depends on who else is in the batch.

    >>> loss, batch = PooledBSL(temperature=0.5), Batch(torch.tensor([7, 7]))
    >>> loss(torch.tensor([0.9, 0.9]), torch.tensor([[0.1], [0.4]]), batch)
    tensor([-1.6000, -1.0000])
    """

    def __init__(self, *, temperature: float = 0.2, ratio: float = 1.0):
        super().__init__()
        _check(0, temperature=temperature, ratio=ratio, above=True)
        self.temperature, self.ratio = temperature, ratio

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch) -> Tensor:
        together = batch.users[:, None] == batch.users[None]
        pooled = torch.where(together, self.ratio * pos / self.temperature, -math.inf)
        return self.ratio * _log_mean_exp(neg / self.temperature) - _log_mean_exp(pooled)


class AdvInfoNCE(nn.Module):
    """-log[e^(p/τ) / (e^(p/τ) + K·N·Σ_j q_j e^(n_j/τ))], q = softmax_j(g_u·g_j), g an adversary.

    The adversary ascends at every dual step, at `dual_lr`; the published code lets it every five
    epochs, at most five times. Source: AdvInfoNCE, NeurIPS 2023; K = 64 there, 1 in DrRL's code.
    """

    def __init__(
        self,
        n_users: int,
        n_items: int,
        *,
        temperature: float = 0.2,
        scale: float = 1.0,
        adversary_dim: int = 64,
    ):
        super().__init__()
        _check(0, temperature=temperature, scale=scale, above=True)
        _check(1, adversary_dim=adversary_dim)
        self.temperature, self.scale = temperature, scale
        self.users = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_users, adversary_dim)))
        self.items = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_items, adversary_dim)))

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch) -> Tensor:
        users = dual_rows(self.users, batch.users, len(pos), ascend=True)
        items = dual_rows(self.items, batch.neg_items, len(pos), ascend=True)
        hard = (items @ users[..., None]).squeeze(-1) if items.dim() == 3 else users @ items.T
        kept = neg > -math.inf
        log_q = torch.where(kept, hard.to(neg.dtype), -math.inf).log_softmax(-1)
        log_count = math.log(self.scale) + kept.sum(-1).log()
        against = log_count + (log_q + neg / self.temperature).logsumexp(-1)
        return softplus(against - pos / self.temperature)


class LLPAUC(nn.Module):
    """Lower-left partial AUC as a min-max over scalars; P = σ(p), M = σ(n), sp(x) = log(1+e^(5x))/5.

    -s⁺ - sp(-(P-a)² + 2(1+γ)P - s⁺)/α + s⁻ + mean_j sp((M-b)² + 2(1+γ)M - s⁻)/β - γ²
    - θ_b(b - 1 - γ) + θ_a(a + γ): minimised over a, b, s⁻ and θ, maximised over γ and s⁺, these
    and s⁻ at twice the rate. α and β are the shares of positives and negatives that count.
    Source: LLPAUC, WWW 2024.
    """

    #        start, lowest, highest, rate (below zero: maximises)
    SCALARS = {  # noqa: RUF012
        "a": (1.0, 0, 1, 1),
        "b": (0.0, 0, 1, 1),
        "gamma": (0.0, -1, 1, -2),
        "s_pos": (0.5, -1, 4, -2),
        "s_neg": (0.5, 0, 5, 2),
        "theta_a": (0.5, 0, 1e9, 1),
        "theta_b": (0.5, 0, 1e9, 1),
    }

    def __init__(self, *, share_pos: float = 0.5, share_neg: float = 0.05):
        super().__init__()
        _check(0, 1, share_pos=share_pos, share_neg=share_neg, above=True)
        self.share_pos, self.share_neg = share_pos, share_neg
        for name, (start, *_) in self.SCALARS.items():
            self.register_parameter(name, nn.Parameter(torch.tensor(start)))

    def _scalar(self, name: str) -> Tensor:
        value, rate = getattr(self, name), self.SCALARS[name][3]
        return value.detach() + rate * (value - value.detach())

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        a, b, gamma, s_pos, s_neg, theta_a, theta_b = map(self._scalar, self.SCALARS)
        p, m = pos.sigmoid(), neg.sigmoid()
        high = softplus(-(p - a).square() + 2 * (1 + gamma) * p - s_pos, beta=5)
        low = softplus((m - b).square() + 2 * (1 + gamma) * m - s_neg, beta=5)
        constraint = theta_a * (a + gamma) - theta_b * (b - 1 - gamma) - gamma.square()
        return s_neg + _mean(low, neg) / self.share_neg - s_pos - high / self.share_pos + constraint

    @torch.no_grad()
    def project(self) -> None:
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
        sizes = {name: value for name, value in sizes.items() if value is not None} or {"weight": 1}
        if len(sizes) > 1:
            raise ValueError(f"give one size, not {' and '.join(sizes)}")
        if dual not in self.DUALS:
            raise ValueError(f"dual must be one of {', '.join(self.DUALS)}, not {dual!r}")
        _check(1, order=order, above=dual != "exact")
        self.order, self.dual = order, dual
        if dual == "exact":
            self.ball = self._ball(order, **sizes)
            return
        if "eta" in sizes:
            sizes = {"radius": dro.radius_from_eta(eta, order)}
        if "radius" in sizes:
            sizes = {"weight": dro.weight_from_radius(sizes["radius"], order)}
        penalty = "temperature" in sizes
        self.function = drrl_penalty_loss if penalty else drrl_loss
        self.hyper = {"order": order, **sizes} | ({} if penalty else {"epsilon": epsilon})
        self.function(torch.zeros(1), torch.zeros(1, 1), 0.0, **self.hyper)  # refuses bad values
        beta = torch.full((n_users if dual == "learned" else 1,), float(start))
        self.beta = nn.Parameter(beta, requires_grad=dual != "fixed")

    @staticmethod
    def _ball(order: float, **size: float) -> dict[str, float]:
        """The size as `dro.worst_case` takes it."""
        ((name, value),) = size.items()
        if name == "temperature":
            return size
        if name == "weight" and value <= 1:
            raise ValueError(
                f"weight (c) must be above 1 with dual='exact', not {value!r}: at c = 1 the ball has "
                "radius zero and the loss is the plain mean, below 1 there is no ball. Give a "
                "radius, or keep c and learn β."
            )
        convert = {"weight": dro.radius_from_weight, "eta": dro.radius_from_eta}
        return {"radius": convert[name](value, order) if name in convert else value}

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        if self.dual == "exact":
            return (1 - pos) + dro.worst_case(neg, order=self.order, **self.ball).value
        if self.dual == "learned":
            beta = dual_rows(self.beta, batch.users, len(pos))
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


REGISTRY = {
    "mse": Loss(mse_loss, "dot", 1),
    "bce": Loss(bce_loss, "dot", 1),
    "bpr": Loss(bpr_loss, "dot", 1),
    "sl": Loss(softmax_loss),
    "bsl": Loss(bilateral_softmax_loss),
    "bsl-pooled": Loss(PooledBSL),
    "ccl": Loss(cosine_contrastive_loss),
    "advinfonce": Loss(AdvInfoNCE),
    "llpauc": Loss(LLPAUC),
    "drrl": Loss(DrRL),
}


def lookup(name: str) -> Loss:
    """The registry's line for a loss; ValueError with a suggestion where there is none.

    >>> lookup("ccl").similarity
    'cosine'
    """
    if name not in REGISTRY:
        close = difflib.get_close_matches(name, REGISTRY, 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"no loss is called {name!r}{hint}: one of {', '.join(REGISTRY)}")
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
    for key in hyper.keys() - known.keys():
        raise ValueError(f"loss {name!r} has no hyper-parameter {key!r}: it has {', '.join(known)}")
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
    neg = neg.detach().requires_grad_()
    (slope,) = torch.autograd.grad(loss(pos.detach(), neg, batch).sum(), neg)
    mean = _mean(slope, neg.detach())[..., None]
    return torch.where(mean == 0, 0, slope / mean)
