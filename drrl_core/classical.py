"""Classical models: what a loss has to beat. Each is solved from the train pairs, in closed form
or in a few sweeps, and gives scores; none is trained with a loss.

An entry is a function of the train pairs, its hyper-parameters after a `*`, that returns a scorer:
called with the indices of m users, (m,), it gives their scores of all items, (m, n_items), in an
array that may be written to. A random start comes from torch's random state.

>>> train = csr_array(np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1]]))
>>> make("popularity", train)(np.array([2]))
tensor([[2., 3., 1.]])
"""

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import svds
from torch import Tensor

from drrl_core import registry
from drrl_core.losses import Range

Scorer = Callable[[np.ndarray], Tensor]
Factory = TypeVar("Factory", bound=Callable[..., Scorer])
KEPT = 2**30  # bytes of scores
TILE = 2**23  # numbers of the arrays that rows are solved in together


class Classical(NamedTuple):
    """An entry of the registry: how a model is solved, and all that others need to know of it.

    Attributes:
        factory: a function of the train pairs, see the top of this module.
        label, colour: in tables and figures.
        search: what a search varies, by full names such as "backbone.l2"; a hyper-parameter whose
            default is a whole number stays one.
        seeded: whether two seeds give two models.
        version: raise it when the same configuration gives other numbers than before.
        origin: where a model from outside comes from, see `drrl_core.registry.origin`.
    """

    factory: Callable[..., Scorer]
    label: str
    colour: str = "#555555"
    search: Mapping[str, Range] = MappingProxyType({})
    seeded: bool = False
    version: int | str = 1
    origin: Mapping[str, str] = MappingProxyType({})

    @property
    def source(self) -> str:
        """Where the model comes from, as its docstring says."""
        return registry.source(self.factory)


REGISTRY: dict[str, Classical] = {}


def entry(name: str, **facts: Any) -> Callable[[Factory], Factory]:
    """Enter a function as the classical model of that name; `facts` are those of `Classical`."""

    def enter(factory: Factory) -> Factory:
        REGISTRY[name] = Classical(factory, **facts)
        return factory

    return enter


# ---------------------------------------------------------------------------------------------
# What the models share


def _at_least(least: float, **given: float) -> None:
    for name, value in given.items():
        if not least <= value < math.inf:
            raise ValueError(f"{name} must be finite and at least {least:g}, not {value}")


def _enough_memory(needed: float, what: str) -> None:
    """Refuse what does not fit into the memory that can be had, before it is asked for."""
    try:  # what the system would give back is counted: files that it keeps in memory, above all
        told = Path("/proc/meminfo").read_text()
        free = 1024 * float(told.partition("MemAvailable:")[2].split()[0])
    except (OSError, IndexError, ValueError):  # a system that does not tell
        return
    if needed > free:
        raise ValueError(
            f"{what} takes {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free: drop "
            "rare items (k_core=5 of your own file), or take another model, such as ials"
        )


def _from_items(train: csr_array, weights: Any) -> Scorer:
    """Scores Σ_{i of u} W_ij, of a dense or sparse W, (n_items, n_items)."""

    def scores(users: np.ndarray) -> Tensor:
        found = train[users] @ weights
        return torch.from_numpy(found if isinstance(found, np.ndarray) else found.toarray())

    return scores


# ---------------------------------------------------------------------------------------------
# The models, each with its entry


@entry("popularity", label="Popularity", colour="#222222")
def popularity(train: csr_array) -> Scorer:
    """Every user gets the items with the most train pairs.

    Args:
        train: the train pairs, (n_users, n_items), ones.

    Returns:
        A scorer: counts, the same for each user.

    >>> popularity(csr_array([[1, 0], [1, 1]]))(np.array([0, 1]))
    tensor([[2., 1.],
            [2., 1.]])
    """
    counts = torch.from_numpy(np.bincount(train.indices, minlength=train.shape[1])).float()
    return lambda users: counts.repeat(len(users), 1)


NEAREST = {"backbone.neighbours": Range(5, 1000, True), "backbone.shrink": Range(0.1, 100, True)}


