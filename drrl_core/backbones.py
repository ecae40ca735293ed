"""Backbones: a model is called without arguments and gives its user and item tables.

A step calls the model once; `penalty(users, pos_items)` then adds what the backbone itself wants of
that batch, from the same forward pass: a scalar, zero where it wants nothing.

>>> users, items = make("mf", n_users=3, n_items=5, dim=4)()
>>> users.shape, items.shape
(torch.Size([3, 4]), torch.Size([5, 4]))
"""

import math
import warnings
from collections.abc import Callable, Mapping
from functools import reduce
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from scipy.sparse import csc_array, csr_array
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding_bag, normalize

from drrl_core import registry

# Said once a process by torch, of every CSR tensor.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")

Tables = tuple[Tensor, Tensor]
Model = TypeVar("Model", bound=nn.Module)


# ---------------------------------------------------------------------------------------------
# What the models share


def _parameters(n_users: int, n_items: int, dim: int) -> list[nn.Parameter]:
    if dim < 1:
        raise ValueError(f"dim must be at least 1, not {dim}")
    return [nn.Parameter(nn.init.xavier_uniform_(torch.empty(n, dim))) for n in (n_users, n_items)]


def _no_penalty(model: Any, users: Tensor, pos_items: Tensor) -> Tensor:
    """Zero: the model wants nothing of a batch but a small loss."""
    zero: Tensor = model.users.new_zeros(())
    return zero


def _gathered(start: Tensor, column: Tensor, value: Tensor, table: Tensor) -> Tensor:
    return embedding_bag(
        column, table, start, mode="sum", per_sample_weights=value, include_last_offset=True
    )


def _multiplied(start: Tensor, column: Tensor, value: Tensor, table: Tensor) -> Tensor:
    size = (len(start) - 1, len(table))
    return torch.sparse_csr_tensor(start, column, value, size=size, check_invariants=False) @ table


class _Sparse(nn.Module):
    """A constant sparse matrix, called with a dense table to multiply; moves, but is not saved."""

    start: Tensor
    column: Tensor
    value: Tensor

    def __init__(self, matrix: csr_array | csc_array):  # of a CSC array, the transpose
        super().__init__()
        value = torch.tensor(matrix.data, dtype=torch.get_default_dtype())
        self.register_buffer("start", torch.tensor(matrix.indptr), persistent=False)
        self.register_buffer("column", torch.tensor(matrix.indices), persistent=False)
        self.register_buffer("value", value, persistent=False)

    def forward(self, table: Tensor) -> Tensor:
        # The same sum twice: on a CPU embedding_bag prefetches the rows it adds and takes about
        # half the time; on a GPU it walks a long row in one thread, and the product does not.
        product = _multiplied if table.is_cuda else _gathered
        return product(self.start, self.column, self.value, table)


class Graph(nn.Module):
    """The train pairs as a symmetrically normalised bipartite graph, to propagate along.

    Â = [[0, R̂], [R̂ᵀ, 0]] with R̂_ui = 1 / sqrt(d_u · d_i) for a train pair, d the number of train
    pairs a node has. A node without any has an empty row: it receives zero.

    Args:
        train: the pairs, (n_users, n_items), each stored once; the values are not looked at.
        n_users, n_items: the shape that `train` is to have.

    Returns:
        Called with the tables (users, items), Â times both: (R̂ items, R̂ᵀ users).

    >>> graph = Graph(csr_array([[1, 0], [1, 1]]), 2, 2)
    >>> graph(torch.eye(2), torch.tensor([[0.0, 8.0], [4.0, 0.0]]))[0]
    tensor([[0.0000, 5.6569],
            [2.8284, 4.0000]])
    """

    def __init__(self, train: csr_array | None, n_users: int, n_items: int):
        super().__init__()
        if train is None:
            raise ValueError("a graph backbone needs the train pairs: pass train=data.train")
        if train.shape != (n_users, n_items):
            raise ValueError(f"train has shape {train.shape}, not {(n_users, n_items)}")
        users = np.diff(train.indptr)
        items = np.bincount(train.indices)
        values = (np.repeat(users, users) * items[train.indices]) ** -0.5
        pairs = csr_array((values, train.indices, train.indptr), shape=train.shape)
        self.to_users, self.to_items = _Sparse(pairs), _Sparse(pairs.tocsc())

    def forward(self, users: Tensor, items: Tensor) -> Tables:
        return self.to_users(items), self.to_items(users)


class _Symmetric(torch.autograd.Function):
    """A linear map of both tables that equals its transpose: its gradient is the map once more.

    So is every polynomial in Â. Nothing is kept for the way back, and no gradient of a sparse
    product, which torch would transpose at each step, is taken.
    """

    @staticmethod
    def forward(
        ctx: Any, linear: Callable[[Tensor, Tensor], Tables], users: Tensor, items: Tensor
    ) -> Tables:
        ctx.linear = linear
        return linear(users, items)

    @staticmethod
    def backward(ctx: Any, users: Tensor, items: Tensor) -> tuple[None, Tensor, Tensor]:
        return None, *_Symmetric.apply(ctx.linear, users, items)


