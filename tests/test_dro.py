"""The family of worst cases, against references that share no code with it.

Each formula is retyped naively here: 60-digit arithmetic, closed forms, and generic solvers on the
primal problem as written.
"""

import math

import cvxpy as cp
import mpmath as mp
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from drrl_core import dro
from drrl_core.dro import worst_case

INF = math.inf
ORDERS = [1, 1 + 1e-6, 1.01, 1.5, 2, 5, 20, 150, 1e6, INF]
RADII = [0, 1e-6, 0.5, 3, "log n", "2 log n"]
PROBLEMS = {
    "one": [0.3],
    "two": [0.25, -0.5],
    "constant": [0.7] * 5,
    "plain": [0.9, 0.1, -0.4, 0.35, 0.2, -0.15, 0.6, -0.8],
    "ties": [1.0, 1.0, 0.5, 0.5, 0.5, -1.0, -1.0],
    "signs": [1.0, -1.0, -1.0, -1.0, 1.0, -1.0, -1.0, -1.0, -1.0],
    "spike": [1.0] + [0.0] * 9,
    "offset": [1e6 + x for x in (0.9, 0.1, -0.4, 0.35, 0.2)],
    "tiny": [1e-6 * x for x in (0.9, 0.1, -0.4, 0.35, 0.2)],
    "huge": [1e6 * x for x in (0.9, 0.1, -0.4, 0.35, 0.2)],
    "clusters": [3.0, 3.0 - 1e-7, 2.0, 2.0 - 1e-4, 1.9, 0.0, -1e-9, -5.0],
    "close": [1.0, 1e-12, 2e-12, 0.0, -1e-12],
}
DOUBLE = torch.float64


def tensor(x, dtype=DOUBLE):
    return torch.tensor(x, dtype=dtype)


def radius_of(name, n):
    return {"log n": 1, "2 log n": 2}[name] * math.log(n) if isinstance(name, str) else name


def naive_divergence(w, order):
    """As written, in whatever arithmetic w is in; w of mean 1."""
    n = len(w)
    if order == 1:
        return mp.fsum(x * mp.log(x) for x in w if x > 0) / n
    if order == INF:
        return mp.log(max(w))
    order = mp.mpf(order)
    return mp.log(mp.fsum(x**order for x in w if x > 0) / n) / (order - 1)


def reference(f, order, radius):
    """Value and weights in 60 digits, by bisection of every root."""
    with mp.workdps(60):
        f, radius = [mp.mpf(x) for x in f], mp.mpf(radius)
        n, top = len(f), max(f)
        ties = f.count(top)
        if radius >= mp.log(mp.mpf(n) / ties):
            w = [mp.mpf(n) / ties if x == top else mp.mpf(0) for x in f]
        elif radius == 0:
            w = [mp.mpf(1)] * n
        elif order == INF:
            mass, w, left = mp.exp(radius), [mp.mpf(0)] * n, mp.mpf(n)
            for level in sorted(set(f), reverse=True):
                group = [j for j in range(n) if f[j] == level]
                for j in group:
                    w[j] = min(mass, left / len(group))
                left -= len(group) * w[group[0]]
        else:
            w = smooth_reference(f, order, radius)
        value = mp.fsum(x * y for x, y in zip(w, f, strict=True)) / n
        return value, w


def smooth_reference(f, order, radius):
    levels = sorted(set(f), reverse=True)

    def weights(low, t):
        if order == 1:
            w = [mp.exp((x - levels[0]) / mp.exp(t)) for x in f]
        else:
            s = 1 / (mp.mpf(order) - 1)
            w = [mp.exp(s * mp.log(x - low + mp.exp(t))) if x >= low else mp.mpf(0) for x in f]
        mean = mp.fsum(w) / len(w)
        return [x / mean for x in w]

    low, lo, hi = levels[-1], mp.mpf(-200), mp.mpf(200)
    if order != 1:
        for above, below in zip(levels[1:], [*levels[2:], None], strict=True):
            low, lo = above, mp.mpf(-300) * max(1, mp.mpf(order) - 1)
            hi = mp.mpf(200) if below is None else mp.log(above - below)
            if below is None or naive_divergence(weights(low, hi), order) <= radius:
                break
    for _ in range(190):
        middle = (lo + hi) / 2
        if naive_divergence(weights(low, middle), order) > radius:
            lo = middle
        else:
            hi = middle
    return weights(low, (lo + hi) / 2)


def primal(f, order, radius):
    """A generic solver on max E_Q f, D(Q‖P) <= radius, as written."""
    n = len(f)
    q = cp.Variable(n, nonneg=True)
    if order == 1:
        ball = cp.sum(cp.rel_entr(q, np.full(n, 1 / n))) <= radius
    elif order == INF:
        ball = cp.max(n * q) <= math.exp(radius)
    else:
        ball = cp.pnorm(n * q, order, max_denom=4096) <= math.exp(radius / order * (order - 1)) * (
            n ** (1 / order)
        )
    problem = cp.Problem(cp.Maximize(q @ f), [cp.sum(q) == 1, ball])
    problem.solve(solver=cp.CLARABEL)
    return problem.value, n * q.value


# ------------------------------------------------------------------------------ accuracy


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_against_60_digits(name, order):
    f = PROBLEMS[name]
    for radius in RADII:
        radius = radius_of(radius, len(f))
        value, w = reference(f, order, radius)
        got = worst_case(tensor(f), order=order, radius=radius)
        assert abs(got.value - float(value)) <= 1e-9 * max(map(abs, f)), (radius, got.value)
        error = np.abs(got.weights.numpy() - np.array([float(x) for x in w])).mean()
        assert error <= 1e-7, (radius, error)
        if radius < math.log(len(f) / f.count(max(f))) - 1e-9:
            assert abs(dro.radius_of_weights(got.weights, order) - radius) <= 1e-8
        assert got.weights.mean() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_float32_against_60_digits(name, order):
    f = tensor(PROBLEMS[name], torch.float32)
    for radius in RADII:
        radius = radius_of(radius, len(f))
        value, _ = reference(f.tolist(), order, radius)
        got = worst_case(f, order=order, radius=radius)
        assert abs(got.value.double() - float(value)) <= 1e-5 * f.abs().max(), radius
        assert got.weights.mean() == pytest.approx(1, abs=1e-5)


def closed_form(f, order, radius):
    """Value for one long row at orders 1, 2 and inf."""
    f = np.sort(np.asarray(f, dtype=np.float64))[::-1]
    n = len(f)
    if order == 1:
        g = f - f[0]

        def divergence(tau):
            e = np.exp(g / tau)
            q = e / e.sum()
            return (q * g).sum() / tau - np.log(e.mean()) - radius

        tau = brentq(divergence, 1e-4 * np.ptp(f), 1e5 * np.ptp(f), xtol=1e-300, rtol=1e-14)
        e = np.exp(g / tau)
        return (e * f).sum() / e.sum()
    if order == 2:  # E w² = e^ρ with w = (f-β)_+ / E(f-β)_+: a quadratic for each active set
        k = np.arange(1, n + 1)
        mean, square = np.cumsum(f) / k, np.cumsum(f**2) / k
        variance = np.maximum(square - mean**2, 0)
        excess = math.exp(radius) * k / n - 1  # variance of the weights among the active
        with np.errstate(divide="ignore", invalid="ignore"):
            beta = mean - np.sqrt(variance / excess)
        below = np.append(f[1:], -INF)
        good = np.flatnonzero((excess > 0) & (beta < f) & (beta >= below))
        x = np.maximum(f - beta[good[-1]], 0)
        return (x * f).sum() / x.sum()
    mass, left, value = math.exp(radius), float(n), 0.0
    for x in f:
        w = min(mass, left)
        value, left = value + w * x / n, left - w
        if left <= 0:
            break
    return value


