"""Losses that read a number of each user off the scores beside the training: SL@K, Talos.

The number moves by a fit of its own, and the model's slopes take it as given.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, relu

from drrl_core.losses._inputs import Batch, check, check_batch, guarded_forward
from drrl_core.losses._parts import dual_rows, fitted, mean_negatives
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
    colour="#4C9F9F",
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
    colour="#A05A78",
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
