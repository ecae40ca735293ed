"""Checked exercises: what is right is worked out here anew, and no cell holds an answer."""

import math
import re

import nbformat
import numpy as np
import pytest

from drrl_core.pages import runner
from drrl_core.show import exercises

f = np.sort(np.random.default_rng(1).normal(size=1000))[::-1]
RIGHT = {  # by hand: mass e^ρ/n on the highest until it is used up; e^(ρ/2); r e^ρ
    "heard": int(np.sum(np.arange(1000) * 4 / 1000 < 1)),
    "weight": math.sqrt(math.exp(1.2)),
    "drawn": 0.1 * math.e,
}


@pytest.mark.parametrize("name", exercises.EXERCISES)
def test_right_is_right_and_each_slip_is_told_its_reason(name, capsys):
    asked = exercises.EXERCISES[name]

    def said(answer) -> str:
        exercises.check(name, answer)
        return capsys.readouterr().out.strip()

    assert said(RIGHT[name]) == f"Right. {asked.because}"
    assert said(np.float64(RIGHT[name])).startswith("Right.")
    for why, slip in asked.slips.items():
        assert said(slip) == f"Not yet. {why}"
    for wrong in (1.02 * RIGHT[name], -7, math.nan):
        assert said(wrong) == f"Not yet. {asked.hint}"
    assert said(None).startswith("No answer yet") and "not 'many'" in said("many")


def test_a_notebook_asks_each_and_gives_no_answer_away():
    asked = {}
    for path in runner.folder().glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        for cell in cells:
            for name in re.findall(r'exercises\.check\("(\w+)", answer\)', cell.source):
                assert cell.source.startswith("answer = None")
                asked[name] = path.stem
    assert asked.keys() == exercises.EXERCISES.keys() == RIGHT.keys()
    assert len({*asked.values()}) == 3
