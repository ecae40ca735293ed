"""A run: its configuration, checked; its key; and what comes of executing it."""

import hashlib
import json
import math
import platform
import statistics
import subprocess
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array
from torch import Tensor

from drrl_core import backbones, classical, datasets, losses, registry
from drrl_core import train as training
from drrl_core.common import checkout, did_you_mean
from drrl_core.train import (
    VERSION,
    DivergedError,
    Fit,
    TrainConfig,
    fit,
    metrics,
    refitted,
    resolve_device,
    solve,
    tables,
)
from drrl_core.train import popularity as put_back
from drrl_core.train.diagnose import diagnostics

KEYS = 2  # how keys are made: another number would make every kept run unknown
# Hyper-parameters that came after the first recorded runs, and what losses were before; at these
# values they are not in keys. Those of training: `train.LATER`.
LATER: dict[str, Any] = {"push": 1.0, "prior": 0.0}
PACKAGES = ("drrl-core", "torch", "numpy", "scipy", "pandas", "matplotlib", "papermill")
SPLITS = ("valid", "test")
ACCURACY = metrics.ACCURACY  # of every run
SOLVED = ("mask", "seed", "metric", "cutoff", "refit")  # what a classical model asks of training
Value = int | float | bool | str | None


@dataclass(frozen=True)
class Run:
    """The configuration of a run: all that fixes its numbers. `configure` makes and checks it.

    Attributes:
        dataset: a registered name, or the path of a file.
        backbone, loss: registry names; of a classical model its own name, and "".
        backbone_config, loss_config: a value for each of their hyper-parameters.
        train: how to train, the seed among it.
    """

    dataset: str
    backbone: str
    loss: str
    backbone_config: dict[str, Value]
    loss_config: dict[str, Value]
    train: TrainConfig

    @property
    def config(self) -> dict[str, dict[str, Value]]:
        """Every value, by group and name."""
        return {
            "backbone": self.backbone_config,
            "loss": self.loss_config,
            "train": {n: v for n, v in asdict(self.train).items() if self.loss or n in SOLVED},
        }

    @property
    def flat_config(self) -> dict[str, Value]:
        """Every value by its full name, such as "train.lr"."""
        return flat(self.config)


def flat(config: Mapping[str, Mapping[str, Value]]) -> dict[str, Value]:
    """All values of `Run.config` by their full names.

    >>> flat({"train": {"lr": 0.1}})
    {'train.lr': 0.1}
    """
    parts = config.items()
    return {f"{group}.{name}": value for group, part in parts for name, value in part.items()}


def _entries(run: Run) -> dict[str, registry.Entry]:
    """The registries' entries of a run's parts."""
    if not run.loss:
        return {"model": classical.lookup(run.backbone)}
    return {"loss": losses.lookup(run.loss), "backbone": backbones.lookup(run.backbone)}


def changes(
    before: Mapping[str, Mapping[str, Value]], after: Mapping[str, Mapping[str, Value]]
) -> dict[str, Value]:
    """What the second configuration, of the same loss and backbone, has and the first has not.

    >>> changes({"train": {"lr": 0.1, "seed": 0}}, {"train": {"lr": 0.2, "seed": 0}})
    {'train.lr': 0.2}
    """
    known = flat(before)
    return {name: value for name, value in flat(after).items() if value != known[name]}


@dataclass(frozen=True)
class Outcome:
    """What came of a run: its record (plain JSON) and the objects it left.

    Attributes:
        model, loss: as they are after training; of a classical model its scorer, and no loss.
        data: what it was trained on.
        served: whether a store had it, so that nothing was trained now.
    """

    record: dict[str, Any]
    fit: Fit
    model: Any = field(repr=False)
    loss: Any = field(repr=False)
    data: datasets.Interactions = field(repr=False)
    served: bool = False

    @property
    def loss_name(self) -> str:
        """The loss's name in the registry."""
        return str(self.record["loss"])

    @property
    def similarity(self) -> str:
        """What it was trained to compare by: "cosine" or "dot"."""
        return str(self.record["parameters"]["train"].get("similarity", "dot"))

    @property
    def criterion(self) -> str:
        """The column of the history that valid was judged by, such as "ndcg@20"."""
        return TrainConfig(**read_config(self.record)["train"]).criterion

    @property
    def rankings(self) -> dict[str, Any]:
        """What `popularity.report` and `popularity.curve` are to be given."""
        config = TrainConfig(**read_config(self.record)["train"])
        return _rankings(self.model, self.loss, self.data, config)

    def turned(self, strengths: Iterable[float] = put_back.CURVE) -> pd.DataFrame:
        """What comes of turning b, see `popularity.curve`."""
        return put_back.curve(**self.rankings, strengths=strengths)

    def on_valid(self, b: float) -> pd.DataFrame:
        """Accuracy of each valid user with popularity put back at b, see `metrics.accuracy`."""
        about = self.rankings
        best = about["ranked"](about["valid"], b, (about["train"],))
        return metrics.accuracy(best, about["valid"])

    def strength(self, popularity: float | str) -> float:
        """b, how strongly popularity is put back: a number, or "auto", the best on valid.

        Raises:
            ValueError: it is neither, or there are no valid pairs to choose by.
        """
        if popularity == "auto":
            about = self.record.get("popularity") or put_back.report(**self.rankings)
            if about["b"] is None:
                raise ValueError("popularity 'auto' is chosen on valid, which has no pairs: give b")
            return float(about["b"])
        if isinstance(popularity, str) or not math.isfinite(popularity):
            raise ValueError(f"popularity must be a number or 'auto', not {popularity!r}")
        return float(popularity)

    @property
    def negatives(self) -> int:
        """How many negatives an example was trained with."""
        return int(self.record["parameters"]["train"]["negatives"])


