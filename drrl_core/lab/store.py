"""The store: finished runs on disk, found by their keys and never trained twice.

The store is a folder. A finished run is a folder in it, named by its key and never changed, but for
diagnostics that are asked for later:

    record.json      configuration, accuracy, and what it was computed with
    valid.csv, test.csv, history.csv, diagnostics.csv    per user, per user, per epoch, per epoch
    state.pt         what the model and the loss learnt
    tables.npz       `users` and `items`, float32, as `train.tables` gives them to the ranking
                     (a classical model has neither of these two: it is solved again)
    SHA256SUMS       of all these, so that damage is seen; `sha256sum -c` reads it too

Floats are written with all their digits: a run read back equals the run that was trained.
"""

import hashlib
import io
import json
import os
import shutil
import uuid
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pooch
import torch
from filelock import FileLock
from torch import Tensor

from drrl_core import datasets
from drrl_core.common import checkout, on_disk, write_whole
from drrl_core.lab.run import (
    ACCURACY,
    SPLITS,
    Outcome,
    Run,
    build,
    execute,
    flat,
    key_of,
    read_config,
)
from drrl_core.train import Fit, TrainConfig, metrics, refitted, resolve_device, tables
from drrl_core.train.diagnose import DIAGNOSTICS

TOLD = ("record.json", "valid.csv", "test.csv", "history.csv")
LEARNT = ("state.pt", "tables.npz")
FILES = (*TOLD, *LEARNT)
DIAGNOSED = "diagnostics.csv"  # a run may get it later
SUMS = "SHA256SUMS"


class RunError(Exception):
    """A kept run cannot be found, read, or told from another."""


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
    root = checkout()
    return root / "data" / "runs" if root else Path(pooch.os_cache("drrl")) / "runs"


