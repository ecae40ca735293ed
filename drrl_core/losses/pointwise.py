"""Losses of single scores and of pairs: MSE, BCE, BPR."""

from torch import Tensor
from torch.nn.functional import softplus

from drrl_core.losses._inputs import guarded
from drrl_core.losses._parts import mean_negatives
from drrl_core.losses.registry import RATE, Range, entry

DOT = {
    "similarity": "dot",
    "negatives": 1,
    "search": {"train.lr": RATE, "train.l2": Range(1e-6, 1e-1, True)},
}


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


@entry("bpr", label="BPR", colour="#4D4D4D", **DOT)
@guarded
def bpr_loss(pos: Tensor, neg: Tensor) -> Tensor:
    """Bayesian personalised ranking: mean_j softplus(n_j - p). Source: Rendle et al., 2009.

    >>> import torch
    >>> bpr_loss(torch.tensor([1.0]), torch.tensor([[1.0]]))
    tensor([0.6931])
    """
    return mean_negatives(softplus(neg - pos[..., None]), neg)