@pytest.mark.parametrize("dtype,tolerance", [(DOUBLE, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("order", [1, 2, INF])
@pytest.mark.parametrize("n", [17, 1000, 100_000])
def test_closed_forms_on_long_rows(n, order, dtype, tolerance):
    rng = np.random.default_rng(n)
    rows = np.stack([rng.normal(size=n), rng.uniform(-1, 1, n), rng.standard_t(3, n)])
    f = tensor(rows).to(dtype)
    for radius in (1e-3, 0.5, 2.5):
        expected = [closed_form(row, order, radius) for row in f.tolist()]
        got = worst_case(f, order=order, radius=radius)
        assert torch.all((got.value - tensor(expected)).abs() <= tolerance * f.abs().amax(-1))


@pytest.mark.parametrize("order", [1, 1.25, 1.5, 2, 3, 5, INF])
@pytest.mark.parametrize("radius", [0.05, 0.5, 1.5])
def test_primal_solved_generically(order, radius):
    f = np.random.default_rng(3).normal(size=12)
    value, w = primal(f, order, radius)
    got = worst_case(tensor(f), order=order, radius=radius)
    assert got.value.item() == pytest.approx(value, abs=1e-5)
    assert np.abs(got.weights.numpy() - w).mean() < 2e-3


# --------------------------------------------------------------------------- the paper


def row(n=12, seed=5):
    return np.random.default_rng(seed).normal(size=n) * 0.4


def test_lemma_1_softmax_loss_is_the_kl_ball():
    f = row()
    _, w = primal(f, 1, 0.7)
    solved = worst_case(tensor(f), order=1, radius=0.7)
    scores = tensor(f).requires_grad_()
    loss = torch.log(torch.exp(scores / solved.dual).sum()) * solved.dual
    loss.backward()
    assert np.abs(scores.grad.numpy() * len(f) - w).max() < 1e-3
    # and not at another temperature
    scores.grad = None
    (torch.log(torch.exp(scores / 0.2).sum()) * 0.2).backward()
    assert np.abs(scores.grad.numpy() * len(f) - w).max() > 0.1


def test_lemma_1_cosine_contrastive_loss_is_the_worst_case_regret_ball():
    f, alpha = row(), 12 / 3.5  # 3.5 entries of weight alpha: the boundary score takes a half
    value, w = primal(f, INF, math.log(alpha))
    boundary = np.sort(f)[-4]
    scores = tensor(f).requires_grad_()
    (alpha * torch.relu(scores - boundary).mean()).backward()
    others = f != boundary
    assert np.abs(scores.grad.numpy() * len(f) - w)[others].max() < 1e-5
    assert 0 < w[~others][0] < alpha  # the kink, where CCL has every subgradient up to alpha
    got = boundary + alpha * np.maximum(f - boundary, 0).mean()
    assert got == pytest.approx(value, abs=1e-6)
    # at a whole number of entries any margin between the two scores has the primal's weights
    alpha = 4.0
    _, w = primal(f, INF, math.log(alpha))
    scores.grad = None
    margin = np.sort(f)[[-4, -3]].mean()
    (alpha * torch.relu(scores - margin).mean()).backward()
    assert np.abs(scores.grad.numpy() * len(f) - w).max() < 1e-4


@pytest.mark.parametrize("order", [1.25, 2, 5])
def test_lemma_2_the_dual_formula_attains_the_primal(order):
    f, radius = row(), 0.8
    value, _ = primal(f, order, radius)
    eta = (math.exp((order - 1) * radius) - 1) / (order * (order - 1))
    c, conj = (1 + order * (order - 1) * eta) ** (1 / order), order / (order - 1)

    def objective(beta):
        return beta + c * np.mean(np.maximum(f - beta, 0) ** conj) ** (1 / conj)

    betas = np.linspace(-8, f.max(), 400_001)
    x = np.maximum(f[:, None] - betas[None, ::200], 0)
    coarse = betas[::200] + c * np.mean(x**conj, axis=0) ** (1 / conj)
    best = betas[::200][coarse.argmin()]
    fine = min(objective(b) for b in np.linspace(best - 0.01, best + 0.01, 2001))
    assert fine == pytest.approx(value, abs=1e-5)
    assert worst_case(tensor(f), order=order, radius=radius).value.item() == pytest.approx(
        fine, abs=1e-6
    )


@pytest.mark.parametrize("order", [1.25, 2, 5])
def test_lemma_3_the_weights_formula_is_the_primal_solution(order):
    f, radius = row(), 0.8
    _, w = primal(f, order, radius)
    beta = worst_case(tensor(f), order=order, radius=radius).dual.item()
    c, conj = math.exp(radius * (order - 1) / order), order / (order - 1)
    x = np.maximum(f - beta, 0)
    formula = c * x ** (1 / (order - 1)) / np.mean(x**conj) ** (1 / order)
    assert np.abs(formula - w).mean() < 2e-3
    assert formula.mean() == pytest.approx(1, abs=1e-9)  # E[w] = 1


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=8),
    st.floats(-3, 1.5),
    st.floats(-3, 1.5),
    st.floats(0, 1),
    st.sampled_from([1.001, 1.5, 2, 7, 150, INF]),
    st.floats(0, 3),
)
def test_appendix_a3_the_dual_objective_is_convex_in_beta(f, a, b, share, order, radius):
    f, betas = tensor(f), tensor([a, b, share * a + (1 - share) * b])
    at = dro.dual_objective(f.expand(3, -1), betas, order=order, radius=radius)
    chord = share * at[0] + (1 - share) * at[1]
    assert at[2] <= chord + 1e-9 * (1 + chord.abs())


def test_appendix_a4_limits_at_fixed_radius():
    f, radius = tensor(np.stack([row(40, seed) for seed in range(6)])), 1.2
    kl, regret = (worst_case(f, order=order, radius=radius) for order in (1, INF))
    near = worst_case(f, order=1 + 1e-6, radius=radius)
    far = worst_case(f, order=1e6, radius=radius)
    spread = f.amax(-1) - f.amin(-1)
    assert torch.all((kl.value - near.value).abs() <= 1e-6 * spread)
    assert (kl.weights - near.weights).abs().max() < 1e-3
    assert torch.all((regret.value - far.value).abs() <= 1e-5 * spread)
    assert (regret.weights - far.weights).abs().mean() < 1e-3
    assert kl.value.gt(regret.value + 1e-3).all()  # so that the limits are two


def test_appendix_a4_limits_at_fixed_weight_and_fixed_eta():
    f, c = tensor(row(40)), 2.0
    far = worst_case(f, order=1e6, radius=dro.radius_from_weight(c, 1e6))
    regret = worst_case(f, order=INF, radius=math.log(c))
    assert far.value.item() == pytest.approx(regret.value.item(), abs=1e-5)
    # the ball of fixed eta shrinks to nothing: it does not give CCL
    shrunk = worst_case(f, order=1e6, radius=dro.radius_from_eta(1.0, 1e6))
    assert shrunk.value.item() == pytest.approx(f.mean().item(), abs=1e-3)


# -------------------------------------------------------------------------- properties

scores_lists = st.lists(
    st.one_of(st.floats(-1, 1, width=32), st.sampled_from([-1.0, 0.0, 0.5, 1.0])),
    min_size=1,
    max_size=9,
)
orders = st.one_of(st.sampled_from([1, 1.5, 2, INF]), st.floats(1.001, 200))
radii = st.one_of(st.just(0.0), st.floats(1e-6, 3))
quick = settings(deadline=None, derandomize=True, max_examples=80)


def ball(f, order, radius):
    return worst_case(tensor(f), order=order, radius=radius)


@quick
@given(scores_lists, orders, radii)
def test_between_mean_and_max_and_bounds_on_the_weights(f, order, radius):
    got, n = ball(f, order, radius), len(f)
    assert np.mean(f) - 1e-9 <= got.value <= max(f) + 1e-9
    bound = math.exp(radius * (1 - 1 / order)) * n ** (1 / order)
    assert 1 - 1e-9 <= got.k1 <= min(bound, n) * (1 + 1e-7)
    assert 1 / n - 1e-9 <= got.effective_share <= 1 + 1e-9
    assert 0 <= got.truncated < 1
    assert (got.weights >= 0).all() and abs(got.weights.mean() - 1) < 1e-9
    assert dro.radius_of_weights(got.weights, order) <= radius + 1e-8
    if order == 1:
        assert got.truncated == 0
    elif order > 1.1:
        assert got.truncated == pytest.approx((got.weights == 0).double().mean().item())


@quick
@given(scores_lists, orders, radii, st.data())
def test_monotone_subadditive_and_unchanged_by_permutation(f, order, radius, data):
    same = st.lists(st.floats(-1, 1, width=32), min_size=len(f), max_size=len(f))
    g = data.draw(same)
    value = ball(f, order, radius).value
    other = ball(g, order, radius).value
    total = ball([a + b for a, b in zip(f, g, strict=True)], order, radius).value
    assert total <= value + other + 1e-8
    higher = ball([a + abs(b) for a, b in zip(f, g, strict=True)], order, radius).value
    assert higher >= value - 1e-8
    p = data.draw(st.permutations(range(len(f))))
    shuffled = ball([f[j] for j in p], order, radius)
    assert shuffled.value == pytest.approx(value.item(), abs=1e-10)


@quick
@given(scores_lists, orders, radii, st.floats(-1e6, 1e6), st.floats(-6, 6))
def test_translation_and_homogeneity(f, order, radius, shift, power):
    value, scale = ball(f, order, radius).value, 10**power
    moved = ball([x + shift for x in f], order, radius).value
    assert abs(moved - shift - value) <= 1e-9 * (1 + abs(shift))
    scaled = ball([x * scale for x in f], order, radius).value
    assert abs(scaled - scale * value) <= 1e-9 * scale
    assert ball([0 * x for x in f], order, radius).value == 0


@quick
@given(scores_lists, orders, orders, radii, radii)
def test_monotone_in_radius_and_order(f, order, other_order, radius, other_radius):
    (low, high), (small, large) = sorted([order, other_order]), sorted([radius, other_radius])
    assert ball(f, order, small).value <= ball(f, order, large).value + 1e-9
    assert ball(f, low, radius).value >= ball(f, high, radius).value - 1e-9


@quick
@given(scores_lists, orders, orders, radii)
def test_truncation_nests_and_k1_falls_as_the_order_grows(f, order, other_order, radius):
    low, high = (ball(f, g, radius) for g in sorted([order, other_order]))
    n, ties = len(f), f.count(max(f))
    assume(radius < math.log(n / ties) - 1e-6)
    assert high.k1 <= low.k1 + 1e-6
    assert low.truncated <= high.truncated + 1e-12
    # a score dropped at the lower order is dropped at the higher one, but for boundary rounding
    dropped, kept = low.weights == 0, high.weights > 1e-6
    assert max(order, other_order) == 1 or not (dropped & kept).any()
    regret = ball(f, INF, radius)
    assert regret.k1 == pytest.approx(math.exp(radius), rel=1e-9) or regret.truncated == 0
    if len(set(f)) == n:
        share = math.ceil(n * math.exp(-radius) - 1e-9) / n
        assert regret.truncated == pytest.approx(1 - share, abs=1e-9)


@quick
@given(scores_lists, orders, radii, st.floats(-2, 2))
def test_any_dual_value_gives_an_upper_bound_which_the_best_attains(f, order, radius, dual):
    got, f = ball(f, order, radius), tensor(f)
    dual = abs(dual) if order == 1 else dual
    bound = dro.dual_objective(f, dual, order=order, radius=radius)
    assert bound >= got.value - 1e-9
    best = dro.dual_objective(f, got.dual, order=order, radius=radius)
    assert best == pytest.approx(got.value.item(), abs=1e-7)


@quick
@given(scores_lists, st.one_of(st.sampled_from([1, 2]), st.floats(1.001, 60)), st.floats(0.01, 5))
def test_the_penalty_is_a_ball_of_its_own_radius(f, order, temperature):
    got = worst_case(tensor(f), order=order, temperature=temperature)
    radius = dro.radius_of_weights(got.weights, order)
    eta = radius if order == 1 else torch.expm1((order - 1) * radius) / (order * (order - 1))
    mean = (got.weights * tensor(f)).mean()
    assert got.value == pytest.approx((mean - temperature * eta).item(), abs=1e-7)
    assert mean == pytest.approx(ball(f, order, radius.item()).value.item(), abs=1e-6)
    assert got.weights.mean() == pytest.approx(1, abs=1e-9)


@quick
@given(scores_lists, st.floats(1.01, 100), st.floats(-1.5, 0.99))
def test_radius_of_margin_inverts_the_solver(f, order, margin):
    assume(max(f) > margin + 1e-6)
    radius = dro.radius_of_margin(tensor(f), margin, order)
    n, ties = len(f), f.count(max(f))
    assume(1e-6 < radius < math.log(n / ties) - 1e-6)
    got = ball(f, order, radius.item())
    x = np.maximum((np.array(f) - margin) / (max(f) - margin), 0)
    w = np.where(x > 0, x ** (1 / (order - 1)), 0)
    assert np.abs(w / w.mean() - got.weights.numpy()).mean() < 1e-5


# --------------------------------------------------------- single precision, every row

sizes = st.integers(2, 80)
seeds = st.integers(0, 2**32 - 1)
exponents = st.floats(0.2, 12)


@st.composite
def skewed_rows(draw):
    """A float32 row of one of the shapes that scores, losses and probabilities come in."""
    n, k = draw(sizes), draw(exponents)
    rng = np.random.default_rng(draw(seeds))
    normal, uniform, ranks = rng.normal(size=n), rng.uniform(size=n), np.arange(n)
    family = draw(st.sampled_from(sorted(FAMILIES)))
    with np.errstate(over="ignore", under="ignore"):
        f = FAMILIES[family](normal, uniform, ranks, k)
        f = (
            f
            * draw(st.sampled_from([1, 1, -1]))
            * 10.0 ** draw(st.sampled_from([0, 0, 0, -30, 30]))
        )
        f = f + np.abs(f).max() * draw(st.sampled_from([0, 0, 0, 1, -30]))
        f = rng.permutation(np.clip(f, -1e37, 1e37).astype(np.float32))
    if draw(st.booleans()):
        f = np.insert(f, rng.integers(n + 1, size=draw(st.integers(1, 5))), -np.inf)
    return torch.from_numpy(f)


FAMILIES = {
    "heavy-tailed": lambda normal, uniform, ranks, k: uniform ** (-k / 3),
    "log-normal": lambda normal, uniform, ranks, k: np.exp(k / 3 * normal),
    "squares": lambda normal, uniform, ranks, k: normal**2,
    "probabilities": lambda normal, uniform, ranks, k: np.exp(k * (normal - normal.max())),
    "losses": lambda normal, uniform, ranks, k: -np.log(uniform),
    "one outlier": lambda normal, uniform, ranks, k: np.where(ranks == 0, 10**k, normal),
    "nearly constant": lambda normal, uniform, ranks, k: 1 + 10 ** -(k / 2) * normal,
    "Zipf": lambda normal, uniform, ranks, k: (ranks + 1.0) ** -k,
    "geometric": lambda normal, uniform, ranks, k: np.exp(-k * ranks / 9),
    "ties": lambda normal, uniform, ranks, k: (3 * normal).round(),
    "two values": lambda normal, uniform, ranks, k: (uniform < k / 13) * 1.0,
    "clusters": lambda normal, uniform, ranks, k: (ranks < 3) + 10**-k * normal,
    "cosines": lambda normal, uniform, ranks, k: np.tanh(0.3 * normal),
}
all_orders = st.one_of(st.sampled_from([1, 2, INF]), st.floats(1.0001, 3), st.floats(3, 1000))


def check_single_precision(f, order, share):
    """Against double precision on the same scores, with the divergence of the weights measured."""
    valid = f > -INF
    n, ties = int(valid.sum()), int((f == f.max()).sum())
    assume(ties < n)
    radius = torch.tensor(share * math.log(n / ties))
    got, exact = (worst_case(x, order=order, radius=radius) for x in (f, f.double()))
    w = got.weights.double()
    w = w / w[valid].mean()
    assert (w[~valid] == 0).all()
    largest = float(f[valid].abs().max())
    assert abs(float(got.value) - float(exact.value)) <= 2e-5 * largest
    if order == INF:  # a largest weight of e^ρ at most, whatever the number of them
        assert w.max() <= math.exp(radius) * (1 + 1e-3)
    else:
        assert abs(dro.radius_of_weights(exact.weights, order) - radius) <= 1e-7
        assert abs(dro.radius_of_weights(w, order) - radius) <= 1e-3 * max(1, radius)
    assert (got.weights - exact.weights)[valid].abs().mean() / 2 <= 2e-3


@settings(deadline=None, derandomize=True, max_examples=600)
@given(skewed_rows(), all_orders, st.one_of(st.floats(1e-5, 0.999), st.floats(0.05, 0.95)))
def test_single_precision_is_right_whatever_the_row(f, order, share):
    check_single_precision(f, order, share)


@pytest.mark.parametrize("order", [1, 1.02, 1.5, 2, 2.5, 9, 150, INF])
@pytest.mark.parametrize("name", FAMILIES)
def test_single_precision_on_long_rows(name, order):
    rng, ranks = np.random.default_rng(1), np.arange(1000)
    for k in (0.5, 3, 8):
        row = FAMILIES[name](rng.normal(size=1000), rng.uniform(size=1000), ranks, k)
        f = torch.from_numpy(row.astype(np.float32))
        if f.min() < f.max():
            for share in (0.02, 0.3, 0.7):
                check_single_precision(f, order, share)


def test_single_precision_where_it_once_was_wrong():
    zipf = 1 / torch.arange(1, 1001.0) ** 8
    got = worst_case(zipf, order=9, radius=3.0)
    assert got.value == pytest.approx(0.03106, abs=1e-5)
    assert dro.radius_of_weights(got.weights, 9) == pytest.approx(3, abs=1e-3)
    squares = torch.randn(1000, generator=torch.Generator().manual_seed(0)) ** 2
    double = worst_case(squares.double(), order=2.5, radius=0.5).value
    assert worst_case(squares, order=2.5, radius=0.5).value == pytest.approx(
        double.item(), rel=1e-5
    )


@pytest.mark.parametrize("order", [1, 1.5, 2, 3, 10, 150])
def test_ordinary_rows_are_not_solved_twice(order, monkeypatch):
    from drrl_core.dro import _solver

    solved, inner = [], _solver._solve

    def spy(scores, *how):
        solved.append((scores.dtype, len(scores)))
        return inner(scores, *how)

    monkeypatch.setattr(_solver, "_solve", spy)
    f = torch.randn(512, 64, generator=torch.Generator().manual_seed(2)).mul(0.25).clamp(-1, 1)
    for size in ({"radius": 0.1}, {"radius": 1.0}, {"radius": 2.5}, {"temperature": 0.2}):
        worst_case(f, order=order, **size)
    assert solved == [(torch.float32, 512)] * 4
    # Where the five largest are 1e-30 of the range apart, single precision has no range left.
    both = torch.cat([f[:1], -torch.exp(-1.2 * torch.arange(64.0))[None]])
    worst_case(both, order=order, radius=2.5)
    assert solved[4:] == [(torch.float32, 2), (DOUBLE, 1)]


@settings(deadline=None, derandomize=True, max_examples=200)
@given(skewed_rows(), all_orders, st.floats(-5, 0.5), st.floats(-4, 1), st.booleans(), st.data())
def test_masked_entries_change_nothing(f, order, log_radius, log_temperature, single, data):
    f = f[f > -INF] if single else f[f > -INF].double()
    where = sorted(data.draw(st.lists(st.integers(0, len(f)), min_size=1, max_size=6)))
    full = torch.from_numpy(np.insert(f.numpy(), where, -np.inf))
    largest, tolerance = float(f.abs().max()), 4e-5 if single else 1e-9
    sizes = [{"radius": 10**log_radius}]
    if order < INF:
        sizes += [{"temperature": 10**log_temperature * max(largest, 1e-37)}]
    for size in sizes:
        a, b = (worst_case(x, order=order, **size) for x in (f, full))
        assert (b.weights[full == -INF] == 0).all()
        assert abs(float(a.value) - float(b.value)) <= tolerance * largest, size
        error = (a.weights - b.weights[full > -INF]).abs().mean() / 2
        assert error <= (4e-3 if single else 1e-6), size


def test_masked_entries_at_order_2_and_a_small_radius():
    f = torch.tensor([0.1, 0.2, 0.3, 0.4, -INF, -INF])
    got = worst_case(f, order=2, radius=0.9e-3).value.item()
    assert got == pytest.approx(0.25 + math.sqrt(math.expm1(0.9e-3) * 0.0125), abs=1e-6)


# -------------------------------------------------------------------------- derivatives


@pytest.mark.parametrize("order", [1, 1 + 1e-6, 1.5, 2, 5, 150, INF])
def test_gradient_of_the_ball(order):
    f = torch.randn(3, 7, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    f = f.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: worst_case(x, order=order, radius=0.6).value, f)
    worst = worst_case(f, order=order, radius=0.6)
    worst.value.sum().backward()
    assert torch.allclose(f.grad, worst.weights / 7)
    assert not worst.weights.requires_grad and not worst.dual.requires_grad


@pytest.mark.parametrize("order", [1, 1.5, 2, 5])
def test_gradient_of_the_penalty(order):
    f = torch.randn(3, 7, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))
    f = f.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: worst_case(x, order=order, temperature=0.9).value, f)


