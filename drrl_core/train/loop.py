"""`fit`: a model, a loss and interactions in; the model at its best epoch and its history out.

Two optimisers, one for the model and one, which the loss names, for what the loss owns. The loop
never asks which loss it has: a loss that maximises reverses its own gradient, and clips itself in
`project()`.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from drrl_core.datasets import Interactions
from drrl_core.losses import Batch
from drrl_core.train import metrics, sampling
from drrl_core.train.checkpoint import restore, save
from drrl_core.train.config import TrainConfig
from drrl_core.train.step import (
    backward,
    dual_optimiser,
    keep_freed_memory,
    optimisers_of,
    tables,
)

Row = dict[str, Any]  # of the history: what an epoch measured
OnStep = Callable[[int, int, Tensor], object]  # epoch, step, loss


@dataclass(frozen=True)
class Fit:
    """What came of training: per-user metrics at the best epoch, and the way there.

    Attributes:
        best_epoch: the last epoch that was a gain on valid, by `TrainConfig.criterion`; the latest
            where a callback stopped before any evaluation. Model and loss are as they were then.
        valid, test: one row a user, columns like "ndcg@20".
        history: one row an epoch: loss (mean over the steps, l2 included), seconds (training
            only), and where evaluated `TrainConfig.measured` on valid: recall@20, ndcg@20, ...
        seconds: everything, evaluation included.
    """

    best_epoch: int
    valid: pd.DataFrame
    test: pd.DataFrame
    history: pd.DataFrame
    seconds: float


class DivergedError(ArithmeticError):
    """Training met a NaN or an infinity."""


@dataclass
class _Training:
    """What a training is made of, and how far it is."""

    model: Any  # an nn.Module with what `fit` asks for
    loss: Any
    data: Interactions
    config: TrainConfig
    sampler: sampling.Sampler
    optimisers: list[torch.optim.Optimizer]  # of the model, and of what the loss owns
    identity: dict[str, Any]  # what must be equal for a checkpoint to be continued
    began: float
    state: dict[str, Any] = field(
        default_factory=lambda: {
            "history": [],
            "best": -math.inf,
            "best_epoch": 0,
            "best_state": None,
        }
    )
    slopes: list[Tensor] = field(default_factory=list)  # arrays kept from step to step

    @property
    def parts(self) -> dict[str, Any]:
        steps = {f"step {i}": optimiser for i, optimiser in enumerate(self.optimisers)}
        return {"model": self.model, "loss": self.loss, **steps}


def _begin(
    model: nn.Module, loss: nn.Module, data: Interactions, config: TrainConfig, tag: str
) -> _Training:
    """Everything in its place for the first epoch."""
    if not data.train.nnz:
        raise ValueError(f"{data.name} has no train pairs: there is nothing to learn from")
    began, device = time.perf_counter(), next(model.parameters()).device
    if device.type == "cpu":
        keep_freed_memory()
    loss.to(device)
    model.train()
    optimisers = optimisers_of(model, loss, config)
    sampler = sampling.Sampler(
        data,
        device,
        kind=config.sampler,
        count=config.negatives,
        batch_size=config.batch_size,
        noise=config.noise,
        power=config.draw_power,
    )
    identity = {**config.identity(), "data": data.hash, "tag": tag}
    if (dual := dual_optimiser(loss)) != "sgd":
        identity["dual_optimiser"] = dual
    return _Training(model, loss, data, config, sampler, optimisers, identity, began)


def _step(training: _Training, batch: Batch, moving: list[torch.optim.Optimizer]) -> Tensor:
    """One step of the optimisers that move; the loss, detached."""
    model, loss, optimisers = training.model, training.loss, training.optimisers
    for optimiser in optimisers:
        optimiser.zero_grad()
    value = backward(model, loss, batch, training.sampler, training.config, training.slopes)
    for optimiser in moving:
        optimiser.step()
    if optimisers[1:] and hasattr(loss, "project"):
        loss.project()
    return value


def _epoch(training: _Training, epoch: int, on_step: OnStep | None) -> tuple[Row, bool]:
    """One pass over the train pairs: its row of the history, and whether a callback stopped it."""
    start, values, stop = time.perf_counter(), list[Tensor](), False
    sampler, seed = training.sampler, training.config.seed
    torch.manual_seed(sampling.epoch_seed(seed, epoch))  # a model's own noise
    own = getattr(training.loss, "dual_epochs", None)  # when what the loss owns has its turn
    if epoch in (own or ()):  # with draws of its own: there is no other epoch 0
        for batch in sampler.epoch(sampling.epoch_seed(seed, epoch), 0):
            _step(training, batch, training.optimisers[1:])
    moving = training.optimisers if own is None else training.optimisers[:1]
    for batch in sampler.epoch(seed, epoch):
        values.append(_step(training, batch, moving))
        if on_step and (stop := bool(on_step(epoch, len(values), values[-1]))):
            break
    # Read once an epoch: looking at each value would make a GPU wait at every step.
    value = _checked(torch.stack(values), epoch, training)
    return {"epoch": epoch, "loss": value, "seconds": time.perf_counter() - start}, stop


def _checked(values: Tensor, epoch: int, training: _Training) -> float:
    """The mean of an epoch's losses; DivergedError where one, or a parameter, is not finite."""
    modules, config = {"model": training.model, "loss": training.loss}, training.config
    named = [pair for key, part in modules.items() for pair in part.named_parameters(key)]
    names = [name for name, value in named if not value.isfinite().all()]
    if names or not values.isfinite().all():
        bad = (~values.isfinite()).nonzero()
        step = int(bad[0]) + 1 if len(bad) else len(values)
        raise DivergedError(
            f"epoch {epoch}, step {step} of {len(values)}: the loss is {values[step - 1]:g} "
            f"({training.loss}; lr {config.lr}, dual_lr {config.dual_lr}, l2 {config.l2}); "
            f"parameters not finite at the end of the epoch: {', '.join(names) or 'none'}. Lower "
            "lr or dual_lr, or raise the temperature where the loss has one."
        )
    return values.mean().item()


