"""Softmax Loss and its relatives: InfoNCE, BSL, PSL, AdvInfoNCE."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from drrl_core.losses._inputs import Batch, check, check_batch, check_rows, guarded, guarded_forward
from drrl_core.losses._kernels import SampledScores
from drrl_core.losses._parts import (
    count_negatives,
    dual_rows,
    log_mean_exp,
    log_prior,
    mean_sloped,
)
from drrl_core.losses.registry import PRIOR, PUSH, RATE, Range, Variant, entry

SOFT = {"loss.temperature": Range(0.05, 0.3), "train.lr": RATE}


@entry(
    "sl",
    label="SL",
    colour="#0072B2",
    order=1.0,
    search=SOFT,
    variants={
        "sl-push": Variant("SL, push", {**SOFT, "loss.push": PUSH}),
        "sl-prior": Variant("SL, prior", {**SOFT, "loss.prior": PRIOR}),
    },
)
@guarded
def softmax_loss(
    pos: Tensor,
    neg: Tensor,
    batch: Batch | None = None,
    *,
    temperature: float = 0.2,
    push: float = 1.0,
    prior: float = 0.0,
) -> Tensor:
    """Softmax Loss: -p/τ + m·log Σ_j r_j exp(n_j/τ). The positive is not in the denominator.

    Order 1 of the family: at m = 1, τ times it is, up to a constant, the worst case over a KL ball
    whose radius depends on the row. Source: Eq. 1 of the paper, where m = 1; m is λ of MINE+ (Park
    et al., arXiv 2312.08520) and (1 - α)/α of MSCL's importance weight α (Tang et al., 2021).

    Args:
        pos: (B,) scores.
        neg: (B, N) scores, -inf = masked.
        batch: where there is a prior: `neg_items` and `popularity`.
        temperature: τ > 0, in units of score.
        push: m > 0, how hard the negatives are pushed for each unit of pull, see `mass`. Above 1
            popular items, which are many users' positives, are let rise above the others.
        prior: a, any number: r_j ∝ (1 + train pairs of j)^a, of mean 1 over the row; 0 is r_j = 1.
            Above 0 popular negatives count for more. -s corrects negatives drawn at `draw_power` s.

    Returns:
        (B,) dimensionless.

    >>> softmax_loss(torch.tensor([0.9]), torch.tensor([[0.1, 0.2, 0.6]]), temperature=0.2)
    tensor([-1.3033])
    """
    check(0, math.inf, "()", temperature=temperature, push=push)
    check(-math.inf, math.inf, "()", prior=prior)
    heard = neg / temperature
    if prior:
        heard = heard + log_prior(pos, neg, batch, prior)
    return push * heard.logsumexp(-1) - pos / temperature


@entry("infonce", label="InfoNCE", colour="#7B4B2A", order=1.0, search=SOFT)
@guarded
def infonce_loss(pos: Tensor, neg: Tensor, *, temperature: float = 0.2) -> Tensor:
    """InfoNCE: -log[e^(p/τ) / (e^(p/τ) + Σ_j e^(n_j/τ))], the positive in the denominator.

    The negatives' weights relative to each other are Softmax Loss's; all of them fade as the
    positive rises above them, and the loss never falls below zero. Source: van den Oord et al.,
    "Representation Learning with Contrastive Predictive Coding", 2018, Eq. 4.

    Args:
        pos: (B,) scores.
        neg: (B, N) scores, -inf = masked.
        temperature: τ > 0, in units of score.

    Returns:
        (B,) nats.

    Raises:
        ValueError: a temperature that is not positive, or scores of another shape or type.

    >>> infonce_loss(torch.tensor([0.5]), torch.tensor([[0.5, 0.5]]))  # log 3
    tensor([1.0986])
    """
    check(0, math.inf, "()", temperature=temperature)
    against = (neg / temperature).logsumexp(-1)
    check_rows(against, neg)  # the loss of such a row would be zero, and nobody would see it
    return softplus(against - pos / temperature)


@entry(
    "bsl",
    label="BSL",
    colour="#3A9AD9",
    order=1.0,
    search={**SOFT, "loss.temperature_pos": Range(0.05, 0.6)},
)
@guarded
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
    check(0, math.inf, "()", temperature=temperature, temperature_pos=temperature_pos)
    ratio = temperature / temperature_pos
    return ratio * log_mean_exp(neg / temperature) - pos / temperature_pos


@entry(
    "psl",
    label="PSL",
    colour="#8C6BB1",
    search={"loss.temperature": Range(0.025, 0.15), "train.lr": RATE},
)
@guarded
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
    check(0, math.inf, "()", temperature=temperature)
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


@entry(
    "bsl-pooled",
    label="BSL (pooled)",
    colour="#3A9AD9",
    rowwise=False,
    search={**SOFT, "loss.ratio": Range(0.2, 5, True)},
)
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
        check(1, math.inf, "[)", n_users=n_users)
        check(0, math.inf, "()", temperature=temperature, ratio=ratio)
        self.n_users, self.temperature, self.ratio = n_users, temperature, ratio

    @guarded_forward
    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        batch = check_batch(batch, pos, neg, users=self.n_users)
        scaled, users = self.ratio * pos / self.temperature, batch.users
        table = scaled.new_full((self.n_users,), -math.inf)
        top = table.scatter_reduce(0, users, scaled.detach(), "amax")[users]
        share = torch.stack([(scaled - top).exp(), torch.ones_like(scaled)], -1)
        total, count = share.new_zeros(self.n_users, 2).index_add(0, users, share)[users].unbind(-1)
        pooled = top + (total / count).log()
        return self.ratio * log_mean_exp(neg / self.temperature) - pooled


@entry(
    "advinfonce",
    label="AdvInfoNCE",
    colour="#C4629B",
    version=2,
    search={
        **SOFT,
        "loss.scale": Range(1, 1000, True),
        "train.dual_lr": Range(1e-5, 1e-2, True),
    },
    fixed={"loss.passes": 5},
)
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
        check(0, math.inf, "()", temperature=temperature, scale=scale)
        check(1, math.inf, "[)", n_users=n_users, n_items=n_items, adversary_dim=adversary_dim)
        check(0, math.inf, "[)", passes=passes)
        self.temperature, self.scale = temperature, scale
        self.dual_epochs = range(3, 3 + 5 * passes, 5) if passes else None
        self.users = nn.Parameter(nn.init.xavier_normal_(torch.empty(n_users, adversary_dim)))
        self.items = nn.Parameter(nn.init.xavier_normal_(torch.empty(n_items, adversary_dim)))

    @guarded_forward
    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        batch = check_batch(batch, pos, neg, users=len(self.users), neg_items=len(self.items))
        kept = neg != -math.inf
        users = dual_rows(self.users, batch.users, rate=batch.rate, ascend=True)
        index = batch.neg_items
        if index.dim() == 1:
            hard = users @ dual_rows(self.items, index, kept, rate=batch.neg_rate, ascend=True).T
        else:
            items = mean_sloped(self.items, index, kept, True)
            if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
                # There are no sparse products there.
                hard = (items[index] * users[:, None]).sum(-1)
            else:
                hard = SampledScores.apply(users, items, index)
        log_q = torch.where(kept, hard.to(neg.dtype), -math.inf).log_softmax(-1)
        log_count = math.log(self.scale) + count_negatives(neg).log()
        against = log_count + (log_q + neg / self.temperature).logsumexp(-1)
        return softplus(against - pos / self.temperature)
