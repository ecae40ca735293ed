"""Every loss equals its formula typed a second time, and keeps what a loss promises.

The battery runs over the whole registry: a new loss joins it by its registry line, and by a line of
`SETTINGS` where its defaults do not exercise it all.
"""

import math
import shutil
import subprocess
import sys
import textwrap
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drrl_core import dro, losses
from drrl_core.losses import REGISTRY, Batch, make, negative_weights, per_user
from drrl_core.testing import check_loss
from drrl_core.testing import loss_checks as battery
from drrl_core.testing.loss_checks import ITEMS, USERS, assert_same, gradients, problem

INF = math.inf

# Settings beyond the defaults.
SETTINGS = {
    "sl": [{"temperature": 0.05}, {"temperature": 2, "push": 1.3}, {"prior": -0.7}],
    "bsl": [{"temperature": 0.1, "temperature_pos": 0.3}],
    "bsl-pooled": [{"temperature": 0.1, "ratio": 0.5}],
    "ccl": [{"margin": -0.3, "weight": 2.5}, {"push": 0.6}],
    "advinfonce": [{"temperature": 0.1, "scale": 64.0, "adversary_dim": 3}],
    "drrl-two-sided": [
        {"order": 1.0, "temperature": 0.2, "order_pos": 1.0, "temperature_pos": 0.5},
        {"order": INF, "radius_pos": 0.0},
        {"order": 3.0, "order_pos": INF, "radius_pos": 0.4},
    ],
    "llpauc": [{"share_pos": 1.0, "share_neg": 0.3}],
    "psl": [{"surrogate": "atan", "temperature": 20.0}, {"surrogate": "relu", "temperature": 0.3}],
    "drrl": [
        {"order": 1.2, "weight": 3.0, "start": -0.2, "push": 1.7},
        {"order": 7.0, "radius": 1.5, "start": 0.1, "dual": "shared"},
        {"order": INF, "weight": 4.0, "start": 0.3, "dual": "fixed"},
        {"order": 2.0, "eta": 0.7, "start": 0.0, "epsilon": 0.1},
        {"order": 1.5, "temperature": 0.2, "start": 0.1, "push": 0.7},
        {"order": 1.0, "radius": 0.9, "start": 0.4, "push": 1.3},
        {"order": 1.0, "radius": 0.5, "start": 0.3, "dual": "shared"},
        {"order": 2.0, "radius": 0.9, "dual": "exact"},
        {"order": 1.0, "radius": 0.9, "dual": "exact"},
        {"order": INF, "radius": 0.9, "dual": "exact", "push": 1.4},
        {"order": 1.5, "temperature": 0.2, "dual": "exact"},
        {"order": 3.0, "weight": 3.0, "start": -0.2, "prior": 0.8},
        {"order": 1.0, "radius": 0.9, "start": 0.3, "prior": 0.8},
        {"order": 1.5, "temperature": 0.2, "start": 0.1, "prior": -1.0},
        {"order": 3.0, "radius": 0.9, "dual": "exact", "prior": 1.0},
        {"order": INF, "radius": 0.9, "dual": "exact", "prior": -0.5},
    ],
    "sl-at-k": [{"temperature": 0.5, "temperature_weight": 1.5, "share": 0.3}],
    "talos": [{"temperature": 0.05, "share": 0.3}],
    "gbce": [{"calibration": 0.0}, {"calibration": 1.0}],
    "adap-tau": [{"temperature": 0.1, "damping": 0.05}],
}
CASES = [(name, hyper) for name in REGISTRY for hyper in [{}, *SETTINGS.get(name, [])]]
# The worst a setting can be.
EXTREMES = {
    "sl": [{"temperature": 1e-3}],
    "bsl": [{"temperature": 1e-3, "temperature_pos": 1e-3}],
    "bsl-pooled": [{"temperature": 1e-3}],
    "ccl": [{"margin": 1.0}, {"margin": -1.0, "weight": 1e4}],
    "advinfonce": [{"temperature": 1e-3}],
    "llpauc": [{"share_pos": 1e-2, "share_neg": 1e-3}],
    "psl": [{"temperature": 0.025, "surrogate": s} for s in ("tanh", "atan", "relu")],
    "drrl": [
        {"order": order, "weight": 2.0, "start": start, **more}
        for order in (1001.0, 200 / 199)  # γ* = 1.001 and 200
        for start in (-1.0, 0.99, 1.0)
        for more in ({}, {"epsilon": 0.1})
    ]
    # The penalty twin's value is itself beyond float32 at a β far below the scores.
    + [{"order": 200 / 199, "temperature": 1e-3, "start": 1.0}]
    + [{"order": 200 / 199, "temperature": 1e-3, "dual": "exact"}]
    + [{"order": 1, "radius": 4.0, "start": 0.005}]
    + [{"order": order, "radius": 1.0, "dual": "exact"} for order in (1001.0, 200 / 199)],
    "sl-at-k": [{"temperature": 1e-3, "temperature_weight": 1e-3}],
    "talos": [{"temperature": 1e-3}],
    "adap-tau": [{"temperature": 1e-3, "damping": 1e-3}],
}
HARD = [(n, h) for n in REGISTRY for h in [{}, *SETTINGS.get(n, []), *EXTREMES.get(n, [])]]

# What each finds in the batch.
NEEDS = {name: ["users"] for name in ("bsl-pooled", "drrl", "sl-at-k", "talos", "adap-tau")}
NEEDS["advinfonce"] = ["users", "neg_items"]
NEEDS["drrl-two-sided"] = ["users"]


def label(case: object) -> str:
    if not isinstance(case, dict):
        return str(case)
    values = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in case.items()}
    return ",".join(f"{key}={value}" for key, value in values.items()) or "defaults"


every_case = pytest.mark.parametrize(("name", "hyper"), CASES, ids=label)
every_hard_case = pytest.mark.parametrize(("name", "hyper"), HARD, ids=label)
every_loss = pytest.mark.parametrize("name", REGISTRY)


def subject(name: str, hyper: dict) -> battery.Subject:
    line = losses.lookup(name)
    return battery.subject(line.factory, hyper, line.rowwise)


def build(name: str, hyper: dict, seed: int = 0) -> torch.nn.Module:
    """The loss, what it owns moved off its start so that no two rows are alike."""
    return subject(name, hyper).build(seed)


# ---------------------------------------------------------------------------------------------
# The formulas, typed a second time: Python numbers and loops, nothing clever


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def mean(values):
    return sum(values) / len(values)


def naive_advinfonce(p, n, s):
    hard = [sum(a * b for a, b in zip(s.g_user, g, strict=True)) for g in s.g_items]
    q = [math.exp(h) / sum(math.exp(k) for k in hard) for h in hard]
    t, K = s.get("temperature", 0.2), s.get("scale", 1)
    below = K * len(n) * sum(qj * math.exp(nj / t) for qj, nj in zip(q, n, strict=True))
    return -math.log(math.exp(p / t) / (math.exp(p / t) + below))


def naive_llpauc(p, n, s):
    def sp(x):
        return math.log(1 + math.exp(5 * x)) / 5

    a, b, g, sp_, sn, ta, tb = (
        s.own[k] for k in ("a", "b", "gamma", "s_pos", "s_neg", "theta_a", "theta_b")
    )
    P, M = sigmoid(p), [sigmoid(x) for x in n]
    positive = -sp_ - sp(-((P - a) ** 2) + 2 * (1 + g) * P - sp_) / s.get("share_pos", 0.5)
    negative = mean([sp((m - b) ** 2 + 2 * (1 + g) * m - sn) for m in M]) / s.get("share_neg", 0.05)
    return positive + sn + negative - g**2 - tb * (b - 1 - g) + ta * (a + g)


def naive_psl(p, n, s):
    t = s.get("temperature", 0.1)
    sigma = {
        "tanh": lambda x: math.tanh(x) + 1,
        "atan": lambda x: math.atan(x) + 1,
        "relu": lambda x: max(x + 1, 0),
    }[s.get("surrogate", "tanh")]
    return math.log(sum(sigma((x - p) / 2) ** (1 / t) for x in n))


def naive_drrl(p, n, s):
    order, eps, beta = s.get("order", 2.0), s.get("epsilon", 0.0), s.beta
    if "temperature" in s:
        lam, conj = s["temperature"], order / (order - 1)
        phi = [max(1 + (order - 1) * (x - beta) / lam, 0) ** conj / order - 1 / order for x in n]
        phi = [r * x for r, x in zip(s.prior, phi, strict=True)]
        return 1 - p + s.get("push", 1) * (beta + lam * mean(phi))
    if order == 1:
        tilted = [r * math.exp(x / beta) for r, x in zip(s.prior, n, strict=True)]
        tilted = beta * math.log(mean(tilted))
        return 1 - p + s.get("push", 1) * (beta * s["radius"] + tilted)
    conj = order / (order - 1) if order < INF else 1
    c = s.get("weight", 1)
    if "radius" in s:
        c = math.exp(s["radius"] / conj)
    if "eta" in s:
        c = (1 + order * (order - 1) * s["eta"]) ** (1 / order)
    powers = [(eps + c * max(x - beta, 0)) ** conj for x in n]
    norm = mean([r * x for r, x in zip(s.prior, powers, strict=True)]) ** (1 / conj)
    return 1 - p + s.get("push", 1) * (beta + norm)


def naive_sl_at_k(p, n, s):
    t = s.get("temperature", 0.2)
    weight = sigmoid((p - s.beta) / s.get("temperature_weight", 2))
    return weight * math.log(sum(math.exp((x - p) / t) for x in n))


def naive_talos(p, n, s):
    power = 1 / s.get("temperature", 0.1)
    high, low = sigmoid(p - s.beta) ** power, [sigmoid(x - s.beta) ** power for x in n]
    return -math.log(high / sum(low))


def naive_gbce(p, n, s):
    t, alpha = s.get("calibration", 0.75), min(len(n) / (ITEMS - 1), 1)
    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    logs = [math.log(sigmoid(p) ** beta), *(math.log(1 - sigmoid(x)) for x in n)]
    return -mean(logs)


