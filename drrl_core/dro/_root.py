"""Roots of many functions at once, one a row."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _part(given: Any, kept: Tensor) -> Any:
    """Some rows of whatever is given for each; columns are taken together, which is faster."""
    if given is None or isinstance(given, Tensor):
        return given if given is None else given.index_select(0, kept)
    alike = [isinstance(x, Tensor) and x.shape[-1] == 1 and x.is_floating_point() for x in given]
    columns = torch.stack([x.squeeze(-1) for x, column in zip(given, alike, strict=True) if column])
    columns = iter(columns.index_select(1, kept).unsqueeze(-1))
    parts = [
        next(columns) if column else _part(x, kept) for x, column in zip(given, alike, strict=True)
    ]
    return type(given)._make(parts) if hasattr(given, "_make") else tuple(parts)


class Remaining:
    """The rows that are not done: on a CPU the others are left out, a GPU would wait to know them.

    Every row goes its own way: leaving it out is no different from going on.
    """

    def __init__(self, *x: Tensor):
        self.found, self.looks = torch.cat(x, -1), x[0].device.type == "cpu"
        self.left: Tensor | None = None

    def drop(self, done: Tensor, x: tuple[Tensor, ...], state: Any, step: int) -> Any:
        """The state of the rows that are left, or None if there are none; `x` is what is sought."""
        if not self.looks and step % 16 < 15:
            return state
        many = int(torch.count_nonzero(done))
        if many < len(done) and (2 * many <= len(done) or not self.looks):
            return state
        self.found = self.all(*x)
        if many == len(done):
            return None
        kept = (~done).squeeze(-1).nonzero().squeeze(-1)
        self.left = kept if self.left is None else self.left[kept]
        return _part(state, kept)

    def all(self, *x: Tensor) -> Tensor:
        rows = torch.cat(x, -1)
        return rows if self.left is None else self.found.index_copy(0, self.left, rows)


def root(
    excess: Callable[..., Tensor],
    given: tuple[Any, ...],
    lo: Tensor,
    hi: Tensor,
    x: Tensor,
    slope: float | Tensor,
    noise: Tensor,
    steps: int,
) -> Tensor:
    """Zero of excess(x, *given), decreasing between lo and hi, for all rows from a first guess x.

    Inverse quadratic interpolation through the last three points (at first the secant, and before
    it a line of the given slope), bisection where that leaves the bracket or gains too little. A
    row is done when its excess is mere noise, or will be after the next step.
    """
    eps, rest = torch.finfo(x.dtype).eps, Remaining(x)
    done = torch.zeros_like(x, dtype=torch.bool)
    x1 = f1 = f2 = size1 = inverse1 = x  # of earlier steps
    for step in range(steps):
        f = excess(x, *given)
        size, right = f.abs(), f > 0
        lo, hi = torch.where(right, x, lo), torch.where(right, hi, x)
        inverse = (x - x1) / (f - f1) if step else torch.ones_like(x) / slope
        target = x - f * inverse
        if step > 1:
            target = target + f * f1 * (inverse - inverse1) / (f - f2)
        good = (target > lo) & (target < hi)
        if step > 1:
            good &= size < (0.9 if step < 6 else 0.5) * size1
        away = 1e-3 + 8 * (x - x1).abs() if step else math.inf  # the bracket may reach far out
        target = torch.where(good, target, ((lo + hi) / 2).clamp(x - away, x + away))
        done |= size <= noise
        target = torch.where(done, x, target)
        done |= hi - lo <= 2 * eps * x.abs()
        if step:  # an excess falls by more from step to step
            done |= good & (8 * size * size <= noise * size1) & (size1 < 0.3)
        x1, f1, f2, size1, inverse1, x = x, f, f1, size, inverse, target
        state: Any = given, lo, hi, x, x1, f1, f2, size1, inverse1, noise, done
        state = rest.drop(done, (x,), state, step)
        if state is None:
            return rest.found
        given, lo, hi, x, x1, f1, f2, size1, inverse1, noise, done = state
    return rest.all(x)
