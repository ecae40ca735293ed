"""Training learns, repeats itself bit by bit, stops by the protocol, and says why it fails."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array
from torch import nn
from torch.nn.functional import normalize

from drrl_core import backbones, losses, trainer
from drrl_core.datasets import Interactions
from drrl_core.losses import Batch
from drrl_core.sampling import Sampler
from drrl_core.trainer import DivergedError, TrainConfig, fit, resolve_device

QUICK = TrainConfig(
    epochs=3, batch_size=128, negatives=16, lr=0.05, evaluate_every=1, mask="train+valid"
)


def planted(n_users: int = 40, n_items: int = 100) -> Interactions:
    """Even users like even items, odd users odd ones: who has seen that ranks without a fault.

    Of the 50 items a user likes, 30 are in train, 10 in valid and 10 in test.
    """
    rng = np.random.default_rng(0)
    parts = np.zeros((3, n_users, n_items))
    for user in range(n_users):
        liked = rng.permutation(np.arange(user % 2, n_items, 2))
        for part, items in zip(parts, np.split(liked, [30, 40]), strict=True):
            part[user, items] = 1
    return Interactions("planted", n_users, n_items, *map(csr_array, parts))


def without(data: Interactions, *splits: str) -> Interactions:
    return replace(data, **{split: csr_array(data.train.shape) for split in splits})


def model_for(data: Interactions, seed: int = 0, dim: int = 8) -> nn.Module:
    torch.manual_seed(seed)
    return backbones.make("mf", n_users=data.n_users, n_items=data.n_items, dim=dim)


def loss_for(data: Interactions, name: str, seed: int = 0, **hyper) -> nn.Module:
    torch.manual_seed(seed)
    return losses.make(name, n_users=data.n_users, n_items=data.n_items, **hyper)


def trained(data, loss="sl", config=QUICK, *, seed=0, hyper=None, **options):
    """Model, loss and fit of one training."""
    model = model_for(data, seed)
    if isinstance(loss, str):
        loss = loss_for(data, loss, **hyper or {})
    return model, loss, fit(model, loss, data, config, progress=False, **options)


# ---------------------------------------------------------------------------- it learns


@pytest.mark.parametrize("name", losses.REGISTRY)
def test_every_loss_solves_the_planted_set(name):
    line = losses.lookup(name)
    more = {"similarity": line.similarity, "negatives": min(line.negatives, 16)}
    config = replace(QUICK, **more, epochs=40, evaluate_every=5)
    # A temperature made for thousands of items is too low for a hundred.
    warm = {"temperature": 0.5} if losses.hyperparameters(name).get("temperature") else {}
    *_, result = trained(planted(), name, config, hyper=warm)
    assert result.test["recall@20"].mean() > 0.98 and result.test["ndcg@20"].mean() > 0.98


def test_an_untrained_model_does_not_solve_the_planted_set():
    *_, result = trained(planted(), config=replace(QUICK, epochs=1, lr=1e-9))
    assert result.test["recall@20"].mean() < 0.5


def test_mask_decides_what_the_test_ranking_leaves_out():
    data = planted()
    config = replace(QUICK, epochs=8)
    warm = {"temperature": 0.5}
    clean = trained(data, config=config, hyper=warm)[2]
    crowded = trained(data, config=replace(config, mask="train"), hyper=warm)[2]
    assert clean.valid.equals(crowded.valid)
    assert clean.test["ndcg@20"].mean() > 0.97
    assert crowded.test["ndcg@20"].mean() < 0.8  # ten valid items stand among the ten of test


# ---------------------------------------------------------------------------- it repeats itself


def fingerprint(model, loss, result):
    tables = [value.clone() for value in (*model.parameters(), *loss.parameters())]
    return tables, result.history.drop(columns="seconds"), result.valid, result.test


@pytest.mark.parametrize("name", ["sl", "drrl", "advinfonce"])
def test_one_seed_gives_the_same_bits_twice_and_another_seed_others(name):
    data = planted()
    first = fingerprint(*trained(data, name))
    torch.rand(100)  # whatever the global generator did in between
    again = fingerprint(*trained(data, name))
    assert all(map(torch.equal, first[0], again[0]))
    assert all(a.equals(b) for a, b in zip(first[1:], again[1:], strict=True))
    # The same start, other batches.
    other = fingerprint(*trained(data, name, replace(QUICK, seed=1)))
    assert not any(map(torch.equal, first[0], other[0]))
    assert not first[1].equals(other[1])


def test_training_leaves_the_global_generator_alone():
    data = planted()
    model, loss = model_for(data), loss_for(data, "sl")
    before = torch.get_rng_state()
    fit(model, loss, data, QUICK, progress=False)
    assert torch.equal(before, torch.get_rng_state())


# ---------------------------------------------------------------------------- it stops in time


class Script:
    """Stands in for `metrics.evaluate`: plays given valid scores, keeps what it was shown.

    Tables it has seen on valid score what they did.
    """

    def __init__(self, data, scores):
        self.data, self.scores, self.tables, self.tested = data, scores, [], []

    def __call__(self, users, items, target, *, masks, **_):
        valid, shown = target is self.data.valid, (users.clone(), items.clone())
        assert masks[0] is self.data.train and len(masks) == (1 if valid else 2)
        score = 0.25
        if valid:
            known = [n for n, seen in enumerate(self.tables) if all(map(torch.equal, seen, shown))]
            if not known:
                known = [len(self.tables)]
                self.tables.append(shown)
            score = self.scores[known[0]]
        else:
            self.tested.append(shown)
        return pd.DataFrame({"recall@20": [0.5], "ndcg@20": [score]})


PROTOCOL = {
    # name: (settings, valid scores, epochs evaluated, best epoch, last epoch)
    "always gaining": ({"epochs": 6, "evaluate_every": 2}, [0.1, 0.2, 0.3], [2, 4, 6], 6, 6),
    "last is evaluated": ({"epochs": 5, "evaluate_every": 2}, [0.1, 0.2, 0.3], [2, 4, 5], 5, 5),
    "fewer than one round": ({"epochs": 2, "evaluate_every": 5}, [0.1], [2], 2, 2),
    "patience": (
        {"epochs": 50, "evaluate_every": 2, "patience": 3},
        [0.1, 0.3, 0.2, 0.25, 0.1],
        [2, 4, 6, 8, 10],
        4,
        10,
    ),
    "saved by the last one": (
        {"epochs": 5, "evaluate_every": 1, "patience": 3},
        [0.2, 0.1, 0.1, 0.3, 0.1],
        [1, 2, 3, 4, 5],
        4,
        5,
    ),
    "patience of one": ({"evaluate_every": 1, "patience": 1}, [0.2, 0.1], [1, 2], 1, 2),
    "never a hit": (
        {"evaluate_every": 3, "patience": 2, "epochs": 99},
        [0.0, 0.0, 0.0],
        [3, 6, 9],
        3,
        9,
    ),
    "small gains add up": (
        {"evaluate_every": 1, "patience": 3, "min_gain": 0.1, "epochs": 9},
        [0.2, 0.25, 0.29, 0.35, 0.44, 0.445, 0.4],
        [1, 2, 3, 4, 5, 6, 7],
        4,
        7,
    ),
    "a gain must be larger": (
        {"evaluate_every": 1, "patience": 2, "min_gain": 0.25},
        [0.25, 0.5, 0.5],
        [1, 2, 3],
        1,
        3,
    ),
    "a gain no score can reach": (
        {"evaluate_every": 1, "patience": 2, "min_gain": 2.0},
        [0.3, 0.9, 0.9],
        [1, 2, 3],
        1,
        3,
    ),
}


@pytest.mark.parametrize("case", PROTOCOL)
def test_early_stopping_follows_the_protocol(case, monkeypatch):
    settings, scores, evaluated, best, last = PROTOCOL[case]
    data = planted(n_users=6)
    script = Script(data, scores)
    monkeypatch.setattr(trainer.metrics, "evaluate", script)
    rows, betas = [], []

    def on_epoch(row):
        rows.append(dict(row))
        betas.append(loss.beta.detach().clone())

    loss = loss_for(data, "drrl", weight=2.0, start=0.0)
    config = replace(QUICK, dual_lr=0.1, **settings)
    model, _, result = trained(data, loss, config, on_epoch=on_epoch)
    assert (result.best_epoch, len(result.history)) == (best, last)
    seen = [row["epoch"] for row in rows if "ndcg@20" in row]
    assert seen == evaluated and len(script.tables) == len(scores)
    assert result.history["ndcg@20"].dropna().tolist() == scores
    # Model and loss are what they were at the best epoch, and that is what is tested.
    at_best = script.tables[evaluated.index(best)]
    assert all(map(torch.equal, model(), at_best))
    assert torch.equal(loss.beta, betas[best - 1])
    (tested,) = script.tested
    assert all(map(torch.equal, tested, at_best))
    assert result.valid["ndcg@20"].item() == scores[evaluated.index(best)]
    if best < last:
        assert not torch.equal(loss.beta, betas[-1])


def test_on_epoch_gets_the_rows_of_the_history():
    rows = []
    config = replace(QUICK, evaluate_every=2)
    *_, result = trained(planted(), config=config, on_epoch=lambda row: rows.append(dict(row)))
    assert pd.DataFrame(rows).equals(result.history)
    assert list(result.history) == ["epoch", "loss", "seconds", "recall@20", "ndcg@20"]
    assert result.history["epoch"].tolist() == [1, 2, 3]
    assert result.history["ndcg@20"].isna().tolist() == [True, False, False]
    assert 0 < result.history["seconds"].sum() <= result.seconds


def test_the_model_is_evaluated_in_evaluation_mode_and_left_in_training_mode():
    data, modes = planted(), []

    class Watched(backbones.MF):
        def forward(self):
            modes.append((self.training, torch.is_grad_enabled()))
            return super().forward()

    model = Watched(data.n_users, data.n_items, dim=4)
    fit(model, loss_for(data, "sl"), data, replace(QUICK, epochs=2), progress=False)
    steps = math.ceil(data.train.nnz / QUICK.batch_size)
    epoch, evaluated = [(True, True)] * steps, [(False, False)]
    assert modes == (epoch + evaluated) * 2 + evaluated * 2 and model.training


# ---------------------------------------------------------------------------- odd data


def test_without_valid_pairs_every_epoch_runs_and_the_last_is_kept():
    data, seen = without(planted(), "valid"), []
    model = model_for(data)
    config = replace(QUICK, epochs=9, patience=1)
    options = {"on_epoch": lambda _: seen.append(model.users.detach().clone()), "progress": False}
    result = fit(model, loss_for(data, "sl"), data, config, **options)
    assert (result.best_epoch, len(result.history)) == (9, 9)
    assert len(result.valid) == 0 and result.history["ndcg@20"].isna().all()
    assert torch.equal(model.users, seen[-1]) and not torch.equal(seen[-1], seen[-2])
    assert result.test["recall@20"].mean() > 0.8


def test_without_test_pairs_the_test_table_is_empty():
    result = trained(without(planted(), "test"))[2]
    assert result.test.shape[0] == 0 and len(result.valid) == 40


def test_without_train_pairs_there_is_nothing_to_learn_from():
    with pytest.raises(ValueError, match="planted has no train pairs"):
        trained(without(planted(), "train"))


def test_a_user_without_a_possible_negative_is_refused():
    data = planted(n_users=4)
    train = data.train.toarray()
    train[2] = 1
    with pytest.raises(ValueError, match="planted: user 2 has a train pair with every one"):
        trained(replace(data, train=csr_array(train)))


def test_users_and_items_without_train_pairs_stay_where_they_were():
    data = planted()
    train = data.train.toarray()
    train[7], train[:, 9] = 0, 0
    data = replace(data, train=csr_array(train))
    model, _, result = trained(data, config=replace(QUICK, epochs=1))
    start = model_for(data)
    assert torch.equal(model.users[7], start.users[7]) and 7 in result.test.index
    assert not torch.equal(model.users[6], start.users[6])


def test_a_batch_larger_than_the_data_is_one_step():
    data = planted()
    counted = Scripted([1.0] * 99)
    trained(data, counted, replace(QUICK, epochs=2, batch_size=10**6))
    assert counted.steps == 2


# ---------------------------------------------------------------------------- the objective


def a_batch(data: Interactions, count: int = 5, batch_size: int = 10**6) -> Batch:
    """The first batch of epoch 1 at seed 0."""
    return next(Sampler(data, batch_size=batch_size, count=count).epoch(0, 1))


def naive_l2(users, items, batch) -> torch.Tensor:
    """(‖e_u‖² + ‖e_i‖² + mean_j ‖e_j‖²) / 2, mean over the batch."""
    total = 0
    for user, item, negatives in zip(*batch[:3], strict=True):
        mean = sum((items[j] ** 2).sum() for j in negatives) / len(negatives)
        total = total + ((users[user] ** 2).sum() + (items[item] ** 2).sum() + mean) / 2
    return total / len(batch.users)


def test_l2_is_the_naive_formula_in_value_and_gradient():
    data = planted(n_users=4)
    model, batch = model_for(data).double(), a_batch(data, batch_size=20)
    values, gradients = [], []
    for value in (trainer._l2(model, batch, 1.0), naive_l2(model.users, model.items, batch)):
        values.append(value.item())
        gradients.append(torch.autograd.grad(value, tuple(model.parameters())))
    assert values[0] == pytest.approx(values[1], rel=1e-12)
    for ours, naive in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, naive, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_l2_is_added_to_the_loss_and_acts_on_raw_embeddings(similarity):
    data = planted(n_users=4)
    config = replace(QUICK, epochs=1, batch_size=10**6, negatives=5, similarity=similarity)
    plain = trained(data, config=config)[2].history["loss"].item()
    held = trained(data, config=replace(config, l2=0.7))[2].history["loss"].item()
    start = model_for(data)
    expected = 0.7 * naive_l2(start.users, start.items, a_batch(data)).item()
    assert held - plain == pytest.approx(expected, rel=1e-4) and expected > 0.05


def test_l2_shrinks_the_embeddings():
    sizes = [
        trained(planted(), config=replace(QUICK, l2=l2))[0].items.norm().item() for l2 in (0, 1.0)
    ]
    assert sizes[1] < 0.9 * sizes[0]


def naive_scores(rows, table, index, cosine):
    table = normalize(table, dim=-1) if cosine else table
    return torch.bmm(table[index], rows[..., None]).squeeze(-1)


SHAPES = {
    "usual": (20, 50, 8, 6),
    "one row": (1, 50, 8, 6),
    "duplicates": (9, 4, 8, 4),
    "one row of duplicates": (1, 3, 2, 3),
    "more negatives than items": (5, 4, 8, 30),
    "one item": (6, 1, 3, 1),
}


@pytest.mark.parametrize("cosine", [False, True], ids=["dot", "cosine"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("slope", ["dense", "expanded"])
def test_sampled_scores_are_gather_and_bmm(shape, slope, cosine):
    n_rows, n_items, d, count = SHAPES[shape]
    rng = torch.Generator().manual_seed(0)
    rows, table, weights = (
        torch.randn(size, dtype=torch.float64, generator=rng)
        for size in ((n_rows, d), (n_items, d), (n_rows, count))
    )
    index = torch.randint(n_items, (n_rows, count), generator=rng)
    weights = weights if slope == "dense" else torch.ones(()).double().expand(n_rows, count)
    leaves = rows.requires_grad_(), table.requires_grad_()
    with torch.sparse.check_sparse_tensor_invariants():  # which a user may have switched on
        ours = trainer._SampledScores.apply(*leaves, index, cosine)
        gradients = torch.autograd.grad((ours * weights).sum(), leaves)
    naive = naive_scores(*leaves, index, cosine)
    torch.testing.assert_close(ours, naive, rtol=1e-12, atol=1e-12)
    expected = torch.autograd.grad((naive * weights).sum(), leaves)
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cosine", [False, True], ids=["dot", "cosine"])
@pytest.mark.parametrize("index", [[[0, 2, 0], [1, 1, 3]], [[0, 1, 2, 3, 0, 0, 2]]])
def test_sampled_scores_pass_gradcheck(index, cosine):
    index, rng = torch.tensor(index), torch.Generator().manual_seed(1)
    rows, table = (
        torch.randn(n, 3, dtype=torch.float64, generator=rng, requires_grad=True)
        for n in (len(index), 4)
    )
    assert torch.autograd.gradcheck(
        lambda *leaves: trainer._SampledScores.apply(*leaves, index, cosine), (rows, table)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("index", [[[0, 1, 1]], [[1, 1, 2, 0, 1, 2]]])
def test_a_table_row_of_zeros_scores_zero_and_breaks_nothing(index, dtype):
    table = torch.tensor([[1.0, 2.0], [0.0, 0.0], [1e-30, 0.0]], dtype=dtype, requires_grad=True)
    rows, index = torch.tensor([[0.6, 0.8]], dtype=dtype, requires_grad=True), torch.tensor(index)
    scores = trainer._SampledScores.apply(rows, table, index, True)
    assert (scores[index == 1] == 0).all() and scores.isfinite().all()
    for gradient in torch.autograd.grad(scores.sum(), (rows, table)):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_scores_are_those_of_each_pair(similarity):
    data = planted(n_users=4)
    model, batch = model_for(data).double(), a_batch(data)
    pos, neg = trainer.score(*model(), batch, similarity)

    def naive(u, i):
        dot = model.users[u] @ model.items[i]
        size = model.users[u].norm() * model.items[i].norm()
        return (dot / size if similarity == "cosine" else dot).item()

    pairs = list(zip(*batch[:3], strict=True))
    assert pos.tolist() == pytest.approx([naive(u, i) for u, i, _ in pairs], rel=1e-12)
    expected = [naive(u, j) for u, _, negatives in pairs for j in negatives]
    assert neg.flatten().tolist() == pytest.approx(expected, rel=1e-9)


# ---------------------------------------------------------------------------- the duals


def slope_of_beta(model, batch, beta: float, weight: float) -> np.ndarray:
    """∂/∂β of β + c·√(mean_j (n_j - β)₊²), the DrRL loss of order 2, one value an example."""
    users, items = (t / t.norm(dim=1, keepdim=True) for t in model())
    slopes = []
    for user, _, negatives in zip(*batch[:3], strict=True):
        excess = [max((users[user] @ items[j]).item() - beta, 0) for j in negatives]
        root = math.sqrt(sum(x * x for x in excess) / len(excess))
        slopes.append(1 - weight * sum(excess) / len(excess) / root)
    return np.array(slopes)


@pytest.mark.parametrize("dual", ["learned", "shared"])
def test_beta_moves_by_the_rate_times_the_mean_slope(dual):
    data = planted(n_users=4)
    train = data.train.toarray()
    train[1, np.flatnonzero(train[1])[3:]] = 0  # users differ in how often they are in the batch
    train[3] = 0
    data = replace(data, train=csr_array(train))
    config = replace(QUICK, epochs=1, batch_size=10**6, negatives=5, dual_lr=0.1)
    hyper = {"order": 2.0, "weight": 2.0, "start": -0.5, "dual": dual}
    _, loss, _ = trained(data, "drrl", config, hyper=hyper)
    batch = a_batch(data)
    slopes = slope_of_beta(model_for(data), batch, -0.5, 2.0)
    if dual == "shared":
        expected = [-0.5 - 0.1 * slopes.mean()]
    else:
        of = batch.users.numpy()
        expected = [-0.5 - 0.1 * slopes[of == u].mean() for u in (0, 1, 2)] + [-0.5]
    assert loss.beta.tolist() == pytest.approx(expected, abs=1e-6)
    assert abs(expected[0] + 0.5) > 0.01


@pytest.mark.parametrize("frozen", [{"config": {"dual_lr": 0.0}}, {"hyper": {"dual": "fixed"}}])
def test_beta_stays_where_its_rate_is_zero_or_it_is_fixed(frozen):
    data, config = planted(), replace(QUICK, dual_lr=0.1)
    hyper = {"weight": 2.0, "start": 0.1}
    _, moved, _ = trained(data, "drrl", config, hyper=hyper)
    config = replace(config, **frozen.get("config", {}))
    model, loss, _ = trained(data, "drrl", config, hyper=hyper | frozen.get("hyper", {}))
    assert (loss.beta == 0.1).all() and not (moved.beta == 0.1).any()
    assert not torch.equal(model.users, model_for(data).users)


class Scripted(nn.Module):
    """A loss of given values, one a step; perhaps with a variable of its own, which it clips."""

    def __init__(self, values=(), own: bool = False):
        super().__init__()
        self.values, self.steps, self.seen = values, 0, []
        if own:
            self.own = nn.Parameter(torch.zeros(()))

    def forward(self, pos, neg, batch):
        value = self.values[self.steps] if self.values else 1.0
        self.steps += 1
        own = 10 * self.own if hasattr(self, "own") else 0
        return 0 * pos + value + own

    @torch.no_grad()
    def project(self):
        self.seen.append(self.own.item())
        self.own.clamp_(-0.05, 0.05)


def test_a_loss_clips_itself_after_every_step():
    data = planted()
    loss = Scripted(own=True)
    trained(data, loss, replace(QUICK, epochs=1, dual_lr=0.01, batch_size=300))
    # Each step goes down by 0.01 * 10, from zero, then from the bound.
    assert loss.steps == 4 and loss.seen == pytest.approx([-0.1, -0.15, -0.15, -0.15])
    assert loss.own.item() == pytest.approx(-0.05)


# ---------------------------------------------------------------------------- it says what failed


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_loss_that_is_not_finite_stops_training_with_the_step(value):
    data = planted()
    values = [1.0] * 10 + [1.0, 1.0, value, 2.0, math.inf] + [1.0] * 99
    with pytest.raises(DivergedError) as caught:
        trained(data, Scripted(values), replace(QUICK, l2=0.25))
    message = str(caught.value)
    assert f"epoch 2, step 3 of 10: the loss is {value:g}" in message
    assert "Scripted" in message and "lr 0.05" in message and "l2 0.25" in message


def test_parameters_that_are_not_finite_are_named():
    config = replace(QUICK, lr=1e30, similarity="dot")
    with pytest.raises(DivergedError, match=r"epoch 1, step 2 of 10.*: model\.users, model\.items"):
        trained(planted(), config=config)


def test_a_last_step_that_ruins_the_parameters_is_noticed():
    """All values of the loss are finite: the parameters alone tell."""
    config = replace(QUICK, epochs=1, batch_size=10**6, dual_lr=1e38)
    loss = Scripted(own=True)
    loss.project = lambda: loss.own.data.mul_(100)
    with pytest.raises(DivergedError, match=r"step 1 of 1: the loss is 1 .*epoch: loss\.own\."):
        trained(planted(), loss, config)


OUT_OF_RANGE = {
    "epochs": (0, "at least 1"),
    "batch_size": (0, "at least 1"),
    "negatives": (-3, "at least 1"),
    "evaluate_every": (0, "at least 1"),
    "patience": (0, "at least 1"),
    "sampler": ("pool", "'per-row', 'shared-pool', 'catalogue'"),
    "noise": (1.0, r"lie in \[0, 1\)"),
    "similarity": ("cos", "'cosine', 'dot'"),
    "lr": (0.0, r"lie in \(0, inf\)"),
    "dual_lr": (-1e-9, r"lie in \[0, inf\)"),
    "l2": (math.inf, r"lie in \[0, inf\)"),
    "min_gain": (math.nan, r"lie in \[0, inf\)"),
    "mask": ("valid", r"'train', 'train\+valid'"),
    "precision": ("tf32", "'highest', 'high', 'medium'"),
    "seed": (2**63, r"lie in \[0, 2\*\*63\)"),
}


@pytest.mark.parametrize("name", TrainConfig.__dataclass_fields__)
def test_every_setting_has_a_range(name):
    value, message = OUT_OF_RANGE[name]
    with pytest.raises(ValueError, match=f"^{name} must .*{message}, not {value!r}"):
        TrainConfig(**{name: value})


@pytest.mark.parametrize("name, value", [("lr", math.inf), ("seed", -1), ("lr", math.nan), ("noise", -0.1), ("noise", math.nan)]
)
def test_the_other_end_of_a_range(name, value):
    with pytest.raises(ValueError, match=name):
        TrainConfig(**{name: value})


@pytest.mark.parametrize("sampler", ["shared-pool", "catalogue"])
def test_noise_is_for_rows_of_negatives_only(sampler):
    with pytest.raises(ValueError, match=f"per-row sampler only, not for '{sampler}'"):
        TrainConfig(sampler=sampler, noise=0.1)


def test_devices():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "", "meta", "cuda:99", "hpu", "mps:7"])
def test_a_device_that_cannot_be_used_is_named_in_one_line(name):
    with pytest.raises(ValueError, match=f"^device '{name}' cannot be used here: ") as caught:
        resolve_device(name)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["sl", "drrl", "bpr"])
def test_the_planted_set_on_a_gpu(name):
    data = planted()
    line = losses.lookup(name)
    config = replace(QUICK, epochs=20, similarity=line.similarity, negatives=line.negatives)
    model, loss = model_for(data).to("cuda"), loss_for(data, name)
    result = fit(model, loss, data, config, progress=False)
    assert model.users.is_cuda and all(p.is_cuda for p in loss.parameters())
    assert result.test["recall@20"].mean() > 0.97
