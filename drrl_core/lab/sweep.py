"""Sweeps: every configuration of a file, trained into the store."""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from drrl_core import datasets
from drrl_core.common import did_you_mean, need
from drrl_core.lab import store
from drrl_core.lab.results import kept_rows, keys_in, merge
from drrl_core.lab.run import Run, changes, configure, key_of, parse_value
from drrl_core.lab.workers import LOCAL, Compute, Job, Task, collect, complain, merge_row

BLOCKS: list[dict[str, Any]] = [
    {"dataset": None, "backbone": "mf", "loss": "sl", "settings": {}},
    {"notebook": None, "out": "out/sweep", "parameters": {}},
]


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
    for where, each in read_blocks(path):
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
    failed, total = into_store(wanted, name, csv=csv, done=done, more=more, compute=compute)
    folder = store.store_folder(compute.store)
    found = kept_rows([key for key in wanted if (folder / key).exists()], store=folder)
    if csv:
        merge(found, csv)
    complain(failed, total)
    return found


def into_store(
    wanted: Mapping[str, Run],
    name: str,
    *,
    csv: str | Path | None = None,
    done: Collection[str] = (),
    more: Collection[Job] = (),
    compute: Compute = LOCAL,
    trials: int | None = None,
) -> tuple[list[str], int]:
    """Train the runs that the store has not: a line for each that failed, and how many there were.

    Args:
        wanted, name, csv, done, more, compute: as in `train`.
        trials: the budget of the tuning that the runs belong to.
    """
    folder, jobs = store.store_folder(compute.store), [*more]
    data_hash = cache(lambda dataset: datasets.load(dataset, data_dir=compute.data_dir).hash)
    for key, run in wanted.items():
        if key not in done and not (folder / key).exists():
            plain = configure(run.dataset, run.loss, run.backbone)
            changed = changes(plain.config, run.config).items()
            shown = ", ".join(f"{name.partition('.')[2]}={value}" for name, value in changed)
            task = Task(f"{run.loss} on {run.backbone}, {run.dataset} ({shown})", key)
            jobs.append(compute.job(task, run, data_hash(run.dataset)))
    with tqdm(desc=name, total=len(jobs), unit="run", disable=not jobs) as bar:

        def tell(task: Task, result: Any) -> None:
            if not isinstance(result, Exception):
                merge_row(csv, task, compute, bar, trials)

        return collect(iter(jobs), compute, bar, tell), len(jobs)


def read_blocks(
    path: str | Path, kinds: Sequence[Mapping[str, Any]] = BLOCKS
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The configurations of a YAML file, a block or a list of blocks, in order.

    Args:
        path: the file.
        kinds: a block's keys and their defaults, None where it must have the key. The last is a
            mapping, or a list of mappings; a list in it, as under any other key, is a choice.

    Yields:
        Where in the file, to be told in a message; and one choice of each key of a block.

    Raises:
        ValueError: the file cannot be read, or a block is of no kind; names the block.
    """
    yaml = need("yaml", "tune")
    try:
        blocks = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    required = [[name for name, value in kind.items() if value is None] for kind in kinds]
    for number, block in enumerate(blocks if isinstance(blocks, list) else [blocks], 1):
        where = f"{path}, block {number}"
        given = block.keys() if isinstance(block, dict) else set()
        fits = [kind for kind, names in zip(kinds, required, strict=True) if {*names} <= given]
        if len(fits) != 1:
            wanted = " or ".join(" and ".join(names) for names in required)
            either = "either " if len(kinds) > 1 else ""
            raise ValueError(f"{where}: expected a mapping with {either}{wanted}, not {block!r}")
        for name in given - fits[0].keys():
            raise ValueError(
                f"{where}: {name!r} is none of its keys; {did_you_mean(name, fits[0])}"
            )
        *outer, inner = fits[0]
        points = block.get(inner) or {}
        for each in _grid({name: block.get(name, fits[0][name]) for name in outer}):
            for choice in points if isinstance(points, list) else [points]:
                if not isinstance(choice, dict):
                    raise ValueError(f"{where}, {inner}: expected names and values, not {choice!r}")
                yield from ((where, each | {inner: point}) for point in _grid(choice))


def _grid(given: dict[str, Any]) -> list[dict[str, Any]]:
    """Every choice of one from each of the lists; what is no list is the only choice."""
    lists = [value if isinstance(value, list) else [value] for value in given.values()]
    return [dict(zip(given, each, strict=True)) for each in itertools.product(*lists)]
