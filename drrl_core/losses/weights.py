"""How much each negative is listened to, by any loss."""

from collections.abc import Callable

import torch
from torch import Tensor

from drrl_core.losses._inputs import Batch
from drrl_core.losses._parts import mean_negatives


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
    with torch.enable_grad():
        neg = neg.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(pos.detach(), neg, batch).sum(), neg)
    wide = torch.promote_types(neg.dtype, torch.float32)  # as in `guard`
    mean = mean_negatives(slope.to(wide), neg.detach().to(wide))[..., None]
    return torch.where(mean == 0, 0, slope / mean)