def parse_value(text: str) -> Value:
    """A value as typed: an integer, a number, true, false, none, or else the text itself.

    >>> [parse_value(t) for t in ("8", "1e-3", "inf", "true", "none", "exact")]
    [8, 0.001, inf, True, None, 'exact']
    """
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _typed(name: str, value: Any, default: Value) -> Value:
    """The value as the default's type, or ValueError."""
    value = value.item() if isinstance(value, np.generic) else value
    number = isinstance(value, int | float) and not isinstance(value, bool) and value == value
    if isinstance(default, str):
        good = isinstance(value, str)
    elif isinstance(default, int):
        good = number and value % 1 == 0  # of infinity NaN
    else:
        good = number or value is default is None
    if not good:
        kind = "a number" if default is None else f"of type {type(default).__name__}"
        raise ValueError(f"{name} must be {kind}, not {value!r}")
    if default is None:  # 1 and 1.0 are one value, and are to read as one
        return float(value) if number else value
    return type(default)(value)


def configure(
    dataset: str,
    loss: str = "sl",
    backbone: str = "mf",
    config: Mapping[str, object] | None = None,
) -> Run:
    """A run, from values named `loss.x`, `backbone.x`, `train.x`, or `x` where only one has it.

    What is not given is as by default; negatives and similarity as the loss expects them. With the
    loss "", `backbone` names a classical model, see `classical`.

    Raises:
        ValueError: an unknown or ambiguous name (with a suggestion), a value given twice, of a
            wrong type, or out of range.

    >>> run = configure("synthetic", "ccl", config={"margin": 0.3, "train.lr": 0.01})
    >>> run.loss_config, run.train.lr
    ({'margin': 0.3, 'weight': 100.0, 'push': 1.0}, 0.01)
    """
    line = losses.lookup(loss) if loss else None
    base = TrainConfig()
    if line:
        base = replace(base, negatives=line.negatives, similarity=line.similarity)
    room = backbones if line else classical
    known: dict[str, dict[str, Value]] = {
        "loss": dict(losses.hyperparameters(loss)) if line else {},
        "backbone": dict(room.hyperparameters(backbone)),
        "train": {f.name: getattr(base, f.name) for f in fields(base) if line or f.name in SOLVED},
    }
    given: dict[tuple[str, str], str] = {}
    for name, value in (config or {}).items():
        group, _, key = name.rpartition(".")
        groups = [g for g in known if key in known[g] and group in ("", g)]
        if len(groups) != 1:
            on = f"{loss} on {backbone}" if line else backbone
            why = "is ambiguous" if groups else f"is no setting of {on}"
            raise ValueError(f"{name!r} {why}: {_meant(name, key, known)}")
        if (other := given.setdefault((groups[0], key), name)) != name:
            raise ValueError(f"{other!r} and {name!r} are one setting: give it once")
        known[groups[0]][key] = _typed(name, value, known[groups[0]][key])
    train = replace(base, **known["train"])  # type: ignore[arg-type]  # `_typed` has seen them
    run = Run(dataset, backbone, loss, known["backbone"], known["loss"], train)
    build(run, 1, 1, csr_array((1, 1)))  # to refuse what is out of range, and for no more
    if line and not line.rowwise and run.train.sampler != "per-row":
        raise ValueError(f"{loss} looks at the whole batch at once: sampler must be 'per-row'")
    return run


def _meant(name: str, key: str, known: dict[str, dict[str, Value]]) -> str:
    """What may be meant by a name: the same one with its group, or one that is nearly spelt so."""
    full = [f"{group}.{own}" for group in known for own in known[group]]
    if groups := [group for group in known if key in known[group]]:
        return f"did you mean {' or '.join(repr(f'{group}.{key}') for group in groups)}?"
    bare = [own for group in known for own in known[group]]
    return did_you_mean(name, full + bare, most=3)