@pytest.mark.parametrize("order", [1, 1.5, 2, 5, INF])
def test_gradient_of_the_dual_objective(order):
    f = torch.randn(3, 7, dtype=DOUBLE, generator=torch.Generator().manual_seed(3))
    dual = tensor([0.3, 0.11, 0.5]).requires_grad_()
    f = f.requires_grad_()

    def bound(x, y):
        return dro.dual_objective(x, y, order=order, radius=0.6)

    assert torch.autograd.gradcheck(bound, (f, dual))


def by_size(order):
    """The value as a function of the scores and of each size there is."""
    names = ["radius"] if order == INF else ["radius", "temperature"]
    return [lambda f, r, n=name: worst_case(f, order=order, **{n: r}).value for name in names]


@pytest.mark.parametrize("order", [1, 1.5, 2, 3, 10, INF])
def test_derivatives_to_second_order_in_scores_and_size(order):
    f = torch.randn(2, 7, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    f[0, 3] = -INF
    mask, free = f == -INF, torch.where(f == -INF, 0, f).requires_grad_()
    size = tensor([0.4, 0.7]).requires_grad_()
    for value in by_size(order):
        masked = lambda f, r, v=value: v(torch.where(mask, -INF, f), r)  # noqa: E731
        assert torch.autograd.gradcheck(masked, (free, size), check_forward_ad=True)
        assert torch.autograd.gradgradcheck(masked, (free, size), check_fwd_over_rev=True)


@pytest.mark.parametrize("order", [1, 1.5, 2, 3, 10, INF])
def test_all_ways_to_the_hessian_agree(order):
    f = torch.randn(7, dtype=DOUBLE, generator=torch.Generator().manual_seed(3))
    func = torch.func
    for value in by_size(order):
        own = lambda x, v=value: v(x, 0.5)  # noqa: E731
        ways = [func.hessian(own), func.jacrev(func.jacrev(own)), func.jacfwd(func.jacfwd(own))]
        hessian = torch.autograd.functional.hessian(own, f)
        assert (hessian.abs().max() > 1e-3) == (order < INF)
        assert torch.allclose(hessian.sum(-1), torch.zeros(7, dtype=DOUBLE), atol=1e-12)
        for way in ways:
            assert torch.allclose(way(f), hessian, atol=1e-12)
        if order == INF:  # also where w vanishes: the ball is positively homogeneous
            assert (hessian == 0).all()


@pytest.mark.parametrize("order", [1, 1.5, 3, INF])
def test_mapped_over_any_dimension(order):
    f = torch.randn(3, 7, dtype=DOUBLE, generator=torch.Generator().manual_seed(4))
    size = tensor([0.3, 0.5, 0.9])
    for value in by_size(order):
        expected = value(f, size)
        assert torch.equal(torch.vmap(value)(f, size), expected)
        assert torch.equal(torch.vmap(value, in_dims=(1, 0))(f.T, size), expected)
        one = torch.vmap(value, in_dims=(None, 0))(f[0], size)
        assert torch.allclose(one, value(f[:1].expand(3, -1), size), atol=1e-12)
        slopes = torch.vmap(torch.func.grad(value))(f, size)
        assert torch.allclose(slopes.sum(-1), torch.ones(3, dtype=DOUBLE))
    with pytest.raises(ValueError, match="radius must lie in"):
        torch.vmap(lambda x: worst_case(x, order=order, radius=-1.0).value)(f)


def test_a_third_derivative_is_refused():
    f = torch.randn(5, dtype=DOUBLE, generator=torch.Generator().manual_seed(5)).requires_grad_()
    own = lambda x: worst_case(x, order=3, radius=0.5).value  # noqa: E731
    (slope,) = torch.autograd.grad(own(f), f, create_graph=True)
    (bent,) = torch.autograd.grad(slope[0], f, create_graph=True)
    with pytest.raises(RuntimeError, match="to second order only"):
        torch.autograd.grad(bent[0], f)
    for last in (torch.func.jacrev, torch.func.jacfwd):
        with pytest.raises(RuntimeError, match="to second order only"):
            last(torch.func.hessian(own))(f.detach())


def test_the_radius_at_its_ends_and_a_row_of_equal_scores():
    f = tensor([[0.3, 0.1, -0.2], [0.3, 0.1, -0.2], [0.5, 0.5, 0.5]])
    for order in (1, 1.5, 2, 5, INF):
        radius = tensor([0.0, 5.0, 0.4]).requires_grad_()
        worst_case(f, order=order, radius=radius).value.sum().backward()
        assert radius.grad[1:].tolist() == [0, 0]
        assert radius.grad[0] == INF if order < INF else radius.grad[0] > 0


def test_gradients_stay_finite_at_the_edges():
    for order in (1, 1.001, 2, 200, INF):
        for radius in (0.0, 1e-6, 20.0):
            f = tensor([[1.0, 1.0, -1.0, -INF], [0.0, 0.0, 0.0, -INF]], torch.float32)
            f.requires_grad_()
            worst = worst_case(f, order=order, radius=radius)
            worst.value.sum().backward()
            assert torch.isfinite(f.grad).all() and (f.grad[:, 3] == 0).all()
    f = tensor([0.1, 0.2, -INF]).requires_grad_()
    dual = tensor(0.9).requires_grad_()  # above every score: all truncated
    dro.dual_objective(f, dual, order=150, radius=0.5).backward()
    assert (f.grad == 0).all() and dual.grad == 1


# ------------------------------------------------------------------- shapes and numbers


def test_masked_entries_count_for_nothing():
    f = tensor([0.4, -0.3, 0.1, 0.9, 0.2])
    full = torch.cat([tensor([-INF]), f[:2], tensor([-INF, -INF]), f[2:]])
    for order in ORDERS:
        for size in ({"radius": 0.4}, {"temperature": 0.3}, {"radius": 0}, {"radius": 9}):
            if order == INF and "temperature" in size:
                continue
            a, b = (worst_case(x, order=order, **size) for x in (f, full))
            assert (b.weights[full == -INF] == 0).all()
            assert torch.allclose(a.weights, b.weights[full > -INF], atol=1e-9)
            for name in ("value", "k1", "truncated", "effective_share"):
                assert torch.allclose(getattr(a, name), getattr(b, name), atol=1e-9), name
    assert dro.radius_of_temperature(full, 0.3) == pytest.approx(
        dro.radius_of_temperature(f, 0.3).item()
    )
    for order in (1.5, 20, INF):
        radius = dro.radius_of_margin(f, 0.0, order)
        assert dro.radius_of_margin(full, 0.0, order) == pytest.approx(radius.item())
        a, b = (dro.dual_objective(x, 0.05, order=order, radius=0.4) for x in (f, full))
        assert a == pytest.approx(b.item())


def test_batches_are_rows_side_by_side():
    f = torch.randn(2, 3, 5, dtype=DOUBLE, generator=torch.Generator().manual_seed(4))
    radius = tensor([[0.1], [0.7]])
    for order in (1, 1.5, 5, INF):
        whole = worst_case(f, order=order, radius=radius)
        assert whole.value.shape == (2, 3) and whole.weights.shape == f.shape
        for i in range(2):
            for j in range(3):
                one = worst_case(f[i, j], order=order, radius=radius[i, 0])
                for a, b in zip(whole, one, strict=True):
                    assert torch.allclose(a[i, j], b, atol=1e-12)


@pytest.mark.parametrize("order", [1, 1.5, 2, 5])
def test_other_rows_do_not_change_a_row(order):
    f = torch.randn(30, 40, generator=torch.Generator().manual_seed(11))
    f[1::3] = f[1::3].exp() ** 2  # some rows take more steps than others
    f[2::3, ::4] = -INF
    whole = worst_case(f, order=order, radius=0.8)
    for i in range(30):
        one = worst_case(f[i], order=order, radius=0.8)
        assert torch.allclose(whole.weights[i], one.weights, rtol=1e-4, atol=1e-4)
        exact = worst_case(f[i].double(), order=order, radius=0.8)
        assert abs(one.value - exact.value) <= 1e-5 * f[i][f[i] > -INF].abs().max()


def test_blocks_do_not_show(monkeypatch):
    monkeypatch.setattr(dro._solver, "BLOCK", 2**18)  # 13 rows
    f = torch.randn(40, 20_000, dtype=torch.float32, generator=torch.Generator().manual_seed(5))
    radius = torch.linspace(0, 3, 40)
    for order in (1.5, 20):
        whole = worst_case(f, order=order, radius=radius)
        for i in (0, 17, 39):
            one = worst_case(f[i], order=order, radius=radius[i])
            # In sum: at order 20 a weight just above β is (f - β)^(1/19), and tells of all digits.
            assert (whole.weights[i] - one.weights).abs().mean() < 1e-5
            assert torch.allclose(whole.value[i], one.value, atol=1e-6)


@pytest.mark.parametrize("size", [{"radius": 0.7}, {"temperature": 0.4}])
def test_the_two_algorithms_meet_at_order_2(size):
    f = torch.randn(50, 60, dtype=DOUBLE, generator=torch.Generator().manual_seed(6))
    below, above = (worst_case(f, order=order, **size) for order in (2, 2 + 1e-12))
    for name in ("value", "weights", "dual", "log_dual", "k1", "effective_share"):
        assert torch.allclose(getattr(below, name), getattr(above, name), atol=1e-7), name
    assert torch.equal(below.truncated, above.truncated)


@pytest.mark.parametrize("order", [1.02, 1.5, 2, 5, 20, 150])
def test_log_dual_rebuilds_the_weights(order):
    f = torch.randn(9, dtype=DOUBLE, generator=torch.Generator().manual_seed(7))
    for size in ({"radius": 0.9}, {"temperature": 0.5}):
        got = worst_case(f, order=order, **size)
        lowest = f[got.weights > 0].min()
        log_x = torch.logaddexp((f - lowest).clamp_min(0).log(), got.log_dual)
        w = torch.where(f >= lowest, (log_x - log_x.max()).div(order - 1).exp(), 0)
        assert torch.allclose(w / w.mean(), got.weights, atol=1e-9)


def test_the_gap_to_the_lowest_active_score_may_underflow():
    f = [1.0, 0.5, 0.0, -0.5, -1.0]
    w = tensor([1, 1, 1, 1e-3, 0])  # at order 150 the gap is 1e-447 or so
    radius = dro.radius_of_weights(w / w.mean(), 150).item()
    got = ball(f, 150, radius)
    value, expected = reference(f, 150, radius)
    assert got.log_dual < math.log(1e-320)
    assert np.abs(got.weights.numpy() - np.array([float(x) for x in expected])).max() < 1e-9
    assert got.value == pytest.approx(float(value), abs=1e-12)


def test_half_precision_is_computed_in_float32():
    f = torch.randn(4, 64, generator=torch.Generator().manual_seed(8))
    for dtype in (torch.bfloat16, torch.float16):
        low = f.to(dtype).requires_grad_()
        got = worst_case(low, order=5, radius=0.5)
        assert got.value.dtype == torch.float32
        assert torch.equal(got.value, worst_case(low.detach().float(), order=5, radius=0.5).value)
        got.value.sum().backward()
        assert low.grad.dtype == dtype and torch.isfinite(low.grad).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cpu_and_cuda_agree():
    f = torch.randn(8, 300, generator=torch.Generator().manual_seed(9))
    for order in (1, 1.5, 5, 150, INF):
        a, b = (worst_case(x, order=order, radius=0.8) for x in (f, f.cuda()))
        assert torch.allclose(a.value, b.value.cpu(), atol=1e-5)
        assert torch.allclose(a.weights, b.weights.cpu(), atol=1e-3)


@pytest.mark.parametrize("order", [1, 1.5, 5, INF])
def test_compiles_as_one_graph(order):
    f = torch.randn(6, 16, generator=torch.Generator().manual_seed(10))

    def loss(x):
        return worst_case(x, order=order, radius=0.5).value.mean()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    a, b = f.clone().requires_grad_(), f.clone().requires_grad_()
    loss(a).backward()
    compiled(b).backward()
    assert torch.allclose(a.grad, b.grad, atol=1e-6)


# --------------------------------------------------------------------------- penalty


def test_penalty_at_order_1_is_log_mean_exp():
    f = tensor(row(30))
    got = worst_case(f, order=1, temperature=0.2)
    assert got.value == pytest.approx(0.2 * math.log(np.mean(np.exp(f.numpy() / 0.2))))
    assert got.dual == pytest.approx(0.2)
    assert torch.allclose(got.weights, 30 * torch.softmax(f / 0.2, -1))
    near = worst_case(f, order=1 + 1e-6, temperature=0.2)
    assert near.value == pytest.approx(got.value.item(), abs=1e-6)


def test_penalty_at_order_2_is_sparsemax():
    f, temperature = row(30), 0.05
    z = f / (30 * temperature)
    ordered = np.sort(z)[::-1]
    k = max(j for j in range(1, 31) if 1 + j * ordered[j - 1] > ordered[:j].sum())
    sparsemax = np.maximum(z - (ordered[:k].sum() - 1) / k, 0)
    got = worst_case(tensor(f), order=2, temperature=temperature)
    assert np.allclose(got.weights.numpy() / 30, sparsemax)


@pytest.mark.parametrize("order", [1.25, 3, 20])
def test_penalty_solves_its_primal(order):
    f, temperature = row(), 0.3
    w = cp.Variable(12, nonneg=True)
    penalty = (cp.sum(cp.power(w, order, max_denom=4096)) / 12 - 1) / (order * (order - 1))
    problem = cp.Problem(cp.Maximize(w @ f / 12 - temperature * penalty), [cp.sum(w) == 12])
    problem.solve(solver=cp.CLARABEL)
    got = worst_case(tensor(f), order=order, temperature=temperature)
    assert got.value.item() == pytest.approx(problem.value, abs=1e-5)
    assert np.abs(got.weights.numpy() - w.value).mean() < 5e-3


@pytest.mark.parametrize("order", [1, 1.01, 1.5, 2, 3, 10, 20, 150])
def test_penalty_in_float32(order):
    f = torch.stack([tensor(row(200, seed), torch.float32) for seed in range(20)])
    for temperature in (0.01, 0.3, 1, 100):
        double = worst_case(f.double(), order=order, temperature=temperature)
        got = worst_case(f, order=order, temperature=temperature)
        error = (got.value - double.value).abs() / f.abs().amax(-1)
        assert error.max() <= 1e-5, temperature
        assert (got.weights - double.weights).abs().mean() <= 1e-4


@pytest.mark.parametrize("dtype,tolerance", [(DOUBLE, 1e-9), (torch.float32, 2e-5)])
@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    st.one_of(scores_lists, st.sampled_from([[0.0, 0.2, 0.3, 1.0]])),
    st.one_of(st.sampled_from([1, 2, 3, 150]), st.floats(1, 150)),
    st.floats(-6, 1),
)
def test_the_penalty_is_what_its_own_weights_say(dtype, tolerance, f, order, power):
    temperature, f = 10**power, tensor(f, dtype)
    got = worst_case(f, order=order, temperature=temperature)
    w = got.weights.double()
    with mp.workdps(60):
        g, each = mp.mpf(order), [mp.mpf(x) for x in w.tolist()]
        mean = mp.fsum(each) / len(each)
        each = [x / mean for x in each]
        if order == 1:
            divergence = naive_divergence(each, 1)
        else:
            divergence = (mp.fsum(x**g for x in each) / len(each) - 1) / (g * (g - 1))
        heard = mp.fsum(x * y for x, y in zip(each, f.tolist(), strict=True)) / len(each)
        expected = float(heard - temperature * divergence)
    assert abs(got.value - expected) <= tolerance * max(1e-3, float(f.abs().max()))
    with mp.workdps(60):  # the dual: weights of mean 1 follow from it, or from its distance
        s, unit = (1 / (mp.mpf(order) - 1), mp.mpf(temperature)) if order > 1 else (0, 0)
        if order > 1 and dtype == DOUBLE and got.log_dual > -600:
            gap, low = mp.exp(mp.mpf(got.log_dual.item())), float(f[w > 0].min())
            x = [mp.mpf(y) - mp.mpf(low) + gap for y in f.tolist() if y >= low]
            mean = mp.fsum((y / (unit * s)) ** s for y in x) / len(f)
            assert abs(mean - 1) <= 1e-9 + 1e-14 * s
            assert float(got.dual) == pytest.approx(low - float(gap), abs=1e-9 * (1 + float(gap)))
        elif order == 1:
            assert float(got.dual) == pytest.approx(temperature, rel=1e-5)


