"""`fit`: a model, a loss and interactions in; the model at its best epoch and its history out.

Two optimisers, Adam for the model and SGD for what the loss owns. The trainer never asks which loss
it has: a loss that maximises reverses its own gradient, and clips itself in `project()`.
"""

import math
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn.functional import embedding_bag
from tqdm import tqdm

from drrl_core import metrics, sampling
from drrl_core.datasets import Interactions
from drrl_core.losses import Batch

MASKS = ("train", "train+valid")


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults are the paper's protocol where it has one.

    Args:
        epochs: at most this many passes over the train pairs, >= 1.
        batch_size: examples a step, >= 1.
        negatives: N, drawn for each example, >= 1.
        similarity: "cosine" or "dot".
        lr: the model's Adam rate, > 0.
        dual_lr: the SGD rate of what the loss owns, >= 0, in units of the variable per unit slope.
        l2: >= 0; adds l2/2 · (‖e_u‖² + ‖e_i‖² + mean_j ‖e_j‖²), raw embeddings, batch mean.
        evaluate_every: epochs between evaluations on valid, >= 1.
        patience: stop after this many evaluations without a gain, >= 1.
        min_gain: a gain in valid NDCG@20 counts when larger than this, >= 0.
        mask: what the test ranking leaves out: "train" (the paper's, so that valid items stand
            among the candidates) or "train+valid".
        seed: in [0, 2**63).
    """

    epochs: int = 100
    batch_size: int = 1024
    negatives: int = 64
    similarity: str = "cosine"
    lr: float = 1e-3
    dual_lr: float = 1e-3
    l2: float = 0.0
    evaluate_every: int = 5
    patience: int = 5
    min_gain: float = 1e-4
    mask: str = "train"
    seed: int = 0

    def __post_init__(self):
        for name in ("epochs", "batch_size", "negatives", "evaluate_every", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must lie in [0, 2**63), not {self.seed}")
        for name in ("dual_lr", "l2", "min_gain"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must lie in [0, inf), not {getattr(self, name)}")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"lr must lie in (0, inf), not {self.lr}")
        if self.similarity not in metrics.SIMILARITIES:
            raise ValueError(f"similarity must be 'cosine' or 'dot', not {self.similarity!r}")
        if self.mask not in MASKS:
            raise ValueError(f"mask must be 'train' or 'train+valid', not {self.mask!r}")


@dataclass(frozen=True)
class Fit:
    """What came of training: per-user metrics at the best epoch, and the way there.

    Attributes:
        best_epoch: the last epoch whose valid NDCG@20 was a gain; model and loss are left as they
            were then.
        valid, test: one row a user, columns like "ndcg@20".
        history: one row an epoch: loss (mean over the steps, l2 included), seconds (training
            only), and where evaluated recall@20 and ndcg@20 on valid.
        seconds: everything, evaluation included.
    """

    best_epoch: int
    valid: pd.DataFrame
    test: pd.DataFrame
    history: pd.DataFrame
    seconds: float


class DivergedError(ArithmeticError):
    """Training met a NaN or an infinity."""


def resolve_device(name: str = "auto") -> torch.device:
    """ "auto" is CUDA where there is one, else the CPU; any other name is torch's."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.zeros(1, device=name)
        place.item()  # "meta" has tensors, but nothing in them
    except (RuntimeError, AssertionError, ImportError) as error:
        why = str(error).splitlines()[0].split(". ")[0]
        raise ValueError(f"device {name!r} cannot be used here: {why}") from None
    return place.device


# Said once a process by torch, of every CSR tensor.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")


