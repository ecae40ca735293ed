"""What is searched: every loss as it is tuned, and a point of its space as a run's configuration.

A point has a value for each hyper-parameter of the search, named in full, `loss.temperature`, but
for `loss.order-1`, which is γ - 1. Ranges are those of the registry of losses; they are tuples of
our own and no distributions of Optuna's, which is an extra: what is searched can be read without
it. They hold every published value, see `starts.published`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from drrl_core import classical, datasets, dro, losses
from drrl_core.common import did_you_mean
from drrl_core.lab.run import Run, configure, flat, key_of
from drrl_core.losses import Range
from drrl_core.train import TrainConfig


class Variant(NamedTuple):
    """A loss, or with none a classical model, as it is tuned: what is searched, what is fixed.

    `whole` names those of the search that are whole numbers.
    """

    loss: str
    space: dict[str, Range]
    fixed: Mapping[str, object] = MappingProxyType({})
    whole: frozenset[str] = frozenset()


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


def classical_variants() -> dict[str, Variant]:
    """Every classical model as it is tuned, by name.

    >>> sorted(classical_variants()["itemknn"].whole)
    ['backbone.neighbours']
    """
    found = {}
    for name, line in classical.REGISTRY.items():
        default = classical.hyperparameters(name).items()
        whole = {f"backbone.{key}" for key, value in default if isinstance(value, int)}
        found[name] = Variant("", dict(line.search), whole=frozenset(whole & line.search.keys()))
    return found


def budget(name: str, trials: int, seeds: int) -> tuple[int, int]:
    """Trials and seeds of a tuning: one where a classical model has nothing to search, or no seed.

    >>> budget("popularity", 20, 3), budget("ease", 20, 3), budget("sl", 20, 3)
    ((1, 1), (20, 1), (20, 3))
    """
    if (line := classical.REGISTRY.get(name)) is None:
        return trials, seeds
    return trials if line.search else 1, seeds if line.seeded else 1


def variant_of(loss: str, hyperparameters: Mapping[str, object]) -> str:
    """The name in `variants` of a loss with these hyper-parameters.

    It is one where what it fixes is so, and what it searches and the loss itself does not differs
    from the default; of several, the one that says most.

    >>> variant_of("drrl", {"dual": "exact", "radius": 1.0}), variant_of("sl", {"push": 1.3})
    ('drrl-exact', 'sl-push')
    """
    ways, best = losses.variants(), (0, loss)
    default = losses.hyperparameters(loss) if loss in ways else {}
    own = {f"loss.{name}": value for name, value in {**default, **hyperparameters}.items()}
    for name, way in ways.items():
        if way.loss == loss != name:
            more = {*way.search} - {*ways[loss].search}
            told = [own.get(key) == value for key, value in way.fixed.items()]
            told += [own.get(key) != default.get(key.removeprefix("loss.")) for key in more]
            if all(told):
                best = max(best, (len(told), name))
    return best[1]


def config_of(variant: Variant, point: Mapping[str, float]) -> dict[str, Any]:
    """A point of the search space as `configure` takes it, four digits each: short enough to type.

    >>> config_of(variants(64)["drrl-exact"], {"loss.order-1": 1, "loss.radius": 2 / 3})
    {'loss.dual': 'exact', 'loss.radius': 0.6667, 'loss.order': 2.0}
    """
    point = {name: float(f"{value:.4g}") for name, value in point.items()}
    point |= {name: round(value) for name, value in point.items() if name in variant.whole}
    if "loss.order-1" in point:
        point["loss.order"] = round(1 + point.pop("loss.order-1"), 6)
    return {**variant.fixed, **point}


@dataclass(frozen=True)
class Search:
    """What is tuned: a variant on a backbone and data, but for what is given.

    `with_b`: what counts at the end of a trial is accuracy with popularity put back, at b chosen on
    valid, see `train.popularity`.
    """

    dataset: str
    name: str
    backbone: str
    variant: Variant
    negatives: int
    data: datasets.Interactions
    given: Mapping[str, object]
    with_b: bool = False

    def run(self, point: dict[str, float] | None = None) -> Run:
        """The run at a point of the search space, its lowest corner by default."""
        point = point or {name: each.low for name, each in self.variant.space.items()}
        config = config_of(self.variant, point)
        return configure(self.dataset, self.variant.loss, self.backbone, config)

    @property
    def study(self) -> str:
        """A name that no other data, variant, configuration or search space has."""
        what: list[Any] = [key_of(self.run(), self.data.hash), self.variant.space]
        what += ["with b"] * self.with_b
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
        space = self.variant.space
        if not self.variant.loss:
            return {name: each.clip(config[name]) for name, each in space.items()}
        default = losses.hyperparameters(self.variant.loss)
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
    if name in classical.REGISTRY or name == backbone:
        return _plan_classical(data, dataset, name, given)
    if ":" in name:
        losses.lookup(name)  # which imports it
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


def _plan_classical(
    data: datasets.Interactions, dataset: str, name: str, given: Mapping[str, object]
) -> Search:
    """The search for a classical model, less the hyper-parameters that are given."""
    classical.lookup(name)  # which imports one from outside
    configure(dataset, "", name, given)
    line = classical_variants()[name]
    space = {
        key: each
        for key, each in line.space.items()
        if not {key, key.removeprefix("backbone.")} & given.keys()
    }
    line = line._replace(space=space, fixed=dict(given))
    return Search(dataset, name, name, line, 0, data, given)
