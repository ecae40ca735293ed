"""The lesson as a story: one page for a reader who has never heard of robust losses."""

import math
from pathlib import Path
from typing import Any

import jinja2

from drrl_core.pages.html import mathml
from drrl_core.show import live

# Invented films of one user. She would love the second: she has not met it, so it counts as a
# negative like the rest.
FILMS = {
    "The Lighthouse Keeper": 0.62,
    "Night Train North": 0.55,
    "Paper Boats": 0.41,
    "A Quiet Orchard": 0.33,
    "Second Violin": 0.21,
    "The Salt Road": 0.12,
    "Glass Mountain": 0.05,
    "Three Winters": -0.03,
    "Robot Holiday": -0.14,
    "Fist of the Tiger": -0.22,
    "Zombie Prom": -0.31,
    "Exploding Trucks 4": -0.44,
}
LOVED = "Night Train North"
# A perfect model: it scores all that she would love high, and the rest low. A little apart, so
# that a histogram shows them.
PERFECT = {
    "ordinary": [round(-0.5 + 0.0001 * step, 4) for step in range(200)],
    "wrong": [round(0.5 + 0.0001 * step, 4) for step in range(200)],
}


def _scene(identity: str, name: str = "story", **state: Any) -> str:
    return live.element(name, identity=identity, **state)


def _films(identity: str, *dials: str, order: float, radius: float, reveal: bool = False) -> str:
    items = [{"name": each, "score": f, "loved": each == LOVED} for each, f in FILMS.items()]
    at = {"order": live.sent(order), "radius": radius}
    data = {"items": items, "dials": dials, "reveal": reveal} | at
    return _scene(identity, data=data, **{dial: at[dial] for dial in dials})


def page() -> str:
    """The whole page as HTML: text, explorers, formulas; it asks for nothing else.

    >>> "data-explorer" in page() and "src=" not in page()
    True
    """
    scenes = {
        "films": _films("films", order=2, radius=0.0),
        "budget": _films("budget", "radius", order=2, radius=0.0),
        "order": _films("order", "order", order=2, radius=1.0),
        "loved": _films("loved", "order", "radius", order=1, radius=1.0, reveal=True),
        "breakdown": _scene(
            "breakdown",
            "false_negatives",
            data={"views": [("a perfect model", PERFECT)]},
            noise=0.05,
            order=2,
            radius=1.0,
            scores="a perfect model",
        ),
    }
    text = Path(__file__).with_name("templates").joinpath("story.html.j2").read_text("utf-8")
    shown = jinja2.Environment(autoescape=False).from_string(text)
    return shown.render(
        scenes=scenes,
        tex=lambda formula: mathml(f"${formula}$", "inline"),
        block=lambda formula: mathml(f"$${formula}$$", "block"),
        breakdown=f"{math.exp(-1):.0%}",
    )
