"""Shared by all tests: a run store of their own, and where skips are not allowed."""

import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor

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


@pytest.fixture
def store(monkeypatch, tmp_path):
    """Finished runs are kept apart for a test."""
    monkeypatch.setenv("DRRL_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def at_once(monkeypatch):
    """Workers are threads: no process to start, and a test can reach into them."""
    import torch

    from drrl_core.lab import workers

    threads = torch.get_num_threads()
    monkeypatch.setattr(workers, "_process", lambda: ThreadPoolExecutor(1))
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """A folder with `runs.csv`, and the store of its runs."""
    from samples import COUNTING, sweep, write

    from drrl_core.lab import workers
    from drrl_core.lab.workers import Compute

    home = tmp_path_factory.mktemp("counted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "_process", lambda: ThreadPoolExecutor(1))
        place = Compute(home / "runs")
        sweep(write(home, COUNTING), csv=home / "results" / "runs.csv", compute=place)
    return home


@pytest.fixture
def ctrl_c(monkeypatch):
    """Ctrl-C falls into the third evaluation, once."""
    from drrl_core.train import metrics

    evaluate, seen = metrics.evaluate, []

    def interrupted(*given, **options):
        seen.append(given)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return evaluate(*given, **options)

    monkeypatch.setattr(metrics, "evaluate", interrupted)


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
