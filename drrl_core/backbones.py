"""Backbones: a model is called without arguments and gives its user and item tables.

>>> users, items = make("mf", n_users=3, n_items=5, dim=4)()
>>> users.shape, items.shape
(torch.Size([3, 4]), torch.Size([5, 4]))
"""

import difflib
import inspect

import torch
from torch import Tensor, nn


class MF(nn.Module):
    """Matrix factorisation: the tables themselves are the parameters.

    Args:
        n_users, n_items: how many rows each table has.
        dim: d >= 1, numbers a row.

    Attributes:
        users, items: (n_users, d) and (n_items, d), the raw embeddings that `l2` acts on.
    """

    def __init__(self, n_users: int, n_items: int, *, dim: int = 64):
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim must be at least 1, not {dim}")
        self.users = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_users, dim)))
        self.items = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_items, dim)))

    def forward(self) -> tuple[Tensor, Tensor]:
        return self.users, self.items


REGISTRY = {"mf": MF}


def hyperparameters(name: str) -> dict[str, float]:
    """Names and defaults of what `make` accepts for a backbone.

    >>> hyperparameters("mf")
    {'dim': 64}
    """
    if name not in REGISTRY:
        close = difflib.get_close_matches(name, REGISTRY, 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"no backbone is called {name!r}{hint}: one of {', '.join(REGISTRY)}")
    given = inspect.signature(REGISTRY[name]).parameters.values()
    return {p.name: p.default for p in given if p.kind is p.KEYWORD_ONLY}


def make(name: str, *, n_users: int, n_items: int, **hyper: float) -> nn.Module:
    """A backbone by name; ValueError for an unknown name, hyper-parameter or value."""
    known = hyperparameters(name)
    for key in hyper.keys() - known.keys():
        raise ValueError(f"backbone {name!r} has no parameter {key!r}: it has {', '.join(known)}")
    return REGISTRY[name](n_users, n_items, **hyper)
