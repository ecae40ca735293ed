"""Losses of single scores and of pairs: MSE, BCE, gBCE, BPR."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from drrl_core.losses._inputs import Batch, check, check_rows, guarded, guarded_forward
from drrl_core.losses._parts import count_negatives, mean_negatives
from drrl_core.losses.registry import RATE, Range, Space, entry

DOT_SPACE: Space = {"train.lr": RATE, "train.l2": Range(1e-6, 1e-1, True)}
DOT = {"similarity": "dot", "negatives": 1, "search": DOT_SPACE}


@entry("mse", label="MSE", colour="#949494", **DOT)
@guarded
def mse_loss(pos: Tensor, neg: Tensor) -> Tensor:
    """Mean squared error: ((σ(p) - 1)² + mean_j σ(n_j)²) / 2. Source: Pan et al., 2008.

    >>> import torch
    >>> mse_loss(torch.tensor([0.0]), torch.tensor([[0.0]]))
    tensor([0.2500])
    """
    return ((pos.sigmoid() - 1).square() + mean_negatives(neg.sigmoid().square(), neg)) / 2


@entry("bce", label="BCE", colour="#707070", **DOT)
@guarded
def bce_loss(pos: Tensor, neg: Tensor) -> Tensor:
    """Binary cross-entropy: (softplus(-p) + mean_j softplus(n_j)) / 2. Source: Johnson, 2014.

    >>> import torch
    >>> bce_loss(torch.tensor([0.0]), torch.tensor([[0.0]]))
    tensor([0.6931])
    """
    return (softplus(-pos) + mean_negatives(softplus(neg), neg)) / 2


@entry(
    "gbce",
    label="gBCE",
    colour="#8C7A21",
    similarity="dot",
    search={"loss.calibration": Range(0, 1), **DOT_SPACE},
)
class GBCE(nn.Module):
    """gBCE: (β·softplus(-p) + Σ_j softplus(n_j))/(N + 1), β = 1 - t·(1 - α), α = N/(n - 1).

    Binary cross-entropy of many negatives, its pull divided as the negatives were: at t = 1 they
    are pushed as hard for each unit of pull as if all n items had been drawn, however few were.
    Source: gSASRec (Petrov and Macdonald, RecSys 2023), where β = α·(t·(1 - 1/α) + 1/α).

    Args:
        n_items: n >= 1, of which each example sees N, masked ones not counted; α is at most 1.
        calibration: t in [0, 1], dimensionless; 0 is binary cross-entropy, summed.

    Returns:
        (B,) nats.

    Raises:
        ValueError: a value out of range, or a row without a negative.

    >>> loss = GBCE(3, calibration=1.0)  # one of two was drawn: β = 1/2
    >>> loss(torch.tensor([0.0]), torch.tensor([[0.0]]))  # 3/4·log 2
    tensor([0.5199])
    """

    def __init__(self, n_items: int, *, calibration: float = 0.75):
        super().__init__()
        check(1, math.inf, "[)", n_items=n_items)
        check(0, 1, "[]", calibration=calibration)
        self.n_items, self.calibration = n_items, calibration

    @guarded_forward
    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        check_rows(neg.amax(-1), neg)
        count = count_negatives(neg)
        drawn = (count / max(self.n_items - 1, 1)).clamp_max(1)
        pull = (1 - self.calibration * (1 - drawn)) * softplus(-pos)
        return (pull + torch.where(neg != -math.inf, softplus(neg), 0).sum(-1)) / (count + 1)


@entry("bpr", label="BPR", colour="#4D4D4D", **DOT)
@guarded
def bpr_loss(pos: Tensor, neg: Tensor) -> Tensor:
    """Bayesian personalised ranking: mean_j softplus(n_j - p). Source: Rendle et al., 2009.

    >>> import torch
    >>> bpr_loss(torch.tensor([1.0]), torch.tensor([[1.0]]))
    tensor([0.6931])
    """
    return mean_negatives(softplus(neg - pos[..., None]), neg)
