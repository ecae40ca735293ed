"""Backbones: shapes, seeds and refusals; propagation and contrast against a dense rewriting."""

import io
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from torch.nn.functional import normalize

from drrl_core import backbones, datasets, losses
from drrl_core.testing import backbone_checks as battery
from drrl_core.train import sampling, score

TRAIN = battery.PAIRS
# User 2, item 0 and item 3 have no pair.
GAPS = np.array([[0, 1, 1, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 1, 1, 0, 1]])
GRAPHS = [name for name in backbones.REGISTRY if name != "mf"]


def made(seed: int, name: str = "mf", pairs: np.ndarray = TRAIN, **hyper):
    torch.manual_seed(seed)
    n_users, n_items = pairs.shape
    return backbones.make(name, n_users=n_users, n_items=n_items, train=csr_array(pairs), **hyper)


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# ---------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("check", battery.CHECKS)
@pytest.mark.parametrize("name", backbones.REGISTRY)
def test_the_battery(name, check):
    battery.CHECKS[check](lambda seed, pairs: made(seed, name, pairs))


@pytest.mark.parametrize("name", backbones.REGISTRY)
def test_shapes_and_gradients(name):
    model = made(0, name, dim=3)
    users, items = model()
    assert users.shape == (7, 3) and items.shape == (5, 3)
    (users.square().sum() + items.square().sum()).backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("name", backbones.REGISTRY)
def test_the_start_is_a_function_of_the_seed(name):
    first, again, other = (made(seed, name)() for seed in (3, 3, 4))
    assert all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first, other))
    assert not torch.equal(first[0][:5], first[1])


@pytest.mark.parametrize("name", backbones.REGISTRY)
def test_the_raw_embeddings_are_attributes(name):
    model = made(0, name, dim=4)
    assert dict(model.named_parameters()).keys() == {"users", "items"}
    assert model.users.shape == (7, 4) and model.items.shape == (5, 4)


def test_mf_is_its_parameters_drawn_as_xavier():
    model = made(0, dim=64)
    users, items = model()
    assert users is model.users and items is model.items
    for table in (users, items):
        bound = (6 / sum(table.shape)) ** 0.5
        assert 0.95 * bound < table.abs().max() <= bound and abs(table.mean()) < 0.1 * bound


@pytest.mark.parametrize("name", GRAPHS)
def test_all_start_from_the_same_embeddings(name):
    start = dict(made(5).named_parameters())
    model = dict(made(5, name).named_parameters())
    assert all(torch.equal(start[k], model[k]) for k in start)


def test_hyperparameters_are_those_that_make_takes():
    assert backbones.hyperparameters("mf") == {"dim": 64}
    assert backbones.hyperparameters("lightgcn") == {"dim": 64, "layers": 2}
    assert backbones.hyperparameters("xsimgcl") == {
        "dim": 64,
        "layers": 2,
        "noise": 0.1,
        "contrast_layer": 1,
        "temperature": 0.2,
        "contrast_weight": 0.001,
    }
    assert made(0)()[0].shape == (7, 64)


@pytest.mark.parametrize("name", backbones.REGISTRY)
def test_one_user_one_item_and_no_pair_at_all(name):
    model = made(0, name, np.zeros((1, 1)), **backbones.hyperparameters(name))
    users, items = model()
    assert users.shape == items.shape == (1, 64) and users.isfinite().all()
    (users.sum() + items.sum() + model.penalty(torch.tensor([0]), torch.tensor([0]))).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", ["mf", "lightgcn"])
