"""Losses and backbones from outside the package: CONTRIBUTING's recipes, followed to the letter."""

import hashlib
import json
import linecache
import os
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pandas as pd
import pytest
import torch

import drrl_core
from drrl_core import backbones, classical, losses, registry
from drrl_core.lab import results, spaces, store
from drrl_core.lab.run import configure, key_of
from drrl_core.show import style
from drrl_core.testing import check_backbone, check_classical

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in; what is registered there is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRRL_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    rooms = losses.REGISTRY, backbones.REGISTRY, classical.REGISTRY
    before = [{*each} for each in rooms]
    yield tmp_path
    for known, kept in zip(rooms, before, strict=True):
        for name in {*known} - kept:
            del known[name]
    for name in "my_loss", "my_backbone", "my_model", "edited", "broken":
        sys.modules.pop(name, None)


def follow(heading: str, folder: Path) -> list[dict]:
    """Do what CONTRIBUTING says under a heading; the records of the runs that came of it."""
    part = PAGE.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    (file,) = re.findall(r"Save this as `(\w+\.py)`", part)
    (code,) = re.findall(r"```python\n(.*?)```", part, re.S)
    (folder / file).write_text(code)
    commands = re.findall(r"^drrl .*$", part, re.M)
    assert commands
    for line in commands:  # -P: as the `drrl` command, it does not look for modules here
        words = [sys.executable, "-P", "-m", "drrl_core", *shlex.split(line)[1:]]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=os.environ)
        assert done.returncode == 0, done.stderr
    records = [json.loads(path.read_text()) for path in (folder / "runs").glob("*/record.json")]
    digest = hashlib.sha256(code.encode()).hexdigest()
    for record in records:
        (origin,) = record["origin"].values()
        assert origin["sha256"] == digest and origin["file"] == str(folder / file)
    return records


@pytest.mark.slow
def test_the_recipe_for_a_loss(here):
    records = follow("A loss", here)
    assert len(records) >= 2 and {each["loss"] for each in records} == {"my_loss:squared_hinge"}
    name = "my_loss:squared_hinge"
    assert losses.make(name, margin=0.2).hyper == {"margin": 0.2}
    assert style.label(name) == "Squared hinge" and name in spaces.variants(8)
    for record in records:
        again = store.load(record["key"])
        assert again.record["test"] == record["test"]
    assert store.table()["loss"].eq(name).all()


@pytest.mark.slow
def test_the_recipe_for_a_backbone(here):
    (record,) = follow("A backbone", here)
    assert record["backbone"] == "my_backbone:Turned" and "backbone" in record["origin"]
    assert store.load(record["key"]).record["test"] == record["test"]
    check_backbone("my_backbone:Turned", {"dim": 3})


@pytest.mark.slow
def test_a_classical_model_of_one_s_own_is_trained_and_tuned_by_its_name(here):
    records = follow("A classical model", here)
    assert len(records) >= 2 and {each["backbone"] for each in records} == {"my_model:damped"}
    assert all("model" in each["origin"] and each["loss"] == "" for each in records)
    check_classical("my_model:damped", {"power": 1.0})
    (test,) = {each["test"]["ndcg@20"] for each in records}  # no power changes the order
    plain = configure("synthetic", "", "popularity")
    assert store.get_or_train(plain, store=here / "plain").record["test"]["ndcg@20"] == test


def test_a_broken_classical_model_is_told_what_is_wrong():
    def short(train, *, power=1.0):
        return lambda users: torch.zeros(len(users), 2)

    with pytest.raises(ValueError, match=r"(?s)checks failed.*a column an item"):
        check_classical(short)
    with pytest.raises(ValueError, match=r"a function of \(train\)"):
        check_classical(lambda users, items: None)


MINE = """
def mine(pos, neg, *, temperature=0.2):
    return (neg / temperature).logsumexp(-1) - pos / temperature
"""


def test_an_edited_loss_is_another_loss_and_none_of_ours(here):
    (here / "edited.py").write_text(MINE)
    run = configure("synthetic", "edited:mine")
    key = key_of(run, "")
    assert key != key_of(configure("synthetic", "sl"), "")
    (here / "edited.py").write_text(MINE + "# edited\n")
    del losses.REGISTRY["edited:mine"], sys.modules["edited"]
    assert key_of(run, "") != key  # which imports it


def test_a_loss_of_a_notebook_is_told_by_its_own_lines(here, monkeypatch):
    """Which has no file; and no other process finds it."""
    found = []
    for text in (MINE, MINE.replace("0.2", "0.3"), MINE):
        home = types.ModuleType("a_notebook")
        monkeypatch.setitem(sys.modules, "a_notebook", home)
        monkeypatch.setitem(linecache.cache, "<cell>", (len(text), None, text.splitlines(True), ""))
        exec(compile(text, "<cell>", "exec"), vars(home))
        name = drrl_core.register(home.mine, label="Mine")
        found.append(losses.lookup(name).origin)
    assert name == "a_notebook:mine" and found[0]["file"] == "a notebook"
    assert found[0] == found[2] and found[0]["sha256"] != found[1]["sha256"]


def test_a_table_imports_nothing(here):
    (here / "told.py").write_text("raise SystemExit('a table of runs ran this')")
    row = {"backbone": "mf", "loss": "told:mine", "raised": ""}
    assert not results._current(pd.DataFrame([row]))[0]
    assert results._current(pd.DataFrame([row | {"loss": "sl"}]))[0]


def refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        configure("synthetic", name)


def test_what_cannot_be_used_is_refused_and_says_why(here):
    (here / "broken.py").write_text(
        MINE.replace("logsumexp(-1)", "mean(-1)") + "from math import inf\nfrom os import system\n"
    )
    refused("broken:mine", r"mine is no loss that can be trained, [\s\S]*masked negative")
    refused("broken:mien", r"module 'broken' defines no 'mien' \(did you mean 'mine'\?\)")
    refused("broken:system", "defines no 'system'")
    refused("nowhere:mine", r"cannot be imported .*: run where nowhere.py lies")
    refused("__main__:mine", "put it into a module of its own")
    refused("shutil:rmtree", r"a loss is a function of \(pos, neg\)")
    for kind in ("los", ""):
        with pytest.raises(ValueError, match="kind must be one of loss, backbone"):
            drrl_core.register(losses.softmax_loss, kind=kind)
    with pytest.raises(ValueError, match=r"no fact of a loss is called 'color'.*'colour'"):
        drrl_core.register(losses.softmax_loss, color="red")
    with pytest.raises(ValueError, match="is neither a function nor a class"):
        drrl_core.register(registry)


def test_every_entry_says_where_it_comes_from():
    for line in (*losses.REGISTRY.values(), *backbones.REGISTRY.values()):
        assert line.label and not line.origin
        assert line.source or line.label == "MF"
