"""Shared by all tests: a run store of their own, and where skips are not allowed."""

import os
import shutil
import signal

import pytest

# Tests press Ctrl-C; a shell's background jobs, and all they start, would not hear it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def own_run_store(tmp_path_factory):
    """Tests, doctests and the kernels they start keep no runs among the user's."""
    os.environ["DRRL_RUNS"] = str(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def chromium():
    """An installed Chromium, started once; skips where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None)
    if not path:
        pytest.skip(f"no browser: none of {', '.join(names)} is on PATH (apt install chromium)")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


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
