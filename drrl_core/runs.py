"""A run: a validated configuration, and the record of what came of it."""

import difflib
import math
import platform
import statistics
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import pandas as pd
import torch
from torch import nn

from drrl_core import backbones, datasets, losses, metrics
from drrl_core.trainer import DivergedError, Fit, TrainConfig, fit, resolve_device, tables

PACKAGES = ("drrl-core", "torch", "numpy", "scipy", "pandas", "matplotlib", "papermill")


@dataclass(frozen=True)
class Run:
    """What to run. Build it with `configure`, which checks names, types and ranges.

    Attributes:
        dataset: a registered name, or the path of a file.
        backbone, loss: registry names.
        backbone_parameters, loss_parameters: all of them, defaults included.
        train: how to train, the seed among it.
    """

    dataset: str
    backbone: str
    loss: str
    backbone_parameters: dict
    loss_parameters: dict
    train: TrainConfig

    @property
    def parameters(self) -> dict[str, dict]:
        return {
            "backbone": self.backbone_parameters,
            "loss": self.loss_parameters,
            "train": asdict(self.train),
        }


@dataclass(frozen=True)
class Outcome:
    """A run carried out: its record (plain JSON), and the objects it left."""

    record: dict
    fit: Fit
    model: nn.Module = field(repr=False)
    loss: nn.Module = field(repr=False)
    data: datasets.Interactions = field(repr=False)


def parse_value(text: str) -> int | float | bool | str | None:
    """A setting as typed: an integer, a number, true, false, none, or else the text itself.

    >>> [parse_value(t) for t in ("8", "1e-3", "inf", "true", "none", "exact")]
    [8, 0.001, inf, True, None, 'exact']
    """
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _typed(name: str, value: object, default: object) -> object:
    """The value as the default's type, or ValueError."""
    value = value.item() if isinstance(value, np.generic) else value
    number = isinstance(value, int | float) and not isinstance(value, bool) and value == value
    if isinstance(default, str):
        good = isinstance(value, str)
    elif isinstance(default, int):
        good = number and value.is_integer() if isinstance(value, float) else number
        value = int(value) if good else value
    elif default is None:
        good = number or value is None
    else:
        good = number
        value = float(value) if good else value
    if not good:
        kind = "a number" if default is None else f"of type {type(default).__name__}"
        raise ValueError(f"{name} must be {kind}, not {value!r}")
    return value


def configure(
    dataset: str, loss: str = "sl", backbone: str = "mf", settings: dict | None = None
) -> Run:
    """A run from settings named `loss.x`, `backbone.x`, `train.x`, or `x` where only one has it.

    Negatives and similarity default to what the loss expects.

    Raises:
        ValueError: an unknown or ambiguous name (with a suggestion), a setting given twice, a wrong
            type, a value out of range.

    >>> run = configure("synthetic", "ccl", settings={"margin": 0.3, "train.lr": 0.01})
    >>> run.loss_parameters, run.train.lr
    ({'margin': 0.3, 'weight': 100.0}, 0.01)
    """
    line = losses.lookup(loss)
    base = TrainConfig(negatives=line.negatives, similarity=line.similarity)
    known = {
        "loss": losses.hyperparameters(loss),
        "backbone": backbones.hyperparameters(backbone),
        "train": {f.name: getattr(base, f.name) for f in fields(base)},
    }
    given = {}
    for name, value in (settings or {}).items():
        group, _, key = name.rpartition(".")
        groups = [g for g in known if key in known[g] and group in ("", g)]
        if len(groups) != 1:
            full = [f"{g}.{k}" for g in known for k in known[g]]
            bare = [k for g in known for k in known[g]]
            close = [f"{g}.{key}" for g in known if key in known[g]]
            close = close or difflib.get_close_matches(name, full + bare, 3)
            hint = f": did you mean {' or '.join(close)}?" if close else f": {', '.join(full)}"
            why = "is ambiguous" if groups else f"is no setting of {loss} on {backbone}"
            raise ValueError(f"{name!r} {why}{hint}")
        if (other := given.setdefault((groups[0], key), name)) != name:
            raise ValueError(f"{other!r} and {name!r} are one setting: give it once")
        known[groups[0]][key] = _typed(name, value, known[groups[0]][key])
    run = Run(
        dataset, backbone, loss, known["backbone"], known["loss"], replace(base, **known["train"])
    )
    with torch.random.fork_rng(devices=[]):  # made to refuse what is out of range, and for no more
        losses.make(loss, n_users=1, n_items=1, **run.loss_parameters)
        backbones.make(backbone, n_users=1, n_items=1, **run.backbone_parameters)
    return run


