"""A run: a validated configuration, the record of what came of it, and the store that keeps both.

The store is a folder. A finished run is a folder in it, named by its key and never changed, but for
diagnostics that are asked for later:

    record.json      configuration, accuracy, and what it was computed with
    valid.csv, test.csv, history.csv, diagnostics.csv    per user, per user, per epoch, per epoch
    state.pt         what the model and the loss learnt
    tables.npz       `users` and `items`, float32, as `trainer.tables` gives them to the ranking
    SHA256SUMS       of all these, so that damage is seen; `sha256sum -c` reads it too

Floats are written with all their digits: a run read back equals the run that was trained.
"""

import difflib
import hashlib
import io
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd
import pooch
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from drrl_core import backbones, datasets, dro, losses
from drrl_core.train import metrics, popularity, trainer
from drrl_core.train.trainer import DivergedError, Fit, TrainConfig, fit, resolve_device, tables

KEYS = 2  # how keys are made: another number would make every kept run unknown
PACKAGES = ("drrl-core", "torch", "numpy", "scipy", "pandas", "matplotlib", "papermill")
DIAGNOSTICS = ("truncated", "k1", "k2", "effective_share", "beta", "gap")
SPLITS = ("valid", "test")
SHOWN = ("recall@20", "ndcg@20")
FILES = ("record.json", "valid.csv", "test.csv", "history.csv", "state.pt", "tables.npz")
LATER = "diagnostics.csv"
SUMS = "SHA256SUMS"
FALSE = {"k2": None, "k2_test": "test"}  # by which false negatives: the best known, or a split's
TILE = 2**22  # scores of a few users at a time: arrays of 16 MiB


class RunError(Exception):
    """A kept run cannot be found, read, or told from another."""


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

    @property
    def settings(self) -> dict:
        """All parameters by their full names, such as "train.lr"."""
        return flat(self.parameters)


def flat(parameters: dict[str, dict]) -> dict:
    """All settings of `Run.parameters` by their full names.

    >>> flat({"train": {"lr": 0.1}})
    {'train.lr': 0.1}
    """
    parts = parameters.items()
    return {f"{group}.{name}": value for group, part in parts for name, value in part.items()}


@dataclass(frozen=True)
class Outcome:
    """A run carried out: its record (plain JSON), the objects it left, and whether it was `served`
    from a store rather than trained now."""

    record: dict
    fit: Fit
    model: nn.Module = field(repr=False)
    loss: nn.Module = field(repr=False)
    data: datasets.Interactions = field(repr=False)
    served: bool = False

    @property
    def similarity(self) -> str:
        """How it was trained to compare: "cosine" or "dot"."""
        return self.record["parameters"]["train"]["similarity"]

    @property
    def trained(self) -> tuple[nn.Module, nn.Module, datasets.Interactions, str]:
        """Model, loss, data and similarity: what `diagnostics` takes."""
        return self.model, self.loss, self.data, self.similarity


def parse_value(text: str) -> int | float | bool | str | None:
    """A setting as typed: an integer, a number, true, false, none, or else the text itself.

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


def _typed(name: str, value: object, default: object) -> object:
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
    if default is None:  # 1 and 1.0 are one setting, and are to read as one
        return float(value) if number else value
    return type(default)(value)


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
        sizes = {"n_users": 1, "n_items": 1, "train": csr_array((1, 1))}
        backbones.make(backbone, **sizes, **run.backbone_parameters)
    if not line.rowwise and run.train.sampler != "per-row":
        raise ValueError(f"{loss} looks at the whole batch at once: sampler must be 'per-row'")
    return run


def raised(backbone: str, loss: str) -> str:
    """Versions above 1 of the backbone, the loss and the trainer, such as "loss 2"; "" if none.

    Each has a number of its own, which is raised when the same configuration and data give other
    numbers than before: runs of an earlier version are then trained again, and no others.

    >>> raised("mf", "sl")
    ''
    """
    found = {
        "backbone": getattr(backbones.REGISTRY.get(backbone), "version", 1),
        "loss": getattr(losses.REGISTRY.get(loss), "version", 1),
        "trainer": trainer.VERSION,
    }
    return ", ".join(f"{name} {number}" for name, number in found.items() if number > 1)


def key(run: Run, data_hash: str) -> str:
    """A run's name in the store: of its settings, its data and what is `raised`, and of no more.

    Device, threads, versions and commit stand in the record. The data are told by their hash, not
    by the name or path they were loaded by.

    Args:
        data_hash: `Interactions.hash`.

    Returns:
        16 hexadecimal digits.

    >>> a = configure("synthetic", "drrl", settings={"radius": 1, "lr": 0.01})
    >>> b = configure("synthetic", "drrl", settings={"train.lr": 0.01, "radius": 1.0})
    >>> key(a, "") == key(b, "") != key(a, "other data")
    True
    """

    def plain(value: object) -> object:
        value = value.item() if isinstance(value, np.generic) else value
        return int(value) if isinstance(value, float) and value.is_integer() else _strict(value)

    what = [KEYS, data_hash, run.backbone, run.loss, _each(plain, run.parameters)]
    if higher := raised(run.backbone, run.loss):
        what.append(higher)
    text = json.dumps(what, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def added_columns(record: dict) -> dict:
    """What a record tells since popularity is put back, as columns of `runs.csv`.

    Returns:
        coverage, mean_popularity, gini of the test users' lists; b; accuracy on valid and test
        with b, such as test_ndcg@20_b; the lists' three with b, such as gini_b; raised, such as
        "loss 2". What an older record does not tell is left out.

    >>> about = {"b": 0.3, "lists": {"gini": 1}}
    >>> added_columns({"raised": "loss 2", "popularity": about})
    {'raised': 'loss 2', 'b': 0.3, 'gini': 1}
    """
    about = record.get("popularity") or {}
    row = {"raised": record.get("raised", "")}
    row |= {"b": about["b"]} if "b" in about else {}
    row |= about.get("lists", {})
    row |= {f"{name}_b": value for name, value in about.get("lists_b", {}).items()}
    for split in SPLITS:
        row |= {f"{split}_{name}_b": value for name, value in about.get(split, {}).items()}
    return row


def accuracy_by_user(outcome: Outcome) -> pd.DataFrame:
    """Each user's Recall and NDCG on test, and with popularity put back where the record has a b.

    Returns:
        A row a user with test items: recall@20, ndcg@20 and, with b, recall@20_b, ndcg@20_b.

    >>> outcome = execute(configure("synthetic", settings={"epochs": 1}), progress=False)
    >>> list(accuracy_by_user(outcome))
    ['recall@20', 'ndcg@20', 'recall@20_b', 'ndcg@20_b']
    """
    data, found = outcome.data, outcome.fit.test[list(SHOWN)]
    b = (outcome.record.get("popularity") or {}).get("b")
    if b is None:
        return found
    both = popularity.adjusted(*tables(outcome.model), data.train, b, similarity=outcome.similarity)
    masked = outcome.record["parameters"]["train"]["mask"] == "train+valid"
    masks = (data.train, data.valid) if masked else (data.train,)
    with_b = metrics.evaluate(*both, data.test, masks=masks, similarity="dot")[list(SHOWN)]
    return found.join(with_b.add_suffix("_b"))


def versions() -> dict[str, str]:
    """Python's and the packages' versions, for a record."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@cache
