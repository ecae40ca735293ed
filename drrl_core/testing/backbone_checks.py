"""What every backbone must keep, as checks that anyone can run."""

import copy
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from drrl_core import registry
from drrl_core.backbones import lookup

Array = np.ndarray[Any, Any]

# No user and no item without a pair; user 0 has all items, item 4 has one user beside that.
PAIRS = np.eye(7, 5, dtype=np.float32) + np.eye(7, 5, -5, dtype=np.float32)
PAIRS[0] = 1
Build = Callable[[int, Array], Any]  # of a seed and of train pairs, dense


def _shapes_and_gradients(build: Build) -> None:
    model = build(0, PAIRS)
    users, items = model()
    assert users.shape[0] == 7 and items.shape[0] == 5, "a row a user, and a row an item"
    assert users.shape[1:] == items.shape[1:] and users.dim() == 2, "rows of one length"
    (users.square().sum() + items.square().sum()).backward()
    for name, value in model.named_parameters():
        assert value.grad is not None and value.grad.abs().sum() > 0, f"{name} has no gradient"


def _start(build: Build) -> None:
    first, again, other = (build(seed, PAIRS)() for seed in (3, 3, 4))
    assert all(map(torch.equal, first, again)), "one seed gives two starts"
    assert not any(map(torch.equal, first, other)), "two seeds give one start"


def _raw_embeddings(build: Build) -> None:
    model = build(0, PAIRS)
    assert isinstance(model.users, Tensor) and isinstance(model.items, Tensor)
    assert len(model.users) == 7 and len(model.items) == 5
    penalty = model()[0].sum() * 0 + model.penalty(torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert penalty.shape == () and penalty.isfinite(), "penalty is not one finite number"


def _no_pair_at_all(build: Build) -> None:
    model = build(0, np.zeros((1, 1)))
    users, items = model()
    assert users.isfinite().all() and items.isfinite().all()
    (users.sum() + items.sum() + model.penalty(torch.tensor([0]), torch.tensor([0]))).backward()
    grads = [value.grad for value in model.parameters()]
    assert all(grad is None or grad.isfinite().all() for grad in grads)


def _state(build: Build) -> None:
    model, other = build(0, PAIRS).eval(), build(1, PAIRS).eval()
    other.load_state_dict(model.state_dict())
    assert all(map(torch.equal, model(), other()))


def _copies(build: Build) -> None:
    model = build(0, PAIRS)
    model()
    twin = copy.deepcopy(model)
    assert all(map(torch.equal, model.eval()(), twin.eval()()))
    with torch.no_grad():
        twin.users.zero_()
    assert model.users.abs().sum() > 0


def _moves(build: Build) -> None:
    model = build(0, PAIRS).eval()
    before, after = model(), model.double()()
    for old, new in zip(before, after, strict=True):
        assert new.dtype == torch.float64
        torch.testing.assert_close(old.double(), new, rtol=1e-5, atol=1e-6)
    model.to("meta")
    kept = [*model.parameters(), *model.buffers()]
    assert {value.device.type for value in kept} == {"meta"}, "a tensor stays where it was"


CHECKS: dict[str, Callable[[Build], None]] = {
    "a row a user, a row an item, and a gradient for every parameter": _shapes_and_gradients,
    "its start is a function of torch's seed": _start,
    "users and items are the raw embeddings, the penalty is a number": _raw_embeddings,
    "a user and an item without a pair are finite": _no_pair_at_all,
    "its state can be saved and read": _state,
    "a copy can be taken in the middle of a step": _copies,
    "type and device move all that it has": _moves,
}


def check_backbone(
    backbone: str | Callable[..., Any], hyper: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Check that a backbone keeps what the trainer relies on.

    Args:
        backbone: a name in the registry, or a class made by (n_users, n_items, train).
        hyper: hyper-parameters beside the defaults.

    Raises:
        ValueError: with every check (`CHECKS`) that failed, and how.

    >>> check_backbone("lightgcn", {"layers": 3})
    """
    made: Any = lookup(backbone).factory if isinstance(backbone, str) else backbone
    registry.check_hyperparameters(made)
    given = [each.name for each in registry.positional(made)]
    if given != ["n_users", "n_items", "train"] or not issubclass(made, nn.Module):
        raise ValueError(
            f"a backbone is a torch.nn.Module made by (n_users, n_items, train), with "
            f"hyper-parameters after a *; {made.__name__} is made by ({', '.join(given)})"
        )

    def build(seed: int, pairs: Array) -> Any:
        torch.manual_seed(seed)
        return made(*pairs.shape, csr_array(pairs), **hyper)

    with torch.random.fork_rng(devices=[]):
        complaint = f"{made.__name__} is no backbone that can be trained"
        registry.run_checks(complaint, CHECKS, build)
