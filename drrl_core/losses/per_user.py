"""Losses that read a number of each user off the scores beside the training: SL@K, Talos, Adap-τ.

The number moves by a fit of its own, and the model's slopes take it as given.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, relu

from drrl_core.losses._inputs import Batch, check, check_batch, guarded_forward
from drrl_core.losses._parts import dual_rows, fitted, log_mean_exp, mean_negatives
from drrl_core.losses.registry import RATE, Range, entry

DUAL_RATE = Range(1e-4, 1e-1, True)  # of Adam; the published one is 1e-3


class _TopK(nn.Module):
    """Owns β_u, the score that a share of the user's negatives exceeds, by quantile regression."""

    dual_optimiser = "adam"

    def __init__(self, n_users: int, temperature: float, share: float):
        super().__init__()
        check(1, math.inf, "[)", n_users=n_users)
        check(0, math.inf, "()", temperature=temperature)
        check(0, 1, "()", share=share)
        self.temperature, self.share = temperature, share
        self.beta = nn.Parameter(torch.zeros(n_users))

    def threshold(self, pos: Tensor, neg: Tensor, batch: Batch | None) -> tuple[Tensor, Tensor]:
        """Each row's β, as given, and the quantile regression that moves it; both (B,)."""
        batch = check_batch(batch, pos, neg, users=len(self.beta))
        beta = dual_rows(self.beta, batch.users, rate=batch.rate)
        above = mean_negatives(relu(neg.detach() - beta[..., None]), neg)
        return beta.detach(), self.share * beta + above


@entry(
    "sl-at-k",
    label="SL@K",
    colour="#2F8B8E",
    order=1.0,
    search={
        "loss.temperature": Range(0.05, 0.3),
        "loss.temperature_weight": Range(0.5, 3),
        "train.dual_lr": DUAL_RATE,
        "train.lr": RATE,
    },
)
class SLatK(_TopK):
    """SL@K: σ((p - β)/τ_w)·log Σ_j exp((n_j - p)/τ), β the user's top-K threshold.

    Softmax Loss, where a positive counts the more the higher it stands. The weight has a slope of
    its own, so that m = 1/(1 - (1 - w)·L·τ/τ_w), w the weight and L Softmax Loss: above 1 where
    L > 0, and below 0 where (1 - w)·L·τ > τ_w: a positive that far down is pushed further down.
    Source: Yang et al., "Breaking the Top-K Barrier", KDD 2025, arXiv 2508.05673, Eq. 3.5.

    Args:
        n_users: each of them has a β; it starts at 0 and moves by Adam.
        temperature: τ > 0, in units of score.
        temperature_weight: τ_w > 0, in units of score.
        share: K over the number of items, in (0, 1): which share of a user's negatives lies above
            β. The paper's code takes the K-th highest of 1,000 negatives and
            the user's positives: 0.02 for lists of 20.

    Returns:
        (B,) dimensionless.

    Raises:
        ValueError: a value out of range; called without the batch's users.

    >>> loss = SLatK(3, temperature=0.5)
    >>> batch = Batch(torch.tensor([2]))  # whose β is still 0
    >>> loss(torch.tensor([0.0]), torch.tensor([[0.0, 0.0]]), batch).detach()  # log(2) / 2
    tensor([0.3466])
    """

    def __init__(
        self,
        n_users: int,
        *,
        temperature: float = 0.2,
        temperature_weight: float = 2.0,
        share: float = 0.02,
    ):
        super().__init__(n_users, temperature, share)
        check(0, math.inf, "()", temperature_weight=temperature_weight)
        self.temperature_weight = temperature_weight

    @guarded_forward
    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        beta, fit = self.threshold(pos, neg, batch)
        weight = ((pos - beta) / self.temperature_weight).sigmoid()
        softmax = (neg / self.temperature).logsumexp(-1) - pos / self.temperature
        return fitted(weight * softmax, fit)


