"""Distributionally robust losses for recommenders: SL, CCL and DrRL as one family.

The names below are what most people need; each is loaded when it is first asked for, so that
`import drrl_core` itself loads nothing, not even torch.

>>> import torch
>>> from drrl_core import softmax_loss, worst_case
>>> pos, neg = torch.tensor([0.9]), torch.tensor([[0.1, 0.2, 0.6]])
>>> softmax_loss(pos, neg, temperature=0.2).shape
torch.Size([1])
>>> worst_case(neg, order=2, radius=0.5).value
tensor([0.4740])
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drrl_core.backbones import make as make_backbone
    from drrl_core.datasets import DataError, Interactions, load
    from drrl_core.dro import worst_case
    from drrl_core.losses import Batch, DrRL, cosine_contrastive_loss, drrl_loss, softmax_loss
    from drrl_core.losses import make as make_loss
    from drrl_core.testing import register
    from drrl_core.train import TrainConfig, fit
    from drrl_core.train.metrics import evaluate

__version__ = "0.2.0.dev0"
_HOMES = {  # name -> the module that has it, and what it is called there
    "Batch": ("losses", "Batch"),
    "DataError": ("datasets", "DataError"),
    "DrRL": ("losses", "DrRL"),
    "Interactions": ("datasets", "Interactions"),
    "TrainConfig": ("train", "TrainConfig"),
    "cosine_contrastive_loss": ("losses", "cosine_contrastive_loss"),
    "drrl_loss": ("losses", "drrl_loss"),
    "evaluate": ("train.metrics", "evaluate"),
    "fit": ("train", "fit"),
    "load": ("datasets", "load"),
    "make_backbone": ("backbones", "make"),
    "make_loss": ("losses", "make"),
    "register": ("testing", "register"),
    "softmax_loss": ("losses", "softmax_loss"),
    "worst_case": ("dro", "worst_case"),
}
__all__ = [
    "Batch",
    "DataError",
    "DrRL",
    "Interactions",
    "TrainConfig",
    "cosine_contrastive_loss",
    "drrl_loss",
    "evaluate",
    "fit",
    "load",
    "make_backbone",
    "make_loss",
    "register",
    "softmax_loss",
    "worst_case",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'drrl_core' has no attribute {name!r}")
    home, own = _HOMES[name]
    return getattr(import_module(f"drrl_core.{home}"), own)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
