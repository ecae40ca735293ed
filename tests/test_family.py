"""docs/family.md names losses, settings and tests that exist."""

import re
from pathlib import Path

from drrl_core import losses

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "family.md").read_text(encoding="utf-8")
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")][1:]


def test_every_row_names_a_loss_and_a_test_that_exist():
    tests = (ROOT / "tests" / "losses" / "test_losses.py").read_text(encoding="utf-8")
    assert len(ROWS) > 15
    for *_, here, test in ROWS:
        for name in re.findall(r"`([a-z-]+)`", here):
            assert name in losses.REGISTRY, name
        for name in re.findall(r"`(test_\w+)`", test):
            assert f"def {name}(" in tests, name
        assert "`test_" in test or test == "the same"


def test_every_loss_has_a_row():
    assert {*losses.REGISTRY} <= {*re.findall(r"`([a-z-]+)`", PAGE)}
