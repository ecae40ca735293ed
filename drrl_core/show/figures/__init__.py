"""Every figure of the suite: a function that takes tables and returns a `Figure`."""

from drrl_core.show.figures.comparison import (
    accuracy_as_b_turns,
    accuracy_by_cost,
    accuracy_by_group,
    accuracy_by_noise,
    accuracy_by_order,
    accuracy_by_split,
    against_paper,
    breakdown,
    metrics_by_loss,
)
from drrl_core.show.figures.data import popularity_and_activity, popularity_by_split, recommended
from drrl_core.show.figures.family import (
    along_orders,
    order_strip,
    orders_by_user,
    radii_tried,
    scores_of_users,
    users_by_loss,
    weights_by_score,
)
from drrl_core.show.figures.training import (
    BETA_LABELS,
    gradient_descents,
    learning_curves,
    margins_by_variant,
    margins_over_epochs,
    training_history,
)

__all__ = [
    "BETA_LABELS",
    "accuracy_as_b_turns",
    "accuracy_by_cost",
    "accuracy_by_group",
    "accuracy_by_noise",
    "accuracy_by_order",
    "accuracy_by_split",
    "against_paper",
    "along_orders",
    "breakdown",
    "gradient_descents",
    "learning_curves",
    "margins_by_variant",
    "margins_over_epochs",
    "metrics_by_loss",
    "order_strip",
    "orders_by_user",
    "popularity_and_activity",
    "popularity_by_split",
    "radii_tried",
    "recommended",
    "scores_of_users",
    "training_history",
    "users_by_loss",
    "weights_by_score",
]