def _csr(start: Tensor, column: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    # Unchecked: a row may hold a column twice, and in any order, which the two products allow.
    return torch.sparse_csr_tensor(start, column, values, size=size, check_invariants=False)


class _SampledDot(torch.autograd.Function):
    """rows[b] · table[index[b, j]] for every (b, j), the gathered rows never written down.

    Autograd would keep a (B·N, d) tensor and scatter a gradient of that size. On a CPU the scores
    are the wanted entries of a product instead, and both gradients are products with the sparse
    (B, n) matrix of slopes, whose columns one conversion to CSC puts together.
    """

    @staticmethod
    def forward(ctx, rows: Tensor, table: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(rows, table, index)
        if rows.device.type != "cpu" or index.shape[1] > len(table):  # CSR: no more than n a row
            gathered = table.index_select(0, index.flatten()).view(*index.shape, -1)
            return torch.bmm(gathered, rows[..., None]).squeeze(-1)
        start = torch.arange(0, index.numel() + 1, index.shape[1])
        wanted = _csr(
            start, index.flatten(), rows.new_zeros(index.numel()), (len(rows), len(table))
        )
        return torch.sparse.sampled_addmm(wanted, rows, table.T, beta=0).values().view(index.shape)

    @staticmethod
    def backward(ctx, slope: Tensor) -> tuple[Tensor, Tensor, None]:
        rows, table, index = ctx.saved_tensors
        to_rows = embedding_bag(index, table, per_sample_weights=slope, mode="sum")
        if rows.device.type != "cpu":
            spread = (slope[..., None] * rows[:, None]).flatten(0, 1)
            return to_rows, torch.zeros_like(table).index_add_(0, index.flatten(), spread), None
        start = np.arange(0, index.numel() + 1, index.shape[1])
        by_row = (slope.flatten().numpy(), index.flatten().numpy(), start)
        by_item = csr_array(by_row, shape=(len(rows), len(table))).tocsc()
        parts = map(torch.from_numpy, (by_item.indptr, by_item.indices, by_item.data))
        return to_rows, _csr(*parts, (len(table), len(rows))) @ rows, None


def score(
    users: Tensor, items: Tensor, batch: Batch, similarity: str = "cosine"
) -> tuple[Tensor, Tensor]:
    """Scores of a batch: (B,) of the positives and (B, N) of the negatives.

    >>> table = torch.eye(3)
    >>> batch = Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([[1, 2]]))
    >>> score(table, table, batch)
    (tensor([1.]), tensor([[0., 0.]]))
    """
    rows = metrics.unit_or_raw(users.index_select(0, batch.users), similarity)
    positives = metrics.unit_or_raw(items.index_select(0, batch.pos_items), similarity)
    table = metrics.unit_or_raw(items, similarity)
    return (rows * positives).sum(-1), _SampledDot.apply(rows, table, batch.neg_items)


def _l2(model: nn.Module, batch: Batch) -> Tensor:
    size = model.users[batch.users].square().sum() + model.items[batch.pos_items].square().sum()
    size = size + model.items.square().sum(-1)[batch.neg_items].mean(-1).sum()
    return size / (2 * len(batch.users))


def _nonfinite(**modules: nn.Module) -> list[str]:
    """Names such as "model.users" of the parameters that hold a NaN or an infinity."""
    named = [pair for key, module in modules.items() for pair in module.named_parameters(key)]
    return [name for name, value in named if not value.isfinite().all()]


def fit(
    model: nn.Module,
    loss: nn.Module,
    data: Interactions,
    config: TrainConfig | None = None,
    *,
    on_epoch: Callable[[dict], None] | None = None,
    progress: bool = True,
) -> Fit:
    """Train until valid NDCG@20 stops gaining; leave model and loss at their best epoch.

    Without valid pairs there is nothing to select by: all epochs are run and the last is kept.

    Everything random comes from (config.seed, epoch): on a CPU, with one number of threads, the
    same call gives the same bits.

    Args:
        model: called without arguments, gives the user and item tables; its device is used. For
            `l2` it has its raw embeddings as attributes, users and items.
        loss: called as loss(pos, neg, batch), gives one value an example.
        data: the interactions.
        config: how to train.
        on_epoch: called after each epoch with its row of the history.
        progress: show a progress bar.

    Raises:
        DivergedError: a loss or a parameter became NaN or infinite; names the step.
        ValueError: no train pairs, or a user without a possible negative.

    >>> from drrl_core import backbones, datasets, losses
    >>> data = datasets.load("synthetic")
    >>> model = backbones.make("mf", n_users=data.n_users, n_items=data.n_items)
    >>> config = TrainConfig(epochs=2, lr=0.01)
    >>> fit(model, losses.make("sl"), data, config, progress=False).best_epoch
    2
    """
    config = config or TrainConfig()
    if not data.train.nnz:
        raise ValueError(f"{data.name} has no train pairs: there is nothing to learn from")
    began = time.perf_counter()
    device = next(model.parameters()).device
    loss.to(device)
    duals = [p for p in loss.parameters() if p.requires_grad]
    optimisers = [torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)]
    if duals:
        optimisers.append(torch.optim.SGD(duals, lr=config.dual_lr))
    negatives = sampling.UniformNegatives(data, device)
    look = {"similarity": config.similarity, "ks": (20,)}

    history, best, best_epoch = [], -math.inf, 0
    bar = tqdm(range(1, config.epochs + 1), desc=data.name, unit="epoch", disable=not progress)
    for epoch in bar:
        start, values = time.perf_counter(), []
        for batch in sampling.batches(
            data,
            negatives,
            batch_size=config.batch_size,
            count=config.negatives,
            seed=config.seed,
            epoch=epoch,
        ):
            users, items = model()
            pos, neg = score(users, items, batch, config.similarity)
            value = loss(pos, neg, batch).mean()
            total = value + config.l2 * _l2(model, batch) if config.l2 else value
            for optimiser in optimisers:
                optimiser.zero_grad()
            total.backward()
            for optimiser in optimisers:
                optimiser.step()
            if duals and hasattr(loss, "project"):
                loss.project()
            values.append(total.detach())
        # Read once an epoch: looking at each value would make a GPU wait at every step.
        values = torch.stack(values)
        names = _nonfinite(model=model, loss=loss)
        if names or not values.isfinite().all():
            bad = (~values.isfinite()).nonzero()
            step = int(bad[0]) + 1 if len(bad) else len(values)
            raise DivergedError(
                f"epoch {epoch}, step {step} of {len(values)}: the loss is {values[step - 1]:g} "
                f"({loss}; lr {config.lr}, dual_lr {config.dual_lr}, l2 {config.l2}); parameters "
                f"not finite at the end of the epoch: {', '.join(names) or 'none'}. Lower lr or "
                "dual_lr, or raise the temperature where the loss has one."
            )
        row = {"epoch": epoch, "loss": values.mean().item(), "seconds": time.perf_counter() - start}
        if epoch % config.evaluate_every == 0 or epoch == config.epochs:
            valid = metrics.evaluate(*tables(model), data.valid, masks=(data.train,), **look)
            row |= valid[["recall@20", "ndcg@20"]].mean().to_dict()
            if row["ndcg@20"] > best + config.min_gain or not data.valid.nnz:
                best, best_epoch, best_valid = row["ndcg@20"], epoch, valid
                state = deepcopy((model.state_dict(), loss.state_dict()))
            bar.set_postfix(valid_ndcg=f"{row['ndcg@20']:.4f}", best=f"{best:.4f}")
        history.append(row)
        if on_epoch:
            on_epoch(row)
        if epoch - best_epoch >= config.patience * config.evaluate_every:
            break
    bar.close()

    model.load_state_dict(state[0])
    loss.load_state_dict(state[1])
    masks = (data.train,) if config.mask == "train" else (data.train, data.valid)
    test = metrics.evaluate(*tables(model), data.test, masks=masks, **look)
    seconds = time.perf_counter() - began
    return Fit(best_epoch, best_valid, test, pd.DataFrame(history), seconds)


@torch.no_grad()
def tables(model: nn.Module) -> tuple[Tensor, Tensor]:
    """The model's user and item tables as they are ranked with: evaluation mode, no gradient."""
    training = model.training
    model.eval()
    found = model()
    model.train(training)
    return found
