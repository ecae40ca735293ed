"""Shared by all tests: a run store of their own, and where skips are not allowed."""

import os
import signal

import pytest

# Tests press Ctrl-C; a shell's background jobs, and all they start, would not hear it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def own_run_store(tmp_path_factory):
    """Tests, doctests and the kernels they start keep no runs among the user's."""
    os.environ["DRRL_RUNS"] = str(tmp_path_factory.mktemp("runs"))


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