def naive_adap_tau(p, n, s):
    x = max((s.level - mean(s.levels)) / s.get("damping", 1), -1 / math.e)
    low, high = -1.0, 50.0
    for _ in range(200):  # Lambert's W by bisection
        w = (low + high) / 2
        low, high = (w, high) if w * math.exp(w) < x else (low, w)
    t = s.get("temperature", 0.2)
    return -p / t + math.log(sum(math.exp(y / (t * math.exp(w))) for y in n))


def naive_two_sided(p, n, s):
    """Each side by the golden section over its dual variable."""

    def worst(scores, order, radius, temperature):
        top, low = max(scores), min(scores)
        if top == low or (radius == 0 and temperature is None):
            return mean(scores)
        if order == 1 and temperature:
            t = temperature
            return top + t * math.log(mean([math.exp((x - top) / t) for x in scores]))
        conj = order / (order - 1) if order < INF else 1
        norm = lambda b: mean([max(x - b, 0) ** conj for x in scores]) ** (1 / conj)  # noqa: E731
        return golden(lambda b: b + math.exp(radius / conj) * norm(b), -60, top)

    sides = [
        [s.get(f"{key}{end}", default) for key, default in (*size, ("temperature", None))]
        for end, size in (
            ("_pos", (("order", 2.0), ("radius", 0.5))),
            ("", (("order", 2.0), ("radius", 1.0))),
        )
    ]
    return 1 - worst(s.together, *sides[0]) + worst(n, *sides[1])


NAIVE = {
    "drrl-two-sided": naive_two_sided,
    "mse": lambda p, n, s: ((sigmoid(p) - 1) ** 2 + mean([sigmoid(x) ** 2 for x in n])) / 2,
    "bce": lambda p, n, s: (
        -(math.log(sigmoid(p)) + mean([math.log(1 - sigmoid(x)) for x in n])) / 2
    ),
    "bpr": lambda p, n, s: mean([-math.log(sigmoid(p - x)) for x in n]),
    "sl": lambda p, n, s: (
        -math.log(
            math.exp(p / s.get("temperature", 0.2))
            / sum(
                r * math.exp(x / s.get("temperature", 0.2)) for r, x in zip(s.prior, n, strict=True)
            )
            ** s.get("push", 1)
        )
    ),
    "bsl": lambda p, n, s: (
        -p / s.get("temperature_pos", 0.2)
        + s.get("temperature", 0.2)
        / s.get("temperature_pos", 0.2)
        * math.log(mean([math.exp(x / s.get("temperature", 0.2)) for x in n]))
    ),
    "bsl-pooled": lambda p, n, s: (
        -math.log(
            mean([math.exp(s.get("ratio", 1) * x / s.get("temperature", 0.2)) for x in s.together])
        )
        + s.get("ratio", 1) * math.log(mean([math.exp(x / s.get("temperature", 0.2)) for x in n]))
    ),
    "infonce": lambda p, n, s: math.log(
        1 + sum(math.exp((x - p) / s.get("temperature", 0.2)) for x in n)
    ),
    "ccl": lambda p, n, s: (
        1
        - p
        + s.get("push", 1)
        * s.get("weight", 100)
        * mean([max(x - s.get("margin", 0.4), 0) for x in n])
    ),
    "advinfonce": naive_advinfonce,
    "llpauc": naive_llpauc,
    "psl": naive_psl,
    "drrl": naive_drrl,
    "sl-at-k": naive_sl_at_k,
    "talos": naive_talos,
    "gbce": naive_gbce,
    "adap-tau": naive_adap_tau,
}


class Known(dict):
    """The settings of a case, and as attributes what the formula needs to know beside them."""


def prior_of(hyper, batch, i):
    """P of each negative of a row over their mean P."""
    p = [(1 + batch.popularity[j].item()) ** hyper.get("prior", 0) for j in batch.neg_items[i]]
    return [x / mean(p) for x in p]


def naive_row(name, hyper, loss, pos, neg, batch, i):
    known = Known(hyper)
    user, owned = batch.users[i].item(), dict(loss.named_parameters())
    known.together = [pos[k].item() for k in range(len(pos)) if batch.users[k] == user]
    known.prior = prior_of(hyper, batch, i)
    known.own = {key: value.item() for key, value in owned.items() if value.dim() == 0}
    if "items" in owned:
        known.g_user = owned["users"][user].tolist()
        known.g_items = owned["items"][batch.neg_items[i]].tolist()
    if "level" in owned:
        known.levels = owned["level"].tolist()
        known.level = known.levels[user]
    if "beta" in owned:
        known.beta = owned["beta"][user if len(owned["beta"]) > 1 else 0].item()
    return NAIVE[name](pos[i].item(), neg[i].tolist(), known)


EXACT = [h for h in SETTINGS["drrl"] if h.get("dual") == "exact"]


@pytest.mark.parametrize(("name", "hyper"), [c for c in CASES if c[1] not in EXACT], ids=label)
@pytest.mark.parametrize("count", [1, 8])
def test_value_is_the_formula(name, hyper, count):
    assert name in NAIVE, f"type the formula of {name!r} a second time, in NAIVE"
    for seed in range(5):
        loss = build(name, hyper, seed).double()
        pos, neg, batch = problem(count=count, seed=seed)
        naive = [naive_row(name, hyper, loss, pos, neg, batch, i) for i in range(len(pos))]
        value = loss(pos, neg, batch).detach()
        searched = 1e-7 if name == "drrl-two-sided" else 1e-11
        torch.testing.assert_close(
            value, torch.tensor(naive, dtype=value.dtype), rtol=1e-9, atol=searched
        )  # not 1e-15: torch's softplus(x) is x above 20, which leaves out e^-20


@pytest.mark.parametrize("case", EXACT, ids=label)
def test_exact_beta_is_the_best_one(case):
    """Golden-section search over the dual variable of each row, through the naive formula."""
    pos, neg, batch = problem(seed=3)
    value = build("drrl", case)(pos, neg, batch)
    order = case["order"]
    for i in range(len(pos)):
        p, n = pos[i].item(), neg[i].tolist()
        if order == 1:

            def objective(log_t, p=p, n=n):
                t = math.exp(log_t)
                tilted = math.log(mean([math.exp((x - max(n)) / t) for x in n])) * t + max(n)
                return 1 - p + t * case["radius"] + tilted

            best = golden(objective, -6, 6)
        else:

            def objective(beta, p=p, n=n, i=i):
                known = Known(case)
                known.beta, known.prior = beta, prior_of(case, batch, i)
                return naive_drrl(p, n, known)

            best = golden(objective, -20, 1)
        assert value[i].item() == pytest.approx(best, abs=1e-8)


def golden(function, low, high):
    """Minimum of a convex function of one number."""
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(200):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if function(a) < function(b) else (a, high)
    return function((low + high) / 2)


# ---------------------------------------------------------------------------------------------
# The battery


@every_case
@pytest.mark.parametrize("check", battery.CHECKS)
def test_the_battery(name, hyper, check):
    battery.CHECKS[check](subject(name, hyper))


@every_hard_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_finite_at_the_worst(name, hyper, dtype):
    battery.finite_at_the_worst(subject(name, hyper), dtype)


def test_pooled_positives_are_those_of_one_user():
    loss, (pos, neg, batch) = build("bsl-pooled", {}), problem()
    batch = batch._replace(users=torch.tensor([0, 0, 1, 1, 1, 4]))
    higher = pos.index_add(0, torch.tensor([0]), torch.tensor([0.1]).double())
    moved = loss(higher, neg, batch) != loss(pos, neg, batch)
    assert moved.tolist() == [True, True, False, False, False, False]
    check_loss("bsl-pooled")
    with pytest.raises(ValueError, match="own row alone"):
        check_loss("bsl-pooled", rowwise=True)


BROKEN = {  # what the battery is there to find, and by which check
    "one value": lambda pos, neg: (neg.logsumexp(-1) - pos).mean(),
    "own row alone": lambda pos, neg: neg.logsumexp(-1) - pos + pos.detach().mean(),
    "finite differences": lambda pos, neg: neg.logsumexp(-1) - pos - neg.detach().amax(-1),
    "falls as the positive rises": lambda pos, neg: pos - neg.logsumexp(-1),
    "order of the negatives": lambda pos, neg: neg.logsumexp(-1) + neg[..., 0].exp() - pos,
    "masked negative": lambda pos, neg: neg.exp().mean(-1) - pos,
    "finite at scores": lambda pos, neg: neg.logsumexp(-1) - (pos + 1).log(),
}


@pytest.mark.parametrize("what", BROKEN)
def test_the_battery_finds_what_is_broken(what):
    with pytest.raises(ValueError, match=rf"no loss that can be trained[\s\S]*{what}"):
        check_loss(BROKEN[what])


def test_the_battery_looks_before_it_calls():
    for other in (open, lambda scores: scores, textwrap.TextWrapper, torch.nn.Linear):
        with pytest.raises(ValueError, match=r"pos, neg|Module|n_users"):
            check_loss(other)
    with pytest.raises(ValueError, match="hyper-parameter scale must have"):
        check_loss(lambda pos, neg, *, scale=(): pos)


@every_case
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_agrees(name, hyper):
    loss, (pos, neg, batch) = build(name, hyper), problem(64, 16, dtype=torch.float32)
    value, grads = gradients(loss, pos, neg, batch)
    there = Batch(*(part if part is None else part.cuda() for part in batch))
    cuda_value, cuda_grads = gradients(loss.cuda(), pos.cuda(), neg.cuda(), there)
    torch.testing.assert_close(cuda_value.cpu(), value, rtol=1e-5, atol=1e-5)
    assert_same([g if g is None else g.cpu() for g in cuda_grads], grads, rtol=1e-4, atol=1e-5)


