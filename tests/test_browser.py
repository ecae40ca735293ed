"""A real browser: dials in JupyterLab and in Voilà answer to the keyboard, pages need no network.

Screenshots are left in out/browser, and what went wrong beside them. Selectors and what is known
of the explorers' layout are in `Explorer`; all waiting is for a state, none for a time.
"""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook
from test_gallery import shelf

from drrl_core import dro, explorers, gallery

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[1]
SHOTS = ROOT / "out" / "browser"
PATIENCE = 120  # seconds, for anything: a loaded machine is slow, not broken
NEWS = "@jupyterlab/apputils-extension:notification"
KERNELS = "@jupyterlab/apputils-extension:kernels-settings"
CELLS = (
    "import numpy as np\nfrom drrl_core import explorers",
    "scores = np.random.default_rng(0).normal(0, 0.3, 500)",
    "explorers.worst_case({'Gaussian': scores})",
)
GAUSSIAN = np.random.default_rng(0).normal(0, 0.3, 500)


def eventually(check, what: str):
    """The first true value of `check()`."""
    end = time.monotonic() + PATIENCE
    while not (found := check()):
        assert time.monotonic() < end, f"{what}: not within {PATIENCE} s"
        time.sleep(0.05)
    return found


def worst_value(scores: np.ndarray, order: float, radius: float) -> str:
    """What the readout is to begin with, by the package itself."""
    value = dro.worst_case(torch.from_numpy(scores), order=order, radius=radius).value
    return f"value {float(value):.4g} score"


class Explorer:
    """Dials, picture, readout: the explorer of a page that comes `nth`."""

    def __init__(self, page, nth: int = 0):
        self.page = page
        self.root = page.locator(".widget-vbox:has(> img.widget-image)").nth(nth)
        self.image = self.root.locator("img.widget-image")
        self.dials = self.root.locator(".widget-hslider")
        self.root.wait_for(timeout=1000 * PATIENCE)
        eventually(self.picture, "the first picture")

    def readout(self) -> str:
        return self.root.locator(".drrl-readout").inner_text()

    def parameters(self) -> dict[str, str]:
        """The values of all dials, as the line for papermill has them."""
        line = self.root.get_by_text("papermill:").inner_text()
        return dict(re.findall(r"-p (\w+) (\S+)", line))

    def picture(self) -> str:
        """A hash of what is shown; empty while it is being replaced."""
        script = """async image => { try {
            const bytes = await (await fetch(image.src)).arrayBuffer();
            return image.naturalWidth ? Array.from(new Uint8Array(bytes)).join() : ""
        } catch { return "" } }"""
        shown = self.image.evaluate(script)
        return shown and hashlib.sha256(shown.encode()).hexdigest()

    def press(self, dial: int, *keys: str) -> None:
        self.dials.nth(dial).locator(".noUi-handle").focus()
        for key in keys:
            self.page.keyboard.press(key)

    def label(self, dial: int) -> str:
        return self.dials.nth(dial).locator(".widget-label").inner_text()

    def value(self, dial: int) -> str:
        return self.dials.nth(dial).locator(".widget-readout").inner_text()


@pytest.fixture(scope="module")
def chromium():
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


@contextmanager
def browsing(chromium, name: str, log: Path | None = None, **options):
    """A page, and what it said of errors; on a failure its picture, console and server's log."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    said, faults = [], []
    context = chromium.new_context(**{"viewport": {"width": 1400, "height": 1000}} | options)
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: (said.append(str(error)), faults.append(str(error))))
    try:
        yield page
        assert not faults
    except BaseException:
        report = said + (log.read_text().splitlines() if log else [])
        (SHOTS / f"{name}.failed.txt").write_text("\n".join(report))
        page.screenshot(path=SHOTS / f"{name}.failed.png")
        raise
    finally:
        context.close()


@contextmanager
def serving(home: Path, command: list[str], settings: dict | None = None):
    """A Jupyter server of our own folders alone, on a free port: address and log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {
        f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")
    }
    own |= {"IPYTHONDIR": str(home / "ipython"), "JUPYTERLAB_SETTINGS_DIR": str(home / "settings")}
    overrides = home / "config" / "labconfig" / "default_setting_overrides.json"
    overrides.parent.mkdir(parents=True)
    overrides.write_text(json.dumps(settings or {}))
    log = home / "server.log"
    command = [sys.executable, "-m", *command, "--no-browser", f"--port={port}"]
    with log.open("w") as output:
        server = subprocess.Popen(command, env=os.environ | own, stdout=output, stderr=output)
    try:

        def answers() -> bool:
            assert server.poll() is None, log.read_text()
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", port)) == 0

        eventually(answers, f"{command[2]} answers")
        yield f"http://127.0.0.1:{port}", log
    finally:
        server.terminate()
        server.wait(60)


