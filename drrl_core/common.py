"""What several rooms need: files written whole, names suggested, the project's own files found."""

import difflib
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any


def did_you_mean(word: object, known: Iterable[str], *, most: int = 1) -> str:
    """The end of a message about a name that nobody knows: the nearest names, or else all of them.

    >>> did_you_mean("drl", ["sl", "drrl"]), did_you_mean("zzz", ["sl", "drrl"])
    ("did you mean 'drrl'?", 'there are: sl, drrl')
    """
    known = list(known)
    if close := difflib.get_close_matches(str(word), known, most):
        return f"did you mean {' or '.join(map(repr, close))}?"
    return f"there are: {', '.join(known)}"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all, whenever the process may be stopped; makes its folder.

    Yields:
        A draft to write to, which takes the file's place at the end of the block.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "new", "file")
    >>> with whole_file(path) as draft:
    ...     _ = draft.write_text("all of it")
    >>> path.read_text(), len(list(path.parent.iterdir()))
    ('all of it', 1)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield draft
        on_disk(draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    on_disk(path.parent)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file's content whole or not at all, see `whole_file`."""
    with whole_file(path) as draft:
        draft.write_bytes(content)


def on_disk(path: Path) -> None:
    """Wait until the disk holds a file, or a folder's list of files."""
    if path.is_dir() and os.name != "posix":  # elsewhere folders cannot be opened
        return
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cores() -> int:
    """How many cores this process may use.

    >>> cores() >= 1
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def checkout() -> Path | None:
    """The checkout of the project that this runs from; None where the package was installed.

    >>> checkout() is None or (checkout() / "drrl_core").is_dir()
    True
    """
    root = Path(__file__).parents[1]
    return root if (root / "data" / "registry.txt").is_file() else None


def own_file(packaged: str, kept: str) -> Path:
    """A file or folder that comes with the project.

    Args:
        packaged: its name in the package, where a wheel has it.
        kept: its name in `data/`, where a checkout has it.

    >>> own_file("registry.txt", "registry.txt").is_file()
    True
    """
    path = Path(__file__).with_name(packaged)
    return path if path.exists() else path.parents[1] / "data" / kept


def need(module: str, extra: str) -> Any:
    """An optional package, or ValueError that says how to install it.

    >>> need("json", "tune").loads("1")
    1
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ValueError(f"{error}: pip install 'drrl-core[{extra}]'") from error
