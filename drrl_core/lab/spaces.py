"""What is searched: every loss as it is tuned, a point of its space as a run, and a run as a point.

A point names settings in full, `loss.temperature`, but for `loss.order-1`, which is γ - 1. Ranges
are those of the registry of losses, and hold every setting of `starts.published`.
"""

import difflib
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd

from drrl_core import datasets, dro, losses
from drrl_core.lab import runs
from drrl_core.losses import Range
from drrl_core.train.trainer import TrainConfig


class Variant(NamedTuple):
    """A loss as it is tuned: what is searched, and what is fixed."""

    loss: str
    space: dict[str, Range]
    fixed: Mapping[str, object] = MappingProxyType({})


def variants(negatives: int) -> dict[str, Variant]:
    """Every loss as it is tuned, by name, as the registry of losses has it.

    Args:
        negatives: N, as one row of the loss sees them.

    >>> round(variants(64)["drrl-exact"].space["loss.radius"].high, 2)
    3.54
    """
    found = {}
    for name, way in losses.variants().items():
        space = {key: at(negatives) if callable(at) else at for key, at in way.search.items()}
        found[name] = Variant(way.loss, space, way.fixed)
    return found


def variant_of(loss: str, hyper: dict) -> str:
    """The name in `variants` of a loss with these hyper-parameters.

    >>> variant_of("drrl", {"dual": "exact", "radius": 1.0}), variant_of("sl", {})
    ('drrl-exact', 'sl')
    """
    if loss != "drrl" or hyper.get("dual", "learned") == "learned":
        return loss
    return "drrl-penalty" if hyper.get("temperature") else f"drrl-{hyper['dual']}"


def settings_of(variant: Variant, point: dict[str, float]) -> dict:
    """A point of the search space as settings of a run, four digits each: short enough to type.

    >>> settings_of(variants(64)["drrl-exact"], {"loss.order-1": 1, "loss.radius": 2 / 3})
    {'loss.dual': 'exact', 'loss.radius': 0.6667, 'loss.order': 2.0}
    """
    point = {name: float(f"{value:.4g}") for name, value in point.items()}
    if "loss.order-1" in point:
        point["loss.order"] = round(1 + point.pop("loss.order-1"), 6)
    return {**variant.fixed, **point}


def changes(before: dict[str, dict], after: dict[str, dict]) -> dict:
    """What the second parameters have and the first, of the same loss and backbone, have not.

    >>> changes({"train": {"lr": 0.1, "seed": 0}}, {"train": {"lr": 0.2, "seed": 0}})
    {'train.lr': 0.2}
    """
    known = runs.flat(before)
    return {name: value for name, value in runs.flat(after).items() if value != known[name]}


def run_of(row: pd.Series) -> runs.Run:
    """The run that a row of `search.results` tells of.

    >>> row = pd.Series({"dataset": "synthetic", "loss": "drrl", "backbone": "mf", "seed": 3})
    >>> row["settings"] = '{"loss.order": "inf"}'
    >>> run = run_of(pd.concat([row, pd.Series({"sampler": "per-row", "negatives": 8})]))
    >>> run.loss_parameters["order"], run.train.seed, run.train.negatives
    (inf, 3, 8)
    """
    settings = {f"train.{name}": row[name] for name in ("seed", "sampler", "negatives")}
    for name, value in json.loads(row["settings"]).items():
        settings[name] = runs.parse_value(value) if isinstance(value, str) else value
    return runs.configure(row["dataset"], row["loss"], row["backbone"], settings)


# ---------------------------------------------------------------------------------------------
# One search


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

    def run(self, point: dict[str, float] | None = None) -> runs.Run:
        """The run at a point of the search space, its lowest corner by default."""
        point = point or {name: each.low for name, each in self.variant.space.items()}
        settings = settings_of(self.variant, point)
        return runs.configure(self.dataset, self.variant.loss, self.backbone, settings)

    @property
    def study(self) -> str:
        """A name that no other data, variant, setting or search space has."""
        what = [runs.key(self.run(), self.data.hash), self.variant.space]
        digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:8]
        return f"{self.data.name}/{self.backbone}/{self.name}/{digest}"

    @property
    def searched(self) -> set[str]:
        """Settings, by their full names, that a point decides, other sizes of its ball included."""
        names = {name.removesuffix("-1") for name in self.variant.space}
        ball = "loss.radius" in names
        return names | ({"loss.weight", "loss.eta"} if ball else set())

    def point(self, settings: Mapping[str, object]) -> dict[str, float]:
        """The point of the space that settings, by their full names, amount to.

        What they leave out is as by default, and each is put into its range. A ball that is given
        by c or η has its radius.
        """
        space, default = self.variant.space, losses.hyperparameters(self.variant.loss)
        default = runs.flat({"loss": default, "train": asdict(TrainConfig())})
        own = self.run().settings
        own |= {name: default[name] for name in self.searched} | settings
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
    """Whether a setting, by its name, is of the loss rather than of training or the backbone.

    >>> [is_of("sl", name) for name in ("temperature", "train.lr", "lr")]
    [True, False, False]
    """
    group, _, bare = name.rpartition(".")
    return group == "loss" or (not group and bare in losses.hyperparameters(loss))


