"""Distributionally robust optimisation over Rényi balls: one family, two dials.

With P uniform over the n scores f of a row, the family is

    R(f) = max { E_Q f : D_γ(Q‖P) <= ρ },    Q_j = w_j P_j,    mean of w = 1,

where dial one is the order γ in [1, ∞] of the Rényi divergence (1: Kullback–Leibler, ∞: worst-case
regret) and dial two the radius ρ >= 0. :func:`worst_case` solves it exactly for a batch of rows.
Four units are in use: score, nats (radius), dimensionless (order, weight c, share) and probability
ratio (w, of mean 1).
"""

from ._solver import WorstCase
from .ball import HOLDS, dual_objective, turn, worst_case
from .sizes import (
    breakdown_point,
    eta_from_radius,
    k2,
    order_conj,
    radius_from_eta,
    radius_from_weight,
    radius_of_margin,
    radius_of_temperature,
    radius_of_weights,
    weight_from_radius,
)

__all__ = [
    "HOLDS",
    "WorstCase",
    "breakdown_point",
    "dual_objective",
    "eta_from_radius",
    "k2",
    "order_conj",
    "radius_from_eta",
    "radius_from_weight",
    "radius_of_margin",
    "radius_of_temperature",
    "radius_of_weights",
    "turn",
    "weight_from_radius",
    "worst_case",
]
