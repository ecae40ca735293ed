"""Losses and models of your own: the checks that ours pass too, and how they are registered.

>>> check_loss("sl", {"temperature": 0.5})
>>> check_backbone("mf")
>>> check_classical("popularity")
"""

import inspect
from collections.abc import Callable, MutableMapping
from typing import Any

from drrl_core import backbones, classical, losses, registry
from drrl_core.testing.backbone_checks import check_backbone
from drrl_core.testing.classical_checks import check_classical
from drrl_core.testing.loss_checks import check_loss

__all__ = ["check_backbone", "check_classical", "check_loss", "register"]


def register(factory: Callable[..., Any], *, kind: str = "loss", **facts: Any) -> str:
    """Make a loss or a model of your own one that is trained, tuned and drawn by its name.

    Args:
        factory: for a loss, a function of (pos, neg) or a class whose modules are called with
            (pos, neg, batch), see `losses`; for a backbone, a class made by
            (n_users, n_items, train), see `backbones`; for a classical model a function of
            (train), see `classical`. It stands at the top of a module.
        kind: "loss", "backbone" or "model", a classical one.
        **facts: of a loss, those of `losses.Loss`: label, colour, similarity, negatives, rowwise,
            order, search, fixed; of a backbone, label; of a model, label, colour, search, seeded.

    Returns:
        Its name, "module:name": `make_loss`, `lab.run.configure` and `drrl train --loss` take it,
        and import the module where it is not yet. The version of the entry is the SHA-256 of the
        module's file, so that no run of an earlier text is taken for one of this.

    Raises:
        ValueError: with what the checks of its kind found, or for an unknown fact.

    >>> register(lambda pos, neg: neg.mean(-1) - pos)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: <lambda> stands within another function or class: put it at the top of its module...
    """
    name, origin = registry.name_of(factory), registry.origin(factory)
    own = {"label": factory.__name__, "version": origin["sha256"][:16], "origin": origin}
    known: MutableMapping[str, Any]
    entry: Any
    if kind == "loss":
        known, entry = losses.REGISTRY, losses.Loss
        check_loss(factory, rowwise=facts.get("rowwise", True))
        made = factory if inspect.isclass(factory) else losses.guarded(factory)
    elif kind == "backbone":
        known, entry = backbones.REGISTRY, backbones.Backbone
        check_backbone(factory)
        made = factory
    elif kind == "model":
        known, entry = classical.REGISTRY, classical.Classical
        check_classical(factory)
        made = factory
    else:
        raise ValueError(f"kind must be one of loss, backbone, model, not {kind!r}")
    for fact in facts.keys() - {*entry._fields}:
        raise registry.unknown(f"no fact of a {kind} is called", fact, entry._fields[1:])
    known[name] = entry(made, **own | facts)
    return name
