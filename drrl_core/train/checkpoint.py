"""The state of a training on disk, always whole."""

from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch

from drrl_core.common import whole_file

Parts = dict[str, Any]  # model, loss and optimisers by name


class CheckpointError(Exception):
    """A checkpoint cannot be read, or belongs to another run; the file is left as it is."""


def save(path: Path, identity: dict[str, Any], parts: Parts, state: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all, whenever the process may be killed.

    Args:
        identity: what must be equal for it to be continued.
        parts: name -> model, loss or optimiser: whatever has a `state_dict`.
        state: numbers, texts, tensors, and lists and dictionaries of these.
    """
    saved = {name: part.state_dict() for name, part in parts.items()}
    with whole_file(path) as draft:
        # By its path: what `torch.save` writes through Python's files aborts on an interrupt.
        try:
            torch.save({"identity": identity, "state": state, "parts": saved}, draft)
        except RuntimeError as error:  # torch's words for it: "unexpected pos 896 vs 790"
            raise OSError(f"{path} cannot be written, is the disk full? {error}") from error


def restore(path: Path, identity: dict[str, Any], parts: Parts) -> dict[str, Any]:
    """Load a checkpoint into model, loss and optimisers; returns the rest of the state."""
    aside = "move it away, or train without resume"
    try:
        with ZipFile(path) as archive:
            if archive.testzip():  # the sums that `torch.load` does not look at
                raise ValueError("checksum mismatch")
        found = torch.load(path, weights_only=True, map_location="cpu")
        theirs, state, saved = dict(found["identity"]), found["state"], found["parts"]
    except Exception as error:  # whatever a damaged or foreign file makes of the loader
        raise CheckpointError(f"{path} is no checkpoint, or a damaged one: {aside}") from error
    other = [name for name in {**identity, **theirs} if theirs.get(name) != identity.get(name)]
    if other:
        raise CheckpointError(f"{path} is of another run, by its {', '.join(other)}: {aside}")
    for name, part in parts.items():
        try:
            part.load_state_dict(saved[name])
        except (KeyError, ValueError, RuntimeError) as error:  # a tag that tells too little
            raise CheckpointError(f"{path} is of another run, by its {name}: {aside}") from error
    return state
