"""Losses and backbones of your own: the checks that ours pass too, and how they are registered.

>>> check_loss("sl", {"temperature": 0.5})
>>> check_backbone("mf")
"""

from collections.abc import Callable
from typing import Any

from drrl_core import backbones, losses
from drrl_core.backbones import check_backbone
from drrl_core.losses.battery import check_loss

__all__ = ["check_backbone", "check_loss", "register"]


def register(factory: Callable[..., Any], *, kind: str = "loss", **facts: Any) -> str:
    """Make a loss or a backbone of your own one that is trained, tuned and drawn by its name.

    Args:
        factory: for a loss, a function of (pos, neg) or a class whose modules are called with
            (pos, neg, batch), see `losses`; for a backbone, a class made by
            (n_users, n_items, train), see `backbones`. It stands at the top of a module.
        kind: "loss" or "backbone".
        **facts: of a loss, those of `losses.Loss`: label, colour, similarity, negatives, rowwise,
            order, search, fixed; of a backbone, label.

    Returns:
        Its name, "module:name": `make_loss`, `runs.configure` and `drrl train --loss` take it, and
        import the module where it is not yet.

    Raises:
        ValueError: with what `check_loss` or `check_backbone` found, or for an unknown fact.

    >>> register(lambda pos, neg: neg.mean(-1) - pos)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: <lambda> stands within another function or class: put it at the top of its module...
    """
    kinds: dict[str, Callable[..., str]]
    kinds = {"loss": losses.register, "backbone": backbones.register}
    if kind not in kinds:
        raise ValueError(f"kind must be one of {', '.join(kinds)}, not {kind!r}")
    return kinds[kind](factory, **facts)