@entry("itemknn", label="ItemKNN", colour="#8C6D46", search=NEAREST)
def itemknn(train: csr_array, *, neighbours: int = 100, shrink: float = 10.0) -> Scorer:
    """Each item scores by how alike it is to those of the user, its nearest neighbours alone.

    s_ij = c_ij / (√(c_i c_j) + shrink), with c_ij the users who have both and c_i those of i; the
    score of j is Σ s_ij over the items i of the user among the `neighbours` most alike to j, of
    equals those of lower index.

    Args:
        train: the train pairs, (n_users, n_items), ones.
        neighbours: how many an item has, >= 1.
        shrink: >= 0, in units of users: what few common users prove is scaled down.

    Returns:
        A scorer.

    Raises:
        ValueError: a value out of range, or memory that would not do.

    >>> train = csr_array(np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1]]))
    >>> itemknn(train, shrink=0.0)(np.array([2]))  # 2/√(2·3) + 0; 1/√3; 1/√3
    tensor([[0.8165, 0.5774, 0.5774]])

    Source: Deshpande & Karypis, "Item-based Top-N Recommendation Algorithms", TOIS 2004; the
    shrinkage as in Ferrari Dacrema et al., "Are We Really Making Much Progress?", RecSys 2019.
    """
    _at_least(1, neighbours=neighbours)
    _at_least(0, shrink=shrink)
    train = train.astype(np.float32)
    pairs = float((np.diff(train.indptr).astype(float) ** 2).sum())
    _enough_memory(40 * min(pairs, train.shape[1] ** 2), "the counts of item pairs")
    both = csr_array(train.T @ train)
    size = both.diagonal()
    row = np.repeat(np.arange(both.shape[0]), np.diff(both.indptr))
    apart = row != both.indices
    row, column = row[apart], both.indices[apart].astype(np.int64)
    alike = both.data[apart] / (np.sqrt(size[row] * size[column]) + np.float32(shrink))
    order = np.lexsort((column, -alike, row))
    row, column, alike = row[order], column[order], alike[order]
    first = np.searchsorted(row, np.arange(both.shape[0]))
    near = np.arange(len(row)) - first[row] < neighbours
    entries: Any = (alike[near], (column[near], row[near]))
    weights = csr_array(entries, shape=both.shape)
    return _from_items(train, weights)


@entry("ease", label="EASE", colour="#1F4E9E", search={"backbone.l2": Range(1, 1e4, True)})
def ease(train: csr_array, *, l2: float = 100.0) -> Scorer:
    """A linear model from items to items whose diagonal is zero, in closed form.

    The B that minimises ‖X − X B‖² + l2 ‖B‖² with B_jj = 0: with P = (XᵀX + l2 I)⁻¹, it is
    B_ij = −P_ij / P_jj. The scores are X B.

    Args:
        train: X, the train pairs, (n_users, n_items), ones.
        l2: > 0, in units of users.

    Returns:
        A scorer.

    Raises:
        ValueError: a value out of range, or memory that would not do for three matrices of
            n_items² floats.

    >>> train = csr_array(np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1]]))
    >>> ease(train, l2=1.0)(np.array([2])).round(decimals=2)
    tensor([[0.2900, 0.5000, 0.3700]])

    Source: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019, equation 8.
    """
    if not 0 < l2 < math.inf:
        raise ValueError(f"l2 must lie in (0, inf), not {l2}")
    train = train.astype(np.float32)
    _enough_memory(12.0 * train.shape[1] ** 2, f"EASE on {train.shape[1]:,} items")
    gram = torch.from_numpy((train.T @ train).toarray())
    gram.diagonal().add_(l2)
    weights = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    weights.div_(-weights.diagonal().clone()).fill_diagonal_(0)
    return _from_items(train, weights.contiguous().numpy())


SPECTRUM = {"backbone.dim": Range(16, 512, True), "backbone.power": Range(0, 1)}


@entry("svd", label="SVD", colour="#308875", search=SPECTRUM)
def svd(train: csr_array, *, dim: int = 64, power: float = 0.5) -> Scorer:
    """The train pairs, each scaled down by how many its user and its item have, at low rank.

    With X the pairs, S = U^(-1/2) X I^(-power), where U and I count the pairs of users and items,
    and V the `dim` leading right singular vectors of S, the scores are S V Vᵀ I^power.

    Args:
        train: X, the train pairs, (n_users, n_items), ones.
        dim: numbers a row, >= 1; at most the smaller side of X.
        power: in [0, 1]. The higher, the less the popular items rule what is kept.

    Returns:
        A scorer.

    Raises:
        ValueError: a value out of range.

    >>> train = csr_array(np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1]]))
    >>> svd(train, dim=1)(np.array([2])).round(decimals=2)
    tensor([[0.4700, 0.7100, 0.2400]])

    Source: the linear filter of GF-CF at power 1/2 (Shen et al., "How Powerful is Graph Convolution
    for Recommendation?", CIKM 2021, equation 15); without any scaling it is PureSVD (Cremonesi et
    al., RecSys 2010).
    """
    rows, leading = spectrum(train, dim=dim, power=power)
    sizes = np.maximum(np.bincount(train.indices, minlength=train.shape[1]), 1.0)
    columns = leading.T * torch.from_numpy(sizes**power).float()
    return lambda wanted: rows[torch.from_numpy(wanted)] @ columns


