"""What is searched: every loss, every corner of its space."""

import json
import math

from drrl_core import datasets, losses
from drrl_core.lab import spaces
from drrl_core.lab.run import configure


def test_every_loss_has_a_variant_and_every_corner_of_its_space_is_accepted():
    table = spaces.variants(64)
    assert {variant.loss for variant in table.values()} == losses.REGISTRY.keys()
    for name, variant in table.items():
        for end in (0, 1):
            point = {key: each[end] for key, each in variant.space.items()}
            settings = spaces.config_of(variant, point)
            run = configure("synthetic", variant.loss, "mf", settings)
            assert spaces.variant_of(run.loss, run.loss_config) == name
            assert configure("synthetic", variant.loss, "mf", json.loads(json.dumps(settings)))


def test_the_balls_are_no_point_mass_and_both_ends_of_the_family_are_within():
    for count in (64, 1024, 3570):
        for name in ("drrl", "drrl-shared", "drrl-fixed", "drrl-exact"):
            space = spaces.variants(count)[name].space
            assert space["loss.radius"][:2] == (0.05, 0.85 * math.log(count))
            low, high = (1 + gamma for gamma in space["loss.order-1"][:2])
            assert low / (low - 1) >= 50 and high / (high - 1) <= 1.007


def test_what_is_given_is_not_searched():
    data = datasets.load("synthetic")

    def plan(name, **given):
        found = spaces.plan(data, "synthetic", name, "mf", given)
        return found.variant.space.keys(), found.run()

    space, run = plan("drrl", weight=1, order=2, lr=0.5, negatives=32)
    assert space == {"loss.start", "train.dual_lr"}
    assert (run.loss_config["weight"], run.loss_config["radius"]) == (1, None)
    assert (run.loss_config["order"], run.train.lr) == (2, 0.5)
    space, _ = plan("drrl-exact", sampler="catalogue")
    assert space == {"loss.order-1", "loss.radius", "train.lr"}
    wide = spaces.plan(data, "synthetic", "drrl-exact", "mf", {"sampler": "catalogue"})
    assert wide.variant.space["loss.radius"].high == 0.85 * math.log(800)
    found = spaces.plan(data, "synthetic", "sl", "xsimgcl", {"backbone.temperature": 0.3})
    assert "loss.temperature" in found.variant.space


def test_studies_are_apart_where_anything_differs():
    data = datasets.load("synthetic")
    given = [{}, {"epochs": 3}, {"seed": 1}, {"negatives": 32}, {"lr": 0.1}, {"train.lr": 0.1}]
    names = [spaces.plan(data, "synthetic", "sl", "mf", each).study for each in given]
    names += [spaces.plan(data, "synthetic", name, "mf", {}).study for name in ("drrl", "ccl")]
    assert len(set(names)) == len(names) - 1 and names[4] == names[5]
    assert all(name.startswith("synthetic/mf/") for name in names)