@every_case
def test_compiles_whole(name, hyper):
    torch.compiler.reset()
    loss, args = build(name, hyper), problem(dtype=torch.float32)
    value, grads = gradients(loss, *args)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    compiled_value, compiled_grads = gradients(compiled, *args)
    torch.testing.assert_close(compiled_value, value)
    assert_same(compiled_grads, grads)


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
def test_compiles_with_inductor():
    torch.compiler.reset()
    loss, args = build("drrl", {"order": 1.5, "radius": 1.0}), problem(dtype=torch.float32)
    value, grads = gradients(loss, *args)
    # One kernel or two: to compile torch's headers beforehand would take longer than they do.
    options = {"cpp_cache_precompile_headers": False}
    compiled = torch.compile(loss, fullgraph=True, options=options)
    compiled_value, compiled_grads = gradients(compiled, *args)
    torch.testing.assert_close(compiled_value, value)
    assert_same(compiled_grads, grads)


# ---------------------------------------------------------------------------------------------
# Derivatives of every order and mode, for the scores; away from kinks


@every_case
def test_second_derivatives(name, hyper):
    """In reverse and in forward mode, each over the other and over itself; and first, forward."""
    loss, (pos, neg, batch) = build(name, hyper).double(), problem()
    leaves = pos.requires_grad_(), neg.requires_grad_()
    both = {"check_fwd_over_rev": True, "check_rev_over_rev": True}
    assert torch.autograd.gradgradcheck(lambda p, n: loss(p, n, batch), leaves, **both)
    assert torch.autograd.gradcheck(
        lambda p, n: loss(p, n, batch), leaves, check_forward_ad=True, check_batched_grad=True
    )


@every_case
def test_derivatives_within_torch_func(name, hyper):
    """The same as autograd's, which `test_second_derivatives` holds against differences."""
    loss, (pos, neg, batch) = build(name, hyper).double(), problem()
    tangent = torch.linspace(-1, 1, neg.numel(), dtype=neg.dtype).view_as(neg)

    def total(n):
        return loss(pos, n, batch).sum()

    value, forward = torch.func.jvp(lambda n: loss(pos, n, batch), (neg,), (tangent,))
    torch.testing.assert_close(value, loss(pos, neg, batch))
    jacobian = torch.autograd.functional.jacobian(lambda n: loss(pos, n, batch), neg)
    torch.testing.assert_close(forward, (jacobian * tangent).sum((1, 2)))
    expected = torch.autograd.functional.hessian(total, neg)
    assert (expected.abs().max() > 1e-4) == (name != "ccl" and hyper.get("order") != INF)
    torch.testing.assert_close(torch.func.hessian(total)(neg), expected)
    for outer in (torch.func.jacfwd, torch.func.jacrev):
        for inner in (torch.func.jacfwd, torch.func.jacrev):
            torch.testing.assert_close(outer(inner(total))(neg), expected)


@every_case
def test_vmap(name, hyper):
    loss, (pos, neg, batch) = build(name, hyper).double(), problem()
    neg[0, 3:], neg[1, ::2] = -INF, -INF
    pair = torch.stack([pos, pos.flip(0)]), torch.stack([neg, neg.flip(1)])
    value = torch.func.vmap(lambda p, n: loss(p, n, batch))(*pair)
    for k in range(2):
        torch.testing.assert_close(value[k], loss(pair[0][k], pair[1][k], batch))
    if REGISTRY[name].rowwise and name not in NEEDS and "prior" not in hyper:  # a row at a time
        torch.testing.assert_close(torch.func.vmap(loss)(pos, neg), loss(pos, neg))


def test_second_derivatives_for_beta_too():
    pos, neg, _ = problem(3, 5)
    leaves = [x.requires_grad_() for x in (pos, neg, torch.tensor([-0.3, 0.1, 0.2]).double())]
    for function, hyper in (
        (losses.drrl_loss, {"order": 1.5, "weight": 2.0}),
        (losses.drrl_loss, {"order": 6.0, "weight": 2.0, "epsilon": 0.1}),
        (losses.drrl_penalty_loss, {"order": 1.5, "temperature": 0.3}),
    ):
        given_all = partial(function, **hyper)
        assert torch.autograd.gradgradcheck(given_all, leaves, check_fwd_over_rev=True)


@every_case
@pytest.mark.parametrize("mode", ["autograd", "forward"])
def test_second_derivatives_where_some_are_masked_or_all_truncated(name, hyper, mode):
    """Finite in float32, and for a masked negative zero."""
    loss = build(name, hyper)
    neg = torch.tensor([[-0.95] * 4, [0.9, 0.2, -INF, -INF], [-0.95, -INF, -INF, -INF]])
    pos, users = torch.tensor([0.9, 0.5, -0.7]), torch.tensor([0, 1, 1])
    items = torch.tensor([[0, 1, 2, 3], [1, 1, 2, 4], [5, 6, 7, 8]])
    batch = Batch(users, users, items, popularity=torch.arange(ITEMS))

    def total(n):
        return loss(pos, n, batch).sum()

    if mode == "autograd":
        second = torch.autograd.functional.hessian(total, neg)
    else:
        second = torch.func.jacfwd(torch.func.jacfwd(total))(neg)
    assert second.isfinite().all() and (second[neg == -INF] == 0).all()


def test_sampled_scores_have_one_derivative_and_say_so():
    rows, table = torch.randn(2, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    index = torch.tensor([[0, 1], [3, 3]])
    scores = losses.SampledScores.apply(rows, table, index)
    (first,) = torch.autograd.grad(scores.square().sum(), rows, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice a function"):
        first.sum().backward()
    with pytest.raises(RuntimeError, match="forward"), torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(rows, torch.ones_like(rows))
        losses.SampledScores.apply(dual, table, index)
    for bad, message in (
        ([[0, 4]], r"index goes up to 4, but must lie in \[0, 4\)"),
        ([[0, -1]], ""),
    ):
        with pytest.raises((ValueError, RuntimeError), match=message):
            losses.SampledScores.apply(rows[:1], table, torch.tensor(bad))


# ---------------------------------------------------------------------------------------------
# Many negatives, in halves


@every_case
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_more_negatives_than_a_half_counts_to(name, hyper, dtype):
    """float16 ends at 65,504; the same scores in float64 tell what is right."""
    pos, neg, batch = problem(2, 70_000, dtype=dtype)
    neg[1, 68_000:] = -INF
    loss = build(name, hyper)
    value, (pos_slope, slope, *_) = gradients(loss, pos, neg, batch)
    right, (right_pos, right_slope, *_) = gradients(loss, pos.double(), neg.double(), batch)
    close = {"rtol": 2 * torch.finfo(dtype).eps, "atol": 1e-3}
    assert value.dtype == slope.dtype == dtype
    torch.testing.assert_close(value.double(), right, **close)
    torch.testing.assert_close(pos_slope.double(), right_pos, **close)
    # Each of the slopes is near float16's least number, their sum is not.
    total = slope.double().sum(-1), right_slope.sum(-1)
    torch.testing.assert_close(*total, rtol=0.05, atol=1e-4)
    weights = negative_weights(loss, pos.float(), neg.float(), batch).sum(-1)
    torch.testing.assert_close(weights, torch.tensor([70_000.0, 68_000.0]), rtol=1e-3, atol=0)


# ---------------------------------------------------------------------------------------------
# Dual variables


def sole_gradients(loss, pos, neg, batch):
    """For each example alone, the gradient of its value for what the loss owns."""
    rows = []
    for i in range(len(pos)):
        items = batch.neg_items[i : i + 1]
        one = Batch(batch.users[i : i + 1], batch.pos_items[i : i + 1], items)
        rows.append(gradients(loss, pos[i : i + 1], neg[i : i + 1], one)[1][2:])
    return [torch.stack(parts) for parts in zip(*rows, strict=True)]


@pytest.mark.parametrize("size", [1, 7, 64])
@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("drrl", {"start": 0.1}),
        ("drrl", {"start": 0.1, "dual": "shared"}),
        ("drrl", {"order": 1.5, "temperature": 0.2}),
        ("llpauc", {}),
        ("advinfonce", {"adversary_dim": 3}),
        ("talos", {"share": 0.3}),
        ("adap-tau", {}),
    ],
    ids=label,
)
def test_dual_gradient_is_the_mean_over_the_examples_that_use_it(name, hyper, size):
    loss = build(name, hyper).double()
    pos, neg, batch = problem(size, count=3, seed=size)
    # Each negative once in a row, so that "the examples that use it" has one meaning.
    batch = batch._replace(neg_items=torch.stack([torch.randperm(ITEMS)[:3] for _ in range(size)]))
    neg[:, 0] = torch.where(torch.arange(size) % 3 == 1, -INF, neg[:, 0])
    users = torch.zeros(size, USERS).scatter_(1, batch.users[:, None], 1)
    items = torch.zeros(size, ITEMS).scatter_(1, batch.neg_items, (neg > -INF).float())
    owned = dict(loss.named_parameters())
    alone = dict(zip(owned, sole_gradients(loss, pos, neg, batch), strict=True))
    together = dict(zip(owned, gradients(loss, pos, neg, batch)[1][2:], strict=True))
    for key, value in owned.items():
        uses = torch.ones(size, 1)
        if value.dim() and len(value) > 1:
            uses = items if key == "items" else users
        weight = (uses / uses.sum(0).clamp_min(1)).double()  # (size, rows of the variable)
        expected = torch.einsum(
            "ir,ir...->r...", weight, alone[key].reshape(size, len(weight[0]), *value.shape[1:])
        )
        torch.testing.assert_close(together[key], expected.reshape(value.shape))
        assert expected.abs().max() > 1e-6


def test_dual_gradient_counts_a_negative_drawn_twice_twice():
    table = torch.zeros(3, requires_grad=True)
    index = torch.tensor([[0, 0, 1], [0, 1, 2]])
    kept = torch.tensor([[True, True, True], [True, True, False]])
    slopes = torch.tensor([[1.0, 2.0, 3.0], [6.0, 5.0, 0.0]])
    (losses.dual_rows(table, index, kept) * slopes).sum(-1).mean().backward()
    torch.testing.assert_close(table.grad, torch.tensor([3.0, 4.0, 0.0]))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.booleans())
