"""Plans of sweeps, and a folder of results completed by them."""

import json
import shutil
import warnings
from pathlib import Path

import pandas as pd
import pytest
from samples import TINY, harvested

from drrl_core import datasets
from drrl_core.common import write_whole
from drrl_core.lab import results
from drrl_core.lab import store as store_module
from drrl_core.lab import sweep as sweeps
from drrl_core.lab.run import Run, configure, key_of
from drrl_core.lab.workers import Compute
from drrl_core.paper import plans


def points(blocks: list[dict], tmp_path: Path) -> list[Run]:
    path = plans.write_plan(blocks, tmp_path / "sweeps" / "plan.yaml")
    assert "&" not in path.read_text()  # lists are written out where they stand
    return [
        configure(each["dataset"], each["loss"], each["backbone"], each["settings"])
        for _, each in sweeps.read_blocks(path)
    ]


@pytest.mark.slow
def test_the_plan_of_noise_is_each_final_again_at_every_ratio(counted, tmp_path):
    rows = results.read_runs(counted / "results" / "runs.csv")
    found = points(plans.noise_plan(rows, (0, 0.3), range(2)), tmp_path)
    assert [run.loss for run in found] == ["drrl"] * 4 + ["sl"] * 4
    assert [(run.train.noise, run.train.seed) for run in found[4:]] == [
        *((0, 0), (0, 1), (0.3, 0), (0.3, 1))
    ]
    data_hash = datasets.load("synthetic").hash
    plain = {key_of(run, data_hash) for run in found if run.train.noise == 0}
    finals = results.selected_runs(rows[rows["noise"] == 0])
    assert {*finals["key"]} <= plain  # those are not trained again
    found = points(plans.noise_plan(rows, (0, 0.3), range(1), radii=(0.4, 0.8)), tmp_path)
    assert {run.loss for run in found} == {"drrl"}
    sizes = [(run.loss_config["radius"], run.train.noise) for run in found]
    assert sizes == [(0.4, 0), (0.4, 0.3), (0.8, 0), (0.8, 0.3)]
    sizes = {tuple(run.loss_config[name] for name in results.SIZES[1:]) for run in found}
    assert sizes == {(None, None, None)}


def test_the_plan_of_orders_holds_the_radius_and_then_c(counted, tmp_path):
    rows = results.read_runs(counted / "results" / "runs.csv")
    (final,) = rows[rows["loss"] == "drrl"].head(1).to_dict("records")
    own = {"loss.radius": 0.5, "train.lr": 0.003}
    made = [
        final
        | dict.fromkeys(["settings", "config"], json.dumps(own | {"loss.order": order}))
        | {"valid_ndcg@20": valid}
        for order, valid in ((2.0, 0.2), (3.0, 0.1), (1.02, 0.9), ("inf", 0.8))
    ]
    made += [made[0] | {"noise": 0.1, "valid_ndcg@20": 0.95}]
    rows = pd.concat([pd.DataFrame(made), rows[rows["loss"] == "sl"]])
    found = points(plans.order_plan(rows, (4, 1.5)), tmp_path)
    assert [run.loss_config["order"] for run in found[::3]] == [1.5, 2, 4] * 2
    assert {run.loss_config["radius"] for run in found[:9]} == {0.5}
    assert {run.loss_config["weight"] for run in found[9:]} == {1.284}  # e^(ρ/γ*) = e^.25
    assert {run.train.lr for run in found} == {0.003} and len({str(run) for run in found}) == 18
    assert plans.order_plan(rows, between=(5, 9)) == []
    lower = made[1] | {"trials": 9, "valid_ndcg@20": 0.01}  # but tuned, which no sweep's row is
    found = points(plans.order_plan(pd.concat([rows, pd.DataFrame([lower])]), (4,)), tmp_path)
    assert {run.loss_config["order"] for run in found} == {3, 4}


@pytest.mark.slow
def test_what_was_recorded_is_completed_and_left_as_it_was(counted, store, tmp_path):
    recorded, before = counted / "results", harvested(counted)
    options = {"trials": 1, "seeds": 2, "config": TINY, "compute": Compute(workers=0)}
    e = plans.complete(recorded, tmp_path / "a", "synthetic", ["bpr", "sl"], **options)
    assert harvested(counted) == before and len(e.runs) == 2 + 8
    cell = ("synthetic", "mf", 0.0, "ndcg@20")
    assert e.of(cell, "bpr").index.tolist() == [0, 1] and e.at(cell)["sl"] > 0
    assert set(store_module.table()["loss"]) == {"bpr"}  # sl was recorded
    options["plan"] = lambda rows: plans.noise_plan(rows, (0, 0.5), range(2))
    e = plans.complete(recorded, tmp_path / "b", "synthetic", ["bpr"], **options)
    assert e.mean(("synthetic", "mf", 0.5, "ndcg@20"), "bpr") > 0 and len(store_module.table()) == 4
    e = plans.complete(tmp_path / "none", tmp_path / "c", "synthetic", ["bpr"])
    assert e.means.empty  # nothing recorded, nothing computed
    assert [path.name for path in (tmp_path / "c").iterdir()] == [plans.MADE]


