"""The lesson for teachers, `notebooks/TEACHING.md`: its numbers are those of executed notebooks."""

import json
import math
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch

from drrl_core import dro
from drrl_core.common import write_whole
from drrl_core.show.style import label

ORDERS = {"sl": 1.0, "drrl": 2.0, "ccl": math.inf}


def _dials() -> dict[str, Any]:
    """What notebook 01's explorer shows of its made-up scores: by scores and loss, at radius 1."""
    rng = np.random.default_rng(0)  # as in the notebook
    made = {"gaussian": rng.normal(0, 0.3, 2000), "heavy": 0.2 * rng.standard_t(3, 2000)}
    rows = {name: torch.from_numpy(scores) for name, scores in made.items()}

    def at(scores: torch.Tensor, order: float, radius: float = 1.0) -> dict[str, float]:
        worst = dro.worst_case(scores, order=order, radius=radius)
        names = ("value", "k1", "truncated", "effective_share", "dual")
        return {name: float(getattr(worst, name)) for name in names}

    found: dict[str, Any] = {
        name: {loss: at(row, order) for loss, order in ORDERS.items()} for name, row in rows.items()
    }
    middle = found["gaussian"]["drrl"]
    ball = {"order": 2.0, "radius": 1.0}
    moved = [
        dro.dual_objective(rows["gaussian"], middle["dual"] + by, **ball) for by in (0.2, -0.2)
    ]
    found["gaps"] = [float(bound) - middle["value"] for bound in moved]
    return found | {"wide": at(rows["gaussian"], 2, 2)}


def page(executed: str | Path) -> str:
    """The lesson as Markdown, from `templates/TEACHING.md.j2`.

    Args:
        executed: what `drrl notebooks` left of 00 and 02, with their own parameters.
    Raises: ValueError: one of them was not executed.

    Example: `page("out/notebooks")`
    """
    results = {}
    for name in ("00_start_here", "02_one_family"):
        path = Path(executed) / name / "results.json"
        if not path.is_file():
            raise ValueError(f"no {path}: `drrl notebooks {name[:2]} --out {executed}` leaves it")
        results[name[3:]] = json.loads(path.read_text(encoding="utf-8"))
    scores = np.array([-0.4, 0.0, 0.3, 0.8])  # of 00, by hand
    folder = Path(__file__).with_name("templates")
    space = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    space.filters |= {
        "digits": lambda value, places=3: f"{value:.{places}f}",
        "figures": lambda value, places=4: f"{value:.{places}g}",
        "percent": lambda value, places=0: f"{value:.{places}%}",
    }
    test = {name: run["test"]["ndcg@20"] for name, run in results["start_here"]["runs"].items()}
    return space.get_template("TEACHING.md.j2").render(
        start=results["start_here"],
        family=results["one_family"],
        dials=_dials(),
        hand=(np.exp(scores / 0.2) / np.exp(scores / 0.2).mean()).tolist(),
        ranked=sorted(test, key=test.get, reverse=True),
        test=test,
        label=label,
    )


def write(executed: str | Path, target: str | Path) -> None:
    """Write `page(executed)` to a file.

    Example: `write("out/notebooks", "notebooks/TEACHING.md")`
    """
    write_whole(Path(target), page(executed).encode())