@settings(deadline=None, derandomize=True, max_examples=50)
def test_dual_rows(index, ascend):
    """The rows themselves, bit for bit; each row's gradient the mean of its users' slopes."""
    table = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    rows = losses.dual_rows(table, torch.tensor(index), ascend=ascend)
    assert torch.equal(rows, table[index])
    slopes = torch.randn(len(index), 2, dtype=torch.float64)
    (rows * slopes).sum(-1).mean().backward()
    for row in range(5):
        used = [slopes[k] for k in range(len(index)) if index[k] == row]
        expected = sum(used) / len(used) if used else torch.zeros(2, dtype=torch.float64)
        torch.testing.assert_close(table.grad[row], -expected if ascend else expected)


# What maximises, everything else minimises.
MAXIMISES = {"advinfonce": {"users", "items"}, "llpauc": {"gamma", "s_pos"}}
# What follows the scores by a fit of its own, whatever the loss makes of it.
FITTED = {"sl-at-k": {"beta"}, "talos": {"beta"}, "adap-tau": {"level"}}


@every_case
def test_a_step_goes_the_right_way(name, hyper):
    """Plain SGD on one variable: the loss rises where the variable maximises, else it falls."""
    args = problem(32)
    for key, value in build(name, hyper).named_parameters():
        if not value.requires_grad or key in FITTED.get(name, ()):
            continue
        loss = build(name, hyper).double()
        owned = dict(loss.named_parameters())[key]
        before = loss(*args).mean()
        before.backward()
        assert owned.grad.abs().max() > 0
        torch.optim.SGD([owned], lr=1e-4 / owned.grad.abs().max().item()).step()
        rose = (loss(*args).mean() - before).item()
        assert rose != 0 and (rose > 0) == (key in MAXIMISES.get(name, ())), key


@pytest.mark.parametrize(("name", "k"), [("sl-at-k", 1), ("talos", 20)])
def test_a_learned_threshold_is_the_top_k_quantile(name, k):
    """Between the k-th and the next score, where the dual of the ball of order ∞ lies too."""
    pos, neg, batch = problem(USERS, 40, seed=k)
    batch = batch._replace(users=torch.arange(USERS))
    neg[:, ::4] = -INF
    loss = make(name, n_users=USERS, share=(k - 0.5) / 30).double()
    descent = torch.optim.Adam(loss.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.ExponentialLR(descent, 0.998)
    for _ in range(1500):
        descent.zero_grad()
        loss(pos, neg, batch).mean().backward()
        descent.step()
        schedule.step()
    ranked = neg.sort(-1, descending=True).values
    # Where k - 1/2 of 30 lie above: at the k-th score itself.
    torch.testing.assert_close(loss.beta.detach(), ranked[:, k - 1], rtol=0, atol=1e-2)
    worst = dro.worst_case(neg, order=INF, radius=math.log(30 / k))
    assert (worst.dual <= ranked[:, k - 1] + 1e-12).all()


def test_a_user_s_level_is_the_mean_loss_of_its_examples():
    pos, neg, batch = problem(12, 8)
    loss = make("adap-tau", n_users=USERS).double()
    descent = torch.optim.SGD(loss.parameters(), lr=1e-3 * loss.dual_rates["level"])
    for _ in range(300):
        descent.zero_grad()
        loss(pos, neg, batch).mean().backward()
        descent.step()
    alone = [(-p + math.log(mean([math.exp(x) for x in n]))) for p, n in zip(pos, neg, strict=True)]
    for user in range(USERS):
        of_user = [x.item() for x, u in zip(alone, batch.users, strict=True) if u == user]
        expected = mean(of_user) if of_user else 0
        assert loss.level[user].item() == pytest.approx(expected, abs=1e-6)


def test_lambert_s_function_is_scipy_s():
    special = pytest.importorskip("scipy.special")
    x = torch.cat([torch.linspace(-0.36787, 0, 200), torch.logspace(-6, 5, 200)]).double()
    expected = torch.from_numpy(special.lambertw(x.numpy()).real)
    torch.testing.assert_close(per_user._exp_minus_lambert(x), (-expected).exp())
    least = torch.tensor([-1 / math.e, -3.0]).double()
    torch.testing.assert_close(per_user._exp_minus_lambert(least), torch.full_like(least, math.e))


def test_llpauc_rates():
    """s⁺, s⁻ and γ move at twice the rate; gradients against plain derivatives, by differences."""
    loss, args = build("llpauc", {}).double(), problem()
    grads = dict(zip(dict(loss.named_parameters()), gradients(loss, *args)[1][2:], strict=True))
    signs = dict.fromkeys(MAXIMISES["llpauc"], -1)
    twice = dict.fromkeys(("gamma", "s_pos", "s_neg"), 2)
    assert loss.dual_rates == dict.fromkeys(grads, 1) | twice
    for key, value in loss.named_parameters():
        with torch.no_grad():
            value += 1e-6
            up = loss(*args).mean()
            value -= 2e-6
            down = loss(*args).mean()
            value += 1e-6
        slope = ((up - down) / 2e-6).item()
        assert grads[key].item() == pytest.approx(signs.get(key, 1) * slope, rel=1e-6, abs=1e-8)


def test_llpauc_projects():
    ranges = {
        "a": (0, 1),
        "b": (0, 1),
        "gamma": (-1, 1),
        "s_pos": (-1, 4),
        "s_neg": (0, 5),
        "theta_a": (0, 1e9),
        "theta_b": (0, 1e9),
    }
    starts = {"a": 1, "b": 0, "gamma": 0} | dict.fromkeys(
        ("s_pos", "s_neg", "theta_a", "theta_b"), 0.5
    )
    loss = make("llpauc")
    assert {key: value.item() for key, value in loss.named_parameters()} == starts
    for end, huge in enumerate((-1e10, 1e10)):
        with torch.no_grad():
            for value in loss.parameters():
                value.fill_(huge)
        loss.project()
        assert {k: v.item() for k, v in loss.named_parameters()} == {
            k: r[end] for k, r in ranges.items()
        }
    with torch.no_grad():
        loss.s_pos.fill_(2.5)
    loss.project()
    assert loss.s_pos.item() == 2.5


def test_the_adversary_starts_xavier_normal():
    loss = make("advinfonce", n_users=900, n_items=400)
    for value, size in ((loss.users, 964), (loss.items, 464)):
        assert value.std().item() == pytest.approx(math.sqrt(2 / size), rel=0.02)
        assert value.abs().max() > 1.2 * math.sqrt(6 / size)  # the bound of a uniform one


def test_the_published_schedule_of_the_adversary():
    assert make("advinfonce", n_users=1, n_items=1).dual_epochs is None
    published = make("advinfonce", n_users=1, n_items=1, passes=5).dual_epochs
    assert list(published) == [3, 8, 13, 18, 23]


def test_what_a_loss_owns():
    owned = {
        name: {k: tuple(v.shape) for k, v in make(name, n_users=3, n_items=4).named_parameters()}
        for name in ("sl", "ccl", "bsl-pooled", "advinfonce", "drrl")
    }
    assert owned == {
        "sl": {},
        "ccl": {},
        "bsl-pooled": {},
        "drrl": {"beta": (3,)},
        "advinfonce": {"users": (3, 64), "items": (4, 64)},
    }
    assert not make("drrl", n_users=3, dual="fixed").beta.requires_grad
    assert make("drrl", dual="shared").beta.shape == (1,)
    assert not list(make("drrl", dual="exact", radius=1.0).parameters())
    assert make("drrl", n_users=2).beta.tolist() == pytest.approx([0.7, 0.7])
    assert make("drrl", n_users=2).hyper == {"order": 2.0, "weight": 1.0, "epsilon": 0.0}


# ---------------------------------------------------------------------------------------------
# One family: the limits


def cosine(a, b):
    return torch.cosine_similarity(a, b, dim=-1)


def slopes(loss, pos, neg, batch=None):
    neg = neg.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(pos, neg, batch).sum(), neg)
    return slope


@pytest.mark.parametrize("order", [1e6, INF])
def test_high_order_is_ccl(order):
    pos, neg, batch = problem(20, 30)
    drrl = make("drrl", dual="fixed", start=0.3, order=order, weight=5.0)
    ccl = make("ccl", margin=0.3, weight=5.0)
    with torch.no_grad():
        drrl.double().beta.fill_(0.3)
    close = {"rtol": 0, "atol": 1e-4 if order < INF else 1e-12}
    torch.testing.assert_close(drrl(pos, neg, batch) - 0.3, ccl(pos, neg, batch), **close)
    assert (cosine(slopes(drrl, pos, neg), slopes(ccl, pos, neg)) > 1 - 1e-6).all()


def test_bsl_of_one_positive_is_sl_times_a_number():
    """Its second temperature is a scale, which Adam divides away."""
    pos, neg, batch = problem(20, 30)
    bsl, sl = make("bsl", temperature=0.1, temperature_pos=0.4), make("sl", temperature=0.1)
    (value, slopes_), (other, others) = (gradients(loss, pos, neg, batch) for loss in (bsl, sl))
    assert_same(slopes_, [0.25 * slope for slope in others])
    torch.testing.assert_close(value, 0.25 * (other - math.log(30)))


@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
def test_penalty_near_order_1_is_sl(temperature):
    """At its best β, and through the exact solver."""
    pos, neg, batch = problem(10, 30)
    order = 1 + 1e-6
    wanted = slopes(make("sl", temperature=temperature), pos, neg)
    # w = (1 + (γ-1)(f-β)/λ)^(1/(γ-1)) -> exp((f-β)/λ), of mean 1 at β = λ log mean exp(f/λ)
    beta = temperature * (neg / temperature).exp().mean(-1).log()
    given_beta = partial(losses.drrl_penalty_loss, dual=beta, order=order, temperature=temperature)
    loss = make("drrl", dual="exact", order=order, temperature=temperature)
    for slope in (slopes(lambda p, n, b: given_beta(p, n), pos, neg), slopes(loss, pos, neg)):
        assert (cosine(slope, wanted) > 0.9999).all()
        torch.testing.assert_close(slope, temperature * wanted, rtol=1e-3, atol=1e-7)
    value = make("sl", temperature=temperature)(pos, neg) - math.log(neg.shape[1])
    torch.testing.assert_close(loss(pos, neg, batch), 1 + temperature * value, rtol=0, atol=1e-5)


