"""How much each negative is listened to, and how hard negatives are pushed, by any loss."""

from collections.abc import Callable

import torch
from torch import Tensor

from drrl_core.losses._inputs import Batch
from drrl_core.losses._parts import mean_negatives


def slopes(
    loss: Callable[..., Tensor], pos: Tensor, neg: Tensor, batch: Batch | None = None
) -> tuple[Tensor, Tensor]:
    """The pull -∂L/∂p of each positive and the push ∂L/∂n_j of each negative, by autograd.

    Args:
        loss: called as loss(pos, neg, batch). pos: (B,). neg: (B, N), -inf = masked.

    Returns:
        Of the shapes of pos and neg, in units of the loss per score, of the sum over the rows.

    >>> from drrl_core.losses import make
    >>> slopes(make("ccl", margin=0.5, weight=4), torch.tensor([0.9]), torch.tensor([[0.1, 0.7]]))
    (tensor([1.]), tensor([[0., 2.]]))
    """
    with torch.enable_grad():
        pos, neg = (scores.detach().requires_grad_() for scores in (pos, neg))
        pull, push = torch.autograd.grad(loss(pos, neg, batch).sum(), (pos, neg))
    return -pull, push


def weights_of(push: Tensor, neg: Tensor) -> Tensor:
    """The push of `slopes`, scaled to mean 1 over the negatives of each row, (B, N)."""
    wide = torch.promote_types(neg.dtype, torch.float32)  # as in `guard`
    mean = mean_negatives(push.to(wide), neg.detach().to(wide))[..., None]
    return torch.where(mean == 0, 0, push / mean)


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

    >>> from drrl_core.losses import make
    >>> negative_weights(make("ccl", margin=0.5), torch.tensor([0.9]), torch.tensor([[0.1, 0.7]]))
    tensor([[0., 2.]])
    """
    return weights_of(slopes(loss, pos, neg, batch)[1], neg)


def mass(
    loss: Callable[..., Tensor], pos: Tensor, neg: Tensor, batch: Batch | None = None
) -> Tensor:
    """How hard a row's negatives are pushed for each unit of pull: m = Σ_j ∂L/∂n_j / (-∂L/∂p).

    1 for every loss of the differences n - p alone, such as BPR, PSL and InfoNCE, for SL, and for
    an exact ball. Elsewhere it is a dial, often an unseen one: CCL's is α times the share of the
    negatives above the margin, DrRL's is 1 at the best β alone. At m other than 1 a number added
    to all of a user's scores changes the loss, so that a score says how popular an item is, too.

    Args:
        loss: called as loss(pos, neg, batch). pos: (B,). neg: (B, N), -inf = masked.

    Returns:
        (B,), dimensionless; not finite where the positive is not pulled.

    >>> from drrl_core.losses import make
    >>> pos, neg = torch.tensor([0.9]), torch.tensor([[0.1, 0.7]])
    >>> mass(make("sl", push=1.5), pos, neg), mass(make("ccl", margin=0.5, weight=4), pos, neg)
    (tensor([1.5000]), tensor([2.]))
    """
    pull, push = slopes(loss, pos, neg, batch)
    return push.sum(-1) / pull