@contextmanager
def jupyterlab(home: Path, settings: dict | None = None):
    """JupyterLab, its settings the default ones but for the news pop-up; address and log."""
    settings = {NEWS: {"fetchNews": "false"}} | (settings or {})
    command = ["jupyterlab", "--allow-root", "--expose-app-in-browser", "--ServerApp.ip=127.0.0.1"]
    command += ["--IdentityProvider.token=t", f"--ServerApp.root_dir={home / 'work'}"]
    with serving(home, command, settings) as (address, log):
        for name, chosen in settings.items():  # or a test of other settings would test the default
            with urllib.request.urlopen(f"{address}/lab/api/settings/{name}?token=t") as reply:
                known = json.load(reply)["schema"]["properties"]
            assert all(known[key]["default"] == value for key, value in chosen.items())
        yield address, log


def run_all(page, address: str, name: str) -> None:
    """Open a notebook, wait for its kernel, run every cell to the end."""
    for attempt in (1, 2):
        page.goto(f"{address}/lab/tree/{name}?token=t&reset")
        try:
            page.locator(".jp-Notebook .jp-Cell").first.wait_for()
            break
        except Exception:
            if attempt == 2:
                raise
    # The indicator says "idle" before there is a kernel, and cells run then are silently dropped.
    page.wait_for_function(
        "() => { const session = jupyterapp.shell.currentWidget?.sessionContext;"
        " const kernel = session?.session?.kernel;"
        " return session?.isReady && kernel?.connectionStatus === 'connected'"
        " && kernel.status === 'idle' }"
    )
    page.evaluate(
        "() => { window.ran = null; jupyterapp.commands.execute('notebook:run-all-cells')"
        ".then(() => { window.ran = true }) }"
    )
    page.wait_for_function("() => window.ran")
    counts = page.evaluate(
        "() => Array.from(jupyterapp.shell.currentWidget.content.model.cells)"
        ".filter(cell => cell.type === 'code').map(cell => cell.executionCount)"
    )
    assert counts == list(range(1, len(counts) + 1))


def no_errors(page) -> None:
    for kind in ("error", "stderr"):
        found = page.locator(f'[data-mime-type="application/vnd.jupyter.{kind}"]').all_inner_texts()
        assert not found, found[0]
    assert page.locator(".jp-Dialog").count() == 0
    assert not page.get_by_text("Error displaying widget").count()
    for line in page.locator(".drrl-readout").all():
        assert line.locator("b").count() == 0, line.inner_text()