def spectrum(train: csr_array, *, dim: int = 64, power: float = 0.5) -> tuple[Tensor, Tensor]:
    """Tables of users and items at low rank: S V and V of `svd`.

    Args:
        train, dim, power: as in `svd`.

    Returns:
        (n_users, d) and (n_items, d), d the smallest of `dim` and the sides of `train`.

    >>> rows, columns = spectrum(csr_array(np.eye(3)), dim=2)
    >>> rows.shape, columns.shape
    (torch.Size([3, 2]), torch.Size([3, 2]))
    """
    _at_least(1, dim=dim)
    if not 0 <= power <= 1:
        raise ValueError(f"power must lie in [0, 1], not {power}")
    users = np.maximum(np.diff(train.indptr), 1.0)
    items = np.maximum(np.bincount(train.indices, minlength=train.shape[1]), 1.0)
    scaled = diags_array(users**-0.5) @ train.astype(np.float64) @ diags_array(items**-power)
    least = min(train.shape)
    if dim < least // 2:  # a start of its own: the same tables each time
        start = np.full(least, least**-0.5)
        leading = svds(scaled, k=dim, v0=start)[2]
    else:
        leading = np.linalg.svd(scaled.toarray(), full_matrices=False)[2][:dim]
    return torch.from_numpy(scaled @ leading.T).float(), torch.from_numpy(leading.T.copy()).float()


FACTORS = {
    "backbone.dim": Range(32, 512, True),
    "backbone.alpha": Range(1, 100, True),
    "backbone.reg": Range(1, 100, True),
}


@entry("ials", label="iALS", colour="#6A5ACD", search=FACTORS, seeded=True)
def ials(
    train: csr_array, *, dim: int = 256, alpha: float = 10.0, reg: float = 30.0, sweeps: int = 15
) -> Scorer:
    """Weighted matrix factorisation of all pairs, users and items solved in turns, each exactly.

    Minimises Σ_ui w_ui (x_ui − p_u·q_i)² + reg (Σ ‖p_u‖² + Σ ‖q_i‖²), with x = 1 and w = 1 + alpha
    for a train pair, x = 0 and w = 1 for all others.

    Args:
        train: the train pairs, (n_users, n_items), ones.
        dim: numbers a row, >= 1.
        alpha: >= 0, how much more a train pair weighs than another.
        reg: > 0, on squared lengths.
        sweeps: >= 1; in each the users are solved, then the items. The items start uniform in
            [0, 0.01), from torch's random state.

    Returns:
        A scorer.

    >>> train = csr_array(np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1]]))
    >>> ials(train, dim=2, reg=0.1)(np.array([0])).argmin()
    tensor(2)

    Source: Hu, Koren & Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM
    2008, equations 3 to 5.
    """
    _at_least(1, dim=dim, sweeps=sweeps)
    _at_least(0, alpha=alpha)
    if not 0 < reg < math.inf:
        raise ValueError(f"reg must lie in (0, inf), not {reg}")
    back = csr_array(train.T)
    users, items = torch.empty(0), 0.01 * torch.rand(train.shape[1], dim)
    for _ in range(sweeps):
        users = solved(items, train, alpha=alpha, reg=reg)
        items = solved(users, back, alpha=alpha, reg=reg)
    return lambda wanted: users[torch.from_numpy(wanted)] @ items.T