def test_ball_near_order_1_is_sl_at_each_rows_own_temperature():
    pos, neg, _ = problem(10, 30)
    ball = slopes(make("drrl", dual="exact", order=1 + 1e-6, radius=0.8), pos, neg)
    own = dro.worst_case(neg, order=1, radius=0.8).dual
    assert own.std() / own.mean() > 0.05  # not one temperature
    for i, temperature in enumerate(own.tolist()):
        row = slice(i, i + 1)
        sl = slopes(make("sl", temperature=temperature), pos[row], neg[row])
        assert cosine(ball[row], sl).item() > 0.9999
        torch.testing.assert_close(ball[row], temperature * sl, rtol=1e-3, atol=1e-7)


# Where other published losses lie in the family: the table in docs/family.md, row by row.


def test_psl_s_relu_is_the_inner_term_of_drrl_at_a_margin_two_below_the_positive():
    """(n - β)₊ = 2·((n - p)/2 + 1)₊ at β = p - 2, and γ* = 1/τ."""
    pos, neg, _ = problem(12, 30)
    for temperature in (0.05, 0.1, 0.4):
        psl = make("psl", temperature=temperature, surrogate="relu")(pos, neg)
        order = (1 / temperature) / (1 / temperature - 1)
        drrl = losses.drrl_loss(pos, neg, pos - 2, order=order)
        inner = drrl - (1 - pos) - (pos - 2)
        torch.testing.assert_close(inner, 2 * (temperature * (psl - math.log(30))).exp())


@pytest.mark.parametrize("k", [1, 3, 20, 29])
def test_the_top_k_quantile_is_the_dual_of_the_ball_of_order_inf_and_radius_log_n_over_k(k):
    """SL@K's and Talos' threshold; the worst case is the mean of the K highest scores."""
    _, neg, _ = problem(12, 30)
    ranked = neg.sort(-1, descending=True).values
    worst = dro.worst_case(neg, order=INF, radius=math.log(30 / k))
    torch.testing.assert_close(worst.value, ranked[:, :k].mean(-1))
    assert (worst.dual <= ranked[:, k - 1] + 1e-12).all()
    assert (worst.dual >= ranked[:, k] - 1e-12).all()


def test_sl_at_k_pushes_by_the_weight_s_own_slope():
    """m = 1/(1 - (1 - w)·L·τ/τ_w), below zero where it pushes the positive down."""
    pos, neg, batch = problem(12, 30)
    for temperature, width in ((0.2, 2.0), (0.05, 0.5), (0.3, 1e6)):
        hyper = {"temperature": temperature, "temperature_weight": width}
        loss = build("sl-at-k", hyper).double()
        weight = ((pos - loss.beta.detach()[batch.users]) / width).sigmoid()
        softmax = make("sl", temperature=temperature)(pos, neg)
        turned = (1 - weight) * softmax * temperature / width
        found = losses.mass(loss, pos, neg, batch)
        torch.testing.assert_close(found, 1 / (1 - turned))
        assert ((found > 1) == ((softmax > 0) & (turned < 1))).all()
        if width == 0.5:
            assert (found < 0).any() and ((found < 0) == (turned > 1)).all()
        if width == 1e6:  # no weight is left: half of SL
            torch.testing.assert_close(loss(pos, neg, batch), softmax / 2, rtol=1e-5, atol=0)

        def of_differences(p, n, _, width=width, temperature=temperature):
            weight = ((p - n.quantile(0.9, -1)) / width).sigmoid()  # the threshold's slope, too
            return weight * make("sl", temperature=temperature)(p, n)

        torch.testing.assert_close(losses.mass(of_differences, pos, neg), torch.ones_like(pos))


def test_talos_is_sl_of_the_log_sigmoid_of_what_lies_above_the_threshold():
    pos, neg, batch = problem(12, 30)
    loss = build("talos", {"temperature": 0.1}).double()
    beta = loss.beta.detach()[batch.users]
    above = (pos - beta).sigmoid().log(), (neg - beta[:, None]).sigmoid().log()
    sl = make("sl", temperature=0.1)
    torch.testing.assert_close(loss(pos, neg, batch), sl(*above))
    listened = negative_weights(sl, *above) / 30
    pull, push = ((beta - pos).sigmoid(), (beta[:, None] - neg).sigmoid())
    mass = (listened * push).sum(-1) / pull
    torch.testing.assert_close(losses.mass(loss, pos, neg, batch), mass)
    with torch.no_grad():
        loss.beta.fill_(40)  # log σ(x) = x far below
    torch.testing.assert_close(loss(pos, neg, batch), sl(pos, neg))
    torch.testing.assert_close(losses.mass(loss, pos, neg, batch), torch.ones_like(pos))


def test_gbce_at_calibration_1_pushes_as_if_all_items_had_been_drawn():
    """Its mass is that of BCE over all other items, their mean for the mean of those drawn."""
    pos, neg, _ = problem(12, 30)
    neg[0, 7:] = -INF
    share = (neg > -INF).double().sum(-1) / 499
    sums = torch.where(neg > -INF, neg.sigmoid(), 0).sum(-1) / (-pos).sigmoid()
    for t in (0.0, 0.5, 1.0):
        found = losses.mass(make("gbce", n_items=500, calibration=t), pos, neg)
        torch.testing.assert_close(found, sums / (1 - t * (1 - share)))
    torch.testing.assert_close(found, 499 * losses.mass(make("bce"), pos, neg))
    one = neg[:, :1]
    bce = make("gbce", n_items=500, calibration=0)(pos, one)
    torch.testing.assert_close(bce, make("bce")(pos, one))


def test_adap_tau_is_a_push_of_each_user_s_own():
    pos, neg, batch = problem(12, 30)
    for damping in (0.02, 0.5):
        loss = build("adap-tau", {"temperature": 0.2, "damping": damping}).double()
        found = losses.mass(loss, pos, neg, batch)
        weights = negative_weights(loss, pos, neg, batch)
        for i, push in enumerate(found.tolist()):
            sl = negative_weights(make("sl", temperature=0.2 / push), pos, neg)
            torch.testing.assert_close(weights[i], sl[i])
        level = loss.level.detach()
        low = (level < level.mean())[batch.users]
        assert ((found > 1) == low).all() and (found <= math.e + 1e-9).all() and low.any()
    with torch.no_grad():
        loss.level.fill_(0.3)  # all users alike
    sl = make("sl", temperature=0.2)
    torch.testing.assert_close(loss(pos, neg, batch), sl(pos, neg))


def test_directau_pushes_pairs_of_a_side_by_kl_twice_gamma_times_the_pull():
    """‖x - y‖² = 2 - 2c of unit vectors: log mean exp(-2‖x - y‖²) is KL at τ = 1/4 of cosines."""
    gamma, rng = 0.7, torch.Generator().manual_seed(0)
    rows = [torch.randn(9, 4, generator=rng, dtype=torch.float64) for _ in "ui"]
    users, items = (torch.nn.functional.normalize(x, dim=-1) for x in rows)
    cosines = [(x @ x.T)[*torch.triu_indices(9, 9, 1)].requires_grad_() for x in (users, items)]
    worst = [dro.worst_case(c, order=1, temperature=1 / 4) for c in cosines]
    published = [torch.pdist(x).square().mul(-2).exp().mean().log() for x in (users, items)]
    torch.testing.assert_close(
        torch.stack(published), torch.stack([4 * w.value - 4 for w in worst])
    )
    pos = (users * items).sum(-1).requires_grad_()
    alignment = (users - items).square().sum(-1).mean()
    torch.testing.assert_close(alignment, (2 - 2 * pos).mean())
    loss = (2 - 2 * pos).mean() + gamma / 2 * sum(4 * w.value - 4 for w in worst)
    pull, *push = torch.autograd.grad(loss, [pos, *cosines])
    assert sum(x.sum() for x in push).item() == pytest.approx(-2 * gamma * pull.sum().item())


def test_infonce_is_sl_with_the_positive_among_the_negatives():
    pos, neg, _ = problem(12, 30)
    both = torch.cat([pos[:, None], neg], -1)
    sl = make("sl", temperature=0.3)(pos, both)
    torch.testing.assert_close(make("infonce", temperature=0.3)(pos, neg), sl)


@pytest.mark.parametrize("alpha", [0.45, 0.5, 0.6])
def test_mscl_s_importance_weight_is_a_push(alpha):
    """-α·p/τ + (1 - α)·log Σ exp(n/τ) is α times SL at m = (1 - α)/α; MINE+'s λ is m."""
    pos, neg, _ = problem(12, 30)
    mscl = -alpha * pos / 0.2 + (1 - alpha) * (neg / 0.2).logsumexp(-1)
    sl = make("sl", temperature=0.2, push=(1 - alpha) / alpha)(pos, neg)
    torch.testing.assert_close(mscl, alpha * sl)


@pytest.mark.parametrize("order", [1.5, 2.0])
def test_entmax_weights_are_those_of_the_penalty_twin(order):
    """entmax_γ(z), sparsemax at γ = 2, of z = f/(λ·N^(γ-1)): here by bisection on its threshold."""
    _, neg, _ = problem(6, 30)
    scale, count = 0.2, neg.shape[1]
    z = (order - 1) * neg / (scale * count ** (order - 1))
    low, high = z.amax(-1, keepdim=True) - 1, z.amax(-1, keepdim=True)
    for _ in range(100):
        middle = (low + high) / 2
        total = (z - middle).clamp_min(0).pow(1 / (order - 1)).sum(-1, keepdim=True)
        low, high = torch.where(total > 1, middle, low), torch.where(total > 1, high, middle)
    entmax = (z - low).clamp_min(0).pow(1 / (order - 1))
    worst = dro.worst_case(neg, order=order, temperature=scale)
    torch.testing.assert_close(worst.weights / count, entmax, rtol=1e-7, atol=1e-9)