def info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """How far each row of one view is from telling its own row of another view from the rest.

    mean_b −log( exp(cos(x_b, y_b) / τ) / Σ_a exp(cos(x_b, y_a) / τ) )

    Args:
        first, second: x and y, (B, d), B >= 1.
        temperature: τ > 0, in units of the cosine.

    Returns:
        Scalar, nats.

    >>> info_nce(torch.eye(2), torch.eye(2), temperature=1.0)  # log(1 + e⁻¹)
    tensor(0.3133)

    Source: van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018.
    """
    cosines = normalize(first, dim=-1) @ normalize(second, dim=-1).T
    return cross_entropy(cosines / temperature, torch.arange(len(first), device=first.device))


# ---------------------------------------------------------------------------------------------
# The models, each with its entry


class Backbone(NamedTuple):
    """An entry of the registry: how a backbone is made, and its name in tables and figures."""

    factory: Callable[..., Any]
    label: str
    version: int | str = 1  # raise it when the same configuration gives other numbers than before
    origin: Mapping[str, str] = MappingProxyType({})  # of one from outside: `registry.origin`

    @property
    def source(self) -> str:
        """Where the backbone comes from, as its docstring says."""
        return registry.source(self.factory)


REGISTRY: dict[str, Backbone] = {}


def entry(name: str, **facts: Any) -> Callable[[type[Model]], type[Model]]:
    """Enter a class as the backbone of that name; `facts` are those of `Backbone`."""

    def enter(factory: type[Model]) -> type[Model]:
        REGISTRY[name] = Backbone(factory, **facts)
        return factory

    return enter


@entry("mf", label="MF")
class MF(nn.Module):
    """Matrix factorisation: the tables themselves are the parameters.

    Args:
        n_users, n_items: how many rows each table has.
        train: not used.
        dim: d >= 1, numbers a row.

    Attributes:
        users, items: (n_users, d) and (n_items, d), the raw embeddings that `l2` acts on.
    """

    def __init__(
        self, n_users: int, n_items: int, train: csr_array | None = None, *, dim: int = 64
    ):
        super().__init__()
        self.users, self.items = _parameters(n_users, n_items, dim)

    def forward(self) -> Tables:
        return self.users, self.items

    penalty = _no_penalty


@entry("lightgcn", label="LightGCN")
class LightGCN(nn.Module):
    """Embeddings averaged over what 0, 1, … L propagations along the train pairs make of them.

    (1 / (L + 1)) Σ_{k=0..L} Âᵏ E, with E the users' and items' raw embeddings and Â of `Graph`.

    Args:
        n_users, n_items: how many rows each table has.
        train: the train pairs, (n_users, n_items).
        dim: d >= 1, numbers a row.
        layers: L >= 0; with 0 it is matrix factorisation.

    Attributes:
        users, items: E, (n_users, d) and (n_items, d), the raw embeddings that `l2` acts on.

    >>> model = LightGCN(1, 1, csr_array([[1.0]]), dim=2, layers=1)
    >>> _ = nn.init.constant_(model.users, 2.0), nn.init.constant_(model.items, 4.0)
    >>> model()[0].detach()
    tensor([[3., 3.]])

    Source: He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for
    Recommendation", SIGIR 2020, equations 3, 4 and 8.
    """

    def __init__(
        self,
        n_users: int,
        n_items: int,
        train: csr_array | None,
        *,
        dim: int = 64,
        layers: int = 2,
    ):
        super().__init__()
        if layers < 0:
            raise ValueError(f"layers must be at least 0, not {layers}")
        self.layers = layers
        self.users, self.items = _parameters(n_users, n_items, dim)
        self.graph = Graph(train, n_users, n_items)

    def _mean(self, users: Tensor, items: Tensor) -> Tables:
        # m_k = (E + k Â m_{k−1}) / (k + 1) is the mean over layers 0..k: no layer is kept.
        mean = users, items
        for k in range(1, self.layers + 1):
            pairs = zip(self.graph(*mean), (users, items), strict=True)
            mean = tuple(moved.lerp_(raw, 1 / (k + 1)) for moved, raw in pairs)
        return mean

    def forward(self) -> Tables:
        return _Symmetric.apply(self._mean, self.users, self.items)

    penalty = _no_penalty


