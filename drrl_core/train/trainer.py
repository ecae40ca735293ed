"""`fit`: a model, a loss and interactions in; the model at its best epoch and its history out.

Two optimisers, one for the model and one, which the loss names, for what the loss owns. The trainer
never asks which loss it has: a loss that maximises reverses its own gradient, and clips itself in
`project()`.
"""

import ctypes
import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from zipfile import ZipFile

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from drrl_core.datasets import Interactions
from drrl_core.losses import Batch, SampledScores
from drrl_core.train import metrics, sampling

VERSION = 1  # raise it when the same configuration gives other numbers than before
MASKS = ("train", "train+valid")
PRECISIONS = ("highest", "high", "medium")
OPTIMISERS = ("adam", "row-sparse-adam")
DUAL_OPTIMISERS = ("sgd", "adam")
BUILDERS = {
    "adam": partial(torch.optim.Adam, fused=True),
    "row-sparse-adam": torch.optim.SparseAdam,
    "sgd": torch.optim.SGD,
}
# Scores of a tile of rows. On a CPU larger ones leave the cache and smaller ones cost more calls,
# of an exact β above all; a GPU wants large ones.
TILE = {"cpu": 2**20, "cuda": 2**25}


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults are the paper's protocol where it has one.

    Args:
        epochs: at most this many passes over the train pairs, >= 1.
        batch_size: examples a step, >= 1.
        sampler: where negatives come from, "per-row" (the paper's), "shared-pool" or "catalogue";
            see `sampling.Sampler`.
        negatives: N of each example, or the size M of the pool, >= 1.
        noise: share of each example's negatives replaced by train items of its user, in [0, 1).
        similarity: "cosine" or "dot".
        optimiser: the model's, "adam" or "row-sparse-adam". Adam moves every row at every step, by
            its momentum where there is no gradient. Row-sparse Adam is another optimiser: it moves
            the rows that a batch has, and leaves the moments of all others as they were. Its steps
            do not grow with the tables; for tables of millions of rows, of MF, without l2.
        lr: the model's rate, > 0.
        dual_lr: the rate of what the loss owns, by the optimiser that the loss names, >= 0: of SGD
            in units of the variable per unit slope, of Adam in units of the variable.
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
    sampler: str = "per-row"
    negatives: int = 64
    noise: float = 0.0
    similarity: str = "cosine"
    optimiser: str = "adam"
    lr: float = 1e-3
    dual_lr: float = 1e-3
    l2: float = 0.0
    evaluate_every: int = 5
    patience: int = 5
    min_gain: float = 1e-4
    mask: str = "train"
    precision: str = "highest"
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
        if not 0 <= self.noise < 1:
            raise ValueError(f"noise must lie in [0, 1), not {self.noise}")
        if self.noise and self.sampler != "per-row":
            raise ValueError(f"noise is for the per-row sampler only, not for {self.sampler!r}")
        if self.l2 and self.optimiser != "adam":
            raise ValueError(f"l2 must be 0 with optimiser {self.optimiser!r}, not {self.l2}")
        choices = {
            "optimiser": OPTIMISERS,
            "similarity": metrics.SIMILARITIES,
            "sampler": sampling.SAMPLERS,
            "mask": MASKS,
            "precision": PRECISIONS,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                known = ", ".join(map(repr, known))
                raise ValueError(f"{name} must be one of {known}, not {getattr(self, name)!r}")


@dataclass(frozen=True)
class Fit:
    """What came of training: per-user metrics at the best epoch, and the way there.

    Attributes:
        best_epoch: the last epoch whose valid NDCG@20 was a gain, or the latest where a callback
            stopped before any evaluation; model and loss are left as they were then.
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


class CheckpointError(Exception):
    """A checkpoint cannot be read, or belongs to another run; the file is left as it is."""


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


def _keep_freed_memory() -> None:
    """Have the C library keep what is freed, up to 64 MiB, for the next step (glibc's has a say).

    It gives pages back as soon as a few megabytes are free, and a step's arrays, made anew each
    time, then wait for fresh ones: that takes longer than what is computed in them.
    """
    with suppress(AttributeError, OSError, TypeError):  # another system's library
        mallopt, trim_threshold, mmap_threshold = ctypes.CDLL(None).mallopt, -1, -3
        mallopt(trim_threshold, 2**26)
        mallopt(mmap_threshold, 2**25)


def score(
    users: Tensor, items: Tensor, batch: Batch, similarity: str = "cosine"
) -> tuple[Tensor, Tensor]:
    """Scores of a batch: (B,) of the positives, (B, N) of the negatives, each row its own.

    >>> table = torch.eye(3)
    >>> batch = Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([[1, 2]]))
    >>> score(table, table, batch)
    (tensor([1.]), tensor([[0., 0.]]))
    """
    rows = metrics.unit_or_raw(users.index_select(0, batch.users), similarity)
    index = torch.cat([batch.pos_items[:, None], batch.neg_items], 1)
    scores = SampledScores.apply(rows, items, index, similarity == "cosine")
    return scores[:, 0], scores[:, 1:]


def _backward(
    model: nn.Module,
    loss: nn.Module,
    batch: Batch,
    sampler: sampling.Sampler,
    config: TrainConfig,
    slopes: list[Tensor] | None = None,
) -> Tensor:
    """The loss of a batch, detached; its gradients are left in the parameters.

    The loss goes back to the rows of the tables that the batch has. Their slopes add up in an
    array for each table, which goes on to the parameters at once, or becomes their gradient where
    the tables are the parameters. `slopes` keeps these arrays from step to step, empty at first.
    For row-sparse Adam there are none: the gradients are sparse.
    """
    tables = model()
    extra = model.penalty(batch.users, batch.pos_items) + _l2(model, batch, config.l2)
    dense = config.optimiser == "adam"
    slopes = [] if slopes is None else slopes
    if dense and not slopes:
        slopes += [torch.empty_like(table) for table in tables]
    held = [table.detach() for table in tables]
    if batch.neg_items.dim() == 2:
        value, *parts = _rows_backward(*held, loss, batch, config, slopes[1] if dense else None)
    else:
        value, *parts = _pool_backward(*held, loss, batch, sampler, config)
    onward = [(extra, torch.ones_like(extra))] if extra.requires_grad else []
    for i, (table, part) in enumerate(zip(tables, parts, strict=True)):
        if not dense:
            index, rows = map(torch.cat, zip(*part, strict=True))
            slope = torch.sparse_coo_tensor(index[None], rows, table.shape, check_invariants=False)
        elif part:
            slope = slopes[i].zero_()
            for index, rows in part:
                slope.index_add_(0, index, rows)
        else:
            slope = slopes[i]
        if not table.is_leaf:
            onward.append((table, slope))
        elif table.requires_grad:
            table.grad = slope if table.grad is None else table.grad + slope
    if onward:
        torch.autograd.backward(*zip(*onward, strict=True))
    return value + extra.detach()


Part = list[tuple[Tensor, Tensor]]  # rows of a table, by index, and their slopes


def _rows_backward(
    users: Tensor,
    items: Tensor,
    loss: nn.Module,
    batch: Batch,
    config: TrainConfig,
    to_items: Tensor | None,
) -> tuple[Tensor, Part, Part]:
    """The loss, and its slopes to the rows; those to the items are in `to_items` where given."""
    raw = users.index_select(0, batch.users).requires_grad_()
    rows = metrics.unit_or_raw(raw, config.similarity)
    index, touched = torch.cat([batch.pos_items[:, None], batch.neg_items], 1), []
    if to_items is None:
        found, index = index.unique(return_inverse=True)
        items = items.index_select(0, found)
        to_items = torch.empty_like(items)
        touched = [(found, to_items)]
    scores = SampledScores.apply(rows, items, index, config.similarity == "cosine", to_items)
    value = loss(scores[:, 0], scores[:, 1:], batch).mean()
    value.backward()
    return value.detach(), [(batch.users, raw.grad)], touched


def _pool_backward(
    users: Tensor,
    items: Tensor,
    loss: nn.Module,
    batch: Batch,
    sampler: sampling.Sampler,
    config: TrainConfig,
) -> tuple[Tensor, Part, Part]:
    """The same, where the (B, M) scores exist a tile of rows at a time, forward and backward."""
    size, width = len(batch.users), len(batch.neg_items)
    row, column = sampler.positives(batch.users, batch.neg_items)
    if sampler.crowded:  # without a negative an example has no loss
        kept = row.bincount(minlength=size) < width
        row, column = (kept.cumsum(0) - 1)[row][kept[row]], column[kept[row]]
        batch = batch.part(kept)
    uses = len(batch.users) - column.bincount(minlength=width)
    batch = batch._replace(neg_rate=size / uses.clamp_min(1))
    places = (users, batch.users), (items, batch.pos_items), (items, batch.neg_items)
    raw = [table.index_select(0, index).requires_grad_() for table, index in places]
    ends = [metrics.unit_or_raw(end, config.similarity) for end in raw]
    rows, positives, pool = (end.detach() for end in ends)
    to_rows, to_positives, to_pool = map(torch.zeros_like, (rows, positives, pool))
    value = rows.new_zeros(())
    many = max(16, TILE.get(rows.device.type, TILE["cuda"]) // width)
    starts = torch.arange(0, len(rows) + many, many, device=row.device)
    bounds = zip(starts.tolist(), torch.searchsorted(row, starts).tolist(), strict=True)
    for (start, first), (end, last) in pairwise(bounds):
        tile = slice(start, end)
        own = row[first:last] - start, column[first:last]
        neg = rows[tile] @ pool.T
        neg[own] = -math.inf
        pos = (rows[tile] * positives[tile]).sum(-1)
        part = batch.part(tile)
        share = loss(pos.requires_grad_(), neg.requires_grad_(), part).sum() / size
        share.backward()
        slope = neg.grad
        slope[own] = 0
        torch.addmm(pos.grad[:, None] * positives[tile], slope, pool, out=to_rows[tile])
        torch.mul(pos.grad[:, None], rows[tile], out=to_positives[tile])
        to_pool.addmm_(slope.T, rows[tile])
        value += share.detach()
    torch.autograd.backward(ends, [to_rows, to_positives, to_pool])
    of_users, *of_items = [(place[1], end.grad) for place, end in zip(places, raw, strict=True)]
    return value, [of_users], of_items


def _l2(model: nn.Module, batch: Batch, l2: float) -> Tensor:
    """l2/2 · (‖e_u‖² + ‖e_i‖² + mean_j ‖e_j‖²), raw embeddings, mean over the batch."""
    if not l2:
        return model.users.new_zeros(())
    lengths = model.items.square().sum(-1)
    size = model.users[batch.users].square().sum(-1) + lengths[batch.pos_items]
    return l2 / 2 * (size + lengths[batch.neg_items].mean(-1)).mean()


def _nonfinite(**modules: nn.Module) -> list[str]:
    """Names such as "model.users" of the parameters that hold a NaN or an infinity."""
    named = [pair for key, module in modules.items() for pair in module.named_parameters(key)]
    return [name for name, value in named if not value.isfinite().all()]


def _checked(
    values: Tensor, epoch: int, model: nn.Module, loss: nn.Module, config: TrainConfig
) -> float:
    """The mean of an epoch's losses; DivergedError where one, or a parameter, is not finite."""
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
    return values.mean().item()


def _optimisers(
    model: nn.Module, loss: nn.Module, config: TrainConfig
) -> list[torch.optim.Optimizer]:
    """The model's optimiser and, where the loss owns what can be trained, the one it names."""
    if config.optimiser == "row-sparse-adam" and not all(table.is_leaf for table in model()):
        raise ValueError("row-sparse-adam is for models whose tables are their parameters: mf")
    optimisers = [BUILDERS[config.optimiser](model.parameters(), lr=config.lr)]
    rates = getattr(loss, "dual_rates", {})
    owned = [
        {"params": [value], "lr": config.dual_lr * rates.get(name, 1)}
        for name, value in loss.named_parameters()
        if value.requires_grad
    ]
    if owned:
        optimisers.append(BUILDERS[_dual_optimiser(loss)](owned, lr=config.dual_lr))
    return optimisers


def _dual_optimiser(loss: nn.Module) -> str:
    name = getattr(loss, "dual_optimiser", "sgd")
    if name not in DUAL_OPTIMISERS:
        known = " or ".join(map(repr, DUAL_OPTIMISERS))
        raise ValueError(f"{type(loss).__name__}.dual_optimiser must be {known}, not {name!r}")
    return name


def _over(state: dict, config: TrainConfig) -> bool:
    """Whether valid NDCG@20 has gone without a gain for as long as it may."""
    waited = len(state["history"]) - state["best_epoch"]
    return waited >= config.patience * config.evaluate_every


def _plain(values: dict) -> dict:
    """Numbers of NumPy and torch as Python's: `torch.load` takes no others from a file."""
    return {name: v.item() if hasattr(v, "item") else v for name, v in values.items()}


def _save(path: Path, identity: dict, parts: dict, state: dict) -> None:
    """Write a checkpoint whole or not at all, whenever the process may be killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    saved = {name: part.state_dict() for name, part in parts.items()}
    try:
        # By its path: what `torch.save` writes through Python's files aborts on an interrupt.
        try:
            torch.save({"identity": identity, "state": state, "parts": saved}, draft)
        except RuntimeError as error:  # torch's words for it: "unexpected pos 896 vs 790"
            raise OSError(f"{path} cannot be written, is the disk full? {error}") from error
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _restore(path: Path, identity: dict, parts: dict) -> dict:
    """Load a checkpoint into model, loss and optimisers; returns the rest of the state."""
    aside = "move it away, or train without resume"
    try:
        with ZipFile(path) as archive:
            if archive.testzip():  # the sums that `torch.load` does not look at
                raise ValueError("checksum mismatch")
        found = torch.load(path, weights_only=True, map_location="cpu")
        theirs, state, saved = dict(found["identity"]), found["state"], found["parts"]
    except Exception as error:  # whatever a damaged or foreign file makes of the loader
        raise CheckpointError(f"{path} is no checkpoint, or a damaged one: {aside}") from error
    other = [name for name in {**identity, **theirs} if theirs.get(name) != identity.get(name)]
    if other:
        raise CheckpointError(f"{path} is of another run, by its {', '.join(other)}: {aside}")
    for name, part in parts.items():
        try:
            part.load_state_dict(saved[name])
        except (KeyError, ValueError, RuntimeError) as error:  # a tag that tells too little
            raise CheckpointError(f"{path} is of another run, by its {name}: {aside}") from error
    return state


def fit(
    model: nn.Module,
    loss: nn.Module,
    data: Interactions,
    config: TrainConfig | None = None,
    *,
    on_step: Callable[[int, int, Tensor], object] | None = None,
    on_epoch: Callable[[dict], object] | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    tag: str = "",
    progress: bool = True,
) -> Fit:
    """Train until valid NDCG@20 stops gaining; leave model and loss at their best epoch.

    Without valid pairs there is nothing to select by: all epochs are run and the last is kept.
    Ctrl-C stops as a callback does, with the best so far.

    On a CPU with glibc the process keeps up to 64 MiB of what it frees from here on: steps are up
    to twice as fast.

    Everything random comes from (config.seed, epoch): on a CPU, with one number of threads, the
    same call gives the same bits, resumed or not.

    Args:
        model: called without arguments, gives the user and item tables; its device is used. Has
            `penalty(users, pos_items)`, and its raw embeddings as attributes `users`, `items`.
        loss: called as loss(pos, neg, batch), gives one value an example.
        data: the interactions.
        config: how to train.
        on_step: called after each step with epoch, step and the loss; a true answer stops.
        on_epoch: called after each epoch with its row of the history, to which it may add numbers;
            a true answer stops.
        checkpoint: a file that holds the state at the end of the latest epoch, always whole.
        resume: continue from the checkpoint where there is one.
        tag: what else must be equal for a checkpoint to be this run's.
        progress: show a progress bar.

    Raises:
        DivergedError: a loss or a parameter became NaN or infinite; names the step.
        ValueError: no train pairs, a user without a possible negative, or row-sparse Adam for a
            model that computes its tables.
        CheckpointError: the checkpoint cannot be read, or is another run's; it is left as it is.

    >>> from drrl_core import backbones, datasets, losses
    >>> data = datasets.load("synthetic")
    >>> model = backbones.make("mf", n_users=data.n_users, n_items=data.n_items)
    >>> config = TrainConfig(epochs=2, lr=0.01)
    >>> fit(model, losses.make("sl"), data, config, progress=False).best_epoch
    2
    """
    config = TrainConfig(**_plain(asdict(config or TrainConfig())))
    if not data.train.nnz:
        raise ValueError(f"{data.name} has no train pairs: there is nothing to learn from")
    began = time.perf_counter()
    device = next(model.parameters()).device
    if device.type == "cpu":
        _keep_freed_memory()
    loss.to(device)
    model.train()
    optimisers = _optimisers(model, loss, config)
    dual_epochs = getattr(loss, "dual_epochs", None)
    moving = optimisers if dual_epochs is None else optimisers[:1]
    sampler = sampling.Sampler(
        data,
        device,
        kind=config.sampler,
        count=config.negatives,
        batch_size=config.batch_size,
        noise=config.noise,
    )
    look = {"similarity": config.similarity, "ks": (20,)}
    identity = {**asdict(config), "data": data.hash, "tag": tag}
    if (dual := _dual_optimiser(loss)) != "sgd":
        identity["dual_optimiser"] = dual
    parts = {"model": model, "loss": loss, **{f"step {i}": o for i, o in enumerate(optimisers)}}
    state = {"history": [], "best": -math.inf, "best_epoch": 0, "best_state": None}
    if checkpoint and resume and Path(checkpoint).exists():
        state = _restore(Path(checkpoint), identity, parts)
        began -= state.get("seconds", 0.0)  # what it took before counts
    history = state["history"]
    slopes = []

    def step(batch: Batch, moving: list[torch.optim.Optimizer]) -> Tensor:
        for optimiser in optimisers:
            optimiser.zero_grad()
        value = _backward(model, loss, batch, sampler, config, slopes)
        for optimiser in moving:
            optimiser.step()
        if optimisers[1:] and hasattr(loss, "project"):
            loss.project()
        return value

    todo = range(len(history) + 1, 1 if _over(state, config) else config.epochs + 1)
    bar = tqdm(todo, desc=data.name, unit="epoch", disable=not progress)
    devices = [device] if device.type == "cuda" else []
    precision, grad = torch.get_float32_matmul_precision(), torch.is_grad_enabled()
    torch.set_float32_matmul_precision(config.precision)
    try:
        with torch.random.fork_rng(devices=devices):
            for epoch in bar:
                start, values, stop = time.perf_counter(), [], False
                torch.manual_seed(sampling.epoch_seed(config.seed, epoch))  # a model's own noise
                if epoch in (dual_epochs or ()):  # draws of its own: there is no other epoch 0
                    own_seed = sampling.epoch_seed(config.seed, epoch)
                    for batch in sampler.epoch(own_seed, 0):
                        step(batch, optimisers[1:])
                for batch in sampler.epoch(config.seed, epoch):
                    values.append(step(batch, moving))
                    if on_step and (stop := bool(on_step(epoch, len(values), values[-1]))):
                        break
                # Read once an epoch: looking at each value would make a GPU wait at every step.
                value = _checked(torch.stack(values), epoch, model, loss, config)
                row = {"epoch": epoch, "loss": value, "seconds": time.perf_counter() - start}
                evaluated = epoch % config.evaluate_every == 0 or epoch == config.epochs or stop
                if evaluated:
                    seen = metrics.evaluate(*tables(model), data.valid, masks=(data.train,), **look)
                    row |= seen[["recall@20", "ndcg@20"]].mean().to_dict()
                history.append(row)  # before it may be the best: there is none without an epoch
                if evaluated:
                    if row["ndcg@20"] > state["best"] + config.min_gain or not data.valid.nnz:
                        best = deepcopy((model.state_dict(), loss.state_dict()))
                        # At once: wherever Ctrl-C falls, the epoch and the state are of one.
                        state |= {"best": row["ndcg@20"], "best_epoch": epoch, "best_state": best}
                    bar.set_postfix(valid_ndcg=f"{row['ndcg@20']:.4f}", best=f"{state['best']:.4f}")
                halt = bool(on_epoch and on_epoch(row))
                row |= _plain(row)
                if checkpoint and not stop:  # an epoch that a step stopped is not whole
                    state["seconds"] = time.perf_counter() - began
                    _save(Path(checkpoint), identity, parts, state)
                if halt or stop or _over(state, config):
                    break
    except KeyboardInterrupt:
        if state["best_state"] is None:
            raise
    finally:
        bar.close()
        torch.set_float32_matmul_precision(precision)
        torch.set_grad_enabled(grad)  # Ctrl-C inside `no_grad` would leave it off, for all to come

    if state["best_state"] is None:  # stopped before any evaluation
        best = deepcopy((model.state_dict(), loss.state_dict()))
        state |= {"best_epoch": len(history), "best_state": best}
    model.load_state_dict(state["best_state"][0])
    loss.load_state_dict(state["best_state"][1])
    valid = metrics.evaluate(*tables(model), data.valid, masks=(data.train,), **look)
    masks = (data.train,) if config.mask == "train" else (data.train, data.valid)
    test = metrics.evaluate(*tables(model), data.test, masks=masks, **look)
    seconds = time.perf_counter() - began
    return Fit(state["best_epoch"], valid, test, pd.DataFrame(history), seconds)


@torch.no_grad()
def tables(model: nn.Module) -> tuple[Tensor, Tensor]:
    """The model's user and item tables as they are ranked with: evaluation mode, no gradient."""
    training = model.training
    model.eval()
    try:
        return model()
    finally:
        model.train(training)