def plan(
    data: datasets.Interactions, dataset: str, name: str, backbone: str, given: dict
) -> Search:
    """The search for a variant, less the settings that are given.

    Args:
        data, dataset: the interactions, and what they were loaded by.
        name: in `variants`.
        given: settings as in `runs.configure`, which are not searched.

    Raises:
        ValueError: no such variant, or a setting that is refused.

    >>> data = datasets.load("synthetic")
    >>> list(plan(data, "synthetic", "sl", "mf", {"lr": 0.01}).variant.space)
    ['loss.temperature']
    """
    if ":" in name:
        losses.lookup(name)  # which imports it
    if name not in (table := variants(2)):
        close = difflib.get_close_matches(name, table, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(table)}"
        raise ValueError(f"no variant {name!r}; {hint}")
    loss, fixed = table[name].loss, table[name].fixed
    for key in given:
        if fixed.keys() & {key, f"loss.{key}", f"train.{key}"}:
            raise ValueError(f"{name} is tuned with its own {key}; there are: {', '.join(table)}")
    other = {key: value for key, value in given.items() if not is_of(loss, key)}
    train = runs.configure(dataset, loss, backbone, other).train
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


# ---------------------------------------------------------------------------------------------
# DrRL at the optima of SL and CCL


def mapped(outcome: runs.Outcome, variant: Variant, negatives: int) -> dict[str, float] | None:
    """The point of a DrRL variant that is a trained SL or CCL: tuned DrRL then contains both.

    - CCL is order ∞, here 151: c is its weight and β its margin, which stays (lowest dual_lr).
      An exact β has no margin: the radius is the one that the margin amounts to.
    - SL is the penalty at order 1, here 1.02, with its own τ. For a ball, the radius that its τ
      amounts to; a β that stays is that ball's own, far below the scores, where (f - β)^(γ*-1) is
      all but exp(f/τ).

    What differs per user is the median of 100 users' N sampled negatives.

    Args:
        outcome: a trained SL or CCL.
        variant: of DrRL.
        negatives: N.

    Returns:
        The point, which may lie outside the search space where β or c must; None where there is
        none: CCL is no penalty.
    """
    own = outcome.record["parameters"]
    exact = variant.fixed["loss.dual"] == "exact"
    scores = runs.negative_scores(outcome, negatives=negatives)
    point = {"train.lr": own["train"]["lr"], "train.dual_lr": 1e-5}
    if outcome.record["loss"] == "ccl":
        if "loss.temperature" in variant.space:
            return None
        margin, weight = own["loss"]["margin"], own["loss"]["weight"]
        point |= {"loss.order-1": 150.0, "loss.start": margin}
        point["loss.radius"] = dro.radius_from_weight(weight, 151.0)
        if exact:
            radius = dro.radius_of_margin(scores, margin, 151.0).nanmedian().item()
            point["loss.radius"] = variant.space["loss.radius"].clip(radius)
    else:
        tau = own["loss"]["temperature"]
        radius = dro.radius_of_temperature(scores, tau).median().item()
        beta = dro.worst_case(scores, order=1.02, radius=radius).dual.median().item()
        point |= {"loss.order-1": 0.02, "loss.temperature": tau}
        point |= {"loss.radius": radius, "loss.start": beta}
    return {name: value for name, value in point.items() if name in variant.space}


def halfway(one: dict[str, float], other: dict[str, float], variant: Variant) -> dict[str, float]:
    """The middle of two points, each put into the search space first, on the scale of its ranges.

    >>> one = {"loss.temperature": 0.1, "train.lr": 0.001}
    >>> middle = halfway(one, {"loss.temperature": 9, "train.lr": 0.01}, variants(64)["sl"])
    >>> round(middle["loss.temperature"], 3), round(middle["train.lr"], 5)
    (0.2, 0.00316)
    """
    point = {}
    for name, each in variant.space.items():
        a, b = (each.clip(end[name]) for end in (one, other))
        point[name] = math.sqrt(a * b) if each.log else (a + b) / 2
    return point
