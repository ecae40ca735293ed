"""Shared by all tests: where skips are not allowed, and one thread so that timings do not fight."""

import os

import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """With DRRL_NO_SKIPS=data,browser a test so marked fails instead of skipping."""
    report = (yield).get_result()
    forbidden = set(os.environ.get("DRRL_NO_SKIPS", "").split(",")) - {""}
    marks = forbidden & {mark.name for mark in item.iter_markers()}
    if report.skipped and marks and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = (
            f"{item.nodeid} must not skip here ({', '.join(marks)}): {report.longrepr}"
        )
