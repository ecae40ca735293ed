"""How to train, and where."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from drrl_core.train import metrics, sampling

VERSION = 1  # raise it when the same configuration gives other numbers than before
MASKS = ("train", "train+valid")
REFITS = ("none", "train+valid")
PRECISIONS = ("highest", "high", "medium")
OPTIMISERS = ("adam", "row-sparse-adam")
# Settings that came after the first recorded runs, and what these were trained with.
LATER: dict[str, Any] = {"metric": "ndcg", "cutoff": 20, "refit": "none", "draw_power": 0.0}


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
        min_gain: a gain on valid counts when larger than this, in units of the metric, >= 0.
        mask: what the test ranking leaves out: "train" (the paper's, so that valid items stand
            among the candidates) or "train+valid".
        seed: in [0, 2**63).
        metric: what valid is judged by, which decides when training stops and which epoch is kept:
            "ndcg", "recall", "precision", "hitrate" or "mrr".
        cutoff: k of that metric, >= 1. Recall and NDCG are measured at it, and at 20 always.
        refit: "none", or "train+valid": train on the valid pairs too, for all `epochs`, since there
            is nothing left to select by. Such runs are another protocol: no table mixes them in.
        draw_power: s, any number: per-row negatives are drawn in proportion to
            (1 + train pairs)^s. A loss's prior=-s corrects that.

    >>> TrainConfig(metric="recall", cutoff=10).criterion
    'recall@10'
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
    metric: str = "ndcg"
    cutoff: int = 20
    refit: str = "none"
    draw_power: float = 0.0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "negatives", "evaluate_every", "patience", "cutoff"):
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
        if not math.isfinite(self.draw_power) or (self.draw_power and self.sampler != "per-row"):
            raise ValueError(
                f"draw_power must be a number, other than 0 for the per-row sampler only, not "
                f"{self.draw_power} for {self.sampler!r}"
            )
        choices = {
            "optimiser": OPTIMISERS,
            "similarity": metrics.SIMILARITIES,
            "sampler": sampling.SAMPLERS,
            "mask": MASKS,
            "precision": PRECISIONS,
            "metric": metrics.NAMES,
            "refit": REFITS,
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                allowed = ", ".join(map(repr, known))
                raise ValueError(f"{name} must be one of {allowed}, not {getattr(self, name)!r}")

    @property
    def criterion(self) -> str:
        """The column that valid is judged by, such as "ndcg@20"."""
        return f"{self.metric}@{self.cutoff}"

    @property
    def measured(self) -> tuple[str, ...]:
        """The reported columns: recall and NDCG, at 20 and at the cut-off; the criterion."""
        own = f"recall@{self.cutoff}", f"ndcg@{self.cutoff}", self.criterion
        return tuple(dict.fromkeys([*metrics.ACCURACY, *own]))

    def identity(self) -> dict[str, Any]:
        """Every setting as keys and checkpoints have it.

        A setting of `LATER` is left out where it is as by default: what was recorded before there
        was such a setting keeps its key.

        >>> TrainConfig(cutoff=10).identity().keys() - TrainConfig().identity().keys()
        {'cutoff'}
        """
        return {k: v for k, v in asdict(self).items() if k not in LATER or v != LATER[k]}


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
