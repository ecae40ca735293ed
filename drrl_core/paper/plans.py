"""The sweeps that the paper's figures take, and a folder of results completed by them."""

import contextlib
import itertools
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from drrl_core import classical, datasets, dro
from drrl_core.common import need, write_whole
from drrl_core.lab import trials as table
from drrl_core.lab.results import SIZES, harvest, keys_in, read_runs, run_of, selected_runs
from drrl_core.lab.store import table as runs_in
from drrl_core.lab.sweep import sweep
from drrl_core.lab.tune import tune
from drrl_core.lab.workers import LOCAL, Compute
from drrl_core.paper import evidence

Block = dict[str, object]
NOISES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
RADII = (0.35, 0.7, 1.0, 1.2, 1.8)  # breakdown points from 70% to 17%
ORDERS = (1.1, 1.25, 1.5, 2.0, 3.0, 6.0, 51.0)  # γ* from 11 to 1.02
MADE = ".made-by-drrl"  # the file that marks a folder that may be made anew


def complete(
    recorded: str | Path,
    folder: str | Path,
    dataset: str,
    names: Sequence[str],
    *,
    backbones: Sequence[str] = ("mf",),
    trials: int = 0,
    seeds: int = 3,
    config: Mapping[str, object] | None = None,
    plan: Callable[[pd.DataFrame], list[Block]] | None = None,
    compute: Compute = LOCAL,
) -> evidence.Evidence:
    """What was recorded, and what was not, computed now: a folder of results of one's own.

    Args:
        recorded: a folder of results, which is only read; it need not be there.
        folder: a copy of it is made here, see `copied`, and what is computed is added.
        dataset, backbones, names: what is to be there: these variants' selected runs, in this
            order.
        trials: the budget of each that is missing, and of what the plan adds; 0: compute nothing.
        seeds, config: as in `tune`, of each that is missing; config of losses alone.
        plan: what there is of these -> blocks of a sweep to be run too, see `noise_plan`.
        compute: what computes.

    Returns:
        `evidence.measured` of the folder. Weights are averaged over 200 users.
    """
    folder, csv = Path(folder), Path(folder) / "runs.csv"
    copied(recorded, folder, store=compute.store)
    if trials:
        data = datasets.load(dataset, data_dir=compute.data_dir)

        def known() -> pd.DataFrame:
            rows = evidence.beside_backbones(read_runs(csv))
            mine = (rows["dataset"] == data.name) & (rows["noise"] == 0)
            return rows[mine & rows["variant"].isin(names) & rows["backbone"].isin(backbones)]

        for backbone, variant in itertools.product(backbones, names):
            here = known()
            if not ((here["backbone"] == backbone) & (here["variant"] == variant)).any():
                tune(
                    dataset,
                    variant,
                    backbone=backbone,
                    trials=trials,
                    seeds=seeds,
                    config=None if variant in classical.REGISTRY else config,
                    csv=csv,
                    compute=compute,
                )
        if plan:
            blocks = [block | {"dataset": dataset} for block in plan(known())]
            sweep(write_plan(blocks, folder / "sweep.yaml"), csv=csv, compute=compute)
        own = {data.name: data}
        harvest(folder, users=200, data=own, store=compute.store, data_dir=compute.data_dir)
    return evidence.measured(folder)


def copied(recorded: str | Path, folder: str | Path, *, store: str | Path | None = None) -> None:
    """A copy of a folder of results, to add to; made anew where an earlier one stands.

    Its files of users, nine tenths of it, are links.

    Only a folder that was made here, which its file MADE says, gives way. It is deleted where all
    its runs are in the store or in what was recorded, else it is kept under another name.

    Args:
        recorded: the folder of results, which is only read; it need not be there.
        folder: where the copy is to be.
        store: see `store.store_folder`.

    Raises:
        ValueError: one is in the other, or something else stands there: nothing is touched.
    """
    folder, recorded, tables = Path(folder), Path(recorded), []
    csv = folder / "runs.csv"
    mine, theirs = folder.resolve(), recorded.resolve()
    if mine in (theirs, *theirs.parents) or theirs in mine.parents:
        raise ValueError(f"{folder} is made anew, and {recorded} is in it or around it: copy that")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"{folder} is no folder of its own: choose another place for results")
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MADE).is_file():
            raise ValueError(
                f"{folder} has files that were not made here (no {MADE} among them), and would be "
                "replaced: move them, or choose another folder"
            )
        tables += [table.read(path) for path in [table.beside(csv)] if path.exists()]
        if keys_in(csv) <= keys_in(recorded / "runs.csv") | {*runs_in(store)["key"]}:
            shutil.rmtree(folder)
        else:
            names = (folder.with_name(f"{folder.name}-{n}") for n in itertools.count(1))
            folder.rename(next(path for path in names if not path.exists()))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MADE).write_text("Made by drrl, which deletes this folder when it makes it anew.\n")
    if recorded.is_dir():
        shutil.copytree(recorded, folder, copy_function=_linked, dirs_exist_ok=True)
        tables += [table.read(path) for path in [table.beside(csv)] if path.exists()]
    for rows in tables:  # of trials: it counts for nothing, and saves training them again
        table.merge(rows, csv)