def test_the_penalty_where_only_the_top_is_heard():
    got = worst_case(tensor([0.0, 0.2, 0.3, 1.0]), order=3, temperature=0.05)
    assert got.weights.tolist() == [0, 0, 0, 4]
    assert got.value == pytest.approx(0.875) and got.dual == pytest.approx(0.6)


def test_penalty_weights_satisfy_their_formula():
    f = tensor(np.stack([row(20, seed) for seed in range(5)]))
    for order in (1.001, 1.5, 2, 3, 5):
        temperature = 0.4
        got = worst_case(f, order=order, temperature=temperature)
        x = (f - got.dual[:, None]).clamp_min(0) * (order - 1) / temperature
        assert torch.allclose(x ** (1 / (order - 1)), got.weights, atol=1e-6), order


# ------------------------------------------------------- conversions and diagnostics


def test_conversions_are_the_formulas_and_invert_each_other():
    for order in (1.5, 2, 7.5, 150):
        conj = order / (order - 1)
        for radius in (0.0, 1e-9, 0.3, 2.0):
            c, eta = dro.weight_from_radius(radius, order), dro.eta_from_radius(radius, order)
            assert c == pytest.approx(math.exp(radius / conj))
            assert c == pytest.approx((1 + order * (order - 1) * eta) ** (1 / order))
            assert dro.radius_from_weight(c, order) == pytest.approx(radius, abs=1e-12)
            assert dro.radius_from_eta(eta, order) == pytest.approx(radius, rel=1e-9)
            both = dro.weight_from_radius(tensor([radius, 1.0]), order)
            assert both[0] == pytest.approx(c) and isinstance(c, float)
    assert dro.weight_from_radius(2.0, INF) == pytest.approx(math.exp(2))
    assert dro.weight_from_radius(5000.0, 2) == INF
    assert dro.radius_from_weight(3.0, INF) == pytest.approx(math.log(3))
    assert dro.weight_from_radius(2.0, 1) == 1 and dro.eta_from_radius(2.0, 1) == 2
    assert dro.radius_from_eta(2.0, 1) == 2 and dro.eta_from_radius(5.0, 1e6) == INF
    assert [dro.order_conj(x) for x in (1, 2, 5, INF)] == [INF, 2, 1.25, 1]