@entry("xsimgcl", label="XSimGCL")
class XSimGCL(nn.Module):
    """LightGCN without its raw layer, noise on every propagation, one of them held to the mean.

    E_k = Â E_{k−1} + ε sign(Â E_{k−1}) ⊙ n_k in training, Â E_{k−1} in evaluation, where each row
    of n_k is uniform on [0, 1)^d, then scaled to length 1; the tables are (1 / L) Σ_{k=1..L} E_k.
    Penalty: λ · (InfoNCE of the users + InfoNCE of the items) between tables and E_l, over the
    different users and the different positive items of a batch. The sign passes no gradient.

    A node without train pairs has a row of zeros, which scores 0 with everything.

    Args:
        n_users, n_items: how many rows each table has.
        train: the train pairs, (n_users, n_items).
        dim: d >= 1, numbers a row.
        layers: L >= 1.
        noise: ε >= 0, the length of what is added to a row, in units of the embeddings.
        contrast_layer: l in 1..L, the propagation contrasted with the mean of all.
        temperature: τ > 0 of the contrast, in units of the cosine.
        contrast_weight: λ >= 0, what a nat of the contrast adds to the loss.

    Attributes:
        users, items: E_0, (n_users, d) and (n_items, d), the raw embeddings that `l2` acts on.

    >>> model = XSimGCL(2, 2, csr_array([[1, 0], [1, 1]]), dim=4)
    >>> users, items = model()
    >>> batch = torch.tensor([0, 1]), torch.tensor([0, 0])
    >>> bool(model.penalty(*batch) > 0)
    True

    Source: Yu et al., "XSimGCL: Towards Extremely Simple Graph Contrastive Learning for
    Recommendation", TKDE 2023.
    """

    def __init__(
        self,
        n_users: int,
        n_items: int,
        train: csr_array | None,
        *,
        dim: int = 64,
        layers: int = 2,
        noise: float = 0.1,
        contrast_layer: int = 1,
        temperature: float = 0.2,
        contrast_weight: float = 0.001,
    ):
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers must be at least 1, not {layers}")
        if not 1 <= contrast_layer <= layers:
            raise ValueError(f"contrast_layer must lie in 1..{layers}, not {contrast_layer}")
        for name, value in (("noise", noise), ("contrast_weight", contrast_weight)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must lie in [0, inf), not {value}")
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must lie in (0, inf), not {temperature}")
        self.layers, self.noise = layers, noise
        self.contrast_layer, self.temperature = contrast_layer, temperature
        self.contrast_weight = contrast_weight
        self.users, self.items = _parameters(n_users, n_items, dim)
        self.graph = Graph(train, n_users, n_items)
        # Of the latest forward: the tables, and the layer they are held to.
        self._views: tuple[Tables, Tables] | None = None

    def forward(self) -> Tables:
        layers: list[Tables] = []
        layer: Tables = self.users, self.items
        for _ in range(self.layers):
            layer = _Symmetric.apply(self.graph, *layer)
            if self.training and self.noise:
                for table in layer:
                    away = normalize(torch.rand_like(table), dim=-1)
                    table.addcmul_(table.detach().sign(), away, value=self.noise)
            layers.append(layer)
        users, items = zip(*layers, strict=True)
        tables = reduce(torch.add, users) / self.layers, reduce(torch.add, items) / self.layers
        self._views = tables, layers[self.contrast_layer - 1]
        return tables

    def penalty(self, users: Tensor, pos_items: Tensor) -> Tensor:
        """λ times the contrast of a batch, scalar, on the tables of the latest call.

        Args:
            users, pos_items: indices, (B,); each counts once, however often the batch has it.
        """
        if self._views is None:
            raise RuntimeError("call the model first: the penalty is one on its latest tables")
        if not self.contrast_weight:
            return _no_penalty(self, users, pos_items)
        total = self.users.new_zeros(())
        for index, *views in zip((users.unique(), pos_items.unique()), *self._views, strict=True):
            mean, layer = (view.index_select(0, index) for view in views)
            total = total + info_nce(mean, layer, temperature=self.temperature)
        return self.contrast_weight * total

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_views": None}  # part of a tape, which allows no copies


def lookup(name: str) -> Backbone:
    """The entry of a backbone; ValueError with a suggestion where there is none.

    "my_module:MyBackbone" is imported, checked and entered where that has not been done.

    >>> lookup("mf").version
    1
    """
    return registry.find("backbone", name, REGISTRY)


def version(name: str) -> int | str:
    """The version of a backbone's entry; 1 where there is no such backbone any more."""
    return lookup(name).version if name in REGISTRY or ":" in name else 1


def hyperparameters(name: str) -> dict[str, Any]:
    """Names and defaults of what `make` accepts for a backbone.

    >>> hyperparameters("mf")
    {'dim': 64}
    """
    return registry.hyperparameters(lookup(name).factory)


def make(
    name: str, *, n_users: int, n_items: int, train: csr_array | None = None, **hyper: Any
) -> nn.Module:
    """A backbone by name; ValueError for an unknown name, hyper-parameter or value.

    Args:
        name: a key of `REGISTRY`.
        n_users, n_items: how many rows each table has.
        train: the train pairs, (n_users, n_items); the backbones with a graph need them.
        hyper: as in `hyperparameters(name)`.

    >>> train = csr_array([[1, 0, 1], [0, 1, 0]])
    >>> users, items = make("lightgcn", n_users=2, n_items=3, train=train, layers=3)()
    >>> items.shape
    torch.Size([3, 64])
    """
    known = hyperparameters(name)
    for key in hyper.keys() - known.keys():
        raise registry.unknown(f"backbone {name!r} has no hyper-parameter", key, known)
    made: nn.Module = lookup(name).factory(n_users, n_items, train, **hyper)
    return made