def play(view: Explorer, name: str) -> None:
    """Each dial by keyboard, then fifty moves at once: the readout is the package's own answer."""

    def agrees() -> bool:
        now = view.parameters()
        order = min(explorers.ORDERS, key=lambda one: abs(one - float(now["order"].lstrip("."))))
        return view.readout().startswith(worst_value(GAUSSIAN, order, float(now["radius"])))

    eventually(agrees, "the first readout")
    assert view.parameters()["order"] == "2" and view.parameters()["radius"] == "1"
    moved = 0
    for dial in range(view.dials.count()):
        before, value, shown = view.parameters(), view.value(dial), view.picture()
        view.press(dial, "ArrowRight", "ArrowRight", "ArrowLeft", "ArrowRight")
        eventually(lambda d=dial, v=value: view.value(d) != v, f"{view.label(dial)} moves")
        eventually(lambda old=before: view.parameters() != old, f"{view.label(dial)} is heard")
        eventually(agrees, f"the readout after {view.label(dial)}")
        if "λ" not in view.label(dial):  # the radius is what is held
            eventually(lambda old=shown: view.picture() not in (old, ""), "a new picture")
            moved += 1
    assert moved >= 3
    view.page.screenshot(path=SHOTS / f"{name}.png")

    radius = next(d for d in range(view.dials.count()) if "ρ" in view.label(d))
    start = float(view.value(radius))
    view.press(radius, *["ArrowRight"] * 50)
    assert float(view.value(radius)) == pytest.approx(start + 50 * 0.05)
    eventually(lambda: float(view.parameters()["radius"]) == float(view.value(radius)), "the last")
    eventually(agrees, "the readout after fifty moves")
    # drawn once more, without haste: had an older picture come last, this one would differ
    quick = view.picture()
    view.press(radius, "ArrowLeft")
    eventually(lambda: view.picture() not in (quick, ""), "one step back")
    eventually(agrees, "the readout one step back")
    view.press(radius, "ArrowRight")
    eventually(lambda: view.picture() == quick, "the picture after fifty moves was the last one")
    eventually(agrees, "the readout at the end")


@pytest.mark.parametrize("subshells", ["default", "disabled"])
def test_dials_in_jupyterlab(chromium, tmp_path, subshells):
    (tmp_path / "work").mkdir()
    cells = [new_code_cell(cell) for cell in CELLS]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), tmp_path / "work" / "dials.ipynb")
    settings = {KERNELS: {"commsOverSubshells": "disabled"}} if subshells == "disabled" else {}
    name = f"lab-{subshells}"
    with jupyterlab(tmp_path, settings) as (address, log), browsing(chromium, name, log) as page:
        run_all(page, address, "dials.ipynb")
        view = Explorer(page)
        view.root.scroll_into_view_if_needed()
        play(view, name)
        no_errors(page)


def test_dials_in_voila(chromium, tmp_path):
    pytest.importorskip("voila")
    cells = [new_code_cell(cell) for cell in CELLS]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), tmp_path / "dials.ipynb")
    command = ["voila", str(tmp_path / "dials.ipynb"), "--Voila.ip=127.0.0.1"]
    with serving(tmp_path, command) as (address, log), browsing(chromium, "voila", log) as page:
        page.goto(address)
        play(Explorer(page), "voila")
        no_errors(page)


def test_the_gallery_without_network(chromium, tmp_path):
    index = gallery.build(shelf(tmp_path / "executed"), tmp_path / "gallery")
    asked, failed = [], []

    def route(handler):
        asked.append(handler.request.url)
        (handler.continue_ if handler.request.url.startswith("file:") else handler.abort)()

    phone = {"width": 390, "height": 844}
    with browsing(chromium, "gallery", offline=True, viewport=phone) as page:
        page.route("**/*", route)
        page.on("requestfailed", lambda request: failed.append(request.url))
        page.on("console", lambda message: failed.append(message.text))

        def pictures() -> list[int]:
            return page.eval_on_selector_all("img", "all => all.map(each => each.naturalWidth)")

        page.goto(index.as_uri())
        assert len(pictures()) == 2 and min(pictures()) > 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.screenshot(path=SHOTS / "gallery-phone.png", full_page=True)
        page.get_by_role("link", name="Which negatives count").first.click()

        assert len(pictures()) == 2 and min(pictures()) > 0
        heights = page.eval_on_selector_all(
            "math", "all => all.map(each => each.getBoundingClientRect().height)"
        )
        assert len(heights) == 12 and sorted(heights)[1] > 5  # all but the folded one
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        answer = page.get_by_text("Folded:")
        assert not answer.is_visible()
        page.locator("summary").click()
        assert answer.is_visible()
        page.screenshot(path=SHOTS / "page-phone.png", full_page=True)
        page.set_viewport_size({"width": 1100, "height": 900})
        page.screenshot(path=SHOTS / "page-wide.png", full_page=True)
        page.get_by_role("link", name="All notebooks").click()
        page.screenshot(path=SHOTS / "gallery-wide.png", full_page=True)
        assert page.url == index.as_uri()
        assert not failed and all(url.startswith(("file:", "data:")) for url in asked)