@entry(
    "talos",
    label="Talos",
    colour="#A0597A",
    search={
        "loss.temperature": Range(0.05, 0.3),
        "train.dual_lr": DUAL_RATE,
        "train.lr": RATE,
    },
)
class Talos(_TopK):
    """Talos: -log[σ(p - β)^(1/τ) / Σ_j σ(n_j - β)^(1/τ)], β the user's top-K threshold.

    Softmax Loss of log σ(score - β): a score far above β gains nothing by rising further. With q
    the softmax of the negatives, m = E_q σ(β - n)/σ(β - p), above 1 for a positive above them.
    Source: Zhang et al., "Talos", WWW 2026, arXiv 2601.19276, Eq. 3.7, and for β Eq. 3.3.

    Args:
        n_users: each of them has a β; it starts at 0 and moves by Adam.
        temperature: τ > 0, dimensionless. Where scores are near β, as SL's at 2τ.
        share: K over the number of items, in (0, 1): which share of a user's negatives lies above
            β.

    Returns:
        (B,) dimensionless.

    Raises:
        ValueError: a value out of range; called without the batch's users.

    >>> loss = Talos(3, temperature=0.5)
    >>> batch = Batch(torch.tensor([2]))
    >>> loss(torch.tensor([0.5]), torch.tensor([[0.5, 0.5]]), batch).detach()  # log 2
    tensor([0.6931])
    """

    def __init__(self, n_users: int, *, temperature: float = 0.1, share: float = 0.02):
        super().__init__(n_users, temperature, share)

    @guarded_forward
    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        beta, fit = self.threshold(pos, neg, batch)
        high, low = logsigmoid(pos - beta), logsigmoid(neg - beta[..., None])
        low = torch.where(neg != -math.inf, low / self.temperature, -math.inf)
        return fitted(low.logsumexp(-1) - high / self.temperature, fit)


@torch.no_grad()
def _exp_minus_lambert(x: Tensor) -> Tensor:
    """exp(-W(x)) for x >= -1/e, below it e: W solves W·exp(W) = x; by Newton's method."""
    x = x.clamp_min(-1 / math.e)
    w = torch.minimum((2 + 2 * math.e * x).clamp_min(0).sqrt() - 1, x.log1p())  # both above W
    for _ in range(8):
        w = w - (w - x * (-w).exp()) / (1 + w).clamp_min(1e-3)  # at -1/e both are zero
    return (-w).exp()


@entry(
    "adap-tau",
    label="Adap-τ",
    colour="#5E8B33",
    order=1.0,
    search={
        "loss.temperature": Range(0.05, 0.3),
        "loss.damping": Range(0.1, 3, True),
        "train.lr": RATE,
    },
)
class AdapTau(nn.Module):
    """Adap-τ: -p/τ_0 + log Σ_j exp(n_j/τ_u), τ_u = τ_0·exp(W((ℓ_u - mean ℓ)/λ)), W Lambert's.

    ℓ_u is the mean of -p + log mean_j exp(n_j) over the user's examples: users whose positives lie
    low get a high temperature. τ_u acts on the negatives alone, so that m = τ_0/τ_u: a push of
    each user's own, between 0 and e. Source: Chen et al., WWW 2023, arXiv 2302.04775, and its
    published code, which has τ_0 in closed form of all embeddings; here it is given.

    Args:
        n_users: each of them has an ℓ_u; it starts at 0 and moves by SGD, at each step
            100·`dual_lr` of the way to the mean of the batch's examples.
        temperature: τ_0 > 0, in units of score.
        damping: λ > 0, in units of ℓ; the larger, the nearer τ_u to τ_0.

    Returns:
        (B,) dimensionless.

    Raises:
        ValueError: a value out of range; called without the batch's users.

    >>> loss = AdapTau(3, temperature=0.5)  # as SL, as long as all users are alike
    >>> loss(torch.tensor([0.5]), torch.tensor([[0.5, 0.5]]), Batch(torch.tensor([2]))).detach()
    tensor([0.6931])
    """

    dual_rates: ClassVar = {"level": 100}

    def __init__(self, n_users: int, *, temperature: float = 0.2, damping: float = 1.0):
        super().__init__()
        check(1, math.inf, "[)", n_users=n_users)
        check(0, math.inf, "()", temperature=temperature, damping=damping)
        self.temperature, self.damping = temperature, damping
        self.level = nn.Parameter(torch.zeros(n_users))

    @guarded_forward
    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        batch = check_batch(batch, pos, neg, users=len(self.level))
        level = dual_rows(self.level, batch.users, rate=batch.rate)
        above = level.detach() - self.level.detach().mean()
        rate = _exp_minus_lambert(above / self.damping) / self.temperature
        value = (neg * rate[..., None]).logsumexp(-1) - pos / self.temperature
        own = (log_mean_exp(neg) - pos).detach()
        return fitted(value, (level - own).square() / 2)