def test_conversions_refuse_what_does_not_exist():
    for call in (
        lambda: dro.radius_from_weight(2.0, 1),
        lambda: dro.radius_from_weight(0.9, 2),
        lambda: dro.eta_from_radius(1.0, INF),
        lambda: dro.radius_from_eta(1.0, INF),
        lambda: dro.weight_from_radius(-1.0, 2),
        lambda: dro.breakdown_point(-1.0),
        lambda: dro.weight_from_radius(1.0, 0.5),
        lambda: dro.eta_from_radius(math.nan, 2),
        lambda: dro.weight_from_radius(tensor([0.1, -0.1]), 2),
    ):
        with pytest.raises(ValueError, match=r"must lie in|does not exist"):
            call()


def test_radius_of_temperature_and_back():
    f = tensor(np.stack([row(30, seed) for seed in range(5)]))
    radius = dro.radius_of_temperature(f, 0.2)
    q = torch.softmax(f / 0.2, -1)
    assert torch.allclose(radius, (q * (q * 30).log()).sum(-1))
    back = worst_case(f, order=1, radius=radius)
    assert torch.allclose(back.dual, torch.full_like(radius, 0.2), rtol=1e-9)
    assert torch.allclose(back.log_dual, torch.full_like(radius, math.log(0.2)), rtol=1e-9)