def solved(fixed: Tensor, pairs: csr_array, *, alpha: float, reg: float) -> Tensor:
    """The rows that are best with the other table fixed: half a sweep of `ials`.

    Row u solves (QᵀQ + reg I + alpha Q_uᵀQ_u) p = (1 + alpha) Q_uᵀ1, Q_u the rows of Q it has.
    With the Cholesky factor L of what all rows share, and V = Q L⁻ᵀ, it is
    p = L⁻ᵀ V_uᵀ z with (I + alpha V_u V_uᵀ) z = (1 + alpha) 1: a system as large as the row has
    pairs, few of which have more than d. Rows of about as many pairs are solved together.

    Args:
        fixed: Q, (n, d). pairs: (m, n) CSR, ones.
        alpha, reg: as in `ials`.

    Returns:
        (m, d); zero where a row has no pairs.

    >>> solved(torch.tensor([[1.0], [1.0]]), csr_array([[1, 0], [0, 0]]), alpha=1.0, reg=1.0)
    tensor([[0.5000],
            [0.0000]])
    """
    n, dim = fixed.shape
    root = torch.linalg.cholesky(fixed.T @ fixed + reg * torch.eye(dim))
    white = torch.linalg.solve_triangular(root, fixed.T, upper=False).T
    white = torch.cat([white, white.new_zeros(1, dim)])  # for places that a row does not fill
    degree = np.diff(pairs.indptr)
    order = np.argsort(degree, kind="stable")
    order, found, start = order[degree[order] > 0], fixed.new_zeros(len(degree), dim), 0
    while start < len(order):
        widest = max(degree[order[start]] + 1, 1.25 * degree[order[start]])
        most = max(1, int(TILE // (widest * max(widest, dim))))
        stop = min(start + most, int(np.searchsorted(degree[order], widest, side="right")))
        rows = order[start:stop]
        place = np.arange(degree[rows].max()) < degree[rows][:, None]
        index = np.full(place.shape, n)
        index[place] = pairs[rows].indices
        own = white[torch.from_numpy(index)]  # (rows, pairs, d)
        if (wide := place.shape[1]) <= dim:
            system = torch.eye(wide) + alpha * own @ own.mT
            right = (1 + alpha) * torch.from_numpy(place)[..., None].to(own)
            row = own.mT @ torch.cholesky_solve(right, torch.linalg.cholesky(system))
        else:
            system = torch.eye(dim) + alpha * own.mT @ own
            right = (1 + alpha) * own.sum(1)[..., None]
            row = torch.cholesky_solve(right, torch.linalg.cholesky(system))
        found[torch.from_numpy(rows)] = row.squeeze(-1)
        start = stop
    return torch.linalg.solve_triangular(root.T, found.T, upper=True).T.contiguous()


# ---------------------------------------------------------------------------------------------
# By name


def lookup(name: str) -> Classical:
    """The entry of a classical model; ValueError with a suggestion where there is none.

    "my_module:my_model" is imported, checked and entered where that has not been done.

    >>> lookup("ease").label
    'EASE'
    """
    return registry.find("model", name, REGISTRY)


def version(name: str) -> int | str:
    """The version of a model's entry; 1 where there is no such model any more."""
    return lookup(name).version if name in REGISTRY or ":" in name else 1


def hyperparameters(name: str) -> dict[str, Any]:
    """Names and defaults of what `make` accepts for a model.

    >>> hyperparameters("ease")
    {'l2': 100.0}
    """
    return registry.hyperparameters(lookup(name).factory)


def kept(scores: Scorer, n_users: int, n_items: int) -> Scorer:
    """A scorer that has every score already, where they fit into `KEPT` bytes; else as it is.

    Ranking at ten strengths of popularity asks for the same scores ten times.

    Args:
        scores: the scorer.
        n_users, n_items: of the data.

    >>> found = kept(lambda users: torch.eye(3)[users], 3, 3)
    >>> found(np.array([2]))
    tensor([[0., 0., 1.]])
    """
    if 4 * n_users * n_items > KEPT:
        return scores
    every = torch.empty(n_users, n_items)
    for part in np.array_split(np.arange(n_users), 1 + n_users // 256):
        every[torch.from_numpy(part)] = scores(part)
    return lambda users: every[torch.from_numpy(users)]


class Solved:
    """A model of given train pairs, solved when it is first asked for scores.

    Attributes:
        name, hyper: of the model. seed: of its random start.
    """

    def __init__(self, name: str, train: csr_array, seed: int, hyper: Mapping[str, Any]):
        self.name, self.hyper, self.seed, self._train = name, dict(hyper), seed, train

    @cached_property
    def scores(self) -> Scorer:
        """The scorer: asking for it solves the model."""
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(self.seed)
            return kept(lookup(self.name).factory(self._train, **self.hyper), *self._train.shape)

    def __call__(self, users: np.ndarray) -> Tensor:
        return self.scores(users)


def make(name: str, train: csr_array, *, seed: int = 0, **hyper: Any) -> Solved:
    """A classical model by name; ValueError for an unknown name, hyper-parameter or value.

    Args:
        name: a key of `REGISTRY`.
        train: the train pairs, (n_users, n_items), ones.
        seed: of a random start.
        hyper: as in `hyperparameters(name)`; their ranges are checked here.

    Returns:
        A scorer that is solved when it is first called.

    >>> make("ease", csr_array(np.eye(3)), l2=-1)
    Traceback (most recent call last):
    ...
    ValueError: l2 must lie in (0, inf), not -1
    """
    known = hyperparameters(name)
    for key in hyper.keys() - known.keys():
        raise registry.unknown(f"model {name!r} has no hyper-parameter", key, known)
    _ = Solved(name, csr_array(np.ones((1, 1), np.float32)), seed, hyper).scores
    return Solved(name, train, seed, hyper)
