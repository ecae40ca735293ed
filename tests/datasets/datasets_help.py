"""What the tests of data sets share."""

import gzip
import os
import warnings
from pathlib import Path

import pytest
from scipy import sparse

from drrl_core import datasets
from drrl_core.datasets import Interactions, load


def real_data(folder: str) -> Path:
    """The folder with the real files, or a skip that says what is missing."""
    root = Path(os.environ.get("DRRL_DATA") or "nowhere")
    if not (root / folder).is_dir():
        pytest.skip(f"real data not found: set DRRL_DATA to the folder that holds {folder}/ …")
    return root


def pairs_of(data: Interactions, *keys: str) -> set:
    """The pairs of the named splits (all, if none is named), by label where there are labels."""
    users = range(data.n_users) if data.user_ids is None else data.user_ids.tolist()
    items = range(data.n_items) if data.item_ids is None else data.item_ids.tolist()
    rows = [getattr(data, key).tocoo() for key in keys or datasets.SPLITS]
    return {(users[u], items[i]) for m in rows for u, i in zip(m.row, m.col, strict=True)}


def quiet(*args, **kwargs) -> Interactions:
    """Load, not minding users and items without train pairs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return load(*args, **kwargs)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def in_splits(*splits: list[list[int]]) -> Interactions:
    return Interactions("x", len(splits[0]), len(splits[0][0]), *map(sparse.csr_array, splits))
