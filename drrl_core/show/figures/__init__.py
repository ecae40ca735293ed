"""Every figure of the suite: a function that takes tables and returns a `Figure`."""

from drrl_core.show.figures.comparison import (
    accuracy_moved,
    against_paper,
    along_dial,
    along_noise,
    breakdown,
    by_group,
    metrics_by_loss,
)
from drrl_core.show.figures.data import popularity_and_activity, popularity_moved, recommended
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
    VARIANTS,
    descents,
    learning_curves,
    margins_by_variant,
    margins_over_epochs,
    training_history,
)

__all__ = [
    "VARIANTS",
    "accuracy_moved",
    "against_paper",
    "along_dial",
    "along_noise",
    "along_orders",
    "breakdown",
    "by_group",
    "descents",
    "learning_curves",
    "margins_by_variant",
    "margins_over_epochs",
    "metrics_by_loss",
    "order_strip",
    "orders_by_user",
    "popularity_and_activity",
    "popularity_moved",
    "radii_tried",
    "recommended",
    "scores_of_users",
    "training_history",
    "users_by_loss",
    "weights_by_score",
]
