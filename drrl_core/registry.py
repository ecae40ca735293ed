"""What the registries of losses and backbones do alike."""

import difflib
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any


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
