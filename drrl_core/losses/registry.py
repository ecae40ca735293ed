"""The losses by name. An entry has every fact that others need: they read it, and list no losses.

An entry stands at the loss itself, as a decorator. The modules' order in `__init__`, and theirs of
the losses, is the registry's.
"""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from drrl_core import registry
from drrl_core.losses._inputs import Batch

Factory = TypeVar("Factory", bound=Callable[..., Any])
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Range(NamedTuple):
    """Where a search looks for a hyper-parameter, in its own unit; evenly in its log where `log`.

    >>> Range(0.05, 0.3).clip(1.0)
    0.3
    """

    low: float
    high: float
    log: bool = False

    def clip(self, value: float) -> float:
        return min(max(value, self.low), self.high)


# By full names, "loss.temperature" or "train.lr"; "loss.order-1" is γ - 1. A function makes its
# range of N, how many negatives a row of the loss sees.
Space = Mapping[str, Range | Callable[[int], Range]]
RATE = Range(1e-4, 1e-1, True)  # of the model, for all losses alike; it holds every published one
PUSH = Range(0.5, 2.5, True)  # 1 is no push; the published ones lie between 0.67 and 1.22
PRIOR = Range(-1, 1)  # 0 is the uniform prior


class Variant(NamedTuple):
    """A loss as it is tuned: its name in figures, what is searched, and what is fixed."""

    label: str
    search: Space
    fixed: Mapping[str, Any] = NOTHING
    loss: str = ""  # filled in by `variants`


class Loss(NamedTuple):
    """An entry of the registry: how a loss is made, and all that others need to know of it.

    Attributes:
        factory: a function of (pos, neg) or (pos, neg, batch), or a class whose modules are called
            with (pos, neg, batch); its keyword-only parameters are the hyper-parameters.
        label, colour: in tables and figures; of Okabe and Ito's palette, which colour-blind
            readers tell apart, where one is left and stands out from white (contrast >= 3).
        similarity, negatives: what the loss expects by default.
        rowwise: an example's value depends on its own row alone.
        order: γ of the balls that its weights are the worst case of, or the hyper-parameter that
            holds it; None where it lies outside the family.
        search, fixed: what a search varies, and what it sets; nothing: the model's rate alone.
        variants: other ways to tune it, by name.
        version: raise it when the same configuration gives other numbers than before; of a loss
            that is registered from outside, its source's SHA-256.
        origin: where a loss from outside comes from, see `drrl_core.registry.origin`.
    """

    factory: Callable[..., Any]
    label: str
    colour: str = "#222222"
    similarity: str = "cosine"
    negatives: int = 64
    rowwise: bool = True
    order: float | str | None = None
    search: Space = MappingProxyType({"train.lr": RATE})
    fixed: Mapping[str, Any] = NOTHING
    variants: Mapping[str, Variant] = NOTHING
    version: int | str = 1
    origin: Mapping[str, str] = NOTHING

    @property
    def source(self) -> str:
        """Where the loss comes from, as its docstring says."""
        return registry.source(self.factory)


REGISTRY: dict[str, Loss] = {}


def entry(name: str, **facts: Any) -> Callable[[Factory], Factory]:
    """Enter a function or a class as the loss of that name; `facts` are those of `Loss`."""

    def enter(factory: Factory) -> Factory:
        REGISTRY[name] = Loss(factory, **facts)
        return factory

    return enter


def lookup(name: str) -> Loss:
    """The entry of a loss; ValueError with a suggestion where there is none.

    "my_module:MyLoss" is imported, checked and entered where that has not been done.

    >>> lookup("ccl").similarity
    'cosine'
    """
    return registry.find("loss", name, REGISTRY)


def version(name: str) -> int | str:
    """The version of a loss's entry; 1 where there is no such loss any more."""
    return lookup(name).version if name in REGISTRY or ":" in name else 1


def variants() -> dict[str, Variant]:
    """Every loss in every way in which it is tuned, by name: its own name is the first way.

    >>> variants()["drrl-exact"].label, variants()["sl"].loss
    ('DrRL, exact β', 'sl')
    """
    found = {}
    for name, line in REGISTRY.items():
        found[name] = Variant(line.label, line.search, line.fixed, name)
        found |= {other: way._replace(loss=name) for other, way in line.variants.items()}
    return found


def hyperparameters(name: str) -> dict[str, Any]:
    """Names and defaults of what `make` accepts for a loss.

    >>> hyperparameters("ccl")
    {'margin': 0.4, 'weight': 100.0, 'push': 1.0}
    """
    return registry.hyperparameters(lookup(name).factory)


class Stateless(nn.Module):
    """A loss function with its hyper-parameters bound, called like any other loss."""

    def __init__(self, function: Callable[..., Tensor], **hyper: Any):
        super().__init__()
        self.function, self.hyper = function, hyper
        self.asks = "batch" in inspect.signature(function).parameters
        none = torch.zeros(1, 1, dtype=torch.long)
        batch = Batch(none[0], none[0], none, popularity=none[0])
        self(torch.zeros(1), torch.zeros(1, 1), batch)  # bad values are refused now

    def forward(self, pos: Tensor, neg: Tensor, batch: Batch | None = None) -> Tensor:
        return self.function(pos, neg, *([batch] if self.asks else []), **self.hyper)

    def extra_repr(self) -> str:
        return ", ".join([self.function.__name__, *(f"{k}={v}" for k, v in self.hyper.items())])


def make(name: str, *, n_users: int = 0, n_items: int = 0, **hyper: Any) -> nn.Module:
    """A loss by name, as a module called with (pos, neg, batch) that returns one value an example.

    Args:
        name: one of REGISTRY.
        n_users, n_items: sizes, needed by the losses that own a variable a user or an item.
        **hyper: hyper-parameters, see `hyperparameters(name)`.

    Raises:
        ValueError: no such loss, no such hyper-parameter, or a value out of range.

    >>> make("drrl", n_users=10, order=1.5, radius=2.0).beta.shape
    torch.Size([10])
    """
    factory, known = lookup(name).factory, hyperparameters(name)
    for key in hyper:
        if key not in known:
            raise registry.unknown(f"loss {name!r} has no hyper-parameter", key, known)
    return construct(factory, hyper, n_users=n_users, n_items=n_items)


def construct(
    factory: Callable[..., Any], hyper: Mapping[str, Any], *, n_users: int, n_items: int
) -> nn.Module:
    """The module of a function or a class, with those of the sizes that it asks for."""
    if not inspect.isclass(factory):
        return Stateless(factory, **hyper)
    wanted = inspect.signature(factory).parameters
    sizes = {"n_users": n_users, "n_items": n_items}.items()
    made: Any = factory(**{key: size for key, size in sizes if key in wanted}, **hyper)
    return made
