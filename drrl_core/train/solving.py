"""`solve`: what `fit` is to a loss, for a model that is solved and gives scores."""

import time
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from drrl_core.datasets import Interactions
from drrl_core.train import metrics
from drrl_core.train.config import TrainConfig
from drrl_core.train.loop import Fit


def refitted(data: Interactions, config: TrainConfig) -> Interactions:
    """The data as a run is trained on them: as they are, or valid joined to train.

    Args:
        data: the interactions.
        config: of which `refit` counts.

    >>> from drrl_core import datasets
    >>> data = datasets.load("synthetic")
    >>> both = refitted(data, TrainConfig(refit="train+valid"))
    >>> both.train.nnz == data.train.nnz + data.valid.nnz, both.valid.nnz
    (True, 0)
    """
    if config.refit == "none":
        return data
    return replace(data, train=data.train + data.valid, valid=data.valid * 0)


def solve(model: metrics.Scorer, data: Interactions, config: TrainConfig | None = None) -> Fit:
    """Solve a model by asking it for scores, and measure it as `fit` measures.

    Args:
        model: see `metrics.Scorer`; solved at its first call, as `classical.make` makes them.
        data: the interactions.
        config: of which `mask`, `metric` and `cutoff` count.

    Returns:
        Per-user metrics; a history of one epoch, whose loss is NaN; seconds to solve and to rank
        valid and test.

    Raises:
        ValueError: there are no train pairs, or the model refuses what it was made with.

    >>> from drrl_core import classical, datasets
    >>> data = datasets.load("synthetic")
    >>> found = solve(classical.make("ease", data.train), data)
    >>> bool(found.test["ndcg@20"].mean() > 0.1), found.best_epoch
    (True, 1)
    """
    if not data.train.nnz:
        raise ValueError(f"{data.name} has no train pairs: there is nothing to learn from")
    config, began = config or TrainConfig(), time.perf_counter()
    ks = tuple(dict.fromkeys([metrics.CUTOFF, config.cutoff]))

    def ranked(split: str) -> pd.DataFrame:
        both = split == "test" and config.mask == "train+valid"
        target, masks = getattr(data, split), (data.train, data.valid)[: 1 + both]
        wanted = metrics.seekers(target)
        best = metrics.rank_by(model, wanted, data.n_items, masks=masks, k=max(ks))
        return metrics.accuracy(best, target, ks=ks)

    with torch.no_grad():
        model(np.array([0]))
    solved = time.perf_counter() - began
    valid, test = ranked("valid"), ranked("test")
    row = {"epoch": 1, "loss": float("nan"), "seconds": solved}
    row |= {name: float(valid[name].mean()) for name in config.measured}
    return Fit(1, valid, test, pd.DataFrame([row]), time.perf_counter() - began)