@quick
@given(scores_lists, orders, radii, st.data())
def test_from_the_breakdown_point_on_nothing_is_gained_by_telling_false_negatives_apart(
    f, order, radius, data
):
    n, count = len(f), data.draw(st.integers(1, len(f)))
    assume(abs(radius + math.log(count / n)) > 0.02)
    broken = count / n > dro.breakdown_point(radius)
    if broken:  # whatever the scores, so that 0, which equal scores reach, is the least
        false = data.draw(st.permutations(f))[:count]
        assert ball(f, order, radius).value - np.mean(false) >= -1e-9
    apart = [1.0] * count + [0.0] * (n - count)  # told apart from all others
    gain = 1 - ball(apart, order, radius).value
    assert (gain < 1e-9) == broken
    tau = 0.2  # a penalty gains at any share
    assert 1 - worst_case(tensor(apart), order=1, temperature=tau).value > 1e-3 or count == n


@pytest.mark.parametrize("order", [1.01, 1.5, 2, 7, 150, INF])
def test_radius_of_margin_is_the_formula(order):
    f = row(30)
    got = dro.radius_of_margin(tensor(f), 0.05, order)
    x = [mp.mpf(v) - mp.mpf(0.05) for v in f if v > 0.05]
    if order == INF:
        expected = -mp.log(mp.mpf(len(x)) / 30)
    else:
        g, conj = mp.mpf(order), mp.mpf(order) / (mp.mpf(order) - 1)
        top = (mp.fsum(v**conj for v in x) / 30) ** (1 / g)
        expected = conj * mp.log(top / (mp.fsum(v ** (conj - 1) for v in x) / 30))
    assert got.item() == pytest.approx(float(expected), rel=1e-9)
    assert dro.radius_of_margin(tensor(f), max(f) + 1, order).isnan()


