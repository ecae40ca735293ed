"""What every loss is given: scores and a batch, and how wrong ones are refused."""

import functools
import math
from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

ABSENT: Any = None  # what a loss asks for, `check_batch` has found to be there


class Batch(NamedTuple):
    """Who is in the batch: users (B,), pos_items (B,), neg_items (B, N) or (M,), as indices.

    `rate` (B,) is B over the number of examples of the row's user, and `neg_rate` (M,) over the
    number of examples that an item of a pool is an unmasked negative of, see `dual_rows`; they need
    not be given, but a part of a batch keeps the whole's. `popularity` (n_items,) is the number of
    train pairs of every item, which a loss with a prior asks for.
    """

    users: Tensor
    pos_items: Tensor = ABSENT
    neg_items: Tensor = ABSENT
    rate: Tensor = ABSENT
    neg_rate: Tensor | None = None
    popularity: Tensor = ABSENT

    def part(self, rows: Tensor | slice) -> "Batch":
        """Some rows of the batch; a pool (M,) is everybody's."""
        own = self.neg_items if self.neg_items.dim() == 1 else self.neg_items[rows]
        return self._replace(
            users=self.users[rows],
            pos_items=self.pos_items[rows],
            neg_items=own,
            rate=self.rate[rows],
        )


def check(low: float, high: float, ends: str, **given: float) -> None:
    """Refuse a hyper-parameter outside the interval; `ends` says which ends belong, like "(]"."""
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} must be a number, not {value!r}")
        at_end = (value == low and ends[0] == "[") or (value == high and ends[1] == "]")
        if not (low < value < high or at_end):
            interval = f"{ends[0]}{low:g}, {high:g}{ends[1]}"
            raise ValueError(f"{name} must lie in {interval}, not {value!r}")


def unseen(values: Tensor) -> bool:
    """Whether values are not to be looked at: on a GPU, or where torch transforms the program."""
    return (
        values.device.type != "cpu"
        or torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
    )


def check_scores(pos: Tensor, neg: Tensor) -> None:
    """Refuse scores that broadcasting would turn into another loss without a word."""
    for name, scores in (("pos", pos), ("neg", neg)):
        if not scores.is_floating_point():
            raise ValueError(f"{name} holds {scores.dtype}: give floats, such as {name}.float()")
    if neg.dim() == 0 or neg.shape[-1] == 0:
        raise ValueError(f"neg has shape {tuple(neg.shape)}: give at least one negative a row")
    if pos.shape != neg.shape[:-1]:
        raise ValueError(
            f"pos has shape {tuple(pos.shape)} and neg {tuple(neg.shape)}: give one positive score "
            f"a row of negatives, so pos of shape {tuple(neg.shape[:-1])}"
        )


def check_rows(value: Tensor, neg: Tensor) -> None:
    """Refuse a row without a negative; its value is not finite, which the sum is quick to tell."""
    if unseen(value) or math.isfinite(value.detach().sum()):
        return
    if (empty := (neg == -math.inf).all(-1)).any():
        row = empty.nonzero()[0].tolist()
        raise ValueError(
            f"neg{row} is a row of -inf, all its negatives masked, so that it has no loss: leave "
            f"out such rows ({int(empty.sum())} of {empty.numel()}), or draw more negatives"
        )


def check_batch(batch: Batch | None, pos: Tensor, neg: Tensor, **sizes: int) -> Batch:
    """The batch, or ValueError where it has not the indices that a loss needs.

    `sizes` are what each is below.
    """
    for name, size in sizes.items():
        index = getattr(batch, name, None)
        shapes = [pos.shape] if name == "users" else [neg.shape, neg.shape[-1:]]
        allowed = " or ".join(str(tuple(shape)) for shape in shapes)
        if index is None:
            raise ValueError(
                f"batch.{name} is missing, by which this loss finds what it owns: call it as "
                f"loss(pos, neg, Batch(users, pos_items, neg_items)), {name} of shape {allowed}"
            )
        if index.shape not in shapes:
            raise ValueError(
                f"batch.{name} has shape {tuple(index.shape)}, but pos {tuple(pos.shape)} and neg "
                f"{tuple(neg.shape)}: give {name} of shape {allowed}"
            )
        if index.is_floating_point() or index.dtype == torch.bool:
            raise ValueError(f"batch.{name} holds {index.dtype}: give indices, such as int64")
        if index.numel() and not unseen(index):
            low, high = (end.item() for end in index.aminmax())
            if low < 0 or high >= size:
                raise ValueError(
                    f"batch.{name} goes from {low} to {high}, but must lie in [0, {size}): the "
                    f"loss was made for {size} of them"
                )
    assert batch is not None  # which is refused above
    return batch


def guard(loss: Callable[[Tensor, Tensor], Tensor], pos: Tensor, neg: Tensor) -> Tensor:
    """The loss of checked scores, in their type.

    Halves are computed with in float32: float16 counts to 65,504, and bfloat16 keeps three digits.
    """
    check_scores(pos, neg)
    dtype = torch.promote_types(pos.dtype, neg.dtype)
    wide = torch.promote_types(dtype, torch.float32)
    value = loss(pos.to(wide), neg.to(wide))
    check_rows(value, neg)
    return value.to(dtype)


def guarded(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """For a function of (pos, neg, ...)."""

    @functools.wraps(loss)
    def guarded(pos: Tensor, neg: Tensor, *rest: Any, **hyper: Any) -> Tensor:
        return guard(lambda p, n: loss(p, n, *rest, **hyper), pos, neg)

    return guarded


def guarded_forward(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """For a module's method of (pos, neg, batch)."""

    @functools.wraps(forward)
    def guarded(self: nn.Module, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        return guard(lambda p, n: forward(self, p, n, batch), pos, neg)

    return guarded
