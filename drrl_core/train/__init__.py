"""Training and measuring.

config      how to train, and where
sampling    negatives of an epoch
step        scores and gradients of a batch, the optimisers
checkpoint  the state of a training on disk
loop        `fit`: epochs until valid stops gaining
solving     the same of a model that is solved and gives scores
metrics     accuracy of rankings, and tests of a difference
popularity  popularity put back when ranking
diagnose    what a trained loss does to its negatives
"""

from drrl_core.train.checkpoint import CheckpointError
from drrl_core.train.config import LATER, VERSION, TrainConfig, resolve_device
from drrl_core.train.loop import DivergedError, Fit, fit
from drrl_core.train.solving import refitted, solve
from drrl_core.train.step import score, tables

__all__ = [
    "LATER",
    "VERSION",
    "CheckpointError",
    "DivergedError",
    "Fit",
    "TrainConfig",
    "fit",
    "refitted",
    "resolve_device",
    "score",
    "solve",
    "tables",
]