@pytest.mark.parametrize("order", [1, 1.3, 2, 7.0, 60, INF])
@pytest.mark.parametrize("radius", [0.05, 0.6])
def test_turning_the_order_holds_what_it_says(order, radius):
    f = tensor(PROBLEMS["plain"] + [-INF])
    weights = {
        hold: dro.turn(f, order=order, radius=radius, hold=hold).weights for hold in dro.HOLDS
    }
    size = {hold: float(dro.radius_of_weights(w, order)) for hold, w in weights.items()}
    assert size["radius"] == pytest.approx(radius)
    c, eta = math.exp(radius / 2), math.expm1(radius) / 2  # at order 2
    if order == 1:
        covered = dro.turn(f, order=1, radius=radius, hold="weight")
        assert covered.truncated == 7 / 8  # as it is next to order 1
        assert size["weight"] == pytest.approx(math.log(8)) and size["eta"] == pytest.approx(eta)
    else:
        conj = 1 if order == INF else order / (order - 1)
        assert math.exp(size["weight"] / conj) == pytest.approx(c)
    if 1 < order < INF:
        w = weights["eta"][:-1].numpy()
        assert np.mean(w**order - 1) / (order * (order - 1)) == pytest.approx(eta)
    if order == INF:
        assert size["eta"] == size["temperature"] == 0
    else:  # the temperature at which the penalty's worst case at order 2 lies on the ball's rim
        at = lambda t: float(  # noqa: E731
            dro.radius_of_weights(worst_case(f, order=2, temperature=t).weights, 2)
        )
        temperature = brentq(lambda t: at(t) - radius, 0.05, 50)
        expected = worst_case(f, order=order, temperature=temperature).weights
        assert torch.allclose(weights["temperature"], expected, atol=1e-6)


def test_turning_the_order_at_the_ends_of_the_radius_and_on_bad_input():
    f = tensor([PROBLEMS["plain"], PROBLEMS["ties"] + [-INF]])
    for hold in dro.HOLDS:
        for order in (1, 2, 40, INF):
            none = dro.turn(f, order=order, radius=0.0, hold=hold)
            assert torch.allclose(none.k1, tensor([1.0, 1.0]))
        most = dro.turn(f, order=2, radius=900.0, hold=hold)
        assert torch.allclose(most.effective_share, tensor([1 / 8, 2 / 7]))
        each = dro.turn(f, order=1.5, radius=tensor([0.2, 0.7]), hold=hold).k1
        assert each[1] == dro.turn(f[1], order=1.5, radius=0.7, hold=hold).k1
    with pytest.raises(ValueError, match=r"hold must be one of radius, .*, not 'rho'"):
        dro.turn(f, order=2, radius=1.0, hold="rho")


def test_diagnostics_by_hand():
    got = ball([3.0, 2.0, 1.0, 0.0], INF, math.log(1.6))  # 2.5 of 4 entries, at weight 1.6
    assert got.weights.tolist() == pytest.approx([1.6, 1.6, 0.8, 0.0])
    assert got.k1 == pytest.approx(1.6) and got.truncated == 0.25 and got.dual == 1
    assert got.effective_share == pytest.approx(4 / (2 * 1.6**2 + 0.8**2))
    tied = ball([1.0, 0.5, 0.5, 0.0], INF, math.log(2))
    assert tied.weights.tolist() == pytest.approx([2, 1, 1, 0])
    marked = torch.tensor([[True, False, True, False], [False] * 4])
    ratio = dro.k2(got.weights.expand(2, -1), marked)
    assert ratio[0] == pytest.approx(1.2) and ratio[1].isnan()


def test_the_edges_of_the_radius():
    f = tensor([0.5, 0.5, -0.2, 0.1])
    for order in ORDERS:
        mean = worst_case(f, order=order, radius=0)
        assert torch.allclose(mean.weights, torch.ones(4, dtype=DOUBLE))
        for radius in (math.log(2), 5.0):
            point = worst_case(f, order=order, radius=radius)
            assert torch.allclose(point.weights, tensor([2.0, 2, 0, 0]))
            assert point.value == 0.5 and point.effective_share == pytest.approx(0.5)
            assert point.truncated == (0 if order == 1 else 0.5)


def test_effective_share_across_orders():
    f = torch.randn(4, 20_000, dtype=DOUBLE, generator=torch.Generator().manual_seed(11))
    radius = 1.5
    shares = [
        worst_case(f, order=g, radius=radius).effective_share.mean().item()
        for g in (1, 1.5, 2, 3, 5, 10, INF)
    ]
    assert shares[0] < shares[1] < shares[2] < min(shares[3:6])  # low orders use less, not more
    assert shares[2] == pytest.approx(math.exp(-radius), abs=1e-9)
    assert shares[-1] == pytest.approx(math.exp(-radius), abs=1e-4)


# ---------------------------------------------------------------------------------- a prior


def sizes_of(order):
    """A few of each kind of size there is."""
    temperatures = [] if order >= 1e6 else [{"temperature": t} for t in (0.05, 0.7)]
    return [{"radius": r} for r in (0, 1e-6, 0.3, 1.5, 6)] + temperatures


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    st.lists(st.tuples(st.integers(-16, 16), st.integers(0, 40)), min_size=1, max_size=9),
    st.sampled_from(ORDERS),
    st.sampled_from([DOUBLE, torch.float32]),
    st.floats(1e-3, 1e3),
)
def test_a_prior_of_integers_is_every_score_so_many_times(entries, order, dtype, scale):
    f, times = tensor([x / 16 for x, _ in entries], dtype), torch.tensor([k for _, k in entries])
    assume(times.sum() > 0)
    repeated, tolerance = f.repeat_interleave(times), 1e-9 if dtype == DOUBLE else 2e-5
    index = torch.arange(len(f)).repeat_interleave(times)
    for size in sizes_of(order):
        got = worst_case(f, order=order, prior=scale * times.to(dtype), **size)
        expected = worst_case(repeated, order=order, **size)
        assert (got.value - expected.value).abs() <= tolerance
        assert (got.weights[index] - expected.weights).abs().mean() <= 1e3 * tolerance
        assert (got.weights[times == 0] == 0).all()
        for name in ("k1", "truncated", "effective_share"):
            off = getattr(got, name) - getattr(expected, name)
            assert off.abs() <= 1e3 * tolerance * expected.k1, (size, name)


@pytest.mark.parametrize("order", ORDERS)
def test_a_prior_against_60_digits(order):
    f, times = PROBLEMS["plain"], [3, 1, 0, 7, 2, 40, 1, 5]
    many = [x for x, k in zip(f, times, strict=True) for _ in range(k)]
    for radius in (0, 1e-6, 0.5, 3, math.log(59) + 1):
        value, w = reference(many, order, radius)
        prior = tensor([float(k) for k in times])
        got = worst_case(tensor(f), order=order, radius=radius, prior=prior)
        assert abs(got.value - float(value)) <= 1e-9
        weights = got.weights.repeat_interleave(torch.tensor(times))
        assert np.abs(weights.numpy() - np.array([float(x) for x in w])).mean() <= 1e-7
        if radius < math.log(59 / 3):
            assert abs(dro.radius_of_weights(got.weights, order, prior=prior) - radius) <= 1e-8


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(-12, 12)), min_size=2, max_size=12),
    st.sampled_from([1, 1.01, 1.5, 2, 3, 20, INF]),
    st.floats(0.01, 6),
)
def test_weights_under_a_heavy_tailed_prior_attain_the_dual_bound(entries, order, radius):
    """What lies in the ball and has the dual's bound as its mean is the worst: no solver's word."""
    f, log_prior = tensor(entries).T
    p = log_prior.softmax(-1)
    got = worst_case(f, order=order, radius=radius, prior=log_prior.exp())
    q = p * got.weights
    assert q.sum().item() == pytest.approx(1, abs=1e-9)
    assert (q * f).sum().item() == pytest.approx(got.value.item(), abs=1e-9)
    if order == 1:
        divergence = torch.xlogy(q, got.weights).sum()
    elif order == INF:
        divergence = got.weights.amax().log()
    else:
        divergence = (p * got.weights**order).sum().log() / (order - 1)
    assert divergence <= radius + 1e-6
    beta = got.dual
    if not beta.isfinite() or beta == (0 if order == 1 else f.amax()):
        return  # the mean or the maximum, which nothing lies below or above
    if order == 1:
        bound = beta * radius + beta * (log_prior.log_softmax(-1) + f / beta).logsumexp(-1)
    else:
        conj = dro.order_conj(order)
        x = (f - beta).relu()
        bound = beta + math.exp(radius / conj) * x.amax() * (
            (p * (x / x.amax()) ** conj).sum() ** (1 / conj)
        )
    assert bound.item() == pytest.approx(got.value.item(), abs=1e-7)
    own = dro.dual_objective(f, beta, order=order, radius=radius, prior=p)
    assert own.item() == pytest.approx(bound.item(), abs=1e-9)


