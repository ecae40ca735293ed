"""Losses that truncate: CCL and LLPAUC give the lower negatives no weight."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from drrl_core.losses._inputs import Batch, check, guarded, guarded_forward
from drrl_core.losses._parts import mean_negatives, rescale
from drrl_core.losses.registry import RATE, Range, entry


@entry(
    "ccl",
    label="CCL",
    colour="#D55E00",
    order=math.inf,
    search={
        "loss.margin": Range(-0.3, 0.9),
        "loss.weight": Range(2, 150, True),
        "train.lr": RATE,
    },
)
@guarded
def cosine_contrastive_loss(
    pos: Tensor, neg: Tensor, *, margin: float = 0.4, weight: float = 100.0, push: float = 1.0
) -> Tensor:
    """Cosine Contrastive Loss: (1 - p) + m·α·mean_j (n_j - β)₊.

    Order ∞ of the family: an upper bound of the worst case over the ball max log Q/P <= log α,
    tight at the margin that leaves a share 1/α of the negatives active. Source: Eq. 2, Lemma 1.

    Args:
        pos: (B,) cosines.
        neg: (B, N) cosines, -inf = masked.
        margin: β in [-1, 1], in units of score. Negatives below it are truncated.
        weight: α >= 0, dimensionless; above 1 it is a ball of radius log α nats.
        push: m > 0, as in `softmax_loss`. At a given β the product m·α alone counts, so that a
            search of α turns m too; there is no other way to tune it.

    Returns:
        (B,) in units of score.

    >>> cosine_contrastive_loss(torch.tensor([0.9]), torch.tensor([[0.1, 0.7]]), margin=0.5,
    ...                         weight=2)
    tensor([0.3000])
    """
    check(-1, 1, "[]", margin=margin)
    check(0, math.inf, "[)", weight=weight)
    check(0, math.inf, "()", push=push)
    return (1 - pos) + push * weight * mean_negatives(relu(neg - margin), neg)


@entry(
    "llpauc",
    label="LLPAUC",
    colour="#B88000",
    version=2,
    search={
        "loss.share_pos": Range(0.1, 1),
        "loss.share_neg": Range(0.005, 0.5, True),
        "train.dual_lr": Range(1e-4, 1e-1, True),
        "train.lr": RATE,
    },
)
class LLPAUC(nn.Module):
    """Lower-left partial AUC as a min-max over scalars.

    P = σ(p), M = σ(n), sp(x) = log(1 + e^(5x))/5, and the value is
    -s⁺ - sp(-(P-a)² + 2(1+γ)P - s⁺)/α + s⁻ + mean_j sp((M-b)² + 2(1+γ)M - s⁻)/β - γ²
    - θ_b(b - 1 - γ) + θ_a(a + γ): minimised over a, b, s⁻ and θ, maximised over γ and s⁺, by Adam,
    these and s⁻ at twice the rate; its authors' rate is the model's. Source: LLPAUC, WWW 2024, and
    its published code for the θ.

    Args:
        share_pos, share_neg: α and β in (0, 1], the shares of positives and negatives that count.

    >>> LLPAUC()(torch.tensor([0.0]), torch.tensor([[0.0]]))
    tensor([15.4922], grad_fn=<AddBackward0>)
    """

    dual_optimiser = "adam"
    #        start, lowest, highest, rate (below zero: maximises)
    SCALARS: ClassVar = {
        "a": (1.0, 0, 1, 1),
        "b": (0.0, 0, 1, 1),
        "gamma": (0.0, -1, 1, -2),
        "s_pos": (0.5, -1, 4, -2),
        "s_neg": (0.5, 0, 5, 2),
        "theta_a": (0.5, 0, 1e9, 1),
        "theta_b": (0.5, 0, 1e9, 1),
    }
    dual_rates: ClassVar = {name: abs(rate) for name, (*_, rate) in SCALARS.items()}

    def __init__(self, *, share_pos: float = 0.5, share_neg: float = 0.05):
        super().__init__()
        check(0, 1, "(]", share_pos=share_pos, share_neg=share_neg)
        self.share_pos, self.share_neg = share_pos, share_neg
        for name, (start, *_) in self.SCALARS.items():
            self.register_parameter(name, nn.Parameter(torch.tensor(start)))

    @guarded_forward
    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        a, b, gamma, s_pos, s_neg, theta_a, theta_b = (
            rescale(getattr(self, name), math.copysign(1, rate))
            for name, (*_, rate) in self.SCALARS.items()
        )
        p, m = pos.sigmoid(), neg.sigmoid()
        high = softplus(-(p - a).square() + 2 * (1 + gamma) * p - s_pos, beta=5)
        low = softplus((m - b).square() + 2 * (1 + gamma) * m - s_neg, beta=5)
        constraint = theta_a * (a + gamma) - theta_b * (b - 1 - gamma) - gamma.square()
        return (
            s_neg
            + mean_negatives(low, neg) / self.share_neg
            - s_pos
            - high / self.share_pos
            + constraint
        )

    @torch.no_grad()
    def project(self) -> None:
        """Clip each scalar to its range, after a step."""
        for name, (_, lowest, highest, _) in self.SCALARS.items():
            getattr(self, name).clamp_(lowest, highest)