def versions() -> dict[str, str]:
    """Python's and the packages' versions, for a record."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _strict(value: object) -> object:
    """As strict JSON has it: no NaN (None), no infinity ("inf", which `parse_value` reads)."""
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def execute(
    run: Run,
    *,
    device: str = "auto",
    data: datasets.Interactions | None = None,
    data_dir: str | None = None,
    **options,
) -> Outcome:
    """Train and rank: one run, from its configuration to its record.

    Args:
        run: what to run.
        device: "auto", "cpu", "cuda", ...
        data: the interactions, where they are loaded already.
        data_dir: where the data files are, see `datasets.data_folder`.
        **options: `on_epoch` and `progress`, see `trainer.fit`.

    >>> outcome = execute(configure("synthetic", settings={"epochs": 1}), progress=False)
    >>> sorted(outcome.record["test"])
    ['ndcg@20', 'recall@20']
    """
    where = resolve_device(device)
    data = data or datasets.load(run.dataset, data_dir=data_dir)
    sizes = {"n_users": data.n_users, "n_items": data.n_items}
    with torch.random.fork_rng(devices=[]):
        # On the CPU first, so that one seed starts from one model on every device.
        torch.manual_seed(run.train.seed)
        model = backbones.make(run.backbone, **sizes, **run.backbone_parameters).to(where)
        loss = losses.make(run.loss, **sizes, **run.loss_parameters)
    try:
        result = fit(model, loss, data, run.train, **options)
    except DivergedError as error:
        raise DivergedError(
            f"{run.loss} on {run.backbone}, {run.loss_parameters}: {error}"
        ) from None
    record = {
        "dataset": data.name,
        "data_hash": data.hash,
        "backbone": run.backbone,
        "loss": run.loss,
        "parameters": run.parameters,
        "seed": run.train.seed,
        "best_epoch": result.best_epoch,
        "valid": result.valid[["recall@20", "ndcg@20"]].mean().to_dict(),
        "test": result.test[["recall@20", "ndcg@20"]].mean().to_dict(),
        "seconds": round(result.seconds, 3),
        "seconds_per_epoch": round(statistics.median(result.history["seconds"]), 4),
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else where.type,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    return Outcome(_strict(record), result, model, loss, data)


# ---------------------------------------------------------------------------------------------
# What a trained loss listens to


def false_negatives(data: datasets.Interactions, user: int) -> np.ndarray:
    """Items without a train pair that the user would like, (n_items,) bool.

    Known where the data come with the truth; elsewhere the held-out positives, which is all that
    can be known.

    >>> data = datasets.load("synthetic")
    >>> bool((false_negatives(data, 0) & (data.train[[0]].toarray()[0] > 0)).any())
    False
    """
    if data.truth is not None:
        liked = data.truth[user].copy()
    else:
        liked = (data.valid[[user]] + data.test[[user]]).toarray()[0] > 0
    liked[data.train.indices[data.train.indptr[user] : data.train.indptr[user + 1]]] = False
    return liked


def negatives_of(outcome: Outcome, user: int) -> pd.DataFrame:
    """A user's negatives, all the items without a train pair, as the trained loss sees them.

    The weight is the gradient of the user's mean loss over the train positives, scaled to mean 1.

    Args:
        outcome: a run carried out.
        user: an index, with at least one train pair.

    Returns:
        A row a negative, indexed by item: score, weight (probability ratio), false_negative.
    """
    data, model = outcome.data, outcome.model
    positives = data.train.indices[data.train.indptr[user] : data.train.indptr[user + 1]]
    if not len(positives):
        raise ValueError(f"user {user} has no train pair: choose one that has")
    items = np.setdiff1d(np.arange(data.n_items), positives)
    device = next(model.parameters()).device
    batch = losses.Batch(
        torch.full((len(positives),), user, device=device),
        torch.from_numpy(positives.astype(np.int64)).to(device),
        torch.from_numpy(items).to(device),
    )
    with torch.no_grad():
        users, table = tables(model)
        similarity = outcome.record["parameters"]["train"]["similarity"]
        row = metrics.unit_or_raw(users[user], similarity)
        scores = metrics.unit_or_raw(table, similarity) @ row

    def of_the_user(pos, neg, batch):
        return outcome.loss(pos, neg.expand(len(pos), -1), batch)

    weights = losses.negative_weights(
        of_the_user, scores[batch.pos_items], scores[batch.neg_items][None], batch
    )[0]
    columns = {
        "score": scores[batch.neg_items].cpu(),
        "weight": weights.cpu(),
        "false_negative": false_negatives(data, user)[items],
    }
    return pd.DataFrame(columns, index=pd.Index(items, name="item"))


def attention(outcome: Outcome, *, users: int = 200) -> dict[str, float]:
    """Where a trained loss's weight goes, averaged over users.

    Args:
        outcome: a run carried out.
        users: over how many, evenly spread over those with a train pair and a false negative.

    Returns:
        k1, the largest weight, and k2, the mean weight of a false negative (both over the mean
        weight, and over the users whose negatives are not all truncated), and the truncated share
        of the negatives. NaN where no user has what is asked for.
    """
    data = outcome.data
    known = np.flatnonzero(np.diff(data.train.indptr))
    known = [u for u in known if false_negatives(data, u).any()]
    rows = []
    for place in np.linspace(0, len(known) - 1, min(users, len(known))).astype(int):
        view = negatives_of(outcome, known[place])
        weight = view["weight"]
        row = {"truncated": (weight == 0).mean()}
        if weight.any():  # else the loss listens to nobody, and there is no mean weight
            row |= {"k1": weight.max(), "k2": weight[view["false_negative"]].mean()}
        rows.append(row)
    return pd.DataFrame(rows, columns=["k1", "k2", "truncated"]).mean().to_dict()


def typical_user(data: datasets.Interactions) -> int:
    """A user with the median number of train pairs and, of those, the most test pairs.

    >>> typical_user(datasets.load("synthetic")) >= 0
    True
    """
    counts = np.diff(data.train.indptr)
    middle = np.sort(counts[counts > 0])[(counts > 0).sum() // 2]
    return int(np.argmax(np.where(counts == middle, np.diff(data.test.indptr), -1)))
