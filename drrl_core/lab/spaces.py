"""What is searched: every loss as it is tuned, and a point of its space as a run's configuration.

A point has a value for each hyper-parameter of the search, named in full, `loss.temperature`, but
for `loss.order-1`, which is γ - 1. Ranges are tuples of our own and no distributions of Optuna's,
which is an extra: what is searched can be read without it. They hold every published value, see
`starts.published`.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from drrl_core import datasets, dro, losses
from drrl_core.common import did_you_mean
from drrl_core.lab.run import Run, configure, flat, key_of
from drrl_core.train import TrainConfig


class Range(NamedTuple):
    """Where a hyper-parameter is searched, in its unit."""

    low: float
    high: float
    log: bool = False

    def clip(self, value: float) -> float:
        return min(max(value, self.low), self.high)


class Variant(NamedTuple):
    """A loss as it is tuned: what is searched, and what is fixed."""

    loss: str
    space: dict[str, Range]
    fixed: Mapping[str, object] = MappingProxyType({})


def variants(negatives: int) -> dict[str, Variant]:
    """Every loss as it is tuned, by name: the one table of search spaces.

    `loss.order-1` is γ - 1, so that a log range gives both ends of the family their due: γ* runs
    from 1.007 to 51. The radius is searched and not c: at fixed c much of a (γ, c) grid is a point
    mass. It ends at 0.85·log N, N the negatives of a row or a pool, so that a row should say N.
    The learning rate's range is the same for all losses, and holds every published one.

    Args:
        negatives: N, as one row of the loss sees them.

    >>> round(variants(64)["drrl-exact"].space["loss.radius"].high, 2)
    3.54
    """
    tau, rate = Range(0.05, 0.3), {"train.lr": Range(1e-4, 1e-1, True)}
    dot = rate | {"train.l2": Range(1e-6, 1e-1, True)}
    ball = {
        "loss.order-1": Range(0.02, 150, True),
        "loss.radius": Range(0.05, max(0.05, 0.85 * math.log(negatives))),
        **rate,
    }
    hinge = {"loss.margin": Range(-0.3, 0.9), "loss.weight": Range(2, 150, True)}
    fixed = ball | {"loss.start": Range(-0.3, 0.9)}
    learned = fixed | {"train.dual_lr": Range(1e-5, 1e-1, True)}
    penalty = {
        "loss.order-1": Range(0.02, 2, True),
        "loss.temperature": Range(0.01, 0.5, True),
        **rate,
    }
    soft = {"loss.temperature": tau, **rate}
    hard = {"loss.scale": Range(1, 1000, True), "train.dual_lr": Range(1e-5, 1e-2, True)}
    shares = {"loss.share_pos": Range(0.1, 1), "loss.share_neg": Range(0.005, 0.5, True)}
    shares |= {"train.dual_lr": Range(1e-4, 1e-1, True)}
    return {
        "mse": Variant("mse", dot),
        "bce": Variant("bce", dot),
        "bpr": Variant("bpr", dot),
        "sl": Variant("sl", soft),
        "bsl": Variant("bsl", soft | {"loss.temperature_pos": Range(0.05, 0.6)}),
        "bsl-pooled": Variant("bsl-pooled", soft | {"loss.ratio": Range(0.2, 5, True)}),
        "psl": Variant("psl", {"loss.temperature": Range(0.025, 0.15), **rate}),
        "ccl": Variant("ccl", hinge | rate),
        "advinfonce": Variant("advinfonce", soft | hard, {"loss.passes": 5}),
        "llpauc": Variant("llpauc", shares | rate),
        "drrl": Variant("drrl", learned, {"loss.dual": "learned"}),
        "drrl-shared": Variant("drrl", learned, {"loss.dual": "shared"}),  # w/o-P
        "drrl-fixed": Variant("drrl", fixed, {"loss.dual": "fixed"}),  # w/o-LP
        "drrl-exact": Variant("drrl", ball, {"loss.dual": "exact"}),
        "drrl-penalty": Variant("drrl", penalty, {"loss.dual": "exact"}),
    }


def variant_of(loss: str, hyperparameters: Mapping[str, object]) -> str:
    """The name in `variants` of a loss with these hyper-parameters.

    >>> variant_of("drrl", {"dual": "exact", "radius": 1.0}), variant_of("sl", {})
    ('drrl-exact', 'sl')
    """
    if loss != "drrl" or hyperparameters.get("dual", "learned") == "learned":
        return loss
    return (
        "drrl-penalty" if hyperparameters.get("temperature") else f"drrl-{hyperparameters['dual']}"
    )


def config_of(variant: Variant, point: Mapping[str, float]) -> dict[str, Any]:
    """A point of the search space as `configure` takes it, four digits each: short enough to type.

    >>> config_of(variants(64)["drrl-exact"], {"loss.order-1": 1, "loss.radius": 2 / 3})
    {'loss.dual': 'exact', 'loss.radius': 0.6667, 'loss.order': 2.0}
    """
    point = {name: float(f"{value:.4g}") for name, value in point.items()}
    if "loss.order-1" in point:
        point["loss.order"] = round(1 + point.pop("loss.order-1"), 6)
    return {**variant.fixed, **point}


@dataclass(frozen=True)
class Search:
    """What is tuned: a variant on a backbone and data, but for what is given."""

    dataset: str
    name: str
    backbone: str
    variant: Variant
    negatives: int
    data: datasets.Interactions
    given: Mapping[str, object]

    def run(self, point: dict[str, float] | None = None) -> Run:
        """The run at a point of the search space, its lowest corner by default."""
        point = point or {name: each.low for name, each in self.variant.space.items()}
        config = config_of(self.variant, point)
        return configure(self.dataset, self.variant.loss, self.backbone, config)

    @property
    def study(self) -> str:
        """A name that no other data, variant, configuration or search space has."""
        what = [key_of(self.run(), self.data.hash), self.variant.space]
        digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:8]
        return f"{self.data.name}/{self.backbone}/{self.name}/{digest}"

    @property
    def searched(self) -> set[str]:
        """What a point decides, by full names, other sizes of its ball included."""
        names = {name.removesuffix("-1") for name in self.variant.space}
        ball = "loss.radius" in names
        return names | ({"loss.weight", "loss.eta"} if ball else set())

    def point(self, config: Mapping[str, Any]) -> dict[str, float]:
        """The point of the space that a configuration, by full names, amounts to.

        What they leave out is as by default, and each is put into its range. A ball that is given
        by c or η has its radius.
        """
        space, default = self.variant.space, losses.hyperparameters(self.variant.loss)
        default = flat({"loss": default, "train": asdict(TrainConfig())})
        own: dict[str, Any] = self.run().flat_config
        own |= {**{name: default[name] for name in self.searched}, **config}
        if "loss.radius" in space:
            order = own["loss.order"]
            if "loss.order-1" in space:
                order = 1 + space["loss.order-1"].clip(order - 1)
            if (eta := own["loss.eta"]) is not None:
                own["loss.radius"] = dro.radius_from_eta(eta, order)
            elif own["loss.radius"] is None:
                own["loss.radius"] = dro.radius_from_weight(max(own["loss.weight"] or 1, 1), order)
        if "loss.order-1" in space:
            own["loss.order-1"] = own["loss.order"] - 1
        return {name: each.clip(own[name]) for name, each in space.items()}


def is_of(loss: str, name: str) -> bool:
    """Whether a value, by its name, is of the loss rather than of training or the backbone.

    >>> [is_of("sl", name) for name in ("temperature", "train.lr", "lr")]
    [True, False, False]
    """
    group, _, bare = name.rpartition(".")
    return group == "loss" or (not group and bare in losses.hyperparameters(loss))


def plan(
    data: datasets.Interactions, dataset: str, name: str, backbone: str, given: Mapping[str, object]
) -> Search:
    """The search for a variant, less the hyper-parameters that are given.

    Args:
        data, dataset: the interactions, and what they were loaded by.
        name: in `variants`.
        given: as `config` of `run.configure`; these are not searched.

    Raises:
        ValueError: no such variant, or a value that is refused.

    >>> data = datasets.load("synthetic")
    >>> list(plan(data, "synthetic", "sl", "mf", {"lr": 0.01}).variant.space)
    ['loss.temperature']
    """
    if name not in (table := variants(2)):
        raise ValueError(f"no variant {name!r}; {did_you_mean(name, table)}")
    loss, fixed = table[name].loss, table[name].fixed
    for key in given:
        if fixed.keys() & {key, f"loss.{key}", f"train.{key}"}:
            raise ValueError(f"{name} is tuned with its own {key}; there are: {', '.join(table)}")
    other = {key: value for key, value in given.items() if not is_of(loss, key)}
    train = configure(dataset, loss, backbone, other).train
    count = data.n_items if train.sampler == "catalogue" else train.negatives
    line, instead = variants(count)[name], {"order-1": ["order"], "radius": ["weight", "eta"]}
    space = {}
    for key, each in line.space.items():
        group, _, bare = key.partition(".")
        same = [bare, *instead.get(bare, [])]
        if not {*same, *(f"{group}.{one}" for one in same)} & given.keys():
            space[key] = each
    line = line._replace(space=space, fixed={**line.fixed, **given})
    return Search(dataset, name, backbone, line, count, data, given)
