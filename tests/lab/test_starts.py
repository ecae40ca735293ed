"""What a search begins with: published settings in our conventions, and what other data taught."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cosine_similarity, softplus

from drrl_core import datasets, losses
from drrl_core.lab import results, spaces, starts
from drrl_core.lab import tune as tuning
from drrl_core.lab.run import changes, configure, execute, key_of, raised, strict_json
from drrl_core.lab.workers import Compute
from drrl_core.train import diagnose

TINY = {"epochs": 2, "evaluate_every": 1, "negatives": 8, "dim": 4}


def row(variant, params, **more):
    base = {"cosine": "full", "negatives": 1000, "batch": 1024, "users": 100, "items": 50}
    return pd.Series(base | {"variant": variant, "params": params} | more)


def ours(variant, settings, users, positive, negative):
    """Our loss of raw embeddings, and its slopes to them."""
    loss = spaces.variants(64)[variant].loss
    hyper = {n.removeprefix("loss."): v for n, v in settings.items() if n.startswith("loss.")}
    made = losses.make(loss, n_users=len(users), n_items=10_000, **hyper).double()
    pos = cosine_similarity(users, positive)
    neg = cosine_similarity(users[:, None], negative, dim=2)
    if variant == "advinfonce":  # an adversary that has not learnt, as in `theirs`
        torch.nn.init.zeros_(made.users)
    index = torch.arange(len(users))
    batch = losses.Batch(index, index, index[:, None].expand(-1, negative.shape[1]))
    return slopes(made(pos, neg, batch).mean(), users, positive)


def slopes(value, *leaves):
    return [*torch.autograd.grad(value, leaves)]


@pytest.fixture
def embedded():
    """Users, positives, and eight negatives each, to be had any number of times over."""
    make = torch.Generator().manual_seed(3)
    shape = [(6, 8), (6, 8), (6, 8, 8)]
    tables = [torch.randn(each, generator=make, dtype=torch.float64) for each in shape]
    return [table.requires_grad_() for table in tables]


def halves(a, b, dim=1):
    """PSL's scores: cosines over two."""
    return cosine_similarity(a, b, dim=dim) / 2


# Each author's loss, retyped as their code has it: of embeddings, summed over N negatives.
THEIRS = {
    "sl": lambda p, n, own: (((n - p[:, None]) / own["tau"]).exp().sum(1)).log(),
    "psl": lambda p, n, own: (
        ((torch.tanh(n - p[:, None]) + 1).log() / own["tau"]).exp().sum(1).log()
    ),
    "bsl": lambda p, n, own: (
        -(
            (p / own["tau1"]).exp() / (n / own["tau2"]).exp().sum(1).pow(own["tau2"] / own["tau1"])
        ).log()
    ),
    "ccl": lambda p, n, own: (1 - p) + own["weight"] * (n - own["margin"]).clamp_min(0).mean(1),
    "advinfonce": lambda p, n, own: (
        -(
            (p / own["tau"]).exp()
            / (
                (p / own["tau"]).exp()
                + own["K"]
                * (n.shape[1] * torch.full_like(n, 1 / n.shape[1]) * (n / own["tau"]).exp()).sum(1)
            )
        ).log()
    ),
}


@pytest.mark.parametrize(
    ("variant", "params", "cosine"),
    [
        ("sl", "lr=0.01 tau=0.2", "full"),
        ("sl", "lr=0.01 tau=0.1", "half"),
        ("psl", "lr=0.01 tau=0.1", "half"),
        ("bsl", "lr=0.1 tau1=0.5 tau2=0.2", "full"),
        ("bsl", "lr=0.1 tau1=0.1 tau2=0.05", "half"),
        ("ccl", "lr=1e-4 margin=0.1 weight=150", "full"),
        ("advinfonce", "lr=0.1 tau=0.2 K=64 lr_adv=5e-05", "full"),
    ],
)
def test_a_translated_setting_has_the_slopes_of_the_authors_loss(embedded, variant, params, cosine):
    """To every embedding, with their number of negatives and with ours."""
    users, positive, few = embedded
    own = {name: float(text) for name, text in (each.split("=") for each in params.split())}
    settings = starts.translated(row(variant, params, cosine=cosine, negatives=640))
    score = halves if cosine == "half" else cosine_similarity
    few, many = few.repeat(1, 8, 1), few.repeat(1, 80, 1)  # 64 of ours, 640 of theirs, as spread
    pos, neg = score(users, positive), score(users[:, None], many, dim=2)
    wanted = slopes(THEIRS[variant](pos, neg, own).mean(), users, positive)
    found = ours(variant, settings, users, positive, few)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
    wrong = {n: v * (2 if n.startswith("loss.") else 1) for n, v in settings.items()}
    wrong |= {"loss.margin": 0.2} if variant == "ccl" else {}
    found = ours(variant, wrong, users, positive, few)
    assert not torch.allclose(found[0], wanted[0], rtol=1e-3)