def _linked(source: str, target: str) -> None:
    """A users' file, the bulk of a folder, as a link; a table, or where links are refused, a copy.

    A file is never written into but replaced whole, so nothing reaches what a link leads to.
    """
    if source.endswith(".csv.gz"):
        with contextlib.suppress(OSError):  # such as Windows, for most users
            return os.symlink(os.path.abspath(source), target)
    shutil.copy2(source, target)


def noise_plan(
    rows: pd.DataFrame,
    ratios: Iterable[float] = NOISES,
    seeds: Sequence[int] = range(3),
    *,
    radii: Iterable[float] | None = None,
) -> list[Block]:
    """The sweep of Fig. 4: losses as they were tuned, at shares of false negatives.

    Args:
        rows: as `results.read_runs`; the selected ones without noise are run again.
        ratios: of each row's negatives, in [0, 1).
        seeds: of every point.
        radii: ρ, nats. DrRL's balls alone, at these instead of their own: to see where each breaks
            (`dro.breakdown_point`).

    Returns:
        Blocks as `sweep` takes them from a file. The sampler is per-row, which alone has noise.
    """
    selected = selected_runs(rows[rows["noise"] == 0])
    one = selected.drop_duplicates(["dataset", "backbone", "variant"])
    changed: dict[str, object] = {"train.noise": [*map(float, ratios)], "train.sampler": "per-row"}
    if radii is not None:
        one = one[one["loss"] == "drrl"]
        one = one[[evidence.ball(row) is not None for _, row in one.iterrows()]]
        changed |= {f"loss.{name}": None for name in SIZES}
        changed["loss.radius"] = [*map(float, radii)]
    return [_again(row, seeds, changed) for _, row in one.iterrows()]


def order_plan(
    rows: pd.DataFrame,
    orders: Iterable[float] = ORDERS,
    seeds: Sequence[int] = range(3),
    *,
    between: tuple[float, float] = (1.25, 20.0),
) -> list[Block]:
    """The sweep of Fig. 5: DrRL along the order, once at its c and once at its ρ.

    It starts from the best on valid of an order well between the ends, a trial of a tuning where
    there is one: an optimum that is SL's or CCL's (see `starts.point_of`) has a β that suits no
    other order.

    Args:
        rows: as `results.read_runs`; of DrRL's variants without noise one each is chosen.
        orders: γ in (1, ∞); the chosen one's is added.
        seeds: of every point.
        between: the chosen one's γ.

    Returns:
        Two blocks a variant, as `sweep` takes them from a file.
    """
    rows = rows[(rows["loss"] == "drrl") & (rows["noise"] == 0)]
    rows = rows.assign(tuned=rows["trials"].notna())  # a sweep before this is no place to begin
    rows = rows.sort_values(["tuned", "valid_ndcg@20", "key"], ascending=False)
    blocks, chosen = [], set()
    for _, row in rows.iterrows():
        group = row["dataset"], row["backbone"], row["variant"]
        order, radius = evidence.ball(row) or (math.nan, math.nan)
        if group in chosen or not between[0] <= order <= between[1]:
            continue
        chosen.add(group)
        sizes = {"radius": radius, "weight": dro.weight_from_radius(radius, order)}
        free: dict[str, object] = {f"loss.{name}": None for name in SIZES}
        for name, size in sizes.items():
            held = {f"loss.{name}": float(f"{float(size):.4g}")}
            along = {"loss.order": sorted({*map(float, orders), order})}
            blocks.append(_again(row, seeds, free | held | along))
    return blocks


def _again(selected: pd.Series, seeds: Iterable[int], changed: Mapping[str, object]) -> Block:
    """A block of a sweep: a selected run once more, but for what is changed (None: left out)."""
    own = run_of(selected).flat_config
    names = [*json.loads(selected["settings"]), "train.sampler", "train.negatives"]
    settings = {**{name: own[name] for name in names}, **changed}
    settings = {name: value for name, value in settings.items() if value is not None}
    outer = {name: selected[name] for name in ("dataset", "backbone", "loss")}
    return outer | {"settings": settings | {"train.seed": [*seeds]}}


def write_plan(blocks: list[Block], path: str | Path) -> Path:
    """Blocks as a file for `sweep`."""
    yaml, path = need("yaml", "tune"), Path(path)
    blocks = json.loads(json.dumps(blocks))  # shared lists would become anchors in YAML
    text = yaml.safe_dump(blocks, sort_keys=False, default_flow_style=None, width=99)
    write_whole(path, text.encode())
    return path