def _commit() -> str | None:
    """The commit this runs from, "-dirty" where files differ; None outside a checkout of git."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    git = ["git", "--no-optional-locks", "-C", str(root)]
    describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run([*git, *describe], capture_output=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode().strip()


def _each(change: Callable, value: object) -> object:
    """The value changed; of nested dictionaries each of their values."""
    if isinstance(value, dict):
        return {key: _each(change, item) for key, item in value.items()}
    return change(value)


def _strict(value: object) -> object:
    """As strict JSON has it: no NaN (None), no infinity ("inf", which `parse_value` reads)."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _loose(value: object) -> object:
    """A record's parameter as `_strict` found it."""
    return float(value) if value in ("inf", "-inf") else value


def _build(run: Run, data: datasets.Interactions) -> tuple[nn.Module, nn.Module]:
    """Model and loss as they are before training: on the CPU, one seed, one start."""
    sizes = {"n_users": data.n_users, "n_items": data.n_items}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.train.seed)
        model = backbones.make(run.backbone, **sizes, train=data.train, **run.backbone_parameters)
        loss = losses.make(run.loss, **sizes, **run.loss_parameters)
    return model, loss


def execute(
    run: Run,
    *,
    device: str = "auto",
    data: datasets.Interactions | None = None,
    data_dir: str | None = None,
    diagnose: bool = False,
    **options,
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
        **options: `on_step`, `on_epoch`, `checkpoint`, `resume`, `progress`, see `trainer.fit`.

    >>> outcome = execute(configure("synthetic", settings={"epochs": 1}), progress=False)
    >>> sorted(outcome.record["test"])
    ['ndcg@20', 'recall@20']
    """
    where = resolve_device(device)
    data = data or datasets.load(run.dataset, data_dir=data_dir)
    name = key(run, data.hash)
    model, loss = _build(run, data)
    model.to(where)
    on_step, on_epoch = options.pop("on_step", None), options.pop("on_epoch", None)
    cut = []  # the step that asked to stop, and left half an epoch

    def after_step(*step) -> bool:
        if on_step(*step):
            cut.append(step)
        return bool(cut)

    def after_epoch(row: dict) -> bool:
        if diagnose and "ndcg@20" in row:
            row |= diagnostics(model, loss, data, run.train.similarity)
        return bool(on_epoch and on_epoch(row))

    options |= {"on_step": after_step if on_step else None, "on_epoch": after_epoch}
    try:
        result = fit(model, loss, data, run.train, tag=name, **options)
    except DivergedError as error:
        raise DivergedError(
            f"{run.loss} on {run.backbone}, {run.loss_parameters}: {error}"
        ) from None
    epochs, train = len(result.history), run.train
    waited = epochs - result.best_epoch >= train.patience * train.evaluate_every
    whole = not cut and (waited or epochs >= train.epochs)
    about = None
    if whole:
        masks = (data.train,) if train.mask == "train" else (data.train, data.valid)
        look = {"similarity": train.similarity, "masks": masks}
        splits = data.train, data.valid, data.test
        about = popularity.report(*tables(model), *splits, **look)
    record = {
        "key": name,
        "dataset": data.name,
        "data_hash": data.hash,
        "backbone": run.backbone,
        "loss": run.loss,
        "parameters": run.parameters,
        "seed": run.train.seed,
        "best_epoch": result.best_epoch,
        "valid": result.valid[list(SHOWN)].mean().to_dict(),
        "test": result.test[list(SHOWN)].mean().to_dict(),
        "popularity": about,
        "seconds": round(result.seconds, 3),
        "seconds_per_epoch": round(statistics.median(result.history["seconds"]), 4),
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else where.type,
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "raised": raised(run.backbone, run.loss),
        "commit": _commit(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds") if whole else None,
    }
    if data.report is not None:  # of one's own file, how it was read
        record["read"] = data.report
    return Outcome(_each(_strict, record), result, model, loss, data)


# ---------------------------------------------------------------------------------------------
# The store


def store_folder(store: str | Path | None = None) -> Path:
    """The folder that finished runs are kept in.

    Args:
        store: used as it is when given; else `$DRRL_RUNS`; else `data/runs` of the checkout this
            runs from; else a folder of the user's.

    >>> store_folder("elsewhere").name
    'elsewhere'
    """
    if chosen := store or os.environ.get("DRRL_RUNS"):
        return Path(chosen).expanduser()
    beside = Path(__file__).parents[2] / "data"
    in_checkout = (beside / "registry.txt").is_file()
    return beside / "runs" if in_checkout else Path(pooch.os_cache("drrl")) / "runs"


def get_or_train(
    run: Run,
    *,
    store: str | Path | None = None,
    device: str = "auto",
    data: datasets.Interactions | None = None,
    data_dir: str | None = None,
    diagnose: bool = False,
    **options,
) -> Outcome:
    """A finished run at once; any other is trained, and kept when it is finished.

    Training leaves a checkpoint in the store at the end of each epoch: after a kill, Ctrl-C or a
    callback's stop, the same call continues from there. What such a stop returns is not kept. Two
    processes may train one run at once: the first to finish is kept, and both return its numbers.

    Args:
        store: where finished runs are kept, see `store_folder`.
        device: where to train, or to put what is read: "auto", "cpu", "cuda", ... A kept run counts
            whatever it was trained on: its record says which.
        data, data_dir: as in `execute`.
        diagnose: have `diagnostics` in the history. A run that was kept without them is trained
            again for them, and nothing else of it changes.
        **options: `on_step`, `on_epoch`, `progress`, see `trainer.fit`; nothing calls them for a
            run that is served.

    Raises:
        RunError: the kept run is damaged; it is left as it is.
        DivergedError, CheckpointError, ValueError: as `trainer.fit`.

    >>> import tempfile
    >>> run, store = configure("synthetic", settings={"epochs": 1}), tempfile.mkdtemp()
    >>> [get_or_train(run, store=store, progress=False).served for _ in range(2)]
    [False, True]
    """
    where = resolve_device(device)
    data = data or datasets.load(run.dataset, data_dir=data_dir)
    home = store_folder(store) / key(run, data.hash)
    if home.exists():
        found = _served(home, data, where)
        if not diagnose or LATER in _sums(home):
            return found
    # Epochs without diagnostics are no start for a run that wants them.
    checkpoint = checkpoint_of(home.name + ("-diagnosed" if diagnose else ""), store)
    options |= {"checkpoint": checkpoint, "resume": True}
    outcome = execute(run, device=device, data=data, diagnose=diagnose, **options)
    if outcome.record["finished"] is None:
        return outcome
    if not home.exists():
        keep(content(outcome), store=store)
    if diagnose and LATER not in _sums(home):
        _keep_diagnostics(outcome.fit.history, home)
    checkpoint.unlink(missing_ok=True)
    return replace(_served(home, data, where), served=False)


def load(
    name: str,
    *,
    store: str | Path | None = None,
    device: str = "auto",
    data: datasets.Interactions | None = None,
    data_dir: str | None = None,
) -> Outcome:
    """A kept run by its key, or by the first digits of it.

    Args:
        name: the key, or as much of it as tells it from others.
        store: see `store_folder`.
        device: where to put model and loss.
        data: the interactions it was trained on; needed where the record's `dataset` is not what
            `datasets.load` finds them by.
        data_dir: see `datasets.data_folder`.

    Raises:
        RunError: there is none, more than one, or it is damaged, or of other data.

    >>> import tempfile
    >>> run, store = configure("synthetic", settings={"epochs": 1}), tempfile.mkdtemp()
    >>> record = get_or_train(run, store=store, progress=False).record
    >>> load(record["key"][:6], store=store).record == record
    True
    """
    where = resolve_device(device)
    home = _find(name, store)
    about = json.load(_open(home, "record.json"))
    if data is None:
        try:
            data = datasets.load(about["dataset"], data_dir=data_dir)
        except datasets.DataError as error:
            raise RunError(f"{home.name}: give the data it was trained on: {error}") from error
    if data.hash != about["data_hash"]:
        raise RunError(f"{home.name} was trained on other data than this {about['dataset']}")
    return _served(home, data, where)


def record(name: str, *, store: str | Path | None = None) -> dict:
    """A kept run's record, by its key or the first digits of it; RunError as `load`."""
    return json.load(_open(_find(name, store), "record.json"))


def table(store: str | Path | None = None) -> pd.DataFrame:
    """The kept runs, one row each, the latest last.

    Returns:
        key, dataset, backbone, loss, seed, sampler, negatives; the other parameters that any of
        the runs has, as columns such as loss.temperature, backbone.dim, train.lr; best_epoch,
        valid.recall@20 ..., seconds, device, finished (UTC). A record that is
        damaged is left out, with a warning.

    >>> table("no such folder").empty
    True
    """
    first = ["key", "dataset", "backbone", "loss", "seed", "sampler", "negatives"]
    scores = [f"{split}.{name}" for split in SPLITS for name in SHOWN]
    last = ["best_epoch", *scores, "seconds", "device", "finished"]
    rows = []
    for home in _homes(store):
        try:
            about = json.load(_open(home, "record.json"))
        except RunError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
            continue
        groups = {**_each(_loose, about["parameters"]), **{split: about[split] for split in SPLITS}}
        row = {f"{group}.{name}": v for group, part in groups.items() for name, v in part.items()}
        rows.append({name: about[name] for name in (*first, *last) if name in about} | row)
        for name in ("sampler", "negatives", "seed"):
            rows[-1][name] = rows[-1].pop(f"train.{name}")
    found = pd.DataFrame(rows).dropna(axis="columns", how="all")  # what nobody has set
    prefixes = ("loss.", "backbone.", "train.")
    between = [name for prefix in prefixes for name in found if name.startswith(prefix)]
    found = found.reindex(columns=[*first, *between, *last])
    return found.sort_values(["finished", "key"], ignore_index=True)


def compare(a: str, b: str, *, store: str | Path | None = None) -> pd.DataFrame:
    """Two kept runs' accuracy side by side, and whether more than the choice of users differs.

    Args:
        a, b: their keys, or the first digits.
        store: see `store_folder`.

    Returns:
        A row a split and metric, with the columns of `metrics.compare`: the means a and b, their
        difference a - b, its interval, p by two tests.

    Raises:
        RunError: as `load`, or where the two were not trained on the same data.
    """
    homes = [_find(name, store) for name in (a, b)]
    if len({json.load(_open(home, "record.json"))["data_hash"] for home in homes}) > 1:
        raise RunError(f"{homes[0].name} and {homes[1].name} were trained on different data")
    pairs = {
        split: [_frame(_open(home, f"{split}.csv")).set_index("user") for home in homes]
        for split in SPLITS
    }
    found = {split: metrics.compare(*pair) for split, pair in pairs.items() if len(pair[0])}
    if not found:
        raise RunError(f"{homes[0].name} and {homes[1].name}: nothing was held out to compare by")
    return pd.concat(found, names=["split"])


def _homes(store: str | Path | None) -> list[Path]:
    return sorted(path for path in store_folder(store).glob("[0-9a-f]" * 16) if path.is_dir())


def _find(name: str, store: str | Path | None) -> Path:
    homes = [home for home in _homes(store) if home.name.startswith(name)]
    if not homes:
        raise RunError(f"no run in {store_folder(store)} has a key that starts with {name!r}")
    if len(homes) > 1:
        some = ", ".join(home.name for home in homes[:4]) + (", ..." if len(homes) > 4 else "")
        raise RunError(f"{len(homes)} runs have a key that starts with {name!r}: {some}")
    return homes[0]


def _damaged(path: Path, why: object) -> RunError:
    return RunError(f"{path}: {why}. Move {path.parent} away, and the run can be trained again.")


def _bytes(path: Path) -> bytes:
    """What a kept file holds, whether or not it is what was written, or RunError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise _damaged(path, "missing") from None
    except OSError as error:
        raise _damaged(path, f"cannot be read ({error})") from None


def _sums(home: Path) -> dict[str, str]:
    """File name -> SHA-256, of what a kept run consists of."""
    try:
        lines = _bytes(home / SUMS).decode().splitlines()
        return {name: digest for digest, name in (line.split("  ") for line in lines)}
    except ValueError as error:
        raise _damaged(home / SUMS, f"cannot be read ({error})") from None


def _open(home: Path, name: str) -> io.BytesIO:
    """A kept file's content, as it was written, or RunError."""
    wanted, path = _sums(home).get(name), home / name
    content = _bytes(path)
    if hashlib.sha256(content).hexdigest() != wanted:
        raise _damaged(path, f"damaged, it is not what {SUMS} says")
    return io.BytesIO(content)


def _frame(file: io.BytesIO) -> pd.DataFrame:
    """A kept table: integers in the first column, floats in the others, to the last digit."""
    text = pd.read_csv(file, dtype=str).astype(object)  # pandas' own parser of floats may round
    return text.astype(float).astype({text.columns[0]: np.int64})


def _served(home: Path, data: datasets.Interactions, where: torch.device) -> Outcome:
    """A kept run, its model and loss made anew and filled with what they had learnt."""
    files = {name: _open(home, name) for name in (*FILES, *(_sums(home).keys() - {*FILES}))}
    about = json.load(files["record.json"])
    history = _frame(files["history.csv"])
    if LATER in files:
        history = history.merge(_frame(files[LATER]), on="epoch", how="left")
    state = torch.load(files["state.pt"], weights_only=True, map_location="cpu")
    try:
        own = _each(_loose, about["parameters"])
        run = Run(
            *(about[name] for name in ("dataset", "backbone", "loss")),
            *(own["backbone"], own["loss"], TrainConfig(**own["train"])),
        )
        parts = dict(zip(("model", "loss"), _build(run, data), strict=True))
        for name, part in parts.items():
            part.load_state_dict(state[name])
            part.to(where)
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        why = f"of commit {about.get('commit')}, and cannot be rebuilt here ({error})"
        raise _damaged(home / "state.pt", why) from error
    frames = (_frame(files[f"{split}.csv"]).set_index("user") for split in SPLITS)
    result = Fit(about["best_epoch"], *frames, history, about["seconds"])
    return Outcome(about, result, **parts, data=data, served=True)


def _sync(path: Path) -> None:
    """Have the disk hold a file, or a folder's list of files, before anything else is done."""
    if path.is_dir() and os.name != "posix":  # elsewhere folders cannot be opened
        return
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def put(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        draft.write_bytes(content)
        _sync(draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    _sync(path.parent)


def _list(files: dict[str, bytes]) -> bytes:
    """The content of SHA256SUMS for these."""
    lines = (f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in files)
    return "".join(lines).encode()


def content(outcome: Outcome) -> dict[str, bytes]:
    """What the store keeps of a finished run, by file name; `keep` puts it there.

    The two are apart so that a run can be trained on one machine and kept on another.

    >>> outcome = execute(configure("synthetic", settings={"epochs": 1}), progress=False)
    >>> sorted(content(outcome))[:2]
    ['history.csv', 'record.json']
    """
    history = outcome.fit.history.select_dtypes("number")
    history = history.drop(columns=list(DIAGNOSTICS), errors="ignore")
    parts = {"model": outcome.model, "loss": outcome.loss}
    state = {n: {k: v.cpu() for k, v in p.state_dict().items()} for n, p in parts.items()}
    ranked = (table.detach().float().cpu().numpy() for table in tables(outcome.model))
    learnt, arrays = io.BytesIO(), io.BytesIO()
    torch.save(state, learnt)
    np.savez(arrays, **dict(zip(("users", "items"), ranked, strict=True)))
    return {
        "record.json": (json.dumps(outcome.record, indent=1) + "\n").encode(),
        **{f"{split}.csv": getattr(outcome.fit, split).to_csv().encode() for split in SPLITS},
        "history.csv": history.to_csv(index=False).encode(),
        "state.pt": learnt.getvalue(),
        "tables.npz": arrays.getvalue(),
    }


def keep(files: dict[str, bytes], *, store: str | Path | None = None) -> dict:
    """Put a finished run into the store whole, unless another process was first.

    Args:
        files: as `content` gives them.
        store: see `store_folder`.

    Returns:
        The run's record. Its checkpoint in the store is removed.

    >>> import tempfile
    >>> outcome = execute(configure("synthetic", settings={"epochs": 1}), progress=False)
    >>> keep(content(outcome), store=tempfile.mkdtemp()) == outcome.record
    True
    """
    about = json.loads(files["record.json"])
    home = store_folder(store) / about["key"]
    draft = home.with_name(f".{home.name}.{uuid.uuid4().hex}")
    draft.mkdir(parents=True)
    try:
        for name in FILES:
            (draft / name).write_bytes(files[name])
            _sync(draft / name)
        put(draft / SUMS, _list(files))
        os.rename(draft, home)
        _sync(home.parent)
    except OSError:
        if not home.is_dir():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    checkpoint_of(home.name, store).unlink(missing_ok=True)
    return about


def checkpoint_of(name: str, store: str | Path | None = None) -> Path:
    """Where the store has the state of a run that is not finished, by its key."""
    return store_folder(store) / f"{name}.checkpoint"


def _keep_diagnostics(history: pd.DataFrame, home: Path) -> None:
    """Add diagnostics to a kept run: they count from the moment that SHA256SUMS lists them."""
    found = history[["epoch", *(name for name in DIAGNOSTICS if name in history)]]
    put(home / LATER, found.to_csv(index=False).encode())
    put(home / SUMS, _list({name: (home / name).read_bytes() for name in [*_sums(home), LATER]}))


# ---------------------------------------------------------------------------------------------
# What a trained loss listens to


def false_negatives(
    data: datasets.Interactions, users: int | np.ndarray, split: str | None = None
) -> np.ndarray:
    """Items without a train pair that the user would like.

    Known where the data come with the truth; elsewhere the held-out positives, which is all that
    can be known.

    Args:
        users: an index, or several.
        split: "valid" or "test" to take that split's positives, with or without the truth.

    Returns:
        bool, (n_items,) of one user, (users, n_items) of several.

    >>> data = datasets.load("synthetic")
    >>> bool((false_negatives(data, 0) & (data.train[[0]].toarray()[0] > 0)).any())
    False
    """
    several = np.atleast_1d(users)
    if split:
        liked = getattr(data, split)[several].toarray() > 0
    elif data.truth is not None:
        liked = data.truth[several]
    else:
        liked = (data.valid[several] + data.test[several]).toarray() > 0
    liked[data.train[several].nonzero()] = False
    return liked if np.ndim(users) else liked[0]


def _listening(
    model: nn.Module,
    loss: nn.Module,
    data: datasets.Interactions,
    similarity: str,
    users: np.ndarray,
) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """Whom a loss listens to, a few users at a time.

    Yields:
        The users (U,), all items' scores (U, n_items), -inf where a train pair makes the item no
        negative, and weights (U, n_items): the gradient of each user's mean loss over its train
        positives, scaled to mean 1 over its negatives.
    """
    user_table, item_table = tables(model)
    item_table = metrics.unit_or_raw(item_table, similarity)
    device = item_table.device
    everything = torch.arange(data.n_items, device=device)
    pairs = int(np.diff(data.train.indptr)[users].sum())
    parts = min(len(users), 1 + pairs * data.n_items // TILE)
    for some in np.array_split(users, parts) if parts else ():
        owner, items = (torch.from_numpy(x).long().to(device) for x in data.train[some].nonzero())
        index = torch.from_numpy(some).long().to(device)
        with torch.no_grad():
            scores = metrics.unit_or_raw(user_table[index], similarity) @ item_table.T
        pos = scores[owner, items]
        scores[owner, items] = -math.inf

        def of_users(pos, neg, batch, owner=owner):
            return loss(pos, neg.index_select(0, owner), batch)

        batch = losses.Batch(index[owner], items, everything)
        weights = losses.negative_weights(of_users, pos, scores, batch)
        yield some, scores, weights.where(scores > -math.inf, 0)


def negatives_of(outcome: Outcome, user: int) -> pd.DataFrame:
    """A user's negatives, all the items without a train pair, as the trained loss sees them.

    The weight is the gradient of the user's mean loss over the train positives, scaled to mean 1.

    Args:
        user: an index, with at least one train pair.

    Returns:
        A row a negative, indexed by item: score, weight (probability ratio), false_negative.
    """
    data = outcome.data
    if not len(data.train[[user]].indices):
        raise ValueError(f"user {user} has no train pair: choose one that has")
    ((_, scores, weights),) = _listening(*outcome.trained, np.array([user]))
    columns = {
        "score": scores[0].cpu(),
        "weight": weights[0].cpu(),
        "false_negative": false_negatives(data, user),
    }
    view = pd.DataFrame(columns, index=pd.RangeIndex(data.n_items, name="item"))
    return view[view["score"] > -math.inf]


def _evenly(users: np.ndarray, count: int | None) -> np.ndarray:
    """So many of the users, evenly spread over them; all where count is None."""
    count = len(users) if count is None else min(count, len(users))
    return users[np.linspace(0, len(users) - 1, count).astype(int)]


def askable(data: datasets.Interactions, users: int) -> np.ndarray:
    """Users with a train pair and a false negative, see `false_negatives`; so many, evenly spread.

    >>> askable(datasets.load("synthetic"), 3)
    array([  0, 499, 999])
    """
    liked = data.valid + data.test if data.truth is None else csr_array(data.truth, dtype=float)
    missed = np.diff(liked.indptr) - np.diff(csr_array(liked.multiply(data.train)).indptr)
    return _evenly(np.flatnonzero((np.diff(data.train.indptr) > 0) & (missed > 0)), users)


def diagnostics(
    model: nn.Module,
    loss: nn.Module,
    data: datasets.Interactions,
    similarity: str = "cosine",
    *,
    users: int = 100,
) -> dict[str, float]:
    """Where a loss's weight goes, over all negatives of some users; each value their mean.

    A user's negatives are all items without a train pair, not the few that a step samples.

    Args:
        model, loss, data: as in `trainer.fit`; trained, or half way.
        similarity: "cosine" or "dot".
        users: over how many, see `askable`.

    Returns:
        truncated, the share of the negatives with weight zero; over the users whose negatives are
        not all truncated, k1, the largest weight, and k2, the mean weight of a false negative (both
        over the mean weight), and effective_share, 1 / mean(w²); of DrRL, beta (score; the optimum
        where it is exact, at order 1 τ) and gap (score), by how much the bound that the loss takes
        at its β exceeds the worst case that it bounds; NaN where c < 1, as no ball is bounded. NaN
        where no user has what is asked for.

    >>> outcome = execute(configure("synthetic", settings={"epochs": 1}), progress=False)
    >>> diagnostics(outcome.model, outcome.loss, outcome.data)["truncated"]
    0.0
    """
    known = askable(data, users)
    found = _by_user(model, loss, data, similarity, known).drop(columns="k2_test")
    return {name: float(value) for name, value in found.mean().items()}


def by_user(outcome: Outcome, *, users: int | None = None) -> pd.DataFrame:
    """Whom a trained loss listens to, user by user: what `diagnostics` takes the mean of.

    Args:
        users: how many, evenly spread over those with a train pair; all when None.

    Returns:
        A row a user: the columns of `diagnostics`, and k2_test, the mean weight of the user's test
        positives over the mean weight. NaN in k2 and k2_test where a user has no such item, and in
        all but truncated, beta and gap where all the user's negatives are truncated.

    Source: k1 and k2_test are the columns of Table 1 of 'Advancing Loss Functions in Recommender
    Systems', AAAI 2025, where their means over the users stand.

    >>> outcome = execute(configure("synthetic", settings={"epochs": 1}), progress=False)
    >>> by_user(outcome, users=5).shape
    (5, 5)
    """
    known = _evenly(metrics.seekers(outcome.data.train), users)
    return _by_user(*outcome.trained, known)


def _by_user(
    model: nn.Module,
    loss: nn.Module,
    data: datasets.Interactions,
    similarity: str,
    users: np.ndarray,
) -> pd.DataFrame:
    owned = isinstance(loss, losses.DrRL)
    columns = [*(DIAGNOSTICS if owned else DIAGNOSTICS[:4]), "k2_test"]
    rows = [pd.DataFrame(columns=columns, dtype=float)]
    for some, scores, weights in _listening(model, loss, data, similarity, users):
        kept, weights = scores > -math.inf, weights.double()
        count, heard = kept.sum(-1), (weights != 0).any(-1)
        row = {
            "truncated": ((weights == 0) & kept).sum(-1) / count.double(),
            "k1": weights.masked_fill(~kept, -math.inf).amax(-1),
            "effective_share": count / weights.square().sum(-1),
        }
        for name, split in FALSE.items():
            false = torch.from_numpy(false_negatives(data, some, split)).to(scores.device)
            row[name] = (weights * false).sum(-1) / false.sum(-1)
        for name in ("k1", "k2", "k2_test", "effective_share"):  # of nobody's weights: no mean
            row[name] = row[name].where(heard, math.nan)
        if owned:
            row["beta"], row["gap"] = _duals(loss, scores, some)
        row = {name: row[name].cpu().numpy() for name in columns}
        rows.append(pd.DataFrame(row, index=some))
    return pd.concat(rows[1:] or rows).rename_axis("user")


@torch.no_grad()
def _duals(loss: losses.DrRL, scores: Tensor, users: np.ndarray) -> tuple[Tensor, Tensor]:
    """Each user's β and duality gap on its scores, -inf = masked; float64, score."""
    scores, index = scores.double(), torch.from_numpy(users).to(scores.device)
    family = {name: value for name, value in loss.hyper.items() if name != "epsilon"}
    ball = family.pop("weight", 1.0)
    if ball >= 1:
        if not family.keys() & {"radius", "temperature"}:
            family["radius"] = dro.radius_from_weight(ball, family["order"])
        worst = dro.worst_case(scores, **family)
        bound = loss(scores.new_ones(len(scores)), scores, losses.Batch(index))  # 1 - pos is zero
        gap = bound - worst.value
    else:
        gap = scores.new_full(index.shape, math.nan)
    if loss.dual == "exact":
        return worst.dual, gap
    beta = loss.beta.double()
    return beta[index] if len(beta) > 1 else beta.expand(len(index)), gap


def attention(outcome: Outcome, *, users: int = 200) -> dict[str, float]:
    """Where a trained loss's weight goes, averaged over users: k1, k2 and truncated.

    Args:
        users: over how many, see `askable`.

    Returns:
        As `diagnostics`, whose first three they are.
    """
    found = diagnostics(*outcome.trained, users=users)
    return {name: found[name] for name in ("k1", "k2", "truncated")}


def turned(
    outcome: Outcome,
    orders: Sequence[float],
    *,
    radius: float | None = None,
    hold: str = "radius",
    users: int | None = 200,
) -> pd.DataFrame:
    """The order turned on a trained model's scores, user by user; nothing is trained anew.

    Args:
        orders: γ in [1, inf], each.
        radius: ρ in [0, inf), nats, of the ball at order 2; None for each user's own, see `places`.
        hold: what stays while the order turns, see `dro.turn`.
        users: how many, evenly spread over those with a train pair; all when None.

    Returns:
        A row a user and order: radius (nats, of the worst-case weights), dual (β, at order 1 τ;
        score), and k1, truncated, effective_share, k2 and k2_test as in `by_user`.

    Raises:
        ValueError: as `dro.turn`; where radius is None, as `places`.

    >>> outcome = execute(configure("synthetic", settings={"epochs": 1}), progress=False)
    >>> found = turned(outcome, [1, 2], radius=0.5, users=5)
    >>> len(found), bool((found.loc[1.0, "k1"] >= found.loc[2.0, "k1"]).all())
    (10, True)
    """
    own = None if radius is not None else places(outcome, users=users)["radius"]
    known = _evenly(metrics.seekers(outcome.data.train), users)
    if own is not None:  # users whose negatives are all truncated have no radius
        known = own.dropna().index.to_numpy(copy=True)
    read = ["dual", "k1", "truncated", "effective_share"]
    columns = ["order", "user", "radius", *read, *FALSE]
    rows = [pd.DataFrame(columns=columns, dtype=float)]
    for some, scores, _ in _listening(*outcome.trained, known):
        scores = scores.double()
        size = radius if own is None else torch.tensor(own[some].to_numpy()).to(scores)
        false = {name: false_negatives(outcome.data, some, split) for name, split in FALSE.items()}
        for order in orders:
            worst = dro.turn(scores, order=order, radius=size, hold=hold)
            row = {"radius": dro.radius_of_weights(worst.weights, order)}
            row |= {name: getattr(worst, name) for name in read}
            for name, marks in false.items():
                row[name] = dro.k2(worst.weights, torch.from_numpy(marks).to(scores.device))
            row = {name: value.cpu().numpy() for name, value in row.items()}
            rows.append(pd.DataFrame({"order": float(order), "user": some, **row}))
    return pd.concat(rows[1:] or rows).set_index(["order", "user"]).sort_index()


def places(outcome: Outcome, *, users: int | None = 200) -> pd.DataFrame:
    """Where a trained loss lies in the family: each user's order and radius, over all negatives.

    A temperature or a margin sets a radius too, another one for each user: that of the weights the
    loss gives. SL is of order 1, CCL of order ∞, DrRL of its own.

    Args:
        outcome: a run carried out, of sl, bsl, ccl or drrl.
        users: how many, evenly spread over those with a train pair; all when None.

    Returns:
        A row a user: order, radius (nats; NaN where all the user's negatives are truncated).

    Raises:
        ValueError: the loss has no order.

    Source: Eq. 5, 6 and 9 of 'Advancing Loss Functions in Recommender Systems', AAAI 2025.
    """
    order = {"sl": 1.0, "bsl": 1.0, "ccl": math.inf}.get(outcome.record["loss"])
    if isinstance(outcome.loss, losses.DrRL):
        order = outcome.loss.hyper["order"]
    if order is None:
        raise ValueError(f"{outcome.record['loss']} has no order: give a run of sl, ccl or drrl")
    known, radii = _evenly(metrics.seekers(outcome.data.train), users), []
    for _, _, weights in _listening(*outcome.trained, known):
        weights, heard = weights.double(), (weights != 0).any(-1)
        radius = weights.new_full(heard.shape, math.nan)
        if heard.any():
            radius[heard] = dro.radius_of_weights(weights[heard], order)
        radii.append(radius.cpu().numpy())
    columns = {"order": order, "radius": np.concatenate(radii)}
    return pd.DataFrame(columns, index=pd.Index(known, name="user"))


def negative_scores(outcome: Outcome, *, negatives: int, users: int = 100) -> Tensor:
    """Scores of negatives as a step draws them, for `losses.starting_points`.

    Args:
        negatives: N, how many a user, drawn with replacement from all its negatives.
        users: how many, evenly spread over those with a train pair.

    Returns:
        (users, N), float64.

    >>> outcome = execute(configure("synthetic", settings={"epochs": 1}), progress=False)
    >>> negative_scores(outcome, negatives=64, users=5).shape
    torch.Size([5, 64])
    """
    known = _evenly(metrics.seekers(outcome.data.train), users)
    draw = np.random.default_rng(0).choice
    rows = [draw(negatives_of(outcome, int(user))["score"], negatives) for user in known]
    return torch.tensor(np.array(rows), dtype=torch.float64)


def scores_of(outcome: Outcome, users: np.ndarray) -> np.ndarray:
    """Users' scores of all items as the trained model has them, float64, (users, n_items).

    -inf where a train pair makes the item no negative.

    >>> outcome = execute(configure("synthetic", settings={"epochs": 1}), progress=False)
    >>> scores_of(outcome, np.array([3, 7])).shape
    (2, 800)
    """
    rows, items = _ranked_with(outcome)
    scores = (rows[torch.tensor(users)] @ items.T).double().numpy()
    scores[outcome.data.train[users].nonzero()] = -math.inf
    return scores


def margins(outcome: Outcome, *, users: int | None = 200) -> pd.DataFrame:
    """Each user's margin β beside the exact one, that of the ball over all the user's negatives.

    Args:
        outcome: a run of drrl carried out, with c >= 1 where its size is c.
        users: how many, evenly spread over those with a train pair; all when None.

    Returns:
        A row a user: pairs, its train pairs; beta, the loss's margin (score), and where the loss
        solves for it on each row, that of one row, drawn as in training; best, the exact one
        (score; -inf at c = 1, where there is none); gap, by how much the bound at beta exceeds
        that at best, on all negatives (score).

    Raises:
        ValueError: the loss has no margin, or c < 1 and so no ball.

    >>> run = configure("synthetic", "drrl", settings={"radius": 1, "epochs": 1})
    >>> frame = margins(execute(run, progress=False))
    >>> bool((frame["gap"] >= 0).all())
    True
    """
    loss, pairs = outcome.loss, np.diff(outcome.data.train.indptr)
    hyper = getattr(loss, "hyper", {})
    if not {"weight", "radius"} & hyper.keys() or hyper["order"] == 1:
        raise ValueError("no margin: give a run of drrl with order > 1 and a weight or a radius")
    order, radius = hyper["order"], hyper.get("radius")
    if radius is None:
        radius = dro.radius_from_weight(hyper["weight"], order)
    known = _evenly(metrics.seekers(outcome.data.train), users)
    scores = torch.from_numpy(scores_of(outcome, known))
    worst = dro.worst_case(scores, order=order, radius=radius)
    if loss.dual == "exact":
        drawn = outcome.record["parameters"]["train"]["negatives"]
        chance, rng = (scores > -math.inf).double(), torch.Generator().manual_seed(0)
        row = torch.multinomial(chance, drawn, replacement=True, generator=rng)
        beta = dro.worst_case(scores.gather(1, row), order=order, radius=radius).dual
    else:
        beta = loss.beta.detach().cpu().double().expand(outcome.data.n_users)[known]
    gap = dro.dual_objective(scores, beta, order=order, radius=radius) - worst.value
    columns = {"pairs": pairs[known], "beta": beta, "best": worst.dual, "gap": gap}
    return pd.DataFrame(columns, index=pd.Index(known, name="user"))


def typical_user(data: datasets.Interactions) -> int:
    """A user with the median number of train pairs and, of those, the most test pairs.

    >>> typical_user(datasets.load("synthetic")) >= 0
    True
    """
    counts = np.diff(data.train.indptr)
    middle = np.sort(counts[counts > 0])[(counts > 0).sum() // 2]
    return int(np.argmax(np.where(counts == middle, np.diff(data.test.indptr), -1)))


# ---------------------------------------------------------------------------------------------
# What comes of it


def _ranked_with(outcome: Outcome) -> tuple[Tensor, Tensor]:
    """User and item table on the CPU whose dot products are the scores."""
    found = (metrics.unit_or_raw(table, outcome.similarity) for table in tables(outcome.model))
    users, items = (table.detach().float().cpu() for table in found)
    return users, items


def labels(data: datasets.Interactions) -> tuple[np.ndarray, np.ndarray]:
    """The ids that users and items came with, (n_users,) and (n_items,); numbers from 0 where none.

    >>> users, items = labels(datasets.load("synthetic"))
    >>> int(users[-1]), int(items[-1])
    (999, 799)
    """
    users, items = data.user_ids, data.item_ids
    return (
        np.arange(data.n_users) if users is None else users,
        np.arange(data.n_items) if items is None else items,
    )


def _indices(data: datasets.Interactions, users: np.ndarray | Sequence[int | str]) -> np.ndarray:
    """Indices of users given by index or, as text, by their own ids."""
    asked = np.asarray(users)
    if asked.dtype.kind in "UOS":
        own = {str(label): index for index, label in enumerate(labels(data)[0])}
        places = [own.get(str(user), -1) for user in asked]
        unknown = [str(user) for user, place in zip(asked, places, strict=True) if place < 0]
        if unknown:
            raise ValueError(f"users {unknown[:5]} are not in {data.name}: expected its own ids")
        return np.array(places, np.int64)
    whole = asked.dtype.kind in "iu" or not asked.size
    if not whole or ((asked < 0) | (asked >= data.n_users)).any():
        raise ValueError(
            f"users={users!r:.100}: expected indices from 0 to {data.n_users - 1}, or own ids as "
            "text"
        )
    return asked.astype(np.int64)


def recommend(
    outcome: Outcome,
    *,
    k: int = 20,
    users: np.ndarray | None = None,
    known: tuple[str, ...] = ("train",),
) -> pd.DataFrame:
    """The k best items of each user, under the ids that users and items came with.

    Args:
        k: how many, at least 1.
        users: indices >= 0, or text, the file's own ids; None: everyone with a train pair, for
            nothing is known of the others.
        known: the splits whose pairs are no candidates. ("train",) is what accuracy is measured
            on; ("train", "valid", "test") recommends nothing that a user already has.

    Returns:
        A row a recommendation, a user's best first: user, item (their own ids), rank from 1, score
        (cosine or dot product, as trained). Fewer than k where a user has fewer candidates.

    Raises:
        ValueError: k is below 1, `known` names no split, or a user is not known.

    >>> outcome = execute(configure("synthetic", settings={"epochs": 1}), progress=False)
    >>> list(recommend(outcome, k=3, users=np.array([7]))["rank"])
    [1, 2, 3]
    """
    data = outcome.data
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    if odd := {*known} - {*datasets.SPLITS}:
        raise ValueError(f"known has {sorted(odd)}: expected some of {', '.join(datasets.SPLITS)}")
    users = metrics.seekers(data.train) if users is None else _indices(data, users)
    masks = tuple(getattr(data, name) for name in known)
    (user_table, item_table), (user_ids, item_ids) = _ranked_with(outcome), labels(data)
    best = metrics.rank(user_table, item_table, users, masks=masks, k=k, similarity="dot")
    parts = np.array_split(np.arange(len(users)), 1 + best.size * item_table.shape[1] // TILE)
    scores = [
        torch.einsum("ud,ukd->uk", user_table[users[some]], item_table[best[some]])
        for some in parts
    ]
    owner, place = np.repeat(users, best.shape[1]), np.tile(np.arange(best.shape[1]), len(users))
    columns = {
        "user": user_ids[owner],
        "rank": place + 1,
        "item": item_ids[best.ravel()],
        "score": torch.cat(scores).flatten().numpy(),
    }
    taken = data.n_items - np.diff(sum(masks, csr_array(data.train.shape)).indptr)[users]
    return pd.DataFrame(columns)[place < np.repeat(taken, best.shape[1])].reset_index(drop=True)


def export(
    outcome: Outcome,
    folder: str | Path,
    *,
    k: int = 20,
    known: tuple[str, ...] = ("train",),
) -> dict[str, Path]:
    """Write recommendations and embeddings for use elsewhere, under the ids of one's own file.

    Args:
        folder: where to; created, and what it holds of these names is replaced.
        k, known: as in `recommend`.

    Returns:
        The files written, by what they are:

        - recommendations: `recommendations.csv`, as `recommend` returns them. Ids may look like
          numbers and not be: read them with `dtype={"user": str, "item": str}`.
        - embeddings: `embeddings.npz`, users (n_users, d) and items (n_items, d), float32, whose
          dot products are the scores (for cosine they have length one); user_ids and item_ids, as
          in the file: numbers or text, no Python objects.

    >>> import tempfile
    >>> outcome = execute(configure("synthetic", settings={"epochs": 1}), progress=False)
    >>> written = export(outcome, tempfile.mkdtemp(), k=5)
    >>> pd.read_csv(written["recommendations"]).shape, np.load(written["embeddings"])["items"].shape
    ((5000, 4), (800, 64))
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = {
        "recommendations": folder / "recommendations.csv",
        "embeddings": folder / "embeddings.npz",
    }
    recommend(outcome, k=k, known=known).to_csv(written["recommendations"], index=False)
    names = ("users", "items", "user_ids", "item_ids")
    arrays = (*(table.numpy() for table in _ranked_with(outcome)), *labels(outcome.data))
    np.savez_compressed(written["embeddings"], **dict(zip(names, arrays, strict=True)))
    return written