def test_llpauc_s_shares_are_those_of_its_code():
    make = torch.Generator().manual_seed(4)
    pos = torch.rand(5, generator=make, dtype=torch.float64).requires_grad_()
    neg = torch.rand(5, 7, generator=make, dtype=torch.float64).requires_grad_()
    settings = starts.translated(row("llpauc", "lr=0.1 alpha=0.7 beta=0.01"))
    assert settings["train.dual_lr"] == settings["train.lr"] == 0.1
    hyper = {n.removeprefix("loss."): v for n, v in settings.items() if n.startswith("loss.")}
    value = losses.make("llpauc", **hyper).double()(pos, neg).mean()
    p, n = pos.sigmoid(), neg.sigmoid()  # a = 1, b = 0, γ = 0, s⁺ = s⁻ = 1/2, where it starts
    high = softplus(-(p - 1).square() + 2 * p - 0.5, beta=5).mean() / 0.7
    low = softplus(n.square() + 2 * n - 0.5, beta=5).mean() / 0.01
    for one, other in zip(slopes(value, pos, neg), slopes(low - high, pos, neg), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9)


def test_weight_decay_becomes_the_l2_of_equal_pull():
    """Over an epoch of the synthetic data: Adam's decay of every row, our term of a batch's."""
    from drrl_core import backbones
    from drrl_core.train import sampling
    from drrl_core.train.step import l2_penalty

    data, decay = datasets.load("synthetic"), 1e-4
    sizes = {"n_users": data.n_users, "n_items": data.n_items}
    model = backbones.make("mf", **sizes, dim=8)
    for table in model.parameters():  # of equal lengths
        table.data = torch.nn.functional.normalize(torch.randn_like(table), dim=1)
    printed = row("bpr", f"lr=0.001 wd={decay}", users=data.n_users, items=data.n_items)
    l2 = starts.translated(printed)["train.l2"]
    sampler = sampling.Sampler(data, "cpu", kind="per-row", count=1, batch_size=1024, noise=0)
    penalties = [l2_penalty(model, batch, l2) for batch in sampler.epoch(0, 1)]
    theirs = sum(decay / 2 * table.square().sum() for table in model.parameters())
    assert (sum(penalties) / len(penalties)).item() == pytest.approx(theirs.item(), rel=1e-3)


