"""What the registries of losses, backbones and classical models do alike."""

import difflib
import hashlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar

import drrl_core


class Entry(Protocol):
    """What the entries of all registries have."""

    @property
    def origin(self) -> Mapping[str, str]: ...


AnyEntry = TypeVar("AnyEntry", bound=Entry)
Subject = TypeVar("Subject")


def unknown(what: str, name: str, known: Iterable[str]) -> ValueError:
    """The error for a name that is not known, with the closest one that is.

    >>> unknown("no loss is called", "sll", ["sl", "ccl"])
    ValueError("no loss is called 'sll' (did you mean 'sl'?); there are: sl, ccl")
    """
    close = difflib.get_close_matches(name, known := [*known], 1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return ValueError(f"{what} {name!r}{hint}; there are: {', '.join(known)}")


def hyperparameters(factory: Callable[..., Any]) -> dict[str, Any]:
    """Names and defaults of a function's or a class's keyword-only parameters.

    >>> hyperparameters(lambda scores, *, temperature=0.2: scores)
    {'temperature': 0.2}
    """
    given = inspect.signature(factory).parameters.values()
    return {each.name: each.default for each in given if each.kind is each.KEYWORD_ONLY}


def source(factory: Callable[..., Any]) -> str:
    """What a docstring says after "Source:", to the end of the paragraph; "" where it does not."""
    found = re.search(r"Source: (.+?)(?:\n\s*\n|$)", inspect.getdoc(factory) or "", re.S)
    return " ".join(found[1].split()) if found else ""


# ---------------------------------------------------------------------------------------------
# From outside the package, by "module:name"


def find(what: str, name: str, known: Mapping[str, AnyEntry]) -> AnyEntry:
    """The entry of a name; one from outside is imported, and registered unless its module did."""
    if name not in known and ":" in name:
        made = imported(name)
        if name not in known:
            drrl_core.register(made, kind=what)
    if name not in known:
        raise unknown(f"no {what} is called", name, known)
    return known[name]


def imported(name: str) -> Any:
    """The function or class that "module:name" says, from the Python path or this folder."""
    home, _, own = name.partition(":")
    if home == "__main__":
        raise ValueError(f"{name!r} is not registered here: put it into a module of its own")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # the `drrl` command does not look there
    try:
        module = import_module(home)
    except ImportError as error:
        raise ValueError(
            f"{name!r} cannot be imported ({error}): run where {home.replace('.', '/')}.py lies, "
            "or name its folder in PYTHONPATH"
        ) from error
    made = getattr(module, own, None)
    if getattr(made, "__module__", None) != home:
        there = [key for key, value in vars(module).items() if callable(value)]
        raise unknown(f"module {home!r} defines no", own, there)
    return made


def name_of(factory: Callable[..., Any]) -> str:
    """The name "module:name" of a function or class that stands at the top of a module."""
    if not (inspect.isclass(factory) or inspect.isfunction(factory)):
        raise ValueError(f"{factory!r} is neither a function nor a class")
    if "<" in factory.__qualname__ or "." in factory.__qualname__:
        raise ValueError(
            f"{factory.__qualname__} stands within another function or class: put it at the top "
            "of its module, so that other processes find it"
        )
    return f"{factory.__module__}:{factory.__name__}"


def origin(factory: Callable[..., Any]) -> dict[str, str]:
    """Where a function or class comes from: module, name, file, and the SHA-256 of that file.

    What that file imports is not looked at. Of a notebook it is the SHA-256 of its own lines.
    """
    home = sys.modules[factory.__module__]
    file = getattr(home, "__file__", None)
    if file:
        content = Path(file).read_bytes()
    else:
        parts = vars(factory).values() if inspect.isclass(factory) else [factory]
        try:
            lines = [inspect.getsource(part) for part in parts if inspect.isfunction(part)]
        except OSError:
            raise ValueError(
                f"the source of {factory.__name__} cannot be read, by which its runs are told from "
                "others: put it into a module"
            ) from None
        content = "".join(lines).encode()
    digest = hashlib.sha256(content).hexdigest()
    told = {"module": factory.__module__, "name": factory.__name__}
    return told | {"file": str(file or "a notebook"), "sha256": digest}


def origins(**entries: Entry) -> dict[str, dict[str, dict[str, str]]]:
    """What a record tells of those that come from outside; nothing where none does.

    >>> origins()
    {}
    """
    found = {name: dict(each.origin) for name, each in entries.items() if each.origin}
    return {"origin": found} if found else {}


# ---------------------------------------------------------------------------------------------
# Checks


def positional(factory: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters that are not hyper-parameters."""
    given = inspect.signature(factory).parameters.values()
    return [each for each in given if each.kind is not each.KEYWORD_ONLY]


def check_hyperparameters(factory: Callable[..., Any]) -> None:
    """Refuse a hyper-parameter without a default that a record can hold."""
    for name, default in hyperparameters(factory).items():
        if not isinstance(default, bool | int | float | str | None):
            raise ValueError(
                f"hyper-parameter {name} must have a number, a text or None as its default"
            )


def run_checks(
    complaint: str, checks: Mapping[str, Callable[[Subject], None]], it: Subject
) -> None:
    """Run all checks; ValueError with the failed ones, by name, and the first line of each."""
    failed = []
    for name, check in checks.items():
        try:
            check(it)
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            failed.append(f"- not so: {name}: {lines[0]}")
    if failed:
        count = f"{len(failed)} of {len(checks)} checks failed"
        raise ValueError("\n".join([f"{complaint}, {count}:", *failed]))
