"""What every loss must keep, as checks that anyone can run.

Scores are within the cosines, users and negatives repeat, and what a loss owns is moved off its
start, so that no two rows are alike.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.testing import assert_close

from drrl_core import registry
from drrl_core.losses import NOTHING, Batch, construct, guarded, lookup

USERS, ITEMS = 5, 9
Gradients = list[Tensor | None]


class Subject(NamedTuple):
    """A loss under test: its modules by seed, and whether a row's value depends on it alone.

    `build(0, 0.0)` leaves what the loss owns at its start.
    """

    build: Callable[..., nn.Module]
    rowwise: bool = True


def subject(factory: Callable[..., Any], hyper: Mapping[str, Any], rowwise: bool) -> Subject:
    """A loss with hyper-parameters as the checks take it."""

    def build(seed: int, far: float = 0.05) -> nn.Module:
        torch.manual_seed(seed)
        loss = construct(factory, hyper, n_users=USERS, n_items=ITEMS)
        with torch.no_grad():
            for value in loss.parameters():
                value.add_(far * torch.randn_like(value))
        return loss

    return Subject(build, rowwise)


def problem(
    size: int = 6,
    count: int = 8,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    pool: bool = False,
) -> tuple[Tensor, Tensor, Batch]:
    """Scores of a batch, (size,) and (size, count), and who they belong to."""
    rng = torch.Generator().manual_seed(seed)
    pos = torch.rand(size, generator=rng, dtype=torch.float64) * 1.8 - 0.9
    neg = torch.rand(size, count, generator=rng, dtype=torch.float64) * 1.8 - 0.9
    users = torch.randint(USERS, (size,), generator=rng)
    items = torch.randint(ITEMS, (count,) if pool else (size, count), generator=rng)
    popularity = torch.arange(ITEMS)
    batch = Batch(users, users % ITEMS, items, popularity=popularity)
    return pos.to(dtype), neg.to(dtype), batch


def gradients(loss: nn.Module, pos: Tensor, neg: Tensor, batch: Batch) -> tuple[Tensor, Gradients]:
    """Value, and the gradients of its mean for the scores and for what the loss owns."""
    loss.zero_grad()
    pos, neg = pos.clone().requires_grad_(), neg.clone().requires_grad_()
    value = loss(pos, neg, batch)
    value.mean().backward()
    return value.detach(), [pos.grad, neg.grad, *(p.grad for p in loss.parameters())]


def assert_same(one: Sequence[Tensor | None], other: Sequence[Tensor | None], **close: Any) -> None:
    """Two lists of gradients are equal; where one has none, the other has none."""
    for a, b in zip(one, other, strict=True):
        if a is not None or b is not None:
            assert_close(a, b, **close)


# ---------------------------------------------------------------------------------------------
# The checks: AssertionError, or whatever the loss itself raises


def _one_value_an_example(loss: Subject) -> None:
    made = loss.build(0)
    for dtype in (torch.float32, torch.float64):
        pos, neg, batch = problem(dtype=dtype)
        value = made(pos, neg, batch)
        assert value.shape == (6,), f"6 examples have a value of shape {tuple(value.shape)}"
        assert value.dtype == dtype, f"scores in {dtype} have a value in {value.dtype}"


def _own_row_alone(loss: Subject) -> None:
    made, (pos, neg, batch) = loss.build(0).double(), problem()
    value = made(pos, neg, batch)
    for i in range(len(pos)) if loss.rowwise else ():
        row = slice(i, i + 1)
        one = batch._replace(
            users=batch.users[row], pos_items=batch.pos_items[row], neg_items=batch.neg_items[row]
        )
        assert_close(made(pos[row], neg[row], one), value[row])


def _gradient(loss: Subject) -> None:
    made, (pos, neg, batch) = loss.build(0).double(), problem()
    leaves = pos.requires_grad_(), neg.requires_grad_()
    torch.autograd.gradcheck(lambda p, n: made(p, n, batch), leaves)


def _direction(loss: Subject) -> None:
    made, (pos, neg, batch) = loss.build(0).double(), problem()
    _, (to_pos, to_neg, *_) = gradients(made, pos, neg, batch)
    assert to_pos is not None and (to_pos < 0).any() and (to_pos <= 0).all(), "the positive's slope"
    assert to_neg is not None and (to_neg >= 0).all(), "a negative's slope"


def _order_of_negatives(loss: Subject) -> None:
    made, (pos, neg, batch) = loss.build(0).double(), problem()
    shuffle = torch.randperm(neg.shape[1])
    other = batch._replace(neg_items=batch.neg_items[:, shuffle])
    assert_close(made(pos, neg[:, shuffle], other), made(pos, neg, batch))


def _masked(loss: Subject, pool: bool = False) -> None:
    made = loss.build(0).double()
    pos, neg, batch = problem(pool=pool)
    fewer = batch._replace(neg_items=batch.neg_items[..., :5])
    value, grads = gradients(made, pos, neg[:, :5], fewer)
    hidden = neg.clone()
    hidden[:, 5:] = -math.inf
    masked_value, (to_pos, to_neg, *owned) = gradients(made, pos, hidden, batch)
    assert_close(masked_value, value)
    assert to_neg is not None and (to_neg[:, 5:] == 0).all(), "a masked negative has a slope"
    assert_same([to_pos, to_neg[:, :5], *owned], grads)


def _masked_differently(loss: Subject) -> None:
    made = loss.build(0).double()
    pos, neg, batch = problem()
    neg[0, 3:], neg[1, :7], neg[2, ::2] = -math.inf, -math.inf, -math.inf
    value = made(pos, neg, batch)
    for i in range(3):
        kept = neg[i] > -math.inf
        row = neg.clone()[:, : kept.sum()]  # the others stay in the batch, for pooled positives
        items = batch.neg_items[:, : kept.sum()].clone()
        row[i], items[i] = neg[i, kept], batch.neg_items[i, kept]
        alone = made(pos, row.clamp_min(-1), batch._replace(neg_items=items))
        assert_close(value[i], alone[i])


def _shared_pool(loss: Subject) -> None:
    made, (pos, neg, batch) = loss.build(0).double(), problem(pool=True)
    rows = batch._replace(neg_items=batch.neg_items.expand(len(pos), -1))
    value, grads = gradients(made, pos, neg, batch)
    row_value, row_grads = gradients(made, pos, neg, rows)
    assert_close(value, row_value)
    assert_same(grads, row_grads)


def _state(loss: Subject) -> None:
    made, other = loss.build(0), loss.build(1)
    pairs = zip(made.parameters(), other.parameters(), strict=True)
    assert all((a != b).all() for a, b in pairs)
    other.load_state_dict(made.state_dict())
    args = problem(dtype=torch.float32)
    assert_close(other(*args), made(*args), rtol=0, atol=0)


def finite_at_the_worst(loss: Subject, dtype: torch.dtype = torch.float32) -> None:
    """Scores exactly ±1, all negatives truncated, one negative, ties, masks."""
    made, inf = loss.build(0, 0.0), math.inf
    rows = [
        [-1.0] * 4,
        [1.0] * 4,
        [1.0, -1.0, -1.0, -1.0],
        [1.0, 1.0, -1.0, -inf],
        [-1.0, -inf, -inf, -inf],
        [1.0, -inf, -inf, -inf],
        [0.0] * 4,
    ]
    neg = torch.tensor(rows * 2, dtype=dtype)
    pos = torch.tensor([1.0] * 7 + [-1.0] * 7, dtype=dtype)
    users = torch.arange(len(pos)) % USERS
    for cut in (4, 1):
        items = torch.randint(ITEMS, (len(pos), cut))
        batch = Batch(users, users, items, popularity=torch.arange(ITEMS))
        with torch.autograd.set_detect_anomaly(True):  # nor a NaN on the way that a 0 would hide
            value, grads = gradients(made, pos, neg[:, :cut].contiguous(), batch)
        assert value.isfinite().all(), f"values {value.tolist()}"
        assert all(g.isfinite().all() for g in grads if g is not None), "a gradient is not finite"


CHECKS: dict[str, Callable[[Subject], None]] = {
    "one value an example, in the scores' type": _one_value_an_example,
    "a value depends on its own row alone (or say rowwise=False)": _own_row_alone,
    "autograd's gradient is that of finite differences": _gradient,
    "it falls as the positive rises, and never as a negative does": _direction,
    "the order of the negatives does not matter": _order_of_negatives,
    "a masked negative (-inf) counts for nothing": _masked,
    "a masked negative of a pool that all share counts for nothing": partial(_masked, pool=True),
    "rows may be masked differently": _masked_differently,
    "negatives named once for all rows are those named for each": _shared_pool,
    "its state can be saved and read": _state,
    "value and gradient are finite at scores of ±1 in float32": finite_at_the_worst,
}


def _check_signature(factory: Callable[..., Any]) -> None:
    """Nothing is called unless it looks like a loss."""
    registry.check_hyperparameters(factory)
    given = [p.name for p in registry.positional(factory)]
    if not inspect.isclass(factory):
        if given not in (["pos", "neg"], ["pos", "neg", "batch"]):
            raise ValueError(
                f"a loss is a function of (pos, neg) or (pos, neg, batch), with hyper-parameters "
                f"after a *, not of ({', '.join(given)})"
            )
    elif not issubclass(factory, nn.Module):
        raise ValueError(f"{factory.__name__} must be a torch.nn.Module, or a function")
    elif not {*given} <= {"n_users", "n_items"}:
        raise ValueError(
            f"{factory.__name__} may ask for n_users and n_items, and for hyper-parameters after "
            f"a *, not for {', '.join(given)}"
        )


def check_loss(
    loss: str | Callable[..., Any],
    hyper: Mapping[str, Any] = NOTHING,
    *,
    rowwise: bool | None = None,
) -> None:
    """Check that a loss keeps what the trainer relies on; takes about a second.

    Args:
        loss: a name in the registry, a function of (pos, neg) or (pos, neg, batch), or a class
            whose modules are called with (pos, neg, batch).
        hyper: hyper-parameters beside the defaults.
        rowwise: an example's value depends on its own row alone; by default as the registry says,
            and True for what is not in it.

    Raises:
        ValueError: with every check (`CHECKS`) that failed, and how.

    >>> check_loss("ccl", {"margin": 0.2})
    >>> check_loss(lambda pos, neg: neg.logsumexp(-1) - pos)
    """
    if isinstance(loss, str):
        line = lookup(loss)
        loss, rowwise = line.factory, line.rowwise if rowwise is None else rowwise
    else:
        _check_signature(loss)
        loss = loss if inspect.isclass(loss) else guarded(loss)
    with torch.random.fork_rng(devices=[]):
        it = subject(loss, hyper, rowwise is None or rowwise)
        registry.run_checks(f"{loss.__name__} is no loss that can be trained", CHECKS, it)