@given(
    st.sampled_from(
        [{"radius": 0.3}, {"radius": 1.5}, {"weight": 2.0}, {"eta": 0.4}, {"temperature": 0.2}]
    ),
    st.floats(1.05, 20),
    st.floats(-2, 1),
    st.integers(0, 1000),
)
@settings(deadline=None, derandomize=True, max_examples=60)
def test_no_beta_is_below_the_exact_one(size, order, beta, seed):
    pos, neg, batch = problem(4, 12, seed)
    exact = make("drrl", dual="exact", order=order, **size)(pos, neg, batch)
    fixed = make("drrl", dual="fixed", start=beta, order=order, **size)(pos, neg, batch)
    assert (exact <= fixed + 1e-9).all()


@pytest.mark.parametrize(
    ("order", "size"),
    [
        *((order, {"radius": 1.0}) for order in (1.0, 1.5, 2.0, 4.0)),
        *((order, {"temperature": 0.2}) for order in (1.5, 2.0, 4.0)),
    ],
    ids=label,
)
def test_learned_beta_converges_to_the_exact_one(order, size):
    pos, neg, batch = problem(1, 40, seed=5)
    exact = make("drrl", dual="exact", order=order, **size)(pos, neg, batch).item()
    loss = make("drrl", n_users=USERS, order=order, start=0.3, **size).double()
    start = loss(pos, neg, batch).item()
    descent = torch.optim.SGD(loss.parameters(), lr=0.05)
    for _ in range(1500):
        descent.zero_grad()
        loss(pos, neg, batch).mean().backward()
        descent.step()
    assert exact <= loss(pos, neg, batch).item() + 1e-12
    assert loss(pos, neg, batch).item() == pytest.approx(exact, abs=1e-7)
    assert start > exact + 1e-3


@given(st.floats(0.02, 3), st.floats(0, 1), st.integers(0, 1000))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_no_temperature_is_below_the_exact_one(temperature, share, seed):
    """At order 1 the bound at any τ lies above the ball's own value, which its best τ has."""
    pos, neg, batch = problem(4, 12, seed)
    neg[0, ::3] = -INF
    radius = 0.8 * share * math.log(8)
    worst = dro.worst_case(neg, order=1, radius=radius)
    loss = make("drrl", n_users=USERS, order=1, radius=radius, start=temperature)
    assert (loss(pos, neg, batch) >= 1 - pos + worst.value - 1e-6).all()
    if radius > 0.01:
        at_best = losses.drrl_kl_loss(pos, neg, worst.dual, radius=radius)
        torch.testing.assert_close(at_best, 1 - pos + worst.value)


def test_a_learned_temperature_stays_above_zero():
    loss = make("drrl", n_users=2, order=1, radius=1.0, start=0.3)
    with torch.no_grad():
        loss.beta[1] = -1
    loss.project()
    assert loss.beta.tolist() == pytest.approx([0.3, 0.005])
    other = make("drrl", n_users=2, order=2, radius=1.0, start=-0.3)
    other.project()
    assert other.beta.tolist() == pytest.approx([-0.3, -0.3])


def test_weights_of_sl_are_equation_8():
    pos, neg, _ = problem(5, 7)
    neg[0, 2] = -INF
    weights = negative_weights(make("sl", temperature=0.3), pos, neg)
    for i in range(5):
        tilted = [math.exp(x / 0.3) for x in neg[i].tolist()]
        expected = mean([x for x in tilted if x])
        assert weights[i].tolist() == pytest.approx([x / expected for x in tilted], rel=1e-12)


@pytest.mark.parametrize("size", [{"radius": 0.9}, {"temperature": 0.2}], ids=label)
@pytest.mark.parametrize("order", [1.0, 1.5, 2.0, 6.0])
def test_weights_of_exact_drrl_are_the_worst_case(order, size):
    pos, neg, batch = problem(5, 30)
    neg[0, 2:9] = -INF
    weights = negative_weights(make("drrl", dual="exact", order=order, **size), pos, neg, batch)
    worst = dro.worst_case(neg, order=order, **size)
    torch.testing.assert_close(weights, worst.weights)
    if order > 1 and "radius" in size:  # Eq. 11, at the β the solver found
        at_dual = partial(losses.drrl_loss, dual=worst.dual, order=order, weight=3.0)
        again = negative_weights(lambda p, n, b: at_dual(p, n), pos, neg)
        torch.testing.assert_close(again, worst.weights, rtol=1e-5, atol=1e-6)


@every_case
def test_weights_have_mean_one_over_the_negatives(name, hyper):
    pos, neg, batch = problem(4, 12)
    neg[:, 5] = -INF
    loss = build(name, hyper).double()
    with torch.no_grad():
        weights = negative_weights(loss, pos.requires_grad_(), neg, batch)
    assert not weights.requires_grad and pos.grad is None and neg.grad is None
    assert all(p.grad is None for p in loss.parameters())
    alive = weights.abs().sum(-1) > 0
    assert (weights[:, 5] == 0).all() and (weights[alive] >= 0).all()
    torch.testing.assert_close(weights.sum(-1)[alive] / 11, torch.ones(int(alive.sum())).double())


def test_mass_of_the_losses_of_differences_and_of_exact_balls_is_1_and_a_push_s_is_its_own():
    pos, neg, batch = problem(6, 20)
    neg[0, :5] = -INF
    one = [("bpr", {}), ("psl", {}), ("infonce", {}), ("advinfonce", {}), ("bsl", {}), ("sl", {})]
    one += [("drrl", hyper) for hyper in EXACT if "push" not in hyper]
    for name, hyper in one:
        found = losses.mass(build(name, hyper), pos, neg, batch)
        torch.testing.assert_close(found, torch.ones_like(found), rtol=1e-6, atol=0)
    for name in ("bpr", "psl", "infonce", "advinfonce", "bsl"):  # where it would have no meaning
        with pytest.raises(ValueError, match=f"{name!r} has no hyper-parameter 'push'"):
            make(name, push=2)
    for name, hyper in (("sl", {}), ("drrl", {"dual": "exact", "order": 3, "radius": 1.0})):
        found = losses.mass(make(name, **hyper, push=1.3), pos, neg, batch)
        torch.testing.assert_close(found, torch.full_like(found, 1.3), rtol=1e-6, atol=0)


def test_mass_at_order_1_is_1_at_every_temperature():
    pos, neg, batch = problem(6, 20)
    neg[0, :5] = -INF
    for start in (0.01, 0.1, 3.0):
        for push in (1.0, 1.3):
            loss = make("drrl", n_users=USERS, order=1, radius=0.8, start=start, push=push)
            found = losses.mass(loss, pos, neg, batch)
            torch.testing.assert_close(found, torch.full_like(found, push))


def test_two_sides_at_order_1_penalties_are_pooled_bsl():
    pos, neg, batch = problem(12, 9)
    for temperature, ratio in ((0.2, 1.0), (0.3, 0.4), (0.1, 2.0)):
        pooled = make("bsl-pooled", n_users=USERS, temperature=temperature, ratio=ratio)
        own = {"temperature": temperature, "temperature_pos": temperature / ratio}
        both = make("drrl-two-sided", n_users=USERS, order=1, order_pos=1, **own)
        value, grads = gradients(both, pos, neg, batch)
        scaled = (value - 1) * ratio / temperature
        expected, expected_grads = gradients(pooled, pos, neg, batch)
        torch.testing.assert_close(scaled, expected)
        assert_same([g * ratio / temperature for g in grads], expected_grads)


@pytest.mark.parametrize("order", [1.0, 1.5, 3.0, INF])
def test_two_sides_with_no_radius_on_the_positives_are_exact_drrl(order):
    pos, neg, batch = problem(12, 9)
    both = make("drrl-two-sided", n_users=USERS, order=order, radius=0.7, radius_pos=0.0)
    one = make("drrl", n_users=USERS, order=order, radius=0.7, dual="exact")
    value, grads = gradients(both, pos, neg, batch)
    expected, expected_grads = gradients(one, pos, neg, batch)
    torch.testing.assert_close(value.mean(), expected.mean())
    assert_same(grads, expected_grads)


def test_the_easiest_positives_weigh_most():
    pos, batch = torch.tensor([0.9, 0.1, 0.5]), Batch(torch.tensor([2, 2, 4]))
    _, (to_pos, _) = gradients(make("drrl-two-sided", n_users=5), pos, torch.zeros(3, 4), batch)
    assert to_pos[0] < to_pos[1] <= 0 and to_pos[2].item() == pytest.approx(-1 / 3)
    assert to_pos.sum().item() == pytest.approx(-1)


PRIORS = [(name, hyper) for name, hyper in CASES if "prior" in hyper]


@pytest.mark.parametrize(("name", "hyper"), PRIORS, ids=label)
def test_a_prior_of_zero_and_equal_popularity_are_no_prior(name, hyper):
    pos, neg, batch = problem()
    value, grads = gradients(build(name, hyper | {"prior": 0.0}).double(), pos, neg, batch)
    even = batch._replace(popularity=torch.full((ITEMS,), 7))
    same, same_grads = gradients(build(name, hyper).double(), pos, neg, even)
    torch.testing.assert_close(same, value)
    assert_same(same_grads, grads)
    assert not torch.allclose(gradients(build(name, hyper).double(), pos, neg, batch)[0], value)


@pytest.mark.parametrize(("name", "hyper"), PRIORS, ids=label)
def test_a_prior_asks_for_the_popularity_and_the_negatives(name, hyper):
    loss, (pos, neg, batch) = build(name, hyper), problem()
    for missing in (batch._replace(popularity=None), Batch(batch.users)):
        with pytest.raises(ValueError, match=r"batch.popularity is missing.*\(n_items,\)"):
            loss(pos, neg, missing)
    with pytest.raises(ValueError, match=r"batch\.neg_items is missing"):
        loss(pos, neg, batch._replace(neg_items=None))
    with pytest.raises(ValueError, match=r"neg_items goes from .* must lie in \[0, 2\)"):
        loss(pos, neg, batch._replace(popularity=torch.ones(2)))


