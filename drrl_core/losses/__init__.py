"""Every loss of the paper, 'Advancing Loss Functions in Recommender Systems' (AAAI 2025), and more.

One value an example; the caller takes the mean. Throughout, `pos` is (B,) and holds the score of
each example's positive item; `neg` is (B, N) and holds the scores of its negatives. A score of -inf
marks a masked negative: it counts for nothing, and every "mean over the negatives" is over the
others, of which a row has at least one. Scores are cosines in [-1, 1] where the registry says
`cosine`, dot products otherwise. Scores in float16 or bfloat16 are computed with in float32.

Wrong shapes, integer scores and missing indices are a ValueError. So are, on a CPU, a row without
an unmasked negative and an index out of range; on a GPU, and within torch.compile and torch.func,
nobody looks at values: a GPU would wait at every step.

Derivatives for the scores are right to every order, in reverse and forward mode and within
torch.func. A dual variable's gradient is not the plain derivative (see below).

Modules: `pointwise` (MSE, BCE, gBCE, BPR), `softmax` (SL, InfoNCE, BSL, PSL, AdvInfoNCE),
`truncating` (CCL, LLPAUC), `drrl` (DrRL, two-sided DrRL), `per_user` (SL@K, Talos, Adap-τ); each
has its entry in `registry`. `drrl_core.register` adds your own.

Where to start: `sl` with a temperature of 0.1 to 0.3; then `drrl` with the radius and order that
`starting_points` reads off the trained scores, and dual="exact", which has nothing else to tune.

What a loss owns besides the model is a *dual variable*: a parameter of the module, trained by an
optimiser of its own at its own rate. Its gradient is the mean over the batch's examples that use
it (see `dual_rows`), reversed where it maximises, or that of a fit to the scores (`per_user`), so
that gradient descent serves them all. How it is trained, the module says itself, where it is not by
SGD at every step:

- `dual_optimiser`: "sgd" or "adam";
- `dual_rates`: by name, how many times the common rate a variable moves at;
- `dual_epochs`: the epochs, from 1, that begin with a pass over the train pairs in which the dual
  variables move and the model rests; in all other steps they rest. None: they move at every step;
- `project()`: called after each step, to clip them.

>>> import torch
>>> loss = make("sl", temperature=0.2)
>>> loss(torch.tensor([0.9]), torch.tensor([[0.1, 0.2, 0.6]]))
tensor([-1.3033])
"""

from drrl_core.losses._inputs import Batch, guarded
from drrl_core.losses._kernels import SampledScores
from drrl_core.losses._parts import dual_rows, log_prior, mean_negatives
from drrl_core.losses.registry import (
    NOTHING,
    REGISTRY,
    Loss,
    Range,
    Variant,
    construct,
    hyperparameters,
    lookup,
    make,
    variants,
    version,
)
from drrl_core.losses.weights import mass, negative_weights, slopes, weights_of

# isort: off
# The registry's order.
from drrl_core.losses.pointwise import GBCE, bce_loss, bpr_loss, mse_loss
from drrl_core.losses.softmax import (
    AdvInfoNCE,
    PooledBSL,
    bilateral_softmax_loss,
    infonce_loss,
    pairwise_softmax_loss,
    softmax_loss,
)
from drrl_core.losses.truncating import LLPAUC, cosine_contrastive_loss
from drrl_core.losses.drrl import (
    DrRL,
    TwoSided,
    drrl_kl_loss,
    drrl_loss,
    drrl_penalty_loss,
    starting_points,
)
from drrl_core.losses.per_user import AdapTau, SLatK, Talos
# isort: on

__all__ = [
    "GBCE",
    "LLPAUC",
    "NOTHING",
    "REGISTRY",
    "AdapTau",
    "AdvInfoNCE",
    "Batch",
    "DrRL",
    "Loss",
    "PooledBSL",
    "Range",
    "SLatK",
    "SampledScores",
    "Talos",
    "TwoSided",
    "Variant",
    "bce_loss",
    "bilateral_softmax_loss",
    "bpr_loss",
    "construct",
    "cosine_contrastive_loss",
    "drrl_kl_loss",
    "drrl_loss",
    "drrl_penalty_loss",
    "dual_rows",
    "guarded",
    "hyperparameters",
    "infonce_loss",
    "log_prior",
    "lookup",
    "make",
    "mass",
    "mean_negatives",
    "mse_loss",
    "negative_weights",
    "pairwise_softmax_loss",
    "slopes",
    "softmax_loss",
    "starting_points",
    "variants",
    "version",
    "weights_of",
]
