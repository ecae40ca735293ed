"""What every classical model must keep, as checks that anyone can run."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from drrl_core import registry
from drrl_core.classical import Scorer, lookup
from drrl_core.testing.backbone_checks import PAIRS

Build = Callable[[csr_array], Scorer]  # of train pairs, from one seed


def _shapes(build: Build) -> None:
    found = build(csr_array(PAIRS))(np.array([6, 0]))
    assert isinstance(found, Tensor) and found.shape == (2, 5), "a row a user, a column an item"
    assert found.is_floating_point() and found.isfinite().all(), "scores are finite real numbers"


def _start(build: Build) -> None:
    first, again = (build(csr_array(PAIRS))(np.arange(7)) for _ in range(2))
    assert torch.equal(first, again), "one seed gives two models"


def _own_rows(build: Build) -> None:
    model = build(csr_array(PAIRS))
    every, one = model(np.arange(7)), model(np.array([3]))
    torch.testing.assert_close(one[0], every[3], rtol=1e-4, atol=1e-5)


def _written_to(build: Build) -> None:
    model = build(csr_array(PAIRS))
    kept = model(np.arange(7)).clone()
    model(np.arange(7)).fill_(-1)
    assert torch.equal(model(np.arange(7)), kept), "the array of scores is the model's own"


def _no_pair_at_all(build: Build) -> None:
    pairs = PAIRS.copy()
    pairs[3], pairs[:, 2] = 0, 0
    for each in (pairs, np.zeros((1, 1), np.float32)):
        assert build(csr_array(each))(np.arange(len(each))).isfinite().all()


CHECKS: dict[str, Callable[[Build], None]] = {
    "called with users, it gives their scores of all items": _shapes,
    "it is a function of torch's seed": _start,
    "a user's scores do not depend on who else is asked for": _own_rows,
    "its scores may be written to": _written_to,
    "a user and an item without a pair are finite": _no_pair_at_all,
}


def check_classical(
    model: str | Callable[..., Any], hyper: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Check that a classical model keeps what the ranking relies on.

    Args:
        model: a name in the registry, or a function of the train pairs.
        hyper: hyper-parameters beside the defaults.

    Raises:
        ValueError: with every check (`CHECKS`) that failed, and how.

    >>> check_classical("ease", {"l2": 10.0})
    """
    made: Any = lookup(model).factory if isinstance(model, str) else model
    registry.check_hyperparameters(made)
    if [each.name for each in registry.positional(made)] != ["train"]:
        raise ValueError(
            f"a classical model is a function of (train), with hyper-parameters after a *; not so "
            f"{made.__name__}"
        )

    def build(train: csr_array) -> Scorer:
        torch.manual_seed(3)
        found: Scorer = made(train, **hyper)
        return found

    with torch.random.fork_rng(devices=[]):
        complaint = f"{made.__name__} is no model that can be ranked with"
        registry.run_checks(complaint, CHECKS, build)