def raised(backbone: str, loss: str) -> str:
    """Versions above 1 of the backbone, the loss and the trainer, such as "loss 2"; "" if none.

    Each has a number of its own, which is raised when the same configuration and data give other
    numbers than before: runs of an earlier version are then trained again, and no others. That of a
    loss or backbone from outside is its source's SHA-256.

    >>> raised("mf", "sl")
    ''
    """
    found = {
        "backbone": backbones.version(backbone) if loss else classical.version(backbone),
        "loss": losses.version(loss),
        "trainer": VERSION if loss else 1,
    }
    return ", ".join(f"{name} {number}" for name, number in found.items() if number != 1)


def refitting(run: Run, outcome: Outcome, refit: str = "train+valid") -> Run:
    """A run that is trained on valid too, where valid has chosen: a loss's for its best epochs.

    Args:
        run: the run that was selected.
        outcome: what came of it.
        refit: see `TrainConfig.refit`.

    >>> run = configure("synthetic", "", "ease")
    >>> again = execute(refitting(run, execute(run)))
    >>> again.record["valid"]["ndcg@20"] is None, again.record["test"]["ndcg@20"] > 0
    (True, True)
    """
    epochs = outcome.record["best_epoch"] if run.loss else run.train.epochs
    return replace(run, train=replace(run.train, refit=refit, epochs=epochs))


