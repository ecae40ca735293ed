"""What a data set says of popularity before any loss is trained on it: a rule, in seconds.

A stand-in is solved in closed form (`classical.spectrum`, compared by cosines as the losses'
embeddings are) and ranked with popularity put back (`train.popularity`), at b₀, the best on valid.
Whatever the model, the lists that are best on valid are about as popular: so much is told by the
stand-in. How much popularity a trained loss lacks until then differs by loss; of Softmax Loss:

- b is about 0.4·b₀;
- a push of 1 + b/2 takes it there in training;
- its best lists are about as popular as the stand-in's.

The two numbers were read off three data sets (Amazon Beauty, Electronics, Electronics by time). The
rule was then written down for two others before any loss was trained there:
`data/results/predictions.csv`, judged by `paper.predictions`. There the popularity held, and b and
push did not: Softmax Loss needed less, or none.
"""

from typing import Any

import numpy as np
from scipy.stats import spearmanr

from drrl_core import classical, datasets
from drrl_core.train import popularity

SHARE_OF_B, PUSH_OF_B = 0.4, 0.5


def expected(data: datasets.Interactions) -> dict[str, Any]:
    """What is to be expected of popularity on these data.

    Args:
        data: with valid pairs; test pairs are not looked at.

    Returns:
        density: the share of all pairs that are train pairs. stable: Spearman's rank correlation of
        the items' train and valid pairs, over the items with a train pair; near 0, what is popular
        changes from train to valid. stand_in: its b₀, its valid NDCG@20 and the mean popularity
        of its valid users' 20 best, without and with b₀. b, push, mean_popularity: what the rule
        says of Softmax Loss.

    Raises:
        ValueError: there are no valid pairs.

    >>> found = expected(datasets.load("synthetic"))
    >>> found["push"] == round(1 + found["b"] / 2, 2)
    True
    """
    train, valid = data.train, data.valid
    if not valid.nnz:
        raise ValueError(f"{data.name} has no valid pairs: there is nothing to choose b by")
    ranked = popularity.by_tables(*classical.spectrum(train), train, similarity="cosine")
    # valid stands in for test, so that test has no part even in what is told
    with_b = popularity.report(ranked, train, valid, valid)
    before, after = (np.bincount(each.indices, minlength=train.shape[1]) for each in (train, valid))
    without = popularity.curve(ranked, train, valid, valid, strengths=[0.0]).iloc[0]
    b = round(SHARE_OF_B * with_b["b"], 2)
    wanted = with_b["lists_b"]["mean_popularity"]
    return {
        "density": train.nnz / (train.shape[0] * train.shape[1]),
        "stable": float(spearmanr(before[before > 0], after[before > 0]).statistic),
        "stand_in": {
            "b": with_b["b"],
            "ndcg@20": (float(without["valid_ndcg@20"]), with_b["valid"]["ndcg@20"]),
            "mean_popularity": (float(without["mean_popularity"]), wanted),
        },
        "b": b,
        "push": round(1 + PUSH_OF_B * b, 2),
        "mean_popularity": wanted,
    }


def lines(found: dict[str, Any]) -> list[str]:
    """What `expected` found, in words.

    >>> lines(expected(datasets.load("synthetic")))[-1].startswith("expect the best lists")
    True
    """
    own = found["stand_in"]
    (accuracy, better), (before, after) = own["ndcg@20"], own["mean_popularity"]
    return [
        f"density {found['density']:.2%}; what is popular in train and in valid correlates by "
        f"{found['stable']:.2f} (Spearman)",
        f"a stand-in (SVD, cosines) ranks valid best with b = {own['b']:g}: NDCG@20 "
        f"{accuracy:.4f}, with b {better:.4f}; mean popularity of its lists {before:.0f}, with b "
        f"{after:.0f}",
        f"expect the best lists, of any loss, to be about {found['mean_popularity']:.0f} popular; "
        f"of Softmax Loss b about {found['b']:g} after training, or push about {found['push']:g} "
        "in training (on two further data sets the first held, b was lower)",
    ]