def test_results_are_not_made_where_they_were_recorded(counted, tmp_path):
    folder = shutil.copytree(counted / "results", tmp_path / "out" / "results")
    before = harvested(folder)
    for other in (folder, folder.parent, folder / "more"):
        with pytest.raises(ValueError, match="copy that"):
            plans.complete(folder, other, "synthetic", ["sl"])
    assert harvested(folder) == before and (folder / "runs.csv").exists()


def test_files_of_users_are_linked_and_what_is_computed_leaves_them_alone(counted, tmp_path):
    recorded, folder = tmp_path / "recorded", tmp_path / "results"
    shutil.copytree(counted / "results", recorded)
    (recorded / "per_user").mkdir(exist_ok=True)
    (recorded / "per_user" / "0.csv.gz").write_bytes(b"recorded")
    plans.copied(recorded, folder)
    link = folder / "per_user" / "0.csv.gz"
    assert link.is_symlink() and not (folder / "runs.csv").is_symlink()
    write_whole(link, b"computed")  # as all results are written
    assert link.read_bytes() == b"computed" and not link.is_symlink()
    assert (recorded / "per_user" / "0.csv.gz").read_bytes() == b"recorded"


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_nothing_gives_way_but_what_was_made_here(counted, store, tmp_path):
    folder, recorded = tmp_path / "results", counted / "results"
    for content in ({"runs.csv": "mine"}, {"deep/other.txt": "mine"}):
        for name, text in content.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        before = files_of(folder)
        with pytest.raises(ValueError, match=r"results has files that were not made here.*choose"):
            plans.complete(recorded, folder, "synthetic", ["sl"])
        assert files_of(folder) == before
        shutil.rmtree(folder)
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="no folder of its own"):
        plans.complete(recorded, folder, "synthetic", ["sl"])
    folder.unlink()
    folder.mkdir()  # empty: nothing to lose
    plans.complete(recorded, folder, "synthetic", ["sl"])
    (folder / "old").touch()
    plans.complete(recorded, folder, "synthetic", ["sl"])
    assert not (folder / "old").exists()
    assert files_of(folder).keys() - {plans.MADE} == files_of(recorded).keys()


@pytest.mark.slow
def test_what_the_store_cannot_give_again_is_kept_under_another_name(counted, store, tmp_path):
    folder, recorded = tmp_path / "results", counted / "results"
    options = {"trials": 1, "seeds": 1, "config": TINY, "compute": Compute(workers=0)}
    for _ in range(2):
        plans.complete(recorded, folder, "synthetic", ["bpr"], **options)
    assert [path.name for path in tmp_path.glob("results*")] == ["results"]  # given again
    before = files_of(folder)
    assert "trials.csv" in before
    shutil.rmtree(store)
    plans.complete(recorded, folder, "synthetic", ["sl"])
    assert files_of(tmp_path / "results-1") == before
    assert "bpr" not in (folder / "runs.csv").read_text()
    assert files_of(folder)["trials.csv"] == before["trials.csv"]


@pytest.mark.slow
def test_a_file_of_one_s_own_is_completed_and_swept(store, tmp_path):
    users, items = datasets.load("synthetic").train.nonzero()
    own = tmp_path / "own.csv"
    pd.DataFrame({"user": users, "item": items}).to_csv(own, index=False)
    options = {"trials": 1, "seeds": 1, "config": TINY, "compute": Compute(workers=0)}
    options["plan"] = lambda rows: plans.noise_plan(rows, (0, 0.5), range(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of users and items without a train pair
        e = plans.complete("none", tmp_path / "out", str(own), ["sl"], **options)
    (name,) = e.runs["dataset"].unique()
    assert e.mean((name, "mf", 0.5, "ndcg@20"), "sl") > 0
    assert e.mean((name, "mf", 0.0, "k1"), "sl") > 0
    assert len(list((tmp_path / "out" / "per_user").iterdir())) == 2