def test_a_rate_at_another_batch_size_wanders_as_far_over_the_same_examples():
    make, spread = torch.Generator().manual_seed(5), {}
    for batch in (64, 256):
        printed = starts.translated(row("sl", "lr=0.01 tau=0.1", batch=1024 * 64 // batch))
        table = torch.nn.Parameter(torch.zeros(2000))
        adam = torch.optim.Adam([table], lr=printed["train.lr"])
        for _ in range(2**14 // batch):  # slopes that are noise of a mean over the batch
            table.grad = torch.randn(2000, generator=make) / math.sqrt(batch)
            adam.step()
        spread[batch] = table.std().item()
    assert spread[64] == pytest.approx(spread[256], rel=0.1)
    few, same = (starts.translated(row("sl", "lr=0.01 tau=1", batch=b)) for b in (256, 1024))
    assert (few["train.lr"], same["train.lr"]) == (0.02, 0.01)


# --------------------------------------------------------------------------- the table


def test_every_published_setting_lies_where_is_searched():
    table = starts.table()
    assert len(table) == 50 and not table.isna().any(axis=None)
    assert not table.drop(columns="source").duplicated().sum() > 1  # one that two sets have
    for _, each in table.iterrows():
        space = spaces.variants(64)[each["variant"]].space
        for name, value in starts.translated(each).items():
            assert name not in space or space[name].low <= value <= space[name].high, (each, name)
        assert "train.lr" in starts.translated(each)
    assert {*table["dataset"]} <= {*datasets.names()}


def cell(dataset, name, backbone="mf", **given):
    """A search on data of that name."""
    data = datasets.load("synthetic")
    object.__setattr__(data, "name", dataset)
    return spaces.plan(data, "synthetic", name, backbone, given)


def test_a_cell_begins_with_what_is_printed_for_it():
    found = starts.published(cell("amazon-electronics", "sl"))
    assert [each.origin for each in found] == ["published", "transfer"]
    assert found[0].point == {"loss.temperature": 0.2, "train.lr": 0.01}
    assert found[1].point == {"loss.temperature": 0.1, "train.lr": 0.1}
    assert "SLatK" in found[0].source and "PSL" in found[1].source
    (only,) = starts.published(cell("amazon-beauty", "ccl"))
    assert only.point == {"loss.margin": 0.3, "loss.weight": 10.0, "train.lr": 0.002}
    found = starts.published(cell("amazon-electronics", "advinfonce", "xsimgcl"))
    assert found[0].point["loss.scale"] == 1000 and found[0].point["train.dual_lr"] == 5e-5
    (only,) = starts.published(cell("amazon-electronics", "bpr", lr=0.5))[:1]
    assert only.point == {"train.l2": pytest.approx(1e-5 * 21815 / 3)}  # what is not given
    assert starts.published(cell("amazon-electronics-temporal", "sl")) == []


def test_a_cell_that_has_none_says_so():
    said = []
    assert starts.known(cell("amazon-kitchen", "sl"), None, list, said.append) == []
    assert len(said) == 1 and "no setting is published" in said[0]
    starts.known(cell("gowalla", "ccl"), None, list, said.append)
    assert len(said) == 1


# --------------------------------------------------------------------------- other data


def told(dataset, loss="sl", valid=0.1, backbone="mf", **settings):
    """A row of a file of runs, as if it had been run."""
    own = {
        f"loss.{name}": settings.pop(name) for name in {*settings} & {*losses.hyperparameters(loss)}
    }
    run = configure(dataset, loss, backbone, TINY | own | settings)
    plain = configure(dataset, loss, backbone)
    changed = changes(plain.config, run.config)
    changed = {n: v for n, v in changed.items() if n not in ("train.seed", "train.negatives")}
    made = dict.fromkeys(results.RUNS, 0) | {"dataset": dataset, "data_hash": f"of {dataset}"}
    made |= {"backbone": backbone, "loss": loss, "seed": run.train.seed, "sampler": "per-row"}
    made |= {"variant": spaces.variant_of(loss, run.loss_config), "negatives": 8}
    made |= {"valid_ndcg@20": valid, "key": key_of(run, f"of {dataset}"), "trials": 1}
    made |= {"raised": raised(backbone, loss)}
    return made | {"settings": json.dumps({n: strict_json(v) for n, v in changed.items()})}


def transfers(rows, search, tmp_path):
    pd.DataFrame(rows).to_csv(tmp_path / "runs.csv", index=False)
    return starts.transfers(search, tmp_path / "runs.csv")


def test_a_search_begins_with_the_best_of_each_other_data_set(tmp_path):
    rows = [
        told("amazon-beauty", valid=0.2, temperature=0.11, lr=0.002),
        told("amazon-beauty", valid=0.3, temperature=0.12, lr=0.002),
        told("amazon-beauty", valid=0.9, temperature=0.13, backbone="lightgcn"),
        told("amazon-beauty", valid=0.9, temperature=0.15, epochs=3),  # another search's
        told("amazon-beauty", valid=0.9, temperature=0.16, noise=0.3),
        told("amazon-beauty", "ccl", valid=0.9),
        told("amazon-beauty", valid=0.9, temperature=0.14) | {"trials": None},  # of a sweep
        told("amazon-kitchen", valid=0.1, temperature=0.17, backbone="xsimgcl"),
        told("amazon-electronics", valid=0.9, temperature=0.18),
        told("amazon-electronics-temporal", valid=0.9, temperature=0.19),
        told("gowalla", valid=0.9, temperature=0.2) | {"key": "of an older version"},
        told("gowalla", valid=0.1, temperature=0.21, lr=0.5),
    ]
    found = transfers(rows, cell("amazon-electronics", "sl", **TINY), tmp_path)
    points = {each.source.split(",")[0]: each.point for each in found}
    assert points == {
        "amazon-beauty": {"loss.temperature": 0.12, "train.lr": 0.002},
        "gowalla": {"loss.temperature": 0.21, "train.lr": 0.1},  # into the space
        "amazon-kitchen": {"loss.temperature": 0.17, "train.lr": 0.001},
    }
    assert [*points][-1] == "amazon-kitchen"  # the same backbone first
    assert {each.origin for each in found} == {"transfer"}
    noisy = cell("amazon-electronics", "sl", **TINY, noise=0.2)
    assert transfers(rows, noisy, tmp_path)[0].point["loss.temperature"] == 0.16
    assert starts.transfers(noisy, tmp_path / "none.csv") == starts.transfers(noisy, None) == []


@pytest.mark.parametrize("size", [{"radius": 0.8}, {"weight": 1.5}, {"eta": 0.4}])
def test_a_ball_is_carried_over_by_its_radius(tmp_path, size):
    (found,) = transfers(
        [told("amazon-beauty", "drrl", order=3, start=0.2, **size)],
        cell("amazon-electronics", "drrl", **TINY),
        tmp_path,
    )
    wanted = losses.make("drrl", n_users=1, order=3, start=0.2, **size)
    made = losses.make("drrl", n_users=1, order=3, radius=found.point["loss.radius"], start=0.2)
    assert found.point["loss.order-1"] == 2 and found.point["loss.start"] == 0.2
    for name, value in wanted.hyper.items():
        assert made.hyper[name] == pytest.approx(value)


def test_the_recorded_runs_give_each_variant_its_starts():
    """Electronics begins with Beauty's best, and never with what was found on its own pairs."""
    path = Path(__file__).parents[2] / "data" / "results" / "runs.csv"
    rows = results.read_runs(path)
    for name in ("sl", "ccl", "drrl"):
        plan = cell("amazon-electronics", name)
        found = starts.transfers(plan, path)
        assert [each.source.split(",")[0] for each in found] == ["amazon-beauty"]
        key = found[0].source.split()[-1]
        mine = rows[(rows["variant"] == name) & (rows["dataset"] == "amazon-beauty")]
        mine = mine[(mine["backbone"] == "mf") & (mine["noise"] == 0)]
        tuned = mine.loc[mine["trials"].notna(), "valid_ndcg@20"]
        best = rows.set_index("key").loc[key, "valid_ndcg@20"]
        assert len(tuned) and best >= tuned.max()


@pytest.mark.slow
def test_a_study_begins_with_them_in_order_and_each_once(tmp_path, monkeypatch):
    monkeypatch.setenv("DRRL_RUNS", str(tmp_path / "store"))
    csv = tmp_path / "runs.csv"
    same = told("gowalla", temperature=0.2, lr=0.01)
    rows = [told("amazon-beauty", temperature=0.12), same]
    pd.DataFrame(rows).to_csv(csv, index=False)
    printed = starts.Start({"loss.temperature": 0.2, "train.lr": 0.01}, "published", "a paper")
    monkeypatch.setattr(starts, "published", lambda plan: [printed])
    options = {"config": TINY, "csv": csv, "compute": Compute(workers=0)}
    tuning.tune("synthetic", "sl", trials=3, **options)
    table = pd.read_csv(tmp_path / "trials.csv")
    assert [*table["from"]] == ["published", "transfer", "sampler"]
    assert table["source"][0] == "a paper" and table["source"][1].startswith("amazon-beauty, mf")
    points = [json.loads(text) for text in table["params"]]
    assert points[0] == printed.point and points[1]["loss.temperature"] == 0.12
    assert np.isfinite(table["value"]).all()


# --------------------------------------------------------------------------- optima, as points


@pytest.fixture(scope="module")
def trained():
    shared = {"epochs": 4, "lr": 0.01}
    sl = configure("synthetic", "sl", config=shared | {"temperature": 0.15})
    ccl = configure("synthetic", "ccl", config=shared | {"margin": 0.2, "weight": 8})
    return {run.loss: execute(run, progress=False) for run in (sl, ccl)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["drrl", "drrl-shared", "drrl-fixed", "drrl-exact", "drrl-penalty"]
)
@pytest.mark.parametrize("origin", ["sl", "ccl"])
def test_a_mapped_optimum_listens_as_the_loss_it_comes_from(trained, name, origin):
    variant = spaces.variants(64)[name]
    point = starts.point_of(trained[origin], variant, 64)
    if (name, origin) == ("drrl-penalty", "ccl"):
        assert point is None  # as the order grows the penalty becomes the plain mean
        return
    assert point.keys() == variant.space.keys() and point["train.lr"] == 0.01
    settings = spaces.config_of(variant, point)
    run = configure("synthetic", "drrl", config=settings)  # accepted
    made = losses.make("drrl", n_users=20, n_items=1, **run.loss_config)
    rng, rows = np.random.default_rng(1), []
    for user in range(0, 1000, 50):
        rows.append(rng.choice(diagnose.negatives_of(trained[origin], user)["score"], 64))
    neg, pos = torch.tensor(np.array(rows)), torch.full((20,), 0.5)
    found = losses.negative_weights(made, pos, neg, losses.Batch(torch.arange(20)))
    if origin == "sl":  # w ∝ exp(f/τ)
        wanted = 64 * torch.softmax(neg / 0.15, -1)
    else:  # w alike above β, none below; at order 151, nearly
        wanted = (neg > 0.2).float()
        wanted *= 64 / wanted.sum(-1, keepdim=True)
    if (name, origin) == ("drrl-exact", "ccl"):  # one margin is another radius for each row
        wanted = (neg > 0.2).double().mean(-1).log().neg().median()
        assert point["loss.radius"] == pytest.approx(wanted.item(), rel=0.15)
        return
    slack = 0.3 if name == "drrl-exact" else 0.05  # and one radius another τ
    assert (found - wanted).abs().mean() < slack * wanted.abs().mean()
