"""What the functions of the family accept, checked in one place."""

import math

import torch
from torch import Tensor


def check_order(order: float) -> float:
    order = float(order)
    if not order >= 1:
        raise ValueError(f"order must lie in [1, inf], got {order}: use 1 for KL, inf for CVaR")
    return order


def check(bad: Tensor, message: str) -> None:
    """Refuse rows marked bad. Looks at the data, which a graph being traced cannot."""
    if not torch.compiler.is_compiling() and bad.any():
        row = tuple(bad.nonzero()[0].tolist())
        raise ValueError(f"{message} (row {row[0] if len(row) == 1 else row})")


def shaped(scores: Tensor) -> Tensor:
    """The scores in at least float32; of the right kind, their values not looked at."""
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        raise ValueError("scores must be a floating-point tensor of shape (..., n)")
    if scores.dim() == 0 or scores.shape[-1] == 0:
        raise ValueError(f"scores must have shape (..., n) with n >= 1, got {tuple(scores.shape)}")
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


def check_values(scores: Tensor) -> None:
    top = scores.detach().amax(-1)  # not a number if any score is
    if not torch.compiler.is_compiling() and top.isfinite().all():
        return
    check(top.isnan(), "scores must not be NaN; mask entries with -inf")
    check(top == math.inf, "scores must be finite, or -inf where masked, got inf")
    check(top == -math.inf, "scores must leave an entry unmasked (above -inf); drop the row")


def check_scores(scores: Tensor) -> Tensor:
    scores = shaped(scores)
    check_values(scores)
    return scores


def check_size(size: Tensor, ball: bool) -> None:
    """The radius of a ball or the temperature of a penalty, a column."""
    bad = ~((size >= 0 if ball else size > 0) & size.isfinite()).squeeze(-1)
    if ball:
        check(bad, "radius must lie in [0, inf) nats; 0 gives the plain mean")
    else:
        check(bad, "temperature must lie in (0, inf), in units of the scores")


def column_of(value: float | Tensor, name: str, scores: Tensor) -> Tensor:
    """A number per row of the scores, as a column."""
    column = torch.as_tensor(value, dtype=scores.dtype, device=scores.device)
    leading = scores.shape[:-1]
    try:
        return column.expand(leading).unsqueeze(-1)
    except RuntimeError:
        raise ValueError(
            f"{name} must be a number or broadcast to shape {tuple(leading)}, one a row of "
            f"scores, got shape {tuple(column.shape)}"
        ) from None


def mass_of(prior: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """P by its mean over the unmasked entries, and the scores, masked too where P is zero."""
    if not isinstance(prior, Tensor) or prior.requires_grad:
        raise ValueError("prior must be a tensor without a gradient: give prior.detach()")
    try:
        prior = prior.to(scores).expand_as(scores)
    except RuntimeError:
        raise ValueError(
            f"prior must have the shape {tuple(scores.shape)} of the scores, or broadcast to it, "
            f"got {tuple(prior.shape)}"
        ) from None
    kept = scores.detach() != -math.inf  # a NaN is no mask
    prior = torch.where(kept, prior, 0)
    part = prior / prior.abs().amax(-1, keepdim=True)  # its sum cannot overflow
    kept = kept & (part != 0)
    mass = part * (kept.sum(-1, keepdim=True) / part.abs().sum(-1, keepdim=True))
    return mass, torch.where(kept, scores, -math.inf)


def check_mass(mass: Tensor) -> None:
    check(
        ~(mass >= 0).all(-1),
        "prior must be finite, >= 0, and > 0 at one unmasked entry of each row at least",
    )


def check_radius(radius: float | Tensor, scores: Tensor) -> Tensor:
    column = column_of(radius, "radius", scores)
    check_size(column, ball=True)
    return column