@pytest.mark.parametrize(("name", "hyper"), [*PRIORS, ("drrl", {"dual": "exact", "order": 1.0,
                         "radius": 0.7, "prior": 1.0})], ids=label)  # fmt: skip
def test_minus_the_power_of_the_draws_corrects_them_and_plus_it_does_not(name, hyper):
    """The loss of ever more drawn negatives goes to that of the whole catalogue: the logQ sign."""
    rng = torch.Generator().manual_seed(0)
    popularity, scores = torch.arange(ITEMS) ** 2, torch.rand(ITEMS, generator=rng).double() - 0.5
    pos, power = torch.tensor([0.5]).double(), 0.8
    share = (1 + popularity.double()) ** power

    def value(items, prior):
        batch = Batch(torch.tensor([0]), torch.tensor([0]), items[None], popularity=popularity)
        made = build(name, hyper | {"prior": prior}).double()
        constant = math.log(len(items)) if name == "sl" else 0  # of a sum, not a mean
        return made(pos, scores[items][None], batch).item() - constant

    everything = value(torch.arange(ITEMS), 0.0)
    off = {}
    for count in (100, 10_000, 1_000_000):
        items = share.multinomial(count, replacement=True, generator=rng)
        for prior in (-power, power, 0.0):
            off.setdefault(prior, []).append(abs(value(items, prior) - everything))
    assert off[-power][-1] < 2e-3 < 1e-2 < off[-power][0] + 1e-2
    assert off[power][-1] > off[0.0][-1] > 20 * off[-power][-1]


def test_the_optimum_of_sl_under_a_prior_is_shifted_by_popularity_and_b_undoes_it():
    """Free scores, the whole catalogue: s = τ·(log p(i|u) - a·log(1 + pairs)), up to a constant."""
    rng = torch.Generator().manual_seed(1)
    p = torch.rand(3, ITEMS, generator=rng).double().softmax(-1)  # what each user's positives are
    popularity, temperature, everything = torch.arange(ITEMS) ** 2, 0.3, torch.arange(ITEMS)
    user, item = torch.cartesian_prod(torch.arange(3), everything).T
    batch = Batch(user, item, everything, popularity=popularity)
    for a in (-0.5, 0.0, 0.5, 1.0):
        loss = make("sl", temperature=temperature, prior=a)
        scores = torch.zeros(3, ITEMS).double().requires_grad_()
        descent = torch.optim.LBFGS([scores], max_iter=500, tolerance_grad=1e-12,
                                    tolerance_change=0, line_search_fn="strong_wolfe")  # fmt: skip

        def value(scores=scores, descent=descent, loss=loss):
            descent.zero_grad()
            total = (p.flatten() * loss(scores[user, item], scores[user], batch)).sum()
            total.backward()
            return total

        descent.step(value)
        best = temperature * (p.log() - a * popularity.double().log1p())
        off = scores.detach() - best
        assert (off - off.mean(-1, keepdim=True)).abs().max() < 1e-6
        s = scores.detach().std(-1, correction=0).mean()
        b = temperature * a / s
        ranked = scores.detach() + b * s * popularity.double().log1p()
        assert torch.equal(ranked.argsort(-1), p.argsort(-1))


def test_mass_of_a_fixed_margin_is_what_the_margin_makes_it():
    pos, neg, _ = problem(6, 20)
    share = (neg > 0.1).double().mean(-1)
    for push in (1, 0.5):
        found = losses.mass(make("ccl", margin=0.1, weight=8, push=push), pos, neg)
        torch.testing.assert_close(found, (8 * push * share).to(found))


def test_weights_of_truncated_rows_are_zero():
    pos, neg = torch.tensor([0.5]), torch.tensor([[0.1, 0.2]])
    assert negative_weights(make("ccl", margin=0.9), pos, neg).tolist() == [[0.0, 0.0]]


# ---------------------------------------------------------------------------------------------
# Numerics that have gone wrong elsewhere


def test_high_powers_of_small_excesses_do_not_vanish():
    """β a hair below the scores, γ* = 200: a plain float32 norm gives value and gradient zero."""
    neg = torch.tensor([[0.30, 0.301, 0.302, 0.1]])
    pos, beta = torch.tensor([0.5]), 0.299
    hyper = {"order": 200 / 199, "weight": 2.0}
    single = losses.drrl_loss(pos, neg, beta, **hyper)
    double = losses.drrl_loss(pos.double(), neg.double(), beta, **hyper)
    assert (single - 0.799).item() == pytest.approx((double - 0.799).item(), rel=1e-3) != 0
    weights = negative_weights(lambda p, n, b: losses.drrl_loss(p, n, beta, **hyper), pos, neg)
    assert weights[0].argmax() == 2 and weights[0, 2] > 3.9


def test_softmax_does_not_overflow():
    pos, neg = torch.tensor([1.0]), torch.full((1, 64), 1.0)
    value = losses.softmax_loss(pos, neg, temperature=1e-3)
    assert value.item() == pytest.approx(math.log(64), abs=1e-3)