def test_where_nothing_is_wanted_of_a_batch_the_penalty_is_zero(name):
    model = made(0, name)
    penalty = model.penalty(torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert penalty.shape == () and penalty == 0 and penalty.dtype == model.users.dtype
    value = model()[0].sum()
    assert torch.equal(value + penalty, value)


@pytest.mark.parametrize("name", backbones.REGISTRY)
def test_state_dict_holds_the_parameters_alone_and_comes_back(name):
    model, other = made(0, name).eval(), made(1, name).eval()
    saved = model.state_dict()
    assert saved.keys() == {"users", "items"}
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert all(map(torch.equal, model(), other()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", backbones.REGISTRY)
def test_cuda_agrees_with_cpu(name):
    grads = []
    for device in ("cpu", "cuda"):
        model = made(0, name, GAPS).to(device).eval()
        users, items = model()
        index = torch.tensor([0, 1, 3], device=device), torch.tensor([1, 1, 2], device=device)
        (users.square().sum() + items.pow(3).sum() + model.penalty(*index)).backward()
        assert users.device.type == device
        grads.append([users, items, model.users.grad, model.items.grad])
    for cpu, cuda in zip(*grads, strict=True):
        torch.testing.assert_close(cpu, cuda.cpu(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "name, hyper, message",
    [
        (
            "mff",
            {},
            r"no backbone is called 'mff' \(did you mean 'mf'\?\); there are: mf, lightgcn",
        ),
        ("zzz", {}, "no backbone is called 'zzz'; there are: mf, lightgcn, xsimgcl"),
        ("lightgnc", {}, "did you mean 'lightgcn'"),
        ("mf", {"depth": 2}, "backbone 'mf' has no hyper-parameter 'depth'; there are: dim"),
        ("mf", {"layers": 2}, "backbone 'mf' has no hyper-parameter 'layers'; there are: dim"),
        ("mf", {"dim": 0}, "dim must be at least 1, not 0"),
        ("lightgcn", {"dim": 0}, "dim must be at least 1, not 0"),
        ("lightgcn", {"layers": -1}, "layers must be at least 0, not -1"),
        ("xsimgcl", {"dim": 0}, "dim must be at least 1, not 0"),
        ("xsimgcl", {"layers": 0}, "layers must be at least 1, not 0"),
        ("xsimgcl", {"contrast_layer": 0}, r"contrast_layer must lie in 1\.\.2, not 0"),
        ("xsimgcl", {"contrast_layer": 3}, r"contrast_layer must lie in 1\.\.2, not 3"),
        ("xsimgcl", {"noise": -0.1}, r"noise must lie in \[0, inf\), not -0.1"),
        ("xsimgcl", {"noise": math.nan}, r"noise must lie in \[0, inf\), not nan"),
        ("xsimgcl", {"temperature": 0.0}, r"temperature must lie in \(0, inf\), not 0.0"),
        ("xsimgcl", {"temperature": math.nan}, r"temperature must lie in \(0, inf\), not nan"),
        ("xsimgcl", {"contrast_weight": -1.0}, r"contrast_weight must lie in \[0, inf\), not -1"),
        ("xsimgcl", {"contrast_weight": math.inf}, r"contrast_weight must lie in \[0, inf\)"),
    ],
)
def test_what_is_unknown_or_out_of_range_is_refused(name, hyper, message):
    with pytest.raises(ValueError, match=message):
        made(0, name, **hyper)


@pytest.mark.parametrize("name", backbones.REGISTRY)
def test_registry_line(name):
    line = backbones.lookup(name)
    assert line is backbones.REGISTRY[name] and line.version == 1
    assert isinstance(made(0, name), line.factory)


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_is_asked_for_and_has_to_fit(name):
    with pytest.raises(ValueError, match=r"needs the train pairs: pass train=data\.train"):
        backbones.make(name, n_users=7, n_items=5)
    with pytest.raises(ValueError, match=r"train has shape \(7, 5\), not \(5, 7\)"):
        backbones.make(name, n_users=5, n_items=7, train=csr_array(TRAIN))


@pytest.mark.parametrize("name", backbones.REGISTRY)
def test_a_step_changes_every_table_that_it_should_and_stays_finite(name):
    data = datasets.load("synthetic")
    torch.manual_seed(0)
    model = backbones.make(
        name, n_users=data.n_users, n_items=data.n_items, train=data.train, dim=8
    )
    loss = losses.make("sl", n_users=data.n_users, n_items=data.n_items, temperature=0.2)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    steps = sampling.Sampler(data, batch_size=512, count=16).epoch(seed=0, epoch=1)
    values = []
    for batch in itertools.islice(steps, 12):
        before = [table.detach().clone() for table in model.eval()()]
        pos, neg = score(*model.train()(), batch)
        value = loss(pos, neg, batch).mean() + model.penalty(batch.users, batch.pos_items)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        values.append(value.item())
        for old, new in zip(before, model.eval()(), strict=True):
            assert new.isfinite().all() and not torch.equal(old, new)
    assert values[-1] < values[0]


# ---------------------------------------------------------------------------- propagation


def dense_adjacency(pairs: np.ndarray) -> torch.Tensor:
    """Â over users and items as one (U + I)² matrix; an empty row stays empty."""
    n_users, n_items = pairs.shape
    whole = torch.zeros(n_users + n_items, n_users + n_items)
    whole[:n_users, n_users:] = torch.tensor(pairs != 0)
    whole = whole + whole.T
    scale = torch.diag(torch.nan_to_num(whole.sum(1) ** -0.5, posinf=0))
    return scale @ whole @ scale


def leaves(model) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Users and items as one table, on a tape of its own, and what that tape starts from."""
    start = [model.users.detach().clone(), model.items.detach().clone()]
    start = [table.requires_grad_() for table in start]
    return torch.cat(start), start


def assert_same_with_gradients(tables, expected, model, start):
    """Values within 1e-10, and the gradients of a nonlinear function of them."""
    n_users = len(model.users)
    expected = expected[:n_users], expected[n_users:]
    for table, wanted in zip(tables, expected, strict=True):
        torch.testing.assert_close(table, wanted, rtol=0, atol=1e-10)
    for users, items in (tables, expected):
        weights = torch.linspace(-1, 1, users.shape[1])
        ((users * weights).tanh().square().sum() + (items * weights).exp().sum()).backward()
    for parameter, wanted in zip((model.users, model.items), start, strict=True):
        torch.testing.assert_close(parameter.grad, wanted.grad, rtol=0, atol=1e-10)


@pytest.mark.parametrize("layers", range(5))
@pytest.mark.parametrize("pairs", [TRAIN, GAPS], ids=["whole", "gaps"])
def test_lightgcn_is_the_mean_of_powers_of_the_dense_graph(float64, pairs, layers):
    model = made(0, "lightgcn", pairs, dim=3, layers=layers)
    table, start = leaves(model)
    adjacency = dense_adjacency(pairs)
    powers = [torch.linalg.matrix_power(adjacency, k) for k in range(layers + 1)]
    assert_same_with_gradients(model(), sum(powers) / (layers + 1) @ table, model, start)


@pytest.mark.parametrize("layers", range(1, 5))
@pytest.mark.parametrize("pairs", [TRAIN, GAPS], ids=["whole", "gaps"])
def test_xsimgcl_in_evaluation_is_that_mean_without_the_raw_layer(float64, pairs, layers):
    model = made(0, "xsimgcl", pairs, dim=3, layers=layers).eval()
    table, start = leaves(model)
    adjacency = dense_adjacency(pairs)
    powers = [torch.linalg.matrix_power(adjacency, k) for k in range(1, layers + 1)]
    assert_same_with_gradients(model(), sum(powers) / layers @ table, model, start)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), shape=st.tuples(st.integers(1, 6), st.integers(1, 6)))
def test_any_graph_is_propagated_as_its_dense_matrix(data, shape):
    size = shape[0] * shape[1]
    cells = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    pairs = np.array(cells, dtype=np.float32).reshape(shape)
    graph = backbones.Graph(csr_array(pairs), *shape).double()
    users, items = torch.randn(shape[0], 2).double(), torch.randn(shape[1], 2).double()
    found = torch.cat(graph(users, items))
    expected = dense_adjacency(pairs).double() @ torch.cat([users, items])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("pairs", [TRAIN, GAPS, np.zeros((3, 2))], ids=["whole", "gaps", "empty"])
def test_both_ways_of_multiplying_agree(float64, pairs):
    graph = backbones.Graph(csr_array(pairs), *pairs.shape)
    for matrix, rows in ((graph.to_users, pairs.shape[1]), (graph.to_items, pairs.shape[0])):
        parts, table = (matrix.start, matrix.column, matrix.value), torch.randn(rows, 4)
        one, other = backbones._gathered(*parts, table), backbones._multiplied(*parts, table)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_two_users_two_items_by_hand(float64):
    # Pairs (0, 0), (1, 0), (1, 1): degrees 1 and 2, 2 and 1; Â is 1/√2, 1/2 and 1/√2 on them.
    model = made(0, "lightgcn", np.array([[1, 0], [1, 1]]), dim=1, layers=1)
    with torch.no_grad():
        model.users.copy_(torch.tensor([[2.0], [4.0]]))
        model.items.copy_(torch.tensor([[6.0], [8.0]]))
    root = 2**0.5
    users, items = model()
    expected = [[(2 + 6 / root) / 2], [(4 + 6 / 2 + 8 / root) / 2]]
    torch.testing.assert_close(users, torch.tensor(expected), rtol=0, atol=1e-12)
    expected = [[(6 + 2 / root + 4 / 2) / 2], [(8 + 4 / root) / 2]]
    torch.testing.assert_close(items, torch.tensor(expected), rtol=0, atol=1e-12)


def test_what_train_stores_is_a_pair_whatever_its_value():
    one, other = made(0, "lightgcn", TRAIN), made(0, "lightgcn", 7 * TRAIN)
    assert all(map(torch.equal, one(), other()))


def test_nodes_without_pairs_keep_their_raw_share_and_no_more():
    users, items = (light := made(0, "lightgcn", GAPS, layers=2))()
    torch.testing.assert_close(users[2], light.users[2] / 3)
    torch.testing.assert_close(items[[0, 3]], light.items[[0, 3]] / 3)
    model = made(0, "xsimgcl", GAPS)
    users, items = model()  # in training: a row of zeros has no sign, so no noise
    assert not users[2].any() and not items[[0, 3]].any()
    units = normalize(users, dim=-1).sum() + normalize(items, dim=-1).sum()
    (units + model.penalty(torch.tensor([0, 2]), torch.tensor([0, 1]))).backward()
    assert not model.users.grad[2].any() and not model.items.grad[[0, 3]].any()
    assert model.users.grad.isfinite().all() and model.items.grad.isfinite().all()


@pytest.mark.parametrize("name", GRAPHS)
def test_gradcheck(float64, name):
    model = made(0, name, GAPS, dim=2, layers=3).eval()

    def tables(users, items):
        return torch.func.functional_call(model, {"users": users, "items": items})

    inputs = [table.detach().clone().requires_grad_() for table in (model.users, model.items)]
    assert torch.autograd.gradcheck(tables, inputs)
    assert torch.autograd.gradgradcheck(tables, inputs)


def test_one_table_may_go_unused_and_gradients_may_be_expanded():
    model = made(0, "lightgcn", dim=3)
    model()[0].sum().backward()
    adjacency = dense_adjacency(TRAIN)
    whole = (torch.eye(12) + adjacency + adjacency @ adjacency) / 3
    expected = whole[:7].sum(0)[:, None].expand(-1, 3)
    found = torch.cat([model.users.grad, model.items.grad])
    torch.testing.assert_close(found, expected)


# ---------------------------------------------------------------------------- XSimGCL's own


def naive_info_nce(one: torch.Tensor, other: torch.Tensor, temperature: float) -> torch.Tensor:
    terms = []
    for b, row in enumerate(one):
        cosines = torch.stack([row @ y / (row.norm() * y.norm()) for y in other])
        odds = (cosines / temperature).exp()
        terms.append(-(odds[b] / odds.sum()).log())
    return sum(terms) / len(terms)


@pytest.mark.parametrize("contrast_layer", [1, 2, 3])
def test_training_is_the_dense_recursion_with_the_same_draws(float64, contrast_layer):
    hyper = {"noise": 0.3, "temperature": 0.15, "contrast_weight": 0.7}
    model = made(0, "xsimgcl", dim=3, layers=3, contrast_layer=contrast_layer, **hyper)
    table, start = leaves(model)
    users, items = torch.tensor([4, 0, 4, 6]), torch.tensor([2, 0, 2, 2])

    torch.manual_seed(11)
    tables = model()
    penalty = model.penalty(users, items)

    torch.manual_seed(11)
    adjacency, layers = dense_adjacency(TRAIN), []
    for _ in range(3):
        table = adjacency @ table
        draws = torch.cat([torch.rand(7, 3), torch.rand(5, 3)])
        table = table + 0.3 * table.sign() * draws / draws.norm(dim=1, keepdim=True)
        layers.append(table)
    mean = sum(layers) / 3
    held = layers[contrast_layer - 1]
    expected = naive_info_nce(mean[[0, 4, 6]], held[[0, 4, 6]], 0.15)
    expected = 0.7 * (expected + naive_info_nce(mean[[7, 9]], held[[7, 9]], 0.15))
    torch.testing.assert_close(penalty, expected, rtol=0, atol=1e-10)

    for value in (penalty, expected):
        value.backward(retain_graph=True)
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    for parameter, wanted in zip((model.users, model.items), start, strict=True):
        torch.testing.assert_close(parameter.grad, wanted.grad, rtol=0, atol=1e-10)
    assert_same_with_gradients(tables, mean, model, start)


def test_noise_has_length_epsilon_and_the_sign_of_what_it_is_added_to(float64):
    model = made(0, "xsimgcl", GAPS, layers=1, noise=0.25)
    noisy, clean = torch.cat(model()), torch.cat(model.eval()())
    noise, linked = noisy - clean, clean.any(dim=1)
    assert linked.tolist() == [True, True, False, True, False, True, True, False, True]
    torch.testing.assert_close(noise.norm(dim=1), 0.25 * linked, rtol=0, atol=1e-12)
    assert (noise[linked].sign() == clean[linked].sign()).all()


def test_noise_is_drawn_anew_in_training_and_never_in_evaluation():
    model = made(0, "xsimgcl")
    assert not torch.equal(model()[0], model()[0])
    torch.manual_seed(1)
    first = model()
    torch.manual_seed(1)
    assert all(map(torch.equal, first, model()))
    quiet = made(0, "xsimgcl", noise=0.0)
    state = torch.get_rng_state()
    model.eval()
    assert all(map(torch.equal, model(), model()))
    assert all(map(torch.equal, quiet(), model()))
    assert torch.equal(state, torch.get_rng_state())


def test_the_penalty_is_one_on_the_latest_tables():
    model = made(0, "xsimgcl")
    batch = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1])
    with pytest.raises(RuntimeError, match="call the model first"):
        model.penalty(*batch)
    model()
    first = model.penalty(*batch)
    assert first.shape == () and first > 0 and torch.equal(first, model.penalty(*batch))
    model()
    assert not torch.equal(first, model.penalty(*batch))


def test_without_weight_the_penalty_is_zero():
    model = made(0, "xsimgcl", contrast_weight=0.0)
    model()
    assert model.penalty(torch.tensor([0, 1]), torch.tensor([0, 1])) == 0


def test_the_contrast_stands_sharp_temperatures_and_single_rows():
    rows = torch.eye(4)
    assert backbones.info_nce(rows, rows, 1e-3) == 0
    apart = backbones.info_nce(rows, rows.flip(0), 1e-3)
    torch.testing.assert_close(apart, torch.tensor(1e3))
    assert backbones.info_nce(rows[:1], rows[1:2], 0.2) == 0
