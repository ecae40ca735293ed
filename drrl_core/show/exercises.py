"""Exercises whose answers a cell checks: it says right, or why not, and never the answer."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from drrl_core import dro


class Exercise(NamedTuple):
    """What is asked for, worked out; and what is often answered instead.

    Attributes:
        right: the answer. because: what to see in it.
        slips: why an answer is wrong -> that answer.
        hint: for any other answer.
    """

    right: Callable[[], float]
    because: str
    slips: dict[str, float]
    hint: str


def _heard() -> float:
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=1000))
    worst = dro.worst_case(scores, order=math.inf, radius=math.log(4))
    return 1000 * (1 - float(worst.truncated))


EXERCISES = {
    "heard": Exercise(
        _heard,
        "At order ∞ the share that is heard is exp(-ρ), whatever the scores are.",
        {
            "So many have weight zero: the question is for the others.": 750,
            "That is how many times the mean each of them counts, exp(ρ).": 4,
            "Nobody is cut off at order 1; this is order ∞.": 1000,
        },
        "No probability may grow by more than exp(ρ): how few can share all of it?",
    ),
    "weight": Exercise(
        lambda: float(dro.weight_from_radius(1.2, 2)),
        "c = exp(ρ/γ*), and at order 2 γ* is 2.",
        {
            "That is exp(ρ), the weight at order ∞, where γ* is 1.": math.exp(1.2),
            "c = 1 is radius 0: no ball at all.": 1,
            "That is log c.": 0.6,
            "γ* divides the radius, it does not multiply it.": math.exp(2.4),
        },
        "c = exp(ρ/γ*) with γ* = γ/(γ-1).",
    ),
    "drawn": Exercise(
        lambda: 0.1 * math.exp(1),
        "No weight exceeds exp(ρ), so a share r draws at most r·exp(ρ).",
        {
            "That is the most that one of them weighs: times how many there are?": math.exp(1),
            "So much they draw of P, where all are alike.": 0.1,
            "That is the limit at order 2; at order ∞ γ* is 1.": math.sqrt(0.1 * math.exp(1)),
            "At this share of false negatives the ball breaks down: another question.": math.exp(
                -1
            ),
        },
        "The limit is (r·exp(ρ))^(1/γ*), and a share lies in [0, 1].",
    ),
}


def check(name: str, answer: float | None) -> None:
    """Print whether an answer is right, and if not, why.

    Args:
        name: of the exercise, a key of `EXERCISES`.
        answer: a number, right within half a percent; None where there is none yet.

    Raises: KeyError: no such exercise.

    >>> check("weight", 3.32)
    Not yet. That is exp(ρ), the weight at order ∞, where γ* is 1.
    """
    asked = EXERCISES[name]

    def near(value: float) -> bool:
        return math.isclose(float(answer), value, rel_tol=0.005)

    if answer is None:
        print("No answer yet: put a number in place of None, and run the cell.")
    elif not isinstance(answer, int | float | np.number | torch.Tensor):
        print(f"A number is asked for, not {answer!r}.")
    elif near(asked.right()):
        print(f"Right. {asked.because}")
    else:
        why = next((why for why, value in asked.slips.items() if near(value)), asked.hint)
        print(f"Not yet. {why}")
