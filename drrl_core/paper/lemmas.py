"""The paper's lemmas: its formulas as printed, checked against the solver on the spot.

Each is a claim as in `claims`, whose margin is the difference between the two sides. The scores are
fixed and have no ties. They need no records: `scorecard.build` checks them each time.
"""

import math
from functools import partial

import numpy as np
import torch

from drrl_core import dro
from drrl_core.paper.claims import Claim, at_most, claim
from drrl_core.paper.evidence import Evidence

SCORES = np.sin(np.arange(1, 201) ** 2.0) / 4
ORDER, RADIUS = 2.5, 1.2  # γ and ρ
ORDER_CONJ = ORDER / (ORDER - 1)  # γ*
WEIGHT = math.exp(RADIUS / ORDER_CONJ)  # c

LEMMAS: dict[str, Claim] = {}


def _once(e: Evidence) -> list:
    """One check, whatever was measured; none of the paper's tables, which cannot tell."""
    return [] if e.printed else [None]


lemma = partial(
    claim,
    where=_once,
    judge=at_most(1e-6),
    command="python -m pytest tests/test_dro.py",
    registry=LEMMAS,
)


def _worst(order: float, radius: float) -> dro.WorstCase:
    """The solver's worst case."""
    return dro.worst_case(torch.from_numpy(SCORES), order=order, radius=radius)


def _dual(beta: float) -> float:
    """The objective of Eq. 10."""
    excess = np.maximum(SCORES - beta, 0)
    return beta + WEIGHT * (excess**ORDER_CONJ).mean() ** (1 / ORDER_CONJ)


@lemma("Lemma 1")
def lemma_1_sl(e, _):
    """SL is DRO on the negatives within a ball of KL-divergence."""
    tau = 0.2
    weights = np.exp(SCORES / tau) / np.exp(SCORES / tau).mean()
    radius = (weights * np.log(weights)).mean()  # of the ball that belongs to τ
    loss = tau * radius + tau * math.log(np.exp(SCORES / tau).mean())
    return abs(loss - _worst(1, radius).value.item())


@lemma("Lemma 1")
def lemma_1_ccl(e, _):
    """CCL, at its best margin, is DRO within a ball of worst-case regret of radius log α."""
    alpha, beta = 10, np.sort(SCORES)[-20]  # the 20th highest of 200
    loss = beta + alpha * np.maximum(SCORES - beta, 0).mean()
    return abs(loss - _worst(math.inf, math.log(alpha)).value.item())


@lemma("Lemma 2")
def lemma_2(e, _):
    """DrRL's worst case is the minimum over β of Eq. 10."""
    from scipy.optimize import minimize_scalar

    lowest = minimize_scalar(_dual, bounds=(-2, SCORES.max()), options={"xatol": 1e-12}).fun
    return abs(lowest - _worst(ORDER, RADIUS).value.item())


@lemma("Lemma 3", note="with E w = 1, for which E Q* = 1 is printed")
def lemma_3(e, _):
    """The worst-case weights are polynomial in the scores, Eq. 11."""
    worst = _worst(ORDER, RADIUS)
    excess = np.maximum(SCORES - worst.dual.item(), 0)
    weights = WEIGHT * excess ** (1 / (ORDER - 1)) / (excess**ORDER_CONJ).mean() ** (1 / ORDER)
    return np.abs(weights - worst.weights.numpy()).max()


@lemma("DrRL, subsumes SL and CCL", note="at one ρ; at one η not CCL")
def limits(e, _):
    """DrRL → SL as γ → 1, and DrRL → CCL as γ → ∞."""
    pairs = ((1 + 1e-7, 1), (1e7, math.inf))
    return max(abs(_worst(a, RADIUS).value - _worst(b, RADIUS).value).item() for a, b in pairs)


@lemma("DrRL, learnable β")
def convex(e, _):
    """The objective is convex in β."""
    heights = np.array([_dual(beta) for beta in np.linspace(-2, SCORES.max(), 401)])
    return max(0.0, (heights[1:-1] - (heights[:-2] + heights[2:]) / 2).max())