def get_or_train(
    run: Run,
    *,
    store: str | Path | None = None,
    device: str = "auto",
    data: datasets.Interactions | None = None,
    data_dir: str | Path | None = None,
    diagnose: bool = False,
    on_step: Callable[[int, int, Tensor], object] | None = None,
    on_epoch: Callable[[dict[str, Any]], object] | None = None,
    progress: bool = True,
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
        on_step, on_epoch, progress: see `train.fit`; nothing calls them for a run that is served.

    Raises:
        RunError: the kept run is damaged; it is left as it is.
        DivergedError, CheckpointError, ValueError: as `train.fit`.

    >>> import tempfile
    >>> from drrl_core.lab.run import configure
    >>> run, store = configure("synthetic", config={"epochs": 1}), tempfile.mkdtemp()
    >>> [get_or_train(run, store=store, progress=False).served for _ in range(2)]
    [False, True]
    """
    where = resolve_device(device)
    data = data or datasets.load(run.dataset, data_dir=data_dir)
    home = store_folder(store) / key_of(run, data.hash)
    if home.exists():
        found = _served(home, data, where)
        if not diagnose or DIAGNOSED in _sums(home):
            return found
    # Epochs without diagnostics are no start for a run that wants them.
    checkpoint = checkpoint_of(home.name + ("-diagnosed" if diagnose else ""), store)
    outcome = execute(
        run,
        device=device,
        data=data,
        diagnose=diagnose,
        on_step=on_step,
        on_epoch=on_epoch,
        checkpoint=checkpoint,
        progress=progress,
    )
    if outcome.record["finished"] is None:
        return outcome
    if not home.exists():
        save(outcome, store=store)
    if diagnose and DIAGNOSED not in _sums(home):
        _keep_diagnostics(outcome.fit.history, home)
    checkpoint.unlink(missing_ok=True)
    return replace(_served(home, data, where), served=False)


def load(
    name: str,
    *,
    store: str | Path | None = None,
    device: str = "auto",
    data: datasets.Interactions | None = None,
    data_dir: str | Path | None = None,
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
    >>> from drrl_core.lab.run import configure
    >>> run, store = configure("synthetic", config={"epochs": 1}), tempfile.mkdtemp()
    >>> record = get_or_train(run, store=store, progress=False).record
    >>> load(record["key"][:6], store=store).record == record
    True
    """
    where = resolve_device(device)
    home = _find(name, store)
    about = _record(home)
    if data is None:
        try:
            data = datasets.load(about["dataset"], data_dir=data_dir)
        except datasets.DataError as error:
            raise RunError(f"{home.name}: give the data it was trained on: {error}") from error
    if data.hash != about["data_hash"]:
        raise RunError(f"{home.name} was trained on other data than this {about['dataset']}")
    return _served(home, data, where)


def record(name: str, *, store: str | Path | None = None) -> dict[str, Any]:
    """A kept run's record, by its key or the first digits of it; RunError as `load`."""
    return _record(_find(name, store))


def table(store: str | Path | None = None) -> pd.DataFrame:
    """The kept runs, one row each, the latest last.

    Returns:
        key, dataset, backbone, loss, seed, sampler, negatives; what else is configured of any of
        the runs, as columns such as loss.temperature, backbone.dim, train.lr; best_epoch,
        valid_recall@20 ..., seconds, device, finished (UTC). A record that is
        damaged is left out, with a warning.

    >>> table("no such folder").empty
    True
    """
    first = ["key", "dataset", "backbone", "loss", "seed", "sampler", "negatives"]
    scores = [f"{split}_{name}" for split in SPLITS for name in ACCURACY]
    last = ["best_epoch", "seconds", "device", "finished"]
    rows = []
    for home in _homes(store):
        try:
            about = _record(home)
        except RunError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
            continue
        row = {name: about[name] for name in (*first, *last) if name in about}
        row |= {f"{split}_{name}": v for split in SPLITS for name, v in about[split].items()}
        scores += [name for name in row if "@" in name and name not in scores]
        row |= flat(read_config(about))
        row |= {name: row.pop(f"train.{name}", None) for name in ("sampler", "negatives", "seed")}
        rows.append(row)
    found = pd.DataFrame(rows).dropna(axis="columns", how="all")  # what nobody has set
    prefixes = ("loss.", "backbone.", "train.")
    between = [n for prefix in prefixes for n in found if str(n).startswith(prefix)]
    found = found.reindex(columns=[*first, *between, last[0], *scores, *last[1:]])
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
    if len({_record(home)["data_hash"] for home in homes}) > 1:
        raise RunError(f"{homes[0].name} and {homes[1].name} were trained on different data")
    pairs = {
        split: [_frame(_open(home, f"{split}.csv")).set_index("user") for home in homes]
        for split in SPLITS
    }
    found = {split: metrics.compare(*pair) for split, pair in pairs.items() if len(pair[0])}
    if not found:
        raise RunError(f"{homes[0].name} and {homes[1].name}: nothing was held out to compare by")
    return pd.concat(found, names=["split"])


def checkpoint_of(name: str, store: str | Path | None = None) -> Path:
    """Where the store has the state of a run that is not finished, by its key."""
    return store_folder(store) / f"{name}.checkpoint"


def files_of(outcome: Outcome) -> dict[str, bytes]:
    """What the store keeps of a finished run, by file name.

    `save` takes it too, so that a run can be trained on one machine and saved on another.

    >>> from drrl_core.lab.run import configure
    >>> outcome = execute(configure("synthetic", config={"epochs": 1}), progress=False)
    >>> sorted(files_of(outcome))[:2]
    ['history.csv', 'record.json']
    """
    history = outcome.fit.history.select_dtypes("number")
    history = history.drop(columns=list(DIAGNOSTICS), errors="ignore")
    told = {
        "record.json": (json.dumps(outcome.record, indent=1) + "\n").encode(),
        **{f"{split}.csv": getattr(outcome.fit, split).to_csv().encode() for split in SPLITS},
        "history.csv": history.to_csv(index=False).encode(),
    }
    if outcome.loss is None:
        return told
    parts = {"model": outcome.model, "loss": outcome.loss}
    state = {n: {k: v.cpu() for k, v in p.state_dict().items()} for n, p in parts.items()}
    users, items = (table.detach().float().cpu().numpy() for table in tables(outcome.model))
    learnt, arrays = io.BytesIO(), io.BytesIO()
    torch.save(state, learnt)
    np.savez(arrays, users=users, items=items)
    return told | {"state.pt": learnt.getvalue(), "tables.npz": arrays.getvalue()}


def save(run: Outcome | dict[str, bytes], *, store: str | Path | None = None) -> dict[str, Any]:
    """Put a finished run into the store whole, unless another process was first.

    Args:
        run: its outcome, or the files of it, see `files_of`.
        store: see `store_folder`.

    Returns:
        The run's record. Its checkpoint in the store is removed.

    >>> import tempfile
    >>> from drrl_core.lab.run import configure
    >>> outcome = execute(configure("synthetic", config={"epochs": 1}), progress=False)
    >>> save(outcome, store=tempfile.mkdtemp()) == outcome.record
    True
    """
    files = run if isinstance(run, dict) else files_of(run)
    about: dict[str, Any] = json.loads(files["record.json"])
    home = store_folder(store) / about["key"]
    draft = home.with_name(f".{home.name}.{uuid.uuid4().hex}")
    draft.mkdir(parents=True)
    try:
        for name in files:
            (draft / name).write_bytes(files[name])
            on_disk(draft / name)
        write_whole(draft / SUMS, _list(files))
        os.rename(draft, home)
        on_disk(home.parent)
    except OSError:
        if not home.is_dir():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    checkpoint_of(home.name, store).unlink(missing_ok=True)
    return about


def lock_of(path: Path) -> FileLock:
    """The lock of a file, which one process at a time has: `with lock_of(path): ...`.

    It goes with its process, however that ends; what it leaves is an empty file beside the other.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f".{path.name}.lock"))


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


def _record(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.load(_open(home, "record.json"))
    return found


def _frame(file: io.BytesIO) -> pd.DataFrame:
    """A kept table: integers in the first column, floats in the others, to the last digit."""
    text = pd.read_csv(file, dtype=str).astype(object)  # pandas' own parser of floats may round
    return text.astype(float).astype({text.columns[0]: np.int64})


def _served(home: Path, data: datasets.Interactions, where: torch.device) -> Outcome:
    """A kept run, its model and loss made anew and filled with what they had learnt."""
    about = _record(home)
    wanted = FILES if about["loss"] else TOLD
    files = {name: _open(home, name) for name in (*wanted, *(_sums(home).keys() - {*wanted}))}
    history = _frame(files["history.csv"])
    if DIAGNOSED in files:
        history = history.merge(_frame(files[DIAGNOSED]), on="epoch", how="left")
    try:
        own = read_config(about)
        train = TrainConfig(**own["train"])
        data = refitted(data, train)
        run = Run(
            about["dataset"], about["backbone"], about["loss"], own["backbone"], own["loss"], train
        )
        model, loss = build(run, data.n_users, data.n_items, data.train)
        parts = (("model", model), ("loss", loss)) if run.loss else ()
        state = _learnt(files["state.pt"]) if run.loss else {}
        for name, part in parts:
            part.load_state_dict(state[name])
            part.to(where)
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        why = f"of commit {about.get('commit')}, and cannot be rebuilt here ({error})"
        raise _damaged(home / wanted[-1], why) from error
    valid, test = (_frame(files[f"{split}.csv"]).set_index("user") for split in SPLITS)
    result = Fit(about["best_epoch"], valid, test, history, about["seconds"])
    return Outcome(about, result, model, loss, data, served=True)


def _learnt(file: io.BytesIO) -> Any:
    """The state of a model and a loss, read without running any code."""
    return torch.load(file, weights_only=True, map_location="cpu")


def _list(files: dict[str, bytes]) -> bytes:
    """The content of SHA256SUMS for these."""
    lines = (f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in files)
    return "".join(lines).encode()


def _keep_diagnostics(history: pd.DataFrame, home: Path) -> None:
    """Add diagnostics to a kept run: they count from the moment that SHA256SUMS lists them."""
    found = history[["epoch", *(name for name in DIAGNOSTICS if name in history)]]
    write_whole(home / DIAGNOSED, found.to_csv(index=False).encode())
    write_whole(
        home / SUMS, _list({name: (home / name).read_bytes() for name in [*_sums(home), DIAGNOSED]})
    )