@pytest.mark.parametrize("order", [1, 1.5, 2, 5, INF])
def test_zeros_of_a_prior_are_masks_and_its_scale_is_nothing(order):
    f = tensor(row())
    prior = tensor(row(seed=6)).exp()
    prior[[0, 7]] = 0
    kept = prior > 0
    for size in sizes_of(order):
        got = worst_case(f, order=order, prior=1e-300 * prior, **size)
        expected = worst_case(f[kept], order=order, prior=prior[kept], **size)
        masked = worst_case(torch.where(kept, f, -INF), order=order, prior=prior, **size)
        assert (got.weights[~kept] == 0).all()
        for one in (got, masked):
            assert torch.allclose(one.weights[kept], expected.weights, atol=1e-9)
            assert torch.allclose(one.value, expected.value)
    even = worst_case(f, order=order, radius=0.5, prior=torch.full((12,), 7, dtype=DOUBLE))
    assert torch.allclose(even.weights, worst_case(f, order=order, radius=0.5).weights, atol=1e-9)


@pytest.mark.parametrize("order", [1, 1.5, 2, 3, INF])
def test_derivatives_under_a_prior(order):
    f = torch.randn(2, 6, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    f, prior = f.requires_grad_(), tensor([0.1, 3.0, 1.0, 0.0, 7.0, 0.5])
    size = tensor([0.4, 0.7]).requires_grad_()
    for name in ["radius"] if order == INF else ["radius", "temperature"]:

        def value(f, r, name=name):
            return worst_case(f, order=order, prior=prior, **{name: r}).value

        assert torch.autograd.gradcheck(value, (f, size), check_forward_ad=True)
        assert torch.autograd.gradgradcheck(value, (f, size), check_fwd_over_rev=True)
        assert torch.equal(torch.vmap(value)(f, size), value(f, size))
    worst = worst_case(f, order=order, radius=0.4, prior=prior)
    (slope,) = torch.autograd.grad(worst.value.sum(), f)
    assert torch.allclose(slope, worst.weights * prior / prior.sum())


def test_a_prior_in_a_compiled_graph():
    f = torch.randn(2, 6, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    f, prior = f.requires_grad_(), tensor([0.1, 3.0, 1.0, 0.0, 7.0, 0.5])
    value = lambda f: worst_case(f, order=1.5, radius=0.4, prior=prior).value.sum()  # noqa: E731
    compiled = torch.compile(value, backend="aot_eager", fullgraph=True)
    slopes = [torch.autograd.grad(way(f), f)[0] for way in (value, compiled)]
    assert torch.equal(*slopes)


def test_the_ends_of_the_radius_under_a_prior():
    f, prior = tensor([0.0, 1.0, 1.0, 0.5]), tensor([5.0, 1.0, 2.0, 2.0])
    for order in (1, 1.5, 2, 5, INF):
        mean, most = (
            worst_case(f, order=order, radius=radius, prior=prior)
            for radius in (0, -math.log(0.3) + 1e-12)
        )
        assert mean.value.item() == pytest.approx(0.4)
        assert most.value == 1 and torch.allclose(most.weights, tensor([0, 1, 1, 0]) / 0.3)
        assert most.truncated.item() == pytest.approx(0.7 if order > 1 else 0)
    tilted = dro.radius_of_temperature(f, 0.3, prior=prior)
    worst = worst_case(f, order=1, temperature=0.3, prior=prior)
    assert torch.allclose(tilted, dro.radius_of_weights(worst.weights, 1, prior=prior))


@pytest.mark.parametrize(
    "prior,message",
    [
        (tensor([1.0, -1.0, 1.0, 1.0]), "prior must be finite, >= 0"),
        (tensor([-1.0] * 4), "prior must be finite, >= 0"),
        (tensor([1.0, math.nan, 1.0, 1.0]), "prior must be finite"),
        (tensor([1.0, INF, 1.0, 1.0]), "prior must be finite"),
        (tensor([[1.0] * 4, [0.0] * 4, [1.0] * 4]), "> 0 at one unmasked entry .*row 1"),
        (tensor([1.0, 1.0]), r"prior must have the shape \(3, 4\) of the scores"),
        (tensor([1.0] * 4).requires_grad_(), r"give prior.detach\(\)"),
        ([1.0] * 4, "prior must be a tensor"),
    ],
)
def test_a_bad_prior(prior, message):
    f = torch.zeros(3, 4, dtype=DOUBLE)
    for call in (
        lambda: worst_case(f, order=2, radius=0.1, prior=prior),
        lambda: dro.dual_objective(f, 0.0, order=2, radius=0.1, prior=prior),
        lambda: dro.radius_of_temperature(f, 0.1, prior=prior),
        lambda: dro.radius_of_weights(f + 1, 2, prior=prior),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match="weights must be >= 0 with mean 1"):
        dro.radius_of_weights(tensor([0.0, 2.0]), 2, prior=tensor([1.0, 9.0]))


# --------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "change,message",
    [
        ({"order": 0.9}, r"order must lie in \[1, inf\]"),
        ({"order": math.nan}, "order must"),
        ({"radius": -0.1}, r"radius must lie in \[0, inf\).*row 0"),
        ({"radius": math.nan}, "radius must"),
        ({"radius": INF}, "radius must"),
        ({"radius": tensor([0.1, 0.2, -3.0])}, "radius must.*row 2"),
        ({"radius": tensor([0.1, 0.2])}, "radius must be a number or broadcast.*(2,)"),
        ({"temperature": 0.1}, "exactly one of radius"),
        ({"radius": None}, "exactly one of radius"),
        ({"radius": None, "temperature": 0.0}, r"temperature must lie in \(0, inf\)"),
        ({"radius": None, "temperature": 0.1, "order": INF}, "order must be finite"),
        ({"scores": torch.zeros(3, 4, dtype=torch.long)}, "scores must be a floating"),
        ({"scores": tensor(1.0)}, "scores must have shape"),
        ({"scores": torch.zeros(3, 0)}, "scores must have shape"),
        ({"scores": tensor([[0.0], [math.nan], [0.0]])}, "scores must not be NaN.*row 1"),
        ({"scores": tensor([[0.0], [0.0], [-INF]])}, "scores must leave.*row 2"),
        ({"scores": tensor([[0.0], [0.0], [INF]])}, "scores must be finite.*row 2"),
    ],
)
def test_bad_input(change, message):
    call = {"scores": torch.zeros(3, 4, dtype=DOUBLE), "order": 2, "radius": 0.1} | change
    with pytest.raises(ValueError, match=message):
        worst_case(call.pop("scores"), **call)


def test_bad_input_to_the_diagnostics():
    f = tensor([[0.1, 0.2], [0.3, 0.4]])
    for call, message in (
        (lambda: dro.dual_objective(f, -1.0, order=1, radius=0.1), "dual must lie"),
        (lambda: dro.dual_objective(f, tensor([0.0, INF]), order=2, radius=0.1), "dual.*row 1"),
        (lambda: dro.dual_objective(f, 0.0, order=2, radius=-1), "radius must"),
        (lambda: dro.radius_of_margin(f, 0.0, 1), "order must lie"),
        (lambda: dro.radius_of_margin(f, tensor([0.1] * 3), 2), "margin must"),
        (lambda: dro.radius_of_temperature(f, 0.0), "temperature must"),
        (lambda: dro.radius_of_weights(tensor([1.0, -1.0]), 2), "weights must be >= 0"),
        (lambda: dro.radius_of_weights(tensor([3.0, 3.0]), 2), "weights must.*mean 1"),
        (lambda: dro.k2(tensor([1.0, 1.0]), torch.tensor([True])), "false_negatives must"),
        (lambda: dro.k2(tensor([1.0, 1.0]), tensor([1.0, 0.0])), "false_negatives must"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