def _ranked(training: _Training, split: str) -> pd.DataFrame:
    """Metrics of each user on a split, by the tables as they are now."""
    data, config = training.data, training.config
    both = split == "test" and config.mask == "train+valid"
    masks = (data.train, data.valid) if both else (data.train,)
    wanted = getattr(data, split)
    return metrics.evaluate(
        *tables(training.model),
        wanted,
        masks=masks,
        similarity=config.similarity,
        ks=tuple(dict.fromkeys([metrics.CUTOFF, config.cutoff])),
    )


def _keep_best(training: _Training, row: Row) -> None:
    """Measure on valid, into the row, and keep model and loss where that is a gain."""
    state, config = training.state, training.config
    valid = _ranked(training, "valid")
    row.update({name: float(valid[name].mean()) for name in config.measured})
    state["history"].append(row)  # before it may be the best: there is none without an epoch
    reached = row[config.criterion]
    if reached > state["best"] + config.min_gain or not training.data.valid.nnz:
        # At once: wherever Ctrl-C falls, the epoch and the state are of one.
        state |= {"best": reached, "best_epoch": row["epoch"]} | _states(training)


def _states(training: _Training) -> dict[str, Any]:
    return {"best_state": deepcopy((training.model.state_dict(), training.loss.state_dict()))}


def _over(training: _Training) -> bool:
    """Whether valid has gone without a gain for as long as it may."""
    waited = len(training.state["history"]) - training.state["best_epoch"]
    return bool(waited >= training.config.patience * training.config.evaluate_every)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Numbers of NumPy and torch as Python's: `torch.load` takes no others from a file."""
    return {name: v.item() if hasattr(v, "item") else v for name, v in values.items()}


@contextmanager
def _torch_as_found(device: torch.device, precision: str) -> Iterator[None]:
    """Random state, precision and gradients are set for a training, and put back after it."""
    before, grad = torch.get_float32_matmul_precision(), torch.is_grad_enabled()
    torch.set_float32_matmul_precision(precision)
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.set_grad_enabled(grad)  # Ctrl-C inside `no_grad` would leave it off, for all to come


def fit(
    model: nn.Module,
    loss: nn.Module,
    data: Interactions,
    config: TrainConfig | None = None,
    *,
    on_step: OnStep | None = None,
    on_epoch: Callable[[Row], object] | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    tag: str = "",
    progress: bool = True,
) -> Fit:
    """Train until valid accuracy stops gaining; leave model and loss at their best epoch.

    What is looked at is `config.criterion`, valid NDCG@20 by default.

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
    training = _begin(model, loss, data, config, tag)
    if checkpoint and resume and Path(checkpoint).exists():
        training.state = restore(Path(checkpoint), training.identity, training.parts)
        training.began -= training.state.get("seconds", 0.0)  # what it took before counts
    state, history = training.state, training.state["history"]
    todo = range(len(history) + 1, 1 if _over(training) else config.epochs + 1)
    bar = tqdm(todo, desc=data.name, unit="epoch", disable=not progress)
    try:
        with _torch_as_found(next(model.parameters()).device, config.precision):
            for epoch in bar:
                row, stop = _epoch(training, epoch, on_step)
                if epoch % config.evaluate_every == 0 or epoch == config.epochs or stop:
                    _keep_best(training, row)
                    now = f"{config.criterion} {row[config.criterion]:.4f}"
                    bar.set_postfix(valid=now, best=f"{state['best']:.4f}")
                else:
                    history.append(row)
                halt = bool(on_epoch and on_epoch(row))
                row |= _plain(row)
                if checkpoint and not stop:  # an epoch that a step stopped is not whole
                    state["seconds"] = time.perf_counter() - training.began
                    save(Path(checkpoint), training.identity, training.parts, state)
                if halt or stop or _over(training):
                    break
    except KeyboardInterrupt:
        if state["best_state"] is None:
            raise
    finally:
        bar.close()
    if state["best_state"] is None:  # stopped before any evaluation
        state |= {"best_epoch": len(history)} | _states(training)
    for part, best in zip((model, loss), state["best_state"], strict=True):
        part.load_state_dict(best)
    valid, test = _ranked(training, "valid"), _ranked(training, "test")
    seconds = time.perf_counter() - training.began
    return Fit(state["best_epoch"], valid, test, pd.DataFrame(history), seconds)