@pytest.mark.parametrize("surrogate", ["tanh", "atan", "relu"])
def test_psl_near_zero_is_sl_at_twice_the_temperature(surrogate):
    pos, neg, _ = problem(5, 6)
    pos, neg = 1e-6 * pos, 1e-6 * neg
    psl = slopes(make("psl", temperature=0.1, surrogate=surrogate), pos, neg)
    torch.testing.assert_close(
        psl, slopes(make("sl", temperature=0.2), pos, neg), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("surrogate", ["tanh", "atan", "relu"])
def test_psl_in_float32_at_small_temperature(surrogate):
    pos, neg, _ = problem(50, 64)
    loss = make("psl", temperature=0.025, surrogate=surrogate)
    single = slopes(loss, pos.float(), neg.float()).double()
    torch.testing.assert_close(single, slopes(loss, pos, neg), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(
        loss(pos.float(), neg.float()).double(), loss(pos, neg), rtol=1e-5, atol=1e-5
    )


# ---------------------------------------------------------------------------------------------
# From Softmax Loss to DrRL


def test_starting_points():
    """Two scores, a and 0, of equal weight: Q is the logistic, its radius known in closed form."""
    gaps, temperature = [0.1, 0.4, 0.9, 0.0, 0.2], 0.3
    scores = torch.tensor([[gap, 0.0, -INF] for gap in gaps], dtype=torch.float64)
    radii, grid = losses.starting_points(scores, temperature, orders=(1, 2.0, INF))
    known = []
    for gap in gaps:
        q = sigmoid(gap / temperature)
        known.append(sum(x * math.log(2 * x) for x in (q, 1 - q)))
    assert radii.tolist() == pytest.approx(known, rel=1e-12, abs=1e-14)
    quartiles = sorted(known)[1:4]
    assert [point["radius"] for point in grid] == pytest.approx(quartiles * 3)
    assert [point["order"] for point in grid] == [1] * 3 + [2.0] * 3 + [INF] * 3
    for point in grid:
        value = make("drrl", **point)(torch.zeros(5).double(), scores)
        assert value.isfinite().all()


def test_starting_points_give_sl_back_at_order_1():
    """At order 1 and a user's own radius, DrRL listens as the SL it came from does."""
    pos, neg, _ = problem(8, 40)
    radii, _ = losses.starting_points(neg, 0.15)
    for i, radius in enumerate(radii.tolist()):
        row = pos[i : i + 1], neg[i : i + 1]
        drrl = negative_weights(make("drrl", order=1, radius=radius, dual="exact"), *row)
        sl = negative_weights(make("sl", temperature=0.15), *row)
        torch.testing.assert_close(drrl, sl, rtol=1e-6, atol=1e-8)
    assert (radii < math.log(40)).all() and radii.std() > 0


# ---------------------------------------------------------------------------------------------
# Bad input


NAN = math.nan
BAD = [
    *[("sl", {"temperature": t}, "temperature must lie in (0, inf)") for t in (0, -1, INF, NAN)],
    *[(name, {"prior": a}, "prior must lie in (-inf, inf)") for name in ("sl", "drrl")
      for a in (INF, NAN)],
    ("bsl", {"temperature_pos": 0}, "temperature_pos must lie"),
    ("bsl", {"temperature": NAN}, "temperature must lie"),
    ("bsl-pooled", {"ratio": 0}, "ratio must lie in (0, inf)"),
    ("bsl-pooled", {"temperature": -0.1}, "temperature must lie"),
    *[("ccl", {"margin": m}, "margin must lie in [-1, 1]") for m in (-1.01, 1.01, NAN)],
    *[("ccl", {"weight": w}, "weight must lie in [0, inf)") for w in (-1, INF, NAN)],
    *[(name, {"push": m}, "push must lie in (0, inf)") for name in ("sl", "ccl", "drrl")
      for m in (0, -1, INF, NAN)],
    ("advinfonce", {"temperature": 0}, "temperature must lie"),
    ("advinfonce", {"scale": 0}, "scale must lie in (0, inf)"),
    ("advinfonce", {"adversary_dim": 0}, "adversary_dim must lie in [1, inf)"),
    ("advinfonce", {"passes": -1}, "passes must lie in [0, inf)"),
    *[("llpauc", {s: v}, f"{s} must lie in (0, 1]") for s in ("share_pos", "share_neg")
      for v in (0, 1.01, NAN)],
    ("psl", {"temperature": 0}, "temperature must lie"),
    *[(name, {"temperature": t}, "temperature must lie in (0, inf)")
      for name in ("sl-at-k", "talos") for t in (0, NAN)],
    *[(name, {"share": q}, "share must lie in (0, 1)")
      for name in ("sl-at-k", "talos") for q in (0, 1, NAN)],
    *[("adap-tau", {key: t}, f"{key} must lie in (0, inf)")
      for key in ("temperature", "damping") for t in (0, NAN)],
    *[("gbce", {"calibration": t}, "calibration must lie in [0, 1]") for t in (-0.1, 1.1, NAN)],
    ("sl-at-k", {"temperature_weight": 0}, "temperature_weight must lie in (0, inf)"),
    ("psl", {"surrogate": "sigmoid"}, "surrogate must be 'tanh', 'atan' or 'relu'"),
    *[("drrl", {"order": o}, "order must lie in [1, inf]") for o in (0.5, -2, NAN)],
    *[("drrl", {"order": 1} | w, "at order 1 the weight is 1 for every ball: give a radius")
      for w in ({}, {"weight": 1}, {"weight": 2, "dual": "shared"})],
    *[("drrl", {"order": 1, "radius": 1, "start": t}, "start must lie in (0, inf)")
      for t in (0, -1)],
    ("drrl", {"order": 1, "radius": 1, "epsilon": 0.1}, "epsilon"),
    *[("drrl", {"order": o, "temperature": 0.2}, "order must lie in (1, inf)") for o in (1, INF)],
    *[("drrl", {"order": o, "radius": 1, "dual": "exact"}, "order must lie in [1, inf]")
      for o in (0.99, NAN)],
    ("drrl", {"order": INF, "temperature": 1, "dual": "exact"}, "order must lie in [1, inf)"),
    *[("drrl", {"weight": w}, "weight must lie in (0, inf)") for w in (0, -1, INF, NAN)],
    *[("drrl", {"radius": r, "dual": d}, "radius must lie in [0, inf)")
      for r in (-0.1, INF, NAN) for d in ("learned", "exact")],
    *[("drrl", {"eta": e, "dual": d}, "eta must lie in [0, inf)")
      for e in (-0.1, NAN) for d in ("learned", "exact")],
    *[("drrl", {"temperature": t, "dual": d}, "temperature must lie in (0, inf)")
      for t in (0, NAN) for d in ("learned", "exact")],
    ("drrl", {"eta": 1.0, "order": INF}, "eta does not exist at order inf"),
    ("drrl", {"weight": 2.0, "order": 1, "dual": "exact"}, "at order 1 the weight is 1"),
    ("drrl", {"epsilon": -0.1}, "epsilon must lie in [0, inf)"),
    ("drrl", {"epsilon": 0.1, "radius": 1.0, "dual": "exact"}, "epsilon"),
    ("drrl", {"epsilon": 0.1, "temperature": 1.0}, "epsilon"),
    ("drrl", {"start": NAN}, "start must lie"),
    ("drrl", {"dual": "exakt"}, "dual must be one of learned, shared, fixed, exact"),
    ("drrl", {"weight": 2, "radius": 1}, "give one size, not weight and radius"),
    ("drrl", {"eta": 2, "temperature": 1}, "give one size, not eta and temperature"),
    *[("drrl", {"dual": "exact"} | w, "weight (c) must be above 1 with dual='exact'")
      for w in ({}, {"weight": 1}, {"weight": 0.5})],
    ("sl", {"temprature": 1}, "did you mean 'temperature'?"),
    ("drrl", {"gamma": 2}, "loss 'drrl' has no hyper-parameter 'gamma'"),
    ("mse", {"weight": 2}, "loss 'mse' has no hyper-parameter 'weight'"),
    ("cccl", {}, "did you mean 'ccl'?"),
    ("zzz", {}, "no loss is called 'zzz'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "hyper", "message"), BAD, ids=label)
def test_bad_values_are_refused_when_made(name, hyper, message):
    with pytest.raises(ValueError) as caught:
        make(name, n_users=3, n_items=3, **hyper)
    assert message in str(caught.value)


@pytest.mark.parametrize("value", [True, "0.5", [1], torch.tensor(1.0)], ids=repr)
@every_loss
def test_numbers_must_be_numbers(name, value):
    numeric = [k for k, v in losses.hyperparameters(name).items() if not isinstance(v, str)]
    for key in numeric:
        with pytest.raises(TypeError, match=f"{key} must be a number"):
            make(name, n_users=3, n_items=3, **{key: value})


@pytest.mark.parametrize(
    "name", ["drrl", "advinfonce", "bsl-pooled", "sl-at-k", "talos", "adap-tau"]
)
def test_sizes_are_asked_for(name):
    with pytest.raises(ValueError, match="n_users must lie in"):
        make(name)
    with pytest.raises(ValueError, match=r"n_items must lie in \[1, inf\)"):
        make("gbce")


def test_functions_refuse_too():
    pos, neg = torch.zeros(1), torch.zeros(1, 2)
    with pytest.raises(ValueError, match="order"):
        losses.drrl_loss(pos, neg, 0.0, order=1)
    with pytest.raises(ValueError, match="order"):
        losses.drrl_penalty_loss(pos, neg, 0.0, order=INF)
    with pytest.raises(ValueError, match="temperature"):
        losses.softmax_loss(pos, neg, temperature=0)


@every_loss
def test_registry_line(name):
    line = REGISTRY[name]
    assert losses.lookup(name) is line
    expected = {"gbce": ("dot", 64)} | dict.fromkeys(("mse", "bce", "bpr"), ("dot", 1))
    assert (line.similarity, line.negatives) == expected.get(name, ("cosine", 64))
    assert line.version == {"advinfonce": 2, "llpauc": 2}.get(name, 1)
    make(name, n_users=2, n_items=2, **losses.hyperparameters(name))  # its defaults are its own


def refused(name: str, message: str, **changes: object) -> None:
    """A good call but for one change to pos, neg or the batch raises a ValueError that says so."""
    loss, (pos, neg, batch) = build(name, {}), problem(4, 3)
    loss(pos, neg, batch)
    scores = [changes.pop(key, value) for key, value in (("pos", pos), ("neg", neg))]
    batch = changes["batch"] if "batch" in changes else batch._replace(**changes)
    with pytest.raises(ValueError, match=message):
        loss(*scores, batch)


@every_loss
def test_wrong_scores_are_refused(name):
    pos, neg, _ = problem(4, 3)
    refused(name, r"pos has shape \(4, 1\) and neg \(4, 3\): .* of shape \(4,\)", pos=pos[:, None])
    refused(name, r"pos has shape \(4,\) and neg \(3,\)", neg=neg[0])
    refused(name, r"neg has shape \(\): give at least one", neg=neg[0, 0])
    refused(name, r"neg has shape \(4, 0\): give at least one negative a row", neg=neg[:, :0])
    refused(name, r"pos holds torch.int64: give floats, such as pos.float\(\)", pos=pos.long())
    refused(name, r"neg holds torch.bool: give floats, such as neg.float\(\)", neg=neg > 0)


@every_case
def test_a_row_without_a_negative_is_refused(name, hyper):
    loss, (pos, neg, batch) = build(name, hyper).double(), problem()
    neg[2] = neg[4] = -INF
    with pytest.raises(ValueError, match=r"neg\[2\] is a row of -inf, .* such rows \(2 of 6\)"):
        loss(pos, neg, batch)


@every_case
def test_a_score_that_is_no_number_is_not_taken_for_a_masked_one(name, hyper):
    loss, (pos, neg, batch) = build(name, hyper).double(), problem()
    neg[2, 3] = math.nan
    if hyper.get("dual") == "exact" or name == "drrl-two-sided":
        with pytest.raises(ValueError, match="NaN"):
            loss(pos, neg, batch)
    else:
        assert loss(pos, neg, batch).isnan().tolist() == [False, False, True, False, False, False]


@every_loss
@pytest.mark.parametrize("key", ["users", "neg_items"])
def test_wrong_indices_are_refused_by_the_losses_that_look_them_up(name, key):
    loss, (pos, neg, batch) = build(name, {}), problem(4, 3)
    if key not in NEEDS.get(name, []):
        loss(pos, neg, batch._replace(**{key: None}))
        return
    index, size = getattr(batch, key), {"users": USERS, "neg_items": ITEMS}[key]
    shape = r"\(4,\)" if key == "users" else r"\(4, 3\) or \(3,\)"
    missing = rf"batch.{key} is missing, .* Batch\(users, pos_items, neg_items\)\), {key} of shape"
    refused(name, f"{missing} {shape}", **{key: None})
    refused(name, "batch.users is missing", batch=None)
    refused(name, rf"batch.{key} has shape \({len(index) - 1},.*: give {key} of shape {shape}",
            **{key: index[1:]})  # fmt: skip
    refused(name, rf"batch.{key} holds torch.float32: give indices", **{key: index.float()})
    high, low = index.clone(), index.clone()
    high[2], low[1] = size, -1
    refused(
        name, rf"batch.{key} goes from .* to {size}, but must lie in \[0, {size}\)", **{key: high}
    )
    refused(name, rf"batch.{key} goes from -1 to .*, but must lie in \[0, {size}\)", **{key: low})


@pytest.mark.parametrize("function", [losses.drrl_loss, losses.drrl_penalty_loss])
def test_a_beta_that_would_broadcast_is_refused(function):
    pos, neg, _ = problem(4, 8)
    for shape in ((4, 1), (1,), (8,), (1, 4)):
        with pytest.raises(ValueError, match=r"dual has shape .* one a row .* of shape \(4,\)"):
            function(pos, neg, torch.zeros(shape))
    same = [function(pos, neg, beta) for beta in (0.5, torch.tensor(0.5), torch.full((4,), 0.5))]
    assert torch.equal(same[0], same[1]) and torch.equal(same[0], same[2])


def test_values_are_not_looked_at_where_torch_transforms_the_program():
    """There a masked row has the value it has, and stops nobody."""
    torch.compiler.reset()
    pos, neg, _ = problem()
    neg[2] = -INF
    loss = make("sl")
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for value in (compiled(pos, neg), torch.func.vmap(loss)(pos, neg)):
        assert value[2] == -INF and value.isfinite().sum() == 5


# ---------------------------------------------------------------------------------------------
# Torch is all they need


def test_needs_nothing_but_torch():
    code = """
        import sys
        for name in "numpy scipy pandas pooch tqdm typer matplotlib".split():
            sys.modules[name] = None
        import torch
        from drrl_core.losses import make
        loss = make("drrl", order=2, radius=1.0, dual="exact")
        value = loss(torch.tensor([0.9]), torch.tensor([[0.1, 0.2, 0.6]]))
        assert value.shape == (1,) and value.isfinite().all()
        print("computed")
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout == "computed\n", done.stderr
