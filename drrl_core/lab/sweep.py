"""Sweeps: every configuration of a file, trained into the store."""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from drrl_core import datasets
from drrl_core.common import did_you_mean, need
from drrl_core.lab import store as kept
from drrl_core.lab.results import kept_rows, keys_in, merge
from drrl_core.lab.run import Run, changes, configure, key_of, parse_value
from drrl_core.lab.workers import LOCAL, Compute, Job, Task, collect, complain, merge_row

BLOCKS: dict[str, dict[str, Any]] = {
    "dataset": {"dataset": None, "backbone": "mf", "loss": "sl", "settings": {}},
    "notebook": {"notebook": None, "out": "out/sweep", "parameters": {}},
}


def sweep(
    path: str | Path,
    *,
    csv: str | Path | None = None,
    compute: Compute = LOCAL,
    notebook: Callable[[dict[str, Any], Compute], Job | None] | None = None,
) -> pd.DataFrame:
    """Run every configuration of a file: grids over runs, or over a notebook's parameters.

    The file is YAML, a block or a list of blocks, and a list anywhere means each of its values:

        - dataset: [amazon-beauty, amazon-kitchen]
          backbone: mf                              # the default
          loss: drrl
          settings: {order: [1.5, 2, 5], radius: 1, dual: exact, seed: [0, 1, 2]}
        - notebook: 02_one_family
          parameters: {order: [1.5, 2]}
          out: out/sweep                            # the default: a folder in it for each

    `settings` may be a list of such grids. All is checked before anything starts. A run that the
    store or `csv` has, or a notebook that left its record, is done; delete it to have it again.
    Notebooks on a cluster need `out` on a shared disk.

    Args:
        path: the file.
        csv: a file to merge the results into as they come, see `results.merge`.
        compute: what computes.
        notebook: makes a notebook's job, None where it is done: `pages.sweeps.notebook_job`.

    Returns:
        The rows (`results.kept_rows`) of the runs that the store has now, in the file's order.

    Raises:
        ValueError: a file, or a configuration in it, is refused: names block and name.
        SearchError: some failed: a message lists them, after all others are done.
    """
    wanted, jobs = {}, []
    data_hash = cache(lambda name: datasets.load(name, data_dir=compute.data_dir).hash)
    for where, each in _read(path):
        try:
            if "notebook" in each:
                if notebook is None:
                    raise ValueError("a notebook: the command `drrl sweep` runs it")
                jobs += [job] if (job := notebook(each, compute)) else []
                continue
            config = {
                name: parse_value(value) if isinstance(value, str) else value
                for name, value in each["settings"].items()
            }
            run = configure(each["dataset"], each["loss"], each["backbone"], config)
            wanted[key_of(run, data_hash(each["dataset"]))] = run
        except (TypeError, ValueError, datasets.DataError) as error:
            raise ValueError(f"{where}: {error}") from error
    name, done = Path(path).name, keys_in(csv)
    return train(wanted, name=name, csv=csv, done=done, more=jobs, compute=compute)


def train(
    wanted: Mapping[str, Run],
    *,
    name: str,
    csv: str | Path | None = None,
    done: Collection[str] = (),
    more: Collection[Job] = (),
    compute: Compute = LOCAL,
) -> pd.DataFrame:
    """Have runs in the store, and in a file of runs as they come.

    Args:
        wanted: the runs, by their keys.
        name: of the whole, to show.
        csv: a file to merge the results into, see `results.merge`.
        done: keys of runs that are not to be trained, though the store lacks them.
        more: other work, done before.
        compute: what computes.

    Returns:
        The rows (`results.kept_rows`) of the runs that the store has now, in the order of `wanted`.

    Raises:
        SearchError: some failed: a message lists them, after all others are done.
    """
    folder, jobs = kept.store_folder(compute.store), [*more]
    data_hash = cache(lambda dataset: datasets.load(dataset, data_dir=compute.data_dir).hash)
    for key, run in wanted.items():
        if key not in done and not (folder / key).exists():
            plain = configure(run.dataset, run.loss, run.backbone)
            changed = changes(plain.config, run.config).items()
            shown = ", ".join(f"{name.partition('.')[2]}={value}" for name, value in changed)
            task = Task(f"{run.loss} on {run.backbone}, {run.dataset} ({shown})", key)
            jobs.append(compute.job(task, run, data_hash(run.dataset)))
    with tqdm(desc=name, total=len(jobs), unit="run") as bar:

        def tell(task: Task, result: Any) -> None:
            if not isinstance(result, Exception):
                merge_row(csv, task, compute, bar)

        failed = collect(iter(jobs), compute, bar, tell)
    found = kept_rows([key for key in wanted if (folder / key).exists()], store=folder)
    if csv:
        merge(found, csv)
    complain(failed, len(jobs))
    return found


def read_yaml(path: str | Path) -> Any:
    """What a YAML file says; ValueError where it cannot be read."""
    yaml = need("yaml", "tune")
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def _read(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where in the file, and one configuration, for every point of every block's grid."""
    blocks = read_yaml(path)
    for number, block in enumerate(blocks if isinstance(blocks, list) else [blocks], 1):
        where = f"{path}, block {number}"
        if not isinstance(block, dict) or len(kind := BLOCKS.keys() & block.keys()) != 1:
            raise ValueError(f"{where}: expected a mapping with either dataset or notebook")
        defaults = BLOCKS[kind.pop()]
        for name in block:
            if name not in defaults:
                meant = did_you_mean(name, defaults)
                raise ValueError(f"{where}: {name!r} is none of its keys; {meant}")
        inner = list(defaults)[-1]
        points = block.pop(inner, None) or {}
        for choice in points if isinstance(points, list) else [points]:
            if not isinstance(choice, dict):
                raise ValueError(f"{where}, {inner}: expected names and values, not {choice!r}")
        outer = {name: block.get(name, value) for name, value in defaults.items() if name != inner}
        for each in _grid(outer):
            for choice in points if isinstance(points, list) else [points]:
                for point in _grid(choice):
                    yield where, each | {inner: point}


def _grid(given: dict[str, Any]) -> list[dict[str, Any]]:
    """Every choice of one from each of the lists; what is no list is the only choice."""
    lists = [value if isinstance(value, list) else [value] for value in given.values()]
    return [dict(zip(given, each, strict=True)) for each in itertools.product(*lists)]