def key_of(run: Run, data_hash: str) -> str:
    """A run's name in the store: of its configuration, its data and what is `raised`, no more.

    Device, threads, versions and commit stand in the record. The data are told by their hash, not
    by the name or path they were loaded by.

    Args:
        data_hash: `Interactions.hash`.

    Returns:
        16 hexadecimal digits.

    >>> a = configure("synthetic", "drrl", config={"radius": 1, "lr": 0.01})
    >>> b = configure("synthetic", "drrl", config={"train.lr": 0.01, "radius": 1.0})
    >>> key_of(a, "") == key_of(b, "") != key_of(a, "other data")
    True
    """

    def plain(value: object) -> object:
        value = value.item() if isinstance(value, np.generic) else value
        return int(value) if isinstance(value, float) and value.is_integer() else value

    own = {k: v for k, v in run.loss_config.items() if k not in LATER or v != LATER[k]}
    train = {n: v for n, v in run.train.identity().items() if run.loss or n in SOLVED}
    config = strict_json({**run.config, "loss": own, "train": train}, plain)
    what = [KEYS, data_hash, run.backbone, run.loss, config]
    if higher := raised(run.backbone, run.loss):
        what.append(higher)
    text = json.dumps(what, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def strict_json(value: object, plain: Callable[[object], object] = lambda each: each) -> Any:
    """Values as strict JSON has them: no NaN (None), no infinity ("inf", see `parse_value`).

    Args:
        value: one, or dictionaries of them, one in another.
        plain: what is done to each value before.

    >>> strict_json({"loss": {"order": math.inf, "margin": math.nan}})
    {'loss': {'order': 'inf', 'margin': None}}
    """
    if isinstance(value, dict):
        return {name: strict_json(each, plain) for name, each in value.items()}
    value = plain(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def read_config(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The configuration in a record, its infinities as numbers again.

    A record from before training had one of its settings has it as it was trained with.

    >>> read_config({"parameters": {"loss": {"order": "inf"}}})
    {'loss': {'order': inf}}
    """
    return {
        group: (training.LATER if group == "train" else {})
        | {name: float(v) if v in ("inf", "-inf") else v for name, v in part.items()}
        for group, part in record["parameters"].items()
    }


def versions() -> dict[str, str]:
    """Python's and the packages' versions, for a record."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@cache
def commit() -> str | None:
    """The commit this runs from, "-dirty" where files differ; None outside a checkout of git."""
    root = checkout()
    if root is None or not (root / ".git").exists():
        return None
    git = ["git", "--no-optional-locks", "-C", str(root)]
    describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run([*git, *describe], capture_output=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode().strip()


def build(run: Run, n_users: int, n_items: int, train: csr_array) -> tuple[Any, Any]:
    """Model and loss as they are before training: on the CPU, one seed, one start.

    A classical model is solved when it is first asked for scores, and has no loss: None.

    Args:
        n_users, n_items, train: of the data.
    """
    if not run.loss:
        own: dict[str, Any] = run.backbone_config
        return classical.make(run.backbone, train, seed=run.train.seed, **own), None
    sizes: dict[str, Any] = {"n_users": n_users, "n_items": n_items}
    backbone: dict[str, Any] = run.backbone_config
    loss: dict[str, Any] = run.loss_config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.train.seed)
        model = backbones.make(run.backbone, **sizes, train=train, **backbone)
        return model, losses.make(run.loss, **sizes, **loss)


def execute(
    run: Run,
    *,
    device: str = "auto",
    data: datasets.Interactions | None = None,
    data_dir: str | Path | None = None,
    diagnose: bool = False,
    on_step: Callable[[int, int, Tensor], object] | None = None,
    on_epoch: Callable[[dict[str, Any]], object] | None = None,
    checkpoint: Path | None = None,
    progress: bool = True,
) -> Outcome:
    """Train and rank: one run, from its configuration to its record. Nothing is kept.

    The record's `finished` is None where a callback or Ctrl-C stopped it before its end; only
    where it is not, `popularity` holds `popularity.report`: accuracy with popularity put back.

    Args:
        device: "auto", "cpu", "cuda", ...
        data: the interactions, where they are loaded already.
        data_dir: where the data files are, see `datasets.data_folder`.
        diagnose: add `diagnostics` to the history's rows of the epochs that are evaluated, before
            `on_epoch` sees them.
        on_step, on_epoch, progress: see `train.fit`.
        checkpoint: a file that holds the state at the end of each epoch; training goes on from it.

    >>> outcome = execute(configure("synthetic", config={"epochs": 1}), progress=False)
    >>> sorted(outcome.record["test"])
    ['ndcg@20', 'recall@20']
    """
    where = resolve_device(device)
    data = data or datasets.load(run.dataset, data_dir=data_dir)
    key = key_of(run, data.hash)
    named, data = data, refitted(data, run.train)
    model, loss = build(run, data.n_users, data.n_items, data.train)
    if loss is None:
        return _solved(run, model, data, named)
    model.to(where)
    cut = []  # the step that asked to stop, and left half an epoch

    def after_step(epoch: int, step: int, value: Tensor) -> bool:
        if on_step and on_step(epoch, step, value):
            cut.append(step)
        return bool(cut)

    def after_epoch(row: dict[str, Any]) -> bool:
        if diagnose and "ndcg@20" in row:
            row |= diagnostics(model, loss, data, run.train.similarity)
        return bool(on_epoch and on_epoch(row))

    try:
        result = fit(
            model,
            loss,
            data,
            run.train,
            on_step=after_step if on_step else None,
            on_epoch=after_epoch,
            checkpoint=checkpoint,
            resume=checkpoint is not None,
            tag=key,
            progress=progress,
        )
    except DivergedError as error:
        raise DivergedError(f"{run.loss} on {run.backbone}, {run.loss_config}: {error}") from None
    epochs, train = len(result.history), run.train
    waited = epochs - result.best_epoch >= train.patience * train.evaluate_every
    about = None
    if finished := not cut and (waited or epochs >= train.epochs):
        about = put_back.report(**_rankings(model, loss, data, train))
    record = _record(run, named, result, where) | {
        "popularity": about,
        "finished": _now() if finished else None,
    }
    return Outcome(strict_json(record), result, model, loss, data)


def _solved(
    run: Run, model: classical.Solved, data: datasets.Interactions, named: datasets.Interactions
) -> Outcome:
    """The outcome of a classical model; `named` are the data that the record names."""
    result = solve(model, data, run.train)
    about = put_back.report(**_rankings(model, None, data, run.train))
    more = {"popularity": about, "finished": _now()}
    record = _record(run, named, result, torch.device("cpu")) | more
    return Outcome(strict_json(record), result, model, None, data)


def _rankings(
    model: Any, loss: Any, data: datasets.Interactions, config: TrainConfig
) -> dict[str, Any]:
    """What `popularity.report` and `popularity.curve` are to be given of a trained model."""
    if loss is None:
        ranked = put_back.by_scores(model, data.train)
    else:
        similarity = config.similarity
        ranked = put_back.by_tables(*tables(model), data.train, similarity=similarity)
    splits = {split: getattr(data, split) for split in ("train", *SPLITS)}
    masks = (data.train,) if config.mask == "train" else (data.train, data.valid)
    return {"ranked": ranked, **splits, "masks": masks}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _record(
    run: Run, data: datasets.Interactions, result: Fit, where: torch.device
) -> dict[str, Any]:
    """What is written down of a run, but for what is told of a finished one alone."""
    return {
        "key": key_of(run, data.hash),
        "dataset": data.name,
        "data_hash": data.hash,
        "backbone": run.backbone,
        "loss": run.loss,
        "parameters": run.config,
        "seed": run.train.seed,
        "best_epoch": result.best_epoch,
        "valid": result.valid[list(run.train.measured)].mean().to_dict(),
        "test": result.test[list(run.train.measured)].mean().to_dict(),
        "popularity": None,
        "seconds": round(result.seconds, 3),
        "seconds_per_epoch": round(statistics.median(result.history["seconds"]), 4),
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else where.type,
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "raised": raised(run.backbone, run.loss),
        **registry.origins(**_entries(run)),
        "commit": commit(),
        **({} if data.report is None else {"read": data.report}),  # how one's own file was read
    }
